"""Every setting of a study: type, range, meaning and default. The defaults are the paper's (Table A1).

A study file needs to say only where it differs. Each section is a frozen model; `viny.config.load` makes them.
"""

import os
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, Strict

from viny.config.base import MOST, Section
from viny.config.claims import Claim

NONE = "none"  # no intermediate task
BASE = "base"  # what tables of variants call the study itself
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ENCODER = r"^[A-Za-z][A-Za-z0-9._-]*$"
TASK = r"^[a-z][a-z0-9_]*$"
FOLDER = r"^[\w./@+=][\w./@+=-]*$"
PATH = r"^[^\x00-\x1f\x7f]+$"

Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Folder = Annotated[str, Field(pattern=FOLDER), AfterValidator(os.path.normpath)]
Value = TypeVar("Value")
Values = Annotated[tuple[Value, ...], Strict(False)]
Positive = Annotated[int, Field(ge=1)]
Range = Annotated[tuple[float, float], Strict(False)]
Milestones = Annotated[Values[Positive], Field(description="Epochs after which the learning rate falls.")]


def _start(value: Any) -> Any:
    """A point of the pre-training axis: a number of images, or the name of an encoder."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("is not a whole number or the name of an encoder")
    if isinstance(value, int) and value < 0:
        raise ValueError("is too small, at least 0 is allowed")
    return value


Start = Annotated[int | str, BeforeValidator(_start)]


class Grid(Section):
    """The cells of the study, every combination of the four axes."""

    pretrain: Values[Start] = Field(
        (0, 45000, 100000, 200000),
        min_length=1,
        description="Numbers of pre-training images, 0 is random initialization; or names from `encoders`.",
    )
    intermediate: Values[str] = Field(
        (NONE, "cls_intel"),
        min_length=1,
        description="Tasks between pre-training and segmentation, by their names in `intermediate`, or `none`.",
    )
    downstream: Values[Positive] = Field(
        (250, 500, 1000, 2000, 4000, 6000), min_length=1, description="Numbers of labeled images for segmentation."
    )
    seeds: Values[Annotated[int, Field(ge=0, le=MOST)]] = Field(
        (1, 2, 3), min_length=1, description="One run per seed."
    )
    exclude: Values[dict[Literal["pretrain", "intermediate", "downstream", "seed"], Any]] = Field(
        (),
        description="Cells to leave out, for example `{pretrain: 0, intermediate: cls_intel}`; a cell that matches all "
        "keys of one entry is left out, a key may hold a list of values.",
    )
    share_encoder: bool = Field(
        False,
        description="One pre-trained encoder per size for all seeds (pre-trained with seed 0), instead of one per size "
        "and seed.",
    )


class DataSet(Section):
    """A set of images, with class labels or masks if it has any."""

    images: str = Field(
        pattern=PATH,
        description="Folder (any tree), tar or zip of the images, relative to `data.root`; `images/train` and "
        "`images/val` below it are read as a published split.",
    )
    layout: Literal["auto", "imagenet", "intel", "pets"] = Field(
        "auto", description="Layout of the files; `auto` recognizes it, the others are those of the paper's data sets."
    )
    labels: str | None = Field(
        None,
        pattern=PATH,
        description="Classes of the images: `folders` (class folders), or a CSV file with columns file,label[,split].",
    )
    masks: str | None = Field(
        None,
        pattern=PATH,
        description="Folder of masks with the stems of the images, or a template such as "
        '"{parent}/../masks/{stem}.png".',
    )
    classes: dict[str, Any] | list[str] | None = Field(
        None,
        description="Names of the classes of the masks and their values: `{water: 0, kelp: [1, 2]}`, colors such as "
        '"#ff8800", or a list of names for the values 0, 1, 2 ...',
    )
    ignore: Values[int | str] = Field(
        (), description="Values (or colors) of masks that count neither in the loss nor in the metrics."
    )
    splits: dict[Literal["train", "test"], Annotated[str, Field(pattern=PATH)]] | None = Field(
        None, description="Lists of images of the training and test split, one name a line; null for a seeded split."
    )
    groups: str | None = Field(
        None, pattern=PATH, description="CSV file with columns file,group; a group is never on both sides of a split."
    )


# The paper's three data sets.
SETS = {
    "imagenet": {"images": "imagenet/train", "layout": "imagenet"},
    "intel": {"images": "intel", "layout": "intel"},
    "pets": {"images": "oxford-iiit-pet", "layout": "pets"},
}


class Procedural(Section):
    """Images that viny generates itself, in the layouts of the paper's data sets."""

    imagenet: int = Field(1200, ge=2, description="Generated pre-training images.")
    intel: int = Field(720, ge=12, description="Generated scene images, training and test together.")
    pets: int = Field(400, ge=37, description="Generated pet images with trimaps, of 37 breeds.")
    pixels: int = Field(48, ge=16, le=512, description="Shorter side of a generated image in pixels.")
    seed: int = Field(0, ge=0, description="Seed of the generated images.")


