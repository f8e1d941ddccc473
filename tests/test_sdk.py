"""The SDK itself: key, servers, options, clients, and how it is closed."""

import asyncio
import gc
import inspect
import logging
import math
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import unittest
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, SERVERS, UNSET, BackoffStrategy, RetryConfig, errors
from tests.recording_server import (
    EXAMPLES,
    KEY,
    CleanEnvironment,
    FakeAsyncClient,
    FakeClient,
    RecordingCase,
    RecordingServer,
    answer,
    both,
    every_operation,
)
from tests.scripted_server import at_once

PRODUCTION, LOCAL = "https://api.aerostack.ai/v1", "http://localhost:8787/v1"
AT_ONCE = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 5000), False)
ROOT = str(pathlib.Path(aerostack_lite.__file__).parent)

BAD_URLS = [
    "api.aerostack.ai/v1",
    "//api.aerostack.ai/v1",
    "ftp://h/v1",
    "file:///etc/passwd",
    "data:,x",
    "http://",
    "http:///v1",
    "https:/h",
    "http://:80/v1",
    "http://h:99999/v1",
    "http://h:0/v1",
    "http://h:-1/v1",
    "http://h:x/v1",
    "http://[::1",
    "http://[::1/v1",
    "http://::1/v1",
    "http://h/v1?a=b",
    "http://h/v1#f",
    "http://h?",
    "http://h/v1\r\nX: y",
    "http://h\n/v1",
    "http://h\0/v1",
    "http://h /v1",
    "http://\u00e9.example/v1",
    "http://h%2Fevil/v1",
    " http://h/v1",
    "http://user:sesame@",
    "http://user:sesame@h:99999/v1",
    "http://user:sesame@h/v1?x",
]


class TheConstructor(CleanEnvironment):
    def test_has_the_official_parameters_in_the_official_order(self):
        parameters = list(inspect.signature(SDK).parameters.values())
        self.assertEqual(
            [parameter.name for parameter in parameters],
            [
                "api_key_auth",
                "server_idx",
                "server_url",
                "url_params",
                "client",
                "async_client",
                "retry_config",
                "timeout_ms",
                "debug_logger",
                "max_workers",
            ],
        )
        self.assertEqual(
            [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY], ["max_workers"]
        )

    def test_opens_and_starts_nothing(self):
        before = threading.enumerate()
        sdk = SDK(KEY, server_url="http://127.0.0.1:1")
        self.assertEqual(threading.enumerate(), before)
        sdk.close()

    def test_keeps_one_object_for_each_service(self):
        sdk = SDK(KEY)
        for service in ("ai", "authentication", "cache", "database", "queue", "services", "storage"):
            self.assertIs(getattr(sdk, service), getattr(sdk, service))
            self.assertEqual(type(getattr(sdk, service)).__name__, service.capitalize())
            self.assertIn(service, dir(sdk))

    def test_leaves_unknown_attributes_unknown(self):
        sdk = SDK(KEY)
        self.assertEqual(
            str(self.raises(AttributeError, getattr, sdk, "chache")), "'SDK' object has no attribute 'chache'"
        )
        self.raises(AttributeError, getattr, sdk.cache, "cache_sett")

    def test_refuses_options_that_make_no_sense(self):
        for option, kinds in {
            "timeout_ms": {
                "5": TypeError,
                True: TypeError,
                (): TypeError,
                0: ValueError,
                -1: ValueError,
                math.nan: ValueError,
                -math.inf: ValueError,
            },
            "max_workers": {0: ValueError, -1: ValueError, "4": TypeError, True: TypeError},
            "client": {"": TypeError, 5: TypeError},
            "async_client": {"": TypeError, 5: TypeError},
            "server_url": {5: TypeError, b"http://own": TypeError},
            "url_params": {5: TypeError},
        }.items():
            for value, kind in kinds.items():
                with self.subTest(option, value=value):
                    error = self.raises(errors.ValidationError, SDK, KEY, **{option: value})
                    self.assertIsInstance(error, kind)
                    self.assertIn(option, str(error))
        error = self.raises(errors.ValidationError, SDK, KEY, retry_config=RetryConfig("backoff", None, True))
        self.assertIn("initial_interval", str(error))

    def test_takes_no_unknown_option(self):
        self.raises(TypeError, SDK, KEY, timeout=5)


