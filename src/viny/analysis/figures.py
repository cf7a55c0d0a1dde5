"""The figures that are drawn from tables: scores, effects, fits and compute.

    python -m viny.analysis.figures --cells results/demo/cells.csv --statistics results/demo/statistics \
        --output results/demo/figures

| figure (PNG and PDF) | shows |
|---|---|
| miou | mIoU by pre-training and fine-tuning size |
| change_by_intermediate, change_by_pretraining | paired differences with standard errors |
| scaling_fits | saturating power laws |
| gain_per_doubling | points of mIoU per doubling of data |
| effective_data | what pre-training is worth in labeled images |
| gain_against_compute | mIoU against images seen and seconds spent |
"""

import argparse
from pathlib import Path

from viny import console
from viny.analysis import figures_results, figures_scaling, style
from viny.analysis.files import KEYS, read_cells, read_frame
from viny.analysis.summary import summarize
from viny.errors import command


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--statistics", type=Path, required=True, help="folder of the statistics")
    parser.add_argument("--note", default="", help="a word on the data, shown in the figure")
    parser.add_argument("--output", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    style.apply()
    cells = read_cells(args.cells)
    summary = summarize(cells)
    effects = read_frame(args.statistics / "effects.csv", ["family", *KEYS, "effect", "se"])
    fits = read_frame(args.statistics / "scaling.csv", ["pretrain", "intermediate", "determined"])
    curves = read_frame(args.statistics / "scaling_curves.csv", ["axis", "law", *KEYS, "miou_percent", "low", "high"])
    doubling = read_frame(args.statistics / "doubling.csv", ["axis", *KEYS, "from", "to", "gain", "se"])
    effective = read_frame(args.statistics / "effective_data.csv", [*KEYS, "equivalent", "bound"])
    drawn = {
        "miou": figures_results.miou_by_size(summary),
        "change_by_intermediate": figures_results.change_by_intermediate(effects),
        "change_by_pretraining": figures_results.change_by_pretraining(effects),
        "scaling_fits": figures_scaling.scaling_fits(summary, curves, fits),
        "gain_per_doubling": figures_scaling.gain_per_doubling(doubling),
        "effective_data": figures_scaling.effective_data(effective),
        "gain_against_compute": figures_scaling.gain_against_compute(cells),
    }
    for name, figure in drawn.items():
        style.save(figure, args.output / name, args.note)
    console.say(f"{len(drawn)} figures in {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
