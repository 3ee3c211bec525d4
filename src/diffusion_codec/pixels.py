"""Pixels as tensors and back: 8-bit levels outside, -1..1 for networks; and what tells pictures apart."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_signed(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, 3) -> float32 (1, 3, H, W) in -1..1."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pixels(x: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in about -1..1 -> uint8 (N, H, W, 3)."""
    levels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def to_pixels_like(x: Tensor, original: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(1, 3, H', W') -> uint8 (H, W, 3) of the original, cut at the end of both: decoders make whole blocks of 8."""
    height, width = original.shape[:2]
    pixels: NDArray[np.uint8] = to_pixels(x)[0, :height, :width]
    return pixels


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of a picture's shape and levels, whatever file they came in."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
