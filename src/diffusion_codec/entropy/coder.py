"""Quantised latents to streams and back: the entropy model in float64, pass by pass, and the range coder."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_codec.entropy.model import (
    CHANNELS,
    HYPER_RADIUS,
    HYPER_STRIDE,
    EntropyModel,
    SideInformation,
    checkerboard,
    table_indices,
)
from diffusion_codec.entropy.range_coder import Decoder, Encoder
from diffusion_codec.errors import BadInputError


@dataclass(frozen=True)
class Streams:
    """The two streams of a file; ``hyper`` is empty without a hyperprior."""

    hyper: bytes
    latent: bytes


class LatentCoder:
    """Codes integer latents (4, h, w) given the side information of the header.

    Args:
        model: a trained entropy model; a float64 copy is used, on the CPU.
        gaussian: integer tables of :func:`diffusion_codec.entropy.tables.gaussian_tables`, as stored.
        hyper: integer tables (channels, 2 HYPER_RADIUS + 1) summing to 2^22 a row, or None.
    """

    def __init__(self, model: EntropyModel, gaussian: np.ndarray, hyper: np.ndarray | None):
        copy = EntropyModel(**model.config)
        copy.load_state_dict(model.state_dict())
        self.model = copy.double().eval().requires_grad_(False)
        self.gaussian, self.hyper = gaussian, hyper

    @torch.no_grad()
    def encode(self, z_hat: Tensor, side: SideInformation) -> Streams:
        """Streams of ``z_hat``, int64 (4, h, w)."""
        z, side = z_hat.double()[None], _double(side)
        hyper, features = self._encode_hyper(z, side)
        coder = Encoder(self.gaussian)
        for index, mean, log_scale in self.model.each_pass(z, side, features):
            channel, mask = index // 2, checkerboard(z.shape[-2], z.shape[-1], index % 2)
            level, fraction = table_indices(mean[0][mask], log_scale[0][mask])
            coder.put(z_hat[channel][mask].numpy(), level.numpy(), fraction.numpy())
        return Streams(hyper, coder.finish())

    @torch.no_grad()
    def decode(self, streams: Streams, size: tuple[int, int], side: SideInformation) -> Tensor:
        """The integers of :meth:`encode`, int64 (4, h, w) for ``size`` = (h, w).

        Raises:
            BadInputError: the streams do not hold such a latent.
        """
        side = _double(side)
        features = self.hyper_features(streams.hyper, size)
        coder = Decoder(self.gaussian, streams.latent)
        z = torch.zeros(1, CHANNELS, *size, dtype=torch.float64)
        for index in range(2 * CHANNELS):
            known = self.model.known(self.model.unit(z, side), index, features)
            mean, log_scale = self.model.predict(index, known, side)
            mask = checkerboard(*size, index % 2)
            level, fraction = table_indices(mean[0][mask], log_scale[0][mask])
            z[0, index // 2, mask] = torch.from_numpy(coder.get(level.numpy(), fraction.numpy())).double()
        return z[0].long()

    def _encode_hyper(self, z: Tensor, side: SideInformation) -> tuple[bytes, Tensor | None]:
        hyperprior = self.model.hyperprior
        if hyperprior is None:
            return b"", None
        h_hat = hyperprior.analyse(self.model.unit(z, side)).round()
        coder = self._hyper_coder()
        for channel, values in enumerate(h_hat[0].long().numpy()):
            level, mean = _hyper_indices(channel, values.size)
            coder.put(values.ravel(), level, mean)
        return coder.finish(), hyperprior.synthesise(h_hat, (z.shape[-2], z.shape[-1]))

    def hyper_features(self, stream: bytes, size: tuple[int, int]) -> Tensor | None:
        """The planes (1, F, h, w) a hyper stream stands for, or None without a hyperprior.

        Raises:
            BadInputError: the stream does not hold them.
        """
        hyperprior = self.model.hyperprior
        if hyperprior is None:
            if stream:
                raise BadInputError("the file has a hyper stream, but its codec weights have no hyperprior")
            return None
        assert self.hyper is not None
        coder = _HyperDecoder(self.hyper, stream)
        height, width = (-(-side // HYPER_STRIDE) for side in size)
        planes = []
        for channel in range(hyperprior.channels):
            values = coder.get(*_hyper_indices(channel, height * width))
            planes.append(torch.from_numpy(values).double().reshape(height, width))
        return hyperprior.synthesise(torch.stack(planes)[None], size)

    def _hyper_coder(self) -> "_HyperEncoder":
        assert self.hyper is not None
        return _HyperEncoder(self.hyper)


class _HyperEncoder(Encoder):
    radius, fractions = HYPER_RADIUS, 1


class _HyperDecoder(Decoder):
    radius, fractions = HYPER_RADIUS, 1


def _hyper_indices(channel: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every position of a hyper channel has that channel's table and mean 0."""
    return np.full(count, channel, np.int64), np.zeros(count, np.int64)


def _double(side: SideInformation) -> SideInformation:
    return SideInformation(side.alpha_index.double(), side.timestep.double())
