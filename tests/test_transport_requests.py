"""What goes out: headers, server URLs, framing."""

import array
import asyncio
import os
import socket
import threading
import urllib.request
from unittest import mock

from aerostack_lite import SDK, USER_AGENT, AsyncHttpClient, BackoffStrategy, HttpClient, RetryConfig, errors
from tests.scripted_server import (
    PATIENCE_SECONDS,
    LoopbackTestCase,
    ScriptedServer,
    answer,
    close,
    expect,
    free_port,
    half_close,
    hang,
    header,
    post,
    repeat,
    until_gone,
)

FOUND = answer(b'{"exists":false}')

OPERATIONS = (
    ("ai", "ai_chat", {"messages": [{"role": "user", "content": "hi"}]}),
    ("authentication", "auth_signin", {"email": "a@b.c", "password": "p"}),
    ("authentication", "auth_signup", {"email": "a@b.c", "password": "p"}),
    ("cache", "cache_get", {"key": "a"}),
    ("cache", "cache_set", {"key": "a", "value": 1}),
    ("database", "db_query", {"sql": "select 1"}),
    ("queue", "queue_enqueue", {"type": "t", "data": {}}),
    ("services", "services_invoke", {"service_name": "s", "data": {}}),
    ("storage", "storage_upload", {"key": "a", "file": {"file_name": "f", "content": b"x"}}),
)
BROKEN = ("a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b", "a\r\n", "\n")


class HeaderInjectionTest(LoopbackTestCase):
    def assert_refused(self, server, secret, make):
        with self.assertRaises((errors.AerostackError, ValueError)) as caught:
            make()
        self.assertIsInstance(caught.exception, errors.AerostackError)
        self.assertEqual(server.connections, 0)
        self.assertNotIn(secret, str(caught.exception))
        self.assertNotIn(secret, repr(caught.exception))

    def test_in_the_key(self):
        with ScriptedServer([expect, FOUND]) as server:
            for bad in BROKEN[:4]:
                self.assert_refused(
                    server, "sekret", lambda: SDK("sekret" + bad, server_url=server.url).cache.cache_get(key="a")
                )
                self.assert_refused(
                    server,
                    "sekret",
                    lambda: SDK(lambda: "sekret" + bad, server_url=server.url).cache.cache_get(key="a"),
                )

    def test_in_a_header_value_of_any_operation(self):
        with ScriptedServer([expect, FOUND]) as server, SDK("key", server_url=server.url) as sdk:
            for service, name, fields in OPERATIONS:
                operation = getattr(getattr(sdk, service), name)
                for bad in BROKEN:
                    with self.subTest(name, bad=bad):
                        self.assert_refused(
                            server, "sekret", lambda: operation(http_headers={"X-Own": "sekret" + bad}, **fields)
                        )

    def test_in_a_header_name(self):
        with ScriptedServer([expect, FOUND]) as server, SDK("key", server_url=server.url) as sdk:
            for bad in (
                "",
                " ",
                "a b",
                "a:",
                ":a",
                "a\r\nb",
                "a\n",
                "a\0",
                "\u00e9",
                "a(b)",
                "a,b",
                "a\x7f",
                "a\t",
                "X-Own\r\nX-Evil: 1\r\nX",
            ):
                with self.subTest(bad):
                    self.assert_refused(
                        server, "sekret", lambda: sdk.cache.cache_get(key="a", http_headers={bad: "sekret"})
                    )

    def test_through_the_client_s_own_door(self):
        with ScriptedServer([expect, FOUND]) as server, HttpClient() as client:
            for headers in (
                {"X-Own": "sekret\r\nX-Evil: 1"},
                {"X\r\nY": "sekret"},
                {"X Y": "sekret"},
                {"X": "sekret\0"},
            ):
                with self.subTest(headers):
                    self.assert_refused(server, "sekret", lambda: post(client, server.url, headers=headers))
            self.assert_refused(server, "sekret", lambda: post(HttpClient(headers={"X": "sekret\n"}), server.url))

    def test_in_the_url(self):
        with ScriptedServer([expect, FOUND]) as server, HttpClient() as client:
            for path in (
                "/a b",
                "/a\r\nX-Evil: 1",
                "/a\nb",
                "/a\0b",
                "/a\x7fb",
                "/a\tb",
                "/ HTTP/1.1\r\nHost: x\r\n\r\nGET /",
            ):
                with self.subTest(path):
                    try:
                        post(client, server.url + path, timeout=1.0)
                    except errors.AerostackError:
                        continue
                    (request,) = server.requests  # quoted instead of refused is as good
                    self.assertEqual(header(request, "X-Evil"), [])
                    self.assertEqual(request.partition(b"\r\n")[0].count(b" "), 2)

    def test_in_the_method(self):
        with ScriptedServer([expect, FOUND]) as server, HttpClient() as client:
            for method in ("", "P OST", "POST / HTTP/1.1\r\nX: y\r\n\r\nGET", "PO\nST", "P\0", "\u00e9"):
                with self.subTest(method), self.assertRaises((errors.AerostackError, ValueError)):
                    client.send(client.build_request(method, server.url, content=b"{}", timeout=1.0))
            self.assertEqual(server.connections, 0)

    def test_an_option_of_httpx_that_asks_for_something_is_refused(self):
        with HttpClient() as client:
            for name, value in (("params", {"a": "1"}), ("files", [b"f"]), ("json", {}.keys)):
                with self.subTest(name), self.assertRaisesRegex(errors.ArgumentTypeError, name):
                    client.build_request("POST", "http://127.0.0.1/", **{name: value})
            self.assertEqual(client.build_request("POST", "http://127.0.0.1/", params={}, files=None).content, b"")


