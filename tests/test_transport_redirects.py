"""Redirects: the key goes to one origin, and a POST stays a POST."""

import io

from aerostack_lite import SDK, HttpClient, errors
from tests.scripted_server import (
    LoopbackTestCase,
    ScriptedServer,
    answer,
    expect,
    header,
    post,
    repeat,
    until_gone,
)

FOUND = answer(b'{"exists":false}')


def redirect(status, target):
    return answer(b"", "Location: " + target, status="%d Elsewhere" % status)


class RedirectCase(LoopbackTestCase):
    def ask(self, server, **options):
        with SDK("sk_1", server_url=server.url + "/v1", retry_config=None, timeout_ms=2000) as sdk:
            return sdk.cache.cache_get(key="a", **options)

    def refusal(self, server):
        with self.assertRaises(errors.AerostackError) as caught:
            self.ask(server)
        return caught.exception


class AnotherOriginTest(RedirectCase):
    def test_no_redirect_reaches_another_origin(self):
        for status in (301, 302, 303, 307, 308):
            for target in (
                "http://127.0.0.1:{other}/v1/cache/get",  # another port
                "http://localhost:{port}/v1/cache/get",  # another host, though it is the same machine
                "//127.0.0.1:{other}/v1/cache/get",
                "https://127.0.0.1:{port}/v1/cache/get",  # another scheme
                "https://127.0.0.1:{other}/v1/cache/get",
                "http://127.0.0.1:{port}@127.0.0.1:{other}/",
                "http://127.0.0.1:{other}#@127.0.0.1:{port}/",
                "http://127.0.0.1:{other}\\@127.0.0.1:{port}/",
                "http:\\\\127.0.0.1:{other}/",
                "/\\127.0.0.1:{other}/",
                "\\\\127.0.0.1:{other}/",
                "http:////127.0.0.1:{other}/",
                "http://127.0.0.1:0{other}/",
                "http://127.1:{other}/",
                "http://2130706433:{other}/",
                "HTTP://127.0.0.1:{other}/",
                " http://127.0.0.1:{other}/",
                "\thttp://127.0.0.1:{other}/",
            ):
                with ScriptedServer([expect, answer(b'{"exists":true}')]) as other:
                    target_now = target
                    with ScriptedServer(
                        repeat(lambda peer: (peer.read_request(), peer.send(redirect(status, target_now))))
                    ) as server:
                        target_now = target.format(port=server.port, other=other.port)
                        with self.subTest(status=status, target=target):
                            self.assertIsInstance(self.refusal(server), errors.AerostackError)
                            self.assertEqual((server.connections, other.connections), (1, 0))

    def test_a_refused_redirect_is_an_sdk_error_with_its_status_and_target(self):
        with ScriptedServer([expect, redirect(307, "http://other.test/v1/cache/get"), until_gone]) as server:
            error = self.refusal(server)
        self.assertIsInstance(error, errors.SDKError)
        self.assertEqual(error.status_code, 307)
        self.assertIn("http://other.test/v1/cache/get", str(error))

    def test_a_target_that_is_no_http_url_is_refused(self):
        for target in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "data:application/json,{}",
            "gopher://127.0.0.1/",
            "mailto:a@b",
            "javascript:1",
            "http://",
            "http://[::1",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:x/",
            "//",
            "",
            "http://h:" + "9" * 5000,
            "//\u2100.test/",
        ):
            with self.subTest(target[:30]), ScriptedServer(repeat(expect, redirect(307, target))) as server:
                self.assertIsInstance(self.refusal(server), errors.AerostackError)
                self.assertLessEqual(len(server.requests), 6)

    def test_a_target_with_credentials_is_refused_without_showing_them(self):
        with ScriptedServer(
            [
                lambda peer: (
                    peer.read_request(),
                    peer.send(redirect(307, "http://ada:sekret@%s/x" % peer.server.netloc)),
                ),
                until_gone,
            ]
        ) as server:
            error = self.refusal(server)
            self.assertEqual(len(server.requests), 1)
        self.assertNotIn("sekret", str(error))

    def test_content_that_can_be_read_once_is_not_sent_twice(self):
        with ScriptedServer([expect, redirect(307, "/x"), until_gone]) as server, HttpClient() as client:
            with self.assertRaises(errors.LocalProtocolError):
                client.send(client.build_request("POST", server.url, content=iter([b"a", b"b"])))
            self.assertEqual(len(server.requests), 1)

    def test_a_target_with_control_characters_is_refused_and_shown_escaped(self):
        for target in ("/a\x00b", "/a\x1b[31mb", "/a\rX-Evil: 1", "/\x7f"):
            with self.subTest(target), ScriptedServer(repeat(expect, redirect(307, target))) as server:
                error = self.refusal(server)
                self.assertEqual(len(server.requests), 1)
                for character in "\x00\x1b\r\x7f":
                    self.assertNotIn(character, str(error))


