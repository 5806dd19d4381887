"""Request bodies: what callers give as `content`, `data`, `files` or `json`, as bytes or as a source of pieces.

A source is iterated once a try, by whoever sends it: files are read in pieces of 256 KiB and are never whole in memory. A known
length that the source does not fulfil is a LocalProtocolError, raised where it shows, so that no request is framed wrongly.
"""
from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from stat import S_ISREG

from pooledhttp._conn.connection import FilePiece
from pooledhttp._proto.writer import field_block
from pooledhttp._typing import Any
from pooledhttp.errors import LocalProtocolError, StreamClosed, StreamConsumed
from pooledhttp.headers import header_fields
from pooledhttp.url import encode_form

PIECE = 256 * 1024
_encode_json: Callable[[Any], str] | None = None      # made when first needed: json is not imported before
_STRAIGHT = 64 * 1024        # a file at least this large goes from the kernel to the socket
_COPIED = 64 * 1024          # a writable buffer up to this size is copied; a larger one is sent from where it is
# RFC 9110 section 6.5.1: what frames, routes, authenticates or changes a message is too late behind it.
_NO_TRAILER = frozenset((
    b"age", b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length", b"content-range", b"content-type", b"cookie",
    b"date", b"expect", b"expires", b"host", b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"keep-alive",
    b"location", b"max-forwards", b"pragma", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"range", b"retry-after",
    b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"vary", b"warning", b"www-authenticate"))


class BodySource:
    """A body that is sent piece by piece. `length` in bytes, or None where it is not known (it is then sent chunked).

    `trailers` are the fields sent behind a chunked body: a mapping or pairs, or a callable that gives them once the body is sent.
    """

    __slots__ = ("length", "started", "trailers")

    def __init__(self, length: int | None, trailers: Any = None) -> None:
        self.length = length
        self.started = False
        self.trailers = trailers

    def rewind(self) -> bool:
        """Make ready to be iterated from the start again; False where that cannot be."""
        self.started = False
        return True

    def pieces(self) -> Iterator[Any]:
        """The bytes-like pieces, from the start."""
        raise NotImplementedError

    def spans(self) -> Iterator[Any]:
        """The same for the transport, to which a part of a file may be named by a FilePiece."""
        return self.pieces()

    def trailer_section(self) -> bytes:
        """The trailer fields as sent (RFC 9112 section 7.1.2). LocalProtocolError for what may not be one, or is no field."""
        given = self.trailers() if callable(self.trailers) else self.trailers
        if not given:
            return b""
        section = field_block(header_fields(given))
        for line in section.split(b"\r\n"):
            name = line.partition(b":")[0]
            if name.lower() in _NO_TRAILER:
                raise LocalProtocolError(f"{name.decode()} may not be sent as a trailer (RFC 9110 section 6.5.1)", phase="send")
        return section

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        return self._checked(self.pieces())

    def sendable(self) -> Iterator[Any]:
        """What the transport iterates: bytes-like pieces and FilePieces."""
        self._begin()
        return self._checked(self.spans())

    def _begin(self) -> None:
        if self.started and not self.rewind():
            raise StreamConsumed("the request's body was already sent and cannot be sent again")
        self.started = True

    def _checked(self, pieces: Iterator[Any]) -> Iterator[Any]:
        left = self.length
        for piece in pieces:
            if isinstance(piece, memoryview):
                size = piece.nbytes
            elif isinstance(piece, (bytes, bytearray)):
                size = len(piece)
            elif isinstance(piece, FilePiece):
                size = piece.size
            else:
                raise TypeError(f"a piece of a request's body is bytes-like, not {type(piece).__name__}")
            if not size:
                continue
            if left is not None:
                left -= size
                if left < 0:
                    raise LocalProtocolError(f"the request's body is longer than its Content-Length of {self.length}", phase="send")
            yield piece
        if left:
            raise LocalProtocolError(f"the request's body ended {left} bytes short of its Content-Length of {self.length}", phase="send")


