"""The official import paths, at run time and in the eyes of type checkers, wherever the one file lies."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests.parity import OURS, SELF_CHECK
from tests.parity.table import COUNT

# module -> where its file lies
PLACES = {
    "aerostack": "aerostack.py",
    "aerostack_lite": "aerostack_lite.py",
    "mypkg._vendor.aerostack_lite": os.path.join("mypkg", "_vendor", "aerostack_lite.py"),
}

# Each runs in an interpreter that has not seen the module yet.
PROGRAMS = [
    "from {name} import SDK, errors, models, utils",
    "from {name}.utils import BackoffStrategy, RetryConfig\n"
    "RetryConfig('backoff', BackoffStrategy(1, 50, 1.1, 100), False)",
    "from {name}.httpclient import AsyncHttpClient, HttpClient",
    "from {name}.models import *; assert Role.USER == 'user' and CacheGetRequestBody(key='k').key == 'k'",
    "from {name}.models import CacheGetRequestBody, CacheGetRequestBodyTypedDict, User, Security",
    "from {name}.errors import *; assert issubclass(SDKError, SDKBaseError) and Code.INTERNAL_ERROR",
    "from {name}.types import UNSET, BaseModel, Nullable, OptionalNullable; assert not UNSET",
    "from {name} import *; SDK('key')",
    "import {name}.errors; import {name}.models; import {name}.utils; import {name}.types; import {name}.httpclient",
    "import {name} as a; assert a.errors.SDKError and a.models.Role and a.utils.RetryConfig",
    "import {name} as a; assert a.httpclient.AsyncHttpClient and not a.types.UNSET",
    "import {name} as a; from {name}.errors import SDKError; assert SDKError is a.errors.SDKError",
    "import {name} as a; from {name}.models import Role; assert Role is a.models.Role",
    "import importlib; assert importlib.import_module('{name}.errors').SDKError",
    "import importlib.util, {name}; assert importlib.util.find_spec('{name}.models')",
    "import {name}.sdk; assert {name}.sdk.SDK is {name}.SDK",
    "from {name}.sdkconfiguration import SDKConfiguration; from {name}.cache import Cache; from {name}.ai import Ai",
    "import sys, {name}; had = set(sys.modules); import {name}.models, {name}.errors, {name}.utils; "
    "assert all(name.startswith('{name}') for name in set(sys.modules) - had)",
    "import pickle; from {name} import models; user = models.User(id='u')\n"
    "assert pickle.loads(pickle.dumps(user)) == user",
    "import pickle; from {name} import errors; code = errors.Code.INTERNAL_ERROR\n"
    "assert pickle.loads(pickle.dumps(code)) is code",
    "import {name}\ntry:\n    from {name}.nonsense import x\n"
    "except ImportError:\n    pass\nelse:\n    raise SystemExit('found')",
    "import {name}\ntry:\n    from {name}.models import Nonsense\n"
    "except ImportError:\n    pass\nelse:\n    raise SystemExit('found')",
]


# Runs them all, forgetting the module before each; prints what failed.
FORGETFUL = """
import sys
sys.path.insert(0, "")
for program in {0!r}:
    for name in [name for name in sys.modules if name.startswith({1!r})]:
        del sys.modules[name]
    try:
        exec(program, {{"__name__": "__main__"}})
    except BaseException as error:
        print(program, "->", type(error).__name__, error)
"""


@unittest.skipIf(SELF_CHECK, "only our module is one file")
class InAFolder(unittest.TestCase):
    """Copies of our file where people put them."""

    def setUp(self):
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.folder = kept.name

    def put(self, *names):
        for name in names:
            target = os.path.join(self.folder, PLACES[name])
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(OURS.__file__, target)
        for package in ("mypkg", os.path.join("mypkg", "_vendor")):
            if os.path.isdir(os.path.join(self.folder, package)):
                open(os.path.join(self.folder, package, "__init__.py"), "w").close()


class OneFile(InAFolder):
    """At run time, on a bare Python too."""

    def run_python(self, program):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [sys.executable, "-S", "-W", "error", "-c", program],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            timeout=60,
        )

    def test_every_official_import_path(self):
        self.put(*PLACES)
        for name in PLACES:
            COUNT["cases"] += len(PROGRAMS)
            run = self.run_python(FORGETFUL.format([program.format(name=name) for program in PROGRAMS], name))
            self.assertEqual((run.returncode, run.stdout.decode(), run.stderr.decode()), (0, "", ""))

    def test_a_package_that_vendors_it_imports_it_relatively(self):
        self.put("mypkg._vendor.aerostack_lite")
        with open(os.path.join(self.folder, "mypkg", "work.py"), "w") as file:
            file.write(
                "from ._vendor.aerostack_lite import SDK, errors\n"
                "from ._vendor.aerostack_lite.utils import RetryConfig\n"
                "from ._vendor.aerostack_lite.models import Role\n"
                "assert errors.SDKError and RetryConfig and Role and SDK\n"
            )
        run = self.run_python("import mypkg.work")
        self.assertEqual((run.returncode, run.stderr.decode()), (0, ""))

    def test_two_copies_live_side_by_side(self):
        self.put(*PLACES)
        run = self.run_python(
            "import aerostack.errors, aerostack_lite.errors, mypkg._vendor.aerostack_lite as third\n"
            "from mypkg._vendor.aerostack_lite.errors import SDKError\n"
            "assert len({aerostack.errors.SDKError, aerostack_lite.errors.SDKError, third.errors.SDKError}) == 3\n"
            "assert SDKError is third.errors.SDKError"
        )
        self.assertEqual((run.returncode, run.stderr.decode()), (0, ""))


# A caller's program. `reveal_type` lines end in what a checker must see; lines that end in `# refused` must be refused.
CALLER = """
import asyncio
from {name} import SDK, errors, models, utils

