"""P_phi: one small network from latents and lambda to quantisation parameters and diffusion timestep."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_codec.quantization import matched_timestep
from diffusion_codec.schedule import STABLE_DIFFUSION

CHANNELS = 4
LOG2_LAMBDA_RANGE = (0.0, 18.0)


class Parameters(NamedTuple):
    """gamma = (alpha, beta), each (N, 4), and the continuous timestep t, (N,)."""

    alpha: Tensor
    beta: Tensor
    t: Tensor


class ParameterEstimation(nn.Module):
    """(gamma, t) = P_phi(y, lambda).

    The shape is the public attempt's: the latent and a constant plane of log2 lambda; three strided 3x3
    convolutions 5-64-128-256 with SiLU; a 3x3 convolution to 9; the mean over space. The nine numbers are
    offsets from a starting point that an untrained network already gets right: a step that falls with
    sqrt(lambda), beta = 0, and the t at which the model's noise matches the rounding error. alpha and t stay
    independent, as in the paper; ``tied`` drops the offset of t and gives all channels one alpha, as in the
    follow-up.
    """

    def __init__(self, tied: bool = False):
        super().__init__()
        self.config = {"tied": tied}
        self.tied = tied
        self.layers = nn.Sequential(
            nn.Conv2d(CHANNELS + 1, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(128, 256, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(256, 2 * CHANNELS + 1, 3, padding=1),
        )
        for last in self.layers[-1].parameters():
            nn.init.zeros_(last)
        self.log2_step_at_lambda_1 = nn.Parameter(torch.tensor(1.0))

    def forward(self, y: Tensor, lambda_: Tensor) -> Parameters:
        """y (N, 4, h, w), lambda_ (N,) -> Parameters; differentiable."""
        plane = self.told(lambda_)[:, None, None, None].expand(-1, 1, *y.shape[-2:])
        offsets = self.layers(torch.cat([y, plane], 1)).mean((2, 3)).float()
        gain, shift, noise = offsets[:, :CHANNELS], offsets[:, CHANNELS:-1], offsets[:, -1]
        if self.tied:
            gain, noise = gain.mean(1, keepdim=True).expand_as(gain), torch.zeros_like(noise)
        log2_step = self.starting_log2_step(lambda_)[:, None] - gain
        step = torch.exp2(log2_step.mean(1) + noise)
        t = matched_timestep(step, STABLE_DIFFUSION)
        return Parameters(torch.exp2(-log2_step), 0.5 * torch.tanh(shift), t)

    def told(self, lambda_: Tensor) -> Tensor:
        """What the constant plane holds: log2 lambda, scaled to the latents' size (N,)."""
        return lambda_.log2() / 4

    def starting_log2_step(self, lambda_: Tensor) -> Tensor:
        """log2 of the step that an untrained network answers with: it falls with sqrt(lambda), (N,)."""
        return self.log2_step_at_lambda_1 - 0.5 * lambda_.log2()
