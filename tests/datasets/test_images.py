"""Photograph sets: order, identity, pixels, and no photograph on both sides."""

import io

import numpy as np
import pytest
from PIL import Image

from diffusion_codec import datasets, fetch
from diffusion_codec.datasets.photos import Fingerprint
from diffusion_codec.errors import BadInputError, MissingDataError


@pytest.fixture(scope="module")
def sample() -> datasets.ImageDataset:
    return datasets.load("sample")


def test_sample_is_always_there(sample):
    assert [item.id for item in sample] == ["astronaut", "chelsea", "coffee", "motorcycle_left", "rocket"]
    assert sample.origin == "embedded"
    for item in sample:
        pixels = item.pixels()
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.std() > 20


def test_pixels_are_those_of_the_file(sample):
    item = sample[1]
    assert item.path is not None
    assert np.array_equal(item.pixels(), np.array(Image.open(item.path).convert("RGB")))


@pytest.mark.parametrize(
    ("name", "count"), [("kodak", 24), ("coco-val2017-128", 128), ("train-photos", 1508)]
)
def test_sets_of_the_mirror(name, count):
    if fetch.store().find(name) is None:
        pytest.skip(f"{name} is not on this machine")
    dataset = datasets.load(name)
    assert len(dataset) == count
    assert dataset.sha256 == fetch.locate(name).sha256
    assert min(dataset[count - 1].pixels().shape[:2]) >= 64
    listed = datasets.listed(name)
    if listed is not None:
        assert (listed.sha256, [item.id for item in listed]) == (
            dataset.sha256,
            [item.id for item in dataset],
        )


def test_a_set_is_known_by_its_list_without_its_pictures():
    listed = datasets.listed("kodak")
    assert (len(listed), listed[19].id) == (24, "kodim20")
    with pytest.raises(MissingDataError, match="kodim20 cannot be had"):
        listed[19].pixels()
    assert datasets.listed("clic2020-test") is None


def test_a_part_has_its_own_name_and_hash(sample):
    part = datasets.load("sample", limit=2)
    assert (part.name, len(part)) == ("sample[:2]", 2)
    assert part.sha256 != sample.sha256
    assert datasets.load("sample", limit=99).sha256 == sample.sha256
    with pytest.raises(BadInputError, match="1 to 5"):
        datasets.subset(sample, 0)


def test_same_files_elsewhere_have_the_same_hash(sample, tmp_path):
    for item in sample:
        (tmp_path / item.path.name).write_bytes(item.path.read_bytes())
    assert datasets.photographs(tmp_path).sha256 == sample.sha256


def test_orientation_is_applied(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    turned = datasets.photographs(tmp_path)[0].pixels()
    assert np.array_equal(turned, np.rot90(pixels, -1))


def test_a_folder_is_a_data_set(sample, tmp_path, monkeypatch):
    album = tmp_path / "kodak"
    (album / "inner").mkdir(parents=True)
    for name in ("inner/one.png", "two.PNG", "._two.png"):
        Image.fromarray(sample[0].pixels()[:16, :24]).save(album / name, "PNG")
    (album / "notes.txt").write_text("no photograph")
    found = datasets.load(str(album))
    assert ([item.id for item in found], found.name) == (["one", "two"], "kodak/")
    assert datasets.load(str(album), 1).name == "kodak/[:1]"
    assert datasets.listed(str(album)) is None
    monkeypatch.chdir(tmp_path)
    assert datasets.load("kodak/").sha256 == datasets.load("./kodak").sha256 == found.sha256

    def locate(name):
        raise MissingDataError(f"{name} of the manifest")

    monkeypatch.setattr(fetch, "locate", locate)
    with pytest.raises(MissingDataError, match="kodak of the manifest"):
        datasets.load("kodak")


def test_rows_of_the_hub_need_no_files(sample):
    import datasets as hub

    encoded = [sample[i].path.read_bytes() for i in (1, 2)]
    table = hub.Dataset.from_dict({"photo": [{"bytes": b, "path": None} for b in encoded], "label": [0, 1]})
    dataset = datasets.from_rows("hub-set", "hub", table, image="photo")
    assert len(dataset) == 2
    assert dataset[1].path is None
    assert np.array_equal(dataset[1].pixels(), sample[2].pixels())
    other = datasets.from_rows("hub-set", "hub", table.select([1, 0]), image="photo")
    assert other.sha256 != dataset.sha256


def test_errors_name_what_was_wrong(tmp_path):
    with pytest.raises(BadInputError, match="kodak"):
        datasets.load("kodac")
    with pytest.raises(MissingDataError, match="no image"):
        datasets.load_or_sample(f"{tmp_path}")
    with pytest.raises(MissingDataError, match="not a folder"):
        datasets.photographs(tmp_path / "absent")
    with pytest.raises(MissingDataError, match="no image"):
        datasets.photographs(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(BadInputError, match=r"a\.png"):
        datasets.photographs(tmp_path)[0].pixels()
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(BadInputError, match="differ"):
        datasets.photographs(tmp_path)


def _recompressed(pixels: np.ndarray, scale: float) -> bytes:
    image = Image.fromarray(pixels)
    small = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def _fingerprints(items) -> list[Fingerprint]:
    return [datasets.fingerprint(item.id, item.pixels()) for item in items]


@pytest.mark.parametrize("copy", ["exact", "scaled"])
def test_a_copy_of_a_test_photograph_is_found(copy, sample, tmp_path):
    source = sample[2]
    data = source.path.read_bytes() if copy == "exact" else _recompressed(source.pixels(), 0.4)
    (tmp_path / "holiday.jpg").write_bytes(data)
    Image.fromarray(sample[0].pixels()[::-1]).save(tmp_path / "other.png")
    train = _fingerprints(datasets.photographs(tmp_path))
    with pytest.raises(datasets.OverlapError, match=r"^1 of the photographs .* \(holiday = coffee\)"):
        datasets.assert_disjoint(train, ["sample"])
    datasets.assert_disjoint(train[1:], ["sample"])


def test_different_photographs_are_not_confused(sample):
    prints = _fingerprints(sample)
    assert datasets.overlap(prints, prints) == [(p.id, p.id) for p in prints]


def test_a_set_that_is_not_here_is_left_out(sample, monkeypatch):
    monkeypatch.setattr(fetch.Store, "find", lambda store, name: None)
    datasets.assert_disjoint(_fingerprints(sample))


def test_a_set_that_cannot_be_had_is_replaced_under_the_sample_s_name(sample, monkeypatch):
    def load(name, limit):
        if name != datasets.SAMPLE:
            raise MissingDataError(f"{name} is not here")
        return sample

    assert datasets.load_or_sample("sample", 1)[1] == ""
    monkeypatch.setattr(datasets, "load", load)
    found, note = datasets.load_or_sample("kodak")
    assert found.name == "sample"
    assert "kodak" in note


def test_nothing_is_trained_on_what_is_measured():
    """The project's own photographs; the sample photographs are always there to be compared with."""
    train = fetch.store().find("train-photos")
    if train is None:
        pytest.skip("the training photographs are not on this machine")
    datasets.assert_disjoint(_fingerprints(datasets.load("train-photos")))
