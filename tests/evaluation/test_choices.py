import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from diffusion_codec import codec_weights, datasets
from diffusion_codec.evaluation import choices
from diffusion_codec.evaluation.choices import Choice, at_rates, compare
from diffusion_codec.parameter_estimation import Parameters
from tests.tiny import tiny_backbone, tiny_weights_file

PARAMETERS = Parameters(torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.full((1, 4), 0.25), torch.tensor([100.0]))


def test_each_change_changes_what_it_says_and_nothing_else() -> None:
    shared = choices.shared_alpha(PARAMETERS)
    assert torch.allclose(shared.alpha, torch.full((1, 4), 8.0**0.5))
    assert torch.equal(shared.t, PARAMETERS.t)
    assert not choices.no_beta(PARAMETERS).beta.any()
    matched, lower = (choices.scaled_timestep(part)(PARAMETERS) for part in (1.0, 0.5))
    assert lower.t < matched.t
    assert torch.equal(matched.alpha, PARAMETERS.alpha)
    coarse = choices.coarse_alpha(1)(PARAMETERS._replace(alpha=PARAMETERS.alpha * 1.2))
    assert torch.equal(coarse.alpha, PARAMETERS.alpha)
    assert torch.equal(choices.coarse_beta(2)(PARAMETERS).beta, torch.zeros(1, 4))
    assert choices.coarse_timestep(32)(PARAMETERS).t == 96


@torch.inference_mode()
def test_steps_of_another_spacing_end_where_they_should() -> None:
    backbone, t = tiny_backbone(), torch.tensor([100.0])
    y = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choices.Respaced(backbone, 1.0).denoise(y, t, 3), backbone.denoise(y, t, 3))
    squared = backbone.step(y, t, t / 4)
    squared = backbone.step(squared, t / 4, 0 * t, last=True)
    assert torch.equal(choices.Respaced(backbone, 2.0).denoise(y, t, 2), squared)


def test_measures_are_read_off_the_curve_and_not_beyond_it() -> None:
    curve = pd.DataFrame({"bpp": [0.4, 0.1], "psnr": [30.0, 20.0], "lpips-alex": [0.1, 0.3]})
    found = at_rates(curve, [0.2, 0.5])
    assert found["psnr at 0.2"] == pytest.approx(25.0)
    assert found["lpips-alex at 0.2"] == pytest.approx(0.2)
    assert math.isnan(found["psnr at 0.5"])


def test_choices_are_measured_on_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = (
        Choice("base", "independent"),
        Choice("gamma", "one alpha for all channels", change=choices.shared_alpha),
        Choice("variant", "paper-2099", weights="paper-2099"),
    )
    monkeypatch.setattr(choices, "CHOICES", named)
    monkeypatch.setattr(choices, "MEASURES", ("psnr",))
    weights = {"independent": codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors"))}
    pictures = datasets.subset(datasets.load("sample"), 1)
    curve = choices.measure(named[0], tiny_backbone(), weights["independent"], pictures, [0.0, 100.0])
    rate = round(float(curve.bpp.mean()), 3)
    table = compare(tiny_backbone(), weights, pictures, [0.0, 100.0], [rate])
    assert table["choice"].tolist() == ["independent", "one alpha for all channels"]
    assert table[f"psnr at {rate:g}"].notna().all()
