"""What a caller gets for an answer: a model, or an error to the letter. No server is needed for that."""

import codecs
import json
import random
import sys
import unittest
import unittest.mock
from datetime import datetime, timezone

from aerostack_lite import UNSET, Headers, errors, models
from tests.recording_server import (
    EXAMPLES,
    KEY,
    SDK,
    FakeAsyncClient,
    FakeClient,
    answer,
    both,
    decoded,
    every_operation,
    peak_memory,
)

# Which statuses of which operation the API documents an error body for.
STRUCTURED = {"auth_signin": {401}, "auth_signup": {400, 409}, "db_query": {400, 401, 500}}
ERROR_STATUSES = (400, 401, 402, 403, 404, 409, 418, 422, 429, 451, 499, 500, 501, 502, 503, 504, 511, 599)
PROBLEM = '{"code":"VALIDATION_ERROR","message":"No such table","details":{"table":"t"}}'
NESTED_PROBLEMS = [  # as gateways and newer parts of the API write the same
    '{"error":%s}' % PROBLEM,
    '{"success":false,"error":%s}' % PROBLEM,
    '{"error":%s,"requestId":"r","status":400}' % PROBLEM,
    '{"error":{"type":"bad","code":"VALIDATION_ERROR","message":"No such table","details":{"table":"t"}}}',
]
DEEPEST = 150  # what must be read; beyond 1,000 levels some Python cannot


class DecodeCase(unittest.TestCase):
    def error(self, kind, response, operation="cache_get", service="cache"):
        with self.assertRaises(kind) as caught:
            decoded(response, operation, service)
        self.assertIs(type(caught.exception), kind)
        self.assertIs(caught.exception.raw_response, response)
        self.assertEqual(caught.exception.status_code, response.status_code)
        self.assertIs(caught.exception.headers, response.headers)
        return caught.exception


