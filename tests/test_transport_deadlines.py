"""Time: one deadline for the whole attempt, however slowly the bytes come."""

import gzip
import math
import socket
import sys
import threading
import time
import unittest
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, BackoffStrategy, HttpClient, RetryConfig, errors
from tests.recording_server import EXAMPLES, both, every_operation
from tests.scripted_server import (
    PATIENCE_SECONDS,
    DeafAddress,
    LoopbackTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    at_once,
    drip,
    expect,
    hang,
    post,
    repeat,
    until_gone,
)
from tests.side_by_side import side_by_side

TIMEOUT = 0.2
SLACK = 0.6
SLACK_OF_MANY = 1.0  # where dozens of threads start at once
LINUX = sys.platform.startswith("linux")
OK = b"HTTP/1.1 200 OK\r\n"


@side_by_side(10, one_setup=True)
class DripTest(LoopbackTestCase):
    def assert_ended_at_the_deadline(self, *script, **options):
        with ScriptedServer(script) as server, HttpClient() as client, Stopwatch() as took:
            with self.assertRaises(options.pop("error", errors.ReadTimeout)) as caught:
                post(client, server.url, timeout=TIMEOUT, **options)
            if script[-1] is until_gone:
                self.assertTrue(server.peers[0].left.wait(5))
        self.assertIsInstance(caught.exception, errors.TimeoutException)
        self.assertGreater(took.seconds, TIMEOUT - 0.05)
        self.assertLess(took.seconds, TIMEOUT + SLACK)

    def assert_each_ended_at_the_deadline(self, *scripts):
        at_once(lambda script: self.assert_ended_at_the_deadline(*script), *scripts)

    def test_the_status_line_and_the_headers_drip(self):
        self.assert_each_ended_at_the_deadline(
            [expect, drip(b"HTTP/1.1 200 " + b"O" * 1000)],
            [expect, OK, drip(b"X-A: b\r\n" * 1000)],
            [expect, OK + b"X-A: ", drip(b"b" * 1000)],
        )

    def test_interim_answers_drip(self):
        self.assert_each_ended_at_the_deadline(
            [expect, drip(b"HTTP/1.1 103 Early Hints\r\n" + b"Link: x\r\n" * 1000)],
            [expect, b"HTTP/1.1 100 Continue\r\n\r\n", hang],
        )

    def test_the_body_drips(self):
        packed = gzip.compress(bytes(range(256)) * 99)
        compressed = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        self.assert_each_ended_at_the_deadline(
            [expect, OK + b"Content-Length: 9999\r\n\r\n", drip(b"x" * 9999)],
            [expect, OK + b"\r\n", drip(b"x" * 9999)],
            [expect, compressed, drip(packed)],
        )

    def test_chunks_drip(self):
        chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        self.assert_each_ended_at_the_deadline(
            *[
                [expect, chunked, drip(data)]
                for data in (
                    b"1\r\nx\r\n" * 1000,
                    b"ffff\r\n" + b"x" * 9999,
                    b"1;" + b"e" * 1000,
                    b"0\r\n" + b"A: b\r\n" * 1000,
                )
            ]
        )

    def test_silence_at_every_stage(self):
        self.assert_each_ended_at_the_deadline(
            *[
                [expect, begun, until_gone]
                for begun in (b"", b"H", OK, OK + b"Content-Length: 5\r\n\r\n", OK + b"Content-Length: 5\r\n\r\nhell")
            ]
        )

    def test_a_server_that_stops_reading(self):
        self.assert_ended_at_the_deadline(hang, content=bytes(16 << 20), error=errors.TimeoutException)

    def test_a_server_that_reads_a_byte_at_a_time(self):
        def sip(peer):
            while not peer.server.released.wait(0.01):
                peer.read(1)

        self.assert_ended_at_the_deadline(sip, content=bytes(16 << 20), error=errors.TimeoutException)

    def test_the_sdk_s_own_timeouts_hold(self):
        def check(case):
            options, call = case
            with ScriptedServer([expect, OK, drip(b"X: y\r\n" * 999)]) as server, Stopwatch() as took:
                with SDK("key", server_url=server.url, retry_config=None, **options) as sdk:
                    with self.assertRaises(errors.ReadTimeout):
                        sdk.cache.cache_get(key="a", **call)
            self.assertLess(took.seconds, 0.25 + SLACK)

        at_once(
            check,
            ({"timeout_ms": 250}, {}),
            ({}, {"timeout_ms": 250}),
            ({"timeout_ms": 60000}, {"timeout_ms": 250}),
            ({"timeout_ms": 250.5}, {}),
        )

    def test_a_reused_connection_has_a_deadline_of_its_own(self):
        with ScriptedServer([expect, answer(b"1"), expect, hang]) as server, HttpClient() as client:
            post(client, server.url, timeout=30)
            with Stopwatch() as took, self.assertRaises(errors.ReadTimeout):
                post(client, server.url, timeout=TIMEOUT)
            self.assertLess(took.seconds, TIMEOUT + SLACK)

    def test_an_earlier_short_deadline_does_not_outlive_its_call(self):
        def late(peer):
            peer.read_request()
            peer.server.released.wait(0.6)
            peer.send(answer(b"2"))

        with ScriptedServer([expect, answer(b"1"), late]) as server, HttpClient() as client:
            post(client, server.url, timeout=0.5)
            self.assertEqual(post(client, server.url, timeout=10.0).content, b"2")


