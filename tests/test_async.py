"""The _async twins: threads underneath, and nobody can tell."""

import asyncio
import contextlib
import contextvars
import copy
import gc
import itertools
import logging
import os
import pickle
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import unittest
import urllib.request
import warnings
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, AsyncHttpClient, errors
from tests.recording_server import every_operation
from tests.scripted_server import (
    PATIENCE_SECONDS,
    DeafAddress,
    LoopbackTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    expect,
    free_port,
    hang,
    open_descriptors,
    repeat,
    reset,
    sockets_to,
    until_gone,
    wait,
)
from tests.side_by_side import side_by_side

KEY = "an api key"
AT_ONCE = 0.5  # seconds: what a person takes for immediately
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUSY = answer(b"{}", "Retry-After: 5", status="503 Busy")

REQUESTS = {
    "ai_chat": ({"messages": [{"role": "user", "content": "Hi"}]}, b'{"response":"Hello"}'),
    "auth_signin": ({"email": "a@b.c", "password": "secret"}, b'{"token":"t"}'),
    "auth_signup": ({"email": "a@b.c", "password": "secret"}, b'{"token":"t","user":{"id":"1"}}'),
    "cache_get": ({"key": "k"}, b'{"exists":true,"value":[1]}'),
    "cache_set": ({"key": "k", "value": 1}, b'{"success":true}'),
    "db_query": ({"sql": "SELECT 1"}, b'{"results":[{"1":1}],"count":1}'),
    "queue_enqueue": ({"type": "t", "data": {}}, b'{"success":true,"jobId":"j"}'),
    "services_invoke": ({"service_name": "s", "data": {}}, b'{"success":true,"result":42}'),
    "storage_upload": ({"key": "k", "file": b"content"}, b'{"url":"http://u"}'),
}


def echo(peer):
    """Answer cache_get with the key that was asked for."""
    key = peer.read_request().rpartition(b'"key":"')[2].partition(b'"')[0]
    peer.send(answer(b'{"exists":true,"value":"%s"}' % key))


def tell(event):
    """A script's step: it got this far."""
    return lambda peer: event.set()


def get(sdk, key="k", **options):
    return sdk.cache.cache_get_async(key=key, **options)


