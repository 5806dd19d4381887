from typing import Any

from pooledhttp._conn.connection import Connection
from pooledhttp._net.stream import Stream

class H2Role(Connection):
    def __new__(cls, stream: Stream, info: Any, secure: bool, max_head: int, ping_interval: int, ping_timeout: int) -> H2Role: ...

def gil_releases() -> int: ...
