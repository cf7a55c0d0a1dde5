"""A study and its variants as jobs."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from viny.config import Config, vary
from viny.config.cells import Cell, cells_of
from viny.config.sections import NONE, Geometry, Training
from viny.grid.jobs import AXES, SHARED, STAGES, Job
from viny.grid.stores import Needs, StoreSpec, needs, normal, stores_of


@dataclass(frozen=True)
class Study:
    """The jobs of a study and of its variants."""

    config: Config

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.config.study

    @cached_property
    def folder(self) -> Path:
        """Folder of all its results."""
        return Path(self.config.results, self.name)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of the study itself, in the order of its file."""
        return tuple(cells_of(self.config.grid))

    @cached_property
    def members(self) -> dict[str, tuple[Job, ...]]:
        """All jobs that the study (under the empty name) and each variant need, encoders first.

        A run of a variant whose key is that of the study's run in the same place is that run, and done once.
        """
        configs = {"": self.config}
        configs |= {name: vary(self.config, changes) for name, changes in self.config.variants.items()}
        stores = stores_of(list(configs.values()))
        members: dict[str, tuple[Job, ...]] = {}
        for name, config in configs.items():
            base = {(job.stage, *job.coordinates.values()): job for job in members.get("", ())}
            members[name] = tuple(dict.fromkeys(_Resolver(self.folder, name, config, stores, base).jobs()))
        return members

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """All jobs of the study and its variants by name, each once, encoders before what starts from them."""
        every = itertools.chain(*self.members.values())
        return {job.name: job for job in sorted(every, key=lambda job: STAGES.index(job.stage))}

    @cached_property
    def stores(self) -> tuple[StoreSpec, ...]:
        """All stores that the jobs read, each once."""
        return tuple(dict.fromkeys(job.store for job in self.jobs.values()))


class _Resolver:
    """Makes the jobs of a study, or of a variant of it.

    Args:
        folder: of the study's results. base: jobs of the study itself by stage and coordinates.
    """

    def __init__(
        self,
        folder: Path,
        variant: str,
        config: Config,
        stores: Mapping[Needs, StoreSpec],
        base: Mapping[tuple, Job],
    ):
        self.folder, self.variant, self.config, self.base = folder, variant, config, base
        self.settings: dict[str, Training | Geometry] = {**config.stages, "geometry": config.geometry}
        # An intermediate task that is not in the grid has no store.
        self.stores = {section: stores.get(needs(config, section)) for section in config.stages}
        self.stores["geometry"] = self.stores["finetune"]
        self._made: dict[tuple, Job] = {}

    def jobs(self) -> Iterator[Job]:
        """All jobs that the cells need, encoders first."""
        cells = tuple(cells_of(self.config.grid))
        encoders = [self._encoder(size, task, seed) for size, task, _, seed in cells]
        yield from sorted(self._made.values(), key=lambda job: STAGES.index(job.stage))
        for cell, encoder in zip(cells, encoders, strict=True):
            yield self._job("finetune", "finetune", cell, cell.downstream, encoder)
        for cell, encoder in zip(cells, encoders, strict=True):
            if self.config.geometry.enabled and (encoder or cell.pretrain != 0):
                seed = encoder.coordinates["seed"] if encoder else cell.seed
                place = cell.pretrain, cell.intermediate, seed
                yield self._job("geometry", "geometry", place, self.config.geometry.images, encoder)

    def _encoder(self, size: int | str, task: str, seed: int) -> Job | None:
        """The job that makes the encoder of a cell; None for random weights and for encoders from elsewhere."""
        config = self.config
        if task != NONE:
            start, count = self._encoder(size, NONE, seed), config.intermediate[task].count
            return self._job("intermediate", f"intermediate.{task}", (size, task, seed), count, start)
        if isinstance(size, str) or size == 0:
            return None
        return self._job("pretrain", "pretrain", (size, SHARED if config.grid.share_encoder else seed), size)

    def _job(self, stage: str, section: str, place: tuple, images: int | None, upstream: Job | None = None) -> Job:
        """A job, or the study's own where that is the same run."""
        if (stage, *place) not in self._made:
            job, twin = self._resolved(stage, section, place, images, upstream), self.base.get((stage, *place))
            self._made[stage, *place] = twin if twin is not None and twin.key == job.key else job
        return self._made[stage, *place]

    def _resolved(self, stage: str, section: str, place: tuple, images: int | None, upstream: Job | None) -> Job:
        config, coordinates, settings = self.config, dict(zip(AXES[stage], place, strict=True)), self.settings[section]
        external = config.encoders.get(coordinates["pretrain"]) if upstream is None else None
        encoder = upstream.checkpoint if upstream else None
        if external and external.file:
            encoder = normal(config.data.root, external.file)
        store = self.stores[section]
        assert store is not None
        own = f"variants/{self.variant}" if self.variant else ""
        return Job(
            study=config.study,
            variant=self.variant,
            stage=stage,
            task=settings.task if isinstance(settings, Training) else "geometry",
            section=section,
            coordinates=coordinates,
            folder=self.folder / own / stage / Path(*(f"{axis}={value}" for axis, value in coordinates.items())),
            root=self.folder,
            settings=settings,
            model=config.model,
            seeding=config.seeding,
            seed=0 if coordinates["seed"] == SHARED else coordinates["seed"],
            images=images,
            store=store,
            upstream=upstream,
            encoder=encoder,
            pretrained=external.timm if external else None,
        )
