"""What type checkers know of the operations, and that a vendored copy of the file passes them as they come.

pip install mypy pyright[nodejs]
"""

import asyncio
import inspect
import os
import shutil
import tempfile

import aerostack_lite
from aerostack_lite import SDK, errors, models
from tests.checkers import CheckersCase
from tests.recording_server import KEY, FakeAsyncClient, FakeClient

MESSAGES, FILE = '[{"role": "user", "content": "hi"}]', '{"file_name": "f", "content": b"x"}'
AS_MODELS = {
    MESSAGES: '[models.Messages(role=models.Role.USER, content="hi")]',
    FILE: 'models.File(file_name="f", content=b"x")',
}

# operation: (the required fields, the others, one wrong value each, the request's class, the type of the result)
OPERATIONS = {
    "ai.ai_chat": (
        {"messages": MESSAGES},
        {"model": '"m"', "temperature": "0.5", "max_tokens": "9", "top_p": "1"},
        {"messages": "5", "model": "5", "temperature": '"warm"', "max_tokens": '"9"', "top_p": '"1"'},
        "AiChatRequestBody",
        "AiChatResponseBody",
    ),
    "authentication.auth_signin": (
        {"email": '"e"', "password": '"p"'},
        {},
        {"email": "5", "password": "5"},
        "AuthSigninRequestBody",
        "AuthResponse",
    ),
    "authentication.auth_signup": (
        {"email": '"e"', "password": '"p"'},
        {"name": '"n"', "metadata": '{"a": 1}'},
        {"email": "5", "password": "5", "name": "5", "metadata": "[1]"},
        "AuthSignupRequestBody",
        "AuthResponse",
    ),
    "cache.cache_get": ({"key": '"k"'}, {}, {"key": "5"}, "CacheGetRequestBody", "CacheGetResponseBody"),
    "cache.cache_set": (
        {"key": '"k"', "value": "[None]"},
        {"ttl": "60"},
        {"key": "5", "ttl": '"60"'},
        "CacheSetRequestBody",
        "CacheSetResponseBody",
    ),
    "database.db_query": (
        {"sql": '"SELECT ?"'},
        {"params": '[1, "x", None]'},
        {"sql": "5", "params": "5"},
        "DbQueryRequestBody",
        "DbQueryResult",
    ),
    "queue.queue_enqueue": (
        {"type": '"t"', "data": '{"a": 1}'},
        {"delay": "5"},
        {"type": "5", "data": "[1]", "delay": '"5"'},
        "QueueEnqueueRequestBody",
        "QueueEnqueueResponseBody",
    ),
    "services.services_invoke": (
        {"service_name": '"s"', "data": '{"a": 1}'},
        {},
        {"service_name": "5", "data": "[1]"},
        "ServicesInvokeRequestBody",
        "ServicesInvokeResponseBody",
    ),
    "storage.storage_upload": (
        {"key": '"k"', "file": FILE},
        {"content_type": '"text/plain"'},
        {"key": "5", "file": "5", "content_type": "5"},
        "StorageUploadRequestBody",
        "StorageUploadResponseBody",
    ),
}
TWINS = (("", "%s"), ("_async", "await %s"))
START = """from aerostack_lite import SDK, models

sdk = SDK("key")


async def main() -> None:
"""


def as_keywords(fields):
    return ", ".join("%s=%s" % pair for pair in fields.items())


def as_dict(fields):
    return "{%s}" % ", ".join('"%s": %s' % pair for pair in fields.items())


def as_model(request_type, fields):
    return "models.%s(%s)" % (
        request_type,
        as_keywords({name: AS_MODELS.get(value, value) for name, value in fields.items()}),
    )


def without(fields, name):
    return {other: value for other, value in fields.items() if other != name}


def right_arguments(required, others, request_type):
    whole = dict(required, **others)
    for fields in (required, whole):
        yield as_keywords(fields)
        yield as_dict(fields)
        yield "request=" + as_dict(fields)
        yield as_model(request_type, fields)
    yield as_model(request_type, required) + ", None"
    yield as_keywords(whole) + ', timeout_ms=500, http_headers={"X-A": "b"}, retries=None, server_url="http://a"'


def unusable_arguments(required, request_type):
    """What is wrong at run time, too: fields that are missing or unknown, and a request beside keywords."""
    yield ""
    for fields in [without(required, name) for name in required] + [dict(required, kee="1")]:
        yield as_keywords(fields)
        yield as_dict(fields)
        yield "request=" + as_dict(fields)
        yield as_model(request_type, fields)
    yield "%s, %s" % (as_dict(required), as_keywords(required))
    yield "%s, %s" % (as_model(request_type, required), as_keywords(required))


