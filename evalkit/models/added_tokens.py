"""The tokens that a folder's small files add to its vocabulary: added_tokens.json, tokenizer_config.json.

They are read as transformers reads them: `added_tokens_decoder` of tokenizer_config.json where it is there, else
added_tokens.json, in which a token is special where another file names it as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from evalkit.errors import ModelError
from evalkit.models.small_files import json_in

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_OTHER_ROLES = ("sep_token", "cls_token", "mask_token")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@dataclass(frozen=True)
class Stated:
    """One added token, as a file has it."""

    index: int
    token: AddedToken
    file: str

    @property
    def text(self) -> str:
        """How it is spelled."""
        return self.token.content


def stated_tokens(folder: Path) -> list[Stated]:
    """Every token that a folder's small files add, by its id. Raises ModelError for an entry that is none."""
    decoder = json_in(folder, CONFIG).get("added_tokens_decoder")
    if decoder is not None:
        where = f"{folder / CONFIG}: added_tokens_decoder"
        if not isinstance(decoder, dict):
            raise ModelError(f"{where} is no JSON object of ids; fetch the file again")
        return sorted((_of_decoder(where, *entry) for entry in decoder.items()), key=lambda stated: stated.index)
    special, found = set(special_texts(folder)), []
    for text, index in json_in(folder, ADDED).items():
        if not isinstance(index, int) or isinstance(index, bool):
            raise ModelError(f"{folder / ADDED}: {text!r} has {index!r} where its id belongs; fetch the file again")
        token = AddedToken(text, normalized=text not in special, special=text in special)
        found.append(Stated(index, token, ADDED))
    return sorted(found, key=lambda stated: stated.index)


def _of_decoder(where: str, index: str, entry: Any) -> Stated:
    if not index.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise ModelError(f"{where}: {index!r} is no id with a token's content; fetch the file again")
    flags = {flag: bool(entry[flag]) for flag in _FLAGS if flag in entry}
    return Stated(int(index), AddedToken(entry["content"], **flags), CONFIG)


def roles_of(folder: Path) -> dict[str, str]:
    """Which token is BOS, EOS and so on, as the folder's small files name them."""
    roles: dict[str, str] = {}
    for content in (json_in(folder, MAP), json_in(folder, CONFIG)):
        roles |= {role: spelling(content[role]) for role in ROLES if content.get(role)}
    return roles


def special_texts(folder: Path) -> list[str]:
    """Every token that the small files name as a special one."""
    found: list[str] = []
    for content in (json_in(folder, MAP), json_in(folder, CONFIG)):
        found += [spelling(content[role]) for role in (*ROLES, *_OTHER_ROLES) if content.get(role)]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            several = content.get(key) or []
            found += map(spelling, several.values() if isinstance(several, dict) else several)
    return list(dict.fromkeys(found))


def spelling(token: Any) -> str:
    """A token's text, whether a file has it alone or with its flags."""
    return str(token["content"] if isinstance(token, dict) else token)


def add_stated(backend: Tokenizer, folder: Path) -> None:
    """Give a tokenizer the tokens of the folder's small files. Raises ModelError where one gets another id than stated.

    What tokenizer.json says of a token itself stays as it says it.
    """
    own = {token.content for token in backend.get_added_tokens_decoder().values()}
    special = special_texts(folder)
    for stated in stated_tokens(folder):
        if stated.text not in own:
            is_special = stated.token.special or stated.text in special
            (backend.add_special_tokens if is_special else backend.add_tokens)([stated.token])
        if (index := backend.token_to_id(stated.text)) != stated.index:
            raise ModelError(
                f"{folder / stated.file} gives {stated.text!r} the id {stated.index}, and beside the other files of "
                f"its tokenizer it would be {index}: the files do not belong together; fetch them again"
            )
    present = [text for text in special if backend.token_to_id(text) is not None]
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in present])


def beyond(stated: Sequence[Stated], size: int) -> list[Stated]:
    """Those behind a vocabulary of so many tokens."""
    return [one for one in stated if one.index >= size]
