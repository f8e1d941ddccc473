"""Every operation and its twin: how it may be called, what goes out, what is refused before anything goes out."""

import asyncio
import collections
import copy
import dataclasses
import inspect
import json
import math
import types
import uuid

import aerostack_lite
from aerostack_lite import SDK, BackoffStrategy, RetryConfig, errors, models
from tests.recording_server import (
    EXAMPLES,
    KEY,
    FakeAsyncClient,
    FakeClient,
    RecordingCase,
    answer,
    both,
    every_operation,
)

WIRE = [
    ("ai", "ai_chat", "/ai/chat"),
    ("authentication", "auth_signin", "/auth/signin"),
    ("authentication", "auth_signup", "/auth/signup"),
    ("cache", "cache_get", "/cache/get"),
    ("cache", "cache_set", "/cache/set"),
    ("database", "db_query", "/db/query"),
    ("queue", "queue_enqueue", "/queue/enqueue"),
    ("services", "services_invoke", "/services/invoke"),
    ("storage", "storage_upload", "/storage/upload"),
]


def ways_to_call(operation):
    """The five ways to hand over one request, as (positional, keyword) arguments."""
    fields = EXAMPLES[operation.name][0]
    model = operation.request_type(**fields)
    return [((), {"request": fields}), ((fields,), {}), ((), {"request": model}), ((model,), {}), ((), fields)]


class TheNineOperations(RecordingCase):
    def test_are_the_official_ones_and_each_has_an_example(self):
        self.assertEqual([(service, operation.name, operation.path) for service, operation in every_operation()], WIRE)
        self.assertEqual(set(EXAMPLES), {name for _, name, _ in WIRE})

    def test_each_says_in_a_sentence_what_it_does(self):
        for service, operation in every_operation():
            with self.subTest(operation.name):
                self.assertRegex(operation.summary, r"^[A-Z].*\.$")
                twin = getattr(getattr(SDK(KEY), service), operation.name + "_async")
                self.assertIn(operation.summary, inspect.getdoc(twin))
                self.assertIn(" Sends `%s %s`; raises `" % (operation.method, operation.path), inspect.getdoc(twin))

    def test_each_twin_is_a_coroutine_function_with_the_same_parameters(self):
        sdk = self.sdk()
        for service, operation in every_operation():
            plain = getattr(getattr(sdk, service), operation.name)
            twin = getattr(getattr(sdk, service), operation.name + "_async")
            with self.subTest(operation.name):
                self.assertTrue(inspect.iscoroutinefunction(twin))
                self.assertFalse(inspect.iscoroutinefunction(plain))
                self.assertEqual(inspect.signature(twin), inspect.signature(plain))
                self.assertEqual(twin.__name__, plain.__name__ + "_async")
                *own, options = inspect.signature(plain).parameters.values()
                fields = [field.name for field in dataclasses.fields(operation.request_type)]
                extra = ["progress"] if operation.name == "storage_upload" else []
                self.assertEqual([parameter.name for parameter in own], fields + extra)
                self.assertEqual({parameter.kind for parameter in own}, {inspect.Parameter.KEYWORD_ONLY})
                self.assertEqual(options.kind, inspect.Parameter.VAR_KEYWORD)

    def test_send_the_same_bytes_however_they_are_called(self):
        sdk = self.sdk()
        for service, operation in every_operation():
            body = EXAMPLES[operation.name][1]
            for positional, keywords in ways_to_call(operation):
                for call in both(sdk, service, operation.name):
                    with self.subTest(operation.name, positional=positional, keywords=keywords):
                        result = call(*positional, **keywords)
                        self.assertIs(type(result), operation.response_type)
                        request = self.server.requests[-1]
                        self.assertEqual((request.method, request.target), ("POST", "/v1" + operation.path))
                        if body is not None:
                            self.assertEqual(request.body, body)
        self.assertEqual(len(self.server.requests), 9 * 5 * 2)

    def test_send_these_headers_and_no_others(self):
        sdk = self.sdk()
        for service, operation in every_operation():
            for call in both(sdk, service, operation.name):
                with self.subTest(operation.name):
                    call(EXAMPLES[operation.name][0])
                    request = self.server.requests[-1]
                    names = [name.lower() for name, _ in request.headers if name.lower() != "connection"]
                    self.assertEqual(
                        sorted(names),
                        [
                            "accept",
                            "accept-encoding",
                            "content-length",
                            "content-type",
                            "host",
                            "user-agent",
                            "x-aerostack-key",
                            "x-request-id",
                        ],
                    )
                    self.assertEqual(request.values("X-Aerostack-Key"), [KEY])
                    self.assertEqual(request.values("Accept"), ["application/json"])
                    self.assertEqual(request.values("Content-Length"), [str(len(request.body))])
                    self.assertEqual(request.values("Host"), [self.server.netloc])
                    self.assertEqual(request.values("User-Agent"), [aerostack_lite.USER_AGENT])
                    kind = (
                        "multipart/form-data; boundary=" if operation.name == "storage_upload" else "application/json"
                    )
                    self.assertTrue(request.values("Content-Type")[0].startswith(kind))
                    self.assertEqual(len(request.values("X-Request-ID")), 1)

    def test_an_upload_sends_its_three_parts_in_order(self):
        for call in both(self.sdk(), "storage", "storage_upload"):
            call(**EXAMPLES["storage_upload"][0])
            request = self.server.requests[-1]
            boundary = request.values("Content-Type")[0].partition("boundary=")[2]
            self.assertEqual(
                request.body.replace(boundary.encode(), b"B"),
                b"\r\n".join(
                    [
                        b"--B",
                        b'Content-Disposition: form-data; name="key"',
                        b"",
                        b"a/b.txt",
                        b"--B",
                        b'Content-Disposition: form-data; name="contentType"',
                        b"",
                        b"text/x",
                        b"--B",
                        b'Content-Disposition: form-data; name="file"; filename="b.txt"',
                        b"Content-Type: text/plain",
                        b"",
                        b"bytes",
                        b"--B--",
                        b"",
                    ]
                ),
            )


