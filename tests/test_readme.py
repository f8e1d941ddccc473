"""The README keeps its word: every block runs, every output and every table is what the file says."""

import contextlib
import doctest
import hashlib
import inspect
import io
import logging
import os
import re
import sys
import unittest
from unittest import mock

import aerostack_lite
from tests.newcomer import COMPANY_CA, MODULE, ROOT, NewcomerTestCase, local_platform

README = os.path.join(ROOT, "README.md")


class Block:
    def __init__(self, language, code, line, excuse, output):
        self.language, self.code, self.line, self.excuse, self.output = language, code, line, excuse, output


def read_blocks():
    """The fenced blocks: language, line, the comment that excuses them from running, and the output that follows."""
    with open(README, encoding="utf-8") as file:
        text = file.read()
    pattern = r"(?ms)(?:^<!-- not run: ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?"
    return text, [
        Block(found.group(2), found.group(3), text.count("\n", 0, found.start(3)) + 1, found.group(1), found.group(4))
        for found in re.finditer(pattern, text)
    ]


TEXT, BLOCKS = read_blocks()


def is_as_shown(shown, got):
    return doctest.OutputChecker().check_output(shown, got, doctest.ELLIPSIS)


def table(first_cell):
    """The rows of the table whose head begins with these words, each as a list of cells."""
    head = re.search(r"(?m)^\| %s \|.*\n\|[-|]+\|\n((?:\|.*\n)+)" % re.escape(first_cell), TEXT)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in head.group(1).splitlines()]


class BlocksTest(NewcomerTestCase):
    def setUp(self):
        newcomer = self.newcomer
        newcomer.write(COMPANY_CA, "company-ca.pem")
        newcomer.write(b"\xff\xd8 not really a picture", "a.jpg")
        local_platform()  # puts the examples on the path
        environment = mock.patch.dict(os.environ, newcomer.environment)
        environment.start()
        self.addCleanup(environment.stop)
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith(("SSL_CERT", "REQUESTS_CA")):
                del os.environ[name]
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(newcomer.folder)

    def test_every_python_block_prints_what_its_comments_say(self):
        for block in BLOCKS:
            if block.language == "python":
                with self.subTest(line=block.line):
                    # Each block has its own platform, since the same people sign up in several.
                    with local_platform().LocalPlatform() as platform:
                        platform.register_service("echo", lambda data: data)
                        os.environ["AEROSTACK_SERVER_URL"] = platform.url
                        printed = self.run_python(block)
                    promised = "".join(re.findall(r"(?m)^\s*print\(.*\)  # (.*\n)", block.code))
                    self.assertTrue(is_as_shown(promised, printed), "promised:\n%s\nprinted:\n%s" % (promised, printed))

    def run_python(self, block):
        root, printed, complaints = logging.getLogger(), io.StringIO(), io.StringIO()
        handlers, namespace = root.handlers[:], {"__name__": "readme"}
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
            try:
                exec(compile(block.code, "README.md:%d" % block.line, "exec"), namespace)
            finally:
                root.handlers[:] = handlers
                logging.getLogger("aerostack_lite").setLevel(logging.NOTSET)
        if "getLogger" in block.code:
            self.assertIn("Operation: auth_signup", complaints.getvalue())
            self.assertNotIn("correct horse", complaints.getvalue())
        cases = [
            value for value in namespace.values() if isinstance(value, type) and issubclass(value, unittest.TestCase)
        ]
        for case in cases:
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
            self.assertTrue(result.testsRun and result.wasSuccessful(), result.failures + result.errors)
        if "handler" in namespace:
            context = mock.Mock(get_remaining_time_in_millis=lambda: 3000)
            self.assertIsNone(namespace["handler"]({"key": "a"}, context))
        return printed.getvalue()

    def test_every_shell_block_says_what_it_should(self):
        for block in BLOCKS:
            if block.language == "sh" and not block.excuse:
                with self.subTest(line=block.line):
                    status, output, complaints = self.newcomer.sh(block.code)
                    self.assertEqual((status, complaints), (0, ""), output)
                    if block.output:
                        self.assertTrue(
                            is_as_shown(block.output, output), "promised:\n%s\nsaid:\n%s" % (block.output, output)
                        )

    def test_few_blocks_are_excused(self):
        self.assertLessEqual(len([block for block in BLOCKS if block.excuse]), 2)
        self.assertEqual({block.language for block in BLOCKS}, {"python", "sh", "text"})

    def test_the_files_that_it_names_exist(self):
        for name in set(re.findall(r"examples/\w+\.\w+|tests/\w+\.py", TEXT)):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)
        for name in set(re.findall(r"python3 -m (tests\.\w+)", TEXT)):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name.replace(".", os.sep), "__main__.py")), name)


class FactsTest(unittest.TestCase):
    def test_the_hash_is_the_file_s(self):
        with open(MODULE, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        self.assertEqual(re.findall(r"(?m)^sha256 (\w+)$", TEXT), [digest])

    def test_the_version_is_the_file_s(self):
        self.assertEqual(re.findall(r"(?m)^aerostack_lite (\S+)$", TEXT), [aerostack_lite.__version__])
        self.assertIn("\n**%s** " % aerostack_lite.__version__, TEXT.partition("## Changes")[2])

    def test_the_operations_are_the_file_s(self):
        rows = []
        for operation in aerostack_lite.OPERATIONS:
            goes_in = [
                "`%s%s`" % (field.name, "?" * (field.default is None)) for field in operation.request_type._fields()
            ]
            comes_back = ["`%s`" % field.name for field in operation.response_type._fields()]
            rows.append(["`sdk.%s.%s`" % (operation.service, operation.name), " ".join(goes_in), " ".join(comes_back)])
        self.assertEqual(table("Call"), rows)

    def test_the_settings_are_the_file_s(self):
        for kind in (aerostack_lite.SDK, aerostack_lite.HttpClient):
            settings = [
                ["`%s`" % name, "`%s`" % str(parameter.default).replace("Unset()", "UNSET")]
                for name, parameter in inspect.signature(kind).parameters.items()
            ]
            self.assertEqual([row[:2] for row in table("`%s(...)`" % kind.__name__)], settings)

    def test_the_errors_are_the_file_s(self):
        tree = inspect.getdoc(aerostack_lite.AerostackError).partition("\n\n")[2]
        self.assertIn(tree + "\n", TEXT)

    def test_the_sections_come_in_the_order_in_which_they_are_needed(self):
        self.assertEqual(
            re.findall(r"(?m)^## (.*)", TEXT),
            [
                "The nine operations",
                "AWS Lambda",
                "Errors",
                "Timeouts",
                "Retries",
                "Uploads",
                "Async",
                "Proxies and certificates",
                "Logging",
                "Testing your own code",
                "Command line",
                "Settings",
                "Limits",
                "Coming from the official SDK",
                "Measured speed",
                "Developing",
                "Changes",
            ],
        )

    def test_parity_is_counted_once(self):
        self.assertEqual(len(re.findall(r"(?m)^parity: \d+ cases, \d+ intended differences$", TEXT)), 1)

    def test_lines_are_not_too_long_to_read(self):
        for number, line in enumerate(TEXT.splitlines(), 1):
            if not line.startswith("|"):
                self.assertLessEqual(len(line), 125, "line %d" % number)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write-hash"]:
        with open(MODULE, "rb") as module, open(README, "w", encoding="utf-8") as readme:
            readme.write(re.sub(r"(?m)^sha256 \w+$", "sha256 " + hashlib.sha256(module.read()).hexdigest(), TEXT))
    else:
        unittest.main()
