"""An Aerostack of your own: the nine operations on the standard library, for development and for tests.

From the command line (--help tells the rest):

    python3 examples/local_platform.py --port 8787 --data ./aerostack-data

Inside a test:

    with LocalPlatform() as platform:
        platform.register_service("double", lambda data: data["n"] * 2)
        sdk = SDK("any key", server_url=platform.url)
        sdk.services.services_invoke(service_name="double", data={"n": 21}).result       # 42
        sdk.cache.cache_set(key="greeting", value="hello", ttl=60)
        platform.advance(61)                                                             # no need to sleep
        sdk.cache.cache_get(key="greeting").exists                                       # False

Nothing is canned: SQL runs in SQLite, entries expire, jobs run, passwords are hashed, uploads are served at the
URL that the upload returned. Without a data folder everything is in memory; with one it outlives the process:

    database.sqlite3    what your SQL made
    platform.sqlite3    accounts, cache, jobs, the index of uploads, the secret that signs tokens
    files/              the uploads, each named by the hash of its key

It is a workbench, not a production server: it listens on loopback only, unless told.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import hashlib
import hmac
import io
import json
import math
import os
import re
import socket
import socketserver
import sqlite3
import sys
import threading
import time
import traceback
from http import HTTPStatus
from typing import Any, BinaryIO, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import quote, unquote, urlsplit

__all__ = ["ApiError", "Job", "LocalPlatform"]

Function = Callable[[Dict[str, Any]], Any]
"""A service or a job handler: it is given the `data` of the request, and returns anything that JSON can hold."""

FILES_PATH = "/v1/storage/files/"  # where uploads are served
TOKEN_SECONDS = 24 * 60 * 60
AI_TIMEOUT_SECONDS = 60
CLOSE_SECONDS = 5  # how long close() waits for a function that is still running
LINGER_SECONDS = 2  # how long a client may go on sending a body that was refused
PIECE_BYTES = 256 * 1024  # read and written at a time, whatever the size of a file
HEAD_BYTES = 64 * 1024  # a request's head; a text field of an upload; a refused body that is worth skipping


class LocalPlatform:
    """The platform. Start it with `with`, or with start() and close().

    Any key is good, unless `key` names the only good one. `rate_limit` is in requests a second. `ai_url` is the
    base URL of an OpenAI-compatible server, such as "http://localhost:11434/v1", and `ai_key` the key for it.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        data: Union[str, os.PathLike[str], None] = None,
        key: Optional[str] = None,
        ai_url: Optional[str] = None,
        rate_limit: Optional[int] = None,
        *,
        ai_key: Optional[str] = None,
        allow_remote: bool = False,
        max_json_bytes: int = 16 * 1024 * 1024,
        verbose: bool = False,
    ) -> None:
        if rate_limit is not None and rate_limit < 1:
            raise ValueError("rate_limit must be at least 1")
        self._host, self._port, self._allow_remote = host, port, allow_remote
        self._folder = None if data is None else os.fspath(data)
        self._key, self._max_json_bytes, self._verbose = key, max_json_bytes, verbose
        self._recent: Deque[float] = collections.deque(maxlen=rate_limit or 0)  # when the last requests came
        self._recent_lock = threading.Lock()
        self._functions: Dict[str, Function] = {}
        self._handlers: Dict[str, Function] = {}
        self._chat = _Chat(ai_url, ai_key)
        self._ahead = 0.0
        self._running: Optional[contextlib.ExitStack] = None

    def start(self) -> LocalPlatform:
        if self._running is not None:
            raise RuntimeError("This platform is running already")
        if self._folder is not None:
            os.makedirs(self._path("files"), exist_ok=True)
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(_Sqlite(self._path("platform.sqlite3"), _TABLES))
            database = stack.enter_context(_Sqlite(self._path("database.sqlite3")))
            cache = _Cache(store, self._now)
            self._accounts = _Accounts(store, self._now)
            self._storage = _Storage(store, None if self._folder is None else self._path("files"))
            self._queue = _Queue(store, self._now, self._handlers)
            stack.callback(self._queue.close)
            self._operations: Dict[str, Tuple[int, Callable[[_Request], Dict[str, Any]]]] = {
                "/v1/ai/chat": (200, self._chat.answer),
                "/v1/auth/signin": (200, self._accounts.sign_in),
                "/v1/auth/signup": (201, self._accounts.sign_up),
                "/v1/cache/get": (200, cache.get),
                "/v1/cache/set": (200, cache.set),
                "/v1/db/query": (200, _Database(database).query),
                "/v1/queue/enqueue": (201, self._queue.enqueue),
                "/v1/services/invoke": (200, self._invoke),
                "/v1/storage/upload": (200, self._storage.upload),
            }
            self._server = _Server(self._host, self._port, self._allow_remote, self._answer)
            stack.callback(self._server.close)
            stack.callback(database.connection.interrupt)  # comes first, lest closing wait for an endless query
            self._running = stack.pop_all()
        return self

    def close(self) -> None:
        """Stop everything; what stands in a data folder is there for the next start."""
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

    def register_service(self, name: str, function: Optional[Function] = None) -> Callable[..., Any]:
        """Let services.services_invoke call a function. Without one, a decorator."""
        if function is None:
            return lambda decorated: self.register_service(name, decorated)
        self._functions[name] = function
        return function

    def register_handler(self, job_type: str, function: Optional[Function] = None) -> Callable[..., Any]:
        """Let a function run the jobs of a type, those already waiting too. Without one, a decorator."""
        if function is None:
            return lambda decorated: self.register_handler(job_type, decorated)
        self._handlers[job_type] = function
        self.advance(0)
        return function

    def wait_for_job(self, job_id: str, timeout: float = 10.0) -> Job:
        """The job, as soon as it is done or has failed; TimeoutError after that many seconds."""
        return self._queue.wait_for(job_id, timeout)

    def verify_token(self, token: str) -> Dict[str, Any]:
        """The claims of a token from sign-in; ValueError when it is not ours, was altered, or has expired."""
        return self._accounts.verify(token)

    def advance(self, seconds: float) -> None:
        """Move the platform's clock: entries and tokens expire, delayed jobs run."""
        self._ahead += seconds
        if self._running is not None:
            self._queue.wake()

    def _now(self) -> float:
        return time.time() + self._ahead

    def _path(self, name: str) -> str:
        return ":memory:" if self._folder is None else os.path.join(self._folder, name)

    def _answer(self, request: _Request) -> _Response:
        started = time.perf_counter()
        try:
            response = self._dispatch(request)
        except ApiError as error:
            response = error.response()
        except Exception as error:
            if isinstance(error, ConnectionError) and not request.body.finished:
                raise  # the client has left, and nobody waits for an answer
            if self._verbose:
                traceback.print_exc()
            response = ApiError(500, "INTERNAL_ERROR", _told(error)).response()
        if self._verbose:
            took = (time.perf_counter() - started) * 1000
            print("%s %s %d %.1f ms" % (request.method, request.path, response.status, took), file=sys.stderr)
        return response

    def _dispatch(self, request: _Request) -> _Response:
        if request.path.startswith(FILES_PATH) and request.method in ("GET", "HEAD"):
            return self._storage.download(request)
        self._check_key(request.headers.get("x-aerostack-key", ""))
        self._check_rate()
        if request.path not in self._operations:
            raise _refused("There is no operation %s" % request.path, 404)
        if request.method != "POST":
            raise _refused("Operations are called by POST", 405, {"Allow": "POST"})
        request.max_json_bytes = self._max_json_bytes
        status, operation = self._operations[request.path]
        return _json_response(status, operation(request))

    def _check_key(self, key: str) -> None:
        if not key:
            raise ApiError(401, "AUTH_INVALID_KEY", "The header X-Aerostack-Key is missing or empty")
        if self._key is not None and not hmac.compare_digest(key.encode(), self._key.encode()):
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
        if name not in self._functions:
            raise _invalid("serviceName", "is %r, and no service has that name" % name, 404)
        return {"success": True, "result": self._functions[name](data)}


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
        self.status, self.code, self.message = status, code, message
        self.details, self.headers = details or {}, headers or {}

    def response(self) -> _Response:
        body = {"code": self.code, "message": self.message, "details": self.details}
        return _json_response(self.status, body, self.headers)


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
    def __init__(self, store: _Sqlite, now: Callable[[], float]) -> None:
        self._store, self._now = store, now

    def set(self, request: _Request) -> Dict[str, Any]:
        key, value, ttl = request.fields("key", "value", "ttl?")
        expires = None if ttl is None else self._now() + ttl
        self._store.rows("DELETE FROM cache WHERE expires <= ?", self._now())
        self._store.rows("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", key, _to_json(value), expires)
        return {"success": True}

    def get(self, request: _Request) -> Dict[str, Any]:
        (key,) = request.fields("key")
        query = "SELECT value FROM cache WHERE key = ? AND (expires IS NULL OR expires > ?)"
        for (value,) in self._store.rows(query, key, self._now()):
            return {"value": json.loads(value), "exists": True}
        return {"value": None, "exists": False}


