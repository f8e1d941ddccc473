"""What comes back: framing by RFC 9112, coding, caps, JSON; whatever the server says."""

import gzip
import json
import os
import random
import subprocess
import sys
import time
import warnings
import zlib

from aerostack_lite import SDK, HttpClient, Response, errors
from tests.certificates import CertificateCase
from tests.recording_server import peak_memory
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    close,
    expect,
    flood,
    hang,
    header,
    post,
    repeat,
    until_gone,
)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MEBIBYTE = 1 << 20
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def in_chunks(data, *headers):
    """A whole response in chunks of one byte."""
    chunks = b"".join(b"1\r\n" + data[n : n + 1] + b"\r\n" for n in range(len(data)))
    return CHUNKED[:-2] + b"".join(b"%s\r\n" % line.encode() for line in headers) + b"\r\n" + chunks + b"0\r\n\r\n"


class ResponseCase(LoopbackTestCase):
    def ask(self, *script, **options):
        """Post to a server that reads the request and plays this script; whatever comes of it, the next call works."""
        timeout = options.pop("timeout", 2.0)

        def go_on(peer):
            while True:
                peer.read_request()
                peer.send(answer(b'"own"'))

        with ScriptedServer((expect,) + script + (go_on,), [go_on]) as server, HttpClient(**options) as client:
            try:
                return post(client, server.url, timeout=timeout)
            finally:
                self.assertEqual(post(client, server.url).json(), "own")

    def assert_refused(self, *script, **options):
        error_type = options.pop("error", errors.RemoteProtocolError)
        with Stopwatch() as took, self.assertRaises(error_type) as caught:
            self.ask(*script, **options)
        self.assertLess(took.seconds, 1.5)
        return caught.exception

    def ask_sdk(self, *script, **options):
        operation = options.pop("operation", "cache_get")
        with ScriptedServer((expect,) + script) as server:
            with SDK("key", server_url=server.url, retry_config=None, timeout_ms=5000) as sdk:
                if operation == "cache_get":
                    return sdk.cache.cache_get(key="a")
                return sdk.database.db_query(sql="s")

    def sdk_error(self, *script, **options):
        with self.assertRaises(errors.AerostackError) as caught:
            self.ask_sdk(*script, **options)
        return caught.exception


class ContentLengthTest(ResponseCase):
    def test_one_that_is_no_number_is_refused(self):
        for value in (
            b"-1",
            b"-0",
            b"+25",
            b"2_5",
            b"0x19",
            b"25abc",
            b"1e1",
            b"2 5",
            b"25;",
            b"25, 26",
            b"25,",
            b",25",
            b"",
            b" ",
            b"NaN",
            "\u0662\u0665".encode(),
            "\uff12\uff15".encode(),
            b"\xb2\xb5",
            b"25.0",
            b"'25'",
            b"25\x0b",
            b"\x0c25",
            b"25\x1f",
            b"25\xc2\xa0",
        ):
            with self.subTest(value):
                self.assert_refused(OK + b"Content-Length: " + value + b"\r\n\r\n" + b"x" * 25)

    def test_two_that_differ_are_refused(self):
        for first, second in ((b"25", b"26"), (b"26", b"25"), (b"25", b"x"), (b"0", b"25")):
            self.assert_refused(OK + b"Content-Length: %s\r\ncontent-length: %s\r\n\r\n" % (first, second) + b"x" * 25)

    def test_two_that_agree_are_one_or_refused(self):
        for lengths in (
            b"Content-Length: 25\r\nContent-Length: 25",
            b"Content-Length: 25, 25",
            b"Content-Length:25 ,\t25",
        ):
            with self.subTest(lengths):
                try:
                    self.assertEqual(self.ask(OK + lengths + b"\r\n\r\n" + b"x" * 25).content, b"x" * 25)
                except errors.RemoteProtocolError:
                    pass

    def test_leading_zeros_are_a_number(self):
        self.assertEqual(self.ask(OK + b"Content-Length: 0005\r\n\r\nhello").content, b"hello")

    def test_a_huge_one_is_refused(self):
        for digits in (b"9" * 30, b"9" * 5000, b"18446744073709551621"):
            with self.subTest(len(digits)):
                self.assert_refused(OK + b"Content-Length: " + digits + b"\r\n\r\nhello", close)

    def test_with_chunked_it_is_refused_or_the_connection_is_never_used_again(self):
        for heads in (
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        ):
            both = OK + heads + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            with ScriptedServer(
                [expect, both, until_gone], [expect, answer(b'"own"')]
            ) as server, HttpClient() as client:
                try:
                    self.assertEqual(post(client, server.url).content, b"hello")
                except errors.RemoteProtocolError:
                    pass
                self.assertTrue(server.peers[0].left.wait(5))
                self.assertEqual(post(client, server.url).json(), "own")


