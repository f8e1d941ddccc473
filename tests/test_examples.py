"""Every example, as a newcomer runs it: from an empty folder, with nothing installed."""

import importlib.util
import os
import re
import signal
import subprocess
import unittest

from tests.newcomer import COMPANY_CA, EXAMPLES, PATIENCE_SECONDS, NewcomerTestCase
from tests.scripted_server import ScriptedServer, answer, close, expect, header, repeat
from tests.side_by_side import side_by_side

FILES = sorted(name for name in os.listdir(EXAMPLES) if name.endswith((".py", ".sh")))
PROGRAMS = {"local_platform.py", "quickstart.py"}  # all others are for reading first
NOTHING_SET = {"AEROSTACK_API_KEY": "", "AEROSTACK_SERVER_URL": ""}
RUN_WITH_NOTHING_SET = {"custom_client.py", "many_at_once.py", "upload_a_file.py"}  # by tests of their own
MAX_LINES = 60
HAS_OPENTELEMETRY = importlib.util.find_spec("opentelemetry") is not None


@side_by_side(3)
class ExamplesTest(NewcomerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.newcomer.write("any key\n", "key")

    def run_python(self, *command, **settings):
        return self.newcomer.run("python3", *command, **settings)

    def test_each_is_run_here(self):
        for name in FILES:
            with self.subTest(name):
                tested = "test_" + name.partition(".")[0] + "_"
                self.assertTrue(
                    [test for test in dir(self) if test.startswith(tested)], "no %s... in this file" % tested
                )

    def test_each_is_short_and_says_what_it_shows_and_how_to_run_it(self):
        for name in FILES:
            with self.subTest(name), open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
                lines = [line for line in file.read().splitlines() if not line.startswith("#!")]
                self.assertRegex(lines[0], r'^(#|""")\s?[A-Z].*[.:]$')
                command = ("python3 examples/" if name.endswith(".py") else "sh examples/") + name
                self.assertIn(command, "\n".join(lines[:6]))
                if name not in PROGRAMS:
                    self.assertLess(len(lines), MAX_LINES)

    def test_each_program_runs_without_a_key_as_a_newcomer_types_it(self):
        for name in FILES:
            if name.endswith(".py") and name not in PROGRAMS | RUN_WITH_NOTHING_SET | {"tracing.py"}:
                with self.subTest(name):
                    status, output, complaints = self.run_python("examples/" + name, environment=NOTHING_SET)
                    self.assertEqual((status, complaints), (0, ""), output)
                    self.assertNotEqual(output, "")

    def test_quickstart_walks_through_the_nine_operations_twice(self):
        status, output, complaints = self.newcomer.run(
            "python3",
            self.newcomer.path("examples", "quickstart.py"),
            cwd="/",
            environment=NOTHING_SET,
        )
        self.assertEqual((status, complaints), (0, ""), output)
        for operation in (
            "ai_chat",
            "auth_signin",
            "auth_signup",
            "cache_get",
            "cache_set",
            "queue_enqueue",
            "services_invoke",
            "storage_upload",
        ):
            self.assertEqual(len(re.findall(r"(?m)^  %s +\S.*\n +[0-9.]+ ms  \w+=" % operation, output)), 2, operation)
        self.assertIn('DB_QUERY_FAILED: near "SELEC"', output)
        self.assertNotIn("correct horse", output)
        self.assertTrue(output.endswith("All went well.\n"))

    def test_quickstart_talks_to_a_real_server(self):
        status, output, complaints = self.newcomer.run(
            "python3", "examples/quickstart.py", "--server-url", self.platform.url
        )
        self.assertEqual((status, complaints), (0, ""), output)
        self.assertIn(self.platform.url, output.splitlines()[0])

    def test_quickstart_fails_when_a_call_fails(self):
        with ScriptedServer(
            repeat(expect, answer(b'{"code":"INTERNAL_ERROR","message":"no"}', status="400 No"))
        ) as server:
            status, output, _ = self.newcomer.run("python3", "examples/quickstart.py", "--server-url", server.url)
        self.assertEqual(status, 1)
        self.assertIn("FAILED: ErrorResponse: no", output)
        self.assertTrue(output.endswith("18 went wrong.\n"), output)

    def test_quickstart_needs_a_key_for_a_real_server(self):
        status, _, complaints = self.newcomer.run(
            "python3",
            "examples/quickstart.py",
            "--server-url",
            self.platform.url,
            environment={"AEROSTACK_API_KEY": ""},
        )
        self.assertEqual(status, 2)
        self.assertIn("AEROSTACK_API_KEY", complaints)

    def test_local_platform_serves_until_it_is_stopped(self):
        program = subprocess.Popen(
            [self.newcomer.path("bin", "python3"), "examples/local_platform.py", "--port", "0"],
            cwd=self.newcomer.folder,
            env=self.newcomer.environment,
            stdout=subprocess.PIPE,
        )
        with program:
            try:
                url = re.search(r'server_url="(.*?)"', program.stdout.readline().decode()).group(1)
                found = self.newcomer.run("python3", "aerostack_lite.py", "cache_get", "key=a", "--server-url", url)
                self.assertEqual(found, (0, '{"exists": false, "value": null}\n', ""))
                program.send_signal(signal.SIGINT)
                self.assertEqual(program.wait(PATIENCE_SECONDS), 0)
            finally:
                program.kill()

    def test_one_liners_all_work(self):
        status, output, complaints = self.newcomer.run("sh", "examples/one_liners.sh", cwd=self.newcomer.folder)
        self.assertEqual((status, complaints), (0, ""), output)
        self.assertIn('{"hello": "world"}\n', output)
        self.assertIn("name  born\n----  ----\nAda   1815\n", output)
        self.assertIn('{"count": 1, "results": [{"answer": 42}]}\n', output)
        self.assertIn("/storage/files/now.txt\n", output)

    def test_handle_errors_meets_each_kind(self):
        status, output, complaints = self.run_python("examples/handle_errors.py")
        self.assertEqual((status, complaints), (0, ""))
        for expected in (
            r"all is well: +1 rows",
            r"misspelled field: +correct the call: ",
            r"did you mean 'params'",
            r"wrong key: +the API refuses: .*is the key right",
            r"bad SQL: +the API refuses: near",
            r"wrong path: +the server returned an error, status 404",
            r"too little time: +too slow: ",
            r"nobody there: +no response after 1 attempts; the request was not carried out",
        ):
            self.assertRegex(output, expected)

    def test_custom_client_needs_no_httpx(self):
        status, output, complaints = self.run_python("-S", "examples/custom_client.py", environment=NOTHING_SET)
        self.assertEqual((status, complaints), (0, ""))
        self.assertEqual(output.splitlines()[0], 'fake:  [{\'n\': 3}] for {"sql":"SELECT n FROM t"}')
        self.assertEqual(output.splitlines()[1], "ours:  False <HttpClient: 0 active, 1 idle>")

    def test_corporate_network_goes_through_the_proxy_and_trusts_the_company(self):
        self.newcomer.write(COMPANY_CA, "company-ca.pem")
        with ScriptedServer(repeat(expect, answer(b'{"results":[{"one":1}]}'))) as proxy:
            found = self.run_python(
                "examples/corporate_network.py",
                "--ca",
                "company-ca.pem",
                "--proxy",
                "http://ada:sekret%21@" + proxy.netloc,
                environment={"AEROSTACK_SERVER_URL": "http://aerostack.test/v1"},
            )
            self.assertEqual(found, (0, "[{'one': 1}]\n", ""))
            self.assertIn(b"POST http://aerostack.test/v1/db/query HTTP/1.1\r\n", proxy.requests[0])
            self.assertEqual(header(proxy.requests[0], "Proxy-Authorization"), ["Basic YWRhOnNla3JldCE="])

    def test_corporate_network_says_that_the_proxy_refuses_without_its_password(self):
        with ScriptedServer([expect, answer(b"", status="407 Who are you")]) as proxy:
            status, _, complaints = self.run_python(
                "examples/corporate_network.py",
                "--proxy",
                "http://ada:sekret@" + proxy.netloc,
                environment={"AEROSTACK_SERVER_URL": "https://aerostack.test/v1"},
            )
            self.assertEqual((status, proxy.connections), (1, 1))
        self.assertRegex(complaints, "^The proxy refused: .*407.*http://user:password@host:3128")
        self.assertNotIn("sekret", complaints)
        self.assertNotIn("Traceback", complaints)

    def test_cron_job_stores_its_report(self):
        status, output, complaints = self.newcomer.run(
            "sh", "examples/cron_job.sh", environment={"KEY_FILE": "key", "AEROSTACK_API_KEY": ""}
        )
        self.assertEqual((status, complaints), (0, ""))
        self.assertRegex(output, r"/storage/files/reports/\d{4}-\d\d-\d\d\.json\n$")

    def test_cron_job_says_what_went_wrong(self):
        with ScriptedServer(
            repeat(expect, answer(b'{"code":"AUTH_INVALID_KEY","message":"no"}', status="401 No"))
        ) as server:
            for expected, words, environment in (
                (1, "The API returned an error", {"KEY_FILE": "key", "AEROSTACK_SERVER_URL": server.url}),
                (2, "set up wrong", {"KEY_FILE": "nowhere"}),
            ):
                with self.subTest(words, **environment):
                    status, output, complaints = self.newcomer.run(
                        "sh", "examples/cron_job.sh", environment=environment
                    )
                    self.assertEqual((status, output), (expected, ""))
                    self.assertIn(words, complaints)

    def test_cron_job_says_that_nobody_responded_and_the_next_night_will_do(self):
        with ScriptedServer([expect, close]) as server:
            status, output, complaints = self.newcomer.run(
                "sh", "examples/cron_job.sh", environment={"KEY_FILE": "key", "AEROSTACK_SERVER_URL": server.url}
            )
        self.assertEqual((status, output), (0, ""))
        self.assertIn("No response", complaints)

    def test_cron_job_says_that_the_response_could_not_be_written(self):
        status, output, complaints = self.newcomer.sh(
            "ulimit -f 0; exec sh examples/cron_job.sh", environment={"KEY_FILE": "key"}
        )
        self.assertEqual((status, output), (4, ""), complaints)
        self.assertIn("is the disk full?", complaints)

    LAMBDA = """if True:
        import sys
        sys.path[:0] = ["examples", "."]
        from lambda_handler import handler, in_time, sdk
        class Context:
            def __init__(self, left_ms): self.get_remaining_time_in_millis = lambda: left_ms
        """

    def test_lambda_handler_keeps_its_client_and_heeds_the_time_that_is_left(self):
        program = """
        event = {"key": "lambda", "sql": "SELECT 1 AS one"}
        print(handler(event, Context(3000)), handler(event, Context(3000)), sdk.sdk_configuration.client)
        print(in_time(Context(3000))["timeout_ms"], in_time(Context(400))["timeout_ms"])
        """
        status, output, complaints = self.run_python("-c", self.LAMBDA + program)
        self.assertEqual((status, complaints), (0, ""))
        self.assertEqual(
            output,
            "{'rows': [{'one': 1}], 'cached': False} {'rows': [{'one': 1}], 'cached': True} "
            "<HttpClient: 0 active, 1 idle>\n2500 1\n",
        )

    def test_lambda_handler_logs_an_error_and_raises_it(self):
        with ScriptedServer([expect, answer(b'{"code":"AUTH_INVALID_KEY","message":"no"}', status="401 No")]) as server:
            status, output, complaints = self.run_python(
                "-c",
                self.LAMBDA + "handler({'key': 'k', 'sql': ''}, Context(3000))",
                environment={"AEROSTACK_SERVER_URL": server.url},
            )
            request_id = header(server.requests[0], "X-Request-ID")[0]
        self.assertEqual((status, output), (1, ""))
        self.assertRegex(complaints, r"^.*AUTH_INVALID_KEY.* \(request %s\)\nTraceback " % request_id)
        self.assertRegex(complaints, r"\n\S*SDKError: .*AUTH_INVALID_KEY.*\n$")

    def test_lambda_handler_asks_the_secret_store_for_its_key_once(self):
        self.newcomer.write(
            """if True:
            class client:
                def __init__(self, service): print(service)
                def get_secret_value(self, SecretId):
                    print(SecretId)
                    return {"SecretString": "a-key-from-the-store"}
            """,
            "boto3.py",
        )
        self.addCleanup(os.unlink, self.newcomer.path("boto3.py"))
        with ScriptedServer(repeat(expect, answer(b'{"exists":true,"value":1}'))) as server:
            status, output, complaints = self.run_python(
                "-c",
                self.LAMBDA + "for _ in range(3): print(handler({'key': 'k', 'sql': ''}, Context(3000)))",
                environment={"AEROSTACK_SERVER_URL": server.url, "AEROSTACK_SECRET_ID": "prod/aerostack"},
            )
            keys = {tuple(header(request, "X-Aerostack-Key")) for request in server.requests}
        self.assertEqual((status, complaints), (0, ""))
        self.assertEqual(output, "secretsmanager\nprod/aerostack\n" + 3 * "{'rows': 1, 'cached': True}\n")
        self.assertEqual(keys, {("a-key-from-the-store",)})

    def test_many_at_once_keeps_the_order(self):
        status, output, complaints = self.run_python("examples/many_at_once.py", environment=NOTHING_SET)
        self.assertEqual((status, complaints), (0, ""))
        self.assertRegex(output, r"1000 calls in .* 0 failed; .*\b998001\b")

    def test_upload_a_file_reports_its_progress(self):
        self.newcomer.write(b"x" * 1_000_000, "movie.mp4")
        status, output, complaints = self.run_python("examples/upload_a_file.py", "movie.mp4", environment=NOTHING_SET)
        self.assertEqual((status, complaints), (0, ""))
        self.assertRegex(output, r"100 %.*\n")
        self.assertRegex(output, r"Stored at http://\S+/movie\.mp4\n$")

    def test_tracing_says_what_to_install(self):
        status, output, complaints = self.run_python("-S", "examples/tracing.py")
        self.assertEqual((status, output), (1, ""))
        self.assertEqual(complaints, "pip install opentelemetry-sdk opentelemetry-instrumentation-urllib\n")

    @unittest.skipUnless(HAS_OPENTELEMETRY, "needs OpenTelemetry")
    def test_tracing_shows_a_span_for_each_call(self):
        with ScriptedServer(repeat(expect, answer(b'{"exists":true,"value":"hello"}'))) as server:
            environment = {"AEROSTACK_SERVER_URL": server.url}
            status, output, complaints = self.run_python("examples/tracing.py", environment=environment)
            parents = [header(request, "traceparent") for request in server.requests]
        self.assertEqual((status, complaints), (0, ""))
        spans = [line for line in output.splitlines() if re.match("POST .*200", line)]
        self.assertEqual(len(spans), 2, output)
        self.assertIn("/cache/set", spans[0])
        self.assertIn("/cache/get", spans[1])
        self.assertRegex(output, r"(?m)^hello$")
        self.assertEqual([len(parent) for parent in parents], [1, 1])


if __name__ == "__main__":
    unittest.main()
