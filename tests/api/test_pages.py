"""What the pages on bodies, events and testing show, run as it stands there."""
from __future__ import annotations

import gzip
import re
import time
from pathlib import Path
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Client, MockTransport, Request, Response

DOCS = Path(__file__).parents[2] / "docs"


def answer(request: Request) -> Response:
    path = request.url.path
    if path in ("/v1/answers", "/ticker"):
        body = b'id: 1\nretry: 10\ndata: {"a": 1}\n\n: ping\n\ndata: [DONE]\n\n'
        return Response(200, headers={"Content-Type": "text/event-stream"}, content=iter([body[:20], body[20:]]))
    body = b'{"items": []}' if path == "/items" else b"x" * 2_000_000
    return Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(body))


@pytest.mark.parametrize("page", ["responses.md", "sse.md", "testing-your-code.md"])
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, Any] = {"pooledhttp": pooledhttp, "client": Client(transport=MockTransport(answer), base_url="http://api.test")}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    if page == "responses.md":
        assert gzip.decompress((tmp_path / "export.gz").read_bytes()) == b"x" * 2_000_000
        assert "over max_response_bytes=1000000" in printed
    elif page == "sse.md":
        assert printed.splitlines() == ["{'a': 1}", *['{"a": 1}', "[DONE]"] * 3]
        assert (names["last"], names["wait"]) == ("1", 0.01)
    else:
        assert "reset by the peer" in printed
