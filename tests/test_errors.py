"""Errors: the tree, what each carries, and that each survives a pickle, a copy and a set."""

import builtins
import copy
import inspect
import pickle
import re
import unittest

import aerostack_lite
from aerostack_lite import SDK, AerostackError, Headers, Request, errors, models
from tests.recording_server import KEY, FakeClient, answer, decoded

ALL = sorted(
    (error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, AerostackError)),
    key=lambda error: error.__name__,
)


def drawn_tree():
    """{class: (parent, builtins)} as the docstring of the root draws it."""
    tree, above = {"AerostackError": (None, set())}, ["AerostackError"]
    for line in inspect.cleandoc(AerostackError.__doc__).splitlines():
        match = re.match(r"([ |]*)\+-- (\w+)(.*)", line)
        if match:
            depth = len(match.group(1)) // 4
            del above[depth + 1 :]
            parent, name, rest = above[-1], match.group(2), match.group(3)
            tree[name] = (parent, {word for word in re.findall(r"\((\w+)\)", rest) if hasattr(builtins, word)})
            above.append(name)
            for leaf in re.findall(r"\w+", rest):
                if isinstance(vars(errors).get(leaf), type):
                    tree[leaf] = (name, set())
    return tree


def sample(kind):
    response = answer('{"code":"X","message":"m"}', 400, headers=[("Retry-After", "3")])
    if kind is errors.ErrorResponse:
        return kind(errors.ErrorResponseData(code="X", message="m"), response)
    if kind is errors.ResponseValidationError:
        return kind("m", response, ValueError("v"))
    if issubclass(kind, errors.SDKBaseError):
        return kind("m", response)
    if issubclass(kind, errors.ValidationError):
        return kind("title", [(("body", "key"), "missing", "Field required")])
    return kind("m")


class TheTree(unittest.TestCase):
    def test_is_the_one_drawn_at_its_root(self):
        drawn = drawn_tree()
        real = {
            error.__name__: next((base.__name__ for base in error.__bases__ if issubclass(base, AerostackError)), None)
            for error in ALL
        }
        self.assertEqual({name: parent for name, (parent, _) in drawn.items()}, real)

    def test_stands_on_the_builtins_that_are_drawn(self):
        for name, (_, drawn) in drawn_tree().items():
            real = {base.__name__ for base in getattr(errors, name).__bases__ if not issubclass(base, AerostackError)}
            self.assertEqual(drawn, real - {"Exception"}, name)

    def test_is_caught_as_what_one_would_expect(self):
        for kind, expected in [
            (errors.ValidationError, ValueError),
            (errors.TimeoutException, TimeoutError),
            (errors.ConnectTimeout, TimeoutError),
            (errors.NetworkError, ConnectionError),
            (errors.ConnectError, OSError),
            (errors.ProxyError, ConnectionError),
            (errors.ClosedError, RuntimeError),
            (errors.ErrorResponse, errors.SDKBaseError),
        ]:
            with self.assertRaises(expected):
                raise sample(kind)
        self.assertFalse(issubclass(errors.ErrorResponse, errors.SDKError))
        self.assertFalse(issubclass(errors.NoResponseError, errors.SDKBaseError))
        for kind in ALL:
            self.assertTrue(issubclass(kind, Exception))

    def test_has_the_names_of_httpx_for_what_the_official_sdk_lets_through(self):
        for name, parent in (
            ("ConnectError", "RequestError"),
            ("TimeoutException", "RequestError"),
            ("ReadTimeout", "TimeoutException"),
        ):
            self.assertIn(parent, [base.__name__ for base in getattr(errors, name).__mro__])


