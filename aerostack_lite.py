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
"""The Aerostack Platform API in one file: Python's standard library only, Python 3.7 to 3.14.

::

    from aerostack_lite import SDK, errors

    with SDK("your-api-key") as sdk:                       # or AEROSTACK_API_KEY in the environment
        sdk.cache.cache_set(key="greeting", value={"hello": "world"}, ttl=60)
        print(sdk.cache.cache_get(key="greeting").value)                # {'hello': 'world'}
        print(sdk.database.db_query(sql="SELECT 1 AS one").results)     # [{'one': 1}]
        try:
            sdk.services.services_invoke(service_name="resize", data={"width": 80})
        except errors.AerostackError as error:
            print(error, error.request_id)

    async with SDK("your-api-key") as sdk:                 # every operation has an `_async` twin
        await sdk.queue.queue_enqueue_async(type="email", data={"to": "ada@example.com"})

From a shell: `python3 aerostack_lite.py db_query sql='SELECT 1'`. Copy the file anywhere; it needs nothing else, and
takes the place of the official SDK (aerostack 0.1.2) with the same names.

Read it from the top: first what a caller meets, then, below the double line, how it works, in the order in which a
call passes through: encode, retries, transport (a handler of urllib.request's), decode.
"""
# mypy: disable-error-code="empty-body"
# pyright: reportReturnType=false, reportMissingModuleSource=false
# (an operation is declared by its signature; `_operation` is its body)

from __future__ import annotations

import codecs
import collections
import copyreg
import errno
import functools
import io
import json
import operator
import os
import re
import select
import socket
import stat
import sys
import threading
import time
import urllib.parse
import urllib.request
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock_time
from enum import Enum
from itertools import accumulate, chain

__version__ = "0.2.0"

__all__ = ["SDK", "SDKConfiguration", "SERVERS", "UNSET", "VERSION", "USER_AGENT", "OPENAPI_DOC_VERSION", "OPERATIONS"]
__all__ += ["SPEAKEASY_GENERATOR_VERSION", "errors", "httpclient", "models", "types", "utils"]
__all__ += ["Ai", "Authentication", "Cache", "Database", "Queue", "Services", "Storage"]
__all__ += ["HttpClient", "AsyncHttpClient", "Request", "Response", "Headers", "RetryConfig", "BackoffStrategy"]

# ---- Settings --------------------------------------------------------------------------------------------------------

SERVERS = [
    "https://api.aerostack.ai/v1",  # 0: production
    "http://localhost:8787/v1",  # 1: local development
]
VERSION = __version__
USER_AGENT = "aerostack-lite/" + __version__
OPENAPI_DOC_VERSION = "1.0.0"  # of the API description that the nine operations follow
SPEAKEASY_GENERATOR_VERSION = ""  # the official SDK is generated; this file is written by hand

_DEFAULT_TIMEOUT_MS = 60_000  # one attempt, from the name's look-up to the last byte
_IDLE_TIMEOUT_MS = 60_000  # an upload's, without a byte moving
_DEFAULT_ATTEMPTS = 3  # by default a failed call is repeated twice
_MAX_CONNECTIONS = 100  # kept open, per client; more may be open at a time
_MAX_IDLE_SECONDS = 30  # half of what AWS load balancers allow
_MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # after decompression
_MAX_HEAD_BYTES = 64 * 1024  # status line and headers, or the trailers after a chunked body
_MAX_LINE_BYTES = 8 * 1024  # a chunk's size with its extensions, or one trailer
_MAX_INTERIM_RESPONSES = 8  # 1xx responses before the final one
_MAX_REDIRECTS = 5
_MAX_JSON_DEPTH = 500
_MAX_PROBLEMS = 100  # reported of one list
_MAX_CODINGS = 2  # of one body, one upon the other
_MAX_GZIP_MEMBERS = 1_000
_MAX_WORKERS = 64  # threads behind the `_async` twins, one for each call under way
_MAX_SHOWN_CHARS = 10_000  # of a body in an error's text or a log; the official SDK's number
_MAX_MESSAGE_CHARS = 1_000_000  # of the API's own error message, which the official SDK shows whole
_NEXT_ADDRESS_SECONDS = 2  # how long one address may stay silent while there are others to try
_BLOCK_BYTES = 128 * 1024  # sent or received at a time; with 64 KiB an upload over TLS took 20 % more CPU
_FOREVER = float("inf")
_LONGEST_SECONDS = 20 * 86_400  # poll() counts milliseconds and overflows at 2**31


class Unset:
    """The type of `UNSET`: no value was given, or none came back (which is not None, a JSON null)."""

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "Unset()"

    def __reduce__(self) -> str:
        return "UNSET"


UNSET = Unset()

# ---- Types for checkers: seen by mypy, pyright and editors; at run time, stand-ins -----------------------------------

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any, Dict, Generic, List, Optional, Protocol, Set, Tuple, Type, TypeVar, Union, overload

    from typing_extensions import (
        Buffer,
        Concatenate,
        Literal,
        NotRequired,
        ParamSpec,
        TypeAlias,
        TypedDict,
        Unpack,
        dataclass_transform,
    )

    P = ParamSpec("P")
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)
    Q = TypeVar("Q", contravariant=True)
    D = TypeVar("D")
    M = TypeVar("M", bound="BaseModel")
    Nullable: TypeAlias = Union[R, None]
    OptionalNullable: TypeAlias = Union[R, None, Unset]
    Retries: TypeAlias = "Union[RetryConfig, None, Unset]"
    Content: TypeAlias = "Union[Buffer, os.PathLike[str], Iterable[bytes]]"
    MessageContent: TypeAlias = Union[str, Sequence[Mapping[str, Any]]]
    Upload: TypeAlias = "Union[models.File, models.FileTypedDict, Content]"
    Conversation: TypeAlias = "Sequence[Union[models.Messages, models.MessagesTypedDict, Mapping[str, Any]]]"
    Progress: TypeAlias = Callable[[int, Optional[int]], object]
    JsonObject: TypeAlias = Dict[str, Any]
    Problem: TypeAlias = Tuple[Tuple[Any, ...], str, str]  # where, what kind, in words

    class CallOptions(TypedDict, total=False):
        server_url: Optional[str]
        timeout_ms: Optional[float]
        http_headers: Optional[Mapping[str, str]]

    class Options(CallOptions, total=False):
        retries: Retries

    class Method(Protocol[Q, P, R_co]):  # pyright: ignore[reportInvalidTypeVarUse]
        """An operation takes its fields as keywords, or all of them as one `request`."""

        @overload
        def __call__(self, *args: P.args, **fields: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, request: Q, retries: Retries = ..., **options: Unpack[CallOptions]) -> R_co: ...
else:
    D = None
    JsonObject = TypedDict = dict

    def dataclass_transform(**_):
        return lambda cls: cls

    class Generic:
        """Stands in for what only checkers take apart: Nullable[str], Generic[D]."""

        def __class_getitem__(cls, inner):
            return cls

    Nullable = OptionalNullable = Protocol = Generic


class Logger(Protocol):
    """What `debug_logger=` may be: anything with this method."""

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None: ...


# ---- SDK -------------------------------------------------------------------------------------------------------------


class SDK:
    """The Aerostack Platform API. One object serves a whole program: threads, event loops and forks may share it.

    :param api_key_auth: the key, or a callable that returns it, asked once per call; by default AEROSTACK_API_KEY
    :param server_idx: which of `SERVERS`; by default 0, production
    :param server_url: another server, which wins over server_idx; by default AEROSTACK_SERVER_URL, if that is set
    :param url_params: values for the `{names}` in server_url
    :param client: what sends synchronous calls: an `HttpClient` with settings of your own, or anything with its
        `build_request`, `send` and `close`, such as an httpx.Client; it stays open when the SDK is closed
    :param async_client: the same for the `_async` twins: an `AsyncHttpClient`, an httpx.AsyncClient, ...
    :param retry_config: a `RetryConfig` for every call, or None for no retries; by default a call is repeated at most
        twice, and only where it cannot have been carried out already, or where twice has the effect of once
    :param timeout_ms: milliseconds for one attempt as a whole; by default 60,000, for uploads without a byte moving;
        math.inf for no limit
    :param debug_logger: anything with `.debug(message, *args)`; by default logging.getLogger("aerostack_lite")
    :param max_workers: the most threads behind the `_async` twins
    :raises errors.ValidationError: a ValueError, for a bad argument. Nothing is opened or sent before the first call.
    """

    def __init__(
        self,
        api_key_auth: Union[str, Callable[[], str], None] = None,
        server_idx: Optional[int] = None,
        server_url: Optional[str] = None,
        url_params: Optional[Mapping[str, str]] = None,
        client: Any = None,
        async_client: Any = None,
        retry_config: Retries = UNSET,
        timeout_ms: Optional[float] = None,
        debug_logger: Optional[Logger] = None,
        *,
        max_workers: int = _MAX_WORKERS,
    ) -> None:
        self.sdk_configuration = shared = SDKConfiguration()
        try:
            shared.security = _security(api_key_auth)
            shared.server_url = _filled_template(server_url, url_params or {})
            shared.server_idx = server_idx
            shared.retry_config = retry_config
            shared.timeout_ms = timeout_ms
            shared.check()
        except AerostackError as error:
            raise error.with_traceback(None)  # noqa: B904  # whose frames' locals would show a password
        finally:
            del api_key_auth, server_url, url_params
        shared.debug_logger = debug_logger
        shared.sync_half = _Half(client, HttpClient, "client", "close")
        workers = _Workers(_positive_int("max_workers", max_workers))
        shared.async_half = _Half(async_client, AsyncHttpClient, "async_client", "aclose", workers)
        self.ai = Ai(shared)
        self.authentication = Authentication(shared)
        self.cache = Cache(shared)
        self.database = Database(shared)
        self.queue = Queue(shared)
        self.services = Services(shared)
        self.storage = Storage(shared)

    def close(self) -> None:
        """Close the synchronous half: its connections are closed, retries that wait end at once. Twice is fine."""
        self.sdk_configuration.sync_half.close()

    async def aclose(self) -> None:
        """Close the asynchronous half: its connections are closed, its threads end. Twice is fine."""
        self.sdk_configuration.async_half.close()

    def __enter__(self) -> SDK:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> SDK:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class SDKConfiguration:
    """What the services of one SDK share, by the official attribute names. All but the clients may be changed."""

    language = "python"
    openapi_doc_version = OPENAPI_DOC_VERSION
    sdk_version = __version__
    user_agent = USER_AGENT
    security: Union[models.Security, Callable[[], models.Security]]
    server_idx: Optional[int] = None
    server_url: Optional[str] = None
    retry_config: Retries = UNSET
    timeout_ms: Optional[float] = None
    debug_logger: Optional[Logger] = None
    default_logger: Any = None  # once a program has imported logging
    sync_half: _Half
    async_half: _Half
    client = property(lambda self: self.sync_half.client, doc="What sends synchronous calls; None once closed.")
    async_client = property(lambda self: self.async_half.client, doc="What sends `_async` calls; None once closed.")

    def check(self) -> None:
        """Raise now what each call would raise."""
        _check_server_url(self.get_server_details()[0])
        _retry_policy(self.retry_config, False)
        _seconds("timeout_ms", self.timeout_ms, 1000)

    def get_server_details(self) -> Tuple[str, Dict[str, str]]:
        """The server's URL without a slash at its end, and an empty dict: the official SDK's shape."""
        index = self.server_idx
        if self.server_url:
            return self.server_url.rstrip("/"), {}
        if index is None:
            return (os.environ.get("AEROSTACK_SERVER_URL") or SERVERS[0]).rstrip("/"), {}
        if isinstance(index, bool) or not isinstance(index, int):
            raise _bad_type("server_idx", "must be an integer")
        if not 0 <= index < len(SERVERS):
            raise errors.ArgumentIndexError.about("server_idx", "must be 0 to %d" % (len(SERVERS) - 1))
        return SERVERS[index], {}


# ---- Models: what goes in, what comes back ---------------------------------------------------------------------------

_SECRET_FIELDS = frozenset(["api_key_auth", "password", "token"])


class _DataclassFields:
    """Makes a model a dataclass when someone first asks. Importing dataclasses takes 8 ms, and no call needs it."""

    def __get__(self, instance: object, owner: Any) -> Any:
        if "_dataclass_fields" not in vars(owner):
            import dataclasses

            # dataclasses looks into the class's module, and a module loaded by its path is not in sys.modules
            declared: Any = {"__module__": "builtins"}
            declared["__annotations__"] = {field.name: field.annotation for field in owner._fields()}
            declared.update((field.name, field.default) for field in owner._fields() if field.default is not _REQUIRED)
            made: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(type(owner.__name__, (), declared))
            owner.__dataclass_params__ = made.__dataclass_params__
            owner._dataclass_fields = made.__dataclass_fields__
        return owner._dataclass_fields


@dataclass_transform(kw_only_default=True, eq_default=False)
class BaseModel:
    """A dataclass whose fields are given as keywords, checked and converted as JSON has them.

    Fields that the API sent and this file does not know are in `model_extra`.
    """

    __dataclass_fields__ = _DataclassFields()
    __hash__ = None  # type: ignore[assignment]  # a model can change
    model_extra = {}  # type: JsonObject  # an annotation would make it a field
    _unknown_fields = "kept"  # or "refused", or "sent"
    # On the wire a name is in camel case, but for these. A request may use either; if both are given, the wire's wins.
    _wire_names = {"api_key_auth": "api_key_auth", "max_tokens": "max_tokens", "top_p": "top_p"}

    def __init__(self, **values: Any) -> None:
        self._fill(values)

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
        dumped = dict(self.model_extra) if self._unknown_fields == "sent" else {}
        for field in self._fields():
            value = self.__dict__.get(field.name, field.default)
            if value is UNSET or (value is None and field.default is None):
                continue
            if isinstance(value, BaseModel):
                value = value.model_dump(by_alias=by_alias)
            elif isinstance(value, list) and all(isinstance(item, BaseModel) for item in value):
                value = [item.model_dump(by_alias=by_alias) for item in value]
            dumped[field.wire if by_alias else field.name] = value
        return _plain(dumped, ()) if mode == "json" else dumped

    def model_dump_json(self, *, by_alias: bool = False, indent: Optional[int] = None) -> str:
        """The model as JSON text."""
        dumped = self.model_dump(by_alias=by_alias, mode="json")
        return json.dumps(dumped, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":"))

    @classmethod
    @functools.lru_cache(maxsize=None)
    def _fields(cls) -> List[_Field]:
        """The fields, read from the annotations of the class and its parents."""
        annotations: Dict[str, str] = {}
        for base in reversed(cls.__mro__):
            annotations.update(getattr(base, "__annotations__", {}))
        return [_Field(cls, name, str(text)) for name, text in annotations.items()]

    def _fill(self, values: Mapping[str, Any]) -> None:
        """Set every field. Raises ValidationError with all that is wrong."""
        unknown = dict(values)
        problems: List[Problem] = []
        for field in self._fields():
            name = field.wire or field.name
            value: Any = UNSET
            for given in field.names:
                if given in unknown:
                    name = given
                    value = unknown.pop(given)
            try:
                self.__dict__[field.name] = field.converted(value)
            except errors.ValidationError as error:
                problems += error.within(name)
        if self._unknown_fields == "refused":
            names = [name for field in self._fields() for name in field.names]
            problems += [((name,), "extra_forbidden", "Unknown field" + _nearest(name, names)) for name in unknown]
        elif unknown:
            self.__dict__["model_extra"] = unknown
        if problems:
            raise errors.ValidationError(type(self).__name__, problems)

    def _values(self) -> Dict[str, Any]:
        return {field.name: self.__dict__.get(field.name, field.default) for field in self._fields()}

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._values():
            raise _bad(name, "%s has no such field" % type(self).__name__)
        self.__dict__[name] = value

    def __eq__(self, other: Any) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __repr__(self) -> str:
        values = self._values().items()
        shown = ["%s=%s" % (name, "***" if value and name in _SECRET_FIELDS else repr(value)) for name, value in values]
        return "%s(%s)" % (type(self).__name__, ", ".join(shown))


class _Request(BaseModel, Generic[D]):
    """What a caller writes, as a model or as a dict like D: an unknown field is misspelled, so it is refused."""

    _unknown_fields = "refused"


