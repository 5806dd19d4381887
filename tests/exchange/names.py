"""Scenes with a resolver that hangs for real, each in a process of its own:

    python -m tests.exchange.names interposed|namespace SCENE

`interposed`: libc's getaddrinfo has ours in front of it. `namespace`: it is libc's own, in a network of its own whose nameserver is ours.
A scene that ends well says nothing but "done".
"""
from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from pooledhttp import Client, ConnectError, ConnectTimeout, DeadlineExceeded, DNSError, Error, Timeout, TimeoutException
from tests.exchange.support import adds_up, until
from tests.support.interposed import Interposed
from tests.support.nameserver import Nameserver
from tests.support.peer import PATIENCE, FullBacklog, Peer, answering, respond

World = Interposed | Nameserver
LATE = 0.1
SHARE = 4                    # helpers that one name may have at once
ANSWER = answering(respond(b"here"))


def asked(world: World, name: str, n: int = 1) -> None:
    with world.changed:
        assert world.changed.wait_for(lambda: world.calls(name) >= n, PATIENCE), f"{name} was looked up {world.calls(name)} times, not {n}"


def fails(call: Callable[[], Any], kind: type[Error], text: str, phase: str = "dns", number: int | None = None) -> Error:
    try:
        call()
    except Error as e:
        assert type(e) is kind and text in str(e) and (e.phase, e.errno) == (phase, number), f"{e!r}, phase={e.phase}, errno={e.errno}"
        return e
    raise AssertionError(f"no {kind.__name__}")


@contextmanager
def hanging(n: int, client: Client, url: Callable[[int], str], timeout: float) -> Iterator[list[BaseException]]:
    """`n` threads that get `url(i)`; all have ended, in time and by their deadline, when the block is left."""
    errors: list[BaseException] = []
    late: list[float] = []

    def run(i: int) -> None:
        start = time.monotonic()
        try:
            client.get(url(i), timeout=timeout)
        except BaseException as e:  # noqa: B036 - looked at below
            errors.append(e)
            late.append(time.monotonic() - start - timeout)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    yield errors
    for t in threads:
        t.join(timeout + PATIENCE)
        assert not t.is_alive(), "a request hangs past its deadline"
    assert [(type(e), getattr(e, "phase", None)) for e in errors] == [(DeadlineExceeded, "dns")] * n, errors
    assert min(late) >= 0 and median(late) < LATE, late


# --- in both worlds ---

def deadlines(world: World) -> None:
    """Whichever limit passes: never early, hardly late, and the error says that it was the name."""
    def through_map(client: Client, url: str, timeout: Timeout) -> None:
        list(client.map([url], timeout=timeout))

    def plain(client: Client, url: str, timeout: Timeout) -> None:
        client.get(url, timeout=timeout)

    n = 0
    with Client(max_conns_per_host=1) as client:
        for limit, kind, word in (("total", DeadlineExceeded, "resolving the host's name"),
                                  ("connect", ConnectTimeout, "was not resolved within connect=0.2 s")):
            for call in (plain, through_map):
                late = []
                for _ in range(3):
                    n += 1
                    name = f"hangs{n}.test"
                    timeout = Timeout(0.2) if limit == "total" else Timeout(connect=0.2)
                    start = time.monotonic()
                    try:
                        call(client, f"http://{name}/", timeout)
                    except TimeoutException as e:
                        late.append(time.monotonic() - start - 0.2)
                        assert type(e) is kind and e.phase == "dns" and word in str(e) and e.request is not None, repr(e)
                    asked(world, name)
                assert len(late) == 3 and min(late) >= 0 and median(late) < LATE, late
        stats = client.transport.stats()
        adds_up(stats)
        assert (stats.dialing, stats.open, stats.dials) == (0, 0, 12), stats


def ctrl_c(world: World) -> None:
    took = []
    with Client() as client:
        for n in range(3):
            name = f"hangs{n}.test"
            sent: list[float] = []

            def interrupt(name: str = name, sent: list[float] = sent) -> None:
                asked(world, name)
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                client.get(f"http://{name}/", timeout=PATIENCE)
            except KeyboardInterrupt:
                took.append(time.monotonic() - sent[0])
            thread.join(PATIENCE)
        assert len(took) == 3 and median(took) < LATE, took
        assert client.transport.stats().dialing == 0


def at_exit(world: World) -> None:
    """The process ends while lookups hang; its parent looks at the clock."""
    client = Client()
    for i in range(3):
        fails(lambda i=i: client.get(f"http://hangs{i}.test/", timeout=0.05), DeadlineExceeded, "resolving")
        asked(world, f"hangs{i}.test")


def others(world: World) -> None:
    """Neither one name that hangs, asked for by many, nor many that hang keep another from being found at once."""
    with Peer(ANSWER) as peer, Client() as client:
        def found(name: str) -> None:
            start = time.monotonic()
            assert client.get(f"http://{name}:{peer.port}/", timeout=PATIENCE).content == b"here"
            assert time.monotonic() - start < 2.0, "another name waited"

        # Lookups are shared by name and port: with as many ports, each thread wants one of its own.
        with hanging(40, client, lambda i: f"http://hangs.test:{i + 1}/", 1.0):
            asked(world, "hangs.test", SHARE)
            found("one.test")
            assert world.calls("hangs.test") == SHARE
        with hanging(80, client, lambda i: f"http://hangs{i}.test/", 1.5):
            for i in range(80):
                asked(world, f"hangs{i}.test")
            found("two.test")
        adds_up(client.transport.stats())


