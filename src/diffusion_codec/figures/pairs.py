"""Any two codecs side by side on one photograph: the book's slider, with a choice of what lies on each side."""

import html
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from diffusion_codec.book.slider import Slider, data_uri, markup
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.pictures import Picture
from diffusion_codec.figures.comparison import crop, describe

SIDE = 384
_LISTS = (
    ".pairs > p { display: grid; gap: .5rem 1rem; "
    "grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }"
    ".pairs label { display: grid; grid-template-columns: 3rem minmax(0, 1fr); align-items: center; }"
)

_CHOOSE = (
    "const box=this.closest('.pairs'),at={side};const o=this.selectedOptions[0];"
    "const f=box.querySelectorAll('.ba figure')[at];f.querySelector('img').src=box.querySelector('#'+o.value).src;"
    "f.querySelector('img').alt=o.text;f.querySelector('figcaption').textContent=o.text;"
)


def pair_slider(
    pictures: Sequence[Picture],
    folder: Path,
    name: str,
    alt: str,
    at: tuple[float, float],
    start: tuple[str, str],
) -> Slider:
    """A zoomed part of one photograph out of every codec's file; two lists choose which two lie under the divider.

    Each picture is in the page once, however many pairs there are. `start` are the codecs shown first. Raises
    BadInputError for fewer than two pictures, or pictures of more than one photograph.
    """
    if len(pictures) < 2 or len({picture.image for picture in pictures}) != 1:
        raise BadInputError("a choice of pairs needs two or more pictures, all of one photograph")
    labels = {picture.codec: describe(picture) for picture in pictures}
    ids = {picture.codec: f"{name}-{number}" for number, picture in enumerate(pictures)}
    first, second = (codec if codec in labels else pictures[0].codec for codec in start)
    uris = {p.codec: data_uri(crop(p.pixels(folder), at, SIDE)) for p in pictures}
    held = "".join(f'<img hidden id="{ids[codec]}" src="{uri}" alt="">' for codec, uri in uris.items())
    lists = "".join(_list(labels, ids, chosen, side) for side, chosen in enumerate((first, second)))
    body = markup(uris[first], uris[second], (labels[first], labels[second]), alt)
    style = files("diffusion_codec.book").joinpath("slider.css").read_text(encoding="utf-8")
    text = f"{alt}; to choose from: {', '.join(labels.values())}"
    return Slider(
        f'<style>{style}{_LISTS}</style>\n<div class="pairs"><p>{lists}</p>{held}\n{body}</div>', text
    )


def _list(labels: dict[str, str], ids: dict[str, str], chosen: str, side: int) -> str:
    options = "".join(
        f'<option value="{ids[codec]}"{" selected" if codec == chosen else ""}>{html.escape(label)}</option>'
        for codec, label in labels.items()
    )
    where = "left" if side == 0 else "right"
    script = html.escape(_CHOOSE.replace("{side}", str(side)), quote=True)
    return f'<label>{where} <select aria-label="Codec on the {where}" onchange="{script}">{options}</select></label> '
