"""Run a network over overlapping tiles and blend: memory stays that of one tile, seams stay invisible."""

from collections.abc import Callable

import torch
from torch import Tensor


def layout(length: int, tile: int, overlap: int, align: int = 1) -> tuple[list[int], int]:
    """First positions and the side of as few equal tiles as cover ``length``, no longer than ``tile``.

    Neighbours share ``overlap`` or, where starts are moved to multiples of ``align``, up to ``align`` less. ``tile``
    and ``length`` are multiples of ``align``. Equal tiles just long enough compute little twice.
    """
    if length <= tile:
        return [0], length
    count = -(-(length - overlap) // (tile - overlap))
    side = -(-(length + (count - 1) * overlap) // count)
    side += -side % align
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [start - start % align for start in starts], side


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
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``network(x)`` by tiles of ``tile`` positions of x, blended linearly over their overlap.

    Args:
        network: maps (N, C, h, w) to (N, C', h * scale, w * scale).
        x: (N, C, H, W). Returned as one call if neither side exceeds ``tile``.
        tile, overlap, align: in positions of x; tiles start at multiples of ``align``.
        scale: output positions per input position, e.g. 8 for a decoder, 1/8 for an encoder.
        finish: what is to be done with the output, position by position; with tiles it happens row of tiles by row
            of tiles, so that only what it returns is ever held for the whole picture.
    """
    height, width = x.shape[-2:]
    if max(height, width) <= tile:
        whole = network(x)
        return whole if finish is None else finish(whole)
    (tops, tall), (lefts, wide) = (layout(side, tile, overlap, align) for side in (height, width))
    result: Tensor | None = None
    band = weight = torch.zeros(0, dtype=torch.float32)
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            part = network(x[..., top : top + tall, left : left + wide]).float().cpu()
            rows, columns = part.shape[-2:]
            if left == lefts[0]:  # below what the last row of tiles left open there is nothing yet
                shape = (*part.shape[:2], rows, int(width * scale))
                band, weight = _grown(band, shape), _grown(weight, (1, 1, *shape[2:]))
            ramp = _ramp(rows, int(overlap * scale))[:, None] * _ramp(columns, int(overlap * scale))
            place = (..., slice(int(left * scale), int(left * scale) + columns))
            band[place] += part * ramp
            weight[place] += ramp
        first, closed = int(top * scale), int((below - top) * scale)
        done = band[..., :closed, :].div_(weight[..., :closed, :])
        done = done if finish is None else finish(done)
        if result is None:
            result = done.new_empty(*done.shape[:2], int(height * scale), done.shape[-1])
        result[..., first : first + closed, :] = done
        del done, part
        # copies, so that the memory of the closed rows is free
        band, weight = band[..., closed:, :].clone(), weight[..., closed:, :].clone()
    assert result is not None
    return result.to(x.device)


def _grown(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``rows`` with zeros below, up to ``shape``."""
    grown = torch.zeros(shape, dtype=torch.float32)
    if rows.numel():
        grown[..., : rows.shape[-2], :] = rows
    return grown
