"""Random backbones in the exact shape of the real ones: every class, name and size, no trained number.

They prove that the code path of the real models works, and what it costs, where the real weights cannot be had.
Pictures made with them are noise.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_codec.backbone.layout import LEGACY_ATTENTION, STABLE_DIFFUSION_FACTOR, WEIGHTS
from diffusion_codec.backbone.prompt import FILE
from diffusion_codec.errors import BadInputError

TOKENS = 77


@dataclass(frozen=True)
class Shape:
    """Constructor arguments of both networks, and what the denoiser predicts."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    prediction: str


def _autoencoder(widths: tuple[int, ...], groups: int) -> dict[str, Any]:
    levels = len(widths)
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "latent_channels": 4,
        "sample_size": 512,
        "scaling_factor": STABLE_DIFFUSION_FACTOR,
    }


def _denoiser(widths: tuple[int, ...], groups: int, **changes: Any) -> dict[str, Any]:
    attending = len(widths) - 1
    return {
        "block_out_channels": widths,
        "down_block_types": ("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attending,
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "in_channels": 4,
        "out_channels": 4,
        **changes,
    }


def _second(heads: tuple[int, ...]) -> dict[str, Any]:
    return {"attention_head_dim": heads, "use_linear_projection": True, "upcast_attention": True}


FULL, SMALL = (320, 640, 1280, 1280), (32, 64)
SHAPES = {
    "stable-diffusion-1": Shape(
        _denoiser(FULL, 32, sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        _autoencoder((128, 256, 512, 512), 32),
        "epsilon",
    ),
    "stable-diffusion-2": Shape(
        _denoiser(FULL, 32, sample_size=96, cross_attention_dim=1024, **_second((5, 10, 20, 20))),
        _autoencoder((128, 256, 512, 512), 32),
        "v_prediction",
    ),
    "tiny-1": Shape(
        _denoiser(SMALL, 8, cross_attention_dim=32, attention_head_dim=8),
        _autoencoder((8, 8, 8, 8), 4),
        "epsilon",
    ),
    "tiny-2": Shape(
        _denoiser(SMALL, 8, cross_attention_dim=64, **_second((2, 4))),
        _autoencoder((8, 8, 8, 8), 4),
        "v_prediction",
    ),
}


def write_random(folder: Path, shape: str, dtype: torch.dtype = torch.float16, seed: int = 0) -> int:
    """Write a random backbone in the layout of the hub's repositories; memory: one copy of the stored weights.

    Returns:
        The number of parameters of both networks.

    Raises:
        BadInputError: no such shape, or the folder exists.
    """
    if shape not in SHAPES:
        raise BadInputError(f"no shape {shape!r}; known: {', '.join(SHAPES)}")
    if folder.exists():
        raise BadInputError(f"{folder} exists already: choose another name")
    chosen = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        vae, unet = AutoencoderKL(**chosen.vae), UNet2DConditionModel(**chosen.unet)
    count = 0
    for part, network in (("vae", vae), ("unet", unet)):
        state = {name: value.to(dtype) for name, value in _random_state(network, generator)}
        count += sum(value.numel() for value in state.values())
        if part == "vae":
            state = {_legacy(name): value for name, value in state.items()}
        _write_part(folder / part, network, state)
        del state
    width = int(chosen.unet["cross_attention_dim"])
    save_file({"embedding": torch.randn(1, TOKENS, width, generator=generator)}, folder / FILE)
    scheduler = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "prediction_type": chosen.prediction,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    return count


def _random_state(network: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Weights that keep a signal's size from layer to layer: norms 1, biases 0, the rest N(0, 1 / fan-in)."""
    for name, parameter in network.state_dict().items():
        if name.endswith(".bias"):
            yield name, torch.zeros(parameter.shape)
        elif parameter.ndim == 1:
            yield name, torch.ones(parameter.shape)
        else:
            yield name, torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5


def _legacy(name: str) -> str:
    if ".attentions." in name:
        for new, old in LEGACY_ATTENTION.items():
            name = name.replace(new, old)
    return name


def _write_part(folder: Path, network: Any, state: dict[str, Tensor]) -> None:
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    _write_json(folder / "config.json", {"_class_name": type(network).__name__, **config})
    save_file(state, folder / f"{WEIGHTS}.safetensors", {"format": "pt"})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
