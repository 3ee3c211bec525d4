"""Baselines: real files, bare, decodable, and never above the rate that was asked for."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from diffusion_codec import baselines
from diffusion_codec.baselines.base import Baseline
from diffusion_codec.errors import BadInputError

SLOW = ("avif-slow", "vvc")
FAST = [name for name in baselines.names() if name not in SLOW]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.chelsea()[:160, 100:340])


@pytest.mark.parametrize("name", baselines.names())
def test_round_trip_is_near_and_repeatable(name, photo):
    codec = baselines.get(name)
    quality = codec.qualities[int(len(codec.qualities) * 0.9)]
    encoded = codec.encode(photo, quality)
    decoded = codec.decode(encoded)
    assert decoded.shape == photo.shape
    assert decoded.dtype == np.uint8
    assert np.mean(np.abs(decoded.astype(int) - photo)) < 6
    assert encoded == codec.encode(photo, quality)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("bpp", [0.45, 0.8])
def test_largest_file_not_above_the_target(name, bpp, photo):
    codec = baselines.get(name)
    found = codec.encode_at(photo, bpp)
    limit = bpp * photo.shape[0] * photo.shape[1] / 8
    assert len(found.data) <= limit
    sizes = [len(codec.encode(photo, q)) for q in codec.qualities[:: 1 if name in ("jpeg", "webp") else 5]]
    assert len(found.data) >= max(size for size in sizes if size <= limit)


def test_newer_codecs_beat_jpeg_at_equal_rate(photo):
    """A codec with a wrong setting (JPEG 2000 without its colour transform) would not."""

    def error(name: str) -> float:
        codec = baselines.get(name)
        decoded = codec.decode(codec.encode_at(photo, 0.6).data)
        return float(np.mean((decoded.astype(float) - photo) ** 2))

    newer = [name for name in (*FAST, "vvc") if not name.startswith("jpegli")]
    errors = {name: error(name) for name in newer}
    assert all(errors[name] < 0.9 * errors["jpeg"] for name in newer if name != "jpeg"), errors
    assert errors["vvc"] == min(errors.values())


@pytest.mark.parametrize("name", FAST)
def test_files_known_from_other_rates_are_used_and_change_nothing(name, photo):
    codec, known = baselines.get(name), {}
    for bpp in (1.2, 0.45, 0.6):
        found = codec.encode_at(photo, bpp, known)
        alone = codec.encode_at(photo, bpp)
        near = (
            0.1 if name == "jpeg-xl" else 0.01
        )  # its sizes do not rise with every quality: two searches differ
        assert abs(len(found.data) - len(alone.data)) <= near * len(alone.data)
    assert len(known) <= 26  # three searches by halves alone would be about 25 on 101 qualities


@pytest.mark.parametrize("name", [name for name in baselines.names() if baselines.get(name).rising])
def test_codecs_said_to_be_rising_rise(name, photo):
    codec = baselines.get(name)
    sizes = [len(codec.encode(photo, quality)) for quality in codec.qualities[2:50:2]]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("grows", [1.03, 1.2])
def test_the_search_makes_few_files_of_a_scale_that_grows_evenly(rising, grows):
    made = []

    def encode(_, quality):
        made.append(quality)
        return bytes(int(50 * grows**quality))

    count = int(np.log(100_000) / np.log(grows))
    codec = Baseline("even", "1", "none", tuple(range(count)), encode, lambda _: None, rising=rising)
    pixels = np.zeros((512, 768, 3), np.uint8)
    for bpp in (0.05, 0.1, 0.3, 2.0):
        made.clear()
        found = codec.encode_at(pixels, bpp)
        limit = bpp * 512 * 768 / 8
        assert len(found.data) <= limit < len(encode(None, found.quality + 1))
        assert len(made) - 1 <= 9
        assert rising or found.quality + 2 in made


@pytest.mark.parametrize("name", FAST)
def test_unreachable_rate_says_what_is_reachable(name, photo):
    with pytest.raises(baselines.UnreachableRateError, match="bits per pixel"):
        baselines.get(name).encode_at(photo, 0.0005)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 17, 3), (33, 2, 3)])
def test_tiny_images(name, shape):
    pixels = np.full(shape, 128, np.uint8)
    codec = baselines.get(name)
    decoded = codec.decode(codec.encode(pixels, codec.qualities[-1]))
    assert decoded.shape == shape
    assert np.abs(decoded.astype(int) - 128).max() <= 4


@pytest.mark.parametrize("name", FAST)
def test_no_metadata_in_the_file(name, photo, tmp_path):
    encoded = baselines.get(name).encode(photo, 50)
    path = tmp_path / "file"
    path.write_bytes(encoded)
    with Image.open(path) as image:
        found = {key for key, value in image.info.items() if value}
    if name == "jpeg-xl":
        found -= {"icc_profile"}  # libjxl makes it up while decoding: no file of 200 bytes can hold its 504
        assert len(baselines.get(name).encode(np.full((8, 8, 3), 128, np.uint8), 50)) < 200
    assert not {"exif", "icc_profile", "comment", "xmp"} & found


@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 2, 3), (41, 57, 3)])
def test_vvc_keeps_sides_that_are_not_whole_blocks(shape, photo):
    codec = baselines.get("vvc")
    pixels = np.ascontiguousarray(photo[: shape[0], : shape[1]])
    decoded = codec.decode(codec.encode(pixels, 55))
    assert decoded.shape == shape
    assert np.mean(np.abs(decoded.astype(int) - pixels)) < 8
    with pytest.raises(BadInputError, match="bytes"):
        codec.decode(codec.encode(pixels, 55)[:20])


@pytest.mark.parametrize("name", ["avif", "heic", "vvc"])
def test_container_and_picture_are_the_file(name, photo):
    codec = baselines.get(name)
    data = codec.encode(photo, codec.qualities[len(codec.qualities) // 3])
    parts = codec.parts(data)
    assert sum(parts.values()) == len(data)
    assert 100 < parts["container"] < 500 < parts["picture"]


@pytest.mark.parametrize("name", FAST)
def test_damaged_file_is_a_typed_error(name, photo):
    with pytest.raises(BadInputError, match="bytes"):
        baselines.get(name).decode(baselines.get(name).encode(photo, 50)[:20])


def test_versions_and_options_are_stated():
    for codec in map(baselines.get, baselines.names()):
        assert any(character.isdigit() for character in codec.version), codec
        assert codec.options


def test_bad_requests(photo):
    with pytest.raises(BadInputError, match="jpeg, webp"):
        baselines.get("bpg")
    with pytest.raises(BadInputError, match="from 1 to 95"):
        baselines.get("jpeg").encode(photo, 101)
    with pytest.raises(BadInputError, match="uint8"):
        baselines.get("jpeg").encode(photo.astype(np.float32), 50)
