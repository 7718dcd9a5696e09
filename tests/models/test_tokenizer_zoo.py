"""A folder's tokenizer is all of its files: the ids, the added tokens and the beginning of a text are AutoTokenizer's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tiny_models import BOS, EOS, make_checkpoint, train_byte_level, train_sentencepiece
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from evalkit.errors import ModelError
from evalkit.models.checkpoint import resolve
from evalkit.models.quiet import quiet
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer import CheckpointTokenizer
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.models.tokenizer_source import tokenizer_of

# Not with the lowest versions: what AutoTokenizer makes of a folder is that of the transformers at hand.
pytestmark = pytest.mark.slow

TEXTS = (
    "Answer: 1,024 and 3.05, x = 12 + 30?",
    "a<tok>b <tok> c<tok>",
    "<tok>",
    "def add(a, b):\n    return a  +  b\n\n\n",
    "问题：下列哪一项是正确的？\nA. 北京\n答案：",
    "é e\u0301 ½ 🙂\ttab\r\n",
    "",
)
SPACED = (" lead", " <tok> a")
Names = dict[str, Any]
NAMED: Names = {"bos_token": EOS, "eos_token": EOS}
TOKEN: Names = {"content": "<tok>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
TURN: Names = {**TOKEN, "content": "<|turn|>", "normalized": False, "special": True}


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def gpt2(folder: Path, **config: Any) -> Path:
    """vocab.json and merges.txt, as OPT ships them."""
    train_byte_level().model.save(str(folder))
    write(folder / "config.json", {"model_type": "gpt2", "vocab_size": 512})
    write(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", **NAMED, **config})
    return folder


def one_json(folder: Path, family: str = "gpt_neox", begins: bool = False, **config: Any) -> Path:
    """tokenizer.json, its post-processor with BOS or without."""
    tokenizer = train_byte_level()
    if config.get("tokenizer_class") == "GPTNeoXTokenizer":
        tokenizer.normalizer = normalizers.NFC()  # as Pythia's has it
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "config.json", {"model_type": family, "vocab_size": 512})
    write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **NAMED, **config})
    return folder


def pieces(folder: Path, **config: Any) -> Path:
    """A SentencePiece model alone that leaves texts as they are, as Llama's does."""
    train_sentencepiece(folder, normalization_rule_name="identity", remove_extra_whitespaces=False)
    write(folder / "config.json", {"model_type": "llama", "vocab_size": 512})
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": BOS, "eos_token": EOS, "unk_token": "<unk>"}
    write(folder / "tokenizer_config.json", {**settings, **config})
    return folder


def with_added(folder: Path, **tokens: int) -> Path:
    write(folder / "added_tokens.json", {"<tok>": 480, **tokens})
    return folder


def decoder(**flags: bool) -> dict[str, Any]:
    return {"480": {**TOKEN, "special": False, **flags}, "481": TURN}


def both_saved(folder: Path) -> Path:
    """tokenizer.json and tokenizer_config.json as transformers saves them, with tokens added by a user."""
    one_json(folder)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["<tok>", AddedToken("<w>", lstrip=True)])
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
        tokenizer.save_pretrained(folder)
    return folder


