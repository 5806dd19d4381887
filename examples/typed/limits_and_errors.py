"""Limits of time, contexts, and what is raised."""
from __future__ import annotations

from typing_extensions import assert_type

import pooledhttp
from pooledhttp import Client, ConnInfo, Context, DeadlineExceeded, HTTPStatusError, Retry, Timeout, TimeoutException

API = "https://api.example"


def patient(client: Client, url: str) -> str:
    """What came of it, in a word."""
    try:
        r = client.get(url, timeout=Timeout(total=0.2, connect=0.1), retries=0)
        return r.raise_for_status().reason
    except DeadlineExceeded as e:
        assert_type(e.source, str)
        return f"{e.source}: {e.phase}"
    except TimeoutException as e:
        assert_type(e.phase, str | None)
        return str(e)
    except HTTPStatusError as e:
        status: int = e.response.status_code
        return str(status)
    except pooledhttp.Error as e:
        conn: ConnInfo | None = e.conn
        return f"{e} over {conn}"


def together(client: Client) -> list[int]:
    """All of it within two seconds, or none."""
    with Context.scope(timeout=2.0) as ctx:
        assert_type(ctx, Context)
        assert_type(ctx.remaining(), float | None)
        child = ctx.child(timeout=1.0)
        return [client.get(f"{API}/items", context=child).status_code, client.get(f"{API}/items").status_code]


def main() -> None:
    with Client(retries=Retry(2, backoff=0.01, statuses=[503], methods=["GET"])) as client:
        assert patient(client, f"{API}/slow") == "request: headers"
        assert patient(client, f"{API}/status/404") == "404"
        assert patient(client, f"{API}/items") == "OK"
        assert together(client) == [200, 200]
        assert client.get(f"{API}/flaky/typed").ok


if __name__ == "__main__":
    main()
