"""One small interface for every codec that is measured: pixels and a rate in, a file and pixels out."""

import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diffusion_codec import __version__, baselines, bitstream
from diffusion_codec.backbone import RunOptions
from diffusion_codec.codec import DEFAULT_STEPS, Analysis, Codec, Compressed, Decompressed
from diffusion_codec.codec_weights import embedded_weights
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.pixels import pixels_sha256

Pixels = NDArray[np.uint8]


RUN = RunOptions("auto")
"""As the command line runs: `auto` moves pixels by less than a level, and no symbol."""


@dataclass(frozen=True)
class Coded:
    """A file (`data`, None where the codec makes none), the pixels decoded from it, what is recorded."""

    data: bytes | None
    decoded: Pixels
    encode_seconds: float
    decode_seconds: float
    steps: int | None = None
    ledger: dict[str, int] = field(default_factory=dict)


class RateCodec(Protocol):
    """A codec that can be asked for a rate. `has_rate` is False for one that makes no file."""

    @property
    def name(self) -> str:
        """Name in records, tables and figures."""

    @property
    def version(self) -> str:
        """Libraries or weights that decide the result."""

    @property
    def settings(self) -> str:
        """Every setting but the rate."""

    @property
    def has_rate(self) -> bool:
        """Whether the rate asked for makes a difference."""

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """The best file of at most `bpp` bits per pixel, and what is decoded from it.

        A codec that cannot go so low gives its smallest file: rates are always those measured.
        """


class BaselineCodec:
    """A conventional codec (`diffusion_codec.baselines`); remembers the files of the last image."""

    has_rate = True

    def __init__(self, baseline: baselines.Baseline) -> None:
        self.baseline = baseline
        self._image, self._files = "", dict[int, baselines.Encoded]()

    @property
    def name(self) -> str:
        """The baseline's name."""
        return self.baseline.name

    @property
    def version(self) -> str:
        """The baseline's libraries."""
        return self.baseline.version

    @property
    def settings(self) -> str:
        """The baseline's options."""
        return self.baseline.options

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """The largest file not above `bpp`, the smallest there is where none is that small.

        The time is that of one encoding at the quality found.
        """
        image = pixels_sha256(pixels)
        if image != self._image:
            self._image, self._files = image, {}
        try:
            found = self.baseline.encode_at(pixels, bpp, self._files)
        except baselines.UnreachableRateError:
            found = min(self._files.values(), key=lambda file: len(file.data))
        started = time.perf_counter()
        decoded = self.baseline.decode(found.data)
        seconds = time.perf_counter() - started
        parts = self.baseline.parts(found.data) if self.baseline.parts is not None else {}
        return Coded(found.data, decoded, found.seconds, seconds, ledger=parts)


class SharedCodec:
    """One loaded codec for several settings of the decoder; remembers the last files it made.

    `backbone` is its name in records, with `:<weights>` where the codec's weights are not the default.
    """

    def __init__(self, codec: Codec, backbone: str, remembered: int = 16) -> None:
        self.codec, self.backbone, self.remembered = codec, backbone, remembered
        self.fingerprint = codec.backbone.fingerprint
        self._analysed: tuple[str, Analysis, Compressed] | None = None
        self._files: OrderedDict[tuple[str, int], Compressed] = OrderedDict()
        self._decoded: OrderedDict[tuple[bytes, int], Decompressed] = OrderedDict()

    @property
    def version(self) -> str:
        """Package version and the fingerprints of the codec's weights and of the backbone."""
        weights = self.codec.weights.fingerprint.hex()
        return f"diffusion-codec {__version__}, weights {weights}, backbone {self.fingerprint}"

    def analysis(self, pixels: Pixels) -> tuple[Analysis, Compressed]:
        """What files of every size start from, and the smallest; from memory where the picture is the last one."""
        image = pixels_sha256(pixels)
        if self._analysed is None or self._analysed[0] != image:
            analysis = self.codec.analyse(pixels)
            self._analysed = image, analysis, self.codec.compress(analysis, quality=0.0)
        return self._analysed[1:]

    def compress(self, pixels: Pixels, max_bytes: int) -> Compressed:
        """The best file of at most `max_bytes` (its smallest where none is), from memory where it was made before."""
        key = (pixels_sha256(pixels), max_bytes)
        if key not in self._files:
            analysis, smallest = self.analysis(pixels)
            self._files[key] = (
                smallest
                if len(smallest.data) > max_bytes
                else self.codec.compress_to_size(analysis, max_bytes=max_bytes)
            )
            while len(self._files) > self.remembered:
                self._files.popitem(last=False)
        return self._files[key]

    def decompress(self, compressed: Compressed, steps: int) -> Decompressed:
        """The photograph of a file, from memory where two rates led to one file.

        Raises BadInputError if the symbols are not those that were written.
        """
        key = (compressed.data, steps)
        if key not in self._decoded:
            decoded = self.codec.decompress(compressed.data, steps=steps)
            if decoded.symbols_sha256 != compressed.symbols_sha256:
                raise BadInputError("the decoder read other symbols than the encoder wrote")
            self._decoded[key] = decoded
            while len(self._decoded) > 2:
                self._decoded.popitem(last=False)
        return self._decoded[key]


