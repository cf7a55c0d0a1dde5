"""How often intervals cover the truth, and how often verdicts are wrong, in simulated studies whose truth is known.

    python -m benchmarks.calibration [--studies 500] [--only SETTING] [--processes 2]

Every study has the paper's grid. A run's score is the truth + noise of its encoder, which all cells of one encoder and
seed share (standard deviation 0.2 points) + noise of its own (0.4 points); with unequal variances, the standard
deviations of cells and encoders differ by log-normal factors of spread 0.5. There are two truths: `null`, where nothing
has any effect, and `growth`, where labels follow a saturating power law and pre-training helps. In summary mode only
means and standard errors are known, as in the published table.

For each setting, in percent:

- coverage of the intervals of cells and of single effects, of those of the noisiest sixth, and the least over the
  claims about averages; of exponents, asymptotes, slopes and effective data where labels follow a law;
- wrong verdicts: the largest share, over the claims, of studies with a false claim that support it, and of studies with
  a true one that contradict it (an effect of exactly zero contradicts neither sign).

The Monte Carlo error of 95% from 500 studies is 1 point.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.claims import Asked, papers
from viny.analysis.contrasts import measure
from viny.analysis.effective_data import effective_data
from viny.analysis.effects import effects
from viny.analysis.frames import KEYS, Tables
from viny.analysis.scaling import LEAST_P, curves, fit
from viny.analysis.verdicts import CONTRADICTED, SUPPORTED, Verdict
from viny.config.claims import Claim

SIZES, LABELS = (0, 45_000, 100_000, 200_000), (250, 500, 1_000, 2_000, 4_000, 6_000)
TASKS = ("none", "cls_intel")
PLACES = [(p, t, d) for p in SIZES for t in TASKS[: 1 + (p > 0)] for d in LABELS]
ENCODER, CELL, SPREAD = 0.2, 0.4, 0.5
ASYMPTOTE, FALL, EXPONENT = 85.0, 400.0, 0.45  # of the law of labels, in points
TINY = 1e-9
LEAST = 0.2  # share of the studies in which a claim must be true (or false) for its wrong verdicts to be counted
LAWS = ("exponent", "asymptote", "slope", "misfit", "effective data")
COLUMNS = [
    "setting",
    "cells",
    "noisiest sixth",
    "effects",
    "averages",
    "wrongly supported",
    "wrongly contradicted",
    *LAWS,
]


@dataclass(frozen=True)
class Setting:
    """One kind of simulated study.

    Attributes:
        shared: all seeds start from one encoder a size.
        summary: runs are not known one by one.
    """

    seeds: int
    shared: bool = False
    unequal: bool = True
    summary: bool = False
    growth: bool = False

    @property
    def name(self) -> str:
        """A setting in words."""
        words = [f"{self.seeds} seeds", "shared encoders" if self.shared else "own encoders"]
        words += ["unequal" if self.unequal else "equal"]
        words += ["summary"] * self.summary + ["growth"] * self.growth
        return ", ".join(words)


SETTINGS = [
    *(Setting(n, shared, unequal) for n in (2, 3, 5) for shared in (False, True) for unequal in (True, False)),
    *(Setting(3, shared, summary=True) for shared in (False, True)),
    *(Setting(n, growth=True) for n in (2, 3, 5)),
    Setting(3, summary=True, growth=True),
]


def truth(setting: Setting) -> np.ndarray:
    """(cells,) mIoU in percent that training without noise would reach."""
    if not setting.growth:
        return np.full(len(PLACES), 50.0)
    rows = [
        ASYMPTOTE - FALL * d**-EXPONENT * (1 - 0.25 * (p > 0) - 0.05 * np.log2(max(p, 45_000) / 45_000))
        for p, _, d in PLACES
    ]
    return np.array(rows)


def study(setting: Setting, random: np.random.Generator) -> tuple[Tables, Tables, np.ndarray]:
    """A study, the same without noise (what many seeds would approach), and the (cells,) deviations of a run."""
    _, encoders = np.unique([f"{p} {t}" for p, t, _ in PLACES], return_inverse=True)
    spread = SPREAD * setting.unequal
    cell = CELL * np.exp(spread * random.standard_normal(len(PLACES)))
    encoder = (ENCODER * np.exp(spread * random.standard_normal(encoders.max() + 1)))[encoders]
    made = random.standard_normal((encoders.max() + 1, 1 if setting.shared else setting.seeds))[encoders]
    common = encoder[:, None] * made
    true = truth(setting) + (common[:, 0] if setting.shared else 0.0)
    scores = true[:, None] + (0.0 if setting.shared else common)
    scores = scores + cell[:, None] * random.standard_normal((len(PLACES), setting.seeds))
    deviation = cell if setting.shared else np.hypot(cell, encoder)
    if not setting.summary:
        return _tables(setting, scores), _tables(setting, true[:, None]), deviation
    se = scores.std(axis=1, ddof=1) / np.sqrt(setting.seeds)
    made_of = {"runs": setting.seeds, "miou_pm": se, "accuracy_pm": se, "seed": np.nan}
    return _tables(setting, scores.mean(axis=1)[:, None], **made_of), _tables(setting, true[:, None]), deviation


def _tables(setting: Setting, scores: np.ndarray, **columns: Any) -> Tables:
    frame = pd.DataFrame(PLACES, columns=KEYS).assign(
        study="simulated", encoder="", status="done", accuracy_percent=50.0
    )
    every = [frame.assign(seed=seed, miou_percent=scores[:, seed]) for seed in range(scores.shape[1])]
    stages = {kind: {"images": name} for kind, name in (("pretrain", "imagenet"), ("finetune", "pets"))}
    settings = {"study": "simulated", "share_encoder": setting.shared, "stages": stages}
    return Tables(pd.concat(every, ignore_index=True).assign(**columns), settings)


def once(setting: Setting, seed: int) -> dict[str, float]:
    """What one study shows: shares of intervals that cover the truth, and 1 or 0 for each wrong verdict."""
    tables, noiseless, deviation = study(setting, np.random.default_rng(seed))
    cells, shared, found = tables.grid, setting.shared, {}
    table = measure(cells, shared).table.loc[PLACES]
    true = dict(zip(PLACES, noiseless.cells["miou_percent"], strict=True))
    reach = stats.t.ppf(0.975, table["df_moderated"]) * table["se_moderated"]
    hit = np.abs(table["mean"] - list(true.values())) <= reach
    found["cells"] = hit.mean()
    found["noisiest"] = hit[deviation >= np.quantile(deviation, 5 / 6)].mean()
    tested = effects(cells, shared=shared)
    difference = effects(noiseless.grid)["effect"]
    covered = (tested["low"] <= difference) & (difference <= tested["high"])
    found |= {f"effect {family}": group.mean() for family, group in covered.groupby(tested["family"])}
    if setting.growth:
        _laws(found, cells, true, setting)
    else:
        asked, known = Asked(tables), Asked(noiseless)
        for name, claim in papers().items():
            if claim.measure == ("miou",):
                _verdict(found, name, claim, asked.verdict(claim), known.verdict(claim))
    return found


def _verdict(found: dict[str, float], name: str, claim: Claim, verdict: Verdict, known: Verdict) -> None:
    """Whether a verdict is wrong, and whether the interval of an average covers the truth."""
    low, high = claim.expect.region
    if claim.judge == "average":
        effects_ = [known.numbers["average"]]
        found[f"average {name}"] = verdict.numbers["low"] <= effects_[0] <= verdict.numbers["high"]
    elif claim.follows:
        effects_ = [known.numbers.get("covariance", 0.0)]
    else:
        effects_ = [cell["effect"] for cell in known.cells]
    if not all(low + TINY < effect < high - TINY for effect in effects_):
        found[f"supported {name}"] = verdict.verdict == SUPPORTED
    if all(low - TINY <= effect <= high + TINY for effect in effects_):
        found[f"contradicted {name}"] = verdict.verdict == CONTRADICTED


def _laws(found: dict[str, float], cells: pd.DataFrame, true: dict[Any, float], setting: Setting) -> None:
    """Coverage of the parameters of the laws of labels, and of effective data."""
    hits = defaultdict(list)
    for curve in curves(cells, shared=setting.shared):
        if curve.place["axis"] == "downstream":
            row = fit(curve)
            y = np.array([true[curve.place["pretrain"], curve.place["intermediate"], d] for d in LABELS])
            slope = np.polyfit(np.log2(LABELS), y, 1)[0]
            hits["exponent"].append(row["c_low"] <= EXPONENT <= row["c_high"])
            hits["asymptote"].append(row["a_low"] <= y[0] + (y[1] - y[0]) / (1 - 2**-EXPONENT) <= row["a_high"])
            hits["slope"].append(row["per_doubling_low"] <= slope <= row["per_doubling_high"])
            hits["misfit"].append(row["p_fit"] >= LEAST_P)
    worth = effective_data(cells, shared=setting.shared, draws=400)
    exact = effective_data(_tables(setting, np.array(list(true.values()))[:, None]).grid, draws=1)
    inside = (worth["equivalent_low"] <= exact["equivalent"]) & (exact["equivalent"] <= worth["equivalent_high"])
    found["effective data"] = inside[exact["bound"] == ""].mean()
    found |= {name: float(np.mean(values)) for name, values in hits.items()}


def measure_setting(setting: Setting, studies: int, processes: int = 1) -> dict[str, float]:
    """Shares in percent over `studies` studies, by name."""
    seeds = range(studies)
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            results = list(pool.map(partial(once, setting), seeds, chunksize=10))
    else:
        results = [once(setting, seed) for seed in seeds]
    frame = pd.DataFrame(results).astype(float)
    told = frame.count() >= studies * LEAST  # of a claim that is seldom true, few studies can tell
    return (100 * frame.loc[:, told].mean()).to_dict()


def line(setting: Setting, shares: dict[str, float]) -> list[str]:
    """A row of the table."""
    families = [value for name, value in shares.items() if name.startswith("effect ")]
    averages = [value for name, value in shares.items() if name.startswith("average ")]
    row = [setting.name, f"{shares['cells']:.0f}", f"{shares['noisiest']:.0f}", _range(families), _range(averages)]
    for kind in ("supported ", "contradicted "):
        wrong = {name.removeprefix(kind): value for name, value in shares.items() if name.startswith(kind)}
        worst = max(wrong, key=lambda name: wrong[name], default="")
        row.append(f"{wrong[worst]:.1f} ({worst})" if wrong else "")
    return row + [f"{shares[name]:.0f}" if name in shares else "" for name in LAWS]


def _range(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}" if values else ""


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--studies", type=int, default=500, metavar="N", help="studies of each setting (default: 500)")
    parser.add_argument("--only", default="", metavar="WORDS", help="settings whose name holds these words")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--every", action="store_true", help="also print every share")
    args = parser.parse_args(argv)
    print("| " + " | ".join(COLUMNS) + " |\n|" + ":--|" + "--:|" * (len(COLUMNS) - 1), flush=True)
    for setting in SETTINGS:
        if args.only in setting.name:
            shares = measure_setting(setting, args.studies, args.processes)
            print("| " + " | ".join(line(setting, shares)) + " |", flush=True)
            if args.every:
                print("  " + ", ".join(f"{name} {value:.1f}" for name, value in shares.items()), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
