"""Distillation block by block, and the two halves of the recipe."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from safetensors.torch import load_file
from torch import Tensor

from diffusion_codec.backbone import Backbone
from diffusion_codec.errors import BadInputError
from diffusion_codec.training.autoencoder import (
    DECODER_LEAD,
    ENCODER_LEAD,
    AutoencoderConfig,
    AutoencoderRecipe,
    adversarial_losses,
    block_errors,
    build_autoencoder,
    build_discriminator,
    cuts,
    seen_otherwise,
    stage_ends,
)
from diffusion_codec.training.export import load_autoencoder
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import PhotoCrops
from tests.tiny import tiny_backbone

THEIRS = (1, 2, 1, 2), (2, 1, 2, 1)


def teacher() -> AutoencoderTiny:
    torch.manual_seed(7)
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=THEIRS[0],
        num_decoder_blocks=THEIRS[1],
    ).requires_grad_(False)


def photos() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8, generator=generator) for _ in range(3)]


def test_blocks_are_distilled_on_latents_that_files_have() -> None:
    """The rectifiers of what is distilled leak; those of the encoder whose latents the decoder learns do not."""
    made = recipe(halves=("decoder",), own_latents=True)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        clean = made.model.encoder(x)
        made.leaking = True
        leaky = made.model.encoder(x)
    assert not torch.equal(leaky, clean)
    assert torch.equal(made._encoded(made.model, x), clean)
    seen: list[Tensor] = []
    made.model.decoder.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    made._distil(x)
    assert torch.equal(seen[0], torch.tanh(clean / 3) * 3)
    assert made.leaking


def recipe(denoiser: Backbone | None = None, **changes: Any) -> AutoencoderRecipe:
    settings = {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "crop": 32,
        "width": 8,
        "encoder_blocks": (0, 2, 1, 1),
        "decoder_blocks": (2, 1, 1, 0),
        "distil_until_step": 3,
        "perceptual_weight": 0,
        "checkpoint_every": 2,
        "log_every": 1,
    }
    config = AutoencoderConfig.model_validate(settings | changes)
    return AutoencoderRecipe(config, photos(), teacher(), denoiser=denoiser)


@pytest.mark.parametrize("blocks", [(1, 3, 3, 3), (0, 2, 3, 4), (3, 0, 1, 2)])
def test_ends_are_where_the_layers_have_their_blocks(blocks: tuple[int, int, int, int]) -> None:
    config = AutoencoderConfig(
        steps=1, batch_size=1, learning_rate=1, width=8, encoder_blocks=blocks, decoder_blocks=blocks
    )
    model = build_autoencoder(config)
    for layers, ends in (
        (model.encoder.layers, stage_ends(blocks, ENCODER_LEAD)),
        (model.decoder.layers, stage_ends(blocks, DECODER_LEAD)),
    ):
        found = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, AutoencoderTinyBlock)]
        assert [end for stage in ends[0] for end in stage] == found
        assert ends[1] == len(layers)


def test_blocks_of_unequal_stages_are_joined_at_the_stage_s_end() -> None:
    # stages of ours: none, 2 of 2, 1 of 1, 1 of 2
    assert cuts((0, 2, 1, 1), THEIRS[0], ENCODER_LEAD) == [(3, 4), (4, 5), (6, 7), (8, 10), (9, 11)]


def test_the_teacher_itself_has_no_error() -> None:
    model, x = teacher(), torch.randn(1, 3, 32, 32)
    encoder = block_errors(
        model.encoder.layers, model.encoder.layers, cuts(*[THEIRS[0]] * 2, ENCODER_LEAD), x
    )
    assert len(encoder) == sum(THEIRS[0]) + 1
    assert encoder.abs().max() == 0
    other = build_autoencoder(recipe().config)
    errors = block_errors(
        other.encoder.layers, model.encoder.layers, cuts((0, 2, 1, 1), THEIRS[0], ENCODER_LEAD), x
    )
    assert (errors > 0.01).all()


def test_distillation_lowers_every_block_s_error(tmp_path: Path) -> None:
    made = recipe(steps=150, distil_until_step=150, warmup_steps=5, ema_decay=0.5, learning_rate=3e-3)
    x = made.crops.draw(2, torch.Generator().manual_seed(9))

    def errors() -> Tensor:
        with torch.no_grad():
            return block_errors(
                made.model.encoder.layers, made.teacher.encoder.layers, made.encoder_cuts, x.add(1).div(2)
            )

    before = errors()
    train(made, tmp_path)
    assert (errors() < before).all()


def test_a_channel_that_is_zero_everywhere_learns_again(tmp_path: Path) -> None:
    made = recipe(halves=("encoder",), steps=60, distil_until_step=60, warmup_steps=5, learning_rate=1e-2)
    last = made.model.encoder.layers[2].conv[4]
    with torch.no_grad():
        last.bias.fill_(-2.0)
    train(made, tmp_path)
    x = made.crops.draw(2, torch.Generator().manual_seed(9)).add(1).div(2)
    made.leaking = False
    with torch.no_grad():
        alive = made.model.encoder.layers[:3](x).amax((0, 2, 3)) > 0
    assert alive.any()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_only_the_named_half_is_trained(half: str, tmp_path: Path) -> None:
    made = recipe(halves=(half,))
    before = {k: v.clone() for k, v in made.model.state_dict().items()}
    train(made, tmp_path)
    changed = {k.split(".")[0] for k, v in made.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {half}
    with pytest.raises(BadInputError, match="nothing trained"):
        load_autoencoder([tmp_path])


def test_two_runs_of_a_half_each_make_an_autoencoder(tmp_path: Path) -> None:
    states = [train(recipe(halves=(half,)), tmp_path / half) for half in ("encoder", "decoder")]
    model = load_autoencoder([tmp_path / "encoder", tmp_path / "decoder"])
    for state in states:
        for name, value in state.ema.items():
            assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("optimizer", ["adamw", "soap"])
def test_resumed_equals_uninterrupted(optimizer: str, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "steps": 14}  # past a change of SOAP's basis, every tenth step
    whole = train(recipe(**settings), tmp_path / "whole")
    train(recipe(**settings), tmp_path / "parts", stop_after=3)
    parts = train(recipe(**settings), tmp_path / "parts")
    for name, value in whole.parameters.items():
        assert torch.equal(value, parts.parameters[name]), name


def test_features_of_another_width_cannot_be_distilled() -> None:
    with pytest.raises(BadInputError, match="width 16"):
        recipe(width=16)


def test_denoised_latents_need_a_denoiser() -> None:
    with pytest.raises(BadInputError, match="name the backbone"):
        recipe(denoised_below=300)


def test_the_decoder_sees_half_of_the_latents_noised_and_denoised() -> None:
    made = recipe(denoiser=tiny_backbone(), denoised_below=300)
    y = torch.randn(64, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    seen = made._noised_and_denoised(y, torch.Generator().manual_seed(2))
    changed = (seen != y).flatten(1).any(1)
    assert 16 < changed.sum() < 48
    assert torch.equal(seen, made._noised_and_denoised(y, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("denoised_below", [0, 300])
def test_end_to_end_the_decoder_s_loss_reaches_the_encoder(denoised_below: int) -> None:
    for end_to_end in (False, True):
        made = recipe(tiny_backbone(), end_to_end=end_to_end, latent_weight=0, denoised_below=denoised_below)
        made.losses(4, torch.Generator().manual_seed(0))["loss"].backward()
        gradient = made.model.encoder.layers[0].weight.grad
        assert bool(gradient.any()) == end_to_end


def test_one_half_has_no_other_end() -> None:
    with pytest.raises(BadInputError, match="both halves"):
        recipe(halves=("decoder",), end_to_end=True)


def test_crops_are_parts_of_photographs_mirrored_or_not() -> None:
    photo = torch.arange(40).repeat(40, 1).repeat(3, 1, 1).to(torch.uint8)
    crops = PhotoCrops([photo], 32)
    drawn = crops.draw(12, torch.Generator().manual_seed(0))
    assert drawn.shape == (12, 3, 32, 32)
    assert torch.equal(drawn, crops.draw(12, torch.Generator().manual_seed(0)))
    slopes = (drawn[:, 0, 0, 1] - drawn[:, 0, 0, 0]).sign()
    assert set(slopes.tolist()) == {-1.0, 1.0}


def test_a_pair_is_shifted_turned_and_resized_alike() -> None:
    a = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    b = a + 0.25
    for drawn in ([0.0, 0.0, 0.9, 0.5], [0.5, 0.9, 0.1, 0.0], [0.1, 0.3, 0.1, 0.99]):
        one, other = seen_otherwise(a, b, drawn)
        torch.testing.assert_close(other - one, torch.full_like(one, 0.25))
    same, _ = seen_otherwise(a, b, [0.0, 0.0, 0.9, 0.5])
    torch.testing.assert_close(same, a)
    turned, _ = seen_otherwise(a, b, [0.5, 0.9, 0.1, 0.5])
    torch.testing.assert_close(turned, a[..., 4:, 7:].mT)
    smaller, _ = seen_otherwise(a, b, [0.5, 0.9, 0.1, 0.0])
    assert smaller.shape == (2, 3, 29, 25)


def test_the_perceptual_net_sees_pairs_otherwise_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[torch.Size] = []

    class Distance(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            assert a.shape == b.shape
            sizes.append(a.shape)
            return (a - b).square().mean((1, 2, 3))

    monkeypatch.setattr("diffusion_codec.training.autoencoder.perceptual_loss", lambda net: Distance())
    for ensemble in (False, True):
        made = recipe(perceptual_weight=1.0, perceptual_ensemble=ensemble)
        for step in range(4, 8):
            made.losses(step, torch.Generator().manual_seed(step))["loss"].backward()
    assert set(sizes[:4]) == {torch.Size([2, 3, 32, 32])}
    assert len(set(sizes[4:])) > 1


def test_of_several_perceptual_nets_the_mean_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = {"squeeze": 1.0, "alex": 3.0}

    class Distance(torch.nn.Module):
        def __init__(self, net: str):
            super().__init__()
            self.net = net

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return scale[self.net] * (a - b).square().mean((1, 2, 3))

    monkeypatch.setattr("diffusion_codec.training.autoencoder.perceptual_loss", Distance)

    def perceived(nets: object) -> float:
        made = recipe(perceptual_weight=1.0, perceptual_net=nets)
        return made.losses(6, torch.Generator().manual_seed(6))["perceptual"].item()

    assert perceived(["squeeze", "alex"]) == pytest.approx(2 * perceived("squeeze"))
    with pytest.raises(ValueError, match="perceptual_net"):
        perceived([])


@pytest.mark.parametrize(("widths", "side"), [((32, 64), 18), ((64, 128, 256), 38)])
def test_a_discriminator_judges_patches_of_the_size_it_is_said_to(widths: tuple[int, ...], side: int) -> None:
    torch.manual_seed(1)
    x = torch.zeros(1, 3, 96, 96, requires_grad=True)
    scores = build_discriminator(widths)(x)
    assert scores.shape[-1] == 96 // 2 ** len(widths)
    (gradient,) = torch.autograd.grad(scores[0, 0, 4, 4], x)
    assert gradient.abs().sum((0, 1, 2)).count_nonzero() == side


def test_each_adversarial_loss_trains_its_own_network() -> None:
    torch.manual_seed(1)
    discriminator = build_discriminator()
    decoded, x = torch.randn(2, 3, 32, 32, requires_grad=True), torch.randn(2, 3, 32, 32)
    losses = adversarial_losses(discriminator, decoded, x)
    judging = torch.autograd.grad(
        losses["discriminator"], [decoded, *discriminator.parameters()], allow_unused=True
    )
    assert judging[0] is None
    # the last bias moves the scores of true and decoded patches alike: nothing to learn
    assert all(g is not None and g.any() for g in judging[1:-1])
    pulling = torch.autograd.grad(
        losses["adversarial"], [decoded, *discriminator.parameters()], allow_unused=True
    )
    assert all(g is None for g in pulling[1:])
    l1 = torch.autograd.grad((decoded - x).abs().mean(), decoded)[0]
    assert pulling[0].norm() == pytest.approx(float(l1.norm()), rel=1e-4)
    with torch.no_grad():
        closer = decoded - 0.1 * pulling[0] / pulling[0].norm()
        assert discriminator(closer).mean() > discriminator(decoded).mean()


def test_the_discriminator_stays_out_of_what_ships(tmp_path: Path) -> None:
    made = recipe(adversarial_weight=0.5)
    train(made, tmp_path)
    stored = load_file(tmp_path / "state.safetensors")
    assert any("discriminator" in name for name in stored)
    assert not any("discriminator" in name for name in load_autoencoder([tmp_path]).state_dict())
