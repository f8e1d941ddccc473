"""An Aerostack of your own: the nine operations on the standard library, for development and for tests.

From the command line (--help tells the rest):

    python3 examples/local_platform.py --port 8787

Inside a test:

    with LocalPlatform() as platform:
        platform.register_service("double", lambda data: data["n"] * 2)
        sdk = SDK("any key", server_url=platform.url)
        sdk.services.services_invoke(service_name="double", data={"n": 21}).result       # 42
        sdk.cache.cache_set(key="greeting", value="hello", ttl=60)
        platform.advance(61)                                                             # no need to sleep
        sdk.cache.cache_get(key="greeting").exists                                       # False

No answer is canned: SQL runs in SQLite, entries expire, jobs run, passwords are hashed, uploads are served at the
URL that the upload returned. Everything is in memory, long uploads in temporary files, until the platform is closed.

It is not made for production. Unless told otherwise it listens on loopback only, and answers only requests that are
addressed to loopback: a web page cannot reach it under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import functools
import hashlib
import heapq
import hmac
import io
import ipaddress
import json
import math
import mmap
import os
import re
import socket
import socketserver
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from http import HTTPStatus
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union
from urllib.parse import quote, unquote, urlsplit

__all__ = ["ApiError", "Job", "LocalPlatform"]

Function = Callable[[Dict[str, Any]], Any]
"""A service or a job handler: it is given the `data` of the request, and returns anything that JSON can hold."""

FILES_PATH = "/v1/storage/files/"  # where uploads are served
TOKEN_SECONDS = 24 * 60 * 60
AI_TIMEOUT_SECONDS = 60
CLOSE_SECONDS = 5  # how long close() waits for a function that is still running
LINGER_SECONDS = 2  # how long a client may go on sending a request that was refused
HEAD_BYTES = 64 * 1024  # of a request, of a part of a form
JSON_BYTES = 16 * 1024 * 1024  # of a request's body
MEMORY_BYTES = 4 * 1024 * 1024  # a longer body waits in a temporary file
ROWS_BYTES = 32 * 1024 * 1024  # of all rows that a query returns
DATABASE_PAGES = 256 * 1024  # of 4 KiB each
PROGRESS_STEPS = 50000  # of SQLite's virtual machine, between two looks at the clock: a few milliseconds


@dataclasses.dataclass(eq=False)
class LocalPlatform:
    """The platform. Start it with `with`, or with start() and close()."""

    port: int = 0  # 0 means any free one
    host: str = "127.0.0.1"
    allow_remote: bool = False  # let `host` be an address that other machines can reach
    allowed_hosts: Sequence[str] = ()  # names by which clients may address it, beside `host`, localhost and 127.0.0.1
    key: Optional[str] = dataclasses.field(default=None, repr=False)  # the only good key; without it, any key is good
    ai_url: Optional[str] = None  # an OpenAI-compatible server for chat, such as "http://localhost:11434/v1"
    ai_key: Optional[str] = dataclasses.field(default=None, repr=False)
    rate_limit: Optional[int] = None  # requests a second; those above it are answered with 429
    max_query_seconds: float = 10.0
    verbose: bool = False  # write a line for each request, and tracebacks, to standard error

    def __post_init__(self) -> None:
        if self.rate_limit is not None and self.rate_limit < 1:
            raise ValueError("rate_limit must be at least 1")
        self._chat = _Chat(self.ai_url, self.ai_key)
        self._services: Dict[str, Function] = {}
        self._handlers: Dict[str, Function] = {}
        self._recent: Deque[float] = collections.deque(maxlen=self.rate_limit or 0)  # when the last requests came
        self._recent_lock = threading.Lock()
        self._seconds_ahead = 0.0
        self._running: Optional[contextlib.ExitStack] = None

    def start(self) -> LocalPlatform:
        if self._running is not None:
            raise RuntimeError("This platform is running already")
        with contextlib.ExitStack() as stack:
            database = stack.enter_context(contextlib.closing(_Database(self.max_query_seconds)))
            cache = _Cache(self._now)
            accounts = _Accounts(self._now)
            self._storage = _Storage()
            self._queue = stack.enter_context(contextlib.closing(_Queue(self._now, self._handlers)))
            self._operations: Dict[str, Tuple[int, Callable[[_Request], Dict[str, Any]]]] = {
                "/v1/ai/chat": (200, self._chat.answer),
                "/v1/auth/signin": (200, accounts.sign_in),
                "/v1/auth/signup": (201, accounts.sign_up),
                "/v1/cache/get": (200, cache.get),
                "/v1/cache/set": (200, cache.set),
                "/v1/db/query": (200, database.query),
                "/v1/queue/enqueue": (201, self._queue.enqueue),
                "/v1/services/invoke": (200, self._invoke),
                "/v1/storage/upload": (200, self._storage.upload),
            }
            self._server = stack.enter_context(contextlib.closing(_Server(self, self._answer)))
            self._running = stack.pop_all()
        return self

    def close(self) -> None:
        """Stop everything, and forget all but the functions that were registered."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def __enter__(self) -> LocalPlatform:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What to give the SDK as its server_url."""
        if self._running is None:
            raise RuntimeError("The platform has a URL while it is running")
        return "http://%s/v1" % self._server.authority

    def register_service(self, name: str, function: Function) -> None:
        """Let services.services_invoke call a function."""
        self._services[name] = function

    def register_handler(self, job_type: str, function: Function) -> None:
        """Let a function run the jobs of a type, those already waiting too."""
        self._handlers[job_type] = function
        self.advance(0)

    def wait_for_job(self, job_id: str, timeout: float = 10.0) -> Job:
        """The job, as soon as it is done or has failed; TimeoutError after that many seconds."""
        return self._queue.wait_for(job_id, timeout)

    def advance(self, seconds: float) -> None:
        """Move the platform's clock: entries and tokens expire, delayed jobs run."""
        self._seconds_ahead += seconds
        if self._running is not None:
            self._queue.wake()

    def _now(self) -> float:
        return time.time() + self._seconds_ahead

    def _answer(self, request: _Request) -> _Response:
        started = time.perf_counter()
        try:
            response = self._dispatch(request)
        except ApiError as error:
            response = error.response
        except Exception as error:
            if self.verbose:
                traceback.print_exc()
            response = ApiError(500, "INTERNAL_ERROR", _described(error)).response
        if self.verbose:
            took = (time.perf_counter() - started) * 1000
            print("%s %s %d %.1f ms" % (request.method, request.path, response.status, took), file=sys.stderr)
        return response

    def _dispatch(self, request: _Request) -> _Response:
        self._check_host(request.headers["host"])
        if request.path.startswith(FILES_PATH) and request.method in ("GET", "HEAD"):
            return self._storage.download(request)
        self._check_key(request.headers.get("x-aerostack-key", ""))
        self._check_rate()
        if request.path not in self._operations:
            raise _refused("There is no operation %s" % request.path, 404)
        if request.method != "POST":
            raise _refused("Operations are called by POST", 405, {"Allow": "POST"})
        request_id = request.headers.get("x-request-id")
        if request_id is not None and not _UUID.match(request_id):
            raise _invalid("X-Request-ID", "must be a UUID")
        status, operation = self._operations[request.path]
        return _json_response(status, operation(request))

    def _check_host(self, authority: str) -> None:
        """Refuse names of others: a web page may have made its own name resolve to this machine (DNS rebinding)."""
        host = re.sub(r":[0-9]*\Z", "", authority.lower()).strip("[]").rstrip(".")
        if host in ("localhost", self.host.lower(), *map(str.lower, self.allowed_hosts)):
            return
        with contextlib.suppress(ValueError):  # raised for a name; an address needs no DNS, and is whose it is
            if ipaddress.ip_address(host).is_loopback or self.allow_remote:
                return
        raise _refused("Host %r is not a name of this server; allowed_hosts can add it" % host, 421)

    def _check_key(self, key: str) -> None:
        if not key:
            raise ApiError(401, "AUTH_INVALID_KEY", "The header X-Aerostack-Key is missing or empty")
        if self.key is not None and not hmac.compare_digest(key.encode(), self.key.encode()):
            raise ApiError(401, "AUTH_INVALID_KEY", "The key in X-Aerostack-Key is not valid")

    def _check_rate(self) -> None:
        limit = self._recent.maxlen
        with self._recent_lock:
            if limit and len(self._recent) == limit and 0 <= self._now() - self._recent[0] < 1:
                message = "More than %d requests in a second" % limit
                raise ApiError(429, "RATE_LIMIT_EXCEEDED", message, headers={"Retry-After": "1"})
            self._recent.append(self._now())

    def _invoke(self, request: _Request) -> Dict[str, Any]:
        name, data = request.fields("serviceName", "data")
        if name not in self._services:
            raise _invalid("serviceName", "is %r, and no service has that name" % name, 404)
        return {"success": True, "result": self._services[name](data)}


