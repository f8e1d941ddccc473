"""The embedded platform, seen from outside: by http.client and bare sockets, and at the end through the SDK."""

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import unittest
from urllib.parse import urlsplit

from examples import local_platform
from examples.local_platform import ApiError, LocalPlatform

try:
    import aerostack_lite
except ImportError:
    aerostack_lite = None

REQUIRED = {
    "/ai/chat": {"messages": [{"role": "user", "content": "hello"}]},
    "/auth/signin": {"email": "ann@example.com", "password": "secret"},
    "/auth/signup": {"email": "ann@example.com", "password": "secret"},
    "/cache/get": {"key": "k"},
    "/cache/set": {"key": "k", "value": 1},
    "/db/query": {"sql": "SELECT 1"},
    "/queue/enqueue": {"type": "t", "data": {}},
    "/services/invoke": {"serviceName": "s", "data": {}},
}
WRONG = {
    str: [7, None, ["x"], "\ud800"],
    list: ["x", {}, None],
    dict: ["x", [], None],
    int: [-1, 1.5, "1", True, 2**63],
}
OPTIONAL = {
    ("/ai/chat", "model"): str,
    ("/auth/signup", "name"): str,
    ("/auth/signup", "metadata"): dict,
    ("/cache/set", "ttl"): int,
    ("/db/query", "params"): list,
    ("/queue/enqueue", "delay"): int,
}


