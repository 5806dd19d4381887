"""Proxies that stall at each step of what they are asked."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.ca import Authority
from tests.support.peer import Conn, Peer
from tests.support.proxy import OK

Step = Callable[[Conn, Authority], None]


@dataclass(frozen=True)
class Stalled:
    """`scheme` of the proxy; `step` is what it does before it stalls; `phase` is where the client then is; `origin`: to it the tunnel is there."""

    name: str
    scheme: str
    step: Step
    phase: str = "proxy"
    origin: bool = False

    def start(self, ca: Authority) -> Peer:
        def script(conn: Conn, i: int) -> None:
            self.step(conn, ca)
            with conn._peer.changed:
                conn.received += b"@"              # for `met`
                conn._peer.changed.notify_all()
            conn.stall()

        return Peer(script)

    def url(self, proxy: Peer, userinfo: str = "us:pw") -> str:
        return f"{self.scheme}://{userinfo}@127.0.0.1:{proxy.port}"

    @staticmethod
    def met(proxy: Peer) -> bool:
        """Whether it stalls by now."""
        return bool(proxy.conns) and proxy.conns[-1].received.endswith(b"@")


def _nothing(conn: Conn, ca: Authority) -> None:
    pass


def _asked(conn: Conn, ca: Authority) -> None:
    conn.recv_head()


def _half(conn: Conn, ca: Authority) -> None:
    conn.recv_head()
    conn.send(OK[:25])


def _interim(conn: Conn, ca: Authority) -> None:
    conn.recv_head()
    conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def _tunnel(conn: Conn, ca: Authority) -> None:
    conn.recv_head()
    conn.send(OK)


def _tls(then: Step) -> Step:
    def step(conn: Conn, ca: Authority) -> None:
        conn.start_tls(ca.server())
        then(conn, ca)
    return step


def _greeted(conn: Conn, ca: Authority) -> None:
    conn.recv_exact(4)


def _login(conn: Conn, ca: Authority) -> None:
    _greeted(conn, ca)
    conn.send(b"\5\2")
    conn.recv_exact(7)


def _logged_in(conn: Conn, ca: Authority) -> None:
    _login(conn, ca)
    conn.send(b"\1\0")
    conn.recv_exact(10)


def _half_reply(conn: Conn, ca: Authority) -> None:
    _logged_in(conn, ca)
    conn.send(b"\5\0\0\1\x7f")


STALLS = [
    Stalled("connect", "http", _asked),
    Stalled("connect-half", "http", _half),
    Stalled("connect-interim", "http", _interim),
    Stalled("tunnel", "http", _tunnel, "tls", True),
    Stalled("tls", "https", _nothing, "tls"),
    Stalled("tls-connect", "https", _tls(_asked)),
    Stalled("tls-connect-half", "https", _tls(_half)),
    Stalled("tls-tunnel", "https", _tls(_tunnel), "tls", True),
    Stalled("socks", "socks5", _greeted),
    Stalled("socks-login", "socks5", _login),
    Stalled("socks-request", "socks5", _logged_in),
    Stalled("socks-half", "socks5", _half_reply),
]
