"""Entropy models against each other on the same latents: `python -m diffusion_codec.evaluation.entropy_models`.

All models see the same integers (those the first one's P_phi quantises), so that only the coding differs. Rates are
of real streams, bytes on disk.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor

from diffusion_codec import codec_weights, datasets
from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.entropy.fixed_point import real_valued
from diffusion_codec.entropy.model import CHANNELS, EntropyModel
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.learned import latents_of, quantised
from diffusion_codec.evaluation.noise import entropy_bits
from diffusion_codec.evaluation.tables import keep, stored

LAMBDAS = [2.0 ** (-2 + 1.6 * i) for i in range(1, 11)]


def compare(
    models: Mapping[str, CodecWeights], latents: Mapping[str, Tensor], lambdas: list[float]
) -> pd.DataFrame:
    """Mean rates over pictures for each lambda, in bits per pixel.

    Columns: lambda, zeroth_order (the entropy of each picture's and channel's own histogram, which no decoder
    knows), and for each model <name>_hyper and <name>_total. The first model's P_phi quantises for all.
    """
    reference = next(iter(models.values()))
    rows = []
    for lambda_ in lambdas:
        for y in latents.values():
            z_hat, side = quantised(reference.parameter_estimation, y, lambda_)
            area = z_hat[0].numel() * STRIDE**2
            ideal = sum(entropy_bits(z_hat[c]) for c in range(CHANNELS)) * z_hat[0].numel()
            row = {"lambda": lambda_, "zeroth_order": ideal / area}
            for name, weights in models.items():
                streams = weights.latent_coder.encode(z_hat, side)
                row[f"{name}_hyper"] = 8 * len(streams.hyper) / area
                row[f"{name}_total"] = 8 * (len(streams.hyper) + len(streams.latent)) / area
            rows.append(row)
    return pd.DataFrame(rows).groupby("lambda", as_index=False).mean().round(5)


def in_real_numbers(weights: CodecWeights) -> EntropyModel:
    """Their entropy model in float32; within :func:`real_valued` it rounds nothing."""
    model = EntropyModel(**weights.latent_coder.model.config)
    model.load_state_dict(weights.latent_coder.model.state_dict())
    return model


def cost_of_integers(
    weights: CodecWeights, latents: Mapping[str, Tensor], lambdas: list[float]
) -> pd.DataFrame:
    """Real streams of exact arithmetic against the same networks' information content in real numbers (float32).

    Columns: lambda, real_bpp, stream_bpp, real_seconds (the networks alone), exact_seconds (networks and range
    coder, one direction); means over pictures.
    """
    model = in_real_numbers(weights)
    rows = []
    for lambda_ in lambdas:
        for y in latents.values():
            z_hat, side = quantised(weights.parameter_estimation, y, lambda_)
            area = z_hat[0].numel() * STRIDE**2
            started = time.perf_counter()
            with real_valued(), torch.inference_mode():
                bits = sum(float(part) for part in model.bits(z_hat[None].float(), side))
            between = time.perf_counter()
            streams = weights.latent_coder.encode(z_hat, side)
            rows.append(
                {
                    "lambda": lambda_,
                    "real_bpp": bits / area,
                    "stream_bpp": 8 * (len(streams.hyper) + len(streams.latent)) / area,
                    "real_seconds": between - started,
                    "exact_seconds": time.perf_counter() - between,
                }
            )
    return pd.DataFrame(rows).groupby("lambda", as_index=False).mean().round(5)


def by_photographs(path: Path) -> pd.DataFrame:
    """The table of models trained on fewer and fewer photographs, as one row a model and lambda.

    Columns: photographs, lambda, bpp, excess (bits above those of the most photographs, as a share).
    """
    table = pd.read_csv(path).set_index("lambda")
    table = table[[name for name in table.columns if re.fullmatch(r"photographs-\d+_total", name)]]
    table.columns = pd.Index([int(name[len("photographs-") : -len("_total")]) for name in table.columns])
    bpp = table.rename_axis(columns="photographs").stack().rename("bpp")
    excess = table.div(table[table.columns.max()], axis=0).sub(1).stack().to_numpy()
    return bpp.to_frame().assign(excess=excess).reset_index()


def main(
    models: Annotated[
        Path,
        typer.Argument(help="Folder of codec weights, as `diffusion-codec train entropy-models` leaves it."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/entropy_models.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    backbone: Annotated[str, typer.Option(help="Whose latents.")] = "mini",
    integers: Annotated[
        bool, typer.Option(help="Also measure what exact arithmetic costs the shipped weights.")
    ] = True,
) -> None:
    """Bits of every entropy model of a folder, from rates of 0.02 bits per pixel up."""
    target = stored("entropy_models.csv", out, whole=(dataset, backbone) == ("kodak", "mini"))
    loaded = {path.stem: codec_weights.load(path) for path in sorted(models.glob("*.safetensors"))}
    if not loaded:
        raise typer.BadParameter(f"{models} holds no codec weights")
    images = datasets.load(dataset)
    pictures = {item.id: item.pixels() for item in images}
    latents = latents_of(Backbone.from_pretrained(backbone), pictures)
    table = compare(loaded, latents, LAMBDAS)
    keep(table, images, target)
    if not integers:
        return
    rounding = codec_weights.load(codec_weights.embedded_weights("independent"))
    cost = cost_of_integers(rounding, latents, LAMBDAS[1:8:2])
    keep(cost, images, target.with_name(f"{target.stem}_integers.csv"))


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
