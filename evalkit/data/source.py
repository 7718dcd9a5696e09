"""Where a benchmark's rows come from, and what they must be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import ConfigError, DataError
from evalkit.machine.home import expanded

BUNDLED = "bundled"
_SHOWN = 10  # names of a folder's content


@dataclass(frozen=True)
class Pin:
    """What one split must hold: its number of rows, and the SHA-256 over all of them."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where one benchmark's rows come from: the constructor is the schema of `data:` in configs/task/*.yaml."""

    folder: str  # the benchmark's folder under data_dir
    hub: str  # dataset on the hub
    pins: Mapping[str, Mapping[str, Mapping[str, Any]]]  # {"published" | "bundled": {split: Pin}}
    licence: str
    revision: str | None = None
    data_dir: str | None = None  # a folder in the publishers' layouts, "bundled", or None: the hub
    data_check: Literal["strict", "warn"] = "strict"

    def __post_init__(self) -> None:
        if self.data_check not in ("strict", "warn"):
            raise ConfigError(f"data_check={self.data_check}: use one of strict, warn")
        if not isinstance(self.revision, str | None):
            raise ConfigError(f"revision={self.revision!r} of {self.hub} is no text; write it in quotes")

    @property
    def bundled(self) -> bool:
        """Whether these are the small sets that come with evalkit."""
        return self.data_dir == BUNDLED

    @property
    def pin_set(self) -> str:
        """Which pins hold for these rows."""
        return BUNDLED if self.bundled else "published"

    @property
    def where(self) -> str:
        """The place in words, for messages and the manifest."""
        if self.data_dir:
            return f"{self.data_dir}/{self.folder}"
        return f"hub {self.hub}@{self.revision or 'main'}"

    def pin(self, split: str) -> Pin:
        """The pin of a split. Raises ConfigError for a split that is not pinned."""
        pins = self.pins[self.pin_set]
        if split not in pins:
            raise ConfigError(f"{self.folder} has no split {split!r}; use one of {', '.join(sorted(pins))}")
        return Pin(**pins[split])


def folder_of(data_dir: str | None) -> Path:
    """A folder of data as people write it, "~" being the home folder; the current one where none is named."""
    return expanded(data_dir or "")


def benchmark_folder(source: Source, home: Path) -> Path:
    """The benchmark's own folder.

    home: where the small sets lie that come with evalkit.
    Raises DataError where data_dir or the folder in it does not exist, or nobody may look into it.
    """
    root = home / BUNDLED if source.bundled else folder_of(str(source.data_dir))
    try:
        if not root.is_dir():
            raise DataError(
                f"data_dir={root} is not a folder; name one that holds {source.folder}/, or data_dir=null for the hub"
            )
        if not (root / source.folder).is_dir():
            held = listed(path.name for path in root.iterdir())
            raise DataError(
                f"data_dir={root} has no folder {source.folder}/ (it holds {held}); name the folder above it"
            )
    except OSError as error:
        raise DataError(f"data_dir={root} cannot be read ({error.strerror}); name a folder that can") from None
    return root / source.folder


def listed(names: Iterable[str]) -> str:
    """The first of some names, in words."""
    found = sorted(names)
    return ", ".join([*found[:_SHOWN], *["…"] * (len(found) > _SHOWN)]) or "nothing"
