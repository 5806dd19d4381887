"""Sixteen threads on one client: every answer is its own request's."""
from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, Transport
from tests.interop.conftest import Web
from tests.support.nginx import SIZES, Nginx, content
from tests.support.peer import Conn, Peer, respond
from tests.support.pyserver import pattern

THREADS = 16
pytestmark = pytest.mark.timeout(120)


def at_once(work: Callable[[int], Any], threads: int = THREADS) -> None:
    """`work(i)` in each thread, all starting together; the first failure is raised."""
    barrier = threading.Barrier(threads)
    failures: list[BaseException] = []

    def run(i: int) -> None:
        barrier.wait()
        try:
            work(i)
        except BaseException as e:  # noqa: B036 - raised below
            failures.append(e)

    crew = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for t in crew:
        t.start()
    for t in crew:
        t.join()
    if failures:
        raise failures[0]


def tokens(client: Client, url: Callable[[str], str], times: int) -> Callable[[int], None]:
    def work(i: int) -> None:
        for n in range(times):
            token = f"{i}x{n}"
            r = client.get(url(f"/token?token={token}"))
            assert (r.status_code, r.text) == (200, token)

    return work


@pytest.mark.parametrize("limit", [0, 4, 1])
def test_tokens(web: Web, limit: int) -> None:
    client = web.new(max_conns_per_host=limit)
    at_once(tokens(client, web.url, 200))
    stats = web.adds_up(client)
    assert stats.requests == THREADS * 200
    assert (stats.retries, sum(stats.closed.values())) == (0, 0)
    if limit:
        assert stats.opened <= limit
        assert stats.waits > 0
    else:
        # A dial that lost its race against a connection given back is pooled as well.
        assert stats.opened <= 2 * THREADS


@pytest.mark.parametrize("limit", [0, 4, 1])
def test_connections_that_die_all_the_time(nginx: Nginx, limit: int) -> None:
    """Each is closed after five requests: nobody notices."""
    with Client(timeout=30, max_conns_per_host=limit) as client:
        at_once(tokens(client, lambda target: nginx.url(target, "few"), 100))
        stats = client.transport.stats()
    assert stats.opened >= THREADS * 100 // 5
    assert stats.closed["not_reusable"] >= THREADS * 100 // 5 - THREADS
    assert stats.closed["error"] == 0
    assert stats.opened == stats.open + sum(stats.closed.values())


@pytest.mark.parametrize("limit", [0, 4])
def test_bodies_of_all_sizes(web: Web, limit: int) -> None:
    """Whole, streamed, chunked, and closed early, on the same connections."""
    client = web.new(max_conns_per_host=limit)

    def work(i: int) -> None:
        dice = random.Random(i)
        for _ in range(25):
            name = dice.choice(list(SIZES))
            url = web.url(dice.choice(("/", "/chunked/")) + name)
            how = dice.randrange(4)
            if how == 0:
                assert client.get(url).content == content(name)
            elif how == 1:
                with client.stream("GET", url) as r:
                    assert b"".join(r.iter_bytes(dice.randrange(1, 200_000))) == content(name)
            elif how == 2:
                with client.stream("GET", url) as r:
                    assert r.read(500) == content(name)[:500]
            else:
                assert client.head(url).content == b""

    at_once(work)
    stats = web.adds_up(client)
    assert stats.leaked == 0
    if limit:
        assert stats.opened - sum(stats.closed.values()) <= limit


@pytest.mark.parametrize("limit", [0, 4])
def test_echoes(echo: Web, limit: int) -> None:
    """Each sends a body of its own, and hears of exactly that."""
    client = echo.new(max_conns_per_host=limit)

    def pieces(body: bytes, size: int) -> Iterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at:at + size]

    def work(i: int) -> None:
        dice = random.Random(i)
        for n in range(25):
            token = f"{i}.{n}"
            body = dice.randbytes(dice.choice((0, 1, 100, 5_000, 9_000, 70_000, 300_000)))
            given = body if dice.random() < 0.6 else pieces(body, dice.randrange(1, 100_000) if len(body) < 5000 else 40_000)
            seen = client.post(echo.url(f"/{token}?q={token}"), content=given, headers={"X-Token": token})
            assert seen.headers["x-token"] == token
            said = seen.json()
            assert (said["token"], said["target"], said["method"]) == (token, f"/{token}?q={token}", "POST")
            assert (said["length"], said["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
            assert said["served"] == seen.conn.requests
            size = dice.randrange(1, 100_000)
            r = client.get(echo.url(f"/{dice.choice(('bytes', 'chunked'))}/{size}"), headers={"X-Token": f"{token}!"})
            assert (r.headers["x-token"], r.content) == (f"{token}!", pattern(size))

    at_once(work)
    stats = echo.adds_up(client)
    assert stats.requests == THREADS * 50
    assert (stats.retries, sum(stats.closed.values())) == (0, 0)


def test_two_hosts_and_a_bound_on_what_idles(nginx: Nginx) -> None:
    """Threads go from host to host: a connection is never used for another, and what idles stays bounded."""
    with Transport(max_idle_conns=4, max_idle_conns_per_host=3) as transport, Client(transport=transport, timeout=30) as client:
        servers = ("plain", "few", "brief")

        def work(i: int) -> None:
            for n in range(60):
                server = servers[(i + n) % 3]
                r = client.get(nginx.url(f"/token?token={i}x{n}", server))
                assert r.text == f"{i}x{n}"
                assert r.conn.remote_addr == ("127.0.0.1", nginx.port[server])

        at_once(work)
        stats = transport.stats()
        assert stats.idle <= 4
        assert all(host.idle <= 3 for host in stats.hosts.values())
        assert stats.closed["evicted"] > 0
        assert stats.opened == stats.open + sum(stats.closed.values())


def test_close_idle_connections_meanwhile(web: Web) -> None:
    """Nobody in flight is disturbed."""
    client = web.new()
    done = threading.Event()

    def closer() -> None:
        while not done.wait(0.002):
            client.transport.close_idle_connections()

    thread = threading.Thread(target=closer)
    thread.start()
    try:
        at_once(tokens(client, web.url, 30))
    finally:
        done.set()
        thread.join()
    stats = web.adds_up(client)
    assert stats.closed["shutdown"] > 0
    assert stats.closed["error"] == 0


@pytest.mark.parametrize("limit", [0, 4])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_that_die_unannounced(peer: Callable[..., Peer], ca: Any, tls: bool, limit: int) -> None:
    """The server closes after three answers without a word. GETs are tried again, until one try ran on a fresh connection."""
    def script(conn: Conn, i: int) -> None:
        for _ in range(3):
            head = conn.recv_head()
            conn.send(respond(head.split()[1]))

    server = peer(script, tls=ca.server() if tls else None)
    with Client(verify=str(ca.pem), timeout=30, max_conns_per_host=limit) as client:

        def work(i: int) -> None:
            for n in range(20):
                assert client.get(server.url(f"/{i}x{n}")).text == f"/{i}x{n}"

        at_once(work)
        stats = client.transport.stats()
    assert stats.requests == THREADS * 20
    assert stats.opened >= THREADS * 20 // 3
    assert stats.closed["server_closed"] >= stats.opened - stats.open
    assert stats.opened == stats.open + sum(stats.closed.values())
