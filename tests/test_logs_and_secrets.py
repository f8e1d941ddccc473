"""What may be told and what may not: secrets planted everywhere, and looked for wherever anything is shown.

A secret is the API key, a user's password, the token that comes back, the passwords of a proxy, of a server's URL and
of a header of one's own, and a cookie. Shown means: logs, texts, reprs and pickles of errors, reprs of all objects,
the local variables of the file's own frames (which error trackers send home), the command line and its output.
"""

import asyncio
import base64
import contextlib
import copy
import errno
import functools
import gc
import io
import itertools
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
import unittest
import urllib.request
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, AsyncHttpClient, HttpClient, errors, models
from tests.interruption import InterruptedCase, Interruption
from tests.newcomer import MODULE, PATIENCE_SECONDS
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    answer,
    close,
    expect,
    free_port,
    hang,
    post,
    repeat,
    reset,
    until_gone,
)
from tests.test_command_line import CommandLineCase

SECRETS = {name: "planted-%s-7f3a" % name for name in ("key", "password", "token", "proxy", "url", "header", "cookie")}
FORMS = {
    name + how: form
    for name, secret in SECRETS.items()
    for how, form in (
        ("", secret),
        (" reversed", secret[::-1]),
        (" in hexadecimal", secret.encode().hex()),
        (" in Base64", base64.b64encode(("user:" + secret).encode()).decode()[:24]),  # whatever follows it
        (" quoted", secret.replace("-", "%2D")),
    )
}
OPERATIONS = [(operation.service, operation) for operation in aerostack_lite.OPERATIONS]
REQUESTS = {
    "ai_chat": {"messages": [{"role": "user", "content": "Hello"}]},
    "auth_signin": {"email": "a@b.c", "password": SECRETS["password"]},
    "auth_signup": {"email": "a@b.c", "password": SECRETS["password"], "metadata": {"api_key": SECRETS["header"]}},
    "cache_get": {"key": "k"},
    "cache_set": {"key": "k", "value": {"token": SECRETS["token"], "password": SECRETS["password"]}},
    "db_query": {"sql": "SELECT 1"},
    "queue_enqueue": {"type": "t", "data": {"password": SECRETS["password"]}},
    "services_invoke": {"service_name": "s", "data": {"authorization": SECRETS["header"]}},
    "storage_upload": {"key": "k", "file": b"content"},
}
WITH_SECRETS = ("auth_signup", "cache_set")  # to send; what comes back is the same for all
HEADERS = ["Set-Cookie: session=" + SECRETS["cookie"], "X-Token: " + SECRETS["token"]]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = {"token": SECRETS["token"], "expires_at": "2030-01-01T00:00:00Z", "user": {"email": "a@b.c"}}
ECHO = {
    "code": "VALIDATION_ERROR",
    "message": "no",
    "details": {"password": SECRETS["password"], "key": SECRETS["key"], "token": SECRETS["token"]},
}


def json_answer(body, status="200 OK", *headers):
    return answer(json.dumps(body).encode(), *HEADERS + list(headers), status=status)


class Shown:
    """All that was shown to anybody, by where."""

    def __init__(self):
        self.places = []

    def add(self, where, text):
        self.places.append((where, text if isinstance(text, str) else text.decode("latin-1")))

    def add_error(self, error):
        """An error and those that led to it, with the locals of this file's own frames."""
        seen = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            kind = type(error).__name__
            self.add("text of " + kind, "%s %r %r" % (error, error, error.args))
            for summary in traceback.StackSummary.extract(
                traceback.walk_tb(error.__traceback__), capture_locals=True, lookup_lines=False
            ):
                if os.path.abspath(summary.filename) == MODULE:
                    for name, value in (summary.locals or {}).items():
                        self.add("%s in %s(), line %d, under %s" % (name, summary.name, summary.lineno, kind), value)
            for name in ("request", "raw_response", "headers", "problems"):
                self.add("%s.%s" % (kind, name), repr(getattr(error, name, None)))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def add_failure(self, call):
        """What the error of a call shows, if it fails. `assertRaises` would clear its frames."""
        try:
            call()
        except BaseException as error:
            self.add_error(error)
            if isinstance(error, errors.RequestError):
                self.add("pickle of " + type(error).__name__, pickle.dumps(error, 0))

    def secrets(self):
        return sorted(
            {
                "%s is shown by %s" % (name, where)
                for where, text in self.places
                for name, form in FORMS.items()
                if form in text
            }
        )


class Recorder(logging.Handler):
    """Collects the log as the strictest of formatters would write it."""

    def __init__(self):
        super().__init__()
        self.records, self.lines = [], []

    def emit(self, record):
        self.records.append(record)
        self.lines.append(self.format(record) + repr(record.__dict__))


