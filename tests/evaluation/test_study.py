"""Studies: parameters as people write them, stored numbers that count, and the rest measured."""

from pathlib import Path

import pytest
from PIL import Image

from diffusion_codec import datasets, fetch
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import parameters, records, study
from diffusion_codec.evaluation.study import Study, measure
from tests.evaluation.test_sweep import Counting


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.ImageDataset:
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in datasets.load("sample", limit=3):
        Image.fromarray(item.pixels()[:96, :128]).save(folder / f"{item.id}.png")
    small = datasets.photographs(folder)
    monkeypatch.setattr(study.datasets, "load", lambda name, limit=None: small)
    return small


def wanted(rates=(0.8,), images=None) -> Study:
    return Study("sample", images, tuple(rates), ("counting",), ("psnr",))


@pytest.mark.parametrize("given", [[0.1, 0.2], (0.2, 0.1, 0.1), "[0.1, 0.2]", "0.1,0.2", " 0.2, 1e-1 "])
def test_rates_in_every_form(given):
    assert parameters.numbers(given, "bitrates") == (0.1, 0.2)


def test_single_values():
    assert parameters.numbers(0.1, "bitrates") == parameters.numbers("0.1", "bitrates") == (0.1,)
    assert parameters.words("jpeg", "codecs") == ("jpeg",)
    assert parameters.words("[jpeg, 'avif']", "codecs") == ("jpeg", "avif")
    assert parameters.counts("[3, 0]", "steps") == (0, 3)
    assert [parameters.limit(value, "images") for value in (None, "None", "", 4, "4")] == [
        None,
        None,
        None,
        4,
        4,
    ]


@pytest.mark.parametrize(
    "given", [[], "[]", "fast", [0.1, None], [-0.1], 0, True, [0.1, "x"], 25, float("nan")]
)
def test_impossible_rates_are_named(given):
    with pytest.raises(BadInputError, match="bitrates: expected"):
        parameters.numbers(given, "bitrates", high=24)


def test_other_impossible_parameters():
    with pytest.raises(BadInputError, match=r"whole numbers.*0\.5"):
        parameters.counts([0.5], "steps")
    with pytest.raises(BadInputError, match="timesteps: expected numbers above -1 and at most 999"):
        parameters.timesteps([50, 1500], "timesteps")
    for value in (0, -1, 1.5, "many", True):
        with pytest.raises(BadInputError, match="images: expected"):
            parameters.limit(value, "images")
    for changed, message in (
        ({"dataset": "kodax"}, "kodak"),
        ({"codecs": ["jepg"]}, "jpeg2000"),
        ({"metric_names": "lpips"}, "lpips-alex"),
    ):
        fields = {
            "dataset": "kodak",
            "images": None,
            "bitrates": 0.1,
            "codecs": "jpeg",
            "metric_names": "psnr",
        }
        with pytest.raises(BadInputError, match=message):
            Study.of(**(fields | changed))


def test_only_what_is_missing_is_measured(photos, tmp_path):
    stored, out = tmp_path / "stored.csv", tmp_path / "out.csv"
    first = measure(wanted(), stored, stored, chosen=[Counting()])
    assert first.stored + first.new == 3
    codec = Counting()
    more = measure(wanted((0.8, 1.6)), stored, out, chosen=[codec])
    assert codec.calls == 3
    assert (more.stored, more.new) == (3, 3)
    assert "3 numbers stored with the project, 3 measured by this notebook" in more.caption
    days = {more.results.run(record).date for record in more.results.records}
    assert len(days) == 1
    assert f"({days.pop()}; code " in more.caption
    again = Counting()
    same = measure(wanted((0.8, 1.6)), stored, out, chosen=[again])
    assert again.calls == 0
    assert (same.stored, same.new) == (3, 3)
    assert len(records.read(stored).records) == 3


def test_stored_numbers_serve_where_the_pictures_cannot_be_had(photos, tmp_path, monkeypatch):
    stored = tmp_path / "stored.csv"
    measure(wanted(), stored, stored, chosen=[Counting()])
    hashes = {item.path.name: fetch.sha256_of(item.path) for item in photos}
    absent = datasets.images.from_hashes(photos.name, "listed", hashes)
    monkeypatch.setattr(study.datasets, "load_or_sample", lambda name: (datasets.load("sample"), "(absent)"))
    monkeypatch.setattr(study.datasets, "listed", lambda name: absent)
    codec = Counting()
    found = measure(wanted(), stored, tmp_path / "out.csv", chosen=[codec])
    assert (codec.calls, found.stored, found.new, found.photographs) == (0, 3, 0, absent)
    assert "(absent)" not in found.caption
    more = measure(wanted((0.8, 1.6)), stored, tmp_path / "more.csv", chosen=[codec])
    assert (more.stored, more.new, more.photographs) == (3, 3, photos)
    assert "(absent)" in more.caption


def test_stored_numbers_of_another_version_do_not_count(photos, tmp_path):
    stored = tmp_path / "stored.csv"
    measure(wanted(), tmp_path / "none.csv", stored, chosen=[Counting()])
    codec = Counting()
    codec.version = "2"
    found = measure(wanted(), stored, tmp_path / "out.csv", chosen=[codec])
    assert codec.calls == 3
    assert (found.stored, found.new) == (0, 3)
    assert {found.results.run(r).codecs["counting"].version for r in found.results.records} == {"2"}
    assert study.drop_outdated(stored, [codec]) == 3
    assert records.read(stored).records == []


def test_fewer_images_are_a_part_of_what_is_stored(photos, tmp_path):
    stored = tmp_path / "stored.csv"
    measure(wanted(), tmp_path / "none.csv", stored, chosen=[Counting()])
    codec = Counting()
    few = measure(wanted(images=2), stored, tmp_path / "out.csv", chosen=[codec])
    assert codec.calls == 0
    assert "the first 2 of 3 photographs" in few.caption
    assert few.summary["images"].to_list() == [2]
    assert few.summary["missing"].to_list() == [0]


def test_failures_are_not_numbers(photos, tmp_path):
    stored = tmp_path / "stored.csv"
    measure(wanted(), tmp_path / "none.csv", stored, chosen=[Counting(refused=2)])
    codec = Counting()
    assert measure(wanted(), stored, tmp_path / "out.csv", chosen=[codec]).stored == 2
    assert codec.calls == 1
