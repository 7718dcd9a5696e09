"""Runs inside: the process gives up what it can do before it sees a line of the program.

Order matters: limits and Landlock need calls that the filter then forbids. Sources: landlock(7), capset(2),
timer_create(2), seccomp(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

NEW_USER_AND_MOUNTS = 0x1002_0000
MS_BIND, MS_PRIVATE, MS_REC, NO_SETUID_OR_DEVICES, MNT_DETACH = 0x1000, 0x4_0000, 0x4000, 0x6, 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SET_MODE_FILTER, NEW_LISTENER, SOL_SOCKET, SCM_RIGHTS = 1, 8, 1, 1
SIGKILL, CLOCK_PROCESS_CPUTIME_ID = 9, 2
READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE, IOCTL_DEV = 1 << 2, 1 << 3, 1 << 1, 1 << 14, 1 << 15
RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights a version handles; later ones 16
# in the work folder everything but device nodes, sockets and FIFOs
MADE_IN_WORK = (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 12) | (1 << 13)  # remove, make dir/file/symlink, refer


def confine(plan: dict[str, Any]) -> None:
    """Apply a plan in which the supervisor wrote down every limit, rule and filter. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    set_limits(plan["limits"])
    os.umask(0o077)
    if plan["room"]:
        enter_room(libc, plan["room"], plan["calls"])
    drop_capabilities(libc)
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    checked(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "parent-death signal")
    if plan["landlock_abi"]:
        restrict_files(libc, plan)
    limit_cpu(libc, plan["calls"], plan["cpu_seconds"])
    if plan["ask_fd"] >= 0:
        let_threads_ask(libc, plan["calls"], plan["ask"], plan["ask_fd"])
    install_filter(libc, plan["filter"], plan["self_pid"])
    os.chdir(plan["work"])
    add_packages(plan["packages"])


def checked(result: int, what: str) -> int:
    """Raise OSError where a call failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def set_limits(limits: dict[int, int]) -> None:
    """Lower each limit; a value above the present hard limit would raise."""
    for number, value in limits.items():
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


def enter_room(libc: ctypes.CDLL, room: dict[str, Any], calls: dict[str, int]) -> None:
    """A user and a mount namespace that show nothing but the given files, and a work folder of bounded size."""
    user, group = os.geteuid(), os.getegid()
    checked(libc.unshare(NEW_USER_AND_MOUNTS), "user and mount namespace")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 pathlib is slow to import
            file.write(line)
    base = room["base"]
    mount(libc, "none", "/", "", MS_REC | MS_PRIVATE)
    mount(libc, "tmpfs", base, "tmpfs", NO_SETUID_OR_DEVICES, "size=1M,mode=755")
    os.mkdir(f"{base}/old")  # noqa: PTH102
    checked(libc.syscall(calls["pivot_root"], base.encode(), f"{base}/old".encode()), "pivot_root")
    os.chdir("/")
    for source, path in room["shown"]:
        if source:
            make_place(f"/old{source}", path)
            mount(libc, f"/old{source}", path, "", MS_BIND | MS_REC)
        else:
            make_place("/", path)
            mount(libc, "tmpfs", path, "tmpfs", NO_SETUID_OR_DEVICES, "size=64K,mode=755")
    os.makedirs(room["work"], exist_ok=True)  # noqa: PTH103
    mount(libc, "tmpfs", room["work"], "tmpfs", NO_SETUID_OR_DEVICES, room["bounds"])
    checked(libc.umount2(b"/old", MNT_DETACH), "unmount")
    os.rmdir("/old")  # noqa: PTH106


def mount(libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    words = (source.encode(), target.encode(), kind.encode() or None)
    checked(libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def make_place(source: str, path: str) -> None:
    """A folder or an empty file to mount the source on, where there is none."""
    if os.path.exists(path):  # noqa: PTH110
        return
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(path)  # noqa: PTH103
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """Empty the effective, permitted and inheritable sets; no_new_privs keeps them so."""
    header = (0x20080522).to_bytes(4, sys.byteorder) + bytes(4)
    checked(libc.capset(header, bytes(24)), "capset")


def restrict_files(libc: ctypes.CDLL, plan: dict[str, Any]) -> None:
    """Landlock: read what the interpreter needs, work in the work folder, and touch nothing else."""
    abi, calls = plan["landlock_abi"], plan["calls"]
    handled = (1 << RIGHTS_BY_ABI.get(abi, 16)) - 1
    network = 0b11 if abi >= 4 else 0
    scoped = 0b11 if abi >= 6 else 0
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = b"".join(value.to_bytes(8, sys.byteorder) for value in (handled, network, scoped))[:size]
    ruleset = checked(libc.syscall(calls["landlock_create_ruleset"], attributes, ctypes.c_size_t(size), 0), "landlock")
    rules = [(path, READ_FILE | READ_DIR) for path in plan["read"]]
    rules += [(path, READ_DIR) for path in plan["list"]]
    rules += [(path, READ_FILE | WRITE_FILE | TRUNCATE) for path in plan["devices"]]
    rules.append((plan["work"], READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MADE_IN_WORK))
    for path, rights in rules:
        add_rule(libc, calls["landlock_add_rule"], ruleset, path, rights & handled)
    checked(libc.syscall(calls["landlock_restrict_self"], ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def add_rule(libc: ctypes.CDLL, call: int, ruleset: int, path: str, rights: int) -> None:
    """Grant rights on a file or below a folder; a path that is not there grants nothing."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):  # noqa: PTH112 pathlib is slow to import
        rights &= READ_FILE | WRITE_FILE | TRUNCATE
    attributes = rights.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
    checked(libc.syscall(call, ruleset, 1, attributes, 0), f"landlock rule for {path}")
    os.close(fd)