class TheKey(RecordingCase):
    def sent_keys(self):
        return [request.values("X-Aerostack-Key") for request in self.server.requests]

    def test_is_an_argument_of_text_or_bytes(self):
        for given in ("a-key", b"a-key", "  a-key\r\n"):
            for call in both(self.sdk(given), "cache", "cache_get"):
                call(key="k")
                self.assertEqual(self.sent_keys()[-1], ["a-key"])

    def test_may_come_from_the_environment(self):
        os.environ["AEROSTACK_API_KEY"] = "from-outside\n"
        self.sdk(None).cache.cache_get(key="k")
        self.sdk("given").cache.cache_get(key="k")
        self.assertEqual(self.sent_keys(), [["from-outside"], ["given"]])

    def test_may_come_from_a_callable_that_is_asked_once_for_each_call(self):
        keys = iter(["one", "two\n", "three"])
        sdk = self.sdk(lambda: next(keys), retry_config=AT_ONCE)
        self.assertEqual(next(keys), "one")  # making the SDK did not ask
        self.server.answers = [answer(status=503), answer(status=503), answer()]
        sdk.cache.cache_get(key="k")
        asyncio.run(sdk.cache.cache_get_async(key="k"))
        self.assertEqual(self.sent_keys(), [["two"]] * 3 + [["three"]])

    def test_that_fails_to_come_stops_the_call(self):
        for wrong in (None, 5, [], "", "  ", "a\nb"):
            for call in both(self.sdk(lambda: wrong), "cache", "cache_get"):
                self.assertIn("api_key_auth", str(self.raises(errors.ValidationError, call, key="k")))
        trouble = KeyError("vault")

        def fail():
            raise trouble

        for call in both(self.sdk(fail), "cache", "cache_get"):
            self.assertIs(self.raises(KeyError, call, key="k"), trouble)
        self.assertEqual(self.server.requests, [])

    def test_is_not_asked_for_by_a_request_that_is_refused(self):
        asked = []
        self.raises(errors.ValidationError, self.sdk(lambda: asked.append(1) or "k").cache.cache_get, keyy="k")
        self.assertEqual(asked, [])

    def test_must_be_there(self):
        for absent in (None, "", "   ", b""):
            error = self.raises(errors.ValidationError, SDK, absent)
            self.assertIn("AEROSTACK_API_KEY", str(error))
        os.environ["AEROSTACK_API_KEY"] = ""
        self.raises(errors.ValidationError, SDK)

    def test_must_be_text(self):
        for wrong in (5, ["k"], {"k": 1}, object()):
            self.assertIsInstance(self.raises(errors.ValidationError, SDK, wrong), TypeError)

    def test_that_could_break_out_of_its_header_is_refused_unseen(self):
        for wrong in (
            "sesame\r\nX: y",
            "ses\name",
            "ses\0ame",
            "s\u00e9same",
            "sesame\x7f",
            b"ses\xffame",
            "ses\u2028ame",
        ):
            with self.subTest(wrong):
                error = self.raises(errors.ValidationError, SDK, wrong)
                self.assertNotIn("same", str(error) + repr(error))

    def test_is_shown_by_no_repr(self):
        sdk = self.sdk("sesame-sesame")
        sdk.cache.cache_get(key="k")
        for thing in (
            sdk,
            sdk.sdk_configuration,
            sdk.sdk_configuration.security,
            sdk.cache,
            sdk.sdk_configuration.client,
        ):
            self.assertNotIn("sesame", repr(thing) + str(thing))


