"""Every operation and its twin: how it may be called, what goes out, what is refused before anything goes out."""

import asyncio
import collections
import copy
import inspect
import json
import types

import aerostack_lite
from aerostack_lite import SDK, errors, models
from tests.recording_server import EXAMPLES, KEY, RecordingCase, answer, both, every_operation

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
        for service, operation, sentence in aerostack_lite.operations():
            with self.subTest(operation.name):
                self.assertRegex(sentence, r"^[A-Z].*\.$")
                self.assertIn(sentence, inspect.getdoc(getattr(getattr(SDK(KEY), service), operation.name + "_async")))

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
                self.assertEqual(list(inspect.signature(plain).parameters), ["request", "retries", "options"])

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
                    self.assertRegex(request.values("X-Request-ID")[0], "^[0-9a-f]{32}$")

    def test_have_a_request_id_of_their_own_each_time(self):
        sdk = self.sdk()
        for _ in range(3):
            sdk.cache.cache_get(key="k")
        self.assertEqual(len({request.values("X-Request-ID")[0] for request in self.server.requests}), 3)

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


class TheRequest(RecordingCase):
    def sent(self, operation, service, *args, **options):
        getattr(getattr(self.sdk(), service), operation)(*args, **options)
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

    def test_names_an_unknown_field_of_a_message(self):
        error = self.refused("ai_chat", "ai", messages=[{"role": "user"}, {"contents": "hi"}])
        self.assertEqual([problem["loc"] for problem in error.errors()], [("body", "messages", 1, "contents")])

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

    def test_tells_all_that_is_wrong_at_once(self):
        error = self.refused("queue_enqueue", "queue", {"delay": "soon", "dataa": {}})
        self.assertEqual(
            {problem["loc"] for problem in error.errors()},
            {("body", "data"), ("body", "type"), ("body", "delay"), ("body", "dataa")},
        )
        self.assertEqual(error.error_count(), 4)
        self.assertIn("4 validation errors for queue_enqueue", str(error))

    def test_never_quotes_a_value(self):
        error = self.refused(
            "auth_signin", "authentication", {"email": "a@b.c", "password": ["sesame"], "pasword": "sesame"}
        )
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
