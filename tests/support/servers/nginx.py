from __future__ import annotations

import os
import signal
from typing import ClassVar

from tests.support.servers.base import BRIEF, FEW, LONG, Server, keeps, secure


class Nginx(Server):
    """USR2 starts another master on the same sockets, QUIT lets the first end what it has begun: only as a daemon does it that.

    No sendfile where HTTP/2 is in the clear: 1.22 leaves Nagle's algorithm on there, and a small file's body waits 40 ms for the acknowledgement of its head.
    """

    name = binary = "nginx"
    package = "nginx-light"
    doors: ClassVar[tuple[str, ...]] = ("main", "brief", "few")
    speaks = ("h1", "h2c", "h2")
    apart = True

    def commands(self) -> list[list[str]]:
        lasts = {"main": f"keepalive_requests 1000000; keepalive_timeout {LONG}s;", "brief": f"keepalive_timeout {BRIEF}s;",
                 "few": f"keepalive_requests {FEW}; keepalive_timeout {LONG}s;"}
        speaks = {door: " ssl http2" if secure(door) else " http2" if door.startswith("h2c-") else "" for door in self.port}
        tls = "ssl_certificate {}; ssl_certificate_key {};".format(*self.certificate) if self.certificate else ""
        servers = "".join(f"""
    server {{
        listen 127.0.0.1:{port}{speaks[door]};
        {tls if secure(door) else ""}
        {"sendfile off;" if door.startswith("h2c-") else ""}
        {lasts[keeps(door)]}
        root {self.files};
        client_max_body_size 0;
        location /chunked/ {{ alias {self.files}/; ssi on; ssi_types *; }}
        location /close/ {{ keepalive_timeout 0; }}
        location = /204 {{ return 204; }}
        location = /deny {{ deny all; }}
        location = /worker {{ return 200 "$pid $arg_token"; }}
        location ~ ^/(echo|mirror)$ {{ proxy_pass http://127.0.0.1:{self.backend}; proxy_http_version 1.1; }}
    }}""" for door, port in self.port.items())
        temporary = "".join(f"    {kind}_temp_path {self.directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = self.write("nginx.conf", f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon on;
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
{temporary}{servers}
}}
""")
        return [["-p", str(self.directory), "-c", config, "-e", f"{self.directory}/error.log"]]

    def reload(self) -> None:
        """Returns when there is another worker. The former may serve connections of HTTP/2 on: it ends one that is idle, and those are busy."""
        master = self.pid("nginx.pid")
        former = self.below(master)
        os.kill(master, signal.SIGHUP)
        self.wait(lambda: bool(self.below(master) - former), "other worker")

    def restart(self) -> None:
        first = self.pid("nginx.pid")
        self.signal(signal.SIGUSR2)
        self.await_pid("nginx.pid", first)
        os.kill(first, signal.SIGQUIT)
        self.await_end(first)                     # until then the other one cannot be replaced
