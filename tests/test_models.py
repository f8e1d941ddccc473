"""Models: made from keywords, checked and converted, equal, copied, shown without secrets, dumped, real dataclasses."""

import collections
import contextlib
import copy
import dataclasses
import decimal
import enum
import fractions
import json
import math
import pickle
import sys
import time
import tracemalloc
import types
import unittest
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone

import aerostack_lite
from aerostack_lite import UNSET, errors, models
from aerostack_lite.types import BaseModel
from tests.scripted_server import Stopwatch

CLASSES = sorted(
    (value for value in vars(models).values() if isinstance(value, type) and issubclass(value, BaseModel)),
    key=lambda model: model.__name__,
)

SAMPLES = {
    "AiChatRequestBody": {"messages": [models.Messages(role="user")]},
    "AuthResponse": {"token": "t"},
    "AuthSigninRequestBody": {"email": "e", "password": "p"},
    "AuthSignupRequestBody": {"email": "e", "password": "p"},
    "CacheGetRequestBody": {"key": "k"},
    "CacheSetRequestBody": {"key": "k", "value": 1},
    "DbQueryRequestBody": {"sql": "s"},
    "File": {"content": b"c", "file_name": "f"},
    "QueueEnqueueRequestBody": {"data": {}, "type": "t"},
    "Security": {"api_key_auth": "k"},
    "ServicesInvokeRequestBody": {"data": {}, "service_name": "s"},
    "StorageUploadRequestBody": {"file": models.File(content=b"c", file_name="f"), "key": "k"},
}


def sample(model):
    return model(**SAMPLES.get(model.__name__, {}))


NULLABLE = {("CacheGetResponseBody", "value"), ("User", "name")}  # which tell a null from nothing


class Number(enum.IntEnum):
    FIVE = 5


class Word(str, enum.Enum):
    FIVE = "five"


class Index:
    def __index__(self):
        return 5


UTC = timezone.utc
EAST = timezone(timedelta(hours=5, minutes=30))

