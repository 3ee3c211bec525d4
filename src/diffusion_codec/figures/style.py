"""The one style of all figures: colours by name, files that come out the same every time.

style.use()
figure, axes = style.canvas(columns=2)
...
style.keep(figure, folder / "noise.svg", "What the figure shows, for readers who do not see it.")
"""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from diffusion_codec.files import write_atomically

# Okabe and Ito (2008): told apart by readers with any kind of colour vision, and in grey by their lightness.
COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
    "grey": "#7F7F7F",
}
ORDER = ("vermilion", "blue", "green", "purple", "orange", "sky", "grey", "black")
WIDTH = 7.4
"""Inches: the width of the book's text column."""

PANEL_HEIGHT = 3.3
DOTS_PER_INCH = 180

_SETTINGS: dict[str, Any] = {
    "axes.edgecolor": "#444444",
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.dpi": 110,
    "figure.facecolor": "white",  # the site's dark mode shows figures on their own white
    "font.size": 9,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "savefig.dpi": DOTS_PER_INCH,
    "svg.fonttype": "path",
    "svg.hashsalt": "diffusion-codec",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


def use() -> None:
    """Set the style for everything drawn afterwards in this process."""
    palette = [COLOURS[name] for name in ORDER]
    sns.set_theme(context="notebook", style="whitegrid", palette=palette, rc=_SETTINGS)


def canvas(
    rows: int = 1, columns: int = 1, height: float = PANEL_HEIGHT, layout: Any = "constrained", **options: Any
) -> tuple[Figure, np.ndarray[Any, Any]]:
    """A figure as wide as the text and its axes, always rows x columns; `height` is inches a row.

    It is not registered with pyplot: nothing shows it twice, nothing has to close it.
    """
    figure = Figure(figsize=(WIDTH, height * rows), layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


_LADDERS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
"""Steps of a power of ten that a logarithmic axis may have."""


def plain_ticks(axis: Axis) -> None:
    """Plain decimals on a logarithmic axis: the coarsest ladder that has three ticks in view, else even steps."""
    low, high = axis.get_view_interval()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ladders = [[step * 10.0**power for power in powers for step in steps] for steps in _LADDERS]
    offered = [*ladders, MaxNLocator(4).tick_values(low, high)]
    seen = [[tick for tick in ticks if low <= tick <= high] for ticks in offered]
    ticks = next((ticks for ticks in seen if len(ticks) >= 3), seen[-1])
    axis.set_ticks(ticks, [f"{tick:,g}".replace(",", "\u202f") for tick in ticks])
    axis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Kept:
    """A figure on disk, shown by Jupyter and the book; its text is the description."""

    path: Path
    alt: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        data = self.path.read_bytes()
        shown = {"text/plain": self.alt}
        if self.path.suffix == ".svg":
            return shown | {"image/svg+xml": data.decode("utf-8")}
        return shown | {"image/png": base64.b64encode(data).decode("ascii")}


def keep(figure: Figure, path: Path, alt: str) -> Kept:
    """Write a figure (`.svg` for lines, `.png` for photographs) and hand it to the notebook's cell.

    Equal figures give equal files: no date is written into them.
    """
    buffer = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata)
    write_atomically(path, buffer.getvalue(), force=True)
    return Kept(path, alt)
