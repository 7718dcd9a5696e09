"""Conversations as text: a checkpoint's own chat template, rendered by transformers' own renderer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from evalkit.data.text import read_text
from evalkit.errors import ModelError
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.small_files import read_json

TEMPLATE_FILE = "chat_template.jinja"
_STAND_INS = 0xF0000  # the first of Unicode's second private area


@dataclass(frozen=True)
class ChatTemplate:
    """How a checkpoint writes a conversation."""

    where: str  # the checkpoint's folder or file, for messages
    source: str | None = None  # Jinja2; None where the checkpoint has none
    tokens: Mapping[str, str] = field(default_factory=dict)  # what the template calls bos_token, eos_token …

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """The conversation's text up to where the assistant's next turn begins; turns: (role, text).

        Raises ModelError where there is no template, and where it refuses the conversation.
        """
        if self.source is None:
            raise ModelError(
                f"{self.where} has no chat template; ask without one, or put {TEMPLATE_FILE} beside its tokenizer"
            )
        # Here, since transformers is slow to import, and most runs hold no conversation.
        from transformers.utils.chat_template_utils import render_jinja_template

        messages = [{"role": role, "content": text} for role, text in turns]
        settings: dict[str, Any] = {**self.tokens, "chat_template": self.source, "add_generation_prompt": True}
        try:
            rendered: Any = render_jinja_template([messages], **settings)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"the chat template of {self.where} does not take the conversation: {reason}") from error
        return str(rendered[0][0])


def template_of(checkpoint: Checkpoint, tokens: Mapping[str, str]) -> ChatTemplate:
    """The template that a checkpoint's files hold. tokens: by role, "bos_token" …, as its files name them."""
    where = checkpoint.folder if checkpoint.gguf is None else checkpoint.weight_files[0]
    stated = stated_template(checkpoint)
    return ChatTemplate(str(where), stated[0] if stated else None, tokens)


def stated_template(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """A checkpoint's template, and which of its files holds it; None where none does.

    chat_template.jinja goes before tokenizer_config.json, and of several named templates there the one called
    "default", as transformers has it.
    """
    if checkpoint.gguf is not None:
        key = "tokenizer.chat_template"
        return _stated(checkpoint.gguf.metadata.get(key), f"{key} of the header")
    if (path := checkpoint.folder / TEMPLATE_FILE).is_file():
        return read_text(path, "fetch it again from its publisher"), path.name
    path = checkpoint.folder / "tokenizer_config.json"
    source = read_json(path).get("chat_template") if path.is_file() else None
    if isinstance(source, list):
        source = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
    return _stated(source.get("default") if isinstance(source, dict) else source, path.name)


def _stated(source: Any, place: str) -> tuple[str, str] | None:
    return (source, place) if isinstance(source, str) else None


@dataclass(frozen=True)
class StandIns:
    """Characters that stand for special tokens' strings where these are to stay text."""

    special: tuple[str, ...]  # the strings

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or r"(?!)")

    @cached_property
    def _by_string(self) -> dict[str, str]:
        return {string: chr(_STAND_INS + number) for number, string in enumerate(self.special)}

    @cached_property
    def _back(self) -> dict[int, str]:
        return {ord(character): string for string, character in self._by_string.items()}

    def put(self, text: str) -> str:
        """The text with a character in place of each special string. Raises ModelError where it holds such already."""
        if self.present(text):
            raise ModelError(f"a text to be put in a chat template holds characters from U+{_STAND_INS:X} on")
        return self._pattern.sub(lambda match: self._by_string[match[0]], text)

    def present(self, text: str) -> bool:
        """Whether there are any."""
        return not text.isascii() and any(ord(character) in self._back for character in text)

    def undo(self, text: str) -> str:
        """The strings in their places again."""
        return text.translate(self._back)

    def pieces(self, text: str) -> list[tuple[bool, str]]:
        """The text cut at special strings: (is it one?, piece); empty pieces left out."""
        found: list[tuple[bool, str]] = []
        end = 0
        for match in self._pattern.finditer(text):
            found += [(False, text[end : match.start()]), (True, match[0])]
            end = match.end()
        return [(special, piece) for special, piece in [*found, (False, text[end:])] if piece]
