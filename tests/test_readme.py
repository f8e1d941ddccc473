"""The README keeps its word: its programs run, its outputs, tables and numbers are those of the file.

python3 -m tests.test_readme --write     refreshes the checksum and the rows that it quotes from the benchmarks
"""

import ast
import contextlib
import doctest
import hashlib
import importlib.util
import inspect
import io
import logging
import os
import re
import shlex
import ssl
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request
import zipfile
from unittest import mock

import aerostack_lite
from aerostack_lite import OPERATIONS, SDK, SERVERS, Headers, HttpClient, Response, errors, models
from tests.newcomer import COMPANY_CA, MODULE, ROOT, NewcomerTestCase, local_platform
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    answer,
    at_once,
    close,
    expect,
    free_port,
    hang,
    repeat,
)
from tests.test_retries import CERTIFICATE, Clock

README = os.path.join(ROOT, "README.md")
MAX_LINES = 380
SPEED = "<!-- speed:begin -->\n", "<!-- speed:end -->\n"
SPEED_HEAD = "| row | figure | aerostack_lite | the others |\n| --- | --- | --- | --- |\n"
SPEED_ROWS = ["cold call, https", "warm call, https", "db_query, 1k rows", "50 tasks", "upload of 1 GiB, https"]


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


class Block:
    def __init__(self, language, code, line, output):
        self.language, self.code, self.line, self.output = language, code, line, output

    def __repr__(self):
        return "the block in line %d" % self.line


def read_blocks(text):
    """The fenced blocks: language, code, line, and the output that follows a program."""
    pattern = r"(?ms)^```(\w+)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?"
    return [
        Block(found.group(1), found.group(2), text.count("\n", 0, found.start(2)) + 1, found.group(3))
        for found in re.finditer(pattern, text)
    ]


TEXT = read("README.md")
BLOCKS = read_blocks(TEXT)
PROSE = re.sub(r"(?ms)^```.*?^```\n|^\|.*?\n|<!--.*?-->", "", TEXT)
INLINE = re.findall(r"`([^`]+)`", PROSE)
SECTIONS = re.findall(r"(?m)^## (.*)$", TEXT)


def is_as_shown(shown, got):
    return doctest.OutputChecker().check_output(shown, got, doctest.ELLIPSIS)


def between(marks):
    return TEXT.split(marks[0])[1].split(marks[1])[0]


def cells(rows):
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows.splitlines()]


