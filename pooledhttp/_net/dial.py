"""From a host name to a Stream: DNS, TCP by Happy Eyeballs (RFC 8305), TLS, under absolute deadlines, on the caller's own thread.

A dial can be left and taken up again, by another thread: a request that is handed an idle connection meanwhile leaves its dial to
a helper. All sockets are non-blocking until the stream is made.
"""
from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pooledhttp import errors
from pooledhttp._core.runtime import current_wake, slice_ns
from pooledhttp._net.resolver import Address, Lookup, Resolver, literal
from pooledhttp._net.tcp import TcpStream

if TYPE_CHECKING:
    import ssl

    from pooledhttp._net.helpers import Ticket
    from pooledhttp._net.stream import Stream
    from pooledhttp._net.tls import TlsStream
    from pooledhttp._net.tlsconfig import TlsSettings

FOREVER = -1
ATTEMPT_MIN_NS = 2_000_000_000        # Go's net.partialDeadline: an attempt is given less only where less remains in all
UDS_RETRY_NS = 5_000_000
ATTEMPTS_MAX = 64                     # connects at once of one dial, whatever the delay between them and however many addresses there are
NAMED_MAX = 32                        # failed addresses that an error's message names
KEEPALIVE_MAX = 32767                 # seconds that Linux takes (MAX_TCP_KEEPIDLE)
POLL_MAX_NS = 3_600_000_000_000       # poll takes milliseconds in an int


class DeadlinePassed(Exception):
    """The deadline given to `run` came before any limit of the dial's own. `phase` is "dns", "connect" or "tls"."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


class DialInfo(NamedTuple):
    """The connection made, as `ConnInfo` words it."""

    remote_addr: tuple[str, int] | str | None
    local_addr: tuple[str, int] | str | None
    tls_version: str | None = None
    cipher: str | None = None
    alpn: str | None = None


@dataclass(frozen=True, slots=True)
class DialSpec:
    """Where to and how.

    `tls`: None for a plain stream. `server_hostname` replaces `host` in SNI and in the check of the certificate. `uds`: the path of a
    Unix socket to connect to instead of host and port. `local_address`: an IP, or (IP, port), to connect from.
    `socket_options`: (level, option, value) each, set before the connect. `tcp_keepalive`: seconds of silence before the first probe
    and between probes; None or 0: off. `happy_eyeballs_delay`: seconds until the next address is tried beside the one that has not
    answered; 0: all at once, None: one after another. `connect_filter(ip, port)` returns False to refuse an address; it is asked
    at each dial, of a kept answer too, about what the kernel would connect to (IPv4 where an IPv6 address stands for one).
    `fresh_dns`: pass over a kept answer of the resolver. `sessions`: one place for the newest TLS session of this server, with its
    context: (context, session) or None; a spec is made once a pool key, so no other server is ever offered it.
    """

    host: str
    port: int
    tls: TlsSettings | None = None
    server_hostname: str | None = None
    uds: str | None = None
    local_address: str | tuple[str, int] | None = None
    socket_options: Sequence[tuple[Any, ...]] = ()
    tcp_keepalive: float | None = 15.0
    happy_eyeballs_delay: float | None = 0.3
    connect_filter: Callable[[str, int], bool] | None = None
    resolver: Resolver = field(default_factory=Resolver)
    fresh_dns: bool = False
    sessions: list[tuple[ssl.SSLContext, ssl.SSLSession] | None] = field(default_factory=lambda: [None], repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.local_address is not None:
            check_local(self.local_address)

    @property
    def local_ip(self) -> str:
        """Of `local_address`; "" without one."""
        local = self.local_address
        return local[0] if isinstance(local, tuple) else local or ""

    @property
    def where(self) -> str:
        """For messages."""
        return self.uds if self.uds is not None else show((self.host, self.port))


def show(address: Any) -> str:
    """A socket's address for messages: "127.0.0.1:80", "[::1]:80", "[fe80::1%2]:80", or a path."""
    if not isinstance(address, tuple):
        return str(address)
    ip = f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] and "%" not in address[0] else address[0]
    return f"[{ip}]:{address[1]}" if ":" in ip else f"{ip}:{address[1]}"


def show_all(told: Sequence[str], apart: str) -> str:
    """`told` in one line, which stays one that can be read."""
    return apart.join(told[:NAMED_MAX]) + (f"{apart}and {len(told) - NAMED_MAX} more" if len(told) > NAMED_MAX else "")


