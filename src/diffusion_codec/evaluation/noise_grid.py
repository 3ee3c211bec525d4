"""One photograph for every pair of a quantisation step and a declared timestep: what the noise machine shows.

The steps are the matched ones of the timesteps, so that the match lies on the diagonal.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from diffusion_codec import metrics, quantization
from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.noise import DITHERS, disturb, entropy_bits, whole_cells
from diffusion_codec.pixels import to_pixels

Pixels = npt.NDArray[np.uint8]
BINS, SPAN = 50, 1.25
"""Bins of the histogram of the error, and its range in steps to either side."""


@dataclass(frozen=True)
class Cell:
    """One declared timestep (0: no denoising) for one step: what the decoder makes of it."""

    t: int
    sigma: float
    pixels: Pixels
    lpips: float
    psnr: float


@dataclass(frozen=True)
class Row:
    """One step Delta: the latent after quantisation (4, h, w), its error, its rate, and every declared timestep.

    `density` is that of the error in units of the step, BINS bins over -SPAN to SPAN; `deviation` is on the
    latent's scale; `bpp` the zeroth-order entropy of the symbols, channel by channel, in bits per pixel.
    """

    step: float
    matched_t: int
    y_hat: npt.NDArray[np.float32]
    density: npt.NDArray[np.float64]
    deviation: float
    bpp: float
    cells: list[Cell]


@torch.inference_mode()
def rows(backbone: Backbone, pixels: Pixels, timesteps: Sequence[int], kind: str, steps: int) -> list[Row]:
    """The grid for one photograph, uint8 (H, W, 3) with sides that 8 divides, and one kind of error.

    Args:
        timesteps: rising, two or more; each gives a step and is declared to every step.
        kind: "rounding" or "dithered" (`noise.KINDS`).
        steps: DDIM steps from each declared timestep.

    Raises:
        BadInputError: the timesteps do not rise, or are fewer than two.
    """
    if len(timesteps) < 2 or any(a >= b for a, b in itertools.pairwise(timesteps)):
        raise BadInputError(f"timesteps {list(timesteps)}: expected two or more, rising")
    y = backbone.encode(whole_cells(pixels))
    return [_row(backbone, pixels, y, t, timesteps, kind, steps) for t in timesteps]


def _row(
    backbone: Backbone,
    pixels: Pixels,
    y: torch.Tensor,
    matched: int,
    timesteps: Sequence[int],
    kind: str,
    steps: int,
) -> Row:
    step = float(quantization.matched_step(torch.tensor(float(matched)), backbone.schedule))
    y_hat = disturb(y, step, kind)
    error = (y_hat - y).numpy().ravel()
    density, _ = np.histogram(error / step, BINS, (-SPAN, SPAN), density=True)
    count = len(timesteps)
    y_0 = backbone.denoise(y_hat.expand(count, -1, -1, -1), torch.tensor(timesteps, dtype=y.dtype), steps)
    decoded = to_pixels(backbone.decode(torch.cat([y_hat, y_0])))
    lpips, psnr = metrics.get("lpips-alex"), metrics.get("psnr")
    cells = [
        Cell(t, float(backbone.schedule.sigma_at(torch.tensor(float(t)))) if t else 0.0, picture,
             lpips(pixels, picture), psnr(pixels, picture))
        for t, picture in zip((0, *timesteps), decoded, strict=True)
    ]  # fmt: skip
    # the coder knows the dither: the mean over its values of the entropies
    shifts = (0.0,) if kind == "rounding" else DITHERS
    bits = float(np.mean([entropy_bits((c / step + d).round()) for c in y[0] for d in shifts]))
    return Row(
        step, matched, y_hat[0].numpy(), density, float(error.std()), bits * y.shape[1] / STRIDE**2, cells
    )


def table(grids: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """One row a cell: kind, step, matched_t, bpp, deviation (of the error), t, sigma, lpips, psnr."""
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "step": row.step,
                "matched_t": row.matched_t,
                "bpp": row.bpp,
                "deviation": row.deviation,
                "t": cell.t,
                "sigma": cell.sigma,
                "lpips": cell.lpips,
                "psnr": cell.psnr,
            }
            for kind, grid in grids.items()
            for row in grid
            for cell in row.cells
        ]
    )
