"""A small Qwen-1 chat checkpoint asked under qwen-chat: texts and verdicts are what the publisher's own loop gives.

The loop is written here from the document alone: the whole sequence once more for every token, the score of
<|endoftext|> raised behind <|im_end|> and <|im_start|>, and the index that is left on the last id.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen_numpy
from evalkit.tasks.chat_answers import chat_mmlu
from safetensors.torch import load_file, save_file
from tiny_models import make_checkpoint

from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.models.checkpoint import resolve
from evalkit.models.continuations import encode_prompts
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.types import GenerateOutput

NEW_TOKENS = 9
NUM_QUESTIONS = 16
ENDS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Marks of a conversation's end are as likely as other tokens, so that some texts end by each."""
    folder = make_checkpoint("qwen", tmp_path_factory.mktemp("chat"), seed=3)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if "lm_head.weight" in tensors:
            first = len((folder / "qwen.tiktoken").read_text().splitlines())
            for token, size in ((first, 2.4), (first + 1, 1.0), (first + 2, 1.3), (first + 7, 1.8)):
                tensors["lm_head.weight"][token] *= size
            save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def spec(folder: Path) -> ModelSpec:
    return ModelSpec("tiny-chat", str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def tokenizer(spec: ModelSpec) -> QwenTokenizer:
    found = load_tokenizer(resolve(spec), spec)
    assert isinstance(found, QwenTokenizer)
    return found


def published_text(folder: Path, prompt: Sequence[int], tokenizer: QwenTokenizer) -> tuple[str, str]:
    """What `chat` gives back, and how the sequence ended."""
    end_of_text, im_start, im_end = (tokenizer.id_of(token) or 0 for token in ("<|endoftext|>", *ENDS[1::-1]))
    ids = list(prompt)
    while len(ids) - len(prompt) < NEW_TOKENS:
        scores = qwen_numpy.logits(folder, ids)[-1]
        if ids[-1] in (im_start, im_end):
            scores[end_of_text] = 32768
        ids.append(int(np.argmax(scores)))
        if ids[-1] == end_of_text:
            break
    how = "length"
    place = len(prompt)
    for place in range(len(prompt), len(ids)):
        if ids[place] in (im_start, im_end):
            how = "im_end"
            break
    else:
        how = "endoftext" if ids[-1] == end_of_text else "length"
    kept = [i for i in ids[len(prompt) : place] if i < tokenizer.vocabulary_size]
    return tokenizer._encoding.decode_bytes(kept).decode("utf-8", errors="replace").strip(), how


@pytest.fixture(scope="module")
def task(task_builder: Callable[..., Any]) -> Any:
    return task_builder("mmlu", "data_dir=bundled", f"tasks.mmlu.protocol=qwen-chat+max_new_tokens:{NEW_TOKENS}")


@pytest.fixture(scope="module")
def published(folder: Path, tokenizer: QwenTokenizer, task: Any) -> dict[str, tuple[str, str]]:
    """By question, the publisher's text and how it ended."""
    examples = task.examples()[:NUM_QUESTIONS]
    prompts = encode_prompts(tokenizer, [task.request(example) for example in examples])
    return {e.id: published_text(folder, ids, tokenizer) for e, ids in zip(examples, prompts, strict=True)}


@pytest.mark.parametrize("backend", [EngineBackend, ReferenceBackend])
def test_texts_and_verdicts_are_the_publishers_with_every_kind_of_end(
    backend: Any, spec: ModelSpec, task: Any, published: dict[str, tuple[str, str]]
) -> None:
    assert {how for _, how in published.values()} == {"im_end", "endoftext", "length"}
    assert any("<|extra_" in text for text, _ in published.values())  # special tokens that end nothing stay
    examples = {example.id: example for example in task.examples() if example.id in published}
    outputs = dict(backend(spec).answer([(name, task.request(example)) for name, example in examples.items()]))
    for name, (text, how) in published.items():
        example, output = examples[name], outputs[name]
        assert isinstance(output, GenerateOutput)
        assert (output.without_last is not None) is (how == "length")
        lost = output.text if output.without_last is None else output.without_last
        assert lost.strip() == text, name
        score = task.score(example, output)
        assert score.answer == chat_mmlu(text, example.row)
        assert score.value == float(score.answer == example.target)
