"""Adds to switches.md what `evalkit protocols` prints: every switch, its value in every protocol, what they mean."""

from collections.abc import Iterator, Mapping

import mkdocs_gen_files
from evalkit.tasks.protocols import SWITCHES, protocols_of

from evalkit.commands.protocols import markdown
from evalkit.protocols import Protocols


def page(tables: Mapping[str, Protocols]) -> Iterator[str]:
    """A section for each task."""
    for name, table in tables.items():
        yield f"\n## {name}\n"
        lines = list(markdown(table))
        assert lines[0].startswith(f"**{name}**"), lines[0]  # its title, which the section's heading is here
        yield from lines[1:]


if __name__ == "<run_path>":  # as mkdocs-gen-files runs it
    with mkdocs_gen_files.open("switches.md", "a") as file:
        file.write("\n".join(page({name: protocols_of(name) for name in SWITCHES})) + "\n")
