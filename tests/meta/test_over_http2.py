"""What the run over HTTP/2 leaves out is named rightly, and the front says by HTTP/2 what a script says by HTTP/1.1."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pooledhttp import Client, features
from tests.exchange.conftest import new_client  # noqa: F401 - a fixture
from tests.support import front, over_http2
from tests.support.peer import Conn, Peer, chunked, header
from tests.support.processes import ROOT

TESTS = Path(__file__).parents[1]


def test_what_is_left_out_exists() -> None:
    wrong = []
    for file, test, _ in over_http2.left_out():
        text = (TESTS / file).read_text()
        if test != "*" and f"def {test.partition('[')[0]}(" not in text:
            wrong.append((file, test))
        if file.partition("/")[0] not in over_http2.SUITE:
            wrong.append((file, "is not run anyway"))
    assert wrong == []


@pytest.mark.skipif(not features()["http2"], reason="this build has no libnghttp2")
def test_the_option() -> None:
    """Most of the suite is run by it, and other directories are not."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--http2", "-q", "--collect-only", "tests/api/test_client.py", "tests/proto"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(lines) > 50 and all(line.startswith("tests/api/") for line in lines)


@pytest.mark.skipif(not features()["http2"], reason="this build has no libnghttp2")
def test_the_front(peer: Callable[..., Peer], new_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(front, "ON", True)
    seen: list[tuple[bytes, bytes]] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            head, body = conn.recv_request()
            seen.append((head.split(b"\r\n")[0], body))
            conn.send(b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX-Token: " + (header(head, "X-Token") or "").encode()
                      + b"\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n" + chunked(body, b"!", trailers=b"X-Sum: 5\r\n"))

    server = peer(script)
    client = new_client(http2="prior-knowledge")
    large = bytes(range(256)) * 1000
    for body in (b"small", large):
        r = client.post(server.url("/x?y"), content=iter([body]), headers={"X-Token": "t"})
        assert (r.http_version, r.headers["x-token"], r.content, r.trailers["x-sum"]) == ("HTTP/2", "t", body + b"!", "5")
        assert not {"transfer-encoding", "connection"} & {name.lower() for name in r.headers}
    assert seen == [(b"POST /x?y HTTP/1.1", b"small"), (b"POST /x?y HTTP/1.1", large)]
    assert (server.accepted, client.transport.stats().opened) == (1, 1)
    assert new_client(http2=False).get(server.url("/")).http_version == "HTTP/1.1"