@dataclass(frozen=True)
class DiffusionCodec:
    """The paper's codec with a number of denoising steps; 0 decodes the dequantised latent as it is."""

    shared: SharedCodec
    steps: int | None = None
    has_rate: bool = True

    @property
    def name(self) -> str:
        """`dfc-<backbone>`, with `:<weights>` and `@<steps>` where they are not the default."""
        return f"dfc-{self.shared.backbone}" + ("" if self.steps is None else f"@{self.steps}")

    @property
    def version(self) -> str:
        """Package version and fingerprint of the codec's weights."""
        return self.shared.version

    @property
    def settings(self) -> str:
        """Backbone and denoising steps."""
        return f"backbone {self.shared.backbone}, {self._steps()} DDIM steps, precision {RUN.precision}"

    def _steps(self) -> int:
        return DEFAULT_STEPS if self.steps is None else self.steps

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """The best file not above `bpp`; the encoder's time includes its search for the size."""
        max_bytes = int(bpp * pixels.shape[0] * pixels.shape[1] / 8)
        compressed = self.shared.compress(pixels, max_bytes)
        decoded = self.shared.decompress(compressed, self._steps())
        return Coded(
            compressed.data,
            decoded.pixels,
            sum(compressed.seconds.values()),
            sum(decoded.seconds.values()),
            self._steps(),
            bitstream.ledger(bitstream.read(compressed.data)),
        )


@dataclass(frozen=True)
class Ceiling:
    """The backbone's autoencoder without quantisation: no file, so no rate; means of files came out no better."""

    shared: SharedCodec
    has_rate: bool = False

    @property
    def name(self) -> str:
        """`ceiling-<backbone>`."""
        return f"ceiling-{self.shared.backbone}"

    @property
    def version(self) -> str:
        """Package version and fingerprint."""
        return self.shared.version

    @property
    def settings(self) -> str:
        """What is measured."""
        return f"backbone {self.shared.backbone}, autoencoder alone, no file"

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """Encode and decode without quantisation; the rate is not used."""
        analysis, _ = self.shared.analysis(pixels)
        started = time.perf_counter()
        decoded = self.shared.codec.autoencode(analysis)
        return Coded(None, decoded, sum(analysis.seconds.values()), time.perf_counter() - started)


_OWN = re.compile(r"(?P<kind>dfc|ceiling)-(?P<backbone>[^@:]+)(?::(?P<weights>[^@:]+))?(?:@(?P<steps>\d+))?")


def check(names: Sequence[str]) -> None:
    """Raise BadInputError for a name that `get` does not know, without loading anything."""
    for name in names:
        own = _OWN.fullmatch(name)
        ceiling = own is not None and own["kind"] == "ceiling"
        if name not in baselines.names() and (own is None or (ceiling and (own["steps"] or own["weights"]))):
            raise BadInputError(
                f"codec {name!r} is unknown; choose from {', '.join(baselines.names())}, dfc-<backbone> "
                "(dfc-mini), dfc-<backbone>:<codec weights> (dfc-mini:paper-2024), dfc-<backbone>@<denoising steps> "
                "(dfc-mini@0), ceiling-<backbone> (ceiling-mini)"
            )


def present(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names whose codec weights this release has, the others)."""
    check(names)
    there, absent = [], []
    for name in names:
        own = _OWN.fullmatch(name)
        try:
            if own is not None and own["weights"] and not Path(own["weights"]).is_file():
                embedded_weights(own["weights"])
            there.append(name)
        except MissingDataError:
            absent.append(name)
    return tuple(there), tuple(absent)


def family(name: str) -> str:
    """What codecs share that can use each other's files: backbone and weights, not the decoder's steps."""
    own = _OWN.fullmatch(name)
    return name if own is None else f"{own['backbone']}:{own['weights'] or 'default'}"


@lru_cache(maxsize=8)
def _shared(backbone: str, weights: str | None, device: str) -> SharedCodec:
    codec = Codec.from_pretrained(backbone=backbone, weights=weights or "default", device=device, run=RUN)
    return SharedCodec(codec, backbone if weights is None else f"{backbone}:{weights}")


def get(names: Sequence[str], device: str = "cpu") -> list[RateCodec]:
    """Codecs by name: a baseline, `dfc-<backbone>[:<weights>][@<steps>]` or `ceiling-<backbone>`.

    One backbone with one set of weights is loaded once in a process, however many names use it. Raises
    BadInputError for an unknown name, MissingDataError for weights that do not exist.
    """
    check(names)
    codecs: list[RateCodec] = []
    for name in names:
        own = _OWN.fullmatch(name)
        if own is None:
            codecs.append(BaselineCodec(baselines.get(name)))
        elif own["kind"] == "dfc":
            steps = None if own["steps"] is None else int(own["steps"])
            codecs.append(DiffusionCodec(_shared(own["backbone"], own["weights"], device), steps))
        else:
            codecs.append(Ceiling(_shared(own["backbone"], None, device)))
    return codecs
