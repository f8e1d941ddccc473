# SPDX-License-Identifier: MIT
# Copyright (c) 2026 aerostack-lite contributors
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
# documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
# rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
# persons to whom the Software is furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
# Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
# WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
# COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
# OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""The Aerostack Platform API in one file: no dependencies, Python 3.7 to 3.14, a drop-in for the official SDK.

    from aerostack_lite import SDK, errors

    with SDK("your-api-key") as sdk:                       # or AEROSTACK_API_KEY in the environment
        sdk.cache.cache_set(key="greeting", value={"hello": "world"}, ttl=60)
        print(sdk.cache.cache_get(key="greeting").value)                # {'hello': 'world'}
        print(sdk.database.db_query(sql="SELECT 1 AS one").results)     # [{'one': 1}]
        try:
            sdk.services.services_invoke(service_name="resize", data={"width": 80})
        except errors.AerostackError as error:
            print(error, error.request_id)

    async with SDK("your-api-key") as sdk:                 # the same, awaited: every operation has an `_async` twin
        await sdk.queue.queue_enqueue_async(type="email", data={"to": "ada@example.com"})

From a shell: `python3 aerostack_lite.py db_query sql='SELECT 1'`. Copy the file anywhere; it needs nothing else.

It is read from the top. What a caller may touch comes first; below the double line is how it works, in the order in
which a call passes through: encode, retries, transport, decode.
"""

from __future__ import annotations

import codecs
import collections
import functools
import json
import os
import re
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock_time
from enum import Enum

__version__ = "0.1.0"

__all__ = [
    "SDK", "SDKConfiguration", "SERVERS", "UNSET", "VERSION", "USER_AGENT", "OPENAPI_DOC_VERSION",
    "SPEAKEASY_GENERATOR_VERSION",
    "Ai", "Authentication", "Cache", "Database", "Queue", "Services", "Storage",
    "HttpClient", "AsyncHttpClient", "Request", "Response", "Headers", "RetryConfig", "BackoffStrategy",
    "errors", "httpclient", "models", "types", "utils",
]

# ---- Settings --------------------------------------------------------------------------------------------------------

SERVERS = [
    "https://api.aerostack.ai/v1",  # 0: production
    "http://localhost:8787/v1",  # 1: local development
]
VERSION = __version__
USER_AGENT = "aerostack-lite/" + __version__
OPENAPI_DOC_VERSION = "1.0.0"  # of the API description that the nine operations follow
SPEAKEASY_GENERATOR_VERSION = ""  # the official SDK is generated; this file is written by hand

_DEFAULT_TIMEOUT_MS = 60_000  # one attempt, from resolving the name to the last byte; an AI answer takes its time
_DEFAULT_ATTEMPTS = 3  # by default a failed call is repeated twice
_MAX_CONNECTIONS = 100  # kept open, per client; a busy moment may open more
_MAX_IDLE_SECONDS = 30  # below the 60 s after which AWS load balancers hang up without a word
_MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # as received, and again after decompression
_MAX_HEAD_BYTES = 64 * 1024  # status line and headers, or the trailers after a chunked body
_MAX_LINE_BYTES = 8 * 1024  # a chunk's size with its extensions, or one trailer
_MAX_INTERIM_RESPONSES = 8  # 1xx answers before the final one
_MAX_REDIRECTS = 5
_MAX_JSON_DEPTH = 500
_MAX_PROBLEMS = 100  # told of one list; a hostile answer has millions
_MAX_CODINGS = 2  # of one body, one upon the other; more is an attack
_MAX_GZIP_MEMBERS = 1_000
_MAX_WORKERS = 64  # threads behind the `_async` twins, one for each call under way
_MAX_SHOWN_CHARS = 10_000  # of a body in an error's text or a log; the official SDK's number
_MAX_MESSAGE_CHARS = 1_000_000  # of the API's own message, which the official SDK shows whole
_NEXT_ADDRESS_SECONDS = 0.25  # RFC 8305, 5: how long an address may stay silent before the next is tried as well
_RECEIVE_BYTES = 64 * 1024
_BLOCK_BYTES = 64 * 1024  # of an upload, at a time: what stays in a cache; larger ones were slower over loopback
_FOREVER = float("inf")
_LONGEST_SECONDS = 20 * 86_400  # 2**31 ms, where poll() overflows, is not far

class Unset:
    """The type of `UNSET`: no value was given, or none came back (which is not None, a JSON null)."""
    def __new__(cls) -> Unset: return UNSET if "UNSET" in globals() else super().__new__(cls)
    def __bool__(self) -> Literal[False]: return False
    def __repr__(self) -> str: return "Unset()"
    def __reduce__(self) -> str: return "UNSET"

UNSET = Unset()

# ---- Types for checkers: seen by mypy, pyright and editors; at run time, stand-ins -----------------------------------

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    import urllib.request
    from typing import IO, Any, Callable, Coroutine, Dict, Generator, List, NoReturn, Optional, Sequence, Set
    from typing import Protocol, Tuple, Type, TypeVar, Union

    from typing_extensions import Buffer, Literal, NotRequired, ParamSpec, TypeAlias, TypedDict, Unpack
    from typing_extensions import dataclass_transform

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")
    M = TypeVar("M", bound="BaseModel")
    Nullable: TypeAlias = Union[T, None]
    OptionalNullable: TypeAlias = Union[T, None, Unset]
    Retries: TypeAlias = "Union[RetryConfig, None, Unset]"
    Content: TypeAlias = "Union[Buffer, IO[bytes], os.PathLike[str], Iterable[bytes]]"
    Upload: TypeAlias = "Union[models.File, models.FileTypedDict, Content]"
    Conversation: TypeAlias = "Sequence[Union[models.Messages, models.MessagesTypedDict]]"
    Progress: TypeAlias = Callable[[int, Optional[int]], object]
    Problem: TypeAlias = Tuple[Tuple[Any, ...], str, str]  # where, what kind, in words
    class Logger(Protocol):
        def debug(self, msg: str, *args: Any, **kwargs: Any) -> None: ...

    # What every operation takes besides its request, then for each operation its fields as keywords.
    class CallOptions(TypedDict, total=False):
        server_url: Optional[str]; timeout_ms: Optional[float]; http_headers: Optional[Mapping[str, str]]
    class AiChatOptions(CallOptions, total=False): messages: Conversation; model: str
    class AuthSigninOptions(CallOptions, total=False): email: str; password: str
    class AuthSignupOptions(CallOptions, total=False): email: str; password: str; metadata: Mapping[str, Any]; name: str
    class CacheGetOptions(CallOptions, total=False): key: str
    class CacheSetOptions(CallOptions, total=False): key: str; value: Any; ttl: int
    class DbQueryOptions(CallOptions, total=False): sql: str; params: Sequence[Any]
    class QueueEnqueueOptions(CallOptions, total=False): data: Mapping[str, Any]; type: str; delay: int
    class ServicesInvokeOptions(CallOptions, total=False): data: Mapping[str, Any]; service_name: str
    class StorageUploadOptions(CallOptions, total=False): file: Upload; key: str; content_type: str; progress: Progress
else:
    def dataclass_transform(**_): return lambda cls: cls
    class Logger:
        def debug(self, msg, *args, **kwargs): ...
    class Nullable:  # for annotations, Nullable[str]
        def __class_getitem__(cls, inner): return cls
    OptionalNullable = Nullable

# ---- SDK and services: request -> model ------------------------------------------------------------------------------

class SDK:
    """The Aerostack Platform API. One object serves a whole program: threads, event loops and forks may share it.

    api_key_auth    the key, or a callable that returns it, asked once per call; by default AEROSTACK_API_KEY
    server_idx      which of `SERVERS`; by default 0, production
    server_url      another server, which wins over server_idx; by default AEROSTACK_SERVER_URL, if that is set
    url_params      values for the `{names}` in server_url
    client          what sends synchronous calls: an `HttpClient` with settings of your own, or anything with its
                    `build_request`, `send` and `close`, such as an httpx.Client; yours to close
    async_client    the same for the `_async` twins: an `AsyncHttpClient`, an httpx.AsyncClient, ...
    retry_config    a RetryConfig for every call, or None for no retries; by default a call is repeated at most twice,
                    and only where it cannot have been carried out already, or where twice is as good as once
    timeout_ms      milliseconds for one attempt as a whole; by default 60,000; math.inf for no limit
    debug_logger    anything with `.debug(message, *args)`; by default logging.getLogger("aerostack_lite")
    max_workers     threads at the most behind the `_async` twins

    Raises ValidationError, a ValueError, for a bad argument. Nothing is opened or sent before the first call.
    """

    def __init__(
        self, api_key_auth: Union[str, Callable[[], str], None] = None, server_idx: Optional[int] = None,
        server_url: Optional[str] = None, url_params: Optional[Mapping[str, str]] = None, client: Any = None,
        async_client: Any = None, retry_config: Retries = UNSET, timeout_ms: Optional[float] = None,
        debug_logger: Optional[Logger] = None, *, max_workers: int = _MAX_WORKERS,
    ) -> None:
        self.sdk_configuration = shared = SDKConfiguration()
        shared.security, shared.server_idx = _security(api_key_auth), server_idx
        shared.server_url = _filled_template(server_url, url_params or {})
        shared.retry_config, shared.timeout_ms, shared.debug_logger = retry_config, timeout_ms, debug_logger
        _check_server_url(shared.get_server_details()[0])  # these raise now what each call would raise
        _retry_policy(retry_config, False)
        _seconds("timeout_ms", timeout_ms, 1000)
        shared.blocking, shared.awaiting = _Blocking(client), _Awaiting(async_client, max_workers)
        self.ai, self.authentication, self.cache = Ai(shared), Authentication(shared), Cache(shared)
        self.database, self.queue = Database(shared), Queue(shared)
        self.services, self.storage = Services(shared), Storage(shared)

    def close(self) -> None:
        """Close the synchronous half: its connections go, retries that wait end at once. Twice is fine."""
        self.sdk_configuration.blocking.close()

    async def aclose(self) -> None:
        """Close the asynchronous half: its connections and threads go. Twice is fine."""
        self.sdk_configuration.awaiting.close()

    def __enter__(self) -> SDK: return self
    def __exit__(self, *_: object) -> None: self.close()
    async def __aenter__(self) -> SDK: return self
    async def __aexit__(self, *_: object) -> None: await self.aclose()

class SDKConfiguration:
    """What the services of one SDK share, by the official attribute names. All but the clients may be changed."""
    language, openapi_doc_version, sdk_version, user_agent = "python", OPENAPI_DOC_VERSION, __version__, USER_AGENT
    security: Union[models.Security, Callable[[], models.Security]]
    server_idx: Optional[int] = None
    server_url: Optional[str] = None
    retry_config: Retries = UNSET
    timeout_ms: Optional[float] = None
    debug_logger: Optional[Logger] = None
    blocking: _Blocking
    awaiting: _Awaiting
    client = property(lambda self: self.blocking.client)  # None once closed, as is the next
    async_client = property(lambda self: self.awaiting.client)

    def get_server_details(self) -> Tuple[str, Dict[str, str]]:
        """The server's URL without a slash at its end, and an empty dict: the official SDK's shape."""
        index = self.server_idx
        if self.server_url: return self.server_url.rstrip("/"), {}
        if index is None: return (os.environ.get("AEROSTACK_SERVER_URL") or SERVERS[0]).rstrip("/"), {}
        if isinstance(index, bool) or not isinstance(index, int):
            raise _bad_type("server_idx", "must be an integer")
        if not 0 <= index < len(SERVERS):
            raise errors.ArgumentIndexError.about("server_idx", "must be 0 to %d" % (len(SERVERS) - 1))
        return SERVERS[index], {}

class _Service:
    """Operations under one name. An operation is a method that hands what is particular to it to `_call`."""
    def __init__(self, sdk_configuration: SDKConfiguration) -> None: self.sdk_configuration = sdk_configuration

    def _call(self, path: str, response_type: Type[R], request: object, retries: Retries, options: Any,
              repeatable: bool = False, structured_errors: Tuple[int, ...] = ()) -> R:
        """Send one request and decode its answer.

        repeatable           doing it twice is as good as doing it once
        structured_errors    the statuses for which the API documents {code, message, details}
        """
        operation: Any = _operation(path, response_type, repeatable, structured_errors)
        return self._carry_out(operation, request, retries, options)  # type: ignore

    def _carry_out(self, *call: Any) -> Any:
        return _run(_perform(self.sdk_configuration.blocking, self.sdk_configuration, *call))

class _AwaitedService(_Service):
    """The same operations, as coroutines."""
    def _carry_out(self, *call: Any) -> Any:
        return _perform(self.sdk_configuration.awaiting, self.sdk_configuration, *call)

def _twin(operation: Callable[P, R]) -> Callable[P, Coroutine[object, object, R]]:
    """The `_async` twin of an operation: the same method, run where `_call` returns a coroutine."""
    async def twin(self: Any, *args: Any, **options: Any) -> Any:
        coroutine: Any = operation(_AwaitedService(self.sdk_configuration), *args, **options)  # type: ignore
        options.clear()  # a password in it should not show in a traceback's locals
        return await coroutine

    twin.__name__, twin.__qualname__ = operation.__name__ + "_async", operation.__qualname__ + "_async"
    twin.__doc__ = "`%s`, awaited. %s" % (operation.__name__, operation.__doc__)
    twin.__wrapped__ = operation  # type: ignore  # so that help() shows the same parameters
    return twin  # type: ignore

class Ai(_Service):
    """Language models."""
    def ai_chat(self, request: Union[models.AiChatRequestBody, models.AiChatRequestBodyTypedDict, None] = None,
                retries: Retries = UNSET, **options: Unpack[AiChatOptions]) -> models.AiChatResponseBody:
        """Answer a conversation: `messages` of {role, content}, by the platform's `model` or one you name."""
        return self._call("/ai/chat", models.AiChatResponseBody, request, retries, options)

    ai_chat_async = _twin(ai_chat)

class Authentication(_Service):
    """The users of your application."""
    def auth_signin(
            self, request: Union[models.AuthSigninRequestBody, models.AuthSigninRequestBodyTypedDict, None] = None,
            retries: Retries = UNSET, **options: Unpack[AuthSigninOptions]) -> models.AuthResponse:
        """Exchange a user's `email` and `password` for a token."""
        return self._call("/auth/signin", models.AuthResponse, request, retries, options, True, (401,))

    def auth_signup(
            self, request: Union[models.AuthSignupRequestBody, models.AuthSignupRequestBodyTypedDict, None] = None,
            retries: Retries = UNSET, **options: Unpack[AuthSignupOptions]) -> models.AuthResponse:
        """Create a user with `email` and `password`, a `name` and any `metadata`, and sign in."""
        return self._call("/auth/signup", models.AuthResponse, request, retries, options, False, (400, 409))

    auth_signin_async, auth_signup_async = _twin(auth_signin), _twin(auth_signup)

class Cache(_Service):
    """JSON values under keys."""
    def cache_get(self, request: Union[models.CacheGetRequestBody, models.CacheGetRequestBodyTypedDict, None] = None,
                  retries: Retries = UNSET, **options: Unpack[CacheGetOptions]) -> models.CacheGetResponseBody:
        """Read the value under a `key`; `exists` is False where there is none, or no longer."""
        return self._call("/cache/get", models.CacheGetResponseBody, request, retries, options, repeatable=True)

    def cache_set(self, request: Union[models.CacheSetRequestBody, models.CacheSetRequestBodyTypedDict, None] = None,
                  retries: Retries = UNSET, **options: Unpack[CacheSetOptions]) -> models.CacheSetResponseBody:
        """Store a JSON `value` under a `key`, for `ttl` seconds or for good."""
        return self._call("/cache/set", models.CacheSetResponseBody, request, retries, options, repeatable=True)

    cache_get_async, cache_set_async = _twin(cache_get), _twin(cache_set)

class Database(_Service):
    """SQL."""
    def db_query(self, request: Union[models.DbQueryRequestBody, models.DbQueryRequestBodyTypedDict, None] = None,
                 retries: Retries = UNSET, **options: Unpack[DbQueryOptions]) -> models.DbQueryResult:
        """Run one `sql` statement with `params` bound to its placeholders; rows come back as dicts."""
        return self._call("/db/query", models.DbQueryResult, request, retries, options, False, (400, 401, 500))

    db_query_async = _twin(db_query)

class Queue(_Service):
    """Background jobs."""
    def queue_enqueue(
            self, request: Union[models.QueueEnqueueRequestBody, models.QueueEnqueueRequestBodyTypedDict, None] = None,
            retries: Retries = UNSET, **options: Unpack[QueueEnqueueOptions]) -> models.QueueEnqueueResponseBody:
        """Enqueue a job of a `type` with its `data`, to be run at once or after `delay` seconds."""
        return self._call("/queue/enqueue", models.QueueEnqueueResponseBody, request, retries, options)

    queue_enqueue_async = _twin(queue_enqueue)

class Services(_Service):
    """Functions deployed on the platform."""
    def services_invoke(
            self,
            request: Union[models.ServicesInvokeRequestBody, models.ServicesInvokeRequestBodyTypedDict, None] = None,
            retries: Retries = UNSET, **options: Unpack[ServicesInvokeOptions]) -> models.ServicesInvokeResponseBody:
        """Call the service named `service_name` with `data`."""
        return self._call("/services/invoke", models.ServicesInvokeResponseBody, request, retries, options)

    services_invoke_async = _twin(services_invoke)

