import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from diffusion_codec import bitstream, codec_weights, datasets, quantization
from diffusion_codec.codec import Analysis, Codec, lambda_of
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import choices
from diffusion_codec.evaluation.choices import CHOICES, Choice, compare
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
    coarsest = choices.coarsest_timestep(PARAMETERS)
    assert coarsest.t == choices.scaled_timestep(1.0)(PARAMETERS._replace(alpha=torch.ones(1, 4))).t


@torch.inference_mode()
def test_steps_of_another_spacing_end_where_they_should() -> None:
    backbone, t = tiny_backbone(), torch.tensor([100.0])
    y = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choices.Respaced(backbone, 1.0).denoise(y, t, 3), backbone.denoise(y, t, 3))
    squared = backbone.step(y, t, t / 4)
    squared = backbone.step(squared, t / 4, 0 * t, last=True)
    assert torch.equal(choices.Respaced(backbone, 2.0).denoise(y, t, 2), squared)


@torch.inference_mode()
def test_noise_drawn_anew_leaves_as_much_as_the_schedule_says(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, t = tiny_backbone(), torch.tensor([400.0])
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    ends: list[float] = []

    def step(y: torch.Tensor, now: torch.Tensor, then: torch.Tensor, *, last: bool = False) -> torch.Tensor:
        """A denoiser that knows: all that there is is noise."""
        ends.append(float(y.std() / backbone.schedule.sigma_at(now)))
        wanted = torch.zeros(1) if last else backbone.schedule.sigma_at(then)
        return y * wanted / backbone.schedule.sigma_at(now)

    monkeypatch.setattr(backbone, "step", step)
    left = choices.Respaced(backbone, 1.0, eta=1.0).denoise(noise * backbone.schedule.sigma_at(t), t, 4)
    assert not left.any()
    assert ends == pytest.approx([1.0] * 4, abs=0.03)


@torch.inference_mode()
def test_what_the_decoder_and_a_blind_p_phi_do_is_what_their_names_say(tmp_path: Path) -> None:
    weights = codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors"))
    y, other = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    blind = choices.Blind(weights.parameter_estimation, [other, other])
    alone = weights.parameter_estimation(other, torch.tensor([16.0]))
    assert all(torch.allclose(a, b) for a, b in zip(blind(y, torch.tensor([16.0])), alone, strict=True))
    codec = choices.prepared(Choice("q", "near", towards_zero=0.25), tiny_backbone(), weights, [])
    pixels = datasets.load("sample", 1)[0].pixels()[:64, :64]
    file = bitstream.read(codec.compress(pixels, 80).data)
    z_hat = codec.symbols(file)
    near, _ = codec._dequantise(z_hat, file.header)
    middle, _ = Codec._dequantise(codec, z_hat, file.header)
    alpha = quantization.alpha_from_index(torch.tensor([file.header.alpha]))[..., None, None]
    assert torch.allclose((middle - near) * alpha, 0.25 * z_hat.sign()[None].float(), atol=1e-4)


def test_dithered_weights_can_be_made_to_round(tmp_path: Path) -> None:
    weights = codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors", dithered=True))
    pixels = datasets.load("sample", 1)[0].pixels()[:64, :64]
    dithered, rounded = (
        choices.prepared(Choice("q", "a", rounded=rounded), tiny_backbone(), weights, [])
        for rounded in (False, True)
    )
    files = [bitstream.read(codec.compress(pixels, 50).data) for codec in (dithered, rounded)]
    assert [file.header.dither_seed for file in files] == [0, None]
    y, lambda_ = rounded.analyse(pixels).y, torch.tensor([lambda_of(50)])
    alpha, beta, _ = rounded.p_phi(y, lambda_)
    index, offset = quantization.alpha_to_index(alpha), quantization.beta_to_index(beta)
    z = quantization.affine(y, quantization.alpha_from_index(index), quantization.beta_from_index(offset))
    assert torch.equal(rounded.symbols(files[1]), z[0].round().long())


@torch.inference_mode()
def test_an_untrained_p_phi_knows_lambda_alone(tmp_path: Path) -> None:
    weights = codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors"))
    codec = choices.prepared(Choice("q", "a", untrained=True), tiny_backbone(), weights, [])
    y, lambda_ = torch.randn(2, 4, 8, 8), torch.tensor([16.0, 64.0])
    alpha, beta, t = codec.p_phi(y, lambda_)
    assert torch.allclose(alpha[1], 2 * alpha[0])
    assert torch.equal(alpha[0], alpha[0, :1].expand(4))
    assert not beta.any()
    assert torch.allclose(t, quantization.matched_timestep(1 / alpha[:, 0]))


def test_files_of_an_untrained_p_phi_grow_with_lambda_too() -> None:
    weights = codec_weights.load(codec_weights.embedded_weights("independent"))
    codec = choices.prepared(Choice("q", "a", untrained=True), tiny_backbone(), weights, [])
    real = Codec.from_pretrained("mini").analyse(datasets.load("sample", 1)[0].pixels())
    sizes = [len(codec.compress(real, quality).data) for quality in range(0, 101, 10)]
    assert sizes == sorted(set(sizes))


def test_choices_are_measured_on_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = (
        Choice("base", "independent"),
        Choice("gamma", "one alpha for all channels", change=choices.shared_alpha),
        Choice("gamma", "blind", blind=True),
        Choice("gamma", "untrained", untrained=True),
        Choice("variant", "paper-2099", weights="paper-2099"),
    )
    monkeypatch.setattr(choices, "MEASURES", ("psnr",))
    monkeypatch.setattr(choices, "OTHERS", 1)
    weights = {"independent": codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors"))}
    pictures = datasets.subset(datasets.load("sample"), 1)
    pixels = pictures[0].pixels()
    smallest = Codec(tiny_backbone(), weights["independent"]).compress(pixels, 0)
    rate = round(8 * len(smallest.data) / (pixels.shape[0] * pixels.shape[1]) * 1.5, 3)
    table = compare(tiny_backbone(), weights, pictures, [rate, rate / 100], named)
    assert table["choice"].tolist() == ["independent", "one alpha for all channels", "blind", "untrained"]
    assert table[f"psnr at {rate:g}"].notna().all()
    assert (table[f"bpp at {rate:g}"] <= rate).all()
    assert table[f"psnr at {rate / 100:g}"].isna().all()


def test_a_question_can_be_asked_alone_and_the_table_keeps_the_others(tmp_path: Path) -> None:
    assert {choice.question for choice in choices.asked(CHOICES, ["t", "gamma"])} == {"t", "gamma"}
    assert choices.asked(CHOICES, []) == list(CHOICES)
    with pytest.raises(BadInputError, match="no question 'colour'; known: base, analysis, gamma"):
        choices.asked(CHOICES, ["colour"])
    stored = tmp_path / "table.csv"
    pd.DataFrame({"dataset": "a", "choice": ["first", "third"], "psnr": [1.0, 3.0]}).to_csv(stored)
    new = pd.DataFrame({"dataset": "a", "choice": ["third", "second"], "psnr": [30.0, 20.0]})
    table = choices.merged(stored, new, ["dataset", "choice"], ["first", "second", "third"])
    assert table["psnr"].tolist() == [1.0, 20.0, 30.0]
    assert choices.merged(
        tmp_path / "gone.csv", new, ["dataset", "choice"], ["second", "third"]
    ).psnr.tolist() == [
        20.0,
        30.0,
    ]


def test_a_sample_of_the_posterior_has_the_deviation_asked_for() -> None:
    analysis = Analysis(torch.zeros(1, 4, 64, 64), (512, 512, 3), {})
    moved = choices.sampled(analysis, 0.2)
    assert float(moved.y.std()) == pytest.approx(0.2, rel=0.02)
    assert torch.equal(moved.y, choices.sampled(analysis, 0.2).y)
    assert not analysis.y.any()


@pytest.mark.parametrize("wrong", [["--question", "colour"], ["--dataset", "absent"], ["--device", "abacus"]])
def test_a_module_says_what_is_wrong_in_one_line(wrong: list[str]) -> None:
    command = [sys.executable, "-m", "diffusion_codec.evaluation.choices", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
