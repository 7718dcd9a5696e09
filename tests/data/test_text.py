"""Text files are UTF-8, or one line says what they are."""

from pathlib import Path

import pytest

from evalkit.data.text import decoded, read_text
from evalkit.errors import DataError

CHINESE = "许多公司，目前都为雇员"


def test_a_byte_order_mark_goes_and_line_ends_stay() -> None:
    assert decoded(b"\xef\xbb\xbfa\r\nb\xef\xbb\xbf", "f", "m") == "a\r\nb\ufeff"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CHINESE.encode("utf-16"), "f is not UTF-8 text, it is UTF-16 text"),
        (CHINESE.encode("utf-32"), "f is not UTF-8 text, it is UTF-32 text"),
        ("abc".encode("utf-16-le"), "f is not UTF-8 text: byte 1 is zero, as in UTF-16"),
        (f"a\n{CHINESE}".encode("gbk"), "f is not UTF-8 (byte 0xd0 on line 2), it reads as GBK; save it as UTF-8, or m"),
        ("caf\xe9 au lait, d\xe9j\xe0".encode("latin-1"), "f is not UTF-8 (byte 0xe9 on line 1); save it"),
        (b"PK\x03\x04...", "it is a zip archive (an .xlsx file is one)"),
        (b"<!DOCTYPE HTML><p>404", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_called_what_it_is(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as refused:
        decoded(content, "f", "m")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt is missing; name another"):
        read_text(tmp_path / "none.txt", "name another")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_text(tmp_path, "name another")
