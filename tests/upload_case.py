"""What the tests of uploads share: a server that remembers, a case, and content of any size."""

import asyncio
import pathlib
import re
import socket
import tempfile
import threading
import unittest

from aerostack_lite import SDK, utils

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
        return [tuple(part.split(b"\r\n\r\n", 1)) for part in body[len(first) : -len(last)].split(between)]

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
    head; the connection closes when it returns. `pause` is called before each block of a body is read."""

    def __init__(self, *answers, keep=True, tls=None, receive_buffer=None, pause=None):
        self.answers, self.keep, self.tls, self.pause = list(answers), keep, tls, pause
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
            if self.pause:
                self.pause(received)
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

    def upload(
        self, server, content, file_name="file.bin", content_type=None, twin="storage_upload", sdk=None, **options
    ):
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
