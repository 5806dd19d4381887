"""The exchange's fixtures serve here too."""
from __future__ import annotations

from tests.exchange.conftest import client, new_client, unix

__all__ = ["client", "new_client", "unix"]
