"""The ``.dfc`` file: header, side information and two framed streams, to the byte and nothing else.

The layout is specified in the book (*The file format*); this module is its reference implementation. It
knows no pixels, networks or probabilities, so a file can be inspected with the standard library alone.
"""

import struct
from binascii import crc_hqx
from dataclasses import dataclass
from enum import IntFlag
from zlib import crc32

from diffusion_codec.errors import BadInputError, LimitExceededError
from diffusion_codec.memory import BYTES_PER_PIXEL

FORMAT_VERSION = (1, 0)

# "DFC\n" with the top bit of the D set: a 7-bit channel clears the bit, text mode alters the line end.
MAGIC = b"\xc4FC\n"
SEED_LEVELS = 2**16
MAX_TIMESTEP = 999
_VARINT_BYTES = 5
_VARINT_LIMIT = 2**32
_CHANNELS, _STRIDE = 4, 8

_FINGERPRINT_BYTES = 4
_PREFIX = struct.Struct("<BB")  # version, flags
_SIDE = struct.Struct("<H4b4b")  # timestep, alpha, beta
_SEED = struct.Struct("<H")
_HEADER_CRC = struct.Struct("<H")
_FRAME_CRC = struct.Struct("<I")


class NotADfcFileError(BadInputError):
    """The data does not begin with the magic of a .dfc file."""


class UnsupportedVersionError(BadInputError):
    """The file was written in a major version of the format that this program does not know."""


class UnsupportedFeatureError(BadInputError):
    """The file sets a required flag that this program does not know."""


class TruncatedFileError(BadInputError):
    """The file ends before its last part."""


class CorruptFileError(BadInputError):
    """A check sum fails, or a field has a value that no encoder writes."""


class Flag(IntFlag):
    """The flags byte: a decoder must know every required flag (low nibble) and may ignore the others."""

    DITHER = 0x01
    GENERATIVE = 0x10
    GRAYSCALE = 0x20


_REQUIRED_FLAGS = 0x0F
_KNOWN_REQUIRED_FLAGS = int(Flag.DITHER)


@dataclass(frozen=True)
class Limits:
    """The largest input that is accepted; every bound is checked before memory is set aside for it.

    Units: ``max_side`` and ``max_pixels`` in pixels; ``max_symbols`` integers of the latent; ``max_steps``
    denoising steps; ``max_memory_bytes`` for what grows with the picture (``BYTES_PER_PIXEL``), beyond the
    models and one tile; ``max_file_bytes`` for a .dfc file and ``max_picture_bytes`` for a source picture
    read from a pipe, both in bytes.
    """

    max_side: int = 16384
    max_pixels: int = 2**27
    max_symbols: int = 2**24
    max_steps: int = 1000
    max_memory_bytes: int = 2**32
    max_file_bytes: int = 2**28
    max_picture_bytes: int = 2**30

    def check_size(self, width: int, height: int) -> None:
        """Raise LimitExceededError for a picture of more pixels, symbols or memory than allowed."""
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            raise LimitExceededError(
                f"the picture is {width} x {height} pixels; at most {self.max_side} a side and "
                f"{self.max_pixels} in all are accepted: scale it down or cut it up"
            )
        symbols = symbol_count(width, height)
        if symbols > self.max_symbols:
            raise LimitExceededError(
                f"the picture's latent has {symbols} symbols; at most {self.max_symbols} are accepted: "
                "scale it down or cut it up"
            )
        memory = BYTES_PER_PIXEL * width * height
        if memory > self.max_memory_bytes:
            raise LimitExceededError(
                f"a picture of {width} x {height} pixels may take {memory} bytes of memory; at most "
                f"{self.max_memory_bytes} are accepted: scale it down or cut it up"
            )

    def check_steps(self, steps: int) -> None:
        """Raise LimitExceededError for a number of denoising steps outside 0 to ``max_steps``."""
        if not 0 <= steps <= self.max_steps:
            raise LimitExceededError(f"{steps} denoising steps; 0 to {self.max_steps} are accepted")


DEFAULT_LIMITS = Limits()


