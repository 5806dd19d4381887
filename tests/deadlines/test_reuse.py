"""Deadlines and what outlives a request: the socket's own limits, the queue, a stale connection's second try."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, Timeout, Transport, errors
from tests.support.peer import Conn, Peer, respond

LATE = 0.05
MakePeer = Callable[..., Peer]


def pausing(conn: Conn, i: int) -> None:
    """`/0.5` is answered after half a second, `/never` not at all."""
    while True:
        head, _ = conn.recv_request()
        target = head.split()[1]
        if target == b"/never":
            conn.recv_until_closed()
            return
        time.sleep(float(target[1:]))
        conn.send(respond(b"after all"))


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def pair(request: pytest.FixtureRequest, peer: MakePeer, ca: Any) -> Iterator[tuple[Client, Peer]]:
    server = peer(pausing, tls=ca.server() if request.param else None)
    with Client(verify=str(ca.pem), timeout=None) as client:
        yield client, server


def timed(call: Callable[[], Any], error: type[Exception]) -> float:
    start = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - start


@pytest.mark.parametrize("before", [60, None], ids=repr)
def test_an_earlier_limit_does_not_lengthen_a_later_one(pair: tuple[Client, Peer], before: Any) -> None:
    client, server = pair
    late = []
    for _ in range(3):
        assert client.get(server.url("/0"), timeout=before).content == b"after all"
        opened = client.transport.stats().opened
        took = timed(lambda: client.get(server.url("/never"), timeout=0.3), errors.DeadlineExceeded)
        assert client.transport.stats().opened == opened
        assert took >= 0.3
        late.append(took - 0.3)
    assert sorted(late)[1] < LATE


@pytest.mark.parametrize("after", [None, (60, 60)], ids=repr)
def test_an_earlier_limit_does_not_shorten_a_later_one(pair: tuple[Client, Peer], after: Any) -> None:
    client, server = pair
    for limit in (0.3, 0.1, 0.3):
        assert client.get(server.url("/0"), timeout=limit).content == b"after all"
    r = client.get(server.url("/0.8"), timeout=after)
    assert r.content == b"after all"
    assert r.conn.reused
    assert client.transport.stats().opened == 1


def test_limits_in_turn_on_one_connection(pair: tuple[Client, Peer]) -> None:
    client, server = pair
    for limit in (60, 0.5, 0.25, 5, None, 0.3, 600, (1, 0.2), 0.2):
        assert client.get(server.url("/0.05"), timeout=limit).content == b"after all"
    assert client.transport.stats().opened == 1
    took = timed(lambda: client.get(server.url("/never"), timeout=(1, 0.2)), errors.ReadTimeout)
    assert 0.2 <= took < 0.3


@pytest.mark.parametrize("limit", ["total", "client-total"])
def test_total_counts_on_over_a_stale_retry(peer: MakePeer, limit: str) -> None:
    """The reused connection dies after 0.2 s; its second try has what is left, and not as much again."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        if i % 2 == 0:
            conn.send(respond(b"warm"))
            conn.recv_request()
            time.sleep(0.2)
            return                      # closes without an answer
        conn.recv_until_closed()

    server = peer(script)
    late = []
    for _ in range(3):
        with Client(timeout=0.3 if limit == "client-total" else None, retry_stale=True) as client:
            assert client.get(server.url(), timeout=5).content == b"warm"
            start = time.monotonic()
            with pytest.raises(errors.DeadlineExceeded) as caught:
                client.get(server.url(), **({"timeout": 0.3} if limit == "total" else {}))
            late.append(time.monotonic() - start - 0.3)
            assert caught.value.source == ("request" if limit == "total" else "client")
            assert caught.value.phase == "headers"
            stats = client.transport.stats()
            assert (stats.retries, stats.closed["server_closed"], stats.closed["timeout"], stats.opened) == (1, 1, 1, 2)
    assert min(late) >= 0
    assert sorted(late)[1] < LATE


# --- the queue -----------------------------------------------------------------------------------------------------------------

