# SPDX-License-Identifier: MIT
#
# MIT License
#
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
        print(sdk.cache.cache_get(key="greeting").value)   # {'hello': 'world'}
        print(sdk.database.db_query(sql="SELECT 1 AS one").results)   # [{'one': 1}]
        try:
            sdk.services.services_invoke(service_name="resize", data={"width": 80})
        except errors.AerostackError as error:
            print(error, error.request_id)

    # The same, awaited: every operation has an `_async` twin.
    async with SDK("your-api-key") as sdk:
        await sdk.queue.queue_enqueue_async(type="email", data={"to": "ada@example.com"})

From a shell: `python3 aerostack_lite.py db_query sql='SELECT 1'`. Copy the file anywhere; it imports nothing else.

The file is read from the top. What a caller may touch comes first; below the double line is how it works, in the order
in which a call passes through: encode, retries, transport, decode.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import selectors
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock_time
from enum import Enum

__version__ = "0.1.0"

__all__ = [
    "SDK", "SDKConfiguration", "SERVERS", "UNSET", "VERSION", "USER_AGENT",
    "Ai", "Authentication", "Cache", "Database", "Queue", "Services", "Storage",
    "HttpClient", "AsyncHttpClient", "Request", "Response", "Headers",
    "RetryConfig", "BackoffStrategy", "Logger",
    "errors", "httpclient", "models", "types", "utils",
]  # fmt: skip


# ---- Settings --------------------------------------------------------------------------------------------------------

SERVERS = [
    "https://api.aerostack.ai/v1",  # 0: production
    "http://localhost:8787/v1",  # 1: local development
]

VERSION = __version__
USER_AGENT = "aerostack-lite/" + __version__
OPENAPI_DOC_VERSION = "1.0.0"  # the API description that the nine operations follow

_DEFAULT_TIMEOUT_MS = 60_000  # one attempt, from resolving the name to the last byte; an AI answer takes its time
_MAX_CONNECTIONS = 100  # at once, per client; httpx's number
_MAX_IDLE_SECONDS = 30  # below the 60 s after which AWS load balancers hang up without a word
_MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # as received, and again after decompression
_MAX_HEAD_BYTES = 64 * 1024  # status line and headers, or the trailers after a chunked body
_MAX_INTERIM_RESPONSES = 8  # 1xx answers before the final one
_MAX_REDIRECTS = 5
_MAX_WORKERS = 64  # threads behind the `_async` twins: one for each call under way
_BLOCK_BYTES = 256 * 1024  # what is read or written at a time; larger blocks were no faster over loopback
_NEXT_ADDRESS_SECONDS = 0.25  # RFC 8305, 5: how long an address may stay silent before the next one is tried too
_MAX_ERROR_BODY_CHARS = 10_000  # of a body in an error's text, as in the official SDK
_LOGGER_NAME = "aerostack_lite"


class Unset:
    """The type of `UNSET`: no value was given, or none came back (which is not the same as None, a JSON null)."""

    _only: Unset | None = None

    def __new__(cls) -> Unset:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "Unset()"

    def __reduce__(self) -> str:
        return "UNSET"


UNSET = Unset()


# ---- Types for checkers ----------------------------------------------------------------------------------------------
# Seen by mypy, pyright and editors; at run time this section costs nothing.

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import ssl
    from typing import IO, Any, Awaitable, Callable, Coroutine, Dict, Iterator, List, NoReturn, Optional, Protocol
    from typing import Sequence, Set, Tuple, Type, TypeVar, Union

    from typing_extensions import Buffer, Literal, NotRequired, ParamSpec, TypeAlias, TypedDict, Unpack
    from typing_extensions import dataclass_transform

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")
    Nullable: TypeAlias = Union[T, None]
    OptionalNullable: TypeAlias = Union[T, None, Unset]
    Retries: TypeAlias = "Union[RetryConfig, None, Unset]"
    Content: TypeAlias = "Union[Buffer, IO[bytes], os.PathLike[str], Iterable[bytes]]"
    Progress: TypeAlias = Callable[[int, Optional[int]], object]

    class Logger(Protocol):
        def debug(self, msg: str, *args: Any, **kwargs: Any) -> None: ...

    class CallOptions(TypedDict, total=False):
        """What every operation takes besides its request."""

        server_url: Optional[str]
        timeout_ms: Optional[float]
        http_headers: Optional[Mapping[str, str]]

    # Requests and responses as dicts, by the official names.
    class MessagesTypedDict(TypedDict): content: NotRequired[str]; role: NotRequired[Union[Role, str]]
    class AiChatRequestBodyTypedDict(TypedDict): messages: Sequence[Union[Messages, MessagesTypedDict]]; model: NotRequired[str]
    class AiChatResponseBodyTypedDict(TypedDict): response: NotRequired[str]
    class AuthSigninRequestBodyTypedDict(TypedDict): email: str; password: str
    class AuthSignupRequestBodyTypedDict(TypedDict): email: str; password: str; metadata: NotRequired[Dict[str, Any]]; name: NotRequired[str]
    class AuthResponseTypedDict(TypedDict): expires_at: NotRequired[datetime]; token: NotRequired[str]; user: NotRequired[UserTypedDict]
    class UserTypedDict(TypedDict): created_at: NotRequired[datetime]; email: NotRequired[str]; id: NotRequired[str]; metadata: NotRequired[Dict[str, Any]]; name: NotRequired[Optional[str]]
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
    class StorageUploadRequestBodyTypedDict(TypedDict): file: Union[File, FileTypedDict, Content]; key: str; content_type: NotRequired[str]
    class StorageUploadResponseBodyTypedDict(TypedDict): url: NotRequired[str]
    class SecurityTypedDict(TypedDict): api_key_auth: str

    # The same fields as keywords, with the call options.
    class AiChatOptions(CallOptions, total=False): messages: Sequence[Union[Messages, MessagesTypedDict]]; model: str
    class AuthSigninOptions(CallOptions, total=False): email: str; password: str
    class AuthSignupOptions(CallOptions, total=False): email: str; password: str; metadata: Mapping[str, Any]; name: str
    class CacheGetOptions(CallOptions, total=False): key: str
    class CacheSetOptions(CallOptions, total=False): key: str; value: Any; ttl: int
    class DbQueryOptions(CallOptions, total=False): sql: str; params: Sequence[Any]
    class QueueEnqueueOptions(CallOptions, total=False): data: Mapping[str, Any]; type: str; delay: int
    class ServicesInvokeOptions(CallOptions, total=False): data: Mapping[str, Any]; service_name: str
    class StorageUploadOptions(CallOptions, total=False): file: Union[File, FileTypedDict, Content]; key: str; content_type: str; progress: Progress
else:

    def dataclass_transform(**_):
        return lambda cls: cls


# ---- SDK and services: request -> model ------------------------------------------------------------------------------


class SDK:
    """The Aerostack Platform API. One object serves a whole program: threads, event loops and forks may share it.

    api_key_auth    the key, or a callable that returns it, asked once per call; by default AEROSTACK_API_KEY
    server_idx      which of `SERVERS`; by default 0, production
    server_url      another server; wins over server_idx; by default AEROSTACK_SERVER_URL, if that is set
    url_params      values for the `{names}` in server_url
    client          what sends synchronous calls: an `HttpClient` with settings of your own, or anything with its
                    `build_request`, `send` and `close`, such as an httpx.Client; it stays yours to close
    async_client    the same for the `_async` twins: an `AsyncHttpClient`, an httpx.AsyncClient, ...
    retry_config    a RetryConfig for every call, or None for no retries; by default a call is repeated at most twice,
                    and only where it cannot have been carried out already
    timeout_ms      milliseconds for one attempt as a whole; 60,000 by default, math.inf for no limit
    debug_logger    anything with `.debug(message, *args)`; by default logging.getLogger("aerostack_lite")
    max_workers     threads at the most behind the `_async` twins

    Raises ValidationError, a ValueError, when an argument is bad; nothing is sent or opened before the first call.
    """

    def __init__(
        self,
        api_key_auth: Optional[Union[str, Callable[[], str]]] = None,
        server_idx: Optional[int] = None,
        server_url: Optional[str] = None,
        url_params: Optional[Mapping[str, str]] = None,
        client: Optional[Any] = None,
        async_client: Optional[Any] = None,
        retry_config: Retries = UNSET,
        timeout_ms: Optional[float] = None,
        debug_logger: Optional[Logger] = None,
        *,
        max_workers: int = _MAX_WORKERS,
    ) -> None:
        if url_params is not None and server_url is not None:
            server_url = _template_url(server_url, url_params)
        self.sdk_configuration = configuration = SDKConfiguration(
            client=client,
            async_client=async_client,
            debug_logger=debug_logger,
            security=_security(api_key_auth),
            server_url=server_url,
            server_idx=server_idx,
            retry_config=retry_config,
            timeout_ms=timeout_ms,
            max_workers=max_workers,
        )
        self.ai = Ai(configuration)
        self.authentication = Authentication(configuration)
        self.cache = Cache(configuration)
        self.database = Database(configuration)
        self.queue = Queue(configuration)
        self.services = Services(configuration)
        self.storage = Storage(configuration)

    def close(self) -> None:
        """Close the connections of the synchronous half; sleeping retries end at once. Twice is fine."""
        self.sdk_configuration.blocking.close()

    async def aclose(self) -> None:
        """Close the connections and threads of the asynchronous half. Twice is fine."""
        await self.sdk_configuration.awaiting.aclose()

    def __enter__(self) -> SDK:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> SDK:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return "SDK(server_url=%r)" % _shown_url(self.sdk_configuration.get_server_details()[0])


class SDKConfiguration:
    """What the services of one SDK share, by the official attribute names; may be changed between calls."""

    language = "python"
    openapi_doc_version = OPENAPI_DOC_VERSION
    sdk_version = __version__
    user_agent = USER_AGENT

    def __init__(
        self,
        client: Optional[Any],
        async_client: Optional[Any],
        debug_logger: Optional[Logger],
        security: Union[Security, Callable[[], Security]],
        server_url: Optional[str],
        server_idx: Optional[int],
        retry_config: Retries,
        timeout_ms: Optional[float],
        max_workers: int,
    ) -> None:
        self.debug_logger = debug_logger
        self.security = security
        self.server_url = server_url
        self.server_idx = server_idx
        self.retry_config = retry_config
        self.timeout_ms = timeout_ms
        self.blocking = _Blocking(client)
        self.awaiting = _Awaiting(async_client, max_workers)
        _retry_policy(retry_config, False)
        _timeout_seconds(timeout_ms)
        _check_server_url(self.get_server_details()[0])

    @property
    def client(self) -> Any:
        """What sends synchronous calls; None once closed."""
        return self.blocking.client

    @property
    def async_client(self) -> Any:
        """What sends asynchronous calls; None once closed."""
        return self.awaiting.client

    @property
    def client_supplied(self) -> bool:
        return self.blocking.supplied

    @property
    def async_client_supplied(self) -> bool:
        return self.awaiting.supplied

    def get_server_details(self) -> Tuple[str, Dict[str, str]]:
        """The server's URL without a slash at its end, and an empty dict (the official SDK's shape)."""
        if self.server_url:
            return self.server_url.rstrip("/"), {}
        if self.server_idx is None:
            return (os.environ.get("AEROSTACK_SERVER_URL") or SERVERS[0]).rstrip("/"), {}
        if isinstance(self.server_idx, bool) or not isinstance(self.server_idx, int):
            raise ArgumentTypeError.about("server_idx", "must be an integer")
        if not 0 <= self.server_idx < len(SERVERS):
            raise ArgumentIndexError.about("server_idx", "must be 0 to %d" % (len(SERVERS) - 1))
        return SERVERS[self.server_idx], {}

    def __repr__(self) -> str:
        return "SDKConfiguration(server_url=%r, security=***)" % _shown_url(self.get_server_details()[0])


class _Service:
    """Operations under one name. An operation is a method that hands what is particular to it to `_call`."""

    def __init__(self, sdk_configuration: SDKConfiguration) -> None:
        self.sdk_configuration = sdk_configuration

    def _call(
        self,
        path: str,
        request_type: Type[BaseModel],
        response_type: Type[R],
        request: object,
        retries: Retries,
        options: Mapping[str, Any],
        repeatable: bool = False,
        structured_errors: Tuple[int, ...] = (),
    ) -> R:
        """Send one request and decode its answer.

        repeatable           doing it twice is as good as doing it once
        structured_errors    the statuses for which the API describes {code, message, details}
        """
        operation = Operation(path, request_type, response_type, repeatable, structured_errors)
        return self._perform(operation, request, retries, dict(options))

    def _perform(self, operation: Operation, request: object, retries: Retries, options: Dict[str, Any]) -> Any:
        configuration = self.sdk_configuration
        return _run(_perform(_Call(configuration, operation, request, retries, options), configuration.blocking))

    @property
    def _awaited(self) -> _Service:
        return _AwaitedService(self.sdk_configuration)

    def __repr__(self) -> str:
        return "<%s of %s>" % (type(self).__name__, _shown_url(self.sdk_configuration.get_server_details()[0]))


class _AwaitedService(_Service):
    """The same operations, returning coroutines."""

    async def _perform(self, operation: Operation, request: object, retries: Retries, options: Dict[str, Any]) -> Any:
        configuration = self.sdk_configuration
        return await _perform(_Call(configuration, operation, request, retries, options), configuration.awaiting)


def _twin(operation: Callable[P, R]) -> Callable[P, Coroutine[object, object, R]]:
    """The `_async` twin of an operation: the same method, run where `_call` returns a coroutine."""

    async def twin(self: Any, *args: Any, **options: Any) -> Any:
        return await operation(self._awaited, *args, **options)  # type: ignore

    twin.__name__ = operation.__name__ + "_async"
    twin.__qualname__ = operation.__qualname__ + "_async"
    twin.__doc__ = "Await `%s`: %s" % (operation.__name__, operation.__doc__)
    twin.__wrapped__ = operation  # type: ignore  # help() and inspect show the same parameters
    return twin  # type: ignore


class Ai(_Service):
    """Language models."""

    def ai_chat(self, request: Optional[Union[AiChatRequestBody, AiChatRequestBodyTypedDict]] = None,
                retries: Retries = UNSET, **options: Unpack[AiChatOptions]) -> AiChatResponseBody:
        """Answer a conversation: `messages` of {role, content}, with the platform's `model` or one you name."""
        return self._call("/ai/chat", AiChatRequestBody, AiChatResponseBody, request, retries, options)

    ai_chat_async = _twin(ai_chat)


class Authentication(_Service):
    """The users of your application."""

    def auth_signin(self, request: Optional[Union[AuthSigninRequestBody, AuthSigninRequestBodyTypedDict]] = None,
                    retries: Retries = UNSET, **options: Unpack[AuthSigninOptions]) -> AuthResponse:
        """Exchange a user's `email` and `password` for a token."""
        return self._call("/auth/signin", AuthSigninRequestBody, AuthResponse, request, retries, options,
                          repeatable=True, structured_errors=(401,))

    def auth_signup(self, request: Optional[Union[AuthSignupRequestBody, AuthSignupRequestBodyTypedDict]] = None,
                    retries: Retries = UNSET, **options: Unpack[AuthSignupOptions]) -> AuthResponse:
        """Create a user, with a `name` and any `metadata`, and sign in."""
        return self._call("/auth/signup", AuthSignupRequestBody, AuthResponse, request, retries, options,
                          structured_errors=(400, 409))

    auth_signin_async = _twin(auth_signin)
    auth_signup_async = _twin(auth_signup)


class Cache(_Service):
    """JSON values under keys."""

    def cache_get(self, request: Optional[Union[CacheGetRequestBody, CacheGetRequestBodyTypedDict]] = None,
                  retries: Retries = UNSET, **options: Unpack[CacheGetOptions]) -> CacheGetResponseBody:
        """Read the value under a `key`; `exists` is False where there is none, or no longer."""
        return self._call("/cache/get", CacheGetRequestBody, CacheGetResponseBody, request, retries, options,
                          repeatable=True)

    def cache_set(self, request: Optional[Union[CacheSetRequestBody, CacheSetRequestBodyTypedDict]] = None,
                  retries: Retries = UNSET, **options: Unpack[CacheSetOptions]) -> CacheSetResponseBody:
        """Store a JSON `value` under a `key`, for `ttl` seconds or for good."""
        return self._call("/cache/set", CacheSetRequestBody, CacheSetResponseBody, request, retries, options,
                          repeatable=True)

    cache_get_async = _twin(cache_get)
    cache_set_async = _twin(cache_set)


