"""summary.json out of a run's answers, scores and sessions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.backends.finite import largest_difference
from evalkit.card.published import PublishedCard
from evalkit.card.runs import num_samples_of, protocol_of, remarks_of, where_measured
from evalkit.card.verdict import verdict_for
from evalkit.evaluation.contract import aggregate_of
from evalkit.evaluation.loop import Question
from evalkit.store.run_store import Session
from evalkit.task import Task
from evalkit.types import ENDED_BY, ErrorOutput, GenerateOutput, Json, Output, Record, Score, Summary, Usage

# Of `usage`, what was measured rather than found out: two runs of the same questions differ in it, and so does an
# interrupted run from one that was not. A prefix that an interrupted session had computed is computed again.
MEASURED = ("computed_tokens", "seconds", "cpu_seconds", "peak_memory_bytes")


def without_measurements(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a summary.json that two runs of the same questions share, byte for byte once written."""
    usage = {key: value for key, value in summary["usage"].items() if key not in MEASURED}
    return {**summary, "usage": usage, "check": None}


def summarize(
    task: Task,
    questions: Sequence[Question],
    scores: Sequence[Score],
    records: Mapping[tuple[str, str], Record],
    sessions: Sequence[Session],
    card: PublishedCard,
    model: str,
    provenance: Mapping[str, Json],
) -> Summary:
    """Put one task's scores, costs and published number together."""
    outputs = [records[q.example.id, q.request_sha].output for q in questions]
    num_errors = sum(isinstance(output, ErrorOutput) for output in outputs)
    aggregate = aggregate_of(task, scores)
    place = where_measured(card, task.name, task.cell, model, provenance)
    verdict = verdict_for(
        place,
        card=card.title,
        model=model,
        metric=aggregate.metrics[task.metric],
        comparable=data_of(provenance)["comparable"] is True,
        remarks=remarks_of(provenance),
        protocol=str(protocol_of(provenance)),
        num_errors=num_errors,
        num_samples=num_samples_of(provenance),
    )
    return Summary(
        task=task.name,
        model=model,
        metrics=aggregate.metrics,
        groups=aggregate.groups,
        published=place.published(model) if place else None,
        verdict=verdict.answer,
        num_unanswered=sum(score.answer is None for score in scores) - num_errors,
        num_truncated=sum(output.truncated for output in outputs),
        usage=usage_of(outputs, sessions),
        provenance=provenance,
        num_errors=num_errors,
        check=check_of(sessions),
        ended_by=ended_by(scores),
    )


def ended_by(scores: Sequence[Score]) -> dict[str, int]:
    """How many programs ended for each reason of the sandbox."""
    return dict(sorted(Counter(str(score.detail[ENDED_BY]) for score in scores if ENDED_BY in score.detail).items()))


def check_of(sessions: Sequence[Session]) -> dict[str, Json] | None:
    """The backend's comparisons with the plain path, over all sessions; None where it made none."""
    measured = [session.environment.get("measured") for session in sessions]
    checks: list[Any] = [m["check"] for m in measured if isinstance(m, Mapping) and m.get("check")]
    if not checks:
        return None
    return {
        "num_checked": sum(check["num_checked"] for check in checks),
        "max_abs_difference": largest_difference(checks),
        "flipped": [example_id for check in checks for example_id in check["flipped"]],
        "tolerance": checks[-1]["tolerance"],
        "ok": all(check["ok"] for check in checks),
    }


def data_of(provenance: Mapping[str, Json]) -> Mapping[str, Json]:
    """What a task's provenance says of its data."""
    data = provenance["data"]
    assert isinstance(data, Mapping)
    return data


def usage_of(outputs: Sequence[Output], sessions: Sequence[Session]) -> Usage:
    """What the answers cost, over all sessions.

    Prompt and generated tokens are those of the answers. The other figures were measured and differ between two
    runs of the same questions: a prefix that an interrupted session had computed is computed again by the next.
    """
    answers = [output for output in outputs if not isinstance(output, ErrorOutput)]
    return Usage(
        prompt_tokens=sum(output.num_prompt_tokens for output in answers),
        computed_tokens=sum(output.num_prompt_tokens - output.num_cached_tokens for output in answers),
        generated_tokens=sum(output.num_tokens for output in answers if isinstance(output, GenerateOutput)),
        seconds=round(sum(session.seconds for session in sessions), 3),
        peak_memory_bytes=max((session.peak_memory_bytes for session in sessions), default=0),
        cpu_seconds=round(sum(session.cpu_seconds for session in sessions), 3),
    )
