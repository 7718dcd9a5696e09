"""Prompt lookup: what is guessed, when, and that no text depends on it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played import Played

from evalkit.engine import prompt_lookup
from evalkit.engine.engine import Continued, Engine, Result
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.prompt_lookup import MAX_GUESSED, PromptLookup
from evalkit.engine.scheduler import Budget

ANY = 1e9  # a step so costly that any guess is worth making


def lookup_of(*ids: int, step_cost: float = ANY) -> PromptLookup:
    return PromptLookup(make_plan([TokenSequence(ids, max_new_tokens=100)]), step_cost)


def test_what_followed_before_is_guessed_to_follow_again() -> None:
    assert lookup_of(1, 2, 3, 4, 5, 9).guess(0, (1, 2), 1, 3) == (3, 4, 5)
    assert lookup_of(1, 2, 3, 4, 5, 9).guess(0, (2, 1), 1, 3) == ()


def test_the_longest_of_several_occurrences_is_taken() -> None:
    assert lookup_of(7, 1, 2, 3, 8, 1, 2, 4, 0).guess(0, (7, 1, 2), 1, 1) == (3,)
    assert lookup_of(7, 1, 2, 3, 8, 1, 2, 4, 0).guess(0, (8, 1, 2), 1, 1) == (4,)


def test_a_text_that_repeats_one_token_is_guessed_to_go_on() -> None:
    assert lookup_of(5, 6, 6, 6, 6).guess(0, (6,), 1, 4)[0] == 6


def test_no_more_is_guessed_than_there_is_room_for() -> None:
    lookup = lookup_of(*range(20), 50)
    assert lookup.guess(0, (0, 1), 1, 2) == (2, 3)
    assert len(lookup.guess(0, (0, 1), 1, 100)) == MAX_GUESSED
    assert lookup.guess(0, (0, 1), 1, 0) == ()


def test_a_guess_is_made_where_a_step_costs_more_than_the_token() -> None:
    prompt = (*range(20), 50)
    assert not lookup_of(*prompt, step_cost=0.0).guess(0, (0, 1), 1, 8)
    assert lookup_of(*prompt, step_cost=17).guess(0, (0, 1), 4, 8)
    assert not lookup_of(*prompt, step_cost=17).guess(0, (0, 1), 2000, 8)  # a step full of prompts
    few, many = (len(lookup_of(*prompt, step_cost=17).guess(0, (0, 1), tokens, 8)) for tokens in (8, 2))
    assert few < many


def test_wrong_guesses_are_given_up_and_right_ones_taken_up_again() -> None:
    lookup = lookup_of(*range(20), 50, step_cost=17)
    first = lookup.guess(0, (0, 1), 8, 8)
    assert first
    for _ in range(30):
        lookup.judge(0, len(lookup.guess(0, (0, 1), 8, 8)), 0)
    assert not lookup.guess(0, (0, 1), 8, 8)
    for _ in range(200):
        lookup.judge(0, 3, 3)
    assert len(lookup.guess(0, (0, 1), 8, 8)) >= len(first)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_guess_is_always_what_followed_the_same_two_tokens(prompt: list[int], generated: list[int]) -> None:
    lookup = lookup_of(*prompt)
    for end in range(1, len(generated) + 1):
        text = prompt + generated[:end]
        guessed = lookup.guess(0, generated[:end], 1, 8)
        before = [place for place in range(2, len(text)) if text[place - 2 : place] == text[-2:]]
        assert bool(guessed) == bool(before)
        assert not guessed or any(tuple(text[place : place + len(guessed)]) == guessed for place in before)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6), st.data())
def test_a_shared_beginning_that_is_indexed_once_gives_the_guesses_of_each_prompt_alone(
    prompts: list[list[int]], data: st.DataObject
) -> None:
    shared = data.draw(st.lists(st.integers(0, 2), min_size=50, max_size=60))
    sequences = [
        TokenSequence((*shared, *own), max_new_tokens=100, request=number) for number, own in enumerate(prompts)
    ]
    together = PromptLookup(make_plan(sequences), ANY)
    for number in data.draw(st.permutations(range(len(sequences)))):
        alone = lookup_of(*sequences[number].ids)
        generated = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=10))
        for end in range(1, len(generated) + 1):
            assert together.guess(number, generated[:end], 1, 8) == alone.guess(0, generated[:end], 1, 8)


def test_a_shared_beginning_is_indexed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan([TokenSequence((*range(500), 500 + n), max_new_tokens=9, request=n) for n in range(40)])
    indexed = []
    extend = prompt_lookup._Text.extend
    monkeypatch.setattr(prompt_lookup._Text, "extend", lambda text, ids: (indexed.append(len(ids)), extend(text, ids)))
    lookup = PromptLookup(plan, ANY)
    for leaf in sorted(plan.leaves, key=lambda leaf: leaf.index):
        lookup.guess(leaf.sequences[0], (1,), 1, 8)
    assert sum(indexed) == plan.num_distinct_tokens + 40


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 40)), min_size=1, max_size=6
    ),
    st.builds(Budget, st.integers(1, 40), st.integers(1, 4), st.integers(1, 20)),
    st.integers(1, 6),
    st.frozensets(st.integers(1, 40), max_size=3),
    st.booleans(),
)
def test_texts_and_their_ends_are_those_without_guesses(
    prompts: list[tuple[list[int], int]], budget: Budget, period: int, failures: frozenset[int], stops: bool
) -> None:
    plan = make_plan(
        [TokenSequence(tuple(ids), max_new_tokens=most, request=number) for number, (ids, most) in enumerate(prompts)]
    )
    watchers = dict.fromkeys(range(len(prompts)), lambda ids: list(ids[-3:]) == [1, 2, 1]) if stops else {}

    def run(lookup: PromptLookup | None) -> tuple[dict[int, Result], Engine]:
        engine = Engine(plan, Played(plan, period, failures), budget, frozenset([4]), watchers, lookup)
        return dict(engine.run()), engine

    (plainly, without), (found, with_guesses) = run(None), run(PromptLookup(plan, ANY))
    assert found == plainly
    assert all(isinstance(result, Continued) for result in found.values())
    counters = with_guesses.counters
    assert counters.num_decoded_tokens == without.counters.num_decoded_tokens
    assert counters.num_right_guesses <= counters.num_guessed_tokens


def test_a_text_that_repeats_itself_takes_fewer_steps() -> None:
    plan = make_plan([TokenSequence((1, 2, 3), max_new_tokens=90)])
    engines = [
        Engine(plan, Played(plan, 3, frozenset()), Budget(40, 1, 40), lookup=x) for x in (None, PromptLookup(plan, ANY))
    ]
    for engine in engines:
        assert len(list(engine.run())) == 1
    assert engines[1].counters.num_steps < engines[0].counters.num_steps / 2


@pytest.mark.parametrize("sequence", [0, 1])
def test_an_ended_sequence_is_forgotten(sequence: int) -> None:
    plan = make_plan([TokenSequence((1, 2, 1), max_new_tokens=9, request=n) for n in range(2)])
    lookup = PromptLookup(plan, ANY)
    lookup.guess(sequence, (2,), 1, 4)
    lookup.forget(sequence)
    lookup.forget(sequence)
    assert lookup.guess(sequence, (2,), 1, 4) == (1, 2)