async def aside(function, *arguments):
    """Await what blocks, without the SDK's own threads."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "aerostack"]


class AsyncTestCase(LoopbackTestCase):
    def setUp(self):
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        log = logging.getLogger("asyncio")  # it remarks on every slow moment of the machine
        self.addCleanup(log.setLevel, log.level)
        log.setLevel("ERROR")

    def serve(self, *scripts, **options):
        return self.stack.enter_context(ScriptedServer(*scripts, **options))

    def sdk(self, url, **options):
        sdk = SDK(KEY, server_url=url, **options)
        self.addCleanup(lambda: asyncio.run(sdk.aclose()))
        self.addCleanup(sdk.close)
        return sdk

    def assert_workers_end(self, but=()):
        for thread in workers():
            if thread not in but:
                thread.join(PATIENCE_SECONDS)
                self.assertFalse(thread.is_alive(), "a worker goes on")


class LoopTest(AsyncTestCase):
    def test_every_operation_has_a_twin_with_the_same_result(self):
        for service, operation in every_operation():
            request, body = REQUESTS[operation.name]
            sdk = self.sdk(self.serve(repeat(expect, answer(body))).url)
            service = getattr(sdk, service)
            twin = getattr(service, operation.name + "_async")
            with self.subTest(operation.name):
                self.assertTrue(asyncio.iscoroutinefunction(twin))
                expected = getattr(service, operation.name)(request=request)
                self.assertEqual(asyncio.run(twin(request=request)), expected)
                self.assertEqual(asyncio.run(twin(**request)), expected)

    def test_a_bad_argument_is_told_when_the_call_is_awaited(self):
        call = get(self.sdk("http://127.0.0.1"), keey="k")
        with self.assertRaises(errors.ValidationError):
            asyncio.run(call)

    def test_one_client_serves_a_hundred_event_loops_one_after_another(self):
        server = self.serve(repeat(echo))
        sdk = self.sdk(server.url)
        for number in range(100):
            self.assertEqual(asyncio.run(get(sdk, "k%d" % number)).value, "k%d" % number)
        self.assertEqual(server.connections, 1)

    def test_several_event_loops_in_several_threads_share_it_at_once(self):
        sdk, got = self.sdk(self.serve(repeat(echo)).url, max_workers=4), {}

        async def many(name):
            return [model.value for model in await asyncio.gather(*[get(sdk, "%s%d" % (name, i)) for i in range(25)])]

        threads = [
            threading.Thread(target=lambda name=name: got.update({name: asyncio.run(many(name))})) for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        self.assertEqual(got, {name: ["%s%d" % (name, i) for i in range(25)] for name in "abcd"})

    def test_a_thousand_calls_at_once_are_answered_in_order_by_a_bounded_pool(self):
        server, before = self.serve(repeat(echo)), len(workers())
        sdk = self.sdk(server.url, max_workers=8)

        async def many():
            return await asyncio.gather(*[get(sdk, "k%d" % i) for i in range(1000)])

        self.assertEqual([model.value for model in asyncio.run(many())], ["k%d" % i for i in range(1000)])
        self.assertLessEqual(len(workers()) - before, 8)
        self.assertLessEqual(server.connections, 8)

    def test_a_hundred_calls_share_a_single_worker(self):
        sdk = self.sdk(self.serve(repeat(echo)).url, max_workers=1)

        async def many():
            return await asyncio.gather(*[get(sdk, "k%d" % i) for i in range(100)])

        self.assertEqual([model.value for model in asyncio.run(many())], ["k%d" % i for i in range(100)])

    def test_workers_start_only_when_there_is_work(self):
        before = len(workers())
        sdk = self.sdk(self.serve(repeat(echo)).url)
        self.assertEqual(len(workers()), before)
        for _ in range(5):
            asyncio.run(get(sdk))
        self.assertEqual(len(workers()), before + 1)

    def test_where_no_thread_can_be_started_a_call_is_either_done_or_never_sent(self):
        server = self.serve(repeat(echo))
        sdk = self.sdk(server.url, max_workers=3)
        asyncio.run(get(sdk, "first"))

        async def many():
            return await asyncio.gather(*[get(sdk, "k%d" % i) for i in range(3)], return_exceptions=True)

        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            results = asyncio.run(many())
        asyncio.run(get(sdk, "last"))
        answered = [result for result in results if not isinstance(result, Exception)]
        self.assertGreaterEqual(len(answered), 1, "one worker was there")
        self.assertEqual(len(server.requests), 2 + len(answered))

    def test_where_the_first_thread_cannot_be_started_the_call_was_never_sent(self):
        server = self.serve(repeat(echo))
        sdk = self.sdk(server.url, retry_config=None)
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            with self.assertRaisesRegex(errors.ConnectError, "no thread can be started") as caught:
                asyncio.run(get(sdk, "k"))
        self.assertIsInstance(caught.exception.__cause__, RuntimeError)
        self.assertEqual((caught.exception.attempts, caught.exception.maybe_processed), (0, False))
        self.assertEqual(asyncio.run(get(sdk, "k")).value, "k")
        self.assertEqual(len(server.requests), 1)

    def test_after_a_moment_without_threads_there_are_as_many_as_before(self):
        together = threading.Barrier(4)  # which breaks unless four calls are under way at once

        def answer_it(peer):
            if b"together" in peer.read_request():
                together.wait(AT_ONCE)
            peer.send(answer(b'{"exists":false}'))

        sdk, start, left = self.sdk(self.serve(repeat(answer_it)).url, max_workers=4), threading.Thread.start, [1]

        def start_one(thread):
            if thread.name == "aerostack":
                if not left:
                    raise RuntimeError("can't start new thread")
                left.pop()
            start(thread)

        async def four(key):
            return await asyncio.gather(*[get(sdk, key) for _ in range(4)])

        with mock.patch("threading.Thread.start", start_one):
            asyncio.run(four("one by one"))
        self.assertEqual(len(asyncio.run(four("together"))), 4)

    def test_on_a_loop_that_counts_milliseconds_in_32_bits(self):
        class Loop(asyncio.SelectorEventLoop):
            def call_later(self, delay, callback, *args, **options):
                if delay * 1000 >= 2**31:
                    raise OverflowError("a timer of Qt's")
                return super().call_later(delay, callback, *args, **options)

        loop = Loop()
        self.addCleanup(loop.close)
        sdk = self.sdk(self.serve(repeat(echo)).url)
        self.assertEqual(loop.run_until_complete(get(sdk, "k")).value, "k")

    def test_a_call_that_nobody_holds_on_to_is_done_nevertheless(self):
        # An event loop keeps only weak references to its tasks.
        collected, done = threading.Event(), []
        server = self.serve([expect, wait(collected), answer(b'{"exists":false}')])
        sdk = self.sdk(server.url)

        async def main():
            asyncio.ensure_future(get(sdk)).add_done_callback(
                lambda task: (done.append(task.result().exists), ended.set())
            )
            ended = asyncio.Event()
            await aside(server.wait_for_requests, 1)
            gc.collect()
            collected.set()
            await asyncio.wait_for(ended.wait(), PATIENCE_SECONDS)

        asyncio.run(main())
        self.assertEqual(done, [False])

    def test_context_variables_are_seen_where_the_request_is_sent(self):
        tenant = contextvars.ContextVar("tenant", default="nobody")

        class Tenant(urllib.request.BaseHandler):
            def http_request(self, request):
                request.add_header("X-Tenant", tenant.get())
                return request

        server = self.serve(repeat(echo))
        sdk = self.sdk(server.url, async_client=AsyncHttpClient(handlers=[Tenant()]))

        async def of(name):
            tenant.set(name)
            await get(sdk, name)

        async def both():
            await asyncio.gather(of("ada"), of("bob"))

        asyncio.run(both())
        self.assertEqual(tenant.get(), "nobody")
        for request in server.requests:
            name = b"ada" if b'"ada"' in request else b"bob"
            self.assertIn(b"x-tenant: " + name, request.lower())
        asyncio.run(sdk.sdk_configuration.async_client.aclose())

    def test_an_upload_is_read_in_a_worker_while_the_event_loop_goes_on(self):
        ticked, readers = threading.Event(), []

        class Slow:
            def read(self, size):
                readers.append(threading.get_ident())
                return b"" if ticked.wait(PATIENCE_SECONDS) and len(readers) > 1 else b"x"

        sdk = self.sdk(self.serve([expect, answer(b'{"url":"u"}')]).url)

        async def main():
            upload = asyncio.ensure_future(sdk.storage.storage_upload_async(key="k", file=Slow()))
            for _ in range(100):
                await asyncio.sleep(0)
            ticked.set()
            return await upload

        with Stopwatch() as took:
            self.assertEqual(asyncio.run(main()).url, "u")
        self.assertLess(took.seconds, PATIENCE_SECONDS / 2)
        self.assertNotIn(threading.get_ident(), readers)

    def test_what_a_progress_callback_raises_reaches_the_caller_and_frees_the_worker(self):
        server = self.serve([until_gone], repeat(echo))
        sdk = self.sdk(server.url, max_workers=1)
        for mistake in (ZeroDivisionError("mine"), KeyError("mine")):
            with self.assertRaises(type(mistake)) as caught:
                asyncio.run(
                    sdk.storage.storage_upload_async(key="k", file=b"x", progress=mock.Mock(side_effect=mistake))
                )
            self.assertIs(caught.exception, mistake)
        self.assertTrue(server.peers[0].left.wait(AT_ONCE))
        self.assertEqual(asyncio.run(get(sdk, "next")).value, "next")

    def test_a_handlers_stop_iteration_does_not_leave_the_caller_waiting(self):
        # A future refuses it, so that without care nobody would ever be told.
        class Broken(urllib.request.BaseHandler):
            def http_request(self, request):
                raise StopIteration("mine")

        async def main():
            async with AsyncHttpClient(handlers=[Broken()]) as client:
                await asyncio.wait_for(client.send(client.build_request("POST", "http://127.0.0.1/")), 1)

        with self.assertRaises(RuntimeError):
            asyncio.run(main())

    def test_without_an_event_loop_of_asyncio_the_caller_is_told_what_to_do(self):
        call = get(self.sdk("http://127.0.0.1"))
        with self.assertRaises(RuntimeError) as caught:
            call.send(None)  # as trio would
        self.assertIn("asyncio", str(caught.exception))
        self.assertIn("trio.to_thread", str(caught.exception))


class CancelTest(AsyncTestCase):
    def test_one_that_waits_for_a_worker_leaves_the_kept_connection_alone(self):
        asked, go_on = threading.Event(), threading.Event()
        server = self.serve([echo, expect, tell(asked), wait(go_on), answer(b'{"value":"second"}'), echo])
        sdk = self.sdk(server.url, max_workers=1)

        async def main():
            await get(sdk, "first")
            second = asyncio.ensure_future(get(sdk, "second"))
            self.assertTrue(await aside(asked.wait, PATIENCE_SECONDS))
            waiting = asyncio.ensure_future(sdk.cache.cache_get_async({"key": "never"}))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            go_on.set()
            return [(await second).value, (await get(sdk, "third")).value]

        self.assertEqual(asyncio.run(main()), ["second", "third"])
        self.assertEqual((server.connections, len(server.requests)), (1, 3))

    def test_one_that_is_past_its_exchange_leaves_the_kept_connection_to_the_next(self):
        decoding, cancelled, go_on = threading.Event(), threading.Event(), threading.Event()

        class Slow(urllib.request.BaseHandler):
            def http_response(self, request, response):
                if not decoding.is_set():
                    decoding.set()
                    go_on.wait(PATIENCE_SECONDS)
                return response

        server = self.serve([echo, expect, wait(cancelled), answer(b'{"value":"second"}')])
        client = AsyncHttpClient(handlers=[Slow()])
        self.addCleanup(client.close)
        sdk = self.sdk(server.url, async_client=client)

        async def main():
            first = asyncio.ensure_future(get(sdk, "first"))
            self.assertTrue(await aside(decoding.wait, PATIENCE_SECONDS))
            second = asyncio.ensure_future(get(sdk, "second"))
            await aside(server.wait_for_requests, 2)
            first.cancel()
            await asyncio.wait([first])
            cancelled.set()
            self.assertEqual((await second).value, "second")
            go_on.set()

        asyncio.run(main())
        self.assertEqual(server.connections, 1)

    def assert_cancelled_at_once(self, sdk, reached, call=None):
        """Cancel a call when it got as far as the event `reached` tells, and see that its worker can do another."""

        async def main():
            task = asyncio.ensure_future(get(sdk) if call is None else call)
            self.assertTrue(await aside(reached.wait, PATIENCE_SECONDS))
            with Stopwatch() as took:
                task.cancel()
                await asyncio.wait([task])
            self.assertTrue(task.cancelled())
            self.assertLess(took.seconds, AT_ONCE)
            good = self.serve(repeat(echo))
            self.assertEqual((await asyncio.wait_for(get(sdk, "next", server_url=good.url), AT_ONCE)).value, "next")

        asyncio.run(main())

    def assert_left(self, server):
        for peer in server.peers:
            self.assertTrue(peer.left.wait(AT_ONCE), "the server still sees the connection")

    def test_while_the_name_is_looked_up(self):
        asked, found, lookup = threading.Event(), threading.Event(), socket.getaddrinfo

        def slow(host, *arguments):
            if host != "slow.test" or arguments[-1] == socket.AI_NUMERICHOST:  # which asks nobody
                return lookup(host, *arguments)
            asked.set()
            found.wait(PATIENCE_SECONDS)
            return []

        with mock.patch("socket.getaddrinfo", slow):
            self.assert_cancelled_at_once(self.sdk("http://slow.test:1", max_workers=1), asked)
            found.set()

    def test_while_it_connects(self):
        dialled = threading.Event()

        class Dialled(socket.socket):
            def connect(self, address):
                dialled.set()
                return super().connect(address)

            def connect_ex(self, address):
                dialled.set()
                return super().connect_ex(address)

        with DeafAddress() as deaf, mock.patch("socket.socket", Dialled):
            self.assert_cancelled_at_once(self.sdk(deaf.url, max_workers=1), dialled)

    def test_just_as_an_address_is_given_up(self):
        # What the cancellation would shut down is closed at that moment, which must not become the caller's error.
        closed, cancelled, addresses = threading.Event(), threading.Event(), [("127.0.0.1", free_port())]

        class Dialled(socket.socket):
            def close(self):
                super().close()
                if threading.current_thread().name == "aerostack" and not closed.is_set():
                    closed.set()
                    cancelled.wait(PATIENCE_SECONDS)

        def look_up(host, *_):
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

        async def main():
            task = asyncio.ensure_future(get(sdk))
            self.assertTrue(await aside(closed.wait, PATIENCE_SECONDS))
            task.cancel()
            await asyncio.wait([task])
            cancelled.set()
            self.assertTrue(task.cancelled(), task.cancelled() or task.exception())

        server = self.serve([until_gone])
        addresses.append(("127.0.0.1", server.port))
        with mock.patch("socket.socket", Dialled), mock.patch("socket.getaddrinfo", look_up):
            sdk = self.sdk("http://two.test")
            asyncio.run(main())

    def test_while_a_proxy_opens_a_tunnel(self):
        asked = threading.Event()
        server = self.serve([expect, tell(asked), until_gone])
        with mock.patch.dict(os.environ, https_proxy=server.url):
            self.assert_cancelled_at_once(self.sdk("https://far.test", max_workers=1), asked)
        self.assert_left(server)

    def test_while_tls_shakes_hands(self):
        said_hello = threading.Event()
        server = self.serve([lambda peer: peer.read(5), tell(said_hello), until_gone])
        sdk = self.sdk("https://" + server.netloc, max_workers=1)
        self.assert_cancelled_at_once(sdk, said_hello)
        self.assert_left(server)

    def test_just_as_tls_takes_the_socket_over(self):
        wrapped, cancelled = threading.Event(), threading.Event()

        class Context(ssl.SSLContext):
            def wrap_socket(self, *arguments, **options):
                sock = super().wrap_socket(*arguments, **options)
                wrapped.set()
                cancelled.wait(PATIENCE_SECONDS)
                return sock

        server = self.serve([until_gone])
        client = AsyncHttpClient(ssl_context=Context(ssl.PROTOCOL_TLS_CLIENT))
        sdk = self.sdk("https://" + server.netloc, async_client=client)

        async def main():
            task = asyncio.ensure_future(get(sdk))
            self.assertTrue(await aside(wrapped.wait, PATIENCE_SECONDS))
            task.cancel()
            await asyncio.wait([task])
            cancelled.set()
            await client.aclose()

        asyncio.run(main())
        self.assert_left(server)

    def test_while_an_upload_goes_out(self):
        flowing = threading.Event()
        server = self.serve([lambda peer: peer.read_through(b"\r\n\r\n"), tell(flowing), hang])
        sdk = self.sdk(server.url, max_workers=1)
        upload = sdk.storage.storage_upload_async(key="k", file=bytes(16 << 20))
        self.assert_cancelled_at_once(sdk, flowing, upload)

    def test_while_a_large_request_goes_out(self):
        flowing = threading.Event()
        server = self.serve([lambda peer: peer.read_through(b"\r\n\r\n"), tell(flowing), hang])
        sdk = self.sdk(server.url, max_workers=1)
        large = sdk.cache.cache_set_async(key="k", value="x" * (8 << 20))
        self.assert_cancelled_at_once(sdk, flowing, large)

    def test_while_the_answer_is_awaited(self):
        for begun in (
            b"",
            b"HTTP/1.1 200 OK\r\nX-A: b\r\n",
            answer(b"x" * 100)[:-1],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"HTTP/1.1 200 OK\r\n\r\nab",
        ):
            with self.subTest(begun):
                sent = threading.Event()
                server = self.serve([expect, begun, tell(sent), until_gone])
                self.assert_cancelled_at_once(self.sdk(server.url, max_workers=1), sent)
                self.assert_left(server)

    def test_while_it_sleeps_before_the_next_attempt(self):
        asleep = threading.Event()
        sdk = self.sdk(self.serve([expect, BUSY, until_gone]).url, max_workers=1, debug_logger=Sleeping(asleep.set))
        self.assert_cancelled_at_once(sdk, asleep)

    def test_while_it_waits_for_a_free_worker_and_it_is_never_sent(self):
        server = self.serve([expect, until_gone], repeat(echo))
        sdk = self.sdk(server.url, max_workers=1)

        async def main():
            first = asyncio.ensure_future(get(sdk, "first"))
            await aside(server.wait_for_requests, 1)
            waiting = [asyncio.ensure_future(get(sdk, "waiting")) for _ in range(100)]
            await asyncio.sleep(0)
            with Stopwatch() as took:
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting)
            self.assertLess(took.seconds, AT_ONCE)
            first.cancel()
            await get(sdk, "last")

        asyncio.run(main())
        self.assertEqual([b'"waiting"' in request for request in server.requests], [False, False])

    def test_by_wait_for(self):
        server = self.serve([expect, until_gone])
        sdk = self.sdk(server.url)

        async def main():
            with self.assertRaises(asyncio.TimeoutError), Stopwatch() as took:
                await asyncio.wait_for(get(sdk), 0.1)
            self.assertLess(took.seconds, 0.1 + AT_ONCE)

        asyncio.run(main())
        self.assert_left(server)

    @unittest.skipUnless(hasattr(asyncio, "timeout"), "asyncio.timeout is of Python 3.11")
    def test_by_timeout(self):
        server = self.serve([expect, until_gone])
        sdk = self.sdk(server.url)

        async def main():
            with self.assertRaises(asyncio.TimeoutError), Stopwatch() as took:
                async with asyncio.timeout(0.1):
                    await get(sdk)
            self.assertLess(took.seconds, 0.1 + AT_ONCE)

        asyncio.run(main())
        self.assert_left(server)

    @unittest.skipUnless(hasattr(asyncio, "TaskGroup"), "asyncio.TaskGroup is of Python 3.11")
    def test_by_a_task_group_whose_other_task_failed(self):
        server = self.serve([expect, until_gone])
        sdk = self.sdk(server.url)

        async def fail():
            await aside(server.wait_for_requests, 1)
            raise ZeroDivisionError

        async def main():
            async with asyncio.TaskGroup() as group:
                calls.append(group.create_task(get(sdk)))
                group.create_task(fail())

        calls = []
        with self.assertRaises(Exception) as caught:
            asyncio.run(main())
        self.assertIsInstance(caught.exception.exceptions[0], ZeroDivisionError)
        self.assertTrue(calls[0].cancelled())
        self.assert_left(server)

    def test_by_the_end_of_the_event_loop(self):
        server = self.serve([expect, until_gone])
        sdk, tasks = self.sdk(server.url), []

        async def main():
            tasks.append(asyncio.ensure_future(get(sdk)))
            await aside(server.wait_for_requests, 1)

        with Stopwatch() as took:
            asyncio.run(main())
        self.assertLess(took.seconds, AT_ONCE)
        self.assertTrue(tasks[0].cancelled())
        self.assert_left(server)

    def test_of_one_request_that_is_sent_again_and_again_only_the_send_that_is_cancelled(self):
        go_on = threading.Event()
        server = self.serve([expect, wait(go_on), answer(b"0"), expect, until_gone], [expect, answer(b"2")])

        async def main():
            async with AsyncHttpClient(max_workers=1) as client:
                request = client.build_request("POST", server.url, content=b"{}", timeout=PATIENCE_SECONDS)
                sends = [asyncio.ensure_future(client.send(request)) for _ in range(3)]
                await aside(server.wait_for_requests, 1)
                go_on.set()
                await sends[0]
                await aside(server.wait_for_requests, 2)
                sends[1].cancel()
                self.assertEqual((await asyncio.wait_for(sends[2], AT_ONCE)).content, b"2")

        asyncio.run(main())

    def test_by_dropping_what_was_awaited(self):
        logging.getLogger("asyncio").setLevel("CRITICAL")  # it complains that nobody takes the error of the call
        server = self.serve([expect, until_gone])
        sdk = self.sdk(server.url)

        async def main():
            coroutine = get(sdk)
            coroutine.send(None)
            await aside(server.wait_for_requests, 1)
            coroutine.close()
            await aside(self.assert_left, server)

        asyncio.run(main())

    def test_by_closing_the_loop_those_that_wait_for_a_worker_are_never_sent(self):
        closed = threading.Event()
        server = self.serve(
            itertools.chain([expect, wait(closed), answer(b'{"exists":false}')], itertools.repeat(echo)), repeat(echo)
        )
        sdk, loop = self.sdk(server.url, max_workers=1), asyncio.new_event_loop()
        tasks = [loop.create_task(get(sdk, "k%d" % i)) for i in range(20)]
        loop.run_until_complete(asyncio.sleep(0))
        server.wait_for_requests(1)
        loop.close()
        for task in tasks:
            task._log_destroy_pending = False  # asyncio itself would complain of it
        del task, tasks
        gc.collect()
        closed.set()
        self.assertEqual(asyncio.run(get(sdk, "last")).value, "last")
        self.assertEqual(
            [b'"last"' in request for request in server.requests], [False, True], "those that waited were sent"
        )

    def test_hundreds_of_cancelled_calls_leave_no_thread_no_socket_and_no_warning(self):
        at_once, rounds, before = 50, 6, workers()
        server = self.serve([expect, until_gone])
        sdk = SDK(KEY, server_url=server.url, max_workers=at_once)
        complaints, descriptors = [], []

        async def cancel():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            for _ in range(rounds):
                tasks = [asyncio.ensure_future(get(sdk)) for _ in range(at_once)]
                await aside(server.wait_for_requests, at_once)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                self.assertTrue(all(task.cancelled() for task in tasks))
                for peer in server.peers:
                    self.assertTrue(peer.ended.wait(PATIENCE_SECONDS))
                server.forget()
                descriptors.append(open_descriptors())
            await sdk.aclose()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(cancel())
            self.assert_workers_end(before)
            gc.collect()
        self.assertEqual([str(warning.message) for warning in caught], [])
        self.assertEqual(complaints, [])
        self.assertEqual(sockets_to(server), [])
        if descriptors[0] is not None:
            self.assertLessEqual(descriptors[-1], descriptors[0] + at_once)


class Sleeping:
    """A debug_logger that tells when a call is about to sleep before its next attempt."""

    def __init__(self, tell):
        self._tell = tell

    def debug(self, message, *values, **_):
        if "Next attempt: in" in message % values:
            self._tell()


class CloseTest(AsyncTestCase):
    def test_async_with_closes_the_asynchronous_half_only(self):
        sdk, before = self.sdk(self.serve(repeat(echo)).url), workers()

        async def main():
            async with sdk:
                await get(sdk)
            with self.assertRaises(errors.ClosedError):
                await get(sdk)
            await sdk.aclose()

        asyncio.run(main())
        self.assert_workers_end(before)
        self.assertEqual(sdk.cache.cache_get(key="sync").value, "sync")

    def test_with_closes_the_synchronous_half_only(self):
        sdk = self.sdk(self.serve(repeat(echo)).url)
        with sdk:
            sdk.cache.cache_get(key="k")
        with self.assertRaises(errors.ClosedError):
            sdk.cache.cache_get(key="k")
        self.assertEqual(asyncio.run(get(sdk, "async")).value, "async")

    def assert_the_sleep_ends(self, sdk, main):
        with Stopwatch() as took, self.assertRaises(errors.AerostackError) as caught:
            asyncio.run(main())
        self.assertLess(took.seconds, AT_ONCE)
        self.assertEqual(getattr(caught.exception, "status_code", None), 503, "the last answer is the reason")
        self.assertEqual(caught.exception.attempts, 1)

    def test_a_sleep_between_attempts_ends_at_once_when_the_same_loop_closes(self):
        server = self.serve([expect, BUSY, until_gone])

        async def main():
            asleep, loop = asyncio.Event(), asyncio.get_running_loop()
            sdk.sdk_configuration.debug_logger = Sleeping(lambda: loop.call_soon_threadsafe(asleep.set))
            task = asyncio.ensure_future(get(sdk))
            await asleep.wait()
            await sdk.aclose()
            await task

        sdk = self.sdk(server.url)
        self.assert_the_sleep_ends(sdk, main)

    def test_a_sleep_that_is_just_about_to_begin_does_not_begin(self):
        def close():
            thread = threading.Thread(target=lambda: asyncio.run(sdk.aclose()))
            thread.start()
            thread.join(PATIENCE_SECONDS)

        sdk = self.sdk(self.serve([expect, BUSY, until_gone]).url, debug_logger=Sleeping(close))
        self.assert_the_sleep_ends(sdk, lambda: get(sdk))

    def test_no_attempt_follows_the_close_with_a_client_of_yours_either(self):
        client = NativeClient(aerostack_lite.httpclient.HttpClient, 503)

        async def main():
            asleep, loop = asyncio.Event(), asyncio.get_running_loop()
            sdk.sdk_configuration.debug_logger = Sleeping(lambda: loop.call_soon_threadsafe(asleep.set))
            task = asyncio.ensure_future(get(sdk))
            await asleep.wait()
            await sdk.aclose()
            await task

        sdk = SDK(KEY, server_url="http://native.test", async_client=client)
        self.assert_the_sleep_ends(sdk, main)
        self.assertEqual(len(client.sent), 1)

    def test_a_call_that_slept_on_a_loop_now_closed_does_not_hinder_the_close(self):
        asleep = threading.Event()
        sdk = SDK(KEY, server_url=self.serve([expect, BUSY, until_gone]).url, debug_logger=Sleeping(asleep.set))
        loop = asyncio.new_event_loop()
        task = loop.create_task(get(sdk))
        loop.run_until_complete(aside_in(loop, asleep))
        loop.close()
        task._log_destroy_pending = False
        asyncio.run(sdk.aclose())

    def test_a_client_that_is_dropped_unclosed_takes_its_workers_along(self):
        before, server = workers(), self.serve(repeat(echo))
        asyncio.run(get(SDK(KEY, server_url=server.url)))
        upload = SDK(KEY, server_url="http://native.test", async_client=NativeClient()).storage.storage_upload_async
        asyncio.run(upload(key="k", file=b"content"))
        del upload
        gc.collect()
        self.assert_workers_end(before)
        self.assertEqual(sockets_to(server), [])


async def aside_in(loop, event):
    await loop.run_in_executor(None, event.wait, PATIENCE_SECONDS)


class NativeClient:
    """An async_client that is not ours: it never blocks, and notes the threads it was called in."""

    def __init__(self, _=None, status=200):
        self.sent, self.threads, self._status = [], set(), status

    def build_request(self, method, url, content=None, headers=None, timeout=None):
        return content

    async def send(self, request, stream=False):
        self.threads.add(threading.get_ident())
        if not isinstance(request, bytes):
            request = b"".join([block async for block in request])
        self.sent.append(request)
        headers = aerostack_lite.Headers([("Content-Type", "application/json"), ("Retry-After", "5")])
        return aerostack_lite.Response(self._status, headers, b'{"url":"u"}')

    async def aclose(self):
        raise AssertionError("a client that was handed in is closed by its owner")


class ForeignClientTest(AsyncTestCase):
    def test_an_async_client_of_yours_is_awaited_on_your_loop(self):
        client = NativeClient()
        sdk = self.sdk("http://native.test", async_client=client)

        async def main():
            await asyncio.gather(*[get(sdk) for _ in range(20)])

        asyncio.run(main())
        self.assertEqual(client.sent, [b'{"key":"k"}'] * 20)
        self.assertEqual(client.threads, {threading.get_ident()})

    def test_what_it_awaits_is_cancelled_with_the_call(self):
        class Waits(NativeClient):
            async def send(self, request, stream=False):
                try:
                    sending.set()
                    await asyncio.Event().wait()
                finally:
                    ended.set()

        async def main():
            call = asyncio.ensure_future(get(sdk))
            self.assertTrue(await aside(sending.wait, PATIENCE_SECONDS))
            call.cancel()
            await asyncio.wait([call])
            cancelled.set()
            self.assertTrue(await aside(ended.wait, PATIENCE_SECONDS))

        def late(*arguments):
            future = schedule(*arguments)
            cancelled.wait(PATIENCE_SECONDS)
            return future

        schedule = asyncio.run_coroutine_threadsafe
        for how in (schedule, late):
            sending, cancelled, ended = threading.Event(), threading.Event(), threading.Event()
            sdk = self.sdk("http://native.test", async_client=Waits())
            with self.subTest(how.__name__), mock.patch("asyncio.run_coroutine_threadsafe", how):
                asyncio.run(main())

    def test_what_is_cancelled_before_it_is_sent_is_never_sent(self):
        class Slow:
            __dataclass_fields__ = ("x",)

            @property
            def x(self):
                encoding.set()
                go_on.wait(PATIENCE_SECONDS)
                return 1

        async def main():
            call = asyncio.ensure_future(sdk.queue.queue_enqueue_async(type="mail", data={"a": Slow()}))
            self.assertTrue(await aside(encoding.wait, PATIENCE_SECONDS))
            call.cancel()
            await asyncio.wait([call])
            go_on.set()
            await sdk.aclose()
            for thread in [thread for thread in threading.enumerate() if thread.name == "aerostack"]:
                await aside(thread.join, PATIENCE_SECONDS)
            await asyncio.sleep(0)

        encoding, go_on, client = threading.Event(), threading.Event(), NativeClient()
        sdk = self.sdk("http://native.test", async_client=client)
        asyncio.run(main())
        self.assertEqual(client.sent, [])

    def test_its_uploads_are_read_in_a_worker(self):
        client, readers = NativeClient(), []

        class Reader:
            def read(self, size):
                readers.append(threading.get_ident())
                return b"x" * 1000 if len(readers) < 4 else b""

        sdk = self.sdk("http://native.test", async_client=client)
        self.assertEqual(asyncio.run(sdk.storage.storage_upload_async(key="k", file=Reader())).url, "u")
        self.assertIn(b"x" * 3000, client.sent[0])
        self.assertNotIn(threading.get_ident(), readers)

    def test_its_uploads_source_may_fail(self):
        def broken():
            yield b"x"
            raise ZeroDivisionError("mine")

        sdk = self.sdk("http://native.test", async_client=NativeClient())
        with self.assertRaises(errors.LocalProtocolError):
            asyncio.run(sdk.storage.storage_upload_async(key="k", file=broken()))


class ErrorTest(AsyncTestCase):
    def test_every_error_survives_pickle_and_copy(self):
        for script, kind in (
            ([expect, answer(b"{}", status="404 Not Found")], errors.SDKError),
            ([expect, answer(b'{"code":"AUTH_INVALID_KEY","message":"no"}', status="401 No")], errors.ErrorResponse),
            ([expect, answer(b'{"results":5}')], errors.ResponseValidationError),
            ([expect, b"SSH-2.0\r\n"], errors.RemoteProtocolError),
            ([expect, reset], errors.NetworkError),
            ([expect, until_gone], errors.ReadTimeout),
            (None, errors.ConnectError),
        ):
            url = self.serve(script).url if script else "http://127.0.0.1:%d" % free_port()
            sdk = self.sdk(url, retry_config=None, timeout_ms=100)
            with self.subTest(kind.__name__), self.assertRaises(kind) as caught:
                asyncio.run(sdk.database.db_query_async(sql="SELECT 1"))
            error = caught.exception
            for twin in [copy.copy(error), copy.deepcopy(error)] + [
                pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
            ]:
                self.assertIs(type(twin), type(error))
                self.assertEqual((str(twin), repr(twin), twin.args), (str(error), repr(error), error.args))
                self.assertEqual((twin.request_id, twin.attempts), (error.request_id, 1))
                self.assertEqual(getattr(twin, "status_code", None), getattr(error, "status_code", None))
                self.assertEqual(getattr(twin, "data", None), getattr(error, "data", None))
                self.assertEqual(hasattr(twin, "request"), hasattr(error, "request"))
                self.assertNotIn(KEY.encode(), pickle.dumps(twin))


@unittest.skipUnless(hasattr(os, "fork"), "needs fork")
class ForkTest(AsyncTestCase):
    def fork(self, work):
        """A child that does some work; its exit code is 0 if that raised nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns of threads at a fork, whatever they do
            child = os.fork()
        if child:
            return child
        try:
            signal.alarm(PATIENCE_SECONDS)
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, ("%r\n" % error).encode())
        finally:
            os._exit(1)

    def test_forked_children_go_on_with_the_client_beside_their_parent(self):
        sdk = self.sdk(self.serve(repeat(echo)).url)

        async def many(name):
            models = await asyncio.gather(*[get(sdk, "%s%d" % (name, i)) for i in range(20)])
            if [model.value for model in models] != ["%s%d" % (name, i) for i in range(20)]:
                raise AssertionError("answers were crossed")

        asyncio.run(many("before"))
        with Stopwatch() as took:
            children = [self.fork(lambda name=name: asyncio.run(many(name))) for name in "abcd"]
            asyncio.run(many("parent"))
            self.assertEqual([os.waitpid(child, 0)[1] for child in children], [0] * 4)
        self.assertLess(took.seconds, 2)
        asyncio.run(many("after"))

    def test_a_child_sends_nothing_that_its_parent_has_still_to_send(self):
        forked = threading.Event()
        server = self.serve(
            itertools.chain([expect, wait(forked), answer(b"{}")], itertools.repeat(echo)), repeat(echo)
        )
        sdk, keys = self.sdk(server.url, max_workers=1), ["k%d" % number for number in range(5)]

        async def all_of_them():
            await asyncio.gather(*[get(sdk, key) for key in keys])

        parent = threading.Thread(target=lambda: asyncio.run(all_of_them()), daemon=True)
        parent.start()
        server.wait_for_requests(1)
        child = self.fork(lambda: asyncio.run(get(sdk, "child")))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        forked.set()
        parent.join(PATIENCE_SECONDS)
        sent = [request.rpartition(b'"key":"')[2].partition(b'"')[0].decode() for request in server.requests]
        self.assertEqual(sorted(sent), ["child", *keys])

    def test_a_child_may_close_what_its_parent_goes_on_with(self):
        server = self.serve(repeat(echo))
        sdk = self.sdk(server.url)
        asyncio.run(get(sdk))
        self.assertEqual(os.waitpid(self.fork(lambda: asyncio.run(sdk.aclose())), 0)[1], 0)
        self.assertEqual(asyncio.run(get(sdk, "after")).value, "after")
        self.assertEqual(server.connections, 1)


