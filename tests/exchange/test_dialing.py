"""Dialing as users see it: addresses in turn, options of the socket, filters, and what is left of a dial that lost its race."""
from __future__ import annotations

import errno
import os
import pickle
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest

from pooledhttp import Client, ConnectError, ConnectRefusedByFilter, ConnectTimeout, DNSError, Timeout, TLSError, Transport
from tests.exchange.conftest import MakeClient, MakePeer
from tests.exchange.support import adds_up, client_socket, closed, until
from tests.support.ca import Authority
from tests.support.peer import PATIENCE, Conn, FullBacklog, answering, free_ports, respond

HERE = answering(respond(b"here"))
Resolve = Callable[[str, int], list[tuple[int, tuple[Any, ...]]]]


def address(ip: str, port: int) -> tuple[int, tuple[Any, ...]]:
    return (socket.AF_INET6, (ip, port, 0, 0)) if ":" in ip else (socket.AF_INET, (ip, port))


def answers(*addresses: tuple[str, int]) -> Resolve:
    return lambda host, port: [address(*a) for a in addresses]


def anew(client: Client, url: str, **options: Any) -> bytes:
    client.transport.close_idle_connections()
    return client.get(url, **options).content


@pytest.fixture
def refusing() -> int:
    """A port of the loopback that refuses."""
    return free_ports(1)[0]


# --- addresses ---

