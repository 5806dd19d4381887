"""What became of every request, held against what the server says it did."""
from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterable

from pooledhttp import Error
from tests.stress.server import NOBODY, PATTERN, Record

NEVER, OK, LEFT, TIMEOUT, ABANDONED = range(5)          # LEFT: its head came, its body was not read on
_MOST = 20                                              # complaints of one kind that are kept

FINE = frozenset(("plain", "chunked", "pieces", "delay", "long_delay", "drip", "interim", "says_close", "quiet_close", "until_close", "leftover",
                  "early_error", "early_answer"))
# Before the first byte of the answer, as the client sees it: a reset takes with it what was sent and not read yet.
BEFORE = frozenset(("close_before", "rst_before", "rst_head", "rst_body", "close_upload", "rst_upload"))
# Which failure may come of what the server did to this very try.
CAUSES = {
    "RemoteProtocolError": {"close_before", "close_head", "close_body", "garbage", "close_upload"},
    "ReadError": {"rst_before", "rst_head", "rst_body", "rst_upload", "close_upload"},
    "WriteError": BEFORE,          # by the time the last piece is asked for, the server may have answered and gone
    "StaleConnectionError": BEFORE,
}
# TLS that ends without close_notify, every third time: nobody knows who cut it.
CAUSES_TLS = {"ReadError": {"close_before", "close_head", "close_body"}}
# Which failure may come of what the server did to the connection, where it saw nothing of the request.
FATES = {
    "StaleConnectionError": {"quiet_close", "slam"},
    "RemoteProtocolError": {"slam"},
    "ReadError": {"slam"},
    "WriteError": {"slam"},
    "TLSError": {"slam"},
    "ConnectError": {"slam"},
}


def digest(target: str, body: bytes = b"") -> int:
    return zlib.crc32(body, zlib.crc32(target.encode()))


def expected(number: int, size: int, token: str, crc: int) -> bytes:
    offset = number % 4096
    return b"%d %08x %s\n" % (number, crc, token.encode()) + PATTERN[offset:offset + size]


class Ledger:
    """One entry for each of `ids` requests; as large at the start as at the end."""

    def __init__(self, ids: int) -> None:
        self.ids = ids
        self.outcome = bytearray(b"\xff" * ids)
        self.replayable = bytearray(b"\xff" * ids)
        self.host = bytearray(b"\xff" * ids)
        self.port = array("H", b"\xff" * (2 * ids))
        self.failures: list[str] = ["", "", "", "", ""]          # names of errors' classes, by outcome
        self.complaints: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.clear()

    def clear(self) -> None:
        for i in range(self.ids):
            self.outcome[i] = NEVER

    def issue(self, number: int, host: int, replayable: bool) -> None:
        """Before it is made. ABANDONED until something better is known."""
        self.host[number] = host
        self.port[number] = 0
        self.replayable[number] = replayable
        self.outcome[number] = ABANDONED

    def fail(self, number: int, error: Error) -> None:
        name = type(error).__name__
        if name not in self.failures:
            self.failures.append(name)
        local = getattr(error.conn, "local_addr", None)
        self.port[number] = local[1] if isinstance(local, tuple) else 0
        self.outcome[number] = self.failures.index(name)

    def adopt(self, entries: Iterable[tuple[int, int, bool, str | int, int]]) -> None:
        """Another process's: number, host, replayable, outcome (or an error's class), port."""
        for number, host, replayable, outcome, port in entries:
            self.issue(number, host, replayable)
            if isinstance(outcome, str):
                if outcome not in self.failures:
                    self.failures.append(outcome)
                outcome = self.failures.index(outcome)
            self.outcome[number] = outcome
            self.port[number] = port

    def entries(self, numbers: Iterable[int]) -> list[tuple[int, int, bool, str | int, int]]:
        return [(i, self.host[i], bool(self.replayable[i]), self.failures[self.outcome[i]] or self.outcome[i], self.port[i])
                for i in numbers if self.outcome[i] != NEVER]

    def complain(self, kind: str, text: str = "") -> None:
        """Something that must not be."""
        self.complaints[kind] += 1
        if self.complaints[kind] <= _MOST:
            self.wrong.append(f"{kind}: {text}" if text else kind)

    def outcomes(self) -> Counter[str]:
        names = ("never", "ok", "left", "timeout", "abandoned")
        counts = Counter(self.outcome)
        return Counter({names[code] if code < len(names) else self.failures[code]: n for code, n in counts.items()})

    # --- the server's word against ours ------------------------------------------------------------------------------------

    def audit(self, records: Iterable[Record], secure: list[bool]) -> tuple[Counter[str], int]:
        """Complains of all that the server's records do not explain. How often it did what, and tries beyond the first."""
        kinds: Counter[str] = Counter()
        fates: dict[tuple[int, int], set[str]] = {}
        slams: Counter[int] = Counter()
        last: dict[int, Record] = {}          # of what did not end well, or was tried again
        again = 0
        for r in records:
            kinds[r.kind] += 1
            if r.kind == "violation":
                self.complain("the server was sent what is no request", str(r))
                continue
            if r.kind in ("slam", "quiet_close"):
                fates.setdefault((r.host, r.port), set()).add(r.kind)
                slams[r.host] += r.kind == "slam"
            if r.id == NOBODY:
                continue
            outcome = self.outcome[r.id]
            if outcome == NEVER:
                self.complain("a request that nobody made", str(r))
                continue
            if r.host != self.host[r.id]:
                self.complain("a request went to another host", str(r))
            before = last.get(r.id)
            if r.attempt:
                again += 1
                if not self.replayable[r.id]:
                    self.complain("a request was sent twice that must not be", f"{before} {r}")
                if before is None or before.kind not in BEFORE:         # None: it went well
                    self.complain("a request was sent again without need", f"{before} {r}")
            if r.attempt or outcome != OK or r.kind not in FINE:
                last[r.id] = r
        for number in range(self.ids):
            outcome = self.outcome[number]
            if outcome in (NEVER, TIMEOUT, ABANDONED):
                continue
            r0 = last.get(number)
            if outcome == OK:
                if r0 is not None and r0.kind not in FINE:
                    self.complain("an answer that was never given", str(r0))
            elif outcome == LEFT:
                if r0 is None or r0.kind not in FINE | {"close_body", "rst_body"}:
                    self.complain("the head of an answer that was never given", str(r0))
            else:
                self._explain(number, r0, fates, slams, secure)
        return kinds, again

    def _explain(self, number: int, r: Record | None, fates: dict[tuple[int, int], set[str]], slams: Counter[int], secure: list[bool]) -> None:
        name, host, port = self.failures[self.outcome[number]], self.host[number], self.port[number]
        if name == "StaleConnectionError" and self.replayable[number]:
            self.complain("StaleConnectionError of a request that may be sent again", f"{number} {r}")
        if r is not None and r.port == port:
            causes = CAUSES.get(name, set()) | (CAUSES_TLS.get(name, set()) if secure[host] else set())
            if r.kind in causes:
                return
        elif port == 0:
            if name in ("TLSError", "ConnectError") and slams[host] > 0:
                slams[host] -= 1                  # a handshake that failed says not from which port
                return
        elif fates.get((host, port), set()) & FATES.get(name, set()):
            return
        self.complain(f"unexplained {name}", f"request {number} to host {host} from port {port}; the server: {r}")
