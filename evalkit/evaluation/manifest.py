"""manifest.json: what was asked of which model with which code, and what each session cost.

`provenance` is what a stranger needs to repeat the run, the same after an interruption as without one. It tells of
the session that last answered something: a run that asks nothing changes nothing. What differs between two runs
of the same (times, memory) is under `sessions`, in the order of the lines of outputs.jsonl.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalkit import plugins
from evalkit.backends.base import Backend, Draws
from evalkit.card.load import GROUP, kept_card
from evalkit.data.pins import BY_SUBJECT
from evalkit.evaluation.contract import provenance_of
from evalkit.evaluation.loop import Question
from evalkit.evaluation.provenance import environment
from evalkit.evaluation.subset import Subset
from evalkit.store.run_store import RunStore, Session
from evalkit.task import Switched, Task, calling
from evalkit.types import Json, sha256_of, sha256_of_text


class Manifest:
    """Writes one task's manifest as its session goes on."""

    def __init__(
        self,
        task: Task,
        backend: Backend,
        store: RunStore,
        config: Mapping[str, Json],
        derived: Mapping[str, Json],
    ) -> None:
        """derived: what follows from the task and its questions, as `derived_provenance` tells, with the run's name."""
        self._backend = backend
        self._store = store
        self._config = config_of(config, task)
        usual = plugins.default_of(GROUP)
        card = (kept_card(config) or {}).get("name", usual)
        beside: dict[str, Json] = {} if card == usual else {"card": card}
        self._derived = {**derived, **beside}
        self._data = provenance_of(task)["data"]
        self.token_ids_sha: str | None = None  # over all prompts' token ids, where the backend tells them
        self._environment: dict[str, Json] | None = None
        self._session: Session | None = None

    def begin(self) -> None:
        """Write what is known before any weights load: the configuration and the data, hash by hash."""
        known = self._store.provenance()
        provenance: dict[str, Json] = {"provenance": known} if known else {}
        self._store.write_manifest({"config": self._config, "data": self._data, **provenance}, None)

    def keep(self, session: Session) -> None:
        """Write the manifest with the session as it stands now."""
        if self._environment is None:  # asked with the first answer, when the libraries are loaded
            self._environment = environment()
        measured = self._backend.provenance().get("measured", {})
        self._session = _with_other_processes(
            replace(session, environment={**self._environment, "measured": measured}), measured
        )
        self._write()

    def finish(self) -> tuple[list[Session], dict[str, Json]]:
        """Write the manifest for the last time: all sessions, and the run's provenance."""
        return self._write(), self._provenance()

    def _write(self) -> list[Session]:
        content: dict[str, Json] = {"config": self._config, "data": self._data, "provenance": self._provenance()}
        return self._store.write_manifest(content, self._session)

    def _provenance(self) -> dict[str, Json]:
        kept = None if self._session else self._store.provenance()
        if kept and kept.get("prompt_set_sha") != self._derived["prompt_set_sha"]:
            kept.pop("token_ids_sha", None)  # it was over other prompts
        if kept and isinstance(model := kept.get("model"), dict) and "weights" not in model:
            told = self._backend.provenance()  # of the same files: the answers carry their hash
            kept["model"] = {**model, **({"weights": told["weights"]} if "weights" in told else {})}
        return {**(kept or self._ran()), **self._derived}

    def _ran(self) -> dict[str, Json]:
        model = {key: value for key, value in self._backend.provenance().items() if key != "measured"}
        tokens: dict[str, Json] = {"token_ids_sha": self.token_ids_sha} if self.token_ids_sha else {}
        # Threads may differ from session to session, with the number of processes for one: each session has its own.
        lasting = {key: value for key, value in (self._environment or environment()).items() if key != "threads"}
        if "sampling" in self._derived and isinstance(self._backend, Draws):
            model["draws"] = self._backend.draws
        return {**lasting, "model": model, **tokens}


def _with_other_processes(session: Session, measured: Json) -> Session:
    """The session with what the other processes of the run took; the largest of them all counts as its memory."""
    workers: Any = measured.get("workers", []) if isinstance(measured, dict) else []
    return replace(
        session,
        cpu_seconds=round(session.cpu_seconds + sum(worker["cpu_seconds"] for worker in workers), 3),
        peak_memory_bytes=max([session.peak_memory_bytes, *(worker["peak_memory_bytes"] for worker in workers)]),
    )


def config_of(config: Mapping[str, Json], task: Task) -> dict[str, Json]:
    """The configuration under which this task alone would be run as it was."""
    tasks = config.get("tasks")
    own = tasks.get(task.name) if isinstance(tasks, Mapping) else None
    if not isinstance(tasks, Mapping) or not isinstance(own, Mapping) or not isinstance(task, Switched):
        return dict(config)
    return {**config, "protocols": None, "tasks": {**tasks, task.name: {**own, "protocol": task.protocol}}}


def derived_provenance(
    task: Task, questions: Sequence[Question], limit: int | None, subset: Subset | None = None
) -> dict[str, Json]:
    """What follows from the task and its questions alone; of the data all but the subjects' hashes."""
    derived = provenance_of(task)
    data = derived["data"]
    assert isinstance(data, dict)
    with calling(task, "examples"):
        num_all = len(task.examples())  # which questions_of has seen through
    is_part = len(questions) < num_all  # a limit that leaves nothing out is none
    return {
        **derived,
        "data": {key: value for key, value in data.items() if key != BY_SUBJECT},
        **({"split": str(task.split)} if hasattr(task, "split") and not isinstance(task, Switched) else {}),
        "cell": task.cell,
        "metric": task.metric,
        "limit": limit if is_part else None,
        **({"subset": subset.describe(task.name)} if subset and is_part else {}),
        "num_questions": len(questions),
        "num_all_questions": num_all,
        "first_prompt_sha": sha256_of_text(questions[0].request.prompt),
        "prompt_set_sha": sha256_of([[q.example.id, q.request_sha] for q in questions]),
    }
