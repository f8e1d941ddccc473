"""What comes back: the same body becomes the same model, or the same error."""

import gzip
import re
import unittest

from tests.parity.beside import OPERATIONS, Case, Parity
from tests.parity.recorder import Answer

SIGNIN = {"email": "e", "password": "hunter2"}

# What pydantic reads as a boolean, and JSON APIs do not send.
BOOLEAN_WORDS = ("yes", "Y", "on", "t", "1", "True", "TRUE", "no", "N", "off", "F", "0", "False")


def is_no_word(value):
    """Whether both read or refuse it where a boolean is asked for."""
    read_by_pydantic_alone = isinstance(value, str) and value.lower() in map(str.lower, BOOLEAN_WORDS)
    return value in ("true", "false") or not read_by_pydantic_alone


def lookup(name, body, **answer):
    return Case(name, "cache.cache_get", {"key": "k"}, Answer(200, body, **answer))


def chat(name, body, **answer):
    return Case(name, "ai.ai_chat", {"messages": []}, Answer(200, body, **answer))


def signin(name, body, **answer):
    return Case(name, "authentication.auth_signin", SIGNIN, Answer(200, body, **answer))


def query(name, body, **answer):
    return Case(name, "database.db_query", {"sql": "s"}, Answer(200, body, **answer))


class EveryOperation(Parity):
    def test_good_and_odd_bodies(self):
        for operation, (smallest, _, _, (status, body), _) in OPERATIONS.items():
            for name, answer in (
                ("documented", body),
                ("empty", {}),
                ("nulls", dict.fromkeys(body)),
                ("a list", []),
                ("a text", "x"),
                ("null", b"null"),
                ("a number", 5),
            ):
                self.same(Case(name, operation, smallest, Answer(status, answer)))

    def test_each_field_of_a_wrong_type(self):
        for operation, (smallest, _, _, (status, body), _) in OPERATIONS.items():
            for field in body:
                for wrong in ([1], {"a": 1}, "text", 5, 1.5, True):
                    self.same(Case("%s = %r" % (field, wrong), operation, smallest, Answer(status, {field: wrong})))


class Fields(Parity):
    def test_missing_is_not_null(self):
        self.same(
            lookup("value missing", {"exists": True}),
            lookup("value null", {"value": None}),
            signin("name missing", {"user": {}}),
            signin("name null", {"user": {"name": None}}),
            signin("user null", {"user": None}),
        )

    def test_our_own_spelling_is_understood_and_the_wire_name_wins(self):
        self.same(
            signin("own", {"expires_at": "2030-01-01T00:00:00Z"}),
            signin("both", {"expires_at": "2030-01-01T00:00:00Z", "expiresAt": "2031-01-01T00:00:00Z"}),
            signin("both, wire null", {"expires_at": "2030-01-01T00:00:00Z", "expiresAt": None}),
            signin("user", {"user": {"created_at": "2030-01-01T00:00:00Z"}}),
            signin("own, bad", {"expires_at": "soon"}),
            Case("job", "queue.queue_enqueue", {"type": "t", "data": {}}, Answer(201, {"job_id": "own"})),
        )

    def test_bool(self):
        for value in (
            True,
            False,
            0,
            1,
            0.0,
            1.0,
            -0.0,
            "true",
            "false",
            " true ",
            "2",
            "",
            "maybe",
            2,
            -1,
            0.5,
            [],
            {},
            "tru",
        ):
            self.same(lookup("exists = %r" % (value,), {"exists": value}))

    def test_int(self):
        for text in (
            "0",
            "-1",
            "9007199254740993",
            "18446744073709551616",
            "1" * 60,
            "1.0",
            "-0.0",
            "1e3",
            "1E2",
            "true",
            "false",
            '"1"',
            '"-1"',
            '"01"',
            "9007199254740993.0",
            "1.5",
            "1e20",
            '"1.5"',
            '"1e3"',
            '""',
            '"0x1"',
            '"one"',
            "[]",
            "{}",
            '"1."',
            '".5"',
            '"' + "9" * 400 + '"',
        ):
            self.same(query("count = %s" % text[:30], '{"count":%s}' % text))

    def test_text(self):
        for value in ("", "é🚀", "\x00", "a" * 5000, 1, True, None, [], {}, 1.5):
            self.same(chat("response = %.20r" % (value,), {"response": value}))

    def test_any(self):
        for text in (
            "null",
            "0",
            "-0",
            "-0.0",
            "1E5",
            "1.0",
            "1" * 4300,
            "123456789012345678901234567890",
            '"text"',
            "[]",
            "{}",
            '{"a":1,"a":2}',
            "[1,[2,[3]]]",
            '"\\u00e9\\ud83d\\ude80"',
            '"\\u0000"',
            "[" * 150 + "]" * 150,
            "5e-324",
            "0.1",
            "1e-400",
        ):
            self.same(lookup("value = %s" % text[:30], '{"value":%s}' % text))

    def test_rows_and_dicts(self):
        for results in (
            [],
            [{}],
            [{"a": None}],
            [{"a": [1, {"b": 2.5}]}],
            None,
            [None],
            [1],
            [{}, []],
            {},
            "x",
            [{"a": 1}, "x", 2],
        ):
            self.same(query("results = %r" % (results,), {"results": results}))
        for metadata in ({}, {"a": {"b": [None]}}, None, [], "x", 1):
            self.same(signin("metadata = %r" % (metadata,), {"user": {"metadata": metadata}}))
        for user in ({}, [], "x", 1, {"id": 1, "email": 2}, {"unknown": 1}):
            self.same(signin("user = %r" % (user,), {"user": user}))


