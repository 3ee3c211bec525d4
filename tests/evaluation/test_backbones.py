from pathlib import Path

import pandas as pd
import pytest

from diffusion_codec import datasets, metrics
from diffusion_codec.backbone import Backbone
from diffusion_codec.evaluation import backbones
from diffusion_codec.fetch import repository_root
from tests.tiny import tiny_codec


def test_every_case_is_measured_on_a_real_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "MEASURES", ("psnr",))
    codec, pictures = tiny_codec(tmp_path), datasets.load("sample", 2)
    rows = list(backbones.rows_of(codec, pictures, (0.1, 0.4)))
    table = backbones.means(rows).set_index("case")
    assert list(table.index) == ["0.1 bpp", "0.4 bpp", backbones.ALONE]
    assert (table["images"] == 2).all()
    assert table["bpp"]["0.1 bpp"] <= 0.1 < table["bpp"]["0.4 bpp"] <= 0.4
    assert pd.isna(table["bpp"][backbones.ALONE])
    alone = [metrics.get("psnr")(item.pixels(), codec.autoencode(item.pixels())) for item in pictures]
    assert table["psnr"][backbones.ALONE] == pytest.approx(sum(alone) / 2, abs=1e-4)


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_the_stored_table_is_of_the_weights_that_ship(name: str) -> None:
    table = pd.read_csv(repository_root() / "data/results/backbones.csv")
    fingerprint = Backbone.from_pretrained(name).fingerprint
    assert set(table[table["backbone"] == name]["fingerprint"]) == {fingerprint[:8]}
