"""Runs unconfined and once: which files does this interpreter need? Prints one JSON line.

It imports every extension module of the standard library (and the given packages) and asks the dynamic loader
what it mapped, by the names under which it looked for it.
"""

import ctypes
import importlib
import json
import os
import sys
import warnings
from pathlib import Path

SKIPPED = ("_test", "xx", "_xx", "_tkinter", "_ctypes_test")


class PhdrInfo(ctypes.Structure):
    """The head of struct dl_phdr_info."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


def main(site: str, packages: list[str]) -> None:
    """Import, look, print."""
    warnings.simplefilter("ignore")
    folders = [path for path in sys.path if Path(path).is_dir()]
    sys.path.append(site)
    for folder in folders:
        for name in sorted(entry.name for entry in Path(folder).iterdir()):
            if name.endswith(".so") and not name.startswith(SKIPPED):
                attempt(name.split(".")[0])
    found = {name: where for name in packages if (where := attempt(name))}
    for library in ("libgcc_s.so.1", "libm.so.6"):  # glibc opens the first to end a thread
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
    answer = {"executable": os.path.realpath(sys.executable), "folders": folders, "packages": found}
    json.dump({**answer, "libraries": libraries(), "version": sys.version.split()[0]}, sys.stdout)


def attempt(name: str) -> str | None:
    """The folder of a module that can be imported."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    file = getattr(module, "__file__", None)
    return str(Path(file).parent) if file else None


def libraries() -> list[str]:
    """Shared objects in this process, by the loader's own names."""
    names: list[str] = []

    def visit(info: "ctypes._Pointer[PhdrInfo]", size: int, data: object) -> int:
        names.append((info.contents.name or b"").decode())
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(PhdrInfo), ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(kind(visit), None)
    return [os.path.normpath(name) for name in names if name.startswith("/")]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
