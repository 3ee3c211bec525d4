from pathlib import Path

import torch

from diffusion_codec import codec_weights
from diffusion_codec.evaluation.entropy_models import compare
from tests.tiny import tiny_weights_file


def test_rates_are_of_real_streams_on_the_same_integers(tmp_path: Path) -> None:
    plain = codec_weights.load(tiny_weights_file(tmp_path / "a.safetensors"))
    hyper = codec_weights.load(tiny_weights_file(tmp_path / "b.safetensors", hyper_channels=2))
    latents = {
        str(i): torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)
    }
    table = compare({"plain": plain, "hyper": hyper}, latents, [20.0, 60.0])
    assert table["quality"].tolist() == [20.0, 60.0]
    assert (table["plain_hyper"] == 0).all()
    assert (table["hyper_hyper"] > 0).all()
    assert table["zeroth_order"].is_monotonic_increasing
    again = compare({"plain": plain}, latents, [20.0, 60.0])
    assert again["plain_total"].tolist() == table["plain_total"].tolist()
