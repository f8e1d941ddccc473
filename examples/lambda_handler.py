"""An AWS Lambda function: the client lives outside the handler, and no call outlives the invocation.
Run: python3 -m zipfile -c function.zip lambda_handler.py aerostack_lite.py; the handler is
lambda_handler.handler, and AEROSTACK_API_KEY is set"""

from typing import Any, Dict

from aerostack_lite import SDK, errors

# Made once for each container: later invocations find its connection open. A connection that a frozen container
# has kept too long is replaced without a word.
sdk = SDK()


def in_time(context: Any) -> Dict[str, Any]:
    """Options for a call that ends half a second before Lambda would end us, so that we can say what happened."""
    left_ms = context.get_remaining_time_in_millis() - 500
    return {"timeout_ms": max(left_ms, 1), "retries": None}  # one attempt; whoever invoked us may try again


def handler(event: Dict[str, Any], context: Any) -> Dict[str, Any]:
    try:
        cached = sdk.cache.cache_get(key=event["key"], **in_time(context))
        if not cached.exists:
            rows = sdk.database.db_query(sql=event["sql"], **in_time(context)).results
            sdk.cache.cache_set(key=event["key"], value=rows, ttl=60, **in_time(context))
            return {"rows": rows, "cached": False}
        return {"rows": cached.value, "cached": True}
    except errors.AerostackError as error:
        return {"error": str(error), "request_id": error.request_id}
