"""Tables: means with intervals, BD-rate against a known answer, and refusals where numbers do not compare."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffusion_codec import datasets, fetch
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import (
    choices,
    described,
    entropy_models,
    other_priors,
    records,
    refinement,
    seal,
    training_choices,
)
from diffusion_codec.evaluation.tables import (
    NotComparableError,
    bd_rate,
    bootstrap_interval,
    keep,
    stored,
    summarise,
)
from diffusion_codec.files import OutputError

RATES = (0.1, 0.2, 0.4, 0.8, 1.6)
NOWHERE = Path("nowhere")


def run(**changed) -> records.Run:
    fields = {
        "dataset": "d",
        "dataset_sha256": "ab",
        "dataset_origin": "folder",
        "images": 6,
        "codecs": {},
        "protocols": {"psnr": "p", "lpips-alex": "q"},
    }
    return records.Run(**records.environment("cpu"), **(fields | changed))


def rows(of: records.Run, codec: str, scale: float = 1.0, metric: str = "psnr", images: int = 6, rates=RATES):
    """Quality 30 + 6 log2(rate) dB plus an offset by image; `scale` multiplies the rate."""
    for rate in rates:
        for image in range(images):
            quality = 30 + 6 * np.log2(rate) + image - 2.5
            value = quality if metric == "psnr" else 1 - quality / 100
            yield records.Record(
                run=of.id,
                codec=codec,
                image=str(image),
                width=8,
                height=8,
                target_bpp=rate * scale,
                bpp=rate * scale,
                bytes=1,
                metric=metric,
                value=value,
            )


def test_mean_and_interval():
    one = run()
    table = summarise(records.Results(rows(one, "a"), [one]))
    assert list(table["target_bpp"]) == list(RATES)
    assert table["value"].to_list() == pytest.approx([30 + 6 * np.log2(r) for r in RATES])
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()
    assert (table["missing"] == 0).all()
    # six equally spaced values: deviation 1.87, so about 2.57 (Student's t, 5) * 1.87 / sqrt(6) on both sides
    assert (table["high"] - table["low"]).to_numpy() == pytest.approx(2 * 2.57 * 1.87 / 6**0.5, rel=0.1)


@pytest.mark.parametrize("images", [4, 40])
def test_interval_covers_the_mean_about_as_often_as_it_says(images):
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(1000):
        low, high = bootstrap_interval(rng.normal(5, 2, images), seed=trial)
        inside += low <= 5 <= high
    assert 0.93 <= inside / 1000 <= 0.97


@pytest.mark.parametrize("metric", ["psnr", "lpips-alex"])
def test_bd_rate_of_half_the_bits_is_minus_fifty_per_cent(metric):
    one = run()
    table = summarise(
        records.Results([*rows(one, "a", metric=metric), *rows(one, "b", 0.5, metric=metric)], [one])
    )
    found = bd_rate(table, "a", "b", metric)
    assert found.percent == pytest.approx(-50, abs=1e-6)
    assert found.overlap == pytest.approx(1)
    assert bd_rate(table, "b", "a", metric).percent == pytest.approx(100, abs=1e-6)


def test_bd_rate_refuses_what_means_nothing():
    one = run()
    few = summarise(records.Results([*rows(one, "a"), *rows(one, "b", rates=RATES[:3])], [one]))
    with pytest.raises(NotComparableError, match="b has 3"):
        bd_rate(few, "a", "b", "psnr")
    far = [r.model_copy(update={"value": r.value + 100}) for r in rows(one, "b")]
    with pytest.raises(NotComparableError, match="share no psnr"):
        bd_rate(summarise(records.Results([*rows(one, "a"), *far], [one])), "a", "b", "psnr")
    flat = [r.model_copy(update={"value": 30.0}) for r in rows(one, "b")]
    with pytest.raises(NotComparableError, match="better with every rate"):
        bd_rate(summarise(records.Results([*rows(one, "a"), *flat], [one])), "a", "b", "psnr")


def test_points_with_missing_images_are_marked_and_not_used():
    one = run()
    table = summarise(records.Results([*rows(one, "a"), *rows(one, "b", images=5)], [one]))
    assert set(table[table["codec"] == "b"]["missing"]) == {1}
    with pytest.raises(NotComparableError, match="0 of psnr"):
        bd_rate(table, "a", "b", "psnr")


def test_the_last_measurement_of_a_point_counts():
    old, new = run(), run(codecs={"a": records.CodecInfo(version="2", settings="")})
    better = [r.model_copy(update={"value": r.value + 1}) for r in rows(new, "a")]
    table = summarise(records.Results([*rows(old, "a"), *better], [old, new]))
    assert (table["images"] == 6).all()
    assert table["value"].iloc[0] == pytest.approx(30 + 6 * np.log2(0.1) + 1)


def test_different_data_sets_or_protocols_are_not_mixed():
    one, other_set, other_way = run(), run(dataset_sha256="cd"), run(protocols={"psnr": "luma"})
    with pytest.raises(NotComparableError, match="one data set"):
        summarise(records.Results([*rows(one, "a"), *rows(other_set, "b")], [one, other_set]))
    with pytest.raises(NotComparableError, match="more than one way"):
        summarise(records.Results([*rows(one, "a"), *rows(other_way, "b")], [one, other_way]))


def test_each_metric_has_the_protocol_of_the_run_that_measured_it():
    one, other = run(), run(protocols={"dists": "structure and texture"})
    later = [r.model_copy(update={"metric": "dists"}) for r in rows(other, "a")]
    table = summarise(records.Results([*rows(one, "a"), *later], [one, other]))
    assert table.groupby("metric")["protocol"].unique().map(list).to_dict() == {
        "dists": ["structure and texture"],
        "psnr": [one.protocols["psnr"]],
    }


def test_nothing_measured_is_said():
    with pytest.raises(NotComparableError, match="no number"):
        summarise(records.Results())


def test_bd_quality_of_a_known_shift_and_equal_quality():
    from diffusion_codec.evaluation.tables import bd_quality, bd_table, equal_quality, rate_at

    one = run()
    both = [*rows(one, "a"), *rows(one, "b", scale=0.5)]  # b needs half the rate: 6 dB more at equal rate
    table = summarise(records.Results(both, [one]))
    assert bd_quality(table, "a", "b", "psnr").difference == pytest.approx(6, abs=0.05)
    assert rate_at(table, "a", "psnr", 30 + 6 * np.log2(0.3)) == pytest.approx(0.3, rel=1e-6)
    with pytest.raises(NotComparableError, match="reaches"):
        rate_at(table, "a", "psnr", 99.0)
    equal = equal_quality(table, "b", ["a"], "psnr", pixels=1000)
    rival = equal[equal["codec"] == "a"].dropna()
    assert rival["times"].to_numpy() == pytest.approx(2)
    assert rival["bytes"].to_numpy() == pytest.approx(rival["bpp"].to_numpy() * 125)
    few = records.Results([*rows(one, "a"), *rows(one, "c", rates=RATES[:3])], [one])
    why = bd_table(summarise(few), "a", ["c"], ["psnr"]).iloc[0]
    assert np.isnan(why["BD-rate %"])
    assert "4 complete points" in why["why not"]


def test_lower_is_better_turns_the_sign_of_bd_quality():
    from diffusion_codec.evaluation.tables import bd_quality

    one = run()
    both = [*rows(one, "a", metric="lpips-alex"), *rows(one, "b", scale=0.5, metric="lpips-alex")]
    found = bd_quality(summarise(records.Results(both, [one])), "a", "b", "lpips-alex")
    assert found.difference == pytest.approx(-0.06, abs=0.001)


def test_where_a_table_goes_is_asked_before_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored("x.csv", None, whole=True) == seal.results_folder() / "x.csv"
    assert stored("x.csv", tmp_path / "y.csv", whole=False) == tmp_path / "y.csv"
    with pytest.raises(BadInputError, match="--out"):
        stored("x.csv", None, whole=False)
    with pytest.raises(OutputError, match="does not exist"):
        stored("x.csv", tmp_path / "nowhere" / "x.csv", whole=True)
    monkeypatch.setattr(fetch, "repository_root", lambda: tmp_path)
    with pytest.raises(BadInputError, match="no clone"):
        stored("x.csv", None, whole=True)


def test_a_kept_table_says_first_of_which_data_set_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = datasets.subset(datasets.load("sample"), 2)
    table = pd.DataFrame({"rate": [0.1, 0.2]}, index=[5, 7])
    keep(table, pictures, tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_text() == f"dataset,rate\n{pictures.name},0.1\n{pictures.name},0.2\n"
    assert capsys.readouterr().out.split()[:2] == ["dataset", "rate"]


@pytest.mark.parametrize(
    ("main", "asked"),
    [
        (choices.main, {"limit": 2}),
        (described.main, {"runs": NOWHERE, "config": "smoke"}),
        (entropy_models.main, {"models": NOWHERE, "backbone": "small"}),
        (other_priors.main, {"runs": NOWHERE, "photos": NOWHERE}),
        (refinement.main, {"device": "cuda"}),
        (training_choices.main, {"start": NOWHERE, "runs": NOWHERE, "dataset": "sample"}),
    ],
    ids=lambda value: getattr(value, "__module__", "").rpartition(".")[2],
)
def test_what_the_book_shows_is_replaced_by_the_same_measurement_only(main, asked):
    with pytest.raises(BadInputError, match="name a file with --out"):
        main(**asked)
