"""The codec on one page: the paper's pipeline in the paper's symbols.

x --E--> y --affine--> z --round--> z_hat --coder--> file --coder--> z_hat --inverse--> y_hat --DDIM--> y_0 --D--> x_hat
         |                ^                                               ^                ^
         +--P_phi(y, lambda): gamma = (alpha, beta) ----------------------+, and t --------+
"""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_codec import bitstream, codec_weights, quantization
from diffusion_codec.backbone import DEFAULT_RUN, STRIDE, Backbone, RunOptions
from diffusion_codec.bitstream import DEFAULT_LIMITS, DfcFile, Header, Limits
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.entropy.coder import Streams
from diffusion_codec.entropy.model import CHANNELS, SideInformation
from diffusion_codec.errors import BadInputError, reports_memory
from diffusion_codec.parameter_estimation import LOG2_LAMBDA_RANGE
from diffusion_codec.undisturbed import undisturbed

DEFAULT_STEPS = 3
FIDELITY_STEPS = 10
"""Steps of the realistic end of the dial."""

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in a grey picture (BT.601)."""
STRIP = 16
"""Rows of a picture whose luma is reckoned at once: its sums take eight times the memory of bytes."""
SIZE_TOLERANCE = 0.005
QUALITY_TOLERANCE = 0.02


class UnreachableSizeError(BadInputError):
    """Even the smallest file of a picture is larger than what was asked for."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """y = E(x), (1, 4, ceil(H/8), ceil(W/8)), of a picture, its shape (H, W, 3), and the seconds that took."""

    y: Tensor
    shape: tuple[int, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Compressed:
    """A file's bytes, the SHA-256 of its integer latent, and where the time went (seconds by stage)."""

    data: bytes
    symbols_sha256: str
    seconds: dict[str, float]
    quality: float


@dataclass(frozen=True, eq=False)
class Decompressed:
    """uint8 pixels (H, W, 3), the SHA-256 of the integer latent, and where the time went."""

    pixels: np.ndarray
    grayscale: bool
    symbols_sha256: str
    seconds: dict[str, float]


