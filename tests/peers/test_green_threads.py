"""Under gevent and eventlet, which put green threads in the place of the standard library's threads and sockets.

Each program runs in a process of its own, for what is patched stays patched. `pip install gevent eventlet trustme`
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import unittest

from tests.scripted_server import PATIENCE_SECONDS, LoopbackTestCase, ScriptedServer, answer, repeat, until_gone

try:
    import ssl

    import trustme
except ImportError:
    trustme = None

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
AT_ONCE = 10
LARGE = b'"%s"' % (b"x" * (1 << 20))

START = """if 1:
    import sys

    library, order, url = sys.argv[1:]
    if order == "patched after our import":
        import aerostack_lite
    if library == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()
    import asyncio
    import json
    import threading
    import time

    from aerostack_lite import SDK, errors

    sdk = SDK("key", server_url=url, timeout_ms=5000, retry_config=None)
    found = {}
"""

PLAIN = """
    def get(key):
        found[key] = sdk.cache.cache_get(key=key).value

    def tick():
        while "silent" not in found:
            time.sleep(0.01)
            ticks.append(time.monotonic())

    threads = [threading.Thread(target=get, args=(str(number),)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found["large"] = len(sdk.cache.cache_get(key="large").value)
    found["upload"] = sdk.storage.storage_upload(key="u", file=bytes(4 << 20)).url
    ticks = []
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        sdk.cache.cache_get(key="silent", timeout_ms=300)
    except errors.TimeoutException as error:
        found["silent"] = error.attempts
    ticker.join()
    found["others ran meanwhile"] = len(ticks) > 5
    sdk.close()
    print(json.dumps(found))
"""

AWAITED = """
    async def get(key):
        found[key] = (await sdk.cache.cache_get_async(key=key)).value

    async def main():
        async with sdk:
            await asyncio.gather(*[get(str(number)) for number in range(10)])
            found["upload"] = (await sdk.storage.storage_upload_async(key="u", file=bytes(4 << 20))).url
            try:
                await asyncio.wait_for(sdk.cache.cache_get_async(key="silent"), 0.3)
            except asyncio.TimeoutError:
                found["silent"] = "cancelled"

    asyncio.run(main())
    print(json.dumps(found))
"""


class Together:
    """Answers cache_get with its key, but only when as many calls as are made at once have arrived."""

    def __init__(self):
        self._barrier = threading.Barrier(AT_ONCE, timeout=PATIENCE_SECONDS)

    def __call__(self, peer):
        request = peer.read_request()
        key = request.rpartition(b'"key":"')[2].partition(b'"')[0]
        if b"/storage/upload " in request:
            peer.send(answer(b'{"url":"u"}'))
        elif key == b"silent":
            until_gone(peer)
        else:
            if key != b"large":
                self._barrier.wait()
            peer.send(answer(b'{"exists":true,"value":%s}' % (LARGE if key == b"large" else b'"%s"' % key)))


class GreenCase:
    LIBRARY = None

    def setUp(self):
        super().setUp()
        if importlib.util.find_spec(self.LIBRARY) is None:
            self.skipTest("%s is not installed" % self.LIBRARY)

    def run_program(self, steps, expected, tls=None):
        for order in ("patched before our import", "patched after our import"):
            with self.subTest(order), ScriptedServer(repeat(Together()), tls=tls) as server:
                done = subprocess.run(
                    [sys.executable, "-c", START + steps, self.LIBRARY, order, server.url],
                    cwd=ROOT,
                    timeout=60,
                    capture_output=True,
                )
                self.assertEqual(done.returncode, 0, done.stderr.decode())
                self.assertEqual(json.loads(done.stdout.decode()), expected)

    def expected(self, **more):
        return dict({str(number): str(number) for number in range(AT_ONCE)}, upload="u", **more)

    def expected_plain(self):
        return self.expected(large=1 << 20, silent=1, **{"others ran meanwhile": True})

    def test_http_calls_and_uploads_go_on_side_by_side(self):
        self.run_program(PLAIN, self.expected_plain())

    @unittest.skipUnless(trustme, "trustme is not installed")
    def test_https_calls_and_uploads_go_on_side_by_side(self):
        authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        with authority.cert_pem.tempfile() as bundle:
            os.environ["SSL_CERT_FILE"] = bundle
            self.run_program(PLAIN, self.expected_plain(), tls=tls)

    def test_awaited_calls_and_uploads_go_on_side_by_side(self):
        self.run_program(AWAITED, self.expected(silent="cancelled"))


class GeventTest(GreenCase, LoopbackTestCase):
    LIBRARY = "gevent"


class EventletTest(GreenCase, LoopbackTestCase):
    LIBRARY = "eventlet"


if __name__ == "__main__":
    unittest.main()