class models:
    """Requests and responses, by the official names. Each has a `...TypedDict` for callers who prefer dicts."""

    class Role(str, Enum):
        """Who says a message. Any other string passes too: the server decides which roles there are."""

        SYSTEM = "system"
        USER = "user"
        ASSISTANT = "assistant"

    class MessagesTypedDict(TypedDict):
        content: NotRequired[MessageContent]
        role: NotRequired[Union[models.Role, str]]

    class Messages(_Request[MessagesTypedDict]):
        """One message of a conversation; other members, such as `name` or `tool_calls`, are sent as they are."""

        _unknown_fields = "sent"
        content: Optional[MessageContent] = None
        role: Optional[Union[models.Role, str]] = None

    class AiChatRequestBodyTypedDict(TypedDict):
        messages: Conversation
        model: NotRequired[str]
        temperature: NotRequired[float]
        max_tokens: NotRequired[int]
        top_p: NotRequired[float]

    class AiChatRequestBody(_Request[AiChatRequestBodyTypedDict]):
        messages: List[models.Messages]
        model: Optional[str] = None
        temperature: Optional[float] = None
        max_tokens: Optional[int] = None
        top_p: Optional[float] = None

    class AiChatResponseBody(BaseModel):
        response: Optional[str] = None

    class AuthSigninRequestBodyTypedDict(TypedDict):
        email: str
        password: str

    class AuthSigninRequestBody(_Request[AuthSigninRequestBodyTypedDict]):
        email: str
        password: str

    class AuthSignupRequestBodyTypedDict(AuthSigninRequestBodyTypedDict):
        metadata: NotRequired[Mapping[str, Any]]
        name: NotRequired[str]

    class AuthSignupRequestBody(_Request[AuthSignupRequestBodyTypedDict]):
        email: str
        password: str
        metadata: Optional[Dict[str, Any]] = None
        name: Optional[str] = None

    class User(BaseModel):
        created_at: Optional[datetime] = None
        email: Optional[str] = None
        id: Optional[str] = None
        metadata: Optional[Dict[str, Any]] = None
        name: OptionalNullable[str] = UNSET

    class AuthResponse(BaseModel):
        expires_at: Optional[datetime] = None
        token: Optional[str] = None
        user: Optional[models.User] = None

    class CacheGetRequestBodyTypedDict(TypedDict):
        key: str

    class CacheGetRequestBody(_Request[CacheGetRequestBodyTypedDict]):
        key: str

    class CacheGetResponseBody(BaseModel):
        exists: Optional[bool] = None
        value: OptionalNullable[Any] = UNSET  # None is a JSON null that was stored

    class CacheSetRequestBodyTypedDict(TypedDict):
        key: str
        value: Any
        ttl: NotRequired[int]

    class CacheSetRequestBody(_Request[CacheSetRequestBodyTypedDict]):
        key: str
        value: Any
        ttl: Optional[int] = None  # seconds

    class CacheSetResponseBody(BaseModel):
        success: Optional[bool] = None

    class DbQueryRequestBodyTypedDict(TypedDict):
        sql: str
        params: NotRequired[Sequence[Any]]

    class DbQueryRequestBody(_Request[DbQueryRequestBodyTypedDict]):
        sql: str
        params: Optional[List[Any]] = None

    class DbQueryResult(BaseModel):
        count: Optional[int] = None
        results: Optional[List[Dict[str, Any]]] = None

    class QueueEnqueueRequestBodyTypedDict(TypedDict):
        data: Mapping[str, Any]
        type: str
        delay: NotRequired[int]

    class QueueEnqueueRequestBody(_Request[QueueEnqueueRequestBodyTypedDict]):
        data: Dict[str, Any]
        type: str
        delay: Optional[int] = None  # seconds

    class QueueEnqueueResponseBody(BaseModel):
        job_id: Optional[str] = None
        success: Optional[bool] = None

    class ServicesInvokeRequestBodyTypedDict(TypedDict):
        data: Mapping[str, Any]
        service_name: str

    class ServicesInvokeRequestBody(_Request[ServicesInvokeRequestBodyTypedDict]):
        data: Dict[str, Any]
        service_name: str

    class ServicesInvokeResponseBody(BaseModel):
        result: Optional[Any] = None
        success: Optional[bool] = None

    class FileTypedDict(TypedDict):
        content: Content
        file_name: str
        content_type: NotRequired[str]

    class File(_Request[FileTypedDict]):
        _wire_names = {"content": "", "content_type": "Content-Type"}
        content: Content
        file_name: str
        content_type: Optional[str] = None  # guessed from file_name if not given

    class StorageUploadRequestBodyTypedDict(TypedDict):
        file: Upload
        key: str
        content_type: NotRequired[str]

    class StorageUploadRequestBody(_Request[StorageUploadRequestBodyTypedDict]):
        file: models.File
        key: str
        content_type: Optional[str] = None

        def _fill(self, values: Mapping[str, Any]) -> None:
            file = values.get("file", UNSET)
            if file is not UNSET and not isinstance(file, (Mapping, BaseModel, list, tuple)):  # just the content
                name: Any = os.fspath(file) if isinstance(file, os.PathLike) else getattr(file, "name", None)
                is_name = isinstance(name, str) and not name.startswith("<")  # "<stdin>"
                name = os.path.basename(name if is_name else str(values.get("key"))) or "file"
                values = {**values, "file": {"content": file, "file_name": name}}
            super()._fill(values)

    class StorageUploadResponseBody(BaseModel):
        url: Optional[str] = None

    class Security(_Request[JsonObject]):
        api_key_auth: str

    AiChatResponseBodyTypedDict: TypeAlias = JsonObject
    AuthResponseTypedDict: TypeAlias = JsonObject
    UserTypedDict: TypeAlias = JsonObject
    CacheGetResponseBodyTypedDict: TypeAlias = JsonObject
    CacheSetResponseBodyTypedDict: TypeAlias = JsonObject
    DbQueryResultTypedDict: TypeAlias = JsonObject
    QueueEnqueueResponseBodyTypedDict: TypeAlias = JsonObject
    ServicesInvokeResponseBodyTypedDict: TypeAlias = JsonObject
    SecurityTypedDict: TypeAlias = JsonObject
    StorageUploadResponseBodyTypedDict: TypeAlias = JsonObject


class BackoffStrategy:
    """How long to wait between attempts, in milliseconds.

    The wait is drawn evenly between 0 and initial_interval * exponent ** n (full jitter), max_interval at the most.
    No wait goes beyond max_elapsed_time, counted from the call's start.
    """

    def __init__(self, initial_interval: float, max_interval: float, exponent: float, max_elapsed_time: float) -> None:
        self.initial_interval = initial_interval
        self.max_interval = max_interval
        self.exponent = exponent
        self.max_elapsed_time = max_elapsed_time


class RetryConfig:
    """Repeat any operation after 429, 500, 502, 503 and 504, until the backoff's max_elapsed_time.

    :param strategy: "backoff"; anything else means one attempt
    :param backoff: how long to wait between attempts
    :param retry_connection_errors: repeat it also when a connection fails, is lost or times out, although the server
        may have carried out the request already
    """

    def __init__(self, strategy: str, backoff: BackoffStrategy, retry_connection_errors: bool) -> None:
        self.strategy = strategy
        self.backoff = backoff
        self.retry_connection_errors = retry_connection_errors


# ---- Services: operation -> model ------------------------------------------------------------------------------------


# One operation of the API: where it is, what goes in, what comes back, and how it may fail.
Operation = collections.namedtuple(
    "Operation", "service name summary method path request_type response_type idempotent structured_errors"
)
OPERATIONS: List[Operation] = []


def _operation(
    route: str, request_type: Type[_Request[D]], *, idempotent: bool = False, structured_errors: Tuple[int, ...] = ()
) -> Callable[[Callable[Concatenate[Any, P], R]], Method[Union[_Request[D], D], P, R]]:
    """Make a method an operation. Its signature is what checkers, help() and editors show, and names the response.

    idempotent           doing it twice has the effect of doing it once
    structured_errors    the statuses for which the API documents {code, message, details}
    """

    def declare(method: Any) -> Any:
        operation = Operation(
            service=method.__qualname__.partition(".")[0].lower(),
            name=method.__name__,
            summary=(method.__doc__ or "").partition("\n")[0],  # none under -OO
            method=route.partition(" ")[0],
            path=route.partition(" ")[2],
            request_type=request_type,
            response_type=getattr(models, method.__annotations__["return"].partition(".")[2]),
            idempotent=idempotent,
            structured_errors=structured_errors,
        )
        OPERATIONS.append(operation)

        @functools.wraps(method)
        def call(self: _Service, request: Any = None, retries: Retries = UNSET, **fields: Any) -> Any:
            try:
                return _perform(self, operation, request, retries, fields)
            finally:
                del request  # a password in it would show in a traceback's locals

        if call.__doc__:  # none under -OO
            call.__doc__ = "%s Sends `%s`; raises `errors.AerostackError`." % (call.__doc__.rstrip(), route)
        return call

    return declare


def _twin(method: Method[Q, P, R]) -> Method[Q, P, Coroutine[object, object, R]]:
    """The `_async` twin of an operation: the same call, in a worker thread, awaited."""
    plain: Any = method

    @functools.wraps(plain)
    async def twin(self: _Service, *args: Any, **fields: Any) -> Any:
        scope = _CancelScope(_running_loop())
        service = type(self)(self.sdk_configuration, scope)
        workers = self.sdk_configuration.async_half.workers
        positional = list(args)
        del args
        try:
            return await workers.run(lambda: plain(service, *positional, **fields), scope)
        finally:
            positional.clear()  # a password in it would show in a traceback's locals
            fields.clear()

    twin.__name__ += "_async"
    twin.__qualname__ += "_async"
    twin.__doc__ = "`%s`, awaited. %s" % (plain.__name__, plain.__doc__)
    return twin  # type: ignore[return-value]


class _Service:
    """Operations under one name."""

    def __init__(self, sdk_configuration: SDKConfiguration, scope: Optional[_CancelScope] = None) -> None:
        self.sdk_configuration = sdk_configuration
        self.scope = scope  # of one `_async` call; None for synchronous ones


class Ai(_Service):
    """Language models."""

    @_operation("POST /ai/chat", models.AiChatRequestBody)
    def ai_chat(
        self,
        *,
        messages: Conversation,
        model: Optional[str] = None,
        temperature: Optional[float] = None,
        max_tokens: Optional[int] = None,
        top_p: Optional[float] = None,
        **options: Unpack[Options],
    ) -> models.AiChatResponseBody:
        """Answer a conversation: `messages` of {role, content}, by the platform's `model` or one you name.

        `temperature` is 0 to 2, `max_tokens` the most to answer with, `top_p` 0 to 1.
        """

    ai_chat_async = _twin(ai_chat)


class Authentication(_Service):
    """The users of your application."""

    @_operation("POST /auth/signin", models.AuthSigninRequestBody, idempotent=True, structured_errors=(401,))
    def auth_signin(self, *, email: str, password: str, **options: Unpack[Options]) -> models.AuthResponse:
        """Exchange a user's `email` and `password` for a token; `expires_at` says until when it is good."""

    @_operation("POST /auth/signup", models.AuthSignupRequestBody, structured_errors=(400, 409))
    def auth_signup(
        self,
        *,
        email: str,
        password: str,
        metadata: Optional[Mapping[str, Any]] = None,
        name: Optional[str] = None,
        **options: Unpack[Options],
    ) -> models.AuthResponse:
        """Create a user with `email` and `password`, a `name` and any `metadata`, and sign in."""

    auth_signin_async = _twin(auth_signin)
    auth_signup_async = _twin(auth_signup)


class Cache(_Service):
    """JSON values under keys."""

    @_operation("POST /cache/get", models.CacheGetRequestBody, idempotent=True)
    def cache_get(self, *, key: str, **options: Unpack[Options]) -> models.CacheGetResponseBody:
        """Read the value under a `key`; `exists` is False where there is none, or no longer."""

    @_operation("POST /cache/set", models.CacheSetRequestBody, idempotent=True)
    def cache_set(
        self, *, key: str, value: Any, ttl: Optional[int] = None, **options: Unpack[Options]
    ) -> models.CacheSetResponseBody:
        """Store a JSON `value` under a `key`, for `ttl` seconds or for good."""

    cache_get_async = _twin(cache_get)
    cache_set_async = _twin(cache_set)


class Database(_Service):
    """SQL."""

    @_operation("POST /db/query", models.DbQueryRequestBody, structured_errors=(400, 401, 500))
    def db_query(
        self, *, sql: str, params: Optional[Sequence[Any]] = None, **options: Unpack[Options]
    ) -> models.DbQueryResult:
        """Run one `sql` statement with `params` bound to its placeholders; rows come back as dicts in `results`."""

    db_query_async = _twin(db_query)


class Queue(_Service):
    """Background jobs."""

    @_operation("POST /queue/enqueue", models.QueueEnqueueRequestBody)
    def queue_enqueue(
        self, *, data: Mapping[str, Any], type: str, delay: Optional[int] = None, **options: Unpack[Options]
    ) -> models.QueueEnqueueResponseBody:
        """Enqueue a job of a `type` with its `data`, to be run at once or after `delay` seconds."""

    queue_enqueue_async = _twin(queue_enqueue)


class Services(_Service):
    """Functions deployed on the platform."""

    @_operation("POST /services/invoke", models.ServicesInvokeRequestBody)
    def services_invoke(
        self, *, data: Mapping[str, Any], service_name: str, **options: Unpack[Options]
    ) -> models.ServicesInvokeResponseBody:
        """Call the service named `service_name` with `data`."""

    services_invoke_async = _twin(services_invoke)


class Storage(_Service):
    """Files."""

    @_operation("POST /storage/upload", models.StorageUploadRequestBody, idempotent=True)
    def storage_upload(
        self,
        *,
        file: Upload,
        key: str,
        content_type: Optional[str] = None,
        progress: Optional[Progress] = None,
        **options: Unpack[Options],
    ) -> models.StorageUploadResponseBody:
        """Store a `file` under a `key` and return its URL; sent as a stream, however large it is.

        `file` is {content, file_name, content_type}, or for short just the content: bytes, a path, anything with a
        binary read(), or a generator of bytes. `progress(sent, total)` is called with the body's bytes as they leave;
        total is None where the length is not known beforehand.
        """

    storage_upload_async = _twin(storage_upload)


# ---- HTTP client: Request -> Response --------------------------------------------------------------------------------
# What sends, unless you pass `client=`. Names are httpx's, so that an httpx.Client can stand in for an HttpClient;
# Request and Response answer to urllib's names as well.


class Headers(MutableMapping):  # type: ignore[type-arg]
    """HTTP headers by lower-case name; any case finds them; a repeated one reads as its values joined by ", "."""

    def __init__(self, pairs: Union[Mapping[str, str], Iterable[Tuple[str, str]]] = ()) -> None:
        given: Any = pairs.items() if isinstance(pairs, Mapping) else pairs
        lowered = [(name.lower(), value) for name, value in given]
        self._values: Dict[str, str] = dict(lowered)
        self._repeated: Dict[str, List[str]] = {}
        if len(self._values) < len(lowered):
            for name, value in lowered:
                self._repeated.setdefault(name, []).append(value)
            self._values = {name: ", ".join(values) for name, values in self._repeated.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __setitem__(self, name: str, value: str) -> None:
        self._values[name.lower()] = str(value)
        self._repeated.pop(name.lower(), None)

    def __delitem__(self, name: str) -> None:
        del self._values[name.lower()]
        self._repeated.pop(name.lower(), None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name.lower(), default)

    def items(self) -> Any:
        return self._values.items()

    def copy(self) -> Headers:
        other = Headers()
        other._values.update(self._values)
        other._repeated.update(self._repeated)
        return other

    def __repr__(self) -> str:
        return "Headers(%r)" % _shown_headers(self)

    def get_all(self, name: str, default: Any = None) -> Any:
        """The values of a repeated header one by one; urllib's handlers call this."""
        return list(self._repeated.get(name.lower(), ())) or ([self[name]] if name in self else default)


class Request(urllib.request.Request):
    """One HTTP request. `timeout_seconds` bounds one attempt as a whole; None means the default."""

    headers: Any
    data: Any
    content: Any = urllib.request.Request.data

    def __init__(self, method: str, url: str, headers: Headers, content: Any, timeout_seconds: Optional[float]) -> None:
        super().__init__(url, content, origin_req_host=_parse_url(url).host, method=method)
        self.headers = headers
        self.timeout_seconds = timeout_seconds
        self.scope: Optional[_CancelScope] = None  # which may end it from another thread
        self.redirects = 0

    @property
    def full_url(self) -> str:
        """The URL, which urllib's own class reads less strictly."""
        return self.parsed_url.text

    @full_url.setter
    def full_url(self, value: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # it has no deleter
        self.parsed_url = _parse_url(value)
        self.type = self.parsed_url.scheme
        self.host = self.parsed_url.authority
        self.selector = self.parsed_url.target
        self.fragment = None

    url = full_url

    def copy(self) -> Request:
        """The same request, for one attempt: what a handler adds to it is gone with that."""
        other = Request.__new__(Request)
        other.__dict__.update(self.__dict__)
        other.headers = self.headers.copy()
        other.unredirected_hdrs = dict(self.unredirected_hdrs)
        return other


class Response(io.BytesIO):
    """One HTTP response: status_code, reason_phrase, headers, content, text, json(), url, request; a file of its body,
    as urllib's are."""

    version = 11  # as http.client numbers HTTP/1.1

    def __init__(
        self, status_code: int, headers: Any = None, content: bytes = b"", request: Any = None, reason_phrase: str = ""
    ) -> None:
        super().__init__(content)
        self.status_code = self.code = self.status = status_code
        self.reason_phrase = self.msg = self.reason = reason_phrase
        self.headers: Headers = Headers() if headers is None else headers
        self.content = content
        self.request = request
        self.url: str = request.full_url if request else ""

    @property
    def text(self) -> str:
        """The body in the charset that its type names, else UTF-8; what cannot be decoded becomes U+FFFD."""
        return self.content.decode(_charset(self.headers), "replace")

    def json(self) -> Any:
        """The body as JSON (RFC 8259). Raises ValueError."""
        return _parse_json(self.content, _charset(self.headers))

    def getcode(self) -> int:
        return self.status_code

    def info(self) -> Headers:
        return self.headers

    def __repr__(self) -> str:
        return "<Response [%d %s]>" % (self.status_code, _escaped(self.reason_phrase))

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = (self.content, 0, dict(vars(self), request=None))  # whose headers hold the key
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]


class HttpClient:
    """Keeps connections open and sends requests over them. Threads may share it, forks too.

    :param proxy: "http://user:password@host:3128" for everything, False for none; by default what HTTP_PROXY,
        HTTPS_PROXY, ALL_PROXY and NO_PROXY say, else the system's settings (Windows, macOS)
    :param ssl_context: an ssl.SSLContext of your own; by default TLS 1.2 at least and the system's trust store, or
        what SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE name
    :param headers: headers for every request
    :param max_connections: connections kept open for later calls; more may be open at a time
    :param max_response_bytes: the largest body accepted, after decompression
    :param handlers: urllib.request handlers of your own, say one that signs or records each request; one that opens
        connections itself (`http_open`, `https_open`) is refused, since then nothing of the above would hold
    """

    _pool: Any = None  # where the constructor raised

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
        try:
            own_proxy: Any = proxy and _parse_proxy(proxy, "proxy=")
            self.headers = Headers(_checked_headers(headers, "headers").items())
        except AerostackError as error:
            raise error.with_traceback(None)  # noqa: B904  # whose frames' locals would show a password
        finally:
            del proxy, headers
        if ssl_context is not None and not hasattr(ssl_context, "wrap_socket"):
            raise _bad_type("ssl_context", "must be an ssl.SSLContext")
        max_kept = _positive_int("max_connections", max_connections)
        self._pool = _Pool(own_proxy, ssl_context, max_kept, _positive_int("max_response_bytes", max_response_bytes))
        self._opener = urllib.request.OpenerDirector()  # with none of urllib's handlers: no file:, no ftp:
        self._opener.addheaders = []
        for handler in [self._pool, _SameOriginRedirects(), *_checked_handlers(handlers)]:
            self._opener.add_handler(handler)

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        **others: Any,
    ) -> Request:
        """A request to `send`. `content` is bytes, text or an iterable of bytes; `timeout` is in seconds."""
        for name, value in others.items():  # httpx has more; an empty one asks for nothing
            if value:
                raise _bad_type(name, "is not supported by HttpClient")
        if not isinstance(method, str) or not _TOKEN.fullmatch(method):
            raise _bad("method", "is no HTTP method")
        target, authorization = _split_credentials(str(url))
        every = dict(self.headers.items())
        if authorization:
            every["authorization"] = authorization
        every.update((headers if isinstance(headers, Headers) else _checked_headers(headers, "headers")).items())
        return Request(method, target, Headers(every), _as_body(content), _seconds("timeout", timeout))

    def send(self, request: Request, *, stream: bool = False, **_: Any) -> Response:
        """Send a request and read its response whole. Redirects are followed within one origin, as 307 and 308 only.

        Any status is a response. Raises `errors.RequestError` when none comes that can be used.
        """
        seconds = request.timeout_seconds
        is_upload = isinstance(request.data, _Upload)
        if seconds is None:
            seconds = (_IDLE_TIMEOUT_MS if is_upload else _DEFAULT_TIMEOUT_MS) / 1000
        request = request.copy()
        request.scope = request.scope or _CancelScope()
        request.scope.start(seconds, is_upload and request.timeout_seconds is None)
        response = self._opener.open(request, timeout=seconds)
        if isinstance(response, Response):
            return response
        raise errors.NoResponseError()  # from a handler of the caller's

    def close(self) -> None:
        """Close idle connections now, and those in use when their responses are read. Twice is fine."""
        if self._pool:
            self._pool.close()

    __del__ = close

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        pool = self._pool
        counts = "%d active, %d idle" % (pool.active, len(pool.idle)) if pool else "not made"
        return "<%s: %s>" % (type(self).__name__, counts)


