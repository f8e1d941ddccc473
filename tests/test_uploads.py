"""Uploads under way: more than one attempt, a failing source or server, progress, memory, the event loop."""

import asyncio
import errno
import io
import itertools
import os
import pathlib
import socket
import ssl
import sys
import threading
import time
import tracemalloc
import unittest
import zipfile
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, AsyncHttpClient, HttpClient, errors
from tests.certificates import OPENSSL, common_authority
from tests.scripted_server import ScriptedServer, Stopwatch, at_once, drip, expect, until_gone
from tests.side_by_side import side_by_side
from tests.upload_case import (
    BOTH_TWINS,
    DATA,
    MIB,
    PATIENCE_SECONDS,
    QUICK,
    Block,
    SeekableBlock,
    UploadCase,
    answer,
    as_coroutine,
    blocks,
)
from tests.upload_sources import EITHER, ONE_WAY, REWINDABLE, OnlyRead, Pieces

try:
    import trustme
except ImportError:
    trustme = None


# ---- More than one attempt


class Again(UploadCase):
    def test_what_has_a_length_but_only_one_walk_is_never_sent_empty(self):
        class Counted:  # such as a progress bar around a file
            def __init__(self):
                self.blocks = iter([DATA[:1000], DATA[1000:]])

            def __len__(self):
                return 2

            def __iter__(self):
                return iter(self.blocks)

        server = self.serve(answer(503))
        with self.assertRaisesRegex(errors.SDKError, "cannot be read twice"):
            self.upload(server, Counted(), retries=QUICK)
        self.assertEqual([received.file == DATA for received in server.received], [True])

    def test_every_rewindable_source_is_sent_whole_a_second_time(self):
        server = self.serve()
        sdk = self.sdk(server, retry_config=QUICK)
        for name, make in REWINDABLE.items():
            for twin in BOTH_TWINS:
                with self.subTest(source=name, twin=twin):
                    server.answers[:] = [answer(503)]
                    self.assertEqual(self.upload(server, make(self, DATA), twin=twin, sdk=sdk).url, "u")
                    first, second = server.received[-2:]
                    self.assertTrue(first.complete and second.complete)
                    self.assertTrue(first.body == second.body)

    def test_a_redirect_within_the_origin_gets_the_same_upload(self):
        for status in (307, 308):
            for name in ("bytes", "BytesIO", "a path", "a file", "SpooledTemporaryFile on disk"):
                with self.subTest(status=status, source=name):
                    server = self.serve(answer(status, "Location: /elsewhere"))
                    self.assertEqual(self.upload(server, REWINDABLE[name](self, DATA), retries=None).url, "u")
                    first, second = server.received
                    self.assertEqual((second.method, second.path), ("POST", "/elsewhere"))
                    self.assertTrue(first.body == second.body)
                    self.assertTrue(second.file == DATA)
                    self.assertEqual(second.header("content-type"), first.header("content-type"))

    def test_what_cannot_be_rewound_is_tried_once_and_the_error_says_so(self):
        for name, make in ONE_WAY.items():
            for twin in BOTH_TWINS:
                for status, headers in ((503, ()), (307, ("Location: /elsewhere",))):
                    with self.subTest(source=name, twin=twin, status=status):
                        server = self.serve(answer(status, *headers))
                        with self.assertRaises(errors.AerostackError) as caught:
                            self.upload(server, make(self, DATA), twin=twin, retries=QUICK)
                        self.assertEqual((caught.exception.attempts, len(server.received)), (1, 1))
                        self.assertRegex(str(caught.exception), r"(?i)rewind|rewound|read twice|read again")

    def test_an_iterable_that_is_spent_after_one_walk_is_never_sent_empty(self):
        class Spent:  # as a response of another HTTP library
            def __init__(self):
                self.pieces = iter(Pieces(DATA))

            def __iter__(self):
                yield from self.pieces

        for twin in BOTH_TWINS:
            for reply in (answer(503), answer(307, "Location: /elsewhere")):
                with self.subTest(twin=twin, reply=reply[:12]):
                    server = self.serve(reply)
                    sdk = self.sdk(server)
                    with self.assertRaises(errors.AerostackError):
                        self.upload(server, Spent(), twin=twin, sdk=sdk, retries=QUICK)
                    sdk.close()
                    asyncio.run(sdk.aclose())
                    self.assertEqual(
                        [received.file == DATA for received in server.finished() if received.complete], [True]
                    )

    def test_an_error_that_nobody_would_try_again_does_not_speak_of_it(self):
        said = []
        for content in (b"x", iter([b"x"])):
            server = self.serve(answer(400, body=b"{}"))
            with self.assertRaises(errors.SDKError) as caught:
                self.upload(server, content, retries=QUICK)
            said.append(str(caught.exception))
        self.assertEqual(said[0], said[1])

    def test_a_source_that_will_not_be_rewound_after_all_is_the_cause(self):
        boom = OSError("stuck")

        class Stuck(io.BytesIO):
            def seek(self, offset, whence=0):
                if any(received.complete for received in server.received):
                    raise boom
                return super().seek(offset, whence)

        for twin in BOTH_TWINS:
            with self.subTest(twin=twin):
                server = self.serve(answer(503))
                with self.assertRaises(errors.AerostackError) as caught:
                    self.upload(server, Stuck(DATA), twin=twin, retries=QUICK)
                self.assertIs(caught.exception.__cause__, boom)
                self.assertEqual([received.complete for received in server.finished()].count(True), 1)

    def test_an_idle_connection_that_the_server_closed_costs_a_generator_nothing(self):
        closed = threading.Event()

        def answer_and_close(connection, received):
            connection.sendall(answer(200))
            connection.shutdown(socket.SHUT_RDWR)
            closed.set()

        server = self.serve(answer_and_close)
        sdk = self.sdk(server)
        sdk.cache.cache_get(key="k")
        self.assertTrue(closed.wait(PATIENCE_SECONDS))
        self.upload(server, (piece for piece in Pieces(DATA)), sdk=sdk, retries=None)
        self.assertTrue(server.received[-1].file == DATA)
        self.assertEqual(len(server.received), 2)

    def test_a_foreign_client_gets_a_body_that_it_can_read_for_every_attempt(self):
        for name in ("bytes", "a path", "BytesIO"):
            with self.subTest(source=name):
                client = ForeignClient()
                sdk = self.enterContext(
                    SDK("key", server_url="http://127.0.0.1:1/v1", client=client, retry_config=QUICK)
                )
                self.assertEqual(self.upload(None, REWINDABLE[name](self, DATA), sdk=sdk).url, "u")
                client.check(self, DATA)

    def test_a_foreign_async_client_gets_an_async_body_for_every_attempt(self):
        for name in ("bytes", "a path", "BytesIO"):
            with self.subTest(source=name):
                client = ForeignAsyncClient()
                sdk = self.enterContext(
                    SDK("key", server_url="http://127.0.0.1:1/v1", async_client=client, retry_config=QUICK)
                )
                self.assertEqual(
                    self.upload(None, REWINDABLE[name](self, DATA), sdk=sdk, twin="storage_upload_async").url, "u"
                )
                client.check(self, DATA)


