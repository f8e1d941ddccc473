"""A server on loopback that plays a written script to each connection, faults and all.

    with ScriptedServer([expect, answer(b"{}"), reset]) as server:
        ... server.url, server.requests, server.connections ...

A script is a list of steps: bytes are sent as they stand, anything else is called with the Peer. The first
connection plays the first script, the second connection the second, and so on; the last one serves all that
come later. A script that ends closes its connection. Leaving the block releases whoever hangs, joins every
thread, and raises what a script raised.
"""

import gc
import itertools
import os
import re
import socket
import struct
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from aerostack_lite import HttpClient

PATIENCE_SECONDS = 10  # what a broken test waits for before it fails; no passing test waits as long


class Gone(Exception):
    """The client left the connection."""


class Peer:
    """One accepted connection as its script sees it."""

    def __init__(self, server, accepted):
        self.server = server
        self.socket = accepted
        self.received = bytearray()  # every byte that came, in order
        self.requests = []
        self.ended = threading.Event()  # the script is over and the connection closed
        self.silent = threading.Event()  # nothing more will come from the server
        self.left = threading.Event()  # the client left first
        self._taken = 0

    def read(self, size):
        while len(self.received) - self._taken < size:
            self._receive()
        return self._take(self._taken + size)

    def read_through(self, mark):
        while mark not in self.received[self._taken :]:
            self._receive()
        return self._take(self.received.index(mark, self._taken) + len(mark))

    def read_request(self):
        """One whole request, head and body, recorded and returned as it came."""
        request = self.read_through(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", request)
        if length:
            request += self.read(int(length.group(1)))
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", request):
            request += self.read_through(b"0\r\n\r\n")
        self.requests.append(request)
        self.server.record(request)
        return request

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            raise Gone() from None

    def _receive(self):
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.left.set()
            raise Gone()
        self.received += data

    def _take(self, end):
        taken = bytes(self.received[self._taken : end])
        self._taken = end
        return taken


class ScriptedServer:
    def __init__(self, *scripts, **options):
        """`tls`: a context to wrap accepted sockets with. `host`: another address to bind."""
        self._scripts = scripts or ([],)
        self._tls = options.pop("tls", None)
        self.host = options.pop("host", "127.0.0.1")
        if options:
            raise TypeError("unknown options: %s" % ", ".join(options))
        self.peers = []
        self.requests = []  # raw, in the order of their arrival, over all connections
        self.released = threading.Event()
        self._arrived = threading.Condition()
        self.threads = []
        self._failures = []
        self._listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        self._listener.bind((self.host, 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        netloc = "[%s]" % self.host if ":" in self.host else self.host
        self.netloc = "%s:%d" % (netloc, self.port)
        self.url = "%s://%s" % ("https" if self._tls else "http", self.netloc)

    @property
    def connections(self):
        return len(self.peers)

    def record(self, request):
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def wait_for_requests(self, count):
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, PATIENCE_SECONDS):
                raise AssertionError("%d of %d requests came" % (len(self.requests), count))

    def wait_for_connections(self, count):
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.peers) >= count, PATIENCE_SECONDS):
                raise AssertionError("%d of %d connections came" % (len(self.peers), count))

    def forget(self):
        """Drop the records of what is over, so that a long test measures the client and not this server."""
        with self._arrived:
            self.peers = [peer for peer in self.peers if not peer.ended.is_set()]
            self.requests.clear()
        self.threads = [thread for thread in self.threads if thread.is_alive()]

    def __enter__(self):
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, kind, error, traceback):
        self.released.set()
        self._wake()
        self._acceptor.join(PATIENCE_SECONDS)
        self._listener.close()
        for peer in self.peers:
            try:
                peer.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
        if error is None and any(thread.is_alive() for thread in self.threads):
            raise AssertionError("a script does not end")
        if error is None and self._failures:
            raise self._failures[0]

    def _wake(self):
        # Closing or shutting down a listener does not wake accept() everywhere; a connection does.
        with socket.socket(self._listener.family) as visitor:
            visitor.settimeout(PATIENCE_SECONDS)
            try:
                visitor.connect((self.host, self.port))
            except OSError:
                pass

    def _accept(self):
        scripts = itertools.chain(self._scripts, itertools.repeat(self._scripts[-1]))
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            if self.released.is_set():
                accepted.close()
                return
            # Without it a script's second send waits for the client's delayed acknowledgement of the first.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(self, accepted)
            thread = threading.Thread(target=self._play, args=(peer, next(scripts)), daemon=True)
            self.threads.append(thread)
            with self._arrived:
                self.peers.append(peer)
                self._arrived.notify_all()
            thread.start()

    def _play(self, peer, script):
        try:
            if self._tls:
                peer.socket = self._tls.wrap_socket(peer.socket, server_side=True)
            for step in script:
                if isinstance(step, bytes):
                    peer.send(step)
                else:
                    step(peer)
        except (Gone, OSError):
            pass
        except BaseException as error:  # a script's own mistake, for __exit__ to raise
            self._failures.append(error)
        finally:
            peer.socket.close()
            peer.silent.set()
            peer.ended.set()


class DeafAddress:
    """A listener whose queue is full: connecting to it gets no answer at all, as behind a firewall that drops."""

    def __enter__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.address = self._listener.getsockname()
        self.url = "http://%s:%d" % self.address
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            self._fillers.append(filler)
            filler.setblocking(False)
            filler.connect_ex(self.address)
        return self

    def __exit__(self, *_):
        for filler in self._fillers:
            filler.close()
        self._listener.close()


