"""Figures of *Quantisation as noise*, drawn from the tables of :mod:`diffusion_codec.evaluation.noise`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_codec.evaluation.noise import CRITERIA, INDEPENDENT_BELOW, KINDS
from diffusion_codec.figures.style import COLOURS, WIDTH, canvas
from diffusion_codec.schedule import NoiseSchedule

KIND_COLOURS = {
    "rounding": COLOURS["vermilion"],
    "dithered": COLOURS["blue"],
    "gaussian": COLOURS["black"],
}
KIND_MARKS = {"rounding": "o", "dithered": "s", "gaussian": "^"}
KIND_NAMES = {"rounding": "rounding", "dithered": "universal (dithered)", "gaussian": "Gaussian noise"}
STEP_COLOURS = ("sky", "green", "orange", "vermilion", "purple", "blue", "grey")
STEP_MARKS = "osD^vPX"


def schedule(noise: NoiseSchedule, timesteps: Sequence[int]) -> Figure:
    """What is left of signal and noise at each t, and the matched step Delta_t."""
    figure, axes = canvas(columns=2, height=2.7)
    left, right = axes[0]
    t = _weights(left, noise)
    steps = 12**0.5 * noise.sigma.numpy()
    right.semilogy(t, steps, color=COLOURS["green"])
    marks = [float(steps[i]) for i in timesteps]
    right.plot(timesteps, marks, "o", color=COLOURS["black"], zorder=3)
    for i, mark in zip(timesteps, marks, strict=True):
        right.annotate(f"{mark:.2f}", (i, mark), (5, -9), textcoords="offset points", fontsize=8)
    last = min(len(t) - 1, int(1.4 * max(timesteps)))
    right.set(xlabel="timestep $t$", ylabel=r"$\Delta_t$", title="The matched step", xlim=(0, last))
    ticks = [v for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if v < 1.3 * steps[last]]
    right.set_yticks(ticks, [f"{v:g}" for v in ticks])
    right.minorticks_off()
    right.set_ylim(steps[0], 1.3 * steps[last])
    return figure


def _weights(axis: Axes, noise: NoiseSchedule) -> np.ndarray:
    """Weights of signal and noise against the timesteps, which are returned."""
    alpha_bar = noise.alpha_bar.numpy()
    t = np.arange(len(alpha_bar))
    axis.plot(t, alpha_bar**0.5, color=COLOURS["blue"], label=r"signal $\sqrt{\bar\alpha_t}$")
    axis.plot(
        t, (1 - alpha_bar) ** 0.5, color=COLOURS["vermilion"], ls="--", label=r"noise $\sqrt{1-\bar\alpha_t}$"
    )
    axis.set(xlabel="timestep $t$", ylabel="weight", title="The forward process", xlim=(0, len(t)))
    axis.legend(loc="center right")
    return t


def forward_process(noise: NoiseSchedule) -> Figure:
    """The weights of signal and noise at each t, and their ratio sigma_t."""
    figure, axes = canvas(columns=2, height=2.7)
    left, right = axes[0]
    t = _weights(left, noise)
    right.semilogy(t, noise.sigma.numpy(), color=COLOURS["green"])
    right.set(xlabel="timestep $t$", ylabel=r"$\sigma_t$", title="Noise over signal", xlim=(0, len(t)))
    ticks = (0.03, 0.1, 0.3, 1, 3, 10)
    right.set_yticks(ticks, [f"{v:g}" for v in ticks])
    right.minorticks_off()
    return figure


def latent(original: np.ndarray, y: Tensor, decoded: np.ndarray) -> Figure:
    """A photograph, the channels of its latent (C, h, w) in grey, and the decoded photograph, in a row."""
    figure, axes = canvas(columns=len(y) + 2, height=WIDTH / (len(y) + 2) + 0.25)
    shown = [original, *y.numpy(), decoded]
    names = ["photograph $x$", *(f"$y$, channel {i + 1}" for i in range(len(y))), "decoded $D(y)$"]
    for axis, picture, name in zip(axes[0], shown, names, strict=True):
        axis.imshow(picture, cmap="gray", interpolation="none")
        axis.set(xticks=[], yticks=[])
        axis.set_title(name, fontsize=9, loc="center")
        axis.spines[:].set_visible(False)
    return figure


def error_histograms(errors: Mapping[float, Mapping[str, np.ndarray]]) -> Figure:
    """The law of the error, in steps, for each step and kind, against the uniform density.

    Args:
        errors: step -> kind -> errors divided by the step, 1-d.
    """
    figure, axes = canvas(columns=len(errors), height=2.5, sharey=True)
    edges = np.linspace(-1, 1, 81)
    for axis, (step, kinds) in zip(axes[0], errors.items(), strict=True):
        for kind in KINDS:
            if kind in kinds:
                filled = kind == "rounding"
                axis.hist(kinds[kind], edges, density=True, histtype="stepfilled" if filled else "step",
                          color=KIND_COLOURS[kind], alpha=0.45 if filled else 1,
                          ls="-" if filled else "--" if kind == "dithered" else ":",
                          lw=0 if filled else 1.5, label=KIND_NAMES[kind])  # fmt: skip
        axis.plot(
            [-0.5, -0.5, 0.5, 0.5], [0, 1, 1, 0], color=COLOURS["grey"], lw=1, label="uniform", zorder=3
        )
        axis.set(
            title=rf"$\Delta$ = {step:g}",
            xlabel=r"error / $\Delta$",
            xlim=(-1, 1),
            xticks=[-1, -0.5, 0, 0.5, 1],
        )
        axis.set_xticklabels(["−1", "−½", "0", "½", "1"])
    axes[0, 0].set_ylabel("density")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def error_statistics(statistics: pd.DataFrame, spread: float, spectra_at: Sequence[float]) -> Figure:
    """Variance, correlation, flatness, information and spectrum of the error; grey bands are the criteria.

    Args:
        spread: standard deviation of the latents; drawn as a vertical line.
        spectra_at: one small and one large step whose spectra are drawn.
    """
    figure, axes = canvas(3, 2, height=2.5)
    variance, correlation, flatness, information, spectrum, beside = axes.flat
    _against_step(variance, statistics, "variance_ratio", spread, 1.0, CRITERIA["variance_ratio"])
    variance.set(ylabel=r"variance / ($\Delta^2/12$)", title="As strong as the formula says?", ylim=(0, 1.35))
    _against_step(correlation, statistics, "correlation_rms", spread, 0.0, CRITERIA["correlation_rms"])
    correlation.set(ylabel="correlation with $y$ (rms)", title="Uncorrelated with the signal?")
    _against_step(flatness, statistics, "flatness", spread, 1.0, CRITERIA["flatness"])
    flatness.set(ylabel="flatness of the spectrum", title="White?")
    _against_step(information, statistics, "information", spread, 0.0, INDEPENDENT_BELOW)
    information.set(ylabel="bits about $y$", title="Independent of the signal?")
    _spectra(spectrum, statistics, spectra_at)
    beside.set_axis_off()
    beside.legend(*spectrum.get_legend_handles_labels(), loc="center left", handlelength=4.5)
    handles, names = variance.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _against_step(
    axis: Axes, statistics: pd.DataFrame, column: str, spread: float, ideal: float, band: float
) -> None:
    axis.axhspan(ideal - band, ideal + band, color="#D9D9D9", lw=0)
    for kind, group in statistics.groupby("kind", sort=False):
        name = str(kind)
        axis.semilogx(group["step"], group[column], color=KIND_COLOURS[name], marker=KIND_MARKS[name], ms=4,
                      label=KIND_NAMES[name], mfc="white" if name != "rounding" else None)  # fmt: skip
    axis.axvline(spread, color=COLOURS["grey"], ls=":", lw=1.2, label="spread of the latents")
    axis.set_xlabel(r"step $\Delta$")
    ticks = [v for v in (0.1, 0.2, 0.5, 1, 2, 5) if statistics["step"].min() <= v <= statistics["step"].max()]
    axis.set_xticks(ticks, [f"{v:g}" for v in ticks])
    axis.minorticks_off()


def _spectra(axis: Axes, statistics: pd.DataFrame, steps: Sequence[float]) -> None:
    columns = [c for c in statistics.columns if c.startswith("spectrum_")]
    frequency = (np.arange(len(columns)) + 0.5) / (2 * len(columns))
    for step, dashes in zip(steps, ("-", "--"), strict=False):
        for kind in ("rounding", "dithered"):
            row = statistics[(statistics["step"] == step) & (statistics["kind"] == kind)]
            axis.plot(frequency, row[columns].to_numpy()[0], dashes, color=KIND_COLOURS[kind],
                      marker=KIND_MARKS[kind], ms=3.5, mfc="white" if kind == "dithered" else None,
                      label=rf"{kind}, $\Delta$ = {step:.2g}")  # fmt: skip
    axis.axhline(1, color=COLOURS["grey"], lw=1)
    axis.set(xlabel="spatial frequency (cycles per latent position)", title="The spectrum")
    axis.set(ylabel=r"power / ($\Delta^2/12$)", yscale="log")
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.5), max(high, 2))
    ticks = [v for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if axis.get_ylim()[0] <= v <= axis.get_ylim()[1]]
    axis.set_yticks(ticks, [f"{v:g}" for v in ticks])
    axis.minorticks_off()


def declared_noise(sweep: pd.DataFrame, optima: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Quality of one-step denoising of rounded latents against the declared noise level; rings are optima.

    Args:
        metrics: of ``latent_snr`` and ``lpips``.
    """
    figure, axes = canvas(columns=len(metrics), height=3.4)
    titles = {"latent_snr": "Latent", "lpips": "Picture"}
    labels = {
        "latent_snr": "signal to noise (dB): higher is better",
        "lpips": "LPIPS (AlexNet): lower is better",
    }
    best = {"latent_snr": "best_snr", "lpips": "best_lpips"}
    rounded = sweep[sweep["kind"] == "rounding"]
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.axvline(1, color=COLOURS["grey"], lw=1.2, ls=":")
        for i, (step, group) in enumerate(rounded.groupby("step")):
            denoised = group[group["ratio"] > 0].sort_values("ratio")
            colour = COLOURS[STEP_COLOURS[i % len(STEP_COLOURS)]]
            axis.plot(denoised["ratio"], denoised[metric], color=colour, label=rf"$\Delta$ = {step:g}",
                      marker=STEP_MARKS[i % len(STEP_MARKS)], ms=4)  # fmt: skip
            start = float(group[group["ratio"] == 0][metric].iloc[0])
            axis.plot(denoised["ratio"].min() * 0.86, start, marker="_", ms=11, mew=2.2, color=colour)
            row = optima[(optima["step"] == step) & (optima["kind"] == "rounding")].iloc[0]
            _ring(axis, float(row[best[metric]]), denoised["ratio"], denoised[metric])
        axis.set(xlabel=r"declared noise / ($\Delta/\sqrt{12}$)", ylabel=labels[metric], title=titles[metric])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _ring(axis: Axes, ratio: float, ratios: Any, values: Any) -> None:
    height = float(np.interp(ratio, ratios, values))
    axis.plot(ratio, height, "o", ms=11, mfc="none", mec=COLOURS["black"], mew=1.3, zorder=4)


