from typing import Any

class Host:
    key: str
    dial_spec: Any
    def __new__(cls, key: str) -> Host: ...

class PoolCore:
    watched: bool

def live() -> dict[str, int]: ...
def gil_releases() -> int: ...
