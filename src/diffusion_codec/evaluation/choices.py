"""The choices the paper leaves open, each measured: `python -m diffusion_codec.evaluation.choices`.

One thing is changed at a time against `independent`, the weights that leave P_phi every freedom; files are real, and
the measures are compared at equal rates, read off each choice's own curve.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from torch import Tensor, nn

from diffusion_codec import codec_weights, datasets, metrics, quantization
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import DEFAULT_STEPS, Codec
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.parameter_estimation import Parameters

Change = Callable[[Parameters], Parameters]
MEASURES = ("psnr", "lpips-alex")
QUALITIES, RATES = [20.0, 32.0, 44.0], [0.1]
"""Each choice's files of these qualities enclose the rates."""


@dataclass(frozen=True)
class Choice:
    """One setting of one open question, the rest as trained with alpha and t independent of each other."""

    question: str
    name: str
    weights: str = "independent"
    change: Change | None = None
    steps: int = DEFAULT_STEPS
    dither_seed: int | None = None
    spacing: float = 1.0


class Respaced:
    """A backbone whose DDIM steps end at t (1 - i / steps)^power: closer together towards t = 0 for a power above 1."""

    def __init__(self, backbone: Backbone, power: float):
        self.backbone, self.power = backbone, power

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def denoise(self, y_hat: Tensor, t: Tensor, steps: int) -> Tensor:
        """As :meth:`Backbone.denoise`."""
        ends = [t * (1 - i / steps) ** self.power for i in range(steps + 1)]
        y = y_hat
        for i, (now, then) in enumerate(pairwise(ends), 1):
            y = self.backbone.step(y, now, then, last=i == steps)
        return y


class Changed(nn.Module):
    """P_phi whose answer is changed before it is used and stored."""

    def __init__(self, p_phi: nn.Module, change: Change):
        super().__init__()
        self.p_phi, self.change = p_phi, change

    def forward(self, y: Tensor, lambda_: Tensor) -> Parameters:
        """As :class:`diffusion_codec.parameter_estimation.ParameterEstimation`."""
        return self.change(self.p_phi(y, lambda_))


def shared_alpha(p: Parameters) -> Parameters:
    """One alpha for all channels: the geometric mean."""
    return p._replace(alpha=torch.exp2(p.alpha.log2().mean(1, keepdim=True)).expand_as(p.alpha))


def no_beta(p: Parameters) -> Parameters:
    """Without the offset."""
    return p._replace(beta=torch.zeros_like(p.beta))


def scaled_timestep(part: float) -> Change:
    """t for ``part`` of the noise level that matches the step's rounding error."""

    def change(p: Parameters) -> Parameters:
        step = torch.exp2(-p.alpha.log2().mean(1))
        return p._replace(t=quantization.matched_timestep(part * step))

    return change


def coarse_alpha(per_octave: int) -> Change:
    """alpha stored in ``per_octave`` steps an octave instead of 16."""

    def change(p: Parameters) -> Parameters:
        return p._replace(alpha=torch.exp2((p.alpha.log2() * per_octave).round() / per_octave))

    return change


def coarse_beta(per_step: int) -> Change:
    """beta stored in ``per_step`` levels a quantisation step instead of 256."""

    def change(p: Parameters) -> Parameters:
        return p._replace(beta=(p.beta * per_step).round() / per_step)

    return change


