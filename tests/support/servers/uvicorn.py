from __future__ import annotations

from tests.support.servers.base import PythonServer


class Uvicorn(PythonServer):
    name = package = binary = "uvicorn"

    def command(self, door: str, port: int) -> list[str]:
        return ["tests.support.servers.asgi:app", "--host", "127.0.0.1", "--port", str(port), "--timeout-keep-alive", str(self.idle(door)), "--no-access-log"]
