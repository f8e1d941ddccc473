"""Trust: certificates of either side, where the trusted ones come from, and what is said when there is no trust."""

import os
import re
import socket
import ssl
import tempfile
import unittest
from unittest import mock

from aerostack_lite import SDK, AsyncHttpClient, BackoffStrategy, RetryConfig, errors
from tests.certificates import (
    COMPLETE,
    NOT_CRITICAL,
    WITHOUT_KEY_IDENTIFIER,
    WITHOUT_KEY_USAGE,
    CertificateCase,
)
from tests.recording_server import both
from tests.scripted_server import answer, expect, header, post, repeat, start_tls, until_gone

FOUND = answer(b'{"exists":false}')
TUNNEL = [expect, b"HTTP/1.1 200 OK\r\n\r\n"]
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
MANY = RetryConfig("backoff", BackoffStrategy(1, 1, 1.0, 2_000), True)


class TrustCase(CertificateCase):
    def failure(self, server, **settings):
        """The error of a call that trust forbids: it was made once, and no byte of it was sent."""
        settings.setdefault("server_url", server.url)
        with SDK("the-key", **settings) as sdk, self.assertRaises(errors.ConnectError) as caught:
            sdk.cache.cache_get(key="k")
        server.wait_for_connections(1)
        self.assertEqual((server.connections, caught.exception.attempts, server.requests), (1, 1, []))
        self.assertIs(caught.exception.maybe_processed, False)
        return caught.exception

    def setting_error(self, **environment):
        """The error of a setting with which no connection can be made."""
        server = self.serve([until_gone], tls=self.tls)
        with mock.patch.dict(os.environ, environment), self.assertRaises(errors.ConnectError) as caught:
            with SDK("the-key", server_url=server.url) as sdk:
                sdk.cache.cache_get(key="k")
        self.assertEqual(caught.exception.attempts, 1)
        for name in environment:
            self.assertIn(name, str(caught.exception))
        return caught.exception

    def reach(self, **environment):
        """A call under these variables that must succeed."""
        server = self.serve([expect, answer(b"1")], tls=self.tls)
        with mock.patch.dict(os.environ, environment):
            self.assertEqual(post(self.client(), server.url).content, b"1")

    def write(self, content):
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".pem", delete=False) as file:
            file.write(content)
        return file.name

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()


class ClientCertificateTest(TrustCase):
    """With TLS 1.3 a server refuses a client's certificate only after the handshake, as the client sees it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server_certificate = cls.authority.issue("127.0.0.1", "host.test")
        purpose = "authorityKeyIdentifier=keyid\nextendedKeyUsage=serverAuth"
        cls.certificates = {
            "none": None,
            "one of an unknown authority": cls.new_authority().issue("client.test"),
            "an expired one": cls.authority.issue("client.test", days=-1),
            "one for servers": cls.authority.issue("client.test", extensions=purpose),
        }

    def demanding(self, version):
        """What a server needs that asks for a certificate of the authority of the class."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority.path)
        context.minimum_version = context.maximum_version = version
        return context

    def settings(self, certificate, **options):
        context = ssl.create_default_context(cafile=self.authority.path)
        if certificate:
            context.load_cert_chain(certificate)
        options["ssl_context"] = context
        client, async_client = self.client(**options), AsyncHttpClient(**options)
        self.addCleanup(async_client.close)
        return {"client": client, "async_client": async_client}

    def test_its_refusal_is_a_connect_error_after_one_attempt(self):
        for version in VERSIONS:
            server_side = self.demanding(version)
            for name, certificate in self.certificates.items():
                with self.subTest(name, version=version):
                    server = self.serve([refuse_after_the_handshake(server_side)])
                    error = self.failure(server, server_url="https://" + server.netloc, **self.settings(certificate))
                    self.assertRegex(str(error), "(?i)certificate|unknown.ca|handshake")
                    self.assertIn(server.netloc, str(error))

    def test_so_it_is_whatever_is_called_and_whatever_may_be_repeated(self):
        big = "x" * (8 << 20)
        for version in VERSIONS:
            server_side = self.demanding(version)
            for service, operation, request in (
                ("queue", "queue_enqueue", {"type": "t", "data": {}}),
                ("cache", "cache_get", {"key": "k"}),
                ("cache", "cache_set", {"key": "k", "value": big}),
                ("storage", "storage_upload", {"key": "k", "file": big.encode()}),
            ):
                for retries in (None, MANY) if operation == "queue_enqueue" else (MANY,):
                    server = self.serve([refuse_after_the_handshake(server_side)])
                    settings = self.settings(None)
                    sdk = SDK("the-key", server_url="https://" + server.netloc, retry_config=retries, **settings)
                    self.addCleanup(sdk.close)
                    for count, call in enumerate(both(sdk, service, operation), 1):
                        with self.subTest(operation, version=version, retries=bool(retries), twin=count):
                            with self.assertRaises(errors.ConnectError) as caught:
                                call(**request)
                            self.assertEqual((caught.exception.attempts, caught.exception.maybe_processed), (1, False))
                            self.assertEqual(server.connections, count)

    def test_so_it_is_when_the_server_closes_at_once(self):
        for version in VERSIONS:
            for name, certificate in self.certificates.items():
                with self.subTest(name, version=version):
                    server = self.serve([until_gone], tls=self.demanding(version))
                    self.failure(server, **self.settings(certificate))

    def test_so_it_is_behind_a_proxy(self):
        for version in VERSIONS:
            proxy = self.serve(TUNNEL + [refuse_after_the_handshake(self.demanding(version))])
            settings = self.settings(None, proxy=proxy.url)
            with SDK("the-key", server_url="https://host.test", **settings) as sdk:
                with self.assertRaises(errors.ConnectError) as caught:
                    sdk.queue.queue_enqueue(type="t", data={})
            self.assertEqual((caught.exception.attempts, caught.exception.maybe_processed), (1, False))
            self.assertEqual(len(proxy.requests), 1)

    def test_one_that_is_accepted_serves_call_after_call(self):
        for version in VERSIONS:
            server = self.serve(repeat(expect, FOUND), tls=self.demanding(version))
            settings = self.settings(self.authority.issue("client.test"))
            with SDK("the-key", server_url=server.url, **settings) as sdk:
                for _ in range(3):
                    self.assertIs(sdk.cache.cache_get(key="k").exists, False)
            self.assertEqual(server.connections, 1)


