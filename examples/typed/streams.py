"""Bodies as streams, both ways."""
from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import assert_type

from pooledhttp import Client, Response

API = "https://api.example"


def numbers(client: Client) -> Iterator[str]:
    """Lines as they arrive."""
    with client.stream("GET", f"{API}/stream", timeout=(1.0, 60.0)) as r:
        assert_type(r, Response)
        yield from r.iter_lines()


def download(client: Client, buffer: bytearray) -> int:
    """Into memory that is there already."""
    size = 0
    with client.stream("GET", f"{API}/bytes/100000") as r:
        while n := r.readinto(memoryview(buffer)):
            size += n
    return size


def pieces() -> Iterator[bytes]:
    yield b"a"
    yield b"b"


def main() -> None:
    with Client(max_response_bytes=1 << 20) as client:
        assert len(list(numbers(client))) == 5
        assert download(client, bytearray(4096)) == 100_000
        r = client.post(f"{API}/up", content=pieces())
        assert r.json()["body"] == "ab"
        streamed = client.get(f"{API}/bytes/10", stream=True)
        for chunk in streamed.iter_bytes(3):
            assert_type(chunk, bytes)
        for text in client.get(f"{API}/items").iter_text():
            assert_type(text, str)


if __name__ == "__main__":
    main()
