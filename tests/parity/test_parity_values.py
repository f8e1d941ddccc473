"""JSON encoding: what a caller puts into an Any field arrives as the same JSON."""

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import math
import re
import types
import unittest
import uuid

from tests.parity.beside import Case, Own, Parity
from tests.sample_types import Colour, Level, Mapped, Name, Pair, Point, Text, Whole

UTC = dt.timezone.utc
INDIA = dt.timezone(dt.timedelta(hours=5, minutes=30))

# Built afresh for every run: a generator can be read once.
VALUES = {
    "None": lambda: None,
    "true": lambda: True,
    "false": lambda: False,
    "empty text": lambda: "",
    "text": lambda: "é🚀",
    "zero": lambda: 0,
    "minus": lambda: -1,
    "2**53+1": lambda: 2**53 + 1,
    "2**64": lambda: 2**64,
    "200 digits": lambda: 10**200,
    "1.0": lambda: 1.0,
    "-0.0": lambda: -0.0,
    "1e16": lambda: 1e16,
    "1e-7": lambda: 1e-7,
    "0.1": lambda: 0.1,
    "largest float": lambda: 1.7976931348623157e308,
    "smallest float": lambda: 5e-324,
    "list": lambda: [1, [2, [None]]],
    "dict": lambda: {"a": {"b": {"c": None}}},
    "empty list": list,
    "empty dict": dict,
    "tuple": lambda: (1, (2,)),
    "namedtuple": lambda: Pair(1, None),
    "set": lambda: {7},
    "frozenset": lambda: frozenset(["a"]),
    "deque": lambda: collections.deque([1, 2]),
    "generator": lambda: (n for n in range(3)),
    "map": lambda: map(str, [1, 2]),
    "nested generator": lambda: {"g": (n for n in "ab")},
    "naive datetime": lambda: dt.datetime(2024, 1, 2, 3, 4, 5),
    "datetime with microseconds": lambda: dt.datetime(2024, 1, 2, 3, 4, 5, 60),
    "utc datetime": lambda: dt.datetime(2024, 1, 2, 3, 4, 5, 678900, UTC),
    "datetime with offset": lambda: dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=INDIA),
    "datetime with negative offset": lambda: dt.datetime(2024, 1, 2, tzinfo=dt.timezone(-dt.timedelta(hours=8))),
    "first year": lambda: dt.datetime(1, 1, 1),
    "last moment": lambda: dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    "date": lambda: dt.date(2024, 1, 2),
    "time": lambda: dt.time(3, 4, 5),
    "time with microseconds": lambda: dt.time(3, 4, 5, 6),
    "utc time": lambda: dt.time(3, 4, 5, tzinfo=UTC),
    "one day": lambda: dt.timedelta(days=1),
    "minute and a half": lambda: dt.timedelta(seconds=90),
    "no time": lambda: dt.timedelta(0),
    "minus a minute and a half": lambda: dt.timedelta(seconds=-90),
    "half a millisecond": lambda: dt.timedelta(seconds=1.0005),
    "days and time": lambda: dt.timedelta(2, 3 * 3600 + 4 * 60 + 5),
    "a microsecond": lambda: dt.timedelta(microseconds=1),
    "minus a microsecond": lambda: dt.timedelta(microseconds=-1),
    "364 days": lambda: dt.timedelta(364),
    "Decimal": lambda: decimal.Decimal("1.10"),
    "big Decimal": lambda: decimal.Decimal("1E+5"),
    "UUID": lambda: uuid.UUID("12345678123456781234567812345678"),
    "IPv4": lambda: ipaddress.ip_address("127.0.0.1"),
    "IPv6": lambda: ipaddress.ip_address("::1"),
    "network": lambda: ipaddress.ip_network("10.0.0.0/8"),
    "interface": lambda: ipaddress.ip_interface("10.1.2.3/8"),
    "bytes": lambda: b"abc",
    "UTF-8 bytes": "é".encode,
    "bytearray": lambda: bytearray(b"abc"),
    "no bytes": lambda: b"",
    "Enum": lambda: Colour.RED,
    "Enum of a tuple": lambda: Colour.NESTED,
    "IntEnum": lambda: Level.HIGH,
    "str Enum": lambda: Name.ADA,
    "dataclass": lambda: Point(1),
    "nested dataclass": lambda: Point(1, [Point(2, dt.date(2024, 1, 2))]),
    "str subclass": lambda: Text("t"),
    "int subclass": lambda: Whole(5),
    "dict subclass": lambda: Mapped(a=1),
    "OrderedDict": lambda: collections.OrderedDict([("b", 1), ("a", 2)]),
    "Counter": lambda: collections.Counter("aab"),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "lone surrogate": lambda: "\ud800",
    "150 deep": lambda: nested(150),
    "all together": lambda: {"a": [dt.date(2024, 1, 2), {"b": (decimal.Decimal("0"), b"x", {Level.HIGH})}]},
}