DATETIMES = (
    """
2024-01-02T03:04:05Z 2024-01-02t03:04:05z 2024-01-02_03:04:05Z 2024-01-02T03:04:05 2024-01-02T03:04 2024-01-02T03:04Z
2024-01-02T03:04:05.6 2024-01-02T03:04:05.678901Z 2024-01-02T03:04:05.6789012345Z 2024-01-02T03:04:05,678Z
2024-01-02T03:04:05.999999999Z 2024-01-02T03:04:05+05:30 2024-01-02T03:04:05+0530 2024-01-02T03:04:05-00:00
2024-01-02T03:04:05\u221205:00 2024-01-02T03:04:05+23:59 2024-01-02T03:04:05-23:59 2024-01-02 2024-02-29 2023-02-29
2024-13-01 2024-01-32 2024-00-10 0001-01-01 9999-12-31T23:59:59Z 0000-01-01 10000-01-01 2024-01-02T24:00:00
2024-01-02T23:59:60Z 2024-01-02T03:60:00 2024-01-02T03:04:05+24:00 2024-01-02T03:04:05+05 2024-W01-2 2024-002 2024-1-2
2024-01-02T3:4:5 2024-01-02T03:04:05. 2024-01-02T03 2024-01-02T 20240102 20240102T030405Z 1704164645 1704164645123
+1704164645 -1 1.5 1e9 0 -0 1704164645.123456 1704164645.1234567 20000000000 20000000001 -20000000000 -20000000001
2e10 253402300799 253402300799999 253402300800000 99999999999999999999 -62135596800 -62135596801 NaN inf .5 5. 1_0
0x10 now today 2024-01-02T03:04:05ZZ 2024-01-02T03:04:05+05:3 2024-01-02T03:04:05+05:30:00 24-01-02 2024/01/02
-2024-01-02 2024-01-02T03:04:05.Z
""".split()
    + [
        "",
        "2024-01-02 03:04:05",
        "2024-01-02 03:04:05 +05:30",
        " 2024-01-02",
        "2024-01-02 ",
        "2024-01-02T03:04:05 Z",
        "Tue, 02 Jan 2024 03:04:05 GMT",
        "2024-01-02T03:04:05Z\n",
    ]
)

