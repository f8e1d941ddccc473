"""What `pip install` gets: the module, its licence, its types, and nothing else."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import unittest
import zipfile

from tests.checkers import CheckersCase

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BACKEND = os.path.join(ROOT, ".ci", "build_backend.py")
SUBMODULES = ["errors", "httpclient", "models", "types", "utils"]


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def load_backend():
    spec = importlib.util.spec_from_file_location("build_backend", BACKEND)
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    return backend


class SourcesTest(unittest.TestCase):
    """What the build reads, and what it makes of the module."""

    def test_the_version_stands_in_the_module_only(self):
        self.assertEqual(len(re.findall(r'(?m)^__version__ = "\d+\.\d+\.\d+"$', read("aerostack_lite.py"))), 1)
        self.assertNotRegex(read("pyproject.toml"), r"(?m)^version\s*=")

    def test_nothing_is_required_but_python(self):
        self.assertRegex(read("pyproject.toml"), r"(?m)^dependencies = \[\]$")
        self.assertRegex(read("pyproject.toml"), r'(?m)^requires-python = ">=3\.7"$')

    def test_the_licence_is_the_module_s_header(self):
        text = load_backend().licence(read("aerostack_lite.py"))
        self.assertTrue(text.startswith("MIT License\n\nCopyright (c) "), text[:60])
        self.assertIn('\nTHE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY', text)
        self.assertTrue(text.endswith("\n"))
        self.assertNotIn("#", text)

    def test_every_name_of_a_submodule_has_a_stub(self):
        import aerostack_lite

        stubs = load_backend().stubs(read("aerostack_lite.py"))
        self.assertEqual(sorted(stubs), sorted(["__init__.pyi"] + [name + ".pyi" for name in SUBMODULES]))
        for name in SUBMODULES:
            declared = set()
            for node in ast.parse(stubs[name + ".pyi"]).body:
                if isinstance(node, ast.ImportFrom):
                    declared.update(alias.asname for alias in node.names)
                else:
                    declared.update(target.id for target in node.targets)
            with self.subTest(name):
                self.assertLessEqual(set(getattr(aerostack_lite, name).__all__), declared)


CALLER = textwrap.dedent("""
    import asyncio
    import aerostack_lite
    from aerostack_lite import SDK, errors, models
    from aerostack_lite.errors import ErrorResponse
    from aerostack_lite.httpclient import HttpClient
    from aerostack_lite.models import CacheGetResponseBody, CacheSetRequestBody, Role
    from aerostack_lite.types import UNSET, OptionalNullable
    from aerostack_lite.utils import BackoffStrategy, RetryConfig, parse_datetime

    def settings(number: OptionalNullable[int], role: Role) -> RetryConfig:
        return RetryConfig("backoff", BackoffStrategy(1, 2, 3.0, 4), True)

    with SDK("key", retry_config=settings(UNSET, Role.USER), client=HttpClient()) as sdk:
        reveal_type(sdk.cache.cache_get(key="a"))  # CacheGetResponseBody
        reveal_type(sdk.cache.cache_get(key="a").exists)  # bool, None
        reveal_type(parse_datetime("2026-01-01T00:00:00Z"))  # datetime
        same: CacheGetResponseBody = sdk.cache.cache_get({"key": "a"})
        nested: models.CacheGetResponseBody = same
        sdk.cache.cache_set(CacheSetRequestBody(key="a", value=1))
        sdk.cache.cache_get(kee="a")  # refused
        sdk.database.db_query(sql=1)  # refused
        sdk.cache.no_such_operation()  # refused
    try:
        pass
    except ErrorResponse as error:
        reveal_type(error.status_code)  # int
        reveal_type(error.data)  # ErrorResponseData
    except errors.AerostackError as failure:
        reveal_type(failure.request_id)  # str, None

    async def main() -> None:
        async with SDK("key") as sdk:
            got, rows = await asyncio.gather(sdk.cache.cache_get_async(key="a"), sdk.database.db_query_async(sql="x"))
            reveal_type(got)  # CacheGetResponseBody
            reveal_type(rows)  # DbQueryResult
