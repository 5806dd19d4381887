"""The routes as a WSGI application."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from tests.support.servers.routes import answer, early


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    method, target = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if environ.get("QUERY_STRING"):
        target += "?" + environ["QUERY_STRING"]
    said = early(target)
    if said is None:
        fields = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        said = answer(method, target, fields, b"".join(iter(lambda: environ["wsgi.input"].read(1 << 16), b"")))
    headers = list(said.headers)
    if said.pieces is None and said.status not in (204, 304):
        headers.append(("Content-Length", str(len(said.body))))
    start_response(f"{said.status} {HTTPStatus(said.status).phrase}", headers)
    if method == "HEAD" or said.status in (204, 304):
        return ()
    return (said.body,) if said.pieces is None else said.pieces
