"""Decode the images that a study needs, once, into a store: `python -m viny.data.ingest --help`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from viny import console
from viny.data.build import Builder, Kind
from viny.data.files import locked, write_atomically
from viny.data.order import in_order
from viny.data.parallel import Decoder, decode_chunks
from viny.data.sources import DATASETS, Entry, Source, open_source
from viny.data.store import Store
from viny.errors import VinyError, command


def ingest(
    dataset: str,
    source: Path,
    manifest: Path,
    count: int | None = None,
    pixels: int = 160,
    order_seed: int = 0,
    skip_bad: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Bring a store to at least `count` rows (None: every good image) and write the manifest of that prefix.

    The store is the folder of `manifest`. Rows that are there already are checked, not decoded again; an interrupted
    build is continued. Only one process builds at a time, a second one waits.

    Returns:
        the manifest.

    Raises:
        VinyError: source missing or of another layout, bad images (unless `skip_bad`), too few images, a store of
            another source in the same folder, a damaged store, a full disk.
    """
    folder = manifest.parent
    with locked(folder, f"decoding images of {dataset}"):
        images = open_source(dataset, source, cache=folder)
        builder = Builder(folder, Kind(dataset, pixels, order_seed, images.masks, images.classes))
        entries = builder.remaining(in_order(images.entries, order_seed))
        if not skip_bad:
            _refuse_left_out(builder, count)
        if count is not None and count > builder.rows + len(entries):
            raise VinyError(_too_few(count, builder, len(images.entries), images.location))
        before = builder.rows
        _fill(builder, images, entries, count, skip_bad, workers)
        described = builder.manifest(count, {"fingerprint": images.fingerprint, "images": len(images.entries)})
        if described["count"] < (count or 1):
            raise VinyError(_too_few(count or 1, builder, len(images.entries), images.location))
        _publish(manifest, described, before)
    return described


def _fill(
    builder: Builder, source: Source, entries: Sequence[Entry], count: int | None, skip_bad: bool, workers: int
) -> None:
    """Decode images in order until there are `count` rows; every bad image calls for one more."""
    target = builder.rows + len(entries) if count is None else count
    if builder.rows >= target:
        return
    builder.require_space(target - builder.rows)
    decoder = Decoder(source.reader, builder.folder, builder.kind.pixels, builder.kind.masks)
    bar = console.Progress(f"decode {source.dataset} to {builder.kind.pixels} px", target, done=builder.rows)
    while entries and builder.rows < target:
        taken = entries[: target - builder.rows]
        for chunk, results, rows in decode_chunks(decoder, taken, builder.rows, workers, bar.advance):
            bad = [number for number, result in enumerate(results) if result.reason]
            end = bad[0] if bad and not skip_bad else len(chunk)
            builder.append(chunk[:end], results[:end], rows[:end])
            if bad:
                lines = [f"  {source.reader.place(chunk[i])} {results[i].reason}" for i in bad]
                if not skip_bad:
                    raise VinyError(
                        f"{_images(len(bad))} cannot be used:\n{_shortened(lines)}\nmend or remove what is bad, "
                        "or leave such images out with data.bad_images: skip (--bad-images skip)"
                    )
                console.say(f"left out, because they cannot be used:\n{_shortened(lines)}")
                bar.done -= len(bad)
        entries = entries[len(taken) :]
    bar.finish()


def _refuse_left_out(builder: Builder, count: int | None) -> None:
    """A store that was built by leaving images out does not serve a study that must not."""
    left_out = [line for line in builder.prefix(count) if "skipped" in line]
    if left_out:
        lines = [f"  {line['name']} {line['skipped']}" for line in left_out]
        raise VinyError(
            f"the store {builder.folder} was built without {_images(len(left_out))} that cannot be used:\n"
            f"{_shortened(lines)}\nset data.bad_images: skip, or mend them, delete that folder and ingest again"
        )


def _too_few(count: int, builder: Builder, present: int, location: str) -> str:
    skipped = sum("skipped" in line for line in builder.index)
    detail = f", of which {_images(skipped)} cannot be used" if skipped else ""
    return (
        f"{count:,} images of {builder.kind.dataset} are needed, but {location} has {present:,}{detail}; "
        "add images or ask for fewer"
    )


def _publish(manifest: Path, described: dict[str, Any], check: int) -> None:
    """Write the manifest after opening what it vouches for; the first `check` rows are read again."""
    draft = manifest.with_name(f".{manifest.name}.draft")
    try:
        write_atomically(draft, json.dumps(described, indent=1) + "\n")
        Store.open(draft).verify(check)
        draft.replace(manifest)
    finally:
        draft.unlink(missing_ok=True)


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


def _shortened(lines: list[str], limit: int = 10) -> str:
    more = [f"  and {len(lines) - limit:,} more"] if len(lines) > limit else []
    return "\n".join(lines[:limit] + more)


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor `all`")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m viny.data.ingest", description=__doc__)
    parser.add_argument("--dataset", required=True, choices=DATASETS)
    parser.add_argument("--source", required=True, type=Path, help="folder or archive as published")
    parser.add_argument("--count", required=True, type=_count, help="images to have at least, or `all`")
    parser.add_argument("--pixels", type=_positive, default=160, help="side of the stored images (default 160)")
    parser.add_argument("--order-seed", type=int, default=0, help="seed of the order (default 0)")
    parser.add_argument(
        "--bad-images", choices=("stop", "skip"), default="stop", help="what to do about images that cannot be used"
    )
    parser.add_argument("--download", action="store_true", help="fetch Oxford-IIIT Pet if it is not there")
    parser.add_argument("--workers", type=_positive, default=_cores(), help="processes (default: one a core)")
    parser.add_argument("--manifest", required=True, type=Path, help="file to write; its folder is the store")
    parser.add_argument("--log", type=Path, help="file that repeats what is said")
    return parser


def _cores() -> int:
    """Cores this process may use, which under a scheduler are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = _parser().parse_args(argv)
    console.open_log(args.log)
    if args.download:
        if args.dataset != "pets":
            raise VinyError(f"--download is for pets; {args.dataset} must be fetched from its publisher by hand")
        from viny.data.sources.pets import download_pets

        download_pets(args.source)
    skip_bad = args.bad_images == "skip"
    described = ingest(
        args.dataset, args.source, args.manifest, args.count, args.pixels, args.order_seed, skip_bad, args.workers
    )
    console.say(f"{args.manifest}: {described['count']:,} images, {len(described['skipped']):,} left out")


if __name__ == "__main__":
    sys.exit(main())