class AsyncHttpClient(HttpClient):
    """An HttpClient that is awaited: each `send` runs in one of `max_workers` threads, from any of asyncio's loops.

    Cancelling a `send` closes its socket and frees its thread. Takes HttpClient's settings.
    """

    def __init__(self, *, max_workers: int = _MAX_WORKERS, **settings: Any) -> None:
        self.workers = _Workers(_positive_int("max_workers", max_workers))
        try:
            super().__init__(**settings)
        finally:
            settings.clear()  # a traceback's locals would show a proxy's password

    async def send(self, request: Request, *, stream: bool = False, **_: Any) -> Response:  # type: ignore[override]
        """Send a request and read its response whole, as `HttpClient.send` does."""
        request = request.copy()  # it may be under way twice
        request.scope = _CancelScope(_running_loop())
        return await self.workers.run(functools.partial(HttpClient.send, self, request), request.scope)

    def close(self) -> None:
        self.workers.close()
        super().close()

    async def aclose(self) -> None:
        """Close connections and end the threads. Twice is fine."""
        self.close()

    async def __aenter__(self) -> AsyncHttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


# ---- Errors ----------------------------------------------------------------------------------------------------------


class AerostackError(Exception):
    """What everything raised here is.

    Before anything is sent it is a ValidationError; afterwards an SDKBaseError if the server returned an error or a
    response that cannot be used, or a RequestError if no such response came.
    """

    message = ""
    request_id: Optional[str] = None  # sent as X-Request-ID with every attempt
    attempts = 0  # how often the request was tried
    retry_after: Optional[float] = None  # the seconds that the server asked to wait
    maybe_processed = False  # whether the server may have carried out the request
    data: Optional[errors.ErrorResponseData] = None  # what the API itself said, if it did

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        state = dict(vars(self))
        state.pop("request", None)  # whose headers hold the key
        raw: Any = state.get("raw_response")
        if not isinstance(raw, (Response, type(None))):  # httpx's has its request
            state["raw_response"] = Response(raw.status_code, Headers(raw.headers.items()), _content(raw))
        return _unpickled_error, (type(self), self.args, state)


def _unpickled_error(kind: Any, args: Tuple[Any, ...], state: Dict[str, Any]) -> Any:
    """An error without its constructor, which asks for more than a pickle keeps."""
    error = kind.__new__(kind)
    error.args = args  # which OSErrors with a constructor of their own lose (bpo-26579)
    error.__dict__.update(state)
    return error


class errors:
    """Everything that is raised, under AerostackError."""

    AerostackError: TypeAlias = AerostackError

    class Code(str, Enum):
        """The error codes that the API documents; another is kept as a plain string."""

        AUTH_INVALID_KEY = "AUTH_INVALID_KEY"
        AUTH_INVALID_CREDENTIALS = "AUTH_INVALID_CREDENTIALS"
        DB_QUERY_FAILED = "DB_QUERY_FAILED"
        RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
        VALIDATION_ERROR = "VALIDATION_ERROR"
        INTERNAL_ERROR = "INTERNAL_ERROR"

    class ErrorResponseData(BaseModel):
        """What the API says is wrong."""

        code: Union[errors.Code, str]
        message: str
        details: Optional[Dict[str, Any]] = None

    class ValidationError(AerostackError, ValueError):
        """Values that are missing, unknown or of a wrong type. Says where they are, not what: it may be secret."""

        def __init__(self, title: str, problems: List[Problem]) -> None:
            lines = [_shown_place(where) + ": " + words for where, _, words in problems]
            count = "%d validation error%s for %s\n" % (len(lines), "s" * (len(lines) > 1), title) if title else ""
            super().__init__(count + "\n".join(lines))
            self.problems = problems

        @classmethod
        def about(cls: Any, place: Union[str, Tuple[Any, ...]], words: str) -> Any:
            """The error of one argument, such as "timeout_ms", or of one place, such as ("body", "file")."""
            return cls("", [((place,) if isinstance(place, str) else place, "value_error", words)])

        def within(self, *place: Any) -> List[Problem]:
            """The problems, seen from further out."""
            return [((*place, *where), kind, words) for where, kind, words in self.problems]

        def errors(self) -> List[Dict[str, Any]]:
            """One dict a problem: where (`loc`, a tuple of names), what kind (`type`), in words (`msg`)."""
            return [dict(zip(("loc", "type", "msg"), problem)) for problem in self.problems]

        def error_count(self) -> int:
            return len(self.problems)

    class ArgumentTypeError(ValidationError, TypeError):
        """An argument of a wrong type."""

    class ArgumentIndexError(ValidationError, IndexError):
        """A server_idx without a server."""

    class SDKBaseError(AerostackError):
        """The server returned an error, or a response that cannot be used: status_code, headers, body, raw_response."""

        def __init__(self, message: str, raw_response: Any, body: Optional[str] = None) -> None:
            super().__init__(message)
            self.raw_response = raw_response
            self.headers = raw_response.headers
            self.status_code: int = raw_response.status_code
            self.body: str = raw_response.text if body is None else body

        def __repr__(self) -> str:
            return "%s(message=%r, status_code=%d)" % (type(self).__name__, self.message, self.status_code)

    class SDKError(SDKBaseError):
        """Any status that is no success, or a response that is not JSON. `data` is what the API said, if it did."""

        def __init__(self, message: str, raw_response: Any, body: Optional[str] = None, secrets: Any = ()) -> None:
            text: str = raw_response.text if body is None else body  # once, for some charsets take their time
            kind = _shortened(_without(secrets, raw_response.headers.get("content-type", '""')), 500)
            kind = '"%s"' % kind if " " in kind else kind
            kind = "" if kind == "application/json" else " Content-Type " + kind
            shown = _shortened(_without(secrets, text) or '""')
            message = "%sStatus %d%s. Body: %s" % (message and message + ": ", raw_response.status_code, kind, shown)
            super().__init__(_safe_text(message.strip()), raw_response, text)

    class ErrorResponse(SDKBaseError):
        """The API says what is wrong: data.code, data.message, data.details."""

        data: errors.ErrorResponseData

        def __init__(self, data: Any, raw_response: Any, body: Optional[str] = None, secrets: Any = ()) -> None:
            message = _without(secrets, str(data.message) or body or raw_response.text)
            super().__init__(_safe_text(_shortened(message, _MAX_MESSAGE_CHARS)), raw_response, body)
            self.data = data  # pyright: ignore[reportIncompatibleVariableOverride]

    class ResponseValidationError(SDKBaseError):
        """A response of broken JSON, or not of the documented shape; `cause` says where."""

        def __init__(self, message: str, raw_response: Any, cause: Exception, body: Optional[str] = None) -> None:
            super().__init__(_shortened("%s: %s" % (message, cause)), raw_response, body)
            self.cause = cause

    class RequestError(AerostackError):
        """No response came that can be used."""

        never_sent = False  # nothing of the request reached the server
        connection_lost = False  # the connection broke before the response was complete
        permanent = False  # trying again cannot help
        reused_connection = False  # it broke on a kept connection, before the first byte of a response
        request: Any = None

        def __init_subclass__(cls, **flags: bool) -> None:
            super().__init_subclass__()
            for name, value in flags.items():
                setattr(cls, name, value)

        def __init__(self, message: str, **known: Any) -> None:
            super().__init__(message)
            self.__dict__.update(known)

    class TransportError(RequestError):
        """The network, a proxy or a peer failed."""

    class TimeoutException(TransportError, TimeoutError):
        """The time ran out."""

    class ConnectTimeout(TimeoutException, never_sent=True):
        """The time ran out before there was a connection."""

    class ReadTimeout(TimeoutException):
        """The time ran out while the response was awaited."""

    class WriteTimeout(TimeoutException):
        """The time ran out while the request was sent."""

    class NetworkError(TransportError, ConnectionError):
        """The network failed."""

    class ConnectError(NetworkError, never_sent=True):
        """No connection to the server or proxy: no such host, refused, or no TLS that can be trusted."""

    class ReadError(NetworkError, connection_lost=True):
        """The connection broke while the response was awaited."""

    class WriteError(NetworkError, connection_lost=True):
        """The connection broke while the request was sent."""

    class ProtocolError(TransportError):
        """One side broke HTTP's rules."""

    class LocalProtocolError(ProtocolError, permanent=True):
        """The request cannot be sent: an upload's source failed, say."""

    class RemoteProtocolError(ProtocolError):
        """The server broke HTTP's rules, or closed the connection too soon."""

    class ProxyError(TransportError, ConnectionError, never_sent=True):
        """The proxy refused; `status_code` is what it returned."""

        status_code: Optional[int] = None

    class UnsupportedProtocol(TransportError, never_sent=True, permanent=True):
        """A URL or proxy that is not http."""

    class DecodingError(RequestError):
        """Compressed data that is broken."""

    class TooManyRedirects(RequestError):
        """A server that redirects again and again."""

    class NoResponseError(AerostackError):
        """A client or handler of yours returned no response."""

        def __init__(self, message: str = "No response received") -> None:
            super().__init__(message)

    class ClosedError(AerostackError, RuntimeError):
        """An SDK or client that is used after its close."""


# ======================================================================================================================
# Below this line is how it works. Callers need nothing of it but the official names at its end.
# ======================================================================================================================

# ---- Encode: arguments -> checked values -----------------------------------------------------------------------------

_bad = errors.ValidationError.about
_bad_type = errors.ArgumentTypeError.about
_REQUIRED = object()  # the default of a field that has none


def _require(holds: object, argument: str, words: str, error: Callable[[str, str], Exception] = _bad_type) -> None:
    if not holds:
        raise error(argument, words)


class _Field:
    """One field of a model, as its annotation says."""

    def __init__(self, model: Type[BaseModel], name: str, annotation: str) -> None:
        camel_case = re.sub("(?<!^)_(.)", lambda match: match.group(1).upper(), name)
        self.name = name
        self.annotation = annotation
        self.default = getattr(model, name, _REQUIRED)
        self.wire = model._wire_names.get(name, camel_case)
        self.names = (name, self.wire) if self.wire != name else (name,)
        self.nullable = "Optional" in annotation
        self.convert = _converter(annotation, model.__module__ == __name__)

    def converted(self, given: Any) -> Any:
        if given is UNSET:
            if self.default is _REQUIRED:
                raise errors.ValidationError("", [((), "missing", "Field required")])
            return self.default
        return None if given is None and self.nullable else self.convert(given)


def _converter(annotation: str, is_ours: bool) -> Callable[[Any], Any]:
    """What checks and converts a value for an annotation. It raises ValidationError."""
    if annotation in _CONVERTERS:
        return _CONVERTERS[annotation]
    outer, _, inner = annotation.partition("[")
    if outer in ("Optional", "OptionalNullable"):
        return _converter(inner[:-1], is_ours)
    if outer == "List":
        return functools.partial(_to_list, _converter(inner[:-1], is_ours))
    if outer.startswith("models.") and hasattr(models, outer[7:]):
        return functools.partial(_to_model, getattr(models, outer[7:]))
    if is_ours:
        raise TypeError("no converter for the annotation %r" % annotation)
    return _to_any  # a model of the caller's own, with a type that this file does not know


def _shown_place(where: Tuple[Any, ...]) -> str:
    """("body", "value", 3, "x") -> "body.value[3].x"."""
    return "".join("[%d]" % step if type(step) is int else ".%s" % step for step in where).lstrip(".")


def _validated(model: Type[M], value: Any, title: str, *place: str) -> M:
    try:
        return _to_model(model, value)
    except errors.ValidationError as error:
        raise errors.ValidationError(title, error.within(*place)) from None


def _to_model(model: Type[M], value: Any) -> M:
    if isinstance(value, model):  # it may have changed since it was made
        value = {**value.model_extra, **value._values()}
    if not isinstance(value, Mapping):
        is_bare = issubclass(model, _Request) and not isinstance(value, BaseModel)
        hint = "; did you mean %s=...?" % model._fields()[0].name if is_bare else ""
        raise _bad((), "Input should be a dictionary or a %s%s" % (model.__name__, hint))
    instance = model.__new__(model)
    instance._fill(value)
    return instance


