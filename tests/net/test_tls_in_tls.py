"""TLS over TLS, as with an origin through a proxy that is itself spoken to by TLS."""
from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp._net import testing
from pooledhttp._net.tls import TlsStream

from .conftest import Certificates, Tls, TlsPeer, shake, tcp_pair

PATTERN = bytes(range(251)) * 5000                # 1.2 MB


class Through(TlsPeer):
    """The origin's end: its ciphertext goes as plaintext through the proxy's TLS."""

    def __init__(self, proxy: TlsPeer, context: ssl.SSLContext) -> None:
        super().__init__(proxy.sock, context)
        self.proxy = proxy

    def pull(self) -> None:
        self.proxy.pull()
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self.proxy.obj.read(65536):
                self.incoming.write(data)

    def push(self) -> None:
        self.wire(self.take())

    def send(self, plain: bytes) -> None:
        self.wire(self.cipher(plain))

    def wire(self, data: bytes, size: int = 1 << 30) -> None:
        """`data` through the proxy, in records of at most `size` bytes."""
        for at in range(0, len(data), size):
            self.proxy.send(data[at:at + size])


class Pair:
    def __init__(self, certs: Certificates, *, early: Callable[[Through], bytes] | None = None, buffers: int | None = None, **options: Any) -> None:
        ours, theirs = tcp_pair(buffers=buffers)
        self.under = TlsStream(ours, certs.client(), "localhost")
        self.proxy = TlsPeer(theirs, certs.server(**options))
        shake(self.under, self.proxy)
        self.stream = TlsStream(self.under, certs.client(), "localhost")
        self.origin = Through(self.proxy, certs.server(**options))
        shake(self.stream, self.origin)

    def close(self) -> None:
        testing.close(self.stream, False)
        self.proxy.sock.close()


@pytest.fixture(params=["1.3", "1.2"])
def pair(request: pytest.FixtureRequest, tls_mode: str, certs: Certificates) -> Iterator[Pair]:
    version = ssl.TLSVersion.TLSv1_3 if request.param == "1.3" else ssl.TLSVersion.TLSv1_2
    it = Pair(certs, maximum_version=version)
    yield it
    it.close()


def test_both_ways(pair: Pair) -> None:
    testing.send(pair.stream, b"hello")
    assert pair.origin.recv(5) == b"hello"
    pair.origin.send(b"world")
    assert testing.recv(pair.stream, 10, 5.0) == b"world"
    assert testing.probe(pair.stream) == "ok"
    assert testing.fileno(pair.stream) == testing.fileno(pair.under)


@pytest.mark.parametrize("size", [1, 7, 1 << 30])
def test_records_that_cross(pair: Pair, size: int) -> None:
    """The origin's records cut by the proxy's."""
    pair.origin.wire(pair.origin.cipher(b"x" * 300) + pair.origin.cipher(b"y" * 20), size)
    got = b""
    while len(got) < 320:
        got += testing.recv(pair.stream, 100, 5.0)
    assert got == b"x" * 300 + b"y" * 20
    assert testing.try_recv(pair.stream, 10) is None


def test_a_large_answer(pair: Pair) -> None:
    thread = threading.Thread(target=pair.origin.send, args=(PATTERN,))
    thread.start()
    got = bytearray()
    while len(got) < len(PATTERN):
        got += testing.recv(pair.stream, 100_000, 10.0)
    thread.join()
    assert got == PATTERN


def test_a_large_request_that_waits_for_its_reader(tls_mode: str, certs: Certificates) -> None:
    pair = Pair(certs, buffers=4096)
    sent = 0
    while (n := testing.try_send(pair.stream, PATTERN[sent:sent + 30_000])) is not None:
        sent += n
    assert 0 < sent < len(PATTERN)
    assert testing.try_flush(pair.stream) is False         # accepted, and lies below
    with pytest.raises(TimeoutError):
        testing.wait(pair.stream, "w", 0.05)
    got = []
    thread = threading.Thread(target=lambda: got.append(pair.origin.recv(len(PATTERN))))
    thread.start()
    testing.send(pair.stream, PATTERN[sent:], 10.0)
    thread.join(10)
    assert got == [PATTERN]
    assert testing.try_flush(pair.stream) is True
    pair.close()


