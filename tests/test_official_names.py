"""The import paths of the official SDK: saved as aerostack.py, under its own name, and vendored in a package."""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

import aerostack_lite
from tests.newcomer import copy_module
from tests.scripted_server import at_once
from tests.side_by_side import side_by_side

CLASSES = [
    "AiChatRequestBody",
    "AiChatResponseBody",
    "AuthResponse",
    "AuthSigninRequestBody",
    "AuthSignupRequestBody",
    "CacheGetRequestBody",
    "CacheGetResponseBody",
    "CacheSetRequestBody",
    "CacheSetResponseBody",
    "DbQueryRequestBody",
    "DbQueryResult",
    "File",
    "Messages",
    "QueueEnqueueRequestBody",
    "QueueEnqueueResponseBody",
    "Security",
    "ServicesInvokeRequestBody",
    "ServicesInvokeResponseBody",
    "StorageUploadRequestBody",
    "StorageUploadResponseBody",
    "User",
]
NAMES = {
    "": [
        "SDK",
        "SDKConfiguration",
        "SERVERS",
        "VERSION",
        "USER_AGENT",
        "OPENAPI_DOC_VERSION",
        "SPEAKEASY_GENERATOR_VERSION",
        "HttpClient",
        "AsyncHttpClient",
        "RetryConfig",
        "Logger",
        "UNSET",
        "OptionalNullable",
        "models",
        "errors",
        "utils",
        "types",
        "httpclient",
    ],
    ".models": CLASSES + ["Role"] + [name + "TypedDict" for name in CLASSES],
    ".errors": [
        "Code",
        "ErrorResponse",
        "ErrorResponseData",
        "NoResponseError",
        "ResponseValidationError",
        "SDKBaseError",
        "SDKError",
    ],
    ".utils": ["BackoffStrategy", "RetryConfig", "Logger", "get_default_logger", "parse_datetime"],
    ".types": [
        "BaseModel",
        "Nullable",
        "OptionalNullable",
        "UnrecognizedInt",
        "UnrecognizedStr",
        "UNSET",
        "UNSET_SENTINEL",
    ],
    ".httpclient": ["HttpClient", "AsyncHttpClient"],
}
PLACES = {
    "aerostack": "aerostack.py",
    "aerostack_lite": "aerostack_lite.py",
    "package._vendor.aerostack_lite": "package/_vendor/aerostack_lite.py",
}


