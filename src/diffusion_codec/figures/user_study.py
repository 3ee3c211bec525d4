"""Preferences: ratings with intervals, shares at multiples of the bitrate, and what a study takes."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter, StrMethodFormatter

from diffusion_codec.figures.rate_distortion import interval, line, metric_label
from diffusion_codec.figures.style import COLOURS, canvas


def ratings(table: pd.DataFrame) -> Figure:
    """Elo of every condition, best on top, with intervals over raters (thick) and over photographs (thin).

    Columns: condition, elo, low_raters, high_raters, low_images, high_images.
    """
    figure, axes = canvas(height=0.33 * len(table) + 0.9)
    axis, rows = axes[0, 0], table[::-1].reset_index(drop=True)
    for k, row in rows.iterrows():
        axis.plot([row["low_images"], row["high_images"]], [k, k], color=COLOURS["sky"], linewidth=1.6)
        axis.plot(
            [row["low_raters"], row["high_raters"]], [k, k], color=COLOURS["blue"], linewidth=4, alpha=0.75
        )
    axis.plot(rows["elo"], range(len(rows)), "o", color=COLOURS["vermilion"], markersize=6)
    axis.set_yticks(range(len(rows)), rows["condition"])
    axis.set_xlabel("Elo (Bradley-Terry, mean 1500)")
    axis.grid(axis="y", visible=False)
    handles = [
        axis.plot([], [], "o", color=COLOURS["vermilion"], label="estimate")[0],
        axis.plot([], [], color=COLOURS["blue"], linewidth=4, alpha=0.75, label="95 %, other raters")[0],
        axis.plot([], [], color=COLOURS["sky"], linewidth=1.6, label="95 %, other photographs")[0],
    ]
    axis.legend(handles=handles, loc="lower right")
    return figure


def multiples(table: pd.DataFrame, panels: str | None = None) -> Figure:
    """Share that prefers the codec to rivals at multiples of its bitrate, one line a rival.

    Columns: rival, ratio (of the real files), share, low, high, and the one named by `panels`, a panel each.
    """
    groups = [("", table)] if panels is None else list(table.groupby(panels, sort=False))
    figure, axes = canvas(columns=len(groups), sharey=True)
    for axis, (name, rows) in zip(axes[0], groups, strict=True):
        _lines(axis, rows)
        if name:
            axis.set_title(f"judged by {metric_label(str(name))}")
    figure.supxlabel("the other's bitrate, in multiples of this codec's", fontsize=9.5)
    axes[0, 0].set_ylabel("prefers this codec")
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1))
    axes[0, 0].set_ylim(0, 1)
    axes[0, -1].legend(loc="lower left")
    return figure


def _lines(axis: Axes, rows: pd.DataFrame) -> None:
    axis.axhline(0.5, color=COLOURS["black"], linewidth=0.8, linestyle=(0, (4, 3)))
    for rival, group in rows.groupby("rival"):
        look = line(str(rival))
        ordered = group.sort_values("ratio")
        interval(axis, ordered["ratio"], ordered, ordered["share"], look.colour)
        axis.plot(ordered["ratio"], ordered["share"], marker=look.marker, color=look.colour, label=look.label)


def needed(curves: dict[str, Sequence[tuple[int, int | None]]]) -> Figure:
    """Raters against photographs, one line a preference; where no number of raters is enough the line stops."""
    figure, axes = canvas()
    axis = axes[0, 0]
    for (name, points), colour in zip(
        curves.items(), ("vermilion", "blue", "green", "purple", "orange"), strict=False
    ):
        known = [(images, raters) for images, raters in points if raters is not None]
        if known:
            axis.plot(*zip(*known, strict=True), marker="o", color=COLOURS[colour], label=name)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    counts = sorted({images for points in curves.values() for images, _ in points})
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axis.set_xlabel("photographs, each judged once by every rater")
    axis.set_ylabel("raters")
    axis.minorticks_off()
    axis.legend()
    return figure
