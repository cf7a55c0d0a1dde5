"""From a data set on disk to a store: list, split, order, decode; whole or not there at all."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from viny.datasets import store as stores
from viny.datasets.layouts import download_pets, list_images
from viny.datasets.leaks import Matcher
from viny.datasets.listing import TEST, Entry, Listing, counted
from viny.datasets.order import in_order, rank
from viny.datasets.parallel import Decoder, Decoding, decoding
from viny.datasets.store import Line, Store, digests, read_manifest
from viny.datasets.trees import bad_size, some
from viny.errors import VinyError, shortened
from viny.files import SUFFIX, replacing
from viny.fingerprint import code_fingerprint
from viny.grid import StoreSpec
from viny.logs import Progress, log

SHOWN = 10  # bad images that a message names


def build(spec: StoreSpec, download: bool = False, workers: int | None = None) -> None:
    """Make the store of `spec`, unless it is there. Of several processes one works, the others wait.

    Args:
        download: fetch Oxford-IIIT Pet if it is not there.
        workers: processes that decode; None for one per core.

    Raises:
        VinyError: source missing or of another layout, bad images (unless skipped), too few images, a full disk,
            another folder in the way.
    """
    folder = spec.folder
    for tested in spec.tested if spec.leaks == "drop" else ():
        build(tested, download, workers)
    with locked(folder.with_name(f".{folder.name}.lock")):
        if read_manifest(folder):
            log.info("%s is there already", folder)
            return
        _clear(folder)
        if download and spec.spec.layout == "pets":
            with locked(spec.source.with_name(f".{spec.source.name}.lock")):
                download_pets(spec.source)
        listing = list_images(spec)
        with replacing(folder, sync=True) as draft:
            draft.mkdir()
            _Build(spec, listing, draft).run(workers)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; wait, and say so, while another one holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for the process that holds %s", path)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise VinyError(
            f"cannot lock {path} against other processes ({error}); choose a folder that can be written, on a file "
            "system with locks"
        ) from error
    try:
        yield
    finally:
        lock.release()


def order_for_testing(listing: Listing, tests: int | None, seed: int) -> tuple[list[Entry], int]:
    """Images in the order in which they become test images, and how many of them do.

    A published test part is taken whole. Else it is the first `tests` images (None: a fifth, at least 1) in seeded
    order; with groups, images follow their groups in the seeded order of these.
    """
    if listing.published:
        candidates = in_order((entry for entry in listing.entries if entry.split == TEST), seed)
        return candidates, len(candidates)
    candidates = in_order(listing.entries, seed)
    if any(entry.group for entry in candidates):
        candidates.sort(key=lambda entry: rank(seed, entry.group or entry.name))
    return candidates, max(1, len(candidates) // 5) if tests is None else tests


def order_for_training(listing: Listing, seen: Sequence[Entry], seed: int) -> list[Entry]:
    """Images in the order in which they become training images: neither `seen` for testing nor of a group of those."""
    if listing.published:
        return in_order((entry for entry in listing.entries if entry.split != TEST), seed)
    names, groups = {entry.name for entry in seen}, {entry.group for entry in seen} - {""}
    return in_order((each for each in listing.entries if each.name not in names and each.group not in groups), seed)


class _Build:
    """One pass over the images of a store."""

    def __init__(self, spec: StoreSpec, listing: Listing, draft: Path):
        self.spec, self.listing, self.draft = spec, listing, draft
        self.skip = spec.bad_images == "skip"
        self.bad: list[tuple[Entry, str]] = []
        self.index: list[Line] = []
        self.dropped: list[str] = []  # training images that are also test images
        self.shown: set[int] = set()  # classes in the training images

    def run(self, workers: int | None) -> None:
        """Decode all rows and describe them."""
        spec, listing, seed = self.spec, self.listing, self.spec.split_seed
        candidates, tests = order_for_testing(listing, spec.tests, seed)
        training = order_for_training(listing, candidates[:tests], seed)
        self._require(tests, len(candidates), len(training))
        planned = candidates[:tests] + training[: spec.images]
        self._refuse_absent(planned)
        self._require_space(len(planned))
        decoder = Decoder(listing.images, listing.masks, listing.values, spec.pixels, spec.resize)
        self.progress = Progress(f"decode {spec.name} to {spec.pixels} px", len(planned))
        names = (stores.IMAGES, stores.SIGNATURES, stores.MASKS)[: 3 if listing.masks else 2]
        with ExitStack() as stack:
            self.files = [stack.enter_context((self.draft / name).open("wb")) for name in names]
            decode = stack.enter_context(decoding(decoder, len(planned), workers))
            seen = self._take(decode, candidates, tests)
            if listing.published:
                tests = len(self.index)
            found, self.shown = len(self.index), set()
            training = order_for_training(listing, seen, seed)
            count = len(training) if spec.images is None else spec.images
            self._take(decode, training, count, self._tested() if spec.leaks == "drop" else None)
        if self.bad and not self.skip:
            raise VinyError(self._bad_images())
        self._require(tests, found, len(self.index) - found)
        self._describe(tests)
        self._report()
        self.progress.finish(f"{len(self.bad):,} left out" if self.bad else "")

    def _tested(self) -> Matcher:
        """The test images that must not be trained on."""
        if not self.spec.tested:
            self.files[1].flush()
            return Matcher(np.fromfile(self.draft / stores.SIGNATURES, np.uint8).reshape(-1, stores.SIGNATURE))
        opened = [Store.open(tested.folder) for tested in self.spec.tested]
        return Matcher(np.concatenate([store.signatures[: store.tests] for store in opened]))

    def _take(
        self, decode: Decoding, candidates: Sequence[Entry], count: int, tested: Matcher | None = None
    ) -> list[Entry]:
        """Write the first `count` images that can be used and are none of those `tested`; returns those looked at."""
        target, seen = len(self.index) + count, 0
        if count:
            for entry, row in decode(candidates if self.skip or tested else candidates[:count]):
                seen += 1
                if row.image is None or row.signature is None:
                    self.bad.append((entry, row.bad))
                    continue
                if tested and tested.gaps(row.signature[None]).min() <= 1:
                    self.dropped.append(entry.name)
                    continue
                values = [row.image, row.signature] + ([] if row.mask is None else [row.mask])
                for file, each in zip(self.files, values, strict=True):
                    file.write(each.tobytes())
                self.shown |= {entry.label} if row.mask is None else {*np.unique(row.mask).tolist()}
                self.index.append(Line(entry.name, entry.label, row.width, row.height, row.crc32))
                self.progress.advance(1)
                if len(self.index) == target:
                    break
        return list(candidates[:seen])

    def _describe(self, tests: int) -> None:
        spec, listing = self.spec, self.listing
        lines = "".join(json.dumps(line._asdict()) + "\n" for line in self.index)
        (self.draft / stores.INDEX).write_text(lines, encoding="utf-8")
        digests(self.index, tests, len(listing.classes), len(listing.mask_classes)).tofile(self.draft / stores.DIGESTS)
        manifest = {
            "format": stores.FORMAT,
            "name": spec.name,
            "pixels": spec.pixels,
            "count": len(self.index),
            "tests": tests,
            "classes": listing.classes,
            "mask_classes": listing.mask_classes,
            "split_seed": spec.split_seed,
            "source": {"images": len(listing.entries), "fingerprint": listing.fingerprint, "ignored": listing.ignored},
            "code": code_fingerprint("decoding"),
            "skipped": [{"name": entry.name, "reason": reason} for entry, reason in self.bad]
            + [{"name": name, "reason": "is a link to something that is not there"} for name in listing.broken]
            + [{"name": name, "reason": "is a test image, too"} for name in self.dropped],
        }
        (self.draft / stores.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def _require(self, tests: int, found: int, training: int) -> None:
        """Raise VinyError if there are not enough images."""
        spec, wanted = self.spec, 1 if self.spec.images is None else self.spec.images
        if tests and found >= tests and training >= wanted:
            return
        detail = f", {len(self.bad):,} of which cannot be used" if self.bad else ""
        detail += f", {len(self.dropped):,} of which are test images, too" if self.dropped else ""
        raise VinyError(
            f"data set {spec.name}: {tests or 1:,} test and {wanted:,} training images are needed; "
            f"{self.listing.location} has {len(self.listing.entries):,} images{detail}, enough for "
            f"{min(found, tests):,} test and {training:,} training images; add images or ask for fewer"
        )

    def _refuse_absent(self, planned: Sequence[Entry]) -> None:
        """Before decoding for hours, refuse what the listing alone shows to be bad."""
        if self.skip:
            return
        if self.listing.broken:
            raise VinyError(
                f"{self.listing.location}: {len(self.listing.broken):,} links lead to nothing: "
                f"{some(self.listing.broken, SHOWN)}; restore what they lead to, remove them, or set "
                "data.bad_images: skip"
            )
        for entry in planned:
            mask = entry.mask and bad_size(entry.mask) and f"has a mask ({entry.mask.path}) that {bad_size(entry.mask)}"
            if reason := bad_size(entry.image) or mask:
                self.bad.append((entry, reason))
        if self.bad:
            raise VinyError(self._bad_images())

    def _require_space(self, rows: int) -> None:
        needed = rows * self.spec.pixels**2 * (4 if self.listing.masks else 3)
        free = shutil.disk_usage(self.draft).free
        if needed > free:
            raise VinyError(
                f"{rows:,} images of {self.spec.pixels} pixels need {needed / 1e9:.1f} GB in {self.spec.root}, but "
                f"{free / 1e9:.1f} GB are free; make room, or change `stores` or data.store_pixels"
            )

    def _bad_images(self) -> str:
        lines = [f"  {self.listing.images.place(entry.image)} {reason}" for entry, reason in self.bad]
        return (
            f"data set {self.spec.name}: {len(self.bad):,} image{'s' * (len(self.bad) > 1)} cannot be used:\n"
            f"{shortened(lines, SHOWN)}\ncorrect or remove them, or leave such images out with data.bad_images: skip"
        )

    def _report(self) -> None:
        """Say what is left out, and which classes the training images lack."""
        listing, name = self.listing, self.spec.name
        if self.bad:
            log.warning("%s", self._bad_images().rpartition("\n")[0])
        if self.dropped:
            log.warning("%s: left out of training, as test images look like them: %s", name, some(self.dropped, SHOWN))
        if listing.broken:
            log.warning("%s: left out links that lead to nothing: %s", name, some(listing.broken, SHOWN))
        if listing.ignored:
            log.info("%s: %s images%s", name, f"{len(listing.entries):,}", counted(listing.ignored))
        classes = listing.mask_classes or listing.classes
        if lacking := [each for label, each in enumerate(classes) if label not in self.shown]:
            log.warning("%s: no training image shows the classes %s", name, some(lacking, SHOWN))


def _clear(folder: Path) -> None:
    """Remove what killed builds left, and a store that is not whole."""
    for stale in folder.parent.glob(f".{escape(folder.name)}.*{SUFFIX}"):
        shutil.rmtree(stale, ignore_errors=True)
    if not folder.exists():
        return
    inside = {item.name for item in folder.iterdir()} if folder.is_dir() else {"no folder"}
    foreign = sorted(inside - stores.FILES)
    if foreign:
        raise VinyError(f"{folder} is in the way of a store and is none ({some(foreign)}); move it away")
    shutil.rmtree(folder)
