"""How a backbone runs: precision, where its weights rest, how much of a picture it sees at once."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import torch

from diffusion_codec.errors import BadInputError

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class RunOptions:
    """What may differ between two machines that decode the same file.

    Args:
        precision: of the two networks; latents, noise levels and the codec's own networks stay float32. ``auto`` is
            float32, except for the decoder of a tiny autoencoder on a CPU that multiplies bfloat16 natively: files
            are the same, pixels agree within :data:`AUTO_TOLERANCE`.
        compiled: compile both networks with ``torch.compile``: minutes once, then faster on a GPU.
        offload: keep on the device only the network that works, the other one in main memory.
        low_memory: tiles of half the side, attention in slices, one picture of a batch at a time.
    """

    precision: Precision = "float32"
    compiled: bool = False
    offload: bool = False
    low_memory: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The networks' number format; of ``auto`` that of all but the decoder."""
        dtype: torch.dtype = torch.float32 if self.precision == "auto" else getattr(torch, self.precision)
        return dtype


DEFAULT_RUN = RunOptions()

AUTO_TOLERANCE = 1.0
"""Levels of 255, root of the mean square: what ``auto`` may differ from float32."""


def run_options(precision: str, compiled: bool, offload: bool, low_memory: bool) -> RunOptions:
    """The options as a user writes them; BadInputError for an unknown precision."""
    if precision not in get_args(Precision):
        raise BadInputError(f"precision {precision!r} is unknown; choose {', '.join(get_args(Precision))}")
    return RunOptions(cast(Precision, precision), compiled, offload, low_memory)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` is a CPU with instructions for products of bfloat16 (AVX-512 BF16, AMX, ARM BF16)."""
    if device.type != "cpu":
        return False
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class Tiles(NamedTuple):
    """Sides and overlaps of tiles: of the autoencoder in pixels, of the denoiser in latent positions."""

    pixels: int
    pixel_overlap: int
    latents: int
    latent_overlap: int

    def halved(self) -> "Tiles":
        """Half the side and half the overlap, about a quarter of the memory."""
        return Tiles(*(side // 2 for side in self))


SMALL_NETWORKS = Tiles(1024, 128, 256, 32)
"""Convolutions of a few channels, no attention."""

STABLE_DIFFUSION = Tiles(768, 96, 128, 16)
"""AutoencoderKL's widest layers hold 256 numbers a pixel, and attention grows with the square of the area."""


def checked_device(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises:
        BadInputError: no such kind of device, or none of that number here.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise BadInputError(f"{device!r} is no device; known: cpu, cuda, cuda:1, mps") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            f"{wanted} was asked for, and this machine has no GPU that PyTorch {torch.__version__} can use: "
            "choose --device cpu, or install a build of PyTorch for your GPU"
        )
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise BadInputError(f"{wanted} was asked for; this machine has {torch.cuda.device_count()} GPUs")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise BadInputError("mps was asked for, and this machine has no such GPU: choose --device cpu")
    return wanted
