"""A study: its cells, the encoders that they share, and the name of every file. Knows nothing of torch.

Paths say what they hold, one `key=value` per folder (Snakemake's wildcards match the values):

    <results>/<study>/pretrain/pretrain=45000/seed=1/
    <results>/<study>/intermediate/pretrain=45000/intermediate=cls_intel/seed=1/
    <results>/<study>/finetune/pretrain=45000/intermediate=cls_intel/downstream=250/seed=1/
    <results>/<study>/geometry/pretrain=45000/intermediate=cls_intel/seed=1/
    <results>/<study>/variants/no_norm/finetune/pretrain=45000/...     a variant's own runs
    <stores>/imagenet/160px-order0/first=46000.json
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from viny import settings
from viny.config import complete, load, vary
from viny.grid import AXES, NONE, PETS_TASKS, SHARED, STAGES, Cell, Job, Store, enumerate_cells
from viny.provenance import code_fingerprint, fingerprint

PROCEDURAL = Path("resources/procedural")
# Where each data set lies below its root once generated: the layouts of the published archives.
PROCEDURAL_LAYOUT = {"imagenet": "imagenet/train", "intel": "intel", "pets": "oxford-iiit-pet"}


@dataclass(frozen=True)
class Study:
    """A study as declared by a complete, valid config (see `viny.config.load`).

    Attributes:
        variant: name of the variant that it is, empty for the study itself.
        base: the study that it is a variant of. A run whose settings, and those of all runs before it, are the base's
            is the base's run: it has the base's path and is done once.
    """

    config: Mapping[str, Any]
    variant: str = ""
    base: "Study | None" = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Study":
        """The study that a config declares, whether defaults are filled in or not; raises VinyError."""
        return cls(load(config))

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, Any]) -> "Study":
        """A study that knows its jobs and names, but not how they train; see `declaration`."""
        return cls(complete(declaration))

    # Names

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.config["study"]

    @cached_property
    def folder(self) -> Path:
        """Folder of all its results."""
        return Path(self.config["results"], self.name, self.prefix)

    @cached_property
    def logs(self) -> Path:
        """Folder of its logs."""
        return Path("logs", self.name, self.prefix)

    @property
    def prefix(self) -> str:
        """`variants/NAME/` of a variant, where its folders begin; empty for the study itself."""
        return f"variants/{self.variant}/" if self.variant else ""

    @cached_property
    def state(self) -> Path:
        """Folder of the state of running jobs; no declared output, since Snakemake deletes those of a broken job."""
        return self.folder / ".state"

    def place(self, stage: str, **coordinates: Any) -> Path:
        """`pretrain=256/seed=1`: the part of a path that says which run of a stage it is."""
        return Path(*(f"{axis}={coordinates[axis]}" for axis in AXES[stage]))

    def run_folder(self, stage: str, **coordinates: Any) -> Path:
        """Folder of one run's results."""
        owner = self.base if self.base and self._same_run(self.base, stage, coordinates) else self
        return owner.folder / stage / self.place(stage, **coordinates)

    def _same_run(self, other: "Study", stage: str, coordinates: Mapping[str, Any]) -> bool:
        key = stage, int(coordinates["pretrain"]) > 0, coordinates.get("intermediate", NONE)
        return self._lineage(*key) == other._lineage(*key)

    def _lineage(self, stage: str, pretrained: bool, task: str) -> list[str]:
        """The settings of a stage's runs and of all runs before them."""
        lineage = [str(self.config["grid"]["share_encoder"]), self.flags("pretrain")] if pretrained else []
        if task != NONE:
            lineage.append(self.flags("intermediate", task))
        if stage in ("finetune", "geometry"):
            lineage.append(self.flags(stage))
        return lineage

    def pretrain_seed(self, seed: int | str) -> int | str:
        """The seed in the path of the pre-trained encoder that runs with `seed` start from."""
        return SHARED if self.config["grid"]["share_encoder"] else seed

    def encoder(self, pretrain: int | str, intermediate: str, seed: int | str) -> Path | None:
        """The encoder file that a cell starts from; None for random initialization."""
        if intermediate != NONE:
            folder = self.run_folder("intermediate", pretrain=pretrain, intermediate=intermediate, seed=seed)
        elif int(pretrain) > 0:
            folder = self.run_folder("pretrain", pretrain=pretrain, seed=self.pretrain_seed(seed))
        else:
            return None
        return folder / "encoder.safetensors"

    # Variants

    @cached_property
    def variants(self) -> dict[str, "Study"]:
        """Its variants by name, each a study of its own."""
        return {
            name: Study(vary(self.config, changes), name, self) for name, changes in self.config["variants"].items()
        }

    @property
    def family(self) -> tuple["Study", ...]:
        """The study and its variants."""
        return (self, *self.variants.values())

    def all_jobs(self) -> dict[Job, "Study"]:
        """All runs of the study and its variants, each once, and the study whose settings it has."""
        return {job: member for member in self.family for job in member.own_jobs()}

    # Jobs

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, in the order of the config."""
        return tuple(enumerate_cells(self.config["grid"]))

    def jobs(self, *stages: str) -> list[Job]:
        """All runs that the cells need, encoders first, each once; `stages` selects, default all."""
        return [job for stage in stages or STAGES for job in self._jobs[stage]]

    def own_jobs(self, *stages: str) -> list[Job]:
        """Those of `jobs` that are not the base's."""
        return [job for job in self.jobs(*stages) if job.folder.is_relative_to(self.folder)]

    @cached_property
    def _jobs(self) -> dict[str, list[Job]]:
        encoders = dict.fromkeys((cell.pretrain, cell.intermediate, cell.seed) for cell in self.cells)
        pretrained = dict.fromkeys((size, self.pretrain_seed(seed)) for size, _, seed in encoders if size > 0)
        tuned = [encoder for encoder in encoders if encoder[1] != NONE]
        measured = {}
        if self.config["geometry"]["enabled"]:
            measured = dict.fromkeys(tuned) | {(size, NONE, seed): None for size, seed in pretrained}
        found = {"pretrain": pretrained, "intermediate": tuned, "finetune": self.cells, "geometry": measured}
        return {stage: [self._job(stage, place) for place in places] for stage, places in found.items()}

    def _job(self, stage: str, place: tuple) -> Job:
        coordinates = dict(zip(AXES[stage], place, strict=True))
        kind = f"intermediate {coordinates['intermediate']}" if stage == "intermediate" else stage
        return Job(kind, self.run_folder(stage, **coordinates), coordinates)

    @property
    def declaration(self) -> dict[str, Any]:
        """The part of the config that says which jobs there are and where: what the analysis of results depends on."""
        return {key: self.config[key] for key in ("study", "results", "grid")} | {
            "geometry": {"enabled": self.config["geometry"]["enabled"]}
        }

    @property
    def variants_declaration(self) -> dict[str, Any]:
        """The part of the config that says which runs the variants share: what their comparison depends on."""
        apart = ("stores", "data", "compute", "geometry")
        declared = {key: value for key, value in self.config.items() if key not in apart}
        return declared | {"analysis": {"miou": self.config["analysis"]["miou"]}}

    # Settings

    def flags(self, stage: str, task: str | None = None) -> str:
        """All settings of a stage (of an intermediate task) as command-line flags."""
        if (stage, task) not in self._flags:
            self._flags[stage, task] = self._write_flags(stage, task)
        return self._flags[stage, task]

    @cached_property
    def _flags(self) -> dict[tuple[str, str | None], str]:
        """The flags asked for so far."""
        return {}

    def _write_flags(self, stage: str, task: str | None) -> str:
        section = f"intermediate.{task}" if task else stage
        parts = [settings.to_flags(self.config["model"], "model"), settings.to_flags(self.section(section), section)]
        if task in PETS_TASKS or stage == "geometry":  # they must keep away from the test images
            parts.append(f"--test-images {self.config['finetune']['test_images']}")
        parts.append(settings.to_flags(self.config, "seeding"))
        return " ".join(parts)

    def section(self, name: str) -> Mapping[str, Any]:
        """A section by its dotted name."""
        found = self.config
        for part in name.split("."):
            found = found[part]
        return found

    # Images

    def pretrain_store(self, pretrain: int) -> Store:
        """Held-out images, then those of the pre-training set."""
        count = self.config["pretrain"]["heldout_images"] + int(pretrain)
        return Store("imagenet", self.config["data"]["store_pixels"], count)

    def task_stores(self, task: str) -> dict[str, Store]:
        """The images of an intermediate task: `train`, and `test` where they come in a store of their own."""
        pixels, images = self.config["model"]["image_size"], self.config["intermediate"][task]["images"]
        if task in PETS_TASKS:
            count = None if images is None else self.config["finetune"]["test_images"] + images
            return {"train": Store("pets", pixels, count)}
        return {"train": Store("intel-train", pixels, images), "test": Store("intel-test", pixels, None)}

    def finetune_store(self, downstream: int) -> Store:
        """Test images, then those of the training set."""
        count = self.config["finetune"]["test_images"] + int(downstream)
        return Store("pets", self.config["model"]["image_size"], count)

    def geometry_store(self) -> Store:
        """Test images, then training images of the probe."""
        count = self.config["finetune"]["test_images"] + self.config["geometry"]["images"]
        return Store("pets", self.config["model"]["image_size"], count)

    def stores(self) -> list[Store]:
        """All parts of data sets that the study and its variants need, each once."""
        needed: dict[Store, None] = {}
        for job, member in self.all_jobs().items():
            match job.stage:
                case "pretrain":
                    needed[member.pretrain_store(job.coordinates["pretrain"])] = None
                case "intermediate":
                    needed |= dict.fromkeys(member.task_stores(job.coordinates["intermediate"]).values())
                case "finetune":
                    needed[member.finetune_store(job.coordinates["downstream"])] = None
                case "geometry":
                    needed[member.geometry_store()] = None
        return list(needed)

    def manifest(self, store: Store) -> Path:
        """The file that says the images of `store` are there, whole and checked."""
        return self.store_folder(store.dataset, store.pixels) / f"{store.part}.json"

    def store_folder(self, dataset: str, pixels: int) -> Path:
        """Folder of a store; generated images have stores of their own, one for each recipe."""
        origin = source_name(dataset)
        if self.procedural:
            dataset = f"procedural-{self.recipe(origin)}-{dataset}"
        return Path(self.config["stores"], dataset, f"{pixels}px-order{self.config['data']['order_seed']}")

    def source(self, dataset: str) -> Path:
        """The images of a data set as published: a folder or an archive."""
        origin = source_name(dataset)
        if self.procedural:
            return PROCEDURAL / self.recipe(origin) / PROCEDURAL_LAYOUT[origin]
        data = self.config["data"]
        return Path(data["root"], data[origin]).expanduser()

    @property
    def procedural(self) -> Mapping[str, Any] | None:
        """Numbers of images to generate, by data set, or None for real images."""
        return self.config["data"]["procedural"]

    def procedural_marker(self, dataset: str) -> Path:
        """The file that says a data set has been generated."""
        origin = source_name(dataset)
        return PROCEDURAL / self.recipe(origin) / f"{origin}.json"

    def recipe(self, origin: str) -> str:
        """8 hexadecimal digits for all that decides the generated images of a data set, its code included."""
        return self._recipes[origin]

    @cached_property
    def _recipes(self) -> dict[str, str]:
        recipe, code = self.procedural, code_fingerprint("viny.data.procedural")
        return {
            origin: fingerprint([origin, recipe[origin], recipe["pixels"], recipe["seed"], code])[:8]
            for origin in PROCEDURAL_LAYOUT
        }


def source_name(dataset: str) -> str:
    """The data set that a store belongs to: `intel-test` -> `intel`."""
    return dataset.split("-")[0]
