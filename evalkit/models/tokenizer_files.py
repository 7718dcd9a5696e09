"""Building the tokenizer that a checkpoint's files describe, and nothing else than they describe.

tokenizer.json is read as it stands: transformers' tokenizer classes rebuild parts of it to their own liking.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from evalkit.errors import ModelError
from evalkit.models.chat import template_of
from evalkit.models.checkpoint import Checkpoint, read_json
from evalkit.models.gguf_file import GgufHeader
from evalkit.models.quiet import quiet
from evalkit.models.qwen import MODEL_TYPE as QWEN
from evalkit.models.qwen_tokenizer import load_qwen_tokenizer
from evalkit.models.sentencepiece_tokenizer import MODEL_FILE, SentencePieceTokenizer
from evalkit.models.spec import ModelSpec
from evalkit.models.taken import stated_add_bos
from evalkit.models.tokenizer import CheckpointTokenizer, HuggingFaceTokenizer

_GPT2_FAMILIES = {"gpt2", "gpt_neo", "gptj", "opt"}
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_CONTROL = 3  # ggml's type of a token that is never text


def load_tokenizer(checkpoint: Checkpoint, spec: ModelSpec) -> CheckpointTokenizer:
    """The checkpoint's tokenizer under the rules of the model's config.

    `tokenizer=auto` takes the kind that the files are of: Qwen's own, a SentencePiece model that comes alone,
    or one of the Hugging Face kind. Raises ModelError where it is missing or broken.
    """
    if spec.tokenizer == "qwen" or (spec.tokenizer == "auto" and checkpoint.model_type == QWEN):
        return load_qwen_tokenizer(checkpoint.folder, checkpoint.config, checkpoint.generation_config)
    names = {path.name for path in checkpoint.tokenizer_files}
    alone = MODEL_FILE in names and "tokenizer.json" not in names
    if spec.tokenizer == "sentencepiece" or (spec.tokenizer == "auto" and alone):
        add_bos = stated_add_bos(checkpoint, spec)[0]
        # Llama's rule where nothing is stated
        return SentencePieceTokenizer(checkpoint.folder / MODEL_FILE, add_bos=add_bos is None or add_bos)
    return _huggingface(checkpoint, spec)


def _huggingface(checkpoint: Checkpoint, spec: ModelSpec) -> HuggingFaceTokenizer:
    if checkpoint.gguf is not None and checkpoint.gguf.metadata.get("tokenizer.ggml.pre") == "smollm":
        backend, roles = _smollm(checkpoint.gguf)
    elif checkpoint.format != "gguf" and (checkpoint.folder / "tokenizer.json").is_file():
        backend, roles = _from_json(checkpoint.folder / "tokenizer.json"), _roles(checkpoint.folder)
    elif checkpoint.model_type in _GPT2_FAMILIES and (checkpoint.folder / "merges.txt").is_file():
        backend, roles = _gpt2(checkpoint.folder), _roles(checkpoint.folder)
    else:
        backend, roles = _by_transformers(checkpoint)
    present = [token for token in roles.values() if backend.token_to_id(token) is not None]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in present])
    ids = {role: backend.token_to_id(token) for role, token in roles.items()}
    bos_id = ids.get("bos_token")
    add_bos, said_by = stated_add_bos(checkpoint, spec)
    if add_bos is None:
        add_bos = _adds_bos(backend, bos_id)
    if add_bos and bos_id is None:
        where = f"the tokenizer in {checkpoint.folder} names no BOS token"
        raise ModelError(f"{said_by} asks for one, but {where}; set model.add_bos=false")
    chat, eos_id = template_of(checkpoint, roles), ids.get("eos_token")
    return HuggingFaceTokenizer(backend, bos_id=bos_id if add_bos else None, eos_id=eos_id, chat=chat)


def _adds_bos(backend: Tokenizer, bos_id: int | None) -> bool:
    """Whether the tokenizer's own post-processor begins a text with BOS."""
    return bos_id is not None and backend.encode("a", add_special_tokens=True).ids[:1] == [bos_id]


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


def _roles(folder: Path) -> dict[str, str]:
    """Which token is BOS, EOS and so on, as the folder's small files name them."""
    roles: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            content = read_json(folder / name)
            roles |= {role: _spelling(content[role]) for role in _ROLES if content.get(role)}
    return roles


def _spelling(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _by_transformers(checkpoint: Checkpoint) -> tuple[Tokenizer, dict[str, str]]:
    gguf = {"gguf_file": checkpoint.weight_files[0].name} if checkpoint.format == "gguf" else {}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(checkpoint.folder), trust_remote_code=False, local_files_only=True, **gguf
            )
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{checkpoint.folder} has no tokenizer that can be read ({reason}): fetch its tokenizer files"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"{checkpoint.folder} has a {type(tokenizer).__name__}, which has no compiled backend: "
            f"add a tokenizer.json to the folder"
        )
    return backend, {role: str(token) for role in _ROLES if (token := getattr(tokenizer, role, None))}


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