class Child:
    """This Python running a program, strictly: `with Child(program, url) as child`."""

    def __init__(self, program, *arguments):
        environment = dict(os.environ, PYTHONPATH=HOME, PYTHONUNBUFFERED="1")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "dev", "-c", program, *arguments],
            env=environment,
            universal_newlines=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._lines, self._complaints = queue.Queue(), queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self._process.stdout, self._lines), (self._process.stderr, self._complaints))
        ]

    def __enter__(self):
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.put(line)

    def go_on(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def read_line(self, timeout=PATIENCE_SECONDS):
        return self._lines.get(timeout=timeout).strip()

    def interrupt(self):
        """Send Ctrl-C: what the program then prints, and how many seconds that took.

        Python does not see a signal that comes just before a wait begins, so there is another if nothing happens."""
        for _ in range(10):
            line = None
            with Stopwatch() as took, contextlib.suppress(queue.Empty):
                self._process.send_signal(signal.SIGINT)
                line = self.read_line(timeout=2 * AT_ONCE)
            if line is not None:
                return line, took.seconds
        raise AssertionError("the program goes on")

    def wait(self):
        """(exit code, what it printed since, what it complained of)"""
        self._process.wait(PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        texts = ["".join(lines.get() for _ in range(lines.qsize())) for lines in (self._lines, self._complaints)]
        return (self._process.returncode, *texts)


START = """
import asyncio, atexit, logging, signal, sys, threading
from aerostack_lite import SDK
logging.getLogger("asyncio").setLevel("ERROR")  # or it remarks on every slow moment of the machine
sdk = SDK("a key", server_url=sys.argv[1])
"""


@side_by_side(2, one_setup=True)
class ExitTest(AsyncTestCase):
    def test_the_program_ends_while_a_call_is_under_way(self):
        for ending in (  # a loop that ends in order, one that is left, one in another thread, and a blocking call
            "async def main():\n asyncio.ensure_future(sdk.cache.cache_get_async(key='k'))\n"
            " await asyncio.get_running_loop().run_in_executor(None, input)\nasyncio.run(main())",
            "loop = asyncio.new_event_loop()\ntask = loop.create_task(sdk.cache.cache_get_async(key='k'))\n"
            "task._log_destroy_pending = False\nloop.run_until_complete(asyncio.sleep(0))\ninput()\nloop.close()",
            "threading.Thread(target=asyncio.run, args=(sdk.cache.cache_get_async(key='k'),), daemon=True).start()\n"
            "input()",
            "threading.Thread(target=sdk.cache.cache_get, kwargs={'key': 'k'}, daemon=True).start()\ninput()",
        ):
            server = self.serve([expect, until_gone])
            with self.subTest(ending), Child(START + ending, server.url) as child:
                server.wait_for_requests(1)
                child.go_on()
                with Stopwatch() as took:
                    self.assertEqual(child.wait(), (0, "", ""))
                self.assertLess(took.seconds, 1)

    def test_blocking_calls_work_inside_atexit(self):
        server = self.serve(repeat(echo))
        program = START + (
            "for url in (None, sys.argv[1].replace('127.0.0.1', 'localhost')):\n"
            " atexit.register(lambda url=url: print(sdk.cache.cache_get(key='late', server_url=url).value))\n"
            "asyncio.run(sdk.cache.cache_get_async(key='k'))"
        )
        with Child(program, server.url) as child:
            self.assertEqual(child.wait(), (0, "late\nlate\n", ""))

    def test_nothing_is_complained_of_closed_or_not(self):
        server = self.serve(repeat(echo))
        program = (
            START
            + """
async def main():
    await asyncio.gather(*[sdk.cache.cache_get_async(key='k') for _ in range(5)])
    if closes:
        await sdk.aclose()
def call():
    sdk.cache.cache_get(key='k')
    asyncio.run(main())
closes = True
call()
sdk.close()
closes, sdk = False, SDK("a key", server_url=sys.argv[1])
call()
import gc
sdk = gc.collect()
sdk = SDK("a key", server_url=sys.argv[1])
call()
"""
        )
        with Child(program, server.url) as child:
            self.assertEqual(child.wait(), (0, "", ""))

    @unittest.skipIf(os.name == "nt", "Windows sends no SIGINT to one process")
    def test_an_interrupt_ends_the_call_at_once_and_the_next_call_is_fine(self):
        program = (
            START
            + """
class Sleeping:
    def debug(self, message, *values, **_):
        if "Next attempt: in" in message % values:
            print("asleep", flush=True)
sdk.sdk_configuration.debug_logger = Sleeping()
try:
    CALL
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted")
print(asyncio.run(sdk.cache.cache_get_async(key="next")).value)
print(sdk.cache.cache_get(key="next").value)
"""
        )
        busy = answer(b"{}", "Retry-After: 5", "Connection: close", status="503 Busy")
        for call in ("asyncio.run(sdk.cache.cache_get_async(key='k'))", "sdk.cache.cache_get(key='k')"):
            for script in ([expect, until_gone], [expect, busy]):
                server = self.serve(script, repeat(echo))
                with self.subTest(call, sleeps=busy in script), Child(
                    program.replace("CALL", call), server.url
                ) as child:
                    if busy in script:
                        self.assertEqual(child.read_line(), "asleep")
                    server.wait_for_requests(1)
                    line, seconds = child.interrupt()
                    self.assertEqual(line, "interrupted")
                    self.assertLess(seconds, AT_ONCE)
                    self.assertEqual(child.wait(), (0, "next\nnext\n", ""))


if __name__ == "__main__":
    unittest.main()
