"""The proxies that Windows and macOS have in their settings, which urllib.request reads for us."""

import asyncio
import os
import urllib.request
from unittest import mock

from aerostack_lite import SDK, errors
from tests.scripted_server import HostsTestCase, answer, expect, free_port, header, post, repeat

CLOSING = "Connection: close"  # so that each request looks for its way anew


class SystemProxyTest(HostsTestCase):
    def setUp(self):
        super().setUp()
        self.proxy = self.serve(repeat(expect, answer(b'"proxy"', CLOSING)))
        self.other = self.serve(repeat(expect, answer(b'"other"', CLOSING)))
        self.origin = self.serve(repeat(expect, answer(b'"origin"', CLOSING)))
        self.url = "http://origin.test:%d/x" % self.origin.port
        self.settings = {"http": self.proxy.url}  # of the system
        self.direct = set()  # hosts that the system reaches without its proxy
        self.asked = []

        def getproxies():
            self.asked.append("proxies")
            return urllib.request.getproxies_environment() or dict(self.settings)

        def proxy_bypass(host, proxies=None):
            self.asked.append(host)
            return host in self.direct

        for name, stand_in in (("getproxies", getproxies), ("proxy_bypass", proxy_bypass)):
            patch = mock.patch("urllib.request." + name, stand_in)
            patch.start()
            self.addCleanup(patch.stop)

    def who_answers(self, url=None, **options):
        return post(self.client(**options), url or self.url).json()

    def test_leads_to_a_server(self):
        self.assertEqual(self.who_answers(), "proxy")
        self.assertTrue(self.proxy.requests[0].startswith(b"POST %s HTTP/1.1\r\n" % self.url.encode()))
        self.assertEqual(header(self.proxy.requests[0], "Host"), ["origin.test:%d" % self.origin.port])

    def test_opens_a_tunnel_for_https(self):
        refusing = self.serve(repeat(expect, answer(b"no", status="403 No")))
        for setting in (refusing.url, refusing.netloc):
            self.settings = {"https": setting}
            with self.subTest(setting), self.assertRaises(errors.ProxyError):
                self.who_answers("https://origin.test/")
        for request in refusing.requests:
            self.assertTrue(request.startswith(b"CONNECT origin.test:443 HTTP/1.1\r\n"), request)
        self.assertEqual(len(refusing.requests), 2)

    def test_is_obeyed_by_an_sdk_and_its_twins(self):
        proxy = self.serve(repeat(expect, answer(b'{"exists":false}')))
        self.settings = {"http": proxy.url}
        sdk = SDK("key", server_url=self.url)
        self.addCleanup(sdk.close)
        self.addCleanup(lambda: asyncio.run(sdk.aclose()))
        self.assertIs(sdk.cache.cache_get(key="k").exists, False)
        self.assertIs(asyncio.run(sdk.cache.cache_get_async(key="k")).exists, False)
        self.assertEqual((len(proxy.requests), self.origin.requests), (2, []))

    def test_may_have_no_scheme(self):
        self.settings = {"http": self.proxy.netloc}
        self.assertEqual(self.who_answers(), "proxy")

    def test_is_for_its_own_scheme_only(self):
        for settings in ({}, {"https": self.proxy.url}, {"ftp": self.proxy.url, "socks": "socks://h:1"}):
            self.settings = settings
            with self.subTest(settings):
                self.assertEqual(self.who_answers(), "origin")

    def test_is_left_out_for_hosts_that_the_system_excepts(self):
        self.direct = {"origin.test", "origin.test:%d" % self.origin.port}
        self.assertEqual(self.who_answers(), "origin")
        self.assertEqual(self.who_answers(self.url.replace("origin.", "another.")), "proxy")
        self.assertIn("origin.test", [asked.partition(":")[0] for asked in self.asked])

    def test_is_asked_for_anew_by_each_connection(self):
        client = self.client()
        self.assertEqual(post(client, self.url).json(), "proxy")
        self.settings = {}
        self.assertEqual(post(client, self.url).json(), "origin")
        self.settings = {"http": self.other.url}
        self.assertEqual(post(client, self.url).json(), "other")

    def test_yields_to_the_environment(self):
        with mock.patch.dict(os.environ, HTTP_PROXY=self.other.url):
            self.assertEqual(self.who_answers(), "other")

    def test_yields_to_the_client_s_own_setting(self):
        self.assertEqual(self.who_answers(proxy=self.other.url), "other")
        self.assertEqual(self.who_answers(proxy=False), "origin")
        self.assertEqual(self.asked, [])

    def test_of_a_scheme_that_we_cannot_speak_fails_only_where_it_leads(self):
        self.settings = {"http": "socks://127.0.0.1:1080", "https": "socks5://127.0.0.1:1080"}
        for url in (self.url, "https://origin.test/"):
            with self.assertRaises(errors.UnsupportedProtocol) as caught:
                self.who_answers(url)
            self.assertIn("proxy", str(caught.exception))
        self.direct = {"origin.test", "origin.test:%d" % self.origin.port}
        self.assertEqual(self.who_answers(), "origin")

    def test_that_cannot_be_reached_is_named_without_its_password(self):
        netloc = "127.0.0.1:%d" % free_port()
        self.settings = {"http": "http://ada:sesame@" + netloc}
        with self.assertRaises(errors.ConnectError) as caught:
            self.who_answers()
        self.assertIn(netloc, str(caught.exception))
        self.assertNotIn("sesame", "%s %r" % (caught.exception, caught.exception))
