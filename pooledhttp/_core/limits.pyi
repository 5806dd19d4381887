class Limits:
    total: int
    pool: int
    connect: int
    tls: int
    header: int
    read: int
    write: int
    def __init__(self, total: float | None = None, pool: float | None = None, connect: float | None = None, tls: float | None = None,
                 header: float | None = None, read: float | None = None, write: float | None = None) -> None: ...