class DefaultCase(LoopbackTestCase):
    """By default a call ends at its first time-out, whatever was under way: it takes `timeout_ms` as a whole."""

    def check(self, server_url, kind, call=None, attempts=1, **settings):
        """A call of 0.2 s by default rules; it ends after that, in one attempt."""
        settings.setdefault("timeout_ms", 200)
        with Stopwatch() as took, SDK("key", server_url=server_url, **settings) as sdk:
            with self.assertRaises(kind) as caught:
                call(sdk) if call else sdk.cache.cache_get(key="k")
        self.assertIsInstance(caught.exception, errors.TimeoutException)
        self.assertEqual(caught.exception.attempts, attempts)
        self.assertGreater(took.seconds, 0.18)
        self.assertLess(took.seconds, 0.2 + SLACK_OF_MANY)
        return caught.exception


@side_by_side(8, one_setup=True)
class DefaultTest(DefaultCase):
    def check_every_operation(self, server_url, kind):
        def check(case):
            service, name, number = case
            self.check(server_url, kind, lambda sdk: list(both(sdk, service, name))[number](**EXAMPLES[name][0]))

        names = [(service, operation.name) for service, operation in every_operation()]
        at_once(check, *[(*name, number) for name in names for number in (0, 1)])

    def test_no_operation_is_repeated_after_a_server_s_silence(self):
        with ScriptedServer([expect, hang]) as server:
            self.check_every_operation(server.url, errors.TimeoutException)
            self.assertLessEqual(server.connections, 2 * len(EXAMPLES))

    @unittest.skipUnless(LINUX, "only Linux drops what a full listener cannot queue")
    def test_no_operation_is_repeated_where_nothing_answers_at_all(self):
        with DeafAddress() as deaf:
            self.check_every_operation(deaf.url, errors.ConnectTimeout)

    def test_no_stage_is_repeated(self):
        def check(case):
            script, options = case
            with ScriptedServer(script) as server:
                scheme = options.pop("scheme", "http")
                if options.pop("proxy", False):
                    with HttpClient(proxy=server.url) as client:
                        error = self.check(scheme + "://origin.test", errors.TimeoutException, client=client)
                else:
                    error = self.check("%s://%s" % (scheme, server.netloc), errors.TimeoutException, **options)
                self.assertLessEqual(server.connections, 1)
                if scheme == "https":
                    self.assertIs(error.maybe_processed, False)

        at_once(
            check,
            ([hang], {"scheme": "https"}),
            ([drip(b"\x16\x03\x03\x3f\xff" + bytes(10000))], {"scheme": "https"}),
            ([expect, OK, hang], {}),
            ([expect, OK + b"Content-Length: 9\r\n\r\n{", hang], {}),
            ([expect, OK + b"Content-Length: 9\r\n\r\n", drip(b"x" * 9, 0.05)], {}),
            ([expect, b"HTTP/1.1 100 Continue\r\n\r\n", hang], {}),
            ([expect, hang], {"proxy": True}),
            ([expect, hang], {"proxy": True, "scheme": "https"}),
            ([expect, OK + b"\r\n", hang], {"proxy": True, "scheme": "https"}),
        )

    def test_a_request_that_nobody_reads_is_not_sent_again(self):
        with ScriptedServer([hang]) as server:
            self.check(
                server.url, errors.WriteTimeout, lambda sdk: sdk.cache.cache_set(key="k", value="x" * (16 << 20))
            )
            self.assertEqual(server.connections, 1)


