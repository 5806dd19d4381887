"""The transport: owns connections, and makes one exchange at a time on each.

Go's `http.Transport` is the model: https://pkg.go.dev/net/http#Transport.
"""
from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from pooledhttp import errors
from pooledhttp._core import cancel as _cancel
from pooledhttp._core import runtime
from pooledhttp._core.limits import Limits
from pooledhttp._net import eager, openssl
from pooledhttp._pool import pool as _pool
from pooledhttp._pool.janitor import janitor
from pooledhttp._pool.stats import PoolStats
from pooledhttp._trip.reply import Reply
from pooledhttp._trip.trip import Tripper
from pooledhttp._typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import ssl

    from pooledhttp._net.dial import Dial, DialSpec
    from pooledhttp._net.resolver import Resolver
    from pooledhttp._net.stream import Stream
    from pooledhttp._net.tlsconfig import TlsSettings
    from pooledhttp.proxies import Rule, Surroundings
    from pooledhttp.url import URL

FLAG_STREAM = 1
FLAG_REPLAY = 2
FLAG_SAID_CLOSE = 8
FLAG_MAY_GO_ON = 16
FLAG_MAY_REPEAT = 32
FLAG_EXPECT = 128
Canceller: TypeAlias = _cancel.Canceller

# What a client looks for in its environment.
_VARIABLES = frozenset((b"SSL_CERT_FILE", b"SSL_CERT_DIR", b"REQUESTS_CA_BUNDLE", b"CURL_CA_BUNDLE",
                        b"http_proxy", b"HTTP_PROXY", b"https_proxy", b"HTTPS_PROXY", b"all_proxy", b"ALL_PROXY"))
_ORPHANS_PER_HOST = 4       # dials that lost their race and are being finished, at once
_ORPHAN_NS = 30_000_000_000
_EXPECT_MAX = 1e9           # seconds: for ever

_make_response: Callable[[Reply, Any], Any] | None = None
_all: weakref.WeakSet[Transport] = weakref.WeakSet()


def install_response_factory(factory: Callable[[Reply, Any], Any]) -> None:
    """Say what `round_trip` returns: called with the reply and the request. (Imports go down only: the response is above.)"""
    global _make_response
    _make_response = factory


@cache
def http2_available() -> bool:
    """Whether this build speaks HTTP/2: it was built where libnghttp2 was."""
    from importlib.util import find_spec

    return find_spec("pooledhttp._conn.h2") is not None


def _speaks_to_us() -> bool:
    """Whether the environment has any of those. Mostly it has none, which `os.environ` says by an exception for each name."""
    data = getattr(os.environ, "_data", None)
    if type(data) is dict:
        return not data.keys().isdisjoint(_VARIABLES)
    return any(name.decode() in os.environ for name in _VARIABLES)


def _tls_settings(verify: Any, cert: Any, fingerprint: Any) -> TlsSettings:
    from pooledhttp._net import tlsconfig

    return tlsconfig.settings(verify, cert, fingerprint)


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least):
        raise ValueError(f"{name} must be a number of at least {least:g}, not {value!r}")


