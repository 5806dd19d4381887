from __future__ import annotations

import os
import signal

from tests.support.servers.base import BRIEF, LONG, Server, keeps, secure


class H2o(Server):
    """A process for each door: the time that a connection may idle is one for all ports."""

    name = package = binary = "h2o"
    speaks = ("h1", "h2c", "h2")

    def commands(self) -> list[list[str]]:
        lasts = {"main": LONG, "brief": BRIEF}
        tls = "\n      ssl:\n        certificate-file: {}\n        key-file: {}".format(*self.certificate) if self.certificate else ""
        proxied = "".join(f"""
      {path}:
        proxy.reverse.url: "http://127.0.0.1:{self.backend}{path}"
""" for path in ("/echo", "/mirror", "/worker", "/chunked", "/204", "/close"))
        return [["-m", "master", "-c", self.write(f"{door}.conf", f"""
{"user: root" if os.geteuid() == 0 else ""}
num-threads: 1
pid-file: {self.directory}/{door}.pid
error-log: {self.directory}/{door}.log
http1-request-timeout: {lasts[keeps(door)]}
http2-idle-timeout: {lasts[keeps(door)]}
hosts:
  default:
    listen:
      host: 127.0.0.1
      port: {port}{tls if secure(door) else ""}
    paths:
{proxied}
      /deny:
        mruby.handler: |
          Proc.new {{ |env| [403, {{"content-type" => "text/plain"}}, ["denied"]] }}
      /:
        file.dir: {self.files}
""")] for door, port in self.port.items()]

    def reload(self) -> None:
        """Its master lets the new worker be for a second before it ends the former."""
        self.replace(self.main_process(), signal.SIGHUP)