class Servers(CleanEnvironment):
    def url(self, options, **call_options):
        client = FakeClient()
        SDK(KEY, client=client, **options).cache.cache_get(key="k", **call_options)
        return client.built[0][1]

    def test_are_the_official_two(self):
        self.assertEqual(SERVERS, [PRODUCTION, LOCAL])

    def test_the_nearest_setting_wins(self):
        for options, call_options, expected in [
            ({}, {}, PRODUCTION),
            ({"server_idx": 0}, {}, PRODUCTION),
            ({"server_idx": 1}, {}, LOCAL),
            ({"server_url": ""}, {}, PRODUCTION),
            ({"server_url": "", "server_idx": 1}, {}, LOCAL),
            ({"server_url": "http://own/v2"}, {}, "http://own/v2"),
            ({"server_url": "http://own/v2", "server_idx": 1}, {}, "http://own/v2"),
            ({"server_url": "http://own/v2"}, {"server_url": None}, "http://own/v2"),
            ({"server_url": "http://own/v2"}, {"server_url": "https://other"}, "https://other"),
            ({"server_idx": 1}, {"server_url": "https://other:444/x"}, "https://other:444/x"),
        ]:
            with self.subTest(options, call_options=call_options):
                self.assertEqual(self.url(options, **call_options), expected + "/cache/get")
                self.assertEqual(
                    SDK(KEY, **options).sdk_configuration.get_server_details(),
                    (self.url(options)[: -len("/cache/get")], {}),
                )

    def test_the_environment_names_one_for_those_who_name_none(self):
        os.environ["AEROSTACK_SERVER_URL"] = "http://outside:1/v1/"
        self.assertEqual(self.url({}), "http://outside:1/v1/cache/get")
        self.assertEqual(self.url({"server_idx": 0}), PRODUCTION + "/cache/get")
        self.assertEqual(self.url({"server_url": "http://own"}), "http://own/cache/get")
        self.assertEqual(self.url({}, server_url="http://own"), "http://own/cache/get")
        os.environ["AEROSTACK_SERVER_URL"] = "nonsense"
        self.raises(errors.ValidationError, SDK, KEY)

    def test_slashes_at_the_end_fold(self):
        for slashes in ("", "/", "//", "///"):
            self.assertEqual(self.url({"server_url": "http://own/v1" + slashes}), "http://own/v1/cache/get")
            self.assertEqual(self.url({}, server_url="http://own" + slashes), "http://own/cache/get")

    def test_parameters_fill_the_templates_of_the_client_s_url_only(self):
        with RecordingServer() as server:
            params = {"host": server.netloc, "version": "v{host}", "unused": ""}
            with SDK(KEY, server_url="http://{host}/{version}/{missing}", url_params=params) as sdk:
                sdk.cache.cache_get(key="k")
                sdk.cache.cache_get(key="k", server_url="http://%s/{version}" % server.netloc)
            self.assertEqual(
                [request.target for request in server.requests],
                ["/v%7Bhost%7D/%7Bmissing%7D/cache/get", "/%7Bversion%7D/cache/get"],
            )

    def test_parameters_must_be_text_and_lead_to_a_url(self):
        error = self.raises(errors.ValidationError, SDK, KEY, server_url="http://{host}", url_params={"host": 5})
        self.assertIsInstance(error, TypeError)
        self.raises(errors.ValidationError, SDK, KEY, server_url="http://{host}")
        self.raises(errors.ValidationError, SDK, KEY, server_url="http://{host}", url_params={"host": "h?x="})
        self.assertEqual(self.url({"url_params": {"host": "x"}}), PRODUCTION + "/cache/get")

    def test_the_path_is_percent_encoded_once(self):
        with RecordingServer() as server, SDK(KEY, server_url="http://%s/a b/\u00e9/%%2F%%20" % server.netloc) as sdk:
            sdk.cache.cache_get(key="k")
            self.assertEqual(server.requests[0].target, "/a%20b/%C3%A9/%2F%20/cache/get")

    def test_credentials_become_basic_authorization(self):
        with RecordingServer() as server, SDK(KEY, server_url="http://ada:s%%40same@%s/v1" % server.netloc) as sdk:
            sdk.cache.cache_get(key="k")
            self.assertEqual(server.requests[0].values("Authorization"), ["Basic YWRhOnNAc2FtZQ=="])
            self.assertEqual(server.requests[0].values("Host"), [server.netloc])

    def test_an_index_must_be_one(self):
        for wrong, kind in (
            (2, IndexError),
            (-1, IndexError),
            (-2, IndexError),
            (99, IndexError),
            ("0", TypeError),
            (True, TypeError),
            (0.0, TypeError),
        ):
            with self.subTest(wrong):
                error = self.raises(kind, SDK, KEY, wrong)
                self.assertIsInstance(error, errors.ValidationError)
                self.assertIn("server_idx", str(error))

    def test_a_url_must_be_one_when_the_sdk_is_made(self):
        for wrong in BAD_URLS:
            with self.subTest(wrong):
                error = self.raises(errors.ValidationError, SDK, KEY, server_url=wrong)
                self.assertIn("server_url", str(error))
                self.assertNotIn("sesame", str(error))

    def test_a_url_must_be_one_when_a_call_names_it(self):
        client, async_client = FakeClient(), FakeAsyncClient()
        sdk = SDK(KEY, client=client, async_client=async_client)
        for wrong in BAD_URLS + [""]:
            for call in both(sdk, "cache", "cache_get"):
                with self.subTest(wrong):
                    self.assertNotIn(
                        "sesame", str(self.raises(errors.ValidationError, call, key="k", server_url=wrong))
                    )
        self.assertEqual(client.built + async_client.built, [])

    def test_may_change_between_calls(self):
        client = FakeClient()
        sdk = SDK(KEY, client=client)
        sdk.sdk_configuration.server_idx = 1
        sdk.cache.cache_get(key="k")
        sdk.sdk_configuration.server_url = "http://own"
        sdk.cache.cache_get(key="k")
        self.assertEqual([url for _, url, _ in client.built], [LOCAL + "/cache/get", "http://own/cache/get"])


