import pytest
import torch
from diffusers import DDPMScheduler

from diffusion_codec.schedule import STABLE_DIFFUSION


def test_alpha_bar_is_that_of_diffusers() -> None:
    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(STABLE_DIFFUSION.alpha_bar.float(), theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("t", "alpha_bar", "sigma"), [(10, 0.9904, 0.098), (100, 0.8942, 0.344), (400, 0.4245, 1.164)]
)
def test_published_values(t: int, alpha_bar: float, sigma: float) -> None:
    assert float(STABLE_DIFFUSION.alpha_bar[t]) == pytest.approx(alpha_bar, abs=6e-5)
    assert float(STABLE_DIFFUSION.sigma[t]) == pytest.approx(sigma, abs=6e-4)


def test_timestep_and_sigma_are_inverse() -> None:
    t = torch.linspace(0, 999, 777, dtype=torch.float64)
    torch.testing.assert_close(
        STABLE_DIFFUSION.timestep_at(STABLE_DIFFUSION.sigma_at(t)), t, rtol=0, atol=1e-9
    )


def test_outside_the_schedule_is_its_ends() -> None:
    sigma = torch.tensor([1e-6, 1e6], dtype=torch.float64)
    assert STABLE_DIFFUSION.timestep_at(sigma).tolist() == [0, 999]


def test_sigma_is_differentiable_in_t() -> None:
    t = torch.tensor([100.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(STABLE_DIFFUSION.sigma_at, (t,))
