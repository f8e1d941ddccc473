"""How Python's values become JSON: one row per type, byte for byte, and what is refused by its path."""

import array
import asyncio
import collections
import fractions
import ipaddress
import json
import math
import pathlib
import re
import sys
import types
import unittest
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

from aerostack_lite import SDK, UNSET, errors, models
from tests.recording_server import KEY, FakeAsyncClient, FakeClient, both, peak_memory, sent_json
from tests.sample_types import Colour, Level, Mapped, Name, Pair, Point, Text, Whole

EAST = timezone(timedelta(hours=5, minutes=30))
ID = uuid.UUID("12345678123456781234567812345678")

# What a value is, and what is sent for it.
VALUES = [
    ("null", None, b"null"),
    ("true and false", [True, False], b"[true,false]"),
    ("text is ASCII", "h\u00e9 \u20ac \U0001f600", b'"h\\u00e9 \\u20ac \\ud83d\\ude00"'),
    ("text is escaped", '"\\/\b\f\n\r\t\0\x7f\u2028', b'"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u007f\\u2028"'),
    ("a lone surrogate", "\ud800", b'"\\ud800"'),
    (
        "whole numbers of any size",
        [0, -1, 2**53 + 1, 10**30],
        b"[0,-1,9007199254740993,1000000000000000000000000000000]",
    ),
    (
        "other numbers",
        [1.0, -0.0, 0.1, 1e16, 1e-7, 1.7976931348623157e308],
        b"[1.0,-0.0,0.1,1e+16,1e-07,1.7976931348623157e+308]",
    ),
    ("a list", [1, [2, []]], b"[1,[2,[]]]"),
    ("an object", {"b": 1, "a": {"c": {}}}, b'{"b":1,"a":{"c":{}}}'),
    ("nulls inside", {"a": None, "b": [None]}, b'{"a":null,"b":[null]}'),
    ("a datetime without offset", datetime(2024, 1, 2, 3, 4, 5), b'"2024-01-02T03:04:05"'),
    ("a datetime in UTC", datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc), b'"2024-01-02T03:04:05Z"'),
    ("a datetime with an offset", datetime(2024, 1, 2, 3, 4, 5, tzinfo=EAST), b'"2024-01-02T03:04:05+05:30"'),
    ("microseconds", datetime(2024, 1, 2, 3, 4, 5, 6000), b'"2024-01-02T03:04:05.006000"'),
    ("a date", date(2024, 1, 2), b'"2024-01-02"'),
    ("times", [time(3, 4, 5), time(3, 4, 5, tzinfo=timezone.utc)], b'["03:04:05","03:04:05Z"]'),
    (
        "durations",
        [
            timedelta(days=1),
            timedelta(seconds=90),
            timedelta(0),
            timedelta(seconds=-90),
            timedelta(seconds=1, microseconds=500),
            timedelta(days=2, hours=3, minutes=4, seconds=5),
            timedelta(hours=1),
        ],
        b'["P1D","PT1M30S","PT0S","-PT1M30S","PT1.0005S","P2DT3H4M5S","PT1H"]',
    ),
    ("a Decimal", [Decimal("1.10"), Decimal("1E+5"), Decimal("-0")], b'["1.10","1E+5","-0"]'),
    ("a UUID", ID, b'"12345678-1234-5678-1234-567812345678"'),
    (
        "IP addresses",
        [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8")],
        b'["127.0.0.1","::1","10.0.0.0/8"]',
    ),
    ("bytes that are text", [b"h\xc3\xa9", bytearray(b"a"), memoryview(b"b")], b'["h\\u00e9","a","b"]'),
    ("enums", [Colour.RED, Colour.NESTED, Level.HIGH, Name.ADA, models.Role.USER], b'["red",[1,"a"],3,"ada","user"]'),
    ("tuples", [(), (1, 2), Pair(1, (2,))], b"[[],[1,2],[1,[2]]]"),
    ("sets", [{1}, frozenset(["a"]), set()], b'[[1],["a"],[]]'),
    ("a deque", collections.deque([1, 2]), b"[1,2]"),
    ("a range", range(3), b"[0,1,2]"),
    ("views of a dict", [{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()], b'[["a"],[1],[["a",1]]]'),
    ("subclasses of the plain types", [Text("a"), Whole(5), Mapped(a=1), True + 1], b'["a",5,{"a":1},2]'),
    (
        "dicts of other kinds",
        [
            collections.OrderedDict(a=1),
            collections.defaultdict(int, a=1),
            collections.Counter("a"),
            collections.UserDict(a=1),
            types.MappingProxyType({"a": 1}),
            collections.ChainMap({"a": 1}),
        ],
        b"[" + b",".join([b'{"a":1}'] * 6) + b"]",
    ),
    ("dataclasses", Point(1, Point(2, [Point(3)])), b'{"x":1,"y":{"x":2,"y":[{"x":3,"y":null}]}}'),
    (
        "models, by their names on the wire",
        [models.ServicesInvokeRequestBody(service_name="s", data={}), models.Messages(role="user")],
        b'[{"data":{},"serviceName":"s"},{"role":"user"}]',
    ),
    (
        "all of them, inside each other",
        {"a": ({Colour.RED}, [Point(1, {"b": (date(2024, 1, 2),)})])},
        b'{"a":[["red"],[{"x":1,"y":{"b":["2024-01-02"]}}]]}',
    ),
]

# A dict's key, and the text that is sent for it.
KEYS = [
    ("a", "a"),
    ("h\u00e9", "h\\u00e9"),
    ("", ""),
    (Text("a"), "a"),
    (1, "1"),
    (-1, "-1"),
    (10**30, str(10**30)),
    (1.5, "1.5"),
    (True, "true"),
    (False, "false"),
    (Colour.RED, "red"),
    (Level.HIGH, "3"),
    (Name.ADA, "ada"),
    (date(2024, 1, 2), "2024-01-02"),
    (datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc), "2024-01-02T03:04:05Z"),
    (time(3, 4, 5), "03:04:05"),
    (ID, str(ID)),
    (Decimal("1.10"), "1.10"),
    (b"a", "a"),
    (timedelta(seconds=90), "PT1M30S"),
    (ipaddress.ip_address("::1"), "::1"),
]


