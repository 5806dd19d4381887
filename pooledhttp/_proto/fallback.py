"""The responses that the compiled parser is not sure of: h11 decides them, behind a check of our own where h11 is laxer than we are.

h11 0.16 accepts any HTTP/x.y, Content-Length beside Transfer-Encoding, and leaves limits to the reader of its events. What it says of keep-alive
is not used: the reuse verdict is ours.
"""
from __future__ import annotations

import re
from typing import Any

from pooledhttp.errors import RemoteProtocolError

MAX_INTERIM = 32
MAX_INTERIM_BYTES = 1 << 20
MAX_CHUNK_LINE = 16384              # h11's own bound on an unfinished element
_LENGTH = re.compile(rb"[0-9]{1,19}\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?:[ \r\n]|\Z)")
_MAX_LENGTH = (1 << 63) - 1
# Elements of a chunked body, as in ChunkState of chunked.pxd.
_CK_CRLF, _CK_TRAILER = 2, 3


class Head:
    """A response's head, as the exchange needs it."""

    __slots__ = ("status", "reason", "minor", "fields", "content_length", "chunked", "conn_close", "conn_keep_alive", "keep_alive_timeout", "until_close")

    def __init__(self, status: int, reason: bytes, minor: int) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.fields = b""
        self.content_length = -1
        self.chunked = 0
        self.conn_close = 0
        self.conn_keep_alive = 0
        self.keep_alive_timeout = -1
        self.until_close = False


