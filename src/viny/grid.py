"""From a study file to its jobs, fully resolved: settings, images, encoder, seed, and the name of every file.

Paths say what they hold, one `key=value` per folder:

    <results>/<study>/pretrain/pretrain=45000/seed=1/
    <results>/<study>/intermediate/pretrain=45000/intermediate=cls_intel/seed=1/
    <results>/<study>/finetune/pretrain=45000/intermediate=cls_intel/downstream=250/seed=1/
    <results>/<study>/geometry/pretrain=45000/intermediate=cls_intel/seed=1/
    <results>/<study>/variants/no_norm/finetune/pretrain=45000/...     runs of a variant alone
    <stores>/pets-1f0c9a7e/128px-seed0-test1000-train6000/
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from viny.config import Config, vary
from viny.config.sections import NONE, DataSet, Geometry, Grid, Model, Procedural, Training
from viny.fingerprint import code_fingerprint, fingerprint

SHARED = "shared"  # the seed in the path of an encoder that all seeds start from
BASE = "base"  # what tables of variants call the study itself

STAGES = ("pretrain", "intermediate", "finetune", "geometry")
# The axes that name the runs of a stage, in the order of their folders.
AXES = {
    "pretrain": ("pretrain", "seed"),
    "intermediate": ("pretrain", "intermediate", "seed"),
    "finetune": ("pretrain", "intermediate", "downstream", "seed"),
    "geometry": ("pretrain", "intermediate", "seed"),
}
# What Snakemake knows of a job's results beside metrics.json.
CHECKPOINTS = {
    "pretrain": "encoder.safetensors",
    "intermediate": "encoder.safetensors",
    "finetune": "model.safetensors",
    "geometry": "similarity.npz",
}
PROCEDURAL = Path("resources/procedural")
# Where each generated data set lies below its root: the layouts of the published archives.
PROCEDURAL_LAYOUT = {"imagenet": "imagenet/train", "intel": "intel", "pets": "oxford-iiit-pet"}


class Cell(NamedTuple):
    """One point of the grid.

    Attributes:
        pretrain: number of pre-training images, 0 for random initialization; or the name of an encoder.
        intermediate: name of the task, or `none`.
    """

    pretrain: int | str
    intermediate: str
    downstream: int
    seed: int


@dataclass(frozen=True, eq=False)
class StoreSpec:
    """A part of a data set, decoded once for all studies: test images first, then training images.

    Attributes:
        name: of the data set in the study file.
        source: the images as published: a folder or an archive.
        spec: how they are read.
        procedural: the recipe, if the images are generated.
        pixels: side of the stored images.
        tests: number of test images where the set has no published test split; None for a fifth of all images.
        images: number of training images after them; None for all.
        tested: the stores with the test images that must not be trained on; none for its own.
        leaks: what to do about those that are, `stop`, `drop` or `allow`.
    """

    name: str
    source: Path
    spec: DataSet
    procedural: Procedural | None
    pixels: int
    split_seed: int
    tests: int | None
    images: int | None
    bad_images: str
    root: Path  # folder of all stores
    base: Path  # data.root: what paths of `spec` other than `images` are relative to
    tested: "tuple[StoreSpec, ...]" = ()
    leaks: str = "allow"

    @cached_property
    def key(self) -> str:
        """8 hexadecimal digits for the source, how it is read and decoded; lists count with their content."""
        source = self.recipe or [str(self.source), str(self.base)]
        lists = [self.spec.labels, self.spec.groups, *(self.spec.splits or {}).values()]
        content = [_identity(self.base / path) for path in lists if path and path != "folders"]
        spec = self.spec.model_dump(mode="json")
        parts = [source, spec, content, self.bad_images, code_fingerprint("decoding")]
        if self.leaks == "drop":
            parts += ["drop", *(str(tested.folder) for tested in self.tested)]
        return fingerprint(parts)[:8]

    @cached_property
    def content(self) -> str:
        """Fingerprint of what decides its images apart from the files themselves and how many there are.

        Where files lie is no part of it, so that runs stay valid when data are moved, or are not here at all; that the
        files are still the same is told by the checksums of decoded images.
        """
        images = self.recipe or self.spec.model_dump(mode="json", include={"layout", "classes", "ignore"})
        parts = [images, self.pixels, self.split_seed, self.tests]
        if self.leaks == "drop":
            parts += ["drop", *(tested.content for tested in self.tested)]
        return fingerprint(parts)

    @property
    def recipe(self) -> str | None:
        """Fingerprint of all that decides generated images, their code included; None for real ones."""
        return recipe(self.procedural, self.name) if self.procedural else None

    @cached_property
    def folder(self) -> Path:
        """Where it is; whole if it is there."""
        tests, images = ("auto" if self.tests is None else self.tests), ("all" if self.images is None else self.images)
        part = f"{self.pixels}px-seed{self.split_seed}-test{tests}-train{images}"
        return self.root / f"{self.name}-{self.key}" / part

    @property
    def manifest(self) -> Path:
        """The file that describes it."""
        return self.folder / "manifest.json"

    @property
    def log(self) -> Path:
        """Log of its decoding."""
        return Path("logs/stores", self.folder.relative_to(self.root)).with_suffix(".log")


@dataclass(frozen=True, eq=False)
class Job:
    """One run of one stage, with everything that it needs.

    Attributes:
        task: module of `viny.tasks` that it runs.
        section: where its settings are in the study file: `pretrain`, `intermediate.cls_intel`, ...
        coordinates: its place in the grid, by axis; the seed of a shared encoder is `shared`.
        folder: where its results are.
        seed: of everything random in it.
        images: number of training images; None for all of the store.
        store: the images that it reads. upstream: the job whose encoder it starts from.
        encoder: file that it starts from; None for random weights.
        pretrained: name of timm's model whose weights it starts from: those of `encoder`, or else timm's own.
    """

    study: str
    variant: str
    stage: str
    task: str
    section: str
    coordinates: Mapping[str, int | str]
    folder: Path
    root: Path  # of the study's results
    settings: Training | Geometry
    model: Model
    seeding: str
    seed: int
    images: int | None
    store: StoreSpec
    upstream: "Job | None" = None
    encoder: Path | None = None
    pretrained: str | None = None

    @property
    def name(self) -> str:
        """`finetune/pretrain=0/intermediate=none/downstream=32/seed=1`, its path below the study's results."""
        return self.folder.relative_to(self.root).as_posix()

    @property
    def kind(self) -> str:
        """`pretrain`, `intermediate cls_intel`, `finetune`, `geometry`: runs of a kind share code and settings."""
        return self.section.replace(".", " ")

    @property
    def metrics(self) -> Path:
        """Its metrics.json."""
        return self.folder / "metrics.json"

    @property
    def checkpoint(self) -> Path:
        """Its weights; of a measurement, its arrays."""
        return self.folder / CHECKPOINTS[self.stage]

    @property
    def log(self) -> Path:
        """Its log."""
        return Path("logs", self.study, f"{self.name}.log")

    @property
    def state(self) -> Path:
        """Folder of the states of the study's running jobs; no declared output, which Snakemake would delete."""
        return self.root / ".state"

    @property
    def recorded_settings(self) -> dict[str, Any]:
        """Settings that define the run, by section, as metrics.json records them."""
        own = json.loads(_dumped(self.settings))
        return {"model": json.loads(_dumped(self.model)), self.section: own, "seeding": self.seeding}

    @property
    def architecture(self) -> str:
        """Module of `viny.encoders` with its encoder."""
        if self.upstream:
            return self.upstream.architecture
        return "timm_vit" if self.model.timm or self.pretrained else "vit"

    @cached_property
    def code(self) -> str:
        """Fingerprint of the code that computes its numbers."""
        return code_fingerprint(self.task, self.architecture)

    @cached_property
    def key(self) -> str:
        """Fingerprint of everything that defines the run: settings, code, images, and the same of its encoder."""
        start = self.upstream.key if self.upstream else _identity(self.encoder) if self.encoder else self.pretrained
        parts = [self.stage, _dumped(self.settings), _dumped(self.model), self.seeding, self.seed, self.images]
        return fingerprint([*parts, self.store.content, self.code, start])


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
        stores = Stores(configs.values())
        base = tuple(dict.fromkeys(_Resolver(self, "", self.config, stores).jobs()))
        own = {(job.stage, *job.coordinates.values()): job for job in base}
        members = {"": base}
        for name, config in configs.items():
            if name:
                members[name] = tuple(_Resolver(self, name, config, stores, own).jobs())
        return members

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """All jobs of the study and its variants by name, each once, encoders before what starts from them."""
        every = itertools.chain(*self.members.values())
        order = sorted(dict.fromkeys(every), key=lambda job: STAGES.index(job.stage))
        return {job.name: job for job in order}

    @cached_property
    def stores(self) -> tuple[StoreSpec, ...]:
        """All stores that the jobs read, each once."""
        return tuple(dict.fromkeys(job.store for job in self.jobs.values()))


