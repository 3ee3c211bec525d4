"""Pictures with text in known places: pages, tables, number plates, signs; and photographs read by eye."""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from diffusion_codec import datasets
from diffusion_codec.audit.subjects import Subject
from diffusion_codec.evaluation.codecs import Pixels

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

WIDTH, HEIGHT = 384, 256
FONTS = {"sans": "DejaVuSans", "serif": "DejaVuSerif", "mono": "DejaVuSansMono"}
SIZES = (9, 12, 16, 24)
PAGE_LINES = 4
PLATE_HEIGHTS = (12, 16, 20, 26, 34, 44)
SIGNS = (
    ("EXIT 24", "white", "#00623B"),
    ("NO PARKING", "#B01020", "white"),
    ("PLATFORM 7", "white", "#1A3C8C"),
    ("DANGER 11 kV", "black", "#F2C200"),
)
# fmt: off
WORDS = (
    "account", "address", "amount", "april", "august", "balance", "before", "between", "bridge", "capital",
    "centre", "certificate", "change", "charge", "claim", "client", "copy", "court", "customer", "date",
    "december", "delivery", "deposit", "district", "dollar", "during", "eastern", "eight", "eleven",
    "engine", "evening", "fifty", "figure", "first", "forty", "fourth", "general", "ground", "hundred",
    "invoice", "january", "judge", "land", "letter", "license", "market", "master", "meter", "minute",
    "monday", "morning", "north", "notice", "number", "october", "order", "owner", "paid", "passport",
    "pension", "police", "price", "quarter", "receipt", "record", "report", "result", "right", "river",
    "second", "series", "seven", "signed", "sixteen", "southern", "station", "street", "summer", "sunday",
    "table", "tenant", "thirty", "total", "travel", "twelve", "value", "village", "voucher", "witness",
)
# fmt: on


@dataclass(frozen=True)
class TextLine:
    """One line of text and the box it stands in."""

    text: str
    box: Box


Text = tuple[TextLine, ...]


@dataclass(frozen=True)
class Read:
    """A part of a photograph (`box`) and the lines in it, read by a person; their boxes are within the part."""

    dataset: str
    image: str
    box: Box
    lines: Text


PHOTOGRAPHS = (
    Read("kodak", "kodim05", (96, 144, 288, 336), (TextLine("SUZUKI", (54, 70, 116, 106)),)),
    Read(
        "kodak",
        "kodim14",
        (448, 320, 704, 512),
        (TextLine("SNOWMASS", (54, 46, 182, 86)), TextLine("WHITEWATER", (54, 87, 192, 130))),
    ),
    Read(
        "coco-val2017-128", "000000000885", (64, 32, 480, 160), (TextLine("J.P.Morgan", (6, 16, 410, 110)),)
    ),
    Read(
        "coco-val2017-128",
        "000000001532",
        (72, 208, 280, 288),
        (
            TextLine("NORTH", (8, 14, 62, 38)),
            TextLine("101", (18, 36, 58, 62)),
            TextLine("Ventura", (62, 28, 148, 56)),
            TextLine("NORTH", (148, 6, 206, 28)),
            TextLine("101", (152, 25, 196, 52)),
        ),
    ),
    Read("coco-val2017-128", "000000002006", (368, 320, 560, 448), (TextLine("NA52BUU", (52, 54, 128, 80)),)),
    Read("coco-val2017-128", "000000005037", (128, 288, 320, 400), (TextLine("SN55JVK", (42, 32, 112, 68)),)),
    Read("coco-val2017-128", "000000005037", (272, 224, 416, 304), (TextLine("65745", (34, 20, 94, 54)),)),
    Read("coco-val2017-128", "000000011122", (160, 128, 416, 320), (TextLine("STOP", (82, 44, 178, 106)),)),
    Read(
        "coco-val2017-128",
        "000000011615",
        (64, 240, 416, 480),
        (
            TextLine("Koelnmesse", (30, 8, 330, 96)),
            TextLine("P", (12, 116, 82, 186)),
            TextLine("Im Sionstal", (98, 126, 336, 200)),
        ),
    ),
)

SCAN = (
    TextLine("Region-based segmentation", (0, 8, 384, 40)),
    TextLine("Let us first determine markers of the coins and the", (0, 44, 384, 72)),
)
"""The page scanned in scikit-image's `page`, its first two lines (the reader misses others even there)."""


def subjects() -> list[Subject[Text]]:
    """All of them, in a fixed order. Raises MissingDataError where photographs cannot be had."""
    return [*drawn(), _scan(), *_photographs()]


