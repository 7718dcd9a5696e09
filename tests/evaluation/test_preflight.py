"""What a run will take, counted by hand on a tokenizer whose tokens are characters."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.backends.base import Answer, Item
from evalkit.card.figures import duration
from evalkit.card.load import load_card
from evalkit.errors import ModelError
from evalkit.evaluation.forecast import Throughput, calibrate, forecast
from evalkit.evaluation.loop import Question, questions_of
from evalkit.evaluation.preflight import memory_line, refuse_too_long, shown_prompts, workload_of, written
from evalkit.evaluation.run import Settings, dry_run, run_tasks
from evalkit.models.base import ModelFacts
from evalkit.types import (
    Example,
    GenerateOutput,
    GenerateRequest,
    Json,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Truncation,
)


class Characters:
    """Every character is a token."""

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        return [[ord(character) for character in text] for text in texts]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int]) -> str:
        return "".join(map(chr, new_ids))


FACTS = ModelFacts(Characters(), max_length=100_000, weight_bytes=10 * 2**20, bytes_per_token=1024)


def choice(name: str, prompt: str, truncation: Truncation | None = None) -> Question:
    request = LoglikelihoodRequest(prompt, (" A", " B"), truncation)
    return Question(Example(name, {}, "A"), request, request.sha)


def generation(name: str, prompt: str, max_new_tokens: int) -> Question:
    request = GenerateRequest(prompt, (), max_new_tokens)
    return Question(Example(name, {}, "A"), request, request.sha)


def test_tokens_are_counted_by_prompt_and_once_each() -> None:
    workload = workload_of("t", [choice("1", "shared one"), choice("2", "shared two"), choice("3", "other")], FACTS)
    assert workload.num_prompt_tokens == 25
    assert workload.num_distinct_tokens == len("shared ") + len("one") + len("two") + len("other")
    assert workload.longest.question.example.id == "1"
    assert "3 questions, 25 prompt tokens (longest 10), 18 distinct after prefix sharing" in str(workload)


@given(st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=12))
def test_distinct_tokens_are_the_nodes_of_the_prefix_tree(texts: list[str]) -> None:
    workload = workload_of("t", [choice(str(number), text) for number, text in enumerate(texts)], FACTS)
    assert workload.num_distinct_tokens == len({text[: end + 1] for text in texts for end in range(len(text))})


def test_truncated_and_too_long_prompts_are_told_apart() -> None:
    rule = Truncation(longer_than=8, keep_last=7)
    questions = [choice("cut", "123456789", rule), choice("kept", "12345678", rule), choice("long", "x" * 21)]
    workload = workload_of("t", questions, replace(FACTS, max_length=20))
    assert workload.num_truncated == 1
    assert [len(prompt.ids) for prompt in workload.prompts] == [7, 8, 21]
    assert [prompt.question.example.id for prompt in workload.too_long] == ["long"]
    with pytest.raises(ModelError, match="1 of 3 prompts are longer than the model's 20 tokens, first long with 21"):
        refuse_too_long(workload)


def test_generation_is_counted_at_its_most_and_its_room_is_looked_at() -> None:
    workload = workload_of(
        "t", [generation("1", "x" * 15, 5), generation("2", "x" * 16, 5)], replace(FACTS, max_length=20)
    )
    assert workload.max_new_tokens == 10
    assert workload.num_cut_short == 1
    refuse_too_long(workload)


def test_the_token_hash_tells_any_other_token_or_order() -> None:
    questions = [choice("1", "one"), choice("2", "two")]
    shas = {
        workload_of("t", asked, FACTS).token_ids_sha
        for asked in (questions, questions[::-1], [choice("1", "one"), choice("2", "twp")], questions[:1])
    }
    assert len(shas) == 4
    assert workload_of("t", questions, FACTS).token_ids_sha in shas


@given(st.lists(st.lists(st.integers(0, 3), max_size=9).map(tuple), max_size=9))
def test_token_ids_are_written_as_json_writes_them(lists: list[tuple[int, ...]]) -> None:
    assert [f"[{ids}]" for ids in written(lists)] == [json.dumps(ids) for ids in lists]


def test_memory_is_weights_and_the_longest_sequence() -> None:
    workload = workload_of("t", [choice("1", "x" * 1024)], FACTS)
    assert memory_line(FACTS, [workload]).startswith("memory: 0.01 GiB for weights and the longest sequence, ")
    assert "fits" in memory_line(FACTS, [workload])
    assert "DOES NOT FIT" in memory_line(replace(FACTS, weight_bytes=2**60), [workload])
    assert "not known" in memory_line(replace(FACTS, weight_bytes=None), [workload])


class CharacterModel:
    """A backend with facts, which says nothing well."""

    def __init__(self, facts: ModelFacts = FACTS) -> None:
        self._facts = facts
        self.num_asked = 0

    def facts(self) -> ModelFacts:
        return self._facts

    def fingerprint(self) -> Mapping[str, Json]:
        return {"backend": "characters"}

    def provenance(self) -> Mapping[str, Json]:
        return self.fingerprint()

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        for name, request in items:
            self.num_asked += 1
            if isinstance(request, LoglikelihoodRequest):
                yield name, LoglikelihoodOutput((-1.0, -2.0, -3.0, -4.0), len(request.prompt))
            else:
                yield name, GenerateOutput("12", "length", 2, len(request.prompt))


def settings_in(folder: Path) -> Settings:
    return Settings("smollm2-135m", folder / "results", None, load_card("qwen-1_8b"), {})


def test_a_dry_run_shows_three_prompts_of_each_task_measures_a_little_and_writes_nothing(
    tmp_path: Path, task_builder: Callable[..., Any]
) -> None:
    tasks = [task_builder("mmlu", "data_dir=bundled"), task_builder("gsm8k", "data_dir=bundled")]
    backend = CharacterModel()
    out = "".join(dry_run(tasks, backend, settings_in(tmp_path)))
    for name, number in (("mmlu", 32), ("gsm8k", 12)):
        assert f"{name}: {number} questions, " in out
        for label in ("first", "longest", "random"):
            assert f"{name}: the {label} prompt, " in out
        assert f"for {number} questions at " in out
    questions = questions_of(tasks[1], None)
    assert f"the first prompt, test/0, {len(questions[0].request.prompt):,} tokens" in out
    assert questions[0].request.prompt in out
    assert "at most 6,144 new tokens" in out
    assert 0 < backend.num_asked <= 16
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_beyond_the_models_length_ends_the_run_before_the_model_is_asked(
    tmp_path: Path, task_builder: Callable[..., Any]
) -> None:
    backend = CharacterModel(replace(FACTS, max_length=1000))
    with pytest.raises(ModelError, match=r"mmlu: \d+ of 32 prompts are longer .*tasks\.mmlu\.num_fewshot=N"):
        run_tasks([task_builder("mmlu", "data_dir=bundled")], backend, settings_in(tmp_path))
    assert backend.num_asked == 0


def test_a_run_tells_what_it_takes_and_keeps_the_token_hash(
    tmp_path: Path, task_builder: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    task = task_builder("mmlu", "data_dir=bundled")
    with caplog.at_level("INFO"):
        (summary,) = run_tasks([task], CharacterModel(), settings_in(tmp_path))
    workload = workload_of("mmlu", questions_of(task, None), FACTS)
    assert summary.provenance["token_ids_sha"] == workload.token_ids_sha
    assert str(workload) in caplog.messages
    caplog.clear()
    with caplog.at_level("INFO"):
        (again,) = run_tasks([task], CharacterModel(), settings_in(tmp_path))
    assert again.provenance == summary.provenance
    assert str(workload) not in caplog.messages  # nothing is asked


def test_the_forecast_is_the_pace_over_what_is_left() -> None:
    throughput = Throughput(num_questions=10, num_tokens=1000, num_generated=100, seconds=5.0)
    # 4,000 distinct and 10 generated a question for 100 questions: 5,000 tokens of which 1,000 are done
    assert throughput.seconds_left(100, 4000) == pytest.approx(20.0)
    assert Throughput().seconds_left(10, 10) is None
    assert [duration(s) for s in (20.0, 600.0, 7200.0, None)] == [
        "about 20 s",
        "about 10 min",
        "about 2.0 h",
        "an unknown time",
    ]
    workload = workload_of("t", [choice(str(n), f"{n:04}") for n in range(100)], FACTS)
    assert "for 40 questions at 200 tokens/s; peak memory" in forecast(workload, throughput, 40)
    assert forecast(workload, throughput, 40).endswith("the limit that will bind: time")


def test_calibration_asks_eight_questions_spread_over_the_task() -> None:
    backend = CharacterModel()
    throughput = calibrate(backend, [choice(str(n), "x" * 10) for n in range(100)])
    assert (throughput.num_questions, throughput.num_tokens, backend.num_asked) == (8, 80, 8)


def test_a_prompt_that_lost_its_beginning_is_marked() -> None:
    workload = workload_of("t", [choice("1", "0123456789", Truncation(8, 7))], FACTS)
    text = shown_prompts(workload, lambda prompts: prompts[-1])
    assert text.count("7 tokens, its beginning dropped") == 3


def test_a_token_beyond_the_embedding_is_named_before_the_model_is_loaded() -> None:
    """A tokenizer with more tokens than the model has rows: in a prompt, and in a choice alone."""
    rows = replace(FACTS, num_embeddings=ord("y"))
    workload_of("t", [choice("fits", "abc")], rows)
    with pytest.raises(ModelError, match=r"t, far: the tokenizer makes the token .*, id 122, but the model has"):
        workload_of("t", [choice("fits", "abc"), choice("far", "abz")], rows)
