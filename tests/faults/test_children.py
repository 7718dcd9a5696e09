"""Programs that a model wrote and that never end: no end of a run leaves one behind."""

import signal

import pytest
from faulty_machine import Machine, wait_until

pytestmark = pytest.mark.xdist_group("signals")

ENDLESS = ("task=humaneval", "limit=40", "backend.text='    while True: pass'")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_ends_while_programs_run_takes_them_along_and_lets_go_of_its_folder(
    machine: Machine, number: signal.Signals
) -> None:
    """The fixture around every test here looks for orphans: of the run, of its sandbox, of the programs."""
    run = machine.run.with_name("humaneval")
    process = machine.start(*ENDLESS)
    path = run / "outputs.jsonl"
    wait_until(lambda: process.poll() is not None or (path.exists() and path.read_bytes().count(b"\n") == 40))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)  # its 40 programs would take twice that
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), err
    held = machine.finish("task=humaneval", "limit=40", "backend.text=' other'")
    assert "holds answers of another model" in held.stderr  # and not: is in use by