KEYS = {
    "int": 1,
    "negative int": -1,
    "float": 1.5,
    "whole float": 1.0,
    "True": True,
    "False": False,
    "Enum": Colour.RED,
    "str Enum": Name.ADA,
    "IntEnum": Level.HIGH,
    "date": dt.date(2024, 1, 2),
    "naive datetime": dt.datetime(2024, 1, 2, 3, 4, 5),
    "utc datetime": dt.datetime(2024, 1, 2, tzinfo=UTC),
    "time": dt.time(1, 2, 3),
    "UUID": uuid.UUID("12345678123456781234567812345678"),
    "Decimal": decimal.Decimal("1.10"),
    "bytes": b"k",
    "timedelta": dt.timedelta(seconds=90),
    "str subclass": Text("t"),
    "empty": "",
}

REFUSED = {
    "object": object,
    "class": lambda: int,
    "function": lambda: nested,
    "lambda": lambda: lambda: None,
    "exception": lambda: ValueError("x"),
    "...": lambda: ...,
    "module": lambda: math,
    "bytes that are no UTF-8": lambda: b"\xff",
    "a dict that holds itself": lambda: cyclic({}),
    "a list that holds itself": lambda: cyclic([]),
    "object in a list": lambda: [1, {"a": [object()]}],
    "100,000 deep": lambda: nested(100000),
    "object as a key": lambda: {object(): 1},
}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic(value):
    if isinstance(value, dict):
        value["self"] = value
    else:
        value.append(value)
    return value


def cache(name, value):
    """A case that caches what `value()` makes."""
    return Case(name, "cache.cache_set", Own(lambda package: {"key": "k", "value": value()}))


class EncodingTheSame(Parity):
    def test_every_kind_of_value(self):
        for name, value in VALUES.items():
            self.same(cache(name, value))

    def test_every_kind_of_key(self):
        for name, key in KEYS.items():
            self.same(cache("key: " + name, lambda: {key: 1, "other": {key: None}}))

    def test_of_two_keys_of_one_name_a_reader_takes_the_later(self):
        case = cache("", lambda: {1: "first", "1": "later"})
        self.same_value("two keys of one name", lambda package: self.side(package).run(case).sent["value"])

    def test_in_every_field_that_takes_anything(self):
        value = {"when": dt.date(2024, 1, 2), "none": None, 1: (decimal.Decimal("1.5"), b"x")}
        self.same(
            Case("params", "database.db_query", {"sql": "s", "params": (value, None, (1, 2))}),
            Case("data of a job", "queue.queue_enqueue", {"type": "t", "data": {"d": value}}),
            Case("data of a service", "services.services_invoke", {"serviceName": "t", "data": {"d": value}}),
            Case("metadata", "authentication.auth_signup", {"email": "e", "password": "p", "metadata": {"m": value}}),
        )

    def test_models_inside_a_value(self):
        self.same(
            Case(
                "a request",
                "cache.cache_set",
                Own(
                    lambda package: {
                        "key": "k",
                        "value": [package.models.ServicesInvokeRequestBody(service_name="s", data={"a": None})],
                    }
                ),
            ),
            Case(
                "a response",
                "cache.cache_set",
                Own(
                    lambda package: {
                        "key": "k",
                        "value": package.models.AuthResponse(
                            token="t",
                            expires_at=dt.datetime(2024, 1, 2, tzinfo=UTC),
                            user=package.models.User(id="u", name=None),
                        ),
                    }
                ),
            ),
            Case("a role", "cache.cache_set", Own(lambda package: {"key": "k", "value": package.models.Role.USER})),
            Case(
                "a response with nothing set",
                "cache.cache_set",
                Own(lambda package: {"key": "k", "value": package.models.CacheGetResponseBody()}),
            ),
        )

    def test_what_cannot_be_sent_is_a_value_error_and_is_not_sent(self):
        for name, value in REFUSED.items():
            self.same(cache(name, value))

    def test_whatever_hypothesis_thinks_of(self):
        from hypothesis import strategies as st

        offsets = st.sampled_from([None, UTC, INDIA, dt.timezone(-dt.timedelta(hours=3, minutes=30))])
        scalars = st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(),
            st.datetimes(timezones=offsets),
            st.dates(),
            st.times(timezones=st.sampled_from([None, UTC])),
            st.timedeltas(min_value=dt.timedelta(-364), max_value=dt.timedelta(364)),
            st.uuids(),
            st.decimals(allow_nan=False, allow_infinity=False),
            st.ip_addresses(),
            st.text().map(lambda text: text.encode()),
            st.sampled_from([Colour.RED, Level.HIGH, Name.ADA, Point(1, "y"), Text("t"), Whole(3)]),
        )
        keys = st.one_of(st.text(), st.integers(), st.booleans(), st.dates(), st.uuids())
        values = st.recursive(
            scalars,
            lambda inner: st.one_of(
                st.lists(inner, max_size=4),
                st.lists(inner, max_size=4).map(tuple),
                st.dictionaries(keys, inner, max_size=4),
                st.builds(Point, st.integers(), inner),
            ),
            max_leaves=12,
        )
        self.same_for_any("any value", values, lambda value: cache("", lambda: value))


