"""What the tests of the core talk to: a server on loopback that keeps what it is sent, or a client that sends nothing.

with RecordingServer() as server:
    server.answers = [answer(b"", status=503), answer(b'{"success":true}')]     # the last one repeats
    ... server.url, server.requests ...

client = FakeClient(answer(b"{}"))      # for `client=` or, as FakeAsyncClient, for `async_client=`
"""

import asyncio
import os
import re
import socket
import socketserver
import threading
import tracemalloc
import unittest
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, Headers, Response

KEY = "the-key-of-the-tests"

# For every operation: its request by Python's names, then the JSON that goes out, in order. An upload has no JSON.
EXAMPLES = {
    "ai_chat": (
        {"messages": [{"role": "user", "content": "hi"}], "model": "m"},
        b'{"messages":[{"content":"hi","role":"user"}],"model":"m"}',
    ),
    "auth_signin": (
        {"email": "ada@example.com", "password": "correct horse"},
        b'{"email":"ada@example.com","password":"correct horse"}',
    ),
    "auth_signup": (
        {"name": "Ada", "metadata": {"plan": "free"}, "email": "ada@example.com", "password": "correct horse"},
        b'{"email":"ada@example.com","password":"correct horse","metadata":{"plan":"free"},"name":"Ada"}',
    ),
    "cache_get": ({"key": "k"}, b'{"key":"k"}'),
    "cache_set": ({"ttl": 60, "value": {"b": [1, None]}, "key": "k"}, b'{"key":"k","value":{"b":[1,null]},"ttl":60}'),
    "db_query": ({"sql": "SELECT ?", "params": [1]}, b'{"sql":"SELECT ?","params":[1]}'),
    "queue_enqueue": (
        {"type": "email", "data": {"to": "ada"}, "delay": 5},
        b'{"data":{"to":"ada"},"type":"email","delay":5}',
    ),
    "services_invoke": (
        {"service_name": "resize", "data": {"width": 80}},
        b'{"data":{"width":80},"serviceName":"resize"}',
    ),
    "storage_upload": (
        {"key": "a/b.txt", "file": {"file_name": "b.txt", "content": b"bytes"}, "content_type": "text/x"},
        None,
    ),
}


def answer(body=b"{}", status=200, content_type="application/json", headers=()):
    pairs = list(headers) if content_type is None else [("Content-Type", content_type)] + list(headers)
    return Response(status, Headers(pairs), body if isinstance(body, bytes) else body.encode())


class Recorded:
    """A request as it arrived; `headers` are pairs, names as they were written."""

    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body

    def values(self, name):
        return [value for other, value in self.headers if other.lower() == name.lower()]


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while True:
            words = self.rfile.readline().decode("latin-1").split()
            if len(words) != 3:
                return
            headers = []
            for line in iter(self.rfile.readline, b"\r\n"):
                name, _, value = line.decode("latin-1").partition(":")
                headers.append((name, value.strip()))
            request = Recorded(words[0], words[1], headers, b"")
            request.body = self.rfile.read(int((request.values("Content-Length") or ["0"])[0]))
            self.wfile.write(self.server.recorder.take(request))


class RecordingServer:
    def __init__(self):
        self.requests, self.answers = [], [answer()]

    def take(self, request):
        self.requests.append(request)
        response = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        lines = ["HTTP/1.1 %d Reason" % response.status_code, "Content-Length: %d" % len(response.content)]
        for name in response.headers:
            lines += ["%s: %s" % (name, value) for value in response.headers.get_all(name)]
        return "\r\n".join(lines + ["", ""]).encode("latin-1") + response.content

    def __enter__(self):
        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, recorder = True, self

            def get_request(self):
                accepted = super().get_request()
                connections.append(accepted[0])
                return accepted

        self._connections = connections = []
        self._server = Server(("127.0.0.1", 0), _Connection)
        self.netloc = "127.0.0.1:%d" % self._server.server_address[1]
        self.url = "http://%s/v1" % self.netloc
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                pass


class FakeClient:
    """The three methods that `client=` needs. It plays `answers` in turn and repeats the last; errors are raised."""

    def __init__(self, *answers):
        self.answers, self.built, self.sent, self.closed = list(answers) or [answer()], [], [], False

    def build_request(self, method, url, **options):
        self.built.append((method, url, options))
        return len(self.built) - 1

    def send(self, request, **options):
        self.sent.append((request, options))
        outcome = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self):
        self.closed = True

    @property
    def content(self):
        """The body of the latest request."""
        content = self.built[-1][2]["content"]
        return content if isinstance(content, bytes) else b"".join(content)


class FakeAsyncClient(FakeClient):
    async def send(self, request, **options):
        return FakeClient.send(self, request, **options)

    async def aclose(self):
        self.closed = True


def decoded(response, operation="cache_get", service="cache", **fields):
    """What a call returns for a response, or raises."""
    fields = fields or EXAMPLES[operation][0]
    return getattr(getattr(SDK(KEY, client=FakeClient(response), retry_config=None), service), operation)(**fields)


def sent_json(value):
    """The bytes that go out for a value of any kind."""
    client = FakeClient()
    SDK(KEY, client=client).cache.cache_set(key="k", value=value)
    return client.content[len(b'{"key":"k","value":') : -1]


def both(sdk, service, name):
    """An operation and its twin, both to be called in the plain way."""
    yield getattr(getattr(sdk, service), name)
    twin = getattr(getattr(sdk, service), name + "_async")
    yield lambda *args, **options: asyncio.run(twin(*args, **options))


def peak_memory(call):
    """The memory that a call needs at its peak, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def every_operation():
    return [(operation.service, operation) for operation in aerostack_lite.OPERATIONS]


class CleanEnvironment(unittest.TestCase):
    """Tests that the keys, servers and proxies of the environment must not touch."""

    def setUp(self):
        patch = mock.patch.dict(os.environ)
        patch.start()
        self.addCleanup(patch.stop)
        for name in [name for name in os.environ if re.search(r"(?i)_proxy$|^aerostack|^request_method$", name)]:
            del os.environ[name]

    def raises(self, kind, function, *args, **options):
        """The error of a kind that a call raises."""
        with self.assertRaises(kind) as caught:
            function(*args, **options)
        return caught.exception


class RecordingCase(CleanEnvironment):
    """Tests with a server of their class, and SDKs that are closed behind them."""

    @classmethod
    def setUpClass(cls):
        cls.server = RecordingServer()
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def setUp(self):
        super().setUp()
        self.server.requests, self.server.answers = [], [answer()]

    def sdk(self, api_key_auth=KEY, **options):
        if not {"server_url", "server_idx"} & set(options):
            options["server_url"] = self.server.url
        sdk = SDK(api_key_auth, **options)
        self.addCleanup(sdk.close)
        self.addCleanup(lambda: asyncio.run(sdk.aclose()))
        return sdk
