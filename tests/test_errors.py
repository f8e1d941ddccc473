"""Errors: the tree, what each carries, and that each survives a pickle, a copy and a set."""

import copy
import errno
import json
import math
import os
import pathlib
import pickle
import socket
import unittest
import uuid
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, AerostackError, BackoffStrategy, HttpClient, RetryConfig, errors, models
from tests.recording_server import (
    KEY,
    CleanEnvironment,
    FakeAsyncClient,
    FakeClient,
    answer,
    both,
    decoded,
    peak_memory,
)
from tests.scripted_server import free_port

ALL = sorted(
    (error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, AerostackError)),
    key=lambda error: error.__name__,
)


# each with its parents
TREE = {
    "AerostackError": {"Exception"},
    "ValidationError": {"AerostackError", "ValueError"},
    "ArgumentTypeError": {"ValidationError", "TypeError"},
    "ArgumentIndexError": {"ValidationError", "IndexError"},
    "SDKBaseError": {"AerostackError"},
    "ErrorResponse": {"SDKBaseError"},
    "SDKError": {"SDKBaseError"},
    "ResponseValidationError": {"SDKBaseError"},
    "RequestError": {"AerostackError"},
    "TransportError": {"RequestError"},
    "TimeoutException": {"TransportError", "TimeoutError"},
    "ConnectTimeout": {"TimeoutException"},
    "ReadTimeout": {"TimeoutException"},
    "WriteTimeout": {"TimeoutException"},
    "NetworkError": {"TransportError", "ConnectionError"},
    "ConnectError": {"NetworkError"},
    "ReadError": {"NetworkError"},
    "WriteError": {"NetworkError"},
    "ProtocolError": {"TransportError"},
    "LocalProtocolError": {"ProtocolError"},
    "RemoteProtocolError": {"ProtocolError"},
    "ProxyError": {"TransportError", "ConnectionError"},
    "UnsupportedProtocol": {"TransportError"},
    "DecodingError": {"RequestError"},
    "TooManyRedirects": {"RequestError"},
    "NoResponseError": {"AerostackError"},
    "ClosedError": {"AerostackError", "RuntimeError"},
}


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
    def test_stands_on_the_builtins_that_a_caller_would_catch(self):
        self.assertEqual({error.__name__: {base.__name__ for base in error.__bases__} for error in ALL}, TREE)

    def test_says_of_each_what_it_is(self):
        for error in ALL:
            self.assertTrue((error.__dict__.get("__doc__") or "").strip().endswith("."), error.__name__)

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
                pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
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
        request = HttpClient().build_request("POST", "http://h/", headers={"X-Aerostack-Key": "sesame"})
        for error in (
            errors.ReadError("m", request=request),
            errors.SDKError("m", aerostack_lite.Response(500, request=request)),
        ):
            self.assertNotIn(b"sesame", pickle.dumps(error))

    def test_of_a_foreign_response_too(self):
        class Foreign:  # as httpx's does, it knows its request
            status_code, text, headers, request = 500, "t\u00e9xt", {"Content-Type": "text/plain"}, "sesame"

        error = errors.SDKError("m", Foreign())
        error.raw_response.request = aerostack_lite.Headers([("X-Aerostack-Key", "sesame")])
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
        self.assertEqual(str(uuid.UUID(error.request_id)), error.request_id)
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


class AVeryLongSecret(unittest.TestCase):
    """A password of any length that a server sends back is masked first, and what is too long is cut afterwards."""

    PASSWORDS = ("0123456789" * 1500, 'a"b\\c\u00e9' * 2500, "x" * 14_999 + "y")

    def failure(self, password, body, content_type="text/plain"):
        client = FakeClient(answer(body, 401, content_type))
        with self.assertRaises(errors.AerostackError) as caught:
            SDK(KEY, client=client, retry_config=None).authentication.auth_signin(email="e", password=password)
        return caught.exception

    def test_is_masked_whole(self):
        for password in self.PASSWORDS:
            message = "no: %s." % password
            for body, content_type in (
                (message, "text/plain"),
                (message + password, "text/html"),
                (json.dumps({"code": "AUTH_INVALID_CREDENTIALS", "message": message}), "application/json"),
                (json.dumps({"detail": message}), "application/json"),
            ):
                with self.subTest(password[:8], body=body[:20]):
                    error = self.failure(password, body, content_type)
                    shown = "%s %r %s" % (error, error, error.args)
                    self.assertTrue("***" in shown, shown[:100])
                    for secret in (password, json.dumps(password)[1:-1]):
                        self.assertFalse(secret[:20] in shown, shown[:100])
                        self.assertFalse(secret[-20:] in shown, shown[-100:])

    def test_takes_little_memory(self):
        for password in self.PASSWORDS:
            self.failure(password, "no: " + password)
            for body in ("no: %s." % password, "no: " + password[:10_000], password * 3, "no"):
                with self.subTest(password[:8], size=len(body)):
                    peak = peak_memory(lambda: self.failure(password, body))
                    self.assertLess(peak, 10 * (len(body) + len(password)) * 4 + 100_000)