def rewound(body: bytes | BodySource | None) -> bool:
    """Whether `body` can be sent (again) now, made ready for it; what cannot be sought any more, as a file that was closed, cannot."""
    if not isinstance(body, BodySource):
        return True
    try:
        return body.rewind()
    except (OSError, ValueError):
        return False


class BufferBody(BodySource):
    """A writable or large buffer, sent from where it is."""

    __slots__ = ("view",)

    def __init__(self, view: memoryview) -> None:
        self.view = view.cast("B")
        super().__init__(self.view.nbytes)

    def pieces(self) -> Iterator[Any]:
        for at in range(0, len(self.view), PIECE):
            yield self.view[at:at + PIECE]


class ListBody(BodySource):
    """A list or tuple of bytes."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[bytes] | tuple[bytes, ...]) -> None:
        self.parts = parts
        length = 0
        for part in parts:
            if not isinstance(part, (bytes, bytearray)):
                raise TypeError(f"a piece of a request's body is bytes-like, not {type(part).__name__}")
            length += len(part)
        super().__init__(length)

    def pieces(self) -> Iterator[Any]:
        return iter(self.parts)


class IterBody(BodySource):
    """Any iterable of bytes; one that is its own iterator can be sent only once."""

    __slots__ = ("iterable",)

    def __init__(self, iterable: Iterable[bytes]) -> None:
        if getattr(iterable, "gi_frame", iterable) is None:
            raise StreamConsumed("the generator given as a request's body has run to its end already: make another")
        self.iterable = iterable
        super().__init__(None, getattr(iterable, "trailers", None) or None)

    def rewind(self) -> bool:
        if not self.started:
            return True
        if isinstance(self.iterable, Iterator):
            return False
        return super().rewind()

    def pieces(self) -> Iterator[Any]:
        return iter(self.iterable)


class ChunkedBody(BodySource):
    """Bytes that the caller wants sent chunked."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__(None)

    def pieces(self) -> Iterator[Any]:
        return iter((self.data,))


class FileBody(BodySource):
    """A binary file, from where it stands to its end. Where that is known, its growth while it is sent is left out.

    What has a `read` is a file; without `seek` its length is what its `len` (an int) or `len()` says, or unknown. ValueError for a closed one.
    """

    __slots__ = ("file", "start")

    def __init__(self, file: Any) -> None:
        if isinstance(file, io.TextIOBase):
            raise TypeError("a file is sent from its bytes: open it in binary mode ('rb')")
        if _is_closed(file):
            raise ValueError("the file given as a request's body is closed")
        self.file = file
        self.start: int | None = None
        try:
            # Not fstat: a gzip.GzipFile has a descriptor as well, of other bytes. Nor what seek returns: some return nothing.
            start = file.tell()
            file.seek(0, 2)
            length: int | None = max(0, file.tell() - start)
            file.seek(start)
            self.start = start
        except (OSError, AttributeError, ValueError, TypeError):
            length = _stated_length(file)     # a pipe, a socket, or a file-like object that only reads
        trailers = getattr(file, "trailers", None) or None
        super().__init__(length if trailers is None else None, trailers)

    def _begin(self) -> None:
        if _is_closed(self.file):
            raise StreamClosed("the file that is the request's body was closed before it was sent")
        super()._begin()

    def rewind(self) -> bool:
        if not self.started:
            return True
        if self.start is None:
            return False
        try:
            self.file.seek(self.start)
        except (OSError, ValueError):         # closed meanwhile
            return False
        return super().rewind()

    def pieces(self) -> Iterator[Any]:
        read: Callable[[int], Any] = self.file.read
        left = self.length
        if self.start is not None and self.file.tell() != self.start:
            self.file.seek(self.start)        # sent before, or moved since the request was made
        while left is None or left > 0:
            piece = read(PIECE if left is None else min(PIECE, left))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece

    def spans(self) -> Iterator[Any]:
        file, start, length = self.file, self.start, self.length
        # What a subclass reads may be other bytes than its descriptor's, and a writer's may still be in its buffer.
        raw = file.raw if type(file) is io.BufferedReader else file
        if length is None or start is None or length < _STRAIGHT or type(raw) is not io.FileIO or not S_ISREG(os.fstat(raw.fileno()).st_mode):
            yield from self.pieces()
            return
        yield FilePiece(raw.fileno(), start, length)
        if not file.closed:
            file.seek(start + length)          # as if it had been read


