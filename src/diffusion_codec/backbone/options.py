"""How a backbone runs: precision, where its weights rest, how much of a picture it sees at once."""

from dataclasses import dataclass
from math import isqrt
from typing import Literal, NamedTuple, cast, get_args

import torch

from diffusion_codec.errors import BadInputError, LimitExceededError
from diffusion_codec.memory import parse_size

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
        max_memory: bytes that the process may hold (on a GPU: that its tensors may take there), or None for no bound.
            Tiles are made as small as that needs; the picture itself and its latent are reckoned in. Several pictures
            at once (:meth:`Backbone.share`) have equal parts.
    """

    precision: Precision = "float32"
    compiled: bool = False
    offload: bool = False
    low_memory: bool = False
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise BadInputError(f"precision {self.precision!r} is unknown; choose {known}")
        if self.max_memory is not None and not (isinstance(self.max_memory, int) and self.max_memory > 0):
            raise BadInputError(f"max_memory is {self.max_memory!r}, expected bytes above 0, or None")

    @property
    def dtype(self) -> torch.dtype:
        """The networks' number format; of ``auto`` that of all but the decoder."""
        dtype: torch.dtype = torch.float32 if self.precision == "auto" else getattr(torch, self.precision)
        return dtype


DEFAULT_RUN = RunOptions()

AUTO_TOLERANCE = 1.0
"""Levels of 255, root of the mean square: what ``auto`` may differ from float32."""


def run_options(
    precision: str,
    compiled: bool = False,
    offload: bool = False,
    low_memory: bool = False,
    max_memory: str | None = None,
) -> RunOptions:
    """The options as a user writes them; BadInputError for an unknown precision or what is no amount of memory."""
    allowed = None if max_memory is None else parse_size(max_memory)
    return RunOptions(cast(Precision, precision), compiled, offload, low_memory, allowed)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` is a CPU with instructions for products of bfloat16, and oneDNN, which uses them.

    They are AVX-512 BF16, AMX and ARM BF16.
    """
    if device.type != "cpu":
        return False
    there = hasattr(torch.cpu, "get_capabilities") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    known = torch.cpu.get_capabilities() if there else {}
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def trains_in_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are the fast ones on ``device``: a GPU, or a CPU of :func:`multiplies_bfloat16`."""
    return device.type == "cuda" or multiplies_bfloat16(device)


class Tiles(NamedTuple):
    """Sides and overlaps of tiles: of the autoencoder in pixels, of the denoiser in latent positions.

    ``bytes_per_pixel`` is the memory of one of the autoencoder's tiles, for each of its pixels; the denoiser's tiles
    take less.
    """

    pixels: int
    pixel_overlap: int
    latents: int
    latent_overlap: int
    bytes_per_pixel: int

    @property
    def least_memory(self) -> int:
        """Bytes that the networks hold at once with the smallest tiles."""
        return SMALLEST_TILE**2 * self.bytes_per_pixel

    def halved(self) -> "Tiles":
        """Half the side and half the overlap, about a quarter of the memory."""
        return self._of_side(self.pixels // 2)

    def within(self, memory: int) -> "Tiles":
        """Tiles no larger than these whose networks hold at most ``memory`` bytes at once.

        Raises:
            LimitExceededError: not even the smallest, of SMALLEST_TILE pixels a side, do.
        """
        side = isqrt(max(memory, 0) // self.bytes_per_pixel)
        if side >= self.pixels:
            return self
        if side < SMALLEST_TILE:
            lacking = self.least_memory - memory
            raise LimitExceededError(
                f"the memory allowed is too small for this picture: allow {-(-lacking // 2**20)} MiB more"
            )
        return self._of_side(side // TILE_STEP * TILE_STEP)

    def _of_side(self, side: int) -> "Tiles":
        pixels, pixel_overlap, latents, latent_overlap = (n * side // self.pixels for n in self[:4])
        return Tiles(pixels, pixel_overlap, latents, latent_overlap, self.bytes_per_pixel)


SMALLEST_TILE = 384
"""Pixels a side; in smaller ones the overlap would no longer hide the seams."""

TILE_STEP = 192
"""Tiles shrink in steps that keep all sides and overlaps whole multiples of what the networks need."""

SMALL_NETWORKS = Tiles(1024, 128, 256, 32, 1024)
"""Convolutions of a few channels, no attention."""

STABLE_DIFFUSION = Tiles(768, 96, 128, 16, 4096)
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
    if wanted.type not in ("cpu", "cuda", "mps"):
        try:
            torch.ones(1, device=wanted).cpu()
        except Exception as error:  # each kind fails in its own way
            raise BadInputError(
                f"{wanted} was asked for, and PyTorch {torch.__version__} cannot compute on it here: choose "
                "--device cpu"
            ) from error
    return wanted
