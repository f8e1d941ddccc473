"""Keep-alive: every call gets its own answer, from a connection that deserves trust."""

import importlib.util
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

import aerostack_lite
from aerostack_lite import SDK, HttpClient, errors
from tests.interruption import CAN_INTERRUPT, Interruption
from tests.scripted_server import (
    PATIENCE_SECONDS,
    ClientTestCase,
    ScriptedServer,
    Stopwatch,
    answer,
    close,
    drip,
    expect,
    half_close,
    hang,
    header,
    mirror,
    post,
    repeat,
    reset,
    until_gone,
    wait,
)
from tests.side_by_side import side_by_side

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def numbered(number):
    return answer(json.dumps({"exists": True, "value": number}).encode())


class KeepAliveCase(ClientTestCase):
    def pool(self, client=None):
        """What the client says of itself: (active, idle)."""
        words = repr(client or self.client).replace(",", "").split()
        return tuple(
            int(words[words.index(name) - 1].strip("(<"))
            for name in (
                next(word for word in words if word.startswith("active")),
                next(word for word in words if word.startswith("idle")),
            )
        )


class InterruptedTest(KeepAliveCase):
    def test_twice_is_no_reason_to_trust_a_connection_either(self):
        close_it, left_open, main = socket.socket.close, [], threading.current_thread()

        def interrupted(sock):
            if threading.current_thread() is not main or left_open:
                return close_it(sock)
            left_open.append(sock)
            raise KeyboardInterrupt

        with ScriptedServer([expect, expect, answer(b'"first"')], [expect, answer(b'"second"')]) as server:
            with mock.patch.object(socket.socket, "close", interrupted), self.assertRaises(KeyboardInterrupt):
                post(self.client, server.url, timeout=0.05)
            self.assertEqual(post(self.client, server.url).json(), "second")
            left_open[0].close()

    def test_by_another_call_wherever_it_comes_in_between_both_are_answered(self):
        """A signal's handler may make a call, too: here, before each line of the module that a call comes to."""
        closing = ["Connection: close"]
        for endings in ([[]], [[], closing], [closing, []]):  # so that it also takes the very one, for good
            with self.subTest(endings):
                self.check_another_call_in_between(itertools.cycle(endings))

    def check_another_call_in_between(self, endings):
        module, visited, answered, done = aerostack_lite.__file__, set(), [], []

        def trace(frame, event, argument):
            place = frame.f_code.co_filename, frame.f_lineno
            if place[0] != module:
                return None
            if event == "line" and place not in visited:
                visited.add(place)
                sys.settrace(None)
                answered.append(post(self.client, server.url, b'"inner"').json())
                sys.settrace(trace)
            return trace

        def work():
            sys.settrace(trace)
            done.append(post(self.client, server.url, b'"outer"').json())
            sys.settrace(None)
            done.append(post(self.client, server.url, b'"last"').json())

        def respond(peer):
            content = peer.read_request().partition(b"\r\n\r\n")[2]
            peer.send(answer(content, *(next(endings) if content == b'"inner"' else ())))

        with ScriptedServer(repeat(respond)) as server:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(PATIENCE_SECONDS)
            self.assertEqual(done, ["outer", "last"])
            self.assertEqual(set(answered), {"inner"})
            self.assertGreater(len(answered), 50)
            self.assertEqual(self.pool()[0], 0)