def _count(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, not {value!r}")
    return min(value, 0x7fffffff)


class _Signature:
    """`inspect.signature` of the class: its `__init__`'s."""

    def __get__(self, instance: object, cls: type) -> Any:
        from inspect import signature

        whole = signature(cls.__init__)  # type: ignore[misc]  # whatever a subclass takes
        return whole.replace(parameters=list(whole.parameters.values())[1:])


class Transport(Tripper):
    """Connections to many hosts, pooled and bounded; safe to share among threads, and made to be.

    For the three `max_*conns*`, 0 is no limit; for `idle_conn_timeout` and `max_conn_lifetime` (seconds), None or 0 is never.
    `reuse` is "lifo" (most recently used first) or "fifo". `verify` is True (certifi), False, a CA file or directory, or an
    `ssl.SSLContext`, or "system" (truststore); `cert` a PEM path or (cert, key[, password]); `fingerprint` "sha256:..." of the one
    leaf certificate accepted, beside what `verify` asks; `server_hostname` the name for SNI and the check. `resolver(host, port)` returns
    (family, sockaddr) pairs; `connect_filter(ip, port)` returns False to refuse an address. `max_response_header_bytes` bounds a response's head.
    `uds` is the path of a Unix socket that every connection is made to, whatever the host. `local_address` is an IP, or (IP, port), to
    connect from; `socket_options` are (level, option, value) each; with `happy_eyeballs_delay=None` addresses are tried one after another.
    `expect_continue_timeout` is how long (seconds) the body of a request with `Expect: 100-continue` waits to be asked for; 0: not at all.
    `http2` is True (offered by ALPN), False, or "prior-knowledge" (spoken in the clear too); a host gets another HTTP/2 connection where those
    it has are full, up to `http2_max_conns_per_host` (0: no limit). Where nothing was read for `http2_ping_interval` seconds (0: never asked),
    a PING must be answered within `http2_ping_timeout` (RFC 9113 section 6.7).
    With `disable_compression` no content coding is asked for, and none undone, as in Go. `proxy` is
    "env" (what the client's environment says), None, a URL (http, https, socks5, socks5h) or a callable (url) -> URL or None;
    `proxy_headers` are header fields for the proxy alone. `trace` is an object with hooks, or a subclass of `Trace`: see there.
    """

    __signature__ = _Signature()            # help() would show __new__'s
    _trusting: tuple[Any, Any, Any] = (None, None, None)         # of a subclass that does not call __init__, as `exchange` will say
    _ruling: tuple[Any, Any, str] = ("env", None, "")            # what a Rule is made of
    _rule: Rule | None = None
    options: dict[str, Any]                 # as given: what makes another one like it
    travel_key: bytes | None                # of these options; see `interned`

    def __new__(cls, *args: object, **kwargs: object) -> Transport:
        self = super().__new__(cls)
        self.options = kwargs
        self.travel_key = None
        return self

    def __init__(self, *, max_idle_conns: int = 200, max_idle_conns_per_host: int = 100, max_conns_per_host: int = 0,
                 idle_conn_timeout: float | None = 90.0, max_conn_lifetime: float | None = None, disable_keep_alives: bool = False,
                 disable_compression: bool = False, reuse: str = "lifo", verify: bool | str | os.PathLike[str] | ssl.SSLContext = True,
                 cert: str | os.PathLike[str] | tuple[Any, ...] | None = None, server_hostname: str | None = None,
                 fingerprint: str | None = None, http2: bool | str = True, proxy: str | Callable[[URL], str | None] | None = "env",
                 proxy_headers: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] | None = None,
                 uds: str | os.PathLike[str] | None = None, local_address: str | tuple[str, int] | None = None,
                 resolver: Callable[[str, int], Iterable[tuple[int, Any]]] | None = None, dns_cache_ttl: float = 60.0, happy_eyeballs_delay: float | None = 0.3,
                 connect_filter: Callable[[str, int], bool] | None = None, socket_options: Iterable[tuple[int, int, int | bytes]] | None = None,
                 tcp_keepalive: float | None = 15.0, expect_continue_timeout: float = 1.0, max_response_header_bytes: int = 1 << 20,
                 retry_stale: bool = True, http2_ping_interval: float = 30.0, http2_ping_timeout: float = 15.0, http2_max_conns_per_host: int = 4,
                 trace: object = None) -> None:
        for name, value in (("idle_conn_timeout", idle_conn_timeout), ("max_conn_lifetime", max_conn_lifetime), ("dns_cache_ttl", dns_cache_ttl),
                            ("happy_eyeballs_delay", happy_eyeballs_delay), ("tcp_keepalive", tcp_keepalive),
                            ("expect_continue_timeout", expect_continue_timeout)):
            _at_least(name, value, 0)
        for name, value in (("dns_cache_ttl", dns_cache_ttl), ("expect_continue_timeout", expect_continue_timeout)):
            if value is None:
                raise ValueError(f"{name} must be a number of at least 0, not None")
        for what, given in (("resolver", resolver), ("connect_filter", connect_filter)):
            if given is not None and not callable(given):
                raise TypeError(f"{what} must be callable, not {given!r}")
        if local_address is not None:
            from pooledhttp._net.dial import check_local

            check_local(local_address)
        if socket_options is not None:
            from pooledhttp._net.dial import check_options

            socket_options = check_options(socket_options)
        if uds is not None:
            uds = os.fspath(uds)
        max_idle_conns = _count("max_idle_conns", max_idle_conns, 0)
        max_idle_conns_per_host = _count("max_idle_conns_per_host", max_idle_conns_per_host, 0)
        max_conns_per_host = _count("max_conns_per_host", max_conns_per_host, 0)
        max_response_header_bytes = _count("max_response_header_bytes", max_response_header_bytes, 1)
        if reuse not in ("lifo", "fifo"):
            raise ValueError(f'reuse must be "lifo" or "fifo", not {reuse!r}')
        if server_hostname is not None and (not isinstance(server_hostname, str) or not server_hostname):
            raise ValueError(f"server_hostname must be a name, not {server_hostname!r}")
        _at_least("http2_ping_interval", http2_ping_interval, 0)
        _at_least("http2_ping_timeout", http2_ping_timeout, 0)
        if http2_ping_timeout is None:
            raise ValueError("http2_ping_timeout must be a number of at least 0, not None")
        http2_max_conns_per_host = _count("http2_max_conns_per_host", http2_max_conns_per_host, 0)
        if http2 not in (True, False, "prior-knowledge"):
            raise ValueError(f'http2 must be True, False or "prior-knowledge", not {http2!r}')
        if http2 == "prior-knowledge" and not http2_available():
            raise ValueError('http2="prior-knowledge" cannot be: this build has no libnghttp2')
        # A connection for each request would be no HTTP/2 worth having.
        self._http2 = bool(http2) and not disable_keep_alives
        self._ruling = proxy, proxy_headers, "connect_filter" if connect_filter is not None else "uds" if uds is not None else ""
        if proxy != "env" or proxy_headers is not None:
            self._proxy_rule()                                 # what is wrong with them is heard of at once
        pool = _pool.Pool(max_idle=max_idle_conns, max_idle_per_host=max_idle_conns_per_host, max_per_host=max_conns_per_host,
                          idle_timeout=idle_conn_timeout, lifetime=max_conn_lifetime, fifo=reuse == "fifo",
                          max_shared=http2_max_conns_per_host)
        if trace is not None:
            from pooledhttp._trip.tales import Tales

            pool.follower = Tales(trace)
        super().__init__(pool, max_head=max_response_header_bytes, retry_stale=retry_stale, close_each=disable_keep_alives,
                         as_is=disable_compression, expect=int(min(expect_continue_timeout, _EXPECT_MAX) * 1e9),
                         h2_known=http2 == "prior-knowledge" and self._http2, h2_ping_interval=int(min(http2_ping_interval or 0, _EXPECT_MAX) * 1e9),
                         h2_ping_timeout=int(min(http2_ping_timeout, _EXPECT_MAX) * 1e9))
        self.disable_compression = disable_compression
        self._resolver: Resolver | None = None
        self._resolving = resolver, dns_cache_ttl
        self._tls: TlsSettings | None = None
        self._trusting = verify, cert, fingerprint
        if verify is not True or cert is not None or fingerprint is not None:
            self._tls = _tls_settings(*self._trusting)         # what is wrong with them is heard of at once
        self._dialing: dict[str, Any] = {
            "uds": uds, "server_hostname": server_hostname, "local_address": local_address, "happy_eyeballs_delay": happy_eyeballs_delay,
            "connect_filter": connect_filter, "socket_options": socket_options or (), "tcp_keepalive": tcp_keepalive,
            "fresh_dns": disable_keep_alives}
        self._orphans: dict[str, int] = {}
        self._lock = threading.RLock()         # a signal's handler may make a request while its own thread is in here
        _all.add(self)

    # --- dialing, asked for by the compiled part --------------------------------------------------------------------------

    def dial_spec(self, key: str, host: str, port: int) -> DialSpec:
        """Where and how to dial for the pool key `key`; made once a key."""
        from pooledhttp._net.dial import DialSpec
        from pooledhttp._net.resolver import Resolver

        with self._lock:
            if self._resolver is None:
                custom, ttl = self._resolving
                self._resolver = Resolver(custom, ttl=ttl)
            secure = key.startswith("https:")
            way, mark, trust = key.partition(" (")
            needs = secure or " via https:" in way
            if needs and self._tls is None:
                self._tls = _tls_settings(*self._trusting)
        dialing = self._dialing
        if key.startswith("http+unix:"):
            # A filter of addresses would be none where a URL could lead around it, to whatever listens on this machine.
            if dialing["connect_filter"] is not None:
                raise errors.ConnectRefusedByFilter(f"a transport with a connect_filter connects to no Unix socket that a URL names: {host}", phase="connect")
            dialing, host = {**dialing, "uds": host}, "localhost"
        tls = None
        if needs and self._tls is not None:
            tls = self._tls.in_environment(mark + trust) if mark else self._tls
            if secure and self._http2 and key not in self.h1_only and http2_available():
                tls = tls.offering_h2()
        hop = None
        label = way.partition(" via ")[2]
        if label:
            from pooledhttp._net.dialspec import Hop
            from pooledhttp._net.proxy import labelled
            from pooledhttp.proxies import connect_fields

            chosen = labelled(label)
            own = tls.for_proxy() if tls is not None and chosen.scheme == "https" else None
            hop = Hop(chosen, chosen.tunnels("https" if secure else "http"), own, connect_fields(self._proxy_rule(), chosen))
        return DialSpec(host=host, port=port, tls=tls if secure else None, resolver=self._resolver, hop=hop, **dialing)

    def ca_environment(self) -> str:
        """What the environment's CA variables say now, as the end of the pool keys of a client's requests; "" where they do not count."""
        if self._trusting[0] is not True:
            return ""
        from pooledhttp._net.caenv import environment

        return environment(os.environ)

    def surroundings(self, trust_env: bool) -> Surroundings | None:
        """What a client tells its requests over this transport: the proxy they take, and what it found in the environment now, where it trusts that."""
        trust_env = trust_env and _speaks_to_us()
        if not trust_env and self._ruling[0] == "env":
            return None
        from pooledhttp.proxies import surroundings

        return surroundings(self._proxy_rule(), self.ca_environment() if trust_env else "", trust_env)

    def _proxy_rule(self) -> Rule:
        rule = self._rule
        if rule is None:
            from pooledhttp.proxies import Rule

            made = Rule(*self._ruling)
            with _default_lock:
                if self._rule is None:
                    self._rule = made
                rule = self._rule
        return rule

    def new_dial(self, spec: DialSpec, limits: Limits) -> Dial:
        """A dial that was not begun yet."""
        from pooledhttp._net.dial import Dial

        return Dial(spec, limits.connect, limits.tls)

    def adopt(self, dial: Dial, home: _pool.Host) -> None:
        """`dial` lost its race: a helper thread finishes it, and pools what comes of it. Nobody does where `dial.ticket` is not taken afterwards."""
        from pooledhttp._net import helpers

        ticket = dial.ticket = helpers.Ticket()
        counted = False
        try:
            with self._lock:
                n = self._orphans.get(home.key, 0)
                counted = n < _ORPHANS_PER_HOST
                if counted:
                    self._orphans[home.key] = n + 1
            if counted:
                helpers.shared.submit(f"dial {home.key}", lambda: self._finish_dial(dial, home), ticket)
                return
        except BaseException as e:
            # No thread to be had: the interpreter is ending. Or a signal's handler raised, and it is the caller's.
            if not isinstance(e, RuntimeError):
                raise
        finally:
            if counted and not ticket.taken:
                self._end_orphan(home)

    def _finish_dial(self, dial: Dial, home: _pool.Host) -> None:
        stream: Stream | None = None
        try:
            stream = dial.run(time.monotonic_ns() + _ORPHAN_NS, None)
        except Exception as e:
            # Nobody waits for this dial (and a user's filter may raise anything). That it failed is counted; the next request that dials
            # will say why.
            stream = None
            log = runtime.logger(10)
            if log is not None:
                from pooledhttp._trip import tales

                tales.say_failed(log, home.key, e, sum(dial.timings.values()) / 1e9)
        finally:
            self._end_orphan(home)
            self.adopted(home, stream, dial)

    def _end_orphan(self, home: _pool.Host) -> None:
        with self._lock:
            n = self._orphans.pop(home.key) - 1
            if n:
                self._orphans[home.key] = n

    # --- what users call --------------------------------------------------------------------------------------------------

    def round_trip(self, request: Any, *, timeout: Any = None, context: Any = None) -> Any:
        """One exchange: the response, its body unread. Follows nothing, retries only what was stale (RFC 9110 section 9.2.2).

        The seam for custom transports: anything with this method is one.
        """
        if _make_response is None:
            raise RuntimeError("import pooledhttp first: the response class is not installed")
        sent = self._told(request)             # held: see Request.held
        parts = sent._wire(timeout, context)
        try:
            reply = self.exchange(*parts)
        except errors.Error as e:
            if e.request is None:
                e.request = request
            raise
        return _make_response(reply, request)

    def _told(self, request: Any) -> Any:
        """`request`, knowing this transport's proxy: it may be no client's, or that of one over another transport."""
        trust = request.trust
        if trust is None and self._ruling[0] == "env" or trust is not None and trust.rule is self._rule:
            return request
        from pooledhttp.proxies import Surroundings

        request = request.copy()
        request.trust = Surroundings("", None, self._proxy_rule()) if trust is None else Surroundings(trust.ca, trust.env, self._proxy_rule())
        return request

    def close_idle_connections(self) -> None:
        """Close what is idle now, and what is given back until the next request."""
        self.pool.close_idle()
        janitor.nudge()

    def close(self, *, cancel: bool = False) -> None:
        """Close what is idle, and take no further request. What is in flight may finish; `cancel=True` ends it (`Cancelled`)."""
        self.pool.close(cancel)
        janitor.nudge()

    @property
    def closed(self) -> bool:
        """True once `close()` was called."""
        return self.pool.is_closed

    def stats(self) -> PoolStats:
        """The pool's counts now: always `opened == open + sum(closed.values())`."""
        return self.pool.stats()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Transport can be neither copied nor pickled: its connections are its own, and this process's")

    def __repr__(self) -> str:
        s = self.stats()
        return f"<Transport open={s.open} idle={s.idle}{' closed' if self.closed else ''}>"


