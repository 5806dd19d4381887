"""httpx over our transport: `httpx.Client(transport=PooledTransport())`, and all else stays as it is.

https://www.python-httpx.org/advanced/transports/
"""
from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

try:
    import httpx
except ImportError as e:
    raise ImportError("pooledhttp.adapters.httpx needs httpx: pip install httpx") from e

from pooledhttp import errors
from pooledhttp.adapters import _sent
from pooledhttp.adapters._transports import Transports
from pooledhttp.conninfo import ConnInfo
from pooledhttp.response import CHUNK, Response
from pooledhttp.timeout import Timeout

_BEFORE = ("pool", "dns", "connect", "proxy", "tls")       # phases in which nothing of the request is sent
_BACKOFF = 0.5                                              # seconds before the second new connect; twice as long before each further one
_ERRORS: tuple[tuple[type[errors.Error], type[httpx.TransportError]], ...] = (
    (errors.PoolTimeout, httpx.PoolTimeout),
    (errors.ConnectTimeout, httpx.ConnectTimeout),
    (errors.TLSHandshakeTimeout, httpx.ConnectTimeout),
    (errors.WriteTimeout, httpx.WriteTimeout),
    (errors.ResponseHeaderTimeout, httpx.ReadTimeout),
    (errors.ReadTimeout, httpx.ReadTimeout),
    (errors.ConnectError, httpx.ConnectError),
    (errors.WriteError, httpx.WriteError),
    (errors.ReadError, httpx.ReadError),
    (errors.StaleConnectionError, httpx.RemoteProtocolError),
    (errors.ProxyError, httpx.ProxyError),
    (errors.LocalProtocolError, httpx.LocalProtocolError),
    (errors.RemoteProtocolError, httpx.RemoteProtocolError),
    (errors.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (errors.InvalidURL, httpx.UnsupportedProtocol),
)


class PooledTransport(httpx.BaseTransport):
    """httpx's transport, its connections ours.

    `verify`, `cert`, `trust_env` (whether SSL_CERT_FILE and SSL_CERT_DIR count), `http1`, `http2`, `limits`, `proxy`, `uds`, `local_address`,
    `retries` (of failed connects) and `socket_options` as `httpx.HTTPTransport` takes them, but that `limits.max_connections` bounds each
    host's connections, not all; further keyword arguments are options of `Transport`. Or else `transport`: a `Transport`, a `Client` (its
    transport is used) or anything with `round_trip`, which stays open when httpx's client is closed.

    A request's extensions `timeout`, `sni_hostname` and `target` count; a response has `http_version`, `reason_phrase`, `network_stream`.
    """

    def __init__(self, verify: ssl.SSLContext | str | bool = True, cert: Any = None, trust_env: bool = True, http1: bool = True,
                 http2: bool = False, limits: httpx.Limits | None = None, proxy: Any = None, uds: str | None = None, local_address: str | None = None,
                 retries: int = 0, socket_options: Iterable[Any] | None = None, *, transport: Any = None, **options: Any) -> None:
        if not http1 and not http2:
            raise ValueError("http1 and http2 are both off")
        if trust_env and transport is None and verify is True:
            verify = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or True
        given = {"verify": verify, "cert": cert, "uds": uds, "local_address": local_address, "socket_options": socket_options}
        asked = {name: value for name, value in given.items() if value is not (True if name == "verify" else None)}
        if limits is not None:
            asked.update(_limits(limits))
        if proxy is not None:
            asked.update(_proxy(proxy))
        if transport is None:
            asked["http2"] = http2 if http1 else "prior-knowledge"
        self._transports = Transports(transport, {**asked, **options})
        self._retries = retries

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, the body unread and undecoded."""
        extensions = request.extensions
        try:
            root = _sent.origin(request.url.scheme, request.url.raw_host.decode("ascii"), request.url.port)
            target: bytes = extensions.get("target", request.url.raw_path)
            sent = _sent.request(request.method, _sent.beneath(root, target.decode("ascii")), request.headers.raw, _body(request))
            response = self._exchange(sent, _timeout(extensions.get("timeout") or {}), extensions.get("sni_hostname"))
        except errors.Error as e:
            raise _translated(e) from e
        return httpx.Response(response.status_code, headers=response.headers.raw, stream=_Stream(response), extensions={
            "http_version": response.http_version.encode("ascii"), "reason_phrase": response.reason.encode("latin-1"),
            "network_stream": NetworkStream(response.conn)})

    def _exchange(self, sent: Any, timeout: Timeout, name: Any) -> Response:
        changes = {"server_hostname": name.decode("ascii") if isinstance(name, bytes) else name} if name else {}
        left, delay = self._retries, 0.0
        while True:
            try:
                response: Response = self._transports.use(changes, lambda t: t.round_trip(sent, timeout=timeout, context=None))
                return response
            except (errors.ConnectError, errors.ConnectTimeout):
                if left <= 0:
                    raise
                left -= 1
                time.sleep(delay)
                delay = 2 * delay or _BACKOFF

    @property
    def transport(self) -> Any:
        """The transport of requests without a `sni_hostname`."""
        return self._transports.main

    def close(self) -> None:
        """Close the connections that idle, and the others when they are done."""
        self._transports.close()


class NetworkStream:
    """A response's `network_stream` extension: what its connection is, and nothing to read from. `conn` is the `ConnInfo`."""

    def __init__(self, conn: ConnInfo | None) -> None:
        self.conn = conn

    def get_extra_info(self, info: str) -> Any:
        """"client_addr" and "server_addr": (host, port), or a Unix socket's path; None for all else."""
        if self.conn is None:
            return None
        return {"client_addr": self.conn.local_addr, "server_addr": self.conn.remote_addr}.get(info)


class _Stream(httpx.SyncByteStream):
    def __init__(self, response: Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_raw(CHUNK)
        except errors.Error as e:
            raise _translated(e) from e

    def close(self) -> None:
        self._response.close()


def _translated(e: errors.Error) -> Exception:
    """httpx's error for ours."""
    before = e.phase in _BEFORE
    for ours, theirs in _ERRORS:
        if isinstance(e, ours):
            return theirs(str(e))
    if isinstance(e, errors.DeadlineExceeded):
        return httpx.ConnectTimeout(str(e)) if before else httpx.ReadTimeout(str(e))
    if isinstance(e, errors.TLSError):
        return httpx.ConnectError(str(e)) if before else httpx.ReadError(str(e))
    return httpx.NetworkError(str(e)) if isinstance(e, errors.RequestError) else httpx.StreamError(str(e))


def _timeout(limits: dict[str, float | None]) -> Timeout:
    connect = limits.get("connect")
    return Timeout(pool=limits.get("pool"), connect=connect, tls_handshake=connect, read=limits.get("read"), write=limits.get("write"))


def _body(request: httpx.Request) -> Any:
    """Bytes where they are at hand, so that they go out with the head; else what is iterated once."""
    stream = request.stream
    assert isinstance(stream, httpx.SyncByteStream)
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream) or None
    return _sent.Once(stream)


def _limits(limits: httpx.Limits) -> dict[str, Any]:
    options: dict[str, Any] = {"idle_conn_timeout": limits.keepalive_expiry}
    if limits.max_connections is not None:
        if limits.max_connections < 1:
            raise ValueError("limits.max_connections is at least 1: no request could be sent")
        options["max_conns_per_host"] = limits.max_connections
    kept = limits.max_keepalive_connections
    # 0 means no limit to a Transport.
    if kept == 0 or limits.keepalive_expiry == 0:
        return {**options, "idle_conn_timeout": None, "disable_keep_alives": True}
    return {**options, "max_idle_conns": kept or 0, "max_idle_conns_per_host": kept or 0}


def _proxy(proxy: Any) -> dict[str, Any]:
    if not isinstance(proxy, httpx.Proxy):
        proxy = httpx.Proxy(proxy)
    if getattr(proxy, "ssl_context", None) is not None:
        raise ValueError("a proxy's own ssl_context has no counterpart here: TLS to the proxy is spoken as to every server")
    url = str(proxy.url)
    if proxy.auth is not None:
        scheme, _, rest = url.partition("://")
        url = f"{scheme}://{':'.join(quote(part, safe='') for part in proxy.auth)}@{rest}"
    options: dict[str, Any] = {"proxy": url}
    if proxy.headers:
        options["proxy_headers"] = dict(proxy.headers)
    return options
