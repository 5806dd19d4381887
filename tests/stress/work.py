"""What a thread of the stress run does: requests of all kinds, each answer checked to be the answer to its own request."""
from __future__ import annotations

import contextlib
import io
import random
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pooledhttp import Client, Error, Response, Timeout, TimeoutException
from tests.stress.ledger import LEFT, OK, TIMEOUT, Ledger, digest, expected
from tests.stress.server import PATTERN

LATE = 5.0                 # seconds that a limit may be late on a machine with much else to do


class Asked(NamedTuple):
    number: int
    url: str
    target: str
    size: int
    token: str


class Worker:
    """`step(at, room)` makes some requests, numbered from `at`, at most `room`; how many. `hot` says the host that most of them go to, or -1;
    `broken_off` is what a signal's handler raises."""

    def __init__(self, client: Client, urls: list[str], ledger: Ledger, dice: random.Random, hot: Callable[[], int],
                 broken_off: tuple[type[BaseException], ...] = ()) -> None:
        self.broken_off = broken_off
        self.client = client
        self.urls = urls
        self.ledger = ledger
        self.dice = dice
        self.hot = hot
        self.leaks = 0
        self.checked = 0
        self.received = 0
        kinds: list[tuple[int, Callable[[int, int], int]]] = [
            (500, self.get), (60, self.head), (100, self.post), (40, self.post_pieces), (40, self.put), (30, self.delete), (100, self.stream), (30, self.leave),
            (20, self.leak), (40, self.hurry), (15, self.impatient), (4, self.fan_out)]
        self._kinds = [kind for _, kind in kinds]
        self._weights = [n for n, _ in kinds]

    def step(self, at: int, room: int) -> int:
        kind = self.dice.choices(self._kinds, self._weights)[0]
        try:
            return kind(at, room)
        except self.broken_off:
            raise
        except Exception:
            self.ledger.complain("an exception that is none of ours", f"{kind.__name__} {at}: {traceback.format_exc()}")
            return 1

    # --- what they share ---------------------------------------------------------------------------------------------------

    def ask(self, number: int, *, replayable: bool = True, least: int = 0) -> Asked:
        dice = self.dice
        host = self.hot()
        if host < 0 or dice.random() < 0.3:
            host = dice.randrange(len(self.urls))
        luck = dice.random()
        size = dice.randrange(*((0, 1500) if luck < 0.75 else (1500, 20_000) if luck < 0.95 else (20_000, 120_000) if luck < 0.995 else (120_000, 600_000)))
        size = max(size, least)
        token = f"{dice.getrandbits(32):08x}"
        target = f"/{number}/{size}/{token}"
        self.ledger.issue(number, host, replayable)
        return Asked(number, self.urls[host] + target, target, size, token)

    def upload(self, least: int = 0) -> bytes:
        luck = self.dice.random()
        size = self.dice.randrange(*((0, 300) if luck < 0.6 else (300, 9_000) if luck < 0.9 else (9_000, 60_000) if luck < 0.99 else (60_000, 900_000)))
        at = self.dice.randrange(4096)
        return PATTERN[at:at + max(size, least)]

    def check_head(self, asked: Asked, r: Response, body: bytes = b"") -> int:
        """The digest that the answer must bear."""
        early = "x-early" in r.headers
        crc = digest(asked.target) if early else digest(asked.target, body)
        if r.status_code != (413 if early and r.status_code == 413 else 200) or r.headers.get("x-id") != str(asked.number) or r.headers.get(
                "x-digest") != f"{crc:08x}":
            self.ledger.complain("another request's answer", f"{asked} got {r.status_code} {dict(r.headers)}")
        return crc

    def check(self, asked: Asked, r: Response, content: bytes, body: bytes = b"") -> None:
        crc = self.check_head(asked, r, body)
        if content != expected(asked.number, asked.size, asked.token, crc):
            self.ledger.complain("another request's body", f"{asked} got {len(content)} bytes, {content[:60]!r}...")
        self.ledger.outcome[asked.number] = OK
        self.checked += 1
        self.received += len(content)

    @contextlib.contextmanager
    def noting(self, asked: Asked) -> Iterator[None]:
        """What it raises is the request's outcome."""
        try:
            yield
        except Error as e:
            self.ledger.fail(asked.number, e)

    # --- kinds of requests -------------------------------------------------------------------------------------------------

    def get(self, at: int, room: int) -> int:
        asked = self.ask(at)
        with self.noting(asked):
            r = self.client.get(asked.url)
            self.check(asked, r, r.content)
        return 1

    def head(self, at: int, room: int) -> int:
        asked = self.ask(at)
        with self.noting(asked):
            r = self.client.head(asked.url)
            self.check_head(asked, r)
            if r.content:
                self.ledger.complain("a body of an answer to HEAD", str(asked))
            self.ledger.outcome[at] = OK
        return 1

    def delete(self, at: int, room: int) -> int:
        asked = self.ask(at, replayable=False)
        with self.noting(asked):
            r = self.client.delete(asked.url)
            self.check(asked, r, r.content)
        return 1

    def post(self, at: int, room: int) -> int:
        asked, body = self.ask(at, replayable=False), self.upload()
        with self.noting(asked):
            r = self.client.post(asked.url, content=body)
            self.check(asked, r, r.content, body)
        return 1

    def post_pieces(self, at: int, room: int) -> int:
        """In chunks, which cannot be sent again."""
        asked, body = self.ask(at, replayable=False), self.upload(least=4_001)
        size = self.dice.randrange(400, 20_000)
        pieces = (body[i:i + size] for i in range(0, len(body), size))
        with self.noting(asked):
            r = self.client.post(asked.url, content=pieces)
            self.check(asked, r, r.content, body)
        return 1

    def put(self, at: int, room: int) -> int:
        """With a body that can be sent again, and leave to do so."""
        asked, body = self.ask(at), self.upload()
        content: Any = io.BytesIO(body) if self.dice.random() < 0.3 else body
        with self.noting(asked):
            r = self.client.put(asked.url, content=content, headers={"Idempotency-Key": asked.token})
            self.check(asked, r, r.content, body)
        return 1

    def stream(self, at: int, room: int) -> int:
        asked = self.ask(at)
        size = self.dice.choice((7, 1000, 4096, 65_536)) if asked.size < 20_000 else 65_536
        with self.noting(asked), self.client.stream("GET", asked.url) as r:
            self.check(asked, r, b"".join(r.iter_bytes(size)))
        return 1

    def leave(self, at: int, room: int) -> int:
        """A stream that is closed before its end."""
        asked = self.ask(at, least=self.dice.choice((0, 1_000, 100_000, 500_000)))
        with self.noting(asked), self.client.stream("GET", asked.url) as r:
            self.check_head(asked, r)
            self.ledger.outcome[at] = LEFT
            if self.dice.random() < 0.5:
                r.read(self.dice.randrange(1, 500))
        return 1

    def leak(self, at: int, room: int) -> int:
        """A stream that nobody closes."""
        asked = self.ask(at, least=self.dice.choice((0, 100_000)))
        self.leaks += 1
        with self.noting(asked):
            self.check_head(asked, self.client.get(asked.url, stream=True))
            self.ledger.outcome[at] = LEFT
        return 1

    def hurry(self, at: int, room: int) -> int:
        """Less time than it may take."""
        asked, limit = self.ask(at), self.dice.uniform(0.002, 0.06)
        self.limited(asked, limit, limit)
        return 1

    def impatient(self, at: int, room: int) -> int:
        """A short limit on the wait for a connection, or on silence."""
        asked, limit = self.ask(at), self.dice.uniform(0.002, 0.06)
        self.limited(asked, limit, Timeout(30.0, pool=limit) if self.dice.random() < 0.5 else Timeout(30.0, read=limit))
        return 1

    def limited(self, asked: Asked, limit: float, timeout: Timeout | float) -> None:
        began = time.monotonic()
        with self.noting(asked):
            try:
                r = self.client.get(asked.url, timeout=timeout)
            except TimeoutException as e:
                took = time.monotonic() - began
                if not limit - 0.001 <= took < limit + LATE:
                    self.ledger.complain("a limit passed early or late", f"{asked}: {took:.4f} s for {limit:.4f} s: {e!r}")
                self.ledger.outcome[asked.number] = TIMEOUT
            else:
                self.check(asked, r, r.content)

    def fan_out(self, at: int, room: int) -> int:
        """A `map` loop, mostly left early."""
        n = min(room, self.dice.randrange(1, 16))
        asked = {a.url: a for a in (self.ask(at + i) for i in range(n))}
        enough = self.dice.randrange(n + 1)
        streams = self.dice.random() < 0.2
        results = self.client.map(list(asked), workers=self.dice.randrange(1, 5), ordered=self.dice.random() < 0.5, return_exceptions=True, stream=streams)
        with contextlib.closing(results):  # type: ignore[type-var]  # a generator, as its documentation says
            for seen, r in enumerate(results):
                if seen >= enough:
                    if isinstance(r, Response):
                        r.close()
                    break
                if isinstance(r, Error):
                    self.ledger.fail(asked[str(r.request.url)].number, r)
                elif isinstance(r, Exception):
                    raise r
                else:
                    assert r.request is not None
                    a = asked[str(r.request.url)]
                    with self.noting(a), r:
                        self.check(a, r, r.read() if streams else r.content)
        return n
