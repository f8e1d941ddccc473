"""OpenTelemetry's instrumentation of urllib sees our calls: a client span per attempt, and `traceparent` on the wire.

pip install opentelemetry-instrumentation-urllib opentelemetry-sdk
"""

import asyncio
import contextlib
import pathlib
import tempfile
import unittest

from aerostack_lite import SDK, errors
from tests.scripted_server import LoopbackTestCase, ScriptedServer, answer, free_port, header, repeat, until_gone
from tests.upload_case import DATA, QUICK, blocks

try:
    from opentelemetry import trace
    from opentelemetry.instrumentation.urllib import URLLibInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    trace = None

FOUND = answer(b'{"exists":true,"value":1}')
STORED = answer(b'{"url":"u"}')
BUSY = answer(b"{}", status="503 Busy")
KEY = "the-key-of-the-tests"


def get():
    return ("cache", "cache_get", {"key": "k"})


def upload(content):
    return ("storage", "storage_upload", {"key": "k", "file": {"file_name": "f", "content": content}})


def answering(*answers):
    """A script that answers each request with the next of these, on whatever connection it comes."""
    left = list(answers)

    def reply(peer):
        peer.read_request()
        peer.send(left.pop(0))

    return repeat(reply)


def status(span):
    """The status that the server gave, by OpenTelemetry's older or newer name, and whether the span is a failure."""
    given = span.attributes.get("http.status_code") or span.attributes.get("http.response.status_code")
    return given, span.status.status_code is trace.StatusCode.ERROR


def traceparent(span):
    """The header that names a span, as OpenTelemetry itself writes it."""
    headers = {}
    TraceContextTextMapPropagator().inject(headers, trace.set_span_in_context(trace.NonRecordingSpan(span.context)))
    return headers["traceparent"]


@unittest.skipUnless(trace, "opentelemetry is not installed")
class OpenTelemetryTest(LoopbackTestCase):
    def setUp(self):
        super().setUp()
        self.exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.addCleanup(provider.shutdown)
        URLLibInstrumentor().instrument(tracer_provider=provider)
        self.addCleanup(URLLibInstrumentor().uninstrument)
        self.tracer = provider.get_tracer("a program")

    def observe(self, url, operation, twin, **options):
        """The client spans of a call, whatever comes of it. Each belongs to the span in which the program called."""
        service, name, fields = operation
        self.exporter.clear()
        with SDK(KEY, server_url=url, **options) as sdk, self.tracer.start_as_current_span("the program's work"):
            call = getattr(getattr(sdk, service), name + twin)
            with contextlib.suppress(errors.AerostackError):
                if twin:
                    asyncio.run(self.awaited(sdk, call, fields))
                else:
                    call(**fields)
        *spans, work = self.exporter.get_finished_spans()
        for span in spans:
            self.assertIs(span.kind, trace.SpanKind.CLIENT)
            self.assertEqual((span.parent.trace_id, span.parent.span_id), (work.context.trace_id, work.context.span_id))
        return spans

    async def awaited(self, sdk, call, fields):
        async with sdk:
            await call(**fields)

    def check(self, make, answers, statuses, **options):
        """Both twins of an operation, answered so, make spans with these statuses, and tell the server their ids."""
        for twin in ("", "_async"):
            with self.subTest(twin=twin), ScriptedServer(answering(*answers)) as server:
                spans = self.observe(server.url, make(), twin, **options)
                self.assertEqual([status(span) for span in spans], statuses)
                told = [header(request, "traceparent") for request in server.requests]
                self.assertEqual(told, [[traceparent(span)] for span in spans])

    def test_a_call_is_one_client_span_under_the_program_s_own(self):
        self.check(get, [FOUND], [(200, False)])

    def test_an_error_of_the_api_is_a_failed_span_with_its_status(self):
        unknown = answer(b'{"code":"AUTH_INVALID_KEY","message":"who are you"}', status="401 Unauthorized")
        self.check(get, [unknown], [(401, True)])

    def test_every_attempt_of_a_retried_call_is_a_span_of_its_own(self):
        self.check(get, [BUSY, BUSY, FOUND], [(503, True), (503, True), (200, False)], retry_config=QUICK)

    def test_an_upload_of_any_kind_is_one_span(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "file.bin")
            path.write_bytes(DATA)
            for kind, content in (("bytes", lambda: DATA), ("path", lambda: path), ("stream", lambda: blocks(200000))):
                with self.subTest(kind):
                    self.check(lambda: upload(content()), [STORED], [(200, False)])

    def test_every_attempt_of_a_retried_upload_is_a_span_of_its_own(self):
        self.check(lambda: upload(DATA), [BUSY, STORED], [(503, True), (200, False)], retry_config=QUICK)

    def test_a_redirected_request_names_a_span_too(self):
        moved = answer(b"", "Location: /elsewhere", status="307 Moved")
        for twin in ("", "_async"):
            with self.subTest(twin=twin), ScriptedServer(answering(moved, FOUND)) as server:
                spans = self.observe(server.url, get(), twin)
                self.assertEqual(status(spans[-1]), (200, False))
                self.assertEqual(len(server.requests), 2)
                for request in server.requests:
                    (told,) = header(request, "traceparent")
                    self.assertIn(told, map(traceparent, spans))

    def test_an_attempt_without_a_response_is_a_failed_span_that_holds_the_error(self):
        with ScriptedServer([until_gone]) as server:
            for url, kind in ((server.url, "Timeout"), ("http://127.0.0.1:%d" % free_port(), "ConnectError")):
                for twin in ("", "_async"):
                    with self.subTest(kind, twin=twin):
                        (span,) = self.observe(url, get(), twin, timeout_ms=200, retry_config=None)
                        self.assertEqual(status(span), (None, True))
                        self.assertIn(kind, span.events[0].attributes["exception.type"])

    def test_a_span_holds_neither_the_key_nor_a_password(self):
        with ScriptedServer(answering(FOUND, FOUND)) as server:
            for twin in ("", "_async"):
                (span,) = self.observe(server.url.replace("//", "//user:sekret@"), get(), twin)
                self.assertNotIn("sekret", span.to_json())
                self.assertNotIn(KEY, span.to_json())


if __name__ == "__main__":
    unittest.main()