class ApiError(Exception):
    """An error in the API's own shape. A service function may raise it, to answer with a status of its choice.

    The API knows six codes; whatever does not exist or is not allowed shares VALIDATION_ERROR.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Optional[Dict[str, Any]] = None,
        headers: Optional[Dict[str, str]] = None,
    ) -> None:
        super().__init__(message)
        self.response = _json_response(status, {"code": code, "message": message, "details": details or {}}, headers)


class Job(NamedTuple):
    """A queued job. Its status is "waiting", "running", "done" or "failed"."""

    id: str
    type: str
    data: Dict[str, Any]
    status: str
    result: Any
    error: Optional[str]


# ---- Services: request -> result ---------------------------------------------------------------------------------


class _Cache:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: Dict[str, Tuple[Any, float]] = {}  # value, when it expires

    def set(self, request: _Request) -> Dict[str, Any]:
        key, value, ttl = request.fields("key", "value", "ttl?")
        self._entries[key] = (value, math.inf if ttl is None else self._now() + ttl)
        return {"success": True}

    def get(self, request: _Request) -> Dict[str, Any]:
        (key,) = request.fields("key")
        value, expires = self._entries.get(key, (None, -math.inf))
        exists = expires > self._now()
        return {"value": value if exists else None, "exists": exists}


class _Database:
    """One statement of SQLite's a request. {"$base64": "..."} stands for bytes, in params and in rows."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._lock = threading.Lock()  # one connection, and so one query at a time
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.executescript("PRAGMA max_page_count = %d" % DATABASE_PAGES)
        self._connection.set_authorizer(_authorize)

    def close(self) -> None:
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            self._connection.close()

    def query(self, request: _Request) -> Dict[str, Any]:
        sql, params = request.fields("sql", "params?")
        # Twice: a query before this one may run into its limit.
        if not self._lock.acquire(timeout=min(2 * self._max_seconds, threading.TIMEOUT_MAX)):
            raise ApiError(503, "DB_QUERY_FAILED", "Other queries hold the database", headers={"Retry-After": "1"})
        try:
            return self._run(sql, [_from_cell(param) for param in params or ()], request.client_left)
        # sqlite3.Warning is no sqlite3.Error; before Python 3.12 two statements at once raise it.
        except (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError) as error:
            raise ApiError(400, "DB_QUERY_FAILED", str(error), {"reason": str(error)}) from error
        finally:
            self._lock.release()

    def _run(self, sql: str, params: List[Any], client_left: Callable[[], bool]) -> Dict[str, Any]:
        connection = self._connection
        deadline = time.monotonic() + self._max_seconds
        connection.set_progress_handler(lambda: time.monotonic() > deadline or client_left(), PROGRESS_STEPS)
        cursor = connection.cursor()
        try:
            cursor.execute(sql, params)
            names = [column[0] for column in cursor.description or ()]
            results = [dict(zip(names, map(_to_cell, row))) for row in _not_too_many(cursor)]
            if connection.in_transaction:
                raise ValueError("a transaction cannot outlive its request")
            return {"results": results, "count": len(results) if names else max(cursor.rowcount, 0)}
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise ValueError("the query took longer than %g seconds" % self._max_seconds) from None
            raise
        finally:
            cursor.close()
            connection.rollback()