def check_local(address: Any) -> None:
    """Raises ValueError where it is neither an IP address nor (IP, port)."""
    ip, port = address if isinstance(address, tuple) and len(address) == 2 else (address, 0)
    if not isinstance(ip, str) or not isinstance(port, int) or not 0 <= port < 65536 or literal(ip, 0) is None:
        raise ValueError(f"local_address is no IP address, nor (IP address, port): {address!r}")


def check_options(options: Any) -> tuple[tuple[Any, ...], ...]:
    """`socket_options` as tuples of their own; TypeError for one that setsockopt would not take."""
    checked = []
    for option in options:
        if not isinstance(option, (tuple, list)) or len(option) not in (3, 4) or not all(isinstance(n, int) for n in option[:2]):
            raise TypeError(f"socket_options are (level, option, value) each, not {option!r}")
        checked.append(tuple(option))
    return tuple(checked)


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """RFC 8305 section 4: the families in turn, the first answer's family first, the order within each kept."""
    addresses = list(addresses)
    ours = deque(a for a in addresses if a[0] == addresses[0][0])
    others = deque(a for a in addresses if a[0] != addresses[0][0])
    mixed = []
    while ours or others:
        if ours:
            mixed.append(ours.popleft())
        if others:
            mixed.append(others.popleft())
    return mixed


