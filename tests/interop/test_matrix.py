"""One matrix of methods, framings, statuses and endings against every server. What a server does differently is in `differences`, with the reason."""
from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pooledhttp import Client, Transport
from tests.exchange.support import closed, until
from tests.interop.conftest import Site
from tests.interop.differences import DIFFERENT, EXPECTED, of
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
    for method in of(site.name, "methods"):
        seen = site.client.request(method, site.url("/echo?a=b%20c&d"), headers={"X-Token": method}).json()
        assert (seen["method"], seen["target"], seen["token"], seen["length"]) == (method, "/echo?a=b%20c&d", method, 0)
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
def test_bodies_with_a_length(site: Site, name: str) -> None:
    for _ in range(2):
        r = site.client.get(site.url(f"/{name}"))
        assert (r.status_code, r.http_version, r.headers["content-length"], r.content) == (200, "HTTP/1.1", str(SIZES[name]), content(name))
        with site.client.stream("GET", site.url(f"/{name}")) as s:
            assert b"".join(s.iter_bytes(30_000)) == content(name)
    assert site.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
def test_chunked_bodies(site: Site, name: str) -> None:
    for _ in range(2):
        r = site.client.get(site.url(f"/chunked/{name}"))
        assert r.content == content(name)
        assert r.headers.get("transfer-encoding") == "chunked" or name in of(site.name, "may know the length")
        with site.client.stream("GET", site.url(f"/chunked/{name}")) as s:
            assert b"".join(s.iter_bytes(1000)) == content(name)
        site.closed_by(r, "chunked")
        site.closed_by(s, "chunked")
    site.opened_once()


@pytest.mark.parametrize("kind", KINDS_OF_BODY)
def test_bodies_sent(site: Site, body_of: BodyOf, kind: str) -> None:
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


def test_answers_without_a_body(site: Site) -> None:
    for name, size in SIZES.items():
        r = site.client.head(site.url(f"/{name}"))
        assert (r.status_code, r.content, r.headers["content-length"]) == (200, b"", str(size))
        r = site.client.head(site.url(f"/chunked/{name}"))
        assert (r.status_code, r.content) == (200, b"")
        site.closed_by(r, "HEAD chunked")
    r = site.client.get(site.url("/204"))
    assert (r.status_code, r.content) == (204, b"")
    site.closed_by(r, "204")
    r = site.client.get(site.url("/1k"))
    r = site.client.get(site.url("/1k"), headers={"If-None-Match": r.headers["etag"]})
    assert (r.status_code, r.content) == (304, b"")
    site.closed_by(r, "304")
    assert site.client.get(site.url("/1k")).content == content("1k")         # nobody's body was left on the wire
    site.opened_once()


def test_the_server_closes(site: Site) -> None:
    if not of(site.name, "says close"):
        pytest.skip(DIFFERENT[site.name, "says close"][1])
    for _ in range(3):
        r = site.client.get(site.url("/close/1m"))
        assert (r.headers["connection"].lower(), r.content, r.conn.reused) == ("close", content("1m"), False)
    stats = site.adds_up()
    assert (stats.opened, closed(stats)) == (3, {"not_reusable": 3})


def test_the_client_closes(site: Site) -> None:
    client = site.new(disable_keep_alives=True)
    for _ in range(3):
        r = client.post(site.url("/mirror"), content=b"last")
        assert (r.content, r.conn.reused) == (b"last", False)
    stats = site.adds_up(client)
    assert (stats.opened, closed(stats)) == (3, {"not_reusable": 3})


def test_continue(site: Site, body_of: BodyOf) -> None:
    """The body waits for the 100, and for nothing else: without that, the request's own deadline would end it."""
    client = site.new(expect_continue_timeout=1e6) if of(site.name, "continues") else site.client
    for kind in KINDS_OF_BODY:
        for size in (1, 1 << 20):
            body = os.urandom(size)
            r = client.post(site.url("/mirror"), content=body_of(kind, body), headers={"Expect": "100-continue"})
            assert (r.status_code, r.content) == (200, body)
    assert site.adds_up(client).opened == 1


def test_a_form_with_a_file(site: Site, body_of: BodyOf) -> None:
    for kind in ("file", "pieces"):
        body = os.urandom(300_000)
        r = site.client.post(site.url("/mirror"), data={"id": 7}, files={"f": ("ü.bin", body_of(kind, body))},
                             headers={"Content-Type": "multipart/mixed; boundary=b"})
        head, _, rest = r.content.partition(b'"; filename="\xc3\xbc.bin"\r\nContent-Type: application/octet-stream\r\n\r\n')
        assert head == b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n7\r\n--b\r\nContent-Disposition: form-data; name="f'
        assert rest == body + b"\r\n--b--\r\n"
    assert site.adds_up().opened == 1


