"""graders.jsonl: every answer rule of a task tried on the very outputs that a run stored.

    {"rules": ["answer:last-digits", …], "own": ["answer:last-digits", …]}
    {"id": "test/0", "group": "", "target": "18", "answers": ["18", …], "values": [1.0, …]}

One answer and one value a rule; a value is null where the stored text ends before the rule could have read it, and
`unknown` then says why, by rule. A sample names the question that it is of (`sample_of`).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from evalkit.evaluation.graders import graders
from evalkit.evaluation.loop import Question
from evalkit.task import Switched, Task
from evalkit.types import ErrorOutput, Example, Json, Output, Record, Score, json_text

_THREADS = 2  # HumanEval's programs are run once more under each rule

Grader: TypeAlias = Callable[[Example, Output], Score]


def grader_lines(
    task: Task, questions: Sequence[Question], records: Mapping[tuple[str, str], Record], scores: Sequence[Score]
) -> str:
    """The content of graders.jsonl; empty for a task with one rule alone.

    scores: those of the run, in the order of the questions; what a rule says that is the run's own.
    """
    if not isinstance(task, Switched):
        return ""
    rules = graders(task)
    own = [rule for rule in rules if _is_own(task, rule)]
    if len(rules) == len(own):
        return ""
    answered = [(q.example, records[q.example.id, q.request_sha].output) for q in questions]

    def line(entry: tuple[tuple[Example, Output], Score]) -> dict[str, Json]:
        (example, output), score = entry
        graded = {rule: score if rule in own else grade(example, output) for rule, grade in rules.items()}
        return _line(example, score, graded)

    ran = [entry for entry in zip(answered, scores, strict=True) if not isinstance(entry[0][1], ErrorOutput)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="grade") as pool:
        lines: list[dict[str, Json]] = [{"rules": list[Json](rules), "own": list[Json](own)}, *pool.map(line, ran)]
    return "".join(json_text(entry, separators=(",", ":")) + "\n" for entry in lines)


def _is_own(task: Switched, rule: str) -> bool:
    switch, _, value = rule.partition(":")
    return task.chosen.switches[switch] == value


def _line(example: Example, score: Score, graded: Mapping[str, Score]) -> dict[str, Json]:
    line: dict[str, Json] = {
        "id": score.id,
        **({"sample_of": example.sample_of} if example.sample_of else {}),
        "group": score.group,
        "target": score.target,
        "answers": [entry.answer for entry in graded.values()],
        "values": [entry.value for entry in graded.values()],
    }
    unknown = {rule: entry.detail["unknown"] for rule, entry in graded.items() if "unknown" in entry.detail}
    return {**line, "unknown": unknown} if unknown else line