class _Database:
    """One statement of SQLite's a request. {"$base64": "..."} stands for bytes, in params and in rows."""

    def __init__(self, database: _Sqlite) -> None:
        self._database = database
        database.connection.set_authorizer(self._authorize)

    def query(self, request: _Request) -> Dict[str, Any]:
        sql, params = request.fields("sql", "params?")
        try:
            with self._database.lock:
                return self._run(self._database.connection, sql, [_from_cell(param) for param in params or ()])
        # sqlite3.Warning is no sqlite3.Error; before Python 3.12 two statements at once raise it.
        except (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError) as error:
            raise ApiError(400, "DB_QUERY_FAILED", str(error), {"reason": str(error)}) from error

    def _run(self, connection: sqlite3.Connection, sql: str, params: List[Any]) -> Dict[str, Any]:
        cursor = connection.execute(sql, params)
        try:
            names = [column[0] for column in cursor.description or ()]
            results = [dict(zip(names, map(_to_cell, row))) for row in cursor]
            if connection.in_transaction:
                raise ValueError("a transaction cannot outlive its request")
            return {"results": results, "count": len(results) if names else max(cursor.rowcount, 0)}
        finally:
            cursor.close()
            connection.rollback()

    @staticmethod
    def _authorize(action: int, name: Optional[str], *_: object) -> int:
        # Neither ATTACH nor VACUUM INTO may write elsewhere; plain VACUUM attaches a file without a name.
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH and name else sqlite3.SQLITE_OK


