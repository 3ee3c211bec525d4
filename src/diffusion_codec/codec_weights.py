"""What the codec learned: P_phi, the entropy model and its integer tables, as one safetensors file.

Numbers on the fixed-point grid are stored as integers (int16 weights, int32 biases). The fingerprint of a
.dfc file is the start of the SHA-256 of this file.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
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
from diffusion_codec.entropy.model import Context, EntropyModel, SideInformation
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.files import write_atomically
from diffusion_codec.parameter_estimation import ParameterEstimation
from diffusion_codec.undisturbed import undisturbed

DEFAULT = "paper-2025"
"""The best of those that ship (data/results/codec_choices.csv)."""

FINGERPRINT_BYTES = 4
MAX_BYTES = 2**28
MAX_ABOUT = 2**16
_STORED_TYPES = (torch.int16, torch.int32, torch.float16, torch.float32)
Network = TypeVar("Network", ParameterEstimation, EntropyModel)


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
    """The file of codec weights that ships with the package; ``default`` is :data:`DEFAULT`.

    Raises:
        MissingDataError: no such name; the message lists those there are.
    """
    embedded = _embedded()
    name = DEFAULT if name == "default" else name
    if name not in embedded:
        raise MissingDataError(
            f"no embedded codec weights {name!r}; embedded: {', '.join(['default', *embedded]) if embedded else 'none'}"
        )
    return embedded[name]


def find(name_or_file: str | Path) -> Path:
    """The file of codec weights of an embedded name, or that file itself.

    A file that is called like embedded weights is named with a separator, ``./default``.

    Raises:
        MissingDataError: neither; the message lists the names there are.
    """
    name, path = str(name_or_file), Path(name_or_file)
    is_name = isinstance(name_or_file, str) and name in ("default", *_embedded())
    return path if path.is_file() and not is_name else embedded_weights(name)


def of_fingerprint(fingerprint: bytes) -> CodecWeights:
    """The embedded weights a file was made with, read once: whoever asks for them shares them.

    Raises:
        BadInputError: none of them.
    """
    for path in _embedded().values():
        if _embedded_fingerprint(path) == fingerprint:
            return _embedded_once(path)
    raise BadInputError(
        f"the file was made with codec weights {fingerprint.hex()}, which this release does not have: use the "
        "release of diffusion-codec that made it, or name the weights' file (--codec-weights)"
    )


def _fingerprint(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()[:FINGERPRINT_BYTES]


@cache  # what ships with the package does not change
def _embedded_fingerprint(path: Path) -> bytes:
    return _fingerprint(path)


@cache
def _embedded_once(path: Path) -> CodecWeights:
    return load(path)


def save(
    path: Path,
    estimation: ParameterEstimation,
    entropy: EntropyModel,
    *,
    latent_space: str,
    variant: str,
    dithered: bool = False,
) -> None:
    """Write ``path``, whole or not at all; probability tables are computed here, once.

    Raises:
        OutputError: it cannot be written.
    """
    state = {f"parameter_estimation.{k}": v.half() for k, v in estimation.state_dict().items()}
    grid = _grid_parameters(entropy)
    for name, value in entropy.state_dict().items():
        if name in grid:
            bits, limit = grid[name]
            value = (on_grid(value.double(), bits, limit) * 2**bits).to(
                torch.int16 if bits == WEIGHT_BITS else torch.int32
            )
        else:
            value = value.float()
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
    data = safetensors.torch.save({k: v.contiguous() for k, v in state.items()}, {"about": json.dumps(about)})
    write_atomically(path, data, force=True)


@torch.inference_mode(False)
@undisturbed
def load(path: Path) -> CodecWeights:
    """Read a file :func:`save` wrote, trusting nothing in it: shapes are compared before a network is made.

    Raises:
        BadInputError: not such a file, or parts of it missing, of other shapes, not finite or no probabilities.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        with safe_open(path, "pt") as file:
            about = _About.model_validate_json((file.metadata() or {}).get("about", "")[:MAX_ABOUT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        estimation = _filled(
            ParameterEstimation, about.parameter_estimation, tensors, "parameter_estimation."
        )
        entropy = _filled(EntropyModel, about.entropy.model_dump(), tensors, "entropy.")
        coder = LatentCoder(entropy, *_checked_tables(tensors, entropy))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BadInputError(f"{path} does not hold codec weights: {error}") from error
    estimation.eval().requires_grad_(False)
    return CodecWeights(
        estimation, coder, _fingerprint(path), about.latent_space, about.variant, about.dithered
    )


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Width = Annotated[int, Field(ge=1, le=4096)]
HyperPlanes = Annotated[int, Field(ge=0, le=4096)]
Kernel = Literal[1, 3, 5, 7, 9, 11, 13, 15]
EnergyKernel = Literal[0, 1, 3, 5, 7, 9, 11, 13, 15]


class _EntropyShape(_Closed):
    """The entropy model's arguments; what no tensor's shape bounds is bounded here."""

    width: Width
    hyper_channels: HyperPlanes
    hyper_features: HyperPlanes
    context: Context = "checkerboard"
    kernel: Kernel = 5
    energy: EnergyKernel = 0


class _About(_Closed):
    """The metadata of the file."""

    parameter_estimation: dict[str, bool]
    entropy: _EntropyShape
    latent_space: str
    variant: str
    dithered: bool = False


def _filled(
    network: type[Network], config: dict[str, Any], tensors: dict[str, Tensor], prefix: str
) -> Network:
    """The network of ``config`` with the tensors under ``prefix``; ValueError if they do not fit it exactly."""
    with torch.device("meta"):  # a size that the file only claims costs nothing, and no number is drawn
        filled = network(**config)
    shapes = {name: value.shape for name, value in filled.state_dict().items()}
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    odd = sorted(k for k, v in found.items() if v.dtype not in _STORED_TYPES)
    if odd:
        raise ValueError(f"{prefix}{odd[0]} is of type {found[odd[0]].dtype}")
    wrong = sorted(
        k for k in shapes.keys() | found.keys() if k not in found or found[k].shape != shapes.get(k)
    )
    if wrong:
        raise ValueError(
            f"{prefix}{wrong[0]} is missing, unexpected or of another shape than its metadata say"
        )
    if isinstance(filled, EntropyModel):
        found = _off_grid({k: v.double() for k, v in found.items()}, filled)
    else:
        found = {k: v.float() for k, v in found.items()}
    for name, value in found.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{prefix}{name} has values that are not finite")
    filled.load_state_dict(found, assign=True)
    return filled


def _checked_tables(
    tensors: dict[str, Tensor], entropy: EntropyModel
) -> tuple[np.ndarray, np.ndarray | None]:
    """The stored probability tables; ValueError unless every row has positive integers that sum to 2^22.

    Levels and reach of the Gaussian tables are the file's own choice.
    """
    names = ["tables.gaussian", *(["tables.hyper"] if entropy.hyperprior is not None else [])]
    found = {name: tensors[name] for name in tensors if name.startswith("tables.")}
    if sorted(found) != names:
        raise ValueError(f"its tables are {sorted(found)}, expected {names}")
    for name, table in found.items():
        rows = table.long()
        if table.dtype != torch.int32 or not _is_shaped(name, tuple(table.shape), entropy):
            raise ValueError(f"{name} is {table.dtype} {list(table.shape)}, which no encoder writes")
        if int(rows.min()) < 1 or not bool((rows.sum(-1) == tables.TOTAL).all()):
            raise ValueError(f"{name} does not hold positive frequencies that sum to {tables.TOTAL}")
    hyper = found.get("tables.hyper")
    return found["tables.gaussian"].numpy(), None if hyper is None else hyper.numpy()


def _is_shaped(name: str, shape: tuple[int, ...], entropy: EntropyModel) -> bool:
    if name == "tables.hyper":
        return entropy.hyperprior is not None and shape == tuple(entropy.hyperprior.logits.shape)
    if len(shape) != 3:
        return False
    levels, fractions, symbols = shape
    return 1 <= levels <= 1024 and fractions == tables.MEAN_FRACTIONS and symbols >= 4 and symbols % 2 == 0


def _grid_parameters(entropy: EntropyModel) -> dict[str, tuple[int, float]]:
    """Bits after the point and bound of every fixed-point parameter."""
    grid: dict[str, tuple[int, float]] = {}
    for name, module in entropy.named_modules():
        if isinstance(module, FixedPointConv2d):
            # a hair below the bound: +8 itself does not fit int16
            grid[f"{name}.weight"] = (WEIGHT_BITS, WEIGHT_LIMIT - 2.0**-WEIGHT_BITS)
            grid[f"{name}.bias"] = (WEIGHT_BITS + ACTIVATION_BITS, ACTIVATION_LIMIT)
    return grid


def _off_grid(state: dict[str, Tensor], entropy: EntropyModel) -> dict[str, Tensor]:
    grid = _grid_parameters(entropy)
    return {k: v / 2 ** grid[k][0] if k in grid else v for k, v in state.items()}
