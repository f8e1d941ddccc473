"""A server on loopback that writes down every request and answers from a script."""

import json
import socket
import struct
import threading

REASONS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer:
    """One scripted answer; `raw` goes out as it stands, and the connection ends after it.

    `then` is what follows: keep the connection, close or reset it. wait answers nothing; early does not await the body.
    """

    def __init__(self, status=200, body=b"", content_type="application/json", headers=(), raw=None, then="keep"):
        self.then = then
        if raw is not None:
            self.wire, self.then = raw, "close"
            return
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        lines = ["HTTP/1.1 %d %s" % (status, REASONS.get(status, ""))]
        if content_type is not None:
            lines.append("Content-Type: " + content_type)
        lines += ["%s: %s" % pair for pair in headers]
        if status != 204:
            lines.append("Content-Length: %d" % len(body))
        self.wire = "\r\n".join(lines + ["", ""]).encode("latin-1") + body


CLOSED = Answer(raw=b"")
RESET = Answer(raw=b"")
RESET.then = "reset"
SILENCE = Answer(raw=b"")
SILENCE.then = "wait"


class Recorded:
    """A request as it arrived: header names in lower case, the body without its chunks."""

    def __init__(self, method, target, headers, body, framing, connection):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.framing, self.connection = framing, connection

    def values(self, name):
        return [value for key, value in self.headers if key == name]

    def parts(self):
        """The parts of a multipart body: [(headers, content)], header names in lower case."""
        boundary = self.values("content-type")[-1].partition("boundary=")[2].strip('"').encode("latin-1")
        pieces = (b"\r\n" + self.body).split(b"\r\n--" + boundary)
        if pieces[0] or pieces[-1].strip() != b"--":
            raise AssertionError("not well-formed multipart: %r ... %r" % (self.body[:100], self.body[-200:]))
        parts = []
        for piece in pieces[1:-1]:
            head, _, content = piece[2:].partition(b"\r\n\r\n")
            lines = [line.partition(b":") for line in head.split(b"\r\n")]
            parts.append(([(name.lower(), value.strip()) for name, _, value in lines], content))
        return parts

    def __repr__(self):
        return "<%s %s %r %r>" % (self.method, self.target, self.headers, self.body[:300])


class RecordingServer:
    """Listens at once, on a free port; speaks TLS when given a context."""

    def __init__(self, tls=None):
        self._tls = tls
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self.origin = "%s://127.0.0.1:%d" % ("https" if tls else "http", self.port)
        self._lock = threading.Lock()
        self._open, self._accepted = set(), 0
        self.play([Answer(200, {})])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def play(self, answers):
        """Forget what was recorded; answer from this script, its last answer for ever."""
        with self._lock:
            self._script, self.requests = list(answers), []

    def close(self):
        with self._lock:
            listener, self._listener = self._listener, None
            connections = list(self._open)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        listener = self._listener
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is None:
                    connection.close()
                    return
                self._open.add(connection)
                self._accepted += 1
                number = self._accepted
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, accepted, number):
        connection = accepted
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection.makefile("rb") as stream:
                while self._exchange(connection, stream, number):
                    pass
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(accepted)
            connection.close()
            accepted.close()

    def _exchange(self, connection, stream, number):
        head = self._read_head(stream)
        if head is None:
            return False
        with self._lock:
            script, requests = self._script, self.requests
            early = script[0].then == "early"
        if early:
            connection.sendall(script[0].wire)
        body, framing = self._read_body(stream, dict(head[2]))
        if body is None:
            return False
        with self._lock:
            requests.append(Recorded(*head, body, framing, number))
            answer = script.pop(0) if len(script) > 1 else script[0]
        if answer.then == "wait":
            stream.read(1)
        elif answer.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif not early:
            connection.sendall(answer.wire)
        return answer.then in ("keep", "early")

    @staticmethod
    def _read_head(stream):
        """Method, target and headers; None if the client left."""
        line = stream.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = []
        for field in iter(stream.readline, b"\r\n"):
            if not field:
                return None
            name, _, value = field.decode("latin-1").partition(":")
            headers.append((name.strip().lower(), value.strip()))
        return line[0], line[1], headers

    @staticmethod
    def _read_body(stream, headers):
        """The body and its framing; None for a body if the client left."""
        if "chunked" not in headers.get("transfer-encoding", ""):
            length = int(headers.get("content-length", 0))
            body = stream.read(length)
            return (body if len(body) == length else None), "length"
        blocks = []
        while True:
            size = int(stream.readline(), 16)
            blocks.append(stream.read(size))
            stream.readline()
            if not size:
                return b"".join(blocks), "chunked"
