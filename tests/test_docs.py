"""README and docs/: short, no dead link, no verb, command, key or file that is not there, references made of the code."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from evalkit.tasks.protocols import SWITCHES, protocols_of

from evalkit.cli import COMMANDS
from evalkit.commands.protocols import markdown

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
MADE = {"changelog.md", "example-quickstart.md", "example-protocols.md"}  # copied while the site is built
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED_FILE = re.compile(r"`((?:evalkit|tasks|tests|configs|docs)/[a-z0-9_./-]+)`")


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub and mkdocs make them of plain words."""
    headings = re.findall(r"^#+ +(.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[ -]+", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip()) for heading in headings}


def links(page: Path) -> Iterator[str]:
    """What a page links to, code left out."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from (target for target in _LINK.findall(text) if "://" not in target)


def code(page: Path) -> Iterator[str]:
    """What a page shows as code: the lines of its blocks, and the words between backticks."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCE.findall(text):
        yield from block.splitlines()[1:-1]
    yield from re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of docs/generate/ as a module; mkdocs itself is not needed."""

    def load(name: str) -> ModuleType:
        monkeypatch.setitem(sys.modules, "mkdocs_gen_files", ModuleType("mkdocs_gen_files"))
        spec = importlib.util.spec_from_file_location(f"generate_{name}", DOCS / "generate" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_readme_is_a_front_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if page.parent == DOCS and name in MADE:
            continue
        assert target.exists(), link
        if anchor and target.name not in ("keys.md", "commands.md", "switches.md"):
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_command_named_exists(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in code(page):
        for verb in re.findall(r"(?:^|[ `$])make ([a-z][a-z-]*)", line):
            assert verb in verbs, line
        for word in re.findall(r"(?:^|[ `$])evalkit ([a-z][a-z_]*)(?= |$)", line):
            assert word in COMMANDS, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_project_named_exists(page: Path) -> None:
    for name in _NAMED_FILE.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        assert (ROOT / name).exists(), name


def test_every_page_is_in_the_sites_contents() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE))
    assert listed == {page.name for page in DOCS.glob("*.md")} | MADE


def test_the_page_of_keys_has_every_file_and_key_of_the_configuration(generated: Any) -> None:
    text = "\n".join(generated("keys").page())
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        assert path.name == "config.yaml" or path.stem in text, path
        for key in config:
            assert key in ("_target_", "_convert_", "hydra", "defaults") or f"{key}`" in text or f"{key}." in text, key


def test_the_page_of_commands_has_every_command_and_option(generated: Any) -> None:
    page = generated("commands")
    text = "\n".join(page.page(COMMANDS))
    for name in COMMANDS:
        assert f"\n## evalkit {name} " in text
    assert "| `--card CARD` |  |" in text


def test_the_page_of_switches_has_what_the_command_prints(generated: Any) -> None:
    text = "\n".join(generated("switches").page({name: protocols_of(name) for name in SWITCHES}))
    for task in SWITCHES:
        assert "\n".join(list(markdown(protocols_of(task)))[1:]) in text, task


def blocks(page: str, language: str) -> list[str]:
    """A page's blocks of code in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.mark.slow
def test_the_tasks_in_yaml_run_as_they_stand(tmp_path: Path) -> None:
    page = "tasks-in-yaml.md"
    names = ("pets", "stories", "sums")
    rows = dict(
        zip(("pets.csv", "stories.jsonl", "sums.jsonl"), blocks(page, "csv") + blocks(page, "jsonl"), strict=True)
    )
    files = rows | {f"conf/task/{name}.yaml": text for name, text in zip(names, blocks(page, "yaml"), strict=True)}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    asked = {"pets": (6, "[-1,-2,-3,-4]"), "stories": (3, "[-1,-2,-3]"), "sums": (3, "[0]")}
    for name, (number, logprobs) in asked.items():
        words = [f"task={name}", "model=smollm2-135m", "backend=scripted", f"backend.logprobs={logprobs}"]
        command = [sys.executable, "-m", "evalkit", "--config-dir", "conf", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert re.search(rf"^{name} +smollm2-135m.* {number} .*no published number$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_examples_of_an_own_task_card_and_model_run_as_they_stand(tmp_path: Path) -> None:
    rows = next(block for block in blocks("adding-tasks.md", "") if '"number"' in block)
    files = {
        "parity.jsonl": rows,
        "parity.py": blocks("adding-tasks.md", "python")[0],
        "conf/task/parity.yaml": blocks("adding-tasks.md", "yaml")[0],
        "conf/card/my-card.yaml": blocks("adding-cards.md", "yaml")[0],
        "conf/model/my-llama.yaml": blocks("adding-models.md", "yaml")[0],
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    chosen = ["task=parity", "model=my-llama", "model.name=smollm2-135m", "card=my-card"]
    scripted = ["backend=scripted", "backend.logprobs=[-1,-2]"]  # even, whatever the number
    command = [sys.executable, "-m", "evalkit", "--config-dir", "conf", *chosen, *scripted]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Parity +smollm2-135m +50\.0 .* 37\.5 +\+12\.5 +cannot tell$", done.stdout, re.MULTILINE)
    verified = [sys.executable, "-m", "evalkit", "verify", "results/smollm2-135m/parity"]
    assert subprocess.run(verified, cwd=tmp_path, capture_output=True, check=False).returncode == 0
