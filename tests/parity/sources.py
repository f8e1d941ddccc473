"""Odd things to upload."""

import io
import os


class _OneWay(io.RawIOBase):
    """A raw stream that cannot go back, and has no descriptor to ask for a size."""

    def __init__(self, data, on_read):
        self._rest, self._on_read = io.BytesIO(data), on_read

    def readable(self):
        return True

    def readinto(self, buffer):
        self._on_read()
        return self._rest.readinto(buffer)


class Reader:
    """An object with nothing but read()."""

    def __init__(self, data):
        self._rest = io.BytesIO(data)

    def read(self, size=-1):
        return self._rest.read(size)


class AwaitedReader:
    """An object whose read() is a coroutine function, such as FastAPI's UploadFile."""

    async def read(self, size=-1):
        return b""


def one_way(data, on_read=lambda: None):
    """A BufferedReader that can be read once, and says when it is read."""
    return io.BufferedReader(_OneWay(data, on_read))


def pipe(data):
    """The reading end of a pipe that holds these bytes."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return open(reading, "rb")