class EveryError(unittest.TestCase):
    def test_has_the_attributes_of_the_root(self):
        for kind in ALL:
            error = sample(kind)
            self.assertEqual(str(error), error.message)
            self.assertEqual(
                (error.request_id, error.attempts, error.retry_after, error.maybe_processed), (None, 0, None, False)
            )
            if kind is not errors.ErrorResponse:
                self.assertIsNone(error.data)

    def test_survives_pickle_and_copies(self):
        for kind in ALL:
            error = sample(kind)
            error.request_id, error.attempts, error.retry_after, error.maybe_processed = "id", 3, 1.5, True
            for made in [copy.copy(error), copy.deepcopy(error)] + [
                pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
            ]:
                with self.subTest(kind.__name__):
                    self.assertIs(type(made), kind)
                    self.assertEqual((str(made), made.args, made.message), (str(error), error.args, error.message))
                    self.assertEqual(
                        (made.request_id, made.attempts, made.retry_after, made.maybe_processed), ("id", 3, 1.5, True)
                    )
                    self.assertEqual(made.data, error.data)
                    if isinstance(error, errors.SDKBaseError):
                        self.assertEqual((made.status_code, made.body), (400, error.body))
                        self.assertEqual(made.headers["RETRY-AFTER"], "3")
                        self.assertEqual(made.raw_response.content, error.raw_response.content)
                    if isinstance(error, errors.ValidationError):
                        self.assertEqual(made.errors(), error.errors())

    def test_leaves_the_request_with_its_key_out_of_a_pickle(self):
        request = Request("POST", "http://h/", Headers([("X-Aerostack-Key", "sesame")]), b"", None)
        for error in (
            errors.ReadError("m", request=request),
            errors.SDKError("m", aerostack_lite.Response(500, request=request)),
        ):
            self.assertNotIn(b"sesame", pickle.dumps(error))

    def test_of_a_foreign_response_too(self):
        class Foreign:  # as httpx's does, it knows its request
            status_code, text, headers, request = 500, "t\u00e9xt", {"Content-Type": "text/plain"}, "sesame"

        error = errors.SDKError("m", Foreign())
        error.raw_response.request = Headers([("X-Aerostack-Key", "sesame")])
        again = pickle.loads(pickle.dumps(error))
        self.assertNotIn(b"sesame", pickle.dumps(error))
        raw = again.raw_response
        self.assertEqual((raw.status_code, raw.text, raw.headers["content-type"]), (500, "t\u00e9xt", "text/plain"))
        self.assertEqual((str(again), again.body), (str(error), error.body))

    def test_goes_into_a_set(self):
        for kind in ALL:
            error = sample(kind)
            self.assertEqual(len({error, error, sample(kind)}), 2)
            self.assertEqual(error, error)

    def test_takes_another_message(self):
        for kind in ALL:
            error = sample(kind)
            error.message = "another"
            self.assertEqual(str(error), "another")


class AnAnswersError(unittest.TestCase):
    def error(self, response):
        with self.assertRaises(errors.SDKBaseError) as caught:
            decoded(response)
        return caught.exception

    def test_has_headers_of_any_case(self):
        error = self.error(answer("no", 429, headers=[("X-Trace", "1"), ("x-trace", "2"), ("Retry-After", "7")]))
        self.assertEqual((error.headers["X-TRACE"], error.headers.get("x-Trace")), ("1, 2", "1, 2"))
        self.assertIn("X-tRACE", error.headers)
        self.assertNotIn("X-None", error.headers)
        self.assertIsNone(error.headers.get("X-None"))
        with self.assertRaises(KeyError):
            error.headers["X-None"]
        self.assertIn("x-trace", list(error.headers))
        self.assertEqual(error.retry_after, 7)

    def test_knows_the_call(self):
        error = self.error(answer("no", 404))
        self.assertEqual((error.attempts, error.status_code, error.body, error.retry_after), (1, 404, "no", None))
        self.assertRegex(error.request_id, "^[0-9a-f]{32}$")
        self.assertEqual((error.raw_response.text, error.raw_response.content), ("no", b"no"))

    def test_shows_its_class_message_and_status(self):
        self.assertEqual(
            repr(self.error(answer("no", 404))),
            "SDKError(message='API error occurred: Status 404. Body: no', status_code=404)",
        )

    def test_is_made_by_hand_from_anything_like_a_response(self):
        response = answer("text", 418, "a/b")
        self.assertEqual(str(errors.SDKError("", response)), "Status 418 Content-Type a/b. Body: text")
        self.assertEqual(str(errors.SDKError("m", response, "other")), "m: Status 418 Content-Type a/b. Body: other")
        self.assertEqual(errors.SDKError("m", response, "other").body, "other")
        cause = ValueError("v")
        self.assertIs(errors.ResponseValidationError("m", response, cause).cause, cause)


class AnArgumentsError(unittest.TestCase):
    def test_lists_its_problems(self):
        with self.assertRaises(errors.ValidationError) as caught:
            SDK(KEY, client=FakeClient()).ai.ai_chat(messages=[{"role": 5}], modell="m")
        error = caught.exception
        self.assertEqual(error.error_count(), 2)
        self.assertEqual(
            [problem["loc"] for problem in error.errors()], [("body", "messages", 0, "role"), ("body", "modell")]
        )
        self.assertEqual({frozenset(problem) for problem in error.errors()}, {frozenset(["loc", "type", "msg"])})
        self.assertTrue(str(error).startswith("2 validation errors for ai_chat\nbody.messages.0.role: "))

    def test_of_a_model_names_the_model(self):
        with self.assertRaises(errors.ValidationError) as caught:
            models.CacheGetRequestBody()
        self.assertEqual(str(caught.exception), "1 validation error for CacheGetRequestBody\nkey: Field required")
