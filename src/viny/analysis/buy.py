"""What to buy: the labels that a goal needs with each encoder, what they cost, and what a budget buys.

Scores between and beyond the measured sizes are those of `viny.analysis.forecast`, and so are the intervals: a number
of labels is in the interval of a goal if the goal is in the interval of the score there. The answer ends where
forecasts have been checked: at the most labels of an encoder times the largest factor that was left out and forecast.
A goal that is not reached there is beyond what the data say (`bound` `>`); one that the fewest labels reach lies below
(`<`).

A mixture is one of the encoders that were measured, with labels. Device time is that of one model: its pre-training,
its intermediate task, and fine-tuning in proportion to the labels; it costs nothing where none was recorded.
"""

from typing import Any

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.contrasts import measure
from viny.analysis.forecast import FORMULAS, Curve, Law, choose, curves
from viny.analysis.formats import MISSING, Table, joined, number
from viny.config.sections import Prices

FINE = 400  # sizes tried from the fewest labels to the end of what is checked
ENCODER = ["pretrain", "intermediate"]
NEEDED = [*ENCODER, "goal", "labels", "labels_low", "labels_high", "bound", "measured_to", "checked_to"]
BOUGHT = [*ENCODER, "budget", "labels", "bound", "measured_to", "checked_to", "miou_percent", "miou_low", "miou_high"]
NO_LAW = "no answer: a law along labels needs three numbers of labels for one encoder, with two runs each"
COSTS = ["hours", "cost", "cost_low", "cost_high"]


def known_curves(cells: pd.DataFrame) -> list[tuple[Law, Curve]]:
    """The law along labels with the curve of each encoder that it can continue; none without a law."""
    found = curves(measure(cells), "downstream")
    law = choose("downstream", found)
    return [(law, curve) for curve in found if law and len(curve.n) >= law.parameters]


def labels_needed(cells: pd.DataFrame, goal: float, confidence: float = 0.95) -> pd.DataFrame:
    """Labels at which each encoder reaches `goal` percent of mIoU, in the columns NEEDED; no row without a law.

    `labels` is the end of what is known where `bound` says so; open ends of an interval are 0 or inf.
    """
    rows = []
    for law, curve in known_curves(cells):
        sizes = np.geomspace(curve.n[0], curve.n[-1] * law.checked, FINE)
        scores = law.predict(curve, sizes, confidence, runs=False)
        labels, low, high = (_reached(sizes, scores[name].to_numpy(), goal) for name in ("predicted", "high", "low"))
        bound = {np.inf: ">", 0.0: "<"}.get(labels, "")
        shown = {">": sizes[-1], "<": sizes[0]}.get(bound, labels)
        row = (*curve.place.values(), goal, shown, min(low, sizes[-1]), high, bound, curve.n[-1], sizes[-1])
        rows.append(dict(zip(NEEDED, row, strict=True)))
    return pd.DataFrame(rows, columns=NEEDED)


def cost_of(cells: pd.DataFrame, goal: float, prices: Prices, confidence: float = 0.95) -> pd.DataFrame:
    """`labels_needed` with COSTS (hours are those of one model), the cheapest first, goals out of reach last."""
    found = labels_needed(cells, goal, confidence)
    fixed, each = _spending(cells, found)
    found["hours"] = fixed["hours"] + each["hours"] * found["labels"]
    for end in ("", "_low", "_high"):
        found[f"cost{end}"] = _price(fixed, prices) + _price(each, prices) * found[f"labels{end}"]
    order = found.assign(open=found["bound"] == ">").sort_values(["open", "cost", "labels"]).index
    return found.loc[order].reset_index(drop=True)


def bought_for(cells: pd.DataFrame, budget: float, prices: Prices, confidence: float = 0.95) -> pd.DataFrame:
    """What each encoder reaches for `budget`, in the columns BOUGHT and COSTS, the best first.

    `bound` is `>` where the budget buys more labels than the data speak of (the score is that of the most), and `<`
    where it buys fewer than were measured (no score).
    """
    found = known_curves(cells)
    rows = pd.DataFrame([curve.place for _, curve in found], columns=ENCODER)
    fixed, each = _spending(cells, rows)
    affordable = (budget - _price(fixed, prices)) / _price(each, prices).replace(0, 1e-12)
    scores = []
    for (law, curve), labels in zip(found, affordable, strict=True):
        most = curve.n[-1] * law.checked
        bound = ">" if labels > most else "<" if labels < curve.n[0] else ""
        labels = float(np.clip(labels, 0, most))
        score = law.predict(curve, np.array([labels]), confidence, runs=False).loc[0] if bound != "<" else {}
        ends = [score.get(name, np.nan) for name in ("predicted", "low", "high")]
        scores.append((budget, labels, bound, curve.n[-1], most, *ends))
    rows[BOUGHT[2:]] = pd.DataFrame(scores, columns=BOUGHT[2:])
    rows["hours"] = fixed["hours"] + each["hours"] * rows["labels"]
    rows["cost"] = _price(fixed, prices) + _price(each, prices) * rows["labels"]
    return rows.sort_values("miou_percent", ascending=False, ignore_index=True)


