"""An AWS Lambda function: the SDK is made outside the handler, and no call outlives the invocation.

Run: python3 examples/lambda_handler.py  (two invocations; without AEROSTACK_API_KEY, by an Aerostack of its own)
"""

import functools
import logging
import os
import sys
from types import SimpleNamespace

if __name__ == "__main__":  # in the zip, aerostack_lite.py lies beside this file
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from aerostack_lite import SDK, errors

SECRET_ID = os.environ.get("AEROSTACK_SECRET_ID")  # of the key in the secret store; README.md says how to zip all this
if SECRET_ID:
    import boto3  # type: ignore  # Lambda has it; here, since imports run at full speed during init


@functools.lru_cache(maxsize=None)  # the secret store is asked once per container, at its first call
def api_key():
    if not SECRET_ID:
        return os.environ["AEROSTACK_API_KEY"]
    return boto3.client("secretsmanager").get_secret_value(SecretId=SECRET_ID)["SecretString"]  # pyright: ignore


sdk = SDK(api_key)  # one for all invocations: they find its connection open


def in_time(context):  # one attempt, which ends half a second before Lambda ends us, so that its error is logged
    return {"timeout_ms": max(context.get_remaining_time_in_millis() - 500, 1), "retries": None}


def handler(event, context):
    try:
        cached = sdk.cache.cache_get(key=event["key"], **in_time(context))
        if cached.exists:
            return {"rows": cached.value, "cached": True}
        rows = sdk.database.db_query(sql=event["sql"], **in_time(context)).results
        sdk.cache.cache_set(key=event["key"], value=rows, ttl=60, **in_time(context))
        return {"rows": rows, "cached": False}
    except errors.AerostackError as error:
        logging.getLogger(__name__).error("%s (request %s)", error, error.request_id)
        raise  # so the invocation fails: Lambda counts it and may try again


if __name__ == "__main__":  # as Lambda does it: set the environment, import the module, call its handler
    from local_platform import LocalPlatform

    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        import lambda_handler

        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 3000)
        print(lambda_handler.handler({"key": "rows", "sql": "SELECT 1 AS one"}, context))
        print(lambda_handler.handler({"key": "rows", "sql": "SELECT 1 AS one"}, context))