# field, what is given, what it becomes
ACCEPTED = {
    "text": (
        lambda value: models.CacheGetRequestBody(key=value).key,
        [
            ("", ""),
            ("\ud800", "\ud800"),
            (b"\xc3\xa9", "\u00e9"),
            (bytearray(b"a"), "a"),
            (Word.FIVE, "five"),
            (models.Role.USER, "user"),
        ],
    ),
    "integer": (
        lambda value: models.CacheSetRequestBody(key="k", value=1, ttl=value).ttl,
        [
            (5, 5),
            (-5, -5),
            (True, 1),
            (10**30, 10**30),
            (5.0, 5),
            (-0.0, 0),
            (2.0**62, 2**62),
            (Number.FIVE, 5),
            (Index(), 5),
            ("5", 5),
            ("-5", -5),
            ("05", 5),
            ("9" * 30, int("9" * 30)),
        ],
    ),
    "boolean": (
        lambda value: models.CacheGetResponseBody(exists=value).exists,
        [
            (True, True),
            (False, False),
            (1, True),
            (0, False),
            (1.0, True),
            (0.0, False),
        ],
    ),
    "list": (
        lambda value: models.DbQueryRequestBody(sql="s", params=value).params,
        [
            ([1], [1]),
            ((1, 2), [1, 2]),
            ({1}, [1]),
            (frozenset([1]), [1]),
            (collections.deque([1]), [1]),
            (range(2), [0, 1]),
            (iter([1]), [1]),
            ((x for x in "ab"), ["a", "b"]),
            ({"a": 1}.keys(), ["a"]),
            ({"a": 1}.values(), [1]),
            ([], []),
        ],
    ),
    "object": (
        lambda value: models.QueueEnqueueRequestBody(type="t", data=value).data,
        [
            ({}, {}),
            ({"a": 1}, {"a": 1}),
            (collections.OrderedDict(a=1), {"a": 1}),
            (collections.UserDict(a=1), {"a": 1}),
            (types.MappingProxyType({"a": 1}), {"a": 1}),
            (collections.ChainMap({"a": 1}), {"a": 1}),
            ({Word.FIVE: 1}, {"five": 1}),
            ({b"a": 1}, {"a": 1}),
        ],
    ),
    "role": (
        lambda value: models.Messages(role=value).role,
        [
            ("user", models.Role.USER),
            (models.Role.SYSTEM, models.Role.SYSTEM),
            ("tool", "tool"),
            ("USER", "USER"),
            (None, None),
        ],
    ),
    "time": (
        lambda value: models.AuthResponse(expires_at=value).expires_at,
        [
            ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ("2024-01-02t03:04:05z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ("2024-01-02 03:04:05+05:30", datetime(2024, 1, 2, 3, 4, 5, tzinfo=EAST)),
            ("2024-01-02_03:04:05+0530", datetime(2024, 1, 2, 3, 4, 5, tzinfo=EAST)),
            (
                "2024-01-02T03:04:05\u221205:30",
                datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(-timedelta(hours=5, minutes=30))),
            ),
            ("2024-01-02T03:04-00:00", datetime(2024, 1, 2, 3, 4, tzinfo=UTC)),
            ("2024-01-02T03:04:05", datetime(2024, 1, 2, 3, 4, 5)),
            ("2024-01-02T03:04", datetime(2024, 1, 2, 3, 4)),
            ("2024-01-02", datetime(2024, 1, 2)),
            ("2024-01-02T03:04:05.1", datetime(2024, 1, 2, 3, 4, 5, 100000)),
            ("2024-01-02T03:04:05,123456789", datetime(2024, 1, 2, 3, 4, 5, 123456)),
            (1704164645, datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
            (1704164645000, datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ("+1704164645", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ("1.5", datetime(1970, 1, 1, 0, 0, 1, 500000, UTC)),
            (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
            (5000000000000.0625, datetime(2128, 6, 11, 8, 53, 20, 63, UTC)),
            (1.1640625, datetime(1970, 1, 1, 0, 0, 1, 164063, UTC)),
            (-0.5, datetime(1969, 12, 31, 23, 59, 59, 500000, UTC)),
            ("20240102", datetime(1970, 8, 23, 6, 15, 2, tzinfo=UTC)),
            (datetime(2024, 1, 2), datetime(2024, 1, 2)),
            (date(2024, 1, 2), datetime(2024, 1, 2)),
        ],
    ),
}
REFUSED = {
    "text": [None, 5, 5.0, True, decimal.Decimal(5), b"\xff", [], {}, object(), memoryview(b"a")],
    "integer": [
        *(" 5 ", "+5", "5.0", "5.000", "1_000", b"5", bytearray(b"5")),  # no JSON API has these
        *(decimal.Decimal("5.00"), fractions.Fraction(10, 2)),
        "5.5",
        "1e3",
        "0x10",
        "",
        "5.",
        ".0",
        "_5",
        "1__0",
        "5 5",
        "\u0665",
        "\u00b2",
        5.5,
        math.nan,
        math.inf,
        -math.inf,
        1e20,
        2.0**63,
        [],
        {},
        b"\xff",
        timedelta(5),
        5j,
        decimal.Decimal("5.5"),
        decimal.Decimal("NaN"),
        decimal.Decimal("Infinity"),
        fractions.Fraction(1, 2),
        date(2024, 1, 2),
        "9" * 5000,
    ],
    "boolean": [
        *("Yes", "y", "on", "t", "no", "n", "OFF", "f", " true ", "", "maybe"),
        *(2, -1, 1.5, math.nan, [], {}, datetime(2024, 1, 2)),
    ],
    "list": ["ab", b"ab", bytearray(b"ab"), {"a": 1}, 5, object(), models.CacheGetRequestBody(key="k")],
    "object": [[("a", 1)], "{}", 5, [], {1: 1}, {None: 1}, {(): 1}, models.CacheGetRequestBody(key="k"), sample],
    "role": [5, [], b"\xff"],
    "time": [
        "2024-01-02T24:00:00",
        "2024-01-02T03:60",
        "2024-01-02T03:04:60",
        "2024-01-02T03:04:05+24:00",
        "2024-01-02T03:04:05+05",
        "2024-W01-2",
        "2024-002",
        " 2024-01-02",
        "2024-01-02 ",
        "2024-1-2",
        "Tue, 02 Jan 2024 03:04:05 GMT",
        "1e9",
        "",
        "0000-01-01",
        "10000-01-01",
        "2024-02-30",
        "2024-01-02T03:04:05.Z",
        math.nan,
        math.inf,
        10**20,
        True,
        [],
        {},
        "\u0662\u0660\u0662\u0664-01-02",
        "2024-01-02\n",
    ],
}


class TheConstructor(unittest.TestCase):
    def test_takes_keywords_by_either_name(self):
        for fields in (
            {"job_id": "1", "success": True},
            {"jobId": "1", "success": True},
            {"jobId": "1", "job_id": "loses", "success": 1},
        ):
            model = models.QueueEnqueueResponseBody(**fields)
            self.assertEqual((model.job_id, model.success), ("1", True))
        with self.assertRaises(TypeError):
            models.QueueEnqueueResponseBody("1")

    def test_of_a_file_knows_its_odd_names(self):
        for fields in (
            {"": b"c", "fileName": "f", "Content-Type": "t/x"},
            {"content": b"c", "file_name": "f", "content_type": "t/x"},
        ):
            file = models.File(**fields)
            self.assertEqual((file.content, file.file_name, file.content_type), (b"c", "f", "t/x"))

    def test_gives_what_is_missing_its_default(self):
        for model in CLASSES:
            instance = sample(model)
            for field in dataclasses.fields(model):
                if field.name not in SAMPLES.get(model.__name__, {}):
                    self.assertIs(
                        getattr(instance, field.name), UNSET if (model.__name__, field.name) in NULLABLE else None
                    )

    def test_refuses_what_is_missing_by_its_name_on_the_wire(self):
        with self.assertRaises(errors.ValidationError) as caught:
            models.ServicesInvokeRequestBody()
        self.assertEqual(
            [(problem["loc"], problem["type"]) for problem in caught.exception.errors()],
            [(("data",), "missing"), (("serviceName",), "missing")],
        )
        self.assertIn("2 validation errors for ServicesInvokeRequestBody", str(caught.exception))

    def test_refuses_unknown_fields_of_a_request(self):
        with self.assertRaises(errors.ValidationError) as caught:
            models.CacheSetRequestBody(key="k", value=1, tll=5)
        self.assertIn("did you mean 'ttl'?", str(caught.exception))

    def test_keeps_unknown_fields_of_a_response_aside(self):
        model = models.CacheSetResponseBody(success=True, region="eu")
        self.assertEqual(model.model_extra, {"region": "eu"})
        self.assertFalse(hasattr(model, "region"))
        self.assertEqual(model, models.CacheSetResponseBody(success=True))
        self.assertNotIn("eu", repr(model) + str(model) + model.model_dump_json())
        self.assertEqual(models.CacheSetResponseBody().model_extra, {})

    def test_builds_nested_models(self):
        response = models.AuthResponse(token="t", user={"id": "1", "createdAt": "2024-01-02", "plan": "free"})
        self.assertIsInstance(response.user, models.User)
        self.assertEqual(
            (response.user.created_at, response.user.model_extra), (datetime(2024, 1, 2), {"plan": "free"})
        )
        request = models.AiChatRequestBody(messages=({"role": "user"}, models.Messages(content="hi")))
        self.assertEqual(request.messages, [models.Messages(role="user"), models.Messages(content="hi")])

    def test_names_the_path_of_what_is_wrong_in_a_nested_model(self):
        with self.assertRaises(errors.ValidationError) as caught:
            models.AiChatRequestBody(messages=[{}, {"content": 5}, None], model=[])
        self.assertEqual(
            [problem["loc"] for problem in caught.exception.errors()],
            [("messages", 1, "content"), ("messages", 2), ("model",)],
        )

    def test_converts_what_the_official_sdk_converts(self):
        for kind, (convert, rows) in ACCEPTED.items():
            for given, expected in rows:
                with self.subTest(kind, given=given):
                    became = convert(given)
                    self.assertEqual(became, expected)
                    self.assertTrue(type(became) is type(expected) or kind == "object" and isinstance(became, dict))
                    if isinstance(expected, datetime):
                        self.assertEqual(became.utcoffset(), expected.utcoffset())

    def test_refuses_what_the_official_sdk_refuses(self):
        for kind, rows in REFUSED.items():
            for given in rows:
                with self.subTest(kind, given=given):
                    with self.assertRaises(errors.ValidationError):
                        ACCEPTED[kind][0](given)

    def test_tells_a_null_from_nothing_where_both_have_a_meaning(self):
        self.assertIs(models.CacheGetResponseBody().value, UNSET)
        self.assertIsNone(models.CacheGetResponseBody(value=None).value)
        self.assertIs(models.User().name, UNSET)
        self.assertIsNone(models.User(name=None).name)
        self.assertIsNone(models.CacheGetResponseBody(exists=None).exists)


class AMessageOfAChat(unittest.TestCase):
    """A history comes from elsewhere, often in OpenAI's form: what this file does not know is kept and sent on."""

    CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    HISTORY = [
        {"role": "system", "content": "Be brief.", "name": "setup"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "tool_calls": [CALL], "refusal": "no"},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "function", "name": "f", "content": "42", "function_call": {"name": "f"}},
        {"name": "nobody"},
        {"role": "user", "content": []},
    ]

    def test_keeps_members_that_are_not_known(self):
        for message in self.HISTORY:
            for made in (models.Messages(**message), models.Messages.model_validate(message)):
                with self.subTest(message):
                    self.assertEqual((made.role, made.content), (message.get("role"), message.get("content")))
                    self.assertEqual(made.model_dump(by_alias=True, mode="json"), message)
                    self.assertEqual(json.loads(made.model_dump_json()), message)
                    self.assertEqual(models.Messages.model_validate(made.model_dump()).model_dump(), message)

    def test_keeps_them_in_every_copy(self):
        for message in self.HISTORY:
            made = models.Messages(**message)
            for again in (
                copy.copy(made),
                copy.deepcopy(made),
                pickle.loads(pickle.dumps(made)),
                models.Messages.model_validate(made),
            ):
                with self.subTest(message):
                    self.assertEqual(again.model_dump(), message)

    def test_keeps_them_within_a_request(self):
        request = models.AiChatRequestBody(messages=self.HISTORY)
        self.assertEqual(request.model_dump(mode="json"), {"messages": self.HISTORY})
        request = models.AiChatRequestBody(messages=[models.Messages(**message) for message in self.HISTORY])
        self.assertEqual(request.model_dump(mode="json"), {"messages": self.HISTORY})

    def test_has_text_or_a_list_of_parts_as_its_content(self):
        for content in ("", "Hi", [], [{"type": "text", "text": "Hi"}], ({"type": "text", "text": "Hi"},)):
            made = models.Messages(content=content).content
            self.assertEqual(made, list(content) if isinstance(content, tuple) else content)
        for content in (5, True, 1.5, {"type": "text"}, object()):
            with self.subTest(content), self.assertRaises(errors.ValidationError) as caught:
                models.AiChatRequestBody(messages=[{}, {"content": content}])
            self.assertEqual([problem["loc"] for problem in caught.exception.errors()], [("messages", 1, "content")])

    def test_is_open_but_no_other_request_is(self):
        for model in CLASSES:
            if model.__name__ in SAMPLES and model is not models.AuthResponse:
                with self.subTest(model.__name__), self.assertRaises(errors.ValidationError):
                    model(no_such_field=1, **SAMPLES[model.__name__])


class AChat(unittest.TestCase):
    SETTINGS = {"temperature": 0.5, "max_tokens": 100, "top_p": 0.9}

    def test_takes_how_the_model_is_to_answer(self):
        request = models.AiChatRequestBody(messages=[], **self.SETTINGS)
        self.assertEqual((request.temperature, request.max_tokens, request.top_p), (0.5, 100, 0.9))
        self.assertEqual(request.model_dump(by_alias=True), {"messages": [], **self.SETTINGS})
        self.assertEqual(models.AiChatRequestBody(messages=[]).model_dump(), {"messages": []})

    def test_keeps_a_0_apart_from_nothing(self):
        request = models.AiChatRequestBody(messages=[], temperature=0, max_tokens=0, top_p=0)
        self.assertEqual(request.model_dump(), {"messages": [], "temperature": 0, "max_tokens": 0, "top_p": 0})

    def test_takes_numbers_only(self):
        for field, values in {
            "temperature": ["warm", "", [], {}, object()],
            "top_p": ["most", [], {}, object()],
            "max_tokens": ["many", [], {}, 1.5, math.nan, object()],
        }.items():
            for value in values:
                with self.subTest(field, value=value), self.assertRaises(errors.ValidationError) as caught:
                    models.AiChatRequestBody(messages=[], **{field: value})
                self.assertEqual([problem["loc"] for problem in caught.exception.errors()], [(field,)])


class Assignment(unittest.TestCase):
    def test_is_not_checked_before_the_model_is_sent(self):
        request = models.CacheSetRequestBody(key="k", value=1)
        request.ttl = "soon"
        self.assertEqual(request.ttl, "soon")

    def test_of_an_unknown_name_is_refused(self):
        for model in CLASSES:
            with self.assertRaises(ValueError):
                sample(model).no_such_field = 1


class Equality(unittest.TestCase):
    def test_is_of_class_and_fields(self):
        for model in CLASSES:
            self.assertEqual(sample(model), sample(model))
            self.assertNotEqual(sample(model), object())
        self.assertNotEqual(models.CacheSetResponseBody(success=True), models.CacheSetResponseBody(success=False))
        self.assertNotEqual(models.CacheGetRequestBody(key="k"), models.ServicesInvokeResponseBody())
        self.assertNotEqual(models.CacheSetResponseBody(), models.AiChatResponseBody())
        self.assertNotEqual(models.CacheGetResponseBody(value=None), models.CacheGetResponseBody())
        self.assertNotEqual(models.CacheGetRequestBody(key="k"), {"key": "k"})

    def test_of_what_can_change_has_no_hash(self):
        for model in CLASSES:
            with self.assertRaises(TypeError):
                hash(sample(model))


class Copies(unittest.TestCase):
    def test_are_equal_and_of_their_own(self):
        for model in CLASSES:
            instance = sample(model)
            for made in (copy.copy(instance), copy.deepcopy(instance)) + tuple(
                pickle.loads(pickle.dumps(instance, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
            ):
                self.assertIs(type(made), model)
                self.assertEqual(made, instance)
                self.assertIsNot(made, instance)
        request = models.DbQueryRequestBody(sql="s", params=[[1]])
        copy.deepcopy(request).params[0].append(2)
        self.assertEqual(request.params, [[1]])

    def test_keep_unset_unset_and_the_unknown_fields(self):
        model = models.CacheGetResponseBody(exists=False, region="eu")
        for made in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            self.assertIs(made.value, UNSET)
            self.assertEqual(made.model_extra, {"region": "eu"})


class Unset(unittest.TestCase):
    def test_is_one_object_however_it_is_copied(self):
        for made in (copy.copy(UNSET), copy.deepcopy(UNSET), copy.deepcopy([UNSET])[0]) + tuple(
            pickle.loads(pickle.dumps(UNSET, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ):
            self.assertIs(made, UNSET)

    def test_is_false_equal_to_itself_and_shows_its_name(self):
        self.assertFalse(UNSET)
        self.assertEqual(UNSET, aerostack_lite.types.UNSET)
        self.assertIsNotNone(UNSET)
        self.assertEqual(repr(UNSET), "Unset()")

    def test_counts_as_not_given(self):
        self.assertIsNone(models.CacheSetRequestBody(key="k", value=1, ttl=UNSET).ttl)
        with self.assertRaises(errors.ValidationError) as caught:
            models.CacheSetRequestBody(key="k", value=UNSET)
        self.assertEqual(caught.exception.errors()[0]["type"], "missing")


class Looks(unittest.TestCase):
    def test_are_the_official_ones(self):
        result = models.DbQueryResult(count=1, results=[{"one": 1}])
        self.assertEqual(repr(result), "DbQueryResult(count=1, results=[{'one': 1}])")
        self.assertEqual(repr(models.CacheGetResponseBody()), "CacheGetResponseBody(exists=None, value=Unset())")

    def test_hide_secrets(self):
        for model in (
            models.AuthSigninRequestBody(email="e", password="sesame"),
            models.AuthSignupRequestBody(email="e", password="sesame"),
            models.AuthResponse(token="sesame"),
            models.Security(api_key_auth="sesame"),
        ):
            for text in (repr(model), str(model), "%s" % model, "{}".format(model), repr([model])):
                self.assertNotIn("sesame", text)
            self.assertIn("sesame", model.model_dump_json())
        self.assertEqual(
            repr(models.AuthSigninRequestBody(email="e", password="sesame")),
            "AuthSigninRequestBody(email='e', password=***)",
        )
        self.assertIn("token=None", repr(models.AuthResponse()))


class Dumps(unittest.TestCase):
    MODEL = models.AuthResponse(
        expires_at="2024-01-02T03:04:05Z", user={"createdAt": "2024-01-02", "name": None, "metadata": {"a": None}}
    )

    def test_have_every_field_by_its_own_name(self):
        self.assertEqual(
            self.MODEL.model_dump(),
            {
                "expires_at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
                "user": {"created_at": datetime(2024, 1, 2), "name": None, "metadata": {"a": None}},
            },
        )

    def test_have_the_names_of_the_wire_if_asked(self):
        self.assertEqual(
            self.MODEL.model_dump(by_alias=True, mode="json"),
            {
                "expiresAt": "2024-01-02T03:04:05Z",
                "user": {"createdAt": "2024-01-02T00:00:00", "name": None, "metadata": {"a": None}},
            },
        )

    def test_leave_out_what_was_not_given(self):
        self.assertEqual(models.CacheGetResponseBody().model_dump(), {})
        self.assertEqual(models.CacheGetResponseBody(exists=None, value=None).model_dump(), {"value": None})
        self.assertEqual(
            models.CacheSetRequestBody(key="k", value=None, ttl=None).model_dump(), {"key": "k", "value": None}
        )

    def test_go_into_models_and_lists(self):
        request = models.AiChatRequestBody(messages=[{"role": "user", "content": "hi"}, {"role": "tool"}])
        self.assertEqual(
            request.model_dump(mode="json"), {"messages": [{"content": "hi", "role": "user"}, {"role": "tool"}]}
        )

    def test_as_json_are_json(self):
        self.assertEqual(
            json.loads(self.MODEL.model_dump_json(by_alias=True)), self.MODEL.model_dump(by_alias=True, mode="json")
        )
        self.assertEqual(
            models.DbQueryResult(count=1, results=[{"a": 1}]).model_dump_json(), '{"count":1,"results":[{"a":1}]}'
        )
        self.assertEqual(models.DbQueryResult(count=1).model_dump_json(indent=2), '{\n  "count": 1\n}')
        self.assertEqual(
            models.CacheGetResponseBody(
                value={
                    1,
                }
            ).model_dump_json(),
            '{"value":[1]}',
        )

    def test_make_the_same_model_again(self):
        for model in CLASSES:
            instance = sample(model)
            self.assertEqual(model.model_validate(instance.model_dump()), instance)
            self.assertEqual(model.model_validate(instance.model_dump(by_alias=True)), instance)
            if model.__name__ not in ("File", "StorageUploadRequestBody"):
                self.assertEqual(model.model_validate_json(instance.model_dump_json(by_alias=True)), instance)
                self.assertEqual(model.model_validate_json(instance.model_dump_json().encode()), instance)

    def test_refuse_what_is_not_of_the_class(self):
        for wrong in (None, [], "{}", 5, models.CacheSetResponseBody(), [("key", "k")]):
            with self.assertRaises(errors.ValidationError):
                models.CacheGetRequestBody.model_validate(wrong)
        for text in ("", "{", "[]", b"\xff", '{"key":5}', '{"kee":"k"}'):
            with self.assertRaises(ValueError):
                models.CacheGetRequestBody.model_validate_json(text)


class Dataclasses(unittest.TestCase):
    def test_are_what_models_are(self):
        for model in CLASSES:
            with self.subTest(model.__name__):
                self.assertTrue(dataclasses.is_dataclass(model))
                self.assertTrue(dataclasses.is_dataclass(sample(model)))
                declared = [name for name in model.__annotations__ if not name.startswith("_")]
                self.assertEqual([field.name for field in dataclasses.fields(model)], declared)
                self.assertEqual(dataclasses.replace(sample(model)), sample(model))
        self.assertEqual(
            [field.name for field in dataclasses.fields(models.CacheSetRequestBody)], ["key", "value", "ttl"]
        )
        self.assertEqual(dataclasses.fields(models.CacheGetResponseBody)[1].default, UNSET)

    def test_are_taken_apart_into_dicts(self):
        self.assertEqual(
            dataclasses.asdict(models.CacheSetRequestBody(key="k", value=[1])), {"key": "k", "value": [1], "ttl": None}
        )
        self.assertEqual(dataclasses.asdict(models.AuthResponse(user={"id": "1"}))["user"]["id"], "1")
        self.assertIs(dataclasses.asdict(models.CacheGetResponseBody())["value"], UNSET)

    def test_are_checked_again_when_a_field_is_replaced(self):
        request = models.CacheSetRequestBody(key="k", value=1)
        self.assertEqual(dataclasses.replace(request, ttl="60").ttl, 60)
        self.assertIsNone(request.ttl)
        with self.assertRaises(errors.ValidationError):
            dataclasses.replace(request, ttl="soon")

    def test_are_so_whether_a_class_or_its_parent_or_an_instance_is_asked_first(self):
        class Fresh(models.CacheGetRequestBody):
            pass

        class Fresher(Fresh):
            pass

        self.assertEqual([field.name for field in dataclasses.fields(Fresher(key="k"))], ["key"])
        self.assertEqual([field.name for field in dataclasses.fields(Fresh)], ["key"])

    def test_are_so_for_many_threads_that_ask_first_at_once(self):
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as threads:
            for _ in range(50):
                fresh = type(
                    "Fresh",
                    (models.User,),
                    {"__annotations__": {"extra%d" % number: "Optional[str]" for number in range(20)}},
                )
                for fields in threads.map(dataclasses.fields, [fresh] * 4):
                    self.assertEqual(len(fields), 25)


class Subclasses(unittest.TestCase):
    def test_keep_the_checks_and_may_have_methods(self):
        class Greeting(models.CacheSetRequestBody):
            def shout(self):
                return self.value.upper()

        greeting = Greeting(key="k", value="hello", ttl="5")
        self.assertEqual((greeting.shout(), greeting.ttl), ("HELLO", 5))
        self.assertEqual(repr(greeting), "Greeting(key='k', value='hello', ttl=5)")
        self.assertNotEqual(greeting, models.CacheSetRequestBody(key="k", value="hello", ttl=5))
        with self.assertRaises(errors.ValidationError):
            Greeting(key="k", value="hello", tll=5)

    def test_may_call_their_parents_constructor(self):
        class Prefixed(models.CacheGetRequestBody):
            def __init__(self, key):
                super().__init__(key="app:" + key)

        self.assertEqual(Prefixed("k").key, "app:k")

    def test_leave_types_of_your_own_to_you(self):
        class Mine(BaseModel):  # in a file with postponed annotations, and in one without
            count: "int"
            place: "collections.OrderedDict"
            size: int

        mine = Mine(count="5", place="p", size="6")
        self.assertEqual((mine.count, mine.place, mine.size), (5, "p", "6"))
        with self.assertRaises(errors.ValidationError):
            Mine(count="five", place="p", size=6)

    def test_start_from_a_model_without_fields(self):
        self.assertEqual((repr(BaseModel()), BaseModel().model_dump()), ("BaseModel()", {}))


class AHostileValue(unittest.TestCase):
    def test_of_any_length_is_refused_at_once(self):
        with Stopwatch(time.process_time) as took:
            for model, field, value in (
                (models.AuthResponse, "expires_at", "1" * 300_000 + "x"),
                (models.AuthResponse, "expires_at", "1." + "1" * 300_000 + "x"),
                (models.DbQueryResult, "count", "1_" * 300_000),
                (models.DbQueryResult, "count", " " * 300_000 + "x"),
                (models.CacheGetResponseBody, "exists", "y" * 300_000),
            ):
                with self.assertRaises(errors.ValidationError):
                    model(**{field: value})
        self.assertLess(took.seconds, 1)

    def test_is_dumped_at_once(self):
        answered = models.CacheGetResponseBody(value={"k" * 400_000: [1] * 200_000})
        with Stopwatch(time.process_time) as took:
            self.assertEqual(answered.model_dump(mode="json"), {"value": answered.value})
        self.assertLess(took.seconds, 1)

    def test_takes_no_memory_of_its_own(self):
        value = "1_1" * 100_000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with contextlib.suppress(errors.ValidationError):  # Python 3.11 made it an error to read that many digits
            models.DbQueryResult(count=value)
        self.assertLess(tracemalloc.get_traced_memory()[1], 10 * len(value))


class Enums(unittest.TestCase):
    def test_are_texts(self):
        self.assertEqual([role.value for role in models.Role], ["system", "user", "assistant"])
        self.assertEqual(
            [code.value for code in errors.Code],
            [
                "AUTH_INVALID_KEY",
                "AUTH_INVALID_CREDENTIALS",
                "DB_QUERY_FAILED",
                "RATE_LIMIT_EXCEEDED",
                "VALIDATION_ERROR",
                "INTERNAL_ERROR",
            ],
        )
        self.assertEqual(models.Role.USER, "user")
        self.assertEqual(json.dumps([models.Role.USER, errors.Code.VALIDATION_ERROR]), '["user", "VALIDATION_ERROR"]')


class ParseDatetime(unittest.TestCase):
    def test_reads_what_a_response_may_hold(self):
        for given, expected in ACCEPTED["time"][1]:
            if isinstance(given, str):
                self.assertEqual(aerostack_lite.utils.parse_datetime(given), expected)

    def test_refuses_the_rest(self):
        for given in REFUSED["time"]:
            if isinstance(given, str):
                with self.subTest(given), self.assertRaises(ValueError):
                    aerostack_lite.utils.parse_datetime(given)
