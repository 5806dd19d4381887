"""The load under which servers are told to reload and to restart: many threads that ask for their own tokens, by all kinds of requests."""
from __future__ import annotations

import threading
from collections import Counter

from pooledhttp import Client, Response, StaleConnectionError

THREADS = 32
ANSWERS = 100              # that each worker gives before it is replaced, at least
PATIENCE = 20.0
KINDS = ("GET", "HEAD", "OPTIONS", "keyed", "POST")


class Load:
    """Threads that ask for one token after the other, and what became of each."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.answered: Counter[str] = Counter()
        self.posted: set[str] = set()
        self.failed: list[tuple[str, str, BaseException]] = []
        self.workers: Counter[str] = Counter()
        self.changed = threading.Condition()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(THREADS)]

    def __enter__(self) -> Load:
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for t in self._threads:
            t.join(PATIENCE)
            assert not t.is_alive(), "a request hangs"

    def answered_by(self, n: int) -> None:
        """Waits until `n` workers have answered, each ANSWERS times."""
        def they_have() -> bool:
            return sum(times >= ANSWERS for times in self.workers.values()) >= n

        with self.changed:
            assert self.changed.wait_for(lambda: they_have() or self.broken(), PATIENCE), f"{self.workers} have answered, not {n}"

    def broken(self) -> list[tuple[str, str, BaseException]]:
        """What failed and should not have."""
        return [f for f in self.failed if f[0] != "POST" or type(f[2]) is not StaleConnectionError]

    def _run(self, i: int) -> None:
        n = 0
        while not self._over.is_set():
            n += 1
            kind = KINDS[(i + n) % len(KINDS)]
            token = f"{kind}-{i}x{n}"
            try:
                r = self._ask(kind, token)
                pid, _, said = r.text.partition(" ")
                assert r.status_code == 200 and (said == token or kind == "HEAD"), (r.status_code, r.text)
                with self.changed:
                    self.answered[kind] += 1
                    if kind == "POST":
                        self.posted.add(token)
                    if pid:
                        self.workers[pid] += 1
                        self.changed.notify_all()
            except BaseException as e:  # noqa: B036 - looked at by the test
                with self.changed:
                    self.failed.append((kind, token, e))
                    self.changed.notify_all()

    def _ask(self, kind: str, token: str) -> Response:
        params = {"token": token}
        if kind == "POST":
            return self.client.post(self.url, params=params, content=b"not twice")
        if kind == "keyed":
            return self.client.post(self.url, params=params, content=b"twice if need be", headers={"Idempotency-Key": token})
        return self.client.request(kind, self.url, params=params)
