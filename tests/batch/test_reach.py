"""The line by which a cancel reaches other processes, here with both its ends in one."""
from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pooledhttp import reach
from pooledhttp._core.cancel import Canceller
from pooledhttp.reach import Hearing, Line
from tests.meta.sources import ROOT


def soon(what: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not what() and time.monotonic() < until:
        time.sleep(0.001)
    return what()


def address(line: Line) -> tuple[str, str]:
    got = line.address()
    assert got is not None
    return got


def test_a_cancel_is_heard_by_all_and_at_once_by_who_comes_late() -> None:
    line = Line()
    ears = [Canceller() for _ in range(5)]
    hearings = [Hearing(address(line), ear) for ear in ears]
    for hearing in hearings:
        hearing.__enter__()
    assert not any(ear.cancelled for ear in ears)
    line.cancel("enough")
    assert soon(lambda: all(ear.cancelled for ear in ears))
    late = Canceller()
    with Hearing(address(line), late):
        assert late.cancelled
    for hearing in hearings:
        hearing.__exit__(None, None, None)
    line.close()


def test_who_comes_when_it_has_ended_is_cancelled_and_nothing_is_left_of_it() -> None:
    line = Line()
    _, path = where = address(line)
    assert Path(path).exists()
    assert Path(path).parent.stat().st_mode & 0o77 == 0
    line.close()
    line.close()
    assert not Path(path).parent.exists()
    assert line.address() == where
    late = Canceller()
    with Hearing(where, late):
        assert late.cancelled


def test_a_cancel_before_anything_travelled() -> None:
    line = Line()
    line.cancel()
    ear = Canceller()
    with Hearing(address(line), ear):
        assert ear.cancelled
    line.close()


def test_a_line_that_nobody_asked_for_makes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **kw: pytest.fail("a directory"))
    line = Line()
    line.cancel()
    line.close()
    assert line.address() is None


def test_no_room_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert Line().address() is None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "mkfifo", lambda *args: (_ for _ in ()).throw(OSError(95, "no FIFOs here")))
    assert Line().address() is None
    assert list(tmp_path.iterdir()) == []


def test_another_machines_line_is_not_listened_to(tmp_path: Path) -> None:
    line = Line()
    for path in (address(line)[1], str(tmp_path / "none")):
        ear = Canceller()
        with Hearing(("elsewhere", path), ear):
            line.cancel()
        assert not ear.cancelled
    line.close()


def test_the_thread_goes_when_nobody_listens() -> None:
    line = Line()
    with Hearing(address(line), Canceller()):
        assert "pooledhttp-reach" in {thread.name for thread in threading.enumerate()}
    line.close()
    assert soon(lambda: "pooledhttp-reach" not in {thread.name for thread in threading.enumerate()})
    assert reach._watch.epoll is None


def test_a_late_cancel_never_touches_another() -> None:
    """Descriptors are numbers that come again: a line that is cancelled as its listener leaves, beside listeners that come."""
    wrong = []
    quiet = Line()
    where = address(quiet)

    def listen(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(150):
            line, ear, other = Line(), Canceller(), Canceller()
            with Hearing(address(line), ear):
                teller = threading.Thread(target=line.cancel)
                teller.start()
                if rng.random() < 0.5:
                    teller.join()
            with Hearing(where, other):
                teller.join()
                if other.cancelled:
                    wrong.append(seed)
            line.close()

    threads = [threading.Thread(target=listen, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    quiet.close()
    assert wrong == []


ASKER = """
import sys
from pooledhttp.reach import Line
line = Line()
print(*line.address(), sep="\\n", flush=True)
sys.stdin.read()
import os
os._exit(1)
"""


def test_the_end_of_the_asking_process_is_heard() -> None:
    with subprocess.Popen([sys.executable, "-c", ASKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdin is not None and asker.stdout is not None
        where = asker.stdout.readline().rstrip("\n"), asker.stdout.readline().rstrip("\n")
        ear = Canceller()
        with Hearing(where, ear):
            assert not ear.cancelled
            asker.stdin.close()
            assert soon(lambda: ear.cancelled)
    Path(where[1]).unlink()
    Path(where[1]).parent.rmdir()


FORKS = """
import os
from pooledhttp._core.cancel import Canceller
from pooledhttp.reach import Hearing, Line
import time
line, ear = Line(), Canceller()
with Hearing(line.address(), ear):
    pid = os.fork()
    if pid == 0:
        mine, own = Line(), Canceller()
        with Hearing(mine.address(), own):
            mine.cancel()
            while not own.cancelled:
                time.sleep(0.001)
        mine.close()
        os._exit(0 if not ear.cancelled else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert not ear.cancelled
    line.cancel()
    while not ear.cancelled:
        time.sleep(0.001)
line.close()
"""


def test_after_a_fork() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], cwd=ROOT, timeout=30, check=True)
