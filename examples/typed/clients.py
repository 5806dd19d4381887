"""Clients, requests and responses."""
from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from typing_extensions import assert_type

import pooledhttp
from pooledhttp import URL, Client, ConnInfo, Headers, PoolStats, Request, Response, Transport

API = "https://api.example"


class Shop:
    """What a service's own client looks like: one `Client`, kept for as long as the process."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def items(self, page: int, *, tags: list[str] | None = None) -> list[int]:
        found: list[int] = self._client.get("/items", params={"page": page, "tag": tags}, timeout=2.0).raise_for_status().json()["items"]
        return found

    def order(self, item: int, note: str | None = None) -> str:
        r = self._client.post("/orders", json={"item": item, "note": note}, headers={"Idempotency-Key": "k1", "X-None": None})
        return r.text

    def upload(self, path: str) -> int:
        with open(path, "rb") as file:
            return self._client.put("/dump", content=file, timeout=(1.0, 30.0)).status_code


def look_at(r: Response) -> None:
    assert_type(r.status_code, int)
    assert_type(r.reason, str)
    assert_type(r.headers, Headers)
    assert_type(r.headers["content-type"], str)
    assert_type(r.headers.get_list("set-cookie"), list[str])
    assert_type(r.content, bytes)
    assert_type(r.text, str)
    assert_type(r.url, URL | None)
    assert_type(r.request, Request | None)
    assert_type(r.history, list[Response])
    assert_type(r.elapsed, timedelta)
    assert_type(r.timings, dict[str, float])
    assert_type(r.conn, ConnInfo | None)
    assert_type(r.raise_for_status(), Response)


def by_hand(client: Client, extra: Mapping[str, str]) -> Response:
    request = client.build_request("GET", "/items", headers=extra, params=[("a", 1), ("a", 2)])
    request.headers["X-Later"] = "1"
    return client.send(request, timeout=pooledhttp.Timeout(5, connect=1.0), follow_redirects=False)


def main() -> None:
    with Client(base_url=API, headers={"X-Service": "shop"}, timeout=5.0, max_conns_per_host=8, idle_conn_timeout=30) as client:
        shop = Shop(client)
        assert shop.items(2, tags=["a", "b"]) == [1, 2, 3]
        assert shop.order(7)
        assert shop.upload("dump.bin") == 200
        look_at(by_hand(client, {"X-More": "1"}))
    transport = Transport(max_idle_conns=10, reuse="fifo")
    with Client(transport=transport) as client:
        look_at(client.request("OPTIONS", f"{API}/items"))
    stats = transport.stats()
    assert_type(stats, PoolStats)
    assert_type(stats.closed, dict[str, int])
    transport.close()
    look_at(pooledhttp.get(f"{API}/items"))


if __name__ == "__main__":
    main()