class Storage(_Service):
    """Files."""
    def storage_upload(
            self,
            request: Union[models.StorageUploadRequestBody, models.StorageUploadRequestBodyTypedDict, None] = None,
            retries: Retries = UNSET, **options: Unpack[StorageUploadOptions]) -> models.StorageUploadResponseBody:
        """Store a `file` under a `key` and return its URL; sent as a stream, however large it is.

        `file` is {content, file_name, content_type}, or for short just the content: bytes, a path, anything with a
        binary read(), or a generator of bytes. `progress(sent, total)` is called with the body's bytes as they leave;
        total is None where the length is not known beforehand.
        """
        return self._call("/storage/upload", models.StorageUploadResponseBody, request, retries, options, True)

    storage_upload_async = _twin(storage_upload)

class Operation:
    """One operation of the API: where it is, what goes in, what comes back."""
    def __init__(self, path: str, response_type: Any, repeatable: bool, structured_errors: Tuple[int, ...]) -> None:
        self.path, self.name, self.response_type = path, path[1:].replace("/", "_"), response_type
        self.request_type = getattr(models, path.title().replace("/", "") + "RequestBody")  # which is named for it
        self.repeatable, self.structured_errors = repeatable, structured_errors

_operation: Any = functools.lru_cache(maxsize=None)(Operation)

def operations() -> List[Tuple[str, Operation, str]]:
    """All operations, as (service, operation, sentence): each method is asked what it would send."""
    class Recorder(_Service):
        def _carry_out(self, *call: Any) -> Any: return call[0]

    return [(service.__name__.lower(), method(Recorder(SDKConfiguration())), (method.__doc__ or "").partition("\n")[0])
            for service in (Ai, Authentication, Cache, Database, Queue, Services, Storage)
            for name, method in vars(service).items() if name + "_async" in vars(service)]

# ---- Models: what goes in, what comes back ---------------------------------------------------------------------------

# Where a name on the wire differs from Python's. A request may use either; if both are given, the wire's wins.
_WIRE_NAMES = {"created_at": "createdAt", "expires_at": "expiresAt", "file_name": "fileName", "job_id": "jobId",
               "service_name": "serviceName"}
_SECRET_FIELDS = frozenset(["api_key_auth", "password", "token"])

class _DataclassFields:
    """Makes a model a dataclass when someone first asks. Importing dataclasses takes 6 ms; no call needs it."""
    def __get__(self, instance: object, owner: Any) -> Any:
        if owner in (BaseModel, _Request): raise AttributeError  # they have no fields of their own
        if "_dataclass_fields" not in vars(owner):
            import dataclasses
            members = vars(owner).copy()  # for another thread must not see the class half done
            for name in ("__dict__", "__weakref__"): members.pop(name, None)
            made: Any = type(owner)(owner.__name__, owner.__bases__, members)
            made = dataclasses.dataclass(init=False, repr=False, eq=False)(made)
            owner.__dataclass_params__, owner._dataclass_fields = made.__dataclass_params__, made.__dataclass_fields__
        return owner._dataclass_fields

@dataclass_transform(kw_only_default=True, eq_default=False)
class BaseModel:
    """A dataclass whose fields are given as keywords, checked and converted as the official SDK does (lax pydantic).

    Fields that the API sent and this file does not know are in `model_extra`.
    """

    __dataclass_fields__ = _DataclassFields()
    __hash__ = None  # type: ignore  # a model can change
    model_extra = {}  # type: ignore
    _refuses_unknown_fields = False
    _wire_names = _WIRE_NAMES
    _compiled = None  # this class's fields, read from its annotations at the first use

    def __init__(self, **values: Any) -> None: self._fill(values)

    @classmethod
    def model_validate(cls: Type[M], value: Any) -> M:
        """A model from a mapping, or from a model of the same class. Raises ValidationError."""
        return _validated(cls, value, cls.__name__)

    @classmethod
    def model_validate_json(cls: Type[M], text: Union[str, bytes]) -> M:
        """A model from JSON. Raises ValidationError, or the JSON parser's ValueError."""
        return _validated(cls, json.loads(text), cls.__name__)

    def model_dump(self, *, by_alias: bool = False, mode: str = "python") -> Dict[str, Any]:
        """A dict of the fields that were given, by their wire names if `by_alias`, as plain JSON if mode="json"."""
        dumped = {}
        for field in self._fields():
            value = self.__dict__.get(field.name, field.default)
            if value is UNSET or value is None and field.default is None: continue
            if isinstance(value, BaseModel):
                value = value.model_dump(by_alias=by_alias, mode=mode)
            elif isinstance(value, list) and value and all(isinstance(item, BaseModel) for item in value):
                value = [item.model_dump(by_alias=by_alias, mode=mode) for item in value]
            elif mode == "json":
                value = _plain(value, field.name)
            dumped[field.wire if by_alias else field.name] = value
        return dumped

    def model_dump_json(self, *, by_alias: bool = False, indent: Optional[int] = None) -> str:
        """The model as JSON text."""
        separators = None if indent else (",", ":")
        dumped = self.model_dump(by_alias=by_alias, mode="json")
        return json.dumps(dumped, ensure_ascii=False, indent=indent, separators=separators)

    @classmethod
    def _fields(cls) -> List[_Field]:
        if cls.__dict__.get("_compiled") is None:
            annotations: Dict[str, str] = {}
            for base in reversed(cls.__mro__): annotations.update(getattr(base, "__annotations__", {}))
            cls._compiled = [_Field(cls, name, annotation) for name, annotation in annotations.items()]
        return cls._compiled  # type: ignore

    def _fill(self, values: Mapping[str, Any]) -> None:
        """Set every field. Raises ValidationError with all that is wrong."""
        state, fields, known, problems = self.__dict__, self._fields(), 0, []
        for field in fields:
            name, wire = field.name, field.wire
            value, place = (values[name], name) if name in values else (UNSET, wire or name)
            known += name in values
            if wire != name and wire in values:
                value, known, place = values[wire], known + 1, wire
            try:
                if value is not UNSET:
                    state[name] = None if value is None and field.nullable else field.convert(value)
                elif field.default is _REQUIRED:
                    raise _invalid("missing", "Field required")
                else:
                    state[name] = field.default
            except errors.ValidationError as error:
                problems += error.within(place)
        if known < len(values):
            names = {name for field in fields for name in (field.name, field.wire) if name}
            unknown = {name: value for name, value in values.items() if name not in names and name}
            if self._refuses_unknown_fields:
                problems += [((name,), "extra_forbidden", "Unknown field" + _nearest(name, names)) for name in unknown]
            else:
                state["model_extra"] = unknown
        if problems: raise errors.ValidationError(type(self).__name__, problems)

    def __setattr__(self, name: str, value: Any) -> None:
        if all(name != field.name for field in self._fields()):
            raise _bad(name, "%s has no such field" % type(self).__name__)
        self.__dict__[name] = value

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self): return NotImplemented
        return all(getattr(self, field.name) == getattr(other, field.name) for field in self._fields())

    def __repr__(self) -> str: return "%s(%s)" % (type(self).__name__, ", ".join(self._shown()))
    def __str__(self) -> str: return " ".join(self._shown())

    def _shown(self) -> Iterator[str]:
        for field in self._fields():
            value = self.__dict__.get(field.name, field.default)
            yield "%s=%s" % (field.name, "***" if value and field.name in _SECRET_FIELDS else repr(value))

class _Request(BaseModel):
    """What a caller writes: a field that does not exist is a slip of the pen, so it is refused."""
    _refuses_unknown_fields = True

class models:
    """Requests and responses, by the official names. Each has a `...TypedDict` for callers who prefer dicts."""
    class Role(str, Enum):
        """Who says a message. Any other string passes too: which roles there are is the server's to say."""
        SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

    class Messages(_Request): content: Optional[str] = None; role: Optional[Union[models.Role, str]] = None
    class AiChatRequestBody(_Request): messages: List[models.Messages]; model: Optional[str] = None
    class AiChatResponseBody(BaseModel): response: Optional[str] = None

    class AuthSigninRequestBody(_Request): email: str; password: str
    class AuthSignupRequestBody(_Request):
        email: str; password: str; metadata: Optional[Dict[str, Any]] = None; name: Optional[str] = None
    class User(BaseModel):
        created_at: Optional[datetime] = None; email: Optional[str] = None; id: Optional[str] = None
        metadata: Optional[Dict[str, Any]] = None; name: OptionalNullable[str] = UNSET
    class AuthResponse(BaseModel):
        expires_at: Optional[datetime] = None; token: Optional[str] = None; user: Optional[models.User] = None

    class CacheGetRequestBody(_Request): key: str
    class CacheGetResponseBody(BaseModel):
        exists: Optional[bool] = None
        value: OptionalNullable[Any] = UNSET  # None is a JSON null that was stored
    class CacheSetRequestBody(_Request): key: str; value: Any; ttl: Optional[int] = None  # seconds
    class CacheSetResponseBody(BaseModel): success: Optional[bool] = None

    class DbQueryRequestBody(_Request): sql: str; params: Optional[List[Any]] = None
    class DbQueryResult(BaseModel): count: Optional[int] = None; results: Optional[List[Dict[str, Any]]] = None

    class QueueEnqueueRequestBody(_Request): data: Dict[str, Any]; type: str; delay: Optional[int] = None  # seconds
    class QueueEnqueueResponseBody(BaseModel): job_id: Optional[str] = None; success: Optional[bool] = None

    class ServicesInvokeRequestBody(_Request): data: Dict[str, Any]; service_name: str
    class ServicesInvokeResponseBody(BaseModel): result: Optional[Any] = None; success: Optional[bool] = None

    class File(_Request):
        content: Content; file_name: str; content_type: Optional[str] = None  # guessed from file_name if not given
        _wire_names = dict(_WIRE_NAMES, content="", content_type="Content-Type")
    class StorageUploadRequestBody(_Request):
        file: models.File; key: str; content_type: Optional[str] = None
        _wire_names = dict(_WIRE_NAMES, content_type="contentType")

        def _fill(self, values: Mapping[str, Any]) -> None:
            file = values.get("file", UNSET)
            if file is not UNSET and not isinstance(file, (Mapping, BaseModel, list, tuple)):  # just the content
                values = dict(values, file={"content": file, "file_name": _file_name(file, values.get("key"))})
            super()._fill(values)
    class StorageUploadResponseBody(BaseModel): url: Optional[str] = None

    class Security(_Request): api_key_auth: str

    if TYPE_CHECKING:
        class MessagesTypedDict(TypedDict): content: NotRequired[str]; role: NotRequired[Union[models.Role, str]]
        class AiChatRequestBodyTypedDict(TypedDict): messages: Conversation; model: NotRequired[str]
        class AiChatResponseBodyTypedDict(TypedDict): response: NotRequired[str]
        class AuthSigninRequestBodyTypedDict(TypedDict): email: str; password: str
        class AuthSignupRequestBodyTypedDict(TypedDict):
            email: str; password: str; metadata: NotRequired[Mapping[str, Any]]; name: NotRequired[str]
        class AuthResponseTypedDict(TypedDict):
            expires_at: NotRequired[datetime]; token: NotRequired[str]; user: NotRequired[models.UserTypedDict]
        class UserTypedDict(TypedDict):
            created_at: NotRequired[datetime]; email: NotRequired[str]; id: NotRequired[str]
            metadata: NotRequired[Dict[str, Any]]; name: NotRequired[Nullable[str]]
        class CacheGetRequestBodyTypedDict(TypedDict): key: str
        class CacheGetResponseBodyTypedDict(TypedDict): exists: NotRequired[bool]; value: NotRequired[Any]
        class CacheSetRequestBodyTypedDict(TypedDict): key: str; value: Any; ttl: NotRequired[int]
        class CacheSetResponseBodyTypedDict(TypedDict): success: NotRequired[bool]
        class DbQueryRequestBodyTypedDict(TypedDict): sql: str; params: NotRequired[Sequence[Any]]
        class DbQueryResultTypedDict(TypedDict): count: NotRequired[int]; results: NotRequired[List[Dict[str, Any]]]
        class QueueEnqueueRequestBodyTypedDict(TypedDict): data: Mapping[str, Any]; type: str; delay: NotRequired[int]
        class QueueEnqueueResponseBodyTypedDict(TypedDict): job_id: NotRequired[str]; success: NotRequired[bool]
        class ServicesInvokeRequestBodyTypedDict(TypedDict): data: Mapping[str, Any]; service_name: str
        class ServicesInvokeResponseBodyTypedDict(TypedDict): result: NotRequired[Any]; success: NotRequired[bool]
        class FileTypedDict(TypedDict): content: Content; file_name: str; content_type: NotRequired[str]
        class StorageUploadRequestBodyTypedDict(TypedDict): file: Upload; key: str; content_type: NotRequired[str]
        class StorageUploadResponseBodyTypedDict(TypedDict): url: NotRequired[str]
        class SecurityTypedDict(TypedDict): api_key_auth: str
    else:
        locals().update({name + "TypedDict": dict for name, value in list(locals().items())
                         if isinstance(value, type) and issubclass(value, BaseModel)})

class BackoffStrategy:
    """How long to wait between attempts, in milliseconds.

    The wait is drawn evenly between 0 and initial_interval * exponent ** n (full jitter), max_interval at the most.
    No wait goes beyond max_elapsed_time, counted from the call's start.
    """
    def __init__(self, initial_interval: float, max_interval: float, exponent: float, max_elapsed_time: float) -> None:
        self.initial_interval, self.max_interval = initial_interval, max_interval
        self.exponent, self.max_elapsed_time = exponent, max_elapsed_time

class RetryConfig:
    """Repeat any operation after 429, 500, 502, 503 and 504, until the backoff's max_elapsed_time.

    strategy                     "backoff"; anything else means one attempt
    retry_connection_errors      repeat it also when a connection fails, is lost or times out, although the server may
                                 have carried out the request already
    """
    def __init__(self, strategy: str, backoff: BackoffStrategy, retry_connection_errors: bool) -> None:
        self.strategy, self.backoff, self.retry_connection_errors = strategy, backoff, retry_connection_errors

# ---- HTTP client: Request -> Response --------------------------------------------------------------------------------
# What sends, unless you pass `client=`. Names are httpx's, so that an httpx.Client can stand in for an HttpClient.

class Headers(dict):  # type: ignore
    """HTTP headers by lower-case name; any case finds them; a repeated one reads as its values joined by ", "."""
    def __init__(self, pairs: Iterable[Tuple[str, str]] = ()) -> None:
        values: Dict[str, str] = {}
        self.pairs = list(pairs)
        for name, value in self.pairs:
            name = name.lower()
            values[name] = values[name] + ", " + value if name in values else value
        super().__init__(values)

    def __getitem__(self, name: str) -> str: return super().__getitem__(name.lower())  # type: ignore
    def __setitem__(self, name: str, value: str) -> None: super().__setitem__(name.lower(), value)
    def __contains__(self, name: object) -> bool: return super().__contains__(str(name).lower())
    def __delitem__(self, name: str) -> None: super().__delitem__(name.lower())
    def get(self, name: str, default: Any = None) -> Any: return super().get(name.lower(), default)
    def pop(self, name: str, *default: Any) -> Any: return super().pop(name.lower(), *default)
    def setdefault(self, name: str, default: Any = "") -> Any: return super().setdefault(name.lower(), default)
    def update(self, headers: Mapping[str, str]) -> None:  # type: ignore
        for name, value in headers.items(): self[name] = value
    def __repr__(self) -> str: return "Headers(%r)" % _shown_headers(self)

    def get_all(self, name: str, default: Any = None) -> Any:
        """The values of a repeated header one by one, as they came; urllib's handlers call this."""
        return [value for other, value in self.pairs if other.lower() == name.lower()] or default

class Request:
    """One HTTP request. `timeout_seconds` bounds one attempt as a whole; `cancellation` ends it from another thread."""
    def __init__(self, method: str, url: str, headers: Headers, content: Any, timeout_seconds: Optional[float]) -> None:
        self.method, self.url, self.headers, self.content = method, _parse_url(url).text, headers, content
        self.timeout_seconds, self.deadline = timeout_seconds, _Deadline(_FOREVER)
        self.cancellation: Optional[_Cancellation] = None
        self.origin = self  # of which this is a copy

    def moved(self, url: str, headers: Headers) -> Request:
        """The same request at another URL, with other headers."""
        other = Request(self.method, url, headers, self.content, self.timeout_seconds)
        other.deadline, other.cancellation, other.origin = self.deadline, self.cancellation, self.origin
        return other

