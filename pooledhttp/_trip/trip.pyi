from typing import Any

from pooledhttp._core.cancel import Canceller
from pooledhttp._core.limits import Limits
from pooledhttp._net.stream import Stream
from pooledhttp._pool.pool import Host, Pool
from pooledhttp._trip.reply import Reply

class Tripper:
    pool: Pool
    def __init__(self, pool: Pool, *, max_head: int = ..., retry_stale: bool = True, close_each: bool = False,
                 as_is: bool = False, expect: int = 1000000000) -> None: ...
    def exchange(self, key: str, host: str, port: int, method: bytes, target: bytes, authority: bytes, fields: bytes, body: Any, limits: Limits,
                 deadline: int, source: str, flags: int, max_body: int, cancel: Canceller | None) -> Reply: ...
    def count_retry(self, key: str) -> None: ...
    def adopted(self, home: Host, stream: Stream | None, dial: Any) -> None: ...

def gil_releases() -> int: ...
