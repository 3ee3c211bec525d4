from pathlib import Path

import pytest
import torch

from diffusion_codec import codec_weights
from diffusion_codec.evaluation.entropy_models import by_photographs, compare, cost_of_integers
from tests.tiny import tiny_weights_file


def test_rates_are_of_real_streams_on_the_same_integers(tmp_path: Path) -> None:
    plain = codec_weights.load(tiny_weights_file(tmp_path / "a.safetensors"))
    hyper = codec_weights.load(tiny_weights_file(tmp_path / "b.safetensors", hyper_channels=2))
    latents = {
        str(i): torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)
    }
    table = compare({"plain": plain, "hyper": hyper}, latents, [20.0, 60.0])
    assert table["lambda"].tolist() == [20.0, 60.0]
    assert (table["plain_hyper"] == 0).all()
    assert (table["hyper_hyper"] > 0).all()
    assert table["zeroth_order"].is_monotonic_increasing
    again = compare({"plain": plain}, latents, [20.0, 60.0])
    assert again["plain_total"].tolist() == table["plain_total"].tolist()


def test_integers_cost_little_and_are_measured_against_the_same_networks(tmp_path: Path) -> None:
    weights = codec_weights.load(tiny_weights_file(tmp_path / "a.safetensors", context="lattice", energy=3))
    latents = {"a": torch.randn(1, 4, 32, 40, generator=torch.Generator().manual_seed(0))}
    row = cost_of_integers(weights, latents, [50.0]).iloc[0]
    assert row["stream_bpp"] == pytest.approx(row["real_bpp"], rel=0.02)


def test_bits_are_counted_from_those_of_the_most_photographs(tmp_path: Path) -> None:
    path = tmp_path / "photographs.csv"
    path.write_text(
        "dataset,lambda,zeroth_order,photographs-0001_hyper,photographs-0001_total,photographs-0064_total\n"
        "kodak,2,0.3,0,0.3,0.2\n"
    )
    table = by_photographs(path)
    assert table["photographs"].tolist() == [1, 64]
    assert table["bpp"].tolist() == [0.3, 0.2]
    assert table["excess"].tolist() == pytest.approx([0.5, 0.0])
