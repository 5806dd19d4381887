"""What a scrape says of transports, with the real library."""
from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pooledhttp import Client, MockTransport, Response, Transport
from pooledhttp._pool.stats import CLOSE_REASONS, HostStats, PoolStats
from pooledhttp.adapters.prometheus import OTHERS, PoolCollector
from tests.api.server import Server


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def two(server: Server) -> Iterator[tuple[Client, Client]]:
    with Client(max_conns_per_host=4) as one, Client(disable_keep_alives=True) as other:
        yield one, other


def scrape(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """By (sample's name, transport, host, and the state or reason)."""
    return {(sample.name, *(sample.labels[name] for name in ("transport", "host", "state", "reason") if name in sample.labels)): sample.value
            for family in text_string_to_metric_families(generate_latest(registry).decode()) for sample in family.samples}


def test_counters_and_gauges_of_two_transports(registry: CollectorRegistry, two: tuple[Client, Client], server: Server) -> None:
    one, other = two
    PoolCollector(registry=registry).add("one", one).add("other", other.transport)
    for _ in range(3):
        assert one.get(server.url + "/number/1").ok
        assert other.get(server.url + "/number/1").ok
    with one.stream("GET", server.url + "/number/2"):
        got = scrape(registry)
        assert got["pooledhttp_connections", "one", server.url, "active"] == 1
    got = scrape(registry)
    assert {key[3]: v for key, v in got.items() if key[:3] == ("pooledhttp_connections", "one", server.url)} == {"idle": 1, "active": 0}
    assert got["pooledhttp_requests_total", "one", server.url] == 4
    assert got["pooledhttp_opened_total", "one", server.url] == got["pooledhttp_dials_total", "one", server.url] == 1
    assert got["pooledhttp_reuses_total", "one", server.url] == 3
    assert {key[3] for key in got if key[:3] == ("pooledhttp_connections_closed_total", "one", server.url)} == set(CLOSE_REASONS)
    assert got["pooledhttp_connections_closed_total", "other", server.url, "not_reusable"] == 3
    assert got["pooledhttp_connections", "other", server.url, "idle"] == 0
    assert got["pooledhttp_requests_total", "one", OTHERS] == 0
    for name in ("waits", "wait_seconds", "retries", "leaked"):
        assert got[f"pooledhttp_{name}_total", "one", server.url] == 0
    for name in ("dialing", "waiting"):
        assert got[f"pooledhttp_{name}", "one", server.url] == 0


def test_types(registry: CollectorRegistry) -> None:
    PoolCollector(registry=registry)
    text = generate_latest(registry).decode()
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert {name for name, kind in types.items() if kind == "gauge"} == {"pooledhttp_connections", "pooledhttp_dialing", "pooledhttp_waiting"}
    assert all(kind == "counter" for name, kind in types.items() if name.endswith("_total")) and len(types) == 12


class Fake:
    """A transport whose statistics are what the test says."""

    def __init__(self) -> None:
        self.hosts: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def stats(self) -> PoolStats:
        total = PoolStats()
        for key, n in self.hosts.items():
            row = HostStats()
            row.requests = row.opened = n
            row.closed["evicted"] = n
            row.wait_seconds = self.seconds.get(key, 0.0)
            row.idle = 1
            total.hosts[key] = row
            total._add(row)
        return total


def by_host(registry: CollectorRegistry, name: str = "pooledhttp_requests_total") -> dict[str, float]:
    return {key[2]: v for key, v in scrape(registry).items() if key[0] == name}


def test_few_hosts_have_a_label_and_the_sum_is_the_transports(registry: CollectorRegistry) -> None:
    fake = Fake()
    PoolCollector(hosts=2, registry=registry).add("fake", fake)
    fake.hosts = {"http://a:80": 5}
    assert by_host(registry) == {"http://a:80": 5, OTHERS: 0}
    fake.hosts = {"http://b:80": 1, "http://c:80": 2, "http://a:80": 6, OTHERS: 7}
    assert by_host(registry) == {"http://a:80": 6, "http://b:80": 1, OTHERS: 9}
    idle = {key[2]: v for key, v in scrape(registry).items() if key[0] == "pooledhttp_connections" and key[3] == "idle"}
    assert idle == {"http://a:80": 1, "http://b:80": 1, OTHERS: 2}


def test_no_counter_goes_back_where_the_pool_forgets_a_host(registry: CollectorRegistry) -> None:
    fake = Fake()
    PoolCollector(hosts=1, registry=registry).add("fake", fake)
    seen = []
    for hosts in ({"a": 5}, {"b": 1, "a": 6}, {"b": 1, OTHERS: 8}, {"b": 2, OTHERS: 8}, {"a": 1, OTHERS: 10}, {"a": 3, OTHERS: 10}):
        fake.hosts = hosts
        seen.append(by_host(registry))
        assert sum(seen[-1].values()) == sum(hosts.values())
        assert by_host(registry) == seen[-1]                                       # the same, asked again
    assert [row["a"] for row in seen] == [5, 6, 6, 6, 7, 9]
    assert [row[OTHERS] for row in seen] == [0, 1, 3, 4, 4, 4]


def test_seconds_do_not_go_back_by_a_rounding(registry: CollectorRegistry) -> None:
    fake = Fake()
    PoolCollector(hosts=2, registry=registry).add("fake", fake)
    before = 0.0
    for n in range(1, 50):
        fake.hosts = {"a": n, "b": n, "c": 1}
        fake.seconds = {"a": 0.1 * n, "b": 0.7 * n, "c": 0.3}
        rest = by_host(registry, "pooledhttp_wait_seconds_total")[OTHERS]
        assert rest >= before and rest == pytest.approx(0.3)
        before = rest


def test_a_transport_is_watched_as_long_as_it_lives(registry: CollectorRegistry) -> None:
    collector = PoolCollector(registry=registry)
    transport = Transport()
    collector.add("mine", transport)
    collector.add("mine", Client(transport=transport))                             # the same one
    with Transport() as another, pytest.raises(ValueError, match="'mine'"):
        collector.add("mine", another)
    assert ("pooledhttp_requests_total", "mine", OTHERS) in scrape(registry)
    transport.close()
    del transport
    gc.collect()
    assert not any("mine" in key for key in scrape(registry))
    with Transport() as another:
        collector.add("mine", another)
        collector.remove("mine")
        assert not any("mine" in key for key in scrape(registry))
    with pytest.raises(KeyError):
        collector.remove("mine")


def test_mistakes() -> None:
    with pytest.raises(TypeError, match="no stats"):
        PoolCollector(registry=None).add("mock", Client(transport=MockTransport(lambda request: Response(200))))
    with pytest.raises(ValueError, match="hosts"):
        PoolCollector(hosts=-1, registry=None)
