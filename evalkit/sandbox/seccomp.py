"""The system-call filter: an allow-list of what Python programs need, assembled as classic BPF.

Everything else answers EPERM (or ENOSYS where libc then takes an older call). See seccomp(2) and
linux/seccomp.h for the layout. The process's own id is not known before it runs: SELF_PID stands for it, and
the process puts its id in before it installs the filter.
"""

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

SELF_PID = 0xE7A1_0F1D  # no process id: they end at 2**22

Instruction: TypeAlias = tuple[int, int, int, int]

LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
ASK = 0x7FC0_0000  # the supervisor
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
OFFSET_NR, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16

# name:x86_64:aarch64, "-" where the architecture has no such call
PLAIN = """
read:0:63 write:1:64 close:3:57 fstat:5:80 lseek:8:62 mmap:9:222 mprotect:10:226 munmap:11:215 brk:12:214
rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 pread64:17:67 pwrite64:18:68 readv:19:65
writev:20:66 sched_yield:24:124 mremap:25:216 msync:26:227 madvise:28:233 dup:32:23 nanosleep:35:101
getitimer:36:102 setitimer:38:103 getpid:39:172 sendfile:40:71 recvfrom:45:207 sendmsg:46:211
recvmsg:47:212 shutdown:48:210 getsockname:51:204 getpeername:52:205 getsockopt:55:209 setsockopt:54:208
exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95 uname:63:160 flock:73:32 fsync:74:82 fdatasync:75:83
ftruncate:77:46 getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50 umask:95:166 gettimeofday:96:169
getrlimit:97:163 setrlimit:160:164 getrusage:98:165 sysinfo:99:179 times:100:153 getuid:102:174 getgid:104:176
geteuid:107:175 getegid:108:177 getppid:110:173 getpgid:121:155 getsid:124:156 getgroups:115:158
getresuid:118:148 getresgid:120:150 sigaltstack:131:132 statfs:137:43 fstatfs:138:44 getpriority:140:141
sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 sched_getaffinity:204:123 rt_sigpending:127:136 rt_sigtimedwait:128:137
rt_sigsuspend:130:133 gettid:186:178
futex:202:98 epoll_create1:291:20 epoll_ctl:233:21 epoll_pwait:281:22 epoll_pwait2:441:441
set_tid_address:218:96 clock_gettime:228:113 clock_getres:229:114 clock_nanosleep:230:115 mkdirat:258:34
newfstatat:262:79 unlinkat:263:35 renameat:264:38 renameat2:316:276 linkat:265:37 symlinkat:266:36
readlinkat:267:78 faccessat:269:48 faccessat2:439:439 pselect6:270:72 ppoll:271:73 set_robust_list:273:99
get_robust_list:274:100 restart_syscall:219:128 eventfd2:290:19 dup3:292:24 pipe2:293:59 preadv:295:69
pwritev:296:70 preadv2:327:286 pwritev2:328:287 getcpu:309:168 getrandom:318:278 copy_file_range:326:285
statx:332:291 rseq:334:293 membarrier:324:283 close_range:436:436 fadvise64:221:223
stat:4:- lstat:6:- poll:7:- access:21:- pipe:22:- select:23:- dup2:33:- pause:34:- alarm:37:- rename:82:-
mkdir:83:- rmdir:84:- creat:85:- link:86:- unlink:87:- symlink:88:- readlink:89:- getpgrp:111:-
epoll_create:213:- epoll_wait:232:- arch_prctl:158:- time:201:- eventfd:284:-
"""
FILTERED = """
ioctl:16:29 socketpair:53:199 clone:56:220 fcntl:72:25 prctl:157:167 tgkill:234:131 kill:62:129
open:2:- openat:257:56 prlimit64:302:261 clone3:435:435 openat2:437:437
sendto:44:206 fallocate:285:47
"""
# called by the process itself before the filter is in force
SETUP = """
timer_create:222:107 timer_settime:223:110 landlock_create_ruleset:444:444 landlock_add_rule:445:445
landlock_restrict_self:446:446 pivot_root:155:41 seccomp:317:277
"""
NEWEST_KNOWN = 450  # libc falls back on ENOSYS from calls newer than the list

CLONE_THREAD, CLONE_NEW_ANYTHING = 0x0001_0000, 0x7E02_0080
O_ACCMODE, O_TRUNC = 0x3, 0x200
AF_UNIX, SOCK_STREAM = 1, 1
SOCKET_FLAGS = 0x8_0800  # SOCK_CLOEXEC SOCK_NONBLOCK
IOCTLS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
# DUPFD, GETFD, SETFD, GETFL, SETFL, record locks, DUPFD_CLOEXEC, GETPIPE_SZ; never F_SETOWN or F_SETSIG,
# which send signals to any process of the same user
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
PRCTLS = (15, 16, 3, 0x53564D41)  # SET_NAME GET_NAME GET_DUMPABLE SET_VMA