class OverrideTest(LoopbackTestCase):
    def test_overriding_leaves_exactly_one_header_whatever_its_case(self):
        with ScriptedServer(repeat(expect, FOUND)) as server, SDK("key", server_url=server.url) as sdk:
            for name in ("X-Aerostack-Key", "Content-Type", "Accept", "User-Agent", "Accept-Encoding", "X-Request-ID"):
                for spelled in (name, name.lower(), name.upper()):
                    with self.subTest(spelled):
                        sdk.cache.cache_get(key="a", http_headers={spelled: "mine"})
                        self.assertEqual(header(server.requests[-1], name), ["mine"])

    def test_two_spellings_of_one_header_leave_one(self):
        with ScriptedServer(repeat(expect, FOUND)) as server, SDK("key", server_url=server.url) as sdk:
            sdk.cache.cache_get(key="a", http_headers={"X-Own": "1", "x-own": "2"})
            self.assertEqual(len(header(server.requests[-1], "X-Own")), 1)

    def test_framing_headers_of_the_caller_never_contradict_the_body(self):
        with ScriptedServer(repeat(expect, FOUND)) as server, SDK("key", server_url=server.url, timeout_ms=500) as sdk:
            for name, value in (
                ("Content-Length", "3"),
                ("Content-Length", "999"),
                ("Transfer-Encoding", "chunked"),
                ("content-length", "0"),
                ("Transfer-Encoding", "identity"),
            ):
                with self.subTest(name, value=value):
                    try:
                        sdk.cache.cache_get(key="a", http_headers={name: value})
                    except errors.AerostackError as error:
                        self.assertNotIsInstance(error, TimeoutError)
                        continue
                    _, _, body = server.requests[-1].partition(b"\r\n\r\n")
                    self.assertEqual(header(server.requests[-1], "Content-Length"), [str(len(body))])
                    self.assertEqual(header(server.requests[-1], "Transfer-Encoding"), [])
            for request in server.requests:
                self.assertTrue(request.endswith(b'{"key":"a"}'), request)

    def test_the_client_s_headers_are_defaults_for_every_request(self):
        with ScriptedServer(repeat(expect, FOUND)) as server, HttpClient(
            headers={"X-Team": "a", "User-Agent": "mine"}
        ) as client:
            post(client, server.url)
            post(client, server.url, headers={"x-team": "b"})
            self.assertEqual([header(request, "X-Team") for request in server.requests], [["a"], ["b"]])
            self.assertEqual(header(server.requests[0], "User-Agent"), ["mine"])


