"""What hooks hear of requests that share a connection."""
from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client, errors
from tests.exchange.support import until
from tests.exchange.test_trace import FRESH, REUSED, Record
from tests.support.ca import Authority
from tests.support.frames import REFUSED_STREAM, Frames
from tests.support.peer import Conn, Peer

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]


def script(conn: Conn, i: int) -> None:
    """As the path says; what comes again is answered."""
    h2 = Frames(conn)
    tried: set[str] = set()
    while True:
        stream, fields, _ = h2.request()
        path = fields[":path"]
        if path in tried or i > 0:
            h2.answer(stream, b"again")
            continue
        tried.add(path)
        if path == "/refused":
            h2.reset(stream, REFUSED_STREAM)
        elif path == "/goaway":
            h2.goaway(0)
        elif path == "/dies":
            return
        elif path == "/begun":
            h2.headers(stream, [(":status", "200")])
            h2.data(stream, b"x" * 10)
        elif path != "/stalls":
            h2.answer(stream, b"fine")


@pytest.fixture
def record() -> Record:
    return Record()


def traced(h2c: MakeClient, record: Record) -> Client:
    client = h2c(trace=record)
    record.transport = client.transport
    return client


ENDED = ["get_conn", "got_conn", "wrote_request"]
CASES = {
    "/": REUSED,
    "/refused": [*ENDED, *REUSED],
    "/goaway": [*ENDED, "closed", *FRESH],
    "/dies": [*ENDED, "closed", *FRESH],
}


@pytest.mark.parametrize("path", CASES)
def test_a_request_on_a_connection_at_hand(peer: MakePeer, h2c: MakeClient, record: Record, path: str) -> None:
    server = peer(script)
    client = traced(h2c, record)
    client.get(server.url("/first"))
    assert record.taken() == FRESH
    assert client.get(server.url(path)).content == (b"fine" if path == "/" else b"again")
    until(lambda: record.names[-1] == "put_idle")
    assert record.names == CASES[path]
    if "closed" in record.names:
        assert record.args("closed")[0] == "server_closed"


def test_a_stream_that_ends_leaves_the_connection(peer: MakePeer, h2c: MakeClient, record: Record) -> None:
    """Put back, and not closed: by a deadline, and by who leaves it early."""
    server = peer(script)
    client = traced(h2c, record)
    client.get(server.url("/first"))
    record.calls.clear()
    with pytest.raises(errors.DeadlineExceeded):
        client.get(server.url("/stalls"), timeout=0.1)
    assert record.taken() == [*ENDED, "put_idle"]
    client.get(server.url("/begun"), stream=True).close()
    assert record.taken() == REUSED
    client.transport.close()
    until(lambda: record.names == ["closed"])
    assert record.args("closed")[0] == "shutdown"


def test_by_alpn(peer: MakePeer, new_client: MakeClient, ca: Authority, record: Record) -> None:
    context: ssl.SSLContext = ca.new_server("127.0.0.1")
    context.set_alpn_protocols(["h2"])
    server = peer(script, tls=context)
    client = new_client(verify=str(ca.pem), trace=record)
    record.transport = client.transport
    client.get(server.url("/"))
    assert record.names == [*FRESH[:3], "tls_start", "tls_done", *FRESH[3:]]
    info: Any = record.args("got_conn")[0]
    assert (info.alpn, info.reused) == ("h2", False)