def _is_closed(file: Any) -> bool:
    return getattr(file, "closed", False) is True


def _stated_length(file: Any) -> int | None:
    """How much a file-like object that cannot seek says that it gives."""
    stated = getattr(file, "len", None)
    if stated is None and hasattr(type(file), "__len__"):
        stated = len(file)
    return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0 else None


class GoneBody(BodySource):
    """Stands in a pickled request for a body that could not travel."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None)

    def rewind(self) -> bool:
        return False

    def pieces(self) -> Iterator[Any]:
        raise StreamConsumed("the request was pickled, and its body did not travel with it")


def _dump_json(value: Any) -> bytes:
    """Compact UTF-8; a lone surrogate, which UTF-8 cannot hold, makes the text ASCII with escapes. NaN is a ValueError (RFC 8259)."""
    global _encode_json
    if _encode_json is None:
        from json import JSONEncoder

        _encode_json = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
    try:
        return _encode_json(value).encode("utf-8")
    except UnicodeEncodeError:
        from json import dumps

        return dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _is_pairs(data: Any) -> bool:
    return isinstance(data, (list, tuple)) and bool(data) and all(isinstance(p, (tuple, list)) and len(p) == 2 for p in data)


def encode_content(content: Any) -> bytes | BodySource:
    """bytes, str (as UTF-8), another buffer, a binary file, or an iterable of bytes."""
    if isinstance(content, bytes):
        return content if type(content) is bytes else bytes(content)
    if isinstance(content, str):
        return content.encode("utf-8")
    if isinstance(content, BodySource):
        return content
    if isinstance(content, (bytearray, memoryview)):
        view = memoryview(content)
        return bytes(view) if view.nbytes <= _COPIED or not view.c_contiguous else BufferBody(view)
    if hasattr(content, "read"):
        return FileBody(content)
    if isinstance(content, Mapping):
        raise TypeError("content is bytes, str, a file or an iterable of bytes: a mapping goes in data= (a form) or json=")
    if isinstance(content, (list, tuple)) and not getattr(content, "trailers", None):
        return ListBody(content)
    if isinstance(content, Iterable):
        return IterBody(content)
    raise TypeError(f"content is bytes, str, a file or an iterable of bytes, not {type(content).__name__}")


def encode_body(content: Any, data: Any, json: Any, files: Any = None, content_type: str | None = None) -> tuple[bytes | BodySource | None, str | None]:
    """The body, and the Content-Type that goes with it, of the one argument that is not None. Two of them are a TypeError.

    But `data` may stand beside `files` (none of which is as if it was not given); `content_type` is then the caller's own.
    """
    if files is not None:
        from pooledhttp.multipart import encode_multipart

        body, kind = encode_multipart(files, data, content_type)
        if body is not None:
            if content is not None or json is not None:
                raise TypeError(f"a request has one body: {'json' if content is None else 'content'} and files are given")
            return body, kind
    if (content is not None) + (data is not None) + (json is not None) > 1:
        names = [name for name, value in (("content", content), ("data", data), ("json", json)) if value is not None]
        raise TypeError(f"a request has one body: {' and '.join(names)} are given")
    if json is not None:
        return _dump_json(json), "application/json"
    if data is not None:
        if isinstance(data, Mapping) or _is_pairs(data):
            return encode_form(data), "application/x-www-form-urlencoded"
        return encode_content(data), None
    if content is not None:
        return encode_content(content), None
    return None, None
