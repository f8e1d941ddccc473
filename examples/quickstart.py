"""Runs all nine operations, one after another and then awaited, and shows what went in, what came back, and how fast.

Run: python3 examples/quickstart.py
It calls an Aerostack of its own, on a free port. For a real one:
AEROSTACK_API_KEY=... python3 examples/quickstart.py --server-url URL

Exit status: 0 if all went well, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK, VERSION, errors
from local_platform import LocalPlatform

WIDTH = 118
SECRETS = ("password", "token")


class Step(NamedTuple):
    service: str
    operation: str
    request: Dict[str, Any]
    went_well: Callable[[Any], object]


def steps(run: str, echo: str) -> List[Step]:
    """The nine operations. What `run` names is new every time, since a real server remembers."""
    email, password = "ada-%s@example.com" % run, "correct horse battery"
    greeting = {"hello": "world", "run": run}
    return [
        Step(
            "authentication",
            "auth_signup",
            {"email": email, "password": password, "name": "Ada"},
            lambda got: got.token,
        ),
        Step("cache", "cache_set", {"key": "greeting-" + run, "value": greeting, "ttl": 60}, lambda got: got.success),
        Step("database", "db_query", {"sql": "SELECT ? AS answer", "params": [42]}, lambda got: got.results),
        Step("queue", "queue_enqueue", {"type": "email", "data": {"to": email}, "delay": 5}, lambda got: got.job_id),
        Step("services", "services_invoke", {"service_name": echo, "data": greeting}, lambda got: got.success),
        Step(
            "storage", "storage_upload", {"key": "hello-%s.txt" % run, "file": b"Hello, storage!"}, lambda got: got.url
        ),
        Step("ai", "ai_chat", {"messages": [{"role": "user", "content": "Say hello."}]}, lambda got: got.response),
        # These two ask for what the first two have left there.
        Step(
            "authentication", "auth_signin", {"email": email, "password": password}, lambda got: got.user.email == email
        ),
        Step("cache", "cache_get", {"key": "greeting-" + run}, lambda got: got.value == greeting),
    ]


class Transcript:
    """Prints what happens, and counts what went wrong."""

    def __init__(self) -> None:
        self.failures = 0

    def show(self, step: Step, result: Any, milliseconds: float) -> None:
        print("  %-15s  %s" % (step.operation, shortened(fields(step.request))))
        if isinstance(result, BaseException):
            self.failures += 1
            print("%14.1f ms  FAILED: %s: %s" % (milliseconds, type(result).__name__, shortened(str(result))))
            return
        well = step.went_well(result)
        self.failures += not well
        answer = fields(result.model_dump(mode="json"))
        print("%14.1f ms  %s%s" % (milliseconds, "" if well else "NOT AS EXPECTED: ", shortened(answer)))


def fields(values: Dict[str, Any]) -> str:
    shown = {name: "***" if name in SECRETS else value for name, value in values.items()}
    return "  ".join(
        "%s=%s" % (name, json.dumps(value, default=bytes.decode, ensure_ascii=False)) for name, value in shown.items()
    )


def shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDTH - 19 else text[: WIDTH - 22] + "..."


def one_after_another(sdk: SDK, todo: List[Step], transcript: Transcript) -> None:
    for step in todo:
        call = getattr(getattr(sdk, step.service), step.operation)
        started = time.perf_counter()
        try:
            result = call(**step.request)
        except errors.AerostackError as error:
            result = error
        transcript.show(step, result, 1000 * (time.perf_counter() - started))


async def awaited(sdk: SDK, todo: List[Step], transcript: Transcript) -> float:
    """Seven calls at once, then the two that build on them; how many milliseconds all took."""

    async def call(step: Step) -> Tuple[Any, float]:
        started = time.perf_counter()
        try:
            result = await getattr(getattr(sdk, step.service), step.operation + "_async")(**step.request)
        except errors.AerostackError as error:
            result = error
        return result, 1000 * (time.perf_counter() - started)

    started = time.perf_counter()
    async with sdk:
        outcomes = list(await asyncio.gather(*map(call, todo[:7])))
        outcomes += await asyncio.gather(*map(call, todo[7:]))
    took = 1000 * (time.perf_counter() - started)
    for step, (result, milliseconds) in zip(todo, outcomes):
        transcript.show(step, result, milliseconds)
    return took


def one_handled_error(sdk: SDK, transcript: Transcript) -> None:
    sql = "SELEC 42"
    print("  %-15s  %s" % ("db_query", fields({"sql": sql})))
    started = time.perf_counter()
    try:
        sdk.database.db_query(sql=sql)
    except errors.SDKBaseError as error:  # the server returned an error
        took = 1000 * (time.perf_counter() - started)
        said = (
            error.message
            if error.data is None
            else "%s: %s" % (getattr(error.data.code, "value", error.data.code), error.message)
        )
        print("%14.1f ms  %s, status %d, %s" % (took, type(error).__name__, error.status_code, shortened(said)))
        print("%17s  request %s, attempts %d" % ("", error.request_id, error.attempts))
    else:
        transcript.failures += 1
        print("%17s  NOT AS EXPECTED: no error" % "")


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="All nine operations, sync and async, with a transcript.")
    parser.add_argument("--server-url", metavar="URL", help="a real server; its key is AEROSTACK_API_KEY")
    parser.add_argument("--service", default="echo", metavar="NAME", help="a service to invoke there (%(default)s)")
    options = parser.parse_args(arguments)
    transcript = Transcript()
    with contextlib.ExitStack() as stack:
        url, key = options.server_url, None
        if url is None:
            own = stack.enter_context(LocalPlatform())
            own.register_service(options.service, lambda data: data)
            url, key = own.url, "any key"
        try:
            sdk = stack.enter_context(SDK(key, server_url=url))
        except errors.ValidationError as error:
            parser.error(str(error))
        whose = "a real one" if options.server_url else "one of its own, in memory"
        print("aerostack_lite %s, Python %s, Aerostack at %s (%s)" % (VERSION, platform.python_version(), url, whose))
        print("\nOne after another\n")
        one_after_another(sdk, steps(os.urandom(4).hex(), options.service), transcript)
        print("\nThe same awaited, as many at once as can be\n")
        took = asyncio.run(awaited(sdk, steps(os.urandom(4).hex(), options.service), transcript))
        print("\n  Nine calls in %.1f ms." % took)
        print("\nAn error, handled\n")
        one_handled_error(sdk, transcript)
    print("\n%s" % ("All went well." if not transcript.failures else "%d went wrong." % transcript.failures))
    return 1 if transcript.failures else 0


if __name__ == "__main__":
    sys.exit(main())
