"""requests over our transport: each error is the one that requests raises, and each form of its timeouts."""
from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3
from requests import exceptions

import pooledhttp
from pooledhttp.adapters._urllib3 import limits_of
from pooledhttp.adapters.requests import PooledAdapter
from tests.support.peer import Conn, FullBacklog, Peer, answering, chunked, free_ports, respond

MakePeer = Callable[..., Peer]


@pytest.mark.parametrize(("given", "connect", "read"), [
    (None, None, None),
    (3, 3, 3),
    (0.5, 0.5, 0.5),
    (urllib3.Timeout(connect=1, read=2), 1, 2),
    (urllib3.Timeout(connect=1), 1, None),
    (urllib3.Timeout(total=3, connect=5), 3, 3),
    (urllib3.Timeout(None), None, None),
])
def test_forms_of_a_timeout(given: Any, connect: float | None, read: float | None) -> None:
    ours = limits_of(given)
    # No deadline, so that a long download goes on; and no limit on the wait for a connection, as with urllib3's pool_block.
    assert (ours.total, ours.pool, ours.response_header) == (None, None, None)
    assert (ours.connect, ours.tls_handshake) == (connect, connect)
    assert ours.read == ours.write == (read if read is None else pytest.approx(read, abs=0.1))


def test_a_socket_s_default_timeout_counts() -> None:
    socket.setdefaulttimeout(7)
    try:
        assert limits_of(urllib3.Timeout()).read == 7
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize(("given", "says"), [((1, 2, 3), r"\(connect, read\)"), ("foo", "int, float or None"), (0, "less than or equal"), (-1, "less than")])
def test_what_is_no_timeout(session: requests.Session, given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        session.get("http://127.0.0.1:9/", timeout=given)


def stalling(conn: Conn, i: int) -> None:
    conn.recv_request()
    conn.stall()


def partly(answer: bytes) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(answer)

    return script


@pytest.mark.parametrize("timeout", [0.1, (5, 0.1), urllib3.Timeout(connect=5, read=0.1), urllib3.Timeout(total=0.1)], ids=repr)
def test_silence_before_the_head(session: requests.Session, peer: MakePeer, timeout: Any) -> None:
    server = peer(stalling)
    with pytest.raises(exceptions.ReadTimeout, match="Read timed out") as caught:
        session.get(server.url(), timeout=timeout)
    assert caught.value.request is not None
    assert caught.value.request.url == server.url()
    assert isinstance(caught.value.args[0].__cause__, pooledhttp.ReadTimeout)


def test_silence_inside_the_body(session: requests.Session, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        conn.stall()

    server = peer(script)
    with pytest.raises(exceptions.ConnectionError, match="Read timed out"):
        session.get(server.url(), timeout=0.1)
    with session.get(server.url(), timeout=0.1, stream=True) as r, pytest.raises(urllib3.exceptions.ReadTimeoutError):
        r.raw.read()


def test_a_connect_that_stalls(session: requests.Session) -> None:
    with FullBacklog() as server, pytest.raises(exceptions.ConnectTimeout) as caught:
        session.get(f"http://{server.host}:{server.port}/", timeout=(0.1, 5))
    assert isinstance(caught.value, exceptions.ConnectionError)
    assert isinstance(caught.value.__context__, urllib3.exceptions.MaxRetryError)


def test_a_handshake_that_stalls(session: requests.Session, peer: MakePeer) -> None:
    server = peer(lambda conn, i: conn.stall())
    with pytest.raises(exceptions.ConnectTimeout):
        session.get(f"https://127.0.0.1:{server.port}/", timeout=(0.1, 5))


def test_an_upload_that_stalls(session: requests.Session, peer: MakePeer) -> None:
    server = peer(lambda conn, i: conn.stall())
    with pytest.raises(exceptions.ConnectionError) as caught:
        session.post(server.url(), data=b"x" * 30_000_000, timeout=(5, 0.2))
    assert isinstance(caught.value.args[0].args[1], pooledhttp.WriteTimeout)


def test_nobody_listens(session: requests.Session) -> None:
    with pytest.raises(exceptions.ConnectionError) as caught:
        session.get(f"http://127.0.0.1:{free_ports(1)[0]}/")
    reason = caught.value.args[0].reason
    assert isinstance(reason, urllib3.exceptions.NewConnectionError)
    assert isinstance(reason.__cause__, pooledhttp.ConnectError)
    assert reason.__cause__.errno == errno.ECONNREFUSED


@pytest.fixture
def unresolved() -> Iterator[requests.Session]:
    def resolver(host: str, port: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with requests.Session() as session:
        session.mount("http://", PooledAdapter(resolver=resolver))
        yield session


def test_no_such_host(unresolved: requests.Session) -> None:
    with pytest.raises(exceptions.ConnectionError, match="Failed to resolve 'nowhere.example'") as caught:
        unresolved.get("http://nowhere.example/")
    assert isinstance(caught.value.args[0].reason, urllib3.exceptions.NameResolutionError)


@pytest.mark.parametrize(("answer", "error"), [
    (b"", exceptions.ConnectionError),
    (b"HTTP/1.1 200", exceptions.ConnectionError),
    (b"no HTTP at all\r\n\r\n", exceptions.ConnectionError),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", exceptions.InvalidHeader),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", exceptions.ChunkedEncodingError),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", exceptions.ChunkedEncodingError),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12", exceptions.ChunkedEncodingError),
    (respond(b"no gzip at all", headers={"Content-Encoding": "gzip"}), exceptions.ContentDecodingError),
    (respond(headers={"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}, length=False) + chunked(b"no gzip"), exceptions.ContentDecodingError),
], ids=["nothing", "half a head", "no head", "two lengths", "short", "bad chunk", "half a chunk", "no gzip", "no gzip in chunks"])
def test_what_servers_do_wrong(session: requests.Session, adapter: PooledAdapter, peer: MakePeer, answer: bytes, error: type[Exception]) -> None:
    server = peer(partly(answer))
    with pytest.raises(exceptions.RequestException) as caught:
        session.get(server.url())
    assert type(caught.value) is error
    assert adapter.transport.stats().active == 0


@pytest.mark.parametrize(("request_", "error"), [
    ({"url": "http:///x"}, exceptions.InvalidURL),
    ({"url": "http://.example.com"}, exceptions.InvalidURL),
    ({"url": "http://a..b/"}, exceptions.InvalidURL),
    ({"url": "ftp://a.example/"}, exceptions.InvalidSchema),
    ({"url": "a.example"}, exceptions.MissingSchema),
    ({"url": "http://127.0.0.1:9/", "headers": {"X-A": "a\r\nb: c"}}, exceptions.InvalidHeader),
    ({"url": "http://127.0.0.1:9/", "headers": {"Transfer-Encoding": "chunked"}, "data": b"both"}, exceptions.InvalidHeader),
], ids=lambda v: str(v.get("headers") or v["url"]) if isinstance(v, dict) else "")
def test_what_callers_do_wrong(session: requests.Session, adapter: PooledAdapter, request_: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        session.request("POST", **request_)
    assert adapter.transport.stats().dials == 0


def test_what_a_body_raises(session: requests.Session, adapter: PooledAdapter, peer: MakePeer) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    server = peer(answering(respond()))
    with pytest.raises(KeyError, match="mine"):
        session.post(server.url(), data=body())
    assert adapter.transport.stats().open == 0


def test_errors_travel(session: requests.Session) -> None:
    import pickle

    with pytest.raises(exceptions.ConnectionError) as caught:
        session.get(f"http://127.0.0.1:{free_ports(1)[0]}/")
    assert type(pickle.loads(pickle.dumps(caught.value))) is exceptions.ConnectionError
