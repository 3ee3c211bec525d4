"""LPIPS v0.1 (Zhang et al., CVPR 2018, arXiv 1801.03924), with or without torchvision.

The `lpips` package brings the code and the learned linear heads. It asks torchvision for the backbones;
where no working torchvision is installed, the layers of `backbones.py` stand in while it is imported. The
backbones' weights are always loaded here, from a file whose hash is known, so that every machine measures
the same distance.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_codec.errors import BadInputError, MissingDataError, how_to_install
from diffusion_codec.metrics.backbones import FEATURES
from diffusion_codec.metrics.trunks import Net, trunk

_IMPORTING = threading.Lock()
PLACES = 8
"""Pixels by which a picture may be shifted, none included: as many as the stride of the decoders."""


def _torchvision_works() -> bool:
    """Whether torchvision can be imported (a wheel built for another torch raises RuntimeError)."""
    try:
        importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError, AttributeError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


def _stand_in() -> dict[str, ModuleType]:
    """`torchvision` and `torchvision.models` with nothing but the functions lpips calls."""

    def build(make: Callable[[], nn.Sequential]) -> Callable[..., SimpleNamespace]:
        return lambda pretrained=False: SimpleNamespace(features=make())

    package, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    for name, make in FEATURES.items():
        setattr(models, name, build(make))
    package.models = models  # type: ignore[attr-defined]
    return {"torchvision": package, "torchvision.models": models}


@contextmanager
def _importable_torchvision() -> Iterator[None]:
    """Make `from torchvision import models` work for one import, then leave `sys.modules` as it was."""
    if _torchvision_works():
        yield
        return
    names = _stand_in()
    sys.modules.update(names)
    try:
        yield
    finally:
        # diffusers and transformers look for torchvision too and must not find this one
        for name in names:
            sys.modules.pop(name, None)


@lru_cache(maxsize=1)
def _lpips_package() -> Any:
    with _IMPORTING, _importable_torchvision():
        try:
            return importlib.import_module("lpips")
        except ImportError as error:
            raise MissingDataError(
                f"the Python package lpips is needed for LPIPS and cannot be imported ({error}); "
                f"{how_to_install('evaluation')}"
            ) from error


def _load_trunk(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into lpips' slices, which keep the layer's index in `features` as its name."""
    own = module.state_dict()
    named = {name: weights[name.split(".", 1)[1]].clone() for name in own}  # slice2.3.weight <- 3.weight
    module.load_state_dict(named, strict=True, assign=True)


def _load_heads(model: Any, package: Any, net: Net) -> None:
    path = Path(package.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    heads = torch.load(path, map_location="cpu", weights_only=True)
    wanted = {f"lin{i}.model.1.weight" for i in range(len(model.chns))}
    if set(heads) != wanted:
        raise BadInputError(f"{path.name} does not hold the LPIPS v0.1 heads of net {net!r}; reinstall lpips")
    model.load_state_dict(heads, strict=False, assign=True)  # the trunk is loaded by _load_trunk


class PerceptualLoss(nn.Module):
    """LPIPS as a frozen, differentiable module: gradients reach the images, never the network."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        package = _lpips_package()
        self.net = net
        with torch.device("meta"):  # every number is read below: none is drawn
            self.lpips = package.LPIPS(
                pretrained=False, net=net, version="0.1", pnet_rand=True, verbose=False
            )
        with torch.random.fork_rng(devices=[]):  # it compares them with networks that do draw theirs
            weights = trunk(net)
        self.tensors_sha256 = weights.tensors_sha256
        _load_trunk(self.lpips.net, weights.tensors)
        _load_heads(self.lpips, package, net)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Stay in evaluation mode whatever the module around this one does: the heads hold dropout."""
        return super().train(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of two batches, N x 3 x H x W in [-1, 1] -> N."""
        distance: Tensor = self.lpips(a, b)
        return distance.flatten()


def perceptual_loss(net: Net = "squeeze") -> PerceptualLoss:
    """LPIPS v0.1 for training and measuring: frozen, float32, on the CPU until moved.

    Takes two N x 3 x H x W tensors in [-1, 1], returns N distances (0 = same). H and W of 64 or more are
    safe for every net. Raises MissingDataError where the backbone's weights cannot be had.
    """
    if net not in get_args(Net):
        raise BadInputError(f"LPIPS net {net!r} is unknown; choose one of {', '.join(get_args(Net))}")
    return PerceptualLoss(net)


def seen_otherwise(a: Tensor, b: Tensor, drawn: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Two batches of pictures, N x 3 x H x W, under one transformation made of four random numbers in [0, 1).

    Cut by up to PLACES - 1 pixels above and on the left, turned over the diagonal or not, resized to between 2^-1/2 and
    2^1/2 of the size. A network of fixed strides has patterns that it hardly sees; a decoder trained by it learns to
    leave them everywhere, unless the network sees the pictures at other places and sizes, too (E-LPIPS, Kettunen et
    al., 2019, arXiv 1906.03973).
    """
    down, right = (int(u * PLACES) for u in drawn[:2])
    both = torch.cat([a, b])[..., down:, right:]
    if drawn[2] < 0.5:
        both = both.mT
    sides = [round(side * 2 ** (drawn[3] - 0.5)) for side in both.shape[-2:]]
    one, other = F.interpolate(both, size=sides, mode="bilinear", antialias=True).chunk(2)
    return one, other
