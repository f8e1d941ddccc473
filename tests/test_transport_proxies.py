"""Proxies: which one is chosen, what it is told, and what it can get wrong."""

import base64
import os
import socket
import unittest
from unittest import mock

from aerostack_lite import SDK, errors
from tests.scripted_server import (
    HostsTestCase,
    Stopwatch,
    answer,
    at_once,
    close,
    drip,
    expect,
    flood,
    free_port,
    hang,
    header,
    post,
    repeat,
    reset,
    until_gone,
)

ONE_CASE_ONLY = os.name == "nt"  # Windows does not tell http_proxy from HTTP_PROXY


class ChoiceTest(HostsTestCase):
    def setUp(self):
        super().setUp()
        self.proxy = self.serve(repeat(expect, answer(b'"proxy"')))
        self.other = self.serve(repeat(expect, answer(b'"other"')))
        self.origin = self.serve(repeat(expect, answer(b'"origin"')))
        self.url = "http://origin.test:%d/x?y=1" % self.origin.port

    def who_answers(self, url=None, options=None, **environment):
        with mock.patch.dict(os.environ, environment):
            return post(self.client(**(options or {})), url or self.url).json()

    def test_http_goes_through_its_proxy_in_absolute_form(self):
        self.assertEqual(self.who_answers(HTTP_PROXY=self.proxy.url), "proxy")
        line, _, _ = self.proxy.requests[0].partition(b"\r\n")
        self.assertEqual(line, b"POST %s HTTP/1.1" % self.url.encode())
        self.assertEqual(header(self.proxy.requests[0], "Host"), ["origin.test:%d" % self.origin.port])

    def test_the_variables_that_name_a_proxy(self):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            with self.subTest(name):
                self.assertEqual(self.who_answers(**{name: self.proxy.url}), "proxy")
        self.assertEqual(self.who_answers(HTTPS_PROXY=self.proxy.url), "origin")
        self.assertEqual(self.who_answers(HTTP_PROXY=self.proxy.url, ALL_PROXY=self.other.url), "proxy")

    def test_https_has_a_variable_of_its_own(self):
        for names in (("HTTPS_PROXY",), ("https_proxy",), ("ALL_PROXY",)):
            proxy = self.serve([expect, answer(status="403 No")])
            with self.subTest(names), mock.patch.dict(os.environ, dict.fromkeys(names, proxy.url)):
                with self.assertRaises(errors.ProxyError):
                    post(self.client(), "https://origin.test/")
                self.assertEqual(len(proxy.requests), 1)

    @unittest.skipIf(ONE_CASE_ONLY, "this system's variables have no case")
    def test_lower_case_comes_before_upper_case(self):
        self.assertEqual(self.who_answers(HTTP_PROXY=self.other.url, http_proxy=self.proxy.url), "proxy")

    def test_an_empty_variable_is_none_at_all(self):
        self.assertEqual(self.who_answers(HTTP_PROXY=""), "origin")
        self.assertEqual(self.who_answers(http_proxy=""), "origin")
        self.assertEqual(self.who_answers(HTTP_PROXY="", ALL_PROXY=""), "origin")

    def test_under_cgi_the_variable_that_a_client_can_set_is_ignored(self):
        self.assertEqual(self.who_answers(HTTP_PROXY=self.proxy.url, REQUEST_METHOD="POST"), "origin")

    def test_the_argument_wins_over_the_environment(self):
        self.assertEqual(self.who_answers(options={"proxy": self.proxy.url}, HTTP_PROXY=self.other.url), "proxy")
        self.assertEqual(self.who_answers(options={"proxy": self.proxy.url}, NO_PROXY="*"), "proxy")
        self.assertEqual(self.who_answers(options={"proxy": False}, HTTP_PROXY=self.other.url), "origin")

    def test_a_proxy_without_a_scheme_is_an_http_proxy(self):
        self.assertEqual(self.who_answers(HTTP_PROXY=self.proxy.netloc), "proxy")
        self.assertEqual(self.who_answers(options={"proxy": self.proxy.netloc}), "proxy")

    def test_the_sdk_obeys_the_environment(self):
        with mock.patch.dict(os.environ, HTTP_PROXY=self.serve([expect, answer(b'{"exists":false}')]).url):
            with SDK("k", server_url="http://origin.test") as sdk:
                self.assertIs(sdk.cache.cache_get(key="a").exists, False)

    def test_no_proxy_names_what_is_reached_directly(self):
        port = self.origin.port
        for names, host, direct in (
            ("*", "origin.test", True),
            ("other.test, *", "origin.test", True),
            ("origin.test", "origin.test", True),
            ("ORIGIN.Test", "origin.test", True),
            ("origin.test", "api.origin.test", True),
            ("origin.test", "xorigin.test", False),
            ("corp.local", "xcorp.local", False),
            (".origin.test", "api.origin.test", True),
            (".origin.test", "xorigin.test", False),
            ("*.origin.test", "api.origin.test", True),
            ("*.ORIGIN.Test", "api.origin.test", True),
            ("*.origin.test", "api.other.test", False),
            ("test", "origin.test", True),
            ("est", "origin.test", False),
            ("origin.test.", "origin.test", True),
            ("origin.test", "origin.test.", True),
            ("other.test", "origin.test", False),
            (" other.test , origin.test ", "origin.test", True),
            ("origin.test:%d" % port, "origin.test", True),
            ("origin.test:%d" % (port + 1), "origin.test", False),
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1:%d" % port, "127.0.0.1", True),
            ("127.0.0.1:%d" % (port + 1), "127.0.0.1", False),
            ("127.0.0.0/8", "127.0.0.1", True),
            ("127.0.0.1/32", "127.0.0.1", True),
            ("127.0.0.9/8", "127.0.0.1", True),
            ("127.0.0.128/25", "127.0.0.1", False),
            ("10.0.0.0/8", "127.0.0.1", False),
            ("0.0.0.0/0", "127.0.0.1", True),
            ("7.0.0.1", "127.0.0.1", False),
            ("::/0", "127.0.0.1", False),
            ("127.0.0.0/99, 10.0.0.0/, /8, [::1, :::, http://, .., *.*, \x01, [, ], %", "127.0.0.1", False),
            (
                "127.0.0.0/99, 10.0.0.0/, /8, [::1, :::, http://, .., *.*, \x7f, [, ], %, origin.test",
                "origin.test",
                True,
            ),
            (",,, ,", "origin.test", False),
            ("origin.test:\u00b2", "origin.test", False),
            ("origin.test:" + "9" * 5000, "origin.test", False),
        ):
            for variable in ("NO_PROXY", "no_proxy"):
                with self.subTest(names=names, host=host, variable=variable):
                    answered = self.who_answers(
                        "http://%s:%d/" % (host, port), HTTP_PROXY=self.proxy.url, **{variable: names}
                    )
                    self.assertEqual(answered, "origin" if direct else "proxy")

    def test_no_proxy_knows_ipv6(self):
        try:
            origin = self.serve(repeat(expect, answer(b'"origin"')), host="::1")
        except OSError:
            self.skipTest("no IPv6 here")
        for names, direct in (
            ("::1", True),
            ("[::1]", True),
            ("[::1]:%d" % origin.port, True),
            ("[::1]:1", False),
            ("::/64", True),
            ("fe80::/10", False),
            ("0:0:0:0:0:0:0:1", True),
            ("127.0.0.0/8", False),
            ("*", True),
        ):
            with self.subTest(names):
                answered = self.who_answers(origin.url + "/", HTTP_PROXY=self.proxy.url, NO_PROXY=names)
                self.assertEqual(answered, "origin" if direct else "proxy")

    def test_a_proxy_of_a_scheme_we_cannot_speak_fails_only_when_it_is_chosen(self):
        for scheme in ("socks5", "socks5h", "socks4", "quic"):
            bad = "%s://user:hush@127.0.0.1:1080" % scheme
            with self.subTest(scheme):
                self.assertEqual(self.who_answers(HTTPS_PROXY=bad), "origin")
                self.assertEqual(self.who_answers(ALL_PROXY=bad, HTTP_PROXY=self.proxy.url), "proxy")
                self.assertEqual(self.who_answers(ALL_PROXY=bad, NO_PROXY="origin.test"), "origin")
                for variable in ("HTTP_PROXY", "ALL_PROXY"):
                    with self.assertRaises(errors.AerostackError) as caught:
                        self.who_answers(**{variable: bad})
                    self.assertIn(variable, str(caught.exception))
                    self.assertIn(scheme, str(caught.exception))
                    self.assertNotIn("hush", str(caught.exception))

    def test_a_proxy_that_is_no_url_fails_only_when_it_is_chosen_naming_its_variable(self):
        for bad in ("http://", "http://[::1", "http://a:99999", "http://a:b", "http://a b:1", "://", "http:///x"):
            with self.subTest(bad):
                self.assertEqual(self.who_answers(HTTPS_PROXY=bad), "origin")
                with self.assertRaises(errors.AerostackError) as caught:
                    self.who_answers(HTTP_PROXY=bad)
                self.assertIn("HTTP_PROXY", str(caught.exception))

    def test_what_is_no_url_is_refused_when_the_client_is_made(self):
        for bad in (3128, b"http://proxy:3128", True, ["http://proxy:3128"]):
            with self.subTest(bad), self.assertRaisesRegex(errors.ArgumentTypeError, "proxy"):
                self.client(proxy=bad)