def ill_typed_arguments(required, wrong, request_type):
    for name, value in wrong.items():
        fields = dict(required, **{name: value})
        yield as_keywords(fields)
        yield as_dict(fields)
        yield as_model(request_type, fields)
    yield as_keywords(required) + ', timeout_ms="500"'
    yield as_keywords(required) + ", retries=5"
    yield "models.%s()" % ("CacheGetResponseBody" if request_type != "CacheGetRequestBody" else "DbQueryResult")


def calls(name, twin, arguments):
    """The lines that call an operation or its twin with each of these arguments."""
    suffix, form = twin
    return [form % ("sdk.%s%s(%s)" % (name, suffix, given)) for given in arguments]


class OperationsTest(CheckersCase):
    @classmethod
    def setUpClass(cls):
        lines = []
        for name, (required, others, wrong, request_type, response_type) in OPERATIONS.items():
            refused = [*unusable_arguments(required, request_type), *ill_typed_arguments(required, wrong, request_type)]
            for twin in TWINS:
                right = calls(name, twin, right_arguments(required, others, request_type))
                lines += ["    reveal_type(%s)  # %s" % (call, response_type) for call in right]
                lines += ["    %s  # refused" % call for call in calls(name, twin, refused)]
        cls.program = START + "\n".join(lines) + "\n"

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        shutil.copy(aerostack_lite.__file__, self.folder)
        with open(os.path.join(self.folder, "caller.py"), "w") as file:
            file.write(self.program)

    def test_mypy_takes_right_calls_and_refuses_wrong_ones(self):
        self.judge("caller.py", self.program, self.mypy(self.folder, "caller.py"))

    def test_pyright_takes_right_calls_and_refuses_wrong_ones(self):
        self.judge("caller.py", self.program, self.pyright(self.folder, "caller.py"))

    def test_at_run_time_the_same_fields_are_missing_or_unknown(self):
        client, async_client = FakeClient(), FakeAsyncClient()
        names = {"sdk": SDK(KEY, client=client, async_client=async_client), "models": models}

        def run(call):
            if call.startswith("await "):
                asyncio.run(eval("wait(%s)" % call[6:], dict(names, wait=wait)))
            else:
                eval(call, names)

        async def wait(awaitable):
            return await awaitable

        for name, (required, others, _, request_type, _) in OPERATIONS.items():
            for twin in TWINS:
                for call in calls(name, twin, right_arguments(required, others, request_type)):
                    with self.subTest(call):
                        run(call)
                sent = len(client.sent), len(async_client.sent)
                for call in calls(name, twin, unusable_arguments(required, request_type)):
                    with self.subTest(call), self.assertRaises((TypeError, errors.AerostackError)):
                        run(call)
                self.assertEqual((len(client.sent), len(async_client.sent)), sent)

    def test_signatures_show_the_operation_s_own_fields_first(self):
        sdk = SDK(KEY)
        for name, (required, others, _, _, _) in OPERATIONS.items():
            service, _, operation = name.partition(".")
            for suffix, _ in TWINS:
                method = getattr(getattr(sdk, service), operation + suffix)
                with self.subTest(method.__name__):
                    shown = list(inspect.signature(method).parameters)
                    self.assertEqual(set(shown[: len(required) + len(others)]), {*required, *others})


class VendoredTest(CheckersCase):
    """The file in a package of somebody else's, and no setting of any checker anywhere near."""

    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        vendor = os.path.join(self.folder, "app", "vendor")
        os.makedirs(vendor)
        shutil.copy(aerostack_lite.__file__, os.path.join(vendor, "aerostack_lite.py"))
        for path, text in (
            (("app", "__init__.py"), ""),
            (("app", "vendor", "__init__.py"), ""),
            (("app", "main.py"), "from .vendor.aerostack_lite import SDK\n\nreveal_type(SDK)\n"),
        ):
            with open(os.path.join(self.folder, *path), "w") as file:
                file.write(text)

    def check(self, found):
        revealed, refused = found
        self.assertIn("SDK", revealed[os.path.join("app", "main.py"), 3])
        self.assertEqual(["%s:%d: %s" % (*place, words) for place, words in refused.items()], [])

    def test_is_clean_under_mypy_strict(self):
        self.check(self.mypy(self.folder, "app"))

    def test_is_clean_under_pyright(self):
        self.check(self.pyright(self.folder, "app", severities=("error", "warning")))
