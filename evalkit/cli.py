"""The front door: `evalkit KEY=VALUE…` makes a run, `evalkit COMMAND …` starts a tool.

`python -m evalkit` is the same program, and `python -m evalkit.COMMAND …` the same as `evalkit COMMAND …`. Nothing
heavy is imported until it is known what is wanted: the help, the version and a wrong word are answered at once.
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from evalkit import FORMER_NAMES, __version__, plugins
from evalkit.errors import ConfigError, EngineError, EvalkitError, tell
from evalkit.machine.home import CACHES, let_caches_lie_in
from evalkit.machine.interrupt import INTERRUPTED, end_by_signal
from evalkit.machine.streams import guard_standard_streams

COMMANDS = {
    "report": "render report.md, report.html, tables and plots again from run folders, over any number of models",
    "show": "single questions in the terminal: wrong ones, near ties, those of a subject, those that flipped",
    "compare": "two runs on the same questions: paired table and test, every flip with both answers",
    "gate": "exit code 4 where a run is worse than its baseline, 5 where the two are not the same test",
    "baseline": "what a gate needs of finished runs, small enough to commit",
    "explain": "why a figure is not the published one: every rule tried on the stored answers",
    "verify": "derive everything in a run folder again and say what differs",
    "ties": "multiple-choice decisions within numerical noise; --float32 asks them again",
    "sample": "a subset of questions by seed, as ids",
    "submission": "where labels are withheld: check the file for the benchmark's site, record the score it returned",
    "protocols": "every switch of every protocol, its values and what they mean",
    "data": "check the benchmarks' rows against their pins, or fetch them",
    "models": "load a model, print what it is, let it continue a text",
    "sandbox": "which sandboxes confine on this machine",
    "bench": "how fast the engine answers, and where its time goes",
}


def main() -> int:
    """Run this process's command line; the exit code: 0 done, 1 not run to the end, 2 wrong usage, 3 data or model,
    4 gate, 5 not comparable, 130 interrupted."""
    end_by_signal()
    guard_standard_streams()
    code = call(sys.argv[1:])
    sys.stdout.flush()
    return code


def call(arguments: Sequence[str]) -> int:
    """What `evalkit ARGUMENT…` does; the exit code. An error that a user can mend is one line on standard error."""
    who = "evalkit"
    try:
        words, folders = plugins.take_config_dirs(arguments)
        if words:
            words = [*FORMER_NAMES.get(words[0], words[:1]), *words[1:]]
        name = words[0] if words else ""
        who = f"evalkit {name}" if name in COMMANDS else "evalkit"
        if name in COMMANDS:
            let_caches_lie_in(Path("results") / CACHES)  # of a run its own results_dir
        with plugins.config_dirs(folders):
            return _run_command(name, words[1:]) if name in COMMANDS else _run(words)
    except EvalkitError as error:
        return tell(error, who)
    except MemoryError:
        return tell(EngineError("memory ran out; take less, or raise the limit (ulimit -v, a container's)"), who)
    except KeyboardInterrupt:
        sys.stderr.write(f"{who}: interrupted; run the same command again\n")
        return INTERRUPTED


def _run_command(name: str, arguments: Sequence[str]) -> int:
    command = import_module(f"evalkit.commands.{name}")  # each at its own door: most of them load more than this file
    code: int = command.run(command.parser().parse_intermixed_args(arguments))
    return code


def _run(arguments: Sequence[str]) -> int:
    words = arguments[1:] if arguments[:1] == ["run"] else arguments
    if {"-h", "--help"} & set(words):
        sys.stdout.write(import_module("evalkit.commands.overview").text(COMMANDS))
        return 0
    if "--version" in words:
        sys.stdout.write(f"evalkit {__version__}\n")
        return 0
    if words and words[0].isidentifier():
        raise ConfigError(_explain_word(words[0]))
    code: int = import_module("evalkit.commands.run").run(words)
    return code


def _explain_word(word: str) -> str:
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean `evalkit {close[0]}`? " if close else ""
    return f"{word!r} is neither KEY=VALUE nor a command; {hint}The commands are {', '.join(COMMANDS)}"
