"""The tests of requests and httpx themselves, run over our adapters: `make upstream-suites`."""
