"""The protocol lm-eval against lm-eval 0.4.13 itself.

The hashes were printed by lm-eval, over its own task files and the publishers' rows:

    PEER/bin/python tests/bench/peer_lm_eval_prompts.py DATA
    PEER/bin/python tests/bench/peer_lm_eval_prompts.py DATA --grade tests/tasks/gsm8k_texts.json
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.types import Example, GenerateOutput, GenerateRequest

BUILT_BY_LM_EVAL = {
    "mmlu": (14042, "f682c8ef1140d823d6158f6a695cea944ef48874bebddf007355aa4253bc59db"),
    "ceval": (1346, "757e3b9f1dff94f5db4a1876165a09a7305286ba111f336de3519b4faac8217a"),
    "gsm8k": (1319, "850a64abc1fb45ecc3edf16bf947b551b7da36dc84c94b8b85b40e124e422bef"),
    "humaneval": (164, "03741dba9e7ec57b0859e34c6f53e7356118f34e7b7e27aa577cedc3a8e6ee90"),
}
UNTIL = {  # generation_kwargs of its task files, and the tokens it generates at most
    "gsm8k": ({"Question:", "</s>", "<|im_end|>"}, 256),
    "humaneval": ({"\nclass", "\ndef", "\n#", "\nif", "\nprint"}, 1024),
}
GRADED = json.loads((Path(__file__).parent / "gsm8k_texts.json").read_text(encoding="utf-8"))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@pytest.mark.data
@pytest.mark.parametrize("name", list(BUILT_BY_LM_EVAL))
def test_every_prompt_is_the_one_that_lm_eval_builds(
    name: str, data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    task = task_builder(name, f"data_dir={data_dir}", f"tasks.{name}.protocol=lm-eval")
    requests = {example.id: task.request(example) for example in task.examples()}
    whole = sha("".join(f"{key}\n{sha(requests[key].prompt)}\n" for key in sorted(requests)))
    assert (len(requests), whole) == BUILT_BY_LM_EVAL[name]
    settings = {
        (request.stop, request.max_new_tokens) if isinstance(request, GenerateRequest) else request.continuations
        for request in requests.values()
    }
    if name in UNTIL:
        ((stop, max_new_tokens),) = settings
        assert (set(stop) - {"<|endoftext|>"}, max_new_tokens) == UNTIL[name]
    else:
        assert settings == {(" A", " B", " C", " D")}
        assert {request.truncation for request in requests.values()} == {None}


@pytest.mark.data
def test_the_shots_of_a_question_do_not_depend_on_which_others_are_asked(
    data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    overrides = ("gsm8k", f"data_dir={data_dir}", "tasks.gsm8k.protocol=lm-eval")
    whole, alone = task_builder(*overrides), task_builder(*overrides)
    examples = whole.examples()
    asked_first = alone.request(examples[700]).prompt
    assert [whole.request(example).prompt for example in examples][700] == asked_first
    train = task_builder(*overrides, "tasks.gsm8k.split=train")
    for example in train.examples()[:50]:
        prompt = train.request(example).prompt
        assert prompt.count("Question: ") == 6
        assert prompt.count(example.row["question"]) == 1
    splits = whole.provenance()["data"]
    assert (list(splits["splits"]), splits["worked_examples"]["rows"]) == (["test"], 7473)


@pytest.mark.parametrize(("rule", "filtered"), [("strict", "strict-match"), ("flexible", "flexible-extract")])
def test_every_text_is_graded_as_lm_eval_grades_it(rule: str, filtered: str, task_builder: Callable[..., Any]) -> None:
    task = task_builder("gsm8k", "data_dir=bundled", f"tasks.gsm8k.protocol=qwen+cut:next-question+answer:{rule}")
    for graded in GRADED:
        found = task.score(Example("test/0", {}, graded["gold"]), GenerateOutput(graded["text"], "stop", 9, 9))
        assert found.value == graded[filtered]["right"], graded
        assert found.answer is None or graded[filtered]["filtered"] != "[invalid]", graded
    assert len(GRADED) == 37
