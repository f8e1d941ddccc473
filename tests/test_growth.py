"""Twice the input is twice the work, whatever a server sends or a caller passes. Steps are counted, not seconds."""

import gzip
import json
import os
import random
import socket
import ssl
import string
import threading
import unittest
from unittest import mock

from tests.certificates import CertificateCase
from tests.counted_work import COUNTED, count_steps, counted_module
from tests.recording_server import peak_memory
from tests.scripted_server import ClientTestCase, LoopbackTestCase, ScriptedServer, answer, expect, post, repeat

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TWICE = 2.2  # at the most, so many times the work for twice the input


class GrowthCase(LoopbackTestCase):
    def assert_linear(self, steps_for, size):
        """Counts the work for inputs of two sizes, the smaller large enough to count beside the rest of a call."""
        once, twice = steps_for(size), steps_for(2 * size)
        self.assertGreater(once, size / 10, "the input is not seen")
        self.assertLessEqual(twice / once, TWICE, "from %d to %d steps" % (once, twice))

    def assert_calls_are_linear(self, call, response, size, **settings):
        """The same for a call(sdk, size) that is answered with a response(size)."""

        def steps_for(size):
            with ScriptedServer(repeat(expect, response(size))) as server:
                with COUNTED.SDK("the-key", server_url=server.url, retry_config=None, **settings) as sdk:
                    return count_steps(lambda: call(sdk, size))

        self.assert_linear(steps_for, size)


def cache_get(sdk, size):
    return sdk.cache.cache_get(key="k")


# ---- The counter


class CounterTest(GrowthCase):
    """What the other tests rely on."""

    def steps_for(self, body):
        source = "import re\ndef work(text):\n" + "".join("    %s\n" % line for line in body.splitlines())
        module, counter = counted_module(source, "counted_sample")
        return lambda size: count_steps(lambda: module.work("x" * size), counter)

    def test_quadratic_work_is_found(self):
        for body in (
            "found = ''\nfor c in text:\n    found += c",
            "found = b''\nfor c in text:\n    found = found + c.encode()",
            "for at in range(len(text)):\n    'y' in text",
            "for at in range(len(text)):\n    text.find('y', at)",
            "for at in range(len(text)):\n    text.replace('y', 'z')",
            "for at in range(len(text)):\n    re.compile('y').search(text)",
            "while text:\n    text = text[1:]",
            "seen = []\nfor at in range(len(text)):\n    if at not in seen:\n        seen.append(at)",
            "[[d for d in text] for c in text]",
            "for at in range(len(text)):\n    '%s' % text",
            "for at in range(len(text)):\n    f'{text}'",
        ):
            with self.subTest(body), self.assertRaises(AssertionError):
                self.assert_linear(self.steps_for(body), 1_000)

    def test_linear_work_passes(self):
        for body in (
            "found = bytearray()\nfor c in text:\n    found += c.encode()",
            "'y' in text",
            "''.join([c for c in text])",
            "at = 0\nwhile at < len(text):\n    at = text.find('x', at) + 1",
            "at = 0\nwhile at < len(text):\n    at = re.compile('x').match(text, at).end()",
        ):
            with self.subTest(body):
                self.assert_linear(self.steps_for(body), 1_000)


# ---- JSON, in and out


class JsonTest(GrowthCase):
    def test_how_deep_an_answer_is_nested(self):
        for response in (
            lambda size: b"[" * size,
            lambda size: b"[" * size + b"]" * size,
            lambda size: b"[" + b"[]," * size + b"[]]",
            lambda size: b'{"a":' * size + b"1" + b"}" * size,
            lambda size: b'{"value":"' + b"[" * size + b'"}',
            lambda size: b'{"value":["' + b'[","' * size + b'"]}',
            lambda size: b'{"value":["' + b'\\"[' * size + b'"]}',
            lambda size: b'{"value":["' + b"\\\\[" * size + b'"]}',
            lambda size: b'{"value":["' + b"[\\" * size,
            lambda size: b'"' + b"[" * size,
            lambda size: b'"[' * size,
        ):
            with self.subTest(response(3)):
                self.assert_calls_are_linear(cache_get, lambda size: answer(response(size)), 10_000)

    def test_many_rows(self):
        for row in ({"id": 1, "name": "Ada"}, [], None, "null", 1.5):
            with self.subTest(row=row):
                self.assert_calls_are_linear(
                    lambda sdk, size: sdk.database.db_query(sql="SELECT 1"),
                    lambda size: answer(json.dumps({"results": [row] * size}).encode()),
                    2_000,
                )

    def test_many_values_sent(self):
        for value in ("null", None, {"null": None}, {None: 1}, ("a", "b"), 1.5, "\ud800", float("nan")):
            with self.subTest(value=value):
                self.assert_calls_are_linear(
                    lambda sdk, size: sdk.database.db_query(sql="SELECT ?", params=[value] * size),
                    lambda size: answer(b'{"results":[]}'),
                    1_000,
                )

    def test_long_values_sent(self):
        for value in (
            lambda size: "a" * size,
            lambda size: '"' * size,
            lambda size: "null" * size,
            lambda size: {"%d" % number: "null" for number in range(size)},
            lambda size: {"null" * size: 1},
        ):
            with self.subTest(value(3)):
                self.assert_calls_are_linear(
                    lambda sdk, size: sdk.cache.cache_set(key="k", value=value(size)),
                    lambda size: answer(b'{"success":true}'),
                    10_000,
                )


