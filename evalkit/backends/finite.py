"""Log-probabilities that are no finite numbers: an error of the model, named, and never an answer."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from evalkit.errors import ModelError
from evalkit.types import LoglikelihoodOutput, Output

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def refuse_not_finite(example_id: str, output: Output) -> None:
    """Raise ModelError for an answer with a log-probability that is NaN or infinite, whoever gave it."""
    if isinstance(output, LoglikelihoodOutput) and (odd := first_not_finite(output.logprobs)) is not None:
        raise ModelError(
            f"{example_id}: the model gives {odd} for a log-probability, which is no finite number and no answer; "
            "check its weights, its dtype, and what runs it"
        )


def not_finite(example_id: str, value: float, network: "PreTrainedModel") -> ModelError:
    """The error of a model whose logits gave `value` for a log-probability, with the reason as far as it is seen."""
    head = f"{example_id}: the model gives {value} for a log-probability"
    broken = next((name for name, tensor in network.named_parameters() if not bool(tensor.isfinite().all())), None)
    if broken is not None:
        return ModelError(f"{head}: its tensor {broken} holds values that are no finite numbers; fetch it again")
    dtype = str(network.dtype).removeprefix("torch.")
    mend = "fetch it again, or ask its publisher" if dtype == "float32" else "run it with model.dtype=float32"
    return ModelError(f"{head}: its weights are finite, but what is computed with them in {dtype} is not; {mend}")


def first_not_finite(values: Iterable[float]) -> float | None:
    """The first value that is NaN or infinite; None where all are numbers."""
    return next((value for value in values if not math.isfinite(value)), None)


def largest_difference(checks: Iterable[Mapping[str, Any]]) -> float | None:
    """Of comparisons with the plain path; None where one of them found a difference that is no finite number."""
    found = [check["max_abs_difference"] for check in checks]
    return None if any(value is None or not math.isfinite(value) for value in found) else max(found)
