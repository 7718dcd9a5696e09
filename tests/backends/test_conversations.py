"""Conversations, parts of choices and ends of one's own, through every backend."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_server import serving
from fake_vllm import install
from served import backend_for
from tiny_language_model import TinyLanguageModel
from tiny_models import EOS, PAD, make_checkpoint
from tokenizers import Tokenizer

from evalkit.backends.base import Backend, Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.backends.vllm import VllmBackend
from evalkit.errors import ModelError
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec
from evalkit.types import (
    EOS_TOKEN,
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Turn,
)

TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = make_checkpoint("gpt_neox", tmp_path_factory.mktemp("chat") / "tiny")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS, "bos_token": PAD}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return ModelSpec("tiny", str(folder), dtype="float32", device="cpu")


def asked(prompt: str, *choices: str, **fields: Any) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(prompt, choices, turns=(Turn("user", len(prompt)),), count_tokens=True, **fields)


CHOICES: list[Item] = [
    ("chat", asked("What is 12 + 30?", " 42", " 1,024 of them")),
    ("seam", asked("What is 12 + 30?", " 42", " 1,024 of them", seam="white-space")),
    ("part", asked("What is 12 + 30?", " 42", " 1,024 of them", seam="white-space", last_token=False)),
    ("text", asked("What is </s>?", " the end", " <s>")),
    ("bare", LoglikelihoodRequest("Answer:", ("A", "B"), last_token=False, count_tokens=True)),
]


def test_engine_and_reference_agree_on_conversations_and_parts_of_choices(spec: ModelSpec) -> None:
    engine, plain = (dict(backend.answer(CHOICES)) for backend in (EngineBackend(spec), ReferenceBackend(spec)))
    for name, _ in CHOICES:
        ours, theirs = engine[name], plain[name]
        assert isinstance(ours, LoglikelihoodOutput)
        assert isinstance(theirs, LoglikelihoodOutput)
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4), name
        assert (ours.num_tokens, ours.num_prompt_tokens) == (theirs.num_tokens, theirs.num_prompt_tokens)
    seam, part = plain["seam"], plain["part"]
    assert isinstance(seam, LoglikelihoodOutput)
    assert isinstance(part, LoglikelihoodOutput)
    assert part.num_tokens == tuple(number - 1 for number in seam.num_tokens)
    assert all(more > less for more, less in zip(part.logprobs, seam.logprobs, strict=True))
    assert plain["bare"] == LoglikelihoodOutput((0.0, 0.0), plain["bare"].num_prompt_tokens, num_tokens=(0, 0))
    assert engine["bare"].logprobs == (0.0, 0.0)  # type: ignore[union-attr]


def text_of(backend: Backend, request: GenerateRequest) -> GenerateOutput:
    ((_, output),) = backend.answer([("a", request)])
    assert isinstance(output, GenerateOutput)
    return output


@pytest.mark.parametrize("kind", [EngineBackend, ReferenceBackend])
def test_a_text_ends_with_the_tokens_that_the_request_names(
    spec: ModelSpec, kind: Callable[[ModelSpec], Backend]
) -> None:
    model, backend = load(resolve(spec), spec), kind(spec)
    names = {index: name for name, index in Tokenizer.from_file(f"{spec.path}/tokenizer.json").get_vocab().items()}

    def next_token(prompt: str) -> str | None:
        """By the network itself."""
        with torch.inference_mode():
            ids = torch.tensor(model.tokenizer.encode([prompt], for_generation=True))
            return names.get(int(model.network(input_ids=ids).logits[0, -1].argmax()))

    prompt, token = next((text, name) for text in "abcdefghij" if (name := next_token(text)) not in (None, EOS))
    assert text_of(backend, GenerateRequest(prompt, (), 6, end_of_text=(EOS_TOKEN,))).num_tokens > 0
    assert token is not None
    for named in ((token,), (EOS_TOKEN, token)):
        ended = text_of(backend, GenerateRequest(prompt, (), 6, end_of_text=named))
        assert (ended.finish_reason, ended.num_tokens, ended.text) == ("end_of_text", 0, "")
    with pytest.raises(ModelError, match=r"the text is to end with <\|nothing\|>, which the checkpoint's tokenizer"):
        text_of(backend, GenerateRequest(prompt, (), 6, end_of_text=("<|nothing|>",)))


def test_vllm_is_given_the_ends_and_the_ids_of_the_template(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = TinyLanguageModel()
    folder = make_checkpoint("gpt_neox", tmp_path / "tiny")
    tiny.backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    own = ModelSpec(name="tiny", path=str(folder), add_bos=False, end_of_text=["</s>"], dtype="float32", device="cpu")
    fake = install(monkeypatch, tiny)
    other = tiny.texts[tiny.words[0]]
    turns = (Turn("user", 5),)
    items: list[Item] = [
        ("own", GenerateRequest("Write", (), 4, turns=turns)),
        ("named", GenerateRequest("Write", (), 4, turns=turns, end_of_text=(EOS_TOKEN,))),
    ]
    list(VllmBackend(own).answer(items))
    (end,) = tiny.encode("</s>") if len(tiny.encode("</s>")) == 1 else [0]
    assert [params.stop_token_ids for _, params in fake.asked] == [[end], [end]]
    assert all(ids[-1] == end for ids, _ in fake.asked)
    two = f"{other}{tiny.texts[tiny.words[1]]}"
    whole = LoglikelihoodRequest("Question:", (two, other), count_tokens=True)
    part = LoglikelihoodRequest("Question:", (two, other), last_token=False, count_tokens=True)
    first = LoglikelihoodRequest("Question:", (other, other))
    outputs: dict[str, Output] = dict(VllmBackend(own).answer([("whole", whole), ("part", part), ("first", first)]))
    assert outputs["part"].logprobs == pytest.approx((outputs["first"].logprobs[0], 0.0))  # type: ignore[union-attr]
    assert outputs["part"].num_tokens == (1, 0)  # type: ignore[union-attr]


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (LoglikelihoodRequest("Question", (" a",), turns=(Turn("user", 8),)), "a chat template"),
        (LoglikelihoodRequest("Question ", ("a",), seam="white-space"), "white space moved into the choices"),
        (LoglikelihoodRequest("Question", (" a b",), last_token=False), "choices without their last token"),
        (GenerateRequest("Question", (), 5, end_of_text=("</s>",)), "texts that end with </s> alone"),
    ],
)
def test_a_server_is_asked_none_of_it(
    request_: LoglikelihoodRequest | GenerateRequest, what: str, tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    with serving("vllm", tiny) as server:
        with pytest.raises(ModelError, match=f"q/0 asks for {what}, which the server at .* use backend=engine"):
            list(backend_for(server, tokenizer_folder).answer([("q/0", request_)]))
        assert not any("Question" in str(body["prompt"]) for body in server.seen)


# SmolLM2 itself, under its card's protocol

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


def real(path: Any) -> ModelSpec:
    return ModelSpec("smollm2-135m", str(path), dtype="float32", device="cpu", add_bos=False)


def shortest(task_builder: Callable[..., Any], data_dir: Path, number: int, *flips: str) -> list[Item]:
    task = task_builder("mmlu", f"data_dir={data_dir}", f"tasks.mmlu.protocol={'+'.join(['smollm2', *flips])}")
    items = [(example.id, task.request(example)) for example in task.examples()]
    return sorted(items, key=lambda item: len(item[1].prompt) + max(map(len, item[1].continuations)))[:number]


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.data
@pytest.mark.parametrize("flips", [(), ("chat_template:on",)], ids=["plain", "chat"])
def test_40_questions_have_the_log_probabilities_of_plain_transformers(
    flips: tuple[str, ...], task_builder: Callable[..., Any], data_dir: Path, smollm2_gguf: Any
) -> None:
    items = shortest(task_builder, data_dir, 40, *flips)
    outputs = dict(EngineBackend(real(smollm2_gguf), num_checked=0).answer(items))
    model = load(resolve(real(smollm2_gguf)), real(smollm2_gguf))
    parsing = model.tokenizer._parsing  # type: ignore[attr-defined]
    for name, request in items:
        assert isinstance(request, LoglikelihoodRequest)
        context = f"{SYSTEM}<|im_start|>user\n{request.prompt}<|im_end|>\n<|im_start|>assistant\n"
        context = context if flips else request.prompt
        front = parsing.encode(context.rstrip(), add_special_tokens=False).ids
        output = outputs[name]
        assert isinstance(output, LoglikelihoodOutput)
        for continuation, ours in zip(request.continuations, output.logprobs, strict=True):
            ids = parsing.encode(context + continuation, add_special_tokens=False).ids
            with torch.inference_mode():
                rows = model.network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            theirs = float(sum(rows[place - 1, ids[place]] for place in range(len(front), len(ids))))
            assert abs(ours - theirs) <= 1e-4 * (len(ids) - len(front)), name


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.data
@pytest.mark.parametrize("flips", [(), ("chat_template:on",)], ids=["plain", "chat"])
def test_worked_solutions_are_continued_as_transformers_does(
    flips: tuple[str, ...], task_builder: Callable[..., Any], data_dir: Path, smollm2_gguf: Any
) -> None:
    protocol = "+".join(["smollm2", "num_fewshot:1", "max_new_tokens:24", *flips])
    task = task_builder("gsm8k", f"data_dir={data_dir}", f"tasks.gsm8k.protocol={protocol}")
    items: list[Item] = [(example.id, task.request(example)) for example in task.examples()[:3]]
    outputs = dict(EngineBackend(real(smollm2_gguf), num_checked=0).answer(items))
    model = load(resolve(real(smollm2_gguf)), real(smollm2_gguf))
    parsing = model.tokenizer._parsing  # type: ignore[attr-defined]
    for name, request in items:
        ends = [0, *(turn.end for turn in request.turns)]
        turns = [
            f"<|im_start|>{turn.role}\n{request.prompt[a:b]}<|im_end|>\n"
            for turn, (a, b) in zip(request.turns, pairwise(ends), strict=True)
        ]
        text = f"{SYSTEM}{''.join(turns)}<|im_start|>assistant\n" if flips else request.prompt
        ids = parsing.encode(text, add_special_tokens=False).ids
        with torch.inference_mode():
            new = model.network.generate(  # type: ignore[operator]
                torch.tensor([ids]), do_sample=False, max_new_tokens=24, eos_token_id=2, pad_token_id=2
            )[0][len(ids) :].tolist()
        expected = parsing.decode([token for token in new if token != 2], skip_special_tokens=True)
        output = outputs[name]
        assert isinstance(output, GenerateOutput)
        assert output.num_prompt_tokens == len(ids)
        assert expected.startswith(output.text) if output.finish_reason == "stop" else output.text == expected
