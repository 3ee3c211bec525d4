"""Entropy models of every kind, trained alike: the same latents, quantisation, steps and seed.

What ``diffusion_codec.evaluation.entropy_models`` then compares, bit for bit on the same symbols.
"""

from pathlib import Path
from typing import Any

from diffusion_codec.backbone import Backbone
from diffusion_codec.training.codec import CodecConfig, CodecRecipe, Crops
from diffusion_codec.training.export import export_codec
from diffusion_codec.training.loop import train

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


def train_variants(
    config: CodecConfig, backbone: Backbone, crops: Crops, out: Path, names: list[str], device: str = "cpu"
) -> list[Path]:
    """Train each kind for ``config.steps`` steps of rate alone; the weights' files, ``out``/<name>.safetensors."""
    files = []
    for name in names:
        settings = config.model_dump() | VARIANTS[name] | {"rate_only_steps": config.steps}
        recipe = CodecRecipe(CodecConfig.model_validate(settings), backbone, crops, device)
        train(recipe, out / name)
        files.append(out / f"{name}.safetensors")
        export_codec(out / name, files[-1])
    return files
