"""Where this cannot run, importing it says so first of all, and why."""
import sys

if sys.platform not in ("linux", "darwin"):
    raise ImportError(f"pooledhttp runs on Linux and macOS, not on {sys.platform}: it needs poll, Unix sockets and their deadlines in the kernel")
if sys.implementation.name != "cpython":
    raise ImportError(f"pooledhttp is compiled for CPython, and this is {sys.implementation.name}")
try:
    import pooledhttp._core.runtime  # noqa: F401
except ModuleNotFoundError:
    raise
except ImportError as e:
    # CPython says it in one way, Cython in another, and the module itself in a third.
    if "interpreter" not in str(e).lower():
        raise
    raise ImportError("pooledhttp works in a process's main interpreter, not in a subinterpreter: its connections, threads and locks are the process's") from e
