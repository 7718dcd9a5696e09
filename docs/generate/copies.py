"""Pages that are files of the project: the changelog, and reports as a run wrote them."""

from pathlib import Path

import mkdocs_gen_files

ROOT = Path(__file__).parent.parent.parent
COPIES = {
    "changelog.md": "CHANGELOG.md",
    "example-quickstart.md": "results/examples/quickstart/smollm2-135m/report.md",
    "example-protocols.md": "results/examples/protocols/smollm2-135m/report.md",
}

if __name__ == "<run_path>":  # as mkdocs-gen-files runs it
    for name, source in COPIES.items():
        with mkdocs_gen_files.open(name, "w") as file:
            file.write((ROOT / source).read_text(encoding="utf-8"))
