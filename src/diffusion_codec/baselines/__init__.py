"""Codecs to compare with, each a real encoder writing real bytes.

`get("avif").encode_at(pixels, bpp=0.1)` is the largest file not above the target.
"""

from diffusion_codec.baselines import modern, pillow
from diffusion_codec.baselines.base import Baseline, Encoded, UnreachableRateError
from diffusion_codec.errors import BadInputError

__all__ = ["Baseline", "Encoded", "UnreachableRateError", "get", "names"]

_BASELINES = {codec.name: codec for codec in (*pillow.baselines(), *modern.baselines())}


def names() -> tuple[str, ...]:
    """Names of all baselines."""
    return tuple(_BASELINES)


def get(name: str) -> Baseline:
    """The baseline of that name. Raises BadInputError, which lists the names."""
    if name not in _BASELINES:
        raise BadInputError(f"baseline {name!r} is unknown; choose from {', '.join(_BASELINES)}")
    return _BASELINES[name]
