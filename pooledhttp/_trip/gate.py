"""The one gate where statuses become exceptions, with the GIL held and the connection already disposed of."""
from __future__ import annotations

import os

from pooledhttp import errors
from pooledhttp._typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pooledhttp.conninfo import ConnInfo

# In the order of the Limit enum in _core/status.pxd.
_LIMITS: tuple[tuple[type[errors.TimeoutException], str] | None, ...] = (
    None,
    (errors.PoolTimeout, "pool"),
    (errors.ConnectTimeout, "connect"),
    (errors.TLSHandshakeTimeout, "tls_handshake"),
    (errors.ResponseHeaderTimeout, "response_header"),
    (errors.ReadTimeout, "read"),
    (errors.WriteTimeout, "write"),
)
_BROKEN = {
    1: "the server closed the connection in the middle of the response's head",
    2: "the response's body was cut short: {left} bytes were still to come",
    3: "the response's chunked body was cut short",
    4: "the server sent more than 32 interim responses, or too many bytes of them",
    20: "the server's header section is larger than max_response_header_bytes allows, as RFC 9113 section 6.5.2 counts",
    21: "the server's message is malformed (RFC 9113 section 8.1.1)",
    22: "the server broke the HTTP/2 protocol: the connection is closed",
    24: "the response's body was cut short: the connection ended",
    23: "the server did not answer a PING within http2_ping_timeout",
    25: "the server floods the HTTP/2 connection with frames that say nothing: it is closed",
}
_H2_CODES = ("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM",
             "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED", "an unknown error")
_DOING = {
    "pool": "waiting for a connection",
    "dns": "resolving the host's name",
    "connect": "connecting",
    "proxy": "asking the proxy",
    "tls": "in the TLS handshake",
    "send": "sending the request",
    "headers": "waiting for the response's head",
    "body": "reading the response's body",
}


def timed_out(limit: int, phase: str, seconds: float, conn: ConnInfo | None, detail: str = "") -> errors.TimeoutException:
    """`Timeout`'s limit number `limit` passed in `phase`."""
    entry = _LIMITS[limit]
    assert entry is not None
    cls, name = entry
    return cls(f"{_DOING[phase]} took longer than {name}={seconds:g} s{detail}", phase=phase, conn=conn)


def deadline_passed(source: str, phase: str, conn: ConnInfo | None, total: float, detail: str = "") -> errors.DeadlineExceeded:
    """The hard deadline of `source` passed in `phase`; a request's or a client's was `total` seconds where that is not negative."""
    limit = f" (total={total:g} s)" if total >= 0 and source != "context" else ""
    return errors.DeadlineExceeded(f"the {source}'s deadline{limit} passed while {_DOING[phase]}{detail}", source=source, phase=phase, conn=conn)


def cancelled(phase: str, reason: Any, conn: ConnInfo | None) -> errors.Cancelled:
    """Somebody cancelled."""
    why = f": {reason}" if reason is not None else ""
    return errors.Cancelled(f"cancelled while {_DOING[phase]}{why}", reason=reason, phase=phase, conn=conn)


def file_failed(number: int, left: int, length: int, conn: ConnInfo | None) -> Exception:
    """A file that is the request's body could not be read (`number` is an errno), or ended (0) `left` bytes too early."""
    if number:
        return OSError(number, os.strerror(number))
    return errors.LocalProtocolError(f"the request's body ended {left} bytes short of its Content-Length of {length}", phase="send", conn=conn)


def no_answer(conn: ConnInfo | None) -> errors.RemoteProtocolError:
    """A fresh connection was closed in order, before a byte of the answer."""
    return errors.RemoteProtocolError(f"the server closed the connection without an answer{_silent(conn)}", phase="headers", conn=conn)


def _silent(conn: ConnInfo | None) -> str:
    """OpenSSL's servers close without a word where they are sent plain HTTP."""
    if conn is None or conn.reused or conn.tls_version is not None or not isinstance(conn.remote_addr, tuple) or conn.remote_addr[1] == 80:
        return ""
    return " (a server that speaks TLS on this port does so: is https:// meant?)"


