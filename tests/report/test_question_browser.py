"""The question browser of report.html in a real browser."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Chromium
from folders import EVIL, Item, choice_items, text_items, write_run

from evalkit.card.published import PublishedCard
from evalkit.card.ties import near_ties
from evalkit.report.files import write_report
from evalkit.store.questions import Answered, Asked, read_answered
from evalkit.store.read import find_runs
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodRequest

pytestmark = pytest.mark.xdist_group("browser")
NUL, OVERRIDE = "a\x00b", "left \u202e right"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, card: PublishedCard) -> Path:
    """A report over two models' MMLU and one GSM8K, its texts hostile."""
    results = tmp_path_factory.mktemp("results")
    first = choice_items(300, seed=1, skill=1.0)
    write_run(results, first, "mmlu", "qwen-1_8b", model={"dtype": "bfloat16"})
    write_run(results, choice_items(300, seed=2), "mmlu", "smollm2-135m", model={"dtype": "float32"})
    write_run(results, text_items(20, lambda n: f"😀 {EVIL} is {n}\n\nQuestion: {EVIL}"), "gsm8k", "qwen-1_8b")
    write_report(find_runs([results]), results, card)
    return results / "report.html"


def answered(page: Path, model: str = "qwen-1_8b", task: str = "mmlu") -> list[Answered]:
    return read_answered(page.parent / model / task)


def change(browser: Chromium, element: str, value: str) -> int:
    """Set a filter as a reader does; how many questions are left."""
    event = "input" if element == "search" else "change"
    browser.run(
        f"(() => {{const e = document.getElementById('{element}'); e.value = {json.dumps(value)};"
        f" document.getElementById('count').textContent = '';"
        f" e.dispatchEvent(new Event('{event}', {{bubbles: true}}));}})()"
    )
    browser.wait("document.getElementById('count').textContent !== ''")
    return shown(browser)


def shown(browser: Chromium) -> int:
    count = browser.run("document.getElementById('count').textContent")
    return int(count.split(" of ")[0].replace(",", ""))


def detail(browser: Chromium) -> str:
    return str(browser.run("document.getElementById('detail').textContent"))


def press(browser: Chromium, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, **text)


def test_filters_leave_the_questions_they_name(browser: Chromium, page: Path) -> None:
    found = answered(page)
    browser.open(page, "#/questions?run=qwen-1_8b/mmlu")
    assert shown(browser) == 300
    assert change(browser, "show", "right") == sum(question.value == 1 for question in found)
    wrong = [question for question in found if question.value == 0]
    assert change(browser, "show", "wrong") == len(wrong)
    share = f"{len(wrong)} of 300 questions ({100 * len(wrong) / 300:.1f} %)"
    assert browser.run("document.getElementById('count').textContent") == share
    here = [question for question in wrong if question.group == "subject_1"]
    assert change(browser, "group", "subject_1") == len(here)
    assert change(browser, "show", "truncated") == sum(q.truncated and q.group == "subject_1" for q in found)
    change(browser, "group", "")
    change(browser, "show", "all")
    assert change(browser, "search", "WHAT IS 17?") == 1


def test_a_near_tie_is_the_same_here_and_among_the_causes(browser: Chromium, page: Path) -> None:
    for model, tolerance in (("qwen-1_8b", 2.0**-3), ("smollm2-135m", 1e-4)):
        near = len(near_ties(answered(page, model), tolerance))
        browser.open(page, f"#/questions?run={model}/mmlu&show=tie")
        assert shown(browser) == near
        line = next(row for row in (page.parent / "report.md").read_text().splitlines() if f"{near} (0 equal)" in row)
        assert line.replace("\\", "").startswith(f"| {model} | MMLU |")
    browser.open(page, "#/questions?run=qwen-1_8b/mmlu&show=tie")
    browser.run("document.querySelector('.row').click()")
    browser.wait("document.getElementById('detail').textContent.includes('Near tie')")
    assert "Near tie: the best choices are closer than 0.125, which bfloat16 cannot tell apart." in detail(browser)


def test_what_flips_between_two_runs_is_found(browser: Chromium, page: Path) -> None:
    values = [{question.id: question.value for question in answered(page, m)} for m in ("qwen-1_8b", "smollm2-135m")]
    differing = [name for name in values[0] if values[0][name] != values[1][name]]
    assert 0 < len(differing) < 300
    browser.open(page, "#/questions?run=qwen-1_8b/mmlu")
    assert change(browser, "against", "smollm2-135m/mmlu") == len(differing)
    assert change(browser, "show", "wrong") == sum(values[0][name] == 0 for name in differing)
    browser.open(page, "#disagreement=true")  # an address of before
    assert shown(browser) == len(differing)


def test_a_deep_link_of_before_opens_its_question_and_filter(browser: Chromium, page: Path) -> None:
    browser.open(page, "#run=qwen-1_8b%2Fmmlu&show=wrong&q=smollm2-135m%2Fmmlu%2Fsubject_1%2Ftest%2F7")
    assert browser.run("document.getElementById('show').value") == "wrong"
    assert browser.run("document.getElementById('run').value") == "qwen-1_8b/mmlu"
    assert "what is 7?" in detail(browser)