class LogCase(LoopbackTestCase):
    def setUp(self):
        super().setUp()
        logger, self.log = logging.getLogger("aerostack_lite"), Recorder()
        logger.addHandler(self.log)
        self.addCleanup(logger.removeHandler, self.log)
        self.addCleanup(logger.setLevel, logger.level)
        self.addCleanup(setattr, logger, "propagate", logger.propagate)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False

    def call_both_ways(self, service, operation, request, make_client, shown, **options):
        """One call by each twin; all that the SDK, its answer or its error show."""
        for suffix in ("", "_async"):
            client, settings = None, {}
            make = make_client and make_client(suffix)
            if make is not None:
                client = make
                settings = {"async_client" if suffix else "client": client}
            sdk = SDK(SECRETS["key"], **settings)
            method = getattr(getattr(sdk, service), operation.name + suffix)
            try:
                given = dict(request, **options)
                result = asyncio.run(method(**given)) if suffix else method(**given)
                shown.add("repr of %s" % type(result).__name__, "%r %s" % (result, result))
            except Exception as error:
                shown.add_error(error)
                if isinstance(error, errors.AerostackError):
                    again = pickle.loads(pickle.dumps(error))
                    shown.add("a copy of " + type(error).__name__, "%s %r %r" % (again, copy.copy(error), again.args))
                    if not isinstance(error, errors.SDKBaseError):  # whose body is the server's, whole
                        shown.add("pickle of " + type(error).__name__, pickle.dumps(error, 0))
            shown.add("repr of the SDK", "%r %r %r %r" % (sdk, sdk.sdk_configuration, getattr(sdk, service), client))
            shown.add("repr of security", repr(sdk.sdk_configuration.security))
            sdk.close()
            asyncio.run(sdk.aclose())
            if client is not None:
                client.close()

    def shown_by(self, call):
        """What the error of a call that fails shows."""
        shown = Shown()
        shown.add_failure(call)
        self.assertTrue(shown.places, "it did not fail")
        return shown

    def assert_nothing_leaks(self, shown):
        for number, line in enumerate(self.log.lines):
            shown.add("log record %s" % self.log.records[number].msg.partition("\n")[0], line)
        self.assertEqual(shown.secrets(), [])
        return shown