def _not_too_many(rows: Iterable[Any]) -> Iterator[Any]:
    left = ROWS_BYTES
    for row in rows:
        left -= 64 + sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))
        if left < 0:
            raise ValueError("the rows have more than %d bytes; LIMIT makes them fewer" % ROWS_BYTES)
        yield row


def _authorize(action: int, first: Any, second: Any, *_: object) -> int:
    """Refuse what opens files or loads code. SQLite asks this of every step of a statement, before it runs.

    The two arguments are names, or None where SQL computes the name.
    """
    if action == sqlite3.SQLITE_ATTACH:
        allowed = _name(first) == ""  # VACUUM's own; VACUUM INTO attaches its file by name
    elif action == sqlite3.SQLITE_PRAGMA:
        allowed = _name(first) in _PRAGMAS
    elif action == _CREATE_VTABLE:
        allowed = _name(second) in _MODULES
    elif action == _FUNCTION:
        allowed = _name(second) not in _FILE_FUNCTIONS
    elif action == sqlite3.SQLITE_READ:
        allowed = _name(first) not in _FILE_TABLES
    else:
        allowed = True
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


_CREATE_VTABLE = 29  # PyPy's sqlite3 has no name for it
_FUNCTION = 31  # nor for this
# Those that name no file and change nothing outside. Full-text search itself needs page_size and data_version.
_PRAGMAS = frozenset(
    """
    application_id case_sensitive_like collation_list compile_options data_version database_list defer_foreign_keys
    encoding foreign_key_check foreign_key_list foreign_keys function_list ignore_check_constraints index_info
    index_list index_xinfo integrity_check legacy_alter_table module_list optimize page_count page_size pragma_list
    quick_check recursive_triggers reverse_unordered_selects table_info table_list table_xinfo user_version
    """.split()
)
_MODULES = frozenset("fts3 fts4 fts4aux fts5 fts5vocab geopoly rtree rtree_i32".split())  # virtual tables
# Which of these exist depends on how SQLite was built.
_FILE_FUNCTIONS = frozenset([None, "edit", "fts3_tokenizer", "load_extension", "readfile", "writefile"])
_FILE_TABLES = frozenset([None, "fsdir", "zipfile"])


