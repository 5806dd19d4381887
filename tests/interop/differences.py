"""What the servers of the matrix do differently, as data with reasons. A test asks `of(server, what)`; EXPECTED says what a server does that is not named."""
from __future__ import annotations

from typing import Any

EXPECTED: dict[str, Any] = {
    "methods": ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),       # that /echo answers
    "may know the length": (),          # bodies under /chunked that may come with their length
    "closes after": (),                 # answers that say Connection: close although nobody asked: "chunked", "HEAD chunked", "204", "304"
    "says close": True,                 # an answer to /close bears Connection: close
    "continues": True,                  # answers Expect: 100-continue with an interim 100
    "keeps": None,                      # so many idle connections at most
}

DIFFERENT: dict[tuple[str, str], tuple[Any, str]] = {
    ("lighttpd", "may know the length"): (("1k",), "gathers what it gets from behind while that is small"),
    ("varnish", "may know the length"): (("1k", "1m"), "gives the length of what it has whole, in its cache or by then"),
    ("h2o", "says close"): (False, "has no directive for it, and what stands behind it does not decide it"),
    ("gunicorn", "says close"): (False, "drops an application's Connection field: it is the server's to set"),
    ("waitress", "says close"): (False, "answers 500 to an application that sets a hop-by-hop field (PEP 3333)"),
    ("waitress", "closes after"): (("chunked", "HEAD chunked", "204", "304"), "ends the connection where an application gives no length"),
    ("cheroot", "closes after"): (("HEAD chunked",), "ends the connection where a HEAD has no length"),
    ("cheroot", "keeps"): (10, "keep_alive_conn_limit: closes what would be more"),
}


def of(server: str, what: str) -> Any:
    return DIFFERENT.get((server, what), (EXPECTED[what],))[0]


