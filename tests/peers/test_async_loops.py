"""The _async twins under other event loops and task libraries, and httpx.AsyncClient as async_client.

Development only: `pip install anyio trio uvloop httpx`; what is not installed is skipped.
"""

import asyncio
import importlib
import threading
import unittest

from aerostack_lite import SDK, errors
from tests.scripted_server import LoopbackTestCase, ScriptedServer, Stopwatch, answer, expect, repeat, until_gone
from tests.test_async import AT_ONCE, BUSY, NativeClient, aside, echo, get, tell, workers


def load(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


anyio, httpx, trio, uvloop = map(load, ("anyio", "httpx", "trio", "uvloop"))


class PeerCase(LoopbackTestCase):
    def serve(self, *scripts):
        server = ScriptedServer(*scripts)
        server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        return server

    def sdk(self, url, **options):
        sdk = SDK("a key", server_url=url, **options)
        self.addCleanup(lambda: asyncio.run(sdk.aclose()))
        return sdk

    def assert_left(self, server):
        self.assertTrue(server.peers[0].left.wait(AT_ONCE), "the server still sees the connection")


@unittest.skipUnless(uvloop, "uvloop is not installed")
class UvloopTest(PeerCase):
    def run_on_uvloop(self, coroutine):
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()

    def test_a_hundred_loops_one_after_another(self):
        server = self.serve(repeat(echo))
        sdk = self.sdk(server.url)
        for number in range(100):
            self.assertEqual(self.run_on_uvloop(get(sdk, "k%d" % number)).value, "k%d" % number)
        self.assertEqual(server.connections, 1)

    def test_a_thousand_calls_at_once(self):
        sdk = self.sdk(self.serve(repeat(echo)).url, max_workers=8)

        async def many():
            return await asyncio.gather(*[get(sdk, "k%d" % i) for i in range(1000)])

        self.assertEqual([model.value for model in self.run_on_uvloop(many())], ["k%d" % i for i in range(1000)])

    def test_cancelling_closes_the_socket(self):
        server = self.serve([expect, until_gone])
        sdk = self.sdk(server.url)

        async def main():
            with self.assertRaises(asyncio.TimeoutError), Stopwatch() as took:
                await asyncio.wait_for(get(sdk), 0.1)
            self.assertLess(took.seconds, 0.1 + AT_ONCE)

        self.run_on_uvloop(main())
        self.assert_left(server)

    def test_a_sleep_ends_when_another_loop_closes_the_client(self):
        server = self.serve([expect, BUSY, until_gone])
        sdk = self.sdk(server.url)

        async def main():
            task = asyncio.ensure_future(get(sdk))
            await aside(server.wait_for_requests, 1)
            while not sdk.sdk_configuration.awaiting.sleepers:
                await asyncio.sleep(0)
            thread = threading.Thread(target=lambda: asyncio.run(sdk.aclose()))
            thread.start()
            await asyncio.wait([task])
            thread.join()
            return task.exception()

        with Stopwatch() as took:
            self.assertIsInstance(self.run_on_uvloop(main()), errors.AerostackError)
        self.assertLess(took.seconds, AT_ONCE)


@unittest.skipUnless(anyio, "anyio is not installed")
class AnyioTest(PeerCase):
    def test_a_task_group_gathers(self):
        sdk, got = self.sdk(self.serve(repeat(echo)).url), {}

        async def fetch(key):
            got[key] = (await get(sdk, key)).value

        async def main():
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(fetch, "k%d" % number)

        anyio.run(main)
        self.assertEqual(got, {"k%d" % i: "k%d" % i for i in range(50)})

    def test_a_scope_that_times_out_cancels_the_call(self):
        server = self.serve([expect, until_gone], repeat(echo))
        sdk = self.sdk(server.url, max_workers=1)

        async def main():
            with Stopwatch() as took:
                with anyio.move_on_after(0.1) as scope:
                    await get(sdk)
            self.assertTrue(scope.cancelled_caught)
            self.assertLess(took.seconds, 0.1 + AT_ONCE)
            with anyio.CancelScope(shield=True):
                self.assertEqual((await get(sdk, "next")).value, "next")

        anyio.run(main)
        self.assert_left(server)

    def test_a_failing_sibling_cancels_the_call(self):
        server = self.serve([expect, until_gone])
        sdk = self.sdk(server.url)

        async def fail():
            await anyio.to_thread.run_sync(server.wait_for_requests, 1)
            raise ZeroDivisionError

        async def main():
            async with anyio.create_task_group() as group:
                group.start_soon(get, sdk)
                group.start_soon(fail)

        with self.assertRaises(Exception) as caught:
            anyio.run(main)
        self.assertIsInstance(caught.exception.exceptions[0], ZeroDivisionError)
        self.assert_left(server)


@unittest.skipUnless(trio, "trio is not installed")
class TrioTest(PeerCase):
    def test_a_twin_says_what_to_call_instead(self):
        async def main():
            await get(self.sdk("http://127.0.0.1"))

        with self.assertRaises(RuntimeError) as caught:
            trio.run(main)
        self.assertIn("trio.to_thread.run_sync", str(caught.exception))

    def test_and_that_works(self):
        sdk = self.sdk(self.serve(repeat(echo)).url)

        async def main():
            return await trio.to_thread.run_sync(lambda: sdk.cache.cache_get(key="k"))

        self.assertEqual(trio.run(main).value, "k")
        sdk.close()

    def test_an_async_client_that_knows_trio_is_awaited_there(self):
        sdk = self.sdk("http://native.test", async_client=NativeClient())
        trio.run(get, sdk)


@unittest.skipUnless(httpx, "httpx is not installed")
class HttpxTest(PeerCase):
    def run_with_httpx(self, server, work, **options):
        async def main():
            async with httpx.AsyncClient(trust_env=False) as client:
                sdk = SDK("a key", server_url=server.url, async_client=client, **options)
                try:
                    return await work(sdk)
                finally:
                    await sdk.aclose()

        return asyncio.run(main())

    def test_calls_are_awaited_without_a_thread(self):
        server, before = self.serve(repeat(echo)), len(workers())

        async def work(sdk):
            models = await asyncio.gather(*[get(sdk, "k%d" % i) for i in range(20)])
            self.assertEqual(len(workers()), before)
            return [model.value for model in models]

        self.assertEqual(self.run_with_httpx(server, work), ["k%d" % i for i in range(20)])

    def test_an_upload_of_any_kind_is_streamed(self):
        def pieces():
            yield from (b"piece" * 1000, b"", b"last")

        class Reader:
            def __init__(self):
                self.left = [b"piece" * 1000, b"last"]

            def read(self, size):
                return self.left.pop(0) if self.left else b""

        async def work(sdk):
            return await sdk.storage.storage_upload_async(key="k", file=file, progress=lambda *step: sent.append(step))

        for file in (b"piece" * 1000 + b"last", pieces(), Reader()):
            server, sent = self.serve(repeat(expect, answer(b'{"url":"u"}'))), []
            with self.subTest(type(file)):
                self.assertEqual(self.run_with_httpx(server, work).url, "u")
                self.assertIn(b"last", server.requests[0])
                self.assertEqual(server.requests[0].count(b"piece"), 1000)
                self.assertEqual(sent[0][0], 0)
                self.assertGreater(sent[-1][0], 5004)

    def test_its_errors_are_retried_by_the_same_rules(self):
        server = self.serve(
            [expect, BUSY.replace(b"Retry-After: 5", b"Retry-After: 0.01"), expect, answer(b'{"exists":false}')]
        )
        self.assertIs(self.run_with_httpx(server, get).exists, False)
        self.assertEqual(len(server.requests), 2)

    def test_cancelling_a_streamed_upload_is_quiet(self):
        started = threading.Event()
        server = self.serve([lambda peer: peer.read_through(b"\r\n\r\n"), tell(started), until_gone])
        complaints = []

        async def work(sdk):
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            task = asyncio.ensure_future(sdk.storage.storage_upload_async(key="k", file=bytes(32 << 20)))
            await aside(started.wait, 5)
            with Stopwatch() as took:
                task.cancel()
                await asyncio.wait([task])
            self.assertLess(took.seconds, AT_ONCE)
            self.assertTrue(task.cancelled())

        self.run_with_httpx(server, work)
        self.assertEqual(complaints, [])
        self.assert_left(server)


if __name__ == "__main__":
    unittest.main()
