from __future__ import annotations

from tests.support.servers.base import PythonServer


class Gunicorn(PythonServer):
    """Threads, one worker; HUP replaces it."""

    name = package = binary = "gunicorn"

    def command(self, door: str, port: int) -> list[str]:
        return ["--worker-class", "gthread", "--threads", "8", "--workers", "1", "--bind", f"127.0.0.1:{port}", "--keep-alive", str(self.idle(door)),
                "--worker-tmp-dir", str(self.directory), "--no-control-socket", "--pid", f"{self.directory}/{door}.pid", "tests.support.servers.wsgi:app"]
