"""Integer probability tables of quantised Gaussians, one for each scale level and fraction of the mean.

The tables are computed once, when codec weights are made, and stored as integers with them: a decoder never
evaluates an error function.
"""

from functools import lru_cache

import numpy as np

LEVELS_PER_OCTAVE = 6
LOWEST_LOG2_SCALE = -3.5
SCALE_LEVELS = 59
MEAN_FRACTIONS = 8
RADIUS = 192
"""Residuals in [-RADIUS, RADIUS] have a symbol each; symbol 2 RADIUS + 1 announces an escaped value.

Weights carry their tables: levels and radius of older ones are those of the shape they were stored in.
"""
TOTAL = 1 << 22


def scales() -> np.ndarray:
    """Standard deviations of the levels, in quantisation steps: 2^-3.5 up by sixths of an octave."""
    exponent = LOWEST_LOG2_SCALE + np.arange(SCALE_LEVELS) / LEVELS_PER_OCTAVE
    values: np.ndarray = np.exp2(exponent)
    return values


@lru_cache(maxsize=1)
def gaussian_tables() -> np.ndarray:
    """Frequencies, int32 (SCALE_LEVELS, MEAN_FRACTIONS, 2 RADIUS + 2), each row summing to 2^22.

    Row (s, f) is the distribution of round(N(f / MEAN_FRACTIONS, scale_s)); no symbol has frequency 0.
    """
    from scipy.special import ndtr

    edges = np.arange(-RADIUS - 0.5, RADIUS + 1.0)
    means = np.arange(MEAN_FRACTIONS) / MEAN_FRACTIONS
    z = (edges[None, None] - means[None, :, None]) / scales()[:, None, None]
    inside = np.where(
        z[..., 1:] > 0, ndtr(-z[..., :-1]) - ndtr(-z[..., 1:]), ndtr(z[..., 1:]) - ndtr(z[..., :-1])
    )
    outside = np.maximum(1 - inside.sum(-1, keepdims=True), 0)
    frequencies = integer_frequencies(np.concatenate([inside, outside], -1))
    return frequencies.astype(np.int32)


def integer_frequencies(probabilities: np.ndarray) -> np.ndarray:
    """Positive integers summing to TOTAL, near TOTAL * p; the most frequent symbol takes the rest."""
    free = TOTAL - probabilities.shape[-1]
    shares = probabilities / probabilities.sum(-1, keepdims=True)
    counts: np.ndarray = 1 + np.floor(shares * free).astype(np.int64)
    rest = TOTAL - counts.sum(-1)
    np.put_along_axis(
        counts,
        counts.argmax(-1)[..., None],
        np.take_along_axis(counts, counts.argmax(-1)[..., None], -1) + rest[..., None],
        -1,
    )
    return counts
