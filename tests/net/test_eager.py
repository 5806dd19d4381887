"""Asking again before sleeping: when a receive yields, when it does not, and what it makes of what it finds."""
from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from pooledhttp import Client, Transport
from pooledhttp._net import eager
from tests.support.nginx import Nginx

MANY = 4                # threads that wait at once, from which a receive yields
PAUSE = 64


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    eager.reset()
    usual = eager.call_long(10**12)           # a busy machine's yields are long; here that is said where it is wanted
    yield
    eager.call_long(usual)
    eager.reset()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        peer, _ = listener.accept()
        with peer:
            yield ours, peer


def test_bytes_that_are_there_are_taken_without_sleep(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"hello")
    assert eager.receive(ours.fileno(), 100, MANY, 0) == (b"hello", 1)
    assert eager.counts() == {"tries": 1, "hits": 1, "offs": 0, "waiting": 0}


def test_few_threads_never_yield(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"hello")
    assert eager.receive(ours.fileno(), 100, MANY - 1, 5) == (None, 5)
    assert eager.counts()["tries"] == 0


def test_a_connection_without_luck_pauses(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    credit = 8
    for left in (6, 4, 2, 0, -PAUSE):
        assert eager.receive(ours.fileno(), 100, MANY, credit) == (None, left)
        credit = left
    peer.sendall(b"hello")
    for _ in range(PAUSE):
        found, credit = eager.receive(ours.fileno(), 100, MANY, credit)
        assert found is None
    assert credit == 0
    assert eager.counts()["tries"] == 5
    assert eager.receive(ours.fileno(), 100, MANY, credit) == (b"hello", 1)


def test_luck_has_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"hello")
    assert eager.receive(ours.fileno(), 1, MANY, 8) == (b"h", 8)


def test_the_peers_end_is_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert eager.receive(ours.fileno(), 100, MANY, 0)[0] == b""


def test_an_error_is_reported_by_the_call_that_took_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError):
        eager.receive(ours.fileno(), 100, MANY, 0)


def test_a_long_yield_turns_it_off_for_all(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"hello")
    eager.call_long(-1)
    assert eager.receive(ours.fileno(), 1, MANY, 3) == (b"h", 3)       # what it found is taken all the same
    assert eager.receive(ours.fileno(), 1, MANY, 3) == (None, 3)       # off: not even looked at
    assert eager.counts() == {"tries": 1, "hits": 0, "offs": 1, "waiting": 0}


def test_who_waits_is_counted_and_forgotten(nginx: Nginx) -> None:
    """16 threads: each answer its own (elsewhere shown), none is counted as waiting afterwards, and some yielded."""
    with Transport() as transport:
        client = Client(transport=transport)
        start = threading.Barrier(16)

        def run() -> None:
            start.wait(10)
            for _ in range(50):
                client.get(nginx.url("/1k")).raise_for_status()

        threads = [threading.Thread(target=run) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(30)
        assert not any(t.is_alive() for t in threads)
    counts = eager.counts()
    assert counts["waiting"] == 0
    assert counts["tries"] > 0
