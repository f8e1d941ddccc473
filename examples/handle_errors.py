"""The common kinds of error and what to do about each: correct the call, look at the API's message, or try later.

Run: python3 examples/handle_errors.py
Without AEROSTACK_API_KEY it calls an Aerostack of its own.
"""

import os
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where aerostack_lite.py is

from aerostack_lite import SDK, errors
from local_platform import LocalPlatform


def what_happened(sdk: SDK, **call: Any) -> str:
    try:
        return "%d rows" % len(sdk.database.db_query(**call).results or ())
    except errors.ValidationError as error:  # the call itself is wrong; nothing was sent
        return "correct the call: %s" % error
    except errors.ErrorResponse as error:  # the API says what is wrong
        hint = " (is the key right?)" if error.data.code == "AUTH_INVALID_KEY" else ""
        return "the API refuses: %s%s" % (error.data.message, hint)
    except errors.SDKBaseError as error:  # any other response that is an error
        return "the server returned an error, status %d" % error.status_code
    except errors.TimeoutException as error:  # also a TimeoutError
        return "too slow: %s" % error
    except errors.RequestError as error:  # no response; the others are ConnectError, ReadError, ProxyError, ...
        processed = "may have been carried out" if error.maybe_processed else "was not carried out"
        return "no response after %d attempts; the request %s" % (error.attempts, processed)


def main() -> None:
    with SDK() as sdk:
        url = sdk.sdk_configuration.get_server_details()[0]
        nobody_there = {"server_url": "http://127.0.0.1:1", "retries": None}
        print("all is well:     ", what_happened(sdk, sql="SELECT 1 AS one"))
        print("misspelled field:", what_happened(sdk, sql="SELECT 1", parms=[1]))
        print("bad SQL:         ", what_happened(sdk, sql="SELEC 1"))
        print("wrong key:       ", what_happened(sdk, sql="SELECT 1", http_headers={"X-Aerostack-Key": ""}))
        print("wrong path:      ", what_happened(sdk, sql="SELECT 1", server_url=url + "/v2"))
        print("too little time: ", what_happened(sdk, sql="SELECT 1", timeout_ms=0.001))
        print("nobody there:    ", what_happened(sdk, sql="SELECT 1", **nobody_there))


if __name__ == "__main__":
    with LocalPlatform() as platform:
        if not os.environ.get("AEROSTACK_API_KEY"):
            os.environ.update(AEROSTACK_API_KEY="any key", AEROSTACK_SERVER_URL=platform.url)
        main()
