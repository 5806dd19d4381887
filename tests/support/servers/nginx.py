from __future__ import annotations

import os
import signal
from typing import ClassVar

from tests.support.servers.base import BRIEF, FEW, LONG, Server


class Nginx(Server):
    """USR2 starts another master on the same sockets, QUIT lets the first end what it has begun: only as a daemon does it that."""

    name = binary = "nginx"
    package = "nginx-light"
    doors: ClassVar[tuple[str, ...]] = ("main", "brief", "few", "h2")
    h2 = "h2"

    def commands(self) -> list[list[str]]:
        keep = {"main": f"keepalive_requests 1000000; keepalive_timeout {LONG}s;", "brief": f"keepalive_timeout {BRIEF}s;",
                "few": f"keepalive_requests {FEW}; keepalive_timeout {LONG}s;"}
        keep["h2"] = keep["main"]
        servers = "".join(f"""
    server {{
        listen 127.0.0.1:{port}{" http2" if door == "h2" else ""};
        {keep[door]}
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

    def restart(self) -> None:
        first = self.pid("nginx.pid")
        self.signal(signal.SIGUSR2)
        self.await_pid("nginx.pid", first)
        os.kill(first, signal.SIGQUIT)
        self.await_end(first)                     # until then the other one cannot be replaced
