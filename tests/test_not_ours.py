"""What a program's own code raises while a call is under way leaves the call at once, as it is, and repeats nothing.

Its signal handlers raise the very errors that a network makes; only what a system call of ours returned is the
network's doing.
"""

import asyncio
import contextlib
import ctypes
import errno
import itertools
import signal
import socket
import ssl
import threading
import unittest
import urllib.request
from unittest import mock

from aerostack_lite import SDK, BackoffStrategy, RetryConfig, errors
from tests.certificates import CertificateCase
from tests.interruption import InterruptedCase, Interruption
from tests.recording_server import EXAMPLES, both
from tests.scripted_server import (
    PATIENCE_SECONDS,
    DeafAddress,
    HostsTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    drip,
    expect,
    free_port,
    start_tls,
    until_gone,
    wait,
)

OK = b"HTTP/1.1 200 OK\r\n"
FOUND = answer(b'{"exists":false}')
BUSY = answer(b"", "Retry-After: 8", status="503 Busy")
LARGE = 16 << 20
TIMEOUT_MS = 2500  # no call takes as long, unless what was raised is lost
OFTEN = RetryConfig("backoff", BackoffStrategy(1, 1, 1.0, 5_000), True)


def mistakable():
    """Errors that could be taken for the network's own."""
    return [
        TimeoutError("mine"),
        TimeoutError(errno.ETIMEDOUT, "mine"),
        socket.timeout("mine"),
        ConnectionResetError(errno.ECONNRESET, "mine"),
        BrokenPipeError(errno.EPIPE, "mine"),
        OSError("mine"),
        BlockingIOError(errno.EAGAIN, "mine"),
        InterruptedError(errno.EINTR, "mine"),
        socket.gaierror(socket.EAI_NONAME, "mine"),
        ssl.SSLError("mine"),
        ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "mine"),
        ssl.CertificateError("mine"),
        UnicodeError("mine"),
        ValueError("mine"),
        KeyboardInterrupt("mine"),
    ]


def some_of_them():
    return [TimeoutError("mine"), ConnectionResetError(errno.ECONNRESET, "mine"), ssl.SSLError("mine")]


def new_sdk(url, **settings):
    return SDK(settings.pop("api_key_auth", "key"), server_url=url, timeout_ms=TIMEOUT_MS, **settings)


def get(sdk):
    return sdk.cache.cache_get(key="k")


def enqueue(sdk):
    return sdk.queue.queue_enqueue(type="t", data={})


def set_a_large_value(sdk):
    return sdk.cache.cache_set(key="k", value="x" * LARGE)


def upload(sdk):
    return sdk.storage.storage_upload(key="k", file=bytes(LARGE))


def begun(peer):
    """The request has begun to arrive."""
    peer.read(10)


