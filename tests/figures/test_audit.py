"""Figures of the audit are drawn from tables; what a codec did not reach is drawn hollow."""

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.audit.findings import CEILING, CONSERVATIVE, ORIGINAL, OWN, SHARES
from diffusion_codec.figures import audit, style

CODECS = (OWN, CONSERVATIVE, "avif", "webp", "jpeg")


@pytest.fixture(autouse=True)
def house_style() -> None:
    style.use()


def curves(part: str) -> pd.DataFrame:
    rows = [
        {"codec": codec, "target_bpp": rate, "bpp": rate, "share": share.name, "value": 0.1 * number, "low": 0.0,
         "high": 0.5, "images": 3, "reached": 0.5 if (codec, rate) == ("jpeg", 0.1) else 1.0}
        for number, codec in enumerate((*CODECS, CEILING, ORIGINAL))
        for rate in ((0.1, 0.2, 0.4) if codec in CODECS else (np.nan,))
        for share in SHARES[part]
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("part", list(SHARES))
def test_each_share_has_a_panel_with_every_codec(part: str) -> None:
    names = [share.name for share in SHARES[part]][:3]
    figure = audit.shares(part, curves(part), names)
    assert len(figure.axes) == len(names)
    for axis in figure.axes:
        labels = {line.get_label(): line for line in axis.get_lines()}
        assert {audit.look(codec).label for codec in CODECS} <= set(labels)
        assert {"autoencoder alone, no file", "original"} <= set(labels)
        assert labels[audit.look(OWN).label].get_xydata()[:, 0].tolist() == [0.1, 0.2, 0.4]
    hollow = [
        line
        for line in figure.axes[0].get_lines()
        if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]
    assert [line.get_xdata().tolist() for line in hollow] == [[0.1]]


def test_two_decoders_of_one_file_look_different() -> None:
    assert audit.look(OWN) != audit.look(CONSERVATIVE)
    assert audit.look("avif").label == "AVIF"


def test_similarity_and_pitch_are_drawn_from_single_pictures() -> None:
    faces = pd.DataFrame(
        {"codec": OWN, "target_bpp": [0.1, 0.1, 0.2], "bpp": [0.1, 0.1, 0.2], "similarity": [0.2, 0.4, 0.9],
         "nearest-stranger": [0.1, 0.2, 0.3]}
    )  # fmt: skip
    figure = audit.similarity(faces, 0.363)
    line = figure.axes[0].get_lines()[0]
    assert line.get_ydata().tolist() == pytest.approx([0.3, 0.9])
    charts = pd.DataFrame(
        {"codec": OWN, "target_bpp": 0.1, "bpp": 0.1, "image": ["dots-6", "lines-6", "dots-12"], "objects": [10, 10, 4],
         "missing": [5, 0, 1], "invented": [1, 1, 0]}
    )  # fmt: skip
    figure = audit.pitch(charts, [OWN], 0.1)
    assert figure.axes[0].get_lines()[0].get_xydata().tolist() == [[6, 0.25], [12, 0.25]]


def test_calibration_and_dial_are_drawn() -> None:
    bins = [{"spread": 1.0, "error": 2.0, "blocks": 5}, {"spread": 2.0, "error": 5.0, "blocks": 5}]
    spreads = pd.DataFrame(
        [{"target_bpp": rate, "image": image, "calibration": bins, "seeds": 0.6, "steps": 0.3, "contrast": None}
         for rate in (0.1, 0.2) for image in "ab"]
    )  # fmt: skip
    figure = audit.calibration(spreads)
    assert figure.axes[0].get_lines()[0].get_xydata().tolist() == [[1, 2], [2, 5]]
    dial = pd.DataFrame(
        [
            {"target_bpp": 0.1, "bpp": 0.1, "fidelity": f, "psnr": 20 - f, "lpips-alex": 0.4 - f / 10}
            for f in (1.0, 0.0)
        ]
    )
    figure = audit.dial(dial)
    assert figure.axes[0].get_lines()[0].get_xdata().tolist() == [20, 19]
    assert figure.axes[1].get_lines()[0].get_xdata().tolist() == [0, -1]


def test_examples_are_a_grid_with_a_note_under_each() -> None:
    picture = np.zeros((8, 16, 3), np.uint8)
    figure = audit.examples([[picture] * 3] * 2, ["a", "b", "c"], ["x", "y"], [["1", "2", "3"]] * 2)
    assert len(figure.axes) == 6
    assert [axis.get_xlabel() for axis in figure.axes[:3]] == ["1", "2", "3"]
    assert [axis.get_title(loc="center") for axis in figure.axes[:3]] == ["a", "b", "c"]
