"""A server on loopback for the tests of the client, and a transport that keeps what it was asked."""
from __future__ import annotations

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pooledhttp import Transport
from tests.support import front


class Server(ThreadingHTTPServer):
    """Serves each connection on a thread; a path's first segment names the `do_...` of `Handler` that answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.release = threading.Event()              # lets /held answer
        self.held = threading.Semaphore(0)            # counts requests that /held has got
        self.idle = threading.Condition()
        self.open = 0                                 # connections
        self.last: Any = None                         # the address of the one that was accepted last

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.idle:
            self.open += 1
            self.last = client_address
            self.idle.notify_all()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        def handle(sock: socket.socket) -> None:
            super(Server, self).process_request_thread(sock, client_address)

        try:
            if front.ON:
                front.serve(request, handle)
            else:
                handle(request)
        finally:
            with self.idle:
                self.open -= 1
                self.idle.notify_all()

    def reset(self) -> None:
        """As new, for the next test: nothing held, every connection of the last one gone."""
        self.release.set()
        with socket.create_connection(self.server_address, timeout=10) as fence:      # what came before it is accepted before it
            mine = fence.getsockname()
            with self.idle:
                assert self.idle.wait_for(lambda: self.last == mine, 10), "the server accepts no more"
        with self.idle:
            assert self.idle.wait_for(lambda: self.open == 0, 10), "a connection was left open"
        self.release.clear()
        while self.held.acquire(blocking=False):
            pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):            # a client that leaves is no error of ours
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536                   # head and body in one segment
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send(self, body: bytes, status: int = 200, kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def take(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.line(), 16):
            body += self.rfile.read(size)
            self.line()
        self.line()
        return body

    def line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise ConnectionError("the client closed inside its body")
        return line

    def do(self) -> None:
        segments = self.path.partition("?")[0].split("/")
        getattr(self, "do_" + segments[1])(*segments[2:])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do  # noqa: N815 - the base's names

    def do_echo(self) -> None:
        """What the request was."""
        told = {"method": self.command, "target": self.path, "headers": self.headers.items(), "body": self.take().decode("latin-1")}
        self.send(json.dumps(told).encode(), kind="application/json")

    def do_status(self, status: str) -> None:
        self.send(b"status " + status.encode(), int(status), Location="/echo")

    def do_bytes(self, size: str) -> None:
        self.send(bytes(i % 251 for i in range(int(size))), kind="application/octet-stream")

    def do_number(self, number: str) -> None:
        self.send(number.encode())

    def do_chunked(self, *parts: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part.encode()))
        self.wfile.write(b"0\r\n\r\n")

    def do_held(self, *_: str) -> None:
        self.server.held.release()
        self.server.release.wait(10)
        self.send(b"released")


class Spy(Transport):
    """A transport that keeps the arguments of each exchange it makes."""

    def exchange(self, *args: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), args]
        return super().exchange(*args)

    def prepare(self, wire: tuple[Any, ...], max_body: int, encoding: str) -> Any:
        self.max_body = max_body
        return super().prepare(wire, max_body, encoding)

    def exchange_prepared(self, p: Any, limits: Any, deadline: int, source: str, cancel: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), (*p.wire[:8], limits, deadline, source, p.wire[8], self.max_body, cancel)]
        return super().exchange_prepared(p, limits, deadline, source, cancel)