def _name(argument: Any) -> Optional[str]:
    if isinstance(argument, str):
        return argument.lower()
    if not argument:  # None, and under PyPy a null pointer
        return None
    name = b""  # PyPy gives a pointer to C's characters
    while argument[len(name)] != b"\0":
        name += argument[len(name)]
    return name.decode("utf-8", "replace").lower()


def _to_cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and math.isinf(value) else value  # JSON has no infinity


def _from_cell(value: Any) -> Any:
    return base64.b64decode(value["$base64"]) if isinstance(value, dict) and list(value) == ["$base64"] else value


class _Queue:
    """Jobs wait for their time and for a handler of their type; one worker runs them in the order of their times."""

    def __init__(self, now: Callable[[], float], handlers: Dict[str, Function]) -> None:
        self._now = now
        self._handlers = handlers
        self._jobs: Dict[str, Job] = {}
        self._waiting: Dict[str, List[Tuple[float, int, str]]] = {}  # by type: heaps of (due, number, id)
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="local-platform-queue", daemon=True)
        self._worker.start()

    def close(self) -> None:
        self._closed = True
        self.wake()
        self._worker.join(CLOSE_SECONDS)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def enqueue(self, request: _Request) -> Dict[str, Any]:
        job_type, data, delay = request.fields("type", "data", "delay?")
        job = Job(_new_id("job"), job_type, data, "waiting", None, None)
        with self._changed:
            heap = self._waiting.setdefault(job_type, [])
            heapq.heappush(heap, (self._now() + (delay or 0), len(self._jobs), job.id))
            self._jobs[job.id] = job
            self._changed.notify_all()
        return {"success": True, "jobId": job.id}

    def wait_for(self, job_id: str, timeout: float) -> Job:
        with self._changed:
            if job_id not in self._jobs:
                raise LookupError("No job has the id %r" % job_id)
            if self._changed.wait_for(lambda: self._jobs[job_id].status in ("done", "failed"), timeout):
                return self._jobs[job_id]
            raise TimeoutError("After %g seconds the job is still %s" % (timeout, self._jobs[job_id].status))

    def _work(self) -> None:
        while True:
            job = self._take()
            if job is None:
                return
            try:
                result = json.loads(_to_json(self._handlers[job.type](job.data)))
                job = job._replace(status="done", result=result)
            except Exception as error:
                job = job._replace(status="failed", error=_described(error))
            with self._changed:
                self._jobs[job.id] = job
                self._changed.notify_all()

    def _take(self) -> Optional[Job]:
        """Wait for a job that is due and has a handler; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                heaps = [self._waiting[job_type] for job_type in list(self._handlers) if self._waiting.get(job_type)]
                heap = min(heaps, default=None)
                wait = None if heap is None else min(heap[0][0] - self._now(), 60)
                if heap is not None and wait is not None and wait <= 0:
                    job = self._jobs[heapq.heappop(heap)[2]]._replace(status="running")
                    self._jobs[job.id] = job
                    return job
                self._changed.wait(wait)
        return None


class _Accounts:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._accounts: Dict[str, Tuple[Dict[str, Any], bytes, bytes]] = {}  # user, salt, password's hash; by address
        self._secret = os.urandom(32)  # signs the tokens

    def sign_up(self, request: _Request) -> Dict[str, Any]:
        email, password, name, metadata = request.fields("email", "password", "name?", "metadata?")
        if not re.match(r"[^@\s]+@[^@\s]+\Z", email):
            raise _invalid("email", "must be an e-mail address")
        if not password:
            raise _invalid("password", "must not be empty")
        created = _timestamp(self._now())
        user = {"id": _new_id("user"), "email": email, "name": name, "metadata": metadata or {}, "createdAt": created}
        salt = os.urandom(16)
        account = (user, salt, _password_hash(password, salt))
        if self._accounts.setdefault(email.lower(), account) is not account:
            raise _invalid("email", "is the address of an account already", 409)
        return self._signed_in(user)

    def sign_in(self, request: _Request) -> Dict[str, Any]:
        email, password = request.fields("email", "password")
        # An unknown address takes as long as a wrong password, and is told the same.
        user, salt, password_hash = self._accounts.get(email.lower(), ({}, b"", b""))
        if not hmac.compare_digest(_password_hash(password, salt), password_hash):
            raise ApiError(401, "AUTH_INVALID_CREDENTIALS", "The e-mail address or the password is wrong")
        return self._signed_in(user)

    def _signed_in(self, user: Dict[str, Any]) -> Dict[str, Any]:
        """The user and a token, which is a JSON Web Token (RFC 7519)."""
        now = int(self._now())
        expires = now + TOKEN_SECONDS
        claims = {"sub": user["id"], "email": user["email"], "iat": now, "exp": expires}
        signed = b".".join(_base64url(_to_json(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        signature = _base64url(hmac.new(self._secret, signed, "sha256").digest())
        return {"token": (signed + b"." + signature).decode(), "expiresAt": _timestamp(expires), "user": user}


def _password_hash(password: str, salt: bytes) -> bytes:
    # A few hundredths of a second: enough to be real, and not so much that tests are slow.
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 60000)


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


class _Storage:
    def __init__(self) -> None:
        self._files: Dict[str, Tuple[str, memoryview]] = {}  # content type and content, by key

    def upload(self, request: _Request) -> Dict[str, Any]:
        key, content_type, content = _read_form(request)
        if not key or re.search(r"[\\\x00-\x1f\x7f]", key) or {"", ".", ".."}.intersection(key.split("/")):
            raise _invalid("key", "must be a relative path, without '..', empty steps, backslashes or controls")
        if not re.match(r"[\x20-\x7e]+\Z", content_type):
            raise _invalid("contentType", "must be printable ASCII")
        self._files[key] = (content_type, content)
        return {"url": "http://%s%s%s" % (request.headers["host"], FILES_PATH, quote(key))}

    def download(self, request: _Request) -> _Response:
        key = unquote(request.path[len(FILES_PATH) :])
        if key not in self._files:
            raise _refused("Nothing is stored under the key %r" % key, 404)
        content_type, content = self._files[key]
        return _Response(200, {"Content-Type": content_type}, content)


class _Chat:
    def __init__(self, url: Optional[str], key: Optional[str]) -> None:
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("ai_url must start with http:// or https://")
        self._url = url
        self._key = key

    def answer(self, request: _Request) -> Dict[str, Any]:
        names = ("messages", "model", "temperature", "max_tokens", "top_p")
        values = request.fields("messages", *(name + "?" for name in names[1:]))
        messages = values[0]
        if not messages:
            raise _invalid("messages", "must not be empty")
        for place, message in enumerate(messages):
            _check_message(message, "messages[%d]" % place)
        if self._url is not None:
            body = {name: value for name, value in zip(names, values) if value is not None}
            return {"response": self._forward(self._url.rstrip("/") + "/chat/completions", body)}
        said = [message for message in messages if message.get("role") in ("user", None)] or messages
        return {"response": "You said: " + _words(said[-1].get("content"))}

    def _forward(self, url: str, body: Dict[str, Any]) -> str:
        import http.client
        import urllib.request

        request = urllib.request.Request(url, _to_json(body).encode(), {"Content-Type": "application/json"})
        if self._key:
            request.add_unredirected_header("Authorization", "Bearer " + self._key)
        try:
            with urllib.request.urlopen(request, timeout=AI_TIMEOUT_SECONDS) as response:
                content = json.loads(response.read())["choices"][0]["message"]["content"]
            if not isinstance(content, str):
                raise TypeError("the message has no text")
            return content
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            if isinstance(error, urllib.request.HTTPError):
                error.close()
            raise ApiError(502, "INTERNAL_ERROR", "The AI server failed: " + _described(error)) from error


def _check_message(message: Any, place: str) -> None:
    if not isinstance(message, dict):
        raise _invalid(place, "must be an object")
    content, _ = _pick(message, ("content?", "role?"), place + ".")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        part_place = "%s.content[%d]" % (place, number)
        if not isinstance(part, dict):
            raise _invalid(part_place, "must be an object")
        _pick(part, ("type", "text?"), part_place + ".")


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("text") is not None)
    return content or ""


# ---- Fields: JSON -> checked values ------------------------------------------------------------------------------


def _pick(values: Dict[str, Any], names: Iterable[str], place: str = "") -> List[Any]:
    """The named values, each of the kind that its name demands; "?" marks one that may be null or absent."""
    picked = []
    for name in names:
        name, optional = name.rstrip("?"), name.endswith("?")
        value = values.get(name)
        if name not in values and not optional:
            raise _invalid(place + name, "is required")
        kind, is_one = _KINDS[name]
        if not (optional and value is None) and not is_one(value):
            raise _invalid(place + name, "must be " + kind)
        picked.append(value)
    return picked


def _is_text(value: Any) -> bool:  # JSON can spell half of a surrogate pair, and UTF-8 cannot
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_whole(value: Any) -> bool:  # true and false are ints, too
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any, largest: float) -> bool:
    return type(value) in (int, float) and 0 <= value <= largest


_TEXT = ("a string", _is_text)
_WHOLE = ("a whole number, not negative", _is_whole)
_LIST = ("an array", lambda value: isinstance(value, list))
_OBJECT = ("an object", lambda value: isinstance(value, dict))
_KINDS: Dict[str, Tuple[str, Callable[[Any], bool]]] = {  # of every field that the operations know
    **dict.fromkeys(("email", "key", "model", "name", "password", "role"), _TEXT),
    **dict.fromkeys(("serviceName", "sql", "text", "type"), _TEXT),
    **dict.fromkeys(("delay", "ttl"), _WHOLE),
    **dict.fromkeys(("messages", "params"), _LIST),
    **dict.fromkeys(("data", "metadata"), _OBJECT),
    "content": ("a string or an array", lambda value: _is_text(value) or isinstance(value, list)),
    "max_tokens": ("a whole number from 1", lambda value: _is_whole(value) and value > 0),
    "temperature": ("a number from 0 to 2", lambda value: _is_number(value, 2)),
    "top_p": ("a number from 0 to 1", lambda value: _is_number(value, 1)),
    "value": ("anything", lambda value: True),
}
# The header X-Request-ID; hyphens may be missing.
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\Z", re.IGNORECASE)


def _refused(message: str, status: int = 400, headers: Optional[Dict[str, str]] = None) -> ApiError:
    return ApiError(status, "VALIDATION_ERROR", message, headers=headers)


def _invalid(field: str, problem: str, status: int = 400) -> ApiError:
    return ApiError(status, "VALIDATION_ERROR", "Field '%s' %s" % (field, problem), {"field": field})


def _described(error: BaseException) -> str:
    return "%s: %s" % (type(error).__name__, error)


def _new_id(kind: str) -> str:
    return "%s_%s" % (kind, os.urandom(12).hex())


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _finite(text: str) -> float:
    number = float(text)
    if math.isfinite(number):
        return number
    raise ValueError("%s is not a JSON number" % text)


# By itself, json reads NaN, Infinity and 1e999, and we could not write them again.
_from_json = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


# ---- HTTP: sockets -> requests, responses -> sockets -------------------------------------------------------------


class _Response(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: Union[bytes, memoryview]


def _json_response(status: int, body: Dict[str, Any], headers: Optional[Dict[str, str]] = None) -> _Response:
    return _Response(status, {"Content-Type": "application/json", **(headers or {})}, _to_json(body).encode())


class _Server(socketserver.ThreadingTCPServer):
    """A thread that accepts, and one for each connection."""

    allow_reuse_address = os.name == "posix"  # on Windows it would let two servers share a port
    request_queue_size = 1024

    def __init__(self, options: LocalPlatform, answer: Callable[[_Request], _Response]) -> None:
        address: Any
        self.address_family, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        if not options.allow_remote and not ipaddress.ip_address(address[0]).is_loopback:
            raise ValueError("%s can be reached from other machines; allow_remote allows it" % options.host)
        super().__init__(address[:2], _Connection)
        self.answer = answer
        host = "[%s]" % options.host if ":" in options.host else options.host
        self.authority = "%s:%d" % (host, self.server_address[1])
        self._connections: Dict[threading.Thread, socket.socket] = {}
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="local-platform", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self._closing:  # serve_forever would wake twice a second to see whether to end
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        serve = functools.partial(self.process_request_thread, request, client_address)
        thread = threading.Thread(target=serve, name="local-platform", daemon=True)
        self._connections = {thread: sock for thread, sock in self._connections.items() if thread.is_alive()}
        thread.start()
        self._connections[thread] = request

    def close(self) -> None:
        self._closing = True
        host, port = self.server_address[:2]
        visited = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host)), port
        with contextlib.suppress(OSError), socket.create_connection(visited, CLOSE_SECONDS):
            pass  # so that the acceptor sees that it is to end
        self._acceptor.join()
        self.server_close()
        for sock in self._connections.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # unlike close(), wakes a thread that waits in recv
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._connections:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Connection(socketserver.StreamRequestHandler):
    """Requests in, responses out, one after the other, until one side ends the connection."""

    server: Any  # a _Server
    rbufsize = 256 * 1024
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client has left, or close() has shut the socket down
            while self._serve_one():
                pass

    def _serve_one(self) -> bool:
        try:
            request = _read_request(self)
        except ApiError as error:
            self._send(error.response, "POST", {"Connection": "close"})
            self._linger()
            return False
        if request is None:
            return False
        headers = {} if request.keep_alive else {"Connection": "close"}
        if "x-request-id" in request.headers:
            headers["X-Request-ID"] = request.headers["x-request-id"]
        self._send(self.server.answer(request), request.method, headers)
        return request.keep_alive

    def _send(self, response: _Response, method: str, headers: Dict[str, str]) -> None:
        status, own_headers, body = response
        lines = ["HTTP/1.1 %d %s" % (status, _PHRASES.get(status, "")), "Content-Length: %d" % len(body)]
        lines += ["%s: %s" % header for header in (*own_headers.items(), *headers.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if isinstance(body, bytes):  # in one packet, if it is short
            self.connection.sendall(head if method == "HEAD" else head + body)
        else:
            self.connection.sendall(head)
            self.connection.sendall(b"" if method == "HEAD" else body)

    def _linger(self) -> None:
        """Let the client read our answer: a socket closed over unread bytes is reset, and the answer is lost."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        deadline = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < deadline and self.connection.recv(self.rbufsize):
            pass

    def client_left(self) -> bool:
        """Whether the client has closed its side instead of waiting for our answer."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError as error:
            return not isinstance(error, BlockingIOError)
        finally:
            self.connection.settimeout(None)


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class _Request(NamedTuple):
    method: str
    path: str
    headers: Dict[str, str]
    body: Union[bytes, mmap.mmap]
    keep_alive: bool
    client_left: Callable[[], bool]

    def fields(self, *names: str) -> List[Any]:
        """The named fields of the body, which must be a JSON object."""
        if len(self.body) > JSON_BYTES:
            raise _refused("A JSON body may have %d bytes" % JSON_BYTES, 413)
        try:
            values = _from_json(self.body[:].decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise _refused("The body is not JSON: %s" % error) from None
        if not isinstance(values, dict):
            raise _refused("The body is not a JSON object")
        return _pick(values, names)


def _read_request(connection: _Connection) -> Optional[_Request]:
    """The next request; None when the client has no more."""
    reader = connection.rfile
    line = reader.readline(HEAD_BYTES)
    if line == b"\r\n":  # RFC 9112 2.2: some clients end a body with one line end too many
        line = reader.readline(HEAD_BYTES)
    if not line:
        return None
    try:
        method, target, version = line.decode("latin-1").split()
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise ValueError
        authority = "" if target.startswith("/") else urlsplit(target).netloc  # RFC 9112 3.2.2
        path = target.partition("?")[0] if target.startswith("/") else urlsplit(target).path
    except ValueError:
        raise _refused("The request line is not one of HTTP/1.1") from None
    headers = _read_headers(reader)
    if authority or version == "HTTP/1.0" and "host" not in headers:
        headers["host"] = authority or connection.server.authority
    if not _AUTHORITY.match(headers.get("host", "")):
        raise _refused("The header Host is missing or malformed")
    if version == "HTTP/1.1" and headers.get("expect", "").lower() == "100-continue":
        connection.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    keep_alive = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    return _Request(method, path, headers, _read_body(reader, headers), keep_alive, connection.client_left)


_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z_.-]+)(:[0-9]*)?\Z", re.IGNORECASE | re.ASCII)


def _read_headers(reader: io.BufferedIOBase) -> Dict[str, str]:
    """Header lines up to the empty one: names in lower case, repeated ones joined by commas."""
    headers: Dict[str, str] = {}
    left = HEAD_BYTES
    while True:
        line = reader.readline(left)
        left -= len(line)
        if left == 0:
            raise _refused("The head of the request is over %d bytes" % HEAD_BYTES, 431)
        if line == b"\r\n":
            return headers
        match = _HEADER.match(line)
        if match is None:
            raise _refused("A header line is malformed")
        name, value = match.group(1).decode("latin-1").lower(), match.group(2).decode("latin-1")
        headers[name] = headers[name] + ", " + value if name in headers else value


_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*\r\n\Z")


def _read_body(reader: io.BufferedIOBase, headers: Dict[str, str]) -> Union[bytes, mmap.mmap]:
    """The body in memory or, if it is long, mapped into it from a temporary file, which ends with the map."""
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as file:
        for block in _blocks(reader, headers):
            file.write(block)
        if file.tell() > MEMORY_BYTES:
            file.flush()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        file.seek(0)
        return file.read()


def _blocks(reader: io.BufferedIOBase, headers: Dict[str, str]) -> Iterator[bytes]:
    """The body's bytes as they come, without the framing."""
    if "transfer-encoding" not in headers:
        length = headers.get("content-length", "0")
        if not re.match(r"[0-9]{1,15}\Z", length):
            raise _refused("Content-Length is not a length")
        yield from _exactly(reader, int(length))
        return
    if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
        raise _refused("Transfer-Encoding must be chunked, and without Content-Length")
    size = -1
    while size != 0:
        match = re.match(rb"([0-9A-Fa-f]{1,12})[ \t]*(;.*)?\r\n\Z", reader.readline(HEAD_BYTES))
        if match is None:
            raise _refused("The size of a chunk is malformed")
        size = int(match.group(1), 16)
        yield from _exactly(reader, size)
        if size and reader.readline(3) != b"\r\n":
            raise _refused("A chunk is longer than its size")
    _read_headers(reader)  # trailers, of which nothing is wanted