def test_who_sends_an_interim_answer(site: Site) -> None:
    """So that the test above is of something: what the server says to a client that waits with its body."""
    with socket.create_connection(("127.0.0.1", site.server.port["main"]), 10) as sock:
        sock.sendall(b"POST /mirror HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        sock.settimeout(10 if of(site.name, "continues") else 0.2)
        try:
            said = sock.recv(65536)
        except TimeoutError:
            said = b""
    assert said.startswith(b"HTTP/1.1 100 ") == of(site.name, "continues"), said


@pytest.mark.parametrize("kind", KINDS_OF_BODY)
def test_an_error_before_the_uploads_end(site: Site, body_of: BodyOf, kind: str) -> None:
    """The answer is had, whatever becomes of the connection, and the next request is well."""
    for headers in ({}, {}, {"Expect": "100-continue"}):
        r = site.client.post(site.url("/deny"), content=body_of(kind, bytes(UPLOAD)), headers=headers)
        assert r.status_code == 403
        assert r.content
        assert site.client.get(site.url("/1k")).content == content("1k")
    stats = site.adds_up()
    assert closed(stats).keys() <= {"not_reusable", "server_closed"}
    assert stats.requests == 6


def test_keepalive_requests(site: Site) -> None:
    if "few" not in site.server.doors:
        pytest.skip(f"{site.name} counts no requests")
    for i in range(3 * FEW + 1):
        r = site.client.get(site.url("/1k", "few"))
        assert (r.content, r.conn.requests) == (content("1k"), i % FEW + 1)
    stats = site.adds_up()
    assert (stats.dials, stats.opened, stats.retries, closed(stats)) == (4, 4, 0, {"not_reusable": 3})


def test_reuse(site: Site) -> None:
    """A hundred requests in sequence are one connection; those of sixteen threads need few more than sixteen: a dial that was overtaken is kept."""
    for i in range(100):
        assert site.client.get(site.url("/1k")).conn.requests == i + 1
    assert site.adds_up().reuses == 99
    client, threads, each = site.new(), 16, 20
    wrong: list[object] = []

    def run(i: int) -> None:
        for n in range(each):
            token = f"{i}x{n}"
            try:
                seen = client.post(site.url("/echo"), content=token.encode(), headers={"X-Token": token}).json()
                if (seen["token"], seen["sha256"]) != (token, hashlib.sha256(token.encode()).hexdigest()):
                    wrong.append(seen)
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
    assert stats.requests == threads * each
    if (kept := of(site.name, "keeps")) is None:
        assert stats.opened <= 2 * threads
        assert closed(stats) == {}
    else:
        assert stats.open <= kept + threads
        assert closed(stats).keys() == {"not_reusable"}


def test_idle_timeouts(fleet: Fleet) -> None:
    """Every server closes what idles for a second. It is seen before the next request, which is not tried twice."""
    servers = fleet.all()
    with Client(timeout=30, transport=Transport()) as client, client.transport:
        for server in servers.values():
            assert client.get(server.url("/1k", "brief")).content == content("1k")
            assert client.get(server.url("/1k", "brief")).conn.reused
        until(lambda: client.transport.stats().open == 0, "the end of all idle connections", 20)
        for server in servers.values():
            r = client.get(server.url("/1k", "brief"))
            assert (r.content, r.conn.reused) == (content("1k"), False)
        stats = client.transport.stats()
    for row in stats.hosts.values():
        assert (row.opened, row.retries) == (2, 0), str(stats)
        assert closed(row) in ({"server_closed": 1}, {"idle_timeout": 1}), str(stats)


def test_requests_at_the_moment_of_an_idle_timeout(fleet: Fleet) -> None:
    """Each server gets requests just when it closes, of threads whose pauses are spread around its second: none that may be repeated fails."""
    servers = fleet.all()
    wrong: list[object] = []
    with Client(timeout=30, transport=Transport()) as client, client.transport:
        def run(url: str, pause: float) -> None:
            token = f"{pause}"
            try:
                for _ in range(4):
                    r = client.post(url, content=token.encode(), headers={"X-Token": token, "Idempotency-Key": token})
                    if r.json()["token"] != token:
                        wrong.append(r.content)
                    time.sleep(pause)
            except Exception as e:
                wrong.append((url, e))

        running = [threading.Thread(target=run, args=(server.url("/echo", "brief"), 0.994 + i / 500)) for server in servers.values() for i in range(6)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(30)
            assert not thread.is_alive(), "a request hangs"
        stats = client.transport.stats()
    assert wrong == []
    print(f"{stats.requests} requests, {stats.opened} connections, {stats.retries} retries, closed: {closed(stats)}")
    assert stats.requests == 4 * len(running)


def test_every_difference_is_one() -> None:
    for (server, what), (value, reason) in DIFFERENT.items():
        assert server in KINDS
        assert value != EXPECTED[what]
        assert reason
