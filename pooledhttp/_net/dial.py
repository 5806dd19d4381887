"""From a host name to a Stream: DNS, TCP, what a proxy is asked, TLS, under absolute deadlines, on the caller's own thread.

A dial can be left and taken up again, by another thread: a request that is handed an idle connection meanwhile leaves its dial to
a helper. After the connect it is a row of steps: TLS with the proxy, the proxy's own protocol, TLS with the server, as far as each is wanted.
"""
from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, TypeAlias

from pooledhttp import errors
from pooledhttp._net.connecting import FOREVER, Connecting, attempt_end, foreign, interleave, seconds, sooner
from pooledhttp._net.dialspec import DeadlinePassed, DialInfo, DialSpec, Hop, Sessions, TlsInfo, check_local, check_options, show
from pooledhttp._net.resolver import Address, Lookup, literal
from pooledhttp._net.tcp import TcpStream

if TYPE_CHECKING:
    import ssl

    from pooledhttp._net.helpers import Ticket
    from pooledhttp._net.stream import Stream
    from pooledhttp._net.tls import TlsStream
    from pooledhttp._net.tlsconfig import TlsSettings
    from pooledhttp._proto.connect import Connect
    from pooledhttp._proto.socks import Socks

__all__ = ["FOREVER", "DeadlinePassed", "Dial", "DialInfo", "DialSpec", "Hop", "attempt_end", "check_local", "check_options", "interleave", "show"]

Woken: TypeAlias = "Callable[[], bool] | None"

# What a SOCKS proxy says of an address; another one of the same name may be better.
_OF_THE_ADDRESS = frozenset((1, 3, 4, 5, 6, 8))
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0) | socket.MSG_DONTWAIT

# Under way, begun and neither done nor given up. Not weak: the callback of a weak reference is Python's, and what a signal's handler raises in it is lost.
_dials: set[Dial] = set()


def reset_after_fork() -> None:
    """In the child: closes the copies of what other threads were connecting, or the parent's close would reach no server while the child lives."""
    for dial in list(_dials):
        if dial._runner != get_ident():          # its own goes on
            dial.tale = None                     # a hook may want a lock that its thread had; and it is the parent's to tell
            dial.abandon()


class _Shake:
    """One TLS handshake of a dial, begun anew where a kept session broke it."""

    def __init__(self, settings: TlsSettings, host: str, server_hostname: str | None, where: str, sessions: Sessions) -> None:
        self.settings = settings
        self.context: ssl.SSLContext = settings.context()
        self.host = host
        self.server_hostname = server_hostname
        self.where = where                  # for messages
        self.sessions = sessions
        self.offered: object = None         # the entry of `sessions` that it would resume
        self.begun = False
        self.end = FOREVER

    def forget_session(self) -> None:
        if self.sessions[0] is self.offered:
            self.sessions[0] = None
        self.offered = None