class Response:
    """One HTTP response, read to its end: status_code, reason_phrase, headers, content, text, json(), url, request."""
    def __init__(self, status_code: int, headers: Optional[Headers] = None, content: bytes = b"",
                 request: Optional[Request] = None, reason_phrase: str = "") -> None:
        self.status_code = self.code = status_code  # code, msg and info() are urllib's names
        self.reason_phrase = self.msg = reason_phrase
        self.headers = Headers() if headers is None else headers
        self.content, self.request, self.url = content, request, request.url if request else ""

    @property
    def text(self) -> str:
        """The body in the charset that its type names, else UTF-8; what cannot be decoded becomes U+FFFD."""
        return self.content.decode(_charset(self.headers), "replace")

    def json(self) -> Any:
        """The body as JSON (RFC 8259). Raises ValueError."""
        return _parse_json(self.content, _charset(self.headers))

    def iter_bytes(self) -> Iterator[bytes]: yield self.content
    def iter_text(self) -> Iterator[str]: yield self.text
    def info(self) -> Headers: return self.headers
    def __repr__(self) -> str: return "<Response [%d %s]>" % (self.status_code, _escaped(self.reason_phrase))
    def __getstate__(self) -> Dict[str, Any]: return dict(vars(self), request=None)  # whose headers hold the key

class HttpClient:
    """Keeps connections open and sends requests over them. Threads may share it, forks too.

    proxy                 "http://user:password@host:3128" for everything, False for none; by default what HTTP_PROXY,
                          HTTPS_PROXY, ALL_PROXY and NO_PROXY say
    ssl_context           an ssl.SSLContext of your own; by default TLS 1.2 at least and the system's trust store, or
                          what SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE name
    headers               headers for every request
    max_connections       connections kept open for later calls; a busy moment may open more
    max_response_bytes    the largest body accepted, before and after decompression
    handlers              urllib.request handlers of your own, say one that signs or records each request
    """

    def __init__(self, *, proxy: Union[str, Literal[False], None] = None, ssl_context: Optional[ssl.SSLContext] = None,
                 headers: Optional[Mapping[str, str]] = None, max_connections: int = _MAX_CONNECTIONS,
                 max_response_bytes: int = _MAX_RESPONSE_BYTES,
                 handlers: Iterable[urllib.request.BaseHandler] = ()) -> None:
        self.headers = Headers(_checked_headers(headers, "headers").items())
        if proxy is not None and proxy is not False: _parse_proxy(proxy, "proxy=")
        if ssl_context is not None and not hasattr(ssl_context, "wrap_socket"):
            raise _bad_type("ssl_context", "must be an ssl.SSLContext")
        self._pool = _Pool(proxy, ssl_context, _positive_int("max_connections", max_connections),
                           _positive_int("max_response_bytes", max_response_bytes))
        self._exchange = _urllib_opener(handlers, self._pool.exchange) if handlers else self._pool.exchange
        weakref.finalize(self, self._pool.close).atexit = False  # in a cycle, __del__ may come too late

    def build_request(self, method: str, url: str, *, content: Any = None, headers: Optional[Mapping[str, str]] = None,
                      timeout: Optional[float] = None, **others: Any) -> Request:
        """A request to `send`. `content` is bytes, text or an iterable of bytes; `timeout` is in seconds."""
        for name, value in others.items():  # httpx has more; an empty one asks for nothing
            if value: raise _bad_type(name, "is not supported by HttpClient")
        if not isinstance(method, str) or not _TOKEN.fullmatch(method):
            raise _bad("method", "is no HTTP method")
        authorization = _parse_url(str(url)).authorization
        every = dict(self.headers, authorization=authorization) if authorization else self.headers
        every = Headers({**every, **_checked_headers(headers, "headers")}.items())
        if content is None or isinstance(content, str):
            content = (content or "").encode()
        elif isinstance(content, _Blocks):  # by way of a client of yours that hands on to this one
            content = content.content
        elif not isinstance(content, (bytes, _Stream)):
            content = _bytes_or_iterable(content)
            if not isinstance(content, memoryview): content = _Stream(content)
        return Request(method, str(url), every, content, _seconds("timeout", timeout))

    def send(self, request: Request, *, stream: bool = False, **_: Any) -> Response:
        """Send a request and read its response whole. Redirects are followed within one origin, as 307 and 308 only.

        Any status is an answer. Raises RequestError when none comes that can be used.
        """
        timeout = _DEFAULT_TIMEOUT_MS / 1000 if request.timeout_seconds is None else request.timeout_seconds
        if isinstance(request.content, _Stream):
            request.content.measure()  # before the clock starts and a connection is made
        request.deadline = _Deadline(timeout)
        for _hop in range(_MAX_REDIRECTS + 1):
            response = self._exchange(request)
            target = _redirect_target(request, response)
            if target is None: return response
            if not getattr(request.content, "rereadable", True):
                raise errors.LocalProtocolError("the upload's source cannot be read twice, as a redirect needs")
            request = request.moved(target, request.headers)
        raise errors.TooManyRedirects("more than %d redirects" % _MAX_REDIRECTS, request=request)

    def close(self) -> None:
        """Close idle connections now, and those in use when their answers are read. Twice is fine."""
        self._pool.close()

    def __enter__(self) -> HttpClient: return self
    def __exit__(self, *_: object) -> None: self.close()
    def __repr__(self) -> str:
        return "<%s: %d active, %d idle>" % (type(self).__name__, self._pool.active, len(self._pool.idle))

    def __del__(self) -> None:
        if "_exchange" in self.__dict__: self.close()  # else it was never made

class AsyncHttpClient(HttpClient):
    """An HttpClient that is awaited: each `send` runs in one of `max_workers` threads, from any of asyncio's loops.

    Cancelling a `send` closes its socket and frees its thread. Takes HttpClient's settings.
    """

    def __init__(self, *, max_workers: int = _MAX_WORKERS, **settings: Any) -> None:
        self._workers = _Workers(_positive_int("max_workers", max_workers))
        super().__init__(**settings)

    async def send(self, request: Request, *, stream: bool = False, **_: Any) -> Response:  # type: ignore
        """Send a request and read its response whole, as `HttpClient.send` does."""
        request, blocking = request.moved(request.url, request.headers), super().send  # it may be under way twice
        request.cancellation = _Cancellation()
        return await self._workers.run(lambda: blocking(request), request.cancellation)

    def close(self) -> None:
        self._workers.close()
        super().close()

    async def aclose(self) -> None: self.close()
    async def __aenter__(self) -> AsyncHttpClient: return self
    async def __aexit__(self, *_: object) -> None: self.close()

# ---- Errors ----------------------------------------------------------------------------------------------------------

class AerostackError(Exception):
    """What everything raised here is:

    AerostackError
    +-- ValidationError (ValueError)        a bad argument; nothing was sent
    |   +-- ArgumentTypeError               (TypeError)
    |   +-- ArgumentIndexError              (IndexError): a server_idx without a server
    +-- SDKBaseError                        an answer came, but not the one hoped for
    |   +-- ErrorResponse                   the API says what is wrong: .data.code, .data.message, .data.details
    |   +-- SDKError                        any other status, or an answer that is not JSON
    |   +-- ResponseValidationError         broken JSON, or not of the documented shape; .cause says where
    +-- RequestError                        no answer came that can be used; .request, .__cause__
    |   +-- TransportError
    |   |   +-- TimeoutException            (TimeoutError): ConnectTimeout ReadTimeout WriteTimeout PoolTimeout
    |   |   +-- NetworkError                (ConnectionError): ConnectError ReadError WriteError CloseError
    |   |   +-- ProtocolError               LocalProtocolError (an upload's source failed) RemoteProtocolError
    |   |   +-- ProxyError                  (ConnectionError): the proxy did not let us through; .status_code
    |   |   +-- UnsupportedProtocol         a URL or proxy that is not http
    |   +-- DecodingError                   compressed data that is broken
    |   +-- TooManyRedirects
    +-- NoResponseError                     a client or handler of yours returned no response
    +-- ClosedError (RuntimeError)          used after its close
    """

    request_id: Optional[str] = None  # sent as X-Request-ID with every attempt
    attempts = 0  # how often the request was tried
    retry_after: Optional[float] = None  # the seconds that the server asked to wait
    maybe_processed = False  # whether the server may have carried out the request
    data: Optional[errors.ErrorResponseData] = None  # what the API itself said, if it did

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str: return self.message

    def __reduce__(self) -> Any:
        import copyreg
        state = dict(self.__dict__, args=self.args)  # OSError with another __init__ loses its args (bpo-26579)
        state.pop("request", None)  # whose headers hold the key
        raw: Any = state.get("raw_response")
        if not isinstance(raw, (Response, type(None))):  # httpx's has its request
            state["raw_response"] = Response(raw.status_code, Headers(raw.headers.items()), _content(raw))
        return copyreg.__newobj__, (type(self),), state  # type: ignore

class errors:
    """Everything that is raised. The tree stands at its root, AerostackError."""
    AerostackError: TypeAlias = AerostackError

    class Code(str, Enum):
        """The error codes that the API documents; another is kept as a plain string."""
        AUTH_INVALID_KEY, AUTH_INVALID_CREDENTIALS = "AUTH_INVALID_KEY", "AUTH_INVALID_CREDENTIALS"
        DB_QUERY_FAILED, RATE_LIMIT_EXCEEDED = "DB_QUERY_FAILED", "RATE_LIMIT_EXCEEDED"
        VALIDATION_ERROR, INTERNAL_ERROR = "VALIDATION_ERROR", "INTERNAL_ERROR"

    class ErrorResponseData(BaseModel):
        code: Union[errors.Code, str]; message: str; details: Optional[Dict[str, Any]] = None

    class ValidationError(AerostackError, ValueError):
        """Values that are missing, unknown or of a wrong type. Says where they are, not what: it may be secret."""
        def __init__(self, title: str, problems: List[Problem]) -> None:
            lines = [".".join(map(str, where)) + ": " + words for where, _, words in problems]
            count = "%d validation error%s for %s\n" % (len(lines), "s" * (len(lines) > 1), title) if title else ""
            super().__init__(count + "\n".join(lines))
            self.problems = problems

        @classmethod
        def about(cls: Type[T], argument: str, words: str, kind: str = "value_error") -> T:
            return cls("", [((argument,) if argument else (), kind, words)])  # type: ignore

        def within(self, *place: Any) -> List[Problem]:
            """The problems, seen from further out."""
            return [((*place, *where), kind, words) for where, kind, words in self.problems]

        def errors(self) -> List[Dict[str, Any]]:
            """One dict a problem: where (`loc`), what kind (`type`), in words (`msg`)."""
            return [dict(zip(("loc", "type", "msg"), problem)) for problem in self.problems]

        def error_count(self) -> int: return len(self.problems)

    class ArgumentTypeError(ValidationError, TypeError): ...
    class ArgumentIndexError(ValidationError, IndexError): ...

    class SDKBaseError(AerostackError):
        def __init__(self, message: str, raw_response: Any, body: Optional[str] = None) -> None:
            super().__init__(message)
            self.raw_response, self.headers = raw_response, raw_response.headers
            self.status_code: int = raw_response.status_code
            self.body: str = raw_response.text if body is None else body

        def __repr__(self) -> str:
            return "%s(message=%r, status_code=%d)" % (type(self).__name__, self.message, self.status_code)

    class SDKError(SDKBaseError):
        def __init__(self, message: str, raw_response: Any, body: Optional[str] = None,
                     data: Optional[errors.ErrorResponseData] = None) -> None:
            text = body or raw_response.text  # once, for some charsets take their time
            shown = _shortened(text or '""')
            kind = _shortened(raw_response.headers.get("content-type", '""'), 500)
            kind = '"%s"' % kind if " " in kind else kind
            kind = "" if kind == "application/json" else " Content-Type " + kind
            message = "%sStatus %d%s. Body: %s" % (message and message + ": ", raw_response.status_code, kind, shown)
            super().__init__(_safe_text(message.strip()), raw_response, text if body is None else body)
            self.data = data

    class ErrorResponse(SDKBaseError):
        data: errors.ErrorResponseData

        def __init__(self, data: errors.ErrorResponseData, raw_response: Any, body: Optional[str] = None) -> None:
            message = _shortened(str(data.message) or body or raw_response.text, _MAX_MESSAGE_CHARS)
            super().__init__(_safe_text(message), raw_response, body)
            self.data = data  # pyright: ignore[reportIncompatibleVariableOverride]

    class ResponseValidationError(SDKBaseError):
        def __init__(self, message: str, raw_response: Any, cause: Exception, body: Optional[str] = None) -> None:
            super().__init__(_shortened("%s: %s" % (message, cause)), raw_response, body)
            self.cause = cause

    class RequestError(AerostackError):
        never_sent = False  # nothing of the request reached the server
        connection_lost = False  # the connection broke before the answer was complete
        permanent = False  # trying again cannot help
        reused_connection = False  # it broke on a kept connection, before the first byte of an answer
        request: Any = None

        def __init__(self, message: str, *, request: Any = None, **known: Any) -> None:
            super().__init__(message)
            self.__dict__.update(known, request=request)

    class TransportError(RequestError): ...
    class TimeoutException(TransportError, TimeoutError): ...
    class ConnectTimeout(TimeoutException): never_sent = True
    class ReadTimeout(TimeoutException): ...
    class WriteTimeout(TimeoutException): ...
    class PoolTimeout(TimeoutException): never_sent = True  # httpx's; an HttpClient never waits for a connection
    class NetworkError(TransportError, ConnectionError): ...
    class ConnectError(NetworkError): never_sent = True
    class ReadError(NetworkError): connection_lost = True
    class WriteError(NetworkError): connection_lost = True
    class CloseError(NetworkError): ...  # httpx's
    class ProtocolError(TransportError): ...
    class LocalProtocolError(ProtocolError): permanent = True
    class RemoteProtocolError(ProtocolError): ...
    class ProxyError(TransportError, ConnectionError): never_sent, status_code = True, None
    class UnsupportedProtocol(TransportError): never_sent = permanent = True
    class DecodingError(RequestError): ...
    class TooManyRedirects(RequestError): ...

    class NoResponseError(AerostackError):
        def __init__(self, message: str = "No response received") -> None: super().__init__(message)

    class ClosedError(AerostackError, RuntimeError): ...

# ======================================================================================================================
# Below this line is how it works; nothing of it is for callers, but the official names at its end.
# ======================================================================================================================

# ---- Encode: arguments -> checked values -----------------------------------------------------------------------------

_bad, _bad_type = errors.ValidationError.about, errors.ArgumentTypeError.about  # (argument, words)
_REQUIRED = object()  # the default of a field that has none

class _Field:
    """One field of a model, as its annotation says."""
    def __init__(self, model: Type[BaseModel], name: str, annotation: str) -> None:
        annotation = str(annotation)  # not a str in a subclass of yours, in a file without postponed annotations
        self.name, self.annotation, self.convert = name, annotation, _converter(annotation)
        self.wire, self.default = model._wire_names.get(name, name), getattr(model, name, _REQUIRED)
        self.nullable = "Optional" in annotation

def _converter(annotation: str) -> Callable[[Any], Any]:
    """What checks and converts a value for an annotation. It raises ValidationError."""
    outer, _, inner = annotation.partition("[")
    if annotation in _CONVERTERS: return _CONVERTERS[annotation]
    if outer in ("Optional", "OptionalNullable"): return _converter(inner[:-1])
    if outer == "List": return functools.partial(_to_list, _converter(inner[:-1]))
    namespace, _, name = annotation.replace("Union[", "").partition(",")[0].partition(".")
    target: Any = getattr({"models": models, "errors": errors}.get(namespace), name, None)
    if target is None: return _CONVERTERS["Any"]  # it is your file's to check
    return functools.partial(_to_enum if issubclass(target, Enum) else _to_model, target)

def _invalid(kind: str, words: str) -> errors.ValidationError: return _bad("", words, kind)

def _validated(model: Type[M], value: Any, title: str, *place: str) -> M:
    try: return _to_model(model, value)
    except errors.ValidationError as error: raise errors.ValidationError(title, error.within(*place)) from None

def _to_model(model: Type[M], value: Any) -> M:
    if isinstance(value, model):  # it may have changed since it was made
        value = dict(value.model_extra, **{field.name: getattr(value, field.name) for field in value._fields()})
    if type(value) is not dict and (isinstance(value, BaseModel) or not isinstance(value, Mapping)):
        raise _invalid("model_type", "Input should be a dictionary or a %s" % model.__name__)
    instance = model.__new__(model)
    instance._fill(value)
    return instance

def _to_each(convert: Callable[[Any], R], values: Iterable[Any], place: Callable[[int, Any], Any]) -> List[R]:
    """All values converted, or one error with all that is wrong."""
    converted, problems = [], []
    for index, value in enumerate(values):
        try: converted.append(convert(value))
        except errors.ValidationError as error: problems += error.within(*place(index, value))
        if len(problems) >= _MAX_PROBLEMS: break
    if problems: raise errors.ValidationError("", problems)
    return converted

def _to_list(convert: Callable[[Any], Any], value: Any) -> List[Any]:
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, BaseModel)) or not isinstance(value, Iterable):
        raise _invalid("list_type", "Input should be a valid list")
    return _to_each(convert, value, lambda index, _: (index,))

def _to_object(value: Any) -> Dict[str, Any]:
    if not isinstance(value, Mapping): raise _invalid("dict_type", "Input should be a valid dictionary")
    if all(type(key) is str for key in value): return value if type(value) is dict else dict(value)
    return dict(zip(_to_each(_to_text, value, lambda _, key: (str(key), "[key]")), value.values()))

def _to_enum(enum: Type[Enum], value: Any) -> Any:
    try: return enum(value)
    except ValueError: return _to_text(value)

