"""The embedded platform, seen from outside: by http.client and bare sockets, and at the end through the SDK."""

import base64
import contextlib
import datetime
import http.client
import http.server
import io
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import uuid
from unittest import mock
from urllib.parse import urlsplit

from examples import local_platform
from examples.local_platform import ApiError, LocalPlatform

try:
    import tracemalloc
except ImportError:  # PyPy has none
    tracemalloc = None
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
    float: [-0.1, 2.1, "1", True],
}
OPTIONAL = {
    ("/ai/chat", "max_tokens"): int,
    ("/ai/chat", "model"): str,
    ("/ai/chat", "temperature"): float,
    ("/ai/chat", "top_p"): float,
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
        body = b'{"key": "%s"}' % (b"k" * local_platform.JSON_BYTES)
        self.refused(413, "VALIDATION_ERROR", "/cache/get", body)
        self.refused(413, "VALIDATION_ERROR", "/cache/get", iter([body[:500], body[500:]]))


class AdmissionTests(PlatformTestCase):
    options = {"key": "right"}

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
        self.connect(self.enter(LocalPlatform(rate_limit=2)))
        clock = self.enter(mock.patch.object(local_platform.time, "time", return_value=1000.0))
        self.ok("/cache/get", key="k")
        self.ok("/cache/get", key="k")
        response, content = self.exchange("/v1/cache/get", '{"key": "k"}')
        self.assertEqual((response.status, response.getheader("Retry-After")), (429, "1"))
        self.assertEqual(json.loads(content.decode())["code"], "RATE_LIMIT_EXCEEDED")
        clock.return_value = 1001.0
        self.ok("/cache/get", key="k")

    def test_an_unknown_operation_is_404_and_another_method_405(self):
        self.connect(self.enter(LocalPlatform()))
        self.refused(404, "VALIDATION_ERROR", "/cache/delete", key="k")
        response, _ = self.exchange("/v1/cache/get", method="GET")
        self.assertEqual((response.status, response.getheader("Allow")), (405, "POST"))


class HostTests(PlatformTestCase):
    """A web page can make a name of its own resolve to 127.0.0.1; its browser then sends that name as Host."""

    def status(self, request_line, *hosts):
        head = [request_line + " HTTP/1.1", "X-Aerostack-Key: k", "Content-Length: 21", "Connection: close"]
        head += ["Host: " + host for host in hosts]
        with self.raw() as (sock, reader):
            sock.sendall(("\r\n".join(head) + "\r\n\r\n" + '{"key":"k","value":1}').encode())
            return self.read_answer(reader)[0]

    def statuses(self, *hosts):
        return {host: self.status("POST /v1/cache/set", host) for host in hosts}

    def test_loopback_names_are_answered_with_and_without_the_port(self):
        port = self.address.split(":")[1]
        for name in ("127.0.0.1", "localhost", "LocalHost", "localhost.", "[::1]", "127.8.8.8", "[0:0:0:0:0:0:0:1]"):
            for host in (name, name + ":" + port, name + ":", name + ":1"):
                self.assertEqual(self.statuses(host), {host: 200})
        self.assertEqual(self.status("POST http://localhost/v1/cache/set", "ignored.test"), 200)

    def test_every_other_name_is_refused_for_operations_and_for_files(self):
        hosts = [
            "evil.test",
            "evil.test:80",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "notlocalhost",
            "localhost-",
        ]
        hosts += ["192.168.0.1", "0.0.0.0", "[::]", "[fe80::1]", "2130706433", "127.1", "a.localhost"]
        self.assertEqual(self.statuses(*hosts), dict.fromkeys(hosts, 421))
        self.assertEqual(self.status("GET /v1/storage/files/k", "evil.test"), 421)
        self.assertEqual(self.status("POST http://evil.test/v1/cache/set", self.address), 421)
        self.assertEqual(self.ok("/cache/get", key="k"), {"value": None, "exists": False})

    def test_no_host_two_hosts_and_a_malformed_one_are_400(self):
        hosts = ["", "localhost, evil.test", "ann@localhost", "localhost/", "[::1", "::1", "localhost:x", "local host"]
        self.assertEqual(self.statuses(*hosts), dict.fromkeys(hosts, 400))
        self.assertEqual(self.status("POST /v1/cache/set"), 400)
        self.assertEqual(self.status("POST /v1/cache/set", "localhost", "localhost"), 400)
        self.assertEqual(self.status("POST http://ann@localhost/v1/cache/set", "localhost"), 400)

    def test_names_that_were_allowed_are_answered_and_stand_in_the_url_of_an_upload(self):
        self.connect(self.enter(LocalPlatform(allowed_hosts=["Platform.test", "10.1.2.3"])))
        self.assertEqual(self.statuses("platform.test:99", "10.1.2.3"), {"platform.test:99": 200, "10.1.2.3": 200})
        self.assertEqual(self.statuses("other.test", "10.1.2.4"), {"other.test": 421, "10.1.2.4": 421})
        body = form(("key", b"k", None), ("file", b"x", None))
        headers = {"Content-Type": "multipart/form-data; boundary=b0", "Host": "platform.test:99"}
        _, content = self.exchange("/v1/storage/upload", body, headers)
        self.assertEqual(json.loads(content.decode())["url"], "http://platform.test:99/v1/storage/files/k")

    def test_the_name_on_which_it_listens_is_answered(self):
        address = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
        with mock.patch.object(socket, "getaddrinfo", return_value=address):  # as in Lambda's sandbox
            platform = self.enter(LocalPlatform(host="sandbox.localdomain"))
        self.address = platform.url.split("/")[2].replace("sandbox.localdomain", "127.0.0.1")
        self.assertEqual(
            self.statuses("sandbox.localdomain", "localdomain"), {"sandbox.localdomain": 200, "localdomain": 421}
        )

    def test_when_other_machines_may_come_any_address_is_answered_but_no_name(self):
        self.connect(self.enter(LocalPlatform(host="0.0.0.0", allow_remote=True)))
        hosts = {"192.168.0.1": 200, "[fe80::1]:80": 200, "0.0.0.0": 200, "evil.test": 421, "localhost": 200}
        self.assertEqual(self.statuses(*hosts), hosts)


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

    def test_what_sqlite_itself_needs_is_allowed(self):
        for sql in (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, old REFERENCES t)",
            "CREATE INDEX i ON t (lower(name))",
            "CREATE VIEW v AS SELECT name FROM t",
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t WHERE id < new.id - 1; END",
            'INSERT INTO t (name) SELECT value FROM json_each(\'["a", "b", "c"]\')',
            "CREATE TEMP TABLE s AS SELECT * FROM v",
            "ALTER TABLE t RENAME COLUMN old TO older",
            "ALTER TABLE t RENAME TO u",
            "PRAGMA foreign_keys = ON",
            "PRAGMA User_Version = 7",
            "PRAGMA integrity_check",
            "ANALYZE",
            "REINDEX",
            "VACUUM",
            "EXPLAIN QUERY PLAN SELECT * FROM v",
        ):
            self.query(sql)
        self.assertEqual(self.query("SELECT name FROM pragma_table_info('u') WHERE pk"), ([{"name": "id"}], 1))
        self.assertEqual(self.query("SELECT group_concat(name) AS names FROM v")[0], [{"names": "b,c"}])
        for number, module in enumerate(("fts5(a)", "FTS4(a)", "rtree(a, low, high)")):
            table = "m%d" % number
            created, answer = self.call("/db/query", sql="CREATE VIRTUAL TABLE %s USING %s" % (table, module))
            if created == 400:  # not every SQLite has them
                self.assertIn("no such module", answer["message"])
            else:
                self.query("INSERT INTO %s (a) VALUES (?)" % table, 7)
                self.assertEqual(self.query("SELECT a + 0 = 7 AS found FROM %s" % table)[0], [{"found": 1}])

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


