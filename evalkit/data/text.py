"""The one reader of text files that people edit: UTF-8, or one line that says what the file is instead."""

from pathlib import Path

from evalkit.errors import DataError

_MARK = "\ufeff"  # a byte order mark, as it is decoded
# What begins like this is no text, or not the file that was meant. The longer beginnings come first.
_KINDS = (
    (b"\xff\xfe\x00\x00", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text (a spreadsheet's Unicode text)"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"PK\x03\x04", "a zip archive (an .xlsx file is one)"),
    (b"\xd0\xcf\x11\xe0", "an old Office file (.xls)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x00\x05\x16\x07", "a resource fork that macOS leaves beside a file"),
    (b"version https://git-lfs", "a Git LFS pointer, whose content is elsewhere"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)


def read_text(path: Path, mend: str) -> str:
    """A file's text, as `decoded` has it. Raises DataError, too, where it is missing or cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {mend}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return decoded(content, path, mend)


def decoded(content: bytes, where: object, mend: str) -> str:
    """A file's bytes as text: a byte order mark in front goes, all else stays as it is, line ends too.

    where: the file, for messages; mend: what helps. Raises DataError where it is no UTF-8 text, saying what it is.
    """
    start = content[:64].lower() if content[:1] == b"<" else content[:64]
    if kind := next((kind for begin, kind in _KINDS if start.startswith(begin)), None):
        raise DataError(f"{where} is not UTF-8 text, it is {kind}; save it as UTF-8, or {mend}")
    if (place := content.find(b"\0")) >= 0:
        raise DataError(
            f"{where} is not UTF-8 text: byte {place} is zero, as in UTF-16 or a binary file; save it as UTF-8, or "
            f"{mend}"
        )
    try:
        return content.decode("utf-8").lstrip(_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        odd = f"byte 0x{content[error.start]:02x} on line {line}"
        raise DataError(f"{where} is not UTF-8 ({odd}){_guess(content)}; save it as UTF-8, or {mend}") from None


def with_line_feeds(text: str) -> str:
    """The text with CR LF and CR made LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _guess(content: bytes) -> str:
    """Which other encoding it may be; empty where nothing speaks for one."""
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    outside = [character for character in text if ord(character) > 0x7F]
    chinese = sum("\u3000" <= c <= "\u9fff" or "\uff00" <= c <= "\uffef" for c in outside)
    return ", it reads as GBK" if chinese * 2 > len(outside) else ""
