"""What transformers' AutoTokenizer makes of a folder, to be held against: how it begins a text, how it splits one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig

from evalkit.errors import ModelError
from evalkit.models.quiet import quiet

# What tokenizers are known to differ on: digits, runs of spaces, a space in front, line ends, composed and decomposed
# letters, other scripts.
SPECIMENS = (
    "Answer: 1,024 and 3.05, x = 12 + 30?",
    " def add(a, b):\n    return a  +  b\n\n\n",
    "问题：下列哪一项是正确的？\nA. 北京\n答案：",
    "it's é e\u0301 ½ ①② 🙂\ttab\r\n",
)


def auto_tokenizer(folder: Path, **files: str) -> Any:
    """AutoTokenizer's own. Raises ModelError where it makes none of the folder.

    files: gguf_file, where the tokenizer is in one.
    """
    config = {} if files or (folder / "config.json").is_file() else {"config": PreTrainedConfig()}
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True, **files, **config
            )
    except Exception as error:  # the tokenizers library below it raises no narrower type
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{folder} has no tokenizer that can be read ({reason}): fetch its tokenizer files") from error


def begins_with(auto: Any) -> list[int]:
    """The ids that AutoTokenizer's tokenizer puts in front of a text."""
    with quiet():
        return in_front(auto.encode("a", add_special_tokens=False), auto.encode("a"))


def in_front(plain: Sequence[int], whole: Sequence[int]) -> list[int]:
    """What stands in front of a text's own ids in the ids that a model is given; none where they are not found."""
    text, given = list(plain), list(whole)
    start = next((place for place in range(len(given)) if given[place : place + len(text)] == text), 0)
    return given[:start]


def split_otherwise(encode: Callable[[str], Sequence[int]], auto: Any, texts: Sequence[str] = SPECIMENS) -> str | None:
    """The first text that AutoTokenizer's tokenizer splits into other ids; None where there is none."""
    with quiet():
        found = (text for text in texts if list(encode(text)) != list(auto.encode(text, add_special_tokens=False)))
        return next(found, None)