def sqlite_with(**functions):
    """Give every connection to SQLite more functions, as an extension would."""
    connect = sqlite3.connect

    def connected(*arguments, **options):
        connection = connect(*arguments, **options)
        for name, function in functions.items():
            connection.create_function(name, -1, function)
        return connection

    return mock.patch.object(sqlite3, "connect", connected)


class DatabaseFilesTests(PlatformTestCase):
    """SQL reaches no file and loads no code."""

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder(), "other.sqlite3")
        with contextlib.closing(sqlite3.connect(self.path)) as other, other:
            other.execute("CREATE TABLE t AS SELECT 'secret' AS s")
        with open(self.path, "rb") as file:
            self.content = file.read()

    def denied(self, sql, *params):
        with self.subTest(sql=sql):
            answer = self.refused(400, "DB_QUERY_FAILED", "/db/query", sql=sql, params=params)
            self.assertRegex(answer["message"], "authoriz|prohibited|no such function|near .INTO.: syntax error")

    def tearDown(self):
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["other.sqlite3"])
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), self.content)

    def test_no_other_database_is_opened_however_its_name_is_written(self):
        literal = "'%s'" % self.path
        for sql in (
            "ATTACH %s AS e" % literal,
            "ATTACH %s || '' AS e" % literal,
            "ATTACH (SELECT %s) AS e" % literal,
            "ATTACH CAST(%s AS TEXT) AS e" % literal,
            "ATTACH DATABASE lower(%s) AS e" % literal,
            "ATTACH 'file:%s?mode=ro' AS e" % self.path,
            'ATTACH "%s" AS e' % self.path,
            "EXPLAIN ATTACH %s || '' AS e" % literal,
            "/* VACUUM */ ATTACH x'%s' AS e" % self.path.encode().hex(),
        ):
            self.denied(sql)
        for name in ("?", "?1", "? || ''", "coalesce(?, '')"):
            self.denied("ATTACH %s AS e" % name, self.path)
        self.denied("ATTACH ? AS e", {"$base64": base64.b64encode(self.path.encode()).decode()})
        self.denied("ATTACH ? AS e", None)
        answer = self.refused(400, "DB_QUERY_FAILED", "/db/query", sql="SELECT * FROM e.t")
        self.assertIn("no such table", answer["message"])

    def test_the_database_is_written_to_no_file(self):
        self.ok("/db/query", sql="CREATE TABLE t (a)")
        new = os.path.join(os.path.dirname(self.path), "new.sqlite3")
        for path in (new, self.path, "file:" + new):
            self.denied("VACUUM INTO '%s'" % path)
            self.denied("VACUUM main INTO '%s' || ''" % path)
            self.denied("VACUUM INTO ?", path)

    def test_pragmas_that_name_a_file_or_bind_the_whole_process_are_refused(self):
        folder = os.path.dirname(self.path)
        for name in ("temp_store_directory", "Temp_Store_Directory", "data_store_directory", "lock_proxy_file"):
            self.denied("PRAGMA %s = '%s'" % (name, folder))
            self.denied("PRAGMA main.%s('%s')" % (name, folder))
        for pragma in ("hard_heap_limit = 1", "writable_schema = ON", "journal_mode = OFF", "key = 'x'", "no_such = 1"):
            self.denied("PRAGMA " + pragma)

    def test_functions_that_load_code_or_open_files_are_refused_where_there_are_such(self):
        called = []
        names = ("readfile", "WriteFile", "edit", "load_extension", "fts3_tokenizer")
        with sqlite_with(**{name: lambda *_: called.append("called") for name in names}):
            self.connect(self.enter(LocalPlatform()))
        for name in names:
            for sql in ("SELECT %s(?)", "SELECT 1 WHERE %s(?, '') IS NULL", "SELECT upper(%s(?))", "VALUES (%s(?))"):
                self.denied(sql % name.upper(), self.path)
        self.ok("/db/query", sql="CREATE TABLE t (a)")
        self.ok("/db/query", sql="CREATE VIEW v AS SELECT readfile(a) AS content FROM t")
        self.ok("/db/query", sql="CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT writefile(new.a, 'x'); END")
        self.denied("SELECT content FROM v")
        self.denied("INSERT INTO t VALUES (?)", self.path)
        self.assertEqual(called, [])

    def test_virtual_tables_over_files_are_refused(self):
        for module in ("csv(filename='%s')", "zipfile('%s')", "swarmvtab('%s')", "no_such_module"):
            self.denied("CREATE VIRTUAL TABLE v USING " + module.replace("%s", self.path))
            self.denied("CREATE VIRTUAL TABLE temp.v USING " + module.replace("%s", self.path))
        for name in ("fsdir", "zipfile"):  # as tables of their own, such as these two, they need no CREATE
            self.ok("/db/query", sql="CREATE TABLE %s (name)" % name)
            self.denied("SELECT name FROM %s" % name)
            self.denied("SELECT count(*) FROM %s" % name.upper())


NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT started() UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"


class EndlessQueryTests(PlatformTestCase):
    def setUp(self):
        self.started = threading.Event()
        with sqlite_with(started=self.started.set):
            self.platform = self.enter(LocalPlatform(max_query_seconds=3600))
        self.connect(self.platform)

    def ask(self, sock, sql):
        body = json.dumps({"sql": sql})
        head = "POST /v1/db/query HTTP/1.1\r\nHost: localhost\r\nX-Aerostack-Key: k\r\nContent-Length: %d\r\n\r\n"
        sock.sendall((head % len(body) + body).encode())

    def ask_endless(self, sock):
        self.started.clear()
        self.ask(sock, ENDLESS)
        self.assertTrue(self.started.wait(10))

    def test_a_query_ends_at_its_limit_whatever_it_does_and_changes_nothing(self):
        self.connect(self.enter(LocalPlatform(max_query_seconds=0.05)))
        for sql in (
            NUMBERS + "SELECT count(*) FROM n",
            NUMBERS + "SELECT x FROM n WHERE x < 0",
            NUMBERS + "SELECT x FROM n ORDER BY x DESC",
            NUMBERS + "SELECT group_concat(x) FROM n",
            NUMBERS + ", m AS (SELECT x FROM n LIMIT 9999) SELECT count(*) FROM m a, m b, m c, m d WHERE a.x + b.x = 0",
            "CREATE TABLE made AS " + NUMBERS + "SELECT x FROM n",
        ):
            with self.subTest(sql=sql):
                answer = self.refused(400, "DB_QUERY_FAILED", "/db/query", sql=sql)
                self.assertEqual(answer["message"], "the query took longer than 0.05 seconds")
        tables = self.ok("/db/query", sql="SELECT count(*) AS n FROM sqlite_master")
        self.assertEqual(tables["results"], [{"n": 0}])

    def test_rows_without_end_are_refused_before_they_fill_the_memory(self):
        with mock.patch.object(local_platform, "ROWS_BYTES", 100000):
            for cells in ("x", "hex(zeroblob(5000))", "zeroblob(5000)", "'' AS a, '' AS b"):
                answer = self.refused(400, "DB_QUERY_FAILED", "/db/query", sql=NUMBERS + "SELECT %s FROM n" % cells)
                self.assertIn("LIMIT", answer["message"])
            self.assertEqual(self.ok("/db/query", sql=NUMBERS + "SELECT x FROM n LIMIT 1000")["count"], 1000)

    def test_a_database_without_end_is_refused_before_it_fills_the_memory(self):
        with mock.patch.object(local_platform, "DATABASE_PAGES", 100):
            self.connect(self.enter(LocalPlatform()))
        sql = "CREATE TABLE t AS " + NUMBERS + "SELECT x FROM n"
        self.assertIn("full", self.refused(400, "DB_QUERY_FAILED", "/db/query", sql=sql)["message"])
        self.ok("/db/query", sql="CREATE TABLE t (a)")

    def test_a_query_ends_when_its_client_leaves_and_others_are_answered(self):
        def reset(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

        ways = {"close": socket.socket.close, "half": lambda sock: sock.shutdown(socket.SHUT_WR), "reset": reset}
        for way, leave in ways.items():
            with self.subTest(way=way), socket.create_connection(self.address.split(":"), 10) as sock:
                self.ask_endless(sock)
                leave(sock)
                self.assertEqual(self.ok("/db/query", sql="SELECT 1 AS one")["results"], [{"one": 1}])

    def test_so_does_one_whose_client_leaves_before_its_turn(self):
        with self.raw() as (first, _):
            self.ask_endless(first)
            with self.raw() as (second, _):
                self.ask(second, NUMBERS + "SELECT count(*) FROM n")
        self.assertEqual(self.ok("/db/query", sql="SELECT 1 AS one")["results"], [{"one": 1}])

    def test_other_operations_go_on_meanwhile(self):
        with self.raw() as (sock, _):
            self.ask_endless(sock)
            self.assertEqual(self.ok("/cache/set", key="k", value=1), {"success": True})

    def test_what_a_client_sends_meanwhile_is_not_lost(self):
        long = "WITH RECURSIVE n(x) AS (SELECT coalesce(started(), 1) UNION ALL SELECT x + 1 FROM n LIMIT 500000)"
        with self.raw() as (sock, reader):
            self.ask(sock, long + " SELECT count(*) AS n FROM n")
            self.assertTrue(self.started.wait(10))
            self.ask(sock, "SELECT 7 AS n")
            for number in (500000, 7):
                status, _, content = self.read_answer(reader)
                self.assertEqual((status, json.loads(content.decode())["results"]), (200, [{"n": number}]))

    def test_behind_a_step_that_cannot_be_ended_others_are_told_to_come_back(self):
        entered, leave = threading.Event(), threading.Event()
        self.addCleanup(leave.set)
        with sqlite_with(hold=lambda: entered.set() or leave.wait(20)):
            self.connect(self.enter(LocalPlatform(max_query_seconds=0.1)))
        with self.raw() as (sock, reader):
            self.ask(sock, "SELECT hold() AS held")
            self.assertTrue(entered.wait(10))
            response, content = self.exchange("/v1/db/query", '{"sql": "SELECT 1"}')
            self.assertEqual((response.status, response.getheader("Retry-After")), (503, "1"))
            self.assertEqual(json.loads(content.decode())["code"], "DB_QUERY_FAILED")
            leave.set()
            self.assertEqual(self.read_answer(reader)[0], 200)
        self.ok("/db/query", sql="SELECT 1")

    def test_closing_the_platform_ends_it(self):
        with self.raw() as (sock, _):
            self.ask_endless(sock)
            self.platform.close()
        self.assertEqual([thread.name for thread in threading.enumerate() if "platform" in thread.name], [])


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

        self.platform.register_handler("later", lambda data: "done at last")
        self.assertEqual(self.platform.wait_for_job(job_id).result, "done at last")

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

    def test_jobs_of_one_moment_run_in_the_order_in_which_they_came(self):
        ran = []
        with mock.patch.object(local_platform.time, "time", return_value=1000.0):
            jobs = [self.enqueue("note", {"n": number}) for number in range(12)]
            self.platform.register_handler("note", lambda data: ran.append(data["n"]))
            self.platform.wait_for_job(jobs[-1])
        self.assertEqual(ran, list(range(12)))

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
        self.platform.register_service("nothing", lambda data: None)
        self.assertEqual(self.invoke("double", n=21), (200, {"success": True, "result": 42}))
        self.assertEqual(self.invoke("nothing"), (200, {"success": True, "result": None}))

    def test_an_unknown_service_is_404(self):
        self.refused(404, "VALIDATION_ERROR", "/services/invoke", serviceName="x", data={}, _field="serviceName")

    def test_a_function_that_fails_is_500_with_its_reason(self):
        self.platform.register_service("fail", lambda data: data["missing"])
        self.platform.register_service("odd", lambda data: object())
        status, answer = self.invoke("fail")
        self.assertEqual((status, answer["code"], answer["message"]), (500, "INTERNAL_ERROR", "KeyError: 'missing'"))
        self.assertEqual(self.invoke("odd")[0], 500)

        def unreachable(data):
            raise ConnectionRefusedError("somebody else's server is down")

        self.platform.register_service("unreachable", unreachable)
        self.assertEqual(self.invoke("unreachable")[0], 500)

    def test_a_function_may_choose_the_error(self):
        def busy(data):
            raise ApiError(503, "INTERNAL_ERROR", "Come back", {"queue": 9}, {"Retry-After": "7"})

        self.platform.register_service("busy", busy)
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

    def test_the_token_is_a_signed_one_that_names_the_user_and_its_end(self):
        signed_in = self.ok("/auth/signup", 201, **self.ANN)
        parts = [base64.urlsafe_b64decode(part + "==") for part in signed_in["token"].split(".")]
        claims = json.loads(parts[1].decode())
        self.assertEqual(json.loads(parts[0].decode()), {"alg": "HS256", "typ": "JWT"})
        self.assertEqual((claims["sub"], claims["email"]), (signed_in["user"]["id"], "ann@example.com"))
        ends = datetime.datetime.strptime(signed_in["expiresAt"] + "+0000", "%Y-%m-%dT%H:%M:%SZ%z").timestamp()
        self.assertEqual((claims["exp"], claims["exp"] - claims["iat"]), (ends, local_platform.TOKEN_SECONDS))
        self.assertEqual(len(parts[2]), 32)

    def test_the_platforms_clock_is_that_of_the_tokens(self):
        before = self.ok("/auth/signup", 201, **self.ANN)["expiresAt"]
        self.platform.advance(3600)
        self.assertGreater(self.ok("/auth/signin", **self.ANN)["expiresAt"], before)


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
    """With bodies in memory; the next class runs all of it again with bodies in temporary files."""

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

    def test_a_download_outlasts_what_replaces_the_file(self):
        url = self.store("a", b"old" * 8000000)
        with self.raw() as (sock, reader):
            sock.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % urlsplit(url).path.encode())
            self.assertEqual(reader.readline(), b"HTTP/1.1 200 OK\r\n")
            self.store("a", b"new")
            headers = http.client.parse_headers(reader)
            self.assertEqual(reader.read(int(headers["Content-Length"])), b"old" * 8000000)
        self.assertEqual(self.get(url)[2], b"new")