class ForeignResponse:
    def __init__(self, status_code):
        self.status_code, self.text = status_code, '{"url":"u"}'
        self.content, self.reason_phrase = self.text.encode(), "Whatever"
        self.headers = {"content-type": "application/json"}

    def iter_text(self):
        yield self.text

    def close(self):
        pass

    async def aiter_text(self):
        yield self.text

    async def aclose(self):
        pass


class ForeignRequest:
    def __init__(self, method, url, content=None, headers=None, **_):
        self.method, self.url, self.content, self.headers = method, url, content, headers


class ForeignClient:
    """A client that is not ours, as httpx's would be used: one request, sent for every attempt."""

    def __init__(self):
        self.bodies, self.built = [], []

    def build_request(self, method, url, **options):
        self.built.append(ForeignRequest(method, url, **options))
        return self.built[-1]

    def send(self, request, **_):
        return self.next(b"".join(request.content if not isinstance(request.content, bytes) else [request.content]))

    def next(self, body):
        self.bodies.append(body)
        return ForeignResponse(503 if len(self.bodies) == 1 else 200)

    def close(self):
        raise AssertionError("a client that was supplied is not ours to close")

    def check(self, case, data):
        case.assertEqual(len(self.built), 1)
        first, second = self.bodies
        case.assertTrue(first == second)
        headers = {name.lower(): value for name, value in dict(self.built[0].headers).items()}
        case.assertRegex(headers["content-type"], "^multipart/form-data; boundary=")
        case.assertTrue(
            first.endswith(b"\r\n\r\n%s\r\n--%s--\r\n" % (data, headers["content-type"].partition("=")[2].encode()))
        )
        case.assertEqual(headers.get("content-length", str(len(first))), str(len(first)))


class ForeignAsyncClient(ForeignClient):
    async def send(self, request, **_):
        if isinstance(request.content, bytes):
            return self.next(request.content)
        return self.next(b"".join([piece async for piece in request.content]))

    async def aclose(self):
        self.close()


# ---- A source that fails


class Announced(io.RawIOBase):
    """Says that it holds `announced` bytes, and gives `real`."""

    def __init__(self, announced, real):
        self.announced, self.real, self.position = announced, real, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.position

    def seek(self, offset, whence=0):
        self.position = offset + (0, self.position, self.announced)[whence]
        return self.position

    def read(self, size=-1):
        left = max(self.real - self.position, 0)
        piece = b"x" * (left if size is None or size < 0 else min(size, left))
        self.position += len(piece)
        return piece

    def readinto(self, buffer):
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class Breaks:
    """Gives some bytes, then raises."""

    def __init__(self, error):
        self.error, self.turn = error, 0

    def read(self, size=-1):
        self.turn += 1
        if self.turn > 2:
            raise self.error
        return b"x" * 100000

    def pieces(self):
        while True:
            yield self.read()


