"""Several protocols of a benchmark in one run: asked together, kept apart, each as if it had been run alone."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from evalkit.backends.base import Answer, Item
from evalkit.card.load import load_card
from evalkit.cli import main
from evalkit.errors import ConfigError
from evalkit.evaluation.run import dry_run, run_tasks
from evalkit.evaluation.summary import without_measurements
from evalkit.evaluation.task_run import Settings
from evalkit.types import ErrorOutput, GenerateOutput, Json, LoglikelihoodOutput, LoglikelihoodRequest, Request

FILES = ("outputs.jsonl", "scores.jsonl", "questions.jsonl", "graders.jsonl")


class Teller:
    """A model whose answer depends on the prompt alone; it remembers every call."""

    def __init__(self, stop_after: int | None = None, name: str = "teller", no_memory_for: str = "") -> None:
        self.calls: list[list[str]] = []
        self.stop_after, self.name, self.no_memory_for = stop_after, name, no_memory_for
        self._told = 0

    def fingerprint(self) -> Mapping[str, Json]:
        return {"backend": self.name}

    def provenance(self) -> Mapping[str, Json]:
        return self.fingerprint()

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        self.calls.append([name for name, _ in items])
        for name, request in items:
            if self._told == self.stop_after:
                raise KeyboardInterrupt
            self._told += 1
            yield name, ErrorOutput("no memory", 7) if name == self.no_memory_for else said(request)


def said(request: Request) -> LoglikelihoodOutput | GenerateOutput:
    number = int(request.sha[:6], 16)
    if isinstance(request, LoglikelihoodRequest):
        return LoglikelihoodOutput(tuple(-1.0 - (number >> place) % 7 for place in range(4)), len(request.prompt))
    return GenerateOutput(
        f"first 1,{number % 1000:03d}\nThe answer is {number % 90}.0\n\n", "stop", 9, len(request.prompt)
    )


@pytest.fixture
def tasks(task_builder: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Bundled tasks under protocols: tasks("gsm8k", "qwen", "qwen-corrected")."""

    return lambda name, *protocols: [build(task_builder, name, protocol) for protocol in protocols]


@functools.cache
def build(task_builder: Callable[..., Any], name: str, protocol: str) -> Any:
    """Tasks keep nothing of a run, so the tests share them."""
    return task_builder(name, "data_dir=bundled", f"tasks.{name}.protocol={protocol}")


def settings(folder: Path) -> Settings:
    return Settings("smollm2-135m", folder / "results", None, load_card("qwen-1_8b"), {})


def contents(folder: Path, name: str) -> dict[str, Any]:
    run_folder = folder / "results" / "smollm2-135m" / name
    found: dict[str, Any] = {file: sorted((run_folder / file).read_text().splitlines()) for file in FILES}
    found["summary"] = without_measurements(json.loads((run_folder / "summary.json").read_bytes()))
    return found


def without_costs(found: dict[str, Any]) -> dict[str, Any]:
    """The same without what depends on who else was asked: a copied answer has cost nothing."""
    lines = [json.loads(line) for line in found["outputs.jsonl"]]
    plain = [{k: v for k, v in line.items() if k not in ("num_cached_tokens", "checksum")} for line in lines]
    return {**found, "outputs.jsonl": plain}


