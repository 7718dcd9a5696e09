"""report.html in a real browser: its tabs, plots, widths and themes, and that no text of a model runs."""

import hashlib
import html
import html.parser
import json
import re
from pathlib import Path

import pytest
from chromium import Chromium
from folders import EVIL, choice_items, text_items, write_run

from evalkit.card.published import PublishedCard
from evalkit.cli import call
from evalkit.report.files import read_runs, write_report
from evalkit.report.narrow import narrow
from evalkit.report.plot_data import forest_rows
from evalkit.report.sentences import sentences
from evalkit.report.tables import Table
from evalkit.store.read import find_runs

pytestmark = pytest.mark.xdist_group("browser")
TABS = ("", "card", "models", "protocols", "subjects", "questions", "provenance")
AXE = Path(__file__).parent / "vendor" / "axe.js"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, card: PublishedCard) -> Path:
    """A report over two models' MMLU and one GSM8K, its texts hostile."""
    results = tmp_path_factory.mktemp("results")
    write_run(results, choice_items(300, seed=1, skill=1.0), "mmlu", "qwen-1_8b")
    write_run(results, choice_items(300, seed=2), "mmlu", "pythia-1b")
    write_run(results, text_items(20, lambda n: f"😀 {EVIL} is {n}\n\nQuestion: {EVIL}"), "gsm8k", "qwen-1_8b")
    write_report(find_runs([results]), results, card)
    return results / "report.html"


def sized(browser: Chromium, width: int) -> None:
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)


def detail(browser: Chromium) -> str:
    return str(browser.run("document.getElementById('detail').textContent"))


def test_the_first_screen_says_whether_the_card_reproduces_and_plots_every_figure(
    browser: Chromium, page: Path
) -> None:
    runs = read_runs(find_runs([page.parent]))
    browser.open(page)
    assert browser.run("[...document.querySelectorAll('.sentence')].map((p) => p.textContent)") == sentences(runs)
    rows = forest_rows(runs)
    assert len(rows) == 3
    told = browser.run("[...document.querySelectorAll('[data-kind=forest] svg text')].map((node) => node.textContent)")
    for row in rows:
        assert row.benchmark in told
        assert row.verdict in told
    places = "[...document.querySelectorAll('[data-kind=forest] [data-mark=dot] path')].length"
    assert browser.run(places) == len(rows)
    top = browser.run("document.querySelector('[data-kind=forest]').getBoundingClientRect().top")
    assert top < 400, "the plot begins on the first screen"
    assert browser.complaints() == []


def test_the_sentence_counts_what_the_verdicts_say(make_summary, card: PublishedCard) -> None:
    from evalkit.card.runs import runs_of

    rows = [row for table in card.tables.values() for row in table.rows if row.model == "qwen-1_8b"]
    num_all = sum(cell is not None for row in rows for cell in row.cells.values())
    summaries = [make_summary(right=6361), make_summary("gsm8k", right=313, n=1319)]
    told = sentences(runs_of([*summaries, make_summary(model="smollm2-135m")], card))
    assert told == [
        f"1 of 2 published figures of Qwen-1.8B reproduces (2 of the {num_all} that the card gives were run); "
        "GSM8K differs by 8.6 points.",
        "Nothing to reproduce for smollm2-135m (MMLU: no published number).",
    ]
    few = runs_of([make_summary(right=25, n=57), make_summary("gsm8k", right=1, n=4)], card)
    assert sentences(few) == [
        f"None of 2 published figures of Qwen-1.8B can be judged (2 of the {num_all} that the card gives were run) "
        "(MMLU and GSM8K: cannot tell at this n)."
    ]


def test_every_tab_has_its_address(browser: Chromium, page: Path) -> None:
    for name in TABS:
        browser.open(page, f"#/{name}")
        open_ones = browser.run(
            "[...document.querySelectorAll('main > .tab')].filter((tab) => tab.clientHeight).map((tab) => tab.id)"
        )
        assert open_ones == [f"tab-{name}"]
        assert browser.run("document.querySelector('nav [aria-current]').getAttribute('href')") == f"#/{name}"
    browser.run("document.querySelector('nav a').click()")
    browser.wait("!document.getElementById('tab-').hidden")
    assert browser.complaints() == []


def test_addresses_of_before_still_lead_somewhere(browser: Chromium, page: Path) -> None:
    for old, tab in {"#verdict": "", "#tables": "card", "#causes": "protocols", "#plots": "subjects"}.items():
        browser.open(page, old)
        assert browser.run("document.documentElement.dataset.tab") == tab
    browser.open(page, "#/nothing")
    assert browser.run("document.documentElement.dataset.tab") == ""


