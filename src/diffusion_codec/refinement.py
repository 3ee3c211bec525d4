"""Refinement by the encoder: a latent that the decoder makes a better picture of, in a file no larger.

E was trained once for all pictures; whoever compresses one picture has time to improve on it, and knows all that the
decoder will do, dither included (Campos et al., CVPR Workshops 2019, arXiv 1906.01223). From the latent of a file that
is there, gradient descent minimises

    L1(x, x_hat) + PERCEPTUAL_WEIGHT * LPIPS(x, x_hat) + price * R

over z, the latent in quantisation steps. Rounding passes the gradient on as it is; the price follows the
rate, so that it ends where the file was. Only the compressed latent changes: the format, P_phi's gamma and t,
and the decoder are as they were. LPIPS is that of SqueezeNet, with which the embedded backbones were trained.
"""

import copy
import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_codec import bitstream
from diffusion_codec.backbone import STRIDE
from diffusion_codec.bitstream import Header
from diffusion_codec.codec import (
    DEFAULT_STEPS,
    LUMA,
    Codec,
    Compressed,
    Stopwatch,
    dequantise,
    dither_of,
    in_steps,
    side_information,
    symbols_sha256,
)
from diffusion_codec.errors import BadInputError, reports_memory
from diffusion_codec.metrics.perceptual import perceptual_loss, seen_otherwise
from diffusion_codec.pixels import to_signed
from diffusion_codec.quantization import round_straight_through
from diffusion_codec.undisturbed import undisturbed

PERCEPTUAL_WEIGHT = 1.5
LEARNING_RATE = 0.02
"""Of Adam, in quantisation steps; falls linearly to a tenth."""
FIRST_PRICE = 2.0
"""Distortion a bit per pixel is worth at first: about its slope at 0.1 bits per pixel."""
PULL, LEAD = 120.0, 5.0
"""How the logarithm of the price follows the relative error of the rate: by how much in all steps, and steps ahead."""
FARTHEST = 14.0
"""The logarithm of the price stays this near to zero."""
HASTE = 0.405
"""What is added to the logarithm, besides, in every step beyond those asked for."""
TILE = 48
"""Latent positions a side of what is decoded at once, about."""
LEAST = 128
"""Pixels a side that LPIPS sees, at least; smaller pictures' borders are repeated."""
SCALE = 2.0**16
"""Of gradients inside the networks, so that half precision holds them."""
EXTRA = 0.5
"""Of the steps asked for: how many more may be taken until the file is as small as it has to be."""


def _tell_nobody(step: int) -> None:
    pass


@reports_memory
@torch.inference_mode(False)
@torch.enable_grad()
@undisturbed
def refine(
    codec: Codec,
    pixels: np.ndarray,
    compressed: Compressed,
    steps: int,
    max_bytes: int | None = None,
    tell: Callable[[int], None] = _tell_nobody,
) -> Compressed:
    """``compressed``, a file of ``pixels`` made by ``codec``, with its latent refined in ``steps`` steps.

    What steps are worth, and the seconds they take, is in data/results/refinement.csv. The file is made for decoding
    in :data:`diffusion_codec.codec.DEFAULT_STEPS` steps.

    Args:
        pixels: uint8 (H, W, 3).
        max_bytes: of the file, None for as many as ``compressed`` has. Where half as many steps again do not make it
            so small, ``compressed`` comes back as it was.
        tell: called with the number of each step, from 1, before it is taken.

    Raises:
        BadInputError: pixels of another type or size than the file's, a file of other codec weights, no steps, or a
            backbone that runs with offload or max_memory.
        MissingDataError: LPIPS or the weights of its network are not here.
    """
    if steps < 1:
        raise BadInputError(f"{steps} steps of refinement; expected 1 or more")
    run = codec.backbone.run
    if run.offload or run.max_memory is not None:
        raise BadInputError(
            "refinement needs all networks and their gradients at once: no offload, no max_memory"
        )
    if codec.backbone.device.type == "mps":
        raise BadInputError(
            "refinement works on a CPU or a CUDA GPU: PyTorch has not all of its gradients on Apple's"
        )
    watch = Stopwatch(codec.backbone.device, dict(compressed.seconds))
    allowed = len(compressed.data) if max_bytes is None else max_bytes
    with watch.stage("refine"):
        found = _Picture(codec, pixels, compressed.data).refined(steps, allowed, tell)
    if found is None:
        return compressed
    z_hat, data = found
    return Compressed(data, symbols_sha256(z_hat), dict(watch.seconds), compressed.quality)