def _to_list(convert: Callable[[Any], Any], value: Any) -> List[Any]:
    """All items converted, or one error with all that is wrong."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(value, Iterable):
        raise _bad((), "Input should be a valid list")
    items = list(value)
    are_dicts = convert is _to_object and set(map(type, items)) <= {dict}
    if convert is _to_any or (are_dicts and set(map(type, chain.from_iterable(items))) <= {str}):
        return items  # many rows are checked without a line of Python for each
    converted = []
    problems: List[Problem] = []
    for index, item in enumerate(items):
        try:
            converted.append(convert(item))
        except errors.ValidationError as error:
            problems += error.within(index)
            if len(problems) >= _MAX_PROBLEMS:
                break
    if problems:
        raise errors.ValidationError("", problems)
    return converted


def _to_object(value: Any) -> Dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad((), "Input should be a valid dictionary")
    for key in value:
        if not isinstance(key, (str, bytes, bytearray)):
            raise _bad((str(key), "[key]"), "Keys should be strings")
    return {_to_text(key): item for key, item in value.items()}


def _to_enum(enum: Type[Enum], value: Any) -> Any:
    text = _to_text(value)
    return next((member for member in enum if member.value == text), text)


def _to_any(value: Any) -> Any:
    return value


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # a str enum, as its value
    try:
        return value.decode()  # type: ignore[no-any-return]
    except (AttributeError, UnicodeDecodeError):
        raise _bad((), "Input should be a valid string, or bytes in UTF-8") from None


def _to_integer(value: Any) -> int:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2.0**63
    is_digits = isinstance(value, str) and re.fullmatch("-?[0-9]{1,4300}", value)
    read: Any = int if is_whole or is_digits else operator.index
    return int(read(value))


def _or_refused(convert: Callable[[Any], Any], kind: str) -> Callable[[Any], Any]:
    """A conversion whose failures are ValidationErrors."""

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            raise _bad((), "Input should be a valid " + kind) from None

    return converted


def parse_datetime(datetime_string: Union[str, float]) -> datetime:
    """A datetime from RFC 3339 text, naive if it has no offset, or from Unix time in seconds, as text or a number.

    A number beyond the year 2603 is in milliseconds. Raises ValueError.
    """
    text = str(datetime_string)
    if type(datetime_string) in (int, float) or re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", text):
        number = float(datetime_string)
        unit, scale = ("milliseconds", 1e3) if abs(number) > 2e10 else ("seconds", 1e6)
        since = timedelta(microseconds=int(number % 1 * scale + 0.5), **{unit: number // 1})  # half of one counts up
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + since
    match = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
        r"(?:[Tt _]((?:[01][0-9]|2[0-3]):[0-9]{2})(?:(:[0-9]{2})(?:[.,]([0-9]+))?)?"
        r"(?:([Zz])|([+\u2212-][0-9]{2}):?([0-5][0-9]))?)?",
        text,
    )
    if not match:
        raise ValueError("not a datetime")
    day, clock, seconds, fraction, utc, hours, minutes = match.groups("")
    offset = "+00:00" if utc else "%s:%s" % (hours.replace("\u2212", "-"), minutes) if hours else ""
    microseconds = (fraction + "000000")[:6]
    return datetime.fromisoformat("%sT%s%s.%s%s" % (day, clock or "00:00", seconds or ":00", microseconds, offset))


def _to_content(value: Any) -> Any:
    """What an upload can be read from. A str is refused: it is nearly always a path that was meant to be opened."""
    read = getattr(value, "read", None)
    is_text = isinstance(value, str) or (read and hasattr(value, "encoding"))
    flags = getattr(getattr(read, "__code__", None), "co_flags", 0)
    is_awaited = hasattr(value, "__aiter__") or flags & 0x80  # inspect.CO_COROUTINE
    is_open = not getattr(value, "closed", False) and getattr(value, "readable", lambda: True)()
    holds_bytes = isinstance(value, (os.PathLike, Iterable)) and not isinstance(value, Mapping)
    if is_text or is_awaited or not is_open or not (read or holds_bytes):
        words = "Input should be bytes, a pathlib.Path, an iterable of bytes, or a file open for reading in binary mode"
        raise _bad((), words + ", 'rb' (of an UploadFile its .file); no text, nothing closed, nothing to await")
    return value


def _nearest(name: object, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(str(name)[:100], list(known), 1, 0.5)
    return "; did you mean %r?" % near[0] if near else "; known are " + ", ".join(sorted(filter(None, known)))


_CONVERTERS: Dict[str, Callable[[Any], Any]] = {
    "Any": _to_any,
    "Content": _to_content,
    "Dict[str, Any]": _to_object,
    "MessageContent": lambda value: list(value) if isinstance(value, (list, tuple)) else _to_text(value),
    "Union[errors.Code, str]": functools.partial(_to_enum, errors.Code),
    "Union[models.Role, str]": functools.partial(_to_enum, models.Role),
    "bool": _or_refused({False: False, True: True, "false": False, "true": True}.__getitem__, "boolean"),  # 0 and 1 too
    "datetime": _or_refused(lambda value: value if isinstance(value, datetime) else parse_datetime(value), "datetime"),
    "float": _or_refused(lambda value: value if isinstance(value, int) else float(value), "number"),
    "int": _or_refused(_to_integer, "integer"),
    "str": _to_text,
}


def _positive_int(name: str, value: Any) -> int:
    _require(type(value) is int and value > 0, name, "must be a whole number above 0")
    return int(value)


def _seconds(name: str, value: Any, per_second: float = 1) -> Optional[float]:
    """A timeout in seconds; None if none was asked for; infinite if no clock can count them."""
    if value is None:
        return None
    is_positive = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    _require(is_positive, name, "must be a number above 0; math.inf for no limit")
    return _FOREVER if value > _LONGEST_SECONDS * per_second else value / per_second


def _security(api_key_auth: Any) -> Union[models.Security, Callable[[], models.Security]]:
    if callable(api_key_auth):
        return lambda: _checked_key(api_key_auth())
    return _checked_key(os.environ.get("AEROSTACK_API_KEY", "") if api_key_auth is None else api_key_auth)


def _checked_key(value: Any) -> models.Security:
    value = value.strip() if isinstance(value, (str, bytes)) else value  # one read from a file ends in a line end
    key = _checked_headers({"X-Aerostack-Key": value}, "api_key_auth")["x-aerostack-key"]
    _require(key, "api_key_auth", "is empty; pass the key, or set AEROSTACK_API_KEY", _bad)
    return models.Security(api_key_auth=key)


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2: a method, or a header's name


def _checked_headers(headers: Optional[Mapping[str, str]], argument: str) -> Dict[str, str]:
    """Headers by lower-case name that cannot break out of their line (CVE-2019-9740). The errors show no value."""
    checked = {}
    _require(headers is None or isinstance(headers, Mapping), argument, "must map names to values")
    for name, value in (headers or {}).items():
        _require(isinstance(name, str) and _TOKEN.fullmatch(name), argument, "a header cannot have such a name")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        is_text = isinstance(text, str) and re.fullmatch("[\t -~]*", text)
        _require(is_text, argument, "the value of %r must be printable ASCII text" % name)
        checked[name.lower()] = text
    return checked


def _checked_handlers(handlers: Any) -> List[urllib.request.BaseHandler]:
    _require(isinstance(handlers, Iterable), "handlers", "must be a list of urllib.request handlers")
    checked = list(handlers)
    for handler in checked:
        opens = hasattr(handler, "http_open") or hasattr(handler, "https_open")
        is_handler = isinstance(handler, urllib.request.BaseHandler) and not opens
        _require(is_handler, "handlers", "must be urllib.request handlers that open no connections")
    return checked


def _filled_template(server_url: Any, url_params: Any) -> Any:
    """A server_url with values for its `{names}`."""
    _require(isinstance(server_url or "", str), "server_url", "must be a string")
    is_mapping = isinstance(url_params, Mapping) and all(isinstance(value, str) for value in url_params.values())
    _require(is_mapping, "url_params", "must map names to strings")
    return server_url and re.sub("{([^{}]*)}", lambda match: url_params.get(match.group(1), match.group()), server_url)


class _Url:
    """An http or https URL (RFC 3986) without credentials, checked and taken apart."""

    def __init__(self, text: str) -> None:
        # No host but ASCII: IDNA folds some characters into "/", "@" and ":" (bpo-36216).
        match = re.fullmatch(
            r"(?ais)(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=-]+)(?::([0-9]{0,5}))?"
            r"((?:[/?][^#\0-\x1f\x7f\ud800-\udfff]*)?)(?:#[^\0-\x1f\x7f]*)?",
            text,
        )
        if not match or not 0 < int(match.group(3) or 1) < 65536:
            words = "must be http:// or https://, a host in ASCII (others in their xn-- form), and a port up to 65535,"
            raise errors.UnsupportedProtocol(words + " without control characters")
        scheme, host, port, target = match.groups("")
        self.scheme = scheme.lower()
        self.host = host.strip("[]").lower()  # IPv6 without brackets
        self.port = int(port or (443 if self.scheme == "https" else 80))
        self.address = "%s:%d" % (host, self.port)
        self.authority = self.address if port else host  # as given
        self.origin = (self.scheme, self.host, self.port)
        path = target if target.startswith("/") else "/" + target
        self.target = urllib.parse.quote(path, "!#$%&'()*+,/:;=?@[]~")  # path and query
        self.text = "%s://%s%s" % (self.scheme, self.authority, self.target)


_parse_url = functools.lru_cache(maxsize=64)(_Url)


def _split_credentials(url: str, authority: str = "[^/?#]*") -> Tuple[str, str]:
    """A URL without its user:password@, and what these mean as an Authorization (RFC 7617)."""
    match = re.match("(?s)([^:]*://)(%s)@(.*)" % authority, url) if "@" in url else None
    if not match:
        return url, ""
    from base64 import b64encode

    scheme, credentials, rest = match.groups()
    user, _, password = credentials.encode("utf-8", "replace").partition(b":")
    pair = b"%b:%b" % (urllib.parse.unquote_to_bytes(user), urllib.parse.unquote_to_bytes(password))
    return scheme + rest, "Basic " + b64encode(pair).decode()


def _check_server_url(server_url: Any) -> str:
    """A URL that an operation's path can be appended to."""
    _require(isinstance(server_url, str), "server_url", "must be a string")
    bare, _ = _split_credentials(server_url)
    try:
        _parse_url(bare)
    except errors.UnsupportedProtocol as error:
        raise _bad("server_url", str(error)) from None
    _require(not re.search("[?#]", bare), "server_url", "must have no query and no fragment", _bad)
    return server_url.rstrip("/")  # type: ignore[no-any-return]


def _shown_url(url: object) -> str:
    """A URL without its credentials, however malformed it is."""
    credentials, at, rest = str(url).rpartition("@")
    scheme = re.match("([a-zA-Z][a-zA-Z0-9+.-]*:/*)?", credentials)
    return (scheme.group() if scheme else "") + at.replace("@", "***@") + rest


# ---- Encode: model -> body -------------------------------------------------------------------------------------------


class _Call:
    """One operation under way: what is sent, how it may be repeated, and what is known about it so far."""

    started_at = 0.0
    attempt_started_at = 0.0
    attempts = 0
    is_own_error = True  # whether the latest outcome is of this request, not of other code that ran meanwhile
    maybe_processed = False
    cannot_be_read_again = False
    content: Union[bytes, _Upload]
    request: Any = None  # as the client has built it

    def __init__(
        self, service: _Service, operation: Operation, request: object, retries: Retries, options: Dict[str, Any]
    ) -> None:
        configuration = service.sdk_configuration
        self.operation = operation
        self.half = configuration.sync_half if service.scope is None else configuration.async_half
        self.scope = service.scope or _CancelScope()
        self.logger = _logger(configuration)
        server_url = options.pop("server_url", None)
        timeout_ms = options.pop("timeout_ms", None)
        http_headers = _checked_headers(options.pop("http_headers", None), "http_headers")
        is_upload = operation.request_type is models.StorageUploadRequestBody
        progress = options.pop("progress", None) if is_upload else None
        words = "%s takes either a request or its fields as keywords" % operation.name
        _require(request is None or not options, "request", words)
        model: Any = _validated(operation.request_type, options if request is None else request, operation.name, "body")
        security = configuration.security() if callable(configuration.security) else configuration.security
        server_url = configuration.get_server_details()[0] if server_url is None else server_url
        self.url = _check_server_url(server_url) + operation.path
        retry_config = configuration.retry_config if retries is UNSET else retries
        self.retries = _retry_policy(retry_config, operation.idempotent)
        timeout_ms = configuration.timeout_ms if timeout_ms is None else timeout_ms
        self.timeout_seconds = _seconds("timeout_ms", timeout_ms, 1000)
        self.content, content_type = _multipart(model, progress) if is_upload else _json_body(model, operation.name)
        self.request_id: str = http_headers.get("x-request-id", _new_request_id())
        headers = {
            "accept": "application/json",
            "accept-encoding": "gzip",
            "content-type": content_type,
            "user-agent": configuration.user_agent,
            "x-aerostack-key": security.api_key_auth,
            "x-request-id": self.request_id,
            **http_headers,
        }
        self.headers = Headers(headers)
        self.password: Optional[str] = getattr(model, "password", None)

    @property
    def secrets(self) -> List[str]:
        """What nobody may see: a password, and the values of all headers but those known to be harmless."""
        headers = dict(self.headers)
        if isinstance(self.request, Request):
            headers.update(self.request.headers)  # with the client's own
        hidden = [value for name, value in headers.items() if name not in _SHOWN_HEADERS]
        found = chain.from_iterable(map(_credentials, [*hidden, self.scope.proxy_authorization]))
        return [secret for secret in (*found, self.password) if secret]


def _new_request_id() -> str:
    """A random UUID (RFC 9562, version 4); importing uuid takes 2 ms."""
    digits = os.urandom(16).hex()
    return "%s-%s-4%s-a%s-%s" % (digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])


def _json_body(model: BaseModel, title: str) -> Tuple[bytes, str]:
    """Compact JSON and its type. The C encoder does the work; only what it cannot write is walked through in Python."""
    text = ""
    try:
        body = model.model_dump(by_alias=True)
        text = _encode_json(body)
        is_written = '"null":' not in text or not _may_have_none_keys(body)  # the encoder writes a key None so
    except (TypeError, ValueError, RecursionError):
        is_written = False
    try:
        if not is_written:  # the walk says why
            text = _encode_json(_plain(model.model_dump(by_alias=True), ("body",)))
    except errors.ValidationError as error:
        raise errors.ValidationError(title, error.problems) from None
    except (ValueError, RecursionError) as error:
        raise _bad("body", "cannot be written as JSON: %s" % error) from None
    return text.encode("ascii"), "application/json"


def _may_have_none_keys(value: Any) -> bool:
    """False if all is dicts, lists and plain values, without a key None. Takes a sixth of the time of `_plain`."""
    waiting = [value]
    for value in waiting:  # which grows meanwhile
        if type(value) not in (dict, list) or (type(value) is dict and None in value):
            return True
        items = value.values() if type(value) is dict else value
        waiting += [item for item in items if type(item) not in _PLAIN_TYPES]
    return False


_PLAIN_TYPES = frozenset([str, int, float, bool, type(None)])


def _plain(value: Any, path: Tuple[Any, ...]) -> Any:
    """A value as dicts, lists, strings, numbers, booleans and None. ValidationError says where that is impossible."""
    if isinstance(value, float) and value - value != 0:
        raise _bad(path, "is NaN or infinite, which JSON cannot say")
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, Enum)):
        return value
    if len(path) > 250:
        raise _bad(path[:20], "holds itself, or is nested too deeply")
    if isinstance(value, dict):
        return {_plain_key(key, path): _plain(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple, Iterator)):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    try:
        leaf = _leaf(value)
    except (TypeError, ValueError) as error:
        raise _bad(path, "cannot be written as JSON: %s" % error) from None
    return _plain(leaf, path)


def _plain_key(key: Any, path: Tuple[Any, ...]) -> str:
    plain = _plain(key, path)
    if isinstance(plain, (str, int, float)):
        return plain if isinstance(plain, str) else _encode_json(plain)
    raise _bad(path, "has a key that JSON cannot have: " + type(key).__name__)


