"""Peers with real sockets, certificates made on the fly, and the rule that no test leaves a descriptor, buffer or thread behind."""
from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import trustme

from pooledhttp._core import runtime
from pooledhttp._net import helpers, testing
from pooledhttp._net.tls import TlsStream

SECOND = 1_000_000_000
LATE = 0.5 if os.environ.get("POOLEDHTTP_SANITIZE") else 0.05          # a sanitized build is several times slower


def descriptors() -> dict[str, str]:
    """The process's open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):      # the listing's own
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    runtime.current_wake()                                # this thread's stays
    before, live = descriptors(), runtime.live()
    yield
    until(lambda: helpers.shared.threads == 0)
    until(lambda: runtime.live() == live)
    after = descriptors()
    assert {k: v for k, v in after.items() if before.get(k) != v} == {}
    assert {k: v for k, v in before.items() if k not in after} == {}


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """For what other threads are just finishing."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.001)


class Peer:
    """`script` in a thread of its own; leaving the block joins it and raises what it raised."""

    def __init__(self, script: Callable[..., Any], *args: Any) -> None:
        self._error: BaseException | None = None
        self.result: Any = None

        def run() -> None:
            try:
                self.result = script(*args)
            except BaseException as exc:
                self._error = exc

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def join(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the peer hangs"
        if self._error is not None:
            raise self._error
        return self.result

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.join()
        else:
            self._thread.join(5)


def tcp_pair(*, buffers: int | None = None) -> tuple[socket.socket, socket.socket]:
    """(ours, the peer's), connected over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        if buffers:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                ours.setsockopt(socket.SOL_SOCKET, option, buffers)
                listener.setsockopt(socket.SOL_SOCKET, option, buffers)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.cert = self.ca.issue_cert("localhost", "example.test", "127.0.0.1", "::1")
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def server(self, **options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.cert.configure_cert(context)
        context.set_alpn_protocols(["http/1.1"])
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def client(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.set_alpn_protocols(["http/1.1"])
        for name, value in options.items():
            setattr(context, name, value)
        return context


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


class TlsPeer:
    """The server's end of one connection, with every byte under the test's control: `take()` what it wants to send, `push` it when due."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.obj = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def pull(self) -> None:
        """Feed what has arrived."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(65536, socket.MSG_DONTWAIT):
                self.incoming.write(data)

    def handshake(self) -> bool:
        self.pull()
        try:
            self.obj.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def take(self) -> bytes:
        return self.outgoing.read()

    def push(self) -> None:
        self.sock.sendall(self.take())

    def cipher(self, plain: bytes) -> bytes:
        """`plain` as ciphertext, and what was waiting before it."""
        assert self.obj.write(plain) == len(plain)
        return self.take()

    def send(self, plain: bytes) -> None:
        self.sock.sendall(self.cipher(plain))

    def recv(self, n: int) -> bytes:
        """Exactly n bytes, waiting for them."""
        got = b""
        while len(got) < n:
            try:
                got += self.obj.read(n - len(got))
            except ssl.SSLWantReadError:
                assert select.select([self.sock], [], [], 5)[0], "the client sent too little"
                self.pull()
        return got

    def goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.obj.unwrap()
        self.push()


def shake(stream: TlsStream, peer: TlsPeer, *, tickets: bool = True) -> None:
    """The handshake, both ends in this thread. Without `tickets` they stay in the peer, to be pushed later."""
    theirs = False
    while True:
        step = stream.handshake_step()
        theirs = theirs or peer.handshake()
        if step == "done" and theirs:
            break
        peer.push()
    if tickets:
        peer.push()


class Tls:
    """A TLS stream and its peer, connected."""

    def __init__(self, certs: Certificates, *, tickets: bool = True, buffers: int | None = None, **options: Any) -> None:
        ours, theirs = tcp_pair(buffers=buffers)
        self.stream = TlsStream(ours, certs.client(**options), "localhost")
        self.peer = TlsPeer(theirs, certs.server())
        shake(self.stream, self.peer, tickets=tickets)

    def __enter__(self) -> Tls:
        return self

    def __exit__(self, *_: Any) -> None:
        testing.close(self.stream, False)
        self.peer.sock.close()


def lateness(timeout: float, call: Callable[[], Any], expected: type[BaseException], rounds: int = 3) -> None:
    """`call` raises `expected` after `timeout` seconds: never early, late by under 50 ms (LATE) in the median of `rounds`."""
    late = []
    for _ in range(rounds):
        start = time.monotonic_ns()
        with pytest.raises(expected):
            call()
        late.append((time.monotonic_ns() - start) / 1e9 - timeout)
    assert min(late) >= 0, late
    assert median(late) < LATE, late


@pytest.fixture
def full_listener() -> Iterator[tuple[str, int]]:
    """The address of a listener that answers no further connect: its backlog is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    fillers = []
    while True:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        fillers.append(sock)
        if not select.select([], [sock], [], 0.1)[1]:
            break
    yield address
    for sock in fillers:
        sock.close()
    listener.close()
