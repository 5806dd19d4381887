"""Memory with a page that nobody may touch before and behind it."""
from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

PAGE = mmap.PAGESIZE
_NONE, _READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE


def _protect(address: int, mode: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), ctypes.c_int(mode)) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


class Guarded:
    """One page of memory between two guard pages."""

    def __init__(self, address: int) -> None:
        self.address = address

    def at_end(self, data: bytes) -> int:
        """The address of a copy of `data` whose last byte is the last before the guard page."""
        where = self.address + PAGE - len(data)
        ctypes.memmove(where, data, len(data))
        return where

    def at_start(self, data: bytes) -> int:
        """The address of a copy of `data` whose first byte is the first behind the guard page."""
        ctypes.memmove(self.address, data, len(data))
        return self.address


@contextmanager
def guarded() -> Iterator[Guarded]:
    area = mmap.mmap(-1, 3 * PAGE)
    anchor = ctypes.c_char.from_buffer(area)
    first = ctypes.addressof(anchor)
    guards = (first, first + 2 * PAGE)
    for address in guards:
        _protect(address, _NONE)
    try:
        yield Guarded(first + PAGE)
    finally:
        for address in guards:
            _protect(address, _READ_WRITE)
        del anchor
        area.close()