def _to_text(value: Any) -> str:
    if isinstance(value, str): return value if type(value) is str else str.__str__(value)  # a str enum, as its value
    if not isinstance(value, (bytes, bytearray)): raise _invalid("string_type", "Input should be a valid string")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _invalid("string_unicode", "Input should be a valid string; these bytes are not UTF-8") from None

def _to_integer(value: Any) -> int:
    try:
        if hasattr(value, "__index__"): return int(value.__index__())
        if isinstance(value, (str, bytes, bytearray)):
            text = value if isinstance(value, str) else value.decode("latin-1")
            if re.fullmatch(r"\s*[+-]?[0-9_]+(\.0+)?\s*", text): return int(text.partition(".")[0])
        elif value == value // 1 and (not isinstance(value, float) or abs(value) < 2.0**63):  # float, Decimal, Fraction
            return int(value)
    except (ValueError, TypeError, ArithmeticError):  # over 4,300 digits; no number; NaN or infinite
        pass
    raise _invalid("int_parsing", "Input should be a valid integer")

_YES = ("1", "true", "yes", "y", "on", "t")

def _to_boolean(value: Any) -> bool:
    if isinstance(value, str):
        value = {word: word in _YES for word in (*_YES, "0", "false", "no", "n", "off", "f")}.get(value.lower())
    if isinstance(value, (int, float)) and value in (0, 1): return value == 1
    raise _invalid("bool_parsing", "Input should be a valid boolean")

def _to_datetime(value: Any) -> datetime:
    try:
        if isinstance(value, datetime): return value
        if isinstance(value, date): return datetime(value.year, value.month, value.day)
        return _unix_time(value) if type(value) in (int, float) else parse_datetime(value)
    except (TypeError, ValueError, OverflowError):
        raise _invalid("datetime_parsing", "Input should be a valid datetime") from None

def parse_datetime(datetime_string: str) -> datetime:
    """A datetime from RFC 3339 text or from Unix time as text; naive if the text has no offset. Raises ValueError."""
    if re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", datetime_string):
        return _unix_time(float(datetime_string) if "." in datetime_string else int(datetime_string))
    match = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
                         r"(?:[Tt _]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
                         r"([Zz]|[+\u2212-][0-9]{2}:?[0-5][0-9])?)?", datetime_string)
    if not match: raise ValueError("not a datetime")
    *numbers, fraction, offset = match.groups()
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    east = timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:])) if offset and len(offset) > 1 else timedelta(0)
    zone = timezone(east if offset[0] in "+Zz" else -east) if offset else None
    return datetime(year, month, day, hour, minute, second, int(((fraction or "") + "000000")[:6]), zone)

def _unix_time(seconds: float) -> datetime:
    """From seconds, or from milliseconds where seconds would lie beyond the year 2603; half a microsecond counts up."""
    unit, microseconds = ("milliseconds", 1e3) if abs(seconds) > 2e10 else ("seconds", 1e6)
    since = timedelta(microseconds=int(seconds % 1 * microseconds + 0.5), **{unit: seconds // 1})
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + since

def _to_content(value: Any) -> Any:
    """What an upload can be read from. A str is refused: it is nearly always a path that was meant to be opened."""
    import io
    is_reader, is_list = hasattr(value, "read"), isinstance(value, (list, tuple))
    if isinstance(value, str):
        words = "Pass bytes, a pathlib.Path or an open binary file; a str might mean either text or a path"
    elif isinstance(value, io.TextIOBase) or is_reader and hasattr(value, "encoding"):
        words = "The file is open as text; open it in binary mode, 'rb'"
    elif hasattr(value, "__aiter__"):
        words = "It is asynchronous; pass bytes, a path, or what can be read without await"
    elif getattr(value, "closed", False) is True:
        words = "The file is closed"
    elif (isinstance(value, (Mapping, BaseModel))
          or is_list and not all(isinstance(item, (bytes, bytearray, memoryview)) for item in value)
          or not is_reader and not isinstance(value, (memoryview, os.PathLike, Iterable))):
        words = "Input should be bytes, a path, a binary reader or an iterable of bytes"
    else:
        return value
    raise _invalid("content_type", words)

def _file_name(file: Any, key: Any) -> str:
    """A name for content that came without one: the path's or open file's own, or the last part of the key."""
    name = os.fspath(file) if isinstance(file, os.PathLike) else getattr(file, "name", None)
    if isinstance(name, str) and name and name[0] != "<": return os.path.basename(name)  # no "<stdin>"
    return str(key).rpartition("/")[2] or "file"

def _nearest(name: object, known: Iterable[str]) -> str:
    import difflib
    near = difflib.get_close_matches(str(name), list(known), 1, 0.5)
    return "; did you mean %r?" % near[0] if near else "; known are " + ", ".join(sorted(known))

_CONVERTERS: Dict[str, Callable[[Any], Any]] = {
    "Any": lambda value: value, "Content": _to_content, "Dict[str, Any]": _to_object, "bool": _to_boolean,
    "datetime": _to_datetime, "int": _to_integer, "str": _to_text}

def _positive_int(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0: return value
    raise _bad_type(name, "must be a whole number above 0")

def _seconds(name: str, value: Any, per_second: float = 1) -> Optional[float]:
    """A timeout in seconds; None if none was asked for; infinite if no clock can count them."""
    if value is None: return None
    if isinstance(value, bool) or not isinstance(value, (int, float)): raise _bad_type(name, "must be a number")
    if not value > 0: raise _bad(name, "must be above 0; math.inf for no limit")
    return _FOREVER if value > _LONGEST_SECONDS * per_second else value / per_second

def _security(api_key_auth: Any) -> Union[models.Security, Callable[[], models.Security]]:
    if callable(api_key_auth): return lambda: models.Security(api_key_auth=_checked_key(api_key_auth()))
    key = os.environ.get("AEROSTACK_API_KEY", "") if api_key_auth is None else api_key_auth
    return models.Security(api_key_auth=_checked_key(key))

def _checked_key(value: Any) -> str:
    key = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(key, str): raise _bad_type("api_key_auth", "must be a string, or a callable that returns one")
    key = key.strip()  # one read from a file ends in a line end
    if key and _is_printable_ascii(key): return key
    words = "must be printable ASCII" if key else "is empty; pass the key, or set AEROSTACK_API_KEY"
    raise _bad("api_key_auth", words)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2: a method, or a header's name

def _checked_headers(headers: Optional[Mapping[str, str]], argument: str) -> Dict[str, str]:
    """Headers by lower-case name that cannot break out of their line (CVE-2019-9740). The errors show no value."""
    if headers is not None and not isinstance(headers, Mapping):
        raise _bad_type(argument, "must map names to values")
    checked = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise _bad(argument, "a name is empty or has characters that no name has")
        value = value.decode("latin-1") if isinstance(value, bytes) else value
        if not isinstance(value, str) or not _is_printable_ascii(value.replace("\t", " ")):
            raise _bad(argument, "the value of %r must be printable ASCII" % name)
        checked[name.lower()] = value
    return checked

def _is_printable_ascii(text: str) -> bool: return text.isascii() and text.isprintable()

def _filled_template(server_url: Any, url_params: Mapping[str, str]) -> Any:
    if not isinstance(server_url or "", str): raise _bad_type("server_url", "must be a string")
    if not isinstance(url_params, Mapping): raise _bad_type("url_params", "must map names to strings")
    for name, value in url_params.items() if server_url else ():
        if not isinstance(value, str): raise _bad_type("url_params", "the value of %r must be a string" % name)
        server_url = server_url.replace("{%s}" % name, value)
    return server_url

# An http or https URL (RFC 3986), checked and taken apart once. The host is in lower case, IPv6 without brackets;
# authority is host:port as given; authorization what user:password@ means (RFC 7617), which text lacks and shown hides;
# target the path and query.
class _Url(collections.namedtuple("_Url", "scheme host port authority authorization target text shown")):
    def __repr__(self) -> str: return str(self.shown)

@functools.lru_cache(maxsize=64)
def _parse_url(text: str) -> _Url:
    if not text.lower().startswith(("http://", "https://")):
        raise errors.UnsupportedProtocol("must start with http:// or https://")
    # No host but ASCII: IDNA folds some characters into "/", "@" and ":" (bpo-36216).
    match = re.fullmatch(r"(?is)(https?)://(?:([^/?#\\\0-\x20\x7f\ud800-\udfff]*)@)?"
                         r"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=-]+)(?::([0-9]{0,5}))?"
                         r"((?:[/?][^#\0-\x1f\x7f\ud800-\udfff]*)?)(#[^\0-\x1f\x7f]*)?", text)
    if not match or not 0 < int(match.group(4) or 1) < 65536:
        raise errors.UnsupportedProtocol("has no host, a host or port that cannot be, or control characters; a host"
                                         " that is not ASCII goes in its xn-- form")
    scheme, credentials, host, port, target, _ = match.groups()
    scheme, authorization, authority = scheme.lower(), "", host + (":" + port if port else "")
    target = target if target.startswith("/") else "/" + target
    if not re.fullmatch("[!#-;=?-\\[\\]_a-z~]*", target):
        from urllib.parse import quote
        target = quote(target, "!#$%&'()*+,/:;=?@[]~")
    if credentials is not None:
        from base64 import b64encode
        from urllib.parse import unquote_to_bytes
        pair = b":".join(map(unquote_to_bytes, credentials.partition(":")[::2]))
        authorization = "Basic " + b64encode(pair).decode()
    text, shown = ("%s://%s%s%s" % (scheme, hidden, authority, target) for hidden in ("", "***@" * bool(credentials)))
    return _Url(scheme, host.strip("[]").lower(), int(port or (443 if scheme == "https" else 80)), authority,
                authorization, target, text, shown)

def _check_server_url(server_url: Any) -> str:
    """A URL that an operation's path can be appended to."""
    if not isinstance(server_url, str): raise _bad_type("server_url", "must be a string")
    try: _parse_url(server_url)
    except errors.UnsupportedProtocol as error: raise _bad("server_url", str(error)) from None
    if "?" in server_url or "#" in server_url:
        raise _bad("server_url", "must have no query and no fragment")
    return server_url.rstrip("/")

def _shown_url(url: object) -> str:
    """A URL without its secrets."""
    return re.sub(r"(?s)://[^/?#]*@", "://***@", str(url))

# ---- Encode: model -> body -------------------------------------------------------------------------------------------

class _Call:
    """One operation under way: what is sent, how it may be repeated, and what is known about it so far."""
    def __init__(self, configuration: SDKConfiguration, operation: Operation, request: object, retries: Retries,
                 options: Dict[str, Any]) -> None:
        server_url, timeout_ms = options.pop("server_url", None), options.pop("timeout_ms", None)
        http_headers = _checked_headers(options.pop("http_headers", None), "http_headers")
        is_upload = operation.request_type is models.StorageUploadRequestBody
        progress = options.pop("progress", None) if is_upload else None
        if request is not None and options:
            words = "%s takes either a request or its fields as keywords" % operation.name
            raise _bad_type(", ".join(options), words)
        model = _validated(operation.request_type, options if request is None else request, operation.name, "body")
        security = configuration.security() if callable(configuration.security) else configuration.security
        server_url = configuration.get_server_details()[0] if server_url is None else server_url
        self.operation, self.url = operation, _check_server_url(server_url) + operation.path
        self.retries = _retry_policy(configuration.retry_config if retries is UNSET else retries, operation.repeatable)
        timeout_ms = configuration.timeout_ms if timeout_ms is None else timeout_ms
        self.timeout_seconds = _seconds("timeout_ms", timeout_ms, 1000)
        self.logger = _default_logger() if configuration.debug_logger is None else configuration.debug_logger
        content: Any = _Multipart(model, progress) if is_upload else _json_bytes(model, operation.name)
        self.request_id: str = http_headers.get("x-request-id", os.urandom(16).hex())
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate",
                   "Content-Type": content.content_type if is_upload else "application/json",
                   "User-Agent": configuration.user_agent, "X-Aerostack-Key": security.api_key_auth,
                   "X-Request-ID": self.request_id}
        self.headers = {name: value for name, value in headers.items() if name.lower() not in http_headers}
        self.headers.update(http_headers)  # one of each name, whatever its case
        self.secrets = [secret for secret in (security.api_key_auth, getattr(model, "password", None)) if secret]
        self.content: Union[bytes, _Multipart] = content
        self.attempts, self.maybe_processed, self.consumed = 0, False, False

def _json_bytes(model: BaseModel, title: str) -> bytes:
    """Compact JSON. The C encoder does the work; only what it cannot write is walked through in Python."""
    try:
        body = model.model_dump(by_alias=True)
        try:
            text = _encode_json(body)
            if '"null":' not in text: return text.encode("ascii")  # which might be a key None
        except (TypeError, ValueError, RecursionError): pass
        return _encode_json({name: _plain(value, name) for name, value in body.items()}).encode("ascii")
    except errors.ValidationError as error:
        raise errors.ValidationError(title, error.within("body")) from None
    except (ValueError, RecursionError) as error:
        raise _bad("body", "cannot be written as JSON: %s" % error) from None

def _plain(value: Any, path: str, above: Tuple[int, ...] = ()) -> Any:
    """A value as dicts, lists, strings, numbers, booleans and None. ValidationError says where that is impossible."""
    if value is None or isinstance(value, (str, int)) and not isinstance(value, Enum): return value
    path = path[:200]  # it grows with every level
    if isinstance(value, float):
        if value - value == 0: return value
        raise _bad(path, "is NaN or infinite, which JSON cannot say")
    if id(value) in above or len(above) > 250: raise _bad(path, "holds itself, or is nested too deeply")
    above += (id(value),)
    if isinstance(value, dict):
        return {_plain_key(key, path): _plain(item, "%s.%s" % (path, key), above) for key, item in value.items()}
    if isinstance(value, (list, tuple, Iterator)):
        return [_plain(item, "%s[%d]" % (path, index), above) for index, item in enumerate(value)]  # pyright: ignore
    try: leaf = _leaf(value)
    except UnicodeDecodeError: raise _bad(path, "is bytes that are not UTF-8; encode them, say as Base64") from None
    except TypeError: raise _bad(path, "cannot be written as JSON: %s" % type(value).__name__) from None
    return _plain(leaf, path, above)

def _plain_key(key: Any, path: str) -> str:
    """A dict's key as the official SDK writes it."""
    kind = type(key).__name__
    try:
        for _ in range(3):  # an enum's value may need writing, too
            if isinstance(key, (str, int, float)) and not isinstance(key, Enum):
                return key if isinstance(key, str) else _encode_json(key)
            key = _leaf(key)
    except (TypeError, ValueError):
        pass
    raise _bad(path, "has a key that JSON cannot have: " + kind)

def _leaf(value: Any) -> Any:
    """A value that JSON has no type for, as the official SDK writes it. Raises TypeError, UnicodeDecodeError."""
    if isinstance(value, Enum): return value.value
    if isinstance(value, (date, clock_time)):
        text = value.isoformat()
        return text[:-6] + "Z" if text.endswith("+00:00") else text
    if isinstance(value, timedelta): return _iso_duration(value)
    if isinstance(value, (bytes, bytearray)): return value.decode()
    if isinstance(value, BaseModel): return value.model_dump(by_alias=True)
    if isinstance(value, os.PathLike): return os.fspath(value)
    if hasattr(type(value), "model_dump"):  # a pydantic model
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if any((base.__module__, base.__name__) in _WRITTEN_AS_TEXT for base in type(value).__mro__): return str(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping): return dict(value)
    if isinstance(value, Iterable) and hasattr(value, "__len__") and not isinstance(value, (type, memoryview)):
        return list(value)  # set, deque, range, dict views
    raise TypeError

_WRITTEN_AS_TEXT = frozenset([("decimal", "Decimal"), ("uuid", "UUID"), ("ipaddress", "_IPAddressBase")])
_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_leaf).encode

def _iso_duration(value: timedelta) -> str:
    """ISO 8601: P1DT1M30S."""
    days, seconds = abs(value).days, abs(value).seconds
    fraction = ("%.6f" % (abs(value).microseconds / 1e6))[1:].rstrip("0").rstrip(".")
    parts = [(seconds // 3600, "", "H"), (seconds // 60 % 60, "", "M"), (seconds % 60, fraction, "S")]
    clock = "".join("%d%s%s" % part for part in parts if part[0] or part[1])
    sign, days_part = "-" * (value < timedelta(0)), "%dD" % days * bool(days)
    return "%sP%s%s" % (sign, days_part, "T" + clock if clock else "" if days else "T0S")

class _Stream:
    """A body in blocks, from whatever holds bytes or gives them. Each iteration sends it anew, from its start."""
    head = tail = b""

    def __init__(self, source: Any, progress: Optional[Progress] = None, argument: str = "content") -> None:
        self.argument, self.progress = argument, progress or (lambda sent, total: None)
        self.is_path, self.is_reader = isinstance(source, os.PathLike), hasattr(source, "read")
        self.source = source if self.is_path or self.is_reader else _bytes_or_iterable(source)
        self.rereadable = hasattr(self.source, "__getitem__")  # an iterable without may be spent after one walk
        self.source_length = len(self.source) if isinstance(self.source, memoryview) else None
        self.measured = self.started = False

    def measure(self) -> Optional[int]:
        """The body's length in bytes; None if only reading it would tell. The first to touch a path or an open file."""
        source = self.source
        try:
            if self.measured:
                pass
            elif self.is_reader:
                if not getattr(source, "readable", lambda: True)(): raise OSError("it is not open for reading")
                self.rereadable, self.source_length = _seekable_length(source)
            elif self.is_path and (os.path.isfile(source) or os.path.isdir(source) or not os.path.exists(source)):
                with open(source, "rb") as reader: self.rereadable, self.source_length = _seekable_length(reader)
        except (OSError, ValueError) as error:
            raise _bad(self.argument, "cannot be read: %s" % error) from error
        self.measured = True
        return None if self.source_length is None else len(self.head) + self.source_length + len(self.tail)

    def __iter__(self) -> Iterator[Union[bytes, memoryview]]:
        total, sent = self.measure(), 0
        if self.started and not self.rereadable:
            raise errors.LocalProtocolError("the upload's source cannot be read twice")
        self.started = True
        self.progress(0, total)
        for blocks in ((self.head,), self.blocks(), (self.tail,)):
            for block in blocks:
                yield block
                sent += len(block)  # it has left by the time that the next is asked for
                self.progress(sent, total)

    def blocks(self) -> Iterator[memoryview]:
        """The source, as long as it was measured to be, in blocks that are not too large."""
        length = left = _FOREVER if self.source_length is None else self.source_length
        pieces = self.pieces()
        try:
            for piece in pieces:
                view = memoryview(piece).cast("B")
                end = int(min(len(view), left))
                for start in range(0, end, _BLOCK_BYTES): yield view[start : min(start + _BLOCK_BYTES, end)]
                left -= end
                if not left: break
        except Exception as error:
            raise errors.LocalProtocolError("reading the upload's source for bytes failed: %r" % error) from error
        finally:
            pieces.close()
        if 0 < left < _FOREVER:
            raise errors.LocalProtocolError("the upload's source ended after %d of %d bytes" % (length - left, length))

    def pieces(self) -> Generator[Any, None, None]:
        """The source as it comes, in pieces of any size."""
        if not self.is_path and not self.is_reader:
            yield from [self.source] if isinstance(self.source, memoryview) else filter(len, self.source)
            return
        reader = open(self.source, "rb", buffering=0) if self.is_path else self.source
        try:
            if self.is_reader and self.rereadable: reader.seek(0)
            piece = reader.read(_BLOCK_BYTES)
            while piece is None or len(piece):  # None, from a reader that would block, is an error further up
                yield piece
                piece = reader.read(_BLOCK_BYTES)
        finally:
            if self.is_path: reader.close()

# As browsers and the official SDK escape file names; there, ESC stays as it is.
_ESCAPES = {**{code: "%%%02X" % code for code in range(32) if code != 27}, ord('"'): "%22", ord("\\"): "\\\\"}

class _Multipart(_Stream):
    """A multipart/form-data body (RFC 7578)."""
    def __init__(self, model: models.StorageUploadRequestBody, progress: Optional[Progress]) -> None:
        super().__init__(model.file.content, progress, "body.file")
        name, content_type = model.file.file_name, model.file.content_type
        if not name: raise _bad("body.file.fileName", "must not be empty")
        if content_type is None:
            import mimetypes
            try: content_type = mimetypes.guess_type(name)[0]
            except ValueError: pass  # Python 3.13 takes a name such as "//[" for a broken URL
            content_type = content_type or "application/octet-stream"
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", content_type):  # which would add headers to the part
            raise _bad("body.file.Content-Type", "has control characters")
        if not callable(self.progress): raise _bad_type("progress", "must be a callable (sent, total)")
        boundary = os.urandom(16).hex()
        part = "--" + boundary + '\r\nContent-Disposition: form-data; name="%s"'
        fields = [("key", model.key), ("contentType", model.content_type)]
        head = "".join((part + "\r\n\r\n%s\r\n") % field for field in fields if field[1] is not None)
        head += part % "file" + '; filename="%s"\r\nContent-Type: %s\r\n\r\n' % (name.translate(_ESCAPES), content_type)
        try: self.head, self.tail = head.encode(), ("\r\n--%s--\r\n" % boundary).encode()
        except UnicodeEncodeError: raise _bad("body", "a key, name or type has lone surrogates") from None
        self.content_type = "multipart/form-data; boundary=" + boundary

def _bytes_or_iterable(content: Any) -> Any:
    """A flat view of what holds bytes; anything else as it is."""
    try: view = memoryview(content)
    except TypeError: return content
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())

def _seekable_length(reader: Any) -> Tuple[bool, Optional[int]]:
    """Whether a reader can go back to its start, and how long it is from there."""
    position = length = None
    try:
        if not getattr(reader, "seekable", lambda: True)(): return False, None
        position = int(reader.tell())
        length = int(reader.seek(0, 2) or reader.tell())
        reader.seek(0)
        if not length and reader.read(1): length = None  # as in /proc, where files have no size
        reader.seek(position)
        return True, length
    except Exception as error:  # a pipe, a socket's file, a bare read(): each says it in its own way
        try:
            if position is None or length is None and reader.tell() == position: return False, None
        except Exception: pass
        raise errors.LocalProtocolError("seeking in the upload's source failed: %r" % error) from error  # half-way

# ---- Retries: call -> model or error, the only place that decides to wait --------------------------------------------

_REFUSED = frozenset([429, 503])  # the server says that it did nothing
_FAILED = frozenset([500, 502, 504])  # nobody says what was done
_DEFAULT_BACKOFF = BackoffStrategy(500, 8_000, 2, 60_000)

async def _perform(half: _Blocking, configuration: SDKConfiguration, operation: Operation, request: object,
                   retries: Retries, options: Dict[str, Any]) -> Any:
    """One call, from its arguments to a model or an error that knows all about it."""
    call = None
    try:
        call = _Call(configuration, operation, request, retries, options)
        return await _attempts(call, half)
    except AerostackError as error:
        if call is not None: _annotate(error, call, half.wall())
        # From here down, locals hold keys and passwords, which error trackers would send home.
        cause = None if isinstance(error, errors.LocalProtocolError) else error.__cause__  # or a reader failed
        while cause is not None: cause.__traceback__, cause = None, cause.__cause__
        raise error.with_traceback(None)  # noqa: B904  # it is the same one
    finally:
        options.clear()  # which may hold a password, whatever was raised

async def _attempts(call: _Call, half: _Blocking) -> Any:
    """Attempts, until there is an answer to decode or an error to raise."""
    started = half.monotonic()
    client, request = await half.build(call)
    while True:
        call.attempts += 1
        _log_request(call)
        attempt_started = half.monotonic()
        try:
            outcome = await half.send(client, request)
            if outcome is None: raise errors.NoResponseError()
            call.maybe_processed |= not (400 <= outcome.status_code < 500 or outcome.status_code == 503)
            judged = True
        except Exception as error:
            if isinstance(error, (errors.ClosedError, errors.ValidationError)) and error.request_id is None:
                call.attempts -= 1  # which never began
                raise
            outcome, judged = error, _is_about(request, error)
            call.maybe_processed |= not (judged and getattr(error, "never_sent", _error_kind(error).never_sent))
        delay = _next_delay(call, outcome, half, started) if judged else None
        _log_outcome(call, outcome, half.monotonic() - attempt_started, delay)
        if delay is not None: await half.sleep(delay)
        if delay is None or half.closed.is_set():
            if isinstance(outcome, Exception): raise outcome
            return _decode(call.operation, outcome)

def _next_delay(call: _Call, outcome: Any, half: _Blocking, started: float) -> Optional[float]:
    """Seconds until the next attempt; None if this outcome is the last. No wait ends past max_elapsed_time."""
    policy = call.retries
    if policy is None or call.attempts >= policy.attempts or half.closed.is_set() or not policy.tries_again(outcome):
        return None
    if isinstance(call.content, _Multipart) and call.content.started and not call.content.rereadable:
        call.consumed = True
        return None
    asked = _retry_after_seconds(outcome, half.wall())
    delay = _jittered_seconds(policy.backoff, call.attempts) if asked is None else asked
    if getattr(outcome, "reused_connection", False) and call.attempts == 1:
        delay = 0.0  # the server closed an idle connection just as we wrote; waiting mends nothing
    left = policy.backoff.max_elapsed_time / 1000 - (half.monotonic() - started)
    return delay if delay <= min(left, _LONGEST_SECONDS) else None

class _Policy:
    """Which outcomes are tried again, how often, and when: the safe default, or what a RetryConfig says."""
    def __init__(self, config: Any, repeatable: bool) -> None:
        asked = config is not UNSET
        again = bool(config.retry_connection_errors) if asked else True
        self.backoff: BackoffStrategy = config.backoff if asked else _DEFAULT_BACKOFF
        self.attempts = _FOREVER if asked else _DEFAULT_ATTEMPTS
        self.statuses = _REFUSED | _FAILED if asked or repeatable else _REFUSED
        self.never_sent, self.lost, self.timeouts = again, again and (asked or repeatable), again and asked
        for name in ("initial_interval", "max_interval", "exponent", "max_elapsed_time"):
            value = getattr(self.backoff, name, None)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise _bad(name, "must be a number, and not negative")

    def tries_again(self, outcome: Any) -> bool:
        if not isinstance(outcome, Exception): return outcome.status_code in self.statuses
        kind = _error_kind(outcome)
        if getattr(outcome, "permanent", kind.permanent): return False
        if kind.never_sent: return self.never_sent
        if issubclass(kind, errors.TimeoutException): return self.timeouts
        hung_up = kind is errors.RemoteProtocolError and re.search("disconnected|closed connection", str(outcome))
        return self.lost and bool(getattr(outcome, "connection_lost", kind.connection_lost or hung_up))  # or httpx's

def _retry_policy(config: Any, repeatable: bool) -> Optional[_Policy]:
    """None means one attempt, as does any strategy but "backoff"."""
    return _Policy(config, repeatable) if config is UNSET or getattr(config, "strategy", None) == "backoff" else None

def _error_kind(error: BaseException) -> Type[errors.RequestError]:
    """Our class of an error, or ours of the same name for httpx's, which a client of yours may raise."""
    kinds = (getattr(errors, base.__name__, None) for base in type(error).__mro__)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, errors.RequestError)),
                errors.RequestError)