class Stranger:
    def __repr__(self):
        return "sesame"


def cyclic(kind):
    if kind is list:
        cycle = []
        cycle.append(cycle)
    elif kind is dict:
        cycle = {}
        cycle["self"] = cycle
    elif kind is Point:
        cycle = Point(1)
        cycle.y = cycle
    else:
        cycle = collections.deque()
        cycle.append([cycle])
    return cycle


def nested(depth, kind=list):
    value = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


REFUSED = [
    ("value", math.nan),
    ("value", math.inf),
    ("value[1]", [1, -math.inf]),
    ("value.a.b[2]", {"a": {"b": [0, 0, math.nan]}}),
    ("value[3].x", [0, 0, 0, {"x": Stranger()}]),
    ("value.a", {"a": b"\xff"}),
    ("value[0]", [bytearray(b"\xff")]),
    ("value", Stranger()),
    ("value", Stranger),
    ("value", len),
    ("value", ...),
    ("value", NotImplemented),
    ("value", sys),
    ("value", ValueError("x")),
    ("value", lambda: 1),
    ("value", 1j),
    ("value", memoryview(b"\xff")),
    ("value[0]", [UNSET]),
    ("value.a", {"a": UNSET}),
    ("value.y", Point(1, math.nan)),
    ("value[1][0]", (1, {math.nan})),
    ("value.a", {"a": {None: 1}}),
    ("value", {None: 1}),
    ("value", {"a": 1, (1, 2): 2}),
    ("value", {math.nan: 1}),
    ("value", {math.inf: 1}),
    ("value", {Stranger(): 1}),
    ("value", {b"\xff": 1}),
    ("value", datetime),
    ("value", Colour),
]


