"""Recipe 1: the autoencoder of ``mini``.

The encoder learns the teacher's latents (so that ``mini`` and Stable Diffusion speak one latent space); the decoder
learns to bring the photograph back from the encoder's latents, for fidelity (L1) and perception (LPIPS). The decoder's
loss does not reach the encoder: it would pull the latents away from Stable Diffusion's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from diffusion_codec.metrics import perceptual_loss
from diffusion_codec.metrics.trunks import Net
from diffusion_codec.training.loop import LoopConfig
from diffusion_codec.training.photos import LatentCrops


class AutoencoderConfig(LoopConfig):
    """Shape, crop and loss weights of the autoencoder recipe."""

    width: int = 32
    encoder_blocks: tuple[int, int, int, int] = (0, 2, 4, 6)
    decoder_blocks: tuple[int, int, int, int] = (6, 6, 4, 0)
    crop: int = 96
    l2_weight: float = 0.0
    perceptual_weight: float = 0.2
    perceptual_from_step: int = 0
    perceptual_net: Net = "squeeze"
    latent_noise: float = 0.0


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderTiny:
    """An untrained :class:`diffusers.AutoencoderTiny` of the configured shape; latents need no further scaling."""
    return AutoencoderTiny(
        encoder_block_out_channels=(config.width,) * 4,
        decoder_block_out_channels=(config.width,) * 4,
        num_encoder_blocks=config.encoder_blocks,
        num_decoder_blocks=config.decoder_blocks,
        scaling_factor=1.0,
        force_upcast=False,
    )


class AutoencoderRecipe:
    """Latent distillation for the encoder, reconstruction for the decoder, in one step."""

    def __init__(
        self, config: AutoencoderConfig, photos: list[Tensor], latents: list[Tensor], device: str = "cpu"
    ):
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        self.model: Any = build_autoencoder(config).to(device, memory_format=torch.channels_last)
        self.crops = LatentCrops(photos, latents, config.crop)
        self.perceptual = perceptual_loss(config.perceptual_net).to(device)

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        pixels, target = self.crops.draw(config.batch_size, generator)
        assert pixels is not None
        noise = torch.randn(target.shape, generator=generator) * config.latent_noise
        noise = noise * torch.rand(len(target), 1, 1, 1, generator=generator)
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        latents = self.model.encoder(pixels)
        latent = F.mse_loss(latents.float(), target.to(self.device))
        decoded = self.model.decoder(latents.detach() + noise.to(self.device)).float()
        fidelity = F.l1_loss(decoded, pixels)
        terms = {"latent_mse": latent, "l1": fidelity}
        loss = latent + fidelity
        if config.l2_weight:
            terms["l2"] = F.mse_loss(decoded, pixels)
            loss = loss + config.l2_weight * terms["l2"]
        if config.perceptual_weight and step >= config.perceptual_from_step:
            terms["perceptual"] = self.perceptual(decoded, pixels).float().mean()
            loss = loss + config.perceptual_weight * terms["perceptual"]
        return {"loss": loss, **terms}
