"""Batch jobs over several processes: Dask's on one machine, and the standard library's."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client
from tests.api.server import Handler, Server
from tests.meta.sources import ROOT

PAGE = ROOT / "docs" / "batch.md"
MAKES = ("dask", "forkserver", "spawn")


class Counted(Handler):
    server: Counting

    def do_hang(self) -> None:
        """Nothing, until the client goes."""
        self.take()
        with self.server.idle:
            self.server.counts["hanging"] += 1
        assert self.connection.recv(1) == b""
        with self.server.idle:
            self.server.counts["hanging"] -= 1
        self.close_connection = True

    def do_count(self, name: str) -> None:
        with self.server.idle:
            n = self.server.counts[name]
        self.send(str(n).encode())


class Counting(Server):
    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = Counted
        self.counts = {"accepted": 0, "hanging": 0}

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.idle:
            self.counts["accepted"] += 1
        super().process_request(request, client_address)


@contextmanager
def serving() -> Iterator[Counting]:
    server = Counting()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
        with server.idle:
            assert server.idle.wait_for(lambda: server.open == 0, 10), "a connection was left open"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def job(make: str) -> dict[str, Any]:
    with serving() as server:
        done = subprocess.run([sys.executable, "-m", "tests.batch.jobs", make, server.url], cwd=ROOT, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout.splitlines()[-1]), "port": server.server_address[1], "make": make}


def shown(directory: Path) -> list[str]:
    """What the program prints that docs/batch.md shows, as it stands there."""
    (program,) = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (directory / "job.py").write_text(program)
    with serving() as server:
        done = subprocess.run([sys.executable, directory / "job.py", server.url], cwd=ROOT, capture_output=True, text=True, timeout=50,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Any]]:
    """All at once: each waits most of its time."""
    with ThreadPoolExecutor(len(MAKES) + 1) as executor:
        page = executor.submit(shown, tmp_path_factory.mktemp("page"))
        return {"page": page, **{make: executor.submit(job, make) for make in MAKES}}


@pytest.fixture(params=MAKES)
def seen(request: pytest.FixtureRequest, jobs: dict[str, Future[Any]]) -> Any:
    """What a job saw. It is another process: what Dask keeps open is its own."""
    return jobs[request.param].result()


def most(threads: int) -> int:
    """Connections that two processes open: one a thread, and one that it dialed in vain, since one freed meanwhile served it (the dialed one is pooled)."""
    return 2 * 2 * threads


def test_one_transport_a_process_and_not_one_a_task(seen: dict[str, Any]) -> None:
    threads = 2 if seen["make"] == "dask" else 1
    tasks = seen["tasks"]
    assert tasks["right"] and 1 <= tasks["processes"] <= 2
    assert 1 <= tasks["connections"] <= most(threads)


def test_map(seen: dict[str, Any]) -> None:
    threads = 2 if seen["make"] == "dask" else 1
    assert seen["map"]["right"] and seen["map"]["conn"]
    assert seen["map"]["request"] == "GET"
    assert 1 <= seen["map"]["connections"] <= most(threads)


def test_failures_travel(seen: dict[str, Any]) -> None:
    missing, refused, late = seen["failures"]
    url = f"http://127.0.0.1:{seen['port']}"
    assert (missing["kind"], missing["answer"], missing["url"]) == ("HTTPStatusError", [404, "status 404", True], f"{url}/status/404")
    assert (refused["kind"], refused["phase"], refused["url"]) == ("ConnectError", "connect", "http://127.0.0.1:1/")
    assert (late["kind"], late["phase"], late["method"], late["url"]) == ("DeadlineExceeded", "headers", "POST", f"{url}/hang")
    assert (late["peer"], late["source"]) == (seen["port"], "request")
    assert late["text"].endswith(f"(POST {url}/hang)")


def test_a_contexts_deadline_reaches_them(seen: dict[str, Any]) -> None:
    assert [(e["kind"], e["source"]) for e in seen["deadline"]["errors"]] == [("DeadlineExceeded", "context")] * 2
    assert seen["deadline"]["seconds"] < 5


def test_a_cancel_reaches_them(seen: dict[str, Any]) -> None:
    """Their own limit is 20 s."""
    assert seen["cancel"]["is"] and seen["cancel"]["errors"] == ["Cancelled"] * 2
    assert seen["cancel"]["seconds"] < 5


def test_leaving_the_loop_reaches_them(seen: dict[str, Any]) -> None:
    assert seen["left"]["seconds"] < 2 and seen["left"]["all"] < 5
    assert seen["after"] == 7


def test_the_pages_program(jobs: dict[str, Future[Any]]) -> None:
    assert jobs["page"].result() == ["4950"] * 3


def test_the_pages_blocks() -> None:
    """Those of `map`, over threads; tests/docs runs them all."""
    blocks = [block for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL) if "client.map" in block]
    assert len(blocks) == 2
    with serving() as server, Client(timeout=10, max_conns_per_host=4) as client:
        names = {"client": client, "urls": [f"{server.url}/number/{n}" for n in range(3)]}
        for block in blocks:
            exec(compile(block, "batch.md", "exec"), names)
        assert client.transport.stats().requests == 6
        client.close()
