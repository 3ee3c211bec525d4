"""The landing page's pictures: notebook 03 writes them, the book's first page shows them with their sizes."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_codec.book.project import BookError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NOTEBOOK = "03_rate_distortion"
PICTURES = ("original", "decoded", "jpeg")
FACTS = "landing.json"


def write(
    folder: Path,
    pixels: Mapping[str, "npt.NDArray[np.uint8]"],
    sizes: Mapping[str, int],
    description: str,
    origin: str,
) -> None:
    """Write `landing_original.webp`, `landing_decoded.webp`, `landing_jpeg.webp` and `landing.json`.

    `pixels` has the three pictures (H x W x 3), `sizes` the bytes of the three files they come from;
    `description` says what is seen (for readers who do not see it), `origin` names image and data set.
    """
    from PIL import Image

    if set(pixels) != set(PICTURES) or set(sizes) != set(PICTURES):
        raise BookError(
            f"the landing page needs {', '.join(PICTURES)}; got {sorted(pixels)} and {sorted(sizes)}"
        )
    height, width = pixels["original"].shape[:2]
    for name in PICTURES:
        # Near-lossless: the pictures must show the codecs' losses, not WebP's.
        Image.fromarray(pixels[name]).save(folder / _file(name), quality=95, method=6)
    facts: dict[str, object] = {
        "description": description,
        "origin": origin,
        "width": width,
        "height": height,
    }
    for name in PICTURES:
        facts[f"{name}_bytes"] = int(sizes[name])
        facts[f"{name}_bpp"] = 8 * int(sizes[name]) / (width * height)
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def stage(stage_folder: Path) -> None:
    """Copy pictures and slider style beside the landing page; BookError where notebook 03 wrote none."""
    source = stage_folder / "figures" / NOTEBOOK
    target = stage_folder / "book" / "_static" / "landing"
    target.mkdir(parents=True, exist_ok=True)
    for name in [*map(_file, PICTURES), FACTS]:
        if not (source / name).is_file():
            raise BookError(
                f"the landing page needs build/stage/figures/{NOTEBOOK}/{name}, which notebook 03 writes: "
                "run `make run NB=03 FORCE=1`"
            )
        shutil.copy2(source / name, target / name)
    shutil.copy2(Path(__file__).with_name("slider.css"), target.parent / "slider.css")


def _file(name: str) -> str:
    return f"landing_{name}.webp"