def test_protocols_that_run_together_leave_what_each_leaves_alone(
    tasks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    names = {"qwen": "mmlu", "hendrycks": "mmlu@hendrycks", "qwen+truncation:none": "mmlu@qwen+truncation=none"}
    run_tasks(tasks("mmlu", *names), Teller(), settings(tmp_path / "together"))
    for protocol, name in names.items():
        run_tasks(tasks("mmlu", protocol), Teller(), settings(tmp_path / protocol))
        assert contents(tmp_path / "together", name) == contents(tmp_path / protocol, name)


def test_all_protocols_of_a_benchmark_are_asked_in_one_call_and_a_shared_request_once(
    tasks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    backend = Teller()
    protocols = ("qwen", "qwen-corrected", "lm-eval+shots:card-file")
    run_tasks([*tasks("gsm8k", *protocols), *tasks("mmlu", "qwen")], backend, settings(tmp_path))
    gsm8k, mmlu = backend.calls
    own = [f"test/{number}" for number in range(12)]
    assert gsm8k == own + [f"{name}@lm-eval+shots:card-file" for name in own]
    assert len(mmlu) == 32
    qwen, corrected = (contents(tmp_path, name) for name in ("gsm8k", "gsm8k@qwen-corrected"))
    assert len(corrected["outputs.jsonl"]) == 12
    assert without_costs(qwen)["outputs.jsonl"] == without_costs(corrected)["outputs.jsonl"]
    assert qwen["scores.jsonl"] != corrected["scores.jsonl"]
    usage = json.loads((tmp_path / "results/smollm2-135m/gsm8k@qwen-corrected/summary.json").read_bytes())["usage"]
    assert (usage["computed_tokens"], usage["seconds"] < 1) == (0, True)
    assert usage["prompt_tokens"] == qwen["summary"]["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stop_after", [1, 12, 23])
def test_an_interrupted_run_of_several_protocols_goes_on_and_ends_as_an_undisturbed_one(
    tasks: Callable[..., list[Any]], tmp_path: Path, stop_after: int
) -> None:
    protocols = ("qwen", "lm-eval+shots:card-file", "qwen-corrected")
    run_tasks(tasks("gsm8k", *protocols), Teller(), settings(tmp_path / "undisturbed"))
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks("gsm8k", *protocols), Teller(stop_after), settings(tmp_path / "disturbed"))
    second = Teller()
    run_tasks(tasks("gsm8k", *protocols), second, settings(tmp_path / "disturbed"))
    assert sum(map(len, second.calls)) == 24 - stop_after
    for name in ("gsm8k", "gsm8k@lm-eval+shots=card-file", "gsm8k@qwen-corrected"):
        disturbed, undisturbed = (contents(tmp_path / kind, name) for kind in ("disturbed", "undisturbed"))
        assert disturbed == undisturbed, name
    third = Teller()
    run_tasks(tasks("gsm8k", *protocols), third, settings(tmp_path / "disturbed"))
    assert third.calls == []


def test_a_protocol_chosen_later_asks_nothing_that_another_one_has_asked(
    tasks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    run_tasks(tasks("gsm8k", "qwen"), Teller(), settings(tmp_path))
    before = contents(tmp_path, "gsm8k")
    later = Teller()
    run_tasks(tasks("gsm8k", "qwen-corrected"), later, settings(tmp_path))
    assert later.calls == []
    assert contents(tmp_path, "gsm8k") == before
    alone = tmp_path / "alone"
    run_tasks(tasks("gsm8k", "qwen-corrected"), Teller(), settings(alone))
    assert without_costs(contents(tmp_path, "gsm8k@qwen-corrected")) == without_costs(
        contents(alone, "gsm8k@qwen-corrected")
    )


def test_answers_of_another_model_beside_are_not_taken(tasks: Callable[..., list[Any]], tmp_path: Path) -> None:
    run_tasks(tasks("gsm8k", "qwen"), Teller(name="another"), settings(tmp_path))
    backend = Teller()
    run_tasks(tasks("gsm8k", "qwen-corrected"), backend, settings(tmp_path))
    assert len(backend.calls[0]) == 12


def test_a_question_that_could_not_be_run_is_an_error_of_every_protocol_that_asked_it(
    tasks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    protocols = ("qwen", "qwen-corrected")
    summaries = run_tasks(tasks("gsm8k", *protocols), Teller(no_memory_for="test/3"), settings(tmp_path))
    assert [summary.num_errors for summary in summaries] == [1, 1]
    graded = contents(tmp_path, "gsm8k")["graders.jsonl"]
    assert len(graded) == 12  # the head, and all but one
    again = Teller()
    summaries = run_tasks(tasks("gsm8k", *protocols), again, settings(tmp_path))
    assert again.calls == [["test/3"]]
    assert [summary.num_errors for summary in summaries] == [0, 0]


def test_a_protocol_chosen_twice_is_refused(tasks: Callable[..., list[Any]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mmlu is chosen twice"):
        run_tasks(tasks("mmlu", "qwen", "qwen+truncation:2047"), Teller(), settings(tmp_path))


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def evalkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Result]]:
    """Run `python -m evalkit ARGUMENT…` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["evalkit", "backend=scripted", "model=smollm2-135m", *arguments])
        code = main()
        return Result(code, *capfd.readouterr())

    yield call
    logging.getLogger().handlers.clear()


def test_the_command_line_runs_each_protocol_of_the_tasks_that_have_it(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    done = evalkit("task=[gsm8k,mmlu]", "data_dir=bundled", "protocols=[qwen,hendrycks]", "limit=2")
    assert done.code == 0, done.err
    assert "protocol hendrycks is left out: gsm8k has qwen, qwen-corrected, lm-eval" in done.err
    folder = tmp_path / "results" / "smollm2-135m"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["gsm8k", "mmlu", "mmlu@hendrycks"]
    manifest = json.loads((folder / "mmlu@hendrycks" / "manifest.json").read_bytes())
    assert manifest["config"]["tasks"]["mmlu"]["protocol"] == "hendrycks"
    assert manifest["config"]["protocols"] is None
    assert "smollm2-135m, hendrycks" in done.out
    assert "## Protocols" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_protocol_of_a_single_task_has_a_folder_beside_the_default_one(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    for protocol in ("qwen", "qwen-corrected", "qwen+truncation:none", "qwen+truncation:2047"):
        assert evalkit("task=mmlu", "data_dir=bundled", "limit=1", f"tasks.mmlu.protocol={protocol}").code == 0
    assert evalkit("task=mmlu", "data_dir=bundled", "limit=1", "tasks.mmlu.num_fewshot=2").code == 0
    names = sorted(path.name for path in (tmp_path / "results" / "smollm2-135m").iterdir() if path.is_dir())
    assert names == [
        "mmlu",
        "mmlu@qwen+num_fewshot=2,limit=1,data=bundled",
        "mmlu@qwen+truncation=none",
        "mmlu@qwen-corrected",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("task=gsm8k", "protocols=[hendrycks]"), "no chosen task has hendrycks; gsm8k has qwen, qwen-corrected"),
        (("task=[gsm8k,mmlu]", "protocols=[qwen,qwne]"), "no chosen task has qwne"),
        (("task=mmlu", "protocols=[qwen+cut:top-level]"), "no chosen task has qwen+cut:top-level"),
        (("task=mmlu", "protocols=[qwen+truncation:some]"), "truncation has no value 'some'"),
        (("task=mmlu", "protocols=[]"), "write a list of names, e.g. protocols=[qwen,qwen-corrected]"),
        (("task=mmlu", "protocols=3"), "write a list of names"),
        (("task=mmlu", "protocols={a:1}"), "write a list of names"),
        (("task=mmlu", "protocols=[qwen,[lm-eval]]"), "write a list of names"),
        (("task=mmlu", "protocols=[qwen,null]"), "write a list of names"),
        (("task=mmlu", "protocol=qwen"), "did you mean protocols?"),
    ],
)  # fmt: skip
def test_wrong_protocols_give_one_clear_line(
    evalkit: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    done = evalkit("data_dir=bundled", *arguments)
    assert (done.code, len(done.err.strip().splitlines()), done.out) == (2, 1, ""), done.err
    assert message in done.err


def test_a_dry_run_tells_what_the_protocols_take_together(
    tasks: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_preflight import CharacterModel

    out = "".join(dry_run(tasks("gsm8k", "qwen", "qwen-corrected"), CharacterModel(), settings(tmp_path)))
    assert "gsm8k@qwen-corrected: 12 questions, " in out
    alone = next(line for line in out.splitlines() if line.startswith("gsm8k: 12 questions"))
    both = next(line for line in out.splitlines() if line.startswith("gsm8k, 2 protocols together: 12 questions"))
    assert both.partition(": ")[2] == alone.partition(": ")[2]  # the requests are the same


def test_a_finished_run_of_before_learns_how_its_weights_are_stored(
    tasks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    class Told(Teller):
        def provenance(self) -> Mapping[str, Json]:
            return {**self.fingerprint(), "weights": "Q4_1, F32"}

    run_tasks(tasks("mmlu", "qwen"), Teller(), settings(tmp_path))
    later = Told()
    (summary,) = run_tasks(tasks("mmlu", "qwen"), later, settings(tmp_path))
    assert later.calls == []
    assert summary.provenance["model"] == {"backend": "teller", "weights": "Q4_1, F32"}
