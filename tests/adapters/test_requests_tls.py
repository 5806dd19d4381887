"""requests over our transport: whom it trusts is each request's affair, and no two of them share a connection."""
from __future__ import annotations

import gc
import hashlib
import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest
import requests
from requests import exceptions

from pooledhttp import Transport
from pooledhttp.adapters import _transports
from pooledhttp.adapters.requests import PooledAdapter
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, answering, respond
from tests.support.pyserver import PyServer


def mounted(adapter: requests.adapters.BaseAdapter) -> requests.Session:
    session = requests.Session()
    session.mount("https://", adapter)
    return session


def test_verify_in_its_forms(session: requests.Session, adapter: PooledAdapter, tls_pyserver: PyServer, ca: Authority) -> None:
    url = tls_pyserver.url("/")
    with pytest.raises(exceptions.SSLError, match="certificate") as caught:
        session.get(url)
    assert caught.value.request is not None
    assert caught.value.request.url == url
    ports = {session.get(url, verify=verify).json()["client"][1] for verify in (str(ca.pem), False, str(ca.pem), False)}
    assert len(ports) == 2                            # each kept its connection, and shared none
    session.verify = str(ca.pem)
    assert session.get(url).json()["client"][1] in ports
    assert [t.stats().open for t in adapter.transports] == [0, 1, 1]
    assert len(adapter.poolmanager.pools) == 3
    with pytest.raises(OSError, match="/no/such"):
        session.get(url, verify="/no/such/file")
    with pytest.raises(OSError, match="/no/such"):
        session.get(url, cert="/no/such/file")


def test_the_environment_is_requests(session: requests.Session, tls_pyserver: PyServer, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.pem))
    assert session.get(tls_pyserver.url("/")).ok
    session.trust_env = False
    with pytest.raises(exceptions.SSLError):
        session.get(tls_pyserver.url("/"))


def test_options_are_what_a_request_leaves_open(tls_pyserver: PyServer, ca: Authority) -> None:
    own = PooledAdapter(verify=str(ca.pem), max_idle_conns=3)
    with mounted(own) as session, Transport(verify=str(ca.pem), max_idle_conns=4) as given:
        assert session.get(tls_pyserver.url("/")).ok
        assert session.get(tls_pyserver.url("/"), verify=False).ok
        assert [t.options["max_idle_conns"] for t in own.transports] == [3, 3]
        adapter = PooledAdapter(transport=given)
        session.mount("https://", adapter)
        assert session.get(tls_pyserver.url("/")).ok
        assert session.get(tls_pyserver.url("/"), verify=False).ok
        assert [t.options["max_idle_conns"] for t in adapter.transports] == [4, 4]
        adapter.close()
        assert adapter.transports == [given]
        assert given.stats().open == 1


def test_client_certificates(ca: Authority) -> None:
    server_side = ca.new_server()
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_verify_locations(str(ca.pem))
    chain, key = ca.issue("client.example")
    both = chain.with_name("both.pem")
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    names: list[Any] = []

    def script(conn: Conn, i: int) -> None:
        assert isinstance(conn.sock, ssl.SSLSocket)
        names.append(dict(conn.sock.getpeercert() or {})["subjectAltName"])
        answering(respond(b"known"))(conn, i)

    with Peer(script, tls=server_side) as server, mounted(PooledAdapter()) as session:
        session.verify = str(ca.pem)
        with pytest.raises(exceptions.ConnectionError):
            session.get(server.url())
        assert session.get(server.url(), cert=(str(chain), str(key))).text == "known"
        session.cert = str(both)
        assert session.get(server.url()).text == "known"
    assert names == [(("DNS", "client.example"),)] * 2


class Pooled(PooledAdapter):
    """As users override it: more keyword arguments for urllib3's pools."""

    def __init__(self, **extra: Any) -> None:
        self.extra = extra
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **{**kwargs, **self.extra})


def test_a_context_of_the_user_s(tls_pyserver: PyServer, ca: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with mounted(Pooled(ssl_context=context)) as session:
        # Its authorities come from requests, as with urllib3.
        r = session.get(tls_pyserver.url("/"), verify=str(ca.pem))
        assert r.raw.conn.tls_version == "TLSv1.2"
        with pytest.raises(ValueError, match="ssl_context that verifies"):
            session.get(tls_pyserver.url("/"), verify=False)
        assert context.verify_mode == ssl.CERT_REQUIRED
    with mounted(PooledAdapter(verify=ca.client())) as session:
        assert session.get(tls_pyserver.url("/")).ok


def test_names_and_pins(ca: Authority) -> None:
    other = ca.server("other.example")
    chain = ca.issue("pinned.example")
    pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pinned.load_cert_chain(*chain)
    leaf = ssl.PEM_cert_to_DER_cert(Path(chain[0]).read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n")
    pin = ":".join(f"{b:02X}" for b in hashlib.sha256(leaf).digest())
    with Peer(answering(respond(b"here")), tls=other) as server, Peer(answering(respond(b"here")), tls=pinned) as second:
        url, verify = server.url(), str(ca.pem)
        with mounted(PooledAdapter()) as session, pytest.raises(exceptions.SSLError, match="127.0.0.1"):
            session.get(url, verify=verify)
        for extra in ({"server_hostname": "other.example"}, {"assert_hostname": "other.example"}, {"assert_hostname": False}):
            with mounted(Pooled(**extra)) as session:
                assert session.get(url, verify=verify).text == "here"
                with pytest.raises(exceptions.SSLError):
                    session.get(url)
        with mounted(Pooled(assert_fingerprint=pin, assert_hostname=False)) as session:
            assert session.get(second.url(), verify=verify).text == "here"
            with pytest.raises(exceptions.SSLError, match="pinned"):
                session.get(url, verify=verify)
        with mounted(Pooled(assert_fingerprint="00" * 20)) as session, pytest.raises(ValueError, match="SHA-256"):
            session.get(url)
    with pytest.raises(TypeError, match="ssl_context"):
        Pooled(ssl_minimum_version=ssl.TLSVersion.TLSv1_2)


def test_transports_are_bounded(tls_pyserver: PyServer, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transports, "KEPT_MAX", 2)
    paths = [tmp_path / f"{i}.pem" for i in range(4)]
    for path in paths:
        path.write_bytes(ca.pem.read_bytes())
    adapter = PooledAdapter()
    with mounted(adapter) as session:
        first = None
        for path in paths:
            assert session.get(tls_pyserver.url("/"), verify=str(path)).ok
            first = first or adapter.transports[1]
        assert len(adapter.transports) == 3
        assert first is not None
        assert first.closed
        assert session.get(tls_pyserver.url("/"), verify=str(paths[0])).ok
    assert [t.stats().open for t in adapter.transports] == [0]


def test_an_evicted_transport_is_made_again(tls_pyserver: PyServer, ca: Authority) -> None:
    transports = _transports.Transports(None, {})
    seen: list[Transport] = []

    def call(transport: Transport) -> str:
        seen.append(transport)
        if len(seen) == 1:
            transports.close()                        # another thread, just before it is used
            raise RuntimeError("the transport is closed")
        return "done"

    assert transports.use({"verify": False}, call) == "done"
    assert seen[0] is not seen[1]
    with pytest.raises(RuntimeError, match="mine"):
        transports.use({}, lambda t: (_ for _ in ()).throw(RuntimeError("mine")))
    transports.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
