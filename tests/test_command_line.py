"""The command line: what one types, what is printed where, and the four ways to end."""

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import aerostack_lite
from tests.newcomer import MODULE, PATIENCE_SECONDS, local_platform
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    answer,
    close,
    expect,
    free_port,
    hang,
    header,
    repeat,
)

KEY = "k-very-secret-key"
OPERATIONS = [operation for _, operation, _ in aerostack_lite.operations()]
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


class Text(io.TextIOWrapper):
    """Standard input or output in memory, as a terminal or as none."""

    def __init__(self, content=b"", terminal=False):
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def said(self):
        return self.buffer.getvalue().decode()


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
        """Run the command in this process: (status, output, errors)."""
        output, complaints = Text(terminal=settings.get("terminal", False)), Text()
        with mock.patch("sys.stdin", Text(settings.get("stdin", b""))), contextlib.redirect_stdout(output):
            with contextlib.redirect_stderr(complaints):
                try:
                    status = aerostack_lite._main(list(arguments))
                except SystemExit as end:
                    status = end.code or 0
        return status, output.said(), complaints.said()

    def run_apart(self, *arguments, **settings):
        """Run the command as a program of its own: (status, output, errors)."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", MODULE] + list(arguments),
            timeout=PATIENCE_SECONDS,
            capture_output=True,
            **settings,
        )
        return done.returncode, done.stdout, done.stderr


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
                self.assertTrue(request.startswith(b"POST %s HTTP/1.1\r\n" % operation.path.encode()))
                self.assertEqual(header(request, "X-Aerostack-Key"), [KEY])
                if body is not None:
                    self.assertEqual(json.loads(request.partition(b"\r\n\r\n")[2]), body)

    def sent(self, *arguments, **settings):
        with ScriptedServer([expect, answer()]) as server:
            status, _, complaints = self.run_here(*arguments + ("--server-url", server.url), **settings)
            self.assertEqual((status, complaints), (0, ""))
            return server.requests[0].partition(b"\r\n\r\n")[2]

    def test_a_value_is_text_whatever_it_looks_like(self):
        for text in ("5", "null", "", "a=b", "[1]", "\u00fc", " x "):
            self.assertEqual(json.loads(self.sent("cache_set", "key=k", "value=" + text))["value"], text)

    def test_a_value_is_any_json(self):
        for value in (None, True, 5, 1.5, "t", [1], {"a": {"b": []}}):
            self.assertEqual(json.loads(self.sent("cache_set", "key=k", "value:=" + json.dumps(value)))["value"], value)

    def test_a_value_comes_from_a_file_or_from_standard_input(self):
        self.write("query.sql", "SELECT '\u00fc'\n".encode())
        self.assertEqual(json.loads(self.sent("db_query", "sql=@query.sql"))["sql"], "SELECT '\u00fc'\n")
        self.assertEqual(json.loads(self.sent("db_query", "sql=@-", stdin=b"SELECT 2\n"))["sql"], "SELECT 2\n")

    def test_a_password_from_a_file_has_no_line_end(self):
        self.write("password.txt", b"correct horse \r\n")
        body = json.loads(self.sent("auth_signin", "email=a@b.c", "password=@password.txt"))
        self.assertEqual(body["password"], "correct horse ")

    def test_an_upload_sends_a_file_byte_for_byte_under_its_name(self):
        content = bytes(range(256)) * 10
        self.write("a.jpg", content)
        body = self.sent("storage_upload", "key=photos/b.jpg", "file=@a.jpg", "content_type=image/jpeg")
        self.assertIn(b'filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + content + b"\r\n--", body)

    def test_an_upload_from_standard_input_is_named_for_its_key(self):
        with ScriptedServer([expect, answer()]) as server:
            status, _, complaints = self.run_apart(
                "storage_upload", "key=photos/b.jpg", "file=@-", "--server-url", server.url, input=b"\xff\xd8\r\n"
            )
            self.assertEqual((status, complaints), (0, b""))
            self.assertIn(b'filename="b.jpg"', server.requests[0])
            self.assertIn(b"\xff\xd8\r\n", server.requests[0])

    def test_options_stand_before_between_or_after(self):
        with ScriptedServer(repeat(expect, answer())) as server:
            url = ["--server-url", server.url]
            for line in (
                url + ["cache_set", "key=k", "value=v"],
                ["cache_set"] + url + ["key=k", "value=v"],
                ["cache_set", "key=k"] + url + ["value=v"],
                ["cache_set", "key=k", "value=v"] + url,
            ):
                with self.subTest(line):
                    self.assertEqual(self.run_here(*line), (0, "{}\n", ""))

    def test_the_server_is_local_or_named_or_the_environment_s(self):
        seen = []

        class Recorder(aerostack_lite.SDK):
            def __init__(self, **settings):
                super().__init__(**settings)
                seen.append(self.sdk_configuration.get_server_details()[0])
                raise aerostack_lite.errors.ValidationError.about("enough", "seen")

        os.environ["AEROSTACK_SERVER_URL"] = "http://environment.test"
        with mock.patch.object(aerostack_lite, "SDK", Recorder):
            for arguments in (["--local"], ["--server-url", "http://named.test/"], []):
                self.run_here("cache_get", "key=k", *arguments)
        self.assertEqual(seen, [aerostack_lite.SERVERS[1], "http://named.test", "http://environment.test"])


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

    def test_the_names_of_columns_drive_no_terminal(self):
        body = json.dumps({"results": [{"a\x1b[2J": ["\x9b"]}], "count": 1}, ensure_ascii=False).encode()
        self.assertEqual(
            self.answered(body, "db_query", "sql=s", "--table").splitlines(), ["a\\x1b[2J", "--------", '["\\x9b"]']
        )

    def test_no_rows_are_a_table_too_and_what_has_no_rows_is_json(self):
        self.assertEqual(self.answered(b'{"results":[],"count":0}', "db_query", "sql=s", "--table"), "")
        self.assertEqual(self.answered(b'{"exists":true}', "cache_get", "key=k", "--table"), '{"exists": true}\n')

    def test_an_output_that_cannot_show_a_character_escapes_it(self):
        with ScriptedServer(repeat(expect, answer('{"exists":true,"value":"\u2713"}'.encode()))) as server:
            for more in ([], ["--field", "value"]):
                environment = dict(os.environ, PYTHONIOENCODING="ascii")
                status, output, complaints = self.run_apart(
                    "cache_get", "key=k", "--server-url", server.url, *more, env=environment
                )
                self.assertEqual((status, complaints), (0, b""), output)
                self.assertIn(b"\\u2713", output)

    def test_a_reader_that_leaves_early_is_no_failure(self):
        for size in (1, 100_000):
            body = json.dumps({"results": [{"text": "x" * size}]}).encode()
            with self.subTest(size), ScriptedServer([expect, answer(body)]) as server:
                reading, writing = os.pipe()
                os.close(reading)
                with os.fdopen(writing, "wb") as output:
                    done = subprocess.run(
                        [sys.executable, MODULE, "db_query", "sql=s", "--server-url", server.url],
                        stdout=output,
                        stderr=subprocess.PIPE,
                        timeout=PATIENCE_SECONDS,
                    )
                self.assertEqual((done.returncode, done.stderr), (0, b""))


class EndingTest(CommandLineCase):
    def refused(self, *arguments, **settings):
        """Wrong usage: 2, nothing on standard output, nothing sent. What was said."""
        with ScriptedServer([expect, answer()]) as server:
            os.environ["AEROSTACK_SERVER_URL"] = server.url
            status, output, complaints = self.run_here(*arguments, **settings)
            self.assertEqual((status, output, server.connections), (2, "", 0), complaints)
        self.assertNotIn("Traceback", complaints)
        return complaints

    def test_wrong_usage_says_what_is_wrong_and_sends_nothing(self):
        self.write("latin.txt", b"\xff\n")
        for words, arguments in (
            ("OPERATION", []),
            ("no such operation", ["cache_gt"]),
            ("name=value", ["cache_get", "key"]),
            ("body.key", ["cache_get"]),
            ("did you mean 'ttl'", ["cache_set", "key=k", "value=v", "tttl=5"]),
            ("body.ttl", ["cache_set", "key=k", "value=v", "ttl=soon"]),
            ("value: is not JSON", ["cache_set", "key=k", "value:={"]),
            ("nowhere.txt", ["cache_set", "key=k", "value=@nowhere.txt"]),
            ("latin.txt: is not text in UTF-8", ["cache_set", "key=k", "value=@latin.txt"]),
            ("latin.txt: is not text in UTF-8", ["cache_get", "key=k", "--key-file", "latin.txt"]),
            ("value: is not JSON", ["cache_set", "key=k", "value:=" + "[" * 100_000]),
            ("--field: the answer has exists, value", ["cache_get", "key=k", "--field", "valu"]),
            ("--server-url: is empty", ["cache_get", "key=k", "--server-url", ""]),
            ("password=@FILE", ["auth_signin", "email=a@b.c", "password=secret"]),
            ("password=@FILE", ["auth_signin", "email=a@b.c", 'password:="secret"']),
            ("nowhere.jpg", ["storage_upload", "key=k", "file=@nowhere.jpg"]),
            ("path", ["storage_upload", "key=k", "file=a.jpg"]),
            ("--timeout", ["cache_get", "key=k", "--timeout", "soon"]),
            ("timeout", ["cache_get", "key=k", "--timeout", "0"]),
            ("--retries", ["cache_get", "key=k", "--retries", "many"]),
            ("negative", ["cache_get", "key=k", "--retries=-1"]),
            ("server_url", ["cache_get", "key=k", "--server-url", "ftp://nowhere"]),
            ("nowhere.key", ["cache_get", "key=k", "--key-file", "nowhere.key"]),
        ):
            with self.subTest(arguments):
                self.assertIn(words.lower(), self.refused(*arguments).lower())

    def test_the_key_is_never_an_argument(self):
        self.write("sekret", b"a key in a file that is named like the key")
        for arguments in (
            ["--key", "sekret"],
            ["--api-key=sekret"],
            ["api_key_auth=sekret"],
            ['http_headers:={"X-Aerostack-Key": "sekret"}'],
        ):
            for line in (["cache_get", "key=k"] + arguments, arguments + ["cache_get", "key=k"]):
                with self.subTest(line):
                    self.assertNotIn("sekret", self.refused(*line))

    def test_only_fields_of_the_request_are_fields(self):
        for name in ("server_url", "timeout_ms", "retries", "request", "progress"):
            with self.subTest(name):
                self.assertIn("body.%s: Unknown field" % name, self.refused("cache_get", "key=k", name + ":=1"))

    def test_a_field_given_twice_is_a_slip(self):
        self.assertIn("key", self.refused("cache_get", "key=a", "key=b"))

    def test_no_key_is_wrong_usage_where_nobody_can_be_asked(self):
        os.environ["AEROSTACK_API_KEY"] = ""
        self.assertIn("AEROSTACK_API_KEY", self.refused("cache_get", "key=k"))
        self.write("empty.key", b" \n")
        self.assertIn("api_key_auth", self.refused("cache_get", "key=k", "--key-file", "empty.key"))

    def test_the_api_said_no(self):
        for status, body, words in (
            ("401 No", b'{"code":"AUTH_INVALID_KEY","message":"who are you"}', "AUTH_INVALID_KEY: who are you"),
            ("400 No", b'{"code":"NEW_CODE","message":"no\\r\\n\\u001b[2Jforged"}', "NEW_CODE: no"),
            ("418 Teapot", b"", "Status 418"),
            ("500 No", b"<html>\n<p>sorry", "Status 500"),
            ("200 OK", b"not json", "validation"),
            ("200 OK", b'{"count":"many"}', "count"),
        ):
            with self.subTest(status, body=body), ScriptedServer(repeat(expect, answer(body, status=status))) as server:
                code, output, complaints = self.run_here("db_query", "sql=s", "--server-url", server.url)
                self.assertEqual((code, output), (1, ""))
                self.assertRegex(complaints, r"^aerostack_lite: [^\n\r\x1b]* \(request [0-9a-f]{32}, attempts 1\)\n$")
                self.assertIn(words, complaints)

    def test_what_the_api_said_is_masked_and_cut(self):
        for message, told in (
            ("no such key: " + KEY, "no such key: ***"),
            ("x" * 20_000, "x" * 10_000 + "...and 10000 more chars (request "),
        ):
            problem = json.dumps({"code": "C", "message": message}).encode()
            with ScriptedServer([expect, answer(problem, status="401 No")]) as server:
                os.environ["AEROSTACK_SERVER_URL"] = server.url
                status, _, complaints = self.run_here("cache_get", "key=k")
            self.assertEqual(status, 1)
            self.assertTrue(complaints.startswith("aerostack_lite: C: " + told), complaints[-200:])

    def test_no_answer_is_told_by_the_status_even_if_nobody_reads(self):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, MODULE, "--server-url", "http://127.0.0.1:%d" % free_port(), "cache_get", "key=k"],
            stderr=writer,
            timeout=PATIENCE_SECONDS,
        )
        os.close(writer)
        self.assertEqual(done.returncode, 3)

    def test_no_answer(self):
        with ScriptedServer([expect, close], [expect, hang]) as server:
            for words, arguments in (
                ("ConnectError", ["--server-url", "http://127.0.0.1:%d" % free_port(), "--retries", "0"]),
                ("RemoteProtocolError|ReadError", ["--server-url", server.url, "--retries", "0"]),
                ("ReadTimeout", ["--server-url", server.url, "--timeout", "0.1", "--retries", "0"]),
            ):
                with self.subTest(words):
                    status, output, complaints = self.run_here("db_query", "sql=s", *arguments)
                    self.assertEqual((status, output), (3, ""))
                    self.assertRegex(complaints, r"^aerostack_lite: (%s): .* \(request \w{32}, attempts 1\)\n$" % words)

    def test_retries_go_on_for_as_long_as_was_said(self):
        with ScriptedServer(
            [expect, answer(b"", "Retry-After: 0.01", status="500 No"), expect, answer(b'{"count":1}')]
        ) as server:
            self.assertEqual(
                self.run_here("db_query", "sql=s", "--retries", "5", "--server-url", server.url),
                (0, '{"count": 1}\n', ""),
            )
        with ScriptedServer([expect, answer(status="503 No")]) as server:
            status, _, complaints = self.run_here("cache_get", "key=k", "--retries", "0", "--server-url", server.url)
        self.assertEqual(status, 1)
        self.assertIn("attempts 1", complaints)

    def test_ctrl_c_ends_it_without_a_traceback(self):
        with mock.patch.object(aerostack_lite, "SDK", side_effect=KeyboardInterrupt):
            self.assertEqual(self.run_here("cache_get", "key=k"), (130, "", ""))

    @unittest.skipUnless(os.name == "posix", "a shell of POSIX closes the streams")
    def test_closed_standard_streams_are_as_good_as_none(self):
        self.write("a.jpg", b"picture")
        for line, closed, ending in (
            ("cache_get key=k", ">&-", (0, b"", b"")),
            ("db_query sql=s --table", ">&-", (0, b"", b"")),
            ("storage_upload key=k file=@a.jpg", "2>&-", (0, b"{}\n", b"")),
            ("cache_get key=k", "<&-", (0, b"{}\n", b"")),
            (
                "storage_upload key=k file=@-",
                "<&-",
                (2, b"", b"aerostack_lite: file: cannot be read: standard input is closed\n"),
            ),
            ("cache_get key=@-", "<&-", (2, b"", b"aerostack_lite: key: cannot be read: standard input is closed\n")),
            ("cache_get", "2>&-", (2, b"", b"")),
        ):
            with self.subTest(line + closed), ScriptedServer([expect, answer()]) as server:
                command = [
                    "sh",
                    "-c",
                    '"$@" ' + closed,
                    "sh",
                    sys.executable,
                    "-W",
                    "error",
                    "-X",
                    "dev",
                    MODULE,
                    "--server-url",
                    server.url,
                ] + line.split()
                done = subprocess.run(command, capture_output=True, timeout=PATIENCE_SECONDS)
                self.assertEqual((done.returncode, done.stdout, done.stderr), ending)

    def test_a_log_that_nobody_reads_keeps_nothing_from_being_sent(self):
        with ScriptedServer([expect, answer(b'{"success":true}')]) as server:
            reader, writer = os.pipe()
            os.close(reader)
            command = [sys.executable, MODULE, "--server-url", server.url, "--verbose", "cache_set", "key=k", "value=v"]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=PATIENCE_SECONDS)
            os.close(writer)
        self.assertEqual((done.returncode, done.stdout, len(server.requests)), (0, b'{"success": true}\n', 1))

    def test_the_status_is_the_program_s_too(self):
        with ScriptedServer(repeat(expect, answer(status="400 No"))) as server:
            os.environ["AEROSTACK_SERVER_URL"] = server.url
            self.assertEqual(self.run_apart("cache_get", "key=k")[0], 1)
            found = subprocess.run(
                [sys.executable, "-m", "aerostack_lite", "cache_get", "key=k"],
                stderr=subprocess.PIPE,
                timeout=PATIENCE_SECONDS,
                cwd=os.path.dirname(MODULE),
            )
            self.assertEqual(found.returncode, 1)


class HelpTest(CommandLineCase):
    def test_help_names_all_operations_and_how_it_ends(self):
        status, output, _ = self.run_here("--help")
        self.assertEqual(status, 0)
        for word in [operation.name for operation in OPERATIONS] + [
            "name:=JSON",
            "AEROSTACK_API_KEY",
            "--key-file",
            "3 no answer",
        ]:
            self.assertIn(word, output)

    def test_help_of_each_operation_shows_its_fields_and_an_example_that_works(self):
        self.write("a.jpg", b"picture")
        self.write("password.txt", b"correct horse\n")
        with local_platform().LocalPlatform() as platform:
            platform.register_service("resize", lambda data: data)
            os.environ["AEROSTACK_SERVER_URL"] = platform.url
            self.assertEqual(self.run_here("db_query", "sql=CREATE TABLE users (id)")[0], 0)
            for operation in sorted(OPERATIONS, key=lambda operation: operation.name, reverse=True):  # sign up, then in
                with self.subTest(operation.name):
                    status, output, _ = self.run_here(operation.name, "--help")
                    self.assertEqual(status, 0)
                    for field in operation.request_type._fields():
                        optional = ", optional" if field.default is None else ""
                        self.assertRegex(output, r"(?m)^  %s +\w.*%s$" % (field.name, optional))
                    example = re.search(r"(?m)^example:\n  (.*)$", output).group(1)
                    status, _, complaints = self.run_here(*shlex.split(example))
                    self.assertEqual((status, complaints), (0, ""))

    def test_version_and_hash_are_a_line_each(self):
        with open(MODULE, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        said = "aerostack_lite %s\nsha256 %s\n" % (aerostack_lite.__version__, digest)
        status, output, complaints = self.run_apart("--version")
        self.assertEqual((status, output.decode(), complaints), (0, said, b""))

    def test_the_version_of_a_file_that_was_piped_in_has_no_hash(self):
        with open(MODULE, "rb") as file:
            done = subprocess.run(
                [sys.executable, "-", "--version"], stdin=file, stdout=subprocess.PIPE, timeout=PATIENCE_SECONDS
            )
        self.assertEqual(
            (done.returncode, done.stdout.decode()), (0, "aerostack_lite %s\n" % aerostack_lite.__version__)
        )


class VerboseTest(CommandLineCase):
    def test_each_attempt_is_told_on_standard_error_without_secrets(self):
        with ScriptedServer(repeat(expect, answer(b'{"token":"t-very-secret-token"}', "Set-Cookie: c=1"))) as server:
            self.write("password.txt", b"p-very-secret-password\n")
            status, output, complaints = self.run_here(
                "auth_signin",
                "email=a@b.c",
                "password=@password.txt",
                "--verbose",
                "--field",
                "token",
                "--server-url",
                server.url,
            )
        self.assertEqual((status, output), (0, "t-very-secret-token\n"))
        for word in ("/auth/signin", "auth_signin", "200", "Attempt: 1", "Milliseconds"):
            self.assertIn(word, complaints)
        for secret in (KEY, "p-very-secret-password", "t-very-secret-token", "c=1"):
            self.assertNotIn(secret, complaints)


@unittest.skipIf(sys.platform == "win32", "needs pseudo terminals")
class TerminalTest(CommandLineCase):
    # Opening a terminal makes it the one that /dev/tty means, for the leader of a session that has none.
    START = (
        "import os, runpy, sys\nos.close(os.open(os.ttyname(0), os.O_RDWR))\n"
        "sys.argv[:] = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def run_on_a_terminal(self, *arguments, **settings):
        """(status, everything that the terminal showed). `types` is typed once `after` was shown."""
        master, slave = os.openpty()
        program = subprocess.Popen(
            [sys.executable, "-c", self.START, MODULE] + list(arguments),
            stdin=slave,
            stdout=settings.get("stdout", slave),
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        killer = threading.Timer(PATIENCE_SECONDS, program.kill)
        killer.start()
        shown, types = b"", settings.get("types")
        try:
            while True:
                try:
                    piece = os.read(master, 4096)
                except OSError:  # Linux says so when the last program has left the terminal
                    piece = b""
                if not piece:
                    break
                shown += piece
                if types and settings["after"] in shown:
                    os.write(master, types)
                    types = None
            return program.wait(), shown.decode().replace("\r\n", "\n")
        finally:
            killer.cancel()
            os.close(master)

    def test_the_key_is_asked_for_and_not_echoed(self):
        os.environ["AEROSTACK_API_KEY"] = ""
        with ScriptedServer([expect, answer(b'{"exists":true}')]) as server:
            status, shown = self.run_on_a_terminal(
                "cache_get", "key=k", "--server-url", server.url, after=b"key: ", types=b"typed-secret-key\n"
            )
            self.assertEqual(status, 0, shown)
            self.assertEqual(header(server.requests[0], "X-Aerostack-Key"), ["typed-secret-key"])
        self.assertNotIn("typed-secret-key", shown)
        self.assertTrue(shown.endswith('{\n  "exists": true\n}\n'), shown)

    def test_an_end_of_file_instead_of_a_key_is_no_traceback(self):
        os.environ["AEROSTACK_API_KEY"] = ""
        status, shown = self.run_on_a_terminal("cache_get", "key=k", after=b"key: ", types=b"\x04")
        self.assertEqual(status, 2, shown)
        self.assertNotIn("Traceback", shown)

    def test_an_answer_starts_a_line_of_its_own_after_progress_without_an_end(self):
        os.mkfifo("pipe")
        writer = threading.Thread(target=self.write, args=("pipe", b"hello"))
        writer.start()
        with ScriptedServer([expect, answer(b'{"url":"u"}')]) as server:
            shown = self.run_on_a_terminal(
                "storage_upload", "key=a", "file=@pipe", "--field", "url", "--server-url", server.url
            )
        writer.join()
        self.assertRegex(shown[1], r"\r0\.0 MiB\nu\n$")

    def test_an_upload_shows_its_progress_on_a_terminal_only(self):
        self.write("a.bin", bytes(1_000_000))
        upload = ["storage_upload", "key=a.bin", "file=@a.bin", "--field", "url", "--server-url"]
        with ScriptedServer(repeat(expect, answer(b'{"url":"u"}'))) as server:
            status, shown = self.run_on_a_terminal(*upload + [server.url])
            self.assertEqual(status, 0)
            self.assertRegex(shown, r"\r\[#+\.*\] +\d+ %.*\r\[#+\] 100 %  1\.0 MiB\nu\n$")
            self.assertEqual(self.run_apart(*upload + [server.url]), (0, b"u\n", b""))

    def test_an_error_starts_a_line_of_its_own_after_a_progress_bar_that_stopped(self):
        self.write("a.bin", bytes(4_000_000))

        def refuse(peer):
            peer.read(600_000)
            peer.send(
                answer(b'{"code":"VALIDATION_ERROR","message":"too large"}', "Connection: close", status="413 Large")
            )
            while True:
                peer._receive()

        with ScriptedServer([refuse]) as server:
            status, shown = self.run_on_a_terminal(
                "storage_upload", "key=a.bin", "file=@a.bin", "--server-url", server.url
            )
        self.assertEqual(status, 1)
        self.assertRegex(shown, r"\naerostack_lite: [^\n]*too large[^\n]*\n$")


if __name__ == "__main__":
    unittest.main()
