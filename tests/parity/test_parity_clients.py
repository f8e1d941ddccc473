"""Clients of the user's own, the life of an SDK, the debug log."""

import asyncio
import json
import logging
import socket
import threading
import unittest
import urllib.request

from tests.parity.beside import FOUND, OPERATIONS, Case, Own, Parity, good
from tests.parity.recorder import SILENCE, Answer
from tests.parity.sources import one_way

REQUEST = {"key": "k"}


class Reply:
    """The least that a foreign client's response has."""

    def __init__(self, status_code=200, text='{"exists":true}', kind="application/json", **headers):
        self.status_code, self.text, self.content = status_code, text, text.encode()
        self.headers, self.url, self.reason_phrase = dict(headers, **{"content-type": kind}), "http://fake/", "OK"

    def iter_text(self):
        yield self.text

    async def aiter_text(self):
        yield self.text

    def iter_bytes(self):
        yield self.content

    def json(self):
        return json.loads(self.text)


class Fake:
    """A client with just the three methods, that keeps what it was given."""

    def __init__(self, *replies):
        self.replies, self.built, self.sent, self.closed = list(replies), [], [], False

    def build_request(self, method, url, **options):
        self.built.append((method, str(url), options))
        return Sent(method, url, options.get("headers"))

    def send(self, request, *, stream=False, auth=None, follow_redirects=None):
        self.sent.append((request, stream))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self):
        self.closed = True


class Sent:
    def __init__(self, method, url, headers):
        self.method, self.url, self.headers, self.content = method, url, headers, b""


class AsyncFake(Fake):
    async def send(self, request, *, stream=False, auth=None, follow_redirects=None):
        return Fake.send(self, request, stream=stream)

    async def aclose(self):
        self.closed = True

    close = None


class Lost(Exception):
    """A failure of the foreign client's own."""


def fakes(package, *replies, **options):
    """An SDK on two fakes, and the fakes."""
    sync, twin = Fake(*replies), AsyncFake(*replies)
    return (
        package.SDK(
            "key-1",
            server_url="http://fake/v1",
            client=sync,
            async_client=twin,
            **dict({"retry_config": None}, **options),
        ),
        sync,
        twin,
    )


