"""Parts handed out: every question is answered once, whoever dies over which part."""

from hypothesis import given
from hypothesis import strategies as st

from evalkit.backends.base import Part
from evalkit.types import GenerateRequest
from evalkit.workers.hand_out import DEADLY, HandOut


def part(*names: str) -> Part:
    return Part(tuple((name, GenerateRequest(name, (), 1)) for name in names), frozenset(names[:1]))


def names_of(found: Part | None) -> list[str]:
    return [name for name, _ in found.items] if found else []


def test_an_answer_that_arrives_twice_counts_once_and_one_that_nobody_asked_for_does_not() -> None:
    hand_out = HandOut([part("a", "b")])
    assert hand_out.answered("a")
    assert not hand_out.answered("a")
    assert not hand_out.answered("stranger")
    assert hand_out.num_open == 1


def test_what_a_dead_worker_left_is_next_and_the_questions_it_had_answered_are_not_asked_again() -> None:
    hand_out = HandOut([part("a", "b", "c"), part("d")])
    first = hand_out.take()
    assert first is not None
    hand_out.answered("a")
    assert hand_out.lost(first) == []
    again = hand_out.take()
    assert names_of(again) == ["b", "c"]
    assert again is not None
    assert again.checked == frozenset()  # it was of a
    assert names_of(hand_out.take()) == ["d"]
    assert hand_out.take() is None


def test_of_a_part_that_killed_twice_each_question_is_asked_alone_so_that_only_one_is_to_blame() -> None:
    hand_out = HandOut([part("a", "b", "c")])
    for _ in range(2):
        taken = hand_out.take()
        assert taken is not None
        assert hand_out.lost(taken) == []
    parts = [hand_out.take() for _ in range(3)]
    assert [names_of(found) for found in parts] == [["a"], ["b"], ["c"]]
    assert parts[1] is not None
    assert hand_out.lost(parts[1]) == ["b"]
    assert hand_out.take() is None
    assert hand_out.num_open == 2  # a and c, which somebody is answering


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_whoever_dies_every_question_ends_once_and_only_one_that_killed_three_alone_is_given_up(
    sizes: list[int], data: st.DataObject
) -> None:
    names = [[f"{number}.{place}" for place in range(size)] for number, size in enumerate(sizes)]
    hand_out = HandOut([part(*of_part) for of_part in names])
    ended: list[str] = []
    deaths: dict[str, int] = {}
    while (taken := hand_out.take()) is not None:
        before = data.draw(st.integers(0, len(taken.items)))
        for name, _ in taken.items[:before]:
            assert hand_out.answered(name)
            ended.append(name)
        for name, _ in taken.items[before:]:
            deaths[name] = deaths.get(name, 0) + 1
        deadly = hand_out.lost(taken)
        assert len(deadly) <= 1
        assert all(deaths[name] == DEADLY for name in deadly)
        ended += deadly
    assert hand_out.num_open == 0
    assert sorted(ended) == sorted(name for of_part in names for name in of_part)