def test_the_end(pair: Pair) -> None:
    pair.origin.goodbye()
    assert testing.recv(pair.stream, 10, 5.0) == b""
    assert pair.stream.clean and not pair.stream.cut
    assert testing.probe(pair.stream) == "eof"


@pytest.mark.parametrize("how", ["goodbye", "cut"])
def test_an_end_of_what_is_below_is_no_end(pair: Pair, how: str) -> None:
    """The proxy's goodbye is not the origin's."""
    if how == "goodbye":
        pair.proxy.goodbye()
    else:
        pair.proxy.sock.shutdown(socket.SHUT_WR)
    assert testing.probe(pair.stream) in ("eof", "proto")
    with pytest.raises(ssl.SSLError):
        testing.recv(pair.stream, 10, 5.0)
    assert pair.stream.cut and not pair.stream.clean


def test_bytes_nobody_asked_for(pair: Pair) -> None:
    pair.origin.send(b"unasked")
    testing.wait(pair.stream, "r", 5.0)
    assert testing.probe(pair.stream) == "proto"


def test_the_beginning_of_a_record_is_not_quiet(pair: Pair) -> None:
    pair.origin.wire(pair.origin.cipher(b"unasked")[:4])
    testing.wait(pair.stream, "r", 5.0)
    assert testing.probe(pair.stream) == "proto"


def test_garbage_below(pair: Pair) -> None:
    pair.proxy.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        testing.recv(pair.stream, 10, 5.0)
    with pytest.raises(ssl.SSLError):
        testing.recv(pair.stream, 10, 5.0)


def test_a_wait_that_ends_by_its_deadline_or_a_wake(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        testing.recv(pair.stream, 10, 0.05)
    from pooledhttp._core.runtime import current_wake

    current_wake().signal()
    with pytest.raises(testing.Woken):
        testing.recv(pair.stream, 10, 5.0, wake=True)


def test_the_goodbye_of_both(pair: Pair) -> None:
    pair.origin.send(b"x")
    assert testing.recv(pair.stream, 1, 5.0) == b"x"       # and the tickets: a socket closed with bytes unread resets
    testing.close(pair.stream)
    assert testing.fileno(pair.stream) == testing.fileno(pair.under) == -1
    pair.origin.pull()
    for one in (pair.origin, pair.proxy):
        with contextlib.suppress(ssl.SSLZeroReturnError):      # one of the two ways in which a Python says a close_notify
            assert one.obj.read(1) == b""


def test_what_was_said_before_the_handshake(tls_mode: str, certs: Certificates) -> None:
    """Bytes read behind the proxy's answer are the origin's first."""
    ours, theirs = tcp_pair()
    stream = TlsStream(ours, certs.client(), "localhost", None, None, b"HTTP/1.0 400 Bad")
    with pytest.raises(ssl.SSLError):
        stream.handshake_step()
    assert stream.first_bytes == b"HTTP/1.0 400 Bad"
    stream.abandon()
    theirs.close()

    ours, theirs = tcp_pair()
    first = TlsStream(ours, certs.client(), "localhost")
    peer = TlsPeer(theirs, certs.server())
    assert first.handshake_step() == "read"
    peer.handshake()
    flight = peer.take()
    first.abandon()
    theirs.close()
    ours, theirs = tcp_pair()
    other = TlsStream(ours, certs.client(), "localhost", None, None, flight)       # another's flight: it is read, and does not fit
    with pytest.raises(ssl.SSLError):
        other.handshake_step()
    other.abandon()
    theirs.close()


def test_over_one_that_nobody_kept(certs: Certificates) -> None:
    """Collected unclosed, the descriptor is closed once."""
    with Tls(certs) as tls:
        stream = TlsStream(tls.stream, certs.client(), "localhost")
        del stream
        assert testing.probe(tls.stream) == "ok"
