"""Random models of the real classes, a few thousand weights each: the real code path in milliseconds."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file

from diffusion_codec import codec_weights
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec
from diffusion_codec.entropy.model import EntropyModel
from diffusion_codec.parameter_estimation import ParameterEstimation
from diffusion_codec.schedule import STABLE_DIFFUSION
from diffusion_codec.training.denoiser import DenoiserConfig, build_denoiser


def tiny_autoencoder(seed: int = 0) -> AutoencoderTiny:
    torch.manual_seed(seed)
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(0, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 0),
        scaling_factor=1.0,
        force_upcast=False,
    )


def tiny_denoiser(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return build_denoiser(
        DenoiserConfig(steps=1, batch_size=1, learning_rate=1.0, widths=(16, 16), layers_per_block=1)
    )


def tiny_backbone(seed: int = 0, prediction: str = "epsilon") -> Backbone:
    """A random backbone in memory."""
    vae, unet = tiny_autoencoder(seed), tiny_denoiser(seed)
    return Backbone(vae, unet, STABLE_DIFFUSION, torch.zeros(1, 1, 1), prediction=prediction, name="tiny")


def write_tiny_backbone(folder: Path, seed: int = 0) -> Path:
    """The same as a folder in the diffusers layout."""
    tiny_autoencoder(seed).save_pretrained(folder / "vae")
    tiny_denoiser(seed).save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir(parents=True)
    scheduler = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "backbone.json").write_text(json.dumps({"name": "tiny", "latent_space": "stable-diffusion-1"}))
    save_file({"embedding": torch.zeros(1, 1, 1)}, folder / "empty_prompt.safetensors")
    return folder


def tiny_weights_file(path: Path, seed: int = 0, *, dithered: bool = False, **shape: Any) -> Path:
    """Untrained codec weights, every parameter disturbed: predictions differ from place to place."""
    torch.manual_seed(seed)
    estimation, entropy = ParameterEstimation(), EntropyModel(**({"width": 8, "hyper_features": 4} | shape))
    with torch.no_grad():
        for parameter in entropy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    codec_weights.save(
        path, estimation, entropy, latent_space="stable-diffusion-1", variant="test", dithered=dithered
    )
    return path


def tiny_codec(folder: Path, seed: int = 0, hyper_channels: int = 0) -> Codec:
    """A working codec with random weights: large files, noise for pictures, the real code path."""
    weights = codec_weights.load(
        tiny_weights_file(folder / "codec.safetensors", seed, hyper_channels=hyper_channels)
    )
    return Codec(tiny_backbone(seed), weights)
