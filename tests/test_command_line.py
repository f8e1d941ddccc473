"""The command line: what is typed, what is sent, what is printed where, and the six exit statuses."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import aerostack_lite
from tests.newcomer import MODULE, PATIENCE_SECONDS, ROOT, copy_module, local_platform
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    answer,
    at_once,
    close,
    expect,
    free_port,
    hang,
    header,
    repeat,
)
from tests.side_by_side import side_by_side

KEY = "k-very-secret-key"
NO_KEY = {"AEROSTACK_API_KEY": ""}
OPERATIONS = aerostack_lite.OPERATIONS
# Python in a terminal or a service whose locale is plain ASCII, without what Python does about it by itself.
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
REQUESTS = {  # what one would type, and the body that it must become
    "ai_chat": (
        ['messages:=[{"role": "user", "content": "Hello"}]', "model=m"],
        {"messages": [{"role": "user", "content": "Hello"}], "model": "m"},
    ),
    "auth_signin": (["email=a@b.c", "password=@password.txt"], {"email": "a@b.c", "password": "s3cr3t!!"}),
    "auth_signup": (
        ["email=a@b.c", "password=@password.txt", 'metadata:={"n": 1}'],
        {"email": "a@b.c", "password": "s3cr3t!!", "metadata": {"n": 1}},
    ),
    "cache_get": (["key=k"], {"key": "k"}),
    "cache_set": (["key=k", "value:=null", "ttl=60"], {"key": "k", "value": None, "ttl": 60}),
    "db_query": (["sql=SELECT 1", "params:=[1, null]"], {"sql": "SELECT 1", "params": [1, None]}),
    "queue_enqueue": (["type=t", "data:={}", "delay:=5"], {"type": "t", "data": {}, "delay": 5}),
    "services_invoke": (["service_name=s", "data:={}"], {"serviceName": "s", "data": {}}),
    "storage_upload": (["key=k.txt", "file=@a.jpg"], None),
}


def installed_command():
    """The function that the installed command `aerostack-lite` calls."""
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        name = re.search(r'(?m)^aerostack-lite = "aerostack_lite:(\w+)"$', file.read()).group(1)
    return getattr(aerostack_lite, name)


AGAIN_SECONDS = 1  # Python does not see a signal that comes just before a wait begins, so there is another after a time
# The installed command in a program of its own, from bytecode: a file that is a program is compiled each time.
PROGRAM = "import sys, aerostack_lite; sys.argv[0] = 'aerostack_lite'; sys.exit(aerostack_lite.%s())"


class Text(io.TextIOWrapper):
    """Standard input or output in memory, as a terminal or as none, in an encoding as PYTHONIOENCODING names it."""

    def __init__(self, content=b"", terminal=False, console="utf-8"):
        encoding, _, errors = console.partition(":")
        super().__init__(io.BytesIO(content), encoding, errors or "strict", newline="", write_through=True)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def said(self):
        return self.buffer.getvalue().decode(self.encoding, self.errors)


def program():
    """The line that starts the command as a program of its own."""
    return [sys.executable, "-W", "error", "-c", PROGRAM % installed_command().__name__]


class CommandLineCase(LoopbackTestCase):
    def setUp(self):
        super().setUp()
        os.environ["AEROSTACK_API_KEY"] = KEY
        folder = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)

    def write(self, name, content):
        with open(name, "wb") as file:
            file.write(content)
        return name

    def run_here(self, *arguments, **settings):
        """Run the command in this process: (status, output, errors). A stream that is None was closed by the shell."""
        console, stdin = settings.get("console", "utf-8"), settings.get("stdin", b"")
        output = Text(terminal=settings.get("terminal", False), console=console)
        complaints = Text(console=console.partition(":")[0] + ":backslashreplace")
        stdin = None if stdin is None else Text(stdin, console=console)
        with mock.patch("sys.stdin", stdin), mock.patch("sys.stdout", settings.get("stdout", output)):
            with mock.patch("sys.stderr", settings.get("stderr", complaints)):
                with mock.patch("sys.argv", ["aerostack_lite.py"] + list(arguments)):
                    try:
                        status = installed_command()()
                    except SystemExit as end:
                        status = end.code
        return status or 0, output.said(), complaints.said()

    def run_apart(self, *arguments, **settings):
        """Run the command as a program of its own: (status, output, errors), as bytes."""
        settings.setdefault("stdout", subprocess.PIPE)
        settings.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run(
            [*(settings.pop("command", None) or program()), *arguments],
            timeout=PATIENCE_SECONDS,
            env={**os.environ, "PYTHONPATH": ROOT, **settings.pop("environment", {})},
            **settings,
        )
        return done.returncode, done.stdout, done.stderr

    def sent(self, *arguments, **settings):
        """The body that is sent for what is typed. With `apart`, by a program of its own."""
        apart = settings.pop("apart", False)
        with ScriptedServer([expect, answer()]) as server:
            run = self.run_apart if apart else self.run_here
            status, output, complaints = run(*arguments + ("--server-url", server.url), **settings)
            self.assertEqual((status, len(complaints)), (0, 0), (output, complaints))
            return server.requests[0].partition(b"\r\n\r\n")[2]

    def refused(self, *arguments, **settings):
        """Wrong usage: 2, nothing on standard output, nothing sent. What was said."""
        apart = settings.pop("apart", False)
        with ScriptedServer([expect, answer()]) as server:
            os.environ["AEROSTACK_SERVER_URL"] = server.url
            status, output, complaints = (self.run_apart if apart else self.run_here)(*arguments, **settings)
            self.assertEqual((status, len(output), server.connections), (2, 0, 0), complaints)
        complaints = complaints.decode() if apart else complaints
        self.assertNotIn("Traceback", complaints)
        return complaints


class RequestTest(CommandLineCase):
    def test_each_operation_sends_what_is_typed(self):
        self.write("a.jpg", b"\xff\xd8 picture")
        self.write("password.txt", b"s3cr3t!!")
        for operation in OPERATIONS:
            with self.subTest(operation.name), ScriptedServer([expect, answer()]) as server:
                typed, body = REQUESTS[operation.name]
                status, output, complaints = self.run_here(operation.name, *typed + ["--server-url", server.url])
                self.assertEqual((status, complaints), (0, ""))
                self.assertEqual(json.loads(output), {})
                request = server.requests[0]
                line = "%s %s HTTP/1.1\r\n" % (operation.method, operation.path)
                self.assertTrue(request.startswith(line.encode()), request)
                self.assertEqual(header(request, "X-Aerostack-Key"), [KEY])
                if body is not None:
                    self.assertEqual(json.loads(request.partition(b"\r\n\r\n")[2]), body)

    def test_a_value_is_text_whatever_it_looks_like(self):
        for text in ("5", "null", "", "a=b", "a:=b", "[1]", "\u00fc", " x "):
            self.assertEqual(json.loads(self.sent("cache_set", "key=k", "value=" + text))["value"], text)

    def test_a_value_is_any_json(self):
        for value in (None, True, 5, 1.5, "t", "@file", [1], {"a": {"b": []}}):
            self.assertEqual(json.loads(self.sent("cache_set", "key=k", "value:=" + json.dumps(value)))["value"], value)

    def test_a_value_comes_from_a_file_or_from_standard_input(self):
        self.write("query.sql", "SELECT '\u00fc'\n".encode())
        self.assertEqual(json.loads(self.sent("db_query", "sql=@query.sql"))["sql"], "SELECT '\u00fc'\n")
        self.assertEqual(json.loads(self.sent("db_query", "sql=@-", stdin=b"SELECT 2\n"))["sql"], "SELECT 2\n")

    def test_json_comes_from_a_file_or_from_standard_input(self):
        data = {"to": "ada@example.com", "n": [1.5, None, "\u00fc\r\n"]}
        for content in (json.dumps(data), json.dumps(data, ensure_ascii=False, indent=2) + "\r\n"):
            self.write("job.json", content.encode())
            body = self.sent("queue_enqueue", "type=t", "data:=@job.json")
            self.assertEqual(json.loads(body), {"type": "t", "data": data})
            body = self.sent("queue_enqueue", "type=t", "data:=@-", stdin=content.encode())
            self.assertEqual(json.loads(body), {"type": "t", "data": data})
        for value in (b"null", b"5", b'"@job.json"', b"[]"):
            self.write("value.json", value)
            body = self.sent("cache_set", "key=k", "value:=@value.json")
            self.assertEqual(json.loads(body)["value"], json.loads(value))

    def test_every_field_that_is_json_can_come_from_a_file(self):
        for name, content, line in (
            ("messages", '[{"role": "user", "content": "Hello"}]', ["ai_chat"]),
            ("metadata", '{"plan": "free"}', ["auth_signup", "email=a@b.c", "password=@password.txt"]),
            ("params", "[1, null]", ["db_query", "sql=SELECT ?"]),
            ("ttl", "60", ["cache_set", "key=k", "value=v"]),
            ("data", "{}", ["services_invoke", "service_name=s"]),
        ):
            self.write("password.txt", b"s3cr3t!!")
            self.write("in a folder.json", content.encode())
            with self.subTest(name):
                self.assertEqual(
                    json.loads(self.sent(*line + [name + ":=@in a folder.json"]))[name], json.loads(content)
                )

    def test_what_is_no_json_is_refused_by_the_field_s_name(self):
        for content in (b"", b"{", b"hello", b"NaN", b"{} {}", b"[" * 100_000):
            self.write("job.json", content)
            with self.subTest(content[:9]):
                complaints = self.refused("queue_enqueue", "type=t", "data:=@job.json")
                self.assertRegex(complaints, r"\bdata\b.*JSON")
                complaints = self.refused("queue_enqueue", "type=t", "data:=@-", stdin=content)
                self.assertRegex(complaints, r"\bdata\b.*JSON")
        self.assertIn("nowhere.json", self.refused("queue_enqueue", "type=t", "data:=@nowhere.json"))

    def test_a_password_from_a_file_has_no_line_end(self):
        self.write("password.txt", b"correct horse \r\n")
        body = json.loads(self.sent("auth_signin", "email=a@b.c", "password=@password.txt"))
        self.assertEqual(body["password"], "correct horse ")

    def test_an_upload_sends_a_file_byte_for_byte_under_its_name(self):
        content = b"\xef\xbb\xbf" + bytes(range(256)) * 10 + b"\r\n"
        self.write("a.jpg", content)
        body = self.sent("storage_upload", "key=photos/b.jpg", "file=@a.jpg", "content_type=image/jpeg")
        self.assertIn(b'filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + content + b"\r\n--", body)

    def test_an_upload_from_standard_input_is_named_for_its_key(self):
        body = self.sent("storage_upload", "key=photos/b.jpg", "file=@-", apart=True, input=b"\xef\xbb\xbf\xff\xd8\r\n")
        self.assertIn(b'filename="b.jpg"', body)
        self.assertIn(b"\xef\xbb\xbf\xff\xd8\r\n", body)

    def test_options_stand_before_between_or_after(self):
        with ScriptedServer(repeat(expect, answer())) as server:
            url = ["--server-url", server.url]
            for line in (
                url + ["cache_set", "key=k", "value=v"],
                ["cache_set"] + url + ["key=k", "value=v"],
                ["cache_set", "key=k"] + url + ["value=v"],
                ["cache_set", "key=k", "value=v"] + url,
                ["cache_set", "key=k", "value=v", "--server-url=" + server.url, "--timeout=5"],
            ):
                with self.subTest(line):
                    self.assertEqual(self.run_here(*line), (0, "{}\n", ""))

    def test_the_server_is_local_or_named_or_the_environment_s_or_production(self):
        with ScriptedServer(repeat(expect, answer())) as proxy:
            os.environ["HTTP_PROXY"] = proxy.url
            os.environ["AEROSTACK_SERVER_URL"] = "http://environment.test"
            for arguments in (["--local"], ["--server-url", "http://named.test/"], []):
                self.assertEqual(self.run_here("cache_get", "key=k", *arguments)[0], 0)
            asked = [request.split()[1].decode() for request in proxy.requests]
        servers = [aerostack_lite.SERVERS[1], "http://named.test", "http://environment.test"]
        self.assertEqual(asked, [server + "/cache/get" for server in servers])
        with ScriptedServer([expect, answer(status="403 No")]) as proxy:
            os.environ["HTTPS_PROXY"] = proxy.url
            del os.environ["AEROSTACK_SERVER_URL"]
            self.assertEqual(self.run_here("cache_get", "key=k")[0], 3)
            asked = proxy.requests[0].split()[1].decode()
        self.assertEqual("https://%s/v1" % asked.partition(":")[0], aerostack_lite.SERVERS[0])

    def test_the_key_file_wins_over_the_environment(self):
        self.write("key.txt", b"another-key\r\n")
        with ScriptedServer([expect, answer()]) as server:
            self.run_here("cache_get", "key=k", "--key-file", "key.txt", "--server-url", server.url)
            self.assertEqual(header(server.requests[0], "X-Aerostack-Key"), ["another-key"])


class EncodingTest(CommandLineCase):
    """Files and standard input are UTF-8, whatever the locale."""

    TEXT = "\u00e9 \u2713 \U0001f600\r\nline\rline\n\u2028\x85\x0b\x1a end\r\n"
    LOCALES = [{"PYTHONIOENCODING": "cp1252:replace"}, ASCII_LOCALE]
    # 0xFF; an unfinished character; a surrogate; an overlong slash; UTF-16 as PowerShell 5 writes it
    NOT_UTF_8 = [b"a\xff\n", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", "hi\r\n".encode("utf-16")]

    def test_standard_input_is_utf_8_whatever_the_locale_and_keeps_its_line_ends(self):
        def check(locale):
            typed = {"apart": True, "environment": locale, "input": self.TEXT.encode()}
            self.assertEqual(json.loads(self.sent("db_query", "sql=@-", **typed))["sql"], self.TEXT)

        at_once(check, *self.LOCALES)

    def test_all_else_that_is_typed_is_utf_8_whatever_the_locale(self):
        name = self.write("na\u00efve.json", json.dumps({"text": self.TEXT}, ensure_ascii=False).encode())
        line = ["auth_signup", "email=\u00e9 \u2713", "password=@-", "metadata:=@" + name, 'name:="\u00e9 \u2713"']

        def check(locale):
            typed = {"apart": True, "environment": locale, "input": "p\u00e4ssw\u00f6rd\n".encode()}
            self.assertEqual(
                json.loads(self.sent(*line, **typed)),
                {
                    "email": "\u00e9 \u2713",
                    "name": "\u00e9 \u2713",
                    "password": "p\u00e4ssw\u00f6rd",
                    "metadata": {"text": self.TEXT},
                },
            )

        at_once(check, *self.LOCALES)

    def test_a_file_and_json_from_standard_input_are_utf_8_too(self):
        name = self.write("na\u00efve.sql", self.TEXT.encode())
        self.assertEqual(json.loads(self.sent("db_query", "sql=@" + name, console="cp1252"))["sql"], self.TEXT)
        typed = {"console": "cp1252:replace", "stdin": b'{"\xc3\xa9": "\xe2\x9c\x93"}'}
        body = self.sent("queue_enqueue", "type=t", "data:=@-", **typed)
        self.assertEqual(json.loads(body)["data"], {"\u00e9": "\u2713"})

    def test_a_byte_order_mark_is_dropped_once(self):
        mark = "\ufeff".encode()
        self.write("text", mark + b"text\r\n")
        self.write("two", mark + mark + b"text")
        self.write("json", mark + b'{"a": 1}')
        self.write("secret", mark + b"secret\r\n")

        def value(text, **settings):
            return json.loads(self.sent("cache_set", "key=k", text, **settings))["value"]

        self.assertEqual(value("value=@text"), "text\r\n")
        self.assertEqual(value("value=@two"), "\ufefftext")
        self.assertEqual(value("value:=@json"), {"a": 1})
        self.assertEqual(value("value=@-", stdin=mark + b"text\r\n"), "text\r\n")
        self.assertEqual(value("value:=@-", stdin=mark + b"[1]"), [1])
        for password in ("password=@secret", "password=@-"):
            body = self.sent("auth_signin", "email=a@b.c", password, stdin=mark + b"secret\n")
            self.assertEqual(json.loads(body)["password"], "secret")
        with ScriptedServer([expect, answer()]) as server:
            self.run_here("cache_get", "key=k", "--key-file", "secret", "--server-url", server.url)
            self.assertEqual(header(server.requests[0], "X-Aerostack-Key"), ["secret"])

    def test_a_file_that_is_not_utf_8_is_refused(self):
        for content in self.NOT_UTF_8:
            self.write("latin.txt", content)
            for name, arguments in (
                ("value", ["cache_set", "key=k", "value=@latin.txt"]),
                ("value", ["cache_set", "key=k", "value:=@latin.txt"]),
                ("password", ["auth_signin", "email=a@b.c", "password=@latin.txt"]),
                ("api_key", ["cache_get", "key=k", "--key-file", "latin.txt"]),
            ):
                with self.subTest(arguments, content=content):
                    self.assertRegex(self.refused(*arguments), r"(%s|latin\.txt): .*UTF-8" % name)

    def test_standard_input_that_is_not_utf_8_is_refused(self):
        typed = {"apart": True, "environment": {"LC_ALL": "C"}, "input": self.NOT_UTF_8[0]}
        self.assertRegex(self.refused("cache_set", "key=k", "value=@-", **typed), r"\bvalue\b.*UTF-8")
        for content in self.NOT_UTF_8:
            with self.subTest(content):
                self.assertRegex(self.refused("cache_set", "key=k", "value=@-", stdin=content), r"\bvalue\b.*UTF-8")
        typed = {"console": "latin-1", "stdin": b"caf\xe9"}
        self.assertRegex(self.refused("cache_set", "key=k", "value:=@-", **typed), r"\bvalue\b.*UTF-8")
        complaints = self.refused("auth_signin", "email=a@b.c", "password=@-", **typed)
        self.assertRegex(complaints, r"\bpassword\b.*UTF-8")
        self.assertNotIn("caf", complaints)

    @unittest.skipUnless(os.name == "posix", "arguments are bytes on POSIX only")
    def test_an_argument_that_is_not_utf_8_is_refused(self):
        self.refused("cache_set", "key=k", b"value=a\xff", apart=True)
        self.refused("cache_set", "key=k", 'value:="a\udcff"')  # as Python reads it


class OutputTest(CommandLineCase):
    def answered(self, body, *arguments, **settings):
        with ScriptedServer([expect, answer(body)]) as server:
            status, output, complaints = self.run_here(*arguments + ("--server-url", server.url), **settings)
        self.assertEqual((status, complaints), (0, ""))
        return output

    def test_json_is_one_line_in_a_pipe_and_indented_on_a_terminal(self):
        body = b'{"count":1,"results":[{"n":"\xc3\xbc"}]}'
        self.assertEqual(self.answered(body, "db_query", "sql=s"), '{"count": 1, "results": [{"n": "\u00fc"}]}\n')
        shown = self.answered(body, "db_query", "sql=s", terminal=True)
        self.assertEqual(json.loads(shown), json.loads(body.decode()))
        self.assertIn('{\n  "count": 1,\n', shown)

    def test_a_field_is_printed_raw(self):
        for value, printed in (
            ('"text\\n\\u00fc"', "text\n\u00fc\n"),
            ("5", "5\n"),
            ("null", "null\n"),
            ("true", "true\n"),
            ('{"a":1}', '{"a": 1}\n'),
        ):
            body = ('{"exists":true,"value":%s}' % value).encode()
            self.assertEqual(self.answered(body, "cache_get", "key=k", "--field", "value"), printed)

    def test_a_field_that_this_answer_lacks_is_null(self):
        self.assertEqual(self.answered(b'{"exists":false}', "cache_get", "key=k", "--field", "value"), "null\n")

    def test_rows_are_a_table(self):
        rows = [{"id": 1, "name": "Ada"}, {"id": 22, "name": None, "more": [1]}, {"id": 3, "name": "a\nb\x1b[2J"}]
        body = json.dumps({"results": rows, "count": 3}).encode()
        self.assertEqual(
            self.answered(body, "db_query", "sql=s", "--table").splitlines(),
            ["id  name         more", "--  -----------  ----", "1   Ada", "22               [1]", "3   a\\nb\\x1b[2J"],
        )

    def test_what_is_no_text_in_a_table_is_json(self):
        rows = [{"a": True, "b": {"n": [None, "\u00fc"]}}, {"a": 1.5, "b": False}]
        shown = self.answered(json.dumps({"results": rows}).encode(), "db_query", "sql=s", "--table")
        self.assertEqual(shown.splitlines()[2:], ['true  {"n": [null, "\u00fc"]}', "1.5   false"])

    def test_the_names_of_columns_drive_no_terminal(self):
        body = json.dumps({"results": [{"a\x1b[2J": "\x9b"}], "count": 1}, ensure_ascii=False).encode()
        self.assertEqual(
            self.answered(body, "db_query", "sql=s", "--table").splitlines(), ["a\\x1b[2J", "--------", "\\x9b"]
        )

    def test_no_rows_are_a_table_too_and_what_has_no_rows_is_json(self):
        self.assertEqual(self.answered(b'{"results":[],"count":0}', "db_query", "sql=s", "--table"), "")
        self.assertEqual(self.answered(b'{"exists":true}', "cache_get", "key=k", "--table"), '{"exists": true}\n')

    def test_a_reader_that_leaves_early_is_no_failure(self):
        for size in (1, 100_000):
            body = json.dumps({"results": [{"text": "x" * size}]}).encode()
            with self.subTest(size), ScriptedServer([expect, answer(body)]) as server:
                reading, writing = os.pipe()
                os.close(reading)
                with os.fdopen(writing, "wb") as output:
                    done = self.run_apart("db_query", "sql=s", "--server-url", server.url, stdout=output)
                self.assertEqual((done[0], done[2]), (0, b""))


class ConsoleTest(CommandLineCase):
    """An answer on consoles that can show few characters."""

    # in Latin-1; in cp1252; in neither; beyond 16 bits; a control character of Latin-1; half a character
    VALUE = {"\u00e9 \u20ac": ["\u2713 \u0416", "\U0001f600 \x9b", "\ud800"]}
    CONSOLES = ["ascii", "latin-1:strict", "cp1252:replace", "cp437", "cp932"]

    def setUp(self):
        super().setUp()
        self.body = json.dumps({"exists": True, "value": self.VALUE}).encode()

    def shown(self, *arguments, **settings):
        with ScriptedServer([expect, answer(self.body)]) as server:
            line = list(arguments or ["cache_get", "key=k"]) + ["--server-url", server.url]
            run = self.run_apart if "environment" in settings else self.run_here
            status, output, complaints = run(*line, **settings)
        self.assertEqual((status, len(complaints)), (0, 0), (output, complaints))
        return output

    def test_json_parses_on_every_console(self):
        for console in self.CONSOLES + ["utf-8:strict", "utf-16-le"]:
            with self.subTest(console):
                self.assertEqual(json.loads(self.shown(console=console)), json.loads(self.body))

    def test_json_parses_in_every_locale(self):
        def check(locale):
            output = self.shown(environment=locale)
            self.assertEqual(json.loads(output.decode("utf-8")), json.loads(self.body))

        at_once(check, ASCII_LOCALE, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "cp1252:replace"})

    def test_a_field_that_is_json_parses_too(self):
        for console in self.CONSOLES[:2]:
            with self.subTest(console):
                output = self.shown("cache_get", "key=k", "--field", "value", console=console)
                self.assertEqual(json.loads(output), self.VALUE)

    def test_what_a_console_can_show_is_shown_as_it_is(self):
        self.body = b'{"exists":true,"value":"\xc3\xa9"}'
        self.assertEqual(self.shown("cache_get", "key=k", "--field", "value", console="cp1252"), "\u00e9\n")
        self.assertIn('"value": "\u00e9"', self.shown(console="utf-8"))

    def test_text_and_tables_escape_what_a_console_cannot_show(self):
        line = ["cache_get", "key=k", "--field", "value"]
        self.body = '{"exists":true,"value":"\u2713 \U0001f600 \\ud800"}'.encode()
        for console in self.CONSOLES[1:3]:
            with self.subTest(console):
                self.assertIn("\\ud800", self.shown(*line, console=console))
        self.assertIn("\\u2713", self.shown(*line, console="ascii"))
        self.body = '{"results":[{"\u2713":"\u2713"}],"count":1}'.encode()
        output = self.shown("db_query", "sql=s", "--table", console="ascii")
        self.assertEqual(output.split()[::2], ["\\u2713", "\\u2713"])

    def test_an_error_is_told_on_every_console(self):
        problem = '{"code":"NEW_CODE","message":"n\u00e9 \u2713 \U0001f600"}'.encode()
        with ScriptedServer(repeat(expect, answer(problem, status="400 No"))) as server:
            line = ["cache_get", "key=k", "--server-url", server.url]
            for status, output, complaints in (
                self.run_here(*line, console="cp1252"),
                (part if part == 1 else os.fsdecode(part) for part in self.run_apart(*line, environment=ASCII_LOCALE)),
            ):
                self.assertEqual((status, output), (1, ""), complaints)
                self.assertIn("NEW_CODE: n", complaints)
                self.assertEqual(complaints.count("\n"), 1)


@unittest.skipUnless(os.path.exists("/dev/full"), "needs a device that is always full")
@side_by_side(3, one_setup=True)
class UnwritableTest(CommandLineCase):
    """The response came, but cannot be written: 4, so that no script sends the request again."""

    SMALL = b'{"success":true,"jobId":"j"}'
    LARGE = json.dumps({"results": [{"text": "x" * 100_000}] * 10, "count": 10}).encode()

    def unwritable(self, body, *arguments, **settings):
        with ScriptedServer(repeat(expect, answer(body))) as server:
            status, _, complaints = self.run_apart(*arguments + ("--server-url", server.url), **settings)
            self.assertEqual((status, len(server.requests)), (4, 1), complaints)
        if complaints is not None:
            self.assertNotRegex(complaints.decode(), "(?i)usage|Traceback|Exception ignored")
            self.assertRegex(complaints.decode(), r"^[^\n]*(?i:writ)[^\n]*\n$")
        return complaints

    def test_a_full_disk_is_4_and_the_request_was_sent_once(self):
        for body, line in (
            (self.SMALL, ["queue_enqueue", "type=t", "data:={}", "--field", "job_id"]),
            (self.LARGE, ["db_query", "sql=s", "--table"]),
        ):
            with self.subTest(line), open("/dev/full", "wb") as full:
                complaints = self.unwritable(body, *line, stdout=full)
                self.assertIn(os.strerror(errno.ENOSPC).encode(), complaints)

    def test_a_file_that_may_not_grow_is_4(self):
        limited = ["sh", "-c", 'ulimit -f 1; exec "$@" >report.json', "sh", *program()]
        complaints = self.unwritable(self.LARGE, "db_query", "sql=s", command=limited)
        self.assertIn(os.strerror(errno.EFBIG).encode(), complaints)

    def test_an_output_opened_for_reading_is_4(self):
        with open(os.devnull, "rb") as unwritable:
            complaints = self.unwritable(self.SMALL, "queue_enqueue", "type=t", "data:={}", stdout=unwritable)
        self.assertIn(os.strerror(errno.EBADF).encode(), complaints)

    def test_nowhere_to_say_so_is_4_too(self):
        with open("/dev/full", "wb") as full:
            self.unwritable(self.SMALL, "queue_enqueue", "type=t", "data:={}", stdout=full, stderr=full)
            closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *program()]
            with ScriptedServer([expect, answer(self.SMALL)]) as server:
                line = ["queue_enqueue", "type=t", "data:={}", "--server-url", server.url]
                self.assertEqual(self.run_apart(*line, command=closed, stdout=full)[0], 4)

    def test_an_error_of_the_api_stays_1_and_no_response_3_on_a_full_disk(self):
        with ScriptedServer([expect, answer(status="400 No")], [expect, close]) as server:
            line = ["db_query", "sql=s", "--server-url", server.url]
            with open("/dev/full", "wb") as full:
                self.assertEqual(self.run_apart(*line, stdout=full, stderr=full)[0], 1)
                self.assertEqual(self.run_apart(*line, stdout=full, stderr=full)[0], 3)


class EndingTest(CommandLineCase):
    def test_wrong_usage_says_what_is_wrong_and_sends_nothing(self):
        for words, arguments in (
            ("OPERATION: is missing", []),
            ("no such operation", ["frobnicate"]),
            ("name=", ["cache_get", "key"]),
            ("key", ["cache_get"]),
            ("ttl", ["cache_set", "key=k", "value=v", "ttl=soon"]),
            ("value: is not JSON", ["cache_set", "key=k", "value:={"]),
            ("nowhere.txt", ["cache_set", "key=k", "value=@nowhere.txt"]),
            ("value: is not JSON", ["cache_set", "key=k", "value:=" + "[" * 100_000]),
            ("value", ["cache_get", "key=k", "--field", "valu"]),
            ("job_id", ["queue_enqueue", "type=t", "data:={}", "--field", "jobId"]),
            ("--server-url", ["cache_get", "key=k", "--server-url", ""]),
            ("password=@", ["auth_signin", "email=a@b.c", "password=secret"]),
            ("password=@", ["auth_signin", "email=a@b.c", 'password:="secret"']),
            ("nowhere.jpg", ["storage_upload", "key=k", "file=@nowhere.jpg"]),
            ("file", ["storage_upload", "key=k", "file=@."]),
            ("directory", ["cache_set", "key=k", "value=@."]),
            ("--timeout", ["cache_get", "key=k", "--timeout", "soon"]),
            ("--timeout", ["cache_get", "key=k", "--timeout"]),
            ("--retries", ["cache_get", "key=k", "--retries", "5"]),
            ("nowhere.key", ["cache_get", "key=k", "--key-file", "nowhere.key"]),
            (".", ["cache_get", "key=k", "--key-file", "."]),
        ):
            with self.subTest(arguments):
                self.assertIn(words.lower(), self.refused(*arguments).lower())

    def test_messages_are_in_the_command_line_s_terms(self):
        for words, arguments in (
            (r"\bkey\b", ["cache_get"]),
            (r"\bkey\b", ["cache_set", "value=v"]),
            (r"\bttl\b", ["cache_set", "key=k", "value=v", "ttl=soon"]),
            (r"\bcolour\b", ["cache_get", "key=k", "colour=red"]),
            (r"\bmessages\b", ["ai_chat", "messages:=[5]"]),
            (r"file=@", ["storage_upload", "key=k", "file:=5"]),
            (r"--timeout", ["cache_get", "key=k", "--timeout", "0"]),
            (r"--timeout", ["cache_get", "key=k", "--timeout=-1"]),
            (r"--timeout", ["cache_get", "key=k", "--timeout", "nan"]),
            (r"--server-url", ["cache_get", "key=k", "--server-url", "ftp://nowhere"]),
            (r"--server-url", ["cache_get", "key=k", "--server-url", "nowhere"]),
        ):
            with self.subTest(arguments):
                complaints = self.refused(*arguments)
                self.assertRegex(complaints, words)
                for python in ("body.", "body:", "()", "timeout_ms", "server_url", "pathlib", "keyword", "None"):
                    self.assertNotIn(python, complaints)

    def test_a_misspelled_operation_is_suggested(self):
        for slip, meant in (
            ("cache-get", "cache_get"),
            ("db_qury", "db_query"),
            ("db-query", "db_query"),
            ("storage_uplod", "storage_upload"),
            ("chache_set", "cache_set"),
            ("cacheGet", "cache_get"),
            ("CACHE_GET", "cache_get"),
            ("query", "db_query"),
            ("upload", "storage_upload"),
        ):
            with self.subTest(slip):
                self.assertRegex(self.refused(slip, "key=k"), r"(?i)did you mean\W+%s\b" % meant)
        self.assertNotRegex(self.refused("frobnicate"), "(?i)did you mean")

    def test_a_misspelled_field_is_suggested(self):
        for meant, arguments in (
            ("ttl", ["cache_set", "key=k", "value=v", "tttl=5"]),
            ("service_name", ["services_invoke", "service-name=s", "data:={}"]),
            (
                "content_type",
                ["storage_upload", "key=k", "file=@" + self.write("a.txt", b""), "contenttype=text/plain"],
            ),
            ("key", ["cache_get", "Key=k"]),
            ("messages", ["ai_chat", "message:=[]"]),
        ):
            with self.subTest(meant):
                self.assertRegex(self.refused(*arguments), r"(?i)did you mean\W+%s\b" % meant)

    def test_a_misspelled_option_is_suggested(self):
        for slip, meant in (
            ("--filed=x", "--field"),
            ("--sever-url=x", "--server-url"),
            ("--key_file=x", "--key-file"),
        ):
            with self.subTest(slip):
                self.assertRegex(self.refused("cache_get", "key=k", slip), r"(?i)did you mean\W+%s\b" % meant)

    def test_a_file_or_json_given_as_text_is_told_how_to_be_given(self):
        for meant, arguments in (
            (r"file=@", ["storage_upload", "key=k", "file=hello"]),
            (r"file=@", ["storage_upload", "key=k", "file=photos/a.jpg"]),
            (r"file=@", ["storage_upload", "key=k", 'file:="hello"']),
            (r"data:=", ["queue_enqueue", "type=t", "data=hello"]),
            (r"data:=", ["services_invoke", "service_name=s", 'data={"width": 80}']),
            (r"params:=", ["db_query", "sql=SELECT ?", "params=[1]"]),
            (r"messages:=", ["ai_chat", "messages=Hello"]),
            (r"metadata:=", ["auth_signup", "email=a@b.c", "password=@" + self.write("p", b"pppppppp"), "metadata=x"]),
        ):
            with self.subTest(arguments):
                self.assertIn(meant, self.refused(*arguments))

    def test_the_key_is_never_an_argument(self):
        self.write("sekret", b"a key in a file that is named like the key")
        for arguments in (
            ["--key", "sekret"],
            ["--key=sekret"],
            ["--api-key=sekret"],
            ["api_key_auth=sekret"],
            ['http_headers:={"X-Aerostack-Key": "sekret"}'],
        ):
            for line in (["cache_get", "key=k"] + arguments, arguments + ["cache_get", "key=k"]):
                with self.subTest(line):
                    self.assertNotIn("sekret", self.refused(*line))

    def test_a_password_that_is_refused_is_not_shown(self):
        for text in ("password=sekret", "password:=sekret", 'password:="sekret"', "pasword=sekret", "Password=sekret"):
            with self.subTest(text):
                self.assertNotIn("sekret", self.refused("auth_signin", "email=a@b.c", text))

    def test_only_fields_of_the_request_are_fields(self):
        for name in ("server_url", "timeout_ms", "retries", "request", "progress", "self"):
            with self.subTest(name):
                self.assertIn(name, self.refused("cache_get", "key=k", name + ":=1"))

    def test_a_field_given_twice_is_a_misspelling(self):
        for second in ("key=b", 'key:="b"', "key=@-"):
            self.assertIn("twice", self.refused("cache_get", "key=a", second))

    def test_no_key_is_wrong_usage_where_nobody_can_be_asked(self):
        os.environ["AEROSTACK_API_KEY"] = ""
        self.assertIn(": AEROSTACK_API_KEY or --key-file: is empty", self.refused("cache_get", "key=k"))
        self.write("empty.key", b" \n")
        self.assertIn("key", self.refused("cache_get", "key=k", "--key-file", "empty.key"))

    def test_an_error_of_the_api_is_1(self):
        for status, body, words in (
            ("401 No", b'{"code":"AUTH_INVALID_KEY","message":"who are you"}', "AUTH_INVALID_KEY: who are you"),
            ("400 No", b'{"code":"NEW_CODE","message":"no\\r\\n\\u001b[2Jforged"}', "NEW_CODE: no"),
            ("404 No", b'{"error":{"code":"NESTED","message":"inside"}}', "NESTED: inside"),
            ("418 Teapot", b"", "418"),
            ("500 No", b"<html>\n<p>sorry", "500"),
            ("200 OK", b"not json", "validation"),
            ("200 OK", b'{"count":"many"}', "count"),
        ):
            with self.subTest(status, body=body), ScriptedServer(repeat(expect, answer(body, status=status))) as server:
                code, output, complaints = self.run_here("db_query", "sql=s", "--server-url", server.url)
                self.assertEqual((code, output), (1, ""), complaints)
                self.assertRegex(complaints, r"^aerostack_lite[^\n\r\x1b]* \(request [0-9a-f-]{36}, attempts 1\)\n$")
                self.assertIn(words, complaints)

    def test_what_the_api_said_is_masked_and_cut(self):
        for message, told in (
            ("no such key: " + KEY, "C: no such key: \\*\\*\\*"),
            ("x" * 20_000, "C: x{10000}[^x]"),
        ):
            problem = json.dumps({"code": "C", "message": message}).encode()
            with ScriptedServer([expect, answer(problem, status="401 No")]) as server:
                status, _, complaints = self.run_here("cache_get", "key=k", "--server-url", server.url)
            self.assertEqual(status, 1)
            self.assertRegex(complaints, told)

    def test_no_response_is_3(self):
        with ScriptedServer([expect, close], [expect, hang]) as server:
            for words, arguments in (
                ("RemoteProtocolError|ReadError", ["--server-url", server.url]),
                ("ReadTimeout", ["--server-url", server.url, "--timeout", "0.1"]),
            ):
                with self.subTest(words):
                    status, output, complaints = self.run_here("db_query", "sql=s", *arguments)
                    self.assertEqual((status, output), (3, ""))
                    self.assertRegex(complaints, r"^aerostack_lite\S* (%s): .* attempts 1\)\n$" % words)

    def test_a_refused_connection_is_3_after_three_attempts(self):
        url = "http://127.0.0.1:%d" % free_port()
        with mock.patch("aerostack_lite._CancelScope.sleep"):  # or it takes a second
            status, output, complaints = self.run_here("queue_enqueue", "type=t", "data:={}", "--server-url", url)
        self.assertEqual((status, output), (3, ""))
        self.assertRegex(complaints, r"^aerostack_lite\S* ConnectError: .*127\.0\.0\.1.* attempts 3\)\n$")

    def test_half_a_response_and_another_protocol_are_3(self):
        for script in (
            [expect, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"],
            [b"SSH-2.0-OpenSSH_9.2\r\n", expect, hang],
        ):
            with self.subTest(script), ScriptedServer(script) as server:
                status, output, complaints = self.run_here("db_query", "sql=s", "--server-url", server.url)
                self.assertEqual((status, output), (3, ""), complaints)

    def test_no_response_is_told_by_the_status_even_if_nobody_reads(self):
        reader, writer = os.pipe()
        os.close(reader)
        with ScriptedServer([expect, close]) as server:
            ended = self.run_apart("db_query", "sql=s", "--server-url", server.url, stderr=writer)[0]
        os.close(writer)
        self.assertEqual(ended, 3)

    def test_what_was_not_done_is_repeated_as_by_default(self):
        script = [expect, answer(b"", "Retry-After: 0.01", status="429 Slow"), expect, answer(b'{"count":1}')]
        with ScriptedServer(script) as server:
            ended = self.run_here("db_query", "sql=s", "--server-url", server.url)
        self.assertEqual(ended, (0, '{"count": 1}\n', ""))

    def test_a_timeout_is_in_seconds_and_may_be_endless(self):
        with ScriptedServer(repeat(expect, answer())) as server:
            for seconds in ("5", "0.5", "inf"):
                ended = self.run_here("cache_get", "key=k", "--timeout", seconds, "--server-url", server.url)
                self.assertEqual(ended, (0, "{}\n", ""))

    def interrupted(self, program):
        """What a program says that is sent Ctrl-C, until it ends."""
        for _ in range(10):
            program.send_signal(signal.SIGINT)
            try:
                return program.communicate(timeout=AGAIN_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        raise AssertionError("the program goes on")

    @unittest.skipUnless(os.name == "posix", "a signal of POSIX")
    def test_ctrl_c_is_130_without_a_traceback(self):
        with ScriptedServer([expect, hang]) as server:
            program = subprocess.Popen(
                [sys.executable, MODULE, "cache_get", "key=k", "--server-url", server.url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self.addCleanup(program.kill)
            server.wait_for_requests(1)
            ended = self.interrupted(program)
        self.assertEqual((program.returncode, ended), (130, (b"", b"")))

    @unittest.skipUnless(os.name == "posix", "a signal of POSIX")
    def test_ctrl_c_while_the_response_is_written_is_130(self):
        body = json.dumps({"results": [{"text": "x" * 1_000_000}]}).encode()
        with ScriptedServer([expect, answer(body)]) as server:
            program = subprocess.Popen(
                [sys.executable, MODULE, "db_query", "sql=s", "--server-url", server.url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self.addCleanup(program.kill)
            program.stdout.read(1)  # it writes, more than a pipe holds
            complaints = self.interrupted(program)[1]
        self.assertEqual((program.returncode, complaints), (130, b""))

    @unittest.skipUnless(os.name == "posix", "a shell of POSIX closes the streams")
    def test_closed_standard_streams_are_as_good_as_none(self):
        self.write("a.jpg", b"picture")

        def check(case):
            line, closed, status, output, complaints = case
            with ScriptedServer([expect, answer()]) as server:
                shell = ["sh", "-c", '"$@" ' + closed, "sh", *program()]
                ended = self.run_apart(*["--server-url", server.url] + line.split(), command=shell)
                self.assertEqual(ended[:2], (status, output))
                self.assertRegex(ended[2], complaints)
                self.assertNotIn(b"Traceback", ended[2])

        at_once(
            check,
            ("db_query sql=s --table", ">&-", 0, b"", b"^$"),
            ("storage_upload key=k file=@a.jpg", "2>&-", 0, b"{}\n", b"^$"),
            ("storage_upload key=k file=@-", "<&-", 2, b"", b"standard input:? is closed"),
        )

    def test_a_stream_that_python_found_closed_is_as_good_as_none(self):
        for line, closed, status, output, complaints in (
            ("cache_get key=k", "stdout", 0, "", "^$"),
            ("cache_get key=k", "stdin", 0, "{}\n", "^$"),
            ("cache_get key=@-", "stdin", 2, "", "standard input:? is closed"),
            ("cache_set key=k value:=@-", "stdin", 2, "", "standard input:? is closed"),
            ("cache_get", "stderr", 2, "", "^$"),
        ):
            with self.subTest(line, closed=closed), ScriptedServer([expect, answer()]) as server:
                ended = self.run_here(*["--server-url", server.url] + line.split(), **{closed: None})
                self.assertEqual(ended[:2], (status, output))
                self.assertRegex(ended[2], complaints)

    def test_a_log_that_nobody_reads_keeps_nothing_from_being_sent(self):
        with ScriptedServer([expect, answer(b'{"success":true}')]) as server:
            reader, writer = os.pipe()
            os.close(reader)
            line = ["--server-url", server.url, "--verbose", "cache_set", "key=k", "value=v"]
            status, output, _ = self.run_apart(*line, stderr=writer)
            os.close(writer)
        self.assertEqual((status, output, len(server.requests)), (0, b'{"success": true}\n', 1))


class HelpTest(CommandLineCase):
    def test_help_is_short_and_names_all_that_can_be_typed(self):
        os.environ["COLUMNS"] = "80"
        status, output, complaints = self.run_here("--help")
        self.assertEqual((status, complaints), (0, ""))
        lines = output.splitlines()
        self.assertLessEqual(len(lines), 40)
        self.assertLessEqual(max(map(len, lines)), 80)
        output = " ".join(output.split())
        for words in [operation.name for operation in OPERATIONS] + [
            "name=text",
            "name:=JSON",
            "name=@FILE",
            "name:=@FILE",
            "name=@-",
            "name:=@-",
            "AEROSTACK_API_KEY",
            "AEROSTACK_SERVER_URL",
            "--server-url",
            "--local",
            "--key-file",
            "--timeout",
            "--field",
            "--table",
            "--verbose",
            "--version",
        ]:
            self.assertIn(words, output)
        for status in ("0", "1", "2", "3", "4", "130"):
            self.assertRegex(output, r"(?i)(status|exit).*\b%s\b" % status)
        self.assertNotIn("--retries", output)

    def test_help_says_first_what_there_is_to_be_typed(self):
        for line, heading in (["--help"], "operations, each with an example:"), (["cache_set", "--help"], "fields:"):
            output = self.run_here(*line)[1]
            self.assertLess(output.index(heading), output.index("options:" if "options:" in output else "arguments:"))

    def test_help_of_each_operation_names_its_fields(self):
        for operation in OPERATIONS:
            with self.subTest(operation.name):
                status, output, complaints = self.run_here(operation.name, "--help")
                self.assertEqual((status, complaints), (0, ""))
                self.assertLessEqual(len(output.splitlines()), 40)
                for field in dataclasses.fields(operation.request_type):
                    lines = re.findall(r"(?m)^ +%s\b.*$" % field.name, output)
                    optional = field.default is not dataclasses.MISSING
                    self.assertIn(optional, ["optional" in line for line in lines], lines)

    def test_help_shows_the_example_of_each_operation(self):
        everything = self.run_here("--help")[1]
        for operation in OPERATIONS:
            example = self.run_here(operation.name, "--help")[1].partition("example:\n")[2].splitlines()[0]
            self.assertIn("\n  %s\n" % example.replace("  aerostack_lite.py ", ""), everything)

    def test_help_of_each_operation_shows_one_example_that_works(self):
        with local_platform().LocalPlatform() as platform:
            os.environ["AEROSTACK_SERVER_URL"] = platform.url
            self.assertEqual(self.run_here("db_query", "sql=CREATE TABLE users (id)")[0], 0)
            for operation in sorted(OPERATIONS, key=lambda operation: operation.name, reverse=True):  # sign up, then in
                with self.subTest(operation.name):
                    output = self.run_here(operation.name, "--help")[1]
                    found = re.findall(r"(?mi)^examples?:\s*(.*)$", output)
                    self.assertEqual(len(found), 1, output)
                    line = shlex.split(found[0].partition(operation.name)[2])
                    for text in line:
                        if text.startswith("service_name="):
                            platform.register_service(text.partition("=")[2], lambda data: data)
                        source = re.match(r"\w+(:?=)@(\w\S*)$", text)
                        if source:
                            content = (
                                b'[{"role": "user", "content": "Hello"}]'
                                if source.group(1) == ":="
                                else b"horse battery"
                            )
                            os.makedirs(os.path.dirname(source.group(2)) or ".", exist_ok=True)
                            self.write(source.group(2), content)
                    status, _, complaints = self.run_here(operation.name, *line, stdin=b"horse battery")
                    self.assertEqual((status, complaints), (0, ""), line)

    def test_the_program_is_called_what_it_was_called(self):
        copy_module("aero.py")
        with open("aerostack", "w") as script:  # as an installer writes it
            script.write("#!%s\nimport sys\nsys.path[:0] = [%r]\n" % (sys.executable, os.path.dirname(MODULE)))
            script.write("import aerostack_lite\nsys.exit(aerostack_lite.%s())\n" % installed_command().__name__)
        os.chmod("aerostack", 0o755)
        os.mkdir("bin")

        def check(case):
            name, *command = case
            python_path = {"PYTHONPATH": os.pathsep.join([os.getcwd(), ROOT])}
            status, _, complaints = self.run_apart(
                "cache_get", "key", command=[sys.executable, *command], environment=python_path
            )
            self.assertEqual(status, 2)
            self.assertRegex(complaints.decode(), r"(?m)^(python\S* -m )?%s(\.py)?( cache_get)?: " % re.escape(name))

        at_once(
            check,
            ("aerostack_lite.py", MODULE),
            ("aero.py", "aero.py"),
            ("aerostack", "aerostack"),
            ("aero", "-m", "aero"),
            ("aerostack_lite", "-m", "aerostack_lite"),
        )

    def test_its_help_is_about_the_program_as_it_is_called(self):
        for name, arguments in (("aero.py", []), ("aerostack", ["cache_get"])):
            with mock.patch("sys.argv", ["/anywhere/" + name, *arguments, "--help"]):
                output = Text()
                with mock.patch("sys.stdout", output), self.assertRaises(SystemExit) as ended:
                    installed_command()()
            self.assertIn(ended.exception.code, (0, None))
            usage = re.match(r"usage: (.*?) (\[|OPERATION|cache_get|name)", output.said()).group(1)
            self.assertEqual(usage, name)

    def test_version_and_checksum_are_a_line_each(self):
        with open(MODULE, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        said = "aerostack_lite %s\nsha256 %s\n" % (aerostack_lite.__version__, digest)
        self.assertEqual(self.run_here("--version"), (0, said, ""))

    def test_the_version_of_a_file_that_was_piped_in_has_no_checksum(self):
        with open(MODULE, "rb") as file:
            status, output, _ = self.run_apart("--version", command=[sys.executable, "-"], stdin=file)
        self.assertEqual((status, output.decode()), (0, "aerostack_lite %s\n" % aerostack_lite.__version__))


class VerboseTest(CommandLineCase):
    def test_each_attempt_is_told_on_standard_error_without_secrets(self):
        self.write("password.txt", b"p-very-secret-password\n")
        busy = answer(b"", "Retry-After: 0.01", status="503 Busy")
        with ScriptedServer(
            [expect, busy, expect, answer(b'{"token":"t-very-secret-token"}', "Set-Cookie: c=1")]
        ) as server:
            line = ["auth_signin", "email=a@b.c", "password=@password.txt", "--verbose", "--field", "token"]
            status, output, complaints = self.run_here(*line + ["--server-url", server.url])
        self.assertEqual((status, output), (0, "t-very-secret-token\n"))
        for word in ("/auth/signin", "auth_signin", "503", "200"):
            self.assertIn(word, complaints)
        for secret in (KEY, "p-very-secret-password", "t-very-secret-token", "c=1"):
            self.assertNotIn(secret, complaints)


@unittest.skipIf(sys.platform == "win32", "needs pseudo terminals")
@side_by_side(3, one_setup=True)
class TerminalTest(CommandLineCase):
    # Opening a terminal makes it the one that /dev/tty means, for the leader of a session that has none.
    START = "import os\nos.close(os.open(os.ttyname(0), os.O_RDWR))\n" + PROGRAM

    def run_on_a_terminal(self, *arguments, **settings):
        """(status, all that the terminal showed). `types`: pairs of what is waited for and what is typed then."""
        master, slave = os.openpty()
        program = subprocess.Popen(
            [sys.executable, "-c", self.START % installed_command().__name__, *arguments],
            stdin=slave,
            stdout=settings.get("stdout", slave),
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": ROOT, **settings.get("environment", {})},
        )
        os.close(slave)
        killer = threading.Timer(PATIENCE_SECONDS, program.kill)
        killer.start()
        shown, typed, waiting = b"", b"", list(settings.get("types", []))
        try:
            while True:
                for prompt, text in [pair for pair in waiting if pair[0] in shown]:
                    waiting.remove((prompt, text))
                    os.write(master, text)
                    typed = text
                if not select.select([master], [], [], AGAIN_SECONDS)[0]:
                    if typed == b"\x03":
                        os.write(master, typed)
                    continue
                try:
                    piece = os.read(master, 4096)
                except OSError:  # Linux says so when the last program has left the terminal
                    piece = b""
                if not piece:
                    break
                shown += piece
            return program.wait(), shown.decode(settings.get("encoding", "utf-8")).replace("\r\n", "\n")
        finally:
            killer.cancel()
            os.close(master)

    def test_the_key_is_asked_for_and_not_echoed(self):
        with ScriptedServer([expect, answer(b'{"exists":true}')]) as server:
            line = ["cache_get", "key=k", "--server-url", server.url]
            status, shown = self.run_on_a_terminal(*line, types=[(b"key: ", b"typed-secret-key\n")], environment=NO_KEY)
            self.assertEqual(status, 0, shown)
            self.assertEqual(header(server.requests[0], "X-Aerostack-Key"), ["typed-secret-key"])
        self.assertNotIn("typed-secret-key", shown)
        self.assertTrue(shown.endswith('{\n  "exists": true\n}\n'), shown)

    def test_a_password_is_asked_for_and_not_echoed(self):
        typed = "typed s\u00e4cret "
        with ScriptedServer([expect, answer(b'{"token":"t"}')]) as server:
            line = ["auth_signin", "email=a@b.c", "password=@-", "--field", "token", "--server-url", server.url]
            types = [(b"assword", typed.encode() + b"\n")]
            status, shown = self.run_on_a_terminal(*line, types=types, environment={"LC_ALL": "C.UTF-8"})
            self.assertEqual(status, 0, shown)
            self.assertEqual(json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["password"], typed)
        self.assertNotIn("cret", shown)
        self.assertTrue(shown.endswith("\nt\n"), shown)

    def test_a_password_is_asked_for_though_the_output_goes_elsewhere(self):
        with ScriptedServer([expect, answer(b'{"token":"t"}')]) as server, open("out", "wb") as output:
            line = ["auth_signin", "email=a@b.c", "password=@-", "--server-url", server.url]
            status, shown = self.run_on_a_terminal(*line, types=[(b"assword", b"typed-secret\n")], stdout=output)
            self.assertEqual(status, 0, shown)
            self.assertEqual(json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["password"], "typed-secret")
        with open("out") as output:
            self.assertEqual(json.load(output), {"token": "t"})
        self.assertNotIn("typed-secret", shown)

    def test_key_and_password_are_both_asked_for(self):
        with ScriptedServer([expect, answer(b'{"token":"t"}')]) as server:
            line = ["auth_signup", "email=a@b.c", "password=@-", "--server-url", server.url]
            types = [(b"key: ", b"typed-secret-key\n"), (b"assword", b"typed-secret-password\n")]
            status, shown = self.run_on_a_terminal(*line, types=types, environment=NO_KEY)
            self.assertEqual(status, 0, shown)
            self.assertEqual(header(server.requests[0], "X-Aerostack-Key"), ["typed-secret-key"])
            self.assertIn(b'"typed-secret-password"', server.requests[0])
        self.assertNotIn("typed-secret", shown)

    def test_a_password_as_json_is_refused_before_it_is_typed(self):
        status, shown = self.run_on_a_terminal("auth_signin", "email=a@b.c", "password:=@-")
        self.assertEqual((status, shown.count("password=@FILE")), (2, 1), shown)

    def test_a_field_is_typed_at_the_terminal_until_its_end(self):
        with ScriptedServer([expect, answer(b'{"count":1}')]) as server:
            line = ["db_query", "sql=@-", "--server-url", server.url]
            status, shown = self.run_on_a_terminal(*line, types=[(b"", b"SELECT 2\n\x04")])
            self.assertEqual(status, 0, shown)
            self.assertEqual(json.loads(server.requests[0].partition(b"\r\n\r\n")[2]), {"sql": "SELECT 2\n"})

    def test_an_end_of_file_instead_of_a_secret_is_no_traceback(self):
        for line in (["cache_get", "key=k"], ["auth_signin", "email=a@b.c", "password=@-"]):
            with self.subTest(line):
                types = [(b"key: ", b"\x04"), (b"assword", b"\x04")]
                key = NO_KEY if line[0] == "cache_get" else {}
                status, shown = self.run_on_a_terminal(*line, types=types, environment=key)
                self.assertEqual(status, 2, shown)
                self.assertNotIn("Traceback", shown)

    def test_ctrl_c_instead_of_a_secret_is_130(self):
        for line in (["cache_get", "key=k"], ["auth_signin", "email=a@b.c", "password=@-"]):
            with self.subTest(line):
                types = [(b"key: ", b"\x03"), (b"assword", b"\x03")]
                key = NO_KEY if line[0] == "cache_get" else {}
                status, shown = self.run_on_a_terminal(*line, types=types, environment=key)
                self.assertEqual(status, 130, shown)
                self.assertNotIn("Traceback", shown)

    def test_json_parses_on_a_terminal_of_few_characters(self):
        body = '{"exists":true,"value":"\u00e9 \u2713 \U0001f600"}'.encode()
        with ScriptedServer([expect, answer(body)]) as server:
            line = ["cache_get", "key=k", "--server-url", server.url]
            locale = {"PYTHONIOENCODING": "cp437:strict"}
            status, shown = self.run_on_a_terminal(*line, environment=locale, encoding="cp437")
            self.assertEqual((status, json.loads(shown)), (0, json.loads(body.decode())))

    def test_an_upload_of_unknown_length_shows_no_progress(self):
        os.mkfifo("pipe")
        writer = threading.Thread(target=self.write, args=("pipe", b"hello"), daemon=True)
        writer.start()
        with ScriptedServer([expect, answer(b'{"url":"u"}')]) as server:
            line = ["storage_upload", "key=a", "file=@pipe", "--field", "url", "--server-url", server.url]
            shown = self.run_on_a_terminal(*line)
        writer.join(PATIENCE_SECONDS)
        self.assertEqual(shown, (0, "u\n"))

    def test_an_upload_shows_its_progress_on_a_terminal_only(self):
        self.write("a.bin", bytes(1_000_000))
        upload = ["storage_upload", "key=a.bin", "file=@a.bin", "--field", "url", "--server-url"]
        with ScriptedServer(repeat(expect, answer(b'{"url":"u"}'))) as server:
            status, shown = self.run_on_a_terminal(*upload + [server.url])
            self.assertEqual(status, 0)
            self.assertRegex(shown, r"\r[^\r\n]*\b\d\d? %[^\n]*\r[^\r\n]*\b100 %[^\r\n]*\nu\n$")
            self.assertEqual(self.run_here(*upload + [server.url]), (0, "u\n", ""))

    def test_an_error_covers_the_progress_of_an_upload_that_stopped(self):
        with open("large.bin", "wb") as file:
            file.truncate(64 << 20)  # more than the sockets hold

        def refuse(peer):
            peer.read(600_000)
            problem = b'{"code":"VALIDATION_ERROR","message":"too large"}'
            peer.send(answer(problem, "Connection: close", status="413 Large"))
            while True:
                peer._receive()

        with ScriptedServer([refuse]) as server:
            line = ["storage_upload", "key=large.bin", "file=@large.bin", "--server-url", server.url]
            status, shown = self.run_on_a_terminal(*line)
        self.assertEqual(status, 1)
        self.assertRegex(shown, r"\b\d %\raerostack_lite[^\n]*too large[^\n]*\n$")


if __name__ == "__main__":
    unittest.main()
