"""The matrix once more, by HTTP/2: methods, bodies both ways, statuses, sharing and reloads against every server that speaks it."""
from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pooledhttp import features
from tests.exchange.support import closed
from tests.interop.conftest import Site
from tests.interop.differences import of
from tests.interop.test_matrix import KINDS_OF_BODY, UPLOAD, BodyOf, body_of  # noqa: F401 - a fixture
from tests.support.ca import Authority
from tests.support.servers.fleet import KINDS, Fleet, missing
from tests.support.servers.routes import SIZES, content

pytestmark = pytest.mark.skipif(not features()["http2"], reason="this build has no libnghttp2")
SPEAKERS = [name for name, kind in KINDS.items() if kind.h2 is not None]


class H2Site(Site):
    """By prior knowledge."""

    def new(self, **options: object) -> object:
        return super().new(**{"http2": "prior-knowledge", **options})

    def at(self, target: str) -> str:
        return self.server.url(target, str(self.server.h2))


@pytest.fixture(params=SPEAKERS)
def h2(request: pytest.FixtureRequest, ca: Authority, fleet: Fleet) -> Iterator[H2Site]:
    if reason := missing(request.param):
        pytest.skip(reason)
    it = H2Site(ca, fleet[request.param])
    yield it
    it.close()


def test_methods(h2: H2Site) -> None:
    for method in of(h2.name, "methods"):
        r = h2.client.request(method, h2.at("/echo?a=b%20c&d"), headers={"X-Token": method})
        seen = r.json()
        assert (r.http_version, seen["method"], seen["target"], seen["token"], seen["length"]) == ("HTTP/2", method, "/echo?a=b%20c&d", method, 0)
    assert h2.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("route", ["", "/chunked"])
def test_bodies(h2: H2Site, route: str, name: str) -> None:
    for _ in range(2):
        assert h2.client.get(h2.at(f"{route}/{name}")).content == content(name)
        with h2.client.stream("GET", h2.at(f"{route}/{name}")) as s:
            assert b"".join(s.iter_bytes(30_000)) == content(name)
    assert h2.adds_up().opened == 1


@pytest.mark.parametrize("kind", KINDS_OF_BODY)
def test_bodies_sent(h2: H2Site, body_of: BodyOf, kind: str) -> None:  # noqa: F811
    for size in (0, 1, 10_000, 1 << 20):
        body = os.urandom(size)
        seen = h2.client.post(h2.at("/echo"), content=body_of(kind, body), headers={"X-Token": kind}).json()
        assert (seen["method"], seen["token"], seen["length"], seen["sha256"]) == ("POST", kind, size, hashlib.sha256(body).hexdigest())
        assert h2.client.put(h2.at("/mirror"), content=body_of(kind, body)).content == body
    assert h2.adds_up().opened == 1


def test_answers_without_a_body(h2: H2Site) -> None:
    for name in SIZES:
        r = h2.client.head(h2.at(f"/{name}"))
        assert (r.status_code, r.content) == (200, b"")
    r = h2.client.get(h2.at("/204"))
    assert (r.status_code, r.content) == (204, b"")
    etag = h2.client.get(h2.at("/1k")).headers["etag"]
    r = h2.client.get(h2.at("/1k"), headers={"If-None-Match": etag})
    assert (r.status_code, r.content) == (304, b"")
    assert h2.client.get(h2.at("/1k")).content == content("1k")
    assert h2.adds_up().opened == 1


def test_an_error_before_the_uploads_end(h2: H2Site, body_of: BodyOf) -> None:  # noqa: F811
    for kind in KINDS_OF_BODY:
        r = h2.client.post(h2.at("/deny"), content=body_of(kind, bytes(UPLOAD)))
        assert r.status_code == 403
        assert h2.client.get(h2.at("/1k")).content == content("1k")


def test_threads_share(h2: H2Site) -> None:
    h2.client.get(h2.at("/1k"))

    def run(i: int) -> None:
        for n in range(20):
            token = f"{i}x{n}"
            seen = h2.client.post(h2.at("/echo"), content=token.encode(), headers={"X-Token": token}).json()
            assert (seen["token"], seen["sha256"]) == (token, hashlib.sha256(token.encode()).hexdigest())
            assert h2.client.get(h2.at("/1k")).content == content("1k")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(16)))
    stats = h2.adds_up()
    assert (stats.requests, stats.opened, closed(stats)) == (641, 1, {})


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_reloads_under_load(ca: Authority, fleet: Fleet, name: str) -> None:
    """Graceful reloads with sixteen threads at work: no request that may be repeated fails, and nobody sees another's answer."""
    if reason := missing(name):
        pytest.skip(reason)
    it = H2Site(ca, KINDS[name](fleet[KINDS[name].before].port["main"]))
    try:
        it.server.ready()
        stop = threading.Event()
        done = [0] * 16

        def run(i: int) -> None:
            while not stop.is_set():
                assert it.client.get(it.at(f"/echo?{i}")).json()["target"] == f"/echo?{i}"
                done[i] += 1

        def settled(at: int) -> bool:
            return all(n > at for n in done)

        reload: Callable[[], None] = getattr(it.server, "reload", lambda: it.server.signal(signal.SIGHUP))
        with ThreadPoolExecutor(16) as pool:
            running = [pool.submit(run, i) for i in range(16)]
            try:
                for _ in range(5):
                    at = max(done)
                    it.server.wait(lambda at=at: settled(at) or any(r.done() for r in running), "requests of every thread")
                    if name == "nginx":
                        os.kill(it.server.pid("nginx.pid"), signal.SIGHUP)
                    else:
                        reload()
            finally:
                stop.set()
            for r in running:
                r.result()
        stats = it.adds_up()
        print(f"{name}: {stats.requests} requests, {stats.opened} connections, {stats.retries} retries, closed: {closed(stats)}")
        assert stats.opened > 1 or name == "nginx"        # whose worker serves a connection on while that is busy
        assert closed(stats).keys() <= {"server_closed", "evicted"}
    finally:
        it.close()
        it.server.close()
