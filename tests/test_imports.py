"""The house's import direction, read from the source's own import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = "types errors prompts answers metrics data pins sandbox durable records store task protocols sharing graders run_name subset engine.plan engine.scheduler".split()
HEAVY = {"torch", "transformers", "hydra", "omegaconf", "accelerate"}
# room: what of evalkit it may import
ALLOWED = {
    "types": {""},
    "errors": {""},
    "prompts": {"types", "errors"},
    "answers": {"types", "errors"},
    "metrics": {"types", "errors"},
    "data": {"types", "errors", "data"},
    "pins": {"types", "errors", "data"},
    "protocols": {"types", "errors"},
    "sharing": {"types", "errors"},
    "task": {"types", "errors", "protocols"},
    "graders": {"types", "errors", "task", "sharing"},
    "durable": {"types", "errors"},
    "records": {"types", "errors"},
    "store": {"types", "errors", "durable", "records"},
    "rescore": {"types", "errors", "store"},
    "sandbox": {"types", "errors", "sandbox"},
    "engine": {"types", "errors", "engine"},
    "models": {"types", "errors", "models"},
    "backends": {"types", "errors", "models", "engine", "backends"},
    "ranks": {"types", "errors", "records", "interrupt", "models", "backends", "meter", "ranks"},
    "run_name": set(),
    "subset": {"types", "errors"},
    "meter": {"store"},
    "evaluate": {"types", "errors", "task", "store", "backends", "meter", "subset"},
    "manifest": {
        "types",
        "errors",
        "pins",
        "task",
        "store",
        "backends",
        "evaluate",
        "provenance",
        "run_name",
        "subset",
    },
    "provenance": {"types", "errors", ""},
    "report": {"types", "errors", "metrics", "report", "run_name"},
    "tasks": {
        "types",
        "errors",
        "prompts",
        "answers",
        "metrics",
        "data",
        "pins",
        "sandbox",
        "protocols",
        "task",
        "tasks",
    },
}


def modules() -> list[tuple[str, Path]]:
    """Every module of the package as (name below evalkit, file)."""
    found = []
    for folder, prefix in (("evalkit", ""), ("tasks", "tasks.")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((prefix + ".".join(part for part in parts if part != "__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports at its top level or inside functions, typing-only ones left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("evalkit.tasks" if node.level else str(node.module))
    return names


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name or "evalkit" for name, _ in modules()])
def test_a_room_imports_only_what_lies_below_it(name: str, path: Path) -> None:
    room = name.split(".")[0]
    if room not in ALLOWED or name in ("data.__main__", "protocols.__main__"):
        return  # cli, run and the commands: everything
    own = {n.removeprefix("evalkit").lstrip(".").split(".")[0] for n in imports(path) if n.split(".")[0] == "evalkit"}
    assert own <= ALLOWED[room], f"evalkit.{name} imports {sorted(own - ALLOWED[room])}"


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name or "evalkit" for name, _ in modules()])
def test_leaves_import_neither_torch_nor_hydra(name: str, path: Path) -> None:
    if any(name == leaf or name.startswith(f"{leaf}.") for leaf in (*LEAVES, "tasks", "report")):
        heavy = {n.split(".")[0] for n in imports(path)} & HEAVY
        assert not heavy, f"evalkit.{name} imports {sorted(heavy)}"


def test_only_the_command_line_imports_hydra() -> None:
    users = {name for name, path in modules() if "hydra" in {n.split(".")[0] for n in imports(path)}}
    assert users == {"cli"}


def test_the_core_never_imports_a_task() -> None:
    for name, path in modules():
        if not name.startswith("tasks"):
            assert not any(n.startswith("evalkit.tasks") for n in imports(path)), name


@pytest.mark.parametrize("module", ["evalkit", "evalkit.tasks.mmlu", "evalkit.evaluate", "evalkit.report.markdown"])
def test_importing_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
