"""The stores of a study: of each data set, pixels and test images one, as large as any job needs."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from viny.config import Config
from viny.config.cells import held_back
from viny.config.sections import NONE, DataSet, Procedural
from viny.files import file_sha256
from viny.fingerprint import code_fingerprint, fingerprint

PROCEDURAL = Path("resources/procedural")
# Where each generated data set lies below its root: the layouts of the published archives.
PROCEDURAL_LAYOUT = {"imagenet": "imagenet/train", "intel": "intel", "pets": "oxford-iiit-pet"}

Needs = tuple[str, int, int | None, int, str]  # a stage's data set, pixels, test images, seed of the split, resizing


@dataclass(frozen=True, eq=False)
class StoreSpec:
    """A part of a data set, decoded once for all studies: test images first, then training images.

    Attributes:
        name: of the data set in the study file.
        source: the images as published: a folder or an archive.
        spec: how they are read.
        procedural: the recipe, if the images are generated.
        pixels: side of the stored images. resize: how they are resized, `bicubic` or `nearest`.
        tests: number of test images where the set has no published test split; None for a fifth of all images.
        images: number of training images after them; None for all.
        root: folder of all stores.
        base: `data.root`, which paths of `spec` other than `images` are relative to.
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
    root: Path
    base: Path
    resize: str = "bicubic"
    tested: "tuple[StoreSpec, ...]" = ()
    leaks: str = "allow"

    @cached_property
    def key(self) -> str:
        """8 hexadecimal digits for the source, how it is read and decoded; lists count with their content."""
        source = self.recipe or [str(self.source), str(self.base)]
        lists = [self.spec.labels, self.spec.groups, *(self.spec.splits or {}).values()]
        content = [identity(self.base / path) for path in lists if path and path != "folders"]
        spec = self.spec.model_dump(mode="json")
        parts = [source, spec, content, self.bad_images, code_fingerprint("decoding"), *self._resized]
        if self.leaks == "drop":
            parts += ["drop", *(str(tested.folder) for tested in self.tested)]
        return fingerprint(parts)[:8]

    @cached_property
    def content(self) -> str:
        """Fingerprint of what decides its images apart from the files themselves and how many there are.

        Where files lie is no part of it, so that runs stay valid when data are moved, or are not here at all; whether
        the files are still the same is for the checksums of decoded images to say.
        """
        images = self.recipe or self.spec.model_dump(mode="json", include={"layout", "classes", "ignore"})
        parts = [images, self.pixels, self.split_seed, self.tests, *self._resized]
        if self.leaks == "drop":
            parts += ["drop", *(tested.content for tested in self.tested)]
        return fingerprint(parts)

    @property
    def _resized(self) -> list[str]:
        """What fingerprints hold of the way of resizing: nothing for the usual one, so that older stores stay valid."""
        return [] if self.resize == "bicubic" else [self.resize]

    @property
    def recipe(self) -> str | None:
        """Fingerprint of all that decides generated images, their code included; None for real ones."""
        return _recipe(self.procedural, self.name) if self.procedural else None

    @cached_property
    def place(self) -> str:
        """Its path below the folder of all stores, `pets-1f0c9a7e/128px-seed0-test1000-train6000`."""
        tests, images = ("auto" if self.tests is None else self.tests), ("all" if self.images is None else self.images)
        return f"{self.name}-{self.key}/{self.pixels}px-seed{self.split_seed}-test{tests}-train{images}"

    @cached_property
    def folder(self) -> Path:
        """Where it is; whole if it is there."""
        return self.root / self.place

    @property
    def manifest(self) -> Path:
        """The file that describes it."""
        return self.folder / "manifest.json"

    @property
    def log(self) -> Path:
        """Log of its decoding."""
        return Path("logs/stores", f"{self.place}.log")


def stores_of(configs: Sequence[Config]) -> dict[Needs, StoreSpec]:
    """The stores that a study and its variants read.

    Args:
        configs: of the study, then of its variants, which have the same `data` but for splits and resizing.
    """
    sizes: dict[Needs, int | None] = {}
    tested: dict[Needs, dict[Needs, None]] = {}
    finals = {needs(config, "finetune") for config in configs}
    for config in configs:
        for section, images in _demands(config):
            at = needs(config, section)
            known = sizes.get(at, 0)
            sizes[at] = None if known is None or images is None else max(known, images)
            tested.setdefault(at, {})[needs(config, "finetune")] = None
    made: dict[Needs, StoreSpec] = {}
    for at in sorted(sizes, key=lambda at: at not in finals):  # those of segmentation are tested on their own images
        made[at] = _store(configs[0], at, sizes[at], () if at in finals else tuple(made[each] for each in tested[at]))
    return made


def needs(config: Config, section: str) -> Needs:
    """The store that a stage reads."""
    data, first = config.data, section == "pretrain"
    pixels, resize = (data.store_pixels, "bicubic") if first else (config.model.image_size, data.resize)
    return config.stages[section].images, pixels, held_back(config, section), data.split_seed, resize


def normal(*parts: str) -> Path:
    """A path as the study file names it, in its one spelling."""
    return Path(os.path.normpath(Path(*parts).expanduser()))


@cache
def identity(path: Path) -> str:
    """Identity of a file that no job makes: its content, or its name as long as it is not there."""
    return file_sha256(path) if path.is_file() else str(path)


def _demands(config: Config) -> Iterator[tuple[str, int | None]]:
    """Section of each stage that is run, and the number of training images that it needs."""
    sizes = [size for size in config.grid.pretrain if isinstance(size, int) and size > 0]
    if sizes:
        yield "pretrain", max(sizes)
    for task in config.grid.intermediate:
        if task != NONE:
            yield f"intermediate.{task}", config.intermediate[task].count
    yield "finetune", max(config.grid.downstream)
    if config.geometry.enabled:
        yield "finetune", config.geometry.images


def _store(config: Config, at: Needs, images: int | None, tested: tuple[StoreSpec, ...]) -> StoreSpec:
    (name, pixels, tests, seed, resize), data = at, config.data
    source = normal(data.root, data.sets[name].images)
    if data.procedural:
        source = PROCEDURAL / _recipe(data.procedural, name) / PROCEDURAL_LAYOUT[name]
    own = any(spec.layout == "auto" for spec in (data.sets[name], *(store.spec for store in tested)))
    return StoreSpec(
        name=name,
        source=source,
        spec=data.sets[name],
        procedural=data.procedural,
        pixels=pixels,
        split_seed=seed,
        tests=tests,
        images=images,
        bad_images=data.bad_images,
        root=Path(config.stores),
        base=normal(data.root),
        resize=resize,
        tested=tested,
        leaks=data.leaks or ("stop" if own else "allow"),
    )


def _recipe(procedural: Procedural, name: str) -> str:
    count, pixels, seed = getattr(procedural, name), procedural.pixels, procedural.seed
    return fingerprint([name, count, pixels, seed, code_fingerprint("procedural")])[:8]
