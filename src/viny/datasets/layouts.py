"""The layouts of data sets: users' own, ImageNet, Intel Image Classification and Oxford-IIIT Pet."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from viny.datasets.decode import MaskValues
from viny.datasets.listing import TEST, TRAIN, Entry, Listing, class_of
from viny.datasets.own import list_own
from viny.datasets.tables import decode_text, read_lines
from viny.datasets.trees import MISSING, File, Tree, open_tree, some
from viny.errors import VinyError
from viny.grid import StoreSpec
from viny.logs import log

SCENES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
PETS_FOLDER = "oxford-iiit-pet"  # fixed by torchvision
PETS_LISTS = ("annotations/trainval.txt", "annotations/test.txt")
TRIMAP = {"foreground": 1, "background": 2, "border": 3}


def list_imagenet(spec: StoreSpec) -> Listing:
    """`train/CLASS/FILE` in a folder, a tar or a zip, or a tar of one tar a class (ILSVRC2012_img_train.tar)."""
    tree = _open(spec, "a folder of class folders (train/n01440764/n01440764_18.JPEG) or ILSVRC2012_img_train.tar")
    tree = tree.below("train") if "train" in tree.folders else tree
    classes = sorted(folder for folder in tree.folders if "/" not in folder)
    labels = {name: label for label, name in enumerate(classes)}
    entries = [Entry(name, file, labels[class_of(name, tree.location)]) for name, file in tree.images.items()]
    if not entries and (hint := _archives(tree)):
        raise VinyError(f"{tree.location}: no images found{hint}")
    return Listing(tree.location, entries, tree.reader, classes, broken=tree.broken, ignored=tree.ignored)


def list_intel(spec: StoreSpec) -> Listing:
    """`seg_train/seg_train/CLASS/FILE` and `seg_test/...` in a folder or archive, also with one `seg_train` only."""
    tree = _open(spec, "the folder or zip that Kaggle offers")
    entries, ignored, places = [], Counter(tree.ignored), set()
    for path, file in tree.images.items():
        parts = path.split("/")
        marks = [i for i, part in enumerate(parts[:-1]) if part in ("seg_train", "seg_test")]
        if not marks:
            ignored["images outside seg_train and seg_test"] += 1
            continue
        split, rest = parts[marks[-1]], "/".join(parts[marks[-1] + 1 :])
        places.add("/".join(parts[: marks[-1] + 1]))
        scene = class_of(rest, f"{tree.location} ({split})")
        if scene not in SCENES:
            raise VinyError(
                f"{tree.location} ({split}): unknown class {scene}; expected only {', '.join(SCENES)}: move other "
                "folders away"
            )
        entries.append(Entry(rest, file, SCENES.index(scene), split=TRAIN if split == "seg_train" else TEST))
    if len(places) != 2:
        raise VinyError(
            f"{tree.location}: expected seg_train/CLASS/FILE.jpg in one place and seg_test/CLASS/FILE.jpg in one, "
            f"found images in: {some(sorted(places)) or 'neither'}{_archives(tree)}"
        )
    for split in (TRAIN, TEST):
        present = {entry.label for entry in entries if entry.split == split}
        missing = [scene for label, scene in enumerate(SCENES) if label not in present]
        if missing:
            raise VinyError(f"{tree.location} (seg_{split}): no images of the classes {', '.join(missing)}; add them")
    return Listing(tree.location, entries, tree.reader, list(SCENES), broken=tree.broken, ignored=ignored)


def list_pets(spec: StoreSpec) -> Listing:
    """The images of `annotations/trainval.txt` and `test.txt`, pooled (7,349 in the original), with their trimaps.

    Labels are the breeds. A listed image or trimap that is not there becomes an entry of size MISSING.
    """
    tree = _open(spec, "Oxford-IIIT Pet; or set data.download: true")
    tree = tree.below(PETS_FOLDER) if PETS_FOLDER in tree.folders else tree
    absent = [folder for folder in ("images", "annotations/trimaps") if folder not in tree.folders]
    absent += [path for path in PETS_LISTS if path not in tree.others]
    if absent:
        raise VinyError(
            f"{tree.location} is not Oxford-IIIT Pet as published: there is no {', no '.join(absent)}; extract "
            "images.tar.gz and annotations.tar.gz there"
        )
    entries: list[Entry] = []
    breeds: dict[int, str] = {}
    for path in PETS_LISTS:
        where = f"{tree.location}/{path}"
        for name, label in _pets_list(tree, path):
            breed = name.rpartition("_")[0]
            if breeds.setdefault(label, breed) != breed:
                raise VinyError(f"{where}: class id {label + 1} is both {breeds[label]} and {breed}; correct the list")
            image, trimap = f"images/{name}.jpg", f"annotations/trimaps/{name}.png"
            mask = tree.images.get(trimap, File(trimap, MISSING))
            entries.append(Entry(name, tree.images.get(image, File(image, MISSING)), label, mask))
    gaps = [str(label + 1) for label in range(len(breeds)) if label not in breeds]
    if gaps:
        raise VinyError(
            f"{tree.location}/annotations: trainval.txt and test.txt list no image of the class ids {some(gaps)}; "
            "class ids must have no gaps"
        )
    used = {file.path for entry in entries for file in (entry.image, entry.mask) if file}
    unused = sum(file.path not in used for file in tree.images.values())
    return Listing(
        location=tree.location,
        entries=entries,
        images=tree.reader,
        classes=[breeds[label] for label in range(len(breeds))],
        masks=tree.reader,
        mask_classes=list(TRIMAP),
        values=MaskValues({value: label for label, value in enumerate(TRIMAP.values())}, {}),
        broken=tree.broken,
        ignored=tree.ignored + Counter({"images and trimaps in neither list": unused}),
    )


def download_pets(path: Path) -> None:
    """Download Oxford-IIIT Pet with torchvision to `path`, whole or not at all, unless something is there already.

    Raises:
        VinyError: the folder has another name than torchvision's, or the download fails.
    """
    if path.exists():
        return
    if path.name != PETS_FOLDER:
        raise VinyError(f"the folder of Oxford-IIIT Pet must be named {PETS_FOLDER} to be downloaded, but is {path}")
    log.info("downloading Oxford-IIIT Pet (about 800 MB) to %s", path)
    from torchvision.datasets import OxfordIIITPet

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{PETS_FOLDER}-", dir=path.parent) as temporary:
            OxfordIIITPet(temporary, download=True)
            Path(temporary, PETS_FOLDER).replace(path)
    except (OSError, RuntimeError) as error:
        raise VinyError(
            f"Oxford-IIIT Pet could not be downloaded ({error}); try again, or download images.tar.gz and "
            f"annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/ and extract both in {path}"
        ) from error


def _open(spec: StoreSpec, expected: str) -> Tree:
    if not spec.source.exists():
        raise VinyError(
            f"there is no {spec.source}, where the data set {spec.name} is expected: {expected}; put it there, or "
            f"change data.root or data.sets.{spec.name}.images"
        )
    return open_tree(spec.source)


def _archives(tree: Tree) -> str:
    found = sorted(path for path in tree.others if path.endswith((".tar", ".zip", ".tar.gz", ".tgz")))
    return f"; tars or zips lie there: {some(found)}; set `images` of the data set to one of them" if found else ""


def _pets_list(tree: Tree, path: str) -> list[tuple[str, int]]:
    """Image ids and 0-based breeds of a list with lines `NAME CLASS-ID SPECIES BREED-ID`."""
    images, where = [], f"{tree.location}/{path}"
    for number, (line,) in read_lines(decode_text(tree.read(path), where)):
        if not line.startswith("#"):
            name, *ids = line.split()
            if len(ids) != 3 or not ids[0].isdecimal() or not int(ids[0][:6]) >= 1 or "/" in name:
                raise VinyError(
                    f"{where}, line {number}: {line[:80]!r} is not NAME CLASS-ID SPECIES BREED-ID with a class id of 1 "
                    "or more"
                )
            images.append((name, int(ids[0][:6]) - 1))
    return images


LAYOUTS: dict[str, Callable[[StoreSpec], Listing]] = {
    "auto": list_own,
    "imagenet": list_imagenet,
    "intel": list_intel,
    "pets": list_pets,
}


def list_images(spec: StoreSpec) -> Listing:
    """List a data set without decoding an image.

    Raises:
        VinyError: nothing there, another layout, an unreadable archive or table, contradictions between them.
    """
    return LAYOUTS[spec.spec.layout](spec)
