"""What annotations take from `typing`, for type checkers only: at run time nobody reads them, and `import typing` takes as long as all our modules."""
from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypeAlias as TypeAlias
    from typing import overload as overload
else:
    Any = NoReturn = TypeAlias = None
    Protocol = object

    def overload(function):
        """Nothing: what is defined last counts."""
        return function
