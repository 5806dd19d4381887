"""The internet, as the documentation's snippets see it: every host is a server here, over plain HTTP and over TLS, and a proxy too.

`Site()` serves on two ports of this machine and takes over name resolution for this process. What the paths' first parts answer:

    /status/404          that status                    /redirect      302 to /items
    /stream              five lines, chunked            /events        three server-sent events, the last "[DONE]" (/ticker, /v1/answers too)
    /bytes/1000          so many bytes                  /gzip          JSON, coded
    /slow                JSON, after half a second      /flaky/NAME    503 the first time
    /private             401 until Basic credentials come (/digest: Digest)
    /login               JSON, and a cookie
    anything else        JSON: method, path, headers, args, body, and three items
"""
from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import trustme

TLS_PORTS = (443, 8443)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    server: Server
    seen: ClassVar[set[str]] = set()

    def body(self) -> bytes:
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return out

    def say(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self) -> None:
        body = self.body()
        url = urlsplit(self.path)
        seen = {"method": self.command, "path": url.path, "host": self.headers["Host"], "args": dict(parse_qsl(url.query)),
                "headers": dict(self.headers.items()), "body": body.decode("utf-8", "replace"), "items": [1, 2, 3]}
        text = json.dumps(seen).encode()
        first, _, rest = url.path[1:].partition("/")
        credentials = self.headers.get("Authorization", "")
        if first == "status":
            self.say(text, int(rest))
        elif first == "redirect":
            self.say(b"", 302, Location="/items")
        elif first in ("stream", "events", "ticker") or url.path == "/v1/answers":
            events = first != "stream"
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if events else "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(3 if events else 5):
                piece = b'{"n": %d}\n' % i
                if events:
                    piece = b"id: %d\nretry: 10\ndata: %s\n\n" % (i, piece.strip() if i < 2 else b"[DONE]")
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif first == "bytes":
            self.say(bytes(int(rest)), kind="application/octet-stream")
        elif first == "gzip":
            self.say(gzip.compress(text), Content_Encoding="gzip")
        elif first == "slow":
            time.sleep(0.5)
            self.say(text)
        elif first == "flaky" and rest not in self.seen:
            self.seen.add(rest)
            self.say(b"", 503, Retry_After="0")
        elif first == "private" and not credentials.startswith("Basic "):
            self.say(b"", 401, WWW_Authenticate='Basic realm="site"')
        elif first == "digest" and not credentials.startswith("Digest "):
            self.say(b"", 401, WWW_Authenticate='Digest realm="site", nonce="n1", qop="auth", algorithm=SHA-256')
        elif first == "login":
            self.say(text, Set_Cookie="sid=abc; Path=/")
        else:
            self.say(text)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def do_CONNECT(self) -> None:
        """As a proxy: whatever is asked for is the server that speaks TLS."""
        with socket.create_connection(("127.0.0.1", self.server.tunnel_to)) as there:
            self.send_response_only(200)
            self.end_headers()
            self.wfile.flush()
            back = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
            back.start()
            pump(self.connection, there)
            back.join()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def pump(source: socket.socket, target: socket.socket) -> None:
    """Bytes from one to the other until either ends."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    tunnel_to: int = 0
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass                           # a client that leaves, or trusts nobody


class UnixServer(Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 80

    def get_request(self) -> tuple[Any, Any]:
        return self.socket.accept()[0], ("local", 0)


class Site:
    """The servers, and files in `folder` for snippets to name: internal-ca.pem, client.pem, client.key, dump.bin, report.csv, photo.jpg, cookies.txt,
    app.sock."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = folder / "internal-ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        mine = self.authority.issue_cert("client.internal")
        (folder / "client.pem").write_bytes(b"".join(blob.bytes() for blob in mine.cert_chain_pems))
        mine.private_key_pem.write_to_path(folder / "client.key")
        (folder / "dump.bin").write_bytes(bytes(100_000))
        (folder / "photo.jpg").write_bytes(bytes(1000))
        (folder / "report.csv").write_text("a,b\n1,2\n")
        (folder / "cookies.txt").write_text("# Netscape HTTP Cookie File\n")
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.lock = threading.Lock()
        plain, secure, local = Server(("127.0.0.1", 0), Handler), Server(("127.0.0.1", 0), Handler), UnixServer(str(folder / "app.sock"), Handler)  # type: ignore[arg-type]
        secure.tls = self.context("localhost")
        secure.tls.sni_callback = self.choose
        plain.tunnel_to = secure.server_port
        for server in (plain, secure, local):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.ports = dict.fromkeys(TLS_PORTS, secure.server_port)
        self.other = plain.server_port
        self.real = socket.getaddrinfo
        socket.getaddrinfo = self.resolve

    def context(self, name: str) -> ssl.SSLContext:
        """A server's context for a name; made once."""
        with self.lock:
            context = self.contexts.get(name)
            if context is None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self.authority.issue_cert(name).configure_cert(context)
                self.contexts[name] = context
            return context

    def choose(self, sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name:
            sock.context = self.context(name)

    def resolve(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        """Every name is here; addresses are what they are."""
        name = host.decode() if isinstance(host, bytes) else host
        if name is None or name[-1:].isdigit() or ":" in name:
            return self.real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.ports.get(int(port), self.other)))]
