"""Special tokens in a text are the protocol's: kept as the card's scripts decode, dropped as lm-eval does."""

from pathlib import Path

import pytest
import torch
from tiny_models import make_checkpoint

from evalkit.backends.base import Backend
from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.models.spec import ModelSpec
from evalkit.types import EOS_TOKEN, GenerateOutput, GenerateRequest, SpecialTokens, fields_of, request_of

PROMPTS = [f"Question: what is {number} + {number}?\nLet's think step by step\n" for number in range(8)]
LIMIT = 24


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = make_checkpoint("qwen", tmp_path_factory.mktemp("models") / "qwen")
    return ModelSpec("qwen", str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def written(qwen: ModelSpec) -> tuple[QwenTokenizer, list[list[int]]]:
    """The tokens that the model writes behind each prompt, up to the end of text."""
    model = load(resolve(qwen), qwen)
    assert isinstance(model.tokenizer, QwenTokenizer)
    found = []
    for prompt in PROMPTS:
        ids = model.tokenizer.encode([prompt], for_generation=True)[0]
        start = len(ids)
        for _ in range(LIMIT):
            with torch.inference_mode():
                token = int(model.network(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token in model.end_of_text_ids:
                break
            ids.append(token)
        found.append(ids[start:])
    return model.tokenizer, found


@pytest.fixture(params=[EngineBackend, ReferenceBackend])
def backend(request: pytest.FixtureRequest, qwen: ModelSpec) -> Backend:
    made: Backend = request.param(qwen)
    return made


def ask(backend: Backend, special: SpecialTokens, stops: list[tuple[str, ...]]) -> list[GenerateOutput]:
    items = [
        (str(number), GenerateRequest(prompt, stop, LIMIT, special_tokens=special))
        for number, (prompt, stop) in enumerate(zip(PROMPTS, stops, strict=True))
    ]
    answers = dict(backend.answer(items))
    outputs = [answers[name] for name, _ in items]
    assert all(isinstance(output, GenerateOutput) for output in outputs)
    return [output for output in outputs if isinstance(output, GenerateOutput)]


def decoded(tokenizer: QwenTokenizer, ids: list[int], *, kept: bool) -> str:
    """tiktoken's own decoding, as the publisher's scripts call it; rows that stand for no token left out."""
    end = tokenizer.vocabulary_size if kept else tokenizer.eos_id
    return tokenizer._encoding.decode([index for index in ids if index < end])


def special_in(tokenizer: QwenTokenizer, ids: list[int]) -> str:
    """The first special token among some ids, as it is spelled."""
    found = (index for index in ids if tokenizer.eos_id < index < tokenizer.vocabulary_size)
    return tokenizer._encoding.decode([next(found)])


def test_kept_is_the_publishers_own_text(backend: Backend, written: tuple[QwenTokenizer, list[list[int]]]) -> None:
    tokenizer, ids = written
    texts = [output.text for output in ask(backend, "kept", [()] * len(PROMPTS))]
    assert texts == [decoded(tokenizer, of, kept=True) for of in ids]
    assert sum("<|extra_" in text for text in texts) > 3


@pytest.mark.parametrize("special", ["dropped", "unseen"])
def test_dropped_and_unseen_leave_nothing(
    backend: Backend, written: tuple[QwenTokenizer, list[list[int]]], special: SpecialTokens
) -> None:
    tokenizer, ids = written
    texts = [output.text for output in ask(backend, special, [()] * len(PROMPTS))]
    assert texts == [decoded(tokenizer, of, kept=False) for of in ids]


def test_a_stop_string_that_a_special_token_spells_ends_a_text_unless_it_is_unseen(
    backend: Backend, written: tuple[QwenTokenizer, list[list[int]]]
) -> None:
    """lm-eval looks for its stop strings in the text with special tokens, and drops them afterwards."""
    tokenizer, ids = written
    stops = [(special_in(tokenizer, of),) for of in ids]
    whole = [decoded(tokenizer, of, kept=True) for of in ids]
    up_to = [text[: text.index(stop) + len(stop)] for text, (stop,) in zip(whole, stops, strict=True)]
    kept = ask(backend, "kept", stops)
    assert [output.text for output in kept] == up_to
    assert {output.finish_reason for output in kept} == {"stop"}
    dropped = ask(backend, "dropped", stops)
    assert [output.num_tokens for output in dropped] == [output.num_tokens for output in kept]
    assert {output.finish_reason for output in dropped} == {"stop"}
    for output, of in zip(dropped, ids, strict=True):
        assert output.text == decoded(tokenizer, of[: output.num_tokens], kept=False)
    assert {output.finish_reason for output in ask(backend, "unseen", stops)} <= {"length", "end_of_text"}


def test_requests_of_before_keep_their_hashes() -> None:
    request = GenerateRequest("Q:", ("Question:",), 256, end_of_text=(EOS_TOKEN,))
    assert request.sha == "fb86e07e75858c993ecba54684e8068426721855171862662f74711d00671e31"
    assert "special_tokens" not in fields_of(request)
    kept = GenerateRequest("Q:", ("Question:",), 256, special_tokens="kept")
    assert request_of(fields_of(kept)) == kept
    assert len({GenerateRequest("Q:", (), 9, special_tokens=s).sha for s in ("kept", "dropped", "unseen")}) == 3


@pytest.mark.parametrize("family", ["llama", "opt", "bloom"])
def test_every_tokenizer_keeps_a_special_token_where_it_stands(tmp_path: Path, family: str) -> None:
    spec = ModelSpec("tiny", str(make_checkpoint(family, tmp_path)), add_bos=False)
    tokenizer = load(resolve(spec), spec).tokenizer
    prompt, first, second = (tokenizer.encode([text])[0] for text in ("Answer: A", " the answer", " is 16"))
    end = tokenizer.id_of("</s>")  # type: ignore[attr-defined]
    new = [*first, end, *second, end]
    pieces = tokenizer.decode(new, after=prompt, keep_special=True).split("</s>")
    assert [piece.strip() for piece in pieces] == ["the answer", "is 16", ""]
    assert "".join(pieces) == tokenizer.decode(new, after=prompt)
