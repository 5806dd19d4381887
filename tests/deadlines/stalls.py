"""A server that stalls where its request's target says, and the runs that meet it there.

`/ok` is answered. `/WHERE/RUN` stalls, where RUN names a `Stall` in `server.stalls`:

head                silence in place of the head
head-dribble        a head without end, a byte at a time
body, body-dribble  half of a body of known length, then silence, or a byte at a time
chunked, until-close  the same silence in other framings
large               the same in a body that fits no buffer
folded, folded-head  the same in an answer that the compiled parser hands to h11
send                the request's body is not read
"""
from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from tests.support.peer import PATIENCE, Conn, Peer, respond

PACE = 0.05                # seconds between two bytes of a dribble
GLANCE = 0.004             # seconds between two acknowledgements
HALF = b"x" * 500
LENGTH = {"Content-Length": "1000"}
BEGINNINGS = {
    "body": respond(HALF, headers=LENGTH, length=False),
    "body-dribble": respond(b"", headers={"Content-Length": "1000000"}, length=False),
    "chunked": respond(b"3e8\r\n" + HALF, headers={"Transfer-Encoding": "chunked"}, length=False),
    "until-close": respond(HALF, length=False),
    "large": respond(HALF * 1000, headers={"Content-Length": "10000000"}, length=False),
    "folded": respond(HALF, headers={"X-Folded": "a\r\n b", **LENGTH}, length=False),
    "folded-head": b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\n",
    "head": b"",
    "head-dribble": b"HTTP/1.1 200 OK\r\nX-Slow: ",
}


@dataclass
class Stall:
    """One meeting: when it began (monotonic seconds), and whether the client's end of the connection is gone."""

    began: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)


class StallingServer(Peer):
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.stalls: dict[str, Stall] = {}
        super().__init__(self._serve, tls=tls, backlog=512)

    def new(self, name: str) -> Stall:
        self.stalls[name] = Stall()
        return self.stalls[name]

    def _serve(self, conn: Conn, i: int) -> None:
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            head = conn.recv_head()
            _, where, *run = head.split()[1].decode().split("/")
            if where == "ok":
                conn.recv_body(head)
                conn.send(respond(b"ok"))
                continue
            stall = self.stalls[run[0]]
            try:
                self._stall(conn, where, stall)
            finally:
                stall.gone.set()

    def _stall(self, conn: Conn, where: str, stall: Stall) -> None:
        stall.began = time.monotonic()
        if where == "send":
            self._watch(conn, stall)
        else:
            conn.send(BEGINNINGS[where])
            while where.endswith("-dribble") and not self.stopped.wait(PACE):
                conn.send(b"y")
        conn.recv_until_closed()


    def _watch(self, conn: Conn, stall: Stall) -> None:
        """Reads nothing until the client has given up. What has come is acknowledged at once: an ACK that the kernel delays (by 40 ms)
        would make room at the client's side later, which is progress."""
        until = time.monotonic() + PATIENCE
        while not stall.done.wait(GLANCE):
            if time.monotonic() > until:
                raise AssertionError("the client did not give up")
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def half_a_handshake(conn: Conn, context: ssl.SSLContext) -> None:
    """The server's first flight of a real handshake, cut in the middle."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    while not outgoing.pending:
        piece = conn.recv_some()
        assert piece, "the client left before its hello was whole"
        incoming.write(piece)
        try:
            server.do_handshake()
        except ssl.SSLWantReadError:
            continue
    flight = outgoing.read()
    conn.send(flight[:len(flight) // 2])


SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)]