class Fakes(Parity):
    def both(self, name, replies, question, call=None, **options):
        """The same question about the sync fake and the async one, on both sides."""
        call = call or {"request": REQUEST}

        def ask(package):
            answers = []
            for twin in (False, True):
                sdk, *clients = fakes(package, *(replies() if callable(replies) else replies), **options)
                if twin:
                    exchange = self.side(package).act(
                        lambda: self.loop.run_until_complete(sdk.cache.cache_get_async(**call))
                    )
                else:
                    exchange = self.side(package).act(lambda: sdk.cache.cache_get(**call))
                answers.append(question(exchange, clients[twin]))
            return answers

        self.same_value(name, ask)

    def test_what_is_asked_of_them(self):
        def asked(exchange, client):
            ((method, url, options),) = client.built
            content = options["content"]
            headers = {name.lower(): value for name, value in options["headers"].items()}
            return [
                method,
                url,
                content.decode() if isinstance(content, bytes) else content,
                [headers[name] for name in ("x-aerostack-key", "accept", "content-type", "x-own")],
                [stream for _, stream in client.sent],
                exchange.outcome(),
            ]

        self.both("one call", [Reply()], asked, {"request": REQUEST, "http_headers": {"X-Own": "1"}})

    def test_every_operation_reaches_them(self):
        def ask(package):
            seen = []
            for operation, (smallest, _, _, (status, _), _) in OPERATIONS.items():
                sdk, client, _ = fakes(package, Reply(status, "{}"))
                service, _, method = operation.partition(".")
                getattr(getattr(sdk, service), method)(request=smallest)
                seen.append(client.built[0][:2])
            return seen

        self.same_value("nine operations", ask)

    def test_their_answers(self):
        for status, text, kind in (
            (404, "gone", "text/plain"),
            (500, '{"code":"x"}', "application/json"),
            (200, "{", "application/json"),
            (200, "ok", "text/html"),
            (503, "", "text/html"),
        ):
            self.both(
                "%d %s" % (status, text),
                [Reply(status, text, kind)],
                lambda exchange, client: [
                    type(exchange.error).__name__,
                    exchange.error.status_code,
                    exchange.error.body,
                    exchange.error.message.partition(":")[0],
                    exchange.error.raw_response.text,
                    exchange.error.headers["content-type"],
                ],
            )

    def test_none_is_no_response(self):
        self.both("None", [None], lambda exchange, client: exchange.outcome())

    def test_their_errors_pass_through_unchanged(self):
        import httpx

        for error in (
            Lost("by the client"),
            OSError(5, "by the system"),
            httpx.ConnectError("by httpx"),
            KeyError("k"),
        ):
            self.both(
                "raises %r" % error, [error], lambda exchange, client: [exchange.error is error, len(client.sent)]
            )

    def test_they_are_tried_again(self):
        def config(package):
            return package.utils.RetryConfig("backoff", package.utils.BackoffStrategy(1, 2, 1, 5000), True)

        def ask(package):
            sdk, client, _ = fakes(
                package, Reply(503, "busy", "text/plain"), Reply(429), Reply(), retry_config=config(package)
            )
            exchange = self.side(package).act(lambda: sdk.cache.cache_get(request=REQUEST))
            return [
                exchange.outcome(),
                len(client.built),
                len(client.sent),
                len({id(request) for request, _ in client.sent}),
            ]

        self.same_value("three attempts, one request", ask)

    def test_a_time_out_is_handed_over_in_seconds(self):
        for options, call in (({}, {"timeout_ms": 2500}), ({"timeout_ms": 2500}, {})):
            self.both(
                "timeout %r" % call,
                [Reply()],
                lambda exchange, client: client.built[0][2].get("timeout"),
                dict(call, request=REQUEST),
                **options,
            )

    def test_they_are_never_closed(self):
        def ask(package):
            sdk, sync, twin = fakes(package, Reply())
            with sdk:
                sdk.cache.cache_get(request=REQUEST)

            async def enter():
                async with sdk:
                    pass

            self.loop.run_until_complete(enter())
            return [sync.closed, twin.closed]

        self.same_value("left open", ask)

    def test_what_is_no_client_is_refused(self):
        for name, client in (
            ("object", object()),
            ("no send", type("Half", (), {"build_request": None, "close": None})()),
        ):
            self.same_value("client " + name, lambda package: self.refuses(lambda: package.SDK("key", client=client)))
            self.same_value(
                "async client " + name, lambda package: self.refuses(lambda: package.SDK("key", async_client=client))
            )

    @staticmethod
    def refuses(make):
        try:
            make()
        except (AssertionError, TypeError, ValueError):
            return True
        return False


