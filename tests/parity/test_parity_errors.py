"""What is raised: the same class, the same words, the same attributes."""

import copy
import pickle
import socket
import unittest

from tests.parity.beside import OPERATIONS, Case, Parity
from tests.parity.recorder import CLOSED, RESET, SILENCE, Answer

CODES = (
    "AUTH_INVALID_KEY",
    "AUTH_INVALID_CREDENTIALS",
    "DB_QUERY_FAILED",
    "RATE_LIMIT_EXCEEDED",
    "VALIDATION_ERROR",
    "INTERNAL_ERROR",
)
FAILURE = {"code": "VALIDATION_ERROR", "message": "no key given", "details": {"field": "key", "n": [1, None]}}


def query(name, answer):
    return Case(name, "database.db_query", {"sql": "s"}, answer)


def lookup(name, answer, fresh=False):
    return Case(name, "cache.cache_get", {"key": "k"}, answer, fresh=fresh)


def failure(side, answer, operation="cache.cache_get"):
    """The error of one call."""
    return side.run(Case("", operation, OPERATIONS[operation][0], answer)).error


class Dispatch(Parity):
    def test_every_operation_and_status_with_a_structured_body(self):
        for operation, (smallest, _, _, _, _) in OPERATIONS.items():
            for status in (400, 401, 403, 404, 409, 413, 422, 429, 500, 501, 502, 503, 504, 599):
                self.same(Case("%d" % status, operation, smallest, Answer(status, FAILURE)))

    def test_a_structured_status_with_another_type(self):
        for kind in ("text/html", "application/problem+json", None, "text/plain; charset=utf-8", ""):
            self.same(query("as %s" % kind, Answer(400, FAILURE, kind)))

    def test_every_documented_code(self):
        for code in CODES:
            self.same(query(code, Answer(400, {"code": code, "message": "m"})))

    def test_what_the_details_may_be(self):
        for details in (None, {}, {"a": [1, {"b": None}]}):
            self.same(query(repr(details), Answer(400, dict(FAILURE, details=details))))
        self.same(
            query("missing", Answer(400, {"code": CODES[0], "message": "m"})),
            query("more fields", Answer(400, dict(FAILURE, trace="t"))),
            query("empty message", Answer(400, dict(FAILURE, message=""))),
        )

    def test_statuses_that_are_neither(self):
        for status in (300, 304, 305, 306, 399, 600, 700, 999):
            self.same(lookup("%d" % status, Answer(status, b"" if status == 304 else "what", "text/plain")))
        self.same(lookup("302 to nowhere", Answer(302, "moved", "text/plain")))

    def test_a_success_that_is_no_json(self):
        for kind, body in (
            ("text/html", "<h1>Sign in to the airport's network</h1>"),
            ("text/plain", "ok"),
            ("application/octet-stream", "\x00\x01"),
            ("text/html; charset=utf-8", "<br>"),
        ):
            self.same(lookup(kind, Answer(200, body, kind)))
        self.same(lookup("HTML under the JSON type", Answer(200, "<html>")))


