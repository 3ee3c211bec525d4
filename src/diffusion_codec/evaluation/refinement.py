"""What refinement by the encoder is worth: `python -m diffusion_codec.evaluation.refinement`.

Files of a data set before and after :func:`diffusion_codec.refinement.refine`, no larger than they were. It descends L1
and LPIPS of SqueezeNet; MS-SSIM, LPIPS of AlexNet and DISTS take no part, PSNR by way of L1.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from diffusion_codec import datasets, metrics
from diffusion_codec.backbone.options import run_options
from diffusion_codec.codec import Codec, Compressed, UnreachableSizeError
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.tables import keep, stored
from diffusion_codec.metrics.base import Pixels
from diffusion_codec.refinement import refine

MEASURES = ("psnr", "ms-ssim", "lpips-alex", "lpips-squeeze", "dists")
STEPS = [0, 10, 40, 80]
KEYS = ["backbone", "fingerprint", "rate", "steps"]


def compare(
    backbone: str, pictures: ImageDataset, rates: Sequence[float], steps: Sequence[int], device: str
) -> Iterator[dict[str, object]]:
    """One row a picture, rate (bits per pixel that a file may take) and number of steps, 0 for the file as it was.

    A picture that has no file so small is left out.
    """
    codec = Codec.from_pretrained(backbone, device=device, run=run_options("auto"))
    key = {"backbone": codec.backbone.name, "fingerprint": codec.backbone.fingerprint[:8]}
    for item, rate in product(pictures, rates):
        pixels = item.pixels()
        try:
            plain = codec.compress_to_size(pixels, int(rate * pixels.shape[0] * pixels.shape[1] / 8))
        except UnreachableSizeError as error:
            print(f"{item.id} left out: {error}", flush=True)
            continue
        for count in steps:
            file = refine(codec, pixels, plain, count) if count else plain
            row: dict[str, object] = {**key, "rate": rate, "steps": count, **_measured(codec, pixels, file)}
            print(item.id, row, flush=True)
            yield row


def _measured(codec: Codec, pixels: Pixels, file: Compressed) -> dict[str, float]:
    decoded = codec.decompress(file.data).pixels
    values = {name: metrics.get(name)(pixels, decoded) for name in MEASURES}
    bpp = 8 * len(file.data) / (pixels.shape[0] * pixels.shape[1])
    return {"bpp": bpp, **values, "seconds": file.seconds.get("refine", 0.0), "images": 1}


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures by backbone, rate and steps, and the number of pictures."""
    groups = rows.groupby(KEYS, as_index=False, sort=False)
    return groups.agg(dict.fromkeys(["bpp", *MEASURES, "seconds"], "mean") | {"images": "sum"}).round(4)


def main(
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/refinement.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    backbone: Annotated[list[str], typer.Option(help="Backbones.")] = ["mini"],  # noqa: B006
    rate: Annotated[list[float], typer.Option(help="Bits per pixel.")] = [0.1],  # noqa: B006
    steps: Annotated[list[int], typer.Option(help="Steps of refinement.")] = STEPS,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")] = "cpu",
) -> None:
    """Refine the files of a data set; takes about three hours of one core a backbone and rate."""
    whole = (dataset, backbone, rate, steps, device) == ("kodak", ["mini"], [0.1], STEPS, "cpu")
    target = stored("refinement.csv", out, whole=whole)
    pictures = datasets.load(dataset)
    rows = [row for name in backbone for row in compare(name, pictures, rate, steps, device)]
    keep(means(pd.DataFrame(rows)), pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
