"""The same connections under requests and httpx."""
from __future__ import annotations

import httpx
import requests

from pooledhttp import ConnInfo, Transport
from pooledhttp.adapters.httpx import PooledTransport
from pooledhttp.adapters.requests import PooledAdapter

URL = "http://api.example/items"


def main() -> None:
    with Transport(max_idle_conns_per_host=4) as shared:
        with requests.Session() as session:
            session.mount("http://", PooledAdapter(transport=shared))
            assert session.get(URL, timeout=(1.0, 5.0)).status_code == 200
        with httpx.Client(transport=PooledTransport(transport=shared)) as client:
            r = client.get(URL)
            conn: ConnInfo = r.extensions["network_stream"].conn
            assert conn.reused
        assert shared.stats().dials == 1


if __name__ == "__main__":
    main()