class TheRequestId(RecordingCase):
    """The API's document says `format: uuid`, and a gateway that validates refuses what is none."""

    def ids(self):
        return [value for request in self.server.requests for value in request.values("X-Request-ID")]

    def assert_uuid(self, text):
        self.assertEqual(str(uuid.UUID(text)), text)
        self.assertEqual((uuid.UUID(text).version, uuid.UUID(text).variant), (4, uuid.RFC_4122))

    def test_is_a_uuid_in_its_usual_form_of_every_operation(self):
        sdk = self.sdk()
        for service, operation in every_operation():
            for call in both(sdk, service, operation.name):
                with self.subTest(operation.name):
                    call(EXAMPLES[operation.name][0])
                    self.assert_uuid(self.ids()[-1])
        self.assertEqual(len(set(self.ids())), 18)

    def test_is_the_same_on_every_attempt_and_redirect_and_on_the_error(self):
        again = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 5000), True)
        for call in both(self.sdk(retry_config=again), "database", "db_query"):
            self.server.requests, self.server.answers = (
                [],
                [
                    answer(status=503),
                    answer(b"", 307, headers=[("Location", "/elsewhere")]),
                    answer(status=429),
                    answer(b"", status=404),
                ],
            )
            error = self.raises(errors.SDKError, call, sql="SELECT 1")
            self.assertEqual(self.ids(), [error.request_id] * 4)
            self.assert_uuid(error.request_id)

    def test_is_one_for_a_client_of_the_callers_too(self):
        client, async_client = FakeClient(answer(b"", 404)), FakeAsyncClient(answer(b"", 404))
        for call in both(SDK(KEY, client=client, async_client=async_client), "cache", "cache_get"):
            self.assert_uuid(self.raises(errors.SDKError, call, key="k").request_id)
        for built in client.built + async_client.built:
            self.assert_uuid(built[2]["headers"]["X-Request-Id"])

    def test_is_on_the_error_of_a_call_that_was_never_answered(self):
        for call in both(self.sdk(server_url="http://127.0.0.1:1", retry_config=None), "queue", "queue_enqueue"):
            self.assert_uuid(self.raises(errors.ConnectError, call, type="t", data={}).request_id)

    def test_is_no_other_s_however_many_there_are(self):
        client = FakeClient()
        sdk = SDK(KEY, client=client)
        for _ in range(1000):
            sdk.cache.cache_get(key="k")
        found = {built[2]["headers"]["X-Request-Id"] for built in client.built}
        self.assertEqual(len(found), 1000)
        for text in found:
            self.assert_uuid(text)


