"""The URLs to be fetched, as they come."""
from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator

from pooledhttp.cli.saving import Names
from pooledhttp.errors import Error
from pooledhttp.fanout import LATER
from pooledhttp.url import URL, redact

_WAIT_MS = 20                # how long an input that is silent may hold up what is ready
_LINE = 1 << 20              # bytes; no URL is longer


class Job:
    """One URL: parsed, or what is wrong with it; and where its body goes."""

    __slots__ = ("error", "index", "path", "shown", "url")

    def __init__(self, index: int, text: str, names: Names | None) -> None:
        self.index = index
        self.url: URL | None = None
        self.error: Error | None = None
        self.path: str | None = None
        try:
            url = URL(text)
            url.effective_port                                   # noqa: B018 - refuses a scheme we do not speak
        except Error as e:
            self.error = e
            self.shown = redact(text)[1:-1]                      # without its quotes
        else:
            self.url = url
            self.shown = str(url.without_userinfo())
            if names is not None:
                self.path = names.path(url)


class Inputs:
    """The URLs of the arguments, then those of the files (opened at once, OSError where that fails; closed by `close`)."""

    def __init__(self, urls: list[str], files: list[str]) -> None:
        self.urls = [url for url in urls if url != "-"]
        self._given: list[int] = [0] if "-" in urls else []      # descriptors; standard input is not ours to close
        self._own: list[int] = []
        try:
            for name in files:
                if name == "-":
                    self._given.append(0)
                    continue
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                self._own.append(fd)
                self._given.append(fd)
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    raise IsADirectoryError(21, os.strerror(21), name)
            for fd in self._given:
                os.fstat(fd)                                     # a closed standard input
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close what was opened here."""
        while self._own:
            os.close(self._own.pop())

    @property
    def total(self) -> int | None:
        """How many there are; None where that cannot be known without waiting."""
        total = len(self.urls)
        for fd in self._given:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            at = os.lseek(fd, 0, os.SEEK_CUR)
            total += sum(1 for _ in _urls(fd))
            os.lseek(fd, at, os.SEEK_SET)
        return total

    def __iter__(self) -> Iterator[object]:
        """Each as a str, or LATER while an input is silent."""
        yield from self.urls
        for fd in self._given:
            yield from _urls(fd)


def _urls(fd: int) -> Iterator[object]:
    for line in _lines(fd):
        if line is LATER:
            yield line
            continue
        assert isinstance(line, bytes)
        text = line.decode("utf-8", "replace").strip()
        if text and not text.startswith("#"):
            yield text


def _lines(fd: int) -> Iterator[object]:
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    rest = b""
    while True:
        if not waiting.poll(_WAIT_MS):
            yield LATER
            continue
        data = os.read(fd, 65536)
        if not data:
            if rest:
                yield rest
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
        if len(rest) > _LINE:
            raise OSError(f"a line of the input is over {_LINE} bytes")
