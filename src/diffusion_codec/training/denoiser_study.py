"""Which denoiser? Small ones trained alike, and what each makes of truly quantised latents.

The candidates differ in one thing each: what the network predicts, and the noise it learned from. "regression" learns
from the rounding error itself, and is no diffusion model: it maps quantised to clean latents at one level at a time.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from diffusion_codec import metrics, quantization
from diffusion_codec.backbone import Backbone
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.pixels import to_pixels_like, to_signed
from diffusion_codec.training.card import MEASURES, TIMESTEPS
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.export import load_denoiser
from diffusion_codec.training.loop import train

VARIANTS: dict[str, dict[str, Any]] = {
    "epsilon": {},
    "v-prediction": {"prediction": "v_prediction"},
    "uniform noise": {"noise": "uniform"},
    "regression": {"noise": "rounding"},
}
"""Name -> what differs from the configuration."""

Candidates = dict[str, Backbone]


def train_variants(
    config: DenoiserConfig, latents: list[Tensor], backbone: Backbone, out: Path, device: str = "cpu"
) -> Candidates:
    """Every candidate trained for ``config.steps`` steps from the same seed, with ``backbone``'s autoencoder."""
    trained = {}
    for name, changes in VARIANTS.items():
        settings = DenoiserConfig.model_validate(config.model_dump() | changes)
        run = out / name.replace(" ", "-")
        train(DenoiserRecipe(settings, latents, device), run)
        trained[name] = Backbone(
            backbone.vae,
            load_denoiser(run),
            backbone.schedule,
            torch.zeros(1, 1, 1),
            prediction=settings.prediction,
            name=name,
            latent_space=backbone.latent_space,
        ).to(device)
    return trained


@torch.inference_mode()
def measure(candidates: Candidates, backbone: Backbone, pictures: ImageDataset) -> pd.DataFrame:
    """Means over pictures of one-step denoised latents, quantised with the step matched to t.

    Columns: t, dither (universal quantisation or rounding), denoiser ("none": the dequantised latent), measures.
    """
    rows = []
    for item in pictures:
        pixels = item.pixels()
        y = backbone.encode(to_signed(pixels))
        for timestep in TIMESTEPS:
            t = torch.tensor([float(timestep)])
            for dither in (False, True):
                y_hat = quantised(y, quantization.matched_step(t), dither)
                latents = {"none": y_hat} | {n: b.denoise(y_hat, t, 1) for n, b in candidates.items()}
                for name, latent in latents.items():
                    decoded = to_pixels_like(backbone.decode(latent), pixels)
                    row = {"t": timestep, "dither": dither, "denoiser": name}
                    rows.append(row | {m: metrics.get(m)(pixels, decoded) for m in MEASURES})
    keys = ["t", "dither", "denoiser"]
    return pd.DataFrame(rows).groupby(keys, sort=False, as_index=False).mean().round(4)


def quantised(y: Tensor, step: Tensor, dither: bool) -> Tensor:
    """Rounded to multiples of ``step``, with shared dither of seed 0 or without."""
    if not dither:
        return step * (y / step).round()
    d = torch.from_numpy(quantization.shared_dither(0, tuple(y.shape)))
    return step * ((y / step + d).round() - d)