class FailingSources(UploadCase):
    def fails_once(self, content, expected=errors.AerostackError, twin="storage_upload", **options):
        """The upload fails after one attempt, the server never holds a body that looks whole, and the SDK works on."""
        server = self.serve()
        sdk = self.sdk(server, retry_config=QUICK)
        with self.assertRaises(expected) as caught:
            self.upload(server, content, twin=twin, sdk=sdk, **options)
        self.assertEqual([received.complete for received in server.finished()], [False] * len(server.received))
        self.assertLessEqual(len(server.received), 1)
        self.upload(server, b"next", sdk=sdk)
        self.assertEqual(server.received[-1].file, b"next")
        return caught.exception

    def test_one_that_ends_early_is_an_error_that_gives_the_sizes(self):
        for twin in BOTH_TWINS:
            for announced, real in ((300000, 200000), (5, 0), (5 * MIB, 5 * MIB - 1)):
                with self.subTest(announced=announced, real=real, twin=twin):
                    error = self.fails_once(Announced(announced, real), twin=twin)
                    self.assertNotIsInstance(error, errors.SDKBaseError)
                    self.assertIn(str(announced), str(error))
                    self.assertRegex(str(error), r"\b(%d|%d)\b" % (real, announced - real))

    def test_a_broken_archive_is_no_empty_file(self):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writer:
            writer.writestr("a.txt", b"precious" * 1000)
        broken = bytearray(archive.getvalue())
        broken[100] ^= 1
        member = zipfile.ZipFile(io.BytesIO(bytes(broken))).open("a.txt")
        expected = errors.ValidationError, errors.LocalProtocolError  # as it is measured, or as it is sent
        self.assertIsInstance(self.fails_once(member, expected).__cause__, zipfile.BadZipFile)

    def test_one_that_cannot_find_back_is_no_empty_file(self):
        class NoWayBack(io.BytesIO):
            def seek(self, offset, whence=0):
                if not whence:
                    raise EOFError("no way back")
                return super().seek(offset, whence)

        class Forgets(io.BytesIO):
            told = False

            def seek(self, offset, whence=0):
                raise EOFError("no way at all")

            def tell(self):
                if self.told:
                    raise RuntimeError("I forget")
                self.told = True
                return super().tell()

        for make in (NoWayBack, Forgets):
            for position in (0, 5, 8):
                source = make(b"precious")
                io.BytesIO.seek(source, position)
                with self.subTest(make.__name__, position=position):
                    self.assertIsInstance(self.fails_once(source, errors.ValidationError).__cause__, EOFError)

    def test_one_that_holds_more_than_it_said_is_cut_or_refused(self):
        for announced, real in ((200000, 300000), (1000, MIB), (5, 6)):
            with self.subTest(announced=announced, real=real):
                server = self.serve()
                try:
                    self.upload(server, Announced(announced, real), retries=QUICK)
                    self.assertTrue(server.received[0].file == b"x" * announced)
                except errors.AerostackError as error:
                    self.assertNotIsInstance(error, errors.SDKBaseError)
                    self.assertFalse(any(received.complete for received in server.finished()))
                self.assertLessEqual(len(server.received), 1)

    def test_a_file_that_shrinks_while_it_goes_out(self):
        path = self.path(b"x" * (16 * MIB))
        for source in (path, self.open(str(path), "rb"), self.open(str(path), "rb", buffering=0)):
            with self.subTest(source=type(source).__name__):
                os.truncate(str(path), 16 * MIB)
                self.fails_once(source, progress=lambda sent, total: os.truncate(str(path), 3))

    def test_a_file_that_grows_while_it_goes_out(self):
        path = self.path(b"x" * MIB)
        server = self.serve()
        with open(str(path), "ab", buffering=0) as growing:
            try:
                self.upload(server, path, progress=lambda sent, total: growing.write(b"y" * 1000))
                self.assertTrue(server.received[0].file == b"x" * MIB)
            except errors.AerostackError as error:
                self.assertNotIsInstance(error, errors.SDKBaseError)
        self.assertEqual(len(server.received), 1)

    def test_a_reader_that_raises_is_not_read_again_and_its_exception_is_the_cause(self):
        # The network's own exceptions are among them: they must not pass for a fault of our connection.
        for boom in (
            OSError(5, "disk on fire"),
            ConnectionResetError("the source's"),
            BrokenPipeError("the source's"),
            TimeoutError("the source's"),
            ValueError("bad block"),
            EOFError(),
            errors.ConnectError("another call's"),
        ):
            for twin in BOTH_TWINS:
                for content in (Breaks(boom), Breaks(boom).pieces()):
                    with self.subTest(boom=boom, twin=twin, content=type(content).__name__):
                        error = self.fails_once(content, twin=twin)
                        self.assertIs(error.__cause__, boom)
                        self.assertEqual(error.attempts, 1)

    def test_a_reader_that_raises_stop_iteration_is_not_at_its_end(self):
        boom = StopIteration("the source's")
        self.assertIs(self.fails_once(Breaks(boom)).__cause__.__cause__, boom)

    def test_a_source_that_gives_a_little_for_ever_meets_the_deadline(self):
        pause = threading.Event()

        def trickle():
            while True:
                pause.wait(0.01)
                yield b"a little"

        with self.assertRaises(errors.TimeoutException):
            self.upload(self.serve(), trickle(), timeout_ms=200)

    def test_one_that_is_awaited_is_refused(self):
        class Awaited(OnlyRead):
            def __aiter__(self):
                return self

        server = self.serve()
        with self.assertRaises(errors.ValidationError):
            self.upload(server, Awaited(b"x"))
        self.assertEqual(server.received, [])

    def test_an_interrupt_in_the_reader_passes_as_it_is(self):
        interrupt = KeyboardInterrupt()
        self.assertIs(self.fails_once(Breaks(interrupt), expected=KeyboardInterrupt), interrupt)

    def test_a_reader_that_has_nothing_yet_is_not_at_its_end(self):
        class NothingYet(OnlyRead):
            def read(self, size=-1):
                return super().read(size) or None  # as a file that does not block

        self.fails_once(NothingYet(b"half"))

    def test_pieces_that_are_not_bytes_are_named(self):
        for content in (iter(["text"]), iter([b"bytes", "text"]), [1, 2], iter([None]), {"a": 1}):
            with self.subTest(content=repr(content)):
                self.assertRegex(str(self.fails_once(content)), r"(?i)\bbytes\b")

    def test_a_reader_of_text_is_an_error(self):
        class TextReader:
            def read(self, size=-1):
                return "text"

        self.assertRegex(str(self.fails_once(TextReader())), r"(?i)\bbytes|binary\b")

    def test_one_whose_end_is_text_ends(self):
        class EndsInText(OnlyRead):
            def read(self, size):
                return super().read(size) or ""

        server = self.serve()
        self.upload(server, EndsInText(b"abc"))
        self.assertEqual(server.received[0].file, b"abc")

    @unittest.skipUnless(os.path.exists("/proc/version"), "no /proc here")
    def test_files_without_an_end_are_read_to_it(self):
        for content in (pathlib.Path("/proc/version"), self.open("/proc/version", "rb")):
            server = self.serve()
            self.upload(server, content)
            with open("/proc/version", "rb") as reader:
                self.assertEqual(server.received[0].file, reader.read())

    def test_one_that_gives_all_of_it_each_time_is_read_once(self):
        class Whole:
            def read(self):
                return b"abc"

        server = self.serve()
        self.upload(server, Whole())
        self.assertEqual(server.received[0].file, b"abc")


