"""A gibibyte both ways, with flat memory."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Web
from tests.support.nginx import Nginx
from tests.support.processes import end, spawn_python
from tests.support.pyserver import PyServer

GIB = 1 << 30
FLAT = 4 << 20            # bytes that the peak may rise by: the allocator's and the kernel's rounding, not the body
ZEROS_SHA256 = "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "gibibyte"
    with path.open("wb") as f:
        f.truncate(GIB)
    return path


def transfer(kind: str, url: str, small: str, ca: Any, *path: Path) -> dict[str, Any]:
    child = spawn_python("-m", "tests.interop.memory", kind, url, small, ca.pem, *path, stdout=subprocess.PIPE)
    try:
        out, _ = child.communicate(timeout=100)
    finally:
        code = end(child)
    assert code == 0
    seen: dict[str, Any] = json.loads(out)
    return seen


def test_download_as_a_stream(web: Web, ca: Any) -> None:
    seen = transfer("stream", web.url("/1g"), web.url("/1k"), ca)
    assert (seen["status"], seen["size"], seen["zeros"], seen["again"], seen["opened"]) == (200, GIB, GIB, 3, 1)
    assert seen["risen"] < FLAT


def test_download_whole(nginx: Nginx, ca: Any) -> None:
    """The body is received into its final bytes: nothing is held twice."""
    seen = transfer("whole", nginx.url("/1g"), nginx.url("/1k"), ca)
    assert (seen["status"], seen["size"], seen["first"], seen["last"], seen["opened"]) == (200, GIB, "00" * 16, "00" * 16, 1)
    assert GIB - FLAT < seen["risen"] < GIB + FLAT


def test_upload_of_a_file(nginx: Nginx, ca: Any, sparse: Path) -> None:
    """nginx answers before it has the body, takes all of it, and the connection serves on."""
    seen = transfer("file", nginx.url("/discard", "tls"), nginx.url("/upload", "tls"), ca, sparse)
    assert (seen["status"], seen["text"], seen["conn"], seen["again"], seen["opened"]) == (200, "discarded", 2, 3, 1)
    assert seen["risen"] < FLAT


def test_every_byte_of_an_upload(pyserver: PyServer, ca: Any, sparse: Path) -> None:
    seen = transfer("file", pyserver.url("/"), pyserver.url("/"), ca, sparse)
    answer = json.loads(seen["text"])
    assert (answer["length"], answer["sha256"], answer["served"], seen["again"]) == (GIB, ZEROS_SHA256, 2, 3)
    assert seen["risen"] < FLAT