def cells_of(grid: Grid) -> Iterator[Cell]:
    """The product of the axes without what `exclude` names."""
    excluded = [exclusion(entry) for entry in grid.exclude]
    for place in itertools.product(grid.pretrain, grid.intermediate, grid.downstream, grid.seeds):
        if not any(all(place[axis] in values for axis, values in entry) for entry in excluded):
            yield Cell(*place)


def exclusion(entry: Mapping[str, Any]) -> list[tuple[int, frozenset]]:
    """An entry of `exclude` as pairs of a position in Cell and the values excluded there."""
    return [
        (Cell._fields.index(key), frozenset(value if isinstance(value, list | tuple) else [value]))
        for key, value in entry.items()
    ]


class Stores:
    """The stores of a study and its variants: of each data set, pixels and test images one, as large as any job needs.

    Args:
        configs: of the study and its variants.
    """

    def __init__(self, configs: Iterator[Config] | Any):
        self._sizes: dict[tuple, int | None] = {}
        self._tested: dict[tuple, dict[tuple, None]] = {}
        finals = set()
        for config in configs:
            final = (config.finetune.images, config.model.image_size, held_back(config, "finetune"))
            finals.add(final)
            for place, images in _demands(config):
                self._tested.setdefault(place, {})[final] = None
                known = self._sizes.get(place, 0)
                self._sizes[place] = None if known is None or images is None else max(known, images)
        for place in finals:  # is tested on its own images
            self._tested[place] = {}
        self._made: dict[tuple, StoreSpec] = {}

    def get(self, config: Config, name: str, pixels: int, tests: int | None) -> StoreSpec:
        """The store of the data set `name` at `pixels` whose first `tests` images are test images."""
        place = (name, pixels, tests)
        if place not in self._made:
            data, procedural = config.data, config.data.procedural
            source = Path(data.root, data.sets[name].images).expanduser()
            if procedural:
                source = PROCEDURAL / recipe(procedural, name) / PROCEDURAL_LAYOUT[name]
            tested = [self.get(config, *other) for other in self._tested[place]]
            own = any(each.layout == "auto" for each in (data.sets[name], *(other.spec for other in tested)))
            self._made[place] = StoreSpec(
                name=name,
                source=Path(os.path.normpath(source)),
                spec=data.sets[name],
                procedural=procedural,
                pixels=pixels,
                split_seed=data.split_seed,
                tests=tests,
                images=self._sizes[place],
                bad_images=data.bad_images,
                root=Path(config.stores),
                base=Path(os.path.normpath(Path(data.root).expanduser())),
                tested=tuple(tested),
                leaks=data.leaks or ("stop" if own else "allow"),
            )
        return self._made[place]