# ---- A server that does not read to the end

BIG = 24 * MIB  # more than the sockets' buffers swallow


class EarlyAnswers(UploadCase):
    def contents(self):
        path = os.path.join(self.folder, "big")
        with open(path, "wb") as file:
            file.truncate(BIG)
        return {
            "bytes": lambda: bytes(BIG),
            "a path": lambda: pathlib.Path(path),
            "a generator": lambda: blocks(BIG),
            "a reader": lambda: SeekableBlock(BIG),
        }

    def early(self, status, how):
        def reply(connection, received):
            if how == "late":  # by now the buffers are full, and the client waits to send
                self.server.released.wait(0.02)
            connection.recv(1000)
            whole = answer(status, "Connection: close", body=b'{"code":"E","message":"early"}')
            if how == "in pieces, and closes":  # over TLS, a record each
                whole = b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + whole
            size = 20 if how == "in pieces, and closes" else len(whole)
            for start in range(0, len(whole), size):
                connection.sendall(whole[start : start + size])
            if how in ("late", "and holds on"):
                self.server.released.wait(PATIENCE_SECONDS)
            elif how == "and ends its half":
                connection.shutdown(socket.SHUT_WR)
                self.server.released.wait(PATIENCE_SECONDS)
            # otherwise it closes with bytes unread, so that the system resets the connection

        return reply

    def test_an_answer_while_the_body_goes_out_is_what_the_caller_gets(self):
        for status, how in (
            (413, "late"),
            (413, "and holds on"),
            (401, "and ends its half"),
            (413, "and closes"),
            (413, "in pieces, and closes"),
        ):
            for name, make in self.contents().items():
                for twin in BOTH_TWINS:
                    with self.subTest(status=status, how=how, source=name, twin=twin):
                        self.server = self.serve(self.early(status, how), receive_buffer=65536)
                        sdk = self.sdk(self.server, retry_config=QUICK, timeout_ms=5000)
                        with self.assertRaises(errors.SDKError) as caught:
                            self.upload(self.server, make(), twin=twin, sdk=sdk)
                        self.assertEqual((caught.exception.status_code, caught.exception.attempts), (status, 1))
                        self.assertIn("early", caught.exception.body)
                        self.upload(self.server, b"next", sdk=sdk)
                        self.assertEqual(self.server.received[-1].file, b"next")
                        self.assertEqual(len(self.server.received), 2)
                        self.server.released.set()

    def test_an_early_503_is_tried_again_with_the_whole_body(self):
        self.server = self.serve(self.early(503, "and closes"), keep=False, receive_buffer=65536)
        self.upload(self.server, SeekableBlock(BIG), retries=QUICK)
        self.assertEqual([received.complete for received in self.server.received], [False, True])
        self.assertGreater(self.server.received[1].body_size, BIG)

    def test_a_server_that_stops_reading_meets_the_deadline(self):
        def check(case):
            make, twin = case
            server = self.serve(
                lambda connection, received: server.released.wait(PATIENCE_SECONDS), receive_buffer=65536
            )
            seen = []
            started = time.monotonic()
            with self.assertRaises(errors.TimeoutException) as caught:
                self.upload(server, make(), twin=twin, timeout_ms=150, progress=lambda *now: seen.append(now))
            self.assertLess(time.monotonic() - started, 2)
            self.assertGreaterEqual(time.monotonic() - started, 0.14)
            self.assertEqual((caught.exception.attempts, len(server.received)), (1, 1))
            self.assertLess(seen[-1][0], BIG)

        at_once(check, *[(make, twin) for make in self.contents().values() for twin in BOTH_TWINS])


