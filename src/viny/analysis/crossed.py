"""Data or updates? Main effects and interaction where variants cross the two: statistics/crossed.csv.

With a fixed number of epochs more images also mean more updates. Variants that change nothing but how long is trained
take the two apart. Where four cells make a 2 x 2 of images and updates, all else equal (of several the widest), the
effect of each is its mean over both levels of the other, and the interaction is how much more images bring with more
updates. All are contrasts (`viny.analysis.contrasts`), paired by seed.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

import pandas as pd

from viny.analysis import names
from viny.analysis.contrasts import Key, contrasts, measure
from viny.analysis.formats import Table, count, number
from viny.analysis.frames import KEYS
from viny.config.sections import BASE

STEPS = {"downstream": "steps", "pretrain": "pretrain_steps"}  # column with the updates on the images of an axis
STAGES = {"pretrain", "finetune", "grid"}  # sections and keys that a variant of the budget alone changes
BUDGET = {"epochs", "steps", "milestones", "exclude"}
EFFECTS = {
    "images": (-0.5, -0.5, 0.5, 0.5),
    "updates": (-0.5, 0.5, -0.5, 0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}  # weights of few images with few and with many updates, then many images with few and with many
PLACE = ["axis", *KEYS, "images_from", "images_to", "updates_from", "updates_to"]


def only_budgets(changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The variants that change nothing but how long is trained (and which cells there are)."""
    return [
        name
        for name, sections in changes.items()
        if sections.keys() <= STAGES and all(settings.keys() <= BUDGET for settings in sections.values())
    ]


def crossed(variants: pd.DataFrame, changes: Mapping[str, Any], confidence: float = 0.95) -> pd.DataFrame:
    """Three rows for each complete 2 x 2: images, updates, interaction, in points of mIoU.

    Args:
        variants: variants.csv. changes: what each variant changes.

    Returns:
        columns PLACE (the axis's own coordinate is missing), `what`, and those of `contrasts`.
    """
    if len(variants) and {*STEPS.values()} <= {*variants}:
        used = variants[variants["variant"].isin([BASE, *only_budgets(changes)]) & variants["miou_percent"].notna()]
    else:
        used = variants[:0]
    if used.empty:
        return pd.DataFrame(columns=[*PLACE, "what"])
    used = used.assign(made=used["variant"] + ":" + used["intermediate"])
    measured = measure(used.assign(intermediate=used["made"]))
    squares = [square for axis in STEPS for square in _squares(used, axis)]
    frames = []
    for what, weights in EFFECTS.items():
        wanted = [dict(zip(four, weights, strict=True)) for _, four in squares]
        places = pd.DataFrame([place for place, _ in squares], columns=PLACE).assign(what=what)
        frames.append(pd.concat([places, contrasts(measured, wanted, confidence)], axis=1))
    return pd.concat(frames).sort_index(kind="stable", ignore_index=True)


def crossed_table(found: pd.DataFrame, confidence: float) -> Table:
    """The same for people, a row for each 2 x 2."""
    rows = []
    for start in range(0, len(found), len(EFFECTS)):
        square = found.iloc[start : start + len(EFFECTS)].to_dict("records")
        row = square[0]
        ends = (row[f"{kind}_{end}"] for kind in ("images", "updates") for end in ("from", "to"))
        few, many, short, long = map(count, ends)
        labels = row["axis"] == "downstream"
        where = names.start(row["pretrain"]) if labels else f"{count(row['downstream'])} labels"
        images = f"{few} → {many} {'labels' if labels else 'pre-training images'}"
        shown = [f"{number(each['effect'], signed=True)} ({_interval(each)})" for each in square]
        rows.append([images, f"{short} → {long}", where, names.task(row["intermediate"]), *shown])
    note = (
        f"Points of mIoU with {confidence:.0%} t intervals. More images at equal updates and more updates on equal "
        "images, each the mean over both levels of the other; the interaction: how much more images bring with more "
        "updates."
    )
    columns = ["images", "updates", "cells", "task", "more images", "more updates", "interaction"]
    return Table("", "Data or updates?", columns, rows, found, note, left=4)


def _interval(row: dict[str, Any]) -> str:
    return f"{number(row['low'], signed=True)} to {number(row['high'], signed=True)}"


def _squares(used: pd.DataFrame, axis: str) -> Iterator[tuple[dict[str, Any], list[Key]]]:
    """The widest complete 2 x 2 on an axis at each place of the others, and its cells in the order of EFFECTS."""
    steps, other = STEPS[axis], STEPS["pretrain" if axis == "downstream" else "downstream"]
    fixed = [*(key for key in KEYS if key != axis), other]
    runs = used[used[axis] > 0].dropna(subset=[steps]).drop_duplicates([*fixed, axis, steps])
    for place, group in runs.groupby(fixed, dropna=False, sort=False):
        at = zip(group[axis].astype(int), group[steps].astype(int), strict=True)
        cells = dict(zip(at, group[["pretrain", "made", "downstream"]].itertuples(index=False, name=None), strict=True))
        images, updates = (sorted({level[i] for level in cells}) for i in (0, 1))
        corners = [list(product(*ends)) for ends in product(combinations(images, 2), combinations(updates, 2))]
        complete = [four for four in corners if set(four) <= cells.keys()]
        if complete:
            widest = max(complete, key=lambda four: four[3][0] / four[0][0] * four[3][1] / four[0][1])
            levels = {"images_from": widest[0][0], "images_to": widest[3][0]}
            levels |= {"updates_from": widest[0][1], "updates_to": widest[3][1]}
            shown = {"axis": axis, **dict(zip(fixed[:-1], place, strict=False)), **levels}
            yield shown, [cells[level] for level in widest]