sdk = SDK("key", retry_config=utils.RetryConfig("backoff", utils.BackoffStrategy(1, 50, 1.1, 100), False))

reveal_type(sdk.cache.cache_get(request={{"key": "k"}}))  # CacheGetResponseBody
reveal_type(sdk.cache.cache_get({{"key": "k"}}, None))  # CacheGetResponseBody
reveal_type(sdk.cache.cache_get(key="k"))  # CacheGetResponseBody
reveal_type(sdk.cache.cache_get(key="k", timeout_ms=500, http_headers={{"X-A": "b"}}).exists)  # bool, None
reveal_type(sdk.cache.cache_set(request=models.CacheSetRequestBody(key="k", value=1, ttl=5)).success)  # bool, None
reveal_type(sdk.authentication.auth_signin(email="e", password="p").expires_at)  # datetime, None
reveal_type(sdk.authentication.auth_signup(request={{"email": "e", "password": "p", "name": "n"}}).user)  # User, None
reveal_type(sdk.database.db_query(request={{"sql": "SELECT 1", "params": [1, "x"]}}))  # DbQueryResult
reveal_type(sdk.database.db_query(sql="SELECT 1").count)  # int, None
reveal_type(sdk.queue.queue_enqueue(type="t", data={{"a": 1}}, delay=5).job_id)  # str, None
reveal_type(sdk.services.services_invoke(service_name="s", data={{}}))  # ServicesInvokeResponseBody
reveal_type(sdk.ai.ai_chat(request={{"messages": [{{"role": models.Role.USER}}]}}).response)  # str, None
reveal_type(sdk.ai.ai_chat(request=models.AiChatRequestBody(messages=[models.Messages()])))  # AiChatResponseBody
reveal_type(sdk.storage.storage_upload({{"key": "k", "file": {{"file_name": "a", "content": b"x"}}}}).url)  # str, None
reveal_type(sdk.ai.ai_chat(messages=[{{"role": "tool", "name": "ada"}}], temperature=0.5))  # AiChatResponseBody
reveal_type(sdk.ai.ai_chat(request={{"messages": [], "max_tokens": 9, "top_p": 1}}))  # AiChatResponseBody
reveal_type(models.Role("user"))  # Role
reveal_type(models.User(name=None).id)  # str, None


async def main() -> None:
    reveal_type(await sdk.cache.cache_get_async(request={{"key": "k"}}))  # CacheGetResponseBody
    reveal_type(await sdk.queue.queue_enqueue_async(type="t", data={{}}))  # QueueEnqueueResponseBody
    one, two = await asyncio.gather(sdk.cache.cache_get_async(key="k"), sdk.ai.ai_chat_async(messages=[]))
    reveal_type(one)  # CacheGetResponseBody
    reveal_type(two)  # AiChatResponseBody
    async with SDK("key") as inside:
        reveal_type(inside)  # SDK
    await sdk.cache.cache_get_async(kee="k")  # refused
    await sdk.cache.cache_get_async(key=5)  # refused
    await sdk.cache.cache_get_async()  # refused
    await sdk.cache.cache_set_async(key="k")  # refused
    await sdk.cache.cache_get_async(request={{}})  # refused
    await sdk.cache.cache_get_async(request={{"key": "k"}}, key="k")  # refused


try:
    with SDK(lambda: "key", server_url="http://localhost:8787/v1") as inside:
        reveal_type(inside)  # SDK
except errors.ErrorResponse as error:
    reveal_type(error.data)  # ErrorResponseData
    reveal_type(error.data.message)  # str