class OnPurpose(Parity):
    def test_nan_and_infinity_are_refused(self):
        for number in (math.nan, math.inf, -math.inf):
            self.differs(
                "NaN and infinity",
                repr(number),
                cache("", lambda: number),
                lambda exchange: exchange.sent["value"] is None,
                lambda exchange: exchange.refused("value"),
            )
            self.differs(
                "NaN and infinity",
                "%r inside" % number,
                cache("", lambda: {"a": [0, 1, 2, {"x": number}]}),
                lambda exchange: exchange.sent["value"]["a"][3] == {"x": None},
                lambda exchange: exchange.refused("value.a[3].x"),
            )

    def test_a_key_that_has_no_text_of_its_own_is_refused(self):
        for key, text in ((None, "None"), ((1, 2), "1,2")):
            self.differs(
                "a dict key that is None or a tuple",
                repr(key),
                cache("", lambda: {key: 1}),
                lambda exchange: exchange.sent["value"] == {text: 1},
                lambda exchange: exchange.refused("value"),
            )

    def test_the_sentinel_text_is_a_text(self):
        sentinel = "~?~unset~?~sentinel~?~"
        self.differs(
            "the string `~?~unset~?~sentinel~?~`",
            "as a value",
            cache("", lambda: sentinel),
            lambda exchange: "value" not in exchange.sent,
            lambda exchange: exchange.sent["value"] == sentinel,
        )

    def test_unset_is_not_sent(self):
        self.differs(
            "`UNSET` in a request",
            "inside a value",
            Case("", "cache.cache_set", Own(lambda package: {"key": "k", "value": {"a": package.UNSET}})),
            lambda exchange: exchange.sent["value"] == {"a": "~?~unset~?~sentinel~?~"},
            lambda exchange: exchange.refused("value"),
        )
        self.differs(
            "`UNSET` in a request",
            "for a required field",
            Case("", "cache.cache_set", Own(lambda package: {"key": "k", "value": package.UNSET})),
            lambda exchange: "value" not in exchange.sent,
            lambda exchange: exchange.refused("value"),
        )

    def test_other_sequences_and_mappings_are_sent(self):
        for name, value, sent in (
            ("range", range(2), [0, 1]),
            ("keys", {"a": 1}.keys(), ["a"]),
            ("mappingproxy", types.MappingProxyType({"a": 1}), {"a": 1}),
            ("UserDict", collections.UserDict(a=1), {"a": 1}),
            ("ChainMap", collections.ChainMap({"a": 1}), {"a": 1}),
        ):
            self.differs(
                "`range`, dict views, any other mapping",
                name,
                cache("", lambda: value),
                lambda exchange: exchange.refused(),
                lambda exchange: exchange.sent["value"] == sent,
            )

    def test_what_has_no_json_of_its_own_is_refused(self):
        import pydantic

        for value in (
            fractions.Fraction(1, 3),
            complex(1, 2),
            re.compile("a+"),
            pydantic.AnyUrl("http://x/"),
            pydantic.SecretStr("hunter2"),
        ):
            self.differs(
                "`Fraction`, `complex`, `re.Pattern`, pydantic's URLs and secrets",
                type(value).__name__,
                cache("", lambda: value),
                lambda exchange: isinstance(exchange.sent["value"], str),
                lambda exchange: exchange.refused("value"),
            )


if __name__ == "__main__":
    unittest.main()
