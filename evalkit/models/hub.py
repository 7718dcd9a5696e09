"""A model's files from the Hugging Face hub, or from its cache on this machine."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from evalkit.errors import ModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
SMALL_FILES = ("*.json", "*.txt", "*.tiktoken", "*.model")
# Tried in this order; the first that the repository has is fetched.
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def fetch(repo_id: str, revision: str | None, gguf_file: str | None = None) -> Path:
    """The folder that holds a repository's config, tokenizer and weights at one revision.

    Python files are never fetched. Raises ModelError where it cannot be had, with the command that mends it.
    """
    folder = _cached(repo_id, revision, gguf_file) if revision and _COMMIT.fullmatch(revision) else None
    if folder is not None:
        return folder
    folder = _download(repo_id, revision, list(SMALL_FILES))
    for pattern in (gguf_file,) if gguf_file else WEIGHTS:
        folder = _download(repo_id, revision, [pattern])
        if any(folder.glob(pattern)):
            return folder
    wanted = gguf_file or ", ".join(WEIGHTS)
    raise ModelError(
        f"{repo_id} at revision {revision or 'main'} has no {wanted}, or the hub cannot be reached and they were "
        f"never fetched: run {_command(repo_id, revision)} while online"
    )


def fetch_small_files(repo_id: str, revision: str | None) -> Path:
    """The folder that holds a repository's config and tokenizer, without weights. Errors as `fetch`."""
    return _download(repo_id, revision, list(SMALL_FILES))


def _cached(repo_id: str, revision: str, gguf_file: str | None) -> Path | None:
    """The folder of a commit whose weights are on this machine already: a commit never changes."""
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    complete = any(any(folder.glob(pattern)) for pattern in ([gguf_file] if gguf_file else WEIGHTS))
    return folder if complete and any(folder.glob(gguf_file or "config.json")) else None


def _download(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    fetch_command = _command(repo_id, revision)
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(f"{repo_id} is gated: accept its terms on the hub, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {repo_id}: set model.path to a hub id or a folder") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo_id} has no revision {revision}: set model.revision to one it has") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repo_id} is not on this machine and the hub cannot be reached: run {fetch_command} while "
            f"online, or set model.path to a folder that holds it"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(f"{repo_id} could not be fetched ({first_line}): try {fetch_command}") from error


def _command(repo_id: str, revision: str | None) -> str:
    """What fetches a repository by hand."""
    return f"`hf download {repo_id}{f' --revision {revision}' if revision else ''}`"
