"""The exception tree. Imports nothing of the package.

Every exception derives from `Error` (an `OSError`), pickles, and carries `.request` where there is one; where a wire was
involved also `.phase` (one of `PHASES`) and `.conn` (a `ConnInfo`).
"""
from __future__ import annotations

from pooledhttp._typing import Any

PHASES = ("pool", "dns", "connect", "proxy", "tls", "send", "headers", "body")


def _rebuild(cls: type[Error], message: str, state: dict[str, Any]) -> Error:
    err = cls.__new__(cls)
    OSError.__init__(err, message)
    err.errno = state.pop("errno", None)
    err.__dict__.update(state)
    return err


class Error(OSError):
    """Base of all that pooledhttp raises for a request. `str(err)` is one line. `errno` is the system's, where one of its calls failed."""

    request: Any = None
    phase: str | None = None
    conn: Any = None
    earlier: tuple[Error, ...] = ()            # what ended the tries before, where the request was sent several times

    def __init__(self, message: str = "", *, request: Any = None, phase: str | None = None, conn: Any = None, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        if request is not None:
            self.request = request
        if phase is not None:
            self.phase = phase
        if conn is not None:
            self.conn = conn

    @property
    def message(self) -> str:
        """What happened, without the request."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, {**self.__dict__, "errno": self.errno} if self.errno is not None else self.__dict__.copy())


class RequestError(Error):
    """A request could not be completed; `str(err)` ends with its method and URL, without userinfo and query."""

    def __str__(self) -> str:
        url = getattr(getattr(self.request, "url", None), "redacted", None)          # what `map` was given need not be a request
        return f"{self.message} ({self.request.method} {url})" if url is not None else self.message


class TransportError(RequestError):
    """Something between this process and the server failed."""


class TimeoutException(TransportError, TimeoutError):
    """A limit of `Timeout` or a deadline passed."""


class PoolTimeout(TimeoutException):
    """No connection came free within `Timeout.pool`; the message names who holds them."""


class ConnectTimeout(TimeoutException):
    """DNS, TCP and what was asked of a proxy took longer than `Timeout.connect`."""


class TLSHandshakeTimeout(TimeoutException):
    """The TLS handshake took longer than `Timeout.tls_handshake`."""


class ResponseHeaderTimeout(TimeoutException):
    """The response's head did not end within `Timeout.response_header` of the request's last byte."""


class ReadTimeout(TimeoutException):
    """The server was silent for longer than `Timeout.read`."""


class WriteTimeout(TimeoutException):
    """The server took nothing for longer than `Timeout.write`."""


class DeadlineExceeded(TimeoutException):
    """A hard deadline passed; `.source` says whose: "client", "request" or "context"."""

    source: str = "request"

    def __init__(self, message: str = "", *, source: str = "request", **kw: Any) -> None:
        super().__init__(message, **kw)
        self.source = source


class NetworkError(TransportError):
    """The network or the peer failed."""


class ConnectError(NetworkError, ConnectionError):
    """No connection could be made. `errno` is the first failed address's (a `DNSError`'s: as `socket.gaierror` has it, EAI_NONAME and the like)."""


class DNSError(ConnectError):
    """The host's name did not resolve."""


class ConnectRefusedByFilter(ConnectError):
    """`connect_filter` refused every address of the host."""


class TLSError(NetworkError):
    """TLS failed."""


class CertificateError(TLSError):
    """The server's certificate was not accepted."""


class ReadError(NetworkError, ConnectionError):
    """The connection broke while the response was read."""


class WriteError(NetworkError, ConnectionError):
    """The connection broke while the request was sent."""


class StaleConnectionError(NetworkError, ConnectionError):
    """A reused connection died before the first byte of the answer, and the request may not be sent again."""


class ProxyError(TransportError):
    """A proxy refused or failed. `.status_code` and `.reason` are its answer to CONNECT; `.socks_reply` is a SOCKS proxy's reply code (RFC 1928)."""

    status_code: int | None = None
    reason: str | None = None
    socks_reply: int | None = None

    def __init__(self, message: str = "", *, status_code: int | None = None, reason: str | None = None, socks_reply: int | None = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        for name, value in (("status_code", status_code), ("reason", reason), ("socks_reply", socks_reply)):
            if value is not None:
                setattr(self, name, value)


class ProxyConnectError(ProxyError, ConnectError):
    """No connection to the proxy could be made: both a `ProxyError` and a `ConnectError`."""


class ProtocolError(TransportError):
    """HTTP was broken."""


class LocalProtocolError(ProtocolError):
    """We would have sent something that HTTP does not allow."""


class RemoteProtocolError(ProtocolError):
    """The server sent something that HTTP does not allow."""


class UnsupportedProtocol(TransportError):
    """The URL's scheme is not one we speak."""


class Cancelled(RequestError):
    """The request was cancelled; `.reason` is what the canceller said."""

    reason: Any = None

    def __init__(self, message: str = "", *, reason: Any = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        if reason is not None:
            self.reason = reason


class DecodingError(RequestError):
    """The body's content coding was broken."""


class ResponseTooLarge(RequestError):
    """The body is over `max_response_bytes`."""


class TooManyRedirects(RequestError):
    """More redirects than `max_redirects`; `.request` is the one that was not sent, `.response` the redirect that asked for it."""

    response: Any = None

    def __init__(self, message: str = "", *, response: Any = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        if response is not None:
            self.response = response


class HTTPStatusError(Error):
    """`raise_for_status` met a status of 400 to 599; `.response` is the response."""

    response: Any = None

    def __init__(self, message: str = "", *, response: Any = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        if response is not None:
            self.response = response


class InvalidURL(Error, ValueError):
    """The URL cannot be used."""


class StreamError(Error):
    """A response's body was read in a way that cannot work."""


class StreamConsumed(StreamError):
    """The body was already read."""


class StreamClosed(StreamError):
    """The response was closed."""


def __getattr__(name: str) -> Any:
    if name != "JSONDecodeError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import json

    class JSONDecodeError(Error, json.JSONDecodeError):
        """The body is not JSON; `msg`, `doc`, `pos` as in `json.JSONDecodeError`."""

        def __init__(self, msg: str, doc: str, pos: int, **kw: Any) -> None:
            Error.__init__(self, "", **kw)
            json.JSONDecodeError.__init__(self, msg, doc, pos)

        def __str__(self) -> str:
            return ValueError.__str__(self)

        def __reduce__(self) -> tuple[Any, ...]:
            return _rebuild_json, (self.msg, self.doc, self.pos, self.__dict__.copy())

    JSONDecodeError.__qualname__ = "JSONDecodeError"
    JSONDecodeError.__module__ = __name__
    globals()["JSONDecodeError"] = JSONDecodeError
    return JSONDecodeError


def _rebuild_json(msg: str, doc: str, pos: int, state: dict[str, Any]) -> Error:
    err: Error = __getattr__("JSONDecodeError")(msg, doc, pos) if "JSONDecodeError" not in globals() else globals()[
        "JSONDecodeError"](msg, doc, pos)
    err.__dict__.update(state)
    return err
