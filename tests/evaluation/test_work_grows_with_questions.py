"""No part of a run takes work that grows faster than its questions: calls are counted at two sizes, no clock is read."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from command_line import Result
from counted_calls import calls_of
from own_checkpoints import qwen2

FEW, TIMES = 30, 5
KEYS = """# @package tasks.{name}
defaults: [/task_in_yaml]
name: {name}
rows: ${{oc.env:EVALKIT_ROWS}}
group: "{{{{ group }}}}"
"""
PICK = """query: "{{ question }} A. {{ a }} B. {{ b }} Answer:"
letters: AB
answer: "{{ label }}"
"""
SAY = """query: "{{ question }} Answer:"
kind: generate
read: last-number
max_new_tokens: 4
answer: "{{ b }}"
"""


def write_rows(path: Path, number: int) -> None:
    rows = [
        {"question": f"{i} and {i % 7}?", "a": str(i), "b": str(i + i % 7), "label": "AB"[i % 2], "group": f"g{i % 5}"}
        for i in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_from_the_questions_to_the_report(evalkit: Callable[..., Result], tmp_path: Path, monkeypatch: Any) -> None:
    qwen2(tmp_path / "model")
    folder = tmp_path / "conf" / "task"
    folder.mkdir(parents=True)
    for name, keys in (("pick", PICK), ("say", SAY)):
        (folder / f"{name}.yaml").write_text(KEYS.format(name=name) + keys, encoding="utf-8")

    def counted(number: int) -> Counter[tuple[CodeType, str]]:
        rows = tmp_path / f"rows{number}.jsonl"
        write_rows(rows, number)
        monkeypatch.setenv("EVALKIT_ROWS", str(rows))
        words = ("--config-dir", "conf", "task=[pick,say]", "model=./model", "model.dtype=float32")
        counts = calls_of(lambda: codes.append(evalkit(*words, f"results_dir=of-{number}").code))
        assert codes.pop() == 0
        return counts

    codes: list[int] = []
    few, many = counted(FEW), counted(TIMES * FEW)
    allowed = TIMES**1.5  # a tree of prefixes has a few levels more
    faster = {what: (few[what], n) for what, n in many.items() if n > allowed * max(few[what], FEW)}
    assert not faster