ZOO: dict[str, Callable[[Path], Path]] = {
    "gpt2": gpt2,
    "gpt2, space in front": lambda f: gpt2(f, add_prefix_space=True),
    "gpt2, BOS": lambda f: gpt2(f, add_bos_token=True),
    "gpt2, added_tokens.json": lambda f: with_added(gpt2(f)),
    "gpt2, space in front, added_tokens.json": lambda f: with_added(gpt2(f, add_prefix_space=True, add_bos_token=True)),
    "gpt2, special in added_tokens.json": lambda f: with_added(
        gpt2(f, additional_special_tokens=["<|turn|>"]), **{"<|turn|>": 481}
    ),
    "gpt2, added_tokens_decoder": lambda f: gpt2(f, added_tokens_decoder=decoder()),
    "gpt2, added_tokens_decoder, stripping": lambda f: gpt2(
        f, added_tokens_decoder=decoder(lstrip=True, rstrip=True, normalized=False)
    ),
    "json": one_json,
    "json, post-processor": lambda f: one_json(f, begins=True),
    "json, flag for": lambda f: one_json(f, add_bos_token=True),
    "json, flag against post-processor": lambda f: one_json(f, begins=True, add_bos_token=False),
    "json, GPTNeoX against post-processor": lambda f: one_json(f, begins=True, tokenizer_class="GPTNeoXTokenizer"),
    "json, GPT-2, flag for": lambda f: one_json(f, tokenizer_class="GPT2Tokenizer", add_bos_token=True),
    "json, GPT-2, space in front": lambda f: one_json(
        f, "gpt2", tokenizer_class="GPT2Tokenizer", add_prefix_space=True
    ),
    "json, Llama, post-processor": lambda f: one_json(f, "llama", True, tokenizer_class="LlamaTokenizerFast"),
    "json, added_tokens.json": lambda f: with_added(one_json(f)),
    "json, added_tokens_decoder": lambda f: one_json(f, added_tokens_decoder=decoder()),
    "json, saved with added tokens": both_saved,
    "pieces": lambda f: pieces(f, add_bos_token=True),
    "pieces, no BOS": lambda f: pieces(f, add_bos_token=False),
    "pieces, nothing stated": pieces,
    "pieces, added_tokens.json": lambda f: with_added(pieces(f, add_bos_token=True)),
    "pieces, added_tokens.json, legacy": lambda f: with_added(pieces(f, add_bos_token=True, legacy=True)),
    "pieces, added_tokens_decoder": lambda f: pieces(f, added_tokens_decoder=decoder(), add_bos_token=True),
}


def ours(folder: Path, **settings: Any) -> CheckpointTokenizer:
    return tokenizer_of(ModelSpec("tiny", str(folder), **settings), str(folder))[0]


def theirs(folder: Path) -> Any:
    with quiet():
        return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_ids_are_those_of_auto_tokenizer(name: str, tmp_path: Path) -> None:
    folder = ZOO[name](tmp_path)
    tokenizer, auto = ours(folder), theirs(folder)
    texts = TEXTS if name.startswith("pieces") else TEXTS + SPACED
    assert tokenizer.encode(texts) == [auto.encode(text) for text in texts]
    for text, index in auto.get_added_vocab().items():
        if index in range(480, 484) and text != "<|endoftext|>" and "GPTNeoX" not in name:
            assert tokenizer.id_of(text) == index, text


def test_a_sentencepiece_texts_first_space_is_the_models_own_and_not_lost(tmp_path: Path) -> None:
    """AutoTokenizer's conversion has one space less in front of such a text; a note says so."""
    tokenizer = ours(pieces(tmp_path, add_bos_token=True))
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert tokenizer.encode([" lead"]) == [[1, *model.encode(" lead")]]
    assert "otherwise than tokenizer.model, which is followed here" in tokenizer.notes[0]


def test_the_end_that_only_an_added_token_names_is_known_and_its_text_is_read(tmp_path: Path) -> None:
    folder = with_added(gpt2(tmp_path, eos_token="<|turn|>"), **{"<|turn|>": 481})
    tokenizer = ours(folder)
    assert tokenizer.eos_id == 481
    assert tokenizer.vocabulary_size == 482
    assert tokenizer.decode([480, 481], after=()) == "<tok>"
    assert tokenizer.decode([480, 481], after=(), keep_special=True) == "<tok><|turn|>"
    assert tokenizer.encode(["<|turn|>"]) != [[481]]  # text that looks like a special token stays text


