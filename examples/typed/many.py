"""Many requests at once."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from typing_extensions import assert_type

from pooledhttp import Client, Request, Response

URLS = [f"https://api.example/items/{n}" for n in range(20)]


def report(done: int, total: int | None) -> None:
    assert total is None or done <= total


def main() -> None:
    with Client(timeout=5.0) as client:
        for r in client.map(URLS, workers=4, progress=report):
            assert_type(r, Response)
        failed = 0
        for either in client.as_completed([*URLS, "https://api.example/status/500"], return_exceptions=True):
            assert_type(either, Response | Exception)
            failed += isinstance(either, Exception) or not either.ok
        assert failed == 1
        with ThreadPoolExecutor(2) as executor:
            mixed: list[str | Request | tuple[str, str]] = [URLS[0], Request("HEAD", URLS[1]), ("OPTIONS", URLS[2])]
            assert [r.status_code for r in client.map(mixed, executor=executor)] == [200, 200, 200]


if __name__ == "__main__":
    main()
