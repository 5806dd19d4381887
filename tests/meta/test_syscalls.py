"""A small plain exchange, counted: three system calls, and one release of the GIL."""
from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

import pooledhttp
from pooledhttp._pool.janitor import TICK
from tests.meta.sources import PACKAGE, ROOT, compiled, files
from tests.meta.test_floors import SOURCES, imports
from tests.support.ca import Authority
from tests.support.nginx import Nginx

N = 1000
LOOK = 0.025           # seconds
# Calls that carry an exchange or wait for it. What the interpreter does beside (memory, its own locks) is bounded apart.
NETWORK = {"recvfrom", "recvmsg", "recv", "read", "readv", "sendto", "sendmsg", "send", "write", "writev", "poll", "ppoll", "select",
           "pselect6", "epoll_wait", "epoll_pwait", "epoll_ctl", "connect", "socket", "close", "setsockopt", "getsockopt", "fcntl", "ioctl",
           "shutdown"}
PROGRAM = textwrap.dedent("""
    import os, sys, threading
    import pooledhttp

    def get():
        response = client.get(url)
        assert response.status_code == 200 and len(response.content) == 1024

    def work():
        for _ in range(50):
            get()
        os.access("counting-begins", os.F_OK)
        for _ in range(n):
            get()
        os.access("counting-ends", os.F_OK)

    url, n = sys.argv[1], int(sys.argv[2])
    with pooledhttp.Client(transport=pooledhttp.Transport(verify=sys.argv[4])) as client:
        if sys.argv[3] == "main":
            work()
        else:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
""")


# A receive that waited (its flags are 0) in vain.
SLICE = re.compile(r"recvfrom.*, 0, NULL, NULL\) += -1 EAGAIN")


def traced(log: Path, *arguments: str) -> tuple[Counter[str], Counter[str]]:
    """System calls between the two marks, by name: of the thread that made the requests, and of all others.

    A wait of the main thread's that ended without an answer, since the server was that slow, is not counted: it begins another.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.fail("the system-call test needs strace: apt-get install strace")
    subprocess.run([strace, "-f", "-o", str(log), sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, check=True)
    own: Counter[str] = Counter()
    others: Counter[str] = Counter()
    counting = ""
    for line in log.read_text().splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if "counting-begins" in call:
            counting = thread
        elif "counting-ends" in call:
            return own, others
        elif counting and thread == counting and SLICE.search(call):
            if "resumed" in call:
                own["recvfrom"] -= 1                                  # its first half is counted
        elif counting and (name := re.match(r"(\w+)\(", call)):       # "resumed" lines are the second half of a call
            (own if thread == counting else others)[name[1]] += 1
    raise AssertionError("the program's marks are not in strace's output")


@pytest.mark.slow
@pytest.mark.parametrize("server", ["plain", "tls"])
@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_small_get_takes_three_system_calls(nginx: Nginx, ca: Authority, tmp_path: Path, thread: str, server: str) -> None:
    """The probe of the idle connection, one send, one receive. Nothing else touches a descriptor."""
    own, others = traced(tmp_path / "strace.log", nginx.url("/1k", server), str(N), thread, str(ca.pem))
    carried = {name: n for name, n in own.items() if name in NETWORK}
    assert carried == {"recvfrom": 2 * N, "sendto": N}
    # The interpreter's own (memory) and the janitor's rounds do not grow with the requests.
    assert sum(own.values()) - 3 * N < N / 20, own
    assert sum(others.values()) < N / 10, others


@pytest.mark.slow
@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_known_deadline_costs_no_system_call(nginx: Nginx, ca: Authority, tmp_path: Path, thread: str) -> None:
    """With a timeout on each request, the kernel's deadline is set anew now and then, not each time."""
    program = PROGRAM.replace("client.get(url)", "client.get(url, timeout=5.0)")
    assert program != PROGRAM
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "PROGRAM", program)
        own, _ = traced(tmp_path / "strace.log", nginx.url("/1k"), str(N), thread, str(ca.pem))
    assert own["recvfrom"] + own["sendto"] == 3 * N
    assert own["setsockopt"] < N / 20
    assert own["poll"] + own["ppoll"] == 0


JANITORS = "pooledhttp._pool.pool"
RELEASE = re.compile(r"with nogil|Py_BEGIN_ALLOW_THREADS|Py_UNBLOCK_THREADS|PyEval_SaveThread|PyEval_ReleaseThread")


def releases() -> Counter[str]:
    """Releases of the GIL so far, by module. Every module that can release it counts its own.

    Modules named `testing` hold the seams open for tests; a request does not come by them.
    """
    counted: Counter[str] = Counter()
    for name in compiled():
        if name.endswith(".testing"):
            assert name not in {m for p in files(PACKAGE) if p.suffix in SOURCES and p.stem != "testing" for m in imports(p)}
            continue
        module = importlib.import_module(name)
        if hasattr(module, "gil_releases"):
            counted[name] = module.gil_releases()
        else:
            source = (ROOT / (name.replace(".", "/") + ".pyx")).read_text()
            assert not RELEASE.search(source), f"{name} releases the GIL and does not count it"
    return counted


@pytest.mark.parametrize("server", ["plain", "tls"])
def test_a_small_get_releases_the_gil_once(nginx: Nginx, ca: Authority, server: str) -> None:
    """Over 1,000 requests on one connection, the probe included, in all compiled modules and all threads together.

    Where the server takes more than 25 ms, the main thread looks up for signals, and waits on. What the pool's own module counts is not
    theirs: the janitor's thread sweeps twice a second, whether they run or not.
    """
    url = nginx.url("/1k", server)
    with pooledhttp.Client(transport=pooledhttp.Transport(verify=str(ca.pem))) as client:
        for _ in range(50):
            client.get(url)
        before, began, opened, slow = releases(), time.monotonic(), client.transport.stats().opened, 0
        for _ in range(N):
            started = time.monotonic()
            response = client.get(url)
            slow += int((time.monotonic() - started) / LOOK)
            assert (response.status_code, len(response.content)) == (200, 1024)
        grown = releases() - before
        assert grown.pop(JANITORS, 0) <= 2 * ((time.monotonic() - began) / TICK + 2)
        assert grown.keys() == {"pooledhttp._trip.trip"}
        assert N <= grown["pooledhttp._trip.trip"] <= N + slow
        assert slow < N / 10
        assert client.transport.stats().opened == opened == 1
