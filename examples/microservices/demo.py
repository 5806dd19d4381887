"""Three HTTPS microservices that take 50 ms each, an aggregator that calls them for every request, a hundred times a second.

    python -m examples.microservices [--seconds 10] [--rate 100]

Runs the load twice, with kept connections and with `disable_keep_alives=True`, and shows both side by side. Everything runs on
127.0.0.1, each part in a process of its own; the certificate authority is made on the fly. Ends by itself, or by Ctrl-C.
"""
from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from examples.microservices.children import Child
from examples.microservices.load import Load
from examples.microservices.screen import Run, Screen, conclusion

SERVICES = ("users", "orders", "prices")
EVERY = 0.2          # seconds between two looks


class Interrupted(BaseException):
    """By a signal, whose number it carries."""


def _interrupt(number: int, frame: object) -> None:
    # Once is enough: what a second one would interrupt is the clearing up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted(number)


def certificates(directory: Path) -> None:
    """An authority (`ca.pem`), and for each service a chain and a key."""
    import trustme

    ca = trustme.CA()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    for name in SERVICES:
        leaf = ca.issue_cert(f"{name}.internal")
        (directory / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(directory / f"{name}.key")


@contextmanager
def running(*commands: tuple[str, ...]) -> Iterator[list[Child]]:
    """The children, listening; stopped at the end."""
    with ExitStack() as stack:
        children = []
        for command in commands:
            children.append(Child(*command))
            stack.callback(children[-1].stop)
        yield [child.started() for child in children]


def measure(run: Run, screen: Screen, services: list[Child], aggregator: Child, rate: float, seconds: float) -> None:
    """One load from beginning to end; `run` and the screen follow it."""
    before = [child.facts() for child in services]
    cpu = aggregator.facts()["cpu"]
    load = Load(f"http://127.0.0.1:{aggregator.port}", rate, seconds)
    run.started = True
    try:
        while True:
            ended = not load.running
            now, facts = aggregator.facts(), [child.facts() for child in services]
            run.seconds = time.monotonic() - load.began
            run.requests, run.errors = load.answered, load.errors
            run.p50, run.p99 = load.percentile(0.50), load.percentile(0.99)
            run.open, run.dials, run.reuses, run.descriptors = now["open"], now["dials"], now["reuses"], now["descriptors"]
            run.most_open, run.most_descriptors = max(run.most_open, run.open), max(run.most_descriptors, run.descriptors)
            run.cpu = now["cpu"] - cpu
            run.calls = sum(f["requests"] - b["requests"] for f, b in zip(facts, before, strict=True))
            run.handshakes = sum(f["handshakes"] - b["handshakes"] for f, b in zip(facts, before, strict=True))
            screen.show(run)
            if ended:
                break
            time.sleep(EVERY)
        if load.errors:
            print(f"{load.errors} requests failed; the first: {load.first_error}", file=sys.stderr)
    finally:
        load.stop()


def say(text: str) -> None:
    print("\n".join(textwrap.fill(line, 78, break_on_hyphens=False) for line in text.split("\n")), flush=True)


def demo(rate: float, seconds: float) -> int:
    runs = [Run("kept connections"), Run("disable_keep_alives")]
    say(f"Three HTTPS services that take 50 ms each; an aggregator that calls all three for every request, {rate:g} times a second.\n")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pooledhttp-")))
        certificates(directory)
        services = stack.enter_context(running(*(("service", name, str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
                                                 for name in SERVICES)))
        screen = Screen(runs, seconds)
        stack.callback(screen.close)
        where = [f"{name}={child.port}" for name, child in zip(SERVICES, services, strict=True)]
        for run, options in zip(runs, ([], ["--disable-keep-alives"]), strict=True):
            with running(("aggregator", str(directory / "ca.pem"), *where, *options)) as (aggregator,):
                measure(run, screen, services, aggregator, rate, seconds)
        screen.finish()
    say("\n" + conclusion(*runs))
    return 1 if any(run.errors for run in runs) else 0


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m examples.microservices", description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--seconds", type=float, default=float(os.environ.get("DURATION") or 10),
                           help="of each of the two runs (default: $DURATION or 10)")
    arguments.add_argument("--rate", type=float, default=100.0, help="aggregated requests a second (default: 100)")
    options = arguments.parse_args()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return demo(options.rate, options.seconds)
    except Interrupted as why:
        print("\ninterrupted", file=sys.stderr)
        return 128 + int(why.args[0])