class ServerUrlTest(LoopbackTestCase):
    def test_a_bad_one_is_refused_when_the_sdk_is_made(self):
        for bad in (
            "127.0.0.1:80",
            "localhost",
            "/v1",
            "//127.0.0.1/v1",
            "file:///etc/passwd",
            "ftp://h/",
            "javascript:1",
            "http://",
            "http:///v1",
            "http://h:99999",
            "http://h:-1",
            "http://h:x",
            "http://h:0x50",
            "http://h:8_0",
            "http://h:" + "9" * 5000,
            "http://[::1",
            "http://::1]",
            "http://[::1]x",
            "http://[zz]",
            "http://h/v1?q=1",
            "http://h/v1?",
            "http://h/v1#f",
            "http://h/v1#",
            "http://h/\r\n",
            "http://h\n",
            "http://h/\0",
            "http://h/\x7f",
            "http://h\t",
            "http:// h",
            "http://a b/",
            "http://:80",
            "http://h\\x",
            "http://[::1%0a]",
            "http://[::1%0d]",
        ):
            with self.subTest(bad[:40]):
                with self.assertRaises(errors.AerostackError) as caught:
                    SDK("key", server_url=bad)
                self.assertIsInstance(caught.exception, ValueError)

    def test_a_host_never_turns_into_another_one(self):
        # What IDNA makes of these has a "/", "@", "#", "?" or ":" in it (CVE-2019-9636).
        for host in (
            "\u2100.test",
            "good.test\uff20evil.test",
            "evil.test\uff03.good.test",
            "evil.test\uff0f.good.test",
            "h\uff1a1",
            "h\uff1f",
            "\u212aey.test",  # the sign of the kelvin is a k in lower case,
            "ho\u017ft.test",  # a long s is an s in upper case, and both match [a-z] where case does not matter
            "\uff48ost.test",
            "\u0130.test",
        ):
            for url in ("http://%s/v1" % host, "https://%s:1/" % host):
                with self.subTest(host), self.assertRaises(errors.AerostackError):
                    SDK("key", server_url=url)
                with self.subTest(host), self.assertRaises(errors.AerostackError):
                    HttpClient(proxy=url)

    def test_what_only_looks_like_one_is_refused_as_well(self):
        class Looks:
            def __str__(self):
                return "http://127.0.0.1:9/"

        for bad in (Looks(), 5, b"http://127.0.0.1:9/", ["http://127.0.0.1:9/"]):
            with self.subTest(bad), self.assertRaisesRegex(errors.ArgumentTypeError, "server_url"):
                SDK("key").cache.cache_get(key="a", server_url=bad)

    def test_a_bad_one_for_one_call_is_refused_at_the_call(self):
        with ScriptedServer([expect, FOUND]) as server, SDK("key", server_url=server.url) as sdk:
            for service, name, fields in OPERATIONS:
                for bad in ("localhost", "file:///x", server.url + "?q", server.url + "/\r\n", "http://h:99999"):
                    with self.subTest(name, bad=bad), self.assertRaises(errors.AerostackError):
                        getattr(getattr(sdk, service), name)(server_url=bad, **fields)
            self.assertEqual(server.connections, 0)

    def test_trailing_slashes_fold(self):
        with ScriptedServer(repeat(expect, FOUND)) as server:
            for end in ("", "/", "//", "///"):
                with SDK("key", server_url=server.url + "/v1" + end) as sdk:
                    sdk.cache.cache_get(key="a")
                    sdk.cache.cache_get(key="a", server_url=server.url + "/v1" + end)
            for request in server.requests:
                self.assertTrue(request.startswith(b"POST /v1/cache/get HTTP/1.1\r\n"), request)

    def test_a_user_in_it_becomes_basic_authorization_and_is_masked(self):
        with ScriptedServer(repeat(expect, FOUND)) as server:
            url = "http://us%%40er:hu%%3Ash@%s/v1" % server.netloc
            with SDK("key", server_url=url, retry_config=None) as sdk:
                sdk.cache.cache_get(key="a")
                for shown in (repr(sdk), repr(sdk.sdk_configuration)):
                    self.assertNotIn("hu%3Ash", shown)
                    self.assertNotIn("hu:sh", shown)
            self.assertEqual(header(server.requests[0], "Authorization"), ["Basic dXNAZXI6aHU6c2g="])
            self.assertEqual(header(server.requests[0], "Host"), [server.netloc])
            self.assertNotIn(b"@", server.requests[0].partition(b"\r\n")[0])

    def test_a_user_in_it_is_masked_in_errors(self):
        with ScriptedServer([expect, until_gone]) as server:
            with SDK("key", server_url="http://user:hush@%s" % server.netloc, retry_config=None, timeout_ms=200) as sdk:
                with self.assertRaises(errors.TimeoutException) as caught:
                    sdk.cache.cache_get(key="a")
        error = caught.exception
        for shown in (str(error), repr(error), repr(error.request), str(error.request.url)):
            self.assertNotIn("hush", shown)
        with self.assertRaises(errors.AerostackError) as caught:
            SDK("key", server_url="http://user:hush@h:99999")
        self.assertNotIn("hush", str(caught.exception))

    def test_a_server_index_out_of_range_is_refused(self):
        for bad in (2, -1, -2, 99):
            with self.subTest(bad), self.assertRaises((errors.AerostackError, IndexError)):
                SDK("key", server_idx=bad)