def coarse_timestep(apart: int) -> Change:
    """t stored as a multiple of ``apart`` instead of 1."""

    def change(p: Parameters) -> Parameters:
        return p._replace(t=(p.t / apart).round().clamp(1, 999 // apart) * apart)

    return change


CHOICES = (
    Choice("base", "independent"),
    Choice("gamma", "one alpha for all channels", change=shared_alpha),
    Choice("gamma", "no beta", change=no_beta),
    Choice("t", "tied: matched to the step", change=scaled_timestep(1.0)),
    Choice("t", "tied: 0.8 of the matched level", change=scaled_timestep(0.8)),
    Choice("t", "tied: 0.6 of the matched level", change=scaled_timestep(0.6)),
    Choice("quantisation", "dither, coder unaware", dither_seed=0),
    Choice("steps", "no denoising", steps=0),
    Choice("steps", "1", steps=1),
    Choice("steps", "2", steps=2),
    Choice("steps", "5", steps=5),
    Choice("steps", "10", steps=10),
    Choice("steps", "3, the last ones shorter", spacing=2.0),
    Choice("steps", "3, the first ones shorter", spacing=0.5),
    Choice("side information", "alpha in 4 steps an octave", change=coarse_alpha(4)),
    Choice("side information", "alpha in whole octaves", change=coarse_alpha(1)),
    Choice("side information", "beta in 16 levels a step", change=coarse_beta(16)),
    Choice("side information", "t in multiples of 32", change=coarse_timestep(32)),
    Choice("variant", "paper-2024", weights="paper-2024"),
    Choice("variant", "paper-2025", weights="paper-2025"),
)


def measure(
    choice: Choice, backbone: Backbone, weights: CodecWeights, pictures: ImageDataset, qualities: list[float]
) -> pd.DataFrame:
    """Means over pictures for each quality; columns quality, bpp, and the measures."""
    codec = Codec(backbone, weights)
    if choice.change is not None:
        codec.p_phi = Changed(codec.p_phi, choice.change)  # type: ignore[assignment]
    if choice.spacing != 1:
        codec.backbone = Respaced(backbone, choice.spacing)  # type: ignore[assignment]
    rows = []
    for item in pictures:
        pixels = item.pixels()
        for quality in qualities:
            data = codec.compress(pixels, quality, dither_seed=choice.dither_seed).data
            decoded = codec.decompress(data, choice.steps).pixels
            row = {"quality": quality, "bpp": 8 * len(data) / (pixels.shape[0] * pixels.shape[1])}
            rows.append(row | {name: metrics.get(name)(pixels, decoded) for name in MEASURES})
    return pd.DataFrame(rows).groupby("quality", as_index=False).mean()


def at_rates(curve: pd.DataFrame, rates: list[float]) -> dict[str, float]:
    """Each measure at each rate, linear in log rate between the curve's points; NaN outside them."""
    ordered = curve.sort_values("bpp")
    x = np.log(ordered.bpp.to_numpy())
    values: dict[str, float] = {}
    for name in MEASURES:
        found = np.interp(np.log(rates), x, ordered[name].to_numpy(), left=np.nan, right=np.nan)
        values |= {f"{name} at {rate:g}": float(v) for rate, v in zip(rates, found, strict=True)}
    return values


def compare(
    backbone: Backbone,
    weights: Mapping[str, CodecWeights],
    pictures: ImageDataset,
    qualities: list[float],
    rates: list[float],
) -> pd.DataFrame:
    """One row a choice whose weights are there: question, choice, steps, and the measures at ``rates``."""
    rows = []
    for choice in CHOICES:
        if choice.weights not in weights:
            typer.echo(f"no codec weights {choice.weights!r}: {choice.name} is left out", err=True)
            continue
        curve = measure(choice, backbone, weights[choice.weights], pictures, qualities)
        row = {"question": choice.question, "choice": choice.name, "steps": choice.steps}
        rows.append(row | at_rates(curve, rates))
        typer.echo(f"{choice.question}: {choice.name}", err=True)
    return pd.DataFrame(rows).round(4)


def main(
    out: Annotated[Path, typer.Option(help="Table to write.")] = Path("data/results/codec_choices.csv"),
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = 4,
) -> None:
    """Each open choice of the paper against its most general form, at equal rates (about ten minutes of one core)."""
    names = {choice.weights for choice in CHOICES}
    weights = {
        path.stem: codec_weights.load(path)
        for path in codec_weights.embedded_weights().parent.glob("*.safetensors")
        if path.stem in names
    }
    pictures = datasets.load(dataset, limit)
    table = compare(Backbone.from_pretrained("mini"), weights, pictures, QUALITIES, RATES)
    if table.isna().any(axis=None):
        typer.echo(
            f"error: the files of qualities {QUALITIES} do not enclose {RATES} bits per pixel:", err=True
        )
        typer.echo(table.to_string(index=False), err=True)
        raise typer.Exit(1)
    table.insert(0, "dataset", pictures.name)
    table.to_csv(out, index=False)
    typer.echo(table.to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
