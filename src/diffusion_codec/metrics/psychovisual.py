"""SSIMULACRA 2 and Butteraugli: models of seeing that need no learned weights."""

import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from diffusion_codec.metrics.base import Metric, MetricError, Pixels

PROGRAM = "butteraugli_main"


def _picture(pixels: Pixels) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    buffer.seek(0)
    return buffer


def _ssimulacra2(original: Pixels, decoded: Pixels) -> float:
    return float(compute_ssimulacra2(_picture(original), _picture(decoded)))


def has_butteraugli() -> bool:
    """Whether the program that measures Butteraugli is on this machine."""
    return shutil.which(PROGRAM) is not None


def _butteraugli(original: Pixels, decoded: Pixels) -> float:
    program = shutil.which(PROGRAM)
    if program is None:
        raise MetricError(
            f"Butteraugli is measured by {PROGRAM}, a program of libjxl that is not on this machine; install "
            "libjxl's tools (Debian: libjxl-devtools)"
        )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("original.png", "decoded.png")]
        for path, pixels in zip(paths, (original, decoded), strict=True):
            Image.fromarray(pixels).save(path, compress_level=1)
        done = subprocess.run([program, *map(str, paths)], capture_output=True, text=True, check=False)
    found = re.search(r"3-norm:\s*([0-9.]+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise MetricError(f"{PROGRAM} gave no distance: {done.stderr.strip()[-200:]}")
    return float(found[1])


SSIMULACRA2 = Metric(
    "ssimulacra2",
    "SSIMULACRA 2 (PyPI ssimulacra2), 8-bit sRGB; 100 for equal images, may be negative; an independent "
    "implementation differs by up to three points at low rates",
    higher_is_better=True,
    min_side=32,
    compute=_ssimulacra2,
)
BUTTERAUGLI = Metric(
    "butteraugli",
    "Butteraugli distance, 3-norm (libjxl's butteraugli_main), 8-bit sRGB, intensity target 80 cd/m2",
    higher_is_better=False,
    min_side=8,
    compute=_butteraugli,
)