class TheConfiguration(CleanEnvironment):
    def test_has_the_official_attributes(self):
        logger, client = aerostack_lite.utils.get_default_logger(), FakeClient()
        configuration = SDK(KEY, 1, "http://own", None, client, None, AT_ONCE, 250, logger).sdk_configuration
        self.assertIsInstance(configuration, aerostack_lite.SDKConfiguration)
        self.assertEqual(
            (configuration.server_idx, configuration.server_url, configuration.timeout_ms), (1, "http://own", 250)
        )
        self.assertIs(configuration.retry_config, AT_ONCE)
        self.assertIs(configuration.debug_logger, logger)
        self.assertIs(configuration.client, client)
        self.assertIsInstance(configuration.async_client, aerostack_lite.AsyncHttpClient)
        self.assertEqual((configuration.language, configuration.openapi_doc_version), ("python", "1.0.0"))
        self.assertEqual(configuration.sdk_version, aerostack_lite.__version__)
        self.assertEqual(configuration.user_agent, aerostack_lite.USER_AGENT)
        self.assertEqual(configuration.security.api_key_auth, KEY)

    def test_the_constants_agree(self):
        self.assertEqual(aerostack_lite.VERSION, aerostack_lite.__version__)
        self.assertIn(aerostack_lite.__version__, aerostack_lite.USER_AGENT)
        self.assertRegex(aerostack_lite.__version__, r"^\d+\.\d+\.\d+$")


class RetriesOfACall(RecordingCase):
    def attempts(self, sdk, **options):
        """How often each operation and twin is tried while the server is overloaded once."""
        counts = set()
        for service, operation in every_operation():
            for call in both(sdk, service, operation.name):
                self.server.requests, self.server.answers = [], [answer(b"", status=503), answer()]
                try:
                    call(EXAMPLES[operation.name][0], **options)
                except errors.SDKError as error:
                    self.assertEqual((error.status_code, error.attempts), (503, 1))
                counts.add(len(self.server.requests))
        return counts

    def test_win_over_those_of_the_client(self):
        for client_wide, call_options, expected in [
            (AT_ONCE, {}, {2}),
            (AT_ONCE, {"retries": UNSET}, {2}),
            (AT_ONCE, {"retries": None}, {1}),
            (None, {}, {1}),
            (None, {"retries": UNSET}, {1}),
            (None, {"retries": AT_ONCE}, {2}),
            (UNSET, {"retries": None}, {1}),
        ]:
            with self.subTest(client_wide=client_wide, **call_options):
                self.assertEqual(self.attempts(self.sdk(retry_config=client_wide), **call_options), expected)

    def test_are_the_second_positional_argument(self):
        sdk = self.sdk(retry_config=None)
        self.server.answers = [answer(b"", status=503), answer()]
        sdk.cache.cache_get({"key": "k"}, AT_ONCE)
        self.assertEqual(len(self.server.requests), 2)

    def test_of_another_strategy_are_one_attempt(self):
        other = RetryConfig("none", BackoffStrategy(1, 1, 1, 5000), True)
        self.assertEqual(self.attempts(self.sdk(retry_config=other)), {1})


