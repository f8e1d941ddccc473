"""What is tried again, how often, after how long, and what the error then knows."""

import asyncio
import contextlib
import email.utils
import errno
import io
import itertools
import math
import os
import pathlib
import re
import signal
import socket
import ssl
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, UNSET, AsyncHttpClient, BackoffStrategy, HttpClient, RetryConfig, errors
from tests.scripted_server import (
    PATIENCE_SECONDS,
    LoopbackTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    close,
    expect,
    free_port,
    header,
    open_descriptors,
    post,
    repeat,
    reset,
    until_gone,
    wait,
)

REQUESTS = {  # operation -> its service and a request
    "ai_chat": ("ai", {"messages": [{"role": "user", "content": "Hello"}]}),
    "auth_signin": ("authentication", {"email": "ada@example.com", "password": "correct horse"}),
    "auth_signup": ("authentication", {"email": "ada@example.com", "password": "correct horse"}),
    "cache_get": ("cache", {"key": "k"}),
    "cache_set": ("cache", {"key": "k", "value": [1]}),
    "db_query": ("database", {"sql": "SELECT 1"}),
    "queue_enqueue": ("queue", {"type": "email", "data": {"n": 1}}),
    "services_invoke": ("services", {"service_name": "resize", "data": {}}),
    "storage_upload": ("storage", {"key": "a.txt", "file": b"text"}),
}
README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


class Clock:
    """Both clocks and the sleep of an SDK. Sleeping takes no time but the clock's own."""

    def __init__(self, sdk=None, stride=None):
        """`stride`: what every sleep takes, whatever was asked for."""
        self.now, self.wall_now, self.stride = 100.0, 1_700_000_000.0, stride  # 2023-11-14 22:13:20 UTC
        self.slept = []
        for half in (sdk.sdk_configuration.sync_half, sdk.sdk_configuration.async_half) if sdk else ():
            half.sleep = lambda scope, seconds, half=half: self.sleep(seconds) or half.client is not None
            half.monotonic = lambda: self.now
            half.wall = lambda: self.wall_now

    def sleep(self, seconds):
        self.slept.append(seconds)
        if len(self.slept) > 1000:
            raise AssertionError("it never gives up")
        self.advance(seconds if self.stride is None else self.stride)

    def advance(self, seconds):
        self.now += seconds
        self.wall_now += seconds


def config(connection=False, initial=1000, longest=1000, exponent=1, budget=100_000):
    return RetryConfig("backoff", BackoffStrategy(initial, longest, exponent, budget), connection)


def call(sdk, operation, mode, **options):
    """One operation, blocking or awaited; `mode` is the suffix of the method's name."""
    service, request = REQUESTS[operation]
    return perform(getattr(getattr(sdk, service), operation + mode), request, **options)


def perform(method, *request, **options):
    outcome = method(*request, **options)
    return asyncio.run(outcome) if asyncio.iscoroutine(outcome) else outcome


async def finished(outcome):
    """What either kind of method returns in the end."""
    return await outcome if asyncio.iscoroutine(outcome) else outcome


MODES = ("", "_async")
GOOD = answer()


def busy(*headers, **options):
    return answer(b"busy", *headers, content_type="text/plain", status=options.pop("status", "503 Busy"))


class RetryTestCase(LoopbackTestCase):
    def sdk(self, url, **settings):
        sdk = SDK("secret-key", server_url=url, **settings)
        self.addCleanup(asyncio.run, sdk.aclose())
        self.addCleanup(sdk.close)
        return sdk

    def failure(self, sdk, operation, mode="", **options):
        with self.assertRaises(errors.AerostackError) as caught:
            call(sdk, operation, mode, **options)
        return caught.exception


# The README's table


def reply(data):
    return lambda peer: peer.send(data)


def cut(data):
    def step(peer):
        peer.send(data)
        close(peer)

    return step


def status(code):
    return reply(answer(b"{}", status="%d Because" % code))


# Kinds of failure by the words that begin their row; for each, what the server does with a request.
CONNECTED = {
    "Lost on a kept connection": [close, reset],
    "Lost on a new connection": [close, reset],
    "Lost within the answer": [
        cut(b"HTTP/1.1 200"),
        cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    ],
    "Timed out": [until_gone],
    "No sense in the answer": [
        cut(b"SSH-2.0-OpenSSH_9.6\r\n"),
        reply(answer(b"{")),
        reply(answer(b"<p>Hello</p>", content_type="text/html")),
        reply(answer(b"[]")),
        reply(answer(b"\x1f\x8bnonsense", "Content-Encoding: gzip")),
    ],
}
STATUSES = ("Refused", "Failed", "Any other status")  # whose rows name them
SEEN_BY_NOBODY = ("Never connected", "No trust")
CERTAINLY_NOT_PROCESSED = ("Never connected", "Refused", "No trust")
KEPT = ("Lost on a kept connection", "Timed out")  # the latter so that the time cannot pass while connecting

