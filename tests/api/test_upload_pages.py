"""What the pages on uploads, URLs and guarded requests show, run as it stands there."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import pooledhttp
from pooledhttp import Client, MockTransport, Request, Response
from tests.support.peer import Peer, answering, respond

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(page: str, block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(block, page, "exec"), names)
    return names


def test_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    (tmp_path / "dump.bin").write_bytes(b"d" * 300_000)
    seen: list[tuple[Request, bytes]] = []

    def answer(request: Request) -> Response:
        body = request.body
        seen.append((request, b"".join(body) if not isinstance(body, (bytes, type(None))) else body or b""))
        return Response(200)

    with Client(transport=MockTransport(answer)) as client:
        monkeypatch.setattr("pooledhttp.api._default", client)
        for block in blocks("uploads.md"):
            run("uploads.md", block)
    (album, form), (_, counted), (asking, _), (digested, pieces) = seen
    assert b'name="album"\r\n\r\n7\r\n' in form and b'name="photo"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\nphoto\r\n' in form
    assert album.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert counted == b"d" * 300_000
    assert capsys.readouterr().out.split("\r")[-1] == "300000 of 300000 bytes"
    assert asking.headers["Expect"] == "100-continue"
    assert pieces == b"onetwo"
    assert not isinstance(digested.body, (bytes, type(None)))
    assert digested.body.trailer_section() == b"X-Digest: " + hashlib.sha256(b"onetwo").hexdigest().encode() + b"\r\n"


def test_urls(peer: Callable[..., Peer], tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    server = peer(answering(respond(b"version")), uds=path)
    ran = [run("urls.md", block.replace(".%2Fapp.sock", quote(str(path), safe="")).replace("app.sock", str(path)))
           for block in blocks("urls.md")]
    assert len(ran) == 1
    assert server.accepted == 2
    pooledhttp.default_transport().close_idle_connections()


def test_ssrf(capsys: pytest.CaptureFixture[str]) -> None:
    ran = [run("ssrf.md", block) for block in blocks("ssrf.md")]
    assert "connect_filter refused 169.254.169.254:80" in capsys.readouterr().out
    assert [ran[1]["allowed"](ip, port) for ip, port in (("8.8.8.8", 443), ("8.8.8.8", 22), ("10.0.0.1", 443))] == [True, False, False]
