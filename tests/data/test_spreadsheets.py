"""C-Eval's files after a spreadsheet, and merged by hand: right, or one line with file and row that says what it is."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from evalkit.tasks import HOME
from hub_layouts import hub_layout

from evalkit.configuration.compose import build, compose
from evalkit.errors import DataError

LOGIC = "ceval-exam/val/logic_val.csv"
Change = Callable[[bytes], bytes]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The bundled sets as a folder of one's own."""
    return shutil.copytree(HOME / "bundled", tmp_path / "data")


def build_ceval(data: Path, *words: str) -> Any:
    return build(compose(["task=ceval", f"data_dir={data}", "data_check=warn", *words]), "tasks.ceval")


def asked(task: Any) -> dict[str, str]:
    return {example.id: task.request(example).prompt for example in task.examples()}


def ids(change: Callable[[int, str], str]) -> Change:
    """The file with its ids changed; change: of a row's number and its id."""

    def changed(content: bytes) -> bytes:
        head, *rows = content.decode().splitlines()
        cut = [row.split(",", 1) for row in rows]
        return "\n".join([head, *(f"{change(n, own)},{rest}" for n, (own, rest) in enumerate(cut))]).encode()

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (ids(lambda n, own: str(n % 3)), "logic_val.csv line 5: id is '0', and so is that of "),
        (ids(lambda n, own: "" if n == 2 else own), "logic_val.csv line 4: id is empty"),
        (ids(lambda n, own: " "), "logic_val.csv line 2: id is empty"),
        (ids(lambda n, own: f"{own}.0"), "logic_val.csv line 2: id is 0.0, as a spreadsheet writes a number; write 0"),
        (lambda b: b.replace(b",", b";"), "logic_val.csv: its cells are separated by semicolons"),
        (lambda b: b.replace(b",", b"\t"), "logic_val.csv: its cells are separated by tabs"),
        (lambda b: b.decode().encode("gb18030"), "logic_val.csv is not UTF-8 (byte 0xd3 on line 2), it reads as GBK"),
        (lambda b: b.decode().encode("utf-16"), "logic_val.csv is not UTF-8 text, it is UTF-16 text"),
        (lambda b: b + b",,,,,,\n", "logic_val.csv line 10: every cell is empty, as a spreadsheet may leave rows"),
        (lambda b: b.replace(b"question", b'"Frage\n1"', 1), "has no column question (its first row is id,Frage 1,A,B"),
        (lambda b: b.replace(b"question,", b"question,question,", 1), "has the column question twice"),
        (lambda b: b.replace(b"\n3,", b'\n3,"', 1), "a quote there is not closed, or the file is torn"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_one_line(data: Path, change: Change, message: str) -> None:
    (data / LOGIC).write_bytes(change((data / LOGIC).read_bytes()))
    with pytest.raises(DataError) as refused:
        asked(build_ceval(data))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "logic_val.csv" in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b"\xef\xbb\xbf" + b,
        lambda b: b"\xef\xbb\xbf\xef\xbb\xbf" + b,
        lambda b: b.replace(b"\n", b"\r\n"),
        lambda b: b + b"\n\n",
        lambda b: b.replace(b"question", b'"question\n"', 1).replace(b"id", b" id", 1),
    ],
)
def test_what_a_spreadsheet_changes_beside_the_cells_changes_no_prompt(data: Path, change: Change) -> None:
    before = asked(build_ceval(data))
    (data / LOGIC).write_bytes(change((data / LOGIC).read_bytes()))
    task = build_ceval(data)
    assert asked(task) == before
    assert task.provenance()["data"]["splits"]["val"] == build_ceval(data).provenance()["data"]["splits"]["val"]


def test_a_line_end_inside_a_cell_stays_and_the_row_behind_it_keeps_its_line(data: Path) -> None:
    head, first, *rows = (data / LOGIC).read_text(encoding="utf-8").splitlines()
    number, _, rest = first.split(",", 2)
    broken = [head, f'{number},"two\n\nlines",{rest}', *rows]
    (data / LOGIC).write_text("\n".join(broken), encoding="utf-8")
    assert "two\n\nlines" in asked(build_ceval(data))["logic/val/0"]
    broken[2] = broken[2].removeprefix("1")
    (data / LOGIC).write_text("\n".join(broken), encoding="utf-8")
    with pytest.raises(DataError, match=r"logic_val\.csv line 5: id is empty"):
        asked(build_ceval(data))


def test_what_desktops_and_spreadsheets_leave_beside_the_files_is_no_subject(data: Path) -> None:
    before = asked(build_ceval(data))
    for split in ("dev", "val"):
        folder = data / "ceval-exam" / split
        for name in (".DS_Store", "Thumbs.db", f"~$logic_{split}.csv", f"._logic_{split}.csv", f"~$logic_{split}.xlsx"):
            (folder / name).write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    assert asked(build_ceval(data)) == before
    for path in (data / "ceval-exam" / "val").glob("*.csv"):
        path.rename(path.with_suffix(".xlsx"))
    with pytest.raises(
        DataError, match=r"val holds no \*_val\.csv \(it holds Thumbs\.db, high_school_physics_val\.xlsx"
    ):
        build_ceval(data).examples()


def test_ids_of_the_hub_are_unique_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = pd.read_csv(data / LOGIC, dtype=str, keep_default_na=False)
    rows.loc[3, "id"] = "1"
    subjects: Sequence[str] = list(build_ceval(data)._split("val")[0])
    configs = {subject: {"val": rows, "dev": rows} for subject in subjects}
    monkeypatch.setattr("evalkit.tasks.ceval.pinned_digests", lambda *_: dict.fromkeys(subjects, ""))
    hub = hub_layout(tmp_path / "hub", configs)
    task = build(
        compose(["task=ceval", f"tasks.ceval.data.hub={hub}", "data_check=warn", "tasks.ceval.data.revision=null"]),
        "tasks.ceval",
    )
    with pytest.raises(DataError, match=r"hub .* val\) row 3: id is '1', and so is that of .* row 1; give each"):
        task.examples()
