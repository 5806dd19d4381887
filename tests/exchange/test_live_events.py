"""Server-sent events as they come: each is the caller's before the next is sent, coded or not."""
from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

import pytest

from pooledhttp import Client, ReadTimeout, ResponseTooLarge, Timeout
from pooledhttp.events import Event
from tests.support.peer import PATIENCE, Conn, Peer, respond

MakePeer = Callable[..., Peer]


@pytest.mark.parametrize("how", ["chunked", "gzip", "until close"])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_each_event_comes_before_the_next_is_sent(peer: MakePeer, client: Client, how: str, end: bytes) -> None:
    taken = threading.Semaphore(0)
    coder = zlib.compressobj(wbits=31)

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        fields = [("Content-Type", "text/event-stream")]
        if how != "until close":
            fields.append(("Transfer-Encoding", "chunked"))
        if how == "gzip":
            fields.append(("Content-Encoding", "gzip"))
        conn.send(respond(b"", headers=fields, length=False))

        def send(data: bytes) -> None:
            if how == "gzip":
                data = coder.compress(data) + coder.flush(zlib.Z_SYNC_FLUSH)
            conn.send(data if how == "until close" else b"%x\r\n%b\r\n" % (len(data), data))

        for n in range(5):
            send(b"id: %d\n" % n)
            send(b"data: number %d" % n + end)
            if not taken.acquire(timeout=PATIENCE):
                raise AssertionError("the event did not come alone")
        if how != "until close":
            data = coder.flush() if how == "gzip" else b": bye"
            conn.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    server = peer(script)
    seen = []
    with client.stream("GET", server.url(), timeout=Timeout(read=PATIENCE)) as r:
        for event in r.iter_events():
            seen.append(event)
            taken.release()
    assert seen == [Event(f"number {n}", id=str(n)) for n in range(5)]
    assert client.transport.stats().active == 0


def test_silence_ends_at_the_read_timeout(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"", headers={"Content-Type": "text/event-stream"}, length=False) + b"data: 1\n\ndata: 2\n")
        conn.stall()

    server = peer(script)
    with client.stream("GET", server.url(), timeout=Timeout(read=0.1)) as r:
        events = r.iter_events()
        assert next(events) == Event("1")
        with pytest.raises(ReadTimeout):
            next(events)


def test_the_bodys_limit_holds_too(peer: MakePeer, client: Client) -> None:
    server = peer(lambda conn, i: (conn.recv_request(), conn.send(respond(b"data: 1\n\n" * 100)))[1])
    with client.stream("GET", server.url(), max_response_bytes=500) as r, pytest.raises(ResponseTooLarge, match="max_response_bytes=500"):
        list(r.iter_events())
