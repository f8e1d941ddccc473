"""What is tried again, how often, and what comes of it."""

import email.utils
import math
import time
import unittest

from tests.parity.beside import FOUND, OPERATIONS, Case, Own, Parity, good, lookup
from tests.parity.recorder import CLOSED, RESET, SILENCE, Answer
from tests.parity.sources import one_way

# The settings of an SDK to which nobody gave a retry_config.
BY_DEFAULT = {"retry_config": Own(lambda package: package.UNSET)}


def config(initial=1, longest=2, exponent=1.0, budget=5000, connection=False, strategy="backoff"):
    return Own(
        lambda package: package.utils.RetryConfig(
            strategy, package.utils.BackoffStrategy(initial, longest, exponent, budget), connection
        )
    )


def busy(status=503, **headers):
    return Answer(status, "busy", "text/plain", [(name.replace("_", "-"), value) for name, value in headers.items()])


class Statuses(Parity):
    def test_which_are_tried_again(self):
        for status in (400, 401, 404, 408, 409, 413, 425, 429, 500, 501, 502, 503, 504, 505, 507, 599):
            self.same(lookup("%d, then found" % status, [busy(status), FOUND], retries=config()))

    def test_every_operation(self):
        for operation, (smallest, _, _, _, _) in OPERATIONS.items():
            for status in (429, 503, 500):
                self.same(
                    Case(
                        "%d twice" % status,
                        operation,
                        smallest,
                        [busy(status), busy(status), good(operation)],
                        retries=config(),
                    )
                )

    def test_the_same_request_goes_out_again(self):
        self.same(
            Case(
                "same bytes",
                "queue.queue_enqueue",
                {"type": "t", "data": {"n": [1, "é"]}, "delay": 1},
                [busy(), busy(429), busy(502), good("queue.queue_enqueue")],
                retries=config(),
                http_headers={"X-Own": "1"},
            )
        )

    def test_another_failure_on_the_way_ends_it(self):
        self.same(
            lookup("404 second", [busy(), busy(404), FOUND], retries=config()),
            lookup("broken second", [busy(), Answer(200, "{"), FOUND], retries=config()),
            lookup("no JSON second", [busy(), Answer(200, "x", "text/plain"), FOUND], retries=config()),
            lookup("broken first", [Answer(200, "{"), FOUND], retries=config()),
        )

    def test_nothing_that_is_refused_is_tried(self):
        self.same(Case("refused", "cache.cache_get", {}, [busy(), FOUND], retries=config()))

    def test_a_structured_error_at_the_end(self):
        failure = Answer(500, {"code": "DB_QUERY_FAILED", "message": "m"})
        self.same(
            Case("recovers", "database.db_query", {"sql": "s"}, [failure, good("database.db_query")], retries=config())
        )


class TheConfig(Parity):
    def test_only_backoff_is_a_strategy(self):
        for strategy in ("none", "", "Backoff", "exponential"):
            self.same(lookup("strategy %r" % strategy, [busy(), FOUND], retries=config(strategy=strategy)))

    def test_another_object_is_no_config(self):
        for other in (5, "backoff", {}, False):
            self.same(
                lookup("call %r" % other, [busy(), FOUND], retries=other),
                lookup("client %r" % other, [busy(), FOUND], sdk={"retry_config": other}),
            )

    def test_which_one_counts(self):
        for name, sdk, call in (
            ("client", {"retry_config": config()}, {}),
            ("call", {}, {"retries": config()}),
            ("call None over client", {"retry_config": config()}, {"retries": None}),
            ("call UNSET inherits", {"retry_config": config()}, {"retries": Own(lambda package: package.UNSET)}),
            ("call over client's none", {"retry_config": None}, {"retries": config()}),
            ("call's other strategy over client", {"retry_config": config()}, {"retries": config(strategy="none")}),
        ):
            self.same(lookup(name, [busy(), FOUND], sdk=sdk, **call))

    def test_the_attributes_of_the_settings(self):
        self.same_value(
            "attributes",
            lambda package: [
                vars(package.utils.BackoffStrategy(1, 50, 1.1, 100)),
                package.utils.RetryConfig("backoff", package.utils.BackoffStrategy(1, 50, 1.1, 100), False).strategy,
                package.utils.RetryConfig(
                    strategy="backoff",
                    backoff=package.utils.BackoffStrategy(
                        initial_interval=1, max_interval=50, exponent=1.1, max_elapsed_time=100
                    ),
                    retry_connection_errors=True,
                ).backoff.max_interval,
            ],
        )

    def test_a_key_that_is_called_is_asked_once_per_call(self):
        asked = []

        def key():
            asked.append(1)
            return "key-%d" % len(asked)

        def calls(package):
            del asked[:]
            self.server.play([busy(), busy(), FOUND])
            side = self.side(package)
            side.sdk({"api_key_auth": Own(lambda package: key), "retry_config": config()}).cache.cache_get(
                request={"key": "k"}
            )
            return [request.values("x-aerostack-key") for request in self.server.requests]

        self.same_value("one key for all attempts", calls)


