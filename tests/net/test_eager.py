"""Asking again before sleeping: when a receive yields, when it does not, and what it makes of what it finds."""
from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from pooledhttp import Client, Transport
from pooledhttp._net import eager
from tests.support.nginx import Nginx

SLEEP, ASK, REFERENCE = 0, 1, 2          # what `begin` says
PAUSE = 64
MS = 1_000_000


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    eager.reset()
    yield
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
    assert eager.receive(ours.fileno(), 100, 0) == (b"hello", 1)
    assert eager.receive(ours.fileno(), 100, 8) == (None, 6)
    counts = eager.counts()
    assert (counts["tries"], counts["hits"]) == (2, 1)


def test_a_connection_without_luck_pauses(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    credit = 8
    for left in (6, 4, 2, 0, -PAUSE):
        found, credit = eager.receive(ours.fileno(), 100, credit)
        assert (found, credit) == (None, left)
    peer.sendall(b"hello")
    now = trial()
    for _ in range(PAUSE):
        mode, credit = eager.begin(credit, now)
        assert mode == SLEEP
    assert eager.begin(credit, now) == (ASK, 0)
    assert eager.receive(ours.fileno(), 100, credit) == (b"hello", 1)


def test_luck_has_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"hello")
    assert eager.receive(ours.fileno(), 1, 8) == (b"h", 8)


def test_the_peers_end_is_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert eager.receive(ours.fileno(), 100, 0)[0] == b""


def test_an_error_is_reported_by_the_call_that_took_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionResetError):
        eager.receive(ours.fileno(), 100, 0)


def many(mode: int, took: int, at: int, n: int = 20) -> None:
    """`n` receives that are begun at `at`, in the mode expected, and take `took` ns each."""
    for _ in range(n):
        assert eager.begin(8, at) == (mode, 8)
        eager.end(mode, took)


def trial(slept: int = 100_000, at: int = 1 * MS) -> int:
    """A reference from `at` (ns) in which sleeping takes `slept`; the time at which the trial begins."""
    many(REFERENCE, slept, at)
    at += 11 * MS
    assert eager.begin(8, at) == (ASK, 8)
    return at


def test_yields_that_pay_stay_for_a_second() -> None:
    at = trial(slept=100_000)
    many(ASK, 60_000, at)
    at += 11 * MS
    many(ASK, 60_000, at)
    many(ASK, 60_000, at + 900 * MS)
    at += 1001 * MS
    many(REFERENCE, 100_000, at)                      # measured again
    assert eager.begin(8, at + 11 * MS) == (ASK, 8)
    assert eager.counts()["offs"] == 0


def test_yields_that_cost_are_off_for_twice_as_long_each_time() -> None:
    at = 1 * MS
    for off in (250, 500, 1000, 2000, 4000, 8000, 16000, 16000):
        at = trial(slept=100_000, at=at)
        many(ASK, 3 * MS, at)
        at += 11 * MS
        many(SLEEP, 3 * MS, at)
        many(SLEEP, 3 * MS, at + (off - 1) * MS)
        at += off * MS
    assert eager.counts()["offs"] == 8


def test_yields_that_begin_to_cost_are_turned_off() -> None:
    at = trial(slept=100_000)
    many(ASK, 60_000, at)
    at += 11 * MS
    many(ASK, 3 * MS, at)
    assert eager.begin(8, at + 1001 * MS) == (SLEEP, 8)
    assert eager.counts()["offs"] == 1


def test_a_little_longer_is_no_harm() -> None:
    at = trial(slept=100_000)
    many(ASK, 210_000, at)
    assert eager.begin(8, at + 11 * MS) == (ASK, 8)


def test_few_receives_judge_nothing() -> None:
    many(REFERENCE, 100_000, 1 * MS, n=7)
    many(REFERENCE, 100_000, 12 * MS, n=7)            # the reference goes on: seven were too few
    at = 23 * MS
    many(ASK, 3 * MS, at, n=7)
    many(ASK, 3 * MS, at + 11 * MS, n=7)
    assert eager.begin(8, at + 22 * MS) == (SLEEP, 8)


def test_an_idle_connection_counts_as_rarely_as_it_yields() -> None:
    assert eager.begin(0, 1 * MS) == (REFERENCE, -PAUSE)
    assert eager.begin(-PAUSE, 1 * MS) == (SLEEP, -PAUSE + 1)


def test_who_waits_is_counted_and_forgotten(nginx: Nginx) -> None:
    """16 threads: each answer its own (elsewhere shown), none is counted as waiting afterwards, and some yielded."""
    with Transport() as transport:
        client = Client(transport=transport)
        start = threading.Barrier(16)

        def run() -> None:
            start.wait(10)
            until = time.monotonic() + 10
            while not eager.counts()["tries"] and time.monotonic() < until:
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
