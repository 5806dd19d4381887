"""Against nginx: bodies of all sizes, statuses without one, keep-alive limits, reuse that can be counted."""
from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from pooledhttp import Client, HTTPStatusError, Transport
from tests.exchange.support import until
from tests.interop.conftest import Web
from tests.support.nginx import SIZES, Nginx, content


@pytest.mark.parametrize("name", SIZES)
def test_get(web: Web, name: str) -> None:
    for i in range(3):
        r = web.client.get(web.url(f"/{name}"))
        assert (r.status_code, r.reason, r.http_version) == (200, "OK", "HTTP/1.1")
        assert r.headers["content-length"] == str(SIZES[name])
        assert r.headers["server"].startswith("nginx")
        assert r.content == content(name)
        assert (r.conn.reused, r.conn.requests) == (i > 0, i + 1)
    assert web.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
def test_chunked(web: Web, name: str) -> None:
    for _ in range(2):
        r = web.client.get(web.url(f"/chunked/{name}"))
        assert r.headers["transfer-encoding"] == "chunked"
        assert r.content == content(name)
        with web.client.stream("GET", web.url(f"/chunked/{name}")) as s:
            assert b"".join(s.iter_bytes(1000)) == content(name)
    assert web.adds_up().opened == 1


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("how", ["iter_bytes", "read", "readinto", "content"])
def test_stream(web: Web, name: str, how: str) -> None:
    with web.client.stream("GET", web.url(f"/{name}")) as r:
        if how == "iter_bytes":
            body = b"".join(r.iter_bytes(30_000))
        elif how == "read":
            parts = []
            while part := r.read(50_000):
                parts.append(part)
            body = b"".join(parts)
        elif how == "readinto":
            buffer, body = bytearray(40_000), b""
            while n := r.readinto(buffer):
                body += buffer[:n]
        else:
            body = r.content
    assert body == content(name)
    assert r.closed
    assert web.client.get(web.url("/1k")).conn.reused
    assert web.adds_up().opened == 1


def test_no_bodies(web: Web) -> None:
    for name, size in SIZES.items():
        r = web.client.head(web.url(f"/{name}"))
        assert (r.status_code, r.content, r.headers["content-length"]) == (200, b"", str(size))
    r = web.client.get(web.url("/204"))
    assert (r.status_code, r.content) == (204, b"")
    seen = web.client.get(web.url("/64k")).headers
    for field, value in (("If-None-Match", seen["etag"]), ("If-Modified-Since", seen["last-modified"])):
        r = web.client.get(web.url("/64k"), headers={field: value})
        assert (r.status_code, r.content) == (304, b"")
    assert web.client.get(web.url("/1k")).content == content("1k")       # nobody's body was left on the wire
    assert web.adds_up().opened == 1


def test_statuses_and_ranges(web: Web) -> None:
    r = web.client.get(web.url("/1m"), headers={"Range": "bytes=1000-1999"})
    assert (r.status_code, r.headers["content-range"], r.content) == (206, "bytes 1000-1999/1048576", content("1m")[1000:2000])
    r = web.client.get(web.url("/absent"))
    assert (r.status_code, r.reason, r.ok) == (404, "Not Found", False)
    r = web.client.get(web.url("/500"))
    with pytest.raises(HTTPStatusError):
        r.raise_for_status()
    assert r.headers["connection"] == "close"                # as nginx does with its own errors
    assert web.client.get(web.url("/token"), params={"token": "it+is%me"}).text == "it%2Bis%25me"
    stats = web.adds_up()
    assert (stats.opened, stats.closed["not_reusable"]) == (2, 1)


def test_a_hundred_requests_on_one_connection(web: Web) -> None:
    ids = set()
    for i in range(100):
        r = web.client.get(web.url("/1k"))
        assert r.content == content("1k")
        assert (r.conn.reused, r.conn.requests) == (i > 0, i + 1)
        ids.add(r.conn.id)
    stats = web.adds_up()
    assert len(ids) == 1
    assert (stats.opened, stats.dials, stats.reuses, stats.requests, stats.idle, sum(stats.closed.values())) == (1, 1, 99, 100, 1, 0)