class WhenTimeIsUp(Parity):
    def out_of_time(self, name, answers, operation="cache.cache_get", **options):
        """Same outcome, at least two attempts on both sides; how many fit into the time is anybody's guess."""
        case = Case(name, operation, OPERATIONS[operation][0], answers, **options)

        def call(package):
            exchange = self.side(package).run(case)
            return len(exchange.requests) > 1, exchange.outcome()

        self.same_value(name, call)

    def test_the_last_answer_counts(self):
        soon = config(initial=20, longest=20, budget=250)
        self.out_of_time("status", [busy(status=502)], retries=soon)
        self.out_of_time(
            "structured", [Answer(500, {"code": "INTERNAL_ERROR", "message": "m"})], "database.db_query", retries=soon
        )
        self.out_of_time("unstructured", [Answer(500, "m", "text/html")], "database.db_query", retries=soon)

    def test_the_last_connection_error_is_raised(self):
        self.out_of_time("timeout", [SILENCE], retries=config(budget=250, connection=True), timeout_ms=60)


class ConnectionErrors(Parity):
    def test_a_time_out_is_tried_again_only_when_asked(self):
        self.same(
            lookup("asked", [SILENCE, FOUND], retries=config(connection=True), timeout_ms=250),
            lookup("not asked", [SILENCE, FOUND], retries=config(), timeout_ms=80),
        )

    def test_a_lost_connection_is_not_when_not_asked(self):
        for answer in (CLOSED, RESET):
            self.same(lookup("lost", [answer, FOUND], fresh=True, retries=config()))

    def test_a_broken_answer_is_not_tried_again(self):
        gzip = Answer(200, b"no gzip", headers=[("Content-Encoding", "gzip")])
        self.same(lookup("bad gzip", [gzip, FOUND], retries=config(connection=True)))


class RetryAfter(Parity):
    def slept(self, name, value, at_least, below):
        """Both sides wait for as long as the header says."""

        def call(package):
            exchange = self.side(package).run(
                lookup("", [busy(retry_after=value() if callable(value) else value), FOUND], retries=config())
            )
            return at_least <= exchange.seconds < below, exchange.outcome()

        self.same_value(name, call)

    def test_seconds_are_slept_even_above_the_longest_interval(self):
        for value in ("0.15", " 0.15 ", "+0.15", "1.5e-1", ".15"):
            self.slept(value, value, 0.14, 1)

    def test_a_date_is_slept_until(self):
        self.slept("date", lambda: email.utils.formatdate(math.ceil(time.time() + 0.2), usegmt=True), 0.1, 2)
        self.slept("past date", "Tue, 02 Jan 2024 03:04:05 GMT", 0, 0.5)

    def test_what_says_nothing_is_ignored(self):
        for value in ("0", "-1", "soon", "", "nan", "0x1", "2024-01-02T03:04:05Z", "1 2", "0,2"):
            self.slept("ignored %r" % value, value, 0, 0.5)
        self.same(lookup("milliseconds", [busy(retry_after_ms="99999"), FOUND], retries=config()))

    def test_it_counts_for_every_status_that_is_tried_again(self):
        for status in (429, 500, 502, 504):
            self.same(lookup("%d" % status, [busy(status, retry_after="0.01"), FOUND], retries=config()))


class Uploads(Parity):
    def test_an_open_file_is_read_again_from_its_start(self):
        with open(__file__, "rb") as file:
            file.read(10)
            self.same(
                Case(
                    "file",
                    "storage.storage_upload",
                    Own(lambda package: {"key": "k", "file": {"file_name": "a.py", "content": file}}),
                    [busy(), busy(), good("storage.storage_upload")],
                    retries=config(),
                )
            )
            self.assertFalse(file.closed)


class TheDefault(Parity):
    """Where ours repeats nothing either."""

    def by_default(self, name, answer, operation="cache.cache_get", **options):
        self.same(
            Case(
                name,
                operation,
                OPERATIONS[operation][0],
                [answer, good(operation)],
                sdk=BY_DEFAULT,
                fresh=True,
                **options,
            )
        )

    def test_an_operation_that_is_not_idempotent_is_sent_once(self):
        for operation in ("queue.queue_enqueue", "ai.ai_chat", "services.services_invoke", "database.db_query"):
            for name, answer in (("500", busy(500)), ("502", busy(502)), ("520", busy(520)), ("lost", CLOSED)):
                self.by_default(name, answer, operation)

    def test_a_timeout_is_not_repeated(self):
        self.by_default("timeout", SILENCE, timeout_ms=80)

    def test_a_long_wait_is_not_begun(self):
        for value in ("9", "60", "86400"):
            self.by_default("Retry-After: " + value, busy(retry_after=value))

    def test_other_statuses_are_final(self):
        for status in (400, 401, 403, 404, 408, 409, 413, 422, 425, 501, 505):
            self.by_default(str(status), busy(status))


