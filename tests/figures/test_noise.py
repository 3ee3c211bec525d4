"""The figures of chapter 1 draw the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.evaluation.noise import KINDS
from diffusion_codec.figures import noise as figures
from diffusion_codec.figures import style
from diffusion_codec.schedule import STABLE_DIFFUSION


@pytest.fixture(autouse=True)
def house_style() -> None:
    style.use()


def statistics(steps: list[float]) -> pd.DataFrame:
    rows = [
        {
            "step": s,
            "kind": kind,
            "variance_ratio": 1 - 0.1 * i * s,
            "correlation": -0.1 * i,
            "correlation_rms": 0.1 * i * s,
            "flatness": 1 - 0.2 * i * s,
            "information": 0.1 * s,
        }
        | {f"spectrum_{b}": 1.0 + i + b for b in range(3)}
        for s in steps
        for i, kind in enumerate(KINDS)
    ]
    return pd.DataFrame(rows)


def sweep() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        {
            "step": 1.0,
            "kind": kind,
            "ratio": r,
            "latent_snr": 5 - (r - 0.8) ** 2,
            "lpips": 0.2 + (r - 0.6) ** 2,
        }
        for kind in KINDS
        for r in (0.0, 0.4, 0.6, 0.8, 1.0)
    ]
    best = [
        {
            "step": 1.0,
            "kind": kind,
            "measured": 0.9,
            "best_snr": 0.8,
            "best_lpips": 0.6 if kind == "rounding" else None,
        }
        for kind in KINDS
    ]
    return pd.DataFrame(rows), pd.DataFrame(best)


def test_the_schedule_marks_the_matched_steps() -> None:
    right = figures.schedule(STABLE_DIFFUSION, [100, 200]).axes[1]
    marks = next(line for line in right.lines if line.get_marker() == "o")
    assert list(marks.get_xdata()) == [100, 200]
    assert marks.get_ydata() == pytest.approx([1.191, 1.980], abs=1e-3)


def test_statistics_show_every_kind_at_every_step() -> None:
    table = statistics([0.5, 2.0])
    variance = figures.error_statistics(table, 0.7, [0.5, 2.0]).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in variance.lines}
    for kind in KINDS:
        expected = table[table["kind"] == kind]["variance_ratio"]
        assert drawn[figures.KIND_NAMES[kind]] == pytest.approx(list(expected))
    assert "spread of the latents" in drawn


def test_the_bands_are_drawn_about_what_they_judge() -> None:
    """A criterion for the root mean square says nothing of the mean."""
    table = statistics([0.5, 2.0])
    axes = figures.error_statistics(table, 0.7, [0.5, 2.0]).axes
    rounding = table[table["kind"] == "rounding"]
    for axis, column in zip(axes[1:3], ("correlation_rms", "flatness"), strict=True):
        line = next(line for line in axis.lines if line.get_label() == figures.KIND_NAMES["rounding"])
        assert list(line.get_ydata()) == pytest.approx(list(rounding[column]))
        assert axis.patches


def test_rings_are_at_the_optima() -> None:
    figure = figures.declared_noise(*sweep(), ["latent_snr", "lpips"])
    rings = [line.get_xdata()[0] for axis in figure.axes for line in axis.lines if line.get_markersize() == 11
             and line.get_marker() == "o"]  # fmt: skip
    assert rings == [0.8, 0.6]


def test_optima_without_lpips_show_the_latent_only() -> None:
    figure = figures.optima(sweep()[1])
    labels = [[line.get_label() for line in axis.lines] for axis in figure.axes]
    assert "best for LPIPS" in labels[0]
    assert "best for LPIPS" not in labels[1]


def test_histograms_and_grids_have_a_panel_for_everything() -> None:
    rng = np.random.default_rng(0)
    errors = {s: {kind: rng.uniform(-0.5, 0.5, 100) for kind in KINDS} for s in (0.5, 1.0)}
    assert [axis.get_title(loc="left") for axis in figures.error_histograms(errors).axes] == [
        r"$\Delta$ = 0.5",
        r"$\Delta$ = 1",
    ]
    picture = np.zeros((8, 8, 3), np.uint8)
    grid = figures.picture_grid([[picture, picture]] * 2, ["a", "b"], ["1", "2"], [["x", "y"], ["z", "w"]])
    assert [axis.get_xlabel() for axis in grid.axes] == ["x", "y", "z", "w"]
