"""A signal's handler that makes a request while the request it broke into waits: neither takes the other's wake-up."""
from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client
from tests.exchange.support import until
from tests.support.peer import Conn, Peer, respond

MakeClient = Callable[..., Client]
SOON = 5.0           # seconds: far below every limit, far above what it takes


def _hello(conn: Conn, _: int) -> None:
    while True:
        conn.recv_head()
        conn.send(respond(b"hello"))


@pytest.fixture
def handler() -> Iterator[Callable[[Callable[[], None]], None]]:
    """`handler(f)`: SIGUSR1 calls f."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda f: signal.signal(signal.SIGUSR1, lambda *_: f())  # type: ignore[func-returns-value]
    signal.signal(signal.SIGUSR1, before)


def _ring_when(true: Callable[[], Any]) -> threading.Thread:
    def ring() -> None:
        until(true, "the main thread's waiting")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    thread = threading.Thread(target=ring)
    thread.start()
    return thread


def test_while_waiting_for_a_turn(peer: Callable[..., Peer], new_client: MakeClient, handler: Any) -> None:
    server = peer(_hello)
    client, other = new_client(max_conns_per_host=1, timeout=None), new_client()
    held = client.get(server.url("/"), stream=True)

    def inner() -> None:
        giver = threading.Thread(target=held.read)          # granted now, and the waiter's wake descriptor written
        giver.start()
        giver.join()
        until(lambda: client.transport.stats().waiting == 0)
        assert other.get(server.url("/")).content == b"hello"

    handler(inner)
    bell = _ring_when(lambda: client.transport.stats().waiting == 1)
    began = time.monotonic()
    assert client.get(server.url("/")).content == b"hello"
    assert time.monotonic() - began < SOON
    bell.join()


@pytest.mark.timeout(20)
def test_while_waiting_for_a_name(peer: Callable[..., Peer], new_client: MakeClient, handler: Any) -> None:
    server = peer(_hello)
    asked, go, done = threading.Event(), threading.Event(), threading.Event()

    def resolver(host: str, port: int) -> Iterator[tuple[int, Any]]:
        asked.set()
        assert go.wait(10)
        yield 2, ("127.0.0.1", port)

    client, other = new_client(resolver=resolver, timeout=10.0), new_client()

    def inner() -> None:
        go.set()
        until(lambda: not client.transport._resolver._flying, "the answer")
        assert other.get(server.url("/").replace("127.0.0.1", "localhost")).content == b"hello"
        done.set()

    handler(inner)
    bell = _ring_when(asked.is_set)
    began = time.monotonic()
    assert client.get(server.url("/").replace("127.0.0.1", "name.test")).content == b"hello"
    assert time.monotonic() - began < SOON
    assert done.is_set()
    bell.join()
