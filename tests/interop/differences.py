"""What the servers of the matrix do differently, as data with reasons. A test asks `of(server, what)`; EXPECTED says what a server does that is not named."""
from __future__ import annotations

from typing import Any

EXPECTED: dict[str, Any] = {
    "methods": ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),       # that /echo answers
    "unchunked": (),                    # of the routes that answer without a length: those that come with one
    "says close": True,                 # an answer to /close bears Connection: close
    "continues": True,                  # answers Expect: 100-continue with an interim 100
    "kept after 403": False,            # serves on after an answer given before the upload's end
}

DIFFERENT: dict[tuple[str, str], tuple[Any, str]] = {
    ("gunicorn", "says close"): (False, "an application's Connection field is dropped: it is the server's to set"),
}


def of(server: str, what: str) -> Any:
    return DIFFERENT.get((server, what), (EXPECTED[what],))[0]


