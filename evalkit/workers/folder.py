"""The folder of a Ray that was started for one run: gone with the run, or, where that was killed, with the next one."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX, _NEW_PREFIX = "evalkit-ray-", "evalkit-new-"
# Characters of the place: Ray's sockets lie some 64 below the folder, and the kernel allows 107 for their names.
_LONGEST_PLACE = 20


class OwnFolder:
    """A folder that is locked as long as this process lives."""

    def __init__(self, place: Path | None = None) -> None:
        """place: where it lies; None: where temporary files do. Those of runs that were killed are removed."""
        place = place or _place()
        new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=place))
        self._lock = os.open(new, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a disk without locks, on which nothing will be removed
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # before it has the name by which others find it
        self.path = new.rename(place / new.name.replace(_NEW_PREFIX, _PREFIX, 1))
        remove_left(place)

    def remove(self) -> None:
        """At the end of the run."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_left(place: Path) -> None:
    """Remove the folders that nobody holds any longer; the kernel lets go of a lock when its process ends."""
    for path in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _place() -> Path:
    place = tempfile.gettempdir()
    return Path(place if len(place) <= _LONGEST_PLACE else "/tmp")
