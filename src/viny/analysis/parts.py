"""What follows from the tables of a study, part by part; each is computed once and only if it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from viny.analysis import chance, figures, image_errors, page, pictures, scaling, style, tables, variants
from viny.analysis.claims import judge
from viny.analysis.effective_data import effective_data
from viny.analysis.effects import effects
from viny.analysis.formats import Table
from viny.analysis.frames import PUBLISHED, Tables, on_grid, write_csv, write_json
from viny.analysis.published import beside_paper
from viny.analysis.summary import with_encoders
from viny.files import write_text


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of an analysis of `source`, and writing them to `output`; figures and page carry `note`."""

    source: Tables
    output: Path
    note: str = ""

    @cached_property
    def statistics(self) -> dict[str, pd.DataFrame]:
        """The files of statistics/ by name; a comparison with the paper where the data sets are the paper's."""
        cells, confidence = self.source.grid, self.source.confidence
        fits = scaling.fit_curves(cells, confidence)
        draws = image_errors.resample(self.source.jobs, self.source.settings.get("miou", "dataset"))
        summary = chance.with_chance(with_encoders(self.source.cells), self.source.cells)
        found = {
            "summary": image_errors.of_cells(summary, draws, confidence),
            "effects": image_errors.of_effects(effects(cells, confidence), draws, confidence),
            "scaling": fits,
            "scaling_curves": scaling.curve_points(cells, fits, confidence),
            "doubling": scaling.gain_per_doubling(cells, confidence),
            "effective_data": effective_data(cells, confidence),
        }
        if self.source.on_paper_data and self.source.name != PUBLISHED:
            found["beside_paper"] = beside_paper(cells)
        if len(self.source.variants):
            found["variants"] = variants.compare(on_grid(self.source.variants), confidence)
        return found

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """A record for each claim."""
        return judge(self.source)

    @cached_property
    def remark(self) -> str:
        """What the errors over runs leave out, in words; empty if it is not known."""
        return image_errors.sentence(self.statistics["summary"], self.statistics["effects"])

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The files of tables/ by name."""
        remarks = [self.remark, chance.of_segmentation(self.statistics["summary"])]
        found = tables.score_tables(self.source.cells, [*remarks, chance.other_masks(self.source)])
        found["tableA1_settings"] = tables.settings_table(self.source.settings)
        found["table2_geometry"] = tables.geometry_table(self.source.geometry)
        if "variants" in self.statistics:
            cells, compared = on_grid(self.source.variants), self.statistics["variants"]
            found["variants"] = variants.variants_table(cells, compared, self.source.confidence)
        if "beside_paper" in self.statistics:
            found["beside_paper"] = tables.beside_table(self.statistics["beside_paper"])
        return found

    @cached_property
    def figures(self) -> dict[str, Callable[[], Figure]]:
        """The files of figures/ by name: functions that draw them."""
        found, source = self.statistics, self.source
        fits = found["scaling_curves"], found["scaling"]
        drawn: dict[str, Callable[[], Figure]] = {
            "miou": partial(figures.miou_by_size, found["summary"]),
            "change_by_pretraining": partial(figures.change_by, "pretrain", found["effects"]),
            "change_by_intermediate": partial(figures.change_by, "intermediate", found["effects"]),
            "scaling_fits": partial(figures.scaling_fits, on_grid(found["summary"]), *fits),
            "gain_per_doubling": partial(figures.gain_per_doubling, found["doubling"]),
            "effective_data": partial(figures.effective_data, found["effective_data"]),
            "gain_against_compute": partial(figures.gain_against_compute, source.grid),
        }
        if "beside_paper" in found:
            drawn["beside_paper"] = partial(figures.beside_paper, found["beside_paper"])
        if "variants" in found:
            drawn["variants"] = partial(figures.variants, found["variants"])
        for stage in dict.fromkeys(source.histories["stage"]):
            drawn[f"training_{stage}"] = partial(figures.training_curves, source.histories, stage)
        if len(source.similarity):
            drawn["similarity_by_distance"] = partial(figures.similarity_by_distance, source.similarity)
        return drawn | pictures.figures(source.jobs)

    def write_cells(self) -> None:
        """Write the tables themselves."""
        self.source.write(self.output)

    def write_statistics(self) -> None:
        """Write statistics/*.csv."""
        for name, frame in self.statistics.items():
            write_csv(self.output / f"statistics/{name}.csv", frame)

    def write_claims(self) -> None:
        """Write claims.json and claims.md."""
        study, alpha = self.source.name, 1 - self.source.confidence
        write_json(self.output / "claims.json", {"study": study, "alpha": alpha, "claims": self.claims})
        write_text(self.output / "claims.md", page.claims_page(study, alpha, self.claims))

    def write_tables(self) -> None:
        """Write tables/*.csv, .md, .tex and .html."""
        for name, table in self.tables.items():
            table.write(self.output / f"tables/{name}")

    def write_figures(self) -> None:
        """Write figures/*.png and .pdf; remove older ones that the study no longer has."""
        style.apply()
        for name in page.FIGURES.keys() - self.figures.keys():
            for suffix in ("png", "pdf"):
                (self.output / f"figures/{name}.{suffix}").unlink(missing_ok=True)
        for name, draw in self.figures.items():
            style.save(draw(), self.output / f"figures/{name}", self.note)

    def write_page(self) -> None:
        """Write overview.html with the figures that are there."""
        text = page.page(self.source, self.claims, self.tables, self.output / "figures", self.note, self.remark)
        write_text(self.output / "overview.html", text)
