"""The default backend: every distinct token of all requests once, answers as they end."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from evalkit.backends.base import OWN_DRAWS, Answer, Item, Part
from evalkit.errors import ConfigError
from evalkit.models.base import LoadedModel, ModelFacts
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.continuations import Encodings
from evalkit.models.dtype import dtype_name
from evalkit.models.spec import ModelSpec
from evalkit.types import Json

if TYPE_CHECKING:
    from evalkit.backends.engine_session import EngineSession


class EngineBackend:
    """Answers requests through the engine."""

    draws = OWN_DRAWS

    def __init__(
        self,
        model: ModelSpec,
        max_batch_tokens: int | Literal["auto"] = "auto",
        num_checked: int = 16,
        prompt_lookup: bool = True,
        cuda_graphs: bool = True,
    ) -> None:
        """max_batch_tokens: per forward pass; num_checked: questions answered again by the plain path, 0 for none;
        prompt_lookup: guess at tokens to decode, several in a step, where that pays (see engine.prompt_lookup);
        cuda_graphs: on a GPU, launch steps by graphs (see engine.graphs)."""
        if max_batch_tokens != "auto" and (type(max_batch_tokens) is not int or max_batch_tokens < 1):
            raise ConfigError(f"backend.max_batch_tokens={max_batch_tokens}: use auto or a whole number from 1 up")
        if type(num_checked) is not int or num_checked < 0:
            raise ConfigError(f"backend.num_checked={num_checked}: use a whole number from 0 up")
        for name, value in (("prompt_lookup", prompt_lookup), ("cuda_graphs", cuda_graphs)):
            if type(value) is not bool:
                raise ConfigError(f"backend.{name}={value}: use true or false")
        self.model = model
        self.max_batch_tokens = max_batch_tokens
        self.num_checked = num_checked
        self.prompt_lookup = prompt_lookup
        self.cuda_graphs = cuda_graphs

    @cached_property
    def found(self) -> Checkpoint:
        """The checkpoint as its files were when they were first looked at: they are not read anew during a run."""
        return resolve(self.model)

    def fingerprint(self) -> Mapping[str, Json]:
        """What the checkpoint says of itself, the dtype it runs in, and the rules for text."""
        dtype = dtype_name(self.model)
        return {"backend": "engine", "dtype": dtype, **self.model.rules(), **self.found.fingerprint()}

    def provenance(self) -> Mapping[str, Json]:
        """The fingerprint, what the loaded model tells, how it was run and the check against the plain path."""
        session = self._session_so_far
        loaded = dict(session.loaded.provenance) if session and session.loaded else {}
        measured = loaded.get("measured")
        return {
            **self.fingerprint(),
            "weights": self.found.weights,
            **loaded,
            "measured": {**(measured if isinstance(measured, dict) else {}), **(session.ran if session else {})},
        }

    @cached_property
    def session(self) -> "EngineSession":
        """The engine itself. It takes torch, which a run that has every answer never loads: hence imported here."""
        from evalkit.backends.engine_session import EngineSession

        encodings = self.encodings if "_facts" in vars(self) else None
        return EngineSession(
            self.model,
            self.found,
            self.max_batch_tokens,
            self.num_checked,
            self.prompt_lookup,
            encodings,
            cuda_graphs=self.cuda_graphs,
        )

    def load(self) -> LoadedModel:
        """The model; its weights are read at the first call."""
        return self.session.load()

    @property
    def checkpoint(self) -> ModelSpec:
        """See LoadsCheckpoint."""
        return self.model

    def facts(self) -> ModelFacts:
        """What is known of the model before its weights are loaded."""
        return self._facts

    @cached_property
    def _facts(self) -> ModelFacts:
        from evalkit.models.facts import facts_of  # takes torch, as `session` does

        return facts_of(self.model)

    @cached_property
    def encodings(self) -> Encodings:
        """See KeepsEncodings."""
        return Encodings(self.facts().tokenizer)

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends. Raises ModelError for a sequence beyond the model's length, before any
        is answered, and for one whose log-probabilities are no finite numbers."""
        return self.session.answer(items)

    def prepare(self, items: Sequence[Item]) -> None:
        """See PreparesNext."""
        self.session.prepare(items)

    def divide(self, items: Sequence[Item], num_processes: int, on_gpus: bool) -> list[Part]:
        """Neighbours in the prefix tree together. Raises ModelError for a sequence beyond the model's length."""
        from evalkit.backends.engine_parts import parts_of  # takes torch, as `session` does

        return parts_of(items, self.facts(), self.encodings, num_processes, self.num_checked, on_gpus)

    def answer_part(self, part: Part) -> Iterator[Answer]:
        """See Divisible."""
        return self.session.answer_part(part)

    @property
    def check(self) -> Mapping[str, Json] | None:
        """See Divisible."""
        session = self._session_so_far
        return session.check if session else None

    @property
    def _session_so_far(self) -> "EngineSession | None":
        return vars(self).get("session")
