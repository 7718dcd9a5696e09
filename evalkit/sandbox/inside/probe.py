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


def main(places: dict[str, str], packages: list[str]) -> None:
    """Import, look, print."""
    warnings.simplefilter("ignore")
    folders = [path for path in sys.path if Path(path).is_dir()]
    sys.path += sorted({str(Path(place).parent) for place in places.values()})
    for folder in folders:
        for name in sorted(entry.name for entry in Path(folder).iterdir()):
            if name.endswith(".so") and not name.startswith(SKIPPED):
                attempt(name.split(".")[0])
    failed = [(name, reason) for name in packages if (reason := attempt(name))]
    for library in ("libgcc_s.so.1", "libm.so.6", *(["libstdc++.so.6"] if packages else [])):
        try:  # glibc opens the first to end a thread; submodules of packages the last
            ctypes.CDLL(library)
        except OSError:
            continue
    answer = {"executable": os.path.realpath(sys.executable), "folders": folders, "failed": failed}
    json.dump({**answer, "libraries": libraries(), "version": sys.version.split()[0]}, sys.stdout)


def attempt(name: str) -> str:
    """Import a module; why it cannot be, "" where it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 a package may do anything when it is imported
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


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
    main(*json.loads(sys.argv[1]))
