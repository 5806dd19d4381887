"""What the matrix asks of HTTP/2 alone: reloads with all requests on one connection, and libnghttp2's own server with what only it can be told to do."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.exchange.support import closed
from tests.interop.conftest import Site, sites, untried
from tests.interop.differences import of, reason
from tests.support.ca import Authority
from tests.support.servers.fleet import KINDS, Fleet
from tests.support.servers.nghttpd import NARROW, TRAILER
from tests.support.servers.routes import SIZES, content

NGHTTPD = [one for one in sites("h2c", "h2") if one.values[0][0] == "nghttpd"]
THREADS = 16


@pytest.mark.parametrize("site", NGHTTPD, indirect=True)
def test_trailers(site: Site) -> None:
    for name in SIZES:
        assert dict(site.client.get(site.url(f"/{name}")).trailers) == dict([TRAILER])
        assert dict(site.client.post(site.url("/mirror"), content=content(name)).trailers) == dict([TRAILER])
        with site.client.stream("GET", site.url(f"/{name}")) as s:
            assert b"".join(s.iter_bytes(30_000)) == content(name)
        assert dict(s.trailers) == dict([TRAILER])
        assert not site.client.head(site.url(f"/{name}")).trailers
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("site", NGHTTPD, indirect=True)
def test_statuses(site: Site) -> None:
    r = site.client.get(site.url("/absent"))
    assert (r.http_version, r.status_code, r.headers["content-length"]) == ("HTTP/2", 404, str(len(r.content)))
    since = site.client.get(site.url("/1k")).headers["last-modified"]
    r = site.client.get(site.url("/1k"), headers={"If-Modified-Since": since})
    assert (r.status_code, r.content) == (304, b"")
    assert site.client.get(site.url("/1k")).content == content("1k")
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("site", NGHTTPD, indirect=True)
@pytest.mark.parametrize("conns", [1, 2])
def test_no_more_streams_than_the_server_takes(site: Site, conns: int) -> None:
    """One stream more would be refused, and the request sent again."""
    client = site.new(http2_max_conns_per_host=conns)
    assert client.get(site.url("/1k", "narrow")).content == content("1k")

    def run(i: int) -> None:
        for n in range(5):
            r = client.get(site.url("/1m", "narrow"))
            assert (r.content, "content-length" in r.headers, dict(r.trailers)) == (content("1m"), False, dict([TRAILER]))
            body = f"{i}x{n}".encode() * 10_000
            assert client.post(site.url("/mirror", "narrow"), content=body).content == body

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    stats = site.adds_up(client)
    assert (stats.requests, stats.retries) == (1 + THREADS * 10, 0)
    assert stats.open <= conns
    assert closed(stats).keys() <= ({"evicted"} if conns > 1 else set())         # a dial that came when there was room again
    assert stats.waits > 0, f"{THREADS} threads never wanted more than {conns * NARROW} streams"


@pytest.fixture
def reloaded(request: pytest.FixtureRequest, ca: Authority, fleet: Fleet) -> Iterator[Site]:
    """A server of one's own."""
    name, how = request.param
    if why := untried(name, how):
        pytest.skip(why)
    if not of(name, "reloads", how):
        pytest.skip(reason(name, "reloads", how))
    server = fleet.another(name, KINDS[name].door(how))
    try:
        it = Site(ca, server, how)
        yield it
        it.close()
    finally:
        server.close()


@pytest.mark.parametrize("reloaded", sites("h2c", "h2"), indirect=True)
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
