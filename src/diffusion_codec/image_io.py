"""Pictures in and out: whatever Pillow opens becomes 8-bit sRGB, whatever is decoded becomes a file."""

import errno
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from diffusion_codec.bitstream import DEFAULT_LIMITS, MAGIC, Limits
from diffusion_codec.errors import BadInputError, LimitExceededError, OutOfMemoryError
from diffusion_codec.files import (
    STANDARD_STREAM,
    OutputError,
    Source,
    check_target,
    describe,
    open_source,
    write_atomically,
)

__all__ = [
    "Picture",
    "check_target",
    "image_format",
    "load_image",
    "picture_size",
    "picture_suffixes",
    "save_image",
    "write_atomically",
]

# Pillow's format and its options for every suffix that can be written; all but JPEG keep the pixels exactly.
_SAVE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}

# EPS is a program: Pillow would hand it to Ghostscript. Of MPEG it reads the size alone.
_EXCLUDED_FORMATS = {"EPS", "MPEG"}

SRGB_GAMMA = 1 / 2.2
"""What a PNG says of itself (gAMA) where its values are about those of sRGB."""
# What Pillow's decoders and their plugins raise on damaged data: nearly anything, but nothing of a program around.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NameError,
    RuntimeError,
    AssertionError,
    BufferError,
    SystemError,
    struct.error,
    zlib.error,
)

_EXIF_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """8-bit sRGB pixels, (H, W, 3) uint8; ``grayscale`` if no pixel has colour.

    ``notes`` say in words what of the source could not be kept or used.
    """

    pixels: npt.NDArray[np.uint8]
    grayscale: bool = False
    notes: tuple[str, ...] = ()


def load_image(source: Source, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Read a picture from a path, from standard input (``-``) or from the bytes of a file.

    Rotated as its EXIF data say, converted to sRGB from an embedded profile, transparency laid on white, 16
    bits reduced to 8, of an animation the first frame. Sizes are checked before pixels are decoded. Errors:
    BadInputError if the data are missing, damaged or no picture, LimitExceededError if it is too large,
    OutOfMemoryError if the machine cannot hold it.
    """
    with _opened(source, limits) as image:
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        image.load()
        _check_size(image, limits)  # again: an icon's header need not tell the truth
        notes = ("only the first of its frames is used",) if animated else ()
        return _to_picture(image, notes)


def picture_size(source: Source, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height in pixels as the picture's header says them, not rotated; errors as :func:`load_image`."""
    with _opened(source, limits) as image:
        return image.size


def save_image(picture: Picture, path: str | Path, force: bool = False) -> None:
    """Write a picture in the format of the path's suffix (PNG to ``-``), whole or not at all.

    A grey picture is written with one channel. Errors: OutputError, BadInputError for an unknown suffix.
    """
    name, options = _save_format(path)
    image = Image.fromarray(picture.pixels)
    buffer = io.BytesIO()
    try:
        (image.convert("L") if picture.grayscale else image).save(buffer, name, **options)
    except (OSError, ValueError) as error:
        width, height = image.size
        raise OutputError(
            f"{name} cannot hold this picture of {width} x {height} pixels ({error}): write a .png"
        ) from error
    write_atomically(path, buffer.getvalue(), force)


def image_format(path: str | Path) -> str:
    """Pillow's name of the format that :func:`save_image` will write; BadInputError for an unknown suffix."""
    return _save_format(path)[0]


def picture_suffixes() -> frozenset[str]:
    """Suffixes, with their dot, of what :func:`load_image` may read."""
    known = _formats()
    return frozenset(s for s, name in Image.registered_extensions().items() if name in known)


def _save_format(path: str | Path) -> tuple[str, dict[str, Any]]:
    if str(path) == STANDARD_STREAM:
        return _SAVE_FORMATS[".png"]
    suffix = Path(path).suffix.lower()
    if suffix not in _SAVE_FORMATS:
        known = " ".join(_SAVE_FORMATS)
        raise BadInputError(f"'{path}' does not end in the suffix of a picture that can be written: {known}")
    return _SAVE_FORMATS[suffix]


_REGISTERING = threading.Lock()


@cache
def _register() -> None:
    """Make all of Pillow's formats known to it, and HEIC, in which many telephones write."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _formats() -> list[str]:
    with _REGISTERING:  # not while another thread reads a picture
        _register()
    return [name for name in Image.ID if name not in _EXCLUDED_FORMATS and not _is_stub(name)]


def _is_stub(name: str) -> bool:
    """Whether Pillow knows the format by its first bytes only and cannot read it (HDF5, GRIB, WMF, ...)."""
    opener = Image.OPEN[name][0]
    return isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)


@contextmanager
def _opened(source: Source, limits: Limits) -> Iterator[Image.Image]:
    """The picture before its pixels are decoded; what goes wrong with it inside becomes a BadInputError."""
    with open_source(source, limits.max_picture_bytes) as stream:
        _check_begin(stream, describe(source))
        with _decoding(describe(source), limits):
            image = Image.open(stream, formats=_formats())
            _check_size(image, limits)
            yield image


def _check_size(image: Image.Image, limits: Limits) -> None:
    if 0 in image.size:
        raise BadInputError(f"the picture has no pixels: its size is {image.width} x {image.height}")
    limits.check_size(*image.size)


def _check_begin(stream: BinaryIO, name: str) -> None:
    try:
        begin = stream.read(len(MAGIC))
        stream.seek(0)
    except OSError as error:
        raise BadInputError(f"{name} cannot be read: {error.strerror or error}") from error
    if not begin:
        raise BadInputError(f"{name} is empty, expected a picture")
    if begin == MAGIC:
        raise BadInputError(f"{name} is a .dfc file, expected a picture: use decompress, or name a picture")


class _Quiet:
    """Inside, in any thread, what Pillow and its plugins warn of is not shown: sizes that Limits allows, odd metadata.

    ``warnings.catch_warnings`` would not do: two threads that overlap leave its filters behind. Only the one filter
    comes and goes here; those of the program around stay as they are.
    """

    def __init__(self) -> None:
        self._filter = ("ignore", None, Warning, re.compile(r"PIL\.|pillow_"), 0)
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                cast(list[Any], warnings.filters).insert(0, self._filter)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                with suppress(ValueError):  # the program around has put others in place of all
                    cast(list[Any], warnings.filters).remove(self._filter)


_QUIET = _Quiet()


@contextmanager
def _decoding(name: str, limits: Limits) -> Iterator[None]:
    """Turn whatever a decoder throws at damaged data into one BadInputError; what others throw passes."""
    try:
        with _QUIET:
            yield
    except (BadInputError, TimeoutError):  # the latter of a program's alarm
        raise
    except UnidentifiedImageError as error:
        advice = "" if "HEIF" in Image.ID else " (HEIC needs pillow-heif)"
        raise BadInputError(f"{name} is not a picture in a format that can be read{advice}") from error
    except Image.DecompressionBombError as error:
        raise LimitExceededError(f"{name} is too large a picture: {_bound(limits)}") from error
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{name}: not enough memory for this picture: scale it down or cut it up"
        ) from error
    except _DAMAGE as error:
        raise BadInputError(f"{name} {_fault(error)}") from error


def _bound(limits: Limits) -> str:
    """The most pixels that are read, and whose bound it is: Pillow's own, which a program can set, may be the lower."""
    pillow = 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels)
    whose = " (Pillow's MAX_IMAGE_PIXELS)" if pillow < limits.max_pixels else ""
    return (
        f"at most {limits.max_side} pixels a side and {min(pillow, limits.max_pixels)} in all{whose} are read: "
        "scale it down or cut it up"
    )


