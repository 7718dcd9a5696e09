"""The SmolLM2 card's requests in token ids: lighteval's, by a second construction, over all questions."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from tokenizers import Tokenizer

from evalkit.models.checkpoint import resolve
from evalkit.models.continuations import (
    EncodedChoices,
    encode_choice_request,
    encode_choice_requests,
    encode_generate_requests,
)
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer import HuggingFaceTokenizer
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.types import LoglikelihoodRequest, Turn

pytestmark = [pytest.mark.data, pytest.mark.smollm2]
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


@pytest.fixture(scope="module")
def tokenizer(smollm2_gguf: Path) -> HuggingFaceTokenizer:
    spec = ModelSpec("smollm2-135m", str(smollm2_gguf), add_bos=False)
    found = load_tokenizer(resolve(spec), spec)
    assert isinstance(found, HuggingFaceTokenizer)
    return found


@pytest.fixture(scope="module")
def parsing(tokenizer: HuggingFaceTokenizer) -> Callable[[Sequence[str]], list[list[int]]]:
    """The vocabulary as transformers uses it: special tokens in a text become their ids."""
    backend = Tokenizer.from_str(tokenizer._backend.to_str())
    return lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(list(texts))]


def requests_of(task_builder: Callable[..., Any], data_dir: Path, name: str, *flips: str) -> list[Any]:
    task = task_builder(name, f"data_dir={data_dir}", f"tasks.{name}.protocol={'+'.join(['smollm2', *flips])}")
    return [task.request(example) for example in task.examples()]


def written_out(messages: Sequence[str]) -> str:
    roles = ("user", "assistant")
    turns = (f"<|im_start|>{roles[number % 2]}\n{text}<|im_end|>\n" for number, text in enumerate(messages))
    return f"{SYSTEM}{''.join(turns)}<|im_start|>assistant\n"


def pair(context: str, choices: Sequence[str]) -> tuple[str, list[str]]:
    """White space at a context's end goes to the front of the choice."""
    stripped = context.rstrip()
    return stripped, [stripped + context[len(stripped) :] + choice for choice in choices]


def lighteval_ids(
    contexts: Sequence[str], choices: Sequence[Sequence[str]], encode: Callable[[Sequence[str]], list[list[int]]]
) -> list[list[tuple[list[int], list[int]]]]:
    """For every request and choice: (context, continuation) ids."""
    pairs = [pair(context, of) for context, of in zip(contexts, choices, strict=True)]
    fronts = encode([front for front, _ in pairs])
    wholes = iter(encode([whole for _, of in pairs for whole in of]))
    found = []
    for front, (_, of) in zip(fronts, pairs, strict=True):
        ids = [next(wholes) for _ in of]
        found.append([(whole[: len(front)], whole[len(front) :]) for whole in ids])
        assert all(whole[: len(front)] == front and len(whole) > len(front) for whole in ids)
    return found


def ours(encoded: EncodedChoices) -> list[tuple[list[int], list[int]]]:
    return [(list(encoded.context(number)), list(ids)) for number, ids in enumerate(encoded.continuation_ids)]


def lengths(encoded: Sequence[EncodedChoices]) -> list[int]:
    return [len(front) + len(ids) for one in encoded for front, ids in ours(one)]


@pytest.mark.slow
def test_all_cloze_requests_have_lightevals_ids_plain_and_in_the_template(
    data_dir: Path,
    task_builder: Callable[..., Any],
    tokenizer: HuggingFaceTokenizer,
    parsing: Callable[[Sequence[str]], list[list[int]]],
) -> None:
    plain = requests_of(task_builder, data_dir, "mmlu")
    encoded = encode_choice_requests(tokenizer, plain)
    choices = [request.continuations for request in plain]
    assert list(map(ours, encoded)) == lighteval_ids([request.prompt for request in plain], choices, parsing)
    assert max(lengths(encoded)) == 1007
    assert round(mean(lengths(encoded)), 1) == 82.4

    chat = requests_of(task_builder, data_dir, "mmlu", "chat_template:on")
    in_chat = encode_choice_requests(tokenizer, chat)
    contexts = [written_out([request.prompt]) for request in chat]
    theirs = lighteval_ids(contexts, choices, parsing)
    assert list(map(ours, in_chat)) == theirs
    assert max(lengths(in_chat)) == 1037
    assert round(mean(lengths(in_chat)), 1) == 112.3
    gained = [
        len(moved) - len(kept)
        for a, b in zip(in_chat, encoded, strict=True)
        for moved, kept in zip(a.continuation_ids, b.continuation_ids, strict=True)
    ]
    assert (gained.count(1), gained.count(0), len(gained)) == (50962, 5206, 56168)


@pytest.mark.slow
def test_all_worked_solutions_have_lightevals_ids_plain_and_in_the_template(
    data_dir: Path,
    task_builder: Callable[..., Any],
    tokenizer: HuggingFaceTokenizer,
    parsing: Callable[[Sequence[str]], list[list[int]]],
) -> None:
    plain = requests_of(task_builder, data_dir, "gsm8k")
    ids = [list(encoded.prompt_ids) for encoded in encode_generate_requests(tokenizer, plain)]
    assert ids == parsing([request.prompt for request in plain])
    assert (max(map(len, ids)), round(mean(map(len, ids)))) == (1604, 1021)
    chat = requests_of(task_builder, data_dir, "gsm8k", "chat_template:on")
    in_chat = [list(encoded.prompt_ids) for encoded in encode_generate_requests(tokenizer, chat)]
    ends = [[0, *(turn.end for turn in request.turns)] for request in chat]
    texts = [
        written_out([request.prompt[a:b] for a, b in pairwise(of)]) for request, of in zip(chat, ends, strict=True)
    ]
    assert in_chat == parsing(texts)
    assert (max(map(len, in_chat)), round(mean(map(len, in_chat)))) == (1679, 1096)


def test_special_strings_in_a_question_stay_text(tokenizer: HuggingFaceTokenizer) -> None:
    prompt = "Question: What does <|im_end|> end?\nAnswer:"
    request = LoglikelihoodRequest(prompt, (" a turn",), turns=(Turn("user", len(prompt)),), seam="white-space")
    encoded = encode_choice_request(tokenizer, request)
    assert (encoded.prompt_ids.count(1), encoded.prompt_ids.count(2)) == (3, 2)  # the template's own
    assert prompt in tokenizer.decode(encoded.prompt_ids, after=())
