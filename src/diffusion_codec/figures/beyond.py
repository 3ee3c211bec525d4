"""Figures of *Beyond the paper*, drawn from the stored table of choices."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from diffusion_codec.figures.style import COLOURS, ORDER, canvas

MARKS = "osD^vPX<*>h"


def choices(table: pd.DataFrame, questions: Mapping[str, str]) -> Figure:
    """What each choice changes in PSNR and in LPIPS against the base, one row a choice, grouped by question.

    Args:
        table: as :func:`diffusion_codec.evaluation.beyond.choices` returns it.
        questions: name in the table -> name in the figure, in order from the top.
    """
    groups = [(name, table[table.question == name]) for name in questions if (table.question == name).any()]
    count = sum(len(group) for _, group in groups) + len(groups)
    figure, axes = canvas(columns=2, height=0.24 * count + 0.9, sharey=True)
    ticks, labels, y = [], [], 0.0
    for i, (question, group) in enumerate(groups):
        colour = COLOURS[ORDER[i % len(ORDER)]]
        ticks.append(y)
        labels.append(rf"$\bf{{{questions[question].replace(' ', '~')}}}$")
        for _, row in group.iterrows():
            y += 1
            ticks.append(y)
            labels.append(
                f"{row.choice} step" + "s" * (row.choice != "1") if str(row.choice).isdigit() else row.choice
            )
            for axis, column in zip(axes[0], ("d_psnr", "d_lpips-alex"), strict=True):
                axis.plot([0, row[column]], [y, y], color=colour, lw=1.2)
                axis.plot(row[column], y, MARKS[i % len(MARKS)], color=colour)
        y += 1.3
    for axis, label in zip(
        axes[0], ("dB PSNR: right is better", "LPIPS (AlexNet): left is better"), strict=True
    ):
        axis.axvline(0, color=COLOURS["grey"], lw=1.2)
        axis.set_xlabel(label)
        axis.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(ticks, labels)
    axes[0, 0].set_ylim(y - 0.6, -0.9)
    return figure


def denoisers(table: pd.DataFrame, base: str = "epsilon") -> Figure:
    """What small denoisers make of quantised latents, against one of them: PSNR and LPIPS over t, dithered and rounded.

    Args:
        table: as :func:`diffusion_codec.evaluation.beyond.denoisers` returns it.
        base: the denoiser that is the line at zero; "none" (no denoising) is not drawn.
    """
    figure, axes = canvas(rows=2, columns=2, height=2.5, sharex=True, sharey="row")
    names = [name for name in table.denoiser.unique() if name not in (base, "none")]
    labels = {"psnr": f"dB PSNR against {base}", "lpips-alex": f"LPIPS (AlexNet) against {base}"}
    for column, dither in enumerate((True, False)):
        rows = table[table.dither == dither].pivot(index="t", columns="denoiser")
        for row, (measure, label) in enumerate(labels.items()):
            axis = axes[row, column]
            for i, name in enumerate(names):
                change = rows[measure, name] - rows[measure, base]
                axis.plot(change.index, change, MARKS[i] + "-", color=COLOURS[ORDER[i]], label=name)
            axis.axhline(0, color=COLOURS["grey"], lw=1.2)
            axis.set_ylabel(label if column == 0 else "")
        axes[0, column].set_title("dithered" if dither else "rounded")
        axes[1, column].set_xlabel("timestep t, matched to the step")
    axes[0, 0].legend()
    return figure


def noise_declared(runs: pd.DataFrame, rate: float = 0.1) -> Figure:
    """PSNR and LPIPS of files of at most ``rate`` over the noise level they declare; a line to the same run, t matched.

    Args:
        runs: of one configuration in `training_choices.csv`; one mark a run, alike for those that differ in their seed.
    """
    figure, axes = canvas(columns=2, height=3.6, sharex=True)
    for axis, measure, label in zip(
        axes[0], ("psnr", "lpips-alex"), ("PSNR (dB)", "LPIPS (AlexNet)"), strict=True
    ):
        for i, (variant, rows) in enumerate(runs.groupby("variant", sort=False)):
            colour, mark = COLOURS[ORDER[i % len(ORDER)]], MARKS[i % len(MARKS)]
            declared, values = rows[f"declared at {rate:g}"], rows[f"{measure} at {rate:g}"]
            matched = rows[f"{measure} at {rate:g}, t matched"]
            axis.plot([declared, np.ones(len(rows))], [values, matched], ":", color=colour, lw=1)
            axis.plot(declared, values, mark, color=colour, label=variant)
            axis.plot(np.ones(len(rows)), matched, mark, color=colour, markerfacecolor="none")
        axis.axvline(1, color=COLOURS["grey"], lw=1.2, zorder=0)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("noise declared, times the matched level")
        axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
