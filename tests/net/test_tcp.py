"""A plain socket as a Stream."""
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from pooledhttp._core import runtime
from pooledhttp._net import testing
from pooledhttp._net.stream import Stream
from pooledhttp._net.tcp import TcpStream

from .conftest import Peer, lateness, reset, tcp_pair


class Plain:
    def __init__(self, buffers: int | None = None) -> None:
        ours, self.peer = tcp_pair(buffers=buffers)
        self.stream = TcpStream(ours)
        assert ours.fileno() == -1                    # it changed hands


@pytest.fixture
def plain() -> Iterator[Plain]:
    pair = Plain()
    yield pair
    testing.close(pair.stream)
    pair.peer.close()


def test_bytes_end_and_closing(plain: Plain) -> None:
    testing.send(plain.stream, b"ping")
    assert plain.peer.recv(100) == b"ping"
    plain.peer.sendall(b"pong")
    assert testing.recv(plain.stream, 3, 1.0) == b"pon"
    assert testing.recv(plain.stream, 3, 1.0) == b"g"
    assert testing.try_recv(plain.stream, 3) is None
    plain.peer.close()
    assert testing.recv(plain.stream, 3, 1.0) == b""
    testing.close(plain.stream)
    assert testing.fileno(plain.stream) == -1
    with pytest.raises(OSError):
        testing.recv(plain.stream, 1, 1.0)


def test_probe(plain: Plain) -> None:
    assert testing.probe(plain.stream) == "ok"
    plain.peer.sendall(b"!")
    assert testing.wait(plain.stream, "r", 1.0) == "r"
    assert testing.probe(plain.stream) == "proto"
    assert testing.recv(plain.stream, 1) == b"!"
    reset(plain.peer)
    assert testing.wait(plain.stream, "r", 1.0) == "r"
    assert testing.probe(plain.stream) == "eof"


def test_reset_is_an_error(plain: Plain) -> None:
    reset(plain.peer)
    with pytest.raises(ConnectionResetError):
        testing.recv(plain.stream, 1, 1.0)


@pytest.mark.parametrize(("timeout", "wake"), [(0.3, False), (0.3, True), (3.0, False)])
def test_recv_deadline(plain: Plain, timeout: float, wake: bool) -> None:
    lateness(timeout, lambda: testing.recv(plain.stream, 1, timeout, wake=wake), TimeoutError, rounds=3 if timeout < 1 else 1)


def test_deadlines_that_shrink_and_grow(plain: Plain) -> None:
    # The kernel's own timeout is only set anew where the old one does not fit: each of these must.
    for timeout in (0.2, 0.05, 0.19, 0.1, 0.18):
        lateness(timeout, partial(testing.recv, plain.stream, 1, timeout), TimeoutError, rounds=1)
    timer = threading.Timer(0.1, plain.peer.sendall, (b"x",))
    timer.start()
    assert testing.recv(plain.stream, 1) == b"x"      # for ever, after a short one
    timer.join()


def test_what_has_arrived_is_received_past_the_deadline(plain: Plain) -> None:
    plain.peer.sendall(b"x")
    assert testing.wait(plain.stream, "r", 1.0) == "r"
    assert testing.recv(plain.stream, 1, 0.0) == b"x"
    with pytest.raises(TimeoutError):
        testing.recv(plain.stream, 1, 0.0)


def test_send_deadline() -> None:
    pair = Plain(buffers=4096)
    lateness(0.3, lambda: testing.send(pair.stream, bytes(1 << 20), 0.3), TimeoutError)
    testing.close(pair.stream)
    pair.peer.close()


def test_wake_breaks_a_wait(plain: Plain) -> None:
    handle = runtime.current_wake()
    timer = threading.Timer(0.1, handle.signal)
    timer.start()
    with pytest.raises(testing.Woken):
        testing.recv(plain.stream, 1, 5.0, wake=True)
    timer.join()
    plain.peer.sendall(b"x")
    assert testing.recv(plain.stream, 1, 1.0, wake=True) == b"x"


def test_a_signals_handler_runs_within_a_wait(plain: Plain) -> None:
    def handler(*_: object) -> None:
        plain.peer.sendall(b"from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert testing.recv(plain.stream, 100, 5.0) == b"from the handler"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_ten_mebibytes_each_way() -> None:
    pair = Plain(buffers=8192)
    data = bytes(range(256)) * 4 * 10240

    def echo() -> None:
        left = len(data)
        while left:
            got = pair.peer.recv(65536)
            pair.peer.sendall(got)
            left -= len(got)

    with Peer(echo):
        assert both_ways(pair.stream, data) == data
    testing.close(pair.stream)
    pair.peer.close()


def both_ways(stream: Stream, data: bytes) -> bytes:
    """Send and receive at once, by the try_ calls."""
    view, at, got = memoryview(data), 0, bytearray()
    while len(got) < len(data):
        if at < len(data):
            at += testing.try_send(stream, view[at:]) or 0
        while piece := testing.try_recv(stream, 1 << 16):
            got += piece
        if len(got) < len(data):
            testing.wait(stream, "rw" if at < len(data) else "r", 10.0)
    return bytes(got)
