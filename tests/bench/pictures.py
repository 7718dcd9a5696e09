"""The docs' pictures of report.html: `make pictures`.

    PYTHONPATH=.:tests python tests/bench/pictures.py [FOLDER]

The answers in them are drawn at random by a seed; no model was run. The first picture has as many questions as MMLU and
GSM8K, the second the questions that come with evalkit.
"""

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from chromium import Chromium, find_chromium
from folders import Item, choice_items, text_items, write_run

from evalkit.configuration.compose import build, compose
from evalkit.report.files import write_report
from evalkit.store.questions import Asked
from evalkit.store.read import find_runs
from evalkit.types import LoglikelihoodOutput, Score

SUBJECTS = 57
MODELS = {"qwen-1_8b": 0.7, "bloom-1b1": 0.06, "opt-1_3b": 0.01}  # how much likelier the right choice is made


def summary(results: Path) -> None:
    """Three models' MMLU, one's GSM8K."""
    for seed, (model, skill) in enumerate(MODELS.items()):
        items = choice_items(14_042, SUBJECTS, seed, skill)
        write_run(results, short(items), "mmlu", model, model={"dtype": "bfloat16"})
    right = random.Random(1)
    write_run(results, text_items(1319, str, lambda _: right.random() < 0.26), "gsm8k", "qwen-1_8b")


def short(items: list[Item]) -> list[Item]:
    """Without the prompts' filling: only counts are in the picture."""
    return [(replace(asked, request=replace(asked.request, prompt="-")), *of) for asked, *of in items]  # type: ignore[misc]


def questions(results: Path) -> None:
    """Three models over the bundled C-Eval and MMLU."""
    for task in (build(compose([f"task={name}", "data_dir=bundled"]), f"tasks.{name}") for name in ("mmlu", "ceval")):
        for seed, (model, skill) in enumerate(MODELS.items()):
            rng = random.Random(seed)
            items = list(answered(task, rng, skill))
            data = {"comparable": False, "remarks": ["bundled sample, not comparable"]}
            write_run(results, items, task.name, model, model={"dtype": "bfloat16"}, data=data)


def answered(task: object, rng: random.Random, skill: float) -> Iterator[Item]:
    for example in task.examples():  # type: ignore[attr-defined]
        request = task.request(example)  # type: ignore[attr-defined]
        logprobs = tuple(rng.gauss(-3, 0.8) + 2 * skill * (letter == example.target) for letter in "ABCD")
        answer = "ABCD"[logprobs.index(max(logprobs))]
        score = Score(example.id, example.group, answer, example.target, float(answer == example.target))
        yield Asked(example.id, example.group, request), LoglikelihoodOutput(logprobs, 700), score


PICTURES: dict[str, tuple[Callable[[Path], None], str, str, int]] = {
    "report-summary.png": (summary, "#/", "light", 820),
    "report-questions.png": (questions, "#/questions?q=qwen-1_8b/ceval/{id}", "dark", 700),
}


def main(output: Path) -> None:
    """Draw all of them."""
    program = find_chromium()
    assert program, "no Chromium on this machine: apt-get install chromium-headless-shell"
    for name, (fill, fragment, theme, height) in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder, Chromium(program) as browser:
            results = Path(folder)
            fill(results)
            write_report(find_runs([results]), results)
            browser.send(
                "Emulation.setDeviceMetricsOverride", width=1280, height=height, deviceScaleFactor=1, mobile=False
            )
            browser.theme(theme)
            browser.open(results / "report.html", fragment.format(id="logic/val/0"))
            browser.screenshot(output / name)
            sys.stdout.write(f"wrote {output / name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/assets"))
