"""What stands in for a transport's Reply behind a response, and what watches over one."""
from __future__ import annotations

import sys
from _tracemalloc import is_tracing
from collections.abc import Callable, Iterable
from types import FrameType

from pooledhttp._typing import Any
from pooledhttp.errors import ResponseTooLarge


def too_large(limit: int) -> str:
    return f"the response's body is over max_response_bytes={limit}"


class IterReply:
    """A body from an iterable of bytes, for responses made by hand."""

    head = b""
    notes = 3               # the response's headers say it
    elapsed = 0.0
    reason = None
    version = "HTTP/1.1"
    conn = None

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""
        self.trailers: list[tuple[str, str]] = []
        self.timings: dict[str, float] = {}

    def read(self, n: int) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:n], self._rest[n:]
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(view.nbytes)
        view[:len(data)] = data
        return len(data)

    def read_all(self, limit: int) -> bytes:
        parts = []
        size = 0
        while piece := self.read(sys.maxsize):
            parts.append(piece)
            size += len(piece)
            if 0 <= limit < size:
                raise ResponseTooLarge(too_large(limit), phase="body")
        return b"".join(parts)

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def leak(self) -> None:
        self.close()


class BytesReply:
    """A body that is in memory; `at_once`: a read gives all of it, whatever was asked for."""

    def __init__(self, body: bytes, conn: Any, at_once: bool) -> None:
        self._body = body
        self._at = 0
        self._at_once = at_once
        self.conn = conn

    def read(self, n: int) -> bytes:
        at = self._at
        self._at = end = len(self._body) if self._at_once else at + n
        return self._body[at:end]


class Guard:
    """Notices that a streamed response was collected unclosed. Beside the response, so that only streamed ones pay for it."""

    __slots__ = ("label", "made", "reply")

    def __init__(self, reply: Any, label: str) -> None:
        self.reply = reply
        self.label = label
        # tracemalloc keeps few frames, if it was not told otherwise, and they may all be this package's.
        self.made = f", made at {_caller(sys._getframe(1))}" if is_tracing() else ""

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        reply = self.reply
        # At the interpreter's end everything is collected, and nobody forgot anything.
        if reply is None or not reply.holds or ending():
            return
        conn = reply.conn
        held = f"connection {conn.id} to {conn.remote_addr}" if conn is not None else "its source"
        reply.leak()
        if "logging" in sys.modules:
            from pooledhttp._trip.tales import warn_later

            warn_later("unclosed response to %s%s: it held %s, its body unread", self.label, self.made, held)
        import warnings

        warnings.warn(f"unclosed response to {self.label}{self.made}: it held {held}, its body unread; read it, close() it, or use "
                      "'with client.stream(...)'", ResourceWarning, stacklevel=2, source=self)


def _caller(frame: FrameType | None) -> str:
    """The line of the user's that led to `frame`."""
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith("pooledhttp."):
        frame = frame.f_back
    return "no line of Python" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class PickledReply:
    """What is left of a Reply in a pickled response."""

    __slots__ = ("notes", "trailers")

    def __init__(self, trailers: list[tuple[str, str]], notes: int) -> None:
        self.trailers = trailers
        self.notes = notes
