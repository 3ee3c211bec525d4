from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_codec import datasets
from diffusion_codec.training import denoiser_study
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from tests.tiny import tiny_backbone

CONFIG = DenoiserConfig(
    steps=2, batch_size=2, learning_rate=1e-3, crop=64, widths=(16, 16), layers_per_block=1, log_every=1
)
LATENTS = [torch.randn(4, 12, 12, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def test_every_candidate_is_trained_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser_study, "TIMESTEPS", (100,))
    monkeypatch.setattr(denoiser_study, "MEASURES", ("psnr",))
    backbone = tiny_backbone()
    candidates = denoiser_study.train_variants(CONFIG, LATENTS, backbone, tmp_path)
    assert candidates["v-prediction"].prediction == "v_prediction"
    odd = datasets.load("sample")[2].pixels()[:57, :83]  # decoders make whole blocks of 8
    Image.fromarray(odd).save(tmp_path / "odd.png")
    pictures = datasets.photographs(tmp_path)
    table = denoiser_study.measure(candidates, backbone, pictures)
    assert len(table) == 2 * (1 + len(denoiser_study.VARIANTS))
    by_denoiser = table[~table.dither].set_index("denoiser").psnr
    assert (by_denoiser.drop("none") != by_denoiser["none"]).all()


def test_dithered_error_is_uniform_and_rounding_is_on_the_lattice() -> None:
    y, step = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0])
    rounded, dithered = (denoiser_study.quantised(y, step, dither) for dither in (False, True))
    assert torch.equal(rounded / step, (rounded / step).round())
    error = dithered - y
    assert error.abs().max() <= step / 2 + 1e-5
    assert error.var() == pytest.approx(float(step**2 / 12), rel=0.03)
    assert (rounded - y).var() < 0.9 * step**2 / 12  # coarser than the latents: not the formula's


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "rounding"])
def test_noise_has_unit_variance_where_steps_are_fine(noise: str) -> None:
    recipe = DenoiserRecipe(CONFIG.model_copy(update={"noise": noise}), LATENTS)
    y_0 = torch.randn(4, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    drawn = recipe._noise(y_0, torch.full((4, 1, 1, 1), 0.1), torch.Generator().manual_seed(2))
    assert drawn.var() == pytest.approx(1.0, rel=0.03)
    assert abs(float(drawn.mean())) < 0.02
