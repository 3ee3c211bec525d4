"""PSNR and MS-SSIM."""

import math

import numpy as np
import torch
from pytorch_msssim import ms_ssim

from diffusion_codec.metrics.base import Metric, Pixels

# four halvings and an 11-pixel window on the smallest scale: pytorch-msssim refuses anything smaller
MS_SSIM_MIN_SIDE = (11 - 1) * 2**4 + 1


def _psnr(original: Pixels, decoded: Pixels) -> float:
    error = np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]  # 1 x 3 x H x W


def _ms_ssim(original: Pixels, decoded: Pixels) -> float:
    return float(ms_ssim(_tensor(original), _tensor(decoded), data_range=255.0))


PSNR = Metric(
    "psnr",
    "dB; 8-bit sRGB, one mean squared error over all pixels and channels; infinite for equal images",
    higher_is_better=True,
    min_side=1,
    compute=_psnr,
)
MS_SSIM = Metric(
    "ms-ssim",
    "8-bit sRGB, mean of the three channels, 11 x 11 Gaussian window (sigma 1.5), five scales with the "
    "weights of Wang et al. 2003 (pytorch-msssim)",
    higher_is_better=True,
    min_side=MS_SSIM_MIN_SIDE,
    compute=_ms_ssim,
)
