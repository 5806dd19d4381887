from typing import Any

class Canceller:
    reason: Any
    drains: bool
    def cancel(self, reason: Any = None) -> None: ...
    @property
    def cancelled(self) -> bool: ...