class Success(DecodeCase):
    def test_of_every_operation_is_its_model(self):
        bodies = {
            "ai_chat": ('{"response":"hi"}', models.AiChatResponseBody(response="hi")),
            "auth_signin": (
                '{"token":"t","expiresAt":"2024-01-02T03:04:05Z","user":{"id":"1","name":null}}',
                models.AuthResponse(
                    token="t",
                    expires_at=datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
                    user=models.User(id="1", name=None),
                ),
            ),
            "auth_signup": ('{"token":"t"}', models.AuthResponse(token="t")),
            "cache_get": (
                '{"exists":true,"value":{"a":[1,null]}}',
                models.CacheGetResponseBody(exists=True, value={"a": [1, None]}),
            ),
            "cache_set": ('{"success":true}', models.CacheSetResponseBody(success=True)),
            "db_query": ('{"results":[{"one":1}],"count":1}', models.DbQueryResult(results=[{"one": 1}], count=1)),
            "queue_enqueue": (
                '{"success":true,"jobId":"j"}',
                models.QueueEnqueueResponseBody(success=True, job_id="j"),
            ),
            "services_invoke": (
                '{"success":true,"result":[1]}',
                models.ServicesInvokeResponseBody(success=True, result=[1]),
            ),
            "storage_upload": ('{"url":"https://x/y"}', models.StorageUploadResponseBody(url="https://x/y")),
        }
        for service, operation in every_operation():
            body, expected = bodies[operation.name]
            client, async_client = FakeClient(answer(body)), FakeAsyncClient(answer(body))
            for call in both(SDK(KEY, client=client, async_client=async_client), service, operation.name):
                with self.subTest(operation.name):
                    self.assertEqual(call(EXAMPLES[operation.name][0]), expected)

    def test_is_any_2xx(self):
        for service, operation in every_operation():
            for status in (200, 201, 202, 203, 206, 226, 299):
                self.assertIs(type(decoded(answer("{}", status), operation.name, service)), operation.response_type)

    def test_is_an_empty_204_or_205_too(self):
        for service, operation in every_operation():
            for status in (204, 205):
                for content_type in ("application/json", "text/html", None):
                    with self.subTest(operation.name, status=status, content_type=content_type):
                        model = decoded(answer("", status, content_type), operation.name, service)
                        self.assertEqual(model, operation.response_type())

    def test_is_no_other_empty_2xx(self):
        for service, operation in every_operation():
            one = operation.name == "cache_get"  # every status and body with one operation, one with every operation
            for status in (200, 201, 202, 203, 206, 226, 299) if one else (202,):
                for body in ("", " \r\n", "\ufeff") if one else ("",):
                    for content_type, kind in (
                        ("application/json", errors.ResponseValidationError),
                        ("application/json; charset=utf-8", errors.ResponseValidationError),
                        ("text/html", errors.SDKError),
                        (None, errors.SDKError),
                    ):
                        with self.subTest(operation.name, status=status, body=body, content_type=content_type):
                            self.error(kind, answer(body, status, content_type), operation.name, service)

    def test_is_no_empty_2xx_for_a_twin_either(self):
        for service, operation in every_operation():
            response = answer("", 202)
            sdk = SDK(KEY, client=FakeClient(response), async_client=FakeAsyncClient(response))
            for call in both(sdk, service, operation.name):
                with self.subTest(operation.name), self.assertRaises(errors.ResponseValidationError) as caught:
                    call(EXAMPLES[operation.name][0])
                self.assertEqual((caught.exception.attempts, caught.exception.maybe_processed), (1, True))

    def test_needs_json_whatever_its_type_says(self):
        for content_type in (
            "application/json",
            "APPLICATION/JSON; Charset=UTF-8",
            "application/problem+json",
            "text/json",
            "text/plain",
            "*/*",
            "application/json, application/json",
            "",
            None,
        ):
            with self.subTest(content_type):
                self.assertIs(decoded(answer('{"exists":true}', content_type=content_type)).exists, True)

    def test_may_begin_with_a_bom(self):
        self.assertEqual(decoded(answer(codecs.BOM_UTF8 + b'{"value":"\xc3\xa9"}')).value, "\u00e9")
        self.assertEqual(
            decoded(answer(codecs.BOM_UTF8 + b'{"value":1}', content_type="application/json; charset=utf-8")).value, 1
        )

    def test_is_read_in_the_charset_of_its_type(self):
        for charset, text in (
            ("iso-8859-1", "\u00e9"),
            ('"UTF-8"', "\u00e9"),
            ("utf-16", "\u20ac"),
            ("windows-1252", "\u20ac"),
            ("shift_jis", "\u3042"),
        ):
            with self.subTest(charset):
                body = json.dumps({"value": text}, ensure_ascii=False).encode(charset.strip('"'))
                self.assertEqual(decoded(answer(body, content_type="application/json; charset=" + charset)).value, text)

    def test_is_read_as_utf_8_where_the_charset_s_name_has_no_end(self):
        content_type = "application/json; charset=utf" + "8" * 60_000  # which Python would remember for ever
        with unittest.mock.patch("codecs.lookup", side_effect=codecs.lookup) as lookup:
            self.assertIs(decoded(answer('{"exists":true}', content_type=content_type)).exists, True)
        self.assertLess(len(lookup.call_args[0][0]), 100)

    def test_is_read_as_utf_8_where_the_charset_is_none(self):
        for charset in (
            "nonsense",
            "",
            "idna",
            "hex",
            "rot13",
            "zlib",
            "utf-8; x=y",
            "../../etc",
            "iso-nope",
            "utf-8x",
            "cp99999",
        ):
            with self.subTest(charset):
                self.assertEqual(
                    decoded(answer('{"value":"\u00e9"}', content_type="application/json; charset=" + charset)).value,
                    "\u00e9",
                )

    def test_keeps_unknown_fields_and_the_names_of_python(self):
        model = decoded(
            answer('{"jobId":"j","job_id":"loses","region":"eu","nested":{"a":1}}'), "queue_enqueue", "queue"
        )
        self.assertEqual((model.job_id, model.model_extra), ("j", {"region": "eu", "nested": {"a": 1}}))
        self.assertEqual(decoded(answer('{"job_id":"j"}'), "queue_enqueue", "queue").job_id, "j")

    def test_tells_a_stored_null_from_nothing(self):
        self.assertIsNone(decoded(answer('{"exists":true,"value":null}')).value)
        self.assertIs(decoded(answer('{"exists":false}')).value, UNSET)

    def test_holds_any_json(self):
        for text, value in (
            ("12345678901234567890123", 12345678901234567890123),
            ("1e-400", 0.0),
            ("1.7976931348623157e308", 1.7976931348623157e308),
            ('"\\ud800"', "\ud800"),
            ("-0", 0),
            ("[[]]", [[]]),
            ('{"a":1,"a":2}', {"a": 2}),
            ('"\\u0000"', "\0"),
            ("9" * 4000, int("9" * 4000)),
            ("[" * 150 + "]" * 150, None),
        ):
            with self.subTest(text[:30]):
                found = decoded(answer('{"value":%s}' % text)).value
                self.assertTrue(value is None or found == value)

    def test_may_be_wide_for_it_is_depth_that_has_a_limit(self):
        rows = [{"id": number, "tags": ["[", "{"]} for number in range(1000)]
        self.assertEqual(decoded(answer(json.dumps({"value": rows}))).value, rows)

    def test_may_hold_any_brackets_in_its_texts(self):
        texts = [
            "\\",
            "[" * 3000,
            "{" * 3000,
            '"' + "[" * 3000,
            "\\" + "{" * 3000,
            '\\"[[' * 900,
            "\\\\[" * 900,
            '"[{' * 900,
        ]
        value = [texts, {text: [text] for text in texts}, ["]" * 3000, '\\"}' * 900]] * 3
        for document in (json.dumps({"value": value}), json.dumps({"value": value}, ensure_ascii=False)):
            self.assertEqual(decoded(answer(document)).value, value)

    def test_is_read_to_150_levels_wherever_the_deepest_stands(self):
        for deepest in nested_values(DEEPEST - 2):
            for document in around(deepest):
                with self.subTest(document[:60]):
                    self.assertEqual(
                        json.dumps(decoded(answer('{"value":%s}' % document)).value), json.dumps(json.loads(document))
                    )

    def test_of_any_shape_is_what_python_reads(self):
        dice = random.Random(20)
        for _ in range(50):
            value = [random_value(dice, dice.randrange(1, 12)) for _ in range(200)]
            document = json.dumps({"value": value}, ensure_ascii=dice.random() < 0.5, indent=dice.choice([None, 1]))
            self.assertEqual(decoded(answer(document)).value, value)

    def test_of_many_rows_takes_little_more_memory_than_what_is_read(self):
        rows = [{"id": number, "name": "row [%d]" % number, "tags": ["a", "{"]} for number in range(5000)]
        many, empty = json.dumps({"value": rows}), '{"value":[%s%s1]}' % ('"",' * 100_000, "[]," * 600)
        for document in (many, empty):
            decoded(answer(document))  # so that what is imported and built once is there
            more = peak_memory(lambda: decoded(answer(document))) - peak_memory(lambda: json.loads(document))
            with self.subTest(document[:40]):
                self.assertLess(more, 4 * len(document) + 100_000)

    def test_takes_no_more_memory_where_its_depth_must_be_counted(self):
        text = '{"value":[%s"%s"]}' % ("[]," * 1000, 'a\\\\\\"[[[' * 100_000)
        self.assertEqual(len(decoded(answer(text)).value), 1001)
        self.assertLess(peak_memory(lambda: decoded(answer(text))), 20 * len(text))


