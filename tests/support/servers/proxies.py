"""Proxies from Debian's packages: `door("main")` takes anybody, `door("auth")` "us" with the password "p-w", `door("tls")` speaks TLS itself."""
from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import ClassVar

from tests.support.servers.base import Server

USER, PASSWORD = "us", "p-w"
FORBIDDEN = "forbidden.test"           # where none of them connects to


class RealProxy(Server):
    schemes: ClassVar[tuple[str, ...]] = ("http",)

    def proxy(self, door: str = "main", userinfo: str = "", scheme: str = "") -> str:
        scheme = scheme or ("https" if door == "tls" else self.schemes[0])
        return f"{scheme}://{userinfo + '@' if userinfo else ''}127.0.0.1:{self.port[door]}"


class Squid(RealProxy):
    name = package = binary = "squid"
    doors = ("main", "auth", "tls")

    def commands(self) -> list[list[str]]:
        helper = self.directory / "helper"
        helper.write_text(f"#!/bin/sh\nwhile read -r line; do [ \"$line\" = '{USER} {PASSWORD}' ] && echo OK || echo ERR; done\n")
        helper.chmod(0o755)
        assert self.certificate is not None, "one of its doors speaks TLS"
        chain, key = (path.read_text() for path in self.certificate)
        pem = self.write("squid.pem", chain + key)
        if os.getuid() == 0:
            Path(pem).chmod(0o644)
            self.directory.chmod(0o777)
        config = self.write("squid.conf", f"""
http_port 127.0.0.1:{self.port['main']} name=main
http_port 127.0.0.1:{self.port['auth']} name=auth
https_port 127.0.0.1:{self.port['tls']} tls-cert={pem} name=tls
auth_param basic program {helper}
auth_param basic children 2 startup=1
auth_param basic realm proxy
acl auth_door myportname auth
acl known proxy_auth REQUIRED
acl forbidden dstdomain {FORBIDDEN}
acl all_ports port 1-65535
http_access deny forbidden
http_access deny auth_door !known
http_access allow all
cache deny all
cache_mem 0
access_log none
cache_log {self.directory}/cache.log
pid_filename none
coredump_dir {self.directory}
shutdown_lifetime 0 seconds
visible_hostname proxy.test
via on
""")
        return [["-N", "-f", config]]


class Tinyproxy(RealProxy):
    """One login for all of a process: one for each door."""

    name = package = binary = "tinyproxy"
    doors = ("main", "auth")

    def commands(self) -> list[list[str]]:
        return [["-d", "-c", self._config(door)] for door in self.port]

    def _config(self, door: str) -> str:
        refused = self.write("filter", FORBIDDEN.replace(".", r"\.") + "\n")
        login = f'BasicAuth {USER} {PASSWORD}\n' if door == "auth" else ""
        return self.write(f"{door}.conf", f"""
Port {self.port[door]}
Listen 127.0.0.1
Timeout 60
MaxClients 100
Filter "{refused}"
ViaProxyName "proxy.test"
{login}""")


class Dante(RealProxy):
    """Its logins are the system's users, and the tests make none."""

    name, package, binary = "dante", "dante-server", "danted"
    schemes = ("socks5", "socks5h")
    doors = ("main", "auth")

    def commands(self) -> list[list[str]]:
        return [["-f", self._config(door), "-p", f"{self.directory}/{door}.pid"] for door in self.port]

    def _config(self, door: str) -> str:
        me = getpass.getuser()
        return self.write(f"{door}.conf", f"""
logoutput: stderr
internal: 127.0.0.1 port = {self.port[door]}
external: 127.0.0.1
clientmethod: none
socksmethod: {'username' if door == 'auth' else 'none'}
user.privileged: {me}
user.unprivileged: {me}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 127.0.0.0/8 to: {FORBIDDEN} }}
socks block {{ from: 127.0.0.0/8 to: 127.0.0.77/32 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 protocol: tcp }}
""")


REAL = {kind.name: kind for kind in (Squid, Tinyproxy, Dante)}
