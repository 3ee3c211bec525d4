"""Crops of septuplets, drawn by a generator alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec.datasets import Septuplets
from diffusion_codec.errors import BadInputError
from diffusion_codec.training.photos import to_unit
from diffusion_codec.training.septuplets import SeptupletCropsWithLatents
from tests.tiny import tiny_backbone


@pytest.fixture
def septuplets(tmp_path: Path) -> Septuplets:
    rng = np.random.default_rng(0)
    folder = tmp_path / "sequences" / "00001" / "0002"
    folder.mkdir(parents=True)
    for number in range(1, 8):
        frame = rng.integers(0, 256, (256, 448, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"im{number}.png", compress_level=1)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0002\n")
    return Septuplets.open(tmp_path, "train")


def test_crops_are_parts_of_frames_some_of_them_mirrored(septuplets: Septuplets) -> None:
    backbone = tiny_backbone()
    crops = SeptupletCropsWithLatents(septuplets, backbone, 256)  # full height: only the column is free
    x, y = crops.draw(16, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(y, backbone.encode(x).float())
    assert torch.equal(crops.draw(16, torch.Generator().manual_seed(0))[0], x)
    frames = [to_unit(torch.from_numpy(septuplets.frame(0, n))).permute(2, 0, 1) for n in range(1, 8)]
    places = [
        next(
            (number, left, mirrored)
            for number, frame in enumerate(frames)
            for left in range(193)
            for mirrored, seen in ((False, crop), (True, crop.flip(2)))
            if torch.equal(seen[:, 0], frame[:, 0, left : left + 256])
            and torch.equal(seen, frame[:, :, left : left + 256])
        )
        for crop in x
    ]
    numbers, lefts, mirrors = (set(drawn) for drawn in zip(*places, strict=True))
    assert min(len(numbers), len(lefts)) > 3
    assert mirrors == {False, True}


@pytest.mark.parametrize("crop", [7, 257])
def test_impossible_crops(crop: int, septuplets: Septuplets) -> None:
    with pytest.raises(BadInputError, match=f"8 to 256 a side, not {crop}"):
        SeptupletCropsWithLatents(septuplets, tiny_backbone(), crop)
