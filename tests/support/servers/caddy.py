from __future__ import annotations

import subprocess
from typing import ClassVar

from tests.support.processes import PATIENCE
from tests.support.servers.base import BRIEF, LONG, Server, keeps, secure


class Caddy(Server):
    """Go's net/http as a server. It has a request's body whole before it asks behind: one passed on as it comes races with the answer,
    and is lost to it once in some hundred times, by a plain socket as well: the answer's end is cut off."""

    name = package = binary = "caddy"
    speaks = ("h1", "h2c", "h2")
    asks_version: ClassVar[tuple[str, ...]] = ("version",)

    def commands(self) -> list[list[str]]:
        lasts = {"main": LONG, "brief": BRIEF}
        tls = "tls {} {}".format(*self.certificate) if self.certificate else ""
        idle = "".join(f"""
    servers 127.0.0.1:{port} {{
        protocols h1 h2 h2c
        timeouts {{
            idle {lasts[keeps(door)]}s
        }}
    }}""" for door, port in self.port.items())
        sites = "".join(f"""
{self.url("", door)} {{
    bind 127.0.0.1
    {tls if secure(door) else ""}
    root * {self.files}
    respond /204 204
    respond /deny denied 403
    header /close/* Connection close
    @routes path /echo /mirror /worker /chunked/*
    reverse_proxy @routes 127.0.0.1:{self.backend} {{
        buffer_requests
    }}
    file_server
}}
""" for door, port in self.port.items())
        config = self.write("Caddyfile", f"""
{{
    admin unix/{self.directory}/admin
    auto_https disable_redirects
    skip_install_trust
    storage file_system {self.directory}/storage
{idle}
}}
{sites}
""")
        return [["run", "--adapter", "caddyfile", "--config", config]]

    def reload(self) -> None:
        at = str(self.directory)
        subprocess.run([str(self.find()), "reload", "--force", "--adapter", "caddyfile", "--config", f"{at}/Caddyfile", "--address", f"unix/{at}/admin"],
                       check=True, capture_output=True, timeout=PATIENCE)
