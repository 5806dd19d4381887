"""The demo's processes. Each says its port as it starts, answers a line on its input with its facts, and ends when its input does.

So none outlives the demo, however that ends: with its parent's end of the pipe, its input ends.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Child:
    """A module of this package as a process. `port` is where it listens; `facts()` asks how it is."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.name = module
        # A session of its own: Ctrl-C in the terminal is the parent's business alone.
        self._process = subprocess.Popen([sys.executable, "-m", f"examples.microservices.{module}", *arguments], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.port = 0

    def started(self) -> Child:
        """Waits until it listens."""
        self.port = int(self._answer()["port"])
        return self

    def facts(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("facts\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.name} process ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve_until_told(port: int, facts: Callable[[], dict[str, Any]], serve: Callable[[], object]) -> None:
    """The child's side: runs `serve` on a thread, and answers the parent until it goes."""
    threading.Thread(target=serve, daemon=True).start()
    print(json.dumps({"port": port}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(facts()), flush=True)
    os._exit(0)          # what is in flight has no reader any more