# A certificate for 127.0.0.1 that no one has signed, with its key; both for this test alone.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWE9tkPlOrchTVzPx
ORcCEttVMJ2LzuFFrT/F4dk5CeKhRANCAARs7GXnPAH7q/Njf9p8ARswSf24HsEB
oirgeIAvVQSKLsTEkurrNv+HlFLzcbS6WEHHS2GRCiGIaFSH/VIeI3k7
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBozCCAUigAwIBAgIUFBliAl+oyXhjvfkKo5iUBuOaUJIwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSbm9ib2R5IHRydXN0cyB0aGlzMCAXDTI2MTEyMTA5MDMyMloY
DzIxMjYxMDI4MDkwMzIyWjAdMRswGQYDVQQDDBJub2JvZHkgdHJ1c3RzIHRoaXMw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARs7GXnPAH7q/Njf9p8ARswSf24HsEB
oirgeIAvVQSKLsTEkurrNv+HlFLzcbS6WEHHS2GRCiGIaFSH/VIeI3k7o2QwYjAd
BgNVHQ4EFgQU8hoYcJ5lxcfdxj9bDUHdS+pe34MwHwYDVR0jBBgwFoAU8hoYcJ5l
xcfdxj9bDUHdS+pe34MwDwYDVR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAAB
MAoGCCqGSM49BAMCA0kAMEYCIQD0pdZotKYjtu7eBnav8MINWSvF4lEvcv9rqkrn
aCI27wIhANMt8bgSNgoaUaqsfSdcuU5bEBlPXB62uJgn47fWvEnx
-----END CERTIFICATE-----
"""


def read_table(text):
    """The README's table as {kind: (row's words, {(operation, setting): cell})}."""
    lines = text.partition("<!-- retries:begin -->")[2].partition("<!-- retries:end -->")[0].strip().splitlines()
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = []
    for head in heads[1:]:
        found = re.match(r"(by default|`RetryConfig\(.*(False|True)\)`): (.*)", head)
        names = list(REQUESTS) if found.group(3) == "all nine" else re.findall(r"`(\w+)`", found.group(3))
        columns.append([(name, found.group(2) or "default") for name in names])
    table = {}
    for words, *cells in rows:
        kind = re.match(r"\*\*(.+?)\*\*", words).group(1)
        table[kind] = words, {key: cell for column, cell in zip(columns, cells) for key in column}
    return table


@unittest.skipUnless(
    README.exists() and "<!-- retries:begin -->" in README.read_text(encoding="utf-8"),
    "README.md has no table of retries",
)
class TheTableInTheReadme(RetryTestCase):
    EXPECTED = {  # cell -> attempts, whether the first repetition waits
        "once": (1, None),
        "3 times": (3, True),
        "3 times, first at once": (3, False),
        "until time is up": (4, True),
        "until time is up, first at once": (4, False),
    }
    BOTH_WAYS = ("cache_get", "queue_enqueue")
    # Every sleep takes 40 s: of 100 s, the fourth attempt is the last.
    SETTINGS = {"default": (UNSET, 1), "False": (config(False), 40), "True": (config(True), 40)}

    @classmethod
    def setUpClass(cls):
        cls.table = read_table(README.read_text(encoding="utf-8"))

    def check_each(self, kind, faults, **settings):
        """Every operation meets the first fault, an idempotent one and one that is not meet the others, too."""
        self.check(kind, faults[0], **settings)
        for fault in faults[1:]:
            self.check(kind, fault, operations=self.BOTH_WAYS, **settings)

    def called(self, operations, mode):
        """Those of the operations that are called in this mode."""
        half = sorted(REQUESTS)[bool(mode) :: 2]
        return [name for name in operations if name in self.BOTH_WAYS or name in half]

    def check(self, kind, fault, url=None, timeout_ms=None, operations=tuple(REQUESTS)):
        """Let operations meet one fault again and again, under every setting, blocking or awaited, two of them both."""

        def respond(peer):
            request = peer.read_request()
            peer.send(GOOD) if header(request, "Warm-Up") else fault(peer)

        async def lane(server, setting, mode):
            retries, stride = self.SETTINGS[setting]
            with SDK("secret-key", server_url=url or server.url, retry_config=retries) as sdk:
                async with sdk:
                    for operation in self.called(operations, mode):
                        service, request = REQUESTS[operation]
                        method, clock = getattr(getattr(sdk, service), operation + mode), Clock(sdk, stride)
                        try:
                            if kind in KEPT:
                                await finished(method(request, http_headers={"Warm-Up": "yes"}))
                            await finished(method(request, timeout_ms=timeout_ms))
                        except errors.AerostackError as error:
                            outcomes.append((operation, setting, mode, error, clock.slept))

        def run(coroutine, mode):
            if mode:
                asyncio.run(coroutine)
                return
            with contextlib.suppress(StopIteration):  # a blocking lane awaits nothing and needs no loop
                coroutine.send(None)

        outcomes = []
        with ScriptedServer(repeat(respond)) as server, ThreadPoolExecutor(6) as threads:
            for done in [
                threads.submit(run, lane(server, setting, mode), mode) for setting in self.SETTINGS for mode in MODES
            ]:
                done.result()
        self.assertEqual({name for name, *_ in outcomes}, set(operations))
        self.assertEqual(len(outcomes), len(self.SETTINGS) * sum(len(self.called(operations, mode)) for mode in MODES))
        arrived = [header(request, "X-Request-ID")[0] for request in server.requests]
        for operation, setting, mode, error, slept in outcomes:
            cell = self.table[kind][1][operation, setting]
            attempts, waits = self.EXPECTED[cell]
            with self.subTest("%s%s, %s, %s: %s" % (operation, mode, setting, kind, cell), error=error):
                self.assertEqual(error.attempts, attempts)
                self.assertEqual(len(slept), attempts - 1)
                if slept:
                    self.assertEqual(slept[0] > 0, waits)
                if kind != "Timed out":  # or the time may be over before the server looks
                    self.assertEqual(arrived.count(error.request_id), 0 if kind in SEEN_BY_NOBODY else attempts)
                refused = isinstance(error, errors.SDKBaseError) and 400 <= error.status_code < 500
                self.assertEqual(error.maybe_processed, kind not in CERTAINLY_NOT_PROCESSED and not refused)

    def test_it_has_every_operation_under_every_setting_for_every_kind_of_failure(self):
        self.assertEqual(set(self.table), {*CONNECTED, *STATUSES, *SEEN_BY_NOBODY})
        for _, cells in self.table.values():
            self.assertEqual(set(cells), {(operation, setting) for operation in REQUESTS for setting in self.SETTINGS})

    def test_every_cell_about_a_connection_holds(self):
        for kind, faults in CONNECTED.items():
            self.check_each(kind, faults, timeout_ms=20 if kind == "Timed out" else None)

    def test_every_cell_about_a_status_holds(self):
        for kind in STATUSES:
            codes = [int(code) for code in re.findall(r"\b\d{3}\b", self.table[kind][0])]
            self.assertTrue(codes)
            self.check_each(kind, [status(code) for code in codes])

    def test_every_cell_about_a_connection_that_was_never_made_holds(self):
        nobody = free_port()
        self.check("Never connected", close, url="http://127.0.0.1:%d" % nobody)
        two = {"operations": self.BOTH_WAYS}
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(socket.EAI_NONAME, "no such host")):
            self.check("Never connected", close, url="http://nowhere.example.com", **two)
        with mock.patch.dict(os.environ, {"HTTP_PROXY": "http://127.0.0.1:%d" % nobody}):
            self.check("Never connected", close, url="http://api.example.com", **two)
        with ScriptedServer([lambda peer: peer.read(5), close]) as server:
            self.check("Never connected", close, url="https://" + server.netloc, **two)

    def test_every_cell_about_trust_holds(self):
        trusting_the_system = mock.patch("ssl.create_default_context", return_value=ssl.create_default_context())
        trusting_the_system.start()  # which reads the trust store once, not in every call
        self.addCleanup(trusting_the_system.stop)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "certificate.pem")
            pathlib.Path(path).write_text(CERTIFICATE)
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(path)
        with ScriptedServer(repeat(expect, close), tls=tls) as server:
            self.check("No trust", close, url=server.url)
            self.assertEqual(server.requests, [])
        with ScriptedServer([lambda peer: peer.read(5), busy()]) as server:
            self.check("No trust", close, url="https://" + server.netloc, operations=self.BOTH_WAYS)


class WhichSettingCounts(RetryTestCase):
    def test_the_calls_own_setting_wins_and_UNSET_leaves_it_to_the_sdk(self):
        until_time_is_up, often = 4, config()
        for sdk_wide, own, operation, code, attempts in (
            (UNSET, UNSET, "queue_enqueue", 503, 3),
            (UNSET, UNSET, "queue_enqueue", 500, 1),
            (UNSET, UNSET, "cache_get", 500, 3),
            (often, UNSET, "queue_enqueue", 500, until_time_is_up),
            (UNSET, often, "queue_enqueue", 500, until_time_is_up),
            (None, often, "queue_enqueue", 500, until_time_is_up),
            (None, UNSET, "cache_get", 503, 1),
            (often, None, "cache_get", 503, 1),
            (UNSET, None, "cache_get", 503, 1),
            (often, RetryConfig("none", often.backoff, True), "cache_get", 503, 1),
            (often, RetryConfig("Backoff", often.backoff, True), "cache_get", 503, 1),
            (often, object(), "cache_get", 503, 1),
        ):
            with self.subTest(sdk=sdk_wide, own=own, operation=operation, code=code):
                with ScriptedServer(repeat(expect, status(code))) as server:
                    for mode in MODES:
                        sdk = self.sdk(server.url, retry_config=sdk_wide)
                        Clock(sdk, 40 if often in (sdk_wide, own) else 1)
                        self.assertEqual(self.failure(sdk, operation, mode, retries=own).attempts, attempts)

    def test_it_may_change_between_calls_and_be_given_by_position(self):
        with ScriptedServer(repeat(expect, status(503))) as server:
            sdk = self.sdk(server.url, retry_config=None)
            Clock(sdk)
            self.assertEqual(self.failure(sdk, "cache_get").attempts, 1)
            sdk.sdk_configuration.retry_config = UNSET
            self.assertEqual(self.failure(sdk, "cache_get").attempts, 3)
            with self.assertRaises(errors.SDKError) as caught:
                sdk.cache.cache_get({"key": "k"}, None)
            self.assertEqual(caught.exception.attempts, 1)

    def test_a_setting_that_makes_no_sense_is_refused_before_anything_is_sent(self):
        with ScriptedServer(repeat(expect, GOOD)) as server:
            for name in ("initial_interval", "max_interval", "exponent", "max_elapsed_time"):
                for value in (-1, math.nan, "1", None, True):
                    bad = config()
                    setattr(bad.backoff, name, value)
                    with self.subTest(name, value=value):
                        with self.assertRaisesRegex(errors.ValidationError, name):
                            self.sdk(server.url, retry_config=bad)
                        for mode in MODES:
                            self.assertEqual(
                                self.failure(self.sdk(server.url), "cache_get", mode, retries=bad).attempts, 0
                            )
            self.assertEqual(server.requests, [])

    def test_what_is_refused_before_sending_is_not_tried(self):
        with ScriptedServer(repeat(expect, GOOD)) as server:
            for mode in MODES:
                sdk = self.sdk(server.url, retry_config=config(True))
                clock = Clock(sdk)
                method = getattr(sdk.cache, "cache_set" + mode)
                for value in (math.nan, object()):
                    with self.assertRaises(errors.ValidationError) as caught:
                        perform(method, key="k", value=value)
                    self.assertEqual((caught.exception.attempts, caught.exception.maybe_processed), (0, False))
                self.assertEqual(clock.slept, [])
            self.assertEqual(server.requests, [])


class HowLongItWaits(RetryTestCase):
    def waits(self, mode, *answers, **options):
        """What a call slept between the answers, and how it ended."""
        with ScriptedServer([step for data in answers for step in (expect, data)] + [expect, close]) as server:
            sdk = self.sdk(server.url, retry_config=options.get("retries", config(initial=500, longest=500)))
            clock = Clock(sdk)
            try:
                outcome = call(sdk, options.get("operation", "cache_get"), mode)
            except errors.AerostackError as error:
                outcome = error
            self.assertEqual(len(server.requests), len(clock.slept) + 1)
            return clock.slept, outcome

    def date(self, seconds, zone="GMT"):
        text = email.utils.formatdate(Clock().wall_now + seconds, usegmt=True)
        return text.replace(" GMT", zone and " " + zone)

    def test_as_long_as_retry_after_says(self):
        forms = [
            ("7", 7),
            ("1.5", 1.5),
            ("  3\t", 3),
            ("+2", 2),
            ("1e-1", 0.1),
            (".25", 0.25),
            ("99", 99),
            (self.date(20), 20),
            (self.date(20, ""), 20),
            (self.date(20, "UTC"), 20),
            (self.date(20, "+0000"), 20),
            (self.date(20, "-0000"), 20),
            (self.date(2 * 3600 + 20, "+0200"), 20),
            ("Tuesday, 14-Nov-23 22:13:40 GMT", 20),
            ("Tue Nov 14 22:13:40 2023", 20),
        ]
        for (text, seconds), mode in zip(forms, itertools.cycle(MODES)):
            with self.subTest(text, mode=mode):
                slept, _ = self.waits(mode, busy("Retry-After: " + text), GOOD)
                self.assertAlmostEqual(slept[0], seconds)

    def test_a_retry_after_that_says_nothing_leaves_it_to_the_backoff(self):
        texts = (
            "0",
            "-5",
            "",
            "nan",
            "-inf",
            "soon",
            "1_0",
            "0x10",
            "1,5",
            "2049-01-01T00:00:00Z",
            self.date(-20),
            "Tue, 99 Nov 9999999999 99:99:99 GMT",
            "Tue, 14 Nov 2023 22:13:40 +99999999999",
            "1\r\nRetry-After: 2",
            "\u00b2",
            "Retry-After-Ms: 5",
        )
        for text, mode in zip(texts, itertools.cycle(MODES)):
            with self.subTest(text, mode=mode):
                slept, _ = self.waits(mode, busy("Retry-After: " + text).decode().encode("latin-1"), GOOD)
                self.assertTrue(0 < slept[0] <= 0.5, slept)

    @unittest.skipUnless(hasattr(time, "tzset"), "the zone of this system cannot be changed")
    def test_a_date_without_a_zone_is_in_utc_wherever_the_program_runs(self):
        self.addCleanup(time.tzset)
        with mock.patch.dict(os.environ, TZ="Far-09:30"):
            time.tzset()
            for text in (self.date(20, zone=""), self.date(20, zone="-0000")):
                slept, _ = self.waits("", busy("Retry-After: " + text), GOOD)
                self.assertEqual(slept, [20], text)

    def test_every_status_that_is_tried_again_may_say_it(self):
        for code in (429, 500, 502, 503, 504):
            for mode in MODES:
                slept, _ = self.waits(mode, busy("Retry-After: 2", status="%d Because" % code), GOOD)
                self.assertEqual(slept, [2])

    def test_a_retry_after_beyond_the_budget_is_not_begun_but_told(self):
        forms = [
            ("101", 101),
            ("86400", 86400),
            ("inf", math.inf),
            ("1e400", math.inf),
            ("9" * 400, math.inf),
            ("Fri, 01 Jan 2049 00:00:00 GMT", 793_072_000),
        ]
        for text, seconds in forms:
            for mode in MODES:
                with self.subTest(text[:40], mode=mode):
                    slept, error = self.waits(mode, busy("Retry-After: " + text))
                    self.assertEqual((slept, error.attempts, error.status_code), ([], 1, 503))
                    self.assertEqual(error.retry_after, seconds)

    def test_without_a_budget_no_wait_is_begun_that_no_clock_can_count(self):
        for text in ("inf", "1e300"):
            for mode in MODES:
                slept, error = self.waits(mode, busy("Retry-After: " + text), GOOD, retries=config(budget=math.inf))
                self.assertEqual(slept, [])
                self.assertEqual(error.retry_after, float(text))

    def test_by_default_it_ends_after_a_minute(self):
        for mode in MODES:
            with ScriptedServer(repeat(expect, lambda peer: clock.advance(53), busy("Retry-After: 8"))) as server:
                sdk = self.sdk(server.url)
                clock = Clock(sdk)
                error = self.failure(sdk, "cache_get", mode)
                self.assertEqual((clock.slept, error.attempts, error.retry_after), ([], 1, 8))

    def test_by_default_more_than_eight_seconds_are_not_waited_for_but_told(self):
        forms = [(text, float(text)) for text in ("9", "8.5", "60", "86400", "inf")]
        forms += [(email.utils.formatdate(time.time() + 60, usegmt=True), 29), ("Fri, 01 Jan 2049 00:00:00 GMT", 1e8)]
        calls = [("queue_enqueue", 503), ("cache_get", 429), ("db_query", 503), ("cache_get", 502)]
        cases = [(*form, *called, mode) for mode in MODES for form in forms[:1] for called in calls]
        cases += [(*form, *calls[0], mode) for form, mode in zip(forms[1:], itertools.cycle(MODES))]
        for text, least, operation, code, mode in cases:
            script = repeat(expect, busy("Retry-After: " + text, status="%d Because" % code))
            with self.subTest(text, operation=operation, code=code, mode=mode):
                with ScriptedServer(script) as server, Stopwatch() as took:
                    error = self.failure(self.sdk(server.url), operation, mode)
                self.assertEqual((error.status_code, error.attempts, len(server.requests)), (code, 1, 1))
                self.assertGreaterEqual(error.retry_after, least)
                self.assertLess(took.seconds, 5)

    def test_by_default_up_to_eight_seconds_are_waited_for(self):
        for text in ("4", "8", "8.0"):
            for mode in MODES:
                slept, _ = self.waits(mode, busy("Retry-After: " + text), GOOD, retries=UNSET)
                self.assertEqual(slept, [float(text)])

    def test_of_two_kept_connections_that_are_lost_one_after_the_other_the_second_is_waited_for(self):
        both_came = threading.Event()
        first = [expect, wait(both_came), GOOD, expect, close]
        second = [expect, lambda peer: both_came.set(), GOOD, expect, close]
        with ScriptedServer(first, second, [expect, close]) as server, ThreadPoolExecutor(1) as thread:
            sdk = self.sdk(server.url)
            earlier = thread.submit(call, sdk, "cache_get", "")
            server.wait_for_requests(1)
            call(sdk, "cache_get", "")
            earlier.result()
            clock = Clock(sdk)
            self.assertEqual(self.failure(sdk, "cache_get").attempts, 3)
            self.assertEqual([seconds > 0 for seconds in clock.slept], [False, True])

    def test_a_wait_does_not_count_against_the_timeout_of_an_attempt(self):
        for mode in MODES:
            with ScriptedServer(repeat(expect, busy("Retry-After: 4"), expect, GOOD)) as server:
                sdk = self.sdk(server.url, timeout_ms=500)
                clock = Clock(sdk)
                call(sdk, "queue_enqueue", mode)
                self.assertEqual(clock.slept, [4])

    def test_a_retry_config_of_the_caller_s_waits_as_long_as_its_budget_lasts(self):
        for retries in (config(budget=61_000), config(True, budget=61_000)):
            for mode in MODES:
                slept, _ = self.waits(mode, busy("Retry-After: 60"), GOOD, retries=retries)
                self.assertEqual(slept, [60])

    def test_no_wait_ends_after_the_budget_which_begins_with_the_call(self):
        for mode in MODES:
            slept, error = self.waits(mode, *3 * [busy("Retry-After: 4")], retries=config(budget=10_000))
            self.assertEqual((slept, error.attempts), ([4, 4], 3))
            slept, error = self.waits(mode, busy(), retries=config(budget=0))
            self.assertEqual((slept, error.attempts), ([], 1))

    def test_what_the_attempts_take_counts_as_well(self):
        for mode in MODES:
            with ScriptedServer(repeat(expect, lambda peer: clock.advance(3), busy("Retry-After: 1"))) as server:
                sdk = self.sdk(server.url, retry_config=config(budget=9_999))
                clock = Clock(sdk)
                for _ in range(2):  # each call has a budget of its own
                    clock.slept.clear()
                    self.assertEqual(self.failure(sdk, "cache_get", mode).attempts, 3)
                    self.assertEqual(clock.slept, [1, 1])

    def test_a_wall_clock_that_jumps_does_not_matter(self):
        def jump(peer):
            clock.wall_now += jumps.pop()

        for mode in MODES:
            jumps = [86400, -86400, 10**9, -(10**9), 0]
            with ScriptedServer(repeat(expect, jump, busy("Retry-After: 1"))) as server:
                sdk = self.sdk(server.url, retry_config=config(budget=4_000))
                clock = Clock(sdk)
                self.assertEqual(self.failure(sdk, "cache_get", mode).attempts, 5)

    def test_a_thousand_waits_are_spread_evenly_below_the_ceiling(self):
        constant = config(initial=2000, longest=2000, budget=math.inf)
        steep = config(initial=10, longest=2000, exponent=1e200, budget=math.inf)
        slept, _ = self.waits("", *500 * [busy()] + [GOOD], retries=constant)
        more, _ = self.waits("_async", *500 * [busy()] + [GOOD], retries=steep)
        self.assertEqual((len(slept), len(more)), (500, 500))
        self.assertLessEqual(more.pop(0), 0.01)
        draws = slept + more
        self.assertTrue(0 <= min(draws) < 0.1 and 1.9 < max(draws) <= 2, (min(draws), max(draws)))
        for tenth in range(10):
            count = sum(tenth <= draw * 5 < tenth + 1 for draw in draws)
            self.assertTrue(40 < count < 180, "%d of 999 in tenth %d" % (count, tenth))  # six standard deviations

    def test_the_ceiling_grows_by_the_exponent_up_to_the_longest_interval(self):
        for retries, ceilings in (
            (config(initial=1000, exponent=3, longest=5000), [1, 3, 5, 5]),
            (config(initial=1000, exponent=0.5), [1, 0.5, 0.25]),
            (UNSET, [0.5, 1]),
        ):
            for mode in MODES:
                steps = len(ceilings) * [busy()] + [GOOD]
                with ScriptedServer(
                    [step for data in 40 * steps for step in (expect, data)] + [expect, close]
                ) as server:
                    sdk = self.sdk(server.url, retry_config=retries)
                    clock = Clock(sdk)
                    for _ in range(40):
                        call(sdk, "cache_get", mode)
                for n, ceiling in enumerate(ceilings):
                    draws = clock.slept[n :: len(ceilings)]
                    self.assertTrue(ceiling * 0.6 < max(draws) <= ceiling, "%s of %s" % (max(draws), ceiling))

    def test_a_steep_exponent_stops_at_the_longest_interval(self):
        for initial, exponent in ((1000, 10**300), (1000, 1e300), (1.5, 10**400), (10**400, 2)):
            retries = config(initial=initial, exponent=exponent, longest=70)
            for mode in MODES:
                slept, _ = self.waits(mode, *4 * [busy()] + [GOOD], retries=retries)
                self.assertEqual(len(slept), 4)
                self.assertTrue(all(0 <= seconds <= 0.07 for seconds in slept), slept)


class WhatIsSentAgain(RetryTestCase):
    def test_the_same_request_for_every_operation(self):
        for operation in REQUESTS:
            for mode in MODES:
                with ScriptedServer([expect, busy(), expect, busy(status="429 Slow"), expect, GOOD]) as server:
                    sdk = self.sdk(server.url)
                    Clock(sdk)
                    call(sdk, operation, mode, http_headers={"X-Own": "1"})
                    first, second, third = server.requests
                    self.assertTrue(first == second == third)
                    self.assertEqual(server.connections, 1)  # the discarded answers were read to their ends

    def test_a_key_that_is_called_is_asked_once_per_call(self):
        for mode in MODES:
            asked = mock.Mock(side_effect=["first", "second"])
            with ScriptedServer([expect, busy(), expect, GOOD, expect, GOOD]) as server:
                sdk = SDK(asked, server_url=server.url)
                Clock(sdk)
                call(sdk, "cache_get", mode)
                call(sdk, "cache_get", mode)
                asyncio.run(sdk.aclose())
                sdk.close()
                self.assertEqual(
                    [header(request, "X-Aerostack-Key") for request in server.requests],
                    [["first"], ["first"], ["second"]],
                )

    def test_an_open_file_from_its_start_and_a_source_that_is_used_up_never(self):
        class Pipe:
            def __init__(self):
                self.chunks = [b"x" * 10, b""]

            def read(self, size=-1):
                return self.chunks.pop(0)

        for mode in MODES:
            for source, attempts in ((io.BytesIO(b"x" * 10), 3), (iter([b"x" * 10]), 1), (Pipe(), 1)):
                with self.subTest(source=source, mode=mode), ScriptedServer(repeat(expect, busy())) as server:
                    sdk = self.sdk(server.url)
                    Clock(sdk)
                    with self.assertRaises(errors.SDKError) as caught:
                        perform(getattr(sdk.storage, "storage_upload" + mode), key="k", file=source)
                    self.assertEqual((caught.exception.attempts, caught.exception.status_code), (attempts, 503))
                    self.assertEqual(attempts == 1, "cannot be read twice" in str(caught.exception))
                    self.assertEqual([request.count(b"x" * 10) for request in server.requests], attempts * [1])

    def test_nothing_when_the_response_is_too_large(self):
        for mode, kind in zip(MODES, (HttpClient, AsyncHttpClient)):
            with ScriptedServer(repeat(expect, answer(b'{"value": 12345678}'))) as server:
                client = kind(max_response_bytes=10)
                self.addCleanup(client.close)
                sdk = self.sdk(server.url, **{"async_client" if mode else "client": client})
                error = self.failure(sdk, "cache_get", mode, retries=config(True))
                self.assertEqual((error.attempts, len(server.requests)), (1, 1))

    def test_nothing_when_the_uploads_source_fails(self):
        def broken():
            raise OSError("the disk is gone")
            yield b""

        class Source:
            def __iter__(self):
                return broken()

        for mode in MODES:
            with ScriptedServer([until_gone]) as server:
                sdk = self.sdk(server.url, retry_config=config(True))
                clock = Clock(sdk)
                with self.assertRaises(errors.LocalProtocolError) as caught:
                    perform(getattr(sdk.storage, "storage_upload" + mode), key="k", file=Source())
                self.assertEqual((caught.exception.attempts, clock.slept), (1, []))

    def test_a_call_that_succeeds_in_the_end_returns_as_if_nothing_had_been(self):
        for mode in MODES:
            for fault in (close, reset, busy(), answer(status="500 Oops")):
                with ScriptedServer(
                    [expect, fault, expect, answer(b'{"value": 7}')], [expect, answer(b'{"value": 7}')]
                ) as server:
                    sdk = self.sdk(server.url)
                    Clock(sdk)
                    self.assertEqual(call(sdk, "cache_get", mode).value, 7)

    def test_another_failure_on_the_way_ends_it(self):
        for mode in MODES:
            for last in (answer(status="404 No"), answer(b"{")):
                with ScriptedServer([expect, busy(), expect, last]) as server:
                    sdk = self.sdk(server.url)
                    Clock(sdk)
                    self.assertEqual(self.failure(sdk, "cache_get", mode).attempts, 2)


class WhatTheErrorKnows(RetryTestCase):
    def test_its_request_id_is_the_one_that_every_attempt_carried(self):
        for mode in MODES:
            with ScriptedServer(repeat(expect, busy())) as server:
                sdk = self.sdk(server.url)
                Clock(sdk)
                first, second = self.failure(sdk, "cache_get", mode), self.failure(sdk, "cache_get", mode)
                own = self.failure(sdk, "cache_get", mode, http_headers={"x-request-id": "mine"})
                sent = [header(request, "X-Request-ID") for request in server.requests]
                self.assertEqual(sent, 3 * [[first.request_id]] + 3 * [[second.request_id]] + 3 * [["mine"]])
                self.assertNotEqual(first.request_id, second.request_id)
                self.assertEqual(own.request_id, "mine")

    def test_it_tells_what_the_server_asked_for_whether_or_not_the_call_waited(self):
        for mode in MODES:
            for code, attempts in ((503, 3), (400, 1), (500, 1)):
                with ScriptedServer(repeat(expect, busy("Retry-After: 5", status="%d Because" % code))) as server:
                    sdk = self.sdk(server.url)
                    Clock(sdk)
                    error = self.failure(sdk, "queue_enqueue", mode)
                    self.assertEqual((error.retry_after, error.attempts), (5, attempts))
            with ScriptedServer(repeat(expect, busy())) as server:
                sdk = self.sdk(server.url)
                Clock(sdk)
                self.assertIsNone(self.failure(sdk, "queue_enqueue", mode).retry_after)

    def test_what_an_earlier_attempt_may_have_done_is_not_forgotten(self):
        for mode in MODES:
            for first, last, operation, maybe in (
                (reply(busy(status="500 Oops")), 429, "queue_enqueue", True),
                (close, 503, "queue_enqueue", True),
                (reply(busy()), 429, "queue_enqueue", False),
                (reply(busy()), 404, "cache_get", False),
            ):
                with self.subTest(mode=mode, last=last, maybe=maybe):
                    bad = [expect, status(last), expect, status(last)]
                    with ScriptedServer([expect, first] + bad, bad) as server:
                        sdk = self.sdk(server.url, retry_config=config(True))
                        Clock(sdk, 60)
                        error = self.failure(sdk, operation, mode)
                        self.assertEqual((error.status_code, error.maybe_processed), (last, maybe))

    def test_nor_is_it_when_the_last_attempt_reaches_nobody(self):
        connect = aerostack_lite._connected
        for mode in MODES:
            for first, maybe in ((close, True), (reply(busy("Connection: close")), False)):
                dialled = []

                def once(*arguments, dialled=dialled):
                    dialled.append(arguments)
                    return connect(*arguments) if len(dialled) == 1 else ConnectionRefusedError()

                with self.subTest(mode=mode, maybe=maybe), ScriptedServer([expect, first, close]) as server:
                    sdk = self.sdk(server.url, retry_config=config(True))
                    Clock(sdk, 60)
                    with mock.patch("aerostack_lite._connected", once):
                        error = self.failure(sdk, "queue_enqueue", mode)
                    self.assertEqual((type(error), error.maybe_processed), (errors.ConnectError, maybe))

    def test_what_was_never_begun_was_not_processed(self):
        for mode in MODES:
            sdk = self.sdk("http://127.0.0.1:1")
            with self.assertRaises(errors.ValidationError) as caught:
                perform(
                    getattr(sdk.storage, "storage_upload" + mode), key="k", file=pathlib.Path(os.devnull, "missing")
                )
            self.assertFalse(caught.exception.maybe_processed)
            for client in (sdk.sdk_configuration.client, sdk.sdk_configuration.async_client):
                client.close()
            error = self.failure(sdk, "queue_enqueue", mode)
            self.assertEqual((type(error), error.attempts), (errors.ClosedError, 0))
            self.assertFalse(error.maybe_processed)

    def test_an_ambiguous_loss_says_in_words_that_the_request_may_have_been_processed(self):
        for mode in MODES:
            with ScriptedServer([expect, close]) as server:
                error = self.failure(self.sdk(server.url), "queue_enqueue", mode)
                self.assertIn("may have been processed", str(error))
            error = self.failure(
                self.sdk("http://127.0.0.1:%d" % free_port(), retry_config=None), "queue_enqueue", mode
            )
            self.assertNotIn("may have been processed", str(error))

    def test_the_debug_log_tells_each_attempt(self):
        for mode in MODES:
            lines = []
            logger = mock.Mock(debug=lambda message, *values, **_: lines.append(message % values))
            with ScriptedServer(
                [expect, busy("Retry-After: 2"), expect, close], [expect, answer(status="404 No")]
            ) as server:
                sdk = self.sdk(server.url, debug_logger=logger)
                clock = Clock(sdk)
                error = self.failure(sdk, "cache_get", mode)
            self.assertEqual(len(lines), 6)
            for attempt in (1, 2, 3):
                for line in lines[2 * attempt - 2 : 2 * attempt]:
                    for words in ("Operation: cache_get", "Request-Id: " + error.request_id, "Attempt: %d" % attempt):
                        self.assertIn(words, line)
                    self.assertNotIn("secret-key", line)
                self.assertRegex(lines[2 * attempt - 1], r"Milliseconds: \d+\.\d")
            self.assertIn("Status Code: 503", lines[1])
            self.assertIn("Next attempt: in 2.000 s", lines[1])
            self.assertIn("RemoteProtocolError", lines[3])
            self.assertIn("Next attempt: in %.3f s" % clock.slept[1], lines[3])
            self.assertIn("Status Code: 404", lines[5])
            self.assertIn("Next attempt: none", lines[5])


class AClientOfYourOwn(RetryTestCase):
    """httpx's errors are known by their names, so that a program may go on using its client."""

    def client(self, mode, error):
        async def send_async(request, stream):
            raise error

        def send(request, stream):
            raise error

        client = mock.Mock(build_request=lambda *_, **__: None, send=send_async if mode else send)
        return {"async_client" if mode else "client": client}

    def test_its_errors_are_judged_as_ours_are(self):
        for name, read, enqueue, asked in (
            ("ConnectError", 3, 3, 4),
            ("ConnectTimeout", 1, 1, 4),
            ("ProxyError", 3, 3, 4),
            ("ReadError", 3, 1, 4),
            ("WriteError", 3, 1, 4),
            ("RemoteProtocolError", 3, 1, 4),  # as httpx calls it when the server hangs up
            ("ReadTimeout", 1, 1, 4),
            ("WriteTimeout", 1, 1, 4),
            ("UnsupportedProtocol", 1, 1, 1),
            ("LocalProtocolError", 1, 1, 1),
            ("DecodingError", 1, 1, 1),
            ("TooManyRedirects", 1, 1, 1),
            ("ValueError", 1, 1, 1),
        ):
            base = type(name, (Exception,), {})
            words = "Server disconnected without sending a response." if name == "RemoteProtocolError" else "failed"
            failure = type("Special" + name, (base,), {})(words)
            for mode in MODES:
                for operation, retries, attempts in (
                    ("cache_get", UNSET, read),
                    ("queue_enqueue", UNSET, enqueue),
                    ("queue_enqueue", config(True), asked),
                    ("queue_enqueue", config(False), 1),
                ):
                    with self.subTest(name, mode=mode, operation=operation):
                        sdk = self.sdk("http://127.0.0.1:1", retry_config=retries, **self.client(mode, failure))
                        clock = Clock(sdk, 40 if attempts == 4 else 1)
                        with self.assertRaises(base):
                            call(sdk, operation, mode)
                        self.assertEqual(len(clock.slept) + 1, attempts)

    def test_a_call_that_it_makes_within_and_that_fails_repeats_nothing(self):
        nobody, closed = (self.sdk("http://127.0.0.1:%d" % free_port(), retry_config=None) for _ in range(2))
        closed.close()
        bare = HttpClient()
        self.addCleanup(bare.close)
        for audit, kind in (
            (lambda: nobody.queue.queue_enqueue(type="audit", data={}), errors.ConnectError),
            (lambda: closed.queue.queue_enqueue(type="audit", data={}), errors.ClosedError),
            (lambda: post(bare, nobody.sdk_configuration.server_url), errors.ConnectError),
        ):

            class Audits(HttpClient):
                def send(self, request, **options):
                    super().send(request, **options)
                    audit()

            with ScriptedServer(repeat(expect, GOOD)) as server, Audits() as client:
                error = self.failure(self.sdk(server.url, client=client), "db_query")
                self.assertIsInstance(error, kind)
                self.assertEqual((len(server.requests), error.maybe_processed), (1, True))

    def test_an_error_of_a_call_that_it_makes_within_tells_of_that_call(self):
        with ScriptedServer([expect, status(404)]) as other, ScriptedServer([expect, GOOD]) as server:
            audit = SDK("a-key", server_url=other.url)

            class Audits(HttpClient):
                def send(self, request, **options):
                    super().send(request, **options)
                    audit.cache.cache_get(key="k")

            with Audits() as client:
                error = self.failure(self.sdk(server.url, client=client), "db_query")
            self.assertEqual(error.status_code, 404)
            self.assertEqual(error.request_id, header(other.requests[0], "X-Request-ID")[0])

    def test_what_the_system_calls_a_time_out_is_a_lost_connection(self):
        class Dead(socket.socket):
            def recv(self, *_):
                raise OSError(errno.ETIMEDOUT, "Connection timed out")  # no answer to the probes of an idle connection

        def dead(address, *_):
            sock = Dead()
            sock.connect(address[4])
            sock.setblocking(False)
            return sock

        # What the system has to tell makes the socket ready to be read, as a byte does.
        with ScriptedServer([expect, b"H", until_gone]) as server, mock.patch("aerostack_lite._connected", dead):
            sdk = self.sdk(server.url)
            Clock(sdk)
            error = self.failure(sdk, "cache_get")
        self.assertIs(type(error), errors.ReadError)
        self.assertEqual(error.attempts, 3)