def _to_cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and math.isinf(value) else value  # JSON has no infinity


def _from_cell(value: Any) -> Any:
    return base64.b64decode(value["$base64"]) if isinstance(value, dict) and list(value) == ["$base64"] else value


class _Queue:
    """Jobs wait for their time and for a handler of their type; one worker runs them in the order of their times."""

    def __init__(self, store: _Sqlite, now: Callable[[], float], handlers: Dict[str, Function]) -> None:
        self._store, self._now, self._handlers = store, now, handlers
        self._changed = threading.Condition()
        self._open = True
        store.rows("UPDATE jobs SET status = 'waiting' WHERE status = 'running'")  # if the last process was killed
        self._worker = threading.Thread(target=self._work, name="local-platform-queue", daemon=True)
        self._worker.start()

    def close(self) -> None:
        self._open = False
        self.wake()
        self._worker.join(CLOSE_SECONDS)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def enqueue(self, request: _Request) -> Dict[str, Any]:
        job_type, data, delay = request.fields("type", "data", "delay?")
        job = (_new_id("job"), job_type, _to_json(data), self._now() + (delay or 0))
        with self._changed:
            self._store.rows("INSERT INTO jobs (id, type, data, due, status) VALUES (?, ?, ?, ?, 'waiting')", *job)
            self._changed.notify_all()
        return {"success": True, "jobId": job[0]}

    def wait_for(self, job_id: str, timeout: float) -> Job:
        with self._changed:
            if self._changed.wait_for(lambda: self._job(job_id).status in ("done", "failed"), timeout):
                return self._job(job_id)
            raise TimeoutError("After %g seconds the job is still %s" % (timeout, self._job(job_id).status))

    def _job(self, job_id: str) -> Job:
        query = "SELECT id, type, data, status, result, error FROM jobs WHERE id = ?"
        for _, job_type, data, status, result, error in self._store.rows(query, job_id):
            return Job(job_id, job_type, json.loads(data), status, json.loads(result or "null"), error)
        raise LookupError("No job has the id %r" % job_id)

    def _work(self) -> None:
        while True:
            job = self._take()
            if job is None:
                return
            outcome: Tuple[str, str, Optional[str]]
            try:
                outcome = ("done", _to_json(self._handlers[job.type](job.data)), None)
            except Exception as error:
                outcome = ("failed", "null", _told(error))
            with self._changed:
                self._store.rows("UPDATE jobs SET status = ?, result = ?, error = ? WHERE id = ?", *outcome, job.id)
                self._changed.notify_all()

    def _take(self) -> Optional[Job]:
        """Wait for a job that is due and has a handler; None once the queue is closed."""
        query = "SELECT id, due FROM jobs WHERE status = 'waiting' AND type IN (%s) ORDER BY due, rowid LIMIT 1"
        with self._changed:
            while self._open:
                types, wait = list(self._handlers), None
                for job_id, due in self._store.rows(query % ", ".join("?" * len(types)), *types):
                    wait = min(due - self._now(), 60)
                    if wait <= 0:
                        self._store.rows("UPDATE jobs SET status = 'running' WHERE id = ?", job_id)
                        return self._job(job_id)
                self._changed.wait(wait)
        return None


