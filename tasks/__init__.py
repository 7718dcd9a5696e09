"""The benchmarks. Each module reads top to bottom: a raw row, the protocol, the published number."""

from pathlib import Path

HOME = Path(__file__).parent  # holds bundled/ (small sets in the publishers' layouts) and pins/ (row digests)