def recipe(procedural: Procedural, name: str) -> str:
    """Fingerprint of all that decides a generated data set, its code included."""
    count, pixels, seed = getattr(procedural, name), procedural.pixels, procedural.seed
    return fingerprint([name, count, pixels, seed, code_fingerprint("procedural")])[:8]


def _demands(config: Config) -> Iterator[tuple[tuple[str, int, int | None], int | None]]:
    """(data set, pixels, test images) and number of training images that each stage needs."""
    grid, pixels = config.grid, config.model.image_size
    sizes = [size for size in grid.pretrain if isinstance(size, int) and size > 0]
    if sizes:
        yield (config.pretrain.images, config.data.store_pixels, held_back(config, "pretrain")), max(sizes)
    for task in grid.intermediate:
        if task != NONE:
            settings = config.intermediate[task]
            tests = held_back(config, f"intermediate.{task}")
            yield (settings.images, pixels, tests), settings.count
    tests = held_back(config, "finetune")
    yield (config.finetune.images, pixels, tests), max(grid.downstream)
    if config.geometry.enabled:
        yield (config.finetune.images, pixels, tests), config.geometry.images


def held_back(config: Config, section: str) -> int | None:
    """Images at the beginning of a data set's order that a stage must not train on, if there is no published split.

    Images that segmentation is tested on are never trained on in an earlier stage.
    """
    tests = config.finetune.test_images
    if section == "finetune":
        return tests
    own: int | None
    if section == "pretrain":
        images, own = config.pretrain.images, config.pretrain.heldout_images
    else:
        task = config.intermediate[section.partition(".")[2]]
        images, own = task.images, task.test_images
    if images == config.finetune.images:
        return max(own or 0, tests)
    return own


