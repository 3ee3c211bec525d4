"""The stored audit is large enough to mean something, and belongs to the weights that ship."""

import json

import pytest

from diffusion_codec.audit.__main__ import DIAL_IMAGES, SPREAD_IMAGES, result
from diffusion_codec.audit.findings import RIVALS
from diffusion_codec.book.paths import repository_root
from diffusion_codec.evaluation import codecs, records

RESULTS = repository_root() / "data" / "results"
SUBJECTS = {"text": 30, "faces": 20, "patterns": 30}
EQUAL_RATES = 5
REMEDY = "run `make audit` and commit data/results/"


@pytest.mark.parametrize("part", SUBJECTS)
def test_enough_pictures_at_equal_rates_through_every_codec(part: str) -> None:
    """30 pictures of text, 20 faces, 30 charts; this codec and its rivals at five equal rates or more."""
    stored = records.read(result(RESULTS, part)).records
    images = {record.image for record in stored}
    assert len(images) >= SUBJECTS[part], REMEDY
    compared = ("dfc-mini", *RIVALS)
    there = {(r.codec, r.image, r.target_bpp) for r in stored if r.value is not None}
    rates = {r.target_bpp for r in stored if r.codec == "dfc-mini"}
    assert len(rates) >= EQUAL_RATES
    missing = {(c, i, b) for c in compared for i in images for b in rates} - there
    assert not missing, f"{len(missing)} points without a value, such as {min(missing)}; {REMEDY}"


@pytest.mark.parametrize("part", [*SUBJECTS, "dial"])
def test_the_audited_weights_are_those_that_ship(part: str) -> None:
    stored = records.read(result(RESULTS, part))
    audited = {
        stored.run(record).codecs[record.codec].version
        for record in stored.records
        if record.codec.startswith("dfc-")
    }
    assert audited == {codecs.get(["dfc-mini"])[0].version}, REMEDY


def test_the_dial_and_the_spread_were_measured_on_all_their_pictures() -> None:
    turned = {record.image for record in records.read(result(RESULTS, "dial")).records}
    assert turned == set(DIAL_IMAGES), REMEDY
    spread = json.loads(result(RESULTS, "uncertainty").read_text(encoding="utf-8"))
    assert spread["run"]["codec"] == codecs.get(["dfc-mini"])[0].version, REMEDY
    assert len({row["image"] for row in spread["rows"]}) == SPREAD_IMAGES, REMEDY
