"""Recipe 2: the denoiser of ``mini`` on Stable Diffusion's noise schedule.

    y_t = sqrt(alpha_bar_t) (y_0 + sigma_t eps),  eps Gaussian as for a foundation model, or what the codec really adds

Trained where the codec works: timesteps are drawn from [0, 1000) with most of the weight below ``focus_below``.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from diffusion_codec.schedule import STABLE_DIFFUSION
from diffusion_codec.training.loop import Crop, LoopConfig
from diffusion_codec.training.photos import LatentCrops

NORM_GROUPS = 16
GroupedWidth = Annotated[int, Field(gt=0, multiple_of=NORM_GROUPS)]


class DenoiserConfig(LoopConfig):
    """Shape and noise distribution of the denoiser recipe.

    ``noise``: "gaussian" is the diffusion model's; "uniform" what universal quantisation adds (the follow-up's
    variant); "rounding" the true error of rounding with the matched step: then the network is a plain regression
    from quantised to clean latents. All have unit variance (rounding: where the step is below the latents' spread).
    """

    widths: tuple[GroupedWidth, ...] = Field((64, 96, 128), min_length=1)
    layers_per_block: PositiveInt = 2
    crop: Crop = 256
    focus_below: int = Field(450, ge=1, le=1000)
    focus_probability: float = Field(0.9, ge=0, le=1)
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    noise: Literal["gaussian", "uniform", "rounding"] = "gaussian"


def build_denoiser(config: DenoiserConfig) -> UNet2DConditionModel:
    """A convolutional :class:`diffusers.UNet2DConditionModel`.

    It takes the prompt embedding every Stable Diffusion denoiser takes, and has no cross-attention to use it with.
    """
    levels = len(config.widths)
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=config.widths,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=NORM_GROUPS,
        cross_attention_dim=1,
        attention_head_dim=8,
    )


class DenoiserRecipe:
    """The simple loss of DDPM on latents."""

    def __init__(self, config: DenoiserConfig, latents: list[Tensor], device: str = "cpu"):
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        self.model: nn.Module = build_denoiser(config).to(device, memory_format=torch.channels_last)
        self.crops = LatentCrops(None, latents, config.crop)
        self.alpha_bar = STABLE_DIFFUSION.alpha_bar.float()

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the prediction; see :class:`diffusion_codec.training.loop.Recipe`."""
        config = self.config
        y_0, prompt = self.prompted(self.crops.draw(config.batch_size, generator)[1], generator)
        count = len(y_0)
        focused = torch.rand(count, generator=generator) < config.focus_probability
        uniform = torch.rand(count, generator=generator)
        t = (uniform * torch.where(focused, config.focus_below, len(self.alpha_bar))).long()
        signal = self.alpha_bar[t].sqrt()[:, None, None, None]
        spread = (1 - self.alpha_bar[t]).sqrt()[:, None, None, None]
        noise = self._noise(y_0, spread / signal, generator)
        y_t = signal * y_0 + spread * noise
        target = noise if config.prediction == "epsilon" else signal * noise - spread * y_0
        y_t = y_t.to(self.device, memory_format=torch.channels_last)
        predicted = self.model(y_t, t.to(self.device), prompt.to(self.device), return_dict=False)[0]
        return {"loss": F.mse_loss(predicted.float(), target.to(self.device))}

    def prompted(self, drawn: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (N, 4, h, w) and the embedding of the prompt, (N, tokens, width), of crops that were drawn: empty."""
        return drawn, torch.zeros(len(drawn), 1, 1)

    def _noise(self, y_0: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        if self.config.noise == "rounding":
            step = 12**0.5 * sigma
            return ((y_0 / step).round() * step - y_0) / sigma
        if self.config.noise == "uniform":
            return (torch.rand(y_0.shape, generator=generator) - 0.5) * 12**0.5
        return torch.randn(y_0.shape, generator=generator)
