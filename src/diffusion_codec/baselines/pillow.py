"""JPEG, WebP, JPEG 2000 and AVIF through Pillow's own libraries."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from diffusion_codec.baselines.base import Baseline, Pixels
from diffusion_codec.baselines.boxes import box_parts
from diffusion_codec.errors import BadInputError

_Options = Callable[[Pixels, float], dict[str, Any]]


def pillow_encoder(file_format: str, options: _Options) -> Callable[[Pixels, float], bytes]:
    """An encoder of bare pixels through Pillow, with options of its own for each picture and quality."""

    def encode(pixels: Pixels, quality: float) -> bytes:
        buffer = io.BytesIO()
        # an image made from an array carries no profile, EXIF or comment that could inflate the file
        Image.fromarray(pixels).save(buffer, file_format, **options(pixels, quality))
        return buffer.getvalue()

    return encode


def pillow_decoder(file_format: str) -> Callable[[bytes], Pixels]:
    """A decoder through Pillow that takes this format and no other."""

    def decode(data: bytes) -> Pixels:
        try:
            with Image.open(io.BytesIO(data), formats=[file_format]) as image:
                return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, RuntimeError) as error:
            raise BadInputError(f"{len(data)} bytes are not a whole {file_format} file: {error}") from error

    return decode


def _version(library: str, feature: str) -> str:
    return f"{library} {features.version(feature)} (Pillow {PIL.__version__})"


def _jpeg2000_options(pixels: Pixels, quality: float) -> dict[str, Any]:
    """Quality 0..100 is a compression ratio from 2000:1 to 1:1, even steps in the logarithm."""
    levels = min(6, min(pixels.shape[:2]).bit_length())  # OpenJPEG refuses more halvings than fit
    return {
        "no_jp2": True,
        "irreversible": True,
        "mct": 1,  # Pillow's default leaves RGB as it is and loses 4 dB
        "quality_mode": "rates",
        "quality_layers": [2000 ** (1 - quality / 100)],
        "num_resolutions": levels,
    }


def _without_comments(codestream: bytes) -> bytes:
    """Drop the comment OpenJPEG always writes (its version, 37 bytes) from a JPEG 2000 main header."""
    kept, position = codestream[:2], 2  # the start marker has no length
    while codestream[position : position + 2] != b"\xff\x90":  # the first tile ends the main header
        end = position + 2 + int.from_bytes(codestream[position + 2 : position + 4], "big")
        if codestream[position : position + 2] != b"\xff\x64":
            kept += codestream[position:end]
        position = end
    return kept + codestream[position:]


def _encode_jpeg2000(pixels: Pixels, quality: float) -> bytes:
    return _without_comments(pillow_encoder("JPEG2000", _jpeg2000_options)(pixels, quality))


def _avif(name: str, speed: int) -> Baseline:
    def options(_: Pixels, quality: float) -> dict[str, Any]:
        return {
            "quality": int(quality),
            "speed": speed,
            "subsampling": "4:2:0",
            "codec": "aom",
            "max_threads": 1,  # the bytes depend on the number of threads
        }

    return Baseline(
        name,
        _version("AV1 by libavif", "avif"),
        f"aom, speed {speed}, 4:2:0, 8 bit, one thread",
        tuple(range(101)),
        pillow_encoder("AVIF", options),
        pillow_decoder("AVIF"),
        box_parts,
        rising=True,
    )


def baselines() -> tuple[Baseline, ...]:
    """The codecs of this Pillow. A build of it without one of them raises when that one is used."""
    return (
        Baseline(
            "jpeg",
            _version("libjpeg-turbo", "libjpeg_turbo"),
            "4:2:0, progressive, optimised Huffman tables",
            tuple(range(1, 96)),
            pillow_encoder(
                "JPEG",
                lambda _, q: {"quality": int(q), "subsampling": 2, "optimize": True, "progressive": True},
            ),
            pillow_decoder("JPEG"),
        ),
        Baseline(
            "webp",
            _version("libwebp", "webp"),
            "lossy, method 6, 4:2:0",
            tuple(range(101)),
            pillow_encoder("WEBP", lambda _, q: {"quality": int(q), "method": 6}),
            pillow_decoder("WEBP"),
        ),
        Baseline(
            "jpeg2000",
            _version("OpenJPEG", "jpg_2000"),
            "bare codestream, colour transform, 9/7 wavelet, 6 resolutions, one layer, rate-controlled",
            tuple(q / 2 for q in range(201)),
            _encode_jpeg2000,
            pillow_decoder("JPEG2000"),
            rising=True,
        ),
        _avif("avif", speed=6),
        _avif("avif-slow", speed=3),
    )
