"""What is taken of a call before it is its turn."""

from concurrent.futures import Future

from evalkit.backends.base import Part
from evalkit.errors import ModelError
from evalkit.types import GenerateRequest
from evalkit.workers.call import Call


def call_of(*names: str) -> Call:
    parts: Future[list[Part]] = Future()
    call = Call([(name, GenerateRequest(name, (), 1)) for name in names], parts)
    parts.set_result([Part((item,)) for item in call.items])
    return call


def test_no_more_than_so_many_parts_are_taken_early_and_the_others_in_their_turn() -> None:
    call = call_of("a", "b", "c")
    taken = [call.take_early(2), call.take_early(2), call.take_early(2)]
    assert [part.items[0][0] if part else None for part in taken] == ["a", "b", None]
    rest = [call.take(), call.take()]
    assert [part.items[0][0] if part else None for part in rest] == ["c", None]


def test_nothing_is_taken_early_of_parts_that_are_not_there_or_that_went_wrong() -> None:
    call = call_of("a")
    waiting = Call(call.items, Future())
    assert waiting.take_early(2) is None
    waiting.parts.set_exception(ModelError("too long"))
    assert waiting.take_early(2) is None
    call.error = ModelError("too large")
    assert call.take_early(2) is None
