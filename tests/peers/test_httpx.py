"""A real httpx.Client in our hands: whose errors are whose.

pip install httpx
python3 -m unittest tests.peers.test_httpx
"""

import pickle
import unittest

from aerostack_lite import SDK, BackoffStrategy, RetryConfig, errors

try:
    import httpx
except ImportError:
    httpx = None

QUICK = RetryConfig("backoff", BackoffStrategy(1, 1, 1, 20), True)


@unittest.skipIf(httpx is None, "httpx is not installed")
class Httpx(unittest.TestCase):
    def setUp(self):
        self.seen = []

    def client(self, **options):
        client = httpx.Client(transport=httpx.MockTransport(self.respond), **options)
        self.addCleanup(client.close)
        return client

    def respond(self, request):
        self.seen.append(request.url.host)
        if request.url.host == "down.test":
            raise httpx.ConnectError("refused")
        return httpx.Response(500 if request.url.host == "broken.test" else 200, json={"count": 1})

    def insert(self, client, host, **options):
        return SDK("sesame", server_url="http://" + host, client=client, **options).database.db_query(sql="INSERT")

    def test_its_errors_are_tried_again(self):
        with self.assertRaises(httpx.ConnectError):
            self.insert(self.client(), "down.test", retry_config=QUICK)
        self.assertGreater(len(self.seen), 1)

    def test_those_of_a_hook_s_own_requests_are_not(self):
        auditor = self.client()
        client = self.client(event_hooks={"response": [lambda response: auditor.post("http://down.test/")]})
        for options in ({}, {"retry_config": QUICK}):
            del self.seen[:]
            with self.assertRaises(httpx.ConnectError):
                self.insert(client, "api.test", **options)
            self.assertEqual(self.seen, ["api.test", "down.test"])

    def test_those_of_a_hook_s_own_calls_by_the_sdk_are_not_either(self):
        audit = SDK("sesame", server_url="http://127.0.0.1:1", retry_config=None)
        hook = lambda response: audit.queue.queue_enqueue(type="audit", data={})  # noqa: E731
        with self.assertRaises(errors.ConnectError) as caught:
            self.insert(self.client(event_hooks={"response": [hook]}), "api.test")
        self.assertEqual(
            (self.seen, caught.exception.attempts, caught.exception.maybe_processed), (["api.test"], 1, True)
        )

    def test_a_copy_of_its_request_is_still_the_call_s(self):
        class Signing(httpx.Client):
            def send(self, request, **options):
                return super().send(
                    httpx.Request(request.method, request.url, headers=request.headers, content=request.content),
                    **options,
                )

        with Signing(transport=httpx.MockTransport(self.respond)) as client, self.assertRaises(httpx.ConnectError):
            self.insert(client, "down.test", retry_config=QUICK)
        self.assertGreater(len(self.seen), 1)

    def test_its_responses_leave_their_request_with_its_key_out_of_a_pickle(self):
        with self.assertRaises(errors.SDKError) as caught:
            self.insert(self.client(), "broken.test")
        self.assertIn("sesame", caught.exception.raw_response.request.headers.values())
        self.assertNotIn(b"sesame", pickle.dumps(caught.exception))
        self.assertEqual(pickle.loads(pickle.dumps(caught.exception)).raw_response.json(), {"count": 1})


if __name__ == "__main__":
    unittest.main()
