"""How quick report.html is with all of MMLU under five runs.

    PYTHONPATH=.:tests python tests/bench/report_page.py [QUESTIONS [RUNS]]

Prints a table for people and a last JSON line for machines, in milliseconds, each the slowest of three: until the first
screen is drawn (bound: 500), until an address leads to its question, until another question is open, and until a filter
has been applied and laid out, in a real headless Chromium. The first search unpacks and lower-cases every text. Texts
are words drawn at random: they compress no better than questions do.
"""

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from chromium import Chromium, find_chromium
from folders import Item, choice_items, write_run

from evalkit.card.load import load_card
from evalkit.report.files import write_report
from evalkit.store.read import find_runs

FILTERS = {
    "show": "wrong",
    "group": "subject_3",
    "run": "model-1/mmlu",
    "against": "model-2/mmlu",
    "search": "no such words",
    "search again": "other words",
}


def worded(items: list[Item], rng: random.Random) -> Iterator[Item]:
    """The same questions with texts as long as MMLU's: 5 worked examples, then some 400 characters."""
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(20_000)]

    def text(num_words: int) -> str:
        return " ".join(rng.choices(vocabulary, k=num_words))

    headers: dict[str, str] = {}
    for asked, output, score in items:
        header = headers.setdefault(asked.group, "".join(f"Question: {text(60)}\nAnswer: A\n\n" for _ in range(5)))
        choices = "".join(f"{letter}. {text(6)}\n" for letter in "ABCD")
        prompt = f"{header}Question: {text(30)}\n{choices}Answer:"
        request = replace(asked.request, prompt=prompt, question_at=len(header))
        yield replace(asked, request=request), output, score


def made(results: Path, num_questions: int, num_runs: int) -> Path:
    """The page of as many runs; the models differ, the questions do not."""
    for number in range(num_runs):
        items = choice_items(num_questions, num_subjects=57, seed=number, skill=0.3 * number)
        items.sort(key=lambda item: item[2].group)  # subject by subject, as runs are
        same = list(worded(items, random.Random(0)))
        write_run(results, same, "mmlu", f"model-{number}", model={"dtype": "bfloat16"})
    write_report(find_runs([results]), results, load_card("qwen-1_8b"))
    return results / "report.html"


def measure(num_questions: int, num_runs: int) -> dict[str, float]:
    """Milliseconds by what was done; the page's MiB."""
    program = find_chromium()
    assert program, "no Chromium on this machine: apt-get install chromium-headless-shell"
    with tempfile.TemporaryDirectory() as folder, Chromium(program) as browser:
        page = made(Path(folder), num_questions, num_runs)
        times: dict[str, float] = {"page MiB": page.stat().st_size / 2**20}
        for _ in range(3):
            for name, fragment in {"ready": "", "ready at a question": "#q=model-1/mmlu/subject_3/test/3"}.items():
                browser.open(page, fragment)
                ready = float(browser.run("document.documentElement.dataset.readyMs"))
                times[name] = max(times.get(name, 0.0), ready)
            for name, took in interactions(browser):
                times[name] = max(times.get(name, 0.0), took)
    return times


def interactions(browser: Chromium) -> Iterator[tuple[str, float]]:
    """Another question, then one filter after the other, each until it is laid out."""
    yield "open another", timed(browser, "document.querySelector('.row:not(.chosen)').click()", "#detail", "h2")
    for name, value in FILTERS.items():
        element = name.partition(" ")[0]
        event = "input" if element == "search" else "change"
        act = (
            f"e = document.getElementById('{element}'); e.value = {json.dumps(value)};"
            f" e.dispatchEvent(new Event('{event}'))"
        )
        yield name, timed(browser, act, "#count", "")


def timed(browser: Chromium, act: str, watched: str, inside: str) -> float:
    """Milliseconds from an act until a node has changed and the page is laid out."""
    found = browser.run(
        f"""new Promise((resolve) => {{
          const node = document.querySelector({json.dumps(watched)});
          const begun = performance.now();
          new MutationObserver((_, observer) => {{
            if ({json.dumps(inside)} && !node.querySelector({json.dumps(inside)} || "*")) return;
            observer.disconnect();
            document.body.offsetHeight;
            resolve(performance.now() - begun);
          }}).observe(node, {{childList: true, characterData: true, subtree: true}});
          let e; {act};
        }})"""
    )
    return float(found)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    figures = measure(*(numbers + [14_042, 5][len(numbers) :]))
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<20} {figure:8.1f}\n")
    sys.stdout.write(json.dumps({name: round(figure, 1) for name, figure in figures.items()}) + "\n")
