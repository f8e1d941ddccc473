"""The common kinds of error and what to do about it: mend the call, heed the API, or try again later.
Run: PYTHONPATH=. python3 examples/handle_errors.py"""

from aerostack_lite import SDK, errors
from local_platform import LocalPlatform


def what_happened(sdk: SDK, sql: str, **options: object) -> str:
    try:
        return "%d rows" % len(sdk.database.db_query(sql=sql, **options).results or ())  # type: ignore[arg-type]
    except errors.ValidationError as error:  # the call itself is wrong; nothing was sent
        return "mend the call: %s" % error
    except errors.ErrorResponse as error:  # the API says what is wrong
        hint = " (is the key right?)" if error.data.code == "AUTH_INVALID_KEY" else ""
        return "the API says no: %s%s" % (error.data.message, hint)
    except errors.SDKBaseError as error:  # any other answer
        return "an answer of no use, status %d" % error.status_code
    except errors.TimeoutException:  # also a TimeoutError
        return "too slow"
    except errors.RequestError as error:  # no answer; the others are ConnectError, ReadError, ProxyError, ...
        again = "may have been carried out" if error.maybe_processed else "was not carried out"
        return "no answer after %d attempts; it %s" % (error.attempts, again)


if __name__ == "__main__":
    with LocalPlatform() as platform, SDK("any key", server_url=platform.url) as sdk:
        for title, sql, options in (
            ("well", "SELECT 1 AS one", {}),
            ("slip of the pen", "SELECT 1", {"parms": [1]}),
            ("bad SQL", "SELEC 1", {}),
            ("no key", "SELECT 1", {"http_headers": {"X-Aerostack-Key": ""}}),
            ("wrong path", "SELECT 1", {"server_url": platform.url + "/v2"}),
            ("nobody there", "SELECT 1", {"server_url": "http://127.0.0.1:1", "retries": None}),
        ):
            print("%-16s %s" % (title + ":", what_happened(sdk, sql, **options)))
