"""What the clients talk to: nginx with one worker, and a delay server in C. Never a Python server: it would measure itself."""
from __future__ import annotations

import contextlib
import os
import resource
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench import programs
from bench.processes import Failed, Lines, end, find, start
from bench.scenarios import FEW_STREAMS, KIB, MIB, Scenario, body

PATIENCE = 10.0
FILES = {KIB: "1k", 64 * KIB: "64k", MIB: "1m"}
BIG, BIG_SIZE = "64m", 64 * MIB


@dataclass(frozen=True)
class Certificate:
    """PEM files: the authority that vouches, the server's chain, its key."""
    ca: Path
    chain: Path
    key: Path


class Servers:
    """Makes what servers need, once, in `directory`; `serving(scenario, core)` runs the one that a scenario asks for and yields its URL.

    With `hosts` beyond one the server answers on all of 127.0.0.0/8.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o755)
        self.files = directory / "files"
        self.files.mkdir()
        for size, name in FILES.items():
            (self.files / name).write_bytes(body(size))
        with (self.files / BIG).open("wb") as big:
            big.truncate(BIG_SIZE)
        self._certificate: Certificate | None = None

    @property
    def certificate(self) -> Certificate:
        if self._certificate is None:
            import trustme

            authority = trustme.CA()
            leaf = authority.issue_cert("localhost", "127.0.0.1")
            made = Certificate(*(self.directory / name for name in ("ca.pem", "chain.pem", "key.pem")))
            authority.cert_pem.write_to_path(made.ca)
            made.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
            leaf.private_key_pem.write_to_path(made.key)
            self._certificate = made
        return self._certificate

    @contextlib.contextmanager
    def serving(self, scenario: Scenario, core: int | None) -> Iterator[str]:
        if scenario.delay_ms:
            with self._delaying(scenario, core) as port:
                yield f"http://127.0.0.1:{port}/{FILES[scenario.size]}"
        else:
            with self._nginx(core, "0.0.0.0" if scenario.hosts > 1 else "127.0.0.1") as ports:
                port = ports[scenario.tls + scenario.h2 + (scenario.streams == FEW_STREAMS)]
                yield f"{'https' if scenario.tls else 'http'}://127.0.0.1:{port}/{FILES[scenario.size]}"

    @contextlib.contextmanager
    def both(self) -> Iterator[tuple[str, str]]:
        """The URLs of the 1 KiB file, plain and by TLS, from one server."""
        with self._nginx(None, "127.0.0.1") as (plain, tls, _, _):
            yield f"http://127.0.0.1:{plain}/{FILES[KIB]}", f"https://127.0.0.1:{tls}/{FILES[KIB]}"

    @contextlib.contextmanager
    def _nginx(self, core: int | None, listen: str) -> Iterator[tuple[int, int, int, int]]:
        binary = find("nginx", "nginx-light")
        config, log = self.directory / "nginx.conf", self.directory / "nginx.log"
        for attempt in range(5):                       # another process may take a free port before nginx does
            ports = _free_ports()
            config.write_text(self._config(ports, listen))
            with log.open("wb") as output:
                child = start([binary, "-p", self.directory, "-c", config, "-e", log], core=core, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                if _up(child, ports):
                    yield ports
                    return
            finally:
                end(child)
            if attempt == 4:
                raise Failed("nginx does not start: " + log.read_text())

    def _config(self, ports: tuple[int, int, int, int], listen: str) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in kinds)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = 65536 if limit == resource.RLIM_INFINITY else min(limit, 65536)
        guard = "" if listen == "127.0.0.1" else "allow 127.0.0.0/8; deny all;"
        return f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/nginx.log;
worker_rlimit_nofile {limit};
events {{ worker_connections {limit}; }}
http {{
    access_log off;
    server_tokens off;                         # one length of heads, whatever the version
    default_type application/octet-stream;
    open_file_cache max=16 inactive=1h;        # the server is to cost as little as it can
    open_file_cache_valid 1h;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    http2_max_concurrent_streams 128;
    keepalive_timeout 600s;
    root {self.files};
    {temporary}
    server {{ listen {listen}:{ports[0]} backlog=1024; {guard} }}
    # One version and one cipher suite, so that all clients do the same work.
    ssl_certificate {self.certificate.chain};
    ssl_certificate_key {self.certificate.key};
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
    server {{
        # HTTP/1.1 only, and HTTP/2 beside it.
        listen 127.0.0.1:{ports[1]} ssl backlog=1024;
        listen 127.0.0.1:{ports[2]} ssl http2 backlog=1024;
    }}
    server {{
        listen 127.0.0.1:{ports[3]} ssl http2 backlog=1024;
        http2_max_concurrent_streams {FEW_STREAMS};
    }}
}}
"""

    @contextlib.contextmanager
    def _delaying(self, scenario: Scenario, core: int | None) -> Iterator[int]:
        child = start([programs.c("delay"), str(round(scenario.delay_ms * 1000)), self.files / FILES[scenario.size]], core=core,
                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            yield int(Lines(child).read(PATIENCE))
        finally:
            end(child)

    @contextlib.contextmanager
    def sink(self) -> Iterator[str]:
        """The URL of a server that takes request bodies and answers with the number of bytes."""
        child = start([programs.c("sink")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            yield f"http://127.0.0.1:{int(Lines(child).read(PATIENCE))}/sink"
        finally:
            end(child)

    @contextlib.contextmanager
    def slow(self, url: str, milliseconds: float) -> Iterator[tuple[str, Callable[[], int]]]:
        """The URL by way of a forwarder that lets each new connection wait so long, and a function that tells how many connections it took."""
        parts = urlsplit(url)
        child = start([programs.c("slow"), str(parts.port), str(milliseconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        try:
            lines = Lines(child)
            port = int(lines.read(PATIENCE))

            def taken() -> int:
                assert child.stdin is not None
                child.stdin.write(b"\n")
                return int(lines.read(PATIENCE))

            yield f"{parts.scheme}://{parts.hostname}:{port}{parts.path}", taken
        finally:
            end(child)


def bare_ms(url: str, times: int = 30) -> float:
    """Milliseconds from a request to the first bytes of its answer, for a blocking socket in an idle interpreter: the median."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    request, took = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.hostname}\r\n\r\n".encode(), []
    with socket.create_connection((parts.hostname, parts.port), PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times):
            began = time.perf_counter()
            sock.sendall(request)
            if not sock.recv(1 << 20):
                raise Failed("the server closes its connections")
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def _free_ports() -> tuple[int, int, int, int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(4)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        a, b, c, d = (one.getsockname()[1] for one in taken)
        return a, b, c, d


def _up(child: subprocess.Popen[bytes], ports: tuple[int, int, int, int]) -> bool:
    until = time.monotonic() + PATIENCE
    while child.poll() is None and time.monotonic() < until:
        if all(map(_connectable, ports)):
            return True
        time.sleep(0.01)
    return False


def _connectable(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
