"""Disks that are full, read-only, or gone: one clear line, and nothing lost that was on the disk."""

import contextlib
import ctypes
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_machine import NUM_QUESTIONS, RESULTS, Machine, comparable, last_line

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def limit_file_size(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run_goes_on(machine: Machine, undisturbed: Machine, answers_kept: int) -> None:
    asked = len(machine.asked)
    again = machine.finish()
    assert again.returncode == 0, again.stderr
    assert comparable(machine.run / "summary.json") == comparable(undisturbed.run / "summary.json")
    assert len(machine.asked) - asked == NUM_QUESTIONS - answers_kept


@pytest.mark.parametrize("size", [20, 4_321, 9_000])
def test_a_full_disk_ends_with_one_line_and_the_run_goes_on_when_there_is_room(
    machine: Machine, undisturbed: Machine, size: int
) -> None:
    """No file may grow beyond `size` bytes: 20 stops at the lock, the others at the manifest, at a record torn in
    its middle, or at the summary."""
    done = machine.finish(preexec_fn=limit_file_size(size))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "File too large" in last_line(done.stderr)
    assert last_line(done.stderr).startswith("evalkit: ")
    kept = machine.num_answers
    assert not list(machine.folder.rglob("*.part"))
    run_goes_on(machine, undisturbed, kept)


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A tmpfs; skips the test where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no right to mount a tmpfs here; RLIMIT_FSIZE stands in for it")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kibibytes", [12])
def test_a_full_file_system_keeps_what_it_holds(machine: Machine, undisturbed: Machine, kibibytes: int) -> None:
    with mounted(machine.folder / "results", "-o", f"size={kibibytes}k"):
        done = machine.finish()
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "No space left on device" in last_line(done.stderr)
        kept = machine.num_answers
        subprocess.run(["mount", "-o", "remount,size=10m", str(machine.folder / "results")], check=True)
        run_goes_on(machine, undisturbed, kept)


def without_privilege() -> None:
    """From the next exec on, permissions hold for root too."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize("where", ["results", "model", "task"])
def test_a_folder_without_write_permission_is_found_before_the_model_is_asked(machine: Machine, where: str) -> None:
    folder = {"results": machine.folder / "results", "model": machine.folder / RESULTS, "task": machine.run}[where]
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    done = machine.finish(preexec_fn=without_privilege)
    folder.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "results_dir=FOLDER" in last_line(done.stderr)
    assert "Permission denied" in last_line(done.stderr)
    assert machine.asked == []


def test_a_file_system_mounted_read_only_is_found_before_the_model_is_asked(machine: Machine) -> None:
    with mounted(machine.folder / "results"):
        (machine.folder / RESULTS / "mmlu").mkdir(parents=True)
        subprocess.run(["mount", "-o", "remount,ro", str(machine.folder / "results")], check=True)
        done = machine.finish()
    assert done.returncode == 2
    assert "Read-only file system" in last_line(done.stderr)
    assert machine.asked == []


def test_a_file_system_that_fills_up_during_the_run_keeps_the_answers(machine: Machine, undisturbed: Machine) -> None:
    results = machine.folder / "results"
    with mounted(results, "-o", "size=1m"):
        machine.faults["PACE"] = "0.05"
        process = machine.start()
        machine.wait_for_answers(3, process)
        with contextlib.suppress(OSError), (results / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1024))
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2, err
        assert "No space left on device" in last_line(err)
        assert 3 <= machine.num_answers < NUM_QUESTIONS
        (results / "filler").unlink()
        machine.faults.clear()
        run_goes_on(machine, undisturbed, machine.num_answers)


def test_a_folder_that_loses_its_write_permission_during_the_run_keeps_every_answer(
    machine: Machine, undisturbed: Machine
) -> None:
    machine.faults["PACE"] = "0.02"
    process = machine.start(preexec_fn=without_privilege)
    machine.wait_for_answers(3, process)
    machine.run.chmod(0o555)
    _, err = process.communicate(timeout=60)
    machine.run.chmod(0o755)
    assert process.returncode == 2, err
    assert "Permission denied); give write permission and run the same command again" in last_line(err)
    assert machine.num_answers == NUM_QUESTIONS
    run_goes_on(machine, undisturbed, NUM_QUESTIONS)


def test_a_folder_that_is_deleted_during_the_run_ends_it_at_the_next_answer(machine: Machine) -> None:
    machine.faults["PACE"] = "0.1"
    process = machine.start()
    machine.wait_for_answers(3, process)
    shutil.rmtree(machine.folder / "results")
    asked = len(machine.asked)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "was deleted during the run" in last_line(err)
    assert len(machine.asked) <= asked + 2


def test_a_folder_that_is_moved_during_the_run_keeps_its_answers(machine: Machine, undisturbed: Machine) -> None:
    machine.faults["PACE"] = "0.02"
    process = machine.start()
    machine.wait_for_answers(3, process)
    (machine.folder / "results").rename(machine.folder / "elsewhere")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "its folder has vanished" in last_line(err)
    (machine.folder / "elsewhere").rename(machine.folder / "results")
    run_goes_on(machine, undisturbed, machine.num_answers)