class LongUploadTests(StorageTests):
    def setUp(self):
        self.enter(mock.patch.object(local_platform, "MEMORY_BYTES", 1))
        self.enter(mock.patch.object(tempfile, "tempdir", self.folder()))
        super().setUp()

    def tearDown(self):
        if os.name == "posix":  # nothing is left behind, not even by a process that is killed
            self.assertEqual(os.listdir(tempfile.tempdir), [])

    @unittest.skipIf(tracemalloc is None, "nothing here counts memory")
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

    def test_an_upload_that_breaks_off_is_not_stored(self):
        body = form(("key", b"k", None), ("file", b"x" * 1000, None))
        head = "POST /v1/storage/upload HTTP/1.1\r\nHost: localhost\r\nX-Aerostack-Key: k\r\nContent-Length: %d\r\n"
        head += "Content-Type: multipart/form-data; boundary=b0\r\n\r\n"
        with self.raw() as (sock, reader):
            sock.sendall((head % len(body)).encode() + body[:-100])
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(reader.read(), b"")
        self.assertEqual(self.get(self.platform.url + "/storage/files/k")[0], 404)


class ChatTests(PlatformTestCase):
    def test_it_echoes_what_the_user_said_last(self):
        said = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}, {"role": "assistant"}]
        self.assertEqual(self.ok("/ai/chat", messages=said), {"response": "You said: two"})
        self.assertEqual(self.ok("/ai/chat", messages=[{"content": "x"}]), {"response": "You said: x"})
        only = [{"role": "system", "content": "be kind"}]
        self.assertEqual(self.ok("/ai/chat", messages=only), {"response": "You said: be kind"})

    def test_content_may_be_a_list_of_parts(self):
        parts = [
            {"type": "text", "text": "one"},
            {"type": "image_url", "image_url": {}},
            {"type": "text", "text": "two"},
        ]
        said = [
            {"role": "user", "content": parts, "name": "ann"},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]
        self.assertEqual(self.ok("/ai/chat", messages=said), {"response": "You said: one\ntwo"})
        self.assertEqual(self.ok("/ai/chat", messages=[{"content": []}]), {"response": "You said: "})

    def test_sampling_parameters_have_their_ranges(self):
        said = [{"role": "user", "content": "x"}]
        for fields in ({"temperature": 0, "top_p": 1, "max_tokens": 1}, {"temperature": 2.0, "top_p": 0.5}):
            self.assertEqual(self.ok("/ai/chat", messages=said, **fields), {"response": "You said: x"})
        for name, value in (("top_p", 1.5), ("max_tokens", 0), ("max_tokens", 1.0), ("temperature", 3)):
            self.refused(400, "VALIDATION_ERROR", "/ai/chat", messages=said, _field=name, **{name: value})

    def test_a_bad_message_is_named(self):
        good = {"role": "user", "content": "x"}
        for bad, field in (
            (7, ""),
            ({"content": 5}, ".content"),
            ({"role": []}, ".role"),
            ({"content": ["x"]}, ".content[0]"),
            ({"content": [{"type": "text", "text": "x"}, {"text": "x"}]}, ".content[1].type"),
            ({"content": [{"type": "text", "text": 5}]}, ".content[0].text"),
        ):
            self.refused(400, "VALIDATION_ERROR", "/ai/chat", messages=[good, bad], _field="messages[1]" + field)
        self.refused(400, "VALIDATION_ERROR", "/ai/chat", messages=[], _field="messages")

    def test_with_an_ai_url_it_forwards(self):
        ai = self.enter(OpenAI(200, {"choices": [{"message": {"content": "Hello from afar"}}]}))
        self.connect(self.enter(LocalPlatform(ai_url=ai.url + "/", ai_key="sk-1")))
        parts = [{"type": "text", "text": "hi"}, {"type": "input_audio", "input_audio": {"data": ""}}]
        messages = [{"role": "user", "content": parts, "name": "ann"}]
        for fields in ({}, {"model": "m", "temperature": 0.5, "max_tokens": 9, "top_p": 1}):
            self.assertEqual(self.ok("/ai/chat", messages=messages, **fields), {"response": "Hello from afar"})
            asked = ("/v1/chat/completions", "Bearer sk-1", {"messages": messages, **fields})
            self.assertEqual(ai.got.pop(), asked)

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


