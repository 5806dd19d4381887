from typing import Any

from pooledhttp._core.poolable import Poolable

class Exchange: ...

class Connection(Poolable):
    info: Any
