"""Sealed forecasts: what was expected of cells, written down before they were run, with what it was based on.

A seal is a file `forecasts/<time>.json` beside the study's results, written once and never changed:

| key | content |
|---|---|
| study, time | name of the study; time of the seal (UTC) |
| cells | measured cells behind it: pretrain, intermediate, downstream, runs, mean mIoU in percent, standard error |
| fingerprint | SHA-256 of `cells` |
| confidence, laws | level of the intervals; law of each axis with its error where it could be checked |
| forecasts | a row per cell, in the columns of `viny.analysis.forecast` |
| checksum | SHA-256 of all the above; given to somebody else, it shows later that nothing was written afterwards |
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from viny.analysis.contrasts import measure
from viny.analysis.forecast import COLUMNS, Law
from viny.analysis.frames import KEYS, write_json
from viny.errors import VinyError

FOLDER = "forecasts"


def seal(
    folder: Path, study: str, cells: pd.DataFrame, laws: Mapping[str, Law], forecasts: pd.DataFrame, confidence: float
) -> tuple[Path, str]:
    """Write forecasts of a study into `folder`/forecasts; returns the file and its checksum.

    Raises:
        VinyError: one was written in this very second.
    """
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    path = folder / FOLDER / f"{time}.json"
    if path.exists():
        raise VinyError(f"{path} is already there, and a sealed forecast is never changed; try again in a second")
    table = measure(cells).table
    known = _rows(table[table["n"] > 0].reset_index()[[*KEYS, "n", "mean", "se"]], "values")
    document = {
        **{"study": study, "time": time, "cells": known, "fingerprint": _sha256(known), "confidence": confidence},
        "laws": {axis: asdict(law) for axis, law in laws.items()},
        "forecasts": _rows(forecasts[COLUMNS], "records"),
    }
    checksum = _sha256(document)
    write_json(path, {**document, "checksum": checksum})
    return path, checksum


def read_seals(folder: Path | None, study: str) -> pd.DataFrame:
    """The forecasts of `study` that are sealed in `folder`, oldest first: COLUMNS, and `made`, the time of the seal.

    Raises:
        VinyError: a file is not as it was written.
    """
    rows = []
    for path in sorted((folder / FOLDER).glob("*.json")) if folder else ():
        try:
            document = json.loads(path.read_bytes())
            whole = document.pop("checksum") == _sha256(document)
        except (ValueError, LookupError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise VinyError(
                f"{path} is not as it was sealed: its checksum differs; move it elsewhere to go on without it"
            )
        if document["study"] == study:
            rows += [{"made": document["time"], **row} for row in document["forecasts"]]
    return pd.DataFrame(rows, columns=["made", *COLUMNS])


def _rows(frame: pd.DataFrame, orient: Any) -> Any:
    """A table as JSON has it, missing values as null."""
    return json.loads(frame.to_json(orient=orient, double_precision=10))


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