class WhereNobodyListens(CleanEnvironment):
    """The system's own words for a refused connection. Windows has them in another place than os.strerror."""

    def test_the_error_says_that_it_was_refused(self):
        words = {errno.ECONNREFUSED: "No connection: the target machine actively refused it."}
        with mock.patch("os.strerror", "Unknown error {}".format), mock.patch.object(
            socket, "errorTab", words, create=True
        ):
            self.assert_refused()

    def test_the_error_says_so_wherever_the_words_are(self):
        self.assert_refused()

    def assert_refused(self):
        port = free_port()
        for options in ({}, {"proxy": "http://127.0.0.1:%d" % port}):
            for host in ("127.0.0.1", "localhost"):
                url = "http://%s:%d" % (host, port)
                clients = HttpClient(**options), aerostack_lite.AsyncHttpClient(**options)
                sdk = SDK(KEY, server_url=url, client=clients[0], async_client=clients[1], retry_config=None)
                for call in both(sdk, "cache", "cache_get"):
                    with self.subTest(options, host=host):
                        error = self.raises(errors.ConnectError, call, key="k")
                        self.assertRegex(str(error), "(?i)refused")
                        self.assertNotIn("Unknown", str(error))
                        self.assertIn(str(port), str(error))
                        self.assertIsInstance(error.__cause__, ConnectionRefusedError)
                        self.assertEqual(error.__cause__.errno, errno.ECONNREFUSED)
                for client in clients:
                    client.close()


class AProxyThatCannotBeReached(CleanEnvironment):
    """As in httpx, that is a ConnectError: the proxy refused nothing, for it was never asked."""

    URLS = ("http://origin.test/", "https://origin.test/")

    def assert_named(self, error, netloc):
        self.assertIs(type(error), errors.ConnectError)
        self.assertNotIsInstance(error, errors.ProxyError)
        self.assertIsInstance(error.__cause__, OSError)
        self.assertIn(netloc, str(error))
        self.assertIn("proxy", str(error))
        self.assertEqual((error.attempts, error.maybe_processed), (1, False))

    def failures(self, url, **options):
        """The errors of a plain call and of its twin through clients of these settings."""
        clients = HttpClient(**options), aerostack_lite.AsyncHttpClient(**options)
        sdk = SDK(KEY, server_url=url, client=clients[0], async_client=clients[1], retry_config=None)
        for call in both(sdk, "queue", "queue_enqueue"):
            yield self.raises(errors.AerostackError, call, type="t", data={})
        for client in clients:
            client.close()

    def test_because_nobody_listens(self):
        netloc = "127.0.0.1:%d" % free_port()
        for url in self.URLS:
            for error in self.failures(url, proxy="http://" + netloc):
                self.assert_named(error, netloc)

    def test_because_nobody_listens_at_what_the_environment_names(self):
        netloc = "127.0.0.1:%d" % free_port()
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            url = self.URLS[name == "HTTPS_PROXY"]
            with self.subTest(name), mock.patch.dict(os.environ, {name: netloc}):
                for error in self.failures(url):
                    self.assert_named(error, netloc)

    def test_because_its_name_has_no_address(self):
        look_up = socket.getaddrinfo

        def nowhere(host, *rest, **options):
            if host in ("nowhere.test", b"nowhere.test"):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return look_up(host, *rest, **options)

        with mock.patch("socket.getaddrinfo", nowhere):
            for url in self.URLS:
                for error in self.failures(url, proxy="http://nowhere.test:3128"):
                    self.assert_named(error, "nowhere.test:3128")

    def test_shows_no_password(self):
        netloc = "127.0.0.1:%d" % free_port()
        for url in self.URLS:
            for error in self.failures(url, proxy="http://ada:sesame@" + netloc):
                self.assert_named(error, netloc)
                self.assertNotIn("sesame", "%s %r %r" % (error, error, error.__cause__))

    def test_is_tried_again_as_any_connection_that_is_refused(self):
        again = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 30), True)
        with HttpClient(proxy="http://127.0.0.1:%d" % free_port()) as client:
            sdk = SDK(KEY, server_url=self.URLS[0], client=client, retry_config=again)
            error = self.raises(errors.ConnectError, sdk.queue.queue_enqueue, type="t", data={})
        self.assertGreater(error.attempts, 1)


