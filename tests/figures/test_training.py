"""The figures of chapter 2 draw the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.figures import style
from diffusion_codec.figures import training as figures


@pytest.fixture(autouse=True)
def house_style() -> None:
    style.use()


def predictions() -> pd.DataFrame:
    rows = [
        {"image": image, "lambda_": lambda_, "t": 100.0 + i, "matched_t": 90.0}
        | {f"alpha_{c}": lambda_ * (c + 1) for c in range(4)}
        for i, image in enumerate("ab")
        for lambda_ in (1.0, 4.0)
    ]
    return pd.DataFrame(rows)


def test_predictions_show_steps_not_scales_and_the_matched_timestep() -> None:
    left, right = figures.predictions(predictions()).axes
    by_label = {line.get_label(): line for line in left.lines}
    assert by_label["channel 1"].get_ydata() == pytest.approx([1 / 2, 1 / 8])
    matched = next(line for line in right.lines if line.get_linestyle() == "--")
    assert matched.get_ydata() == pytest.approx([90, 90])
    assert right.lines[0].get_ydata() == pytest.approx([100.5, 100.5])  # mean over the two images


def test_rates_are_drawn_by_image_and_by_mean() -> None:
    table = pd.DataFrame({"image": list("aabb"), "lambda_": [1, 4, 1, 4], "bpp": [0.1, 0.3, 0.2, 0.4]})
    bits = pd.DataFrame({"channel": [0, 1, 2, 3], "model": [1.0, 2, 3, 4], "ideal": [1.0, 2, 3, 5]})
    left, right = figures.rates({"these": table, "those": table}, bits).axes
    drawn = [tuple(np.round(line.get_ydata(), 6)) for line in left.lines]
    assert drawn == [(0.15, 0.35), (0.15, 0.35), (0.1, 0.3), (0.2, 0.4)]
    assert [float(line.get_xdata()[0]) for line in right.lines[1:]] == [1, 2, 3, 5]


def test_curves_keep_the_rows_that_have_a_loss() -> None:
    losses = pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, np.nan, 1.0], "bpp": 0.1, "mse": 0.01, "t": 50.0})
    (axis,) = figures.shipped_runs({"codec": losses}).axes
    assert list(axis.lines[0].get_xdata()) == [1, 3]
    titles = [axis.get_title(loc="left") for axis in figures.this_run(losses).axes]
    assert titles == ["rate of rounded latents", "error of the picture", "timestep"]


def test_five_networks_have_five_panels() -> None:
    losses = pd.DataFrame({"step": [1, 2], "loss": [3.0, 1.0]})
    titles = [
        axis.get_title(loc="left") for axis in figures.shipped_runs(dict.fromkeys("abcde", losses)).axes
    ]
    assert titles == list("abcde")


def test_the_contact_sheet_names_each_picture_once() -> None:
    pictures = {name: np.zeros((8, 12, 3), np.uint8) for name in "abcdefg"}
    axes = figures.contact_sheet(pictures).axes
    assert [axis.get_title() for axis in axes if axis.images] == list("abcdefg")
    shown = figures.pair([*pictures.values()][:2], ["x", "y"]).axes
    assert [axis.get_title() for axis in shown] == ["x", "y"]


def test_more_bits_are_drawn_against_the_photographs_there_were() -> None:
    table = pd.DataFrame({"photographs": [1, 4, 64], "lambda": 2.0, "excess": [0.5, 0.1, 0.0]})
    (axis,) = figures.photographs(table, [2.0]).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "4", "64"]
    assert list(axis.lines[0].get_ydata()) == [50.0, 10.0, 0.0]