class ChunkTest(ResponseCase):
    def test_well_formed_ones_are_read(self):
        for body in (
            b"5\r\nhello\r\n0\r\n\r\n",
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"5;a=b;c\r\nhello\r\n0\r\n\r\n",
            b'5 ; a="b"\r\nhello\r\n0\r\n\r\n',
            b"0005\r\nhello\r\n000\r\n\r\n",
            b"5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
            b"5\r\nhello\r\n0;x\r\n\r\n",
        ):
            with self.subTest(body):
                self.assertEqual(self.ask(CHUNKED + body).content, b"hello")
        big = bytes(range(256)) * 4096
        self.assertEqual(self.ask(CHUNKED + b"%X\r\n%s\r\n0\r\n\r\n" % (len(big), big)).content, big)

    def test_a_size_that_is_no_hexadecimal_number_is_refused(self):
        for size in (
            b"0x5",
            b"+5",
            b"-5",
            b"-0",
            b"5_0",
            b"1_9",
            b"",
            b" ",
            b"g",
            b"5 5",
            b"5g",
            b"\xb2",
            "\uff15".encode(),
            b"5.",
            b"5,",
            b"\t5",
            b" 5",
            b"f" * 17,
            b"1" + b"0" * 16,
            b"0" * 5000 + b"5",
            b"8000000000000000",
            b"5\x00",
            b"5\x0b",
            b"5\r",
            b"5;a\nb",
            b"5;a\rb",
        ):
            with self.subTest(size[:20]):
                self.assert_refused(CHUNKED + size + b"\r\n" + b"hello\r\n0\r\n\r\n", close)

    def test_junk_where_crlf_belongs_is_refused(self):
        for body in (
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello world\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\rX0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
        ):
            with self.subTest(body):
                self.assert_refused(CHUNKED + body, timeout=0.5, error=errors.RemoteProtocolError)

    def test_a_bare_line_feed_is_refused_at_once(self):
        for body in (b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n0\r\nA: b\n\r\n"):
            with self.subTest(body), Stopwatch() as took:
                self.assert_refused(CHUNKED + body, hang, timeout=1.4)
            self.assertLess(took.seconds, 1)

    def test_trailers_and_extensions_without_end_are_refused(self):
        for endless in (b"5\r\nhello\r\n0\r\n", b"5\r\nhello\r\n0\r\nA: ", b"5;", b'5;a="', b""):
            for block in (b"X: y\r\n" * 100, b"y" * 1000):
                if endless in (b"", b"5;", b'5;a="') and b"\r\n" in block:
                    continue
                with self.subTest(endless, block=block[:4]):
                    self.assert_refused(CHUNKED + endless, flood(block), timeout=5.0)

    def test_a_line_is_measured_also_when_it_comes_all_at_once(self):
        whole = b"1;e=%b\r\nx\r\n0\r\n\r\n"
        self.assertEqual(self.ask(CHUNKED + whole % (b"x" * 8000)).content, b"x")
        self.assert_refused(CHUNKED + whole % (b"x" * 9000))

    def test_tiny_chunks_with_fat_extensions_do_not_pass_for_ever(self):
        with Stopwatch() as took:
            self.assert_refused(
                CHUNKED, flood((b"1;" + b"e" * 4000 + b"\r\nx\r\n") * 10), timeout=1.0, max_response_bytes=1000
            )
        self.assertLess(took.seconds, 2)

    def test_trailers_never_become_headers(self):
        response = self.ask(
            CHUNKED + b"5\r\nhello\r\n0\r\nContent-Encoding: gzip\r\nX-Late: 1\r\nContent-Length: 3\r\n\r\n"
        )
        self.assertEqual((response.content, "x-late" in response.headers), (b"hello", False))

    def test_a_trailer_that_is_no_header_is_refused(self):
        for trailer in (
            b"no colon here",
            b": no name",
            b"Bad Name: x",
            b"Name : x",
            b"Na\0me: x",
            b"N\xe9: x",
            b"A: b\0c",
            b"A: b\rc",
            b" A: b",
            b"\tA",
            b"HTTP/1.1 200 OK",
            b"A: b\r\nno colon here",
        ):
            with self.subTest(trailer):
                self.assert_refused(CHUNKED + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n", timeout=0.5)

    def test_other_transfer_codings_are_refused(self):
        for coding in (
            b"gzip",
            b"gzip, chunked",
            b"chunked, gzip",
            b"chunked, chunked",
            b"identity",
            b"xchunked",
            b"chunked;q=1",
            b"",
            b"\x0bchunked",
            b"chunked\x00",
            "chun\u212aed".encode(),  # the sign of the kelvin, which becomes a k in lower case
            "chun\u212aED".encode(),
            "\uff43hunked".encode(),  # a wide c
            b"chunked\xa0",
            "chunked\u2003".encode(),
            b"chunked\r\nTransfer-Encoding: chunked",
            b"chunked\r\nTransfer-Encoding: identity",
        ):
            with self.subTest(coding):
                self.assert_refused(OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", close)

    def test_chunked_is_known_in_any_case(self):
        for name in (b"Chunked", b"CHUNKED", b"  chunked\t"):
            self.assertEqual(
                self.ask(OK + b"Transfer-Encoding:" + name + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n").content, b"hello"
            )

    def test_chunks_under_http_1_0_are_refused_or_end_the_connection(self):
        whole = (
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        try:
            self.assertEqual(self.ask(whole, close).content, b"hello")
        except errors.RemoteProtocolError:
            pass


class HeaderTest(ResponseCase):
    def test_a_malformed_line_is_refused_and_hides_nothing(self):
        for line in (
            b"no colon here",
            b": no name",
            b"Bad Name: x",
            b"Bad\tName: x",
            b"Name : x",
            b"Na\0me: x",
            b"N\xe9: x",
            b"A: b\0c",
            b"A: b\rc",
            b"A: b\rContent-Length: 99",
            b"\x0bA: b",
            b"A(b): c",
            b"A: \x00",
            b"From me to you",
            b"A: b\x7fc\0",
            b"X\r: y",
        ):
            for before, after in ((b"", b"Content-Length: 5\r\n"), (b"Content-Length: 5\r\n", b"")):
                with self.subTest(line, before=before):
                    self.assert_refused(OK + before + line + b"\r\n" + after + b"\r\nhello", timeout=0.5)

    def test_white_space_before_the_first_header_is_refused(self):
        self.assert_refused(OK + b" Content-Length: 5\r\n\r\nhello", timeout=0.5)

    def test_a_folded_value_is_refused_or_joined(self):
        try:
            response = self.ask(OK + b"X-Long: one\r\n two\r\nContent-Length: 5\r\n\r\nhello")
        except errors.RemoteProtocolError:
            return
        self.assertEqual((response.content, response.headers["x-long"].split()), (b"hello", ["one", "two"]))

    def test_a_folded_length_is_refused_or_whole(self):
        try:
            response = self.ask(OK + b"Content-Length: \r\n 5\r\n\r\nhello", timeout=0.5)
        except errors.RemoteProtocolError:
            return
        self.assertEqual(response.content, b"hello")

    def test_there_may_be_64_kib_of_them_and_no_more(self):
        for count, size in ((60, 1000), (1, 60000), (150, 300), (900, 50)):
            heads = b"".join(b"X-%d: %s\r\n" % (n, b"y" * size) for n in range(count))
            with self.subTest(count=count, size=size):
                response = self.ask(OK + heads + b"Content-Length: 5\r\n\r\nhello")
                self.assertEqual((response.content, response.headers["x-0"]), (b"hello", "y" * size))
        for count, size in ((1, 70000), (80, 1000), (20000, 1)):
            heads = b"".join(b"X-%d: %s\r\n" % (n, b"y" * size) for n in range(count))
            with self.subTest(count=count, size=size):
                self.assert_refused(OK + heads + b"Content-Length: 5\r\n\r\nhello")

    def test_headers_without_end_are_refused_at_once(self):
        for block in (b"y" * 1000, b"X: y\r\n" * 200, b"\r\n X" * 300):
            self.assert_refused(OK + b"A: ", flood(block), timeout=5.0)
        self.assert_refused(flood(b"HTTP/1.1 200 O" + b"K" * 1000), timeout=5.0)

    def test_white_space_by_the_thousand_costs_no_time(self):
        # A pattern that tries every way to share out the spaces needs minutes, and holds up every thread meanwhile.
        for line in (
            b"X:" + b" " * 1000 + b"\0",
            b"X: a" + b" " * 16000 + b"\0",
            b"X: a" + b" " * 16000 + b"b",
            b"X:" + b" " * 60000 + b"b",
            b"X: " + b"a " * 8000 + b"\0",
            b"X:" + b"\t " * 500 + b"\r",
        ):
            with self.subTest(line[:8], end=line[-1:]), Stopwatch(time.process_time) as took:
                try:
                    self.ask(OK + line + b"\r\nContent-Length: 0\r\n\r\n")
                except errors.RemoteProtocolError:
                    pass
            self.assertLess(took.seconds, 0.5)

    def test_repeated_ones_are_joined_and_their_case_does_not_matter(self):
        response = self.ask(answer(b"{}", "X-Two: a", "x-two: b"))
        self.assertEqual(response.headers["X-TWO"], "a, b")

    def test_bytes_beyond_ascii_in_a_value_are_no_trouble(self):
        response = self.ask(OK + b"X-Name: caf\xc3\xa9 \xff\r\nContent-Length: 2\r\n\r\n{}")
        self.assertTrue(response.headers["x-name"].startswith("caf"))

    def test_odd_line_ends_do_not_smuggle(self):
        # RFC 9112, 2.2 lets a client take a lone LF as a line end; what it must not do is disagree with itself.
        smuggled = OK + b"A: b\nContent-Length: 5\r\n\r\nhello"
        try:
            self.assertEqual(self.ask(smuggled, timeout=0.5).content, b"hello")
        except errors.RemoteProtocolError:
            pass


class CapTest(ResponseCase):
    def test_a_declared_length_allocates_nothing(self):
        for cap in (64 * MEBIBYTE, 2 * 10**12):
            raw = OK + b"Content-Length: 1000000000000\r\n\r\n" + b"x" * 25
            peak = peak_memory(lambda: self.assert_refused(raw, close, max_response_bytes=cap))
            self.assertLess(peak, 2 * MEBIBYTE)

    def test_a_declared_chunk_allocates_nothing(self):
        peak = peak_memory(
            lambda: self.assert_refused(CHUNKED + b"e8d4a51000\r\n" + b"x" * 25, close, max_response_bytes=2 * 10**12)
        )
        self.assertLess(peak, 2 * MEBIBYTE)

    def test_a_body_over_the_cap_is_an_error_that_names_the_setting(self):
        cap = 100000
        for script in (
            (OK + b"Content-Length: %d\r\n\r\n" % (cap + 1), flood(b"x" * 10000)),
            (CHUNKED, flood(b"2710\r\n" + b"x" * 10000 + b"\r\n")),
            (CHUNKED + b"ffffff\r\n", flood(b"x" * 10000)),
            (OK + b"\r\n", flood(b"x" * 10000)),
            (answer(gzip.compress(bytes(cap + 1)), "Content-Encoding: gzip"), until_gone),
            (answer(gzip.compress(bytes(cap + 1)), "Content-Encoding: x-gzip, identity"), until_gone),
        ):
            with self.subTest(script[0][:60]):
                self.assertIn("max_response_bytes", str(self.assert_refused(*script, max_response_bytes=cap)))

    def test_a_body_of_just_the_cap_is_fine(self):
        body = b"x" * 100000
        for raw in (
            answer(body),
            CHUNKED + b"186a0\r\n" + body + b"\r\n0\r\n\r\n",
            answer(gzip.compress(body), "Content-Encoding: gzip"),
        ):
            self.assertEqual(self.ask(raw, max_response_bytes=100000).content, body)

    def test_a_bomb_stays_small_in_memory(self):
        bomb = gzip.compress(bytes(32 * MEBIBYTE))
        for coding in ("gzip", "x-gzip", "identity, gzip"):
            raw = answer(bomb, "Content-Encoding: " + coding)
            peak = peak_memory(lambda: self.assert_refused(raw, max_response_bytes=MEBIBYTE))
            self.assertLess(peak, 6 * MEBIBYTE)

    def test_a_body_of_empty_gzip_members_costs_no_time(self):
        raw = answer(gzip.compress(b"") * 80000, "Content-Encoding: gzip")
        with Stopwatch(time.process_time) as took:
            try:
                self.assertEqual(self.ask(raw).content, b"")
            except (errors.RemoteProtocolError, errors.DecodingError):
                pass
        self.assertLess(took.seconds, 0.7)

    def test_there_may_be_a_thousand_gzip_members_and_no_more(self):
        member = gzip.compress(b"x")
        self.assertEqual(self.ask(answer(member * 1000, "Content-Encoding: gzip")).content, b"x" * 1000)
        with self.assertRaises(errors.DecodingError):
            self.ask(answer(member * 1001, "Content-Encoding: gzip"))

    def test_neither_do_many_members_with_much_behind_them(self):
        members, much = gzip.compress(b"") * 990, bytes(8 * MEBIBYTE)
        for behind, content in ((much, b""), (gzip.compress(much, 0), much)):
            with Stopwatch(time.process_time) as took:
                self.assertEqual(self.ask(answer(members + behind, "Content-Encoding: gzip")).content, content)
            self.assertLess(took.seconds, 0.7)

    def test_coding_upon_coding_costs_no_time(self):
        body = gzip.compress(gzip.compress(gzip.compress(b"") * 60000))
        with Stopwatch(time.process_time) as took:
            try:
                self.ask(answer(body, "Content-Encoding: gzip, gzip, gzip"))
            except (errors.RemoteProtocolError, errors.DecodingError):
                pass
        self.assertLess(took.seconds, 0.7)

    def test_tiny_chunks_cost_no_time(self):
        with Stopwatch(time.process_time) as took:
            response = self.ask(CHUNKED + b"1\r\nx\r\n" * 30000 + b"0\r\n\r\n", timeout=20)
        self.assertEqual(len(response.content), 30000)
        self.assertLess(took.seconds, 1)

    def test_the_cap_holds_for_error_answers_too(self):
        raw = answer(b"x" * 5000, status="500 Oops")
        with ScriptedServer([expect, raw]) as server, HttpClient(max_response_bytes=1000) as client:
            with SDK("key", server_url=server.url, client=client, retry_config=None) as sdk:
                with self.assertRaises(errors.AerostackError) as caught:
                    sdk.cache.cache_get(key="a")
        self.assertIn("max_response_bytes", str(caught.exception))


class TruncationTest(ResponseCase):
    def test_a_body_cut_short_says_received_and_expected(self):
        error = self.assert_refused(OK + b"Content-Length: 1234\r\n\r\n" + b"x" * 567, close)
        self.assertRegex(str(error), r"\b567\b.*\b1,?234\b|\b1,?234\b.*\b567\b")

    def test_a_chunked_body_cut_short_is_an_error(self):
        for body in (
            b"",
            b"5",
            b"5\r\n",
            b"5\r\nhel",
            b"5\r\nhello",
            b"5\r\nhello\r\n",
            b"5\r\nhello\r\n0",
            b"5\r\nhello\r\n0\r\n",
            b"5\r\nhello\r\n0\r\nA: b\r\n",
        ):
            with self.subTest(body):
                self.assert_refused(CHUNKED + body, close)

    def test_a_head_cut_short_is_an_error(self):
        whole = OK + b"Content-Length: 0\r\nX-A: b\r\n\r\n"
        for end in range(1, len(whole), 3):
            with self.subTest(whole[:end]):
                self.assert_refused(whole[:end], close)

    def test_a_valid_json_prefix_is_not_a_value(self):
        self.assertIsInstance(
            self.sdk_error(OK + b'Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"exists":false}', close),
            errors.RemoteProtocolError,
        )

    def test_it_is_repeated_only_where_that_is_safe(self):
        cut = OK + b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        with ScriptedServer([expect, cut]) as server, SDK("key", server_url=server.url) as sdk:
            with self.assertRaises(errors.RemoteProtocolError) as caught:
                sdk.queue.queue_enqueue(type="t", data={})
            self.assertEqual(
                (len(server.requests), caught.exception.attempts, caught.exception.maybe_processed), (1, 1, True)
            )


class NotHttpTest(ResponseCase):
    def test_what_is_not_http_is_said_with_a_short_escaped_excerpt(self):
        for raw, excerpt in (
            (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "SSH-2.0-OpenSSH"),
            (b"220 mail.test ESMTP\r\n", "220 mail.test"),
            (b"-ERR unknown command\r\n", "-ERR unknown"),
            (b"<html>hello</html>\r\n\r\n", "<html>"),
            (b"\x1b[31mHTTP/1.1 200 OK\r\n\r\n", "[31m"),
            (b"\x00\x01\x02\x03\r\n\r\n", "x01"),
            (b"y" * 60000 + b"\r\n", "yyyyy"),
            (b"HTTP/1.1 abc OK\r\n\r\n", "abc"),
        ):
            with self.subTest(raw[:30]):
                error = self.assert_refused(raw, timeout=1.0)
                self.assertIn(excerpt, str(error))
                self.assertLess(len(str(error)), 600)
                self.assertNotRegex(str(error), "[\x00-\x09\x0b-\x1f\x7f-\x9f]")

    def test_a_garbled_status_line_is_refused(self):
        for line in (
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1 20",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1 2_0 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 000 OK",
            b"HTTP/2.0 200 OK",
            b"HTTP/0.9 200 OK",
            b"HTTP/1.1200 OK",
            b"HTTP 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.x 200 OK",
            b"HTTP/ 200 OK",
            b"HTTP/11 200 OK",
            "HTTP/1.1 \uff12\uff10\uff10 OK".encode(),
            b"HTTP/1.1 \xb2\xb2\xb2 OK",
            b"HTTP/1.1 0x8 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 200\0OK",
            b"HTTP/1.1 200 O\0K",
            b"HTTP/1.1 200 O\rK",
            b"XHTTP/1.1 200 OK",
            b"HTTP/+1.1 200 OK",
            b"HTTP/1.10 200 OK",
        ):
            with self.subTest(line):
                self.assert_refused(line + b"\r\nContent-Length: 5\r\n\r\nhello", timeout=0.5)

    def test_a_missing_or_odd_reason_is_fine(self):
        for line in (b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 \xc3\xa9\xff", b"HTTP/1.1 200 a  b"):
            with self.subTest(line):
                self.assertEqual(self.ask(line + b"\r\nContent-Length: 5\r\n\r\nhello").content, b"hello")

    def test_an_empty_answer_is_an_error(self):
        self.assert_refused(close, error=(errors.RemoteProtocolError, errors.ReadError))
        self.assert_refused(b"\r\n\r\n\r\n\r\n", timeout=0.5)


class CodingTest(ResponseCase):
    body = json.dumps({"exists": True, "value": "x" * 3000}).encode()

    def test_gzip_alone_is_asked_for(self):
        with ScriptedServer(repeat(expect, answer(b'{"exists":false}'))) as server, SDK(
            "key", server_url=server.url
        ) as sdk:
            sdk.cache.cache_get(key="a")
            self.assertEqual(header(server.requests[0], "Accept-Encoding"), ["gzip"])

    def assert_decoded(self, packed, *headers):
        for raw in (answer(packed, *headers), in_chunks(packed, *headers)):
            with self.subTest(headers, raw=raw[:80]):
                response = self.ask(raw)
                self.assertEqual((response.content, response.json()["exists"]), (self.body, True))

    def test_gzip_is_decoded_under_each_of_its_names(self):
        for coding in (
            "gzip",
            "GZip",
            "x-gzip",
            "X-GZIP",
            "gzip, identity",
            "identity, gzip",
            "Identity,X-GZip ,\tIDENTITY",
            "gzip,",
            " , gzip",
        ):
            self.assert_decoded(gzip.compress(self.body), "Content-Encoding: " + coding)
        self.assert_decoded(gzip.compress(self.body), "Content-Encoding: gzip", "Content-Encoding: identity")

    def test_gzip_may_have_members(self):
        self.assert_decoded(gzip.compress(self.body[:99]) + gzip.compress(self.body[99:]), "Content-Encoding: gzip")

    def test_gzip_upon_gzip_is_decoded_or_refused(self):
        for coding in ("gzip, gzip", "x-gzip,gzip"):
            raw = answer(gzip.compress(gzip.compress(self.body)), "Content-Encoding: " + coding)
            with self.subTest(coding):
                try:
                    self.assertEqual(self.ask(raw).content, self.body)
                except errors.DecodingError:
                    pass

    def test_codings_are_undone_from_the_last_two_at_most_as_far_as_they_are_known(self):
        once = gzip.compress(self.body)
        for coding, sent, content in (
            ("x-unknown, gzip", once, self.body),
            ("gzip, x-unknown", once, once),
            ("gzip, gzip, gzip", gzip.compress(gzip.compress(once)), once),
        ):
            with self.subTest(coding):
                self.assertEqual(self.ask(answer(sent, "Content-Encoding: " + coding)).content, content)

    def test_bytes_behind_the_gzip_body_are_dropped(self):
        for behind in (
            b"\0",
            bytes(600),
            b"\n",
            b"\r\n\r\n",
            b"junk",
            b"}",
            b"\xff\xfe",
            b"\0junk",
            b"x" * 5000,
        ):
            for packed in (gzip.compress(self.body), gzip.compress(self.body[:99]) + gzip.compress(self.body[99:])):
                self.assert_decoded(packed + behind, "Content-Encoding: gzip")

    def test_an_error_s_body_is_decoded_in_the_same_way(self):
        problem = gzip.compress(b'{"code":"X","message":"No such table"}') + b"\njunk"
        error = self.sdk_error(
            answer(problem, "Content-Encoding: x-gzip, identity", status="400 Bad"), operation="db_query"
        )
        self.assertEqual((type(error), str(error)), (errors.ErrorResponse, "No such table"))

    def test_broken_and_truncated_gzip_is_an_error(self):
        whole = gzip.compress(self.body)
        for packed in (
            whole[:-1],
            whole[:-9],
            whole[:20],
            whole[:3],
            b"plain",
            self.body,
            b"\n" + whole,
            whole[:-8] + b"\0" * 8,
            whole[:-8] + b"\0" * 8 + b"junk",
            whole[:30] + b"\xff" * 20 + whole[50:],
            zlib.compress(self.body),
        ):
            for coding in ("gzip", "x-gzip", "gzip, identity"):
                with self.subTest(coding, packed=packed[-12:]):
                    error = self.assert_refused(
                        answer(packed, "Content-Encoding: " + coding), error=errors.DecodingError
                    )
                    self.assertIn("gzip", str(error))

    def test_an_empty_body_needs_no_decoding(self):
        for coding in ("gzip", "x-gzip", "gzip, identity"):
            for raw in (
                answer(b"", "Content-Encoding: " + coding),
                b"HTTP/1.1 204 No\r\nContent-Encoding: %s\r\n\r\n" % coding.encode(),
            ):
                self.assertEqual(self.ask(raw).content, b"")

    def test_a_coding_not_asked_for_is_taken_as_it_stands(self):
        for body in (b'{"a":1}', zlib.compress(self.body)):
            for coding in ("deflate", "br", "zstd", "compress", "identity", "x-unknown", "none", "gzipped", "x-gzip2"):
                with self.subTest(coding):
                    self.assertEqual(self.ask(answer(body, "Content-Encoding: " + coding)).content, body)

    def test_one_that_only_looks_like_gzip_is_not_gzip(self):
        for coding in ("\uff47zip", "gz\u0131p", "GZ\u0130P", "gzip\u2003", "gzip;q=1", "g zip"):
            with self.subTest(coding):
                raw = answer(b'{"a":1}', "Content-Encoding: " + coding)
                self.assertEqual(self.ask(raw).content, b'{"a":1}')


class ProtocolWordsTest(ResponseCase):
    """The words of HTTP are ASCII. Python takes more letters for an s or a k, and more digits for a number."""

    def test_a_charset_is_named_in_ascii(self):
        text = "caf\u00e9"
        for content_type in (
            "text/plain; char\u017fet=iso-8859-1",  # a long s
            "text/plain; charset=\u212aoi8-r",
            "text/plain; charset=i\u017fo-8859-1",
            "text/plain; charset=\uff4catin-1",
        ):
            with self.subTest(content_type):
                response = self.ask(answer(text.encode(), content_type=content_type))
                self.assertEqual(response.text, text)

    def test_a_wait_is_asked_for_in_ascii(self):
        for value in (
            "\u0663",
            "\uff13",
            "\u0663.5",
            "1\u0660",
            "\u00b3",
            "Fri, \u0662\u0661 Oct 2095 07:28:00 GMT",
            "3_0",
        ):
            with self.subTest(value):
                error = self.sdk_error(answer(b"", "Retry-After: " + value, status="503 Busy"))
                self.assertIsNone(error.retry_after)

    def test_a_connection_is_ended_in_ascii(self):
        for line in (
            "Connection: clo\u017fe",
            "Connection: \uff43lose",
            "Connection: close\u2003",
            "Keep-Alive: timeout=\u0661",
            "Keep-Alive: timeout=\uff11",
            "Keep-Alive: \uff54imeout=1",
        ):
            script = [expect, answer(b"1", line), expect, answer(b"2")]
            with self.subTest(line), ScriptedServer(script) as server, HttpClient() as client:
                self.assertEqual([post(client, server.url).content for _ in range(2)], [b"1", b"2"])

    def test_a_media_type_is_named_in_ascii(self):
        problem = b'{"code":"X","message":"m"}'
        for media in ("application/j\u017fon", "\uff41pplication/json", "application/json\u2003"):
            with self.subTest(media):
                error = self.sdk_error(answer(problem, status="400 Bad", content_type=media), operation="db_query")
                self.assertIsInstance(error, errors.SDKError)


class EndOfTlsTest(CertificateCase):
    """A body that ends with its connection is whole if TLS says so: anyone on the way can cut a connection."""

    def ask(self, *ending):
        with ScriptedServer([expect, b"HTTP/1.1 200 OK\r\n\r\n{", *ending], tls=self.tls) as server:
            return post(self.trusting(), server.url)

    def test_one_that_ends_with_tls_is_whole(self):
        self.assertEqual(self.ask(lambda peer: peer.socket.unwrap()).content, b"{")

    def test_one_that_is_cut_is_an_error(self):
        with self.assertRaises(errors.ReadError) as caught:
            self.ask()
        self.assertIs(caught.exception.connection_lost, True)


class DrippedTest(CertificateCase):
    """A server that sends a byte or two in each TLS record: as many pieces as there are bytes."""

    def ask(self, raw, size):
        def drip_records(peer):
            for start in range(0, len(raw), size):
                peer.send(raw[start : start + size])

        def end_of_tls(peer):
            peer.socket.unwrap()

        script = [expect, answer(b"first"), expect, drip_records, end_of_tls]
        with ScriptedServer(script, tls=self.tls) as server:
            client = self.trusting()
            post(client, server.url)  # so that what is imported and built once is there
            outcome = []
            peak = peak_memory(lambda: outcome.append(post(client, server.url, timeout=60.0)))
        return outcome[0], peak

    def test_a_head_is_read_whole(self):
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        heads = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 100) for number in range(8))
        for raw in (
            interim + answer(b"hello", "X-0: " + "y" * 100, "X-7: " + "y" * 100),
            OK + heads + b"Content-Length: 5\r\n\r\nhello",
            OK.replace(b"\r\n", b"\n") + heads.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello",
            CHUNKED[:-2] + heads + b"\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\nC: d\r\n\r\n",
            OK + heads + b"\r\nhello",
        ):
            for size in (1, 2):
                with self.subTest(raw[:60], size=size):
                    response, _ = self.ask(raw, size)
                    self.assertEqual(response.content, b"hello")
                    self.assertEqual((response.headers["x-0"], response.headers["x-7"]), ("y" * 100,) * 2)
                    self.assertNotIn("link", response.headers)

    def test_a_body_takes_a_few_times_its_size_in_memory(self):  # tests.test_growth has the other framings
        dice = random.Random(1)
        body = bytes(dice.getrandbits(8) for _ in range(8_192))
        for raw in (answer(body), answer(gzip.compress(body), "Content-Encoding: gzip")):
            with self.subTest(raw[:60]):
                response, peak = self.ask(raw, 2)
                self.assertEqual(response.content, body)
                self.assertLess(peak, 4 * len(body) + 224 * 1024)  # pieces kept apart take 170 KiB more


class JsonTest(ResponseCase):
    found = {"exists": False}

    def test_a_byte_order_mark_is_accepted(self):
        self.assertIs(self.ask_sdk(answer(b'\xef\xbb\xbf{"exists":false}')).exists, False)

    def test_json_of_any_media_type_or_none_is_accepted(self):
        for media in (
            "application/json",
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            "text/json",
            "application/problem+json",
            "application/vnd.x+json;v=1",
            "text/plain",
            "*/*",
            "application/octet-stream",
        ):
            with self.subTest(media):
                self.assertIs(self.ask_sdk(answer(b'{"exists":false}', content_type=media)).exists, False)
        self.assertIs(self.ask_sdk(OK + b'Content-Length: 16\r\n\r\n{"exists":false}').exists, False)

    def test_html_with_200_is_an_error_with_status_type_and_excerpt(self):
        error = self.sdk_error(answer(b"<html>Log in to the hotel network</html>", content_type="text/html"))
        self.assertIsInstance(error, errors.SDKError)
        for piece in ("200", "text/html", "Log in to the hotel"):
            self.assertIn(piece, str(error))

    def test_json_that_no_one_can_use_is_a_response_validation_error(self):
        for body in (
            b"[" * 100000,
            b"[" * 100000 + b"]" * 100000,
            b'{"a":' * 100000 + b"1" + b"}" * 100000,
            b'{"exists":true,"value":' + b"[" * 100000 + b"]" * 100000 + b"}",
            b'{"exists":true,"value":' + b"9" * 5000 + b"}",
            b'{"exists":true,"value":NaN}',
            b'{"exists":true,"value":Infinity}',
            b'{"exists":true,"value":-Infinity}',
            b'{"exists":true,"value":1e400}',
            b'{"exists":true,"value":-1E+400}',
            b'{"exists":true,"value":[0,{"a":1.8e308}]}',
            b'{"exists":true,"value":123456789.5e999999999}',
            b'{"exists":true,"value":%s}' % (b"9" * 400 + b".0"),
            b'{"exists":1e400}',
            b'{"exists":true,"unknown":1e400}',
            b'{"exists":true,"value":"\xff\xfe"}',
            b'{"exists":true,"value":"\xed\xa0\x80"}',
            b'{"exists":true,"value":"\xc0\x80"}',
            b'{"exists":true',
            b"{",
            b"{}{}",
            b'{"exists":true}x',
            b"nul",
            b"'a'",
            b"{'a':1}",
            b'{"a":01}',
            b'{"a":"\n"}',
            b"\x00",
            b"// x\n{}",
            b'{"a":1,}',
            b'{"exists":"maybe"}',
            b"[]",
            b"1",
            b'"x"',
            b"null",
            b"true",
        ):
            with self.subTest(body[:40]):
                self.assertIsInstance(self.sdk_error(answer(body)), errors.ResponseValidationError)

    def test_a_number_too_small_for_a_float_is_0_and_the_largest_is_itself(self):
        for text, value in ((b"1e-400", 0.0), (b"-1e-400", -0.0), (b"1.7976931348623157e308", 1.7976931348623157e308)):
            self.assertEqual(self.ask_sdk(answer(b'{"exists":true,"value":%s}' % text)).value, value)

    def test_a_number_too_large_for_a_float_is_refused_wherever_json_is_read(self):
        for text in ("1e400", "-1e400", "[1.8e308]", '{"a":{"b":1E999}}'):
            with self.subTest(text), self.assertRaises(ValueError):
                Response(200, None, text.encode()).json()
        details = b'{"code":"X","message":"m","details":{"a":1e400}}'
        error = self.sdk_error(answer(details, status="400 Bad"), operation="db_query")
        self.assertEqual((type(error), error.data), (errors.SDKError, None))

    def test_a_nesting_that_people_use_is_fine(self):
        value = b"[" * 150 + b"]" * 150
        self.assertEqual(self.ask_sdk(answer(b'{"exists":true,"value":%s}' % value)).value, json.loads(value.decode()))

    def test_deep_json_is_an_error_on_a_small_stack_too(self):
        # Threads have 1 MiB on Alpine; the C parser of Python 3.13 overruns it. It runs in a process of its own,
        # which it may end.
        program = (
            "import sys, threading\n"
            "from aerostack_lite import SDK, errors\n"
            "def call():\n"
            "    try: SDK('key', server_url=sys.argv[1]).cache.cache_get(key='a')\n"
            "    except errors.ResponseValidationError: print('refused')\n"
            "threading.stack_size(1024 * 1024)\n"
            "for _ in range(2):\n"
            "    thread = threading.Thread(target=call); thread.start(); thread.join()\n"
        )
        with ScriptedServer([expect, answer(b"[" * 100000)], [expect, answer(b'{"a":' * 100000)]) as server:
            run = subprocess.run(
                [sys.executable, "-c", program, server.url],
                cwd=ROOT,
                timeout=60,
                capture_output=True,
            )
        self.assertEqual((run.returncode, run.stdout.split()), (0, [b"refused"] * 2), run.stderr)


class ErrorAnswerTest(ResponseCase):
    def test_an_unknown_code_is_kept_as_a_string(self):
        error = self.sdk_error(
            answer(b'{"code":"BRAND_NEW","message":"m"}', status="400 Bad Request"), operation="db_query"
        )
        self.assertIsInstance(error, errors.ErrorResponse)
        self.assertEqual((error.data.code, error.data.message, error.status_code), ("BRAND_NEW", "m", 400))

    def test_odd_error_bodies_are_sdk_errors_and_kept_whole(self):
        for operation in ("db_query", "cache_get"):
            for body, media in (
                (b"", "application/json"),
                (b"[]", "application/json"),
                (b'"no"', "application/json"),
                (b"null", "application/json"),
                (b"{}", "application/json"),
                (b'{"code":5,"message":[]}', "application/json"),
                (b"<h1>Bad</h1>", "text/html"),
                (b"{", "application/json"),
                (b"[" * 100000, "application/json"),
                (b"\xff\xfe", "application/json"),
                (b"plain", "text/plain"),
                (b"NaN", "application/json"),
            ):
                with self.subTest(operation, body=body[:20]):
                    error = self.sdk_error(
                        answer(body, status="400 Bad Request", content_type=media), operation=operation
                    )
                    self.assertIsInstance(error, errors.SDKError)
                    self.assertEqual((error.status_code, error.raw_response.content), (400, body))
                    self.assertTrue(error.message.startswith("API error occurred"), error.message[:100])

    def test_a_9_mb_error_is_cut_in_the_text_and_whole_in_the_body(self):
        body = b"x" * 9000000
        error = self.sdk_error(answer(body, status="500 Oops", content_type="text/plain"))
        self.assertLess(len(str(error)), 11000)
        self.assertEqual(len(error.body), len(body))

    def test_an_error_s_text_is_short_whatever_the_server_says(self):
        rows = b'{"results":[' + b"1," * 50000 + b"1]}"
        for raw in (
            answer(rows),
            answer(rows, status="400 Bad Request"),
            answer(b"x" * 1000000, content_type="text/html"),
            answer(b"", "Location: http://other.test/" + "x" * 60000, status="302 Found"),
            answer(b"x", status="500 Oops", content_type="text/html; x=" + "y" * 60000),
        ):
            with self.subTest(raw[:80]), Stopwatch(time.process_time) as took:
                self.assertLess(
                    len(str(self.sdk_error(raw, operation="db_query"))), 60000
                )  # 10,000 characters, some escaped
            self.assertLess(took.seconds, 1)

    def test_a_charset_that_is_a_trap_is_none(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for charset, body in (
                ("punycode", b"-" + b"a" * 250000),
                ("idna", b"xn--" + b"a" * 250000),
                ("unicode_escape", b"\\d"),
                ("undefined", b"x"),
                ("zlib", b"x"),
                ("rot13", b"x"),
                ("utf-8\x7f", b"x"),
                ("mbcs", b"x"),
                ("../../x", b"x"),
                ("x" * 9999, b"x"),
            ):
                with self.subTest(charset[:20]), Stopwatch(time.process_time) as took:
                    error = self.sdk_error(
                        answer(body, status="500 Oops", content_type="text/plain; charset=" + charset)
                    )
                    self.assertIsInstance(error, errors.SDKError)
                self.assertLess(took.seconds, 0.5)

    def test_any_2xx_is_success(self):
        for status in ("200 OK", "201 Created", "202 Accepted", "203 x", "206 Partial", "226 x", "299 x"):
            with self.subTest(status):
                self.assertIs(self.ask_sdk(answer(b'{"exists":false}', status=status)).exists, False)

    def test_an_empty_204_or_205_is_an_empty_model(self):
        for raw in (
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n",
        ):
            with self.subTest(raw):
                self.assertIsNone(self.ask_sdk(raw).exists)
                self.assertIsNone(self.ask_sdk(raw, operation="db_query").results)

    def test_any_other_empty_2xx_is_no_success(self):
        # A firewall that wants to see a browser answers 202 with nothing in it.
        for status in ("200 OK", "201 Created", "202 Accepted", "203 x", "206 Partial", "226 x", "299 x"):
            line = b"HTTP/1.1 " + status.encode() + b"\r\n"
            for raw, kind in (
                (answer(b"", status=status), errors.ResponseValidationError),
                (answer(b" \r\n\t", status=status), errors.ResponseValidationError),
                (answer(b"\xef\xbb\xbf", status=status), errors.ResponseValidationError),
                (answer(b"", status=status, content_type="text/html"), errors.SDKError),
                (line + b"Content-Length: 0\r\nX-Amzn-Waf-Action: challenge\r\n\r\n", errors.SDKError),
                (line + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errors.SDKError),
                (answer(gzip.compress(b""), "Content-Encoding: gzip", status=status), errors.ResponseValidationError),
                (line + b"Connection: close\r\n\r\n", errors.SDKError),
            ):
                for operation in ("cache_get", "db_query"):
                    with self.subTest(raw, operation=operation):
                        error = self.sdk_error(raw, close, operation=operation)
                        self.assertIs(type(error), kind)
                        self.assertEqual((error.status_code, error.attempts), (int(status[:3]), 1))
                        self.assertIs(error.maybe_processed, True)

    def test_control_characters_of_the_server_are_escaped_in_messages(self):
        nasty = "a\x1b[31mb\x07c\x08d\x7fe\x9bf"
        # Some of these may end as a refusal of the header; the text must be clean all the same.
        shown = []
        for raw in (
            answer(nasty.encode("latin-1"), status="500 Oops", content_type="text/plain; charset=latin-1"),
            answer(nasty.encode(), status="500 Oops", content_type="text/plain"),
            answer(b"{}", status="500 " + nasty),
            answer(b"x", status="500 Oops", content_type=nasty),
            answer(b"", "Location: /" + nasty, status="302 Found"),
            answer(json.dumps({"code": nasty, "message": nasty}).encode(), status="400 Bad"),
            answer(b"<html>" + nasty.encode(), content_type="text/html"),
            answer(json.dumps({"success": nasty, "results": nasty}).encode()),
            answer(b"{" + nasty.encode()),
            b"HTTP/1.1 2" + nasty.encode("latin-1") + b" OK\r\n\r\n",
            OK + nasty.encode("latin-1") + b"\r\n\r\n",
            OK + b"Content-Length: " + nasty.encode("latin-1") + b"\r\n\r\n",
            OK + b"Transfer-Encoding: " + nasty.encode("latin-1") + b"\r\n\r\n",
            CHUNKED + nasty.encode("latin-1") + b"\r\n\r\n",
        ):
            with self.subTest(raw[:60]):
                error = self.sdk_error(raw, close, operation="db_query")
                shown.append(str(error))
                self.assertNotRegex(str(error), "[\x00-\x08\x0b-\x1f\x7f-\x9f]")
        self.assertEqual(len(shown), 14)
