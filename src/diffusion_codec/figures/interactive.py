"""The curves once more for the pointer: hover for numbers, click a codec away. Needs no network.

The book keeps one copy of plotly's script; a page asks for it by a relative address. Where a notebook runs alone, that
address leads nowhere and Jupyter shows the figure from plotly's own JSON, or the print.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from diffusion_codec.evaluation.tables import NotComparableError
from diffusion_codec.figures.rate_distortion import CEILING, line, metric_label

SCRIPT = "../_static/plotly.min.js"
"""From a page in `notebooks/` of the built site."""

_SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "<": "triangle-left",
    ">": "triangle-right", "p": "pentagon", "P": "cross", "X": "x", "*": "star", "h": "hexagon",
}  # fmt: skip
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


@dataclass(frozen=True)
class Interactive:
    """A plotly figure for a notebook's cell, with a print of it for readers without scripts."""

    figure: Any
    print: Path
    alt: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        markup = self.figure.to_html(
            full_html=False, include_plotlyjs=SCRIPT, include_mathjax=False, config={"responsive": True}
        )
        shown: dict[str, Any] = {"text/html": markup, "text/plain": self.alt}
        if self.print.suffix == ".png":
            shown["image/png"] = base64.b64encode(self.print.read_bytes()).decode("ascii")
        return shown


def curves(summary: pd.DataFrame, metric: str) -> Any:
    """One metric against the bits per pixel of the files, with intervals; codecs can be clicked away.

    Raises NotComparableError for more than one data set or protocol.
    """
    rows = summary[(summary["metric"] == metric) & (summary["missing"] == 0)]
    for column in ("dataset", "protocol"):
        if column in rows and rows[column].nunique() > 1:
            raise NotComparableError(f"one axis shows one {column}, not {', '.join(rows[column].unique())}")
    figure = go.Figure()
    for codec, points in rows.groupby("codec"):
        _add(figure, str(codec), points.sort_values("bpp"))
    figure.update_layout(
        template="plotly_white",
        height=460,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        yaxis_title=metric_label(metric),
        xaxis={
            "title": "bits per pixel of the files",
            "type": "log",
            "tickvals": [0.03, 0.05, 0.1, 0.2, 0.3, 0.5],
        },
        legend={"orientation": "h", "y": -0.2},
        hovermode="closest",
    )
    return figure


def _add(figure: Any, codec: str, points: pd.DataFrame) -> None:
    look = line(codec)
    if codec.startswith(CEILING):
        figure.add_hline(
            y=float(points["value"].iloc[0]),
            line={"color": look.colour, "dash": "dash", "width": 1.5},
            annotation_text=look.label,
            annotation_position="top left",
        )
        return
    figure.add_scatter(
        x=points["bpp"],
        y=points["value"],
        name=look.label,
        mode="lines+markers",
        line={"color": look.colour, "dash": _DASHES.get(look.dashes, "solid"), "width": look.width},
        marker={"symbol": _SYMBOLS.get(look.marker, "circle"), "size": 8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": points["high"] - points["value"],
            "arrayminus": points["value"] - points["low"],
            "thickness": 0.8,
            "width": 2,
        },
        hovertemplate="%{x:.4f} bits per pixel: %{y:.4f}<extra>" + look.label + "</extra>",
    )
