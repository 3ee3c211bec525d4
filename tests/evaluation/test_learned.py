"""What chapter 2 says of the learned parts, on tiny models through the real code path."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffusion_codec.codec import lambda_of
from diffusion_codec.evaluation import learned
from diffusion_codec.parameter_estimation import ParameterEstimation
from tests.tiny import tiny_codec


def pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for name in ("a", "b")}


def test_an_untrained_p_phi_is_at_the_matched_timestep() -> None:
    table = learned.predictions(ParameterEstimation(), {"a": torch.randn(1, 4, 8, 8)}, [1.0, 16.0])
    assert list(table["t"]) == pytest.approx(list(table["matched_t"]))
    # step falls with sqrt(lambda)
    assert table["step"][0] / table["step"][1] == pytest.approx(4)


@pytest.mark.parametrize("hyper_channels", [0, 2])
def test_promised_bits_add_up_to_the_stream(tmp_path: Path, hyper_channels: int) -> None:
    codec = tiny_codec(tmp_path, hyper_channels=hyper_channels)
    latents = {"a": torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(0))}
    table = learned.bits_by_channel(codec.weights, latents, [8.0])
    assert len(table) == 4
    assert table["stream"].iloc[0] == pytest.approx(table["model"].mean(), rel=0.03)
    assert (table["ideal"] > 0).all()


def test_rates_are_sizes_of_real_files(tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path)
    table = learned.rates(codec, pictures(), [0.0, 100.0])
    size = len(codec.compress(pictures()["b"], 100.0).data)
    row = table[(table["image"] == "b") & (table["quality"] == 100)].iloc[0]
    assert row["bytes"] == size
    assert row["bpp"] == pytest.approx(8 * size / 64**2)
    assert row["lambda_"] == lambda_of(100)


def test_rising_notices_one_fall() -> None:
    table = pd.DataFrame(
        {"image": list("aaabbb"), "lambda_": [4, 1, 2] * 2, "bytes": [30, 10, 20, 30, 10, 10]}
    )
    assert learned.rising(table).to_dict() == {"a": True, "b": False}