class SameOriginTest(RedirectCase):
    def test_a_post_never_turns_into_a_get(self):
        for status in (301, 302, 303):
            with ScriptedServer([expect, redirect(status, "/elsewhere"), expect, FOUND], [expect, FOUND]) as server:
                error = self.refusal(server)
                self.assertIsInstance(error, errors.SDKError)
                self.assertEqual(error.status_code, status)
                self.assertIn("/elsewhere", str(error))
                self.assertEqual(len(server.requests), 1)

    def test_other_3xx_answers_are_errors_with_their_status(self):
        for status in (300, 304, 305, 306, 399):
            with ScriptedServer([expect, redirect(status, "/elsewhere"), until_gone]) as server:
                self.assertEqual(self.refusal(server).status_code, status)
                self.assertEqual(len(server.requests), 1)

    def test_307_and_308_keep_method_body_and_headers(self):
        for status in (307, 308):
            for target, path in (
                ("/v2/there?x=1", b"/v2/there?x=1"),
                ("there", b"/v1/cache/there"),
                ("?q=2", b"/v1/cache/get?q=2"),
                ("//{netloc}/abs", b"/abs"),
                ("http://{netloc}/abs#part", b"/abs"),
                ("HTTP://{netloc}/abs", b"/abs"),
            ):
                target_now = target
                with self.subTest(status=status, target=target):
                    first = [lambda peer: (peer.read_request(), peer.send(redirect(status, target_now))), expect, FOUND]
                    with ScriptedServer(first, [expect, FOUND]) as server:
                        target_now = target.format(netloc=server.netloc)
                        self.assertIs(self.ask(server, http_headers={"X-Own": "1"}).exists, False)
                        before, after = server.requests
                        self.assertTrue(after.startswith(b"POST %s HTTP/1.1\r\n" % path), after)
                        for name in (
                            "X-Aerostack-Key",
                            "X-Own",
                            "Content-Type",
                            "Content-Length",
                            "X-Request-ID",
                            "Host",
                        ):
                            self.assertEqual(header(after, name), header(before, name))
                            self.assertEqual(len(header(after, name)), 1, name)
                        self.assertEqual(after.partition(b"\r\n\r\n")[2], before.partition(b"\r\n\r\n")[2])

    def test_an_upload_is_rewound_for_a_redirect(self):
        stored = answer(b'{"success":true,"url":"u","key":"a"}')
        with ScriptedServer([expect, redirect(307, "/there"), expect, stored], [expect, stored]) as server:
            with SDK("key", server_url=server.url, retry_config=None, timeout_ms=2000) as sdk:
                sdk.storage.storage_upload(
                    key="a", file={"file_name": "f.bin", "content": io.BytesIO(b"payload" * 1000)}
                )
            self.assertEqual(len(server.requests), 2)
            for request in server.requests:
                self.assertIn(b"payload" * 1000, request)

    def test_at_most_five_are_followed(self):
        hops = [step for n in range(1, 6) for step in (expect, redirect(308, "/hop%d" % n))]
        with ScriptedServer(hops + [expect, FOUND]) as server:
            self.assertIs(self.ask(server).exists, False)
            self.assertEqual(len(server.requests), 6)

    def test_a_loop_is_an_error(self):
        for target in ("/v1/cache/get", "/other"):
            with ScriptedServer(repeat(expect, redirect(307, target))) as server:
                error = self.refusal(server)
                self.assertRegex(str(error), "(?i)redirect")
                self.assertLessEqual(len(server.requests), 6)

    def test_the_deadline_covers_all_hops(self):
        def slow(peer):
            peer.read_request()
            peer.server.released.wait(0.1)
            peer.send(redirect(307, "/again"))

        with ScriptedServer(repeat(slow)) as server, HttpClient() as client:
            with self.assertRaises(errors.TimeoutException):
                post(client, server.url, timeout=0.25)


class SchemeTest(LoopbackTestCase):
    def test_the_client_itself_opens_nothing_but_http(self):
        with HttpClient() as client:
            for url in (
                "file:///etc/passwd",
                "ftp://127.0.0.1/",
                "data:,x",
                "unix:/x",
                "//127.0.0.1/",
                "127.0.0.1",
                "/x",
                "",
                "http:///x",
            ):
                with self.subTest(url), self.assertRaises(errors.AerostackError):
                    post(client, url, timeout=0.3)
