"""Runs inside: what the confinement takes away from honest programs, and a lone process can have otherwise.

Semaphores of multiprocessing need shared memory, which is not to be had; where no second process can be, a lock among
threads does the same. The user data base cannot be read; it knows one user.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

USER = "sandbox"


class Finder:
    """Finds a module as usual, and changes it once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """The usual spec with another loader; None for every module that stays as it is."""
        if name not in CHANGES:
            return None
        others = (finder for finder in sys.meta_path if finder is not Finder)
        spec: Any = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None:
            spec.loader = Loader(spec.loader, CHANGES[name])
        return spec


class Loader:
    """Loads as another loader does, then changes the module."""

    def __init__(self, loader: Any, change: Callable[[Any], None]) -> None:
        """Keep both."""
        self.create_module = loader.create_module
        self.loader, self.change = loader, change

    def exec_module(self, module: Any) -> None:
        """Load and change."""
        self.loader.exec_module(module)
        self.change(module)


def install() -> None:
    """From now on, the modules named in CHANGES are changed when they are imported."""
    sys.meta_path.insert(0, Finder)


def one_user(pwd: Any) -> None:
    """Let the user data base know the user that programs run as."""
    import os  # loaded already: the name is not to be had at this module's top, where programs could change it

    entry = pwd.struct_passwd((USER, "x", os.getuid(), os.getgid(), USER, os.environ.get("HOME", "/"), "/bin/sh"))

    def getpwuid(uid: int) -> Any:
        if uid != entry.pw_uid:
            raise KeyError(f"getpwuid(): uid not found: {uid}")
        return entry

    def getpwnam(name: str) -> Any:
        if name != entry.pw_name:
            raise KeyError(f"getpwnam(): name not found: {name!r}")
        return entry

    pwd.getpwuid, pwd.getpwnam, pwd.getpwall = getpwuid, getpwnam, lambda: [entry]


def one_group(grp: Any) -> None:
    """The same of groups."""
    import os

    entry = grp.struct_group((USER, "x", os.getgid(), []))

    def getgrgid(gid: int) -> Any:
        if gid != entry.gr_gid:
            raise KeyError(f"getgrgid(): gid not found: {gid}")
        return entry

    def getgrnam(name: str) -> Any:
        if name != entry.gr_name:
            raise KeyError(f"getgrnam(): name not found: {name!r}")
        return entry

    grp.getgrgid, grp.getgrnam, grp.getgrall = getgrgid, getgrnam, lambda: [entry]


def thread_semaphores(multiprocessing: Any) -> None:
    """Put a semaphore among threads in the place of `_multiprocessing.SemLock`, with its methods and errors."""
    import threading

    class SemLock:
        SEM_VALUE_MAX = 2**31 - 1

        def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
            if not 0 <= value <= maxvalue:
                raise ValueError("invalid value")
            self.kind, self.maxvalue, self.name, self.handle = kind, maxvalue, None, 0
            self._value, self._held, self._owner = value, 0, 0
            self._changed = threading.Condition(threading.Lock())

        def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
            with self._changed:
                if self.kind == RECURSIVE and self._is_mine():
                    self._held += 1
                    return True
                patience = 0.0 if not block else None if timeout is None else max(timeout, 0.0)
                if not self._changed.wait_for(lambda: self._value > 0, patience):
                    return False
                self._value, self._held, self._owner = self._value - 1, self._held + 1, threading.get_ident()
                return True

        def release(self) -> None:
            with self._changed:
                if self.kind == RECURSIVE:
                    if not self._is_mine():
                        raise AssertionError("attempt to release recursive lock not owned by thread")
                    if self._held > 1:
                        self._held -= 1
                        return
                elif self._value >= self.maxvalue:
                    raise ValueError("semaphore or lock released too many times")
                self._value, self._held = self._value + 1, self._held - 1
                self._changed.notify()

        def _count(self) -> int:
            return self._held

        def _is_mine(self) -> bool:
            return self._held > 0 and self._owner == threading.get_ident()

        def _get_value(self) -> int:
            return self._value

        def _is_zero(self) -> bool:
            return self._value == 0

        def _after_fork(self) -> None:
            pass

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *error: object) -> None:
            self.release()

    multiprocessing.SemLock = SemLock
    multiprocessing.sem_unlink = lambda name: None


RECURSIVE = 0  # kind of a multiprocessing.RLock
CHANGES: dict[str, Callable[[Any], None]] = {
    "pwd": one_user,
    "grp": one_group,
    "_multiprocessing": thread_semaphores,
}