class RealHttpx(Parity):
    """A real httpx.Client in the hands of both."""

    def real(self, name, answers=FOUND, client=None, request=None, operation="cache.cache_get", **options):
        import httpx

        client = client or {}
        self.same(
            Case(
                name,
                operation,
                request or REQUEST,
                answers,
                fresh=True,
                sdk=dict(
                    options,
                    client=Own(lambda package: self.open(httpx.Client(**client))),
                    async_client=Own(lambda package: self.open(httpx.AsyncClient(**client))),
                ),
            )
        )

    def open(self, client):
        def close():
            if hasattr(client, "aclose"):
                self.loop.run_until_complete(client.aclose())
            else:
                client.close()

        self.addCleanup(close)
        return client

    def test_every_operation(self):
        for operation, (_, fullest, _, _, _) in OPERATIONS.items():
            self.real("httpx", good(operation), request=fullest, operation=operation)

    def test_its_own_settings(self):
        import httpx

        self.real("headers", client={"headers": {"x-custom-header": "someValue"}})
        self.real("cookies", client={"cookies": {"a": "b"}})
        self.real("auth", client={"auth": ("user", "pw")})
        self.real(
            "redirects", [Answer(307, "", None, [("Location", "/v1/moved")]), FOUND], client={"follow_redirects": True}
        )
        self.real("timeout", client={"timeout": httpx.Timeout(5)})

    def test_its_answers(self):
        for status, body, kind in (
            (404, "gone", "text/plain"),
            (500, "é" * 11000, "text/html; charset=utf-8"),
            (200, "{", "application/json"),
            (401, {"code": "AUTH_INVALID_KEY", "message": "m"}, "application/json"),
        ):
            self.real(
                "%d" % status,
                Answer(status, body, kind, [("X-A", "1"), ("X-A", "2")]),
                request={"sql": "s"},
                operation="database.db_query",
            )

    def test_its_errors_are_its_own(self):
        import httpx

        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = "http://127.0.0.1:%d" % unused.getsockname()[1]

            def ask(package):
                with httpx.Client() as client:
                    error = (
                        self.side(package)
                        .act(
                            lambda: package.SDK(
                                "key", server_url=url, client=client, retry_config=None
                            ).cache.cache_get(request=REQUEST)
                        )
                        .error
                    )
                    return [type(error) is httpx.ConnectError, isinstance(error, package.errors.SDKBaseError)]

            self.same_value("refused", ask)

    def test_a_mock_transport(self):
        import httpx

        def ask(package):
            seen = []

            def handler(request):
                seen.append((request.method, str(request.url), request.content, request.headers["x-aerostack-key"]))
                return httpx.Response(200, json={"exists": False, "value": None})

            with httpx.Client(transport=httpx.MockTransport(handler)) as client:
                value = package.SDK("key", client=client).cache.cache_get(request=REQUEST)
            return [seen, value]

        self.same_value("mock transport", ask)

    def test_an_upload_streams_through(self):
        with open(__file__, "rb") as file:
            self.real(
                "file",
                good("storage.storage_upload"),
                operation="storage.storage_upload",
                request=Own(lambda package: {"key": "k", "file": {"file_name": "a.py", "content": file}}),
            )

    def test_hooks_see_the_same(self):
        import httpx

        seen = []

        def ask(package):
            del seen[:]
            with httpx.Client(
                event_hooks={
                    "request": [lambda request: seen.append(request.url.path)],
                    "response": [lambda response: seen.append(response.status_code)],
                }
            ) as client:
                self.server.play([FOUND])
                package.SDK("key", server_url=self.server.origin, client=client).cache.cache_get(request=REQUEST)
            return list(seen)

        self.same_value("event hooks", ask)