class _Picture:
    """One picture, its file's header, and the parts of the codec as functions to differentiate."""

    def __init__(self, codec: Codec, pixels: np.ndarray, data: bytes):
        self.codec, self.backbone = codec, codec.backbone
        file = bitstream.read(data)
        self.header: Header = file.header
        y = codec.analyse(pixels).y
        if (self.header.height, self.header.width) != pixels.shape[:2]:
            raise BadInputError(
                f"the file is of {self.header.width} x {self.header.height} pixels, "
                f"the picture of {pixels.shape[1]} x {pixels.shape[0]}"
            )
        if self.header.weights_fingerprint != codec.weights.fingerprint:
            raise BadInputError(
                "the file was made with other codec weights than those it is to be refined with"
            )
        self.z = in_steps(y, self.header)
        self.x = to_signed(pixels).to(self.backbone.device)
        self.luma = torch.tensor(LUMA, device=self.x.device)[:, None, None]
        self.area = self.header.height * self.header.width
        self.side = side_information(self.header)
        self.entropy = copy.deepcopy(codec.weights.latent_coder.model).float()
        self.dither = dither_of(self.header, self.z.shape) if codec.weights.dithered else 0
        self.perceptual = perceptual_loss("squeeze").to(self.backbone.device)
        self.generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            # what the header and the tables' coarseness cost beside the estimate
            self.overhead = len(data) - self.bits(codec.symbols(file).float()).item() / 8

    def refined(self, steps: int, allowed: int, tell: Callable[[int], None]) -> tuple[Tensor, bytes] | None:
        """Integers (4, h, w) and their file of at most ``allowed`` bytes; None if none was found."""
        z = self.z.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=LEARNING_RATE)
        wanted, log_price, error_before = 8 * (allowed - self.overhead), math.log(FIRST_PRICE), 0.0
        if wanted <= 0:
            return None
        for step in range(1, math.ceil((1 + EXTRA) * steps) + 1):
            tell(step)
            left = 1 - 0.9 * step / steps if step <= steps else 0.5
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * left
            optimizer.zero_grad()
            z_hat = round_straight_through(z)
            bits = self.bits(z_hat)
            torch.autograd.backward(self.distortion(z_hat) + math.exp(log_price) * bits / self.area)
            error = bits.item() / wanted - 1
            growth = PULL / steps * (error + LEAD * (error - error_before)) + HASTE * (step > steps)
            log_price = max(-FARTHEST, min(log_price + growth, FARTHEST))
            error_before = error
            optimizer.step()
            if step >= steps:
                integers = z.detach().round().long()
                data = self.codec.pack(integers, self.header)
                if len(data) <= allowed:
                    return integers, data
        return None

    def bits(self, z_hat: Tensor) -> Tensor:
        """R: bits of z_hat, (4, h, w), by the entropy model in float32."""
        latent, hyper = self.entropy.bits((z_hat - self.dither)[None], self.side, self.generator)
        return (latent + hyper).sum()

    def distortion(self, z_hat: Tensor) -> Tensor:
        """A term that has the distortion's gradient in z_hat; the picture is decoded tile by tile."""
        y_hat = dequantise(z_hat, self.header)
        leaf = y_hat.detach().to(self.backbone.device).requires_grad_()
        t = torch.tensor([float(self.header.timestep)], device=leaf.device)
        for rows, columns in self._tiles(*leaf.shape[-2:]):
            x = self.x[..., _pixels(rows), _pixels(columns)]
            y_0 = self.backbone.denoise(leaf[..., rows, columns], t, DEFAULT_STEPS)
            x_hat = self.backbone.decode(y_0)[..., : x.shape[-2], : x.shape[-1]]
            if self.header.grayscale:  # as it will be shown
                x_hat = (x_hat * self.luma).sum(1, keepdim=True).expand_as(x_hat)
            part = x.shape[-2] * x.shape[-1] / self.area
            torch.autograd.backward(SCALE * part * self._difference(x, x_hat))
        assert leaf.grad is not None
        return (leaf.grad.to(y_hat.device) / SCALE * y_hat).sum()

    def _difference(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """L1 and LPIPS of two pictures (1, 3, H, W); LPIPS sees both shifted, turned and resized at random."""
        l1 = F.l1_loss(x_hat, x)
        down, right = (max(0, LEAST - side) for side in x.shape[-2:])
        ours, theirs = (F.pad(picture, (0, right, 0, down), mode="replicate") for picture in (x_hat, x))
        seen = seen_otherwise(ours, theirs, torch.rand(4, generator=self.generator).tolist())
        distance: Tensor = self.perceptual(*seen).mean()
        return l1 + PERCEPTUAL_WEIGHT * distance

    def _tiles(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of latent positions; borders between tiles lie elsewhere each time."""
        for rows in self._parts(height):
            for columns in self._parts(width):
                yield rows, columns

    def _parts(self, length: int) -> list[slice]:
        count = max(1, round(length / TILE))
        shift = float(torch.rand((), generator=self.generator)) / 2 - 0.25
        edges = [0, *(round((i + shift) * length / count) for i in range(1, count)), length]
        return [slice(a, b) for a, b in pairwise(edges)]


def _pixels(positions: slice) -> slice:
    return slice(positions.start * STRIDE, positions.stop * STRIDE)
