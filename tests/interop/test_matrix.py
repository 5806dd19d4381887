"""One matrix of methods, framings, statuses and endings against every server: by HTTP/1.1, and by HTTP/2 in the clear (prior knowledge) and in TLS (ALPN).

What a server does differently is in `differences`, with the reason.
"""
from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pooledhttp import Client, Trace
from tests.exchange.support import closed, until
from tests.interop.conftest import VERSIONS, Site, sites, untried
from tests.interop.differences import DIFFERENT, EXPECTED, of, reason
from tests.support.ca import Authority
from tests.support.servers.base import FEW
from tests.support.servers.fleet import KINDS, Fleet
from tests.support.servers.routes import SIZES, content

KINDS_OF_BODY = ("bytes", "file", "pieces")
UPLOAD = 4 << 20


BodyOf = Callable[[str, bytes], object]


@pytest.fixture
def body_of(tmp_path: Path) -> Iterator[BodyOf]:
    """`body_of(kind, body)`: bytes, a file, or pieces whose number nobody knows before (chunked)."""
    with ExitStack() as opened:
        def make(kind: str, body: bytes) -> object:
            if kind == "file":
                path = tmp_path / "body"
                path.write_bytes(body)
                return opened.enter_context(path.open("rb"))
            return body if kind == "bytes" else (body[at:at + 70_000] for at in range(0, len(body), 70_000))

        yield make


def test_methods(site: Site) -> None:
    site.needs("/echo")
    for method in site.of("methods"):
        r = site.client.request(method, site.url("/echo?a=b%20c&d"), headers={"X-Token": method})
        seen = r.json()
        assert r.http_version == site.version
        assert (seen["method"], seen["target"], seen["token"], seen["length"]) == (method, "/echo?a=b%20c&d", method, 0)
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
def test_bodies_with_a_length(site: Site, name: str) -> None:
    for _ in range(2):
        r = site.client.get(site.url(f"/{name}"))
        assert (r.status_code, r.http_version, r.headers["content-length"], r.content) == (200, site.version, str(SIZES[name]), content(name))
        with site.client.stream("GET", site.url(f"/{name}")) as s:
            assert b"".join(s.iter_bytes(30_000)) == content(name)
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
def test_chunked_bodies(site: Site, name: str) -> None:
    """And what stands for that in HTTP/2: a body whose length nobody has said."""
    site.needs("/chunked")
    for _ in range(2):
        r = site.client.get(site.url(f"/chunked/{name}"))
        assert r.content == content(name)
        assert r.headers.get("transfer-encoding") == ("chunked" if site.how == "h1" else None) or name in site.of("may know the length")
        assert "content-length" not in r.headers or name in site.of("may know the length")
        with site.client.stream("GET", site.url(f"/chunked/{name}")) as s:
            assert b"".join(s.iter_bytes(1000)) == content(name)
        site.closed_by(r, "chunked")
        site.closed_by(s, "chunked")
    site.opened_once()


@pytest.mark.parametrize("kind", KINDS_OF_BODY)
def test_bodies_sent(site: Site, body_of: BodyOf, kind: str) -> None:
    site.needs("/echo")
    for size in (0, 1, 10_000, 1 << 20):
        body = os.urandom(size)
        seen = site.client.post(site.url("/echo"), content=body_of(kind, body), headers={"X-Token": kind}).json()
        assert (seen["method"], seen["token"], seen["length"], seen["sha256"]) == ("POST", kind, size, hashlib.sha256(body).hexdigest())
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("kind", KINDS_OF_BODY)
def test_a_mebibyte_both_ways(site: Site, body_of: BodyOf, kind: str) -> None:
    body = os.urandom(1 << 20)
    for _ in range(2):
        assert site.client.put(site.url("/mirror"), content=body_of(kind, body)).content == body
    assert site.adds_up().opened == 1


def test_heads(site: Site) -> None:
    for name, size in SIZES.items():
        r = site.client.head(site.url(f"/{name}"))
        assert (r.status_code, r.content, r.headers["content-length"]) == (200, b"", str(size))
        if "/chunked" not in site.of("lacks"):
            r = site.client.head(site.url(f"/chunked/{name}"))
            assert (r.status_code, r.content) == (200, b"")
            site.closed_by(r, "HEAD chunked")
    assert site.client.get(site.url("/1k")).content == content("1k")         # nobody's body was left on the wire
    site.opened_once()


def test_answers_without_a_body(site: Site) -> None:
    site.needs("/204")
    r = site.client.get(site.url("/204"))
    assert (r.status_code, r.content) == (204, b"")
    site.closed_by(r, "204")
    r = site.client.get(site.url("/1k"))
    r = site.client.get(site.url("/1k"), headers={"If-None-Match": r.headers["etag"]})
    assert (r.status_code, r.content) == (304, b"")
    site.closed_by(r, "304")
    assert site.client.get(site.url("/1k")).content == content("1k")
    site.opened_once()


