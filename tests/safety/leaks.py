"""A pytest plugin for `tests.safety.asan`: after each file of tests, asks LeakSanitizer for memory that nothing points to any more."""
from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Generator
from types import FrameType

import pytest

_check = ctypes.CDLL(None).__lsan_do_recoverable_leak_check

_running: list[FrameType] = []


def leaked() -> bool:
    """Whether anything leaked so far in this process; the report says what."""
    gc.collect()
    # From Python 3.11 on what runs is in memory of mmap's, where LeakSanitizer does not look.
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            _running.append(frame)
            frame = frame.f_back
    try:
        return bool(_check())
    finally:
        _running.clear()


class Looking:
    """Looks after each file until one leaked: what is lost is reported again each time."""

    def __init__(self) -> None:
        self.where = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool | None, bool | None]:
        done = yield
        if not self.where and (nextitem is None or nextitem.path != item.path) and leaked():
            self.where = item.path.name
        return done

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.where and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.where:
            terminalreporter.section(f"memory leaked in {self.where}, or before", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Looking())