class SecretsTest(LogCase):
    def test_no_operation_shows_one_when_all_goes_well(self):
        for service, operation in OPERATIONS:
            with self.subTest(operation.name), ScriptedServer(repeat(expect, json_answer(GOOD))) as server:
                shown = Shown()
                url = "http://user:%s@%s/v1" % (SECRETS["url"], server.netloc)
                self.call_both_ways(
                    service,
                    operation,
                    REQUESTS[operation.name],
                    None,
                    shown,
                    server_url=url,
                    http_headers={"X-Signature": SECRETS["header"], "Authorization": "Bearer " + SECRETS["header"]},
                )
                self.assertEqual(len(server.requests), 2)
                self.assertIn(SECRETS["key"].encode(), server.requests[0])
                self.assertEqual(len(self.log.records) % 4, 0)
                self.assert_nothing_leaks(shown)

    def test_a_header_s_that_the_server_repeats(self):
        for name in ("X-Aerostack-Key", "Authorization", "X-Signature"):
            for where in ("http_headers", "HttpClient"):
                echo = answer(b"<p>who is %s?" % SECRETS["header"].encode(), status="500 No")
                with self.subTest(name, where=where), ScriptedServer([expect, echo]) as server:
                    of_client = {name: SECRETS["header"]} if where == "HttpClient" and name != "X-Aerostack-Key" else {}
                    client = HttpClient(headers=of_client)
                    self.addCleanup(client.close)
                    sdk = SDK(SECRETS["key"], server_url=server.url, client=client, retry_config=None)
                    given = {} if of_client else {name: SECRETS["header"]}
                    call = functools.partial(sdk.queue.queue_enqueue, type="t", data={}, http_headers=given)
                    self.assert_nothing_leaks(self.shown_by(call))

    def test_one_that_is_cut_where_what_came_makes_no_sense(self):
        secret = SECRETS["header"] * 3
        cut = secret.encode()
        for name, script in {
            "a header line": answer(b"", "X-One: 1", "no colon " + "x" * 20 + secret),
            "not HTTP": b"SSH-2.0 " + b"x" * 20 + b" " + cut + b"\r\n\r\n",
            "a chunk's size": CHUNKED + cut + b"x" * 60 + b"\r\n",
            "a trailer": CHUNKED + b"0\r\n" + cut + b"x" * 60 + b"\r\n\r\n",
            "a transfer coding": answer(b"", "Transfer-Encoding: x " + secret + "x" * 60),
            "a length": answer(b"", "Content-Length: x " + secret + "x" * 60),
            "a type": answer(b"", "Content-Type: text/" + "x" * (500 - 10) + secret, status="500 No"),
            "a redirect": answer(b"", "Location: /" + "x" * (500 - 10) + secret, status="302 Found"),
        }.items():
            with self.subTest(name), ScriptedServer([expect, script, close]) as server:
                sdk = SDK(secret, server_url=server.url, retry_config=None)
                with self.assertRaises(errors.AerostackError) as caught:
                    sdk.cache.cache_get(key="k")
                found = [line[:300] for line in [str(caught.exception), *self.log.lines] if secret[:8] in line]
                self.assertEqual(found, [])

    def test_what_an_authorization_holds(self):
        for url, header, echo in (
            ("http://%s", "Bearer " + SECRETS["header"], SECRETS["header"]),
            ("http://user:" + SECRETS["url"] + "@%s", None, SECRETS["url"]),
        ):
            page = answer(b"<p>who is %s?" % echo.encode(), status="401 No")
            with self.subTest(url), ScriptedServer([expect, page]) as server:
                sdk = SDK(SECRETS["key"], server_url=url % server.netloc)
                given = {"Authorization": header} if header else {}
                self.assert_nothing_leaks(self.shown_by(lambda: sdk.cache.cache_get(key="k", http_headers=given)))

    def test_a_proxy_s_password_that_the_proxy_repeats(self):
        for target, status in (("https://origin.test", "407 no " + SECRETS["proxy"]), ("http://origin.test", "407 No")):
            page = answer(SECRETS["proxy"].encode(), "Content-Type: text/plain", status=status)
            with self.subTest(target), ScriptedServer([expect, page]) as proxy:
                client = HttpClient(proxy="http://user:%s@%s" % (SECRETS["proxy"], proxy.netloc))
                self.addCleanup(client.close)
                sdk = SDK(SECRETS["key"], server_url=target, client=client)
                self.assert_nothing_leaks(self.shown_by(lambda: sdk.cache.cache_get(key="k")))

    def test_one_as_other_programs_write_it_in_json(self):
        password = 'p\u00e4"ss-w\u00f6rd/1234'
        page = answer(json.dumps({"no": "account for " + password}, ensure_ascii=False).encode(), status="500 No")
        with ScriptedServer([expect, page]) as server:
            sdk = SDK(SECRETS["key"], server_url=server.url, retry_config=None)
            with self.assertRaises(errors.SDKError) as caught:
                sdk.authentication.auth_signup(email="a", password=password)
        self.assertIn("account for ***", str(caught.exception))

    def test_one_in_the_place_of_an_error_s_code(self):
        page = json_answer({"code": SECRETS["key"], "message": "no"}, "401 No")
        with ScriptedServer([expect, page]) as server:
            sdk = SDK(SECRETS["key"], server_url=server.url)
            with self.assertRaises(errors.ErrorResponse) as caught:
                sdk.database.db_query(sql="SELECT 1")
        self.assertEqual(caught.exception.data.code, "***")

    def test_one_in_json_within_a_text_is_not_logged(self):
        value = json.dumps({"token": SECRETS["token"], "n": json.dumps({"secret": SECRETS["token"]})})
        with ScriptedServer([expect, json_answer(GOOD)]) as server:
            SDK(SECRETS["key"], server_url=server.url).cache.cache_set(key="k", value=value)
        self.assertEqual(len(self.log.lines), 2)
        self.assert_nothing_leaks(Shown())

    def test_a_password_given_in_a_dict_is_in_no_frame(self):
        def given(sdk, style):
            model = models.AuthSigninRequestBody(email="a", password=SECRETS["password"])
            return {"dict": model.model_dump(), "model": model}[style]

        for style in ("dict", "model"):
            for suffix in ("", "_async"):
                with self.subTest(style + suffix), ScriptedServer([expect, answer(b"{}", status="401 No")]) as server:
                    sdk = SDK(SECRETS["key"], server_url=server.url)
                    method = getattr(sdk.authentication, "auth_signin" + suffix)
                    if suffix:
                        self.assert_nothing_leaks(self.shown_by(lambda: asyncio.run(method(given(sdk, style)))))
                    else:
                        self.assert_nothing_leaks(self.shown_by(lambda: method(given(sdk, style))))

    def test_no_operation_shows_one_whatever_the_server_does(self):
        redirect = "Location: http://user:%s@other.test/?token=%s" % (SECRETS["url"], SECRETS["token"])
        faults = {
            "401 with an echo": [expect, json_answer(ECHO, "401 No")],
            "500 with an echo": [expect, json_answer(ECHO, "500 No")],
            "an echo that is no JSON": [
                expect,
                answer(b"sorry, %s is wrong" % SECRETS["key"].encode(), *HEADERS, status="403 No"),
            ],
            "of another shape": [
                expect,
                json_answer(
                    dict(GOOD, expires_at="soon", count="many", exists=[], success=[], url=5, response=5, result=5)
                ),
            ],
            "not JSON": [expect, answer(b'{"token": "%s", ' % SECRETS["token"].encode(), *HEADERS)],
            "a redirect": [expect, answer(b"", redirect, status="302 Found")],
            "an echo in the head": [expect, b"HTTP/1.1 200 OK\r\nX-Key %s\r\n\r\n" % SECRETS["key"].encode()],
            "an echo instead of a head": [expect, SECRETS["key"].encode() + b" is not my key\r\n\r\n", close],
            "broken gzip": [expect, json_answer(GOOD, "200 OK", "Content-Encoding: gzip")],
            "half a body": [expect, json_answer(GOOD)[:-20], close],
            "a reset": [expect, reset],
        }
        for (name, script), (service, operation) in itertools.product(faults.items(), OPERATIONS):
            if name not in ("401 with an echo", "of another shape") and operation.name not in WITH_SECRETS:
                continue
            with self.subTest(name, operation=operation.name), ScriptedServer(script) as server:
                shown = Shown()
                self.log.lines.clear()
                self.log.records.clear()
                url = "http://user:%s@%s/v1" % (SECRETS["url"], server.netloc)
                self.call_both_ways(
                    service, operation, REQUESTS[operation.name], None, shown, server_url=url, retries=None
                )
                self.assert_nothing_leaks(shown)

    def test_no_operation_shows_one_when_nobody_answers(self):
        with ScriptedServer([expect, hang]) as server:
            for service, operation in OPERATIONS:
                for url, timeout_ms in ((server.netloc, 20), ("127.0.0.1:%d" % free_port(), None)):
                    with self.subTest(operation.name, url=url):
                        shown = Shown()
                        self.call_both_ways(
                            service,
                            operation,
                            REQUESTS[operation.name],
                            None,
                            shown,
                            retries=None,
                            timeout_ms=timeout_ms,
                            server_url="http://user:%s@%s" % (SECRETS["url"], url),
                        )
                        self.assert_nothing_leaks(shown)

    def test_a_proxy_s_password_is_shown_nowhere(self):
        scripts = {
            "refuses": [expect, answer(b"", status="407 Who")],
            "garbage": [expect, b"garbage\r\n\r\n", close],
            "leaves": [expect, close],
        }
        for name, script in scripts.items():
            for origin in ("http", "https"):
                with self.subTest(name, origin=origin), ScriptedServer(script) as proxy:
                    for netloc in (proxy.netloc, "127.0.0.1:%d" % free_port()):
                        shown, address = Shown(), "http://user:%s@%s" % (SECRETS["proxy"], netloc)
                        make = lambda suffix: (AsyncHttpClient if suffix else HttpClient)(proxy=address)  # noqa: E731
                        options = {"server_url": origin + "://aerostack.test", "retries": None}
                        self.call_both_ways(
                            *OPERATIONS[1], request=REQUESTS["auth_signin"], make_client=make, shown=shown, **options
                        )
                        with mock.patch.dict(os.environ, {"HTTP_PROXY": address, "HTTPS_PROXY": address}):
                            self.call_both_ways(
                                *OPERATIONS[1],
                                request=REQUESTS["auth_signin"],
                                make_client=None,
                                shown=shown,
                                **options,
                            )
                        self.assert_nothing_leaks(shown)

    def test_a_bad_proxy_is_refused_without_its_password(self):
        for address in (
            "socks5://user:%s@host:1",
            "http://user:%s@host:99999",
            "http://user:%s@",
            "http://user:%s@ho st",
        ):
            shown = Shown()
            with self.subTest(address):
                with self.assertRaises(errors.AerostackError) as caught:
                    SDK(
                        "k", client=HttpClient(proxy=address % SECRETS["proxy"]), server_url="http://127.0.0.1:1"
                    ).cache.cache_get(key="k")
                shown.add_error(caught.exception)
                self.assert_nothing_leaks(shown)

    def test_what_is_refused_before_it_is_sent_is_not_quoted(self):
        password = SECRETS["password"]
        for title, operation, request, options in (
            ("wrong type", "auth_signin", {"email": 5, "password": password}, {}),
            ("missing", "auth_signin", {"password": password}, {}),
            ("unknown", "auth_signin", {"email": "a", "password": password, "pasword": password}, {}),
            ("password of a wrong type", "auth_signin", {"email": "a", "password": [password]}, {}),
            ("cannot be JSON", "auth_signup", {"email": "a", "password": password, "metadata": {"x": object()}}, {}),
            ("cannot be JSON", "cache_set", {"key": "k", "value": {"password": password, "x": float("nan")}}, {}),
            (
                "bad header",
                "auth_signin",
                REQUESTS["auth_signin"],
                {"http_headers": {"X-Signature": SECRETS["header"] + "\r\nX: y"}},
            ),
            (
                "bad URL",
                "auth_signin",
                REQUESTS["auth_signin"],
                {"server_url": "http://user:%s@ho st/" % SECRETS["url"]},
            ),
            (
                "bad URL",
                "auth_signin",
                REQUESTS["auth_signin"],
                {"server_url": "http://user:%s@host/?x" % SECRETS["url"]},
            ),
            ("bad timeout", "auth_signin", REQUESTS["auth_signin"], {"timeout_ms": -1}),
        ):
            with self.subTest(title, operation=operation):
                service, found = next(row for row in OPERATIONS if row[1].name == operation)
                shown = Shown()
                self.call_both_ways(service, found, request, None, shown, **options)
                self.assertIn(
                    "text of ValidationError",
                    [where.replace("ArgumentType", "Validation") for where, _ in shown.places],
                )
                self.assert_nothing_leaks(shown)

    def test_a_proxy_s_password_is_shown_nowhere_however_its_url_is_written(self):
        plain = SECRETS["proxy"]
        passwords = [plain + character + plain for character in "#/?@:\\ %[]\"'<>^`{|};&=+$,!*()~\u00e9\t\x7f"]
        urls = ["http://user:%s@127.0.0.1:1" % password for password in passwords]
        for password in (plain, plain + "#/" + plain):
            for form in (
                "%s@127.0.0.1:1",
                "user:%s@127.0.0.1:1",
                "CORP\\user:%s@127.0.0.1:1",
                "http:/user:%s@127.0.0.1:1",
                "http:user:%s@127.0.0.1:1",
                "http:///user:%s@127.0.0.1:1",
                "http:\\\\user:%s@127.0.0.1:1",
                "http//user:%s@127.0.0.1:1",
                "//user:%s@127.0.0.1:1",
                "://user:%s@127.0.0.1:1",
                "htp://user:%s@127.0.0.1:1",
                "https://user:%s@127.0.0.1:1",
                "socks5://user:%s@127.0.0.1:1",
                "socks5h:/user:%s@127.0.0.1:1",
                "socks5:user:%s@127.0.0.1:1",
                "h t t p://user:%s@127.0.0.1:1",
                "http://%s@127.0.0.1:1",
                "http://:%s@127.0.0.1:1",
                " HTTP://user:%s@127.0.0.1:1/path?query#fragment",
                "http://user:%s@127.0.0.1:99999",
                "http://user:%s@127.0.0.1:port",
                "http://user:%s@",
                "http://user:%s@ho st:1",
                "http://user:%s@[::1",
                "http://user:%s@http://127.0.0.1:1",
                "http://user:%s",
                "user:%s",
            ):
                urls.append(form % password)

        def know_none(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        names = itertools.cycle(["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
        with mock.patch("socket.getaddrinfo", know_none):
            for url in urls:
                shown = Shown()
                for kind in (HttpClient, AsyncHttpClient):
                    shown.add_failure(lambda: shown.add("repr", repr(kind(proxy=url))))
                shown.add_failure(lambda: post(HttpClient(proxy=url), "https://aerostack.test/"))
                with mock.patch.dict(os.environ, HTTP_PROXY=url):
                    shown.add_failure(lambda: post(HttpClient(), "http://aerostack.test/"))
                for name in [next(names)] if plain + "#/" in url else ():
                    with mock.patch.dict(os.environ, {name: url}):
                        self.call_both_ways(
                            *OPERATIONS[1],
                            request=REQUESTS["auth_signin"],
                            make_client=None,
                            shown=shown,
                            server_url="%s://aerostack.test" % ("https" if name == "https_proxy" else "http"),
                            retries=None,
                        )
                with self.subTest(url):
                    self.assert_nothing_leaks(shown)
                self.log.lines.clear()
                self.log.records.clear()

    def test_what_is_half_made_shows_none(self):
        proxy, url = "http://user:%s@127.0.0.1:1" % SECRETS["proxy"], "http://user:%s@127.0.0.1:1" % SECRETS["url"]
        headers = {"X-Aerostack-Key": SECRETS["key"], "X-Signature": SECRETS["header"]}
        for kind in (HttpClient, AsyncHttpClient):
            for settings in (
                {"max_connections": -1},
                {"max_response_bytes": 0},
                {"ssl_context": 5},
                {"handlers": [5]},
                {"handlers": 5},
                {"headers": {"no token": "x"}},
                {"headers": dict(headers, bad="a\r\nb")},
                {"headers": 5},
                {"proxy": "socks5" + proxy[4:]},
                {"proxy": proxy + "x"},
                {"proxy": proxy.encode()},
                {"proxy": [proxy]},
                {"no_such_setting": 1},
            ):
                with self.subTest(kind.__name__, settings=sorted(settings)):
                    settings = dict({"proxy": proxy, "headers": headers}, **settings)
                    self.assert_nothing_leaks(self.shown_by(lambda: kind(**settings)))
        for settings in (
            {"timeout_ms": -1},
            {"client": 5},
            {"async_client": 5},
            {"max_workers": 0},
            {"server_url": url + "?x"},
            {"server_url": url.replace("http:", "ftp:")},
            {"server_url": url.encode()},
            {"url_params": {"a": 5}},
            {"no_such_setting": 1},
        ):
            with self.subTest("SDK", settings=sorted(settings)):
                settings = dict({"api_key_auth": SECRETS["key"], "server_url": url}, **settings)
                self.assert_nothing_leaks(self.shown_by(lambda: SDK(**settings)))

    def test_a_handler_of_urllib_that_fails_takes_none_along(self):
        for method, steps in (("http_request", []), ("http_response", [expect, json_answer(ECHO, "401 No")])):
            hook = type("Hook", (urllib.request.BaseHandler,), {method: mock.Mock(side_effect=OSError("no disk"))})
            with ScriptedServer(steps) as server, HttpClient(handlers=[hook()]) as client:
                url = "http://user:%s@%s" % (SECRETS["url"], server.netloc)
                with SDK(SECRETS["key"], client=client, server_url=url) as sdk:
                    self.assert_nothing_leaks(self.shown_by(lambda: sign_in(sdk)))

    def test_a_bad_key_is_refused_unquoted(self):
        for bad in (
            SECRETS["key"] + "\nX: y",
            SECRETS["key"] + "\u00fc",
            [SECRETS["key"]],
            lambda: SECRETS["key"] + "\0",
        ):
            shown = Shown()
            with self.assertRaises(ValueError) as caught:
                SDK(bad).cache.cache_get(key="k")
            shown.add_error(caught.exception)
            # The constructor's own argument is the caller's; what the file makes of it is not.
            shown.places = [
                (where, text) for where, text in shown.places if not where.startswith(("api_key_auth in", "value in"))
            ]
            self.assert_nothing_leaks(shown)

    def test_models_and_requests_hide_what_is_secret(self):
        shown = Shown()
        for model in (
            models.Security(api_key_auth=SECRETS["key"]),
            models.AuthSigninRequestBody(email="a", password=SECRETS["password"]),
            models.AuthSignupRequestBody(email="a", password=SECRETS["password"]),
            models.AuthResponse(**GOOD),
        ):
            shown.add(type(model).__name__, "%r %s" % (model, model))
        with HttpClient(headers={"X-Aerostack-Key": SECRETS["key"]}) as client:
            request = client.build_request(
                "POST", "http://user:%s@host/" % SECRETS["url"], headers={"Authorization": SECRETS["header"]}
            )
            shown.add("Request", "%r %s %r" % (request, request, request.headers))
            shown.add("HttpClient", repr(client))
        self.assert_nothing_leaks(shown)

    def test_a_reader_that_fails_takes_no_secret_along(self):
        class Reader:
            def read(self, size):
                raise OSError("disk")

        shown = Shown()
        with ScriptedServer([expect, hang]) as server:
            self.call_both_ways(
                "storage", OPERATIONS[-1][1], {"key": "k", "file": Reader()}, None, shown, server_url=server.url
            )
        self.assert_nothing_leaks(shown)

    def test_a_client_of_your_own_that_makes_no_request_takes_none_along(self):
        class Client:
            def build_request(self, *_, **__):
                raise LookupError("a URL that it does not like")

            send = close = aclose = build_request

        auth = SDK(SECRETS["key"], client=Client(), async_client=Client()).authentication
        for call in (auth.auth_signin, lambda **given: asyncio.run(auth.auth_signin_async(**given))):
            self.assert_nothing_leaks(self.shown_by(lambda: call(**REQUESTS["auth_signin"])))

    def test_a_call_that_takes_too_long_takes_none_along(self):
        with ScriptedServer([expect, hang]) as server, SDK(SECRETS["key"], server_url=server.url) as sdk:

            async def main():
                async with sdk:
                    await asyncio.wait_for(sdk.authentication.auth_signin_async(**REQUESTS["auth_signin"]), 0.1)

            self.assert_nothing_leaks(self.shown_by(lambda: asyncio.run(main())))

    def test_a_proxy_that_opens_no_tunnel_is_told_without_its_password(self):
        with ScriptedServer([expect, close]) as proxy:
            address = "http://user:%s@%s" % (SECRETS["proxy"], proxy.netloc)
            with HttpClient(proxy=address) as client:
                request = client.build_request("POST", "https://aerostack.test/")
                self.assert_nothing_leaks(self.shown_by(lambda: client.send(request)))

    def test_a_secret_that_a_server_echoes_is_masked_also_where_it_is_cut(self):
        key = SECRETS["key"]
        for before in range(9_970, 10_005):
            with ScriptedServer(
                [expect, answer(b"x" * before + key.encode() + b"x" * 99, status="500 No", content_type="text/plain")]
            ) as server:
                with SDK(key, server_url=server.url, retry_config=None) as sdk, self.assertRaises(
                    errors.SDKError
                ) as caught:
                    sdk.cache.cache_get(key="k")
            self.assertNotIn(key[:6], str(caught.exception), before)
        self.assertNotIn(key[:6], "".join(record.getMessage() for record in self.log.records))
        problem = json.dumps({"code": "C", "message": "no such key: " + key}).encode()
        with ScriptedServer(
            repeat(expect, answer(problem, "Server: " + key, "X-Request-Id: " + key, status="401 No"))
        ) as server:
            for service, operation in (("authentication", "auth_signin"), ("cache", "cache_get")):
                with SDK(key, server_url=server.url, retry_config=None) as sdk, self.assertRaises(
                    errors.AerostackError
                ) as caught:
                    getattr(getattr(sdk, service), operation)(**REQUESTS[operation])
                self.assertEqual(caught.exception.data.message, "no such key: ***")
                self.assertNotIn(key, "%s %r" % (caught.exception, caught.exception))
        self.assert_nothing_leaks(Shown())  # in the log

    def test_a_password_is_masked_also_as_json_spells_it(self):
        password = 'ses"ame\\open'

        def echo(peer):
            sent = json.loads(peer.read_request().partition(b"\r\n\r\n")[2])
            peer.send(answer(json.dumps({"why": [sent["password"]]}).encode(), status="500 No"))

        with ScriptedServer([echo]) as server, SDK("the-key", server_url=server.url, retry_config=None) as sdk:
            with self.assertRaises(errors.SDKError) as caught:
                sdk.authentication.auth_signup(email="e", password=password)
        for text in [str(caught.exception)] + [record.getMessage() for record in self.log.records]:
            self.assertNotIn(json.dumps(password)[1:-1], text)
        self.assertIn('["***"]', str(caught.exception))

    def test_garbage_while_a_large_request_goes_out_takes_no_secret_along(self):
        shown, request = Shown(), dict(REQUESTS["cache_set"], key="k" * (8 << 20))
        with ScriptedServer([lambda peer: peer.read(10), b"SSH-2.0-OpenSSH\r\n", hang]) as server:
            self.call_both_ways("cache", OPERATIONS[4][1], request, None, shown, server_url=server.url, retries=None)
        self.assert_nothing_leaks(shown)

    def test_a_progress_that_fails_takes_no_secret_along(self):
        for at in (0, 1):

            def progress(sent, total):
                if sent >= at:
                    raise OSError("no terminal")

            for content in (b"content", iter([b"content"])):
                shown = Shown()
                with ScriptedServer([until_gone]) as server:
                    request = {"key": "k", "file": content, "progress": progress}
                    self.call_both_ways("storage", OPERATIONS[-1][1], request, None, shown, server_url=server.url)
                self.assert_nothing_leaks(shown)

    def test_a_client_of_your_own_that_fails_takes_no_secret_along(self):
        class Client:
            def build_request(self, method, url, **request):
                return dict(request, url=url)

            def send(self, request, **_):
                raise RuntimeError("broken client")

            close = aclose = lambda self: None

        sdk = SDK(SECRETS["key"], client=Client())
        shown = self.shown_by(lambda: sdk.authentication.auth_signin(**REQUESTS["auth_signin"]))
        shown.places = [
            (where, text) for where, text in shown.places if not where.startswith("request in")
        ]  # which the client built
        self.assert_nothing_leaks(shown)


def sign_in(sdk):
    return sdk.authentication.auth_signin(**REQUESTS["auth_signin"])


class InterruptedTest(InterruptedCase, LogCase):
    """A signal handler may raise an error at any moment; an error tracker sends home the frames that it passes."""

    def check(self, error, script, url="http://user:%s@%s", call=sign_in):
        with Interruption(error) as interruption:
            script = [step or interruption.begin for step in script]
            with ScriptedServer(script) as server:
                with SDK(SECRETS["key"], server_url=url % (SECRETS["url"], server.netloc)) as sdk:
                    shown = self.shown_by(lambda: call(sdk))
            self.assertTrue(any(where == "text of " + type(error).__name__ for where, _ in shown.places), shown.places)
        self.assert_nothing_leaks(shown)

    def test_no_stage_of_a_call_shows_one(self):
        def set_a_large_value(sdk):
            value = {"password": SECRETS["password"], "rest": "x" * (16 << 20), "new_password": SECRETS["password"]}
            sdk.cache.cache_set(key="k", value=value)

        def upload(sdk):
            sdk.storage.storage_upload(key=SECRETS["token"], file=bytes(16 << 20))

        ok = b"HTTP/1.1 200 OK\r\n"
        busy = json_answer(ECHO, "503 No", "Retry-After: 8")
        for name, arguments in {
            "shaking hands": ([lambda peer: peer.read(5), None, hang], "https://user:%s@%s"),
            "sending": ([lambda peer: peer.read(10), None, hang], "http://user:%s@%s", set_a_large_value),
            "sending an upload": ([lambda peer: peer.read(10), None, hang], "http://user:%s@%s", upload),
            "waiting": ([expect, None, hang],),
            "within the head": ([expect, ok + b"X-Token: " + SECRETS["token"].encode(), None, hang],),
            "within the body": ([expect, json_answer(GOOD)[:-5], None, hang],),
            "sleeping": ([expect, busy, None, hang],),
        }.items():
            mistakes = RuntimeError("mine"), ConnectionResetError(errno.ECONNRESET, "mine"), KeyboardInterrupt()
            for error in mistakes if name in ("waiting", "sleeping") else mistakes[:1]:
                with self.subTest(name, error=repr(error)):
                    self.check(error, *arguments)

    def test_a_call_that_is_interrupted_while_a_proxy_is_asked_shows_none(self):
        for error in (RuntimeError("mine"), KeyboardInterrupt()):
            for place in ("proxy=", "HTTPS_PROXY"):
                with Interruption(error) as interruption, ScriptedServer([expect, interruption.begin, hang]) as proxy:
                    address = "http://user:%s@%s" % (SECRETS["proxy"], proxy.netloc)
                    client = HttpClient(proxy=address if place == "proxy=" else None)
                    with mock.patch.dict(os.environ, {} if place == "proxy=" else {place: address}), client:
                        with SDK(SECRETS["key"], client=client, server_url="https://aerostack.test") as sdk:
                            self.assert_nothing_leaks(self.shown_by(lambda: sign_in(sdk)))


class MemoryTest(LogCase):
    @unittest.skipUnless(sys.implementation.name == "cpython", "only CPython tells who holds what")
    def test_when_all_is_closed_nothing_of_the_process_holds_a_secret(self):
        """In a process of its own: Python 3.12.1 crashed in going through all that a whole run of tests had left."""
        if "HOLDERS_ALONE" not in os.environ:
            command = [sys.executable, "-m", "unittest", self.id()]
            environment = dict(os.environ, HOLDERS_ALONE="1")
            root = os.path.dirname(MODULE)
            run = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(run.returncode, 0, run.stdout.decode())
            return
        marks = ["%s-7f3a-%d" % (name, os.getpid()) for name in ("key", "url", "call", "proxy", "other", "password")]

        def use():
            key, url, call_url, proxy, other_proxy, password = ("held-" + mark for mark in marks)
            login = {"email": "a@b.c", "password": password}
            redirect = answer(b"", "Location: /v1/auth/signin?again", status="307 There")
            script = [expect, redirect, expect, json_answer(GOOD), expect, json_answer(ECHO, "401 No"), close]
            with ScriptedServer(script) as server:
                netlocs = ["http://user:%s@%s/v1" % (secret, server.netloc) for secret in (url, call_url)]
                with SDK(key, server_url=netlocs[0]) as sdk:
                    sdk.authentication.auth_signin(**login)
                    with contextlib.suppress(errors.AerostackError):
                        sdk.authentication.auth_signin(**login, server_url=netlocs[1])
            server.forget()
            for address in ("http://user:%s@127.0.0.1:%d", "http://user:%s#@127.0.0.1:%d", "socks5://user:%s@a:%d"):
                with contextlib.suppress(errors.AerostackError), HttpClient(proxy=address % (proxy, 1)) as client:
                    post(client, "http://aerostack.test/")
                with mock.patch.dict(os.environ, HTTP_PROXY=address % (other_proxy, 1)), SDK(key) as sdk:
                    with contextlib.suppress(errors.AerostackError):
                        sdk.authentication.auth_signin(**login, server_url="http://aerostack.test", retries=None)
            with contextlib.suppress(errors.AerostackError):
                SDK(key, server_url="http://user:%s@ho st/" % url)

        use()
        gc.collect()
        self.log.records.clear()
        self.log.lines.clear()
        self.assertEqual({mark: holders("held-" + mark) for mark in marks}, {mark: [] for mark in marks})


def holders(secret):
    """The kinds of things that hold a text in which a secret is."""
    found, seen = set(), set()
    things = gc.get_objects()
    while things:
        thing = things.pop()
        for held in gc.get_referents(thing):
            if isinstance(held, (str, bytes)):
                where = secret if isinstance(held, str) else secret.encode()
                if held is not secret and where in held:
                    found.add("%s: %.100r" % (type(thing).__name__, thing))
            elif not gc.is_tracked(held) and id(held) not in seen:  # else it comes by itself
                seen.add(id(held))
                things.append(held)
    return sorted(found)


class CommandLineSecretsTest(CommandLineCase, LogCase):
    def setUp(self):
        super().setUp()
        for name in ("key", "password"):
            self.write(name, SECRETS[name].encode() + b"\n")

    def arguments(self, operation, server):
        """The command for an operation, with its secrets in files."""
        typed = [
            "%s:=%s" % (name, json.dumps(value))
            for name, value in REQUESTS[operation].items()
            if name not in ("password", "file")
        ]
        typed = [text for text in typed if "planted" not in text] + [
            "value:=1" for _ in range(operation == "cache_set")
        ]
        if "password" in REQUESTS[operation]:
            typed.append("password=@password")
        if "data" in REQUESTS[operation]:
            typed = [text for text in typed if not text.startswith("data")] + ["data:={}"]
        if "file" in REQUESTS[operation]:
            typed.append("file=@password")
        url = "http://127.0.0.1:%d" % server.port
        return [operation] + typed + ["--key-file", "key", "--verbose", "--server-url", url]

    def test_its_errors_and_its_verbose_log_show_none(self):
        for answers in (
            json_answer(GOOD),
            json_answer(ECHO, "401 No"),
            json_answer(ECHO, "501 No"),
            b"garbage %s\r\n\r\n" % SECRETS["key"].encode(),
        ):
            for _, operation in OPERATIONS:
                with self.subTest(operation.name), ScriptedServer([expect, answers, close]) as server:
                    status, _, complaints = self.run_here(*self.arguments(operation.name, server))
                    self.assertIn(status, (0, 1, 3))
                    self.assertIn(operation.name, complaints)
                    shown = Shown()
                    shown.add("standard error", complaints)
                    self.assert_nothing_leaks(shown)

    def test_its_errors_about_a_proxy_show_none(self):
        with ScriptedServer(repeat(expect, answer(status="407 Who"))) as server:
            for url in ("http://user:%s#%s@%s", "socks5:/user:%s?%s@%s", "user:%s/%s@%s", "http://user:%s @%s@x:%s"):
                shown = Shown()
                with self.subTest(url):
                    os.environ["HTTP_PROXY"] = url % (SECRETS["proxy"], SECRETS["proxy"], server.netloc)
                    status, output, complaints = self.run_here(*self.arguments("cache_get", server))
                    self.assertIn(status, (1, 3))
                    shown.add("standard output and error", output + complaints)
                    self.assert_nothing_leaks(shown)

    def test_the_process_list_shows_none(self):
        with ScriptedServer([expect, hang]) as server:
            program = subprocess.Popen(
                [sys.executable, MODULE] + self.arguments("auth_signin", server),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                server.wait_for_requests(1)
                self.assertIn(SECRETS["key"].encode(), server.requests[0])
                try:
                    listed = subprocess.run(
                        ["ps", "-ww", "-o", "args=", "-p", str(program.pid)],
                        stdout=subprocess.PIPE,
                        timeout=PATIENCE_SECONDS,
                    ).stdout
                except FileNotFoundError:
                    self.skipTest("there is no ps here")
                self.assertIn(b"auth_signin", listed)
                shown = Shown()
                shown.add("the process list", listed)
            finally:
                program.kill()
                shown.add("standard error", program.communicate()[1])
        self.assert_nothing_leaks(shown)


class LogsTest(LogCase):
    def test_each_attempt_is_told_twice(self):
        with ScriptedServer(
            [expect, answer(b"", "Retry-After: 0.01", status="503 No"), expect, answer(b'{"exists":true}', "Server: s")]
        ) as server:
            SDK("a-key", server_url=server.url).cache.cache_get(key="k", http_headers={"X-Request-ID": "r-1"})
        asked, failed, again, answered = [record.getMessage() for record in self.log.records]
        for words in (
            "Request:\nMethod: POST\nURL: %s/cache/get\n" % server.url,
            'Body: {"key":"k"}',
            "Operation: cache_get",
            "Request-Id: r-1",
            "Attempt: 1",
        ):
            self.assertIn(words, asked)
        for words in ("Response:\n", "Status Code: 503", "Attempt: 1", "Milliseconds: ", "Next attempt: in 0.010 s"):
            self.assertIn(words, failed)
        self.assertIn("Attempt: 2", again)
        for words in (
            "Response:\n",
            "Status Code: 200",
            "'server': 's'",
            'Body: {"exists":true}',
            "Request-Id: r-1",
            "Attempt: 2",
            "Next attempt: none",
        ):
            self.assertIn(words, answered)
        self.assertEqual(
            {(record.name, record.levelname) for record in self.log.records}, {("aerostack_lite", "DEBUG")}
        )

    def test_a_failure_is_told_with_its_kind(self):
        with self.assertRaises(errors.ConnectError):
            SDK("a-key", server_url="http://127.0.0.1:%d" % free_port()).cache.cache_get(key="k", retries=None)
        self.assertRegex(
            self.log.records[1].getMessage(),
            r"(?s)^Request Exception:\n.*Attempt: 1\nConnectError: .*\nMilliseconds: [\d.]+\nNext attempt: none",
        )

    def test_a_logger_of_your_own_replaces_it(self):
        lines = []
        own = mock.Mock(debug=lambda message, *values, **_: lines.append(message % values))
        with ScriptedServer(repeat(expect, answer())) as server:
            SDK("a-key", server_url=server.url, debug_logger=own).cache.cache_get(key="k")
            self.assertEqual((len(lines), self.log.records), (2, []))
            silent, shown = aerostack_lite.utils.get_default_logger(), io.StringIO()
            with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
                SDK("a-key", server_url=server.url, debug_logger=silent).cache.cache_get(key="k")
            self.assertEqual((self.log.records, shown.getvalue()), ([], ""))

    def test_nothing_is_told_unless_asked_for(self):
        logging.getLogger("aerostack_lite").setLevel(logging.INFO)
        with ScriptedServer([expect, answer()]) as server, contextlib.redirect_stderr(io.StringIO()) as complaints:
            SDK("a-key", server_url=server.url).cache.cache_get(key="k")
        self.assertEqual((self.log.records, complaints.getvalue()), ([], ""))

    def test_an_upload_s_content_is_not_logged(self):
        with ScriptedServer([expect, answer()]) as server:
            SDK("a-key", server_url=server.url).storage.storage_upload(key="k", file=b"the content of the file")
        self.assertNotIn("the content of the file", "".join(self.log.lines))

    def test_a_large_body_is_cut(self):
        with ScriptedServer([expect, answer(b'{"value":"%s"}' % (b"x" * 100_000))]) as server:
            SDK("a-key", server_url=server.url).cache.cache_set(key="k", value="y" * 100_000)
        self.assertLess(max(len(record.getMessage()) for record in self.log.records), 15_000)

    def test_control_characters_from_the_server_are_escaped_in_logs_and_messages(self):
        nasty = "a\x1b[2J\x07\x7f\x9b\u202e\u2028b"
        body = json.dumps({"code": "C" + nasty, "message": "M" + nasty}, ensure_ascii=False).encode()
        body = body.replace(b"\\u001b", b"\x1b")
        for answers in (
            answer(json.dumps({"code": "X", "message": nasty}).encode(), status="400 No"),
            answer(body, status="400 No"),
            answer(nasty.encode(), status="418 " + nasty),
            answer(nasty.encode(), content_type="text/x;" + nasty),
            answer(b"", "Location: /" + nasty, status="301 " + nasty),
            nasty.encode() + b"\r\n\r\n",
        ):
            with self.subTest(answers), ScriptedServer([expect, answers, close]) as server:
                with self.assertRaises(errors.AerostackError) as caught:
                    SDK("a-key", server_url=server.url).database.db_query(sql="s", retries=None)
                for text in [str(caught.exception), repr(caught.exception)] + [
                    record.getMessage() for record in self.log.records
                ]:
                    self.assertTrue(text.replace("\n", "").replace("\t", "").isprintable(), repr(text))


if __name__ == "__main__":
    unittest.main()
