"""`python tests/deaf.py PROGRAM ARGUMENT…` becomes PROGRAM, which hears nothing of changes of the network.

Chromium ends every connection, those on loopback too, whenever an address comes or goes; beside a test that
starts containers that is several times a second. It asks the kernel by a netlink socket, and takes the
network for unchanging where it may open none. So a seccomp filter refuses these sockets:
https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import os
import platform
import struct
import sys

SOCKET = {"x86_64": 41, "aarch64": 198}
"""The number of the system call `socket`."""
AF_NETLINK = 16
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
NUMBER, FIRST_ARGUMENT = 0, 16
"""Where `struct seccomp_data` has them."""


def refuse_netlink(socket_call: int) -> None:
    """From now on, in this process and what it starts."""
    instructions = (
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, socket_call),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 0, 1, AF_NETLINK),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in instructions))
    head = struct.pack("@HP", len(instructions), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, MODE_FILTER, head, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    if platform.machine() in SOCKET:
        refuse_netlink(SOCKET[platform.machine()])
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the tests' own program
