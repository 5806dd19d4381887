"""map(progress=True): a bar of rich's or tqdm's, on standard error, where that is a terminal. With the real libraries."""
from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# `without`: names of modules that are as not installed. Each answer is printed, and the threads that are left at the end.
SCRIPT = """
import sys, threading
without, kind, n = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
for name in without:
    sys.modules[name] = None
from pooledhttp import Client, MockTransport, Response
client = Client(transport=MockTransport(lambda request: Response(200)))
urls = [f"http://h/{i}" for i in range(n)]
given = {"list": urls, "generator": (url for url in urls)}[kind if kind in ("list", "generator") else "list"]
seen = 0
for r in client.map(given, workers=3, progress=True):
    seen += 1
    print(f"answer {r.url.path}", flush=True)
    if kind == "break" and seen == 2:
        break
if kind == "twice":
    for outer in client.map(urls[:2], progress=True):
        inner = list(client.map(urls, progress=True))
print("left", [t.name for t in threading.enumerate() if t is not threading.main_thread()], seen, flush=True)
"""
RICH, TQDM, NEITHER = "tqdm", "rich,rich.progress,rich.console", "tqdm,rich,rich.progress,rich.console"


def run(without: str, kind: str = "list", n: int = 5, *, terminal: bool, both: bool = False) -> tuple[str, str]:
    """What the script wrote to its output and to its error output."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, without, kind, str(n)]
    if not terminal:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout, done.stderr
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    env = {**os.environ, "TERM": "xterm"}
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=slave if both else subprocess.PIPE, stderr=slave)
    os.close(slave)
    seen, until = b"", time.monotonic() + 30
    try:
        while True:
            assert select.select([master], [], [], max(0.0, until - time.monotonic()))[0], f"it does not end: {seen!r}"
            try:
                data = os.read(master, 65536)
            except OSError:                # EIO: the other side is closed
                break
            if not data:
                break
            seen += data
        out = child.stdout.read().decode() if child.stdout is not None else ""
        assert child.wait(30) == 0, seen
        return out, seen.decode()
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
        os.close(master)


ANSWERS = "".join(f"answer /{i}\n" for i in range(5)) + "left [] 5\n"


@pytest.mark.parametrize(("without", "said"), [(RICH, r"\u2501.*5/5"), (TQDM, r"100%.*5/5 \["), (NEITHER, None)], ids=["rich", "tqdm", "neither"])
def test_a_bar_on_a_terminal_leaves_the_output_alone(without: str, said: str | None) -> None:
    out, err = run(without, terminal=True)
    assert out == ANSWERS
    assert err == "" if said is None else re.search(said, err), err


@pytest.mark.parametrize("without", [RICH, TQDM], ids=["rich", "tqdm"])
def test_no_total_for_a_generator(without: str) -> None:
    out, err = run(without, "generator", terminal=True)
    assert out == ANSWERS
    assert "5/?" in err if without == RICH else re.search(r"\b5req", err), err


@pytest.mark.parametrize("without", [RICH, TQDM, NEITHER], ids=["rich", "tqdm", "neither"])
def test_nothing_where_standard_error_is_no_terminal(without: str) -> None:
    assert run(without, terminal=False) == (ANSWERS, "")


@pytest.mark.parametrize("without", [RICH, TQDM], ids=["rich", "tqdm"])
def test_a_loop_that_is_left_ends_the_bar(without: str) -> None:
    out, err = run(without, "break", terminal=True)
    assert out == "answer /0\nanswer /1\nleft [] 2\n"
    assert "/5" in err


@pytest.mark.parametrize("without", [RICH, TQDM], ids=["rich", "tqdm"])
def test_bars_within_bars(without: str) -> None:
    out, _ = run(without, "twice", terminal=True)
    assert out == ANSWERS


def test_what_is_printed_is_seen_beside_the_bar() -> None:
    _, seen = run(RICH, terminal=True, both=True)
    assert [f"answer /{i}\r\n" in seen for i in range(5)] == [True] * 5
    assert "left [] 5" in seen


def test_rich_where_both_are_installed() -> None:
    _, err = run("no_such_module", terminal=True)
    assert "\u2501" in err
