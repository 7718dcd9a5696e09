"""Tasks in YAML alone: what their keys do, and that every mistake is one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Result
from evalkit.tasks.described import Described
from evalkit.tasks.described_fewshot import FewShot, Pool
from hub_layouts import hub_layout
from tiny_models import make_checkpoint

from evalkit.data.pins import pin_block, with_pins
from evalkit.errors import ConfigError, DataError, EvalkitError
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest

PETS = """number,subject,question,a,b,c,label
1,cats,What does a cat say?,meow,woof,moo,A
2,dogs,"What does a dog
say?",meow,woof,moo,B
3,cows,What does a cow say?,meow,woof,moo,C
4,cats,What does a cat chase?,mice,cars,trees,A
"""
STORIES = [
    {"context": "Tom put the milk into", "endings": ["the fridge.", "the oven, which was hot."], "label": 0},
    {"context": "Anna closed", "endings": ["her dinner.", "her umbrella.", "the sun."], "label": 1},
    {"context": "The runner drank", "endings": ["a brick.", "his medal.", "some water."], "label": 2},
]
SUMS = [
    {"question": "2 and 3?", "answer": "2 + 3 = 5. #### 5"},
    {"question": "1,000 twice?", "answer": "It is #### 2,000"},
    {"question": "7 less 4?", "answer": "7 - 4 = 3. #### 3"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with three files of rows, and the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets.csv").write_text(PETS, encoding="utf-8")
    write_jsonl(tmp_path / "stories.jsonl", STORIES)
    write_jsonl(tmp_path / "sums.jsonl", SUMS)
    return tmp_path


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def pets(**keys: Any) -> Described:
    query = "Q: {{ question }}\nA. {{ a }}\nB. {{ b }}\nC. {{ c }}\nAnswer:"
    return Described(
        **{"name": "pets", "rows": "pets.csv", "query": query, "letters": "ABC", "answer": "{{ label }}", **keys}
    )


def stories(**keys: Any) -> Described:
    choices = {"choices": "{{ endings }}", "answer": "{{ label }}"}
    return Described(**{"name": "stories", "rows": "stories.jsonl", "query": "{{ context }}", **choices, **keys})


def sums(**keys: Any) -> Described:
    own = {"answer": "{{ answer.split('#### ')[1] }}", "read": "last-number", "kind": "generate"}
    return Described(
        **{"name": "sums", "rows": "sums.jsonl", "query": "Question: {{ question }}\nAnswer:", **own, **keys}
    )


def asked(task: Described) -> list[Any]:
    return [task.request(example) for example in task.examples()]


def refusal(make: Callable[[], Described]) -> str:
    """The one line with which a task is refused, when it is made or when it is asked."""
    with pytest.raises(EvalkitError) as caught:
        asked(make())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_letters_are_asked_behind_the_query_as_the_template_puts_it() -> None:
    task = pets(header="About {{ subject }}.\n\n", group="{{ subject }}", id="{{ number }}")
    second = task.examples()[1]
    assert (second.id, second.target, second.group, second.row["question"]) == (
        "test/2",
        "B",
        "dogs",
        "What does a dog\nsay?",
    )
    assert task.request(second) == LoglikelihoodRequest(
        "About dogs.\n\nQ: What does a dog\nsay?\nA. meow\nB. woof\nC. moo\nAnswer:", (" A", " B", " C")
    )


def test_a_list_in_the_row_gives_the_choices_and_they_are_compared_as_the_task_says() -> None:
    requests = asked(stories())
    assert requests[0].continuations == (" the fridge.", " the oven, which was hot.")
    assert len(requests[1].continuations) == 3
    first = stories().examples()[0]
    assert first.target == "the fridge."
    assert json.loads(first.row["endings"]) == STORIES[0]["endings"]
    output = LoglikelihoodOutput((-11.0, -12.0), 3, num_tokens=(2, 8))
    answers = {by: stories(by=by).score(first, output).answer for by in ("raw", "characters", "tokens")}
    assert answers == {
        "raw": "the fridge.",
        "characters": "the oven, which was hot.",
        "tokens": "the oven, which was hot.",
    }
    assert [request.count_tokens for request in asked(stories(by="tokens"))] == [True] * 3
    assert stories(by="raw").request(first).sha == stories().request(first).sha


def test_choices_are_templates_of_columns_and_letters_may_be_shown_in_a_loop() -> None:
    task = stories(
        query="{{ context }}{% for choice in choices %}\n{{ letters[loop.index0] }}) {{ choice }}{% endfor %}\n=>",
        letters="ABCD",
    )
    assert asked(task)[1].prompt == "Anna closed\nA) her dinner.\nB) her umbrella.\nC) the sun.\n=>"
    assert asked(task)[1].continuations == (" A", " B", " C")
    texts = pets(letters=None, choices=["{{ a }}", "{{ b }}", "{{ c }}"], answer="{{ 'ABC'.index(label) }}")
    assert asked(texts)[3].continuations == (" mice", " cars", " trees")
    assert [example.target for example in texts.examples()] == ["meow", "woof", "moo", "mice"]


@pytest.mark.parametrize(
    ("answer", "targets"),
    [
        ("{{ label }}", ["x", "y"]),
        ("{{ letter }}", ["x", "y"]),
        ("{{ text }}", ["x", "y"]),
        ("{{ label | string }}", ["x", "y"]),
    ],
)
def test_an_answer_is_an_index_a_letter_or_a_text(folder: Path, answer: str, targets: list[str]) -> None:
    rows = [{"label": 0, "letter": "A", "text": "x"}, {"label": 1, "letter": "B", "text": "y"}]
    write_jsonl(folder / "rows.jsonl", rows)
    task = stories(rows="rows.jsonl", query="Q", choices=["x", "y"], answer=answer)
    assert [example.target for example in task.examples()] == targets


def test_an_answer_that_could_be_two_things_is_not_guessed(folder: Path) -> None:
    write_jsonl(folder / "rows.jsonl", [{"a": "2", "b": "1", "label": "1"}, {"a": "5", "b": "0", "label": "0"}])

    def task(**keys: Any) -> Described:
        return stories(rows="rows.jsonl", query="Q", choices=["{{ a }}", "{{ b }}"], **keys)

    line = refusal(lambda: task())
    assert line == (
        "tasks.stories.answer: rows.jsonl line 2: '0' may be an index from 0 or the text of a choice; say "
        "tasks.stories.answer_as=index or text"
    )
    assert [example.target for example in task(answer_as="index").examples()] == ["1", "5"]
    assert [example.target for example in task(answer_as="text").examples()] == ["1", "0"]


def test_answers_counted_from_one_are_not_taken_for_indices(folder: Path) -> None:
    write_jsonl(folder / "rows.jsonl", [{"label": 1 + i % 2} for i in range(20)])
    line = refusal(lambda: stories(rows="rows.jsonl", query="Q", choices=["x", "y", "z"]))
    assert "none of 20 answers is 0; where they are counted from 1, write {{ column | int - 1 }}" in line
    assert len(stories(rows="rows.jsonl", query="Q", choices=["x", "y", "z"], answer_as="index").examples()) == 20


def test_a_generated_answer_is_read_and_compared_as_a_number() -> None:
    task = sums(max_new_tokens=9, stop=["Question:"])
    second = task.examples()[1]
    assert second.target == "2000"
    assert task.request(second) == GenerateRequest("Question: 1,000 twice?\nAnswer:", ("Question:",), 9)
    kept = sums(max_new_tokens=9, stop=["Question:"], special_tokens="kept")
    assert kept.request(second) == replace(task.request(second), special_tokens="kept")
    assert kept.provenance() != task.provenance()
    for text, answer, value in [
        (" 2 * 1,000 = 2,000 Question: 7", "2000", 1.0),
        ("2000.0", "2000.0", 1.0),
        ("200", "200", 0.0),
        ("none", None, 0.0),
    ]:
        score = task.score(second, GenerateOutput(text, "stop", 1, 1))
        assert (score.answer, score.value) == (answer, value)


@pytest.mark.parametrize(
    ("keys", "text", "answer"),
    [
        ({"read": "whole"}, " The  Fridge, \n\nrest", "The  Fridge,"),
        ({"normalise": ["lower", "punctuation", "articles", "whitespace"]}, " The  Fridge, ", "fridge"),
        ({"read": {"regex": r"is (\w+)"}}, "it is a, it is b", "a"),
        ({"read": {"regex": r"is (?P<it>\w+)", "group": "it", "which": "last"}}, "it is a, it is b", "b"),
        ({"read": {"regex": r"\d[\d,]*"}, "normalise": ["commas"]}, "see 12,345,678", "12345678"),
        ({"read": {"regex": "never"}}, "it is a", None),
    ],
)
def test_an_answer_is_read_by_rule_and_normalised_in_order(keys: dict[str, Any], text: str, answer: str | None) -> None:
    task = sums(**{"answer": "x", "read": None, **keys})
    assert task.score(task.examples()[0], GenerateOutput(text, "stop", 1, 1)).answer == answer


def test_several_texts_may_be_right(folder: Path) -> None:
    write_jsonl(folder / "rows.jsonl", [{"question": "Who?", "names": ["Ann", "Annie"]}])
    task = sums(rows="rows.jsonl", answer="{{ names }}", read="whole", normalise=["strip", "lower"])
    (only,) = task.examples()
    assert [task.score(only, GenerateOutput(t, "stop", 1, 1)).value for t in ("annie", "ANN ", "Anna")] == [1, 1, 0]


def test_worked_examples_are_the_query_and_its_answer_or_as_the_template_says() -> None:
    task = stories(rows={"test": "stories.jsonl", "dev": "stories.jsonl"}, num_fewshot=1, fewshot="dev")
    # the same row under another split is left out, too
    assert asked(task)[0].prompt == "Anna closed her umbrella.\n\nTom put the milk into"
    assert asked(task)[1].prompt == "Tom put the milk into the fridge.\n\nAnna closed"
    shot = sums(num_fewshot=1, fewshot={"from": "test"}, shot="{{ question }} {{ answer }} ({{ target }})\n")
    assert asked(shot)[1].prompt == "2 and 3? 2 + 3 = 5. #### 5 (5)\nQuestion: 1,000 twice?\nAnswer:"
    file = sums(num_fewshot=2, fewshot={"from": "sums.jsonl"})
    assert asked(file)[2].prompt.count("Question: ") == 3


def test_a_draw_depends_on_the_seed_and_the_questions_id_alone() -> None:
    pool = Pool("dev", [f"q{i}" for i in range(50)], [""] * 50)

    def draw(seed: int, number: int, example_id: str) -> list[int]:
        return pool.choose(FewShot("dev", seed), number, example_id, "other", "")

    five = draw(1, 5, "test/0")
    assert five == [31, 48, 34, 1, 17]  # in every run, on every machine
    assert draw(1, 3, "test/0") == five[:3]
    assert len(set(draw(1, 50, "test/0"))) == 50
    assert five not in (draw(2, 5, "test/0"), draw(1, 5, "test/1"))


def test_worked_examples_may_be_of_the_questions_group() -> None:
    task = pets(group="{{ subject }}", fewshot={"from": "test", "same_group": True}, num_fewshot=1)
    cat = task.examples()[0]
    assert task.request(cat).prompt.startswith("Q: What does a cat chase?")
    assert refusal(lambda: task) == (
        "tasks.pets.num_fewshot=1: test has 0 worked examples of group dogs for test/1, its own row left out"
    )


def test_the_score_is_over_questions_or_over_groups() -> None:
    def score(mean: str) -> Any:
        task = pets(group="{{ subject }}", mean=mean)
        output = LoglikelihoodOutput((-1.0, -2.0, -3.0), 1)
        return task.aggregate([task.score(example, output) for example in task.examples()])

    assert score("micro").metrics["accuracy"].value == pytest.approx(50)
    assert score("macro").metrics["accuracy"].value == pytest.approx(100 / 3)
    assert {name: metric.value for name, metric in score("macro").groups["group"].items()} == {
        "cats": 100,
        "dogs": 0,
        "cows": 0,
    }


def test_rows_come_from_tsv_json_a_package_and_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(folder / "cache"))
    expected = [request.prompt for request in asked(sums())]
    (folder / "a.json").write_text(json.dumps(SUMS), encoding="utf-8")
    (folder / "a.tsv").write_text("question\tanswer\n" + "".join(f"{r['question']}\t{r['answer']}\n" for r in SUMS))
    (folder / "my_rows").mkdir()
    (folder / "my_rows" / "a.json").write_text(json.dumps(SUMS), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    hub = hub_layout(folder / "hub", {"main": {"test": pd.DataFrame(SUMS), "dev": pd.DataFrame(SUMS[::2])}})
    for rows in ("a.json", "a.tsv", "pkg://my_rows/a.json", {"hub": str(hub), "config": "main"}):
        assert [request.prompt for request in asked(sums(rows=rows))] == expected
    assert [r.prompt for r in asked(sums(rows="a.json", data_dir="my_rows"))] == expected
    of_hub = sums(rows={"hub": str(hub), "config": "main"}, fewshot="dev", num_fewshot=1, split="test")
    assert asked(of_hub)[1].prompt.startswith("Question: 2 and 3?\nAnswer: 5\n\nQuestion: 1,000")
    assert of_hub.splits == ("test", "dev")


def test_what_is_asked_is_named_and_unpinned_data_is_said_to_be_so() -> None:
    task = pets(licence="own")
    provenance = json.loads(json.dumps(task.provenance()))
    assert provenance["data"]["comparable"] is True
    assert provenance["data"]["remarks"] == ["test: not pinned (evalkit data pin pets)"]
    assert (provenance["data"]["source"], provenance["data"]["licence"]) == ("pets.csv", "own")
    assert provenance["protocol"]["name"] == "0-shot"
    assert (task.cell, pets(rows={"dev": "pets.csv"}, split="dev").cell) == ("accuracy", "dev")

    def version(**keys: Any) -> Any:
        return pets(**keys).provenance()["version"]

    assert version() == version(by="raw") == version(licence="own") == version(fewshot="test")
    assert (
        len(
            {
                version(),
                version(by="characters"),
                version(query="{{ question }}"),
                version(mean="macro", group="{{ a }}"),
            }
        )
        == 4
    )


def test_pins_hold_the_rows(folder: Path) -> None:
    pinned = pets(pins={"test": pets().found("test")})
    assert pinned.provenance()["data"]["remarks"] == []  # type: ignore[call-overload, index]
    (folder / "pets.csv").write_text(PETS.replace("moo,C", "moo,B"), encoding="utf-8")
    assert "pets.csv (pets, split test) is not what was pinned: its content differs" in refusal(lambda: replace(pinned))
    (folder / "pets.csv").write_text("\n".join(PETS.split("\n")[:-2]) + "\n", encoding="utf-8")
    assert "is not what was pinned: 3 rows instead of 4" in refusal(lambda: replace(pinned))
    data: Any = replace(pinned, data_check="warn").provenance()["data"]
    assert (data["comparable"], data["remarks"]) == (False, ["test: 3 rows instead of 4"])


def test_pins_are_written_into_the_file_and_all_else_stays() -> None:
    block = pin_block({"test": {"rows": 2, "sha256": "ab"}, "my shots.csv": {"rows": 1, "sha256": "cd"}})
    text = "# mine\nname: pets   # its name\npins:\n  test: {rows: 1,\n    sha256: x}\n\n# the end\nmean: micro"
    written = with_pins(text, block)
    assert written == f"# mine\nname: pets   # its name\n{block}\n# the end\nmean: micro"
    assert yaml.safe_load(written)["pins"]["my shots.csv"] == {"rows": 1, "sha256": "cd"}
    assert with_pins("name: pets", block) == f"name: pets\n{block}"
    assert with_pins("name: pets\npins: null  # none\nmean: micro\n", block) == f"name: pets\n{block}mean: micro\n"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"name": None}, "tasks.NAME.name is not set"),
        ({"query": None}, "tasks.pets.query is not set"),
        ({"kind": "chooce"}, "tasks.pets.kind=chooce: use one of choice, generate"),
        ({"by": "letter"}, "tasks.pets.by=letter: use one of raw, characters, tokens"),
        ({"mean": "macro"}, "tasks.pets.mean=macro is the mean of groups: name the column in tasks.pets.group"),
        ({"stop": ["\n"]}, "tasks.pets.stop belongs to kind=generate"),
        ({"letters": None}, "tasks.pets: kind=choice needs choices (their texts) or letters"),
        ({"letters": "AAB"}, "tasks.pets.letters=AAB: use different letters"),
        ({"query": "{{ question"}, "tasks.pets.query, line 1: unexpected end of template"),
        ({"query": "{{ question | upcase }}"}, "tasks.pets.query, line 1: No filter named 'upcase'"),
        ({"query": "{{ qestion }}"}, "tasks.pets.query names qestion, which is no column of pets.csv; there are row, number, subject"),
        ({"query": "{{ target }}"}, "tasks.pets.query names target, which is no column of pets.csv"),
        ({"query": "{{ question.x.y }}"}, "pets.csv line 2: tasks.pets.query: 'str object' has no attribute 'x'"),
        ({"query": "{{ question.__class__.__mro__ }}"}, "pets.csv line 2: tasks.pets.query: access to attribute '__class__'"),
        ({"query": "{{ row }}"}, "pets.csv line 2: tasks.pets.query: a value is a list or an object where text is expected"),
        ({"query": "{{ question }}\nAnswer: "}, "pets.csv line 2: tasks.pets.query ends with white space"),
        ({"query": True}, "tasks.pets.query: True is no text; put it in quotes"),
        ({"id": "{{ subject }}"}, "pets.csv line 6: tasks.pets.id is 'cats', and so is that of pets.csv line 2"),
        ({"answer": "{{ subject }}"}, "pets.csv line 2: tasks.pets.answer is 'cats', which is none of the choices 'A', 'B', 'C'"),
        ({"choices": ["{{ a }}", ""], "letters": None}, "pets.csv line 2: tasks.pets.choices: choice 1 is empty"),
        ({"choices": ["{{ a }}"]}, "tasks.pets.choices: name at least two"),
        ({"choices": "{{ a }}"}, "pets.csv line 2: tasks.pets.choices is 'meow', no list"),
        ({"choices": ["{{ a }}", True]}, "tasks.pets.choices: True is no text; put it in quotes"),
        ({"rows": "none.csv"}, "none.csv is missing"),
        ({"rows": "pets.xlsx"}, "pets.xlsx is missing"),
        ({"rows": {"hub": "a/b", "splits": "x"}}, "tasks.pets.rows has no key 'splits'"),
        ({"rows": 3}, "tasks.pets.rows: name a file"),
        ({"rows": "pkg://no_such_package/a.csv"}, "no package no_such_package is installed"),
        ({"split": "dev"}, "tasks.pets.split: no split 'dev'; rows has test"),
        ({"num_fewshot": 2}, "tasks.pets.num_fewshot=2: say where from"),
        ({"num_fewshot": 2, "fewshot": "dev"}, "tasks.pets.fewshot.from: no split 'dev'; rows has test"),
        ({"num_fewshot": 4, "fewshot": "test"}, "tasks.pets.num_fewshot=4: test has 3 worked examples for test/0"),
        ({"fewshot": {"from": "test", "ordre": "first"}}, "tasks.pets.fewshot has no key 'ordre'"),
        ({"fewshot": {"from": "test", "order": "last"}}, "tasks.pets.fewshot.order=last: use first"),
        ({"pins": {"test": {"rows": 1}}}, "tasks.pets.pins.test is no {rows: …, sha256: …}"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_choice_task_is_one_line(keys: dict[str, Any], line: str) -> None:
    assert line in refusal(lambda: pets(**keys))


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"letters": "AB"}, "tasks.sums.letters belongs to kind=choice, and this task is kind=generate"),
        ({"special_tokens": "keep"}, "tasks.sums.special_tokens=keep: use one of kept, dropped, unseen"),
        ({"read": "first"}, "tasks.sums.read=first: use one of last-number, whole, {regex"),
        ({"read": {"regex": "(a"}}, "tasks.sums.read.regex=(a: missing ), unterminated subpattern"),
        ({"read": {"regex": "a", "group": 1}}, "tasks.sums.read.group=1: the regex a has 0 groups"),
        ({"read": {"regexp": "a"}}, "tasks.sums.read has no key 'regexp'"),
        ({"read": {"group": 1}}, "tasks.sums.read: name the regex"),
        ({"stop": "x"}, "tasks.sums.stop=x: use a list of texts"),
        ({"max_new_tokens": 0}, "tasks.sums.max_new_tokens=0: use a whole number"),
        ({"normalise": ["strip"]}, "tasks.sums.normalise: numbers are compared as numbers"),
        ({"read": "whole", "normalise": ["upper"]}, "tasks.sums.normalise=upper: use one of strip, lower"),
        ({"answer": "none"}, "sums.jsonl line 1: tasks.sums.answer is 'none': no number in it"),
        ({"read": None, "answer": "  "}, "sums.jsonl line 1: tasks.sums.answer is '  ': nothing to compare with"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_generating_task_is_one_line(keys: dict[str, Any], line: str) -> None:
    assert line in refusal(lambda: sums(**keys))


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", b'{"question": "x", "answer": "1"}\n{"question": \n', "a.jsonl line 2 is torn ("),
        ("a.jsonl", b"[1]\n", "a.jsonl line 1 is no JSON object"),
        ("a.jsonl", b"", "a.jsonl has no rows"),
        ("a.jsonl", b'{"question": null, "answer": "1"}\n', "a.jsonl line 1: tasks.sums.query: a value is null"),
        ("a.jsonl", b'{"question": "x", "answer": "1"}\n{"answer": "1"}\n', "a.jsonl line 2: tasks.sums.query: 'question' is undefined"),
        ("a.json", b'[{"question": "x"},\n', "a.json line 2 is no JSON"),
        ("a.json", b'{"a": 1}', "a.json is no list of JSON objects"),
        ("a.json", b'["\xff"]', "a.json is not UTF-8"),
        ("a.csv", b"question,answer\nx\n", "a.csv line 2: 1 cells instead of 2 (question,answer)"),
        ("a.csv", b"question,question\nx,y\n", "a.csv line 1 names the column question twice"),
        ("a.csv", b'question,answer\n"x,1\n', "a.csv behind line 1: unexpected end of data"),
        ("a.txt", b"x", "a.txt: rows are read from .csv, .tsv, .jsonl, .json"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_with_its_place(folder: Path, name: str, content: bytes, line: str) -> None:
    (folder / name).write_bytes(content)
    assert line in refusal(lambda: sums(rows=name, answer="{{ answer }}"))


def test_exit_codes_tell_settings_from_data() -> None:
    with pytest.raises(ConfigError):
        pets(kind="x")
    with pytest.raises(DataError):
        pets(rows="none.csv").examples()


CHOICE = """# @package tasks.stories
defaults: [/task_in_yaml]
name: stories
rows: stories.jsonl
query: "{{ context }}"
choices: "{{ endings }}"
answer: "{{ label }}"   # counted from 0
by: characters
"""


def write_task(text: str = CHOICE) -> Path:
    path = Path("conf/task/stories.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_a_few_lines_is_a_task_whose_keys_the_command_line_sets(
    evalkit: Callable[..., Result], folder: Path
) -> None:
    write_task()
    (folder / "answers.jsonl").write_text(
        "".join(json.dumps({"id": f"test/{i}", "logprobs": [-9.0, -8.0, -7.0][: len(STORIES[i]["endings"])]}) + "\n" for i in range(3))  # type: ignore[arg-type]
    )  # fmt: skip
    options = (
        "--config-dir",
        "conf",
        "task=stories",
        "model=smollm2-135m",
        "backend=replay",
        "backend.path=answers.jsonl",
    )
    done = evalkit(*options, "results_dir=a")
    assert done.code == 0, done.err
    assert "smollm2-135m      66.7" in done.out
    report = (folder / "a" / "smollm2-135m" / "report.md").read_text(encoding="utf-8")
    assert "test: not pinned (evalkit data pin stories)" in report
    assert evalkit(*options, "tasks.stories.num_fewshot=1", "tasks.stories.fewshot=test", "results_dir=b").code == 0
    refused = evalkit(*options, "tasks.stories.by=tokens", "results_dir=c")
    assert (refused.code, refused.line) == (
        2,
        "evalkit: tasks.stories.by=tokens: the backend does not tell how many tokens the choices of test/0 have; compare "
        "by=raw or by=characters, name a model's backend, or add num_tokens to a replayed file",
    )
    unknown = evalkit("--config-dir", "conf", "task=stories", "+tasks.stories.shots=1")
    assert (unknown.code, unknown.line.partition(";")[0]) == (2, "evalkit: tasks.stories has no key 'shots'")


def test_numbers_of_tokens_are_asked_for_and_stored_where_choices_are_compared_by_token(
    evalkit: Callable[..., Result], folder: Path
) -> None:
    write_task(CHOICE.replace("characters", "tokens"))
    model = make_checkpoint("llama", folder / "tiny")
    own = (
        "model=smollm2-135m",
        f"model.path={model}",
        "model.name=tiny",
        "model.add_bos=null",
        "model.end_of_text=null",
    )

    def outputs(*arguments: str) -> dict[str, Any]:
        done = evalkit("--config-dir", "conf", "task=stories", *own, *arguments)
        assert done.code == 0, done.err
        lines = (
            (folder / arguments[0].partition("=")[2] / "tiny" / "stories" / "outputs.jsonl").read_text().splitlines()
        )
        return {line["id"]: line.get("num_tokens") for line in map(json.loads, lines)}

    engine = outputs("results_dir=a")
    assert engine == outputs("results_dir=b", "backend=reference")
    assert all(len(engine[f"test/{i}"]) == len(row["endings"]) for i, row in enumerate(STORIES))  # type: ignore[arg-type]
    assert set(outputs("results_dir=c", "tasks.stories.by=characters").values()) == {None}
    assert evalkit("verify", "a/tiny/stories").code == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f"# my stories\n{CHOICE}",
            "a task's file must begin with the line `# @package tasks.stories`, before any comment",
        ),
        (
            CHOICE.replace("defaults: [/task_in_yaml]\n", ""),
            "tasks.stories does not say what it is: its file needs `defaults: [/task_in_yaml]`, or a class as its `_target_`",
        ),
        (
            CHOICE.replace("rows:", " rows:"),
            "conf/task/stories.yaml line 4 is no YAML: mapping values are not allowed here",
        ),
        (CHOICE.replace("choices:", "choises:"), "tasks.stories has no key 'choises'; its keys are name, kind, rows"),
    ],
)
def test_a_file_that_is_no_task_is_explained(text: str, line: str, evalkit: Callable[..., Result]) -> None:
    write_task(text)
    done = evalkit("--config-dir", "conf", "task=stories", "backend=scripted")
    assert done.code == 2
    assert line in done.line