def isoquants(cells: pd.DataFrame, goal: float | None = None, confidence: float = 0.95) -> pd.DataFrame:
    """`labels_needed` for `goal` and for four round levels between the lowest and the highest measured mIoU."""
    scores = measure(cells).table["mean"].dropna()
    levels = set(np.round(np.linspace(scores.min(), scores.max(), 6)[1:-1])) if len(scores) else set()
    frames = [labels_needed(cells, level, confidence) for level in sorted(levels | ({goal} if goal else set()))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=NEEDED)


def answer(cells: pd.DataFrame, goal: float, prices: Prices, confidence: float = 0.95) -> list[str]:
    """What the goal takes, in five sentences; one where the data have no answer."""
    found = cost_of(cells, goal, prices, confidence)
    if found.empty:
        return [NO_LAW]
    first = f"{goal:g} mIoU: {_basis(known_curves(cells)[0][0])}"
    if (found["bound"] == ">").all():
        most = _whole(found["checked_to"].max())
        return [first, f"beyond what these data say: no encoder reaches it with {most} labels"]
    by_labels = found.sort_values("labels", key=lambda n: n.where(found["bound"] != ">", np.inf))
    fewest, rest = by_labels.iloc[0], by_labels.iloc[1:]
    bare = by_labels[by_labels["pretrain"] == 0]
    return [
        first,
        f"fewest labels: {_described(fewest)}",
        f"no pre-training: {'; '.join(_described(row) for _, row in bare.iterrows()) or 'not measured'}",
        f"others: {'; '.join(_described(row) for _, row in rest[rest['pretrain'] > 0].iterrows()) or 'none'}",
        f"cheapest: {_cheapest(found, prices)}",
    ]


def budget_answer(cells: pd.DataFrame, budget: float, prices: Prices, confidence: float = 0.95) -> list[str]:
    """What the budget buys, in two sentences; one where the data have no answer."""
    found = bought_for(cells, budget, prices, confidence)
    if found.empty:
        return [NO_LAW]
    best = found.iloc[0]
    if np.isnan(best["miou_percent"]):
        return [f"a budget of {budget:,g}: too little for the fewest labels that were measured, with any encoder"]
    score = f"{best['miou_percent']:.1f} mIoU ({best['miou_low']:.1f} to {best['miou_high']:.1f})"
    limit = ", the most that these data speak of" if best["bound"] == ">" else ""
    bought = f"{_encoder(best)} with {_whole(best['labels'])} labels{limit}: {score}"
    return [f"a budget of {budget:,g}: {_basis(known_curves(cells)[0][0])}", f"best: {bought}"]


def goal_table(found: pd.DataFrame, prices: Prices, confidence: float) -> Table:
    """`cost_of` for people; costs where there are prices."""
    goal, priced = found["goal"].iloc[0], any(prices.model_dump().values())
    rows = []
    for row in found.to_dict("records"):
        cost = [_span(row, "cost")] if priced else []
        place = names.place(row["pretrain"], row["intermediate"], 0)[:2]
        rows.append([*place, _labels(row), _beyond(row), *cost])
    note = (
        f"With {confidence:.0%} intervals, which hold the error of the law. A number of labels is given up to the "
        f"largest factor at which forecasts were checked{'; costs include one model' if priced else ''}."
    )
    columns = ["Pre-training", "Task", "labels", "times the most measured", *(["cost"] if priced else [])]
    return Table("", f"What {goal:g} mIoU takes.", columns, rows, found, note, left=2)


