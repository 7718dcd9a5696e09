"""No file depends on the locale: every open in text mode names its encoding."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "evalkit").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])


def openings(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that open a file as text."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)  # read_text of a path; the data room's takes no encoding
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = (*node.args, *(k.value for k in node.keywords))
        modes = [part.value for value in given for part in ast.walk(value) if isinstance(part, ast.Constant)]
        binary = any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)
        opens = name in (("open", "fdopen", "read_text", "write_text") if is_method else ("open", "fdopen"))
        if opens and not binary and ast.unparse(node.func) != "os.open":
            yield node


def names_encoding(call: ast.Call) -> bool:
    words = [k.arg for k in call.keywords]
    given = [a.value for a in call.args if isinstance(a, ast.Constant)]
    return "encoding" in words or any(value in ("utf-8", "ascii", "latin-1") for value in given)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_file_is_opened_with_its_encoding_named(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    forgotten = [f"line {call.lineno}: {ast.unparse(call)}" for call in openings(tree) if not names_encoding(call)]
    assert not forgotten


def test_the_check_sees_an_encoding_that_is_not_named() -> None:
    source = "path.read_text()\nopen(x)\nopen(x, 'w')\nopen(x, 'rb')\npath.open('a', encoding='ascii')\nos.open(x, 1)\n"
    assert [call.lineno for call in openings(ast.parse(source)) if not names_encoding(call)] == [1, 2, 3]
