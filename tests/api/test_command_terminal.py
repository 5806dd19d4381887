"""`python -m pooledhttp` in a terminal, in a pipe, and when a signal ends it."""
from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp.cli import output
from pooledhttp.cli.output import Bar, printable
from tests.support.peer import answering, respond

from .server import Server

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """The command with its error output, and if asked its output too, on a pseudo-terminal."""

    def __init__(self, *args: str, whole: bool = False, **environment: str) -> None:
        self.master, slave = pty.openpty()
        env = {**os.environ, "TERM": "xterm", **environment}
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)          # under nohup it is ignored, and the command would rightly ignore it too
        try:
            self.process = subprocess.Popen([sys.executable, "-m", "pooledhttp", *args], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                            stdout=slave if whole else subprocess.PIPE, stderr=slave)
        finally:
            signal.signal(signal.SIGHUP, before)
            os.close(slave)
        self.seen = b""

    def read(self, until: bytes | None = None, timeout: float = 20) -> str:
        """What came to the terminal, until a text is in it, or the end."""
        limit = time.monotonic() + timeout
        while until is None or until not in self.seen:
            assert select.select([self.master], [], [], max(0.0, limit - time.monotonic()))[0], f"no {until!r} in {self.seen!r}"
            try:
                data = os.read(self.master, 4096)
            except OSError:                # EIO: the other side is closed
                data = b""
            if not data:
                assert until is None, f"ended without {until!r}: {self.seen!r}"
                break
            self.seen += data
        return self.seen.decode()

    def end(self) -> int:
        return self.process.wait(20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self.master)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.close()


# --- the bar -----------------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bars_text() -> None:
    bar = Bar(True)
    assert bar.text(5, 20, 10.0, 79) == "[" + "#" * 10 + "." * 30 + "]  5/20  0.5/s  0:30 left"
    bar.failed = 2
    assert bar.text(300, None, 10.0, 79) == "300  30/s  2 failed"
    assert bar.text(25, 20, 10.0, 79).startswith("[" + "#" * 40 + "]")                    # more than was promised
    assert [len(bar.text(5, 20, 10.0, width)) <= width for width in range(80)] == [True] * 80


def test_a_bar_comes_after_a_while_and_goes_before_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(output, "monotonic", lambda: now)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    stream: Any = sys.stderr
    bar = Bar(True)
    for _ in range(11):
        now += 0.05
        bar.update(1, 4)
    bar.hide()
    assert stream.getvalue() == ""
    now = 101.0
    for _ in range(30):
        bar.update(2, 4)
    assert re.fullmatch(r"\r\[#+\.+\]  2/4  2\.0/s  0:01 left\x1b\[K", stream.getvalue())
    bar.hide()
    bar.hide()
    assert stream.getvalue().endswith("\x1b[K\r\x1b[K")
    for dumb in ({"TERM": "dumb"}, {"TERM": "xterm"}):
        monkeypatch.setenv("TERM", dumb["TERM"])
        monkeypatch.setattr(sys, "stderr", Terminal() if dumb["TERM"] == "dumb" else io.StringIO())
        assert not Bar(True).on


def test_lines_are_for_every_terminal() -> None:
    assert printable("a\x1b[31m b\r\nc\t\u202e") == "a\\x1b[31m b c \\x202e"


def test_a_bar_on_a_terminal(server: Server, children: list[Child], tmp_path: Path) -> None:
    """One that takes over a second: the bar is there, counts, and is gone at the end; the output is untouched by it."""
    urls = tmp_path / "urls"
    urls.write_text("".join(f"{server.url}/{path}\n" for path in ("number/1", "held", "number/2", "status/404")))
    child = Child("-i", str(urls), "--json")
    children.append(child)
    assert server.held.acquire(timeout=20)
    time.sleep(1.2)                        # the bar's own second
    server.release.set()
    child.read(b"left")
    seen = child.read()
    assert child.end() == 3
    assert re.search(r"\r\[#+\.+\]  [234]/4  \S+/s  0:0\d left\x1b\[K", seen)
    assert seen.endswith("\r\x1b[K")
    assert child.process.stdout is not None
    lines = child.process.stdout.read().decode().splitlines()
    assert [line[:8] for line in lines] == ['{"url": '] * 4


@pytest.mark.parametrize("option", ["--no-progress", "-q"])
def test_no_bar_where_none_is_wanted(server: Server, children: list[Child], option: str) -> None:
    child = Child(server.url + "/number/1", server.url + "/held", server.url + "/number/2", option, "-k")
    children.append(child)
    assert server.held.acquire(timeout=20)
    time.sleep(1.1)
    server.release.set()
    assert child.read() == ""
    assert child.end() == 0


