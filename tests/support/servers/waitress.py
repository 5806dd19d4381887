from __future__ import annotations

from tests.support.servers.base import PythonServer


class Waitress(PythonServer):
    name = package = "waitress"
    binary = "waitress-serve"

    def command(self, door: str, port: int) -> list[str]:
        return [f"--listen=127.0.0.1:{port}", "--threads=8", f"--channel-timeout={self.idle(door)}", "--cleanup-interval=1", "tests.support.servers.wsgi:app"]