class _Accounts:
    def __init__(self, store: _Sqlite, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        store.rows("INSERT OR IGNORE INTO settings VALUES ('token secret', ?)", os.urandom(32))
        self._secret: bytes = store.rows("SELECT value FROM settings WHERE name = 'token secret'")[0][0]

    def sign_up(self, request: _Request) -> Dict[str, Any]:
        email, password, name, metadata = request.fields("email", "password", "name?", "metadata?")
        if not re.match(r"[^@\s]+@[^@\s]+\Z", email):
            raise _invalid("email", "must be an e-mail address")
        if not password:
            raise _invalid("password", "must not be empty")
        account = (_new_id("user"), email, name, _to_json(metadata or {}), self._now())
        try:
            self._store.rows("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)", *account, _hash_password(password))
        except sqlite3.IntegrityError:
            raise _invalid("email", "is the address of an account already", 409) from None
        return self._signed_in(*account)

    def sign_in(self, request: _Request) -> Dict[str, Any]:
        email, password = request.fields("email", "password")
        # An unknown address takes as long as a wrong password, and is told the same.
        rows = self._store.rows("SELECT * FROM accounts WHERE email = ?", email) or [("scrypt$00$",)]
        *account, known = rows[0]
        if not hmac.compare_digest(_hash_password(password, known), known):
            raise ApiError(401, "AUTH_INVALID_CREDENTIALS", "The e-mail address or the password is wrong")
        return self._signed_in(*account)

    def verify(self, token: str) -> Dict[str, Any]:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(signed.encode())):
            raise ValueError("The token is not one of this platform's, or was altered")
        payload = signed.partition(".")[2]
        claims: Dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if claims["exp"] <= self._now():
            raise ValueError("The token has expired")
        return claims

    def _signed_in(self, user_id: str, email: str, name: Optional[str], metadata: str, made: float) -> Dict[str, Any]:
        now = int(self._now())
        claims: Dict[str, Any] = {"sub": user_id, "email": email, "iat": now, "exp": now + TOKEN_SECONDS}
        signed = b".".join(_base64url(_to_json(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return {
            "token": (signed + b"." + self._signature(signed)).decode(),
            "expiresAt": _timestamp(claims["exp"]),
            "user": {
                "id": user_id,
                "email": email,
                "name": name,
                "metadata": json.loads(metadata),
                "createdAt": _timestamp(made),
            },
        }

    def _signature(self, signed: bytes) -> bytes:
        return _base64url(hmac.new(self._secret, signed, "sha256").digest())


def _hash_password(password: str, like: str = "") -> str:
    """method$salt$hash, with the method and the salt of another such text if there is one."""
    method, salt, _ = like.split("$") if like else (_METHOD, os.urandom(16).hex(), "")
    # Either takes a few hundredths of a second: enough to be real, and not so much that tests crawl.
    if method == "scrypt":
        digest = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**13, r=8, p=1)
    else:
        digest = hashlib.pbkdf2_hmac("sha256", password.encode(), bytes.fromhex(salt), 60000)
    return "$".join((method, salt, digest.hex()))


_METHOD = "scrypt" if hasattr(hashlib, "scrypt") else "pbkdf2"  # not every Python is built with scrypt


class _Storage:
    """On disk, a file's name is the hash of its key: any key makes a good name, and none leads out of the folder."""

    def __init__(self, store: _Sqlite, folder: Optional[str]) -> None:
        self._store, self._folder = store, folder
        self._in_memory: Dict[str, bytes] = {}
        self._lock = threading.Lock()  # so that a file and its content type change together

    def upload(self, request: _Request) -> Dict[str, Any]:
        with self._new_file() as file:
            key, content_type = _read_form(request, file)
            if not key or re.search(r"[\\\x00-\x1f\x7f]", key) or {"", ".", ".."}.intersection(key.split("/")):
                raise _invalid("key", "must be a relative path, without '..', empty steps, backslashes or controls")
            if not re.match(r"[\x20-\x7e]+\Z", content_type):
                raise _invalid("contentType", "must be printable ASCII")
            with self._lock:
                self._keep(file, key)
                self._store.rows("INSERT OR REPLACE INTO files VALUES (?, ?)", key, content_type)
        return {"url": "http://%s%s%s" % (request.headers["host"], FILES_PATH, quote(key))}

    def download(self, request: _Request) -> _Response:
        key = unquote(request.path[len(FILES_PATH) :])
        with self._lock:
            for (content_type,) in self._store.rows("SELECT content_type FROM files WHERE key = ?", key):
                body = self._in_memory[key] if self._folder is None else open(self._path(key), "rb")
                return _Response(200, {"Content-Type": content_type}, body)
        raise _refused("Nothing is stored under the key %r" % key, 404)

    @contextlib.contextmanager
    def _new_file(self) -> Iterator[BinaryIO]:
        """A file under a temporary name, gone afterwards unless it was kept."""
        if self._folder is None:
            yield io.BytesIO()
            return
        path = os.path.join(self._folder, _new_id("upload"))
        try:
            with open(path, "wb") as file:
                yield file
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def _keep(self, file: BinaryIO, key: str) -> None:
        if isinstance(file, io.BytesIO):
            self._in_memory[key] = file.getvalue()
        else:
            file.close()  # Windows renames no open file
            os.replace(file.name, self._path(key))

    def _path(self, key: str) -> str:
        return os.path.join(self._folder or "", hashlib.sha256(key.encode()).hexdigest())


class _Chat:
    def __init__(self, url: Optional[str], key: Optional[str]) -> None:
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("ai_url must start with http:// or https://")
        self._url, self._key = url, key

    def answer(self, request: _Request) -> Dict[str, Any]:
        messages, model = request.fields("messages", "model?")
        if not messages:
            raise _invalid("messages", "must not be empty")
        for place, message in enumerate(messages):
            if not isinstance(message, dict):
                raise _invalid("messages[%d]" % place, "must be an object")
            _pick(message, ("content?", "role?"), "messages[%d]." % place)
        if self._url is not None:
            body = {"messages": messages, **({} if model is None else {"model": model})}
            return {"response": self._forward(self._url.rstrip("/") + "/chat/completions", body)}
        said = [message for message in messages if message.get("role") in ("user", None)] or messages
        return {"response": "You said: %s" % (said[-1].get("content") or "")}

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
            raise ApiError(502, "INTERNAL_ERROR", "The AI server failed: " + _told(error)) from error


# ---- What the services stand on ----------------------------------------------------------------------------------


_TABLES = """
    CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value);
    CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, email TEXT UNIQUE COLLATE NOCASE, name TEXT,
        metadata TEXT, made REAL, password TEXT);
    CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, value TEXT, expires REAL);
    CREATE INDEX IF NOT EXISTS cache_expires ON cache (expires);
    CREATE TABLE IF NOT EXISTS files (key TEXT PRIMARY KEY, content_type TEXT);
    CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, type TEXT, data TEXT, due REAL, status TEXT, result TEXT,
        error TEXT);
    CREATE INDEX IF NOT EXISTS jobs_due ON jobs (status, due);
"""


class _Sqlite:
    """One connection, shared by all threads under a lock. Every statement commits by itself."""

    def __init__(self, path: str, schema: str = "") -> None:
        self.lock = threading.Lock()
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self.connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + schema)
        except BaseException:
            self.connection.close()
            raise

    def rows(self, sql: str, *params: Any) -> List[Any]:
        with self.lock:
            return self.connection.execute(sql, params).fetchall()

    def __enter__(self) -> _Sqlite:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.connection.close()


_KINDS: Dict[str, type] = {  # of every field that the operations know
    **dict.fromkeys(("content", "role", "model", "email", "password", "name"), str),
    **dict.fromkeys(("key", "sql", "type", "serviceName"), str),
    **dict.fromkeys(("delay", "ttl"), int),
    **dict.fromkeys(("messages", "params"), list),
    **dict.fromkeys(("data", "metadata"), dict),
    "value": object,
}
_WORDS = {str: "a string", int: "a whole number, not negative", list: "an array", dict: "an object"}


def _pick(values: Dict[str, Any], names: Iterable[str], place: str = "") -> List[Any]:
    """The named values, each of the kind that its name demands; "?" marks one that may be null or absent."""
    picked = []
    for name in names:
        name, optional = name.rstrip("?"), name.endswith("?")
        kind, value = _KINDS[name], values.get(name)
        if name not in values and not optional:
            raise _invalid(place + name, "is required")
        if not (optional and value is None) and not _is_one(kind, value):
            raise _invalid(place + name, "must be " + _WORDS[kind])
        picked.append(value)
    return picked


def _is_one(kind: type, value: Any) -> bool:
    if kind is int:  # true and false are ints, too, and SQLite has no larger ones
        return type(value) is int and 0 <= value < 2**63
    if kind is str:  # JSON can spell half of a surrogate pair, and UTF-8 cannot
        return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    return isinstance(value, kind)


def _refused(message: str, status: int = 400, headers: Optional[Dict[str, str]] = None) -> ApiError:
    return ApiError(status, "VALIDATION_ERROR", message, headers=headers)


def _invalid(field: str, problem: str, status: int = 400) -> ApiError:
    return ApiError(status, "VALIDATION_ERROR", "Field '%s' %s" % (field, problem), {"field": field})


def _told(error: BaseException) -> str:
    return "%s: %s" % (type(error).__name__, error)


def _new_id(kind: str) -> str:
    return "%s_%s" % (kind, os.urandom(12).hex())


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


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
    body: Union[bytes, BinaryIO]


def _json_response(status: int, body: Dict[str, Any], headers: Optional[Dict[str, str]] = None) -> _Response:
    return _Response(status, {"Content-Type": "application/json", **(headers or {})}, _to_json(body).encode())


class _Server(socketserver.ThreadingTCPServer):
    """A thread that accepts, and one for each connection."""

    allow_reuse_address = os.name == "posix"  # on Windows it would let two servers share a port
    request_queue_size = 1024

    def __init__(self, host: str, port: int, allow_remote: bool, answer: Callable[[_Request], _Response]) -> None:
        address: Any
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not allow_remote and not str(address[0]).startswith("127.") and address[0] != "::1":
            raise ValueError("%s can be reached from other machines; allow_remote allows it" % host)
        super().__init__(address[:2], _Connection)
        self.answer = answer
        self.authority = "%s:%d" % ("[%s]" % host if ":" in host else host, self.server_address[1])
        self._connections: Dict[threading.Thread, socket.socket] = {}
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="local-platform", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self._closing:  # serve_forever would look for its end many times a second, day and night
            self.handle_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return not self._closing

    def process_request(self, request: Any, client_address: Any) -> None:
        serve, arguments = self.process_request_thread, (request, client_address)
        thread = threading.Thread(target=serve, args=arguments, name="local-platform", daemon=True)
        self._connections = {thread: sock for thread, sock in self._connections.items() if thread.is_alive()}
        thread.start()
        self._connections[thread] = request

    def close(self) -> None:
        self._closing = True
        host, port = self.server_address[:2]
        visited = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host)), port
        with contextlib.suppress(OSError), socket.create_connection(visited, CLOSE_SECONDS):
            pass  # so that the acceptor looks up
        self._acceptor.join()
        self.server_close()
        for sock in self._connections.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # unlike close(), wakes a thread that waits in recv
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._connections:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Connection(socketserver.StreamRequestHandler):
    """Requests in, responses out, one after the other, until either side has had enough."""

    server: Any  # a _Server
    rbufsize = PIECE_BYTES
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client has left, or close() has cut the line
            while self._serve_one():
                pass

    def _serve_one(self) -> bool:
        try:
            request = _read_request(self)
        except ApiError as error:
            self._send(error.response(), "POST", {"Connection": "close"})
            self._linger()
            return False
        if request is None:
            return False
        response = self.server.answer(request)
        keep_alive = request.keep_alive and request.body.can_skip
        headers = {} if keep_alive else {"Connection": "close"}
        if "x-request-id" in request.headers:
            headers["X-Request-ID"] = request.headers["x-request-id"]
        self._send(response, request.method, headers)
        while keep_alive and request.body.read():
            pass
        if not request.body.finished:
            self._linger()
        return keep_alive

    def _send(self, response: _Response, method: str, headers: Dict[str, str]) -> None:
        status, own_headers, body = response
        size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
        lines = ["HTTP/1.1 %d %s" % (status, _PHRASES.get(status, "")), "Content-Length: %d" % size]
        lines += ["%s: %s" % header for header in (*own_headers.items(), *headers.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if isinstance(body, bytes):
            self.connection.sendall(head if method == "HEAD" else head + body)
            return
        with body:
            piece = head
            while piece:
                self.connection.sendall(piece)
                piece = b"" if method == "HEAD" else body.read(PIECE_BYTES)

    def _linger(self) -> None:
        """Let the client read our answer: a socket closed over unread bytes is reset, and the answer is lost."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        deadline = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < deadline and self.connection.recv(PIECE_BYTES):
            pass


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class _Request:
    max_json_bytes = 0

    def __init__(self, method: str, path: str, headers: Dict[str, str], keep_alive: bool, body: _Body) -> None:
        self.method, self.path, self.headers, self.keep_alive, self.body = method, path, headers, keep_alive, body

    def fields(self, *names: str) -> List[Any]:
        """The named fields of the body, which must be a JSON object."""
        content = bytearray()
        while not self.body.finished:
            if len(content) + self.body.left > self.max_json_bytes:
                raise _refused("A JSON body may have %d bytes" % self.max_json_bytes, 413)
            content += self.body.read()
        try:
            values = _from_json(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise _refused("The body is not JSON: %s" % error) from None
        if not isinstance(values, dict):
            raise _refused("The body is not a JSON object")
        return _pick(values, names)


def _read_request(connection: _Connection) -> Optional[_Request]:
    """The next request with its body still unread; None when the client has no more."""
    reader = connection.rfile
    line = reader.readline(HEAD_BYTES)
    if line == b"\r\n":  # RFC 9112 2.2: some clients end a body with one line end too many
        line = reader.readline(HEAD_BYTES)
    if not line:
        return None
    try:
        method, target, version = line.decode("latin-1").split()
        path = target.partition("?")[0] if target.startswith("/") else urlsplit(target).path  # RFC 9112 3.2.2
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise ValueError
    except ValueError:
        raise _refused("The request line is not one of HTTP/1.1") from None
    headers = _read_headers(reader)
    if not re.match(r"[A-Za-z0-9_.:\[\]-]+\Z", headers.get("host", "")):
        headers["host"] = connection.server.authority
    keep_alive = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    expects = version == "HTTP/1.1" and headers.get("expect", "").lower() == "100-continue"
    body = _Body(reader, headers, connection.connection if expects else None)
    return _Request(method, path, headers, keep_alive, body)


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


class _Body:
    """The bytes of a request's body, whatever their framing. The first read answers Expect: 100-continue."""

    def __init__(self, reader: io.BufferedIOBase, headers: Dict[str, str], waiting: Optional[socket.socket]) -> None:
        length = headers.get("content-length", "0")
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if "transfer-encoding" in headers and (not self._chunked or "content-length" in headers):
            raise _refused("Transfer-Encoding must be chunked, and without Content-Length")
        if not re.match(r"[0-9]{1,15}\Z", length):
            raise _refused("Content-Length is not a length")
        self._reader, self._waiting = reader, waiting
        self.left = int(length)  # of the body, or of its current chunk
        self.finished = not self._chunked and self.left == 0

    @property
    def can_skip(self) -> bool:
        """Whether reading the rest is worth it, to keep the connection."""
        return self.finished or not self._chunked and self._waiting is None and self.left <= HEAD_BYTES

    def read(self) -> bytes:
        """The next bytes, at least one; none at the end."""
        if self._waiting is not None and not self.finished:
            self._waiting.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waiting = None
        if self._chunked and self.left == 0 and not self.finished:
            self._start_chunk()
        if self.finished:
            return b""
        piece = self._reader.read1(min(self.left, PIECE_BYTES))
        if not piece:
            raise ConnectionResetError("The client has left in the middle of a body")
        self.left -= len(piece)
        self.finished = not self._chunked and self.left == 0
        if self._chunked and self.left == 0 and self._reader.readline(3) != b"\r\n":
            raise _refused("A chunk is longer than its size")
        return piece

    def _start_chunk(self) -> None:
        size = re.match(rb"([0-9A-Fa-f]{1,12})[ \t]*(;.*)?\r\n\Z", self._reader.readline(HEAD_BYTES))
        if size is None:
            raise _refused("The size of a chunk is malformed")
        self.left = int(size.group(1), 16)
        if self.left == 0:
            _read_headers(self._reader)  # trailers, of which nothing is wanted
            self.finished = True


# ---- Multipart: a stream of bytes -> a stream of parts -----------------------------------------------------------


def _read_form(request: _Request, file: BinaryIO) -> Tuple[str, str]:
    """Write the part "file" to a file as it comes; return the key and the content type."""
    found: Dict[str, str] = {}
    for name, content_type, pieces in _parts(request):
        if name in found:
            raise _invalid(name, "is given twice")
        if name == "file":
            found[name] = content_type
            for piece in pieces:
                file.write(piece)
        elif name in ("key", "contentType"):
            found[name] = _text(name, pieces)
    for name in ("key", "file"):
        if name not in found:
            raise _invalid(name, "is required")
    return found["key"], found.get("contentType") or found["file"] or "application/octet-stream"


def _text(name: str, pieces: Iterator[bytes]) -> str:
    content = b""
    for piece in pieces:
        content += piece
        if len(content) > HEAD_BYTES:
            raise _invalid(name, "is too long")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _invalid(name, "must be UTF-8") from None


def _parts(request: _Request) -> Iterator[Tuple[str, str, Iterator[bytes]]]:
    """The name, the content type and the content of each part. Memory stays small, however large the parts are."""
    form = re.match(
        r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;"]+))',
        request.headers.get("content-type", ""),
        re.IGNORECASE,
    )
    if form is None:
        raise _invalid("Content-Type", "must be multipart/form-data with a boundary")
    delimiter = b"\r\n--" + (form.group(1) or form.group(2)).encode("latin-1")
    stream = _Delimited(request.body)
    for _ in stream.until(delimiter):  # whatever stands before the first part
        pass
    while not stream.is_at(b"--"):
        head = b"".join(stream.until(b"\r\n\r\n", HEAD_BYTES)).decode("utf-8", "replace")
        name = re.search(r'(?im)^content-disposition:\s*form-data\b.*?;\s*name="([^"]*)"', head)
        kind = re.search(r"(?im)^content-type:[ \t]*(.*?)[ \t]*\r?$", head)
        pieces = stream.until(delimiter)
        yield name.group(1) if name else "", kind.group(1) if kind else "", pieces
        for _ in pieces:  # whatever the caller did not want
            pass
    while request.body.read():  # whatever stands after the last part
        pass


class _Delimited:
    def __init__(self, body: _Body) -> None:
        self._body = body
        self._buffer = b"\r\n"  # so that the first delimiter needs no line end of its own

    def is_at(self, expected: bytes) -> bool:
        while len(self._buffer) < len(expected):
            self._read()
        return self._buffer.startswith(expected)

    def until(self, delimiter: bytes, limit: float = math.inf) -> Iterator[bytes]:
        """The bytes before the delimiter, piece by piece; what may be its beginning waits for what follows."""
        kept = len(delimiter) - 1
        while True:
            before, found, after = self._buffer.partition(delimiter)
            piece, self._buffer = (before, after) if found else (before[:-kept], before[-kept:])
            limit -= len(piece)
            if limit < 0:
                raise _refused("The head of a part is over %d bytes" % HEAD_BYTES)
            yield piece
            if found:
                return
            self._read()

    def _read(self) -> None:
        piece = self._body.read()
        if not piece:
            raise _refused("The multipart body ends before its last boundary")
        self._buffer += piece


# ---- Command line ------------------------------------------------------------------------------------------------


def main() -> int:
    import argparse
    import runpy
    import signal

    parser = argparse.ArgumentParser(description="An Aerostack of your own, for development and for tests.")
    option = parser.add_argument
    option("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    option("--port", type=int, default=8787, help="the port to listen on (%(default)s); 0 means any free one")
    option("--allow-remote", action="store_true", help="let --host be one that other machines reach")
    option("--data", metavar="DIR", help="keep everything in this folder; otherwise it is in memory")
    option("--key", default=os.environ.get("AEROSTACK_API_KEY") or None, help="the only good key (AEROSTACK_API_KEY)")
    option("--ai-url", metavar="URL", help="an OpenAI-compatible server for chat; its key is OPENAI_API_KEY")
    option("--rate-limit", type=int, metavar="N", help="answer 429 to more than N requests a second")
    option("--functions", metavar="FILE", help="Python that registers services and handlers on `platform`")
    option("--verbose", action="store_true", help="write a line for each request, and tracebacks")
    options = vars(parser.parse_args())
    functions = options.pop("functions")
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        platform = LocalPlatform(ai_key=os.environ.get("OPENAI_API_KEY"), **options)
        platform.register_service("echo", lambda data: data)
        if functions is not None:
            runpy.run_path(functions, {"platform": platform})
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
