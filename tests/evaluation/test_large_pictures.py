from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffusion_codec import codec_weights
from diffusion_codec.backbone.options import SMALLEST_TILE
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import large_pictures
from diffusion_codec.evaluation.large_pictures import APART, SAME_LAMBDA, TILES, WHOLE
from diffusion_codec.fetch import repository_root
from tests.tiny import tiny_backbone, tiny_weights_file


def photographs(count: int, height: int = 16, width: int = 24) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def test_a_mosaic_is_cut_into_what_it_was_made_of() -> None:
    parts = photographs(9)
    whole = large_pictures.mosaic(parts)
    assert whole.shape == (48, 72, 3)
    assert np.array_equal(whole[:16, 24:48], parts[1])
    for made, part in zip(large_pictures.cut(whole), parts, strict=True):
        assert np.array_equal(made, part)


def test_mosaics_are_made_of_photographs_of_one_size() -> None:
    alike, upright = photographs(9), photographs(3, 24, 16)
    (made,) = large_pictures.mosaics([*upright, *alike])
    assert np.array_equal(made, large_pictures.mosaic(alike))
    assert len(large_pictures.mosaics(photographs(19))) == 2
    with pytest.raises(BadInputError, match="9 photographs of one size, here are 8"):
        large_pictures.mosaics(alike[:8])


def test_an_enlarged_photograph_shows_the_same() -> None:
    flat = np.full((4, 6, 3), 100, np.uint8)
    flat[:, 3:] = 200
    large = large_pictures.enlarged(flat)
    assert large.shape == (12, 18, 3)
    assert (large[:, :6] < 120).all()
    assert (large[:, -6:] > 180).all()


def test_only_one_way_to_work_leaves_a_large_picture_whole() -> None:
    sides = [(tiles.pixels, tiles.latents) for tiles in TILES.values()]
    assert sides[0][0] > 10**6 > sides[1][0] > sides[2][0] == SMALLEST_TILE
    assert sides[1] == (1024, 256)


def test_every_way_to_work_on_a_picture_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pictures, "MEASURES", ("psnr",))
    monkeypatch.setattr(large_pictures, "RATES", (12.0,))
    monkeypatch.setattr(large_pictures, "ENLARGED", 1)
    codec = Codec(tiny_backbone(), codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors")))
    table = pd.DataFrame(list(large_pictures.compare(codec, photographs(9, 64, 64))))
    mosaic = table[table.picture == "mosaic"].set_index("worked_on")
    assert list(mosaic.index) == [*TILES, APART, SAME_LAMBDA]
    assert (mosaic.drop(SAME_LAMBDA).bpp <= 12).all()
    assert table[table.picture == "enlarged"].worked_on.tolist() == list(TILES)
    assert np.isfinite(table.psnr).all()
    assert mosaic.psnr.nunique() > 1  # 192 pixels a side: no tiles
    assert mosaic.loc[WHOLE, "psnr"] == mosaic.loc["in tiles", "psnr"]


def test_the_stored_table_says_what_the_book_says() -> None:
    table = pd.read_csv(repository_root() / "data/results/large_pictures.csv")
    rows = table.drop(columns="dataset").set_index(["picture", "rate", "worked_on"])
    for (_, rate), group in table.groupby(["picture", "rate"]):
        tiled = group[group.worked_on.isin(TILES)]
        assert tiled["lpips-alex"].max() - tiled["lpips-alex"].min() < 0.005
        assert tiled["psnr"].max() - tiled["psnr"].min() < 0.05
        assert group.loc[group.worked_on != SAME_LAMBDA, "bpp"].between(0.96 * rate, rate).all()
    for rate in (0.1, 0.05):
        cost = rows.loc[("mosaic", rate, WHOLE)] - rows.loc[("mosaic", rate, APART)]
        assert 0.002 < cost["lpips-alex"] < 0.005
        assert abs(cost["psnr"]) < 0.03