def _exactly(reader: io.BufferedIOBase, size: int) -> Iterator[bytes]:
    while size:
        block = reader.read1(min(size, _Connection.rbufsize))
        if not block:
            raise ConnectionResetError("The client has left in the middle of a body")
        size -= len(block)
        yield block


# ---- Multipart: body -> key, content type, content ---------------------------------------------------------------


def _read_form(request: _Request) -> Tuple[str, str, memoryview]:
    found: Dict[str, Tuple[str, memoryview]] = {}
    for name, content_type, content in _parts(request.body, _boundary(request.headers)):
        if name in found:
            raise _invalid(name, "is given twice")
        if name in ("key", "contentType", "file"):
            found[name] = (content_type, content)
    for name in ("key", "file"):
        if name not in found:
            raise _invalid(name, "is required")
    content_type, content = found["file"]
    if "contentType" in found:
        content_type = _text("contentType", found["contentType"][1]) or content_type
    return _text("key", found["key"][1]), content_type or "application/octet-stream", content


def _text(name: str, content: memoryview) -> str:
    if len(content) > HEAD_BYTES:
        raise _invalid(name, "is too long")
    try:
        return bytes(content).decode()
    except UnicodeDecodeError:
        raise _invalid(name, "must be UTF-8") from None


def _boundary(headers: Dict[str, str]) -> bytes:
    pattern = r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;"]+))'
    match = re.match(pattern, headers.get("content-type", ""), re.IGNORECASE)
    if match is None:
        raise _invalid("Content-Type", "must be multipart/form-data with a boundary")
    return (match.group(1) or match.group(2)).encode("latin-1")