class DefaultOfAllTest(DefaultCase):
    def test_a_time_out_after_a_refusal_ends_the_call_too(self):
        busy = answer(b"", "Retry-After: 0.01", status="503 Busy")
        with ScriptedServer([expect, busy, expect, hang]) as server:
            self.check(server.url, errors.ReadTimeout, attempts=2)

    def test_a_name_server_that_is_silent_is_not_asked_again(self):
        released = threading.Event()

        def be_silent(*_, **__):
            released.wait(PATIENCE_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        with mock.patch("socket.getaddrinfo", side_effect=be_silent) as resolver:
            error = self.check("http://slow.test", errors.ConnectTimeout)
            released.set()
        self.assertIs(error.maybe_processed, False)
        self.assertEqual(resolver.call_count, 1)

    def test_a_call_of_no_options_ends_at_the_default_deadline(self):
        def check(script):
            with ScriptedServer(script) as server:
                self.check(server.url, errors.ReadTimeout, timeout_ms=None)
                self.assertEqual(server.connections, 1)

        with mock.patch.object(aerostack_lite, "_DEFAULT_TIMEOUT_MS", 200):
            at_once(check, [expect, hang], [expect, OK, drip(b"X: y\r\n" * 999)])

    def test_a_retry_config_of_the_caller_s_repeats_it(self):
        config = RetryConfig("backoff", BackoffStrategy(1, 1, 1.0, 1_000), True)
        for script in ([expect, hang], [hang]):
            with ScriptedServer(script) as server, self.assertRaises(errors.TimeoutException) as caught:
                url = "%s://%s" % ("http" if expect in script else "https", server.netloc)
                with SDK("key", server_url=url, retry_config=config, timeout_ms=60) as sdk:
                    sdk.queue.queue_enqueue(type="t", data={})
            self.assertGreater(caught.exception.attempts, 1)


class TimeoutValueTest(LoopbackTestCase):
    bad = (0, 0.0, -1, -0.001, math.nan, -math.inf, True, False, "5", b"5", [5], {}, object())

    def test_a_bad_one_is_refused_at_the_call_line(self):
        with ScriptedServer([expect, answer()]) as server, SDK("key", server_url=server.url) as sdk:
            for bad in self.bad:
                with self.subTest(bad=bad):
                    with self.assertRaises(ValueError) as caught:
                        sdk.cache.cache_get(key="a", timeout_ms=bad)
                    self.assertIsInstance(caught.exception, errors.AerostackError)
                    self.assertIn("timeout_ms", str(caught.exception))
            self.assertEqual(server.connections, 0)

    def test_a_bad_one_is_refused_when_the_sdk_is_made(self):
        for bad in self.bad:
            with self.subTest(bad=bad):
                with self.assertRaises(ValueError) as caught:
                    SDK("key", timeout_ms=bad)
                self.assertIn("timeout_ms", str(caught.exception))

    def test_a_bad_one_is_refused_by_the_client_as_well(self):
        with HttpClient() as client:
            for bad in self.bad:
                with self.subTest(bad=bad), self.assertRaises(ValueError):
                    client.build_request("POST", "http://127.0.0.1/", timeout=bad)

    def test_a_number_beyond_all_clocks_is_no_limit_or_refused(self):
        with ScriptedServer(repeat(expect, answer(b'{"exists":false}'))) as server, SDK(
            "key", server_url=server.url
        ) as sdk:
            for huge in (10**13, 10**15, 1e300, 10**400):
                with self.subTest(huge=str(huge)[:9]):
                    try:
                        self.assertIs(sdk.cache.cache_get(key="a", timeout_ms=huge).exists, False)
                    except ValueError as error:
                        self.assertIsInstance(error, errors.AerostackError)

    def test_infinity_means_no_limit(self):
        with ScriptedServer(repeat(expect, answer(b'{"exists":false}'))) as server:
            with SDK("key", server_url=server.url, timeout_ms=math.inf) as sdk:
                self.assertIs(sdk.cache.cache_get(key="a").exists, False)
                self.assertIs(sdk.cache.cache_get(key="a", timeout_ms=math.inf).exists, False)


class ClockTest(LoopbackTestCase):
    def test_each_attempt_has_the_whole_time(self):
        began, passed = time.monotonic, []
        script = [expect, lambda peer: passed.append(40), answer(b"", "Retry-After: 0.01", status="503 Busy")]
        script += [expect, lambda peer: passed.append(40), answer(b'{"value":1}')]
        for options in ({}, {"timeout_ms": 50_000}):
            del passed[:]
            with mock.patch("time.monotonic", lambda: began() + sum(passed)), ScriptedServer(script) as server:
                with SDK("key", server_url=server.url, **options) as sdk:
                    self.assertEqual(sdk.cache.cache_get(key="k").value, 1)
            self.assertEqual(len(server.requests), 2)

    def test_a_wall_clock_that_jumps_changes_nothing(self):
        now = time.time
        for jump in (10**6, -(10**6)):
            patch = mock.patch("time.time", lambda: now() + jump)
            script = [expect, lambda peer: patch.start(), answer(b"1")]
            with ScriptedServer(script) as server, HttpClient() as client:
                try:
                    self.assertEqual(post(client, server.url, timeout=5.0).content, b"1")
                finally:
                    patch.stop()
