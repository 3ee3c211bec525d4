from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_codec.entropy.model import HYPER_RADIUS, SideInformation
from diffusion_codec.evaluation.other_priors import PRIORS, HyperLattice, PriorRecipe, measure, trained
from diffusion_codec.evaluation.transformer_prior import TransformerPrior
from diffusion_codec.training.codec import CodecConfig
from diffusion_codec.training.photos import LatentCrops
from tests.tiny import tiny_backbone

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


FLAT = [torch.randn(4, 1, 1, generator=torch.Generator().manual_seed(i)).expand(4, 8, 8) for i in range(4)]


@pytest.mark.parametrize("name", [name for name in PRIORS if "wide" not in name])
def test_each_prior_learns_and_is_measured(name: str, tmp_path: Path) -> None:
    crops = LatentCrops(None, FLAT, CONFIG.crop)
    untrained = PriorRecipe(CONFIG, tiny_backbone(), crops, PRIORS[name]).model
    learned = trained(CONFIG, tiny_backbone(), crops, PRIORS[name], tmp_path / "run")
    before, after = (measure(m, {"flat": FLAT[0][None]}, [64.0, 4096.0]) for m in (untrained, learned))
    assert after["lambda"].tolist() == [64.0, 4096.0]
    assert (after["bpp"] < before["bpp"]).all()
    assert (after["hyper_bpp"] > 0).all() == name.startswith("hyperprior")


@torch.inference_mode()
def test_a_hyperprior_that_is_told_alpha_can_fall_silent() -> None:
    torch.manual_seed(0)
    prior = HyperLattice(told=True)
    assert prior.log_gain is not None
    assert prior.log_odds is not None
    z = torch.randn(1, 4, 8, 8) * 8
    before = float(prior.bits(z, SIDE)[1])
    prior.log_gain.bias.fill_(-20.0)
    prior.log_odds.bias.reshape(4, -1)[:, HYPER_RADIUS] = 20.0
    assert float(prior.bits(z, SIDE)[1]) < 1e-3 < before


@torch.inference_mode()
def test_a_hyperprior_is_told_nothing_at_first() -> None:
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    told, not_told = HyperLattice(told=True), HyperLattice(told=False)
    told.load_state_dict(not_told.state_dict(), strict=False)
    pairs = zip(told.bits(z, SIDE), not_told.bits(z, SIDE), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)


def test_the_wide_lattice_has_more_parameters_than_the_transformer() -> None:
    lattice, wide, transformer = (
        sum(p.numel() for p in PRIORS[name]().parameters())
        for name in ("lattice", "wide lattice", "transformer")
    )
    assert lattice < transformer < wide
