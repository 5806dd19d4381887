"""What the fast path is not sure of: h11 decides, within limits of our own.

h11 is handed one whole element at a time (a head, a chunk's header line, a trailer section), so its answer cannot depend on
how the bytes were cut. The rules in which we are stricter than h11 are named in `docs/parser.md`.

h11 is imported when the first `Fallback` is made; import this module, too, only where it is needed.
"""
from __future__ import annotations

import re
from typing import NoReturn

from pooledhttp.errors import RemoteProtocolError

# The elements of a chunked body that h11 can go on from: ChunkState in chunked.pxd has the same numbers.
CK_HEADER, CK_DATA, CK_CRLF, CK_TRAILER = range(4)

NOTE_COOKIE, NOTE_CODED = 1, 2       # as in head.pxd

MAX_CHUNK_LINE = 16 * 1024   # bytes of a chunk's header line, CRLF included
MAX_LENGTH = 2**63 - 1       # of a body or a chunk

_SHOWN = 64                  # bytes of what the server sent that a message repeats

# Where the next byte belongs.
_HEAD, _LENGTH, _LINE, _DATA, _CRLF, _TRAILER, _CLOSE, _DONE = range(8)

# Two line ends, which h11 takes bare as well; also at the very start, where no line precedes.
_BLANK = re.compile(rb"\n\r?\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_VERSION = re.compile(rb"HTTP/([0-9]+(?:\.[0-9]+)?)(?: |$)")
_FIELD = re.compile(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):")
_TIMEOUT = re.compile(rb"[ \t]*timeout[ \t]*=[ \t]*([0-9]{1,9})[ \t]*", re.IGNORECASE)

# h11's words for a head it refuses, and ours.
_REFUSALS = {
    "conflicting Content-Length headers": "conflicting Content-Length: {content-length}",
    "bad Content-Length": "bad Content-Length: {content-length}",
    "multiple Transfer-Encoding headers": "more than one Transfer-Encoding: {transfer-encoding}",
    "Only Transfer-Encoding: chunked is supported": "a Transfer-Encoding other than chunked: {transfer-encoding}",
    "continuation line at start of headers": "a folded line before the first field",
}


def _shown(raw: bytes) -> str:
    raw = bytes(raw)
    return repr(raw) if len(raw) <= _SHOWN else f"{raw[:_SHOWN]!r}... ({len(raw)} bytes)"


class Head:
    """A response's head. `fields` is a block of `Name: value` lines, each with its CRLF, unfolded, in their original case.

    `content_length` and `keep_alive_timeout` (seconds) are -1 where there is none; `notes` has bits of NOTE_*; `until_close` says
    that only the connection's end ends the body, the request's method and the status considered.
    """

    __slots__ = ("chunked", "conn_close", "conn_keep_alive", "content_length", "fields", "keep_alive_timeout", "minor", "notes",
                 "reason", "status", "until_close")

    status: int
    reason: bytes
    minor: int
    fields: bytes
    content_length: int
    chunked: int
    conn_close: int
    conn_keep_alive: int
    keep_alive_timeout: int
    notes: int
    until_close: bool


class Fallback:
    """One response to a request of `method`, whose head may take `max_head` bytes (as may its trailer section).

    `feed` bytes as they come, then ask `head()` and `data()`; both answer None where they need more. All of them raise
    RemoteProtocolError, with the phase "headers" or "body" and what was wrong.
    """

    def __init__(self, method: bytes, max_head: int) -> None:
        import h11

        self._method = method
        self._max_head = max_head
        self._state = _HEAD
        self._pending = bytearray()
        self._searched = 0            # bytes of _pending known to hold no end of the element that has begun
        self._eof = False
        self._left = 0                # bytes to come of the body, the chunk or the CRLF
        self._length = 0              # Content-Length
        self._interim_bytes = 0
        self._head: Head | None = None
        self.interim: list[tuple[int, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=max(max_head, MAX_CHUNK_LINE))
        self._h11.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"-")]))
        self._h11.send(h11.EndOfMessage())

    @classmethod
    def resume_chunked(cls, element: int, max_head: int) -> Fallback:
        """Goes on in a chunked body, at the first byte of `element`: CK_HEADER, CK_CRLF or CK_TRAILER.

        Only `feed`, `data`, `trailers` and `leftover` mean anything then.
        """
        lead = {CK_HEADER: b"", CK_CRLF: b"1\r\nx", CK_TRAILER: b"0\r\n"}[element]
        # h11 must see the beginning; the limit is for what follows it.
        self = cls(b"GET", 1024)
        self.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + lead)
        self.head()
        self.data()
        self._max_head = max_head
        return self

    def feed(self, data: bytes) -> None:
        """More bytes; b"" says that the connection has ended."""
        if not data:
            self._eof = True
        elif self._eof:
            raise RuntimeError("bytes behind the end of the connection")
        else:
            self._pending += data

    @property
    def leftover(self) -> bytes:
        """Bytes fed and not used yet: what follows the response, once `data()` gave b""; its body's begin, before the first `data()`."""
        return bytes(self._pending)

    # -- the head ------------------------------------------------------------------------------------------------------

    def head(self) -> Head | None:
        """The final response's head, once it has arrived. Interim ones are skipped and kept in `interim`."""
        while self._head is None:
            raw = self._take_head()
            if raw is None:
                return None
            self._read_head(raw)
        return self._head

    def _take_head(self) -> bytes | None:
        self._check_start()
        end = self._block_end()
        if end > self._max_head or (end == 0 and len(self._pending) >= self._max_head):
            self._bad_head(f"the response's head is over the limit of {self._max_head} bytes")
        if end == 0:
            if self._eof:
                self._bad_head(f"the connection ended within the response's head, after {len(self._pending)} bytes of it")
            return None
        return self._take(end)

    def _check_start(self) -> None:
        """Refuses what cannot become a status line of HTTP/1.0 or 1.1, as soon as there is enough of it to show."""
        line, newline, _ = bytes(self._pending[:_SHOWN * 2]).partition(b"\n")
        if line.startswith((b"HTTP/1.0", b"HTTP/1.1")):
            return
        if line.startswith((b"\x15\x03", b"\x16\x03")):               # a TLS record: an alert, or a handshake (RFC 8446 section 5.1)
            self._bad_head("the server speaks TLS on this port: use https://")
        if not newline:
            if b"HTTP/1.0".startswith(line) or b"HTTP/1.1".startswith(line):
                return
            if len(line) < 16 and not self._eof:
                return
        line = line.removesuffix(b"\r")
        version = _VERSION.match(line)
        if version:
            self._bad_head(f"the server speaks HTTP/{version[1].decode()}, not HTTP/1.1 or 1.0: {_shown(line)}")
        self._bad_head(f"bad status line: {_shown(line)}")

    def _read_head(self, raw: bytes) -> None:
        import h11

        if re.match(rb"HTTP/1\.[01] 101(?:[ \r\n])", raw):
            self._bad_head("the server switched protocols (101), which was not asked for")
        self._h11.receive_data(raw)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as e:
            self._refused_head(raw, str(e))
        assert isinstance(event, (h11.Response, h11.InformationalResponse))
        fields = event.headers.raw_items()
        reason = bytes(event.reason)
        if _CONTROL.search(reason):
            self._bad_head(f"a control character in the reason phrase of status {event.status_code}")
        self._check_values(fields, "headers")
        block = b"".join(b"%b: %b\r\n" % pair for pair in fields)
        if isinstance(event, h11.InformationalResponse):
            self._interim_bytes += len(raw)
            if self._interim_bytes > self._max_head:
                self._bad_head(f"interim (1xx) responses are over the limit of {self._max_head} bytes")
            self.interim.append((event.status_code, block))
            return
        head = Head()
        head.status = event.status_code
        head.reason = reason
        head.minor = 1 if event.http_version == b"1.1" else 0
        head.fields = block
        self._read_facts(head, fields)
        self._begin_body(head)
        self._head = head

    def _read_facts(self, head: Head, fields: list[tuple[bytes, bytes]]) -> None:
        head.content_length = -1
        head.chunked = head.conn_close = head.conn_keep_alive = 0
        head.keep_alive_timeout = -1
        head.notes = 0
        for name, value in fields:
            key = name.lower()
            if key == b"content-length":
                head.content_length = int(value)
            elif key == b"transfer-encoding":
                head.chunked = 1
            elif key == b"connection":
                tokens = [token.strip() for token in value.lower().split(b",")]
                head.conn_close |= b"close" in tokens
                head.conn_keep_alive |= b"keep-alive" in tokens
            elif key == b"set-cookie":
                head.notes |= NOTE_COOKIE
            elif key == b"content-encoding":
                head.notes |= NOTE_CODED
            elif key == b"keep-alive":
                for item in value.split(b","):
                    match = _TIMEOUT.fullmatch(item)
                    if match and not 0 <= head.keep_alive_timeout <= int(match[1]):
                        head.keep_alive_timeout = int(match[1])
        if head.content_length > MAX_LENGTH:
            self._bad_head(f"Content-Length is over {MAX_LENGTH}: {head.content_length}")
        if head.chunked and head.content_length >= 0:
            self._bad_head("both Content-Length and Transfer-Encoding")
        if head.chunked and head.minor == 0:
            self._bad_head("Transfer-Encoding in an HTTP/1.0 response")

    def _begin_body(self, head: Head) -> None:
        """RFC 9112 section 6.3."""
        head.until_close = False
        if self._method == b"CONNECT" and 200 <= head.status < 300:
            self._state = _DONE                   # a tunnel: nothing that follows is HTTP
        elif self._method == b"HEAD" or head.status in (204, 304):
            self._state = _LENGTH
        elif head.chunked:
            self._state = _LINE
        elif head.content_length >= 0:
            self._state = _LENGTH
            self._left = self._length = head.content_length
        else:
            self._state = _CLOSE
            head.until_close = True

    def _refused_head(self, raw: bytes, why: str) -> NoReturn:
        lines = [line.removesuffix(b"\r") for line in raw.split(b"\n")]
        for theirs, ours in _REFUSALS.items():
            if why == theirs:
                for key in ("content-length", "transfer-encoding"):
                    values = [_shown(line.partition(b":")[2].strip()) for line in lines if line.lower().startswith(key.encode() + b":")]
                    ours = ours.replace("{" + key + "}", ", ".join(values))
                self._bad_head(ours)
        if why.startswith("illegal header line"):
            # Never the value: it may be a cookie.
            for line in lines[1:]:
                if not line or line[:1] in (b" ", b"\t"):
                    continue
                field = _FIELD.match(line)
                if field is None:
                    self._bad_head(f"bad field line: {_shown(line.partition(b':')[0])}")
                if _CONTROL.search(line):
                    self._bad_head(f"a control character in field {_shown(field[1])}")
            self._bad_head("a control character in a folded field")
        self._bad_head(f"bad status line: {_shown(lines[0])}")

    # -- the body ------------------------------------------------------------------------------------------------------

    def data(self) -> bytes | None:
        """The next piece of the body; b"" once it has ended, None where more bytes are needed."""
        if self.head() is None:
            return None
        while self._state != _DONE:
            piece = self._step()
            if piece is None or piece:
                return piece
        return b""

    def _step(self) -> bytes | None:
        """One element, or a piece of one: data, b"" where it held none, None where more bytes are needed."""
        state = self._state
        if state == _LINE:
            return self._step_line()
        if state == _TRAILER:
            return self._step_trailer()
        if state == _LENGTH and self._left == 0:
            self._end()
            return b""
        if not self._pending:
            if not self._eof:
                return None
            if state != _CLOSE:
                self._truncated()
            self._h11.receive_data(b"")
            self._end()
            return b""
        if state == _CLOSE:
            return self._decode(len(self._pending))
        count = min(self._left, len(self._pending))
        self._left -= count
        if state == _CRLF:
            self._silent(self._take(count), "bytes other than CRLF behind a chunk's data")
            if self._left == 0:
                self._state = _LINE
            return b""
        piece = self._decode(count)
        if state == _DATA and self._left == 0:
            self._state, self._left = _CRLF, 2
        return piece

    def _step_line(self) -> bytes | None:
        end = self._pending.find(b"\r\n", max(0, self._searched - 1), MAX_CHUNK_LINE)
        if end < 0:
            self._searched = len(self._pending)
            if self._searched >= MAX_CHUNK_LINE:
                self._bad_body(f"a chunk's header line is over the limit of {MAX_CHUNK_LINE} bytes")
            if self._eof:
                self._truncated()
            return None
        line = self._take(end + 2)
        if _CONTROL.search(line, 0, end):
            self._bad_body("a control character in a chunk's header line")
        self._silent(line, f"bad chunk size: {_shown(line[:end])}")
        match = re.match(rb"[0-9A-Fa-f]+", line)
        assert match is not None
        self._left = int(match[0], 16)
        if self._left > MAX_LENGTH:
            self._bad_body(f"a chunk's size is over {MAX_LENGTH}: {_shown(line[:end])}")
        self._state = _DATA if self._left else _TRAILER
        return b""

    def _step_trailer(self) -> bytes | None:
        import h11

        end = self._block_end()
        if end > self._max_head or (end == 0 and len(self._pending) >= self._max_head):
            self._bad_body(f"the trailer section is over the limit of {self._max_head} bytes")
        if end == 0:
            if self._eof:
                self._truncated()
            return None
        self._h11.receive_data(self._take(end))
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as e:
            self._bad_body("a bad field in the trailer section" if str(e).startswith("illegal header line") else f"trailer section: {e}")
        assert isinstance(event, h11.EndOfMessage)
        trailers = event.headers.raw_items()
        self._check_values(trailers, "body")
        self.trailers = [(bytes(name), bytes(value)) for name, value in trailers]
        self._state = _DONE
        return b""

    def _decode(self, count: int) -> bytes:
        import h11

        self._h11.receive_data(self._take(count))
        event = self._h11.next_event()
        assert isinstance(event, h11.Data)
        return bytes(event.data)

    def _silent(self, raw: bytes, wrong: str) -> None:
        """Gives h11 an element that carries no data; `wrong` says what it is if h11 refuses it."""
        import h11

        self._h11.receive_data(raw)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError:
            self._bad_body(wrong)
        assert event is h11.NEED_DATA

    def _end(self) -> None:
        import h11

        event = self._h11.next_event()
        assert isinstance(event, h11.EndOfMessage)
        self._state = _DONE

    def _truncated(self) -> NoReturn:
        if self._state == _LENGTH:
            self._bad_body(f"truncated body: got {self._length - self._left} of {self._length} bytes")
        where = {_LINE: "before a chunk's size", _DATA: f"{self._left} bytes before the end of a chunk", _CRLF: "behind a chunk's data",
                 _TRAILER: "in the trailer section"}[self._state]
        self._bad_body(f"truncated body: the connection ended {where}")

    # -- both ----------------------------------------------------------------------------------------------------------

    def _block_end(self) -> int:
        """The length of a block of lines that a blank one ends, as h11 finds it; 0 where it has not arrived."""
        pending = self._pending
        if pending.startswith(b"\n"):
            return 1
        if pending.startswith(b"\r\n"):
            return 2
        match = _BLANK.search(pending, self._searched)
        if match is None:
            self._searched = max(0, len(pending) - 2)
            return 0
        return match.end()

    def _take(self, count: int) -> bytes:
        raw = bytes(self._pending[:count])
        del self._pending[:count]
        self._searched = 0
        return raw

    def _check_values(self, fields: list[tuple[bytes, bytes]], phase: str) -> None:
        for name, value in fields:
            if _CONTROL.search(value):
                raise RemoteProtocolError(f"a control character in field {_shown(name)}", phase=phase)

    def _bad_head(self, message: str) -> NoReturn:
        raise RemoteProtocolError(message, phase="headers")

    def _bad_body(self, message: str) -> NoReturn:
        raise RemoteProtocolError(message, phase="body")
