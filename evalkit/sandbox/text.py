"""Text from a program made fit for records, terminals and reports."""

MAX_DETAIL = 500
MAX_HEAD = 2000


def printable(text: str, limit: int) -> str:
    """At most `limit` characters, all printable but for line ends and tabs; others as \\x.., \\u.... escapes.

    No control character, escape sequence, NUL or lone surrogate survives. Markup is the report's to escape.
    """
    kept = [c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text[:limit]]
    return "".join(kept)[:limit]


def decoded(data: bytes, limit: int) -> str:
    """Bytes a program printed, as printable text."""
    return printable(data[: 4 * limit].decode("utf-8", "backslashreplace"), limit)