class TheTimeout(CleanEnvironment):
    def handed_over(self, client_wide, **call_options):
        client = FakeClient()
        SDK(KEY, client=client, timeout_ms=client_wide).cache.cache_get(key="k", **call_options)
        return client.built[0][2].get("timeout", "nothing")

    def test_is_handed_to_a_client_of_yours_in_seconds_if_you_set_one(self):
        self.assertEqual(self.handed_over(None), "nothing")
        self.assertEqual(self.handed_over(250), 0.25)
        self.assertEqual(self.handed_over(250, timeout_ms=1500.5), 1.5005)
        self.assertEqual(self.handed_over(250, timeout_ms=None), 0.25)
        self.assertIsNone(self.handed_over(math.inf))

    def test_of_a_call_must_make_sense(self):
        client = FakeClient()
        sdk = SDK(KEY, client=client, async_client=FakeAsyncClient())
        for wrong, kind in (
            ("5", TypeError),
            (True, TypeError),
            (0, ValueError),
            (-1, ValueError),
            (math.nan, ValueError),
        ):
            for call in both(sdk, "cache", "cache_get"):
                self.assertIsInstance(self.raises(errors.ValidationError, call, key="k", timeout_ms=wrong), kind)
        self.assertEqual(client.built, [])


class ClientsOfYourOwn(CleanEnvironment):
    def setUp(self):
        super().setUp()
        self.client, self.async_client = FakeClient(), FakeAsyncClient()
        self.sdk = SDK(KEY, client=self.client, async_client=self.async_client, server_url="http://own")

    def test_are_asked_in_the_official_way(self):
        for service, operation in every_operation():
            for client, call in zip((self.client, self.async_client), both(self.sdk, service, operation.name)):
                with self.subTest(operation.name):
                    call(EXAMPLES[operation.name][0])
                    method, url, options = client.built[-1]
                    self.assertEqual((method, url), ("POST", "http://own" + operation.path))
                    self.assertEqual(set(options), {"content", "headers"})
                    self.assertIs(type(options["headers"]), dict)
                    self.assertEqual(options["headers"]["X-Aerostack-Key"], KEY)
                    self.assertEqual(client.sent[-1], (len(client.built) - 1, {"stream": False}))
                    if EXAMPLES[operation.name][1]:
                        self.assertEqual(options["content"], EXAMPLES[operation.name][1])

    def test_cannot_send_an_upload_twice_that_can_be_read_once(self):
        self.sdk.storage.storage_upload(key="k", file=iter([b"block"]))
        content = self.client.built[0][2]["content"]
        self.assertIn(b"block", b"".join(content))
        self.raises(errors.LocalProtocolError, list, content)

    def test_that_are_awaited_are_refused_as_plain_ones(self):
        sdk = SDK(KEY, client=FakeAsyncClient(), server_url="http://own")
        self.assertIn("async_client", str(self.raises(errors.ArgumentTypeError, sdk.cache.cache_get, key="k")))

    def test_get_one_request_for_all_attempts(self):
        client = FakeClient(answer(status=503), answer(status=503), answer())
        SDK(KEY, client=client, retry_config=AT_ONCE).cache.cache_get(key="k")
        self.assertEqual((len(client.built), [request for request, _ in client.sent]), (1, [0, 0, 0]))

    def test_get_an_upload_as_blocks_of_bytes(self):
        self.sdk.storage.storage_upload(key="k", file=b"block")
        self.assertIn(b"block", b"".join(self.client.built[0][2]["content"]))

        async def upload():
            await self.sdk.storage.storage_upload_async(key="k", file=b"block")
            return b"".join([block async for block in self.async_client.built[0][2]["content"]])

        self.assertIn(b"block", asyncio.run(upload()))
        for client in (self.client, self.async_client):
            self.assertRegex(client.built[0][2]["headers"]["Content-Length"], "^[0-9]+$")

    def test_raise_what_they_raise(self):
        class Trouble(Exception):
            pass

        self.client.answers = self.async_client.answers = [Trouble("mine")]
        for call in both(self.sdk, "cache", "cache_get"):
            self.assertIs(self.raises(Trouble, call, key="k"), self.client.answers[0])

    def test_that_return_nothing_are_an_error(self):
        self.client.answers = self.async_client.answers = [None]
        for call in both(self.sdk, "cache", "cache_get"):
            error = self.raises(errors.NoResponseError, call, key="k")
            self.assertEqual(str(error), "No response received")
            self.assertNotIsInstance(error, errors.SDKBaseError)

    def test_are_never_closed_by_us(self):
        with self.sdk:
            pass

        async def leave():
            async with self.sdk:
                pass

        asyncio.run(leave())
        self.assertFalse(self.client.closed or self.async_client.closed)

    def test_must_have_the_three_methods(self):
        for name in ("build_request", "send", "close"):
            client = type(
                "Client",
                (),
                {other: (lambda self: None) for other in ("build_request", "send", "close") if other != name},
            )()
            error = self.raises(errors.ValidationError, SDK, KEY, client=client)
            self.assertIn(name, str(error))
            self.assertIsInstance(error, TypeError)
        self.assertIn("aclose", str(self.raises(errors.ValidationError, SDK, KEY, async_client=FakeClient())))


