import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_codec.backbone import Backbone
from diffusion_codec.errors import BadInputError, MissingDataError
from tests.tiny import tiny_backbone, write_tiny_backbone


def ddim_of_diffusers(
    backbone: Backbone, scheduler: DDIMScheduler, y_hat: Tensor, start: int, steps: int
) -> Tensor:
    """The latent after ``steps`` steps from timestep ``start``, one of the scheduler's own grids."""
    scheduler.alphas_cumprod[0] = 1.0  # ours ends without noise, diffusers at its first timestep
    scheduler.timesteps = torch.tensor([start - start // steps * i for i in range(steps)])
    scheduler.num_inference_steps = 1000 * steps // start  # the scheduler's step is 1000 / this
    x = y_hat * scheduler.alphas_cumprod[start].sqrt()
    for t in scheduler.timesteps:
        out = backbone.unet(x, t, backbone.empty_prompt, return_dict=False)[0]
        x = scheduler.step(out, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 4])
def test_ddim_equals_the_scheduler_of_diffusers(prediction: str, steps: int) -> None:
    backbone = tiny_backbone(prediction=prediction)
    start = 400
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction,
    )
    y_hat = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = ddim_of_diffusers(backbone, scheduler, y_hat, start, steps)
        ours = backbone.denoise(y_hat, torch.tensor([float(start)]), steps)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_no_steps_change_nothing() -> None:
    y = torch.randn(1, 4, 6, 6)
    assert torch.equal(tiny_backbone().denoise(y, torch.tensor([300.0]), 0), y)


def test_nothing_is_trainable() -> None:
    assert not any(p.requires_grad for p in tiny_backbone().parameters())


def test_gradients_pass_through_to_the_latent_and_the_timestep() -> None:
    backbone = tiny_backbone()
    y = torch.randn(1, 4, 8, 8, requires_grad=True)
    t = torch.tensor([120.5], requires_grad=True)
    backbone.decode(backbone.denoise(y, t, 1)).square().sum().backward()
    assert y.grad is not None
    assert t.grad is not None
    assert float(y.grad.abs().sum()) > 0
    assert float(t.grad.abs().sum()) > 0


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 12)])
def test_latents_of_any_size(size: tuple[int, int]) -> None:
    backbone = tiny_backbone()
    with torch.no_grad():
        y = backbone.denoise(torch.randn(1, 4, *size), torch.tensor([200.0]), 1)
        assert backbone.decode(y).shape == (1, 3, 8 * size[0], 8 * size[1])


def test_a_folder_gives_the_same_model(tmp_path: Path) -> None:
    loaded = Backbone.from_pretrained(write_tiny_backbone(tmp_path / "tiny"))
    assert loaded.weights_hash() == tiny_backbone().weights_hash()
    assert loaded.name == "tiny"


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny_backbone(tmp_path / "tiny")
    capfd.readouterr()
    Backbone.from_pretrained(folder)
    assert capfd.readouterr() == ("", "")


def test_unknown_name_lists_the_embedded_ones() -> None:
    with pytest.raises(MissingDataError, match="mini"):
        Backbone.from_pretrained("maxi")


def test_a_folder_that_is_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"vae.config\.json is missing"):
        Backbone.from_pretrained(tmp_path)


def test_another_schedule_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_backbone(tmp_path / "tiny")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "linear"}))
    with pytest.raises(BadInputError, match="scaled_linear"):
        Backbone.from_pretrained(folder)