class Words(Parity):
    def test_the_content_type_in_the_message(self):
        for kind in (
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "text/html",
            "text/html; charset=utf-8",
            "text/html;charset=utf-8",
            "",
            None,
            "weird",
            "text/plain;  q=1",
        ):
            for body in ("body", "", " padded \n", "é🚀"):
                self.same(lookup("%s, %r" % (kind, body), Answer(500, body, kind)))

    def test_the_cut_at_ten_thousand_characters(self):
        for size in (9999, 10000, 10001, 12345, 100000):
            for letter in ("x", "é", "🚀"):
                self.same(lookup("%d of %s" % (size, letter), Answer(500, letter * size, "text/plain")))
        self.same(
            query("unexpected", Answer(200, "x" * 10001, "text/plain")),
            query("structured", Answer(400, dict(FAILURE, message="m" * 10001))),
        )

    def test_the_charset_of_an_error(self):
        for charset, codec in (("iso-8859-1", "latin-1"), ("utf-16", "utf-16"), ("nonsense", "utf-8")):
            self.same(lookup(charset, Answer(404, "é".encode(codec), "text/plain; charset=" + charset)))
        self.same(lookup("no UTF-8", Answer(404, b"\xff\xfe\xfd", "text/plain")))

    def test_headers_of_an_error(self):
        self.same(
            lookup("repeated", Answer(404, "x", "text/plain", [("X-A", "1"), ("x-a", "2"), ("X-B", "")])),
            lookup("UTF-8", Answer(404, "x", "text/plain", [("X-Name", "é".encode().decode("latin-1"))])),
            lookup("Latin-1", Answer(404, "x", "text/plain", [("X-Name", "\xe9")])),
            lookup("padded", Answer(404, "x", "text/plain", [("X-Pad", "  a b  ")])),
        )

    def test_whatever_hypothesis_thinks_of(self):
        from hypothesis import strategies as st

        body = st.one_of(st.text(max_size=20), st.binary(max_size=20))
        kinds = st.sampled_from(["text/plain", "text/html; charset=utf-8", "application/json", None])
        self.same_for_any(
            "any error body",
            st.tuples(st.integers(400, 599), body, kinds),
            lambda drawn: lookup("", Answer(*drawn)),
            examples=100,
        )
        data = st.fixed_dictionaries(
            {"code": st.sampled_from(CODES), "message": st.text(max_size=8)},
            optional={"details": st.one_of(st.none(), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))},
        )
        self.same_for_any(
            "any structured error",
            st.tuples(st.sampled_from([400, 401, 500]), data),
            lambda drawn: query("", Answer(*drawn)),
            examples=100,
        )


