"""A run over HTTP/2 (`pytest --http2`): transports speak it unless a test says otherwise, the scripted servers do by `front`.

What is of HTTP/1.1 itself is left out, by name and with the reason; everything else must hold.
"""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledhttp import Transport
from tests.support import front

# Where the client's own suite is. The rest is of HTTP/1.1's parser and writer, of parts below, or of tools; real servers have `interop/test_h2`.
SUITE = ("adapters", "api", "attack", "deadlines", "examples", "exchange", "metrics")

BYTES = "HTTP/1.1's own bytes: framing, the case of names, what a phrase says"
COUNTS = "counts connections where HTTP/1.1 must close or open one, and HTTP/2 resets or opens a stream"
RAW = "looks at a connection's socket, which is the front's here"
OWN = "of HTTP/1.1's own ways: pipelined junk, a switch of protocols, half-closed connections"
PROXY = "what a proxy that forwards is asked: always by HTTP/1.1"

LEFT_OUT: dict[str, dict[str, str]] = {
    BYTES: {
        "adapters/test_requests.py": "test_the_head_as_requests_prepared_it test_the_head_as_the_server_sent_it test_a_chunked_body_as_it_arrives",
        "adapters/test_requests_errors.py": "test_what_servers_do_wrong",
        "api/test_pickles.py": "test_a_response_from_the_wire test_trailers_and_streams",
        "api/test_response.py": "test_what_a_response_knows_of_its_exchange",
        "exchange/test_bad_input.py": "*",
        "exchange/test_framing.py": "*",
        "exchange/test_header_tables.py": "*",
    },
    COUNTS: {
        "adapters/test_requests.py": "test_a_response_that_nobody_reads_frees_its_connection",
        "adapters/test_requests_errors.py": "test_what_a_body_raises",
        "api/test_auth_flow.py": "test_one_connection",
        "api/test_fanout.py": "test_streams_that_nobody_sees_are_closed",
        "api/test_redirects.py": "test_bodies_of_redirects test_a_stalled_body_of_a_redirect_does_not_pass_the_deadline",
        "exchange/test_drain.py": "*",
        "exchange/test_spike.py": "*",
    },
    RAW: {
        "adapters/test_requests_tls.py": "test_client_certificates",
    },
}


def begin() -> None:
    front.ON = True
    assert Transport.__init__.__kwdefaults__ is not None
    Transport.__init__.__kwdefaults__["http2"] = "prior-knowledge"


def left_out() -> Iterator[tuple[str, str, str]]:
    """(file, test, reason)."""
    for reason, files in LEFT_OUT.items():
        for file, tests in files.items():
            for test in tests.split():
                yield file, test, reason


def choose(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """What is run, and what is left out."""
    out = {(file, test) for file, test, _ in left_out()}
    run: list[pytest.Item] = []
    rest: list[pytest.Item] = []
    for item in items:
        where = "/".join(item.path.parts[-2:])
        test = item.name.partition("[")[0]
        fits = item.path.parts[-2] in SUITE and not {(where, test), (where, item.name), (where, "*")} & out
        (run if fits else rest).append(item)
    return run, rest