class Encoding(unittest.TestCase):
    def test_has_one_row_for_every_type(self):
        for name, value, expected in VALUES:
            with self.subTest(name):
                self.assertEqual(sent_json(value), expected)
                self.assertEqual(sent_json([value]), b"[" + expected + b"]")
                self.assertEqual(sent_json({"a": value}), b'{"a":' + expected + b"}")
                self.assertEqual(sent_json({1: (value,)}), b'{"1":[' + expected + b"]}")

    def test_of_a_twin_is_the_same(self):
        for name, value, expected in VALUES:
            client = FakeAsyncClient()
            asyncio.run(SDK(KEY, async_client=client).cache.cache_set_async(key="k", value=value))
            with self.subTest(name):
                self.assertEqual(client.content, b'{"key":"k","value":' + expected + b"}")

    def test_of_keys_has_one_row_for_every_type(self):
        for key, expected in KEYS:
            with self.subTest(repr(key)):
                self.assertEqual(sent_json({key: 1}), b'{"' + expected.encode() + b'":1}')
                self.assertEqual(sent_json([{"a": {key: 1}}]), b'[{"a":{"' + expected.encode() + b'":1}}]')

    def test_of_two_keys_that_become_one_the_later_is_what_a_server_reads(self):
        self.assertEqual(json.loads(sent_json({1: "a", "1": "b"})), {"1": "b"})

    def test_of_the_text_null_as_a_key_is_that_of_any_other_key(self):
        for value, expected in (
            ({"null": None}, b'{"null":null}'),
            ({"null": {"null": [{"null": "null"}]}}, b'{"null":{"null":[{"null":"null"}]}}'),
            ({Text("null"): 1}, b'{"null":1}'),
            ({b"null": 1}, b'{"null":1}'),
            ([{"null": date(2024, 1, 2)}, {1: 2}], b'[{"null":"2024-01-02"},{"1":2}]'),
            ({"a": '"null":', "b": ['{"null":1}']}, b'{"a":"\\"null\\":","b":["{\\"null\\":1}"]}'),
            (Mapped(null=Mapped(null=1)), b'{"null":{"null":1}}'),
        ):
            with self.subTest(value):
                self.assertEqual(sent_json(value), expected)
        self.assertEqual(sent_json({"null": 1} for _ in range(2)), b'[{"null":1},{"null":1}]')

    def test_of_the_text_null_as_a_key_takes_no_more_memory_than_of_another(self):
        sent_json([{"null": 1}])
        null, other = (
            peak_memory(lambda: sent_json([{key: number} for number in range(5_000)])) for key in ("null", "nill")
        )
        self.assertLess(null, 1.2 * other)

    def test_reads_a_generator_to_its_end(self):
        self.assertEqual(sent_json(x for x in (1, 2)), b"[1,2]")
        self.assertEqual(sent_json({"a": map(str, (1, 2)), "b": iter("xy")}), b'{"a":["1","2"],"b":["x","y"]}')

    def test_reads_a_generator_that_stands_beside_odd_keys(self):
        self.assertEqual(sent_json([(x for x in (1, 2)), {1: 2}]), b'[[1,2],{"1":2}]')
        self.assertEqual(
            sent_json({"a": {"b": map(str, (1, 2))}, "c": {3: date(2024, 1, 2)}}),
            b'{"a":{"b":["1","2"]},"c":{"3":"2024-01-02"}}',
        )

    def test_of_the_same_value_twice_is_no_cycle(self):
        shared = {"a": []}
        self.assertEqual(sent_json([shared, shared, {1: shared}]), b'[{"a":[]},{"a":[]},{"1":{"a":[]}}]')

    def test_reaches_150_levels(self):
        for kind, opening, closing in ((list, b"[", b"]"), (dict, b'{"a":', b"}")):
            text = sent_json(nested(150, kind))
            self.assertEqual((text[: 150 * len(opening)], text[-150:]), (opening * 150, closing * 150))

    def test_applies_to_every_field_that_may_hold_anything(self):
        client = FakeClient()
        sdk = SDK(KEY, client=client)
        sdk.database.db_query(sql="s", params=[date(2024, 1, 2), Decimal("1.5"), None])
        self.assertEqual(client.content, b'{"sql":"s","params":["2024-01-02","1.5",null]}')
        sdk.queue.queue_enqueue(type="t", data={"at": date(2024, 1, 2), "n": {1: 2}})
        self.assertEqual(client.content, b'{"data":{"at":"2024-01-02","n":{"1":2}},"type":"t"}')
        sdk.services.services_invoke(service_name="s", data={"tags": {"a"}})
        self.assertEqual(client.content, b'{"data":{"tags":["a"]},"serviceName":"s"}')
        sdk.authentication.auth_signup(email="e", password="p", metadata={"id": ID})
        self.assertEqual(client.content, b'{"email":"e","password":"p","metadata":{"id":"%s"}}' % str(ID).encode())


