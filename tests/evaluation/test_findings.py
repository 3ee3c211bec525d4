"""Sentences computed from numbers: right in both directions, and honest about what was not measured."""

import json
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffusion_codec import baselines, datasets
from diffusion_codec.book.paths import repository_root
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import codecs, findings, parameters, pictures, records
from diffusion_codec.evaluation.tables import NotComparableError, summarise
from tests.evaluation.test_tables import run


def results(**lpips_by_codec) -> records.Results:
    """Six images at two rates; the value of image i is that of the codec plus i / 1000."""
    one = run()
    rows = [
        records.Record(
            run=one.id,
            codec=codec.replace("_at_", "@"),
            image=str(image),
            width=8,
            height=8,
            target_bpp=rate,
            bpp=rate * 0.99,
            bytes=1,
            metric="lpips-alex",
            value=value + image / 1000,
            steps=0 if "_at_" in codec else 3,
        )
        for codec, values in lpips_by_codec.items()
        for rate, value in zip((0.1, 0.2), values, strict=True)
        for image in range(6)
    ]
    return records.Results(rows, [one])


def test_one_codec_as_per_cent_of_another():
    found = findings.compare(results(dfc=(0.1, 0.1), avif=(0.2, 0.2)), "dfc", "avif", "lpips-alex", 0.1)
    assert found.percent == pytest.approx(100 * 0.1025 / 0.2025)
    assert found.low < found.percent < found.high
    assert found.images == 6
    assert found.bpp == pytest.approx(0.099)
    assert str(found).startswith("51 % of AVIF's")


def test_a_rival_of_smaller_files_is_read_off_its_curve_at_our_rate():
    some = results(dfc=(0.1, 0.1), vvc=(0.4, 0.2))
    some.records[:] = [
        r.model_copy(update={"bpp": 0.9 * r.bpp}) if r.codec == "vvc" else r for r in some.records
    ]
    found = findings.compare(some, "dfc", "vvc", "lpips-alex", 0.1)
    part = np.log(1 / 0.9) / np.log(2)
    assert found.percent == pytest.approx(100 * 0.1025 / (0.4025 - 0.2 * part))
    assert found.bpp == found.rival_bpp
    assert "both at 0.099 bits per pixel" in str(found)
    beyond = findings.compare(some, "dfc", "vvc", "lpips-alex", 0.2)
    assert beyond.percent == pytest.approx(100 * 0.1025 / 0.2025)
    assert "0.198 against 0.178" in str(beyond)


def test_what_was_not_measured_is_said():
    some = results(dfc=(0.1, 0.1), avif=(0.2, 0.2))
    said = findings.comparison_sentence(some, "dfc", ("avif", "jpeg2000"), "lpips-alex", 0.1)
    assert "51 % of AVIF's" in said
    assert "not compared with JPEG 2000's (not measured of both" in said
    assert "none was asked for" in findings.comparison_sentence(some, "dfc", (), "lpips-alex", 0.1)
    with pytest.raises(NotComparableError):
        findings.compare(some, "dfc", "jpeg2000", "lpips-alex", 0.1)


@pytest.mark.parametrize(
    ("without", "verdict"),
    [((0.3, 0.2), "At all 2 ("), ((0.3, 0.05), "At 1 of 2"), ((0.05, 0.05), "At 0 of 2")],
)
def test_the_verdict_follows_the_numbers(without, verdict):
    gain = findings.denoising_gain(results(dfc=(0.1, 0.1), dfc_at_0=without), "dfc", "dfc@0", ["lpips-alex"])
    assert gain["difference"].to_list() == pytest.approx([0.1 - value for value in without])
    said = findings.denoising_verdict(gain)
    assert said.startswith(verdict)
    if without == (0.3, 0.05):
        assert "not at 0.198 bits per pixel" in said


def test_a_gain_in_a_metric_where_more_is_better():
    some = results(dfc=(0.2, 0.2), dfc_at_0=(0.1, 0.1))
    psnr = records.Results(
        [r.model_copy(update={"metric": "psnr"}) for r in some.records], some.runs.values()
    )
    gain = findings.denoising_gain(psnr, "dfc", "dfc@0", ["psnr"])
    assert gain["better"].all()
    assert findings.denoising_verdict(gain, "psnr").startswith("At all 2 (")
    assert "No rate" in findings.denoising_verdict(gain, "lpips-alex")


def test_harm_beyond_chance_is_not_passed_over():
    gain = pd.DataFrame(
        {
            "metric": "lpips-alex",
            "bpp": [0.1, 0.3],
            "low": [-0.02, 0.001],
            "high": [-0.01, 0.002],
            "better": [True, False],
        }
    )
    said = findings.denoising_verdict(gain)
    assert said.endswith("not at 0.300 bits per pixel (beyond chance it does harm at 0.300).")


def test_what_denoising_changes_is_told_rate_by_rate():
    gain = pd.DataFrame({"metric": "lpips-alex", "target_bpp": [0.2, 0.1], "difference": [0.00021, -0.0544]})
    assert findings.gains_sentence(gain) == "\u22120.054 at 0.1 and +0.0002 at 0.2 bits per pixel"
    assert "not measured" in findings.gains_sentence(gain, "dists")


def test_the_way_is_told_by_its_mean(tmp_path):
    path = tmp_path / "C1.csv"
    assert "make evidence" in findings.way_sentence(path)
    assert findings.way(path) == {}
    path.write_text("image,target_bpp,bpp,timestep\na,0.05,0.05,180\nb,0.05,0.05,90\na,0.1,0.1,60\n")
    assert "begin, on average, at t = 135 at 0.05 and 60 at 0.1 bits" in findings.way_sentence(path)


