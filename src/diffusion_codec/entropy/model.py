"""The entropy model: context over channels and over a lattice in space, with an optional hyperprior.

    z_hat --+--> passes: channel by channel, and within a channel one set of squares of a 2 x 2 tiling after another.
            |    A pass sees all earlier channels and its own channel's earlier squares; it gives each of its
            |    positions a mean and a log-scale; a stored integer table gives the probability.
            +--> (hyperprior) h = round(analysis(z_hat)) --> stored tables;  synthesis(h) --> every pass

The networks are conditioned on the side information (alpha and t) and see latents brought to about unit size
by a power of two taken from alpha, so that one model serves every rate. They run in float64 on a fixed-point
grid, hence exactly (see :mod:`diffusion_codec.entropy.fixed_point`); only the hyperprior's analysis, which a
decoder never runs, is ordinary floating point.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

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

Context = Literal["none", "checkerboard", "lattice"]
Square = tuple[int, int]
TILE = 2
SQUARES: dict[Context, list[list[Square]]] = {
    "none": [[(0, 0), (0, 1), (1, 0), (1, 1)]],
    "checkerboard": [[(0, 0), (1, 1)], [(0, 1), (1, 0)]],
    "lattice": [[(0, 0)], [(1, 1)], [(0, 1)], [(1, 0)]],
}
"""Squares (row, column) of the 2 x 2 tile that each pass over a channel codes."""
ENERGY_SHIFT = 2.0**-4


@dataclass(frozen=True, eq=False)
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


class ContextPass(nn.Module):
    """Mean and log2-scale of one channel's squares from what earlier passes decoded.

    ``energy`` > 0 adds, by channel, the sum of absolute values known so far in a window of that side: how
    much is going on around.
    """

    def __init__(self, hyper_features: int, width: int, kernel: int, energy: int, squares: list[Square]):
        super().__init__()
        self.squares, self.window = squares, energy
        self.spatial = FixedPointConv2d(CHANNELS + 1 + hyper_features, width, kernel)
        self.side = FixedPointConv2d(2 * CHANNELS + 2, width)
        self.energy = FixedPointConv2d(CHANNELS, width) if energy else None
        self.mix = FixedPointConv2d(width, width)
        self.out = FixedPointConv2d(width, 2)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, known: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """known (N, 5 + F, h, w), side (N, 10, 1, 1) -> mean, log2-scale (N, h, w) of the unit-sized latent.

        Positions of other passes are 0.
        """
        out = known.new_zeros(len(known), 2, *known.shape[-2:])
        energy = None if self.energy is None else window_sum(known[:, :CHANNELS].abs(), self.window)
        for row, column in self.squares:
            if row >= known.shape[-2] or column >= known.shape[-1]:
                continue
            hidden = self.spatial(known, TILE, (row, column)) + self.side(side)
            if self.energy is not None and energy is not None:
                hidden = hidden + self.energy(energy, TILE, (row, column))
            hidden = activation(self.mix(activation(hidden)))
            out[..., row::TILE, column::TILE] = on_grid(self.out(hidden), ACTIVATION_BITS, ACTIVATION_LIMIT)
        return out[:, 0], out[:, 1]

    def mask(self, height: int, width: int) -> Tensor:
        """Which positions (height, width) this pass codes."""
        mask = torch.zeros(height, width, dtype=torch.bool)
        for row, column in self.squares:
            mask[row::TILE, column::TILE] = True
        return mask


def window_sum(x: Tensor, side: int) -> Tensor:
    """Sums over windows of odd ``side``, divided by 16, on the activation grid; exact for values on it."""
    total = F.avg_pool2d(x, side, stride=1, padding=side // 2, divisor_override=1)
    return on_grid(total * ENERGY_SHIFT, ACTIVATION_BITS, ACTIVATION_LIMIT)


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
    """Probabilities of the quantised latent; see the module's page.

    Args:
        context: "lattice" codes a channel in four passes, "checkerboard" in two; "none" in one that sees no
            other symbol (with a hyperprior the plain hyperprior model, without one the factorised model).
        kernel: side of the window a pass looks at.
        energy: side of the window of :class:`ContextPass`'s sums, 0 for none.
    """

    def __init__(
        self,
        width: int = 32,
        hyper_channels: int = 0,
        hyper_features: int = 8,
        context: Context = "checkerboard",
        kernel: int = 5,
        energy: int = 0,
    ):
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "hyper_channels": hyper_channels,
            "hyper_features": hyper_features,
            "context": context,
            "kernel": kernel,
            "energy": energy,
        }
        features = hyper_features if hyper_channels else 0
        self.hyperprior = Hyperprior(hyper_channels, features) if hyper_channels else None
        self.sees_symbols = context != "none"
        self.rounds = len(SQUARES[context])
        self.passes = nn.ModuleList(
            ContextPass(features, width, kernel, energy, squares)
            for _ in range(CHANNELS)
            for squares in SQUARES[context]
        )

    def channel_and_mask(self, index: int, height: int, width: int) -> tuple[int, Tensor]:
        """What pass ``index`` codes: a channel, and which of its positions (height, width)."""
        coded = self.passes[index]
        assert isinstance(coded, ContextPass)
        return index // self.rounds, coded.mask(height, width)

    def unit(self, z: Tensor, side: SideInformation) -> Tensor:
        """z / 2^shift on the activation grid: exact for integers z, about the size of the latents."""
        scaled = z * power_of_two(-side.shift, z)[..., None, None]
        return on_grid(scaled, ACTIVATION_BITS, ACTIVATION_LIMIT)

    def predict(self, index: int, known: Tensor, side: SideInformation) -> tuple[Tensor, Tensor]:
        """Mean and log2-scale, in quantisation steps, of pass ``index``; (N, h, w) each."""
        mean, log_scale = self.passes[index](known, side.features().to(known.dtype))
        shift = side.shift[:, index // self.rounds, None, None].to(known.dtype)
        return mean * power_of_two(shift, mean), log_scale + shift

    def known(self, unit: Tensor, index: int, features: Tensor | None) -> Tensor:
        """The input of pass ``index``: decoded values (zero where not known yet), a plane of ones, features."""
        channel, earlier = divmod(index, self.rounds)
        visible = torch.zeros_like(unit)
        if self.sees_symbols:
            visible[:, :channel] = unit[:, :channel]
        for before in range(index - earlier, index):
            _, mask = self.channel_and_mask(before, *unit.shape[-2:])
            visible[:, channel] += unit[:, channel] * mask.to(unit.device)
        planes = [visible, torch.ones_like(unit[:, :1])]
        return torch.cat(planes if features is None else [*planes, features], 1)

    def each_pass(
        self, z: Tensor, side: SideInformation, features: Tensor | None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(pass, mean, log2-scale) for a latent that is known whole: training and encoding."""
        unit = self.unit(z, side)
        for index in range(len(self.passes)):
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
        return self.latent_bits(z, side, features), hyper_bits

    def latent_bits(self, z: Tensor, side: SideInformation, features: Tensor | None) -> Tensor:
        """Differentiable information content of the latent alone, (N,), where the hyperprior told ``features``."""
        total = torch.zeros(len(z), device=z.device)
        for index, mean, log_scale in self.each_pass(z, side, features):
            channel, mask = self.channel_and_mask(index, z.shape[-2], z.shape[-1])
            coded = (part[:, mask.to(z.device)] for part in (z[:, channel], mean, log_scale))
            total = total + gaussian_bits(*coded).sum(1)
        return total


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


def table_indices(
    mean: Tensor, log_scale: Tensor, levels: int = tables.SCALE_LEVELS
) -> tuple[Tensor, Tensor]:
    """Scale level and mean in 1/MEAN_FRACTIONS of a step, integers; exact in float64."""
    level = torch.floor((log_scale - tables.LOWEST_LOG2_SCALE) * tables.LEVELS_PER_OCTAVE + 0.5)
    fraction = torch.floor(mean * tables.MEAN_FRACTIONS + 0.5)
    return level.clamp(0, levels - 1).long(), fraction.long()
