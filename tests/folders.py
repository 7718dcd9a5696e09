"""Run folders of made-up questions, as a run writes them."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

from evalkit.metrics import micro_mean
from evalkit.store.questions import Asked, question_lines
from evalkit.types import (
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    Score,
    Summary,
    Usage,
)

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & \u2028 😀 \ud800"
Item = tuple[Asked, Output, Score]


def write_run(results: Path, items: list[Item], task: str, model: str, /, **provenance: object) -> Path:
    """A run folder over items; its path."""
    folder = results / model / task
    folder.mkdir(parents=True, exist_ok=True)
    scores = [score for _, _, score in items]
    by_group: dict[str, list[float | None]] = {}
    for score in scores:
        by_group.setdefault(score.group, []).append(score.value)
    summary = Summary(
        task=task,
        model=model,
        metrics={"accuracy": micro_mean([score.value for score in scores])},
        groups={"subject": {group: micro_mean(values) for group, values in by_group.items() if group}},
        published=None,
        verdict="",
        num_unanswered=sum(score.answer is None for score in scores),
        num_truncated=sum(output.truncated for _, output, _ in items),
        usage=Usage(10 * len(items), 5 * len(items), 0, 1.0, 1 << 30),
        provenance={  # type: ignore[arg-type]
            "cell": "accuracy",
            "metric": "accuracy",
            "protocol": {"name": "qwen"},
            "data": {"comparable": True, "splits": {"test": {"rows": len(items), "sha256": "d"}}},
            "model": {"fingerprint": model},
            "prompt_set_sha": "p",
            **provenance,
        },
    )
    lines = {
        "outputs.jsonl": [
            {"id": asked.id, "request_sha": asked.request.sha, "prompt_sha": "", **dataclasses.asdict(output)}
            for asked, output, _ in items
        ],
        "scores.jsonl": [
            {key: value for key, value in dataclasses.asdict(score).items() if key != "detail"} | dict(score.detail)
            for score in scores
        ],
    }
    for name, entries in lines.items():
        (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "questions.jsonl").write_text(question_lines(asked for asked, _, _ in items))
    (folder / "summary.json").write_text(json.dumps(dataclasses.asdict(summary)))
    return folder


def choice_items(num_questions: int, num_subjects: int = 3, seed: int = 0, skill: float = 0.5) -> list[Item]:
    """Multiple-choice questions whose answers are right somewhat more often than by chance."""
    rng = random.Random(seed)
    golds = random.Random(99)
    items: list[Item] = []
    for number in range(num_questions):
        group, target = f"subject_{number % num_subjects}", golds.choice("ABCD")
        prompt = f"Questions about {group}.\n\nQuestion: shot? {'x' * 1500}\nAnswer: A\n\n"
        prompt += f"Question: what is {number}? {'y' * 300}\nA. one\nB. two\nC. three\nD. four\nAnswer:"
        request: Request = LoglikelihoodRequest(prompt, (" A", " B", " C", " D"))
        logprobs = tuple(rng.gauss(-3, 1) + (skill if letter == target else 0.0) for letter in "ABCD")
        answer = "ABCD"[logprobs.index(max(logprobs))]
        score = Score(f"{group}/test/{number}", group, answer, target, float(answer == target))
        output = LoglikelihoodOutput(logprobs, 500 + number % 7, 0, number % 10 == 0)
        items.append((Asked(score.id, group, request), output, score))
    return items


def text_items(num_questions: int, text: Callable[[int], str] = str, right: Callable[[int], bool] = bool) -> list[Item]:
    """Problems answered by a text, each with the number it should contain."""
    items: list[Item] = []
    for number in range(num_questions):
        request: Request = GenerateRequest(
            f"Question: worked\n\nQuestion: {number} {EVIL}?\n", ("\n\n", "Question:"), 9
        )
        output = GenerateOutput(text(number), "stop", 5, 40)
        score = Score(f"test/{number}", "", str(number), str(number), float(right(number)), {"status": EVIL})
        items.append((Asked(score.id, "", request), output, score))
    return items