class TheErrorItself(Parity):
    ANSWERS = {
        "SDKError": Answer(404, "gone", "text/plain", [("X-Trace", "t1"), ("X-Trace", "t2")]),
        "ResponseValidationError": Answer(200, "{"),
        "ErrorResponse": Answer(400, FAILURE),
    }

    def of_each_class(self, name, question):
        for kind, answer in self.ANSWERS.items():
            operation = "database.db_query" if kind == "ErrorResponse" else "cache.cache_get"
            self.same_value(
                "%s of %s" % (name, kind), lambda package: question(failure(self.side(package), answer, operation))
            )

    def test_headers_in_any_case(self):
        self.of_each_class(
            "headers",
            lambda error: [
                error.headers["Content-Type"],
                error.headers["content-type"],
                error.headers.get("CONTENT-TYPE"),
                error.headers.get("missing"),
                error.headers.get("missing", 5),
                "content-TYPE" in error.headers,
                "missing" in error.headers,
                sorted(error.headers),
                sorted(error.headers.keys()),
            ],
        )
        self.of_each_class("a missing header", lambda error: error.headers["missing"])

    def test_repeated_headers_are_joined(self):
        self.of_each_class("repeated", lambda error: error.headers.get("x-trace"))

    def test_the_raw_response(self):
        self.of_each_class(
            "raw response",
            lambda error: [
                error.raw_response.status_code,
                error.raw_response.text,
                error.raw_response.content,
                error.raw_response.reason_phrase,
                error.raw_response.headers["content-type"],
                str(error.raw_response.url),
                error.raw_response.request.method,
            ],
        )
        self.same_value(
            "json()",
            lambda package: failure(
                self.side(package), self.ANSWERS["ErrorResponse"], "database.db_query"
            ).raw_response.json(),
        )

    def test_the_start_of_the_repr(self):
        self.of_each_class(
            "repr", lambda error: repr(error).partition(", body=")[0].rstrip(")").partition("validation failed:")[0]
        )

    def test_hash_copy_and_pickle(self):
        self.of_each_class("hash", lambda error: isinstance(hash(error), int))

        def attributes(error):
            return [type(error).__name__, error.status_code, error.body, error.headers["content-type"], str(error)[:20]]

        self.of_each_class("copy", lambda error: attributes(copy.copy(error)))
        self.of_each_class("deepcopy", lambda error: attributes(copy.deepcopy(error)))
        self.of_each_class("pickle", lambda error: attributes(pickle.loads(pickle.dumps(error))))

    def test_the_message_can_be_replaced(self):
        def renamed(error):
            error.message = "other"
            return str(error)

        self.of_each_class("message", renamed)

    def test_the_class_tree(self):
        for name in self.ANSWERS:
            self.same_value(
                name,
                lambda package: [
                    issubclass(getattr(package.errors, name), getattr(package.errors, other))
                    for other in ("SDKBaseError", "SDKError", "ErrorResponse", "NoResponseError")
                ],
            )
        self.same_value(
            "NoResponseError",
            lambda package: [
                issubclass(package.errors.NoResponseError, package.errors.SDKBaseError),
                str(package.errors.NoResponseError()),
                package.errors.NoResponseError("m").message,
                str(package.errors.NoResponseError("m")),
            ],
        )

    def test_built_by_hand(self):
        class Raw:
            status_code, text, headers = 418, "tea", {"content-type": "text/tea pot"}
            content, reason_phrase, url = b"tea", "Teapot", "http://x/"

        def data(package):
            return package.errors.ErrorResponseData(code="INTERNAL_ERROR", message="m")

        for name, build in (
            ("SDKBaseError", lambda package: package.errors.SDKBaseError("m", Raw())),
            ("SDKBaseError with body", lambda package: package.errors.SDKBaseError("m", Raw(), "own")),
            ("SDKError", lambda package: package.errors.SDKError("m", Raw())),
            ("SDKError with body", lambda package: package.errors.SDKError("m", Raw(), body="own")),
            ("SDKError without words", lambda package: package.errors.SDKError("", Raw())),
            ("ErrorResponse", lambda package: package.errors.ErrorResponse(data(package), Raw())),
            (
                "ErrorResponse by name",
                lambda package: package.errors.ErrorResponse(data=data(package), raw_response=Raw(), body="b"),
            ),
            (
                "ResponseValidationError",
                lambda package: package.errors.ResponseValidationError("m", Raw(), ValueError("v")),
            ),
        ):
            self.same_value(
                name,
                lambda package: [
                    str(build(package)),
                    build(package).status_code,
                    build(package).body,
                    build(package).message,
                    dict(build(package).headers),
                ],
            )

    def test_the_data_of_an_error_response(self):
        self.same_value(
            "data",
            lambda package: [
                package.errors.ErrorResponseData(**FAILURE),
                package.errors.ErrorResponseData(code=package.errors.Code.INTERNAL_ERROR, message="m"),
                package.errors.ErrorResponseData(code="INTERNAL_ERROR", message="m").code
                is package.errors.Code.INTERNAL_ERROR,
            ],
        )
        self.same_value(
            "codes", lambda package: [(code.name, code.value, code == code.value) for code in package.errors.Code]
        )