class WhatEndsASleep(RetryTestCase):
    """Real sleeps of eight seconds, none of which lasts."""

    def sleeping(self, server, **settings):
        """An SDK, and an event for when a call of it sleeps."""
        asleep = threading.Event()
        logger = mock.Mock(debug=lambda message, *values, **_: "Next attempt" in message % values and asleep.set())
        return self.sdk(server.url, debug_logger=logger, **settings), asleep

    def test_closing_ends_it_at_once_and_nothing_more_is_sent(self):
        for own in (False, True):
            with self.subTest(own_client=own), ScriptedServer(repeat(expect, busy("Retry-After: 8"))) as server:
                client = HttpClient() if own else None
                sdk, asleep = self.sleeping(server, client=client)
                with Stopwatch() as took, ThreadPoolExecutor(1) as threads:
                    sleeper = threads.submit(self.failure, sdk, "queue_enqueue")
                    self.assertTrue(asleep.wait(PATIENCE_SECONDS))
                    sdk.close()
                if client:
                    client.close()
                self.assertLess(took.seconds, 5)
                self.assertFalse(sleeper.result().maybe_processed)
                self.assertEqual(len(server.requests), 1)

    def test_closing_the_asynchronous_half_does_so_too(self):
        async def scenario():
            task = asyncio.ensure_future(sdk.queue.queue_enqueue_async(type="t", data={}))
            while not asleep.is_set():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            await sdk.aclose()
            with self.assertRaises(errors.AerostackError) as caught:
                await task
            self.assertFalse(caught.exception.maybe_processed)

        with ScriptedServer(repeat(expect, busy("Retry-After: 8"))) as server:
            sdk, asleep = self.sleeping(server)
            with Stopwatch() as took:
                asyncio.run(scenario())
            self.assertLess(took.seconds, 5)
            self.assertEqual(len(server.requests), 1)

    def test_so_does_cancelling(self):
        async def scenario():
            task = asyncio.ensure_future(sdk.queue.queue_enqueue_async(type="t", data={}))
            while not asleep.is_set():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        with ScriptedServer([expect, busy("Retry-After: 8"), expect, GOOD]) as server:
            sdk, asleep = self.sleeping(server)
            with Stopwatch() as took:
                asyncio.run(scenario())
                call(sdk, "queue_enqueue", "_async")
            self.assertLess(took.seconds, 5)
            self.assertEqual(len(server.requests), 2)

    @unittest.skipUnless(hasattr(signal, "pthread_kill"), "signals cannot be sent to a thread here")
    @unittest.skipUnless(threading.current_thread() is threading.main_thread(), "signals reach the main thread only")
    def test_so_does_ctrl_c(self):
        def interrupt():
            asleep.wait(PATIENCE_SECONDS)
            pause = 0.1  # Python does not see a signal that comes just before a wait begins
            while not interrupted.wait(pause):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                pause = 2

        interrupted = threading.Event()

        with ScriptedServer([expect, busy("Retry-After: 8"), expect, GOOD]) as server:
            sdk, asleep = self.sleeping(server)
            thread = threading.Thread(target=interrupt)
            thread.start()
            with Stopwatch() as took, self.assertRaises(KeyboardInterrupt):
                call(sdk, "queue_enqueue", "")
            interrupted.set()
            thread.join()
            self.assertLess(took.seconds, 5)
            call(sdk, "queue_enqueue", "")
            self.assertEqual(len(server.requests), 2)


class ManyRetriedCalls(RetryTestCase):
    @unittest.skipIf(open_descriptors() is None, "this platform does not tell its descriptors")
    def test_leave_descriptors_flat(self):
        calls = 50
        for mode in MODES:
            faults = [
                [expect, busy(), expect, GOOD],
                [expect, cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")],
                [expect, reset],
                [expect, GOOD, expect, close],
            ]
            with ScriptedServer(*faults * calls) as server:
                sdk = self.sdk(server.url)
                Clock(sdk)

                async def many(count):
                    for _ in range(count):
                        try:
                            await sdk.cache.cache_get_async(key="k")
                        except errors.AerostackError:
                            pass

                def run(count):
                    if mode:
                        asyncio.run(many(count))
                        return
                    for _ in range(count):
                        try:
                            call(sdk, "cache_get", "")
                        except errors.AerostackError:
                            pass

                run(20)
                server.forget()
                before = open_descriptors()
                run(calls - 20)
                server.forget()
                self.assertLess(open_descriptors(), before + 10)
                half = sdk.sdk_configuration.async_client if mode else sdk.sdk_configuration.client
                self.assertIn(" 0 active, ", repr(half).replace(":", ": "))


if __name__ == "__main__":
    unittest.main()