def _parts(body: Union[bytes, mmap.mmap], boundary: bytes) -> Iterator[Tuple[str, str, memoryview]]:
    """The name, the content type and the content of each part. Nothing is copied, however long the content is."""
    delimiter = b"\r\n--" + boundary
    at = _find(body, delimiter[2:], 0) + len(delimiter) - 2
    while body[at : at + 2] != b"--":
        start = _find(body, b"\r\n\r\n", at) + 4
        end = _find(body, delimiter, start)
        if start - at > HEAD_BYTES:
            raise _refused("The head of a part is over %d bytes" % HEAD_BYTES)
        head = body[at:start].decode("utf-8", "replace")
        name = re.search(r'(?im)^content-disposition:\s*form-data\b.*?;\s*name="([^"]*)"', head)
        kind = re.search(r"(?im)^content-type:[ \t]*(.*?)[ \t]*\r?$", head)
        yield name.group(1) if name else "", kind.group(1) if kind else "", memoryview(body)[start:end]
        at = end + len(delimiter)


def _find(body: Union[bytes, mmap.mmap], what: bytes, start: int) -> int:
    place = body.find(what, start)
    if place < 0:
        raise _refused("The multipart body ends before its last boundary")
    return place


# ---- Command line ------------------------------------------------------------------------------------------------


