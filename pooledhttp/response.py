"""A response: its head parsed when it is asked for, its body in memory or read as a stream."""
from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator

from pooledhttp._trip.trip import install_response
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import Error, HTTPStatusError, ResponseTooLarge, StreamClosed, StreamConsumed, StreamError
from pooledhttp.headers import Headers, HeaderTypes
from pooledhttp.lines import LineSplitter, parse_links
from pooledhttp.replies import Guard, IterReply, PickledReply, too_large
from pooledhttp.request import Request
from pooledhttp.transport import install_response_factory
from pooledhttp.url import URL

if TYPE_CHECKING:
    from datetime import timedelta

    from pooledhttp.conninfo import ConnInfo
    from pooledhttp.cookies import Cookies
    from pooledhttp.events import EventStream

CHUNK = 65536
SETS_COOKIES = 1    # in a reply's notes: there is a Set-Cookie field
CODED = 2           # in a reply's notes: there is a Content-Encoding field
MAX_EVENT = 1 << 24
# Encodings that a byte order mark says the order of: this machine's, where there is none.
_MARKS = {"utf-16": (codecs.BOM_UTF16, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-32": (codecs.BOM_UTF32, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}

# Where the body is. MEMORY: whole. UNREAD: nobody took it (`read(n)` may have taken some). READING: an iterator has it.
# CONSUMED: it was read, and not kept. CLOSED: closed before its end.
MEMORY, UNREAD, READING, CONSUMED, CLOSED = range(5)


def check_encoding(name: str) -> None:
    """LookupError for a codec that does not make text of whatever bytes come: hex, zlib, idna, ..."""
    try:
        b"\xff".decode(name, "replace")
    except ValueError as e:                    # UnicodeError is one; and so is a NUL in the name
        raise LookupError(f"{name!r} is no encoding that text can be read by: {e}") from None


def _marked(pieces: Iterator[bytes], marks: tuple[bytes, ...]) -> Iterator[bytes]:
    """`pieces` with a byte order mark: where they have none, Python's decoder of a stream gives up, and `bytes.decode` takes this machine's order."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= len(marks[0]):
            break
    if not head.startswith(marks):
        yield marks[0]
    yield head
    yield from pieces


class Response:
    """A response. What the head holds is read from it when it is first asked for.

    `status_code`; `reason`; `http_version` ("HTTP/1.1"); `headers` (`Headers`); `trailers`, a `Headers` too, complete once the body was
    read; `request`; `url`; `history`, the responses before it, redirects or steps of an auth; `cookies`, a `Cookies` of what it set;
    `elapsed`, a timedelta to the end of the head; `timings`, seconds per phase; `conn`, a `ConnInfo`, or None where no wire was involved;
    `content`, the whole body: reading it from a stream reads the rest, and keeps it.

    The body is decoded where `Content-Encoding` names gzip, deflate, br or zstd (the last two where something is installed that does
    it), but for `iter_raw`; a part of a coded whole (206), or a body in a coding that is not known, is as it came. The headers stay as
    they came. Broken coding: DecodingError.

    By hand: `Response(200, headers=..., content=...)`, where content is bytes, str (UTF-8), or an iterable of bytes (a stream), and is
    decoded as well.
    """

    # Slots that hold nothing yet are made by __getattr__, which is called for them alone. So a response costs
    # what is read of it, and an attribute that was read once costs no more than any other.
    __slots__ = ("__weakref__", "_codings", "_encoding", "_guard", "_limit", "_made", "_pos", "_raw", "_reply", "_seen", "_source", "_state",
                 "conn", "content", "cookies", "default_encoding", "elapsed", "headers", "history", "http_version", "reason", "request", "status_code",
                 "timings", "url")
    status_code: int
    reason: str
    http_version: str
    headers: Headers
    content: bytes
    request: Request | None
    url: URL | None
    history: list[Response]
    cookies: Cookies            # those that this response set
    elapsed: timedelta
    timings: dict[str, float]
    conn: ConnInfo | None
    default_encoding: str
    _reply: Any                 # the transport's Reply; None where there is none
    _source: Any                # what the decoded body is read from: the reply itself, where nothing is decoded
    _codings: tuple[str, ...]   # to be undone
    _raw: bytes | None          # in memory and decoded: what was on the wire, where it was kept
    _made: Any                  # the Prepared it was made from, where no Request object was needed
    _encoding: str | None       # what the user set
    _guard: Guard | None
    _limit: int                 # the body's greatest size, -1: none
    _pos: int                   # in memory: where read(n) and readinto go on
    _seen: int                  # streamed: bytes handed out
    _state: int

    def __init__(self, status_code: int, *, headers: HeaderTypes = None, content: bytes | str | Iterable[bytes] = b"",
                 request: Request | None = None) -> None:
        if isinstance(status_code, bool) or not isinstance(status_code, int) or not 100 <= status_code <= 999:
            raise ValueError(f"a status code is an int of three digits, not {status_code!r}")
        self.status_code = status_code
        self.headers = Headers(headers)
        self.request = request
        if isinstance(content, str):
            content = content.encode("utf-8")
        if isinstance(content, (bytes, bytearray, memoryview)):
            self._raw = bytes(content)
            self.content = self._whole()
        else:
            self._reply = IterReply(content)
            self._state = UNREAD

    @classmethod
    def from_reply(cls, reply: Any, request: Request | None) -> Response:
        """From what `Transport.exchange` returned, its body read or not. What is coded is decoded when it is wanted."""
        self = cls.__new__(cls)
        self.status_code = reply.status
        self._reply = reply
        if request is not None:
            self.request = request
        content = reply.content
        if content is None:
            self._state = UNREAD
            self._guard = Guard(reply, f"{request.method} {request.url.redacted}" if request is not None else "a request")
        elif reply.notes & CODED:
            self._raw = content
        else:
            self.content = content
        return self

    if not TYPE_CHECKING:
        def __getattr__(self, name):
            make = _MAKE.get(name)
            if make is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = make(self)
            setattr(self, name, value)
            return value

    # --- the head -------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        return self.status_code

    @property
    def reason_phrase(self) -> str:
        return self.reason

    @property
    def trailers(self) -> Headers:
        return Headers(self._reply.trailers if self._reply is not None else None)

    @property
    def ok(self) -> bool:
        """The status is under 400."""
        return self.status_code < 400

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    @property
    def is_redirect(self) -> bool:
        """A status that asks for another request, and where to (RFC 9110 section 15.4)."""
        return self.status_code in (301, 302, 303, 307, 308) and "location" in self.headers

    @property
    def is_client_error(self) -> bool:
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        return 500 <= self.status_code < 600

    @property
    def links(self) -> dict[str, dict[str, str]]:
        """The `Link` fields (RFC 8288), by `rel`, or by URL where there is none: `r.links["next"]["url"]`."""
        return {key: link for link in parse_links(self.headers.get("link", "")) for key in (link.get("rel") or link["url"]).split()}

    def raise_for_status(self) -> Response:
        """Raises HTTPStatusError for 400 to 599; else returns the response."""
        status = self.status_code
        if status < 400 or status > 599:
            return self
        request = self.request
        what = f" for {request.method} {request.url.redacted}" if request is not None else ""
        kind = "client" if status < 500 else "server"
        raise HTTPStatusError(f"{kind} error {status} {self.reason}".rstrip() + what, request=request, response=self)

    # --- the body as text -----------------------------------------------------------------------------------------------

    @property
    def data(self) -> bytes:
        return self.content

    @property
    def encoding(self) -> str:
        """What was set; else the charset that Content-Type names, where Python knows it; else the client's `default_encoding`."""
        return self._encoding or self._charset() or self.default_encoding

    @encoding.setter
    def encoding(self, name: str | None) -> None:
        if name is not None:
            check_encoding(name)               # LookupError now and not at the reading
        self._encoding = name

    def _charset(self) -> str | None:
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                value = value.strip(" \t\"'")
                try:
                    check_encoding(value)
                except LookupError:
                    return None
                return str(value)
        return None

    @property
    def text(self) -> str:
        """`content` decoded by `encoding`; bytes that it does not decode are replaced."""
        return self.content.decode(self.encoding, "replace")

    def json(self, **kw: Any) -> Any:
        """`content` as JSON in UTF-8, UTF-16 or UTF-32 (RFC 8259; `kw` as for `json.loads`). Raises JSONDecodeError."""
        import json

        content = self.content
        try:
            return json.loads(content, **kw)
        except json.JSONDecodeError as e:
            args = e.msg, e.doc, e.pos
        except UnicodeDecodeError as e:
            args = f"not {e.encoding}: {e.reason}", content.decode("latin-1"), e.start
        except (RecursionError, ValueError) as e:          # what Python does not read: nested too deep, a number too long
            if kw:
                raise                                      # it may be the caller's own
            args = str(e), content.decode("latin-1"), 0
        from pooledhttp import errors

        err = errors.JSONDecodeError(*args)
        err.request = self.request
        raise err from None

    # --- the body as a stream -------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the connection was given back or closed; True once the body was read."""
        return self._state not in (UNREAD, READING)

    def close(self) -> None:
        """Give the connection back, or close it where much of the body is still to come. Does nothing the second time."""
        if self._state in (UNREAD, READING):
            self._end(CLOSED)

    def _end(self, state: int) -> None:
        self._state = state
        guard = self._guard
        if guard is not None:
            guard.reply = None
        self._reply.close()

    def _fail(self, e: BaseException) -> None:
        if isinstance(e, Error) and e.request is None:
            e.request = self.request
        if type(e) is not StreamError:                     # another thread reads it: that one may go on
            self._end(CLOSED)

    def _unusable(self) -> Error | None:
        if self._state == CLOSED:
            return StreamClosed("the response was closed before its body was read", request=self.request)
        if self._state != UNREAD:
            return StreamConsumed("the response's body was already read as a stream", request=self.request)
        return None

    def _room(self, n: int) -> int:
        """How many bytes to ask for so that one byte too many is noticed, and not handed out."""
        return n if self._limit < 0 else min(n, self._limit - self._seen + 1)

    def check_size(self, limit: int) -> None:
        """Hold the body to `limit` bytes (-1: none), now where it is in memory, and decoded, or as it is read. ResponseTooLarge, DecodingError."""
        self._limit = limit
        if self._state == MEMORY and len(self.content) > limit >= 0:
            raise ResponseTooLarge(too_large(limit), request=self.request, phase="body", conn=self.conn)

    def _count(self, n: int) -> None:
        self._seen += n
        if 0 <= self._limit < self._seen:
            raise ResponseTooLarge(too_large(self._limit), phase="body", conn=self.conn)

    def _piece(self, n: int, raw: bool = False) -> bytes:
        """Up to n bytes as they arrive; at the body's end b"", and the response is closed."""
        try:
            data: bytes = (self._reply if raw else self._source).read(self._room(n))
            if data:
                self._count(len(data))
            else:
                self._end(CONSUMED)
            return data
        except BaseException as e:                     # a signal's handler may raise anything, and what was just read is lost
            self._fail(e)
            raise

    def _whole(self) -> bytes:
        """What `content` is: decoded where it is in memory, else read."""
        raw = self._raw
        if raw is None:
            return self._read_all()
        if not raw or not self._codings:
            return raw
        from pooledhttp.decoders import decode

        try:
            return decode(raw, self._codings, self._limit, self.conn)
        except Error as e:
            e.request = self.request
            raise

    def _read_all(self) -> bytes:
        """The whole of an unread body, kept as `content`."""
        if self._seen:
            raise StreamConsumed("the response's body was already read in part", request=self.request)
        problem = self._unusable()
        if problem is not None:
            raise problem
        try:
            content: bytes = self._source.read_all(self._limit)
            self.content = content
        except BaseException as e:                     # a signal's handler may raise anything, and what was just read is lost
            self._fail(e)
            raise
        self._end(MEMORY)
        return content

    def read(self, size: int = -1) -> bytes:
        """The body: whole, and kept as `content`; or, with `size` (bytes), the next part of it as from a file, b"" at its end."""
        if self._state == MEMORY:
            content, pos = self.content, self._pos
            if size < 0 and not pos:
                return content
            self._pos = end = len(content) if size < 0 else min(len(content), pos + size)
            return content[pos:end]
        if size < 0 and not self._seen:
            return self._read_all()
        if self._state == CONSUMED and self._pos < 0:
            return b""                                 # the end was reached by read(n): as from a file, again and again
        problem = self._unusable()
        if problem is not None:
            raise problem
        parts = []
        try:
            while size:
                data = self._piece(CHUNK if size < 0 else min(size, 16 * CHUNK))
                if not data:
                    self._pos = -1
                    break
                parts.append(data)
                if size > 0:
                    size -= len(data)
        except BaseException as e:
            if parts:                                      # what was read before it is lost: nothing may follow it
                self._fail(e)
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` (writable, contiguous) with the next bytes of the body as they arrive: how many, 0 at its end."""
        view = memoryview(buffer).cast("B")
        if self._state == MEMORY:
            data = self.read(view.nbytes)
            view[:len(data)] = data
            return len(data)
        if self._state == CONSUMED and self._pos < 0:
            return 0
        problem = self._unusable()
        if problem is not None:
            raise problem
        if not view.nbytes:
            return 0
        try:
            n: int = self._source.readinto(view[:self._room(view.nbytes)])
            if n:
                self._count(n)
            else:
                self._pos = -1
                self._end(CONSUMED)
            return n
        except BaseException as e:                     # a signal's handler may raise anything, and what was just read is lost
            self._fail(e)
            raise

    def iter_bytes(self, chunk_size: int | None = CHUNK) -> Iterator[bytes]:
        """The body in pieces of at most `chunk_size` bytes, as they arrive. What is in memory can be iterated again, a stream once."""
        return self._iterate(chunk_size, False)

    iter_content = iter_bytes

    def iter_raw(self, chunk_size: int | None = CHUNK) -> Iterator[bytes]:
        """The same before it is decoded, as on the wire. Of a body that was decoded as it arrived, or pickled, that is not kept: StreamConsumed."""
        return self._iterate(chunk_size, True)

    def _iterate(self, chunk_size: int | None, raw: bool) -> Iterator[bytes]:
        size = CHUNK if chunk_size is None else chunk_size
        if size < 1:
            raise ValueError("chunk_size is at least 1")
        if self._state == MEMORY:
            if not raw or self._raw is None:
                content = self.content
                if raw and content and self._codings:
                    raise StreamConsumed("the response's body was decoded, and what was on the wire is not kept", request=self.request)
            else:
                content = self._raw
            for at in range(0, len(content), size):
                yield content[at:at + size]
            return
        problem = self._unusable()
        if problem is not None:
            raise problem
        if raw and self._seen and self._codings:
            raise StreamConsumed("the response's body was already read in part, and decoded", request=self.request)
        self._state = READING
        while self._state == READING:
            data = self._piece(size, raw)
            if not data:
                return
            yield data
        raise StreamClosed("the response was closed while its body was read", request=self.request)

    def iter_text(self, chunk_size: int | None = CHUNK) -> Iterator[str]:
        """The body decoded by `encoding`, piece by piece; a character is never split."""
        encoding = codecs.lookup(self.encoding)
        decoder = codecs.getincrementaldecoder(encoding.name)("replace")
        pieces = self.iter_bytes(chunk_size)
        for data in _marked(pieces, _MARKS[encoding.name]) if encoding.name in _MARKS else pieces:
            text = decoder.decode(data)
            if text:
                yield text
        text = decoder.decode(b"", True)
        if text:
            yield text

    def iter_lines(self, chunk_size: int | None = CHUNK) -> Iterator[str]:
        """The body's lines as they arrive, without their ends, which are LF, CR LF or CR as in Python's text files."""
        splitter = LineSplitter()
        for text in self.iter_text(chunk_size):
            yield from splitter.feed(text)
        yield from splitter.end()

    def iter_events(self, *, max_event_bytes: int = MAX_EVENT) -> EventStream:
        """The body as server-sent events (WHATWG HTML, section 9.2), each as soon as it is complete: `.id`, `.event`, `.data`, `.retry`.

        One of more than `max_event_bytes` is a ResponseTooLarge. Between two events the silence may last as long as `Timeout.read` says.
        """
        from pooledhttp.events import EventStream

        return EventStream(self, max_event_bytes)

    # --- the object -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason}]>" if self.reason else f"<Response [{self.status_code}]>"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the connection; an unread body is read first."""
        if self._state == UNREAD and not self._seen:
            self._read_all()
        state = {name: getattr(self, name) for name in _PICKLED}
        if self._state == MEMORY:
            state["content"] = self.content
        else:
            state["_state"] = CLOSED if self._state == CLOSED else CONSUMED
        state["_reply"] = PickledReply(self.trailers.multi_items(), CODED if self._codings else 0)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


_PICKLED = ("status_code", "reason", "http_version", "headers", "request", "url", "history", "elapsed", "timings", "conn",
            "default_encoding", "_encoding")


def _headers(r: Response) -> Headers:
    return Headers.from_wire(r._reply.head)


def _reason(r: Response) -> str:
    reason = r._reply.reason if r._reply is not None else None
    if reason is not None:
        return str(reason)
    from http import HTTPStatus

    try:
        return HTTPStatus(r.status_code).phrase
    except ValueError:
        return ""


def _request(r: Response) -> Request | None:
    return Request.from_wire(r._made.wire) if r._made is not None else None


def _url(r: Response) -> URL | None:
    return r.request.url if r.request is not None else None


def _codings(r: Response) -> tuple[str, ...]:
    if r._reply is not None and not r._reply.notes & CODED:
        return ()
    from pooledhttp.decoders import codings

    return codings(r.headers, r.status_code)


def _source(r: Response) -> Any:
    if not r._codings:
        return r._reply
    from pooledhttp.decoders import Decoded

    return Decoded(r._reply, r._codings)


def _elapsed(r: Response) -> timedelta:
    from datetime import timedelta

    return timedelta(seconds=r._reply.elapsed if r._reply is not None else 0.0)


def _cookies(r: Response) -> Cookies:
    from pooledhttp.cookies import set_by

    return set_by(r)


_MAKE: dict[str, Callable[[Response], Any]] = {
    "headers": _headers,
    "reason": _reason,
    "http_version": lambda r: r._reply.version if r._reply is not None else "HTTP/1.1",
    "request": _request,
    "url": _url,
    "history": lambda r: [],
    "cookies": _cookies,
    "elapsed": _elapsed,
    "timings": lambda r: r._reply.timings if r._reply is not None else {},
    "conn": lambda r: r._reply.conn if r._reply is not None else None,
    "content": Response._whole,
    "default_encoding": lambda r: "utf-8",
    "_reply": lambda r: None,
    "_codings": _codings,
    "_source": _source,
    "_raw": lambda r: None,
    "_made": lambda r: None,
    "_encoding": lambda r: None,
    "_guard": lambda r: None,
    "_limit": lambda r: -1,
    "_pos": lambda r: 0,
    "_seen": lambda r: 0,
    "_state": lambda r: MEMORY,
}

install_response_factory(Response.from_reply)
install_response(Response)
