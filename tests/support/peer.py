"""Scripted raw-socket servers: a test says byte by byte what the other side does.

    def script(conn: Conn, i: int) -> None:            # i counts the accepted connections from 0
        head = conn.recv_head()
        conn.send_split(respond(b"hello"), [1, 1, 5])

    with Peer(script) as peer:
        ... peer.url("/x") ...

A script runs in a thread of its own per connection, and the connection closes when it returns. A script that the client leaves
(`ClientGone`) just ends; every other exception of a script is raised when the peer stops. Stopping breaks what still waits.
"""
from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from select import POLLIN, POLLOUT, poll
from types import TracebackType
from typing import TYPE_CHECKING

from tests.support import front

if TYPE_CHECKING:
    from typing_extensions import Self

PATIENCE = 10.0        # seconds that a test waits for its peer before it says what did not happen


class ClientGone(Exception):
    """The client closed or reset the connection (or the peer stopped) while the script wanted more."""


def respond(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | Iterable[tuple[str, str]] = (), *, reason: str = "OK",
            version: str = "1.1", length: bool = True) -> bytes:
    """The bytes of a response, with `Content-Length` unless `length` is False."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if length:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"HTTP/{version} {status} {reason}", *(f"{k}: {v}" for k, v in pairs)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """`pieces` in the chunked transfer coding, last chunk and trailer section (`b"A: b\\r\\n"`) included."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n" + trailers + b"\r\n"


def header(head: bytes, name: str) -> str | None:
    """The value of the first field `name` in a head, or None."""
    for line in head.split(b"\r\n")[1:]:
        key, sep, value = line.partition(b":")
        if sep and key.decode("latin-1").lower() == name.lower():
            return value.decode("latin-1").strip()
    return None


