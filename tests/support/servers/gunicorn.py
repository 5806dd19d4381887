from __future__ import annotations

import os
import signal

from tests.support.servers.base import PythonServer


class Gunicorn(PythonServer):
    """Threads, one worker; HUP replaces it. USR2 starts another master on the same sockets, TERM lets the first end what it has begun."""

    name = package = binary = "gunicorn"

    def command(self, door: str, port: int) -> list[str]:
        return ["--worker-class", "gthread", "--threads", "8", "--workers", "1", "--bind", f"127.0.0.1:{port}", "--keep-alive", str(self.idle(door)),
                "--worker-tmp-dir", str(self.directory), "--no-control-socket", "--pid", f"{self.directory}/{door}.pid", "tests.support.servers.wsgi:app"]

    def reload(self) -> None:
        self.signal(signal.SIGHUP)

    def restart(self) -> None:
        first = self.pid("main.pid")
        self.signal(signal.SIGUSR2)
        self.await_pid("main.pid.2", first)
        os.kill(first, signal.SIGTERM)
        self.await_pid("main.pid", first)         # the second has taken its place