def budget_table(found: pd.DataFrame, confidence: float) -> Table:
    """`bought_for` for people."""
    rows = []
    for row in found.to_dict("records"):
        place = names.place(row["pretrain"], row["intermediate"], row["labels"])
        score = f"{number(row['miou_percent'])} ({number(row['miou_low'])} to {number(row['miou_high'])})"
        rows.append([*place, score if row["bound"] != "<" else "fewer labels than measured", f"{row['cost']:,.0f}"])
    columns = ["Pre-training", "Task", "labels", f"mIoU ({confidence:.0%} interval)", "cost"]
    title = f"What a budget of {found['budget'].iloc[0]:,g} buys."
    return Table("", title, columns, rows, found, "Labels up to the most that forecasts were checked for.", left=2)


def _basis(law: Law) -> str:
    off = f"off by {law.rmse:.2f} points in {law.checks} forecasts of sizes left out"
    return f"{FORMULAS[law.name]}, {off}, up to {law.checked:.2g} x the labels known"


def _described(row: pd.Series) -> str:
    outside = not row["bound"] and row["labels"] > row["measured_to"]
    times = f", {_beyond(row)} x the most measured" if outside else ""
    return f"{_encoder(row)} {_labels(row)}{times}"


def _encoder(row: pd.Series) -> str:
    task = "" if row["intermediate"] == "none" else f" and {names.task(row['intermediate'])}"
    return names.start(row["pretrain"]) + task


def _labels(row: Any) -> str:
    if row["bound"] == ">":
        return f"beyond what these data say (more than {_whole(row['checked_to'])})"
    return f"fewer than {_whole(row['labels'])}" if row["bound"] == "<" else _span(row, "labels")


def _beyond(row: Any) -> str:
    return MISSING if row["bound"] else f"{row['labels'] / row['measured_to']:.2g}"


def _span(row: Any, name: str) -> str:
    """`8,030 (7,370 to 8,810)`; an end that the data leave open is said so."""
    low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
    ends = "any" if row["labels_low"] == 0 else _whole(low), "beyond these data" if np.isinf(high) else _whole(high)
    return f"{_whole(row[name])} ({ends[0]} to {ends[1]})"


def _whole(value: float) -> str:
    """Three digits: `8,030`."""
    return MISSING if np.isnan(value) else f"{float(f'{value:.3g}'):,.0f}"


def _cheapest(found: pd.DataFrame, prices: Prices) -> str:
    """The first of `cost_of`, and those whose intervals do not lie above it."""
    if not any(prices.model_dump().values()):
        return "say what things cost with `prices`"
    best = found.iloc[0]
    rivals = found.index[(found["bound"] != ">") & (found["cost_low"] <= best["cost_high"])][1:]
    rival = f"; not shown to be below {joined([_encoder(found.loc[row]) for row in rivals])}" if len(rivals) else ""
    time = "; without device time, which was not recorded" if prices.device_hour and np.isnan(best["hours"]) else ""
    return f"{_encoder(best)} with {_whole(best['labels'])} labels, {_span(best, 'cost')}{rival}{time}"


def _reached(sizes: np.ndarray, scores: np.ndarray, goal: float) -> float:
    """The size at which scores first reach the goal: 0 if the first one does, inf if none does."""
    above = np.flatnonzero(scores >= goal)
    if not len(above):
        return np.inf
    if above[0] == 0:
        return 0.0
    pair = slice(above[0] - 1, above[0] + 1)
    return float(np.exp(np.interp(goal, scores[pair], np.log(sizes[pair]))))


def _spending(cells: pd.DataFrame, encoders: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each row of `encoders` spends whatever the labels, and for each label: `image`, `label`, `hours`."""
    times = ["train_seconds", "pretrain_seconds", "intermediate_seconds"]
    seconds = cells.reindex(columns=[*ENCODER, "downstream", *times]).astype(dict.fromkeys(times, float))
    seconds["once"] = seconds["pretrain_seconds"] + seconds["intermediate_seconds"]
    seconds["each"] = seconds["train_seconds"] / seconds["downstream"]
    hours = encoders[ENCODER].merge(seconds.groupby(ENCODER)[["once", "each"]].mean() / 3600, on=ENCODER, how="left")
    fixed = pd.DataFrame({"image": encoders["pretrain"], "label": 0.0, "hours": hours["once"]})
    return fixed, pd.DataFrame({"image": 0.0, "label": 1.0, "hours": hours["each"]}, index=fixed.index)


def _price(spent: pd.DataFrame, prices: Prices) -> pd.Series:
    time = prices.device_hour * spent["hours"] if spent["hours"].notna().any() else 0.0
    return prices.image * spent["image"] + prices.label * spent["label"] + time