def broken(err: int, phase: str, left: int, conn: ConnInfo | None) -> errors.RemoteProtocolError:
    """The peer's bytes ended too early, or never do."""
    if err >= 100:
        return errors.RemoteProtocolError(f"the server reset the stream: {_H2_CODES[err - 100]}", phase=phase, conn=conn)
    return errors.RemoteProtocolError(_BROKEN[err].format(left=left), phase=phase, conn=conn)


def undone(h1: bool, conn: ConnInfo | None) -> errors.RemoteProtocolError:
    """The server did not begin with the request (RFC 9113 section 8.7), each time, or where it could not be sent again."""
    what = "wants it by HTTP/1.1" if h1 else "refused the stream, or went away before it"
    return errors.RemoteProtocolError(f"the server did not process the request: it {what}", phase="headers", conn=conn)


def io_failed(err: int, phase: str, conn: ConnInfo | None, silent: bool = False) -> errors.NetworkError:
    """A system call on the connection failed with `err`; `silent`: before a byte came."""
    cls = errors.WriteError if phase == "send" else errors.ReadError
    hint = _silent(conn) if silent else ""
    return cls(f"the connection broke while {_DOING[phase]}: {os.strerror(err)}{hint}", phase=phase, conn=conn, errno=err or None)


def tls_failed(exc: BaseException | None, phase: str, conn: ConnInfo | None, where: str) -> BaseException:
    """The TLS layer failed on an established connection (with TLS 1.3 also by the server's verdict on our certificate)."""
    from pooledhttp._net.tlsconfig import tls_error

    err = tls_error(exc, where) if isinstance(exc, OSError) else errors.TLSError(f"TLS failed while {_DOING[phase]}: {exc}")
    err.phase, err.conn, err.__cause__ = phase, conn, exc
    return err


def tls_cut(phase: str, conn: ConnInfo | None) -> errors.TransportError:
    """TLS ended without close_notify (RFC 8446 section 6.1): whoever cut the connection may have cut the body."""
    what = "the connection was cut without TLS's close_notify"
    if phase == "body":
        return errors.RemoteProtocolError(f"the response's body was truncated: {what}", phase=phase, conn=conn)
    return errors.ReadError(f"{what} while {_DOING[phase]}", phase=phase, conn=conn)


def stale(err: int, conn: ConnInfo | None, why: str) -> errors.StaleConnectionError:
    """A reused connection died (`err`: its errno, 0 for an orderly close) before the first byte, and the request may not go again."""
    cause = os.strerror(err) if err else "closed by the server"
    return errors.StaleConnectionError(f"the reused connection died before the answer ({cause}); not sent again: {why}", phase="headers", conn=conn,
                                       errno=err or None)


def lost(err: int, conn: ConnInfo | None) -> errors.StaleConnectionError:
    """What a trace hears of a request that was not sent whole on a reused connection that died, and goes on another."""
    cause = os.strerror(err) if err else "closed by the server"
    return errors.StaleConnectionError(f"the reused connection died before the answer ({cause}); sent again", phase="send", conn=conn, errno=err or None)


def answered_early(conn: ConnInfo | None) -> errors.WriteError:
    """What a trace hears of an upload that the server's answer has ended."""
    return errors.WriteError("the server answered before the request was sent whole; the rest was not sent", phase="send", conn=conn)


def too_large(limit: int, conn: ConnInfo | None) -> errors.ResponseTooLarge:
    """The body is over the caller's limit."""
    return errors.ResponseTooLarge(f"the response's body is over max_response_bytes={limit}", phase="body", conn=conn)


def pool_full(seconds: float, key: str, limit: int, holders: list[tuple[str, str, float, bool]]) -> str:
    """What a PoolTimeout adds: who has the connections, without query or userinfo."""
    origin = key.partition(" ")[0]             # without the proxy, and the variables that say whom it trusts
    rows = [f"{label} {'' if detail.startswith('http') else origin}{detail} for {age:.1f} s{', body left unread' if unread else ''}"
            for label, detail, age, unread in holders]
    held = "; ".join(rows) if rows else "nobody (all are being dialed)"
    return f" (max_conns_per_host={limit} of {key}; held by: {held})"
