"""DISTS (Ding et al., TPAMI 2022, arXiv 2004.07728): structure and texture of VGG-16 features.

torchmetrics brings the code and the learned weights alpha and beta. It takes VGG-16 from torchvision; here the
layers of `backbones.py` stand in while the network is built, with the weights that LPIPS vgg uses too.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_codec.metrics.backbones import vgg16_features
from diffusion_codec.metrics.base import Metric, Pixels
from diffusion_codec.metrics.remember import Remembering
from diffusion_codec.metrics.trunks import trunk


def _vgg16(weights: Any = None) -> SimpleNamespace:
    features = vgg16_features()
    features.load_state_dict(trunk("vgg").tensors, strict=True)
    return SimpleNamespace(features=features)


@lru_cache(maxsize=1)
def _network() -> Any:
    import torchmetrics.functional.image.dists as package  # seconds: only for those who measure DISTS

    supplied = {
        "_TORCHVISION_AVAILABLE": True,
        "vgg16": _vgg16,
        "VGG16_Weights": SimpleNamespace(DEFAULT=None),
    }
    before = {name: getattr(package, name, None) for name in supplied}
    try:
        vars(package).update(supplied)
        network = package.DISTSNetwork()
    finally:
        vars(package).update(before)
    network.requires_grad_(False).eval()
    remembering = Remembering(_Features(network))
    vars(network)["forward_once"] = remembering.forward
    return network


class _Features(torch.nn.Module):
    """The five stages of a DISTS network as a module: 1 x 3 x H x W in [0, 1] -> the picture and its features."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.look = network.forward_once

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = self.look(x)
        return found


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]  # 1 x 3 x H x W in [0, 1]


def _dists(original: Pixels, decoded: Pixels) -> float:
    with torch.inference_mode():
        return float(_network()(_tensor(original), _tensor(decoded)))


DISTS = Metric(
    "dists",
    "DISTS, VGG-16 (torchvision IMAGENET1K_V1), learned alpha and beta (torchmetrics), 8-bit sRGB scaled to "
    "[0, 1], full image without resizing",
    higher_is_better=False,
    min_side=32,
    compute=_dists,
)
