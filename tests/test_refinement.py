"""Refinement by the encoder: a better picture from a file no larger, and a decoder that need not know."""

import dataclasses

import numpy as np
import pytest
import torch

from diffusion_codec import bitstream, codec_weights, refinement
from diffusion_codec.backbone import Backbone, RunOptions
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics import perceptual_loss
from diffusion_codec.pixels import to_signed
from diffusion_codec.refinement import refine
from tests.needed import needs_squeeze
from tests.tiny import tiny_codec

pytestmark = needs_squeeze


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, with edges and texture, so that there is something to code."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / (5 + k)) + np.cos(columns / (9 - k)) for k in range(3)], -1)
    box = ((rows // 24 + columns // 40) % 2)[..., None]
    return (128 + 40 * waves + 50 * box + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def mini() -> Codec:
    return Codec.from_pretrained()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return tiny_codec(tmp_path_factory.mktemp("codec"))


def seen(codec: Codec, data: bytes, pixels: np.ndarray) -> float:
    """What refinement descends, of the decoded file, seen upright and at its own size."""
    decoded = codec.decompress(data).pixels
    l1 = float((to_signed(decoded) - to_signed(pixels)).abs().mean())
    lpips = float(perceptual_loss("squeeze")(to_signed(decoded), to_signed(pixels)))
    return l1 + refinement.PERCEPTUAL_WEIGHT * lpips


@pytest.mark.parametrize("weights", ["paper-2025", "paper-2024"])  # dithered; plain, with a hyperprior
def test_better_and_no_larger(mini: Codec, weights: str) -> None:
    pixels = picture(150, 203)
    codec = Codec(mini.backbone, codec_weights.load(codec_weights.find(weights)))
    plain = codec.compress_to_size(pixels, 500)
    refined = refine(codec, pixels, plain, 12)
    assert len(refined.data) <= len(plain.data)
    assert seen(codec, refined.data, pixels) < 0.97 * seen(codec, plain.data, pixels)
    ours, theirs = bitstream.read(refined.data).header, bitstream.read(plain.data).header
    assert ours == theirs
    assert codec.decompress(refined.data).symbols_sha256 == refined.symbols_sha256 != plain.symbols_sha256
    assert refined.seconds["refine"] > 0
    assert refined.quality == plain.quality


def test_the_same_file_again_whatever_surrounds_it(mini: Codec) -> None:
    pixels = picture(96, 130)
    plain = mini.compress(pixels, 40)
    torch.manual_seed(1)
    first = refine(mini, pixels, plain, 3)
    torch.manual_seed(2)
    with torch.inference_mode():
        assert refine(mini, pixels, plain, 3).data == first.data


def test_fills_what_is_allowed(mini: Codec) -> None:
    pixels = picture(128, 160)
    plain = mini.compress_to_size(pixels, 400)
    more = refine(mini, pixels, plain, 12, max_bytes=480)
    assert len(plain.data) < len(more.data) <= 480


@pytest.mark.parametrize("steps", [1, 2])
def test_a_size_out_of_reach_leaves_the_file_as_it_was(mini: Codec, steps: int) -> None:
    pixels = picture(96, 96)
    plain = mini.compress(pixels, 60)
    told: list[int] = []
    assert refine(mini, pixels, plain, steps, max_bytes=len(plain.data) // 6, tell=told.append) is plain
    assert told == list(range(1, steps + 2))  # half as many again, and no more
    assert refine(mini, pixels, plain, steps, max_bytes=1, tell=told.append) is plain
    assert len(told) == steps + 1  # less than a header takes is not tried


def test_a_grey_picture_is_refined_as_it_will_be_shown(tiny: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.repeat(picture(64, 80)[..., :1], 3, -1)
    task = refinement._Picture(tiny, pixels, tiny.compress(pixels, 50, grayscale=True).data)
    shown: list[torch.Tensor] = []
    monkeypatch.setattr(task, "_difference", lambda x, x_hat: shown.append(x_hat.detach()) or x_hat.sum())
    task.distortion(task.z.round())
    assert shown
    assert all(torch.equal(x_hat, x_hat[:, :1].expand_as(x_hat)) for x_hat in shown)


@pytest.mark.parametrize("size", [(1, 1), (8, 24), (65, 17)])
def test_pictures_smaller_than_lpips_sees(tiny: Codec, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    plain = tiny.compress(pixels, 60)
    refined = refine(tiny, pixels, plain, 2)
    assert len(refined.data) <= len(plain.data)
    assert tiny.decompress(refined.data).pixels.shape == pixels.shape


def test_tiles_cover_the_picture_and_have_the_gradient_of_the_whole(
    tiny: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(256, 200)
    task = refinement._Picture(tiny, pixels, tiny.compress(pixels, 50).data)
    monkeypatch.setattr(refinement, "TILE", 12)
    covered = np.zeros((32, 25), int)
    borders = set()
    for _ in range(8):
        tiles = list(task._tiles(32, 25))
        borders.add(tiles[0][0].stop)
        for rows, columns in tiles:
            covered[rows, columns] += 1
    assert (covered == 8).all()
    assert len(borders) > 1
    # L1 through networks that look at single positions is the same in tiles
    monkeypatch.setattr(refinement, "PERCEPTUAL_WEIGHT", 0.0)
    monkeypatch.setattr(tiny.backbone, "denoise", lambda y, t, steps: y)
    monkeypatch.setattr(
        tiny.backbone, "decode", lambda y: torch.nn.functional.interpolate(y[:, :3].sin(), scale_factor=8.0)
    )

    def gradient() -> torch.Tensor:
        z = task.z.clone().requires_grad_()
        task.distortion(z).backward()
        assert z.grad is not None
        return z.grad

    in_tiles = gradient()
    monkeypatch.setattr(refinement, "TILE", 1000)
    torch.testing.assert_close(in_tiles, gradient())
    assert in_tiles.abs().max() > 0


def test_what_cannot_be_refined_is_refused(tiny: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = picture(64, 80)
    plain = tiny.compress(pixels, 50)
    with pytest.raises(BadInputError, match="the file is of 80 x 64 pixels, the picture of 64 x 64"):
        refine(tiny, pixels[:, :64], plain, 2)
    with pytest.raises(BadInputError, match="0 steps"):
        refine(tiny, pixels, plain, 0)
    with pytest.raises(BadInputError, match="expected uint8 pixels"):
        refine(tiny, pixels.astype(np.float32), plain, 2)
    monkeypatch.setattr(tiny.backbone, "run", RunOptions(offload=True))
    with pytest.raises(BadInputError, match="no offload"):
        refine(tiny, pixels, plain, 2)
    monkeypatch.undo()
    monkeypatch.setattr(Backbone, "device", torch.device("mps"))
    with pytest.raises(BadInputError, match="a CPU or a CUDA GPU"):
        refine(tiny, pixels, plain, 2)
    assert tiny.backbone.share(8, [(64, 64)]) == 1
    monkeypatch.undo()
    other = dataclasses.replace(tiny.weights, fingerprint=b"none")
    with pytest.raises(BadInputError, match="other codec weights"):
        refine(Codec(tiny.backbone, other), pixels, plain, 2)
