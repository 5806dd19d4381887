"""Go's net/http client, for threaded Python: a compiled, pooled, synchronous HTTP client with hard deadlines."""
from pooledhttp import _supported as _supported  # isort: skip - first of all
from pooledhttp._pool.stats import PoolStats
from pooledhttp._typing import TYPE_CHECKING as _TYPE_CHECKING
from pooledhttp._typing import Any as _Any
from pooledhttp._version import __version__
from pooledhttp.api import default_client, delete, features, get, head, options, patch, post, put, request, stream
from pooledhttp.auth import Auth, BasicAuth, BearerAuth
from pooledhttp.client import Client
from pooledhttp.conninfo import ConnInfo
from pooledhttp.context import Context
from pooledhttp.errors import (
    Cancelled,
    CertificateError,
    ConnectError,
    ConnectRefusedByFilter,
    ConnectTimeout,
    DeadlineExceeded,
    DecodingError,
    DNSError,
    Error,
    HTTPStatusError,
    InvalidURL,
    LocalProtocolError,
    NetworkError,
    PoolTimeout,
    ProtocolError,
    ProxyConnectError,
    ProxyError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    RequestError,
    ResponseHeaderTimeout,
    ResponseTooLarge,
    StaleConnectionError,
    StreamClosed,
    StreamConsumed,
    StreamError,
    TimeoutException,
    TLSError,
    TLSHandshakeTimeout,
    TooManyRedirects,
    TransportError,
    UnsupportedProtocol,
    WriteError,
    WriteTimeout,
)
from pooledhttp.headers import Headers
from pooledhttp.request import Request
from pooledhttp.response import Response
from pooledhttp.timeout import Timeout
from pooledhttp.transport import Transport, default_transport
from pooledhttp.url import URL

__all__ = [
    "URL", "Auth", "BasicAuth", "BearerAuth", "Cancelled", "CertificateError", "Client", "ConnInfo", "ConnectError",
    "ConnectRefusedByFilter", "ConnectTimeout", "Context", "Cookies", "DNSError", "DeadlineExceeded", "DecodingError", "DigestAuth",
    "Error", "HTTPStatusError", "Headers", "InvalidURL", "JSONDecodeError", "LocalProtocolError", "MockTransport", "NetRCAuth",
    "NetworkError", "PoolStats", "PoolTimeout", "ProtocolError",
    "ProxyConnectError", "ProxyError", "ReadError", "ReadTimeout", "RemoteProtocolError", "Request", "RequestError", "Response",
    "ResponseHeaderTimeout", "ResponseTooLarge", "Retry",
    "StaleConnectionError", "StreamClosed", "StreamConsumed", "StreamError", "TLSError", "TLSHandshakeTimeout", "Timeout",
    "TimeoutException", "TooManyRedirects", "Trace", "Transport", "TransportError", "UnsupportedProtocol", "WSGITransport", "WriteError",
    "WriteTimeout",
    "__version__", "default_client", "default_transport", "delete", "features", "get", "head", "options", "patch", "post",
    "public_addresses_only", "put", "request", "stream",
]


if _TYPE_CHECKING:
    from pooledhttp.cookies import Cookies
    from pooledhttp.digest import DigestAuth
    from pooledhttp.filters import public_addresses_only
    from pooledhttp.mock import MockTransport
    from pooledhttp.netrc import NetRCAuth
    from pooledhttp.retry import Retry
    from pooledhttp.trace import Trace
    from pooledhttp.wsgi import WSGITransport

# Where the names are that few programs use: imported when first asked for. JSONDecodeError's base is in json.
_LATE = {"Cookies": "cookies", "DigestAuth": "digest", "JSONDecodeError": "errors", "MockTransport": "mock", "NetRCAuth": "netrc",
         "Retry": "retry", "Trace": "trace", "WSGITransport": "wsgi", "public_addresses_only": "filters"}


def __getattr__(name: str) -> _Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"pooledhttp.{_LATE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
