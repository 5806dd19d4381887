"""Runs a server and sees that nothing of it is left: `python -I -S keeper.py PARENT COMMAND...`.

Whatever the server forks, also what has left its process group, stays below this process, which is its reaper. All of it is killed when this process is told to
end, and when its parent dies however it dies. Other signals go to the server, and after its end to what took over from it; with the last of them this
process ends.
"""
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENDING = {signal.SIGTERM, signal.SIGINT}
FORWARDED = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT}
WATCHED = ENDING | FORWARDED | {signal.SIGCHLD}


def below() -> list[int]:
    """The processes whose parent is this one, or came to be by their own's end."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def kill_all() -> None:
    """Killed and reaped, the orphans that this makes too."""
    while True:
        for pid in below():
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def keep(parent: int, command: list[str]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_CHILD_SUBREAPER, 1), (PR_SET_PDEATHSIG, int(signal.SIGTERM))):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    if os.getppid() != parent:                # it died before we asked to be told
        return 1
    server = os.posix_spawnp(command[0], command, os.environ, setsigmask=(), setsigdef=WATCHED)
    code = 0
    while True:
        came = signal.sigwait(WATCHED)
        if came in ENDING:
            kill_all()
            return 0
        if came in FORWARDED:
            os.kill(server, came)
        if came == signal.SIGCHLD:
            while left := below():
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == server:
                    code = os.waitstatus_to_exitcode(status) & 0xff
                    server = min(below(), default=0)
            if not left:
                return code


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), sys.argv[2:]))
