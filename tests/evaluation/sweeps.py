"""One grid measured in this process, for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_codec import metrics
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.evaluation.codecs import RateCodec
from diffusion_codec.evaluation.records import Results
from diffusion_codec.evaluation.sweep import Grid, sweep_grids


def sweep(
    codecs: Sequence[RateCodec],
    dataset: ImageDataset,
    rates: Sequence[float],
    metric_names: Sequence[str],
    out: Path,
    limit: int | None = None,
    **options: Any,
) -> Results:
    """Every codec on every image, or on the first ones, at every rate."""
    grid = Grid(codecs, rates, [metrics.get(name) for name in metric_names], limit)
    return sweep_grids([grid], dataset, out, **options)
