"""What users write themselves: authentication, hooks, transports, filters."""
from __future__ import annotations

from collections.abc import Generator

from typing_extensions import assert_type

import pooledhttp
from pooledhttp import Auth, BasicAuth, Client, Context, DigestAuth, MockTransport, Request, Response, Timeout, Transport

API = "https://api.example"


class Token(Auth):
    """Fetches a token where a request was refused."""

    requires_response_body = True

    def __init__(self) -> None:
        self.token = ""

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401:
            fresh = yield Request("POST", f"{API}/token")
            self.token = fresh.json()["method"]
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


class Counting:
    """A transport is whatever has `round_trip`."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.count = 0

    def round_trip(self, request: Request, *, timeout: Timeout | None = None, context: Context | None = None) -> Response:
        self.count += 1
        response: Response = self.inner.round_trip(request, timeout=timeout, context=context)
        return response

    def close(self) -> None:
        self.inner.close()


def signed(request: Request) -> Request:
    request.headers["X-Signed"] = "yes"
    return request


def not_private(ip: str, port: int) -> bool:
    return not ip.startswith("10.")


def answer(request: Request) -> Response:
    return Response(201, headers={"X-Path": request.url.path}, content=b"{}", request=request)


def main() -> None:
    seen: list[int] = []

    def note(response: Response) -> None:
        seen.append(response.status_code)

    with Client(connect_filter=not_private, auth=signed, event_hooks={"response": [note]}) as client:
        assert client.get(f"{API}/items").json()["headers"]["X-Signed"] == "yes"
        assert client.get(f"{API}/private", auth=Token()).history != []
        assert client.get(f"{API}/private", auth=BasicAuth("ada", "secret")).ok
        assert client.get(f"{API}/private", auth=("ada", "secret")).ok
        assert client.get(f"{API}/digest", auth=DigestAuth("ada", "secret")).ok
    assert seen[0] == 200
    counting = Counting(Transport())
    with Client(transport=counting, mounts={"https://mock.": MockTransport(answer)}) as client:
        assert client.get("http://api.example/items").ok
        assert client.get("https://mock.example/x").headers["x-path"] == "/x"
    counting.close()
    assert counting.count == 1
    assert_type(pooledhttp.features(), dict[str, str | bool])


if __name__ == "__main__":
    main()
