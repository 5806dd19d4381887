"""Every lock of the package is a new one in a forked child: a thread of the parent, which is not there, may have held the old."""
from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pooledhttp import DigestAuth, Transport, api, cookies, interned, reach, retry, transport
from pooledhttp._core.cancel import Canceller
from pooledhttp._net import helpers, proxy, resolver, tlsconfig
from pooledhttp._pool.janitor import janitor
from pooledhttp.adapters import _transports, opentelemetry, prometheus
from tests.meta.sources import ROOT, files
from tests.support.forking import in_child

PACKAGE = ROOT / "pooledhttp"
MAKES = re.compile(r"(?:threading\.)?\b(?:R?Lock|Condition|(?:Bounded)?Semaphore|Barrier)\(")
TARGET = re.compile(r"^\s*(?:return\b|([.\w]+)[^=]* = )")
# Those that need not be, and why.
EXEMPT = {
    "_pool/janitor.py self._silent": "a bell, held while it is silent; a child's janitor has a new one",
    "decoders.py self._lock": "never waited for: who finds it taken is told so",
}
# Where a second line makes it anew, it is the same lock.
ANEW = {
    "_core/cancel.pyx lock": "_core/cancel.pyx self.lock",
    "cookies.py jar._cookies_lock": "cookies.py _making",
    "digest.py memory.lock": "digest.py self.lock",
    "retry.py budgets._lock": "retry.py self._lock",
    "transport.py transport._lock": "transport.py self._lock",
    "_net/tlsconfig.py kept.lock": "_net/tlsconfig.py self.lock",
}


def made() -> Iterator[str]:
    for path in files(PACKAGE):
        if path.suffix in (".py", ".pyx"):
            name = str(path.relative_to(PACKAGE))
            for line in path.read_text().splitlines():
                code = line.partition("#")[0]
                if MAKES.search(code) and name != "renewed.py":
                    target = TARGET.match(code)
                    assert target is not None, f"{name}: {line.strip()}: a lock that this test does not see the name of"
                    found = f"{name} {target[1]}"
                    yield ANEW.get(found, found)
                elif "= renewed(self)" in code:
                    yield f"{name} self._lock"


class Things:
    """One of each that has a lock."""

    def __init__(self) -> None:
        self.transport = Transport(dns_cache_ttl=1.0)
        self.budgets = retry.Budgets()
        self.digest = DigestAuth("u", "p")
        self.canceller = Canceller()
        self.line = reach.Line()
        self.adapter = _transports.Transports(None, {})
        self.collector = prometheus.PoolCollector(registry=None)
        tlsconfig.settings(False).context()
        self.resolver = resolver.Resolver()
        self.transport._resolver = self.resolver
        self.kept = next(iter(tlsconfig._kept.values()))


LOCKS: dict[str, Callable[[Things], Any]] = {
    "transport.py self._lock": lambda t: t.transport._lock,
    "transport.py _default_lock": lambda t: transport._default_lock,
    "_pool/pool.pyx self.hosts_lock": lambda t: t.transport.pool.hosts_lock,
    "_pool/janitor.py self._lock": lambda t: janitor._lock,
    "_core/cancel.pyx self.lock": lambda t: t.canceller.guard(),
    "digest.py self.lock": lambda t: t.digest._memory.lock,
    "api.py _lock": lambda t: api._lock,
    "cookies.py _making": lambda t: cookies._making,
    "interned.py _lock": lambda t: interned._lock,
    "retry.py self._lock": lambda t: t.budgets._lock,
    "retry.py _lock": lambda t: retry._lock,
    "adapters/opentelemetry.py _lock": lambda t: opentelemetry._lock,
    "adapters/_transports.py self._lock": lambda t: t.adapter._lock,
    "adapters/prometheus.py self._lock": lambda t: t.collector._lock,
    "_net/proxy.py _lock": lambda t: proxy._lock,
    "_net/tlsconfig.py self.lock": lambda t: t.kept.lock,
    "_net/tlsconfig.py _numbers_lock": lambda t: tlsconfig._numbers_lock,
    "_net/helpers.py self._lock": lambda t: helpers.shared._lock,
    "_net/resolver.py self._lock": lambda t: t.resolver._lock,
    "reach.py self._lock": lambda t: t.line._lock,
    "reach.py self.lock": lambda t: reach._watch.lock,
}


def test_each_is_known() -> None:
    assert set(made()) == LOCKS.keys() | EXEMPT.keys()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_held_by_another_thread_they_are_free_in_the_child() -> None:
    things = Things()
    locks = [lock(things) for lock in LOCKS.values()]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            done.wait()

    def child() -> None:
        taken = [name for name, lock in LOCKS.items() if not lock(things).acquire(False)]
        assert not taken, f"not renewed: {taken}"

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert not any(lock.acquire(False) for lock in locks)
        in_child(child)
    finally:
        done.set()
        thread.join()
        things.transport.close()
        things.adapter.close()


def test_a_line_is_the_parents_to_end() -> None:
    """Its FIFO is neither written to nor taken away by a child that closes its copy of it."""
    line = reach.Line()
    address = line.address()
    assert address is not None

    def child() -> None:
        line.cancel()
        line.close()
        assert line.address() is None

    heard = Canceller()
    with reach.Hearing(address, heard):
        in_child(child)
        with reach.Hearing(address, Canceller()):
            assert not heard.cancelled
        line.close()
