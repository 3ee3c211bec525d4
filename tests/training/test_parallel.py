"""Two processes take the steps that one takes on the whole batch."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import debug_launcher

from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.training import parallel
from diffusion_codec.training.autoencoder import AutoencoderConfig, AutoencoderRecipe
from diffusion_codec.training.codec import CodecConfig, CodecRecipe
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.loop import Recipe, train
from diffusion_codec.training.parallel import Share
from tests.tiny import tiny_autoencoder, tiny_backbone
from tests.training.test_loop import crops

COMMON: dict[str, Any] = {
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "crop": 64,
    "log_every": 1,
    "checkpoint_every": 3,
}


def codec() -> Recipe:
    extra = {"rate_only_steps": 2, "rate_only_batch_size": 6, "entropy_width": 8, "hyper_channels": 2}
    config, _ = parallel.own(CodecConfig.model_validate(COMMON | extra), "cpu")
    return CodecRecipe(config, tiny_backbone(), crops())


def denoiser() -> Recipe:
    extra = {"widths": (16, 16), "layers_per_block": 1}
    config, _ = parallel.own(DenoiserConfig.model_validate(COMMON | extra), "cpu")
    return DenoiserRecipe(config, crops().latents)


def autoencoder() -> Recipe:
    extra = {"width": 8, "encoder_blocks": (0, 1, 1, 1), "decoder_blocks": (1, 1, 1, 0), "latent_noise": 0.1}
    settings = AutoencoderConfig.model_validate(COMMON | extra | {"distil_until_step": 0})
    config, _ = parallel.own(settings, "cpu")
    drawn = crops()
    assert drawn.photos is not None
    return AutoencoderRecipe(config, drawn.photos, tiny_autoencoder())


def curve(out: Path) -> list[dict[str, float]]:
    with (out / "losses.csv").open() as file:
        return [
            {k: float(v) for k, v in row.items() if v and k != "steps_per_second"}
            for row in csv.DictReader(file)
        ]


def run(make: Callable[[], Recipe], out: str, stop_after: int | None) -> None:
    torch.set_num_threads(1)  # a forked process must not wait for threads that only its parent has
    train(make(), Path(out), stop_after)


@pytest.mark.parametrize("make", [codec, denoiser])
def test_the_curves_are_those_of_one_process(make: Callable[[], Recipe], tmp_path: Path) -> None:
    run(make, str(tmp_path / "one"), None)
    debug_launcher(run, (make, str(tmp_path / "two"), None), num_processes=2)
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=2e-4, abs=2e-6)
    settings = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("one", "two")]
    assert settings[0] == settings[1]


def test_one_process_continues_what_two_began(tmp_path: Path) -> None:
    run(denoiser, str(tmp_path / "one"), None)
    debug_launcher(run, (denoiser, str(tmp_path / "two"), 3), num_processes=2)
    run(denoiser, str(tmp_path / "two"), None)
    assert curve(tmp_path / "two")[-1] == pytest.approx(curve(tmp_path / "one")[-1], rel=2e-4)


@pytest.mark.parametrize("make", [codec, denoiser, autoencoder])
def test_the_shares_together_are_the_batch(
    make: Callable[[], Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean loss of both halves equals the loss of the whole, term by term; no process is started."""
    if make is autoencoder:
        monkeypatch.setattr("diffusion_codec.training.autoencoder.perceptual_loss", lambda net: Distance())
    for step in (0, 4):
        whole = make().losses(step, torch.Generator().manual_seed(step))
        halves = []
        with monkeypatch.context() as patch:
            patch.setenv("WORLD_SIZE", "2")
            for rank in (0, 1):
                recipe, generator = make(), torch.Generator().manual_seed(step)
                with Share(rank, 2).rows(generator):
                    halves.append(recipe.losses(step, generator))
        for name, value in whole.items():
            mean = (halves[0][name] + halves[1][name]) / 2
            torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6)
            if name == "loss":
                assert not torch.equal(halves[0][name], halves[1][name])


class Distance(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))


def test_draws_of_the_rows_are_the_rows_of_the_draws() -> None:
    def draw(n: int, generator: torch.Generator) -> list[torch.Tensor]:
        return [
            torch.rand(n, generator=generator),
            torch.rand(n, 3, generator=generator),
            torch.randn(torch.Size((n, 2, 2)), generator=generator),
            torch.randint(100, (n,), generator=generator),
            torch.multinomial(torch.ones(50), n, replacement=True, generator=generator),
        ]

    whole = draw(6, torch.Generator().manual_seed(1))
    for rank in range(3):
        generator = torch.Generator().manual_seed(1)
        with Share(rank, 3).rows(generator):
            for part, drawn in zip(draw(2, generator), whole, strict=True):
                assert torch.equal(part, drawn[2 * rank : 2 * rank + 2])
            other = torch.Generator().manual_seed(0)
            assert len(torch.rand(2, generator=other)) == 2
            with pytest.raises(DiffusionCodecError, match="batch first"):
                torch.randperm(4, generator=generator)


def test_a_batch_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(BadInputError, match="batch_size 4 cannot be shared by 3 processes"):
        codec()