class PlatformTestCase(unittest.TestCase):
    options = {}

    def setUp(self):
        self.platform = self.enter(LocalPlatform(**self.options))
        self.connect(self.platform)

    def enter(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def connect(self, platform):
        self.address = urlsplit(platform.url).netloc
        self.client = self.enter(contextlib.closing(http.client.HTTPConnection(self.address, timeout=10)))

    def folder(self):
        return self.enter(tempfile.TemporaryDirectory())

    def exchange(self, path, body=None, headers=None, method="POST", **options):
        self.client.request(method, path, body, {"X-Aerostack-Key": "key", **(headers or {})}, **options)
        response = self.client.getresponse()
        return response, response.read()

    def call(self, path, _body=None, _headers=None, **fields):
        """The status and the answer of an operation."""
        body = json.dumps(fields) if _body is None else _body
        response, content = self.exchange("/v1" + path, body, _headers)
        self.assertEqual(response.getheader("Content-Type"), "application/json")
        return response.status, json.loads(content.decode())

    def ok(self, path, _status=200, **fields):
        status, answer = self.call(path, **fields)
        self.assertEqual(status, _status, answer)
        return answer

    def refused(self, status, code, path, _body=None, _field=None, **fields):
        got, answer = self.call(path, _body, **fields)
        self.assertEqual((got, answer["code"]), (status, code), answer)
        self.assertEqual(sorted(answer), ["code", "details", "message"])
        if _field is not None:
            self.assertEqual(answer["details"], {"field": _field})
            self.assertIn(_field, answer["message"])
        return answer

    @contextlib.contextmanager
    def raw(self):
        """A bare socket: what to send, and a way to read answers."""
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as sock, sock.makefile("rb") as reader:
            yield sock, reader

    def read_answer(self, reader):
        status = int(reader.readline().split()[1])
        headers = http.client.parse_headers(reader)
        return status, headers, reader.read(int(headers.get("Content-Length", 0)))


class FieldTests(PlatformTestCase):
    def test_every_required_field_is_asked_for_by_name(self):
        for path, fields in REQUIRED.items():
            for missing in fields:
                with self.subTest(path=path, missing=missing):
                    rest = {name: value for name, value in fields.items() if name != missing}
                    self.refused(400, "VALIDATION_ERROR", path, _field=missing, **rest)

    def test_a_value_of_the_wrong_kind_names_its_field(self):
        for path, fields in REQUIRED.items():
            kinds = [(name, type(value)) for name, value in fields.items() if name != "value"]
            kinds += [(name, kind) for (at, name), kind in OPTIONAL.items() if at == path]
            for name, kind in kinds:
                for wrong in WRONG[kind]:
                    if wrong is not None or name in fields:
                        with self.subTest(path=path, name=name, wrong=wrong):
                            self.refused(400, "VALIDATION_ERROR", path, _field=name, **dict(fields, **{name: wrong}))

    def test_null_for_an_optional_field_is_the_same_as_no_field(self):
        self.ok("/cache/set", key="k", value=1, ttl=None)
        self.ok("/db/query", sql="SELECT 1", params=None)

    def test_a_body_that_is_not_a_json_object_is_refused(self):
        bodies = [b"", b"{", b"[]", b'"x"', b"null", b'{"key": NaN}', b'{"key": 1e999}', b"\xff", b"[" * 100000]
        for body in bodies:
            with self.subTest(body=body[:20]):
                self.refused(400, "VALIDATION_ERROR", "/cache/get", body)

    def test_a_byte_order_mark_is_no_obstacle(self):
        self.assertEqual(self.call("/cache/get", b'\xef\xbb\xbf{"key": "k"}')[0], 200)

    def test_a_json_body_over_the_limit_is_413_and_the_answer_arrives(self):
        self.connect(self.enter(LocalPlatform(max_json_bytes=1000)))
        body = json.dumps({"key": "k" * 2000}).encode()
        self.refused(413, "VALIDATION_ERROR", "/cache/get", body)
        self.refused(413, "VALIDATION_ERROR", "/cache/get", b" " * 8000000)
        self.refused(413, "VALIDATION_ERROR", "/cache/get", iter([body[:500], body[500:]]))


class AdmissionTests(PlatformTestCase):
    options = {"key": "right", "rate_limit": None}

    def test_every_operation_wants_the_key(self):
        for path in [*REQUIRED, "/storage/upload"]:
            for key in ("", "wrong", "righ", "right!", "\xe9"):
                with self.subTest(path=path, key=key):
                    status, answer = self.call(path, "{}", {"X-Aerostack-Key": key})
                    self.assertEqual((status, answer["code"]), (401, "AUTH_INVALID_KEY"))
                    self.assertNotIn("right", json.dumps(answer))
        self.assertEqual(self.call("/cache/get", '{"key": "k"}', {"X-Aerostack-Key": "right"})[0], 200)

    def test_any_key_but_none_is_good_when_none_was_set(self):
        self.connect(self.enter(LocalPlatform()))
        self.assertEqual(self.call("/cache/get", '{"key": "k"}', {"X-Aerostack-Key": "anything"})[0], 200)
        self.assertEqual(self.call("/cache/get", '{"key": "k"}', {"X-Aerostack-Key": ""})[0], 401)

    def test_a_request_over_the_rate_is_429_with_retry_after(self):
        platform = self.enter(LocalPlatform(rate_limit=2))
        self.connect(platform)
        platform._now = lambda: 1000.0
        self.ok("/cache/get", key="k")
        self.ok("/cache/get", key="k")
        response, content = self.exchange("/v1/cache/get", '{"key": "k"}')
        self.assertEqual((response.status, response.getheader("Retry-After")), (429, "1"))
        self.assertEqual(json.loads(content.decode())["code"], "RATE_LIMIT_EXCEEDED")
        platform._now = lambda: 1001.0
        self.ok("/cache/get", key="k")

    def test_an_unknown_operation_is_404_and_another_method_405(self):
        self.connect(self.enter(LocalPlatform()))
        self.refused(404, "VALIDATION_ERROR", "/cache/delete", key="k")
        response, _ = self.exchange("/v1/cache/get", method="GET")
        self.assertEqual((response.status, response.getheader("Allow")), (405, "POST"))


class CacheTests(PlatformTestCase):
    def test_what_was_set_is_there(self):
        for value in (None, False, 0, "", "é\0", 2**80, 1.5, [1, {"a": [None]}], {"\ud800": "\udfff"}):
            with self.subTest(value=value):
                self.assertEqual(self.ok("/cache/set", key="k", value=value), {"success": True})
                self.assertEqual(self.ok("/cache/get", key="k"), {"value": value, "exists": True})

    def test_a_missing_key_is_an_entry_that_does_not_exist(self):
        self.assertEqual(self.ok("/cache/get", key="nothing"), {"value": None, "exists": False})

    def test_an_entry_lives_for_its_ttl(self):
        self.ok("/cache/set", key="short", value=1, ttl=60)
        self.ok("/cache/set", key="long", value=2)
        self.platform.advance(58)
        self.assertTrue(self.ok("/cache/get", key="short")["exists"])
        self.platform.advance(2)
        self.assertEqual(self.ok("/cache/get", key="short"), {"value": None, "exists": False})
        self.assertTrue(self.ok("/cache/get", key="long")["exists"])

    def test_setting_again_replaces_the_value_and_its_ttl(self):
        self.ok("/cache/set", key="k", value=1, ttl=60)
        self.ok("/cache/set", key="k", value=2)
        self.platform.advance(61)
        self.assertEqual(self.ok("/cache/get", key="k"), {"value": 2, "exists": True})


class DatabaseTests(PlatformTestCase):
    def query(self, sql, *params):
        answer = self.ok("/db/query", sql=sql, params=params)
        return answer["results"], answer["count"]

    def test_rows_are_objects_and_changes_are_counted(self):
        self.assertEqual(self.query("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)"), ([], 0))
        self.assertEqual(self.query("INSERT INTO t (name) VALUES (?), (?)", "ann", None), ([], 2))
        rows = [{"id": 1, "name": "ann"}, {"id": 2, "name": None}]
        self.assertEqual(self.query("SELECT * FROM t ORDER BY id"), (rows, 2))
        self.assertEqual(self.query("UPDATE t SET name = 'bob'"), ([], 2))
        self.assertEqual(self.query("DELETE FROM t WHERE id = ?", 7), ([], 0))
        self.assertEqual(self.query("DELETE FROM t WHERE id = ?", 1), ([], 1))

    @unittest.skipIf(sqlite3.sqlite_version_info < (3, 35), "this SQLite knows no RETURNING")
    def test_returning_gives_rows_and_keeps_the_change(self):
        self.query("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        rows = self.query("INSERT INTO t (name) VALUES ('a'), ('b') RETURNING id, name")
        self.assertEqual(rows, ([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], 2))
        self.assertEqual(self.query("SELECT count(*) AS n FROM t"), ([{"n": 2}], 1))

    def test_params_are_bound_and_never_read_as_sql(self):
        rows, _ = self.query("SELECT ? AS a, ? AS b, ? AS c, ? AS d", "'; DROP", 1.5, None, True)
        self.assertEqual(rows, [{"a": "'; DROP", "b": 1.5, "c": None, "d": 1}])

    def test_bytes_travel_as_base64_both_ways_and_infinity_as_null(self):
        blob = {"$base64": base64.b64encode(b"\0\xff").decode()}
        self.assertEqual(self.query("SELECT ? AS a, hex(?) AS b", blob, blob)[0], [{"a": blob, "b": "00FF"}])
        self.assertEqual(self.query("SELECT 9e999 AS a")[0], [{"a": None}])

    def test_a_failing_statement_says_why(self):
        failing = {
            "SELEC 1": "syntax error",
            "SELECT * FROM absent": "no such table: absent",
            "SELECT ?": "bind",
            "SELECT 1; SELECT 2": "one statement",
            "BEGIN": "transaction",
            "SELECT CAST(x'ff' AS TEXT)": "UTF-8",
            "ATTACH '/tmp/elsewhere.db' AS e": "authoriz",
            "VACUUM INTO '/tmp/elsewhere.db'": "authoriz",
            "SELECT 1 \0": "null character",
        }
        for sql, reason in failing.items():
            with self.subTest(sql=sql):
                answer = self.refused(400, "DB_QUERY_FAILED", "/db/query", sql=sql)
                self.assertIn(reason, answer["message"])
                self.assertEqual(answer["details"]["reason"], answer["message"])
        for param in ([], {}, {"$base64": 5}, {"$base64": "é"}, 2**70, "\ud800"):
            with self.subTest(param=param):
                self.refused(400, "DB_QUERY_FAILED", "/db/query", sql="SELECT ?", params=[param])

    def test_a_statement_that_fails_halfway_changes_nothing(self):
        self.query("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        self.refused(400, "DB_QUERY_FAILED", "/db/query", sql="INSERT INTO t VALUES (1), (1)")
        self.query("VACUUM")
        self.assertEqual(self.query("SELECT * FROM t"), ([], 0))

    def test_many_threads_lose_no_update(self):
        self.query("CREATE TABLE t (n INTEGER)")
        self.query("INSERT INTO t VALUES (0)")

        def add():
            update = json.dumps({"sql": "UPDATE t SET n = n + 1"})
            with contextlib.closing(http.client.HTTPConnection(self.address, timeout=10)) as client:
                for _ in range(20):
                    client.request("POST", "/v1/db/query", update, {"X-Aerostack-Key": "k"})
                    client.getresponse().read()

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.query("SELECT n FROM t")[0], [{"n": 160}])


class QueueTests(PlatformTestCase):
    def enqueue(self, job_type, data, **fields):
        answer = self.ok("/queue/enqueue", 201, type=job_type, data=data, **fields)
        self.assertIs(answer["success"], True)
        return answer["jobId"]

    def test_a_handler_gets_the_data_and_its_result_is_kept(self):
        self.platform.register_handler("add", lambda data: {"sum": data["a"] + data["b"]})
        job_id = self.enqueue("add", {"a": 1, "b": 2})
        job = self.platform.wait_for_job(job_id)
        self.assertEqual(job, (job_id, "add", {"a": 1, "b": 2}, "done", {"sum": 3}, None))

    def test_a_job_waits_for_a_handler_of_its_type(self):
        job_id = self.enqueue("later", {})
        with self.assertRaisesRegex(TimeoutError, "still waiting"):
            self.platform.wait_for_job(job_id, timeout=0)

        @self.platform.register_handler("later")
        def handle(data):
            return "done at last"

        self.assertEqual(self.platform.wait_for_job(job_id).result, "done at last")
        self.assertEqual(handle({}), "done at last")

    def test_a_delayed_job_runs_in_its_time_and_jobs_keep_their_order(self):
        ran = []
        self.platform.register_handler("note", lambda data: ran.append(data["n"]))
        last = self.enqueue("note", {"n": 3}, delay=3600)
        self.enqueue("note", {"n": 1})
        self.platform.wait_for_job(self.enqueue("note", {"n": 2}, delay=0))
        self.assertEqual(ran, [1, 2])
        self.platform.advance(3600)
        self.platform.wait_for_job(last)
        self.assertEqual(ran, [1, 2, 3])

    def test_a_handler_that_fails_tells_why_and_the_worker_goes_on(self):
        self.platform.register_handler("divide", lambda data: 1 / data["by"])
        self.platform.register_handler("odd", lambda data: object())
        failed = self.platform.wait_for_job(self.enqueue("divide", {"by": 0}))
        self.assertEqual((failed.status, failed.error), ("failed", "ZeroDivisionError: division by zero"))
        self.assertEqual(self.platform.wait_for_job(self.enqueue("odd", {})).status, "failed")
        self.assertEqual(self.platform.wait_for_job(self.enqueue("divide", {"by": 2})).result, 0.5)

    def test_a_job_nobody_enqueued_is_a_lookup_error(self):
        with self.assertRaises(LookupError):
            self.platform.wait_for_job("job_0", timeout=1)


class ServiceTests(PlatformTestCase):
    def invoke(self, name, **data):
        return self.call("/services/invoke", serviceName=name, data=data)

    def test_a_registered_function_answers(self):
        self.platform.register_service("double", lambda data: data["n"] * 2)

        @self.platform.register_service("nothing")
        def nothing(data):
            return None

        self.assertEqual(self.invoke("double", n=21), (200, {"success": True, "result": 42}))
        self.assertEqual(self.invoke("nothing"), (200, {"success": True, "result": None}))
        self.assertIsNone(nothing({}))

    def test_an_unknown_service_is_404(self):
        self.refused(404, "VALIDATION_ERROR", "/services/invoke", serviceName="x", data={}, _field="serviceName")

    def test_a_function_that_fails_is_500_with_its_reason(self):
        self.platform.register_service("fail", lambda data: data["missing"])
        self.platform.register_service("odd", lambda data: object())
        status, answer = self.invoke("fail")
        self.assertEqual((status, answer["code"], answer["message"]), (500, "INTERNAL_ERROR", "KeyError: 'missing'"))
        self.assertEqual(self.invoke("odd")[0], 500)

        @self.platform.register_service("unreachable")
        def unreachable(data):
            raise ConnectionRefusedError("somebody else's server is down")

        self.assertEqual(self.invoke("unreachable")[0], 500)

    def test_a_function_may_choose_the_error(self):
        @self.platform.register_service("busy")
        def busy(data):
            raise ApiError(503, "INTERNAL_ERROR", "Come back", {"queue": 9}, {"Retry-After": "7"})

        response, content = self.exchange("/v1/services/invoke", '{"serviceName": "busy", "data": {}}')
        self.assertEqual((response.status, response.getheader("Retry-After")), (503, "7"))
        answer = {"code": "INTERNAL_ERROR", "message": "Come back", "details": {"queue": 9}}
        self.assertEqual(json.loads(content.decode()), answer)


class AccountTests(PlatformTestCase):
    ANN = {"email": "ann@example.com", "password": "secret"}

    def test_sign_up_then_sign_in(self):
        made = self.ok("/auth/signup", 201, name="Ann", metadata={"plan": "pro"}, **self.ANN)
        known = self.ok("/auth/signin", **self.ANN)
        self.assertEqual(made["user"], known["user"])
        user = made["user"]
        self.assertEqual((user["email"], user["name"], user["metadata"]), ("ann@example.com", "Ann", {"plan": "pro"}))
        self.assertRegex(user["id"], r"\Auser_[0-9a-f]{24}\Z")
        for time in (user["createdAt"], made["expiresAt"]):
            self.assertRegex(time, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")

    def test_name_and_metadata_may_be_left_out(self):
        user = self.ok("/auth/signup", 201, **self.ANN)["user"]
        self.assertEqual((user["name"], user["metadata"]), (None, {}))

    def test_a_known_address_is_409_whatever_its_case(self):
        self.ok("/auth/signup", 201, **self.ANN)
        for email in ("ann@example.com", "ANN@example.com"):
            self.refused(409, "VALIDATION_ERROR", "/auth/signup", email=email, password="other", _field="email")

    def test_bad_fields_are_400(self):
        for email in ("", "ann", "ann@", "@example.com", "a nn@example.com", "ann@example.com\n"):
            self.refused(400, "VALIDATION_ERROR", "/auth/signup", email=email, password="secret", _field="email")
        self.refused(400, "VALIDATION_ERROR", "/auth/signup", email="a@b.c", password="", _field="password")

    def test_a_wrong_password_and_an_unknown_address_are_told_the_same(self):
        self.ok("/auth/signup", 201, **self.ANN)
        wrong = self.refused(401, "AUTH_INVALID_CREDENTIALS", "/auth/signin", email="ann@example.com", password="x")
        unknown = self.refused(401, "AUTH_INVALID_CREDENTIALS", "/auth/signin", email="bob@example.com", password="x")
        self.assertEqual(wrong, unknown)

    def test_the_token_is_signed_and_expires(self):
        signed_in = self.ok("/auth/signup", 201, **self.ANN)
        token = signed_in["token"]
        claims = self.platform.verify_token(token)
        self.assertEqual((claims["sub"], claims["email"]), (signed_in["user"]["id"], "ann@example.com"))
        head, payload, signature = token.split(".")
        forged = base64.urlsafe_b64encode(json.dumps(dict(claims, sub="root")).encode()).rstrip(b"=").decode()
        for bad in ("", "x", token[:-1], ".".join((head, forged, signature)), ".".join((head, payload, ""))):
            with self.subTest(bad=bad), self.assertRaisesRegex(ValueError, "altered"):
                self.platform.verify_token(bad)
        self.platform.advance(local_platform.TOKEN_SECONDS + 1)
        with self.assertRaisesRegex(ValueError, "expired"):
            self.platform.verify_token(token)

    def test_passwords_are_hashed_with_a_salt_of_their_own_with_or_without_scrypt(self):
        for method in ("scrypt", "pbkdf2") if hasattr(hashlib, "scrypt") else ("pbkdf2",):
            with self.subTest(method=method):
                before, local_platform._METHOD = local_platform._METHOD, method
                self.addCleanup(setattr, local_platform, "_METHOD", before)
                one, other = (local_platform._hash_password("secret") for _ in range(2))
                local_platform._METHOD = before
                self.assertNotEqual(one, other)
                self.assertTrue(one.startswith(method + "$") and "secret" not in one)
                self.assertEqual(local_platform._hash_password("secret", one), one)
                self.assertNotEqual(local_platform._hash_password("Secret", one), one)


def form(*parts, boundary="b0"):
    """A multipart body of (name, content, content type or None)."""
    body = b""
    for name, content, content_type in parts:
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"' % (boundary.encode(), name.encode())
        body += b'; filename="a.bin"\r\n' if name == "file" else b"\r\n"
        body += b"Content-Type: %s\r\n" % content_type.encode() if content_type else b""
        body += b"\r\n" + content + b"\r\n"
    return body + b"--%s--\r\n" % boundary.encode()


class StorageTests(PlatformTestCase):
    """In memory; the next class runs all of it again on disk."""

    def upload(self, body, boundary="b0", **options):
        headers = {"Content-Type": "multipart/form-data; boundary=" + boundary}
        response, content = self.exchange("/v1/storage/upload", body, headers, **options)
        return response.status, json.loads(content.decode())

    def store(self, key, content, content_type="text/plain"):
        status, answer = self.upload(form(("key", key.encode(), None), ("file", content, content_type)))
        self.assertEqual(status, 200, answer)
        return answer["url"]

    def get(self, url, method="GET"):
        self.assertTrue(url.startswith(self.platform.url + "/"), url)
        self.client.request(method, url[len("http://" + self.address) :])
        response = self.client.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()

    def test_what_was_uploaded_is_served_at_the_url(self):
        keys = ["a.txt", "a/b/c.txt", "name with spaces", "é/日本.txt", "50%.txt", "q?x=1#f", "..hidden", "x" * 500]
        for key in keys:
            with self.subTest(key=key):
                url = self.store(key, b"content of " + key.encode())
                url.encode("ascii")
                self.assertEqual(self.get(url), (200, "text/plain", b"content of " + key.encode()))

    def test_head_tells_size_and_type(self):
        url = self.store("a", b"12345", "image/png")
        self.client.request("HEAD", urlsplit(url).path)
        response = self.client.getresponse()
        self.assertEqual(response.read(), b"")
        self.assertEqual((response.getheader("Content-Length"), response.getheader("Content-Type")), ("5", "image/png"))

    def test_an_upload_again_replaces_content_and_type(self):
        self.store("a", b"old", "text/plain")
        self.assertEqual(self.get(self.store("a", b"new one", "text/html")), (200, "text/html", b"new one"))

    def test_the_field_content_type_comes_first_then_that_of_the_part(self):
        key, file = ("key", b"k", None), ("file", b"x", "text/plain")
        for parts, wanted in (
            ((key, ("contentType", b"image/png", None), file), "image/png"),
            ((file, key), "text/plain"),
            ((("unknown", b"u" * 100000, None), key, ("file", b"x", None)), "application/octet-stream"),
        ):
            status, answer = self.upload(form(*parts))
            self.assertEqual((status, self.get(answer["url"])), (200, (200, wanted, b"x")))

    def test_content_that_looks_like_boundaries_survives(self):
        for content in (b"", b"\r\n", b"--b0", b"\r\n--b", b"\r\n--b\r\n--b1\r\n", b"\r", b"\n--b0--\r\n", b"\r\n\r\n"):
            with self.subTest(content=content):
                self.assertEqual(self.get(self.store("k", content))[2], content)

    def test_a_body_may_be_cut_anywhere(self):
        content = b"one\r\n--b two\r\n--b1 three\r\n"
        body = form(("key", b"k", None), ("file", content, None))
        for cut in range(1, len(body)):
            status, answer = self.upload(iter([body[:cut], body[cut:]]))
            self.assertEqual(status, 200, (cut, answer))
        for size in (1, 2, 3, 7):
            status, answer = self.upload(iter([body[at : at + size] for at in range(0, len(body), size)]))
            self.assertEqual((status, self.get(answer["url"])[2]), (200, content))

    def test_preamble_epilogue_padding_and_a_quoted_boundary_are_fine(self):
        body = form(("key", b"k", None), ("file", b"x", None), boundary="b 0").replace(b"--b 0\r\n", b"--b 0 \t\r\n")
        status, answer = self.upload(b"before\r\n" + body + b"after", boundary='"b 0"')
        self.assertEqual((status, self.get(answer["url"])[2]), (200, b"x"))

    def test_keys_that_climb_are_refused(self):
        keys = ["..", "../x", "a/../../x", "/etc/passwd", "a/..", "./a", "a//b", "a/", ""]
        keys += ["a\\b", "..\\x", "a\0b", "a\nb"]
        for key in keys:
            with self.subTest(key=key):
                status, answer = self.upload(form(("key", key.encode(), None), ("file", b"x", None)))
                self.assertEqual((status, answer["details"]), (400, {"field": "key"}))

    def test_a_path_that_climbs_finds_nothing(self):
        for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%00", "nothing", "", "%ff", "..%5cx"):
            with self.subTest(path=path):
                status, _, content = self.get(self.platform.url + "/storage/files/" + path)
                self.assertEqual((status, json.loads(content.decode())["code"]), (404, "VALIDATION_ERROR"))

    def test_bad_forms_are_refused_and_name_the_field(self):
        key, file = ("key", b"k", None), ("file", b"x", None)
        for parts, field in (
            ([key], "file"),
            ([file], "key"),
            ([key, key, file], "key"),
            ([key, file, file], "file"),
            ([("key", b"\xff", None), file], "key"),
            ([("key", b"k" * 70000, None), file], "key"),
            ([key, file, ("contentType", b"a\r\nSet-Cookie: x", None)], "contentType"),
        ):
            with self.subTest(field=field, parts=len(parts)):
                status, answer = self.upload(form(*parts))
                self.assertEqual((status, answer["details"]), (400, {"field": field}))
        for body in (b"", b"--b0", form(key, file)[:-5], b"--b0\r\n" + b"x" * 70000):
            with self.subTest(body=body[:9]):
                self.assertEqual(self.upload(body)[1]["code"], "VALIDATION_ERROR")
        response, _ = self.exchange("/v1/storage/upload", b"{}", {"Content-Type": "application/json"})
        self.assertEqual(response.status, 400)

    def test_the_url_bears_the_host_by_which_the_client_came(self):
        body = form(("key", b"k", None), ("file", b"x", None))
        headers = {"Content-Type": "multipart/form-data; boundary=b0", "Host": "platform.test:99"}
        _, content = self.exchange("/v1/storage/upload", body, headers)
        self.assertEqual(json.loads(content.decode())["url"], "http://platform.test:99/v1/storage/files/k")
        _, content = self.exchange("/v1/storage/upload", body, dict(headers, Host="evil/<x>"))
        self.assertEqual(json.loads(content.decode())["url"], self.platform.url + "/storage/files/k")


class StorageOnDiskTests(StorageTests):
    def setUp(self):
        self.data = self.folder()
        self.options = {"data": self.data}
        super().setUp()

    def files(self):
        return os.listdir(os.path.join(self.data, "files"))

    def test_a_large_upload_and_its_download_stay_small_in_memory(self):
        size, piece = 24 * 1024 * 1024, b"x" * 65536
        head, tail = form(("key", b"k", None), ("file", b"HERE", None)).split(b"HERE")
        pieces = [head] + [piece] * (size // len(piece)) + [tail]
        for length in ({}, {"Content-Length": str(sum(map(len, pieces)))}):
            headers = {"Content-Type": "multipart/form-data; boundary=b0", "X-Aerostack-Key": "k", **length}
            tracemalloc.start()
            try:
                self.client.request("POST", "/v1/storage/upload", iter(pieces), headers)
                url = json.loads(self.client.getresponse().read().decode())["url"]
                self.client.request("GET", urlsplit(url).path)
                response = self.client.getresponse()
                self.assertEqual(int(response.getheader("Content-Length")), size)
                while response.read(65536):
                    pass
                self.assertLess(tracemalloc.get_traced_memory()[1], 4 * 1024 * 1024)
            finally:
                tracemalloc.stop()

    def test_an_upload_that_fails_or_breaks_off_leaves_nothing_behind(self):
        self.upload(form(("file", b"x", None)))
        body = form(("key", b"k", None), ("file", b"x" * 1000, None))
        head = "POST /v1/storage/upload HTTP/1.1\r\nX-Aerostack-Key: k\r\nContent-Length: %d\r\n" % len(body)
        head += "Content-Type: multipart/form-data; boundary=b0\r\n\r\n"
        with self.raw() as (sock, reader):
            sock.sendall(head.encode() + body[:-100])
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(reader.read(), b"")
        self.assertEqual(self.files(), [])


class ChatTests(PlatformTestCase):
    def test_it_echoes_what_the_user_said_last(self):
        said = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}, {"role": "assistant"}]
        self.assertEqual(self.ok("/ai/chat", messages=said), {"response": "You said: two"})
        self.assertEqual(self.ok("/ai/chat", messages=[{"content": "x"}]), {"response": "You said: x"})
        only = [{"role": "system", "content": "be kind"}]
        self.assertEqual(self.ok("/ai/chat", messages=only), {"response": "You said: be kind"})

    def test_a_bad_message_is_named(self):
        good = {"role": "user", "content": "x"}
        for bad, field in ((7, ""), ({"content": 5}, ".content"), ({"role": []}, ".role")):
            self.refused(400, "VALIDATION_ERROR", "/ai/chat", messages=[good, bad], _field="messages[1]" + field)
        self.refused(400, "VALIDATION_ERROR", "/ai/chat", messages=[], _field="messages")

    def test_with_an_ai_url_it_forwards(self):
        ai = self.enter(OpenAI(200, {"choices": [{"message": {"content": "Hello from afar"}}]}))
        self.connect(self.enter(LocalPlatform(ai_url=ai.url + "/", ai_key="sk-1")))
        messages = [{"role": "user", "content": "hi"}]
        self.assertEqual(self.ok("/ai/chat", messages=messages, model="m"), {"response": "Hello from afar"})
        self.assertEqual(ai.got, [("/v1/chat/completions", "Bearer sk-1", {"messages": messages, "model": "m"})])

    def test_an_ai_server_that_fails_is_502(self):
        no_text = {"choices": [{"message": {"content": None}}]}
        for status, answer in ((500, {"error": "no"}), (200, {}), (200, no_text), (200, "x")):
            with self.subTest(status=status, answer=answer), OpenAI(status, answer) as ai:
                with LocalPlatform(ai_url=ai.url) as platform:
                    self.connect(platform)
                    self.refused(502, "INTERNAL_ERROR", "/ai/chat", messages=[{"content": "hi"}])
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, and not listening: connections are refused
            self.connect(self.enter(LocalPlatform(ai_url="http://127.0.0.1:%d/v1" % taken.getsockname()[1])))
            self.refused(502, "INTERNAL_ERROR", "/ai/chat", messages=[{"content": "hi"}])

    def test_an_ai_url_of_another_scheme_is_refused(self):
        for url in ("file:///etc/passwd", "localhost:11434", ""):
            with self.assertRaises(ValueError):
                LocalPlatform(ai_url=url)


class OpenAI:
    """An OpenAI-compatible server with one answer."""

    def __init__(self, status, answer):
        self.got = got = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])).decode())
                got.append((self.path, self.headers["Authorization"], body))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/v1" % self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