def symbol_count(width: int, height: int) -> int:
    """Integers in the latent of a picture: 4 channels, one position for each started 8 x 8 pixels."""
    return _CHANNELS * -(-width // _STRIDE) * -(-height // _STRIDE)


@dataclass(frozen=True)
class Header:
    """What a decoder must know before it reads the streams.

    Sizes in pixels. ``weights_fingerprint``: 4 bytes naming the codec weights (P_phi and entropy model).
    ``alpha`` and ``beta`` are the stored signed bytes: the scale of channel c is 2**(alpha[c] / 16), its
    offset beta[c] / 256 quantisation steps. ``dither_seed`` is None without dither. ``grayscale``: the source
    had no colour, and decoders write none.
    Raises BadInputError for a value outside the format.
    """

    width: int
    height: int
    weights_fingerprint: bytes
    timestep: int
    alpha: tuple[int, int, int, int]
    beta: tuple[int, int, int, int]
    dither_seed: int | None = None
    grayscale: bool = False

    def __post_init__(self) -> None:
        _expect_range("width", self.width, 1, _VARINT_LIMIT - 1)
        _expect_range("height", self.height, 1, _VARINT_LIMIT - 1)
        _expect_range("timestep", self.timestep, 0, MAX_TIMESTEP)
        if len(self.weights_fingerprint) != _FINGERPRINT_BYTES:
            raise BadInputError(f"weights_fingerprint has {len(self.weights_fingerprint)} bytes, expected 4")
        for name, values in (("alpha", self.alpha), ("beta", self.beta)):
            if len(values) != 4:
                raise BadInputError(f"{name} has {len(values)} values, expected one for each of 4 channels")
            for value in values:
                _expect_range(name, value, -128, 127)
        if self.dither_seed is not None:
            _expect_range("dither_seed", self.dither_seed, 0, SEED_LEVELS - 1)

    @property
    def flags(self) -> Flag:
        """The flags byte as written: GENERATIVE always, the others as the fields say."""
        flags = Flag.GENERATIVE
        if self.dither_seed is not None:
            flags |= Flag.DITHER
        if self.grayscale:
            flags |= Flag.GRAYSCALE
        return flags


@dataclass(frozen=True)
class DfcFile:
    """A header and the two entropy-coded streams; ``hyper`` may be empty, ``latent`` of no picture is."""

    header: Header
    hyper: bytes
    latent: bytes


def write(file: DfcFile) -> bytes:
    """The file as bytes.

    Errors: BadInputError for a stream of 4 GiB or more. Layout: the book's page *The file format*.
    """
    prefix, side = _header_parts(file.header)
    data = prefix + side
    data += _HEADER_CRC.pack(crc_hqx(data, 0))
    running = crc32(data)
    for payload in (file.hyper, file.latent):
        frame = encode_varint(len(payload)) + payload
        running = crc32(frame, running)
        data += frame + (_FRAME_CRC.pack(running) if payload else b"")
    return data


def read(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> DfcFile:
    """Parse a .dfc file, trusting nothing in it.

    Errors: BadInputError for what is no bytes, and of its kind NotADfcFileError, UnsupportedVersionError,
    UnsupportedFeatureError, TruncatedFileError, CorruptFileError and LimitExceededError. Nothing larger than ``data``
    is allocated.
    """
    try:
        view = memoryview(data)
    except TypeError as error:
        raise BadInputError(f"expected the bytes of a .dfc file, got {type(data).__name__}") from error
    if view.nbytes > limits.max_file_bytes:
        raise LimitExceededError(
            f"the file has {view.nbytes} bytes or more; at most {limits.max_file_bytes} are accepted"
        )
    data = data if isinstance(data, bytes) else bytes(view)
    _check_magic(data)
    reader = _Reader(data, len(MAGIC))
    header = _read_header(reader)
    limits.check_size(header.width, header.height)
    running = crc32(data[: reader.position])
    hyper, running = _read_frame(reader, "hyper", running)
    latent, running = _read_frame(reader, "latent", running)
    if not latent:  # its check sum is what covers the whole file
        raise _damaged("its latent stream is empty")
    if reader.position != len(data):
        extra = len(data) - reader.position
        raise _damaged(f"{extra} bytes follow its end")
    return DfcFile(header, hyper, latent)


def header_fields(header: Header) -> dict[str, int | bool | str | list[int] | None]:
    """A header in types that JSON has; the fingerprint in hexadecimal."""
    return {
        "width": header.width,
        "height": header.height,
        "weights_fingerprint": header.weights_fingerprint.hex(),
        "timestep": header.timestep,
        "alpha": list(header.alpha),
        "beta": list(header.beta),
        "dither_seed": header.dither_seed,
        "grayscale": header.grayscale,
    }


def ledger(file: DfcFile) -> dict[str, int]:
    """Bytes by part: header, side_information, hyper, latent; they add up to ``len(write(file))``.

    A stream's length field and check sum count with the stream, the header's check sum with the header.
    """
    prefix, side = _header_parts(file.header)
    return {
        "header": len(prefix) + _HEADER_CRC.size,
        "side_information": len(side),
        "hyper": _frame_size(file.hyper),
        "latent": _frame_size(file.latent),
    }


def encode_varint(value: int) -> bytes:
    """Little-endian base 128 in as few bytes as possible; BadInputError outside 0..2**32-1."""
    _expect_range("varint", value, 0, _VARINT_LIMIT - 1)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _expect_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BadInputError(f"{name} is {value}, expected {low} to {high}")


def _header_parts(header: Header) -> tuple[bytes, bytes]:
    """The bytes before the header's check sum, as (what names the file, side information)."""
    major, minor = FORMAT_VERSION
    prefix = MAGIC + _PREFIX.pack(major << 4 | minor, int(header.flags))
    prefix += encode_varint(header.width) + encode_varint(header.height) + header.weights_fingerprint
    side = _SIDE.pack(header.timestep, *header.alpha, *header.beta)
    if header.dither_seed is not None:
        side += _SEED.pack(header.dither_seed)
    return prefix, side


def _frame_size(payload: bytes) -> int:
    return len(encode_varint(len(payload))) + len(payload) + (_FRAME_CRC.size if payload else 0)


def _damaged(detail: str) -> CorruptFileError:
    return CorruptFileError(f"the .dfc file is damaged: {detail}; fetch it again")


class _Reader:
    """A position in the data; every read is checked against its end."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position

    def take(self, count: int, part: str) -> bytes:
        left = len(self.data) - self.position
        if count > left:
            raise TruncatedFileError(
                f"the .dfc file is cut short: its {part} needs {count} bytes, {left} are left; fetch it again"
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, part: str) -> int:
        value = 0
        for index in range(_VARINT_BYTES):
            byte = self.take(1, part)[0]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if (byte == 0 and index > 0) or value >= _VARINT_LIMIT:
                    break
                return value
        raise _damaged(f"its {part} is not a canonical number")


def _check_magic(data: bytes) -> None:
    if data.startswith(MAGIC):
        return
    if not data:
        raise NotADfcFileError("the file is empty, expected a .dfc file")
    if MAGIC.startswith(data):
        raise TruncatedFileError(f"the .dfc file is cut short after {len(data)} bytes; fetch it again")
    if b"FC" in data[:6] and data[:1] in (b"D", b"\xc3", b"\xc4", b"\xef"):
        raise NotADfcFileError(
            "the file was a .dfc file and was damaged by a transfer in text mode; transfer it in binary mode"
        )
    raise NotADfcFileError(
        f"not a .dfc file: it begins with the bytes {data[:4].hex(' ')}, expected {MAGIC.hex(' ')}"
    )


def _read_header(reader: _Reader) -> Header:
    version, flags = _PREFIX.unpack(reader.take(_PREFIX.size, "version and flags"))
    _check_version(version)
    _check_flags(flags)
    width, height = reader.varint("width"), reader.varint("height")
    fingerprint = reader.take(_FINGERPRINT_BYTES, "weights fingerprint")
    timestep, *affine = _SIDE.unpack(reader.take(_SIDE.size, "side information"))
    seed = None
    if flags & Flag.DITHER:
        (seed,) = _SEED.unpack(reader.take(_SEED.size, "dither seed"))
    expected = crc_hqx(reader.data[: reader.position], 0)
    if _HEADER_CRC.unpack(reader.take(_HEADER_CRC.size, "header check sum")) != (expected,):
        raise _damaged("its header's check sum is wrong")
    try:
        a, b = tuple(affine[:4]), tuple(affine[4:])
        return Header(width, height, fingerprint, timestep, a, b, seed, bool(flags & Flag.GRAYSCALE))
    except BadInputError as error:
        raise CorruptFileError(f"the .dfc file's header is not valid: {error}") from error


def _check_version(version: int) -> None:
    major, minor = version >> 4, version & 0x0F
    if major != FORMAT_VERSION[0]:
        raise UnsupportedVersionError(
            f"the .dfc file is of format version {major}.{minor}, this program reads version "
            f"{FORMAT_VERSION[0]}: install the diffusion-codec release that wrote it"
        )


def _check_flags(flags: int) -> None:
    unknown = flags & _REQUIRED_FLAGS & ~_KNOWN_REQUIRED_FLAGS
    if unknown:
        raise UnsupportedFeatureError(
            f"the .dfc file needs features this program does not know (flags 0x{unknown:02x}): "
            "install a newer diffusion-codec, or fetch the file again if it is damaged"
        )


def _read_frame(reader: _Reader, name: str, running: int) -> tuple[bytes, int]:
    """The payload, and the running CRC-32 of all bytes but the frames' check sums.

    It runs on from frame to frame so that streams of two files cannot be mixed unnoticed. The check sums
    stay out of it: a CRC that covers an earlier CRC forgets what that one covered.
    """
    start = reader.position
    length = reader.varint(f"{name} stream's length")
    payload = reader.take(length, f"{name} stream")
    running = crc32(reader.data[start : reader.position], running)
    if length and _FRAME_CRC.unpack(reader.take(_FRAME_CRC.size, f"{name} stream's check sum")) != (running,):
        raise _damaged(f"its {name} stream's check sum is wrong")
    return payload, running