def limit_cpu(libc: ctypes.CDLL, calls: dict[str, int], seconds: float) -> None:
    """Have the kernel kill the process after so much CPU time from now; the filter forbids to disarm it."""
    event = bytes(8) + SIGKILL.to_bytes(4, sys.byteorder) + bytes(52)
    timer = ctypes.c_int()
    checked(libc.syscall(calls["timer_create"], CLOCK_PROCESS_CPUTIME_ID, event, ctypes.byref(timer)), "timer")
    whole = int(seconds)
    value = (whole, int((seconds - whole) * 1e9))
    spec = bytes(16) + b"".join(part.to_bytes(8, sys.byteorder) for part in value)
    checked(libc.syscall(calls["timer_settime"], timer, 0, spec, None), "timer_settime")


def let_threads_ask(libc: ctypes.CDLL, calls: dict[str, int], code: bytes, socket: int) -> None:
    """Have each new thread wait for the supervisor, who gets the listener; without one it counts them instead."""
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    listener = libc.syscall(calls["seccomp"], SET_MODE_FILTER, NEW_LISTENER, program)
    if listener >= 0:
        word = ctypes.create_string_buffer(b"x", 1)
        words = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(word), 1))
        rights = ctypes.create_string_buffer(struct.pack("Qiiixxxx", 20, SOL_SOCKET, SCM_RIGHTS, listener))
        message = struct.pack("QQQQQQQ", 0, 0, ctypes.addressof(words), 1, ctypes.addressof(rights), 24, 0)
        checked(libc.sendmsg(socket, message, 0), "listener")
        os.close(listener)
    os.close(socket)


def install_filter(libc: ctypes.CDLL, code: bytes, self_pid: int) -> None:
    """Install the seccomp filter with this process's own id in it."""
    own = os.getpid().to_bytes(4, sys.byteorder)
    code = code.replace(self_pid.to_bytes(4, sys.byteorder), own)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = (len(code) // 8).to_bytes(8, sys.byteorder)[:8] + ctypes.addressof(buffer).to_bytes(8, sys.byteorder)
    checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


def add_packages(packages: dict[str, str]) -> None:
    """Let the named packages be imported from their own folders or files, and nothing beside them."""

    class Packages:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            if path is not None or name not in packages:
                return None
            place, machinery = packages[name], sys.modules["_frozen_importlib_external"]
            if not os.path.isdir(place):  # noqa: PTH112
                return machinery.spec_from_file_location(name, place)
            first = f"{place}/__init__.py"
            if os.path.exists(first):  # noqa: PTH110
                return machinery.spec_from_file_location(name, first, submodule_search_locations=[place])
            spec = sys.modules["_frozen_importlib"].ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [place]
            return spec

    if packages:
        sys.meta_path.append(Packages)  # type: ignore[arg-type]
