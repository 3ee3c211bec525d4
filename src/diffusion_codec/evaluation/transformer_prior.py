"""A transformer as the entropy model, for :mod:`diffusion_codec.evaluation.other_priors`.

The paper's entropy model is inferred to be Entroformer (Qian et al., ICLR 2022): attention over all that is decoded
already, with learned relative positions. This prior is in its spirit and stronger than what could decode fast: every
position in raster order sees all before it, and channels see each other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_codec.entropy.model import (
    CHANNELS,
    SideInformation,
    gaussian_bits,
    power_of_two,
)

NEAR = 2
"""Rows above and columns to both sides whose values a position is given outright."""
FAR = 8
"""Distances in rows and columns that the attention tells apart; farther ones count as this far."""


class Block(nn.Module):
    """Causal self-attention with a learned bias for each relative position, then a network by position."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, (FAR + 1) * (2 * FAR + 1)))
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, relative: Tensor, future: Tensor) -> Tensor:
        """x (N, positions, width); relative and future (positions, positions): index of the bias, what is hidden."""
        bias = self.bias[:, relative].masked_fill(future, float("-inf"))
        split = self.queries_keys_values(self.before_attention(x)).reshape(*x.shape[:2], 3, self.heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias[None])
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        changed: Tensor = x + self.network(self.before_network(x))
        return changed


class TransformerPrior(nn.Module):
    """Mean and log-scale of each latent from all positions before it, and from its own position's earlier channels.

    It stands in for :class:`diffusion_codec.entropy.model.EntropyModel` where only bits are asked for.
    """

    def __init__(self, width: int = 96, heads: int = 4, layers: int = 3):
        super().__init__()
        near = 2 * NEAR * (NEAR + 1)
        self.embed = nn.Linear(CHANNELS * near, width)
        self.side = nn.Linear(2 * CHANNELS + 2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.hidden = nn.ModuleList(nn.Linear(width + channel, width) for channel in range(CHANNELS))
        self.outs = nn.ModuleList(nn.Linear(width, 2) for _ in range(CHANNELS))
        for zero in self.outs.parameters():
            nn.init.zeros_(zero)

    def forward(self, unit: Tensor, side: SideInformation) -> tuple[Tensor, Tensor]:
        """Unit-sized latents (N, 4, h, w) -> mean and log2-scale of each, as large."""
        height, width = unit.shape[-2:]
        relative, future = _relative_positions(height, width, unit.device)
        x = self.embed(_near(unit)) + self.side(side.features().flatten(1).to(unit.dtype))[:, None]
        for block in self.blocks:
            x = block(x, relative, future)
        x, own = self.last(x), unit.flatten(2).transpose(1, 2)
        seen = (torch.cat([x, own[..., :channel]], -1) for channel in range(CHANNELS))
        told = [o(F.gelu(h(s))) for s, h, o in zip(seen, self.hidden, self.outs, strict=True)]
        mean, log_scale = torch.stack(told, 1).reshape(*unit.shape, 2).unbind(-1)
        return mean, log_scale

    def bits(
        self, z: Tensor, side: SideInformation, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`diffusion_codec.entropy.model.EntropyModel.bits`, without a hyperprior."""
        shift = side.shift.to(z.dtype)
        mean, log_scale = self(z * power_of_two(-side.shift, z)[..., None, None], side)
        mean = mean * power_of_two(side.shift, mean)[..., None, None]
        bits = gaussian_bits(z, mean, log_scale + shift[..., None, None])
        return bits.sum((1, 2, 3)), torch.zeros(len(z), device=z.device)


def _near(unit: Tensor) -> Tensor:
    """The :data:`NEAR` rows above and the columns to the left, (N, positions, values), zero beyond the border."""
    side = 2 * NEAR + 1
    windows = F.unfold(F.pad(unit, (NEAR, NEAR, NEAR, 0)), (NEAR + 1, side))
    before = windows.reshape(len(unit), CHANNELS, (NEAR + 1) * side, -1)[:, :, : NEAR * side + NEAR]
    return before.flatten(1, 2).transpose(1, 2)


def _relative_positions(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each position in raster order and each it may look at: the index of their offset, and whether it is later."""
    place = torch.arange(height * width, device=device)
    rows, columns = place // width, place % width
    up = (rows[:, None] - rows).clamp(0, FAR)
    across = (columns[:, None] - columns).clamp(-FAR, FAR) + FAR
    return up * (2 * FAR + 1) + across, place > place[:, None]
