"""Many threads at once, where connecting is slow."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.probes.base import Best, Column, Hand, Options, Outcome, Probe, Round
from bench.scenarios import LIMIT, Scenario
from bench.servers import Servers

THREADS, EACH, SILENCE = 64, 4, 50.0


class Spike(Probe):
    """A client without a connection, so many threads that begin at one moment, and a TLS server that lets each new connection wait."""
    name = "spike"
    title = f"{THREADS} threads at once, {EACH} requests each, TLS, no connection yet; the server lets each new one wait {SILENCE:.0f} ms"
    columns = (Column("first_ms", "ms to the first answer (median thread)"), Column("last_ms", "ms to the last answer"),
               Column("connections", "connections opened", digits=0))
    goals = (Best("last_ms", "a spike is over as soon as with the best peer"),)
    most = 5
    about = 1.2
    aside = {LIMIT: "it has no pool"}

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        scenario = Scenario("spike", "", tls=True, threads=THREADS)
        with servers.serving(scenario, None) as straight, servers.slow(straight, SILENCE) as (url, taken):
            def measure(client: str, outcome: Outcome) -> dict[str, float]:
                with Hand(client, scenario, url, str(servers.certificate.ca)) as hand:
                    outcome.version = hand.version
                    before = taken()
                    got = hand.do("spike", threads=THREADS, each=EACH)
                    return {**got, "connections": taken() - before}

            yield measure
