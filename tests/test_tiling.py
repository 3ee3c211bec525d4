from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_codec.backbone.options import SMALL_NETWORKS, SMALLEST_TILE
from diffusion_codec.bench.shared import photograph
from diffusion_codec.codec import Codec
from diffusion_codec.tiling import layout, tiled


@pytest.mark.parametrize("length", [16, 64, 72, 100, 128, 1000, 2048])
@pytest.mark.parametrize("align", [1, 4])
def test_tiles_cover_with_overlap_and_little_is_computed_twice(length: int, align: int) -> None:
    starts, side = layout(length, 64, 16, align)
    assert side <= 64
    assert side % align == 0
    assert starts[0] == 0
    assert starts[-1] + side == length
    assert all(start % align == 0 for start in starts)
    assert all(16 - align < a + side - b for a, b in pairwise(starts))
    assert len(starts) * side < length + len(starts) * (16 + align)


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


def test_what_is_finished_row_by_row_equals_what_is_finished_at_once() -> None:
    x = torch.randn(2, 3, 150, 90)

    def finish(part: torch.Tensor) -> torch.Tensor:
        return (part * 10).round().to(torch.int16)

    made = tiled(lambda v: v, x, tile=64, overlap=16, scale=1, finish=finish)
    whole = finish(tiled(lambda v: v, x, tile=64, overlap=16, scale=1))
    assert torch.equal(made, whole)
    assert torch.equal(finish(x), tiled(lambda v: v, x, tile=150, overlap=16, scale=1, finish=finish))


WIDTH, HEIGHT = 608, 224


def gradient() -> np.ndarray:
    down, right = np.mgrid[0:HEIGHT, 0:WIDTH] / [[[HEIGHT - 1]], [[WIDTH - 1]]]
    sky = np.stack([90 + 60 * down, 140 + 40 * right, 200 + 20 * down], -1)
    return sky.round().astype(np.uint8)


@pytest.mark.parametrize("pixels", [gradient(), photograph(WIDTH, HEIGHT)], ids=["gradient", "photograph"])
def test_seams_of_the_smallest_tiles_drown_in_the_coding_noise(pixels: np.ndarray) -> None:
    codec = Codec.from_pretrained()
    data = codec.compress(pixels, 40).data
    whole = codec.decompress(data, 1).pixels.astype(float)
    codec.backbone.tiles = SMALL_NETWORKS.within(SMALLEST_TILE**2 * SMALL_NETWORKS.bytes_per_pixel)
    in_tiles = codec.decompress(data, 1).pixels.astype(float)
    made_in_tiles = codec.compress(pixels, 40).data
    assert abs(len(made_in_tiles) - len(data)) <= 0.01 * len(data)

    def rms(difference: np.ndarray) -> float:
        return float(np.sqrt(np.mean(difference**2)))

    assert 0 < rms(in_tiles - whole) < 0.2 * rms(whole - pixels)
    jumps = [np.abs(np.diff(picture, axis=1)).mean((0, 2)) for picture in (whole, in_tiles)]
    assert np.max(jumps[1] - jumps[0]) < 0.5  # levels of 255 from one column to the next: no line shows
