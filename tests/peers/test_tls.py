"""TLS with certificates made on the spot (needs trustme)."""

import datetime
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest
import warnings

from aerostack_lite import SDK, HttpClient, errors
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    close,
    drip,
    expect,
    hang,
    header,
    mirror,
    post,
    repeat,
    start_tls,
    until_gone,
)

try:
    import trustme
except ImportError:
    trustme = None

OK = b"HTTP/1.1 200 OK\r\n"
FOUND = answer(b'{"exists":false}')


def say_goodbye(peer):
    """End TLS as one should, with close_notify."""
    peer.socket.unwrap()


@unittest.skipUnless(trustme, "trustme is not installed")
class TlsCase(LoopbackTestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.authority = trustme.CA()
        cls.bundle = os.path.join(cls.folder, "ca.pem")
        cls.authority.cert_pem.write_to_path(cls.bundle)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, True)

    def context(self, *names, **options):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = options.pop("authority", self.authority)
        authority.issue_cert(*(names or ("127.0.0.1", "localhost", "origin.test")), **options).configure_cert(made)
        return made

    def trusting(self, **options):
        os.environ["SSL_CERT_FILE"] = self.bundle
        client = HttpClient(**options)
        self.addCleanup(client.close)
        return client


class TrustTest(TlsCase):
    def reach(self, client=None):
        with ScriptedServer([expect, answer(b"1")], tls=self.context()) as server:
            if client is None:
                client = HttpClient()
                self.addCleanup(client.close)
            return post(client, server.url).content

    def test_certificate_files_of_the_environment_are_trusted(self):
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            with self.subTest(name):
                os.environ[name] = self.bundle
                self.assertEqual(self.reach(), b"1")
                del os.environ[name]

    @unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_a_certificate_folder_of_the_environment_is_trusted(self):
        name = (
            subprocess.run(
                ["openssl", "x509", "-hash", "-noout", "-in", self.bundle], stdout=subprocess.PIPE, check=True
            )
            .stdout.decode()
            .strip()
        )
        folder = os.path.join(self.folder, "hashed")
        os.makedirs(folder, exist_ok=True)
        shutil.copy(self.bundle, os.path.join(folder, name + ".0"))
        os.environ["SSL_CERT_DIR"] = folder
        self.assertEqual(self.reach(), b"1")

    def test_a_context_of_the_user_wins_over_the_environment(self):
        os.environ["SSL_CERT_FILE"] = "/no/such/file"
        client = HttpClient(ssl_context=ssl.create_default_context(cafile=self.bundle))
        self.addCleanup(client.close)
        self.assertEqual(self.reach(client), b"1")

    def test_a_context_of_the_user_may_bring_a_certificate_of_its_own(self):
        server_side = self.context()
        server_side.verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(server_side)
        mine = ssl.create_default_context(cafile=self.bundle)
        self.authority.issue_cert("client.test").configure_cert(mine)
        client = HttpClient(ssl_context=mine)
        self.addCleanup(client.close)
        with ScriptedServer([expect, answer(b"1")], tls=server_side) as server:
            self.assertEqual(post(client, server.url).content, b"1")
        bare = HttpClient(ssl_context=ssl.create_default_context(cafile=self.bundle))
        self.addCleanup(bare.close)
        with ScriptedServer([expect, answer(b"1")], tls=server_side) as server, self.assertRaises(errors.RequestError):
            post(bare, server.url)

    def test_without_it_the_system_s_store_does_not_trust_a_stranger(self):
        with self.assertRaises(errors.ConnectError):
            self.reach()

    def test_the_server_is_told_the_name_that_is_wanted_and_no_address(self):
        named = []
        context = self.context()
        context.sni_callback = lambda used, name, _: named.append(name)
        with ScriptedServer(repeat(expect, answer(b"1")), tls=context) as server:
            post(self.trusting(), "https://localhost:%d/" % server.port)
            post(self.trusting(), server.url)
        self.assertEqual(named, ["localhost", None])


