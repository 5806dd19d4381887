"""What the tests of the exchange share."""
from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
import termios
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pooledhttp import PoolStats
from tests.support.peer import PATIENCE, Conn


def closed(stats: PoolStats) -> dict[str, int]:
    """The close reasons that were seen."""
    return {reason: n for reason, n in stats.closed.items() if n}


def adds_up(stats: PoolStats) -> None:
    """What always holds, at any moment."""
    for row in (stats, *stats.hosts.values()):
        assert row.opened == row.open + sum(row.closed.values()), str(stats)
        assert row.open == row.idle + row.active, str(stats)
        assert row.dials >= row.opened + row.dialing, str(stats)
        assert min(row.idle, row.active, row.dialing, row.waiting, row.reuses) >= 0, str(stats)


def until(true: Callable[[], Any], what: str = "what the test waits for", seconds: float = PATIENCE) -> None:
    """For what shows only by looking: a count of the pool's, a state of the kernel's."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.0005)


def unread(sock: socket.socket) -> int:
    """On a Unix socket: what was sent and not yet received (SIOCOUTQ)."""
    n = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, n)
    return n[0]


def blocked_in_kernel(thread: threading.Thread) -> bool:
    """Whether `thread` waits in a system call, and not for the GIL."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat") as f:
            state = f.read().rpartition(")")[2].split()[0]
        with open(f"/proc/self/task/{thread.native_id}/syscall") as f:
            call = f.read().split()[0]
    except OSError:
        return False
    # recvfrom, poll or ppoll on this machine's usual numbers; a futex (waiting for the GIL) is none of them.
    return state == "S" and call not in ("running", "202", "98")


def send_apart(conn: Conn, data: bytes, sizes: Iterable[int]) -> None:
    """Pieces of `sizes` bytes and then the rest, each received by the client before the next is sent. Unix sockets only."""
    at = 0
    for size in (*sizes, len(data)):
        if at < len(data):
            conn.send(data[at:at + size])
            at += size
            until(lambda: unread(conn.sock) == 0, "the client's receiving")


def client_socket(local: tuple[str, int]) -> socket.socket:
    """A second descriptor of this process's socket that is bound to `local` and connected: to spoil it from outside."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
        except OSError:
            continue
        sock = socket.socket(fileno=os.dup(fd))
        try:
            if sock.getsockname() == local and sock.getpeername():
                return sock
        except OSError:
            pass
        sock.close()
    raise AssertionError(f"no socket of ours is bound to {local}")
