"""Fetch what the report's page takes from npm: `make vendor`, after a version in requirements/page.json was changed.

Each package is fetched by `npm pack` from wherever npm is set up to look, held against the hash that page.json pins,
and the files named there are copied into the tree with the package's licence. With --pin the hashes are written anew.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = Path(__file__).with_name("page.json")


def fetched(name: str, version: str, folder: Path) -> Path:
    """The archive of one package."""
    command = ["npm", "pack", "--silent", f"{name}@{version}", "--pack-destination", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / done.stdout.split()[-1]


def integrity(content: bytes) -> str:
    """The hash as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def vendor(package: dict[str, str], files: dict[str, str], *, pin: bool) -> None:
    """Copy the files of one package. files: {path in the package: path in this tree}."""
    with tempfile.TemporaryDirectory() as folder:
        archive = fetched(package["name"], package["version"], Path(folder))
        found = integrity(archive.read_bytes())
        if pin:
            package["integrity"] = found
        elif found != package["integrity"]:
            sys.exit(f"{package['name']} {package['version']}: {found} instead of {package['integrity']}")
        with tarfile.open(archive) as content:
            for inside, outside in files.items():
                member = content.extractfile(f"package/{inside}")
                assert member is not None, f"{package['name']} has no {inside}"
                target = ROOT / outside
                target.parent.mkdir(parents=True, exist_ok=True)
                # Whatever a package's file says of a source map lies outside this tree.
                lines = [line for line in member.read().splitlines() if not line.startswith(b"//# sourceMappingURL=")]
                target.write_bytes(b"\n".join(lines) + b"\n")


def main() -> None:
    """Fetch all of them."""
    pins = json.loads(PINS.read_text(encoding="utf-8"))
    for package in pins["packages"]:
        vendor(package, package["files"], pin="--pin" in sys.argv)
        for outside in package["files"].values():
            sha = hashlib.sha256((ROOT / outside).read_bytes()).hexdigest()
            if "--pin" in sys.argv:
                package.setdefault("sha256", {})[outside] = sha
            elif sha != package["sha256"][outside]:
                sys.exit(f"{outside}: not what is pinned")
    if "--pin" in sys.argv:
        PINS.write_text(json.dumps(pins, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
