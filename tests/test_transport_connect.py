"""Connecting: addresses, deadlines, descriptors, socket options, TLS without certificates."""

import errno
import functools
import gc
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, HttpClient, errors
from tests.scripted_server import (
    ClientTestCase,
    DeafAddress,
    ScriptedServer,
    Stopwatch,
    answer,
    at_once,
    close,
    drip,
    expect,
    free_port,
    hang,
    header,
    open_descriptors,
    post,
    repeat,
    sockets_to,
    until_gone,
)

try:
    import resource
except ImportError:
    resource = None

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINUX = sys.platform.startswith("linux")


def resolves_to(*addresses):
    """A resolver with these answers, for every name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    return mock.patch("socket.getaddrinfo", lambda *_, **__: list(found))


class ConnectTest(ClientTestCase):
    def test_a_refused_connection_says_where_and_why(self):
        port = free_port()
        with self.assertRaises(errors.ConnectError) as caught:
            post(self.client, "http://127.0.0.1:%d/" % port)
        self.assertIn("127.0.0.1:%d" % port, str(caught.exception))
        self.assertIsInstance(caught.exception.__cause__, OSError)
        self.assertIsInstance(caught.exception, ConnectionError)

    def test_a_refused_connection_of_the_sdk_says_where_and_why(self):
        port = free_port()
        with SDK("key", server_url="http://127.0.0.1:%d" % port, retry_config=None) as sdk:
            with self.assertRaises(errors.ConnectError) as caught:
                sdk.cache.cache_get(key="a")
        self.assertIn("127.0.0.1:%d" % port, str(caught.exception))
        self.assertEqual(caught.exception.attempts, 1)

    def test_without_any_options_the_deadline_is_a_minute(self):
        self.assertEqual(aerostack_lite._DEFAULT_TIMEOUT_MS, 60000)
        with mock.patch.object(aerostack_lite, "_DEFAULT_TIMEOUT_MS", 200), ScriptedServer([expect, hang]) as server:
            sdk = SDK("key", server_url=server.url)
            self.addCleanup(sdk.close)
            request = self.client.build_request("POST", server.url, content=b"{}")

            def check(call):
                with self.assertRaises(errors.TimeoutException), Stopwatch() as took:
                    call()
                self.assertLess(took.seconds, 0.8)

            at_once(
                check,
                lambda: sdk.queue.queue_enqueue(type="t", data={}),
                lambda: self.client.send(request),
            )

    def test_a_silent_server_is_a_read_timeout(self):
        with ScriptedServer([expect, hang]) as server, Stopwatch() as took:
            with self.assertRaises(errors.ReadTimeout) as caught:
                post(self.client, server.url, timeout=0.2)
        self.assertIsInstance(caught.exception, TimeoutError)
        self.assertLess(took.seconds, 0.5)

    @unittest.skipUnless(LINUX, "only Linux drops what a full listener cannot queue")
    def test_an_address_that_never_answers_is_a_connect_timeout(self):
        with DeafAddress() as deaf, Stopwatch() as took:
            with self.assertRaises(errors.ConnectTimeout) as caught:
                post(self.client, deaf.url, timeout=0.2)
        self.assertIn("%s:%d" % deaf.address, str(caught.exception))
        self.assertLess(took.seconds, 0.5)

    def test_a_name_that_does_not_resolve_is_a_connect_error_naming_it(self):
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known")):
            with self.assertRaises(errors.ConnectError) as caught:
                post(self.client, "http://nowhere.invalid/")
        self.assertIn("nowhere.invalid", str(caught.exception))
        self.assertIsInstance(caught.exception.__cause__, OSError)

    def test_a_name_that_cannot_be_a_name_is_an_error_of_ours(self):
        for host in ("a" * 64 + ".test", "a..test", ".test", "a" * 300, "\u2100.test", "xn--\u00e9.test"):
            with self.subTest(host=host[:20]):
                with self.assertRaises(errors.AerostackError):
                    post(self.client, "http://%s:%d/" % (host, free_port()), timeout=0.5)

    def test_a_hanging_resolver_holds_neither_the_deadline_nor_the_exit(self):
        program = (
            "import socket, threading, time\n"
            "resolve = socket.getaddrinfo\n"
            "def slow(host, *others):\n"
            "    if len(others) == 5 and others[4] & socket.AI_NUMERICHOST: return resolve(host, *others)\n"
            "    threading.Event().wait(60)\n"
            "socket.getaddrinfo = slow\n"
            "from aerostack_lite import HttpClient, errors\n"
            "client = HttpClient()\n"
            "start = time.monotonic()\n"
            "try: client.send(client.build_request('POST', 'http://slow.test/', content=b'{}', timeout=0.2))\n"
            "except errors.ConnectTimeout as error: print('slow.test' in str(error), time.monotonic() - start < 0.5)\n"
            "client.close()\n"
        )
        with Stopwatch() as took:
            run = subprocess.run(
                [sys.executable, "-W", "error", "-X", "dev", "-c", program],
                cwd=ROOT,
                timeout=30,
                capture_output=True,
            )
        self.assertEqual((run.stdout.split(), run.stderr), ([b"True", b"True"], b""))
        self.assertLess(took.seconds, 10)

    def test_when_the_first_address_refuses_the_next_one_answers(self):
        with ScriptedServer([expect, answer(b"1")]) as server:
            with resolves_to(("127.0.0.1", free_port()), ("127.0.0.1", server.port)):
                self.assertEqual(post(self.client, "http://two.test/").content, b"1")

    def test_when_the_first_address_cannot_even_be_tried_the_next_one_answers(self):
        with ScriptedServer([expect, answer(b"1")]) as server:
            with resolves_to(("255.255.255.255", 9), ("127.0.0.1", server.port)):
                self.assertEqual(post(self.client, "http://two.test/").content, b"1")

    def test_where_no_thread_can_be_started_names_are_looked_up_all_the_same(self):
        asked, start = [], threading.Thread.start

        def start_unless_ours(thread):
            if threading.current_thread() is threading.main_thread():
                raise RuntimeError("can't start new thread")
            start(thread)

        def look_up(host, *more):
            if isinstance(host, bytes):
                raise socket.gaierror(socket.EAI_NONAME, "no number")
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]

        with ScriptedServer([expect, answer(b"1")]) as server, mock.patch("socket.getaddrinfo", look_up):
            with mock.patch("threading.Thread.start", start_unless_ours):
                self.assertEqual(post(self.client, "http://one.test/").content, b"1")
        self.assertEqual(asked, ["one.test"])

    @unittest.skipUnless(LINUX, "only Linux drops what a full listener cannot queue")
    def test_when_the_first_address_is_dead_the_next_one_answers_within_the_same_budget(self):
        with DeafAddress() as deaf, ScriptedServer([expect, answer(b"1")]) as server, Stopwatch() as took:
            with resolves_to(deaf.address, ("127.0.0.1", server.port)):
                self.assertEqual(post(self.client, "http://two.test/", timeout=1.0).content, b"1")
        self.assertLess(took.seconds, 1.0)

    @unittest.skipUnless(LINUX, "only Linux drops what a full listener cannot queue")
    def test_a_dead_address_keeps_the_next_one_waiting_for_two_seconds_however_long_the_call_may_take(self):
        self.assertEqual(aerostack_lite._NEXT_ADDRESS_SECONDS, 2)
        with DeafAddress() as deaf, ScriptedServer([expect, answer(b"1")]) as server, Stopwatch() as took:
            with resolves_to(deaf.address, ("127.0.0.1", server.port)):
                with mock.patch("aerostack_lite._NEXT_ADDRESS_SECONDS", 0.1):
                    self.assertEqual(post(self.client, "http://two.test/", timeout=10.0).content, b"1")
        self.assertLess(took.seconds, 4)

    @unittest.skipUnless(LINUX, "only Linux drops what a full listener cannot queue")
    def test_when_all_addresses_are_dead_they_share_one_budget(self):
        with DeafAddress() as one, DeafAddress() as two, Stopwatch() as took:
            with resolves_to(one.address, two.address, one.address, two.address):
                with self.assertRaises(errors.ConnectTimeout):
                    post(self.client, "http://two.test/", timeout=0.3)
        self.assertLess(took.seconds, 0.6)

    def test_localhost_is_found_whichever_family_the_server_speaks(self):
        with ScriptedServer([expect, answer(b"1")]) as server:
            self.assertEqual(post(self.client, "http://localhost:%d/" % server.port).content, b"1")

    def test_a_server_on_ipv6_is_reached_by_its_bracketed_address(self):
        try:
            server = ScriptedServer([expect, answer(b"1")], host="::1")
        except OSError:
            self.skipTest("no IPv6 here")
        with server:
            self.assertEqual(post(self.client, server.url + "/").content, b"1")
        self.assertEqual(header(server.requests[0], "Host"), [server.netloc])

    @unittest.skipUnless(resource, "no resource limits here")
    def test_more_than_1024_descriptors_are_no_obstacle(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 1500
        if hard != resource.RLIM_INFINITY and hard < wanted:
            self.skipTest("this process may not open %d descriptors" % wanted)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
        try:
            with ScriptedServer(repeat(expect, answer(b"1"))) as server:
                for _ in range(3):
                    self.assertEqual(post(self.client, server.url).content, b"1")
                self.assertGreater(sockets_to(server)[0].fileno(), 1024)
                self.assertEqual(server.connections, 1)
        finally:
            for descriptor in held:
                os.close(descriptor)

    def test_connections_are_kept_alive_and_do_not_wait_to_send(self):
        with ScriptedServer(repeat(expect, answer())) as server:
            post(self.client, server.url)
            (used,) = sockets_to(server)
            self.assertTrue(used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertTrue(used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
            if idle is not None:
                self.assertLessEqual(used.getsockopt(socket.IPPROTO_TCP, idle), 60)

    def test_a_json_request_leaves_in_one_send(self):
        sent = []

        def recording(method):
            def record(used, data, *rest):
                if used.family == socket.AF_INET and threading.current_thread() is threading.main_thread():
                    sent.append(bytes(data))
                return method(used, data, *rest)

            return record

        with ScriptedServer(repeat(expect, answer(b'{"exists":false}'))) as server, SDK(
            "key", server_url=server.url
        ) as sdk:
            with mock.patch.object(socket.socket, "send", recording(socket.socket.send)), mock.patch.object(
                socket.socket, "sendall", recording(socket.socket.sendall)
            ):
                sdk.cache.cache_get(key="a")
            self.assertEqual(sent, server.requests)

    @unittest.skipIf(open_descriptors() is None, "descriptors cannot be counted here")
    def test_failed_connects_leave_no_descriptor(self):
        url = "http://127.0.0.1:%d/" % free_port()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with self.assertRaises(errors.ConnectError):
                post(self.client, url)
            before = open_descriptors()
            for _ in range(200):
                with self.assertRaises(errors.ConnectError):
                    post(self.client, url)
            gc.collect()
            self.assertEqual(open_descriptors(), before)
        self.assertEqual([str(warning.message) for warning in warned], [])


class ResolverOfTheProgramTest(ClientTestCase):
    """A program may put a resolver of its own in the place of socket.getaddrinfo: a pin, a cache, a list of hosts."""

    def setUp(self):
        super().setUp()
        self.resolve = socket.getaddrinfo

    def here(self, port):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    def resolvers(self):
        def by_ending(host, *rest, **options):
            return self.resolve("127.0.0.1" if host.endswith(".corp") else host, *rest, **options)

        def by_name(host, port, family=0, type=0, proto=0, flags=0):  # as Python names them
            return self.resolve({"api.corp": "127.0.0.1"}.get(host.lower(), host), port, family, type, proto, flags)

        def in_words(host, port, *rest):
            if "." not in host or re.match("[a-z]", host):
                return self.here(port)
            return self.resolve(host, port, *rest)

        @functools.lru_cache(maxsize=None)
        def cached(host, *rest, **options):
            return by_ending(host, *rest, **options)

        def as_a_tuple(host, *rest, **options):
            return tuple(by_ending(host, *rest, **options))

        return by_ending, by_name, in_words, cached, as_a_tuple

    def test_it_is_asked_with_a_str_once_a_connection(self):
        with ScriptedServer(repeat(expect, answer(b"1", "Connection: close"), close)) as server:
            for resolver in self.resolvers():
                for host, most in (("api.corp", 2), ("API.corp", 2), ("127.0.0.1", 2)):
                    asked = []

                    def asking(host, *rest, **options):
                        asked.append(host)
                        return resolver(host, *rest, **options)

                    with self.subTest(resolver.__name__, host=host), mock.patch("socket.getaddrinfo", asking):
                        for _ in range(2):
                            self.assertEqual(post(self.client, "http://%s:%d/" % (host, server.port)).content, b"1")
                        self.assertEqual({type(name) for name in asked} - {str}, set())
                        self.assertLessEqual(len(asked), most)
                        if "corp" in host:
                            self.assertEqual(len(asked), most)

    def test_it_is_asked_so_for_an_address_of_ipv6_and_for_a_proxy(self):
        asked = []

        def elsewhere(host, port, *rest, **options):
            asked.append(host.strip())
            return self.here(server.port)

        with ScriptedServer(repeat(expect, answer(b"1"))) as server, mock.patch("socket.getaddrinfo", elsewhere):
            self.assertEqual(post(self.client, "http://[::1]:9/").content, b"1")
            with HttpClient(proxy="http://proxy.corp:3128") as client:
                self.assertEqual(post(client, "http://api.corp/").content, b"1")
        self.assertEqual(asked[-1], "proxy.corp")
        self.assertLessEqual(len(asked), 2)

    def test_its_list_is_left_as_it_is(self):
        with ScriptedServer(repeat(expect, answer(b"1", "Connection: close"), close)) as server:
            pinned = self.here(free_port()) + self.here(server.port)
            with mock.patch("socket.getaddrinfo", lambda *_, **__: pinned):
                for _ in range(2):
                    self.assertEqual(post(self.client, "http://api.corp/").content, b"1")
            self.assertEqual(len(pinned), 2)

    def test_an_error_of_its_own_that_no_network_makes_passes_as_it_is(self):
        for mine in (KeyError("api.corp"), RuntimeError("no table")):
            with mock.patch("socket.getaddrinfo", side_effect=mine) as resolver:
                with SDK("key", server_url="http://api.corp") as sdk, self.assertRaises(type(mine)) as caught:
                    sdk.cache.cache_get(key="k")
            self.assertIs(caught.exception, mine)
            self.assertEqual(resolver.call_count, 1)


class OptionsTest(ClientTestCase):
    """Socket options are niceties: a kernel, a sandbox or an emulation that has none of them stops no call."""

    options = ("TCP_NODELAY", "SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT")

    def refusing(self, refused, code=errno.ENOPROTOOPT):
        """A kernel that refuses some options, but not to the server's threads."""
        set_option, this_thread = socket.socket.setsockopt, threading.get_ident()
        refused = {getattr(socket, name) for name in refused if hasattr(socket, name)}

        def set_or_refuse(used, level, option, *value):
            if option in refused and threading.get_ident() == this_thread:
                raise OSError(code, os.strerror(code))
            return set_option(used, level, option, *value)

        return mock.patch.object(socket.socket, "setsockopt", set_or_refuse)

    def check(self):
        with ScriptedServer(repeat(expect, answer(b"1"))) as server, HttpClient() as client:
            for _ in range(2):
                self.assertEqual(post(client, server.url).content, b"1")
            self.assertEqual(server.connections, 1)
            with HttpClient(proxy=server.url) as client:
                self.assertEqual(post(client, "http://api.example.test/").content, b"1")

    def test_one_that_is_refused_stops_no_call(self):
        for name in self.options:
            with self.subTest(name), self.refusing([name]):
                self.check()

    def test_all_refused_with_whatever_error_stop_no_call(self):
        for code in (errno.ENOPROTOOPT, errno.EINVAL, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS):
            with self.subTest(errno.errorcode[code]), self.refusing(self.options, code):
                self.check()

    def test_what_is_refused_leaves_the_others_set(self):
        with self.refusing(["TCP_KEEPIDLE", "TCP_KEEPALIVE"]), ScriptedServer(repeat(expect, answer())) as server:
            post(self.client, server.url)
            (used,) = sockets_to(server)
            self.assertTrue(used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertTrue(used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_those_that_this_python_does_not_know_are_left_out(self):
        for name in self.options[2:]:
            if hasattr(socket, name):
                patch = mock.patch.object(socket, name)
                patch.start()
                self.addCleanup(patch.stop)
                delattr(socket, name)
        self.check()


class TlsTest(ClientTestCase):
    """What can be seen of TLS without a certificate."""

    def test_a_certificate_path_that_does_not_exist_is_an_error_naming_its_variable(self):
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
            with self.subTest(name), mock.patch.dict(os.environ, {name: os.path.join(ROOT, "no", "such", "path.pem")}):
                with ScriptedServer([hang]) as server, self.assertRaises(errors.AerostackError) as caught:
                    client = HttpClient()
                    self.addCleanup(client.close)
                    post(client, "https://%s/" % server.netloc, timeout=0.5)
                self.assertNotIsInstance(caught.exception, TimeoutError)
                self.assertIn(name, str(caught.exception))

    def test_certificates_that_cannot_be_read_are_an_error_naming_their_file(self):
        with tempfile.NamedTemporaryFile(suffix=".pem") as file, ScriptedServer([hang]) as server:
            with mock.patch.dict(os.environ, REQUESTS_CA_BUNDLE=file.name):
                with self.assertRaises(errors.ConnectError) as caught:
                    post(self.client, "https://%s/" % server.netloc, timeout=5.0)
            self.assertIn("REQUESTS_CA_BUNDLE", str(caught.exception))
            self.assertIn(repr(file.name), str(caught.exception))
            self.assertTrue(caught.exception.permanent)

    def test_what_is_no_context_is_refused_when_the_client_is_made(self):
        for bad in ("/path/to/ca.pem", True, []):
            with self.subTest(bad), self.assertRaisesRegex(errors.ArgumentTypeError, "ssl_context"):
                HttpClient(ssl_context=bad)

    def test_certificate_variables_are_nothing_to_plain_http(self):
        with mock.patch.dict(os.environ, SSL_CERT_FILE="/no/such/file"), ScriptedServer(
            [expect, answer(b"1")]
        ) as server:
            client = HttpClient()
            self.addCleanup(client.close)
            self.assertEqual(post(client, server.url).content, b"1")

    def test_a_server_that_never_speaks_tls_is_left_at_the_deadline(self):
        def check(script):
            with ScriptedServer(script) as server, Stopwatch() as took:
                with self.assertRaises(errors.ConnectTimeout):
                    post(self.client, "https://%s/" % server.netloc, timeout=0.25)
            self.assertLess(took.seconds, 0.6)

        at_once(check, [hang], [until_gone], [drip(b"\x16\x03\x03\x3f\xff" + bytes(10000))])

    def test_tls_to_a_plain_server_is_a_connect_error_that_says_so(self):
        with ScriptedServer([answer(status="400 Bad Request"), close]) as server:
            with self.assertRaises(errors.ConnectError) as caught:
                post(self.client, "https://%s/" % server.netloc)
        self.assertRegex(str(caught.exception), "not.* speak TLS")
        self.assertIn(server.netloc, str(caught.exception))

    def test_a_server_that_closes_during_the_handshake_is_a_connect_error(self):
        with ScriptedServer([close]) as server:
            with self.assertRaises(errors.ConnectError) as caught:
                post(self.client, "https://%s/" % server.netloc)
        self.assertIn(server.netloc, str(caught.exception))

    def test_plain_http_to_a_tls_server_is_a_protocol_error_that_says_so(self):
        alert = b"\x15\x03\x03\x00\x02\x02\x0a"
        for script in ([expect, alert, close], [expect, alert, until_gone]):
            with ScriptedServer(script) as server:
                with self.assertRaises(errors.RequestError) as caught:
                    post(self.client, server.url, timeout=0.4)
            if script[-1] is close:
                self.assertIsInstance(caught.exception, errors.RemoteProtocolError)
                self.assertRegex(str(caught.exception), "TLS|SSL|https")

    def test_plain_http_never_builds_a_tls_context(self):
        def refuse(*_, **__):
            raise AssertionError("a TLS context for plain http")

        with mock.patch.object(ssl, "SSLContext", refuse), mock.patch.object(ssl, "create_default_context", refuse):
            with ScriptedServer([expect, answer(b"1")]) as server:
                client = HttpClient()
                self.addCleanup(client.close)
                self.assertEqual(post(client, server.url).content, b"1")

    def test_the_tls_context_is_strict_on_every_python(self):
        built = []
        build = ssl.create_default_context

        def keeping(*args, **options):
            built.append(build(*args, **options))
            return built[-1]

        with mock.patch.object(ssl, "create_default_context", keeping), ScriptedServer([close]) as server:
            with self.assertRaises(errors.ConnectError):
                post(self.client, "https://%s/" % server.netloc)
        (context,) = built
        self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        self.assertEqual((context.verify_mode, context.check_hostname), (ssl.CERT_REQUIRED, True))
        # Pythons 3.8 and 3.9 set it under OpenSSL 3; then a connection that is cut looks like one that has ended.
        self.assertFalse(context.options & getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0))

    def test_a_system_that_asks_for_more_than_tls_1_2_gets_it(self):
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with mock.patch.object(ssl, "create_default_context", lambda **_: context), ScriptedServer([close]) as server:
            with self.assertRaises(errors.ConnectError):
                post(self.client, "https://%s/" % server.netloc)
        self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_3)

    def test_the_tls_context_is_built_once_for_all_threads(self):
        built = []
        build = ssl.create_default_context

        def counting(*args, **options):
            built.append(threading.current_thread().name)
            return build(*args, **options)

        def call():
            try:
                post(self.client, "https://%s/" % server.netloc)
            except errors.ConnectError:
                pass

        with mock.patch.object(ssl, "create_default_context", counting), ScriptedServer([close]) as server:
            self.assertEqual(built, [])
            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(len(built), 1)
        self.assertEqual(server.connections, 8)
