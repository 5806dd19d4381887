"""urllib3's pool, response and errors, as far as requests looks at them, over our transports.

requests' `HTTPAdapter` asks a pool manager for an origin, calls its `urlopen`, and turns urllib3's errors into its own. So what stands
here in urllib3's place leaves all of that, and what users override of it, as it is.
"""
from __future__ import annotations

import io
import os
import re
import socket
import ssl
import sys
import weakref
from collections.abc import Generator, Iterable, Mapping
from http.client import HTTPMessage
from typing import Any, cast

from urllib3 import HTTPHeaderDict, HTTPResponse, Retry
from urllib3 import Timeout as TheirTimeout
from urllib3 import exceptions as theirs
from urllib3.util.ssl_ import resolve_cert_reqs

from pooledhttp import errors
from pooledhttp.adapters import _sent
from pooledhttp.adapters._transports import Transports
from pooledhttp.conninfo import ConnInfo
from pooledhttp.response import Response
from pooledhttp.timeout import Timeout
from pooledhttp.transport import Transport

_BEFORE = ("pool", "dns", "connect", "proxy", "tls")       # phases in which nothing of the request is sent
_VERSIONS = {"HTTP/1.0": 10, "HTTP/1.1": 11, "HTTP/2": 20}
# What urllib3 knows and a context says better, and what is about its own pools.
_CONTEXT = frozenset(("ssl_version", "ssl_minimum_version", "ssl_maximum_version", "ca_cert_data"))
_TLS = frozenset(("cert_reqs", "ca_certs", "ca_cert_dir", "cert_file", "key_file", "key_password", "ssl_context", "assert_hostname",
                  "assert_fingerprint", "server_hostname"))