@dataclass(frozen=True)
class Machine:
    """An architecture: its number in linux/audit.h and its column in the tables."""

    audit: int
    column: int

    def numbers(self, table: str) -> dict[str, int]:
        """The calls of a table that this architecture has."""
        rows = [entry.split(":") for entry in table.split()]
        return {row[0]: int(row[self.column]) for row in rows if row[self.column] != "-"}


MACHINES = {"x86_64": Machine(0xC000_003E, 1), "aarch64": Machine(0xC000_00B7, 2)}


def load_arg(index: int, *, high: bool = False) -> Instruction:
    """Load the lower (or higher) 32 bits of a call's argument; both architectures are little-endian."""
    return (LOAD, 0, 0, OFFSET_ARGS + 8 * index + (4 if high else 0))


def allow_if_in(index: int, values: Sequence[int]) -> list[Instruction]:
    """Allow a call whose argument is one of `values`."""
    checks = [(JUMP_EQ, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [load_arg(index), *checks, (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]


def refuse_truncating_read(index: int) -> list[Instruction]:
    """Refuse O_RDONLY|O_TRUNC, which Landlock before its third version lets through."""
    return [
        load_arg(index),
        (JUMP_SET, 0, 3, O_TRUNC),
        (AND, 0, 0, O_ACCMODE),
        (JUMP_EQ, 0, 1, 0),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
    ]


def threads_only() -> list[Instruction]:
    """Let clone make a thread, never a process or a namespace."""
    return [
        load_arg(0),
        (JUMP_SET, 0, 2, CLONE_THREAD),
        (JUMP_SET, 1, 0, CLONE_NEW_ANYTHING),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]


def pairs_of_streams() -> list[Instruction]:
    """Let socketpair make Unix streams: a datagram's socket (a raw one, too) could send to any address."""
    return [
        load_arg(0),
        (JUMP_EQ, 0, 4, AF_UNIX),
        load_arg(1),
        (AND, 0, 0, 0xFFFF_FFFF ^ SOCKET_FLAGS),
        (JUMP_EQ, 0, 1, SOCK_STREAM),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]


def allow_if_zero(index: int) -> list[Instruction]:
    """Allow a call whose argument is 0, in all its 64 bits."""
    return [
        load_arg(index),
        (JUMP_EQ, 0, 3, 0),
        load_arg(index, high=True),
        (JUMP_EQ, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]


def argument_rules() -> dict[str, list[Instruction]]:
    """The calls that depend on their arguments."""
    return {
        "ioctl": allow_if_in(1, IOCTLS),
        "socketpair": pairs_of_streams(),
        "sendto": allow_if_zero(4),  # no address
        "fallocate": allow_if_zero(1),  # blocks behind a file's end are bound by no limit
        "clone": threads_only(),
        "clone3": [(RETURN, 0, 0, ENOSYS)],  # its flags lie in memory; libc falls back to clone
        "fcntl": allow_if_in(1, FCNTLS),
        "prctl": allow_if_in(0, PRCTLS),
        "tgkill": allow_if_in(0, [SELF_PID]),
        "kill": allow_if_in(0, [SELF_PID]),
        "open": refuse_truncating_read(1),
        "openat": refuse_truncating_read(2),
        "openat2": [(RETURN, 0, 0, ENOSYS)],
        "prlimit64": allow_if_in(0, [0, SELF_PID]),
    }


def ask_for_threads(machine: Machine) -> bytes:
    """A filter beside the other: clone waits for the supervisor's word."""
    clone = machine.numbers(FILTERED)["clone"]
    code = [(LOAD, 0, 0, OFFSET_NR), (JUMP_EQ, 0, 1, clone), (RETURN, 0, 0, ASK), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def assemble(machine: Machine, refused: Sequence[str] = ()) -> bytes:
    """The filter as an array of struct sock_filter, SELF_PID still in it. refused: plain calls to leave out."""
    code: list[Instruction] = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (JUMP_EQ, 1, 0, machine.audit),
        (RETURN, 0, 0, KILL_PROCESS),  # another calling convention, e.g. int 0x80
        (LOAD, 0, 0, OFFSET_NR),
        (JUMP_GE, 0, 1, NEWEST_KNOWN),  # x32 calls, too
        (RETURN, 0, 0, ENOSYS),
    ]
    for name, number in machine.numbers(PLAIN).items():
        if name not in refused:
            code += [(JUMP_EQ, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    rules = argument_rules()
    for name, number in machine.numbers(FILTERED).items():
        code += [(JUMP_EQ, 0, len(rules[name]), number), *rules[name]]
    code.append((RETURN, 0, 0, EPERM))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