""")


@unittest.skipUnless(
    importlib.util.find_spec("build") and importlib.util.find_spec("flit_core"), "needs build and flit_core"
)
class BuildTest(CheckersCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.tree = os.path.join(cls.folder, "tree")
        os.makedirs(os.path.join(cls.tree, ".ci"))
        for name in ("pyproject.toml", "README.md", "aerostack_lite.py", os.path.join(".ci", "build_backend.py")):
            shutil.copy(os.path.join(ROOT, name), os.path.join(cls.tree, name))
        try:
            cls.sdist, cls.wheel = cls.build("dist")
            cls.site = cls.unpack()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, True)

    @classmethod
    def build(cls, into, *flags):
        target = os.path.join(cls.folder, into)
        run = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", target] + list(flags) + [cls.tree],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        if run.returncode:
            raise AssertionError(run.stdout.decode("utf-8", "replace"))
        return [
            os.path.join(target, name) for name in sorted(os.listdir(target), key=lambda name: name.endswith(".whl"))
        ]

    @classmethod
    def unpack(cls):
        """The wheel in a new virtual environment, where checkers look for installed packages."""
        environment = os.path.join(cls.folder, "environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        cls.python = os.path.join(environment, "Scripts" if os.name == "nt" else "bin", "python")
        site = subprocess.run(
            [cls.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            stdout=subprocess.PIPE,
        )
        site = site.stdout.decode().strip()
        with zipfile.ZipFile(cls.wheel) as wheel:
            wheel.extractall(site)
        return site

    def contents(self, wheel):
        with zipfile.ZipFile(wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def test_the_sdist_holds_what_a_build_needs(self):
        with tarfile.open(self.sdist) as archive:
            names = sorted(name.partition("/")[2] for name in archive.getnames())
        self.assertEqual(
            names,
            sorted([".ci/build_backend.py", "LICENSE", "PKG-INFO", "README.md", "aerostack_lite.py", "pyproject.toml"]),
        )

    def test_the_wheel_holds_the_module_its_licence_and_its_types(self):
        contents = self.contents(self.wheel)
        backend, source = load_backend(), read("aerostack_lite.py")
        information = {name.partition("/")[2] for name in contents if ".dist-info/" in name}
        self.assertEqual(information, {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"})
        self.assertEqual(
            {name for name in contents if ".dist-info/" not in name},
            {"aerostack_lite.py"} | {"aerostack_lite-stubs/" + name for name in backend.stubs(source)},
        )
        self.assertEqual(contents["aerostack_lite.py"].decode(), source)
        licence = next(data for name, data in contents.items() if name.endswith("/licenses/LICENSE"))
        self.assertEqual(licence.decode(), backend.licence(source))

    def test_the_wheel_s_record_is_true(self):
        contents = self.contents(self.wheel)
        backend = load_backend()
        record = next(data for name, data in contents.items() if name.endswith("/RECORD")).decode().splitlines()
        self.assertEqual({line.rsplit(",", 2)[0] for line in record}, set(contents))
        for line in record:
            name, digest, size = line.rsplit(",", 2)
            if not name.endswith("/RECORD"):
                self.assertEqual((digest, size), (backend.digest(contents[name]), str(len(contents[name]))), name)

    def test_the_metadata_names_version_licence_and_no_dependency(self):
        metadata = next(data for name, data in self.contents(self.wheel).items() if name.endswith("/METADATA")).decode()
        version = re.search(r'(?m)^__version__ = "(.*)"$', read("aerostack_lite.py")).group(1)
        for line in (
            "Name: aerostack-lite",
            "Version: " + version,
            "Requires-Python: >=3.7",
            "License-Expression: MIT",
            "License-File: LICENSE",
        ):
            self.assertIn("\n%s\n" % line, metadata)
        for line in re.findall(r"(?m)^Requires-Dist: (.*)$", metadata):
            self.assertIn("extra ==", line)

    def test_the_tree_and_the_sdist_build_the_same_wheel(self):
        (direct,) = self.build("direct", "--wheel")
        self.assertEqual(self.contents(direct), self.contents(self.wheel))

    def test_the_installed_module_is_imported(self):
        run = subprocess.run(
            [
                self.python,
                "-W",
                "error",
                "-c",
                "from aerostack_lite.utils import RetryConfig; import aerostack_lite; print(aerostack_lite.__file__)",
            ],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            check=True,
        )
        self.assertEqual(os.path.dirname(os.path.realpath(run.stdout.decode().strip())), os.path.realpath(self.site))

    def write_caller(self):
        with open(os.path.join(self.folder, "caller.py"), "w", encoding="utf-8") as file:
            file.write(CALLER)

    def test_mypy_sees_the_types(self):
        self.write_caller()
        found = self.mypy(self.folder, "--python-executable", self.python, "caller.py")
        self.judge("caller.py", CALLER, found)

    def test_pyright_sees_the_types(self):
        self.write_caller()
        self.judge("caller.py", CALLER, self.pyright(self.folder, "--pythonpath", self.python, "caller.py"))


if __name__ == "__main__":
    unittest.main()
