"""`-v`: what each exchange does, a line on standard error for each step, beginning with "* "."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any

from pooledhttp.cli.output import printable
from pooledhttp.conninfo import ConnInfo
from pooledhttp.trace import Trace

_BEGUN = monotonic()


def _place(address: tuple[str, int] | str | None) -> str:
    return f"{address[0]} port {address[1]}" if isinstance(address, tuple) else str(address)


class Spoken(Trace):
    """One exchange's lines: seconds since the start, the request without its query, and what happened."""

    def _say(self, what: str) -> None:
        stream = sys.stderr
        if stream is not None:
            of = f"{self.method} {self.target.partition('?')[0]}: " if self.method else ""
            line = printable(f"* {monotonic() - _BEGUN:.3f} {of}{what}")
            encoding = stream.encoding or "ascii"
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")         # in one piece: other threads write too

    def _failed(self, what: str, error: BaseException | None) -> bool:
        if error is not None:
            self._say(f"{what}: {error}")
        return error is not None

    def dns_start(self, host: str) -> None:
        self._say(f"looking up {host}")

    def dns_done(self, addresses: Sequence[tuple[str, int]], error: BaseException | None, kept: bool) -> None:
        if not self._failed("no address", error):
            self._say(f"{'known already' if kept else 'found'}: {', '.join(ip for ip, _ in addresses)}")

    def connect_start(self, address: tuple[str, int] | str) -> None:
        self._say(f"connecting to {_place(address)}")

    def connect_done(self, address: tuple[str, int] | str, error: BaseException | None) -> None:
        if not self._failed(f"not connected to {_place(address)}", error):
            self._say(f"connected to {_place(address)}")

    def tls_start(self, host: str) -> None:
        self._say(f"TLS handshake with {host}")

    def tls_done(self, info: Any, error: BaseException | None) -> None:
        if not self._failed("no TLS", error):
            self._say(f"{info.tls_version}, {info.cipher}{', session resumed' if info.resumed else ''}{f', {info.alpn}' if info.alpn else ''}")

    def got_conn(self, info: ConnInfo) -> None:
        self._say(f"{'reusing' if info.reused else 'using'} connection {info.id} to {_place(info.remote_addr)}")

    def wrote_request(self, error: BaseException | None) -> None:
        if not self._failed("request not sent whole", error):
            self._say("request sent")

    def got_1xx(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._say(f"interim response {status}")

    def first_byte(self) -> None:
        self._say("the answer begins")

    def put_idle(self, error: str | None) -> None:
        if error is None:
            self._say("connection kept for the next request")

    def closed(self, reason: str, info: ConnInfo) -> None:
        self._say(f"connection {info.id} closed: {reason}")
