"""The rule for prompts and choices: one text is tokenised, what follows the prompt's own tokens is scored."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, make_checkpoint, train_byte_level

from evalkit.errors import ConfigError, ModelError
from evalkit.models.base import TextTokenizer
from evalkit.models.checkpoint import resolve
from evalkit.models.continuations import (
    common_prefix_length,
    encode_choice_request,
    encode_choice_requests,
    encode_generate_request,
    encode_generate_requests,
    fit_shots,
)
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer import HuggingFaceTokenizer
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.prompts import Prompt
from evalkit.types import DropShots, GenerateRequest, LoglikelihoodRequest, Truncation

CHOICES = (" A", " B", " C", " D")


class PairTokenizer:
    """Two characters of one kind in a row are one token: what follows a prompt can change its last token."""

    def __init__(self, bos: int | None = None) -> None:
        self.bos = [] if bos is None else [bos]
        self.generation = False

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        self.generation = for_generation
        return [self.bos + self._ids(text) for text in texts]

    def _ids(self, text: str) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            pair = text[at : at + 2]
            ids.append(ord(pair[0]) + 1000 * (len(pair) == 2 and pair[0] == pair[1]))
            at += 2 if ids[-1] >= 1000 else 1
        return ids

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int]) -> str:
        return "".join(chr(i % 1000) * (1 + (i >= 1000)) for i in new_ids)


def choose(prompt: str, *continuations: str, truncation: Truncation | None = None) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(prompt, continuations, truncation)


def test_the_scored_tokens_are_those_behind_the_prompts_own() -> None:
    encoded = encode_choice_request(PairTokenizer(), choose("xyz", "ab", "c"))
    assert encoded.prompt_ids == tuple(map(ord, "xyz"))
    assert encoded.continuation_ids == ((ord("a"), ord("b")), (ord("c"),))
    assert encoded.context_lengths == (3, 3)
    assert not encoded.truncated


def test_a_choice_that_merges_with_the_prompts_end_is_scored_from_there() -> None:
    encoded = encode_choice_request(PairTokenizer(), choose("xya", "ab", "b"))
    assert encoded.prompt_ids == tuple(map(ord, "xya"))
    assert encoded.continuation_ids == ((1000 + ord("a"), ord("b")), (ord("b"),))
    assert encoded.context_lengths == (2, 3)
    assert encoded.context(0) == tuple(map(ord, "xy"))


def test_truncation_keeps_the_last_tokens_and_counts_the_prompts_own() -> None:
    encoded = encode_choice_request(PairTokenizer(), choose("uvwxya", "ab", "b", truncation=Truncation(5, 4)))
    assert encoded.truncated
    assert encoded.prompt_ids == tuple(map(ord, "wxya"))
    assert [encoded.context(0), encoded.context(1)] == [tuple(map(ord, "wxy")), tuple(map(ord, "wxya"))]
    at_the_limit = encode_choice_request(PairTokenizer(), choose("vwxya", "b", truncation=Truncation(5, 4)))
    assert at_the_limit.prompt_ids == tuple(map(ord, "vwxya"))
    assert not at_the_limit.truncated


def test_truncation_counts_bos_and_drops_it_first() -> None:
    encoded = encode_choice_request(PairTokenizer(bos=7), choose("wxyz", "a", truncation=Truncation(4, 4)))
    assert encoded.prompt_ids == tuple(map(ord, "wxyz"))
    assert encoded.truncated


def test_bos_is_context_enough_for_a_choice_that_merges_with_the_whole_prompt() -> None:
    encoded = encode_choice_request(PairTokenizer(bos=7), choose("a", "a"))
    assert encoded.context(0) == (7,)
    assert encoded.continuation_ids == ((1000 + ord("a"),),)


@pytest.mark.parametrize(("prompt", "choice"), [("", "a"), ("a", "a")])
def test_a_choice_without_any_context_is_refused(prompt: str, choice: str) -> None:
    with pytest.raises(ModelError, match="no token is left in front of the choice 'a'"):
        encode_choice_request(PairTokenizer(), choose(prompt, choice))


def test_an_empty_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="a continuation is empty"):
        encode_choice_request(PairTokenizer(), choose("x", "a", ""))


def test_a_prompt_to_continue_takes_the_generation_path_and_its_truncation() -> None:
    tokenizer = PairTokenizer()
    encoded = encode_generate_request(tokenizer, GenerateRequest("wxyz", ("\n",), 5, Truncation(3, 2)))
    assert encoded.prompt_ids == tuple(map(ord, "yz"))
    assert encoded.truncated
    assert tokenizer.generation
    encode_choice_request(tokenizer, choose("x", "y"))
    assert not tokenizer.generation


def test_an_empty_prompt_to_continue_is_refused() -> None:
    with pytest.raises(ModelError, match="the prompt has no tokens"):
        encode_generate_request(PairTokenizer(), GenerateRequest("", (), 5))
    assert encode_generate_request(PairTokenizer(bos=7), GenerateRequest("", (), 5)).prompt_ids == (7,)


@given(st.text(alphabet="ab c", max_size=12), st.lists(st.text(alphabet="ab c", min_size=1, max_size=4), max_size=3))
def test_context_and_choice_are_always_the_tokens_of_the_whole(prompt: str, choices: list[str]) -> None:
    tokenizer = PairTokenizer(bos=7)
    encoded = encode_choice_request(tokenizer, choose(prompt, *choices))
    for index, choice in enumerate(choices):
        whole = encoded.context(index) + encoded.continuation_ids[index]
        assert list(whole) == tokenizer.encode([prompt + choice])[0]
        assert encoded.continuation_ids[index]


@given(st.lists(st.text(alphabet="Aa1 \n.", max_size=10), max_size=4))
def test_many_requests_at_once_are_encoded_as_one_by_one(prompts: list[str]) -> None:
    requests = [choose("Q" + prompt, *CHOICES, truncation=Truncation(6, 5)) for prompt in prompts]
    assert encode_choice_requests(BYTE_LEVEL, requests) == [
        encode_choice_request(BYTE_LEVEL, request) for request in requests
    ]
    generate = [GenerateRequest("Q" + prompt, (), 5) for prompt in prompts]
    assert encode_generate_requests(BYTE_LEVEL, generate) == [
        encode_generate_request(BYTE_LEVEL, request) for request in generate
    ]


BYTE_LEVEL = HuggingFaceTokenizer(train_byte_level(), bos_id=None, eos_id=0)


def test_more_requests_than_are_tokenised_at_once_keep_their_order() -> None:
    requests = [choose(f"question {number}\nAnswer:", *CHOICES) for number in range(600)]
    encoded = encode_choice_requests(BYTE_LEVEL, requests)
    assert [BYTE_LEVEL.decode(one.prompt_ids, after=[]) for one in encoded] == [one.prompt for one in requests]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_one_letter_choices_are_the_last_token_of_prompt_and_choice(tmp_path: Path, family: str) -> None:
    """What a family's tokenizer makes of " A" and "A" behind the benchmarks' own endings."""
    spec = ModelSpec("tiny", str(make_checkpoint(family, tmp_path)))
    tokenizer: TextTokenizer = load_tokenizer(resolve(spec), spec)
    for prompt, choices in (("Question: x\nAnswer:", CHOICES), ("问题：x\n答案：", ("A", "B", "C", "D"))):
        encoded = encode_choice_request(tokenizer, choose(prompt, *choices))
        assert encoded.context_lengths == (len(encoded.prompt_ids),) * 4
        for choice, ids in zip(choices, encoded.continuation_ids, strict=True):
            assert tokenizer.decode(ids, after=encoded.prompt_ids) == choice
            assert encoded.prompt_ids + ids == tuple(tokenizer.encode([prompt + choice])[0])


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3, 4], 1), ([2], [1], 0)],
)
def test_common_prefix_length(left: list[int], right: list[int], length: int) -> None:
    assert common_prefix_length(left, right) == length


HEADER, SHOTS, QUERY = "head ", ("one ", "two ", "three "), "asked"


def with_shots(longer_than: int) -> LoglikelihoodRequest:
    prompt = Prompt(HEADER, SHOTS, QUERY)
    return LoglikelihoodRequest(prompt.text, (" A", " B"), DropShots(longer_than, prompt.shot_ends))


@pytest.mark.parametrize(
    ("longer_than", "asked"),
    [
        (99, "head one two three asked"),
        (23, "head one two three asked"),  # 24 characters, of which ee is one token
        (22, "head one two asked"),
        (17, "head one asked"),
        (13, "head asked"),
        (3, "head asked"),  # fits by no means: asked without any
    ],
)
def test_shots_are_dropped_from_the_end_until_the_prompt_fits(longer_than: int, asked: str) -> None:
    request = with_shots(longer_than)
    encoded = encode_choice_request(PairTokenizer(), request)
    plain = encode_choice_request(PairTokenizer(), LoglikelihoodRequest(asked, request.continuations))
    assert (encoded.prompt_ids, encoded.continuation_ids) == (plain.prompt_ids, plain.continuation_ids)
    assert encoded.truncated == (asked != request.prompt)
    text, ids = fit_shots(PairTokenizer(), request.prompt, *whole_of(request))
    assert (text, tuple(ids)) == (asked, plain.prompt_ids)


def whole_of(request: LoglikelihoodRequest) -> tuple[list[int], DropShots]:
    assert isinstance(request.truncation, DropShots)
    return PairTokenizer().encode([request.prompt])[0], request.truncation


def test_a_prompt_without_shots_stays_as_it_is() -> None:
    prompt = Prompt(HEADER, (), QUERY)
    request = LoglikelihoodRequest(prompt.text, (" A",), DropShots(3, prompt.shot_ends))
    assert not encode_choice_request(PairTokenizer(), request).truncated
