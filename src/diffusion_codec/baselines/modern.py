"""jpegli, JPEG XL, HEIC and VVC: packages beside Pillow, each at the setting that is its best for still pictures."""

import io
import struct
import subprocess
from functools import lru_cache
from importlib.metadata import version

import imageio_ffmpeg
import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  registers the format with Pillow
import pyjpegli

from diffusion_codec.baselines.base import Baseline, Pixels
from diffusion_codec.baselines.boxes import box_parts
from diffusion_codec.baselines.pillow import pillow_decoder, pillow_encoder
from diffusion_codec.errors import BadInputError

VVC_PRESET = "medium"
VVC_BLOCK, VVC_MIN_SIDE = 8, 32
_SIZE = struct.Struct("<HH")
_CODED_PICTURE = range(12)  # types of network units that carry a slice (H.266, table 5)


def _encode_jpegli(pixels: Pixels, quality: float) -> bytes:
    height, width = pixels.shape[:2]
    return bytes(pyjpegli.encode(pixels.tobytes(), width, height, quality=int(quality)))


def _decode_jpegli(data: bytes) -> Pixels:
    try:
        pixels, width, height = pyjpegli.decode(data)
    except (RuntimeError, ValueError) as error:
        raise BadInputError(f"{len(data)} bytes are not a whole JPEG file: {error}") from error
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()


def _encode_heic(pixels: Pixels, quality: float) -> bytes:
    height, width = pixels.shape[:2]
    buffer = io.BytesIO()
    file = pillow_heif.from_bytes("RGB", (width, height), pixels.tobytes())
    # one thread: the bytes must not depend on the machine
    file.save(buffer, quality=int(quality), chroma=420, enc_params={"x265:pools": "1", "preset": "slow"})
    return buffer.getvalue()


def _decode_heic(data: bytes) -> Pixels:
    try:
        return np.array(pillow_heif.read_heif(io.BytesIO(data)).to_pillow().convert("RGB"))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise BadInputError(f"{len(data)} bytes are not a whole HEIC file: {error}") from error


@lru_cache(maxsize=1)
def _ffmpeg_version() -> str:
    return str(imageio_ffmpeg.get_ffmpeg_version())


def _ffmpeg(options: list[str], data: bytes) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-threads", "1"]
    done = subprocess.run([*command, *options, "-"], input=data, capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadInputError(f"ffmpeg fails on {len(data)} bytes: {said[-1] if said else 'no output'}")
    return done.stdout


def _coded_side(side: int) -> int:
    return max(VVC_MIN_SIDE, -(-side // VVC_BLOCK) * VVC_BLOCK)


def _encode_vvc(pixels: Pixels, quality: float) -> bytes:
    """Four bytes of width and height, then the bare stream of one picture, its border repeated to whole blocks."""
    height, width = pixels.shape[:2]
    rows, columns = _coded_side(height), _coded_side(width)
    padded = np.pad(pixels, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}", "-i", "-"]
    colour = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd,format=yuv420p10le"
    coding = ["-c:v", "libvvenc", "-qp", f"{63 - quality:.0f}", "-preset", VVC_PRESET, "-threads", "1"]
    stream = _ffmpeg([*source, "-frames:v", "1", "-vf", colour, *coding, "-f", "vvc"], padded.tobytes())
    return _SIZE.pack(width, height) + stream


def _decode_vvc(data: bytes) -> Pixels:
    if len(data) <= _SIZE.size:
        raise BadInputError(f"{len(data)} bytes are no VVC picture")
    width, height = _SIZE.unpack_from(data)
    colour = "scale=in_color_matrix=bt709:in_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
    wanted = ["-f", "vvc", "-i", "-", "-frames:v", "1", "-vf", colour, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = _ffmpeg(wanted, data[_SIZE.size :])
    rows, columns = _coded_side(height), _coded_side(width)
    if len(raw) != 3 * rows * columns:
        raise BadInputError(f"the VVC stream holds no picture of {width} x {height}")
    return np.frombuffer(raw, np.uint8).reshape(rows, columns, 3)[:height, :width].copy()


def vvc_parts(data: bytes) -> dict[str, int]:
    """Bytes of the coded picture, and of all around it: the size, parameter sets, delimiters."""
    starts, position = [], _SIZE.size
    while (position := data.find(b"\0\0\1", position)) >= 0:
        starts.append(position)
        position += 3
    units = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    picture = sum(len(unit) for unit in units if unit[4] >> 3 in _CODED_PICTURE)
    return {"container": len(data) - picture, "picture": picture}


def baselines() -> tuple[Baseline, ...]:
    """The codecs of the packages pyjpegli, pillow-jxl-plugin, pillow-heif and imageio-ffmpeg."""
    heif = pillow_heif.libheif_info()
    return (
        Baseline(
            "jpegli",
            f"jpegli (pyjpegli {version('pyjpegli')})",
            "4:2:0, progressive, adaptive quantisation",
            tuple(range(1, 101)),
            _encode_jpegli,
            _decode_jpegli,
        ),
        Baseline(
            "jpeg-xl",
            f"libjxl (pillow-jxl-plugin {version('pillow-jxl-plugin')})",
            "lossy, effort 7, bare codestream, one thread",
            tuple(range(100)),
            pillow_encoder("JXL", lambda _, q: {"quality": int(q), "effort": 7, "num_threads": 1}),
            pillow_decoder("JXL"),
        ),
        Baseline(
            "heic",
            f"HEVC by {heif['HEIF']} (libheif {heif['libheif']}, pillow-heif {version('pillow-heif')})",
            "x265, preset slow, 4:2:0, 8 bit, one thread, HEIF container",
            tuple(range(101)),
            _encode_heic,
            _decode_heic,
            box_parts,
            rising=True,
        ),
        Baseline(
            "vvc",
            f"VVC by libvvenc (ffmpeg {_ffmpeg_version()}, imageio-ffmpeg {version('imageio-ffmpeg')})",
            f"intra, preset {VVC_PRESET}, qp 63 - quality, 4:2:0, 10 bit, BT.709, one thread; 4 bytes of size "
            "before the bare stream",
            tuple(range(64)),
            _encode_vvc,
            _decode_vvc,
            vvc_parts,
            rising=True,
        ),
    )
