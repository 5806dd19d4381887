"""The first speed check: plain 1 KiB GETs against one nginx, client by client in turn, several rounds.

    python bench/first.py [--rounds 3] [--seconds 2]

Prints requests per second (median of the rounds) and the ratios that the design stands or falls with: one thread pinned to one core with the
server on the other against `wrk -c1`, and 16 threads unpinned against pyreqwest. Needs nginx and wrk (Debian), pyreqwest and pycurl (PyPI).
"""
from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LOAD = Path(__file__).with_name("load.py")

CONF = """
daemon off; worker_processes 1; {user} pid {dir}/pid; error_log {dir}/error.log; events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
server {{ listen 127.0.0.1:{port} backlog=1024; root {dir}/www; }} }}
"""


@contextlib.contextmanager
def nginx(pin: str | None) -> Iterator[str]:
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    with tempfile.TemporaryDirectory() as d:
        www = Path(d, "www")
        www.mkdir()
        (www / "1k").write_bytes(b"x" * 1024)
        os.chmod(d, 0o755)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        Path(d, "conf").write_text(CONF.format(dir=d, port=port, user="user root;" if os.geteuid() == 0 else ""))
        cmd = [binary, "-p", d, "-c", f"{d}/conf", "-e", f"{d}/error.log"]
        proc = subprocess.Popen((["taskset", "-c", pin] if pin else []) + cmd)
        try:
            end = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > end or proc.poll() is not None:
                        raise
                    time.sleep(0.01)
            yield f"http://127.0.0.1:{port}/1k"
        finally:
            proc.terminate()
            proc.wait()


def load(client: str, url: str, threads: int, seconds: float, pin: str | None) -> float:
    prefix = ["taskset", "-c", pin] if pin else []
    if client == "wrk":
        out = subprocess.run([*prefix, "wrk", "-t1", f"-c{threads}", f"-d{max(1, round(seconds))}s", url], check=True, capture_output=True, text=True).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", out)
        assert found, out
        return float(found[1])
    out = subprocess.run([*prefix, sys.executable, str(LOAD), client, url, str(threads), str(seconds)], check=True, capture_output=True, text=True).stdout
    return float(out)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--seconds", type=float, default=2.0)
    opts = args.parse_args()
    for title, threads, pins, base in (("1 thread, pinned", 1, ("0", "1"), "wrk"), ("16 threads, unpinned", 16, (None, None), "pyreqwest")):
        rates: dict[str, list[float]] = {}
        with nginx(pins[1]) as url:
            for _ in range(opts.rounds):
                for client in ("wrk", "pooledhttp", "pyreqwest", "pycurl", "urllib3"):
                    rates.setdefault(client, []).append(load(client, url, threads, opts.seconds, pins[0]))
        print(f"\n{title}: requests/s, median of {opts.rounds} (lowest - highest)")
        medians = {c: statistics.median(r) for c, r in rates.items()}
        for client, r in rates.items():
            print(f"  {client:12} {medians[client]:8.0f}  ({min(r):.0f} - {max(r):.0f})   pooledhttp / {client}: {medians['pooledhttp'] / medians[client]:.2f}")
        ratio = medians["pooledhttp"] / medians[base]
        goal = 0.6 if base == "wrk" else 3.0
        print(f"  goal: {goal} x {base}: {'reached' if ratio >= goal else 'MISSED'} ({ratio:.2f})")


if __name__ == "__main__":
    main()
