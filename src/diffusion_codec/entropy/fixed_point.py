"""Convolutions whose results are the same on every machine.

Weights are multiples of 2^-12, activations multiples of 2^-6, both bounded, so that in float64 every product
and every sum is exact (all below 2^53 units of 2^-18): no order of summation, instruction set or thread count
can change a bit. Training runs the same modules in float32 with straight-through rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHT_BITS, WEIGHT_LIMIT = 12, 8.0
ACTIVATION_BITS, ACTIVATION_LIMIT = 6, 512.0
STRIP_ELEMENTS = 1 << 23
"""Upper bound of the unfolded values held at once (64 MiB in float64)."""


_rounding = ContextVar("rounding", default=True)


@contextmanager
def real_valued() -> Iterator[None]:
    """Without rounding, inside: only to measure what the integers cost."""
    token = _rounding.set(False)
    try:
        yield
    finally:
        _rounding.reset(token)


def on_grid(x: Tensor, bits: int, limit: float) -> Tensor:
    """x rounded to multiples of 2^-bits within +-limit; the gradient passes inside the limit."""
    clipped = x.clamp(-limit, limit)
    if not _rounding.get():
        return clipped
    rounded: Tensor = torch.floor(clipped * 2**bits + 0.5) / 2**bits
    return clipped + (rounded - clipped).detach()


def activation(x: Tensor) -> Tensor:
    """ReLU onto the activation grid."""
    return on_grid(F.relu(x), ACTIVATION_BITS, ACTIVATION_LIMIT)


class FixedPointConv2d(nn.Conv2d):
    """A same-size convolution with grid weights; exact in float64 for inputs on the activation grid."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, every: int = 1, start: tuple[int, int] = (0, 0)) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil((H - row) / every), ...), not yet on the activation grid.

        Only the positions ``start`` = (row, column), and each ``every``-th from there, are computed.
        """
        weight = on_grid(self.weight, WEIGHT_BITS, WEIGHT_LIMIT)
        assert self.bias is not None
        bias = on_grid(self.bias, WEIGHT_BITS + ACTIVATION_BITS, ACTIVATION_LIMIT)
        padded = F.pad(x, (self.kernel_size[0] // 2,) * 4)[..., start[0] :, start[1] :]
        if x.dtype != torch.float64 and self.kernel_size == (1, 1):
            # a matrix product: oneDNN's AVX2 kernel for the gradient of 1 x 1 weights may never return on two threads
            seen = padded[..., ::every, ::every]
            product = weight.flatten(1) @ seen.flatten(2) + bias[:, None]
            return product.reshape(*product.shape[:2], *seen.shape[-2:])
        if x.dtype != torch.float64:
            return F.conv2d(padded, weight, bias, stride=every)
        return self._exact(padded, weight.flatten(1), bias[:, None], every)

    def _exact(self, padded: Tensor, weight: Tensor, bias: Tensor, every: int) -> Tensor:
        """By plain matrix products over strips of rows: no library may choose Winograd or FFT here."""
        size = self.kernel_size[0]
        count = len(padded)
        height, width = ((side - size) // every + 1 for side in padded.shape[-2:])
        rows = max(1, STRIP_ELEMENTS // (weight.shape[1] * width * count))
        strips = []
        for top in range(0, height, rows):
            last = min(top + rows, height) - 1
            part = padded[:, :, top * every : last * every + size]
            columns = part.flatten(2) if size == every == 1 else F.unfold(part, size, stride=every)
            strips.append((weight @ columns + bias).reshape(count, len(weight), -1, width))
        return torch.cat(strips, 2)
