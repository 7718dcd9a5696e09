"""Texts tokenised in pieces: the ids are those of the whole, for every tokenizer that claims it."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import train_byte_level
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from evalkit.models.chunks import cut, encode_in_chunks, may_be_cut
from evalkit.models.qwen_tokenizer import PATTERN, QwenTokenizer

BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
KINDS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "bloom": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(BLOOM), "isolated"), BYTES]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), BYTES]),
}
PARTS = st.sampled_from(
    """A|答案：|Answer: |\n|\n\n| |  |\t|\r\n|12|½|①|e\u0301|\u0301|🙂|.|B. |'ll|_|\u00a0|\u2028|\x0b|!\n|<pad>|  \n  """.split(
        "|"
    )
)
TEXTS = st.lists(st.one_of(st.lists(PARTS, max_size=25).map("".join), st.text(max_size=20)), max_size=4)


def build(kind: str, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = train_byte_level()
    tokenizer.pre_tokenizer = KINDS[kind]
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken(" " * size, normalized=False) for size in range(2, 8)])  # as GPT-NeoX has
    return tokenizer


BUILT = {kind: build(kind) for kind in KINDS} | {"qwen2 nfc": build("qwen2", normalizers.NFC())}
TIKTOKEN = QwenTokenizer({bytes([b]): b for b in range(256)} | {b"\n\n": 256, b"A\n": 257, b"\n ": 258})


@settings(max_examples=150)
@given(TEXTS)
@pytest.mark.parametrize("kind", list(BUILT))
def test_pieces_give_the_ids_of_the_whole(kind: str, texts: list[str]) -> None:
    tokenizer = BUILT[kind]
    assert may_be_cut(tokenizer.to_str())

    def encode(some: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(some), add_special_tokens=False)]

    assert encode_in_chunks(texts, encode) == encode(texts)


@settings(max_examples=300)
@given(TEXTS)
def test_pieces_give_the_ids_of_the_whole_with_tiktoken(texts: list[str]) -> None:
    assert TIKTOKEN.encode(texts, for_generation=True) == TIKTOKEN._encode_whole(texts)


@given(st.text(alphabet="A1 .\n"))
def test_pieces_make_up_the_text_and_part_only_behind_letters_and_digits(text: str) -> None:
    pieces = cut(text)
    assert "".join(pieces) == text
    for left, right in itertools.pairwise(pieces):
        assert left[-1] in "A1"
        assert right[0] == "\n"


def test_shared_examples_and_the_prompt_in_front_of_choices_are_encoded_once() -> None:
    asked: list[str] = []

    def encode(pieces: list[str]) -> list[list[int]]:
        asked.extend(pieces)
        return [list(piece.encode()) for piece in pieces]

    shots = "Header 1\n\nQuestion: a\nAnswer: A\n\nQuestion: b\nAnswer: B"
    texts = [f"{shots}\n\nQuestion: {q} 5\nAnswer:{choice}" for q in "xy" for choice in ("", " A", " B")]
    assert encode_in_chunks(texts, encode) == [list(text.encode()) for text in texts]
    assert len(asked) == len(set(asked)) == 3 + 2 + 3
    assert sum(map(len, asked)) < sum(map(len, texts)) / 4


def with_pre_tokenizer(step: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = train_byte_level()
    tokenizer.pre_tokenizer = step
    return tokenizer


@pytest.mark.parametrize(
    "step",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.Split(Regex(r"\w+\n"), "isolated"),
        pre_tokenizers.Split(Regex(BLOOM), "removed"),
        pre_tokenizers.Digits(),
        pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), BYTES]),
    ],
)
def test_a_tokenizer_of_another_kind_is_left_whole(step: pre_tokenizers.PreTokenizer) -> None:
    assert not may_be_cut(with_pre_tokenizer(step).to_str())


@pytest.mark.parametrize(
    "token",
    [AddedToken("A\n"), AddedToken("A", rstrip=True), AddedToken("\n"), AddedToken("A", single_word=True)],
)
def test_an_added_token_that_reaches_over_a_cut_leaves_texts_whole(token: AddedToken) -> None:
    tokenizer = build("gpt2")
    assert may_be_cut(tokenizer.to_str())
    tokenizer.add_tokens([token])
    assert not may_be_cut(tokenizer.to_str())


def test_other_models_and_normalizers_leave_texts_whole() -> None:
    assert not may_be_cut(build("gpt2", normalizers.NFKC()).to_str())
    changed = json.loads(build("gpt2").to_str())
    changed["model"]["dropout"] = 0.1
    assert not may_be_cut(json.dumps(changed))
    changed["model"] |= {"dropout": None, "type": "Unigram"}
    assert not may_be_cut(json.dumps(changed))


@pytest.mark.data
def test_pieces_give_the_ids_of_the_whole_on_the_benchmarks_files(data_dir: Path) -> None:
    texts = [path.read_text("utf-8") for path in sorted(data_dir.rglob("*_dev.csv"))]
    assert len(texts) == 52 + 57
    for kind in ("gpt2", "bloom", "qwen2", "smollm"):
        tokenizer = BUILT[kind]
        whole = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

        def encode(some: Sequence[str], tokenizer: Tokenizer = tokenizer) -> list[list[int]]:
            return [encoding.ids for encoding in tokenizer.encode_batch(list(some), add_special_tokens=False)]

        assert encode_in_chunks(texts, encode) == whole
