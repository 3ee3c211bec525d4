"""What a baseline codec is: real files of bare pixels, a quality scale, and the search for a target rate."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_codec.errors import BadInputError

Pixels = NDArray[np.uint8]


class UnreachableRateError(BadInputError):
    """Even the smallest file the codec can make is larger than the target."""


@dataclass(frozen=True)
class Encoded:
    """A file as bytes, the quality that made it and the seconds that took."""

    data: bytes
    quality: float
    seconds: float


@dataclass(frozen=True)
class Baseline:
    """One codec at one setting.

    `qualities` is its scale in rising order, `version` names the libraries, `options` every setting but the
    quality: together they let a reader make the same bytes again. `parts` splits a file's bytes into the coded
    picture and the container around it, where the format has one. `rising`: no file of higher quality is smaller.
    """

    name: str
    version: str
    options: str
    qualities: tuple[float, ...]
    encoder: Callable[[Pixels, float], bytes]
    decoder: Callable[[bytes], Pixels]
    parts: Callable[[bytes], dict[str, int]] | None = None
    rising: bool = False

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """uint8 H x W x 3 to a file without metadata. Raises BadInputError off the quality scale."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise BadInputError(f"{self.name} takes uint8 H x W x 3, not {pixels.dtype} {pixels.shape}")
        low, high = self.qualities[0], self.qualities[-1]
        if not low <= quality <= high:
            raise BadInputError(f"{self.name} quality goes from {low:g} to {high:g}, not {quality:g}")
        return self.encoder(pixels, quality)

    def decode(self, data: bytes) -> Pixels:
        """A file to uint8 H x W x 3."""
        return self.decoder(data)

    def encode_at(self, pixels: Pixels, bpp: float, known: dict[int, Encoded] | None = None) -> Encoded:
        """The largest file that is not above `bpp` bits per pixel, found on real files.

        `known` (files by index of quality) may be handed from rate to rate of one image, to save encoding
        twice. Sizes rise with quality but for dents, so the quality after the one found is looked at too, unless they
        are `rising`. Raises UnreachableRateError, which says what is reachable.
        """
        height, width = pixels.shape[:2]
        max_bytes = int(bpp * height * width / 8)
        files = {} if known is None else known

        def size(index: int) -> int:
            if index not in files:
                files[index] = self._timed(pixels, self.qualities[index])
            return len(files[index].data)

        first_too_large = _first_above(size, len(self.qualities), max_bytes, pixels.nbytes, files)
        if first_too_large + 1 < len(self.qualities) and not self.rising:
            size(first_too_large + 1)
        good = [index for index, file in files.items() if len(file.data) <= max_bytes]
        if not good:
            least = min(len(file.data) for file in files.values())
            raise UnreachableRateError(
                f"{self.name} cannot reach {bpp:g} bits per pixel on this {width} x {height} image: its "
                f"smallest file has {least} bytes, {least * 8 / (height * width):.4f} bits per pixel"
            )
        return files[max(good, key=lambda index: (len(files[index].data), index))]

    def _timed(self, pixels: Pixels, quality: float) -> Encoded:
        started = time.perf_counter()
        data = self.encode(pixels, quality)
        return Encoded(data, quality, time.perf_counter() - started)


def _first_above(
    size: Callable[[int], int], count: int, limit: int, raw: int, files: dict[int, Encoded]
) -> int:
    """The first index whose size is above the limit (`count` if none is), of sizes that rise.

    Between two sizes that are known the next one tried is where the logarithm of the size would cross the
    limit; every third step halves the interval, so that no shape of the curve makes it slow. The smallest file is
    tried first; the end of the scale is taken to be half of the picture's `raw` bytes until more is known.
    """
    size(0)
    fitting = [index for index, file in files.items() if len(file.data) <= limit]
    low = max(fitting, default=-1)
    high = min((index for index in files if index > low), default=count)
    for step in range(1, 3 * count):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        if low >= 0 and step % 3:
            smaller, larger = math.log(size(low)), math.log(size(high) if high < count else raw / 2)
            part = (math.log(limit + 1) - smaller) / max(larger - smaller, 1e-9)
            middle = min(max(low + round(part * (high - low)), low + 1), high - 1)
        low, high = (middle, high) if size(middle) <= limit else (low, middle)
    return high
