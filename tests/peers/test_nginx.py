"""Against nginx: keep-alive, TLS 1.2 and 1.3, gzip, 413, redirects."""

import io
import os
import ssl
import threading
import unittest

from aerostack_lite import SDK, HttpClient, errors
from tests.peers.program import ProgramCase
from tests.scripted_server import free_port, post

try:
    import trustme
except ImportError:
    trustme = None

CONFIGURATION = """
{user}
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off; server_tokens off; default_type application/json;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  gzip on; gzip_types *; gzip_min_length 1; gzip_http_version 1.0;
  keepalive_timeout 60s 20s; client_max_body_size 64k;
  server {{
    listen 127.0.0.1:{port}; {tls}
    location /v1/cache/get {{ return 200 '{{"exists":true,"value":"{long}"}}'; }}
    location /connection {{ return 200 '"$connection"'; }}
    location /protocol {{ return 200 '"$ssl_protocol"'; }}
    location /three {{ keepalive_requests 3; return 200 '"$connection"'; }}
    location /moved/ {{ return 307 /v1/cache/get; }}
    location /away/ {{ return 308 http://127.0.0.1:1/; }}
    location /found/ {{ return 302 /v1/cache/get; }}
    location /gone {{ return 444; }}
    location / {{ return 404 '{{"code":"NOT_FOUND","message":"no"}}'; }}
  }}
}}
"""
LONG = "x" * 2000


class NginxCase(ProgramCase):
    PROGRAM = "nginx"

    @classmethod
    def start(cls):
        cls.tls_port = free_port()
        tls = ""
        if trustme:
            authority = trustme.CA()
            cls.bundle = os.path.join(cls.folder, "ca.pem")
            authority.cert_pem.write_to_path(cls.bundle)
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
                os.path.join(cls.folder, "server.pem")
            )
            tls = (
                "listen 127.0.0.1:%d ssl; ssl_protocols TLSv1.2 TLSv1.3;"
                " ssl_certificate server.pem; ssl_certificate_key server.pem;" % cls.tls_port
            )
        configuration = cls.write(
            "nginx.conf",
            CONFIGURATION.format(
                user="user root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else "",
                folder=cls.folder,
                port=cls.port,
                tls=tls,
                long=LONG,
            ),
        )
        return [cls.path, "-p", cls.folder, "-c", configuration, "-e", "stderr"]

    def setUp(self):
        super().setUp()
        self.url = "http://127.0.0.1:%d" % self.port
        self.client = HttpClient()
        self.addCleanup(self.client.close)

    def sdk(self, path="/v1", **options):
        made = SDK("key", server_url=self.url + path, retry_config=None, timeout_ms=5000, **options)
        self.addCleanup(made.close)
        return made


class NginxTest(NginxCase):
    def test_one_connection_serves_call_after_call(self):
        self.assertEqual(len({post(self.client, self.url + "/connection").json() for _ in range(20)}), 1)

    def test_the_connection_that_nginx_ends_is_replaced_unseen(self):
        used = [post(self.client, self.url + "/three").json() for _ in range(9)]
        self.assertEqual(len(set(used)), 3)

    def test_gzip_is_decoded(self):
        response = post(self.client, self.url + "/v1/cache/get", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(response.headers["content-encoding"], "gzip")
        self.assertEqual(response.json()["value"], LONG)
        self.assertEqual(self.sdk().cache.cache_get(key="a").value, LONG)

    def test_413_is_what_the_caller_sees(self):
        for content in (bytes(100000), bytes(20 << 20)):
            with self.assertRaises(errors.SDKError) as caught:
                self.sdk().storage.storage_upload(key="a", file={"file_name": "f", "content": io.BytesIO(content)})
            self.assertEqual(caught.exception.status_code, 413)
        self.assertEqual(self.sdk().cache.cache_get(key="a").value, LONG)

    def test_redirects(self):
        self.assertEqual(self.sdk("/moved").cache.cache_get(key="a").value, LONG)
        for path, status in (("/away", 308), ("/found", 302)):
            with self.assertRaises(errors.SDKError) as caught:
                self.sdk(path).cache.cache_get(key="a")
            self.assertEqual(caught.exception.status_code, status)

    def test_a_connection_that_nginx_drops_is_an_error(self):
        for _ in range(3):
            with self.assertRaises((errors.ReadError, errors.RemoteProtocolError)):
                post(self.client, self.url + "/gone")
        self.assertEqual(post(self.client, self.url + "/v1/cache/get").status_code, 200)

    def test_threads(self):
        wrong = []

        def work():
            for _ in range(20):
                if post(self.client, self.url + "/v1/cache/get", timeout=20.0).json()["value"] != LONG:
                    wrong.append(1)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_headers_that_nginx_refuses_are_an_answer(self):
        response = post(self.client, self.url + "/v1/cache/get", headers={"X-Big": "y" * 40000})
        self.assertEqual(response.status_code, 400)

    @unittest.skipUnless(trustme, "trustme is not installed")
    def test_tls_1_2_and_1_3(self):
        for version, name in (("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")):
            context = ssl.create_default_context(cafile=self.bundle)
            context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
            client = HttpClient(ssl_context=context)
            self.addCleanup(client.close)
            self.assertEqual(post(client, "https://127.0.0.1:%d/protocol" % self.tls_port).json(), name)
            self.assertEqual(
                len({post(client, "https://127.0.0.1:%d/connection" % self.tls_port).json() for _ in range(10)}), 1
            )

    @unittest.skipUnless(trustme, "trustme is not installed")
    def test_413_over_tls_is_what_the_caller_sees(self):
        os.environ["SSL_CERT_FILE"] = self.bundle
        with SDK(
            "key", server_url="https://127.0.0.1:%d/v1" % self.tls_port, retry_config=None, timeout_ms=5000
        ) as sdk:
            with self.assertRaises(errors.SDKError) as caught:
                sdk.storage.storage_upload(key="a", file={"file_name": "f", "content": bytes(10 << 20)})
        self.assertEqual(caught.exception.status_code, 413)
