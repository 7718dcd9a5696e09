"""evalkit: does a published model card reproduce?

`python -m evalkit task=ceval model=qwen-1_8b` runs a benchmark under the card's own protocol and sets the
result beside the published number. Importing this package loads neither torch nor hydra.
"""

from pathlib import Path

__version__ = "0.1.0"

# Installed, evalkit.tasks and evalkit.configs lie inside this package; in a checkout that was not installed
# they are its sibling folders.
if not (Path(__file__).parent / "tasks").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
