"""The forward process of latent diffusion: timestep <-> noise level.

    y_t = sqrt(alpha_bar_t) y_0 + sqrt(1 - alpha_bar_t) eps,   sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t)

``sigma_t`` is the noise-to-signal ratio seen after dividing y_t by sqrt(alpha_bar_t): the standard deviation
of the error on y itself.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class NoiseSchedule:
    """Stable Diffusion's ``scaled_linear`` schedule; the defaults are SD-1.x's and SD-2.x's.

    ``beta_t`` is the square of a line between the square roots of ``beta_start`` and ``beta_end``
    (Rombach et al., CVPR 2022, configuration of the released models).
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_timesteps: int = 1000

    @cached_property
    def alpha_bar(self) -> torch.Tensor:
        """Cumulative product of 1 - beta_t, float64, shape (num_timesteps,)."""
        root = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_timesteps)
        return torch.from_numpy(np.cumprod(1.0 - root**2))

    @cached_property
    def sigma(self) -> torch.Tensor:
        """Noise-to-signal ratio sqrt((1 - alpha_bar) / alpha_bar), float64, shape (num_timesteps,)."""
        return ((1 - self.alpha_bar) / self.alpha_bar).sqrt()

    def sigma_at(self, t: torch.Tensor) -> torch.Tensor:
        """sigma at a continuous timestep, linear in log sigma between the integers; differentiable in t."""
        log_sigma = self.sigma.log().to(t.device, t.dtype)
        t = t.clamp(0, self.num_timesteps - 1)
        low = t.detach().floor().long().clamp(max=self.num_timesteps - 2)
        return torch.lerp(log_sigma[low], log_sigma[low + 1], t - low).exp()

    def timestep_at(self, sigma: torch.Tensor) -> torch.Tensor:
        """The continuous timestep whose noise-to-signal ratio is ``sigma``; inverse of :meth:`sigma_at`.

        Differentiable in sigma. Values outside the schedule give its first or last timestep.
        """
        table = self.sigma.log().to(sigma.device, sigma.dtype)
        log_sigma = sigma.log().clamp(table[0], table[-1])
        low = (torch.searchsorted(table, log_sigma.detach(), right=True) - 1).clamp(0, len(table) - 2)
        return low + (log_sigma - table[low]) / (table[low + 1] - table[low])


STABLE_DIFFUSION = NoiseSchedule()
