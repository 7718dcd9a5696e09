"""How many threads a process may have at a time: each new one waits until its supervisor lets it be made.

A limit of the kernel's own (RLIMIT_NPROC, a pids cgroup) does not bind root, or needs what a container has not. See
seccomp_unotify(2).
"""

import errno
import fcntl
import os
import select
import socket
import struct
from contextlib import suppress
from pathlib import Path

MAX_THREADS = 128
RECEIVE, SEND = 0xC050_2100, 0xC018_2101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
NOTIFICATION_BYTES = 80
GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


def count_threads(pid: int) -> int:
    """Threads of the process that a thread belongs to; 0 where it is gone."""
    with suppress(OSError, IndexError):
        return threads_in(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return 0


def threads_in(status: str) -> int:
    """The number of threads in /proc/PID/status."""
    return int(status.partition("\nThreads:")[2].split()[0])


def receive_listener(end: socket.socket) -> int | None:
    """The descriptor on which threads ask; None where the kernel gave the process none."""
    with suppress(OSError):
        _, descriptors, _, _ = socket.recv_fds(end, 1, 1)
        return descriptors[0] if descriptors else None
    return None


def answer(listener: int) -> bool:
    """Let one thread be made, or refuse it as the kernel would; False once nobody is left to ask."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not any(events & select.POLLIN for _, events in poll.poll(0)):
        return False
    question = bytearray(NOTIFICATION_BYTES)
    with suppress(FileNotFoundError):  # whoever asked is gone
        fcntl.ioctl(listener, RECEIVE, question)
        number, pid = struct.unpack_from("QI", question)
        error, flags = (-errno.EAGAIN, 0) if count_threads(pid) >= MAX_THREADS else (0, GO_ON)
        fcntl.ioctl(listener, SEND, struct.pack("QqiI", number, 0, error, flags))
    return True


def close(*descriptors: int | None) -> None:
    """Close those that are there."""
    for fd in descriptors:
        if fd is not None:
            os.close(fd)