def _leaf(value: Any) -> Any:
    """A value that JSON has no type for, as the official SDK writes it. Raises TypeError or ValueError."""
    for kinds, write in _WRITTEN:
        if isinstance(value, kinds):
            return write(value)
    if hasattr(type(value), "model_dump"):  # a pydantic model
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if any((base.__module__, base.__name__) in _WRITTEN_AS_TEXT for base in type(value).__mro__):
        return str(value)
    if hasattr(type(value), "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, Iterable) and hasattr(value, "__len__") and not isinstance(value, type):
        return list(value)  # set, deque, range, dict views
    raise TypeError(type(value).__name__)


def _iso_duration(value: timedelta) -> str:
    """ISO 8601, without what is 0: P1DT1M30S."""
    size = abs(value)
    seconds = ("%d.%06d" % (size.seconds % 60, size.microseconds)).rstrip("0").rstrip(".")
    text = "P%dDT%dH%dM%sS" % (size.days, size.seconds // 3600, size.seconds // 60 % 60, seconds)
    text = re.sub("(?<![0-9.])0[DHMS]", "", text).rstrip("T")
    return ("-" if value < timedelta(0) else "") + (text if text != "P" else "PT0S")


_WRITTEN: List[Tuple[Any, Callable[[Any], Any]]] = [
    (Enum, lambda value: value.value),
    ((date, clock_time), lambda value: re.sub(r"\+00:00$", "Z", value.isoformat())),
    (timedelta, _iso_duration),
    ((bytes, bytearray, memoryview), lambda value: str(value, "utf-8")),
    (BaseModel, lambda value: value.model_dump(by_alias=True)),
    (os.PathLike, os.fspath),
    (Mapping, dict),
]
_WRITTEN_AS_TEXT = frozenset([("decimal", "Decimal"), ("uuid", "UUID"), ("ipaddress", "_IPAddressBase")])
_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_leaf).encode


class _Upload:
    """A body in blocks, from whatever holds bytes or gives them. Each walk reads it anew, from its start."""

    def __init__(
        self, content: Any, place: Tuple[str, ...], progress: Optional[Progress], head: bytes, tail: bytes
    ) -> None:
        self.head = head
        self.tail = tail
        self.progress = progress or (lambda sent, total: None)
        self.is_spent = False
        try:
            self.size, self.rereadable, self.pieces = _source(content)
        except Exception as error:
            raise _bad(place, "cannot be read: %s" % error) from error
        self.length = None if self.size is None else len(head) + self.size + len(tail)

    def __len__(self) -> int:
        """What watches urllib asks for this (OpenTelemetry); 0 where only reading tells."""
        return min(self.length or 0, sys.maxsize)

    def __iter__(self) -> Iterator[bytes]:
        """For clients that are not ours."""
        return map(bytes, self.blocks())

    def blocks(self) -> Iterator[memoryview]:
        """All of the body; `progress` is told of a block when the next is asked for, since then it has left."""
        if self.is_spent:
            raise errors.LocalProtocolError("the upload's source cannot be read twice")
        self.is_spent = not self.rereadable
        sent = 0
        self.progress(0, self.length)
        blocks: Iterable[memoryview] = chain([memoryview(self.head)], self.content(), [memoryview(self.tail)])
        if self.length is not None and self.length <= _BLOCK_BYTES:
            blocks = [memoryview(b"".join(blocks))]  # which leaves in one send
        for block in blocks:
            if len(block):
                yield block
                sent += len(block)
                self.progress(sent, self.length)

    def content(self) -> Iterator[memoryview]:
        """The content, as long as it was measured to be, in blocks of a limited size."""
        left = 2**63 if self.size is None else self.size
        try:
            for piece in self.pieces():
                view = memoryview(piece).cast("B")[:left] if len(piece) else memoryview(b"")
                for start in range(0, len(view), _BLOCK_BYTES):
                    yield view[start : start + _BLOCK_BYTES]
                left -= len(view)
                if not left:
                    break
        except Exception as error:
            raise errors.LocalProtocolError("reading the upload's source for bytes failed: %r" % error) from error
        if self.size is not None and left:
            words = "the upload's source ended after %d of %d bytes" % (self.size - left, self.size)
            raise errors.LocalProtocolError(words)


def _source(content: Any) -> Tuple[Optional[int], bool, Callable[[], Iterable[Any]]]:
    """How long content is (None if only reading tells), whether it can be read twice, and what reads it."""
    if isinstance(content, (list, tuple)):
        return sum(memoryview(piece).nbytes for piece in content), True, lambda: content
    if isinstance(content, os.PathLike):
        if stat.S_ISFIFO(os.stat(content).st_mode):  # to open it may block
            return None, False, lambda: _path_pieces(content)
        with open(content, "rb") as reader:
            size, rereadable, _ = _source(reader)
        return size, rereadable, lambda: _path_pieces(content)
    if not hasattr(content, "read"):
        try:
            view = memoryview(content)
        except TypeError:  # an iterable, which may be spent after one walk
            return None, False, lambda: content
        return view.nbytes, True, lambda: [view if view.c_contiguous else view.tobytes()]
    if not getattr(content, "seekable", lambda: hasattr(content, "seek"))():
        return None, False, lambda: _pieces(content, False)
    try:
        size = content.seek(0, 2) or content.tell()  # before Python 3.11, a SpooledTemporaryFile's seek() gives None
    except OSError:  # most files in /proc have no end
        return None, False, lambda: _pieces(content, False)
    content.seek(0)
    if not size and next(_pieces(content, False)):
        size = None  # as in /proc, where files have no size
    return size, True, lambda: _pieces(content, True)


def _path_pieces(path: Any) -> Iterator[Any]:
    with open(path, "rb", buffering=0) as reader:
        yield from _pieces(reader, False)


def _pieces(reader: Any, rewinds: bool) -> Iterator[Any]:
    """What a reader gives, with its empty end."""
    if rewinds:
        reader.seek(0)
    piece = None
    while piece is None or len(piece):
        try:
            piece = reader.read(_BLOCK_BYTES)
        except TypeError:  # of a class whose read() takes no size, and gives all at once
            yield reader.read()
            return
        yield piece


def _as_body(content: Any) -> Union[bytes, _Upload]:
    if content is None or isinstance(content, str):
        return (content or "").encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if isinstance(content, _AwaitedBlocks):  # by way of a client of the caller's own that hands on to ours
        return content.upload
    return content if isinstance(content, _Upload) else _Upload(content, ("content",), None, b"", b"")


# As browsers and the official SDK escape file names; there, ESC stays as it is.
_ESCAPES = {**{code: "%%%02X" % code for code in range(32) if code != 27}, ord('"'): "%22", ord("\\"): "\\\\"}


def _multipart(model: Any, progress: Optional[Progress]) -> Tuple[_Upload, str]:
    """A multipart/form-data body (RFC 7578), and its content type."""
    import mimetypes

    name = model.file.file_name
    content_type = model.file.content_type
    if not name:
        raise _bad(("body", "file", "file_name"), "must not be empty")
    if content_type is None:  # the last step alone, for Python 3.13 takes "//[a" for a broken URL
        content_type = mimetypes.guess_type(name.rpartition("/")[2])[0] or "application/octet-stream"
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", content_type):  # which would add headers to the part
        raise _bad(("body", "file", "content_type"), "has control characters")
    _require(progress is None or callable(progress), "progress", "must be a callable (sent, total)")
    boundary = os.urandom(16).hex()
    part = "--" + boundary + '\r\nContent-Disposition: form-data; name="%s"'
    fields = [("key", model.key), ("contentType", model.content_type)]
    head = "".join((part + "\r\n\r\n%s\r\n") % field for field in fields if field[1] is not None)
    head += part % "file" + '; filename="%s"\r\nContent-Type: %s\r\n\r\n' % (name.translate(_ESCAPES), content_type)
    _require(not re.search("[\ud800-\udfff]", head), "body", "a key, name or type has lone surrogates", _bad)
    tail = "\r\n--%s--\r\n" % boundary
    upload = _Upload(model.file.content, ("body", "file"), progress, head.encode(), tail.encode())
    return upload, "multipart/form-data; boundary=" + boundary


# ---- Retries: call -> outcome -> model, the only place that decides to wait ------------------------------------------

# Which outcomes are tried again (statuses, and what `_trouble` makes of errors), how often, and when.
_Policy = collections.namedtuple("_Policy", "repeated attempts longest_wait backoff")
_STATUSES = frozenset([429, 500, 502, 503, 504])
_NOTHING_DONE = frozenset([429, 503, "unsent"])
_MAYBE_DONE = frozenset([520, 521, 522, 523, 524, 529, 530, "lost"])  # the numbers are Cloudflare's
_DEFAULT_POLICY = _Policy(_NOTHING_DONE, _DEFAULT_ATTEMPTS, 8, BackoffStrategy(500, 8_000, 2, 60_000))
_IDEMPOTENT_POLICY = _DEFAULT_POLICY._replace(repeated=_STATUSES | _NOTHING_DONE | _MAYBE_DONE)


def _perform(service: _Service, operation: Operation, request: object, retries: Retries, fields: Dict[str, Any]) -> Any:
    """One call, from its arguments to a model or an error that knows all about it."""
    call = None
    try:
        call = _Call(service, operation, request, retries, fields)
        return _attempts(call)
    except AerostackError as error:
        if call is not None:
            _annotate(error, call)
        raise error.with_traceback(None)  # noqa: B904  # the frames below hold keys and bodies; the cause stays
    finally:
        fields.clear()
        del request


def _attempts(call: _Call) -> Any:
    """Attempts, until there is a response to decode or an error to raise."""
    call.started_at = call.half.monotonic()
    client = call.half.client
    call.request = _built_request(call, client)
    while True:
        outcome = _attempt(call, client)
        delay = _next_delay(call, outcome)
        _log_outcome(call, outcome, delay)
        if delay is None or not call.half.sleep(call.scope, delay):
            return _decode(call, outcome)


def _built_request(call: _Call, client: Any) -> Any:
    """A client's request for all attempts."""
    content: Any = call.content if isinstance(call.content, _Upload) else None
    options: Dict[str, Any] = {}
    if client is None:
        raise errors.ClosedError("the SDK is closed")
    is_ours = isinstance(client, HttpClient)
    if call.timeout_seconds is not None:  # or the client's own timeout holds
        options["timeout"] = call.timeout_seconds if is_ours or call.timeout_seconds < _FOREVER else None
    if not is_ours and content is not None:
        if content.length is not None:
            call.headers["content-length"] = str(content.length)
        if call.scope.loop is not None:
            content = _AwaitedBlocks(content)
    return client.build_request(  # with no locals that hold a password
        call.operation.method,
        call.url,
        content=content or call.content,
        headers=call.headers if is_ours else {name.title(): value for name, value in call.headers.items()},
        **options,
    )


def _attempt(call: _Call, client: Any) -> Any:
    """A response, or the error that came instead of one."""
    call.attempts += 1
    _log_request(call)
    call.attempt_started_at = call.half.monotonic()
    call.is_own_error = True
    try:
        response = call.half.send(call.scope, client, call.request)
        if response is None:
            raise errors.NoResponseError()
    except Exception as error:
        if isinstance(error, (errors.ClosedError, errors.ValidationError)) and error.request_id is None:
            call.attempts -= 1  # it never began
            raise
        call.is_own_error = _is_about(call.request, error)
        never_sent = call.is_own_error and getattr(error, "never_sent", _error_kind(error).never_sent)
        call.maybe_processed |= not never_sent
        return error
    call.maybe_processed |= not (400 <= response.status_code < 500 or response.status_code == 503)
    return response


def _next_delay(call: _Call, outcome: Any) -> Optional[float]:
    """Seconds until the next attempt; None if this outcome is the last. No wait ends past max_elapsed_time."""
    policy = call.retries
    if policy is None or not call.is_own_error or call.half.client is None or call.scope.cancelled:
        return None
    if call.attempts >= policy.attempts or _trouble(outcome) not in policy.repeated:
        return None
    if isinstance(call.content, _Upload) and call.content.is_spent:
        call.cannot_be_read_again = True
        return None
    delay = _retry_after_seconds(outcome, call.half.wall())
    if delay is None:
        delay = _jittered_seconds(policy.backoff, call.attempts)
    elif delay > policy.longest_wait:
        return None
    if getattr(outcome, "reused_connection", False) and call.attempts == 1:
        delay = 0.0  # the server closed an idle connection as the request was written; waiting mends nothing
    left = policy.backoff.max_elapsed_time / 1000 - (call.half.monotonic() - call.started_at)
    return delay if delay <= min(left, _LONGEST_SECONDS) else None


def _retry_policy(config: Any, idempotent: bool) -> Optional[_Policy]:
    """None means one attempt, as does any strategy but "backoff"."""
    if config is UNSET:
        return _IDEMPOTENT_POLICY if idempotent else _DEFAULT_POLICY
    if getattr(config, "strategy", None) != "backoff":
        return None
    for name in ("initial_interval", "max_interval", "exponent", "max_elapsed_time"):
        value = getattr(config.backoff, name, None)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise _bad(name, "must be a number, and not negative")
    repeated = _STATUSES | {"unsent", "lost", "timeout"} if config.retry_connection_errors else _STATUSES
    return _Policy(repeated, _FOREVER, _FOREVER, config.backoff)


def _trouble(outcome: Any) -> Any:
    """A response's status, or in a word what an error means for another attempt."""
    if not isinstance(outcome, Exception):
        return outcome.status_code
    kind = _error_kind(outcome)
    if getattr(outcome, "permanent", kind.permanent):
        return "permanent"
    if issubclass(kind, errors.TimeoutException):  # even one that sent nothing is not repeated by default
        return "timeout"
    if getattr(outcome, "never_sent", kind.never_sent):
        return "unsent"
    hung_up = kind is errors.RemoteProtocolError and re.search("disconnected|closed connection", str(outcome))
    is_lost = getattr(outcome, "connection_lost", kind.connection_lost or hung_up)  # or httpx's
    return "lost" if is_lost else "other"


def _jittered_seconds(backoff: BackoffStrategy, attempts: int) -> float:
    """Full jitter: evenly between 0 and the ceiling, so that clients do not come back in step."""
    try:
        ceiling = min(backoff.initial_interval * backoff.exponent ** (attempts - 1), backoff.max_interval)
    except OverflowError:
        ceiling = backoff.max_interval
    return ceiling / 1000 * int.from_bytes(os.urandom(4), "big") / 2**32  # urandom: forks must not draw the same


def _error_kind(error: BaseException) -> Type[errors.RequestError]:
    """Our class of an error, or ours of the same name for httpx's, which a client of the caller's may raise."""
    kinds = (getattr(errors, base.__name__, None) for base in type(error).__mro__)
    ours = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, errors.RequestError))
    return next(ours, errors.RequestError)


def _is_about(request: Any, error: Any) -> bool:
    """Whether an error is of this request, not of what a progress, handler, hook or client of the caller's did."""
    if getattr(error, "request_id", None) is not None:  # of another call
        return False
    if isinstance(request, Request):
        return isinstance(error, errors.RequestError) and getattr(error.request, "scope", None) is request.scope
    url = getattr(getattr(error, "_request", None), "url", None)  # httpx's
    return url in (None, getattr(request, "url", url))


def _retry_after_seconds(outcome: Any, wall_seconds: float) -> Optional[float]:
    """What Retry-After asks for (RFC 9110, 10.2.3); None if nothing, garbage, or not in the future."""
    text = (getattr(outcome, "headers", None) or {}).get("retry-after", "").strip()
    if not text or not text.isascii():
        return None
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


def _annotate(error: AerostackError, call: _Call) -> None:
    """Tell an error what is known about the call, and take the call's secrets out of it."""
    error.maybe_processed |= call.maybe_processed
    if error.request_id is not None:  # it is another call's, made by a hook of this one
        return
    error.request_id = call.request_id
    error.attempts = call.attempts
    error.retry_after = _retry_after_seconds(error, call.half.wall())
    if isinstance(error, errors.RequestError) and error.connection_lost and call.maybe_processed:
        error.message += "; the request may have been processed"
    if call.cannot_be_read_again:
        error.message += "; not tried again, for the upload's source cannot be read twice"
    if error.data is not None:
        error.data.message = _without(call.secrets, error.data.message)
        if not isinstance(error.data.code, errors.Code):
            error.data.code = _without(call.secrets, error.data.code)
    if isinstance(error, (errors.RequestError, errors.SDKBaseError)):
        error.message = _without(call.secrets, error.message)
        error.args = (error.message,)


class _Half:
    """One half of an SDK, the synchronous or the `_async` one: its client, clocks and threads."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self, client: Any, default: Any, argument: str, close_method: str, workers: Any = None) -> None:
        self.workers: _Workers = workers
        self.supplied = client is not None
        self.client = default() if client is None else client  # None once closed
        self.sleeping: Set[_CancelScope] = set()
        for method in ("build_request", "send", close_method):
            if not callable(getattr(self.client, method, None)):
                raise _bad_type(argument, "has no method " + method)

    def send(self, scope: _CancelScope, client: Any, request: Any) -> Any:
        if isinstance(request, Request):
            request.scope = scope
        if getattr(type(client), "send", None) is AsyncHttpClient.send:
            return HttpClient.send(client, request)
        if scope.loop is not None:
            return _on_loop(scope, lambda: client.send(request, stream=False))
        outcome = client.send(request, stream=False)
        if not hasattr(outcome, "__await__"):
            return outcome
        outcome.close()
        raise _bad_type("client", "is to be awaited; pass it as async_client")

    def sleep(self, scope: _CancelScope, seconds: float) -> bool:
        """Wait before the next attempt; False if there is to be none."""
        self.sleeping.add(scope)
        try:
            if self.client is not None:
                scope.sleep(seconds)
        finally:
            self.sleeping.discard(scope)
        return self.client is not None and not scope.cancelled

    def close(self) -> None:
        client = self.client
        self.client = None
        if client is not None and not self.supplied:
            client.close()
        if self.workers is not None:
            self.workers.close()
        for scope in list(self.sleeping):
            scope.cancel()


# ---- Transport: request -> response, in blocks; the only place that opens a socket -----------------------------------


class _CancelScope:
    """What ends a call early: its deadline, or who cancels it from another thread. Asked before every wait."""

    def __init__(self, loop: Any = None) -> None:
        self.loop = loop  # asyncio's, of an `_async` call
        self.cancelled = False
        self.lock = threading.RLock()
        self.end_wait: Optional[Callable[[], object]] = None
        self.proxy_authorization = ""  # of the proxy that the request went through
        self.start(_FOREVER, False)

    def start(self, seconds: float, renews: bool) -> None:
        """A new attempt: how long it may take, or, if that renews, how long without a byte moving."""
        self.seconds = seconds
        self.renews = renews
        self.deadline = time.monotonic() + seconds

    def moved(self) -> None:
        """Bytes have moved."""
        if self.renews:
            self.deadline = time.monotonic() + self.seconds

    def left(self, kind: Type[errors.TimeoutException], doing: str) -> float:
        """The seconds left. Raises the error when there are none."""
        left = self.deadline - time.monotonic()
        if left > 0:
            return left
        idle = " without a byte moving" if self.renews else ""
        raise kind("timed out after %g s%s, while %s" % (self.seconds, idle, doing))

    def watch(self, end_wait: Optional[Callable[[], object]]) -> None:
        """From now on, `end_wait` ends the wait; with None there is none to end."""
        with self.lock:
            self.end_wait = end_wait
            if self.cancelled and end_wait:
                raise errors.ReadError("the call was cancelled")

    def cancel(self) -> None:
        """End the wait, if there is one, and let no other begin."""
        with self.lock:
            self.cancelled = True
            end_wait = self.end_wait
            self.end_wait = None
            if end_wait:
                end_wait()

    def sleep(self, seconds: float) -> None:
        """Wait; the only place that does so without waiting for something."""
        gate = threading.Lock()  # an Event's inner lock would hang a signal handler that closes the SDK
        gate.acquire()
        with self.lock:
            if self.cancelled:
                return
            self.end_wait = gate.release
        gate.acquire(timeout=seconds)
        self.watch(None)


class _SameOriginRedirects(urllib.request.BaseHandler):
    """Follows 307 and 308 (RFC 9110, 15.4) within one origin, with the same method, headers and body; nothing else."""

    handler_order = 1000  # the caller's handlers see a redirect before it is followed

    def http_response(self, request: Any, response: Any) -> Any:
        if getattr(response, "status_code", None) not in (307, 308) or "location" not in response.headers:
            return response
        try:
            target = _parse_url(urllib.parse.urljoin(request.full_url, response.headers["location"]))
        except (errors.UnsupportedProtocol, ValueError):
            return response
        if target.origin != request.parsed_url.origin:
            return response
        if request.redirects >= _MAX_REDIRECTS:
            raise errors.TooManyRedirects("more than %d redirects" % _MAX_REDIRECTS, request=request)
        request = request.copy()
        request.full_url = target.text
        request.redirects += 1
        return self.parent.open(request, timeout=request.timeout)

    https_response = http_response


class _Pool(urllib.request.BaseHandler):
    """Opens http and https for urllib.request, over connections that stay open. Idle ones change hands only under the
    lock; sockets are touched only outside it."""

    def __init__(self, proxy: Any, ssl_context: Optional[ssl.SSLContext], max_kept: int, max_bytes: int) -> None:
        self.proxy: Union[_Proxy, Literal[False], None] = proxy
        self.context = ssl_context
        self.max_kept = max_kept
        self.max_bytes = max_bytes  # of a response
        self.closed = False
        self.generation = 0
        self.idle: List[_Connection] = []  # the one used last is last
        self.reset_after_fork()
        _FORKED.add(self)

    def http_open(self, request: Any) -> Response:
        if not isinstance(request, Request):
            raise errors.LocalProtocolError("a handler made a request of its own")
        blocks = self.exchange(request)
        content = io.BytesIO()
        try:
            head: Any = next(blocks)
            for block in blocks:
                if content.tell() + len(block) > self.max_bytes:
                    words = "the response's body is larger than max_response_bytes=%d" % self.max_bytes
                    raise errors.RemoteProtocolError(words, request=request)
                content.write(block)
        finally:
            blocks.close()
        return Response(head.status, head.headers, content.getvalue(), request, head.reason)

    https_open = http_open

    def exchange(self, request: Request) -> Any:
        """Send a request; give the response's head, then its body in blocks. Stopping early gives the connection up."""
        scope: Any = request.scope
        connection = self.take(request.parsed_url)
        reader = connection.reader
        reusable = False
        try:
            complete = connection.send_request(request)
            head = reader.head()
            yield head
            yield from _decompressed(reader.body(request.get_method(), head), head.headers)
            if not complete and head.status < 300:
                words = "the server returned %d before it had the whole request"
                raise errors.RemoteProtocolError(words % head.status)
            reusable = complete and reader.may_be_kept(head) and request.headers.get("connection") is None
        except errors.RequestError as error:
            if error.request is None and _was_raised_by(error, __name__):  # or it is another request's, of a hook
                error.request = request
                error.reused_connection = connection.exchanges > 1 and error.connection_lost and not reader.answered
            raise
        finally:
            scope.watch(None)
            self.give_back(connection, reusable)

    def reset_after_fork(self) -> None:
        """A child shares no socket and no lock with its parent, which may hold both at this very moment."""
        inherited = self.idle
        self.generation += 1
        self.lock = threading.RLock()  # a signal handler may make a call, too
        self.active = 0
        self.idle = []
        for connection in inherited:
            connection.close()

    def take(self, url: _Url) -> _Connection:
        """A kept connection that is still good, else a new one."""
        while True:
            with self.lock:
                if self.closed:
                    raise errors.ClosedError("the client is closed")
                kept = next((each for each in reversed(self.idle) if each.url.origin == url.origin), None)
                if kept is not None:
                    try:
                        self.idle.remove(kept)
                    except ValueError:  # a signal handler took it
                        continue
                self.active += 1
            if kept is None:
                return _Connection(url, self)
            if kept.is_usable():
                return kept
            self.give_back(kept, False)

    def give_back(self, connection: _Connection, reusable: bool) -> None:
        """Keep a connection that may be used again, at the cost of the oldest if there are too many; else close it."""
        surplus: Optional[_Connection] = connection
        if not connection.wire.is_inherited():
            connection.idle_since = (time.monotonic(), time.time())
            with self.lock:
                self.active -= 1
                if reusable and not self.closed:
                    self.idle.append(connection)
                    surplus = self.idle.pop(0) if len(self.idle) > self.max_kept else None
        if surplus is not None:
            surplus.close()

    def ssl_context(self) -> ssl.SSLContext:
        """Made once, when the first https connection needs it: reading the trust store takes 10 ms."""
        with self.lock:
            self.context = self.context or _default_ssl_context()
            self.context.options &= ~128  # OP_IGNORE_UNEXPECTED_EOF, which 3.8 and 3.9 set with OpenSSL 3 (bpo-43794)
            return self.context

    def close(self) -> None:
        with self.lock:
            self.closed = True
            idle = self.idle
            self.idle = []
        for connection in idle:
            connection.close()