class _Resolver:
    """Makes the jobs of a study, or of a variant of it."""

    def __init__(
        self, study: Study, variant: str, config: Config, stores: Stores, base: Mapping[tuple, Job] | None = None
    ):
        self.study, self.variant, self.config, self.stores, self.base = study, variant, config, stores, base or {}
        self.cells = tuple(cells_of(config.grid))
        self._made: dict[tuple, Job] = {}

    def jobs(self) -> Iterator[Job]:
        """All jobs that the cells need, encoders first, each once."""
        for size, task, _, seed in self.cells:
            self._encoder(size, task, seed)
        encoders = list(self._made.values())
        yield from sorted(encoders, key=lambda job: STAGES.index(job.stage))
        for size, task, labels, seed in self.cells:
            yield self._job(
                "finetune", "finetune", (size, task, labels, seed), labels, upstream=self._encoder(size, task, seed)
            )
        if self.config.geometry.enabled:
            for size, task, seed in dict.fromkeys((cell[0], cell[1], cell[3]) for cell in self.cells):
                encoder = self._encoder(size, task, seed)
                if encoder or size != 0:
                    at = seed if encoder is None or encoder.stage == "intermediate" else encoder.coordinates["seed"]
                    images = self.config.geometry.images
                    yield self._job("geometry", "geometry", (size, task, at), images, upstream=encoder)

    def _encoder(self, size: int | str, task: str, seed: int) -> Job | None:
        """The job that makes the encoder of a cell; None for random weights and for encoders that nobody trains."""
        config = self.config
        if task != NONE:
            count = config.intermediate[task].count
            section = f"intermediate.{task}"
            return self._job(
                "intermediate", section, (size, task, seed), count, upstream=self._encoder(size, NONE, seed)
            )
        if isinstance(size, str) or size == 0:
            return None
        return self._job("pretrain", "pretrain", (size, SHARED if config.grid.share_encoder else seed), size)

    def _job(self, stage: str, section: str, place: tuple, images: int | None, upstream: Job | None = None) -> Job:
        if (stage, *place) in self._made:
            return self._made[stage, *place]
        job = self._resolved(stage, section, place, images, upstream)
        twin = self.base.get((stage, *place))
        if twin is not None and twin.key == job.key:
            job = twin
        self._made[stage, *place] = job
        return job

    def _resolved(self, stage: str, section: str, place: tuple, images: int | None, upstream: Job | None) -> Job:
        config, coordinates = self.config, dict(zip(AXES[stage], place, strict=True))
        settings: Any = config
        for part in section.split("."):
            settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
        reads = config.finetune if stage == "geometry" else settings
        pixels = config.data.store_pixels if stage == "pretrain" else config.model.image_size
        tests = held_back(config, "finetune" if stage == "geometry" else section)
        own = f"variants/{self.variant}" if self.variant else ""
        folder = self.study.folder / own / stage / Path(*(f"{axis}={value}" for axis, value in coordinates.items()))
        external = config.encoders.get(coordinates["pretrain"]) if upstream is None else None
        encoder = upstream.checkpoint if upstream else None
        if external and external.file:
            encoder = Path(os.path.normpath(Path(config.data.root, external.file).expanduser()))
        seed = coordinates["seed"]
        return Job(
            study=self.study.name,
            variant=self.variant,
            stage=stage,
            task="geometry" if stage == "geometry" else settings.task,
            section=section,
            coordinates=coordinates,
            folder=folder,
            root=self.study.folder,
            settings=settings,
            model=config.model,
            seeding=config.seeding,
            seed=0 if seed == SHARED else int(seed),
            images=images,
            store=self.stores.get(config, reads.images, pixels, tests),
            upstream=upstream,
            encoder=encoder,
            pretrained=external.timm if external else None,
        )


@cache
def _dumped(section: Training | Geometry | Model) -> str:
    """A section as JSON, without what cannot change a number: the name under which a data set goes, a switch."""
    return section.model_dump_json(exclude={"enabled"} if isinstance(section, Geometry) else {"images"})


@cache
def _identity(path: Path) -> str:
    """Identity of a file that no job makes: its content, or its name as long as it is not there."""
    from viny.files import file_sha256

    return file_sha256(path) if path.is_file() else str(path)
