"""Image quality metrics, each with its protocol: name, network, weights, direction.

`get("psnr")(original, decoded)` on uint8 H x W x 3. LPIPS of different networks are different metrics, with
different names, and never share an axis.
"""

from functools import lru_cache, partial

import torch

from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics.base import Metric, MetricError, Pixels
from diffusion_codec.metrics.classical import MS_SSIM, PSNR
from diffusion_codec.metrics.dists import DISTS
from diffusion_codec.metrics.perceptual import PerceptualLoss, perceptual_loss
from diffusion_codec.metrics.psychovisual import BUTTERAUGLI, SSIMULACRA2, has_butteraugli
from diffusion_codec.metrics.remember import Remembering
from diffusion_codec.metrics.trunks import ARCHITECTURE, Net
from diffusion_codec.metrics.trunks import available as _trunk_is_here
from diffusion_codec.pixels import to_signed

__all__ = ["Metric", "MetricError", "PerceptualLoss", "can_measure", "get", "names", "perceptual_loss"]

# below about 35 pixels the deepest feature map of AlexNet is empty; the next power of two is safe for all
LPIPS_MIN_SIDE = 64


@lru_cache(maxsize=3)
def _network(net: Net) -> PerceptualLoss:
    loss = perceptual_loss(net)
    loss.lpips.net = Remembering(loss.lpips.net)
    return loss


def _lpips(net: Net, original: Pixels, decoded: Pixels) -> float:
    with torch.inference_mode():
        return float(_network(net)(to_signed(original), to_signed(decoded)))


def _lpips_metric(net: Net) -> Metric:
    protocol = (
        f"LPIPS v0.1, net {net} ({ARCHITECTURE[net]}, torchvision IMAGENET1K_V1), learned linear heads, "
        "8-bit sRGB scaled to [-1, 1], full image"
    )
    return Metric(f"lpips-{net}", protocol, False, LPIPS_MIN_SIDE, partial(_lpips, net))


_ALL = (PSNR, MS_SSIM, *map(_lpips_metric, ARCHITECTURE), DISTS, SSIMULACRA2, BUTTERAUGLI)
_METRICS = {metric.name: metric for metric in _ALL}

_NETS: dict[str, Net] = {f"lpips-{net}": net for net in ARCHITECTURE}


def names() -> tuple[str, ...]:
    """Names of all metrics."""
    return tuple(_METRICS)


def get(name: str) -> Metric:
    """The metric of that name. Raises BadInputError, which lists the names."""
    if name not in _METRICS:
        raise BadInputError(f"metric {name!r} is unknown; choose from {', '.join(_METRICS)}")
    return _METRICS[name]


def can_measure(name: str) -> bool:
    """Whether nothing has to be fetched or installed before the metric of that name can be measured."""
    get(name)
    if name == "butteraugli":
        return has_butteraugli()
    net: Net | None = "vgg" if name == "dists" else _NETS.get(name)
    return net is None or _trunk_is_here(net)
