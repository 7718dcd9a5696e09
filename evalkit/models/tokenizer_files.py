"""Building the tokenizer that a checkpoint's files describe: all of them, and nothing else than they describe.

tokenizer.json is read as it stands: transformers' tokenizer classes rebuild parts of it to their own liking
(GPT2Tokenizer loses SmolLM2's step that splits digits). Tokens that other files add are added, and a text begins as
AutoTokenizer begins it. Where AutoTokenizer splits a text otherwise, or files say different things, notes say so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from evalkit.errors import ModelError
from evalkit.models.added_tokens import CONFIG, ROLES, add_stated, beyond, roles_of, special_texts, stated_tokens
from evalkit.models.auto_tokenizer import SPECIMENS, auto_tokenizer, begins_with, in_front, split_otherwise
from evalkit.models.chat import template_of
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.gguf_file import GgufHeader
from evalkit.models.qwen_tokenizer import MODEL_TYPE as QWEN
from evalkit.models.qwen_tokenizer import SPECIAL_TOKENS, load_qwen_tokenizer
from evalkit.models.sentencepiece_tokenizer import MODEL_FILE, SentencePieceTokenizer
from evalkit.models.small_files import read_json
from evalkit.models.spec import ModelSpec
from evalkit.models.taken import OWN_RULE, stated_add_bos
from evalkit.models.tokenizer import CheckpointTokenizer, HuggingFaceTokenizer

_GPT2_FAMILIES = {"gpt2", "gpt_neo", "gptj", "opt"}
_CONTROL = 3  # ggml's type of a token that is never text


@dataclass
class _Read:
    """A tokenizer's files read so far."""

    checkpoint: Checkpoint
    spec: ModelSpec
    auto: Any = None  # AutoTokenizer's; None where it makes none of the files
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.checkpoint.folder


def load_tokenizer(checkpoint: Checkpoint, spec: ModelSpec) -> CheckpointTokenizer:
    """The checkpoint's tokenizer under the rules of the model's config.

    `tokenizer=auto` takes the kind that the files are of: Qwen's own, a SentencePiece model that comes alone,
    or one of the Hugging Face kind. Raises ModelError where it is missing, broken or not understood.
    """
    if spec.tokenizer == "qwen" or (spec.tokenizer == "auto" and checkpoint.model_type == QWEN):
        _refuse_more_than(SPECIAL_TOKENS, checkpoint.folder)
        return load_qwen_tokenizer(checkpoint.folder, checkpoint.config, checkpoint.generation_config)
    read = _Read(checkpoint, spec)
    names = {path.name for path in checkpoint.tokenizer_files}
    alone = MODEL_FILE in names and "tokenizer.json" not in names
    if spec.tokenizer == "sentencepiece" or (spec.tokenizer == "auto" and alone):
        return _sentencepiece(read)
    return _huggingface(read)


def _refuse_more_than(known: Sequence[str], folder: Path) -> None:
    """Qwen's first format has its special tokens by its own rule, and takes no others."""
    for stated in stated_tokens(folder):
        if stated.text not in known:
            raise ModelError(
                f"{folder / stated.file} adds the token {stated.text!r}, which the tokenizer of qwen.tiktoken does not "
                f"take: remove the file, or bring the model into the Qwen2 format with a tokenizer.json"
            )


def _try_auto(read: _Read) -> None:
    """AutoTokenizer's reading of the folder, where it has one."""
    try:
        read.auto = auto_tokenizer(read.folder)
    except ModelError:
        read.auto = None