class TheDebugLogger(RecordingCase):
    def test_hears_of_each_request_and_each_response_and_of_no_secret(self):
        class Logger:
            def debug(self, message, *values, **_):
                lines.append(message % values)

        for service, operation in every_operation():
            for call in both(self.sdk("sesame-sesame", debug_logger=Logger()), service, operation.name):
                lines = []
                with self.subTest(operation.name):
                    call(EXAMPLES[operation.name][0])
                    self.assertEqual([line.partition(":")[0] for line in lines], ["Request", "Response"])
                    self.assertIn("URL: " + self.server.url + operation.path, lines[0])
                    self.assertIn(operation.name, lines[0])
                    self.assertIn("Status Code: 200", lines[1])
                    self.assertNotRegex("".join(lines), "sesame|correct horse")

    def test_is_given_the_exception_of_a_failure(self):
        class Logger:
            def debug(self, message, *values, **options):
                heard.append((message % values, options.get("exc_info")))

        sdk = self.sdk(server_url="http://127.0.0.1:1", debug_logger=Logger(), retry_config=None)
        for call in both(sdk, "cache", "cache_get"):
            heard = []
            error = self.raises(errors.ConnectError, call, key="k")
            self.assertEqual([text.partition(":")[0] for text, _ in heard], ["Request", "Request Exception"])
            self.assertFalse(heard[0][1])
            self.assertTrue(heard[1][1], "no exc_info")
            if isinstance(heard[1][1], BaseException):
                self.assertIs(heard[1][1], error)


class TheLoggerOfTheProgram(RecordingCase):
    """A signal's handler may raise anywhere, also within logging, whose lock Python before 3.13 then leaves locked."""

    def setUp(self):
        super().setUp()
        logger = logging.getLogger("aerostack_lite")
        self.addCleanup(logger.setLevel, logger.level)
        self.logger = logger

    def test_is_looked_up_once_at_most(self):
        for level in (logging.WARNING, logging.DEBUG):
            self.logger.setLevel(level)
            with mock.patch.object(logging, "getLogger", side_effect=logging.getLogger) as get_logger:
                with mock.patch.object(
                    logging.Manager, "getLogger", autospec=True, return_value=self.logger
                ) as manager:
                    sdk = self.sdk()
                    for service, operation in every_operation():
                        for call in both(sdk, service, operation.name):
                            call(EXAMPLES[operation.name][0])
            with self.subTest(level):
                self.assertLessEqual(get_logger.call_count, 1)
                self.assertLessEqual(manager.call_count, 1)

    def test_keeps_no_call_waiting_while_its_lock_is_held(self):
        for level in (logging.WARNING, logging.DEBUG):
            self.logger.setLevel(level)
            sdk, done = self.sdk(), []
            handler = logging.StreamHandler(open(os.devnull, "w"))
            self.addCleanup(handler.stream.close)
            self.logger.addHandler(handler)
            self.addCleanup(self.logger.removeHandler, handler)
            for call in both(sdk, "cache", "cache_get"):
                call(key="k")  # with which the logger was found, if it was needed

            def work():
                for call in both(sdk, "cache", "cache_get"):
                    done.append(call(key="k"))

            thread = threading.Thread(target=work, daemon=True)
            with logging._lock:  # where a signal's handler that raised has left it
                thread.start()
                thread.join(5)
                with self.subTest(level):
                    self.assertEqual(len(done), 2)
            thread.join()

    def test_may_be_set_up_after_the_sdk_was_made(self):
        lines = []

        class Handler(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())

        sdk, handler = self.sdk(), Handler()
        sdk.cache.cache_get(key="k")
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(handler)
        self.addCleanup(self.logger.removeHandler, handler)
        for call in both(sdk, "cache", "cache_get"):
            call(key="k")
        self.assertEqual([line.partition(":")[0] for line in lines], ["Request", "Response"] * 2)
        self.logger.setLevel(logging.INFO)
        sdk.cache.cache_get(key="k")
        self.assertEqual(len(lines), 4)

    def test_may_be_imported_after_the_sdk_was_made(self):
        program = textwrap.dedent("""
            import sys
            from aerostack_lite import SDK
            sdk = SDK("key", server_url=sys.argv[1])
            assert "logging" not in sys.modules
            import logging
            logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s %(levelname)s")
            sdk.cache.cache_get(key="k")
        """)
        with RecordingServer() as server:
            run = subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-c",
                    "import sys; sys.path.insert(0, %r)\n%s" % (ROOT, program),
                    server.url,
                ],
                timeout=30,
                capture_output=True,
            )
        self.assertEqual((run.returncode, run.stderr), (0, b""))
        self.assertEqual(run.stdout.splitlines(), [b"aerostack_lite DEBUG"] * 2)


