"""Server-sent events: the WHATWG event stream (HTML Living Standard, section 9.2), from bytes that come in pieces cut anywhere."""
from __future__ import annotations

from collections.abc import Iterator

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import ResponseTooLarge

if TYPE_CHECKING:
    from pooledhttp.response import Response

_BOM = b"\xef\xbb\xbf"
_MAX_DIGITS = 18             # of a time in milliseconds


class Event:
    """An event: `event`, its type ("message" where none was given); `data`; `id`, the last that the stream has named, "" before the first;
    `retry`, the milliseconds to wait before connecting again, where they were said since the event before it, else None."""

    __slots__ = ("data", "event", "id", "retry")

    def __init__(self, data: str, *, event: str = "message", id: str = "", retry: int | None = None) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry

    def json(self, **kw: Any) -> Any:
        """`data` as JSON (`kw` as for `json.loads`). Raises JSONDecodeError."""
        import json

        from pooledhttp import errors

        try:
            return json.loads(self.data, **kw)
        except json.JSONDecodeError as e:
            raise errors.JSONDecodeError(e.msg, e.doc, e.pos) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (self.data, self.event, self.id, self.retry) == (other.data, other.event, other.id, other.retry)

    def __hash__(self) -> int:
        return hash((self.data, self.event, self.id, self.retry))

    def __repr__(self) -> str:
        return f"Event({self.data!r}, event={self.event!r}, id={self.id!r}, retry={self.retry!r})"


class TooLong(Exception):
    """An event is over the limit."""


class EventParser:
    """Events from bytes. Each is given as soon as the line end that completes it is there, be it only the CR of a CR LF.

    `last_event_id` and `retry` (milliseconds) are what the stream has said of them so far, whether or not an event came with it.
    """

    def __init__(self, limit: int) -> None:
        self.last_event_id = ""
        self.retry: int | None = None
        self._limit = limit                  # bytes of an event's data, and of a line
        self._begun = False                  # past a byte order mark
        self._cr = False                     # the last piece ended in CR: an LF belongs to it
        self._parts: list[bytes] = []        # of the line that has not ended
        self._size = 0                       # their bytes
        self._id = ""
        self._type = ""
        self._data: list[bytes] = []
        self._kept = 0                       # bytes of the lines in it
        self._retry: int | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes; to be exhausted before more is fed. Raises TooLong, behind the events before it."""
        if not self._begun:
            data = b"".join(self._parts) + data
            self._parts = []
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._parts = [data]
                return
            self._begun = True
            data = data.removeprefix(_BOM)
        if self._cr and data:
            data = data.removeprefix(b"\n")
            self._cr = False
        if not data:
            return
        if b"\r" in data:
            self._cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        for line in lines:
            if self._parts:
                line = b"".join([*self._parts, line])
                self._parts = []
                self._size = 0
            if line:
                self._line(line)
                continue
            event = self._end()
            if event is not None:
                yield event
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            self._fits(self._size)

    def _fits(self, size: int) -> None:
        if self._kept + size > self._limit:
            raise TooLong

    def _line(self, line: bytes) -> None:
        self._fits(len(line))
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._kept += len(line)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_DIGITS:
            self._retry = self.retry = int(value)

    def _end(self) -> Event | None:
        self.last_event_id = self._id
        data, self._data, self._kept = self._data, [], 0
        kind, self._type = self._type, ""
        if not data:
            return None
        retry, self._retry = self._retry, None
        return Event(b"\n".join(data).decode("utf-8", "replace"), event=kind or "message", id=self._id, retry=retry)


def _read(response: Response, parser: EventParser, limit: int) -> Iterator[Event]:
    try:
        for piece in response.iter_bytes():
            yield from parser.feed(piece)
    except TooLong:
        response.close()
        raise ResponseTooLarge(f"an event is over max_event_bytes={limit}", request=response.request, phase="body", conn=response.conn) from None


class EventStream(Iterator[Event]):
    """The events of a response. What is left of the last one when the stream ends was cut off, and is dropped, as the standard says."""

    def __init__(self, response: Response, limit: int) -> None:
        self._parser = EventParser(limit)
        self._events = _read(response, self._parser, limit)

    @property
    def last_event_id(self) -> str:
        """What to send as `Last-Event-ID` when connecting again, where it is not empty."""
        return self._parser.last_event_id

    @property
    def retry(self) -> int | None:
        """The milliseconds to wait before that, where the stream has said it."""
        return self._parser.retry

    def __next__(self) -> Event:
        return next(self._events)
