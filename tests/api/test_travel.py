"""Clients in pickles: the configuration travels, no socket does, and those of one configuration share a transport."""
from __future__ import annotations

import copy
import gc
import pickle
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pooledhttp import Client, ConnectError, MockTransport, Request, Response, Timeout, TLSError, Transport, default_client, default_transport, interned
from pooledhttp.interned import _PARKED
from tests.support.processes import spawn_python

from .server import Server


def again(client: Client) -> Client:
    copied = pickle.loads(pickle.dumps(client))
    assert isinstance(copied, Client)
    return copied


def no_address(ip: str, port: int) -> bool:
    return False


def seen(request: Request) -> Response:
    return Response(200, headers={"X-Seen": request.headers.get("x-mine", "-")})


def note(response: Response) -> None:
    response.headers["X-Hooked"] = "yes"


@pytest.fixture(autouse=True)
def _none_is_kept() -> Iterator[None]:
    """What a test parked does not meet the next one."""
    yield
    gc.collect()
    for key in list(interned._entries):
        interned._lease(key, None).close()  # type: ignore[union-attr]
    assert interned._entries == {}


def test_the_environment_is_that_of_where_the_pickle_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(max_conns_per_host=3) as one, Client(max_conns_per_host=4, trust_env=False) as other:
        kept, careless = pickle.dumps(one), pickle.dumps(other)
        monkeypatch.setenv("SSL_CERT_FILE", "/elsewhere.pem")
        with pickle.loads(kept) as two, pickle.loads(careless) as three:
            with pytest.raises(TLSError, match="SSL_CERT_FILE"):
                two.get("https://127.0.0.1:9/")
            with pytest.raises(ConnectError):
                three.get("https://127.0.0.1:9/")


def test_the_whole_configuration_travels(server: Server) -> None:
    with Client(base_url=server.url, headers={"X-One": "1"}, params={"a": 1}, auth=("u", "p"), timeout=Timeout(7, read=3), event_hooks={"response": [note]},
                max_response_bytes=1000, default_encoding="latin-1", max_conns_per_host=3) as one:
        one.headers["X-Two"] = "2"
        one.get("/number/1")                              # a connection, and what is learnt of the URL
        with again(one) as two:
            told = two.get("/echo").json()
            assert told["target"] == "/echo?a=1"
            fields = {name.lower(): value for name, value in told["headers"]}
            assert (fields["x-one"], fields["x-two"], fields["authorization"][:6]) == ("1", "2", "Basic ")
            assert two.get("/number/1").headers["x-hooked"] == "yes"
            assert (two.timeout, two.timeout.read) == (one.timeout, 3)
            two.headers["X-Two"] = "other"                # its own, and what was learnt is forgotten
            assert one.headers["X-Two"] == "2"
            assert ["X-Two", "other"] in two.get("/echo").json()["headers"]
            assert two.transport.stats().opened == 1


def test_those_of_one_configuration_share_a_transport_until_the_last_is_closed(server: Server) -> None:
    with Client(idle_conn_timeout=60) as one, Client(idle_conn_timeout=60) as same, Client(idle_conn_timeout=61) as other:
        a, b, c, d = again(one), again(one), again(same), again(other)
        e = again(a)                                      # also what came out of a pickle travels on
        assert a.transport is b.transport is c.transport is e.transport
        assert len({one.transport, same.transport, a.transport, d.transport}) == 4
        ids = {x.get(server.url + "/number/1").conn.id for x in (a, b, c, e)}  # type: ignore[union-attr]
        assert len(ids) == 1
        transport = a.transport
        for x in (a, b, c):
            x.close()
            x.close()                                     # counts once
            with pytest.raises(RuntimeError, match="closed"):
                x.get(server.url + "/number/1")
        assert not transport.closed
        assert e.get(server.url + "/number/1").conn.reused  # type: ignore[union-attr]
        e.close()
        assert transport.closed
        assert not d.transport.closed
        d.close()
        f = again(one)
        assert f.transport is not transport
        f.close()


def test_a_given_transport_travels_as_its_options(server: Server) -> None:
    with Transport(max_conns_per_host=2, connect_filter=no_address) as transport:
        one, two = again(Client(transport=transport)), again(Client(transport=transport, timeout=5))
        assert one.transport is two.transport is not transport
        with pytest.raises(OSError, match="refused"):
            one.get(server.url + "/number/1")
        one.close()
        two.close()
        assert one.transport.closed


