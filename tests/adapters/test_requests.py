"""requests over our transport: what goes out and what comes back is as requests has it."""
from __future__ import annotations

import gzip
import io
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

import pooledhttp
from pooledhttp import Client, ConnInfo, MockTransport, Response, Transport
from pooledhttp.adapters.requests import PooledAdapter
from tests.support.peer import Conn, Peer, answering, chunked, header, respond
from tests.support.pyserver import PyServer, pattern

MakePeer = Callable[..., Peer]


def fields(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")[1:-2]


def test_connections_are_kept(session: requests.Session, adapter: PooledAdapter, pyserver: PyServer) -> None:
    for _ in range(3):
        r = session.get(pyserver.url("/x?a=1"), headers={"X-Token": "t"})
        assert (r.status_code, r.reason, r.json()["target"], r.headers["x-token"]) == (200, "OK", "/x?a=1", "t")
    stats = adapter.transport.stats()
    assert (stats.dials, stats.reuses, stats.idle) == (1, 2, 1)
    conn: ConnInfo = r.raw.conn
    assert (conn.reused, conn.requests) == (True, 3)
    assert isinstance(adapter, HTTPAdapter)


def test_threads_share_it(session: requests.Session, adapter: PooledAdapter, pyserver: PyServer) -> None:
    wrong: list[str] = []

    def work(k: int) -> None:
        for i in range(10):
            if session.get(pyserver.url("/"), headers={"X-Token": f"{k}-{i}"}).json()["token"] != f"{k}-{i}":
                wrong.append(f"{k}-{i}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = adapter.transport.stats()
    assert (wrong, stats.requests, stats.active) == ([], 80, 0)
    assert stats.reuses >= 60              # a dial that lost against a connection given back is kept too


def test_the_head_as_requests_prepared_it(session: requests.Session, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        heads.append(conn.recv_request()[0])
        conn.send(respond())

    heads: list[bytes] = []
    server = peer(script)
    session.headers.clear()
    prepared = session.prepare_request(requests.Request("get", server.url("/a%2Fb/?q=%7e"), headers={"X-B": b"b\xe9", "x-a": "\xe9"}))
    prepared.url = server.url("/x/../y//%2e?a b")
    session.send(prepared)
    assert heads[0].startswith(b"GET /x/../y//%2e?a%20b HTTP/1.1\r\n")
    assert fields(heads[0]) == [b"Host: 127.0.0.1:%d" % server.port, b"X-B: b\xe9", b"x-a: \xe9"]


def test_the_head_as_the_server_sent_it(session: requests.Session, peer: MakePeer) -> None:
    server = peer(answering(respond(b"", 299, [("X-One", "1"), ("x-two", "a"), ("X-Two", "b\xe9")], reason="Fine, really")))
    r = session.get(server.url())
    assert (r.status_code, r.reason, r.raw.status, r.raw.version) == (299, "Fine, really", 299, 11)
    assert list(r.raw.headers.items()) == [("X-One", "1"), ("x-two", "a"), ("x-two", "b\xe9"), ("Content-Length", "0")]
    assert r.raw.headers.getlist("x-two") == ["a", "b\xe9"]
    assert r.headers["X-TWO"] == "a, b\xe9"


def test_cookies_and_redirects(session: requests.Session, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, body = conn.recv_request()
            seen.append((head.split(b" HTTP")[0], header(head, "Cookie"), body))
            if head.startswith((b"GET /start", b"POST /start")):
                conn.send(respond(b"moved", 302, [("Location", "../next"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/next")]))
            else:
                conn.send(respond(b"here"))

    seen: list[tuple[bytes, str | None, bytes]] = []
    server = peer(script)
    r = session.post(server.url("/start/"), data={"x": "y"})
    assert (r.text, [h.status_code for h in r.history], r.url) == ("here", [302], server.url("/next"))
    assert session.cookies.get_dict() == {"a": "1", "b": "2"}
    assert seen[0] == (b"POST /start/", None, b"x=y")
    assert seen[1][0] == b"GET /next"
    assert sorted((seen[1][1] or "").split("; ")) == ["b=2"] or seen[1][1] == "b=2; a=1"
    assert server.accepted == 1
    # Without a Set-Cookie nothing is extracted, and what urllib3's users look at is there all the same.
    assert not r.raw._original_response
    assert r.raw._original_response.msg["Content-Length"] == "4"


@pytest.mark.parametrize(("body", "sent", "framing"), [
    (b"bytes", b"bytes", "5"),
    ("t\xe9xt", b"t\xc3\xa9xt", "5"),
    (bytearray(b"array"), b"array", "5"),
    (io.BytesIO(b"file"), b"file", "4"),
    (iter([b"a", "b\xe9", b"", b"c"]), b"ab\xc3\xa9c", "chunked"),
    ({"a": "1 2"}, b"a=1+2", "5"),
], ids=lambda v: type(v).__name__)
def test_bodies_out(session: requests.Session, pyserver: PyServer, body: Any, sent: bytes, framing: str) -> None:
    import hashlib

    seen = session.post(pyserver.url("/"), data=body).json()
    assert (seen["length"], seen["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())
    framed = {name.lower(): value for name, value in seen["headers"]}
    assert (framed.get("content-length"), framed.get("transfer-encoding")) == ((None, "chunked") if framing == "chunked" else (framing, None))


def test_files_out(session: requests.Session, pyserver: PyServer, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(pattern(200_000))
    with path.open("rb") as file:
        file.seek(1000)
        assert session.put(pyserver.url("/"), data=file).json()["length"] == 199_000
        assert file.tell() == 200_000
    path.write_text("plain text")
    with path.open() as text, pytest.warns(requests.exceptions.FileModeWarning):
        assert session.put(pyserver.url("/"), data=text).json()["length"] == 10
    assert session.post(pyserver.url("/"), files={"f": ("n.txt", b"abc")}).json()["length"] > 100
    assert session.post(pyserver.url("/"), json={"a": 1}).json()["length"] == 8


class Odd:
    """A file-like object whose seek returns nothing."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def read(self, n: int = -1) -> bytes:
        return self.file.read(n)

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, *args: int) -> None:
        self.file.seek(*args)


def test_an_odd_file_out(session: requests.Session, pyserver: PyServer) -> None:
    body = Odd(b"0123456789")
    body.seek(4)
    assert session.post(pyserver.url("/"), data=body).json()["length"] == 6


def test_a_body_in_pieces_of_the_size_asked_for(session: requests.Session, adapter: PooledAdapter, pyserver: PyServer) -> None:
    with session.get(pyserver.url("/bytes/100000"), stream=True) as r:
        assert not r.raw.closed
        pieces = list(r.iter_content(30_000))
        assert [len(piece) for piece in pieces] == [30_000] * 3 + [10_000]
        assert b"".join(pieces) == pattern(100_000)
        assert r.raw.closed
    with session.get(pyserver.url("/bytes/1000"), stream=True) as r:
        assert r.raw.read(400) + r.raw.read(600) == pattern(1000)
        assert adapter.transport.stats().active == 0                  # given back with the last byte
        assert (r.raw.read(), r.raw.tell()) == (b"", 1000)
    with session.get(pyserver.url("/bytes/100000"), stream=True) as r:
        assert r.raw.read(10) == pattern(10)
    assert adapter.transport.stats().active == 0


def test_a_chunked_body_as_it_arrives(session: requests.Session, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(headers={"Transfer-Encoding": "chunked"}, length=False))
        for piece in (b"one\n", b"two\n"):
            conn.send(chunked(piece)[:-5])
            got.acquire()
        conn.send(b"0\r\n\r\n")

    got = threading.Semaphore(0)
    server = peer(script)
    lines = []
    with session.get(server.url(), stream=True) as r:
        assert r.raw.chunked
        for line in r.iter_lines(chunk_size=512):
            lines.append(line)
            got.release()
        got.release()
    assert lines[:1] == [b"one"]
    assert b"".join(lines) == b"onetwo"
    with pytest.raises(requests.exceptions.StreamConsumedError):
        r.iter_content()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_decoding_is_requests(session: requests.Session, peer: MakePeer, framing: str) -> None:
    packed = gzip.compress(b"text " * 1000)
    headers = {"Content-Encoding": "gzip"}
    answer = respond(packed, headers=headers) if framing == "length" else \
        respond(headers={**headers, "Transfer-Encoding": "chunked"}, length=False) + chunked(packed[:10], packed[10:])
    server = peer(answering(answer))
    assert session.get(server.url()).content == b"text " * 1000
    with session.get(server.url(), stream=True) as r:
        assert r.raw.read(decode_content=False) == packed                     # raw: the bytes on the wire
    with session.get(server.url(), stream=True) as r:
        assert b"".join(r.iter_content(700)) == b"text " * 1000
    with session.get(server.url(), stream=True) as r:
        assert b"".join(r.raw.stream(64, decode_content=True)) == b"text " * 1000


def test_no_body(session: requests.Session, adapter: PooledAdapter, peer: MakePeer) -> None:
    server = peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n",
                            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"))
    for r in (session.head(server.url()), session.get(server.url(), stream=True), session.get(server.url(), stream=True)):
        assert r.raw.closed
        assert r.content == b""
    assert adapter.transport.stats().opened == 1


def test_a_response_that_nobody_reads_frees_its_connection(adapter: PooledAdapter, session: requests.Session, pyserver: PyServer) -> None:
    session.get(pyserver.url("/bytes/10000000"), stream=True)
    stats = adapter.transport.stats()
    assert (stats.active, stats.closed["drain_limit"]) == (0, 1)


def test_a_response_travels(session: requests.Session, pyserver: PyServer) -> None:
    r = pickle.loads(pickle.dumps(session.get(pyserver.url("/bytes/10"))))
    assert (r.status_code, r.content) == (200, pattern(10))


# --- what the adapter is made of --------------------------------------------------------------------------------------------


def test_sizes_of_the_pool() -> None:
    assert PooledAdapter().transport.options == {"proxy": None}
    options = PooledAdapter(pool_connections=4, pool_maxsize=5, pool_block=True, idle_conn_timeout=3).transport.options
    assert options == {"proxy": None, "max_idle_conns": 20, "max_idle_conns_per_host": 5, "max_conns_per_host": 5, "idle_conn_timeout": 3}
    with pytest.raises(TypeError, match="nonsense"):
        PooledAdapter(nonsense=1)
    with pytest.raises(TypeError, match="exclude"):
        PooledAdapter(pool_maxsize=3, transport=Transport())
    with pytest.raises(TypeError, match="exclude"):
        PooledAdapter(transport=Transport(), idle_conn_timeout=3)
    with pytest.raises(TypeError, match="round_trip"):
        PooledAdapter(transport=object())


def test_it_closes_its_own_transports_and_goes_on(pyserver: PyServer) -> None:
    adapter = PooledAdapter()
    session = requests.Session()
    session.mount("http://", adapter)
    session.get(pyserver.url("/"))
    first = adapter.transport
    session.close()
    assert first.closed
    assert first.stats().open == 0
    assert session.get(pyserver.url("/")).ok                # as with requests' own
    session.close()
    assert adapter.transport.stats().requests == 0


@pytest.mark.parametrize("kind", ["transport", "client"])
def test_a_given_transport_stays_open(kind: str, pyserver: PyServer) -> None:
    with Transport(max_idle_conns=1) as transport:
        given = transport if kind == "transport" else Client(transport=transport)
        with requests.Session() as session:
            session.mount("http://", PooledAdapter(transport=given))
            session.get(pyserver.url("/"))
        assert not transport.closed
        assert transport.stats().requests == 1
    with requests.Session() as session:
        session.mount("http://", PooledAdapter(transport=given))
        with pytest.raises(requests.ConnectionError, match="closed"):
            session.get(pyserver.url("/"))


def test_over_a_mock() -> None:
    def handler(request: pooledhttp.Request) -> Response:
        assert request.headers["X-A"] == "1"
        return Response(201, headers={"Set-Cookie": "a=b", "Content-Encoding": "gzip"}, content=gzip.compress(request.content))

    with requests.Session() as session:
        session.mount("https://", PooledAdapter(transport=MockTransport(handler)))
        r = session.post("https://api.example/x", data=b"body", headers={"X-A": "1"}, verify=False, proxies={"https": "http://proxy.example"})
    assert (r.status_code, r.content, r.cookies.get_dict()) == (201, b"body", {"a": "b"})


def test_sessions_travel(pyserver: PyServer) -> None:
    with requests.Session() as session, Transport(max_idle_conns_per_host=7) as transport:
        session.mount("http://", PooledAdapter(pool_maxsize=3, max_retries=2, idle_conn_timeout=9))
        session.mount("https://", PooledAdapter(transport=transport))
        with pickle.loads(pickle.dumps(session)) as copy, pickle.loads(pickle.dumps(session)) as other:
            adapter = copy.get_adapter("http://")
            assert adapter.transport.options == {"proxy": None, "max_idle_conns_per_host": 3, "idle_conn_timeout": 9}
            assert adapter.max_retries.total == 2
            assert copy.get(pyserver.url("/")).ok
            given = copy.get_adapter("https://").transport
            assert given.options == {"max_idle_conns_per_host": 7}
            assert given is other.get_adapter("https://").transport         # shared in a process


# --- retries, as urllib3's Retry has them -----------------------------------------------------------------------------------


def retrying(**options: Any) -> requests.Session:
    session = requests.Session()
    session.mount("http://", PooledAdapter(max_retries=urllib3.Retry(**options)))
    return session


def test_statuses_are_tried_again(peer: MakePeer) -> None:
    server = peer(answering(respond(b"busy", 503), respond(b"busy", 503, {"Retry-After": "0"}), respond(b"fine")))
    with retrying(total=5, status_forcelist=[503]) as session:
        r = session.get(server.url())
        assert (r.text, len(r.raw.retries.history), server.accepted) == ("fine", 2, 1)


def test_statuses_to_the_end(peer: MakePeer) -> None:
    server = peer(answering(respond(b"busy", 503)))
    with retrying(total=1, status_forcelist=[503]) as session, pytest.raises(requests.exceptions.RetryError, match="too many 503"):
        session.get(server.url())
    with retrying(total=1, status_forcelist=[503], raise_on_status=False) as session:
        assert session.get(server.url()).text == "busy"
        assert session.post(server.url(), data=b"x").status_code == 503          # no method to try again
    assert server.accepted == 2


def flaky(answers: list[bytes | None]) -> Callable[[Conn, int], None]:
    """Each connection reads one request and sends the next answer, or closes."""

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        if answers[i] is not None:
            conn.send(answers[i] or b"")

    return script


def test_errors_are_tried_again(peer: MakePeer) -> None:
    server = peer(flaky([None, None, respond(b"fine", headers={"Connection": "close"})]))
    with retrying(total=2) as session:
        assert session.put(server.url(), data=io.BytesIO(b"again")).text == "fine"
    assert [bytes(conn.received).endswith(b"again") for conn in server.conns] == [True] * 3


def test_a_generator_is_sent_once(peer: MakePeer) -> None:
    server = peer(flaky([None, respond()]))
    with retrying(total=2) as session, pytest.raises(requests.ConnectionError, match="without an answer"):
        session.put(server.url(), data=iter([b"once"]))
    assert server.accepted == 1


# --- overridden as users do -------------------------------------------------------------------------------------------------


def test_hooks_of_the_adapter_are_called(pyserver: PyServer) -> None:
    class Mine(PooledAdapter):
        def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
            request.headers["X-Token"] = "added"

        def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
            response = super().build_response(req, resp)
            response.reason = "mine"
            return response

    with requests.Session() as session:
        session.mount("http://", Mine())
        r = session.get(pyserver.url("/"))
    assert (json.loads(r.text)["token"], r.reason) == ("added", "mine")


@pytest.fixture
def listening(peer: MakePeer) -> Iterator[Peer]:
    yield peer(answering(respond(b"ok")))


def test_options_of_the_dial_by_init_poolmanager(listening: Peer) -> None:
    class Mine(PooledAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, source_address=("127.0.0.3", 0), socket_options=[(6, 1, 1)])

    with requests.Session() as session:
        session.mount("http://", Mine())
        r = session.get(listening.url())
        assert r.raw.conn.local_addr[0] == "127.0.0.3"

    class Lost(PooledAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, no_such_thing=1)

    with pytest.raises(TypeError, match="no_such_thing"):
        Lost()
