"""Reading cells.csv and writing results whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viny.errors import VinyError

KEYS = ["pretrain", "intermediate", "downstream"]


def read_frame(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV file that must have `columns`; an empty field is a missing value, the word `none` is not.

    Raises:
        VinyError: the file is not there, is not a table, or lacks a column.
    """
    path = Path(path)
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"])
    except FileNotFoundError:
        raise VinyError(f"{path} does not exist; run `viny.analysis.collect` first") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise VinyError(f"{path} is not a CSV table ({error})") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise VinyError(f"{path} lacks the column(s) {', '.join(missing)}; write it again from the results")
    return frame


def read_cells(path: str | Path) -> pd.DataFrame:
    """Read cells.csv: one row per cell and seed, or (columns `runs`, `miou_pm`) one row per cell."""
    frame = read_frame(path, ["study", *KEYS, "seed", "status", "miou_percent", "accuracy_percent"])
    return frame.astype({"pretrain": int, "downstream": int})


def write_text(path: str | Path, text: str) -> None:
    """Write `text` through a temporary file, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table; numbers keep ten significant digits, `inf` is written as such, missing values as empty fields."""
    write_text(path, frame.to_csv(index=False, float_format="%.10g"))


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON that any reader accepts: infinities as text, values that do not exist as null."""
    write_text(path, json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` with numpy's types, NaN and infinities turned into what JSON knows."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if np.isnan(value):
            return None
        return value if np.isfinite(value) else ("inf" if value > 0 else "-inf")
    return value
