"""Quality against the bits of real files, with the backbone's ceiling in every panel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from diffusion_codec import metrics
from diffusion_codec.evaluation.findings import LABELS
from diffusion_codec.evaluation.tables import NotComparableError
from diffusion_codec.figures.style import COLOURS, canvas

TICKS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
CEILING, OWN = "ceiling-", "dfc-"


@dataclass(frozen=True)
class Line:
    """How a codec is drawn: also without colour it is told by marker and dashes."""

    label: str
    colour: str
    marker: str
    dashes: Any = "-"
    width: float = 1.5


_CONVENTIONAL = {
    "avif": Line(LABELS["avif"], COLOURS["blue"], "s"),
    "avif-slow": Line(LABELS["avif-slow"], COLOURS["sky"], "s", "--"),
    "jpeg2000": Line(LABELS["jpeg2000"], COLOURS["green"], "^"),
    "webp": Line(LABELS["webp"], COLOURS["purple"], "D"),
    "jpeg": Line(LABELS["jpeg"], COLOURS["grey"], "v"),
    "jpegli": Line(LABELS["jpegli"], COLOURS["grey"], "<", ":"),
    "jpeg-xl": Line(LABELS["jpeg-xl"], COLOURS["green"], ">", "--"),
    "heic": Line(LABELS["heic"], COLOURS["purple"], "p", "--"),
    "vvc": Line(LABELS["vvc"], COLOURS["black"], "P", "-", 1.8),
}
_VARIANTS = {
    "paper-2024": ("as the 2024 paper", "X", "-."),
    "paper-2025": ("as the 2025 follow-up", "*", (0, (5, 1))),
    "independent": ("with α and t independent", "h", ":"),
}


def line(codec: str) -> Line:
    """The look of a codec by its name in the records."""
    if codec in _CONVENTIONAL:
        return _CONVENTIONAL[codec]
    if codec.startswith(CEILING):
        backbone = codec.removeprefix(CEILING)
        return Line(f"ceiling: autoencoder of {backbone}, no file", COLOURS["black"], "", (0, (4, 3)), 1.2)
    if codec.startswith(OWN):
        model, _, steps = codec.removeprefix(OWN).partition("@")
        backbone, _, weights = model.partition(":")
        if weights:
            label, marker, dashes = _VARIANTS.get(weights, (weights, "d", ":"))
            return Line(f"this codec ({backbone}), {label}", COLOURS["vermilion"], marker, dashes)
        if steps:
            label = "without denoising" if steps == "0" else "one step" if steps == "1" else f"{steps} steps"
            return Line(
                f"this codec ({backbone}), {label}", COLOURS["orange"], "o", "--" if steps == "0" else ":"
            )
        return Line(f"this codec ({backbone})", COLOURS["vermilion"], "o", "-", 2.2)
    return Line(codec, COLOURS["black"], "x", ":")


def metric_label(metric: str) -> str:
    """A metric's name, its unit and which way is better."""
    unit = " (dB)" if metric == "psnr" else ""
    better = "↑" if higher_is_better(metric) else "↓"
    return f"{LABELS.get(metric, metric)}{unit} {better}"


def higher_is_better(metric: str) -> bool:
    """Which way a metric points; distances of sets (FID, KID) point down."""
    return metric in metrics.names() and metrics.get(metric).higher_is_better


def curves(summary: pd.DataFrame, metric_names: Sequence[str]) -> Figure:
    """One panel a metric: means at the measured rate, bands of 95 % (bootstrap over images), the ceiling.

    A rate at which a codec lacks some image is left out: its mean would be over other photographs. Raises
    NotComparableError for a summary of more than one data set.
    """
    if summary["dataset"].nunique() > 1:
        raise NotComparableError(
            f"one figure shows one data set, not {', '.join(summary['dataset'].unique())}"
        )
    figure, axes = canvas(columns=len(metric_names), height=3.9)
    for axis, metric in zip(axes[0], metric_names, strict=True):
        rows = summary[(summary["metric"] == metric) & (summary["missing"] == 0)]
        if "protocol" in rows and rows["protocol"].nunique() > 1:
            raise NotComparableError(
                f"one axis shows one protocol, not {rows['protocol'].nunique()} of {metric}: "
                f"{'; '.join(sorted(rows['protocol'].unique()))}"
            )
        for codec in _drawn_order(rows["codec"].unique()):
            _draw(axis, codec, rows[rows["codec"] == codec].sort_values("bpp"))
        axis.set_title(metric_label(metric))
        rate_axis(axis, rows["bpp"])
    legend(figure, axes)
    return figure