GET_KEY = b'POST /v1/cache/get HTTP/1.1\r\nHost: h\r\nX-Aerostack-Key: k\r\nContent-Length: 11\r\n\r\n{"key":"k"}'
CHUNKED = b"POST /v1/cache/get HTTP/1.1\r\nX-Aerostack-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n"


class HttpTests(PlatformTestCase):
    def test_one_connection_serves_many_requests_refused_ones_too(self):
        self.ok("/cache/get", key="k")
        sock = self.client.sock
        for _ in range(3):
            self.ok("/cache/get", key="k")
            self.refused(400, "VALIDATION_ERROR", "/cache/get")
            self.assertEqual(self.call("/cache/get", "{}", {"X-Aerostack-Key": ""})[0], 401)
        self.assertIs(self.client.sock, sock)

    def test_pipelined_requests_are_answered_in_order(self):
        with self.raw() as (sock, reader):
            sock.sendall(GET_KEY + b"\r\n" + GET_KEY.replace(b"/v1", b"/v2") + GET_KEY)
            self.assertEqual([self.read_answer(reader)[0] for _ in range(3)], [200, 404, 200])

    def test_a_response_leaves_in_one_piece_without_delay(self):
        with self.raw() as (sock, _):
            sock.sendall(GET_KEY)
            self.assertTrue(sock.recv(65536).endswith(b'{"value":null,"exists":false}'))

    def test_chunked_bodies_with_extensions_and_trailers_are_read(self):
        with self.raw() as (sock, reader):
            sock.sendall(CHUNKED + b'4;x=1\r\n{"ke\r\n7 \r\ny":"k"}\r\n0\r\nTrailer: x\r\n\r\n' + GET_KEY)
            self.assertEqual([self.read_answer(reader)[0] for _ in range(2)], [200, 200])

    def test_malformed_chunks_are_refused_and_end_the_connection(self):
        for chunk in (b"+4\r\n", b"0x4\r\n", b"4_0\r\n", b"\r\n", b"-1\r\n", b"4\n{}  \n", b"2\r\n{}XX\r\n"):
            with self.subTest(chunk=chunk), self.raw() as (sock, reader):
                sock.sendall(CHUNKED + chunk)
                sock.shutdown(socket.SHUT_WR)
                status, headers, _ = self.read_answer(reader)
                self.assertEqual((status, headers["Connection"]), (400, "close"))
                self.assertEqual(reader.read(), b"")

    def test_malformed_heads_are_refused_and_end_the_connection(self):
        post = b"POST /v1/cache/get HTTP/1.1\r\n"
        for head in (
            b"SSH-2.0-x\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET /\r\n\r\n",
            post + b"no colon\r\n\r\n",
            post + b"Name : x\r\n\r\n",
            post + b" folded: x\r\n\r\n",
            post + b"A: x\ry\r\n\r\n",
            post + b"A: \0\r\n\r\n",
            post + b"Content-Length: -1\r\n\r\n",
            post + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            post + b"Transfer-Encoding: gzip\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            b"POST http://[::1 HTTP/1.1\r\n\r\n",
        ):
            with self.subTest(head=head), self.raw() as (sock, reader):
                sock.sendall(head)
                sock.shutdown(socket.SHUT_WR)
                status, headers, content = self.read_answer(reader)
                self.assertEqual((status, headers["Connection"]), (400, "close"))
                self.assertEqual(json.loads(content.decode())["code"], "VALIDATION_ERROR")
                self.assertEqual(reader.read(), b"")

    def test_a_head_without_end_is_431_and_the_answer_arrives(self):
        with self.raw() as (sock, reader):
            sock.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000000)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(self.read_answer(reader)[0], 431)

    def test_expect_100_continue_is_answered_once_the_body_is_wanted(self):
        head, body = GET_KEY.replace(b"Host", b"Expect: 100-continue\r\nHost").split(b"\r\n\r\n")
        with self.raw() as (sock, reader):
            for _ in range(2):
                sock.sendall(head + b"\r\n\r\n")
                self.assertEqual(reader.readline() + reader.readline(), b"HTTP/1.1 100 Continue\r\n\r\n")
                sock.sendall(body)
                self.assertEqual(self.read_answer(reader)[0], 200)
            sock.sendall(head.replace(b"Key: k", b"Key: ") + b"\r\n\r\n")
            status, headers, _ = self.read_answer(reader)
            self.assertEqual((status, headers["Connection"]), (401, "close"))

    def test_a_client_that_wants_to_close_or_speaks_1_0_is_let_go(self):
        for request in (GET_KEY.replace(b"Host: h", b"Connection: Close"), GET_KEY.replace(b"HTTP/1.1", b"HTTP/1.0")):
            with self.raw() as (sock, reader):
                sock.sendall(request)
                self.assertEqual(self.read_answer(reader)[1]["Connection"], "close")
                self.assertEqual(reader.read(), b"")

    def test_an_upload_refused_at_its_head_still_gets_its_answer(self):
        head = "POST /v1/storage/upload HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n"
        with self.raw() as (sock, reader):
            sock.sendall(head.encode())
            sock.sendall(b"x" * 8000000)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(self.read_answer(reader)[0], 401)

    def test_a_whole_url_as_target_and_a_query_are_understood(self):
        for target in (b"http://h/v1/cache/get", b"/v1/cache/get?x=1"):
            with self.raw() as (sock, reader):
                sock.sendall(GET_KEY.replace(b"/v1/cache/get", target))
                self.assertEqual(self.read_answer(reader)[0], 200)

    def test_the_request_id_comes_back(self):
        response, _ = self.exchange("/v1/cache/get", "{}", {"X-Request-ID": "abc"})
        self.assertEqual(response.getheader("X-Request-ID"), "abc")


