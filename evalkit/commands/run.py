"""`evalkit KEY=VALUE…`: answer and score the chosen benchmarks with one model, and write the report.

The words choose groups (task=NAME, model=NAME, backend=NAME) and set keys (limit=10); with -m several values of a key
are a sweep.
"""

import gc
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from omegaconf import DictConfig

from evalkit import plugins
from evalkit.configuration.compose import run_jobs
from evalkit.errors import ConfigError, EvalkitError, tell
from evalkit.evaluation.provenance import command
from evalkit.machine.interrupt import leave
from evalkit.workers.settings import has_first_beside_it, refuse_launcher


def run(arguments: Sequence[str]) -> int:
    """One run, or those of a sweep; the exit code is that of the first that failed, and the others run all the same.

    Raises ConfigError in the first of a launcher's processes; the others leave it to that one.
    """
    if has_first_beside_it(os.environ):
        return ConfigError.exit_code
    refuse_launcher(os.environ, shlex.join(arguments))
    codes: list[int] = []
    process = os.getpid()
    config_dirs = plugins.current_config_dirs()

    def job(config: DictConfig) -> None:
        try:
            for folder in reversed(config_dirs):  # in a launcher's own process they are not known
                plugins.use_config_dir(folder)
            # By its name: what a run takes is imported once its configuration is known to be right.
            import_module("evalkit.commands.run_config").run_config(config)
        except EvalkitError as error:
            tell(error, "evalkit")
            if os.getpid() != process:  # a launcher's own process: Hydra takes the error to this one
                raise
            codes.append(error.exit_code)  # kept from Hydra, which would print a line of its own
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # Hydra keeps it, and so the model, until the sweep ends
            raise
        finally:
            free_memory()

    try:
        run_jobs(job, arguments)
    except KeyboardInterrupt:
        message = f"evalkit: interrupted; every finished answer is kept. To go on, run again: {command()}\n"
        leave(message)
    return codes[0] if codes else 0


def free_memory() -> None:
    """What one run of a sweep held is there for the next."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
