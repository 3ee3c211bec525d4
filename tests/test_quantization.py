import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_codec import quantization as q
from diffusion_codec.schedule import STABLE_DIFFUSION


@pytest.mark.parametrize(
    ("t", "step"), [(10, 0.341), (50, 0.781), (100, 1.191), (200, 1.980), (300, 2.885), (400, 4.034)]
)
def test_matched_step_of_the_paper_table(t: int, step: float) -> None:
    assert float(q.matched_step(torch.tensor(float(t)))) == pytest.approx(step, abs=1e-3)


def test_matched_timestep_inverts_matched_step() -> None:
    t = torch.linspace(1, 998, 50, dtype=torch.float64)
    torch.testing.assert_close(q.matched_timestep(q.matched_step(t)), t, rtol=0, atol=1e-9)


def test_rounding_error_has_the_matched_variance() -> None:
    t = torch.tensor(50.0)
    step = q.matched_step(t)
    y = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    error = step * (y / step).round() - y
    assert float(error.std()) == pytest.approx(float(STABLE_DIFFUSION.sigma_at(t)), rel=0.01)


def test_affine_and_inverse() -> None:
    y, alpha, beta = torch.randn(2, 4, 5, 3), torch.rand(2, 4) + 0.1, torch.randn(2, 4)
    torch.testing.assert_close(q.inverse_affine(q.affine(y, alpha, beta), alpha, beta), y)


def test_straight_through_rounds_and_passes_the_gradient() -> None:
    z = torch.tensor([0.2, 0.7, -1.6], requires_grad=True)
    rounded = q.round_straight_through(z)
    rounded.sum().backward()
    assert rounded.tolist() == [0, 1, -2]
    assert z.grad is not None
    assert z.grad.tolist() == [1, 1, 1]


def test_uniform_noise_agrees_with_rounding_in_mean_and_variance() -> None:
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(1)) * 3
    error = q.add_uniform_noise(z, torch.Generator().manual_seed(2)) - z
    assert abs(float(error.mean())) < 0.003
    assert float(error.var()) == pytest.approx(1 / 12, rel=0.01)
    assert float((z.round() - z).var()) == pytest.approx(1 / 12, rel=0.01)


def test_dither_is_the_same_everywhere_and_uniform() -> None:
    dither = q.shared_dither(7, (4, 64, 64))
    # known answer: NumPy guarantees the Philox stream, so this never changes
    assert (dither.ravel()[:4] * 512).astype(int).tolist() == [-119, -15, 243, -37]
    assert float(np.abs(dither).max()) < 0.5
    assert float(dither.var()) == pytest.approx(1 / 12, rel=0.03)


@given(st.floats(min_value=2.0**-8, max_value=2.0**7.9))
def test_alpha_is_stored_within_a_thirty_second_of_an_octave(alpha: float) -> None:
    stored = q.alpha_from_index(q.alpha_to_index(torch.tensor(alpha, dtype=torch.float64)))
    assert abs(math.log2(float(stored) / alpha)) <= 1 / 32 + 1e-9


def test_beta_index_is_a_signed_byte() -> None:
    assert q.beta_to_index(torch.tensor([-0.5, 0.25, 0.5])).tolist() == [-128, 64, 127]