def _fault(error: BaseException) -> str:
    """What is wrong: the reading, or the data. Damaged data make some decoders seek before the begin, too."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"cannot be read: {error.strerror or error}"
    return f"cannot be decoded, it is truncated or damaged ({type(error).__name__}: {error})"


def _to_picture(image: Image.Image, notes: tuple[str, ...]) -> Picture:
    orientation = _orientation(image)
    profile = image.info.get("icc_profile")
    shallow, alpha = _split_alpha(_to_8_bits(image))
    rgb, note = _to_srgb(shallow, profile)
    gamma = image.info.get("gamma", SRGB_GAMMA)
    if not profile and "srgb" not in image.info and abs(gamma - SRGB_GAMMA) > 0.01:
        note = f"its gamma of {gamma:g} is not applied; it is read as sRGB"
    if alpha is not None:
        if alpha.getextrema() != (255, 255):
            notes = (*notes, "its transparency is laid on white")
        white = Image.new("RGB", rgb.size, "white")
        rgb = Image.composite(rgb, white, alpha)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    pixels = np.array(rgb)
    return Picture(pixels, _is_grey(pixels), (*notes, note) if note else notes)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except TimeoutError:
        raise
    except _DAMAGE:  # metadata that cannot be parsed says nothing about the orientation
        return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Modes of more than 8 bits a channel scaled to 8 (Pillow's own conversion would clip them)."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0] if image.mode.startswith("I;16") else 16
    white = 1 if image.mode == "F" else 2**bits - 1
    values = np.asarray(image).astype(np.float32)  # exact for 16 bits
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= white:
        raise BadInputError(
            f"the picture's values range from {low:g} to {high:g}, expected 0 (black) to {white} (white) "
            f"in Pillow's mode {image.mode}: convert it to 8 or 16 bits a channel first"
        )
    shown = white - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values
    grey = Image.fromarray(np.rint(shown * (255 / white)).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colour part in a mode that a profile can describe (L, RGB, CMYK, LAB) and the alpha channel."""
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return image.convert("L"), None
    if image.mode in ("L", "LA", "La"):
        straight = image.convert("LA")
        return straight.getchannel("L"), straight.getchannel("A")
    if image.mode in ("CMYK", "LAB"):
        return image, None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return image.convert("RGB"), None


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """The picture in sRGB, and a note if its embedded profile could not be used."""
    if not profile:
        return image.convert("RGB"), None
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return image.convert("RGB"), f"its colour profile cannot be used ({error}); it is read as sRGB"
    if converted is None:
        raise RuntimeError("ImageCms returned no picture although none was to be changed in place")
    if image.mode == "L":  # rounding tints greys by one level
        return converted.getchannel("G").convert("RGB"), None
    return converted, None


def _is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool(np.array_equal(red, green) and np.array_equal(green, blue))
