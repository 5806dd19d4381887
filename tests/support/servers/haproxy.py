from __future__ import annotations

import signal
from pathlib import Path

from tests.support.servers.base import BRIEF, LONG, Server, keeps, secure


class Haproxy(Server):
    """Passes all on; 204, the refusal and the interim 100 are its own. Master and worker, so that USR2 reloads it.

    Expect goes no further: 2.6 loses the rest of an answer whose head comes from behind it in one piece with an interim 100, and lets the client wait.
    """

    name = package = binary = "haproxy"
    speaks = ("h1", "h2c", "h2")
    apart = True

    def commands(self) -> list[list[str]]:
        lasts = {"main": LONG, "brief": BRIEF}
        if self.certificate:
            chain, key = (path.read_text() for path in self.certificate)
            self.write("certificate.pem", chain + key)
        tls = f" ssl crt {self.directory}/certificate.pem alpn h2,http/1.1"
        speaks = {door: tls if secure(door) else " proto h2" if door.startswith("h2c-") else "" for door in self.port}
        fronts = "".join(f"""
frontend {door}
    bind 127.0.0.1:{port}{speaks[door]}
    timeout http-keep-alive {lasts[keeps(door)]}s
    http-request return status 204 if {{ path /204 }}
    http-request deny if {{ path /deny }}
    http-request return status 200 content-type application/octet-stream lf-string "%pid %[url_param(token)]" if {{ path /worker }}
    http-request wait-for-body time 10s if {{ req.hdr(expect) -m found }}
    http-request del-header expect
    http-request set-var(txn.closing) bool(true) if {{ path_beg /close/ }}
    http-after-response set-header connection close if {{ var(txn.closing) -m bool }}
    default_backend routes
""" for door, port in self.port.items())
        config = self.write("haproxy.cfg", f"""
global
    nbthread 1
    maxconn 1000
    hard-stop-after 10s
    stats socket {self.directory}/stats level admin expose-fd listeners
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout http-request 60s
{fronts}
backend routes
    server it 127.0.0.1:{self.backend}
""")
        return [["-W", "-f", config, "-p", f"{self.directory}/haproxy.pid"]]

    def reload(self) -> None:
        """Returns when the former worker has ended: a master that is bidden again before may hang (2.6)."""
        self._listens(signal.SIGUSR2, self.pid("haproxy.pid"))
        ended = self.output().count("Former worker")
        self.signal(signal.SIGUSR2)
        self.wait(lambda: self.output().count("Former worker") > ended, "end of the former worker")

    def restart(self) -> None:
        """Another one asks the first for its sockets, then bids it end."""
        first = self.pid("haproxy.pid")
        self._listens(signal.SIGUSR1, first)
        at = str(self.directory)
        self.spawn("-W", "-f", f"{at}/haproxy.cfg", "-p", f"{at}/haproxy.pid", "-x", f"{at}/stats", "-sf", str(first))
        self.await_end(first)

    def _listens(self, number: int, master: int) -> None:
        """It ignores all signals until it has started, and serves before that."""
        def catches() -> bool:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{master}/status").read_text().splitlines())
            return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)

        self.wait(catches, "attention to signals")
