from typing import Any

from pooledhttp._core.poolable import Poolable

class FilePiece:
    size: int
    def __new__(cls, descriptor: int, at: int, size: int) -> FilePiece: ...

class Exchange: ...

class Connection(Poolable):
    info: Any
