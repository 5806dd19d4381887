from typing import Any

from pooledhttp._core.cancel import Canceller
from pooledhttp._core.limits import Limits
from pooledhttp._net.stream import Stream
from pooledhttp._pool.pool import Host, Pool
from pooledhttp._trip.reply import Reply

class Prepared:
    wire: tuple[Any, ...]

class Tripper:
    pool: Pool
    def __init__(self, pool: Pool, *, max_head: int = ..., retry_stale: bool = True, close_each: bool = False) -> None: ...
    def exchange(self, key: str, host: str, port: int, method: bytes, target: bytes, authority: bytes, fields: bytes, body: Any, limits: Limits,
                 deadline: int, source: str, flags: int, max_body: int, cancel: Canceller | None) -> Reply: ...
    def prepare(self, wire: tuple[Any, ...]) -> Prepared: ...
    def exchange_prepared(self, p: Prepared, timing: tuple[Limits, int, str], max_body: int, cancel: Canceller | None) -> Reply: ...
    def adopted(self, home: Host, stream: Stream | None, info: Any) -> None: ...

def gil_releases() -> int: ...