def steps(path):
    """A path such as value[3].x as a tuple of names and numbers."""
    return tuple(int(step[1:-1]) if step[0] == "[" else step for step in re.findall(r"\[\d+\]|[^.\[]+", path))


class Refusals(unittest.TestCase):
    def refused(self, value):
        """The error that both twins raise, after it was made sure that nothing went out."""
        client, async_client = FakeClient(), FakeAsyncClient()
        for call in both(SDK(KEY, client=client, async_client=async_client), "cache", "cache_set"):
            with self.assertRaises(errors.ValidationError) as caught:
                call(key="k", value=value)
            self.assertIsInstance(caught.exception, ValueError)
        self.assertEqual(client.built + async_client.built, [])
        return caught.exception

    def test_name_the_path(self):
        for path, value in REFUSED:
            with self.subTest(path, value=type(value).__name__):
                error = self.refused(value)
                self.assertRegex(str(error), "(?m)^(body[.])?%s: " % re.escape(path))
                self.assertEqual([problem["loc"] for problem in error.errors()], [("body", *steps(path))])
                self.assertNotIn("sesame", str(error))

    def test_of_what_stands_under_an_odd_key_name_the_key_as_it_is(self):
        for key in ("a.b", "[0]", "", "a b", "null"):
            with self.subTest(key):
                (problem,) = self.refused({key: [math.nan]}).errors()
                self.assertEqual(problem["loc"], ("body", "value", key, 0))

    def test_of_a_key_none_are_not_misled_by_the_text_null(self):
        for path, value in (
            ("value[1]", [{"null": 1}, {None: 1}]),
            ("value[2]", [{"null": None}, "null", {"a": 1, None: 2}]),
            ("value.null", {"null": {None: 1}}),
            ("value[0].a", ({"a": Mapped({None: 1})},)),
            ("value[20000]", [{"null": 1}] * 20_000 + [{None: 1}]),
            ("value.x", Point({None: 1})),
        ):
            with self.subTest(path):
                error = self.refused(value)
                self.assertIn(path + ": ", str(error))

    def test_of_what_a_generator_yields_name_its_place(self):
        with self.assertRaises(errors.ValidationError) as caught:
            sent_json(x for x in (1, Stranger()))
        self.assertIn("value[1]", str(caught.exception))

    def test_of_every_field_that_may_hold_anything_name_it(self):
        client = FakeClient()
        sdk = SDK(KEY, client=client)
        for path, call in [
            ("params[1]", lambda: sdk.database.db_query(sql="s", params=[1, math.nan])),
            ("data.a", lambda: sdk.queue.queue_enqueue(type="t", data={"a": Stranger()})),
            ("data.a[0]", lambda: sdk.services.services_invoke(service_name="s", data={"a": [Stranger()]})),
            ("metadata.a", lambda: sdk.authentication.auth_signup(email="e", password="p", metadata={"a": b"\xff"})),
        ]:
            with self.subTest(path), self.assertRaises(errors.ValidationError) as caught:
                call()
            self.assertIn(path, str(caught.exception))
        self.assertEqual(client.built, [])

    def test_of_cycles_end(self):
        for kind in (list, dict, Point, collections.deque):
            for value in (cyclic(kind), [cyclic(kind)], {1: cyclic(kind)}):
                with self.subTest(kind):
                    self.assertIn("holds itself", str(self.refused(value)))

    def test_of_models_that_hold_themselves_end(self):
        for wrap in (lambda model: model, lambda model: [model]):
            model = models.CacheSetRequestBody(key="k", value=1)
            model.value = wrap(model)
            with self.assertRaises(errors.ValidationError):
                SDK(KEY, client=FakeClient()).cache.cache_set(model)

    def test_of_what_only_looks_like_an_iterator_are_no_type_error(self):
        class Next:
            def __next__(self):
                raise StopIteration

        for value in (Next(), Next, type(iter([]))):
            self.refused(value)

    @unittest.skipUnless(hasattr(sys, "get_int_max_str_digits"), "this Python writes numbers of any length")
    def test_of_numbers_that_python_will_not_write_are_ours(self):
        self.refused(10**5000)
        self.refused({10**5000: 1})

    def test_of_lists_that_hold_models_and_other_things_are_taken(self):
        client = FakeClient()
        SDK(KEY, client=client).database.db_query(sql="s", params=[models.Messages(role="user"), 1])
        self.assertEqual(json.loads(client.content)["params"], [{"role": "user"}, 1])

    def test_of_a_pydantic_model_that_cannot_be_dumped_are_ours(self):
        class Dumped:
            def model_dump(self, **options):
                raise ValueError("it holds a generator")

        self.refused(Dumped())

    def test_of_what_is_nested_too_deeply_are_no_recursion_error(self):
        for kind in (list, dict):
            value = nested(100_000, kind)  # Python 3.13 writes 5,000 levels and more
            with self.subTest(kind):
                self.assertLess(len(str(self.refused(value))), 500)
            while value:  # freed level by level, for a debug build would overflow its stack
                value = value.pop() if kind is list else value.pop("a")

    def test_of_an_endless_chain_of_new_objects_end(self):
        class Hydra(collections.UserDict):
            def __iter__(self):
                return iter(["head"])

            def __getitem__(self, name):
                return Hydra()

            def __len__(self):
                return 1

        self.refused(Hydra())


class WhatTheOfficialSdkTakes(unittest.TestCase):
    def test_a_path_is_text(self):
        self.assertEqual(sent_json({"at": [pathlib.PurePosixPath("a/b")]}), b'{"at":["a/b"]}')

    def test_a_pydantic_model_is_dumped_by_its_wire_names_and_without_none(self):
        asked = []

        class Dumped:
            def model_dump(self, **options):
                asked.append(options)
                return {"aB": 1}

        self.assertEqual(sent_json([Dumped()]), b'[{"aB":1}]')
        self.assertEqual(asked[0], {"mode": "json", "by_alias": True, "exclude_none": True})


class WhatMayBeAccepted(unittest.TestCase):
    def test_is_sent_as_text_or_a_list_or_refused_but_never_as_something_else(self):
        for value, allowed in [
            (re.compile("a+"), b'"a+"'),
            (fractions.Fraction(1, 3), b'"1/3"'),
            (array.array("B", [1]), b"[1]"),
        ]:
            try:
                self.assertEqual(sent_json(value), allowed)
            except errors.ValidationError as error:
                self.assertIn("value", str(error))
