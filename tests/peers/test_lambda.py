"""The Lambda example under AWS's own runtime interface client (`pip install awslambdaric`), from a zip of two files.

The client asks a runtime API on loopback for invocations, as it asks Lambda's, and posts there what the handler
returned.
"""

import http.server
import importlib.util
import json
import queue
import subprocess
import sys
import threading
import time
import unittest
import zipfile

from tests.newcomer import PATIENCE_SECONDS, Newcomer
from tests.scripted_server import ScriptedServer, answer, expect, hang, header, repeat

HAS_AWSLAMBDARIC = importlib.util.find_spec("awslambdaric") is not None
API = "/2018-06-01/runtime/"


class RuntimeApi(http.server.ThreadingHTTPServer):
    """Hands out invocations one by one, and keeps what comes back for them."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), RuntimeApiHandler)
        self.invocations, self.results = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def handle_error(self, request, client_address):
        """A container that is killed resets its connection."""

    def close(self):
        self.invocations.put(None)
        self.shutdown()
        self.server_close()
        self.thread.join()


class RuntimeApiHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        invocation = self.server.invocations.get()
        if invocation is None:
            self.close_connection = True
            return
        event, seconds = invocation
        self.reply(
            200,
            json.dumps(event).encode(),
            {
                "Lambda-Runtime-Aws-Request-Id": "invocation-1",
                "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:1:function:example",
            },
        )

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.results.put((self.path.rpartition("/")[2], json.loads(body), time.time()))
        self.reply(202, b"{}", {})

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in dict(
            headers, **{"Content-Type": "application/json", "Content-Length": str(len(body))}
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@unittest.skipUnless(HAS_AWSLAMBDARIC, "needs awslambdaric")
class LambdaTest(unittest.TestCase):
    def start(self, server):
        """A container with the function in it. What invokes it: `invoke(event, seconds=...)`."""
        newcomer = Newcomer()
        newcomer.__enter__()
        self.addCleanup(newcomer.__exit__)
        done = newcomer.sh(
            "cp examples/lambda_handler.py . && python3 -m zipfile -c function.zip lambda_handler.py aerostack_lite.py"
        )
        self.assertEqual(done[0], 0, done)
        with zipfile.ZipFile(newcomer.path("function.zip")) as function:
            self.assertEqual(sorted(function.namelist()), ["aerostack_lite.py", "lambda_handler.py"])
            function.extractall(newcomer.path("task"))
        api = RuntimeApi()
        self.addCleanup(api.close)
        environment = dict(
            newcomer.environment,
            AWS_LAMBDA_RUNTIME_API="127.0.0.1:%d" % api.server_port,
            AEROSTACK_API_KEY="k\n",
            AEROSTACK_SERVER_URL=server.url,
            AWS_LAMBDA_FUNCTION_NAME="example",
            AWS_LAMBDA_FUNCTION_VERSION="1",
            AWS_LAMBDA_FUNCTION_MEMORY_SIZE="128",
            AWS_LAMBDA_LOG_GROUP_NAME="g",
            AWS_LAMBDA_LOG_STREAM_NAME="s",
            LAMBDA_TASK_ROOT=newcomer.path("task"),
            TZ=":UTC",
        )
        self.log = newcomer.path("log")
        with open(self.log, "wb") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", "lambda_handler.handler"],
                cwd=newcomer.path("task"),
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)

        def invoke(event, seconds=10, ends_as="response"):
            started = time.time()
            api.invocations.put((event, seconds))
            kind, result, ended = api.results.get(timeout=PATIENCE_SECONDS)
            self.assertEqual(kind, ends_as, result)
            return result, ended - started

        return invoke

    def test_invocations_share_a_connection(self):
        missing, rows, stored = (
            answer(b'{"exists":false}'),
            answer(b'{"results":[{"n":1}],"count":1}'),
            answer(b'{"success":true}'),
        )
        found = answer(b'{"exists":true,"value":[{"n":1}]}')
        with ScriptedServer([expect, missing, expect, rows, expect, stored] + [expect, found] * 5) as server:
            invoke, event = self.start(server), {"key": "k", "sql": "SELECT 1 AS n"}
            self.assertEqual(invoke(event)[0], {"rows": [{"n": 1}], "cached": False})
            for _ in range(5):
                self.assertEqual(invoke(event)[0], {"rows": [{"n": 1}], "cached": True})
            self.assertEqual((server.connections, len(server.requests)), (1, 8))
            self.assertEqual({tuple(header(request, "X-Aerostack-Key")) for request in server.requests}, {("k",)})

    def test_it_answers_before_lambda_would_end_it(self):
        with ScriptedServer([expect, answer(b'{"exists":true,"value":1}')], [expect, hang]) as server:
            invoke = self.start(server)
            self.assertEqual(
                invoke({"key": "k", "sql": ""})[0], {"rows": 1, "cached": True}
            )  # the container is warm now
            result, seconds = invoke({"key": "k", "sql": ""}, seconds=0.8, ends_as="error")
            self.assertEqual(result["errorType"], "ReadTimeout")
            self.assertIn("timed out", result["errorMessage"])
            self.assertLess(seconds, 0.8)

    def test_what_the_api_refuses_is_logged_and_fails_the_invocation(self):
        with ScriptedServer(
            repeat(expect, answer(b'{"code":"AUTH_INVALID_KEY","message":"who are you"}', status="401 No"))
        ) as server:
            result, _ = self.start(server)({"key": "k", "sql": ""}, ends_as="error")
            request_id = header(server.requests[0], "X-Request-ID")[0]
        self.assertEqual(result["errorType"], "SDKError")
        self.assertIn("who are you", result["errorMessage"])
        with open(self.log, encoding="utf-8") as log:
            self.assertRegex(log.read(), r"who are you.*\(request %s\)" % request_id)


if __name__ == "__main__":
    unittest.main()
