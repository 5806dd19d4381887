"""nginx from the system's packages, with its own directory, ports and logs.

Servers: `plain`, `tls`, `h2` (TLS, HTTP/2 offered) and `h2c` (HTTP/2 in the clear) keep connections alive without a limit, `few` closes each
after five requests, `brief` says `Keep-Alive: timeout=1` and means it. All have the same locations:

/1k /64k /1m /1g     files (`content(name)` is what is in the first three; /1g is a gibibyte of zeros)
/chunked/NAME        the same, chunked
/gzip/NAME           the same, in gzip where that is accepted
/slow/NAME           the same, at 256 KiB a second
/close/NAME          the same, with Connection: close
/token?token=X       answers X
/resumed             answers "r" where the TLS session was resumed, else "."
/worker?token=X      answers with its process's id and X, and writes the method and X into `answered`
/204 /500            statuses without a body, and with one
/dav/NAME            PUT stores, GET brings back
/upload              any body, answered by the Python server behind it (see pyserver), read as it comes
/discard             200 at once; the body is read and dropped
"""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.support import front
from tests.support.peer import free_ports
from tests.support.processes import connectable, end, spawn_kept
from tests.support.pyserver import pattern

SIZES = {"1k": 1 << 10, "64k": 1 << 16, "1m": 1 << 20}
KEEP_ALIVE = {"plain": "keepalive_requests 100000000; keepalive_timeout 600s;",
              "few": "keepalive_requests 5; keepalive_timeout 600s;",
              "brief": "keepalive_timeout 1s 1s;"}
KEEP_ALIVE["tls"] = KEEP_ALIVE["h2"] = KEEP_ALIVE["h2c"] = KEEP_ALIVE["plain"]
SECURE = ("tls", "h2")


def content(name: str) -> bytes:
    return pattern(SIZES[name])


class Nginx:
    """A running nginx. `url(target, server="plain")`; `port[server]`; `reload()`; `close()`."""

    def __init__(self, directory: Path, *, certificate: tuple[Path, Path], backend: int) -> None:
        binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if binary is None:
            raise RuntimeError("the tests need nginx: apt-get install nginx-light")
        self.directory = directory
        files = directory / "files"
        (files / "dav").mkdir(parents=True)
        for name in SIZES:
            (files / name).write_bytes(content(name))
        with (files / "1g").open("wb") as f:
            f.truncate(1 << 30)
        self.answered = directory / "answered.log"
        config = directory / "nginx.conf"
        for attempt in range(5):
            self.port = dict(zip(KEEP_ALIVE, free_ports(len(KEEP_ALIVE)), strict=True))
            config.write_text(self._config(files, certificate, backend))
            self._log = (directory / "output.log").open("wb")
            self._child = spawn_kept(binary, "-p", directory, "-c", config, "-e", directory / "error.log", stdin=subprocess.DEVNULL,
                                     stdout=self._log, stderr=subprocess.STDOUT)
            if self._up():
                return
            self._log.close()
            if attempt == 4:
                raise RuntimeError("nginx does not start: " + (directory / "output.log").read_text())

    def url(self, target: str = "/", server: str = "plain") -> str:
        if front.ON:
            server = {"plain": "h2c", "tls": "h2"}.get(server, server)
        return f"{'https' if server in SECURE else 'http'}://127.0.0.1:{self.port[server]}{target}"

    def reload(self) -> None:
        """Asks for it, and waits for nothing: a new worker takes new connections, the old one closes what idles and answers what it has begun."""
        self._child.send_signal(signal.SIGHUP)

    def close(self) -> None:
        end(self._child)
        self._log.close()

    def _up(self) -> bool:
        until = time.monotonic() + 10
        while self._child.poll() is None and time.monotonic() < until:
            if all(connectable(port) for port in self.port.values()):
                return True
            time.sleep(0.01)
        end(self._child)
        return False

    def _config(self, files: Path, certificate: tuple[Path, Path], backend: int) -> str:
        servers = []
        for name, port in self.port.items():
            tls = f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};" if name in SECURE else ""
            servers.append(f"""
    server {{
        listen 127.0.0.1:{port}{" ssl" if tls else ""}{" http2" if name.startswith("h2") else ""};
        {tls}
        {KEEP_ALIVE[name]}
        root {files};
        client_max_body_size 0;
        location /chunked/ {{ alias {files}/; ssi on; ssi_types *; }}
        location /gzip/ {{ alias {files}/; gzip on; gzip_types *; }}
        location /slow/ {{ alias {files}/; limit_rate 256k; }}
        location /close/ {{ alias {files}/; keepalive_timeout 0; }}
        location = /token {{ return 200 $arg_token; }}
        location = /resumed {{ return 200 $ssl_session_reused; }}
        location = /worker {{ access_log {self.answered} answered; return 200 "$pid $arg_token"; }}
        location = /204 {{ return 204; }}
        location = /500 {{ return 500; }}
        location /dav/ {{ dav_methods PUT; create_full_put_path on; }}
        location = /upload {{ proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1; proxy_request_buffering off; }}
        location = /discard {{ return 200 discarded; }}
    }}""")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"    {kind}_temp_path {self.directory}/{kind};\n" for kind in kinds)
        return f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 8192; }}
http {{
    log_format answered "$request_method $arg_token";
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
{temporary}{"".join(servers)}
}}
"""
