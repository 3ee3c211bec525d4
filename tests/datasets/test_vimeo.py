"""Vimeo-90k septuplets in the official layout, small synthetic ones and, where they are, real ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_codec import fetch
from diffusion_codec.datasets import Septuplets
from diffusion_codec.datasets.vimeo import BrokenSequenceError
from diffusion_codec.errors import BadInputError, MissingDataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("00001/0002", "00003/0004"):
        folder = tmp_path / "sequences" / name
        folder.mkdir(parents=True)
        for number in range(1, 8):
            coarse = Image.fromarray(rng.integers(0, 256, (16, 28, 3), np.uint8))
            coarse.resize((448, 256)).save(folder / f"im{number}.png")
    (tmp_path / "sep_trainlist.txt").write_text("00001/0002\n00003/0004\n\n")
    (tmp_path / "sep_testlist.txt").write_text("00003/0004\n")
    return tmp_path


def test_official_layout(root):
    train, test = Septuplets.open(root, "train"), Septuplets.open(root, "test")
    assert train.names == ("00001/0002", "00003/0004")
    assert len(test) == 1
    assert np.array_equal(test.frame(0, 7), np.array(Image.open(root / "sequences/00003/0004/im7.png")))


def test_real_septuplets():
    located = fetch.store().find("vimeo90k-septuplet-48")
    if located is None:
        pytest.skip("the Vimeo-90k subset is not on this machine")
    train = Septuplets.named("vimeo90k-septuplet-48", "train")
    test = Septuplets.named("vimeo90k-septuplet-48", "test")
    assert (len(train), len(test)) == (40, 8)
    assert not set(train.names) & set(test.names)
    assert train.frame(39, 7).shape == (256, 448, 3)


def test_missing_list(root):
    (root / "sep_testlist.txt").unlink()
    with pytest.raises(MissingDataError, match=r"sep_testlist\.txt is missing"):
        Septuplets.open(root, "test")


def test_half_downloaded(root):
    (root / "sequences/00003/0004/im7.png").unlink()
    with pytest.raises(MissingDataError, match=r"1 of the 2 sequences.*00003/0004"):
        Septuplets.open(root, "train")


def test_wrong_frame_size_and_torn_frame(root):
    septuplets = Septuplets.open(root, "train")
    Image.new("RGB", (224, 128)).save(root / "sequences/00001/0002/im1.png")
    with pytest.raises(BrokenSequenceError, match="224 x 128"):
        septuplets.frame(0, 1)
    path = root / "sequences/00001/0002/im2.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BrokenSequenceError, match=r"im2\.png"):
        septuplets.frame(0, 2)


@pytest.mark.parametrize("text", ["", "../../etc/passwd\n", "00001/0002/im1.png\n"])
def test_odd_list(text, root):
    (root / "sep_trainlist.txt").write_text(text)
    with pytest.raises(BadInputError, match="00001/0001"):
        Septuplets.open(root, "train")


def test_impossible_frame(root):
    with pytest.raises(BadInputError, match="1 to 7"):
        Septuplets.open(root, "train").frame(0, 8)