class OnPurpose(Parity):
    def test_the_default_repeats_what_is_safe(self):
        for operation in OPERATIONS:
            self.differs(
                "default retries",
                "503 for " + operation,
                Case(
                    "",
                    operation,
                    OPERATIONS[operation][0],
                    [busy(retry_after="0.01"), good(operation)],
                    sdk=BY_DEFAULT,
                ),
                lambda exchange: exchange.raised("SDKError") and len(exchange.requests) == 1,
                lambda exchange: exchange.error is None and len(exchange.requests) == 2,
                twins=False,
            )
        for status in (500, 502, 504, 520, 524, 529, 530):
            self.differs(
                "default retries",
                "%d of an idempotent operation" % status,
                lookup("", [busy(status, retry_after="0.01"), FOUND], sdk=BY_DEFAULT),
                lambda exchange: exchange.raised("SDKError"),
                lambda exchange: exchange.error is None,
            )
        self.differs(
            "default retries",
            "a lost connection of an idempotent operation",
            lookup("", [CLOSED, FOUND], sdk=BY_DEFAULT, fresh=True),
            lambda exchange: exchange.raised("RequestError"),
            lambda exchange: exchange.error is None,
        )

    def test_a_wait_beyond_the_budget_is_not_begun(self):
        self.differs(
            "a `Retry-After` beyond `max_elapsed_time`",
            "0.4 s where 0.05 s are left",
            lookup("", [busy(retry_after="0.4"), busy()], retries=config(budget=50)),
            lambda exchange: exchange.seconds >= 0.4 and exchange.raised("SDKError"),
            lambda exchange: (
                exchange.seconds < 0.3
                and exchange.raised("SDKError")
                and len(exchange.requests) == 1
                and exchange.error.retry_after == 0.4
            ),
        )

    def test_an_endless_wait_is_no_crash(self):
        for value in ("inf", "1e400"):
            self.differs(
                "`Retry-After: inf`",
                value,
                lookup("", [busy(retry_after=value), FOUND], retries=config(budget=1000)),
                lambda exchange: exchange.raised("OverflowError"),
                lambda exchange: exchange.raised("SDKError") and exchange.error.retry_after == math.inf,
            )

    def test_a_steep_exponent_stops_at_the_longest_interval(self):
        self.differs(
            "a large `exponent`",
            "1e200",
            lookup("", [busy()] * 3 + [FOUND], retries=config(exponent=1e200)),
            lambda exchange: exchange.raised("OverflowError"),
            lambda exchange: exchange.error is None,
        )

    def test_a_negative_budget_is_refused(self):
        self.differs(
            "a negative `max_elapsed_time`",
            "-1",
            lookup("", [busy(), FOUND], retries=config(budget=-1)),
            lambda exchange: exchange.raised("SDKError") and len(exchange.requests) == 1,
            lambda exchange: exchange.refused("max_elapsed_time"),
        )

    def test_jitter_stays_within_the_interval(self):
        self.differs(
            "jitter",
            "six waits of 1 ms, 200 ms at the most",
            lookup("", [busy()] * 6 + [FOUND], retries=config(initial=1, longest=200, budget=9000)),
            lambda exchange: exchange.seconds > 0.5,
            lambda exchange: exchange.seconds < 0.5,
            twins=False,
        )

    def test_a_lost_connection_is_a_connection_error(self):
        for name, answer in (("closed", CLOSED), ("reset", RESET)):
            self.differs(
                "a lost connection, with `retry_connection_errors=True`",
                name,
                lookup("", [answer, FOUND], fresh=True, retries=config(connection=True)),
                lambda exchange: exchange.raised("RequestError"),
                lambda exchange: exchange.error is None,
            )

    def test_a_kept_connection_that_died_is_replaced_for_an_idempotent_operation(self):
        def second_call(side):
            with side.sdk(BY_DEFAULT) as sdk:
                self.server.play([FOUND, CLOSED, FOUND])
                sdk.cache.cache_get(request={"key": "k"})
                return sdk.cache.cache_get(request={"key": "k"})

        self.differs(
            "default retries",
            "a kept connection that the server closed",
            second_call,
            lambda exchange: exchange.raised("RequestError"),
            lambda exchange: exchange.error is None,
        )

    def test_a_consumed_stream_is_never_an_empty_file(self):
        def upload(side):
            return side.run(
                Case(
                    "",
                    "storage.storage_upload",
                    {"key": "k", "file": {"file_name": "a", "content": Own(lambda package: one_way(b"all of it"))}},
                    [busy(), good("storage.storage_upload")],
                    retries=config(),
                )
            )

        self.differs(
            "a stream that cannot be read again, on a retry",
            "after a 503",
            upload,
            lambda exchange: (
                exchange.value.error is None
                and [request.parts()[-1][1] for request in exchange.value.requests] == [b"all of it", b""]
            ),
            lambda exchange: [request.parts()[-1][1] for request in exchange.value.requests] == [b"all of it"],
        )


if __name__ == "__main__":
    unittest.main()