def refuse_after_the_handshake(context):
    """A script's step: refuse the client's certificate, then read on, so that nothing of the refusal is lost."""

    def step(peer):
        peer.socket = context.wrap_socket(peer.socket, server_side=True, do_handshake_on_connect=False)
        try:
            peer.socket.do_handshake()
        except ssl.SSLError:
            while socket.socket.recv(peer.socket, 1 << 16):  # below TLS
                pass

    return step


class ContextOfTheProgramTest(TrustCase):
    """A context may check certificates in its own way; errors that it makes have no attributes of OpenSSL."""

    bare = (
        ssl.CertificateError("not pinned"),
        ssl.CertificateError(1, "not pinned"),
        ssl.SSLCertVerificationError(b"not pinned"),
        ssl.CertificateError("not pinned", ["two", "more"]),
    )

    def contexts(self, error):
        """Contexts that raise an error after the handshake, during it, and instead of it."""

        class After(ssl.SSLSocket):
            def do_handshake(self, *arguments, **options):
                super().do_handshake(*arguments, **options)
                raise error

        class Instead(ssl.SSLSocket):
            def do_handshake(self, *arguments, **options):
                raise error

        class Wrapping(ssl.SSLContext):
            def wrap_socket(self, *arguments, **options):
                raise error

        for sockets in (After, Instead):
            context = ssl.create_default_context(cafile=self.authority.path)
            context.sslsocket_class = sockets
            yield context
        yield Wrapping(ssl.PROTOCOL_TLS_CLIENT)

    def test_its_refusal_is_a_connect_error_after_one_attempt(self):
        for error in self.bare + (ssl.CertificateError(),):
            for number, context in enumerate(self.contexts(error)):
                for retries in (None, MANY):
                    with self.subTest(error=repr(error), context=number, retries=retries):
                        server = self.serve([until_gone], tls=self.tls)
                        client = self.client(ssl_context=context)
                        caught = self.failure(server, client=client, retry_config=retries)
                        self.assertIs(caught.__cause__, error)
                        self.assertIn(server.netloc, str(caught))
                        if error.args:
                            self.assertIn("not pinned", str(caught))

    def test_other_errors_of_its_sockets_are_connect_errors_with_their_words(self):
        for error in (
            ssl.SSLError("no token"),
            ssl.SSLError(1, "no token"),
            ssl.SSLError(),
            OSError("no token"),
            OSError(),
        ):
            for number, context in enumerate(self.contexts(error)):
                with self.subTest(error=repr(error), context=number):
                    server = self.serve([until_gone], tls=self.tls)
                    with self.assertRaises(errors.ConnectError) as caught:
                        post(self.client(ssl_context=context), server.url)
                    self.assertEqual(server.requests, [])
                    self.assertIn("no token" if error.args else server.netloc, str(caught.exception))

    def test_what_is_no_error_of_a_network_passes_as_it_is(self):
        mine = RuntimeError("mine")
        for context in self.contexts(mine):
            server = self.serve([until_gone], tls=self.tls)
            with self.assertRaises(RuntimeError) as caught:
                post(self.client(ssl_context=context), server.url)
            self.assertIs(caught.exception, mine)
            server.wait_for_connections(1)