class DistrustTest(TlsCase):
    def assert_refused(self, context, reason, host="127.0.0.1", through_proxy=False):
        script = [expect, OK + b"\r\n", start_tls(context), until_gone] if through_proxy else [until_gone]
        os.environ["SSL_CERT_FILE"] = self.bundle
        with ScriptedServer(script, tls=None if through_proxy else context) as server:
            if through_proxy:
                os.environ["HTTPS_PROXY"] = server.url
            # The default retries: distrust must not be tried again.
            with SDK("sk_1", server_url="https://%s:%d" % (host, server.port)) as sdk, self.assertRaises(
                errors.ConnectError
            ) as caught:
                sdk.cache.cache_get(key="a")
            os.environ.pop("HTTPS_PROXY", None)
            self.assertEqual((server.connections, caught.exception.attempts), (1, 1))
            self.assertNotIn(b"sk_1", bytes(server.peers[0].received))
            self.assertNotIn(b"POST", bytes(server.peers[0].received))
        self.assertRegex(str(caught.exception), reason)
        return caught.exception

    def test_an_untrusted_authority(self):
        for through_proxy in (False, True):
            error = self.assert_refused(
                self.context(authority=trustme.CA()),
                "(?i)unable to get local issuer|self.signed|unable to verify",
                through_proxy=through_proxy,
            )
            self.assertRegex(str(error), "SSL_CERT_FILE|ssl_context")
            self.assertIsInstance(error.__cause__, ssl.SSLCertVerificationError)

    def test_an_expired_certificate(self):
        past = datetime.datetime(2020, 1, 1)
        for through_proxy in (False, True):
            self.assert_refused(self.context(not_after=past), "(?i)expired", through_proxy=through_proxy)

    def test_a_certificate_of_another_host(self):
        for through_proxy in (False, True):
            self.assert_refused(self.context("other.test"), "(?i)mismatch|not valid for", "localhost", through_proxy)

    def test_a_certificate_of_another_address(self):
        for through_proxy in (False, True):
            self.assert_refused(
                self.context("127.0.0.2", "localhost"), "(?i)mismatch|not valid for", through_proxy=through_proxy
            )

    def test_an_old_protocol(self):
        for version in ("TLSv1", "TLSv1_1"):
            context = self.context()
            try:
                context.set_ciphers("ALL:@SECLEVEL=0")
            except ssl.SSLError:
                pass
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = getattr(ssl.TLSVersion, version)
            self.assert_refused(context, "(?i)protocol|version|handshake|unsupported")


