"""What every server of the matrix answers, whatever it is written in.

/1k /1m              a body of that size (`content(name)`), with a length; 304 where If-None-Match bears its ETag
/chunked/NAME        the same, chunked
/close/NAME          the same, and `Connection: close`
/204                 no body
/echo                any method: JSON of what came, {"method", "target", "token", "length", "sha256"}; `token` is the request's X-Token
/mirror              the request's body
/worker?token=X      the answering process's id and X
/deny                403, and the request's body is not looked at
"""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.support.pyserver import pattern

SIZES = {"1k": 1 << 10, "1m": 1 << 20}
PIECE = 40_000


def content(name: str) -> bytes:
    return pattern(SIZES[name])


class Answer(NamedTuple):
    """`body` is sent with its length, or in `pieces` without one."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    pieces: Iterable[bytes] | None = None


def early(target: str) -> Answer | None:
    """The answer that needs nothing of the request's body."""
    return Answer(403, [("Content-Type", "text/plain")], b"denied") if target.split("?")[0] == "/deny" else None


def answer(method: str, target: str, fields: Mapping[str, str], body: bytes) -> Answer:
    """`fields`: the request's, by names in small letters."""
    path, _, query = target.partition("?")
    route, _, name = path[1:].rpartition("/")
    headers = [("Content-Type", "application/octet-stream")]
    if path == "/204":
        return Answer(204, [])
    if path == "/mirror":
        return Answer(200, headers, body)
    if path == "/worker":
        return Answer(200, headers, f"{os.getpid()} {query.removeprefix('token=')}".encode())
    if path == "/echo":
        seen = {"method": method, "target": target, "token": fields.get("x-token"), "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        return Answer(200, [("Content-Type", "application/json")], json.dumps(seen).encode())
    if name not in SIZES or route not in ("", "chunked", "close"):
        return Answer(404, headers, b"absent")
    etag = f'"{name}"'
    headers.append(("ETag", etag))
    if fields.get("if-none-match") == etag:
        return Answer(304, headers)
    whole = content(name)
    if route == "chunked":
        size = min(PIECE, len(whole) // 2)
        return Answer(200, headers, pieces=(whole[at:at + size] for at in range(0, len(whole), size)))
    if route == "close":
        headers.append(("Connection", "close"))
    return Answer(200, headers, whole)