class Fallback:
    """One response, sans-I/O: `feed` it, then ask `head`, then `data` until b"".

    `method` is the request's; `max_head` bounds the head, all interim heads together, and the trailer section, in bytes.
    """

    def __init__(self, method: bytes, max_head: int) -> None:
        import h11

        self._h11 = h11
        self._method = method
        self._max_head = max_head
        self._conn = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=max_head + MAX_CHUNK_LINE)
        # h11 wants to have sent the request; the bytes are not used, and a method it does not know behaves like GET.
        self._conn.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"x")]))
        self._conn.send(h11.EndOfMessage())
        self._seen = bytearray()              # the head's bytes, for our own checks
        self._eof = False
        self._in_body = False
        self._length = -1
        self._got = 0
        self._line = 0                        # unfinished body bytes that h11 holds
        self.interim: list[tuple[int, bytes]] = []
        self._interim_bytes = 0
        self.trailers: list[tuple[bytes, bytes]] = []

    @classmethod
    def resume_chunked(cls, element: int, max_head: int) -> Fallback:
        """Go on in the middle of a chunked body, at the start of a chunk header, of the CRLF behind data, or of the trailer section."""
        self = cls(b"GET", max_head)
        start = {_CK_CRLF: b"1\r\nx", _CK_TRAILER: b"0\r\n"}.get(element, b"")
        self._conn.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + start)
        self._next()
        self._in_body = True
        if element == _CK_CRLF:
            self._next()
        return self

    # --- bytes in ---------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes from the wire; b"" is their end."""
        if not data:
            self._eof = True
        elif self._in_body:
            self._line += len(data)
        else:
            self._seen += data
        try:
            self._conn.receive_data(data)
        except self._h11.RemoteProtocolError as e:
            raise self._broken(str(e)) from None

    def _next(self) -> Any:
        try:
            return self._conn.next_event()
        except self._h11.RemoteProtocolError as e:
            raise self._broken(str(e)) from None

    def _broken(self, what: str) -> RemoteProtocolError:
        phase = "body" if self._in_body else "headers"
        if self._eof and self._in_body:
            if self._length >= 0:
                what = f"the response's body was cut short: got {self._got} of {self._length} bytes"
            else:
                what = f"the response's chunked body was cut short after {self._got} bytes"
        elif self._eof:
            what = "the server closed the connection in the middle of the response's head"
        elif what == "illegal request line":
            # So h11 calls a first byte that can begin no line of HTTP, whichever side sends it.
            what = f"bad status line {bytes(self._seen[:16]).decode('latin-1')!r}"
        elif "_SWITCH_" in what:
            what = "101 Switching Protocols, which nobody asked for"
        elif "too long" in what or "Receive buffer" in what:
            what = f"the response's {'trailers or a chunk header are' if self._in_body else 'head is'} over the limit of {self._max_head} bytes"
        what = re.sub(r"bytearray\(b(['\"].*['\"])\)", r"\1", what)
        return RemoteProtocolError(f"the server broke HTTP/1.1: {what}", phase=phase)

    # --- facts out --------------------------------------------------------------------------------------------------------

    def head(self) -> Head | None:
        """The final response's head, interim ones passed over; None where more bytes are needed."""
        while True:
            self._check_start()
            event = self._next()
            if event is self._h11.NEED_DATA:
                if len(self._seen) > self._max_head:
                    raise self._broken("too long")
                return None
            if isinstance(event, self._h11.InformationalResponse):
                self._interim(event)
                continue
            if isinstance(event, self._h11.Response):
                return self._final(event)
            raise self._broken("no response where one was due")

    def _take_head_bytes(self) -> None:
        # What h11 has not taken yet is the rest.
        rest = self._conn.trailing_data[0]
        used = len(self._seen) - len(rest)
        if used > self._max_head:
            raise self._broken("too long")
        del self._seen[:used]

    def _check_start(self) -> None:
        # h11 takes any HTTP/x.y; a bad start is also worth saying before all of the head is here.
        start = bytes(self._seen[:16])
        if len(start) >= 13 and not _STATUS_LINE.match(start):
            line = bytes(self._seen[:80]).split(b"\n", 1)[0]
            raise self._broken(f"bad status line {line.decode('latin-1')!r}")

    def _interim(self, event: Any) -> None:
        fields = _block(event.headers.raw_items())
        self._interim_bytes += len(fields)
        self.interim.append((event.status_code, fields))
        if len(self.interim) > MAX_INTERIM or self._interim_bytes > self._max_head:
            raise self._broken(f"more than {MAX_INTERIM} interim responses, or more than {self._max_head} bytes of them")
        self._take_head_bytes()

    def _final(self, event: Any) -> Head:
        self._take_head_bytes()
        head = Head(event.status_code, bytes(event.reason), 1 if event.http_version == b"1.1" else 0)
        head.fields = _block(event.headers.raw_items())
        codings: list[bytes] = []
        lengths: list[bytes] = []
        for name, value in event.headers:
            if name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value)
            elif name == b"connection":
                tokens = {t.strip().lower() for t in value.split(b",")}
                head.conn_close |= b"close" in tokens
                head.conn_keep_alive |= b"keep-alive" in tokens
            elif name == b"keep-alive":
                for part in value.split(b","):
                    key, _, n = part.strip().partition(b"=")
                    n = n.strip(b'"')
                    if key.strip().lower() == b"timeout" and n.isdigit() and len(n) <= 9:
                        head.keep_alive_timeout = int(n)
        if codings:
            if lengths:
                raise self._broken("both Content-Length and Transfer-Encoding")
            if head.minor == 0:
                raise self._broken("Transfer-Encoding in an HTTP/1.0 response")
            if len(codings) != 1 or codings[0].lower() != b"chunked":
                raise self._broken(f"Transfer-Encoding {b', '.join(codings).decode('latin-1')!r}, where only chunked is known")
            head.chunked = 1
        if lengths:
            # h11 folds equal lengths into one and refuses unequal ones.
            if not all(_LENGTH.match(n) and int(n) <= _MAX_LENGTH for n in lengths):
                raise self._broken(f"Content-Length {lengths[0].decode('latin-1')[:40]!r}")
            head.content_length = self._length = int(lengths[0])
        head.until_close = not codings and not lengths and event.status_code not in (204, 304) and self._method != b"HEAD"
        self._in_body = True
        self._seen.clear()
        return head

    def data(self) -> bytes | None:
        """Some of the body; b"" where it has ended; None where more bytes are needed."""
        while True:
            event = self._next()
            if event is self._h11.NEED_DATA:
                if self._line > self._max_head + MAX_CHUNK_LINE:
                    raise self._broken("too long")
                return None
            if isinstance(event, self._h11.Data):
                self._line = 0
                if event.data:
                    self._got += len(event.data)
                    return bytes(event.data)
                continue
            if isinstance(event, self._h11.EndOfMessage):
                self.trailers = list(event.headers.raw_items())
                return b""
            return b""

    @property
    def leftover(self) -> bytes:
        """Bytes behind the response, which nobody asked for."""
        return bytes(self._conn.trailing_data[0])


def _block(items: Any) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name, value) for name, value in items)
