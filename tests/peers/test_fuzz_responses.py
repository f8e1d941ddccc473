"""Arbitrary and mutated bytes as responses (hypothesis): a value or an error of ours, in time, and a sound pool."""

import gzip
import os
import unittest

from aerostack_lite import SDK, HttpClient, errors
from tests.scripted_server import Gone, LoopbackTestCase, ScriptedServer, Stopwatch, answer, post

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:
    st = None

EXAMPLES = int(os.environ.get("AEROSTACK_FUZZ_EXAMPLES", "150"))
TIMEOUT = 0.5

SEEDS = (
    answer(b'{"exists":true,"value":[1,2,{"a":null}]}'),
    answer(gzip.compress(b'{"exists":true,"value":1}'), "Content-Encoding: gzip"),
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;x=y\r\n{"exi\r\n10\r\nsts":true}       \r\n0\r\nA: b\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(b'{"exists":false}'),
    answer(b'{"code":"DB_QUERY_FAILED","message":"m","details":{}}', "Retry-After: 1", status="400 Bad Request"),
    answer(b"", "Location: /again", status="307 Temporary Redirect"),
    b'HTTP/1.0 200 OK\r\n\r\n{"exists":true}',
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\nKeep-Alive: timeout=5, max=100\r\n\r\n",
)


class FuzzServer(ScriptedServer):
    """Answers a request for /fuzz with whatever the test has put there, any other with its own body."""

    def __init__(self):
        super().__init__([self.play])
        self.raw, self.then_close = b"", True
        self.fuzzed = []  # the peers that got it

    def play(self, peer):
        while True:
            request = peer.read_request()
            del self.requests[:], self.peers[:-50]
            if not request.startswith(b"POST /fuzz"):
                peer.send(answer(request.partition(b"\r\n\r\n")[2]))
                continue
            self.fuzzed.append(peer)
            peer.send(self.raw)
            if self.then_close:
                raise Gone()


def if_installed(*given_strategies):
    if st is None:
        return unittest.skip("hypothesis is not installed")

    def decorate(test):
        return settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
            given(*(strategy() for strategy in given_strategies))(test)
        )

    return decorate


def mutated():
    """A sound response with some bytes cut, copied, swapped or spoilt."""

    @st.composite
    def build(draw):
        data = bytearray(draw(st.sampled_from(SEEDS)))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, max(0, len(data) - 1)))
            end = min(len(data), at + draw(st.integers(0, 12)))
            kind = draw(st.integers(0, 4))
            if kind == 0:
                del data[at:end]
            elif kind == 1:
                data[at:at] = data[at:end]
            elif kind == 2:
                data[at:end] = draw(st.binary(max_size=6))
            elif kind == 3:
                data[at:end] = draw(
                    st.sampled_from(
                        (
                            b"\r\n",
                            b"\n",
                            b"\r",
                            b"\0",
                            b":",
                            b" ",
                            b"-1",
                            b"+5",
                            b"99999999999",
                            b"\r\n\r\n",
                            b"chunked",
                            b",",
                            b";",
                        )
                    )
                )
            else:
                del data[at:]
        return bytes(data)

    return build()


def anything():
    return st.binary(max_size=300)


def headed():
    """A status line, then lines made of the words that matter."""
    word = st.sampled_from(
        (
            b"Content-Length",
            b"Transfer-Encoding",
            b"Connection",
            b"Content-Encoding",
            b"Content-Type",
            b"Keep-Alive",
            b"Location",
            b"Set-Cookie",
            b"Retry-After",
            b"chunked",
            b"close",
            b"gzip",
            b"deflate",
            b"identity",
            b"5",
            b"0",
            b"-1",
            b"1, 1",
            b"timeout=0",
            b"timeout=99999999999999999999",
            b"inf",
            b"/",
            b"//",
            b"http://",
            b":",
            b" ",
            b"\t",
            b",",
            b"\x00",
            b"\xff",
            b"\r",
            b"",
            b"application/json; charset=utf-7",
        )
    )
    line = st.tuples(word, st.sampled_from((b": ", b":", b" : ", b"")), word).map(b"".join)
    return st.tuples(
        st.sampled_from(
            (b"200", b"204", b"304", b"100", b"101", b"206", b"307", b"401", b"407", b"413", b"500", b"503", b"999")
        ),
        st.lists(line, max_size=6),
        st.sampled_from((b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"{}", b"", b'{"exists":false}', gzip.compress(b"{}"))),
    ).map(
        lambda parts: (
            b"HTTP/1.1 " + parts[0] + b" x\r\n" + b"".join(line + b"\r\n" for line in parts[1]) + b"\r\n" + parts[2]
        )
    )


class FuzzTest(LoopbackTestCase):
    def setUp(self):
        super().setUp()
        self.server = FuzzServer()
        self.server.__enter__()
        self.addCleanup(self.server.__exit__, None, None, None)
        self.sdk = SDK("key", server_url=self.server.url + "/fuzz", retry_config=None, timeout_ms=TIMEOUT * 1000)
        self.addCleanup(self.sdk.close)
        self.client = HttpClient(max_response_bytes=1 << 20)
        self.addCleanup(self.client.close)
        self.count = 0

    def check(self, raw, then_close=True):
        self.server.raw, self.server.then_close = raw, then_close
        with Stopwatch() as took:
            for call in (
                lambda: self.sdk.cache.cache_get(key="a"),
                lambda: self.sdk.database.db_query(sql="a"),
                lambda: post(self.client, self.server.url + "/fuzz", timeout=TIMEOUT),
            ):
                try:
                    call()
                except errors.AerostackError as error:
                    str(error), repr(error)
        self.assertLess(took.seconds, 3 * (TIMEOUT + 0.3))
        while self.server.fuzzed:
            peer = self.server.fuzzed.pop()
            if then_close:
                peer.ended.wait(5)  # or the next request might race with the close, which no client can win
        for _ in range(2):
            self.count += 1
            mark = b'"%d"' % self.count
            self.assertEqual(post(self.client, self.server.url + "/own", mark).content, mark)

    @if_installed(anything)
    def test_arbitrary_bytes(self, raw):
        self.check(raw)

    @if_installed(mutated)
    def test_mutated_responses(self, raw):
        self.check(raw)

    @if_installed(headed)
    def test_headers_made_of_the_words_that_matter(self, raw):
        self.check(raw)

    @if_installed(anything)
    def test_arbitrary_bodies_under_each_coding(self, body):
        for coding in ("gzip", "deflate", "identity"):
            self.check(answer(body, "Content-Encoding: " + coding))

    @if_installed(anything)
    def test_arbitrary_chunks(self, body):
        self.check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

    @if_installed(mutated)
    def test_surplus_after_a_sound_answer(self, raw):
        self.check(answer(b'{"exists":false}') + raw, then_close=False)
