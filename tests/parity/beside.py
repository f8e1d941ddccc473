"""Run one call on both sides, describe what went out and what came back, and compare."""

import asyncio
import datetime
import enum
import functools
import json
import ssl
import time
import unittest
import unittest.mock
import warnings

from tests.parity import MISSING, OFFICIAL, OURS, SELF_CHECK
from tests.parity.recorder import Answer, RecordingServer
from tests.parity.table import COUNT, MATTERS, SEEN

CREDENTIALS = {"email": "a@b.c", "password": "hunter2"}

# One line per operation: everything the tests need to loop over them all.
# operation -> (smallest request, fullest request, request model, good answer, statuses with structured errors)
OPERATIONS = {
    "ai.ai_chat": (
        {"messages": [{}]},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé 🚀"}], "model": "m"},
        "AiChatRequestBody",
        (200, {"response": "hi"}),
        (),
    ),
    "authentication.auth_signin": (
        CREDENTIALS,
        CREDENTIALS,
        "AuthSigninRequestBody",
        (
            200,
            {
                "token": "t.o.k",
                "expiresAt": "2030-01-02T03:04:05Z",
                "user": {
                    "id": "u1",
                    "email": "a@b.c",
                    "name": None,
                    "createdAt": "2024-01-02T03:04:05.678+05:30",
                    "metadata": {"plan": "pro", "n": [1, 2.5, None]},
                },
            },
        ),
        (401,),
    ),
    "authentication.auth_signup": (
        CREDENTIALS,
        dict(CREDENTIALS, name="Åsa", metadata={"a": [1, None, {"b": True}]}),
        "AuthSignupRequestBody",
        (201, {"token": "t", "user": {"id": "u2"}}),
        (400, 409),
    ),
    "cache.cache_get": (
        {"key": "k"},
        {"key": "user:42/é"},
        "CacheGetRequestBody",
        (200, {"exists": True, "value": {"a": [1]}}),
        (),
    ),
    "cache.cache_set": (
        {"key": "k", "value": None},
        {"key": "k", "value": {"n": [1, 2.5, None, "é"]}, "ttl": 60},
        "CacheSetRequestBody",
        (200, {"success": True}),
        (),
    ),
    "database.db_query": (
        {"sql": "SELECT 1"},
        {"sql": "SELECT ?, ?", "params": [1, None, "x", 2.5, True, {"a": []}]},
        "DbQueryRequestBody",
        (200, {"count": 2, "results": [{"id": 1}, {"id": 2, "name": None}]}),
        (400, 401, 500),
    ),
    "queue.queue_enqueue": (
        {"type": "mail", "data": {}},
        {"type": "mail", "data": {"to": ["a"], "x": None}, "delay": 5},
        "QueueEnqueueRequestBody",
        (201, {"jobId": "j1", "success": True}),
        (),
    ),
    "services.services_invoke": (
        {"service_name": "s", "data": {}},
        {"serviceName": "s", "data": {"deep": [{"er": None}]}},
        "ServicesInvokeRequestBody",
        (200, {"result": {"ok": [1, {"a": None}]}}),
        (),
    ),
    "storage.storage_upload": (
        {"key": "k", "file": {"file_name": "a.bin", "content": b"\x00\xff\r\n--"}},
        {
            "key": "p/é.jpg",
            "content_type": "image/jpeg",
            "file": {"file_name": "b.jpg", "content": b"jpeg", "content_type": "image/x-own"},
        },
        "StorageUploadRequestBody",
        (200, {"url": "https://cdn/k"}),
        (),
    ),
}

# What may differ freely between two good HTTP clients.
FREE_HEADERS = {
    "host",
    "connection",
    "accept-encoding",
    "user-agent",
    "content-length",
    "transfer-encoding",
    "x-request-id",
}


def good(operation):
    """The documented success of an operation."""
    status, body = OPERATIONS[operation][3]
    return Answer(status, body)


DEFAULT_ANSWERS = (Answer(200, {}),)


