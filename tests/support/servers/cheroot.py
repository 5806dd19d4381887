from __future__ import annotations

from tests.support.servers.base import PythonServer


class Cheroot(PythonServer):
    """The server of CherryPy. Its threads stay with a connection only while there is a request on it."""

    name = package = binary = "cheroot"

    def command(self, door: str, port: int) -> list[str]:
        return ["--bind", f"127.0.0.1:{port}", "--threads", "8", "--timeout", str(self.idle(door)), "tests.support.servers.wsgi:app"]
