"""How tasks, sizes and units are called in tables, figures and sentences."""

TASKS = {
    "none": "no intermediate task",
    "cls_intel": "scene classification (Intel)",
    "cls_pets": "breed classification (Pets)",
    "spatial_pets": "patch classes (Pets)",
}
SHORT_TASKS = {"none": "none", "cls_intel": "CLS-Intel", "cls_pets": "CLS-Pets", "spatial_pets": "Spatial-Pets"}
STAGES = {"pretrain": "Pre-training", "intermediate": "Intermediate", "finetune": "Fine-tuning", "geometry": "Geometry"}


def task(name: str, short: bool = False) -> str:
    """`cls_intel` -> `scene classification (Intel)`, or `CLS-Intel`; a new task keeps its own name."""
    return (SHORT_TASKS if short else TASKS).get(name, name)


def panel(name: str, short: bool = False) -> str:
    """Title of the panel of one intermediate task: `After scene classification (Intel)`, or `After CLS-Intel`."""
    return "No intermediate task" if name == "none" else f"After {task(name, short)}"


def size(images: float) -> str:
    """A number of images on an axis: `250`, `1k`, `1,024`, `45k`, `1.28M`."""
    if images >= 1_000_000:
        return f"{images / 1_000_000:.3g}M"
    if images >= 1_000 and images % 100 == 0:
        return f"{images / 1_000:g}k"
    return f"{images:,g}" if images == round(images) else f"{images:.3g}"


def encoder(pretrain: float) -> str:
    """`45000` -> `45k images`, `0` -> `none (random)`."""
    return f"{size(pretrain)} images" if pretrain else "none (random start)"


def stage(kind: str) -> str:
    """`intermediate cls_intel` -> `Intermediate (CLS-Intel)`."""
    first, _, rest = kind.partition(" ")
    return f"{STAGES.get(first, first)} ({task(rest, short=True)})" if rest else STAGES.get(first, first)
