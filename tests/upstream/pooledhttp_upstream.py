"""A plugin for the pytest that runs another project's tests: our adapter in the place of its own.

POOLEDHTTP_UPSTREAM says whose tests they are, POOLEDHTTP_DIFFERENCES where the file of known differences is, POOLEDHTTP_REACHED how many
tests must send a request through the adapter. A known difference that is none any more is a failure too.
"""
from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from pooledhttp.adapters.requests import PooledAdapter

_now = ""                       # the test that runs
_reached: set[str] = set()
_stale: list[str] = []
_lock = threading.Lock()


def _note() -> None:
    with _lock:
        _reached.add(_now)


class Adapter(PooledAdapter):
    """Where sessions that travel find it."""

    def send(self, *args: Any, **kwargs: Any) -> Any:
        _note()
        return super().send(*args, **kwargs)


def _into_requests() -> None:
    requests.sessions.HTTPAdapter = Adapter  # type: ignore[misc]


def _into_httpx() -> None:
    import httpx

    from pooledhttp.adapters.httpx import PooledTransport

    class Transport(PooledTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            _note()
            return super().handle_request(request)

    httpx.HTTPTransport = Transport  # type: ignore[misc, assignment]
    httpx._client.HTTPTransport = Transport  # type: ignore[misc, assignment]


{"requests": _into_requests, "httpx": _into_httpx}[os.environ["POOLEDHTTP_UPSTREAM"]]()


def differences(text: str) -> list[tuple[str, str, str]]:
    """(what, test, reason) for each line "fail test" or "skip test", beneath the comment that is its reason."""
    out = []
    reason = ""
    fresh = False
    for line in text.splitlines():
        if line.startswith("#"):
            reason = line[1:].strip() if not fresh else f"{reason} {line[1:].strip()}"
            fresh = True
            continue
        fresh = False
        if line.strip():
            what, _, test = line.partition(" ")
            if what not in ("fail", "skip") or not reason:
                raise ValueError(f"neither 'fail' nor 'skip', or without a reason: {line}")
            out.append((what, test.strip(), reason))
    return out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    with open(os.environ["POOLEDHTTP_DIFFERENCES"]) as file:
        known = differences(file.read())
    for what, test, reason in known:
        meant = [item for item in items if item.nodeid == test or item.nodeid.startswith((test + "[", test + "::"))]
        if not meant:
            _stale.append(test)
        for item in meant:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True) if what == "fail" else pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _now
    _now = item.nodeid
    return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{len(_reached)} tests reached the adapter")
    for test in _stale:
        terminalreporter.write_line(f"no such test: {test}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == 0 and (_stale or len(_reached) < int(os.environ["POOLEDHTTP_REACHED"])):
        session.exitstatus = 1