def _is_about(request: Any, error: Any) -> bool:
    """Whether an error is of this request, not of what a progress, handler, hook or client of yours did meanwhile."""
    if getattr(error, "request_id", None) is not None: return False  # of another call
    if isinstance(request, Request):
        return isinstance(error, errors.RequestError) and (error.request or request).origin is request.origin
    url = getattr(getattr(error, "_request", None), "url", None)  # httpx's
    return url in (None, getattr(request, "url", url))

def _jittered_seconds(backoff: BackoffStrategy, attempts: int) -> float:
    """Full jitter: evenly between 0 and the ceiling, so that clients do not come back in step."""
    try: ceiling = min(backoff.initial_interval * backoff.exponent ** (attempts - 1), backoff.max_interval)
    except OverflowError: ceiling = backoff.max_interval
    return ceiling / 1000 * int.from_bytes(os.urandom(4), "big") / 2**32  # urandom: forks must not draw the same

def _retry_after_seconds(outcome: Any, wall_seconds: float) -> Optional[float]:
    """What Retry-After asks for (RFC 9110, 10.2.3); None if nothing, garbage, or not in the future."""
    text = (getattr(outcome, "headers", None) or {}).get("retry-after", "").strip()
    if not text: return None
    try:
        seconds = float(text.replace("_", "?"))
    except ValueError:
        from email.utils import parsedate_to_datetime
        try:
            moment = parsedate_to_datetime(text)
            seconds = moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() - wall_seconds
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if seconds > 0 else None

def _annotate(error: AerostackError, call: _Call, wall_seconds: float) -> None:
    """Tell an error what is known about the call, and take the call's secrets out of it."""
    error.request_id, error.attempts, error.maybe_processed = call.request_id, call.attempts, call.maybe_processed
    error.retry_after = _retry_after_seconds(error, wall_seconds)
    if isinstance(error, errors.RequestError) and error.connection_lost and call.maybe_processed:
        error.message += "; the request may have been processed"
    if error.data is not None: error.data.message = _without(call.secrets, error.data.message)
    if call.consumed: error.message += "; not tried again, for the upload's source cannot be read twice"
    if isinstance(error, (errors.RequestError, errors.SDKBaseError)):
        error.message = _without(call.secrets, error.message)
        error.args = (error.message,)

class _Blocking:
    """The synchronous half of an SDK: its client, and how it waits."""
    monotonic, wall = staticmethod(time.monotonic), staticmethod(time.time)
    argument, close_method = "client", "close"

    def __init__(self, client: Any, make: Callable[[], Any] = HttpClient) -> None:
        self.supplied, self.closed = client is not None, threading.Event()
        self.client = make() if client is None else client
        for method in ("build_request", "send", self.close_method):
            if not callable(getattr(self.client, method, None)):
                raise _bad_type(self.argument, "has no method " + method)

    async def build(self, call: _Call) -> Tuple[Any, Any]:
        """The client, and its request for all attempts."""
        client, options = self.client, {}  # and no locals that hold a key or password
        if client is None: raise errors.ClosedError("the SDK is closed")
        ours = isinstance(client, HttpClient)
        if call.timeout_seconds is not None:  # or the client's own timeout holds
            options["timeout"] = call.timeout_seconds if ours or call.timeout_seconds < _FOREVER else None
        if not ours and isinstance(call.content, _Multipart):
            length = await self.aside(call.content.measure)
            if length is not None: call.headers["Content-Length"] = str(length)
            options["content"] = self.foreign(call.content)
        return client, client.build_request(
            "POST", call.url, **{"content": call.content, "headers": call.headers, **options})

    def foreign(self, content: _Stream) -> Any: return _Blocks(content)
    async def aside(self, function: Callable[[], R]) -> R: return function()

    async def send(self, client: Any, request: Any) -> Any:
        outcome = client.send(request, stream=False)
        if not hasattr(outcome, "__await__"): return outcome
        outcome.close()
        raise _bad_type("client", "is to be awaited; pass it as async_client")

    async def sleep(self, seconds: float) -> None: self.closed.wait(seconds)

    def close(self) -> None:
        self.closed.set()
        client, self.client = self.client, None
        if client is not None and not self.supplied: client.close()

class _Blocks:
    """An upload's blocks as plain bytes, for a client that is not ours."""
    def __init__(self, content: _Stream) -> None: self.content = content
    def __iter__(self) -> Iterator[bytes]: return map(bytes, self.content)

# ---- Transport: one attempt, the only place that opens a socket ------------------------------------------------------

class _Deadline:
    """A moment on the monotonic clock, by which an attempt is over."""
    def __init__(self, seconds: float) -> None: self.seconds, self.at = seconds, time.monotonic() + seconds

    def left(self, kind: Type[errors.TimeoutException], doing: str) -> Optional[float]:
        """The seconds left; None for no limit. Raises the error when there are none."""
        left = self.at - time.monotonic()
        if left <= 0: raise self.timeout_error(kind, doing)
        return None if left == _FOREVER else left

    def timeout_error(self, kind: Type[errors.TimeoutException], doing: str) -> errors.TimeoutException:
        return kind("timed out after %g s, while %s" % (self.seconds, doing))

