"""Recipe 3: P_phi and the entropy model on the frozen backbone; all that the paper trains.

    L = lambda * MSE(x, x_hat) + R        images in 0..1, R in bits per pixel, lambda drawn anew for each crop

Uniform noise stands for rounding in the rate that trains P_phi; straight-through rounding feeds the decoder, after
one DDIM step at the predicted t. The entropy model itself learns from truly rounded latents: noise would teach it the
wrong odds where steps are coarsest (data/results/entropy_models.csv: lattice-from-noise).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Protocol

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator
from torch import Tensor, nn

from diffusion_codec import quantization
from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.codec_weights import CodecWeights, EnergyKernel, HyperPlanes, Kernel, Width
from diffusion_codec.entropy.model import Context, EntropyModel, SideInformation
from diffusion_codec.parameter_estimation import LOG2_LAMBDA_RANGE, ParameterEstimation
from diffusion_codec.training.latents import load_weights
from diffusion_codec.training.loop import Crop, LoopConfig, NotFiniteError

LogLambda = Annotated[float, Field(ge=-20, le=40)]


class CodecConfig(LoopConfig):
    """Shapes, data and stages of the codec recipe.

    The first ``rate_only_steps`` train the entropy model alone, on ``rate_only_batch_size`` crops with the quantisation
    parameters of an untrained P_phi, disturbed by ``jitter`` sixteenths of an octave.
    """

    crop: Crop = 256
    rate_only_steps: NonNegativeInt = 0
    rate_only_batch_size: PositiveInt = 16
    jitter: NonNegativeFloat = 8.0
    log2_lambda: tuple[LogLambda, LogLambda] = LOG2_LAMBDA_RANGE
    entropy_width: Width = 32
    hyper_channels: HyperPlanes = 0
    hyper_features: HyperPlanes = 8
    context: Context = "checkerboard"
    kernel: Kernel = 5
    energy: EnergyKernel = 0
    tied: bool = False
    dithered: bool = False

    @field_validator("log2_lambda")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("expected the smaller logarithm first")
        return value

    def entropy_model(self) -> EntropyModel:
        """An untrained entropy model of the configured shape."""
        return EntropyModel(
            self.entropy_width,
            self.hyper_channels,
            self.hyper_features,
            self.context,
            self.kernel,
            self.energy,
        )


class CodecModel(nn.Module):
    """The trainable parts, as one module."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.parameter_estimation = ParameterEstimation(config.tied)
        self.entropy = config.entropy_model()


