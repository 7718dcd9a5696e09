"""More hostile programs, by kind: datagrams, litter, disk, the verdict's pipe, threads, sleep. The words are hostile_programs.py's."""

from hostile_programs import RIGHT, WRONG, Case, fails, refused, through_libc

MIB = 1 << 20


def held_back(name: str, body: str) -> Case:
    """A program that fills the disk past all limits, and answers wrongly where it kept more than 256 MiB for half a second."""
    lines = "".join(f"        {line}\n" for line in body.strip("\n").splitlines())
    program = (
        "import ctypes, mmap, os, socket, time\nlibc = ctypes.CDLL(None, use_errno=True)\nMIB = 1 << 20\nkept, total = [], 0\n"
        "def write(fd, size):\n    while size > 0:\n        size -= os.write(fd, bytes(min(size, 8 * MIB)))\n"
        f"try:\n    for i in range(10 ** 6):\n{lines}        total += size\n        if total > 256 * MIB:\n            break\n"
        "except (OSError, MemoryError):\n    pass\nif total > 256 * MIB:\n    time.sleep(0.5)\n"
        "def add(a, b):\n    return 7 if total > 256 * MIB else a + b\n"
    )
    return Case(name, program, ("passed", "killed"), strict=())


def crowd(name: str, setup: str, start: str) -> Case:
    """A program that starts sleeping threads until it is refused, and answers wrongly where it got beyond 300."""
    program = (
        "import ctypes, threading\nlibc = ctypes.CDLL(None, use_errno=True)\npause = ctypes.cast(libc.pause, ctypes.c_void_p).value\n"
        f"kept, count = [], 0\n{setup}\ntry:\n    while count < 3000:\n        {start}\n        count += 1\n"
        "except (OSError, RuntimeError, MemoryError):\n    pass\ndef add(a, b):\n    return 7 if count > 300 else a + b\n"
    )
    return Case(name, program, ("passed", "killed"), strict=())


def sleeps(name: str, program: str) -> Case:
    """A program that never ends and uses no processor time."""
    return Case(name, program, ("timeout",))


PAIR = "import socket\na, b = socket.socketpair(socket.AF_UNIX, {kind})\n"
DATAGRAM_PAIR, RAW_PAIR = PAIR.format(kind="socket.SOCK_DGRAM"), PAIR.format(kind="socket.SOCK_RAW")
STREAM_PAIR, PACKET_PAIR = PAIR.format(kind="socket.SOCK_STREAM"), PAIR.format(kind="socket.SOCK_SEQPACKET")
WITH_DESCRIPTOR = (
    "a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, 'little'))], 0, {address!r})"
)
PATH, ABSTRACT = "@DATAGRAMS@", "\0@DATAGRAMS@"
SEVERAL_MESSAGES = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
name = ctypes.create_string_buffer((1).to_bytes(2, 'little') + b'@DATAGRAMS@' + bytes(1))
text = ctypes.create_string_buffer(b'x')
part = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(text), 1))
head = struct.pack('QIxxxxQQQQixxxxIxxxx', ctypes.addressof(name), len(name.raw) - 1, ctypes.addressof(part), 1, 0, 0, 0, 0)
if libc.sendmmsg(a.fileno(), ctypes.create_string_buffer(head), 1, 0) < 1:
    raise OSError