class ReuseTest(KeepAliveCase):
    def test_one_connection_serves_call_after_call(self):
        with ScriptedServer(repeat(mirror)) as server:
            for number in range(20):
                self.assertEqual(post(self.client, server.url, b"%d" % number).json(), number)
            self.assertEqual((server.connections, self.pool()), (1, (0, 1)))

    def test_chunked_and_empty_answers_leave_it_usable(self):
        with ScriptedServer(
            [
                expect,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nTrailer: x\r\n\r\n",
                expect,
                b"HTTP/1.1 204 No Content\r\n\r\n",
                expect,
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
                expect,
                answer(b""),
                expect,
                answer(b"4"),
            ]
        ) as server:
            self.assertEqual([post(self.client, server.url).content for _ in range(5)], [b"1", b"", b"", b"", b"4"])
            self.assertEqual(server.connections, 1)

    def test_an_answer_to_head_has_no_body_whatever_its_length_says(self):
        with ScriptedServer([expect, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", expect, answer(b"2")]) as server:
            asked = self.client.send(self.client.build_request("HEAD", server.url, timeout=5))
            self.assertEqual((asked.content, asked.headers["content-length"]), (b"", "99"))
            self.assertEqual(post(self.client, server.url).json(), 2)
            self.assertEqual(server.connections, 1)

    def test_whoever_asks_for_its_close_gets_a_new_one_each_time(self):
        with ScriptedServer(repeat(mirror)) as server:
            for number in range(3):
                self.assertEqual(
                    post(self.client, server.url, b"%d" % number, headers={"Connection": "close"}).json(), number
                )
            self.assertEqual((server.connections, self.pool()), (3, (0, 0)))

    def test_two_origins_have_two_connections(self):
        with ScriptedServer(repeat(mirror)) as one, ScriptedServer(repeat(mirror)) as two:
            for _ in range(3):
                post(self.client, one.url)
                post(self.client, two.url)
            self.assertEqual((one.connections, two.connections, self.pool()), (1, 1, (0, 2)))

    def test_a_closed_idle_connection_is_replaced_unseen(self):
        for ending in (close, half_close, reset):
            with self.subTest(ending.__name__), ScriptedServer(
                [expect, answer(b"1"), ending], [expect, answer(b"2"), hang]
            ) as server:
                client = HttpClient()
                self.addCleanup(client.close)
                self.assertEqual(post(client, server.url).content, b"1")
                self.assertTrue(server.peers[0].silent.wait(5))
                self.assertEqual(post(client, server.url).content, b"2")
                self.assertEqual((len(server.requests), server.connections), (2, 2))
                self.assertEqual(self.pool(client), (0, 1))

    def test_an_idle_connection_with_unread_bytes_is_dropped(self):
        for surprise in (
            answer(b'"forged"'),
            answer(b'"forged"', status="408 Request Timeout"),
            b"\r\n",
            b"x",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ):
            go_on, sent = threading.Event(), threading.Event()
            script = [expect, answer(b"1"), wait(go_on), surprise, lambda peer: sent.set(), until_gone]
            with self.subTest(surprise), ScriptedServer(script, [expect, answer(b"2")]) as server:
                client = HttpClient()
                self.addCleanup(client.close)
                post(client, server.url)
                go_on.set()
                self.assertTrue(sent.wait(5))
                self.assertEqual(post(client, server.url).content, b"2")
                self.assertTrue(server.peers[0].left.wait(5))
                self.assertEqual((len(server.requests), server.connections), (2, 2))

    def test_surplus_bytes_after_a_body_are_never_the_next_answer(self):
        for first in (
            answer(b"1") + answer(b'"forged"'),
            answer(b"1") + b"2",
            answer(b"1") + b"\r\n",
            answer(b"1") + b"\r\n" + answer(b'"forged"'),
            answer(b"") + answer(b'"forged"'),
            b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/",
            b"HTTP/1.1 204 No Content\r\n\r\n" + answer(b'"forged"'),
            b"HTTP/1.1 304 Not Modified\r\n\r\n" + answer(b'"forged"'),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n" + answer(b'"forged"'),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n0\r\n\r\n",
        ):
            with self.subTest(first), ScriptedServer([expect, first, until_gone], [expect, answer(b"2")]) as server:
                client = HttpClient()
                self.addCleanup(client.close)
                post(client, server.url)
                self.assertEqual(self.pool(client), (0, 0))
                self.assertEqual(post(client, server.url).content, b"2")
                self.assertEqual(server.connections, 2)

    def test_answers_that_forbid_reuse_are_not_pooled(self):
        for whole in (
            answer(b"1", "Connection: close"),
            answer(b"1", "Connection: CLOSE"),
            answer(b"1", "Connection: x, close"),
            answer(b"1", "Connection: keep-alive", "Connection: close"),
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1",
        ):
            with self.subTest(whole), ScriptedServer([expect, whole, until_gone], [expect, answer(b"2")]) as server:
                client = HttpClient()
                self.addCleanup(client.close)
                self.assertEqual(post(client, server.url).content, b"1")
                self.assertEqual(self.pool(client), (0, 0))
                self.assertTrue(server.peers[0].left.wait(5))
                self.assertEqual(post(client, server.url).content, b"2")

    def test_a_body_ended_by_close_is_whole_and_not_pooled(self):
        for version in (b"1.1", b"1.0"):
            with ScriptedServer([expect, b"HTTP/" + version + b" 200 OK\r\n\r\nall of it"]) as server:
                self.assertEqual(post(self.client, server.url).content, b"all of it")
                self.assertEqual(self.pool(), (0, 0))


class IdleTest(KeepAliveCase):
    """By clocks that the test winds on."""

    def setUp(self):
        super().setUp()
        self.steady = self.wall = 0.0  # how far ahead of the real clocks
        monotonic, wall = time.monotonic, time.time
        for name, clock in (("monotonic", lambda: monotonic() + self.steady), ("time", lambda: wall() + self.wall)):
            patch = mock.patch("time." + name, clock)
            patch.start()
            self.addCleanup(patch.stop)
        # A copy of the module that knows no other clocks.
        spec = importlib.util.spec_from_file_location("aerostack_lite_by_these_clocks", aerostack_lite.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.client = module.HttpClient()
        self.addCleanup(self.client.close)

    def connections_of_two_calls(self, steady, wall, *headers):
        with ScriptedServer(repeat(expect, answer(b"1", *headers))) as server:
            post(self.client, server.url)
            self.steady += steady
            self.wall += wall
            post(self.client, server.url)
            return server.connections

    def test_thirty_seconds_by_either_clock_are_too_long(self):
        for steady, wall, connections in ((29, 29, 1), (31, 31, 2), (31, 0, 2), (0, 31, 2), (0.1, 86400, 2), (0, 0, 1)):
            with self.subTest(steady=steady, wall=wall):
                self.assertEqual(self.connections_of_two_calls(steady, wall), connections)

    def test_the_server_s_own_limit_is_honoured(self):
        for value, seconds, connections in (
            ("timeout=5", 3, 1),
            ("timeout=5", 4.5, 2),  # a second less, for the server counts from earlier on
            ("timeout=5", 6, 2),
            ("timeout=5, max=100", 6, 2),
            ("max=100, timeout=5", 6, 2),
            ("Timeout = 5", 6, 2),
            ("timeout=0", 0.001, 2),
            ("timeout=3600", 29, 1),
            ("timeout=3600", 31, 2),
            ("timeout=9999999999999999999999", 31, 2),
            ("timeout=x", 29, 1),
            ("", 29, 1),
            ("timeout=-5", 29, 1),
        ):
            with self.subTest(value, seconds=seconds):
                self.assertEqual(self.connections_of_two_calls(seconds, seconds, "Keep-Alive: " + value), connections)

    def test_one_answer_s_limit_is_not_the_next_one_s(self):
        with ScriptedServer(
            [expect, answer(b"1", "Keep-Alive: timeout=5"), expect, answer(b"2"), expect, answer(b"3")]
        ) as server:
            for seconds in (2, 20, 0):
                post(self.client, server.url)
                self.steady += seconds
                self.wall += seconds
            self.assertEqual(server.connections, 1)


class RaceTest(KeepAliveCase):
    """The server closes just when the next request arrives."""

    def test_what_is_safe_to_repeat_is_sent_again_at_once(self):
        for ending in (close, reset):
            script = [expect, numbered(1), expect, ending]
            with ScriptedServer(script, [expect, numbered(2)]) as server, SDK(
                "key", server_url=server.url
            ) as sdk, Stopwatch() as took:
                self.assertEqual([sdk.cache.cache_get(key="a").value, sdk.cache.cache_get(key="a").value], [1, 2])
                self.assertEqual(len(server.requests), 3)
            self.assertLess(took.seconds, 0.4)

    def test_what_is_not_is_an_error_that_says_it_may_have_been_processed(self):
        done = answer(b'{"success":true,"jobId":"1"}', status="201 Created")
        for ending in (close, reset):
            with ScriptedServer([expect, done, expect, ending], [expect, done]) as server, SDK(
                "key", server_url=server.url
            ) as sdk:
                sdk.queue.queue_enqueue(type="t", data={})
                with self.assertRaises((errors.ReadError, errors.RemoteProtocolError)) as caught:
                    sdk.queue.queue_enqueue(type="t", data={})
                self.assertIs(caught.exception.maybe_processed, True)
                self.assertIn("may have been processed", str(caught.exception))
                self.assertEqual((caught.exception.attempts, len(server.requests)), (1, 2))

    def test_a_fresh_connection_that_dies_is_an_error_as_well(self):
        for ending in (close, reset):
            with ScriptedServer([expect, ending]) as server:
                with self.assertRaises((errors.ReadError, errors.RemoteProtocolError)):
                    post(self.client, server.url)
                self.assertEqual(len(server.requests), 1)

    def test_a_request_never_sent_twice_by_the_client_itself(self):
        with ScriptedServer([expect, answer(b"1"), expect, close], [expect, answer(b"2")]) as server:
            post(self.client, server.url)
            with self.assertRaises((errors.ReadError, errors.RemoteProtocolError)):
                post(self.client, server.url)
            self.assertEqual(len(server.requests), 2)

    def test_only_a_kept_connection_without_an_answer_is_worth_another_try_at_once(self):
        for partial, reused in ((b"", True), (b"HTTP/1.1 200", False), (b"HTTP/1.1 103 Early Hints\r\n\r\n", False)):
            with ScriptedServer([expect, answer(b"1"), expect, partial, close]) as server, self.subTest(partial):
                client = HttpClient()
                self.addCleanup(client.close)
                post(client, server.url)
                with self.assertRaises(errors.RequestError) as caught:
                    post(client, server.url)
                self.assertIs(caught.exception.reused_connection, reused)

    def test_half_an_answer_is_no_reason_to_repeat(self):
        done = answer(b'{"success":true,"jobId":"1"}', status="201 Created")
        with ScriptedServer([expect, done, expect, b"HTTP/1.1 201 Cre", close], [expect, done]) as server:
            with SDK("key", server_url=server.url) as sdk:
                sdk.queue.queue_enqueue(type="t", data={})
                with self.assertRaises(errors.RequestError):
                    sdk.queue.queue_enqueue(type="t", data={})
                self.assertEqual(len(server.requests), 2)


class InterimTest(KeepAliveCase):
    def test_100_102_103_are_skipped(self):
        for interim in (
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 102 Processing\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 7\r\n\r\n",
            b"HTTP/1.1 199 Odd\r\n\r\n",
        ):
            with self.subTest(interim), ScriptedServer(
                [expect, interim * 8 + answer(b"1"), expect, interim + answer(b"2")]
            ) as server:
                client = HttpClient()
                self.addCleanup(client.close)
                self.assertEqual(post(client, server.url).content, b"1")
                self.assertEqual(post(client, server.url).content, b"2")
                self.assertEqual(server.connections, 1)

    def test_one_that_comes_byte_by_byte_is_skipped(self):
        with ScriptedServer(
            [expect, drip(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.001), answer(b"1")]
        ) as server:
            self.assertEqual(post(self.client, server.url).content, b"1")

    def test_more_than_eight_are_an_error(self):
        for count in (9, 5000):
            with ScriptedServer(
                [expect, b"HTTP/1.1 100 Continue\r\n\r\n" * count + answer(b"1"), until_gone]
            ) as server:
                with self.assertRaises(errors.RemoteProtocolError):
                    post(self.client, server.url)
                self.assertTrue(server.peers[0].left.wait(5))

    def test_101_was_not_asked_for(self):
        with ScriptedServer(
            [expect, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + answer(b"1"), until_gone]
        ) as server:
            with self.assertRaises(errors.RemoteProtocolError):
                post(self.client, server.url)

    def test_a_long_one_in_two_parts_hides_no_short_answer(self):
        first_part_is_read = threading.Event()
        take_in = aerostack_lite._Reader.take_in

        def noted(reader, data):
            take_in(reader, data)
            first_part_is_read.set()

        long_one = b"HTTP/1.1 103 Early Hints\r\nLink: %s\r\n\r\n" % (b"x" * 500)
        with ScriptedServer(
            [expect, long_one[:400], wait(first_part_is_read), long_one[400:] + answer(b"1")]
        ) as server:
            with mock.patch.object(aerostack_lite._Reader, "take_in", noted):
                self.assertEqual(post(self.client, server.url).json(), 1)

    def test_headers_of_an_interim_answer_are_not_the_answer_s(self):
        with ScriptedServer([expect, b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" + answer(b"1")]) as server:
            self.assertNotIn("x-early", post(self.client, server.url).headers)


class ClosedAfterTroubleTest(KeepAliveCase):
    def assert_left(self, server):
        server.wait_for_connections(1)
        self.assertTrue(server.peers[0].left.wait(5), "the connection is still open")
        self.assertEqual(self.pool(), (0, 0))

    def test_a_timeout(self):
        for partial in (b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"):
            with ScriptedServer([expect, partial, until_gone]) as server:
                with self.assertRaises(errors.ReadTimeout):
                    post(self.client, server.url, timeout=0.06)
                self.assert_left(server)

    def test_a_body_that_cannot_be_decoded(self):
        with ScriptedServer([expect, answer(b"not gzip at all", "Content-Encoding: gzip"), until_gone]) as server:
            with self.assertRaises(errors.DecodingError):
                post(self.client, server.url)
            self.assert_left(server)

    def test_broken_framing(self):
        with ScriptedServer(
            [expect, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", until_gone]
        ) as server:
            with self.assertRaises(errors.RemoteProtocolError):
                post(self.client, server.url)
            self.assert_left(server)

    def test_an_exception_in_the_caller_s_own_code(self):
        def blocks():
            yield b"begun"
            raise KeyError("the caller's own")

        with ScriptedServer([until_gone]) as server:
            with self.assertRaises((KeyError, errors.LocalProtocolError)):
                post(self.client, server.url, blocks())
            self.assert_left(server)

    def test_a_stream_read_to_its_end_is_kept(self):
        with ScriptedServer([expect, answer(b"x" * 100000), expect, answer(b"2")]) as server:
            response = self.client.send(
                self.client.build_request("POST", server.url, content=b"{}", timeout=5.0), stream=True
            )
            self.assertEqual(response.content, b"x" * 100000)
            self.assertEqual(post(self.client, server.url).content, b"2")
            self.assertEqual(server.connections, 1)

    @unittest.skipUnless(CAN_INTERRUPT, "no signals to threads here")
    def test_ctrl_c(self):
        for partial in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"):
            with Interruption(KeyboardInterrupt()) as interruption:
                script = [expect, partial, interruption.begin, until_gone]
                with ScriptedServer(script, [expect, answer(b"2", "Connection: close")]) as server:
                    with self.assertRaises(KeyboardInterrupt):
                        post(self.client, server.url)
                    self.assert_left(server)
                    self.assertEqual(post(self.client, server.url).content, b"2")


class PoolTest(KeepAliveCase):
    def test_64_threads_on_ten_connections_each_get_their_own_answers(self):
        wrong = []

        def work(number):
            try:
                for call in range(5):
                    mark = b"%d" % (number * 1000 + call)
                    got = post(self.client, server.url, mark, timeout=20.0).content
                    if got != mark:
                        wrong.append((mark, got))
            except BaseException as error:
                wrong.append(error)

        self.client = HttpClient(max_connections=10)
        self.addCleanup(self.client.close)
        with ScriptedServer(repeat(mirror)) as server:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong, [])
            self.assertEqual(len(server.requests), 320)
            active, idle = self.pool()
            self.assertEqual(active, 0)
            self.assertLessEqual(idle, 10)

    def test_max_connections_bounds_what_is_kept(self):
        client = HttpClient(max_connections=2)
        self.addCleanup(client.close)
        with ScriptedServer(repeat(mirror)) as server:
            threads = [threading.Thread(target=post, args=(client, server.url, b"1", 20.0)) for _ in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertLessEqual(self.pool(client)[1], 2)

    def test_one_that_may_be_kept_is_kept_and_the_oldest_gives_way(self):
        with ScriptedServer(repeat(mirror)) as one, ScriptedServer(repeat(mirror)) as two:
            with HttpClient(max_connections=1) as client:
                for server in (one, one, two, two, one):
                    post(client, server.url)
                self.assertEqual((one.connections, two.connections), (2, 1))

    def test_the_one_used_last_is_used_next_so_that_the_others_grow_old(self):
        both_came = threading.Event()
        first = [expect, wait(both_came), answer(b"1"), *[mirror] * 9]
        second = [expect, lambda peer: both_came.set(), answer(b"2"), *[mirror] * 9]
        with ScriptedServer(first, second) as server:
            thread = threading.Thread(target=post, args=(self.client, server.url))
            thread.start()
            server.wait_for_requests(1)
            post(self.client, server.url)
            thread.join()
            for _ in range(4):
                post(self.client, server.url)
            self.assertEqual(sorted(len(peer.requests) for peer in server.peers), [1, 5])

    def test_settings_that_cannot_be_are_refused_by_name(self):
        for name in ("max_connections", "max_response_bytes"):
            for bad in (0, -1, True, "5", 1.5, None):
                with self.subTest(name, bad=bad), self.assertRaises(ValueError) as caught:
                    HttpClient(**{name: bad})
                self.assertIn(name, str(caught.exception))

    def test_use_after_close_is_a_clear_error_and_closing_twice_is_fine(self):
        with ScriptedServer(repeat(mirror)) as server:
            post(self.client, server.url)
            self.client.close()
            self.client.close()
            with self.assertRaises(errors.AerostackError) as caught:
                post(self.client, server.url)
            self.assertIn("closed", str(caught.exception))
            self.assertTrue(server.peers[0].left.wait(5))
            self.assertEqual(server.connections, 1)

    def test_use_of_a_closed_sdk_is_a_clear_error(self):
        with ScriptedServer(repeat(expect, numbered(1))) as server:
            sdk = SDK("key", server_url=server.url)
            sdk.cache.cache_get(key="a")
            sdk.close()
            sdk.close()
            with self.assertRaises(errors.AerostackError) as caught:
                sdk.cache.cache_get(key="a")
            self.assertIn("closed", str(caught.exception))

    def test_no_cookie_is_ever_kept(self):
        biscuit = answer(b"1", "Set-Cookie: a=b", "Set-Cookie: c=d; Path=/")
        with ScriptedServer(repeat(expect, biscuit)) as server:
            for _ in range(3):
                post(self.client, server.url)
            self.assertEqual([header(request, "Cookie") for request in server.requests], [[], [], []])

    def test_a_call_in_flight_when_the_client_closes_has_its_answer_and_leaves_no_connection(self):
        got, go_on = [], threading.Event()
        with ScriptedServer([expect, wait(go_on), answer(b"1"), until_gone]) as server:
            caller = threading.Thread(target=lambda: got.append(post(self.client, server.url, timeout=20.0).content))
            caller.start()
            server.wait_for_requests(1)
            self.client.close()
            go_on.set()
            caller.join(10)
            self.assertEqual((got, self.pool()), ([b"1"], (0, 0)))
            self.assertTrue(server.peers[0].left.wait(5))


@side_by_side(2, one_setup=True)
@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class ForkTest(KeepAliveCase):
    def run_program(self, server, program, *flags):
        with Stopwatch() as took:
            run = subprocess.run(
                [sys.executable] + list(flags) + ["-c", program, server.url],
                cwd=ROOT,
                timeout=60,
                capture_output=True,
            )
        self.assertEqual((run.returncode, run.stderr), (0, b""), run.stderr.decode() + repr(run.stdout))
        return took.seconds

    def test_children_share_no_connection_with_their_parent(self):
        program = (
            "import os, sys, time\n"
            "from aerostack_lite import HttpClient\n"
            "client = HttpClient()\n"
            "def ask(mark):\n"
            "    got = client.send(client.build_request('POST', sys.argv[1], content=mark, timeout=5.0)).content\n"
            "    assert got == mark, (mark, got)\n"
            "ask(b'0')\n"
            "children = []\n"
            "for child in range(4):\n"
            "    pid = os.fork()\n"
            "    if not pid:\n"
            "        start = time.monotonic()\n"
            "        for call in range(20): ask(b'%d' % (100 * child + call))\n"
            "        os._exit(time.monotonic() - start > 1)\n"
            "    children.append(pid)\n"
            "for call in range(20): ask(b'%d' % (1000 + call))\n"
            "codes = [os.waitpid(pid, 0)[1] for pid in children]\n"
            "assert codes == [0] * 4, codes\n"
            "ask(b'1')\n"
            "client.close()\n"
        )
        with ScriptedServer(repeat(mirror)) as server:
            self.run_program(server, program, "-W", "error", "-X", "dev")
            self.assertEqual(len(server.requests), 1 + 80 + 20 + 1)
            self.assertEqual(server.connections, 5)

    def test_a_child_born_while_another_thread_holds_the_lock_can_call_and_close(self):
        program = (
            "import os, signal, sys, threading\n"
            "locks, kinds = [], (threading.Lock, threading.RLock)\n"
            "def noted(make):\n"
            "    def lock():\n"
            "        made = make()\n"
            "        if sys._getframe(1).f_globals.get('__name__') == 'aerostack_lite': locks.append(made)\n"
            "        return made\n"
            "    return lock\n"
            "threading.Lock, threading.RLock = map(noted, kinds)\n"
            "import asyncio\n"
            "from aerostack_lite import HttpClient, SDK\n"
            "def ask(client):\n"
            "    return client.send(client.build_request('POST', sys.argv[1], content=b'1', timeout=5.0)).content\n"
            "client, other, sdk = HttpClient(), HttpClient(), SDK('key', server_url=sys.argv[1])\n"
            "ask(client); ask(other); sdk.cache.cache_get(key='a')\n"
            "asyncio.run(sdk.cache.cache_get_async(key='a'))\n"
            "held, forked = threading.Event(), threading.Event()\n"
            "def hold():\n"  # what any thread of the parent may hold at that moment
            "    for lock in locks: lock.acquire()\n"
            "    held.set(); forked.wait()\n"
            "    for lock in locks: lock.release()\n"
            "holder = threading.Thread(target=hold); holder.start(); held.wait()\n"
            "pid = os.fork()\n"
            "if not pid:\n"
            "    signal.alarm(5)\n"
            "    repr(client), ask(client), client.close(), other.close()\n"
            "    sdk.cache.cache_get(key='a'), asyncio.run(sdk.cache.cache_get_async(key='a'))\n"
            "    sdk.close(), asyncio.run(sdk.aclose())\n"
            "    os._exit(0)\n"
            "code = os.waitpid(pid, 0)[1]\n"
            "forked.set(); holder.join()\n"
            "ask(client), sdk.cache.cache_get(key='a'), asyncio.run(sdk.cache.cache_get_async(key='a'))\n"
            "client.close(); other.close(); sdk.close(); asyncio.run(sdk.aclose())\n"
            "if not locks: sys.exit('no lock was seen')\n"
            "sys.exit('the child hangs or fails: %d' % code if code else 0)\n"
        )
        with ScriptedServer(repeat(expect, numbered(1))) as server:
            self.run_program(server, program, "-W", "ignore", "-X", "dev")

    def test_a_child_born_within_an_upload_leaves_its_parent_s_connection_alone(self):
        program = (
            "import os, sys\n"
            "from aerostack_lite import SDK, errors\n"
            "children = []\n"
            "def progress(sent, total):\n"
            "    if sent and not children: children.append(os.fork())\n"
            "sdk = SDK('key', server_url=sys.argv[1], timeout_ms=5000, retry_config=None)\n"
            "outcome = None\n"
            "try: sdk.storage.storage_upload(key='k', file=b'x' * 600000, progress=progress)\n"
            "except errors.LocalProtocolError as error: outcome = error\n"
            "if children[0] == 0: os._exit(0 if 'forked' in str(outcome) else 1)\n"
            "assert os.waitpid(children[0], 0)[1] == 0 and outcome is None, outcome\n"
            "sdk.close()\n"
        )
        with ScriptedServer([expect, answer(b'{"url":"u"}', "Content-Type: application/json")]) as server:
            self.run_program(server, program, "-W", "ignore")
            self.assertEqual(server.connections, 1)

    def test_threads_of_a_child_that_call_at_once_each_get_their_own_answer(self):
        program = (
            "import asyncio, os, random, signal, sys, threading, time\n"
            "from aerostack_lite import SDK, AsyncHttpClient, HttpClient\n"
            "sdk = SDK('key', server_url=sys.argv[1], timeout_ms=5000, retry_config=None)\n"
            "client, async_client, failures = HttpClient(), AsyncHttpClient(max_workers=2), []\n"
            "def bare(key):\n"
            '    body = b\'{"key":"%s"}\' % key.encode()\n'
            "    request = client.build_request('POST', sys.argv[1], content=body, timeout=5.0)\n"
            "    return lambda: client.send(request).json()['value']\n"
            "def awaited(key):\n"
            '    body = b\'{"key":"%s"}\' % key.encode()\n'
            "    request = async_client.build_request('POST', sys.argv[1], content=body, timeout=5.0)\n"
            "    return lambda: asyncio.run(async_client.send(request)).json()['value']\n"
            "def plain(key): return lambda: sdk.cache.cache_get(key=key).value\n"
            "def twin(key): return lambda: asyncio.run(sdk.cache.cache_get_async(key=key)).value\n"
            "def give_way(frame, event, argument):\n"  # the other threads go on before many a line of the module
            "    if frame.f_globals.get('__name__') != 'aerostack_lite': return None\n"
            "    if random.random() < 0.3: time.sleep(random.random() / 2000)\n"
            "    return give_way\n"
            "def at_once(*kinds):\n"
            "    barrier = threading.Barrier(4 * len(kinds))\n"
            "    def work(call, key):\n"
            "        barrier.wait()\n"
            "        sys.settrace(give_way)\n"
            "        try: assert call() == key, key\n"
            "        except BaseException as error: failures.append(error)\n"
            "        finally: sys.settrace(None)\n"
            "    name = '%d-%s%d'\n"
            "    keys = {name % (os.getpid(), kind.__name__, turn): kind for kind in kinds for turn in range(4)}\n"
            "    threads = [threading.Thread(target=work, args=(keys[key](key), key)) for key in keys]\n"
            "    for thread in threads: thread.start()\n"
            "    for thread in threads: thread.join()\n"
            "    failures.extend(repr(each) for each in (client, async_client) if ' 0 active, ' not in repr(each))\n"
            "def in_a_child(function, *arguments):\n"
            "    pid = os.fork()\n"
            "    if not pid:\n"
            "        signal.alarm(10); random.seed(); failures.clear()\n"
            "        try: function(*arguments)\n"
            "        except BaseException as error: failures.append(error)\n"
            "        if failures: os.write(2, ('%r\\n' % failures).encode())\n"
            "        os._exit(bool(failures))\n"
            "    code = os.waitpid(pid, 0)[1]\n"
            "    if code: failures.append(code)\n"
            "def with_a_grandchild():\n"
            "    in_a_child(at_once, bare, awaited)\n"
            "    at_once(bare, awaited)\n"
            "at_once(bare, awaited, plain, twin)\n"
            "for _ in range(10): in_a_child(at_once, awaited)\n"
            "for _ in range(5): in_a_child(at_once, bare)\n"
            "for _ in range(3): in_a_child(at_once, plain, twin)\n"
            "in_a_child(with_a_grandchild)\n"
            "at_once(bare, awaited, plain, twin)\n"
            "sdk.close(); client.close(); asyncio.run(sdk.aclose()); asyncio.run(async_client.aclose())\n"
            "sys.exit(bool(failures))\n"
        )

        def echo(peer):
            key = peer.read_request().rpartition(b'"key":"')[2].partition(b'"')[0]
            peer.send(answer(b'{"exists":true,"value":"%s"}' % key))

        with ScriptedServer(repeat(echo)) as server:
            self.run_program(server, program, "-W", "ignore")
            for peer in server.peers:
                processes = {request.rpartition(b'"key":"')[2].partition(b"-")[0] for request in peer.requests}
                self.assertLessEqual(len(processes), 1, "two processes used one connection")
            self.assertEqual(len(server.requests), 4 * (4 + 10 + 5 + 3 * 2 + 4 + 4))

    def test_a_child_born_while_a_thread_calls_is_free_to_call(self):
        # Forking with threads is warned about since 3.12; what is tested here is that nothing hangs on a lock.
        program = (
            "import os, sys, threading, asyncio\n"
            "from aerostack_lite import SDK\n"
            "sdk = SDK('k', server_url=sys.argv[1], timeout_ms=5000)\n"
            "busy = threading.Event()\n"
            "def work():\n"
            "    for _ in range(100):\n"
            "        sdk.cache.cache_get(key='a'); busy.set()\n"
            "threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]\n"
            "for thread in threads: thread.start()\n"
            "busy.wait()\n"
            "for _ in range(5):\n"
            "    pid = os.fork()\n"
            "    if not pid:\n"
            "        value = sdk.cache.cache_get(key='a').value\n"
            "        value += asyncio.run(sdk.cache.cache_get_async(key='a')).value\n"
            "        os._exit(value != 2)\n"
            "    code = os.waitpid(pid, 0)[1]\n"
            "    assert code == 0, code\n"
            "for thread in threads: thread.join()\n"
            "sdk.close()\n"
        )
        with ScriptedServer(repeat(expect, numbered(1))) as server:
            self.run_program(server, program, "-W", "ignore")