NUMBERS = """
0 -0 1 -1 1.5 1704164645 1704164645123 1704164645.123456 1704164645.1234567 20000000000 20000000001 -20000000000
-20000000001 253402300799 253402300799999 253402300800000 1e9 99999999999999999999 -62135596800
-62135596801 -62135596800000 0.0000004 0.0000006 5000000000000.0625 -5000000000000.0625 -0.5 1e-9 true false [] {}
""".split()


class Datetimes(Parity):
    def test_as_text(self):
        for text in DATETIMES:
            self.same(signin(repr(text), {"expiresAt": text}))

    def test_as_numbers(self):
        for text in NUMBERS:
            self.same(signin(text, '{"expiresAt":%s}' % text))

    def test_inside_the_user(self):
        self.same(
            signin("good", {"user": {"createdAt": "2024-01-02T03:04:05Z"}}),
            signin("bad", {"user": {"createdAt": "soon"}}),
        )

    def test_whatever_hypothesis_thinks_of(self):
        from hypothesis import strategies as st

        moments = st.datetimes(timezones=st.sampled_from([None, *self.zones()])).map(lambda moment: moment.isoformat())
        mangled = st.tuples(moments, st.integers(0, 30), st.text("0123456789+-:.,TZtz _", max_size=2)).map(
            lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + 1 :]
        )
        digits = st.from_regex(r"\A[+-]?[0-9]{1,13}(\.[0-9]{0,8})?\Z")
        self.same_for_any("any moment", moments, lambda drawn: signin("", {"expiresAt": drawn}), examples=60)
        self.same_for_any("a mangled moment", mangled, lambda drawn: signin("", {"expiresAt": drawn}), examples=100)
        self.same_for_any("a number as text", digits, lambda drawn: signin("", {"expiresAt": drawn}), examples=100)
        self.same_for_any(
            "a number",
            st.one_of(st.integers(-(10**12), 10**15), st.floats(-(10**11), 10**11)),
            lambda drawn: signin("", {"expiresAt": drawn}),
            examples=100,
        )

    @staticmethod
    def zones():
        import datetime as dt

        return [
            dt.timezone.utc,
            dt.timezone(dt.timedelta(hours=5, minutes=30)),
            dt.timezone(-dt.timedelta(hours=23, minutes=59)),
        ]