def denoising(gain: pd.DataFrame, metric_names: Sequence[str]) -> Figure:
    """What denoising changes in the same files (`findings.denoising_gain`), one panel a metric."""
    figure, axes = canvas(columns=len(metric_names), height=2.8)
    for axis, metric in zip(axes[0], metric_names, strict=True):
        rows = gain[gain["metric"] == metric]
        error = np.stack([rows["difference"] - rows["low"], rows["high"] - rows["difference"]])
        error = np.clip(np.nan_to_num(error), 0, None)
        axis.axhline(0, color=COLOURS["black"], linewidth=0.9)
        axis.errorbar(
            rows["bpp"],
            rows["difference"],
            yerr=error,
            color=COLOURS["vermilion"],
            marker="o",
            linestyle="",
            capsize=3,
        )
        axis.set_title(f"Change of {metric_label(metric)}")
        rate_axis(axis, rows["bpp"])
    return figure


def steps(summary: pd.DataFrame, metric_names: Sequence[str], default: int) -> Figure:
    """Quality against the number of denoising steps, one line a rate, one panel a metric."""
    figure, axes = canvas(columns=len(metric_names), height=3.1)
    colours = ("blue", "vermilion", "green", "purple", "orange", "sky", "grey", "black")
    looks = list(zip(colours, "osD^vPX*", strict=True))
    for axis, metric in zip(axes[0], metric_names, strict=True):
        rows = summary[(summary["metric"] == metric) & summary["steps"].notna()]
        for number, (rate, group) in enumerate(rows.groupby("target_bpp")):
            colour, marker = looks[number % len(looks)]
            group = group.sort_values("steps")
            axis.plot(
                group["steps"],
                group["value"],
                color=COLOURS[colour],
                marker=marker,
                label=f"{rate:g} bits per pixel asked for, {group['bpp'].mean():.3f} measured",
            )
        if default in set(rows["steps"]):
            axis.axvline(default, color=COLOURS["grey"], linewidth=0.9, linestyle=":")
        axis.set_title(metric_label(metric))
        axis.set_xlabel("denoising steps")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(-0.3, 1.4 * rows["steps"].max())
        tried = sorted(int(count) for count in rows["steps"].unique())
        axis.set_xticks(tried, labels=map(str, tried))
        axis.minorticks_off()
    legend(figure, axes)
    return figure


def _drawn_order(codecs: Iterable[str]) -> list[str]:
    """Conventional codecs first, so that this codec lies on top; the ceiling at the bottom."""
    return sorted(codecs, key=lambda name: (name.startswith(OWN), not name.startswith(CEILING), name))


def _draw(axis: Any, codec: str, rows: pd.DataFrame) -> None:
    look = line(codec)
    if codec.startswith(CEILING):
        row = rows.iloc[0]
        axis.axhline(
            row["value"], color=look.colour, linestyle=look.dashes, linewidth=look.width, label=look.label
        )
        return
    interval(axis, rows["bpp"], rows, rows["value"], look.colour)
    axis.plot(
        rows["bpp"],
        rows["value"],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dashes,
        linewidth=look.width,
        label=look.label,
    )


def interval(axis: Any, x: pd.Series, rows: pd.DataFrame, value: pd.Series, colour: str) -> None:
    """A band from `low` to `high` about a line; about a single point, which no band would show, a bar."""
    if len(rows) > 1:
        axis.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.13, linewidth=0)
    else:
        error = np.clip([value - rows["low"], rows["high"] - value], 0, None)
        axis.errorbar(x, value, yerr=error, color=colour, linestyle="", capsize=3)


def rate_axis(axis: Any, rates: pd.Series) -> None:
    """A logarithmic axis of bits per pixel with readable ticks over the rates given."""
    axis.set_xscale("log")
    axis.set_xlabel("bits per pixel of the files (logarithmic)")
    known = rates.dropna()
    if known.empty:
        return
    low, high = known.min() / 1.12, known.max() * 1.12
    axis.set_xlim(low, high)
    round_ones = [tick for tick in TICKS if low <= tick <= high]
    if len(round_ones) < 3:
        found = MaxNLocator(4).tick_values(low, high)
        round_ones = found[(found >= low) & (found <= high)].tolist()
    axis.set_xticks(round_ones)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def legend(figure: Figure, axes: np.ndarray[Any, Any]) -> None:
    """One legend below all panels, each entry once, in up to three columns: as many as the figure's width holds."""
    entries = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    for columns in (3, 2, 1):
        drawn = figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns
        )
        if columns == 1 or drawn.get_window_extent().width <= figure.bbox.width:
            return
        drawn.remove()
