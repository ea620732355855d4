"""A script: `die_with_parent.py PARENT COMMAND…` becomes COMMAND, which the kernel kills when PARENT dies.

`kill -9` of `warmwire up` must leave nothing behind. The death signal follows the thread that started us, so
a supervisor starts its children from its main thread. Only Linux has such a signal: elsewhere a killed
supervisor leaves its children, and an orderly stop is what ends them.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it died before the line above: nobody would kill us
            os._exit(1)
    os.execv(command[0], command)  # noqa: S606 - an exec of ourselves, not a start of something else


if __name__ == "__main__":
    main()
