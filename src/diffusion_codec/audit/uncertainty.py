"""What a decoder made up: decode one file several times, each time from another latent it stands for.

A file holds integers; every latent within half a step of them gives the same file. What all of those
latents decode to alike is in the file. What differs from one to the next is not: the decoder chose it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusion_codec import bitstream
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError

BLOCK = 8
"""Side of the blocks that spread and error are compared in: one latent position."""

DRAWS = 8
STEP_COUNTS = (0, 1, 2, 3, 5, 10)
CALIBRATION_BINS = 10
MEAN_OF_GAUSSIAN = (2 / np.pi) ** 0.5
"""Mean absolute error of a Gaussian over its standard deviation."""

HIGH = 10.0
"""Grey levels of spread from which a block is called uncertain."""

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Spread:
    """The picture a decoder shows, uint8 (H, W, 3), and how far its draws differ, grey levels, (H, W)."""

    decoded: Pixels
    spread: Map
    draws: int


def spread(codec: Codec, data: bytes, draws: int = DRAWS) -> Spread:
    """Standard deviation over `draws` decodings (seeds 0, 1, ...), mean of the three colours.

    Raises:
        BadInputError: fewer than 2 draws, or a file that cannot be decoded.
    """
    if draws < 2:
        raise BadInputError(f"a spread needs 2 draws or more, not {draws}")
    return _spread(codec, data, [{"seed": seed} for seed in range(draws)])


def spread_of_steps(codec: Codec, data: bytes, steps: Sequence[int] = STEP_COUNTS) -> Spread:
    """The same over numbers of denoising steps instead of seeds, for comparison."""
    return _spread(codec, data, [{"steps": count} for count in steps])


def _spread(codec: Codec, data: bytes, ways: Sequence[dict[str, Any]]) -> Spread:
    decoded = codec.decompress(data).pixels
    # of differences to one picture: sums of squares of small numbers stay exact in float32
    total, squares = (np.zeros(decoded.shape, np.float32) for _ in range(2))
    for way in ways:
        difference = codec.decompress(data, **way).pixels.astype(np.float32) - decoded
        total += difference
        squares += difference**2
    variance = (squares - total**2 / len(ways)) / (len(ways) - 1)
    return Spread(decoded, np.sqrt(np.clip(variance, 0, None)).mean(-1), len(ways))


def blocks(values: NDArray[Any], side: int = BLOCK) -> NDArray[np.float64]:
    """Means over blocks of side x side, those at the border cut off unless the picture is smaller than one."""
    height, width = values.shape
    rows, columns = max(height // side, 1), max(width // side, 1)
    whole = values[: rows * side, : columns * side].astype(float)
    if min(height, width) < side:
        return np.array([[float(values.mean())]])
    means: NDArray[np.float64] = whole.reshape(rows, side, columns, side).mean((1, 3))
    return means


def check_sizes(original: tuple[int, ...], decoded: tuple[int, ...]) -> None:
    """Raise BadInputError unless both pictures have one shape, (H, W, 3)."""
    if original != decoded:
        sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (original, decoded))
        raise BadInputError(f"the original and the decoded picture differ in size: {sizes} pixels")


def error_map(original: Pixels, decoded: Pixels) -> Map:
    """Absolute difference, mean of the three colours, grey levels, (H, W).

    Raises:
        BadInputError: pictures of different sizes.
    """
    check_sizes(original.shape, decoded.shape)
    difference: Map = np.abs(original.astype(np.float32) - decoded).mean(-1)
    return difference


def rank_correlation(predicted: NDArray[Any], true: NDArray[Any]) -> float | None:
    """Spearman's rho of two maps; None where one of them is the same everywhere."""
    from scipy import stats

    a, b = np.ravel(predicted), np.ravel(true)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def calibration(predicted: NDArray[Any], true: NDArray[Any], bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """Mean spread and mean error in classes of equal count by spread: columns spread, error, blocks."""
    a, b = np.ravel(predicted), np.ravel(true)
    order = np.argsort(a, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return pd.DataFrame([{"spread": a[p].mean(), "error": b[p].mean(), "blocks": len(p)} for p in parts])


def contrast(decoded: Pixels) -> NDArray[np.float64]:
    """Standard deviation of the grey levels in each block: the predictor that needs no second decoding."""
    grey = decoded.mean(-1)
    return np.sqrt(np.clip(blocks(grey**2) - blocks(grey) ** 2, 0, None))


def summary(found: Spread, data: bytes, original: Pixels | None = None) -> dict[str, Any]:
    """What the map says, as numbers for a program to read; with the original, how right the map is."""
    file = bitstream.read(data)
    map_ = blocks(found.spread)
    told: dict[str, Any] = {
        "width": file.header.width,
        "height": file.header.height,
        "bytes": len(data),
        "bpp": 8 * len(data) / (file.header.width * file.header.height),
        "generative": True,
        "evidence": False,
        "draws": found.draws,
        "unit": "grey levels of 255",
        "spread_mean": float(map_.mean()),
        "spread_median": float(np.median(map_)),
        "spread_95": float(np.quantile(map_, 0.95)),
        "uncertain_above": HIGH,
        "uncertain_share": float((map_ >= HIGH).mean()),
        "most_uncertain": _worst(map_),
    }
    if original is not None:
        error = blocks(error_map(original, found.decoded))
        told["error_mean"] = float(error.mean())
        told["rank_correlation"] = rank_correlation(map_, error)
        told["rank_correlation_of_contrast"] = rank_correlation(contrast(found.decoded), error)
        told["calibration"] = calibration(map_, error).to_dict("records")
    return told


def _worst(map_: NDArray[np.float64], count: int = 5, side: int = 6) -> list[dict[str, float | int]]:
    """Squares of side blocks with the largest mean spread, none over another: pixels and grey levels."""
    side = min(side, *map_.shape)
    sums = np.lib.stride_tricks.sliding_window_view(map_, (side, side)).mean((2, 3)).copy()
    found: list[dict[str, float | int]] = []
    while len(found) < count and sums.max() > 0:
        row, column = (int(v) for v in np.unravel_index(sums.argmax(), sums.shape))
        found.append(
            {
                "left": column * BLOCK,
                "top": row * BLOCK,
                "side": side * BLOCK,
                "spread": float(sums[row, column]),
            }
        )
        sums[max(row - side + 1, 0) : row + side, max(column - side + 1, 0) : column + side] = 0
    return found


def evaluate(codec: Codec, data: bytes, original: Pixels, draws: int = DRAWS) -> dict[str, Any]:
    """For a study of many photographs: how well seeds, step counts and mere contrast predict the error."""
    found = spread(codec, data, draws)
    map_, error = blocks(found.spread), blocks(error_map(original, found.decoded))
    steps = blocks(spread_of_steps(codec, data).spread)
    return {
        "bpp": 8 * len(data) / (original.shape[0] * original.shape[1]),
        "spread": float(map_.mean()),
        "error": float(error.mean()),
        "seeds": rank_correlation(map_, error),
        "steps": rank_correlation(steps, error),
        "contrast": rank_correlation(contrast(found.decoded), error),
        "calibration": calibration(map_, error).to_dict("records"),
    }