def attempt_end(now: int, end: int, left: int) -> int:
    """When an attempt is given up, where `left` addresses (its own counted) share what remains until `end`. In ns; -1: never."""
    if end < 0:
        return FOREVER
    return min(end, now + max((end - now) // left, ATTEMPT_MIN_NS))


def sooner(*ends: int) -> int:
    """The earliest of absolute deadlines, -1 being never."""
    return min((e for e in ends if e >= 0), default=FOREVER)


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.3g} s"


class _Attempt(NamedTuple):
    sock: socket.socket
    address: Any
    started: int
    end: int


class Dial:
    """One connection in the making. Used by one thread at a time.

    `connect_ns` limits DNS and TCP together, from the start of the first `run`; `tls_ns` the handshake, from its start; both in
    nanoseconds, -1 for no limit. After `run` has returned a stream: `info`, and `timings` in ns (0 for what did not happen).
    """

    def __init__(self, spec: DialSpec, connect_ns: int = FOREVER, tls_ns: int = FOREVER) -> None:
        self.spec = spec
        self.info = DialInfo(None, None)
        self.timings = {"dns": 0, "connect": 0, "tls": 0}
        self._connect_ns = connect_ns
        self._tls_ns = tls_ns
        self.ticket: Ticket | None = None     # a helper's, where one is to finish it
        self._phase = "new"
        self._started = 0                     # of the dial, then of the phase
        self._connect_end = FOREVER
        self._tls_end = FOREVER
        self._lookup: Lookup | None = None
        self._todo: deque[Address] = deque()
        self._next_at = 0                     # when the next address may be tried
        self._attempts: dict[int, _Attempt] = {}
        self._failed: list[str] = []
        self._errno: int | None = None        # the first failure's
        self._sock: socket.socket | None = None
        self._tls: TlsStream | None = None
        self._context: ssl.SSLContext | None = None
        self._address: Address | None = None            # of `_sock`
        self._offered: object = None                    # the entry of `spec.sessions` that this handshake would resume

    # -- the face --

    def run(self, deadline_ns: int = FOREVER, woken: Callable[[], bool] | None = None) -> Stream | None:
        """Dial until there is a stream; the caller owns it. The descriptor is in blocking mode.

        `deadline_ns` is on the monotonic clock, -1 for ever. None where this thread's wake handle was signalled (it is cleared) and
        `woken()` is true: what was begun is kept for a later `run`, which another thread may call.

        Raises ConnectTimeout, TLSHandshakeTimeout, DeadlinePassed, DNSError, ConnectError, ConnectRefusedByFilter, CertificateError,
        TLSError; whatever is raised, no socket is left open.
        """
        try:
            if self._phase == "new":
                self._begin()
            if self._phase == "dns" and not self._dns(deadline_ns, woken):
                return None
            if self._phase == "connect" and not self._connect(deadline_ns, woken):
                return None
            if self._phase == "tls":
                try:
                    return self._handshake(deadline_ns, woken)
                except (errors.Error, DeadlinePassed):
                    self._drop_answer()           # the address may be another's by now, who does not speak TLS, or has another certificate
                    raise
            if self._sock is None:
                raise RuntimeError("the dial is over")
            stream = TcpStream(self._sock)
            self._sock = None
            return stream
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Give up: close whatever is open. May be called at any time when `run` is not running, and again."""
        self._phase = "over"
        while self._attempts:
            self._attempts.popitem()[1].sock.close()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._tls is not None:
            self._tls.abandon()
            self._tls = None

    # -- phases --

    def _begin(self) -> None:
        spec = self.spec
        if spec.tls is not None:
            self._context = spec.tls.context()        # bad files are heard of before a connection is spent
        self._started = time.monotonic_ns()
        if self._connect_ns >= 0:
            self._connect_end = self._started + self._connect_ns
        if spec.uds is not None:
            self._todo.append((socket.AF_UNIX, spec.uds))
            self._phase = "connect"
        else:
            self._lookup = spec.resolver.lookup(spec.host, spec.port, fresh=spec.fresh_dns)
            self._phase = "dns"

    def _dns(self, deadline: int, woken: Callable[[], bool] | None) -> bool:
        lookup = self._lookup
        assert lookup is not None
        if not lookup.done:
            handle = current_wake()
            lookup.add_waiter(handle)
            try:
                while not lookup.done:
                    end = sooner(deadline, self._connect_end)
                    if self._wait({}, end, woken) is None:
                        return False
                    if not lookup.done and 0 <= end <= time.monotonic_ns():
                        if end == deadline:
                            raise DeadlinePassed("dns")
                        raise errors.ConnectTimeout(
                            f"{self.spec.host!r} was not resolved within connect={_seconds(self._connect_ns)}", phase="dns")
            finally:
                lookup.remove_waiter(handle)
                del handle                    # an error that is kept keeps this frame, and is not to keep a descriptor
        self._todo.extend(interleave(self._allowed(lookup.result())))
        now = time.monotonic_ns()
        self.timings["dns"], self._started = now - self._started, now
        self._phase = "connect"
        return True

    def _allowed(self, addresses: list[Address]) -> list[Address]:
        spec = self.spec
        if spec.connect_filter is not None:
            allowed = [a for a in addresses if spec.connect_filter(_real_ip(a[1][0]), a[1][1])]
            if not allowed:
                which = show_all([show(a[1]) for a in addresses], ", ")
                raise errors.ConnectRefusedByFilter(
                    f"connect_filter refused {spec.where}{f': {which}' if which != spec.where else ''}", phase="connect")
            addresses = allowed
        if spec.local_address is not None:
            family = socket.AF_INET6 if ":" in spec.local_ip else socket.AF_INET
            same = [a for a in addresses if a[0] == family]
            if not same:
                raise errors.ConnectError(
                    f"cannot connect to {spec.where} from {spec.local_ip}: it has no address of that family: "
                    f"{show_all([show(a[1]) for a in addresses], ', ')}", phase="connect", errno=errno.EAFNOSUPPORT)
            addresses = same
        return addresses

    def _connect(self, deadline: int, woken: Callable[[], bool] | None) -> bool:
        delay = self.spec.happy_eyeballs_delay
        delay_ns = FOREVER if delay is None or delay > 1e9 else int(delay * 1e9)
        while self._sock is None:
            end = sooner(deadline, self._connect_end)
            now = time.monotonic_ns()
            while self._todo and self._sock is None and not 0 <= end <= now and self._room() and (
                    now >= self._next_at if self._next_at >= 0 else not self._attempts):
                family, address = self._todo.popleft()
                self._next_at = FOREVER if delay_ns < 0 else now + delay_ns
                self._start(family, address, now, attempt_end(now, end, len(self._todo) + 1))
                now = time.monotonic_ns()
            if self._sock is not None:
                break
            if not self._attempts and not self._todo:
                self._drop_answer()
                raise errors.ConnectError(f"cannot connect to {self.spec.where}: {self._tried()}", phase="connect", errno=self._errno)
            until = sooner(end, *(a.end for a in self._attempts.values()), self._next_at if self._todo and self._room() else FOREVER)
            fired = self._wait(dict.fromkeys(self._attempts, select.POLLOUT), until, woken)
            if fired is None:
                return False
            for fd in fired:
                self._look_at(fd)
                if self._sock is not None:
                    break
            else:
                self._expire(time.monotonic_ns(), end, deadline)
        for attempt in self._attempts.values():
            attempt.sock.close()
        self._attempts.clear()
        self._todo.clear()
        self._connected(self._sock)
        return True

    def _start(self, family: int, address: Any, now: int, end: int) -> None:
        spec = self.spec
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            self._set_options(sock, family)
            if spec.local_address is not None and family != socket.AF_UNIX:
                sock.bind(spec.local_address if isinstance(spec.local_address, tuple) else (spec.local_address, 0))
            failed = sock.connect_ex(address)
        except (OSError, ValueError, TypeError, OverflowError) as exc:
            # Of the options or the local address.
            if sock is not None:
                sock.close()
            if _foreign(exc):
                raise
            strerror, code = (exc.strerror, exc.errno) if isinstance(exc, OSError) else (None, None)
            self._note(address, strerror or str(exc), code)
            self._next_at = now
            return
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if failed == 0:
            self._take(sock, address)
        elif failed in (errno.EINPROGRESS, errno.EINTR):
            self._attempts[sock.fileno()] = _Attempt(sock, address, now, end)
        elif failed == errno.EAGAIN and family == socket.AF_UNIX:
            # Linux: the listener's backlog is full, and nothing can be polled for room in it.
            sock.close()
            self._todo.append((family, address))
            self._next_at = now + UDS_RETRY_NS
        else:
            sock.close()
            self._fail(address, os.strerror(failed), failed)

    def _set_options(self, sock: socket.socket, family: int) -> None:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.spec.tcp_keepalive:
                seconds = max(1, round(min(self.spec.tcp_keepalive, KEEPALIVE_MAX)))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
                for option in (idle, getattr(socket, "TCP_KEEPINTVL", None)):
                    if option is not None:
                        sock.setsockopt(socket.IPPROTO_TCP, option, seconds)
        if sys.platform == "darwin":
            sock.setsockopt(socket.SOL_SOCKET, 0x1022, 1)      # SO_NOSIGPIPE: there is no MSG_NOSIGNAL
        for option_of_user in self.spec.socket_options:
            sock.setsockopt(*option_of_user)

    def _look_at(self, fd: int) -> None:
        attempt = self._attempts.pop(fd)
        failed = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            attempt.sock.close()
            self._fail(attempt.address, os.strerror(failed), failed)
        else:
            self._take(attempt.sock, attempt.address)

    def _take(self, sock: socket.socket, address: Any) -> None:
        try:
            remote = sock.getpeername()
            local = sock.getsockname()
        except OSError as exc:                # connected and reset already
            sock.close()
            if _foreign(exc):
                raise
            self._fail(address, str(exc.strerror), exc.errno)
            return
        if sock.family != socket.AF_UNIX and remote == local:
            # A simultaneous open with itself: the port is of the ephemeral range and nobody listens (Go's selfConnect).
            sock.close()
            self._fail(address, os.strerror(errno.ECONNREFUSED), errno.ECONNREFUSED)
            return
        self._sock = sock
        self._address = sock.family, address
        self.info = DialInfo(remote[:2] if isinstance(remote, tuple) else self.spec.uds,
                             local[:2] if isinstance(local, tuple) else local or None)

    def _room(self) -> bool:
        return len(self._attempts) < ATTEMPTS_MAX

    def _note(self, address: Any, why: str, code: int | None) -> None:
        self._failed.append(f"{show(address)}: {why}")
        if self._errno is None:
            self._errno = code

    def _fail(self, address: Any, why: str, code: int | None) -> None:
        self._note(address, why, code)
        if self._next_at >= 0:
            self._next_at = 0                 # RFC 8305 section 5: the next one at once

    def _expire(self, now: int, end: int, deadline: int) -> None:
        if 0 <= end <= now:
            self._drop_answer()
            if end == deadline:
                raise DeadlinePassed("connect")
            for attempt in self._attempts.values():
                self._note(attempt.address, f"no answer in {_seconds(now - attempt.started)}", None)
            raise errors.ConnectTimeout(
                f"no connection to {self.spec.where} within connect={_seconds(self._connect_ns)}: {self._tried()}", phase="connect")
        for fd, attempt in list(self._attempts.items()):
            if 0 <= attempt.end <= now:
                del self._attempts[fd]
                attempt.sock.close()
                self._fail(attempt.address, f"no answer in {_seconds(now - attempt.started)}", errno.ETIMEDOUT)

    def _tried(self) -> str:
        if len(self._failed) == 1:
            return self._failed[0].removeprefix(f"{self.spec.where}: ")
        return show_all(self._failed, "; ") or "its backlog is full"

    def _drop_answer(self) -> None:
        if self.spec.uds is None:
            self.spec.resolver.invalidate(self.spec.host, self.spec.port)

    def _connected(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        now = time.monotonic_ns()
        self.timings["connect"] += now - self._started
        self._started = now
        self._phase = "done" if self.spec.tls is None else "tls"
        if self._phase == "tls" and self._tls_ns >= 0 and self._tls_end < 0:
            self._tls_end = now + self._tls_ns

    def _handshake(self, deadline: int, woken: Callable[[], bool] | None) -> Stream | None:
        from pooledhttp._net.tls import TlsStream
        from pooledhttp._net.tlsconfig import hostname, tls_error

        spec = self.spec
        assert spec.tls is not None
        if self._tls is None:
            assert self._context is not None and self._sock is not None
            name = hostname(spec.host, spec.server_hostname)
            kept = spec.sessions[0]
            if kept is not None and kept[0] is not self._context:
                kept = None                   # of before a file changed: what it trusted then may not be trusted now, and ssl refuses it
            self._offered = kept
            try:
                try:
                    self._tls = TlsStream(self._sock, self._context, name, None if kept is None else kept[1], spec.sessions)
                except ValueError:
                    if kept is None:
                        raise
                    # A context of the user's that has others inside.
                    self._forget_session()
                    self._tls = TlsStream(self._sock, self._context, name, None, spec.sessions)
            except (ValueError, OSError) as exc:
                raise errors.TLSError(f"TLS with {spec.where} failed: {name!r} cannot be asked for: {exc}", phase="tls") from exc
            self._sock = None
        stream = self._tls
        fd = stream.fileno()
        while True:
            try:
                want = stream.handshake_step()
            except OSError as exc:            # ssl.SSLError is one
                if _foreign(exc):
                    raise
                error = tls_error(exc, spec.where, stream.first_bytes)
                if self._offered is None or isinstance(error, errors.CertificateError):
                    raise error from exc
                return self._without_session(deadline, woken)
            if want == "done":
                break
            end = sooner(deadline, self._tls_end)
            if self._wait({fd: select.POLLIN if want == "read" else select.POLLOUT}, end, woken) is None:
                return None
            if 0 <= end <= time.monotonic_ns():
                self._forget_session()        # a server may be stuck with it
                if end == deadline:
                    raise DeadlinePassed("tls")
                raise errors.TLSHandshakeTimeout(
                    f"the TLS handshake with {spec.where} was not done within tls_handshake={_seconds(self._tls_ns)}", phase="tls")
        spec.tls.check_pin(stream.peer_certificate, spec.where)
        self.timings["tls"] += time.monotonic_ns() - self._started
        self.info = self.info._replace(tls_version=stream.tls_version, cipher=stream.cipher_name, alpn=stream.alpn)
        self._phase = "over"
        self._tls = None
        return stream

    def _without_session(self, deadline: int, woken: Callable[[], bool] | None) -> Stream | None:
        """The handshake broke, and it had offered a session: that may be why. Once more, on a new connection, without one."""
        self._forget_session()
        assert self._tls is not None and self._address is not None
        self._tls.abandon()
        self._tls = None
        now = time.monotonic_ns()
        self.timings["tls"] += now - self._started
        self._started, self._next_at = now, 0
        if self._connect_ns >= 0:
            self._connect_end = now + self._connect_ns
        self._todo.append(self._address)
        self._phase = "connect"
        return self._handshake(deadline, woken) if self._connect(deadline, woken) else None

    def _forget_session(self) -> None:
        if self.spec.sessions[0] is self._offered:
            self.spec.sessions[0] = None
        self._offered = None

    # -- waiting --

    def _wait(self, fds: dict[int, int], until: int, woken: Callable[[], bool] | None) -> list[int] | None:
        """Those of `fds` that fired before `until`; None where the thread was woken for good.

        `poll` runs the handlers of signals, which may raise.
        """
        if woken is not None and woken():
            return None
        handle = current_wake()
        poller = select.poll()
        poller.register(handle.fileno(), select.POLLIN)
        for fd, events in fds.items():
            poller.register(fd, events)
        while True:
            left = FOREVER if until < 0 else min(max(0, until - time.monotonic_ns()), POLL_MAX_NS)
            turn = slice_ns(left)
            fired = [fd for fd, _ in poller.poll(None if turn < 0 else turn / 1e6)]
            if fired or turn == left:
                break
        if handle.fileno() in fired:
            # Cleared before anything is looked at: a signal that comes after shows at the next poll.
            handle.clear()
            if woken is not None and woken():
                return None
            fired.remove(handle.fileno())
        return fired


def _foreign(exc: Exception) -> bool:
    """Raised by a signal's handler in the midst of our steps (TimeoutError, often): an error of the system's has a number, one of TLS a type.

    Python's own about the path of a Unix socket has neither.
    """
    return isinstance(exc, OSError) and exc.errno is None and type(exc).__module__ != "ssl" and str(exc) != "AF_UNIX path too long"


def _real_ip(ip: str) -> str:
    """What an IPv4-mapped IPv6 address stands for: the kernel connects by IPv4, so a filter must see that."""
    if not ip.lower().startswith("::ffff:"):
        return ip
    with contextlib.suppress(ValueError):
        mapped = ipaddress.IPv6Address(ip.partition("%")[0]).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return ip