class AFailureOfAGateway(RecordingCase):
    """Cloudflare, before the API, has statuses of its own for what a 502 or 504 says elsewhere."""

    STATUSES = (520, 521, 522, 523, 524, 529, 530)

    def some_of_each(self, statuses):
        """Every status with one operation of either kind, one of them with every operation."""
        for service, operation in every_operation():
            for status in statuses if operation.name in ("cache_get", "queue_enqueue") else statuses[:1]:
                yield service, operation, status

    def tries(self, status, operation, service, **options):
        """How often each twin sends its request when the first answer has this status."""
        for call in both(self.sdk(), service, operation.name):
            self.server.requests = []
            self.server.answers = [answer(b"", status, headers=[("Retry-After", "0.001")]), answer()]
            try:
                call(EXAMPLES[operation.name][0], **options)
            except errors.SDKError as error:
                self.assertEqual((error.status_code, error.attempts), (status, 1))
                self.assertIs(error.maybe_processed, True)
            yield len(self.server.requests)

    def test_repeats_an_idempotent_operation_and_no_other(self):
        for service, operation, status in self.some_of_each(self.STATUSES):
            with self.subTest(operation.name, status=status):
                expected = 2 if operation.idempotent else 1
                self.assertEqual(list(self.tries(status, operation, service)), [expected] * 2)

    def test_that_another_attempt_cannot_mend_repeats_nothing(self):
        statuses = (501, 505, 511, 525, 526, 527, 531, 599)  # 525 and 526: the origin's certificate
        for service, operation, status in self.some_of_each(statuses):
            with self.subTest(operation.name, status=status):
                self.assertEqual(list(self.tries(status, operation, service)), [1, 1])

    def test_is_not_among_those_of_the_official_sdk_s_retry_config(self):
        official = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 5000), True)
        for service, operation, status in self.some_of_each(self.STATUSES):
            with self.subTest(operation.name, status=status):
                self.assertEqual(list(self.tries(status, operation, service, retries=official)), [1, 1])

    def test_repeats_nothing_without_retries(self):
        for service, operation, status in self.some_of_each(self.STATUSES):
            with self.subTest(operation.name, status=status):
                self.assertEqual(list(self.tries(status, operation, service, retries=None)), [1, 1])

    def test_is_the_error_once_it_lasts(self):
        for status in self.STATUSES:
            self.server.requests = []
            self.server.answers = [answer(b"", status, headers=[("Retry-After", "0.001")])]
            error = self.raises(errors.SDKError, self.sdk().cache.cache_get, key="k")
            self.assertEqual((error.status_code, error.attempts, len(self.server.requests)), (status, 3, 3))