class Own:
    """A value that each side makes for itself: `Own(lambda package: package.models.File(...))`."""

    def __init__(self, build):
        self.build = build


class Case:
    """One call with its script: `Case("name", "cache.cache_get", {"key": "k"}, answers, sdk={...}, timeout_ms=5)`.

    `$ORIGIN` inside a text stands for the recording server. `fresh` asks for a client without open connections.
    """

    def __init__(self, name, operation, request, answers=None, sdk=None, locs=True, fresh=False, **options):
        self.name, self.operation, self.request = name, operation, request
        self.answers = [good(operation)] if answers is None else answers if isinstance(answers, list) else [answers]
        self.sdk, self.locs, self.fresh, self.options = sdk or {}, locs, fresh, options


FOUND = good("cache.cache_get")


def lookup(name, answers=FOUND, **options):
    """The case of a cache_get."""
    return Case(name, "cache.cache_get", {"key": "k"}, answers, **options)


class Side:
    """A package with its clients, kept between calls because the official ones cost 36 ms each."""

    def __init__(self, package, server, loop):
        self.package, self.server, self.loop = package, server, loop
        self._kept = {}

    def own(self, value):
        if isinstance(value, Own):
            return value.build(self.package)
        if type(value) is dict:
            return {key: self.own(item) for key, item in value.items()}
        if type(value) is list:
            return [self.own(item) for item in value]
        if type(value) is str:
            return value.replace("$ORIGIN", self.server.origin)
        return value

    def sdk(self, options, fresh=False):
        """A client without retries for the recording server, unless the options say otherwise."""
        plain = all(isinstance(option, (str, int, float, type(None))) for option in options.values())
        key = repr(sorted(options.items())) if plain and not fresh else len(self._kept)
        if key not in self._kept:
            wanted = {"api_key_auth": "key-1", "retry_config": None}
            if "server_idx" not in options:
                wanted["server_url"] = self.server.origin + "/v1"
            self._kept[key] = self.package.SDK(**dict(wanted, **self.own(options)))
        return self._kept[key]

    def run(self, case, twin=False):
        """One call: what the server saw, what the caller got."""

        def call():
            sdk = self.sdk(case.sdk, case.fresh)
            service, _, method = case.operation.partition(".")
            operation = getattr(getattr(sdk, service), method + ("_async" if twin else ""))
            result = operation(request=self.own(case.request), **self.own(case.options))
            return self.loop.run_until_complete(result) if twin else result

        return self.act(call, answers=case.answers)

    def act(self, function, *arguments, answers=DEFAULT_ANSWERS):
        """What a function returns or raises, and what it sent, as an Exchange."""
        self.server.play(answers)
        started, value, error = time.monotonic(), None, None
        with warnings.catch_warnings():
            # pydantic warns where the official SDK sends a changed model as it is.
            warnings.simplefilter("ignore")
            try:
                value = function(*arguments)
            except Exception as caught:
                error = caught
        return Exchange(self, list(self.server.requests), value, error, time.monotonic() - started)

    def close(self):
        for sdk in self._kept.values():
            with sdk:
                pass

            async def leave(sdk=sdk):
                async with sdk:
                    pass

            self.loop.run_until_complete(leave())


class Exchange:
    """The requests that arrived, and the value or the error that came back."""

    def __init__(self, side, requests, value, error, seconds):
        self.side, self.requests, self.value, self.error, self.seconds = side, requests, value, error, seconds

    def wire(self):
        return [describe_request(request) for request in self.requests]

    def outcome(self, locs=True):
        if self.error is None:
            return "returned", describe(self.value, self.side.package)
        return describe_error(self.error, self.side.package, locs)

    @property
    def sent(self):
        """The decoded JSON of the one request that arrived."""
        if len(self.requests) != 1:
            raise AssertionError("not one request: %r" % self)
        return json.loads(self.requests[0].body.decode())

    def raised(self, *names, text=""):
        """Whether it failed with a class of one of these names (subclasses too), its text holding `text`."""
        return (
            self.error is not None
            and bool(set(names) & {cls.__name__ for cls in type(self.error).__mro__})
            and text in str(self.error)
        )

    def refused(self, *texts):
        """Whether a ValueError or TypeError came before anything was sent, its text holding all of these."""
        return (
            isinstance(self.error, (ValueError, TypeError))
            and not self.requests
            and not hasattr(self.error, "status_code")
            and all(text in str(self.error) for text in texts)
        )

    def __repr__(self):
        return "%s: %s; %d requests %r" % (
            self.side.package.__name__,
            "returned %r" % (self.value,)
            if self.error is None
            else "raised %s: %s" % (type(self.error).__name__, str(self.error)[:300]),
            len(self.requests),
            self.requests[:3],
        )


