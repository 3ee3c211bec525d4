"""What refinement is worth, measured on a data set: with a backbone of random weights, the bookkeeping is real."""

from pathlib import Path

import pandas as pd
import pytest

from diffusion_codec import datasets
from diffusion_codec.codec import Codec
from diffusion_codec.evaluation import refinement
from tests.needed import needs_squeeze
from tests.tiny import tiny_codec


@needs_squeeze
def test_every_file_is_measured_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_codec(tmp_path)
    monkeypatch.setattr(Codec, "from_pretrained", lambda *arguments, **options: tiny)
    monkeypatch.setattr(refinement, "MEASURES", ("psnr",))
    pictures = datasets.load("sample", 2)
    rows = pd.DataFrame(refinement.compare("tiny", pictures, [1.0], [0, 2], "cpu"))
    assert rows["steps"].tolist() == [0, 2, 0, 2]
    assert (rows["bpp"] <= 1.0).all()
    assert (rows.query("steps == 0")["seconds"] == 0).all()
    assert (rows.query("steps == 2")["seconds"] > 0).all()
    table = refinement.means(rows)
    assert table["images"].tolist() == [2, 2]
    assert table["psnr"].tolist() == pytest.approx(rows.groupby("steps")["psnr"].mean().tolist(), abs=1e-4)
