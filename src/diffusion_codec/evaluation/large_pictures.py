"""Pictures larger than Kodak's, which mini works on in tiles: `python -m diffusion_codec.evaluation.large_pictures`.

Kodak's photographs are the largest here, so larger pictures are made of them: mosaics, as sharp and rich as
photographs are, and enlarged ones, soft as those of many a camera. One answer of P_phi serves a whole picture.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image

from diffusion_codec import codec_weights, datasets, metrics
from diffusion_codec.backbone import Backbone
from diffusion_codec.backbone.options import SMALL_NETWORKS, SMALLEST_TILE, Tiles
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError, in_one_line
from diffusion_codec.evaluation.tables import keep, stored
from diffusion_codec.metrics.base import Pixels

MEASURES = ("psnr", "lpips-alex")
RATES = (0.1, 0.05)
"""Bits per pixel that a file may take."""
SIDE = 3
"""Photographs a side of a mosaic, and how many times an enlarged one is as wide."""
ENLARGED = 4
"""Photographs enlarged."""
WHOLE = "in one piece"
TILES = {
    WHOLE: SMALL_NETWORKS._replace(pixels=2**20, latents=2**17),
    "in tiles": SMALL_NETWORKS,
    "in the smallest tiles": SMALL_NETWORKS.within(SMALLEST_TILE**2 * SMALL_NETWORKS.bytes_per_pixel),
}
"""As it ships: the autoencoder in tiles of 1024 pixels a side, the denoiser in tiles of 2048."""
APART, SAME_LAMBDA = "each photograph by itself", "each by itself, lambda of the mosaic"


def mosaic(photographs: list[Pixels], side: int = SIDE) -> Pixels:
    """side x side photographs of one size as one picture, row by row."""
    rows = [np.concatenate(photographs[i : i + side], axis=1) for i in range(0, side * side, side)]
    return np.concatenate(rows)


def cut(picture: Pixels, side: int = SIDE) -> list[Pixels]:
    """The photographs of a :func:`mosaic`."""
    return [part for row in np.split(picture, side) for part in np.split(row, side, axis=1)]


def enlarged(photograph: Pixels, times: int = SIDE) -> Pixels:
    """``times`` as wide and as high (Lanczos)."""
    height, width = photograph.shape[:2]
    return np.asarray(
        Image.fromarray(photograph).resize((times * width, times * height), Image.Resampling.LANCZOS)
    )


def mosaics(photographs: list[Pixels], side: int = SIDE) -> list[Pixels]:
    """As many as the photographs of the commonest size fill.

    Raises:
        BadInputError: there are too few for one.
    """
    shapes = [photograph.shape for photograph in photographs]
    shape = max(shapes, key=shapes.count)
    alike = [photograph for photograph in photographs if photograph.shape == shape]
    if len(alike) < side * side:
        raise BadInputError(f"a mosaic takes {side * side} photographs of one size, here are {len(alike)}")
    starts = range(0, len(alike) - side * side + 1, side * side)
    return [mosaic(alike[start : start + side * side], side) for start in starts]


def compare(codec: Codec, photographs: list[Pixels]) -> Iterator[dict[str, object]]:
    """One row a picture, rate and way to work on it: bpp and the measures, of a mosaic their means over photographs."""
    for picture in mosaics(photographs):
        for rate in RATES:
            yield from _mosaic_rows(codec, picture, rate)
    for photograph in photographs[:ENLARGED]:
        large = enlarged(photograph)
        for rate in RATES:
            for name, tiles in TILES.items():
                row, _ = _measured(codec, large, rate, tiles, parts=1)
                yield {"picture": "enlarged", "rate": rate, "worked_on": name, **row}


def _mosaic_rows(codec: Codec, picture: Pixels, rate: float) -> Iterator[dict[str, object]]:
    key = {"picture": "mosaic", "rate": rate}
    qualities = {}
    for name, tiles in TILES.items():
        row, qualities[name] = _measured(codec, picture, rate, tiles, parts=SIDE)
        yield key | {"worked_on": name, **row}
    for name, quality in ((APART, None), (SAME_LAMBDA, qualities[WHOLE])):
        rows = [_measured(codec, part, rate, TILES[WHOLE], 1, quality)[0] for part in cut(picture)]
        yield key | {"worked_on": name, **pd.DataFrame(rows).mean()}


def _measured(
    codec: Codec, picture: Pixels, rate: float, tiles: Tiles, parts: int, quality: float | None = None
) -> tuple[dict[str, float], float]:
    """bpp and measures of the file of at most ``rate`` bits per pixel, or of ``quality``; and its quality."""
    codec.backbone.tiles = tiles
    area = picture.shape[0] * picture.shape[1]
    file = (
        codec.compress_to_size(picture, int(rate * area / 8))
        if quality is None
        else codec.compress(picture, quality)
    )
    decoded = codec.decompress(file.data).pixels
    pairs = list(zip(cut(picture, parts), cut(decoded, parts), strict=True))
    values = {name: fmean(metrics.get(name)(*pair) for pair in pairs) for name in MEASURES}
    return {"bpp": 8 * len(file.data) / area, **values}, file.quality


def main(
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/large_pictures.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
) -> None:
    """Code mosaics and enlarged photographs in one piece and in tiles; takes an hour of one core."""
    target = stored("large_pictures.csv", out, whole=dataset == "kodak")
    codec = Codec(Backbone.from_pretrained("mini"), codec_weights.load(codec_weights.embedded_weights()))
    pictures = datasets.load(dataset)
    rows = pd.DataFrame(list(compare(codec, [item.pixels() for item in pictures])))
    keys = ["picture", "rate", "worked_on"]
    table = rows.groupby(keys, as_index=False, sort=False).mean().round(4)
    keep(table, pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
