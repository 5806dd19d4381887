"""A threaded Python HTTP/1.1 server in a process of its own.

    python -m tests.support.pyserver [--http2] [CHAIN.pem KEY.pem]

prints its port and serves until its standard input ends. Every answer is JSON that says what came:

    {"method", "target", "token", "length", "sha256", "headers": [[name, value], ...], "client": [host, port], "served": n}

where `token` is the request's X-Token (also in the answer's), `length` and `sha256` are of the body (chunked or not), and
`served` counts the requests on this connection. `/delay/SECONDS` answers late, `/close` closes after the answer,
`/bytes/N` answers with N bytes of `pattern`, `/chunked/N` with the same, chunked.
"""
from __future__ import annotations

import hashlib
import json
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

from tests.support import front
from tests.support.processes import end, read_line, spawn_python

BLOCK = bytes(range(251)) * 261        # 65,511 bytes: no power of two, so that a lost or doubled piece shows


def pattern(n: int) -> bytes:
    """The first `n` bytes of an endless pattern."""
    return (BLOCK * (n // len(BLOCK) + 1))[:n]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536                   # head and body in one segment
    served: int = 0
    routes: ClassVar[tuple[str, ...]] = ("bytes", "chunked", "delay")

    def _body(self) -> tuple[int, str]:
        digest, length = hashlib.sha256(), 0
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                length += self._take(size, digest)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            length = self._take(int(self.headers.get("Content-Length") or 0), digest)
        return length, digest.hexdigest()

    def _take(self, size: int, digest: Any) -> int:
        left = size
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            if not piece:
                raise ConnectionError("the client closed inside its body")
            digest.update(piece)
            left -= len(piece)
        return size

    def answer(self) -> None:
        self.served += 1
        length, sha256 = self._body()
        _, route, rest = ("/" + self.path.split("?")[0].lstrip("/") + "/").split("/", 2)
        argument = rest.rstrip("/")
        if route == "delay":
            time.sleep(float(argument))
        if route in ("bytes", "chunked"):
            body, kind = pattern(int(argument)), "application/octet-stream"
        else:
            host, port = self.client_address[:2]
            seen = {"method": self.command, "target": self.path, "token": self.headers.get("X-Token"), "length": length, "sha256": sha256,
                    "headers": self.headers.items(), "client": [host, port], "served": self.served}
            body, kind = json.dumps(seen).encode(), "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if "X-Token" in self.headers:
            self.send_header("X-Token", self.headers["X-Token"])
        if route == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        if route == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            if route == "chunked":
                for at in range(0, len(body), 40000):
                    piece = body[at:at + 40000]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        if front.ON:
            front.serve(request, lambda sock: self.lane(sock, client_address))
        else:
            Handler(request, client_address, self)
        if self.tls is not None:
            request.close()

    def lane(self, sock: Any, client_address: Any) -> None:
        try:
            Handler(sock, client_address, self)
        except OSError:                           # the client left
            pass
        finally:
            sock.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        kind, exc, _ = sys.exc_info()
        if not isinstance(exc, OSError):          # a client that leaves is no error of ours
            print(f"{kind}: {exc}", file=sys.stderr, flush=True)


class PyServer:
    """The server's process, for fixtures. `tls` is a certificate chain and its key, as files."""

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self.scheme = "https" if tls else "http"
        self.host = "127.0.0.1"
        how = ["--http2"] if front.ON else []
        self._child = spawn_python("-m", "tests.support.pyserver", *how, *(tls or ()), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        self.port = int(read_line(self._child.stdout))

    def url(self, target: str = "/") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{target}"

    def close(self) -> None:
        end(self._child)


def main() -> None:
    tls = None
    files = sys.argv[1:]
    if files[:1] == ["--http2"]:
        front.ON = True
        files = files[1:]
    if files:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*files)
        if front.ON:
            tls.set_alpn_protocols(["h2", "http/1.1"])
    server = Server(tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
