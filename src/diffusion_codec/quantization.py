"""Quantisation as the codec does it, and the noise level it stands for.

The affine transform and rounding are the paper's (eqs. of section 3); the dithered variant is universal
quantisation (Ziv 1985; Zamir and Feder 1992), the 2025 follow-up's remedy for its third gap.
"""

import numpy as np
import torch

from diffusion_codec.schedule import STABLE_DIFFUSION, NoiseSchedule

ALPHA_STEPS_PER_OCTAVE = 16
BETA_STEPS_PER_UNIT = 256
DITHER_LEVELS = 256


def matched_step(t: torch.Tensor, schedule: NoiseSchedule = STABLE_DIFFUSION) -> torch.Tensor:
    """Delta_t = sqrt(12) sigma_t: the step whose rounding error has the variance of the noise at t."""
    return 12**0.5 * schedule.sigma_at(t)


def matched_timestep(step: torch.Tensor, schedule: NoiseSchedule = STABLE_DIFFUSION) -> torch.Tensor:
    """The continuous timestep whose noise has the variance step^2 / 12 of the rounding error."""
    return schedule.timestep_at(step / 12**0.5)


def affine(y: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """alpha * y + beta per channel; y is (N, C, H, W), alpha and beta are (N, C)."""
    return alpha[..., None, None] * y + beta[..., None, None]


def inverse_affine(z_hat: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """y_hat = (z_hat - beta) / alpha, shapes as in :func:`affine`."""
    return (z_hat - beta[..., None, None]) / alpha[..., None, None]


def round_straight_through(z: torch.Tensor) -> torch.Tensor:
    """round(z) whose gradient is the identity's."""
    return z + (z.round() - z).detach()


def add_uniform_noise(z: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """z + U(-1/2, 1/2): the differentiable stand-in for rounding in the rate term (Ballé et al. 2017)."""
    drawn_on = z.device if generator is None else generator.device
    noise = torch.rand(z.shape, generator=generator, device=drawn_on, dtype=z.dtype)
    return z + noise.to(z.device) - 0.5


def shared_dither(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The dither both sides draw: uniform on the 256 midpoints of (-1/2, 1/2), float32.

    Drawn as integers from NumPy's Philox counter generator, so that every machine sees the same values
    (a float generator differs between CPU kernels).
    """
    raw = np.random.Generator(np.random.Philox(seed)).integers(0, DITHER_LEVELS, shape, dtype=np.int64)
    return ((2 * raw + 1 - DITHER_LEVELS) / (2 * DITHER_LEVELS)).astype(np.float32)


def alpha_from_index(index: torch.Tensor) -> torch.Tensor:
    """alpha = 2^(index / 16): the scale a file stores as a signed byte."""
    return torch.exp2(index.float() / ALPHA_STEPS_PER_OCTAVE)


def alpha_to_index(alpha: torch.Tensor) -> torch.Tensor:
    """The nearest stored index of a positive scale, within a signed byte."""
    return (alpha.log2() * ALPHA_STEPS_PER_OCTAVE).round().clamp(-128, 127)


def beta_from_index(index: torch.Tensor) -> torch.Tensor:
    """beta = index / 256, in quantisation steps."""
    return index.float() / BETA_STEPS_PER_UNIT


def beta_to_index(beta: torch.Tensor) -> torch.Tensor:
    """The nearest stored index of an offset in quantisation steps, within a signed byte."""
    return (beta * BETA_STEPS_PER_UNIT).round().clamp(-128, 127)
