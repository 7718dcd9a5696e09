"""What of a model is taken from where: its BOS rule, the ids that end a text, its length, its chat template.

A setting of the model's configuration comes first, then what the checkpoint's own files state.
"""

from collections.abc import Mapping

from evalkit.errors import ModelError
from evalkit.models.architecture import UNBOUNDED_LENGTH, usable_length
from evalkit.models.chat import stated_template
from evalkit.models.checkpoint import Checkpoint, gguf_adds_bos, gguf_end_ids
from evalkit.models.small_files import read_json
from evalkit.models.spec import ModelSpec
from evalkit.models.stated import LENGTH, config_of
from evalkit.models.tokenizer import CheckpointTokenizer
from evalkit.types import Json

GENERATION_CONFIG = "generation_config.json"
OWN_RULE = "the tokenizer's own rule"


def stated_add_bos(checkpoint: Checkpoint, spec: ModelSpec) -> tuple[bool | None, str]:
    """Whether a text begins with BOS, and what says so; None where only the tokenizer itself would show it."""
    if spec.add_bos is not None:
        return spec.add_bos, f"model.add_bos={str(spec.add_bos).lower()}"
    if checkpoint.gguf is not None:
        return gguf_adds_bos(checkpoint.gguf)
    path = checkpoint.folder / "tokenizer_config.json"
    stated = read_json(path).get("add_bos_token") if path.is_file() else None
    if isinstance(stated, bool):
        return stated, f"add_bos_token of {path.name}"
    return None, OWN_RULE


def end_of_text_sources(
    checkpoint: Checkpoint, spec: ModelSpec, tokenizer: CheckpointTokenizer
) -> dict[int, tuple[str, ...]]:
    """By id that ends a generation, what names it: the spec's tokens, or else all of the checkpoint's own files.

    Raises ModelError where the spec names a token that is not in the vocabulary.
    """
    if spec.end_of_text is not None:
        ids = {token: tokenizer.id_of(token) for token in spec.end_of_text}
        unknown = [token for token, index in ids.items() if index is None]
        if unknown:
            raise ModelError(f"model.end_of_text names {unknown[0]!r}, which is not in the vocabulary")
        return {index: (f"model.end_of_text {token}",) for token, index in ids.items() if index is not None}
    named: list[tuple[str, object]] = [
        (GENERATION_CONFIG, checkpoint.generation_config.get("eos_token_id")),
        ("config.json", config_of(checkpoint).get("eos_token_id") if checkpoint.gguf is None else None),
        *(gguf_end_ids(checkpoint.gguf).items() if checkpoint.gguf is not None else ()),
        ("the tokenizer", tokenizer.eos_id),
    ]
    found: dict[int, tuple[str, ...]] = {}
    for source, value in named:
        for index in value if isinstance(value, list) else [value]:
            if isinstance(index, int):
                found[index] = (*found.get(index, ()), source)
    return found


def taken_from(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    tokenizer: CheckpointTokenizer,
    length: int,
    ends: Mapping[int, tuple[str, ...]],
) -> dict[str, Json]:
    """For the provenance: each rule with what states it. length, ends: as the loaded model has them."""
    bos_id, template = tokenizer.describe()["bos_id"], stated_template(checkpoint)
    return {
        "bos": f"{'none' if bos_id is None else f'id {bos_id}'}: {tokenizer.bos_source}",
        "end_of_text": {str(index): ", ".join(ends[index]) for index in sorted(ends)} or "none: nothing names one",
        "max_length": _length_source(checkpoint, spec, length),
        "chat_template": template[1] if template else "none",
    }


def in_words(taken: Mapping[str, Json]) -> dict[str, str]:
    """What was taken from where, each rule in words."""
    ends = taken["end_of_text"]
    shown = ", ".join(f"{index} ({where})" for index, where in ends.items()) if isinstance(ends, dict) else str(ends)
    names = {"BOS": "bos", "length": "max_length", "chat template": "chat_template"}
    return {"end of text": shown, **{name: str(taken[key]) for name, key in names.items()}}


def _length_source(checkpoint: Checkpoint, spec: ModelSpec, length: int) -> str:
    if spec.max_length is not None:
        return f"{length:,}: model.max_length"
    if length == UNBOUNDED_LENGTH:
        return "no bound: positions are told by distance (ALiBi)"
    config = config_of(checkpoint)
    where = "config.json" if checkpoint.gguf is None else "the header"
    key = next((name for name in LENGTH if config.get(name)), None)
    if key is None:
        return f"{length:,}: the default of its family"
    cut = usable_length(int(config[key]), config, None) != int(config[key])
    return f"{length:,}: {key} of {where}{', up to where its rotary embedding changes' if cut else ''}"