class TheRequest(RecordingCase):
    def sent(self, operation, service, *args, **options):
        getattr(getattr(self.sdk(), service), operation)(*args, **options)
        return json.loads(self.server.requests[-1].body.decode())

    def sent_by_twin(self, operation, service, **options):
        asyncio.run(getattr(getattr(self.sdk(), service), operation + "_async")(**options))
        return json.loads(self.server.requests[-1].body.decode())

    def test_may_use_the_names_of_the_wire(self):
        expected = {"serviceName": "s", "data": {}}
        for request in (
            {"serviceName": "s", "data": {}},
            {"service_name": "s", "data": {}},
            {"serviceName": "s", "service_name": "loses", "data": {}},
        ):
            self.assertEqual(self.sent("services_invoke", "services", request), expected)
            self.assertEqual(self.sent("services_invoke", "services", **request), expected)

    def test_may_be_any_mapping(self):
        for request in (
            collections.UserDict(key="k"),
            types.MappingProxyType({"key": "k"}),
            collections.ChainMap({"key": "k"}),
        ):
            self.assertEqual(self.sent("cache_get", "cache", request), {"key": "k"})

    def test_may_be_a_model_of_a_subclass(self):
        class Mine(models.CacheGetRequestBody):
            pass

        self.assertEqual(self.sent("cache_get", "cache", Mine(key="k")), {"key": "k"})

    def test_may_hold_models(self):
        for message in (
            {"role": "user", "content": "hi"},
            models.Messages(role="user", content="hi"),
            models.Messages(role=models.Role.USER, content="hi"),
            models.MessagesTypedDict(role="user", content="hi"),
        ):
            self.assertEqual(
                self.sent("ai_chat", "ai", messages=[message]), {"messages": [{"content": "hi", "role": "user"}]}
            )

    def test_sends_members_of_a_message_that_it_does_not_know(self):
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        history = [
            {"role": "system", "content": "Be brief.", "name": "setup"},
            {"role": "assistant", "tool_calls": [call], "refusal": "no"},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"name": "nobody"},
        ]
        for messages in (history, tuple(history), [models.Messages(**message) for message in history]):
            self.assertEqual(self.sent("ai_chat", "ai", messages=messages), {"messages": history})
            self.assertEqual(self.sent("ai_chat", "ai", {"messages": messages}), {"messages": history})
            request = models.AiChatRequestBody(messages=messages)
            self.assertEqual(self.sent("ai_chat", "ai", request), {"messages": history})
            self.assertEqual(self.sent_by_twin("ai_chat", "ai", messages=messages), {"messages": history})

    def test_sends_a_message_s_parts(self):
        parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "u", "detail": None}}]
        for message in ({"role": "user", "content": parts}, models.Messages(role="user", content=tuple(parts))):
            self.assertEqual(
                self.sent("ai_chat", "ai", messages=[message]), {"messages": [{"role": "user", "content": parts}]}
            )

    def test_writes_what_stands_in_a_message_as_it_writes_any_value(self):
        message = {"content": [{"type": "x", "at": uuid.UUID(int=1)}], "seen": {"b"}, "role": "user"}
        self.assertEqual(
            self.sent("ai_chat", "ai", messages=[message])["messages"],
            [{"content": [{"type": "x", "at": str(uuid.UUID(int=1))}], "role": "user", "seen": ["b"]}],
        )

    def test_says_how_a_model_is_to_answer(self):
        settings = {"temperature": 0.5, "max_tokens": 100, "top_p": 1}
        for given in (settings, {"temperature": 0, "top_p": 0.25}, {"max_tokens": 1}):
            expected = dict(given, messages=[])
            self.assertEqual(self.sent("ai_chat", "ai", messages=[], **given), expected)
            self.assertEqual(self.sent("ai_chat", "ai", dict(given, messages=[])), expected)
            self.assertEqual(self.sent("ai_chat", "ai", models.AiChatRequestBody(messages=[], **given)), expected)
            self.assertEqual(self.sent_by_twin("ai_chat", "ai", messages=[], **given), expected)
        self.assertEqual(
            self.sent("ai_chat", "ai", messages=[], temperature=None, max_tokens=None, top_p=None), {"messages": []}
        )

    def test_leaves_out_an_option_that_is_none(self):
        self.assertEqual(self.sent("cache_set", "cache", key="k", value=1, ttl=None), {"key": "k", "value": 1})
        self.assertEqual(
            self.sent("ai_chat", "ai", messages=[{"content": None, "role": "user"}], model=None),
            {"messages": [{"role": "user"}]},
        )

    def test_sends_null_for_a_value_that_is_none(self):
        self.assertEqual(self.sent("cache_set", "cache", key="k", value=None), {"key": "k", "value": None})

    def test_sends_what_is_empty_but_given(self):
        self.assertEqual(self.sent("cache_set", "cache", key="", value="", ttl=0), {"key": "", "value": "", "ttl": 0})
        self.assertEqual(self.sent("db_query", "database", sql="", params=[]), {"sql": "", "params": []})
        self.assertEqual(self.sent("queue_enqueue", "queue", type="", data={}), {"type": "", "data": {}})

    def test_is_converted_as_the_official_sdk_converts(self):
        self.assertEqual(
            self.sent("cache_set", "cache", key=b"k", value=1, ttl="60"), {"key": "k", "value": 1, "ttl": 60}
        )
        self.assertEqual(
            self.sent("db_query", "database", sql="s", params=(x for x in (1, 2))), {"sql": "s", "params": [1, 2]}
        )

    def test_takes_a_role_that_it_does_not_know(self):
        self.assertEqual(self.sent("ai_chat", "ai", messages=[{"role": "tool"}]), {"messages": [{"role": "tool"}]})

    def test_may_hold_any_text_as_a_value(self):
        text = "~?~unset~?~sentinel~?~"  # with which the official SDK drops the field
        self.assertEqual(self.sent("cache_set", "cache", key=text, value=text), {"key": text, "value": text})

    def test_does_not_change_what_is_the_callers(self):
        sdk = self.sdk()
        for service, operation in every_operation():
            for form in (dict, operation.request_type):
                request, headers = form(**copy.deepcopy(EXAMPLES[operation.name][0])), {"X-Own": "1"}
                before = copy.deepcopy(request)
                for call in both(sdk, service, operation.name):
                    with self.subTest(operation.name, form=form):
                        call(request, http_headers=headers)
                        self.assertEqual(request, before)
                        self.assertEqual(headers, {"X-Own": "1"})

    def test_may_be_sent_again(self):
        sdk, request = self.sdk(), models.CacheSetRequestBody(key="k", value=[1])
        sdk.cache.cache_set(request)
        sdk.cache.cache_set(request)
        self.assertEqual(self.server.requests[0].body, self.server.requests[1].body)


