"""Uploads: the exact bytes, every kind of source, and what happens when one of the two ends fails."""

import array
import asyncio
import bz2
import gzip
import io
import lzma
import mimetypes
import mmap
import os
import pathlib
import random
import re
import socket
import ssl
import tarfile
import tempfile
import threading
import time
import tracemalloc
import unittest
import zipfile

from aerostack_lite import SDK, AsyncHttpClient, HttpClient, errors, models, utils

try:
    import trustme
except ImportError:
    trustme = None

MIB = 1024 * 1024
PATIENCE_SECONDS = 20  # only ever waited for in full by a test that is about to fail
DATA = bytes(range(256)) * 1200 + b"\r\n--\r\nthe end!.."  # a multiple of four bytes, for the views of numbers
QUICK = utils.RetryConfig("backoff", utils.BackoffStrategy(1, 2, 1.0, 10000), True)


def answer(status, *headers, body=b'{"url":"u"}'):
    lines = ["HTTP/1.1 %d Whatever" % status, "Content-Type: application/json", "Content-Length: %d" % len(body)]
    return "\r\n".join(lines + list(headers)).encode() + b"\r\n\r\n" + body


class Received:
    """One request as it came over the wire."""

    def __init__(self, head):
        request_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.path, _ = request_line.split(" ")
        self.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.body = bytearray()
        self.body_size = 0
        self.wire_size = 0  # with the chunk sizes, where there are any
        self.complete = False

    def header(self, name):
        values = [value for other, value in self.headers if other == name]
        if len(values) > 1:
            raise AssertionError("%d headers %s" % (len(values), name))
        return values[0] if values else None

    @property
    def chunked(self):
        return self.header("transfer-encoding") == "chunked"

    @property
    def boundary(self):
        return re.fullmatch("multipart/form-data; boundary=([0-9A-Za-z]{20,70})", self.header("content-type")).group(1)

    @property
    def parts(self):
        """[(head, content), ...], strictly: nothing before the first boundary, nothing after the last."""
        first, between, last = (b % self.boundary.encode() for b in (b"--%s\r\n", b"\r\n--%s\r\n", b"\r\n--%s--\r\n"))
        body = bytes(self.body)
        if not (body.startswith(first) and body.endswith(last)):
            raise AssertionError("not a multipart body: %r ... %r" % (body[:200], body[-100:]))
        return [tuple(part.split(b"\r\n\r\n", 1)) for part in body[len(first):-len(last)].split(between)]

    @property
    def file(self):
        """The content of the part named file."""
        return self.parts[-1][1]

    @property
    def file_head(self):
        return self.parts[-1][0]


