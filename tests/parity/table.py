"""The intended differences from the official SDK, and README.md, which shows them.

Every call of `Parity.differs` names its row. `python3 -m tests.parity` writes the page after a run of every comparison.
"""

import collections
import os
import unittest

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "README.md")

# section -> rows of (matter, the official SDK, here)
TABLE = {
    "Imports": [
        ("dependencies", "httpx, pydantic and what these need", "the standard library"),
        ("import paths below a module, such as `aerostack.models.user`", "exist", "do not exist"),
        ("the code generator's helpers in `utils`", "exist", "do not exist"),
        ("`SPEAKEASY_GENERATOR_VERSION`", "the generator's version", "empty: this file is written by hand"),
        ("`isinstance(client, HttpClient)`", "a protocol: true for httpx's client", "true for our class"),
        ("`sdk_configuration.client`", "can be set", "read-only: make another SDK"),
        ("TypedDicts", "are TypedDicts", "plain dicts at run time; exact for a type checker"),
    ],
    "Calls": [
        (
            "arguments",
            "keyword-only `request`",
            "also positional `(request, retries)`, also the request's fields as keywords",
        ),
        ("unknown request fields", "dropped", "refused, naming the field and the nearest known one"),
        ("unknown members of a chat message, such as `name` and `tool_calls`", "dropped", "sent"),
        ("`content` of a chat message as a list of parts", "refused", "sent"),
        ("`temperature`, `max_tokens`, `top_p` of `ai_chat`", "dropped", "sent"),
        ("`role`", "one of three", "any string; `Role` stays for convenience"),
        (
            "`api_key_auth`",
            "required; an empty one is sent",
            "or `AEROSTACK_API_KEY`; an empty one is refused; surrounding white space is stripped",
        ),
        ("the default server", "`SERVERS[0]`", "`AEROSTACK_SERVER_URL` where it is set, else `SERVERS[0]`"),
        ("`storage_upload` with another operation's model", "posts nothing", "refused"),
        ("a model changed after it was made", "not checked", "checked when it is sent"),
        ("a negative `server_idx`", "the last server", "refused"),
        (
            "a bad server URL",
            "fails at the first call, or posts elsewhere",
            "refused when the SDK is made, or at the call for a per-call URL",
        ),
        ("a query or fragment in the server URL", "replaces the path", "refused"),
        ("a header given in another case", "sent twice", "replaced"),
        ("a header or key with control characters, or in bytes that are not ASCII", "sent", "refused"),
        ("white space around a header's value", "refused", "stripped"),
        ("a call after `close`", "AttributeError", "ClosedError, which says so"),
    ],
    "Values in requests": [
        ("NaN and infinity", "sent as null", "refused, naming the path"),
        ("`Fraction`, `complex`, `re.Pattern`, pydantic's URLs and secrets", "sent as text", "refused"),
        ("`range`, dict views, any other mapping", "refused", "sent as a list or an object"),
        ("a dict key that is None or a tuple", "sent as text", "refused"),
        ("an IntEnum for a text", "its number is sent", "refused"),
        ('`"1_000"`, `" 5 "`, `"+5"`, `"5.0"` and the like for a whole number', "read", "refused, also in responses"),
        ("a Decimal, a Fraction or bytes for a whole number", "sent as a number", "refused"),
        ("the string `~?~unset~?~sentinel~?~`", "its field is left out", "sent"),
        ("`UNSET` in a request", "sent as text; a required field is left out", "refused"),
        ("`is UNSET`", "false for a missing field", "true; one object, also after copy and pickle"),
    ],
    "Headers of requests": [
        ("`User-Agent`", "`speakeasy-sdk/python ...`", "`aerostack-lite/` and the version"),
        ("`X-Request-ID`", "none", "a UUID for each call, the same on every attempt"),
        ("`Accept-Encoding`", "`gzip, deflate`", "`gzip`"),
    ],
    "Uploads": [
        ("`file`", "`{content, file_name}`", "also bytes, a path, a reader, a generator of bytes"),
        ("`content` as a `str`", "its UTF-8 is sent", "refused: it is nearly always a path"),
        ("`BytesIO` and other binary readers, memoryview, paths", "refused", "sent"),
        ("pipes and generators", "fail", "sent chunked"),
        ("a stream that cannot be read again, on a retry", "an empty file is sent", "not sent again"),
        ("a 2xx that came before the whole body was sent", "success", "RemoteProtocolError"),
        ("a line break in a part's content type", "adds headers to the part", "refused"),
        ("an awaited upload's file", "is read on the event loop", "is read in a worker thread"),
        ("a client of your own is given", "`files=` and `data=`", "`content=`, an iterable of blocks"),
    ],
    "Responses": [
        (
            "success",
            "exactly 200 or 201, exactly `application/json`",
            "any 2xx whose body is JSON, whatever its Content-Type",
        ),
        ("204 and 205 with an empty body", 'SDKError "Unexpected response received"', "an empty model"),
        (
            "another 2xx that says `application/json` and is not JSON",
            'SDKError "Unexpected response received"',
            "ResponseValidationError",
        ),
        ("unknown fields", "dropped", "kept in `model_extra`, not part of equality and repr"),
        ("a byte order mark, an escape of a lone surrogate", "refused", "accepted"),
        ("NaN, Infinity, `1e400`, invalid UTF-8", "accepted", "ResponseValidationError"),
        ("JSON nested more than 200 levels deep", "refused", "accepted up to 500 levels"),
        ('`"yes"`, `"1"`, `"TRUE"` and the like for a boolean', "accepted", "ResponseValidationError"),
        ("an object as a user's `name`", "`UNSET`", "ResponseValidationError"),
        ("more than 64 MiB, also after decompression", "accepted", "refused"),
        ("more than eight interim responses", "skipped", "RemoteProtocolError"),
        ("response headers of more than 64 KiB", "accepted", "RemoteProtocolError"),
        ("`Content-Encoding: deflate`", "decoded", "not asked for, not decoded"),
        ("`Content-Encoding: x-gzip`", "not decoded", "decoded"),
        ("a gzip body without its end", "accepted", "DecodingError"),
        ("a body compressed more than twice", "decoded", "decoded twice, so refused"),
        (
            "`raw_response`",
            "an `httpx.Response`",
            "`status_code`, `reason_phrase`, `headers`, `content`, `text`, `json()`, `url`, `request`; "
            "or what your client returned",
        ),
    ],
    "Models": [
        ("`model_dump()`", "without the fields that have another name in JSON", "with every field, by its name"),
        (
            "`model_copy`, `model_fields`, `model_fields_set`, iteration and pydantic's other methods",
            "exist",
            "do not exist; `model_dump`, `model_dump_json`, `model_validate`, `model_validate_json` do",
        ),
        ("our models as fields of pydantic's, in FastAPI for one", "work", "do not work: pass `model_dump()`"),
        ("`str(model)`", "the fields alone", "as `repr(model)`"),
        ("`loc` of a missing `File.content`", '`("",)`', '`("content",)`'),
    ],
    "Errors": [
        ("an undocumented error code", "ResponseValidationError", "ErrorResponse; `data.code` is the string"),
        ("an error body of another shape", "ResponseValidationError", 'SDKError "API error occurred"'),
        ("an error body nested in `error`", "ResponseValidationError", "ErrorResponse, as if it were not nested"),
        (
            "`.data`",
            "on ErrorResponse only",
            "on every error; None unless the body has the shape of the API's errors",
        ),
        ("`.attempts`, `.request_id`, `.retry_after`, `.maybe_processed`", "do not exist", "on every error"),
        ("error texts", "quote passwords, tokens, keys", "name the field, never the value"),
        ("control characters of the server in messages", "as they came", "escaped"),
        ("`ValidationError.errors()`", "with `input`", "without: it may be secret"),
        ("transport errors", "httpx's", "ours with the same names, also TimeoutError and ConnectionError"),
    ],
    "Redirects and cookies": [
        ("a redirect to another origin", "followed with key and body", "SDKError that names the target"),
        ("301, 302, 303", "the POST becomes a GET and is reported as done", "SDKError that names the target"),
        ("redirects in a row", "20", "5"),
        ("cookies", "shared by all your users", "none kept, none sent"),
    ],
    "Certificates": [
        (
            "trusted authorities",
            "certifi's, or `SSL_CERT_FILE`, `SSL_CERT_DIR`",
            "the operating system's, or `SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE`",
        ),
    ],
    "Timeouts and retries": [
        ("default timeout", "none", "60 s for an attempt; `math.inf` for none"),
        ("`timeout_ms`", "for each operation of a socket", "for the attempt as a whole"),
        ("a `timeout_ms` of 0 or less, or a boolean", "a network error", "refused"),
        ("`timeout_ms=math.inf`", "OverflowError, unless awaited", "no limit"),
        ("your own client's timeout", "switched off", "left alone unless `timeout_ms` is set"),
        (
            "default retries",
            "none",
            "two, where nothing can have been done twice; never after a timeout; `retries=None` for none",
        ),
        (
            "a `Retry-After` beyond `max_elapsed_time`",
            "waited for",
            "the error at once, with `.retry_after`",
        ),
        ("`Retry-After: inf`", "OverflowError", "the error at once, with `.retry_after`"),
        ("a large `exponent`", "OverflowError", "`max_interval`"),
        ("a negative `max_elapsed_time`", "one attempt", "refused"),
        ("jitter", "up to 1 s, whatever the interval", "within the interval"),
        ("a lost connection, with `retry_connection_errors=True`", "not retried", "retried"),
    ],
    "Secrets and async": [
        ("debug log", "shows key, password, token, cookies", "masked"),
        ("`repr` of configuration, requests and responses", "shows key, password, token", "masked"),
        ("a second `asyncio.run`", '"Event loop is closed"', "works"),
    ],
}
MATTERS = [matter for rows in TABLE.values() for matter, _, _ in rows]