class LifeTests(PlatformTestCase):
    def setUp(self):
        pass

    def test_close_leaves_no_thread_and_no_connection(self):
        before = set(threading.enumerate())
        with LocalPlatform() as platform:
            self.connect(platform)
            self.ok("/cache/get", key="k")
            with self.raw() as (half_sent, _):
                half_sent.sendall(GET_KEY[:50])
                url = platform.url
                self.assertGreater(len(threading.enumerate()), len(before))
                platform.close()
                self.assertEqual(set(threading.enumerate()), before)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(half_sent.recv(1), b"")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", urlsplit(url).port))

    def test_closing_does_not_wait_for_an_endless_query(self):
        with LocalPlatform() as platform:
            self.connect(platform)
            started = threading.Event()
            database = platform._operations["/v1/db/query"][1].__self__._database
            database.connection.create_function("start", 0, started.set)
            endless = "WITH RECURSIVE n(x) AS (SELECT start() UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"
            self.client.request("POST", "/v1/db/query", json.dumps({"sql": endless}), {"X-Aerostack-Key": "k"})
            self.assertTrue(started.wait(10))

    def test_everything_is_still_there_after_a_restart_on_the_same_folder(self):
        folder = pathlib.Path(self.folder()) / "made" / "for us"
        file = form(("key", b"a/b", None), ("file", b"content", "image/png"))
        with LocalPlatform(data=folder) as platform:
            self.connect(platform)
            token = self.ok("/auth/signup", 201, email="a@b.c", password="secret")["token"]
            self.ok("/cache/set", key="k", value=[1])
            self.ok("/db/query", sql="CREATE TABLE t AS SELECT 7 AS n")
            job_id = self.ok("/queue/enqueue", 201, type="later", data={"n": 1})["jobId"]
            self.exchange("/v1/storage/upload", file, {"Content-Type": "multipart/form-data; boundary=b0"})
        with contextlib.closing(sqlite3.connect(str(folder / "platform.sqlite3"))) as store, store:
            store.execute("UPDATE jobs SET status = 'running'")  # as a process leaves it that is killed at work
        again = LocalPlatform(data=str(folder))
        again.register_handler("later", lambda data: data["n"])
        with again:
            self.connect(again)
            self.assertEqual(again.verify_token(token)["email"], "a@b.c")
            self.ok("/auth/signin", email="a@b.c", password="secret")
            self.assertEqual(self.ok("/cache/get", key="k")["value"], [1])
            self.assertEqual(self.ok("/db/query", sql="SELECT n FROM t")["results"], [{"n": 7}])
            self.assertEqual(again.wait_for_job(job_id).result, 1)
            response, content = self.exchange("/v1/storage/files/a/b", method="GET")
            self.assertEqual((response.getheader("Content-Type"), content), ("image/png", b"content"))

    def test_a_platform_can_start_again_and_keeps_its_functions(self):
        platform = LocalPlatform()
        platform.register_service("one", lambda data: 1)
        for _ in range(2):
            with platform:
                self.connect(platform)
                self.assertEqual(self.ok("/services/invoke", serviceName="one", data={})["result"], 1)
                with self.assertRaisesRegex(RuntimeError, "running already"):
                    platform.start()
            platform.close()
            with self.assertRaises(RuntimeError):
                _ = platform.url

    def test_a_port_in_use_is_an_error_that_leaves_nothing_open(self):
        with LocalPlatform() as platform:
            before = set(threading.enumerate())
            with self.assertRaises(OSError):
                LocalPlatform(port=urlsplit(platform.url).port).start()
            self.assertEqual(set(threading.enumerate()), before)

    def test_it_listens_beyond_loopback_only_when_told(self):
        with self.assertRaisesRegex(ValueError, "other machines"):
            LocalPlatform(host="0.0.0.0").start()
        with LocalPlatform(host="0.0.0.0", allow_remote=True) as platform:
            self.connect(platform)
            self.ok("/cache/get", key="k")

    def test_ipv6_loopback_works(self):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6 here")
        with LocalPlatform(host="::1") as platform:
            self.assertTrue(platform.url.startswith("http://[::1]:"))
            self.connect(platform)
            self.ok("/cache/get", key="k")

    def test_a_rate_limit_below_one_is_refused(self):
        with self.assertRaises(ValueError):
            LocalPlatform(rate_limit=0)


