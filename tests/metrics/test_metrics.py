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
from diffusion_codec.metrics.remember import Remembering
from tests.needed import KODAK, needs_kodak, needs_squeeze

DISTS_CROP, SSIMULACRA2_CROP = (
    [0.1363, 0.3744],
    [66.462, -56.555],
)  # whole picture: .085 and .376; 63.04 and -60.72
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


@pytest.mark.parametrize("name", [name for name in metrics.names() if metrics.can_measure(name)])
def test_worse_jpeg_is_worse(name, photo):
    metric = metrics.get(name)
    values = [metric(photo, jpeg(photo, q)) for q in (80, 20, 5)]
    assert values == sorted(values, reverse=metric.higher_is_better)


@needs_kodak
@needs_squeeze
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


@needs_kodak
@pytest.mark.skipif(not metrics.can_measure("dists"), reason="no VGG-16 weights on this machine")
def test_dists_known_answers():
    pixels = np.asarray(Image.open(KODAK.path / "kodim23.png").convert("RGB"))[:256, :256]
    values = [metrics.get("dists")(pixels, jpeg(pixels, q)) for q in (50, 5)]
    assert values == pytest.approx(DISTS_CROP, abs=2e-3)
    assert metrics.get("dists")(pixels, pixels) == pytest.approx(0, abs=1e-5)


@needs_kodak
def test_ssimulacra2_known_answers():
    pixels = np.asarray(Image.open(KODAK.path / "kodim23.png").convert("RGB"))[:256, :256]
    values = [metrics.get("ssimulacra2")(pixels, jpeg(pixels, q)) for q in (50, 5)]
    assert values == pytest.approx(SSIMULACRA2_CROP, abs=0.05)
    assert metrics.get("ssimulacra2")(pixels, pixels) == pytest.approx(100)


@needs_kodak
@pytest.mark.skipif(not metrics.can_measure("butteraugli"), reason="libjxl's tools are not installed")
def test_butteraugli_known_answers():
    pixels = np.asarray(Image.open(KODAK.path / "kodim23.png").convert("RGB"))
    values = [metrics.get("butteraugli")(pixels, jpeg(pixels, q)) for q in (50, 20, 5)]
    assert values == pytest.approx([1.5146, 2.7233, 7.7925], rel=0.02)


def test_butteraugli_without_its_program_says_what_to_install(monkeypatch, photo):
    monkeypatch.setattr("diffusion_codec.metrics.psychovisual.shutil.which", lambda _: None)
    assert not metrics.can_measure("butteraugli")
    with pytest.raises(metrics.MetricError, match="libjxl-devtools"):
        metrics.get("butteraugli")(photo, photo)


def test_what_is_remembered_is_what_was_computed():
    class Counting(torch.nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return [2 * x]

    net = Counting()
    memory = Remembering(net)
    a, b, c = (torch.full((1, 3, 4, 4), v) for v in (1.0, 2.0, 3.0))
    for x in (a, b, a, c, a.clone()):
        assert torch.equal(memory(x)[0], 2 * x)
    assert net.calls == 3  # the original, seen in every pair, is computed once


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
