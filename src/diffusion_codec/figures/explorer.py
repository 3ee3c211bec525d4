"""Every stored number of rate and distortion to look up: data set, photograph, metric and codecs are chosen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.pictures import Picture
from diffusion_codec.evaluation.records import Record, Results
from diffusion_codec.evaluation.tables import current
from diffusion_codec.figures.comparison import crop, motif
from diffusion_codec.figures.interactive import Interactive, fill, webp
from diffusion_codec.figures.rate_distortion import CEILING, OWN, line, metric_label

_SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "<": "triangle-left",
    ">": "triangle-right", "p": "pentagon", "P": "cross", "X": "x", "*": "star", "h": "hexagon",
}  # fmt: skip
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
THUMB, PART = 208, 208
"""Pixels: the longer side of an original made small; the side of a part of a decoded picture."""


@dataclass(frozen=True)
class Shelf:
    """What is known of one data set: the numbers, what reads each original, and decoded pictures with their folder."""

    results: Results
    originals: Mapping[str, Callable[[], npt.NDArray[np.uint8]]]
    pictures: Sequence[Picture] = ()
    folder: Path = Path()


def explorer(
    shelves: Sequence[Shelf],
    prints: list[Path],
    alt: str,
    rate: float,
    first: str = "dfc-mini",
    metric: str = "lpips-alex",
) -> Interactive:
    """The explorer of all numbers of these data sets; it opens with codec `first` at `rate` and this metric.

    A mean is shown only where every photograph of its metric has a number; numbers of two protocols are two metrics.
    Raises BadInputError where there is no number at all.
    """
    sets = [_set(shelf) for shelf in shelves if current(shelf.results)]
    if not sets:
        raise BadInputError("there is no number to explore; measure first (`make results`)")
    data = {
        "sets": sets,
        "first": first,
        "rate": rate,
        "metric": metric,
        "hidden": sorted(
            {codec["id"] for entry in sets for codec in entry["codecs"] if _is_study(codec["id"])}
        ),
    }
    return fill("explorer", data, prints, alt)


def _place(codec: str) -> tuple[bool, str, int]:
    """Ours first; then by name, and by the number of steps."""
    name, _, steps = codec.partition("@")
    return not codec.startswith(OWN), name, int(steps or -1)


def _is_study(codec: str) -> bool:
    """Numbers of steps that were tried on a few photographs only: there to be chosen, not to begin with."""
    return codec.startswith(OWN) and codec.partition("@")[2] not in ("", "0")


def _set(shelf: Shelf) -> dict[str, Any]:
    records = current(shelf.results)
    run = shelf.results.run(records[0])
    images = sorted({record.image for record in records})
    keys = sorted({_metric(shelf.results, record) for record in records})
    codecs = sorted({record.codec for record in records}, key=_place)
    looked = next((picture.image for picture in shelf.pictures if picture.image in images), images[0])
    return {
        "name": run.dataset,
        "about": f"Data set {run.dataset}, {run.dataset_origin}.",
        "images": images,
        "looked": images.index(looked),
        "metrics": [
            {"id": name, "label": metric_label(name), "protocol": protocol, "images": _images(records, name)}
            for name, protocol in keys
        ],
        "codecs": [_codec(name, records, shelf.results, images, keys) for name in codecs],
        "thumbs": [
            webp(_small(shelf.originals[name]())) if name in shelf.originals else None for name in images
        ],
        "crops": {
            f"{images.index(p.image)} {p.codec} {p.target_bpp:g}": webp(
                crop(p.pixels(shelf.folder), motif(p.image).at, PART)
            )
            for p in shelf.pictures
            if p.image in images and p.codec in codecs
        },
    }


def _metric(results: Results, record: Record) -> tuple[str, str]:
    return record.metric, results.run(record).protocols[record.metric]


def _images(records: Sequence[Record], metric: str) -> int:
    """How many photographs a metric was measured on: a mean over fewer does not compare."""
    return len({record.image for record in records if record.metric == metric})


def _codec(
    name: str,
    records: Sequence[Record],
    results: Results,
    images: Sequence[str],
    keys: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """One codec's look and its rows: image, rate asked for, bytes, bits per pixel, then a value for each metric."""
    rows: dict[tuple[int, float | None], list[Any]] = {}
    for record in records:
        if record.codec != name:
            continue
        image = images.index(record.image)
        row = rows.setdefault(
            (image, record.target_bpp),
            [image, record.target_bpp, record.bytes, _short(record.bpp), *[None] * len(keys)],
        )
        row[4 + keys.index(_metric(results, record))] = _short(record.value)
    look = line(name)
    return {
        "id": name,
        "label": look.label,
        "colour": look.colour,
        "symbol": "" if name.startswith(CEILING) else _SYMBOLS.get(look.marker, "circle"),
        "dash": _DASHES.get(look.dashes, "dash") if isinstance(look.dashes, str) else "dash",
        "width": look.width,
        "rows": list(rows.values()),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _small(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMB, THUMB))
    return np.asarray(image)