class Database(_Service):
    """SQL."""

    def db_query(self, request: Optional[Union[DbQueryRequestBody, DbQueryRequestBodyTypedDict]] = None,
                 retries: Retries = UNSET, **options: Unpack[DbQueryOptions]) -> DbQueryResult:
        """Run one `sql` statement with `params` bound to its placeholders; rows come back as dicts."""
        return self._call("/db/query", DbQueryRequestBody, DbQueryResult, request, retries, options,
                          structured_errors=(400, 401, 500))

    db_query_async = _twin(db_query)


class Queue(_Service):
    """Background jobs."""

    def queue_enqueue(self, request: Optional[Union[QueueEnqueueRequestBody, QueueEnqueueRequestBodyTypedDict]] = None,
                      retries: Retries = UNSET, **options: Unpack[QueueEnqueueOptions]) -> QueueEnqueueResponseBody:
        """Enqueue a job of a `type` with its `data`, to be run at once or after `delay` seconds."""
        return self._call("/queue/enqueue", QueueEnqueueRequestBody, QueueEnqueueResponseBody, request, retries, options)

    queue_enqueue_async = _twin(queue_enqueue)


class Services(_Service):
    """Functions deployed on the platform."""

    def services_invoke(
        self, request: Optional[Union[ServicesInvokeRequestBody, ServicesInvokeRequestBodyTypedDict]] = None,
        retries: Retries = UNSET, **options: Unpack[ServicesInvokeOptions]) -> ServicesInvokeResponseBody:
        """Call the service called `service_name` with `data`."""
        return self._call("/services/invoke", ServicesInvokeRequestBody, ServicesInvokeResponseBody, request, retries,
                          options)

    services_invoke_async = _twin(services_invoke)


class Storage(_Service):
    """Files."""

    def storage_upload(
        self, request: Optional[Union[StorageUploadRequestBody, StorageUploadRequestBodyTypedDict]] = None,
        retries: Retries = UNSET, **options: Unpack[StorageUploadOptions]) -> StorageUploadResponseBody:
        """Store a `file` under a `key`; returns its URL. Sent as a stream, however large it is.

        `file` is {content, file_name, content_type}, or for short a path, bytes or a binary reader; `content` is
        bytes, a path, anything with a binary `read()`, or an iterable of bytes. `progress(sent, total)` is called
        with the bytes on the wire; total is None where the length is not known beforehand.
        """
        return self._call("/storage/upload", StorageUploadRequestBody, StorageUploadResponseBody, request, retries,
                          options, repeatable=True)

    storage_upload_async = _twin(storage_upload)


class Operation:
    """One operation of the API: where it is, what goes in, what comes back."""

    __slots__ = ("name", "path", "repeatable", "request_type", "response_type", "structured_errors")

    def __init__(self, path: str, request_type: Type[BaseModel], response_type: Type[Any], repeatable: bool,
                 structured_errors: Tuple[int, ...]) -> None:
        self.path = path
        self.name = path[1:].replace("/", "_")
        self.request_type = request_type
        self.response_type = response_type
        self.repeatable = repeatable
        self.structured_errors = structured_errors


def operations() -> List[Tuple[str, Operation, str]]:
    """All operations as (service, operation, sentence), learned by asking each method what it would send."""

    class Recorder(_Service):
        def _perform(self, operation: Operation, *_: object) -> Any:
            return operation

    found = []
    for service in _Service.__subclasses__():
        for name, method in vars(service).items():
            if hasattr(service, name + "_async"):
                operation = method(Recorder(None))  # type: ignore
                found.append((service.__name__.lower(), operation, method.__doc__.split("\n")[0]))
    return found


# ---- Models: what goes in, what comes back ---------------------------------------------------------------------------

# Python name -> name on the wire, wherever the two differ. Requests accept either; the wire's wins if both are given.
_WIRE_NAMES = {
    "created_at": "createdAt",
    "expires_at": "expiresAt",
    "file_name": "fileName",
    "job_id": "jobId",
    "service_name": "serviceName",
}
_SECRET_FIELDS = frozenset(["api_key_auth", "password", "token"])


class _DataclassFields:
    """Makes each model a real dataclass when somebody first asks; importing dataclasses takes 6 ms, a call needs none."""

    def __get__(self, instance: object, owner: type) -> Any:
        if owner in (BaseModel, _RequestModel):
            return {}
        import dataclasses

        return dataclasses.dataclass(init=False, repr=False, eq=False)(owner).__dict__["__dataclass_fields__"]


@dataclass_transform(kw_only_default=True, eq_default=False)
class BaseModel:
    """A dataclass whose fields are given by keyword, checked and converted as the official SDK does (lax pydantic).

    Fields that the API sent and this file does not know are in `model_extra`, and readable as attributes.
    """

    __dataclass_fields__ = _DataclassFields()
    __hash__ = None  # type: ignore  # a model can change
    _refuses_unknown_fields = False
    _wire_names = _WIRE_NAMES
    _compiled = None  # this class's fields, read from its annotations at the first use

    def __init__(self, **values: Any) -> None:
        problems: List[Dict[str, Any]] = []
        self._fill(values, (), problems)
        if problems:
            raise ValidationError(type(self).__name__, problems)

    @classmethod
    def model_validate(cls: Type[T], value: Any) -> T:
        """A model from a mapping or a model of the same class; raises ValidationError."""
        return _validated(cls, value, cls.__name__, ())

    @classmethod
    def model_validate_json(cls: Type[T], text: Union[str, bytes]) -> T:
        """A model from JSON; raises ValidationError, or the ValueError of the JSON parser."""
        return _validated(cls, json.loads(text), cls.__name__, ())

    def model_dump(self, *, by_alias: bool = False, mode: str = "python") -> Dict[str, Any]:
        """A dict without the fields that were not given; by the wire's names if `by_alias`; plain JSON if mode="json"."""
        dumped = {}
        for field in self._fields():
            value = self.__dict__.get(field.name, field.default)
            if value is UNSET or (value is None and field.default is None):
                continue
            if isinstance(value, BaseModel):
                value = value.model_dump(by_alias=by_alias, mode=mode)
            elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
                value = [item.model_dump(by_alias=by_alias, mode=mode) for item in value]
            elif mode == "json":
                value = _plain(value, field.name)
            dumped[field.wire if by_alias else field.name] = value
        return dumped

    def model_dump_json(self, *, by_alias: bool = False, indent: Optional[int] = None) -> str:
        """The model as JSON text."""
        dumped = self.model_dump(by_alias=by_alias, mode="json")
        return json.dumps(dumped, indent=indent, ensure_ascii=False, separators=None if indent else (",", ":"))

    @classmethod
    def _fields(cls) -> List[_Field]:
        if "_compiled" not in cls.__dict__:
            annotations: Dict[str, str] = {}
            for base in reversed(cls.__mro__[: cls.__mro__.index(BaseModel)]):
                annotations.update(getattr(base, "__annotations__", {}))
            cls._compiled = [_Field(cls, name, annotation) for name, annotation in annotations.items()]
        return cls._compiled  # type: ignore

    def _fill(self, values: Mapping[str, Any], location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> None:
        """Set every field from `values`; what is wrong with them goes to `problems`."""
        state, known = self.__dict__, 0
        for field in self._fields():
            value = UNSET
            if field.name in values:
                known += 1
                value = values[field.name]
            if field.wire != field.name and field.wire in values:
                known += 1
                value = values[field.wire]
            if value is UNSET or (value is None and field.nullable):
                if value is UNSET and field.default is _REQUIRED:
                    _problem(problems, location + (field.wire,), "missing", "Field required")
                state[field.name] = field.default if value is UNSET else None
            else:
                state[field.name] = field.convert(value, location + (field.wire,), problems)
        if known < len(values):
            names = {name: field for field in self._fields() for name in (field.name, field.wire)}
            unknown = {name: value for name, value in values.items() if name not in names}
            if self._refuses_unknown_fields:
                for name in unknown:
                    _problem(problems, location + (name,), "extra_forbidden", "Unknown field" + _nearest(name, names))
            else:
                state["model_extra"] = unknown

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["model_extra"][name]
        except KeyError:
            if name == "model_extra":
                return {}
            raise AttributeError("%r object has no attribute %r" % (type(self).__name__, name)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if all(name != field.name for field in self._fields()):
            raise ValidationError.about(name, "%s has no such field" % type(self).__name__)
        self.__dict__[name] = value

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, field.name) == getattr(other, field.name) for field in self._fields())

    def __repr__(self) -> str:
        return "%s(%s)" % (type(self).__name__, self._shown(", "))

    def __str__(self) -> str:
        return self._shown(" ")

    def _shown(self, separator: str) -> str:
        pairs = ((field.name, self.__dict__.get(field.name, field.default)) for field in self._fields())
        return separator.join("%s=%s" % (name, "***" if value and name in _SECRET_FIELDS else repr(value))
                              for name, value in pairs)  # fmt: skip


class _RequestModel(BaseModel):
    """What a caller writes: a field that does not exist is a slip of the pen, so it is refused."""

    _refuses_unknown_fields = True


class Role(str, Enum):
    """Who says a message. Any other string passes too: which roles there are is the server's to say."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Messages(_RequestModel):
    """One message of a conversation."""

    content: Optional[str] = None
    role: Optional[Union[Role, str]] = None


class AiChatRequestBody(_RequestModel):
    """A conversation to be answered."""

    messages: List[Messages]
    model: Optional[str] = None


class AiChatResponseBody(BaseModel):
    """The answer."""

    response: Optional[str] = None


class AuthSigninRequestBody(_RequestModel):
    """Who wants in."""

    email: str
    password: str


class AuthSignupRequestBody(_RequestModel):
    """A new user."""

    email: str
    password: str
    metadata: Optional[Dict[str, Any]] = None
    name: Optional[str] = None


class AuthResponse(BaseModel):
    """A signed-in user, with the token for further calls."""

    expires_at: Optional[datetime] = None
    token: Optional[str] = None
    user: Optional[User] = None


class User(BaseModel):
    """A user of your application."""

    created_at: Optional[datetime] = None
    email: Optional[str] = None
    id: Optional[str] = None
    metadata: Optional[Dict[str, Any]] = None
    name: OptionalNullable[str] = UNSET


class CacheGetRequestBody(_RequestModel):
    """A key to look up."""

    key: str


class CacheGetResponseBody(BaseModel):
    """What is stored; `value` is UNSET if none came back, None if a JSON null is stored."""

    exists: Optional[bool] = None
    value: OptionalNullable[Any] = UNSET


class CacheSetRequestBody(_RequestModel):
    """A JSON value to keep, for `ttl` seconds."""

    key: str
    value: Any
    ttl: Optional[int] = None


class CacheSetResponseBody(BaseModel):
    """Whether it was stored."""

    success: Optional[bool] = None


class DbQueryRequestBody(_RequestModel):
    """One SQL statement and what is bound to its placeholders."""

    sql: str
    params: Optional[List[Any]] = None


class DbQueryResult(BaseModel):
    """The rows, as dicts by column."""

    count: Optional[int] = None
    results: Optional[List[Dict[str, Any]]] = None


class QueueEnqueueRequestBody(_RequestModel):
    """A job, to be run after `delay` seconds."""

    data: Dict[str, Any]
    type: str
    delay: Optional[int] = None


class QueueEnqueueResponseBody(BaseModel):
    """The job's id."""

    job_id: Optional[str] = None
    success: Optional[bool] = None


class ServicesInvokeRequestBody(_RequestModel):
    """A service and what to call it with."""

    data: Dict[str, Any]
    service_name: str


class ServicesInvokeResponseBody(BaseModel):
    """What the service returned."""

    result: Optional[Any] = None
    success: Optional[bool] = None


class File(_RequestModel):
    """Something to upload; its type is guessed from `file_name` if not given."""

    content: Content
    file_name: str
    content_type: Optional[str] = None

    _wire_names = dict(_WIRE_NAMES, content_type="Content-Type")


class StorageUploadRequestBody(_RequestModel):
    """A file and the key to store it under."""

    file: File
    key: str
    content_type: Optional[str] = None

    _wire_names = dict(_WIRE_NAMES, content_type="contentType")

    def _fill(self, values: Mapping[str, Any], location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> None:
        file = values.get("file", UNSET)
        if file is not UNSET and not isinstance(file, (Mapping, BaseModel)):
            values = dict(values, file={"content": file, "file_name": _file_name(file, values.get("key"))})
        super()._fill(values, location, problems)


class StorageUploadResponseBody(BaseModel):
    """Where the file is now."""

    url: Optional[str] = None


class Security(_RequestModel):
    """The API key."""

    api_key_auth: str


class Code(str, Enum):
    """The error codes that the API documents. A code it adds later stays a plain string."""

    AUTH_INVALID_KEY = "AUTH_INVALID_KEY"
    AUTH_INVALID_CREDENTIALS = "AUTH_INVALID_CREDENTIALS"
    DB_QUERY_FAILED = "DB_QUERY_FAILED"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class ErrorResponseData(BaseModel):
    """The API's own account of what went wrong."""

    code: Union[Code, str]
    message: str
    details: Optional[Dict[str, Any]] = None


class BackoffStrategy:
    """How long to wait between attempts, in milliseconds: initial_interval * exponent ** n, up to max_interval.

    The wait is drawn evenly between 0 and that (full jitter). No attempt starts later than max_elapsed_time.
    """

    def __init__(self, initial_interval: float, max_interval: float, exponent: float, max_elapsed_time: float) -> None:
        self.initial_interval = initial_interval
        self.max_interval = max_interval
        self.exponent = exponent
        self.max_elapsed_time = max_elapsed_time

    def __repr__(self) -> str:
        return "BackoffStrategy(%s)" % ", ".join("%s=%r" % pair for pair in vars(self).items())


class RetryConfig:
    """Repeat every operation after 429, 500, 502, 503 and 504, and after lost connections and timeouts if you say so.

    strategy                     "backoff"; anything else means one attempt
    retry_connection_errors      repeat too when a connection fails, is lost or times out: the server may then have
                                 carried out the request already
    """

    def __init__(self, strategy: str, backoff: BackoffStrategy, retry_connection_errors: bool) -> None:
        self.strategy = strategy
        self.backoff = backoff
        self.retry_connection_errors = retry_connection_errors

    def __repr__(self) -> str:
        return "RetryConfig(%s)" % ", ".join("%s=%r" % pair for pair in vars(self).items())


# ---- HTTP client: Request -> Response --------------------------------------------------------------------------------
# What sends, unless you pass `client=`. The names are httpx's, so that either can stand in for the other.


class Headers(MutableMapping):  # type: ignore
    """HTTP headers: any case finds them, a repeated one reads as its values joined by ", ", and secrets stay hidden."""

    def __init__(self, headers: Union[Mapping[str, str], Iterable[Tuple[str, str]], None] = None) -> None:
        self._entries: Dict[str, Tuple[str, str]] = {}
        self._pairs: List[Tuple[str, str]] = []
        items = headers.items() if isinstance(headers, Mapping) else headers or ()
        for name, value in items:
            key = name.lower()
            self._pairs.append((name, value))
            self._entries[key] = (name, self._entries[key][1] + ", " + value if key in self._entries else value)

    def get_list(self, name: str) -> List[str]:
        """Each value of a repeated header."""
        return [value for other, value in self._pairs if other.lower() == name.lower()]

    def get_all(self, name: str, default: Optional[List[str]] = None) -> Optional[List[str]]:
        """`get_list` by the name that urllib's handlers call."""
        return self.get_list(name) or default

    def multi_items(self) -> List[Tuple[str, str]]:
        """All headers as they came, one pair a line."""
        return list(self._pairs)

    def __getitem__(self, name: str) -> str:
        return self._entries[name.lower()][1]

    def __setitem__(self, name: str, value: str) -> None:
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != name.lower()] + [(name, value)]
        self._entries[name.lower()] = (name, value)

    def __delitem__(self, name: str) -> None:
        del self._entries[name.lower()]
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return {k: v for k, (_, v) in self._entries.items()} == {k.lower(): v for k, v in other.items()}
        return NotImplemented

    def __repr__(self) -> str:
        return "Headers(%r)" % {key: value if key in _LOGGED_HEADERS else "***" for key, (_, value) in self._entries.items()}


class Request(urllib.request.Request):
    """One HTTP request: `method`, `url`, `headers`, `content`; urllib's handlers know it as their own Request.

    `timeout_seconds` bounds one attempt as a whole; `cancellation` ends it from another thread.
    """

    headers: Headers  # type: ignore

    def __init__(self, method: str, url: str, headers: Headers, content: Any = b"",
                 timeout_seconds: Optional[float] = None) -> None:
        super().__init__(url, method=method)
        self.headers = headers
        self.content = content
        self.timeout_seconds = timeout_seconds
        self.deadline = _Deadline(_FOREVER)
        self.cancellation: Optional[_Cancellation] = None

    @property
    def url(self) -> str:
        return self.full_url

    def __repr__(self) -> str:
        return "<Request(%r, %r)>" % (self.get_method(), self.url)


