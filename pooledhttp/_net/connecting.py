"""From a host name to a connected socket: DNS, and TCP by Happy Eyeballs (RFC 8305), under absolute deadlines, on the caller's own thread.

All sockets are non-blocking until one is connected.
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
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pooledhttp import errors
from pooledhttp._core.runtime import current_wake, slice_ns
from pooledhttp._net.dialspec import DeadlinePassed, DialInfo, DialSpec, Teller, show, show_all
from pooledhttp._net.resolver import Address, Lookup, literal

FOREVER = -1
ATTEMPT_MIN_NS = 2_000_000_000        # Go's net.partialDeadline: an attempt is given less only where less remains in all
UDS_RETRY_NS = 5_000_000
ATTEMPTS_MAX = 64                     # connects at once of one dial, whatever the delay between them and however many addresses there are
KEEPALIVE_MAX = 32767                 # seconds that Linux takes (MAX_TCP_KEEPIDLE)
POLL_MAX_NS = 3_600_000_000_000       # poll takes milliseconds in an int


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


def seconds(ns: int) -> str:
    """For messages."""
    return f"{ns / 1e9:.3g} s"


class _Attempt(NamedTuple):
    sock: socket.socket
    address: Any
    started: int
    end: int


class Connecting:
    """DNS and TCP of one dial. Used by one thread at a time.

    A method that waits returns False where the thread was woken for good (see `_wait`): called again, it goes on.
    """

    def __init__(self, spec: DialSpec, connect_ns: int) -> None:
        self.spec = spec
        self.info = DialInfo(None, None)
        self.timings = {"dns": 0, "connect": 0, "tls": 0}
        self.tale: Teller | None = None       # whom to tell how far it is
        self._looking = False                 # it was told that a name is looked up, and not what came of it
        self._connect_ns = connect_ns
        self._started = 0                     # of the dial, then of the phase
        self._connect_end = FOREVER
        self._todo: deque[Address] = deque()
        self._next_at = 0                     # when the next address may be tried
        self._attempts: dict[int, _Attempt] = {}
        self._failed: list[str] = []
        self._errno: int | None = None        # the first failure's
        self._sock: socket.socket | None = None
        self._address: Address | None = None            # of `_sock`

    def _tell(self, name: str, *args: object) -> None:
        if self.tale is not None:
            self.tale.tell(name, *args)

    def _look_up(self, host: str, port: int) -> Lookup:
        if self.tale is not None and literal(host, port) is None:
            self._looking = True
            self.tale.tell("dns_start", host)
        return self.spec.resolver.lookup(host, port, fresh=self.spec.fresh_dns)

    def _found(self, lookup: Lookup) -> list[Address]:
        found = lookup.result()
        if self._looking:
            self._looking = False
            self._tell("dns_done", [address[:2] for _, address in found], None, lookup.kept)
        return found

    def _tell_given_up(self, attempts: Iterable[_Attempt], error: BaseException) -> None:
        for attempt in attempts:
            self._tell("connect_done", plain(attempt.address), error)

    def _resolve(self, lookup: Lookup, deadline: int, woken: Callable[[], bool] | None) -> bool:
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
                            f"{lookup.host!r} was not resolved within connect={seconds(self._connect_ns)}", phase="dns")
            finally:
                lookup.remove_waiter(handle)
                del handle                    # an error that is kept keeps this frame, and is not to keep a descriptor
        now = time.monotonic_ns()
        self.timings["dns"] += now - self._started
        self._started = now
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
                which = show_all([show(a[1]) for a in addresses], ", ")
                raise self._unreachable(f"from {spec.local_ip} it cannot be reached: it has no address of that family: {which}", "connect", errno.EAFNOSUPPORT)
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
                raise self._unreachable(self._tried(), "connect", self._errno)
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
        slower = list(self._attempts.values())
        for attempt in slower:
            attempt.sock.close()
        self._attempts.clear()
        self._todo.clear()
        self._sock.setblocking(True)
        now = time.monotonic_ns()
        self.timings["connect"] += now - self._started
        self._started = now
        if self.tale is not None and slower:
            self._tell_given_up(slower, errors.ConnectError("another address was faster", phase="connect"))
        return True

    def _unreachable(self, why: str, phase: str, number: int | None) -> errors.ConnectError:
        cls = errors.ConnectError if self.spec.hop is None else errors.ProxyConnectError
        return cls(f"cannot connect to {self.spec.first_where}: {why}", phase=phase, errno=number)

    def _start(self, family: int, address: Any, now: int, end: int) -> None:
        spec = self.spec
        sock = None
        self._tell("connect_start", plain(address))
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
            if foreign(exc):
                raise
            strerror, code = (exc.strerror, exc.errno) if isinstance(exc, OSError) else (None, None)
            self._note(address, strerror or str(exc), code)
            self._next_at = now
            self._tell_failed(address, strerror or str(exc), code)
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
            self._tell_failed(address, os.strerror(failed), failed)
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
            if foreign(exc):
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
        self._tell("connect_done", plain(address), None)

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
        self._tell_failed(address, why, code)

    def _tell_failed(self, address: Any, why: str, code: int | None) -> None:
        if self.tale is not None:
            self.tale.tell("connect_done", plain(address), errors.ConnectError(f"{show(address)}: {why}", phase="connect", errno=code))

    def _expire(self, now: int, end: int, deadline: int) -> None:
        if 0 <= end <= now:
            self._drop_answer()
            if end == deadline:
                raise DeadlinePassed("connect")
            for attempt in self._attempts.values():
                self._note(attempt.address, f"no answer in {seconds(now - attempt.started)}", None)
            raise errors.ConnectTimeout(
                f"no connection to {self.spec.first_where} within connect={seconds(self._connect_ns)}: {self._tried()}", phase="connect")
        for fd, attempt in list(self._attempts.items()):
            if 0 <= attempt.end <= now:
                del self._attempts[fd]
                attempt.sock.close()
                self._fail(attempt.address, f"no answer in {seconds(now - attempt.started)}", errno.ETIMEDOUT)

    def _tried(self) -> str:
        if len(self._failed) == 1:
            return self._failed[0].removeprefix(f"{self.spec.first_where}: ")
        return show_all(self._failed, "; ") or "its backlog is full"

    def _drop_answer(self) -> None:
        if self.spec.uds is None:
            self.spec.resolver.invalidate(self.spec.first_host, self.spec.first_port)

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


def plain(address: Any) -> tuple[str, int] | str:
    """A socket's address as `ConnInfo` words it: (ip, port), or a path."""
    return address[:2] if isinstance(address, tuple) else address


def foreign(exc: Exception) -> bool:
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
