from __future__ import annotations

import signal

from tests.support.servers.base import PythonServer, secure


class Granian(PythonServer):
    """Rust's hyper under a WSGI application. Its time for a request's head, at most a minute, is the one for idling too."""

    name = package = binary = "granian"
    speaks = ("h1", "h2c", "h2")

    def command(self, door: str, port: int) -> list[str]:
        tls = ["--ssl-certificate", str(self.certificate[0]), "--ssl-keyfile", str(self.certificate[1])] if self.certificate and secure(door) else []
        return [*tls, "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--respawn-interval", "2", "--blocking-threads", "8",
                "--http1-header-read-timeout", str(1000 * min(self.idle(door), 60)), "--no-ws", "tests.support.servers.wsgi:app"]

    def reload(self) -> None:
        self.replace(self.main_process(), signal.SIGHUP)
