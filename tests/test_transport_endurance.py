"""Thousands of calls with mixed faults: nothing leaks, nothing crosses.

AEROSTACK_ENDURANCE_CALLS=10000 makes it the full number.
"""

import gc
import json
import os
import random
import threading
import tracemalloc
import unittest
import warnings

from aerostack_lite import SDK, errors
from tests.scripted_server import LoopbackTestCase, ScriptedServer, answer, close, open_descriptors, reset

CALLS = int(os.environ.get("AEROSTACK_ENDURANCE_CALLS", "400"))
MEBIBYTE = 1 << 20


def own(body):
    """The answer that belongs to a request: its own key as the value."""
    return json.dumps({"exists": True, "value": json.loads(body.decode())["key"]}).encode()


FAULTS = (
    own,  # without a head
    lambda body: answer(b"busy", status="503 Busy", content_type="text/plain"),
    lambda body: answer(b"{", status="200 OK"),
    lambda body: answer(b"not gzip", "Content-Encoding: gzip"),
    lambda body: answer(own(body), "Connection: close"),
    lambda body: b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(own(body)),
    lambda body: answer(own(body)) + answer(b'{"exists":true,"value":"forged"}'),
    lambda body: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + own(body),
    lambda body: b"SSH-2.0-OpenSSH\r\n",
    lambda body: answer(b"", "Location: http://127.0.0.1:9/", status="307 Elsewhere"),
    lambda body: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + own(body),
)


def play(peer):
    """Serve calls one after the other; every third goes wrong, in turn."""
    dice = random.Random(len(peer.server.peers))
    while True:
        body = peer.read_request().partition(b"\r\n\r\n")[2]
        choice = dice.randrange(3 * (len(FAULTS) + 2))
        if choice < len(FAULTS):
            peer.send(FAULTS[choice](body))
            close(peer) if choice in (0, 7, 8, 9, 11) else None
        elif choice == len(FAULTS):
            close(peer)
        elif choice == len(FAULTS) + 1:
            reset(peer)
        else:
            peer.send(answer(own(body)))


class EnduranceTest(LoopbackTestCase):
    def run_calls(self, sdk, count, outcomes):
        for _ in range(count):
            mark = "%x" % random.getrandbits(64)
            try:
                got = sdk.cache.cache_get(key=mark, retries=None).value
            except errors.AerostackError as error:
                got = type(error).__name__
            else:
                self.assertEqual(got, mark)
                got = "value"
            outcomes[got] = outcomes.get(got, 0) + 1

    @unittest.skipIf(open_descriptors() is None, "descriptors cannot be counted here")
    def test_mixed_faults_leave_descriptors_threads_and_memory_flat(self):
        outcomes = {}
        with warnings.catch_warnings(record=True) as warned, ScriptedServer([play]) as server:
            warnings.simplefilter("always")
            with SDK("k", server_url=server.url, timeout_ms=5000) as sdk:
                self.run_calls(sdk, 200, {})  # fills the caches that Python and the module keep
                flat = self.footprint(server)
                tracemalloc.start()
                try:
                    for _ in range(4):
                        self.run_calls(sdk, CALLS // 4, outcomes)
                        now = self.footprint(server)
                        self.assertLessEqual(now[0], flat[0] + 2)  # the connection in use, and its other end
                        self.assertEqual(now[1], flat[1])
                    size, _ = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                self.assertLess(size, MEBIBYTE)
            self.assertGreater(outcomes["value"], CALLS // 2)
            self.assertGreater(len(outcomes), 4, outcomes)
            gc.collect()
        self.assertEqual([str(warning.message) for warning in warned], [])

    def footprint(self, server):
        """Descriptors and threads, without this server's own threads and records."""
        for peer in list(server.peers)[:-1]:
            peer.ended.wait(5)
        server.forget()
        gc.collect()
        others = set(threading.enumerate()) - set(server.threads)
        return open_descriptors(), len(others)

    def test_many_threads_with_mixed_faults_get_their_own_answers(self):
        trouble = []

        def work():
            try:
                self.run_calls(sdk, CALLS // 10, {})
            except BaseException as error:
                trouble.append(error)

        with ScriptedServer([play]) as server, SDK("k", server_url=server.url, timeout_ms=20000) as sdk:
            threads = [threading.Thread(target=work) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(trouble, [])