def test_where_a_codec_leads():
    some = summarise(results(dfc=(0.1, 0.3), dfc_at_0=(0.01, 0.01), avif=(0.2, 0.2)))
    some = pd.concat([some, some[some["codec"] == "dfc@0"].assign(codec="dfc:other")])
    said = findings.lead_sentence(some, "dfc", "lpips-alex")
    assert said == (
        "Asked for 0.1 bits per pixel, this codec is the best by LPIPS (AlexNet) of all whose files are at most 5 % "
        "larger, its own variants left aside; at 0.2 another one is."
    )
    larger = some.assign(bpp=some["bpp"].where(some["codec"] != "avif", some["bpp"] * 1.2))
    assert not findings.lead_sentence(larger, "dfc", "lpips-alex").startswith("Not measured")
    assert "0.2" not in findings.lead_sentence(larger, "dfc", "lpips-alex")
    behind = summarise(results(dfc=(0.3, 0.3), avif=(0.2, 0.2)))
    told = findings.lead_sentences(behind, "dfc", ["lpips-alex", "psnr", "ms-ssim"])
    assert told == (
        "By LPIPS (AlexNet) this codec leads at no rate asked for. "
        "Not measured for this codec and another one: PSNR and MS-SSIM."
    )


def test_best_number_of_steps():
    table = summarise(results(dfc=(0.1, 0.3), dfc_at_0=(0.2, 0.2)))
    said = findings.best_steps(table, "lpips-alex")
    assert "Of 0, 3 steps the best by LPIPS (AlexNet): 3 at 0.099" in said
    assert "0 at 0.198" in said


def test_table_of_means_has_a_row_a_codec_and_rate():
    table = findings.means_table(summarise(results(dfc=(0.1, 0.3), avif=(0.2, 0.2))), ["lpips-alex"])
    assert table.columns.to_list() == ["codec", "asked", "measured", "images", "lpips-alex"]
    assert len(table) == 4


def test_nearest_rate_is_nearest_in_ratio():
    assert findings.nearest_rate((0.05, 0.3), 0.1) == 0.05
    assert findings.nearest_rate((0.2, 0.11), 0.1) == 0.11


def test_text_is_handed_on_as_it_is():
    assert repr(findings.Sentence("AVIF's")) == "AVIF's"


def test_pictures_are_those_of_the_files(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in datasets.load("sample", limit=2):
        Image.fromarray(item.pixels()[:96, :128]).save(folder / f"{item.id}.png")
    photos = datasets.photographs(folder)
    jpeg = codecs.BaselineCodec(baselines.get("jpeg"))
    made = pictures.decode([jpeg], list(photos), "here", 1.0, tmp_path / "out")
    written = json.loads((tmp_path / "out" / pictures.INDEX).read_text())
    assert written == [asdict(picture) for picture in made]
    assert [p.codec for p in made] == ["original", "jpeg"] * 2
    data = baselines.get("jpeg").encode_at(photos[0].pixels(), 1.0).data
    assert made[1].bytes == len(data)
    assert np.array_equal(made[1].pixels(tmp_path / "out"), baselines.get("jpeg").decode(data))
    assert made[0].bytes == photos[0].path.stat().st_size
    first = photos[0].id
    assert [p.id for p in pictures.choose(photos, [first], 2)] == [first]
    assert [p.id for p in pictures.choose(photos, ["kodim23", "kodim04"], 2)] == [p.id for p in photos]
    with pytest.raises(ValueError, match="kodim23"):
        pictures.choose(photos, [first, "kodim23"], 2)


def test_chapter_3_is_about_whichever_backbone_is_named():
    documented = [path.read_text("utf-8") for path in (repository_root() / "book").glob("*.md")]
    documented += [path.read_text("utf-8") for path in (repository_root() / "notebooks").glob("*.ipynb")]
    lists = [found for text in documented for found in re.findall(r"NB=03 P='\{?codecs: \[(.*?)\]", text)]
    assert len(lists) > 2
    for found in lists:
        assert findings.own_codec(parameters.words(found, "codecs")).startswith("dfc-")
    assert findings.own_codec(["jpeg", "dfc-mini@0", "dfc-mini:paper-2024", "dfc-big"]) == "dfc-big"
    assert findings.looked_at(["dfc-big", "dfc-big@0", "dfc-mini", "ceiling-big", "avif"], "dfc-big") == [
        "dfc-big", "dfc-big@0", "ceiling-big", "avif", "jpeg",
    ]  # fmt: skip
    with pytest.raises(BadInputError, match="like dfc-mini; got jpeg, dfc-mini@0"):
        findings.own_codec(["jpeg", "dfc-mini@0"])


def test_a_metric_that_stands_in_is_said_to():
    assert findings.stand_in(["psnr", "dists"], ("lpips-alex", "dists")) == ""
    assert "PSNR stands in" in findings.stand_in(["psnr"], ("lpips-alex", "dists"))


def test_numbers_have_a_true_minus_thin_spaces_and_no_sign_before_zero() -> None:
    assert findings.number(-0.5, ".2f") == "\u22120.50"
    assert findings.number(-0.001, ".2f") == findings.number(-0.001, "+.2f") == "0.00"
    assert findings.number(122724.0, ",.0f") == "122\u202f724"
    assert findings.number(-0.001, ".0%") == "0%"


def test_parts_of_data_sets_are_told_in_words() -> None:
    assert findings.data_set("kodak[:4]") == "the first 4 of kodak"
    assert (
        findings.data_set("latents of 4 photographs of kodak[:4]")
        == "latents of the first 4 photographs of kodak"
    )
    assert findings.data_set("sample[:1]") == "the first of sample"
    assert findings.data_set("sample") == "sample"
    assert findings.data_set("3 photographs of a.b/[:3]") == "the first 3 photographs of a.b/"