class Dial(Connecting):
    """One connection in the making. Used by one thread at a time.

    `connect_ns` limits DNS, TCP and what a proxy is asked together, from the start of the first `run`, TLS with the proxy not counted; `tls_ns` each
    handshake, from its start; both in nanoseconds, -1 for no limit. After `run` has returned a stream: `info`, and `timings` in ns (0 for
    what did not happen; what the proxy took is in "connect").
    """

    def __init__(self, spec: DialSpec, connect_ns: int = FOREVER, tls_ns: int = FOREVER) -> None:
        super().__init__(spec, connect_ns)
        self._tls_ns = tls_ns
        self._runner = 0                      # the thread that ran it last
        self.ticket: Ticket | None = None     # a helper's, where one is to finish it
        self._phase = "new"
        self._lookup: Lookup | None = None
        self._steps: deque[Callable[[int, Woken], bool]] = deque()
        self._to_proxy: _Shake | None = None
        self._to_server: _Shake | None = None
        self._tls: TlsStream | None = None    # the uppermost; it has the socket
        self._shaking = False                 # `_tls` is in its handshake
        self._targets: deque[Address] = deque()         # of the server's name, where it is resolved here for a SOCKS proxy
        self._asking: Connect | Socks | None = None
        self._unsent = b""                    # of what the proxy is asked
        self._early = b""                     # what the server said behind the proxy's answer

    # -- the face --

    def run(self, deadline_ns: int = FOREVER, woken: Woken = None) -> Stream | None:
        """Dial until there is a stream; the caller owns it. The descriptor is in blocking mode.

        `deadline_ns` is on the monotonic clock, -1 for ever. None where this thread's wake handle was signalled (it is cleared) and
        `woken()` is true: what was begun is kept for a later `run`, which another thread may call.

        Raises ConnectTimeout, TLSHandshakeTimeout, DeadlinePassed, DNSError, ConnectError, ConnectRefusedByFilter, ProxyError,
        CertificateError, TLSError; whatever is raised, no socket is left open.
        """
        self._runner = get_ident()
        try:
            if self._phase == "new":
                _dials.add(self)
                self._begin()
            while True:
                if self._phase == "dns":
                    if not self._dns(deadline_ns, woken):
                        return None
                elif self._phase == "connect":
                    if not self._connect(deadline_ns, woken):
                        return None
                    self._plan()
                elif self._phase == "steps" and self._steps:
                    if not self._steps[0](deadline_ns, woken):
                        return None
                    if self._phase == "steps":
                        self._steps.popleft()
                else:
                    break
            if self._phase != "steps":
                raise RuntimeError("the dial is over")
            self._phase = "over"
            _dials.discard(self)
            stream: Stream
            if self._tls is not None:
                stream, self._tls = self._tls, None
                return stream
            assert self._sock is not None
            stream = TcpStream(self._sock)
            self._sock = None
            return stream
        except BaseException as exc:
            self.abandon(exc)
            raise

    @property
    def phase(self) -> str:
        """What it is at, as errors name it: "dns", "connect", "proxy" or "tls"."""
        if self._phase != "steps" or not self._steps:
            return "dns" if self._phase == "dns" else "connect"
        step = self._steps[0]
        return "dns" if step == self._resolve_server else "proxy" if step == self._ask else "tls"

    def abandon(self, error: BaseException | None = None) -> None:
        """Give up: close whatever is open. May be called at any time when `run` is not running, and again. `error`: why."""
        self._phase = "over"
        _dials.discard(self)
        under_way = list(self._attempts.values())
        while self._attempts:
            self._attempts.popitem()[1].sock.close()
        shaking, self._shaking = self._shaking, False
        self._hang_up()
        if self.tale is None:
            return
        if error is None:
            error = errors.Cancelled("the dial was given up")
        elif isinstance(error, DeadlinePassed):
            error = errors.ConnectTimeout("the request's deadline passed", phase=error.phase)
        if self._looking:
            self._looking = False
            self._tell("dns_done", [], error, False)
        self._tell_given_up(under_way, error)
        if shaking:
            self._tell("tls_done", None, error)

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._tls is not None:
            self._tls.abandon()
            self._tls = None

    # -- phases --

    def _begin(self) -> None:
        spec, hop = self.spec, self.spec.hop
        # Bad files are heard of before a connection is spent.
        if hop is not None and hop.tls is not None:
            self._to_proxy = _Shake(hop.tls, hop.proxy.host, None, spec.first_where, hop.sessions)
        if spec.tls is not None:
            self._to_server = _Shake(spec.tls, spec.host, spec.server_hostname, spec.where, spec.sessions)
        self._started = time.monotonic_ns()
        if self._connect_ns >= 0:
            self._connect_end = self._started + self._connect_ns
        if spec.uds is not None:
            self._todo.append((socket.AF_UNIX, spec.uds))
            self._phase = "connect"
        else:
            self._lookup = self._look_up(spec.first_host, spec.first_port)
            self._phase = "dns"

    def _dns(self, deadline: int, woken: Woken) -> bool:
        lookup = self._lookup
        assert lookup is not None
        if not self._resolve(lookup, deadline, woken):
            return False
        try:
            found = self._found(lookup)
        except errors.DNSError as exc:
            if self.spec.hop is None:
                raise
            raise self._unreachable(exc.message, "dns", exc.errno) from exc
        self._todo.extend(interleave(self._allowed(found)))
        self._lookup = None
        self._phase = "connect"
        return True

    def _plan(self) -> None:
        """What is to be done on a new connection."""
        hop = self.spec.hop
        self._steps.clear()
        if self._to_proxy is not None:
            self._steps.append(self._shake_with_proxy)
        if hop is not None and hop.tunnel:
            if hop.proxy.scheme == "socks5" and not self._targets:
                self._steps.append(self._resolve_server)
            self._steps.append(self._ask)
        if self._to_server is not None:
            self._steps.append(self._shake_with_server)
        self._phase = "steps"

    def _again(self) -> None:
        """Begin once more with a new connection to the same address."""
        self._hang_up()
        self._shaking = False
        self._asking = None
        self._early = b""
        assert self._address is not None
        self._next_at = 0
        self._todo.append(self._address)
        self._phase = "connect"

    # -- TLS --

    def _shake_with_proxy(self, deadline: int, woken: Woken) -> bool:
        assert self._to_proxy is not None
        began = self._started
        done = self._shake_first(self._to_proxy, deadline, woken)
        if self._connect_end >= 0 and self._phase == "steps":
            self._connect_end += self._started - began
        return done

    def _shake_with_server(self, deadline: int, woken: Woken) -> bool:
        shake = self._to_server
        assert shake is not None
        done = self._shake_first(shake, deadline, woken) if self.spec.hop is None else self._shake(shake, deadline, woken)
        if done and self._phase == "steps":
            stream = self._tls
            assert stream is not None
            self.info = self.info._replace(tls_version=stream.tls_version, cipher=stream.cipher_name, alpn=stream.alpn)
        return done

    def _shake_first(self, shake: _Shake, deadline: int, woken: Woken) -> bool:
        try:
            return self._shake(shake, deadline, woken)
        except (errors.Error, DeadlinePassed):
            self._drop_answer()           # the address may be another's by now, who does not speak TLS, or has another certificate
            raise

    def _shake(self, shake: _Shake, deadline: int, woken: Woken) -> bool:
        """The handshake, over the socket or over the TLS there is. True with phase "connect" where it is to be begun anew."""
        from pooledhttp._net.tlsconfig import tls_error

        if not self._shaking:
            self._open(shake)
        stream = self._tls
        assert stream is not None
        fd = stream.fileno()
        while True:
            try:
                want = stream.handshake_step()
            except OSError as exc:            # ssl.SSLError is one
                if foreign(exc):
                    raise
                error = tls_error(exc, shake.where, stream.first_bytes)
                if shake.offered is None or isinstance(error, errors.CertificateError):
                    raise error from exc
                self._without_session(shake)
                self._tell("tls_done", None, error)
                return True
            if want == "done":
                break
            end = sooner(deadline, shake.end)
            if self._wait({fd: select.POLLIN if want == "read" else select.POLLOUT}, end, woken) is None:
                return False
            if 0 <= end <= time.monotonic_ns():
                shake.forget_session()        # a server may be stuck with it
                if end == deadline:
                    raise DeadlinePassed("tls")
                raise errors.TLSHandshakeTimeout(
                    f"the TLS handshake with {shake.where} was not done within tls_handshake={seconds(self._tls_ns)}", phase="tls")
        shake.settings.check_pin(stream.peer_certificate, shake.where)
        self._shaking = False
        self._took("tls")
        if self.tale is not None:
            self.tale.tell("tls_done", TlsInfo(stream.tls_version, stream.cipher_name, stream.alpn, stream.session_reused), None)
        return True

    def _open(self, shake: _Shake) -> None:
        from pooledhttp._net.tls import TlsStream
        from pooledhttp._net.tlsconfig import hostname

        if not shake.begun:
            shake.begun = True
            if self._tls_ns >= 0:
                shake.end = time.monotonic_ns() + self._tls_ns
        below = self._sock if self._tls is None else self._tls
        assert below is not None
        name = hostname(shake.host, shake.server_hostname)
        kept = shake.sessions[0]
        if kept is not None and kept[0] is not shake.context:
            kept = None                   # of before a file changed: what it trusted then may not be trusted now, and ssl refuses it
        shake.offered = kept
        try:
            try:
                self._tls = TlsStream(below, shake.context, name, None if kept is None else kept[1], shake.sessions, self._early)
            except ValueError:
                if kept is None:
                    raise
                # A context of the user's that has others inside.
                shake.forget_session()
                self._tls = TlsStream(below, shake.context, name, None, shake.sessions, self._early)
        except (ValueError, OSError) as exc:
            raise errors.TLSError(f"TLS with {shake.where} failed: {name!r} cannot be asked for: {exc}", phase="tls") from exc
        self._sock = None
        self._shaking = True
        self._tell("tls_start", name)

    def _without_session(self, shake: _Shake) -> None:
        """The handshake broke, and it had offered a session: that may be why. Once more, on a new connection, without one."""
        shake.forget_session()
        self._took("tls")
        if self._connect_ns >= 0:
            self._connect_end = self._started + self._connect_ns
        self._again()

    def _took(self, what: str) -> None:
        now = time.monotonic_ns()
        self.timings[what] += now - self._started
        self._started = now

    # -- the proxy --

    def _resolve_server(self, deadline: int, woken: Woken) -> bool:
        """For SOCKS, where the names are resolved here."""
        spec = self.spec
        found = literal(spec.host, spec.port)
        if found is None:
            if self._lookup is None:
                self._lookup = self._look_up(spec.host, spec.port)
            if not self._resolve(self._lookup, deadline, woken):
                return False
            found = self._found(self._lookup)
            self._lookup = None
        self._targets.extend(interleave(found))
        return True

    def _question(self) -> Connect | Socks:
        spec, hop = self.spec, self.spec.hop
        assert hop is not None
        proxy = hop.proxy
        if not proxy.socks:
            from pooledhttp._proto.connect import Connect

            return Connect(proxy.label, spec.host.partition("%")[0], spec.port, hop.fields)        # an IPv6 zone is this machine's own
        from pooledhttp._proto.socks import Socks

        found = self._targets or literal(spec.host, spec.port)
        address = socket.inet_pton(found[0][0], found[0][1][0].partition("%")[0]) if found else None
        return Socks(proxy.label, spec.host, spec.port, address, proxy.username, proxy.password)

    def _ask(self, deadline: int, woken: Woken) -> bool:
        """The proxy's own protocol, until it has connected us."""
        if self._asking is None:
            self._asking = self._question()
            self._unsent, self._asking.outgoing = self._asking.outgoing, b""
        try:
            while not self._asked():
                end = sooner(deadline, self._connect_end)
                fd = self._tls.fileno() if self._tls is not None else self._sock.fileno() if self._sock is not None else -1
                if self._wait({fd: select.POLLIN | (0 if self._sent() else select.POLLOUT)}, end, woken) is None:
                    return False
                if 0 <= end <= time.monotonic_ns():
                    if end == deadline:
                        raise DeadlinePassed("proxy")
                    raise errors.ConnectTimeout(
                        f"{self.spec.first_where} did not connect us to {self.spec.where} within connect={seconds(self._connect_ns)}", phase="proxy")
        except errors.ProxyError as exc:
            if exc.socks_reply not in _OF_THE_ADDRESS or not self._targets:
                raise
            self._targets.popleft()
            if not self._targets:
                self.spec.resolver.invalidate(self.spec.host, self.spec.port)
                raise
            self._took("connect")
            self._again()
            return True
        self._early = self._asking.early
        self._asking = None
        self._took("connect")
        return True

    def _asked(self) -> bool:
        """Send and receive what can be without waiting: whether it is done."""
        asking = self._asking
        assert asking is not None
        while True:
            broken: OSError | None = None
            try:
                self._sent()
            except OSError as exc:
                if foreign(exc):
                    raise
                broken = exc                  # a proxy that refuses may have said so before it closed
            try:
                data = self._receive(asking.room)
            except OSError as exc:
                if foreign(exc):
                    raise
                raise self._broke(broken or exc) from exc
            if data is None:
                if broken is not None:
                    raise self._broke(broken)
                return False
            if asking.feed(data):
                return True
            self._unsent += asking.outgoing
            asking.outgoing = b""

    def _sent(self) -> bool:
        """Send what can be sent without waiting: whether all is."""
        while self._unsent:
            if self._tls is not None:
                n = self._tls.offer(self._unsent)
            else:
                assert self._sock is not None
                try:
                    n = self._sock.send(self._unsent, _NO_SIGNAL)
                except BlockingIOError:
                    n = 0
            if not n:
                return False
            self._unsent = self._unsent[n:]
        return self._tls is None or self._tls.drained()

    def _receive(self, room: int) -> bytes | None:
        if self._tls is not None:
            return self._tls.take(room)
        assert self._sock is not None
        try:
            return self._sock.recv(room, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _broke(self, exc: OSError) -> errors.Error:
        import ssl

        where = self.spec.first_where
        if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
            from pooledhttp._net.tlsconfig import tls_error

            error = tls_error(exc, where)
            error.phase = "proxy"
            return error
        return errors.ProxyError(f"the connection to {where} broke before it had connected us to {self.spec.where}: {exc.strerror or exc}",
                                 phase="proxy", errno=None if isinstance(exc, ssl.SSLError) else exc.errno)
