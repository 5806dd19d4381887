"""Forked children whose failures are the test's, and what a server's side of a connection sees of them, byte by byte."""
from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.peer import ClientGone, Conn


def in_child(work: Callable[[], object], *, fork: Callable[[], int] = os.fork, seconds: int = 10) -> None:
    """Runs `work` in a forked child, and raises where that failed, or hung for `seconds`: then with the stack of all that stood still."""
    sys.stdout.flush()
    sys.stderr.flush()
    r, w = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        try:
            os.close(r)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, file=w, chain=True)
            signal.alarm(seconds)
            work()
            code = 0
        except BaseException:
            os.write(w, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(code)
    os.close(w)
    said = b""
    while piece := os.read(r, 4096):
        said += piece
    os.close(r)
    _, status = os.waitpid(pid, 0)
    if status or said:
        raise AssertionError(f"the child ended with {os.waitstatus_to_exitcode(status)}:\n{said.decode()}")


def relay(port: int) -> Callable[[Conn, int], None]:
    """A peer's script that passes everything on to `port` and back: `conn.received` is what came by the wire, TLS or not."""

    def script(conn: Conn, i: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as onward:
            while True:
                ready = select.select([conn.sock, onward], [], [], 10)[0]
                if onward in ready:
                    if not (data := onward.recv(65536)):
                        return
                    conn.send(data)
                if conn.sock in ready:
                    if not (data := conn.recv_some()):
                        raise ClientGone("the client closed")
                    onward.sendall(data)

    return script


@contextmanager
def busily(threads: int, work: Callable[[int, threading.Event], None]) -> Iterator[None]:
    """Threads that do `work(number, stop)` until the block ends, which sets `stop`."""
    stop = threading.Event()
    made = [threading.Thread(target=work, args=(n, stop)) for n in range(threads)]
    for thread in made:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in made:
            thread.join()
