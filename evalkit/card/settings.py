"""In what two runs of a benchmark were asked, or computed, in different ways."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalkit.card.runs import Run, protocol_of, split_of, switches_of
from evalkit.types import Json, Summary

PACKAGES = ("torch", "transformers", "tokenizers", "tiktoken")  # those that a figure may depend on
Differences = Mapping[str, tuple[str, str]]  # {setting: (A's, B's)}


def settings_of(summary: Summary) -> dict[str, Json]:
    """What a regression gate holds fixed, besides the data: the prompts and the protocol."""
    return {"prompts": summary.provenance.get("prompt_set_sha"), "protocol": protocol_of(summary.provenance)}


def what_was_asked(summary: Summary) -> tuple[str, ...]:
    """Protocol, split, limit and subset as text ("none" for no limit, no subset).

    Equal where two runs were asked the same questions alike.
    """
    return tuple(_asked(summary.provenance).values())


def differences(a: Summary, b: Summary) -> dict[str, tuple[str, str]]:
    """Every setting in which two runs differ, with both values: how they were asked, then how they were computed.

    A setting that only one of the two tells of is left out. What the models themselves are (weights, vocabulary) is no
    setting.
    """
    of_a, of_b = _settings(a), _settings(b)
    return {
        name: (value, of_b[name])
        for name, value in of_a.items()
        if name in of_b and value != of_b[name] and (name != "end of text" or _one_vocabulary(a, b))
    }


def told_apart(runs: Sequence[Run]) -> list[str]:
    """What tells each run of one cell from the others: its protocol, else a setting that differs, else a number.

    "" for one that is alone and as the card asked.
    """
    names = [run.protocol if len(runs) > 1 or run.protocol != run.standard_protocol else "" for run in runs]
    if len(set(names)) < len(runs):
        settings = [differences(run.summary, runs[0].summary) for run in runs]
        shared = set.union(*(set(found) for found in settings))
        if len(shared) == 1:
            name = shared.pop()
            first = next(found[name][1] for found in settings if name in found)
            values = [found[name][0] if name in found else first for found in settings]
            names = [f"{name} {value}" for value in values] if len(set(values)) == len(runs) else names
    if len(set(names)) < len(runs):
        names = [f"run {number}" for number in range(1, len(runs) + 1)]
    return names


def labelled(runs: Sequence[Run]) -> list[Run]:
    """The same runs, those that were asked the same of one model each with what tells it from the others."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, run in enumerate(runs):
        alike.setdefault((*run.asked_as, run.data_kind), []).append(place)
    found = list(runs)
    for places in alike.values():
        if len(places) > 1:
            for place, label in zip(places, told_apart([runs[place] for place in places]), strict=True):
                found[place] = replace(runs[place], apart=label)
    return found


def in_words(found: Differences) -> str:
    """`dtype float32 / bfloat16; torch 2.11.0 / 2.13.0`."""
    return "; ".join(f"{name} {a} / {b}" for name, (a, b) in found.items())


def _settings(summary: Summary) -> dict[str, str]:
    provenance = summary.provenance
    return {
        **_asked(provenance),
        **{f"switch {name}": value for name, value in switches_of(provenance).items()},
        **_computed(_mapping(provenance.get("model"))),
        **_versions(provenance),
    }


def _asked(provenance: Mapping[str, Json]) -> dict[str, str]:
    subset = provenance.get("subset")
    return {
        "protocol": protocol_of(provenance) or "unknown",
        "split": split_of(provenance) or str(provenance.get("cell")),
        "limit": "none" if provenance.get("limit") is None else str(provenance["limit"]),
        "subset": str(subset["name"]) if isinstance(subset, Mapping) else "none",
    }


def _computed(model: Mapping[str, Any]) -> dict[str, str]:
    tokenizer, architecture = _mapping(model.get("tokenizer")), _mapping(model.get("architecture"))
    found = {name: model.get(name) for name in ("backend", "dtype", "device", "format", "attention", "chat_template")}
    found |= {"length": architecture.get("sequence_length"), "end of text": model.get("end_of_text_ids")}
    if "bos_id" in tokenizer:
        found["BOS"] = "none" if tokenizer["bos_id"] is None else "yes"
    return {name: str(value).removeprefix("torch.") for name, value in found.items() if value is not None}


def _versions(provenance: Mapping[str, Json]) -> dict[str, str]:
    packages = _mapping(provenance.get("packages"))
    found = {"evalkit": provenance.get("evalkit"), **{name: packages.get(name) for name in PACKAGES}}
    return {name: str(version) for name, version in found.items() if version is not None}


def _one_vocabulary(a: Summary, b: Summary) -> bool:
    """Whether ids of tokens mean the same in both: only then can they be compared."""
    sizes = [_mapping(_mapping(s.provenance.get("model")).get("tokenizer")).get("vocabulary_size") for s in (a, b)]
    return sizes[0] == sizes[1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
