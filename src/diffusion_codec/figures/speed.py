"""Figures of *Speed and cost*, drawn from the tables of :mod:`diffusion_codec.evaluation.speed`."""

import pandas as pd
from matplotlib.figure import Figure

from diffusion_codec.evaluation.speed import STAGES
from diffusion_codec.figures.style import COLOURS, canvas, plain_ticks

STAGE_COLOURS = dict(zip(STAGES.values(), ("blue", "grey", "green", "vermilion", "orange"), strict=True))


def stages(frame: pd.DataFrame, picture: str) -> Figure:
    """Seconds of each stage of one picture, a bar a direction."""
    figure, axes = canvas(height=1.9)
    ax = axes[0, 0]
    shown = frame[frame["picture"] == picture]
    for row, direction in enumerate(("decompress", "compress")):
        left = 0.0
        for _, line in shown[shown["direction"] == direction].iterrows():
            seconds, stage = float(line["seconds"]), str(line["stage"])
            ax.barh(row, seconds, left=left, color=COLOURS[STAGE_COLOURS[stage]], label=stage, height=0.6)
            left += seconds
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ordered = [name for name in STAGES.values() if name in unique]
    ax.legend(
        [unique[name] for name in ordered], ordered, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    ax.set_yticks([0, 1], ["decompress", "compress"])
    ax.set(xlabel=f"seconds for {picture} pixels")
    ax.grid(axis="y", visible=False)
    return figure


def growth(frame: pd.DataFrame) -> Figure:
    """Seconds and memory against megapixels; a straight line of slope 1 is growth with the number of pixels."""
    figure, axes = canvas(columns=2, height=2.9)
    left, right = axes[0]
    x = frame["megapixels"]
    for name, colour, mark in (("compress, s", "blue", "o"), ("decompress, s", "vermilion", "s")):
        left.loglog(x, frame[name], color=COLOURS[colour], marker=mark, label=name.removesuffix(", s"))
    middle = len(frame) // 2
    slope = frame["decompress, s"].iloc[middle] * x / x.iloc[middle]
    left.loglog(x, slope, color=COLOURS["grey"], ls=":", label="in proportion to pixels")
    left.set(xlabel="megapixels", ylabel="seconds", title="Time")
    left.legend()
    plain_ticks(left.yaxis)
    right.semilogx(x, frame["peak, MiB"], color=COLOURS["green"], marker="o")
    right.set(xlabel="megapixels", ylabel="MiB", title="Most memory of the process", ylim=(0, None))
    for axis in (left, right):
        plain_ticks(axis.xaxis)
    return figure


def ratios(frame: pd.DataFrame) -> Figure:
    """Seconds of other codecs as multiples of this codec's, on a logarithmic axis."""
    figure, axes = canvas(height=0.42 * len(frame) + 0.9)
    ax = axes[0, 0]
    for offset, name, colour in ((0.18, "encode, ratio", "blue"), (-0.18, "decode, ratio", "vermilion")):
        places = [-row + offset for row in range(len(frame))]
        values = frame[name].astype(float)
        ax.barh(
            places, values - 1, left=1, height=0.34, color=COLOURS[colour], label=name.removesuffix(", ratio")
        )
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    ax.axvline(1, color=COLOURS["black"], lw=0.8)
    ax.set_yticks([-row for row in range(len(frame))], list(frame["codec"]))
    ax.set(xlabel="seconds, as multiples of this codec's (left of 1: faster)")
    ax.legend()
    ax.grid(axis="y", visible=False)
    return figure