class Data(Section):
    """Where the images are and how they are stored."""

    root: str = Field(
        "data", pattern=PATH, description="Folder of the data sets; relative to the working directory, or absolute."
    )
    sets: dict[Name, DataSet] = Field(
        {}, description="Data sets by name; `imagenet`, `intel` and `pets` are predeclared as the paper has them."
    )
    leaks: Literal["stop", "drop", "allow"] | None = Field(
        None,
        description="What to do about test images that are also among images trained on; null: `stop` for own data "
        "sets, `allow` for the paper's.",
    )
    download: bool = Field(False, description="Download Oxford-IIIT Pet through torchvision if it is not there.")
    bad_images: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do about an image that cannot be used; `stop` names it, `skip` leaves it out and records "
        "it.",
    )
    split_seed: int = Field(
        0,
        ge=0,
        description="Seed of the order of the images, which fixes test set and nested training subsets.",
    )
    store_pixels: int = Field(
        160, ge=8, le=1024, description="Side in pixels of the stored pre-training images, from which crops are taken."
    )
    resize: Literal["bicubic", "nearest"] = Field(
        "bicubic",
        description="How images other than those of pre-training are resized: with antialiasing, or by nearest "
        "neighbor (released code).",
    )
    procedural: Procedural | None = Field(
        None, description="Generate the paper's three data sets instead of reading real ones; null for real images."
    )


class Model(Section):
    """The Vision Transformer; the defaults are ViNy, 4,842,880 parameters."""

    image_size: int = Field(128, ge=8, le=1024, description="Side of the input in pixels; a multiple of `patch_size`.")
    patch_size: int = Field(16, ge=1, le=1024, description="Side of a patch in pixels.")
    width: int = Field(128, ge=1, le=65536, description="Width of the embedding.")
    depth: int = Field(12, ge=1, le=1000, description="Number of transformer blocks.")
    heads: int = Field(8, ge=1, le=1024, description="Attention heads per block.")
    head_width: int = Field(64, ge=1, le=65536, description="Width of one attention head, independent of `width`.")
    mlp_width: int = Field(512, ge=1, le=262144, description="Hidden width of a block's MLP.")
    timm: str | None = Field(
        None,
        pattern=NAME,
        description="Name of a Vision Transformer of timm to take instead of ViNy, at `image_size`; the sizes above "
        "are then timm's.",
    )
    initialization: Literal["timm", "pytorch"] = Field(
        "timm",
        description="First weights of layers and embeddings, as timm draws them for Vision Transformers, or as PyTorch "
        "does by itself, with embeddings from a standard normal distribution (released code).",
    )


class Encoder(Section):
    """An encoder that the study does not train: a point of the pre-training axis."""

    file: str | None = Field(None, pattern=PATH, description="File of weights (safetensors), relative to `data.root`.")
    timm: str | None = Field(
        None,
        pattern=NAME,
        description="Name of a Vision Transformer of timm; without `file`, timm gets its weights.",
    )


