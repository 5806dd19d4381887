"""A server in a process of its own that is slow to accept: `SlowServer(backlog=16, accept=0.005, answer=0.005)`.

Its kernel keeps `backlog` connections waiting and lets further connects stall; one is accepted every `accept` seconds, and each request is
answered `answer` seconds after it came. `counts()`: {"accepted", "answered", "open", "most" (open at once), "unused" (accepted, closed without a request)}.
"""
from __future__ import annotations

import heapq
import json
import selectors
import socket
import subprocess
import sys
import time

from tests.support.processes import end, read_line, spawn_python

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"


class SlowServer:
    def __init__(self, backlog: int = 16, accept: float = 0.005, answer: float = 0.005) -> None:
        self._child = spawn_python("-m", "tests.support.slowserver", str(backlog), str(accept), str(answer), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        self.port = int(read_line(self._child.stdout))

    def counts(self) -> dict[str, int]:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(b"?\n")
        self._child.stdin.flush()
        said: dict[str, int] = json.loads(read_line(self._child.stdout))
        return said

    def close(self) -> None:
        end(self._child)

    def __enter__(self) -> SlowServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def serve(backlog: int, accept: float, answer: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    listener.setblocking(False)
    counts = dict.fromkeys(("accepted", "answered", "open", "most", "unused"), 0)
    select = selectors.DefaultSelector()
    select.register(sys.stdin, selectors.EVENT_READ)
    asked: dict[socket.socket, bool] = {}
    due: list[tuple[float, int, socket.socket]] = []
    next_accept = 0.0
    listening = False
    print(listener.getsockname()[1], flush=True)
    while True:
        now = time.monotonic()
        if now >= next_accept and not listening:
            select.register(listener, selectors.EVENT_READ)
            listening = True
        wait = min([when - now for when in ([due[0][0]] if due else []) + ([] if listening else [next_accept])], default=None)
        for key, _ in select.select(None if wait is None else max(0.0, wait)):
            if key.fd == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                print(json.dumps(counts), flush=True)
            elif key.fileobj is listener:
                sock, _ = listener.accept()
                select.unregister(listener)
                listening, next_accept = False, time.monotonic() + accept
                select.register(sock, selectors.EVENT_READ)
                asked[sock] = False
                counts["accepted"] += 1
                counts["open"] += 1
                counts["most"] = max(counts["most"], counts["open"])
            else:
                sock = key.fileobj          # type: ignore[assignment]
                try:
                    got = sock.recv(65536)
                except OSError:
                    got = b""
                if got.endswith(b"\r\n\r\n"):
                    asked[sock] = True
                    heapq.heappush(due, (time.monotonic() + answer, sock.fileno(), sock))
                elif not got:
                    select.unregister(sock)
                    sock.close()
                    counts["open"] -= 1
                    counts["unused"] += not asked.pop(sock)
        while due and due[0][0] <= time.monotonic():
            sock = heapq.heappop(due)[2]
            if sock in asked:
                sock.sendall(ANSWER)
                counts["answered"] += 1


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
