"""Fine structure through a codec: charts whose objects are known are counted before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_codec.audit.subjects import Findings, Subject
from diffusion_codec.evaluation.codecs import Pixels

HEIGHT, WIDTH = 256, 384
PITCHES = (6, 8, 12, 16, 24, 36)
NEAR = 0.35
"""An object is found if something is counted within this part of the pitch of where it is."""

SPECK = 0.25
"""Anything smaller than this part of an object is not counted."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Chart:
    """What is drawn: the kind, pixels from object to object, grey levels of objects and ground, where objects are.

    `centres` (row, column) come from the drawing itself, before any grain or codec.
    """

    kind: str
    pitch: int
    ink: float
    ground: float
    area: float
    centres: tuple[tuple[float, float], ...]


def windows(pitch: int, rng: np.random.Generator) -> Mask:
    """Windows of a house front: upright dark rectangles on a grid."""
    y, x = _grid()
    return (y % pitch < max(3, round(0.62 * pitch))) & (x % pitch < max(2, round(0.45 * pitch)))


def bricks(pitch: int, rng: np.random.Generator) -> Mask:
    """Bricks in running bond: every other course is moved by half a brick; the joints are what is light."""
    y, x = _grid()
    joint = max(2, round(0.2 * pitch))
    course = y // pitch
    along = (x + (course % 2) * pitch) % (2 * pitch)
    return (y % pitch < pitch - joint) & (along < 2 * pitch - joint)


def lines(pitch: int, rng: np.random.Generator) -> Mask:
    """Upright lines as wide as the gaps between them: a fence, a shutter, hatching."""
    _, x = _grid()
    return x % pitch < pitch // 2


def dots(pitch: int, rng: np.random.Generator) -> Mask:
    """Small round objects scattered about: people in a square, birds, pills."""
    return _scattered(pitch, rng, 0.3 * pitch, 0.3 * pitch)


def leaves(pitch: int, rng: np.random.Generator) -> Mask:
    """Long shapes in all directions: foliage, grain."""
    return _scattered(pitch, rng, 0.36 * pitch, 0.2 * pitch)


KINDS: dict[str, Callable[[int, np.random.Generator], Mask]] = {
    "windows": windows,
    "bricks": bricks,
    "lines": lines,
    "dots": dots,
    "leaves": leaves,
}


def _grid() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of every pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return y, x


def _scattered(pitch: int, rng: np.random.Generator, long: float, short: float) -> Mask:
    """An ellipse of half axes `long` and `short` in every cell, off its middle and turned at random."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rows, columns = (y // pitch).astype(int), (x // pitch).astype(int)
    shape = (rows.max() + 1, columns.max() + 1)
    free = max(0.5 * pitch - long - 1.0, 0.0)
    dy, dx = rng.uniform(-free, free, (2, *shape))
    angle = rng.uniform(0, np.pi, shape)[rows, columns]
    v = y - (rows + 0.5) * pitch - dy[rows, columns]
    u = x - (columns + 0.5) * pitch - dx[rows, columns]
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    inside: Mask = (along / long) ** 2 + (across / short) ** 2 <= 1
    return inside


def draw(kind: str, pitch: int) -> Subject[Chart]:
    """One chart: two colours, light that falls off to one side, a little grain."""
    rng = np.random.Generator(np.random.Philox([list(KINDS).index(kind), pitch]))
    mask = _inner(KINDS[kind](pitch, rng), pitch, kind)
    ink, ground = _colours(rng)
    light = np.linspace(-8, 8, WIDTH)[None, :, None]
    levels = np.where(mask[..., None], ink, ground) + light + 3 * rng.standard_normal((HEIGHT, WIDTH, 1))
    pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    found = _components(mask)
    area = float(np.median([size for _, size in found]))
    chart = Chart(kind, pitch, _luma(ink), _luma(ground), area, tuple(centre for centre, _ in found))
    return Subject(f"{kind}-{pitch}", pixels, chart)


def _inner(mask: Mask, pitch: int, kind: str) -> Mask:
    """Only whole cells, with plain ground around them: no object is cut by the border."""
    kept = np.zeros_like(mask)
    wide = 2 * pitch if kind == "bricks" else pitch
    rows, columns = (HEIGHT // pitch) * pitch, (WIDTH // wide) * wide
    top = 0 if kind == "lines" else pitch
    kept[top : HEIGHT if kind == "lines" else rows - pitch, wide : columns - wide] = True
    if kind == "bricks":  # courses that are moved have half bricks at both ends
        y, x = _grid()
        odd = (y // pitch) % 2 == 1
        kept &= ~(odd & ((x < wide + pitch) | (x >= columns - wide - pitch)))
    inner: Mask = mask & kept
    return inner


def _colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ink and ground: as far apart as dark windows in a light wall, with a tint."""
    dark, light = rng.uniform(40, 80), rng.uniform(170, 210)
    tint = rng.uniform(-18, 18, (2, 3))
    return dark + tint[0], light + tint[1]


def _luma(colour: NDArray[np.float64]) -> float:
    red, green, blue = colour.tolist()  # a matrix product rounds as the processor likes
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


def count(pixels: Pixels, chart: Chart) -> list[tuple[float, float]]:
    """Centres (row, column) of everything that looks like one of the chart's objects.

    The picture is cut at the level half-way between ink and ground; connected pixels are one object, specks are
    none. Lines are counted in the mean over the whole height: a line with a gap is still one line.
    """
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    if chart.kind == "lines":
        grey = np.repeat(grey.mean(0, keepdims=True), len(grey), 0)
    mask = grey < (chart.ink + chart.ground) / 2
    return [centre for centre, size in _components(mask) if size >= SPECK * chart.area]


def _components(mask: Mask) -> list[tuple[tuple[float, float], int]]:
    """(centre, pixels) of each connected part; straight neighbours only, so that corners do not join."""
    import skimage.measure

    tools: Any = skimage.measure  # its functions have no types
    parts = tools.regionprops(tools.label(mask, connectivity=1))
    return [((float(p.centroid[0]), float(p.centroid[1])), int(p.area)) for p in parts]


def match(chart: Chart, counted: Sequence[tuple[float, float]]) -> int:
    """How many true objects have a counted one near them, each counted one used once."""
    from scipy.spatial import cKDTree

    if not counted:
        return 0
    distance, which = cKDTree(counted).query(chart.centres)
    near = distance <= max(NEAR * chart.pitch, 1.5)
    return len(set(which[near].tolist()))


class PatternExaminer:
    """Counts what is on each chart after a codec."""

    name = "audit-patterns"
    origin = "drawn"
    protocols = dict.fromkeys(
        ("objects", "counted", "found", "invented"),
        f"connected parts below the middle level, {SPECK:g} of an object or larger; found within {NEAR:g} of the pitch",
    )

    @cached_property
    def subjects(self) -> Sequence[Subject[Chart]]:
        """Five kinds at six pitches."""
        return [draw(kind, pitch) for kind in KINDS for pitch in PITCHES]

    def examine(self, index: int, decoded: Pixels) -> Findings:
        """Objects there were, counted, found where they were, and counted where none was."""
        chart = self.subjects[index].truth
        counted = count(decoded, chart)
        found = match(chart, counted)
        values = {
            "objects": len(chart.centres),
            "counted": len(counted),
            "found": found,
            "invented": len(counted) - found,
        }
        return Findings({name: float(value) for name, value in values.items()})