@dataclass
class Stopwatch:
    """Seconds by stage; waits for a GPU before it reads the clock."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to the stage ``name``."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def lambda_of(quality: float) -> float:
    """The trade-off lambda of quality 0..100: 1 to 2^18, equal steps in log lambda."""
    low, high = LOG2_LAMBDA_RANGE
    return float(2.0 ** (low + (high - low) * quality / 100))


def _between(small: Compressed, large: Compressed | None, max_bytes: int) -> float:
    """The next quality to try: log size is nearly linear in quality; kept inside the bracket."""
    if large is None:
        return (small.quality + 100.0) / 2
    below, wanted, above = (math.log(v) for v in (len(small.data), max_bytes, len(large.data)))
    part = (wanted - below) / (above - below) - 0.01
    return small.quality + (large.quality - small.quality) * min(max(part, 0.1), 0.9)


class Codec:
    """Compress photographs to ``.dfc`` files and back.

    Args:
        backbone: the frozen latent diffusion model, where it is to stay: a later :meth:`Backbone.place` does not move
            P_phi.
        weights: P_phi and entropy model. P_phi is copied, so that codecs on several devices may share them.

    Raises:
        BadInputError: the weights were made for another latent space than the backbone's.
    """

    def __init__(self, backbone: Backbone, weights: CodecWeights):
        if backbone.latent_space != weights.latent_space:
            raise BadInputError(
                f"the codec weights work in the latent space {weights.latent_space!r}; "
                f"backbone {backbone.name!r} speaks {backbone.latent_space!r}"
            )
        self.backbone, self.weights = backbone, weights
        self.p_phi = copy.deepcopy(weights.parameter_estimation).to(backbone.device)

    @classmethod
    @torch.inference_mode(False)  # or refinement could never follow a gradient through it
    @undisturbed
    def from_pretrained(
        cls,
        backbone: str | Path = "mini",
        weights: str | Path = "default",
        device: str | torch.device = "cpu",
        run: RunOptions = DEFAULT_RUN,
    ) -> "Codec":
        """The codec on a backbone by name or folder, as :meth:`Backbone.from_pretrained` finds it.

        ``weights`` are those it compresses with: embedded by name, or a file. It decompresses files made with any
        embedded ones.
        """
        loaded = codec_weights.load(codec_weights.find(weights))
        return cls(Backbone.from_pretrained(backbone, device, run), loaded)

    @reports_memory
    @torch.inference_mode()
    @undisturbed
    def analyse(self, pixels: np.ndarray) -> Analysis:
        """What files of every size of ``pixels``, uint8 (H, W, 3), start from; the longest part of compressing.

        Raises:
            BadInputError: pixels of another type or shape, or more than the limits allow.
        """
        _check_pixels(pixels)
        DEFAULT_LIMITS.check_size(pixels.shape[1], pixels.shape[0])  # or nobody could read the file
        watch = Stopwatch(self.backbone.device)
        with watch.stage("encode"):  # the border is repeated up to a multiple of 8
            y = self.backbone.encode(_from_pixels(pixels).to(self.backbone.device))
        return Analysis(y, pixels.shape, watch.seconds)

    @reports_memory
    @torch.inference_mode()
    @undisturbed
    def compress(
        self,
        picture: np.ndarray | Analysis,
        quality: float = 50.0,
        *,
        grayscale: bool = False,
        dither_seed: int | None = None,
    ) -> Compressed:
        """The file of a picture, uint8 (H, W, 3) or what :meth:`analyse` made of it, at ``quality`` 0..100.

        With ``dither_seed`` (0..65535) quantisation is universal: both sides draw the same dither from the seed.
        Weights trained for it draw from seed 0 where none is given.

        Raises:
            BadInputError: pixels of another type or shape, or more than the limits allow; another quality.
        """
        if not 0 <= quality <= 100:
            raise BadInputError(f"quality {quality:g} is outside 0 to 100")
        analysis, watch = self._begin(picture)
        return self._encode(analysis, quality, grayscale, watch, dither_seed)

    @reports_memory
    @torch.inference_mode()
    @undisturbed
    def compress_to_size(
        self,
        picture: np.ndarray | Analysis,
        max_bytes: int,
        *,
        grayscale: bool = False,
        dither_seed: int | None = None,
    ) -> Compressed:
        """The best file of at most ``max_bytes`` bytes of a picture as in :meth:`compress`, by bisection on real files.

        Raises:
            UnreachableSizeError: even the lowest quality needs more, the message says how much.
            BadInputError: as :meth:`compress`.
        """
        analysis, watch = self._begin(picture)

        def at(quality: float) -> Compressed:
            return self._encode(analysis, quality, grayscale, watch, dither_seed)

        best = at(0.0)
        if not len(best.data) <= max_bytes:  # nor is it that of not-a-number
            area = analysis.shape[0] * analysis.shape[1]
            raise UnreachableSizeError(
                f"{max_bytes} bytes cannot be reached; this picture needs at least {len(best.data)} bytes "
                f"({8 * len(best.data) / area:.4f} bits per pixel)"
            )
        too_large: Compressed | None = None
        while len(best.data) < max_bytes * (1 - SIZE_TOLERANCE):
            quality = _between(best, too_large, max_bytes)
            if quality - best.quality < QUALITY_TOLERANCE:
                break
            trial = at(quality)
            if len(trial.data) > max_bytes:
                too_large = trial
            else:
                best = trial
        return Compressed(best.data, best.symbols_sha256, dict(watch.seconds), best.quality)

    @reports_memory
    @torch.inference_mode()
    @undisturbed
    def decompress(
        self,
        data: bytes | bytearray | memoryview,
        steps: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        fidelity: float | None = None,
        seed: int | None = None,
    ) -> Decompressed:
        """The photograph of a ``.dfc`` file.

        Args:
            steps: DDIM steps; None for the default, 0 decodes the dequantised latent as it is.
            limits: sizes and steps above these are refused before anything is allocated.
            fidelity: 0 (conservative: blurs what it does not know) to 1 (realistic: invents it), see
                :meth:`_reverse`; None for the ordinary reverse process.
            seed: of another latent that the same file stands for: y_hat moved within its quantisation cell by
                step * U(-1/2, 1/2). What changes from seed to seed is not in the file. None does not move it.

        Raises:
            BadInputError: a damaged or foreign file, one made with other codec weights, or one above the limits; a
                fidelity outside 0 to 1, or one with fewer than 2 steps.
            OutOfMemoryError: the machine cannot hold the picture.
        """
        watch = Stopwatch(self.backbone.device)
        if steps is None:
            steps = DEFAULT_STEPS if fidelity is None else FIDELITY_STEPS
        limits.check_steps(steps)
        file = bitstream.read(data, limits)
        header = file.header
        with watch.stage("entropy"):
            z_hat = self.symbols(file)
        y_hat, t = self._dequantise(z_hat if seed is None else _moved(z_hat, seed), header)
        with watch.stage("denoise"):
            y_0 = self._reverse(y_hat, t, steps, fidelity)
        with watch.stage("decode"):
            levels = self.backbone.decode(y_0, finish=_to_levels)
            decoded = _to_pixels(levels, header.height, header.width)
        if header.grayscale:
            decoded = _to_gray(decoded)
        return Decompressed(decoded, header.grayscale, symbols_sha256(z_hat), watch.seconds)

    @reports_memory
    @torch.inference_mode()
    @undisturbed
    def autoencode(self, picture: np.ndarray | Analysis) -> np.ndarray:
        """D(E(x)) without quantisation, uint8 (H, W, 3) of the same: no mean of files measured was better."""
        analysis, _ = self._begin(picture)
        return _to_pixels(self.backbone.decode(analysis.y, finish=_to_levels), *analysis.shape[:2])

    def _begin(self, picture: np.ndarray | Analysis) -> tuple[Analysis, Stopwatch]:
        """The analysis of a picture, made where it is not given, and a watch that has counted it."""
        analysis = picture if isinstance(picture, Analysis) else self.analyse(picture)
        return analysis, Stopwatch(self.backbone.device, dict(analysis.seconds))

    def _encode(
        self,
        analysis: Analysis,
        quality: float,
        grayscale: bool,
        watch: Stopwatch,
        dither_seed: int | None = None,
    ) -> Compressed:
        if dither_seed is None and self.weights.dithered:
            dither_seed = 0
        with watch.stage("parameters"):
            y = analysis.y
            lambda_ = torch.tensor([lambda_of(quality)], dtype=torch.float32, device=y.device)
            alpha, beta, t = self.p_phi(y, lambda_)
            a, b = quantization.alpha_to_index(alpha), quantization.beta_to_index(beta)
            timestep = t.round().clamp(0, bitstream.MAX_TIMESTEP)
            header = Header(
                width=analysis.shape[1],
                height=analysis.shape[0],
                weights_fingerprint=self.weights.fingerprint,
                timestep=int(timestep),
                alpha=tuple(int(v) for v in a[0]),  # type: ignore[arg-type]
                beta=tuple(int(v) for v in b[0]),  # type: ignore[arg-type]
                dither_seed=dither_seed,
                grayscale=grayscale,
            )
            z_hat = in_steps(y, header).round().long()
        with watch.stage("entropy"):
            data = self.pack(z_hat, header)
        return Compressed(data, symbols_sha256(z_hat), dict(watch.seconds), quality)

    @undisturbed
    def pack(self, z_hat: Tensor, header: Header) -> bytes:
        """The file of integers z_hat, int64 (4, h, w), under ``header``, made with these codec weights."""
        dither = dither_of(header, z_hat.shape)
        streams = self.weights.encode(z_hat, side_information(header), dither)
        latent = streams.latent or b"\0"  # trailing zeros mean nothing; a stream is never empty
        return bitstream.write(DfcFile(header, streams.hyper, latent))

    @undisturbed
    def symbols(self, file: DfcFile) -> Tensor:
        """z_hat of a file, integers (4, h, w): the same on every machine, whatever the backbone."""
        header = file.header
        weights = self.weights
        if header.weights_fingerprint != weights.fingerprint:
            weights = codec_weights.of_fingerprint(header.weights_fingerprint)
        size = (-(-header.height // STRIDE), -(-header.width // STRIDE))
        streams = Streams(file.hyper, file.latent)
        dither = dither_of(header, torch.Size((CHANNELS, *size)))
        return weights.decode(streams, size, side_information(header), dither)

    def _reverse(self, y_hat: Tensor, t: Tensor, steps: int, fidelity: float | None) -> Tensor:
        """y_0 of the reverse process; with a fidelity, y_1 + fidelity (y_N - y_1) between 1 and N = ``steps`` steps.

        One step is the denoiser's estimate of the mean of all latents the file may stand for, many steps lead
        to one of them. The line between an estimator of least error and one of full realism is the optimal
        trade between the two (Freirich, Michaeli and Meir 2021), as far as those two are what they should be.
        """
        if fidelity is None:
            return self.backbone.denoise(y_hat, t, steps)
        if not 0 <= fidelity <= 1 or steps < 2:
            raise BadInputError(
                f"fidelity {fidelity:g} with {steps} steps; expected 0 to 1 and 2 steps or more"
            )
        y_1, y_n = (self.backbone.denoise(y_hat, t, count) for count in (1, steps))
        return torch.lerp(y_1, y_n, fidelity)

    def _dequantise(self, z_hat: Tensor, header: Header) -> tuple[Tensor, Tensor]:
        """y_hat, (1, 4, h, w), and t, (1,), where the backbone works."""
        device = self.backbone.device
        t = torch.tensor([header.timestep], dtype=torch.float32, device=device)
        return dequantise(z_hat, header).to(device), t


def in_steps(y: Tensor, header: Header) -> Tensor:
    """Latents y, (1, 4, h, w), in quantisation steps with dither, (4, h, w) on the CPU: rounded they are z_hat."""
    alpha, beta = (part.to(y.device) for part in _gamma(header))
    z = quantization.affine(y, alpha, beta)[0].cpu()
    return z + dither_of(header, z.shape)


def dequantise(z_hat: Tensor, header: Header) -> Tensor:
    """y_hat = (z_hat - dither - beta) / alpha, (1, 4, h, w), of z_hat (4, h, w)."""
    z = z_hat.float() - dither_of(header, z_hat.shape)
    return quantization.inverse_affine(z[None], *_gamma(header))


def _gamma(header: Header) -> tuple[Tensor, Tensor]:
    """alpha and beta, (1, 4) each."""
    alpha = quantization.alpha_from_index(torch.tensor([header.alpha]))
    return alpha, quantization.beta_from_index(torch.tensor([header.beta]))


def dither_of(header: Header, shape: torch.Size) -> Tensor:
    """The dither of :func:`diffusion_codec.quantization.shared_dither`, or zeros without a seed."""
    seed = header.dither_seed
    if seed is None:
        return torch.zeros(shape, dtype=torch.float32)
    if not 0 <= seed < bitstream.SEED_LEVELS:
        raise BadInputError(f"dither seed is {seed}, expected 0 to {bitstream.SEED_LEVELS - 1}")
    return torch.from_numpy(quantization.shared_dither(seed, tuple(shape)))


def _moved(z_hat: Tensor, seed: int) -> Tensor:
    """z_hat moved within the cells of quantisation: one of the latents that all give the same file."""
    if seed < 0:
        raise BadInputError(f"seed is {seed}, expected 0 or more")
    # beyond all seeds of files: the draw must not undo a file's own dither
    draw = quantization.shared_dither(bitstream.SEED_LEVELS + seed, tuple(z_hat.shape))
    return z_hat.float() + torch.from_numpy(draw)


def side_information(header: Header) -> SideInformation:
    """What the entropy model is told of the header."""
    return SideInformation(torch.tensor([header.alpha]), torch.tensor([header.timestep]))


def _check_pixels(pixels: np.ndarray) -> None:
    kind, shape = getattr(pixels, "dtype", type(pixels).__name__), tuple(getattr(pixels, "shape", ()))
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise BadInputError(f"expected uint8 pixels of shape (H, W, 3), got {kind} {shape}")


def _from_pixels(pixels: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> uint8 (1, 3, H', W'), the border repeated up to multiples of 8."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1)[None]


def _to_levels(x: Tensor) -> Tensor:
    """Decoded values in about -1..1 -> uint8, in place as far as it goes: a large picture fills memory."""
    if not torch.isfinite(x).all():
        raise BadInputError(
            "the file's latent is so large that this model makes no picture of it: no encoder writes such"
        )
    return x.add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def _to_pixels(levels: Tensor, height: int, width: int) -> np.ndarray:
    """uint8 (1, 3, H', W') -> uint8 (height, width, 3)."""
    pixels: np.ndarray = levels[0, :, :height, :width].permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def _to_gray(pixels: np.ndarray) -> np.ndarray:
    """Luma of BT.601 in all three channels, by strips of rows."""
    weights, grey = np.array(LUMA), np.empty_like(pixels)
    for top in range(0, len(pixels), STRIP):
        rows = slice(top, top + STRIP)
        grey[rows] = np.rint(pixels[rows] @ weights).astype(np.uint8)[..., None]
    return grey


def symbols_sha256(z_hat: Tensor) -> str:
    return hashlib.sha256(z_hat.numpy().astype("<i4").tobytes()).hexdigest()