class ABadRequest(RecordingCase):
    def refused(self, operation, service, *args, **options):
        """The one error that both twins raise, after it was made sure that nothing went out."""
        found = [
            self.raises(errors.ValidationError, call, *args, **options) for call in both(self.sdk(), service, operation)
        ]
        self.assertEqual(self.server.requests, [])
        self.assertEqual(str(found[0]), str(found[1]))
        self.assertIsInstance(found[0], ValueError)
        return found[0]

    def test_names_an_unknown_field_and_the_nearest_known_one(self):
        for service, operation in every_operation():
            fields = EXAMPLES[operation.name][0]
            for name in fields:
                for give in (lambda wrong: ((wrong,), {}), lambda wrong: ((), wrong)):
                    args, options = give(dict(fields, **{name + "x": 1}))
                    with self.subTest(operation.name, name=name, keywords=bool(options)):
                        text = str(self.refused(operation.name, service, *args, **options))
                        self.assertIn(operation.name, text)
                        self.assertIn("body.%sx" % name, text)
                        self.assertRegex(text, r"(?i)unknown field.*did you mean '%s'" % name)

    def test_names_what_is_known_where_nothing_is_near(self):
        text = str(self.refused("cache_set", "cache", key="k", value=1, zzzzzz=1))
        self.assertRegex(text, "zzzzzz.*key.*ttl.*value")

    def test_names_what_is_wrong_in_a_message(self):
        for message, place in (
            ({"content": 5}, ("content",)),
            ({"content": {"type": "text"}}, ("content",)),
            ({"role": 5}, ("role",)),
            ({"role": "user", "logprobs": [0.5, math.nan]}, ("logprobs", 1)),
            ({"role": "user", "content": [{"text": object()}]}, ("content", 0, "text")),
            ("hi", ()),
        ):
            with self.subTest(message):
                error = self.refused("ai_chat", "ai", messages=[{"role": "user"}, message])
                self.assertEqual([problem["loc"] for problem in error.errors()], [("body", "messages", 1, *place)])
                self.assertIn("ai_chat", str(error))

    def test_names_an_unknown_field_beside_the_messages(self):
        text = str(self.refused("ai_chat", "ai", messages=[], max_token=5))
        self.assertIn("did you mean 'max_tokens'?", text)

    def test_of_a_bare_value_says_which_field_it_may_be(self):
        sdk = SDK(KEY, client=FakeClient())
        for call, value, field in (
            (sdk.database.db_query, "SELECT 1", "sql"),
            (sdk.ai.ai_chat, [{"role": "user"}], "messages"),
            (sdk.cache.cache_get, 5, "key"),
        ):
            with self.subTest(field), self.assertRaisesRegex(errors.ValidationError, "did you mean %s=" % field):
                call(value)
        with self.assertRaises(errors.ValidationError) as caught:
            models.CacheGetResponseBody.model_validate("text")
        self.assertNotIn("did you mean", str(caught.exception))

    def test_names_every_missing_field_by_its_name_on_the_wire(self):
        required = {
            "ai_chat": ["messages"],
            "auth_signin": ["email", "password"],
            "auth_signup": ["email", "password"],
            "cache_get": ["key"],
            "cache_set": ["key", "value"],
            "db_query": ["sql"],
            "queue_enqueue": ["data", "type"],
            "services_invoke": ["data", "serviceName"],
            "storage_upload": ["file", "key"],
        }
        for service, operation in every_operation():
            for args in (({},), ()):
                with self.subTest(operation.name, args=args):
                    error = self.refused(operation.name, service, *args)
                    self.assertEqual(
                        [problem["loc"] for problem in error.errors()],
                        [("body", name) for name in required[operation.name]],
                    )
                    self.assertEqual({problem["type"] for problem in error.errors()}, {"missing"})
                    self.assertEqual(error.error_count(), len(required[operation.name]))
                    self.assertIn(operation.name, str(error))

    def test_names_a_field_of_a_wrong_type(self):
        wrong = {
            "ai_chat": ("messages", "hi"),
            "auth_signin": ("email", 1),
            "auth_signup": ("metadata", []),
            "cache_get": ("key", 1),
            "cache_set": ("ttl", "soon"),
            "db_query": ("params", "x"),
            "queue_enqueue": ("delay", 1.5),
            "services_invoke": ("data", "{}"),
            "storage_upload": ("key", 1),
        }
        for service, operation in every_operation():
            name, value = wrong[operation.name]
            with self.subTest(operation.name):
                error = self.refused(operation.name, service, dict(EXAMPLES[operation.name][0], **{name: value}))
                self.assertEqual([problem["loc"] for problem in error.errors()], [("body", name)])
                self.assertIn(operation.name, str(error))
                self.assertIn("body." + name, str(error))

    def test_names_a_number_that_json_cannot_say(self):
        for value in (math.nan, math.inf, -math.inf, "nan", "1e400"):
            for field in ("temperature", "top_p"):
                with self.subTest(field, value=value):
                    error = self.refused("ai_chat", "ai", messages=[], **{field: value})
                    self.assertEqual([problem["loc"] for problem in error.errors()], [("body", field)])

    def test_tells_all_that_is_wrong_at_once(self):
        error = self.refused("queue_enqueue", "queue", {"delay": "soon", "dataa": {}})
        self.assertEqual(
            {problem["loc"] for problem in error.errors()},
            {("body", "data"), ("body", "type"), ("body", "delay"), ("body", "dataa")},
        )
        self.assertEqual(error.error_count(), 4)
        self.assertIn("4 validation errors for queue_enqueue", str(error))

    def test_never_quotes_a_value(self):
        for operation, service, request in (
            ("auth_signin", "authentication", {"email": "a@b.c", "password": ["sesame"], "pasword": "sesame"}),
            ("cache_set", "cache", {"key": "k", "value": 1, "ttl": "sesame"}),
            ("ai_chat", "ai", {"messages": [{"role": "user", "content": b"sesame\xff"}], "temperature": "sesame"}),
            ("db_query", "database", {"sql": "s", "params": "sesame"}),
            ("storage_upload", "storage", {"key": "k", "file": "sesame"}),
        ):
            error = self.refused(operation, service, request)
            self.assertNotIn("sesame", str(error) + repr(error) + str(error.errors()))

    def test_is_also_one_that_is_no_mapping(self):
        for wrong in (
            "key=k",
            [("key", "k")],
            5,
            object(),
            b"{}",
            models.DbQueryRequestBody(sql="s"),
            models.CacheGetResponseBody(),
        ):
            with self.subTest(wrong):
                self.assertEqual(
                    [problem["loc"] for problem in self.refused("cache_get", "cache", wrong).errors()], [("body",)]
                )
        self.refused("storage_upload", "storage", models.CacheGetRequestBody(key="k"))

    def test_is_also_one_given_twice(self):
        for service, operation in every_operation():
            for way in (lambda fields: ((fields,), fields), lambda fields: ((), dict(fields, request=fields))):
                with self.subTest(operation.name):
                    args, options = way(EXAMPLES[operation.name][0])
                    error = self.refused(operation.name, service, *args, **options)
                    self.assertIn(operation.name, str(error))
                    self.assertIsInstance(error, TypeError)

    def test_is_also_a_model_that_was_spoilt_after_it_was_made(self):
        for name, value in (("key", None), ("ttl", "soon")):
            request = models.CacheSetRequestBody(key="k", value=1)
            setattr(request, name, value)
            self.assertEqual(
                [problem["loc"] for problem in self.refused("cache_set", "cache", request).errors()], [("body", name)]
            )

    def test_a_twin_says_so_when_it_is_awaited(self):
        coroutine = self.sdk().cache.cache_get_async(keyy="k")
        self.raises(errors.ValidationError, asyncio.run, coroutine)

    def test_a_third_positional_argument_is_refused(self):
        for service, operation in every_operation():
            for call in both(self.sdk(), service, operation.name):
                self.raises(TypeError, call, EXAMPLES[operation.name][0], None, None)
        self.assertEqual(self.server.requests, [])

    def test_only_an_upload_takes_progress(self):
        self.assertIn("progress", str(self.refused("cache_get", "cache", key="k", progress=print)))


