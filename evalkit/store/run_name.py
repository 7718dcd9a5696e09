"""What a run is called among the runs of its model: its folder, and how two runs are known for the same test."""

DEFAULT_PROTOCOL = "qwen"  # its runs go by the benchmark's name alone


def run_name(task: str, protocol: str) -> str:
    """`mmlu` under the default protocol, `mmlu@lm-eval` under another.

    ":" of a protocol with a switch set is written "=", which every file system takes.
    """
    return task if protocol == DEFAULT_PROTOCOL else f"{task}@{protocol.replace(':', '=').replace('/', '_')}"


def task_of(name: str) -> str:
    """The benchmark of a run's name."""
    return name.partition("@")[0]
