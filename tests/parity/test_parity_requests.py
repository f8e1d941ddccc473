"""What a request may be: accepted, coerced, or refused before anything is sent."""

import collections
import datetime as dt
import decimal
import enum
import fractions
import re
import types
import unittest

from tests.parity.beside import OPERATIONS, Case, Own, Parity


class Name(str, enum.Enum):
    A = "a"


class Level(enum.IntEnum):
    TWO = 2


class Indexed:
    def __index__(self):
        return 7


class Stranger:
    key = "k"


def is_read_alike(value):
    """Whether it is not one of the numbers that ours refuses on purpose (OnPurpose has them)."""
    if isinstance(value, bytes):
        return False
    return (
        not isinstance(value, str)
        or bool(re.fullmatch("-?[0-9]+", value))
        or not re.fullmatch(r"\s*[+-]?[0-9_-]*(\.0*)?\s*", value)
    )


def without(request, name):
    return {field: value for field, value in request.items() if field != name}


class TheWholeRequest(Parity):
    def test_something_else_than_a_mapping_or_the_right_model_is_refused(self):
        for operation in OPERATIONS:
            for request in ("text", ["list"], None, 5, (("key", "k"),), b"{}", Stranger()):
                self.same(
                    Case("request %s" % type(request).__name__, operation, Own(lambda package: request), locs=False)
                )

    def test_the_model_of_another_operation_is_refused(self):
        for operation in OPERATIONS:
            if operation not in ("cache.cache_get", "storage.storage_upload"):
                self.same(
                    Case(
                        "foreign model",
                        operation,
                        Own(lambda package: package.models.CacheGetRequestBody(key="k")),
                        locs=False,
                    )
                )

    def test_each_missing_field_is_named(self):
        for operation, (smallest, _, _, _, _) in OPERATIONS.items():
            self.same(Case("nothing", operation, {}))
            for name in smallest:
                self.same(Case("without " + name, operation, without(smallest, name)))

    def test_errors_are_counted(self):
        self.same_value(
            "two missing fields",
            lambda package: self.side(package).run(Case("", "authentication.auth_signin", {})).error.error_count(),
        )

    def test_the_wire_name_wins_when_both_names_are_given(self):
        self.same(
            Case("both names", "services.services_invoke", {"service_name": "own", "serviceName": "wire", "data": {}}),
            Case("own name, bad", "services.services_invoke", {"service_name": 5, "data": {}}),
            Case(
                "both names, the wire's bad",
                "services.services_invoke",
                {"service_name": "own", "serviceName": 1, "data": {}},
            ),
        )


class TextFields(Parity):
    def test_what_passes_for_text(self):
        for value in ("", "a", Name.A, b"abc", "é".encode(), bytearray(b"abc")):
            self.same(
                Case(repr(value), "cache.cache_get", {"key": value}),
                Case(repr(value), "database.db_query", {"sql": value}),
            )

    def test_what_does_not(self):
        for value in (1, True, None, 1.5, decimal.Decimal("1"), [], {}, b"\xff", dt.date(2024, 1, 2), object):
            self.same(
                Case(repr(value), "cache.cache_get", {"key": value}),
                Case(repr(value), "database.db_query", {"sql": value}),
            )
            if value not in (None, []):  # no content, and a list of no parts
                self.same(Case(repr(value), "ai.ai_chat", {"messages": [{"content": "ok"}, {"content": value}]}))


class NumberFields(Parity):
    def test_what_passes_for_a_whole_number(self):
        for value in (
            0,
            -1,
            10**30,
            True,
            False,
            5.0,
            -0.0,
            2.0**62,
            Level.TWO,
            Indexed(),
            "5",
            "-5",
            "05",
            "9" * 400,
            "-0",
        ):
            self.same(Case(repr(value)[:30], "cache.cache_set", {"key": "k", "value": 1, "ttl": value}))
        self.same(Case("text", "queue.queue_enqueue", {"type": "t", "data": {}, "delay": "12"}))

    def test_what_does_not(self):
        for value in (
            "5.5",
            "1e3",
            "0x10",
            "",
            "5.",
            ".0",
            "_5",
            "1__0",
            "5_",
            "\u0665",
            "five",
            5.5,
            float("nan"),
            float("inf"),
            1e20,
            [],
            {},
            dt.timedelta(1),
            1j,
            b"\xff",
            bytearray(b"5"),
            decimal.Decimal("5.5"),
            decimal.Decimal("NaN"),
            fractions.Fraction(1, 3),
            "--5",
            "+ 5",
            Name.A,
        ):
            self.same(Case(repr(value), "cache.cache_set", {"key": "k", "value": 1, "ttl": value}))
        self.same(Case("text", "queue.queue_enqueue", {"type": "t", "data": {}, "delay": "soon"}))


