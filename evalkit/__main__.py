"""`python -m evalkit`: the same as the console script `evalkit`.

`python -m evalkit.gate` runs this file, too (see evalkit/__init__.py): the module's name is then the command.
"""

import sys

from evalkit.cli import main

if __name__ == "__main__":
    name = __spec__.name.split(".")[1] if __spec__ else "__main__"
    if name != "__main__":
        sys.argv.insert(1, name)
    sys.exit(main())
