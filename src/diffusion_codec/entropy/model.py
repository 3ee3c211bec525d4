"""The entropy model: context over channels and a checkerboard over space, with an optional hyperprior.

    z_hat --+--> 8 passes: channel c, first the even squares of the checkerboard, then the odd ones.
            |    A pass sees all earlier channels and, on odd squares, its own channel's even squares;
            |    it gives each position a mean and a log-scale; a stored integer table gives the probability.
            +--> (hyperprior) h = round(analysis(z_hat)) --> stored tables;  synthesis(h) --> every pass

The networks are conditioned on the side information (alpha and t) and see latents brought to about unit size
by a power of two taken from alpha, so that one model serves every rate. They run in float64 on a fixed-point
grid, hence exactly (see :mod:`diffusion_codec.entropy.fixed_point`); only the hyperprior's analysis, which a
decoder never runs, is ordinary floating point.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_codec.entropy import tables
from diffusion_codec.entropy.fixed_point import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    FixedPointConv2d,
    activation,
    on_grid,
)

CHANNELS = 4
HYPER_RADIUS = 15
HYPER_STRIDE = 4
LIKELIHOOD_FLOOR = 2.0**-22


@dataclass(frozen=True)
class SideInformation:
    """What the header says: indices as stored, float tensors (N, 4) and (N,)."""

    alpha_index: Tensor
    timestep: Tensor

    @property
    def shift(self) -> Tensor:
        """Octaves k, (N, 4): z / 2^k has about the size of the latents themselves."""
        return torch.floor(self.alpha_index / 16 + 0.5)

    def features(self) -> Tensor:
        """(N, 10, 1, 1), multiples of 2^-6 (alpha, its part within the octave, its square, the timestep)."""
        octaves = self.alpha_index / 16
        columns = [octaves, octaves - self.shift, (self.timestep / 512)[:, None], (octaves[:, :1] ** 2) / 4]
        grid = on_grid(torch.cat(columns, 1), ACTIVATION_BITS, ACTIVATION_LIMIT)
        return grid[..., None, None]


def power_of_two(exponent: Tensor, like: Tensor) -> Tensor:
    """2^k from a table: a vectorised exp2 need not be exact even for integers."""
    table = torch.tensor([2.0**k for k in range(-16, 17)], dtype=like.dtype, device=like.device)
    return table[exponent.long() + 16]


def checkerboard(height: int, width: int, parity: int, device: torch.device | str = "cpu") -> Tensor:
    """Mask (height, width) of the squares whose row + column has the given parity."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return (rows[:, None] + columns[None]) % 2 == parity


class ContextPass(nn.Module):
    """Mean and log2-scale of one channel from what earlier passes decoded."""

    def __init__(self, hyper_features: int, width: int):
        super().__init__()
        self.spatial = FixedPointConv2d(CHANNELS + 1 + hyper_features, width, 5)
        self.side = FixedPointConv2d(2 * CHANNELS + 2, width)
        self.mix = FixedPointConv2d(width, width)
        self.out = FixedPointConv2d(width, 2)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, known: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """known (N, 5 + F, h, w), side (N, 10, 1, 1) -> mean, log2-scale (N, h, w) of the unit-sized latent."""
        hidden = activation(self.spatial(known) + self.side(side))
        hidden = activation(self.mix(hidden))
        out = on_grid(self.out(hidden), ACTIVATION_BITS, ACTIVATION_LIMIT)
        return out[:, 0], out[:, 1]


