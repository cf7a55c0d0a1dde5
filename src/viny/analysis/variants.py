"""What each variant of a study changes: its cells beside the same cells of the study itself.

    python -m viny.analysis.variants --config '{"study": "fidelity", "variants": {...}, ...}' --output results/fidelity

Outputs, in the output folder (scores in percent, differences in points, variant minus study):

| file | one row per | content |
|---|---|---|
| variants.csv | variant and declared cell | as cells.csv, with the column `variant`; the study itself is `base` |
| statistics/variants.csv | variant and cell without seed; variant | means, difference, tests, training time |
| tables/variants.{csv,md,tex,html} | the same | for people |
| figures/variants.{png,pdf} | | differences with intervals |

To the statistics a variant is what an intermediate task is: another way to make the same cell. Differences are paired
by seed and tested as all contrasts are (`viny.analysis.contrasts`), p corrected by Holm over the variants of a cell,
and over all variants for the mean over a variant's cells. Where every run of a variant scores exactly as the study's,
for instance since it is the same run, nothing is tested.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from viny import console
from viny.analysis import figures_results, names, style
from viny.analysis.collect import cells_frame
from viny.analysis.contrasts import (
    MISSING,
    MODERATED_COLUMNS,
    TEST_COLUMNS,
    Measured,
    Weights,
    average,
    contrasts,
    holm,
    measure,
)
from viny.analysis.files import KEYS, write_csv
from viny.analysis.results import read_all, refuse_mixtures, refuse_other_encoders, refuse_other_studies
from viny.analysis.texttable import TextTable, count, number, plus_minus
from viny.errors import VinyError, command
from viny.grid import BASE
from viny.study import Study

CELL, OVERALL = "cell", "all its cells"
EQUAL = "equal in every run"
SECONDS = ["pretrain_seconds", "intermediate_seconds", "train_seconds"]
COLUMNS = [
    *["variant", "scope", *KEYS, "cells", "declared", "miou_percent", "miou_se", "base_percent", "base_se"],
    *[*TEST_COLUMNS, "p_holm", *MODERATED_COLUMNS, "p_moderated_holm", "seconds", "seconds_ratio"],
]


def variants_frame(study: Study) -> pd.DataFrame:
    """variants.csv: the cells of the study, then those of its variants, each with the mIoU that it asks for.

    Raises:
        VinyError: the study has no variants, or its results do not belong together.
    """
    if not study.variants:
        raise VinyError(f"study {study.name} declares no variants; see `variants:` in the config")
    frames, everything = [], {}
    for member in study.family:
        results = read_all(member.jobs())
        refuse_other_studies(member, results)
        refuse_other_encoders(member, results)
        everything |= {job: result for job, result in results.items() if result is not None}
        cells = cells_frame(member, results, member.config["analysis"]["miou"])
        cells.insert(1, "variant", member.variant or BASE)
        frames.append(cells)
    refuse_mixtures(everything, settings=False)
    return pd.concat([frame.dropna(axis=1, how="all") for frame in frames], ignore_index=True).reindex(
        columns=frames[0].columns
    )


def compare(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """statistics/variants.csv from variants.csv: for each variant a row per cell, then one for the mean over them.

    The mean is over the cells that have results on both sides; `cells` says how many of those `declared`.
    """
    own = cells["variant"] != BASE
    named = cells["intermediate"].where(~own, cells["variant"] + ":" + cells["intermediate"])
    measured = measure(cells.assign(intermediate=named))
    seconds = cells.assign(seconds=cells[SECONDS].sum(axis=1, skipna=False))
    seconds = seconds.groupby(["variant", *KEYS])["seconds"].mean()
    rows = []
    for variant, frame in cells[own].groupby("variant", sort=False):
        places = list(dict.fromkeys(frame[KEYS].itertuples(index=False, name=None)))
        known = [place for place in places if measured.has(place) and measured.has(_of(variant, place))]
        for place in places:
            row = {"variant": variant, "scope": CELL, **dict(zip(KEYS, place, strict=True))}
            rows.append(row | _row(measured, seconds, variant, [place]))
        row = {"variant": variant, "scope": OVERALL, "cells": len(known), "declared": len(places)}
        rows.append(row | _row(measured, seconds, variant, known or places))
    found = pd.DataFrame(rows)
    tests = [_tests(measured, found.loc[found["scope"] == scope, "weights"], confidence) for scope in (CELL, OVERALL)]
    found = found.join(pd.concat(tests))
    for end in ("", "_moderated"):
        families = found.groupby(["scope", *KEYS], dropna=False)
        found[f"p{end}_holm"] = families[f"p{end}"].transform(holm)
    whole = dict.fromkeys(("pretrain", "downstream", "cells", "declared"), "Int64")
    return found.reindex(columns=COLUMNS).astype(whole)


def variants_table(cells: pd.DataFrame, compared: pd.DataFrame, confidence: float) -> TextTable:
    """The same for people: the study's cells, then each variant's; the mean over cells where there are several."""
    base = measure(cells[cells["variant"] == BASE])
    rows: list[list[str]] = []
    for place, cell in base.table.iterrows():
        score = plus_minus(cell["mean"], cell["se"])
        rows.append(["the study itself" if not rows else "", *_place(*place), score, "", "", "", ""])
    rules = set()
    for variant, group in compared.groupby("variant", sort=False):
        rules.add(len(rows))
        name = variant
        for row in group.itertuples():
            if row.scope == OVERALL and len(group) == 2:
                continue  # of a single cell
            if row.scope == CELL:
                place = _place(row.pretrain, row.intermediate, row.downstream)
            else:
                partial = f" ({row.cells} of {row.declared})" if row.cells < row.declared else ""
                place = [OVERALL + partial, "", ""]
            rows.append([name, *place, *_results(row)])
            name = ""
    columns = ["Variant", "Pre-training", "Task", "Fine-tuning", "mIoU", "difference"]
    columns += [f"{confidence:.0%} interval", "p (Holm)", "training time, ×"]
    note = (
        "Percent, mean ± standard error over runs; difference to the same cell of the study itself in points, paired "
        "by seed, with its t interval and its p corrected over the variants; time of training, encoders included."
    )
    missing = int(((compared["method"] == MISSING) & (compared["scope"] == CELL)).sum())
    note += f" {missing} cells cannot be compared yet." if missing else ""
    return TextTable("", "What each variant changes.", columns, rows, compared, note, left=4, rules=rules)


def _results(row: Any) -> list[str]:
    """What a row of the comparison says, from the mean on."""
    mean, ratio = plus_minus(row.miou_percent, row.miou_se), number(row.seconds_ratio)
    if row.method == EQUAL:
        return [mean, number(0.0), EQUAL, "", ratio]
    low, high = number(row.low, signed=True), number(row.high, signed=True)
    interval = low if math.isnan(row.low) else f"{low} to {high}"
    return [mean, plus_minus(row.effect, row.se, signed=True), interval, number(row.p_holm, 3), ratio]


def _of(variant: str, place: tuple) -> tuple:
    """The key of a variant's cell among the measured ones."""
    pretrain, task, downstream = place
    return pretrain, f"{variant}:{task}", downstream


