"""Operations counted by hand."""

import pytest
import torch

from diffusion_codec.evaluation import complexity
from tests.tiny import tiny_codec


def test_operations_of_a_convolution_are_counted_twice_a_multiply_add():
    layer = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert complexity.operations(lambda: layer(torch.zeros(1, 3, 16, 16))) == 2 * 3 * 9 * 8 * 16 * 16


def test_parts_and_their_growth(tmp_path):
    codec = tiny_codec(tmp_path)
    small, large = (complexity.parts(codec, side, side, steps=1).set_index("part") for side in (64, 128))
    two = complexity.parts(codec, 64, 64, steps=2).set_index("part")
    assert small["parameters"].gt(0).all()
    assert large["GMAC"].sum() > 3 * small["GMAC"].sum()
    assert two.loc["denoiser ε_θ, 2 steps", "GMAC"] == pytest.approx(
        2 * small.loc["denoiser ε_θ, 1 steps", "GMAC"], rel=0.05
    )
