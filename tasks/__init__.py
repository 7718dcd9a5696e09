"""The benchmarks. Each module reads top to bottom: a raw row, the protocol, the published number."""