class CommandLineTests(unittest.TestCase):
    def start(self, *options, **environment):
        command = [sys.executable, "-W", "error", "-X", "dev", local_platform.__file__, "--port", "0", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "universal_newlines": True}
        process = subprocess.Popen(command, env=dict(os.environ, PYTHONIOENCODING="utf-8", **environment), **pipes)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def call(self, line, path, fields, key):
        address = line.split("http://")[1].split("/v1")[0]
        with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as client:
            client.request("POST", "/v1" + path, json.dumps(fields), {"X-Aerostack-Key": key})
            response = client.getresponse()
            return response.status, json.loads(response.read().decode())

    @unittest.skipIf(os.name == "nt", "Windows has no signals to send")
    def test_it_says_where_it_is_serves_and_stops_quietly(self):
        with tempfile.TemporaryDirectory() as folder:
            functions = os.path.join(folder, "functions.py")
            with open(functions, "w") as file:
                file.write("platform.register_service('one', lambda data: 1)\n")
            options = ("--functions", functions, "--data", folder, "--verbose", "--rate-limit", "1000")
            process = self.start(*options, AEROSTACK_API_KEY="right")
            line = process.stdout.readline()
            self.assertRegex(line, r'^Aerostack is here: SDK\(.*server_url="http://127\.0\.0\.1:\d+/v1"\)')
            self.assertNotIn("right", line)
            invoke = {"serviceName": "one", "data": {}}
            self.assertEqual(self.call(line, "/services/invoke", invoke, "wrong")[0], 401)
            self.assertEqual(self.call(line, "/services/invoke", invoke, "right")[1]["result"], 1)
            echo = {"serviceName": "echo", "data": {"a": 1}}
            self.assertEqual(self.call(line, "/services/invoke", echo, "right")[1]["result"], {"a": 1})
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            self.assertEqual((process.returncode, out), (0, ""))
            self.assertRegex(err, r"\A(POST /v1/services/invoke (401|200) [\d.]+ ms\n){3}\Z")

    def test_what_it_cannot_do_it_says_in_a_line(self):
        for options in (("--host", "0.0.0.0"), ("--ai-url", "ftp://x"), ("--data", __file__), ("--rate-limit", "0")):
            with self.subTest(options=options):
                process = self.start(*options)
                out, err = process.communicate(timeout=20)
                self.assertEqual((process.returncode, out), (1, ""))
                self.assertRegex(err, r"\AThe platform did not start: [^\n]+\n\Z")