class Bodies(Parity):
    def test_what_is_no_json(self):
        for body in (
            b"{",
            b"}",
            b"{}x",
            b"{},",
            b"[1,]",
            b'{"a":1,}',
            b"{'a':1}",
            b"{a:1}",
            b"// x\n{}",
            b"/**/{}",
            b'{"response":"\n"}',
            b'{"response":"\t"}',
            b'{"response":01}',
            b'{"response":+1}',
            b'{"response":.5}',
            b'{"response":1.}',
            b'{"response":0x1}',
            b"nul",
            b"True",
            b'{"response":"\\x41"}',
            b'{"response":"abc',
            b"<html>",
            b"\x00",
            b"undefined",
            b"{}{}",
            b'"\\ud83d',
            b'{"response":"\\u12"}',
        ):
            self.same(chat(ascii(body.decode()), body))

    def test_white_space_around_and_inside(self):
        for body in (b" \r\n\t{} \n", b'{ "response" : "x" }', b'\n{\n"response"\n:\n"x"\n}\n'):
            self.same(chat(ascii(body.decode()), body))

    def test_the_charset_of_the_header(self):
        text = '{"response":"é€"}'
        for charset, codec in (
            ("utf-8", "utf-8"),
            ("UTF-8", "utf-8"),
            ('"utf-8"', "utf-8"),
            ("utf-16", "utf-16"),
            ("windows-1252", "cp1252"),
            ("iso-8859-15", "iso-8859-15"),
            ("nonsense", "utf-8"),
            ("", "utf-8"),
        ):
            self.same(
                chat("charset=" + charset, text.encode(codec), content_type="application/json; charset=" + charset)
            )

    def test_the_media_type_is_read_as_a_media_type(self):
        for kind in (
            "application/json",
            "APPLICATION/JSON",
            "application/json;",
            "application/json; charset=utf-8",
            "application/json ;x=y",
            'application/json; profile="a b"',
        ):
            self.same(chat(kind, {"response": "x"}, content_type=kind))

    def test_depth(self):
        self.same(
            lookup("501 deep", b'{"value":' + b"[" * 500 + b"]" * 500 + b"}"),
            query("150 deep", b'{"results":[{"a":' + b"[" * 150 + b"]" * 150 + b"}]}"),
            query("100,000 deep", b'{"results":[{"a":' + b"[" * 100000 + b"]" * 100000 + b"}]}"),
        )

    def test_numbers_too_long_to_read(self):
        self.same(lookup("5,000 digits", b'{"value":' + b"1" * 5000 + b"}"))

    def test_whatever_hypothesis_thinks_of(self):
        from hypothesis import strategies as st

        scalars = st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=6),
            st.sampled_from(["true", "1", "2024-01-02T03:04:05Z"]),
        )
        anything = st.recursive(
            scalars,
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=8,
        )

        user = st.one_of(
            anything,
            st.fixed_dictionaries(
                {},
                optional=dict(
                    dict.fromkeys(("id", "email", "metadata", "createdAt"), anything),
                    name=anything.filter(lambda value: not isinstance(value, dict)),
                ),
            ),
        )
        self.same_for_any(
            "any sign-in",
            st.fixed_dictionaries({}, optional={"token": anything, "expiresAt": anything, "user": user}),
            lambda drawn: signin("", drawn),
            examples=80,
        )
        rows = st.lists(st.one_of(anything, st.dictionaries(st.text(max_size=3), anything, max_size=3)), max_size=3)
        self.same_for_any(
            "any rows",
            st.fixed_dictionaries({}, optional={"count": anything, "results": st.one_of(rows, anything)}),
            lambda drawn: query("", drawn),
            examples=100,
        )
        self.same_for_any(
            "any cache entry",
            st.fixed_dictionaries({}, optional={"exists": anything.filter(is_no_word), "value": anything}),
            lambda drawn: lookup("", drawn),
            examples=80,
        )
        self.same_for_any(
            "any text",
            st.text('{}[]:,"\\0129.eE+-truefalsnabcdu \t\n', max_size=12).filter(
                lambda text: text.strip() and not re.search(r"[eE]\+?\d{3}", text)
            ),
            lambda drawn: lookup("", drawn),
            examples=80,
        )

    def test_a_number_beyond_all_floats_is_no_whole_number_and_no_moment(self):
        for number in ("1e400", "-1e400"):
            for operation, request, body in (
                ("database.db_query", {"sql": "s"}, '{"count":%s}'),
                ("authentication.auth_signin", SIGNIN, '{"expiresAt":%s}'),
            ):
                self.same(Case(body % number, operation, request, Answer(200, body % number), locs=False))

    def test_an_empty_body_is_no_success(self):
        for status, body, kind in (
            (200, b"", None),
            (200, b"", "text/plain"),
            (200, b"", "application/json"),
            (200, b" ", "application/json"),
            (202, b"", None),
            (202, b"", "text/plain"),
            (206, b"", "text/html"),
        ):
            self.same(
                Case(
                    "%d %r as %s" % (status, body, kind),
                    "queue.queue_enqueue" if status == 202 else "cache.cache_set",
                    {"type": "t", "data": {}} if status == 202 else {"key": "k", "value": 1},
                    Answer(status, body, kind),
                )
            )

    def test_a_short_secret_leaves_the_words_alone(self):
        self.same(
            Case(
                "password p", "authentication.auth_signin", {"email": "e", "password": "p"}, Answer(200, {"token": 5})
            ),
            Case(
                "password e",
                "authentication.auth_signin",
                {"email": "e", "password": "e"},
                Answer(500, "sorry", "text/plain"),
            ),
        )