class HalfMade(CleanEnvironment):
    """An object whose construction failed: a debugger and an error tracker show it, and it is deleted."""

    CLASSES = [
        *(getattr(aerostack_lite, name) for name in aerostack_lite.__all__ if name not in ("Headers", "Response")),
        *(getattr(aerostack_lite.models, name) for name in aerostack_lite.models.__all__),
    ]

    def test_has_a_repr(self):
        for made in self.CLASSES:
            if isinstance(made, type) and not issubclass(made, aerostack_lite.models.Role):
                with self.subTest(made.__name__):
                    try:
                        half = made.__new__(made)
                    except TypeError:  # an enum, or what is no class of objects
                        continue
                    self.assertIsInstance(repr(half), str)
                    self.assertIsInstance(str(half), str)
                    self.assertIsInstance("%r" % ([half],), str)

    def test_has_a_repr_where_its_constructor_failed(self):
        for make, seen in (
            (lambda: aerostack_lite.HttpClient(proxy="ftp://h"), aerostack_lite.HttpClient),
            (lambda: aerostack_lite.HttpClient(max_connections=0), aerostack_lite.HttpClient),
            (lambda: aerostack_lite.AsyncHttpClient(max_workers=0), aerostack_lite.AsyncHttpClient),
            (lambda: aerostack_lite.AsyncHttpClient(proxy=5), aerostack_lite.AsyncHttpClient),
            (lambda: SDK(KEY, server_url="ftp://h"), SDK),
            (lambda: SDK(KEY, async_client=5), SDK),
            (lambda: SDK(KEY, max_workers=0), SDK),
            (lambda: aerostack_lite.models.AuthSigninRequestBody(email=5), aerostack_lite.models.AuthSigninRequestBody),
            (lambda: aerostack_lite.models.User(created_at="x"), aerostack_lite.models.User),
        ):
            with self.subTest(seen.__name__):
                found = []
                try:
                    make()
                except errors.AerostackError as error:  # for assertRaises would clear the frames
                    trace = error.__traceback__
                    while trace:
                        found += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, seen)]
                        trace = trace.tb_next
                for value in found:
                    self.assertIsInstance(repr(value) + str(value), str)

    def test_is_deleted_without_a_word(self):
        program = textwrap.dedent("""
            import gc
            import aerostack_lite
            from aerostack_lite import SDK, AsyncHttpClient, HttpClient, errors, models

            for make in (
                lambda: HttpClient(proxy="ftp://h"),
                lambda: HttpClient(max_connections=0),
                lambda: HttpClient(headers={"X": "\\n"}),
                lambda: HttpClient(handlers=5),
                lambda: HttpClient(no_such_setting=1),
                lambda: AsyncHttpClient(max_workers=0),
                lambda: AsyncHttpClient(proxy=5),
                lambda: AsyncHttpClient(no_such_setting=1),
                lambda: SDK(""),
                lambda: SDK("key", server_url="ftp://h"),
                lambda: SDK("key", client=5),
                lambda: SDK("key", async_client=5),
                lambda: SDK("key", max_workers=0),
                lambda: SDK("key", timeout_ms=0),
                lambda: models.File(),
            ):
                try:
                    make()
                except (TypeError, errors.AerostackError):
                    pass
                else:
                    raise SystemExit("it was made")
            for made in (SDK, HttpClient, AsyncHttpClient, models.File, errors.SDKError, aerostack_lite.Response):
                made.__new__(made)
            gc.collect()
            print("done")
        """)
        run = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", "-c", program],
            timeout=30,
            cwd=ROOT,
            capture_output=True,
        )
        self.assertEqual((run.returncode, run.stdout.split(), run.stderr.decode()), (0, [b"done"], ""))


