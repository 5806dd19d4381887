"""A getaddrinfo in front of libc's (LD_PRELOAD) that counts, and hangs where it is told to: names as in `nameserver`.

`build(directory)` compiles it; in a process that was started with it, `Interposed()` is its face.
"""
from __future__ import annotations

import os
import subprocess
import threading
from collections import Counter
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void until_closed(const char *pipe) {
    char c;
    while (read(atoi(getenv(pipe)), &c, 1) != 0) { }
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    size_t n = node ? strlen(node) : 0;
    if (n > 5 && strcmp(node + n - 5, ".test") == 0) {
        struct iovec line[2] = {{(void *)node, n}, {"\n", 1}};
        if (writev(atoi(getenv("INTERPOSED_LOG")), line, 2) < 0) abort();
        if (strncmp(node, "hangs", 5) == 0) until_closed("INTERPOSED_NEVER");
        if (strncmp(node, "held", 4) == 0) until_closed("INTERPOSED_GATE");
        node = "127.0.0.1";
    }
    return real(node, service, hints, res);
}
"""


def build(directory: Path) -> Path:
    source, library = directory / "interposed.c", directory / "interposed.so"
    source.write_text(SOURCE)
    subprocess.run(["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    return library


class Interposed:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._asked: Counter[str] = Counter()
        log, os.environ["INTERPOSED_LOG"] = self._pipe()
        os.environ["INTERPOSED_NEVER"], self._never = map(str, os.pipe())
        os.environ["INTERPOSED_GATE"] = str((gate := os.pipe())[0])
        self._gate = gate[1]
        threading.Thread(target=self._count, args=(log,), name="interposed", daemon=True).start()

    @staticmethod
    def _pipe() -> tuple[int, str]:
        r, w = os.pipe()
        return r, str(w)

    def calls(self, name: str) -> int:
        """How many calls of getaddrinfo for `name` have begun."""
        return self._asked[name]

    def release(self) -> None:
        """Let the held ones go on, and hold no more."""
        os.close(self._gate)

    def _count(self, log: int) -> None:
        with open(log) as lines:
            for line in lines:
                with self.changed:
                    self._asked[line.strip()] += 1
                    self.changed.notify_all()
