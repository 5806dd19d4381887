"""A cancel that reaches requests in other processes of this machine: a FIFO, which they watch."""
from __future__ import annotations

import os
import select
import threading
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pooledhttp._core import runtime
from pooledhttp.transport import Canceller

if TYPE_CHECKING:
    from types import TracebackType

# How long the thread that watches stays after the last one has gone, at most, in seconds.
_IDLE = 0.25
_REASON = "cancelled by the process that asked for it"


_lines: WeakSet[Line] = WeakSet()


class Line:
    """The asking process's end. It tells who hears it of a cancel, and of the end of this process.

    The FIFO is made when the address is first asked for, and nobody reads it: what was written there once, all see.
    """

    __slots__ = ("__weakref__", "_directory", "_ended", "_fd", "_lock", "_told")

    def __init__(self) -> None:
        self._directory = ""
        self._fd = -1
        self._told = False
        self._ended = False
        self._lock = threading.RLock()             # a signal's handler may cancel
        _lines.add(self)

    def forsake(self) -> None:
        """In a forked child: the FIFO is the parent's, to write to and to take away."""
        self._lock = threading.RLock()
        self._ended = True
        self._directory = ""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def address(self) -> tuple[str, str] | None:
        """Where to hear it: (machine and file system, path of the FIFO). None where there can be none: no room for temporary files."""
        with self._lock:
            if self._fd < 0 and not self._ended:
                from tempfile import mkdtemp

                try:
                    self._directory = mkdtemp(prefix="pooledhttp-")
                    os.mkfifo(self._path(), 0o600)
                    self._fd = os.open(self._path(), os.O_RDWR | os.O_NONBLOCK)
                    if self._told:
                        os.write(self._fd, b"!")
                except OSError:
                    self.close()
                    self._directory = ""
            return (_place(), self._path()) if self._directory else None

    def _path(self) -> str:
        return os.path.join(self._directory, "cancel")

    def cancel(self, reason: Any = None) -> None:
        """End the requests of those who hear it. They are not told the reason."""
        with self._lock:
            if not self._told:
                self._told = True
                if self._fd >= 0:
                    os.write(self._fd, b"!")

    def close(self) -> None:
        """Take the FIFO away. Who comes to hear it now is cancelled at once: nobody waits for its work."""
        with self._lock:
            self._ended = True
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._directory:
            from shutil import rmtree

            rmtree(self._directory, ignore_errors=True)


@cache
def _place() -> str:
    """What tells whether a path means the same to two processes; each time another where that cannot be known."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        root = os.stat("/")
        return f"{boot} {os.readlink('/proc/self/ns/mnt')} {root.st_dev} {root.st_ino}"
    except OSError:
        return os.urandom(16).hex()


class _Watch:
    """This process's thread that watches, while there is something to watch."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.epoll: select.epoll | None = None
        self.heard: dict[int, Canceller] = {}

    def add(self, address: tuple[str, str], cancel: Canceller) -> int:
        """Cancel `cancel` when the line says so, or has ended; the descriptor to be given to `remove`, -1 where there is none."""
        place, path = address
        if place != _place():
            return -1                              # another machine's: it does not reach here
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            cancel.cancel(_REASON)
            return -1
        except OSError:                            # another user's, or no descriptor is left
            return -1
        with self.lock:
            self.heard[fd] = cancel
            if _says(fd):
                cancel.cancel(_REASON)
                return fd
            if self.epoll is None:
                epoll = select.epoll()
                try:
                    threading.Thread(target=self._run, args=(epoll,), name="pooledhttp-reach", daemon=True).start()
                except RuntimeError:               # the interpreter is ending: it ends the request too
                    epoll.close()
                    return fd
                self.epoll = epoll
            self.epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        return fd

    def remove(self, fd: int) -> None:
        if fd >= 0:
            with self.lock:
                self.heard.pop(fd, None)
                os.close(fd)                       # which takes it out of the epoll

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for fd, _ in epoll.poll(_IDLE):
                with self.lock:                    # the number may be another line's by now
                    cancel = self.heard.get(fd) if _says(fd) else None
                if cancel is not None:
                    cancel.cancel(_REASON)
            with self.lock:
                if not self.heard:
                    if self.epoll is epoll:
                        self.epoll = None
                    epoll.close()
                    return


def _says(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(what & (select.POLLIN | select.POLLHUP) for _, what in poll.poll(0))


_watch = _Watch()


class Hearing:
    """`with Hearing(address, cancel):` a cancel on the line of that address is one of `cancel`."""

    __slots__ = ("_address", "_cancel", "_fd", "_watch")

    def __init__(self, address: tuple[str, str], cancel: Canceller) -> None:
        self._address = address
        self._cancel = cancel
        self._fd = -1

    def __enter__(self) -> None:
        self._watch = _watch
        self._fd = self._watch.add(self._address, self._cancel)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._watch is _watch:                  # not of a process that was forked meanwhile
            self._watch.remove(self._fd)


def _after_fork_in_child() -> None:
    # The thread stayed in the parent, and a copy of its epoll would hear for both.
    global _watch
    before, _watch = _watch, _Watch()
    for line in list(_lines):
        line.forsake()
    for fd in before.heard:
        os.close(fd)
    if before.epoll is not None:
        before.epoll.close()


runtime.at_fork(_after_fork_in_child)
