from __future__ import annotations

from typing import ClassVar

from tests.support.servers.base import FEW, PythonServer


class Hypercorn(PythonServer):
    name = package = binary = "hypercorn"
    h2 = "main"
    doors: ClassVar[tuple[str, ...]] = ("main", "brief", "few")

    def command(self, door: str, port: int) -> list[str]:
        config = self.write(f"{door}.toml", f"""
bind = "127.0.0.1:{port}"
keep_alive_timeout = {self.idle(door)}
keep_alive_max_requests = {FEW if door == "few" else 1000000}
""")
        return ["--config", config, "tests.support.servers.asgi:app"]