class Crops(Protocol):
    """Where a batch comes from."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
        """Pixels in -1..1 and their latents."""


class CodecRecipe:
    """Rate-distortion training; no parameter of ``backbone`` changes."""

    def __init__(self, config: CodecConfig, backbone: Backbone, crops: Crops, device: str = "cpu"):
        self.config, self.backbone, self.crops, self.device = config, backbone, crops, device
        torch.manual_seed(config.seed)
        self.model: CodecModel = CodecModel(config).to(device)

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The rate alone at first, rate and distortion later; see :class:`diffusion_codec.training.loop.Recipe`."""
        config = self.config
        alone = step < config.rate_only_steps
        x, y = self.crops.draw(config.rate_only_batch_size if alone else config.batch_size, generator)
        lambda_ = self.draw_lambda(len(y), generator).to(self.device)
        y = y.to(self.device)
        with torch.autocast(y.device.type, enabled=False):
            alpha_index, beta, t = self._parameters(y, lambda_, generator if alone else None)
            alpha = quantization.alpha_from_index(alpha_index)
            if not all(part.isfinite().all() for part in (alpha, beta, t)):
                raise NotFiniteError("P_phi gives an alpha, beta or t that is not finite")
            side = SideInformation(alpha_index.detach(), t.detach().round())
            z = quantization.affine(y, alpha, beta)
            # universal quantisation's z_hat - dither is z plus uniform noise, exactly
            noisy = quantization.add_uniform_noise(z, generator)
            z_hat = noisy if config.dithered else quantization.round_straight_through(z)
            pixels = y.shape[-2] * y.shape[-1] * STRIDE**2
            latent, hyper = self.model.entropy.bits(z_hat.detach(), side, generator)
            terms = {"bpp": ((latent + hyper) / pixels).mean(), "hyper_bpp": (hyper / pixels).mean()}
        if alone:
            return {"loss": terms["bpp"], **terms}
        with torch.autocast(y.device.type, enabled=False), frozen(self.model.entropy):
            noisy_latent, noisy_hyper = self.model.entropy.bits(noisy, side, generator)
            rate = (noisy_latent + noisy_hyper) / pixels
        assert x is not None
        y_hat = quantization.inverse_affine(self.shown(z_hat, noisy), alpha, beta)
        y_0 = self.denoised(y_hat, t)
        x, x_hat = x.to(self.device), self.backbone.decode(y_0).float()
        distortion = self.distortion(x, x_hat, y, y_0)
        terms |= {"mse": squared_error(x, x_hat).mean(), "noisy_bpp": rate.mean(), "t": t.mean()}
        trade_off = lambda_ * distortion + rate
        terms["log_trade_off"] = trade_off.detach().log().mean()  # what falls; the loss itself is 1 + bpp
        return {"loss": self.weighed(trade_off).mean() + terms["bpp"], **terms}

    def shown(self, z_hat: Tensor, noisy: Tensor) -> Tensor:
        """What the decoder is shown of the latent: as a file has it, not the noisy one of the rate."""
        return z_hat

    def denoised(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """y_0 by one DDIM step, whose gradient passes through the frozen denoiser."""
        return self.backbone.denoise(y_hat, t, steps=1)

    def distortion(self, x: Tensor, x_hat: Tensor, y: Tensor, y_0: Tensor) -> Tensor:
        """What lambda weighs of each crop, (N,), given both pictures and both latents: :func:`squared_error`."""
        return squared_error(x, x_hat)

    def weighed(self, trade_off: Tensor) -> Tensor:
        """The trade-off L of each crop, with the gradient of log L: no lambda drowns the others."""
        return trade_off / trade_off.detach()

    def draw_lambda(self, count: int, generator: torch.Generator) -> Tensor:
        """lambda for each crop, (count,): uniform in log lambda."""
        low, high = self.config.log2_lambda
        return torch.exp2(low + (high - low) * torch.rand(count, generator=generator))

    def _parameters(
        self, y: Tensor, lambda_: Tensor, jitter: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """alpha as stored index (straight-through), beta as stored value, t; jittered and detached in stage one."""
        alpha, beta, t = self.model.parameter_estimation(y, lambda_)
        index = quantization.ALPHA_STEPS_PER_OCTAVE * alpha.log2()
        if jitter is not None:
            noise = torch.randn(index.shape, generator=jitter).to(index.device) * self.config.jitter
            index, beta, t = (index + noise).detach(), beta.detach(), t.detach()
        index = quantization.round_straight_through(index).clamp(-128, 127)
        steps = quantization.BETA_STEPS_PER_UNIT
        return index, quantization.round_straight_through(beta * steps) / steps, t


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared error of each image in 0..1, (N,); both are given in -1..1, (N, 3, H, W)."""
    return ((x_hat - x) / 2).square().mean((1, 2, 3))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """The module's parameters are constants inside; gradients still pass through to its input."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def warm_start(recipe: CodecRecipe, weights: CodecWeights) -> None:
    """Begin from trained codec weights of the same shape instead of from nothing."""
    model = recipe.model
    for part, trained in (
        (model.parameter_estimation, weights.parameter_estimation),
        (model.entropy, weights.latent_coder.model),
    ):
        load_weights(part, trained.state_dict(), "the file of codec weights to start from")
