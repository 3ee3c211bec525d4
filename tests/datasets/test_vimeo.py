"""Vimeo-90k septuplets in the official layout, small synthetic ones and, where they are, real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec import fetch
from diffusion_codec.datasets import SeptupletCrops, Septuplets
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
    crops = SeptupletCrops(train, crop=256)
    assert crops[39].shape == (3, 256, 256)


def test_crops_depend_on_seed_epoch_and_index_only(root):
    crops = SeptupletCrops(Septuplets.open(root, "train"), 64, seed=3)
    again = SeptupletCrops(Septuplets.open(root, "train"), 64, seed=3)
    first = crops[0]
    crops[1]
    assert torch.equal(crops[0], first)
    assert torch.equal(again[0], first)
    again.set_epoch(1)
    assert not torch.equal(again[0], first)
    assert not torch.equal(SeptupletCrops(again.septuplets, 64, seed=4)[0], first)
    assert first.dtype == torch.float32
    assert -1 <= first.min() < first.max() <= 1


def test_crops_are_parts_of_frames_some_of_them_mirrored(root):
    septuplets = Septuplets.open(root, "test")
    crops = SeptupletCrops(septuplets, crop=256)  # full height: only the column and the mirror are free
    frames = [septuplets.frame(0, n) for n in range(1, 8)]
    mirrored = 0
    for epoch in range(16):
        crops.set_epoch(epoch)
        patch = ((crops[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        found = [
            flip
            for flip in (False, True)
            for frame in frames
            for left in range(193)
            if np.array_equal((patch[:, ::-1] if flip else patch)[0], frame[0, left : left + 256])
        ]
        assert found
        mirrored += found[0]
    assert 0 < mirrored < 16


def test_a_loader_with_workers_sees_the_same(root):
    crops = SeptupletCrops(Septuplets.open(root, "train"), 32, seed=1)
    alone = list(torch.utils.data.DataLoader(crops, batch_size=2))
    worker = list(torch.utils.data.DataLoader(crops, batch_size=2, num_workers=1))
    assert torch.equal(alone[0], worker[0])


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


def test_impossible_crops(root):
    with pytest.raises(BadInputError, match="1 to 256"):
        SeptupletCrops(Septuplets.open(root, "train"), crop=257)
    with pytest.raises(BadInputError, match="1 to 7"):
        Septuplets.open(root, "train").frame(0, 8)
