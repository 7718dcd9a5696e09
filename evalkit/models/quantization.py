"""How a checkpoint says that its weights are quantised; no torch is needed to read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.errors import ModelError

GPTQ = "gptq"
PARTS = ("qweight", "qzeros", "scales", "g_idx")  # of a GPTQ layer, in its weight's place
# What config.json of a checkpoint of today calls it, and the file of its own that AutoGPTQ's older ones have.
KEY, FORMER_FILE = "quantization_config", "quantize_config.json"


@dataclass(frozen=True)
class GptqScheme:
    """What a GPTQ checkpoint states of its integers."""

    bits: int  # of a weight: 4 or 8
    group_size: int  # inputs that share a scale and a zero; -1: all of a layer's


def stated(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a config.json says of the quantisation; None where it says nothing."""
    found = config.get(KEY)
    return found if isinstance(found, Mapping) else None


def scheme_in_words(quantization: Mapping[str, Any]) -> str:
    """The scheme as provenance and report name it: "gptq, 4 bits", "compressed-tensors, 8 bits", "fp8"."""
    bits = quantization.get("bits", quantization.get("w_bit"))
    for number in (8, 4):
        bits = number if quantization.get(f"load_in_{number}bit") else bits
    groups = quantization.get("config_groups")  # compressed-tensors: one scheme for each group of modules
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        bits = weights.get("num_bits", bits) if isinstance(weights, Mapping) else bits
    return str(quantization.get("quant_method", "quantised")) + (f", {bits} bits" if bits else "")


def gptq_scheme(config: Mapping[str, Any], where: str) -> GptqScheme | None:
    """The scheme of a GPTQ checkpoint's config.json; None where it is none. where: the file, for errors.

    Raises ModelError for a variant of the format that is not read here.
    """
    quantization = stated(config)
    if quantization is None or quantization.get("quant_method") != GPTQ:
        return None
    bits, group_size = quantization.get("bits"), quantization.get("group_size")
    if bits not in (4, 8):
        raise ModelError(f"{where}: GPTQ with bits={bits!r}; 4 and 8 bits can be read")
    if type(group_size) is not int or (group_size != -1 and group_size < 1):
        raise ModelError(f"{where}: GPTQ with group_size={group_size!r}; a number of inputs, or -1, is wanted")
    kind = quantization.get("checkpoint_format", GPTQ)
    kind = "marlin" if quantization.get("is_marlin_format") else kind
    if kind != GPTQ:
        raise ModelError(f"{where}: GPTQ in the format {kind!r}; {GPTQ!r} (v1, zeros stored one less) can be read")
    if quantization.get("dynamic"):
        raise ModelError(f"{where}: GPTQ with other bits or groups for some layers (dynamic), which is not read")
    return GptqScheme(int(bits), group_size)
