"""The routes as an ASGI application."""
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.servers.routes import answer, early


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": event["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    target = scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
    said = early(target)
    if said is None:
        pieces, more = [], True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            pieces.append(event.get("body", b""))
            more = event.get("more_body", False)
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        said = answer(scope["method"], target, fields, b"".join(pieces))
    headers = [(name.lower().encode(), value.encode()) for name, value in said.headers]
    if said.pieces is None and said.status not in (204, 304):
        headers.append((b"content-length", str(len(said.body)).encode()))
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    if said.pieces is not None and scope["method"] != "HEAD":
        for piece in said.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else said.body})