# --- signals -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_and_what_is_done_is_shown(server: Server, children: list[Child], tmp_path: Path, signum: int, status: int) -> None:
    """The second is held; the third and the fourth are done, and wait for their turn."""
    urls = [server.url + path for path in ("/number/1", "/held", "/number/3", "/bytes/4", "/held", "/held", "/held")]
    child = Child(*urls, "-c", "3", "-o", str(tmp_path))
    children.append(child)
    for _ in range(3):                     # three workers: the others are done
        assert server.held.acquire(timeout=20)
    assert child.process.stdout is not None
    assert child.process.stdout.readline().split()[0] == b"200"
    began = time.monotonic()
    child.process.send_signal(signum)
    assert child.end() == status
    assert time.monotonic() - began < 2
    out = child.process.stdout.read().decode()
    rows, _, stats = out.partition("\n\n")
    assert [row.split()[7].rpartition("/")[2] for row in rows.splitlines()] == ["3", "4"]
    assert "cancelled 3" in stats
    assert child.read() == "interrupted: 3 done\r\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4"]


def test_a_signal_takes_partial_files_away(server: Server, children: list[Child], tmp_path: Path) -> None:
    """While a body is on its way to the disk."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = Child(f"http://127.0.0.1:{listener.getsockname()[1]}/half", "-o", str(tmp_path))
        children.append(child)
        listener.settimeout(20)
        conn, _ = listener.accept()
        with conn:
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(200000))
            until = time.monotonic() + 20
            while not (tmp_path / "half").exists():
                assert time.monotonic() < until, "no file is begun"
                time.sleep(0.005)
            child.process.send_signal(signal.SIGTERM)
            assert child.end() == 143
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_before_anything_is_done(server: Server, children: list[Child]) -> None:
    child = Child(server.url + "/held", "--json")
    children.append(child)
    assert server.held.acquire(timeout=20)
    child.process.send_signal(signal.SIGINT)
    assert child.end() == 130
    assert child.read() == "interrupted: 0 done\r\n"


# --- where nobody reads ----------------------------------------------------------------------------------------------------------------


def shell(command: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command, "bash", sys.executable, "-m", "pooledhttp", *args], cwd=ROOT, capture_output=True, text=True,
                          timeout=30, check=False)


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_a_reader_that_has_enough(server: Server, which: str) -> None:
    """It reads a line and goes; the next one finds nobody."""
    first = "nonsense" if which == "stderr" else server.url + "/number/1"
    child = subprocess.Popen([sys.executable, "-m", "pooledhttp", first, server.url + "/held", first], cwd=ROOT,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        pipe, other = (child.stdout, child.stderr) if which == "stdout" else (child.stderr, child.stdout)
        assert pipe is not None
        assert other is not None
        assert pipe.readline()
        pipe.close()
        assert server.held.acquire(timeout=20)
        server.release.set()
        assert child.wait(20) == 141
        assert other.read().decode().count("\n") == (0 if which == "stdout" else 1)
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize(("where", "says"), [(">/dev/full", "No space left on device"), (">&-", "standard output is closed")])
def test_output_that_is_lost(server: Server, where: str, says: str) -> None:
    done = shell(f'exec "$@" {where}', server.url + "/number/1")
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert says in done.stderr
    assert shell(f'exec "$@" {where}', server.url + "/number/1", "-q").returncode == 0


def test_a_closed_error_output(server: Server) -> None:
    done = shell('exec "$@" 2>&-', "nonsense", server.url + "/number/1")
    assert (done.returncode, done.stdout[:3], done.stderr) == (2, "200", "")


def test_an_output_of_another_encoding(server: Server) -> None:
    done = shell('PYTHONIOENCODING=ascii exec "$@"', "caf\u00e9", server.url + "/number/1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "caf\\xe9" in done.stderr


def test_verbose_tells_each_step(peer: Any) -> None:
    server = peer(answering(respond(b"x")))
    command = [sys.executable, "-m", "pooledhttp", "-v", *[server.url("/a?token=secret")] * 2]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    told = [re.fullmatch(r"\* \d+\.\d{3} (?:GET /a: )?(.+)", line) for line in done.stderr.splitlines()]
    where = f"127.0.0.1 port {server.port}"
    through = ["request sent", "the answer begins", "connection kept for the next request"]
    assert [m and m[1] for m in told] == [f"connecting to {where}", f"connected to {where}", f"using connection 1 to {where}", *through,
                                          f"reusing connection 1 to {where}", *through, "connection 1 closed: shutdown"]
    assert "secret" not in done.stderr