@unittest.skipIf(trustme is None, "trustme is not installed")
class OverTls(EarlyAnswers):
    """The same again through OpenSSL, where reading and writing share one state."""

    @classmethod
    def setUpClass(cls):
        authority = trustme.CA()
        cls.server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(cls.server_side)
        cls.client_side = ssl.create_default_context()
        authority.configure_trust(cls.client_side)

    def serve(self, *answers, **options):
        return super().serve(*answers, **dict(options, tls=self.server_side))

    def sdk(self, server, **options):
        clients = HttpClient(ssl_context=self.client_side), AsyncHttpClient(ssl_context=self.client_side)
        self.addCleanup(clients[0].close)
        self.addCleanup(lambda: asyncio.run(as_coroutine(clients[1].aclose())))
        return super().sdk(server, client=clients[0], async_client=clients[1], **options)

    def test_every_source_arrives_whole(self):
        server = self.serve()
        sdk = self.sdk(server)
        for name, make in list(REWINDABLE.items()) + list(EITHER.items()) + list(ONE_WAY.items()):
            with self.subTest(source=name):
                self.upload(server, make(self, DATA), sdk=sdk)
                self.assertTrue(server.received[-1].file == DATA)


# ---- As long as bytes move

ROOM = 131072  # for two of a loopback's packets: with less a system waits, at times, before it sends the next


@unittest.skipUnless(sys.platform.startswith("linux"), "other systems do not tell what their kernel still holds")
class PatienceCase(UploadCase):
    """Without a timeout of the caller's an upload ends when no byte has moved for a time; here that is 0.5 s.

    Each is tried in the plain and, where there is openssl, over TLS, which has a buffer of its own; and all at once."""

    IDLE = 0.5

    @classmethod
    def setUpClass(cls):
        cls.authority, tls = common_authority() if OPENSSL else (None, None)
        cls.ways = [None, tls] if OPENSSL else [None]

    def setUp(self):
        super().setUp()
        for name in ("_IDLE_TIMEOUT_MS", "_DEFAULT_TIMEOUT_MS"):
            patch = mock.patch.object(aerostack_lite, name, self.IDLE * 1000)
            patch.start()
            self.addCleanup(patch.stop)

    def each_way(self, check, *cases):
        """check(TLS of the server or None, *case), each in a thread of its own."""
        at_once(lambda case: check(*case), *[(tls, *case) for tls in self.ways for case in cases or [()]])

    def sdk(self, server, **options):
        if server.url.startswith("https:"):
            context = ssl.create_default_context(cafile=self.authority.path)
            for name, kind in (("client", HttpClient), ("async_client", AsyncHttpClient)):
                options[name] = kind(ssl_context=context)
                self.addCleanup(options[name].close)
        return super().sdk(server, **options)

    def slow(self, tls, seconds):
        """A server that takes that time for 64 KiB, and has room for little more."""
        server = self.serve(
            keep=False, receive_buffer=ROOM, pause=lambda received: server.released.wait(seconds), tls=tls
        )
        return server

    def stalling(self, tls, size):
        """A server that reads so much, slowly, and then no more."""

        def pause(received):
            server.released.wait(0.005 if received.body_size < size else PATIENCE_SECONDS)

        server = self.serve(keep=False, receive_buffer=ROOM, pause=pause, tls=tls)
        return server

    def check_arrives(self, server, content, size, **options):
        with Stopwatch() as took:
            self.upload(server, content, **options)
        self.assertGreater(took.seconds, 2 * self.IDLE)
        self.assertGreater(server.received[0].body_size, size)
        self.assertEqual(len(server.received), 1)

    def check_given_up(self, server, content, **options):
        with Stopwatch() as took, self.assertRaises(errors.TimeoutException) as caught:
            self.upload(server, content, **options)
        self.assertGreater(took.seconds, self.IDLE)
        self.assertLess(took.seconds, self.IDLE + 2)
        self.assertEqual(caught.exception.attempts, 1)


