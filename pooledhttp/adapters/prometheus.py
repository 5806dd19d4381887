"""What transports count, for Prometheus: `PoolCollector().add("backend", client)`.

https://prometheus.io/docs/instrumenting/writing_clientlibs/, https://prometheus.github.io/client_python/collector/custom/
"""
from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

try:
    from prometheus_client.core import REGISTRY, CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as e:
    raise ImportError("pooledhttp.adapters.prometheus needs prometheus_client: pip install 'pooledhttp[prometheus]'") from e

from pooledhttp._pool.stats import CLOSE_REASONS, HostStats, PoolStats
from pooledhttp.renewed import renewed

OTHERS = "(others)"            # as the statistics themselves call the hosts that they keep no row for
_COUNTERS = {
    "requests": "Exchanges that were begun, tries and redirects counted one by one.",
    "dials": "Connections that were tried to be made.",
    "opened": "Connections that were made.",
    "reuses": "Times that a pooled connection was taken.",
    "waits": "Requests that waited for a connection because of max_conns_per_host.",
    "wait_seconds": "How long they waited, in seconds.",
    "retries": "Requests sent again.",
    "leaked": "Streamed responses that were collected unclosed.",
}
_CLOSED = "Connections that were closed, by reason."


class _Row:
    """Counters of one host, or of several."""

    __slots__ = ("values",)

    def __init__(self, stats: HostStats | None = None) -> None:
        self.values: dict[str, float] = dict.fromkeys((*_COUNTERS, *CLOSE_REASONS), 0)
        if stats is not None:
            self.values.update({name: getattr(stats, name) for name in _COUNTERS})
            self.values.update(stats.closed)

    def add(self, other: _Row, times: int = 1) -> None:
        for name, value in other.values.items():
            self.values[name] = round(self.values[name] + times * value, 9)          # seconds are floats: what adds up to no more may not seem to be less


class _Watched:
    """A transport, and which of its hosts have a label: the first ones that came, for good, so that no counter ever goes back."""

    def __init__(self, transport: Any, hosts: int) -> None:
        self.transport = weakref.ref(transport)
        self.limit = hosts
        self.last: dict[str, _Row] = {}          # of a host with a label: what it has counted since the transport last forgot it
        self.before: dict[str, _Row] = {}        # and before

    def rows(self, stats: PoolStats) -> Iterator[tuple[str, HostStats | None, _Row]]:
        """(label, its gauges, its counters); the counters of all of them add up to the transport's."""
        rest = _Row(stats)
        quiet = HostStats()
        quiet._add(stats)
        for key in stats.hosts:
            if key != OTHERS and key not in self.last and len(self.last) < self.limit:
                self.last[key] = _Row()
                self.before[key] = _Row()
        for key, seen in self.last.items():
            host_now = stats.hosts.get(key)
            row = _Row(host_now)
            if any(row.values[name] < value for name, value in seen.values.items()):
                self.before[key].add(seen)       # the transport folded it into "(others)", and began anew
            self.last[key] = row
            shown = _Row()
            shown.add(self.before[key])
            shown.add(row)
            rest.add(shown, -1)
            if host_now is not None:
                for name in ("idle", "active", "dialing", "waiting"):
                    setattr(quiet, name, getattr(quiet, name) - getattr(host_now, name))
            yield key, host_now, shown
        yield OTHERS, quiet, rest


class PoolCollector(Collector):
    """A collector over `stats()` of transports, registered with `registry` (None: with none, it is to be done by hand).

    `pooledhttp_connections{transport, host, state}`, `..._dialing`, `..._waiting` are gauges; `..._requests_total`, `..._dials_total` and so on counters,
    and `..._connections_closed_total{reason}`. The first `hosts` pool keys of a transport have a label `host` of their own, all others share
    "(others)"; the sum over `host` is the transport's. Nothing is counted by requests for it: the work is done when it is scraped.
    """

    def __init__(self, *, hosts: int = 50, registry: CollectorRegistry | None = REGISTRY) -> None:
        if isinstance(hosts, bool) or not isinstance(hosts, int) or hosts < 0:
            raise ValueError(f"hosts is a number of pool keys, not {hosts!r}")
        self._hosts = hosts
        self._lock = renewed(self)
        self._watched: dict[str, _Watched] = {}
        if registry is not None:
            registry.register(self)

    def add(self, name: str, transport: Any) -> PoolCollector:
        """Watch a `Transport`, or a `Client`'s, as long as it lives; `name` is its label `transport`. ValueError where another has that name."""
        target = getattr(transport, "transport", transport)
        if not callable(getattr(target, "stats", None)):
            raise TypeError(f"{type(transport).__name__} has no stats()")
        with self._lock:
            held = self._watched.get(name)
            there = None if held is None else held.transport()
            if there is not None and there is not target:
                raise ValueError(f"another transport has the name {name!r}")
            if there is None:
                self._watched[name] = _Watched(target, self._hosts)
        return self

    def remove(self, name: str) -> None:
        """Watch it no longer. KeyError for a name that is not there."""
        with self._lock:
            del self._watched[name]

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values: a registry asks when it is told of the collector."""
        return self._families().values()

    @staticmethod
    def _families() -> dict[str, Any]:
        labels = ("transport", "host")
        families: dict[str, Any] = {
            "connections": GaugeMetricFamily("pooledhttp_connections", "Open connections, by state.", labels=(*labels, "state")),
            "dialing": GaugeMetricFamily("pooledhttp_dialing", "Connections being made.", labels=labels),
            "waiting": GaugeMetricFamily("pooledhttp_waiting", "Requests that wait for a connection.", labels=labels),
            "closed": CounterMetricFamily("pooledhttp_connections_closed", _CLOSED, labels=(*labels, "reason")),
        }
        for name, what in _COUNTERS.items():
            families[name] = CounterMetricFamily(f"pooledhttp_{name}", what, labels=labels)
        return families

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        families = self._families()
        with self._lock:
            for name, watched in list(self._watched.items()):
                transport = watched.transport()
                if transport is None:
                    del self._watched[name]
                    continue
                for host, now, counts in watched.rows(transport.stats()):
                    if now is not None:
                        for state in ("idle", "active"):
                            families["connections"].add_metric((name, host, state), getattr(now, state))
                        families["dialing"].add_metric((name, host), now.dialing)
                        families["waiting"].add_metric((name, host), now.waiting)
                    for counter in _COUNTERS:
                        families[counter].add_metric((name, host), counts.values[counter])
                    for reason in CLOSE_REASONS:
                        families["closed"].add_metric((name, host, reason), counts.values[reason])
        return families.values()
