"""Conventional codecs at rates below their smallest file: as one would in practice, they code a smaller picture."""

import numpy as np
from PIL import Image

from diffusion_codec.baselines import Baseline
from diffusion_codec.evaluation.codecs import BaselineCodec, Coded, Pixels

FACTORS = (1, 2, 4, 8)


class ReducedCodec:
    """A baseline at full size where that fits the rate, else at a half, a quarter or an eighth of the sides.

    Reduced and enlarged with Lanczos' filter. Rates are bits per pixel of the whole picture.
    """

    has_rate = True

    def __init__(self, baseline: Baseline) -> None:
        self._sizes = {factor: BaselineCodec(baseline) for factor in FACTORS}

    @property
    def name(self) -> str:
        """The baseline's name."""
        return self._sizes[1].name

    @property
    def version(self) -> str:
        """The baseline's libraries."""
        return self._sizes[1].version

    @property
    def settings(self) -> str:
        """The baseline's options, and when the picture is reduced."""
        return f"{self._sizes[1].settings}; where no file is so small, 1/2, 1/4 or 1/8 of the sides (Lanczos)"

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """The largest file not above `bpp` of the largest picture that has one; else the smallest file of all."""
        height, width = pixels.shape[:2]
        for factor, codec in self._sizes.items():
            small = resized(pixels, max(width // factor, 1), max(height // factor, 1))
            coded = codec.run(small, bpp * height * width / (small.shape[0] * small.shape[1]))
            if coded.data is not None and 8 * len(coded.data) <= bpp * height * width:
                break
        decoded = resized(coded.decoded, width, height)
        return Coded(coded.data, decoded, coded.encode_seconds, coded.decode_seconds)


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """uint8 H x W x 3 at another size; the same array where the size is the same."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
