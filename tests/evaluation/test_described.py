from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffusion_codec import datasets
from diffusion_codec.evaluation import described
from diffusion_codec.training.denoiser import DenoiserConfig, build_denoiser
from tests.tiny import tiny_backbone

NUMBERS = 3
CONFIG = DenoiserConfig(
    steps=2, batch_size=4, learning_rate=1e-2, crop=64, widths=(32, 32), layers_per_block=1, warmup_steps=0
)


def small_denoiser() -> UNet2DConditionModel:
    """Two channels a group, or normalisation would take out what a description adds."""
    torch.manual_seed(0)
    return build_denoiser(CONFIG)


def latents() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        described.with_description(
            torch.randn(4, 12, 9, generator=generator), torch.full((NUMBERS,), float(i))
        )
        for i in (1, 2)
    ]


@torch.inference_mode()
def test_a_denoiser_taught_to_read_says_at_first_what_it_said_before() -> None:
    plain, reader = small_denoiser(), described.taught_to_read(small_denoiser(), NUMBERS)
    y, t, prompt = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 300.0]), torch.randn(2, 1, NUMBERS)
    (before,) = plain(y, t, torch.zeros(2, 1, 1), return_dict=False)
    (after,) = reader(y, t, prompt, return_dict=False)
    assert torch.allclose(before, after, atol=1e-6)


@torch.inference_mode()
def test_guidance_goes_on_in_the_direction_of_the_description() -> None:
    reader = described.taught_to_read(small_denoiser(), NUMBERS)
    torch.nn.init.normal_(reader.class_embedding.linear_2.weight)
    y, t, prompt = torch.randn(1, 4, 8, 8), torch.tensor([100.0]), torch.ones(1, 1, NUMBERS)

    def answer(prompt: Tensor, guidance: float) -> Tensor:
        reader.guidance = guidance
        (predicted,) = reader(y, t, prompt, return_dict=False)
        return predicted

    untold, told = answer(torch.zeros_like(prompt), 1.0), answer(prompt, 1.0)
    assert (told - untold).abs().max() > 1e-3
    assert torch.allclose(answer(prompt, 2.0), untold + 2 * (told - untold), atol=1e-5)


@pytest.mark.parametrize(("left_out", "told"), [(0.0, {1.0, 2.0}), (1.0, {0.0})])
def test_a_crop_brings_its_photographs_description_along(left_out: float, told: set[float]) -> None:
    recipe = described.DescribedRecipe(CONFIG, latents(), small_denoiser(), left_out)
    generator = torch.Generator().manual_seed(0)
    y, prompt = recipe.prompted(recipe.crops.draw(16, generator)[1], generator)
    assert y.shape == (16, 4, 8, 8)
    assert prompt.shape == (16, 1, NUMBERS)
    assert set(prompt.unique().tolist()) == told


def test_descriptions_are_uncorrelated_numbers_of_unit_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 8, generator=generator) * torch.arange(1.0, 9.0) + 3
    told = described.Vocabulary(features, NUMBERS).describe(features)
    assert torch.allclose(told.T @ told / len(told), torch.eye(NUMBERS), atol=1e-4)
    assert torch.allclose(told.mean(0), torch.zeros(NUMBERS), atol=1e-4)


def test_every_way_of_asking_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(described, "TIMESTEPS", (100,))
    monkeypatch.setattr(described, "MEASURES", ("psnr",))
    backbone = tiny_backbone()
    backbone.unet = small_denoiser()
    reader, other = (
        described.trained_on(CONFIG, latents(), backbone, left_out, tmp_path / name)
        for name, left_out in (("with", 0.2), ("without", 1.0))
    )
    pictures = datasets.subset(datasets.load("sample"), 2)
    told = {item.id: torch.full((1, 1, NUMBERS), float(i)) for i, item in enumerate(pictures, 1)}
    table = described.measure(backbone, reader, other, pictures, told)
    assert len(table) == 2 * (5 + len(described.GUIDANCE))
    one = table[table.image == pictures[0].id].set_index(["denoiser", "told", "guidance"]).latent_mse
    assert one.index.is_unique
    assert one.nunique() == len(one)
