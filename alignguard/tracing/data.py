"""The data set that people have, and the columns that its rows may be told apart by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import RunError, one_line

_KINDS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
_FEW = 20  # values of a column that it may be told apart by


def load_data(name: str, split: str = "train") -> Any:
    """
    A data set, from a file (JSONL, Parquet, CSV), a folder of `save_to_disk`, or the hub.

    Raises:
        RunError: There is none.
    """
    from datasets import load_dataset, load_from_disk

    path = Path(name)
    if path.suffix in _KINDS and not path.exists():
        raise RunError(f"--data {name}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise RunError(f"--data {name}: is empty; give the data set that the run was trained on")
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            found = load_from_disk(name)
            return found[split] if (path / "dataset_dict.json").exists() else found
        if path.suffix in _KINDS:
            return load_dataset(_KINDS[path.suffix], data_files=name, split="train")
        return load_dataset(name, split=split)
    except Exception as error:  # a library's, of many kinds
        raise RunError(f"--data {name}: cannot be loaded ({type(error).__name__}: {one_line(error, 200)})") from None


def columns_to_tell_by(data: Any) -> list[str]:
    """Columns whose few values rows may be told apart by: `source`, and its like."""
    found = []
    for name in data.column_names:
        if getattr(data.features[name], "dtype", "") == "string":
            values = set(data[name])
            if 1 < len(values) <= min(_FEW, len(data) // 2):
                found.append(name)
    return found
