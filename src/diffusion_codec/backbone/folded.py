"""The small autoencoder's decoder, run faster: the same function, its two last convolutions as one.

A decoder without blocks at full resolution ends in ``upsample by 2, convolution, convolution`` with nothing between
them. Together they are linear, so away from the border they equal *one* 3 x 3 convolution at half resolution to four
times the channels, whose output is sorted into place (a pixel shuffle). At 64 channels that is a twentieth of these
layers' operations, and no tensor of 64 channels at full resolution is made. The outermost ring of pixels, which sees
the zeros that the second convolution pads with, is computed as before, from narrow strips.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

BORDER = 2
"""Rows of half resolution that decide the outermost row of pixels."""


class FoldedDecoder:
    """``vae.decoder`` of a tiny autoencoder with the last two convolutions folded.

    It holds no parameters: the layers are the decoder's own, which must stay as they are.

    Args:
        decoder: the ``DecoderTiny`` of an autoencoder that :func:`can_fold`.
    """

    def __init__(self, decoder: Any):
        layers: list[nn.Module] = list(decoder.layers)
        self.body, self.tail = nn.Sequential(*layers[:-3]), nn.Sequential(*layers[-3:])
        middle, last = layers[-2:]
        assert isinstance(middle, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        self.weight = fold(middle.weight, last.weight)
        self.bias = None if last.bias is None else last.bias.float().repeat_interleave(4)

    def __call__(self, y: Tensor) -> Tensor:
        """Float32 (N, 4, h, w) -> (N, 3, 8h, 8w) in about -1..1; the last step is float32 whatever the layers are."""
        dtype = next(self.body.parameters()).dtype
        hidden = self.body((torch.tanh(y / 3) * 3).to(dtype))
        weight = self.weight.to(y.device)
        bias = None if self.bias is None else self.bias.to(y.device)
        x = F.pixel_shuffle(F.conv2d(hidden.float(), weight, bias, padding=1), 2)
        self._ring(hidden, x)
        return x.mul_(2).sub_(1)

    def _ring(self, hidden: Tensor, x: Tensor) -> None:
        """The outermost pixels of ``x`` as the two convolutions make them."""
        x[..., :1, :] = self.tail(hidden[..., :BORDER, :])[..., :1, :]
        x[..., -1:, :] = self.tail(hidden[..., -BORDER:, :])[..., -1:, :]
        x[..., :1] = self.tail(hidden[..., :BORDER])[..., :1]
        x[..., -1:] = self.tail(hidden[..., -BORDER:])[..., -1:]


def can_fold(vae: nn.Module) -> bool:
    """Whether the decoder ends in a nearest upsampling by 2 and two 3 x 3 convolutions, the first without bias."""
    if not isinstance(vae, AutoencoderTiny):
        return False
    layers = list(vae.decoder.layers)
    if len(layers) < 4:
        return False
    upsample, *convolutions = layers[-3:]
    return (
        isinstance(upsample, nn.Upsample)
        and upsample.mode == "nearest"
        and upsample.scale_factor == 2
        and all(_is_plain(layer) for layer in convolutions)
        and convolutions[0].bias is None
    )


def _is_plain(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.padding == (1, 1)
        and layer.dilation == (1, 1)
        and layer.groups == 1
    )


def fold(middle: Tensor, last: Tensor) -> Tensor:
    """The kernel of upsample by 2, ``middle`` (M, I, 3, 3), ``last`` (O, M, 3, 3): float32 (4 O, I, 3, 3).

    Output channel 4 o + 2 a + b is channel o of the pixels at odd (1) or even (0) row a and column b.
    """
    middle, last = middle.detach().double(), last.detach().double()
    both = middle.new_zeros(len(last), middle.shape[1], 5, 5)
    for row in range(3):
        for column in range(3):
            part = torch.einsum("om,mipq->oipq", last[:, :, row, column], middle)
            both[..., row : row + 3, column : column + 3] += part
    # tap k of the five, seen from an even or odd pixel, falls on neighbour (parity + k) // 2 of the half resolution
    place = middle.new_zeros(2, 3, 5)
    for parity in range(2):
        for tap in range(5):
            place[parity, (parity + tap) // 2, tap] = 1
    folded = torch.einsum("oikn,ajk,bln->oabijl", both, place, place)
    kernel = folded.reshape(4 * len(last), middle.shape[1], 3, 3).float()
    return kernel.contiguous(memory_format=torch.channels_last)
