"""What another library has prepared, as a `Request` of ours: its target, its fields and its body as they are."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from pooledhttp.content import IterBody, rewound
from pooledhttp.headers import Headers
from pooledhttp.request import Request
from pooledhttp.response import CHUNK, Response
from pooledhttp.url import URL

_TARGET = "!#$%&'()*+,/:;=?@[]~"         # what may stand in a target, or is left to whoever wrote it


def origin(scheme: str, host: str, port: int | None) -> URL:
    """The URL of an origin's root; `host` is a name, or an address without brackets. Raises InvalidURL, UnsupportedProtocol."""
    where = f"[{host}]" if ":" in host else host
    url = URL(f"{scheme}://{where}/" if port is None else f"{scheme}://{where}:{port}/")
    url.effective_port                                         # noqa: B018 - the scheme is one we speak
    return url


def beneath(root: URL, target: str) -> URL:
    """The URL of `target` (path and query) at the origin `root`, which is sent as it is spelled: dots and escapes are not touched."""
    if not target.isascii() or not target.isprintable() or " " in target:
        target = quote(target, safe=_TARGET)
    url = URL(root.origin + target) if target.startswith("/") else root
    if url.target == target:
        return url
    own: URL = str.__new__(URL, root.origin + target)
    for name in URL.__slots__:
        setattr(own, name, getattr(root, name))
    own.path, _, own.query = target.partition("?")
    own.target = target
    return own


def request(method: str, url: URL, fields: Iterable[tuple[str | bytes, str | bytes]], body: Any) -> Request:
    """A request that no client completes. Raises LocalProtocolError for what HTTP does not allow."""
    made = Request(method, url, headers=Headers(fields), content=body)
    made.complete = True
    return made


class Once(IterBody):
    """An iterable that is sent once, whatever it is: nobody knows whether it can be iterated again."""

    __slots__ = ()

    def rewind(self) -> bool:
        return not self.started


class TextBody(IterBody):
    """An iterable whose pieces are bytes or str (sent as UTF-8)."""

    __slots__ = ()

    def __init__(self, iterable: Iterable[Any]) -> None:
        super().__init__(iterable)

    def pieces(self) -> Iterator[Any]:
        for piece in self.iterable:
            yield piece.encode("utf-8") if isinstance(piece, str) else piece


def rewindable(sent: Request) -> bool:
    """Whether the request can be sent again."""
    return rewound(sent.body)


class RawBody:
    """A response's undecoded body, as a file: closed, and its connection given back, as soon as its last byte was read.

    `translate` makes of an error what is raised for it.
    """

    def __init__(self, response: Response, translate: Callable[[Exception], Exception]) -> None:
        self._response = response
        self._translate = translate
        self._pieces = response.iter_raw(CHUNK)
        self._piece = b""
        self._at = 0                   # how much of the piece was handed out
        self._left = _length(response)
        self.closed = False
        if self._left == 0:
            self._next()

    def _next(self) -> None:
        """Take the next piece as it arrives; at the end it is b"", and the body closed."""
        self._at = 0
        self._piece = b""
        if self.closed:
            return
        try:
            self._piece = next(self._pieces, b"")
        except Exception as e:
            self.close()
            raise self._translate(e) from e
        except BaseException:
            self.close()
            raise
        if not self._piece:
            self.close()

    def read1(self, n: int | None = None) -> bytes:
        """Up to `n` bytes (None: what comes) as they arrive, b"" at the end."""
        if n == 0:
            return b""
        if self._at == len(self._piece):
            self._next()
        at, piece = self._at, self._piece
        self._at = end = len(piece) if n is None or n < 0 else min(len(piece), at + n)
        data = piece if not at and end == len(piece) else piece[at:end]
        if self._left is not None and data:
            self._left -= len(data)
            if self._left == 0 and self._at == len(piece):
                self._next()                                  # the end, which is there already
        return data

    def read(self, n: int | None = None) -> bytes:
        """`n` bytes, fewer only at the end; None: all."""
        if n is not None and n < 0:
            n = None
        parts = []
        while n is None or n > 0:
            data = self.read1(n)
            if not data:
                break
            parts.append(data)
            if n is not None:
                n -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def isclosed(self) -> bool:
        return self.closed

    def close(self) -> None:
        """Give the connection back, or close it where much is still to come."""
        self.closed = True
        self._piece = b""
        self._at = 0
        self._response.close()


def _length(response: Response) -> int | None:
    """The body's length, where the head says it."""
    if response.status_code in (204, 304) or (response.request is not None and response.request.method == "HEAD"):
        return 0
    stated = response.headers.get("content-length")
    if stated is None or "transfer-encoding" in response.headers or not stated.isdigit():
        return None
    return int(stated)
