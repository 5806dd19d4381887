"""Signals whose handlers return: they run while the main thread waits, and it waits on with what remains, neither longer nor shorter."""
from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Client
from tests.deadlines.runs import CASES, ERROR, Case, Outcome, lateness, pieces, stage
from tests.deadlines.stalls import SMALL_BUFFER
from tests.exchange.support import until
from tests.signals.phases import Bell, new_run, shown
from tests.support.ca import Authority
from tests.support.peer import PATIENCE, Conn, Peer, chunked, respond

EVERY = 0.02
SECONDS = 0.25
LATE = 0.05
HEARD = 4                      # handlers' runs in a wait of SECONDS; where another thread is given the signal they wait for a slice's end

# All limits where a request stalls; over TLS those where it waits in another way.
ENDS = [case for case in CASES if case.how not in ("map", "read", "readinto")
        and not (case.tls and (case.where in ("chunked", "until-close", "folded", "folded-head") or case.limit == "response_header"))]


@pytest.fixture(params=["main", "other"])
def heard(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """A signal every 20 ms, which the main thread is given, or another one; what the handler heard."""
    seen: list[int] = []
    number = signal.SIGALRM if request.param == "main" else signal.SIGUSR1
    before = signal.signal(number, lambda number, frame: seen.append(number))
    try:
        if request.param == "main":
            signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
            yield seen
        else:
            with Bell(lambda: True, lambda: signal.pthread_kill(threading.get_ident(), number), every=EVERY, still=False):
                yield seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, before)


@pytest.mark.slow
@pytest.mark.parametrize("case", ENDS, ids=str)
def test_a_limit_ends_it_when_it_should(ca: Authority, heard: list[int], case: Case) -> None:
    late: list[Outcome] = []
    with stage(ca) as place:
        for _ in range(5):
            run = new_run(place, case, SECONDS)
            n = len(heard)
            run.run()
            outcome = run.outcome
            assert outcome.trouble == []
            assert type(outcome.error) is ERROR[case.limit]
            assert getattr(outcome.error, "phase", None) == case.phase
            assert len(heard) - n >= HEARD - 1          # a slice may last longer on a busy machine
            assert outcome.late >= 0, f"{-outcome.late * 1e3:.1f} ms early"
            late.append(outcome)
            # Once, where it was in time; else the median of as many as are needed.
            if len(late) % 2 and lateness(late) < LATE:
                return
    pytest.fail(f"late: {shown([run.late for run in late])}")


def whole(client: Client, url: str) -> bytes:
    return client.get(url).content


def streamed(client: Client, url: str) -> bytes:
    with client.stream("GET", url) as r:
        return b"".join(r.iter_bytes())


def into(client: Client, url: str) -> bytes:
    with client.stream("GET", url) as r:
        buffer, out = bytearray(4096), b""
        while n := r.readinto(buffer):
            out += buffer[:n]
        return out


def mapped(client: Client, url: str) -> bytes:
    (r,) = client.map([url])
    return bytes(r.content)


def sent(client: Client, url: str) -> bytes:
    return client.put(url, content=bytes(4 << 20)).content


def sent_in_pieces(client: Client, url: str) -> bytes:
    return client.put(url, content=pieces(64)).content


BODY = b"0123456789" * 10_000
ANSWERS = {
    "head": (b"", respond(BODY)),
    "body": (respond(BODY)[:5000], respond(BODY)[5000:]),
    "chunked": (respond(headers={"Transfer-Encoding": "chunked"}, length=False) + chunked(BODY)[:5000], chunked(BODY)[5000:]),
}
WAYS = [*((where, call) for where in ANSWERS for call in (whole, streamed, into, mapped)), ("send", sent), ("send", sent_in_pieces),
        ("handshake", whole), ("dns", whole), ("pool", whole)]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("where", "call"), WAYS, ids=[f"{where}-{call.__name__}" for where, call in WAYS])
def test_who_is_answered_in_the_end_never_knows(peer: Callable[..., Peer], new_client: Callable[..., Client], ca: Authority, heard: list[int],
                                                where: str, call: Callable[[Client, str], bytes], secure: bool) -> None:
    asked, goal = threading.Event(), [0]

    def patience() -> None:
        goal[0] = len(heard) + HEARD
        asked.set()
        until(lambda: len(heard) >= goal[0], "the handler's runs", PATIENCE - 1)

    def script(conn: Conn, i: int) -> None:
        if where == "handshake":
            patience()
        if secure:
            conn.start_tls(ca.server())
        while True:
            head = conn.recv_head()
            if where == "send" or (where == "pool" and not asked.is_set()):
                patience()
            conn.recv_body(head)
            if where in ANSWERS:
                conn.send(ANSWERS[where][0])
                patience()
                conn.send(ANSWERS[where][1])
            else:
                conn.send(respond(BODY))

    def resolver(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        if where == "dns":
            patience()
        return [(socket.AF_INET, ("127.0.0.1", port))]

    server = peer(script)
    client = new_client(verify=str(ca.pem), resolver=resolver, socket_options=SMALL_BUFFER, max_conns_per_host=1)
    url = f"{'https' if secure else 'http'}://{'localhost' if where == 'dns' else '127.0.0.1'}:{server.port}/"
    holder = threading.Thread(target=client.get, args=(url,))
    if where == "pool":
        holder.start()
        assert asked.wait(PATIENCE)
    assert call(client, url) == BODY
    assert len(heard) >= goal[0] > 0
    if where == "pool":
        holder.join()