class WireTest(TlsCase):
    def test_one_connection_serves_call_after_call(self):
        for version in ("TLSv1_2", "TLSv1_3"):
            context = self.context()
            context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
            with self.subTest(version), ScriptedServer(repeat(expect, answer(b"1")), tls=context) as server:
                client = self.trusting()
                for _ in range(10):
                    self.assertEqual(post(client, server.url).content, b"1")
                self.assertEqual(server.connections, 1)

    def test_a_large_body_both_ways(self):
        big = bytes(range(256)) * 40000

        with ScriptedServer([mirror], tls=self.context()) as server:
            self.assertEqual(post(self.trusting(), server.url, big, timeout=20.0).content, big)

    def test_a_body_cut_short_is_never_a_value(self):
        for head in (
            b"\r\n",
            b"Content-Length: 99\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"Content-Type: application/json\r\n\r\n",
        ):
            for body in (b'{"exists":false}', b"5\r\nhello\r\n"):
                with self.subTest(head, body=body), ScriptedServer(
                    [expect, OK + head + body, close], tls=self.context()
                ) as server:
                    with self.assertRaises((errors.RemoteProtocolError, errors.ReadError)):
                        post(self.trusting(), server.url)

    def test_a_head_cut_short_is_never_a_value(self):
        with ScriptedServer([expect, b"HTTP/1.1 200 OK\r\nConte", close], tls=self.context()) as server:
            with self.assertRaises((errors.RemoteProtocolError, errors.ReadError)):
                post(self.trusting(), server.url)

    def test_a_body_ended_by_close_notify_is_whole(self):
        with ScriptedServer([expect, OK + b"\r\nall of it", say_goodbye], tls=self.context()) as server:
            self.assertEqual(post(self.trusting(), server.url).content, b"all of it")

    def test_surplus_bytes_are_never_the_next_answer(self):
        forged = answer(b'"forged"')
        for script in (
            [expect, answer(b"1") + forged, until_gone],
            [expect, answer(b"1"), forged, until_gone],
            [expect, answer(b"1") + b"x", until_gone],
            [expect, answer(b"1") + forged * 3000, until_gone],
        ):
            with ScriptedServer(script, [expect, answer(b"2")], tls=self.context()) as server:
                client = self.trusting()
                self.assertEqual(post(client, server.url).content, b"1")
                if len(script) == 4 and script[2] is forged:
                    threading.Event().wait(0.05)  # lets the forged record arrive
                self.assertEqual(post(client, server.url).content, b"2")

    def test_a_closed_idle_connection_is_replaced_unseen(self):
        for ending in (close, say_goodbye):
            with ScriptedServer([expect, answer(b"1"), ending], [expect, answer(b"2")], tls=self.context()) as server:
                client = self.trusting()
                post(client, server.url)
                if ending is close:
                    server.peers[0].ended.wait(5)
                else:
                    threading.Event().wait(0.05)  # lets the close_notify arrive
                self.assertEqual(post(client, server.url).content, b"2")
                self.assertEqual(len(server.requests), 2)

    def test_the_deadline_holds(self):
        for script in (
            [hang],
            [expect, hang],
            [expect, OK, drip(b"X: y\r\n" * 999)],
            [expect, OK + b"\r\n", drip(b"x" * 999)],
            [expect, OK + b"Content-Length: 999\r\n\r\n", drip(b"x" * 999)],
        ):
            with ScriptedServer(script, tls=self.context()) as server, Stopwatch() as took:
                with self.assertRaises(errors.TimeoutException):
                    post(self.trusting(), server.url, timeout=0.3)
            self.assertLess(took.seconds, 0.7)

    def test_the_deadline_holds_against_a_server_that_stops_reading(self):
        with ScriptedServer([hang], tls=self.context()) as server, Stopwatch() as took:
            with self.assertRaises(errors.TimeoutException):
                post(self.trusting(), server.url, bytes(32 << 20), timeout=0.4)
        self.assertLess(took.seconds, 0.9)

    def test_plain_http_to_a_tls_port_is_a_clear_error(self):
        with ScriptedServer([until_gone], tls=self.context()) as server:
            with self.assertRaises(errors.RequestError) as caught:
                post(self.trusting(), "http://%s/" % server.netloc)
        self.assertNotIsInstance(caught.exception, errors.TimeoutException)

    def test_the_context_is_shared_by_threads(self):
        with ScriptedServer(repeat(expect, answer(b"1")), tls=self.context()) as server:
            client, got = self.trusting(), []
            threads = [
                threading.Thread(target=lambda: got.append(post(client, server.url, timeout=20.0).content))
                for _ in range(20)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(got, [b"1"] * 20)

    def test_a_redirect_never_leaves_tls(self):
        for status in ("307 x", "308 x", "302 x"):
            with ScriptedServer([expect, FOUND]) as plain:
                target = "Location: http://127.0.0.1:%d/" % plain.port
                with ScriptedServer(
                    [expect, answer(b"", target, status=status), until_gone], tls=self.context()
                ) as server:
                    with SDK(
                        "key", server_url=server.url, client=self.trusting(), retry_config=None
                    ) as sdk, self.assertRaises(errors.SDKError):
                        sdk.cache.cache_get(key="a")
                    same_port = "Location: http://%s/" % server.netloc
                with ScriptedServer(
                    [expect, answer(b"", same_port, status=status), until_gone], tls=self.context()
                ) as server:
                    with SDK(
                        "key", server_url=server.url, client=self.trusting(), retry_config=None
                    ) as sdk, self.assertRaises(errors.SDKError):
                        sdk.cache.cache_get(key="a")
                self.assertEqual(plain.connections, 0)


class TunnelTest(TlsCase):
    def test_the_proxy_s_credentials_stay_outside_and_the_key_inside(self):
        script = [expect, OK + b"\r\n", start_tls(self.context()), expect, FOUND, expect, FOUND]
        with ScriptedServer(script) as proxy:
            client = self.trusting(proxy="http://user:hush@" + proxy.netloc)
            with SDK("sk_1", server_url="https://origin.test", client=client) as sdk:
                sdk.cache.cache_get(key="a")
                sdk.cache.cache_get(key="b")
            connect, first, second = proxy.requests
            self.assertTrue(connect.startswith(b"CONNECT origin.test:443 HTTP/1.1\r\n"))
            self.assertEqual((len(header(connect, "Proxy-Authorization")), header(connect, "X-Aerostack-Key")), (1, []))
            for inner in (first, second):
                self.assertTrue(inner.startswith(b"POST /cache/get HTTP/1.1\r\n"), inner)
                self.assertEqual(
                    (header(inner, "Proxy-Authorization"), header(inner, "X-Aerostack-Key")), ([], ["sk_1"])
                )
                self.assertEqual(header(inner, "Host"), ["origin.test"])
            self.assertEqual(proxy.connections, 1)

    def test_interim_answers_of_the_proxy_do_not_count_against_the_server(self):
        interim = b"HTTP/1.1 100 Continue\r\n\r\n" * 8
        with ScriptedServer(
            [expect, interim + OK + b"\r\n", start_tls(self.context()), expect, interim + FOUND]
        ) as proxy:
            self.assertEqual(post(self.trusting(proxy=proxy.url), "https://origin.test/").status_code, 200)

    def test_two_origins_never_share_a_tunnel(self):
        def script(name):
            return [expect, OK + b"\r\n", start_tls(self.context(name)), expect, answer(name.encode())]

        with ScriptedServer(script("one.test"), script("two.test")) as proxy:
            client = self.trusting(proxy=proxy.url)
            self.assertEqual(
                [post(client, "https://%s/" % name).content for name in ("one.test", "two.test")],
                [b"one.test", b"two.test"],
            )
            self.assertEqual(proxy.connections, 2)

    def test_a_tunnel_that_dies_idle_is_replaced_unseen(self):
        def script(body, *ending):
            return [expect, OK + b"\r\n", start_tls(self.context()), expect, answer(body)] + list(ending)

        with ScriptedServer(script(b"1", close), script(b"2")) as proxy:
            client = self.trusting(proxy=proxy.url)
            post(client, "https://origin.test/")
            proxy.peers[0].ended.wait(5)
            self.assertEqual(post(client, "https://origin.test/").content, b"2")

    def test_the_deadline_holds_inside(self):
        for inside in ([hang], [start_tls(self.context()), expect, hang]):
            with ScriptedServer([expect, OK + b"\r\n"] + inside) as proxy, Stopwatch() as took:
                with self.assertRaises(errors.TimeoutException):
                    post(self.trusting(proxy=proxy.url), "https://origin.test/", timeout=0.3)
            self.assertLess(took.seconds, 0.7)