class Closing(RecordingCase):
    def test_a_with_block_closes_the_synchronous_half_only(self):
        with self.sdk() as sdk:
            self.assertIsInstance(sdk, SDK)
            sdk.cache.cache_get(key="k")
        self.assert_closed(sdk.cache.cache_get)
        self.assertIsNone(sdk.sdk_configuration.client)
        asyncio.run(sdk.cache.cache_get_async(key="k"))

    def test_an_async_with_block_closes_the_asynchronous_half_only(self):
        async def use():
            async with self.sdk() as sdk:
                self.assertIsInstance(sdk, SDK)
                await sdk.cache.cache_get_async(key="k")
            return sdk

        sdk = asyncio.run(use())
        self.assert_closed(lambda **fields: asyncio.run(sdk.cache.cache_get_async(**fields)))
        self.assertIsNone(sdk.sdk_configuration.async_client)
        sdk.cache.cache_get(key="k")

    def assert_closed(self, call):
        error = self.raises(errors.ClosedError, call, key="k")
        self.assertIsInstance(error, (errors.AerostackError, RuntimeError))
        self.assertIn("closed", str(error))

    def test_an_exception_leaves_the_block_and_it_is_closed_all_the_same(self):
        with self.assertRaises(ZeroDivisionError):
            with self.sdk() as sdk:
                raise ZeroDivisionError
        self.assert_closed(sdk.cache.cache_get)

    def test_every_operation_says_so(self):
        sdk = self.sdk()
        sdk.close()
        asyncio.run(sdk.aclose())
        for service, operation in every_operation():
            for call in both(sdk, service, operation.name):
                self.raises(errors.ClosedError, call, EXAMPLES[operation.name][0])
        self.assertEqual(self.server.requests, [])

    def test_twice_is_fine(self):
        sdk = self.sdk()
        for _ in range(2):
            sdk.close()
            asyncio.run(sdk.aclose())

    def test_works_before_the_first_call(self):
        with self.sdk():
            pass

    def test_one_sdk_serves_one_event_loop_after_another(self):
        sdk = self.sdk()
        for _ in range(3):
            asyncio.run(sdk.cache.cache_get_async(key="k"))
        self.assertEqual(len(self.server.requests), 3)

    def test_an_sdk_that_is_forgotten_closes_its_connections_and_threads(self):
        before = set(threading.enumerate())
        sdk = SDK(KEY, server_url=self.server.url)
        sdk.cache.cache_get(key="k")
        asyncio.run(sdk.cache.cache_get_async(key="k"))
        mine = [thread for thread in set(threading.enumerate()) - before if "Thread" not in thread.name]
        del sdk
        gc.collect()
        for thread in mine:
            thread.join(5)
            self.assertFalse(thread.is_alive(), thread)


class Leaving(unittest.TestCase):
    def test_without_closing_says_nothing(self):
        def check(ending):
            program = (
                textwrap.dedent("""
                import asyncio, gc, sys
                from aerostack_lite import SDK
                sdk = SDK("key", server_url=sys.argv[1])
                sdk.cache.cache_get(key="k")
                asyncio.run(sdk.cache.cache_get_async(key="k"))
                print("done", flush=True)
            """)
                + ending
            )
            with RecordingServer() as server:
                run = subprocess.run(
                    [sys.executable, "-W", "error", "-X", "dev", "-c", program, server.url],
                    timeout=30,
                    cwd=ROOT,
                    capture_output=True,
                )
                self.assertEqual((run.returncode, run.stdout.split(), run.stderr), (0, [b"done"], b""))

        at_once(check, "del sdk; gc.collect()", "sys.exit()")
