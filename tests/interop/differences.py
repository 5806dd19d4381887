"""What the servers of the matrix do differently, as data with reasons. A test asks `of(server, what, how)`; EXPECTED says what a server does that is not named.

A row of "nginx" is of nginx however it is spoken to, one of "nginx-http2" of HTTP/2, one of "nginx-h1", "nginx-h2c" or "nginx-h2" of that alone.
"""
from __future__ import annotations

from typing import Any

EXPECTED: dict[str, Any] = {
    "methods": ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),       # that /echo answers
    "may know the length": (),          # bodies under /chunked that may come with their length
    "closes after": (),                 # answers that say Connection: close although nobody asked: "chunked", "HEAD chunked", "204", "304"
    "says close": True,                 # an answer to /close bears Connection: close; a GOAWAY goes with it by HTTP/2
    "continues": ("bytes", "file", "pieces"),       # bodies that the server asks for with an interim 100, where Expect: 100-continue says that they wait
    "ends with an upload": frozenset(),      # how a connection of HTTP/2 may end that an error was answered on before the upload's end
    "counts requests": True,            # ends the connection at `few` with the fifth
    "closes what idles": True,          # at `brief`
    "reloads": 5,                       # how often it is told to by HTTP/2; 0 where it cannot without failing what may be repeated
    "moves on": True,                   # takes connections of HTTP/2 that are at work from one worker to the next
    "lacks": (),                        # routes
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
    **{(f"{server}-http2", "says close"): (False, "does no more by HTTP/2 than to leave Connection out")
       for server in ("nginx", "haproxy", "apache", "varnish", "granian", "hypercorn")},
    ("nghttpd", "says close"): (False, "has no directive for it"),
    **{(f"{server}-http2", "continues"): ((), "takes no notice of Expect by HTTP/2") for server in ("nginx", "h2o", "granian", "hypercorn")},
    ("haproxy-http2", "continues"): (("bytes", "file"), "sends none where HTTP/2 does not give the length (2.6)"),
    ("hypercorn-http2", "ends with an upload"): (frozenset({"error", "server_closed"}), "raises a KeyError on what comes of the body then (0.18.0)"),
    ("apache-http2", "counts requests"): (False, "MaxKeepAliveRequests is of HTTP/1.1 alone"),
    ("hypercorn-http2", "counts requests"): (False, "its GOAWAY names a request that it never answers, and the connection stays open (0.18.0)"),
    ("apache-h2c", "closes what idles"): (False, "KeepAliveTimeout is not kept where HTTP/2 is in the clear"),
    ("granian-http2", "closes what idles"): (False, "its only limit is of a head of HTTP/1.1"),
    ("hypercorn-h1", "lacks"): (("/deny",), "reads no other request where the rest of a body came, whole, behind its early answer (0.18.0)"),
    ("nghttpd", "lacks"): (("/echo", "/chunked", "/204", "/deny"), "serves files, and sends back what it is sent"),
    ("h2o", "reloads"): (2, "its master gives the new worker a second before it ends the former"),
    ("granian", "reloads"): (2, "is told to give the new worker two seconds before it ends the former"),
    ("apache", "reloads"): (0, "breaks the connection (GOAWAY -902) where a request crosses its notice of the end, and answers in their midst (2.4.71)"),
    ("hypercorn", "reloads"): (0, "resets streams with NO_ERROR where it should refuse them: nobody knows whether they were processed (0.18.0)"),
    ("varnish", "reloads"): (0, "takes a new configuration into the process that runs: no connection sees it"),
    ("nghttpd", "reloads"): (0, "has one process, and no signal for that"),
    ("nginx-http2", "moves on"): (False, "a worker ends a connection only when that idles for a moment"),
    ("caddy-h2c", "moves on"): (False, "serves it on: net/http's shutdown knows none that was HTTP/2 from its first byte"),
}


def _row(server: str, what: str, how: str) -> tuple[Any, str] | None:
    names = (f"{server}-{how}", server if how == "h1" else f"{server}-http2", server)
    return next((DIFFERENT[name, what] for name in names if (name, what) in DIFFERENT), None)


def of(server: str, what: str, how: str = "h1") -> Any:
    row = _row(server, what, how)
    return EXPECTED[what] if row is None else row[0]


def reason(server: str, what: str, how: str = "h1") -> str:
    row = _row(server, what, how)
    assert row is not None
    return row[1]
