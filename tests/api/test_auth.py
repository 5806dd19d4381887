"""Authentication: what is sent, and what wins."""
from __future__ import annotations

import pickle
from typing import Any

import pytest

from pooledhttp import BasicAuth, BearerAuth, Client, MockTransport, Request, Response
from pooledhttp.auth import Auth, as_auth

URL = "http://h/"


def sent(url: str = URL, *, client: dict[str, Any] | None = None, **options: Any) -> str | None:
    """The Authorization that a request goes out with."""
    seen = []

    def handler(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        return Response(200)

    Client(transport=MockTransport(handler), **(client or {})).get(url, **options)
    value: str | None = seen[0]
    return value


class Shout(Auth):
    def __call__(self, request: Request) -> Request:
        request.headers["Authorization"] = "Shout " + request.url.path
        return request


CASES = [
    ({}, None),
    ({"auth": ("u", "p")}, "Basic dTpw"),
    ({"auth": BasicAuth("ü", "p:ä")}, "Basic w7w6cDrDpA=="),
    ({"auth": BasicAuth(b"u")}, "Basic dTo="),
    ({"auth": BearerAuth("tok")}, "Bearer tok"),
    ({"auth": Shout()}, "Shout /"),
    ({"auth": lambda r: Request("GET", "http://h/", headers={"Authorization": "Other"})}, "Other"),
    ({"client": {"auth": ("u", "p")}}, "Basic dTpw"),
    ({"client": {"auth": ("u", "p")}, "auth": BearerAuth("x")}, "Bearer x"),
    ({"client": {"auth": ("u", "p")}, "auth": None}, None),
    ({"client": {"auth": ("u", "p")}, "headers": {"Authorization": "Mine"}}, "Basic dTpw"),
    ({"headers": {"Authorization": "Mine"}}, "Mine"),
    ({"client": {"headers": {"Authorization": "Default"}}}, "Default"),
    ({"client": {"headers": {"Authorization": "Default"}}, "headers": {"authorization": None}}, None),
    ({"url": "http://u:p@h/"}, "Basic dTpw"),
    ({"url": "http://u:p@h/", "client": {"headers": {"Authorization": "Default"}}}, "Basic dTpw"),
    ({"url": "http://u:p@h/", "headers": {"Authorization": "Mine"}}, "Mine"),
    ({"url": "http://u:p@h/", "auth": BearerAuth("x")}, "Bearer x"),
    ({"url": "http://u:p@h/", "client": {"auth": BearerAuth("x")}}, "Bearer x"),
]


@pytest.mark.parametrize(("given", "wanted"), CASES)
def test_what_is_sent(given: dict[str, Any], wanted: str | None) -> None:
    assert sent(**given) == wanted


def test_a_request_of_the_users_is_not_changed() -> None:
    request = Request("GET", URL)
    Client(transport=MockTransport(lambda r: Response(200)), auth=BearerAuth("secret"), headers={"X": "1"}).send(request)
    assert request.headers.multi_items() == []


@pytest.mark.parametrize("bad", ["user", ("a", "b", "c"), 5, {"a": "b"}])
def test_wrong_auth(bad: Any) -> None:
    with pytest.raises(TypeError):
        as_auth(bad)
    with pytest.raises(TypeError):
        Client(auth=bad)


def test_an_auth_that_forgets_to_return() -> None:
    with pytest.raises(TypeError, match="returns the request"):
        sent(auth=lambda r: None)


def test_secrets_stay_out_of_repr_and_travel_in_a_pickle() -> None:
    for auth in (BasicAuth("user", "hunter2"), BearerAuth("hunter2")):
        assert "hunter2" not in repr(auth)
        assert "secure" in repr(auth)
        assert pickle.loads(pickle.dumps(auth)) == auth
        assert hash(pickle.loads(pickle.dumps(auth))) == hash(auth)
    assert BasicAuth("a", "b") != BasicAuth("a", "c")
    assert BasicAuth("a") != 1


def test_a_user_with_a_colon() -> None:
    with pytest.raises(ValueError, match="colon"):
        BasicAuth("a:b", "c")
