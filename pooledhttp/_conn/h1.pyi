from typing import Any

from pooledhttp._conn.connection import Connection
from pooledhttp._net.stream import Stream

class H1Connection(Connection):
    def __new__(cls, stream: Stream, info: Any) -> H1Connection: ...

def verdict_of(*, done: bool = True, send_broke: bool = False, leftover: bool = False, asked_close: bool = False, minor: int = 1, conn_close: bool = False,
               conn_keep_alive: bool = False, until_close: bool = False, keep_alive_timeout: int = -1) -> int: ...
def gil_releases() -> int: ...
