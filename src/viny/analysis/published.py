"""The published study as data, and a study's cells beside it.

    python -m viny.analysis.published --output cells.csv [--geometry FILE] [--settings FILE] [--pm-is se|sd]

Source of the numbers in `data/`: Bridge, Sun, Branyicskai-Nagy, D'Ornano, Basu, "Diminishing Returns in Self-Supervised
Learning", arXiv:2512.03862. `published_results.csv` holds Tables 1, A2 and A3,
`published_optimization.csv` Table A1, `published_geometry.csv` Table 2 of v2.
The tables never define their ±; the figure captions say standard error over 3 runs, which is how it is read here.
`--pm-is sd` reads it as a standard deviation instead (standard error = ± / sqrt 3).

`beside_paper` has one row per cell of the study and metric (`miou`, `accuracy`)

| column | content |
|---|---|
| pretrain, intermediate, downstream, metric, n | the cell, and how many runs of ours are behind it |
| ours, ours_se, published, published_se | mean and standard error, percent; empty where there is none |
| difference | ours - published, percentage points |
| combined_se, difference_in_se | sqrt(ours_se² + published_se²), and the difference divided by it |
"""

import argparse
import math
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viny import console
from viny.analysis.files import KEYS, write_csv, write_json
from viny.analysis.summary import METRICS, summarize
from viny.errors import command

RUNS = 3
# Table A1: passes over the training images of each stage. seg_train of Intel Image Classification has 14,034 images.
PRETRAIN_EPOCHS, INTERMEDIATE_EPOCHS, FINETUNE_EPOCHS, BATCH = 100, 200, 100, 64
INTEL_IMAGES = 14_034
NAMES = {"intel": "cls_intel"}  # the intermediate task's name in the tables and here


def published_cells(pm_is: str = "se") -> pd.DataFrame:
    """The 42 published cells in the summary form of cells.csv, with image passes computed from Table A1.

    Args:
        pm_is: what the tables' ± is: `se` (standard error, as the captions say) or `sd` (standard deviation).
    """
    table = _data("published_results.csv")
    scale = 1.0 if pm_is == "se" else 1 / math.sqrt(RUNS)
    task = table["intermediate"].replace(NAMES)
    return pd.DataFrame(
        {
            "study": "published",
            "pretrain": table["pretrain_size"],
            "intermediate": task,
            "downstream": table["finetune_size"],
            "seed": np.nan,
            "status": "done",
            "runs": RUNS,
            "accuracy_percent": table["accuracy_percent"],
            "accuracy_pm": table["accuracy_pm"] * scale,
            "miou_percent": table["miou_percent"],
            "miou_pm": table["miou_pm"] * scale,
            "steps": FINETUNE_EPOCHS * np.ceil(table["finetune_size"] / BATCH).astype(int),
            "image_passes": FINETUNE_EPOCHS * table["finetune_size"],
            "pretrain_passes": PRETRAIN_EPOCHS * table["pretrain_size"],
            "intermediate_passes": np.where(task == "none", 0, INTERMEDIATE_EPOCHS * INTEL_IMAGES),
        }
    )


def published_geometry() -> pd.DataFrame:
    """Table 2 of v2, one row per encoder, without error measure.

    Its probe accuracy is that on the probe's own training patches; a held-out figure was not published.
    """
    table = _data("published_geometry.csv")
    return pd.DataFrame(
        {
            "pretrain": 200_000,
            "intermediate": table["model"].replace({"pretrained": "none"}),
            "seed": np.nan,
            "status": "done",
            "within_image_variance": table["within_image_variance"],
            "across_image_variance": table["across_image_variance"],
            "probe_accuracy_percent": np.nan,
            "probe_accuracy_training_percent": table["patch_probe_accuracy_percent"],
        }
    )


def published_settings() -> dict[str, Any]:
    """Table A1 in the form of a study's settings.json."""
    stages = {}
    for row in _data("published_optimization.csv").to_dict("records"):
        row["milestones"] = [int(epoch) for epoch in row["milestones"].split()]
        phase = row.pop("phase")
        stages[phase] = {"settings": {phase.replace(" ", "."): row}}
    return {"study": "published", "miou": "not said", "stages": stages}


def beside_paper(cells: pd.DataFrame) -> pd.DataFrame:
    """Each cell of a study beside the published one, in long form; see the module's table of columns."""
    ours, theirs = summarize(cells), summarize(published_cells())
    both = ours.merge(theirs, on=KEYS, how="left", suffixes=("", "_published"), sort=False)
    frames = []
    for metric in METRICS:
        frame = both[[*KEYS]].assign(
            metric=metric,
            n=both["n"],
            ours=both[f"{metric}_percent"],
            ours_se=both[f"{metric}_se"],
            published=both[f"{metric}_percent_published"],
            published_se=both[f"{metric}_se_published"],
        )
        frame["difference"] = frame["ours"] - frame["published"]
        frame["combined_se"] = np.hypot(frame["ours_se"], frame["published_se"])
        frame["difference_in_se"] = frame["difference"] / frame["combined_se"].where(frame["combined_se"] > 0)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _data(name: str) -> pd.DataFrame:
    with resources.files("viny.analysis").joinpath("data", name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.published",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="file for the published cells")
    parser.add_argument("--geometry", type=Path, help="file for the published representation geometry")
    parser.add_argument("--settings", type=Path, help="file for the published optimization settings")
    parser.add_argument("--pm-is", choices=["se", "sd"], default="se", help="how to read the paper's ±")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    write_csv(args.output, published_cells(args.pm_is))
    if args.geometry:
        write_csv(args.geometry, published_geometry())
    if args.settings:
        write_json(args.settings, published_settings())
    console.say(f"wrote the published cells: {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