class ListsAndDicts(Parity):
    def test_what_passes_for_a_list(self):
        for name, params in (
            ("list", lambda: [1]),
            ("tuple", lambda: (1, 2)),
            ("set", lambda: {1}),
            ("frozenset", lambda: frozenset([1])),
            ("deque", lambda: collections.deque([1])),
            ("range", lambda: range(3)),
            ("generator", lambda: (n for n in "ab")),
            ("keys", {"a": 1}.keys),
            ("values", {"a": 1}.values),
            ("items", {"a": 1}.items),
            ("empty", list),
        ):
            self.same(Case(name, "database.db_query", Own(lambda package: {"sql": "s", "params": params()})))

    def test_what_does_not_pass_for_a_list(self):
        for params in ("ab", b"ab", {"a": 1}, 5, 1.5, True, object):
            self.same(Case(repr(params), "database.db_query", {"sql": "s", "params": params}))
        for messages in ("ab", {}, 5, None):
            self.same(Case(repr(messages), "ai.ai_chat", {"messages": messages}))

    def test_what_passes_for_a_dict(self):
        for data in (
            {},
            {"a": 1},
            types.MappingProxyType({"a": 1}),
            collections.UserDict(a=1),
            collections.OrderedDict(a=1),
            collections.ChainMap({"a": 1}),
            collections.Counter("a"),
            {Name.A: 1},
            {b"k": 1},
        ):
            self.same(
                Case(repr(data), "services.services_invoke", Own(lambda package: {"serviceName": "s", "data": data}))
            )

    def test_what_does_not_pass_for_a_dict(self):
        for data in ([], [("a", 1)], "{}", b"{}", 5, None, {1: 1}, {None: 1}, {"a": 1, 2: 2}, {3.0: 3}, object):
            self.same(
                Case(repr(data), "services.services_invoke", Own(lambda package: {"serviceName": "s", "data": data})),
                Case(repr(data), "queue.queue_enqueue", Own(lambda package: {"type": "s", "data": data})),
            )
            if data is not None:
                self.same(
                    Case(
                        repr(data),
                        "authentication.auth_signup",
                        Own(lambda package: {"email": "e", "password": "p", "metadata": data}),
                    )
                )


class Messages(Parity):
    def test_what_is_no_message(self):
        for message in (None, "hi", 5, [], [("role", "user")]):
            self.same(Case(repr(message), "ai.ai_chat", {"messages": [{}, message]}, locs=message is not None))

    def test_roles_and_members(self):
        for role in ("system", "user", "assistant"):
            self.same(
                Case(role, "ai.ai_chat", {"messages": [{"role": role}]}),
                Case(
                    "member " + role,
                    "ai.ai_chat",
                    Own(lambda package: {"messages": [{"role": package.models.Role(role)}]}),
                ),
            )
        for role in (1, [], True):
            self.same(Case(repr(role), "ai.ai_chat", {"messages": [{"role": role}]}))

    def test_other_iterables_of_messages(self):
        self.same(
            Case("tuple", "ai.ai_chat", {"messages": ({"role": "user"},)}),
            Case("generator", "ai.ai_chat", Own(lambda package: {"messages": ({"content": text} for text in "ab")})),
            Case("mapping", "ai.ai_chat", {"messages": [types.MappingProxyType({"role": "user"})]}),
        )

    def test_whatever_hypothesis_thinks_of(self):
        from hypothesis import strategies as st

        anything = st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(max_size=3),
            st.binary(max_size=3),
            st.floats(allow_nan=False, allow_infinity=False),
            st.lists(st.integers(), max_size=2),
            st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
        )

        def request(required, **optional):
            return st.fixed_dictionaries(required).flatmap(
                lambda fields: (
                    st.dictionaries(st.sampled_from(sorted(optional)), anything, max_size=len(optional)).map(
                        lambda more: dict(fields, **more)
                    )
                    if optional
                    else st.just(fields)
                )
            )

        self.same_for_any(
            "any sign-up",
            request({"email": anything}, password=anything, name=anything, metadata=anything),
            lambda drawn: Case("", "authentication.auth_signup", drawn),
            examples=80,
        )
        self.same_for_any(
            "any job",
            request({"type": anything}, data=anything, delay=anything.filter(is_read_alike)),
            lambda drawn: Case("", "queue.queue_enqueue", drawn),
            examples=80,
        )
        self.same_for_any(
            "any number text",
            st.text("0123456789+-_. e\t", max_size=6).filter(is_read_alike),
            lambda drawn: Case("", "cache.cache_set", {"key": "k", "value": 0, "ttl": drawn}),
            examples=100,
        )