@unittest.skipIf(aerostack_lite is None, "aerostack_lite cannot be imported")
class SdkTests(unittest.TestCase):
    def test_the_nine_operations_through_the_sdk(self):
        with LocalPlatform(key="key") as platform, aerostack_lite.SDK("key", server_url=platform.url) as sdk:
            platform.register_service("double", lambda data: data["n"] * 2)
            platform.register_handler("shout", lambda data: data["text"].upper())

            made = sdk.authentication.auth_signup(email="ann@example.com", password="secret", name="Ann")
            known = sdk.authentication.auth_signin(email="ann@example.com", password="secret")
            self.assertEqual(made.user, known.user)
            self.assertEqual(platform.verify_token(known.token)["exp"], known.expires_at.timestamp())

            self.assertTrue(sdk.cache.cache_set(key="k", value={"a": None}, ttl=60).success)
            self.assertEqual(sdk.cache.cache_get(key="k").value, {"a": None})
            platform.advance(61)
            self.assertFalse(sdk.cache.cache_get(key="k").exists)

            rows = sdk.database.db_query(sql="SELECT ? AS a", params=[1])
            self.assertEqual((rows.results, rows.count), ([{"a": 1}], 1))

            job = sdk.queue.queue_enqueue(type="shout", data={"text": "hello"})
            self.assertEqual(platform.wait_for_job(job.job_id).result, "HELLO")

            self.assertEqual(sdk.services.services_invoke(service_name="double", data={"n": 21}).result, 42)

            file = {"file_name": "a.bin", "content": b"content", "content_type": "image/png"}
            url = sdk.storage.storage_upload(key="a/b c.png", file=file).url
            with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)) as client:
                client.request("GET", urlsplit(url).path)
                response = client.getresponse()
                self.assertEqual((response.getheader("Content-Type"), response.read()), ("image/png", b"content"))

            chat = sdk.ai.ai_chat(messages=[{"role": "user", "content": "hello"}])
            self.assertEqual(chat.response, "You said: hello")

    def test_its_errors_are_those_of_the_api(self):
        errors = aerostack_lite.errors
        with LocalPlatform(key="key") as platform, aerostack_lite.SDK("key", server_url=platform.url) as sdk:
            with self.assertRaises(errors.ErrorResponse) as failed:
                sdk.database.db_query(sql="SELEC")
            self.assertEqual(failed.exception.data.code, "DB_QUERY_FAILED")
            self.assertIn("syntax error", failed.exception.data.message)
            with self.assertRaises(errors.ErrorResponse) as failed:
                sdk.authentication.auth_signin(email="ann@example.com", password="x")
            self.assertEqual(failed.exception.data.code, "AUTH_INVALID_CREDENTIALS")


if __name__ == "__main__":
    unittest.main()
