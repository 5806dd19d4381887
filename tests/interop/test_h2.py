"""What the matrix asks of HTTP/2 alone: reloads with all requests on one connection."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.exchange.support import closed
from tests.interop.conftest import Site, sites, untried
from tests.support.ca import Authority
from tests.support.servers.fleet import KINDS, Fleet

RELOADED = [one for one in sites("h2c", "h2") if one.values[0][0] in ("nginx", "haproxy")]
THREADS = 16


@pytest.fixture
def reloaded(request: pytest.FixtureRequest, ca: Authority, fleet: Fleet) -> Iterator[Site]:
    """A server of one's own."""
    name, how = request.param
    if why := untried(name, how):
        pytest.skip(why)
    server = fleet.another(name, KINDS[name].door(how))
    try:
        it = Site(ca, server, how)
        yield it
        it.close()
    finally:
        server.close()


@pytest.mark.parametrize("reloaded", RELOADED, indirect=True)
def test_reloads_under_load(reloaded: Site) -> None:
    """Graceful reloads with sixteen threads at work: no request that may be repeated fails, and nobody sees another's answer."""
    site = reloaded
    site.client.get(site.url("/1k"))         # so that all share its connection
    stop = threading.Event()
    done = [0] * THREADS

    def run(i: int) -> None:
        while not stop.is_set():
            assert site.client.get(site.url(f"/echo?{i}x{done[i]}")).json()["target"] == f"/echo?{i}x{done[i]}"
            done[i] += 1

    def settled(at: list[int]) -> bool:
        return all(now > then + 1 for now, then in zip(done, at, strict=True)) or any(r.done() for r in running)

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(run, i) for i in range(THREADS)]
        try:
            for _ in range(site.of("reloads")):
                at = list(done)
                site.server.wait(lambda at=at: settled(at), "requests of every thread")
                site.server.reload()
            at = list(done)
            site.server.wait(lambda: settled(at), "requests of every thread")
        finally:
            stop.set()
        for r in running:
            r.result()
    stats = site.adds_up()
    print(f"{site.name} by {site.how}: {stats.requests} requests, {stats.opened} connections, {stats.retries} retries, closed: {closed(stats)}")
    assert stats.opened > site.of("reloads") or not site.of("moves on")
    assert closed(stats).keys() <= {"server_closed", "evicted"}
