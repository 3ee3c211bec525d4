from itertools import pairwise

import pytest
import torch
from torch import nn

from diffusion_codec.tiling import tile_starts, tiled


@pytest.mark.parametrize("length", [10, 64, 65, 100, 129, 1000])
def test_tiles_cover_with_overlap(length: int) -> None:
    starts = tile_starts(length, 64, 16)
    assert starts[0] == 0
    assert starts[-1] + 64 >= length
    assert all(b - a <= 64 - 16 for a, b in pairwise(starts))


def test_identity_survives_blending() -> None:
    x = torch.randn(1, 3, 150, 90)
    torch.testing.assert_close(tiled(lambda v: v, x, tile=64, overlap=16, scale=1), x)


def test_upsampling_and_downsampling_scales() -> None:
    x = torch.randn(1, 2, 96, 160)
    up = tiled(nn.Upsample(scale_factor=8), x, tile=64, overlap=16, scale=8)
    torch.testing.assert_close(up, nn.Upsample(scale_factor=8)(x))
    down = tiled(nn.AvgPool2d(8), x, tile=64, overlap=16, scale=1 / 8, align=8)
    torch.testing.assert_close(down, nn.AvgPool2d(8)(x))


def test_convolution_differs_only_where_the_overlap_is_too_small_to_hide_it() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 5, padding=2)
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        difference = (tiled(network, x, tile=64, overlap=32, scale=1) - network(x)).abs()
    assert float(difference.max()) < 0.1
    assert float(difference.median()) < 1e-6