def test_a_sentencepiece_model_knows_special_tokens_that_are_added(tmp_path: Path) -> None:
    folder = make_checkpoint("llama", tmp_path)  # its model normalises texts itself
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder / "tokenizer_config.json", {**config, "eos_token": "<|turn|>"})
    write(folder / "added_tokens.json", {"<|turn|>": 480})
    spec = ModelSpec("tiny", str(folder))
    tokenizer = load_tokenizer(resolve(spec), spec)
    assert (tokenizer.eos_id, tokenizer.id_of("<|turn|>"), tokenizer.vocabulary_size) == (480, 480, 481)
    ids = tokenizer.encode(["Answer: A"])[0]
    assert tokenizer.decode([*ids[3:], 480], after=ids[:3], keep_special=True).endswith("A<|turn|>")
    assert not tokenizer.decode([480], after=ids)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda f: with_added(gpt2(f), **{"<|turn|>": 500}), r"added_tokens.json gives '<\|turn\|>' the id 500"),
        (lambda f: with_added(one_json(f), a=490), "added_tokens.json gives 'a' the id 490"),
        (lambda f: one_json(f, added_tokens_decoder={"7": TURN}), r"tokenizer_config.json gives '<\|turn\|>' the id 7"),
        (lambda f: gpt2(f, added_tokens_decoder={"x": TURN}), "added_tokens_decoder: 'x' is no id"),
        (lambda f: with_added(gpt2(f), b="c"), "added_tokens.json: 'b' has 'c' where its id belongs"),  # type: ignore[arg-type]
        (lambda f: with_added(pieces(f), a=7), "added_tokens.json gives 'a' the id 7"),
        (lambda f: with_added(make_checkpoint("llama", f)), "added_tokens.json adds '<tok>' to the text that token"),
        (lambda f: with_added(make_checkpoint("qwen", f)), "added_tokens.json adds the token '<tok>', which the token"),
    ],
)
def test_files_that_are_not_understood_are_named_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], line: str
) -> None:
    folder = make(tmp_path)
    with pytest.raises(ModelError, match=line) as caught:
        ours(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "source", "note"),
    [
        (
            "json, flag for",
            "as AutoTokenizer (TokenizersBackend) has it, against add_bos_token",
            "add_bos=true goes by",
        ),
        ("json, flag against post-processor", "as AutoTokenizer (TokenizersBackend) has it", "add_bos=false goes by"),
        ("json, GPTNeoX against post-processor", "has it, against tokenizer.json", "begins no text with BOS, unlike"),
        ("pieces, nothing stated", "the tokenizer's own rule", "nothing says whether a text begins with BOS"),
    ],
)
def test_files_that_disagree_on_bos_are_one_warning(name: str, source: str, note: str, tmp_path: Path) -> None:
    folder = ZOO[name](tmp_path)
    tokenizer = ours(folder)
    assert source in tokenizer.bos_source
    assert sum(note in one for one in tokenizer.notes) == 1
    flag = not tokenizer.describe()["bos_id"] is not None
    assert (ours(folder, add_bos=flag).describe()["bos_id"] is not None) is flag
    assert not [one for one in ours(folder, add_bos=flag).notes if "BOS" in one or "add_bos" in one]


@pytest.mark.parametrize("name", ["json", "json, post-processor", "gpt2, BOS", "json, saved with added tokens"])
def test_files_that_agree_are_no_warning(name: str, tmp_path: Path) -> None:
    assert ours(ZOO[name](tmp_path)).notes == ()


def test_a_splitting_step_that_auto_tokenizer_loses_is_kept_and_told(tmp_path: Path) -> None:
    """SmolLM2's folder: transformers' GPT2Tokenizer drops the step that splits digits one by one."""
    folder = one_json(tmp_path, "llama", tokenizer_class="GPT2Tokenizer")
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = ours(folder)
    assert tokenizer.encode(["2024"])[0] == [tokenizer.id_of(digit) for digit in "2024"]
    assert "AutoTokenizer (GPT2Tokenizer of transformers" in tokenizer.notes[0]


def fingerprint_rules(folder: Path) -> dict[str, Any]:
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    found: Any = resolve(ModelSpec("tiny", str(folder))).fingerprint()["rules"]
    return {
        key: value for key, value in found.items() if key not in ("tokenizer", "add_bos", "end_of_text", "default_eos")
    }


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("gpt2", {}),
        ("gpt2, BOS", {}),
        ("json, post-processor", {}),
        ("json, saved with added tokens", {}),
        ("pieces", {}),
        ("gpt2, added_tokens.json", {"added_tokens": ["<tok>"]}),
        ("pieces, added_tokens_decoder", {"added_tokens": ["<tok>", "<|turn|>"]}),
        ("gpt2, space in front", {"add_prefix_space": True}),
        ("json, flag for", {"bos": "AutoTokenizer"}),
        ("pieces, nothing stated", {"bos": "AutoTokenizer"}),
    ],
)
def test_answers_by_other_ids_are_not_taken_over_and_others_stay(name: str, rules: Names, tmp_path: Path) -> None:
    assert fingerprint_rules(ZOO[name](tmp_path)) == rules
