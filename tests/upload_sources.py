"""Everything that an upload may be read from: source(case, data) for each, by how it may be read."""

import array
import asyncio
import bz2
import gzip
import io
import lzma
import mmap
import os
import socket
import tarfile
import tempfile
import threading
import zipfile

from tests.upload_case import MIB, PATIENCE_SECONDS


class OnlyRead:
    """The least that counts as a file, and it gives what it likes, never what was asked for."""

    def __init__(self, data):
        self.stream, self.turn = io.BytesIO(data), 0

    def read(self, size=-1):
        self.turn += 1
        return self.stream.read(min(size, 1 + self.turn * 1777 % 50000) if size and size > 0 else size)


class WithoutSize:
    """Its read() takes no size: it gives all that there is, and then nothing more."""

    def __init__(self, data):
        self.left = data

    def read(self):
        data, self.left = self.left, b""
        return data


class WithoutSizeButSeekable(WithoutSize):
    def __init__(self, data):
        super().__init__(data)
        self.data = data

    def seek(self, offset, whence=0):
        start = (offset, len(self.data) - len(self.left) + offset, len(self.data) + offset)[whence]
        self.left = self.data[start:]
        return start

    def tell(self):
        return len(self.data) - len(self.left)


class ByKeyword(OnlyRead):
    """Its read() takes a size by another name."""

    def read(self, *, amount=-1):
        return super().read(amount)


class Uploaded:
    """As FastAPI hands it to an endpoint: all of it is to be awaited, and the file itself lies in `file`."""

    def __init__(self, data):
        self.file, self.filename, self.content_type = io.BytesIO(data), "photo.jpg", "image/jpeg"

    async def read(self, size=-1):
        return self.file.read(size)

    async def seek(self, offset):
        self.file.seek(offset)

    async def close(self):
        self.file.close()


class Awaited:
    """A file that is read with await, as those of aiofiles and anyio."""

    name = "photo.jpg"

    async def read(self, size=-1):
        return b""


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
        return iter(
            [
                b"",
                self.data[:middle],
                b"",
                bytearray(self.data[middle : middle * 2]),
                b"",
                memoryview(self.data)[middle * 2 :],
                b"",
            ]
        )


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


def compressed(case, data, coding, **level):
    path = os.path.join(case.folder, "compressed")
    with coding.open(path, "wb", **level) as file:
        file.write(data)
    return case.enterContext(coding.open(path, "rb"))


def every_second_byte(case, data):
    doubled = bytearray(2 * len(data))
    doubled[::2] = data
    return memoryview(doubled)[::2]


def mapped(case, data):
    with open(str(case.path(data)), "r+b") as file:
        return moved(case.enterContext(mmap.mmap(file.fileno(), 0)))


REWINDABLE = {  # the length is known before the first byte
    "bytes": lambda case, data: data,
    "bytearray": lambda case, data: bytearray(data),
    "memoryview": lambda case, data: memoryview(data),
    "a slice of a memoryview": lambda case, data: memoryview(b"123" + data + b"456")[3:-3],
    "every second byte of a memoryview": every_second_byte,
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
    "NamedTemporaryFile": lambda case, data: filled(
        case.enterContext(tempfile.NamedTemporaryFile(dir=case.folder)), data
    ),
    "SpooledTemporaryFile in memory": lambda case, data: filled(
        case.enterContext(tempfile.SpooledTemporaryFile(16 * MIB)), data
    ),
    "SpooledTemporaryFile on disk": lambda case, data: filled(
        case.enterContext(tempfile.SpooledTemporaryFile(10)), data
    ),
    "mmap": mapped,
}
EITHER = {  # whether the length is worth finding out is free
    "gzip file": lambda case, data: compressed(case, data, gzip, compresslevel=1),
    "bz2 file": lambda case, data: compressed(case, data, bz2, compresslevel=1),
    "lzma file": lambda case, data: compressed(case, data, lzma, preset=0),
    "file in a zip archive": in_a_zip_archive,
    "file in a tar archive": in_a_tar_archive,
    "read() without a size, but seekable": lambda case, data: moved(WithoutSizeButSeekable(data)),
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
    "read() without a size": lambda case, data: WithoutSize(data),
    "read() with a size by keyword": lambda case, data: ByKeyword(data),
}
TO_BE_AWAITED = {  # which no worker can read
    "FastAPI's UploadFile": Uploaded,
    "a file of aiofiles": lambda data: Awaited(),
    "asyncio.StreamReader": lambda data: asyncio.StreamReader(loop=asyncio.new_event_loop()),
}
