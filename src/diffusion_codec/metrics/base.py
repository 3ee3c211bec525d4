"""What a metric is: a name that fixes its protocol, a direction, and a function of two images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_codec.errors import BadInputError

Pixels = NDArray[np.uint8]


class MetricError(BadInputError):
    """A metric cannot be computed for these images: wrong type, shapes that differ, an image too small."""


@dataclass(frozen=True)
class Metric:
    """One full-reference metric; two metrics with different protocols have different names.

    `protocol` is what a reader needs to compare the number: colour space, network, weights, constants.
    """

    name: str
    protocol: str
    higher_is_better: bool
    min_side: int
    compute: Callable[[Pixels, Pixels], float]

    def __call__(self, original: Pixels, decoded: Pixels) -> float:
        """Value for two uint8 images, H x W x 3. Raises MetricError."""
        for pixels in (original, decoded):
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise MetricError(f"{self.name} takes uint8 H x W x 3, not {pixels.dtype} {pixels.shape}")
        if original.shape != decoded.shape:
            raise MetricError(
                f"{self.name} compares images of one size, not {original.shape[:2]} with {decoded.shape[:2]}"
            )
        if min(original.shape[:2]) < self.min_side:
            raise MetricError(
                f"{self.name} needs {self.min_side} pixels or more on the short side, "
                f"this image is {original.shape[1]} x {original.shape[0]}; use another metric or image"
            )
        return self.compute(original, decoded)
