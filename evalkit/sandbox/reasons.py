"""Which programs ended for a reason of the sandbox: in the open they might have gone on.

Read off how a program ended, as far as that tells: one that catches its exception and answers wrongly is not seen.
"""

import re
from importlib.util import find_spec

from evalkit.sandbox.base import Status

# what the program's last exception, or the supervisor, says: the reason
SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("output", re.compile(r"it printed more than ")),
    ("memory", re.compile(r"it used more than |\w*MemoryError\b|\w+: \[Errno 12\]")),
    ("disk", re.compile(r"its work folder |signal 25 |\w+: \[Errno (?:27|28)\]")),
    ("threads", re.compile(r"RuntimeError: can't start new thread|BlockingIOError: \[Errno 11\]")),
    ("open files", re.compile(r"\w+: \[Errno 24\]")),
    ("no permission", re.compile(r"PermissionError\b|\w+: \[Errno (?:1|13|38)\]|signal 31 ")),
    ("a file outside", re.compile(r"FileNotFoundError: .*'/(?:dev|etc|home|proc|root|sys|usr|var)/")),
)
MISSING = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


def reason_of(status: Status, detail: str) -> str:
    """The reason in a word or two; "" for a program that ended for one of its own."""
    if status not in ("failed", "killed"):
        return ""
    missing = MISSING.match(detail)
    if missing:
        return f"package {missing[1]} not shown" if is_installed(missing[1]) else ""
    return next((reason for reason, sign in SIGNS if sign.match(detail)), "")


def is_installed(name: str) -> bool:
    """Whether a module could be imported outside."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