class Server:
    """A loopback server that records what it reads, and answers each request with the next of `answers`, then 200.

    An answer is bytes, sent when the whole body has come, or a function of (socket, received) called right after the
    head; the connection closes when it returns."""

    def __init__(self, *answers, keep=True, tls=None, receive_buffer=None):
        self.answers, self.keep, self.tls = list(answers), keep, tls
        self.received, self.connections, self.threads = [], [], []
        self.released = threading.Event()  # for functions that hold a connection until the test is over
        self.probe, self.probed = None, threading.Event()
        self.listener = socket.socket()
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(50)
        self.url = "%s://127.0.0.1:%d/v1" % ("https" if tls else "http", self.listener.getsockname()[1])

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self.released.set()
        self._close(self.listener)
        for connection in self.connections:
            self._close(connection)
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)

    def finished(self):
        """What came, once every connection so far has ended: for requests that are cut short."""
        with socket.socket() as probe:  # connections are accepted in order: once this one is, all before it were
            probe.bind(("127.0.0.1", 0))
            self.probe = probe.getsockname()
            probe.connect(self.listener.getsockname())
            self.probed.wait(PATIENCE_SECONDS)
        self.probed.clear()
        for thread in self.threads[1:]:
            thread.join(PATIENCE_SECONDS)
        return self.received

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self.threads.append(thread)

    @staticmethod
    def _close(sock):
        try:
            sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
        except OSError:
            pass
        sock.close()

    def _accept(self):
        while True:
            try:
                connection, address = self.listener.accept()
            except OSError:
                return
            if address == self.probe:
                connection.close()
                self.probed.set()
                continue
            self.connections.append(connection)
            self._start(self._converse, connection)

    def _converse(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self.connections.append(connection)
            with connection.makefile("rb", 65536) as stream:
                while self._exchange(connection, stream):
                    pass
        except (OSError, ValueError):
            pass  # the other end hung up, or the test is over
        finally:
            self._close(connection)

    def _exchange(self, connection, stream):
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return False
            head += line
        received = Received(bytes(head))
        self.received.append(received)
        reply = self.answers.pop(0) if self.answers else answer(200)
        if callable(reply):
            reply(connection, received)
            return False
        if not self._read_body(stream, received):
            return False
        received.complete = True
        connection.sendall(reply)
        return b"close" not in reply

    def _read_body(self, stream, received):
        if not received.chunked:
            return self._read(stream, received, int(received.header("content-length") or 0))
        while True:
            line = stream.readline()
            if not line.endswith(b"\r\n"):
                return False
            size = int(line, 16)
            received.wire_size += len(line) + 2
            if not size:
                return stream.readline() == b"\r\n"
            if not self._read(stream, received, size) or stream.read(2) != b"\r\n":
                return False

    def _read(self, stream, received, size):
        while size:
            block = stream.read(min(size, 65536))
            if not block:
                return False
            size -= len(block)
            received.body_size += len(block)
            received.wire_size += len(block)
            if self.keep:
                received.body += block
        return True


class UploadCase(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def enterContext(self, manager):  # unittest has it from 3.11 on
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def serve(self, *answers, **options):
        return self.enterContext(Server(*answers, **options))

    def sdk(self, server, **options):
        return self.enterContext(SDK("key", server_url=server.url, **options))

    def path(self, data=DATA, name="file.bin"):
        path = pathlib.Path(self.folder, name)
        path.write_bytes(data)
        return path

    def open(self, *arguments, **options):
        return self.enterContext(open(*arguments, **options))

    def upload(self, server, content, file_name="file.bin", content_type=None, twin="storage_upload", sdk=None, **options):
        """Uploads one file, by the method or by its _async twin, and gives back the model."""
        file = {"file_name": file_name, "content": content}
        if content_type is not None:
            file["content_type"] = content_type
        call = getattr((sdk or self.sdk(server)).storage, twin)
        return finish(twin, call({"key": "k", "file": file}, **options))


def finish(twin, result):
    return asyncio.run(as_coroutine(result)) if twin.endswith("_async") else result


async def as_coroutine(awaitable):
    return await awaitable


BOTH_TWINS = ("storage_upload", "storage_upload_async")


# ---- The bytes

FILE_NAMES = [  # given, and as it must stand between the quotes
    ("plain.txt", b"plain.txt"),
    ("two words.txt", b"two words.txt"),
    (" ", b" "),
    ('say "hi".txt', b"say %22hi%22.txt"),
    ("back\\slash", b"back\\\\slash"),
    ('\\"', b"\\\\%22"),
    ("cr\rlf\nnul\0tab\t", b"cr%0Dlf%0Anul%00tab%09"),
    ("".join(map(chr, range(32))).replace("\x1b", ""),
     b"".join(b"%%%02X" % code for code in range(32) if code != 0x1B)),
    ("escape\x1bdelete\x7f", b"escape\x1bdelete\x7f"),
    ("100%25;name=x.txt", b"100%25;name=x.txt"),
    ("a/b\u2215../c.txt", b"a/b\xe2\x88\x95../c.txt"),
    ("caf\u00e9\u0085.txt", b"caf\xc3\xa9\xc2\x85.txt"),
    ("\U0001f600.txt", b"\xf0\x9f\x98\x80.txt"),
    ("\u202eabc\u05d0\u05d1.txt", b"\xe2\x80\xaeabc\xd7\x90\xd7\x91.txt"),
]


class ExactBytes(UploadCase):
    def test_the_body_is_these_bytes(self):
        server = self.serve()
        request = {"key": "a/b.txt", "content_type": "text/x-note",
                   "file": {"file_name": "b.txt", "content": b"hello", "content_type": "text/plain; charset=utf-8"}}
        for twin in BOTH_TWINS:
            self.assertEqual(finish(twin, getattr(self.sdk(server).storage, twin)(request)).url, "u")
            received = server.received[-1]
            self.assertEqual((received.method, received.path), ("POST", "/v1/storage/upload"))
            self.assertEqual(received.header("x-aerostack-key"), "key")
            expected = (b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\na/b.txt\r\n'
                        b'--B\r\nContent-Disposition: form-data; name="contentType"\r\n\r\ntext/x-note\r\n'
                        b'--B\r\nContent-Disposition: form-data; name="file"; filename="b.txt"\r\n'
                        b'Content-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n--B--\r\n')
            self.assertEqual(bytes(received.body), expected.replace(b"B", received.boundary.encode()))
            self.assertEqual(received.header("content-length"), str(len(received.body)))

    def test_content_type_is_a_field_only_when_it_was_given(self):
        server = self.serve()
        self.upload(server, b"x")
        self.assertEqual([head for head, _ in server.received[0].parts],
                         [b'Content-Disposition: form-data; name="key"',
                          b'Content-Disposition: form-data; name="file"; filename="file.bin"\r\n'
                          b'Content-Type: application/octet-stream'])

    def test_file_names_are_escaped_as_the_official_sdk_escapes_them(self):
        server = self.serve()
        sdk = self.sdk(server)
        for name, escaped in FILE_NAMES:
            with self.subTest(name=name):
                self.upload(server, b"x", file_name=name, content_type="a/b", sdk=sdk)
                self.assertEqual(server.received[-1].file_head,
                                 b'Content-Disposition: form-data; name="file"; filename="' + escaped
                                 + b'"\r\nContent-Type: a/b')

    def test_keys_go_out_untouched(self):
        server = self.serve()
        sdk = self.sdk(server)
        for key in ("", " ", 'a"b\\c', "line\r\nline", "50%;x", "\u00e9\U0001f600\u202e", "../../etc"):
            with self.subTest(key=key):
                sdk.storage.storage_upload(key=key, file={"fileName": "f", "content": b"x"})
                self.assertEqual(server.received[-1].parts[0],
                                 (b'Content-Disposition: form-data; name="key"', key.encode()))

    def test_the_type_is_the_given_one_else_guessed_from_the_name_else_octet_stream(self):
        server = self.serve()
        sdk = self.sdk(server)
        guessed = mimetypes.guess_type("UP.JPG")[0]
        self.assertEqual(guessed, "image/jpeg")
        for name, given, expected in [("a.txt", None, "text/plain"), ("UP.JPG", None, guessed), ("a/b.pdf", None, "application/pdf"),
                                      ("noext", None, "application/octet-stream"), ("a.txt", "x/y", "x/y"),
                                      ("a.txt", "", ""), ("a.txt", 'a/b; name="\u00e9;\\"', 'a/b; name="\u00e9;\\"')]:
            with self.subTest(name=name, given=given):
                self.upload(server, b"x", file_name=name, content_type=given, sdk=sdk)
                head = server.received[-1].file_head.decode()
                self.assertEqual(head.partition("\r\nContent-Type:")[2].strip(), expected)

    def test_the_request_s_own_content_type_is_not_the_file_s(self):
        server = self.serve()
        self.sdk(server).storage.storage_upload(key="k", content_type="image/png", file={"file_name": "a.txt", "content": b"x"})
        self.assertEqual(server.received[0].parts[1], (b'Content-Disposition: form-data; name="contentType"', b"image/png"))
        self.assertIn(b"Content-Type: text/plain", server.received[0].file_head)

    def test_every_request_has_a_boundary_of_its_own_that_no_seed_foretells(self):
        server = self.serve()
        sdk = self.sdk(server)
        for _ in range(5):
            random.seed(1)
            self.upload(server, b"x", sdk=sdk)
        self.assertEqual(len({received.boundary for received in server.received}), 5)

    def test_content_that_looks_like_a_boundary_arrives_whole(self):
        server = self.serve()
        content = b'--\r\n----\r\n\r\n--' + b"0" * 32 + b'\r\nContent-Disposition: form-data; name="key"\r\n\r\nother\r\n--'
        self.upload(server, content)
        self.assertEqual(server.received[0].file, content)


# ---- Where the content comes from

class OnlyRead:
    """The least that counts as a file, and it gives what it likes, never what was asked for."""

    def __init__(self, data):
        self.stream, self.turn = io.BytesIO(data), 0

    def read(self, size=-1):
        self.turn += 1
        return self.stream.read(min(size, 1 + self.turn * 1777 % 50000) if size and size > 0 else size)


class Upper:
    """A file that changes what it reads, and still tells the descriptor below."""

    def __init__(self, file):
        self.file = file

    def read(self, size=-1):
        return self.file.read(size).upper()

    def __getattr__(self, name):
        return getattr(self.file, name)


class Unseekable(OnlyRead):
    def __init__(self, data, error):
        super().__init__(data)
        self.error = error

    def seekable(self):
        return False

    def seek(self, offset, whence=0):
        if self.error:
            raise self.error
        return 0

    def tell(self):
        return self.seek(0)


class Fspath:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


class Pieces:
    """An iterable of bytes that may be walked again, with empty pieces, which would end a chunked body."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        middle = len(self.data) // 3
        return iter([b"", self.data[:middle], b"", bytearray(self.data[middle:middle * 2]), b"", memoryview(self.data)[middle * 2:], b""])


def in_a_pipe(case, data, buffering=-1):
    reading, writing = os.pipe()
    sink = case.enterContext(os.fdopen(writing, "wb"))
    return feed(case, sink, data, case.enterContext(os.fdopen(reading, "rb", buffering)))


def on_a_socket(case, data):
    near, far = (case.enterContext(end) for end in socket.socketpair())
    source, sink = case.enterContext(near.makefile("rb")), case.enterContext(far.makefile("wb"))
    far.close()
    return feed(case, sink, data, source)


def feed(case, sink, data, source):
    def write():
        try:
            sink.write(data)
            sink.close()
        except OSError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    case.addCleanup(thread.join, PATIENCE_SECONDS)
    return source


def moved(file, position=5):
    file.seek(position)
    return file


def filled(file, data):
    file.write(data)
    return file


def in_a_zip_archive(case, data):
    path = os.path.join(case.folder, "archive.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", data)
    return case.enterContext(case.enterContext(zipfile.ZipFile(path)).open("inner"))


def in_a_tar_archive(case, data):
    path = os.path.join(case.folder, "archive.tar")
    with tarfile.open(path, "w") as archive:
        archive.add(str(case.path(data)), "inner")
    return case.enterContext(case.enterContext(tarfile.open(path)).extractfile("inner"))


def compressed(case, data, coding):
    path = os.path.join(case.folder, "compressed")
    with coding.open(path, "wb") as file:
        file.write(data)
    return case.enterContext(coding.open(path, "rb"))


def mapped(case, data):
    with open(str(case.path(data)), "r+b") as file:
        return moved(case.enterContext(mmap.mmap(file.fileno(), 0)))


REWINDABLE = {  # the length is known before the first byte
    "bytes": lambda case, data: data,
    "bytearray": lambda case, data: bytearray(data),
    "memoryview": lambda case, data: memoryview(data),
    "a slice of a memoryview": lambda case, data: memoryview(b"123" + data + b"456")[3:-3],
    "every second byte of a memoryview": lambda case, data: memoryview(bytes(b for byte in data for b in (byte, 0)))[::2],
    "a memoryview of numbers": lambda case, data: memoryview(data).cast("I"),
    "an array of numbers": lambda case, data: array.array("I", data),
    "BytesIO": lambda case, data: moved(io.BytesIO(data)),
    "a path": lambda case, data: case.path(data),
    "an os.PathLike": lambda case, data: Fspath(case.path(data)),
    "a file": lambda case, data: moved(case.open(str(case.path(data)), "rb")),
    "a file at its end": lambda case, data: moved(case.open(str(case.path(data)), "rb"), len(data)),
    "an unbuffered file": lambda case, data: moved(case.open(str(case.path(data)), "rb", buffering=0)),
    "a file for reading and writing": lambda case, data: moved(case.open(str(case.path(data)), "r+b")),
    "TemporaryFile, just written": lambda case, data: filled(case.enterContext(tempfile.TemporaryFile()), data),
    "NamedTemporaryFile": lambda case, data: filled(case.enterContext(tempfile.NamedTemporaryFile(dir=case.folder)), data),
    "SpooledTemporaryFile in memory": lambda case, data: filled(case.enterContext(tempfile.SpooledTemporaryFile(16 * MIB)), data),
    "SpooledTemporaryFile on disk": lambda case, data: filled(case.enterContext(tempfile.SpooledTemporaryFile(10)), data),
    "mmap": mapped,
}
EITHER = {  # whether the length is worth finding out is free
    "gzip file": lambda case, data: compressed(case, data, gzip),
    "bz2 file": lambda case, data: compressed(case, data, bz2),
    "lzma file": lambda case, data: compressed(case, data, lzma),
    "file in a zip archive": in_a_zip_archive,
    "file in a tar archive": in_a_tar_archive,
    "a list": lambda case, data: [data[:9], b"", data[9:]],
    "an iterable": lambda case, data: Pieces(data),
}
ONE_WAY = {
    "a pipe": in_a_pipe,
    "an unbuffered pipe": lambda case, data: in_a_pipe(case, data, buffering=0),
    "socket.makefile": on_a_socket,
    "a generator": lambda case, data: (piece for piece in Pieces(data)),
    "an iterator": lambda case, data: iter(Pieces(data)),
    "map": lambda case, data: map(bytes, Pieces(data)),
    "only read()": lambda case, data: OnlyRead(data),
}


class Sources(UploadCase):
    def check(self, sources, chunked):
        server = self.serve()
        sdk = self.sdk(server)
        for name, make in sources.items():
            for data in (DATA, b""):
                if name == "mmap" and not data:
                    continue  # the system maps no empty file
                for twin in BOTH_TWINS:
                    with self.subTest(source=name, size=len(data), twin=twin):
                        self.upload(server, make(self, data), twin=twin, sdk=sdk, retries=None)
                        received = server.received[-1]
                        self.assertTrue(received.file == data, "%d bytes arrived of %d" % (len(received.file), len(data)))
                        if chunked is not None:
                            self.assertEqual(received.header("transfer-encoding"), "chunked" if chunked else None)
                        if not received.chunked:
                            self.assertEqual(received.header("content-length"), str(len(received.body)))
                        else:
                            self.assertIsNone(received.header("content-length"))

    def test_a_source_of_known_length_goes_out_whole_with_a_content_length(self):
        self.check(REWINDABLE, chunked=False)

    def test_a_source_of_unknown_length_goes_out_in_chunks(self):
        self.check(ONE_WAY, chunked=True)

    def test_sources_that_may_be_sent_either_way_arrive_whole(self):
        self.check(EITHER, chunked=None)

    def test_a_file_that_changes_what_it_reads_is_read_and_not_copied_past_its_read(self):
        server = self.serve()
        self.upload(server, Upper(self.open(str(self.path(b"shout" * 1000)), "rb")))
        self.assertEqual(server.received[0].file, b"SHOUT" * 1000)

    def test_an_open_file_is_left_open(self):
        server = self.serve()
        for name in ("BytesIO", "a file", "an unbuffered file", "TemporaryFile, just written", "SpooledTemporaryFile on disk"):
            with self.subTest(source=name):
                source = REWINDABLE[name](self, DATA)
                self.upload(server, source)
                source.seek(0)
                self.assertEqual(source.read(3), DATA[:3])

    def test_a_reader_may_say_in_any_way_that_it_cannot_seek(self):
        server = self.serve()
        sdk = self.sdk(server)
        for error in (io.UnsupportedOperation("seek"), NotImplementedError(), AttributeError("seek")):
            for twin in BOTH_TWINS:
                with self.subTest(error=error, twin=twin):
                    self.upload(server, Unseekable(DATA, error), twin=twin, sdk=sdk)
                    self.assertTrue(server.received[-1].file == DATA)
        self.upload(server, Unseekable(DATA, None), sdk=sdk)  # its seek() does nothing, as its seekable() tells
        self.assertTrue(server.received[-1].file == DATA)

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no named pipes")
    def test_a_named_pipe_is_opened_once_and_off_the_event_loop(self):
        """Closing it would send the writer away, and to open it waits for a writer."""
        for twin in BOTH_TWINS:
            with self.subTest(twin=twin):
                server = self.serve()
                path = os.path.join(self.folder, twin)
                os.mkfifo(path)
                failures = []

                def write():
                    try:
                        with open(path, "wb", buffering=0) as sink:
                            sink.write(DATA)
                    except OSError as error:
                        failures.append(error)

                def rescue():  # an upload that waits for another writer
                    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
                    with open(path, "wb", buffering=0):
                        pass

                writer = threading.Thread(target=write, daemon=True)
                writer.start()
                timer = threading.Timer(3, rescue)
                timer.start()
                try:
                    self.upload(server, pathlib.Path(path), twin=twin, retries=None)
                finally:
                    timer.cancel()
                    writer.join(PATIENCE_SECONDS)
                self.assertEqual(failures, [])
                self.assertTrue(server.received[0].file == DATA)

    @unittest.skipUnless(os.path.isdir("/dev/fd"), "no /dev/fd")
    def test_a_path_that_is_a_pipe_goes_out_in_chunks(self):
        server = self.serve()
        self.upload(server, pathlib.Path("/dev/fd/%d" % in_a_pipe(self, DATA).fileno()))
        self.assertTrue(server.received[0].chunked)
        self.assertTrue(server.received[0].file == DATA)

    @unittest.skipUnless(os.path.exists("/proc/self/cmdline"), "no /proc")
    def test_a_file_whose_size_the_system_gives_as_0_is_not_uploaded_empty(self):
        expected = pathlib.Path("/proc/self/cmdline").read_bytes()
        for source in (pathlib.Path("/proc/self/cmdline"), self.open("/proc/self/cmdline", "rb")):
            with self.subTest(source=type(source).__name__):
                server = self.serve()
                self.upload(server, source)
                self.assertEqual(server.received[0].file, expected)


class Short(UploadCase):
    """The file as the official dict or model, or only its path or bytes."""

    def check(self, file, name, content_type, key="folder/photo.jpg"):
        server = self.serve()
        storage = self.sdk(server).storage
        calls = [lambda: storage.storage_upload(key=key, file=file),
                 lambda: storage.storage_upload({"key": key, "file": file}),
                 lambda: storage.storage_upload(request={"key": key, "file": file}),
                 lambda: storage.storage_upload(models.StorageUploadRequestBody(key=key, file=file)),
                 lambda: asyncio.run(as_coroutine(storage.storage_upload_async(key=key, file=file)))]
        for number, call in enumerate(calls):
            with self.subTest(file=repr(file)[:60], call=number):
                self.assertEqual(call().url, "u")
                self.assertEqual(server.received[-1].parts,
                                 [(b'Content-Disposition: form-data; name="key"', key.encode()),
                                  (('Content-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: %s'
                                    % (name, content_type)).encode(), DATA)])

    def test_the_official_dict_by_field_name_or_alias(self):
        self.check({"file_name": "a.txt", "content": DATA}, "a.txt", "text/plain")
        self.check({"fileName": "a.txt", "": DATA, "Content-Type": "x/y"}, "a.txt", "x/y")

    def test_the_official_model(self):
        self.check(models.File(content=DATA, file_name="a.txt"), "a.txt", "text/plain")
        self.check(models.File(content=self.path(), file_name="a", content_type="x/y"), "a", "x/y")

    def test_a_path_gives_the_name(self):
        self.check(self.path(name="b.png"), "b.png", "image/png")
        self.check(Fspath(self.path(name="c.pdf")), "c.pdf", "application/pdf")

    def test_bytes_take_their_name_from_the_key(self):
        for file in (DATA, bytearray(DATA), memoryview(DATA)):
            self.check(file, "photo.jpg", "image/jpeg")
        self.check(DATA, "plain", "application/octet-stream", key="plain")


class Refused(UploadCase):
    """Refused at the call line, in words that help, with nothing sent."""

    def refused(self, pattern, **call):
        server = self.serve()
        storage = self.sdk(server).storage
        for twin in BOTH_TWINS:
            with self.subTest(twin=twin, pattern=pattern):
                with self.assertRaises(errors.ValidationError) as caught:
                    finish(twin, getattr(storage, twin)(**call))
                self.assertRegex(str(caught.exception), pattern)
        self.assertEqual(server.connections, [])
        return caught.exception

    def refused_content(self, content, pattern):
        return self.refused(pattern, request={"key": "k", "file": {"file_name": "f.txt", "content": content}})

    def test_text_with_the_advice_to_pass_bytes_or_a_path(self):
        error = self.refused_content("photo.jpg", r"(?is)bytes.*path|path.*bytes")
        self.assertIn("file", error.errors()[0]["loc"])
        self.refused(r"(?is)bytes.*path|path.*bytes", key="k", file="photo.jpg")

    def test_text_files(self):
        self.refused_content(self.open(str(self.path(b"text")), encoding="utf-8"), r"(?i)binary|\brb\b")
        self.refused_content(io.StringIO("text"), r"(?i)binary|bytes")

    def test_closed_files(self):
        for name in ("a file", "BytesIO", "SpooledTemporaryFile in memory"):
            source = REWINDABLE[name](self, DATA)
            source.close()
            self.refused_content(source, r"(?i)closed")

    def test_files_open_for_writing_only(self):
        self.refused_content(self.open(os.path.join(self.folder, "new"), "wb"), r"(?i)read")

    def test_directories(self):
        self.refused_content(pathlib.Path(self.folder), r"(?i)director")
        self.refused(r"(?i)director", key="k", file=pathlib.Path(self.folder))

    def test_paths_that_do_not_exist(self):
        path = pathlib.Path(self.folder, "missing.txt")
        server = self.serve()
        for twin in BOTH_TWINS:
            with self.assertRaisesRegex((FileNotFoundError, errors.ValidationError), "missing.txt"):
                self.upload(server, path, twin=twin)
        self.assertEqual(server.connections, [])

    def test_what_is_no_content_at_all(self):
        for content in (None, 5, 1.5, object(), bytes):
            self.refused_content(content, r"content")
        for file in (None, 5, object()):
            self.refused(r"file", key="k", file=file)

    def test_control_characters_in_the_type(self):
        for character in "\r\n\0\x0b\x1b":
            self.refused(r"(?i)content.?type", key="k", file={"file_name": "f", "content": b"x", "content_type": "a/b%sX: y" % character})

    def test_a_model_that_was_changed_after_it_was_built(self):
        file = models.File(content=b"x", file_name="f")
        file.content_type = "a/b\r\nX-Injected: y"
        self.refused(r"(?i)content.?type", key="k", file=file)

    def test_paths_that_no_system_has(self):
        server = self.serve()
        with self.assertRaises(errors.ValidationError):
            self.upload(server, pathlib.Path("nul\0"))
        self.assertEqual(server.connections, [])

    def test_an_empty_name(self):
        self.refused(r"(?i)file.?name", key="k", file={"file_name": "", "content": b"x"})

    def test_lone_surrogates(self):
        for call in ({"key": "\ud800", "file": {"file_name": "f", "content": b"x"}},
                     {"key": "k", "file": {"file_name": "\ud800", "content": b"x"}},
                     {"key": "k", "content_type": "\ud800", "file": {"file_name": "f", "content": b"x"}},
                     {"key": "k", "file": {"file_name": "f", "content": b"x", "content_type": "a/\ud800"}}):
            self.refused(".", **call)

    def test_the_model_of_another_operation(self):
        self.refused(".", request=models.CacheSetRequestBody(key="k", value=1))

    def test_progress_that_cannot_be_called(self):
        server = self.serve()
        for progress in (5, "print", True):
            with self.assertRaises((TypeError, ValueError)):
                self.upload(server, b"x", progress=progress)
        self.assertEqual(server.connections, [])


# ---- More than one attempt

class Again(UploadCase):
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
                    self.assertEqual([received.file == DATA for received in server.finished() if received.complete], [True])

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
                sdk = self.enterContext(SDK("key", server_url="http://127.0.0.1:1/v1", client=client, retry_config=QUICK))
                self.assertEqual(self.upload(None, REWINDABLE[name](self, DATA), sdk=sdk).url, "u")
                client.check(self, DATA)

    def test_a_foreign_async_client_gets_an_async_body_for_every_attempt(self):
        for name in ("bytes", "a path", "BytesIO"):
            with self.subTest(source=name):
                client = ForeignAsyncClient()
                sdk = self.enterContext(SDK("key", server_url="http://127.0.0.1:1/v1", async_client=client, retry_config=QUICK))
                self.assertEqual(self.upload(None, REWINDABLE[name](self, DATA), sdk=sdk, twin="storage_upload_async").url, "u")
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
        case.assertTrue(first.endswith(b"\r\n\r\n%s\r\n--%s--\r\n" % (data, headers["content-type"].partition("=")[2].encode())))
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
        buffer[:len(piece)] = piece
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
        for boom in (OSError(5, "disk on fire"), ConnectionResetError("the source's"), BrokenPipeError("the source's"),
                     TimeoutError("the source's"), ValueError("bad block"), EOFError(), errors.ConnectError("another call's")):
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


# ---- A server that does not read to the end

class Block:
    """`size` bytes out of nothing: what is read is a slice of one block, so that the reader itself costs no memory."""

    BLOCK = bytes(64 * 1024)

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = min(self.left, len(self.BLOCK), size if size and size > 0 else self.left)
        self.left -= size
        return self.BLOCK if size == len(self.BLOCK) else self.BLOCK[:size]


class SeekableBlock(Block):
    def __init__(self, size):
        super().__init__(size)
        self.size = size

    def tell(self):
        return self.size - self.left

    def seek(self, offset, whence=0):
        self.left = self.size - (offset + (0, self.tell(), self.size)[whence])
        return self.tell()


def blocks(size):
    reader = Block(size)
    return iter(lambda: reader.read(65536), b"")


BIG = 24 * MIB  # more than the sockets' buffers swallow


class EarlyAnswers(UploadCase):
    def contents(self):
        path = os.path.join(self.folder, "big")
        with open(path, "wb") as file:
            file.truncate(BIG)
        return {"bytes": lambda: bytes(BIG), "a path": lambda: pathlib.Path(path), "a generator": lambda: blocks(BIG),
                "a reader": lambda: SeekableBlock(BIG)}

    def early(self, status, how):
        def reply(connection, received):
            if how == "late":  # by now the buffers are full, and the client waits to send
                self.server.released.wait(0.05)
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
        for status, how in ((413, "late"), (413, "and holds on"), (401, "and ends its half"), (413, "and closes"),
                            (413, "in pieces, and closes")):
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
        for name, make in self.contents().items():
            for twin in BOTH_TWINS:
                with self.subTest(source=name, twin=twin):
                    server = self.serve(lambda connection, received: server.released.wait(PATIENCE_SECONDS), receive_buffer=65536)
                    seen = []
                    started = time.monotonic()
                    with self.assertRaises(errors.TimeoutException) as caught:
                        self.upload(server, make(), twin=twin, timeout_ms=150, progress=lambda *now: seen.append(now))
                    self.assertLess(time.monotonic() - started, 2)
                    self.assertGreaterEqual(time.monotonic() - started, 0.14)
                    self.assertEqual((caught.exception.attempts, len(server.received)), (1, 1))
                    self.assertLess(seen[-1][0], BIG)


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
        for boom in (RuntimeError("enough"), ConnectionResetError("not the network's")):
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


# ---- Memory and the event loop

class Frugal(UploadCase):
    SIZE = 64 * MIB

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

    def test_an_upload_of_64_mib_holds_less_than_2_mib(self):
        path = os.path.join(self.folder, "big")
        with open(path, "wb") as file:
            file.truncate(self.SIZE)
        for name, make in {"a reader": lambda: Block(self.SIZE), "a seekable reader": lambda: SeekableBlock(self.SIZE),
                           "a generator": lambda: blocks(self.SIZE), "a path": lambda: pathlib.Path(path),
                           "bytes": lambda: bytes(self.SIZE), "one large piece": lambda: iter([bytes(self.SIZE)])}.items():
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
        self.check_touched(lambda source: self.upload(None, source, twin="storage_upload_async", sdk=sdk, retries=QUICK))

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
            call = asyncio.ensure_future(as_coroutine(
                sdk.storage.storage_upload_async(key="k", file={"file_name": "f", "content": Hangs(1)})))
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
