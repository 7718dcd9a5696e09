"""model=VALUE: a configuration's name, or a model by its place, however its path is written."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from evalkit.configuration.compose import build, compose, run_jobs
from evalkit.configuration.model_words import with_places
from evalkit.configuration.places import name_of_place
from evalkit.errors import ConfigError
from evalkit.models.spec import ModelSpec

FILE = "_target_: evalkit.models.spec.ModelSpec\nname: {name}\npath: nobody/mine\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALKIT_PATH", raising=False)
    return tmp_path


def model_of(*words: str) -> ModelSpec:
    found: ModelSpec = build(compose(words), "model")
    return found


@pytest.mark.parametrize(
    "place",
    [
        *("my model", "我的模型", "a,b", "a=b", "a (v2)", "it's", 'say "a"', "a'b\\", "[x]", "{y: 1}", "$HOME", "100%"),
        *("null", "5", "true", "a#b", "a;b", "a@b", "~x", "a  b", "-m", "*"),
    ],
)
def test_a_path_needs_no_quoting_for_hydra(here: Path, place: str) -> None:
    (here / "deep" / place).mkdir(parents=True)
    assert model_of(f"model={here / 'deep' / place}").path == str(here / "deep" / place)
    assert model_of("model=qwen-1_8b", f"model.path=deep/{place}").path == f"deep/{place}"


PLACES = ["/a=b", "/a,b", "a b", "/a(b", "/a(b)", "~/x", "/数据/模型", "/a#b", "/a{b", "[x]/a", "/it's", '/say "a"', "5", "1_0", "true"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["model.path", "data_dir"])
def test_a_path_is_taken_as_it_is_written_whether_something_is_there_or_not(key: str, place: str) -> None:
    assert OmegaConf.select(compose([f"{key}={place}"]), key) == place


def test_a_results_folder_is_taken_as_it_is_written_and_its_tilde_is_the_home(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here / "主 (1)"))
    assert compose(["results_dir=/a=b (1),c"]).results_dir == "/a=b (1),c"
    assert compose(["results_dir=~/out"]).results_dir == str(here / "主 (1)" / "out")
    assert compose(["results_dir='my results'"]).results_dir == "my results"


@pytest.mark.parametrize(
    "text", ["1234567", "0123456", "1e5", "0x10", "1_000", "true", "NULL", "none", "nan", "a=b", "~"]
)
@pytest.mark.parametrize("key", ["model.revision", "++model.revision"])
def test_a_revision_is_text_whatever_it_looks_like(key: str, text: str) -> None:
    assert compose([f"{key}={text}"]).model.revision == text


def test_a_name_and_a_revision_of_data_are_text_too() -> None:
    config = compose(["task=mmlu", "model.name=2024", "tasks.mmlu.data.revision=1e5"])
    assert (config.model.name, config.tasks.mmlu.data.revision) == ("2024", "1e5")


def test_null_is_no_revision_and_a_number_in_a_file_is_told_to_be_quoted() -> None:
    assert compose(["model.revision=null"]).model.revision is None
    assert compose(["model.revision='null'"]).model.revision == "null"
    with pytest.raises(
        ConfigError, match=r"model.revision=1234567 is not valid: .* in quotes where it looks like a num"
    ):
        ModelSpec("m", "x/y", revision=1234567)  # type: ignore[arg-type]


def test_in_a_sweep_commas_part_paths_and_revisions() -> None:
    words = with_places(["-m", "model.revision=1234567,main", "data_dir=~/a,/b", "model.path=choice(x/y,x/z)"])
    assert words == ["-m", "model.revision='1234567',main", "data_dir='~/a',/b", "model.path=choice(x/y,x/z)"]


@pytest.mark.parametrize(
    ("word", "typed"),
    [
        ("card.title=a=b", """'card.title="a=b"'"""),
        ("card.title=中文", """'card.title="中文"'"""),
        ("card.title=a(b", """'card.title="a(b"'"""),
        ('card.title=say "a" = b', "'card.title='\"'\"'say \"a\" = b'\"'\"''"),
    ],
)
def test_what_hydra_cannot_read_elsewhere_is_told_with_the_quoting_that_works(word: str, typed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([word])
    assert str(refused.value).endswith(f"in a shell, write {typed}")
    (again,) = shlex.split(typed)
    assert compose([again]).card.title == word.partition("=")[2]


def test_a_place_takes_everything_from_the_checkpoint() -> None:
    assert model_of("model=./x") == ModelSpec("x", "./x")
    assert model_of("model=./x", "model.name=y", "model.dtype=float32") == ModelSpec("y", "./x", dtype="float32")
    assert model_of("model=./x", "model.gguf_file=a.gguf").gguf_file == "a.gguf"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("ORG/Some-Model_1.5B", "Some-Model_1.5B"),
        ("runs/my model (v2)/", "my-model-v2"),
        ("/data/我的模型", "我的模型"),
        ("/data/.hidden", "hidden"),
        ("~/tune", "tune"),
        ("files/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1"),
        ("package:carrier/SmolLM2.Q4_1.GGUF", "SmolLM2.Q4_1"),
        ("/hub/models--ORG--Some-Model/snapshots/0123abcd", "Some-Model"),
        ("/hub/models--gpt2/snapshots/0123abcd/", "gpt2"),
        ("/", "model"),
        ("（）", "model"),
    ],
)
def test_a_model_is_called_as_its_place(place: str, name: str) -> None:
    assert name_of_place(place) == name
    assert ModelSpec(name, place).name == name


def test_dots_are_the_folders_they_stand_for_and_a_link_has_its_own_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = here / "my-tune" / "eval"
    inside.mkdir(parents=True)
    (here / "latest").symlink_to(here / "my-tune")
    monkeypatch.chdir(inside)
    assert [name_of_place(place) for place in (".", "..", "./", "../../latest")] == [
        "eval",
        "my-tune",
        "eval",
        "latest",
    ]


def test_a_name_comes_before_a_folder_of_that_name(here: Path) -> None:
    (here / "qwen-1_8b").mkdir()
    assert model_of("model=qwen-1_8b").path == "Qwen/Qwen-1_8B"
    assert model_of("model=./qwen-1_8b").path == "./qwen-1_8b"


def test_a_bare_name_may_be_a_folder_or_a_file_here(here: Path) -> None:
    (here / "tune").mkdir()
    assert model_of("model=tune").path == "tune"
    assert model_of("model=absent.gguf").name == "absent"


def test_a_misspelt_model_is_told_ones_own_and_the_packaged_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as without:
        model_of("model=qwen-1_8")
    assert str(without.value).startswith("unknown model 'qwen-1_8'; did you mean qwen-1_8b? Use one of bloom-1b1, ")
    assert str(without.value).endswith("; or name a folder, a .gguf file or a hub id (ORG/NAME)")
    groups = here / "own" / "configs" / "model"
    groups.mkdir(parents=True)
    (groups / "my-llama.yaml").write_text(FILE.format(name="my-llama"))
    monkeypatch.setenv("EVALKIT_PATH", str(here / "own"))
    with pytest.raises(
        ConfigError, match=r"'my-lama'; did you mean my-llama\? Use one of own: my-llama; packaged: bloom"
    ):
        model_of("model=my-lama")


def test_several_without_a_sweep_are_told_to_be_one() -> None:
    with pytest.raises(ConfigError, match=r"model=pythia-1b,\./x: one run has one model; .* a sweep: add -m"):
        model_of("model=pythia-1b,./x")


def test_a_path_that_a_configuration_cannot_hold_is_one_line(here: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written in a configuration"):
        model_of("model=./${x}")


def test_a_value_quoted_for_hydra_is_the_value() -> None:
    assert model_of("model='./my model'").path == "./my model"
    assert model_of("model='qwen-1_8b'").name == "qwen-1_8b"


def test_words_that_choose_no_place_stay_as_they_are() -> None:
    words = ["-m", "model=choice(pythia-1b,opt-1_3b)", "task=mmlu", "model.path=nobody/x"]
    assert with_places(words) == words
    assert with_places(["model=null"]) == ["model=null"]


def test_a_sweep_goes_over_names_and_places_and_every_run_keeps_its_command(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "my, model").mkdir()
    words = ["evalkit", "-m", "task=mmlu", "model=pythia-1b,./my, model,org/x", "hydra.output_subdir=null"]
    monkeypatch.setattr("sys.argv", words)
    seen: list[Any] = []
    commands = []

    def job(config: Any) -> None:
        seen.append(OmegaConf.to_container(config.model))
        commands.append(list(sys.argv))

    run_jobs(job, words[1:])
    assert [(model["name"], model["path"]) for model in seen] == [
        ("pythia-1b", "EleutherAI/pythia-1b"),
        ("my-model", "./my, model"),
        ("x", "org/x"),
    ]
    assert commands == [words] * 3


def test_an_experiments_file_may_name_a_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "own" / "configs" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /model: {}\nlimit: 3\n"
    (folder / "mine.yaml").write_text(text.format("/data/my llama"))
    monkeypatch.setenv("EVALKIT_PATH", str(here / "own"))
    words = ["experiment=mine"]
    assert with_places(words)[-1].startswith("model=place-my-llama-")
    assert with_places([*words, "model=qwen-1_8b"]) == [*words, "model=qwen-1_8b"]
    (folder / "mine.yaml").write_text(text.format("smollm2-135m"))
    assert with_places(words)[-1] == "model=smollm2-135m"
    seen: list[Any] = []
    (folder / "mine.yaml").write_text(text.format("/data/my llama"))
    monkeypatch.setattr("sys.argv", ["evalkit", *words])
    run_jobs(seen.append, words)
    assert (seen[0].model.path, seen[0].limit) == ("/data/my llama", 3)
