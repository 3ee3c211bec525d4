from pathlib import Path

import pytest
import torch

from diffusion_codec import codec_weights, datasets
from diffusion_codec.evaluation import choices, lambda_choices
from diffusion_codec.evaluation.lambda_choices import VARIANTS, compare, train_variant
from diffusion_codec.parameter_estimation import ParameterEstimation
from diffusion_codec.training.codec import CodecConfig
from diffusion_codec.training.photos import LatentCrops
from tests.tiny import tiny_backbone, tiny_weights_file

CONFIG = CodecConfig(steps=1, batch_size=2, learning_rate=1e-3, crop=64, entropy_width=8, log_every=1)
LAMBDAS = torch.tensor([1.0, 16.0, 1024.0])


def crops() -> LatentCrops:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
    return LatentCrops([pixels], [torch.randn(4, 8, 12, generator=generator)], CONFIG.crop)


def test_what_differs_is_what_the_names_say() -> None:
    plain, plane, one = (v.estimation(tied=False) for v in VARIANTS[:3])
    assert torch.equal(plain.told(LAMBDAS), LAMBDAS.log2() / 4)
    assert torch.equal(plane.told(LAMBDAS) * 2**18, LAMBDAS)
    assert torch.equal(plane.starting_log2_step(LAMBDAS), plain.starting_log2_step(LAMBDAS))
    assert one.starting_log2_step(LAMBDAS).unique().tolist() == [-1.0]


def test_lambda_is_drawn_as_the_names_say() -> None:
    log, evenly, four = (
        v.recipe(CONFIG, tiny_backbone(), crops()).draw_lambda(2000, torch.Generator().manual_seed(0))
        for v in (VARIANTS[0], VARIANTS[3], VARIANTS[4])
    )
    assert log.log2().mean() == pytest.approx(9.0, abs=0.3)
    assert evenly.mean() == pytest.approx(2**17, rel=0.05)
    assert four.unique().tolist() == [1.0, 5.0, 10.0, 20.0]


def test_only_one_variant_leaves_large_losses_their_weight() -> None:
    losses = torch.tensor([1.0, 100.0], requires_grad=True)
    for variant, gradient in ((VARIANTS[0], [1.0, 0.01]), (VARIANTS[5], [1.0, 1.0])):
        recipe = variant.recipe(CONFIG, tiny_backbone(), crops())
        (found,) = torch.autograd.grad(recipe.weighed(losses).sum(), losses)
        assert torch.allclose(found, torch.tensor(gradient)), variant.name


def test_a_trained_variant_keeps_its_idea_of_lambda(tmp_path: Path) -> None:
    start = codec_weights.load(tiny_weights_file(tmp_path / "start.safetensors"))
    trained = train_variant(VARIANTS[1], CONFIG, tiny_backbone(), crops(), start, tmp_path / "run")
    assert type(trained.parameter_estimation) is lambda_choices.PlaneOfLambda
    assert type(start.parameter_estimation) is ParameterEstimation
    assert trained.fingerprint != start.fingerprint


def test_variants_are_compared_by_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_choices, "VARIANTS", VARIANTS[::6])
    monkeypatch.setattr(lambda_choices, "SHIPPED", tmp_path / "start.safetensors")
    monkeypatch.setattr(lambda_choices, "embedded_weights", Path)
    monkeypatch.setattr(choices, "MEASURES", ("psnr",))
    start = codec_weights.load(tiny_weights_file(tmp_path / "start.safetensors"))
    pictures = datasets.subset(datasets.load("sample"), 1)
    table = compare(CONFIG, tiny_backbone(), crops(), start, pictures, tmp_path / "runs")
    assert table["variant"].tolist() == [
        VARIANTS[0].name,
        VARIANTS[6].name,
        "independent as it ships",
    ]
    assert (table["lowest_bpp"] < table["highest_bpp"]).all()
