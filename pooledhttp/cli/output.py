"""What the command prints: a line for each URL, and a bar where there is time for one."""
from __future__ import annotations

import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from pooledhttp.cli.fetching import UNEXPECTED, Result
from pooledhttp.errors import Error

if TYPE_CHECKING:
    from pooledhttp._pool.stats import PoolStats

_BEFORE = 1.0                # seconds until a bar is shown
_EVERY = 0.1                 # seconds between two drawings of it


class OutputLost(Exception):
    """Standard output takes no more, for another reason than that nobody reads it."""


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return "".join([c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.split())])


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


class Bar:
    """A bar on standard error, where that is a terminal, once the work has gone on for a second. `hide` before anything is printed."""

    def __init__(self, wanted: bool) -> None:
        stream = sys.stderr
        self._stream = stream
        self._on = wanted and stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._began = monotonic()
        self._drawn = 0.0
        self._shown = False
        self.failed = 0

    @property
    def on(self) -> bool:
        return self._on

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` (None: unknown) are done."""
        now = monotonic()
        if not self._on or now - self._began < _BEFORE or now - self._drawn < _EVERY:
            return
        self._drawn = now
        self._shown = True
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            width = 80
        _write(self._stream, "\r" + self.text(done, total, now - self._began, width - 1) + "\x1b[K")

    def text(self, done: int, total: int | None, seconds: float, width: int) -> str:
        """The bar after so many seconds, at most `width` wide."""
        rate = done / seconds
        words = f"{done}" if total is None else f"{done}/{total}"
        words += f"  {rate:.0f}/s" if rate >= 10 else f"  {rate:.1f}/s"
        if total is not None and done:
            left = int((total - done) / rate + 0.5)
            words += f"  {left // 60}:{left % 60:02d} left"
        if self.failed:
            words += f"  {self.failed} failed"
        room = min(width - len(words) - 4, 40)
        if total and room >= 5:
            full = room * min(done, total) // total
            words = f"[{'#' * full}{'.' * (room - full)}]  {words}"
        return words[:width]

    def hide(self) -> None:
        if self._shown:
            self._shown = False
            self._drawn = 0.0
            _write(self._stream, "\r\x1b[K")


class Output:
    """Results as lines on standard output, errors on standard error. BrokenPipeError and OutputLost where they are not taken."""

    def __init__(self, bar: Bar, *, as_json: bool, quiet: bool) -> None:
        self._bar = bar
        self._json = as_json
        self._quiet = quiet

    def line(self, text: str) -> None:
        self._bar.hide()
        if sys.stdout is None:
            raise OutputLost("standard output is closed")
        try:
            _write(sys.stdout, text + "\n")
        except BrokenPipeError:
            raise
        except OSError as e:
            raise OutputLost(f"standard output: {e.strerror}") from None

    def complain(self, text: str) -> None:
        self._bar.hide()
        if sys.stderr is not None:
            _write(sys.stderr, printable(text) + "\n")

    def result(self, result: Result) -> None:
        if result.code:
            self._bar.failed += 1
        if self._json:
            if not (self._quiet and result.code == 0):
                self.line(_as_json(result))
        elif result.error is not None:
            self.complain(f"{_name(result)}: {_message(result.error)}{_redacted(result)}")
        elif not self._quiet or result.code:
            self.line(_as_text(result))

    def stats(self, stats: PoolStats) -> None:
        if stats.hosts and not self._json and not self._quiet:
            self.line(f"\n{stats}")


def _name(result: Result) -> str:
    name = type(result.error).__name__
    return f"unexpected {name}" if result.code == UNEXPECTED else name


def _message(e: BaseException) -> str:
    if isinstance(e, OSError) and e.strerror and e.filename is not None:
        return f"{e.strerror}: {os.fsdecode(e.filename)}"
    return " ".join((e.message if isinstance(e, Error) else str(e)).split()) or type(e).__name__


def _redacted(result: Result) -> str:
    return f": {result.job.url.redacted}" if result.job.url is not None else ""        # else the message has it


def _as_text(result: Result) -> str:
    conn = result.conn
    how = "-" if conn is None else f"reused #{conn.id}" if conn.reused else f"new #{conn.id}"
    where = " -> ".join([result.job.shown, *map(printable, result.redirects[-1:])])
    line = f"{result.status}  {result.bytes:>11,} B  {result.seconds * 1000:>9.1f} ms  {how:<12}  {where}"
    return line if result.file is None else f"{line}  {printable(result.file)}"


def _as_json(result: Result) -> str:
    import json

    headers: dict[str, list[str]] = {}
    for name, value in result.headers:
        headers.setdefault(name.lower(), []).append(value)
    e = result.error
    error: dict[str, Any] | None = None
    if e is not None:
        error = {"type": type(e).__name__, "message": _message(e), "phase": getattr(e, "phase", None)}
    conn = result.conn
    return json.dumps({
        "url": result.job.shown, "status": result.status, "bytes": result.bytes, "seconds": round(result.seconds, 6),
        "timings": {name: round(seconds, 6) for name, seconds in result.timings.items()},
        "reused": None if conn is None else conn.reused, "conn": None if conn is None else conn.id,
        "remote_addr": None if conn is None else conn.remote_addr, "error": error, "headers": headers, "redirects": result.redirects,
        "file": result.file})