class Holding:
    """A server that answers when told, and a client that may open one connection."""

    def __init__(self, peer: MakePeer) -> None:
        self.go = threading.Semaphore(0)
        self.order: list[bytes] = []
        self.server = peer(self._script)
        self.client = Client(timeout=None, max_conns_per_host=1)
        self.ended: dict[str, Any] = {}
        self.threads: list[threading.Thread] = []

    def _script(self, conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            target = head.split()[1]
            self.order.append(target)
            if target == b"/dies" and self.order.count(target) == 1:
                return
            if not self.go.acquire(timeout=10):
                raise AssertionError("nobody says go")
            conn.send(respond(b"x"))

    def start(self, name: str, timeout: Any = None) -> None:
        def work() -> None:
            start = time.monotonic()
            try:
                self.ended[name] = self.client.get(self.server.url(f"/{name}"), timeout=timeout).content
            except Exception as e:
                e.took = time.monotonic() - start  # type: ignore[attr-defined]
                self.ended[name] = e

        waiting = self.client.transport.stats().waiting
        thread = threading.Thread(target=work)
        self.threads.append(thread)
        thread.start()
        if not name.startswith("holder"):
            self.until(lambda s: s.waiting == waiting + 1)
        else:
            self.server.wait_for(lambda p: self.order, "the holder's request")

    def until(self, what: Callable[[Any], bool]) -> None:
        end = time.monotonic() + 10
        while not what(self.client.transport.stats()):
            assert time.monotonic() < end, self.client.transport.stats()
            time.sleep(0.002)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("limit", [Timeout(None, pool=0.2), Timeout(0.2)], ids=["pool", "total"])
def test_who_leaves_the_queue_leaves_its_order(peer: MakePeer, limit: Timeout) -> None:
    h = Holding(peer)
    with h.client as client:
        h.start("holder")
        for name in ("a", "b!", "c", "d!", "e!", "f"):
            h.start(name, limit if name.endswith("!") else None)
        h.until(lambda s: s.waiting == 3)
        for _ in range(4):
            h.go.release()
        h.join()
        stats = client.transport.stats()
    assert h.order == [b"/holder", b"/a", b"/c", b"/f"]
    for name, end in h.ended.items():
        if name.endswith("!"):
            assert type(end) is (errors.PoolTimeout if limit.pool else errors.DeadlineExceeded)
            assert end.phase == "pool"
            assert 0.2 <= end.took < 0.3
            assert "GET http://" in str(end) and "/holder" in str(end)       # who has it
        else:
            assert end == b"x"
    assert (stats.opened, stats.waits, stats.requests, stats.idle, stats.active, stats.waiting) == (1, 6, 7, 1, 0, 0)
    assert sum(stats.closed.values()) == 0
    assert stats.wait_seconds > 3 * 0.2


def test_a_pool_timeout_names_who_holds_without_secrets(peer: MakePeer) -> None:
    h = Holding(peer)
    with h.client as client:
        h.start("holder?token=secret")
        with pytest.raises(errors.PoolTimeout) as caught:
            client.get(h.server.url("/w?token=secret"), timeout=Timeout(pool=0.1))
        assert "/holder " in str(caught.value)
        assert "secret" not in str(caught.value)
        h.go.release()
        h.join()


def test_a_deadline_closes_only_its_own_connection(peer: MakePeer) -> None:
    """Two in flight on one host: one is ended by its limit, the other is answered, and its connection serves on."""
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            if head.startswith(b"GET /never"):
                conn.recv_until_closed()
                return
            if head.startswith(b"GET /later"):
                go.wait(10)
            conn.send(respond(head.split()[1]))

    server = peer(script)
    with Transport() as transport, Client(transport=transport, timeout=10) as client:
        answers: list[Any] = []
        other = threading.Thread(target=lambda: answers.append(client.get(server.url("/later"))))
        other.start()
        server.wait_for(lambda p: p.accepted and p.conns[0].received, "the other's request")
        with pytest.raises(errors.DeadlineExceeded):
            client.get(server.url("/never"), timeout=0.1)
        go.set()
        other.join()
        assert answers[0].content == b"/later"
        r = client.get(server.url("/again"))
        assert (r.content, r.conn.reused, r.conn.id) == (b"/again", True, answers[0].conn.id)
        stats = transport.stats()
        assert (stats.opened, stats.open, stats.idle, stats.closed["timeout"]) == (2, 1, 1, 1)
        server.wait_closed(1)


def test_who_got_a_stale_connection_keeps_the_turn(peer: MakePeer) -> None:
    """First come, first served: the connection that was handed over dies, and its place goes to the same request, not to the next."""
    h = Holding(peer)
    with h.client as client:
        h.start("holder")
        names = ["dies", "b", "c", "d"]
        for name in names:
            h.start(name)
        for _ in range(1 + len(names)):
            h.go.release()
        h.join()
        stats = client.transport.stats()
    assert h.order == [b"/holder", b"/dies", b"/dies", b"/b", b"/c", b"/d"]
    assert [h.ended[name] for name in names] == [b"x"] * 4
    assert (stats.retries, stats.closed["server_closed"], stats.waiting, stats.active, stats.dialing) == (1, 1, 0, 0, 0)
    assert stats.opened == stats.open + sum(stats.closed.values()) == 2
    assert stats.dials == 2
