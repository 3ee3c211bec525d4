"""Parts of a page that a reader plays with: HTML that needs no network, and a print for readers without scripts."""

import base64
import html
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SCRIPT = "../_static/plotly.min.js"
"""The book's one copy of plotly's script, from a page in `notebooks/` of the built site."""


@dataclass(frozen=True)
class Interactive:
    """A part of a page for a notebook's cell: HTML, and in words what is seen."""

    markup: str
    alt: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.markup, "text/plain": self.alt}


def fill(template: str, data: dict[str, Any], prints: list[Path], alt: str) -> Interactive:
    """A template of this package with its data, and the figures that stand for it in print and without scripts.

    Args:
        template: name of a file in `figures/templates/`, without ending.
        prints: pictures on disk.
    """
    described = html.escape(alt, quote=True)
    stills = "".join(f'<img class="still" src="{_print(path)}" alt="{described}">' for path in prints)
    # "</" would end the script that holds the data
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    body = _template(template).replace("{stills}", stills).replace("{plotly}", SCRIPT).replace("{data}", text)
    return Interactive(shared() + body, alt)


def shared() -> str:
    """The style sheet of all of them: what needs scripts (`live`) and what stands for it without (`still`)."""
    return _template("shared")


def _template(name: str) -> str:
    return files(__package__).joinpath("templates", f"{name}.html").read_text(encoding="utf-8")


def _print(path: Path) -> str:
    with Image.open(path) as image:
        return webp(np.asarray(image.convert("RGB")), 90)


def webp(pixels: npt.NDArray[np.uint8], quality: int = 80) -> str:
    """Pixels (H, W, 3) or (H, W) as an address that holds them whole; small rather than exact."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
