"""`evalkit --help`: runs and commands on one page."""

from collections.abc import Iterator, Mapping
from textwrap import fill

from evalkit import plugins
from evalkit.configuration.groups import groups, top_level_keys

_PAGE = """\
evalkit: does a published model card reproduce?

A run: evalkit KEY=VALUE…  The same command again goes on where it stopped.

{examples}

A tool: evalkit COMMAND …; evalkit COMMAND --help says more

{commands}

Groups (GROUP=NAME)

{groups}

Keys (KEY=VALUE); evalkit --cfg job prints all of them with their values

{keys}

Exit codes: 0 done, 1 the model could not be run to the end, 2 wrong usage, 3 data or model missing or not what was
pinned, 4 a regression gate failed, 5 two runs that cannot be compared, 130 interrupted (resumable).
"""
_WIDTH = 47  # of most of the examples
_DEEPER_KEYS = (
    ("model.…", "path (hub id, folder or .gguf), name, revision, dtype, device, device_map, weights, max_length"),
    ("tasks.NAME.…", "split, num_fewshot, protocol; NAME+SWITCH:VALUE flips one switch: evalkit protocols lists them"),
    ("backend.…", "max_batch_tokens, num_checked, prompt_lookup, cuda_graphs; url, concurrency, … with backend=openai"),
)


def text(commands: Mapping[str, str]) -> str:
    """The whole page. commands: each one's line of help."""
    keys = [(f"{key}={default}", meaning) for key, default, meaning in top_level_keys()]
    return _PAGE.format(
        examples="\n".join(f"  {words:<{_WIDTH}}  {meaning}" for words, meaning in _examples()),
        commands=_columns(list(commands.items())),
        groups=_columns([(group, plugins.listed(group)) for group in groups()]),
        keys=_columns([*keys, *_DEEPER_KEYS]),
    )


def _examples() -> Iterator[tuple[str, str]]:
    """Runs as one types them, with what they do."""
    tasks: list[str] = plugins.defaults()["task"]
    first, second, model = tasks[0], tasks[1 % len(tasks)], plugins.default_of("model")
    other = next(name for name in plugins.options_of("model") if name != model)
    yield (
        f"evalkit task={first} model={model}",
        f"one benchmark; several: task=[{first},{second}]; default: {len(tasks)} of them",
    )
    yield (
        f"evalkit task={second} model=FOLDER limit=10",
        "a checkpoint of your own; also FILE.gguf, or a hub id (ORG/NAME)",
    )
    yield "evalkit experiment=quickstart", "a small real model over the bundled sets"
    yield f"evalkit -m model={model},{other} task={second}", "a sweep"
    yield f"evalkit task={second} --config-dir FOLDER", "with tasks, models, cards of your own: FOLDER/task/NAME.yaml"
    yield f"evalkit task={first} backend=openai backend.url=http://localhost:8000/v1", "a model behind a server"
    yield f"evalkit task={second} workers=8", "several GPUs or processes; machines: ray.address=HOST:PORT"


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        fill(meaning, 118, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2))
        for name, meaning in rows
    )
