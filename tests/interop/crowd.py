"""Ten thousand requests over fifty hosts, and what they cost in memory and connections.

    python -m tests.interop.crowd serve            a server on all of 127.0.0.0/8: prints its port, serves until its input ends
    python -m tests.interop.crowd fetch PORT N HOSTS MAX_IDLE

`fetch` prints as JSON what a client saw. Every host answers with 8 KiB that begin with the request's host and target.
"""
from __future__ import annotations

import itertools
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pooledhttp import Client

BODY = 8192
WORKERS = 32


def serve() -> None:
    """One thread for all connections."""
    ready = selectors.DefaultSelector()
    listener = socket.create_server(("0.0.0.0", 0), backlog=512)
    listener.setblocking(False)
    ready.register(listener, selectors.EVENT_READ)
    ready.register(sys.stdin, selectors.EVENT_READ)
    print(listener.getsockname()[1], flush=True)
    waiting: dict[socket.socket, bytes] = {}
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                conn = listener.accept()[0]
                waiting[conn] = b""
                ready.register(conn, selectors.EVENT_READ)
                continue
            conn = key.fileobj  # type: ignore[assignment]
            try:
                more = conn.recv(65536)
            except ConnectionResetError:                             # it had not read all
                more = b""
            data = waiting[conn] + more
            if not more:
                ready.unregister(conn)
                del waiting[conn]
                conn.close()
                continue
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                host = next(line[5:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
                body = (host + head.split()[1] + b"\n").ljust(BODY, b".")
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY + body)
            waiting[conn] = data


def resident(what: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0]) * 1024


def fetch(port: int, n: int, hosts: int, max_idle: int) -> dict[str, Any]:
    taken = 0

    def urls(n: int | None) -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1) if n is None else range(1, n + 1):
            yield f"http://127.0.0.{1 + taken % hosts}:{port}/item/{taken}?of={n}"

    with Client(max_idle_conns=max_idle, timeout=30.0) as client:
        for _ in client.map(urls(20 * hosts), workers=WORKERS):          # all that is made once, threads and memos included
            pass
        Path("/proc/self/clear_refs").write_text("5")                    # the peak is now what there is
        before = resident("VmRSS")
        wrong = 0
        ahead = most_open = most_idle = most_hosts = 0
        began = time.monotonic()
        for i, r in enumerate(client.map(urls(None), workers=WORKERS), 1):
            wrong += not r.content.startswith(f"127.0.0.{1 + i % hosts}:{port}/item/{i}?of=None\n".encode())
            ahead = max(ahead, taken - i + 1)
            if i % 50 == 0:
                stats = client.transport.stats()
                most_open, most_idle, most_hosts = max(most_open, stats.open), max(most_idle, stats.idle), max(most_hosts, len(stats.hosts))
            if i == n:
                break
        seconds = time.monotonic() - began
        risen = resident("VmHWM") - before
        stats = client.transport.stats()
        return {"wrong": wrong, "seconds": seconds, "risen": risen, "open": most_open, "idle": most_idle, "hosts": most_hosts, "ahead": ahead,
                "active": stats.active, "waiting": stats.waiting, "adds_up": stats.opened == stats.open + sum(stats.closed.values()),
                "requests": stats.requests, "reuses": stats.reuses}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        print(json.dumps(fetch(*map(int, sys.argv[2:]))))
