"""Lookups: shared, kept, dropped, capped, and never holding a caller."""
from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from pooledhttp import errors
from pooledhttp._core import runtime
from pooledhttp._net import helpers
from pooledhttp._net.helpers import Helpers
from pooledhttp._net.resolver import CACHE_MAX, Address, Lookup, Resolver, literal

from .conftest import until

HERE: list[Address] = [(socket.AF_INET, ("127.0.0.1", 80))]


class Gate:
    """A resolver that answers when told to, and counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.open = threading.Event()
        self.answer: Any = HERE

    def __call__(self, host: str, port: int) -> Any:
        self.calls.append((host, port))
        assert self.open.wait(10)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def finished(lookup: Lookup) -> Lookup:
    until(lambda: lookup.done)
    return lookup


@pytest.mark.parametrize(("host", "family", "address"), [
    ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 8)),
    ("::1", socket.AF_INET6, ("::1", 8, 0, 0)),
    ("fe80::1%lo", socket.AF_INET6, ("fe80::1", 8, 0, socket.if_nametoindex("lo"))),
])
def test_literals_need_no_thread(host: str, family: int, address: tuple[Any, ...]) -> None:
    def never(host: str, port: int) -> list[Address]:
        raise AssertionError

    lookup = Resolver(never).lookup(host, 8)
    assert lookup.done and lookup.result() == [(family, address)]


@pytest.mark.parametrize("host", ["localhost", "host1", "1.2.3.4.example.test", "a:b", ""])
def test_names_are_no_literals(host: str) -> None:
    assert literal(host, 80) is None


def test_the_systems_resolver() -> None:
    found = finished(Resolver().lookup("localhost", 80)).result()
    assert (socket.AF_INET, ("127.0.0.1", 80)) in found
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("host", ["nothing.invalid", "a" * 64 + ".test", "nul\0.test", "ümlaut.test", "."])
def test_what_does_not_resolve(host: str) -> None:
    resolver = Resolver()
    with pytest.raises(errors.DNSError, match="cannot resolve") as caught:
        finished(resolver.lookup(host, 80)).result()
    assert caught.value.phase == "dns" and caught.value.__cause__ is not None
    with pytest.raises(errors.DNSError) as again:
        finished(resolver.lookup(host, 80)).result()
    assert again.value is not caught.value


def test_lookups_in_flight_are_shared() -> None:
    gate = Gate()
    resolver = Resolver(gate)
    lookups = [resolver.lookup("a.test", 80) for _ in range(10)]
    other = resolver.lookup("a.test", 81)
    assert len({id(x) for x in lookups}) == 1 and other is not lookups[0]
    handle = runtime.WakeHandle()
    lookups[0].add_waiter(handle)
    gate.open.set()
    assert finished(lookups[0]).result() == HERE
    finished(other)
    assert sorted(gate.calls) == [("a.test", 80), ("a.test", 81)]
    assert readable(handle)
    handle.clear()
    lookups[0].add_waiter(handle)                     # late: told at once
    assert readable(handle)


def readable(handle: runtime.WakeHandle) -> bool:
    return bool(select.select([handle], [], [], 1)[0])


def test_a_waiter_removed_is_not_told() -> None:
    gate = Gate()
    lookup = Resolver(gate).lookup("a.test", 80)
    handle = runtime.WakeHandle()
    lookup.add_waiter(handle)
    lookup.remove_waiter(handle)
    lookup.remove_waiter(handle)
    gate.open.set()
    finished(lookup)
    until(lambda: helpers.shared.threads == 0)
    assert not select.select([handle], [], [], 0)[0]


def test_answers_are_kept_dropped_and_passed_over() -> None:
    gate = Gate()
    gate.open.set()
    resolver = Resolver(gate)
    for _ in range(3):
        assert finished(resolver.lookup("a.test", 80)).result() == HERE
    assert len(gate.calls) == 1
    finished(resolver.lookup("a.test", 80, fresh=True))
    assert len(gate.calls) == 2
    resolver.invalidate("a.test", 80)
    finished(resolver.lookup("a.test", 80))
    assert len(gate.calls) == 3
    resolver.invalidate("never.test", 80)


def test_answers_expire() -> None:
    gate = Gate()
    gate.open.set()
    resolver = Resolver(gate, ttl=0.05)
    finished(resolver.lookup("a.test", 80))
    threading.Event().wait(0.06)
    finished(resolver.lookup("a.test", 80))
    assert len(gate.calls) == 2


def test_no_ttl_keeps_nothing() -> None:
    gate = Gate()
    gate.open.set()
    resolver = Resolver(gate, ttl=0)
    for n in range(1, 4):
        finished(resolver.lookup("a.test", 80))
        assert len(gate.calls) == n


def test_failures_are_not_kept() -> None:
    gate = Gate()
    gate.open.set()
    resolver = Resolver(gate)
    for answer, words in ((ValueError("boom"), "boom"), ([], "no addresses"), (None, "TypeError"), ([1], "1 is no .family, sockaddr."),
                          ([(socket.AF_INET, ("a.name", 80))], "no .family, sockaddr."), ([(socket.AF_INET, ("1.2.3.4",))], "no .family"),
                          ([(socket.AF_INET6, ("1.2.3.4", 80))], "no .family"), ([(socket.AF_INET, ("1.2.3.4", 0))], "no .family")):
        gate.answer = answer
        with pytest.raises(errors.DNSError, match=words):
            finished(resolver.lookup("a.test", 80)).result()
    gate.answer = HERE + HERE
    assert finished(resolver.lookup("a.test", 80)).result() == HERE


def test_the_answer_is_the_callers_own() -> None:
    gate = Gate()
    gate.open.set()
    resolver = Resolver(gate)
    finished(resolver.lookup("a.test", 80)).result().clear()
    assert finished(resolver.lookup("a.test", 80)).result() == HERE


def test_the_cache_is_bounded() -> None:
    resolver = Resolver(lambda host, port: HERE, threads=Helpers(total=1))
    for i in range(CACHE_MAX + 10):
        finished(resolver.lookup(f"h{i}.test", 80))
    assert len(resolver._cache) == CACHE_MAX
    assert ("h0.test", 80) not in resolver._cache


def test_a_name_that_hangs_takes_no_more_than_its_share() -> None:
    gate = Gate()
    threads = Helpers(total=8, per_key=2)
    resolver = Resolver(gate, threads=threads)
    stuck = [resolver.lookup("hangs.test", port) for port in range(6)]
    until(lambda: len(gate.calls) == 2)
    assert threads.threads == 2 and not threads.has_room("hangs.test") and threads.has_room("b.test")
    quick = Resolver(lambda host, port: HERE, threads=threads)
    assert finished(quick.lookup("b.test", 80)).result() == HERE
    assert len(gate.calls) == 2
    gate.open.set()
    for lookup in stuck:
        assert finished(lookup).result() == HERE
    until(lambda: threads.threads == 0)


def test_a_total_of_threads() -> None:
    gate = Gate()
    threads = Helpers(total=3, per_key=2)
    resolver = Resolver(gate, threads=threads)
    lookups = [resolver.lookup(f"h{i}.test", 80) for i in range(10)]
    until(lambda: len(gate.calls) == 3)
    assert threads.threads == 3
    gate.open.set()
    for lookup in lookups:
        finished(lookup)
    until(lambda: threads.threads == 0)


def test_a_job_that_raises_takes_no_thread_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(args.exc_type))
    threads, done = Helpers(total=1, per_key=1), threading.Event()

    def fail() -> None:
        raise LookupError

    for _ in range(3):
        threads.submit("k", fail)
    threads.submit("k", done.set)
    assert done.wait(10)
    until(lambda: threads.threads == 0)
    assert said == [LookupError] * 3


def test_thousands_of_answers_each_once() -> None:
    many: list[Address] = [(socket.AF_INET, (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 80)) for i in range(5000)]
    assert finished(Resolver(lambda host, port: many + many).lookup("a.test", 80)).result() == many


@pytest.mark.parametrize(("error", "number"), [(socket.gaierror(socket.EAI_AGAIN, "later"), socket.EAI_AGAIN), (OSError(24, "no more"), 24),
                                               (KeyError("k"), None)])
def test_the_number_of_the_failure(error: Exception, number: int | None) -> None:
    def resolve(host: str, port: int) -> list[Address]:
        raise error

    with pytest.raises(errors.DNSError, match="later|no more|KeyError") as caught:
        finished(Resolver(resolve).lookup("a.test", 80)).result()
    assert caught.value.errno == number


def test_a_lookup_that_hangs_is_not_joined_for_ever() -> None:
    gate = Gate()
    resolver = Resolver(gate, threads=Helpers(total=8, per_key=2))
    first = resolver.lookup("a.test", 80)
    first.started -= 20_000_000_000
    second = resolver.lookup("a.test", 80)
    assert second is not first
    second.started -= 20_000_000_000
    assert resolver.lookup("a.test", 80) is second        # no third thread for this host
    gate.open.set()
    finished(first)
    finished(second)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            lookup = resolver.lookup("localhost", 80)
            with pytest.raises(errors.DNSError, match="no thread can be started"):
                lookup.result()
    assert finished(resolver.lookup("localhost", 80)).result()


def run_script(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr == ""
    return done.stdout


def test_a_lookup_that_hangs_does_not_hold_the_exit() -> None:
    assert run_script("""
import threading
from pooledhttp._net.resolver import Resolver
started = threading.Event()

def hang(host, port):
    started.set()
    threading.Event().wait()

Resolver(hang).lookup("hangs.test", 80)
started.wait(10)
print("bye")
""") == "bye\n"


def test_a_lookup_while_the_interpreter_exits_is_refused_without_noise() -> None:
    assert "no thread can be started" in run_script("""
from pooledhttp import errors
from pooledhttp._net.resolver import Resolver

class Late:
    def __del__(self, Resolver=Resolver, DNSError=errors.DNSError, print=print):
        try:
            Resolver().lookup("localhost", 80).result()
        except DNSError as exc:
            print(exc)

late = Late()
""")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")      # that it has threads is the point
def test_after_fork() -> None:
    gate = Gate()
    resolver = Resolver(gate)
    resolver.lookup("a.test", 80)
    until(lambda: len(gate.calls) == 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            gate.open.set()
            resolver.reset_after_fork()
            lookup = resolver.lookup("a.test", 80)
            until(lambda: lookup.done)
            status = 0 if lookup.result() == HERE and len(gate.calls) == 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open.set()