def _sentencepiece(read: _Read) -> CheckpointTokenizer:
    """SentencePiece itself; with added tokens that are text, which it does not know, AutoTokenizer's conversion.

    Raises ModelError where that one splits texts otherwise.
    """
    path, roles, stated = read.folder / MODEL_FILE, roles_of(read.folder), stated_tokens(read.folder)
    model = SentencePieceTokenizer(path, begins_with=())  # first: it tells what is wrong with the file
    _try_auto(read)
    for one in stated:
        if one.index < model.vocabulary_size and model.spelled(one.index) != one.text:
            raise ModelError(
                f"{read.folder / one.file} gives {one.text!r} the id {one.index}, which is "
                f"{model.spelled(one.index)!r} in {MODEL_FILE}: the files do not belong together; fetch them again"
            )
    more, special = beyond(stated, model.vocabulary_size), set(special_texts(read.folder))
    if [one.index for one in more] != list(range(model.vocabulary_size, model.vocabulary_size + len(more))):
        raise ModelError(
            f"{read.folder / more[0].file}: the ids of its tokens do not follow those of {MODEL_FILE}, which end at "
            f"{model.vocabulary_size - 1}; add a tokenizer.json to the folder"
        )
    differing = split_otherwise(lambda text: model.encode([text])[0], read.auto) if read.auto is not None else None
    texts = [one for one in more if not one.token.special and one.text not in special]
    if texts:
        as_auto = read.auto is not None and isinstance(getattr(read.auto, "backend_tokenizer", None), Tokenizer)
        unspaced = [text.lstrip() for text in SPECIMENS]  # a space in front is one less there
        if not as_auto or split_otherwise(lambda text: model.encode([text])[0], read.auto, unspaced) is not None:
            raise ModelError(
                f"{read.folder / texts[0].file} adds {texts[0].text!r} to the text that {MODEL_FILE} splits, and "
                f"AutoTokenizer does not split as {MODEL_FILE} does: add a tokenizer.json to the folder"
            )
        return _finished(read, read.auto.backend_tokenizer, roles)
    if differing is not None:
        read.notes.append(_splits_otherwise(read, MODEL_FILE, differing))
    prefix, source = _prefix(read, model.bos_id, None)
    extra = {one.index: one.text for one in more}
    eos = roles.get("eos_token")
    return SentencePieceTokenizer(
        path, begins_with=prefix, extra=extra, eos_token=eos, bos_source=source, notes=tuple(read.notes)
    )


def _huggingface(read: _Read) -> HuggingFaceTokenizer:
    checkpoint, folder = read.checkpoint, read.folder
    if checkpoint.gguf is not None:
        smollm = checkpoint.gguf.metadata.get("tokenizer.ggml.pre") == "smollm"
        backend, roles = _smollm(checkpoint.gguf) if smollm else _by_transformers(read)
        return _finished(read, backend, roles)
    if (folder / "tokenizer.json").is_file():
        backend, file = _from_json(folder / "tokenizer.json"), "tokenizer.json"
    elif checkpoint.model_type in _GPT2_FAMILIES and (folder / "merges.txt").is_file():
        backend, file = _gpt2(folder), "merges.txt"
    else:
        return _finished(read, *_by_transformers(read))
    _try_auto(read)
    add_stated(backend, folder)
    backend = _spaced_as_stated(backend, folder)
    if read.auto is not None:
        differing = split_otherwise(lambda text: backend.encode(text, add_special_tokens=False).ids, read.auto)
        if differing is not None:
            read.notes.append(_splits_otherwise(read, file, differing))
    return _finished(read, backend, roles_of(folder))


def _splits_otherwise(read: _Read, file: str, text: str) -> str:
    kind = f"{type(read.auto).__name__} of transformers {transformers.__version__}"
    return f"AutoTokenizer ({kind}) splits {text!r} otherwise than {file}, which is followed here"


def _finished(read: _Read, backend: Tokenizer, roles: dict[str, str]) -> HuggingFaceTokenizer:
    present = [token for token in roles.values() if backend.token_to_id(token) is not None]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in present])
    ids = {role: backend.token_to_id(token) for role, token in roles.items()}
    bos_id = ids.get("bos_token")
    prefix, source = _prefix(read, bos_id, _begun_by(backend))
    chat, eos_id = template_of(read.checkpoint, roles), ids.get("eos_token")
    return HuggingFaceTokenizer(
        backend, begins_with=prefix, eos_id=eos_id, chat=chat, bos_source=source, notes=tuple(read.notes)
    )


def _begun_by(backend: Tokenizer) -> list[int]:
    """What the tokenizer's own post-processor puts in front of a text."""
    return in_front(*(backend.encode("a", add_special_tokens=special).ids for special in (False, True)))


