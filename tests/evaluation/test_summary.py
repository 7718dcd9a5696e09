"""What of a run stands in summary.json beside its scores."""

from evalkit.evaluation.summary import check_of, without_measurements
from evalkit.store.run_store import Session


def session(difference: float, ok: bool, flipped: list[str]) -> Session:
    check = {"num_checked": 16, "max_abs_difference": difference, "flipped": flipped, "tolerance": 1e-4, "ok": ok}
    return Session(100, 1.0, 1, environment={"measured": {"check": check, "load_seconds": 2.0}})


def test_the_checks_of_all_sessions_are_put_together() -> None:
    check = check_of([session(1e-5, True, []), Session(3, 1.0, 1), session(2e-3, False, ["anatomy/test/1"])])
    assert check == {
        "num_checked": 32,
        "max_abs_difference": 2e-3,
        "flipped": ["anatomy/test/1"],
        "tolerance": 1e-4,
        "ok": False,
    }


def test_a_backend_that_checks_nothing_claims_nothing() -> None:
    assert check_of([Session(3, 1.0, 1)]) is None


def test_the_check_is_a_measurement() -> None:
    summary = {"usage": {"seconds": 1.0, "prompt_tokens": 5}, "check": {"ok": True}}
    assert without_measurements(summary) == {"usage": {"prompt_tokens": 5}, "check": None}
