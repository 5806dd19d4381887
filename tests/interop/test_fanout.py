"""`map` and `as_completed` over real connections, the module's functions, and a forked child."""
from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Client, Request, Timeout, errors
from tests.interop.conftest import Web
from tests.interop.crowd import WORKERS
from tests.support.nginx import Nginx
from tests.support.peer import Conn, Peer, respond
from tests.support.processes import end, read_line, spawn_python
from tests.support.pyserver import PyServer

MakePeer = Callable[..., Peer]


def workers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("pooledhttp-map")]


def ends(what: Callable[[], bool], say: str) -> None:
    until = time.monotonic() + 5
    while not what():
        assert time.monotonic() < until, say
        time.sleep(0.005)


@pytest.mark.parametrize("n", [1, 8, 32])
def test_in_order(web: Web, n: int) -> None:
    urls = [web.url(f"/token?token=t{i}") for i in range(300)]
    assert [r.text for r in web.client.map(urls, workers=n)] == [f"t{i}" for i in range(300)]
    stats = web.adds_up()
    assert stats.requests == 300
    assert stats.opened <= 2 * n
    assert workers() == []


def test_as_they_come(echo: Web) -> None:
    """The slow one comes last, whatever its place; none is lost and none comes twice."""
    requests = [Request("GET", echo.url("/delay/0.4" if i == 0 else "/"), headers={"X-Token": str(i)}) for i in range(40)]
    got = [r.headers["x-token"] for r in echo.client.as_completed(requests, workers=8)]
    assert got[-1] == "0"
    assert sorted(got, key=int) == [str(i) for i in range(40)]
    echo.adds_up()


def test_all_kinds_of_requests(echo: Web) -> None:
    given = [echo.url("/a"), pooledhttp.URL(echo.url("/b")), ("PUT", echo.url("/c")), Request("POST", echo.url("/d"), content=b"body")]
    seen = [(r.json()["method"], r.json()["target"], r.json()["length"]) for r in echo.client.map(given, headers=None)]
    assert seen == [("GET", "/a", 0), ("GET", "/b", 0), ("PUT", "/c", 0), ("POST", "/d", 4)]


def test_large_bodies_of_many(web: Web) -> None:
    total = sum(len(r.content) for r in web.client.map([web.url("/1m")] * 24, workers=6))
    assert total == 24 << 20
    web.adds_up()


def failing(peer: MakePeer) -> Peer:
    """`/N` is answered by N; `/bad` gets what is no HTTP, `/never` nothing."""
    def script(conn: Conn, i: int) -> None:
        while True:
            target = conn.recv_head().split()[1]
            if target == b"/bad":
                conn.send(b"nonsense\r\n\r\n")
                return
            if target == b"/never":
                conn.recv_until_closed()
                return
            conn.send(respond(target[1:]))

    return peer(script)


def test_a_failure_at_its_turn(peer: MakePeer) -> None:
    server = failing(peer)
    with Client(timeout=10, idle_conn_timeout=60) as client:
        got = []
        with pytest.raises(errors.RemoteProtocolError) as caught:
            for r in client.map([server.url(f"/{x}") for x in (0, 1, 2, "bad", 4, 5)], workers=3):
                got.append(r.text)
        assert got == ["0", "1", "2"]
        assert caught.value.request.url == server.url("/bad")
        ends(lambda: client.transport.stats().active == 0, "a connection is still out")
        stats = client.transport.stats()
        assert stats.opened == stats.open + sum(stats.closed.values())
        assert workers() == []


@pytest.mark.parametrize("ordered", [True, False])
def test_failures_as_values(peer: MakePeer, ordered: bool) -> None:
    server = failing(peer)
    names = ["0", "bad", "2", "never", "4", "bad", "6"]
    with Client(timeout=10, idle_conn_timeout=60) as client:
        got = list(client.map([server.url(f"/{x}") for x in names], workers=4, ordered=ordered, return_exceptions=True, timeout=0.3))
        said = [r.text if isinstance(r, pooledhttp.Response) else f"{type(r).__name__} {r.request.url.path}" for r in got]
        wanted = ["0", "RemoteProtocolError /bad", "2", "DeadlineExceeded /never", "4", "RemoteProtocolError /bad", "6"]
        assert said == wanted if ordered else sorted(said) == sorted(wanted)
        stats = client.transport.stats()
        assert (stats.active, stats.closed["timeout"], stats.closed["error"]) == (0, 1, 2)


