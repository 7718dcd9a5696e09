"""The nouns: what passes between tasks, backends, the store and the report. Standard library only."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

# Where a continuation begins: behind the prompt's last token, or before the white space that ends the prompt (which is
# then scored with it, as lighteval and lm-eval do).
Seam: TypeAlias = Literal["prompt", "white-space"]
# What special tokens leave in a generated text: "kept", as they are spelled; "dropped", nothing, though a stop string
# that one spells ends the text (lm-eval); "unseen", nothing, and no stop string is found in them.
SpecialTokens: TypeAlias = Literal["kept", "dropped", "unseen"]
# How the turns of a conversation are written: by the checkpoint's own template, or as ChatML by ids (models.chatml).
ChatFormat: TypeAlias = Literal["checkpoint", "chatml"]
EOS_TOKEN = "eos_token"  # in a GenerateRequest: the token that the tokenizer's files name as the end of a text
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def json_text(value: Any, **layout: Any) -> str:
    """A value as JSON that every reader takes: a number that is NaN or infinite, which JSON lacks, is written as its
    name, "NaN", "Infinity" or "-Infinity", a text.

    layout: as json.dumps has it (indent, separators, ensure_ascii).
    """
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except ValueError:
        # The only spelling that json.loads takes besides JSON; parse_constant hands over its name.
        named = json.loads(json.dumps(value), parse_constant=str)
        return json.dumps(named, allow_nan=False, **layout)


def sha256_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in its one canonical spelling: sorted keys, no spaces, ASCII only."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sha256_of_text(text: str) -> str:
    """SHA-256 (hex) of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Example:
    """One question of a benchmark."""

    id: str  # stable, never a position in a batch: "anatomy/test/17"
    row: Mapping[str, str]  # the row's cells as text
    target: str | None  # the right answer; None where the publisher withholds it
    group: str = ""  # the subject; "" where the benchmark has none
    sample_of: str = ""  # the id of the question that this is one sample of; "" where each is asked once


@dataclass(frozen=True)
class Truncation:
    """A prompt of more than `longer_than` tokens keeps its last `keep_last`."""

    longer_than: int
    keep_last: int


@dataclass(frozen=True)
class DropShots:
    """A prompt of more than `longer_than` tokens loses its last worked example, and the next, until it fits.

    Where it does not fit without any, it is asked without any.
    """

    longer_than: int
    shot_ends: tuple[int, ...]  # in characters: where the header ends, and each worked example behind it

    def shorter(self, prompt: str) -> Iterator[str]:
        """The prompt with one worked example less, with two less, … and with none."""
        for end in reversed(self.shot_ends[:-1]):
            yield prompt[:end] + prompt[self.shot_ends[-1] :]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: the piece of a request's prompt that ends at `end`, in characters."""

    role: str  # "system", "user", "assistant"
    end: int


@dataclass(frozen=True)
class Sampling:
    """Draws from the model's distribution in place of its likeliest token.

    What is drawn depends on the seed, the question and the sample's number alone, never on what runs beside it.
    """

    temperature: float  # above 0
    top_p: float = 1.0  # of the likeliest tokens that together have at least this probability
    seed: int = 0
    number: int = 0  # of the sample among those of its question, from 0


def is_float(storage_type: str) -> bool:
    """Whether a storage type of weights ("BF16", "F32", "Q4_1") is a floating-point one, so no quantisation."""
    return bool(re.fullmatch(r"B?F(16|32|64)", storage_type))


_PARTS = (Truncation, DropShots, Sampling)
_LATER: Mapping[str, Any] = {
    "turns": (),
    "seam": "prompt",
    "last_token": True,
    "sampling": None,
    "count_tokens": False,
    "end_of_text": (),
    "special_tokens": "unseen",
    "chat_format": "checkpoint",
    "without_last": False,
}


def fields_of(request: Any) -> dict[str, Any]:
    """A request's fields, as `dataclasses.asdict` has them in a fifth of its time.

    Those that came later are there only where they are set, so that hashes and files stay as they were; where the
    question begins is never there: it tells a reader, and no model.
    """
    return {
        name: tuple(map(asdict, value)) if name == "turns" else asdict(value) if isinstance(value, _PARTS) else value
        for name, value in vars(request).items()
        if name != "question_at" and (name not in _LATER or value != _LATER[name])
    }


def truncation_of(fields: Mapping[str, Any] | None) -> "Truncation | DropShots | None":
    """A request's truncation out of its JSON."""
    if not fields:
        return None
    if "shot_ends" in fields:
        return DropShots(fields["longer_than"], tuple(fields["shot_ends"]))
    return Truncation(**fields)


@dataclass(frozen=True)
class LoglikelihoodRequest:
    """Log-probability of each continuation after one prompt.

    turns: where there are any, the prompt is a conversation, put through the checkpoint's own chat template, and the
    assistant's turn begins behind it. The template's special tokens go to the model as their ids; what looks like one
    inside a turn stays text.
    """

    prompt: str
    continuations: tuple[str, ...]
    truncation: Truncation | DropShots | None = None
    turns: tuple[Turn, ...] = ()
    seam: Seam = "prompt"
    last_token: bool = True  # False: the last token of each continuation is not scored
    count_tokens: bool = False  # True: the output tells how many tokens of each continuation were scored
    question_at: int | None = field(default=None, compare=False)  # in the prompt, behind header and worked examples

    @property
    def sha(self) -> str:
        """SHA-256 over every field."""
        return sha256_of(["loglikelihood", fields_of(self)])


