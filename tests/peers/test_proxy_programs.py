"""Through tinyproxy and squid: forwarding, CONNECT, Basic."""

import os

from aerostack_lite import SDK, HttpClient, errors
from tests.peers.program import ProgramCase
from tests.scripted_server import ScriptedServer, answer, expect, free_port, header, mirror, post, repeat

try:
    import ssl

    import trustme
except ImportError:
    trustme = None

FOUND = answer(b'{"exists":true,"value":"v"}')


class ProxyTests:
    """What every proxy must do for us; mixed into a case that starts one."""

    USERINFO = "us%65r:p%61ss"  # user:pass

    def client(self, userinfo=USERINFO, **options):
        made = HttpClient(proxy="http://%s%s127.0.0.1:%d" % (userinfo, "@" if userinfo else "", self.port), **options)
        self.addCleanup(made.close)
        return made

    def tls(self):
        if not trustme:
            self.skipTest("trustme is not installed")
        authority, server_side = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server_side)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        return server_side, trusting

    def test_plain_http_is_forwarded(self):
        with ScriptedServer(repeat(expect, FOUND)) as server:
            client = self.client()
            with SDK("sk_1", server_url=server.url + "/v1", client=client) as sdk:  # tinyproxy hangs up unannounced
                for _ in range(5):
                    self.assertEqual(sdk.cache.cache_get(key="a").value, "v")
            for request in server.requests:
                self.assertTrue(request.startswith(b"POST /v1/cache/get HTTP/1."), request)
                self.assertEqual(header(request, "X-Aerostack-Key"), ["sk_1"])
                self.assertEqual(header(request, "Proxy-Authorization"), [])

    def test_https_goes_through_a_tunnel_that_is_kept(self):
        server_side, trusting = self.tls()
        with ScriptedServer(repeat(expect, FOUND), tls=server_side) as server:
            with SDK(
                "sk_1", server_url=server.url + "/v1", client=self.client(ssl_context=trusting), retry_config=None
            ) as sdk:
                for _ in range(5):
                    self.assertEqual(sdk.cache.cache_get(key="a").value, "v")
            self.assertEqual(server.connections, 1)
            self.assertEqual(header(server.requests[0], "Proxy-Authorization"), [])

    def test_the_environment_names_it_too(self):
        server_side, trusting = self.tls()
        os.environ["HTTPS_PROXY"] = "http://%s@127.0.0.1:%d" % (self.USERINFO, self.port)
        with ScriptedServer(repeat(expect, FOUND), tls=server_side) as server, HttpClient(
            ssl_context=trusting
        ) as client:
            self.assertEqual(post(client, server.url).json()["value"], "v")

    def test_a_wrong_password_is_a_proxy_error_or_a_407(self):
        for userinfo in ("", "user:wrong"):
            with self.assertRaises(errors.ProxyError) as caught:
                post(self.client(userinfo), "https://127.0.0.1:%d/" % free_port())
            self.assertRegex(str(caught.exception), "401|407")  # tinyproxy says 401 to a wrong password
            with ScriptedServer([expect, FOUND]) as server, SDK(
                "key", server_url=server.url, client=self.client(userinfo), retry_config=None
            ) as sdk:
                with self.assertRaises(errors.AerostackError) as caught:
                    sdk.cache.cache_get(key="a")
                if not isinstance(
                    caught.exception, errors.NetworkError
                ):  # tinyproxy resets before it has read the body
                    self.assertRegex(str(caught.exception), "401|407")
                self.assertEqual(server.connections, 0)

    def test_an_origin_that_refuses_is_an_error(self):
        with self.assertRaises(errors.ProxyError) as caught:
            post(self.client(), "https://127.0.0.1:%d/" % free_port())
        self.assertRegex(str(caught.exception), r"\b5\d\d\b")

    def test_a_large_body_passes(self):
        big = os.urandom(3 << 20)

        server_side, trusting = self.tls()
        with ScriptedServer([mirror], tls=server_side) as server:
            self.assertEqual(post(self.client(ssl_context=trusting), server.url, big, timeout=20.0).content, big)


class TinyproxyTest(ProxyTests, ProgramCase):
    PROGRAM = "tinyproxy"

    @classmethod
    def start(cls):
        return [
            cls.path,
            "-d",
            "-c",
            cls.write(
                "tinyproxy.conf",
                (
                    "Port %d\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 30\nMaxClients 50\nLogLevel Error\n"
                    "BasicAuth user pass\n"
                )
                % cls.port,
            ),
        ]


class SquidTest(ProxyTests, ProgramCase):
    PROGRAM = "squid"

    @classmethod
    def start(cls):
        # A checker of passwords in a line of shell: squid asks "user password".
        checker = cls.write(
            "check",
            '#!/bin/sh\nwhile read -r line; do if [ "$line" = "user pass" ]; then echo OK; else echo ERR; fi; done\n',
        )
        os.chmod(checker, 0o755)
        return [
            cls.path,
            "-N",
            "-f",
            cls.write(
                "squid.conf",
                (
                    "http_port 127.0.0.1:%d\npid_filename none\ncache deny all\naccess_log none\n"
                    "cache_log /dev/stderr\ncoredump_dir %s\nshutdown_lifetime 0 seconds\n"
                    "auth_param basic program %s\nauth_param basic children 1 startup=1\n"
                    "acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\n"
                    "visible_hostname squid.test\nnetdb_filename none\npinger_enable off\n"
                )
                % (cls.port, cls.folder, checker),
            ),
        ]