class WhereTrustComesFromTest(TrustCase):
    def test_ssl_cert_dir_is_a_list_of_folders_of_which_some_may_be_missing(self):
        good, empty = self.authority.hashed_folder(), tempfile.mkdtemp(dir=self.folder)
        missing = os.path.join(self.folder, "missing")
        for folders in (
            [missing, good],
            [good, missing],
            [empty, good],
            [missing, empty, missing, good],
            ["", good],
            [good, ""],
            [good, good],
            [good + os.sep],
            [self.authority.path, good],
        ):
            with self.subTest(folders):
                self.reach(SSL_CERT_DIR=os.pathsep.join(folders))

    def test_folders_that_are_all_missing_are_an_error(self):
        missing = os.path.join(self.folder, "missing")
        for folders in ([missing], [missing, missing + "2"], ["", missing]):
            error = self.setting_error(SSL_CERT_DIR=os.pathsep.join(folders))
            self.assertIn("missing", str(error))

    def test_the_variables_work_together(self):
        stranger = self.new_authority()
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            self.reach(**{name: self.authority.path})
        self.reach(REQUESTS_CA_BUNDLE=self.authority.hashed_folder())
        self.reach(SSL_CERT_FILE=stranger.path, SSL_CERT_DIR=self.authority.hashed_folder())
        self.reach(SSL_CERT_FILE=self.authority.path, SSL_CERT_DIR=stranger.hashed_folder())
        self.reach(SSL_CERT_FILE=self.authority.path, SSL_CERT_DIR="", REQUESTS_CA_BUNDLE="")

    def test_a_file_of_many_certificates_with_words_between_them(self):
        bundle = (
            b"# the company\r\n"
            + self.read(self.new_authority().path)
            + b"\n\nours:\n"
            + self.read(self.authority.path)
        )
        self.reach(SSL_CERT_FILE=self.write(bundle))
        self.reach(REQUESTS_CA_BUNDLE=self.write(bundle))

    def test_a_file_that_holds_no_certificate_in_text_is_an_error_that_says_what_it_is(self):
        key = re.search(b"(?s)-----BEGIN [A-Z ]*KEY.*", self.read(self.authority.issue("a.test"))).group()
        for content, words in (
            (self.read(self.authority.der_file()), "DER|PEM"),
            (b"", "(?i)empty|no certificate"),
            (b"\n \n", "(?i)empty|no certificate"),
            (key, "(?i)no certificate|PEM"),
            (b"<html><p>Please sign in to download ca.pem", "(?i)no certificate|PEM"),
            (self.read(self.authority.path).decode().encode("utf-16"), "(?i)no certificate|PEM"),
            (self.read(self.authority.path)[:200], "(?i)no certificate|PEM|cannot"),
        ):
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                with self.subTest(content[:20], name=name):
                    path = self.write(content)
                    error = self.setting_error(**{name: path})
                    self.assertIn(path, str(error))
                    self.assertRegex(str(error).replace(path, "").replace(name, ""), words)

    def test_a_folder_in_place_of_a_file_is_an_error_that_says_so(self):
        for folder in (self.folder, self.authority.hashed_folder()):
            error = self.setting_error(SSL_CERT_FILE=folder)
            self.assertRegex(str(error).replace(folder, ""), "(?i)folder|directory")

    def test_a_file_in_place_of_a_folder_is_trusted_or_an_error_that_says_so(self):
        server = self.serve([expect, answer(b"1")], tls=self.tls)
        with mock.patch.dict(os.environ, SSL_CERT_DIR=self.authority.path):
            try:  # OpenSSL 3.0 takes it for the address of a store
                self.assertEqual(post(self.client(), server.url).content, b"1")
            except errors.ConnectError as error:
                self.assertIn("SSL_CERT_DIR", str(error))
                self.assertRegex(str(error), "(?i)folder|directory")

    @unittest.skipUnless(hasattr(os, "seteuid"), "only POSIX lets a program give up rights")
    def test_a_file_that_may_not_be_read_is_an_error_that_says_so(self):
        path = self.write(self.read(self.authority.path))
        os.chmod(self.folder, 0o755)
        os.chmod(path, 0)
        if os.geteuid() == 0:  # who may read it all the same
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            error = self.setting_error(**{name: path})
            self.assertIn(path, str(error))
            self.assertIn("Permission denied", str(error))

    def test_where_nothing_is_trusted_the_error_says_so(self):
        said = "(?i)(no|without) (trusted |CA )*(certificate|CA)|empty"
        nowhere = ssl.get_default_verify_paths()._replace(cafile=None, capath=None)
        nothing = nowhere._replace(capath=tempfile.mkdtemp(dir=self.folder))
        for paths in (nowhere, nothing):  # a small container comes without certificates
            with self.subTest(paths), mock.patch("ssl.get_default_verify_paths", lambda: paths):
                with mock.patch.object(ssl.SSLContext, "set_default_verify_paths", lambda context: None):
                    error = self.failure(self.serve([until_gone], tls=self.tls))
                self.assertRegex(str(error), said)
                with mock.patch.dict(os.environ, SSL_CERT_FILE=self.new_authority().path):
                    error = self.failure(self.serve([until_gone], tls=self.tls))
                self.assertNotRegex(str(error), said)

    def test_a_key_log_that_cannot_be_written_stops_no_call(self):
        for path in (
            os.path.join(self.folder, "missing", "keys.log"),
            self.folder,
            os.path.join(self.authority.path, "keys.log"),
            "x" * 5000,
            "",
        ):
            with self.subTest(path[:50]):
                self.reach(SSL_CERT_FILE=self.authority.path, SSLKEYLOGFILE=path)
                self.reach(SSL_CERT_DIR=self.authority.hashed_folder(), SSLKEYLOGFILE=path)
                self.reach(REQUESTS_CA_BUNDLE=self.authority.path, SSLKEYLOGFILE=path)

    def test_a_key_log_is_no_excuse_for_a_bad_certificate_file(self):
        log = os.path.join(self.folder, "missing", "keys.log")
        server = self.serve([until_gone], tls=self.tls)
        with mock.patch.dict(os.environ, SSLKEYLOGFILE=log, SSL_CERT_FILE=self.write(b"")):
            with SDK("the-key", server_url=server.url) as sdk, self.assertRaises(errors.ConnectError) as caught:
                sdk.cache.cache_get(key="k")
        self.assertIn("SSL_CERT_FILE", str(caught.exception))

    @unittest.skipUnless(hasattr(ssl.SSLContext, "keylog_filename"), "this Python writes no key log")
    def test_a_key_log_that_can_be_written_is_written(self):
        path = os.path.join(self.folder, "keys.log")
        self.reach(SSL_CERT_FILE=self.authority.path, SSLKEYLOGFILE=path)
        self.assertIn(b"TRAFFIC_SECRET", self.read(path))