def test_no_width_makes_the_page_scroll_sideways_and_the_measured_figure_is_in_sight(
    browser: Chromium, page: Path
) -> None:
    try:
        for width in (390, 768, 1280, 1920):
            sized(browser, width)
            for fragment in (*(f"#/{name}" for name in TABS), "#q=qwen-1_8b/gsm8k/test/3"):
                browser.open(page, fragment)
                assert browser.run("document.documentElement.scrollWidth") <= width, (width, fragment)
            browser.open(page, "#/card")
            right = browser.run(
                "[...document.querySelectorAll('.card .figure')].map((e) => e.getBoundingClientRect().right)"
            )
            assert right
            assert max(right) <= width
    finally:
        browser.send("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Chromium, page: Path, theme: str) -> None:
    browser.theme(theme)
    try:
        for fragment in (
            *(f"#/{name}" for name in TABS),
            "#q=qwen-1_8b/mmlu/subject_1/test/7",
            "#q=qwen-1_8b/gsm8k/test/3",
        ):
            browser.open(page, fragment)
            browser.run("for (const folded of document.querySelectorAll('details')) folded.open = true")
            browser.run(AXE.read_text(encoding="utf-8") + ";0")
            found = browser.run(
                "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations"
                ".filter((entry) => ['serious', 'critical'].includes(entry.impact))"
                ".map((entry) => [entry.id, entry.nodes.slice(0, 3).map((node) => node.html.slice(0, 150))]))"
            )
            assert found == [], fragment
    finally:
        browser.theme("light")


def test_a_table_is_sorted_by_its_head_with_the_mouse_and_the_keyboard(browser: Chromium, page: Path) -> None:
    browser.open(page, "#/protocols")
    column = (
        "[...document.querySelectorAll('#tab-protocols .sortable tbody tr')].map((row) => row.cells[1].textContent)"
    )
    head = "document.querySelector('#tab-protocols .sortable thead').rows[0].cells[1]"
    before = browser.run(column)
    browser.run(f"{head}.click()")
    browser.wait(
        f"JSON.stringify({column}) === {json.dumps(json.dumps(sorted(before, reverse=True), separators=(',', ':')))}"
    )
    browser.run(f"{head}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true}}))")
    browser.wait(f"JSON.stringify({column}) === {json.dumps(json.dumps(sorted(before), separators=(',', ':')))}")


def test_on_paper_stand_the_summary_the_card_and_the_plots(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        seen = browser.run(
            "[...document.querySelectorAll('main > .tab')].filter((tab) => tab.clientHeight).map((tab) => tab.id)"
        )
        assert seen == ["tab-", "tab-card", "tab-models", "tab-protocols", "tab-subjects"]
        drawn = "[...document.querySelectorAll('[data-kind=forest], [data-kind=differences], [data-kind=subjects]')]"
        assert browser.run(f"{drawn}.every((node) => node.querySelector('svg'))")
        assert browser.run("document.querySelector('details.printed').open")
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
    assert len(browser.send("Page.printToPDF")["data"]) > 20_000


def test_the_page_opens_without_a_complaint_and_runs_no_text_of_a_model(browser: Chromium, page: Path) -> None:
    browser.open(page)
    scripts = browser.run("document.querySelectorAll('script').length")
    browser.open(page, "#q=qwen-1_8b/gsm8k/test/3")
    assert EVIL[:-1] in detail(browser)
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('script').length") == scripts
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.complaints() == []


def test_the_page_asks_nothing_of_a_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in html.unescape(text)
    assert not re.search(r"<(?:link|script|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text)


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
    assert 'id="tab-questions"' not in text


def test_a_comparison_opens_without_a_complaint(tmp_path: Path, browser: Chromium, page: Path) -> None:
    runs = [str(page.parent / model / "mmlu") for model in ("qwen-1_8b", "pythia-1b")]
    assert call(["compare", *runs, "--output", str(tmp_path)]) == 0
    browser.open(tmp_path / "compare.html")
    flips = browser.run("document.querySelectorAll('table')[1].rows.length") - 1
    assert browser.run("document.querySelector('h3').textContent") == f"mmlu: {flips} flips of 300"
    assert browser.complaints() == []


def test_what_was_taken_from_npm_is_what_is_pinned() -> None:
    root = Path(__file__).parent.parent.parent
    packages = json.loads((root / "requirements" / "page.json").read_text(encoding="utf-8"))["packages"]
    found = {name: sha for package in packages for name, sha in package["sha256"].items()}
    for name, sha in found.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == sha, name
    vendored = {
        path for folder in ("evalkit/report/assets/vendor", "tests/report/vendor") for path in (root / folder).iterdir()
    }
    assert {str(path.relative_to(root)) for path in vendored} == set(found)


def test_a_table_of_many_columns_is_made_narrow_and_loses_no_text() -> None:
    header = ("model", "benchmark", "A", "B", "B - A", "95 % bootstrap", "p (Holm)", "shown", "cause")
    row = ("m", "MMLU", "qwen", "lm-eval", "+1.00", "-1.00 to +3.00", "0.400", "no difference shown", "effect of cut")
    found = narrow(Table("t", header, (row,), align="llllrrrll"))
    assert found.header == ("model", "A", "B", "B - A", "p (Holm)")
    assert found.rows[0] == (
        "m\nMMLU", "qwen", "lm-eval\neffect of cut", "+1.00\n-1.00 to +3.00", "0.400\nno difference shown"
    )  # fmt: skip
