"""A before/after slider in plain HTML: two pictures and a range input, for mouse, touch and keyboard."""

import base64
import html
import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_codec.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Picture = npt.NDArray[np.uint8] | Path | str

TEMPLATE = """<div class="ba">
<figure class="ba-before"><img class="dark-light" src="{before}" alt="{alt}: {before_label}">
<figcaption>{before_label}</figcaption></figure>
<figure class="ba-after"><img class="dark-light" src="{after}" alt="{alt}: {after_label}">
<figcaption>{after_label}</figcaption></figure>
<div class="ba-line" aria-hidden="true"></div>
<input type="range" min="0" max="100" value="50" aria-label="Divider between {before_label} and {after_label}"
 oninput="this.parentElement.style.setProperty('--at', this.value + '%')">
</div>"""


@dataclass(frozen=True)
class Slider:
    """HTML that Jupyter and the book show; in plain text it names the two pictures."""

    markup: str
    text: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.markup, "text/plain": self.text}

    def __str__(self) -> str:
        return self.markup


def slider(before: "Picture", after: "Picture", labels: tuple[str, str], alt: str) -> Slider:
    """Two pictures of equal size under one divider, for the last line of a notebook's cell.

    `before` and `after` are H x W x 3 uint8 pixels or image files and are embedded in the page; `labels` name
    them, `alt` says what is seen. BadInputError for other pixels, or a missing label or description.
    """
    if not alt.strip() or not all(label.strip() for label in labels):
        raise BadInputError(
            "a slider needs two labels and a description: some readers do not see the pictures"
        )
    body = markup(data_uri(before), data_uri(after), labels, alt)
    style = f"<style>{files(__package__).joinpath('slider.css').read_text(encoding='utf-8')}</style>"
    return Slider(f"{style}\n{body}", f"{alt}: {labels[0]} | {labels[1]}")


def markup(before: str, after: str, labels: tuple[str, str], alt: str) -> str:
    """The slider's HTML for two addresses, without its style sheet (`slider.css`)."""
    values = {
        "before": before,
        "after": after,
        "before_label": labels[0],
        "after_label": labels[1],
        "alt": alt,
    }
    return TEMPLATE.format(**{name: html.escape(value, quote=True) for name, value in values.items()})


def data_uri(picture: "Picture") -> str:
    """A picture as an address that holds it whole (WebP, quality 95)."""
    from PIL import Image

    if isinstance(picture, (str, Path)):
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
    else:
        if picture.dtype != "uint8" or picture.ndim != 3 or picture.shape[2] != 3:
            raise BadInputError(f"expected H x W x 3 uint8 pixels, got {picture.shape} {picture.dtype}")
        image = Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=95, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