# Steps


def expect(peer):
    """Read one whole request."""
    peer.read_request()


def hang(peer):
    """Neither read nor send, until released."""
    peer.server.released.wait()


def until_gone(peer):
    """Read on, answering nothing, until the client leaves."""
    while True:
        peer._receive()


def close(peer):
    peer.socket.close()
    raise Gone()


def half_close(peer):
    """Say that nothing more will come, and read on until the client leaves."""
    peer.socket.shutdown(socket.SHUT_WR)
    peer.silent.set()
    until_gone(peer)


def reset(peer):
    """Leave with a TCP reset."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    close(peer)


def drip(data, pause_seconds=0.02):
    """Send byte after byte, for ever if `data` has no end, until the client leaves or all is released."""

    def step(peer):
        for byte in data:
            if peer.server.released.wait(pause_seconds):
                return
            peer.send(bytes((byte,)))

    return step


def flood(block):
    """Send the block over and over, as fast as it is taken."""

    def step(peer):
        while not peer.server.released.is_set():
            peer.send(block)

    return step


def start_tls(context):
    """From here on the connection speaks TLS, as behind a CONNECT."""

    def step(peer):
        peer.socket = context.wrap_socket(peer.socket, server_side=True)

    return step


def wait(event):
    """Go on when the test says so."""

    def step(peer):
        if not event.wait(PATIENCE_SECONDS):
            raise AssertionError("the test never set the event that its script waits for")

    return step


class repeat:
    """These steps for as long as the client stays."""

    def __init__(self, *steps):
        self._steps = steps

    def __iter__(self):
        return itertools.cycle(self._steps)


# Bytes and looks


def answer(body=b"{}", *headers, **options):
    """A whole response: `answer(b"{}", "Connection: close", status="503 Busy")`."""
    lines = ["HTTP/1.1 " + options.pop("status", "200 OK")]
    lines.append("Content-Type: " + options.pop("content_type", "application/json"))
    lines.append("Content-Length: %d" % len(body))
    if options:
        raise TypeError("unknown options: %s" % ", ".join(options))
    return "\r\n".join(lines + list(headers)).encode() + b"\r\n\r\n" + body


def header(request, name):
    """Every value that a raw request has for a header."""
    head = request.partition(b"\r\n\r\n")[0]
    pattern = rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*(.*?)[ \t]*\r?$"
    return [value.decode("latin-1") for value in re.findall(pattern, head)]


def free_port():
    """A port of 127.0.0.1 where nobody listens."""
    with socket.socket() as briefly:
        briefly.bind(("127.0.0.1", 0))
        return briefly.getsockname()[1]


def mirror(peer):
    """Answer a request with its own body."""
    peer.send(answer(peer.read_request().partition(b"\r\n\r\n")[2]))


def post(client, url, content=b"{}", timeout=5.0, **options):
    """One request through an HttpClient."""
    return client.send(client.build_request("POST", url, content=content, timeout=timeout, **options))


def at_once(check, *cases):
    """Check every case, each in a thread of its own: the deadlines that must pass pass together."""
    with ThreadPoolExecutor(len(cases)) as threads:
        for case, checked in [(case, threads.submit(check, case)) for case in cases]:
            try:
                checked.result()
            except AssertionError as error:
                raise AssertionError("%r: %s" % (case, error)) from error


def sockets_to(server):
    """This process's open client sockets that are connected to a server."""
    found = []
    for thing in gc.get_objects():
        try:
            if isinstance(thing, socket.socket) and thing.fileno() >= 0 and thing.getpeername()[1] == server.port:
                found.append(thing)
        except (OSError, ReferenceError):
            pass
    return found


def open_descriptors():
    """How many descriptors this process has open, or None where the platform does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return None


class Stopwatch:
    """How long a block took: `with Stopwatch() as took: ...; took.seconds`. With `time.process_time`, how much CPU."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock

    def __enter__(self):
        self._start = self._clock()
        return self

    def __exit__(self, *_):
        self.seconds = self._clock() - self._start


class LoopbackTestCase(unittest.TestCase):
    """Tests whose outcome must not depend on the proxies, certificates and keys that the environment names."""

    def setUp(self):
        super().setUp()
        names = [
            name
            for name in os.environ
            if re.search(r"(?i)_proxy$|^ssl_cert|^requests_ca|^aerostack|^request_method$", name)
        ]
        patch = mock.patch.dict(os.environ)
        patch.start()
        self.addCleanup(patch.stop)
        for name in names:
            del os.environ[name]


class ClientTestCase(LoopbackTestCase):
    """Tests of one HttpClient."""

    def setUp(self):
        super().setUp()
        self.client = HttpClient()
        self.addCleanup(self.client.close)


class HostsTestCase(LoopbackTestCase):
    """Tests for which every name that ends in .test or .local is this machine."""

    def setUp(self):
        super().setUp()
        resolve = socket.getaddrinfo

        def resolve_here(host, *rest, **options):
            here = isinstance(host, str) and host.rstrip(".").endswith((".test", ".local"))
            return resolve("127.0.0.1" if here else host, *rest, **options)

        patch = mock.patch("socket.getaddrinfo", resolve_here)
        patch.start()
        self.addCleanup(patch.stop)

    def client(self, **options):
        made = HttpClient(**options)
        self.addCleanup(made.close)
        return made

    def serve(self, *scripts, **options):
        server = ScriptedServer(*scripts, **options)
        server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        return server
