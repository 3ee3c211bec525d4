"""Interactive curves and the choice of pairs: whole without a network, and honest about what they show."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.pictures import ORIGINAL, Picture
from diffusion_codec.figures import interactive, pairs


def summary() -> pd.DataFrame:
    rows = [("jpeg", 0.1 * n, 20.0 + n) for n in (1, 2, 3)] + [("ceiling-mini", np.nan, 24.0)]
    table = pd.DataFrame(rows, columns=["codec", "bpp", "value"])
    return table.assign(
        metric="psnr", missing=0, dataset="kodak", low=table["value"] - 1, high=table["value"] + 1
    )


def test_curves_with_intervals_and_ceiling(tmp_path):
    figure = interactive.curves(summary(), "psnr")
    (trace,) = figure.data
    assert list(trace.y) == [21.0, 22.0, 23.0]
    assert list(trace.error_y.array) == [1.0] * 3
    assert figure.layout.shapes[0].y0 == 24.0
    (tmp_path / "p.png").write_bytes(b"png")
    shown = interactive.Interactive(figure, tmp_path / "p.png", "what is seen")._repr_mimebundle_()
    assert shown["text/plain"] == "what is seen"
    assert re.findall(r'src="([^"]+)"', shown["text/html"]) == [interactive.SCRIPT]
    assert "https://" not in re.sub(r"https://plot(ly|\.ly)[^\"']*", "", shown["text/html"])


def pictures(folder) -> list[Picture]:
    rng = np.random.default_rng(0)
    found = []
    for codec, size in ((ORIGINAL, None), ("jpeg", 900), ("dfc-mini", 800)):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(folder / f"{codec}.png")
        bpp = None if size is None else 8 * size / (64 * 80)
        found.append(Picture("a", codec, f"{codec}.png", size, bpp, 0.1, 0.2, "sample"))
    return found


def test_each_picture_once_and_every_pair_to_choose(tmp_path):
    shown = pairs.pair_slider(
        pictures(tmp_path), tmp_path, "p", "a cat", (0.5, 0.5), ("original", "dfc-mini")
    )
    assert len(re.findall(r"<img hidden id=", shown.markup)) == 3
    assert len(re.findall(r"<option", shown.markup)) == 6
    assert "JPEG: 900 bytes" in shown.markup
    assert len(re.findall("selected", re.sub(r'onchange="[^"]*"', "", shown.markup))) == 2
    with pytest.raises(BadInputError, match="two or more"):
        pairs.pair_slider(pictures(tmp_path)[:1], tmp_path, "p", "a cat", (0.5, 0.5), ("jpeg", "jpeg"))
