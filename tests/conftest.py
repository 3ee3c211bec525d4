"""Pictures and files that several tests need."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_codec.bitstream import DfcFile, Header


@pytest.fixture
def small_dfc() -> DfcFile:
    """A file with every optional field and both streams, small enough to damage exhaustively."""
    header = Header(
        width=768,
        height=512,
        weights_fingerprint=b"\x01\x23\x45\x67",
        timestep=137,
        alpha=(-16, 0, 3, 127),
        beta=(-128, 0, 5, 127),
        dither_seed=0xBEEF,
        grayscale=True,
    )
    return DfcFile(header, hyper=b"hyper\r\n\x00", latent=bytes(range(40)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small colour PNG with smooth and noisy parts."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:64]
    ramp = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1)
    pixels = np.clip(ramp + rng.integers(-8, 8, ramp.shape), 0, 255).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path