def test_the_server_closes(site: Site) -> None:
    """By HTTP/2 that is a GOAWAY, which the answer may come before or behind."""
    if not site.of("says close"):
        pytest.skip(reason(site.name, "says close", site.how))
    for i in range(3):
        r = site.client.get(site.url("/close/1m"))
        assert (r.headers.get("connection", "").lower(), r.content, r.conn.reused) == ("close" if site.how == "h1" else "", content("1m"), False)
        until(lambda i=i: sum(closed(site.client.transport.stats()).values()) == i + 1, "the connection's end")
    stats = site.adds_up()
    assert (stats.opened, closed(stats)) == (3, {"not_reusable" if site.how == "h1" else "server_closed": 3})


@pytest.mark.parametrize("site", sites("h1", "h2"), indirect=True)
def test_the_client_closes(site: Site) -> None:
    """By HTTP/1.1, which alone is offered in TLS then."""
    if "h1" not in site.server.speaks:
        pytest.skip(f"{site.name} speaks HTTP/2 alone")
    client = site.new(disable_keep_alives=True)
    for _ in range(3):
        r = client.post(site.url("/mirror"), content=b"last")
        assert (r.http_version, r.content, r.conn.reused) == ("HTTP/1.1", b"last", False)
    stats = site.adds_up(client)
    assert (stats.opened, closed(stats)) == (3, {"not_reusable": 3})


def test_an_answer_left_early(site: Site) -> None:
    """HTTP/1.1 reads a small rest away or gives the connection up for it; HTTP/2 ends the stream, and the connection goes on."""
    for _ in range(3):
        with site.client.stream("GET", site.url("/1m")) as r:
            assert r.read(1000) == content("1m")[:1000]
        assert site.client.get(site.url("/1k")).content == content("1k")
    stats = site.adds_up()
    assert (stats.requests, stats.leaked) == (6, 0)
    # Where the janitor looks at what comes of the stream that was left, a request passes the connection over, and dials one that is dropped again.
    assert stats.open == 1 or site.how == "h1", str(stats)
    assert closed(stats).keys() <= ({"drain_limit"} if site.how == "h1" else {"evicted"}), str(stats)


def test_continue(site: Site, body_of: BodyOf) -> None:
    """The body waits for the 100, and for nothing else: without that, the request's own deadline would end it."""
    waits, waits_not = site.new(expect_continue_timeout=1e6), site.new(expect_continue_timeout=0.02)
    for kind in KINDS_OF_BODY:
        client = waits if kind in site.of("continues") else waits_not
        for size in (1, 1 << 20):
            body = os.urandom(size)
            r = client.post(site.url("/mirror"), content=body_of(kind, body), headers={"Expect": "100-continue"})
            assert (r.status_code, r.content) == (200, body)
    assert {site.adds_up(client).opened for client in (waits, waits_not)} <= {0, 1}


def test_a_form_with_a_file(site: Site, body_of: BodyOf) -> None:
    for kind in ("file", "pieces"):
        body = os.urandom(300_000)
        r = site.client.post(site.url("/mirror"), data={"id": 7}, files={"f": ("ü.bin", body_of(kind, body))},
                             headers={"Content-Type": "multipart/mixed; boundary=b"})
        head, _, rest = r.content.partition(b'"; filename="\xc3\xbc.bin"\r\nContent-Type: application/octet-stream\r\n\r\n')
        assert head == b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n7\r\n--b\r\nContent-Disposition: form-data; name="f'
        assert rest == body + b"\r\n--b--\r\n"
    assert site.adds_up().opened == 1


class Interim(Trace):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def got_1xx(self, status: int) -> None:  # type: ignore[override] - a hook may take fewer arguments
        self.seen.append(status)


def test_who_sends_an_interim_answer(site: Site, body_of: BodyOf) -> None:
    """So that the test above is of something: what the server says to a client that waits with its body."""
    for kind in KINDS_OF_BODY:
        heard = Interim()
        client = site.new(trace=heard, expect_continue_timeout=10 if kind in site.of("continues") else 0.1)
        assert client.post(site.url("/mirror"), content=body_of(kind, b"body"), headers={"Expect": "100-continue"}).content == b"body"
        assert set(heard.seen) == ({100} if kind in site.of("continues") else set())


@pytest.mark.parametrize("kind", KINDS_OF_BODY)
def test_an_error_before_the_uploads_end(site: Site, body_of: BodyOf, kind: str) -> None:
    """The answer is had, whatever becomes of the connection, and the next request is well."""
    site.needs("/deny")
    client = site.new(expect_continue_timeout=1.0 if site.of("continues") else 0.02)
    for headers in ({}, {}, {"Expect": "100-continue"}):
        r = client.post(site.url("/deny"), content=body_of(kind, bytes(UPLOAD)), headers=headers)
        assert r.status_code == 403
        assert r.content
        assert client.get(site.url("/1k")).content == content("1k")
    stats = site.adds_up(client)
    assert closed(stats).keys() <= ({"not_reusable", "server_closed"} if site.how == "h1" else site.of("ends with an upload"))
    assert stats.requests == 6


