"""Make images in the published layouts, to run the whole study without any data: `python -m viny.data.procedural`.

Image number i depends on the data set, the seed and i alone: asking for more images keeps those that there were.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from viny import console
from viny.data.drawing import HUES, SCENES, SHAPES, draw_scene, draw_shape
from viny.data.files import write_atomically
from viny.errors import VinyError, command

FOLDERS = {"imagenet": "imagenet", "intel": "intel", "pets": "oxford-iiit-pet"}
STAMP = "procedural.json"  # tells a generated folder, which may be replaced, from one with real images
PET_SHAPES = tuple(SHAPES)[:8]
BREEDS = 37
CATS = 12  # of the breeds; their names begin with a capital letter
INTEL_TEST = 6  # one image of so many is a test image
LIST_HEADER = (
    "#Image CLASS-ID SPECIES BREED ID",
    "#ID: 1:37 Class ids",
    "#SPECIES: 1:Cat 2:Dog",
    "#BREED ID: 1-25:Cat 1:12:Dog",
    "#All images with 1st letter as captial are cat images",
    "#images with small first letter are dog images",
)


def make_imagenet(folder: Path, images: int, pixels: int, seed: int) -> Iterator[Path]:
    """`train/n90000001/n90000001_0.JPEG`: one class a shape, in any color; no color tells a class."""
    for number in range(images):
        rng = np.random.default_rng([seed, 1, number])
        label = number % len(SHAPES)
        image, _ = draw_shape(rng, _size(rng, pixels), tuple(SHAPES)[label])
        wnid = f"n{90000001 + label}"
        yield _save(image, folder / "train" / wnid / f"{wnid}_{number}.JPEG")


def make_intel(folder: Path, images: int, pixels: int, seed: int) -> Iterator[Path]:
    """`seg_train/seg_train/forest/7.jpg` and `seg_test/seg_test/...`: six kinds of scenes; a sixth are test images."""
    for number in range(images):
        rng = np.random.default_rng([seed, 2, number])
        kind = tuple(SCENES)[number % len(SCENES)]
        split = "seg_test" if (number // len(SCENES)) % INTEL_TEST == 1 else "seg_train"
        image = draw_scene(rng, (pixels, pixels), kind)
        yield _save(image, folder / split / split / kind / f"{number}.jpg")


def make_pets(folder: Path, images: int, pixels: int, seed: int) -> Iterator[Path]:
    """`images/Red_circle_1.jpg`, trimaps and lists: 37 breeds, each a shape in a color, halved into two splits."""
    splits: dict[str, list[str]] = {"list.txt": list(LIST_HEADER), "trainval.txt": [], "test.txt": []}
    for number in range(images):
        rng = np.random.default_rng([seed, 3, number])
        breed, copy = number % BREEDS, number // BREEDS
        hue, shape = tuple(HUES)[breed % len(HUES)], PET_SHAPES[breed // len(HUES)]
        image, trimap = draw_shape(rng, _size(rng, pixels), shape, HUES[hue])
        is_cat = breed < CATS
        name = f"{hue.capitalize() if is_cat else hue}_{shape}_{copy + 1}"
        line = f"{name} {breed + 1} {1 if is_cat else 2} {breed + 1 if is_cat else breed + 1 - CATS}"
        splits["list.txt"].append(line)
        splits["test.txt" if copy % 2 else "trainval.txt"].append(line)
        _save(trimap, folder / "annotations" / "trimaps" / f"{name}.png")
        yield _save(image, folder / "images" / f"{name}.jpg")
    for file, lines in splits.items():
        (folder / "annotations" / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


MAKERS: dict[str, Callable[[Path, int, int, int], Iterator[Path]]] = {
    "imagenet": make_imagenet,
    "intel": make_intel,
    "pets": make_pets,
}
# The readers want an image of every scene in both splits, and of every breed.
LEAST = {"imagenet": 1, "intel": 2 * len(SCENES), "pets": BREEDS}


def generate(dataset: str, images: int, pixels: int, seed: int, output: Path) -> dict[str, object]:
    """Make a data set in its folder below `output`: `imagenet/`, `intel/` or `oxford-iiit-pet/`.

    It appears there when it is whole. A generated one that is there already is replaced, nothing else is.

    Returns:
        the recipe, and a checksum over names and contents of all files.

    Raises:
        VinyError: too few images for the classes, or a folder in the way that was not generated.
    """
    if images < LEAST[dataset]:
        raise VinyError(f"procedural {dataset} needs at least {LEAST[dataset]} images, not {images}")
    if pixels < 16:
        raise VinyError(f"procedural images need at least 16 pixels, not {pixels}")
    target = output / FOLDERS[dataset]
    if target.exists() and not (target / STAMP).is_file():
        raise VinyError(f"{target} exists and was not generated here; choose another --output or move it away")
    output.mkdir(parents=True, exist_ok=True)
    recipe = {"dataset": dataset, "images": images, "pixels": pixels, "seed": seed}
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=output))
    try:
        draft.chmod(0o755)
        (draft / STAMP).write_text(json.dumps(recipe) + "\n", encoding="utf-8")
        for _ in console.progress(MAKERS[dataset](draft, images, pixels, seed), f"make {dataset}", images):
            pass
        marker = recipe | {"checksum": _checksum(draft)}
        if target.exists():
            shutil.rmtree(target)
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return marker


def _size(rng: np.random.Generator, pixels: int) -> tuple[int, int]:
    """Width and height: the shorter is `pixels`, the other up to a third longer, as photographs are."""
    longer = round(pixels * rng.uniform(1.0, 1.33))
    return (longer, pixels) if rng.random() < 0.5 else (pixels, longer)


def _save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        image.save(path)
    else:
        image.save(path, format="JPEG", quality=92, subsampling=0)
    return path


def _checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m viny.data.procedural", description="Make images in the layout of a published data set."
    )
    parser.add_argument("--dataset", required=True, choices=tuple(MAKERS))
    parser.add_argument("--images", required=True, type=int, help="how many, over all splits")
    parser.add_argument("--pixels", type=int, default=48, help="shorter side (default 48)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path, help=f"folder to make {', '.join(FOLDERS.values())} in")
    parser.add_argument("--marker", required=True, type=Path, help="JSON file written when all images are there")
    parser.add_argument("--log", type=Path, help="file that repeats what is said")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = _parser().parse_args(argv)
    console.open_log(args.log)
    marker = generate(args.dataset, args.images, args.pixels, args.seed, args.output)
    write_atomically(args.marker, json.dumps(marker, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