def _difference(variant: str, place: tuple) -> Weights:
    """Variant minus study. The study's cell comes first: the variants of a cell share it, so they vary together."""
    return {place: -1.0, _of(variant, place): 1.0}


def _row(measured: Measured, seconds: pd.Series, variant: str, places: list[tuple]) -> dict[str, object]:
    """Means of a variant and of the study over `places`, the time of training, and the contrast between the two.

    Standard errors are those of a single cell; the time is that behind a run, encoders included.
    """
    row: dict[str, object] = {}
    for name, keys in (("miou", [_of(variant, place) for place in places]), ("base", places)):
        table = measured.table.loc[keys]
        row |= {f"{name}_percent": table["mean"].mean(), f"{name}_se": table["se"].mean() if len(keys) == 1 else None}
    took, base = (seconds.loc[[(name, *place) for place in places]].mean() for name in (variant, BASE))
    row |= {"seconds": took, "seconds_ratio": took / base if base else math.nan}
    return row | {"weights": average([_difference(variant, place) for place in places])}


def _tests(measured: Measured, wanted: pd.Series, confidence: float) -> pd.DataFrame:
    """Tests of contrasts of one kind, in their rows; those that are zero in every run need none."""
    equal = wanted.map(lambda weights: _equal_runs(measured, weights))
    columns = [*TEST_COLUMNS, *MODERATED_COLUMNS]
    found = pd.DataFrame(index=wanted.index, columns=columns)
    tested = wanted[equal == 0]
    found.loc[tested.index] = contrasts(measured, list(tested), confidence)[columns].to_numpy()
    found.loc[equal > 0, ["effect", "se", "low", "high"]] = 0.0
    found.loc[equal > 0, "method"] = EQUAL
    found.loc[equal > 0, "n"] = equal[equal > 0]
    return found.astype({column: float for column in columns if column != "method"})


def _equal_runs(measured: Measured, weights: Weights) -> int:
    """Number of seeds if every cell scores the same on both sides with all of them; else 0."""
    seeds = measured.seeds.loc[list(weights)].dropna(axis=1).to_numpy()
    return seeds.shape[1] if (seeds[0::2] == seeds[1::2]).all() else 0  # rows: study, variant, study, variant ...


def _place(pretrain: float, task: str, downstream: float) -> list[str]:
    return [count(pretrain), names.task(task, short=True), count(downstream)]


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.variants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", required=True, type=json.loads, help="the part of the config that declares the variants, as JSON"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the intervals")
    parser.add_argument("--note", default="", help="a word on the data, shown in the figure")
    parser.add_argument("--output", required=True, type=Path, help="folder of the study's results")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    style.apply()
    study = Study.from_declaration(args.config)
    cells = variants_frame(study)
    compared = compare(cells, args.confidence)
    write_csv(args.output / "variants.csv", cells)
    write_csv(args.output / "statistics/variants.csv", compared)
    variants_table(cells, compared, args.confidence).write(args.output / "tables/variants")
    style.save(figures_results.variants(compared), args.output / "figures/variants", args.note)
    console.say(f"compared {len(study.variants)} variants with {study.name}: {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