class CredentialsTest(HostsTestCase):
    def with_password(self, proxy):
        return "http://us%%40er:hu%%3Ash%%20%%C3%%A9@%s" % proxy.netloc

    expected = "Basic " + base64.b64encode("us@er:hu:sh \u00e9".encode()).decode()

    def test_they_go_to_the_forward_proxy_unquoted(self):
        proxy = self.serve(repeat(expect, answer()))
        post(self.client(proxy=self.with_password(proxy)), "http://origin.test/")
        self.assertEqual(header(proxy.requests[0], "Proxy-Authorization"), [self.expected])
        self.assertEqual(header(proxy.requests[0], "Authorization"), [])

    def test_they_go_into_connect_and_the_key_does_not(self):
        proxy = self.serve([expect, answer(status="403 No")])
        with SDK("sk_1", server_url="https://origin.test", client=self.client(proxy=self.with_password(proxy))) as sdk:
            with self.assertRaises(errors.ProxyError):
                sdk.cache.cache_get(key="a", retries=None)
        self.assertEqual(header(proxy.requests[0], "Proxy-Authorization"), [self.expected])
        self.assertNotIn(b"sk_1", bytes(proxy.peers[0].received))

    def test_the_origin_never_sees_them(self):
        origin = self.serve([expect, answer()])
        proxy = self.serve([hang])
        with mock.patch.dict(os.environ, HTTP_PROXY=self.with_password(proxy), NO_PROXY="origin.test"):
            post(self.client(), "http://origin.test:%d/" % origin.port)
        self.assertEqual(header(origin.requests[0], "Proxy-Authorization"), [])

    def test_a_user_without_a_password_and_a_password_with_colons(self):
        for userinfo, sent in (("user", b"user:"), ("user:", b"user:"), ("user:a:b", b"user:a:b"), (":pw", b":pw")):
            proxy = self.serve([expect, answer()])
            post(self.client(proxy="http://%s@%s" % (userinfo, proxy.netloc)), "http://origin.test/")
            self.assertEqual(
                header(proxy.requests[0], "Proxy-Authorization"), ["Basic " + base64.b64encode(sent).decode()]
            )

    def test_whatever_httpx_takes_in_them_is_taken(self):
        for written, sent in (
            ("CORP\\jane:pw", "CORP\\jane:pw"),
            ("user:p w", "user:p w"),
            ("user: ", "user: "),
            ("user:p@ss@word", "user:p@ss@word"),
            ("us@er:pw", "us@er:pw"),
            ("user:100%", "user:100%"),
            ("user:p%zzq", "user:p%zzq"),
            ("user:p%23%2F%3Fq", "user:p#/?q"),
            ("user:p\\q", "user:p\\q"),
            ("\u00fcser:p\u00e4ss", "\u00fcser:p\u00e4ss"),
            ('user:"<>^`{|}~', 'user:"<>^`{|}~'),
            ("user:[x]", "user:[x]"),
            ("user:p;&=+$,!*'()", "user:p;&=+$,!*'()"),
            ("user:a:b:c", "user:a:b:c"),
        ):
            for place in ("proxy=", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                with self.subTest(written, place=place):
                    self.check_sent(place, "http://%s@%%s" % written.replace("%", "%%"), sent)

    def test_the_url_may_be_written_in_other_ways(self):
        for url in (
            "HTTP://user:p w@%s",
            "  http://user:p w@%s\n",
            "http://user:p w@%s/",
            "http://user:p w@%s/a/path",
            "http://user:p w@%s?query",
            "http://user:p w@%s#fragment",
            "user:p w@%s",
        ):
            for place in ("proxy=", "HTTP_PROXY", "HTTPS_PROXY"):
                with self.subTest(url, place=place):
                    self.check_sent(place, url, "user:p w")

    def check_sent(self, place, url, credentials):
        """A proxy at this place gets these credentials."""
        proxy = self.serve([expect, answer(status="403 No")])
        url %= proxy.netloc
        with mock.patch.dict(os.environ, {} if place == "proxy=" else {place: url}):
            client = self.client(**({"proxy": url} if place == "proxy=" else {}))
            if place == "HTTPS_PROXY":
                with self.assertRaises(errors.ProxyError):
                    post(client, "https://origin.test/")
            else:
                self.assertEqual(post(client, "http://origin.test/").status_code, 403)
        sent = header(proxy.requests[0], "Proxy-Authorization")
        self.assertEqual(sent, ["Basic " + base64.b64encode(credentials.encode()).decode()])

    def test_a_password_with_characters_that_end_a_host_leads_to_no_other_host(self):
        resolve, asked = socket.getaddrinfo, []

        def look_up(host, *rest, **options):
            asked.append(host)
            return resolve(host, *rest, **options)

        for written in ("p#ssw0rd", "p/ssw0rd", "p?ssw0rd", "8080#ssw0rd", "80/ssw0rd", "1?x:2#y/z", "#", "/", "?@#"):
            for place in ("proxy=", "HTTP_PROXY", "HTTPS_PROXY"):
                with self.subTest(written, place=place), mock.patch("socket.getaddrinfo", look_up):
                    self.check_sent(place, "http://user:%s@%%s" % written, "user:" + written)
        self.assertEqual({host for host in asked if str(host) != "127.0.0.1"}, set())

    def test_they_are_never_shown(self):
        proxy = self.serve([expect, answer(b"", status="407 Hush")])
        client = self.client(proxy=self.with_password(proxy))
        with self.assertRaises(errors.ProxyError) as caught:
            post(client, "https://origin.test/")
        refused = "http://user:hush@127.0.0.1:%d" % free_port()
        with self.assertRaises(errors.RequestError) as refusal:
            post(self.client(proxy=refused), "http://origin.test/")
        for shown in (repr(client), str(caught.exception), repr(caught.exception), str(refusal.exception)):
            for secret in ("hu%3Ash", "hu:sh", "hush@", "us%40er", base64.b64encode(b"us@er").decode()[:6]):
                self.assertNotIn(secret, shown)

    def test_a_proxy_that_cannot_be_reached_is_a_connect_error_that_names_it_masked(self):
        port = free_port()
        for place in ("proxy=", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            url = "http://user:hush@127.0.0.1:%d" % port
            with mock.patch.dict(os.environ, {} if place == "proxy=" else {place: url}):
                client = self.client(**({"proxy": url} if place == "proxy=" else {}))
                for origin in ("http://origin.test/", "https://origin.test/"):
                    if place[:-5] in ("proxy=", "ALL_", origin.partition(":")[0].upper() + "_"):
                        with self.subTest(place, origin=origin), self.assertRaises(errors.ConnectError) as caught:
                            post(client, origin)
                        self.assertNotIsInstance(caught.exception, errors.ProxyError)
                        self.assertIn("proxy http://***@127.0.0.1:%d" % port, str(caught.exception))
        refusal = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=refusal), self.assertRaises(errors.ConnectError) as caught:
            post(self.client(proxy="http://nowhere.invalid:3128"), "http://origin.test/")
        self.assertIn("nowhere.invalid:3128", str(caught.exception))

    def test_control_characters_in_them_are_refused_or_encoded_never_a_second_header(self):
        proxy = self.serve([expect, answer()])
        post(self.client(proxy="http://a%%0d%%0aX-Evil%%3A%%201:b@%s" % proxy.netloc), "http://origin.test/")
        self.assertEqual(header(proxy.requests[0], "X-Evil"), [])


class ConnectTunnelTest(HostsTestCase):
    def post_through(self, *script, **options):
        url = options.pop("url", "https://origin.test/")
        proxy = self.serve(list(script))
        with self.assertRaises(errors.AerostackError) as caught:
            post(self.client(proxy=proxy.url), url, timeout=options.pop("timeout", 0.3))
        return proxy, caught.exception

    def test_it_is_http_1_1_with_a_host(self):
        for url, target in (
            ("https://origin.test/", "origin.test:443"),
            ("https://origin.test:8443/x", "origin.test:8443"),
            ("https://[::1]/", "[::1]:443"),
        ):
            proxy, _ = self.post_through(expect, answer(status="403 No"), url=url)
            self.assertTrue(
                proxy.requests[0].startswith(b"CONNECT %s HTTP/1.1\r\n" % target.encode()), proxy.requests[0]
            )
            self.assertEqual(header(proxy.requests[0], "Host"), [target])

    def test_any_2xx_opens_it_and_its_framing_headers_mean_nothing(self):
        for head in (
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 299 \r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ):
            hello = []
            with self.subTest(head):
                self.post_through(expect, head, lambda peer: hello.append(peer.read(2)), close, timeout=5.0)
                self.assertEqual(hello, [b"\x16\x03"])

    def test_no_other_answer_opens_it(self):
        for status in (
            "407 Proxy Authentication Required",
            "403 Forbidden",
            "502 Bad Gateway",
            "302 Found",
            "500 Oops",
        ):
            with self.subTest(status):
                proxy, error = self.post_through(
                    expect, answer(b"no", "Location: http://127.0.0.1/", status=status), until_gone
                )
                self.assertIsInstance(error, errors.ProxyError)
                self.assertIn(status[:3], str(error))
                self.assertIn(proxy.netloc, str(error))
                self.assertTrue(proxy.peers[0].left.wait(5))

    def test_what_the_proxy_says_is_shown_escaped(self):
        _, error = self.post_through(expect, b"HTTP/1.1 403 No\x1b[31m way\r\n\r\n")
        self.assertNotIn("\x1b", str(error))

    def test_more_than_eight_interim_answers_are_an_error(self):
        _, error = self.post_through(expect, flood(b"HTTP/1.1 100 Continue\r\n\r\n"))
        self.assertNotIsInstance(error, TimeoutError)

    def test_headers_without_end_are_an_error(self):
        for block in (b"X: " + b"y" * 1000 + b"\r\n", b"y" * 1000):
            with Stopwatch() as took:
                _, error = self.post_through(expect, b"HTTP/1.1 200 OK\r\nA: ", flood(block), timeout=5.0)
            self.assertNotIsInstance(error, TimeoutError)
            self.assertLess(took.seconds, 2)

    def test_the_deadline_holds_against_silence_and_drips(self):
        def check(script):
            with Stopwatch() as took:
                _, error = self.post_through(*script)
            self.assertIsInstance(error, errors.TimeoutException)
            self.assertLess(took.seconds, 0.7)

        at_once(
            check,
            [hang],
            [expect, hang],
            [expect, drip(b"HTTP/1.1 200 OK\r\nA: " + b"y" * 9999)],
            [expect, b"HTTP/1.1 200 OK\r\n\r\n", hang],
        )

    def test_a_proxy_that_leaves_or_babbles_is_an_error_of_ours(self):
        for script in (
            [close],
            [expect, close],
            [expect, reset],
            [expect, b"SSH-2.0-x\r\n"],
            [expect, b"HTTP/1.1 200"],
            [expect, b"HTTP/1.1 200 OK\r\nA: b"],
            [expect, b"HTTP/1.1 2xx OK\r\n\r\n"],
            [expect, b"\r\n\r\n\r\n"],
        ):
            with self.subTest(script[-1]):
                _, error = self.post_through(*script)
                self.assertIsInstance(error, errors.RequestError)
                self.assertNotIsInstance(error, TimeoutError)

    def test_an_answer_that_the_proxy_slips_in_before_tls_is_never_a_value(self):
        slipped = b"HTTP/1.1 200 OK\r\n\r\n" + answer(b'"forged"')
        _, error = self.post_through(expect, slipped, until_gone)
        self.assertIsInstance(error, errors.ProxyError)

    def test_control_characters_in_the_target_are_refused_before_connecting(self):
        proxy = self.serve([hang])
        for host in ("a\r\nX: y", "a\nb", "a\0b", "a b", "a\tb", "a\x7fb"):
            with self.subTest(host), self.assertRaises(errors.AerostackError):
                post(self.client(proxy=proxy.url), "https://%s/" % host, timeout=0.3)
        self.assertEqual(proxy.connections, 0)

    def test_a_failed_tunnel_was_one_attempt_of_the_sdk_and_nothing_was_processed(self):
        proxy = self.serve([expect, answer(status="403 No")])
        with SDK("k", server_url="https://origin.test", client=self.client(proxy=proxy.url), retry_config=None) as sdk:
            with self.assertRaises(errors.ProxyError) as caught:
                sdk.queue.queue_enqueue(type="t", data={})
        self.assertEqual((caught.exception.attempts, bool(caught.exception.maybe_processed)), (1, False))

    def test_a_refusal_is_final_and_a_failure_is_tried_again(self):
        for status, attempts in (("407 Who", 1), ("403 No", 1), ("502 Oops", 3), ("503 Busy", 3)):
            proxy = self.serve([expect, answer(status=status)])
            client = self.client(proxy=proxy.url)
            with self.subTest(status), SDK("k", server_url="https://origin.test", client=client) as sdk:
                with mock.patch.object(sdk.sdk_configuration.sync_half, "sleep", lambda *_: True):
                    with self.assertRaises(errors.ProxyError) as caught:
                        sdk.queue.queue_enqueue(type="t", data={})
                self.assertEqual((caught.exception.attempts, len(proxy.requests)), (attempts, attempts))


class ForwardProxyTest(HostsTestCase):
    def test_407_for_plain_http_is_a_proxy_error_or_the_answer_never_a_value(self):
        proxy = self.serve([expect, answer(b"{}", status="407 Proxy Authentication Required")])
        with SDK("k", server_url="http://origin.test", client=self.client(proxy=proxy.url), retry_config=None) as sdk:
            with self.assertRaises(errors.AerostackError) as caught:
                sdk.cache.cache_get(key="a")
        self.assertIn("407", str(caught.exception))

    def test_connections_to_the_proxy_are_reused_for_plain_http(self):
        proxy = self.serve(repeat(expect, answer()))
        client = self.client(proxy=proxy.url)
        for host in ("one.test", "one.test", "two.test"):
            post(client, "http://%s/" % host)
        self.assertLessEqual(proxy.connections, 2)
