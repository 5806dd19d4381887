"""The clients, each used as its documentation says is fastest for threads.

`python -m bench --variants` measures the ways of use that are listed against each other; the first of each is what the comparison runs.
"""
from __future__ import annotations

from bench.peers.base import Fetch, Get, Peer, Unable
from bench.peers.compiled import Httpr, Pooledhttp, Primp, Pycurl, Pyreqwest
from bench.peers.pure import HttpClient, Httpx, Niquests, Requests, Urllib3
from bench.scenarios import Task

__all__ = ["PEERS", "Fetch", "Get", "Peer", "Unable", "make", "variants"]

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Pooledhttp, Pyreqwest, Pycurl, Httpr, Primp, Urllib3, HttpClient, Requests, Httpx, Niquests)}


def make(client: str, task: Task) -> Peer:
    """`client`: a peer's name, or name/variant."""
    name, _, variant = client.partition("/")
    if name not in PEERS or variant not in PEERS[name].variants:
        raise LookupError(f"there is no client {client!r}")
    return PEERS[name](task, variant)


def variants() -> list[str]:
    return [f"{name}/{v}".rstrip("/") for name, peer in PEERS.items() if len(peer.variants) > 1 for v in peer.variants]