class WhatAProxyIsToldTest(LoopbackTestCase):
    """Proxies of companies let nobody through who does not say what he is."""

    REFUSED = answer(b"no", status="403 Forbidden")

    def assert_told(self, proxy, target, agents):
        """That a proxy was asked for a tunnel, and how those who asked called themselves."""
        self.assertEqual([header(request, "User-Agent") for request in proxy.requests], [[agent] for agent in agents])
        for request in proxy.requests:
            self.assertTrue(request.startswith(b"CONNECT %s HTTP/1.1\r\n" % target.encode()), request)
            self.assertEqual(header(request, "Host"), [target])
            for name in ("X-Aerostack-Key", "Authorization", "Content-Type", "Content-Length", "X-Team"):
                self.assertEqual(header(request, name), [], name)

    def test_who_asks_for_a_tunnel(self):
        for url, target in (
            ("https://origin.test", "origin.test:443"),
            ("https://origin.test:8443/v1", "origin.test:8443"),
            ("https://[::1]/v1", "[::1]:443"),
        ):
            with ScriptedServer(repeat(expect, self.REFUSED)) as proxy:
                clients = HttpClient(proxy=proxy.url), AsyncHttpClient(proxy=proxy.url)
                sdk = SDK("key", server_url=url, client=clients[0], async_client=clients[1], retry_config=None)
                with self.assertRaises(errors.ProxyError):
                    sdk.cache.cache_get(key="k")
                with self.assertRaises(errors.ProxyError):
                    asyncio.run(sdk.cache.cache_get_async(key="k"))
                with self.assertRaises(errors.ProxyError):
                    sdk.storage.storage_upload(key="k", file=iter([b"x"]))
                self.assert_told(proxy, target, [USER_AGENT] * 3)
                for client in clients:
                    client.close()

    def test_who_asks_by_the_environment_s_proxy(self):
        with ScriptedServer(repeat(expect, self.REFUSED)) as proxy:
            with mock.patch.dict(os.environ, HTTPS_PROXY=proxy.url), SDK(
                "key", server_url="https://origin.test"
            ) as sdk:
                with self.assertRaises(errors.ProxyError):
                    sdk.cache.cache_get(key="k")
            self.assert_told(proxy, "origin.test:443", [USER_AGENT])

    def test_who_asks_with_credentials(self):
        with ScriptedServer(repeat(expect, self.REFUSED)) as proxy:
            with HttpClient(proxy="http://ada:pw@" + proxy.netloc) as client, self.assertRaises(errors.ProxyError):
                post(client, "https://origin.test/")
            self.assert_told(proxy, "origin.test:443", [USER_AGENT])
            self.assertEqual(header(proxy.requests[0], "Proxy-Authorization"), ["Basic YWRhOnB3"])

    def test_a_client_without_an_sdk_says_it_too(self):
        with ScriptedServer(repeat(expect, self.REFUSED)) as proxy:
            with HttpClient(proxy=proxy.url, headers={"X-Team": "a"}) as client, self.assertRaises(errors.ProxyError):
                post(client, "https://origin.test/", headers={"Authorization": "x"})
            self.assert_told(proxy, "origin.test:443", [USER_AGENT])

    def test_a_proxy_for_http_is_told_as_the_server_is(self):
        with ScriptedServer(repeat(expect, FOUND)) as proxy, HttpClient(proxy=proxy.url) as client:
            with SDK("key", server_url="http://origin.test", client=client) as sdk:
                sdk.cache.cache_get(key="k")
                sdk.cache.cache_get(key="k", http_headers={"User-Agent": "mine"})
            agents = [header(request, "User-Agent") for request in proxy.requests]
            self.assertEqual(agents, [[USER_AGENT], ["mine"]])