def test_leaving_early_ends_what_is_in_flight(peer: MakePeer) -> None:
    """Within 50 ms, and without touching what was answered."""
    server = failing(peer)
    with Client(timeout=None, idle_conn_timeout=60) as client:
        late = []
        for _ in range(3):
            for r in client.map(itertools.chain([server.url("/first")], itertools.repeat(server.url("/never"))), workers=6):
                assert r.text == "first"
                before = client.transport.stats().opened
                ends(lambda: client.transport.stats().active >= 5, "nothing is in flight")
                start = time.monotonic()
                break
            # The iterator is collected here: leaving the loop closed it.
            late.append(time.monotonic() - start)
            ends(lambda: client.transport.stats().dialing == 0, "a dial goes on")
            stats = client.transport.stats()
            assert (stats.active, stats.waiting) == (0, 0)
            assert stats.opened == stats.open + sum(stats.closed.values()) >= before
            assert workers() == []
        assert sorted(late)[1] < 0.05, late
        assert client.transport.stats().closed["cancelled"] >= 15
        assert client.get(server.url("/after")).text == "after"


def test_leaving_early_while_others_wait_for_a_connection(peer: MakePeer) -> None:
    server = failing(peer)
    with Client(timeout=None, max_conns_per_host=2) as client:
        for _ in range(3):
            for r in client.map([server.url("/first"), *[server.url("/never")] * 8], workers=8):
                assert r.text == "first"
                ends(lambda: client.transport.stats().waiting == 6, "nobody waits")
                break
            ends(lambda: client.transport.stats().dialing == 0, "a dial goes on")
            stats = client.transport.stats()
            assert (stats.active, stats.waiting) == (0, 0)
            assert workers() == []
        assert client.get(server.url("/after"), timeout=5).text == "after"


def test_closing_the_transport_ends_all(peer: MakePeer) -> None:
    """`close(cancel=True)` from another thread: what is in flight and what waits in the queue is cancelled at once."""
    server = failing(peer)
    with Client(timeout=None, max_conns_per_host=2) as client:
        got: list[Any] = []
        taker = threading.Thread(target=lambda: got.extend(client.map([server.url("/never")] * 8, workers=8, return_exceptions=True)))
        taker.start()
        ends(lambda: client.transport.stats().waiting == 6, "nobody waits")
        start = time.monotonic()
        client.transport.close(cancel=True)
        taker.join()
        took = time.monotonic() - start
        assert [type(e) for e in got] == [errors.Cancelled] * 8
        assert sorted(e.phase for e in got) == ["headers"] * 2 + ["pool"] * 6
        stats = client.transport.stats()
        assert (stats.active, stats.waiting, stats.open, stats.closed["cancelled"]) == (0, 0, 0, 2)
    assert took < 0.2


def test_endless_input_is_taken_as_it_is_used(web: Web) -> None:
    taken = 0

    def urls() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):
            yield web.url(f"/token?token={taken}")

    for n, r in enumerate(web.client.map(urls(), workers=4), 1):
        assert r.text == str(n)
        assert taken <= n + 2 * 4
        if n == 200:
            break
    assert taken <= 208
    ends(lambda: web.client.transport.stats().active == 0, "a connection is still out")
    web.adds_up()
    assert workers() == []


def test_streams(web: Web) -> None:
    """Each is the caller's to close."""
    with web.new(max_conns_per_host=64) as client:
        for r in client.map([web.url("/1m")] * 12, workers=4, stream=True):
            with r:
                assert sum(map(len, r.iter_bytes())) == 1 << 20
        stats = web.adds_up(client)
        assert stats.leaked == 0


def test_an_executor_of_the_callers(web: Web) -> None:
    urls = [web.url(f"/token?token=t{i}") for i in range(100)]
    with ThreadPoolExecutor(8) as executor:
        assert [r.text for r in web.client.map(urls, executor=executor)] == [f"t{i}" for i in range(100)]
        for r in web.client.map(iter(urls), executor=executor):
            assert r.text == "t0"
            break
    web.adds_up()


def test_maps_within_maps_and_beside_them(web: Web) -> None:
    def work(i: int) -> None:
        for r in web.client.map([web.url(f"/token?token={i}.{n}") for n in range(20)], workers=3):
            part = r.text
            inner = web.client.map([web.url(f"/token?token={part}.{m}") for m in range(3)], workers=2)
            assert [x.text for x in inner] == [f"{part}.{m}" for m in range(3)]
            done[i] += 1

    done = [0] * 4
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert done == [20] * 4
    web.adds_up()


