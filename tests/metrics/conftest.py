"""Fixtures: the server of the client's tests."""
from tests.api.conftest import server, session_server

__all__ = ["server", "session_server"]
