"""Entropy models of every kind, trained alike: the same latents, quantisation, steps and seed.

What ``diffusion_codec.evaluation.entropy_models`` then compares, bit for bit on the same symbols.
"""

from pathlib import Path
from typing import Any

import numpy as np

from diffusion_codec.backbone import Backbone
from diffusion_codec.training.codec import CodecConfig, CodecRecipe, Crops
from diffusion_codec.training.export import export_codec
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import LatentCrops

VARIANTS: dict[str, dict[str, Any]] = {
    "factorised": {"context": "none"},
    "hyperprior": {"context": "none", "hyper_channels": 4},
    "hyperprior-checkerboard": {"context": "checkerboard", "hyper_channels": 4},
    "checkerboard": {"context": "checkerboard"},
    "lattice": {"context": "lattice", "kernel": 7, "energy": 9},
    "lattice-from-noise": {"context": "lattice", "kernel": 7, "energy": 9, "dithered": True},
    "hyperprior-lattice": {"context": "lattice", "kernel": 7, "energy": 9, "hyper_channels": 4},
}
"""Name -> what differs from the configuration."""
SHIPPED = "lattice"


def train_variants(
    config: CodecConfig, backbone: Backbone, crops: Crops, out: Path, names: list[str], device: str = "cpu"
) -> list[Path]:
    """Train each kind for ``config.steps`` steps of rate alone; the weights' files, ``out``/<name>.safetensors."""
    return [_train(config, name, backbone, crops, out / name, device) for name in names]


def train_on_fewer(
    config: CodecConfig,
    backbone: Backbone,
    crops: LatentCrops,
    out: Path,
    counts: list[int],
    device: str = "cpu",
) -> list[Path]:
    """Train the kind that ships on so many photographs, evenly spread over all that ``crops`` has.

    The weights' files are ``out``/photographs-<count>.safetensors.
    """
    files = []
    for count in counts:
        chosen = np.linspace(0, len(crops.latents) - 1, count).round().astype(int)
        fewer = LatentCrops(None, [crops.latents[i] for i in chosen], config.crop)
        files.append(_train(config, SHIPPED, backbone, fewer, out / f"photographs-{count:04}", device))
    return files


def _train(config: CodecConfig, kind: str, backbone: Backbone, crops: Crops, run: Path, device: str) -> Path:
    settings = config.model_dump() | VARIANTS[kind] | {"rate_only_steps": config.steps}
    recipe = CodecRecipe(CodecConfig.model_validate(settings), backbone, crops, device)
    train(recipe, run)
    file = run.with_suffix(".safetensors")
    export_codec(run, file)
    return file
