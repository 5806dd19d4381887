"""A client at module level that the master used before it forked: gunicorn's workers and multiprocessing's, none of which writes on the master's connection."""
from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest

from pooledhttp import Client
from tests.support.peer import Conn, Peer, respond
from tests.support.processes import PATIENCE, ROOT, end, read_line, spawn_kept

APP = """
import os
from pooledhttp import Client

client = Client(timeout=5.0)
assert client.get({backend!r}).text == "fine"

def app(environ, start):
    r = client.get({backend!r})
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getpid()}} {{r.text}} {{client.transport.stats().closed['forked']}}".encode()]
"""
CONFIG = """
def when_ready(server):
    print(server.pid, flush=True)
"""


def fine(conn: Conn, i: int) -> None:
    while True:
        conn.recv_request()
        conn.send(respond(b"fine"))


@pytest.mark.parametrize("kind", [("sync",), ("gthread", "--threads", "4")], ids=["sync", "gthread"])
def test_gunicorn_preload(peer: Callable[..., Peer], new_client: Callable[..., Client], tmp_path: Path, kind: tuple[str, ...]) -> None:
    backend = peer(fine)
    (tmp_path / "preloaded.py").write_text(APP.format(backend=backend.url()))
    (tmp_path / "settings.py").write_text(CONFIG)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        listening.set_inheritable(True)
        with open(tmp_path / "log", "wb") as log:
            server = spawn_kept(sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-k", *kind, "-b", f"fd://{listening.fileno()}", "-c",
                                tmp_path / "settings.py", "--worker-tmp-dir", tmp_path, "--pythonpath", f"{tmp_path},{ROOT}", "--no-control-socket",
                                "preloaded:app",
                                cwd=tmp_path, pass_fds=(listening.fileno(),), stdout=subprocess.PIPE, stderr=log)
    try:
        assert server.stdout is not None
        master = read_line(server.stdout)
        assert master.strip().isdigit(), (tmp_path / "log").read_text()
        before = bytes(backend.conns[0].received)
        client = new_client(disable_keep_alives=True)
        answered: set[str] = set()
        until = time.monotonic() + PATIENCE
        with ThreadPoolExecutor(8) as crowd:
            while len(answered) < 2 and time.monotonic() < until:
                answers = list(crowd.map(lambda _: client.get(f"http://127.0.0.1:{port}/").text.split(), range(40)))
                assert {(text, forked) for _, text, forked in answers} == {("fine", "1")}
                answered |= {pid for pid, _, _ in answers}
        assert len(answered) == 2
        assert bytes(backend.conns[0].received) == before and not backend.conns[0].closed.is_set()
        assert backend.accepted > 1
        os.kill(int(master), signal.SIGTERM)
        code = server.wait(PATIENCE)               # the master's own: its keeper hands it on
    finally:
        end(server)
    assert code == 0, (tmp_path / "log").read_text()
    assert bytes(backend.conns[0].received) == before
    assert "Traceback" not in (tmp_path / "log").read_text()


_client: Client | None = None


def ask(url: str) -> tuple[str, int]:
    global _client
    if _client is None:
        _client = Client(timeout=5.0)
    r = _client.get(url)
    assert r.conn is not None
    return r.text, r.conn.requests


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_multiprocessing(peer: Callable[..., Peer], new_client: Callable[..., Client], method: str) -> None:
    global _client
    backend = peer(fine)
    _client = new_client()
    tracked = resource_tracker._resource_tracker._fd is not None          # by an earlier test, and so to stay
    try:
        assert ask(backend.url()) == ("fine", 1)
        before = bytes(backend.conns[0].received)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            assert {text for text, _ in pool.map(ask, [backend.url()] * 20)} == {"fine"}
        assert bytes(backend.conns[0].received) == before
        assert 2 <= backend.accepted <= 3
        assert ask(backend.url()) == ("fine", 2)
    finally:
        _client = None
        if method == "forkserver":                   # its helpers stay for the next pool otherwise
            forkserver._forkserver._stop()
            if not tracked:
                resource_tracker._resource_tracker._stop()