@dataclass(frozen=True)
class GenerateRequest:
    """Continuation of one prompt: greedy, or drawn where `sampling` says so.

    Decoding ends with the token that completes the first of the `stop` strings, with an end-of-text token, or
    after `max_new_tokens`. turns: as of a LoglikelihoodRequest.
    end_of_text: the tokens that end it by their spellings, EOS_TOKEN for the one that the checkpoint's tokenizer names
    so; empty: those of the model's config.
    special_tokens: what other special tokens leave in the text, and whether stop strings are found in them.
    without_last: the output of a text that ends for its length tells the text without its last token, too.
    """

    prompt: str
    stop: tuple[str, ...]
    max_new_tokens: int
    truncation: Truncation | None = None
    turns: tuple[Turn, ...] = ()
    sampling: Sampling | None = None
    end_of_text: tuple[str, ...] = ()
    special_tokens: SpecialTokens = "unseen"
    question_at: int | None = field(default=None, compare=False)  # as of a LoglikelihoodRequest
    chat_format: ChatFormat = "checkpoint"
    without_last: bool = False

    @property
    def sha(self) -> str:
        """SHA-256 over every field."""
        return sha256_of(["generate", fields_of(self)])


Request: TypeAlias = LoglikelihoodRequest | GenerateRequest


def request_of(fields: Mapping[str, Any]) -> Request:
    """A request out of what `dataclasses.asdict` made of it, by way of JSON or not."""
    value = dict(fields)
    value["truncation"] = truncation_of(value.get("truncation"))
    value["turns"] = tuple(Turn(**turn) for turn in value.get("turns", ()))
    if "continuations" in value:
        return LoglikelihoodRequest(**{**value, "continuations": tuple(value["continuations"])})
    sampling = value.get("sampling")
    value["sampling"] = Sampling(**sampling) if sampling else None
    value["end_of_text"] = tuple(value.get("end_of_text", ()))
    return GenerateRequest(**{**value, "stop": tuple(value["stop"])})


FinishReason: TypeAlias = Literal["stop", "end_of_text", "length"]


@dataclass(frozen=True)
class LoglikelihoodOutput:
    """Answer to a LoglikelihoodRequest."""

    logprobs: tuple[float, ...]  # one per continuation, natural log, summed over its tokens
    num_prompt_tokens: int  # after truncation
    num_cached_tokens: int = 0  # of these, how many were computed for an earlier sequence
    truncated: bool = False
    num_tokens: tuple[int, ...] = ()  # of each continuation, as scored; empty where the request does not ask


@dataclass(frozen=True)
class GenerateOutput:
    """Answer to a GenerateRequest."""

    text: str  # uncut: it ends with the token that completed the stop string, if one did
    finish_reason: FinishReason
    num_tokens: int  # generated, the end-of-text token not counted
    num_prompt_tokens: int  # after truncation
    num_cached_tokens: int = 0
    truncated: bool = False
    without_last: str | None = None  # the text without its last token, where the request asks and the length ended it


@dataclass(frozen=True)
class ErrorOutput:
    """Why one question could not be run, in place of its answer: a sequence that does not fit in memory.

    It is never scored, makes the run's score incomplete, and is asked again by the next run.
    """

    error: str
    num_prompt_tokens: int = 0  # after truncation; none of them counts as a cost
    truncated: bool = False


Output: TypeAlias = LoglikelihoodOutput | GenerateOutput | ErrorOutput


@dataclass(frozen=True)
class Record:
    """One question answered: what outputs.jsonl keeps."""

    id: str
    request_sha: str
    prompt_sha: str
    output: Output


# Keys of a score's detail that more than its task reads.
ENDED_BY = "ended_by"  # where what was scored ended for a reason of this machinery, not its own: which
SAMPLES = "samples"  # of a question that was sampled: the details of its samples


@dataclass(frozen=True)
class Score:
    """What a task makes of one output."""

    id: str
    group: str
    answer: str | None  # what was read out of the output; None where nothing could be read
    target: str | None
    value: float | None  # 1 right, 0 wrong, None where the target is withheld
    detail: Mapping[str, Json] = field(default_factory=dict)  # task-specific, e.g. the sandbox status


@dataclass(frozen=True)
class Metric:
    """A figure with its 95 % interval, all three in percent; None where there is nothing to say."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Aggregate:
    """A task's scores put together: the headline metric first, then metrics by kind of group and group."""

    metrics: Mapping[str, Metric]  # {"accuracy": …}; the first is the one the card publishes
    groups: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)  # {"subject": {"anatomy": …}}


@dataclass(frozen=True)
class Usage:
    """What a run cost."""

    prompt_tokens: int
    computed_tokens: int  # prompt tokens that went through the model, cached ones not counted
    generated_tokens: int
    seconds: float
    peak_memory_bytes: int
    cpu_seconds: float = 0.0  # of all cores, programs run in the sandbox included


@dataclass(frozen=True)
class Published:
    """A card's own figure, in percent."""

    value: float
    source: str


def fields_of_summary(summary: "Summary") -> dict[str, Any]:
    """A summary's fields as summary.json has them; what came later is there only where there is something to say."""
    return {name: value for name, value in asdict(summary).items() if name != "ended_by" or value}


@dataclass(frozen=True)
class Summary:
    """One task of one model: the content of summary.json."""

    task: str
    model: str
    metrics: Mapping[str, Metric]
    groups: Mapping[str, Mapping[str, Metric]]
    published: Published | None
    verdict: str
    num_unanswered: int
    num_truncated: int
    usage: Usage
    provenance: Mapping[str, Json]
    num_errors: int = 0  # questions that could not be run; with any the score is incomplete
    # a sample answered again by the plain path: num_checked, max_abs_difference, flipped, tolerance, ok
    check: Mapping[str, Json] | None = None
    ended_by: Mapping[str, int] = field(default_factory=dict)  # programs that ended for a reason of the sandbox
