class Stream:
    exc: BaseException | None