@side_by_side(3)
class OfficialNames(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        """A bare host that has the file in several places."""
        cls.folder = tempfile.mkdtemp()
        for place in PLACES.values():
            target = os.path.join(cls.folder, *place.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            for parent in pathlib.Path(place).parents:
                pathlib.Path(cls.folder, str(parent), "__init__.py").touch()
            copy_module(target)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def run_python(self, program):
        """What a program prints there."""
        run = subprocess.run(
            [sys.executable, "-S", "-W", "error", "-c", textwrap.dedent(program)],
            cwd=self.folder,
            capture_output=True,
        )
        self.assertEqual((run.returncode, run.stderr.decode()), (0, ""))
        return run.stdout.decode().split()

    def test_are_imported_wherever_the_file_lies(self):
        program = "".join(
            "from %s%s import %s\n" % (place, module, ", ".join(names))
            for place in PLACES
            for module, names in NAMES.items()
        )
        program += "".join("import %s.utils\nassert %s.utils.RetryConfig\n" % (place, place) for place in PLACES)
        self.assertEqual(self.run_python(program + "print('done')"), ["done"])

    def test_of_the_modules_of_each_service_are_imported_too(self):
        program = "from aerostack.sdk import SDK\nfrom aerostack.sdkconfiguration import SDKConfiguration\n"
        for service in ("Ai", "Authentication", "Cache", "Database", "Queue", "Services", "Storage"):
            program += "from aerostack.%s import %s\nassert isinstance(SDK('key').%s, %s)\n" % (
                service.lower(),
                service,
                service.lower(),
                service,
            )
        self.assertEqual(self.run_python(program + "print('done')"), ["done"])

    def test_of_modules_are_attributes_once_they_are_imported(self):
        services = ("ai", "authentication", "cache", "database", "queue", "services", "storage")

        def check(place):
            program = "".join(
                "import {0}{1}\nassert hasattr({0}{1}, '{2}'), '{2}'\n".format(place, module, name)
                for module, names in NAMES.items()
                for name in names
            )
            program += "import {0}.sdk\nassert {0}.sdk.SDK is {0}.SDK\n".format(place)
            program += "import {0}.sdkconfiguration as other\nassert other.SDKConfiguration is {0}.SDKConfiguration\n"
            for service in services:
                program += "import {0}.%s\nassert {0}.%s.%s is {0}.%s\n" % (
                    *(service, service),
                    *(service.capitalize(), service.capitalize()),
                )
            program += "from {0} import sdk, sdkconfiguration, %s\nassert sdk.SDK\n" % ", ".join(services)
            self.assertEqual(self.run_python(program.format(place) + "print('done')"), ["done"])

        at_once(check, *PLACES)

    def test_of_modules_are_found_by_those_who_only_look(self):
        program = """
            import importlib, importlib.util, sys
            for place in PLACES:
                importlib.import_module(place)
            modules = "ai authentication cache database errors httpclient models queue sdk sdkconfiguration services"
            for name in (modules + " storage types utils").split():
                for place in PLACES:
                    full = place + "." + name
                    spec = importlib.util.find_spec(full)
                    assert spec is not None and spec.name in (full, place), (full, spec)
                    module = importlib.import_module(full)
                    assert module is sys.modules[full], full
                    assert importlib.util.find_spec(full) is not None, full
            for place in PLACES:
                try:
                    found = importlib.util.find_spec(place + ".no_such_module")
                except ModuleNotFoundError:
                    found = None
                assert found is None, found
            print("done")"""
        self.assertEqual(self.run_python("PLACES = %r\n" % list(PLACES) + textwrap.dedent(program)), ["done"])

    def test_are_found_by_tools_that_go_by_a_dotted_name(self):
        program = """
            import inspect, pickle, pkgutil, pydoc, typing
            from unittest import mock
            import PLACE.models, PLACE.sdk
            with mock.patch("PLACE.sdk.SDK") as fake:
                assert PLACE.sdk.SDK is fake
            with mock.patch("PLACE.utils.RetryConfig") as fake:
                from PLACE.utils import RetryConfig
                assert RetryConfig is fake
            with mock.patch("PLACE.cache.Cache.cache_get", return_value=5):
                assert PLACE.SDK("key").cache.cache_get(key="k") == 5
            assert pydoc.locate("PLACE.models.File") is PLACE.models.File
            assert pydoc.locate("PLACE.sdk.SDK") is PLACE.SDK
            if hasattr(pkgutil, "resolve_name"):
                assert pkgutil.resolve_name("PLACE.errors:SDKError") is PLACE.errors.SDKError
                assert pkgutil.resolve_name("PLACE.database:Database.db_query") is PLACE.Database.db_query
            for thing in (PLACE.models.File(content=b"c", file_name="f"), PLACE.models.Role.USER, PLACE.UNSET):
                assert pickle.loads(pickle.dumps(thing)) == thing
            for made in (PLACE.SDK, PLACE.models.File, PLACE.errors.SDKError, PLACE.utils.RetryConfig):
                assert inspect.getmodule(made).__name__.startswith("PLACE"), made
                assert inspect.getsourcefile(made), made
            print("done")"""

        def check(place):
            found = self.run_python(textwrap.dedent(program).replace("PLACE", place))
            self.assertEqual(found, ["done"])

        at_once(check, *PLACES)

    def test_annotate_a_function_of_yours(self):
        program = """
            from aerostack.types import UNSET, Nullable, OptionalNullable
            def rename(name: OptionalNullable[str] = UNSET, other: Nullable[str] = None): ...
            print('done')"""
        self.assertEqual(self.run_python(program), ["done"])

    def test_work_in_a_module_that_nobody_registered(self):
        program = """
            import importlib.util
            spec = importlib.util.spec_from_file_location("elsewhere", "aerostack.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            print(module.SDK("key").cache and 'done')"""
        self.assertEqual(self.run_python(program), ["done"])

    def test_are_all_there_in_a_star_import(self):
        for module, names in NAMES.items():
            scope = {}
            exec("from aerostack_lite%s import *" % module, scope)
            if module:  # the top level keeps its own __all__
                self.assertLessEqual(set(names), set(scope), module)
            self.assertFalse([name for name in scope if name.startswith("_") and name != "__builtins__"])

    def test_of_models_are_43(self):
        self.assertEqual(sorted(aerostack_lite.models.__all__), sorted(NAMES[".models"]))
        self.assertEqual(len(NAMES[".models"]), 43)

    def test_that_nobody_knows_are_attribute_errors(self):
        for module in NAMES:
            found = importlib.import_module("aerostack_lite" + module)
            with self.assertRaises(AttributeError):
                _ = found.NoSuchName
            with self.assertRaises(ImportError):
                exec("from aerostack_lite%s import NoSuchName" % module)

    def test_are_the_same_objects_by_every_path(self):
        for module in ("models", "errors", "utils", "types", "httpclient"):
            self.assertIs(importlib.import_module("aerostack_lite." + module), getattr(aerostack_lite, module))
        self.assertIs(aerostack_lite.utils.RetryConfig, aerostack_lite.RetryConfig)
        self.assertIs(aerostack_lite.types.UNSET, aerostack_lite.UNSET)
        self.assertIs(aerostack_lite.httpclient.HttpClient, aerostack_lite.HttpClient)
        self.assertIs(aerostack_lite.errors.AerostackError, aerostack_lite.AerostackError)

    def test_make_a_retry_config_as_the_official_readme_does(self):
        config = aerostack_lite.utils.RetryConfig(
            "backoff", aerostack_lite.utils.BackoffStrategy(1, 50, 1.1, 100), False
        )
        self.assertEqual(
            (config.strategy, config.backoff.max_interval, config.retry_connection_errors), ("backoff", 50, False)
        )

    def test_two_copies_do_not_meet(self):
        self.assertEqual(
            self.run_python(
                """
            import aerostack.errors, aerostack_lite.errors
            print(aerostack.errors.SDKError is aerostack_lite.errors.SDKError)
        """
            ),
            ["False"],
        )

    def test_cost_no_module_that_a_call_does_not_need(self):
        loaded = self.run_python("""
            import sys
            from aerostack import SDK
            first = set(sys.modules)
            from aerostack import errors, models, types, utils, httpclient
            from aerostack.utils import BackoffStrategy, RetryConfig
            from aerostack.httpclient import AsyncHttpClient
            assert set(sys.modules) == first, set(sys.modules) - first
            print(*first)
        """)
        heavy = {
            "asyncio",
            "dataclasses",
            "typing_extensions",
            "logging",
            "inspect",
            "argparse",
            "difflib",
            "mimetypes",
            "decimal",
            "uuid",
            "concurrent.futures",
        }
        self.assertEqual(heavy & set(loaded), set())