class TheOptionsOfACall(RecordingCase):
    def test_go_beside_a_request_and_beside_keywords(self):
        sdk = self.sdk(server_url="http://127.0.0.1:1/v1")
        for service, operation in every_operation():
            fields = EXAMPLES[operation.name][0]
            for call in both(sdk, service, operation.name):
                for args, keywords in (((fields,), {}), ((), fields)):
                    with self.subTest(operation.name):
                        call(
                            *args,
                            retries=None,
                            server_url=self.server.url,
                            timeout_ms=5000,
                            http_headers={"X-Own": "1"},
                            **keywords,
                        )
                        self.assertEqual(self.server.requests[-1].values("X-Own"), ["1"])

    def test_a_header_of_the_callers_replaces_ours_whatever_its_case(self):
        sdk = self.sdk()
        for name in (
            "x-aerostack-key",
            "X-AEROSTACK-KEY",
            "content-type",
            "accept",
            "USER-AGENT",
            "x-request-id",
            "Accept-Encoding",
        ):
            for call in both(sdk, "cache", "cache_get"):
                with self.subTest(name):
                    call(key="k", http_headers={name: "mine"})
                    self.assertEqual(self.server.requests[-1].values(name), ["mine"])

    def test_a_request_id_of_the_callers_is_the_one_on_the_error(self):
        self.server.answers = [answer(b"", status=404)]
        for call in both(self.sdk(), "cache", "cache_get"):
            for own in ("mine", ""):
                error = self.raises(errors.SDKError, call, key="k", http_headers={"X-Request-Id": own})
                self.assertEqual(error.request_id, own)

    def test_headers_that_cannot_be_are_refused_without_their_value(self):
        for headers in (
            {"X": "sesame\r\nEvil: 1"},
            {"X": "sesame\0"},
            {"X": "ses\u00e4me"},
            {"X\n": "sesame"},
            {"": "sesame"},
            {"X Y": "sesame"},
            {"X": None},
            {"X": 1},
            {"X": ["sesame"]},
            {1: "sesame"},
            [("X", "sesame")],
            "sesame",
        ):
            for call in both(self.sdk(), "cache", "cache_get"):
                with self.subTest(headers):
                    self.assertNotIn(
                        "sesame", str(self.raises(errors.ValidationError, call, key="k", http_headers=headers))
                    )
        self.assertEqual(self.server.requests, [])

    def test_empty_and_binary_header_values_pass(self):
        self.sdk().cache.cache_get(key="k", http_headers={"X-Empty": "", "X-Bytes": b"b"})
        self.assertEqual(
            self.server.requests[0].values("X-Empty") + self.server.requests[0].values("X-Bytes"), ["", "b"]
        )
