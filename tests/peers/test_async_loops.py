"""The _async twins under other event loops and task libraries, and httpx.AsyncClient as async_client.

Development only: `pip install anyio trio uvloop httpx`; what is not installed is skipped.
"""

import asyncio
import importlib
import importlib.util
import os
import subprocess
import sys
import threading
import unittest

from aerostack_lite import SDK
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    expect,
    mirror,
    repeat,
    until_gone,
)
from tests.upload_case import DATA, Block, Server

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
AT_ONCE = 0.5  # seconds: what a person takes for immediately
KEYS = ["k%d" % number for number in range(50)]


def load(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


anyio, httpx, trio = map(load, ("anyio", "httpx", "trio"))


async def get(sdk, key="k"):
    """The key that a server which mirrors requests has read."""
    return (await sdk.cache.cache_get_async(key=key)).model_extra["key"]


class PeerCase(LoopbackTestCase):
    def serve(self, *scripts):
        server = ScriptedServer(*scripts)
        server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        return server

    def sdk(self, url, **options):
        sdk = SDK("a key", server_url=url, **options)
        self.addCleanup(lambda: asyncio.run(sdk.aclose()))
        self.addCleanup(sdk.close)
        return sdk

    def assert_left(self, server):
        self.assertTrue(server.peers[0].left.wait(AT_ONCE), "the server still sees the connection")


@unittest.skipUnless(importlib.util.find_spec("uvloop"), "uvloop is not installed")
class UvloopTest(unittest.TestCase):
    def test_every_test_of_the_twins_passes_on_it(self):
        program = (
            "import asyncio, unittest, uvloop\n"
            "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
            "assert isinstance(asyncio.new_event_loop(), uvloop.Loop)\n"
            "unittest.main('tests.test_async', verbosity=2)"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, capture_output=True)
        output = done.stderr.decode()
        self.assertEqual(done.returncode, 0, output[-10000:])
        self.assertGreater(output.count("... ok"), 20, output)


@unittest.skipUnless(anyio, "anyio is not installed")
class AnyioTest(PeerCase):
    def test_a_task_group_gathers(self):
        sdk, got = self.sdk(self.serve(repeat(mirror)).url), {}

        async def fetch(key):
            got[key] = await get(sdk, key)

        async def main():
            async with anyio.create_task_group() as group:
                for key in KEYS:
                    group.start_soon(fetch, key)

        anyio.run(main)
        self.assertEqual(got, dict(zip(KEYS, KEYS)))

    def test_a_scope_that_times_out_cancels_the_call(self):
        server = self.serve([expect, until_gone], repeat(mirror))
        sdk = self.sdk(server.url, max_workers=1)

        async def main():
            with Stopwatch() as took:
                with anyio.move_on_after(0.1) as scope:
                    await get(sdk)
            self.assertTrue(scope.cancelled_caught)
            self.assertLess(took.seconds, 0.1 + AT_ONCE)
            with anyio.CancelScope(shield=True):
                self.assertEqual(await get(sdk, "next"), "next")

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
        sdk = self.sdk("http://127.0.0.1")
        with self.assertRaises(RuntimeError) as caught:
            trio.run(get, sdk)
        self.assertIn("trio.to_thread.run_sync", str(caught.exception))

    def test_and_that_works(self):
        sdk = self.sdk(self.serve(repeat(mirror)).url)

        async def main():
            return await trio.to_thread.run_sync(lambda: sdk.cache.cache_get(key="k"))

        self.assertEqual(trio.run(main).model_extra, {"key": "k"})


@unittest.skipUnless(httpx, "httpx is not installed")
class HttpxTest(PeerCase):
    def run_with_httpx(self, server, work, **options):
        async def main():
            async with httpx.AsyncClient(trust_env=False) as client:
                sdk = self.sdk(server.url, async_client=client, **options)
                return await work(sdk)

        return asyncio.run(main())

    def test_calls_are_awaited_on_the_caller_s_loop(self):
        loops = set()

        async def note(request):
            loops.add((asyncio.get_running_loop(), threading.get_ident()))

        async def work(sdk):
            sdk.sdk_configuration.async_client.event_hooks = {"request": [note]}
            found = await asyncio.gather(*[get(sdk, key) for key in KEYS])
            self.assertEqual(loops, {(asyncio.get_running_loop(), threading.get_ident())})
            return found

        self.assertEqual(self.run_with_httpx(self.serve(repeat(mirror)), work), KEYS)

    def test_an_upload_of_any_kind_is_streamed(self):
        def pieces():
            yield from (DATA[:1000], b"", DATA[1000:])

        async def work(sdk):
            return await sdk.storage.storage_upload_async(key="k", file=file, progress=lambda *step: sent.append(step))

        for file, content in ((DATA, DATA), (pieces(), DATA), (Block(1 << 20), bytes(1 << 20))):
            sent = []
            with self.subTest(type(file)), Server() as server:
                self.assertEqual(self.run_with_httpx(server, work).url, "u")
                self.assertEqual(server.received[0].file, content)
                self.assertEqual(sent[0][0], 0)
                self.assertGreater(sent[-1][0], len(content))

    def test_its_errors_are_retried_by_the_same_rules(self):
        busy = answer(b"{}", "Retry-After: 0.01", status="503 Busy")
        server = self.serve([expect, busy, expect, answer(b'{"key":"k"}')])
        self.assertEqual(self.run_with_httpx(server, get), "k")
        self.assertEqual(len(server.requests), 2)

    def test_cancelling_a_streamed_upload_is_quiet(self):
        started, complaints = threading.Event(), []
        server = self.serve([lambda peer: peer.read_through(b"\r\n\r\n"), lambda peer: started.set(), until_gone])

        async def work(sdk):
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: complaints.append(context))
            task = asyncio.ensure_future(sdk.storage.storage_upload_async(key="k", file=bytes(32 << 20)))
            await loop.run_in_executor(None, started.wait, 5)
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
