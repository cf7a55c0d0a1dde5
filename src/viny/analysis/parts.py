"""What follows from the tables of a study, part by part; each is computed once and only if it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from viny.analysis import (
    buy,
    chance,
    figures,
    forecast,
    heldout,
    image_errors,
    outlook,
    page,
    pictures,
    runs,
    scaling,
    style,
    tables,
    variants,
)
from viny.analysis.claims import judge
from viny.analysis.crossed import crossed, crossed_table
from viny.analysis.effective_data import effective_data
from viny.analysis.effects import effects, of_all, of_encoders
from viny.analysis.formats import Table
from viny.analysis.frames import PUBLISHED, Tables, on_grid, write_csv, write_json
from viny.analysis.published import beside_paper
from viny.analysis.readings import holding, published_tables, readings, readings_table
from viny.analysis.seals import read_seals
from viny.analysis.summary import with_encoders
from viny.analysis.transfer import transfer_law, transfer_table
from viny.analysis.verdicts import NOT_TESTED
from viny.files import write_text


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of an analysis, and writing them to `output`.

    Attributes:
        measured: everything, runs of variants too. source: the study's own.
        note: what figures and page carry. command: what the page says it was made by.
        complete: all parts are written, so the page may point to them.
    """

    measured: Tables
    output: Path
    note: str = ""
    command: str = ""
    complete: bool = False

    @property
    def source(self) -> Tables:
        return self.measured.own

    @cached_property
    def statistics(self) -> dict[str, pd.DataFrame]:
        """The files of statistics/ by name; a comparison with the paper where the data sets are the paper's."""
        cells, confidence, shared = self.source.grid, self.source.confidence, self.source.shares_encoders
        fits = scaling.fit_curves(cells, confidence, shared)
        draws = image_errors.resample(self.source.jobs, self.source.settings.get("miou", "dataset"))
        summary = chance.with_chance(with_encoders(self.source.cells), self.source.cells)
        found = {
            "summary": image_errors.of_cells(summary, draws, confidence),
            "effects": image_errors.of_effects(effects(cells, confidence, shared), draws, confidence),
            "scaling": fits,
            "scaling_curves": scaling.curve_points(cells, fits, confidence, shared),
            "doubling": scaling.gain_per_doubling(cells, confidence, shared),
            "effective_data": effective_data(cells, confidence, shared=shared),
        }
        if self.source.on_paper_data and self.source.name != PUBLISHED:
            found["beside_paper"] = beside_paper(cells)
        if len(self.source.variants):
            found["variants"] = variants.compare(on_grid(self.source.variants), confidence)
        return found | {name: frame for name, frame in self._outlook().items() if len(frame)}

    def _outlook(self) -> dict[str, pd.DataFrame]:
        """What not every study can say: of encoders from elsewhere, cells not run, a goal; no rows where it cannot."""
        source, cells, confidence = self.source, self.source.grid, self.source.confidence
        found = {
            "encoders": of_encoders(source.cells, confidence),
            "forecast": forecast.every_forecast(cells, read_seals(source.folder, source.name), confidence),
            "isoquants": buy.isoquants(cells, source.goal, confidence),
            "heldout_loss": heldout.loss_against_miou(cells, confidence),
            "crossed": crossed(on_grid(source.variants), source.settings.get("variants", {}), confidence),
        }
        if (cells["pretrain"] > 0).any():
            found["transfer"] = transfer_law(cells, confidence)
        if source.goal is not None:
            found["goal"] = buy.cost_of(cells, source.goal, source.prices, confidence)
        if source.budget is not None:
            found["budget"] = buy.bought_for(cells, source.budget, source.prices, confidence)
        return found

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """A record for each claim; of the paper's numbers with the readings of the paper in which it holds."""
        records = judge(self.source)
        if self.source.name == PUBLISHED:
            holds = holding(self.readings)
            for record in (each for each in records if each["verdict"] != NOT_TESTED):
                record["reason"] += (
                    f"; holds in {holds[record['id']]} of {self.readings.shape[1]} readings of the paper"
                )
        return records

    @cached_property
    def readings(self) -> pd.DataFrame:
        """Verdicts on the paper's numbers under every reading of the paper."""
        return readings()

    @cached_property
    def remark(self) -> str:
        """What the errors over runs leave out, in words; empty if it is not known."""
        return image_errors.sentence(self.statistics["summary"], self.statistics["effects"])

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The files of tables/ by name."""
        remarks = [self.remark, chance.of_segmentation(self.statistics["summary"]), chance.other_masks(self.source)]
        found = tables.score_tables(self.source.cells, remarks)
        if self.source.name == PUBLISHED:
            found = published_tables()
        found["tableA1_settings"] = tables.settings_table(self.source.settings)
        found["table2_geometry"] = tables.geometry_table(self.source.geometry)
        if self.source.name == PUBLISHED:
            found["readings"] = readings_table(self.readings, self.claims)
        if "variants" in self.statistics:
            cells, compared = on_grid(self.source.variants), self.statistics["variants"]
            found["variants"] = variants.variants_table(cells, compared, self.source.confidence)
        found |= self._outlook_tables()
        if "beside_paper" in self.statistics:
            found["beside_paper"] = tables.beside_table(self.statistics["beside_paper"])
        return found

    def _outlook_tables(self) -> dict[str, Table]:
        """Those with something to say, and a last one of what the data cannot answer."""
        source, statistics, confidence = self.source, self.statistics, self.source.confidence
        made = {
            "goal": lambda frame: buy.goal_table(frame, source.prices, confidence),
            "budget": lambda frame: buy.budget_table(frame, confidence),
            "forecast": lambda frame: forecast.forecast_table(frame, confidence),
            "transfer": lambda frame: transfer_table(frame, confidence),
            "heldout_loss": lambda frame: heldout.loss_table(frame, confidence),
            "crossed": lambda frame: crossed_table(frame, confidence),
        }
        refused = _refusals(source, statistics)
        found = {
            name: make(statistics[name]) for name, make in made.items() if name in statistics.keys() - refused.keys()
        }
        if refused:
            rows = [[page.QUESTIONS[name], reason] for name, reason in refused.items()]
            found["unanswered"] = Table("", "What these data cannot answer.", ["question", "why"], rows, left=2)
        return found

    @cached_property
    def figures(self) -> dict[str, Callable[[], Figure]]:
        """The files of figures/ by name: functions that draw them."""
        found, source = self.statistics, self.source
        fits = found["scaling_curves"], found["scaling"]
        drawn: dict[str, Callable[[], Figure]] = {
            "miou": partial(figures.miou_by_size, found["summary"]),
            "change_by_pretraining": partial(figures.change_by, "pretrain", of_all(found)),
            "change_by_intermediate": partial(figures.change_by, "intermediate", found["effects"]),
            "scaling_fits": partial(figures.scaling_fits, on_grid(found["summary"]), *fits),
            "gain_per_doubling": partial(figures.gain_per_doubling, found["doubling"]),
            "effective_data": partial(figures.effective_data, found["effective_data"]),
            "gain_against_compute": partial(figures.gain_against_compute, source.grid),
        }
        if "forecast" in found and found["forecast"]["measured"].notna().any():
            drawn["forecast"] = partial(outlook.forecasts, found["forecast"])
        if "isoquants" in found and (found["isoquants"]["pretrain"] > 0).any():
            drawn["isoquants"] = partial(outlook.isoquants, found["isoquants"])
        if "heldout_loss" in found and (found["heldout_loss"]["reason"] == "").any():
            drawn["heldout_loss"] = partial(outlook.heldout_loss, heldout.points(source.grid), found["heldout_loss"])
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
        self.measured.write(self.output)

    def write_statistics(self) -> None:
        """Write statistics/*.csv."""
        for name, frame in self.statistics.items():
            write_csv(self.output / f"statistics/{name}.csv", frame)

    def write_claims(self) -> None:
        """Write claims.json and claims.md."""
        study, confidence = self.source.name, self.source.confidence
        document = {"study": study, "confidence": confidence, "claims": self.claims}
        write_json(self.output / "claims.json", document)
        write_text(self.output / "claims.md", page.claims_page(study, confidence, self.claims))

    def write_tables(self) -> None:
        """Write tables/*.csv, .md, .tex and .html."""
        for name, table in self.tables.items():
            table.write(self.output / f"tables/{name}")

    def write_figures(self) -> None:
        """Write figures/*.png and .pdf; remove older ones that the study no longer has."""
        style.apply()
        for name in set(page.FIGURES) - self.figures.keys():
            for suffix in ("png", "pdf"):
                (self.output / f"figures/{name}.{suffix}").unlink(missing_ok=True)
        for name, draw in self.figures.items():
            style.save(draw(), self.output / f"figures/{name}", self.note)

    def write_page(self) -> None:
        """Write overview.html, with the pictures that are in figures/."""
        made = page.Page(
            self.source,
            runs.table(self.measured, self.output),
            self.statistics,
            self.claims,
            self.tables,
            self.output,
            [*self.measured.files, "settings.json"] if self.complete else (),
            self.note,
            self.remark,
            self.command,
        )
        write_text(self.output / "overview.html", made.text())


def _refusals(source: Tables, statistics: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Why some questions have no answer, of those that the study is about."""
    found = {}
    if "isoquants" not in statistics:
        found["goal" if source.goal or source.budget else "forecast"] = buy.NO_LAW
    if "transfer" in statistics:
        found["transfer"] = statistics["transfer"]["reason"].iloc[0]
        losses = statistics.get("heldout_loss")
        if losses is None:
            found["heldout_loss"] = "no loss of an encoder on held-out images is recorded"
        elif (losses["reason"] != "").all():
            found["heldout_loss"] = losses["reason"].iloc[0]
    return {name: reason for name, reason in found.items() if reason}