def _prefix(read: _Read, bos_id: int | None, of_files: Sequence[int] | None) -> tuple[list[int], str]:
    """The ids in front of a text, and what says so: the spec, else AutoTokenizer; notes where files say otherwise.

    of_files: what tokenizer.json's post-processor puts there; None where there is none. Raises ModelError where BOS is
    asked for and not named.
    """
    flag, said_by = stated_add_bos(read.checkpoint, read.spec)
    if flag and bos_id is None:
        where = f"the tokenizer in {read.folder} names no BOS token"
        raise ModelError(f"{said_by} asks for one, but {where}; set model.add_bos=false")
    by_flag = [bos_id] if flag and bos_id is not None else []
    if read.auto is None or read.spec.add_bos is not None:
        return (list(of_files or ()), OWN_RULE) if flag is None else (by_flag, said_by)
    prefix = begins_with(read.auto)
    kind = type(read.auto).__name__
    if flag is not None and by_flag != prefix:
        source = f"as AutoTokenizer ({kind}) has it, against {said_by}"
        value, own = str(flag).lower(), "puts one" if prefix else "puts none"
        read.notes.append(
            f"{said_by} is {value}, and AutoTokenizer ({kind}) {own}, as is done here; model.add_bos={value} goes by "
            f"the flag"
        )
        return prefix, source
    if flag is None and of_files is not None and list(of_files) != prefix:
        own = "a text with BOS" if prefix else "no text with BOS"
        read.notes.append(
            f"AutoTokenizer ({kind}) begins {own}, unlike the post-processor of tokenizer.json; set model.add_bos to "
            f"settle it"
        )
        return prefix, f"as AutoTokenizer ({kind}) has it, against tokenizer.json"
    if flag is None and of_files is None and not prefix and bos_id is not None:
        read.notes.append(
            f"nothing says whether a text begins with BOS: AutoTokenizer ({kind}) puts none, as is done here; set "
            f"model.add_bos=true for a model that was trained with one"
        )
    return prefix, OWN_RULE if flag is None else said_by


def _spaced_as_stated(backend: Tokenizer, folder: Path) -> Tokenizer:
    """With the space in front of a text that tokenizer_config.json states, where the splitting is byte-level."""
    path = folder / CONFIG
    wanted = read_json(path).get("add_prefix_space") if path.is_file() else None
    content = json.loads(backend.to_str())
    step = content["pre_tokenizer"]
    steps = step["pretokenizers"] if step and step["type"] == "Sequence" else [step]
    if not isinstance(wanted, bool) or not any(_differs(one, wanted) for one in steps):
        return backend
    for one in steps:
        if _differs(one, wanted):
            one["add_prefix_space"] = wanted
    return Tokenizer.from_str(json.dumps(content))


def _differs(step: dict[str, Any] | None, wanted: bool) -> bool:
    return step is not None and step["type"] == "ByteLevel" and step["add_prefix_space"] != wanted


def _from_json(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises no narrower type
        raise ModelError(f"{path} is broken ({error}): fetch it again") from error


def _gpt2(folder: Path) -> Tokenizer:
    """Byte-level BPE from vocab.json and merges.txt, as GPT-Neo and OPT ship it."""
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        backend = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the tokenizers library raises no narrower type
        raise ModelError(f"{vocabulary} and {merges.name} are missing or broken ({error})") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _by_transformers(read: _Read) -> tuple[Tokenizer, dict[str, str]]:
    """AutoTokenizer's own, for layouts that are not read here. Raises ModelError where it has no compiled backend."""
    checkpoint = read.checkpoint
    gguf = {"gguf_file": checkpoint.weight_files[0].name} if checkpoint.format == "gguf" else {}
    tokenizer = auto_tokenizer(checkpoint.folder, **gguf)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"{checkpoint.folder} has a {type(tokenizer).__name__}, which has no compiled backend: "
            f"add a tokenizer.json to the folder"
        )
    read.auto = None if gguf else tokenizer  # what begins a text of a GGUF file is told by its header
    return backend, {role: str(token) for role in ROLES if (token := getattr(tokenizer, role, None))}


def _smollm(header: GgufHeader) -> tuple[Tokenizer, dict[str, str]]:
    """SmolLM2's tokenizer from its GGUF file.

    A GGUF file names its splitting rule only ("smollm"), and transformers does not know this name: the
    tokenizer it builds loses the step that splits digits one by one and gives other ids for every number of
    two digits or more. The rule of the published tokenizer.json is individual digits, then byte-level words.
    """
    metadata = header.metadata
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in names.items()}
    return backend, {role: tokens[index] for role, index in ids.items() if index is not None}
