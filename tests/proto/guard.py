"""Memory between two pages that may not be touched: a read one byte outside it ends the process."""
from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """`size` bytes of writable memory at `address`, a forbidden page right before and right behind them."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size

    def at_end(self, data: bytes) -> int:
        """Puts `data` right before the forbidden page behind; its address."""
        assert len(data) <= self.size
        where = self.address + self.size - len(data)
        ctypes.memmove(where, data, len(data))
        return where

    def at_start(self, data: bytes) -> int:
        """Puts `data` right behind the forbidden page before; its address."""
        assert len(data) <= self.size
        ctypes.memmove(self.address, data, len(data))
        return self.address

    def object_at_end(self, data: bytes) -> bytes:
        """`data` as an object whose last byte, the NUL behind it, is right before the forbidden page. It must be forgotten before the memory is.

        Objects are aligned, so that length is 7, 15, 23 and so on.
        """
        size = bytes.__basicsize__ + len(data)
        where = self.address + self.size - size
        assert where % 8 == 0 and size <= self.size
        ctypes.memmove(where, id(data), size)
        ctypes.c_ssize_t.from_address(where).value = 1 << 30          # references that nobody gives back: it is never freed
        made = ctypes.cast(where, ctypes.py_object).value
        assert type(made) is bytes
        return made


def _protect(address: int, allowed: int) -> None:
    if _libc.mprotect(address, PAGE, allowed) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


@contextmanager
def guarded(pages: int = 2) -> Iterator[Guarded]:
    area = mmap.mmap(-1, (pages + 2) * PAGE)
    view = (ctypes.c_char * len(area)).from_buffer(area)
    base = ctypes.addressof(view)
    edges = (base, base + (pages + 1) * PAGE)
    for edge in edges:
        _protect(edge, 0)
    try:
        yield Guarded(base + PAGE, pages * PAGE)
    finally:
        for edge in edges:
            _protect(edge, mmap.PROT_READ | mmap.PROT_WRITE)
        del view
        area.close()
