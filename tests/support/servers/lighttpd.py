from __future__ import annotations

from typing import ClassVar

from tests.support.servers.base import BRIEF, FEW, LONG, Server


class Lighttpd(Server):
    name = package = binary = "lighttpd"
    doors: ClassVar[tuple[str, ...]] = ("main", "brief", "few")

    def commands(self) -> list[list[str]]:
        keep = {"main": "", "brief": f"server.max-keep-alive-idle = {BRIEF}",
                "few": f"server.max-keep-alive-requests = {FEW - 1}"}              # it does not count a connection's first
        sockets = "".join(f'$SERVER["socket"] == "127.0.0.1:{port}" {{ {keep[door]} }}\n' for door, port in self.port.items() if door != "main")
        config = self.write("lighttpd.conf", f"""
server.modules = ("mod_access", "mod_proxy")
server.bind = "127.0.0.1"
server.port = {self.port["main"]}
server.document-root = "{self.files}"
server.errorlog = "{self.directory}/error.log"
server.upload-dirs = ("{self.directory}")
server.max-keep-alive-idle = {LONG}
server.max-keep-alive-requests = 60000
mimetype.assign = ("" => "application/octet-stream")         # what has no type gets no ETag
server.stream-response-body = 1
{sockets}
$HTTP["url"] =~ "^/(echo|mirror|worker|204|chunked/)" {{
    proxy.server = ("" => (("host" => "127.0.0.1", "port" => {self.backend})))
}}
$HTTP["url"] =~ "^/close/" {{ server.max-keep-alive-requests = 0 }}
$HTTP["url"] == "/deny" {{ url.access-deny = ("") }}
""")
        return [["-D", "-f", config]]
