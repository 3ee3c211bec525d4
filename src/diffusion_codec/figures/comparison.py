"""Crops of photographs out of the files of several codecs, with the size of each file under it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.codecs import Pixels
from diffusion_codec.evaluation.findings import number
from diffusion_codec.evaluation.pictures import ORIGINAL, Picture
from diffusion_codec.figures.rate_distortion import CEILING, OWN, line
from diffusion_codec.figures.style import WIDTH, canvas

TEXT_HEIGHT = 0.62
"""Inches for the lines above and below a crop."""

CROP = 192
COLUMNS = 4


@dataclass(frozen=True)
class Motif:
    """What a photograph shows, for readers who do not see it, and where to look closely (parts of its size)."""

    description: str
    at: tuple[float, float] = (0.5, 0.5)


MOTIFS = {
    "kodim04": Motif("a woman with a red hat and long dark hair", (0.5, 0.36)),
    "kodim05": Motif("motocross riders waiting side by side", (0.4, 0.5)),
    "kodim07": Motif("pink flowers in front of a shuttered window", (0.62, 0.5)),
    "kodim08": Motif("house fronts of a crowded old town", (0.5, 0.5)),
    "kodim15": Motif("a girl with a painted face", (0.55, 0.42)),
    "kodim19": Motif("a lighthouse behind a white picket fence", (0.5, 0.45)),
    "kodim20": Motif("a propeller aeroplane with a yellow nose, parked on grass", (0.42, 0.55)),
    "kodim21": Motif("a lighthouse on a rocky shore", (0.62, 0.5)),
    "kodim23": Motif("two macaws, one red, one blue and yellow", (0.3, 0.4)),
    "kodim24": Motif("a timber-framed house with a painted wall", (0.45, 0.5)),
    "astronaut": Motif("an astronaut in an orange suit in front of a flag", (0.44, 0.26)),
    "chelsea": Motif("a tabby cat", (0.45, 0.4)),
    "coffee": Motif("a cup of coffee on a wooden table", (0.5, 0.5)),
}


def motif(image: str) -> Motif:
    """The motif of a known photograph; otherwise its name and its middle."""
    return MOTIFS.get(image, Motif(f"the photograph {image}"))


def grid(pictures: Sequence[Picture], folder: Path) -> Figure:
    """The same crop out of every picture of a photograph, the original first; each photograph begins a row.

    Raises BadInputError where there is no picture.
    """
    places = [
        place for image in dict.fromkeys(p.image for p in pictures) for place in _places(pictures, image)
    ]
    if not places:
        raise BadInputError("a comparison needs pictures")
    rows = len(places) // COLUMNS
    side = WIDTH / COLUMNS
    figure, axes = canvas(rows, COLUMNS, height=side + TEXT_HEIGHT, layout=None)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture in zip(axes.flat, places, strict=True):
        if picture is None:
            continue
        axis.imshow(crop(picture.pixels(folder), motif(picture.image).at), interpolation="lanczos")
        axis.set_title(_title(picture), fontsize=8.5, loc="left", pad=3)
        axis.text(0, -0.03, _size(picture), transform=axis.transAxes, fontsize=7.8, va="top", linespacing=1.3)
    # by hand: no text may push the photographs apart
    height = rows * (side + TEXT_HEIGHT)
    top, bottom = 1 - 0.2 / height, (TEXT_HEIGHT - 0.2) / height
    figure.subplots_adjust(0, bottom, 1, top, wspace=0.04, hspace=TEXT_HEIGHT / side)
    return figure


def _places(pictures: Sequence[Picture], image: str) -> list[Picture | None]:
    """The pictures of one photograph, the original first, and what of the last row stays empty."""
    own = [picture for picture in pictures if picture.image == image]
    own.sort(key=lambda picture: picture.codec != ORIGINAL)
    return [*own, *[None] * (-len(own) % COLUMNS)]


def crop(pixels: Pixels, at: tuple[float, float], side: int = CROP) -> Pixels:
    """The square of `side` pixels (or the whole shorter side) round a point, moved inside the picture."""
    height, width = pixels.shape[:2]
    side = min(side, height, width)
    left = min(max(round(at[0] * width) - side // 2, 0), width - side)
    top = min(max(round(at[1] * height) - side // 2, 0), height - side)
    return pixels[top : top + side, left : left + side]


def _title(picture: Picture) -> str:
    if picture.codec == ORIGINAL:
        return "original"
    if picture.codec.startswith(CEILING):
        return "autoencoder alone"
    own = picture.codec.startswith(OWN)
    return line(picture.codec).label.split(", ")[-1] if own else line(picture.codec).label


def describe(picture: Picture) -> str:
    """One line for a list: what made the picture, and the bytes of its file."""
    if picture.bytes is None or picture.bpp is None:
        return _title(picture)
    return f"{_title(picture)}: {number(picture.bytes, ',')} bytes, {picture.bpp:.3f} bpp"


def _size(picture: Picture) -> str:
    """Two lines: bytes and rate of the whole file, the distance of the whole photograph."""
    size = "no file"
    if picture.bytes is not None and picture.bpp is not None:
        size = f"{number(picture.bytes, ',')} bytes, {picture.bpp:.3f} bpp"
    if picture.codec == ORIGINAL or picture.lpips is None:
        return size
    above = picture.bpp is not None and picture.bpp > picture.target_bpp
    return f"{size}\nLPIPS {picture.lpips:.3f}" + (" · its smallest file" if above else "")
