"""What the values and colors of masks mean: `classes` and `ignore` of a data set, and `labelmap.txt`."""

import re
from collections.abc import Iterator
from typing import Any

from viny.config.sections import DataSet
from viny.datasets.decode import MaskValues
from viny.datasets.store import IGNORE
from viny.datasets.tables import read_lines
from viny.errors import VinyError

# Pascal VOC has palette masks without a labelmap.txt; 255 surrounds the objects.
VOC = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
VOC_IGNORE = (255,)
EXAMPLE = "such as `{water: 0, kelp: [1, 2], float: '#ff8800'}`, or a list of names for the values 0, 1, 2 ..."


def mask_values(
    name: str, dataset: DataSet, labelmap: str | None = None, voc: bool = False
) -> tuple[list[str], MaskValues]:
    """Names of the mask classes of the data set `name`, and what its mask values mean.

    `classes` of the study file come first, then the text of `labelmap.txt`, then the classes of Pascal VOC (if `voc`).

    Raises:
        VinyError: no classes, fewer than two, too many, or one value for two of them.
    """
    setting = f"data.sets.{name}"
    ignored: list[Any] = list(dataset.ignore)
    if isinstance(dataset.classes, dict):
        named = {each: value if isinstance(value, list | tuple) else [value] for each, value in dataset.classes.items()}
    elif dataset.classes is not None:
        named = {each: [value] for value, each in enumerate(dataset.classes)}
        if len(named) != len(dataset.classes):
            raise VinyError(f"{setting}.classes names a class twice; names must differ")
    elif labelmap is not None:
        named = dict(_labelmap(labelmap, f"labelmap.txt of {name}"))
        dropped = {_code(value, f"{setting}.ignore") for value in ignored}
        named = {each: colors for each, colors in named.items() if not {_code(c, "") for c in colors} & dropped}
    elif voc:
        named, ignored = {each: [value] for value, each in enumerate(VOC)}, [*ignored, *VOC_IGNORE]
    else:
        raise VinyError(
            f"{setting} has masks, but `classes` does not say what their values mean: set it, {EXAMPLE}; or set "
            "`images` to the folder of images alone"
        )
    if not 2 <= len(named) <= IGNORE:
        raise VinyError(f"{setting}: segmentation needs 2 to {IGNORE} classes, not {len(named)}")
    meanings: dict[bool, dict[int, int]] = {False: {}, True: {}}  # of numbers, and of colors
    everything = [(f"classes.{each}", each, values) for each, values in named.items()]
    for label, (key, each, values) in enumerate([*everything, ("ignore", "ignore", ignored)]):
        if not values and key != "ignore":
            raise VinyError(f"{setting}.classes: {each} has no values")
        label = IGNORE if key == "ignore" else label
        for value in values:
            is_color, code = _code(value, f"{setting}.{key}")
            other = meanings[is_color].setdefault(code, label)
            if other != label:
                raise VinyError(f"{setting}: the mask value {value} is both {[*named][other]} and {each}; choose one")
    return list(named), MaskValues(meanings[False], meanings[True])


def _code(value: Any, setting: str) -> tuple[bool, int]:
    """(whether it is a color, its number)."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
        return False, value
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return True, int(value[1:], 16)
    raise VinyError(f"{setting}: {value!r} is neither a whole number of at least 0 nor a color such as '#ff8800'")


def _labelmap(text: str, where: str) -> Iterator[tuple[str, list[str]]]:
    """Classes and colors of lines `name:R,G,B:parts:actions`."""
    seen = set()
    for number, (line,) in read_lines(text):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        channels = [part.strip() for part in rest.partition(":")[0].split(",")]
        if not name or len(channels) != 3 or not all(c.isdecimal() and len(c) < 4 and int(c) < 256 for c in channels):
            raise VinyError(
                f"{where}, line {number}: {line[:80]!r} is not NAME:R,G,B:PARTS:ACTIONS with channels of 0 to 255"
            )
        if name in seen:
            raise VinyError(f"{where}, line {number}: the class {name} is there twice")
        seen.add(name)
        yield name, ["#" + "".join(f"{int(c):02x}" for c in channels)]
