"""What backbones are worth at equal rates: `python -m diffusion_codec.evaluation.backbones`.

Files of one codec's weights by each backbone, and its autoencoder alone. A backbone is embedded, or any folder: a
training that may replace one is measured beside it before it does.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from diffusion_codec import datasets, metrics
from diffusion_codec.codec import Codec
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.tables import keep, stored

MEASURES = ("psnr", "ms-ssim", "lpips-alex", "lpips-squeeze", "dists")
RATES = (0.05, 0.1, 0.2)
"""Bits per pixel that files have at most."""
ALONE = "autoencoder alone"
BACKBONES = ("mini", "small")


def rows_of(
    codec: Codec, pictures: ImageDataset, rates: tuple[float, ...] = RATES
) -> Iterator[dict[str, Any]]:
    """One row a picture and case: backbone, fingerprint, case, bpp (missing without a file), and the measures."""
    of = {"backbone": codec.backbone.name, "fingerprint": codec.backbone.fingerprint[:8]}
    for item in pictures:
        pixels = item.pixels()
        analysis = codec.analyse(pixels)
        for rate in rates:
            size = pixels.shape[0] * pixels.shape[1] / 8
            data = codec.compress_to_size(analysis, int(rate * size)).data
            yield {**of, "case": f"{rate:g} bpp", "bpp": len(data) / size} | _measured(
                pixels, codec.decompress(data).pixels
            )
        yield {**of, "case": ALONE, "bpp": None} | _measured(pixels, codec.autoencode(analysis))


def _measured(pixels: Any, decoded: Any) -> dict[str, float]:
    return {name: metrics.get(name)(pixels, decoded) for name in MEASURES}


def means(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Means over pictures, one row a backbone and case, and how many pictures they are of."""
    cases = pd.DataFrame(rows).groupby(["backbone", "fingerprint", "case"], sort=False)
    return cases.mean().round(4).assign(images=cases.size()).reset_index()


def main(
    backbone: Annotated[
        list[str] | None, typer.Option(help="Embedded backbones, or folders; default: all embedded ones.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/backbones.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.", min=1)] = None,
) -> None:
    """Measure backbones on real files of equal rates and with their autoencoder alone."""
    names = tuple(backbone or BACKBONES)
    target = stored("backbones.csv", out, whole=(names, dataset, limit) == (BACKBONES, "kodak", None))
    pictures = datasets.load(dataset, limit)
    rows = [row for name in names for row in rows_of(Codec.from_pretrained(name), pictures)]
    keep(means(rows), pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