class AnArgumentsError(unittest.TestCase):
    LOCATIONS = [  # an operation, a request that it refuses, and where
        ("storage_upload", {"key": "k", "file": {"file_name": "", "content": b"x"}}, ("body", "file", "file_name")),
        ("storage_upload", {"key": "k", "file": {"fileName": "", "content": b"x"}}, ("body", "file", "file_name")),
        (
            "storage_upload",
            {"key": "k", "file": {"file_name": "f", "content": b"x", "content_type": "a\r\nb"}},
            ("body", "file", "content_type"),
        ),
        (
            "storage_upload",
            {"key": "k", "file": {"file_name": "f", "content": b"x", "Content-Type": "a\0"}},
            ("body", "file", "content_type"),
        ),
        ("storage_upload", {"key": "k", "file": {"file_name": "f", "content": "x"}}, ("body", "file", "content")),
        ("storage_upload", {"key": "k", "file": "photo.jpg"}, ("body", "file", "content")),
        ("storage_upload", {"key": "k", "file": {"file_name": 5, "content": b"x"}}, ("body", "file", "file_name")),
        ("storage_upload", {"key": "k", "file": b"x", "kee": 1}, ("body", "kee")),
        ("cache_set", {"key": "k", "value": math.nan}, ("body", "value")),
        ("cache_set", {"key": "k", "value": [0, {"a": [math.nan]}]}, ("body", "value", 1, "a", 0)),
        ("cache_set", {"key": "k", "value": 1, "ttl": "soon"}, ("body", "ttl")),
        ("db_query", {"sql": "s", "params": [0, object()]}, ("body", "params", 1)),
        ("queue_enqueue", {"type": "t", "data": {"a": {"b": math.inf}}}, ("body", "data", "a", "b")),
        ("services_invoke", {"service_name": "s", "data": {"a": b"\xff"}}, ("body", "data", "a")),
        ("auth_signup", {"email": "e", "password": "p", "metadata": {"a": [math.nan]}}, ("body", "metadata", "a", 0)),
        ("ai_chat", {"messages": [{}, {"role": 5}]}, ("body", "messages", 1, "role")),
        ("ai_chat", {"messages": [{}], "modell": "m"}, ("body", "modell")),
    ]
    OPTIONS = [
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": "5"}, "timeout_ms"),
        ({"server_url": "ftp://h"}, "server_url"),
        ({"http_headers": {"X": "\n"}}, "http_headers"),
        ({"retries": RetryConfig("backoff", BackoffStrategy(-1, 1, 1, 1), True)}, "initial_interval"),
    ]

    def refusals(self, operation, *args, **options):
        """The error of a plain call and of its twin that were not sent."""
        client, async_client = FakeClient(), FakeAsyncClient()
        sdk = SDK(KEY, client=client, async_client=async_client)
        service = next(name for name in vars(sdk) if hasattr(getattr(sdk, name), operation))
        for call in both(sdk, service, operation):
            with self.assertRaises(errors.ValidationError) as caught:
                call(*args, **options)
            yield caught.exception
        self.assertEqual(client.sent + async_client.sent, [])

    def test_says_where_as_a_tuple_of_names(self):
        for operation, request, expected in self.LOCATIONS:
            for args, options in (((request,), {}), ((), request)):
                for error in self.refusals(operation, *args, **options):
                    with self.subTest(operation, expected=expected, keywords=bool(options)):
                        self.assertEqual([problem["loc"] for problem in error.errors()], [expected])
                        self.assertEqual(len(error.problems), error.error_count())

    def test_says_which_option(self):
        for options, name in self.OPTIONS:
            for error in self.refusals("cache_get", key="k", **options):
                with self.subTest(name):
                    self.assertEqual([problem["loc"] for problem in error.errors()], [(name,)])

    def test_of_a_request_given_twice_names_each_field(self):
        for error in self.refusals("cache_set", {"key": "k", "value": 1}, key="k", value=1):
            for problem in error.errors():
                self.assertTrue(set(problem["loc"]) <= {"body", "request", "key", "value"}, problem["loc"])

    def test_of_a_file_that_cannot_be_read_names_the_file(self):
        for path in ("no such file", "nul\0"):
            for error in self.refusals("storage_upload", key="k", file=pathlib.Path(path)):
                for problem in error.errors():
                    self.assertEqual(problem["loc"][:2], ("body", "file"))
                    self.assertTrue(set(problem["loc"]) <= {"body", "file", "content"}, problem["loc"])

    def test_lists_its_problems(self):
        with self.assertRaises(errors.ValidationError) as caught:
            SDK(KEY, client=FakeClient()).ai.ai_chat(messages=[{"role": 5}], modell="m")
        error = caught.exception
        self.assertEqual(error.error_count(), 2)
        self.assertEqual(
            [problem["loc"] for problem in error.errors()], [("body", "messages", 0, "role"), ("body", "modell")]
        )
        self.assertEqual({frozenset(problem) for problem in error.errors()}, {frozenset(["loc", "type", "msg"])})
        self.assertTrue(str(error).startswith("2 validation errors for ai_chat\nbody.messages[0].role: "))

    def test_of_a_model_names_the_model(self):
        with self.assertRaises(errors.ValidationError) as caught:
            models.CacheGetRequestBody()
        self.assertEqual(str(caught.exception), "1 validation error for CacheGetRequestBody\nkey: Field required")