except errors.ResponseValidationError as invalid:
    reveal_type(invalid.status_code)  # int
except errors.SDKBaseError as failed:
    reveal_type(failed.message)  # str
    reveal_type(failed.body)  # str
except errors.TimeoutException as late:
    reveal_type(late)  # TimeoutException

sdk.cache.cache_get()  # refused
sdk.cache.cache_set(key="k")  # refused
sdk.cache.cache_get(request={{}})  # refused
sdk.cache.cache_get(request={{"key": "k"}}, key="k")  # refused
sdk.cache.cache_get(request={{"kee": "k"}})  # refused
sdk.cache.cache_get(request={{"key": 5}})  # refused
sdk.cache.cache_get(request={{"key": "k", "ttl": 5}})  # refused
sdk.cache.cache_get(request=models.CacheSetRequestBody(key="k", value=1))  # refused
sdk.cache.cache_get(kee="k")  # refused
sdk.cache.cache_get(key=5)  # refused
sdk.cache.cache_get(key="k", timeout_ms="5")  # refused
sdk.cache.cache_get(key="k", retries=5)  # refused
sdk.cache.cache_set(request={{"key": "k", "value": 1, "ttl": "5"}})  # refused
sdk.cache.cache_set(key="k", value=1, tttl=5)  # refused
sdk.queue.queue_enqueue(type="t", data=[1])  # refused
sdk.storage.storage_upload(request={{"key": "k", "file": {{"file_name": "a"}}}})  # refused
sdk.cache.cache_gett(key="k")  # refused
sdk.nonsense  # refused
models.CacheGetRequestBody(kee="k")  # refused
models.CacheGetRequestBody(key=5)  # refused
models.CacheSetRequestBody(key="k")  # refused
models.Nonsense  # refused
errors.Nonsense  # refused
utils.Nonsense  # refused
utils.RetryConfig("backoff")  # refused
SDK(5)  # refused
SDK("key", server_idx="1")  # refused
"""


class Checkers(InAFolder):
    """mypy --strict and pyright see exact types, and refuse what is wrong."""

    def programs(self):
        self.put(*PLACES)
        for number, name in enumerate(PLACES):
            with open(os.path.join(self.folder, "caller%d.py" % number), "w") as file:
                file.write(CALLER.format(name=name))
        return ["caller%d.py" % number for number in range(len(PLACES))]

    def judge(self, revealed, refused):
        """`revealed` is {(file, line): type}, `refused` {(file, line): reason}; compare with the program's words."""
        for number, name in enumerate(PLACES):
            for line, text in enumerate(CALLER.splitlines(), 1):
                code, _, said = text.partition("  # ")
                place = "caller%d.py" % number, line
                with self.subTest(module=name, line=text.strip()):
                    if said == "refused":
                        self.assertIn(place, refused)
                        continue
                    self.assertNotIn(place, refused, refused.get(place))
                    if "reveal_type" in code:
                        seen = set(re.findall(r"(?:\w+\.)*(\w+)", revealed[place])) - {"Union"}
                        self.assertEqual(seen, set(said.split(", ")), revealed[place])

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "needs mypy")
    def test_mypy(self):
        COUNT["cases"] += CALLER.count("  # ") * len(PLACES)
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--no-error-summary",
                "--no-pretty",
                "--cache-dir",
                os.devnull,
                *self.programs(),
            ],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        revealed, refused = {}, {}
        for file, line, kind, text in re.findall(r"^(caller\d\.py):(\d+): (\w+): (.*)$", run.stdout.decode(), re.M):
            if "Revealed type is" in text:
                revealed[file, int(line)] = text.split('"')[1]
            elif kind == "error":
                refused[file, int(line)] = text
        self.assertTrue(revealed, run.stdout.decode())
        self.judge(revealed, refused)

    @unittest.skipUnless(importlib.util.find_spec("pyright"), "needs pyright")
    def test_pyright(self):
        COUNT["cases"] += CALLER.count("  # ") * len(PLACES)
        run = subprocess.run(
            [sys.executable, "-m", "pyright", "--outputjson", *self.programs()],
            cwd=self.folder,
            capture_output=True,
            timeout=300,
        )
        revealed, refused = {}, {}
        for found in json.loads(run.stdout.decode())["generalDiagnostics"]:
            place = os.path.basename(found["file"]), found["range"]["start"]["line"] + 1
            kind = re.match(r'Type of ".*" is "(.*)"$', found["message"], re.S)
            if kind:
                revealed[place] = kind.group(1)
            elif found["severity"] == "error":
                refused[place] = found["message"]
        self.assertTrue(revealed, run.stdout.decode())
        self.judge(revealed, refused)


if __name__ == "__main__":
    unittest.main()