class NoResponse(Parity):
    def test_no_usable_response(self):
        for name, answer in (
            ("closed without a byte", CLOSED),
            ("garbage", Answer(raw=b"SSH-2.0-OpenSSH\r\n\r\n")),
            (
                "short body",
                Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{}"),
            ),
            ("bad chunk", Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
            ("half a chunk", Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")),
            ("half a head", Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le")),
            ("bad gzip", Answer(200, b"no gzip", headers=[("Content-Encoding", "gzip")])),
        ):
            self.same(lookup(name, answer, fresh=True))

    def test_a_reset_connection(self):
        self.same(lookup("reset", RESET, fresh=True))

    def test_nobody_listens(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = "http://127.0.0.1:%d" % unused.getsockname()[1]
            self.same(Case("refused", "cache.cache_get", {"key": "k"}, server_url=url))

    def test_they_are_no_http_errors(self):
        self.same_value(
            "tree",
            lambda package: issubclass(
                package.errors.SDKBaseError, getattr(package.errors, "RequestError", ConnectionError)
            ),
        )


class OnPurpose(Parity):
    def test_an_unknown_code_stays_an_error_response(self):
        self.differs(
            "an undocumented error code",
            "NEW_ONE",
            query("", Answer(400, dict(FAILURE, code="NEW_ONE"))),
            lambda exchange: exchange.raised("ResponseValidationError"),
            lambda exchange: (
                exchange.raised("ErrorResponse", text="no key given") and exchange.error.data.code == "NEW_ONE"
            ),
        )

    def test_an_odd_error_body_is_an_api_error(self):
        for body in (
            b"",
            b"{",
            "[]",
            "null",
            '"text"',
            '{"error":"x"}',
            '{"code":"INTERNAL_ERROR"}',
            '{"message":"m"}',
            '{"code":1,"message":"m"}',
            '{"code":"INTERNAL_ERROR","message":null}',
            '{"code":"INTERNAL_ERROR","message":"m","details":[]}',
        ):
            self.differs(
                "an error body of another shape",
                repr(body),
                query("", Answer(500, body)),
                lambda exchange: exchange.raised("ResponseValidationError"),
                lambda exchange: exchange.raised("SDKError", text="API error occurred: Status 500. Body: "),
            )

    def test_a_nested_error_body_is_read(self):
        self.differs(
            "an error body nested in `error`",
            "of a documented status",
            query("", Answer(400, {"error": FAILURE})),
            lambda exchange: exchange.raised("ResponseValidationError"),
            lambda exchange: (
                exchange.raised("ErrorResponse")
                and str(exchange.error) == "no key given"
                and exchange.error.data == exchange.side.package.errors.ErrorResponseData(**FAILURE)
            ),
        )

    def test_every_error_has_data(self):
        for name, answer, code in (
            ("none", Answer(404, "x", "text/plain"), None),
            ("of an undocumented status", Answer(429, FAILURE), "VALIDATION_ERROR"),
            ("nested, of an undocumented status", Answer(429, {"error": FAILURE}), "VALIDATION_ERROR"),
        ):
            self.differs(
                "`.data`",
                name,
                lookup("", answer),
                lambda exchange: exchange.raised("SDKError") and not hasattr(exchange.error, "data"),
                lambda exchange: exchange.raised("SDKError") and getattr(exchange.error.data, "code", None) == code,
            )

    def test_control_characters_of_the_server_are_escaped_in_messages(self):
        self.differs(
            "control characters of the server in messages",
            "an escape sequence",
            lookup("", Answer(404, "\x1b[2J", "text/plain")),
            lambda exchange: exchange.error.message.endswith("\x1b[2J"),
            lambda exchange: exchange.error.message.endswith("Body: \\x1b[2J") and exchange.error.body == "\x1b[2J",
        )

    def test_every_error_tells_its_attempts_and_its_request_id(self):
        for name, answer, processed in (
            ("of a response", Answer(404, "x", "text/plain", [("Retry-After", "7")]), False),
            ("of a lost connection", RESET, True),
        ):
            self.differs(
                "`.attempts`, `.request_id`, `.retry_after`, `.maybe_processed`",
                name,
                lookup("", answer, fresh=True),
                lambda exchange: not hasattr(exchange.error, "attempts") and not hasattr(exchange.error, "request_id"),
                lambda exchange: (
                    exchange.error.attempts == 1
                    and exchange.error.request_id == exchange.requests[0].values("x-request-id")[0]
                    and exchange.error.retry_after == (None if answer is RESET else 7)
                    and exchange.error.maybe_processed is processed
                ),
            )

    def test_transport_errors_are_also_the_builtins_that_callers_expect(self):
        for name, answer, options, kind in (
            ("a lost connection", RESET, {}, ConnectionError),
            ("a timeout", SILENCE, {"timeout_ms": 80}, TimeoutError),
        ):
            self.differs(
                "transport errors",
                name,
                Case("", "cache.cache_get", {"key": "k"}, answer, fresh=True, **options),
                lambda exchange: exchange.raised("RequestError") and not isinstance(exchange.error, kind),
                lambda exchange: exchange.raised("RequestError") and isinstance(exchange.error, kind),
            )


if __name__ == "__main__":
    unittest.main()
