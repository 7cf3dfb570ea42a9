"""A child that dies with its parent: `python -I -S tether.py PARENT_PID PROGRAM ARGS…` becomes PROGRAM.

The kernel sends it SIGTERM as soon as the thread that started it is gone, also after a `kill -9` of the runtime. It is a
program of its own, run between fork and exec, because the runtime holds threads and a Go library: no Python of ours may
run in its forked child. Linux only (prctl).
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to `arguments[0]` (a process id), then replace it by the program in the rest."""
    parent, command = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"tether: prctl failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the tie was made
        sys.exit("tether: the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - an argument list from our own code, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
