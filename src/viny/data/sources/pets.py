"""Oxford-IIIT Pet in the layout that torchvision reads: both official splits pooled."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from viny import console
from viny.data.sources.base import MISSING, BadImage, Entry, Source, listed, read_file
from viny.errors import VinyError

BREEDS = 37
FOLDER = "oxford-iiit-pet"  # fixed by torchvision
SPLITS = ("trainval.txt", "test.txt")


def open_pets(path: Path) -> Source:
    """List the images of `annotations/trainval.txt` and `test.txt` (7,349 in the original).

    Labels are the breeds, 0 to 36. A listed image or trimap that is not there becomes an entry of size MISSING.
    """
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    annotations = root / "annotations"
    absent = [str(item) for item in (root / "images", annotations / "trimaps") if not item.is_dir()]
    absent += [str(annotations / split) for split in SPLITS if not (annotations / split).is_file()]
    if absent:
        raise VinyError(
            f"no Oxford-IIIT Pet at {path}: {listed(absent, 'there is no', 'missing:')}; extract images.tar.gz and "
            "annotations.tar.gz there, change data.pets, or set data.download: true"
        )
    images, trimaps = _sizes(root / "images"), _sizes(annotations / "trimaps")
    entries: list[Entry] = []
    breeds: dict[int, str] = {}
    for split in SPLITS:
        for name, label in _listed_images(annotations / split):
            breed = name.rsplit("_", 1)[0]
            if breeds.setdefault(label, breed) != breed:
                raise VinyError(f"{annotations / split}: class id {label + 1} is {breeds[label]} and {breed}; mend it")
            size, mask_size = images.get(f"{name}.jpg", MISSING), trimaps.get(f"{name}.png", MISSING)
            entries.append(Entry(name, label, size, 0, mask_size))
    missing = [str(label + 1) for label in range(BREEDS) if label not in breeds]
    if missing:
        raise VinyError(
            f"{annotations}: no images of {listed(missing, 'class id', 'class ids')} are listed in trainval.txt and "
            f"test.txt; all {BREEDS} breeds are needed: extract annotations.tar.gz again"
        )
    return Source("pets", str(root), [breeds[label] for label in range(BREEDS)], entries, PetsReader(str(root)), True)


def download_pets(path: Path) -> None:
    """Download Oxford-IIIT Pet through torchvision to `path`, unless something is there already.

    It arrives in a temporary folder beside it, so that an interrupted download is not taken for a whole one.
    """
    if path.exists():
        return
    if path.name != FOLDER:
        raise VinyError(f"data.pets must end in {FOLDER} for data.download: true, but is {path}")
    console.say(f"downloading Oxford-IIIT Pet (about 800 MB) to {path}")
    from torchvision.datasets import OxfordIIITPet

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=path.parent))
    try:
        OxfordIIITPet(str(temporary), download=True)
        (temporary / FOLDER).replace(path)
    except (OSError, RuntimeError) as error:
        raise VinyError(
            f"Oxford-IIIT Pet could not be downloaded ({error}); try again, or download images.tar.gz and "
            f"annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/ and extract both in {path}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class PetsReader:
    """Reads `images/NAME.jpg` and `annotations/trimaps/NAME.png`."""

    root: str

    def image(self, entry: Entry) -> bytes:
        if entry.size == MISSING:
            raise BadImage("is listed in the annotations, but not there")
        return read_file(self.place(entry), entry.size)

    def mask(self, entry: Entry) -> bytes:
        if entry.mask_size == MISSING:
            raise BadImage(f"has no trimap (annotations/trimaps/{entry.name}.png)")
        return read_file(f"{self.root}/annotations/trimaps/{entry.name}.png", entry.mask_size)

    def place(self, entry: Entry) -> str:
        return f"{self.root}/images/{entry.name}.jpg"


def _sizes(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as found:
        return {item.name: item.stat().st_size for item in found if item.is_file()}


def _listed_images(path: Path) -> list[tuple[str, int]]:
    """Image ids and 0-based breeds of a list with lines `NAME CLASS-ID SPECIES BREED-ID`."""
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *ids = line.split()
        if len(ids) != 3 or not ids[0].isdecimal() or not 1 <= int(ids[0]) <= BREEDS or "/" in name:
            raise VinyError(
                f"{path}, line {number}: {line!r} is not "
                f"NAME CLASS-ID SPECIES BREED-ID with a class id of 1 to {BREEDS}"
            )
        images.append((name, int(ids[0]) - 1))
    return images
