"""HTTP/2 frame by frame: what a scripted peer says, with hpack and hyperframe for the coding, so that it may also be what no server should say.

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream, fields, body = h2.request()
        h2.answer(stream, b"hello")
"""
from __future__ import annotations

import struct
from collections.abc import Sequence

import hpack

from tests.support.peer import ClientGone, Conn

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 0, 1, 2, 7, 8, 11, 13
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
Field = tuple[str, str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


class Frames:
    """The server's side of a connection. `settings` are sent at once; the client's are acknowledged when they come."""

    def __init__(self, conn: Conn, settings: Sequence[tuple[int, int]] = ()) -> None:
        self.conn = conn
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, list[Field]] = {}
        self.resets: dict[int, int] = {}
        self.credit: dict[int, int] = {}                 # by WINDOW_UPDATEs, 0: the connection's
        self.acked = 0                                   # PINGs of ours
        if conn.recv_exact(len(PREFACE)) != PREFACE:
            raise AssertionError("no client preface")
        self.send(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings))

    # --- what the client says

    def read(self) -> tuple[int, int, int, bytes]:
        """The next frame: (type, flags, stream, payload). SETTINGS and PING are answered here, and all are noted."""
        head = self.conn.recv_exact(9)
        payload = self.conn.recv_exact(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == SETTINGS and not flags & ACK:
            self.send(SETTINGS, ACK, 0)
        elif kind == PING:
            if flags & ACK:
                self.acked += 1
            else:
                self.pinged(payload)
        elif kind == HEADERS:
            fields = [(str(k), str(v)) for k, v in self.decoder.decode(payload)]
            self.heads[stream] = self.heads.get(stream, []) + fields
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE:
            self.credit[stream] = self.credit.get(stream, 0) + int.from_bytes(payload, "big")
        return kind, flags, stream, payload

    def pinged(self, payload: bytes) -> None:
        self.send(PING, ACK, 0, payload)

    def until(self, kind: int, stream: int | None = None) -> tuple[int, int, int, bytes]:
        """Reads on to a frame of that type (on that stream)."""
        while True:
            got = self.read()
            if got[0] == kind and (stream is None or got[2] == stream):
                return got

    def request(self) -> tuple[int, dict[str, str], bytes]:
        """The next whole request: its stream, its fields (pseudo ones too), its body."""
        while True:
            kind, flags, stream, _ = self.read()
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return stream, dict(self.heads[stream]), self.bodies.get(stream, b"")

    def requests(self, n: int) -> list[int]:
        return [self.request()[0] for _ in range(n)]

    def drain(self) -> None:
        """Reads until the client leaves."""
        try:
            while True:
                self.read()
        except ClientGone:
            return

    # --- what we say

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.conn.send(frame(kind, flags, stream, payload))

    def headers(self, stream: int, fields: Sequence[Field], *, end: bool = False) -> None:
        self.send(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.encoder.encode(fields))

    def data(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """In frames of 16 KiB; window or not."""
        pieces = [body[i:i + 16384] for i in range(0, len(body), 16384)] or [b""]
        for i, piece in enumerate(pieces):
            self.send(DATA, END_STREAM if end and i == len(pieces) - 1 else 0, stream, piece)

    def answer(self, stream: int, body: bytes = b"", status: int = 200, fields: Sequence[Field] = ()) -> None:
        self.headers(stream, [(":status", str(status)), *fields], end=not body)
        if body:
            self.data(stream, body, end=True)

    def reset(self, stream: int, code: int) -> None:
        self.send(RST_STREAM, 0, stream, struct.pack(">I", code))

    def goaway(self, last: int, code: int = NO_ERROR) -> None:
        self.send(GOAWAY, 0, 0, struct.pack(">II", last, code))

    def ping(self) -> None:
        self.send(PING, 0, 0, b"12345678")


def answering(body: bytes = b"fine") -> object:
    """A script that answers every request alike."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            h2.answer(h2.request()[0], body)

    return script
