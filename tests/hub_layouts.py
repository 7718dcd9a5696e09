"""Dataset repositories as the hub holds them, made from the small sets or the full data."""

from pathlib import Path

import pandas as pd

from evalkit.data import read_csv


def hub_layout(folder: Path, configs: dict[str, dict[str, pd.DataFrame]]) -> Path:
    """A dataset repository as the hub holds it: parquet files, and a README that names configs and splits."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, frame in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path)
            lines += [f"  - split: {split}", f"    path: {path.relative_to(folder)}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return folder


def mmlu_hub(source: Path, folder: Path) -> Path:
    frames = {}
    for split in ("dev", "test"):
        rows = []
        for path in sorted((source / "mmlu" / split).glob("*.csv")):
            for row in read_csv(path, ("question", "A", "B", "C", "D", "answer")):
                choices = [row[letter] for letter in "ABCD"]
                subject = path.name.removesuffix(f"_{split}.csv")
                answer = "ABCD".index(row["answer"])
                rows.append({"question": row["question"], "subject": subject, "choices": choices, "answer": answer})
        frames[split] = pd.DataFrame(rows)
    return hub_layout(folder, {"all": frames})


def ceval_hub(source: Path, folder: Path, splits: tuple[str, ...] = ("dev", "val")) -> Path:
    configs: dict[str, dict[str, pd.DataFrame]] = {}
    for split in splits:
        for path in sorted((source / "ceval-exam" / split).glob("*.csv")):
            rows = read_csv(path, ("id", "question", "A", "B", "C", "D"), optional=("answer", "explanation"))
            frame = pd.DataFrame([{**row, "id": int(row["id"])} for row in rows])
            configs.setdefault(path.name.removesuffix(f"_{split}.csv"), {})[split] = frame
    return hub_layout(folder, configs)