_FORKED: Any = weakref.WeakSet()  # what a forked child must make anew


def _reset_after_fork() -> None:
    for thing in list(_FORKED):
        thing.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _default_ssl_context() -> ssl.SSLContext:
    """The system's trust store, or what the usual variables name; TLS 1.2 at least."""
    import ssl

    named = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)}
    if not named and os.environ.get("REQUESTS_CA_BUNDLE"):
        named = {"REQUESTS_CA_BUNDLE": os.environ["REQUESTS_CA_BUNDLE"]}
    places: Any = dict(_trusted_place(name, place) for name, place in named.items())
    try:
        context = ssl.create_default_context(**places)
    except OSError as error:
        if not _was_raised_by(error, __name__):
            raise
        if error.filename is None:
            words = "%s: the CA file %r cannot be used; it must hold certificates in PEM form: %s"
            words %= (", ".join(named), places.get("cafile"), error)
            raise errors.ConnectError(words, permanent=True) from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # SSLKEYLOGFILE cannot be written, no reason to fail
        context.load_verify_locations(**places) if places else context.load_default_certs()
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)  # TLS 1.0 until Python 3.10
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trusted_place(name: str, place: str) -> Tuple[str, str]:
    """Where a variable's CAs are: in a PEM file, or in folders (a list, of which some may be missing)."""
    if name != "SSL_CERT_FILE" and any(map(os.path.isdir, place.split(os.pathsep))):
        return "capath", place
    if name != "SSL_CERT_DIR" and os.path.isfile(place):
        return "cafile", place
    needed = "file; SSL_CERT_DIR takes folders" if name == "SSL_CERT_FILE" else "folder"
    words = "is no " + needed if os.path.exists(place) else "does not exist"
    raise errors.ConnectError("%s names %r, which %s" % (name, place, words), permanent=True)


class _Proxy:
    """A proxy by its URL, as httpx takes it, and with any character in the password. Its repr shows no credentials."""

    def __init__(self, text: str) -> None:
        scheme, separator, rest = re.sub("^([a-zA-Z0-9+.-]+:/)(?!/)", r"\1/", text.strip()).partition("://")
        if separator and scheme.lower() != "http":
            raise errors.UnsupportedProtocol("%s is not supported" % _escaped(scheme.partition(":")[0]))
        url = "http://" + (rest if separator else scheme)
        bare, self.authorization = _split_credentials(url, authority=".*")  # a password may have a "/", "?" or "#"
        self.url = _parse_url(bare)

    def __repr__(self) -> str:
        return "http://%s%s" % ("***@" if self.authorization else "", self.url.authority)

    def masked(self, text: str) -> str:
        """What the proxy said, which may repeat its credentials."""
        return _without(_credentials(self.authorization), text)


def _parse_proxy(text: Any, source: str) -> _Proxy:
    if not isinstance(text, str):
        raise _bad_type("proxy", 'must be a URL such as "http://proxy:3128", or False for none')
    try:
        return _Proxy(text)
    except errors.UnsupportedProtocol as error:
        words = "the proxy from %s must be http://host:port: %s" % (source, error)
    finally:
        del text  # a traceback's locals would show the password
    raise errors.UnsupportedProtocol(words)


def _find_proxy(setting: Union[_Proxy, Literal[False], None], url: _Url) -> Optional[_Proxy]:
    """Which proxy, if any, leads to a server: the setting, else the environment's, else the system's."""
    if setting is not None:
        return setting or None
    found = urllib.request.getproxies()  # lower case first; no HTTP_PROXY under CGI (CVE-2016-1000110)
    name = url.scheme if found.get(url.scheme) else "all"
    if not found.get(name) or _bypasses_proxy(found.get("no", ""), url) or urllib.request.proxy_bypass(url.host):
        return None
    is_variable = name in urllib.request.getproxies_environment()
    try:
        return _parse_proxy(found[name], name.upper() + "_PROXY" if is_variable else "the system's settings")
    finally:
        del found  # a traceback's locals would show passwords


def _bypasses_proxy(no_proxy: str, url: _Url) -> bool:
    """Whether NO_PROXY names a host: "*", a domain and all below it, host:port, an address, or a range of them."""
    import ipaddress

    host = url.host.rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        match = re.fullmatch(r"(\[.*\]|[^:]*):([0-9]{1,5})", entry)
        name, port = match.groups() if match else (entry, url.port)
        name = name.strip("[]")
        domain = name.rstrip(".").lstrip("*").lstrip(".")
        try:
            is_named = ipaddress.ip_address(host.partition("%")[0]) in ipaddress.ip_network(name, strict=False)
        except ValueError:  # no address, but a name
            is_named = name == "*" or ("." + host).endswith("." + domain)
        if is_named and int(port) == url.port:
            return True
    return False


class _Connection:
    """One connection, for one exchange at a time. Every wait ends at the deadline; nothing that is read is believed."""

    def __init__(self, url: _Url, pool: _Pool) -> None:
        self.url = url
        self.pool = pool
        self.exchanges = 0
        self.idle_since = (0.0, 0.0)
        self.proxy: Optional[_Proxy] = None
        self.wire = _Wire(url, pool)
        self.reader = _Reader(self.wire)

    def is_usable(self) -> bool:
        """Whether an idle connection is still good: not too old by either clock (a frozen Lambda stops the first), not
        closed by the server, and without bytes that nobody asked for."""
        age = max(time.monotonic() - self.idle_since[0], time.time() - self.idle_since[1])
        return age <= self.reader.max_idle_seconds and not self.wire.is_readable()

    def close(self) -> None:
        self.wire.close()

    def send_request(self, request: Request) -> bool:
        """Connect if need be, and send; False if a response, or the connection's end, came before all was sent."""
        self.wire.scope = request.scope
        self.exchanges += 1
        self.reader.answered = False
        if self.wire.sock is None:
            self.connect()
        self.wire.watch()
        if not isinstance(request.data, _Upload):
            return self.send(b"".join([self.head(request, len(request.data)), request.data]))
        length = request.data.length
        head = memoryview(self.head(request, length))  # whose repr in a traceback's locals shows no key
        for block in request.data.blocks():
            if self.has_answer():
                return False
            framed = b"%x\r\n%b\r\n" % (len(block), bytes(block)) if length is None else block
            if not self.send(b"".join([head, framed]) if head else framed):
                return False
            head = head[:0]
        return self.send(b"".join([head, b"0\r\n\r\n" if length is None else b""]))

    def head(self, request: Request, length: Optional[int]) -> bytes:
        """The request line and headers: those given, and what is the connection's to say."""
        url = request.parsed_url
        headers = {"host": url.authority}
        headers.update(request.headers.items())
        headers.update({name.lower(): value for name, value in request.unredirected_hdrs.items()})
        target = url.target
        if self.proxy and url.scheme == "http":
            target = url.text
            if self.proxy.authorization:
                headers["proxy-authorization"] = self.proxy.authorization
                self.wire.scope.proxy_authorization = self.proxy.authorization
        headers.pop("content-length", None)
        headers.pop("transfer-encoding", None)
        headers.update({"transfer-encoding": "chunked"} if length is None else {"content-length": str(length)})
        lines = "".join(["%s: %s\r\n" % pair for pair in headers.items()])
        head = "%s %s HTTP/1.1\r\n%s\r\n" % (request.get_method(), target, lines)
        if head.count("\r") + head.count("\n") + head.count("\0") != 2 * len(headers) + 4:  # by a handler's header, say
            raise errors.LocalProtocolError("a header would break out of its line")
        return head.encode("utf-8", "replace")

    def send(self, data: Union[bytes, memoryview]) -> bool:
        """Send all of it; False if meanwhile a response comes, after which a server may stop reading, or the end."""
        data = memoryview(data)  # whose repr in a traceback's locals shows no key
        while data:
            try:
                data = data[self.wire.send(data) :]
            except errors.WriteError:
                if self.has_answer():
                    return False
                raise
            if data:
                self.wire.wait(_READABLE | (self.wire.wanted or _WRITABLE), _SENDING)
                if self.has_answer():
                    return False
        self.wire.wanted = _READABLE  # to try to receive at once would fail, and cost a system call
        return True

    def has_answer(self) -> bool:
        """Whether a final response, or the connection's end, is here although the request still goes out."""
        try:
            while not self.reader.final_head_end():
                data = self.wire.attempt(self.wire.sock.recv, (_BLOCK_BYTES,), _AWAITING)
                if not data:
                    return data is not None  # the end, or nothing yet
                self.reader.take_in(data)
            return True
        except errors.ReadError:
            return False

    def connect(self) -> None:
        """Look up the host, connect, pass the proxy and shake hands, all before the deadline."""
        self.proxy = _find_proxy(self.pool.proxy, self.url)
        server = self.proxy.url if self.proxy else self.url
        outcome = _dialled(server, self.wire.scope)
        if isinstance(outcome, Exception):
            target = "the proxy %r" % self.proxy if self.proxy else server.address
            raise errors.ConnectError("cannot connect to %s: %s" % (target, outcome)) from outcome
        self.wire.sock = outcome
        self.wire.watch()
        if self.url.scheme == "https":
            if self.proxy:
                self.open_tunnel(self.proxy)
            self.wire.shake_hands(self.pool.ssl_context())

    def open_tunnel(self, proxy: _Proxy) -> None:
        """CONNECT (RFC 9110, 9.3.6), with a Host header on every Python (gh-66897); any 2xx is a yes."""
        failed = "the proxy %r opened no tunnel to %s: " % (proxy, self.url.address)
        head = "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nUser-Agent: {1}\r\n".format(self.url.address, USER_AGENT)
        secret = "Proxy-Authorization: %s\r\n" if proxy.authorization else "%s"
        try:
            self.send((head + secret % proxy.authorization + "\r\n").encode())
            answer = self.reader.head()
        except errors.TimeoutException as error:
            raise errors.ConnectTimeout(failed + error.message) from error
        except errors.TransportError as error:
            error.message = proxy.masked(error.message)
            error.args = (error.message,)
            raise errors.ProxyError(failed + error.message) from error
        if not 200 <= answer.status < 300:
            words = "%sit returned %d %s" % (failed, answer.status, _escaped(proxy.masked(answer.reason)))
            if answer.status == 407:
                words += "; HTTPS_PROXY or proxy= is where user and password go: http://user:password@host:3128"
            raise errors.ProxyError(words, status_code=answer.status, permanent=answer.status < 500)
        if self.reader.buffer:
            raise errors.ProxyError(failed + "it sent bytes ahead of TLS", permanent=True)


_READABLE = 1  # select.POLLIN
_WRITABLE = 4  # select.POLLOUT
# What a connection is doing: the error when time runs out, in words, and the error when the connection breaks.
_Phase = collections.namedtuple("_Phase", "timeout doing failure")
_SENDING = _Phase(errors.WriteTimeout, "sending the request", errors.WriteError)
_AWAITING = _Phase(errors.ReadTimeout, "waiting for the response", errors.ReadError)
_SHAKING = _Phase(errors.ConnectTimeout, "shaking hands", errors.ConnectError)


def _failure(error: Exception, phase: _Phase, wire: _Wire) -> errors.RequestError:
    """Our error for one of a socket's."""
    if phase is _SHAKING:
        return _handshake_failure(error, wire)
    # With TLS 1.3 a server refuses our certificate after the handshake. Python 3.7 leaves the error's `reason` empty.
    if re.search("(?i)alert.*(certificate|unknown.ca|access.denied|decrypt.error|handshake.failure)", str(error)):
        words = "%s refused this client's certificate: %s" % (wire.url.address, error)
        return errors.ConnectError(words, permanent=True)
    return phase.failure("the connection broke while %s: %s" % (phase.doing, error))  # type: ignore[no-any-return]


def _handshake_failure(error: Exception, wire: _Wire) -> errors.RequestError:
    import ssl

    if isinstance(error, ssl.CertificateError):
        reason = str(getattr(error, "verify_message", "") or error)
        words = "the certificate of %s is not trusted: %s%s" % (wire.url.address, reason, _trust_hint(reason, wire))
        return errors.ConnectError(words, permanent=True)
    hint = " (it does not seem to speak TLS)" if "WRONG_VERSION_NUMBER" in str(error).upper() else ""
    permanent = isinstance(error, (ssl.SSLError, ValueError)) and "eof" not in str(error).lower()
    return errors.ConnectError("no TLS with %s: %s%s" % (wire.url.address, error, hint), permanent=permanent)


def _trust_hint(reason: str, wire: _Wire) -> str:
    import ssl

    if re.search("(?i)key usage|key identifier|basic constraints|critical|missing authority", reason):
        return (
            "; Python 3.13 checks CAs more strictly: pass HttpClient(ssl_context=) a context from"
            " ssl.create_default_context() after context.verify_flags &= ~ssl.VERIFY_X509_STRICT"
        )
    if not re.search("(?i)self.signed|issuer|verify the first", reason):
        return ""
    folders = (ssl.get_default_verify_paths().capath or "").split(os.pathsep)
    context = getattr(wire.sock, "context", None)
    has_some = not isinstance(context, ssl.SSLContext) or context.cert_store_stats()["x509_ca"]
    has_some = has_some or any(map(os.listdir, filter(os.path.isdir, folders)))
    hint = "" if has_some else "; no trusted CA certificates were found"
    return hint + "; a CA of your own goes into SSL_CERT_FILE or HttpClient(ssl_context=)"


class _Wire:
    """A non-blocking socket whose every wait is under a cancel scope."""

    def __init__(self, url: _Url, pool: _Pool) -> None:
        self.url = url
        self.pool = pool
        self.generation = pool.generation
        self.sock: Any = None
        self.scope: Any = None
        self.wanted: Optional[int] = None  # what the latest attempt has to wait for

    def is_inherited(self) -> bool:
        """Whether the socket is of a process that this one was forked from."""
        return self.generation != self.pool.generation

    def watch(self) -> None:
        self.scope.watch(functools.partial(_shut, self.sock))

    def close(self) -> None:
        sock = self.sock
        self.sock = None
        if sock is not None:
            sock.close()

    def shake_hands(self, context: ssl.SSLContext) -> None:
        name = self.url.host.rstrip(".")
        try:
            self.sock = context.wrap_socket(  # where a cut connection is an error, not an end
                self.sock, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except (OSError, ValueError) as error:
            raise _handshake_failure(error, self) from error
        self.watch()  # the old socket may have been shut just before
        self.carry_out(self.sock.do_handshake, (), _SHAKING)

    def is_readable(self) -> bool:
        """Whether bytes, or the connection's end, wait to be read."""
        return _is_ready(self.sock, _READABLE, 0)

    def send(self, data: memoryview) -> int:
        """How many bytes were taken, perhaps none."""
        sent = self.attempt(self.sock.send, (data,), _SENDING, _WRITABLE) or 0
        if sent:
            self.scope.moved()
        return int(sent)

    def receive(self) -> bytes:
        """What comes next; b"" at the connection's end."""
        data: bytes = self.carry_out(self.sock.recv, (_BLOCK_BYTES,), _AWAITING)
        self.scope.moved()
        return data

    def carry_out(self, method: Any, arguments: Tuple[Any, ...], phase: _Phase) -> Any:
        """What a method of the socket's returns once it can."""
        while True:
            if self.wanted:
                self.wait(self.wanted, phase)
            result = self.attempt(method, arguments, phase)
            if not self.wanted:
                return result

    def attempt(self, method: Any, arguments: Tuple[Any, ...], phase: _Phase, events: int = _READABLE) -> Any:
        """What a method of the socket's returns; None if it would have to wait, until the socket is as `wanted`."""
        if self.is_inherited():
            raise errors.LocalProtocolError("the process was forked within the call, whose connection is the parent's")
        self.scope.left(phase.timeout, phase.doing)
        self.wanted = None
        try:
            return method(*arguments)
        except (OSError, ValueError) as error:
            wanted = {"BlockingIOError": events, "SSLWantReadError": _READABLE, "SSLWantWriteError": _WRITABLE}
            self.wanted = wanted.get(type(error).__name__)
            if self.wanted is None:
                # A signal handler of the program's may have run meanwhile; what it raises is not the socket's.
                modules = [base.__module__ for base in type(self.sock).__mro__]
                if not _was_raised_by(error, getattr(method, "__module__", None) or "", *modules):
                    raise
                raise _failure(error, phase, self) from error
        return None

    def wait(self, events: int, phase: _Phase) -> None:
        """Wait until the socket is ready, or the time runs out."""
        queued = _queued_bytes(self.sock) if self.scope.renews else 0
        while not _is_ready(self.sock, events, self.scope.left(phase.timeout, phase.doing)):
            before = queued
            queued = _queued_bytes(self.sock) if before else 0
            if queued < before:  # what the kernel still sends is moving, too
                self.scope.moved()


def _is_ready(sock: Any, events: int, seconds: float) -> bool:
    """Whether a socket gets ready in time. gevent and eventlet replace these functions, perhaps after our import."""
    limit = None if seconds == _FOREVER else seconds
    if hasattr(select, "poll"):  # which has no limit at 1,024 descriptors
        poll = select.poll()
        poll.register(sock, events)
        return bool(poll.poll(limit if limit is None else int(limit * 1000) + (limit > 0)))
    readable = [sock] if events & _READABLE else []
    writable = [sock] if events & _WRITABLE else []
    return any(select.select(readable, writable, [sock], limit))


def _was_raised_by(error: BaseException, *modules: str) -> bool:
    """Whether an error is of these modules' kinds, and was raised by them or here."""
    traceback: Any = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    known = (*modules, "builtins", "ssl", "socket", "_cffi_ssl")  # the last is PyPy's
    packages = {module.partition(".")[0] for module in known}
    place = traceback.tb_frame.f_globals.get("__name__", "")
    is_theirs = place == __name__ or place.partition(".")[0] in packages
    return is_theirs and type(error).__module__.partition(".")[0] in packages


def _queued_bytes(sock: Any) -> int:
    """How much of what was sent the kernel still holds; 0 where it does not say."""
    try:
        import fcntl
        import termios

        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
    except (ImportError, AttributeError, OSError):
        return 0


def _dialled(server: _Url, scope: Any) -> Any:
    """A socket to the first address that accepts, or the error of the last one. Each in turn has its share of time."""
    doing = "looking up " + server.host
    look_up = functools.partial(socket.getaddrinfo, server.host, server.port, 0, socket.SOCK_STREAM)
    outcome = _in_background(look_up, scope, scope.left(errors.ConnectTimeout, doing))  # for it cannot be interrupted
    scope.left(errors.ConnectTimeout, doing)
    if isinstance(outcome, BaseException):
        if isinstance(outcome, (OSError, UnicodeError)):
            return outcome
        raise outcome  # of a getaddrinfo of the program's own
    addresses = outcome
    outcome = OSError("the name has no address")
    doing = "connecting to " + server.address
    for address in addresses:
        left = scope.left(errors.ConnectTimeout, doing)
        outcome = _connected(address, left if address is addresses[-1] else min(left / 2, _NEXT_ADDRESS_SECONDS), scope)
        if not isinstance(outcome, Exception):
            return outcome
    scope.left(errors.ConnectTimeout, doing)
    return outcome


def _connected(address: Any, seconds: float, scope: Any) -> Any:
    """A connected socket, or an error. `address` is one of getaddrinfo's."""
    try:
        sock = socket.socket(*address[:3])
    except OSError as error:  # no descriptor left, no such family
        if not _was_raised_by(error, socket.socket.__module__):
            raise
        return error
    code: Optional[int] = None
    try:
        sock.setblocking(False)
        scope.watch(functools.partial(_shut, sock))
        code = sock.connect_ex(address[4])
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", None)):
            ready = _is_ready(sock, _WRITABLE, seconds)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else errno.ETIMEDOUT
    finally:
        if code != 0:
            sock.close()
    if code:  # the table has Windows' own, which os.strerror does not know
        return OSError(code, getattr(socket, "errorTab", {}).get(code) or os.strerror(code))
    for level, name, value in _SOCKET_OPTIONS:
        try:
            sock.setsockopt(level, getattr(socket, name), value)
        except (AttributeError, OSError):
            pass  # a platform or kernel without it does without it
    return sock


_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),  # before a NAT or a load balancer forgets the connection (botocore#2916)
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 45),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", 45),
]


