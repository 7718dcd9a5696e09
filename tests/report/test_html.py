"""report.html in a real browser."""

import html.parser
import json
import re
from pathlib import Path

import pytest
from chromium import Chromium
from folders import EVIL, choice_items, text_items, write_run

from evalkit.card.published import PublishedCard
from evalkit.cli import call
from evalkit.report.files import write_report
from evalkit.store.questions import read_answered
from evalkit.store.read import find_runs

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, card: PublishedCard) -> Path:
    """A report over two models' MMLU and one GSM8K, its texts hostile."""
    results = tmp_path_factory.mktemp("results")
    write_run(results, choice_items(300, seed=1, skill=1.0), "mmlu", "qwen-1_8b")
    write_run(results, choice_items(300, seed=2), "mmlu", "smollm2-135m")
    write_run(results, text_items(20, lambda n: f"😀 {EVIL} is {n}\n\nQuestion: {EVIL}"), "gsm8k", "qwen-1_8b")
    write_report(find_runs([results]), results, card)
    return results / "report.html"


def change(browser: Chromium, element: str, value: str | bool) -> int:
    """Set a filter as a reader does; how many questions are left."""
    field = "checked" if isinstance(value, bool) else "value"
    event = "input" if element == "search" else "change"
    browser.run(
        f"(() => {{const e = document.getElementById('{element}'); e.{field} = {json.dumps(value)};"
        f" e.dispatchEvent(new Event('{event}', {{bubbles: true}}));}})()"
    )
    return shown(browser)


def shown(browser: Chromium) -> int:
    count = browser.run("document.getElementById('count').textContent")
    return int(count.split(" of ")[0].replace(",", ""))


def detail(browser: Chromium) -> str:
    return str(browser.run("document.getElementById('detail').textContent"))


def test_the_page_opens_without_a_complaint_and_runs_no_text_of_a_model(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.open(page, "#q=qwen-1_8b/gsm8k/test/3")
    assert EVIL[:-1] in detail(browser)
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.complaints() == []


def test_the_page_asks_nothing_of_a_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    own = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\s\"'<]+", own)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in html.unescape(own)


def test_filters_leave_the_questions_they_name(browser: Chromium, page: Path) -> None:
    folder = page.parent / "qwen-1_8b" / "mmlu"
    answered = read_answered(folder)
    browser.open(page)
    assert shown(browser) == 620
    assert change(browser, "run", "qwen-1_8b/mmlu") == 300
    assert change(browser, "show", "wrong") == sum(question.value == 0 for question in answered)
    assert change(browser, "show", "right") == sum(question.value == 1 for question in answered)
    assert change(browser, "group", "subject_1") == sum(
        question.value == 1 and question.group == "subject_1" for question in answered
    )
    assert change(browser, "truncated", True) == sum(
        question.value == 1 and question.group == "subject_1" and question.truncated for question in answered
    )
    change(browser, "truncated", False)
    change(browser, "group", "")
    change(browser, "show", "all")
    assert change(browser, "search", "WHAT IS 17?") == 1


def test_the_disagreement_filter_shows_questions_that_one_model_has_right(browser: Chromium, page: Path) -> None:
    values = [
        {question.id: question.value for question in read_answered(page.parent / model / "mmlu")}
        for model in ("qwen-1_8b", "smollm2-135m")
    ]
    browser.open(page)
    differing = sum(values[0][name] != values[1][name] for name in values[0])
    assert 0 < differing < 300
    assert change(browser, "disagreement", True) == 2 * differing


def test_a_deep_link_opens_its_question_and_filter(browser: Chromium, page: Path) -> None:
    browser.open(page, "#run=qwen-1_8b%2Fmmlu&show=wrong&q=smollm2-135m%2Fmmlu%2Fsubject_1%2Ftest%2F7")
    assert browser.run("document.getElementById('show').value") == "wrong"
    assert "smollm2-135m/mmlu/subject_1/test/7" in detail(browser)
    assert "what is 7?" in detail(browser)
    assert '" A"' in detail(browser)


def test_choosing_a_question_writes_a_link_that_opens_it_again(browser: Chromium, page: Path) -> None:
    browser.open(page)
    change(browser, "search", "what is 42?")
    browser.run("document.querySelector('.row').click()")
    link = browser.run("location.hash")
    first = detail(browser)
    assert "subject_0/test/42" in first
    browser.open(page, link)
    assert detail(browser) == first


def test_the_arrow_keys_walk_the_list(browser: Chromium, page: Path) -> None:
    browser.open(page, "#run=qwen-1_8b%2Fgsm8k&q=qwen-1_8b%2Fgsm8k%2Ftest%2F3")
    browser.run("document.getElementById('list').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown'}))")
    assert "qwen-1_8b/gsm8k/test/4" in detail(browser)


def test_what_was_cut_from_an_output_is_marked(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=qwen-1_8b/gsm8k/test/3")
    cut = browser.run("document.querySelector('.cut').textContent")
    assert cut.startswith("\n\nQuestion: </script>")
    assert browser.run("document.querySelector('.cut').previousSibling.textContent").endswith("is 3")


def test_a_link_to_nothing_says_so(browser: Chromium, page: Path) -> None:
    browser.open(page, "#q=qwen-1_8b/mmlu/none")
    assert "No question qwen-1_8b/mmlu/none" in detail(browser)
    assert browser.complaints() == []


def test_both_themes_differ_and_the_button_turns_them(browser: Chromium, page: Path, tmp_path: Path) -> None:
    colours = []
    for theme in ("light", "dark"):
        browser.theme(theme)
        browser.open(page)
        colours.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        browser.screenshot(tmp_path / f"{theme}.png")
    assert colours == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == colours[0]
    browser.theme("light")
    assert all((tmp_path / f"{theme}.png").stat().st_size > 10_000 for theme in ("light", "dark"))


class Balanced(html.parser.HTMLParser):
    """Checks that every element ends where it should."""

    VOID = frozenset({"meta", "link", "input", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_element_is_closed(page: Path) -> None:
    parser = Balanced()
    parser.feed(page.read_text(encoding="utf-8"))
    assert parser.open == []


def test_a_run_folder_without_outputs_has_tables_but_no_browser(tmp_path: Path, card: PublishedCard) -> None:
    folder = write_run(tmp_path, choice_items(20), "mmlu", "smollm2-135m")
    (folder / "outputs.jsonl").unlink()
    write_report([folder], tmp_path, card)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "smollm2-135m" in text
    assert "id='questions'" not in text


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


def test_a_comparison_opens_without_a_complaint(tmp_path: Path, browser: Chromium, page: Path) -> None:
    runs = [str(page.parent / model / "mmlu") for model in ("qwen-1_8b", "smollm2-135m")]
    assert call(["compare", *runs, "--output", str(tmp_path)]) == 0
    browser.open(tmp_path / "compare.html")
    flips = browser.run("document.querySelectorAll('table')[1].rows.length") - 1
    assert browser.run("document.querySelector('h3').textContent") == f"mmlu: {flips} flips of 300"
    assert browser.complaints() == []
