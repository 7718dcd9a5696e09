"""Protocols of one's own: a file of switches, a class of another form, a function as a switch's value."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

from evalkit.store.questions import read_answered

SCRIPTED = ("data_dir=bundled", "model=smollm2-135m", "backend=scripted")
FORM = '''
from evalkit.metrics import micro_mean
from evalkit.protocols import Switch
from evalkit.types import Aggregate, LoglikelihoodRequest, Score


class Backwards:
    """Which question the answer belongs to."""

    shots_from = None
    switches = (Switch("mark", "what stands behind the answer", {"colon": "a colon", "none": "nothing"}),)

    def __init__(self, task, chosen):
        self.task, self.chosen = task, chosen

    def request(self, example):
        prompt = example.row["A"] + {"colon": ":", "none": ""}[self.chosen["mark"]]
        return LoglikelihoodRequest(prompt, tuple(" " + example.row[letter] for letter in "BCD"))

    def score(self, example, output):
        return Score(example.id, example.group, "B", example.target, float(example.target == "B"))

    def aggregate(self, scores):
        return Aggregate({self.task.metric: micro_mean([score.value for score in scores])})
'''


def write(text: str, name: str = "mine") -> Path:
    path = Path("conf/protocol") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def written(folder: Path, name: str) -> list[str]:
    """The prompts of a run."""
    questions = read_answered(folder / "results" / "smollm2-135m" / name)
    return [question.context.prefix + (question.rest or "") for question in questions]


def protocol_of(folder: Path, name: str) -> dict[str, object]:
    summary = json.loads((folder / "results" / "smollm2-135m" / name / "summary.json").read_bytes())
    told: dict[str, object] = summary["provenance"]["protocol"]
    return told


def test_a_set_of_switches_in_a_file_is_a_protocol_beside_the_others(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    write("mmlu: {like: qwen, question: bare, num_fewshot: 3}\n")
    done = evalkit("--config-dir", "conf", "task=mmlu", "limit=1", "protocols=[mine,lm-eval]", *SCRIPTED)
    assert done.code == 0, done.err
    own = protocol_of(tmp_path, "mmlu@mine")
    assert own["name"] == "mine"
    assert {**own["switches"], "question": "marked", "num_fewshot": "5"} == protocol_of_qwen(evalkit, tmp_path)  # type: ignore[dict-item]
    assert (tmp_path / "results" / "smollm2-135m" / "mmlu@lm-eval").is_dir()
    report = (tmp_path / "results" / "smollm2-135m" / "report.md").read_text(encoding="utf-8")
    assert "mine" in report
    listed = evalkit("--config-dir", "conf", "protocols", "mmlu")
    assert "| qwen | qwen-corrected | lm-eval | hendrycks | mine |" in listed.out
    assert evalkit("verify", "results/smollm2-135m/mmlu@mine", "--config-dir", "conf").code == 0


def protocol_of_qwen(evalkit: Callable[..., Result], tmp_path: Path) -> object:
    assert evalkit("task=mmlu", "limit=1", *SCRIPTED).code == 0
    return protocol_of(tmp_path, "mmlu")["switches"]


def test_a_file_may_be_like_another_file_and_flipped_like_any_protocol(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    write("gsm8k: {like: second, answer: last-number}\n", "first")
    write("gsm8k: {like: qwen, max_new_tokens: 7}\n", "second")
    done = evalkit("--config-dir=conf", "task=gsm8k", "tasks.gsm8k.protocol=first+num_fewshot:2", "limit=1", *SCRIPTED)
    assert done.code == 0, done.err
    told = protocol_of(tmp_path, "gsm8k@first+num_fewshot=2")["switches"]
    assert isinstance(told, dict)
    assert (told["answer"], told["max_new_tokens"], told["num_fewshot"]) == ("last-number", "7", "2")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- mmlu\n", "write a benchmark and its switches, e.g. TASK: {like: PROTOCOL, num_fewshot: 3}"),
        ("mmlu: qwen\n", "write a benchmark and its switches, e.g. TASK: {like: PROTOCOL, num_fewshot: 3}"),
        ("", "write a benchmark and its switches, e.g. TASK: {like: PROTOCOL, num_fewshot: 3}"),
        ("mmlu: {like: qwen\n", "cannot be read: while parsing a flow mapping"),
        ("mmlu: {like: qwne}\n", "mmlu: like qwne: there is no such protocol; use one of qwen, "),
        ("mmlu: {like: mine}\n", "mmlu: like mine runs in a circle: mine -> mine"),
        (
            "mmlu: {like: qwen, qestion: bare}\n",
            "mmlu: no switch 'qestion' (did you mean question?); the switches are ",
        ),
        (
            "mmlu: {like: qwen, question: bear}\n",
            "mmlu: question has no value 'bear' (did you mean bare?); use one of ",
        ),
        ("mmlu: {like: qwen, num_fewshot: 6}\n", "mmlu: num_fewshot has no value '6'; use a whole number from 0 to 5"),
        ("mmlu: {like: qwen, num_fewshot: [1]}\n", "mmlu: num_fewshot is ['1'], write one value"),
        ("mmlu: {question: bare}\n", "mmlu: lacks "),
        ("mmlu: {form: nowhere.Cloze}\n", "mmlu: form: nowhere.Cloze cannot be imported (No module named 'nowhere')"),
        ("mmlu: {form: json.Nothing}\n", "mmlu: form: json.Nothing: the module json has no Nothing"),
        ("mmlu: {form: json.dumps}\n", "mmlu: form: json.dumps lacks switches, request, score, aggregate; see"),
        (
            "mmlu: {like: qwen, form: evalkit.tasks.smollm2.Cloze}\n",
            "mmlu: qwen is of another form, whose switches are",
        ),
        ("mmlu: {like: qwen, softmax: nowhere.best}\n", "mmlu: softmax: nowhere.best cannot be imported"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line_with_its_name(
    evalkit: Callable[..., Result], text: str, line: str
) -> None:
    write(text)
    done = evalkit("--config-dir", "conf", "task=mmlu", "protocols=[mine]", "limit=1", *SCRIPTED)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(Path("conf/protocol/mine.yaml").absolute()) in done.line
    assert line in done.line


def test_circles_and_taken_names_are_refused(evalkit: Callable[..., Result]) -> None:
    write("gsm8k: {like: b}\n", "a")
    write("gsm8k: {like: a}\n", "b")
    done = evalkit("--config-dir", "conf", "protocols", "gsm8k")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "runs in a circle: a -> b -> a" in done.line
    Path("conf/protocol/a.yaml").unlink()
    write("mmlu: {like: lm-eval}\n", "qwen")
    done = evalkit("--config-dir", "conf", "protocols", "mmlu")
    assert "qwen.yaml: mmlu has a protocol qwen already; name the file otherwise" in done.line


def test_a_form_of_ones_own_asks_and_scores_as_its_class_says(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write("mmlu: {form: my_backwards.Backwards, mark: colon}\n")
    (tmp_path / "my_backwards.py").write_text(FORM, encoding="utf-8")
    done = evalkit(
        *("--config-dir", "conf", "task=mmlu", "limit=1", "protocols=[mine,lm-eval]", "backend.logprobs=[-1,-2,-3]"),
        *SCRIPTED,
    )
    assert done.code == 2  # lm-eval has four choices, and the script three
    one = evalkit(
        "--config-dir", "conf", "task=mmlu", "limit=1", "protocols=[mine]", "backend.logprobs=[-1,-2,-3]", *SCRIPTED
    )
    assert one.code == 0, one.err
    assert all(prompt.endswith(":") for prompt in written(tmp_path, "mmlu@mine"))
    assert protocol_of(tmp_path, "mmlu@mine") == {
        "name": "mine",
        "base": "mine",
        "form": "my_backwards.Backwards",
        "switches": {"mark": "colon"},
        "split": "test",
    }
    assert (
        "in another form, Backwards: Which question the answer belongs to."
        in evalkit("--config-dir", "conf", "protocols", "mmlu").out
    )


def test_two_forms_of_one_benchmark_run_together(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    done = evalkit("task=mmlu", "protocols=[qwen,smollm2]", "limit=1", *SCRIPTED)
    assert done.code == 0, done.err
    letters, cloze = written(tmp_path, "mmlu"), written(tmp_path, "mmlu@smollm2")
    assert len(letters) == len(cloze) == 4
    assert all("\nA. " in prompt for prompt in letters)
    assert all("\nA. " not in prompt and prompt.endswith("\nAnswer:") for prompt in cloze)
    assert protocol_of(tmp_path, "mmlu@smollm2")["form"] == "evalkit.tasks.smollm2.Cloze"
    assert evalkit("verify", "results/smollm2-135m/mmlu@smollm2").code == 0


BOXED = '''
import re


def boxed(text):
    """The last \\\\boxed number."""
    found = re.findall(r"boxed\\{(-?\\d+)\\}", text)
    return found[-1] if found else None


def cut():
    return ["END"]


def broken(text):
    return text["answer"]


def listed(text):
    return [text]
'''


def test_a_switch_takes_a_function_of_ones_own_by_the_command_line(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "my_boxed.py").write_text(BOXED, encoding="utf-8")
    asked = ("--config-dir", "conf", "task=gsm8k", *SCRIPTED, "backend.text='so \\boxed{42} END \\boxed{1}'")
    protocol = "tasks.gsm8k.protocol=qwen+cut:my_boxed.cut+answer:my_boxed.boxed"
    done = evalkit(*asked, protocol)
    assert done.code == 0, done.err
    run = tmp_path / "results" / "smollm2-135m" / "gsm8k@qwen+cut=my_boxed.cut+answer=my_boxed.boxed"
    scores = [json.loads(line) for line in (run / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {score["answer"] for score in scores} == {"42"}
    rules = json.loads((run / "graders.jsonl").read_text(encoding="utf-8").splitlines()[0])["rules"]
    assert {"answer:last-digits", "answer:my_boxed.boxed"} <= set(rules)
    assert evalkit("verify", str(run), "--config-dir", "conf").code == 0
    for function, line in (
        ("broken", "my_boxed.broken fails: TypeError: string indices must be integers"),
        ("listed", "my_boxed.listed returns a list; return one of: str, int, float, None"),
        ("missing", "answer: my_boxed.missing: the module my_boxed has no missing"),
        ("__name__", "my_boxed.__name__ is a str, where a function is wanted"),
    ):
        refused = evalkit(*asked, f"tasks.gsm8k.protocol=qwen+answer:my_boxed.{function}", f"results_dir={function}")
        assert refused.code == 2
        assert "Traceback" not in refused.err
        assert line in refused.line


def test_a_question_may_be_put_and_a_letter_chosen_by_functions(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "my_letters.py").write_text(
        "def put(row):\n    return f\"<{row['question']}>\"\n\n\ndef last(logprobs, letters):\n    return letters[-1]\n"
    )
    for task in ("mmlu", "ceval"):
        protocol = f"tasks.{task}.protocol=qwen+question:my_letters.put+softmax:my_letters.last"
        done = evalkit("--config-dir", "conf", f"task={task}", "limit=1", protocol, *SCRIPTED)
        assert done.code == 0, done.err
        name = f"{task}@qwen+question=my_letters.put+softmax=my_letters.last"
        prompts = written(tmp_path, name)
        assert prompts
        assert all(prompt.endswith(">") for prompt in prompts)
        scores = (tmp_path / "results" / "smollm2-135m" / name / "scores.jsonl").read_text(encoding="utf-8")
        assert {json.loads(line)["answer"] for line in scores.splitlines()} == {"D"}