def test_limits_hold_for_each(peer: MakePeer) -> None:
    server = failing(peer)
    with Client(timeout=None, max_conns_per_host=1) as client:
        got = list(client.map([server.url("/never")] * 4, workers=4, return_exceptions=True, timeout=Timeout(0.2, pool=0.1)))
        kinds = sorted(type(e).__name__ for e in got)
        assert kinds == ["DeadlineExceeded", "PoolTimeout", "PoolTimeout", "PoolTimeout"]


@pytest.mark.slow
@pytest.mark.parametrize("max_idle", [200, 20])
def test_ten_thousand_over_fifty_hosts(max_idle: int) -> None:
    """An endless input of URLs that never come again. Kept, the bodies alone would be 80 MiB."""
    server = spawn_python("-m", "tests.interop.crowd", "serve", stdin=-1, stdout=-1)
    try:
        assert server.stdout is not None
        port = read_line(server.stdout).decode().strip()
        child = spawn_python("-m", "tests.interop.crowd", "fetch", port, "10000", "50", str(max_idle), stdout=-1)
        out, _ = child.communicate(timeout=50)
    finally:
        end(server)
    assert child.returncode == 0
    saw = json.loads(out)
    assert (saw["wrong"], saw["active"], saw["waiting"], saw["adds_up"]) == (0, 0, 0, True)
    assert saw["ahead"] <= 2 * WORKERS
    assert saw["idle"] <= max_idle + WORKERS                     # each worker may be giving one back
    assert saw["open"] <= max_idle + 2 * WORKERS                 # and may have one in use
    assert saw["hosts"] == 50
    assert saw["risen"] < 8 << 20, saw
    assert saw["seconds"] < 40, saw                              # 2 where nobody else is at work


# --- the module's own ------------------------------------------------------------------------------------------------------------

def test_module_level_functions_share_one_transport(nginx: Nginx) -> None:
    """With each other, with `default_client()`, with every `Client()` that was given none, and among threads."""
    transport = pooledhttp.default_transport()
    transport.close_idle_connections()
    before = transport.stats()
    url = nginx.url("/1k")
    ids = {pooledhttp.get(url).conn.id, pooledhttp.head(url).conn.id, pooledhttp.request("GET", url).conn.id, pooledhttp.options(url).conn.id,
           pooledhttp.default_client().get(url).conn.id, Client().get(url).conn.id}
    with pooledhttp.stream("GET", url) as r:
        assert len(r.read()) == 1024
        ids.add(r.conn.id)
    thread = threading.Thread(target=lambda: ids.add(pooledhttp.get(url).conn.id))
    thread.start()
    thread.join()
    after = transport.stats()
    assert len(ids) == 1
    assert (after.opened - before.opened, after.requests - before.requests) == (1, 8)
    assert pooledhttp.default_client().transport is transport is Client().transport


FORKS = """
import os, sys, threading
import pooledhttp

url, ca = sys.argv[1:]
one = pooledhttp.get(url).conn
mine = pooledhttp.Client(verify=ca)
parent = pooledhttp.default_client()
stop = threading.Event()

def busy():
    while not stop.is_set():
        pooledhttp.get(url)

threads = [threading.Thread(target=busy) for _ in range(4)]
for t in threads: t.start()
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert pooledhttp.default_client() is not parent
            r = pooledhttp.get(url, timeout=10)
            assert r.status_code == 200 and not r.conn.reused and r.conn.id != one.id
            assert pooledhttp.get(url, timeout=10).conn.reused
            assert [x.status_code for x in pooledhttp.default_client().map([url] * 20, workers=4)] == [200] * 20
            s = pooledhttp.default_transport().stats()
            assert s.opened == s.open + sum(s.closed.values()), s
            assert s.closed["forked"] >= 1 and s.active == s.dialing == s.waiting == 0, s
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for t in threads: t.join()
r = pooledhttp.get(url, timeout=10)
s = pooledhttp.default_transport().stats()
assert r.conn.reused and s.closed["error"] == s.closed["server_closed"] == 0, s
print("well")
"""


@pytest.mark.parametrize("server", ["nginx", "pyserver"])
def test_a_forked_child_has_its_own(nginx: Nginx, pyserver: PyServer, ca: Any, server: str) -> None:
    """While other threads of the parent are busy; neither disturbs the other's connections."""
    url = nginx.url("/1k") if server == "nginx" else pyserver.url("/bytes/10")
    child = spawn_python("-W", "error", "-c", FORKS, url, ca.pem, stdout=-1, env={**os.environ, "PYTHONWARNINGS": ""})
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, b"well\n")