def test_choosing_a_question_writes_a_link_that_opens_it_again(browser: Chromium, page: Path) -> None:
    browser.open(page, "#/questions")
    change(browser, "search", "what is 42?")
    browser.run("document.querySelector('.row').click()")
    browser.wait("document.getElementById('detail').textContent.includes('subject_0/test/42')")
    link, first = browser.run("location.hash"), detail(browser)
    assert link.startswith("#/questions?")
    browser.open(page, link)
    assert detail(browser) == first


def test_the_keyboard_walks_searches_and_goes_back(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=qwen-1_8b/gsm8k/test/3")
    press(browser, "j")
    browser.wait("document.querySelector('#detail h2')?.textContent === 'test/4'")
    press(browser, "k")
    press(browser, "k")
    browser.wait("document.querySelector('#detail h2')?.textContent === 'test/2'")
    press(browser, "/")
    assert browser.run("document.activeElement.id") == "search"
    press(browser, "Escape")
    assert browser.run("document.activeElement.id") != "search"
    press(browser, "Escape")
    browser.wait("!document.querySelector('#detail h2')")
    assert "q=" not in browser.run("location.hash")
    assert browser.complaints() == []


def test_the_question_and_its_choices_stand_as_text_with_what_is_right_and_what_was_chosen(
    browser: Chromium, page: Path
) -> None:
    question = next(q for q in answered(page) if q.value == 0)
    browser.open(page, f"#q=qwen-1_8b/mmlu/{question.id}")
    assert browser.run("document.querySelector('.question').textContent").startswith("Question: what is ")
    rows = browser.run(
        "[...document.querySelectorAll('.choices tbody tr')].map((row) => [...row.cells].map((c) => c.textContent))"
    )
    assert [row[1].removesuffix("right") for row in rows] == ["A one", "B two", "C three", "D four"]
    gold, chosen = ("ABCD".index(str(letter)) for letter in (question.target, question.answer))
    assert [row[0] for row in rows] == ["✓" if place == gold else "" for place in range(4)]
    assert [row[2].startswith("chosen ") for row in rows] == [place == chosen for place in range(4)]
    shares = [float(row[2].removeprefix("chosen ").removesuffix(" %")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares[chosen] == max(shares)


def test_all_runs_of_a_question_stand_side_by_side(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=smollm2-135m/mmlu/subject_1/test/7")
    names = browser.run("[...document.querySelectorAll('.panel')].map((panel) => panel.dataset.run)")
    assert names == ["smollm2-135m/mmlu", "qwen-1_8b/mmlu"]  # the one that was asked for comes first
    assert browser.run("document.querySelector('.choices thead').textContent").endswith("smollm2-135mqwen-1_8b")


def test_what_was_cut_from_an_output_is_marked(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=qwen-1_8b/gsm8k/test/3")
    cut = browser.run("document.querySelector('.cut').textContent")
    assert cut.startswith("\n\nQuestion: </script>")
    assert browser.run("document.querySelector('.cut').previousSibling.textContent").endswith("is 3")


def test_a_question_is_copied_as_json(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=qwen-1_8b/mmlu/subject_1/test/7")
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.run(
        "[...document.querySelectorAll('#detail button')].find((b) => b.textContent.startsWith('copy')).click()"
    )
    browser.wait("window.copied !== undefined")
    copied = json.loads(browser.run("window.copied"))
    first = next(q for q in answered(page) if q.id == "subject_1/test/7")
    assert (copied["id"], copied["right_answer"]) == (first.id, first.target)
    assert copied["runs"][0]["logprobs"] == pytest.approx(list(first.logprobs), abs=1e-4)
    assert copied["runs"][0]["worked_examples"] + copied["runs"][0]["question"] == first.context.prefix + str(
        first.rest
    )


def test_a_link_to_nothing_says_so(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=qwen-1_8b/mmlu/none")
    assert "No question qwen-1_8b/mmlu/none" in detail(browser)
    assert browser.complaints() == []


def one_page(tmp_path: Path, items: list[Item], task: str = "mmlu", **provenance: object) -> Path:
    write_report([write_run(tmp_path, items, task, "m", **provenance)], tmp_path)
    return tmp_path / "report.html"


def asked_with(items: list[Item], request: Callable[[Asked], object], **more: object) -> list[Item]:
    return [(replace(asked, request=request(asked), **more), output, score) for asked, output, score in items]  # type: ignore[arg-type]


def test_worked_examples_are_told_by_the_task_and_never_hide_a_lone_question(tmp_path: Path, browser: Chromium) -> None:
    """One question of a subject shares all its text with itself; the task's own parts tell what is asked."""
    shots = "以下是中国关于法学考试的单项选择题。\n\n例题\nA. 一\nB. 二\n答案：A\n\n"
    prompt = shots + "下列说法正确的是\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案："
    request = LoglikelihoodRequest(prompt, ("A", "B", "C", "D"), question_at=len(shots))
    browser.open(one_page(tmp_path, asked_with(choice_items(1), lambda _: request)), "#q=m/mmlu/subject_0/test/0")
    assert browser.run("document.querySelector('.question').textContent") == "下列说法正确的是"
    assert browser.run("document.querySelector('.worked').textContent") == shots
    assert browser.run("document.querySelector('.worked').closest('details').open") is False
    former = replace(request, question_at=None)  # a run folder of before: nothing is folded away
    browser.open(one_page(tmp_path, asked_with(choice_items(1), lambda _: former)), "#q=m/mmlu/subject_0/test/0")
    assert "下列说法正确的是" in browser.run("document.querySelector('.question').textContent")


def test_signs_without_a_shape_long_lines_and_other_directions_are_shown_as_text(
    tmp_path: Path, browser: Chromium
) -> None:
    texts = ["</script><b>", "مرحبا بالعالم", "😀👩‍👩‍👧", "x" * 10_000, NUL, OVERRIDE]
    items = [
        (replace(asked, request=GenerateRequest(f"Q: {text}\nA:", ("\n",), 9, question_at=0)),
         GenerateOutput(text, "stop", 5, 40), score)
        for text, (asked, _, score) in zip(texts, text_items(len(texts)), strict=True)
    ]  # fmt: skip
    page = one_page(tmp_path, items, "gsm8k")
    due = [*texts[:4], "a␀b", "left ⟨U+202E⟩ right"]
    try:
        browser.send("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
        for number, text in enumerate(due):
            browser.open(page, f"#q=m/gsm8k/test/{number}")
            assert browser.run("document.querySelector('.question').textContent") == f"Q: {text}\nA:"
            assert browser.run("document.querySelector('.output').textContent") == text
            assert browser.run("document.documentElement.scrollWidth") <= 390
    finally:
        browser.send("Emulation.clearDeviceMetricsOverride")
    assert browser.complaints() == []


def test_a_program_is_highlighted_with_its_error_and_its_test(tmp_path: Path, browser: Chromium) -> None:
    (asked, _, score), *_ = text_items(1)
    program = "def one(x):\n    return '</script>' # why\n"
    item = (
        replace(asked, request=GenerateRequest("def one(x):\n", (), 9, question_at=0), shown={"test": "assert one(1)"}),
        GenerateOutput(program, "stop", 5, 40),
        replace(score, value=0.0, target=None, detail={"status": "timeout", "detail": "NameError: name 'y'"}),
    )
    page = one_page(tmp_path, [item], "humaneval")
    browser.open(page, f"#q=m/humaneval/{asked.id}")
    kinds = "[...document.querySelectorAll('.output .token')].map((node) => [node.classList[1], node.textContent])"
    found = browser.run(kinds)
    assert ["keyword", "return"] in found
    assert ["string", "'</script>'"] in found
    assert browser.run("document.querySelector('.output').textContent") == program
    assert browser.run("document.querySelector('.shown').textContent") == "assert one(1)"
    assert "status: timeout" in detail(browser)
    assert "NameError: name 'y'" in detail(browser)
    assert change(browser, "show", "error") == 1
    assert browser.complaints() == []


def test_a_log_probability_that_is_no_number_does_not_break_the_page(
    tmp_path: Path, card: PublishedCard, browser: Chromium
) -> None:
    folder = write_run(tmp_path, choice_items(5, num_subjects=1), "mmlu", "smollm2-135m")
    lines = (folder / "outputs.jsonl").read_text().splitlines()
    broken = json.loads(lines[0]) | {"logprobs": [float("nan"), float("-inf"), -1.0, -2.0]}
    (folder / "outputs.jsonl").write_text("\n".join([json.dumps(broken), *lines[1:]]) + "\n")
    write_report([folder], tmp_path, card)
    browser.open(tmp_path / "report.html", "#q=smollm2-135m/mmlu/subject_0/test/0")
    assert "subject_0/test/0" in detail(browser)
    assert browser.complaints() == []


def test_a_question_that_could_not_be_run_says_why(tmp_path: Path, card: PublishedCard, browser: Chromium) -> None:
    folder = write_run(tmp_path, choice_items(5, num_subjects=1), "mmlu", "smollm2-135m")
    lines = [json.loads(line) for line in (folder / "outputs.jsonl").read_text().splitlines()]
    kept = {key: lines[0][key] for key in ("id", "request_sha", "prompt_sha", "num_prompt_tokens", "truncated")}
    lines[0] = kept | {"error": "does not fit in memory"}
    (folder / "outputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report([folder], tmp_path, card)
    browser.open(tmp_path / "report.html", "#q=smollm2-135m/mmlu/subject_0/test/0")
    assert "could not be run: does not fit in memory" in detail(browser)
    assert browser.complaints() == []