class OnPurpose(Parity):
    def test_fields_that_we_do_not_know_are_kept(self):
        self.differs(
            "unknown fields",
            "of a response",
            lookup("", {"exists": True, "ttl": 5}),
            lambda exchange: not exchange.value.model_extra and not hasattr(exchange.value, "ttl"),
            lambda exchange: (
                exchange.value.model_extra == {"ttl": 5}
                and "ttl" not in repr(exchange.value)
                and exchange.value == exchange.side.package.models.CacheGetResponseBody(exists=True)
            ),
        )

    def test_json_is_read_as_pythons_json_reads_it(self):
        for name, case, read in (
            ("a byte order mark", lookup("", b'\xef\xbb\xbf{"value":"x"}'), "x"),
            ("a lone surrogate", lookup("", b'{"value":"\\ud800"}'), "\ud800"),
        ):
            self.differs(
                "a byte order mark, an escape of a lone surrogate",
                name,
                case,
                lambda exchange: exchange.raised("ResponseValidationError"),
                lambda exchange: exchange.value.value == read,
            )
        self.differs(
            "JSON nested more than 200 levels deep",
            "500 levels",
            lookup("", b'{"value":' + b"[" * 499 + b"]" * 499 + b"}"),
            lambda exchange: exchange.raised("ResponseValidationError"),
            lambda exchange: str(exchange.value.value) == "[" * 499 + "]" * 499,
        )

    def test_what_is_no_json_is_refused(self):
        for number in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400"):
            self.differs(
                "NaN, Infinity, `1e400`, invalid UTF-8",
                number,
                lookup("", '{"value":[%s]}' % number),
                lambda exchange: exchange.error is None,
                lambda exchange: exchange.raised("ResponseValidationError"),
            )
        for body in (
            b'{"response":"\xff"}',
            b'{"response":"a\xc3"}',
            b'{"response":"\xed\xa0\x80"}',
            b'{"response":"\xc0\xaf"}',
        ):
            self.differs(
                "NaN, Infinity, `1e400`, invalid UTF-8",
                repr(body),
                chat("", body),
                lambda exchange: "\ufffd" in exchange.value.response,
                lambda exchange: exchange.raised("ResponseValidationError", text="UTF-8"),
            )

    def test_a_boolean_is_no_word(self):
        for word in BOOLEAN_WORDS:
            self.differs(
                '`"yes"`, `"1"`, `"TRUE"` and the like for a boolean',
                word,
                lookup("", {"exists": word}),
                lambda exchange: exchange.value.exists in (True, False),
                lambda exchange: exchange.raised("ResponseValidationError", text="exists"),
            )

    def test_a_number_as_text_is_a_whole_number_of_json(self):
        for text in ("1_000", " 1000 ", "+1000", "1000.0"):
            self.differs(
                '`"1_000"`, `" 5 "`, `"+5"`, `"5.0"` and the like for a whole number',
                "%r in a response" % text,
                query("", {"count": text}),
                lambda exchange: exchange.value.count == 1000,
                lambda exchange: exchange.raised("ResponseValidationError", text="count"),
            )

    def test_an_object_is_no_name(self):
        self.differs(
            "an object as a user's `name`",
            "in a sign-in",
            signin("", {"user": {"name": {"first": "A"}}}),
            lambda exchange: exchange.value.user.name == exchange.side.package.UNSET,
            lambda exchange: exchange.raised("ResponseValidationError", text="user.name"),
        )

    def test_missing_is_unset_itself(self):
        self.differs(
            "`is UNSET`",
            "of a missing field",
            lookup("", {}),
            lambda exchange: (
                exchange.value.value == exchange.side.package.UNSET
                and exchange.value.value is not exchange.side.package.UNSET
            ),
            lambda exchange: exchange.value.value is exchange.side.package.UNSET,
        )

    def test_a_refused_response_does_not_quote_the_token(self):
        self.differs(
            "error texts",
            "a refused token",
            signin("", {"token": ["t0p-s3cret"]}),
            lambda exchange: exchange.raised("ResponseValidationError", text="t0p-s3cret"),
            lambda exchange: (
                exchange.raised("ResponseValidationError", text="token")
                and "t0p-s3cret" not in str(exchange.error)
                and "t0p-s3cret" in exchange.error.body
            ),
        )

    def test_any_2xx_with_json_is_a_success(self):
        for operation, (smallest, _, _, (status, body), _) in OPERATIONS.items():
            for other in {200, 201, 202, 206} - {status}:
                self.differs(
                    "success",
                    "%s with %d" % (operation, other),
                    Case("", operation, smallest, Answer(other, body)),
                    lambda exchange: exchange.raised("SDKError", text="Unexpected response received"),
                    lambda exchange: exchange.error is None,
                    twins=False,
                )
        for body in (b"", b"{"):
            self.differs(
                "another 2xx that says `application/json` and is not JSON",
                "202 with %r" % body,
                Case("", "cache.cache_set", {"key": "k", "value": 1}, Answer(202, body)),
                lambda exchange: exchange.raised("SDKError", text="Unexpected response received"),
                lambda exchange: exchange.raised("ResponseValidationError"),
            )

    def test_json_is_json_whatever_its_type_says(self):
        for kind in ("application/problem+json", "text/json", "text/plain", None, "*/*", "application/vnd.api+json"):
            self.differs(
                "success",
                "JSON as %s" % kind,
                chat("", {"response": "x"}, content_type=kind),
                lambda exchange: exchange.raised("SDKError", text="Unexpected response received"),
                lambda exchange: exchange.value.response == "x",
            )
        self.differs(
            "success",
            "JSON of two types",
            chat("", {"response": "x"}, headers=[("Content-Type", "text/plain")]),
            lambda exchange: exchange.raised("SDKError", text="Unexpected response received"),
            lambda exchange: exchange.value.response == "x",
        )

    def test_204_and_205_may_be_empty(self):
        for status in (204, 205):
            self.differs(
                "204 and 205 with an empty body",
                str(status),
                Case("", "cache.cache_set", {"key": "k", "value": 1}, Answer(status, b"", None)),
                lambda exchange: exchange.raised("SDKError", text="Unexpected response received"),
                lambda exchange: exchange.value == exchange.side.package.models.CacheSetResponseBody(),
            )

    def test_a_response_has_limits(self):
        body = gzip.compress(b'{"exists":true}' + b" " * (64 << 20))
        self.differs(
            "more than 64 MiB, also after decompression",
            "64 MiB of blanks, compressed",
            lookup("", body, headers=[("Content-Encoding", "gzip")]),
            lambda exchange: exchange.value.exists,
            lambda exchange: exchange.raised("AerostackError"),
            twins=False,
        )
        self.differs(
            "response headers of more than 64 KiB",
            "70,000 letters",
            lookup("", {"exists": True}, headers=[("X-Long", "a" * 70000)]),
            lambda exchange: exchange.value.exists,
            lambda exchange: exchange.raised("RemoteProtocolError"),
        )
        early = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9
        self.differs(
            "more than eight interim responses",
            "nine",
            Case("", "cache.cache_get", {"key": "k"}, Answer(raw=early + Answer(200, {"exists": True}).wire)),
            lambda exchange: exchange.value.exists,
            lambda exchange: exchange.raised("RemoteProtocolError"),
        )

    def test_a_raw_response_is_our_own(self):
        import httpx

        self.differs(
            "`raw_response`",
            "of an error",
            lookup("", b"{"),
            lambda exchange: isinstance(exchange.error.raw_response, httpx.Response),
            lambda exchange: isinstance(exchange.error.raw_response, exchange.side.package.Response),
        )


if __name__ == "__main__":
    unittest.main()
