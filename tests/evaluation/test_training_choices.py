from pathlib import Path

import pandas as pd
import pytest
import torch

from diffusion_codec import codec_weights, datasets
from diffusion_codec.evaluation import choices, training_choices
from diffusion_codec.evaluation.training_choices import VARIANTS, compare, train_variant
from diffusion_codec.parameter_estimation import ParameterEstimation
from diffusion_codec.training.codec import CodecConfig, CodecRecipe
from diffusion_codec.training.photos import LatentCrops
from tests.needed import needs_squeeze
from tests.tiny import tiny_backbone, tiny_weights_file

CONFIG = CodecConfig(steps=1, batch_size=2, learning_rate=1e-3, crop=64, entropy_width=8, log_every=1)
LAMBDAS = torch.tensor([1.0, 16.0, 1024.0])


NAMED = {variant.name: variant for variant in VARIANTS}
BASE = NAMED["as here"]


def crops() -> LatentCrops:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
    return LatentCrops([pixels], [torch.randn(4, 8, 12, generator=generator)], CONFIG.crop)


def recipe(name: str) -> CodecRecipe:
    return NAMED[name].recipe(CONFIG, tiny_backbone(), crops())


def test_what_differs_is_what_the_names_say() -> None:
    names = ("as here", "lambda itself as the plane", "one starting step size for all lambda")
    plain, plane, one = (NAMED[name].estimation(tied=False) for name in names)
    assert torch.equal(plain.told(LAMBDAS), LAMBDAS.log2() / 4)
    assert torch.equal(plane.told(LAMBDAS) * 2**18, LAMBDAS)
    assert torch.equal(plane.starting_log2_step(LAMBDAS), plain.starting_log2_step(LAMBDAS))
    assert one.starting_log2_step(LAMBDAS).unique().tolist() == [-1.0]


def test_lambda_is_drawn_as_the_names_say() -> None:
    log, evenly, four = (
        recipe(name).draw_lambda(2000, torch.Generator().manual_seed(0))
        for name in ("as here", "drawn evenly in lambda", "drawn from 1, 5, 10, 20")
    )
    assert log.log2().mean() == pytest.approx(9.0, abs=0.3)
    assert evenly.mean() == pytest.approx(2**17, rel=0.05)
    assert four.unique().tolist() == [1.0, 5.0, 10.0, 20.0]


def test_only_one_variant_leaves_large_losses_their_weight() -> None:
    losses = torch.tensor([1.0, 100.0], requires_grad=True)
    for name, gradient in (("as here", [1.0, 0.01]), ("gradient of L instead of log L", [1.0, 1.0])):
        (found,) = torch.autograd.grad(recipe(name).weighed(losses).sum(), losses)
        assert torch.allclose(found, torch.tensor(gradient)), name


@needs_squeeze
def test_distortions_are_those_of_the_names() -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x_hat = x + 0.2  # a tenth of the range
    y = torch.randn(2, 4, 8, 8)
    y_0 = y + 0.5
    squared, absolute, both, latent = (
        recipe(name).distortion(x, x_hat, y, y_0)
        for name in (
            "as here",
            "mean absolute error",
            "squared error and LPIPS",
            "squared error of the latent",
        )
    )
    assert squared.tolist() == pytest.approx([0.01, 0.01])
    assert absolute.tolist() == pytest.approx([0.008, 0.008])
    assert latent.tolist() == pytest.approx([0.01, 0.01])
    lpips = training_choices.perceptual_loss("squeeze")(x_hat, x)
    assert torch.allclose(both, 0.01 + 0.02 * lpips, atol=1e-6)


def test_the_decoder_is_shown_rounded_latents_but_for_one_variant() -> None:
    z_hat, noisy = torch.zeros(2), torch.ones(2)
    assert recipe("as here").shown(z_hat, noisy) is z_hat
    assert recipe("noise instead of rounding").shown(z_hat, noisy) is noisy


def test_denoising_in_training_is_that_of_the_names() -> None:
    y = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([80.0])
    one, three, past = (
        recipe(name) for name in ("as here", "three DDIM steps", "no gradient through the U-Net")
    )
    assert torch.equal(one.denoised(y, t), one.backbone.denoise(y, t, 1))
    assert torch.equal(three.denoised(y, t), one.backbone.denoise(y, t, 3))
    assert torch.allclose(past.denoised(y, t), one.denoised(y, t), atol=1e-6)
    y.requires_grad_(True)
    t.requires_grad_(True)
    to_y, to_t = torch.autograd.grad(past.denoised(y, t).sum(), (y, t), allow_unused=True)
    assert torch.equal(to_y, torch.ones_like(y))
    assert to_t is None


def test_seed_and_pace_are_changed_in_the_configuration() -> None:
    assert BASE.config(CONFIG, seed=2) == CONFIG.model_copy(update={"seed": 2})
    assert NAMED["three times the learning rate"].config(CONFIG, seed=0).learning_rate == pytest.approx(3e-3)
    assert len({variant.folder(seed) for variant in VARIANTS for seed in (0, 1)}) == 2 * len(VARIANTS)


def test_a_trained_variant_keeps_its_idea_of_lambda(tmp_path: Path) -> None:
    start = codec_weights.load(tiny_weights_file(tmp_path / "start.safetensors"))
    plane = NAMED["lambda itself as the plane"]
    trained = train_variant(plane, CONFIG, tiny_backbone(), crops(), start, tmp_path / "run")
    assert type(trained.parameter_estimation) is training_choices.PlaneOfLambda
    assert type(start.parameter_estimation) is ParameterEstimation
    assert trained.fingerprint != start.fingerprint


def test_variants_are_compared_by_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_choices, "SHIPPED", tmp_path / "start.safetensors")
    monkeypatch.setattr(training_choices, "embedded_weights", Path)
    monkeypatch.setattr(choices, "MEASURES", ("psnr",))
    start = codec_weights.load(tiny_weights_file(tmp_path / "start.safetensors"))
    pictures = datasets.subset(datasets.load("sample"), 1)
    variants = [BASE, NAMED["no first stage"]]
    rows = compare(CONFIG, tiny_backbone(), crops(), start, pictures, tmp_path / "runs", variants, seeds=2)
    table = pd.DataFrame(list(rows))
    names = [BASE.name, "no first stage"]
    assert table["variant"].tolist()[:-1] == names * 2
    assert table["seed"].tolist() == [0, 0, 1, 1, 0]
    assert (table["lowest_bpp"] < table["highest_bpp"]).all()
    assert table["highest_bpp"].nunique() > 1