def _shut(sock: Any) -> None:
    """End what another thread waits for on a socket. Shutdown does that, close does not (python/cpython#111358)."""
    below_tls = getattr(socket.socket, "shutdown", None)  # which eventlet's sockets do not have
    try:
        if below_tls:
            below_tls(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)
    except (OSError, TypeError):  # not connected, closed by now, or not of this kind
        pass


class _Reader:
    """What a server sends, as RFC 9112 says it; strict, since what two readers take apart differently is an attack."""

    def __init__(self, wire: _Wire) -> None:
        self.wire = wire
        self.buffer = bytearray()  # received, not yet read
        self.searched = 0  # how much of it holds no end of a head
        self.interim = 0
        self.answered = False
        self.ends = True  # whether the latest body's end was announced
        self.max_idle_seconds = float(_MAX_IDLE_SECONDS)

    def take_in(self, data: bytes) -> None:
        self.buffer += data
        self.answered = True

    def receive(self, at_end: str) -> bytes:
        """What comes next; the connection's end is an error."""
        data = self.wire.receive()
        if not data:
            raise errors.RemoteProtocolError(at_end, connection_lost=True)
        return data

    def head(self) -> _Head:
        """The final response's head."""
        end = self.final_head_end() if self.buffer else 0
        while not end:
            where = "within the response's headers" if self.buffer else "without sending a response"
            self.take_in(self.receive("the server closed the connection " + where))
            end = self.final_head_end()
        self.interim = 0
        return _parse_head(self.cut(end))

    def final_head_end(self) -> int:
        """Where the final response's head ends in the buffer, from which interim ones are dropped; 0 if not yet."""
        while True:
            found = _HEAD_END.search(self.buffer, self.searched)
            end = found.end() if found else 0
            if (end or len(self.buffer)) > _MAX_HEAD_BYTES:
                raise errors.RemoteProtocolError("the response's headers are larger than %d bytes" % _MAX_HEAD_BYTES)
            if not b"HTTP/1.".startswith(bytes(self.buffer[:7])):
                hint = " (it seems to speak TLS: https?)" if self.buffer[:1] == b"\x15" else ""
                words = "the response is not HTTP/1.1%s: %s" % (hint, _excerpt(bytes(self.buffer[:61])))
                raise errors.RemoteProtocolError(words)
            if not end:
                self.searched = max(0, len(self.buffer) - 2)
                return 0
            if self.buffer[9:10] != b"1":
                return end
            if _parse_head(self.cut(end)).status == 101:
                raise errors.RemoteProtocolError("the server switched protocols unasked")
            self.interim += 1  # 100 Continue, 103 Early Hints
            if self.interim > _MAX_INTERIM_RESPONSES:
                raise errors.RemoteProtocolError("more than %d interim responses" % _MAX_INTERIM_RESPONSES)

    def cut(self, end: int) -> bytes:
        """The buffer's first bytes, which leave it."""
        data = bytes(self.buffer[:end])
        del self.buffer[:end]
        self.searched = 0
        return data

    def body(self, method: str, head: _Head) -> Iterator[memoryview]:
        """The body in blocks as they come (RFC 9112, 6.3); their reprs show nothing of it."""
        length = _framing(method, head)
        self.ends = length is not None
        if length is None:
            return self.until_end()
        return self.chunks() if length == _CHUNKED else self.exactly(length)

    def exactly(self, length: int) -> Iterator[memoryview]:
        missing = length
        while missing:
            if self.buffer:
                block = memoryview(self.cut(missing))
            else:
                words = "the body was cut short: %d of %d bytes came" % (length - missing, length)
                block = memoryview(self.receive(words))
                self.buffer += block[missing:]
                block = block[:missing]
            missing -= len(block)
            yield block

    def until_end(self) -> Iterator[memoryview]:
        data = memoryview(self.cut(len(self.buffer)) or self.wire.receive())
        while data:
            yield data
            data = memoryview(self.wire.receive())

    def chunks(self) -> Iterator[memoryview]:
        """RFC 9112, 7.1. Extensions and trailers are read and dropped."""
        size = _chunk_size(self.line())
        while size:
            yield from self.exactly(size)
            if self.line():
                raise errors.RemoteProtocolError("a chunk does not end where its size says")
            size = _chunk_size(self.line())
        trailers = 0
        line = self.line()
        while line:
            trailers += len(line)
            if trailers > _MAX_HEAD_BYTES or not _TRAILER.fullmatch(line):
                raise errors.RemoteProtocolError("the trailers are too large or malformed: " + _excerpt(line))
            line = self.line()

    def line(self) -> bytes:
        """The next line of a chunked body, without its CR LF."""
        end = self.buffer.find(b"\n", 0, _MAX_LINE_BYTES)
        while end < 0:
            if len(self.buffer) >= _MAX_LINE_BYTES:
                raise errors.RemoteProtocolError("a line of a chunked body is larger than %d bytes" % _MAX_LINE_BYTES)
            self.buffer += self.receive("the chunked body was cut short")
            end = self.buffer.find(b"\n", 0, _MAX_LINE_BYTES)
        line = self.cut(end + 1)
        if line[-2:] != b"\r\n":
            raise errors.RemoteProtocolError("a line of a chunked body does not end in CR LF")
        return line[:-2]

    def may_be_kept(self, head: _Head) -> bool:
        """Whether the connection may be used again (RFC 9112, 9.3, 9.6 and 6.3), and for how long."""
        self.max_idle_seconds = _keep_alive_seconds(head.headers)
        both = "transfer-encoding" in head.headers and "content-length" in head.headers
        says_close = "close" in _tokens(head.headers.get("connection", ""))
        return self.ends and not self.buffer and head.version == "HTTP/1.1" and not both and not says_close


# ---- Decode: bytes -> response, response -> model or error; pure -----------------------------------------------------

_HEAD_END = re.compile(rb"\n\r?\n")  # a bare LF may end a line (RFC 9112, 2.2)
_TRAILER = re.compile(_TOKEN.pattern.encode() + rb":[^\0\r\n]*")
_HEAD = re.compile(
    rb"(HTTP/1\.[01]) ([1-9][0-9][0-9])(?: ([^\0\r\n]*))?\r?\n"  # what follows is all header lines, folded ones too
    rb"((?:%b(?:\r?\n[ \t][^\0\r\n]*)*\r?\n)*)" % _TRAILER.pattern
)
_CHUNKED = -1  # in place of a body's length


def _parse_head(head: bytes) -> _Head:
    """A response's head (RFC 9112, 4 and 5). http.client would hide the headers that follow a malformed line."""
    match = _HEAD.match(head)
    if not match or head[match.end() :] not in (b"\r\n", b"\n"):
        raise errors.RemoteProtocolError(
            "the response's headers are malformed: " + _excerpt(head[match.end() if match else 0 :])
        )
    version, status, reason, lines = map(_text, match.groups(b""))
    if "\n " in lines or "\n\t" in lines:
        lines = re.sub(r"\r?\n[ \t]+", " ", lines)  # folded lines (RFC 9112, 5.2)
    pairs = [line.partition(":")[::2] for line in lines.split("\n")[:-1]]
    return _Head(version, int(status), reason, Headers([(name, value.strip(" \t\r")) for name, value in pairs]))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


_Head = collections.namedtuple("_Head", "version status reason headers")


def _tokens(value: str) -> List[str]:
    """The members of a header that is a list, in lower case. HTTP's words are ASCII: "K" is a Kelvin sign's, too."""
    return [token.strip(" \t").lower() if token.isascii() else token for token in value.split(",")]


def _framing(method: str, head: _Head) -> Optional[int]:
    """The body's length, or _CHUNKED, or None for one that ends with the connection (RFC 9112, 6.3)."""
    if method == "HEAD" or head.status in (204, 304):
        return 0
    coding = head.headers.get("transfer-encoding")
    if coding is not None:
        if _tokens(coding) == ["chunked"]:
            return _CHUNKED
        raise errors.RemoteProtocolError("a transfer coding that was not asked for: " + _excerpt(coding.encode()))
    length = head.headers.get("content-length")
    if length is None:
        return None
    match = re.fullmatch(r"([0-9]{1,18})(?:[ \t]*,[ \t]*\1)*", length)  # the same number twice is one
    if not match:
        raise errors.RemoteProtocolError("the Content-Length is no number: " + _excerpt(length.encode()))
    return int(match.group(1))


def _keep_alive_seconds(headers: Headers) -> float:
    """How long an idle connection is good: a second less than `Keep-Alive: timeout=` says."""
    match = re.search(r"(?ai)\btimeout\s*=\s*([0-9]{1,6})", headers.get("keep-alive", ""))
    return min(_MAX_IDLE_SECONDS, int(match.group(1)) - 1) if match else _MAX_IDLE_SECONDS


def _chunk_size(line: bytes) -> int:
    """int(line, 16) would take 0x19, +19 and 1_9 as well."""
    match = re.fullmatch(rb"([0-9a-fA-F]{1,16})[ \t]*(;[^\r\n]*)?", line)
    if not match:
        raise errors.RemoteProtocolError("a chunk's size is no number: " + _excerpt(line))
    return int(match.group(1), 16)


def _decompressed(blocks: Iterator[memoryview], headers: Headers) -> Iterator[memoryview]:
    """A body without its gzip coding. One that was not asked for stays as it is."""
    codings = [coding for coding in _tokens(headers.get("content-encoding", "")) if coding not in ("", "identity")]
    for coding in codings[: -_MAX_CODINGS - 1 : -1]:
        if coding not in ("gzip", "x-gzip"):
            break
        blocks = _gunzipped(blocks)
    return blocks


