"""What a peer is to the bench."""
from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from typing import ClassVar
from urllib.parse import urlsplit

from bench.scenarios import Task

Get = Callable[[], Sized]
Fetch = Callable[[str], Sized]


class Unable(Exception):
    """The peer has no such thing."""


class Peer(ABC):
    """Made once a process (`spike`: once a round). TLS peers verify the server against the bench's authority, as their users would.

    `module`: what its users import; `making`: the expression that makes its client then. `variants`: ways to use it; the comparison runs the first.
    """
    name: ClassVar[str]
    module: ClassVar[str]
    making: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, task: Task, variant: str) -> None:
        scenario = task.scenario
        self.url, self.ca, self.threads, self.fresh, self.hosts = task.url, task.ca, scenario.threads, scenario.fresh, scenario.hosts
        self.h2 = scenario.h2
        self.variant = variant
        parts = urlsplit(task.url)
        self.host, self.port, self.path = parts.hostname or "", parts.port, parts.path
        self.open()

    @abstractmethod
    def open(self) -> None: ...

    def version(self) -> str:
        from importlib.metadata import version

        return version(self.name)

    @abstractmethod
    def session(self) -> Get:
        """Called in each thread. Returns that thread's function that fetches the URL, reads the body to its end and returns it, as what the client gives."""

    @abstractmethod
    def fetch(self) -> Fetch:
        """The same for any URL, in one thread, with a connection kept for each of `hosts` origins."""

    def upload(self, path: str) -> Sized:
        """POSTs the file, which is not to be in memory as a whole, to the URL. Returns the answer's body."""
        raise Unable(f"{self.name} does not send a file but from memory")


def pieces(path: str, size: int = 1 << 18) -> Callable[[], bytes]:
    """Reads the file, piece by piece; b"" at its end."""
    file = open(path, "rb", buffering=0)        # noqa: SIM115 - closed at its end

    def read() -> bytes:
        piece = file.read(size)
        if not piece:
            file.close()
        return piece

    return read


def length(path: str) -> str:
    return str(os.stat(path).st_size)
