"""Decoded photographs beside their originals: PNG files and, in `pictures.json`, the sizes of the real files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_codec import metrics
from diffusion_codec.datasets import ImageDataset, ImageItem
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.codecs import Pixels, RateCodec

ORIGINAL = "original"
INDEX = "pictures.json"


@dataclass(frozen=True)
class Picture:
    """One photograph out of one codec's file: PNG of the pixels, bytes of the file (None: there is none)."""

    image: str
    codec: str
    file: str
    bytes: int | None
    bpp: float | None
    target_bpp: float
    lpips: float | None
    origin: str

    def pixels(self, folder: Path) -> Pixels:
        """uint8 H x W x 3."""
        with Image.open(folder / self.file) as image:
            return np.array(image.convert("RGB"))


def decode(
    codecs: Sequence[RateCodec], items: Sequence[ImageItem], origin: str, bpp: float, folder: Path
) -> list[Picture]:
    """Code and decode every photograph with every codec at most at `bpp`, and write all into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    distance = metrics.get("lpips-alex")
    pictures = []
    for item in items:
        pixels = item.pixels()
        size = item.path.stat().st_size if item.path else None
        pictures.append(_write(folder, item.id, ORIGINAL, pixels, size, bpp, 0.0, origin))
        for codec in codecs:
            coded = codec.run(pixels, bpp)
            made = None if coded.data is None else len(coded.data)
            value = distance(pixels, coded.decoded) if min(pixels.shape[:2]) >= distance.min_side else None
            pictures.append(_write(folder, item.id, codec.name, coded.decoded, made, bpp, value, origin))
    text = json.dumps([asdict(picture) for picture in pictures], indent=1)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    return pictures


def choose(dataset: ImageDataset, wanted: Sequence[str], images: int) -> list[ImageItem]:
    """The photographs of these ids; the first ones where the data set has none of them.

    Raises BadInputError if it has some of them, but not all: that is a slip of the pen.
    """
    by_id = {item.id: item for item in dataset}
    found = [by_id[name] for name in wanted if name in by_id]
    if found and len(found) < len(wanted):
        unknown = [name for name in wanted if name not in by_id]
        raise BadInputError(f"{dataset.name} has no photograph {unknown[0]!r}; it has {', '.join(by_id)}")
    return found or list(dataset)[: min(images, len(wanted))]


def _write(
    folder: Path,
    image: str,
    codec: str,
    pixels: Pixels,
    size: int | None,
    target_bpp: float,
    lpips: float | None,
    origin: str,
) -> Picture:
    name = f"{image}_{codec.replace('@', '-at-')}.png"
    Image.fromarray(pixels).save(folder / name)
    bpp = None if size is None else 8 * size / (pixels.shape[0] * pixels.shape[1])
    return Picture(image, codec, name, size, bpp, target_bpp, lpips, origin)
