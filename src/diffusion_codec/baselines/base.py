"""What a baseline codec is: real files of bare pixels, a quality scale, and the search for a target rate."""

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
    """A file as bytes, and the quality that made it."""

    data: bytes
    quality: float


@dataclass(frozen=True)
class Baseline:
    """One codec at one setting.

    `qualities` is its scale in rising order, `version` names the libraries, `options` every setting but the
    quality: together they let a reader make the same bytes again.
    """

    name: str
    version: str
    options: str
    qualities: tuple[float, ...]
    encoder: Callable[[Pixels, float], bytes]
    decoder: Callable[[bytes], Pixels]

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

    def encode_at(self, pixels: Pixels, bpp: float) -> Encoded:
        """The largest file that is not above `bpp` bits per pixel, found on real files.

        Sizes rise with quality but for small dents, so after halving the interval the next few qualities are
        looked at too. Raises UnreachableRateError, which says what is reachable.
        """
        height, width = pixels.shape[:2]
        max_bytes = int(bpp * height * width / 8)
        sizes: dict[int, bytes] = {}

        def fits(index: int) -> bool:
            if index not in sizes:
                sizes[index] = self.encode(pixels, self.qualities[index])
            return len(sizes[index]) <= max_bytes

        low, high = -1, len(self.qualities)  # fits(low), not fits(high): both beyond the ends of the scale
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        for index in range(high + 1, min(high + 3, len(self.qualities))):
            fits(index)
        good = [index for index, data in sizes.items() if len(data) <= max_bytes]
        if not good:
            least = min(map(len, sizes.values()))
            raise UnreachableRateError(
                f"{self.name} cannot reach {bpp:g} bits per pixel on this {width} x {height} image: its "
                f"smallest file has {least} bytes, {least * 8 / (height * width):.4f} bits per pixel"
            )
        best = max(good, key=lambda index: (len(sizes[index]), index))
        return Encoded(sizes[best], self.qualities[best])
