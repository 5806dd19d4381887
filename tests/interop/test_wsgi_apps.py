"""The WSGI example in real servers: a crowd, requests whose time is over, and an end with a request in flight."""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pooledhttp import Client, Response
from tests.support.peer import PATIENCE, Conn, Peer, chunked, respond
from tests.support.processes import ROOT, end, spawn_kept

MakePeer = Callable[..., Peer]
# What a request has: by the app's own setting, and as nine tenths of what gunicorn gives a worker.
SECONDS = {"gthread": 2.7, "preload": 1.5, "waitress": 1.5}
WORKER_TIMEOUT = 3
WORKERS, CROWD, REQUESTS = 2, 12, 120


class Backend:
    """Greets; answers /items/N; streams; does not answer /never at all, and /held once it is let go."""

    def __init__(self, peer: MakePeer) -> None:
        self.held = threading.Event()
        self.let_go = threading.Event()
        self.peer = peer(self.answer)

    def answer(self, conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            path = head.split()[1]
            if path == b"/never":
                conn.recv_until_closed()
                return
            if path == b"/held":
                self.held.set()
                assert self.let_go.wait(PATIENCE)
            if path.startswith(b"/stream/"):
                conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one ", b"two ", path))
            else:
                conn.send(respond(b"hello " if path == b"/greeting" else path))


class Serving:
    """The app in a server. `pid` is the server's own: whoever keeps it (see keeper) would not pass SIGTERM on."""

    def __init__(self, directory: Path, backend: Backend, kind: str) -> None:
        self._log = directory / "log"
        environment = {"BACKEND": backend.peer.url(), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        if kind != "gthread":
            environment["REQUEST_SECONDS"] = str(SECONDS[kind])
        with socket.socket() as listening, self._log.open("wb") as log:
            descriptors: tuple[int, ...] = ()
            if kind == "waitress":
                command = ["-m", "examples.wsgi.with_waitress", "127.0.0.1:0"]
            else:
                listening.bind(("127.0.0.1", 0))
                listening.listen(64)
                listening.set_inheritable(True)
                descriptors = (listening.fileno(),)
                command = ["-m", "gunicorn", "-c", "python:examples.wsgi.gunicorn_conf", "-b", f"fd://{listening.fileno()}", "--no-control-socket",
                           "--worker-tmp-dir", str(directory), *(["--preload"] if kind == "preload" else ["--timeout", str(WORKER_TIMEOUT)]),
                           "examples.wsgi.app:app"]
            self._keeper = spawn_kept(sys.executable, *command, cwd=ROOT, env=environment, pass_fds=descriptors,
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        said = re.compile(r"istening (?:at: http://|on )127\.0\.0\.1:(\d+)")
        try:
            self.wait(lambda: said.search(self.log()) and self.log().count("Booting worker") == (0 if kind == "waitress" else WORKERS), "start")
        except AssertionError:
            self.close()
            raise
        self.port = int(said.findall(self.log())[0])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, true: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not true():
            assert self._keeper.poll() is None, f"it ended: {self.log()}"
            assert time.monotonic() < until, f"no {what}: {self.log()}"
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        return int(Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()[0])

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def exit_code(self) -> int:
        return self._keeper.wait(PATIENCE)

    def close(self) -> None:
        end(self._keeper)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Backend, str], Serving]]:
    made: list[Serving] = []

    def start(backend: Backend, kind: str) -> Serving:
        made.append(Serving(tmp_path, backend, kind))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gthread", "preload", "waitress"])
def test_the_example(peer: MakePeer, serve: Callable[[Backend, str], Serving], kind: str) -> None:
    backend = Backend(peer)
    server = serve(backend, kind)
    processes = 1 if kind == "waitress" else WORKERS
    url = f"http://127.0.0.1:{server.port}"

    with Client(max_idle_conns_per_host=1, timeout=3 * PATIENCE) as client, ThreadPoolExecutor(CROWD) as crowd:
        def ask(path: str) -> tuple[Response, float]:
            began = time.monotonic()
            return client.get(url + path), time.monotonic() - began

        # Two are never answered, while others are.
        late = [crowd.submit(ask, "/never") for _ in range(2)]
        paths = [f"/{'stream' if n % 5 == 0 else 'items'}/{n}" for n in range(REQUESTS)]
        answers = [r for r, _ in crowd.map(ask, paths)]
        assert [r.status_code for r in answers] == [200] * REQUESTS, server.log()
        assert [r.text for r in answers] == [("one two " if path.startswith("/stream") else "hello ") + path for path in paths]
        for future in late:
            r, took = future.result(PATIENCE)
            assert (r.status_code, r.text) == (504, "not answered in time\n")
            assert SECONDS[kind] <= took < SECONDS[kind] + 2
        for number, conn in enumerate(backend.peer.conns):
            if b"GET /never " in conn.received:
                backend.peer.wait_closed(number)          # what may still come of an answer is waited for in the background, for 50 ms
        asked = len([c for c in backend.peer.conns if b"/items/" in c.received or b"/stream/" in c.received])
        assert asked <= CROWD * processes, "connections are used again"

        # The end, with a request in flight.
        held = crowd.submit(ask, "/held")
        assert backend.held.wait(PATIENCE), server.log()
        server.terminate()
        if kind != "waitress":
            server.wait(lambda: "Handling signal: term" in server.log(), "end")
        backend.let_go.set()
        r, _ = held.result(PATIENCE)
        assert (r.status_code, r.text) == (200, "hello /held")

    assert server.exit_code() == 0, server.log()
    log = server.log()
    assert "Traceback" not in log and "Warning" not in log, log
    said = re.findall(r"client: (\d+) requests over (\d+) connections, (\d+) leaked, (\d+) left open", log)
    assert len(said) == processes + (kind == "preload"), log
    assert {(leaked, left_open) for _, _, leaked, left_open in said} == {("0", "0")}, log
    for number in range(backend.peer.accepted):
        backend.peer.wait_closed(number)
    # Each import asked for the greeting once; the master's connection bore nothing else, and workers go on counting where it was when they were made.
    imports, inherited = (1, processes) if kind == "preload" else (processes, 0)
    assert sum(bytes(c.received).count(b"GET /greeting ") for c in backend.peer.conns) == imports
    assert sum(int(requests) for requests, _, _, _ in said) == REQUESTS + 3 + imports + inherited
    assert sum(int(opened) for _, opened, _, _ in said) == backend.peer.accepted + inherited
    if kind == "preload":
        assert bytes(backend.peer.conns[0].received).count(b"GET ") == 1
        assert said[-1][:2] == ("1", "1")