class HandlersTest(LoopbackTestCase):
    def test_a_handler_of_the_user_sees_and_changes_each_request_and_response(self):
        seen = []

        class Signer(urllib.request.BaseHandler):
            def http_request(self, request):
                request.add_header("X-Signed", str(len(request.data)))
                request.add_unredirected_header("X-Once", "1")
                return request

            def http_response(self, request, response):
                seen.append((request.get_method(), response.code, response.msg, response.info()["content-type"]))
                return response

        with ScriptedServer(repeat(expect, FOUND)) as server, HttpClient(handlers=[Signer()]) as client:
            with SDK("key", server_url=server.url, client=client) as sdk:
                sdk.cache.cache_get(key="a")
                sdk.cache.cache_get(key="b")
            for request in server.requests:
                self.assertEqual((header(request, "X-Signed"), header(request, "X-Once")), (["11"], ["1"]))
            self.assertEqual(server.connections, 1)
        self.assertEqual(seen, [("POST", 200, "OK", "application/json")] * 2)

    def test_a_handler_may_change_the_method_and_the_body(self):
        class Changes(urllib.request.BaseHandler):
            def http_request(self, request):
                request.method, request.data = "PUT", b"changed"
                return request

        with ScriptedServer([expect, answer()]) as server, HttpClient(handlers=[Changes()]) as client:
            post(client, server.url)
        self.assertTrue(server.requests[0].startswith(b"PUT / "))
        self.assertTrue(server.requests[0].endswith(b"content-length: 7\r\n\r\nchanged"), server.requests[0])

    def test_what_a_handler_adds_is_for_one_attempt(self):
        class Once(urllib.request.BaseHandler):
            nonce = 0

            def http_request(self, request):
                Once.nonce += 1
                self_test.assertFalse(request.has_header("X-nonce") or request.has_header("X-mark"))
                request.add_header("X-Nonce", str(Once.nonce))
                request.add_unredirected_header("X-Mark", str(Once.nonce))
                return request

        self_test = self
        with ScriptedServer([expect, answer(status="503 Busy"), expect, FOUND]) as server, HttpClient(
            handlers=[Once()]
        ) as client:
            config = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 5000), False)
            SDK("key", server_url=server.url, client=client, retry_config=config).cache.cache_get(key="a")
        for name in ("X-Nonce", "X-Mark"):
            self.assertEqual([header(request, name) for request in server.requests], [["1"], ["2"]])

    def test_a_header_beyond_ascii_of_a_handler_s_is_sent(self):
        class Greets(urllib.request.BaseHandler):
            def http_request(self, request):
                request.add_header("X-Name", "\u20ac")
                return request

        with ScriptedServer([expect, FOUND]) as server, HttpClient(handlers=[Greets()]) as client:
            SDK("key", server_url=server.url, client=client).cache.cache_get(key="a")
        self.assertIn("\u20ac".encode(), server.requests[0])

    def test_a_call_made_within_a_handler_that_fails_repeats_nothing(self):
        nobody = SDK("key", server_url="http://127.0.0.1:%d" % free_port(), retry_config=None)

        class Audits(urllib.request.BaseHandler):
            def http_response(self, request, response):
                nobody.queue.queue_enqueue(type="audit", data={})

        with ScriptedServer(repeat(expect, FOUND)) as server, HttpClient(handlers=[Audits()]) as client:
            with self.assertRaises(errors.ConnectError) as caught:
                SDK("key", server_url=server.url, client=client).database.db_query(sql="INSERT")
            self.assertEqual(
                (len(server.requests), caught.exception.attempts, caught.exception.maybe_processed), (1, 1, True)
            )

    def test_behind_handlers_a_call_is_tried_again_as_ever(self):
        port = free_port()
        with HttpClient(handlers=[urllib.request.BaseHandler()]) as client, self.assertRaises(
            errors.ConnectError
        ) as caught:
            retries = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 50), True)
            SDK("key", server_url="http://127.0.0.1:%d" % port, client=client, retry_config=retries).cache.cache_get(
                key="a"
            )
        self.assertGreater(caught.exception.attempts, 1)
        self.assertFalse(caught.exception.maybe_processed)

    def test_a_handler_that_makes_requests_or_responses_of_its_own_is_an_error_of_ours(self):
        class Request(urllib.request.BaseHandler):
            def http_request(self, request):
                return urllib.request.Request(request.full_url)

        class Response(urllib.request.BaseHandler):
            def http_response(self, request, response):
                return None

        for handler in (Request(), Response()):
            with ScriptedServer([expect, FOUND]) as server, HttpClient(handlers=[handler]) as client:
                with self.subTest(handler), self.assertRaises(errors.AerostackError):
                    SDK("key", server_url=server.url, client=client).cache.cache_get(key="a")

    def test_a_handler_that_would_open_connections_or_is_none_is_refused(self):
        for handlers in (
            [urllib.request.ProxyHandler({"http": "http://127.0.0.1:1"})],
            [urllib.request.HTTPHandler()],
            [urllib.request.HTTPSHandler()],
            urllib.request.HTTPCookieProcessor,
            [urllib.request.HTTPCookieProcessor],
            "x",
            5,
            [None],
        ):
            with self.subTest(handlers), self.assertRaises(errors.ArgumentTypeError) as caught:
                HttpClient(handlers=handlers)
            self.assertIn("handlers", str(caught.exception))

    def test_an_unredirected_header_takes_the_place_of_ours(self):
        class Agent(urllib.request.BaseHandler):
            def http_request(self, request):
                request.add_unredirected_header("User-Agent", "mine")
                return request

        with ScriptedServer([expect, FOUND]) as server, HttpClient(handlers=[Agent()]) as client:
            SDK("key", server_url=server.url, client=client).cache.cache_get(key="a")
        self.assertEqual(header(server.requests[0], "User-Agent"), ["mine"])

    def test_a_header_that_would_break_out_of_its_line_never_leaves(self):
        class Injector(urllib.request.BaseHandler):
            def http_request(self, request):
                request.add_header("X-Tenant", bad)
                return request

        for bad in BROKEN:
            with ScriptedServer([until_gone]) as server, HttpClient() as plain, HttpClient(
                handlers=[Injector()]
            ) as handled:
                by_hand = plain.build_request("POST", server.url)
                by_hand.headers["x-tenant"] = bad
                for client, request in ((plain, by_hand), (handled, handled.build_request("POST", server.url))):
                    with self.subTest(bad), self.assertRaises(errors.LocalProtocolError):
                        client.send(request)
                self.assertEqual(server.requests, [])

    def test_nothing_but_http_is_opened(self):
        for handlers in ((), (urllib.request.HTTPCookieProcessor(),)):
            with HttpClient(handlers=handlers) as client:
                for url in ("file:///etc/hosts", "ftp://127.0.0.1/", "data:,x"):
                    request = client.build_request("POST", "http://127.0.0.1/")
                    for act in (client.build_request, lambda _, url: setattr(request, "full_url", url)):
                        with self.subTest(url, handlers=handlers), self.assertRaises(errors.UnsupportedProtocol):
                            act("POST", url)


