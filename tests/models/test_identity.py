"""A name that a model's configuration pins belongs to that checkpoint alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Result
from own_checkpoints import llama_gguf, llama_with_bos, qwen2
from tiny_models import make_checkpoint

from evalkit.cli import call
from evalkit.commands.models import read_spec
from evalkit.errors import ModelError
from evalkit.models import hub
from evalkit.models.checkpoint import resolve
from evalkit.models.identity import pinned_of, refuse_another
from evalkit.models.spec import FACTS, ModelSpec
from evalkit.plugins import options_of

TASK = (
    "task=mmlu",
    "data_dir=bundled",
    "limit=1",
    "backend.num_checked=0",
    "model.device=cpu",
    "tasks.mmlu.num_fewshot=1",
)

pytestmark = pytest.mark.usefixtures("own_memory")


@pytest.fixture
def own_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes a model's file of one's own."""
    folder = tmp_path / "own" / "configs" / "model"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EVALKIT_PATH", str(folder.parents[1]))

    def write(name: str, **keys: Any) -> None:
        content = {"_target_": "evalkit.models.spec.ModelSpec", "name": name, **keys}
        (folder / f"{name}.yaml").write_text(json.dumps(content))

    return write


@pytest.mark.parametrize("name", options_of("model"))
def test_every_packaged_model_says_what_its_checkpoint_is(name: str) -> None:
    assert set(read_spec(name).facts or {}) == set(FACTS)


def test_the_card_says_the_same_of_its_model() -> None:
    assert read_spec("qwen-1_8b").facts == {
        "model_type": "qwen", "layers": 24, "heads": 16, "hidden_size": 2048, "vocab_size": 151936,
        "quantization": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("model=qwen-1_8b", "model.path={folder}"),
        ("model={folder}",),
        ("model={other}", "model.name=qwen-1_8b"),
    ],
)
@pytest.mark.parametrize("more", [(), ("dry_run=true",)])
def test_another_checkpoint_is_filed_under_no_models_name_by_no_way(
    evalkit: Callable[..., Result], tmp_path: Path, words: tuple[str, ...], more: tuple[str, ...]
) -> None:
    folder, other = qwen2(tmp_path / "qwen-1_8b"), qwen2(tmp_path / "other")
    result = evalkit(*TASK, *more, *(word.format(folder=folder, other=other) for word in words))
    assert result.code == 3
    assert "is not qwen-1_8b: its config.json says model type qwen2 (not qwen), 2 layers (not 24)" in result.line
    assert "file it under a name of its own with" in result.line
    assert "model.name=NAME" in result.line
    assert (f"with model={other} or" in result.line) is ("{other}" in words[0])
    assert not (tmp_path / "results").exists()


def test_what_the_line_advises_is_done(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    folder = llama_with_bos(tmp_path / "my tune 微调")
    result = evalkit(*TASK, f"model={folder}")
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "results/my-tune-微调/mmlu/summary.json").read_text())
    assert summary["model"] == "my-tune-微调"
    assert summary["provenance"]["model"]["taken_from"]["end_of_text"]["2"] == "generation_config.json"
    assert "BOS id 0" in result.err
    assert (
        "taken\\_from.bos" in (report := (tmp_path / "results/my-tune-微调/report.md").read_text())
        or "taken_from.bos" in report
    )
    again = evalkit(*TASK, f"model={folder}/")
    assert (again.code, "4 questions, 4 already answered" in again.err) == (0, True)


