"""Where a run's results lie: runs that asked something else never share a folder.

A run is named after what it asked: `mmlu`, `mmlu@lm-eval`, `mmlu@limit=1`, `mmlu@qwen+num_fewshot=0,split=dev`. The
folder of that name is its own, and the plain folder (`mmlu`, `mmlu@lm-eval`) is that of the most complete run: where a
more complete one comes, the one before moves to the folder of its own name. Answers are shared: each run takes from
the others what they hold.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.card.runs import data_hashes, protocol_of, split_of
from evalkit.errors import StoreError
from evalkit.evaluation.former import name_today, unnamed
from evalkit.evaluation.loop import Question
from evalkit.evaluation.manifest import derived_provenance
from evalkit.evaluation.subset import Subset
from evalkit.store.durable import Locking, hold, unfit, write_whole
from evalkit.store.run_name import folders_of, run_name
from evalkit.store.run_store import read_manifest
from evalkit.task import Switched, Task
from evalkit.types import Json, json_text, sha256_of


@dataclass(frozen=True)
class Ask:
    """What one task of a run asks."""

    base: str  # the plain folder: the benchmark, with the protocol where that is not the task's first
    name: str  # the run's own
    provenance: Mapping[str, Json]  # derived_provenance


def ask_of(task: Task, questions: Sequence[Question], limit: int | None, subset: Subset | None) -> Ask:
    """What a task asks with these questions, and how its run is called."""
    provenance = derived_provenance(task, questions, limit, subset)
    name = _full_name(task, provenance)
    return Ask(base_name(task), name, provenance)


def base_name(task: Task) -> str:
    """The plain folder of a task under its protocol; settings with keys of their own do not rename it."""
    if not isinstance(task, Switched):
        return task.name
    return run_name(task.name, *_departing(task, task.protocols.parse(task.protocol).name))


def place_of(folder: Path, task: Task, ask: Ask, fingerprint: Mapping[str, Json], lock: Locking = "auto") -> Path:
    """The folder of an ask among a model's; another run that lives in it moves to its own first.

    Raises StoreError where that one cannot be moved: another process holds it, or the disk refuses.
    """
    found = {path: manifest for path in folders_of(task.name, folder) if (manifest := _answered(path))}
    for path, manifest in found.items():
        if _is_same(task, manifest["provenance"], ask.provenance):
            return path
    plain = folder / ask.base
    holder = found.get(plain)
    if holder is None or holder.get("fingerprint") != json.loads(json_text(dict(fingerprint))):
        return plain  # nobody's, or another model's, which opening it tells
    if _completeness(task, ask.provenance) <= _completeness(task, holder["provenance"]):
        return _free(folder, ask.name, ask.provenance)
    own = _full_name(task, holder["provenance"])
    _move(plain, _free(folder, own, holder["provenance"]), lock, _protocol_today(task, holder["provenance"]))
    return plain


def _answered(path: Path) -> dict[str, Any] | None:
    """The manifest of a folder in which something was answered; None for others, whatever is wrong with them."""
    try:
        manifest = read_manifest(path) if path.is_dir() else None
    except (StoreError, OSError):
        return None
    return manifest if manifest and isinstance(manifest.get("provenance"), dict) else None


def _free(folder: Path, name: str, provenance: Mapping[str, Any]) -> Path:
    """A folder that no other run has: of the name, or of the name with a hash of what was asked."""
    if not (folder / name).exists():
        return folder / name
    whole = [_asked(provenance), dict(data_hashes(provenance)), _switches(provenance)]
    return folder / f"{name},{sha256_of(whole)[:8]}"


def _move(plain: Path, own: Path, locking: Locking, protocol: str) -> None:
    """Rename a run's folder, and let its files tell the name, and that of the protocol where it has one."""
    try:
        lock = hold(plain / ".lock", locking)
        try:
            for name in ("manifest.json", "summary.json"):
                if (plain / name).exists():
                    content = json.loads((plain / name).read_text(encoding="utf-8"))
                    content["provenance"]["run"] = own.name
                    if isinstance(followed := content["provenance"].get("protocol"), dict):
                        followed["name"] = protocol
                    write_whole(plain / name, json_text(content, indent=2) + "\n")
            plain.rename(own)
        finally:
            lock.close()
    except OSError as error:
        raise unfit(plain, error) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{plain} holds another run and is damaged ({error}); name another results_dir") from None


def _full_name(task: Task, provenance: Mapping[str, Any]) -> str:
    split = split_of(provenance)
    usual = getattr(type(task), "split", None)
    parts = [f"split={split}"] if split and isinstance(usual, str) and split != usual else []
    if provenance.get("limit") is not None:
        parts.append(f"limit={provenance['limit']}")
    if subset := provenance.get("subset"):
        parts.append(f"subset={subset['name']}")
    parts += [f"{key}={value}" for key, value in (provenance.get("sampling") or {}).items()]
    data = provenance.get("data")
    if isinstance(data, Mapping) and data.get("comparable") is False:
        bundled = str(data.get("source", "")).startswith("bundled/")
        parts.append("data=bundled" if bundled else f"data={sha256_of(data_hashes(provenance))[:8]}")
    # A sampled run's protocol ends with what it draws, which stands among the parts already.
    protocol = _protocol_today(task, provenance).partition("+num_samples:")[0]
    departing = _departing(task, protocol) if isinstance(task, Switched) else []
    return run_name(task.name, *departing, *parts)


def _protocol_today(task: Task, provenance: Mapping[str, Any]) -> str:
    """A run's protocol as it is called today; "" where it names none."""
    name = protocol_of(provenance) or ""
    drawn = name.partition("+num_samples:")
    return name_today(task, drawn[0], provenance) + "".join(drawn[1:]) if isinstance(task, Switched) else name


def _completeness(task: Task, provenance: Mapping[str, Any]) -> tuple[bool, bool, int]:
    """The benchmark's own rows before others, settings as they stand before others, then the number of questions."""
    data = provenance.get("data")
    comparable = isinstance(data, Mapping) and data.get("comparable") is not False
    whole = {**provenance, "limit": None, "subset": None, "data": None}
    return comparable, _full_name(task, whole) == base_name(task), int(provenance.get("num_questions") or 0)


def _departing(task: Switched, protocol: str) -> list[str]:
    """The protocol as part of a name: the task's first one is not named."""
    return [] if protocol in ("", task.protocols.names[0]) else [protocol]


def _is_same(task: Task, former: Mapping[str, Any], ask: Mapping[str, Any]) -> bool:
    """Whether a run is the same test as an ask. Runs of before protocols were sets of switches tell their names alone;
    those of before a switch came were made under its former value."""
    if _asked(former) != _asked(ask) or not _is_same_data(data_hashes(former), data_hashes(ask)):
        return False
    written, asked = _switches(former), _switches(ask)
    if not isinstance(asked, Mapping):
        return True
    later = unnamed(task, former)
    whole = {**(written if isinstance(written, Mapping) else asked), **later}
    return whole == dict(asked)


def _is_same_data(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """A split that only one of them read is in no prompt: runs of before read worked examples that none was shown."""
    return all(a[split] == b[split] for split in a.keys() & b.keys())


def _asked(provenance: Mapping[str, Any]) -> dict[str, Json]:
    asked: dict[str, Json] = {key: provenance.get(key) for key in ("prompt_set_sha", "sampling", "version")}
    return {**asked, "protocol": protocol_of(provenance)}


def _switches(provenance: Mapping[str, Any]) -> Json:
    protocol = provenance.get("protocol")
    return protocol.get("switches") if isinstance(protocol, Mapping) else None
