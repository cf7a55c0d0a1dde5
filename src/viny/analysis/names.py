"""How tasks, sizes and stages are called in tables, figures and sentences."""

TASKS = {"cls_intel": "CLS-Intel", "cls_pets": "CLS-Pets", "spatial_pets": "Spatial-Pets"}  # the paper's names
STAGES = {"pretrain": "Pre-training", "intermediate": "Intermediate", "finetune": "Fine-tuning", "geometry": "Geometry"}
PRETRAINING, LABELED = "Pre-training images", "Fine-tuning images"


def task(name: str) -> str:
    """`cls_intel` -> `CLS-Intel`; a task that is not the paper's keeps its own name."""
    return TASKS.get(name, name)


def panel(name: str) -> str:
    """Title of the panel of one intermediate task: `After CLS-Intel`."""
    return "No intermediate task" if name == "none" else f"After {task(name)}"


def place(pretrain: float, intermediate: str, downstream: float) -> list[str]:
    """A cell in the columns of a table: `["45,000", "CLS-Intel", "250"]`."""
    return [f"{int(pretrain):,}", task(intermediate), f"{int(downstream):,}"]


def size(images: float) -> str:
    """A number of images on an axis: `250`, `1k`, `1,024`, `45k`, `1.28M`."""
    if images >= 1_000_000:
        return f"{images / 1_000_000:.3g}M"
    if images >= 1_000 and images % 100 == 0:
        return f"{images / 1_000:g}k"
    return f"{images:,g}" if images == round(images) else f"{images:.3g}"


def from_size(pretrain: float) -> str:
    """A pre-training size in a legend: `45k`, or `0 (random start)`."""
    return size(pretrain) if pretrain else "0 (random start)"


def start(pretrain: float, encoder: str = "") -> str:
    """What a model starts from: `45k images`, `random start`, or the name of an encoder."""
    return encoder or (f"{size(pretrain)} images" if pretrain else "random start")


def stage(kind: str) -> str:
    """`intermediate cls_intel` -> `Intermediate (CLS-Intel)`."""
    first, _, rest = kind.partition(" ")
    return f"{STAGES.get(first, first)} ({task(rest)})" if rest else STAGES.get(first, first)
