"""How quick report.html is with all of MMLU.

    PYTHONPATH=.:tests/report python tests/bench/report_page.py [QUESTIONS]

Prints a table for people and a last JSON line for machines: milliseconds until the page is ready (bound: 2,000)
and until a filter has been applied and laid out (bound: 100), in a real headless Chromium.
"""

import json
import sys
import tempfile
from pathlib import Path

from chromium import Chromium, find_chromium
from folders import choice_items, write_run

from evalkit.card.load import load_card
from evalkit.report.files import write_report

FILTERS = {"show": "wrong", "group": "subject_3", "run": "", "search": "what is 17"}


def measure(num_questions: int) -> dict[str, float]:
    """Milliseconds by what was done, the slowest of three page loads; the page's MiB."""
    program = find_chromium()
    assert program, "no Chromium on this machine: apt-get install chromium-headless-shell"
    with tempfile.TemporaryDirectory() as folder, Chromium(program) as browser:
        results = Path(folder)
        run = write_run(results, choice_items(num_questions, num_subjects=57), "mmlu", "qwen-1_8b")
        write_report([run], load_card("qwen-1_8b"), results)
        page = results / "report.html"
        times = {"page MiB": page.stat().st_size / 2**20, "ready ms": 0.0}
        for _ in range(3):
            browser.open(page)
            times["ready ms"] = max(times["ready ms"], float(browser.run("document.documentElement.dataset.readyMs")))
        for element, value in FILTERS.items():
            event = "input" if element == "search" else "change"
            times[f"{element} ms"] = browser.run(
                f"(() => {{const e = document.getElementById('{element}'); e.value = {json.dumps(value)};"
                f" const t = performance.now(); e.dispatchEvent(new Event('{event}'));"
                " document.getElementById('list').offsetHeight; return performance.now() - t;})()"
            )
    return times


if __name__ == "__main__":
    figures = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 14_042)
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<12} {figure:8.1f}\n")
    sys.stdout.write(json.dumps({name: round(figure, 1) for name, figure in figures.items()}) + "\n")
