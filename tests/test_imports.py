"""The house's import direction, counted from the source's own import statements.

A room is a folder of `evalkit/`, or a module at its root. Rooms stand in layers; a room may import rooms of lower
layers only, so an arrow that runs backwards, and with it every circle of rooms, is a failure. Modules inside a room
make no circle either. `python tests/test_imports.py` prints the rooms and their arrows.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the ground up. Rooms of one layer do not import each other.
LAYERS = (
    ("errors", "machine"),
    ("types", "plugins"),
    ("prompts", "answers", "metrics", "protocols", "data", "sandbox", "engine", "configuration"),
    ("task", "models", "store"),
    ("backends", "sampling"),
    ("card", "workers"),
    ("report", "evaluation", "tasks"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
# What a task may know: it never sees a model, a run folder or a report.
SEEN_BY_TASKS = {
    *("types", "errors", "prompts", "answers", "metrics", "data", "protocols", "sandbox", "task", "tasks"),
}
AT_THE_ROOT = {"__init__", "__main__", "types", "errors", "task", "prompts", "answers", "metrics", "cli"}
HEAVY = {"torch", "transformers", "hydra", "omegaconf", "accelerate", "datasets", "pandas", "huggingface_hub"}
# Rooms that import nothing heavy when they are imported; what needs it takes it at its own door.
LIGHT = {
    *("types", "errors", "prompts", "answers", "metrics", "machine", "data", "sandbox", "store", "task"),
    *("protocols", "plugins", "sampling", "card", "report", "evaluation", "tasks", "cli"),
}


def modules() -> dict[str, Path]:
    """Every module of the package: its name below evalkit ("" for the package itself), and its file."""
    found = {}
    for folder, prefix in (("evalkit", ""), ("tasks", "tasks.")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[(prefix + ".".join(part for part in parts if part != "__init__")).removesuffix(".")] = path
    return found


def statements(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """A file's import statements, at its top level and inside functions; typing-only ones left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in typing_only:
            yield node


@cache
def arrows() -> Mapping[str, frozenset[str]]:
    """By module, the modules of evalkit that it imports, by their names below evalkit."""
    known = modules()
    found = {}
    for name, path in known.items():
        imported: set[str] = set()
        for node in statements(path):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif node.level:
                base = f"evalkit.tasks.{node.module or ''}".removesuffix(".")
                imported |= {f"{base}.{alias.name}" for alias in node.names}
            else:
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        own = (n.partition(".")[2] for n in imported if n.partition(".")[0] == "evalkit")
        # "data.pins.describe" is a name in the module "data.pins".
        found[name] = frozenset(n if n in known else n.rpartition(".")[0] for n in own) - {name}
    return found


def room(module: str) -> str:
    """The room of a module; "" for the package itself, whose version everybody may read."""
    return module.partition(".")[0]


def room_arrows() -> set[tuple[str, str]]:
    """(from, to) wherever a module of one room imports one of another."""
    found = {(room(a), room(b)) for a, imported in arrows().items() for b in imported}
    return {(a, b) for a, b in found if a != b and "" not in (a, b)}


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_every_room_has_a_place_among_the_layers() -> None:
    assert {room(name) for name in modules()} - {""} == {name for names in LAYERS for name in names}


def test_no_arrow_runs_backwards() -> None:
    backwards = {(a, b) for a, b in room_arrows() if layer(b) >= layer(a)}
    where = sorted(
        f"evalkit.{name} imports evalkit.{other}"
        for name, imported in arrows().items()
        for other in imported
        if (room(name), room(other)) in backwards
    )
    assert not where


def test_no_modules_make_a_circle() -> None:
    graphlib.TopologicalSorter({name: set(imported) for name, imported in arrows().items()}).prepare()


def test_at_the_root_stands_what_the_author_of_a_task_needs_and_the_front_door() -> None:
    assert {path.stem for path in (ROOT / "evalkit").glob("*.py")} == AT_THE_ROOT


def test_tasks_see_no_model_no_store_and_no_report() -> None:
    assert {b for a, b in room_arrows() if a == "tasks"} <= SEEN_BY_TASKS


def test_the_core_never_imports_a_task() -> None:
    assert not [a for a, b in room_arrows() if b == "tasks"]


def test_only_the_configuration_imports_hydra() -> None:
    def imports_hydra(path: Path) -> bool:
        names = (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            for node in statements(path)
        )
        return any(name.partition(".")[0] == "hydra" for of_one in names for name in of_one)

    assert {room(name) for name, path in modules().items() if imports_hydra(path)} == {"configuration"}


@pytest.mark.parametrize("name", sorted(LIGHT | {""}), ids=lambda name: name or "evalkit")
def test_importing_a_light_room_loads_nothing_heavy(name: str) -> None:
    inside = [m for m in modules() if room(m) == name and not m.startswith("sandbox.inside")]
    imported = ", ".join(f"evalkit.{module}".removesuffix(".") for module in inside)
    code = f"import sys, {imported}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


if __name__ == "__main__":
    pairs = room_arrows()
    for level, names in reversed(list(enumerate(LAYERS))):
        for name in names:
            sys.stdout.write(f"{level} {name:<14} -> {', '.join(sorted(b for a, b in pairs if a == name))}\n")
    backwards = sum(layer(b) >= layer(a) for a, b in pairs)
    rooms = sum(map(len, LAYERS))
    sys.stdout.write(f"{rooms} rooms, {len(pairs)} arrows, {backwards} of them backwards\n")
