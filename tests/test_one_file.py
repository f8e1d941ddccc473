"""One file, copied anywhere: what a host must have (nothing) and what it must bear (nothing)."""

import ast
import functools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import unittest
import zipfile

from tests.newcomer import MODULE, copy_module
from tests.scripted_server import ScriptedServer, answer, at_once, expect, header, repeat
from tests.side_by_side import side_by_side

FOUND = answer(b'{"exists":true,"value":"v"}', "Set-Cookie: a=b")
CALL = textwrap.dedent("""
    import sys
    with SDK("k", server_url=sys.argv[1]) as sdk:
        print(sdk.cache.cache_get(key="a").value)
""")


class OneFileCase(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, True)

    def copy(self, *path, copy=copy_module):
        target = os.path.join(self.folder, *path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        copy(target)
        return target

    def copy_alone(self):
        return self.copy("aerostack_lite.py", copy=functools.partial(shutil.copy, MODULE))

    def write(self, text, *path):
        target = os.path.join(self.folder, *path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w") as file:
            file.write(text)
        return target

    def run_python(self, *arguments, **options):
        """Run a Python that knows nothing of this one's environment, folder and packages; its output."""
        environment = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        environment.update(options.pop("environment", {}))
        run = subprocess.run(
            [sys.executable] + list(arguments),
            cwd=options.pop("cwd", self.folder),
            env=environment,
            timeout=60,
            capture_output=True,
        )
        self.assertEqual((run.returncode, run.stderr.decode()), (0, ""))
        return run.stdout.decode().split()


@side_by_side(3)
class PlacesTest(OneFileCase):
    def call_from(self, head, *flags, **options):
        with ScriptedServer(repeat(expect, FOUND)) as server:
            program = self.write(head + CALL, "program.py")
            self.assertEqual(self.run_python(*(flags + (program, server.url)), **options), ["v"])
            self.assertEqual(header(server.requests[0], "X-Aerostack-Key"), ["k"])

    def test_copied_alone_into_an_empty_folder(self):
        self.copy_alone()
        self.call_from("from aerostack_lite import SDK\n", "-W", "error", "-X", "dev")

    def test_inside_a_package_by_absolute_and_by_relative_import(self):
        self.copy("pkg", "_vendor", "aerostack_lite.py")
        self.write("from ._vendor.aerostack_lite import SDK\n", "pkg", "__init__.py")
        self.write("", "pkg", "_vendor", "__init__.py")
        self.call_from(
            "from pkg import SDK as relative\n"
            "from pkg._vendor.aerostack_lite import SDK, errors\n"
            "from pkg._vendor.aerostack_lite import models\n"
            "assert relative is SDK\n",
            "-W",
            "error",
        )

    def test_under_the_official_name(self):
        self.copy("aerostack.py")
        self.call_from("from aerostack import SDK, errors, models, utils\n", "-W", "error")

    def test_from_a_zip(self):
        archive = os.path.join(self.folder, "all.zip")
        with zipfile.ZipFile(archive, "w") as packed:
            packed.write(MODULE, "aerostack_lite.py")
            packed.writestr("__main__.py", "from aerostack_lite import SDK\n" + CALL)
        with ScriptedServer(repeat(expect, FOUND)) as server:
            self.assertEqual(self.run_python("-W", "error", archive, server.url), ["v"])

    def test_isolated_without_site_without_bytecode_and_optimized(self):
        self.copy_alone()
        head = "import sys\nsys.path.insert(0, %r)\nfrom aerostack_lite import SDK\n" % self.folder
        self.call_from(head, "-I", "-S", "-B", "-OO")
        self.assertFalse(os.path.exists(os.path.join(self.folder, "__pycache__")))

    def test_from_the_command_line_s_c(self):
        self.copy("aerostack_lite.py")
        with ScriptedServer(repeat(expect, FOUND)) as server:
            self.assertEqual(self.run_python("-c", "from aerostack_lite import SDK\n" + CALL, server.url), ["v"])

    def test_from_standard_input(self):
        self.copy("aerostack_lite.py")
        with ScriptedServer(repeat(expect, FOUND)) as server:
            run = subprocess.run(
                [sys.executable, "-", server.url],
                cwd=self.folder,
                timeout=60,
                stdout=subprocess.PIPE,
                input=("from aerostack_lite import SDK\n" + CALL).encode(),
            )
        self.assertEqual(run.stdout.split(), [b"v"])

    def test_read_only_and_without_a_home(self):
        module = self.copy("aerostack_lite.py")
        os.chmod(module, stat.S_IRUSR)
        os.chmod(self.folder, stat.S_IRUSR | stat.S_IXUSR)
        self.addCleanup(os.chmod, self.folder, stat.S_IRWXU)
        with ScriptedServer(repeat(expect, FOUND)) as server:
            # Root may write anywhere, so the program itself refuses to.
            guard = textwrap.dedent("""
                import os, sys
                def watch(event, details):
                    if event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax+"):
                        raise SystemExit("wrote %r" % (details,))
                if hasattr(sys, "addaudithook"): sys.addaudithook(watch)
                sys.path.insert(0, os.getcwd())
                from aerostack_lite import SDK
            """)
            self.assertEqual(self.run_python("-B", "-W", "error", "-c", guard + CALL, server.url), ["v"])

    def test_executed_by_runpy_and_by_exec(self):
        module = self.copy("aerostack_lite.py")
        with ScriptedServer(repeat(expect, FOUND)) as server:
            head = "import runpy\nSDK = runpy.run_path(%r)['SDK']\n" % module
            self.assertEqual(self.run_python("-c", head + CALL, server.url), ["v"])


class UnregisteredTest(OneFileCase):
    """Loaded by its path, as plug-ins, notebooks and Lambda's tools do, and nowhere in sys.modules."""

    WAYS = {
        "a spec": """
            import importlib.util
            spec = importlib.util.spec_from_file_location("elsewhere", %r)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        """,
        "a loader": """
            import importlib.machinery, types
            module = types.ModuleType("other.place")
            importlib.machinery.SourceFileLoader("other.place", %r).exec_module(module)
        """,
        "runpy": """
            import runpy, types
            module = types.SimpleNamespace(**runpy.run_path(%r))
        """,
        "exec": """
            import types
            scope = {"__name__": "a_name_of_its_own"}
            exec(compile(open(%r, encoding="utf-8").read(), "<string>", "exec"), scope)
            module = types.SimpleNamespace(**scope)
        """,
        "exec without a name": """
            import types
            scope = {}
            exec(open(%r, encoding="utf-8").read(), scope)
            module = types.SimpleNamespace(**scope)
        """,
        "a module that was thrown out": """
            import sys
            sys.path.insert(0, __import__("os").path.dirname(%r))
            import aerostack_lite as module
            for name in [name for name in sys.modules if name.startswith("aerostack_lite")]:
                del sys.modules[name]
        """,
    }

    def test_it_does_all_that_it_does_elsewhere(self):
        """In each way one program: models are dataclasses, errors are copied, calls are answered."""
        path = self.copy("aerostack_lite.py")
        with ScriptedServer(repeat(expect, FOUND)) as server:

            def check(way):
                text = textwrap.dedent(self.WAYS[way] % path) + textwrap.dedent(self.PROGRAM)
                flags = ("-W", "error::DeprecationWarning")
                self.assertEqual(self.run_python(*flags, "-c", text, server.url), ["done"])

            at_once(check, *self.WAYS)

    PROGRAM = """
        import asyncio, copy, dataclasses, sys

        models = module.models
        request = models.CacheSetRequestBody(key="k", value=[1])
        assert dataclasses.asdict(request) == {"key": "k", "value": [1], "ttl": None}
        assert dataclasses.astuple(request) == ("k", [1], None)
        assert dataclasses.replace(request, ttl="5").ttl == 5
        assert [field.name for field in dataclasses.fields(models.File)] == ["content", "file_name", "content_type"]
        nested = models.AuthResponse(token="t", user={"id": "1"})
        assert dataclasses.asdict(nested)["user"]["id"] == "1"
        for name in models.__all__:
            made = getattr(models, name)
            if name.endswith(("Body", "Result", "Response")) or name in ("User", "File", "Messages", "Security"):
                assert dataclasses.is_dataclass(made), name
                assert dataclasses.fields(made), name
        class Mine(models.CacheSetRequestBody):
            pass
        assert dataclasses.asdict(Mine(key="k", value=1)) == {"key": "k", "value": 1, "ttl": None}
        assert copy.deepcopy(nested) == nested

        response = module.Response(400, module.Headers([("Content-Type", "text/plain")]), b"no")
        for error in (
            module.errors.SDKError("m", response),
            module.errors.ReadTimeout("m"),
            module.errors.ValidationError("t", [(("body", "key"), "missing", "Field required")]),
        ):
            for made in (copy.copy(error), copy.deepcopy(error)):
                assert type(made) is type(error) and str(made) == str(error) and made.args == error.args
        try:
            module.models.File()
        except module.errors.ValidationError as error:
            assert error.error_count() == 2

        with module.SDK("k", server_url=sys.argv[1]) as sdk:
            assert sdk.cache.cache_get(key="a").value == "v"
            assert asyncio.run(sdk.cache.cache_get_async(key="a")).value == "v"
            assert sdk.cache.cache_get(module.models.CacheGetRequestBody(key="a")).exists is True
        print("done")
    """


@side_by_side(3)
class MannersTest(OneFileCase):
    def test_an_import_starts_and_changes_nothing(self):
        self.copy("aerostack_lite.py")
        program = self.write(
            textwrap.dedent("""
            import signal, sys, threading, warnings
            import logging, socket, ssl, urllib.request, locale
            def state():
                numbers = [number for number in range(1, 65) if number not in (32, 33)]
                return dict(
                    signals=[signal.getsignal(number) for number in numbers] if hasattr(signal, "SIGKILL") else [],
                    threads=threading.enumerate(),
                    filters=list(warnings.filters),
                    handlers=list(logging.getLogger().handlers),
                    loggers=sorted(logging.root.manager.loggerDict),
                    timeout=socket.getdefaulttimeout(),
                    opener=urllib.request._opener,
                    context=ssl._create_default_https_context,
                    hook=sys.excepthook,
                    path=list(sys.path),
                    locale=locale.setlocale(locale.LC_ALL),
                    limit=sys.getrecursionlimit(),
                )
            before = state()
            import aerostack_lite
            assert state() == before, [name for name in before if state()[name] != before[name]]
            print("same")
        """),
            "program.py",
        )
        self.assertEqual(self.run_python("-W", "error", program), ["same"])

    def test_no_netrc_and_no_file_is_written_or_left(self):
        self.copy_alone()
        home = os.path.join(self.folder, "home")
        self.write(
            "machine 127.0.0.1 login ambient password sekret\ndefault login ambient password sekret\n", "home", ".netrc"
        )
        os.chmod(os.path.join(home, ".netrc"), 0o600)
        program = self.write("from aerostack_lite import SDK\n" + CALL, "program.py")
        with ScriptedServer(repeat(expect, FOUND)) as server:
            self.assertEqual(
                self.run_python(
                    "-B", program, server.url, environment={"HOME": home, "NETRC": os.path.join(home, ".netrc")}
                ),
                ["v"],
            )
            self.assertEqual(header(server.requests[0], "Authorization"), [])
        found = sorted(
            os.path.join(where, name)[len(self.folder) + 1 :]
            for where, _, names in os.walk(self.folder)
            for name in names
        )
        self.assertEqual(found, ["aerostack_lite.py", os.path.join("home", ".netrc"), "program.py"])

    def test_a_call_imports_only_what_every_call_needs(self):
        self.copy("aerostack_lite.py")
        unneeded = [
            "argparse",
            "asyncio",
            "concurrent",
            "dataclasses",
            "difflib",
            "encodings.utf_8_sig",
            "inspect",
            "logging",
            "typing",
            "typing_extensions",
        ]
        program = (
            "import sys; sys.path.insert(0, %r)\nfrom aerostack_lite import SDK\n%s\n"
            "print(sorted(set(%r) & set(sys.modules)))" % (self.folder, CALL, unneeded)
        )
        with ScriptedServer(repeat(expect, FOUND)) as server:
            self.assertEqual(self.run_python("-I", "-S", "-c", program, server.url), ["v", "[]"])

    def test_the_source_asserts_nothing(self):
        with open(MODULE, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            self.assertNotIsInstance(node, ast.Assert, "line %s" % getattr(node, "lineno", "?"))

    def test_help_needs_nothing(self):
        self.copy("aerostack_lite.py")
        self.assertIn(
            "usage:", self.run_python("-I", "-S", "-B", os.path.join(self.folder, "aerostack_lite.py"), "--help")
        )
