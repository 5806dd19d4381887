"""What a response or an error says of the connection that carried it."""
from __future__ import annotations

from typing import NamedTuple


class ConnInfo(NamedTuple):
    """A connection, as it was when the response's head (or the error) came.

    `id` is unique in the process; `requests` counts those it has served, this one included; `idle_for` is how long it had
    idled before this request, in seconds. Addresses are (host, port), or the path of a Unix socket.
    """

    id: int
    reused: bool
    requests: int
    idle_for: float
    remote_addr: tuple[str, int] | str | None
    local_addr: tuple[str, int] | str | None
    tls_version: str | None
    cipher: str | None
    alpn: str | None