class Response:
    """One HTTP response, read to its end: `status_code`, `reason_phrase`, `headers`, `content`, `text`, `json()`, `url`."""

    def __init__(self, status_code: int, headers: Optional[Headers] = None, content: bytes = b"",
                 request: Optional[Request] = None, reason_phrase: str = "", http_version: str = "HTTP/1.1") -> None:
        self.status_code = self.status = self.code = status_code
        self.headers = Headers() if headers is None else headers
        self.content = content
        self.request = request
        self.reason_phrase = self.msg = reason_phrase
        self.http_version = http_version
        self.url = request.url if request else ""

    @property
    def text(self) -> str:
        """The body as text, in the charset that its type names, else UTF-8; what cannot be decoded becomes U+FFFD."""
        charset = re.search(r'(?i);\s*charset="?([^\s;"]+)', self.headers.get("content-type", ""))
        try:
            return self.content.decode(charset.group(1) if charset else "utf-8", "replace")
        except (LookupError, ValueError):  # a charset that no one knows, or that is no text encoding
            return self.content.decode("utf-8", "replace")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    def json(self) -> Any:
        """The body as JSON, strictly (RFC 8259); raises ValueError."""
        return _parse_json(self.content)

    def read(self) -> bytes:
        return self.content

    def iter_bytes(self) -> Iterator[bytes]:
        yield self.content

    def iter_text(self) -> Iterator[str]:
        yield self.text

    def info(self) -> Headers:
        """`headers` by the name that urllib's handlers call."""
        return self.headers

    def close(self) -> None:
        """Nothing to do: the body is read."""

    def __getstate__(self) -> Dict[str, Any]:
        return dict(vars(self), request=None)  # the request's headers hold the key

    def __repr__(self) -> str:
        return "<Response [%d %s]>" % (self.status_code, _escaped(self.reason_phrase))


class HttpClient:
    """Keeps connections open and sends requests over them; safe to share between threads and across forks.

    proxy                 "http://user:password@host:3128" for everything, False for none; by default what HTTP_PROXY,
                          HTTPS_PROXY, ALL_PROXY and NO_PROXY say
    ssl_context           an ssl.SSLContext of your own; by default the system's trust store, or what SSL_CERT_FILE,
                          SSL_CERT_DIR or REQUESTS_CA_BUNDLE name, and TLS 1.2 at least
    headers               headers for every request
    max_connections       connections at once; further calls wait their turn
    max_response_bytes    the largest body accepted, before and after decompression
    handlers              urllib.request handlers of your own, such as one that signs or records each request
    """

    def __init__(
        self,
        *,
        proxy: Union[str, Literal[False], None] = None,
        ssl_context: Optional[ssl.SSLContext] = None,
        headers: Optional[Mapping[str, str]] = None,
        max_connections: int = _MAX_CONNECTIONS,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
        handlers: Iterable[urllib.request.BaseHandler] = (),
    ) -> None:
        self.headers = _headers(headers)
        self._pool = _Pool(_positive_int("max_connections", max_connections),
                           _positive_int("max_response_bytes", max_response_bytes), _Proxies(proxy), ssl_context)
        self._opener = urllib.request.OpenerDirector()  # without urllib's own handlers: no file:, no ftp:, no redirects
        self._opener.addheaders = []
        for handler in (_Handler(self._pool), *handlers):
            self._opener.add_handler(handler)

    def build_request(self, method: str, url: str, *, content: Any = None, headers: Optional[Mapping[str, str]] = None,
                      timeout: Optional[float] = None, **others: Any) -> Request:
        """A request to `send`. `content` is bytes, text or an iterable of bytes; `timeout` is in seconds."""
        for name, value in others.items():
            if value:  # httpx's other parameters are accepted as long as they ask for nothing
                raise ArgumentTypeError.about(name, "is not supported by HttpClient")
        url, authorization = _split_credentials(_check_request_url(url))
        every = Headers(self.headers)
        if authorization:
            every["Authorization"] = authorization
        every.update(_headers(headers))
        if isinstance(content, str):
            content = content.encode()
        return Request(method, url, every, b"" if content is None else content, timeout)

    def send(self, request: Request, *, stream: bool = False, **_: Any) -> Response:
        """Send a request and read its response whole, following redirects only within one origin (307 and 308).

        Raises RequestError: no usable answer came. Any status is an answer.
        """
        timeout = _DEFAULT_TIMEOUT_MS / 1000 if request.timeout_seconds is None else request.timeout_seconds
        request.deadline = _Deadline(timeout)
        for _ in range(_MAX_REDIRECTS + 1):
            response: Response = self._opener.open(request, timeout=timeout)
            target = _redirect_target(response)
            if target is None:
                return response
            _check_repeatable(request.content, "the redirect to " + target)
            request = _redirected(request, target)
        raise TooManyRedirects("more than %d redirects" % _MAX_REDIRECTS, request=request)

    def close(self) -> None:
        """Close idle connections now, and those in use when their answer is read. Twice is fine."""
        self._pool.close()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_pool" in self.__dict__:
            self._pool.close()

    def __repr__(self) -> str:
        return "<HttpClient: %d active, %d idle>" % self._pool.counts()


class AsyncHttpClient:
    """An HttpClient that is awaited: each `send` runs in one of `max_workers` threads, from any event loop of asyncio.

    Cancelling a `send` closes its socket and frees its thread. Takes HttpClient's settings.
    """

    def __init__(self, *, max_workers: int = _MAX_WORKERS, **settings: Any) -> None:
        self._client = HttpClient(**settings)
        self._workers = _Workers(_positive_int("max_workers", max_workers))

    def build_request(self, method: str, url: str, **options: Any) -> Request:
        """A request to `send`, as `HttpClient.build_request` makes it."""
        return self._client.build_request(method, url, **options)

    async def send(self, request: Request, *, stream: bool = False, **_: Any) -> Response:
        """Send a request and read its response whole, as `HttpClient.send` does."""
        request.cancellation = _Cancellation()
        client = self._client
        return await self._workers.run(lambda: client.send(request), request.cancellation)

    async def aclose(self) -> None:
        """Close the connections and let the threads end."""
        self.close()

    def close(self) -> None:
        """`aclose` for where nothing can be awaited."""
        self._workers.close()
        self._client.close()

    async def __aenter__(self) -> AsyncHttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_workers" in self.__dict__:
            self._workers.close()

    def __repr__(self) -> str:
        return repr(self._client).replace("HttpClient", "AsyncHttpClient")


# ---- Errors ----------------------------------------------------------------------------------------------------------


class AerostackError(Exception):
    """What everything raised here is:

    AerostackError
    +-- ValidationError (ValueError)        a bad argument; nothing was sent
    +-- SDKBaseError                        an answer came, and it is not the one hoped for
    |   +-- ErrorResponse                   the API says what is wrong: `.data.code`, `.data.message`, `.data.details`
    |   +-- SDKError                        any other status, or an answer that is no JSON
    |   +-- ResponseValidationError         JSON that does not have the documented shape; `.cause` says where
    +-- RequestError                        no usable answer came
    |   +-- TransportError
    |   |   +-- TimeoutException            (TimeoutError): ConnectTimeout, ReadTimeout, WriteTimeout, PoolTimeout
    |   |   +-- NetworkError                (ConnectionError): ConnectError, ReadError, WriteError, CloseError
    |   |   +-- ProtocolError               LocalProtocolError, RemoteProtocolError
    |   |   +-- ProxyError                  (ConnectionError)
    |   |   +-- UnsupportedProtocol
    |   +-- DecodingError                   compressed data that is broken
    |   +-- TooManyRedirects
    +-- NoResponseError                     a client of yours returned None
    +-- ClosedError (RuntimeError)          the SDK or client was used after its close
    """

    request_id: Optional[str] = None  # sent as X-Request-ID with every attempt
    attempts = 0  # how often the request was tried
    retry_after: Optional[float] = None  # seconds the server asked to wait
    maybe_processed = False  # whether the server may have carried out the request
    data: Optional[ErrorResponseData] = None  # what the API said, if it did

    def __reduce__(self) -> Any:
        import copyreg  # pickles without calling a constructor, and without the request, whose headers hold the key

        state = {name: value for name, value in self.__dict__.items() if name != "request"}
        state["args"] = self.args  # OSErrors with an __init__ of their own lose them (bpo-26579)
        return copyreg.__newobj__, (type(self), *self.args), state  # type: ignore


class ValidationError(AerostackError, ValueError):
    """A value that is missing, unknown or of a wrong type. Names where it is, never what it is: it may be a secret."""

    def __init__(self, title: str, problems: List[Dict[str, Any]]) -> None:
        self.title = title
        self._problems = problems
        lines = [".".join(map(str, problem["loc"])) + ": " + problem["msg"] for problem in problems]
        count = "%d validation error%s for %s\n" % (len(lines), "s" * (len(lines) != 1), title) if title else ""
        super().__init__(count + "\n".join(lines))

    @classmethod
    def about(cls: Type[T], argument: str, message: str) -> T:
        """An error about one argument of a call."""
        return cls("", [{"loc": (argument,), "type": "value_error", "msg": message}])  # type: ignore

    def errors(self) -> List[Dict[str, Any]]:
        """One dict a problem: where (`loc`), what kind (`type`), in words (`msg`)."""
        return [dict(problem) for problem in self._problems]

    def error_count(self) -> int:
        return len(self._problems)


class ArgumentTypeError(ValidationError, TypeError):
    """An argument of a wrong type, or one that does not exist."""


class ArgumentIndexError(ValidationError, IndexError):
    """A `server_idx` for which there is no server."""