@pytest.mark.parametrize(("first", "second"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_the_second_address_is_tried_after_300_ms_beside_the_first(peer: MakePeer, new_client: MakeClient, first: str, second: str) -> None:
    server = peer(HERE, host=second)
    took = []
    with FullBacklog(first) as full:
        client = new_client(resolver=answers((first, full.port), (second, server.port)))
        for _ in range(3):
            start = time.monotonic()
            assert anew(client, "http://both.test/") == b"here"
            took.append(time.monotonic() - start)
    assert min(took) >= 0.3 and median(took) < 0.4, took


@pytest.mark.parametrize(("first", "second"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_it_is_tried_at_once_where_the_first_refuses(peer: MakePeer, new_client: MakeClient, refusing: int, first: str, second: str) -> None:
    server = peer(HERE, host=second)
    client = new_client(resolver=answers((first, refusing), (second, server.port)), happy_eyeballs_delay=5.0)
    start = time.monotonic()
    r = client.get("http://both.test/")
    assert time.monotonic() - start < 2.0
    assert r.conn is not None and r.conn.remote_addr == (second, server.port)
    assert client.transport.stats().dials == 1


def test_the_last_of_several_that_stall_wins(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(HERE)
    with FullBacklog("::1") as six, FullBacklog("0.0.0.0") as four:
        stalled = [("::1", six.port), *((f"127.0.0.{i}", four.port) for i in range(2, 6))]
        client = new_client(resolver=answers(*stalled, ("127.0.0.1", server.port)), happy_eyeballs_delay=0.05)
        start = time.monotonic()
        assert client.get("http://many.test/").content == b"here"
        assert 0.25 <= time.monotonic() - start < 2.0


def test_the_connect_limit_is_for_all_addresses_together(new_client: MakeClient) -> None:
    with FullBacklog("::1") as six, FullBacklog("0.0.0.0") as four:
        stalled = [("::1", six.port), *((f"127.0.0.{i}", four.port) for i in range(2, 6))]
        client = new_client(resolver=answers(*stalled), happy_eyeballs_delay=0.05)
        late = []
        for _ in range(3):
            start = time.monotonic()
            with pytest.raises(ConnectTimeout, match="within connect=0.4 s") as e:
                client.get("http://many.test/", timeout=Timeout(connect=0.4))
            late.append(time.monotonic() - start - 0.4)
            assert e.value.phase == "connect"
            for ip, port in stalled:                      # all were tried, and are named
                assert f"{f'[{ip}]' if ':' in ip else ip}:{port}: no answer in 0." in str(e.value)
        assert min(late) >= 0 and median(late) < 0.1, late


@pytest.mark.slow
def test_one_that_stalls_gets_its_share_of_the_limit(peer: MakePeer, new_client: MakeClient) -> None:
    """Go's partialDeadline: what remains, divided by the addresses that remain; not less than two seconds."""
    server = peer(HERE)
    with FullBacklog() as full:
        client = new_client(resolver=answers((full.host, full.port), ("127.0.0.1", server.port)), happy_eyeballs_delay=None)
        start = time.monotonic()
        assert client.get("http://two.test/", timeout=Timeout(connect=4.8)).content == b"here"
        assert 2.4 <= time.monotonic() - start < 2.9


def test_the_losers_are_closed(peer: MakePeer, new_client: MakeClient) -> None:
    """All are tried at once: one serves, and the others see an end without a byte."""
    servers = [peer(HERE, host=ip) for ip in ("127.0.0.1", "127.0.0.2", "::1")]
    client = new_client(resolver=answers(*((s.host, s.port) for s in servers)), happy_eyeballs_delay=0.0)
    for _ in range(10):
        assert anew(client, "http://many.test/") == b"here"
    client.transport.close_idle_connections()
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.open) == (10, 10, 0)
    for server in servers:
        for i in range(server.accepted):
            server.wait_closed(i)
    served = [bool(conn.received) for server in servers for conn in server.conns]
    assert sum(served) == 10


def test_all_refuse(new_client: MakeClient, refusing: int) -> None:
    """The error names them all, and has the first one's number; duplicates are tried once."""
    client = new_client(resolver=answers(("::1", refusing), ("127.0.0.1", refusing), ("::1", refusing), ("127.0.0.1", refusing)))
    with pytest.raises(ConnectError) as e:
        client.get("http://both.test:81/")
    assert str(e.value) == (f"cannot connect to both.test:81: [::1]:{refusing}: Connection refused; 127.0.0.1:{refusing}: Connection refused"
                            " (GET http://both.test:81/)")
    assert (e.value.errno, e.value.phase, type(e.value)) == (errno.ECONNREFUSED, "connect", ConnectError)
    assert e.value.request is not None
    e.value.request = None
    again = pickle.loads(pickle.dumps(e.value))
    assert (again.errno, str(again), again.phase) == (errno.ECONNREFUSED, e.value.message, "connect")


def test_thousands_of_addresses(peer: MakePeer, new_client: MakeClient, refusing: int) -> None:
    many = [(f"127.{i >> 8}.{i & 255}.7", refusing) for i in range(3000)]
    client = new_client(resolver=answers(*many))
    with pytest.raises(ConnectError, match="127.0.31.7:.*; and 2968 more [(]GET http://many.test/[)]$") as e:
        client.get("http://many.test/")
    assert len(str(e.value)) < 3000
    server = peer(HERE)
    assert new_client(resolver=answers(*many, ("127.0.0.1", server.port))).get("http://many.test/").content == b"here"


def test_hundreds_of_addresses_that_stall(new_client: MakeClient) -> None:
    """Not all at once, even where there is to be no delay between them."""
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, len(os.listdir("/proc/self/fd")))

    with FullBacklog("0.0.0.0") as full:
        client = new_client(resolver=answers(*((f"127.0.1.{i}", full.port) for i in range(250))), happy_eyeballs_delay=0)
        before = len(os.listdir("/proc/self/fd"))
        thread = threading.Thread(target=watch)
        thread.start()
        with pytest.raises(ConnectTimeout, match="and 32 more [(]GET http://many.test/[)]$"):
            client.get("http://many.test/", timeout=Timeout(connect=0.3))
        done.set()
        thread.join()
    assert 64 <= most - before < 80


# --- descriptors ---

@pytest.fixture
def no_more_descriptors() -> Iterator[Callable[[], None]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def none() -> None:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))

    yield none
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_for_the_connect(client: Client, no_more_descriptors: Callable[[], None], refusing: int) -> None:
    with pytest.raises(ConnectError):
        client.get(f"http://127.0.0.1:{refusing}/")         # whatever is opened once
    no_more_descriptors()
    with pytest.raises(ConnectError, match="Too many open files") as e:
        client.get(f"http://127.0.0.1:{refusing}/")
    assert (e.value.errno, e.value.phase) == (errno.EMFILE, "connect")
    assert client.transport.stats().dialing == 0


def test_no_descriptor_for_the_lookup(client: Client, no_more_descriptors: Callable[[], None]) -> None:
    no_more_descriptors()
    with pytest.raises(DNSError, match="cannot resolve 'some.host.test'") as e:
        client.get("http://some.host.test/")
    assert e.value.errno is not None and e.value.phase == "dns"


# --- options ---

def test_options_of_the_socket(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(HERE)
    for options, keepalive, idle in (({}, 1, 15), ({"tcp_keepalive": 7.4}, 1, 7), ({"tcp_keepalive": None}, 0, None), ({"tcp_keepalive": 0}, 0, None),
                                     ({"socket_options": [(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 9),
                                                          (socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))]}, 1, 9)):
        r = new_client(**options).get(server.url())
        assert r.conn is not None and isinstance(r.conn.local_addr, tuple)
        with client_socket(r.conn.local_addr) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == keepalive
            if idle is not None:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle


def test_options_that_the_system_refuses(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(HERE)
    with pytest.raises(ConnectError, match="Protocol not available|not supported") as e:
        new_client(socket_options=[(socket.SOL_SOCKET, 9999, 1)]).get(server.url())
    assert e.value.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


def test_where_it_connects_from(peer: MakePeer, new_client: MakeClient) -> None:
    server, port = peer(HERE), free_ports(1)[0]
    for given, ip in (("127.0.0.9", "127.0.0.9"), (("127.0.0.8", port), "127.0.0.8")):
        client = new_client(local_address=given)
        with client.stream("GET", server.url()) as r:
            assert r.conn is not None and isinstance(r.conn.local_addr, tuple)
            assert r.conn.local_addr[0] == server.conns[-1].sock.getpeername()[0] == ip
            if isinstance(given, tuple):
                assert r.conn.local_addr == given
                with pytest.raises(ConnectError, match="in use") as e:
                    client.get(server.url())              # a port has one connection to a server
                assert e.value.errno == errno.EADDRINUSE
    # What a name has of the other family is passed over.
    six = peer(HERE, host="::1")
    client = new_client(local_address="127.0.0.9", resolver=answers((six.host, six.port), (server.host, server.port)))
    assert client.get("http://both.test/").content == b"here"
    assert six.accepted == 0


@pytest.mark.parametrize(("given", "number"), [("192.0.2.77", errno.EADDRNOTAVAIL), ("::1", errno.EAFNOSUPPORT)])
def test_where_it_cannot_connect_from(peer: MakePeer, new_client: MakeClient, given: str, number: int) -> None:
    server = peer(HERE)
    with pytest.raises(ConnectError) as e:
        new_client(local_address=given).get(server.url())
    assert (e.value.errno, e.value.phase) == (number, "connect")


@pytest.mark.parametrize("bad", [{"local_address": "localhost"}, {"local_address": ("127.0.0.1", 70000)}, {"local_address": ("127.0.0.1",)},
                                 {"local_address": 5}, {"dns_cache_ttl": None}, {"dns_cache_ttl": -1}, {"happy_eyeballs_delay": float("nan")},
                                 {"tcp_keepalive": -1}, {"resolver": 5}, {"connect_filter": "x"}, {"socket_options": 5}], ids=repr)
def test_options_that_cannot_be_meant(bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Transport(**bad)


# --- filters ---

def test_a_filter_sees_every_address_of_every_dial(peer: MakePeer, new_client: MakeClient) -> None:
    """Also of an answer that is kept, and of one that was rebound; a connection that is kept was seen."""
    server = peer(HERE)
    asked: list[tuple[str, int]] = []
    lookups: list[str] = []
    private = {"127.0.0.1"}

    def allow(ip: str, port: int) -> bool:
        assert threading.current_thread() is threading.main_thread()           # callers dial on their own
        asked.append((ip, port))
        return ip not in private

    def resolver(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
        lookups.append(host)
        return [address("127.0.0.2", port), address("127.0.0.1", port)] if len(lookups) == 1 else [address("::ffff:127.0.0.1", port)]

    both = peer(HERE, host="127.0.0.2")
    client = new_client(connect_filter=allow, resolver=resolver)
    url = f"http://rebinds.test:{both.port}/"
    for n in (1, 2, 3):
        assert anew(client, url) == b"here"
        assert client.get(url).conn.reused
        assert asked == [("127.0.0.2", both.port), ("127.0.0.1", both.port)] * n
    assert lookups == ["rebinds.test"]
    both.stop()
    with pytest.raises(ConnectError, match="127.0.0.2:.*refused"):
        anew(client, url)
    del asked[:]
    with pytest.raises(ConnectRefusedByFilter, match="connect_filter refused rebinds.test:") as e:
        client.get(url)
    assert asked == [("127.0.0.1", both.port)] and len(lookups) == 2           # as the kernel would connect
    assert (e.value.phase, e.value.request.method, e.value.errno) == ("connect", "GET", None)
    # A literal is no way around it, in whatever form.
    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f.1"):
        with pytest.raises(ConnectRefusedByFilter):
            client.get(f"http://{host}:{server.port}/")
    assert server.accepted == 0
    stats = client.transport.stats()
    adds_up(stats)
    assert (stats.dialing, stats.open) == (0, 0)


class Phased(Exception):
    phase = "mine"


@pytest.mark.parametrize("error", [LookupError, Phased, KeyboardInterrupt, OSError])
def test_a_filter_that_raises(peer: MakePeer, new_client: MakeClient, error: type[BaseException]) -> None:
    def allow(ip: str, port: int) -> bool:
        if trouble.is_set():
            raise error("mine")
        return True

    trouble = threading.Event()
    client = new_client(connect_filter=allow)
    server = peer(HERE)
    trouble.set()
    with pytest.raises(error, match="mine"):
        client.get(server.url())
    trouble.clear()
    assert client.get(server.url()).content == b"here"
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.dialing) == (2, 1, 0)


# --- who wins, and what is left of the loser ---

def race(client: Client, url: str, held: threading.Event, n: int, dialing: Callable[[], Any]) -> list[bytes]:
    """One request that holds the only connection, then `n` that dial; the first is answered when they all do."""
    out: list[bytes] = []
    first = threading.Thread(target=lambda: client.get(url + "held"))
    first.start()
    until(lambda: client.transport.stats().active == 1)
    others = [threading.Thread(target=lambda: out.append(client.get(url + "next").content)) for _ in range(n)]
    for t in others:
        t.start()
    until(lambda: client.transport.stats().dialing == n and dialing(), "the dials")
    held.set()
    for t in (first, *others):
        t.join(PATIENCE)
        assert not t.is_alive()
    return out


def held_until(held: threading.Event) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            if b"/held" in head:
                held.wait(PATIENCE)
            conn.send(respond(b"%d" % i))

    return script


@pytest.mark.parametrize("where", ["dns", "connect"])
def test_a_connection_given_back_beats_the_dial(peer: MakePeer, new_client: MakeClient, where: str) -> None:
    """Wherever it is: the request is answered, and the dial is finished and pooled."""
    held, go_on = threading.Event(), threading.Event()
    server = peer(held_until(held))
    slow = peer(HERE, host="127.0.0.2")
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
        lookups.append(host)
        if len(lookups) == 1:
            return [address(server.host, server.port)]
        if where == "dns":
            go_on.wait(PATIENCE)
            return [address(slow.host, slow.port)]
        return [address(full.host, full.port), address(slow.host, slow.port)]

    with FullBacklog() as full:
        client = new_client(resolver=resolver, dns_cache_ttl=0, happy_eyeballs_delay=0.5)
        assert race(client, "http://races.test/", held, 1, lambda: len(lookups) == 2) == [b"0"]
        stats = client.transport.stats()
        assert (stats.dialing, stats.opened, slow.accepted) == (1, 1, 0)
        go_on.set()
        until(lambda: client.transport.stats().dialing == 0, "the end of the dial")
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.idle, closed(stats)) == (2, 2, 2, {})
    with client.stream("GET", "http://races.test/") as a, client.stream("GET", "http://races.test/") as b:
        assert {a.read(), b.read()} == {b"0", b"here"}


def test_only_so_many_losers_are_finished(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    held, handshake = threading.Event(), threading.Event()
    served = held_until(held)

    def script(conn: Conn, i: int) -> None:
        if i > 0:
            handshake.wait(PATIENCE)
        conn.start_tls(ca.server())
        served(conn, i)

    server = peer(script)
    client = new_client(verify=str(ca.pem))
    n = 12
    assert race(client, server.url("/").replace("http:", "https:"), held, n, lambda: server.accepted == n + 1) == [b"0"] * n
    stats = client.transport.stats()
    assert (stats.dialing, stats.opened, stats.dials) == (4, 1, n + 1)
    handshake.set()
    until(lambda: client.transport.stats().dialing == 0, "the end of the dials")
    stats = client.transport.stats()
    assert (stats.opened, stats.idle, closed(stats)) == (5, 5, {})
    server.wait_for(lambda p: sum(c.closed.is_set() for c in p.conns) == n - 4, "the end of those given up")


@pytest.mark.parametrize("taken", [False, True])
def test_a_handler_that_raises_while_a_dial_is_handed_to_a_helper(peer: MakePeer, taken: bool) -> None:
    """Before a helper has it, the dial is given up, and counts no more; afterwards it is finished and pooled."""
    held, go_on = threading.Event(), threading.Event()
    server = peer(held_until(held))
    lookups: list[str] = []

    class Interrupted(Transport):
        def adopt(self, dial: Any, home: Any) -> None:
            if taken:
                super().adopt(dial, home)
            raise KeyboardInterrupt

    def resolver(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
        lookups.append(host)
        if len(lookups) == 2:
            go_on.wait(PATIENCE)
        return [address(server.host, server.port)]

    with Interrupted(resolver=resolver, dns_cache_ttl=0) as transport, Client(transport=transport) as client:
        first = threading.Thread(target=lambda: client.get("http://races.test/held"))
        first.start()
        until(lambda: transport.stats().active == 1)
        bell = threading.Thread(target=lambda: (until(lambda: len(lookups) == 2), held.set()))
        bell.start()
        with pytest.raises(KeyboardInterrupt):
            client.get("http://races.test/next")
        for t in (first, bell):
            t.join(PATIENCE)
            assert not t.is_alive()
        stats = transport.stats()
        assert (stats.dialing, stats.active, stats.idle) == (int(taken), 0, 1)
        go_on.set()
        until(lambda: transport.stats().dialing == 0, "the end of the dial")
        until(lambda: transport.stats().opened == 1 + taken, "its being pooled")
        assert client.get("http://races.test/").content == (b"1" if taken else b"0")


def test_losers_whose_filter_raises_take_no_helper_with_them(peer: MakePeer, new_client: MakeClient) -> None:
    """More often than a host may have helpers."""
    held, go_on, known = threading.Event(), threading.Event(), threading.Event()
    server = peer(held_until(held))
    lookups: list[str] = []

    def allow(ip: str, port: int) -> bool:
        if ip == "127.0.0.2":
            raise LookupError("mine")
        return True

    def resolver(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
        lookups.append(host)
        if not known.is_set():
            return [address(server.host, server.port)]
        go_on.wait(PATIENCE)
        return [address("127.0.0.2", 1)]

    client = new_client(resolver=resolver, dns_cache_ttl=0, connect_filter=allow)
    for n in range(6):
        held.clear()
        go_on.clear()
        if n == 0:
            client.get("http://races.test/")
            known.set()
        assert race(client, "http://races.test/", held, 1, lambda n=n: len(lookups) == n + 2) == [b"0"]
        assert client.transport.stats().dialing == 1
        go_on.set()
        until(lambda: client.transport.stats().dialing == 0, "the end of the dial")
    stats = client.transport.stats()
    assert (stats.dials, stats.opened) == (7, 1)
    with pytest.raises(LookupError, match="mine"):
        anew(client, "http://races.test/")


# --- answers that are dropped ---

def test_a_handshake_that_fails_drops_the_answer(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    """The address may be another server's by now."""
    wrong = peer(lambda conn, i: conn.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
    right = peer(HERE, tls=ca.server())
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
        lookups.append(host)
        return [address("127.0.0.1", wrong.port if len(lookups) == 1 else right.port)]

    client = new_client(resolver=resolver, verify=str(ca.pem), server_hostname="127.0.0.1")
    with pytest.raises(TLSError, match="plain HTTP"):
        client.get("https://moves.test/")
    assert client.get("https://moves.test/").content == b"here"
    assert anew(client, "https://moves.test/") == b"here"
    assert len(lookups) == 2
