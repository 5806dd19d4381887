"""The demo of `make run`, for a second each run: what it says is so, it ends by itself and by Ctrl-C, and leaves nothing."""
from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import ROOT

COMMAND = [sys.executable, "-m", "examples.microservices"]


def processes(tag: str) -> list[str]:
    """The command lines of the processes whose environment has the tag."""
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"DEMO_TEST={tag}-{os.getpid()}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    out.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:          # it ended meanwhile
                continue
    return out


def environment(tag: str, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "DEMO_TEST": f"{tag}-{os.getpid()}", "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"}


def nothing_left(tag: str, tmp_path: Path) -> None:
    until = time.monotonic() + 5
    while (left := processes(tag)) and time.monotonic() < until:
        time.sleep(0.02)
    assert left == []
    assert list(tmp_path.iterdir()) == []


def row(text: str, name: str) -> list[str]:
    found = re.search(rf"^ {re.escape(name)} +(.*)$", text, re.MULTILINE)
    assert found is not None, text
    return re.split(r"\s{2,}", found[1])


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_it_runs_and_its_numbers_add_up(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--seconds", "2"], cwd=ROOT, env=environment("whole", tmp_path), capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert row(text, "requests answered") == ["200", "200"]
    assert row(text, "errors") == ["0", "0"]
    assert row(text, "calls to the services") == ["600", "600"]
    kept_dials, closed_dials = (int(n.replace(",", "")) for n in row(text, "dials"))
    kept_handshakes, closed_handshakes = (int(n.replace(",", "")) for n in row(text, "TLS handshakes (servers)"))
    kept_reuses, closed_reuses = (int(n.replace(",", "")) for n in row(text, "reuses"))
    assert kept_handshakes <= kept_dials < 150
    assert kept_reuses >= 600 - kept_dials
    assert (closed_dials, closed_handshakes, closed_reuses) == (600, 600, 0)
    assert all(float(p50.split()[0]) >= 50 for p50 in row(text, "p50"))
    assert len(re.findall(r"^kept connections: +\d", text, re.MULTILINE)) >= 2          # plain lines, without a terminal
    assert "\x1b" not in text
    assert "one Client" in text
    nothing_left("whole", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, "--seconds", "60"], cwd=ROOT, env=environment("interrupted", tmp_path), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None and child.stderr is not None
        while "kept connections:" not in child.stdout.readline():
            pass
        assert len(processes("interrupted")) == 5
        began = time.monotonic()
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(5) == 130
        assert time.monotonic() - began < 1.5
        assert child.stderr.read() == "\ninterrupted\n"
    nothing_left("interrupted", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_no_child_outlives_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, "--seconds", "60"], cwd=ROOT, env=environment("killed", tmp_path), stdout=subprocess.PIPE,
                          text=True) as child:
        assert child.stdout is not None
        while "kept connections:" not in child.stdout.readline():
            pass
        child.kill()
    until = time.monotonic() + 5
    while processes("killed") and time.monotonic() < until:
        time.sleep(0.02)
    assert processes("killed") == []


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_terminal_gets_a_live_table(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen([*COMMAND, "--seconds", "1"], cwd=ROOT, env=environment("terminal", tmp_path), stdout=theirs,
                              stderr=theirs) as child:
            os.close(theirs)
            theirs = -1
            text = b""
            while select.select([ours], [], [], 30)[0]:
                try:
                    piece = os.read(ours, 65536)
                except OSError:          # Linux's way of saying that the other side closed
                    break
                if not piece:
                    break
                text += piece
        assert child.returncode == 0, text.decode()
        shown = text.decode()
        assert len(re.findall(r"\x1b\[\d+A", shown)) >= 6          # drawn over again and again
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
        assert "━" in shown
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    nothing_left("terminal", tmp_path)