def nested_values(levels):
    """JSON of so many levels: lists, objects, and both in turn."""
    yield "[" * levels + "]" * levels
    yield '{"a":' * levels + "1" + "}" * levels
    yield '[{"a":' * (levels // 2) + "1" + "}]" * (levels // 2)
    yield '{"]}":[0,' * (levels // 2) + '"[[{{"' + "]}" * (levels // 2)


def around(document):
    """A document alone, and behind and before much else."""
    yield document
    yield "[%s%s]" % ("[{}]," * 1000, document)
    yield "[%s%s]" % (document, ",[{}]" * 1000)
    yield '["%s",%s]' % ('\\\\\\"[{' * 1000, document)
    yield '["%s",%s]' % ("]}" * 1000, document)
    yield '[%s,"%s"]' % (document, "]}" * 1000)
    yield '[{"%s":%s}]' % ('\\"' + "]" * 1000, document)


def random_value(dice, levels):
    """A value of at most so many levels, with texts that look like JSON."""
    if levels and dice.random() < 0.6:
        items = [random_value(dice, levels - 1) for _ in range(dice.randrange(3))]
        return items if dice.random() < 0.5 else {random_text(dice): item for item in items}
    return dice.choice([None, True, dice.randrange(10), random_text(dice)])


def random_text(dice):
    return "".join(dice.choice('[]{}"\\,:/ \n\u00e9\U0001f600') for _ in range(dice.randrange(8)))


class HeadersByName(unittest.TestCase):
    def test_a_mapping_is_taken_as_pairs_are(self):
        self.assertEqual(dict(Headers({"Ab": "value", "te": "gzip"})), {"ab": "value", "te": "gzip"})

    def test_any_case_finds_changes_and_removes(self):
        headers = Headers([("X-One", "1"), ("x-one", "2"), ("X-Two", "3")])
        self.assertEqual(
            (headers["x-ONE"], headers.get("X-one"), "X-TWO" in headers, headers.get("X-None", 5)),
            ("1, 2", "1, 2", True, 5),
        )
        self.assertEqual(headers.get_all("X-ONE"), ["1", "2"])
        headers.update({"X-ONE": "4", "X-Three": "5"})
        headers["X-tWO"] = "6"
        self.assertEqual((headers.setdefault("x-THREE", "7"), headers.setdefault("X-Four", "8")), ("5", "8"))
        self.assertEqual(dict(headers), {"x-one": "4", "x-two": "6", "x-three": "5", "x-four": "8"})
        del headers["X-Three"]
        self.assertEqual((headers.pop("X-FOUR"), headers.pop("X-FOUR", None)), ("8", None))
        self.assertEqual(dict(headers), {"x-one": "4", "x-two": "6"})


class NotTheJsonOfTheApi(DecodeCase):
    UNREADABLE = [
        b"{",
        b"{}x",
        b'{"value":1,}',
        b"/*x*/{}",
        b'{"value":"\n"}',
        b'{"value":01}',
        b'{"value":NaN}',
        b'{"value":Infinity}',
        b'{"value":-Infinity}',
        b'{"value":1e400}',
        b'{"value":[{"a":-1.8E+308}]}',
        b'{"value":1e+0400}',
        b'{"value":%s}' % (b"9" * 400 + b".5"),
        b'{"value":%s}' % (b"9" * 250 + b"e99"),
        b'{"value":"\xff"}',
        b"\xff\xfe{\0}\0",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"<html>",
        b"\0",
        b"'a'",
        b"{'a':1}",
    ]

    def test_is_an_error_with_its_cause(self):
        for service, operation in every_operation():
            for body in self.UNREADABLE if operation.name == "cache_get" else self.UNREADABLE[:1]:
                with self.subTest(operation.name, body=body[:20]):
                    response = answer(body)
                    error = self.error(errors.ResponseValidationError, response, operation.name, service)
                    self.assertTrue(error.message.startswith("Response validation failed: "), error.message[:100])
                    self.assertIs(error.cause, error.__cause__)
                    self.assertIsInstance(error.cause, ValueError)
                    self.assertEqual(error.body, response.text)

    def test_is_also_what_is_too_deep_wherever_the_deepest_stands(self):
        for deepest in nested_values(5000):
            for document in around(deepest):
                with self.subTest(document[:60]):
                    error = self.error(errors.ResponseValidationError, answer('{"value":%s}' % document))
                    self.assertLess(len(str(error)), 1000)
                    self.error(errors.SDKError, answer('{"code":"X","message":"m","a":%s}' % document, 400))

    def test_is_an_error_however_little_stack_is_left(self):
        def deeper(levels, value):
            return deeper(levels - 1, value) if levels else decoded(answer('{"value":%s}' % value))

        outcomes = set()
        for levels in range(sys.getrecursionlimit() - 450, sys.getrecursionlimit(), 10):
            try:
                deeper(levels + 50, "1")
            except RecursionError:
                break  # no stack is left for any call
            try:
                outcomes.add(deeper(levels, "[" * 400 + "]" * 400).exists)
            except errors.ResponseValidationError as error:
                outcomes.add(str(error.cause))
        self.assertTrue(outcomes and outcomes <= {None, "the JSON is nested too deeply"}, outcomes)

    def test_of_another_shape_is_an_error_that_names_the_field(self):
        for body, place in (
            ('{"count":"many"}', ("body", "count")),
            ('{"count":1.5}', ("body", "count")),
            ('{"results":[{},5]}', ("body", "results", 1)),
            ('{"results":{}}', ("body", "results")),
            ("[]", ("body",)),
            ("null", ("body",)),
            ('"text"', ("body",)),
            ("5", ("body",)),
        ):
            for content_type in ("application/json", "text/plain"):
                with self.subTest(body, content_type=content_type):
                    error = self.error(
                        errors.ResponseValidationError, answer(body, content_type=content_type), "db_query", "database"
                    )
                    self.assertIsInstance(error.cause, errors.ValidationError)
                    self.assertEqual([problem["loc"] for problem in error.cause.errors()], [place])
                    self.assertIn("1 validation error for DbQueryResult", str(error))

    def test_with_very_much_that_is_wrong_tells_a_hundred(self):
        error = self.error(
            errors.ResponseValidationError, answer('{"results":[%s]}' % ",".join("1" * 100_000)), "db_query", "database"
        )
        self.assertEqual((error.cause.error_count(), error.cause.problems[-1][0]), (100, ("body", "results", 99)))

    def test_never_quotes_a_value(self):
        error = self.error(
            errors.ResponseValidationError,
            answer('{"token":["sesame"],"user":"sesame","expiresAt":"sesame"}'),
            "auth_signin",
            "authentication",
        )
        self.assertNotIn("sesame", str(error) + repr(error))
        self.assertIn("sesame", error.body)

    def test_of_too_many_digits_is_no_crash(self):
        response = answer('{"exists":true,"value":%s}' % ("9" * 5000))
        try:  # Python 3.11 made it an error to read that many
            self.assertEqual(len(str(decoded(response).value % 10**4000)), 4000)
        except errors.ResponseValidationError as error:
            self.assertLess(len(str(error)), 1000)

    def test_such_as_a_page_with_200_is_an_error_that_shows_it(self):
        error = self.error(
            errors.SDKError, answer("<html>Sign in to the hotel</html>", content_type="text/html; charset=utf-8")
        )
        self.assertEqual(
            str(error),
            'Unexpected response received: Status 200 Content-Type "text/html; charset=utf-8". '
            "Body: <html>Sign in to the hotel</html>",
        )
        self.assertEqual(error.body, "<html>Sign in to the hotel</html>")
        self.assertIsNone(error.data)


class ApiErrors(DecodeCase):
    def test_are_structured_where_the_api_documents_it(self):
        for service, operation in every_operation():
            for status in ERROR_STATUSES:
                with self.subTest(operation.name, status=status):
                    structured = status in STRUCTURED.get(operation.name, ())
                    error = self.error(
                        errors.ErrorResponse if structured else errors.SDKError,
                        answer(PROBLEM, status),
                        operation.name,
                        service,
                    )
                    self.assertEqual(error.data.code, errors.Code.VALIDATION_ERROR)
                    self.assertIs(type(error.data.code), errors.Code)
                    self.assertEqual((error.data.message, error.data.details), ("No such table", {"table": "t"}))
                    self.assertEqual(error.body, PROBLEM)
                    self.assertEqual(
                        str(error),
                        "No such table"
                        if structured
                        else "API error occurred: Status %d. Body: %s" % (status, PROBLEM),
                    )

    def test_may_be_nested(self):
        for service, operation in every_operation():
            for body in NESTED_PROBLEMS:
                for status in (400, 401, 409, 429, 500):
                    with self.subTest(operation.name, body=body, status=status):
                        structured = status in STRUCTURED.get(operation.name, ())
                        error = self.error(
                            errors.ErrorResponse if structured else errors.SDKError,
                            answer(body, status),
                            operation.name,
                            service,
                        )
                        self.assertIs(type(error.data), errors.ErrorResponseData)
                        self.assertIs(error.data.code, errors.Code.VALIDATION_ERROR)
                        self.assertEqual((error.data.message, error.data.details), ("No such table", {"table": "t"}))
                        self.assertEqual(error.body, body)
                        shown = "No such table" if structured else "API error occurred: Status %d. Body: %s"
                        self.assertEqual(str(error), shown if structured else shown % (status, body))

    def test_that_are_flat_are_read_as_such_whatever_stands_beside(self):
        body = '{"code":"OUTER","message":"outer","error":{"code":"INNER","message":"inner"}}'
        error = self.error(errors.ErrorResponse, answer(body, 400), "db_query", "database")
        self.assertEqual((error.data.code, error.data.message), ("OUTER", "outer"))

    def test_that_are_nested_keep_a_code_that_is_not_known(self):
        body = '{"error":{"code":"TEAPOT","message":"m","details":null}}'
        error = self.error(errors.ErrorResponse, answer(body, 500), "db_query", "database")
        self.assertEqual((error.data.code, type(error.data.code), error.data.details), ("TEAPOT", str, None))

    def test_are_the_same_for_a_twin(self):
        for service, operation in every_operation():
            response = answer(PROBLEM if operation.name < "d" else NESTED_PROBLEMS[0], 401)
            sdk = SDK(KEY, client=FakeClient(response), async_client=FakeAsyncClient(response), retry_config=None)
            found = []
            for call in both(sdk, service, operation.name):
                with self.assertRaises(errors.SDKBaseError) as caught:
                    call(EXAMPLES[operation.name][0])
                found.append((type(caught.exception), str(caught.exception), caught.exception.data))
            self.assertEqual(found[0], found[1])

    def test_keep_a_code_that_is_not_known(self):
        error = self.error(errors.ErrorResponse, answer('{"code":"TEAPOT","message":"m"}', 400), "db_query", "database")
        self.assertEqual((error.data.code, type(error.data.code), error.data.details), ("TEAPOT", str, None))

    def test_without_a_message_show_the_body(self):
        body = '{"code":"INTERNAL_ERROR","message":""}'
        self.assertEqual(str(self.error(errors.ErrorResponse, answer(body, 500), "db_query", "database")), body)

    def test_of_another_type_are_not_structured(self):
        for content_type in ("text/plain", "application/problem+json", None):
            error = self.error(errors.SDKError, answer(PROBLEM, 400, content_type), "db_query", "database")
            self.assertTrue(str(error).startswith("API error occurred: Status 400 Content-Type "))
        self.error(errors.ErrorResponse, answer(PROBLEM, 400, "Application/JSON;charset=utf-8"), "db_query", "database")

    def test_with_an_odd_body_are_errors_of_the_api_all_the_same(self):
        for body in (
            "",
            "null",
            "[]",
            "5",
            '"text"',
            "{}",
            '{"code":"X"}',
            '{"message":"m"}',
            '{"code":5,"message":"m"}',
            '{"code":"X","message":5}',
            '{"code":"X","message":"m","details":[]}',
            '{"error":{"message":"m"}}',
            '{"error":{"code":"X"}}',
            '{"error":{"code":5,"message":"m"}}',
            '{"error":{"code":"X","message":"m","details":5}}',
            '{"error":{}}',
            '{"error":null}',
            '{"error":"text"}',
            '{"error":[{"code":"X","message":"m"}]}',
            '{"error":{"error":{"code":"X","message":"m"}}}',
            '[{"code":"X","message":"m"}]',
            '{"code":"X","message":"m","details":{"a":1e400}}',
            '{"error":{"code":"X","message":"m","details":{"a":[-1e400]}}}',
            "<html>",
            "{",
            '{"code":NaN}',
            "[" * 20_000,
        ):
            with self.subTest(body[:40]):
                error = self.error(errors.SDKError, answer(body, 400), "db_query", "database")
                self.assertTrue(str(error).startswith("API error occurred: Status 400. Body: " + (body[:30] or '""')))
                self.assertEqual(error.body, body)
                self.assertIsNone(error.data)


class TheMessage(DecodeCase):
    def test_is_the_official_one_to_the_letter(self):
        for response, expected in [
            (answer("no", 404), "API error occurred: Status 404. Body: no"),
            (answer("", 404), 'API error occurred: Status 404. Body: ""'),
            (answer("no", 500, "text/html"), "API error occurred: Status 500 Content-Type text/html. Body: no"),
            (
                answer("no", 500, "text/html; charset=x"),
                'API error occurred: Status 500 Content-Type "text/html; charset=x". Body: no',
            ),
            (answer("no", 500, None), 'API error occurred: Status 500 Content-Type "". Body: no'),
            (
                answer("no", 400, "application/json; charset=utf-8"),
                'API error occurred: Status 400 Content-Type "application/json; charset=utf-8". Body: no',
            ),
            (
                answer("no", 400, "application/json;charset=utf-8"),
                "API error occurred: Status 400 Content-Type application/json;charset=utf-8. Body: no",
            ),
            (answer(" no\n\n", 404), "API error occurred: Status 404. Body:  no"),
            (answer("", 304), 'Unexpected response received: Status 304. Body: ""'),
            (answer("", 300, None), 'Unexpected response received: Status 300 Content-Type "". Body: ""'),
            (answer("x", 700), "Unexpected response received: Status 700. Body: x"),
            (answer("x", 999, "a/b"), "Unexpected response received: Status 999 Content-Type a/b. Body: x"),
        ]:
            with self.subTest(expected):
                error = self.error(errors.SDKError, response)
                self.assertEqual(str(error), expected)
                self.assertEqual(error.message, expected)

    def test_is_cut_at_10_000_characters_and_the_body_is_not(self):
        for length, tail in ((10_000, ""), (10_001, "...and 1 more chars"), (123_456, "...and 113456 more chars")):
            error = self.error(errors.SDKError, answer("\u00e9" * length, 500))
            self.assertEqual(str(error), "API error occurred: Status 500. Body: " + "\u00e9" * 10_000 + tail)
            self.assertEqual(error.body, "\u00e9" * length)

    def test_of_the_api_itself_is_cut_too(self):
        error = self.error(
            errors.ErrorResponse,
            answer(json.dumps({"code": "C", "message": "m" * 1_002_000}), 401),
            "auth_signin",
            "authentication",
        )
        self.assertEqual(str(error), "m" * 1_000_000 + "...and 2000 more chars")
        self.assertEqual(len(error.data.message), 1_002_000)

    def test_of_nine_megabytes_stays_small_and_quick(self):
        error = self.error(errors.SDKError, answer(b"x" * 9_000_000, 500))
        self.assertLess(len(str(error)), 11_000)
        self.assertEqual(len(error.body), 9_000_000)

    def test_tells_where_a_redirect_wanted_to_go_without_its_secrets(self):
        for target in (
            "https://ada:sesame@elsewhere/x",
            "https://ada:/sesame/@elsewhere/x",
            "ada:sesame@elsewhere/x",
            "/elsewhere/x?t=sesame",
        ):
            error = self.error(errors.SDKError, answer("", 302, headers=[("Location", target)]))
            self.assertIn("elsewhere/x", str(error))
            self.assertNotIn("sesame", str(error))

    def test_drives_no_terminal_and_forges_no_line_of_a_log(self):
        for response in (
            answer("\x1b[2J\r\0\x9b", 500),
            answer("x", 500, "a\x1b[2J"),
            answer('{"code":"X","message":"\\u001b[2J\\u0000"}', 400),
        ):
            kind = errors.ErrorResponse if response.status_code == 400 else errors.SDKError
            error = self.error(kind, response, "db_query", "database")
            self.assertNotRegex(str(error), "[\x00-\x08\x0b-\x1f\x7f-\x9f]")

    def test_shows_no_token(self):
        error = self.error(errors.SDKError, answer('{"token":"sesame","api_key":"sesame","why":"broken"}', 500))
        self.assertNotIn("sesame", str(error))
        self.assertIn("broken", str(error))
        self.assertIn("sesame", error.body)


class WhatOtherClientsReturn(DecodeCase):
    def test_may_have_no_more_than_status_headers_and_text(self):
        class Bare:
            def __init__(self, status_code, text, content_type="application/json"):
                self.status_code, self.text, self.headers = status_code, text, {"content-type": content_type}

        self.assertEqual(decoded(Bare(200, '{"value":"\u00e9"}')).value, "\u00e9")
        self.assertEqual(decoded(Bare(204, "")), models.CacheGetResponseBody())
        self.error(errors.ResponseValidationError, Bare(200, ""))
        self.assertEqual(str(self.error(errors.SDKError, Bare(404, "no"))), "API error occurred: Status 404. Body: no")
        self.assertEqual(
            self.error(errors.ErrorResponse, Bare(400, PROBLEM), "db_query", "database").data.code, "VALIDATION_ERROR"
        )

    def test_of_a_mock_is_enough_too(self):
        mock = unittest.mock.Mock(
            status_code=200, headers=Headers([("Content-Type", "application/json")]), text='{"value":1}'
        )
        self.assertEqual(decoded(mock).value, 1)
