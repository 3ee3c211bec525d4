"""Quantised latents to streams and back: the entropy model in float64, pass by pass, and the range coder."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_codec.entropy.model import (
    CHANNELS,
    HYPER_STRIDE,
    EntropyModel,
    SideInformation,
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
        self.model = copy.deepcopy(model).to("cpu", torch.float64).eval().requires_grad_(False)
        self.gaussian, self.hyper = gaussian, hyper

    @torch.no_grad()
    def encode(self, z_hat: Tensor, side: SideInformation, dither: Tensor | None = None) -> Streams:
        """Streams of ``z_hat``, int64 (4, h, w).

        Args:
            dither: what was added before rounding, (4, h, w) in steps, multiples of 2^-9, where the coder should
                reckon with it: contexts see z_hat - dither, and means move by the dither.
        """
        z, side = _undithered(z_hat, dither), _double(side)
        hyper, features = self._encode_hyper(z, side)
        coder = Encoder(self.gaussian)
        for index, mean, log_scale in self.model.each_pass(z, side, features):
            channel, mask = self.model.channel_and_mask(index, z.shape[-2], z.shape[-1])
            level, fraction = self._indices(mean[0], log_scale[0], mask, channel, dither)
            coder.put(z_hat[channel][mask].numpy(), level.numpy(), fraction.numpy())
        return Streams(hyper, coder.finish())

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        size: tuple[int, int],
        side: SideInformation,
        dither: Tensor | None = None,
    ) -> Tensor:
        """The integers of :meth:`encode`, int64 (4, h, w) for ``size`` = (h, w).

        Raises:
            BadInputError: the streams do not hold such a latent.
        """
        side = _double(side)
        features = self.hyper_features(streams.hyper, size)
        coder = Decoder(self.gaussian, streams.latent)
        z_hat = torch.zeros(CHANNELS, *size, dtype=torch.int64)
        for index in range(len(self.model.passes)):
            unit = self.model.unit(_undithered(z_hat, dither), side)
            known = self.model.known(unit, index, features)
            mean, log_scale = self.model.predict(index, known, side)
            channel, mask = self.model.channel_and_mask(index, *size)
            level, fraction = self._indices(mean[0], log_scale[0], mask, channel, dither)
            z_hat[channel, mask] = torch.from_numpy(coder.get(level.numpy(), fraction.numpy()))
        return z_hat

    def _indices(
        self, mean: Tensor, log_scale: Tensor, mask: Tensor, channel: int, dither: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Table indices of one pass's positions, the means moved by the dither."""
        expected = mean[mask] if dither is None else mean[mask] + dither[channel][mask].double()
        return table_indices(expected, log_scale[mask], len(self.gaussian))

    def _encode_hyper(self, z: Tensor, side: SideInformation) -> tuple[bytes, Tensor | None]:
        hyperprior = self.model.hyperprior
        if hyperprior is None:
            return b"", None
        h_hat = hyperprior.analyse(self.model.unit(z, side)).round()
        assert self.hyper is not None
        coder = Encoder(self.hyper)
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
        coder = Decoder(self.hyper, stream)
        height, width = (-(-side // HYPER_STRIDE) for side in size)
        planes = []
        for channel in range(hyperprior.channels):
            values = coder.get(*_hyper_indices(channel, height * width))
            planes.append(torch.from_numpy(values).double().reshape(height, width))
        return hyperprior.synthesise(torch.stack(planes)[None], size)


def _hyper_indices(channel: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every position of a hyper channel has that channel's table and mean 0."""
    return np.full(count, channel, np.int64), np.zeros(count, np.int64)


def _undithered(z_hat: Tensor, dither: Tensor | None) -> Tensor:
    """z_hat - dither, float64 (1, 4, h, w): exact."""
    z = z_hat.double()[None]
    return z if dither is None else z - dither.double()


def _double(side: SideInformation) -> SideInformation:
    return SideInformation(side.alpha_index.double(), side.timestep.double())
