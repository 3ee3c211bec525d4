from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_codec import codec_weights
from diffusion_codec.entropy.model import SideInformation
from diffusion_codec.evaluation.transformer_prior import TransformerPrior, compare, trained
from diffusion_codec.training.codec import CodecConfig
from diffusion_codec.training.photos import LatentCrops
from tests.tiny import tiny_backbone, tiny_weights_file

SIDE = SideInformation(torch.tensor([[20.0, -20.0, 3.0, 0.0]]), torch.tensor([50.0]))
CONFIG = CodecConfig(
    steps=40,
    rate_only_steps=40,
    rate_only_batch_size=4,
    batch_size=4,
    crop=64,
    learning_rate=3e-3,
    warmup_steps=5,
    ema_decay=0.8,
    entropy_width=8,
    log_every=1,
)


def awake() -> TransformerPrior:
    """Untrained, but for a last layer that is not zero."""
    torch.manual_seed(0)
    prior = TransformerPrior(width=16, heads=2, layers=2)
    for out in prior.outs.parameters():
        nn.init.normal_(out)
    return prior


@torch.inference_mode()
@pytest.mark.parametrize("channel", range(4))
def test_a_latent_is_told_from_what_is_decoded_before_it(channel: int) -> None:
    prior = awake()
    unit = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    moved = unit.clone()
    moved[0, channel, 2, 3] += 4
    mean, log_scale = (a - b for a, b in zip(prior(moved, SIDE), prior(unit, SIDE), strict=True))
    changed = (mean.abs() + log_scale.abs())[0] > 1e-6
    place = 2 * 6 + 3
    assert not changed.flatten(1)[:, :place].any()
    assert changed.flatten(1)[:, place].tolist() == [later > channel for later in range(4)]
    assert changed.flatten(1)[:, place + 1 :].float().mean() > 0.9


@torch.inference_mode()
def test_an_untrained_prior_is_a_gaussian_of_the_latents_own_size() -> None:
    z = torch.zeros(1, 4, 4, 4)
    bits, hyper = TransformerPrior().bits(z, SIDE)
    scale = torch.exp2(SIDE.shift)
    mass = torch.special.ndtr(0.5 / scale) - torch.special.ndtr(-0.5 / scale)
    assert float(bits) == pytest.approx(float(-16 * torch.log2(mass).sum()), rel=1e-4)
    assert float(hyper) == 0


def test_it_learns_and_is_measured_beside_a_lattice(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = [torch.randn(4, 1, 1, generator=generator).expand(4, 8, 8).clone() for _ in range(4)]
    prior = trained(CONFIG, tiny_backbone(), LatentCrops(None, latents, CONFIG.crop), tmp_path / "run")
    untrained = TransformerPrior()
    lattice = codec_weights.load(
        tiny_weights_file(tmp_path / "lattice.safetensors", context="lattice", energy=3)
    )
    pictures = {"flat": latents[0][None]}
    before, after = (compare(p, lattice, pictures, [64.0, 4096.0]) for p in (untrained, prior))
    assert after["lambda"].tolist() == [64.0, 4096.0]
    assert (after["lattice_bpp"] == before["lattice_bpp"]).all()
    assert (after["transformer_bpp"] < before["transformer_bpp"]).all()