def drawn() -> list[Subject[Text]]:
    """Those that need no photographs but the embedded ones."""
    return [*_pages(), *_tables(), *_plates(), *_signs()]


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    # the basic layout draws alike whether or not Pillow finds a text shaping library
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _write(
    image: Image.Image, at: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, ink: str
) -> TextLine:
    draw = ImageDraw.Draw(image)
    draw.text(at, text, font=font, fill=ink)
    left, top, right, bottom = (round(value) for value in draw.textbbox(at, text, font=font))
    return TextLine(text, (left, top, right, bottom))


def _page(name: str, font: ImageFont.FreeTypeFont, lines: Iterator[str]) -> Subject[Text]:
    image = Image.new("RGB", (WIDTH, HEIGHT), "#FBFAF6")
    leading = round(1.55 * font.size)
    count = min(PAGE_LINES, (HEIGHT - 16) // leading)
    written = [_write(image, (10, 8 + i * leading), next(lines), font, "#1A1A1A") for i in range(count)]
    return Subject(name, _grain(image), tuple(written))


def _pages() -> Iterator[Subject[Text]]:
    for kind, file in FONTS.items():
        for size in SIZES:
            font, name = _font(file, size), f"page-{kind}-{size}"
            yield _page(name, font, _sentences(random.Random(name), font, WIDTH - 24))


def _sentences(rng: random.Random, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Lines of words and numbers in no order that a reader could guess from."""
    while True:
        line = ""
        while True:
            word = rng.choice(WORDS) if rng.random() < 0.75 else str(rng.randint(10, 9999))
            longer = f"{line} {word}".strip()
            if font.getlength(longer) > width:
                break
            line = longer
        yield line


def _tables() -> Iterator[Subject[Text]]:
    for size in (10, 14, 20):
        font, name = _font("DejaVuSansMono", size), f"table-{size}"
        rng = random.Random(name)
        rows = (
            f"{rng.choice(WORDS)[:8]:<9}{rng.randint(100, 999)}  {rng.randint(1000, 9999)}" for _ in range(99)
        )
        yield _page(name, font, rows)


def _plates() -> Iterator[Subject[Text]]:
    """Number plates in photographs that carry no other text, from large to as small as a car across the street."""
    for i, height in enumerate(PLATE_HEIGHTS):
        rng = random.Random(f"plate {i}")
        letters = [rng.choice(string.ascii_uppercase) for _ in range(5)]
        text = f"{''.join(letters[:2])}{rng.randint(10, 99)} {''.join(letters[2:])}"
        yield _mounted(f"plate-{height}", text, height, "black", "#F4F4F0", i, "DejaVuSans-Bold")


def _signs() -> Iterator[Subject[Text]]:
    for i, (text, ink, ground) in enumerate(SIGNS):
        yield _mounted(f"sign-{i + 1}", text, 22 + 6 * i, ink, ground, i + 1, "DejaVuSans-Bold")


def _mounted(
    name: str, text: str, height: int, ink: str, ground: str, place: int, file: str
) -> Subject[Text]:
    """A board with one line of text (`height`: of its font, in pixels) in a photograph."""
    photographs = [item for item in datasets.load("sample") if item.id in ("chelsea", "coffee", "rocket")]
    scene = Image.fromarray(photographs[place % 3].pixels())
    left, top = min(40 + 17 * place, scene.width - WIDTH), min(20 + 9 * place, scene.height - HEIGHT)
    image = scene.crop((left, top, left + WIDTH, top + HEIGHT))
    font = _font(file, height)
    width, pad = round(font.getlength(text)), height // 3
    x, y = (WIDTH - width) // 2, HEIGHT // 2 - height
    board = (x - pad, y - pad // 2, x + width + pad, y + round(1.2 * height) + pad // 2)
    rim = max(1, height // 12)
    ImageDraw.Draw(image).rounded_rectangle(board, pad // 2, fill=ground, outline=ink, width=rim)
    line = _write(image, (x, y), text, font, ink)
    return Subject(name, _grain(image.filter(ImageFilter.GaussianBlur(0.5))), (line,))


def _scan() -> Subject[Text]:
    import skimage.data

    images: Any = skimage.data  # its functions have no types
    grey = np.asarray(images.page(), np.uint8)[:72]
    return Subject("scan-page", np.repeat(grey[..., None], 3, -1), SCAN)


def _photographs() -> Iterator[Subject[Text]]:
    for number, read in enumerate(PHOTOGRAPHS):
        item = next(item for item in datasets.load(read.dataset) if item.id == read.image)
        left, top, right, bottom = read.box
        pixels = np.ascontiguousarray(item.pixels()[top:bottom, left:right])
        yield Subject(f"photo-{number + 1}-{read.image}", pixels, read.lines)


def _grain(image: Image.Image, deviation: float = 2.0) -> Pixels:
    """What a camera or a scanner adds: a little noise, the same for everyone."""
    rng = np.random.Generator(np.random.Philox(0))
    levels = np.asarray(image, np.float64) + deviation * rng.standard_normal((image.height, image.width, 1))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