def _gunzipped(blocks: Iterator[memoryview]) -> Iterator[memoryview]:
    """gzip (RFC 1952), which may have several members; what is behind them is dropped, as browsers do."""
    import zlib

    inflater: Any = None
    members = 0
    has_ended = False
    for data in blocks:
        while data and not has_ended:
            if inflater is None:
                has_ended = members > 0 and data[0] != 0x1F  # padding, or what a proxy has added
                members += 1
                if members > _MAX_GZIP_MEMBERS:  # each copies what follows it in the block
                    raise errors.DecodingError("the gzip body has more than %d members" % _MAX_GZIP_MEMBERS)
                inflater = None if has_ended else zlib.decompressobj(31)
                continue
            try:
                yield memoryview(inflater.decompress(data, _BLOCK_BYTES))
            except zlib.error as error:
                raise errors.DecodingError("the gzip body is broken: %s" % error) from error
            data = memoryview(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
            inflater = None if inflater.eof else inflater
    if inflater is not None:
        raise errors.DecodingError("the gzip body is cut short")


def _decode(call: _Call, outcome: Any) -> Any:
    """What the caller gets for an outcome, whichever client it came from: the operation's model, or an error."""
    if isinstance(outcome, Exception):
        raise outcome
    is_json = _tokens(outcome.headers.get("content-type", "").partition(";")[0]) == ["application/json"]
    if 200 <= outcome.status_code < 300:
        return _decode_success(call, outcome, is_json)
    try:
        data = _error_data(_parse_json(_content(outcome), _charset(outcome.headers)))
    except ValueError:  # not the API's words
        data = None
    if data is not None and is_json and outcome.status_code in call.operation.structured_errors:
        raise errors.ErrorResponse(data, outcome, secrets=call.secrets)
    if 400 <= outcome.status_code < 600:
        error = errors.SDKError("API error occurred", outcome, secrets=call.secrets)
        error.data = data
        raise error
    location = outcome.headers.get("location") if 300 <= outcome.status_code < 400 else None
    shown = _without(call.secrets, _shown_url(location).partition("?")[0])
    target = ", a redirect to " + _shortened(shown, 500) if location else ""
    raise errors.SDKError("Unexpected response received" + target, outcome, secrets=call.secrets)


def _decode_success(call: _Call, response: Any, is_json: bool) -> Any:
    response_type = call.operation.response_type
    content = _content(response)
    try:
        is_empty = response.status_code in (204, 205) and not content.strip()
        value = {} if is_empty else _parse_json(content, _charset(response.headers))
        return _validated(response_type, value, response_type.__name__, "body")
    except ValueError as error:
        if is_json or isinstance(error, errors.ValidationError):
            cause = error.with_traceback(None)  # whose frames' locals would show what came
            raise errors.ResponseValidationError("Response validation failed", response, cause) from cause
        raise errors.SDKError("Unexpected response received", response, secrets=call.secrets) from None


def _error_data(value: Any) -> errors.ErrorResponseData:
    """{code, message, details}, or the same under "error". Raises ValidationError."""
    if isinstance(value, dict) and isinstance(value.get("error"), dict) and "code" not in value:
        value = value["error"]
    return errors.ErrorResponseData.model_validate(value)


def _content(response: Any) -> bytes:
    content = getattr(response, "content", None)  # a fake may have only the text
    return content if isinstance(content, bytes) else str(response.text).encode("utf-8", "surrogatepass")


def _charset(headers: Any) -> str:
    """The charset that a body's type names, of those that text is in (idna and punycode take quadratic time)."""
    content_type = headers.get("content-type", "")
    if ";" not in content_type:
        return "utf-8"
    families = "utf|us-ascii|ascii|iso|latin|windows|cp|koi8|gb|big5|shift_?jis|euc"
    match = re.search(r'(?ai);\s*charset="?((?:' + families + r")[\w-]{0,20})", content_type)
    try:
        return codecs.lookup(match.group(1)).name if match else "utf-8"
    except LookupError:
        return "utf-8"


def _parse_json(data: bytes, charset: str = "utf-8") -> Any:
    """JSON by RFC 8259, which has no NaN; a BOM passes. Raises ValueError, never RecursionError."""
    try:
        text = data.decode(charset)
        utf8 = data if charset == "utf-8" else text.encode("utf-8", "surrogatepass")
        _check_depth(utf8)
        decoder = _STRICT_DECODER if _may_overflow(utf8) else _DECODER
        return decoder.decode(text[1:] if text[:1] == "\ufeff" else text)
    except UnicodeDecodeError as error:
        raise ValueError("the JSON is not %s, at byte %d" % (charset.upper(), error.start)) from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")


def _may_overflow(data: bytes) -> bool:
    """Whether JSON may hold a number too large for a float: with three digits of exponent, or more than 32 others. To
    look at each number instead would add 60 % to the time that many rows take."""
    shape = data.translate(_DIGITS, b"+")
    return b"e000" in shape or b"0" * 32 in shape


_STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # a bracket as a signed byte: 1, or -1 to close
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"')


def _check_depth(data: bytes) -> None:
    """json's own limit is above what a small thread stack holds, on Python 3.12 and later (gh-113655)."""
    if len(data) <= _MAX_JSON_DEPTH:
        return
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = re.sub(b'"[^"]*"?', b"", data.translate(None, _NO_BRACKETS).replace(b'""', b""))
    if len(brackets.replace(b"{}", b"")) < _MAX_JSON_DEPTH:  # rows: one level more than what is left
        return
    if max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b"))) > _MAX_JSON_DEPTH:
        raise ValueError("the JSON is nested too deeply")


def _refuse_constant(name: str) -> None:
    raise ValueError("%s is not JSON" % name)


def _finite_float(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError("a number is too large: " + text[:20])
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_STRICT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)

# ---- Logs: what may be shown -----------------------------------------------------------------------------------------

_SHOWN_HEADERS = frozenset(
    ["accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "date", "host"]
    + ["retry-after", "server", "transfer-encoding", "user-agent", "x-request-id"]
)
_SECRET_MEMBER = re.compile(
    r'(?i)("[^"\\]{0,40}(?:passw|secret|token|api_?key|authoriz|cookie)[^"\\]{0,40}\\{0,3}"\s*:\s*)'
    r'\\{0,3}"[^"\\]*(?:\\.[^"\\]*)*"?'  # of JSON within a string, all that is left of the string
)


def _logger(configuration: SDKConfiguration) -> Optional[Logger]:
    """The SDK's own, else logging.getLogger("aerostack_lite") where that would say anything.

    A program that logs has imported logging. The logger is asked for once: getLogger takes a lock, which a signal
    handler that raises may leave locked before Python 3.13.
    """
    if configuration.debug_logger is not None:
        return configuration.debug_logger
    logging: Any = sys.modules.get("logging")
    if configuration.default_logger is None and hasattr(logging, "getLogger"):
        configuration.default_logger = logging.getLogger("aerostack_lite")
    logger: Any = configuration.default_logger
    return logger if logger is not None and logger.isEnabledFor(10) else None


def _log_request(call: _Call) -> None:
    if call.logger is not None:
        body = call.content.decode() if isinstance(call.content, bytes) else "<streaming body>"
        _log(call, "Request:", {"Headers": _shown_headers(call.headers), "Body": body, "Size": len(call.content)})


def _log_outcome(call: _Call, outcome: Any, delay: Optional[float]) -> None:
    if call.logger is None:
        return
    milliseconds = (call.half.monotonic() - call.attempt_started_at) * 1000
    lines: Dict[str, Any] = {"Milliseconds": "%.1f" % milliseconds}
    lines["Next attempt"] = "none" if delay is None else "in %.3f s" % delay
    if isinstance(outcome, Exception):
        is_secret = _without(call.secrets, str(outcome)) != str(outcome)
        details = {} if is_secret else {"exc_info": outcome}
        _log(call, "Request Exception:", {type(outcome).__name__: outcome, **lines}, **details)
    else:
        lines.update(Headers=_shown_headers(outcome.headers), Body=outcome.text, Size=len(outcome.text))
        _log(call, "Response:", {"Status Code": outcome.status_code, **lines})


def _log(call: Any, title: str, lines: Dict[str, Any], **details: Any) -> None:
    """Lines about an attempt, without the call's secrets, nor what looks like one."""
    every = {"Method": call.operation.method, "URL": _shown_url(call.url), "Operation": call.operation.name}
    every.update({"Request-Id": call.request_id, "Attempt": call.attempts, **lines})
    text = ""
    for name, value in every.items():
        text += "\n%s: %s" % (name, _safe_text(_without(call.secrets, str(value))[:_MAX_SHOWN_CHARS], allowed=""))
    call.logger.debug(title + "%s", text, **details)


def _shown_headers(headers: Mapping[str, str]) -> Dict[str, str]:
    return {name: _escaped(value) if name.lower() in _SHOWN_HEADERS else "***" for name, value in headers.items()}


def _credentials(value: str) -> List[str]:
    """A header's value, and what it holds if it is an Authorization: a token, or the password in Basic's."""
    import binascii

    scheme, _, token = value.partition(" ")
    try:
        pair = binascii.a2b_base64(token) if scheme.lower() == "basic" else b""
    except ValueError:  # no base64
        pair = b""
    return [value, token, pair.partition(b":")[2].decode("utf-8", "replace")]


def _without(secrets: Iterable[str], text: str) -> str:
    """Text without secrets; to be asked before it is cut, for half of a secret is not found."""
    for secret in secrets:
        if len(secret) > 5:  # a shorter one would be found in plain words, and masking these would spell it
            for spelled in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
                if len(spelled) <= 64:
                    text = text.replace(spelled, "***")
                elif spelled[:64] in text:  # to look for all of it may take quadratic time (bpo-41972)
                    text = text.partition(spelled[:64])[0] + "***"
    return text


def _safe_text(text: str, allowed: str = "\n\t") -> str:
    """Text without secret JSON members, and without control characters that forge logs or drive terminals."""
    return _escaped(_SECRET_MEMBER.sub(r'\1"***"', text), allowed)


def _shortened(text: str, limit: int = _MAX_SHOWN_CHARS) -> str:
    return text if len(text) <= limit else "%s...and %d more chars" % (text[:limit], len(text) - limit)


def _escaped(text: str, allowed: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in allowed else c.encode("unicode_escape").decode() for c in text)


def _excerpt(data: bytes) -> str:
    """The start of bytes that make no sense, without most of a word that is cut: half of a secret is not masked."""
    if len(data) <= 60:
        return repr(bytes(data))[1:]
    return repr(re.sub(rb"([^ \t\r\n]{5})[^ \t\r\n]+$", rb"\1", bytes(data[:60])))[1:] + "..."


# ---- Threads: the `_async` twins; the only place that starts threads and knows asyncio -------------------------------


class _Workers:
    """At most `size` daemon threads, each started when needed. A ThreadPoolExecutor would hold up the exit until all of
    its threads are done (bpo-39812)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.closed = False
        self.reset_after_fork()
        _FORKED.add(self)

    def reset_after_fork(self) -> None:
        """A child has none of its parent's threads."""
        from queue import SimpleQueue

        self.lock = threading.RLock()  # a signal handler may close the client
        self.jobs: Any = SimpleQueue()
        self.threads = 0
        self.unfinished = 0  # jobs

    async def run(self, function: Callable[[], R], scope: Optional[_CancelScope] = None) -> R:
        """Await a function. If the wait is cancelled, so is what the function is blocked in."""
        import contextvars

        loop = _running_loop()
        future = loop.create_future()
        context = contextvars.copy_context()

        def settle(value: Any, failure: Optional[BaseException]) -> None:
            if isinstance(failure, StopIteration):
                failure = RuntimeError("StopIteration in a call")  # which no future takes
            if failure is None and not future.done():
                future.set_result(value)
            elif not future.done():
                future.set_exception(failure)
                future.exception()  # or asyncio would complain of one whose wait was dropped

        def job() -> None:
            value: Any = None
            failure: Optional[BaseException] = None
            try:
                if not ((scope and scope.cancelled) or loop.is_closed()):
                    value = context.run(function)
            except BaseException as error:
                failure = error
            with self.lock:
                self.unfinished -= 1
            try:
                loop.call_soon_threadsafe(settle, value, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        self.submit(job)
        try:
            return await future  # type: ignore[no-any-return]
        finally:
            if scope and (future.cancelled() or not future.done()):  # or the wait was dropped
                scope.cancel()

    def submit(self, job: Callable[[], None]) -> None:
        with self.lock:
            if self.closed:
                raise errors.ClosedError("the client is closed")
            if self.threads < min(self.unfinished + 1, self.size):
                try:
                    threading.Thread(target=_work, args=(self.jobs,), name="aerostack", daemon=True).start()
                    self.threads += 1
                except RuntimeError as error:  # the system has no thread left
                    if not self.threads:
                        raise errors.ConnectError("no thread can be started: %s" % error) from error
            self.unfinished += 1
            self.jobs.put(job)

    def close(self) -> None:
        with self.lock:
            for _ in range(self.threads):
                self.jobs.put(None)
            self.closed = True
            self.threads = 0

    __del__ = close


def _work(jobs: Any) -> None:
    """One worker; while it waits it knows nothing of its _Workers, so that these can go when nobody else does."""
    job = jobs.get()
    while job:
        job()
        del job
        job = jobs.get()


def _running_loop() -> Any:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        words = "the _async operations need asyncio's event loop; with trio, call the plain ones in"
        raise RuntimeError(words + " trio.to_thread.run_sync") from None


def _on_loop(scope: _CancelScope, function: Callable[[], Any]) -> Any:
    """What is awaited on the caller's event loop, while this worker waits for it."""
    import asyncio

    async def awaited() -> Any:
        if scope.cancelled:  # before this began
            raise errors.ReadError("the call was cancelled")
        return await function()

    future = asyncio.run_coroutine_threadsafe(awaited(), scope.loop)
    try:
        scope.watch(future.cancel)
        return future.result()
    finally:
        scope.watch(None)
        future.cancel()  # if the call was cancelled just before; one that is done stays done


class _AwaitedBlocks:
    """An upload's blocks for an event loop, all read in one thread beside it."""

    def __init__(self, upload: _Upload) -> None:
        self.upload = upload

    async def __aiter__(self) -> Any:
        workers = _Workers(1)
        blocks = iter(self.upload)
        try:
            block = await workers.run(lambda: next(blocks, b""))
            while block:
                yield block
                block = await workers.run(lambda: next(blocks, b""))
        finally:
            workers.close()


def _in_background(function: Callable[[], Any], scope: _CancelScope, seconds: float) -> Any:
    """A function's value or error, from a daemon thread of its own, which is left behind when the time is up."""
    done = threading.Event()
    outcome: List[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)
        done.set()

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:  # there is no thread left, or at the interpreter's end none may be started
        run()
    scope.watch(done.set)
    done.wait(None if seconds == _FOREVER else seconds)
    return outcome[0] if outcome else OSError("the time is up, or the call was cancelled")


# ---- Command line: a thin layer over the Python calls ----------------------------------------------------------------

_EXAMPLES = """\
  ai_chat messages:='[{"role": "user", "content": "Hello"}]'
  auth_signin email=ada@example.com password=@-
  auth_signup email=ada@example.com password=@- metadata:='{"plan": "free"}'
  cache_get key=greeting
  cache_set key=greeting value=hello ttl=60
  db_query sql='SELECT ? AS answer' params:='[42]'
  queue_enqueue type=email data:='{"to": "ada@example.com"}' delay=60
  services_invoke service_name=resize data:='{"width": 80}'
  storage_upload key=photo.jpg file=@photo.jpg"""
_SETTINGS = {  # what a user sets them by
    "api_key_auth": "AEROSTACK_API_KEY or --key-file",
    "server_url": "AEROSTACK_SERVER_URL or --server-url",
    "timeout_ms": "--timeout",
}
_NOTES = """\
A field is name=text or name:=JSON. From a file: name=@FILE or name:=@FILE.
From standard input: name=@- or name:=@-. On a terminal, password=@- asks.
Exit status: 0 success, 1 API error, 2 usage error, 3 no response,
4 the response could not be written, 130 interrupted.
"""


def _main(arguments: Optional[List[str]] = None) -> int:
    """Call one operation from a shell. Returns the exit status."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell closed it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w", closefd=False))
    arguments = sys.argv[1:] if arguments is None else arguments
    operation = next((each for each in OPERATIONS if each.name in arguments), None)
    parser = _argument_parser(operation)
    options, words = parser.parse_known_args(arguments)
    try:
        for flag in [word.partition("=")[0] for word in words if word.startswith("-")]:
            raise _bad(flag, "no such option" + _nearest(flag, re.findall("--[a-z-]+", parser.format_help())))
        unwritten = _write(sys.stdout, _version() if options.version else _response(operation, options, words))
        status, text = (4, "the response could not be written: %s" % unwritten) if unwritten else (0, "")
    except KeyboardInterrupt:
        return 130
    except (AerostackError, OSError, ValueError, EOFError) as error:
        status, text = _explained(error)
    if text:
        _write(sys.stderr, "%s: %s" % (parser.prog, _escaped(" ".join(text.split()))))
    return status


def _argument_parser(operation: Optional[Operation]) -> Any:
    """What knows the options. Its help shows all operations, or one operation's fields and an example."""
    import argparse

    about = "operations, each with an example:\n" + _EXAMPLES
    if operation is not None:
        fields = [field.name + "  (optional)" * (field.default is None) for field in operation.request_type._fields()]
        examples = {line.split()[0]: line for line in _EXAMPLES.splitlines()}
        about = "%s\n\nfields:\n  %s\n\n" % (operation.summary, "\n  ".join(fields))
        about += "example:\n  %(prog)s " + examples.get(operation.name, "").strip()
    parser = argparse.ArgumentParser(
        usage="%(prog)s [OPTION ...] OPERATION [name=value ...]",
        description=about,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    asked = "-" if sys.stdin.isatty() and not os.environ.get("AEROSTACK_API_KEY") else None
    names = [field.name for field in operation.response_type._fields()] if operation else None
    option("--version", help="print the version and this file's SHA-256", action="store_true")
    option("--server-url", help="default: AEROSTACK_SERVER_URL, else production", metavar="URL")
    option("--local", help="the server " + SERVERS[1], dest="server_url", action="store_const", const=SERVERS[1])
    option("--key-file", help="default: AEROSTACK_API_KEY, else a terminal asks", metavar="FILE", default=asked)
    option("--timeout", help="for one attempt (default: 60)", metavar="SECONDS", type=float)
    option("--field", help="print one field of the response, text as it is", choices=names)
    option("--table", help="print rows as a table", action="store_true")
    option("--verbose", help="log each attempt to standard error, without secrets", action="store_true")
    return parser


def _response(operation: Optional[Operation], options: Any, words: List[str]) -> str:
    """Call an operation. Returns its response as it is to be printed."""
    if operation is None:
        name, fault = (words[0].partition("=")[0], "no such operation") if words else ("OPERATION", "is missing")
        raise _bad(name, fault + _nearest(name.lower(), [each.name for each in OPERATIONS]))
    fields = [_parsed_field(word) for word in words if word != operation.name]
    _require(len(dict(fields)) == len(fields), operation.name, "a field is given twice")
    _require(options.server_url != "", "--server-url", "is empty")
    shows_progress = "file" in dict(fields) and sys.stderr.isatty()
    with SDK(
        options.key_file and _parsed_field("api_key=@" + options.key_file)[1],
        server_url=options.server_url,
        timeout_ms=options.timeout and options.timeout * 1000,
        debug_logger=_StderrLogger() if options.verbose else None,
    ) as sdk:
        call = getattr(getattr(sdk, operation.service), operation.name)
        response = call(dict(fields), **({"progress": _show_progress} if shows_progress else {}))
    result = response.model_dump(mode="json")
    if options.table and "results" in result:
        return _table(result["results"])
    return _as_text(result.get(options.field) if options.field else result, 2 if sys.stdout.isatty() else None)


def _version() -> str:
    import hashlib

    try:
        with open(__file__, "rb") as reader:
            return "aerostack_lite %s\nsha256 %s" % (__version__, hashlib.sha256(reader.read()).hexdigest())
    except (NameError, OSError):  # piped in, or in a zip
        return "aerostack_lite " + __version__


def _parsed_field(word: str) -> Tuple[str, Any]:
    """A field's name and value. Text and JSON are UTF-8, whatever the locale."""
    match = re.fullmatch("(?s)(.*?)(:?=@?)(.*)", word)
    if not match:
        raise _bad(word, "is not name=value")
    name, form, text = match.groups()
    needed = re.search(" %s(:=|=@)" % re.escape(name), _EXAMPLES)
    if needed and not form.startswith(needed[1]):
        raise _bad(name, "goes in as" + needed[0] + ("JSON" if needed[1] == ":=" else "FILE"))
    if form[-1] != "@":
        data = os.fsencode(text)
    elif text == "-" and name in ("password", "api_key") and sys.stdin.isatty():
        import getpass

        data = os.fsencode(getpass.getpass(name + ": "))
    else:
        import pathlib

        _require(text != "-" or sys.stdin.readable(), "standard input", "is closed")
        source: Any = sys.stdin.buffer if text == "-" else pathlib.Path(text)
        if name == "file":
            return name, source
        data = source.read() if text == "-" else source.read_bytes()
    try:
        value = _parse_json(data) if form[0] == ":" else data.decode("utf-8-sig")
    except ValueError as error:
        raise _bad(name, "is not %s: %s" % ("JSON" if form[0] == ":" else "UTF-8", error)) from None
    return name, value.rstrip("\r\n") if name == "password" else value


def _explained(error: Exception) -> Tuple[int, str]:
    """The exit status for an error, and the error in the command line's terms."""
    if isinstance(error, errors.ValidationError):
        problems = [(_shown_place(where), words) for where, _, words in error.problems]
        return 2, "; ".join("%s: %s" % (_SETTINGS.get(at) or at.replace("body.", ""), words) for at, words in problems)
    if not isinstance(error, AerostackError):
        return 2, str(error)
    code, message = (error.data.code, error.data.message) if error.data else (type(error).__name__, str(error))
    text = "%s: %s (request %s, attempts %d)" % (code, _shortened(message), error.request_id, error.attempts)
    return 1 if isinstance(error, errors.SDKBaseError) else 3, text


def _as_text(value: Any, indent: Optional[int] = None) -> str:
    """Text as it is, all else as JSON; where the output is not UTF-8, what it may lack is escaped."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8", indent=indent)


def _table(rows: List[Dict[str, Any]]) -> str:
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    lines: List[List[Any]] = [names, *([row.get(name) for name in names] for row in rows)]
    cells = [["" if value is None else _escaped(_as_text(value)) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells if names)


def _show_progress(sent: int, total: Optional[int]) -> None:
    if total:  # what is printed next covers it, should the upload fail
        print("%3d %%" % (100 * sent // total), end="\n" if sent == total else "\r", file=sys.stderr, flush=True)


def _write(stream: Any, text: str) -> Optional[OSError]:
    """Write a line. Returns what kept it from being written, unless the reader left early."""
    stream.reconfigure(errors="backslashreplace")
    try:
        print(text, end="\n" if text else "", file=stream, flush=True)
        return None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or the end of the program would try it again
        return None if isinstance(error, BrokenPipeError) else error


class _StderrLogger:
    def debug(self, msg: str, *args: Any, **_: Any) -> None:
        _write(sys.stderr, msg % args)


# ---- Official names: the import paths of the official SDK ------------------------------------------------------------
# Saved as aerostack.py, `from aerostack.utils import RetryConfig` works; so it does under any other name of this file.


class types:
    """`UNSET`, and what is built on it."""

    BaseModel: TypeAlias = BaseModel
    if not TYPE_CHECKING:
        Nullable = Nullable
        OptionalNullable = OptionalNullable
    UNSET = UNSET
    UNSET_SENTINEL = "~?~unset~?~sentinel~?~"
    UnrecognizedInt = int
    UnrecognizedStr = str


class utils:
    """Retries, logs and dates."""

    BackoffStrategy: TypeAlias = BackoffStrategy
    Logger: TypeAlias = Logger
    RetryConfig: TypeAlias = RetryConfig
    parse_datetime = staticmethod(parse_datetime)

    @staticmethod
    def get_default_logger() -> Logger:
        """A logger that says nothing."""
        return Logger()  # type: ignore[misc]


class httpclient:
    """What `client=` and `async_client=` may be."""

    AsyncHttpClient: TypeAlias = AsyncHttpClient
    HttpClient: TypeAlias = HttpClient


def _register_official_names(this_module: Any) -> None:
    """Let `import aerostack.models` and importlib.util.find_spec find what stands in this file."""
    from importlib.machinery import ModuleSpec

    for part in (models, errors, types, utils, httpclient):
        name = "%s.%s" % (__name__, part.__name__)
        official: Any = part
        official.__all__ = [public for public in vars(part) if not public.startswith("_")]
        official.__spec__ = ModuleSpec(name, None)
        official.__name__ = name
        sys.modules[name] = official
    if this_module is not None:
        for name in ["sdk", "sdkconfiguration", *(operation.service for operation in OPERATIONS)]:
            sys.modules["%s.%s" % (__name__, name)] = this_module
            setattr(this_module, name, this_module)


_register_official_names(sys.modules.get(__name__))

if __name__ == "__main__":
    sys.exit(_main())