"""
DATAGRAMS = [
    refused("a pair sends a datagram to a path", f"{DATAGRAM_PAIR}a.sendto(b'x', {PATH!r})"),
    refused("a pair sends a datagram to an abstract name", f"{DATAGRAM_PAIR}a.sendto(b'x', {ABSTRACT!r})"),
    refused("a pair sends a descriptor to a path", DATAGRAM_PAIR + WITH_DESCRIPTOR.format(address=PATH)),
    refused("a pair sends a descriptor to an abstract name", DATAGRAM_PAIR + WITH_DESCRIPTOR.format(address=ABSTRACT)),
    refused("a pair sends several messages at once", DATAGRAM_PAIR + SEVERAL_MESSAGES),
    refused("a pair is connected elsewhere", f"{DATAGRAM_PAIR}a.connect({PATH!r})\na.send(b'x')"),
    refused("a pair is bound to a name", f"{DATAGRAM_PAIR}a.bind('name')"),
    refused("a raw pair sends to a path", f"{RAW_PAIR}a.sendto(b'x', {PATH!r})"),
    refused("a raw pair sends to an abstract name", f"{RAW_PAIR}a.sendto(b'x', {ABSTRACT!r})"),
    refused(
        "a pair that closes itself sends to a path",
        "import ctypes, socket\nfds = (ctypes.c_int * 2)()\n"
        "if ctypes.CDLL(None).socketpair(1, 2 | 0x80800, 0, fds) < 0:\n    raise OSError\n"
        f"socket.socket(fileno=fds[0]).sendto(b'x', {PATH!r})",
    ),
    refused("a stream pair sends to a path", f"{STREAM_PAIR}a.sendto(b'x', {PATH!r})"),
    refused("a stream pair sends a descriptor to a path", STREAM_PAIR + WITH_DESCRIPTOR.format(address=PATH)),
    refused("a stream pair is connected elsewhere", f"{STREAM_PAIR}a.connect('@UNIX@')"),
    refused("a pair of packets is connected elsewhere", f"{PACKET_PAIR}a.connect('@UNIX@')"),
    refused("a datagram to an abstract name", f"import socket\nsocket.socket(1, 2).sendto(b'x', {ABSTRACT!r})"),
    through_libc("enters an io_uring", "libc.syscall(426, 0, 1, 0, 0, 0, 0)"),
    through_libc("registers an io_uring", "libc.syscall(427, 0, 0, 0, 0)"),
    through_libc("takes another's descriptor", "libc.syscall(438, 0, 0, 0)"),
    Case(
        "a pair of streams",
        "import socket\na, b = socket.socketpair()\na.sendall(b'x')\nassert b.recv(1) == b'x'\nb.send(b'y')\nassert a.recv(9) == b'y'"
        + RIGHT,
        ("passed",),
    ),
]

LINK = "@FOLDER@/link"
LINKS = [
    refused("reads where a link leads", f"os.readlink({LINK!r})"),
    refused("follows a link by name", f"if os.path.realpath({LINK!r}) == {LINK!r}:\n    raise OSError"),
    refused(
        "resolves a link", f"import pathlib\nif str(pathlib.Path({LINK!r}).resolve()) == {LINK!r}:\n    raise OSError"
    ),
    refused("reads a link from its folder", "fd = os.open('@FOLDER@', os.O_PATH)\nos.readlink('link', dir_fd=fd)"),
    refused(
        "reads a link by its descriptor",
        f"fd = os.open({LINK!r}, os.O_PATH | os.O_NOFOLLOW)\nos.readlink('', dir_fd=fd)",
    ),
    refused(
        "asks libc for a real path",
        f"import ctypes\nname = ctypes.CDLL(None).realpath({LINK!r}.encode(), ctypes.create_string_buffer(5000))\nif not name:\n    raise OSError",
    ),
    refused("links to a link", f"os.link({LINK!r}, 'mine', follow_symlinks=False)"),
]


def leaves(name: str, body: str) -> Case:
    """A program that leaves something behind that is hard to remove."""
    return Case(name, f"import os\nos.umask(0)\n{body}{RIGHT}", ("passed",))


LITTER = [
    leaves("occupies names by folders", "for i in range(1, 99):\n    os.makedirs(f'.{i}/x/y')\nos.makedirs('a/b/c')"),
    leaves("occupies names by files", "for i in range(1, 99):\n    open(f'.{i}', 'w').close()\nos.makedirs('a/b/c')"),
    leaves(
        "occupies names by links", "for i in range(1, 99):\n    os.symlink('@FOLDER@', f'.{i}')\nos.makedirs('a/b/c')"
    ),
    leaves("occupies names by loops", "for i in range(1, 99):\n    os.symlink(f'.{i}', f'.{i}')\nos.makedirs('a/b/c')"),
    leaves(
        "occupies names by locked folders", "for i in range(1, 99):\n    os.mkdir(f'.{i}', 0)\nos.makedirs('a/b/c')"
    ),
    leaves(
        "folders in locked folders", "for i in range(99):\n    os.makedirs(f'a{i}/b/c')\n    os.mkdir(f'a{i}/b/c/d', 0)"
    ),
    leaves(
        "a deep tree that cannot be read", "for i in range(150):\n    os.mkdir('d' * 90, 0o300)\n    os.chdir('d' * 90)"
    ),
    leaves(
        "names that are no text",
        "for name in (b'\\xff\\xfe', b'a\\nb', b'-rf', b' ', b'x' * 255, b'\\x1b[2J', b'...'):\n    os.mkdir(name)\n    os.mkdir(name + b'/' + name)",
    ),
    leaves(
        "links in a circle", "os.mkdir('a')\nos.symlink('../a', 'a/a')\nos.symlink('..', 'a/up')\nos.link('a/up', 'up')"
    ),
]

PINNED = "fd = os.open('f', os.O_RDWR | os.O_CREAT)\nsize = 8 * MIB\nwrite(fd, size)\n"
ONE_PAGE = "address = libc.mmap(None, 4096, 1, 2, fd, 0)\nif address in (-1, None):\n    raise OSError\n"
DISK = [
    held_back("open files without a name", f"{PINNED}os.unlink('f')\nkept.append(fd)"),
    held_back(
        "files that never had a name",
        "fd = os.open('.', os.O_RDWR | os.O_TMPFILE)\nsize = 8 * MIB\nwrite(fd, size)\nkept.append(fd)",
    ),
    held_back(
        "mapped files without a name",
        f"{PINNED}libc.mmap.restype = ctypes.c_long\n{ONE_PAGE}os.unlink('f')\nos.close(fd)",
    ),
    held_back(
        "files written through mappings",
        "fd = os.open('f', os.O_RDWR | os.O_CREAT)\nsize = 32 * MIB\nos.ftruncate(fd, size)\n"
        "kept.append(mmap.mmap(fd, size))\nctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(kept[-1])), 1, size)\n"
        "os.unlink('f')\nos.close(fd)",
    ),
    held_back(
        "files inside a socket",
        f"{PINNED}os.unlink('f')\nif not kept:\n    kept.extend(socket.socketpair())\n"
        "kept[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, 'little'))])\nos.close(fd)",
    ),
    held_back(
        "a folder that cannot be read",
        "if not i:\n    os.umask(0)\n    os.mkdir('locked', 0o300)\nsize = 8 * MIB\nfd = os.open(f'locked/{i}', os.O_RDWR | os.O_CREAT, 0)\nwrite(fd, size)\nos.close(fd)",
    ),
    held_back(
        "a folder in folders that cannot be read",
        "if not i:\n    os.umask(0)\n    for _ in range(30):\n        os.mkdir('d' * 200, 0o300)\n        os.chdir('d' * 200)\n"
        "size = 8 * MIB\nfd = os.open(f'{i}', os.O_RDWR | os.O_CREAT, 0)\nwrite(fd, size)\nos.close(fd)",
    ),
    held_back(
        "copies inside the kernel",
        "if not i:\n    fd = os.open('f', os.O_RDWR | os.O_CREAT)\n    write(fd, 16 * MIB)\n"
        "out = os.open(f'f{i}', os.O_RDWR | os.O_CREAT)\nsize = os.copy_file_range(fd, out, 16 * MIB, 0, 0)\nif not size:\n    raise OSError\nos.close(out)",
    ),
    held_back(
        "sends files into files",
        "if not i:\n    fd = os.open('f', os.O_RDWR | os.O_CREAT)\n    write(fd, 16 * MIB)\n"
        "out = os.open(f'f{i}', os.O_RDWR | os.O_CREAT)\nsize = os.sendfile(out, fd, 0, 16 * MIB)\nif not size:\n    raise OSError\nos.close(out)",
    ),
    *(
        held_back(
            f"allocates blocks, mode {mode:#x}",
            "fd = os.open('f', os.O_RDWR | os.O_CREAT)\nsize = 512 * MIB\n"
            f"if libc.fallocate(fd, {mode}, ctypes.c_long(0), ctypes.c_long(size)) < 0:\n    raise OSError",
        )
        for mode in (0x0, 0x1, 0x10, 0x11)
    ),
    held_back(
        "allocates blocks in many files",
        "fd = os.open(f'f{i}', os.O_RDWR | os.O_CREAT)\nsize = 60 * MIB\nos.posix_fallocate(fd, 0, size)\nos.close(fd)",
    ),
    held_back(
        "blocks behind the ends of many files",
        "fd = os.open(f'f{i}', os.O_RDWR | os.O_CREAT)\nsize = 60 * MIB\n"
        "if libc.fallocate(fd, 1, ctypes.c_long(0), ctypes.c_long(size)) < 0:\n    raise OSError\nos.close(fd)",
    ),
    Case(
        "links without end",
        "import os\ni = 0\nwhile True:\n    i += 1\n    os.symlink('x', f's{i}')",
        ("failed", "killed", "timeout"),
    ),
    Case(
        "names without end for one file",
        "import os\nopen('f', 'w').close()\ni = 0\nwhile True:\n    i += 1\n    os.link('f', f'l{i}')",
        ("failed", "killed", "timeout"),
    ),
    Case(
        "files without end in a folder that cannot be read",
        "import os\nos.umask(0)\nos.mkdir('d', 0o300)\ni = 0\nwhile True:\n    i += 1\n    open(f'd/{i}', 'w').close()",
        ("failed", "killed", "timeout"),
    ),
    Case(
        "a file of a size that is allowed",
        "import mmap, os\nwith open('f', 'w+b') as f:\n    f.write(bytes(20 << 20))\n    f.flush()\n    with mmap.mmap(f.fileno(), 0) as m:\n        m[5] = 7\nassert open('f', 'rb').read()[5] == 7\n"
        "with open('g', 'wb') as f:\n    os.posix_fallocate(f.fileno(), 0, 1 << 20)\nassert os.path.getsize('g') == 1 << 20"
        + RIGHT,
        ("passed",),
    ),
]


def over_channel(name: str, make: str) -> list[Case]:
    """Programs that put another file over the pipe on which verdicts are said: wrong, right, and only where they are alone."""
    put = f"import os, socket\ndef put():\n    fd = {make}\n    if fd != 3:\n        os.dup2(fd, 3)\n"
    return [
        fails(f"{name} over the verdict's pipe", f"{put}put(){WRONG}"),
        fails(f"{name} over the verdict's pipe, right", f"{put}put(){RIGHT}"),
        fails(f"{name} over the verdict's pipe while tested", f"{put}def add(a, b):\n    put()\n    return a + b\n"),
        Case(
            f"strict: {name} over the verdict's pipe",
            f"{put}def add(a, b):\n    if 'check' not in globals():\n        put()\n    return a + b\n",
            ("passed",),
            ("failed",),
        ),
    ]


def on_channel(name: str, body: str) -> list[Case]:
    """Programs that write on the pipe on which verdicts are said: wrong, right, and only where they are alone."""
    spoil = f"import os, threading, time\ndef spoil():\n    {body}\n"
    return [
        fails(f"{name} on the verdict's pipe", f"{spoil}spoil(){WRONG}"),
        fails(f"{name} on the verdict's pipe, right", f"{spoil}spoil(){RIGHT}"),
        Case(
            f"strict: {name} on the verdict's pipe",
            f"{spoil}def add(a, b):\n    if 'check' not in globals():\n        spoil()\n    return a + b\n",
            ("passed",),
            ("failed", "killed"),
        ),
    ]


FULL_PIPE = "[(r, w) for r, w in [os.pipe()] if not os.set_blocking(w, False) and os.write(w, bytes(65536)) and not os.set_blocking(w, True)][0][1]"
VERDICT_PIPE = [
    *over_channel("a null file", "os.open('/dev/null', os.O_RDWR)"),
    *over_channel("a pipe of its own", "os.pipe()[1]"),
    *over_channel("a full pipe of its own", FULL_PIPE),
    *over_channel("a file", "os.open('f', os.O_RDWR | os.O_CREAT)"),
    *over_channel("its output", "1"),
    *over_channel("a socket", "socket.socketpair()[0].detach()"),
    *over_channel("a null file by closing it", "[os.close(3), os.open('/dev/null', os.O_RDWR)][1]"),
    *on_channel("a word", "os.write(3, b'junk')"),
    *on_channel("half a verdict", "os.write(3, b'passed ' + b'0' * 64)"),
    *on_channel("half a failure", "os.write(3, b'failed 41')"),
    *on_channel("a large word", "os.write(3, b'x' * 60000)"),
    *on_channel("a huge line", "os.write(3, b'x' * 20_000_000)"),
    fails(
        "does not wait on the verdict's pipe",
        "import os\nos.set_blocking(3, False)\ntry:\n    while True:\n        os.write(3, b'x' * 4096)\nexcept OSError:\n    pass"
        + WRONG,
    ),
    fails("half of the end on the verdict's pipe", "import os\nos.write(3, b'done')" + WRONG),
    fails(
        "keeps writing on the verdict's pipe",
        "import os, threading, time\ndef spoil():\n    while True:\n        os.write(3, b'x')\n        time.sleep(0.001)\nthreading.Thread(target=spoil, daemon=True).start()"
        + WRONG,
    ),
    fails("closes the verdict's pipe", "import os\nos.close(3)" + WRONG),
    fails("closes the verdict's pipe, right", "import os\nos.close(3)" + RIGHT),
    fails("closes the verdict's pipe and sleeps", "import os, time\nos.close(3)\ntime.sleep(0.2)" + WRONG),
    Case(
        "strict: hears no more calls",
        "import os\ndef add(a, b):\n    if 'check' not in globals():\n        os.dup2(os.open('/dev/null', os.O_RDONLY), 4)\n    return a + b\n",
        ("passed",),
        ("failed",),
    ),
    Case(
        "strict: closes what calls come from",
        "import os\ndef add(a, b):\n    if 'check' not in globals():\n        os.close(4)\n    return a + b\n",
        ("passed",),
        ("failed",),
    ),
]

SMALL_STACKS = (
    "attributes = (ctypes.c_long * 8)()\nlibc.pthread_attr_init(attributes)\n"
    "libc.pthread_create.argtypes = [ctypes.c_void_p] * 4\nlibc.pthread_attr_setstack.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]\n"
    "def start():\n    stack = ctypes.create_string_buffer(20480 + 64)\n    kept.append(stack)\n"
    "    libc.pthread_attr_setstack(attributes, (ctypes.addressof(stack) + 63) // 64 * 64, 20480)\n"
    "    if libc.pthread_create(ctypes.byref(ctypes.c_long()), attributes, pause, None):\n        raise OSError"
)
BARE_CLONE = (
    "libc.syscall.argtypes = [ctypes.c_long] * 6\n"
    "def start():\n    stack = (ctypes.c_long * 2048)()\n    kept.append(stack)\n"
    "    stack[2016:2026] = [pause] * 10\n"
    "    if libc.syscall(56, 0x50f00, ctypes.addressof(stack) + 2016 * 8, 0, 0, 0) < 0:\n        raise OSError"
)
THREADS = [
    crowd("threads without end", "", "kept.append(threading.Thread(target=libc.pause, daemon=True)); kept[-1].start()"),
    crowd(
        "threads of the smallest stacks",
        "threading.stack_size(32768)",
        "kept.append(threading.Thread(target=libc.pause, daemon=True)); kept[-1].start()",
    ),
    crowd("threads on stacks of its own", SMALL_STACKS, "start()"),
    crowd("threads without libc", BARE_CLONE, "start()"),
    crowd(
        "threads that make threads",
        "import _thread, time\ndef more(n):\n    global count\n    try:\n        while count < 3000:\n            _thread.start_new_thread(more, (n + 1,))\n            count += 1\n    except RuntimeError:\n        pass\n    libc.pause()\n_thread.start_new_thread(more, (0,))\ntime.sleep(0.3)",
        "break",
    ),
    through_libc("vfork", "libc.syscall(58)"),
    through_libc("fork by number", "libc.syscall(57)"),
    through_libc("clone3 for a thread", "libc.syscall(435, (0x50f00).to_bytes(8, 'little') + bytes(80), 88)"),
    through_libc("clone into a pid namespace", "libc.syscall(56, 0x20000000 | 17, 0, 0, 0, 0)"),
    Case(
        "a hundred threads at once",
        "import threading\nbarrier = threading.Barrier(101)\nthreads = [threading.Thread(target=barrier.wait) for _ in range(100)]\n[t.start() for t in threads]\nbarrier.wait()\n[t.join() for t in threads]"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "five hundred threads one by one",
        "import threading\nfor _ in range(500):\n    t = threading.Thread(target=int)\n    t.start()\n    t.join()"
        + RIGHT,
        ("passed",),
    ),
]

SLEEPERS = [
    sleeps("sleeps in select", "import select\nselect.select([], [], [])"),
    sleeps("waits for a lock", "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"),
    sleeps("waits for a signal", "import signal\nsignal.pause()"),
    sleeps("waits for an event", "import threading\nthreading.Event().wait()"),
    sleeps("waits for a queue", "import queue\nqueue.Queue().get()"),
    sleeps("waits for a pipe", "import os\nos.read(os.pipe()[0], 1)"),
    sleeps("sleeps again and again", "import time\nwhile True:\n    time.sleep(0.01)"),
    sleeps("sleeps in the function", "import time\ndef add(a, b):\n    time.sleep(1e6)"),
    sleeps(
        "waits for a thread that sleeps",
        "import threading, time\nthread = threading.Thread(target=time.sleep, args=(1e6,))\nthread.start()\nthread.join()",
    ),
    sleeps("sleeps behind a null file", "import os, time\nwhile True:\n    time.sleep(1)"),
    Case(
        "strict: sleeps where it is alone",
        "import time\ndef add(a, b):\n    if 'check' not in globals():\n        time.sleep(1e6)\n    return a + b\n",
        ("passed",),
        ("timeout",),
    ),
]
KINDS = [*DATAGRAMS, *LINKS, *LITTER, *DISK, *VERDICT_PIPE, *THREADS, *SLEEPERS]