def main() -> int:
    import argparse
    import signal

    parser = argparse.ArgumentParser(description="An Aerostack of your own, for development and for tests.")
    option = parser.add_argument
    option("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    option("--port", type=int, default=8787, help="the port to listen on (%(default)s); 0 means any free one")
    option("--allow-remote", action="store_true", help="let --host be one that other machines reach")
    option("--allowed-hosts", nargs="+", default=(), metavar="NAME", help="names by which clients may address it, too")
    option("--key", default=os.environ.get("AEROSTACK_API_KEY") or None, help="the only good key (AEROSTACK_API_KEY)")
    option("--ai-url", metavar="URL", help="an OpenAI-compatible server for chat; its key is OPENAI_API_KEY")
    option("--max-query-seconds", type=float, default=10.0, metavar="N", help="how long a query may run (%(default)g)")
    option("--rate-limit", type=int, metavar="N", help="answer 429 to more than N requests a second")
    option("--verbose", action="store_true", help="write a line for each request, and tracebacks")
    options = vars(parser.parse_args())
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        platform = LocalPlatform(ai_key=os.environ.get("OPENAI_API_KEY"), **options)
        platform.register_service("echo", lambda data: data)
        with platform:
            key = "any key" if options["key"] is None else "the key"
            print('Aerostack is here: SDK("%s", server_url="%s"). Ctrl-C stops it.' % (key, platform.url), flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError, sqlite3.Error) as error:
        parser.exit(1, "The platform did not start: %s\n" % error)


if __name__ == "__main__":
    sys.exit(main())