class OnPurpose(Parity):
    def test_any_text_passes_for_a_role(self):
        for role in ("USER", "tool", ""):
            self.differs(
                "`role`",
                repr(role),
                Case("", "ai.ai_chat", {"messages": [{"role": role}]}),
                lambda exchange: exchange.refused("role"),
                lambda exchange: exchange.sent == {"messages": [{"role": role}]},
            )

    def test_a_number_is_no_text(self):
        self.differs(
            "an IntEnum for a text",
            "as a key",
            Case("", "cache.cache_get", {"key": Level.TWO}),
            lambda exchange: exchange.sent == {"key": "2"},
            lambda exchange: exchange.refused("key"),
        )

    def test_a_text_that_only_python_or_pydantic_reads_is_no_number(self):
        for text, read in (
            ("1_000", 1000),
            (" 5 ", 5),
            ("+5", 5),
            ("5.0", 5),
            ("1_0.00", 10),
            ("0-5", -5),
            ("000-1", -1),
            ("0__5", 5),
        ):
            self.differs(
                '`"1_000"`, `" 5 "`, `"+5"`, `"5.0"` and the like for a whole number',
                "%r in a request" % text,
                Case("", "cache.cache_set", {"key": "k", "value": 1, "ttl": text}),
                lambda exchange: exchange.sent["ttl"] == read,
                lambda exchange: exchange.refused("ttl"),
            )

    def test_what_no_json_api_calls_a_number_is_none(self):
        for value in (decimal.Decimal("5"), decimal.Decimal("5.0"), fractions.Fraction(10, 2), b"5"):
            self.differs(
                "a Decimal, a Fraction or bytes for a whole number",
                repr(value),
                Case("", "cache.cache_set", {"key": "k", "value": 1, "ttl": value}),
                lambda exchange: exchange.sent["ttl"] == 5,
                lambda exchange: exchange.refused("ttl"),
            )

    def test_the_upload_refuses_a_foreign_model(self):
        self.differs(
            "`storage_upload` with another operation's model",
            "of cache_get",
            Case("", "storage.storage_upload", Own(lambda package: package.models.CacheGetRequestBody(key="k"))),
            lambda exchange: exchange.error is None and exchange.requests[0].body == b"",
            lambda exchange: exchange.refused(),
        )

    def test_a_changed_model_is_checked_again(self):
        def changed(**fields):
            def build(package):
                request = package.models.CacheSetRequestBody(key="k", value=1)
                for name, value in fields.items():
                    setattr(request, name, value)
                return request

            return Case("", "cache.cache_set", Own(build))

        self.differs(
            "a model changed after it was made",
            "a bad ttl",
            changed(ttl="abc"),
            lambda exchange: exchange.sent["ttl"] == "abc",
            lambda exchange: exchange.refused("ttl"),
        )
        self.differs(
            "a model changed after it was made",
            "no key",
            changed(key=None),
            lambda exchange: exchange.error is None,
            lambda exchange: exchange.refused("key"),
        )

    def test_a_refusal_does_not_quote_secrets(self):
        signin = Case("", "authentication.auth_signin", {"email": "a@b.c", "password": ["hunter2"]})
        self.differs(
            "error texts",
            "a refused password",
            signin,
            lambda exchange: exchange.refused("hunter2"),
            lambda exchange: exchange.refused("password") and "hunter2" not in str(exchange.error),
        )
        self.differs(
            "`ValidationError.errors()`",
            "a refused password",
            signin,
            lambda exchange: exchange.error.errors()[0]["input"] == ["hunter2"],
            lambda exchange: "hunter2" not in repr(exchange.error.errors()),
        )


if __name__ == "__main__":
    unittest.main()
