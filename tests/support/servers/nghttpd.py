from __future__ import annotations

from typing import ClassVar

from tests.support.servers.base import Server, keeps, secure

TRAILER = ("x-trailer", "it was all")
NARROW = 4


class Nghttpd(Server):
    """libnghttp2's own server: HTTP/2 alone. It sends files, and a POST's or a PUT's body back, each with a trailer; beside that it has no routes.
    `narrow` takes few streams at once, sends no length, pads its frames, and would push."""

    name = "nghttpd"
    package = "nghttp2-server"
    binary = "nghttpd"
    before: ClassVar[str | None] = None
    doors: ClassVar[tuple[str, ...]] = ("main", "narrow")
    speaks = ("h2c", "h2")
    asks_version: ClassVar[tuple[str, ...]] = ("--version",)

    def commands(self) -> list[list[str]]:
        narrow = ["--max-concurrent-streams", str(NARROW), "--no-content-length", "--padding", "200", "--push", "/1k=/1m"]
        tls = [str(self.certificate[1]), str(self.certificate[0])] if self.certificate else []
        return [["--address", "127.0.0.1", "--htdocs", str(self.files), "--echo-upload", "--trailer", ": ".join(TRAILER),
                 *(narrow if keeps(door) == "narrow" else []), *([] if secure(door) else ["--no-tls"]), str(port), *(tls if secure(door) else [])]
                for door, port in self.port.items()]