# ---- Masking, shortening, escaping


class Discard:
    """A logger for which everything is worked out, and then forgotten."""

    def debug(self, *_):
        pass


PASSWORDS = {
    "one letter": lambda size: "a" * size,
    "one letter, and at the end another": lambda size: "a" * (size - 1) + "b",
    "letters": lambda size: "".join(random.Random(1).choices(string.ascii_letters, k=size)),
    "quotes": lambda size: '"' * size,
    "what looks like a secret": lambda size: '"password":"' * (size // 12),
    "control characters": lambda size: "\x1b" * (size // 20),
}


class MaskingTest(GrowthCase):
    def check(self, message_for, size=10_000):
        """A password of this size, and one of twice as many characters, and a message about it."""
        for name, password_for in PASSWORDS.items():

            def refusal(size):
                body = json.dumps({"code": "INVALID", "message": message_for(password_for(size))})
                return answer(body.encode(), status="401 Unauthorized")

            def call(sdk, size):
                sdk.authentication.auth_signin(email="ada@example.com", password=password_for(size))

            with self.subTest(password=name):
                self.assert_calls_are_linear(call, refusal, size, debug_logger=Discard())

    def test_a_message_without_the_password(self):
        self.check(lambda password: "wrong password")

    def test_a_message_with_the_password(self):
        self.check(lambda password: "wrong: " + password)

    def test_a_message_with_half_of_the_password(self):
        self.check(lambda password: "wrong: " + password[: len(password) // 2])

    def test_a_message_with_the_password_cut_short(self):
        self.check(lambda password: "wrong: %s..." % password[: len(password) // 2])

    def test_a_message_with_nearly_the_password_twice(self):
        self.check(lambda password: password[:-1] + "!" + password[1:], 4_000)

    def test_a_message_with_its_start_over_and_over(self):
        self.check(lambda password: (password[:7] + "...") * (len(password) // 10))

    def test_other_text_of_the_server(self):
        for body, options in (
            (lambda size: b"x" * size, {"content_type": "text/html"}),
            (lambda size: b"\x1b" * size, {"content_type": "text/plain", "status": "500 Oops"}),
            (lambda size: b'"password' * size, {"status": "500 Oops"}),
            (lambda size: b'"password":"' + b"\\" * size, {"status": "500 Oops"}),
            (lambda size: b'{"code":"' + b"X" * size + b'","message":"no"}', {"status": "400 Bad"}),
            (lambda size: b'{"message":"no","details":[' + b'"",' * size + b'""]}', {"status": "400 Bad"}),
            (lambda size: b'{"exists":"' + b"y" * size + b'"}', {}),
            (lambda size: b'{"exists":' + b"9" * size + b"}", {}),
            (lambda size: b'{"exists":[' + b"0," * size + b"0]}", {}),
        ):
            with self.subTest(body(3)):
                self.assert_calls_are_linear(
                    cache_get, lambda size: answer(body(size), **options), 3_000, debug_logger=Discard()
                )


# ---- Heads, and whatever comes in pieces


class HeadTest(GrowthCase):
    def test_many_lines(self):
        for line in (
            b"X: y\r\n",
            b"X: y\n",
            b"X-%d: y\r\n",
            b"Set-Cookie: a=b\r\n",
            b"Connection: x,,y\r\n",
            b"X:\r\n",
        ):
            with self.subTest(line=line):
                self.assert_calls_are_linear(
                    cache_get,
                    lambda size: (
                        OK
                        + b"".join(line % number if b"%" in line else line for number in range(size))
                        + b"Content-Length: 2\r\n\r\n{}"
                    ),
                    250,
                )

    def test_a_long_value(self):
        for name in (b"X", b"Content-Type", b"Retry-After", b"Content-Length", b"Connection", b"Keep-Alive"):
            for character in b"1,":
                with self.subTest(name=name, character=character):
                    self.assert_calls_are_linear(
                        cache_get,
                        lambda size: (
                            b"HTTP/1.1 503 Busy\r\n%s: a%s\r\nContent-Length: 2\r\n\r\n{}"
                            % (name, bytes([character]) * size)
                        ),
                        2_000,
                    )


HEADS = {
    "one long line": lambda size: OK + b"X: " + b"y" * size + b"\r\nContent-Length: 2\r\n\r\n{}",
    "many lines": lambda size: OK + b"".join(b"X-%d: y\r\n" % number for number in range(size // 8)) + b"\r\n{}",
    "line feeds alone": lambda size: OK + b"".join(b"X-%d: y\n" % number for number in range(size // 7)) + b"\n{}",
    "no end": lambda size: OK + b"X:\n" + b"y" * size,
    "trailers": lambda size: CHUNKED + b"0\r\n" + b"X: y\r\n" * (size // 6) + b"\r\n",
    "an interim response": lambda size: b"HTTP/1.1 103 Hints\r\nX: %s\r\n\r\n" % (b"y" * size) + answer(b"{}"),
}
BODIES = {
    "of a length": answer,
    "until the end": lambda body: OK + b"\r\n" + body,
    "in one chunk": lambda body: CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
    "in chunks of one byte": lambda body: CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
    "compressed": lambda body: answer(gzip.compress(body), "Content-Encoding: gzip"),
    "of an error": lambda body: answer(body, status="500 Oops"),
}


def body_of(size):
    return bytes(random.Random(1).choices(range(256), k=size))  # which gzip cannot compress


class PiecesTest(ClientTestCase, GrowthCase):
    """Responses of which the client receives a byte at a time, or a few."""

    piece = 1

    def setUp(self):
        super().setUp()
        case, ours, receive, receive_into = (
            self,
            threading.current_thread(),
            socket.socket.recv,
            socket.socket.recv_into,
        )

        def receive_one(self, size, *flags):
            return receive(self, case.piece if threading.current_thread() is ours else size, *flags)

        def receive_one_into(self, buffer, size=0, *flags):
            return receive_into(self, buffer, case.piece if threading.current_thread() is ours else size, *flags)

        for name, replacement in (("recv", receive_one), ("recv_into", receive_one_into)):
            patch = mock.patch.object(socket.socket, name, replacement)
            patch.start()
            self.addCleanup(patch.stop)

    def measured(self, measure, client, response):
        """The measure of a second exchange: what is made only once is there then."""
        with ScriptedServer([expect, answer(), expect, response, lambda peer: peer.socket.shutdown(1)]) as server:
            post(client, server.url)
            return measure(lambda: post(client, server.url, timeout=60.0))

    def test_heads(self):
        with COUNTED.HttpClient() as client:
            for name, response in HEADS.items():
                with self.subTest(name):
                    self.assert_linear(lambda size: self.measured(count_steps, client, response(size)), 400)

    def test_bodies(self):
        with COUNTED.HttpClient() as client:
            for name, response in BODIES.items():
                with self.subTest(name):
                    self.assert_linear(lambda size: self.measured(count_steps, client, response(body_of(size))), 200)

    def test_the_memory_that_a_body_takes(self):
        self.piece = 3  # bytes objects of one byte take no memory, there are only 256 of them
        for name in set(BODIES) - {"compressed", "of an error"}:  # tests.test_transport_responses has these in records
            response, body = (
                BODIES[name],
                body_of(4_000 if name == "in chunks of one byte" else 16_000),
            )  # which come in six times the pieces
            with self.subTest(name):
                peak = self.measured(peak_memory, self.client, response(body))
                self.assertLess(peak, 4 * len(body) + 96 * 1024)


class RecordsTest(CertificateCase, GrowthCase):
    """Responses in TLS records of two bytes."""

    def test_bodies(self):
        context = ssl.create_default_context(cafile=self.authority.path)

        def steps_for(raw):
            def drip(peer):
                for start in range(0, len(raw), 2):
                    peer.send(raw[start : start + 2])
                peer.socket.unwrap()

            with ScriptedServer([expect, drip], tls=self.tls) as server:
                with COUNTED.HttpClient(ssl_context=context) as client:
                    return count_steps(lambda: post(client, server.url, timeout=60.0))

        for name, response in BODIES.items():
            with self.subTest(name):
                self.assert_linear(lambda size: steps_for(response(body_of(size))), 250)


class UploadTest(GrowthCase):
    def test_many_blocks(self):
        self.assert_calls_are_linear(
            lambda sdk, size: sdk.storage.storage_upload(key="k", file=(b"x" for _ in range(size))),
            lambda size: answer(b'{"url":"u"}'),
            500,
        )

    def test_a_long_name(self):
        for character in ("a", '"', "\\", "\n", "\u20ac"):
            with self.subTest(character=character):
                self.assert_calls_are_linear(
                    lambda sdk, size: sdk.storage.storage_upload(
                        key="k", file={"file_name": character * size, "content": os.urandom(10)}
                    ),
                    lambda size: answer(b'{"url":"u"}'),
                    10_000,
                )


if __name__ == "__main__":
    unittest.main()