class StrictnessTest(TrustCase):
    """Python 3.13 checks as RFC 5280 says, which certificates of many companies do not bear."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lax = {}  # authorities, and what servers need that show their certificates
        for name, authority, certificate in (
            ("no key usage", WITHOUT_KEY_USAGE, "authorityKeyIdentifier=keyid"),
            ("constraints that are not critical", NOT_CRITICAL, "authorityKeyIdentifier=keyid"),
            ("no identifier of its key", WITHOUT_KEY_IDENTIFIER, "authorityKeyIdentifier=none"),
            ("no identifier of the authority's key", COMPLETE, "authorityKeyIdentifier=none"),
        ):
            made = cls.new_authority(authority)
            cls.lax[name] = made, made.server_context("127.0.0.1", extensions=certificate)

    def test_where_it_refuses_the_error_names_the_flag(self):
        for name, (authority, server_side) in self.lax.items():
            with self.subTest(name):
                context = ssl.create_default_context(cafile=authority.path)
                context.verify_flags |= ssl.VERIFY_X509_STRICT
                server = self.serve([until_gone], tls=server_side)
                error = self.failure(server, client=self.client(ssl_context=context))
                self.assertIn("VERIFY_X509_STRICT", str(error))
                self.assertIn(error.__cause__.verify_message, str(error))

    def test_an_authority_of_the_environment_works_or_the_error_names_the_flag(self):
        for name, (authority, server_side) in self.lax.items():
            for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                with self.subTest(name, variable=variable), mock.patch.dict(os.environ, {variable: authority.path}):
                    server = self.serve([expect, answer(b"1")], tls=server_side)
                    if ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT:
                        self.assertIn("VERIFY_X509_STRICT", str(self.failure(server)))
                    else:
                        self.assertEqual(post(self.client(), server.url).content, b"1")

    def test_without_the_flag_they_are_trusted(self):
        for name, (authority, server_side) in self.lax.items():
            context = ssl.create_default_context(cafile=authority.path)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            server = self.serve([expect, answer(b"1")], tls=server_side)
            with self.subTest(name):
                self.assertEqual(post(self.client(ssl_context=context), server.url).content, b"1")

    def test_other_refusals_do_not_name_it(self):
        server = self.serve([until_gone], tls=self.new_authority().server_context("127.0.0.1"))
        with mock.patch.dict(os.environ, SSL_CERT_FILE=self.authority.path):
            self.assertNotIn("VERIFY_X509_STRICT", str(self.failure(server)))


class FullNameTest(TrustCase):
    """A name that ends with a dot is whole (RFC 1034, 3.1); certificates and SNI have it without (RFC 6066, 3)."""

    def setUp(self):
        super().setUp()
        self.named = []
        self.server_side = self.authority.server_context("host.test", "*.wide.test")
        self.server_side.sni_callback = lambda used, name, _: self.named.append(name)

    def test_the_dot_is_left_out_of_sni_and_of_the_check(self):
        server = self.serve(repeat(expect, FOUND), tls=self.server_side)
        for host, name in (
            ("host.test.", "host.test"),
            ("HOST.Test.", "host.test"),
            ("a.wide.test.", "a.wide.test"),
            ("host.test", "host.test"),
        ):
            with self.subTest(host):
                client = self.trusting()
                with SDK("the-key", server_url="https://%s:%d" % (host, server.port), client=client) as sdk:
                    for _ in range(2):
                        self.assertIs(sdk.cache.cache_get(key="k").exists, False)
                self.assertEqual(self.named.pop(), name)
                self.assertEqual(self.named, [])

    def test_behind_a_proxy_as_well(self):
        proxy = self.serve(TUNNEL + [start_tls(self.server_side), expect, FOUND])
        client = self.trusting(proxy=proxy.url)
        with SDK("the-key", server_url="https://host.test.", client=client) as sdk:
            self.assertIs(sdk.cache.cache_get(key="k").exists, False)
        self.assertEqual(self.named, ["host.test"])

    def test_what_is_for_the_proxy_does_not_go_through_its_tunnel(self):
        proxy = self.serve(TUNNEL + [start_tls(self.server_side), expect, FOUND])
        client = self.trusting(proxy="http://jane:sesame@" + proxy.netloc)
        with SDK("the-key", server_url="https://host.test", client=client) as sdk:
            self.assertIs(sdk.cache.cache_get(key="k").exists, False)
        tunnel, request = proxy.requests
        self.assertTrue(header(tunnel, "Proxy-Authorization"))
        self.assertEqual((header(request, "Proxy-Authorization"), header(request, "Authorization")), ([], []))
        self.assertTrue(request.startswith(b"POST /cache/get HTTP/1.1\r\n"))

    def test_http_1_1_is_what_the_handshake_asks_for(self):
        chosen = []
        self.server_side.set_alpn_protocols(["h2", "http/1.1"])
        note = [expect, lambda peer: chosen.append(peer.socket.selected_alpn_protocol()), FOUND]
        server = self.serve(note, tls=self.server_side)
        with mock.patch.dict(os.environ, SSL_CERT_FILE=self.authority.path):
            with SDK("the-key", server_url="https://host.test:%d" % server.port) as sdk:
                sdk.cache.cache_get(key="k")
        self.assertEqual(chosen, ["http/1.1"])

    def test_a_certificate_of_another_host_is_refused_all_the_same(self):
        for host in ("other.test.", "wide.test.", "a.b.wide.test.", "xhost.test."):
            with self.subTest(host):
                server = self.serve([until_gone], tls=self.server_side)
                url = "https://%s:%d" % (host, server.port)
                self.assertRegex(
                    str(self.failure(server, server_url=url, client=self.trusting())), "mismatch|not valid"
                )

    def test_a_client_of_the_program_s_own_context_gets_the_name_without_it_too(self):
        asked = []

        class Noting(ssl.SSLContext):
            def wrap_socket(self, *arguments, **options):
                asked.append(options["server_hostname"])
                return super().wrap_socket(*arguments, **options)

        context = Noting(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.path)
        server = self.serve([expect, answer(b"1")], tls=self.server_side)
        post(self.client(ssl_context=context), "https://host.test.:%d/" % server.port)
        self.assertEqual(asked, ["host.test"])


if __name__ == "__main__":
    unittest.main()
