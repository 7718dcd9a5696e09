"""A checkpoint in a folder: what is wrong with it, what it is known by."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_checkpoint

from evalkit.errors import ConfigError, ModelError
from evalkit.models import file_hash
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.file_hash import sha256_of_file
from evalkit.models.safetensors_file import read_header
from evalkit.models.spec import ModelSpec

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 2\n"

pytestmark = pytest.mark.usefixtures("own_memory")


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


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model"])
def test_a_file_that_nobody_here_may_read_is_named(
    tmp_path: Path, own_memory: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint("llama", tmp_path / "model")
    plain = io.open

    def refusing(file: Any, *arguments: Any, **named: Any) -> Any:
        if str(file) == str(folder / name):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return plain(file, *arguments, **named)

    monkeypatch.setattr("io.open", refusing)
    with pytest.raises(ModelError, match=rf"model/{name} cannot be read \(Permission denied\); see to its permissions"):
        find(folder).fingerprint()