def shared(world: World) -> None:
    """Fifty threads, one lookup; and one more after it is kept."""
    got: list[bytes] = []
    with Peer(ANSWER) as peer, Client() as client:
        url = f"http://held.test:{peer.port}/"
        threads = [threading.Thread(target=lambda: got.append(client.get(url, timeout=PATIENCE).content)) for _ in range(50)]
        for t in threads:
            t.start()
        until(lambda: client.transport.stats().dialing == 50, "fifty dials at once")
        asked(world, "held.test")
        # One that leaves the lookup takes nobody's answer with it.
        fails(lambda: client.get(url, timeout=0.05), DeadlineExceeded, "resolving")
        world.release()
        for t in threads:
            t.join(PATIENCE)
        assert got == [b"here"] * 50, len(got)
        client.transport.close_idle_connections()
        assert client.get(url).content == b"here"
        assert world.calls("held.test") == 1, world.calls("held.test")


# --- with a nameserver ---

def get_anew(client: Client, url: str) -> bytes:
    """On a fresh connection."""
    client.transport.close_idle_connections()
    r = client.get(url, timeout=PATIENCE)
    assert r.conn is not None and not r.conn.reused
    return r.content


def kept(world: Nameserver) -> None:
    """`dns_cache_ttl`, and `disable_keep_alives`, which asks each time."""
    with Peer(ANSWER) as peer:
        for name, options, lookups in (("a.test", {}, 1), ("b.test", {"dns_cache_ttl": 0}, 4), ("c.test", {"disable_keep_alives": True}, 4),
                                       ("d.test", {"dns_cache_ttl": 0.05}, 2)):
            with Client(**options) as client:
                for i in range(4):
                    if name == "d.test" and i == 2:
                        time.sleep(0.06)
                    elif name == "d.test" and i == 3:
                        break
                    assert get_anew(client, f"http://{name}:{peer.port}/") == b"here"
            assert world.calls(name) == lookups, f"{name}: {world.calls(name)} lookups, not {lookups}"


def moved(world: Nameserver) -> None:
    """A server that goes to another address: the kept answer is dropped with the connect that fails, and the next request finds it."""
    with Client() as client:
        with Peer(answering(respond(b"old"))) as old:
            url = f"http://moves.test:{old.port}/"
            assert get_anew(client, url) == b"old"
        with Peer(answering(respond(b"new")), host="127.0.0.2", port=old.port):
            world.addresses["moves.test"] = ["127.0.0.2"]
            e = fails(lambda: get_anew(client, url), ConnectError, f"127.0.0.1:{old.port}: Connection refused", "connect", errno.ECONNREFUSED)
            assert "moves.test" in str(e)
            assert get_anew(client, url) == get_anew(client, url) == b"new"
    assert world.calls("moves.test") == 2


def refused(world: Nameserver) -> None:
    """What the nameserver says no to: the error names host and reason, and the next request asks again."""
    with Peer(ANSWER) as peer, Client() as client:
        for name, number, text in (("absent.test", socket.EAI_NONAME, "Name or service not known"),
                                   ("broken.test", socket.EAI_AGAIN, "Temporary failure in name resolution")):
            url = f"http://{name}:{peer.port}/"
            for n in (1, 2):
                e = fails(lambda url=url: client.get(url), DNSError, f"cannot resolve '{name}': {text}", "dns", number)
                assert e.request is not None and isinstance(e.__cause__, socket.gaierror)
                assert world.calls(name) >= n
            world.addresses[name] = ["127.0.0.1"]
            assert client.get(url).content == b"here"
        assert client.transport.stats().dials == 6


def both_families(world: Nameserver) -> None:
    """RFC 8305 over what libc says, the IPv6 address first (RFC 6724): one that stalls, one that refuses, one that answers."""
    with Peer(answering(respond(b"four"))) as four, Client() as client:
        world.addresses["both.test"] = ["127.0.0.1", "::1"]
        url = f"http://both.test:{four.port}/"

        def takes(least: float, body: bytes) -> None:
            rounds = []
            for _ in range(3):
                start = time.monotonic()
                assert get_anew(client, url) == body
                rounds.append(time.monotonic() - start)
            assert min(rounds) >= least and median(rounds) < least + LATE, rounds

        takes(0.0, b"four")
        with FullBacklog("::1", four.port):
            takes(0.3, b"four")
        with Peer(answering(respond(b"six")), host="::1", port=four.port):
            takes(0.0, b"six")
        # No route: libc puts it last, so that only a resolver of one's own shows it.
        world.addresses["nowhere.test"] = ["2001:db8::1"]
        fails(lambda: client.get("http://nowhere.test/"), ConnectError, "nowhere.test:80: [2001:db8::1]:80: Network is unreachable",
              "connect", errno.ENETUNREACH)
        assert world.calls("both.test") == 1


SCENES: dict[str, Callable[[Any], None]] = {f.__name__: f for f in (deadlines, ctrl_c, at_exit, others, shared)}
WITH_NAMESERVER: dict[str, Callable[[Any], None]] = {f.__name__: f for f in (kept, moved, refused, both_families)}


def loopback_up() -> None:
    """In a new network namespace it is down (netdevice(7))."""
    with socket.socket() as sock:
        request = struct.pack("16sh14x", b"lo", 0x41)          # IFF_UP | IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, request)                     # SIOCSIFFLAGS


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    how, name = sys.argv[1:]
    if how == "namespace":
        loopback_up()
    world: World = Interposed() if how == "interposed" else Nameserver()
    (SCENES | WITH_NAMESERVER)[name](world)
    print("done", flush=True)


if __name__ == "__main__":
    main()