def optima(table: pd.DataFrame) -> Figure:
    """Where the best declared noise lies, beside how strong the error really is; 1 is the formula."""
    figure, axes = canvas(columns=len(KINDS), height=2.6, sharey=True)
    for axis, kind in zip(axes[0], KINDS, strict=True):
        rows = table[table["kind"] == kind]
        axis.axhline(1, color=COLOURS["grey"], lw=1.2, ls=":", label="formula")
        axis.plot(
            rows["step"],
            rows["measured"],
            "-",
            color=COLOURS["black"],
            label="measured strength of the error",
        )
        axis.plot(rows["step"], rows["best_snr"], "s", color=COLOURS["blue"], label="best for latent SNR")
        if rows["best_lpips"].notna().all():
            axis.plot(rows["step"], rows["best_lpips"].astype(float), "o", color=COLOURS["vermilion"],
                      label="best for LPIPS")  # fmt: skip
        axis.set(title=KIND_NAMES[kind], xlabel=r"step $\Delta$")
        axis.margins(x=0.08)
    highest = table[["measured", "best_snr", "best_lpips"]].astype(float).max().max()
    axes[0, 0].set_ylim(0, 1.15 * highest)
    axes[0, 0].set_ylabel(r"noise level / ($\Delta/\sqrt{12}$)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def picture_grid(
    pictures: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    rows: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Photographs, uint8 (H, W, 3), in a grid with names for rows and columns and a note under each."""
    figure, axes = canvas(
        len(rows), len(columns), height=WIDTH / len(columns) - (0.05 if notes is None else -0.15)
    )
    for i, line in enumerate(pictures):
        for j, pixels in enumerate(line):
            axis = axes[i, j]
            axis.imshow(pixels, interpolation="none")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if i == 0:
                axis.set_title(columns[j], fontsize=9, loc="center")
            if j == 0:
                axis.set_ylabel(rows[i], fontsize=9)
            if notes is not None:
                axis.set_xlabel(notes[i][j], fontsize=8)
    return figure
