"""Tasks of which every question is asked several times: what is asked, what the figures are, what is refused."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from command_line import Result
from tiny_models import make_checkpoint

from evalkit.backends.engine import EngineBackend
from evalkit.configuration.compose import rebuild
from evalkit.errors import ConfigError
from evalkit.evaluation.loop import questions_of
from evalkit.evaluation.subset import Subset
from evalkit.metrics import macro_mean, micro_mean
from evalkit.models.spec import ModelSpec
from evalkit.sampling import Sampled, sampled
from evalkit.task import Switched, by_group, with_protocol
from evalkit.types import (
    Aggregate,
    Example,
    GenerateOutput,
    GenerateRequest,
    Json,
    Output,
    Sampling,
    Score,
)

WORDS = ("tasks.gsm8k.num_samples=4", "tasks.gsm8k.temperature=0.9", "tasks.gsm8k.top_p=0.95", "tasks.gsm8k.seed=1")
BUNDLED = ("task=gsm8k", "data_dir=bundled", "tasks.gsm8k.num_fewshot=1", "tasks.gsm8k.max_new_tokens=8")


@dataclass(frozen=True)
class Sums:
    """Sums in two groups, answered by a number."""

    answered: bool = True
    mean: str = "micro"
    name = "sums"
    metric = "accuracy"
    cell = "accuracy"

    def examples(self) -> Sequence[Example]:
        """Three of one group, one of another."""
        target = "4" if self.answered else None
        return [Example(f"test/{n}", {"n": str(n)}, target, "ab"[n == 3]) for n in range(4)]

    def request(self, example: Example) -> GenerateRequest:
        """The question's number."""
        return GenerateRequest(f"Sum {example.row['n']}:", ("\n",), 5)

    def score(self, example: Example, output: Output) -> Score:
        """The text as it is."""
        assert isinstance(output, GenerateOutput)
        return Score(
            example.id, example.group, output.text or None, example.target, float(output.text == "4"), {"x": 1}
        )

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The mean, over questions or over groups."""
        values = [score.value for score in scores]
        metric = micro_mean(values) if self.mean == "micro" else macro_mean(by_group(scores))
        return Aggregate({"accuracy": metric}, {"kind": {g: micro_mean(v) for g, v in by_group(scores).items()}})

    def provenance(self) -> dict[str, Json]:
        """Hardly any."""
        return {"data": {"comparable": True, "splits": {}}, "protocol": {"name": "plain", "switches": {}}}


def of(num_samples: int = 4, task: Any = None, **settings: Any) -> Sampled:
    found = sampled(task or Sums(), num_samples, **{"temperature": 0.8, **settings})
    assert isinstance(found, Sampled)
    return found


def scores_of(task: Sampled, texts: Sequence[Sequence[str]]) -> list[Score]:
    """texts: by question, what each sample says."""
    said = [text for of_question in texts for text in of_question]
    return [
        task.score(example, GenerateOutput(text, "stop", 1, 1))
        for example, text in zip(task.examples(), said, strict=False)
    ]


def test_a_sample_is_a_question_of_its_own() -> None:
    task = of(3)
    examples = task.examples()
    assert [example.id for example in examples][:4] == ["test/0#0", "test/0#1", "test/0#2", "test/1#0"]
    assert len({example.id for example in examples}) == 12
    requests = [task.request(example) for example in examples]
    assert [request.sampling for request in requests[:3]] == [Sampling(0.8, 1.0, 0, number) for number in range(3)]
    assert len({request.sha for request in requests}) == 12
    assert {request.prompt for request in requests[:3]} == {"Sum 0:"}


def test_more_samples_keep_those_that_there_are() -> None:
    few, many = of(2), of(5)
    asked = {e.id: many.request(e) for e in many.examples()}
    assert all(asked[e.id] == few.request(e) for e in few.examples())


def test_greedy_is_the_task_itself() -> None:
    task = Sums()
    assert sampled(task) is task
    assert sampled(task, 1, 0.0, 1.0, 7) is task


def test_a_limit_and_a_subset_count_questions_not_samples() -> None:
    assert [q.example.id for q in questions_of(of(2), 1)] == ["test/0#0", "test/0#1", "test/3#0", "test/3#1"]
    subset = Subset("some", {"sums": ("test/2",)})
    assert [q.example.id for q in questions_of(of(2), None, subset)] == ["test/2#0", "test/2#1"]


def test_the_headline_is_the_mean_over_samples_and_n_counts_questions() -> None:
    task = of(4)
    figures = task.aggregate(scores_of(task, ["4444", "4000", "0000", "4400"]))
    assert figures.metrics["accuracy"].value == pytest.approx(100 * 7 / 16)
    assert figures.metrics["accuracy"].n == 4
    assert next(iter(figures.metrics)) == "accuracy"
    assert figures.groups["kind"]["a"].value == pytest.approx(100 * 5 / 12)
    assert figures.groups["kind"]["a"].n == 3


def test_the_tasks_own_kind_of_mean_is_kept() -> None:
    task = of(4, Sums(mean="macro"), pass_at=(2,))
    figures = task.aggregate(scores_of(task, ["4444", "4000", "0000", "4400"]))
    assert figures.metrics["accuracy"].value == pytest.approx(100 * (5 / 12 + 2 / 4) / 2)
    assert figures.metrics["pass@2"].value == pytest.approx(100 * ((1 + 0.5 + 0) / 3 + 5 / 6) / 2)


def test_the_majority_answer_is_the_most_frequent_one_the_first_of_equals_and_never_none() -> None:
    task = of(5)
    texts = [["4", "0", "4", "0", "4"], ["0", "4", "4", "0", "9"], ["", "", "", "", "4"], ["", "", "", "", ""]]
    figures = task.aggregate(scores_of(task, texts))
    assert figures.metrics["majority"].value == pytest.approx(100 * 2 / 4)


def test_there_is_no_majority_where_nothing_tells_the_right_answer() -> None:
    task = of(10, Sums(answered=False))
    assert list(task.aggregate(scores_of(task, ["4" * 10] * 4)).metrics) == ["accuracy", "pass@10"]


def test_pass_at_k_is_told_as_far_as_there_are_samples() -> None:
    for num_samples, names in ((1, []), (9, []), (10, ["pass@10"]), (120, ["pass@10", "pass@100"])):
        task = of(num_samples, Sums(answered=False))
        found = task.aggregate(scores_of(task, ["4" * num_samples] * 4)).metrics
        assert list(found) == ["accuracy", *names]
        assert all(metric.value == 100 for metric in found.values())
    task = of(6, pass_at=[1, 3, 6])
    found = task.aggregate(scores_of(task, ["400000", "444000", "000000", "444444"])).metrics
    assert list(found) == ["accuracy", "majority", "pass@1", "pass@3", "pass@6"]
    assert found["pass@1"].value == found["accuracy"].value
    assert found["pass@3"].value == pytest.approx(100 * (0.5 + 19 / 20 + 0 + 1) / 4)


def test_a_sample_that_could_not_be_run_is_left_out() -> None:
    task = of(2, pass_at=[2])
    scores = scores_of(task, ["44", "40", "00", "44"])
    broken = [Score("test/0#0", "a", None, "4", None, {"error": "no memory"}), *scores[1:]]
    figures = task.aggregate(broken).metrics
    assert figures["accuracy"].value == pytest.approx(100 * (1 + 0.5 + 0 + 1) / 4)
    assert (figures["pass@2"].n, figures["pass@2"].value) == (3, pytest.approx(100 * (1 + 0 + 1) / 3))


def test_the_run_says_that_it_is_sampled() -> None:
    task = of(4, top_p=0.95, seed=1)
    assert task.settings == {"num_samples": 4, "temperature": 0.8, "top_p": 0.95, "seed": 1}
    provenance = task.provenance()
    assert provenance["sampling"] == task.settings
    assert provenance["protocol"] == {
        "name": "plain+num_samples:4+temperature:0.8+top_p:0.95+seed:1",
        "base": "plain",
        "switches": {"num_samples": "4", "temperature": "0.8", "top_p": "0.95", "seed": "1"},
    }
    assert of(2).provenance()["protocol"]["name"] == "plain+num_samples:2+temperature:0.8"  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "tasks.sums.num_samples=0: use a whole number from 1 to"),
        ({"num_samples": 2.5}, "tasks.sums.num_samples=2.5: use"),
        ({"num_samples": True}, "tasks.sums.num_samples=True: use"),
        ({"temperature": 0.0}, "num_samples=4: at temperature 0 all samples are the same; set a temperature"),
        ({"temperature": -1}, "tasks.sums.temperature=-1: use a number above 0"),
        ({"temperature": "hot"}, "tasks.sums.temperature=hot: use a number"),
        ({"temperature": float("nan")}, "tasks.sums.temperature=nan: use a number"),
        ({"top_p": 0}, "tasks.sums.top_p=0: use a share above 0, up to 1"),
        ({"top_p": 1.2}, "tasks.sums.top_p=1.2: use a share"),
        ({"num_samples": 1, "temperature": 0, "top_p": 0.9}, "top_p=0.9: greedy answers take the likeliest"),
        ({"seed": -1}, "tasks.sums.seed=-1: use a whole number from 0"),
        ({"seed": 1.5}, "tasks.sums.seed=1.5: use"),
        ({"pass_at": [1, 10]}, "pass@10 needs 10 samples of each question, tasks.sums.num_samples is 4"),
        ({"pass_at": 10}, r"tasks.sums.pass_at=10: write a list of numbers"),
        ({"pass_at": []}, "write a list of numbers"),
        ({"pass_at": ["one"]}, "tasks.sums.pass_at: one is no whole number"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampled(Sums(), **{"num_samples": 4, "temperature": 0.8, **settings})


def test_another_protocol_keeps_the_samples(task_builder: Callable[..., Any]) -> None:
    task = task_builder("gsm8k", *BUNDLED[1:], *WORDS)
    assert isinstance(task, Switched)
    other = with_protocol(task, "qwen-corrected")
    assert (other.protocol, other.num_samples, other.chosen["answer"]) == ("qwen-corrected", 4, "last-number")
    assert other.provenance()["protocol"]["base"] == "qwen-corrected"
    assert [e.id for e in other.examples()] == [e.id for e in task.examples()]
    assert all(other.request(e) == task.request(e) for e in task.examples())


def test_the_built_in_tasks_ask_what_they_ask_greedily_but_for_the_draws(task_builder: Callable[..., Any]) -> None:
    for name, words in (("gsm8k", BUNDLED[1:]), ("humaneval", ())):
        plain = task_builder(name, *words)
        assert not isinstance(plain, Sampled)
        drawn = task_builder(name, *words, f"tasks.{name}.num_samples=3", f"tasks.{name}.temperature=0.5")
        greedy = {e.id: plain.request(e) for e in plain.examples()}
        assert len(drawn.examples()) == 3 * len(greedy)
        for example in drawn.examples():
            assert replace(drawn.request(example), sampling=None) == greedy[example.sample_of]


def test_a_strict_verdict_is_summed_up_over_samples_too(task_builder: Callable[..., Any]) -> None:
    words = ("tasks.humaneval.num_samples=4", "tasks.humaneval.temperature=0.5")
    drawn = task_builder("humaneval", *words)
    verdicts = {  # by question, of each sample: passed, and strictly
        "HumanEval/0": [("passed", "passed"), ("passed", "failed"), ("failed", None), ("passed", "passed")],
        "HumanEval/1": [("passed", "not judged strictly"), *[("failed", None)] * 3],
        "HumanEval/2": [("failed", None)] * 4,
    }
    scores = [
        Score(f"{question}#{number}", "", "text", None, float(status == "passed"),
              {"status": status} | ({"strict": strict} if strict else {}))
        for question, samples in verdicts.items()
        for number, (status, strict) in enumerate(samples)
    ]  # fmt: skip
    aggregate = drawn.aggregate(scores)
    assert aggregate.metrics["pass@1"].value == pytest.approx(100 * (3 + 1) / 12)
    assert aggregate.metrics["pass@1 strict"].value == pytest.approx(100 * 2 / 12)
    assert aggregate.metrics["pass@1 strict"].n == 3
    assert list(aggregate.groups["strict verdict of a pass"]) == ["HumanEval/0"]
    assert list(aggregate.groups["not judged strictly"]) == ["HumanEval/1"]


# --- from the command line ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("gpt_neox", tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=4096)


@pytest.fixture
def run(evalkit: Callable[..., Result], model: Path) -> Callable[..., dict[str, str]]:
    """Run the bundled problems, sampled; the texts by sample."""

    def go(results: str, *words: str) -> dict[str, str]:
        own = (f"model={model}", f"results_dir={results}")
        done = evalkit(*BUNDLED, *WORDS, *own, *words)
        assert done.code == 0, done.err
        summaries = (Path(results) / "tiny").glob("*/summary.json")
        folder = max(summaries, key=lambda path: path.stat().st_mtime_ns).parent
        lines = (folder / "outputs.jsonl").read_text().splitlines()
        return {line["id"]: line["text"] for line in map(json.loads, lines)}

    return go


def test_samples_are_the_same_whatever_the_batch_the_limit_and_the_sessions(
    run: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    whole = run("whole", "limit=3")
    assert sorted(whole) == [f"test/{question}#{number}" for question in range(3) for number in range(4)]
    assert len(set(whole.values())) > 9
    run("parts", "limit=1", "tasks.gsm8k.num_samples=2", "backend.max_batch_tokens=50")
    run("parts", "limit=2", "tasks.gsm8k.num_samples=3", "backend.prompt_lookup=false")
    assert run("parts", "limit=3", "backend.max_batch_tokens=64") == whole
    names = [
        f"gsm8k@qwen+num_fewshot=1+max_new_tokens=8,limit={limit},num_samples={n},temperature=0.9,top_p=0.95,seed=1"
        for limit, n in ((1, 2), (2, 3))
    ]
    folders = sorted(path.name for path in (tmp_path / "parts/tiny").iterdir() if path.is_dir())
    assert folders == ["gsm8k", *(f"{name},data=bundled" for name in names)]
    plain = run("plain", "limit=2", "backend=reference")
    assert plain == {name: text for name, text in whole.items() if name in plain}
    other = run("other", "limit=2", "tasks.gsm8k.seed=2")
    assert not {name for name in other if other[name] == whole[name]}
    summaries = [json.loads((tmp_path / f / "tiny/gsm8k/summary.json").read_text()) for f in ("whole", "parts")]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    assert summaries[0]["provenance"]["model"]["draws"].startswith("evalkit's: by seed, prompt")
    assert summaries[0]["check"]["flipped"] == []
    assert summaries[0]["check"]["num_checked"] == 12


def test_a_sampled_folder_is_verified_and_resumed_without_a_question(
    run: Callable[..., dict[str, str]], evalkit: Callable[..., Result], model: Path
) -> None:
    texts = run("r", "limit=2")
    outputs = Path("r/tiny/gsm8k/outputs.jsonl")
    lines = outputs.read_text().splitlines(keepends=True)
    outputs.write_text("".join(lines[:3]))
    assert run("r", "limit=2") == texts
    assert evalkit("verify", "r/tiny/gsm8k").code == 0
    before = outputs.read_bytes()
    assert run("r", "limit=2") == texts
    assert outputs.read_bytes() == before


def test_parts_for_several_processes_give_the_same_samples(model: Path, task_builder: Callable[..., Any]) -> None:
    task = task_builder("gsm8k", *BUNDLED[1:], *WORDS)
    items = [(q.example.id, q.request) for q in questions_of(task, 3)]
    spec = ModelSpec(name="tiny", path=str(model), end_of_text=["</s>"], dtype="float32", device="cpu")
    whole = dict(EngineBackend(spec, num_checked=0).answer(items))
    random.Random(0).shuffle(items)
    backend = EngineBackend(spec, num_checked=0)
    parts = backend.divide(items, 3, on_gpus=False)
    assert len(parts) > 1
    found = {name: output for part in parts for name, output in backend.answer_part(part)}
    assert {n: o.text for n, o in found.items() if isinstance(o, GenerateOutput)} == {
        n: o.text for n, o in whole.items() if isinstance(o, GenerateOutput)
    }


def test_replayed_samples_of_gsm8k_have_a_mean_a_majority_and_pass_at_k(
    evalkit: Callable[..., Result], task_builder: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("data_dir=bundled", "tasks.gsm8k.num_samples=10", "tasks.gsm8k.temperature=0.8")
    task = task_builder("gsm8k", *words)
    rng = random.Random(0)
    right: dict[str, list[bool]] = {}
    with (tmp_path / "samples.jsonl").open("w") as file:
        for example in task.examples():
            skill = 0.2 * (int(example.sample_of.rpartition("/")[2]) % 6)
            right.setdefault(example.sample_of, []).append(rng.random() < skill)
            number = example.target if right[example.sample_of][-1] else 100000 + len(right[example.sample_of])
            file.write(json.dumps({"id": example.id, "text": f"The answer is {number}\n\n"}) + "\n")
    done = evalkit("task=gsm8k", "backend=replay", "backend.path=samples.jsonl", *words, "tasks.gsm8k.pass_at=[1,10]")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "results/qwen-1_8b/gsm8k/summary.json").read_text())
    metrics = summary["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(100 * fmean(map(fmean, right.values())))
    assert metrics["pass@10"]["value"] == pytest.approx(100 * fmean(map(any, right.values())))
    assert metrics["pass@1"] == metrics["accuracy"]
    # Wrong answers all differ, so two right ones are a majority; one is where it was drawn first.
    voted = [sum(of_question) >= 2 or of_question[0] for of_question in right.values()]
    assert metrics["majority"]["value"] == pytest.approx(100 * fmean(voted))
    assert {metric["n"] for metric in metrics.values()} == {12}
    report = (tmp_path / "results/qwen-1_8b/report.md").read_text()
    assert "| majority |" in report
    assert "qwen+num\\_samples:10+temperature:0.8" in report


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tasks.gsm8k.num_samples=20",), "tasks.gsm8k.num_samples=20: at temperature 0 all samples are the same"),
        (("tasks.gsm8k.temperature=1", "tasks.gsm8k.top_p=0"), "tasks.gsm8k.top_p=0: use a share above 0, up to 1"),
        (("tasks.gsm8k.temperature=1", "tasks.gsm8k.pass_at=[2]"), "pass@2 needs 2 samples of each question"),
        (("tasks.humaneval.num_samples=2",), "task humaneval is not chosen: 'tasks.humaneval.num_samples'"),
        (("tasks.gsm8.num_samples=2",), "unknown key: 'tasks.gsm8.num_samples'"),
        (("tasks.gsm8k.num_sample=2",), "did you mean tasks.gsm8k.num_samples?"),
        (("task=mmlu", "tasks.mmlu.num_samples=2", "tasks.mmlu.temperature=1"), "mmlu compares the log-probabilities"),
    ],
)
def test_a_wrong_key_is_one_clear_line(evalkit: Callable[..., Result], words: tuple[str, ...], message: str) -> None:
    base = () if any(word.startswith("task=") for word in words) else ("task=gsm8k",)
    done = evalkit(*base, "backend=scripted", "data_dir=bundled", *words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
    assert message in done.line


def test_a_task_of_ones_own_takes_the_keys_without_listing_them(
    evalkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "sums.yaml").write_text(
        "# @package tasks.sums\n_target_: test_sampled.Sums\nmean: micro\n"
    )
    words = ("--config-dir", "conf", "task=sums", "backend=scripted", "backend.text='4'")
    assert evalkit(*words, "tasks.sums.num_samples=3", "tasks.sums.temperature=0.7").code == 0
    summary = json.loads((tmp_path / "results/qwen-1_8b/sums/summary.json").read_text())
    assert summary["metrics"]["accuracy"] == {
        "value": 100.0,
        "n": 4,
        "low": pytest.approx(51.01, abs=0.01),
        "high": 100,
    }
    assert summary["provenance"]["sampling"]["num_samples"] == 3
    refused = evalkit(*words, "tasks.sum.temperature=0.7")
    assert (refused.code, "tasks.sum.temperature" in refused.line) == (2, True)


@dataclass(frozen=True)
class Shuffled(Sums):
    """A task with a seed and a temperature of its own."""

    seed: int = 0
    temperature: float = 20.0  # degrees


def test_a_key_that_a_tasks_own_constructor_takes_is_its_own_and_a_seed_is_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    node = {"_target_": "test_sampled.Shuffled", "seed": 3, "temperature": 25.0}
    task = rebuild({"tasks": {"sums": node}}, "tasks.sums")
    assert (type(task).__name__, task.seed, task.temperature) == ("Shuffled", 3, 25.0)
    node = {"_target_": "test_sampled.Sums", "seed": 3, "temperature": 0.5, "mean": "macro"}
    task = rebuild({"tasks": {"sums": node}}, "tasks.sums")
    assert (task.seed, task.temperature, task.task.mean) == (3, 0.5, "macro")


def test_runs_of_samples_are_compared_by_question(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    words = ("task=gsm8k", "data_dir=bundled", "tasks.gsm8k.num_samples=5", "tasks.gsm8k.temperature=0.8")
    for name, text in (("a", "The answer is 18"), ("b", "The answer is 72")):
        done = evalkit(*words, "backend=scripted", f"backend.text='{text}'", f"results_dir={name}")
        assert done.code == 0, done.err
    compared = evalkit("compare", "a/qwen-1_8b", "b/qwen-1_8b")
    assert compared.code == 0, compared.err
    assert " 12 " in compared.out
    assert " 60 " not in compared.out


def test_a_greedy_run_and_a_sampled_one_stand_beside_each_other(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    words = ("task=gsm8k", "data_dir=bundled", "backend=scripted")
    drawn = ("tasks.gsm8k.num_samples=2", "tasks.gsm8k.temperature=0.8")
    for more in (drawn, (), drawn):
        done = evalkit(*words, *more)
        assert done.code == 0, done.err
    folders = [path.parent.name for path in sorted((tmp_path / "results/qwen-1_8b").glob("*/summary.json"))]
    assert folders == ["gsm8k", "gsm8k@num_samples=2,temperature=0.8,top_p=1.0,seed=0,data=bundled"]
    greedy = json.loads((tmp_path / "results/qwen-1_8b/gsm8k/summary.json").read_text())
    assert "sampling" not in greedy["provenance"]
    assert greedy["provenance"]["num_questions"] == 12
    report = (tmp_path / "results/qwen-1_8b/report.md").read_text()
    assert "What a protocol changes" in report