@pytest.mark.parametrize("site", sites("h1", "h2c", "h2", door="few"), indirect=True)
def test_keepalive_requests(site: Site) -> None:
    """By HTTP/2 the last answer has a GOAWAY with it."""
    if not site.of("counts requests"):
        pytest.skip(reason(site.name, "counts requests", site.how))
    for i in range(3 * FEW + 1):
        r = site.client.get(site.url("/1k", "few"))
        assert (r.content, r.conn.requests) == (content("1k"), i % FEW + 1)
    stats = site.adds_up()
    assert (stats.dials, stats.opened, stats.retries, closed(stats)) == (4, 4, 0, {"not_reusable" if site.how == "h1" else "server_closed": 3})


def own(site: Site, client: Client, token: str) -> bool:
    """Whether a request has its own answer."""
    lacks_echo = "/echo" in site.of("lacks")
    r = client.post(site.url("/mirror" if lacks_echo else "/echo"), content=token.encode(), headers={"X-Token": token})
    if lacks_echo:
        return r.text == token
    seen = r.json()
    return (seen["token"], seen["sha256"]) == (token, hashlib.sha256(token.encode()).hexdigest())


def test_reuse(site: Site) -> None:
    """A hundred requests in sequence are one connection. Those of sixteen threads need few more than sixteen, for a dial that was overtaken is kept; by HTTP/2
    one, where it was there before them."""
    for i in range(100):
        assert site.client.get(site.url("/1k")).conn.requests == i + 1
    assert site.adds_up().reuses == 99
    client, threads, each = site.new(), 16, 20
    shared = site.how != "h1"
    if shared:
        client.get(site.url("/1k"))
    wrong: list[object] = []

    def run(i: int) -> None:
        for n in range(each):
            try:
                if not own(site, client, f"{i}x{n}"):
                    wrong.append(f"{i}x{n}")
            except Exception as e:
                wrong.append(e)

    running = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
        assert not thread.is_alive(), "a request hangs"
    assert wrong == []
    stats = site.adds_up(client)
    print(f"{site.name} {site.server.version()}: {stats.requests} requests, {stats.dials} dials, {stats.opened} connections, {stats.reuses} reuses")
    assert stats.requests == threads * each + shared
    if (kept := site.of("keeps")) is None:
        assert stats.opened <= (1 if shared else 2 * threads)
        assert closed(stats) == {}
    else:
        assert stats.open <= kept + threads
        assert closed(stats).keys() == {"not_reusable"}


@pytest.fixture
def brief(ca: Authority, fleet: Fleet) -> Iterator[list[Site]]:
    """All that close what idles for a second, in each way that they do."""
    able = [(name, how) for how in VERSIONS for name, kind in KINDS.items() if how in kind.speaks and "brief" in kind.doors]
    able = [(name, how) for name, how in able if untried(name, how) is None and of(name, "closes what idles", how)]
    servers = fleet.all({name for name, _ in able})
    it = [Site(ca, servers[name], how) for name, how in able]
    yield it
    for site in it:
        site.close()


def test_idle_timeouts(brief: list[Site]) -> None:
    """Every server closes what idles for a second. It is seen before the next request, which is not tried twice."""
    for site in brief:
        assert site.client.get(site.url("/1k", "brief")).content == content("1k")
        assert site.client.get(site.url("/1k", "brief")).conn.reused
    until(lambda: not any(site.client.transport.stats().open for site in brief), "the end of all idle connections", 20)
    for site in brief:
        r = site.client.get(site.url("/1k", "brief"))
        assert (r.http_version, r.content, r.conn.reused) == (site.version, content("1k"), False)
        stats = site.client.transport.stats()
        assert (stats.opened, stats.retries) == (2, 0), (site.name, site.how, str(stats))
        assert closed(stats) in ({"server_closed": 1}, {"idle_timeout": 1}), (site.name, site.how, str(stats))


def test_requests_at_the_moment_of_an_idle_timeout(brief: list[Site]) -> None:
    """Each server gets requests just when it closes, of threads whose pauses are spread around its second: none that may be repeated fails."""
    wrong: list[object] = []

    def run(site: Site, pause: float) -> None:
        token = f"{pause}"
        try:
            for _ in range(4):
                r = site.client.post(site.url("/echo", "brief"), content=token.encode(), headers={"X-Token": token, "Idempotency-Key": token})
                if (r.http_version, r.json()["token"]) != (site.version, token):
                    wrong.append(r.content)
                time.sleep(pause)
        except Exception as e:
            wrong.append((site.name, site.how, e))

    running = [threading.Thread(target=run, args=(site, 0.994 + i / 500)) for site in brief for i in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
        assert not thread.is_alive(), "a request hangs"
    assert wrong == []
    for site in brief:
        stats = site.client.transport.stats()
        print(f"{site.name} by {site.how}: {stats.requests} requests, {stats.opened} connections, {stats.retries} retries, closed: {closed(stats)}")
        assert stats.requests == 4 * 6


def test_every_difference_is_one() -> None:
    for (server, what), (value, why) in DIFFERENT.items():
        name, _, how = server.partition("-")
        assert name in KINDS
        assert how in ("", "http2", *KINDS[name].speaks)
        assert value != EXPECTED[what]
        assert why
