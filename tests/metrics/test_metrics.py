"""Metrics against numbers known from elsewhere, and against what a metric must do."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec import fetch, metrics
from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics import trunks

KODAK = fetch.store().find("kodak")
needs_kodak = pytest.mark.skipif(KODAK is None, reason="the Kodak photographs are not on this machine")
NETS = [n for n in trunks.ARCHITECTURE if trunks.available(n)]


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.fixture
def photo() -> np.ndarray:
    located = fetch.locate("sample")
    return np.asarray(Image.open(located.path / "chelsea.png").convert("RGB"))


def test_psnr_is_ten_log_of_peak_over_mean_square():
    flat = np.full((8, 8, 3), 100, np.uint8)
    off = flat.copy()
    off[..., 0] += 3  # one channel of three off by 3: mean square 3
    assert metrics.get("psnr")(flat, off) == pytest.approx(10 * math.log10(255**2 / 3))
    assert metrics.get("psnr")(flat, flat) == math.inf


def test_psnr_does_not_wrap_around():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert metrics.get("psnr")(black, white) == pytest.approx(0)


@pytest.mark.parametrize("name", ["psnr", "ms-ssim", *(f"lpips-{n}" for n in NETS)])
def test_worse_jpeg_is_worse(name, photo):
    metric = metrics.get(name)
    values = [metric(photo, jpeg(photo, q)) for q in (80, 20, 5)]
    assert values == sorted(values, reverse=metric.higher_is_better)


@needs_kodak
@pytest.mark.skipif("squeeze" not in NETS, reason="no SqueezeNet weights on this machine")
def test_lpips_squeeze_known_answers():
    pixels = np.asarray(Image.open(KODAK.path / "kodim23.png").convert("RGB"))
    values = [metrics.get("lpips-squeeze")(pixels, jpeg(pixels, q)) for q in (5, 10, 20, 50, 90)]
    assert values == pytest.approx([0.518, 0.435, 0.284, 0.128, 0.028], abs=2e-3)


@needs_kodak
@pytest.mark.skipif("alex" not in NETS, reason="no AlexNet weights on this machine")
def test_lpips_alex_golden():
    """The same to six digits with the weights of the mirror and of two packages."""
    pixels = np.asarray(Image.open(KODAK.path / "kodim23.png").convert("RGB"))
    values = [metrics.get("lpips-alex")(pixels, jpeg(pixels, q)) for q in (5, 50)]
    assert values == pytest.approx([0.5159, 0.0901], abs=2e-3)


@pytest.mark.skipif(not NETS, reason="no LPIPS backbone on this machine")
def test_perceptual_loss_reaches_the_image_and_not_the_network():
    loss = metrics.perceptual_loss(NETS[0])
    a = torch.rand(2, 3, 64, 64, requires_grad=True)
    distance = loss(a * 2 - 1, torch.zeros(2, 3, 64, 64))
    assert distance.shape == (2,)
    distance.sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert not loss.train().training  # dropout in the heads would make the distance random


@pytest.mark.skipif(not NETS, reason="no LPIPS backbone on this machine")
def test_no_stand_in_is_left_behind_for_other_packages():
    code = (
        "import sys; from diffusion_codec.metrics import perceptual, perceptual_loss; "
        "works = perceptual._torchvision_works(); perceptual_loss(sys.argv[1]); "
        "assert ('torchvision' in sys.modules) == works"
    )
    subprocess.run([sys.executable, "-c", code, NETS[0]], check=True)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((200, 200, 3), np.float32), np.zeros((200, 200, 3), np.float32), "uint8"),
        (np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.uint8), "H x W x 3"),
        (np.zeros((200, 200, 3), np.uint8), np.zeros((200, 201, 3), np.uint8), "one size"),
        (np.zeros((160, 500, 3), np.uint8), np.zeros((160, 500, 3), np.uint8), "161 pixels or more"),
    ],
)
def test_what_cannot_be_measured_is_said(a, b, words):
    with pytest.raises(metrics.MetricError, match=words):
        metrics.get("ms-ssim")(a, b)


def test_smallest_image_for_ms_ssim_is_accepted():
    noise = np.random.default_rng(0).integers(0, 256, (161, 161, 3), np.uint8)
    assert metrics.get("ms-ssim")(noise, noise) == pytest.approx(1)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(BadInputError, match="lpips-alex"):
        metrics.get("lpips")
    with pytest.raises(BadInputError, match="squeeze"):
        metrics.perceptual_loss("resnet")