# What the comparisons saw so far: how many cases were the same, and how often each difference showed.
COUNT = {"cases": 0}
SEEN = collections.Counter()

TEXT = """\
# Beside the official SDK

The same calls through aerostack 0.1.2 and through aerostack_lite, called and awaited, against one server on 127.0.0.1
that records every request. What is sent, returned and raised must be the same, except for the differences listed here:
each is checked on both sides, and any other difference fails the run.

```sh
pip install aerostack==0.1.2 hypothesis trustme mypy 'pyright[nodejs]'
python3 -m tests.parity
```

The command writes this page if every comparison ran and succeeded. The last time: **%d cases were the same, and %d
checks saw the %d differences.**

Not compared, since two good HTTP clients may differ in it: how a body is framed, the order of headers, `Host`,
`Connection`, and the words in which a value is refused (its place is compared).

| Matter | aerostack 0.1.2 | here |
|---|---|---|
%s"""


def page(cases, checks):
    """README.md, after a run that saw so much."""
    lines = []
    for section, rows in TABLE.items():
        lines.append("| **%s** | | |\n" % section)
        lines += ["| %s | %s | %s |\n" % row for row in rows]
    return TEXT % (cases, checks, len(MATTERS), "".join(lines))


def read_page():
    with open(PAGE, encoding="utf-8") as file:
        return file.read()


class AfterTheRun(unittest.TestCase):
    """The last test of the suite: it looks at what all others saw."""

    maxDiff = None

    def run(self, result=None):
        self.left_out = [case.id() for case, _ in result.skipped if "parity" in case.id()]
        return super().run(result)

    def test_the_run_saw_each_difference_of_the_table_and_the_page_is_of_this_run(self):
        if self.left_out:
            self.skipTest("comparisons were skipped: %s" % self.left_out[0])
        self.assertEqual([matter for matter in MATTERS if not SEEN[matter]], [], "differences that the run never saw")
        self.assertEqual(read_page(), page(COUNT["cases"], sum(SEEN.values())), "python3 -m tests.parity writes it")