class Hyperprior(nn.Module):
    """A small integer summary at a quarter of the latent's resolution, coded by learned tables."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.channels = channels
        self.analysis = nn.Sequential(
            nn.Conv2d(CHANNELS, 48, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(48, channels, 5, stride=2, padding=2),
        )
        self.first = FixedPointConv2d(channels, 32, 3)
        self.second = FixedPointConv2d(32, features, 3)
        self.logits = nn.Parameter(
            -0.5 * torch.arange(-HYPER_RADIUS, HYPER_RADIUS + 1.0).abs().repeat(channels, 1)
        )

    def analyse(self, unit: Tensor) -> Tensor:
        """Unit-sized latents (N, 4, h, w) -> real h (N, C, ceil(h/4), ceil(w/4)), within the tables' reach."""
        height, width = unit.shape[-2:]
        padded = F.pad(unit, (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE))
        h: Tensor = self.analysis(padded).clamp(-HYPER_RADIUS, HYPER_RADIUS)
        return h

    def synthesise(self, h_hat: Tensor, size: tuple[int, int]) -> Tensor:
        """Integers (N, C, h/4, w/4) -> features (N, F, h, w) on the activation grid."""
        x = activation(self.first(F.interpolate(h_hat, scale_factor=2.0, mode="nearest")))
        x = self.second(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return on_grid(x, ACTIVATION_BITS, ACTIVATION_LIMIT)[..., : size[0], : size[1]]

    def bits(self, h: Tensor) -> Tensor:
        """Information content, in bits, of real-valued h under the tables interpolated linearly; (N,)."""
        log_p = self.logits.log_softmax(-1) / torch.log(torch.tensor(2.0))
        position = h + HYPER_RADIUS
        low = position.detach().floor().long().clamp(0, 2 * HYPER_RADIUS - 1)
        channel = torch.arange(self.channels, device=h.device)[None, :, None, None]
        p_low, p_high = log_p[channel, low], log_p[channel, low + 1]
        return -torch.lerp(p_low, p_high, position - low).sum((1, 2, 3))


class EntropyModel(nn.Module):
    """Probabilities of the quantised latent; see the module's page."""

    def __init__(self, width: int = 32, hyper_channels: int = 0, hyper_features: int = 8):
        super().__init__()
        self.config = {"width": width, "hyper_channels": hyper_channels, "hyper_features": hyper_features}
        features = hyper_features if hyper_channels else 0
        self.hyperprior = Hyperprior(hyper_channels, features) if hyper_channels else None
        self.passes = nn.ModuleList(ContextPass(features, width) for _ in range(2 * CHANNELS))

    def unit(self, z: Tensor, side: SideInformation) -> Tensor:
        """z / 2^shift on the activation grid: exact for integers z, about the size of the latents."""
        scaled = z * power_of_two(-side.shift, z)[..., None, None]
        return on_grid(scaled, ACTIVATION_BITS, ACTIVATION_LIMIT)

    def predict(self, index: int, known: Tensor, side: SideInformation) -> tuple[Tensor, Tensor]:
        """Mean and log2-scale, in quantisation steps, of pass ``index``; (N, h, w) each."""
        mean, log_scale = self.passes[index](known, side.features().to(known.dtype))
        shift = side.shift[:, index // 2, None, None].to(known.dtype)
        return mean * power_of_two(shift, mean), log_scale + shift

    def known(self, unit: Tensor, index: int, features: Tensor | None) -> Tensor:
        """The input of pass ``index``: decoded values (zero where not known yet), a plane of ones, features."""
        channel, parity = divmod(index, 2)
        visible = torch.zeros_like(unit)
        visible[:, :channel] = unit[:, :channel]
        if parity:
            height, width = unit.shape[-2:]
            visible[:, channel] = unit[:, channel] * checkerboard(height, width, 0, unit.device)
        planes = [visible, torch.ones_like(unit[:, :1])]
        return torch.cat(planes if features is None else [*planes, features], 1)

    def each_pass(
        self, z: Tensor, side: SideInformation, features: Tensor | None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(pass, mean, log2-scale) for a latent that is known whole: training and encoding."""
        unit = self.unit(z, side)
        for index in range(2 * CHANNELS):
            yield (index, *self.predict(index, self.known(unit, index, features), side))

    def bits(
        self, z: Tensor, side: SideInformation, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Differentiable information content in bits: (latent (N,), hyperprior (N,)).

        ``z`` may be noisy or rounded; the hyperprior's rounding is uniform noise, drawn from ``generator``.
        """
        features, hyper_bits = None, torch.zeros(len(z), device=z.device)
        if self.hyperprior is not None:
            h = self.hyperprior.analyse(self.unit(z, side))
            noise = torch.rand(h.shape, generator=generator).to(h.device) - 0.5
            hyper_bits = self.hyperprior.bits((h + noise).clamp(-HYPER_RADIUS, HYPER_RADIUS))
            h_hat = h + (h.round() - h).detach()
            features = self.hyperprior.synthesise(h_hat, (z.shape[-2], z.shape[-1]))
        total = torch.zeros(len(z), device=z.device)
        for index, mean, log_scale in self.each_pass(z, side, features):
            channel, parity = divmod(index, 2)
            mask = checkerboard(z.shape[-2], z.shape[-1], parity, z.device)
            total = total + (gaussian_bits(z[:, channel], mean, log_scale) * mask).sum((1, 2))
        return total, hyper_bits


def gaussian_bits(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """-log2 of a Gaussian's mass on [z - 1/2, z + 1/2], bounded as the integer tables bound it."""
    highest = tables.LOWEST_LOG2_SCALE + (tables.SCALE_LEVELS - 1) / tables.LEVELS_PER_OCTAVE
    scale = torch.exp2(_bounded(log_scale, tables.LOWEST_LOG2_SCALE, highest))
    distance = (z - mean).abs()
    upper, lower = (0.5 - distance) / scale, (-0.5 - distance) / scale
    mass = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    # beyond the tables' reach: an escape costs about the floor; keep a slope that pulls the mean back
    tail = (distance / scale - 3.5).clamp(min=0) * 0.02
    return -torch.log2(mass.clamp(min=LIKELIHOOD_FLOOR)) + tail


def _bounded(x: Tensor, low: float, high: float) -> Tensor:
    """Clamped, with the gradient of the identity: a saturated scale can come back."""
    return x + (x.clamp(low, high) - x).detach()


def table_indices(mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Scale level and mean in 1/MEAN_FRACTIONS of a step, integers; exact in float64."""
    level = torch.floor((log_scale - tables.LOWEST_LOG2_SCALE) * tables.LEVELS_PER_OCTAVE + 0.5)
    fraction = torch.floor(mean * tables.MEAN_FRACTIONS + 0.5)
    return level.clamp(0, tables.SCALE_LEVELS - 1).long(), fraction.long()