def describe_request(request):
    """A request as a comparable value: the bytes of JSON, the parts of multipart, the headers that matter."""
    headers = sorted(pair for pair in request.headers if pair[0] not in FREE_HEADERS)
    multipart = any(value.startswith("multipart/form-data") for value in request.values("content-type"))
    if multipart:
        headers = [(name, value.partition(";")[0] if name == "content-type" else value) for name, value in headers]
    return {
        "line": (request.method, request.target),
        "headers": headers,
        "body": request.parts() if multipart else request.body,
    }


def describe(value, package):
    """A value as a comparable one: models by class and attribute, scalars by type."""
    if value is package.UNSET or type(value).__name__ == "Unset":
        return "UNSET"
    name = type(value).__name__
    official = getattr(OFFICIAL.models, name, None) if name in OFFICIAL.models.__all__ else None
    if name == "ErrorResponseData":
        official = OFFICIAL.errors.ErrorResponseData
    if isinstance(value, enum.Enum):
        return name, value.value
    if isinstance(value, dict):
        return {key: describe(item, package) for key, item in value.items()}
    if official is not None:
        return name, {field: describe(getattr(value, field), package) for field in official.model_fields}
    if isinstance(value, (list, tuple)):
        return [describe(item, package) for item in value]
    if isinstance(value, datetime.datetime):
        return "datetime", value.isoformat(), value.utcoffset()
    if isinstance(value, BaseException):
        return describe_error(value, package)
    if isinstance(value, type):
        return "class " + name
    return name, repr(value)


def describe_error(error, package, locs=True):
    """An error as a comparable value: by class name, message and attributes, or as a refusal with its places."""
    name = type(error).__name__
    if isinstance(error, package.errors.SDKBaseError):
        raw = error.raw_response
        message, places = printable(error.message), None
        if name == "ResponseValidationError":
            message = message.partition(":")[0]
            places = (
                isinstance(error.cause, ValueError),
                error.cause is error.__cause__,
                locations(error.cause) if locs else None,
            )
        return {
            "class": name,
            "message": message,
            "text": printable(str(error)).startswith(message),
            "cause": places,
            "status_code": error.status_code,
            "body": error.body,
            "headers": sorted(error.headers.items()),
            # Ours reads the API's error shape wherever it stands, the official SDK only for documented statuses.
            "data": describe(error.data, package) if name == "ErrorResponse" else None,
            "raw": (raw.status_code, raw.text, raw.content, raw.reason_phrase, str(raw.url)),
        }
    if isinstance(error, package.errors.NoResponseError):
        return name, str(error)
    if type(error).__module__ == "httpx" and name == "LocalProtocolError":
        # What httpx refuses to send is no failure of the network.
        return "refused", None
    if "RequestError" in {cls.__name__ for cls in type(error).__mro__}:
        return "no answer", name
    if type(error).__module__ == "builtins" and not isinstance(error, (ValueError, TypeError)):
        return "raised", name, str(error)
    return "refused", locations(error) if locs else None


def printable(text):
    """A message as ours shows it: control characters of the server escaped."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def locations(error):
    """Where a validation error points; nothing for one that does not say."""
    if not hasattr(error, "errors"):
        return None
    return sorted({place(entry["loc"]) for entry in error.errors()}, key=repr)


def place(loc):
    """A place as ours names it: without the members of a union that pydantic tried, a dict's keys by their text."""
    steps = tuple(step for step in loc if step not in ("Unset", "nullable[str]"))
    return (*steps[:-2], str(steps[-2]), "[key]") if steps[-1:] == ("[key]",) else steps