class Training(Section):
    """Task, images, budget and optimizer of a stage."""

    task: str = Field(pattern=TASK, description="Task, a module of `viny.tasks`.")
    images: str = Field(pattern=NAME, description="Name of the data set.")
    epochs: int = Field(100, ge=1, description="Passes over the training images.")
    steps: int | None = Field(
        None,
        ge=1,
        description="Updates, instead of `epochs` passes; milestones keep their place in the whole.",
    )
    batch_size: int = Field(64, ge=1, description="Images per update.")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="Optimizer.")
    learning_rate: float = Field(1e-4, gt=0, le=10, description="Initial learning rate.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor on the learning rate at each milestone.")
    milestones: Milestones = ()
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Arithmetic of training, float32 or bfloat16 autocast."
    )

    def samples_seen(self, images: int) -> int:
        """Images shown in a whole run on `images` training images, repeats counted."""
        steps_per_epoch = -(-images // self.batch_size)
        full, rest = divmod(self.steps or self.epochs * steps_per_epoch, steps_per_epoch)
        return full * images + min(rest * self.batch_size, images)


class Pretraining(Training):
    """Masked image modeling (SimMIM)."""

    task: str = Field("simmim", pattern=TASK, description="Task, a module of `viny.tasks`.")
    images: str = Field("imagenet", pattern=NAME, description="Name of the data set.")
    milestones: Milestones = (50, 85)
    mask_ratio: float = Field(
        0.5, gt=0, le=1, description="Share of the patches that is masked, the same number in every image."
    )
    crop_scale: Range = Field(
        (0.67, 1.0), description="Smallest and largest share of the image's area in a random crop."
    )
    crop_ratio: Range = Field((0.75, 1.3333333), description="Smallest and largest aspect ratio of a random crop.")
    loss: Literal["mean", "divided_by_masked_patches"] = Field(
        "mean",
        description="Mean absolute error over masked pixels, or that divided once more by the number of masked patches "
        "(released code).",
    )
    heldout_images: int = Field(1000, ge=1, description="Images kept out of pre-training to measure its loss.")


class Intermediate(Training):
    """A task between pre-training and segmentation."""

    epochs: int = Field(20, ge=1, description="Passes over the training images.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Initial learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay.")
    count: int | None = Field(None, ge=1, description="Number of training images; null for all.")
    test_images: int | None = Field(
        None,
        ge=1,
        description="Number of test images of a set without a published split; null: as in segmentation if it is the "
        "same set, else a fifth of the images.",
    )
    mixup: float = Field(0.0, ge=0, description="Alpha of MixUp; 0 for none.")
    contrast: float = Field(0.3, ge=0, le=1, description="Strength of the contrast jitter; 0 for none.")
    normalize: bool = Field(
        True, description="Normalize the input as in pre-training; the released code does not for tasks on Pets."
    )


# The intermediate tasks of the paper and of its second version.
INTERMEDIATE: dict[str, dict[str, Any]] = {
    "cls_intel": {
        "task": "classification",
        "images": "intel",
        "epochs": 200,
        "learning_rate": 8e-4,
        "weight_decay": 0.0,
        "milestones": [180, 190],
        "mixup": 0.1,
    },
    # The paper names no weight decay for it; 0.01 is the default of PyTorch's AdamW.
    "cls_pets": {"task": "classification", "images": "pets"},
    "spatial_pets": {
        "task": "patches",
        "images": "pets",
        "optimizer": "adam",
        "learning_rate": 5e-4,
        "weight_decay": 0.0,
    },
}


class Finetuning(Training):
    """Segmentation, with its evaluation."""

    task: str = Field("segmentation", pattern=TASK, description="Task, a module of `viny.tasks`.")
    images: str = Field("pets", pattern=NAME, description="Name of the data set.")
    learning_rate: float = Field(2e-3, gt=0, le=10, description="Initial learning rate.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    gamma: float = Field(0.5, gt=0, le=1, description="Factor on the learning rate at each milestone.")
    milestones: Milestones = (70, 90, 95)
    contrast: float = Field(0.3, ge=0, le=1, description="Strength of the contrast jitter; 0 for none.")
    augmentation: Literal["fresh", "frozen"] = Field(
        "fresh", description="New flips and contrast in every epoch, or one draw kept for all epochs (released code)."
    )
    augment_test: bool = Field(False, description="Flip and jitter the test images too (released code).")
    normalize: bool = Field(True, description="Normalize the input as in pre-training; the released code does not.")
    loss: Literal["per_pixel", "log_softmax_over_pixels"] = Field(
        "per_pixel",
        description="Cross-entropy over the classes of each pixel, or with a softmax over pixels before it (released "
        "code).",
    )
    test_set: Literal["fixed", "moving"] = Field(
        "fixed",
        description="One test set for all sizes, or the images that follow the training subset (released code).",
    )
    test_images: int = Field(1000, ge=1, description="Number of test images; a published test split is used whole.")


class Geometry(Section):
    """Geometry of the encoders' patch tokens."""

    enabled: bool = Field(False, description="Measure it for every encoder of the study.")
    images: int = Field(
        2000, ge=2, description="Training images of the linear patch probe; everything is measured on the test images."
    )
    probe_iterations: int = Field(
        2000,
        ge=1,
        description="Most iterations of the linear patch probe (logistic regression by L-BFGS), which stops before "
        "once it has converged.",
    )

    def samples_seen(self, images: int) -> int:
        """Images that are looked at, each once for its tokens."""
        return images


class Compute(Section):
    """How to compute; never a reason to compute again."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to compute; `auto` takes a GPU if there is one."
    )
    jobs_per_gpu: int = Field(
        1, ge=1, description="Training jobs that share one GPU of a workstation; no scheduler must have assigned GPUs."
    )
    threads: int = Field(1, ge=1, le=1024, description="Threads of one training job on a CPU.")
    attention: Literal["auto", "fused", "explicit"] = Field(
        "auto",
        description="Attention kernel; `auto` is fused on a GPU and explicit on a CPU. The two round differently. In "
        "training steps on a CPU, explicit was about twice as fast with `matmul_precision: auto` and no faster with "
        "`highest`.",
    )
    compile: bool = Field(
        False,
        description="Compile the model, which takes half a minute in the first job. On a GPU pre-training was then 1.4 "
        "to 1.7 times as fast; on a CPU it hardly pays.",
    )
    cuda_graphs: bool = Field(
        True,
        description="On a GPU, capture a training step once and launch it as a whole, instead of its kernels one by "
        "one; about three times as fast with small models.",
    )
    matmul_precision: Literal["auto", "medium", "high", "highest"] = Field(
        "auto",
        description="PyTorch's precision of float32 matrix products; `auto` is TF32 on a GPU and the fastest that does "
        "not round on a CPU.",
    )


class Analysis(Section):
    """How results are summarized."""

    miou: Literal["dataset", "per_image"] = Field(
        "dataset",
        description="The mean IoU of tables and figures, from one confusion matrix or averaged over images; both are "
        "recorded.",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of intervals.")


class Goal(Section):
    """What to reach: the analysis says what it takes. Never a reason to train again, as `budget` and `prices`."""

    miou: float | None = Field(None, gt=0, lt=100, description="mIoU in percent; null for none.")


class Prices(Section):
    """What data and time cost, in any currency."""

    label: float = Field(0.0, ge=0, description="Price of labeling one image.")
    image: float = Field(0.0, ge=0, description="Price of one unlabeled image.")
    device_hour: float = Field(0.0, ge=0, description="Price of an hour of training.")


class Config(Section):
    """A whole study file, valid and with defaults filled in."""

    study: str = Field(
        "study",
        pattern=NAME,
        max_length=64,
        description="Name of the study; its results go to `<results>/<study>/`. Letters, digits, `.`, `_` and `-`; "
        "`published` is reserved for the paper's own numbers.",
    )
    results: Folder = Field("results", description="Folder of the results.")
    stores: Folder = Field("stores", description="Folder of the decoded images, shared by all studies.")
    grid: Grid = Grid()
    data: Data = Data()
    model: Model = Model()
    encoders: dict[Annotated[str, Field(pattern=ENCODER, max_length=64)], Encoder] = Field(
        {}, description="Encoders from elsewhere, by name: points of the pre-training axis beside the sizes."
    )
    pretrain: SerializeAsAny[Pretraining] = Pretraining()
    intermediate: dict[Annotated[str, Field(pattern=TASK, max_length=64)], SerializeAsAny[Intermediate]] = Field(
        {}, description="The intermediate tasks, one section each."
    )
    finetune: SerializeAsAny[Finetuning] = Finetuning()
    geometry: Geometry = Geometry()
    compute: Compute = Compute()
    seeding: Literal["everything", "split_only"] = Field(
        "everything", description="What the seed of a run decides; everything, or the split alone (released code)."
    )
    analysis: Analysis = Analysis()
    goal: Goal = Goal()
    budget: float | None = Field(
        None, gt=0, description="What may be spent, in the currency of `prices`; the analysis says what it buys."
    )
    prices: Prices = Prices()
    claims: dict[Name, Claim] = Field(
        {},
        description="Hypotheses of your own, each under a name, judged beside the paper's claims; to be stated before "
        "the runs.",
    )
    variants: dict[Name, dict[str, Any]] = Field(
        {},
        description="The study once more with other settings, each variant under a name, such as `no_norm: {finetune: "
        "{normalize: false}}`; cells, and runs that the change does not concern, are those of the study itself. May "
        "set `model`, `pretrain`, `intermediate`, `finetune`, `seeding`, `data.split_seed`, `data.resize`, "
        "`analysis.miou`, `grid.share_encoder` and, to run fewer cells, `grid.exclude`.",
    )

    @property
    def stages(self) -> dict[str, Training]:
        """Settings of the stages by the names of their sections: `pretrain`, `intermediate.cls_intel`, `finetune`."""
        tasks = {f"intermediate.{name}": settings for name, settings in self.intermediate.items()}
        return {"pretrain": self.pretrain, **tasks, "finetune": self.finetune}