def test_one_that_is_collected_gives_its_share_up_and_the_pool_stays_for_the_next_task(server: Server) -> None:
    with Client(idle_conn_timeout=60) as one:
        first = again(one)
        transport, conn = first.transport, first.get(server.url + "/number/1").conn
        del first
        second = again(one)                               # a task later
        assert second.transport is transport
        assert second.get(server.url + "/number/1").conn.id == conn.id  # type: ignore[union-attr]
        second.close()                                    # the last one: the first is gone
        assert transport.closed


def test_what_nobody_uses_is_kept_in_small_number() -> None:
    transports = []
    for n in range(_PARKED + 5):
        with Client(max_idle_conns=1000 + n) as one:
            transports.append(again(one).transport)
    with Client(max_idle_conns=2000) as one:
        last = again(one)
    assert [t.closed for t in transports] == [True] * 5 + [False] * _PARKED
    last.close()


def test_the_default_transport_is_that_of_the_process() -> None:
    for one in (default_client(), Client(), Client(transport=default_transport())):
        two = again(one)
        assert two.transport is default_transport()
        two.close()
        assert not default_transport().closed


def test_a_closed_transport_is_not_handed_out() -> None:
    with Client(idle_conn_timeout=60) as one:
        a = again(one)
        a.transport.close()
        b = again(one)
        assert not b.transport.closed
        a.close()                                         # does not touch the other's
        assert not b.transport.closed
        b.close()
        assert b.transport.closed


def test_other_transports_travel_as_they_know_how() -> None:
    one = again(Client(transport=MockTransport(seen), headers={"X-Mine": "m"}))
    assert one.get("http://h/").headers["x-seen"] == "m"
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(Client(transport=MockTransport(lambda request: Response(200))))


def test_what_cannot_travel_says_so() -> None:
    with Client(verify=ssl.create_default_context()) as one, pytest.raises(TypeError, match="SSLContext"):
        pickle.dumps(one)
    with pytest.raises(RuntimeError, match="closed"):
        pickle.dumps(one)


class Odd(pickle.Pickler):
    """A pickler that knows more than Python's, as Dask's does."""

    def persistent_id(self, obj: Any) -> Any:
        return "the filter" if callable(obj) and getattr(obj, "__name__", "") == "<lambda>" else None


class OddReader(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return no_address


def test_another_pickler_may_know_how(server: Server) -> None:
    import io

    with Client(connect_filter=lambda ip, port: True) as one:
        read = []
        for _ in range(2):
            file = io.BytesIO()
            Odd(file).dump(one)
            file.seek(0)
            read.append(OddReader(file).load())
        assert read[0].transport is read[1].transport
        for client in read:
            client.close()
        assert read[0].transport.closed


def test_copies_and_subclasses(server: Server) -> None:
    with Client(idle_conn_timeout=60, headers={"A": "b"}) as one:
        for two in (copy.copy(one), copy.deepcopy(one)):
            two.headers["A"] = "c"
            assert one.headers["A"] == "b"
            assert two.get(server.url + "/number/3").content == b"3"
            two.close()
    mine = Mine(note="kept")
    assert again(mine).note == "kept"  # type: ignore[attr-defined]


class Mine(Client):
    def __init__(self, note: str) -> None:
        super().__init__()
        self.note = note


def test_many_threads_unpickle_at_once(server: Server) -> None:
    with Client(idle_conn_timeout=60) as one:
        data = pickle.dumps(one)
        meet = threading.Barrier(8)
        got: list[Client] = []

        def work() -> None:
            meet.wait(10)
            for _ in range(20):
                client = pickle.loads(data)
                got.append(client)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transport = got[0].transport
        assert {client.transport for client in got} == {transport}
        for client in got:
            assert not transport.closed
            client.close()
        assert transport.closed


FORKS = """
import os, pickle, sys
from pooledhttp import Client
data = pickle.dumps(Client(idle_conn_timeout=60))
url = sys.argv[1]
a = pickle.loads(data)
first = a.get(url).conn.id
pid = os.fork()
if pid == 0:
    code = 1
    try:
        b = pickle.loads(data)
        assert b.transport is a.transport
        r = b.get(url, timeout=10)
        assert not r.conn.reused and b.transport.stats().closed["forked"] == 1
        a.close(); b.close()
        assert b.transport.closed
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
assert a.get(url).conn.id == first
a.close()
"""


def test_after_a_fork(server: Server) -> None:
    child = spawn_python("-W", "ignore", "-c", FORKS, server.url + "/number/1")
    assert child.wait(30) == 0