def test_keepalive_requests(nginx: Nginx) -> None:
    """The server closes each connection after five requests, and says so in the fifth answer."""
    with Client(timeout=30, transport=Transport()) as client, client.transport:
        for i in range(23):
            r = client.get(nginx.url("/1k", "few"))
            assert r.content == content("1k")
            assert r.conn.requests == i % 5 + 1
        stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.retries, stats.closed["not_reusable"], stats.idle) == (5, 5, 0, 4, 1)


def test_keepalive_timeout(nginx: Nginx) -> None:
    """`Keep-Alive: timeout=1` is obeyed before the server's second is over, also when nobody asks for the connection."""
    with Client(timeout=30, transport=Transport()) as client, client.transport:
        r = client.get(nginx.url("/1k", "brief"))
        assert r.headers["keep-alive"] == "timeout=1"
        assert client.get(nginx.url("/1k", "brief")).conn.reused
        until = time.monotonic() + 5
        while client.transport.stats().open:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert client.get(nginx.url("/1k", "brief")).conn.reused is False
        stats = client.transport.stats()
    assert (stats.opened, stats.closed["idle_timeout"], stats.retries) == (2, 1, 0)


def test_connection_close(web: Web) -> None:
    for _ in range(3):
        r = web.client.get(web.url("/close/64k"))
        assert (r.headers["connection"], r.content, r.conn.reused) == ("close", content("64k"), False)
    stats = web.adds_up()
    assert (stats.opened, stats.open, stats.closed["not_reusable"]) == (3, 0, 3)


def test_disable_keep_alives(web: Web) -> None:
    client = web.new(disable_keep_alives=True)
    for _ in range(3):
        r = client.get(web.url("/1k"))
        assert (r.headers["connection"], r.content, r.conn.reused) == ("close", content("1k"), False)
    stats = web.adds_up(client)
    assert (stats.dials, stats.opened, stats.open) == (3, 3, 0)


@pytest.mark.parametrize("size", [0, 1, 10_000, 1 << 20])
def test_post(web: Web, tmp_path: Path, size: int) -> None:
    """Bytes, a file, and pieces of unknown length, through nginx to the server behind it."""
    body = os.urandom(size)
    path = tmp_path / "body"
    path.write_bytes(body)
    for kind in ("bytes", "file", "pieces"):
        with path.open("rb") as f:
            pieces = (body[at:at + 70_000] for at in range(0, size, 70_000))
            given: object = {"bytes": body, "file": f, "pieces": pieces}[kind]
            seen = web.client.post(web.url("/upload"), content=given, headers={"X-Token": kind}).json()
        assert (seen["method"], seen["token"], seen["length"], seen["sha256"]) == ("POST", kind, size, hashlib.sha256(body).hexdigest())
    assert web.adds_up().opened == 1


def test_what_was_put_comes_back(web: Web) -> None:
    body = os.urandom(1 << 20)
    url = web.url(f"/dav/{web.client.transport!r:.3}{os.getpid()}".replace("<", ""))
    assert web.client.put(url, content=body).status_code in (201, 204)
    assert web.client.get(url).content == body
    assert web.adds_up().opened == 1


def test_an_answer_before_the_upload_is_over(web: Web) -> None:
    """nginx answers at once and then drops the body: both go on to their end, and the connection serves on."""
    for _ in range(3):
        r = web.client.post(web.url("/discard"), content=bytes(8 << 20))
        assert (r.status_code, r.content) == (200, b"discarded")
    assert web.client.get(web.url("/1k")).conn.requests == 4
    assert web.adds_up().opened == 1


def test_a_stream_closed_early(web: Web) -> None:
    """What has arrived of a small rest is dropped and the connection kept; a gibibyte's is closed."""
    with web.client.stream("GET", web.url("/1g")) as r:
        assert r.read(1000) == bytes(1000)
    until(lambda: web.client.transport.stats().open == 0)
    stats = web.adds_up()
    assert (stats.open, stats.closed["drain_limit"]) == (0, 1)
    with web.client.stream("GET", web.url("/1k")) as r:
        pass
    assert web.client.get(web.url("/1k")).content == content("1k")
    assert web.adds_up().leaked == 0


def test_slow_bodies_pass(web: Web) -> None:
    assert web.client.get(web.url("/slow/64k"), timeout=(5, 1)).content == content("64k")