def dialing_options(pool_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a transport that `init_poolmanager`'s keyword arguments ask for; TypeError for what has no counterpart."""
    options = {}
    for name, value in pool_kwargs.items():
        if name == "source_address":
            options["local_address"] = value if value is None or value[1] else value[0]
        elif name == "socket_options":
            options["socket_options"] = value
        elif name in _CONTEXT:
            raise TypeError(f"{name}= is not taken here: give an ssl_context")
        elif name not in _TLS:
            raise TypeError(f"{name}= has no counterpart here")
    return {name: value for name, value in options.items() if value is not None}


class Manager:
    """In the place of urllib3's PoolManager, or, with `proxy` options, of its ProxyManager."""

    def __init__(self, transports: Transports, tls: Mapping[str, Any], default_ca: str | None, proxy: Mapping[str, Any] | None = None) -> None:
        self.transports = transports
        self.tls = {name: value for name, value in tls.items() if name in _TLS}
        self.default_ca = default_ca
        self.proxy = proxy or {}

    def connection_from_host(self, host: str | None, port: int | None = None, scheme: str | None = "http",
                             pool_kwargs: Mapping[str, Any] | None = None) -> Origin:
        return Origin(self, scheme or "http", host or "", port, {**self.tls, **(pool_kwargs or {})})

    def connection_from_url(self, url: str, pool_kwargs: Mapping[str, Any] | None = None) -> Origin:
        from urllib3.util import parse_url

        parts = parse_url(url)
        return self.connection_from_host((parts.host or "").strip("[]"), parts.port, parts.scheme, pool_kwargs)

    @property
    def pools(self) -> dict[tuple[int, str], Any]:
        """The counts of each host's connections, by the transport's number and the host's pool key."""
        everyone = [t for t in self.transports.all() if isinstance(t, Transport)]
        return {(i, key): row for i, transport in enumerate(everyone) for key, row in transport.stats().hosts.items()}

    def clear(self) -> None:
        self.transports.close()


class Origin:
    """In the place of urllib3's connection pool for an origin; made for one request. Its attributes say how TLS is spoken, as there."""

    def __init__(self, manager: Manager, scheme: str, host: str, port: int | None, tls: Mapping[str, Any]) -> None:
        try:
            self.root = _sent.origin(scheme.lower(), host.strip("[]"), port)
        except errors.Error as e:
            raise theirs.LocationValueError(str(e)) from e
        self.manager = manager
        self.scheme = self.root.scheme
        self.host = self.root.host
        self.port = self.root.effective_port
        self.proxy = manager.proxy.get("proxy")
        self.cert_reqs: Any = None
        self.ca_certs: str | None = None
        self.ca_cert_dir: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.key_password: str | None = None
        self.ssl_context: ssl.SSLContext | None = None
        self.assert_hostname: Any = None
        self.assert_fingerprint: str | None = None
        self.server_hostname: str | None = None
        for name, value in tls.items():
            if name not in _TLS:
                raise TypeError(f"{name}= has no counterpart here")
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"<pooledhttp {self.root.origin}>"

    # --- which transport --------------------------------------------------------------------------------------------------

    def changes(self) -> dict[str, Any]:
        """How the transport differs from the main one."""
        changes = dict(self.manager.proxy)
        if self.scheme != "https":
            return changes
        verify = self._verify()
        if verify is not True:
            changes["verify"] = verify
        if self.cert_file:
            cert = (self.cert_file, self.key_file or self.cert_file)
            changes["cert"] = (*cert, self.key_password) if self.key_password else cert if self.key_file else self.cert_file
        name = self.server_hostname or (self.assert_hostname if isinstance(self.assert_hostname, str) else None)
        if name:
            changes["server_hostname"] = name
        if self.assert_fingerprint:
            digits = re.sub("[^0-9a-fA-F]", "", self.assert_fingerprint)
            if len(digits) != 64:
                raise ValueError("assert_fingerprint is a SHA-256 of 64 hex digits: shorter ones are forged too easily")
            changes["fingerprint"] = f"sha256:{digits.lower()}"
        return changes

    def _verify(self) -> Any:
        ca = self.ca_certs or self.ca_cert_dir
        unchecked = self.cert_reqs is not None and resolve_cert_reqs(self.cert_reqs) == ssl.CERT_NONE
        context = self.ssl_context
        if context is not None:
            if unchecked and context.verify_mode != ssl.CERT_NONE:
                raise ValueError("verify=False, and an ssl_context that verifies: set its check_hostname and verify_mode, it may be another's too")
            if not unchecked and ca:
                return _trusting(context, ca)
            return context
        if unchecked:
            return False
        if self.assert_hostname is False:
            return _unnamed(ca)
        return True if ca is None or ca == self.manager.default_ca else ca

    # --- requests ---------------------------------------------------------------------------------------------------------

    def urlopen(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None, retries: Any = None, redirect: bool = True,
                timeout: Any = None, chunked: bool = False, **urllib3s: Any) -> RawResponse:
        """One request, and those that `retries` sends after it. Raises urllib3's errors. `urllib3s`: what is asked of urllib3 alone."""
        left = retries if isinstance(retries, Retry) else Retry.from_int(retries, redirect=redirect)
        changes = self.changes()
        limits = limits_of(timeout)
        try:
            target = url if url.startswith("/") else _target(url)
            sent = _sent.request(method, _sent.beneath(self.root, target), (headers or {}).items(), _body(body))
        except errors.LocalProtocolError as e:
            raise theirs.InvalidHeader(str(e)) from e
        while True:
            try:
                response = self.manager.transports.use(changes, lambda t: t.round_trip(sent, timeout=limits, context=None))
            except errors.Cancelled as e:
                raise theirs.ClosedPoolError(cast(Any, self), str(e)) from e
            except errors.Error as e:
                error = self.error_for(e, url)
                error.__cause__ = e
                if isinstance(error, theirs.InvalidHeader):
                    raise error from e
                left = left.increment(method, url, error=error, _pool=cast(Any, self), _stacktrace=sys.exc_info()[2])
                if not _sent.rewindable(sent):
                    raise error from e
                left.sleep()
                continue
            except RuntimeError as e:
                if not getattr(self.manager.transports.main, "closed", False):
                    raise
                raise theirs.ClosedPoolError(cast(Any, self), "the transport is closed") from e
            raw = RawResponse(response, self, method, url, left)
            if not left.is_retry(method, raw.status, "retry-after" in raw.headers):
                return raw
            try:
                left = left.increment(method, url, response=raw, _pool=cast(Any, self))
            except theirs.MaxRetryError:
                if left.raise_on_status:
                    raw.drain_conn()
                    raise
                return raw
            if not _sent.rewindable(sent):
                return raw
            raw.drain_conn()
            left.sleep(raw)

    def error_for(self, e: errors.Error, url: str) -> Exception:
        """What urllib3 raises where we raise `e`."""
        where = cast(Any, self)
        before = e.phase in _BEFORE
        error: Exception
        if isinstance(e, errors.TimeoutException) and not isinstance(e, errors.WriteTimeout):
            error = theirs.ConnectTimeoutError(where, str(e)) if before else theirs.ReadTimeoutError(where, url, f"Read timed out. ({e})")
        elif isinstance(e, errors.DNSError):
            error = theirs.NameResolutionError(self.host, where, socket.gaierror(e.errno or socket.EAI_NONAME, e.message))
        elif isinstance(e, errors.ConnectError):
            error = theirs.NewConnectionError(where, str(e))
        elif isinstance(e, errors.TLSError):
            return theirs.SSLError(e)
        elif isinstance(e, errors.ProxyError):
            return theirs.ProxyError(str(e), e)
        elif isinstance(e, errors.LocalProtocolError) and e.phase is None or (
                isinstance(e, errors.RemoteProtocolError) and e.phase == "headers" and "Content-Length" in e.message):
            return theirs.InvalidHeader(str(e))
        elif isinstance(e, errors.TransportError) or e.phase is not None:
            return theirs.ProtocolError(str(e), e)
        else:
            return e
        return theirs.ProxyError(str(e), error) if self.proxy and before and e.phase != "pool" else error


# --- what comes back --------------------------------------------------------------------------------------------------------


class RawResponse(HTTPResponse):
    """A response's `raw`: urllib3's own, over a body of ours. `conn` is the `ConnInfo` of its connection."""

    def __init__(self, response: Response, origin: Origin, method: str, url: str, retries: Retry) -> None:
        fields = HTTPHeaderDict()
        for name, value in response.headers.multi_items():
            fields.add(name, value)
        self._ours = response
        body = _sent.RawBody(response, lambda e: _broken(e, origin, url))
        super().__init__(body=cast(Any, body), headers=fields, status=response.status_code, version=_VERSIONS.get(response.http_version, 11),
                         version_string=response.http_version, reason=response.reason, preload_content=False, decode_content=False,
                         original_response=cast(Any, Original(body, response)), retries=retries, request_method=method, request_url=url)

    @property
    def conn(self) -> ConnInfo | None:
        return self._ours.conn

    def supports_chunked_reads(self) -> bool:
        return True

    def read_chunked(self, amt: int | None = None, decode_content: bool | None = None) -> Generator[bytes, None, None]:
        """The body of a chunked response as it arrives."""
        if not self.chunked:
            raise theirs.ResponseNotChunked("the response is not chunked")
        while True:
            try:
                data = self.read1(amt, decode_content)
            except theirs.DecodeError:
                self.close()                               # nobody reads on behind it
                raise
            if not data:
                return
            yield data

    def release_conn(self) -> None:
        if self._fp is not None:
            self._fp.close()


class Original:
    """http.client's response, as far as cookies are read from it. False where it sets none: so requests does not look for them."""

    def __init__(self, body: _sent.RawBody, response: Response) -> None:
        self._body = body
        self._response = response
        self._msg: HTTPMessage | None = None
        self.status = response.status_code
        self.reason = response.reason
        self.version = _VERSIONS.get(response.http_version, 11)

    def __bool__(self) -> bool:
        return "set-cookie" in self._response.headers

    @property
    def msg(self) -> HTTPMessage:
        if self._msg is None:
            self._msg = HTTPMessage()
            for name, value in self._response.headers.multi_items():
                self._msg[name] = value
        return self._msg

    def isclosed(self) -> bool:
        return self._body.closed

    def close(self) -> None:
        self._body.close()


def _broken(e: Exception, origin: Origin, url: str) -> Exception:
    """What urllib3 raises where a body's reading failed."""
    if isinstance(e, errors.TimeoutException):
        return theirs.ReadTimeoutError(cast(Any, origin), url, f"Read timed out. ({e})")
    if isinstance(e, errors.TLSError):
        return theirs.SSLError(e)
    if isinstance(e, errors.Error):
        return theirs.ProtocolError(f"Connection broken: {e}", e)
    return e


# --- what goes out ----------------------------------------------------------------------------------------------------------


def limits_of(timeout: Any) -> Timeout:
    """urllib3's timeout as ours: seconds (for the connection, and for each silence), its Timeout, or None for no limit."""
    if timeout is not None and not isinstance(timeout, TheirTimeout):
        timeout = TheirTimeout.from_float(timeout)
    connect = read = None
    if timeout is not None:
        running = timeout.clone()
        running.start_connect()
        connect, read = (_seconds(value) for value in (running.connect_timeout, running.read_timeout))
    return Timeout(pool=None, connect=connect, tls_handshake=connect, read=read, write=read)


def _seconds(value: Any) -> float | None:
    return value if value is None or isinstance(value, (int, float)) else socket.getdefaulttimeout()


def _target(url: str) -> str:
    """The path and query of an absolute URL: what requests gives for a proxy, which our transport asks by itself."""
    rest = url.partition("://")[2].partition("#")[0]
    at = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
    return rest[at:] if rest[at:at + 1] == "/" else "/" + rest[at:]


def _body(body: Any) -> Any:
    """A request's body as `http.client` takes it: str as UTF-8, text files, iterables of either."""
    if body is None or isinstance(body, (bytes, str, bytearray, memoryview)):
        return body
    if hasattr(body, "read"):
        return _sent.TextBody(_text_pieces(body)) if isinstance(body, io.TextIOBase) else body
    try:
        return memoryview(body)
    except TypeError:
        return _sent.TextBody(body) if isinstance(body, Iterable) else body


def _text_pieces(file: Any) -> Generator[str, None, None]:
    while piece := file.read(1 << 16):
        yield piece


# --- contexts ---------------------------------------------------------------------------------------------------------------


def _trusting(context: ssl.SSLContext, ca: str) -> ssl.SSLContext:
    """The user's context, with the authorities that requests names: it leaves them to whoever dials."""
    loaded = _loaded.setdefault(context, set())
    if ca not in loaded:
        context.load_verify_locations(**{"capath" if os.path.isdir(ca) else "cafile": ca})
        loaded.add(ca)
    return context


def _unnamed(ca: str | None) -> ssl.SSLContext:
    """A context that trusts `ca`, whatever name the certificate has."""
    context = _contexts.get(ca)
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname = False
        if ca is not None:
            _trusting(context, ca)
        _contexts[ca] = context
    return context


_loaded: weakref.WeakKeyDictionary[ssl.SSLContext, set[str]] = weakref.WeakKeyDictionary()
_contexts: dict[str | None, ssl.SSLContext] = {}
