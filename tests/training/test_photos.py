"""Photographs to train on: read as the codec reads them, and none that is measured on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_codec import datasets
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.training.photos import load_photos


def picture(height: int = 80, width: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_photographs_are_cut_to_whole_latents_and_small_ones_left_out(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "b.png")
    Image.fromarray(picture(60)).save(tmp_path / "a.png")
    (photo,) = load_photos(tmp_path)
    assert np.array_equal(photo.permute(1, 2, 0).numpy(), picture()[:, :96])
    with pytest.raises(MissingDataError, match="no photograph of 200 px"):
        load_photos(tmp_path, minimum_side=200)


def test_photographs_are_turned_and_reduced_to_8_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(picture(80, 96)).save(tmp_path / "a.png", exif=exif)
    grey = np.full((64, 64), 128 * 257, np.uint16)
    Image.fromarray(grey).save(tmp_path / "b.png")
    turned, reduced = load_photos(tmp_path)
    assert np.array_equal(turned.permute(1, 2, 0).numpy(), np.rot90(picture(80, 96), -1))
    assert reduced.unique().tolist() == [128]


def test_a_photograph_that_is_measured_on_is_not_trained_on(tmp_path: Path) -> None:
    coffee = datasets.load("sample")[2].pixels()
    Image.fromarray(picture()).save(tmp_path / "a.png")
    Image.fromarray(coffee).resize((451, 301)).save(tmp_path / "b.jpg")
    with pytest.raises(datasets.OverlapError, match="b = coffee"):
        load_photos(tmp_path)


def test_a_damaged_photograph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(BadInputError, match=r"a\.png"):
        load_photos(tmp_path)
