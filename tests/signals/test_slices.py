"""The main thread alone waits in slices, whichever thread that is; the others wait undisturbed, also on a connection it used."""
from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Client, DeadlineExceeded
from pooledhttp._core import runtime
from pooledhttp._trip import reply, trip
from tests.deadlines.stalls import StallingServer
from tests.support.ca import Authority
from tests.support.processes import ROOT

SLICE = 0.05
SECONDS = 0.3


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def server(request: pytest.FixtureRequest, ca: Authority) -> Iterator[StallingServer]:
    with StallingServer(ca.server() if request.param else None) as it:
        yield it


def releases() -> int:
    return trip.gil_releases() + reply.gil_releases()


def looks(client: Client, url: str) -> int:
    """How often the GIL was released for a request that ends by its deadline: once for each wait."""
    before = releases()
    with pytest.raises(DeadlineExceeded):
        client.get(url, timeout=SECONDS)
    return releases() - before


def in_thread(call: Callable[[], int]) -> int:
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    thread.join()
    return got[0]


def test_only_the_main_thread_looks_up(server: StallingServer, new_client: Callable[..., Client], ca: Authority) -> None:
    client = new_client(verify=str(ca.pem))
    server.new("a")
    ways: list[tuple[Callable[[Callable[[], int]], int], bool]] = [(lambda call: call(), True), (in_thread, False), (lambda call: call(), True)]
    for before, _ in ways:
        for run, sliced in ways:
            # On a connection that the other one used before, and whose kernel deadline is that one's.
            before(lambda: client.get(server.url("/ok"), timeout=60).status_code)
            n = run(lambda: looks(client, server.url("/head/a")))
            if sliced:
                assert SECONDS / SLICE / 2 < n < SECONDS / SLICE * 3
            else:
                assert n <= 4                   # the request, its failure, and giving up
    stats = client.transport.stats()
    assert stats.reuses == stats.closed["timeout"] == len(ways) ** 2


def test_slices_of_what_is_left() -> None:
    assert runtime.slice_ns(-1) == runtime.slice_ns(10**10) == SLICE * 1e9
    assert runtime.slice_ns(1000) == 1000 and runtime.slice_ns(0) == 0
    for left in (-1, 0, 10**10):
        assert in_thread(lambda left=left: runtime.slice_ns(left)) == left  # type: ignore[misc]


def program(body: str, url: str) -> str:
    """Runs `body` in a process that has a stalled URL, and a function that interrupts by way of another thread."""
    text = textwrap.dedent("""
        import os, signal, sys, threading, time
        url = sys.argv[1]

        def interrupt_soon():
            def ring():
                time.sleep(0.2)
                rung.append(time.monotonic())
                signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            rung = []
            threading.Thread(target=ring).start()
            return rung

        def stalled():
            rung = interrupt_soon()
            try:
                pooledhttp.get(url, timeout=10)
            except KeyboardInterrupt:
                print(f"interrupted after {time.monotonic() - rung[0]:.3f}", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    """) + textwrap.dedent(body)
    # From Python 3.12 on a fork beside threads warns.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", text, url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def check(said: str) -> None:
    assert said.startswith("interrupted after ")
    assert float(said.split()[-1]) < 3


def test_who_forks_is_the_childs_main_thread() -> None:
    with StallingServer() as server:
        server.new("a")
        check(program("""
            import pooledhttp

            def fork():
                pid = os.fork()
                if pid == 0:
                    stalled()
                    os._exit(0)
                os.waitpid(pid, 0)

            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        """, server.url("/head/a")))


def test_another_thread_may_import_it() -> None:
    with StallingServer() as server:
        server.new("a")
        check(program("""
            def load():
                global pooledhttp
                import pooledhttp

            thread = threading.Thread(target=load)
            thread.start()
            thread.join()
            stalled()
        """, server.url("/body/a")))


def test_an_interpreter_beside_the_main_one() -> None:
    """It runs no handlers, and Cython's modules serve one interpreter a process: refused, or at work, and the main one's waits are as ever."""
    with StallingServer() as server:
        server.new("a")
        said = program("""
            try:
                import _interpreters as interpreters
            except ImportError:
                import _xxsubinterpreters as interpreters
            import pooledhttp
            other = interpreters.create()
            outcome = interpreters.run_string(other, "try:\\n import pooledhttp\\nexcept ImportError: pass\\nelse:\\n pooledhttp.Client().close()")
            assert outcome is None, outcome
            interpreters.destroy(other)
            stalled()
        """, server.url("/head/a"))
        check(said)