class Conn:
    """One accepted connection, as its script sees it. `received` keeps all that the client sent (decrypted)."""

    def __init__(self, peer: Peer, sock: socket.socket, index: int) -> None:
        self.sock = sock
        self.index = index
        self.received = bytearray()
        self.closed = threading.Event()
        self._peer = peer
        self._taken = 0                # bytes of `received` that the script has had

    def start_tls(self, context: ssl.SSLContext) -> None:
        """The server's side of a handshake. A client that does not want us is `ClientGone`, noted in `peer.tls_errors`."""
        try:
            with self._peer.changed:       # wrapping empties the plain socket: a peer that stops now must find the one or the other
                if self._peer.stopped.is_set():
                    raise ClientGone("the peer stopped")
                tls = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
                self.sock = tls
            tls.do_handshake()
        except OSError as exc:
            self._peer.tls_errors.append(exc)
            raise ClientGone("no handshake") from exc
        with self._peer.changed:
            self._peer.handshakes += 1

    def recv_some(self, limit: int = 65536) -> bytes:
        """What the client sent next, at least a byte; b"" at its end."""
        if self._taken < len(self.received):
            out = bytes(self.received[self._taken:self._taken + limit])
            self._taken += len(out)
            return out
        out = self._recv(limit)
        self._taken += len(out)
        return out

    def recv_head(self) -> bytes:
        """A request's head, blank line included."""
        while True:
            at = self.received.find(b"\r\n\r\n", self._taken)
            if at >= 0:
                head = bytes(self.received[self._taken:at + 4])
                self._taken = at + 4
                return head
            self._more()

    def recv_exact(self, n: int) -> bytes:
        while len(self.received) - self._taken < n:
            self._more()
        out = bytes(self.received[self._taken:self._taken + n])
        self._taken += n
        return out

    def recv_line(self) -> bytes:
        while (at := self.received.find(b"\r\n", self._taken)) < 0:
            self._more()
        out = bytes(self.received[self._taken:at])
        self._taken = at + 2
        return out

    def recv_body(self, head: bytes) -> bytes:
        """The body that a request's head announces, decoded where it is chunked."""
        if (header(head, "Transfer-Encoding") or "").lower() != "chunked":
            return self.recv_exact(int(header(head, "Content-Length") or 0))
        body = b""
        while size := int(self.recv_line().partition(b";")[0], 16):
            body += self.recv_exact(size)
            if self.recv_exact(2) != b"\r\n":
                raise AssertionError("a chunk that does not end in CRLF")
        while self.recv_line():
            pass
        return body

    def recv_request(self) -> tuple[bytes, bytes]:
        head = self.recv_head()
        return head, self.recv_body(head)

    def recv_until_closed(self) -> bytes:
        """All that the client still sends before it closes or resets."""
        out = b""
        with suppress(ClientGone):
            while piece := self.recv_some():
                out += piece
        return out

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as exc:
            raise ClientGone("while sending") from exc

    def send_split(self, data: bytes, sizes: Sequence[int]) -> None:
        """`data` in pieces of `sizes` bytes, each in a segment of its own; what is left comes last."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        for size in sizes:
            self.send(data[at:at + size])
            at += size
        if at < len(data):
            self.send(data[at:])

    def shutdown_write(self) -> None:
        """The end of our bytes; the client may go on sending."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self, *, notify: bool = True) -> None:
        """An orderly close; over TLS with the goodbye (close_notify), unless `notify` is False."""
        if notify and isinstance(self.sock, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                self.sock.setblocking(False)
                self.sock.unwrap()            # sends the alert, then would wait for the client's
        self._close()

    def reset(self) -> None:
        """Closes with a TCP reset."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def stall(self) -> None:
        """Does nothing until the peer stops."""
        self._peer.stopped.wait()
        raise ClientGone("the peer stopped")

    def _more(self) -> None:
        if not self._recv(65536):
            raise ClientGone(f"the client closed after {len(self.received)} bytes")

    def _recv(self, limit: int) -> bytes:
        try:
            piece = self.sock.recv(limit)
        except OSError as exc:
            raise ClientGone("while receiving") from exc
        with self._peer.changed:
            self.received += piece
            self._peer.changed.notify_all()
        return piece

    def _close(self) -> None:
        self.sock.close()
        with self._peer.changed:
            self.closed.set()
            self._peer.changed.notify_all()


Script = Callable[[Conn, int], None]


def answering(*answers: bytes) -> Script:
    """A script that answers request after request, the last answer for ever, until the client leaves."""

    def script(conn: Conn, i: int) -> None:
        n = 0
        while True:
            conn.recv_request()
            conn.send(answers[min(n, len(answers) - 1)])
            n += 1

    return script


class Peer:
    """A listening socket whose connections follow a script.

    Listens on `host` (port chosen by the system unless `port` says it), or on the path `uds`. With `tls` the handshake is made before the script runs
    (a script that wants to decide that itself takes no `tls` and calls `conn.start_tls`). `accepted` counts connections,
    `handshakes` those whose TLS handshake succeeded, `conns` are they. In a run over HTTP/2 the script's connections are the lanes of a `front`.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, uds: str | os.PathLike[str] | None = None,
                 host: str = "127.0.0.1", port: int = 0, name: str | None = None, backlog: int = 128) -> None:
        self.script = script
        self.tls = tls
        self.stopped = threading.Event()
        self.changed = threading.Condition()
        self.conns: list[Conn] = []
        self.fronts: list[Conn] = []
        self.handshakes = 0
        if front.ON and tls is not None:
            tls.set_alpn_protocols(["h2", "http/1.1"])
        self.tls_errors: list[OSError] = []
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        if uds is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(os.fspath(uds))
            self.host, self.port = name or "localhost", 0
        else:
            self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self.host, self.port = name or host, self._listener.getsockname()[1]
        self._listener.listen(backlog)
        self._wake_r, self._wake_w = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="peer-accept", daemon=True)
        self._acceptor.start()

    @property
    def accepted(self) -> int:
        return len(self.conns)

    def url(self, target: str = "/") -> str:
        scheme = "https" if self.tls is not None else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{target}" if self.port else f"{scheme}://{host}{target}"

    def wait_for(self, what: Callable[[Peer], object], say: str = "what the test waits for", timeout: float = PATIENCE) -> None:
        """Waits until `what(peer)` is true; looked at whenever a connection comes, sends or closes."""
        with self.changed:
            if not self.changed.wait_for(lambda: what(self) or self._failures, timeout):
                raise AssertionError(f"{say} did not happen within {timeout} s; {self.accepted} connections accepted")
        self._raise()

    def wait_accepted(self, n: int, timeout: float = PATIENCE) -> None:
        self.wait_for(lambda p: p.accepted >= n, f"connection number {n}", timeout)

    def wait_closed(self, i: int = 0, timeout: float = PATIENCE) -> None:
        """Waits until the script of connection `i` has ended and its socket is closed."""
        self.wait_for(lambda p: p.accepted > i and p.conns[i].closed.is_set(), f"the end of connection {i}", timeout)

    def stop(self) -> None:
        """Ends all connections and threads, then raises what a script failed by."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._wake_w.send(b"x")
            self._acceptor.join(PATIENCE)
            self._listener.close()
            with self.changed:
                for conn in (*self.fronts, *self.conns):
                    with suppress(OSError):
                        socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(PATIENCE)
                if thread.is_alive():
                    self._failures.append(AssertionError(f"{thread.name} did not end"))
            self._wake_r.close()
            self._wake_w.close()
        self._raise()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _raise(self) -> None:
        if self._failures:
            raise self._failures.pop(0)

    def _accept(self) -> None:
        asked = poll()
        asked.register(self._listener, POLLIN)
        asked.register(self._wake_r, POLLIN)
        while True:
            if any(fd == self._wake_r.fileno() for fd, _ in asked.poll()):
                return
            sock, _ = self._listener.accept()
            with self.changed:
                conn = Conn(self, sock, len(self.conns))
                thread = threading.Thread(target=self._front if front.ON else self._run, args=(conn,), name=f"peer-conn-{conn.index}", daemon=True)
                self._threads.append(thread)
                if front.ON:
                    self.fronts.append(conn)
                else:
                    self.conns.append(conn)
                self.changed.notify_all()
            thread.start()

    def _front(self, outer: Conn) -> None:
        try:
            if self.tls is not None:
                outer.start_tls(self.tls)
        except ClientGone:
            outer.close()
            return
        front.serve(outer.sock, self._lane)

    def _lane(self, sock: socket.socket) -> None:
        with self.changed:
            conn = Conn(self, sock, len(self.conns))
            self.conns.append(conn)
            self.changed.notify_all()
        self._run(conn)

    def _run(self, conn: Conn) -> None:
        try:
            if self.tls is not None and not front.ON:
                conn.start_tls(self.tls)
            self.script(conn, conn.index)
        except ClientGone:
            pass
        except BaseException as exc:  # noqa: B036 - an AssertionError of a script belongs to the test
            with self.changed:
                self._failures.append(exc)
                self.changed.notify_all()
        finally:
            conn.close()


class FullBacklog:
    """A listening port that takes no more connections: a connect to it stalls (Linux drops the SYN of a full backlog)."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(0)
        self.host, self.port = self._listener.getsockname()[:2]
        self._fillers: list[socket.socket] = []
        while True:
            filler = socket.socket(family)
            filler.setblocking(False)
            self._fillers.append(filler)
            filler.connect_ex((self.host, self.port))
            asked = poll()
            asked.register(filler, POLLOUT)
            if not asked.poll(200):
                break

    def __enter__(self) -> FullBacklog:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in (*self._fillers, self._listener):
            sock.close()


def free_ports(n: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    socks = [socket.socket() for _ in range(n)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in socks]
    for sock in socks:
        sock.close()
    return ports
