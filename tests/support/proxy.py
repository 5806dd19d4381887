"""A proxy that is a script: CONNECT, requests in absolute-form, and SOCKS 5, as real ones speak them, with a record of what it was asked.

    with ScriptedProxy() as proxy:
        Client(proxy=proxy.proxy())
        ... proxy.asked ...
"""
from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from select import POLLIN, poll
from urllib.parse import urlsplit

from tests.support.peer import PATIENCE, ClientGone, Conn, Peer, header

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connected(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), PATIENCE)


def relay(conn: Conn, target: socket.socket) -> None:
    """Bytes in both directions until either side ends."""
    asked = poll()
    asked.register(conn.sock, POLLIN)
    asked.register(target, POLLIN)
    with target:
        while True:
            inside = isinstance(conn.sock, ssl.SSLSocket) and conn.sock.pending() > 0
            ready = {conn.sock.fileno()} if inside else {fd for fd, _ in asked.poll()}
            try:
                if conn.sock.fileno() in ready:
                    data = conn.recv_some()
                    if not data:
                        return
                    target.sendall(data)
                if target.fileno() in ready:
                    data = target.recv(65536)
                    if not data:
                        return
                    conn.send(data)
            except OSError as exc:
                raise ClientGone("the origin broke") from exc


class ScriptedProxy(Peer):
    """`asked` has (request line, head) of each request, or ("SOCKS host:port kind", b"").

    `before(conn, head) -> bool` sees each HTTP request first, and answers it itself where it returns True. `login`: what SOCKS demands.
    """

    def __init__(self, *, socks: bool = False, tls: ssl.SSLContext | None = None, before: Callable[[Conn, bytes], bool] | None = None,
                 login: tuple[bytes, bytes] | None = None, names: dict[str, str] | None = None) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self._before = before
        self._login = login
        self._names = names or {}
        self._noting = threading.Lock()
        super().__init__(self._socks if socks else self._http, tls=tls)

    def proxy(self, scheme: str = "", userinfo: str = "") -> str:
        """Its URL."""
        scheme = scheme or ("https" if self.tls is not None else "http")
        return f"{scheme}://{userinfo + '@' if userinfo else ''}{self.host}:{self.port}"

    def _note(self, line: str, head: bytes) -> None:
        with self._noting:
            self.asked.append((line, head))

    def _http(self, conn: Conn, i: int) -> None:
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            head, body = conn.recv_request()
            line = head.partition(b"\r\n")[0].decode()
            self._note(line, head)
            if self._before is not None and self._before(conn, head):
                continue
            method, target, _ = line.split(" ")
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                origin = connected(self._names.get(host, host.strip("[]")), int(port))
                conn.send(OK)
                relay(conn, origin)
                return
            url = urlsplit(target)
            origin = connected(self._names.get(str(url.hostname), str(url.hostname)), url.port or 80)
            path = target.partition("://")[2].partition("/")[2]
            with origin:
                origin.sendall(head.replace(target.encode(), b"/" + path.encode(), 1) + body)
                conn.send(_answer(origin))

    def _socks(self, conn: Conn, i: int) -> None:
        version, n = conn.recv_exact(2)
        assert version == 5
        methods = conn.recv_exact(n)
        if self._login is None:
            conn.send(b"\5\0")
        elif 2 not in methods:
            conn.send(b"\5\xff")
            return
        else:
            conn.send(b"\5\2")
            assert conn.recv_exact(1) == b"\1"
            user = conn.recv_exact(conn.recv_exact(1)[0])
            password = conn.recv_exact(conn.recv_exact(1)[0])
            right = (user, password) == self._login
            conn.send(b"\1\0" if right else b"\1\1")
            if not right:
                return
        assert conn.recv_exact(3) == b"\5\1\0"
        kind = conn.recv_exact(1)[0]
        if kind == 3:
            host = conn.recv_exact(conn.recv_exact(1)[0]).decode()
        else:
            host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, conn.recv_exact(4 if kind == 1 else 16))
        port = int.from_bytes(conn.recv_exact(2), "big")
        self._note(f"SOCKS {host}:{port} {kind}", b"")
        try:
            origin = connected(self._names.get(host, host), port)
        except OSError:
            conn.send(b"\5\5\0\1" + bytes(6))
            return
        bound = origin.getsockname()
        conn.send(b"\5\0\0" + (b"\1" if origin.family == socket.AF_INET else b"\4") + socket.inet_pton(origin.family, bound[0]) + bound[1].to_bytes(2, "big"))
        relay(conn, origin)


def _answer(origin: socket.socket) -> bytes:
    got = b""
    with suppress(OSError):
        while b"\r\n\r\n" not in got:
            piece = origin.recv(65536)
            if not piece:
                return got
            got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    left = int(header(head + b"\r\n\r\n", "Content-Length") or 0) - len(body)
    while left > 0:
        piece = origin.recv(left)
        got += piece
        left -= len(piece)
    return got
