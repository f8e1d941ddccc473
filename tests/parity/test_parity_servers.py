"""Where a request goes, with which key and headers, and through what."""

import contextlib
import gzip
import importlib.util
import math
import os
import socket
import ssl
import tempfile
import threading
import unittest
import zlib

from tests.parity import OFFICIAL
from tests.parity.beside import FOUND, Case, Own, Parity, good, lookup
from tests.parity.recorder import SILENCE, Answer, RecordingServer

PROXIES = (
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "REQUEST_METHOD",
)


@contextlib.contextmanager
def environment(**values):
    """These variables, and none that say where to go or whom to trust."""
    kept = dict(os.environ)
    for name in (*PROXIES, "AEROSTACK_SERVER_URL", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


class Urls(Parity):
    def test_which_server_counts(self):
        self.same(
            lookup("client", sdk={"server_url": "$ORIGIN/client"}),
            lookup("call over client", sdk={"server_url": "$ORIGIN/client"}, server_url="$ORIGIN/call"),
            lookup("call over index", sdk={"server_idx": 1}, server_url="$ORIGIN/call"),
            lookup("client over index", sdk={"server_idx": 1, "server_url": "$ORIGIN/client"}),
            lookup("call None", sdk={"server_url": "$ORIGIN/client"}, server_url=None),
        )

    def test_the_list_of_servers(self):
        self.same_value("servers", lambda package: list(package.SERVERS))
        for options in (
            {},
            {"server_idx": None},
            {"server_idx": 0},
            {"server_idx": 1},
            {"server_url": ""},
            {"server_url": None},
        ):
            self.same_value(
                "details %r" % options,
                lambda package: package.SDK("key", **options).sdk_configuration.get_server_details(),
            )

    def test_an_index_out_of_the_list_is_refused(self):
        for index in (2, 100, "0", [], 1.5):
            self.same_value(
                "index %r" % (index,),
                lambda package: [
                    isinstance(self.side(package).act(package.SDK, "key", index).error, kind)
                    for kind in (IndexError, (IndexError, TypeError, ValueError))
                ],
            )

    def test_slashes_and_escapes(self):
        for path in (
            "",
            "/",
            "/v1/",
            "/a/b",
            "/a%2Fb",
            "/a b",
            "/é",
            "/a;b",
            "/a:b@c",
            "/a,b=c",
            "/~a",
            "/%7Ea",
            "/a//b",
            "/(x)",
        ):
            self.same(
                lookup("client path %r" % path, sdk={"server_url": "$ORIGIN" + path}),
                lookup("call path %r" % path, server_url="$ORIGIN" + path),
            )

    def test_templates(self):
        for name, url, params in (
            ("one", "$ORIGIN/{a}", {"a": "x"}),
            ("two", "$ORIGIN/{a}/{b}", {"a": "x", "b": "y"}),
            ("unused", "$ORIGIN/{a}", {"a": "x", "z": "y"}),
            ("twice", "$ORIGIN/{a}/{a}", {"a": "x"}),
            ("raw", "$ORIGIN/{a}", {"a": "x/y z"}),
            ("empty", "$ORIGIN/v1", {}),
        ):
            self.same(lookup(name, sdk={"server_url": url, "url_params": params}))
        self.same(
            lookup("missing", sdk={"server_url": "$ORIGIN/{a}/{b}", "url_params": {"a": "x"}}),
            lookup("per call they do not count", sdk={"url_params": {"a": "x"}}, server_url="$ORIGIN/v1"),
        )

    def test_credentials_in_the_url(self):
        for user in ("user:pw", "us%40er:p%3Aw", "user"):
            self.same(lookup(user, server_url="http://%s@127.0.0.1:%d/v1" % (user, self.server.port)))
            self.same(
                lookup("client " + user, sdk={"server_url": "http://%s@127.0.0.1:%d/v1" % (user, self.server.port)})
            )

    def test_the_host_in_any_spelling(self):
        self.same(
            lookup("localhost", server_url="http://localhost:%d/v1" % self.server.port),
            lookup("capitals", server_url="HTTP://LOCALHOST:%d/V1" % self.server.port),
        )


class Keys(Parity):
    def test_texts_and_functions(self):
        self.same(
            lookup("text", sdk={"api_key_auth": "a-key"}),
            lookup("bytes", sdk={"api_key_auth": Own(lambda package: b"a-key")}),
            lookup("function", sdk={"api_key_auth": Own(lambda package: lambda: "from a function")}),
            lookup("with spaces", sdk={"api_key_auth": "a key of words"}),
            lookup("odd", sdk={"api_key_auth": "~!@#$%^&*()"}),
        )

    def test_what_is_no_key_is_refused(self):
        for key in (5, [], object(), 1.5, True):
            self.same(lookup("key %s" % type(key).__name__, sdk={"api_key_auth": Own(lambda package: key)}, locs=False))
        for key in ("a\r\nX-Evil: 1", "a\nb", "a\x00b", "é", "🚀"):
            self.same(lookup("key %s" % ascii(key), sdk={"api_key_auth": key}, locs=False))
        for key in (None, 5, b"\xff"):
            self.same(
                lookup("function gives %r" % key, sdk={"api_key_auth": Own(lambda package: lambda: key)}, locs=False)
            )

    def test_what_a_function_raises_comes_through(self):
        def raises():
            raise LookupError("no key today")

        self.same(lookup("raises", sdk={"api_key_auth": Own(lambda package: raises)}))

    def test_a_function_is_asked_for_every_call(self):
        def calls(package):
            asked = []

            def key():
                asked.append(1)
                return "key-%d" % len(asked)

            side = self.side(package)
            sdk = side.sdk({"api_key_auth": Own(lambda package: key)})
            for _ in range(3):
                sdk.cache.cache_get(request={"key": "k"})
            return [request.values("x-aerostack-key") for request in self.server.requests]

        self.same_value("asked three times", calls)


class Headers(Parity):
    def test_added_and_replaced(self):
        for headers in (
            {"X-Own": "1"},
            {"X-Aerostack-Key": "other"},
            {"Accept": "text/plain"},
            {"content-type": "application/x"},
            {"X-Empty": ""},
            {"X-A": "1", "X-B": "2"},
            {"Authorization": "Bearer t"},
            {"Cookie": "a=b"},
            {"X-Tab": "a\tb"},
            {},
            None,
            {"X-Bytes": b"raw"},
        ):
            self.same(lookup("headers %r" % headers, http_headers=headers))
            self.same(
                Case(
                    "upload with %r" % headers,
                    "storage.storage_upload",
                    {"key": "k", "file": {"file_name": "a", "content": b"x"}},
                    http_headers=headers,
                )
                if not {"content-type"} & set(headers or ())
                else lookup("again", http_headers=headers)
            )

    def test_a_bad_header_is_refused(self):
        for headers in (
            {"X": None},
            {"X": 5},
            {"X": []},
            {"X": "a\r\nY: 1"},
            {"X": "a\nb"},
            {"X": "a\x00"},
            {"X": "é"},
            {"": "x"},
            {" ": "x"},
            {"X Y": "x"},
            {"X:": "x"},
            {"X\r\nY": "x"},
            {"é": "x"},
        ):
            self.same(lookup("headers %s" % ascii(headers), http_headers=headers, locs=False))

    def test_the_user_agent_can_be_replaced(self):
        self.same_value(
            "user-agent",
            lambda package: [
                request.values("user-agent")
                for request in self.side(package).run(lookup("", http_headers={"user-agent": "mine/1"})).requests
            ],
        )


class Redirects(Parity):
    def test_307_and_308_within_the_origin_are_followed(self):
        for status in (307, 308):
            for target in (
                "$/elsewhere",
                "/elsewhere",
                "elsewhere",
                "?q=1",
                "$/a?b=c#fragment",
                "/a%20b",
                "/a b",
                "//127.0.0.1:%d/x" % self.server.port,
            ):
                moved = Answer(status, "", None, [("Location", target.replace("$", self.server.origin))])
                self.same(lookup("%d to %s" % (status, target), [moved, FOUND], http_headers={"X-Own": "1"}))
        moved = Answer(307, "", None, [("Location", "/moved")])
        self.same(
            Case(
                "an upload",
                "storage.storage_upload",
                {"key": "k", "file": {"file_name": "a", "content": b"x"}},
                [moved, good("storage.storage_upload")],
            ),
            lookup("twice", [moved, moved, FOUND]),
        )

    def test_an_open_file_is_sent_again(self):
        with open(__file__, "rb") as file:
            self.same(
                Case(
                    "a file",
                    "storage.storage_upload",
                    Own(lambda package: {"key": "k", "file": {"file_name": "a", "content": file}}),
                    [Answer(308, "", None, [("Location", "/moved")]), good("storage.storage_upload")],
                )
            )

    def test_the_answer_after_it_is_an_answer_like_any_other(self):
        self.same(lookup("404", [Answer(307, "", None, [("Location", "/x")]), Answer(404, "gone", "text/plain")]))


class Coding(Parity):
    BODY = b'{"exists":true,"value":"' + b"x" * 1000 + b'"}'

    def test_compressed_answers(self):
        for coding, body in (
            ("gzip", gzip.compress(self.BODY)),
            ("GZIP", gzip.compress(self.BODY)),
            ("gzip, identity", gzip.compress(self.BODY)),
            ("identity, gzip", gzip.compress(self.BODY)),
            ("gzip, gzip", gzip.compress(gzip.compress(self.BODY))),
            ("identity", self.BODY),
            ("unknown", self.BODY),
        ):
            self.same(self.coded(coding, body))
        self.same(
            self.coded("gzip", gzip.compress(self.BODY) + b"bytes behind it"),
            lookup("an error", Answer(500, gzip.compress(b"sorry"), "text/plain", [("Content-Encoding", "gzip")])),
        )

    def coded(self, coding, body):
        return lookup(coding, Answer(200, body, headers=[("Content-Encoding", coding)]))

    def test_on_purpose_gzip_alone_is_decoded_and_checked(self):
        raw = zlib.compressobj(wbits=-15)
        for name, body in (("zlib", zlib.compress(self.BODY)), ("raw", raw.compress(self.BODY) + raw.flush())):
            self.differs(
                "`Content-Encoding: deflate`",
                name,
                self.coded("deflate", body),
                lambda exchange: exchange.value.exists,
                lambda exchange: exchange.raised("ResponseValidationError"),
            )
        self.differs(
            "`Content-Encoding: x-gzip`",
            "x-gzip",
            self.coded("x-gzip", gzip.compress(self.BODY)),
            lambda exchange: exchange.raised("ResponseValidationError"),
            lambda exchange: exchange.value.exists,
        )
        self.differs(
            "a gzip body without its end",
            "eight bytes short",
            self.coded("gzip", gzip.compress(self.BODY)[:-8]),
            lambda exchange: exchange.value.exists,
            lambda exchange: exchange.raised("DecodingError"),
        )
        self.differs(
            "a body compressed more than twice",
            "three times",
            self.coded("gzip, gzip, gzip", gzip.compress(gzip.compress(gzip.compress(self.BODY)))),
            lambda exchange: exchange.value.exists,
            lambda exchange: exchange.raised("DecodingError", "ResponseValidationError"),
        )

    def test_framings(self):
        head, json = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", b'{"exists":true}'
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        for name, raw in (
            ("chunked", chunked + b"5\r\n" + json[:5] + b"\r\na\r\n" + json[5:] + b"\r\n0\r\n\r\n"),
            ("extensions and trailers", chunked + b"f;x=y\r\n" + json + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"),
            ("until close", head + b"\r\n" + json),
            ("HTTP/1.0", head.replace(b"1.1", b"1.0") + b"\r\n" + json),
            ("no reason", head.replace(b" OK", b"") + b"Content-Length: 15\r\n\r\n" + json),
            ("folded", head + b"X-Long: a\r\n  b\r\nContent-Length: 15\r\n\r\n" + json),
            ("100 before", b"HTTP/1.1 100 Continue\r\n\r\n" + head + b"Content-Length: 15\r\n\r\n" + json),
            ("102 before", b"HTTP/1.1 102 Processing\r\n\r\n" + head + b"Content-Length: 15\r\n\r\n" + json),
            (
                "103 before",
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head + b"Content-Length: 15\r\n\r\n" + json,
            ),
            ("no Content-Type", b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n" + json),
        ):
            self.same(lookup(name, Answer(raw=raw), fresh=True))


class Proxies(Parity):
    def through(self, name, url="http://api.example/v1", variables=None, **more):
        with environment(
            **{key: value.replace("$", "127.0.0.1:%d" % self.server.port) for key, value in (variables or {}).items()}
        ):
            self.same(lookup(name, fresh=True, sdk={"server_url": url}, **more))

    def test_the_variables(self):
        self.through("http_proxy", variables={"http_proxy": "http://$"})
        self.through("HTTP_PROXY", variables={"HTTP_PROXY": "http://$"})
        self.through("ALL_PROXY", variables={"ALL_PROXY": "http://$"})
        self.through("lower case first", variables={"http_proxy": "http://$", "HTTP_PROXY": "http://127.0.0.1:1"})
        self.through("credentials", variables={"http_proxy": "http://us%40er:p%3Aw@$"})
        self.through("no scheme", variables={"http_proxy": "$"})
        self.through("NO_PROXY", "$ORIGIN/v1", {"http_proxy": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"})
        self.through("NO_PROXY *", "$ORIGIN/v1", {"http_proxy": "http://127.0.0.1:1", "NO_PROXY": "*"})
        self.through("another host", variables={"http_proxy": "http://$", "NO_PROXY": "example.org"})
        self.through("under CGI", "$ORIGIN/v1", {"HTTP_PROXY": "http://127.0.0.1:1", "REQUEST_METHOD": "GET"})
        self.through("a failing proxy", variables={"http_proxy": "http://$"}, answers=Answer(502, "bad", "text/plain"))

    def test_a_proxy_that_cannot_be_reached(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            proxy = "http://127.0.0.1:%d" % unused.getsockname()[1]
            self.through("for http", variables={"http_proxy": proxy})
            self.through("for https", "https://api.example/v1", {"https_proxy": proxy})

    def test_a_proxy_that_refuses_the_tunnel(self):
        for status in (403, 407, 502):

            def outcome(package):
                with environment(https_proxy=self.server.origin):
                    case = lookup(
                        "", Answer(status, "no", "text/plain"), fresh=True, sdk={"server_url": "https://api.example/v1"}
                    )
                    exchange = self.side(package).run(case)
                    return [(request.method, request.target) for request in exchange.requests], exchange.outcome()

            self.same_value("CONNECT: %d" % status, outcome)


@unittest.skipUnless(importlib.util.find_spec("trustme"), "needs trustme")
class Tls(Parity):
    def serve(self, host):
        """A server with a certificate of a fresh authority for this host, and that authority's file."""
        import trustme

        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(context)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "ca.pem")
        authority.cert_pem.write_to_path(path)
        server = RecordingServer(context)
        self.addCleanup(server.close)
        return server, path

    def calls(self, name, server, variables):
        """The same outcome on both sides; how many of the four calls arrived."""
        server.play([FOUND])
        with environment(**variables):
            self.same(lookup(name, fresh=True, server_url=server.origin))
        return len(server.requests)

    def test_only_a_trusted_certificate_for_this_host_will_do(self):
        right, path = self.serve("127.0.0.1")
        wrong, wrong_path = self.serve("example.org")
        self.assertEqual(self.calls("trusted", right, {"SSL_CERT_FILE": path}), 4)
        self.assertEqual(self.calls("untrusted", right, {}), 0)
        self.assertEqual(self.calls("for another host", wrong, {"SSL_CERT_FILE": wrong_path}), 0)
        self.assertEqual(self.calls("of another authority", right, {"SSL_CERT_FILE": wrong_path}), 0)

    def test_on_purpose_requests_own_variable_counts(self):
        server, path = self.serve("127.0.0.1")
        server.play([FOUND])
        with environment(REQUESTS_CA_BUNDLE=path):
            self.differs(
                "trusted authorities",
                "REQUESTS_CA_BUNDLE",
                lookup("", fresh=True, server_url=server.origin),
                lambda exchange: exchange.raised("ConnectError"),
                lambda exchange: exchange.value.exists,
            )


class TimeOuts(Parity):
    def test_a_silent_server(self):
        for name, more in (
            ("call", {"timeout_ms": 200}),
            ("client", {"sdk": {"timeout_ms": 200}}),
            ("float", {"timeout_ms": 200.5}),
            ("call over client", {"sdk": {"timeout_ms": 60000}, "timeout_ms": 200}),
            ("None inherits", {"sdk": {"timeout_ms": 200}, "timeout_ms": None}),
        ):
            self.same(lookup(name, SILENCE, **more))

    def test_what_is_no_time_is_refused(self):
        self.same(lookup("text", timeout_ms="60", locs=False), lookup("list", timeout_ms=[], locs=False))

    def test_a_server_in_time(self):
        self.same(lookup("in time", timeout_ms=30000), lookup("client in time", sdk={"timeout_ms": 30000}))


class OnPurpose(Parity):
    def test_a_bad_server_url_is_refused(self):
        for url in (
            "no-scheme/v1",
            "ftp://127.0.0.1/v1",
            "file:///etc/passwd",
            "http://",
            "$ORIGIN/v1\r\nX: 1",
            "http://127.0.0.1:99999/v1",
        ):
            self.differs(
                "a bad server URL",
                "of the client: %r" % url,
                lambda side: side.package.SDK("key", server_url=side.own(url)),
                lambda exchange: exchange.error is None,
                lambda exchange: exchange.refused(),
            )
            self.differs(
                "a bad server URL",
                "of a call: %r" % url,
                lookup("", server_url=url),
                lambda exchange: exchange.error is not None and not exchange.requests,
                lambda exchange: exchange.refused(),
            )
        self.differs(
            "a bad server URL",
            "of a call: empty",
            lookup("", server_url=""),
            lambda exchange: exchange.raised("UnsupportedProtocol"),
            lambda exchange: exchange.refused("server_url"),
        )
        for url in ("$ORIGIN/v1?a=b", "$ORIGIN/v1#f"):
            for name, options in (("client", {"sdk": {"server_url": url}}), ("call", {"server_url": url})):
                self.differs(
                    "a query or fragment in the server URL",
                    "of the %s: %s" % (name, url),
                    lookup("", **options),
                    lambda exchange: exchange.requests[0].target.partition("?")[0] == "/v1",
                    lambda exchange: exchange.refused(),
                )

    def test_a_negative_index_is_refused(self):
        for index in (-1, -2):
            self.differs(
                "a negative `server_idx`",
                str(index),
                lambda side: side.package.SDK("key", server_idx=index),
                lambda exchange: exchange.error is None,
                lambda exchange: isinstance(exchange.error, IndexError),
            )

    def test_the_key_may_come_from_the_environment(self):
        with environment(AEROSTACK_API_KEY=" from-the-environment \n"):

            def call(side):
                with side.package.SDK(server_url=self.server.origin) as sdk:
                    sdk.cache.cache_get(request={"key": "k"})
                return self.server.requests[0].values("x-aerostack-key")

            self.differs(
                "`api_key_auth`",
                "from the environment",
                call,
                lambda exchange: exchange.refused("api_key_auth"),
                lambda exchange: exchange.value == ["from-the-environment"],
            )

    def test_the_server_may_come_from_the_environment(self):
        with environment(AEROSTACK_SERVER_URL="http://127.0.0.1:1/from-the-environment"):
            self.differs(
                "the default server",
                "from the environment",
                lambda side: side.package.SDK("key").sdk_configuration.get_server_details()[0],
                lambda exchange: exchange.value == OFFICIAL.SERVERS[0],
                lambda exchange: exchange.value == "http://127.0.0.1:1/from-the-environment",
            )

    def test_an_empty_key_is_refused(self):
        with environment(AEROSTACK_API_KEY=""):
            for key in ("", "  "):
                self.differs(
                    "`api_key_auth`",
                    repr(key),
                    lookup("", sdk={"api_key_auth": key}),
                    lambda exchange: exchange.error is None or not exchange.requests,
                    lambda exchange: exchange.refused(),
                )
            self.differs(
                "`api_key_auth`",
                "None",
                lambda side: side.package.SDK(None),
                lambda exchange: exchange.refused(),
                lambda exchange: exchange.refused("AEROSTACK_API_KEY"),
            )

    def test_white_space_around_a_key_is_stripped(self):
        self.differs(
            "`api_key_auth`",
            "with a line end",
            lookup("", sdk={"api_key_auth": "a-key\n"}),
            lambda exchange: not exchange.requests and exchange.error is not None,
            lambda exchange: exchange.requests[0].values("x-aerostack-key") == ["a-key"],
        )

    def test_what_is_refused_is_not_quoted(self):
        for name, options in (
            ("a key with a line end inside", {"sdk": {"api_key_auth": "s3c\nret"}}),
            ("a header with a line end inside", {"http_headers": {"X-Token": "s3c\nret"}}),
        ):
            self.differs(
                "error texts",
                name,
                lookup("", **options),
                lambda exchange: "s3c" in str(exchange.error),
                lambda exchange: exchange.refused() and "s3c" not in str(exchange.error) + repr(exchange.error),
            )

    def test_a_header_in_another_case_replaces(self):
        for header in ("x-aerostack-key", "X-AEROSTACK-KEY", "Content-Type", "accept", "User-Agent"):
            self.differs(
                "a header given in another case",
                header,
                lookup("", http_headers={header: "own"}),
                lambda exchange: len(exchange.requests[0].values(header.lower())) == 2,
                lambda exchange: exchange.requests[0].values(header.lower()) == ["own"],
            )

    def test_a_header_has_printable_characters_alone(self):
        for name, options, sent in (
            ("a header", {"http_headers": {"X-Own": "a\x01b"}}, "a\x01b"),
            ("a header in bytes", {"http_headers": {"X-Own": "é".encode()}}, "Ã©"),
            ("a key", {"sdk": {"api_key_auth": "a\x7fb"}}, "a\x7fb"),
        ):
            self.differs(
                "a header or key with control characters, or in bytes that are not ASCII",
                name,
                lookup("", **options),
                lambda exchange: sent in [value for _, value in exchange.requests[0].headers],
                lambda exchange: exchange.refused(),
            )
        self.differs(
            "white space around a header's value",
            "a blank on each side",
            lookup("", http_headers={"X-Own": " a "}),
            lambda exchange: exchange.raised("LocalProtocolError") and not exchange.requests,
            lambda exchange: exchange.requests[0].values("x-own") == ["a"],
        )

    def test_a_write_never_becomes_a_read(self):
        for status in (301, 302, 303):
            self.differs(
                "301, 302, 303",
                str(status),
                Case(
                    "",
                    "cache.cache_set",
                    {"key": "k", "value": 1},
                    [Answer(status, "", None, [("Location", "/v1/moved")]), good("cache.cache_set")],
                ),
                lambda exchange: exchange.error is None and exchange.requests[1].method == "GET",
                lambda exchange: exchange.raised("SDKError", text="/v1/moved") and len(exchange.requests) == 1,
            )

    def test_nothing_of_the_callers_goes_to_another_origin(self):
        with RecordingServer() as other:
            for status in (307, 308):

                def asked(side):
                    other.play([good("authentication.auth_signin")])
                    exchange = side.run(
                        Case(
                            "",
                            "authentication.auth_signin",
                            {"email": "e", "password": "hunter2"},
                            Answer(status, "", None, [("Location", other.origin + "/v1")]),
                        )
                    )
                    return exchange, list(other.requests)

                self.differs(
                    "a redirect to another origin",
                    str(status),
                    asked,
                    lambda exchange: (
                        b"hunter2" in exchange.value[1][0].body
                        and exchange.value[1][0].values("x-aerostack-key") == ["key-1"]
                    ),
                    lambda exchange: (
                        exchange.value[0].raised("SDKError", text=other.origin + "/v1") and not exchange.value[1]
                    ),
                )

    def test_a_target_that_is_not_http_is_another_origin(self):
        for target in ("ftp://127.0.0.1/x", "file:///etc/passwd"):
            self.differs(
                "a redirect to another origin",
                target,
                lookup("", [Answer(307, "", None, [("Location", target)]), FOUND]),
                lambda exchange: exchange.raised("RequestError"),
                lambda exchange: exchange.raised("SDKError", text=target) and len(exchange.requests) == 1,
            )

    def test_redirects_end(self):
        self.differs(
            "redirects in a row",
            "six",
            lookup("", [Answer(307, "", None, [("Location", "/moved")])] * 6 + [FOUND]),
            lambda exchange: exchange.value.exists,
            lambda exchange: exchange.raised("TooManyRedirects"),
        )

    def test_no_cookie_is_kept(self):
        def second(side):
            with side.sdk({}, fresh=True) as sdk:
                self.server.play([Answer(200, {}, headers=[("Set-Cookie", "session=first-user; Path=/")]), FOUND])
                sdk.cache.cache_get(request={"key": "k"})
                sdk.cache.cache_get(request={"key": "k"})
            return self.server.requests[1].values("cookie")

        self.differs(
            "cookies",
            "of the first user in the second call",
            second,
            lambda exchange: exchange.value == ["session=first-user"],
            lambda exchange: exchange.value == [],
        )

    def test_a_timeout_of_nothing_is_refused(self):
        for milliseconds in (0, -1, False):
            self.differs(
                "a `timeout_ms` of 0 or less, or a boolean",
                str(milliseconds),
                lookup("", timeout_ms=milliseconds, fresh=True),
                lambda exchange: exchange.error is not None,
                lambda exchange: exchange.refused("timeout_ms"),
            )

    def test_a_timeout_may_be_infinite(self):
        self.differs(
            "`timeout_ms=math.inf`",
            "of a call",
            lookup("", timeout_ms=math.inf, fresh=True),
            lambda exchange: exchange.raised("OverflowError"),
            lambda exchange: exchange.value.exists,
            twins=False,
        )

    def test_the_timeout_holds_against_single_bytes(self):
        stop = threading.Event()
        self.addCleanup(stop.set)

        def drip(listener):
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(65536)
                for letter in b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}":
                    if stop.wait(0.005):
                        break
                    try:
                        connection.sendall(bytes([letter]))
                    except OSError:
                        break
                connection.close()

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        self.addCleanup(listener.close)
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        self.differs(
            "`timeout_ms`",
            "100 ms against a byte every 5 ms",
            lookup("", server_url="http://127.0.0.1:%d" % listener.getsockname()[1], timeout_ms=100),
            lambda exchange: exchange.error is None and exchange.seconds > 0.2,
            lambda exchange: exchange.raised("TimeoutException") and exchange.seconds < 0.4,
        )


if __name__ == "__main__":
    unittest.main()