class Life(Parity):
    def test_a_context_manager_gives_the_sdk(self):
        def ask(package):
            with package.SDK("key") as sdk:
                return type(sdk).__name__

        self.same_value("with", ask)

    def test_each_context_manager_closes_its_half(self):
        def sync_first(package):
            sdk = self.side(package).sdk({}, fresh=True)
            with sdk:
                pass
            return self.loop.run_until_complete(sdk.cache.cache_get_async(request=REQUEST)).exists

        def twin_first(package):
            sdk = self.side(package).sdk({}, fresh=True)

            async def enter():
                async with sdk:
                    return (await sdk.cache.cache_get_async(request=REQUEST)).exists

            return [self.loop.run_until_complete(enter()), sdk.cache.cache_get(request=REQUEST).exists]

        self.server.play([FOUND])
        for name, ask in (("the async half works on", sync_first), ("the sync half works on", twin_first)):

            def played(package):
                self.server.play([FOUND])
                return ask(package)

            self.same_value(name, played)

    def test_many_at_once(self):
        def ask(package):
            self.server.play([FOUND])
            sdk = self.side(package).sdk({})

            async def many():
                return await asyncio.gather(*(sdk.cache.cache_get_async(request={"key": str(n)}) for n in range(32)))

            return [len(self.loop.run_until_complete(many())), sorted(request.body for request in self.server.requests)]

        self.same_value("32 awaited", ask)

    def test_many_threads(self):
        def ask(package):
            self.server.play([FOUND])
            sdk, values = self.side(package).sdk({}), []
            threads = [
                threading.Thread(target=lambda: values.append(sdk.cache.cache_get(request=REQUEST).exists))
                for _ in range(16)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return values

        self.same_value("16 threads", ask)

    def test_errors_come_at_the_await(self):
        def ask(package):
            call = self.side(package).sdk({}).cache.cache_get_async(request={})
            try:
                return asyncio.iscoroutine(call)
            finally:
                call.close()

        self.same_value("coroutine", ask)

    def test_cancelling_comes_back_at_once(self):
        def ask(package):
            self.server.play([SILENCE])
            sdk = self.side(package).sdk({}, fresh=True)
            try:
                self.loop.run_until_complete(asyncio.wait_for(sdk.cache.cache_get_async(request=REQUEST), 0.05))
            except asyncio.TimeoutError:
                return "cancelled"

        self.same_value("wait_for", ask)


class Log:
    def __init__(self):
        self.lines = []

    def debug(self, message, *arguments, **options):
        self.lines.append(message % arguments if arguments else message)


class Logged(Parity):
    def lines(self, package, answers, **options):
        log = Log()
        sdk = package.SDK(
            "t0p-s3cret", server_url=self.server.origin + "/v1", debug_logger=log, retry_config=None, **options
        )
        with sdk:
            self.side(package).act(
                lambda: sdk.authentication.auth_signin(request={"email": "e@x", "password": "hunter2"}), answers=answers
            )
        return log.lines


class DebugLog(Logged):
    def test_two_lines_for_an_attempt(self):
        for status in (200, 404, 503):
            self.same_value(
                "%d" % status,
                lambda package: [
                    line.partition(":")[0] for line in self.lines(package, [Answer(status, {"token": "tok3n"})])
                ],
            )
        self.same_value(
            "request",
            lambda package: [
                text in self.lines(package, [FOUND])[0]
                for text in ("POST", self.server.origin + "/v1/auth/signin", "e@x", "application/json")
            ],
        )
        self.same_value(
            "response",
            lambda package: [
                text in self.lines(package, [Answer(404, "nothing here", "text/plain")])[1]
                for text in ("404", "nothing here", "text/plain")
            ],
        )

    def test_a_real_logger(self):

        def ask(package):
            with self.assertLogs("parity", "DEBUG") as seen:
                with package.SDK(
                    "key", server_url=self.server.origin, debug_logger=logging.getLogger("parity"), retry_config=None
                ) as sdk:
                    self.server.play([FOUND])
                    sdk.cache.cache_get(request=REQUEST)
            return [record.levelname for record in seen.records if record.name == "parity"]

        self.same_value("logging", ask)


class OnPurpose(Logged):
    def test_a_log_keeps_secrets(self):
        answer = Answer(200, {"token": "tok3n"}, headers=[("Set-Cookie", "session=c00kie")])
        for secret in ("t0p-s3cret", "hunter2", "tok3n", "c00kie"):
            self.differs(
                "debug log",
                secret,
                lambda side: "\n".join(self.lines(side.package, [answer])),
                lambda exchange: secret in exchange.value,
                lambda exchange: exchange.value and secret not in exchange.value,
            )

    def test_an_unfollowed_redirect_of_a_foreign_client_says_where_to(self):
        def call(side):
            sdk, _, _ = fakes(side.package, Reply(301, "", "", location="/v1/moved"))
            return sdk.cache.cache_get(request=REQUEST)

        self.differs(
            "301, 302, 303",
            "not followed by a client of one's own",
            call,
            lambda exchange: exchange.raised("SDKError") and "moved" not in exchange.error.message,
            lambda exchange: exchange.raised("SDKError", text="/v1/moved"),
        )

    def test_a_foreign_clients_own_timeout_stands(self):
        def built(side):
            sdk, client, _ = fakes(side.package, Reply())
            sdk.cache.cache_get(request=REQUEST)
            return client.built[0][2]

        self.differs(
            "your own client's timeout",
            "of a fake",
            built,
            lambda exchange: exchange.value.get("timeout", 0) is None,
            lambda exchange: "timeout" not in exchange.value,
        )

    def test_an_upload_reaches_a_foreign_client_as_one_stream(self):
        def built(side):
            sdk, client, _ = fakes(side.package, Reply())
            sdk.storage.storage_upload(request={"key": "k", "file": {"file_name": "a", "content": b"x"}})
            return client.built[0][2]

        self.differs(
            "a client of your own is given",
            "a fake",
            built,
            lambda exchange: (
                exchange.value["data"] == {"key": "k"} and exchange.value["files"] == [("file", ("a", b"x"))]
            ),
            lambda exchange: not exchange.value.get("files") and b"x" in b"".join(exchange.value["content"]),
        )

    def test_a_call_after_close_says_so(self):
        def call(side):
            with side.sdk({}, fresh=True) as sdk:
                pass
            return sdk.cache.cache_get(request=REQUEST)

        self.differs(
            "a call after `close`",
            "after with",
            call,
            lambda exchange: exchange.raised("AttributeError"),
            lambda exchange: exchange.raised("ClosedError", text="closed"),
        )

    def test_one_sdk_lives_through_many_event_loops(self):
        def call(side):
            self.server.play([FOUND])
            sdk = side.sdk({}, fresh=True)
            return [asyncio.run(sdk.cache.cache_get_async(request=REQUEST)).exists for _ in range(3)]

        self.differs(
            "a second `asyncio.run`",
            "three of them",
            call,
            lambda exchange: exchange.raised("RuntimeError", text="closed"),
            lambda exchange: exchange.value == [True] * 3,
        )

    def test_there_is_a_default_timeout(self):
        def seconds(side):
            return self.timeout_of_httpx(side) if side is self.official else self.timeout_of_a_handler(side)

        self.differs(
            "default timeout",
            "what the transport is given",
            seconds,
            lambda exchange: exchange.value is None,
            lambda exchange: exchange.value == 60,
        )

    def timeout_of_httpx(self, side):
        import httpx

        given = []

        def handler(request):
            given.append(request.extensions["timeout"]["read"])
            return httpx.Response(200, json={})

        with httpx.Client(transport=httpx.MockTransport(handler)) as client:
            side.package.SDK("key", client=client).cache.cache_get(request=REQUEST)
        return given[0]

    def timeout_of_a_handler(self, side):
        class Watch(urllib.request.BaseHandler):
            def http_request(self, request):
                given.append(request.timeout)
                return request

        given = []
        with side.package.HttpClient(handlers=[Watch()]) as client:
            self.server.play([FOUND])
            side.package.SDK("key", server_url=self.server.origin, client=client).cache.cache_get(request=REQUEST)
        return given[0]

    def test_an_awaited_upload_is_not_read_on_the_event_loop(self):
        def on_the_loop(side):
            seen = set()
            source = one_way(b"slow disk", lambda: seen.add(threading.current_thread()))
            self.loop.run_until_complete(
                side.sdk({}).storage.storage_upload_async(
                    request={"key": "k", "file": {"file_name": "a", "content": source}}
                )
            )
            return threading.current_thread() in seen

        self.differs(
            "an awaited upload's file",
            "of a slow disk",
            on_the_loop,
            lambda exchange: exchange.value is True,
            lambda exchange: exchange.value is False,
        )

    def test_the_configuration_is_read_only(self):
        def change(side):
            configuration = side.package.SDK("key").sdk_configuration
            configuration.client = kept = Fake()
            return configuration.client is kept

        self.differs(
            "`sdk_configuration.client`",
            "a fake",
            change,
            lambda exchange: exchange.value is True,
            lambda exchange: exchange.raised("AttributeError"),
        )

    def test_our_client_is_a_class(self):
        import httpx

        with httpx.Client() as client:
            self.differs(
                "`isinstance(client, HttpClient)`",
                "of httpx's",
                lambda side: isinstance(client, side.package.HttpClient),
                lambda exchange: exchange.value is True,
                lambda exchange: exchange.value is False,
            )


if __name__ == "__main__":
    unittest.main()