# What the server does until the handler raises, and what is called meanwhile.
STAGES = {
    "sending": ([begun], set_a_large_value),
    "sending an upload": ([begun], upload),
    "waiting": ([expect], get),
    "waiting for what cannot be repeated": ([expect], enqueue),
    "within the head": ([expect, OK + b"Content-Ty"], get),
    "after an interim answer": ([expect, b"HTTP/1.1 103 Early Hints\r\n\r\n"], get),
    "within a body": ([expect, OK + b"Content-Length: 16\r\n\r\n{"], get),
    "within a chunk": ([expect, OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{"], get),
    "within a body without end": ([expect, OK + b"\r\n{"], get),
}
REPEATED = ("sending", "waiting", "waiting for what cannot be repeated", "within a body")


class SignalCase(InterruptedCase):
    def check(self, error, script, call=get, tls=None, **settings):
        """A call that a handler ends with an error once the server has played its script. The next call is answered."""
        with Interruption(error) as interruption:
            script = script + [interruption.begin, wait(interruption.raised), until_gone]
            with ScriptedServer(script, [expect, FOUND], tls=tls) as server, new_sdk(server.url, **settings) as sdk:
                with Stopwatch() as took:
                    self.assert_ended_by(error, call, sdk)
                self.assertLess(took.seconds, 2)
                self.assertTrue(server.peers[0].left.wait(PATIENCE_SECONDS))
                self.assertLessEqual((server.connections, len(server.requests)), (1, script.count(expect)))
                self.assertIs(get(sdk).exists, False)

    def assert_ended_by(self, error, call, *arguments):
        with self.assertRaises(type(error)) as caught:
            call(*arguments)
        self.assertIs(caught.exception, error)


class SignalTest(SignalCase, HostsTestCase):
    def test_while_a_name_is_looked_up(self):
        for error in mistakable():
            with self.subTest(repr(error)), Interruption(error) as interruption:

                def look_up(host, *_, **__):
                    interruption.begin()
                    interruption.raised.wait(PATIENCE_SECONDS)
                    raise socket.gaierror(socket.EAI_NONAME, "no such host")

                with mock.patch("socket.getaddrinfo", side_effect=look_up) as resolver:
                    with new_sdk("http://slow.test") as sdk:
                        self.assert_ended_by(error, get, sdk)
                self.assertEqual(resolver.call_count, 1)

    def test_while_a_connection_is_made(self):
        for error in mistakable():
            with self.subTest(repr(error)), Interruption(error) as interruption:
                with DeafAddress() as deaf, new_sdk(deaf.url) as sdk:
                    interruption.begin()
                    self.assert_ended_by(error, get, sdk)

    def test_while_the_first_of_several_addresses_is_tried(self):
        for error in some_of_them():
            with self.subTest(repr(error)), Interruption(error) as interruption:
                with DeafAddress() as deaf, ScriptedServer([expect, FOUND]) as server:
                    addresses = [deaf.address, ("127.0.0.1", server.port)]
                    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
                    with mock.patch("socket.getaddrinfo", lambda *_, **__: list(found)):
                        with new_sdk("http://two.test") as sdk:
                            interruption.begin()
                            self.assert_ended_by(error, get, sdk)
                    self.assertEqual(server.requests, [])

    def test_while_hands_are_shaken(self):
        trust = ssl.create_default_context()
        for error in mistakable():
            with self.subTest(repr(error)), Interruption(error) as interruption:
                script, client = [begun, interruption.begin, until_gone], self.client(ssl_context=trust)
                with ScriptedServer(script) as server, new_sdk("https://" + server.netloc, client=client) as sdk:
                    self.assert_ended_by(error, get, sdk)
                    self.assertTrue(server.peers[0].left.wait(PATIENCE_SECONDS))
                    self.assertEqual(server.connections, 1)

    def test_while_a_tunnel_is_opened(self):
        for error in some_of_them():
            with self.subTest(repr(error)), Interruption(error) as interruption:
                with ScriptedServer([expect, interruption.begin, until_gone]) as proxy:
                    with new_sdk("https://origin.test", client=self.client(proxy=proxy.url)) as sdk:
                        self.assert_ended_by(error, get, sdk)
                    self.assertTrue(proxy.peers[0].left.wait(PATIENCE_SECONDS))
                    self.assertEqual(proxy.connections, 1)

    def test_while_the_answer_is_awaited(self):
        for error in mistakable():
            with self.subTest(repr(error)):
                self.check(error, [expect])

    def test_while_the_request_is_sent(self):
        for error in mistakable():
            with self.subTest(repr(error)):
                self.check(error, [begun], upload)

    def test_at_every_stage(self):
        for name, (script, call) in STAGES.items():
            for error in some_of_them():
                with self.subTest(name, error=repr(error)):
                    self.check(error, script, call)

    def test_whatever_may_be_repeated(self):
        for retries in (None, OFTEN):
            for name, error in zip(REPEATED, itertools.cycle(some_of_them())):
                with self.subTest(name, retries=retries, error=repr(error)):
                    self.check(error, *STAGES[name], retry_config=retries)

    def test_on_a_connection_that_was_kept(self):
        for name, error in zip(("sending", "waiting", "within a body"), some_of_them()):
            script, call = STAGES[name]
            with self.subTest(name, error=repr(error)):
                self.check(error, [expect, FOUND] + script, lambda sdk: (get(sdk), call(sdk)))

    def test_while_it_sleeps_before_the_next_attempt(self):
        for error in mistakable():
            with self.subTest(repr(error)), Interruption(error) as interruption:
                with ScriptedServer([expect, BUSY, expect, FOUND]) as server:
                    with new_sdk(server.url) as sdk, Stopwatch() as took:
                        half = sdk.sdk_configuration.sync_half
                        sleep = half.sleep

                        def begin_and_sleep(*arguments):
                            interruption.begin()  # not earlier, or it could come before the response was read
                            return sleep(*arguments)

                        with mock.patch.object(half, "sleep", begin_and_sleep):
                            self.assert_ended_by(error, enqueue, sdk)
                        self.assertEqual(len(server.requests), 1)
                        self.assertIs(get(sdk).exists, False)
                    self.assertLess(took.seconds, 5)

    def test_a_timer_of_the_program_s_own_is_shorter_than_the_timeout(self):
        def ring(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise alarm

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, ring))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        for call in (get, enqueue):
            for scheme, script in (("https", [until_gone]), ("http", [expect, until_gone])):
                alarm = TimeoutError("the alarm of the program")
                with self.subTest(scheme, call=call.__name__), ScriptedServer(script) as server, Stopwatch() as took:
                    with new_sdk("%s://%s" % (scheme, server.netloc)) as sdk:
                        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
                        self.assert_ended_by(alarm, call, sdk)
                        self.assertTrue(server.peers[0].left.wait(PATIENCE_SECONDS))
                    self.assertEqual(server.connections, 1)
                self.assertLess(took.seconds, PATIENCE_SECONDS)

    def test_an_error_of_ours_that_the_program_made_passes_too(self):
        for kind in (errors.ConnectError, errors.ConnectTimeout, errors.WriteError, errors.ReadError):
            with self.subTest(kind=kind.__name__):
                self.check(kind("mine"), *STAGES["waiting"])
        for name in REPEATED:
            with self.subTest(name):
                self.check(errors.ConnectError("mine"), *STAGES[name])

    def test_a_handler_whose_own_call_fails_ends_the_call(self):
        class Calls(Interruption):
            def _handle(self, *_):
                if not self.raised.is_set():
                    self.raised.set()
                    enqueue(nobody)

        with new_sdk("http://127.0.0.1:%d" % free_port(), retry_config=None) as nobody:
            for name, (script, call) in STAGES.items():
                with self.subTest(name), Calls(None) as interruption:
                    script = script + [interruption.begin, until_gone]
                    with ScriptedServer(script, [expect, FOUND]) as server, new_sdk(server.url) as sdk:
                        with self.assertRaises(errors.ConnectError) as caught:
                            call(sdk)
                        self.assertIn(nobody.sdk_configuration.server_url.rpartition("/")[2], str(caught.exception))
                        self.assertEqual(server.connections, 1)

    def test_while_a_twin_is_awaited(self):
        for error in some_of_them():
            with self.subTest(repr(error)), Interruption(error) as interruption:
                with ScriptedServer([expect, interruption.begin, until_gone], [expect, FOUND]) as server:
                    sdk = new_sdk(server.url)
                    self.assert_ended_by(error, lambda: asyncio.run(sdk.cache.cache_get_async(key="k")))
                    self.assertTrue(server.peers[0].left.wait(PATIENCE_SECONDS))
                    self.assertEqual((server.connections, len(server.requests)), (1, 1))
                    self.assertIs(asyncio.run(sdk.cache.cache_get_async(key="k")).exists, False)
                    asyncio.run(sdk.aclose())

    def test_a_handler_that_makes_a_call_of_its_own_hinders_nothing(self):
        found, answered = [], threading.Event()

        class Calls(Interruption):
            def _handle(self, *_):
                if not self.raised.is_set():
                    self.raised.set()
                    found.append(get(sdk).exists)
                    answered.set()

        with Calls(None) as interruption:
            script = [expect, interruption.begin, wait(answered), FOUND]
            with ScriptedServer(script, [expect, FOUND]) as server, new_sdk(server.url) as sdk:
                self.assertIs(get(sdk).exists, False)
                self.assertEqual((found, len(server.requests)), ([False], 2))


class SignalOverTlsTest(SignalCase, CertificateCase):
    def test_at_every_stage(self):
        for (name, (script, call)), error in zip(STAGES.items(), itertools.cycle(some_of_them())):
            with self.subTest(name, error=repr(error)):
                self.check(error, script, call, tls=self.tls, client=self.trusting())

    def test_while_the_answer_is_awaited(self):
        for error in mistakable():
            with self.subTest(repr(error)):
                self.check(error, [expect], tls=self.tls, client=self.trusting())

    def test_in_a_tunnel(self):
        for error in some_of_them():
            for steps in ([begun], [start_tls(self.tls), expect]):
                with self.subTest(repr(error), steps=len(steps)), Interruption(error) as interruption:
                    script = [expect, OK + b"\r\n"] + steps + [interruption.begin, until_gone]
                    with ScriptedServer(script) as proxy:
                        with new_sdk("https://host.test", client=self.trusting(proxy=proxy.url)) as sdk:
                            self.assert_ended_by(error, enqueue, sdk)
                        self.assertTrue(proxy.peers[0].left.wait(PATIENCE_SECONDS))
                        self.assertEqual(proxy.connections, 1)


class OtherThreadsTest(HostsTestCase):
    """CPython lets a thread raise an error in another one: so do some libraries end what takes too long."""

    @unittest.skipUnless(hasattr(ctypes, "pythonapi"), "not CPython")
    def test_an_error_that_is_raised_in_a_thread_leaves_its_call(self):
        class Enough(TimeoutError):
            pass

        class Broken(ConnectionResetError):
            pass

        def stop(kind):
            def step(peer):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(kind))

            return step

        def run():
            try:
                outcomes.append(get(sdk))
            except BaseException as error:
                outcomes.append(error)

        # The thread sees it between two steps of its own; a byte from time to time has it take them.
        for kind in (Enough, Broken):
            for script in ([], [OK + b"Content-Length: 999\r\n\r\n{"]):
                outcomes = []
                steps = [expect] + script + [stop(kind), drip(b"HTTP/1.1 200 OK\r\n" + b"x" * 999)]
                with ScriptedServer(steps, [expect, FOUND]) as server, new_sdk(server.url) as sdk:
                    thread = threading.Thread(target=run)
                    thread.start()
                    thread.join(PATIENCE_SECONDS)
                    self.assertEqual([type(outcome) for outcome in outcomes], [kind])
                    self.assertEqual(server.connections, 1)


class HookTest(HostsTestCase):
    """Hooks are the program's own code, too."""

    def check(self, make_settings, requests, **request):
        """A call whose hook raises each of the errors, and calls of the other kinds whose hook raises some of them."""
        ours = errors.ConnectError("mine")
        for operation, number, raised in (
            ("cache_get", 0, mistakable()[:-1] + [ours]),
            ("cache_get", 1, some_of_them() + [ours]),
            ("queue_enqueue", 0, some_of_them() + [ours]),
            ("queue_enqueue", 1, some_of_them() + [ours]),
        ):
            for error in raised:
                with self.subTest(repr(error), operation=operation, twin=number):
                    with ScriptedServer([expect, FOUND, expect, FOUND]) as server:
                        with new_sdk(server.url, **make_settings(error)) as sdk:
                            call = list(both(sdk, operation.partition("_")[0], operation))[number]
                            with self.assertRaises(type(error)) as caught:
                                call(**EXAMPLES[operation][0])
                            asyncio.run(sdk.aclose())
                            if number:  # asyncio makes its own of concurrent.futures' time-outs
                                self.assertEqual(caught.exception.args, error.args)
                            else:
                                self.assertIs(caught.exception, error)
                        self.assertEqual(len(server.requests), requests)

    def test_a_handler_of_urllib_before_the_request(self):
        self.check(lambda error: self.handled("http_request", error), 0)

    def test_a_handler_of_urllib_after_the_answer(self):
        self.check(lambda error: self.handled("http_response", error), 1)

    def handled(self, method, error):
        handler = type("Hook", (urllib.request.BaseHandler,), {method: mock.Mock(side_effect=error)})
        client = self.client(handlers=[handler()])
        return {"api_key_auth": "key", "client": client, "async_client": AwaitedClient(client)}

    def test_a_logger_before_the_request_and_after_the_answer(self):
        for logged in (0, 1):

            def settings(error):
                outcomes = [None] * logged + [error] + [None] * 9
                return {"api_key_auth": "key", "debug_logger": mock.Mock(debug=mock.Mock(side_effect=outcomes))}

            self.check(settings, logged)

    def test_a_key_that_is_called(self):
        self.check(lambda error: {"api_key_auth": mock.Mock(side_effect=error)}, 0)


class AwaitedClient:
    """A client that hands on to a plain one, in the caller's own thread."""

    def __init__(self, client):
        self.build_request, self._client = client.build_request, client

    async def send(self, request, **options):
        return self._client.send(request, **options)

    async def aclose(self):
        with contextlib.suppress(errors.AerostackError):
            self._client.close()


if __name__ == "__main__":
    unittest.main()
