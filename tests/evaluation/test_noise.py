"""The statistics of chapter 1 against what theory says of errors whose law is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import noise
from diffusion_codec.schedule import STABLE_DIFFUSION
from tests.tiny import tiny_backbone


def latents(count: int = 2, side: int = 96) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, side, side, generator=generator) for _ in range(count)]


def row(table: pd.DataFrame, kind: str) -> pd.Series:
    return table[table["kind"] == kind].iloc[0]


@pytest.mark.parametrize(("kind", "kurtosis"), [("rounding", -1.2), ("dithered", -1.2), ("gaussian", 0.0)])
def test_fine_steps_have_the_variance_and_the_law_of_the_theory(kind: str, kurtosis: float) -> None:
    found = row(noise.error_statistics(latents(), [0.05], [kind]), kind)
    assert found["variance_ratio"] == pytest.approx(1, abs=0.02)
    assert found["kurtosis"] == pytest.approx(kurtosis, abs=0.05)
    assert found["flatness"] > 0.99
    assert (found["ks"] < 0.01) == (kind != "gaussian")


def test_coarse_rounding_eats_the_signal_and_dither_does_not() -> None:
    table = noise.error_statistics(latents(), [8.0])
    rounding, dithered = row(table, "rounding"), row(table, "dithered")
    assert rounding["variance_ratio"] < 0.8
    assert rounding["correlation"] < -0.9  # nearly all is rounded to 0: the error is minus the signal
    assert rounding["information"] > 1
    assert dithered["variance_ratio"] == pytest.approx(1, abs=0.02)
    assert abs(dithered["correlation"]) < 0.02
    assert dithered["information"] < 0.01
    assert noise.is_like_noise(dithered)
    assert not noise.is_like_noise(rounding)


def test_the_dithered_error_stays_within_half_a_step() -> None:
    y = latents(1)[0]
    assert float((noise.disturb(y, 3.0, "dithered", 7) - y).abs().max()) <= 1.5 + 1e-5


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(BadInputError, match="rounding, dithered, gaussian"):
        noise.disturb(torch.zeros(1), 1.0, "pink")


@pytest.mark.parametrize(
    ("t", "step", "bits", "bpp"),
    [(10, 0.341, 3.61, 0.2255), (100, 1.191, 1.88, 0.1172), (400, 4.034, 0.303, 0.0189)],
)
def test_matched_steps_agree_with_the_published_table(t: int, step: float, bits: float, bpp: float) -> None:
    found = noise.matched_steps([t], latents()).iloc[0]
    assert found["step"] == pytest.approx(step, abs=1e-3)
    assert found["unit_bits"] == pytest.approx(bits, abs=5e-3)
    assert found["unit_bpp"] == pytest.approx(bpp, abs=2e-4)
    # these latents are unit Gaussian, so both columns measure one thing
    assert found["latent_ratio"] == pytest.approx(found["unit_ratio"], abs=0.02)
    assert found["latent_bpp"] == pytest.approx(bpp, rel=0.03)


def test_mutual_information_is_all_of_a_copy_and_none_of_a_stranger() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 50_000))
    assert noise.mutual_information(a, a) == pytest.approx(4, abs=0.01)
    assert noise.mutual_information(a, b) < 0.002


def test_the_spectrum_of_white_noise_is_flat_and_of_a_ramp_is_not() -> None:
    white = latents(1, 128)[0]
    assert noise.radial_spectrum(white) == pytest.approx(np.ones(noise.SPECTRUM_BINS), abs=0.1)
    smooth = torch.nn.functional.avg_pool2d(white, 5, 1, 2)
    spectrum = noise.radial_spectrum(smooth)
    assert spectrum[0] > 10 * spectrum[-1]


def frame(variances: list[float], information: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": [1.0, 2.0, 3.0],
            "kind": "rounding",
            "variance_ratio": variances,
            "correlation_rms": 0.0,
            "flatness": 1.0,
            "information": information,
        }
    )


@pytest.mark.parametrize(
    ("variances", "information", "outcome", "limit"),
    [
        ([1, 1, 1], 0.0, "replicated", 3.0),
        ([1, 1, 1], 1.0, "partly", 3.0),
        ([1, 0.5, 1], 0.0, "partly", 1.0),
        ([0.5, 1, 1], 0.0, "not replicated", None),
    ],
)
def test_the_verdict_follows_its_rule(
    variances: list[float], information: float, outcome: str, limit: float | None
) -> None:
    found = noise.verdict(frame(variances, information), "rounding")
    assert (found["outcome"], found["holds_up_to"]) == (outcome, limit)


def test_optima_find_the_top_of_a_known_parabola() -> None:
    ratios = [0.4, 0.6, 0.8, 1.0, 1.3]
    sweep = pd.DataFrame(
        [
            {
                "step": 1.0,
                "kind": "rounding",
                "ratio": r,
                "latent_snr": -(np.log(r / 0.7) ** 2),
                "lpips": None,
            }
            for r in ratios
        ]
    )
    statistics = pd.DataFrame({"step": [1.0], "kind": ["rounding"], "variance_ratio": [0.81]})
    found = noise.optima(sweep, statistics).iloc[0]
    assert found["best_snr"] == pytest.approx(0.7, rel=1e-6)
    assert found["measured"] == pytest.approx(0.9)
    assert found["best_lpips"] is None
    assert float(STABLE_DIFFUSION.sigma_at(torch.tensor(found["t_snr"]))) == pytest.approx(
        0.7 / 12**0.5, rel=1e-4
    )


def test_feeding_the_unscaled_latent_is_what_the_check_says() -> None:
    backbone, y, t = tiny_backbone(), torch.stack(latents(1, 64)), 300
    found = noise.scaling_check(backbone, y, [t]).iloc[0]
    sigma = float(backbone.schedule.sigma[t])
    y_hat = noise.disturb(y, 12**0.5 * sigma, "gaussian")
    with torch.inference_mode():
        raw = backbone.unet(y_hat, torch.tensor([float(t)]), backbone.empty_prompt.expand(1, -1, -1)).sample
    assert found["unscaled"] == pytest.approx(noise.signal_to_noise(y, y_hat - sigma * raw), abs=1e-3)
    assert found["noisy"] == pytest.approx(-20 * np.log10(sigma), abs=0.15)
    assert found["scaled"] != pytest.approx(found["unscaled"], abs=1e-3)


def test_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInputError, match="300 x 200"):
        noise.centre_crops([np.zeros((200, 300, 3), np.uint8)])


def test_kinds_of_noise_are_told_apart_only_beyond_chance() -> None:
    costs = pd.DataFrame({"step": [0.5, 3.0], "cost": [-0.03, 0.05], "error": [0.02, 0.04]})
    assert "8 draws of each tell no difference: none is larger than 0.05 dB" in noise.type_sentence(costs)
    costs.loc[1, "cost"] = -0.2
    assert noise.type_sentence(costs).endswith("\u22120.20 dB at Δ = 3")


def test_the_cost_of_a_kind_of_noise_is_a_mean_of_draws() -> None:
    y = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    costs = noise.type_cost(tiny_backbone(), y, [0.5, 2.0], draws=3)
    assert costs["step"].tolist() == [0.5, 2.0]
    assert (costs["error"] > 0).all()
