"""Figures of *Hallucination*, drawn from the tables of :mod:`diffusion_codec.audit.findings`."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from diffusion_codec.audit.findings import CEILING, CONSERVATIVE, ORIGINAL, OWN, SHARES
from diffusion_codec.audit.uncertainty import MEAN_OF_GAUSSIAN
from diffusion_codec.figures.rate_distortion import Line, line
from diffusion_codec.figures.style import COLOURS, WIDTH, canvas

TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
ORDER = ("jpeg", "webp", "avif", CONSERVATIVE, OWN)


def look(codec: str) -> Line:
    """A codec's line; the conservative decoder is told from the ordinary one by its dashes."""
    if codec == CONSERVATIVE:
        return Line("this codec (mini), cautious (fidelity 0)", COLOURS["orange"], "o", "--")
    return line(codec)


def shares(part: str, table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """One panel a share against the rate of the files; bands of 95 %, the autoencoder alone as a dashed level.

    Hollow marks: more than one picture in ten has a larger file than was asked for.
    """
    labels = {share.name: share.label for share in SHARES[part]}
    figure, axes = canvas(columns=len(names), height=3.5)
    for axis, name in zip(axes[0], names, strict=True):
        rows = table[table["share"] == name]
        for codec in ORDER:
            _draw(axis, codec, rows[rows["codec"] == codec].sort_values("target_bpp"))
        for codec, colour, text in (
            (CEILING, "black", "autoencoder alone, no file"),
            (ORIGINAL, "grey", "original"),
        ):
            level = rows[rows["codec"] == codec]["value"]
            if len(level):
                axis.axhline(level.iloc[0], color=COLOURS[colour], ls=(0, (4, 3)) if codec == CEILING else ":",
                             lw=1.1, label=text, zorder=1)  # fmt: skip
        title = labels[name][0].upper() + labels[name][1:]
        axis.set_title(textwrap.fill(title, 72 // len(names)), fontsize=9)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        # a share of nothing at all is a line on the floor, not in the middle
        axis.set_ylim(0.0 if rows["high"].max() < 0.01 else None, max(axis.get_ylim()[1], 0.05))
        _rates(axis, rows["bpp"])
    _legend(figure, axes)
    return figure


def _draw(axis: Axes, codec: str, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    style = look(codec)
    axis.fill_between(rows["bpp"], rows["low"], rows["high"], color=style.colour, alpha=0.12, lw=0)
    axis.plot(rows["bpp"], rows["value"], color=style.colour, ls=style.dashes, lw=style.width, marker=style.marker,
              ms=4.5, label=style.label)  # fmt: skip
    missed = rows[rows["reached"] < 0.9]
    axis.plot(missed["bpp"], missed["value"], ls="", marker=style.marker, ms=4.5, mfc="white", mec=style.colour,
              zorder=3)  # fmt: skip


def _rates(axis: Axes, rates: pd.Series) -> None:
    axis.set_xscale("log")
    axis.set_xlabel("bits per pixel")
    low, high = rates.min() / 1.12, rates.max() * 1.12
    axis.set_xlim(low, high)
    axis.set_xticks([tick for tick in TICKS if low <= tick <= high])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, axes: np.ndarray[Any, Any]) -> None:
    entries = {
        text: handle
        for axis in axes.flat
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4, fontsize=8)


def similarity(rows: pd.DataFrame, threshold: float) -> Figure:
    """Similarity of each decoded face with its original and with the nearest stranger, against the rate."""
    figure, axes = canvas(columns=2, height=3.3, sharey=True)
    panels = (("similarity", "With oneself"), ("nearest-stranger", "With the nearest stranger"))
    for axis, (column, title) in zip(axes[0], panels, strict=True):
        for codec in ORDER:
            some = rows[(rows["codec"] == codec) & rows[column].notna()]
            group = some.groupby("target_bpp")
            if some.empty:
                continue
            style, rate = look(codec), group["bpp"].mean()
            axis.fill_between(rate, group[column].quantile(0.1), group[column].quantile(0.9), color=style.colour,
                              alpha=0.1, lw=0)  # fmt: skip
            axis.plot(rate, group[column].median(), color=style.colour, ls=style.dashes, lw=style.width,
                      marker=style.marker, ms=4.5, label=style.label)  # fmt: skip
        axis.axhline(
            threshold, color=COLOURS["black"], lw=1.1, ls=":", label="taken for one person from here on"
        )
        axis.set_title(title)
        _rates(axis, rows["bpp"].dropna())
    axes[0, 0].set_ylabel("cosine of embeddings")
    _legend(figure, axes)
    return figure


def pitch(rows: pd.DataFrame, codecs: Sequence[str], target_bpp: float) -> Figure:
    """Objects missing and invented against the pitch of the charts, at one rate."""
    figure, axes = canvas(columns=2, height=3.1)
    rows = rows.assign(pitch=rows["image"].str.rsplit("-", n=1).str[1].astype(int))
    for axis, column, title in zip(axes[0], ("missing", "invented"), ("Missing", "Invented"), strict=True):
        for codec in codecs:
            some = rows[(rows["codec"] == codec) & ((rows["target_bpp"] == target_bpp) | (codec == CEILING))]
            sums = some.groupby("pitch")[[column, "objects"]].sum()
            style = look(codec)
            axis.plot(sums.index, sums[column] / sums["objects"], color=style.colour, ls=style.dashes,
                      lw=style.width, marker=style.marker or "x", ms=4.5, label=style.label)  # fmt: skip
        axis.set(title=title, xlabel="pixels from object to object", xscale="log")
        pitches = sorted(rows["pitch"].unique())
        axis.set_xticks(pitches, [str(value) for value in pitches])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    _legend(figure, axes)
    return figure


def calibration(rows: pd.DataFrame) -> Figure:
    """Left: error against spread, one line a rate. Right: rank correlations, one point a photograph."""
    figure, axes = canvas(columns=2, height=3.4)
    left, right = axes[0]
    names = ("sky", "blue", "black")
    for (rate, group), colour, mark in zip(rows.groupby("target_bpp"), names, "osD", strict=False):
        bins = np.array([[(b["spread"], b["error"]) for b in bins] for bins in group["calibration"]]).mean(0)
        left.plot(bins[:, 0], bins[:, 1], color=COLOURS[colour], marker=mark, ms=4,
                  label=f"{rate:g} bits per pixel asked for")  # fmt: skip
    top = max(left.get_xlim()[1], left.get_ylim()[1])
    calibrated = [0, MEAN_OF_GAUSSIAN * top]
    left.plot([0, top], calibrated, color=COLOURS["grey"], lw=1, ls=":", label="calibrated (Gaussian)")
    left.set(
        xlabel="spread (grey levels)",
        ylabel="true error (grey levels)",
        title="Does the spread tell the size of the error?",
    )
    left.legend(fontsize=7.5)
    kinds = (("seeds", "seeds"), ("steps", "numbers\nof steps"), ("contrast", "contrast\nalone"))
    rates = sorted(rows["target_bpp"].unique())
    for i, (column, _) in enumerate(kinds):
        for j, (rate, colour, mark) in enumerate(zip(rates, names, "osD", strict=False)):
            values = rows[rows["target_bpp"] == rate][column].astype(float)
            at = i + 0.24 * (j - (len(rates) - 1) / 2)
            right.plot(
                np.full(len(values), at), values, ls="", marker=mark, ms=3, color=COLOURS[colour], alpha=0.5
            )
            right.plot([at - 0.09, at + 0.09], [values.median()] * 2, color=COLOURS["vermilion"], lw=2)
    right.set_xticks(range(len(kinds)), [label for _, label in kinds])
    right.set(ylabel="rank correlation with the true error", title="Does it know where?")
    right.axhline(0, color=COLOURS["black"], lw=0.8)
    return figure


def dial(rows: pd.DataFrame) -> Figure:
    """The surface of one photograph: each line is one file, decoded from conservative to realistic."""
    figure, axes = canvas(columns=2, height=3.6)
    left, right = axes[0]
    rates = sorted(rows["target_bpp"].unique())
    colours = ("purple", "vermilion", "orange", "green", "blue", "sky", "black")
    for rate, colour in zip(rates, colours, strict=False):
        group = rows[rows["target_bpp"] == rate].sort_values("fidelity")
        left.plot(group["psnr"], group["lpips-alex"], color=COLOURS[colour], marker="o", ms=3.5,
                  label=f"{group['bpp'].mean():.3f} bits per pixel")  # fmt: skip
        left.plot(
            group["psnr"].iloc[0],
            group["lpips-alex"].iloc[0],
            marker="s",
            ms=7,
            mfc="none",
            color=COLOURS[colour],
        )
        change = group[["psnr", "lpips-alex"]] - group[["psnr", "lpips-alex"]].iloc[0]
        right.plot(change["psnr"], change["lpips-alex"], color=COLOURS[colour], marker="o", ms=3.5)
    left.set(xlabel="PSNR (dB): less distortion to the right", ylabel="LPIPS (AlexNet): more realistic below")
    left.set_title("Square: fidelity 0 (conservative)")
    right.set(xlabel="change of PSNR (dB)", ylabel="change of LPIPS", title="The same, from fidelity 0")
    right.axhline(0, color=COLOURS["grey"], lw=0.8)
    right.axvline(0, color=COLOURS["grey"], lw=0.8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def examples(
    pictures: Sequence[Sequence[np.ndarray[Any, Any]]],
    columns: Sequence[str],
    rows: Sequence[str],
    notes: Sequence[Sequence[str]],
) -> Figure:
    """Parts of pictures, uint8 (H, W, 3), in a grid: a row a subject, a column a codec, a note under each."""
    heights = [WIDTH / len(columns) * line[0].shape[0] / line[0].shape[1] + 0.42 for line in pictures]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.2), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=heights)
    for i, line_ in enumerate(pictures):
        for j, pixels in enumerate(line_):
            axis = axes[i, j]
            axis.imshow(pixels, interpolation="lanczos")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_xlabel(notes[i][j], fontsize=7.5)
            if i == 0:
                axis.set_title(columns[j], fontsize=8.5, loc="center")
            if j == 0:
                axis.set_ylabel(rows[i], fontsize=8.5)
    return figure
