"""Does P_phi need to see the picture, where lambda decides: `python -m diffusion_codec.evaluation.seeing`.

In :mod:`diffusion_codec.evaluation.choices` a search gives every picture the same rate. Here each gets the file of its
lambda, from the P_phi of `independent`, and from a blind one that knows lambda and the mean of its answers for others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from diffusion_codec import codec_weights, datasets, metrics
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec, lambda_of
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.choices import MEASURES, Choice, Seen, analysed, latents_of_others, prepared
from diffusion_codec.evaluation.tables import keep, stored

QUALITIES = (10.0, 20.0, 30.0, 50.0)
"""Settings whose lambda takes `independent` from about 0.03 to 0.2 bits per pixel."""
P_PHI = (
    Choice("P_phi", "sees the picture"),
    Choice("P_phi", "blind", blind=True),
)


def measure(codec: Codec, pictures: Seen, quality: float) -> pd.DataFrame:
    """One row a picture: bpp and loss (R + lambda * MSE, as trained) of its real file, and the measures."""
    rows = []
    for pixels, analysis in pictures:
        data = codec.compress(analysis, quality).data
        decoded = codec.decompress(data).pixels
        row = {name: metrics.get(name)(pixels, decoded) for name in MEASURES}
        bpp = 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
        error = 10 ** (-row["psnr"] / 10)
        rows.append({"bpp": bpp, **row, "loss": bpp + lambda_of(quality) * error})
    return pd.DataFrame(rows)


def compare(
    seeing: Codec, blind: Codec, pictures: Seen, qualities: Sequence[float] = QUALITIES
) -> pd.DataFrame:
    """Means over pictures, one row a lambda and P_phi.

    Columns: lambda, p_phi, bpp, the measures, loss, loss_ratio and its standard error over pictures (of each picture's
    loss to that of the P_phi that sees it).
    """
    rows = []
    for quality in qualities:
        tables = {
            choice.name: measure(codec, pictures, quality)
            for choice, codec in zip(P_PHI, (seeing, blind), strict=True)
        }
        first = tables[P_PHI[0].name]["loss"]
        for name, table in tables.items():
            ratio = table["loss"] / first
            row = {"lambda": round(lambda_of(quality), 3), "p_phi": name, **table.mean()}
            rows.append(row | {"loss_ratio": ratio.mean(), "loss_ratio_error": ratio.sem()})
    return pd.DataFrame(rows).round(5)


def main(
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/seeing.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.", min=2)] = None,
) -> None:
    """Files of the same lambda from a P_phi that sees the picture and from a blind one."""
    target = stored("seeing.csv", out, whole=(dataset, limit) == ("kodak", None))
    backbone = Backbone.from_pretrained("mini")
    weights = codec_weights.load(codec_weights.embedded_weights("independent"))
    others = latents_of_others(Codec(backbone, weights))
    seeing, blind = (prepared(choice, backbone, weights, others) for choice in P_PHI)
    pictures = datasets.load(dataset, limit)
    table = compare(seeing, blind, analysed(seeing, pictures))
    keep(table, pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
