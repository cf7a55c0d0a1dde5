"""The published tables as printed, and the published verdicts under every reading of what the paper leaves open."""

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from viny.analysis.claims import judge
from viny.analysis.formats import MISSING, Table
from viny.analysis.published import Reading, published_cells, tables
from viny.analysis.tables import score_tables

SIGNS = {"supported": "+", "contradicted": "−", "negligible": "0", "undecided": "?", "not tested": MISSING}
EVERY = [Reading(*choice) for choice in itertools.product((True, False), (False, True), (False, True))]


def name(reading: Reading) -> str:
    """A reading in words."""
    words = ["SD" if reading.deviation else "SE", "Fig. 4" if reading.figure else "tables"]
    return ", ".join([*words, "shared" if reading.shared else "own"])


def readings() -> pd.DataFrame:
    """Verdict of each claim (rows, by id) under each reading (columns); the first one is the default."""
    return pd.DataFrame({name(reading): {r["id"]: r["verdict"] for r in judge(tables(reading))} for reading in EVERY})


def holding(found: pd.DataFrame) -> Mapping[str, int]:
    """In how many readings each claim has the verdict of the default reading."""
    return found.eq(found.iloc[:, 0], axis=0).sum(axis=1).to_dict()


def published_tables() -> dict[str, Table]:
    """Tables 1, A2 and A3 as the paper prints them."""
    printed = score_tables(published_cells(Reading(deviation=False)))
    for table in printed.values():
        table.note = "Mean ± as printed in the paper; the analysis reads it as a standard deviation over 3 runs."
    return printed


def readings_table(found: pd.DataFrame, claims: list[dict[str, Any]]) -> Table:
    """The verdicts as signs, and in how many readings the default one holds."""
    says, holds = {claim["id"]: claim["statement"] for claim in claims}, holding(found)
    rows = [
        [claim, says[claim], *(SIGNS[verdict] for verdict in row), f"{holds[claim]} of {len(row)}"]
        for claim, *row in found.itertuples()
    ]
    note = (
        "+ supported, − contradicted, 0 negligible, ? undecided, – not tested. SD, SE: the paper's ± is a standard "
        "deviation over 3 runs, or a standard error. Tables, Fig. 4: where they disagree. Own, shared: each run starts "
        "from an encoder of its own, so that cells of a size may be off together, or all from one."
    )
    columns = ["", "Claim", *found.columns, "Holds in"]
    return Table("", "Verdicts under every reading of the paper.", columns, rows, found, note, left=2)