@side_by_side(10, one_setup=True)
class Patience(PatienceCase):
    def test_what_lies_in_the_kernel_s_buffer_moves_while_it_shrinks(self):
        size = 2 * MIB  # all of it is sent at once, as the module sees it

        def check(tls, twin):
            seen = []
            started = time.monotonic()
            self.check_arrives(
                self.slow(tls, 0.035), bytes(size), size, twin=twin, progress=lambda *_: seen.append(time.monotonic())
            )
            self.assertLess(seen[-1] - started, self.IDLE)

        self.each_way(check, *[(twin,) for twin in BOTH_TWINS])

    def test_what_stalls_in_the_kernel_s_buffer_is_given_up(self):
        def check(tls, read):
            self.check_given_up(self.stalling(tls, read), bytes(MIB))

        self.each_way(check, (0,), (65536,), (MIB // 2,))

    def test_an_answer_that_does_not_come_ends_it(self):
        def check(tls, *begun):
            with ScriptedServer([expect, *begun, until_gone], tls=tls) as server:
                self.check_given_up(server, b"content")

        self.each_way(check, (), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",))

    def test_an_answer_that_comes_a_byte_at_a_time_moves_too(self):
        def check(tls, response):
            with ScriptedServer([expect, drip(response, 2.4 * self.IDLE / len(response))], tls=tls) as server:
                with Stopwatch() as took:
                    self.assertEqual(self.upload(server, b"content").url, "u")
                self.assertGreater(took.seconds, 2 * self.IDLE)

        chunked = (
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"u\r\n7\r\nrl":"u"\r\n1\r\n}\r\n0\r\n\r\n'
        )
        self.each_way(check, (answer(200),), (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(200),), (chunked,))

    def test_a_source_that_is_slow_itself_arrives(self):
        def check(tls):
            server = self.serve(tls=tls)

            def trickle():
                for _ in range(10):
                    server.released.wait(self.IDLE / 4)
                    yield b"x" * 1000

            self.check_arrives(server, trickle(), 10_000)

        self.each_way(check)

    def test_a_timeout_of_the_caller_s_bounds_it_as_a_whole(self):
        def check(tls, call, settings):
            server = self.slow(tls, 0.02)
            with Stopwatch() as took, self.assertRaises(errors.TimeoutException) as caught:
                self.upload(server, bytes(8 * MIB), sdk=self.sdk(server, **settings), **call)
            self.assertLess(took.seconds, 1.5)
            self.assertEqual(caught.exception.attempts, 1)

        brief, endless = {"timeout_ms": 200}, {"timeout_ms": 9e9}
        self.each_way(check, (brief, {}), ({}, brief), (brief, endless))

    def test_what_is_no_upload_is_bounded_as_a_whole(self):
        def check(tls):
            with Stopwatch() as took, self.assertRaises(errors.TimeoutException) as caught:
                self.sdk(self.slow(tls, 0.02)).cache.cache_set(key="k", value="x" * (8 * MIB))
            self.assertLess(took.seconds, self.IDLE + 1)
            self.assertEqual(caught.exception.attempts, 1)

        self.each_way(check)

    def test_each_attempt_is_given_the_same_patience(self):
        def check(tls):
            server = self.slow(tls, 0.025)
            server.answers.append(answer(503, "Retry-After: 0.01"))
            with Stopwatch() as took:
                self.upload(server, bytes(MIB))
            self.assertGreater(took.seconds, self.IDLE)
            self.assertEqual([received.complete for received in server.received], [True, True])

        self.each_way(check)


@side_by_side(2, one_setup=True)
class PatienceWithMuch(PatienceCase):
    """Eight MiB, of every kind of source."""

    def contents(self, size):
        """Functions that make a source of each kind, for one twin or the other."""
        path = os.path.join(self.folder, self._testMethodName)
        with open(path, "wb") as file:
            file.truncate(size)
        kinds = (bytes, lambda size: pathlib.Path(path), blocks, SeekableBlock, Block)
        return list(zip(kinds, itertools.cycle(BOTH_TWINS)))

    def test_what_is_read_slowly_arrives(self):
        size = 8 * MIB  # most of it waits for room in the kernel's buffers

        def check(tls, kind, twin):
            self.check_arrives(self.slow(tls, 0.01), kind(size), size, twin=twin)

        self.each_way(check, *self.contents(size))

    def test_what_stalls_is_given_up(self):
        size = 8 * MIB

        def check(tls, kind, twin):
            self.check_given_up(self.stalling(tls, MIB), kind(size), twin=twin)

        self.each_way(check, *self.contents(size))


class PatienceWithoutHelp(PatienceCase):
    def test_a_kernel_that_does_not_tell_stops_no_upload(self):
        for broken in (
            mock.patch("fcntl.ioctl", side_effect=OSError(errno.ENOTTY, "Inappropriate ioctl for device")),
            mock.patch.dict(sys.modules, fcntl=None),
            mock.patch.dict(sys.modules, termios=None),
        ):
            for tls in self.ways:
                server = self.serve(keep=False, receive_buffer=ROOM, tls=tls)
                with broken:
                    self.upload(server, bytes(8 * MIB))
                self.assertTrue(server.received[0].complete)


# ---- Progress


class Progress(UploadCase):
    def record(self, server, content, **options):
        seen = []
        self.upload(server, content, progress=lambda *now: seen.append(now), **options)
        return seen

    def test_it_rises_to_the_total_and_both_count_bytes_on_the_wire(self):
        data = bytes(4 * MIB)
        for name in ("bytes", "BytesIO", "a path", "a file", "mmap"):
            for twin in BOTH_TWINS:
                with self.subTest(source=name, twin=twin):
                    server = self.serve()
                    seen = self.record(server, REWINDABLE[name](self, data), twin=twin)
                    total = server.received[0].wire_size
                    self.assertEqual({now[1] for now in seen}, {total})
                    sent = [now[0] for now in seen]
                    self.assertEqual(sent, sorted(sent))
                    self.assertEqual(sent[-1], total)
                    self.assertEqual(sent.count(total), 1)
                    self.assertGreater(len(sent), 2)

    def test_a_call_made_within_it_that_fails_ends_the_upload(self):
        nobody, closed = (
            self.enterContext(SDK("key", server_url="http://127.0.0.1:1", retry_config=None)) for _ in range(2)
        )
        closed.close()
        for sdk, kind in ((nobody, errors.ConnectError), (closed, errors.ClosedError)):
            told = []

            def progress(sent, total):
                told.append(sent)
                if sent:
                    sdk.cache.cache_get(key="k")

            with self.assertRaises(kind) as caught:
                self.upload(self.serve(), b"x", retries=QUICK, progress=progress)
            self.assertEqual((len(told), caught.exception.maybe_processed), (2, True))

    def test_a_request_made_within_it_by_a_client_that_fails_repeats_nothing(self):
        with HttpClient() as other:

            def progress(sent, total):
                if sent == total:
                    other.send(other.build_request("POST", "http://127.0.0.1:1", content=b"x"))

            server = self.serve()
            with self.assertRaises(errors.ConnectError) as caught:
                self.upload(server, b"x", progress=progress)
        self.assertEqual((caught.exception.attempts, caught.exception.maybe_processed), (1, True))

    def test_small_and_empty_uploads_end_at_their_total_too(self):
        for content in (b"", b"x"):
            server = self.serve()
            seen = self.record(server, content)
            self.assertEqual(seen[-1], (server.received[0].wire_size,) * 2)

    def test_without_a_known_length_the_total_is_none(self):
        for name, make in ONE_WAY.items():
            with self.subTest(source=name):
                server = self.serve()
                seen = self.record(server, make(self, DATA))
                self.assertEqual({now[1] for now in seen}, {None})
                sent = [now[0] for now in seen]
                self.assertEqual(sent, sorted(sent))
                self.assertIn(sent[-1], (server.received[0].body_size, server.received[0].wire_size))

    def test_it_starts_again_at_0_on_a_retry(self):
        server = self.serve(answer(503))
        seen = self.record(server, DATA, retries=QUICK)
        total = server.received[0].wire_size
        sent = [now[0] for now in seen]
        again = sent.index(0, sent.index(total))
        for attempt in (sent[:again], sent[again:]):
            self.assertEqual(attempt, sorted(attempt))
            self.assertEqual(attempt[-1], total)

    def test_the_total_is_not_told_before_all_is_sent(self):
        server = self.serve(lambda connection, received: server.released.wait(PATIENCE_SECONDS), receive_buffer=65536)
        seen = []
        with self.assertRaises(errors.TimeoutException):
            self.upload(server, SeekableBlock(BIG), timeout_ms=150, progress=lambda *now: seen.append(now))
        self.assertLess(seen[-1][0], seen[-1][1])

    def test_an_exception_in_it_aborts_the_upload_and_nothing_else(self):
        class ConnectTimeout(OSError):
            """As other libraries name theirs."""

        for boom in (
            RuntimeError("enough"),
            ConnectionResetError("not the network's"),
            ConnectTimeout("another server's"),
        ):
            for twin in BOTH_TWINS:
                with self.subTest(boom=boom, twin=twin):
                    server = self.serve()
                    sdk = self.sdk(server, retry_config=QUICK)

                    def progress(sent, total):
                        if sent:
                            raise boom

                    with self.assertRaises(Exception) as caught:
                        self.upload(server, bytes(BIG), twin=twin, sdk=sdk, progress=progress)
                    self.assertIn(boom, (caught.exception, caught.exception.__cause__))
                    self.assertEqual([received.complete for received in server.finished()], [False])
                    self.upload(server, b"next", sdk=sdk)
                    self.assertEqual(server.received[-1].file, b"next")


# ---- By way of a client of one's own


class HandedOn(UploadCase):
    """A client that hands on to ours is as good as ours."""

    def wrapped(self, server, **options):
        class Wrapper:
            def __init__(self, client):
                self.build_request, self.send, self.close = client.build_request, client.send, client.close
                self.aclose = getattr(client, "aclose", None)

        client, async_client = self.enterContext(HttpClient()), AsyncHttpClient()
        self.addCleanup(async_client.close)
        return self.sdk(server, client=Wrapper(client), async_client=Wrapper(async_client), **options)

    def test_every_source_arrives_whole_also_the_second_time(self):
        for name, make in REWINDABLE.items():
            for twin in BOTH_TWINS:
                with self.subTest(source=name, twin=twin):
                    server = self.serve(answer(503), answer(307, "Location: /v1/storage/upload"))
                    self.upload(server, make(self, DATA), twin=twin, sdk=self.wrapped(server, retry_config=QUICK))
                    self.assertEqual([received.file == DATA for received in server.received], [True] * 3)
                    self.assertEqual({received.chunked for received in server.received}, {False})

    def test_an_exception_in_progress_is_itself(self):
        def progress(sent, total):
            raise KeyError("mine")

        for twin in BOTH_TWINS:
            server = self.serve()
            with self.assertRaises(KeyError):
                self.upload(server, DATA, twin=twin, sdk=self.wrapped(server), progress=progress)


# ---- Memory and the event loop


class Frugal(UploadCase):
    SIZE = 16 * MIB

    def growth(self, server, content, twin):
        """The most memory that an upload held at once, beyond what was there before it."""
        sdk = self.sdk(server)
        self.upload(server, b"warm", sdk=sdk, twin=twin)
        tracemalloc.start()
        try:
            self.upload(server, content, twin=twin, sdk=sdk, progress=lambda sent, total: None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_an_upload_of_16_mib_holds_less_than_2_mib(self):
        path = os.path.join(self.folder, "big")
        with open(path, "wb") as file:
            file.truncate(self.SIZE)
        for name, make in {
            "a reader": lambda: Block(self.SIZE),
            "a seekable reader": lambda: SeekableBlock(self.SIZE),
            "a generator": lambda: blocks(self.SIZE),
            "a path": lambda: pathlib.Path(path),
            "bytes": lambda: bytes(self.SIZE),
            "one large piece": lambda: iter([bytes(self.SIZE)]),
        }.items():
            for twin in BOTH_TWINS:
                with self.subTest(source=name, twin=twin):
                    server = self.serve(keep=False)
                    self.assertLess(self.growth(server, make(), twin), 2 * MIB)
                    self.assertGreater(server.received[-1].body_size, self.SIZE)


class EventLoop(UploadCase):
    def test_a_slow_reader_does_not_hold_the_loop(self):
        """The loop itself lets the reader go on: a loop that waits for the reader shows as a gap of a second.

        The best of some tries counts, for on a busy machine others may take the processor for longer than 50 ms.
        """
        go_on = threading.Event()

        class Slow(Block):
            waits = []

            def read(self, size=-1):
                self.waits.append(go_on.wait(1))
                go_on.clear()
                return super().read(size)

        async def main():
            loop = asyncio.get_event_loop()
            ticks = []

            def tick():
                ticks.append(loop.time())
                if len(ticks) % 5 == 0:
                    go_on.set()
                ticker[0] = loop.call_later(0.002, tick)

            ticker = [loop.call_soon(tick)]
            await sdk.storage.storage_upload_async(key="k", file={"file_name": "f", "content": Slow(10 * 64 * 1024)})
            ticker[0].cancel()
            return max(after - before for before, after in zip(ticks, ticks[1:]))

        server = self.serve()
        sdk = self.sdk(server)
        longest = 1
        for _ in range(10):
            longest = min(longest, asyncio.run(main()))
            if longest < 0.05:
                break
        self.assertEqual(set(Slow.waits), {True})
        self.assertLess(longest, 0.05)
        self.assertEqual(len(server.received[0].file), 10 * 64 * 1024)

    def test_the_source_is_touched_only_off_the_loop(self):
        server = self.serve(answer(503))
        self.check_touched(lambda source: self.upload(server, source, twin="storage_upload_async", retries=QUICK))
        self.assertTrue(server.received[1].file == DATA)

    def test_the_source_is_touched_only_off_the_loop_with_a_foreign_client_too(self):
        sdk = self.enterContext(SDK("key", server_url="http://127.0.0.1:1/v1", async_client=ForeignAsyncClient()))
        self.check_touched(
            lambda source: self.upload(None, source, twin="storage_upload_async", sdk=sdk, retries=QUICK)
        )

    def check_touched(self, upload):
        touched = set()

        class Watched(io.BytesIO):
            def read(self, *arguments):
                touched.add(threading.get_ident())
                return super().read(*arguments)

            def readinto(self, buffer):
                touched.add(threading.get_ident())
                return super().readinto(buffer)

            def seek(self, *arguments):
                touched.add(threading.get_ident())
                return super().seek(*arguments)

        upload(Watched(DATA))
        self.assertTrue(touched)
        self.assertNotIn(threading.get_ident(), touched)

    def test_a_reader_that_hangs_does_not_keep_a_cancelled_call(self):
        started, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        class Hangs(Block):
            def read(self, size=-1):
                started.set()
                go_on.wait(PATIENCE_SECONDS)
                return b""

        async def main():
            loop = asyncio.get_event_loop()
            call = asyncio.ensure_future(
                as_coroutine(sdk.storage.storage_upload_async(key="k", file={"file_name": "f", "content": Hangs(1)}))
            )
            while not (started.is_set() or call.done()):
                await asyncio.sleep(0)
            before = loop.time()
            call.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await call
            return loop.time() - before

        server = self.serve()
        sdk = self.sdk(server)
        try:
            self.assertLess(asyncio.run(main()), 0.5)
        finally:
            go_on.set()


if __name__ == "__main__":
    unittest.main()
