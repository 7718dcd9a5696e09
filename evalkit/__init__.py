"""evalkit: does a published model card reproduce?

`python -m evalkit task=ceval model=qwen-1_8b` runs a benchmark under the card's own protocol and sets the
result beside the published number. Importing this package loads neither torch nor hydra.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).parent
# Installed, evalkit.tasks and evalkit.configs lie inside this package; in a checkout that was not installed
# they are its sibling folders.
if not (_HERE / "tasks").is_dir():
    __path__.append(str(_HERE.parent))

FORMER_NAMES = {"noise": ("ties",), "recheck": ("ties", "--float32"), "draw": ("sample",)}  # of commands


class _CommandsAsModules:
    """Lets `python -m evalkit.gate` be `evalkit gate`, for every command, also where a package has the same name.

    Python asks it last, for names that are no module's own.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        command = rest.removesuffix(".__main__")
        if package != "evalkit" or not (command in FORMER_NAMES or (_HERE / "commands" / f"{command}.py").is_file()):
            return None
        return spec_from_file_location(name, _HERE / "__main__.py")


sys.meta_path.append(_CommandsAsModules)
