"""A program that is interrupted again and again, at random moments, while it makes requests: `python -m tests.signals.storm SECONDS URL CA`.

The URL's server answers `/ok`. Says in its last line how often it was interrupted, or fails.
"""
from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
import warnings

import pooledhttp
from tests.exchange.support import adds_up, closed, until

BOUND = 3.0
REASONS = {"cancelled", "error", "drain_limit", "shutdown", "server_closed"}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def requests(client: pooledhttp.Client, url: str, rng: random.Random) -> None:
    """Until something is raised."""
    while True:
        kind = rng.randrange(5)
        if kind == 0:
            client.get(url)
        elif kind == 1:
            with client.stream("GET", url) as r:
                for _ in r.iter_bytes(1):
                    pass
        elif kind == 2:
            client.post(url, content=iter([b"a" * 1000] * 3))
        elif kind == 3:
            list(client.map([url] * 3, workers=2))
        else:
            client.transport.close_idle_connections()       # so that the next one dials


def strike(client: pooledhttp.Client, url: str, rng: random.Random) -> float:
    """Requests until one interrupt ends them; seconds from the one to the other."""
    rung = [0.0]
    pause, to_process = rng.random() * 0.01, rng.random() < 0.5

    def ring() -> None:
        time.sleep(pause)
        rung[0] = time.monotonic()
        if to_process:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    bell = threading.Thread(target=ring)
    try:
        bell.start()
        requests(client, url, rng)
    except KeyboardInterrupt:
        took = time.monotonic() - rung[0]
    bell.join()
    return took


def main(seconds: float, url: str, ca: str) -> None:
    # A with statement that is interrupted before its block is entered never leaves it: that response is collected, and says so.
    warnings.simplefilter("ignore", ResourceWarning)
    rng = random.Random(int(os.environ.get("STORM_SEED", "0")) or None)
    signal.signal(signal.SIGINT, signal.default_int_handler)     # a background job has it ignored
    client = pooledhttp.Client(transport=pooledhttp.Transport(verify=ca), timeout=10.0)
    client.get(url)
    client.transport.close_idle_connections()
    until(lambda: threading.active_count() == 1, "the janitor's end")
    before, n, end = descriptors(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        took = strike(client, url, rng)
        n += 1
        assert took < BOUND, f"interrupt {n} took {took:.3f} s"
        adds_up(client.transport.stats())
        until(lambda: client.transport.stats().active + client.transport.stats().dialing + client.transport.stats().waiting == 0,
              f"the end of what interrupt {n} broke off")
        adds_up(client.transport.stats())
        assert client.get(url).content == b"ok", n
    gc.collect()
    client.transport.close_idle_connections()
    until(lambda: threading.active_count() == 1, "the threads' end")
    stats = client.transport.stats()
    adds_up(stats)
    assert stats.open == 0 and descriptors() == before, (str(stats), descriptors(), before)
    assert set(closed(stats)) <= REASONS, stats.closed
    print(f"{n} interrupts")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3])