def _urllib_opener(handlers: Iterable[Any], exchange: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """`exchange` behind urllib.request handlers. Importing that doubles the time of a first call, so only they do."""
    import urllib.request

    class Pooled(urllib.request.BaseHandler):
        def http_open(self, outer: Any) -> Any:
            if not hasattr(outer, "request"): raise errors.LocalProtocolError("a handler made a request of its own")
            headers = Headers(outer.headers.items())
            headers.update(outer.unredirected_hdrs)
            inner: Request = outer.request.moved(outer.full_url, headers)
            inner.method, inner.content = outer.get_method(), outer.data
            return exchange(inner)

        https_open = http_open

    def send(request: Request) -> Response:
        outer: Any = urllib.request.Request(request.url, request.content, method=request.method)
        outer.request, outer.headers = request, Headers(request.headers.items())
        response = opener.open(outer, timeout=request.deadline.seconds)
        if isinstance(response, Response): return response  # else from a handler, or for a scheme that is not http
        raise errors.NoResponseError()

    opener = urllib.request.OpenerDirector()  # without urllib's own handlers: no file:, no ftp:, no redirects
    opener.add_handler(Pooled())
    for handler in handlers if isinstance(handlers, Iterable) else [handlers]:
        if not isinstance(handler, urllib.request.BaseHandler):
            raise _bad_type("handlers", "must be a list of urllib.request handlers")
        if hasattr(handler, "http_open") or hasattr(handler, "https_open"):
            raise _bad_type("handlers", "cannot open connections; there are proxy= and ssl_context=")
        opener.add_handler(handler)
    return send

class _Pool:
    """Idle connections. They change hands only under the lock; sockets are touched only outside it."""
    monotonic, wall = staticmethod(time.monotonic), staticmethod(time.time)

    def __init__(self, proxy: Union[str, Literal[False], None], ssl_context: Optional[ssl.SSLContext],
                 max_connections: int, max_response_bytes: int) -> None:
        self.proxy, self.context, self.closed = proxy, ssl_context, False
        self.max_connections, self.max_response_bytes = max_connections, max_response_bytes
        self.reset()

    def reset(self) -> None:
        self.lock, self.active = threading.RLock(), 0  # a signal's handler may make a call, too
        self.idle: List[_Connection] = []  # the one used last is last
        self.pid = os.getpid()  # last, for now any thread may go on

    def check_fork(self) -> None:
        """A child shares no socket and no lock with its parent, which may hold both at this very moment."""
        if self.pid != os.getpid():
            inherited = self.idle
            self.reset()
            for connection in inherited: connection.close()

    def exchange(self, request: Request) -> Response:
        connection, reusable = self.take(_parse_url(request.url)), False
        try:
            response, reusable = connection.exchange(request, self.max_response_bytes)
            return response
        finally:
            if request.cancellation: request.cancellation.watch(None)
            self.give_back(connection, reusable)

    def take(self, url: _Url) -> _Connection:
        """A kept connection that is still good, else a new one."""
        self.check_fork()
        while True:
            with self.lock:
                if self.closed: raise errors.ClosedError("the client is closed")
                kept = next((connection for connection in reversed(self.idle) if connection.leads_to(url)), None)
                if kept is not None:
                    try: self.idle.remove(kept)
                    except ValueError: continue  # a signal's handler took it
                self.active += 1
            if kept is None: return _Connection(url, self)
            if kept.is_usable(self.monotonic(), self.wall()): return kept
            self.give_back(kept, False)

    def give_back(self, connection: _Connection, reusable: bool) -> None:
        """Keep a connection that may be used again, at the cost of the oldest if there are too many; else close it."""
        if self.pid != os.getpid(): return connection.close()
        connection.idle_since = self.monotonic(), self.wall()
        surplus: Optional[_Connection] = connection
        with self.lock:
            self.active -= 1
            if reusable and not self.closed:
                self.idle.append(connection)
                surplus = self.idle.pop(0) if len(self.idle) > self.max_connections else None
        if surplus is not None: surplus.close()

    def ssl_context(self) -> ssl.SSLContext:
        """Made once, when the first https connection needs it: reading the trust store takes 10 ms."""
        with self.lock:
            self.context = self.context or _default_ssl_context()
            self.context.options &= ~128  # OP_IGNORE_UNEXPECTED_EOF, which 3.8 and 3.9 set with OpenSSL 3 (bpo-43794)
            return self.context

    def close(self) -> None:
        self.check_fork()
        with self.lock:
            self.closed = True
            idle, self.idle = self.idle, []
        for connection in idle: connection.close()

def _default_ssl_context() -> ssl.SSLContext:
    """The system's trust store, or what the usual variables name; TLS 1.2 at least."""
    import ssl
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name) and not os.path.exists(os.environ[name]):
            raise errors.ConnectError("%s names %r, which does not exist" % (name, os.environ[name]), permanent=True)
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or None
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"): bundle = None  # OpenSSL reads them by itself
    place = {"capath" if bundle and os.path.isdir(bundle) else "cafile": bundle}
    try:
        context = ssl.create_default_context(**place)  # type: ignore
    except OSError as error:
        raise errors.ConnectError("the CA file %r cannot be used: %s" % (bundle, error), permanent=True) from error
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)  # TLS 1.0 until Python 3.10
    context.set_alpn_protocols(["http/1.1"])
    return context

def _find_proxy(setting: Any, url: _Url) -> Optional[_Url]:
    """Which proxy, if any, leads to a server."""
    if setting is not None: return _parse_proxy(setting, "proxy=") if setting else None
    if not any(name.lower().endswith("_proxy") for name in os.environ): return None
    from urllib.request import getproxies_environment
    found = getproxies_environment()  # lower case first; no HTTP_PROXY under CGI (CVE-2016-1000110)
    name = url.scheme if url.scheme in found else "all"
    if name not in found or _bypasses_proxy(found.get("no", ""), url.host, url.port): return None
    return _parse_proxy(found[name], name.upper() + "_PROXY")

def _parse_proxy(text: Any, source: str) -> _Url:
    if not isinstance(text, str):
        raise _bad_type("proxy", 'must be a URL such as "http://proxy:3128", or False for none')
    text, words = text.strip(), "must be http://host:port; other kinds of proxy are not supported"
    if "://" not in text: text = "http://" + text
    try:
        if text.lower().startswith("http://"): return _parse_url(text)
    except errors.UnsupportedProtocol as error:
        words = str(error)
    raise errors.UnsupportedProtocol("the proxy %s from %s %s" % (_escaped(_shown_url(text)), source, words))

def _bypasses_proxy(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY names a host: "*", a domain and all below it, host:port, an address, or a range of them."""
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        name, colon, number = entry.rpartition(":")
        if colon and re.fullmatch("[0-9]{1,5}", number) and (name.startswith("[") or ":" not in name):
            if int(number) != port: continue
            entry = name
        domain = entry.strip("[]").rstrip(".").lstrip("*").lstrip(".")
        if entry == "*" or domain and ("." + host).endswith("." + domain) or _in_range(host, entry.strip("[]")):
            return True
    return False

def _in_range(host: str, entry: str) -> bool:
    import ipaddress
    try: return ipaddress.ip_address(host.partition("%")[0]) in ipaddress.ip_network(entry, strict=False)
    except ValueError: return False  # what is no address matches none

class _Connection:
    """One connection, for one exchange at a time. Every wait ends at the deadline; nothing that is read is believed."""
    def __init__(self, url: _Url, pool: _Pool) -> None:
        self.url, self.pool, self.exchanges = url, pool, 0
        self.idle_since, self.max_idle_seconds = (0.0, 0.0), float(_MAX_IDLE_SECONDS)
        self.sock: Any = None
        self.proxy: Optional[_Url] = None
        self.buffer = b""  # received, not yet read

    def leads_to(self, url: _Url) -> bool: return (self.url.scheme, self.url.authority) == (url.scheme, url.authority)
    def wake(self) -> None: _shut(self.sock)

    def is_usable(self, monotonic: float, wall: float) -> bool:
        """Whether an idle connection is still good: not too old by either clock (a frozen Lambda stops the first), not
        closed by the server, and without bytes that nobody asked for."""
        age, wall_age = monotonic - self.idle_since[0], wall - self.idle_since[1]
        if max(age, wall_age) > self.max_idle_seconds or getattr(self.sock, "pending", int)(): return False
        try:
            self.sock.settimeout(0)
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)  # below TLS
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    def exchange(self, request: Request, max_bytes: int) -> Tuple[Response, bool]:
        """Send a request and read its response; and whether the connection may be used again."""
        self.deadline, self.cancellation, self.answered, self.interim = request.deadline, request.cancellation, False, 0
        self.exchanges += 1
        try:
            if self.sock is None: self.connect()
            if self.cancellation: self.cancellation.watch(self.wake)
            complete = self.write(request)
            version, status, reason, headers = self.read_head()
            content, ends = self.read_body(_framing(request.method, status, headers), max_bytes)
            content = _decompressed(content, headers.get("content-encoding", ""), max_bytes)
            if not complete and status < 300:
                raise errors.RemoteProtocolError("the server said %d before it had the whole request" % status)
        except errors.RequestError as error:
            error.request = request
            error.reused_connection = self.exchanges > 1 and error.connection_lost and not self.answered
            raise
        self.max_idle_seconds = _keep_alive_seconds(headers)
        reusable = complete and ends and not self.buffer and _keeps_alive(version, headers, request.headers)
        return Response(status, headers, content, request, reason), reusable

    def close(self) -> None:
        sock, self.sock, self.buffer = self.sock, None, b""
        if sock is not None: sock.close()

    # Connect

    def connect(self) -> None:
        """Resolve, connect, pass the proxy and shake hands, all before the deadline."""
        self.proxy = proxy = _find_proxy(self.pool.proxy, self.url)
        server, is_https = proxy or self.url, self.url.scheme == "https"
        target = "%s:%d" % ("[%s]" % self.url.host if ":" in self.url.host else self.url.host, self.url.port)
        try:
            addresses = _resolve(server.host, server.port, self.deadline, self.cancellation)
            self.sock = _dial(addresses, "%s:%d" % (server.host, server.port), self.deadline, self.cancellation)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, seconds in (("TCP_KEEPIDLE", 45), ("TCP_KEEPALIVE", 45), ("TCP_KEEPINTVL", 15)):
                if hasattr(socket, name):  # probes, before a NAT or a load balancer forgets the connection
                    self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
        except (OSError, UnicodeError) as error:
            if isinstance(error, AerostackError): raise
            if proxy: raise errors.ProxyError("cannot reach the proxy %s: %s" % (proxy.shown, error)) from error
            raise errors.ConnectError("cannot connect to %s: %s" % (target, error)) from error
        if self.cancellation: self.cancellation.watch(self.wake)
        if is_https and proxy: self.open_tunnel(proxy, target)
        if is_https: self.shake_hands(target)

    def open_tunnel(self, proxy: _Url, target: str) -> None:
        """CONNECT (RFC 9110, 9.3.6), with a Host header on every Python (gh-66897); any 2xx is a yes."""
        credentials = "Proxy-Authorization: %s\r\n" if proxy.authorization else "%s"
        failed = "the proxy %s opened no tunnel to %s: " % (proxy.shown, target)
        try:
            head = "CONNECT %s HTTP/1.1\r\nHost: %s\r\n" + credentials + "\r\n"
            self.send((head % (target, target, proxy.authorization)).encode())
            _, status, reason, _ = self.read_head()
        except errors.TimeoutException as error:
            raise errors.ConnectTimeout(failed + error.message) from error
        except errors.TransportError as error:
            raise errors.ProxyError(failed + error.message) from error
        if not 200 <= status < 300:
            raise errors.ProxyError("%sit answered %d %s" % (failed, status, _escaped(reason)), status_code=status,
                                    permanent=status < 500)
        if self.buffer: raise errors.ProxyError(failed + "it sent bytes ahead of TLS", permanent=True)
        self.interim = 0

    def shake_hands(self, target: str) -> None:
        import ssl
        context, doing = self.pool.ssl_context(), "shaking hands with " + target
        left = self.deadline.left(errors.ConnectTimeout, doing)
        try:
            self.sock = context.wrap_socket(  # where a cut connection is an error, not an end
                self.sock, server_hostname=self.url.host, do_handshake_on_connect=False, suppress_ragged_eofs=False)
            if self.cancellation: self.cancellation.watch(self.wake)  # in case the old socket was shut just before
            self.sock.settimeout(left)
            self.sock.do_handshake()
        except socket.timeout as error:
            raise self.deadline.timeout_error(errors.ConnectTimeout, doing) from error
        except ssl.SSLCertVerificationError as error:
            words = ("the certificate of %s is not trusted: %s; a CA of your own goes into SSL_CERT_FILE or"
                     " HttpClient(ssl_context=)")
            raise errors.ConnectError(words % (target, error.verify_message), permanent=True) from error
        except (OSError, ValueError) as error:
            hint = " (it does not seem to speak TLS)" if "WRONG_VERSION_NUMBER" in str(error) else ""
            permanent = isinstance(error, ssl.SSLError) and "eof" not in str(error).lower()
            raise errors.ConnectError("no TLS with %s: %s%s" % (target, error, hint), permanent=permanent) from error

    # Write

    def write(self, request: Request) -> bool:
        """Send a request; False if its answer, or the connection's end, came before all of it was sent."""
        content = request.content
        if not isinstance(content, _Stream):
            return self.send(b"".join([self.head(request, len(content)), content]))
        length = content.measure()
        head = memoryview(self.head(request, length))  # whose repr in a traceback shows no key
        block: Any
        for count, block in enumerate(content):
            if not len(block): continue
            if (count % 4 == 3 or len(block) < _BLOCK_BYTES) and self.has_answer(): return False  # from time to time
            framed = b"%x\r\n%b\r\n" % (len(block), block) if length is None else block
            if not self.send(b"".join([head, framed]) if head else framed): return False
            head = head[:0]
        return self.send(b"".join([head, b"0\r\n\r\n" if length is None else b""]))

    def head(self, request: Request, length: Optional[int]) -> bytes:
        """The request line and headers: those given, and what is the connection's to say."""
        url, headers = _parse_url(request.url), {"host": self.url.authority, **request.headers}
        target = url.target
        if self.proxy and url.scheme == "http":
            target = url.text
            if self.proxy.authorization: headers["proxy-authorization"] = self.proxy.authorization
        for name in ("content-length", "transfer-encoding"): headers.pop(name, None)
        headers.update({"transfer-encoding": "chunked"} if length is None else {"content-length": str(length)})
        lines = "".join(["%s: %s\r\n" % pair for pair in headers.items()])
        head = "%s %s HTTP/1.1\r\n%s\r\n" % (request.method, target, lines)
        if re.search("[\r\n\0]", head.replace("\r\n", "", len(headers) + 2)):  # in a header that a handler added, say
            raise errors.LocalProtocolError("a header would break out of its line")
        return head.encode("utf-8", "replace")

    def send(self, data: Any) -> bool:
        """Send all of it; False if meanwhile an answer comes, after which a server may stop reading, or the end."""
        data = memoryview(data)  # whose repr in a traceback shows no key
        while data:
            left = self.deadline.left(errors.WriteTimeout, "sending the request")
            try:
                self.sock.settimeout(0)
                data = data[self.sock.send(data) :]
            except OSError as error:
                if not _would_block(error):
                    if self.has_answer(): return False
                    raise errors.WriteError("the connection broke while the request was sent: %s" % error) from error
                with _Selector() as selector:
                    selector.register(self.sock, selectors.EVENT_WRITE | selectors.EVENT_READ)
                    selector.select(left)
                if self.has_answer(): return False
        return True

    def has_answer(self) -> bool:
        """Whether a final answer, or the connection's end, is here although the request still goes out."""
        try:
            self.sock.settimeout(0)
            while not self.final_head_end():
                data = self.sock.recv(_RECEIVE_BYTES)  # over TLS, no more than a record comes at a time
                if not data: return True
                self.buffer, self.answered = self.buffer + data, True
            return True
        except OSError as error:
            return bool(self.buffer and not _would_block(error))

    # Read

    def read_head(self) -> Tuple[str, int, str, Headers]:
        """The final response's head."""
        end = self.final_head_end() if self.buffer else 0
        while not end:
            where = "within the response's headers" if self.buffer else "without sending a response"
            self.buffer += self.receive("the server closed the connection " + where)
            end = self.final_head_end()
        head, self.buffer = self.buffer[:end], self.buffer[end:]
        return _parse_head(head)

    def final_head_end(self) -> int:
        """Where the final response's head ends in the buffer, from which interim ones are dropped; 0 if not yet."""
        while True:
            found = _HEAD_END.search(self.buffer)
            end = found.end() if found else 0
            if (end or len(self.buffer)) > _MAX_HEAD_BYTES:
                raise errors.RemoteProtocolError("the response's headers are larger than %d bytes" % _MAX_HEAD_BYTES)
            if not b"HTTP/1.".startswith(self.buffer[:7]):
                hint = " (it seems to speak TLS: https?)" if self.buffer[:1] == b"\x15" else ""
                raise errors.RemoteProtocolError("the answer is not HTTP/1.1%s: %s" % (hint, _excerpt(self.buffer)))
            if not end or self.buffer[9:10] != b"1": return end
            if _parse_head(self.buffer[:end])[1] == 101:
                raise errors.RemoteProtocolError("the server switched protocols unasked")
            self.buffer, self.interim = self.buffer[end:], self.interim + 1  # 100 Continue, 103 Early Hints
            if self.interim > _MAX_INTERIM_RESPONSES:
                raise errors.RemoteProtocolError("more than %d interim responses" % _MAX_INTERIM_RESPONSES)

    def receive(self, at_end: str = "") -> bytes:
        """What comes next: b"" at the connection's end, unless there is a complaint for that."""
        left = self.deadline.left(errors.ReadTimeout, "waiting for the response")
        try:
            self.sock.settimeout(left)
            data: bytes = self.sock.recv(_RECEIVE_BYTES)
        except OSError as error:
            if isinstance(error, socket.timeout) and not error.errno:  # or it is the system's ETIMEDOUT
                raise self.deadline.timeout_error(errors.ReadTimeout, "waiting for the response") from error
            raise errors.ReadError("the connection broke while the response was awaited: %s" % error) from error
        if not data and at_end: raise errors.RemoteProtocolError(at_end, connection_lost=True)
        self.answered = True
        return data

    def read_body(self, length: Optional[int], max_bytes: int) -> Tuple[bytes, bool]:
        """The body, whose length is known, _CHUNKED, or None for until the end; and whether its end was announced."""
        if length == _CHUNKED: return self.read_chunked(max_bytes), True
        if length is not None:
            if length > max_bytes: raise _too_large(max_bytes)
            return self.read_exactly(length), True
        parts, size, self.buffer = [self.buffer], len(self.buffer), b""
        while size <= max_bytes:
            parts.append(self.receive())
            size += len(parts[-1])
            if not parts[-1]: return b"".join(parts), False
        raise _too_large(max_bytes)

    def read_exactly(self, length: int) -> bytes:
        parts, missing, self.buffer = [self.buffer[:length]], length - len(self.buffer), self.buffer[length:]
        while missing > 0:
            data = self.receive("the body was cut short: %d of %d bytes came" % (length - missing, length))
            parts.append(data[:missing])
            missing, self.buffer = missing - len(data), data[missing:]
        return b"".join(parts)

    def read_chunked(self, max_bytes: int) -> bytes:
        """RFC 9112, 7.1. Extensions and trailers are read and dropped."""
        body, trailers, size = bytearray(), 0, 1
        while size:
            size = _chunk_size(self.read_line())
            if len(body) + size > max_bytes: raise _too_large(max_bytes)
            body += self.read_exactly(size)
            if size and self.read_exactly(2) != b"\r\n":
                raise errors.RemoteProtocolError("a chunk does not end where its size says")
        while trailers <= _MAX_HEAD_BYTES:
            line = self.read_line()
            if not line: return bytes(body)
            trailers += len(line)
        raise errors.RemoteProtocolError("the trailers are larger than %d bytes" % _MAX_HEAD_BYTES)

    def read_line(self) -> bytes:
        while b"\n" not in self.buffer[:_MAX_LINE_BYTES]:
            if len(self.buffer) >= _MAX_LINE_BYTES:
                raise errors.RemoteProtocolError("a line of a chunked body is larger than %d bytes" % _MAX_LINE_BYTES)
            self.buffer += self.receive("the chunked body was cut short")
        line, _, self.buffer = self.buffer.partition(b"\n")
        if line[-1:] == b"\r": return line[:-1]
        raise errors.RemoteProtocolError("a line of a chunked body does not end in CR LF")

_Selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)  # poll needs no descriptor of its own