def quick_contexts():
    """ssl.create_default_context that reads certifi's bundle once; the official SDK reads it twice for every client."""
    create = ssl.create_default_context
    with_bundle = functools.lru_cache(None)(create)

    def quick(*arguments, **options):
        bundled = set(options) == {"cafile"} and str(options["cafile"]).endswith("cacert.pem")
        return (with_bundle if bundled else create)(*arguments, **options)

    return quick


@unittest.skipIf(MISSING, MISSING)
class Parity(unittest.TestCase):
    """Both SDKs, one recording server, one event loop."""

    maxDiff = 3000

    @classmethod
    def setUpClass(cls):
        cls.quick = unittest.mock.patch("ssl.create_default_context", quick_contexts())
        cls.quick.start()
        cls.server = RecordingServer()
        cls.loop = asyncio.new_event_loop()
        cls.official = Side(OFFICIAL, cls.server, cls.loop)
        cls.ours = Side(OURS, cls.server, cls.loop)

    @classmethod
    def tearDownClass(cls):
        cls.official.close()
        cls.ours.close()
        cls.loop.run_until_complete(cls.loop.shutdown_default_executor())
        cls.loop.close()
        cls.server.close()
        cls.quick.stop()

    def same(self, *cases):
        """Every case has the same wire and the same outcome on both sides, called and awaited."""
        for case in cases:
            COUNT["cases"] += 1
            for twin in (False, True):
                with self.subTest(case=case.name, operation=case.operation, twin=twin):
                    self.compare(case, twin)

    def side(self, package):
        return self.official if package is OFFICIAL else self.ours

    def compare(self, case, twin=False):
        official, ours = self.official.run(case, twin), self.ours.run(case, twin)
        self.assertEqual(official.wire(), ours.wire(), "official != ours, on the wire\n%r\n%r" % (official, ours))
        # Places are the official SDK's only where it gives any.
        locs = case.locs and not (
            official.error is not None
            and locations(official.error) is None
            and locations(getattr(official.error, "cause", None)) is None
        )
        self.assertEqual(
            official.outcome(locs), ours.outcome(locs), "official != ours, the outcome\n%r\n%r" % (official, ours)
        )

    def same_for_any(self, name, strategy, case, examples=100):
        """Whatever hypothesis draws makes a case that is the same on both sides."""
        from hypothesis import HealthCheck, Phase, given, settings

        COUNT["cases"] += 1
        for twin, budget in ((False, examples), (True, examples // 5)):

            @settings(
                max_examples=budget,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            )
            @given(strategy)
            def check(drawn):
                self.compare(case(drawn), twin)

            with self.subTest(case=name, twin=twin):
                check()

    def same_value(self, name, function):
        """A function of the package gives the same on both sides."""
        COUNT["cases"] += 1
        with self.subTest(case=name):
            official, ours = self.official.act(function, OFFICIAL), self.ours.act(function, OURS)
            locs = official.error is None or locations(official.error) is not None
            self.assertEqual(official.outcome(locs), ours.outcome(locs), "official != ours\n%r\n%r" % (official, ours))

    def differs(self, matter, name, act, official, ours, twins=True):
        """An intended difference, under its name in the table: both sides do what the table says.

        `act` is a Case (run both ways) or a function of a Side; the two others are predicates of the Exchange.
        """
        self.assertIn(matter, MATTERS)
        SEEN[matter] += 1
        for twin in (False, True) if isinstance(act, Case) and twins else (False,):
            for side, holds in ((self.official, official), (self.ours, ours)):
                if side is self.ours and SELF_CHECK:
                    continue
                with self.subTest(difference=matter, case=name, side=side.package.__name__, twin=twin):
                    exchange = side.run(act, twin) if isinstance(act, Case) else side.act(act, side)
                    self.assertTrue(holds(exchange), repr(exchange))