class FramingTest(LoopbackTestCase):
    def test_chunks_are_measured_in_bytes(self):
        for block in (array.array("i", [1, 2]), memoryview(array.array("i", [1, 2]))):
            with ScriptedServer([expect, answer()]) as server, HttpClient() as client:
                post(client, server.url, iter([block]))
            self.assertIn(
                b"\r\n\r\n8\r\n" + bytes(memoryview(array.array("i", [1, 2]))) + b"\r\n0\r\n\r\n", server.requests[0]
            )

    def test_content_that_can_be_read_once_is_never_sent_empty(self):
        class Spent:  # no iterator, but with one walk in it
            walk = iter([b"once"])

            def __iter__(self):
                return self.walk

        with ScriptedServer([expect, answer(), until_gone]) as server, HttpClient() as client:
            request = client.build_request("POST", server.url, content=Spent())
            client.send(request)
            with self.assertRaises(errors.LocalProtocolError):
                client.send(request)
            self.assertEqual(len(server.requests), 1)

    def test_content_of_a_wrong_kind_is_an_error_of_ours(self):
        for content in (5, {"a": 1}, ["text"], [None], object()):
            with ScriptedServer([until_gone]) as server, HttpClient() as client:
                with self.subTest(content), self.assertRaises(errors.AerostackError):
                    post(client, server.url, content)

    def test_json_bodies_have_an_exact_length_and_only_headers_of_ours(self):
        with ScriptedServer(repeat(expect, answer())) as server, SDK(
            "key", server_url=server.url, retry_config=None
        ) as sdk:
            for service, name, fields in OPERATIONS[:-1]:
                with self.subTest(name):
                    try:
                        getattr(getattr(sdk, service), name)(**fields)
                    except errors.ResponseValidationError:
                        pass  # {} is not every operation's answer
                    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
                    names = [line.partition(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:]]
                    self.assertEqual(len(names), len(set(names)), names)
                    self.assertLessEqual(
                        set(names),
                        {
                            "host",
                            "accept",
                            "accept-encoding",
                            "content-type",
                            "content-length",
                            "user-agent",
                            "x-aerostack-key",
                            "x-request-id",
                            "connection",
                        },
                    )
                    self.assertEqual(header(server.requests[-1], "Content-Length"), [str(len(body))])
                    self.assertEqual(header(server.requests[-1], "Content-Type"), ["application/json"])
                    self.assertEqual(header(server.requests[-1], "Accept"), ["application/json"])
                    self.assertNotIn(b"urllib", server.requests[-1])
                    self.assertNotIn(header(server.requests[-1], "Connection"), [["close"]])
            self.assertEqual(server.connections, 1)

    def test_a_body_beyond_ascii_is_counted_in_bytes(self):
        with ScriptedServer(repeat(expect, FOUND)) as server, SDK("key", server_url=server.url) as sdk:
            sdk.cache.cache_get(key="\u00e9\u20ac\U0001f600" * 1000)
            body = server.requests[0].partition(b"\r\n\r\n")[2]
            self.assertEqual(header(server.requests[0], "Content-Length"), [str(len(body))])

    def test_an_empty_block_of_an_iterable_does_not_end_the_body(self):
        with ScriptedServer([expect, answer()]) as server, HttpClient() as client:
            post(client, server.url, iter([b"", b"one", b"", b"two", b""]))
            self.assertEqual(server.requests[0].partition(b"\r\n\r\n")[2], b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")

    def test_any_bytes_like_content_is_bytes(self):
        for content in (bytearray(b"abc"), memoryview(b"abc"), array.array("B", b"abc")):
            with self.subTest(type(content).__name__), ScriptedServer(
                [expect, answer()]
            ) as server, HttpClient() as client:
                post(client, server.url, content)
                self.assertEqual(server.requests[0].partition(b"\r\n\r\n")[2], b"abc")

    def test_a_success_before_all_was_sent_is_none(self):
        with ScriptedServer([answer(b"{}"), until_gone]) as server, HttpClient() as client:
            with self.assertRaisesRegex(errors.RemoteProtocolError, "200 before"):
                post(client, server.url, (b"x" * 65536 for _ in range(1000)))

    def test_an_answer_that_comes_while_a_large_body_goes_out_is_the_answer(self):
        for ending in (hang, half_close, close):
            for content in (bytes(16 << 20), [bytes(1 << 20)] * 16):
                script = [
                    lambda peer: peer.read_through(b"\r\n\r\n"),
                    answer(b"no", status="413 Content Too Large"),
                    ending,
                ]
                with self.subTest(ending.__name__, content=type(content).__name__):
                    with ScriptedServer(script, [expect, answer(b"2")]) as server, HttpClient() as client:
                        self.assertEqual(post(client, server.url, content, timeout=1.0).status_code, 413)
                        self.assertEqual(post(client, server.url).content, b"2")
                        self.assertEqual(server.connections, 2)

    def test_an_answer_that_comes_between_two_blocks_is_seen_before_the_next_is_sent(self):
        answered, sent = threading.Event(), []

        def blocks():
            for number in range(1000):
                sent.append(number)
                yield b"x"
                answered.wait(PATIENCE_SECONDS)

        refuse = answer(b"no", status="413 Content Too Large")
        script = [lambda peer: peer.read_through(b"\r\n\r\n"), refuse, lambda peer: answered.set(), hang]
        with ScriptedServer(script) as server, HttpClient() as client:
            self.assertEqual(post(client, server.url, blocks()).status_code, 413)
        self.assertLess(len(sent), 10)

    def test_an_interim_answer_or_half_a_head_stops_no_body(self):
        size = 16 << 20
        for begun, rest in (
            (b"HTTP/1.1 100 Continue\r\n\r\n", answer(b"1")),
            (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 2", answer(b"1")[10:]),
        ):
            for content in (bytes(size), [bytes(1 << 20)] * 16):
                script = [lambda peer: peer.read_through(b"\r\n\r\n"), begun, lambda peer: peer.read(size), rest]
                with self.subTest(begun, content=type(content).__name__):
                    with ScriptedServer(script) as server, HttpClient() as client:
                        self.assertEqual(post(client, server.url, content, timeout=3.0).content, b"1")

    def test_a_server_that_leaves_while_a_large_body_goes_out_is_seen_to_leave(self):
        for content in (bytes(16 << 20), [bytes(1 << 20)] * 16):
            leave = [lambda peer: peer.read(10), lambda peer: peer.socket.shutdown(socket.SHUT_WR), hang]
            with self.subTest(type(content).__name__), ScriptedServer(leave) as server, HttpClient() as client:
                with self.assertRaises(errors.RemoteProtocolError) as caught:
                    post(client, server.url, content, timeout=1.0)
                self.assertIs(caught.exception.connection_lost, True)

    def test_a_server_that_babbles_during_an_upload_is_an_error_long_before_its_end(self):
        sent = []

        def blocks():
            for number in range(4000):
                sent.append(number)
                yield bytes(16384)

        def babble(peer):
            peer.read_through(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 200 OK\r\nA: ")
            while True:
                peer.send(b"y" * 16384)
                peer.read(16384)

        with ScriptedServer([babble]) as server, HttpClient() as client:
            with self.assertRaises(errors.RemoteProtocolError):
                post(client, server.url, blocks())
        self.assertLess(len(sent), 1000)

    def test_raw_content_is_sent_as_it_is(self):
        every = bytes(range(256)) * 4
        with ScriptedServer(repeat(expect, answer())) as server, HttpClient() as client:
            for content in (b"", b"\r\n\r\n", every):
                post(client, server.url, content=content)
                self.assertEqual(server.requests[-1].partition(b"\r\n\r\n")[2], content)
                self.assertEqual(header(server.requests[-1], "Content-Length"), [str(len(content))])