_default: Transport | None = None
_default_lock = threading.RLock()


def default_transport() -> Transport:
    """The process's shared transport, made on first use."""
    global _default
    transport = _default
    if transport is None:
        with _default_lock:
            if _default is None:
                made = Transport()
                if _default is None:               # a signal's handler may have made one meanwhile
                    _default = made
            transport = _default
    return transport


def live() -> dict[str, int]:
    """Live objects of the compiled floors, for the tests' teardown."""
    h2 = sys.modules.get("pooledhttp._proto.h2")
    return {**runtime.live(), **_pool.live(), **(h2.live() if h2 is not None else {})}


def _after_fork_in_child() -> None:
    # The parent's connections are not ours: our copies of the descriptors are closed without a word on the wire.
    global _default_lock
    _default_lock = threading.RLock()
    eager.reset()
    openssl.reset_after_fork()
    drained = janitor.reset_after_fork()
    for name in ("dial", "tlsconfig", "helpers", "proxy"):
        module: Any = sys.modules.get(f"pooledhttp._net.{name}")
        reset = getattr(module.shared if name == "helpers" and hasattr(module, "shared") else module, "reset_after_fork", None)
        if reset is not None:                        # else another thread was just importing it
            reset()
    for transport in list(_all):
        transport._orphans = {}
        transport._lock = threading.RLock()
        if transport._resolver is not None:
            transport._resolver.reset_after_fork()
        transport.pool.abandon()
    del drained


runtime.at_fork(_after_fork_in_child)
# Imports are waited for after this: a thread that comes out of OpenSSL may begin one.
os.register_at_fork(before=openssl.before_fork, after_in_parent=openssl.after_fork_in_parent)
