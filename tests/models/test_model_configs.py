"""configs/model/: one file per row of the card; and the command that shows a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import make_checkpoint

from evalkit.cli import call
from evalkit.commands.models import PROMPT, read_spec
from evalkit.errors import ConfigError
from evalkit.models.checkpoint import resolve
from evalkit.models.describe import continue_greedily
from evalkit.models.loading import load
from evalkit.plugins import options_of

ROOT = Path(__file__).parents[2]
HUB = {
    "bloom-1b1": "bigscience/bloom-1b1",
    "bloom-1b7": "bigscience/bloom-1b7",
    "bloom-3b": "bigscience/bloom-3b",
    "bloomz-1b7": "bigscience/bloomz-1b7",
    "bloomz-3b": "bigscience/bloomz-3b",
    "gpt-neo-1_3b": "EleutherAI/gpt-neo-1.3B",
    "gpt-neo-2_7b": "EleutherAI/gpt-neo-2.7B",
    "openllama-3b": "openlm-research/open_llama_3b",
    "opt-1_3b": "facebook/opt-1.3b",
    "pythia-1b": "EleutherAI/pythia-1b",
    "pythia-2_8b": "EleutherAI/pythia-2.8b",
    "qwen-1_8b": "Qwen/Qwen-1_8B",
    "qwen-1_8b-chat": "Qwen/Qwen-1_8B-Chat",
    "qwen-1_8b-chat-fp32": "Qwen/Qwen-1_8B-Chat",
    "qwen-1_8b-chat-int8": "Qwen/Qwen-1_8B-Chat-Int8",
    "qwen-1_8b-chat-int4": "Qwen/Qwen-1_8B-Chat-Int4",
}
DTYPE = {"qwen-1_8b-chat": "bfloat16", "qwen-1_8b-chat-fp32": "float32"}  # rows of one checkpoint in several precisions
FAMILY = {"bloom": "bloom", "bloomz": "bloom", "gpt": "gpt_neo", "openllama": "llama", "opt": "opt"}
FAMILY |= {"pythia": "gpt_neox", "qwen": "qwen"}


def test_every_row_of_the_card_with_an_open_checkpoint_has_a_config() -> None:
    card = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "card" / "qwen-1_8b.yaml"))
    assert isinstance(card, dict)
    rows = {row["model"] for table in card["tables"].values() for row in table["rows"] if row.get("model")}
    assert rows <= set(HUB)
    assert {*HUB, "smollm2-135m"} == set(options_of("model"))


@pytest.mark.parametrize("name", list(HUB))
def test_a_config_names_the_publishers_repository(name: str) -> None:
    spec = read_spec(name)
    assert (spec.name, spec.path) == (name, HUB[name])
    assert (spec.dtype, spec.device) == (DTYPE.get(name, "auto"), "auto")


@pytest.mark.parametrize("name", list(HUB))
def test_the_bos_rule_is_stated_and_is_the_familys(name: str) -> None:
    assert read_spec(name).add_bos is (name in ("opt-1_3b", "openllama-3b"))
    text = (ROOT / "configs" / "model" / f"{name}.yaml").read_text("utf-8")
    assert "# BOS:" in text
    assert "# Choices:" in text


@pytest.mark.parametrize("name", list(HUB))
def test_a_checkpoint_of_the_family_loads_under_the_config(tmp_path: Path, name: str) -> None:
    """Its end-of-text token and BOS rule fit what the family's own files hold."""
    family = FAMILY[name.partition("-")[0]]
    folder = make_checkpoint(family, tmp_path)
    end = "</s>" if family in ("gpt_neo", "gpt_neox") else None  # the tiny ones' name for it
    spec = read_spec(
        name, [f"path={folder}", "dtype=float32", "device=cpu", *([f"end_of_text=['{end}']"] if end else [])]
    )
    model = load(resolve(spec), spec)
    ids = model.tokenizer.encode(["Answer:"])[0]
    assert (ids[0] in model.end_of_text_ids or ids[0] == 1) is bool(spec.add_bos)
    assert len(model.end_of_text_ids) == 1


def test_an_unknown_model_or_key_is_answered_with_the_right_names() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown model 'qwen'; did you mean qwen-1_8b\? Use one of bloom-1b1, .*hub id"
    ):
        read_spec("qwen")
    with pytest.raises(ConfigError, match=r"unknown key 'model.pth'; did you mean model.path?"):
        read_spec("qwen-1_8b", ["pth=x"])
    with pytest.raises(ConfigError, match=r"model\.dtype='float8'"):
        read_spec("qwen-1_8b", ["model.dtype=float8"])


def test_the_command_prints_the_table_and_a_continuation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint("qwen", tmp_path)
    assert call(["models", "qwen-1_8b", f"path={folder}", "device=cpu"]) == 0
    out, err = capsys.readouterr()
    facts = dict(
        line.split(maxsplit=1) for line in out.splitlines() if line.startswith(("n_", "d_", "vocab", "seq", "num"))
    )
    assert facts == {
        "n_layers": "3",
        "n_heads": "4",
        "d_model": "32",
        "vocab_size": "688",
        "sequence_length": "1,024",
        "num_parameters": "75,776",
    }
    assert PROMPT in out
    assert err == ""


@torch.inference_mode()
def test_the_continuation_is_greedy(tmp_path: Path) -> None:
    """Token by token what the whole sequence without a cache makes most likely."""
    folder = make_checkpoint("qwen", tmp_path)
    spec = read_spec("qwen-1_8b", [f"path={folder}", "device=cpu"])
    model = load(resolve(spec), spec)
    ids = model.tokenizer.encode([PROMPT], for_generation=True)[0]
    new = []
    for _ in range(6):
        new.append(int(model.network(torch.tensor([ids + new])).logits[0, -1].argmax()))
    assert continue_greedily(model, PROMPT, 6) == model.tokenizer.decode(new, after=ids)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "the following arguments are required: MODEL"),
        (["nothing"], 2, "unknown model"),
        (["qwen-1_8b", "path=/nowhere/at/all"], 3, "no model at /nowhere/at/all"),
        (["qwen-1_8b", "device=tpu"], 2, "model.device='tpu'"),
    ],
)
def test_the_command_fails_in_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["models", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evalkit.models", "bloom-1b1", "path=owner/none"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "`hf download owner/none`" in done.stderr
