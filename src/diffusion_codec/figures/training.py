"""Figures of the chapter on training, drawn from loss curves and measured tables."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffusion_codec.figures.style import COLOURS, WIDTH, canvas, plain_ticks

CHANNEL_COLOURS = ("vermilion", "blue", "green", "purple")
CHANNEL_MARKS = "osD^"


def contact_sheet(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Photographs, uint8 (H, W, 3), side by side with their names."""
    columns = min(5, len(pictures)) if len(pictures) < 6 else 4
    rows = -(-len(pictures) // columns)
    figure, axes = canvas(rows, columns, height=0.72 * WIDTH / columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, pixels) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(pixels, interpolation="none")
        axis.set_title(name, fontsize=8, loc="center", fontweight="normal")
    return figure


def this_run(losses: pd.DataFrame, window: int = 9) -> Figure:
    """Rate, error and timestep of a short run: each step a dot, their running mean a line."""
    figure, axes = canvas(columns=3, height=2.5)
    panels = {"bpp": ("rate of rounded latents", "bits per pixel"), "mse": ("error of the picture", "MSE (0 to 1)"),
              "t": ("timestep", "mean predicted $t$")}  # fmt: skip
    for axis, (column, (title, label)) in zip(axes[0], panels.items(), strict=True):
        axis.plot(losses["step"], losses[column], ".", color=COLOURS["grey"], ms=4, label="one batch")
        mean = losses[column].rolling(window, center=True, min_periods=1).mean()
        axis.plot(losses["step"], mean, color=COLOURS["blue"], label=f"mean of {window} steps")
        axis.set(title=title, xlabel="step", ylabel=label, ylim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def shipped_runs(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss curves of the runs that made the shipped weights, one panel a recipe.

    Args:
        curves: recipe -> the loop's ``losses.csv``, with the columns step and loss.
    """
    columns = min(len(curves), 3)
    figure, axes = canvas(-(-len(curves) // columns), columns, height=2.5)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    for axis, (name, frame) in zip(axes.flat, curves.items(), strict=False):
        known = frame.dropna(subset=["loss"])
        axis.plot(known["step"], known["loss"], color=COLOURS["sky"], lw=0.8)
        window = max(1, len(known) // 25)
        mean = known["loss"].rolling(window, center=True, min_periods=1).mean()
        axis.plot(known["step"], mean, color=COLOURS["blue"])
        axis.set(title=name, xlabel="step", ylabel="loss")
        if known["loss"].min() > 0:
            axis.set_yscale("log")
            plain_ticks(axis.yaxis)
    return figure


def photographs(table: pd.DataFrame, lambdas: Sequence[float]) -> Figure:
    """Bits above those of the most photographs against how many the entropy model learned from, one line a lambda.

    Args:
        table: columns photographs, lambda, excess (a share).
    """
    figure, axes = canvas(height=2.8)
    axis = axes[0, 0]
    looks = zip(("vermilion", "blue", "green", "purple"), CHANNEL_MARKS, strict=True)
    for lambda_, (colour, mark) in zip(lambdas, looks, strict=False):
        rows = table[table["lambda"] == lambda_]
        label = f"λ = {lambda_:.3g}" if lambda_ < 1000 else f"λ = {lambda_:.0f}"
        axis.plot(rows["photographs"], 100 * rows["excess"], color=COLOURS[colour], marker=mark, label=label)
    axis.set(xscale="log", xlabel="photographs to learn from", ylabel="more bits (%)", ylim=(-2, None))
    counts = sorted(table["photographs"].unique())
    axis.set_xticks(counts, labels=map(str, counts))
    axis.minorticks_off()
    axis.legend()
    return figure


def predictions(table: pd.DataFrame) -> Figure:
    """What P_phi says against lambda: the step of each channel, and t beside the matched t; bands are min to max."""
    figure, axes = canvas(columns=2, height=3.0)
    left, right = axes[0]
    for channel, (colour, mark) in enumerate(zip(CHANNEL_COLOURS, CHANNEL_MARKS, strict=True)):
        steps = 1 / table[f"alpha_{channel}"]
        _band(left, table["lambda_"], steps, COLOURS[colour], mark, f"channel {channel}")
    left.set(title="Step of each channel", ylabel=r"$\Delta = 1/\alpha$", yscale="log")
    plain_ticks(left.yaxis)
    left.legend()
    _band(right, table["lambda_"], table["t"], COLOURS["vermilion"], "o", r"$t$ of $P_\phi$")
    matched = table.groupby("lambda_")["matched_t"].mean()
    right.plot(
        matched.index,
        matched,
        color=COLOURS["black"],
        ls="--",
        label=r"$t$ whose $\Delta_t$ is the mean step",
    )
    right.set(title="Timestep", ylabel="$t$", ylim=(0, None))
    right.legend()
    return figure


def _band(axis: Axes, x: pd.Series, values: pd.Series, colour: str, mark: str, label: str) -> None:
    groups = values.groupby(x)
    mean = groups.mean()
    axis.fill_between(mean.index, groups.min(), groups.max(), color=colour, alpha=0.15, lw=0)
    axis.plot(mean.index, mean, color=colour, marker=mark, ms=4, label=label)
    axis.set_xscale("log", base=2)
    axis.set_xlabel(r"$\lambda$")


def rates(tables: Mapping[str, pd.DataFrame], bits: pd.DataFrame) -> Figure:
    """Left: real file sizes against lambda, an image a line. Right: the entropy model's bits against the ideal.

    Args:
        tables: name of the weights -> rates; the first is drawn image by image, the others by their mean.
        bits: the table of ``bits_by_channel``.
    """
    figure, axes = canvas(columns=2, height=3.2)
    left, right = axes[0]
    styles = (("blue", "-"), ("vermilion", "--"))
    for (name, table), (colour, dashes) in zip(tables.items(), styles, strict=False):
        mean = table.groupby("lambda_")["bpp"].mean()
        left.plot(mean.index, mean, dashes, color=COLOURS[colour], lw=2.2, label=f"mean, {name}", zorder=3)
    for _, image in next(iter(tables.values())).groupby("image"):
        left.plot(image["lambda_"], image["bpp"], color=COLOURS["grey"], lw=0.7, alpha=0.8)
    left.set_xscale("log", base=2)
    left.set(
        title="Rate against λ", xlabel=r"$\lambda$", ylabel="bits per pixel (real files)", ylim=(0, None)
    )
    left.legend()
    largest = 1.05 * max(bits["model"].max(), bits["ideal"].max())
    right.plot([0, largest], [0, largest], color=COLOURS["grey"], lw=1, ls=":")
    for channel, (colour, mark) in enumerate(zip(CHANNEL_COLOURS, CHANNEL_MARKS, strict=True)):
        rows = bits[bits["channel"] == channel]
        right.plot(
            rows["ideal"],
            rows["model"],
            mark,
            color=COLOURS[colour],
            ms=4,
            alpha=0.8,
            label=f"channel {channel}",
        )
    right.set(title="Entropy model against the ideal", xlabel="zeroth-order entropy (bits/symbol)",
              ylabel="entropy model (bits/symbol)", xlim=(0, largest), ylim=(0, largest))  # fmt: skip
    right.legend()
    return figure


def pair(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Photographs of one size side by side under their titles."""
    height, width = pictures[0].shape[:2]
    figure, axes = canvas(columns=len(pictures), height=WIDTH / len(pictures) * height / width + 0.3)
    for axis, pixels, title in zip(axes[0], pictures, titles, strict=True):
        axis.imshow(pixels, interpolation="none")
        axis.set_title(title, fontsize=9, loc="center")
        axis.axis("off")
    return figure