class SDKBaseError(AerostackError):
    """The server answered, but not with what was asked for."""

    def __init__(self, message: str, raw_response: Any, body: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.raw_response = raw_response
        self.status_code: int = raw_response.status_code
        self.headers = raw_response.headers
        self.body: str = raw_response.text if body is None else body

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return "%s(message=%r, status_code=%d)" % (type(self).__name__, self.message, self.status_code)


class SDKError(SDKBaseError):
    """An error answer that the API does not describe, or an answer that is not JSON."""

    def __init__(self, message: str, raw_response: Any, body: Optional[str] = None) -> None:
        shown = body or raw_response.text or '""'
        surplus = len(shown) - _MAX_ERROR_BODY_CHARS
        if surplus > 0:
            shown = "%s...and %d more chars" % (shown[:_MAX_ERROR_BODY_CHARS], surplus)
        content_type = raw_response.headers.get("content-type", '""')
        if content_type == "application/json":
            content_type = ""
        elif " " in content_type:
            content_type = ' Content-Type "%s"' % content_type
        else:
            content_type = " Content-Type " + content_type
        message = "%sStatus %d%s. Body: %s" % (message and message + ": ", raw_response.status_code, content_type, shown)
        super().__init__(_safe_text(message.strip()), raw_response, body)


class ErrorResponse(SDKBaseError):
    """The API's own error, for an operation that documents one with this status."""

    data: ErrorResponseData

    def __init__(self, data: ErrorResponseData, raw_response: Any, body: Optional[str] = None) -> None:
        super().__init__(_safe_text(str(data.message) or body or raw_response.text), raw_response, body)
        self.data = data


class ResponseValidationError(SDKBaseError):
    """An answer whose JSON is broken or not of the documented shape; `.body` has it whole."""

    def __init__(self, message: str, raw_response: Any, cause: Exception, body: Optional[str] = None) -> None:
        super().__init__("%s: %s" % (message, cause), raw_response, body)
        self.cause = cause


class RequestError(AerostackError):
    """No usable answer came. `.request` is the request, `.__cause__` the system's own error."""

    never_sent = False  # nothing of the request reached the server
    connection_lost = False  # it may have, and the connection broke before the answer was complete
    permanent = False  # trying again cannot help
    reused_connection = False  # it broke on a kept connection before the first byte of an answer

    def __init__(self, message: str, *, request: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.request = request

    def __str__(self) -> str:
        return self.message


class TransportError(RequestError):
    """The exchange of bytes failed."""


class TimeoutException(TransportError, TimeoutError):
    """The attempt was not over in time."""


class ConnectTimeout(TimeoutException):
    """No connection in time."""

    never_sent = True


class ReadTimeout(TimeoutException):
    """No complete answer in time."""


class WriteTimeout(TimeoutException):
    """The server did not take the request in time."""


class PoolTimeout(TimeoutException):
    """All `max_connections` were busy for too long."""

    never_sent = True


class NetworkError(TransportError, ConnectionError):
    """The network failed."""


class ConnectError(NetworkError):
    """No connection: no such host, nobody listening, or no trust."""

    never_sent = True


class ReadError(NetworkError):
    """The connection broke while the answer was awaited or read."""

    connection_lost = True


class WriteError(NetworkError):
    """The connection broke while the request went out."""

    connection_lost = True


class CloseError(NetworkError):
    """A connection could not be closed; here for completeness."""


class ProtocolError(TransportError):
    """HTTP was broken."""


class LocalProtocolError(ProtocolError):
    """By us: an upload's source ended early, grew or failed."""

    permanent = True


class RemoteProtocolError(ProtocolError):
    """By the server: what it sent is not HTTP, or is cut short or too large."""


class ProxyError(TransportError, ConnectionError):
    """The proxy did not let us through."""

    never_sent = True
    status_code: Optional[int] = None


class UnsupportedProtocol(TransportError):
    """A URL or proxy that is neither http nor https."""

    never_sent = True
    permanent = True


class DecodingError(RequestError):
    """A compressed body that is broken."""


class TooManyRedirects(RequestError):
    """A redirect to a redirect to ..."""


class NoResponseError(AerostackError):
    """A client passed as `client=` returned None."""

    def __init__(self, message: str = "No response received") -> None:
        super().__init__(message)
        self.message = message


class ClosedError(AerostackError, RuntimeError):
    """Used after its close."""


# ======================================================================================================================
# Below this line everything is private.
# ======================================================================================================================


# ---- Encode: arguments -> checked values -----------------------------------------------------------------------------

_FOREVER = float("inf")
_REQUIRED = object()  # the default of a field that has none


class _Field:
    """One field of a model, as its annotation says."""

    __slots__ = ("annotation", "convert", "default", "name", "nullable", "wire")

    def __init__(self, model: Type[BaseModel], name: str, annotation: str) -> None:
        self.name = name
        self.wire = model._wire_names.get(name, name)
        self.default = getattr(model, name, _REQUIRED)
        self.annotation = annotation
        self.nullable = annotation.startswith("Optional")
        self.convert = _converter(annotation)


def _converter(annotation: str) -> Callable[[Any, Tuple[Any, ...], List[Dict[str, Any]]], Any]:
    """What checks and converts a value for an annotation: (value, location, problems) -> value."""
    if annotation in _CONVERTERS:
        return _CONVERTERS[annotation]
    if annotation.endswith("]"):
        outer, _, inner = annotation[:-1].partition("[")
        if outer == "List":
            return _list_of(_converter(inner))
        if outer == "Union":
            return _enum_or_text(globals()[inner.partition(",")[0]])
        return _converter(inner)  # Optional, OptionalNullable: None is dealt with before
    model = globals()[annotation]
    return lambda value, location, problems: _model(model, value, location, problems)


def _problem(problems: List[Dict[str, Any]], location: Tuple[Any, ...], kind: str, message: str) -> None:
    problems.append({"loc": location, "type": kind, "msg": message})


def _nearest(name: object, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(str(name), list(known), 1, 0.5)
    return "; did you mean %r?" % near[0] if near else "; known are " + ", ".join(sorted(known))


def _anything(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    return value


def _text(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    if isinstance(value, str):
        return str.__str__(value) if type(value) is not str else value  # a str enum counts as its value
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return _problem(problems, location, "string_unicode", "Input should be a valid string; these bytes are not UTF-8")
    return _problem(problems, location, "string_type", "Input should be a valid string")


def _integer(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    if type(value) is int:
        return value
    if hasattr(value, "__index__"):
        return int(value.__index__())
    if isinstance(value, (str, bytes, bytearray)):
        text = value if isinstance(value, str) else value.decode("latin-1")
        if re.fullmatch(r"\s*[+-]?[0-9]+(_[0-9]+)*(\.0+)?\s*", text):
            try:
                return int(text.partition(".")[0])
            except ValueError:  # over 4,300 digits
                return _problem(problems, location, "int_parsing_size", "Input should have at most 4300 digits")
        return _problem(problems, location, "int_parsing", "Input should be a valid integer")
    try:
        whole = int(value)  # float, Decimal, Fraction
        if whole != value:
            return _problem(problems, location, "int_from_float", "Input should be an integer, not a fraction")
        if isinstance(value, float) and abs(value) >= 2.0**63:
            return _problem(problems, location, "int_parsing_size", "Input is too large a float for an integer")
        return whole
    except (OverflowError, ArithmeticError):
        return _problem(problems, location, "finite_number", "Input should be a finite number")
    except (TypeError, ValueError):
        kind = "finite_number" if value != value else "int_type"
        return _problem(problems, location, kind, "Input should be a valid integer")


_BOOLEANS = {"true": True, "yes": True, "y": True, "on": True, "t": True, "1": True,
             "false": False, "no": False, "n": False, "off": False, "f": False, "0": False}  # fmt: skip


def _boolean(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return value == 1
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    return _problem(problems, location, "bool_type", "Input should be a valid boolean")


def _moment(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    """A datetime from RFC 3339 and its relatives, or from Unix time in seconds (milliseconds above 2e10)."""
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day)
        if isinstance(value, str):
            return parse_datetime(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _unix_time(value)
    except (ValueError, OverflowError):
        pass
    return _problem(problems, location, "datetime_parsing", "Input should be a valid datetime")


def parse_datetime(datetime_string: str) -> datetime:
    """A datetime from RFC 3339 text, or from Unix time as text; naive if the text names no offset. ValueError if bad."""
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", datetime_string):
        return _unix_time(float(datetime_string))
    match = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
        r"(?:[Tt _]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?(?:([Zz])|([+\u2212-])([0-9]{2}):?([0-9]{2}))?)?",
        datetime_string,
    )
    if not match:
        raise ValueError("not a datetime")
    year, month, day, hour, minute, second, fraction, utc, sign, hours, minutes = match.groups()
    zone = timezone.utc if utc else None
    if sign:
        if int(minutes) > 59:
            raise ValueError("not an offset")
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        zone = timezone(offset if sign == "+" else -offset)
    microsecond = int(((fraction or "") + "000000")[:6])
    return datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), microsecond, zone)


def _unix_time(seconds: float) -> datetime:
    if abs(seconds) > 2e10:
        seconds /= 1000
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)


def _object(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    if not isinstance(value, Mapping):
        return _problem(problems, location, "dict_type", "Input should be a valid dictionary")
    for key in value:
        if not isinstance(key, str):
            _problem(problems, location + (str(key), "[key]"), "string_type", "Keys should be valid strings")
    return value if isinstance(value, dict) else dict(value)


def _list_of(convert: Callable[[Any, Tuple[Any, ...], List[Dict[str, Any]]], Any]) -> Callable[..., Any]:
    def convert_list(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
        if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, BaseModel)) or not isinstance(value, Iterable):
            return _problem(problems, location, "list_type", "Input should be a valid list")
        return [convert(item, location + (index,), problems) for index, item in enumerate(value)]

    return convert_list


def _enum_or_text(enum: Type[Enum]) -> Callable[..., Any]:
    def convert_enum(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
        value = value if isinstance(value, enum) else _text(value, location, problems)
        try:
            return enum(value)
        except ValueError:
            return value

    return convert_enum


def _model(model: Type[BaseModel], value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    if isinstance(value, BaseModel) and isinstance(value, model):
        value = {**value.__dict__.get("model_extra", {}), **{f.name: value.__dict__[f.name] for f in value._fields()}}
    if isinstance(value, BaseModel) or not isinstance(value, Mapping):
        kind = "a dictionary or a %s" % model.__name__
        return _problem(problems, location, "model_type", "Input should be " + kind)
    instance = model.__new__(model)
    instance._fill(value, location, problems)
    return instance


def _validated(model: Type[T], value: Any, title: str, location: Tuple[Any, ...]) -> T:
    problems: List[Dict[str, Any]] = []
    instance = _model(model, value, location, problems)  # type: ignore
    if problems:
        raise ValidationError(title, problems)
    return instance  # type: ignore


def _content(value: Any, location: Tuple[Any, ...], problems: List[Dict[str, Any]]) -> Any:
    """What an upload can be read from; text is refused, for it is nearly always a path that was meant to be opened."""
    import io

    if isinstance(value, str):
        message = "Pass bytes, a pathlib.Path or an open binary file; a str would be ambiguous"
    elif isinstance(value, io.TextIOBase) or "b" not in str(getattr(value, "mode", "b")).replace("1", "b"):
        message = "The file is open as text; open it in binary mode, 'rb'"
    elif getattr(value, "closed", False) is True:
        message = "The file is closed"
    elif isinstance(value, (bytes, bytearray, memoryview, os.PathLike)) or hasattr(value, "read"):
        return value
    elif isinstance(value, Iterable) and not isinstance(value, (Mapping, BaseModel)):
        return value
    else:
        try:
            return memoryview(value)
        except TypeError:
            message = "Input should be bytes, a path, a binary reader or an iterable of bytes"
    return _problem(problems, location, "content_type", message)


def _file_name(file: Any, key: Any) -> str:
    """A name for what is uploaded without one: the path's, the open file's, or the key's last part."""
    name = os.fspath(file) if isinstance(file, os.PathLike) else getattr(file, "name", None)
    return os.path.basename(name) if isinstance(name, str) and name else str(key).rpartition("/")[2] or "file"


_CONVERTERS = {
    "Any": _anything,
    "Content": _content,
    "Dict[str, Any]": _object,
    "bool": _boolean,
    "datetime": _moment,
    "int": _integer,
    "str": _text,
}


def _positive_int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentTypeError.about(name, "must be a whole number above 0")
    return value


def _timeout_seconds(timeout_ms: Any) -> Optional[float]:
    """None means that no timeout was asked for."""
    if timeout_ms is None:
        return None
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)):
        raise ArgumentTypeError.about("timeout_ms", "must be a number of milliseconds")
    if not timeout_ms > 0:
        raise ValidationError.about("timeout_ms", "must be above 0 (math.inf for no limit)")
    return timeout_ms / 1000


def _api_key(value: Any) -> str:
    """A key that fits in a header. RFC 9110, 5.5: no line ends, no control characters."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        raise ArgumentTypeError.about("api_key_auth", "must be a string, or a callable that returns one")
    value = value.strip()
    if not value or not value.isascii() or not value.isprintable():
        reason = "must be printable ASCII" if value else "is empty; pass the key or set AEROSTACK_API_KEY"
        raise ValidationError.about("api_key_auth", reason)
    return value


def _security(api_key_auth: Any) -> Union[Security, Callable[[], Security]]:
    if callable(api_key_auth):
        return lambda: Security(api_key_auth=_api_key(api_key_auth()))
    if api_key_auth is None:
        api_key_auth = os.environ.get("AEROSTACK_API_KEY", "")
    return Security(api_key_auth=_api_key(api_key_auth))


# RFC 9110, 5.6.2: what a header's name, or a method, is made of.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LOGGED_HEADERS = frozenset([
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "date", "host",
    "retry-after", "server", "transfer-encoding", "user-agent", "x-request-id",
])  # fmt: skip


def _headers(headers: Optional[Mapping[str, str]]) -> Headers:
    """Headers that cannot break out of their line (CVE-2019-9740 and its kin); the errors never show a value."""
    checked = Headers()
    if headers is not None and not isinstance(headers, Mapping):
        raise ArgumentTypeError.about("http_headers", "must be a mapping of names to values")
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
            raise ValidationError.about("http_headers", "a header's name is empty or has characters that no name has")
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if not isinstance(value, str) or not value.isascii() or not (value.isprintable() or value.replace("\t", "").isprintable()):
            raise ValidationError.about("http_headers", "the value of %r must be a string of printable ASCII" % name)
        checked[name] = value
    return checked


def _template_url(server_url: str, url_params: Mapping[str, str]) -> str:
    for name, value in url_params.items():
        if not isinstance(value, str):
            raise ArgumentTypeError.about("url_params", "the value of %r must be a string" % name)
        server_url = server_url.replace("{%s}" % name, value)
    return server_url


def _check_server_url(server_url: Any) -> str:
    """An http or https URL to which a path can be appended, without a slash at its end."""
    if not isinstance(server_url, str):
        raise ArgumentTypeError.about("server_url", "must be a string")
    try:
        url = _check_request_url(server_url)
    except UnsupportedProtocol as error:
        raise ValidationError.about("server_url", str(error)) from None
    if "?" in url or "#" in url:
        raise ValidationError.about("server_url", "must have no query and no fragment")
    return url.rstrip("/")


def _check_request_url(url: str) -> str:
    """The URL with what does not belong in it percent-encoded; refused if it is not a plain http(s) URL (RFC 3986)."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = re.match(r"([^/?#]*)(/?)(.*)", rest, re.S).groups()  # type: ignore
    host = authority.rpartition("@")[2]
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?\]|[^\s:@\[\]%{}<>\"\\^`|]+)(?::([0-9]*))?", host)
    if not separator or scheme.lower() not in ("http", "https"):
        raise UnsupportedProtocol("must start with http:// or https://")
    if not match or any(ord(c) <= 32 or ord(c) == 127 for c in authority):
        raise UnsupportedProtocol("has no host, or one that cannot be")
    if match.group(2) and not 0 < int(match.group(2)) < 65536:
        raise UnsupportedProtocol("has a port that cannot be")
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise UnsupportedProtocol("has control characters")
    if not host.isascii():  # IDNA, as urllib.request itself never does (bpo-20559)
        try:
            ascii_host = match.group(1).encode("idna").decode()
        except UnicodeError:
            raise UnsupportedProtocol("has a host name that cannot be") from None
        authority = authority.replace(match.group(1), ascii_host)
    return scheme.lower() + "://" + authority + slash + urllib.parse.quote(path, "!#$%&'()*+,/:;=?@[]~")


def _split_credentials(url: str) -> Tuple[str, str]:
    """A URL without its `user:password@`, and these as a Basic authorization (RFC 7617)."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    if not at:
        return url, ""
    import base64
    from urllib.parse import unquote_to_bytes

    user, _, password = credentials.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return scheme + "://" + host + slash + path, "Basic " + base64.b64encode(pair).decode()


def _shown_url(url: object) -> str:
    """A URL fit for logs and errors."""
    return re.sub(r"(?s)://[^/?#]*@", "://***@", str(url))


# ---- Encode: model -> body -------------------------------------------------------------------------------------------


class _Call:
    """One operation under way: what is sent, how it may be repeated, and what is known about it so far."""

    def __init__(self, configuration: SDKConfiguration, operation: Operation, request: object, retries: Retries,
                 options: Dict[str, Any]) -> None:
        server_url = options.pop("server_url", None)
        timeout_ms = options.pop("timeout_ms", None)
        http_headers = _headers(options.pop("http_headers", None))
        progress = options.pop("progress", None) if operation.request_type is StorageUploadRequestBody else None
        fields, options = options, {}  # the fields may hold a password, which no traceback's locals should show
        if request is not None and fields:
            raise ArgumentTypeError.about(", ".join(fields), "given next to the request: give either, %s takes no such option"
                                          % operation.name)  # fmt: skip
        model = _validated(operation.request_type, fields if request is None else request, operation.name, ("body",))
        fields.clear()
        self.operation = operation
        self.attempts = 0
        self.maybe_processed = False
        self.retries = _retry_policy(configuration.retry_config if isinstance(retries, Unset) else retries, operation.repeatable)
        base = configuration.get_server_details()[0] if server_url is None else server_url
        self.url = _check_server_url(base) + operation.path
        self.timeout_seconds = _timeout_seconds(configuration.timeout_ms if timeout_ms is None else timeout_ms)
        self.logger = configuration.debug_logger or _default_logger()
        security = configuration.security() if callable(configuration.security) else configuration.security
        self.headers = Headers({
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": configuration.user_agent,
            "X-Aerostack-Key": security.api_key_auth,
            "X-Request-ID": os.urandom(16).hex(),
        })  # fmt: skip
        self.content: Union[bytes, _Multipart]
        if isinstance(model, StorageUploadRequestBody):
            self.content = _Multipart(model, progress)
            self.headers["Content-Type"] = self.content.content_type
        else:
            self.content = _json_bytes(model)
            self.headers["Content-Type"] = "application/json"
        self.headers.update(http_headers)
        self.request_id: str = self.headers["X-Request-ID"]
        self.secrets = [value for value in (security.api_key_auth, getattr(model, "password", None)) if value]


def _json_bytes(model: BaseModel) -> bytes:
    """A model as compact JSON. The C encoder does the work; only what it cannot do is walked through in Python."""
    body = model.model_dump(by_alias=True)
    try:
        text = _encode_json(body)
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not text or '"null":' in text:  # json writes a key None as "null", where a typing slip would go unseen
        try:
            text = _encode_json({name: _plain(value, name) for name, value in body.items()})
        except RecursionError:
            raise ValidationError.about(next(iter(body)), "is nested too deeply, or holds itself") from None
    return text.encode("ascii")


def _leaf(value: Any) -> Any:
    """A value that JSON has no type for, as the official SDK writes it; TypeError for the rest."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (datetime, date, clock_time)):
        return value.isoformat().replace("+00:00", "Z") if getattr(value, "tzinfo", None) else value.isoformat()
    if isinstance(value, timedelta):
        return _iso_duration(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    for base in type(value).__mro__:  # by name, so that nothing needs to be imported
        if (base.__module__, base.__name__) in _WRITTEN_AS_TEXT:
            return str(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, (set, frozenset)) or type(value).__name__ in ("deque", "dict_keys", "dict_values", "dict_items"):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


_WRITTEN_AS_TEXT = frozenset([
    ("decimal", "Decimal"), ("_decimal", "Decimal"), ("_pydecimal", "Decimal"), ("uuid", "UUID"),
    ("ipaddress", "_IPAddressBase"),
])  # fmt: skip

_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_leaf).encode


def _plain(value: Any, path: str, above: Tuple[int, ...] = ()) -> Any:
    """A value as only dicts, lists, strings, numbers, booleans and None; ValidationError names the path of what is not."""
    if value is None or isinstance(value, (str, int)) and not isinstance(value, Enum):
        return value
    if isinstance(value, float):
        if value - value != 0:
            raise ValidationError.about(path, "is NaN or infinite, which JSON cannot say")
        return value
    if id(value) in above or len(above) > 500:
        raise ValidationError.about(path[:80], "is nested too deeply, or holds itself")
    above += (id(value),)
    if isinstance(value, dict):
        return {_plain_key(key, path): _plain(item, "%s.%s" % (path, key), above) for key, item in value.items()}
    if isinstance(value, (list, tuple)) or hasattr(value, "__next__"):
        return [_plain(item, "%s[%d]" % (path, index), above) for index, item in enumerate(value)]
    try:
        leaf = _leaf(value)
    except UnicodeDecodeError:
        raise ValidationError.about(path, "is bytes that are not UTF-8; encode them, for instance as Base64") from None
    except TypeError:
        raise ValidationError.about(path, "cannot be written as JSON: %s" % type(value).__name__) from None
    return _plain(leaf, path, above)


def _plain_key(key: Any, path: str) -> str:
    """A dict's key as the official SDK writes it."""
    if isinstance(key, str) and not isinstance(key, Enum):
        return key
    if isinstance(key, (bool, int, float)) and not isinstance(key, Enum) and key - key == 0:
        return _encode_json(key)
    try:
        return _plain_key(_leaf(key), path)
    except (TypeError, UnicodeDecodeError, RecursionError):
        raise ValidationError.about(path, "has a key that cannot be written as JSON: %s" % type(key).__name__) from None


def _iso_duration(value: timedelta) -> str:
    """ISO 8601: P1DT1M30S."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    hours, seconds = divmod(value.seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    fraction = (".%06d" % value.microseconds).rstrip("0").rstrip(".")
    parts = "%dH" % hours * bool(hours) + "%dM" % minutes * bool(minutes) + "%d%sS" % (seconds, fraction) * bool(seconds or fraction)
    if not value:
        return "PT0S"
    return sign + "P" + "%dD" % value.days * bool(value.days) + ("T" + parts) * bool(parts)


class _Multipart:
    """A multipart/form-data body (RFC 7578) in blocks; each iteration sends it anew, from the start."""

    def __init__(self, model: StorageUploadRequestBody, progress: Optional[Progress] = None) -> None:
        file = model.file
        content_type = file.content_type
        if content_type is None:
            import mimetypes

            content_type = mimetypes.guess_type(file.file_name)[0] or "application/octet-stream"
        if not file.file_name:
            raise ValidationError.about("body.file.fileName", "must not be empty")
        if any(ord(c) < 32 and c != "\t" or ord(c) == 127 for c in content_type):  # or it could add headers to the part
            raise ValidationError.about("body.file.Content-Type", "has control characters")
        if progress is not None and not callable(progress):
            raise ArgumentTypeError.about("progress", "must be a callable (sent, total)")
        boundary = os.urandom(16).hex()
        fields = [("key", model.key)] + [("contentType", model.content_type)] * (model.content_type is not None)
        head = "".join('--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (boundary, name, value)
                       for name, value in fields)  # fmt: skip
        head += ('--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: %s\r\n\r\n'
                 % (boundary, file.file_name.translate(_FILE_NAME_ESCAPES), content_type))  # fmt: skip
        self.content_type = "multipart/form-data; boundary=" + boundary
        try:
            self._head, self._tail = head.encode(), ("\r\n--%s--\r\n" % boundary).encode()
        except UnicodeEncodeError:
            raise ValidationError.about("body", "a key, name or type has lone surrogates, which no text has") from None
        self._source = _source(file.content)
        self._progress = progress

    @property
    def repeatable(self) -> bool:
        return self._source.repeatable

    def measure(self) -> Optional[int]:
        """The body's length in bytes, or None if only reading it would tell."""
        length = self._source.measure()
        return None if length is None else len(self._head) + length + len(self._tail)

    def __iter__(self) -> Iterator[Buffer]:
        total, sent = self.measure(), 0
        report = self._progress or (lambda sent, total: None)
        report(0, total)
        for blocks in ((self._head,), self._source.blocks(), (self._tail,)):
            for block in blocks:
                yield block
                sent += len(block)  # the block before has left by the time that the next is asked for
                report(sent, total)


# As browsers and the official SDK write file names; ESC passes there, so it does here.
_FILE_NAME_ESCAPES = {code: "%%%02X" % code for code in range(32) if code != 27}
_FILE_NAME_ESCAPES.update({ord('"'): "%22", ord("\\"): "\\\\"})


def _source(content: Any) -> Union[_BufferSource, _ReaderSource, _IterableSource]:
    if isinstance(content, os.PathLike) or hasattr(content, "read"):
        return _ReaderSource(content)
    try:
        return _BufferSource(memoryview(content).cast("B"))
    except TypeError:
        return _IterableSource(content)


class _BufferSource:
    """Bytes in memory."""

    repeatable = True

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def measure(self) -> int:
        return len(self._view)

    def blocks(self) -> Iterator[memoryview]:
        for start in range(0, len(self._view), _BLOCK_BYTES):
            yield self._view[start : start + _BLOCK_BYTES]


class _ReaderSource:
    """A file, by its path or open, or anything else with a binary read(). Open ones stay open, and are sent from their
    start if they can seek."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self._measured = False
        self._length: Optional[int] = None
        self._consumed = False
        self.repeatable = True

    def measure(self) -> Optional[int]:
        if self._measured:
            return self._length
        if isinstance(self._content, os.PathLike):
            try:
                with open(self._content, "rb") as reader:  # also finds out whether it can be read
                    self._length = _seekable_length(reader)
            except OSError as error:
                raise ValidationError.about("body.file", "cannot be read: %s" % error) from error
            self.repeatable = self._length is not None
        else:
            self._length = _seekable_length(self._content)
            self.repeatable = self._length is not None
        self._measured = True
        return self._length

    def blocks(self) -> Iterator[Buffer]:
        length = self.measure()
        if self._consumed and not self.repeatable:
            raise LocalProtocolError("the upload's source cannot be read twice")
        self._consumed = True
        if isinstance(self._content, os.PathLike):
            with open(self._content, "rb", buffering=0) as reader:
                yield from _read_blocks(reader, length)
        else:
            if length is not None:
                self._content.seek(0)
            yield from _read_blocks(self._content, length)


class _IterableSource:
    """An iterable of bytes; its length is not known, and an iterator can be used once."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self._consumed = False
        self.repeatable = not hasattr(content, "__next__")

    def measure(self) -> None:
        return None

    def blocks(self) -> Iterator[Buffer]:
        if self._consumed and not self.repeatable:
            raise LocalProtocolError("the upload's source cannot be read twice")
        self._consumed = True
        iterator = iter(self._content)
        while True:
            try:
                block = memoryview(next(iterator)).cast("B")
            except StopIteration:
                return
            except Exception as error:
                raise LocalProtocolError("reading the upload's source failed: %r" % error) from error
            if block:
                yield block


def _seekable_length(reader: Any) -> Optional[int]:
    """How long a reader is from its start, if it can seek there."""
    try:
        position = reader.tell()
        reader.seek(0, 2)
        length: int = reader.tell()
        reader.seek(position)
        return length
    except (AttributeError, OSError, ValueError, TypeError):  # a pipe, a socket's file, a bare read()
        return None


def _read_blocks(reader: Any, length: Optional[int]) -> Iterator[Buffer]:
    """`length` bytes of a reader, or all there are if that is None."""
    buffer = memoryview(bytearray(_BLOCK_BYTES)) if hasattr(reader, "readinto") else None
    left = _FOREVER if length is None else length
    while left > 0:
        size = int(min(left, _BLOCK_BYTES))
        try:
            if buffer is not None:
                block = buffer[: reader.readinto(buffer[:size]) or 0]
            else:
                block = memoryview(reader.read(size) or b"").cast("B")[:size]
        except Exception as error:
            raise LocalProtocolError("reading the upload's source failed: %r" % error) from error
        if not block:
            break
        left -= len(block)
        yield block
    if length is not None and left:
        raise LocalProtocolError("the upload's source ended %d bytes before its announced length of %d" % (left, length))


def _check_repeatable(content: Any, what_for: str) -> None:
    if not getattr(content, "repeatable", True):
        raise LocalProtocolError("the upload's source cannot be read twice, as %s would need" % what_for)


# ---- Retries: request -> response, the only place that sleeps --------------------------------------------------------

_DEFAULT_RETRIES = RetryConfig("backoff", BackoffStrategy(500, 8_000, 2, 60_000), True)
_DEFAULT_ATTEMPTS = 3
_REFUSED = frozenset([429, 503])  # the server says that it did nothing
_FAILED = frozenset([500, 502, 504])  # nobody says what was done


class _Policy:
    """Which outcomes are tried again, and when: an explicit RetryConfig, or the safe default."""

    def __init__(self, config: RetryConfig, statuses: frozenset[int], never_sent: bool, lost: bool, timeouts: bool,
                 attempts: float) -> None:
        self.backoff = config.backoff
        self.statuses = statuses
        self.never_sent = never_sent
        self.lost = lost
        self.timeouts = timeouts
        self.attempts = attempts

    def delay_seconds(self, call: _Call, outcome: Any, elapsed_seconds: float, wall_seconds: float) -> Optional[float]:
        """How long to wait before the next attempt; None if this outcome is the last."""
        if call.attempts >= self.attempts or not self._again(outcome) or not getattr(call.content, "repeatable", True):
            return None
        if getattr(outcome, "reused_connection", False) and call.attempts == 1:
            delay = 0.0  # the server closed an idle connection just as we wrote: nothing that waiting would mend
        else:
            retry_after = _retry_after_seconds(outcome, wall_seconds)
            delay = _jittered_seconds(self.backoff, call.attempts) if retry_after is None else retry_after
        return delay if elapsed_seconds + delay <= self.backoff.max_elapsed_time / 1000 else None

    def _again(self, outcome: Any) -> bool:
        if not isinstance(outcome, Exception):
            return outcome.status_code in self.statuses
        kind = _error_kind(outcome)
        if kind is None or outcome.__dict__.get("permanent", kind.permanent):
            return False
        if kind.never_sent:
            return self.never_sent
        if issubclass(kind, TimeoutException):
            return self.timeouts
        return self.lost and bool(outcome.__dict__.get("connection_lost", kind.connection_lost))


def _retry_policy(config: Any, repeatable: bool) -> Optional[_Policy]:
    """None means one attempt."""
    if isinstance(config, Unset):
        statuses = _REFUSED | _FAILED if repeatable else _REFUSED
        return _Policy(_DEFAULT_RETRIES, statuses, True, repeatable, False, _DEFAULT_ATTEMPTS)
    if getattr(config, "strategy", None) != "backoff":
        return None
    for name in ("initial_interval", "max_interval", "exponent", "max_elapsed_time"):
        value = getattr(config.backoff, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ValidationError.about(name, "must be a number, not negative")
    again = bool(config.retry_connection_errors)
    return _Policy(config, _REFUSED | _FAILED, again, again, again, _FOREVER)


def _jittered_seconds(backoff: BackoffStrategy, attempts: int) -> float:
    """Full jitter: evenly between 0 and the ceiling, so that clients do not come back in step."""
    try:
        ceiling = min(backoff.initial_interval * backoff.exponent ** (attempts - 1), backoff.max_interval)
    except OverflowError:
        ceiling = backoff.max_interval
    return ceiling / 1000 * int.from_bytes(os.urandom(4), "big") / 2**32  # urandom: forks do not draw the same


def _retry_after_seconds(outcome: Any, wall_seconds: float) -> Optional[float]:
    """What Retry-After asks for (RFC 9110, 10.2.3: seconds or a date); None if nothing, garbage, or not in the future."""
    text = (getattr(outcome, "headers", None) or {}).get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if "_" not in text else 0.0
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            moment = parsedate_to_datetime(text)
            seconds = moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() - wall_seconds
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if seconds > 0 else None


def _error_kind(error: BaseException) -> Optional[Type[RequestError]]:
    """Ours, or ours by the same name where a client of yours raises httpx's."""
    for base in type(error).__mro__:
        kind = globals().get(base.__name__)
        if isinstance(kind, type) and issubclass(kind, RequestError):
            return kind
    return None


class _Blocking:
    """The synchronous half of an SDK: its client, and how it waits."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self, client: Any) -> None:
        self.supplied = client is not None
        self.closed = threading.Event()
        self._client = _checked_client("client", client, "close")
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        if self._client is None and not self.closed.is_set():
            with self._lock:
                self._client = self._client or self._make()
        return None if self.closed.is_set() else self._client

    def _make(self) -> Any:
        return HttpClient()

    def build(self, call: _Call) -> Tuple[Any, Any]:
        """The client to send with, and the request it made; one for all attempts."""
        client = self.client
        if client is None:
            raise ClosedError("the SDK is closed")
        headers, content = dict(call.headers._entries.values()), call.content
        if isinstance(content, _Multipart) and not isinstance(client, (HttpClient, AsyncHttpClient)):
            content = self._foreign_content(content, headers)
        options = {} if call.timeout_seconds is None else {"timeout": _finite(call.timeout_seconds)}
        return client, client.build_request("POST", call.url, content=content, headers=headers, **options)

    def _foreign_content(self, content: _Multipart, headers: Dict[str, str]) -> Any:
        length = content.measure()
        if length is not None:
            headers["Content-Length"] = str(length)
        return _Blocks(content)

    async def send(self, client: Any, request: Any) -> Any:
        return client.send(request, stream=False)

    async def sleep(self, seconds: float) -> None:
        self.closed.wait(seconds)

    def close(self) -> None:
        self.closed.set()
        client, self._client = self._client, None
        if client is not None and not self.supplied:
            client.close()


class _Awaiting(_Blocking):
    """The asynchronous half of an SDK."""

    def __init__(self, client: Any, max_workers: int) -> None:
        super().__init__(None)
        self.supplied = client is not None
        self._client = _checked_client("async_client", client, "aclose")
        self._max_workers = _positive_int("max_workers", max_workers)
        self._sleepers: Set[Any] = set()
        self._workers: Optional[_Workers] = None  # reads uploads for a client that is not ours

    def _make(self) -> Any:
        return AsyncHttpClient(max_workers=self._max_workers)

    def _foreign_content(self, content: _Multipart, headers: Dict[str, str]) -> Any:
        self._workers = self._workers or _Workers(self._max_workers)
        return _AsyncBlocks(super()._foreign_content(content, headers), self._workers)

    async def send(self, client: Any, request: Any) -> Any:
        return await client.send(request, stream=False)

    async def sleep(self, seconds: float) -> None:
        loop = _running_loop()
        sleeper = loop.create_future()
        timer = loop.call_later(seconds, _settle, sleeper, None, None)
        self._sleepers.add(sleeper)
        try:
            await sleeper
        finally:
            self._sleepers.discard(sleeper)
            timer.cancel()

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        self.closed.set()
        client, self._client = self._client, None
        if client is not None and not self.supplied:
            client.close()
        if self._workers:
            self._workers.close()
        for sleeper in list(self._sleepers):
            sleeper.get_loop().call_soon_threadsafe(_settle, sleeper, None, None)


def _checked_client(name: str, client: Any, close: str) -> Any:
    missing = [method for method in ("build_request", "send", close) if not callable(getattr(client, method, None))]
    if client is not None and missing:
        raise ArgumentTypeError.about(name, "must have the methods build_request, send and %s; %s is missing" % (close, missing[0]))
    return client


class _Blocks:
    """An upload's blocks as plain bytes, which is what a client of yours expects."""

    def __init__(self, content: _Multipart) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(block) for block in self._content)


class _AsyncBlocks:
    """The same for an event loop: each block is read in a thread."""

    def __init__(self, blocks: _Blocks, workers: _Workers) -> None:
        self._blocks = blocks
        self._workers = workers

    async def __aiter__(self) -> Any:
        blocks = iter(self._blocks)
        while True:
            block = await self._workers.run(lambda: next(blocks, None), None)
            if block is None:
                return
            yield block


async def _perform(call: _Call, half: Any) -> Any:
    """One call: attempts until there is an answer to decode or an error to raise."""
    started = half.monotonic()
    try:
        client, request = half.build(call)
        while True:
            call.attempts += 1
            attempt_started = half.monotonic()
            _log_request(call, request)
            outcome: Any
            try:
                outcome = await half.send(client, request)
                if outcome is None:
                    raise NoResponseError()
            except Exception as error:
                outcome = error
                delay = _next_delay(call, error, half, started)
                _log_outcome(call, error, half.monotonic() - attempt_started, delay)
                if delay is None:
                    raise
            else:
                delay = _next_delay(call, outcome, half, started)
                _log_outcome(call, outcome, half.monotonic() - attempt_started, delay)
                if delay is None:
                    return _decode(call.operation, outcome)
            del outcome
            await half.sleep(delay)
    except AerostackError as error:
        _annotate(error, call, half.wall())
        raise


def _next_delay(call: _Call, outcome: Any, half: Any, started: float) -> Optional[float]:
    if isinstance(outcome, Exception):
        kind = _error_kind(outcome)
        call.maybe_processed |= kind is None or not kind.never_sent
    else:
        call.maybe_processed |= not (400 <= outcome.status_code < 500 or outcome.status_code == 503)
    if call.retries is None:
        return None
    delay = call.retries.delay_seconds(call, outcome, half.monotonic() - started, half.wall())
    return None if half.closed.is_set() else delay


def _annotate(error: AerostackError, call: _Call, wall_seconds: float) -> None:
    """Tell an error what is known about the call."""
    error.request_id = call.request_id
    error.attempts = call.attempts
    error.maybe_processed = call.maybe_processed
    error.retry_after = _retry_after_seconds(error, wall_seconds)
    if isinstance(error, RequestError) and error.connection_lost and call.maybe_processed:
        error.message += "; the request may have been processed"
    if isinstance(error, (RequestError, SDKBaseError)):
        if not getattr(call.content, "repeatable", True) and call.retries is not None:
            error.message += "; not tried again, for the upload's source cannot be read twice"
        for secret in call.secrets:
            error.message = error.message.replace(secret, "***")
        error.args = (error.message,)


# ---- Transport: one attempt, the only place that opens a socket ------------------------------------------------------


class _Deadline:
    """A moment on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._seconds = seconds

    def left(self, error_type: Type[TimeoutException], doing: str) -> Optional[float]:
        """The seconds left, None for no limit; raises the error when there are none."""
        if self._at == _FOREVER:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise error_type("no answer within %g s: timed out while %s" % (self._seconds, doing))
        return left


class _Handler(urllib.request.BaseHandler):
    """urllib's way in: http and https over pooled connections."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    def http_open(self, request: Any) -> Any:
        return self._pool.exchange(request)

    https_open = http_open


class _Pool:
    """Kept connections. Its state changes only under the lock; sockets are touched only outside it."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self, max_connections: int, max_response_bytes: int, proxies: _Proxies,
                 ssl_context: Optional[ssl.SSLContext]) -> None:
        self._max_connections = max_connections
        self._max_response_bytes = max_response_bytes
        self._proxies = proxies
        self._ssl_context = ssl_context
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: List[_Connection] = []  # the one used last is last
        self._active = 0
        self._waiters: List[threading.Event] = []

    def counts(self) -> Tuple[int, int]:
        return self._active, len(self._idle)

    def exchange(self, request: Request) -> Response:
        connection = self._take(request)
        try:
            return connection.exchange(request, self._max_response_bytes)
        except BaseException:
            connection.close()
            raise
        finally:
            if request.cancellation:
                request.cancellation.watch(None)
            self._give_back(connection)

    def _take(self, request: Request) -> _Connection:
        """A kept connection that is still good, or a new one when its turn has come."""
        key = (request.type, request.host)
        if self._pid != os.getpid():  # a fork: its parent's connections and locks are not ours (bpo-6721)
            inherited = self._idle
            self._reset()
            for connection in inherited:
                connection.close()
        while True:
            turn = None
            surplus: Optional[_Connection] = None
            with self._lock:
                if self._closed:
                    raise ClosedError("the client is closed")
                kept = self._pop_idle(key)
                if kept is None and self._active + len(self._idle) >= self._max_connections:
                    if self._idle:
                        surplus = self._idle.pop(0)  # for another server; this call needs the place
                    else:
                        turn = threading.Event()
                        self._waiters.append(turn)
                if turn is None:
                    self._active += 1
            if surplus is not None:
                surplus.close()
            if turn is not None:
                self._await_turn(turn, request)
            elif kept is None:
                return self._connection(key)
            elif kept.is_usable(self.monotonic(), self.wall()):
                return kept
            else:
                kept.close()
                self._give_back(kept)

    def _pop_idle(self, key: Tuple[str, str]) -> Optional[_Connection]:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].key == key:
                return self._idle.pop(index)
        return None

    def _await_turn(self, turn: threading.Event, request: Request) -> None:
        try:
            if request.cancellation:
                request.cancellation.watch(turn.set)
            turn.wait(request.deadline.left(PoolTimeout, "waiting for one of max_connections=%d" % self._max_connections))
        finally:
            with self._lock:
                if turn in self._waiters:
                    self._waiters.remove(turn)
                elif self._waiters:  # woken, perhaps too late: pass it on
                    self._waiters.pop(0).set()

    def _connection(self, key: Tuple[str, str]) -> _Connection:
        try:
            return _Connection(key, self._proxies, self.ssl_context)
        except BaseException:
            with self._lock:
                self._active -= 1
            raise

    def _give_back(self, connection: _Connection) -> None:
        connection.idle_since = self.monotonic(), self.wall()
        if connection.pid != os.getpid():
            return
        with self._lock:
            self._active -= 1
            if not self._closed and connection.sock is not None:
                self._idle.append(connection)
                connection = None  # type: ignore
            if self._waiters:
                self._waiters.pop(0).set()
        if connection is not None:
            connection.close()

    def ssl_context(self) -> ssl.SSLContext:
        """Made when the first https connection needs it, once: reading the trust store takes 10 ms."""
        with self._lock:
            if self._ssl_context is None:
                self._ssl_context = _default_ssl_context()
            return self._ssl_context

    def close(self) -> None:
        self._closed = True
        with self._lock:
            idle, self._idle = self._idle, []
            waiters, self._waiters = self._waiters, []
        for connection in idle:
            connection.close()
        for waiter in waiters:
            waiter.set()


def _default_ssl_context() -> ssl.SSLContext:
    """The system's trust store, or what the usual variables name; TLS 1.2 at least."""
    import ssl

    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name) and not os.path.exists(os.environ[name]):
            raise _permanent(ConnectError("%s names %r, which does not exist" % (name, os.environ[name])))
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or None
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        bundle = None  # OpenSSL reads these by itself
    try:
        folder = bundle if bundle and os.path.isdir(bundle) else None
        context = ssl.create_default_context(cafile=None if folder else bundle, capath=folder)
    except OSError as error:
        raise _permanent(ConnectError("the CA file %r cannot be used: %s" % (bundle, error))) from error
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)  # 3.7 to 3.9 still start at TLS 1.0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _permanent(error: RequestError) -> RequestError:
    error.permanent = True
    return error


class _Proxies:
    """Which proxy, if any, leads to a server."""

    def __init__(self, proxy: Union[str, Literal[False], None]) -> None:
        if proxy is not None and proxy is not False:
            _parse_proxy(proxy, "proxy")
        self._proxy = proxy

    def find(self, scheme: str, host: str, port: int) -> Optional[Tuple[str, int, str, str]]:
        """(host, port, authorization, shown URL) of the proxy; raises UnsupportedProtocol when it is no http proxy."""
        if self._proxy is not None:
            return _parse_proxy(self._proxy, "proxy") if self._proxy else None
        found = urllib.request.getproxies_environment()  # lower case first; HTTP_PROXY is not believed under CGI
        name = scheme if scheme in found else "all"
        if name not in found or _bypasses_proxy(found.get("no", ""), host, port):
            return None
        return _parse_proxy(found[name], "%s_PROXY" % name.upper())


def _parse_proxy(url: Any, source: str) -> Tuple[str, int, str, str]:
    if not isinstance(url, str):
        raise ArgumentTypeError.about("proxy", 'must be a URL such as "http://proxy:3128", or False for none')
    url = url.strip() if "://" in url else "http://" + url.strip()
    try:
        if not url.lower().startswith("http://"):
            raise UnsupportedProtocol("must be http://host:port; no other kind of proxy is supported")
        bare, authorization = _split_credentials(_check_request_url(url))
    except UnsupportedProtocol as error:
        raise UnsupportedProtocol("the proxy that %s names, %s, %s" % (source, _escaped(_shown_url(url)), error)) from None
    host, port = _host_and_port(bare.partition("://")[2].partition("/")[0], 80)
    return host, port, authorization, _shown_url(url)


def _host_and_port(authority: str, default_port: int) -> Tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    return host.strip("[]"), int(port or default_port)


def _bypasses_proxy(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY names a host: "*", a domain with all below it, host:port, an address or a range of them."""
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, suffix = entry.rpartition(":")
        if colon and suffix.isdigit() and (name.startswith("[") or ":" not in name):
            if int(suffix) != port:
                continue
            entry = name
        entry = entry.strip("[]").rstrip(".")
        domain = entry[2:] if entry.startswith("*.") else entry.lstrip(".")
        if domain and (host == domain or host.endswith("." + domain)) or _in_range(host, entry):
            return True
    return False


def _in_range(host: str, entry: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host.partition("%")[0]) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # not addresses: what cannot be parsed never matches
        return False


class _Connection(http.client.HTTPConnection):
    """One connection, for one exchange at a time: every wait ends at the request's deadline, nothing read is believed."""

    def __init__(self, key: Tuple[str, str], proxies: _Proxies, ssl_context: Callable[[], ssl.SSLContext]) -> None:
        host, port = _host_and_port(key[1], 443 if key[0] == "https" else 80)
        super().__init__(host, port)  # which refuses hosts with control characters (CVE-2019-18348)
        self.key = key
        self.pid = os.getpid()
        self.idle_since = (0.0, 0.0)
        self.exchanges = 0
        self._proxy = proxies.find(key[0], host, port)
        self._make_ssl_context = ssl_context if key[0] == "https" else None
        self._buffer = b""  # received, not yet read
        self._max_idle_seconds: float = _MAX_IDLE_SECONDS

    def is_usable(self, monotonic: float, wall: float) -> bool:
        """Whether an idle connection may be used: not too old by either clock (a frozen Lambda stops the first), not
        closed by the server, and without bytes that nobody asked for."""
        if not 0 <= monotonic - self.idle_since[0] <= self._max_idle_seconds or not -1 <= wall - self.idle_since[1] <= self._max_idle_seconds:
            return False
        if self._buffer or getattr(self.sock, "pending", int)():
            return False
        try:
            self.sock.settimeout(0)
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)  # below TLS
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def exchange(self, request: Request, max_response_bytes: int) -> Response:
        """Send a request and read its response. The connection is closed unless it may be used again."""
        self._request = request
        self._answered = False
        reused = self.exchanges > 0
        self.exchanges += 1
        try:
            if self.sock is None:
                self.connect()
            if request.cancellation:
                request.cancellation.watch(self._wake)
            complete = self._write(request)
            response, reusable = self._read(request, max_response_bytes)
        except RequestError as error:
            error.request = request
            error.reused_connection = reused and error.connection_lost and not self._answered
            raise
        if not (complete and reusable):
            self.close()
        return response

    def close(self) -> None:
        self._buffer = b""
        super().close()

    def _wake(self) -> None:
        """End whatever another thread waits for: shutdown does, close does not (python/cpython#111358)."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except (OSError, TypeError):
            pass

    # Connecting

    def connect(self) -> None:
        """Resolve, connect, pass the proxy, shake hands: all before the deadline."""
        deadline, cancellation = self._request.deadline, self._request.cancellation
        proxy, target = self._proxy, "%s:%d" % (self.host, self.port)
        host, port = proxy[:2] if proxy else (self.host, self.port)
        try:
            addresses = _resolve(host, port, deadline, cancellation)
            self.sock = _dial(addresses, deadline, cancellation)
        except (OSError, UnicodeError) as error:
            if isinstance(error, AerostackError):
                raise
            if proxy:
                raise ProxyError("cannot reach the proxy %s: %s" % (proxy[3], error)) from error
            raise ConnectError("cannot connect to %s: %s" % (target, error)) from error
        if cancellation:
            cancellation.watch(self._wake)
        _set_socket_options(self.sock)
        if self._make_ssl_context is not None:
            if proxy:
                self._open_tunnel(proxy)
            self._shake_hands(self._make_ssl_context(), target)

    def _open_tunnel(self, proxy: Tuple[str, int, str, str]) -> None:
        """CONNECT (RFC 9110, 9.3.6), with a Host header on every Python (gh-66897) and any 2xx taken as a yes."""
        authority = "%s:%d" % ("[%s]" % self.host if ":" in self.host else self.host, self.port)
        lines = ["CONNECT %s HTTP/1.1" % authority, "Host: " + authority]
        if proxy[2]:
            lines.append("Proxy-Authorization: " + proxy[2])
        try:
            self._send("\r\n".join([*lines, "", ""]).encode())
            _, status, reason, _ = self._read_final_head()
        except TimeoutException as error:
            raise ConnectTimeout(error.message) from error
        except TransportError as error:
            raise ProxyError("the proxy %s opened no tunnel to %s: %s" % (proxy[3], authority, error)) from error
        if not 200 <= status < 300 or self._buffer:
            why = "answered %d %s" % (status, _escaped(reason)) if not 200 <= status < 300 else "sent bytes ahead of TLS"
            refused = ProxyError("the proxy %s opened no tunnel to %s: it %s" % (proxy[3], authority, why))
            refused.status_code = status
            refused.permanent = 400 <= status < 500
            raise refused

    def _shake_hands(self, context: ssl.SSLContext, target: str) -> None:
        import ssl

        timeout = self._request.deadline.left(ConnectTimeout, "shaking hands with " + target)
        try:
            self.sock.settimeout(timeout)
            self.sock = context.wrap_socket(  # a cut connection is an error, not an end
                self.sock, server_hostname=self.host, do_handshake_on_connect=False, suppress_ragged_eofs=False)  # fmt: skip
            self.sock.settimeout(self._request.deadline.left(ConnectTimeout, "shaking hands with " + target))
            self.sock.do_handshake()
        except socket.timeout as error:
            if isinstance(error, AerostackError):
                raise
            raise ConnectTimeout("timed out while shaking hands with " + target) from error
        except ssl.SSLCertVerificationError as error:
            raise _permanent(ConnectError("the certificate of %s is not trusted: %s; a CA of your own goes into SSL_CERT_FILE"
                                          " or HttpClient(ssl_context=...)" % (target, error.verify_message))) from error  # fmt: skip
        except (OSError, ValueError) as error:
            hint = " (it does not seem to speak TLS)" if "WRONG_VERSION_NUMBER" in str(error) else ""
            failed = ConnectError("no TLS with %s: %s%s" % (target, error, hint))
            failed.permanent = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
            raise failed from error

    # Writing

    def _write(self, request: Request) -> bool:
        """Send a request; False if the server answered before all of it was sent."""
        content = request.content
        if isinstance(content, (bytes, bytearray)):
            try:
                self._send(self._head(request, len(content)) + content)
            except WriteError:
                if not self._has_answer():
                    raise
                return False
            return True
        length = content.measure() if isinstance(content, _Multipart) else None
        chunked = length is None
        head, sent = self._head(request, length), 0
        for block in content:
            sent += len(block)
            framed = b"%x\r\n%b\r\n" % (len(block), block) if chunked else block
            if head:
                framed, head = b"".join([head, framed]), b""
            elif self._has_answer():
                return False
            try:
                self._send(framed)
            except WriteError:
                if not self._has_answer():
                    raise
                return False
        self._send(head + b"0\r\n\r\n" * chunked)
        return True

    def _head(self, request: Request, length: Optional[int]) -> bytes:
        """The request line and headers: those given, and what this connection needs."""
        target = request.selector or "/"
        if not target.startswith("/"):
            target = "/" + target
        headers = request.headers
        lines = []
        if self._proxy and self._make_ssl_context is None:
            target = "http://%s%s" % (request.host, target)
            if self._proxy[2]:
                lines.append("Proxy-Authorization: " + self._proxy[2])
        lines.append("Transfer-Encoding: chunked" if length is None else "Content-Length: %d" % length)
        for name, value in [*headers._entries.values(), *request.unredirected_hdrs.items()]:
            if name.lower() not in _FRAMING_HEADERS:
                lines.append("%s: %s" % (name, value))
        host = headers.get("host", request.host)
        return "\r\n".join(["%s %s HTTP/1.1" % (request.get_method(), target), "Host: " + host, *lines, "", ""]).encode()

    def _send(self, data: Buffer) -> None:
        view = memoryview(data)  # whose repr in a traceback shows no key
        while view:
            timeout = self._request.deadline.left(WriteTimeout, "sending the request")
            try:
                self.sock.settimeout(timeout)
                view = view[self.sock.send(view) :]
            except socket.timeout as error:
                raise WriteTimeout("timed out while sending the request") from error
            except OSError as error:
                raise WriteError("the connection broke while the request was sent: %s" % error) from error

    def _has_answer(self) -> bool:
        """Whether a final answer, or the connection's end, is here while the request still goes out."""
        try:
            self.sock.settimeout(0)
            data = self.sock.recv(_RECEIVE_BYTES)
            self._buffer += data
            if not data:
                return True
        except OSError as error:
            if not isinstance(error, BlockingIOError) and type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError"):
                return bool(self._buffer)
        while True:
            end = _head_end(self._buffer, 0)
            if not end:
                return False
            if _parse_head(self._buffer[:end])[1] >= 200:
                return True
            self._buffer = self._buffer[end:]  # 100 Continue, 103 Early Hints

    # Reading

    def _read(self, request: Request, max_bytes: int) -> Tuple[Response, bool]:
        """The response, and whether the connection may be used again."""
        version, status, reason, headers = self._read_final_head()
        kind, length = _framing(request.get_method(), status, headers)
        limit = "the body is larger than max_response_bytes=%d" % max_bytes
        if length > max_bytes:
            raise RemoteProtocolError(limit)
        if kind == "length":
            content = self._read_exactly(length)
        elif kind == "chunked":
            content = self._read_chunked(max_bytes, limit)
        else:
            content = self._read_to_end(max_bytes, limit)
        content = _decompressed(content, headers.get("content-encoding", ""), max_bytes, limit)
        self._max_idle_seconds = _keep_alive_seconds(headers)
        reusable = kind != "close" and not self._buffer and _keeps_alive(version, headers)
        return Response(status, headers, content, request, reason, version), reusable

    def _read_final_head(self) -> Tuple[str, int, str, Headers]:
        for _ in range(_MAX_INTERIM_RESPONSES + 1):
            head = _parse_head(self._read_head())
            if head[1] >= 200:
                return head
            if head[1] == 101:
                raise RemoteProtocolError("the server switched protocols unasked")
        raise RemoteProtocolError("more than %d interim responses" % _MAX_INTERIM_RESPONSES)

    def _read_head(self) -> bytes:
        searched = 0
        while True:
            end = _head_end(self._buffer, searched)
            if end > _MAX_HEAD_BYTES or not end and len(self._buffer) > _MAX_HEAD_BYTES:
                raise RemoteProtocolError("the response's headers are larger than %d bytes" % _MAX_HEAD_BYTES)
            if end:
                head, self._buffer = self._buffer[:end], self._buffer[end:]
                return head
            if not b"HTTP/1.".startswith(self._buffer[:7]):
                raise RemoteProtocolError("the answer is not HTTP/1.1: " + _excerpt(self._buffer))
            searched = max(0, len(self._buffer) - 2)
            data = self._receive()
            if not data:
                if self._buffer:
                    raise _lost(RemoteProtocolError("the connection was closed within the response's headers"))
                raise _lost(RemoteProtocolError("the server closed the connection without an answer"))
            self._buffer += data

    def _receive(self) -> bytes:
        """What comes next; b"" at the end."""
        timeout = self._request.deadline.left(ReadTimeout, "waiting for the response")
        try:
            self.sock.settimeout(timeout)
            data = self.sock.recv(_RECEIVE_BYTES)
        except socket.timeout as error:
            raise ReadTimeout("timed out while waiting for the response") from error
        except OSError as error:
            raise ReadError("the connection broke while the response was awaited: %s" % error) from error
        self._answered = self._answered or bool(data)
        return data

    def _read_exactly(self, length: int) -> bytes:
        if len(self._buffer) == length:  # the usual case: head and body came together
            content, self._buffer = self._buffer, b""
            return content
        parts, missing = [self._buffer[:length]], length - len(self._buffer)
        self._buffer = self._buffer[length:]
        while missing > 0:
            data = self._receive()
            if not data:
                raise _lost(RemoteProtocolError("the body was cut short: %d of %d bytes came" % (length - missing, length)))
            parts.append(data[:missing])
            self._buffer = data[missing:]
            missing -= len(data)
        return b"".join(parts)

    def _read_to_end(self, max_bytes: int, limit: str) -> bytes:
        parts, size = [self._buffer], len(self._buffer)
        self._buffer = b""
        while size <= max_bytes:
            data = self._receive()
            if not data:
                return b"".join(parts)
            parts.append(data)
            size += len(data)
        raise RemoteProtocolError(limit)

    def _read_chunked(self, max_bytes: int, limit: str) -> bytes:
        """RFC 9112, 7.1; extensions and trailers are read and dropped."""
        parts, total = [], 0
        while True:
            size = _chunk_size(self._read_line(total))
            total += size
            if total > max_bytes:
                raise RemoteProtocolError(limit)
            if not size:
                break
            data = self._read_exactly(size + 2)
            if data[-2:] != b"\r\n":
                raise RemoteProtocolError("a chunk does not end where its size says")
            parts.append(data[:-2])
        trailers = 0
        while True:
            line = self._read_line(total)
            if not line:
                return b"".join(parts)
            trailers += len(line) + 2
            if trailers > _MAX_HEAD_BYTES:
                raise RemoteProtocolError("the trailers are larger than %d bytes" % _MAX_HEAD_BYTES)

    def _read_line(self, received: int) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise RemoteProtocolError("a line of the chunked body is larger than %d bytes" % _MAX_LINE_BYTES)
            data = self._receive()
            if not data:
                raise _lost(RemoteProtocolError("the chunked body was cut short after %d bytes" % received))
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line


_RECEIVE_BYTES = 64 * 1024
_MAX_LINE_BYTES = 8 * 1024
_FRAMING_HEADERS = frozenset(["content-length", "host", "transfer-encoding"])  # said by the connection itself


def _lost(error: RequestError) -> RequestError:
    error.connection_lost = True
    return error


def _resolve(host: str, port: int, deadline: _Deadline, cancellation: Optional[_Cancellation]) -> List[Any]:
    """The addresses of a host. Asking a name server cannot be interrupted, so it is done in a thread of its own."""
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except socket.gaierror:
        lookup = _Background(lambda: socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
    if cancellation:
        cancellation.watch(lookup.done.set)
    doing = "looking up " + host
    if not lookup.done.wait(deadline.left(ConnectTimeout, doing)):
        raise ConnectTimeout("timed out while " + doing)
    addresses: List[Any] = lookup.result()
    return addresses


def _dial(addresses: List[Any], deadline: _Deadline, cancellation: Optional[_Cancellation]) -> socket.socket:
    """The first address to accept a connection: the next is tried when one fails, or is silent for 250 ms (RFC 8305)."""
    waiting = list(addresses)
    failure = OSError("the name has no address")
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                if waiting:
                    family, kind, protocol, _, address = waiting.pop(0)
                    try:
                        sock = socket.socket(family, kind, protocol)
                        selector.register(sock, selectors.EVENT_WRITE)
                        sock.setblocking(False)
                        code = sock.connect_ex(address)
                        if code not in _CONNECTING:
                            selector.unregister(sock)
                            sock.close()
                            raise OSError(code, os.strerror(code))
                    except OSError as error:
                        failure = error
                        continue
                if cancellation:
                    cancellation.watch(lambda: [key.fileobj.shutdown(socket.SHUT_RDWR) for key in selector.get_map().values()])
                left = deadline.left(ConnectTimeout, "connecting")
                patience = min(left or _NEXT_ADDRESS_SECONDS, _NEXT_ADDRESS_SECONDS) if waiting else left
                for key, _ in selector.select(patience):
                    sock = key.fileobj  # type: ignore
                    selector.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock
                    sock.close()
                    failure = OSError(code, os.strerror(code))
            raise failure
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore


_CONNECTING = frozenset([0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY])


def _set_socket_options(sock: socket.socket) -> None:
    """No waiting for more to send; and probes before a NAT or a load balancer forgets an idle connection."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", 45), ("TCP_KEEPALIVE", 45), ("TCP_KEEPINTVL", 15)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


def _redirect_target(response: Response) -> Optional[str]:
    """Where to send the same request again: 307 and 308 (RFC 9110, 15.4.8) within one origin. Else None."""
    if response.status_code not in (307, 308) or "location" not in response.headers or response.request is None:
        return None
    target = urllib.parse.urljoin(response.request.url, response.headers["location"]).partition("#")[0]
    try:
        target = _check_request_url(target)
    except UnsupportedProtocol:
        return None
    return target if _origin(target) == _origin(response.request.url) else None


def _origin(url: str) -> Tuple[str, str, int]:
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, 1)[0]
    return (scheme, *_host_and_port(authority.lower(), 443 if scheme == "https" else 80))


def _redirected(request: Request, target: str) -> Request:
    again = Request(request.get_method(), target, request.headers, request.content, request.timeout_seconds)
    again.deadline, again.cancellation = request.deadline, request.cancellation
    return again


# ---- Decode: bytes -> response, response -> model or error: pure -----------------------------------------------------

_HEADER_LINES = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\0\r\n]*?)[ \t]*\r?\n")


def _head_end(data: bytes, start: int) -> int:
    """Where a response's head ends; 0 if it does not yet. A bare LF may end a line (RFC 9112, 2.2)."""
    ends = [(data.find(mark, start), len(mark)) for mark in (b"\n\r\n", b"\n\n")]
    return min((at + size for at, size in ends if at >= 0), default=0)


def _parse_head(head: bytes) -> Tuple[str, int, str, Headers]:
    """(version, status, reason, headers) of a response's head (RFC 9112, 4 and 5); RemoteProtocolError if it is none."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    line, _, rest = text.partition("\n")
    match = re.fullmatch(r"(HTTP/1\.[01]) ([1-9][0-9][0-9])(?: ([^\0\r]*))?\r?", line)
    if not match:
        raise RemoteProtocolError("the answer is not HTTP/1.1: " + _excerpt(head))
    version, status, reason = match.groups()
    if "\n " in text or "\n\t" in text:
        rest = re.sub(r"\r?\n[ \t]+", " ", rest)  # a folded line is one line (RFC 9112, 5.2)
    pairs, position = [], 0
    while True:
        field = _HEADER_LINES.match(rest, position)
        if not field:
            break
        pairs.append(field.groups())
        position = field.end()
    if rest[position:] not in ("\r\n", "\n"):  # http.client would stop here and hide the headers that follow
        raise RemoteProtocolError("a header line is malformed: " + _excerpt(rest[position:].encode()))
    return version, int(status), reason or "", Headers(pairs)


def _framing(method: str, status: int, headers: Headers) -> Tuple[str, int]:
    """How the body ends, by RFC 9112, 6.3: ("length", n), ("chunked", 0) or ("close", 0)."""
    if method == "HEAD" or status in (204, 304):
        return "length", 0
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked":
            raise RemoteProtocolError("a transfer coding that was not asked for: " + _excerpt(coding.encode()))
        return "chunked", 0
    if length is None:
        return "close", 0
    values = {value.strip() for value in length.split(",")}
    value = values.pop()
    if values or not value.isascii() or not value.isdigit() or len(value) > 18:
        raise RemoteProtocolError("the Content-Length is no number: " + _excerpt(length.encode()))
    return "length", int(value)


def _keeps_alive(version: str, headers: Headers) -> bool:
    """Whether the server lets the connection be used again (RFC 9112, 9.3)."""
    if version != "HTTP/1.1" or "transfer-encoding" in headers and "content-length" in headers:
        return False
    connection = headers.get("connection")
    return connection is None or "close" not in [token.strip() for token in connection.lower().split(",")]


def _keep_alive_seconds(headers: Headers) -> float:
    """How long to keep an idle connection: a second less than `Keep-Alive: timeout=` says."""
    if "keep-alive" not in headers:
        return _MAX_IDLE_SECONDS
    match = re.search(r"(?i)\btimeout\s*=\s*([0-9]{1,6})", headers["keep-alive"])
    return min(_MAX_IDLE_SECONDS, int(match.group(1)) - 1) if match else _MAX_IDLE_SECONDS


def _chunk_size(line: bytes) -> int:
    """The size that a chunk's first line says. int(line, 16) would take 0x19, +19 and 1_9, too."""
    size = line.partition(b";")[0].rstrip(b" \t")
    if not 0 < len(size) <= 16 or not _HEX_DIGITS.issuperset(size) or b"\n" in line or b"\r" in line:
        raise RemoteProtocolError("a chunk's size is no number: " + _excerpt(line))
    return int(size, 16)


_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")


def _decompressed(content: bytes, encodings: str, max_bytes: int, limit: str) -> bytes:
    """A body without its gzip or deflate coding; a coding that was not asked for stays as it is."""
    codings = [coding.strip().lower() for coding in encodings.split(",") if coding.strip()]
    for coding in reversed(codings):
        if coding not in ("gzip", "deflate") or not content:
            return content
        content = _inflated(content, coding, max_bytes, limit)
    return content


def _inflated(content: bytes, coding: str, max_bytes: int, limit: str) -> bytes:
    import zlib

    # "deflate" means zlib's format (RFC 9110, 8.4.1.2), though some servers send it bare, without zlib's two bytes
    bare = coding == "deflate" and (len(content) < 2 or content[0] & 15 != 8 or (content[0] << 8 | content[1]) % 31)
    parts, size = [], 0
    while content:
        inflater = zlib.decompressobj(31 if coding == "gzip" else -15 if bare else 15)
        try:
            while not inflater.eof:
                part = inflater.decompress(content, max_bytes - size + 1)
                size += len(part)
                if size > max_bytes:
                    raise RemoteProtocolError(limit + " when decompressed")
                parts.append(part)
                content = inflater.unconsumed_tail
                if not content and not inflater.eof:
                    raise DecodingError("the %s body is cut short" % coding)
        except zlib.error as error:
            raise DecodingError("the %s body is broken: %s" % (coding, error)) from error
        content = inflater.unused_data if coding == "gzip" else b""  # a gzip file may have several members
        if content and not content.strip(b"\0"):
            break
    return b"".join(parts)


def _decode(operation: Operation, response: Any) -> Any:
    """What the caller gets for a response, from any client: the operation's model, or an error."""
    status = response.status_code
    if 200 <= status < 300:
        try:
            value = _parse_json(_body(response)) if _body(response).strip() else {}
        except ValueError as error:
            if _is_json_type(response, exactly=True):
                raise ResponseValidationError("Response validation failed", response, error) from error
            raise SDKError("Unexpected response received", response) from None
        try:
            return _validated(operation.response_type, value, operation.response_type.__name__, ("body",))
        except ValidationError as error:
            raise ResponseValidationError("Response validation failed", response, error) from error
    data = _error_data(response) if status >= 400 else None
    if data is not None and status in operation.structured_errors and _is_json_type(response, exactly=True):
        raise ErrorResponse(data, response)
    if 400 <= status < 600:
        error = SDKError("API error occurred", response)
        error.data = data
        raise error
    location = response.headers.get("location")
    if location and 300 <= status < 400:
        raise SDKError("Unexpected response received, a redirect to %s" % _shown_url(location), response)
    raise SDKError("Unexpected response received", response)


def _body(response: Any) -> bytes:
    """The body's bytes; a client of yours may have only the text."""
    content = getattr(response, "content", None)
    return bytes(content) if isinstance(content, (bytes, bytearray)) else str(response.text).encode("utf-8", "surrogatepass")


def _is_json_type(response: Any, exactly: bool) -> bool:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _error_data(response: Any) -> Optional[ErrorResponseData]:
    """The API's {code, message, details}, if the body is that."""
    try:
        return ErrorResponseData.model_validate(_parse_json(_body(response)))
    except ValueError:
        return None


def _parse_json(data: bytes) -> Any:
    """JSON by RFC 8259, which has no NaN and is UTF-8; a BOM passes. ValueError, never RecursionError."""
    try:
        return json.loads(data[3:] if data.startswith(b"\xef\xbb\xbf") else data.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError("the JSON is not UTF-8, at byte %d" % error.start) from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("%s is not JSON" % name)


# ---- Logs: what may be shown -----------------------------------------------------------------------------------------

# A JSON member, or a query's or header's, whose name says that its value is nobody's business.
_SECRET_MEMBERS = re.compile(
    r"""(?i)("[^"\\]{0,40}(?:password|passwd|secret|token|api_?key|authorization|cookie)[^"\\]{0,40}"\s*:\s*)"(?:[^"\\]|\\.)*"?"""
)


def _default_logger() -> Optional[Logger]:
    """`logging.getLogger("aerostack_lite")` where it would say anything; a program that logs has imported logging."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    logger = logging.getLogger(_LOGGER_NAME)
    return logger if logger.isEnabledFor(logging.DEBUG) else None


def _log_request(call: _Call, request: Any) -> None:
    if call.logger is None:
        return
    body = call.content.decode() if isinstance(call.content, bytes) else "<streaming body>"
    call.logger.debug(
        "Request:\nMethod: POST\nURL: %s\nHeaders: %s\nBody: %s\nOperation: %s\nRequest-Id: %s\nAttempt: %d",
        _shown_url(call.url), _shown_headers(call.headers), _masked(body, call), call.operation.name, call.request_id,
        call.attempts)  # fmt: skip


def _log_outcome(call: _Call, outcome: Any, seconds: float, delay: Optional[float]) -> None:
    if call.logger is None:
        return
    ending = "\nOperation: %s\nRequest-Id: %s\nAttempt: %d\nMilliseconds: %.1f\nNext: %s"
    following = "attempt in %.3f s" % delay if delay is not None else "none"
    known = (call.operation.name, call.request_id, call.attempts, seconds * 1000, following)
    if isinstance(outcome, Exception):
        call.logger.debug("Request Exception: %s: %s" + ending, type(outcome).__name__, _masked(str(outcome), call), *known)
    else:
        call.logger.debug("Response:\nStatus Code: %s\nURL: %s\nHeaders: %s\nBody: %s" + ending, outcome.status_code,
                          _shown_url(call.url), _shown_headers(outcome.headers), _masked(outcome.text, call), *known)  # fmt: skip


def _shown_headers(headers: Any) -> Dict[str, str]:
    return {name: _escaped(str(value)) if name.lower() in _LOGGED_HEADERS else "***" for name, value in headers.items()}


def _masked(text: str, call: _Call) -> str:
    """A body or message without the secrets known from the call, nor what looks like one."""
    for secret in call.secrets:
        text = text.replace(secret, "***").replace(json.dumps(secret)[1:-1], "***")
    return _safe_text(text[:_MAX_ERROR_BODY_CHARS])


def _safe_text(text: str) -> str:
    """Text without secret members, and without control characters that could forge a log or drive a terminal."""
    text = _SECRET_MEMBERS.sub(r'\1"***"', text)
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in text)


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _excerpt(data: bytes) -> str:
    """The start of bytes that make no sense, fit to be shown."""
    return repr(bytes(data[:60]))[1:] + ("..." if len(data) > 60 else "")


# ---- Threads: the _async twins, the only place that knows threads and asyncio ----------------------------------------


class _Cancellation:
    """Ends, from another thread, whatever an attempt is blocked in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: Optional[Callable[[], object]] = None
        self.cancelled = False

    def watch(self, wake: Optional[Callable[[], object]]) -> None:
        """From now on `wake` ends the wait; None: there is no more to end."""
        with self._lock:
            self._wake = wake
            if self.cancelled and wake is not None:
                raise ReadError("the call was cancelled")

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            if self._wake is not None:
                self._wake()


class _Background:
    """One function in a daemon thread, which nobody needs to wait for."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.done = threading.Event()
        self._function = function
        self._value: Any = None
        self._error: Optional[BaseException] = OSError("the call was cancelled")
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._value, self._error = self._function(), None
        except BaseException as error:
            self._error = error
        self.done.set()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class _Workers:
    """At most `size` daemon threads, started when needed. ThreadPoolExecutor would hold up the exit until all are done
    (bpo-39812); these never do."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        from queue import SimpleQueue

        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._jobs: Any = SimpleQueue()
        self._threads = 0
        self._free = 0

    async def run(self, function: Callable[[], R], cancellation: Optional[_Cancellation]) -> R:
        """Await a function; if the wait is cancelled, so is what the function is blocked in."""
        import contextvars

        future = _running_loop().create_future()
        self._submit((contextvars.copy_context().run, function, future, cancellation))
        try:
            return await future  # type: ignore
        except BaseException:
            if cancellation is not None and not future.done() or future.cancelled():
                if cancellation is not None:
                    cancellation.cancel()
            raise

    def _submit(self, job: Any) -> None:
        if self._pid != os.getpid():  # a fork has none of its parent's threads
            self._reset()
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed")
            if self._free > 0:
                self._free -= 1
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=_work, args=(self._jobs, self._set_free), name="aerostack", daemon=True).start()
            self._jobs.put(job)

    def _set_free(self) -> None:
        with self._lock:
            self._free += 1

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = 0


def _work(jobs: Any, set_free: Callable[[], None]) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        run, function, future, cancellation = job
        value: Any = None
        failure: Optional[BaseException] = None
        try:
            if not (cancellation and cancellation.cancelled):
                value = run(function)
        except BaseException as error:
            failure = error
        set_free()
        try:
            future.get_loop().call_soon_threadsafe(_settle, future, value, failure)
        except RuntimeError:  # its loop is closed: nobody waits any more
            pass
        del job, run, function, future, cancellation, value, failure


def _settle(future: Any, value: Any, failure: Optional[BaseException]) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(value)
    else:
        future.set_exception(failure)


def _running_loop() -> Any:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("the _async operations need a running asyncio event loop; with trio, run the plain ones in"
                           " trio.to_thread.run_sync") from None  # fmt: skip


def _run(coroutine: Coroutine[object, object, R]) -> R:
    """The result of a coroutine that never waits for a loop: both halves go one way, and the blocking one blocks."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore
    raise RuntimeError("a blocking call was suspended")


def _finite(seconds: float) -> Optional[float]:
    return None if seconds == _FOREVER else seconds


# ---- Command line ----------------------------------------------------------------------------------------------------


def _main(arguments: Optional[List[str]] = None) -> int:
    """One operation from a shell. Exit: 0 done, 1 the API said no, 2 wrong usage, 3 no answer."""
    options = _argument_parser().parse_args(arguments)
    try:
        return _run_operation(options)
    except SDKBaseError as error:
        code = error.data.code if error.data else "status %d" % error.status_code
        return _fail(1, "%s: %s" % (getattr(code, "value", code), error.data.message if error.data else error), error)
    except (ValidationError, ClosedError) as error:
        return _fail(2, str(error), error)
    except AerostackError as error:
        return _fail(3, "%s: %s" % (type(error).__name__, error), error)
    except (OSError, json.JSONDecodeError) as error:
        return _fail(2, str(error), None)
    except KeyboardInterrupt:
        return 130


def _argument_parser() -> Any:
    import argparse

    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--server-url", metavar="URL", help="the server (default: AEROSTACK_SERVER_URL, else production)")
    common.add_argument("--local", action="store_true", help="the local server, %s" % SERVERS[1])
    common.add_argument("--key-file", metavar="FILE", help="a file with the API key (default: AEROSTACK_API_KEY, else asked)")
    common.add_argument("--timeout", metavar="SECONDS", type=float, help="for one attempt (default: 60)")
    common.add_argument("--retries", metavar="SECONDS", type=float, help="how long to try again, whatever the operation; 0: never")
    common.add_argument("--field", metavar="NAME", help="print only this field of the answer, text as it is")
    common.add_argument("--table", action="store_true", help="print rows as a table")
    common.add_argument("--verbose", action="store_true", help="log each attempt, without secrets, to standard error")
    parser = argparse.ArgumentParser(
        prog="aerostack_lite.py", parents=[common], description="The Aerostack Platform API from a shell.",
        epilog="A field is name=text, name:=JSON, name=@FILE or name=@- for standard input. Exit: 0 done, 1 the API said no, "
        "2 wrong usage, 3 no answer.")  # fmt: skip
    parser.add_argument("--version", action="version", version=_version_line())
    commands = parser.add_subparsers(metavar="OPERATION", dest="operation")
    commands.required = True
    for _, operation, sentence in operations():
        fields = ["  %-14s %s%s" % (f.name, _described(f.annotation), "" if f.default is _REQUIRED else ", optional")
                  for f in operation.request_type._fields()]  # fmt: skip
        command = commands.add_parser(
            operation.name, help=sentence, parents=[common], description=sentence,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="fields:\n%s\n\nexample:\n  %s %s" % ("\n".join(fields), operation.name, _EXAMPLES[operation.name]))  # fmt: skip
        command.add_argument("fields", nargs="*", metavar="name=value", help="the request's fields")
    return parser


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


def _described(annotation: str) -> str:
    for name, words in (("Content", "a file"), ("File", "a file: file=@PATH"), ("List", "a JSON list"), ("Dict", "a JSON object"),
                        ("Any", "any JSON"), ("int", "a whole number")):  # fmt: skip
        if name in annotation:
            return words
    return "text"


def _version_line() -> str:
    """The version, and the SHA-256 of this very file, to compare with the README's."""
    import hashlib

    try:
        source = __loader__.get_data(__file__)  # type: ignore  # from a zip, too
        return "aerostack_lite %s sha256:%s" % (__version__, hashlib.sha256(source).hexdigest())
    except (AttributeError, NameError, OSError):
        return "aerostack_lite " + __version__


def _run_operation(options: Any) -> int:
    service, operation, _ = next(found for found in operations() if found[1].name == options.operation)
    fields = dict(_parse_field(text, operation) for text in options.fields)
    settings: Dict[str, Any] = {"api_key_auth": _read_key(options)}
    if getattr(options, "local", False):
        settings["server_idx"] = 1
    if hasattr(options, "server_url"):
        settings["server_url"] = options.server_url
    if hasattr(options, "timeout"):
        settings["timeout_ms"] = options.timeout * 1000
    if hasattr(options, "retries"):
        backoff = BackoffStrategy(500, 8_000, 2, options.retries * 1000)
        settings["retry_config"] = RetryConfig("backoff", backoff, True) if options.retries else None
    if getattr(options, "verbose", False):
        settings["debug_logger"] = _StderrLogger()
    if operation.name == "storage_upload" and sys.stderr.isatty():
        fields["progress"] = _show_progress
    with SDK(**settings) as sdk:
        result = getattr(getattr(sdk, service), operation.name)(**fields)
    _print_result(result.model_dump(by_alias=False, mode="json"), options)
    return 0


def _parse_field(text: str, operation: Operation) -> Tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValidationError.about(text, "is not name=value")
    if name.endswith(":"):
        try:
            return name[:-1], json.loads(value)
        except ValueError as error:
            raise ValidationError.about(name[:-1], "is not JSON: %s" % error) from None
    if not value.startswith("@"):
        return name, value
    if name == "file" and operation.name == "storage_upload":
        from pathlib import Path

        return name, sys.stdin.buffer if value == "@-" else Path(value[1:])
    if value == "@-":
        return name, sys.stdin.read()
    with open(value[1:], encoding="utf-8") as reader:
        content = reader.read()
    return name, content.rstrip("\r\n") if name == "password" else content


def _read_key(options: Any) -> Optional[str]:
    if hasattr(options, "key_file"):
        with open(options.key_file, encoding="utf-8") as reader:
            return reader.read()
    if os.environ.get("AEROSTACK_API_KEY") or not sys.stdin.isatty():
        return None
    import getpass

    return getpass.getpass("Aerostack API key: ")


def _print_result(result: Dict[str, Any], options: Any) -> None:
    shown: Any = result
    if hasattr(options, "field"):
        if options.field not in result:
            raise ValidationError.about("--field", "the answer has no %r; it has %s" % (options.field, ", ".join(result) or "no fields"))
        shown = result[options.field]
    if getattr(options, "table", False):
        rows = shown.get("results") if isinstance(shown, dict) else shown
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            print(_table(rows))
            return
    if isinstance(shown, str) and hasattr(options, "field"):
        print(shown)
    else:
        print(json.dumps(shown, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def _table(rows: List[Dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: Any) -> str:
    return "" if value is None else _escaped(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _show_progress(sent: int, total: Optional[int]) -> None:
    filled = 30 * sent // total if total else 0
    known = "[%s] %3d %%" % (("#" * filled).ljust(30, "."), 100 * sent // total) if total else ""
    end = "\n" if sent == total else ""
    sys.stderr.write("\r%s %.1f MiB%s" % (known, sent / 2**20, end))
    sys.stderr.flush()


class _StderrLogger:
    def debug(self, message: str, *values: Any, **_: Any) -> None:
        print(message % values, file=sys.stderr)


def _fail(status: int, message: str, error: Optional[AerostackError]) -> int:
    known = " (request %s, %d attempt%s)" % (error.request_id, error.attempts, "s" * (error.attempts > 1)) if error and error.attempts else ""
    print("aerostack_lite: " + _escaped(" ".join(message.split())) + known, file=sys.stderr)
    return status


# ---- Official names: the import paths of the official SDK ------------------------------------------------------------
# `from aerostack.utils import RetryConfig` works, whatever this file is called and in whatever package it lies.

if not TYPE_CHECKING:
    for _name in [cls.__name__ for cls in (*BaseModel.__subclasses__(), *_RequestModel.__subclasses__())]:
        globals()[_name + "TypedDict"] = dict  # what a TypedDict is at run time

    class Logger:
        """What `debug_logger=` needs: a `debug(message, *args)`."""

        def debug(self, msg, *args, **kwargs):
            pass

    Nullable = OptionalNullable = None


def get_default_logger() -> Logger:
    """A logger that says nothing."""
    return Logger()  # type: ignore


class models:
    """Requests and responses."""

    AiChatRequestBody: TypeAlias = AiChatRequestBody
    AiChatRequestBodyTypedDict: TypeAlias = AiChatRequestBodyTypedDict
    AiChatResponseBody: TypeAlias = AiChatResponseBody
    AiChatResponseBodyTypedDict: TypeAlias = AiChatResponseBodyTypedDict
    AuthResponse: TypeAlias = AuthResponse
    AuthResponseTypedDict: TypeAlias = AuthResponseTypedDict
    AuthSigninRequestBody: TypeAlias = AuthSigninRequestBody
    AuthSigninRequestBodyTypedDict: TypeAlias = AuthSigninRequestBodyTypedDict
    AuthSignupRequestBody: TypeAlias = AuthSignupRequestBody
    AuthSignupRequestBodyTypedDict: TypeAlias = AuthSignupRequestBodyTypedDict
    CacheGetRequestBody: TypeAlias = CacheGetRequestBody
    CacheGetRequestBodyTypedDict: TypeAlias = CacheGetRequestBodyTypedDict
    CacheGetResponseBody: TypeAlias = CacheGetResponseBody
    CacheGetResponseBodyTypedDict: TypeAlias = CacheGetResponseBodyTypedDict
    CacheSetRequestBody: TypeAlias = CacheSetRequestBody
    CacheSetRequestBodyTypedDict: TypeAlias = CacheSetRequestBodyTypedDict
    CacheSetResponseBody: TypeAlias = CacheSetResponseBody
    CacheSetResponseBodyTypedDict: TypeAlias = CacheSetResponseBodyTypedDict
    DbQueryRequestBody: TypeAlias = DbQueryRequestBody
    DbQueryRequestBodyTypedDict: TypeAlias = DbQueryRequestBodyTypedDict
    DbQueryResult: TypeAlias = DbQueryResult
    DbQueryResultTypedDict: TypeAlias = DbQueryResultTypedDict
    File: TypeAlias = File
    FileTypedDict: TypeAlias = FileTypedDict
    Messages: TypeAlias = Messages
    MessagesTypedDict: TypeAlias = MessagesTypedDict
    QueueEnqueueRequestBody: TypeAlias = QueueEnqueueRequestBody
    QueueEnqueueRequestBodyTypedDict: TypeAlias = QueueEnqueueRequestBodyTypedDict
    QueueEnqueueResponseBody: TypeAlias = QueueEnqueueResponseBody
    QueueEnqueueResponseBodyTypedDict: TypeAlias = QueueEnqueueResponseBodyTypedDict
    Role: TypeAlias = Role
    Security: TypeAlias = Security
    SecurityTypedDict: TypeAlias = SecurityTypedDict
    ServicesInvokeRequestBody: TypeAlias = ServicesInvokeRequestBody
    ServicesInvokeRequestBodyTypedDict: TypeAlias = ServicesInvokeRequestBodyTypedDict
    ServicesInvokeResponseBody: TypeAlias = ServicesInvokeResponseBody
    ServicesInvokeResponseBodyTypedDict: TypeAlias = ServicesInvokeResponseBodyTypedDict
    StorageUploadRequestBody: TypeAlias = StorageUploadRequestBody
    StorageUploadRequestBodyTypedDict: TypeAlias = StorageUploadRequestBodyTypedDict
    StorageUploadResponseBody: TypeAlias = StorageUploadResponseBody
    StorageUploadResponseBodyTypedDict: TypeAlias = StorageUploadResponseBodyTypedDict
    User: TypeAlias = User
    UserTypedDict: TypeAlias = UserTypedDict


class errors:
    """Everything that is raised."""

    AerostackError: TypeAlias = AerostackError
    ArgumentIndexError: TypeAlias = ArgumentIndexError
    ArgumentTypeError: TypeAlias = ArgumentTypeError
    ClosedError: TypeAlias = ClosedError
    CloseError: TypeAlias = CloseError
    Code: TypeAlias = Code
    ConnectError: TypeAlias = ConnectError
    ConnectTimeout: TypeAlias = ConnectTimeout
    DecodingError: TypeAlias = DecodingError
    ErrorResponse: TypeAlias = ErrorResponse
    ErrorResponseData: TypeAlias = ErrorResponseData
    LocalProtocolError: TypeAlias = LocalProtocolError
    NetworkError: TypeAlias = NetworkError
    NoResponseError: TypeAlias = NoResponseError
    PoolTimeout: TypeAlias = PoolTimeout
    ProtocolError: TypeAlias = ProtocolError
    ProxyError: TypeAlias = ProxyError
    ReadError: TypeAlias = ReadError
    ReadTimeout: TypeAlias = ReadTimeout
    RemoteProtocolError: TypeAlias = RemoteProtocolError
    RequestError: TypeAlias = RequestError
    ResponseValidationError: TypeAlias = ResponseValidationError
    SDKBaseError: TypeAlias = SDKBaseError
    SDKError: TypeAlias = SDKError
    TimeoutException: TypeAlias = TimeoutException
    TooManyRedirects: TypeAlias = TooManyRedirects
    TransportError: TypeAlias = TransportError
    UnsupportedProtocol: TypeAlias = UnsupportedProtocol
    ValidationError: TypeAlias = ValidationError
    WriteError: TypeAlias = WriteError
    WriteTimeout: TypeAlias = WriteTimeout


class types:
    """`UNSET` and what is built on it."""

    BaseModel: TypeAlias = BaseModel
    Nullable: TypeAlias = Nullable
    OptionalNullable: TypeAlias = OptionalNullable
    UNSET = UNSET
    UNSET_SENTINEL = "~?~unset~?~sentinel~?~"
    UnrecognizedInt: TypeAlias = int
    UnrecognizedStr: TypeAlias = str
    Unset: TypeAlias = Unset


class utils:
    """Retries, logging and dates."""

    BackoffStrategy: TypeAlias = BackoffStrategy
    Logger: TypeAlias = Logger
    RetryConfig: TypeAlias = RetryConfig
    get_default_logger = staticmethod(get_default_logger)
    parse_datetime = staticmethod(parse_datetime)


class httpclient:
    """HTTP clients."""

    AsyncHttpClient: TypeAlias = AsyncHttpClient
    HttpClient: TypeAlias = HttpClient


for _namespace in (models, errors, types, utils, httpclient):
    _namespace.__all__ = [_name for _name in vars(_namespace) if not _name.startswith("_")]  # type: ignore
    sys.modules["%s.%s" % (__name__, _namespace.__name__)] = _namespace  # type: ignore

if __name__ == "__main__":
    sys.exit(_main())
