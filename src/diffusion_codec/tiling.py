"""Run a network over overlapping tiles and blend: memory stays that of one tile, seams stay invisible."""

from collections.abc import Callable

import torch
from torch import Tensor


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First positions of tiles of ``tile`` that cover ``length`` with at least ``overlap`` shared."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _ramp(length: int, overlap: int) -> Tensor:
    """Rises over the overlap, falls over the last; never zero, so that borders of the picture count fully."""
    position = torch.arange(length, dtype=torch.float32)
    return torch.minimum(position + 1, length - position).clamp(max=overlap) / overlap


def tiled(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    tile: int,
    overlap: int,
    scale: float,
    align: int = 1,
) -> Tensor:
    """``network(x)`` by tiles of ``tile`` positions of x, blended linearly over their overlap.

    Args:
        network: maps (N, C, h, w) to (N, C', h * scale, w * scale).
        x: (N, C, H, W). Returned as one call if neither side exceeds ``tile``.
        tile, overlap, align: in positions of x; tiles start at multiples of ``align``.
        scale: output positions per input position, e.g. 8 for a decoder, 1/8 for an encoder.
    """
    height, width = x.shape[-2:]
    if max(height, width) <= tile:
        return network(x)
    total: Tensor | None = None
    weight = torch.zeros(1, 1, int(height * scale), int(width * scale))
    for top in tile_starts(height, tile, overlap):
        for left in tile_starts(width, tile, overlap):
            top, left = top - top % align, left - left % align
            part = network(x[..., top : top + tile, left : left + tile]).float().cpu()
            rows, columns = part.shape[-2:]
            ramp = _ramp(rows, int(overlap * scale))[:, None] * _ramp(columns, int(overlap * scale))[None]
            if total is None:
                total = torch.zeros(*part.shape[:2], *weight.shape[-2:])
            first_row, first_column = int(top * scale), int(left * scale)
            place = (..., slice(first_row, first_row + rows), slice(first_column, first_column + columns))
            total[place] += part * ramp
            weight[place] += ramp
    assert total is not None
    return total.div_(weight).to(x.device)  # in place: of a large picture this is a gigabyte
