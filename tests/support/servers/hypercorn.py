from __future__ import annotations

from typing import ClassVar

from tests.support.servers.base import FEW, PythonServer, keeps, secure


class Hypercorn(PythonServer):
    name = package = binary = "hypercorn"
    speaks = ("h1", "h2c", "h2")
    doors: ClassVar[tuple[str, ...]] = ("main", "brief", "few")

    def command(self, door: str, port: int) -> list[str]:
        tls = 'certfile = "{}"\nkeyfile = "{}"'.format(*self.certificate) if self.certificate and secure(door) else ""
        config = self.write(f"{door}.toml", f"""
bind = "127.0.0.1:{port}"
keep_alive_timeout = {self.idle(door)}
keep_alive_max_requests = {FEW if keeps(door) == "few" else 1000000}
{tls}
""")
        return ["--config", config, "tests.support.servers.asgi:app"]