def _would_block(error: OSError) -> bool:
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")

def _too_large(max_bytes: int) -> errors.RemoteProtocolError:
    return errors.RemoteProtocolError("the response's body is larger than max_response_bytes=%d" % max_bytes)

def _resolve(host: str, port: int, deadline: _Deadline, cancellation: Optional[_Cancellation]) -> List[Any]:
    """The addresses of a host. Asking a name server cannot be interrupted, so a thread of its own does that."""
    try:  # bytes, for text has Python import its codec of names that are not ASCII
        return socket.getaddrinfo(host.encode(), port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except socket.gaierror:
        done, outcome = _in_background(lambda: socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
    if cancellation: cancellation.watch(done.set)
    if not done.wait(deadline.left(errors.ConnectTimeout, "looking up " + host)):
        raise deadline.timeout_error(errors.ConnectTimeout, "looking up " + host)
    addresses, error = outcome[0] if outcome else (None, OSError("the call was cancelled"))
    if error: raise error
    return addresses  # type: ignore

def _dial(addresses: List[Any], target: str, deadline: _Deadline,
          cancellation: Optional[_Cancellation]) -> socket.socket:
    """The first address to accept. The next is tried when one fails, or has been silent for 250 ms (RFC 8305)."""
    waiting, failure = list(addresses), OSError("the name has no address")
    opened: List[socket.socket] = []
    with _Selector() as selector:
        try:
            while waiting or selector.get_map():
                if waiting:
                    family, kind, protocol, _, address = waiting.pop(0)
                    try:
                        opened.append(socket.socket(family, kind, protocol))
                        opened[-1].setblocking(False)
                        opened[-1].connect(address)
                    except BlockingIOError: pass  # under way
                    except OSError as error:
                        failure = error
                        continue
                    selector.register(opened[-1], selectors.EVENT_WRITE)
                if cancellation: cancellation.watch(functools.partial(_shut, *opened))
                left = deadline.left(errors.ConnectTimeout, "connecting to " + target)
                patience = min(_FOREVER if left is None else left, _NEXT_ADDRESS_SECONDS) if waiting else left
                ready: List[Any] = [key.fileobj for key, _ in selector.select(patience)]
                for sock in ready:
                    selector.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        opened.remove(sock)
                        return sock  # type: ignore
                    failure = OSError(code, os.strerror(code))
            raise failure
        finally:
            for sock in opened: sock.close()

def _shut(*socks: Any) -> None:
    """End whatever other threads wait for on sockets. Shutdown does that, close does not (python/cpython#111358)."""
    for sock in socks:
        try: socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS
        except (OSError, TypeError): pass  # not connected, or closed by now

def _redirect_target(request: Request, response: Response) -> Optional[str]:
    """Where to send the same request again: for 307 and 308 (RFC 9110, 15.4) within one origin, else nowhere."""
    if response.status_code not in (307, 308) or "location" not in response.headers: return None
    from urllib.parse import urljoin
    try: source, target = _parse_url(request.url), _parse_url(urljoin(request.url, response.headers["location"]))
    except (errors.UnsupportedProtocol, ValueError): return None
    same = (source.scheme, source.host, source.port) == (target.scheme, target.host, target.port)
    return target.text if same and not target.authorization else None

# ---- Decode: bytes -> response, response -> model or error; pure -----------------------------------------------------

_HEADER_LINE = re.compile("(?m)^(" + _TOKEN.pattern + r"):([^\0\r\n]*)\r?\n")
_HEAD_END = re.compile(rb"\n\r?\n")  # a bare LF may end a line (RFC 9112, 2.2)
_CHUNKED = -1  # in place of a body's length

def _parse_head(head: bytes) -> Tuple[str, int, str, Headers]:
    """(version, status, reason, headers) of a response's head (RFC 9112, 4 and 5)."""
    try: text = head.decode()
    except UnicodeDecodeError: text = head.decode("latin-1")
    line, _, rest = text.partition("\n")
    match = re.fullmatch(r"(HTTP/1\.[01]) ([1-9][0-9][0-9])(?: ([^\0\r]*))?\r?", line)
    if not match: raise errors.RemoteProtocolError("the answer is not HTTP/1.1: " + _excerpt(head))
    if "\n " in rest or "\n\t" in rest: rest = re.sub(r"\r?\n[ \t]+", " ", rest)  # folded lines (RFC 9112, 5.2)
    pairs = [(name, value.strip(" \t")) for name, value in _HEADER_LINE.findall(rest)]
    left = _HEADER_LINE.sub("", rest)
    if left not in ("\r\n", "\n"):  # http.client would hide the headers that follow a malformed line
        raise errors.RemoteProtocolError("a header line is malformed: " + _excerpt(left.encode()))
    return match.group(1), int(match.group(2)), match.group(3) or "", Headers(pairs)

def _framing(method: str, status: int, headers: Headers) -> Optional[int]:
    """The body's length, or _CHUNKED, or None for one that ends with the connection (RFC 9112, 6.3)."""
    if method == "HEAD" or status in (204, 304): return 0
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() == "chunked": return _CHUNKED
        raise errors.RemoteProtocolError("a transfer coding that was not asked for: " + _excerpt(coding.encode()))
    if length is None: return None
    value, *others = {value.strip(" \t") for value in length.split(",")}
    if others or not value.isascii() or not value.isdigit() or len(value) > 18:
        raise errors.RemoteProtocolError("the Content-Length is no number: " + _excerpt(length.encode()))
    return int(value)

def _keeps_alive(version: str, headers: Headers, asked: Headers) -> bool:
    """Whether the connection may be used again (RFC 9112, 9.3, 9.6 and 6.3)."""
    if version != "HTTP/1.1" or "transfer-encoding" in headers and "content-length" in headers: return False
    tokens = headers.get("connection", "") + "," + asked.get("connection", "")
    return "close" not in [token.strip() for token in tokens.lower().split(",")]

def _keep_alive_seconds(headers: Headers) -> float:
    """How long an idle connection is good: a second less than `Keep-Alive: timeout=` says."""
    if "keep-alive" not in headers: return _MAX_IDLE_SECONDS
    match = re.search(r"(?i)\btimeout\s*=\s*([0-9]{1,6})", headers["keep-alive"])
    return min(_MAX_IDLE_SECONDS, int(match.group(1)) - 1) if match else _MAX_IDLE_SECONDS

def _chunk_size(line: bytes) -> int:
    """int(line, 16) would take 0x19, +19 and 1_9 as well."""
    match = re.fullmatch(rb"([0-9a-fA-F]{1,16})[ \t]*(;[^\r\n]*)?", line)
    if not match: raise errors.RemoteProtocolError("a chunk's size is no number: " + _excerpt(line))
    return int(match.group(1), 16)

def _decompressed(content: bytes, encodings: str, max_bytes: int) -> bytes:
    """A body without its gzip or deflate coding. One that was not asked for stays as it is."""
    for coding in encodings.lower().split(",")[: -_MAX_CODINGS - 1 : -1]:
        if coding.strip() not in ("gzip", "deflate") or not content: return content
        content = _inflated(content, coding.strip(), max_bytes)
    return content

def _inflated(content: bytes, coding: str, max_bytes: int) -> bytes:
    import zlib
    # "deflate" means zlib's format (RFC 9110, 8.4.1.2), though some servers send it bare, without zlib's two bytes.
    bare = coding == "deflate" and (len(content) < 2 or content[0] & 15 != 8 or (content[0] << 8 | content[1]) % 31)
    parts: List[bytes] = []
    size = members = start = 0
    end = len(content.rstrip(b"\0"))  # gzip may have several members, and padding behind them
    while not members or coding == "gzip" and start < end:
        members += 1
        if members > _MAX_GZIP_MEMBERS:
            raise errors.DecodingError("the gzip body has more than %d members" % _MAX_GZIP_MEMBERS)
        inflater = zlib.decompressobj(31 if coding == "gzip" else -15 if bare else 15)
        while not inflater.eof:
            block = content[start : start + _RECEIVE_BYTES]  # not all, for zlib copies what follows a member
            if not block: raise errors.DecodingError("the %s body is cut short" % coding)
            try:
                parts.append(inflater.decompress(block, max_bytes - size + 1))
            except zlib.error as error:
                raise errors.DecodingError("the %s body is broken: %s" % (coding, error)) from error
            size, start = size + len(parts[-1]), start + len(block) - len(inflater.unused_data)
            if size > max_bytes: raise _too_large(max_bytes)
    return b"".join(parts)

def _decode(operation: Operation, response: Any) -> Any:
    """What the caller gets for a response, whichever client it came from: the operation's model, or an error."""
    status, content_type = response.status_code, response.headers.get("content-type", "")
    is_json = content_type.partition(";")[0].strip().lower() == "application/json"
    content = _content(response)
    if 200 <= status < 300:
        try:
            value = _parse_json(content, _charset(response.headers)) if content.strip() else {}
            return _validated(operation.response_type, value, operation.response_type.__name__, "body")
        except ValueError as error:
            if not is_json and not isinstance(error, errors.ValidationError):
                raise errors.SDKError("Unexpected response received", response) from None
            raise errors.ResponseValidationError("Response validation failed", response, error) from error
    try: data = errors.ErrorResponseData.model_validate(_parse_json(content, _charset(response.headers)))
    except ValueError: data = None  # not the API's words
    if data is not None and is_json and status in operation.structured_errors:
        raise errors.ErrorResponse(data, response)
    if 400 <= status < 600: raise errors.SDKError("API error occurred", response, data=data)
    location = response.headers.get("location") if 300 <= status < 400 else None
    target = ", a redirect to " + _shortened(_shown_url(location).partition("?")[0], 500) if location else ""
    raise errors.SDKError("Unexpected response received" + target, response)

def _content(response: Any) -> bytes:
    content = getattr(response, "content", None)  # a fake may have only the text
    return content if isinstance(content, bytes) else str(response.text).encode("utf-8", "surrogatepass")

def _charset(headers: Any) -> str:
    """The charset that a body's type names, of those that text is in (idna and punycode take quadratic time)."""
    if ";" not in headers.get("content-type", ""): return "utf-8"
    match = re.search(r'(?i);\s*charset="?((?:utf|us-ascii|ascii|iso|latin|windows|cp|koi8|gb|big5|shift_?jis|euc)'
                      r"[\w-]{0,20})", headers.get("content-type", ""))
    try: return codecs.lookup(match.group(1)).name if match else "utf-8"
    except LookupError: return "utf-8"

def _parse_json(data: bytes, charset: str = "utf-8") -> Any:
    """JSON by RFC 8259, which has no NaN; a BOM passes. Raises ValueError, never RecursionError."""
    try:
        if data[:3] == codecs.BOM_UTF8: data = data[3:]
        text = bytes(data).decode(charset)
        _check_depth(text)
        return _decode_json(text)
    except UnicodeDecodeError as error:
        raise ValueError("the JSON is not %s, at byte %d" % (charset.upper(), error.start)) from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None

def _check_depth(text: str) -> None:
    """json's own limit is above what a small thread stack holds, on Python 3.12 and later (gh-113655)."""
    if text.count("[") + text.count("{") <= _MAX_JSON_DEPTH: return
    depth = 0
    text = text.replace("\\\\", "").replace('\\"', "")  # for a pattern with alternatives takes memory per character
    for bracket in re.sub(r'"[^"]*"?|[^][{}"]+', "", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_JSON_DEPTH: raise ValueError("the JSON is nested too deeply")

def _refuse_constant(name: str) -> NoReturn: raise ValueError("%s is not JSON" % name)

_decode_json = json.JSONDecoder(parse_constant=_refuse_constant).decode

# ---- Logs: what may be shown -----------------------------------------------------------------------------------------

_SHOWN_HEADERS = frozenset(["accept", "accept-encoding", "connection", "content-encoding", "content-length",
                            "content-type", "date", "host", "retry-after", "server", "transfer-encoding", "user-agent",
                            "x-request-id"])
_SECRET_MEMBER = re.compile(r'(?i)("[^"\\]{0,40}(?:passw|secret|token|api_?key|authoriz|cookie)[^"\\]{0,40}"\s*:\s*)'
                            r'"[^"\\]*(?:\\.[^"\\]*)*"?')

def _default_logger() -> Optional[Logger]:
    """logging.getLogger("aerostack_lite") where that would say anything; a program that logs has imported logging."""
    logging: Any = sys.modules.get("logging")
    logger = logging and logging.getLogger("aerostack_lite")
    return logger if logger and logger.isEnabledFor(logging.DEBUG) else None

def _log_request(call: _Call) -> None:
    if call.logger is None: return
    body = "<streaming body>"
    if isinstance(call.content, bytes):
        body = "%s\nBytes: %d" % (_masked(call.content.decode(), call), len(call.content))
    call.logger.debug(
        "Request:\nMethod: POST\nURL: %s\nHeaders: %s\nBody: %s\nOperation: %s\nRequest-Id: %s\nAttempt: %d",
        _shown_url(call.url), _shown_headers(call.headers), body, call.operation.name, call.request_id, call.attempts)

def _log_outcome(call: _Call, outcome: Any, seconds: float, delay: Optional[float]) -> None:
    if call.logger is None: return
    if isinstance(outcome, Exception):
        text, values = "Request Exception: %s: %s", [type(outcome).__name__, _masked(str(outcome), call)]
    else:
        body = "%s\nCharacters: %d" % (_masked(outcome.text, call), len(outcome.text))
        text = "Response:\nStatus Code: %s\nURL: %s\nHeaders: %s\nBody: %s"
        values = [outcome.status_code, _shown_url(call.url), _masked(str(_shown_headers(outcome.headers)), call), body]
    call.logger.debug(
        text + "\nOperation: %s\nRequest-Id: %s\nAttempt: %d\nMilliseconds: %.1f\nNext attempt: %s", *values,
        call.operation.name, call.request_id, call.attempts, seconds * 1000,
        "none" if delay is None else "in %.3f s" % delay)

def _shown_headers(headers: Mapping[str, str]) -> Dict[str, str]:
    return {name: _escaped(value) if name.lower() in _SHOWN_HEADERS else "***" for name, value in headers.items()}

def _masked(text: str, call: _Call) -> str:
    """Text without the call's secrets, nor what looks like one."""
    return _safe_text(_without(call.secrets, text)[:_MAX_SHOWN_CHARS], "")

def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        if len(secret) > 5:  # a shorter one would be found in plain words, and masking these would spell it
            text = text.replace(secret, "***").replace(json.dumps(secret)[1:-1], "***")
            for end in range(len(secret) - 1, 5, -1):  # one that was cut
                text = text.replace(secret[:end] + "...", "***...").replace(secret[:end] + "'...", "***'...")
    return text

def _safe_text(text: str, allowed: str = "\n\t") -> str:
    """Text without secret JSON members, and without control characters that forge logs or drive terminals."""
    return _escaped(_SECRET_MEMBER.sub(r'\1"***"', text), allowed)

def _shortened(text: str, limit: int = _MAX_SHOWN_CHARS) -> str:
    return text if len(text) <= limit else "%s...and %d more chars" % (text[:limit], len(text) - limit)

def _escaped(text: str, allowed: str = "") -> str:
    if text.isprintable(): return text
    return "".join(c if c.isprintable() or c in allowed else c.encode("unicode_escape").decode() for c in text)

def _excerpt(data: bytes) -> str:
    """The start of bytes that make no sense."""
    return repr(bytes(data[:60]))[1:] + ("..." if len(data) > 60 else "")

# ---- Threads: the `_async` twins; the only place that starts threads and knows asyncio -------------------------------

def _run(coroutine: Coroutine[object, object, R]) -> R:
    """The result of a coroutine that never waits for a loop: both halves go one way, and the blocking one blocks."""
    try: coroutine.send(None)
    except StopIteration as stop: return stop.value  # type: ignore
    raise RuntimeError("a blocking call was suspended")

class _Awaiting(_Blocking):
    """The asynchronous half of an SDK."""
    argument, close_method = "async_client", "aclose"

    def __init__(self, client: Any, max_workers: int) -> None:
        super().__init__(client, lambda: AsyncHttpClient(max_workers=max_workers))
        self.workers = _Workers(_positive_int("max_workers", max_workers))  # read uploads for a client that is not ours
        self.sleepers: Set[Any] = set()

    def foreign(self, content: _Stream) -> Any: return _AwaitedBlocks(content, self.workers)
    async def aside(self, function: Callable[[], R]) -> R: return await self.workers.run(function)
    async def send(self, client: Any, request: Any) -> Any: return await client.send(request, stream=False)

    async def sleep(self, seconds: float) -> None:
        loop = _running_loop()
        sleeper = loop.create_future()
        timer = loop.call_later(seconds, _settle, sleeper, None, None)
        self.sleepers.add(sleeper)
        try:
            if not self.closed.is_set(): await sleeper
        finally:
            self.sleepers.discard(sleeper)
            timer.cancel()

    def close(self) -> None:
        super().close()
        self.workers.close()
        for sleeper in list(self.sleepers): _settle_from_outside(sleeper, None, None)

class _AwaitedBlocks(_Blocks):
    """An upload's blocks for an event loop, each read in a thread."""
    __iter__: Any = None

    def __init__(self, content: _Stream, workers: _Workers) -> None: self.content, self.workers = content, workers

    async def __aiter__(self) -> Any:
        blocks: Iterator[Optional[bytes]] = map(bytes, self.content)
        block: Optional[bytes] = b""
        while block is not None:
            if block: yield block
            block = await self.workers.run(lambda: next(blocks, None))

class _Cancellation:
    """Ends, from another thread, whatever an attempt is blocked in."""
    def __init__(self) -> None:
        self.lock, self.cancelled = threading.Lock(), False
        self.wake: Optional[Callable[[], object]] = None

    def watch(self, wake: Optional[Callable[[], object]]) -> None:
        """From now on, `wake` ends the wait; with None there is no more to end."""
        with self.lock:
            self.wake = wake
            if self.cancelled and wake: raise errors.ReadError("the call was cancelled")

    def cancel(self) -> None:
        with self.lock:
            self.cancelled = True
            if self.wake: self.wake()

def _in_background(function: Callable[[], Any]) -> Tuple[threading.Event, List[Tuple[Any, Optional[BaseException]]]]:
    """Start a function in a daemon thread of its own: an event that it is done, and then its value or error."""
    done = threading.Event()
    outcome: List[Any] = []

    def run() -> None:
        try: outcome.append((function(), None))
        except BaseException as error: outcome.append((None, error))
        done.set()

    try: threading.Thread(target=run, daemon=True).start()
    except RuntimeError: run()  # there is no thread left, or at the interpreter's end none may be started
    return done, outcome

class _Workers:
    """At most `size` daemon threads, each started when needed. A ThreadPoolExecutor would hold up the exit until all of
    its threads are done (bpo-39812)."""

    def __init__(self, size: int) -> None:
        self.size, self.closed = size, False
        self.reset()

    def reset(self) -> None:
        self.lock, self.threads = threading.Lock(), 0
        self.jobs: Any = None
        self.free: List[None] = []  # as many entries as there are threads without a job
        self.pid = os.getpid()

    async def run(self, function: Callable[[], R], cancellation: Optional[_Cancellation] = None) -> R:
        """Await a function. If the wait is cancelled, so is what the function is blocked in."""
        import contextvars
        loop = _running_loop()
        future = loop.create_future()
        held = loop.call_later(_LONGEST_SECONDS, id, future)  # for a loop knows its tasks weakly, and so do the workers
        try:
            self.submit((contextvars.copy_context().run, function, weakref.ref(future), cancellation))
            return await future  # type: ignore
        finally:
            held.cancel()
            if cancellation and (future.cancelled() or not future.done()): cancellation.cancel()  # or it was dropped

    def submit(self, job: Any) -> None:
        if self.pid != os.getpid(): self.reset()  # a fork: it has none of its parent's threads
        with self.lock:
            if self.closed: raise errors.ClosedError("the client is closed")
            if self.jobs is None:
                from queue import SimpleQueue
                self.jobs = SimpleQueue()
            del self.free[self.threads :]  # more are left by jobs that waited while the system had no thread
            if self.free:
                self.free.pop()
            elif self.threads < self.size:
                try:
                    threading.Thread(target=_work, args=(self.jobs, self.free), name="aerostack", daemon=True).start()
                    self.threads += 1
                except RuntimeError as error:  # the system has no thread left
                    if not self.threads: raise errors.ConnectError("no thread can be started: %s" % error) from error
            self.jobs.put(job)

    def close(self) -> None:
        if self.pid != os.getpid(): self.reset()
        with self.lock:
            for _ in range(self.threads): self.jobs.put(None)
            self.closed, self.threads = True, 0

    def __del__(self) -> None: self.close()

def _work(jobs: Any, free: List[None]) -> None:
    """One worker; it knows nothing of its _Workers, so that these can go when nobody else does."""
    job = jobs.get()
    while job:
        run, function, waiting, cancellation = job  # a reference to the future would keep a dropped call alive
        value: Any = None
        failure: Optional[BaseException] = None
        try:
            if not (cancellation and cancellation.cancelled): value = run(function)
        except BaseException as error:
            failure = error
        free.append(None)
        _settle_from_outside(waiting(), value, failure)
        del job, run, function, waiting, cancellation, value, failure  # nothing lives on while the thread waits
        job = jobs.get()

def _settle_from_outside(future: Any, value: Any, failure: Optional[BaseException]) -> None:
    try:
        if future is not None: future.get_loop().call_soon_threadsafe(_settle, future, value, failure)
    except RuntimeError:  # the loop is closed: nobody waits any more
        pass

def _settle(future: Any, value: Any, failure: Optional[BaseException]) -> None:
    if future.done(): return
    if isinstance(failure, StopIteration): failure = RuntimeError("StopIteration in a call")  # which no future takes
    future.set_result(value) if failure is None else future.set_exception(failure)

def _running_loop() -> Any:
    import asyncio
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("the _async operations need asyncio's event loop; with trio, call the plain ones in"
                           " trio.to_thread.run_sync") from None

# ---- Command line: the first user of everything above ----------------------------------------------------------------

_FLAGS: List[Tuple[str, str, Dict[str, Any]]] = [
    ("--server-url", "the server (default: AEROSTACK_SERVER_URL, else production)", {"metavar": "URL"}),
    ("--local", "the server at " + SERVERS[1], {"action": "store_const", "const": SERVERS[1], "dest": "server_url"}),
    ("--key-file", "a file with the API key (default: AEROSTACK_API_KEY, else asked for)", {"metavar": "FILE"}),
    ("--timeout", "for one attempt (default: 60)", {"metavar": "SECONDS", "type": float}),
    ("--retries", "how long to try again, whatever the operation; 0: never", {"metavar": "SECONDS", "type": float}),
    ("--field", "print only this field of the answer, text as it is", {"metavar": "NAME"}),
    ("--table", "print rows as a table", {"action": "store_true"}),
    ("--verbose", "log each attempt to standard error, without secrets", {"action": "store_true"}),
]
_EXAMPLES = {
    "ai_chat": """messages:='[{"role": "user", "content": "Hello"}]'""",
    "auth_signin": "email=ada@example.com password=@password.txt",
    "auth_signup": "email=ada@example.com password=@password.txt name=Ada",
    "cache_get": "key=greeting --field value",
    "cache_set": """key=greeting value:='{"hello": "world"}' ttl=60""",
    "db_query": "sql='SELECT * FROM users WHERE id = ?' params:='[1]' --table",
    "queue_enqueue": """type=email data:='{"to": "ada@example.com"}' delay=10""",
    "services_invoke": """service_name=resize data:='{"width": 80}'""",
    "storage_upload": "key=photos/a.jpg file=@a.jpg --field url",
}
_DESCRIBED = {"File": "a file: @PATH", "List": "a JSON list", "Dict": "a JSON object", "Any": "any JSON",
              "int": "a whole number", "": "text"}

def _main(arguments: Optional[List[str]] = None) -> int:
    """One operation from a shell. Exit: 0 done, 1 the API said no, 2 wrong usage, 3 no answer."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for name in ("stdin", "stdout", "stderr"):  # None where the shell closed them
        if getattr(sys, name) is None:  # reading is an error, not empty
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), "w", encoding="utf-8", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore  # for a terminal with few characters
    parser = _argument_parser()
    options, more = parser.parse_known_args(arguments)  # argparse ends the fields at the first option after one
    for text in more:
        if text.startswith("-"): parser.error("unrecognized argument: " + text.partition("=")[0])
    try:
        _run_operation(options, options.fields + more)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output had enough
        _discard(sys.stdout)
        return 0
    except (OSError, ValueError, EOFError, AerostackError) as error:
        no_answer = isinstance(error, (errors.RequestError, errors.NoResponseError))
        words = "%s: %s" % (type(error).__name__, error) if no_answer else str(error)
        data = getattr(error, "data", None)
        if data is not None: words = "%s: %s" % (getattr(data.code, "value", data.code), _shortened(data.message))
        if getattr(error, "attempts", 0):
            words += " (request %s, attempts %d)" % (error.request_id, error.attempts)  # type: ignore
        _StderrLogger().debug("aerostack_lite: %s", _escaped(" ".join(words.split())))
        return 3 if no_answer else 1 if isinstance(error, errors.SDKBaseError) else 2

def _argument_parser() -> Any:
    import argparse
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:  # without the value, which may be a key that was given by mistake
            super().error(re.sub(r"(?s)invalid choice: .* \(choose", "no such operation (choose", message))

    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for flag, meaning, settings in _FLAGS: common.add_argument(flag, help=meaning, **settings)
    parser = Parser(
        prog="aerostack_lite.py", parents=[common], description="The Aerostack Platform API from a shell.",
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A field is name=text, name:=JSON, name=@FILE or name=@- for standard input.\n"
               "Exit: 0 done, 1 the API said no, 2 wrong usage, 3 no answer.")
    parser.add_argument("--version", action="version", version=_version_lines(),
                        help="print the version and this file's SHA-256")
    commands = parser.add_subparsers(metavar="OPERATION", dest="operation")
    commands.required = True
    for _, operation, sentence in operations():
        lines = ["fields:"]
        for field in operation.request_type._fields():
            described = next(words for name, words in _DESCRIBED.items() if name in field.annotation)
            lines.append("  %-14s %s%s" % (field.name, described, ", optional" * (field.default is None)))
        example = _EXAMPLES.get(operation.name)
        if example: lines += ["", "example:", "  %s %s" % (operation.name, example)]
        command = commands.add_parser(operation.name, parents=[common], help=sentence, description=sentence,
                                      allow_abbrev=False, epilog="\n".join(lines),
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_argument("fields", nargs="*", metavar="name=value", help="the fields of the request")
    return parser

def _version_lines() -> str:
    """The version, and the SHA-256 of this very file to compare with the README's."""
    import hashlib
    try:
        with open(__file__, "rb") as reader:
            return "aerostack_lite %s\nsha256 %s" % (__version__, hashlib.sha256(reader.read()).hexdigest())
    except (NameError, OSError):  # piped in, or in a zip
        return "aerostack_lite " + __version__

def _run_operation(options: Any, texts: List[str]) -> None:
    service, operation, _ = next(found for found in operations() if found[1].name == options.operation)
    fields: Dict[str, Any] = {}
    for name, value in (_parse_field(text, operation.name) for text in texts):
        if name in fields: raise _bad(name, "is given twice")
        fields[name] = value
    field, answered = getattr(options, "field", None), [field.name for field in operation.response_type._fields()]
    if field and field not in answered: raise _bad("--field", "the answer has " + ", ".join(answered))
    if getattr(options, "server_url", None) == "": raise _bad("--server-url", "is empty")
    settings: Dict[str, Any] = {"api_key_auth": _read_key(options), "server_url": getattr(options, "server_url", None)}
    if hasattr(options, "timeout"): settings["timeout_ms"] = options.timeout * 1000
    if hasattr(options, "retries"):
        backoff = BackoffStrategy(**dict(vars(_DEFAULT_BACKOFF), max_elapsed_time=options.retries * 1000))
        settings["retry_config"] = RetryConfig("backoff", backoff, True) if options.retries else None
    if hasattr(options, "verbose"): settings["debug_logger"] = _StderrLogger()
    progress = {"progress": _show_progress} if operation.name == "storage_upload" and sys.stderr.isatty() else {}
    with SDK(**settings) as sdk:
        try: result = getattr(getattr(sdk, service), operation.name)(fields, **progress).model_dump(mode="json")
        finally:
            if getattr(_show_progress, "unfinished", False): print(file=sys.stderr)
    if field: result = result.get(field)
    rows = result.get("results") if isinstance(result, dict) else result
    if hasattr(options, "table") and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        if rows: print(_table(rows))
    elif isinstance(result, str):
        print(result)
    else:
        print(json.dumps(result, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))

def _parse_field(text: str, operation: str) -> Tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator: raise _bad(text, "is not name=value")
    if name.rstrip(":") == "password" and value[:1] != "@":
        raise _bad("password", "goes in as password=@FILE or password=@-, for everyone can see a command line")
    if name.endswith(":"):
        try: return name[:-1], _parse_json(value.encode())
        except ValueError as error: raise _bad(name[:-1], "is not JSON: %s" % error) from None
    if not value.startswith("@"): return name, value
    if value == "@-" and not sys.stdin.readable(): raise _bad(name, "cannot be read: standard input is closed")
    if operation == "storage_upload" and name == "file":
        import pathlib
        return name, sys.stdin.buffer if value == "@-" else pathlib.Path(value[1:])
    content = sys.stdin.read() if value == "@-" else _read_file(value[1:])
    return name, content.rstrip("\r\n") if name == "password" else content

def _read_file(path: str) -> str:
    with open(path, encoding="utf-8") as reader:
        try: return reader.read()
        except UnicodeDecodeError: raise _bad(path, "is not text in UTF-8") from None

def _read_key(options: Any) -> Optional[str]:
    if hasattr(options, "key_file"): return _read_file(options.key_file)
    if os.environ.get("AEROSTACK_API_KEY") or not sys.stdin.isatty(): return None
    import getpass
    return getpass.getpass("Aerostack API key: ")

def _table(rows: List[Dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    names = [_escaped(name) for name in columns]
    widths = [max(map(len, column)) for column in zip(names, *cells)]
    lines = [names, ["-" * width for width in widths], *cells]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)

def _cell(value: Any) -> str:
    if value is None: return ""
    return _escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))

def _show_progress(sent: int, total: Optional[int]) -> None:
    bar = "[%s] %3d %%  " % (("#" * (30 * sent // total)).ljust(30, "."), 100 * sent // total) if total else ""
    _show_progress.unfinished = sent != total  # type: ignore
    print("\r%s%.1f MiB" % (bar, sent / 2**20), end="\n" if sent == total else "", file=sys.stderr, flush=True)

def _discard(stream: Any) -> None:
    """From now on, what is written to a stream that nobody reads goes nowhere, and its end is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

class _StderrLogger:
    def debug(self, message: str, *values: Any, **_: Any) -> None:
        try: print(message % values, file=sys.stderr, flush=True)
        except OSError: _discard(sys.stderr)

# ---- Official names: the import paths of the official SDK ------------------------------------------------------------
# Saved as aerostack.py, `from aerostack.utils import RetryConfig` works; so it does under any other name of this file.

class types:
    """`UNSET`, and what is built on it."""
    BaseModel: TypeAlias = BaseModel
    if not TYPE_CHECKING: Nullable, OptionalNullable = Nullable, OptionalNullable
    UNSET, UNSET_SENTINEL = UNSET, "~?~unset~?~sentinel~?~"
    UnrecognizedInt, UnrecognizedStr = int, str

class utils:
    """Retries, logs and dates."""
    BackoffStrategy: TypeAlias = BackoffStrategy
    Logger: TypeAlias = Logger
    RetryConfig: TypeAlias = RetryConfig
    parse_datetime = staticmethod(parse_datetime)

    @staticmethod
    def get_default_logger() -> Logger:
        """A logger that says nothing."""
        return Logger()  # type: ignore

class httpclient:
    """What `client=` and `async_client=` may be."""
    AsyncHttpClient: TypeAlias = AsyncHttpClient
    HttpClient: TypeAlias = HttpClient

for _names in (models, errors, types, utils, httpclient):
    _names.__all__ = [_name for _name in vars(_names) if not _name.startswith("_")]  # type: ignore
    sys.modules["%s.%s" % (__name__, _names.__name__)] = _names  # type: ignore
if __name__ in sys.modules:
    for _name in "sdk sdkconfiguration ai authentication cache database queue services storage".split():
        sys.modules["%s.%s" % (__name__, _name)] = sys.modules[__name__]

if __name__ == "__main__": sys.exit(_main())