GET_KEY = (
    b'POST /v1/cache/get HTTP/1.1\r\nHost: localhost\r\nX-Aerostack-Key: k\r\nContent-Length: 11\r\n\r\n{"key":"k"}'
)
CHUNKED = b"POST /v1/cache/get HTTP/1.1\r\nHost: localhost\r\nX-Aerostack-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n"


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
        post = b"POST /v1/cache/get HTTP/1.1\r\nHost: localhost\r\n"
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

    def test_expect_100_continue_is_answered(self):
        head, body = GET_KEY.replace(b"Host", b"Expect: 100-continue\r\nHost").split(b"\r\n\r\n")
        with self.raw() as (sock, reader):
            for _ in range(2):
                sock.sendall(head + b"\r\n\r\n")
                self.assertEqual(reader.readline() + reader.readline(), b"HTTP/1.1 100 Continue\r\n\r\n")
                sock.sendall(body)
                self.assertEqual(self.read_answer(reader)[0], 200)

    def test_a_client_that_wants_to_close_or_speaks_1_0_is_let_go(self):
        old = GET_KEY.replace(b"HTTP/1.1", b"HTTP/1.0")
        old_without_host = old.replace(b"Host: localhost\r\n", b"")
        for request in (GET_KEY.replace(b"X-Aero", b"Connection: Close\r\nX-Aero"), old, old_without_host):
            with self.raw() as (sock, reader):
                sock.sendall(request)
                self.assertEqual(self.read_answer(reader)[1]["Connection"], "close")
                self.assertEqual(reader.read(), b"")

    def test_an_upload_that_is_refused_gets_its_answer(self):
        head = "POST /v1/storage/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n"
        with self.raw() as (sock, reader):
            sock.sendall(head.encode())
            sock.sendall(b"x" * 8000000)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(self.read_answer(reader)[0], 401)

    def test_a_whole_url_as_target_and_a_query_are_understood(self):
        for target in (b"http://localhost/v1/cache/get", b"/v1/cache/get?x=1"):
            with self.raw() as (sock, reader):
                sock.sendall(GET_KEY.replace(b"/v1/cache/get", target))
                self.assertEqual(self.read_answer(reader)[0], 200)

    def test_the_request_id_is_a_uuid_and_comes_back(self):
        known = uuid.uuid4()
        for request_id in (str(known), str(known).upper(), known.hex):
            response, _ = self.exchange("/v1/cache/get", '{"key": "k"}', {"X-Request-ID": request_id})
            self.assertEqual((response.status, response.getheader("X-Request-ID")), (200, request_id))
        for request_id in ("abc", "", str(known) + "0", "{%s}" % known, str(known).replace("-", "_")):
            response, content = self.exchange("/v1/cache/get", '{"key": "k"}', {"X-Request-ID": request_id})
            self.assertEqual(
                (response.status, json.loads(content.decode())["details"]), (400, {"field": "X-Request-ID"})
            )


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

    def test_closing_forgets_everything(self):
        platform = LocalPlatform()
        with platform:
            self.connect(platform)
            self.ok("/cache/set", key="k", value=1)
            self.ok("/db/query", sql="CREATE TABLE t (a)")
        with platform:
            self.connect(platform)
            self.assertFalse(self.ok("/cache/get", key="k")["exists"])
            self.ok("/db/query", sql="CREATE TABLE t (a)")

    def test_its_repr_has_no_key(self):
        self.assertNotIn("secret", repr(LocalPlatform(key="secret", ai_key="secret")))

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

    def call(self, line, path, fields, key, **headers):
        address = line.split("http://")[1].split("/v1")[0]
        with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as client:
            client.request("POST", "/v1" + path, json.dumps(fields), {"X-Aerostack-Key": key, **headers})
            response = client.getresponse()
            return response.status, json.loads(response.read().decode())

    @unittest.skipIf(os.name == "nt", "Windows has no signals to send")
    def test_it_says_where_it_is_serves_and_stops_quietly(self):
        options = (
            "--verbose",
            "--rate-limit",
            "1000",
            "--max-query-seconds",
            "9",
            "--allowed-hosts",
            "a.test",
            "b.test",
        )
        process = self.start(*options, AEROSTACK_API_KEY="right")
        line = process.stdout.readline()
        self.assertRegex(line, r'^Aerostack is here: SDK\(.*server_url="http://127\.0\.0\.1:\d+/v1"\)')
        self.assertNotIn("right", line)
        echo = {"serviceName": "echo", "data": {"a": 1}}
        self.assertEqual(self.call(line, "/services/invoke", echo, "wrong")[0], 401)
        self.assertEqual(self.call(line, "/services/invoke", echo, "right")[1]["result"], {"a": 1})
        self.assertEqual(self.call(line, "/services/invoke", echo, "right", Host="b.test")[0], 200)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual((process.returncode, out), (0, ""))
        self.assertRegex(err, r"\A(POST /v1/services/invoke (401|200) [\d.]+ ms\n){3}\Z")

    def test_what_it_cannot_do_it_says_in_a_line(self):
        for options in (("--host", "0.0.0.0"), ("--ai-url", "ftp://x"), ("--rate-limit", "0")):
            with self.subTest(options=options), mock.patch("sys.argv", ["local_platform.py", *options]):
                with mock.patch("signal.signal"), contextlib.redirect_stderr(io.StringIO()) as complaints:
                    with self.assertRaises(SystemExit) as ended:
                        local_platform.main()
                self.assertEqual(ended.exception.code, 1)
                self.assertRegex(complaints.getvalue(), r"\AThe platform did not start: [^\n]+\n\Z")


@unittest.skipIf(aerostack_lite is None, "aerostack_lite cannot be imported")
class SdkTests(unittest.TestCase):
    def test_the_nine_operations_through_the_sdk(self):
        with LocalPlatform(key="key") as platform, aerostack_lite.SDK("key", server_url=platform.url) as sdk:
            platform.register_service("double", lambda data: data["n"] * 2)
            platform.register_handler("shout", lambda data: data["text"].upper())

            made = sdk.authentication.auth_signup(email="ann@example.com", password="secret", name="Ann")
            known = sdk.authentication.auth_signin(email="ann@example.com", password="secret")
            self.assertEqual(made.user, known.user)
            self.assertEqual(made.expires_at.date(), known.expires_at.date())

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

            localhost = aerostack_lite.SDK("key", server_url=platform.url.replace("127.0.0.1", "localhost"))
            with localhost as sdk:
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