def anchor(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def checksum():
    with open(MODULE, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def measured_rows():
    """The rows of the benchmarks' page that this one quotes; none before the first full run."""
    rows = read("tests", "benchmarks", "README.md").splitlines(True)
    starts = tuple("| %s | CPU |" % row for row in SPEED_ROWS)
    return "".join(row for row in rows if row.startswith(starts) and len(cells(row)[0]) == 4)


def speed_table():
    rows = measured_rows()
    return SPEED_HEAD + rows if rows else ""


class BlocksTest(NewcomerTestCase):
    def __repr__(self):
        return "the block in line %d" % self.line

    def setUp(self):
        newcomer = self.newcomer
        newcomer.write(COMPANY_CA, "company-ca.pem")
        newcomer.write('{"hello": "world"}', "value.json")
        environment = mock.patch.dict(os.environ, newcomer.environment)
        environment.start()
        self.addCleanup(environment.stop)
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith(("SSL_CERT", "REQUESTS_CA")):
                del os.environ[name]
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(newcomer.folder)

    def test_every_language_is_tried(self):
        self.assertEqual({block.language for block in BLOCKS}, {"python", "sh", "powershell", "text"})

    def test_every_python_block_prints_what_its_comments_say(self):
        for block in BLOCKS:
            if block.language == "python":
                with self.subTest(line=block.line):
                    # Each block has its own platform, since the same people sign up in several.
                    with local_platform().LocalPlatform() as platform, contextlib.redirect_stdout(io.StringIO()) as out:
                        platform.register_service("echo", lambda data: data)
                        os.environ["AEROSTACK_SERVER_URL"] = platform.url
                        exec(compile(block.code, "README.md:%d" % block.line, "exec"), {"__name__": "readme"})
                    promised = "".join(re.findall(r"(?m)^\s*print\(.*\)  # (.*\n)", block.code))
                    printed = out.getvalue()
                    self.assertTrue(is_as_shown(promised, printed), "promised:\n%s\nprinted:\n%s" % (promised, printed))

    def test_the_first_block_runs_with_nothing_set(self):
        first = BLOCKS[0]
        self.assertEqual(first.language, "sh")
        status, output, complaints = self.newcomer.sh("unset AEROSTACK_API_KEY AEROSTACK_SERVER_URL\n" + first.code)
        self.assertEqual((status, complaints), (0, ""), output)
        self.assertTrue(output.endswith("All went well.\n"), output)

    def test_every_shell_block_prints_what_it_should(self):
        def check(block):
            status, output, complaints = self.newcomer.sh(block.code)
            self.assertEqual((status, complaints), (0, ""), output)
            if block.output:
                shown = is_as_shown(block.output, output)
                self.assertTrue(shown, "promised:\n%s\nprinted:\n%s" % (block.output, output))

        at_once(check, *[block for block in BLOCKS if block.language == "sh"])
        self.check_that_the_function_is_not_compiled_again()

    def check_that_the_function_is_not_compiled_again(self):
        with zipfile.ZipFile(self.newcomer.path("function.zip")) as function:
            function.extractall(self.newcomer.path("task"))  # with other times than the bytecode's
        status, _, complaints = self.newcomer.sh("cd task && python3 -v -c 'import lambda_handler'")
        self.assertEqual(status, 0, complaints)
        for name in ("lambda_handler", "aerostack_lite"):
            self.assertRegex(complaints, r"code object from '?[^\n]*%s\.cpython-\d+\.pyc" % name)

    def test_every_powershell_line_does_what_it_should(self):
        # No line has anything that PowerShell, cmd and a POSIX shell read differently but how a variable is set.
        rows = '{"count": 1, "results": [{"one": 1}]}\n'
        shown = ["[{'answer': 42}]\n", rows, '{"success": true}\n']
        lines = []
        for block in BLOCKS:
            for line in block.code.splitlines() if block.language == "powershell" else ():
                self.assertNotRegex(line, r"[\\`]|\$(?!env:)")
                if not re.fullmatch(r'\$env:AEROSTACK_(API_KEY|SERVER_URL) = "[^"]+"', line):
                    lines.append(line)

        def check(case):
            line, output = case
            program, *arguments = shlex.split(line)
            self.assertEqual(program, "py")
            self.assertEqual(self.newcomer.run("python3", *arguments), (0, output, ""))

        self.assertEqual(len(lines), len(shown))
        at_once(check, *zip(lines, shown))

    def test_the_expressions_within_sentences_hold(self):
        namespace = dict(vars(aerostack_lite), aerostack_lite=aerostack_lite, logging=logging, callable=lambda: "key")
        namespace["fake"] = mock.Mock(spec=["build_request", "send", "close"])
        self.addCleanup(logging.getLogger("aerostack_lite").setLevel, logging.NOTSET)
        tried = []
        for code in INLINE:
            if re.match(r"(SDK|RetryConfig|help|logging\.getLogger)\(|from aerostack_lite\S* import ", code):
                with self.subTest(code), contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(code.replace("debug_logger=...", "debug_logger=logging"), namespace)
                    self.assertEqual("help" in code, out.getvalue() != "")
                tried.append(code.partition("(")[0])
        self.assertLess({"SDK", "RetryConfig", "help", "logging.getLogger"}, set(tried))


class SymptomsTest(LoopbackTestCase):
    """Each row of the table of symptoms, from a real server."""

    def raised(self, url, method="cache_get", client=None, environment=None, **call):
        with mock.patch.dict(os.environ, environment or {}), SDK("a key", server_url=url, client=client) as sdk:
            service = sdk.database if method == "db_query" else sdk.cache
            fields = {"sql": "SELECT 1"} if method == "db_query" else {"key": "k"}
            with self.assertRaises(errors.AerostackError) as caught:
                getattr(service, method)(**fields, **call)
        return caught.exception

    def from_server(self, *script, **call):
        with ScriptedServer(script) as server:
            return self.raised(server.url, **call)

    def untrusted(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "certificate.pem")
            with open(path, "w") as file:
                file.write(CERTIFICATE)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(path)
        with ScriptedServer(repeat(expect, close), tls=context) as server:
            return self.raised(server.url)

    def refused_by_proxy(self):
        with ScriptedServer([expect, answer(b"", status="407 Who are you")]) as proxy:
            with HttpClient(proxy=proxy.url) as client:
                return self.raised("https://api.example.com/v1", client=client)

    def used_after_close(self):
        sdk = SDK("a key")
        sdk.close()
        with self.assertRaises(errors.AerostackError) as caught:
            sdk.cache.cache_get(key="k")
        return caught.exception

    def called_without_a_key(self):
        with mock.patch.dict(os.environ, AEROSTACK_API_KEY=""), self.assertRaises(errors.AerostackError) as caught:
            SDK()
        return caught.exception

    def occurrences(self):
        nobody = "http://127.0.0.1:%d" % free_port()
        busy = answer(b"", "Retry-After: 60", status="429 Too Many Requests")
        denied = answer(b'{"code":"AUTH_INVALID_KEY","message":"no"}', status="401 Unauthorized")
        yield "is empty", self.called_without_a_key()
        yield "a wrong field", self.raised(nobody, "db_query", parms=[1])
        yield "status 401", self.from_server(expect, denied, method="db_query")
        yield "status 401", self.from_server(expect, denied)
        yield "status 429", self.from_server(expect, busy)
        yield "the certificate of HOST", self.untrusted()
        yield (
            "cannot connect to the proxy",
            self.raised("http://api.example.com", environment={"HTTP_PROXY": nobody}, retries=None),
        )
        yield "opened no tunnel", self.refused_by_proxy()
        yield "cannot connect to HOST", self.raised(nobody, retries=None)
        yield "timed out", self.from_server(expect, hang, timeout_ms=50)
        yield "a page of HTML", self.from_server(expect, answer(b"<p>Log in</p>", content_type="text/html"))
        yield "the SDK is closed", self.used_after_close()

    def test_each_symptom_is_seen_with_the_exception_that_the_table_names(self):
        table = cells(between(("<!-- symptoms:begin -->\n", "<!-- symptoms:end -->\n")))[2:]
        seen = []
        for start, error in self.occurrences():
            symptom, kinds, _ = next(row for row in table if row[0].strip("`").startswith(start))
            with self.subTest(symptom, error=error):
                self.assertIn(type(error), [k for n in re.findall(r"`(\w+)`", kinds) for k in self.kinds(n)])
                for words in re.findall(r"`(.*?)`", symptom):
                    self.assertRegex(str(error), re.escape(words).replace("HOST", r"\S+"))
            seen.append(symptom)
        self.assertEqual(list(dict.fromkeys(seen)), [row[0] for row in table])

    def kinds(self, name):
        kind = getattr(errors, name)
        return [kind, *kind.__subclasses__()] if kind is errors.TimeoutException else [kind]


class Recorder(urllib.request.BaseHandler):
    """A handler that keeps the timeout of each request."""

    def __init__(self):
        self.timeouts = []

    def http_request(self, request):
        self.timeouts.append(request.timeout)
        return request


JSON = Headers([("Content-Type", "application/json")])


class NumbersTest(LoopbackTestCase):
    """Every number in a sentence is in one of these tests, or is part of a name."""

    NAMES = r"Python 3\.13|HTTP/1\.1|SHA-256|UTF-8|TLS is 1\.2|` 0\.1\.2|\*\*0\.\d\.0\*\*"

    CLAIMS = {
        "Python 3.7 to 3.14": "pythons",
        "60 seconds as a whole": "timeout",
        "60 seconds without": "upload_timeout",
        "60 seconds in all": "timeout",
        "idle for 30 seconds": "idle",
        "0.5 seconds, then 1)": "backoff",
        "more than 8 seconds": "retry_after",
        "520 to 524, 529 and 530": "cloudflare",
        "where 500 is": "cloudflare",
        "starts at 100 ms, goes on to 2,000 ms by a factor of 2, and ends 10,000 ms": "strategy",
        "one of 64 threads": "workers",
        "at most 64 MiB": "response_bytes",
        "at most 500 levels deep": "depth",
        "as 307 and 308, at most 5": "redirects",
        "An empty 2xx is a success as 204 and 205 only": "empty",
        "port 8787": "port",
        "exit status 4": "exit_statuses",
    }
    STATUSES = (
        r"Exit statuses: 0 success; 1 API error; 2 usage error.*; 3 no response; 4 the response.*; 130 interrupted\."
    )

    def test_every_claim_stands_in_the_README_and_no_other_number_does(self):
        left = re.sub(r"`[^`]*`", "`", re.sub(r"\s+", " ", PROSE))
        self.assertRegex(left, self.STATUSES)
        left = re.sub(self.STATUSES, "", left)
        for claim in self.CLAIMS:
            self.assertIn(claim, left)
            self.assertTrue(hasattr(self, "test_" + self.CLAIMS[claim]), claim)
            left = left.replace(claim, "")
        left = re.sub(self.NAMES, "", left)
        self.assertEqual(re.findall(r".{0,40}\d.{0,20}", left), [])
        self.assertEqual((len(OPERATIONS), len(SPEED_ROWS)), (9, 5))  # which it says in words

    def sdk(self, client=None, url="http://127.0.0.1:1"):
        sdk = SDK("a key", server_url=url, client=client)
        self.addCleanup(sdk.close)
        return sdk

    def attempts(self, response, method="cache_get", clock=Clock):
        """How often a request is sent that is answered so every time, and the waits between."""
        with ScriptedServer(repeat(expect, response)) as server:
            sdk = self.sdk(url=server.url)
            clock = clock(sdk)
            fields = {"sql": "SELECT 1"} if method == "db_query" else {"key": "k"}
            with self.assertRaises(errors.AerostackError) as caught:
                getattr(sdk.database if method == "db_query" else sdk.cache, method)(**fields)
        return caught.exception.attempts, clock.slept

    def test_pythons(self):
        versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
        self.assertEqual("Python %s to %s" % (versions[0], versions[-1]), "Python 3.7 to 3.14")

    def timeouts(self, call):
        recorder = Recorder()
        with ScriptedServer([expect, answer()]) as server, HttpClient(handlers=[recorder]) as client:
            call(self.sdk(client, server.url))
        return recorder.timeouts

    def test_timeout(self):
        self.assertEqual(self.timeouts(lambda sdk: sdk.cache.cache_get(key="k")), [60])

    def test_upload_timeout(self):
        self.assertEqual(self.timeouts(lambda sdk: sdk.storage.storage_upload(key="k", file=b"")), [60])

    def test_idle(self):
        self.assertEqual(aerostack_lite._MAX_IDLE_SECONDS, 30)

    def test_backoff(self):
        waits = [self.attempts(answer(status="503 Busy"))[1] for _ in range(60)]
        for bound, drawn in zip((0.5, 1), zip(*waits)):
            self.assertLessEqual(max(drawn), bound)
            self.assertGreater(max(drawn), 0.75 * bound)  # by chance smaller once in 30 million runs

    def test_retry_after(self):
        for asked, expected in (("8", (3, [8, 8])), ("8.1", (1, []))):
            self.assertEqual(self.attempts(answer(b"", "Retry-After: " + asked, status="503 Busy")), expected)

    def test_cloudflare(self):
        for status in (500, 520, 521, 522, 523, 524, 529, 530):
            response = answer(status="%d No" % status)
            self.assertEqual(self.attempts(response)[0], 3, status)
            self.assertEqual(self.attempts(response, "db_query")[0], 1, status)

    def test_strategy(self):
        code = next(code for code in INLINE if code.startswith("RetryConfig("))
        config = eval(code, vars(aerostack_lite))
        strategy = config.backoff
        waits = (strategy.initial_interval, strategy.max_interval, strategy.exponent, strategy.max_elapsed_time)
        self.assertEqual((*waits, config.retry_connection_errors), (100, 2000, 2, 10000, True))

    def test_workers(self):
        self.assertEqual(inspect.signature(SDK).parameters["max_workers"].default, 64)

    def test_response_bytes(self):
        self.assertEqual(inspect.signature(HttpClient).parameters["max_response_bytes"].default, 64 * 2**20)

    def received(self, content, status=200):
        fake = mock.Mock(send=lambda request, stream: Response(status, JSON, content))
        return self.sdk(fake).cache.cache_get(key="k")

    def test_depth(self):
        deep = b'{"value":' + b"[" * 499 + b"]" * 499 + b"}"
        self.assertIsNotNone(self.received(deep).value)
        with self.assertRaises(errors.ResponseValidationError):
            self.received(deep.replace(b"[]", b"[[]]"))

    def test_redirects(self):
        again = ("Location: /v1/cache/get",)
        followed = []
        for status in range(301, 310):
            with ScriptedServer(repeat(expect, answer(b"", *again, status="%d Elsewhere" % status))) as server:
                with self.assertRaises(errors.AerostackError) as caught:
                    self.sdk(url=server.url + "/v1").cache.cache_get(key="k")
                if isinstance(caught.exception, errors.TooManyRedirects):
                    followed.append((status, len(server.requests) - 1))
        self.assertEqual(followed, [(307, 5), (308, 5)])

    def test_empty(self):
        taken = []
        for status in range(200, 210):
            with contextlib.suppress(errors.AerostackError):
                self.assertEqual(self.received(b"", status), models.CacheGetResponseBody())
                taken.append(status)
        self.assertEqual(taken, [204, 205])

    def help_of(self, program):
        with mock.patch("sys.argv", ["program", "--help"]), contextlib.redirect_stdout(io.StringIO()) as told:
            with self.assertRaises(SystemExit):
                program()
        return told.getvalue()

    def test_port(self):
        self.assertEqual(urllib.parse.urlsplit(SERVERS[1]).port, 8787)
        self.assertIn("(8787)", self.help_of(local_platform().main))

    def test_exit_statuses(self):
        told = re.findall(r"\d+", self.help_of(aerostack_lite._main).partition("Exit status")[2])
        self.assertEqual(re.findall(r"\d+", re.search(self.STATUSES, re.sub(r"\s+", " ", PROSE)).group()), told)


class FactsTest(unittest.TestCase):
    def test_no_checkout_changes_the_bytes_that_the_checksum_is_of(self):
        self.assertEqual(read(".gitattributes"), "* -text\n")

    def test_the_checksum_is_the_file_s(self):
        self.assertEqual(re.findall(r"(?m)^sha256 (\w+)$", TEXT), [checksum()], "python3 -m tests.test_readme --write")

    def test_the_version_is_the_file_s(self):
        self.assertEqual(re.findall(r"(?m)^aerostack_lite (\S+)$", TEXT), [aerostack_lite.__version__])
        self.assertTrue(TEXT.partition("## Changes\n\n")[2].startswith("**%s** " % aerostack_lite.__version__))

    def test_the_rows_of_speed_are_those_of_the_benchmarks_page(self):
        rows = measured_rows()
        self.assertIn(rows.count("\n"), (0, len(SPEED_ROWS)))
        self.assertEqual(between(SPEED), speed_table(), "python3 -m tests.test_readme --write")

    def test_the_official_version_is_the_one_of_the_parity_page(self):
        self.assertIn("`aerostack` 0.1.2", TEXT)
        self.assertIn("aerostack 0.1.2", read("tests", "parity", "README.md"))

    def test_the_operations_are_the_file_s(self):
        rows = []
        for operation in OPERATIONS:
            request = [
                "`%s%s`" % (field.name, "?" * (field.default is None)) for field in operation.request_type._fields()
            ]
            response = ["`%s`" % field.name for field in operation.response_type._fields()]
            rows.append(["`sdk.%s.%s`" % (operation.service, operation.name), " ".join(request), " ".join(response)])
        table = re.search(r"(?m)^\| Operation \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT).group(1)
        self.assertEqual(cells(table), rows)

    def test_the_settings_are_the_file_s(self):
        for kind in (SDK, HttpClient):
            for name in set(inspect.signature(kind).parameters) - {"api_key_auth", "server_idx", "url_params"}:
                self.assertIn("`%s" % name, TEXT)

    def test_the_servers_are_the_file_s(self):
        self.assertIn("else `%s`" % SERVERS[0], TEXT.replace("\n", " "))
        self.assertIn("by default `%s`" % urllib.parse.urlsplit(SERVERS[0]).hostname, TEXT.replace("\n", " "))

    def test_it_shows_where_to_look_first(self):
        tree = ast.parse(read("aerostack_lite.py"))
        names = {node.name: node for node in tree.body if hasattr(node, "name")}
        declared = {node.name for node in names["Cache"].body if isinstance(node, ast.FunctionDef)}
        self.assertEqual(declared, {"cache_get", "cache_set"})
        self.assertIn("_perform", names)
        for section in re.findall(r"(?m)^ *([A-Z]\w+): ", TEXT.partition("## How it is built")[2].split("```")[1]):
            self.assertRegex(read("aerostack_lite.py"), r"(?m)^# ---- %s: " % section)

    def test_the_contents_are_the_sections(self):
        contents = re.search(r"(?ms)^Contents: (.*?)\n\n", TEXT).group(1)
        self.assertEqual(re.findall(r"\[(.*?)\]", contents.replace("\n", " ")), SECTIONS)
        self.assertEqual(SECTIONS[-1], "Changes")

    def test_every_link_leads_somewhere(self):
        for target in re.findall(r"\]\(([^)]*)\)", TEXT):
            path, _, title = target.partition("#")
            with self.subTest(target):
                self.assertTrue(os.path.exists(os.path.join(ROOT, path)))
                self.assertTrue(path or title in map(anchor, SECTIONS))

    def test_the_files_and_commands_that_it_names_exist(self):
        for name in set(re.findall(r"(?:examples/|tests/|\.ci/)[\w/]+(?:\.\w+)?", TEXT)):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)
        for name in set(re.findall(r"python3 -m (tests\.\w+)", TEXT)):
            self.assertIsNotNone(importlib.util.find_spec(name), name)
        self.assertRegex(read("pyproject.toml"), r'(?m)^aerostack-lite = "aerostack_lite:_main"$')

    def test_it_is_short_enough_to_be_read(self):
        missing = len(SPEED_ROWS) - measured_rows().count("\n")
        self.assertLessEqual(TEXT.count("\n") + missing, MAX_LINES)
        for number, line in enumerate(TEXT.splitlines(), 1):
            if not line.startswith("|"):
                self.assertLessEqual(len(line), 125, "line %d" % number)


def write():
    text = re.sub(r"(?m)^sha256 \w+$", "sha256 " + checksum(), TEXT)
    text = text.replace(between(SPEED).join(SPEED), speed_table().join(SPEED))
    with open(README, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        unittest.main()
