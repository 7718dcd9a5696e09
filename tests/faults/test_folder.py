"""Folders that are shared, copied, edited, or another model's; clocks that lie; questions that do not fit."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from faulty_machine import NUM_QUESTIONS, RESULTS, Machine, comparable, last_line


def test_a_second_run_on_the_folder_is_refused_with_the_first_ones_process_and_host(machine: Machine) -> None:
    machine.faults["PACE"] = "0.3"
    first = machine.start()
    machine.wait_for_answers(1, first)
    second = machine.finish()
    assert second.returncode == 2
    assert f"is in use by process {first.pid} on {socket.gethostname()}; wait for it" in last_line(second.stderr)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert f"process {first.pid} on " in (machine.run / ".lock").read_text(encoding="utf-8")
    machine.faults.clear()
    third = machine.finish()
    assert third.returncode == 0, third.stderr
    assert machine.num_answers == NUM_QUESTIONS


def test_a_copied_folder_goes_on_elsewhere_whatever_the_clocks_say(
    machine: Machine, undisturbed: Machine, tmp_path: Path
) -> None:
    """Killed here, copied with a lock file of another host, all file times in the future; the new machine's time of
    day runs backwards."""
    machine.faults["PACE"] = "0.05"
    process = machine.start()
    machine.wait_for_answers(5, process)
    process.kill()
    process.communicate()
    there = Machine(tmp_path / "there", {"CLOCK": "backwards"})
    shutil.copytree(machine.folder / RESULTS, there.folder / RESULTS)
    (there.run / ".lock").write_text("process 1 on another-host\n", encoding="utf-8")
    for path in there.run.iterdir():
        os.utime(path, (4e9, 4e9))
    kept = there.num_answers
    done = there.finish()
    assert done.returncode == 0, done.stderr
    assert f"{kept} already answered" in done.stderr
    assert len(there.asked) == NUM_QUESTIONS - kept
    assert comparable(there.run / "summary.json") == comparable(undisturbed.run / "summary.json")
    sessions = json.loads((there.run / "manifest.json").read_bytes())["sessions"]
    assert sum(session["answered"] for session in sessions) in (NUM_QUESTIONS, NUM_QUESTIONS - kept + 1)
    assert all(0 <= session["seconds"] < 60 for session in sessions)


def copy_of(undisturbed: Machine, machine: Machine) -> None:
    shutil.copytree(undisturbed.folder / "results", machine.folder / "results")


def test_an_edited_record_is_found_told_and_asked_again(machine: Machine, undisturbed: Machine) -> None:
    copy_of(undisturbed, machine)
    path = machine.run / "outputs.jsonl"
    lines = path.read_bytes().split(b"\n")
    edited = json.loads(lines[7])
    lines[7] = lines[7].replace(b"-2.0", b"-0.5")
    lines[20] = lines[20][: len(lines[20]) // 2]
    path.write_bytes(b"\n".join(lines))
    done = machine.finish()
    assert done.returncode == 0
    assert "2 damaged lines moved to outputs.rejected.jsonl" in done.stderr
    assert len(machine.asked) == 2
    assert edited["id"] in machine.asked
    assert (machine.run / "outputs.rejected.jsonl").read_bytes() == lines[7] + b"\n" + lines[20] + b"\n"
    assert comparable(machine.run / "summary.json") == comparable(undisturbed.run / "summary.json")


def test_answers_of_another_model_are_refused_naming_what_differs(machine: Machine, undisturbed: Machine) -> None:
    copy_of(undisturbed, machine)
    before = (machine.run / "outputs.jsonl").read_bytes()
    done = machine.finish("backend.logprobs=[-4,-3,-2,-1]")
    assert done.returncode == 2
    assert "holds answers of another model: logprobs was [-1.0, -2.0, -3.0, -4.0]" in last_line(done.stderr)
    assert machine.asked == []
    assert (machine.run / "outputs.jsonl").read_bytes() == before


def test_answers_of_another_model_do_not_count_where_the_manifest_is_gone(
    machine: Machine, undisturbed: Machine
) -> None:
    copy_of(undisturbed, machine)
    (machine.run / "manifest.json").unlink()
    done = machine.finish("backend.logprobs=[-4,-3,-2,-1]")
    assert done.returncode == 0, done.stderr
    assert f"{NUM_QUESTIONS} damaged lines moved" in done.stderr
    assert len(machine.asked) == NUM_QUESTIONS


def test_a_question_that_does_not_fit_in_memory_leaves_the_score_incomplete_until_it_is_answered(
    machine: Machine, undisturbed: Machine
) -> None:
    example_id = json.loads((undisturbed.run / "outputs.jsonl").read_text(encoding="utf-8").splitlines()[3])["id"]
    machine.faults["NO_MEMORY_FOR"] = example_id
    done = machine.finish()
    assert done.returncode == 0, done.stderr
    assert f"1 of {NUM_QUESTIONS} questions could not be run, first {example_id}: out of memory" in done.stderr
    summary = json.loads((machine.run / "summary.json").read_bytes())
    assert summary["num_errors"] == 1
    assert summary["num_unanswered"] == 0
    assert summary["verdict"] == "incomplete, no verdict"
    assert summary["metrics"]["accuracy"]["n"] == NUM_QUESTIONS - 1
    scores = [json.loads(line) for line in (machine.run / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [s["error"] for s in scores if s["id"] == example_id] == ["out of memory"]
    assert "incomplete, no verdict" in (machine.folder / RESULTS / "report.md").read_text(encoding="utf-8")
    # on a machine with more memory only that question is asked again
    machine.faults.clear()
    asked = len(machine.asked)
    again = machine.finish()
    assert again.returncode == 0, again.stderr
    assert machine.asked[asked:] == [example_id]
    assert comparable(machine.run / "summary.json") == comparable(undisturbed.run / "summary.json")


HOSTILE = [
    "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\x1d\x1ee\r\nf",
    "NUL \x00 and DEL \x7f and ESC \x1b[2J",
    "lone \ud800 and \udfff surrogates",
    "界" * 1000 + " 12",
    "7" * 5000,
    "x" * 10_000_000,
]
NUM_TEXTS = len(HOSTILE)


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_no_text_of_a_model_and_no_locale_breaks_a_file(machine: Machine, locale: dict[str, str]) -> None:
    replay = machine.folder / "said.jsonl"
    said = {f"test/{index}": HOSTILE[index] for index in range(NUM_TEXTS)}
    replay.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in said.items()), encoding="ascii")
    machine.faults |= locale
    arguments = (
        "task=[gsm8k,ceval]",
        "backend=replay",
        f"backend.path={replay}",
        f"limit={NUM_TEXTS}",
        "model=smollm2-135m",
    )
    for i, choices in ((f"{s}/val/{n}", [-1, -2, -3, -4]) for s, n in ceval_ids()):
        with replay.open("a", encoding="ascii") as file:
            file.write(json.dumps({"id": i, "logprobs": choices}) + "\n")
    done = machine.finish(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = machine.folder / RESULTS / "gsm8k"
    for name in ("manifest.json", "outputs.jsonl", "scores.jsonl", "summary.json"):
        content = (folder / name).read_bytes()
        assert content.isascii(), name
        assert b"\r" not in content, name
    lines = (folder / "outputs.jsonl").read_bytes().split(b"\n")
    assert {json.loads(line)["id"]: json.loads(line)["text"] for line in lines[:-1]} == said
    assert len((folder / "scores.jsonl").read_bytes().split(b"\n")) == NUM_TEXTS + 1
    again = machine.finish(*arguments)
    assert f"{NUM_TEXTS} questions, {NUM_TEXTS} already answered" in again.stderr


def ceval_ids() -> list[tuple[str, int]]:
    subjects = ("high_school_physics", "logic", "middle_school_geography", "sports_science")
    return [(subject, number) for subject in subjects for number in range(8)]