def test_a_second_checkpoint_of_the_same_name_is_told_to_take_another(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    one, two = llama_with_bos(tmp_path / "a/tune"), qwen2(tmp_path / "b/tune")
    assert evalkit(*TASK, f"model={one}").code == 0
    refused = evalkit(*TASK, f"model={two}")
    assert (refused.code, "a name of its own (model.name=NAME)" in refused.line) == (2, True)
    assert evalkit(*TASK, f"model={two}", "model.name=tune-2").code == 0


def test_a_gguf_file_is_a_model(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    file = llama_gguf(tmp_path / "files" / "tune.Q8.gguf")
    assert evalkit(*TASK, f"model={file}").code == 0
    assert (tmp_path / "results/tune.Q8/mmlu/summary.json").is_file()
    with pytest.raises(ModelError, match=r"is not smollm2-135m: its header says 2 layers \(not 30\), 4 heads"):
        refuse_another(ModelSpec("smollm2-135m", str(file)))


def test_a_place_that_does_not_exist_is_one_line(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    for place in ("./nowhere", "/no/where", "nowhere.gguf", "~nobody-here/x", "~/nowhere"):
        result = evalkit(*TASK, f"model={place}")
        assert (result.code, len(result.err.strip().splitlines())) == (3, 1), result.err
        assert f"no model at {place}" in result.line
    assert not (tmp_path / "results").exists()


def test_home_is_written_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    qwen2(tmp_path / "tune")
    assert resolve(ModelSpec("tune", "~/tune")).model_type == "qwen2"


def test_the_same_architecture_elsewhere_is_filed_and_said_to_be(
    tmp_path: Path, own_configs: Callable[..., None]
) -> None:
    folder = make_checkpoint("gpt_neox", tmp_path / "copy")
    facts = {"model_type": "gpt_neox", "layers": 3, "heads": 2, "hidden_size": 32, "vocab_size": 512}
    own_configs("row", path="nobody/row", facts=facts)
    said = refuse_another(ModelSpec("row", str(folder)))
    assert said is not None
    assert f"{folder} is filed as row: it has that model's architecture" in said
    assert f"file a fine-tune under a name of its own with model={folder} or with model.name=NAME" in said
    own_configs("row", path=str(folder), facts=facts)
    assert refuse_another(ModelSpec("row", str(folder))) is None
    own_configs("row", path=str(folder), facts={**facts, "layers": 4})
    with pytest.raises(ModelError, match=r"is not row: its config.json says 3 layers \(not 4\)"):
        refuse_another(ModelSpec("row", str(folder)))


def test_a_file_of_ones_own_does_not_free_a_packaged_name(tmp_path: Path, own_configs: Callable[..., None]) -> None:
    folder = qwen2(tmp_path / "tune")
    own_configs("qwen-1_8b", path=str(folder))
    with pytest.raises(ModelError, match="is not qwen-1_8b"):
        refuse_another(ModelSpec("qwen-1_8b", str(folder)))
    own_configs("mine", path=str(folder))
    assert refuse_another(ModelSpec("mine", str(folder))) is None
    own_configs("qwen-1_8b", path=str(folder), facts={"layers": 2})
    assert refuse_another(ModelSpec("qwen-1_8b", str(folder))) is None


def test_a_pinned_revision_of_a_hub_id_is_part_of_the_name(
    monkeypatch: pytest.MonkeyPatch, folder: Path, own_configs: Callable[..., None]
) -> None:
    monkeypatch.setattr(hub, "fetch", lambda *args: folder)
    own_configs("row", path="nobody/row", revision="abc", facts={"layers": 3})
    assert refuse_another(ModelSpec("row", "nobody/row", revision="abc")) is None
    with pytest.raises(ModelError, match="revision step1 of nobody/row is not row, which is revision abc"):
        refuse_another(ModelSpec("row", "nobody/row", revision="step1"))
    own_configs("row", path="nobody/row", facts={"layers": 3})
    assert refuse_another(ModelSpec("row", "nobody/row")) is None
    assert "nobody/row at revision step1 is filed as row" in str(
        refuse_another(ModelSpec("row", "nobody/row", revision="step1"))
    )


def test_a_folder_of_the_hub_ids_name_is_not_the_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_configs: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    qwen2(tmp_path / "nobody" / "row")
    own_configs("row", path="nobody/row", facts={"layers": 2})
    assert "nobody/row is filed as row" in str(refuse_another(ModelSpec("row", "nobody/row")))


def test_a_hub_id_that_has_a_name_is_told_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(hub, "fetch", lambda *args: folder)
    said = refuse_another(ModelSpec("Qwen-1_8B", "Qwen/Qwen-1_8B"))
    assert (
        said
        == "Qwen/Qwen-1_8B is filed as Qwen-1_8B; it is the model qwen-1_8b, and model=qwen-1_8b files it under that name"
    )
    assert refuse_another(ModelSpec("x", "nobody/x")) is None


def test_the_hubs_weights_in_place_of_a_packages_are_told_on_the_terminal_and_in_the_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_configs: Callable[..., None], evalkit: Callable[..., Result]
) -> None:
    folder = llama_with_bos(tmp_path / "snapshot")
    monkeypatch.setattr(hub, "fetch", lambda *args: folder)
    monkeypatch.setattr(hub, "fetch_small_files", lambda *args: folder)
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    place = "package:no_such_package/x.gguf"
    own_configs("row", path=place, fallback="nobody/row", facts={"layers": layers})
    done = evalkit(*(word for word in TASK if not word.startswith("model.")), "model=row")
    assert done.code == 0, done.line
    said = (
        f"row: {place} is not installed (`pip install --no-deps no-such-package`), so nobody/row of the hub stands in"
    )
    assert said in done.err
    summary = json.loads((tmp_path / "results/row/mmlu/summary.json").read_bytes())
    assert summary["provenance"]["model"]["source"] == f"nobody/row@{folder.name}, in place of {place}"
    assert "nobody/row is filed as row, which has the weights of package:no_such_package/x.gguf" in str(
        refuse_another(ModelSpec("row", "nobody/row"))
    )


def test_what_a_config_does_not_state_is_not_taken_for_granted(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no number of layers \(not 24\)"):
        refuse_another(ModelSpec("qwen-1_8b", str(folder)))


def test_a_backend_that_loads_no_checkpoint_is_not_asked(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    folder = qwen2(tmp_path / "tune")
    words = [word for word in TASK if not word.startswith("backend.")]
    assert evalkit(*words, "model=qwen-1_8b", f"model.path={folder}", "backend=scripted").code == 0


def test_the_command_says_that_a_checkpoint_is_not_what_it_is_called(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["models", "qwen-1_8b", f"path={folder}", "device=cpu"]) == 0
    assert "this is not qwen-1_8b: 3 layers (not 24)" in capsys.readouterr().out


def test_facts_are_of_known_kinds() -> None:
    assert pinned_of("nobody") is None
    with pytest.raises(Exception, match=r"model.facts=.*expected null or some of model_type, layers"):
        ModelSpec("x", "y", facts={"layer": 3})
