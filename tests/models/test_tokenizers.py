"""Tokenizers of every family: what is BOS, what is plain text, what a decoded piece adds."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import BOS, EOS, FAMILIES, make_checkpoint, train_byte_level
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from evalkit.errors import ModelError
from evalkit.models.checkpoint import resolve
from evalkit.models.quiet import quiet
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer import CheckpointTokenizer, HuggingFaceTokenizer
from evalkit.models.tokenizer_files import load_tokenizer

TEXTS = [
    "Answer: A",
    "问题：下列哪一项是正确的？\nA. 北京\n答案：",
    "def add(a, b):\n    return a + b\n\n\n",
    "  two  spaces and 1,024.50 ½ ①②",
    "é e\u0301 🙂 \u200b\ttab\r\n",
    "</s> and <pad> and <s> and <unk> are text",
    "",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_checkpoint(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(params=list(FAMILIES))
def tokenizer(request: pytest.FixtureRequest, folders: dict[str, Path]) -> CheckpointTokenizer:
    return load(folders[request.param])


def load(folder: Path, add_bos: bool | None = None) -> CheckpointTokenizer:
    spec = ModelSpec("tiny", str(folder), add_bos=add_bos)
    return load_tokenizer(resolve(spec), spec)


def without_bos(tokenizer: CheckpointTokenizer, text: str) -> list[int]:
    bos_id = tokenizer.describe()["bos_id"]
    return tokenizer.encode([text])[0][0 if bos_id is None else 1 :]


@pytest.mark.parametrize(
    ("family", "bos_id"),
    [("gpt_neo", None), ("opt", 0), ("gpt_neox", None), ("bloom", None), ("llama", 1), ("qwen", None)],
)
def test_bos_is_put_in_front_where_the_family_has_one(
    folders: dict[str, Path], family: str, bos_id: int | None
) -> None:
    tokenizer = load(folders[family])
    assert tokenizer.describe()["bos_id"] == bos_id
    ids = tokenizer.encode(["Answer: A", "B"])
    assert [one[0] == bos_id for one in ids] == [bos_id is not None] * 2
    assert tokenizer.encode(["Answer: A"], for_generation=True) == ids[:1]


@pytest.mark.parametrize("family", ["opt", "llama", "bloom"])
def test_the_models_config_overrules_the_files_on_bos(folders: dict[str, Path], family: str) -> None:
    with_bos, without = load(folders[family], add_bos=True), load(folders[family], add_bos=False)
    assert with_bos.encode(["A 1"])[0][1:] == without.encode(["A 1"])[0]


def test_many_texts_at_once_give_the_ids_of_one_by_one(tokenizer: CheckpointTokenizer) -> None:
    assert tokenizer.encode(TEXTS * 20) == [tokenizer.encode([text])[0] for text in TEXTS * 20]


def test_text_comes_back_whole(tokenizer: CheckpointTokenizer) -> None:
    for text in TEXTS:
        ids = tokenizer.encode([text], for_generation=True)[0]
        decoded = tokenizer.decode(ids, after=[])
        if tokenizer.describe()["kind"] == "sentencepiece":  # its own normalisation: NFKC, single spaces
            assert decoded.split() == normalised(text).split()
        else:
            assert decoded == text


def normalised(text: str) -> str:
    return str(sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc").normalize(text)).replace("▁", " ")


def test_strings_that_look_like_special_tokens_are_plain_text(tokenizer: CheckpointTokenizer) -> None:
    special = {tokenizer.eos_id, *map(tokenizer.id_of, (BOS, EOS, "<pad>", "<unk>", "<|endoftext|>", "<|im_end|>"))}
    for look_alike in (BOS, EOS, "<pad>", "a</s>b", "<|endoftext|>"):
        assert not special & set(without_bos(tokenizer, look_alike))


def test_special_tokens_leave_nothing_behind(tokenizer: CheckpointTokenizer) -> None:
    ids = tokenizer.encode(["Answer: A"])[0]
    assert tokenizer.eos_id is not None
    assert tokenizer.decode([*ids, tokenizer.eos_id], after=[]) == "Answer: A"
    assert tokenizer.decode([tokenizer.eos_id], after=ids) == ""


def test_rows_of_the_output_matrix_without_a_token_leave_nothing_behind(tokenizer: CheckpointTokenizer) -> None:
    ids = tokenizer.encode(["Answer:"])[0]
    assert tokenizer.decode([tokenizer.vocabulary_size, tokenizer.vocabulary_size + 30], after=ids) == ""


@pytest.mark.parametrize("text", ["Answer: A", "a = 1\n    b", "答案：北京 B", "16 bolts 🙂 are", "x\n\n  y"])
def test_a_decoded_continuation_is_what_the_text_continues_with(tokenizer: CheckpointTokenizer, text: str) -> None:
    """Leading spaces survive, for every split of the ids."""
    ids = tokenizer.encode([text], for_generation=True)[0]
    whole = tokenizer.decode(ids, after=[])
    start = 0 if tokenizer.describe()["bos_id"] is None else 1
    for cut in range(start, len(ids) + 1):
        before, added = ids[:cut], tokenizer.decode(ids[cut:], after=ids[:cut])
        assert tokenizer.decode(before, after=[]).rstrip("\ufffd") + added == whole


def test_a_streamed_continuation_never_takes_back_what_it_showed(tokenizer: CheckpointTokenizer) -> None:
    ids = tokenizer.encode(["Answer: 🙂 is é, 北京 and 16 bolts"], for_generation=True)[0]
    prompt, new = ids[:3], ids[3:]
    shown = ""
    for count in range(1, len(new) + 1):
        text = tokenizer.decode(new[:count], after=prompt).rstrip("\ufffd")
        assert text.startswith(shown)
        shown = text


def test_the_decoded_text_does_not_depend_on_how_far_back_the_prompt_goes(tokenizer: CheckpointTokenizer) -> None:
    ids = tokenizer.encode(["The following are multiple choice questions. " * 5 + "Answer: A 12"])[0]
    assert tokenizer.decode(ids[-4:], after=ids[:-4]) == tokenizer.decode(ids[-4:], after=ids[-24:-4])


@pytest.mark.parametrize("family", ["gpt_neo", "gpt_neox", "bloom", "opt"])
def test_ids_equal_those_of_transformers_own_tokenizer(folders: dict[str, Path], family: str) -> None:
    with quiet():
        theirs = AutoTokenizer.from_pretrained(folders[family])
    texts = [text for text in TEXTS if "</s>" not in text]
    ids = [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert ids == [without_bos(load(folders[family]), text) for text in texts]


def test_a_sentencepiece_model_that_comes_alone_is_run_by_sentencepiece(folders: dict[str, Path]) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(folders["llama"] / "tokenizer.model"))
    for text in TEXTS:
        assert without_bos(load(folders["llama"]), text) == model.encode(text)


BYTE_LEVEL = HuggingFaceTokenizer(train_byte_level(), bos_id=None, eos_id=0)


@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_text_survives_a_byte_level_round_trip(texts: Sequence[str]) -> None:
    for text, ids in zip(texts, BYTE_LEVEL.encode(texts), strict=True):
        assert BYTE_LEVEL.decode(ids, after=[]) == text


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint("bloom", tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer that can be read.*fetch its tokenizer files"):
        load(folder)


@pytest.mark.parametrize(
    ("family", "file"), [("bloom", "tokenizer.json"), ("llama", "tokenizer.model"), ("opt", "merges.txt")]
)
def test_a_tokenizer_file_cut_short_is_refused(tmp_path: Path, family: str, file: str) -> None:
    path = make_checkpoint(family, tmp_path) / file
    path.write_bytes(path.read_bytes()[:700] + b"\n\xff\xfe broken")
    with pytest.raises(ModelError, match=file):
        load(tmp_path)


def test_bos_that_the_tokenizer_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint("bloom", tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no BOS token"):
        load(folder, add_bos=True)


@pytest.mark.smollm2
def test_smollm2_from_gguf_splits_digits_one_by_one(smollm2_gguf: Path) -> None:
    """transformers' own reading of the file loses that step; on text without digits both agree."""
    ours = load(smollm2_gguf)
    with quiet():
        theirs = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    plain = ["Answer: A", "def add(a, b):\n    return a + b\n\n", "问题：下列哪一项\nA. 北京\n答案：", "  é 🙂 don't"]
    assert ours.encode(plain) == [theirs.encode(text) for text in plain]
    for text in ("①②", "x²³", "½", "(1)2", "Ⅷ Ⅸ"):
        ids = ours.encode([text])[0]
        assert ours.decode(ids, after=[]) == text
    for text in ("a:\n\n1. b", "x  2", "\t\t3"):  # a run of spaces in front of a digit stays whole
        assert ours.encode([text])[0] != theirs.encode(text)
        assert ours.encode([text])[0] == [i for part in re.split(r"(?=\d)", text) for i in ours.encode([part])[0]]
    assert [ours.id_of(digit) for digit in "2024"] == ours.encode(["2024"])[0]


@pytest.mark.smollm2
def test_smollm2s_tokenizer_is_the_published_rule_step_by_step(smollm2_gguf: Path) -> None:
    backend: Tokenizer = load(smollm2_gguf)._backend  # type: ignore[attr-defined]
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("in 1492, x²=16")]  # type: ignore[union-attr]
    assert pieces == ["in", "Ġ", "1", "4", "9", "2", ",", "Ġx", "Â²", "=", "1", "6"]
