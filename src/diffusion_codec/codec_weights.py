"""What the codec learned: P_phi, the entropy model and its integer tables, as one safetensors file.

Numbers on the fixed-point grid are stored as integers (int16 weights, int32 biases). The fingerprint of a
.dfc file is the start of the SHA-256 of this file.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusion_codec.entropy import tables
from diffusion_codec.entropy.coder import LatentCoder, Streams
from diffusion_codec.entropy.fixed_point import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    WEIGHT_BITS,
    WEIGHT_LIMIT,
    FixedPointConv2d,
    on_grid,
)
from diffusion_codec.entropy.model import EntropyModel, SideInformation
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.parameter_estimation import ParameterEstimation

FINGERPRINT_BYTES = 4


@dataclass(frozen=True)
class CodecWeights:
    """The trained parts of the codec.

    ``fingerprint`` is the start of the file's SHA-256; ``latent_space`` names the backbones it serves;
    ``variant`` says which published choice it makes. ``dithered`` weights are trained for universal quantisation:
    the dither moves the means the coder expects.
    """

    parameter_estimation: ParameterEstimation
    latent_coder: LatentCoder
    fingerprint: bytes
    latent_space: str
    variant: str
    dithered: bool = False

    def encode(self, z_hat: Tensor, side: SideInformation, dither: Tensor) -> Streams:
        """Streams of integers (4, h, w) rounded with ``dither`` of the same shape."""
        return self.latent_coder.encode(z_hat, side, dither if self.dithered else None)

    def decode(
        self, streams: Streams, size: tuple[int, int], side: SideInformation, dither: Tensor
    ) -> Tensor:
        """The integers of :meth:`encode`."""
        return self.latent_coder.decode(streams, size, side, dither if self.dithered else None)


def _embedded() -> dict[str, Path]:
    folder = Path(str(resources.files("diffusion_codec"))) / "weights" / "codec"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def embedded_weights(name: str = "default") -> Path:
    """The file of codec weights that ships with the package.

    Raises:
        MissingDataError: no such name; the message lists those there are.
    """
    embedded = _embedded()
    if name not in embedded:
        raise MissingDataError(
            f"no embedded codec weights {name!r}; embedded: {', '.join(embedded) or 'none'}"
        )
    return embedded[name]


def of_fingerprint(fingerprint: bytes) -> CodecWeights:
    """The embedded weights a file was made with.

    Raises:
        BadInputError: none of them.
    """
    for path in _embedded().values():
        if _fingerprint(path) == fingerprint:
            return load(path)
    raise BadInputError(
        f"the file was made with codec weights {fingerprint.hex()}, which this release does not have: use the "
        "release of diffusion-codec that made it, or name the weights' file"
    )


def _fingerprint(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()[:FINGERPRINT_BYTES]


def save(
    path: Path,
    estimation: ParameterEstimation,
    entropy: EntropyModel,
    *,
    latent_space: str,
    variant: str,
    dithered: bool = False,
) -> None:
    """Write ``path``; probability tables are computed here, once."""
    state = {f"parameter_estimation.{k}": v.half() for k, v in estimation.state_dict().items()}
    grid = _grid_parameters(entropy)
    for name, value in entropy.state_dict().items():
        if name in grid:
            bits, limit = grid[name]
            value = (on_grid(value.double(), bits, limit) * 2**bits).to(
                torch.int16 if bits == WEIGHT_BITS else torch.int32
            )
        state[f"entropy.{name}"] = value
    state["tables.gaussian"] = torch.from_numpy(tables.gaussian_tables())
    if entropy.hyperprior is not None:
        probabilities = entropy.hyperprior.logits.detach().double().softmax(-1).numpy()
        state["tables.hyper"] = torch.from_numpy(tables.integer_frequencies(probabilities).astype(np.int32))
    about = {
        "parameter_estimation": estimation.config,
        "entropy": entropy.config,
        "latent_space": latent_space,
        "variant": variant,
        "dithered": dithered,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # one entry: safetensors writes several in an order of its own, and the fingerprint would change with it
    save_file({k: v.contiguous() for k, v in state.items()}, path, {"about": json.dumps(about)})


def load(path: Path) -> CodecWeights:
    """Read a file :func:`save` wrote.

    Raises:
        BadInputError: not such a file, or tensors missing or of other shapes.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        estimation = ParameterEstimation(**about["parameter_estimation"])
        estimation.load_state_dict(_part(tensors, "parameter_estimation.", torch.float32))
        entropy = EntropyModel(**about["entropy"]).double()
        entropy.load_state_dict(_off_grid(_part(tensors, "entropy.", torch.float64), entropy))
        gaussian = tensors["tables.gaussian"].numpy()
        hyper = tensors["tables.hyper"].numpy() if "tables.hyper" in tensors else None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BadInputError(f"{path} does not hold codec weights: {error}") from error
    coder = LatentCoder(entropy, gaussian, hyper)
    estimation.eval().requires_grad_(False)
    return CodecWeights(
        estimation,
        coder,
        _fingerprint(path),
        about["latent_space"],
        about["variant"],
        about.get("dithered", False),
    )


def _grid_parameters(entropy: EntropyModel) -> dict[str, tuple[int, float]]:
    """Bits after the point and bound of every fixed-point parameter."""
    grid: dict[str, tuple[int, float]] = {}
    for name, module in entropy.named_modules():
        if isinstance(module, FixedPointConv2d):
            # a hair below the bound: +8 itself does not fit int16
            grid[f"{name}.weight"] = (WEIGHT_BITS, WEIGHT_LIMIT - 2.0**-WEIGHT_BITS)
            grid[f"{name}.bias"] = (WEIGHT_BITS + ACTIVATION_BITS, ACTIVATION_LIMIT)
    return grid


def _part(tensors: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> dict[str, Any]:
    return {k.removeprefix(prefix): v.to(dtype) for k, v in tensors.items() if k.startswith(prefix)}


def _off_grid(state: dict[str, Tensor], entropy: EntropyModel) -> dict[str, Tensor]:
    grid = _grid_parameters(entropy)
    return {k: v / 2 ** grid[k][0] if k in grid else v for k, v in state.items()}
