"""What the training computes, against closed forms: models and pictures are such that the answer is known."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion_codec import quantization
from diffusion_codec.backbone import STRIDE
from diffusion_codec.entropy.model import SideInformation
from diffusion_codec.training import latents, loop
from diffusion_codec.training.codec import CodecConfig, CodecRecipe
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.loop import LoopConfig, TrainingState, train
from diffusion_codec.training.photos import LatentCrops
from tests.tiny import tiny_backbone

COMMON: dict[str, object] = {"batch_size": 2, "learning_rate": 0.1, "warmup_steps": 0, "crop": 64}


class Slope:
    """A weight and a bias, both 0 at first, under a loss whose gradient in step k is ``gradients[k]``."""

    def __init__(self, gradients: list[tuple[float, float]], **settings: object) -> None:
        common = {"batch_size": 1, "learning_rate": 0.1, "warmup_steps": 0, "final_learning_rate_ratio": 1.0}
        self.config = LoopConfig.model_validate(common | {"steps": len(gradients)} | settings)
        self.gradients = torch.tensor(gradients)
        self.model: nn.Module = nn.Linear(1, 1)
        for parameter in self.model.parameters():
            nn.init.zeros_(parameter)
        self.path: list[Tensor] = []

    def place(self) -> Tensor:
        return torch.cat([parameter.flatten() for parameter in self.model.parameters()])

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.path.append(self.place().detach())
        return {"loss": self.gradients[step] @ self.place()}

    def trained(self, out: Path) -> TrainingState:
        state = train(self, out)
        self.path.append(self.place().detach())
        return state

    def steps(self) -> Tensor:
        return torch.stack(self.path).diff(dim=0)


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is the gradient times the learning rate that the loop sets: the optimiser's own is 0."""

    def sgd(config: LoopConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.0)

    monkeypatch.setattr(loop, "build_optimizer", sgd)


@pytest.mark.usefixtures("plain_descent")
def test_each_step_is_taken_at_the_learning_rate_of_the_schedule(tmp_path: Path) -> None:
    gradient = (0.3, 0.4)
    recipe = Slope([gradient] * 6, warmup_steps=2, final_learning_rate_ratio=0.2)
    recipe.trained(tmp_path)
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * part)) / 2 for part in (0, 1 / 4, 2 / 4, 3 / 4)]
    rates = 0.1 * torch.tensor([1 / 2, 1, *cosine])
    torch.testing.assert_close(recipe.steps(), -rates[:, None] * torch.tensor(gradient))


@pytest.mark.usefixtures("plain_descent")
def test_only_a_gradient_longer_than_the_clip_is_shortened_to_it(tmp_path: Path) -> None:
    recipe = Slope([(0.3, 0.4), (30.0, 40.0), (-0.6, 0.8)], gradient_clip=2.0)
    recipe.trained(tmp_path)
    taken = torch.tensor([(0.3, 0.4), (1.2, 1.6), (-0.6, 0.8)])
    torch.testing.assert_close(recipe.steps(), -0.1 * taken)


@pytest.mark.parametrize(
    ("ema_decay", "decays"), [(0.999, (2 / 11, 3 / 12, 4 / 13)), (0.2, (2 / 11, 0.2, 0.2))]
)
def test_the_moving_average_keeps_its_decay_of_itself(
    ema_decay: float, decays: tuple[float, ...], tmp_path: Path
) -> None:
    recipe = Slope([(1.0, -1.0), (0.5, 2.0), (-3.0, 1.0)], ema_decay=ema_decay)
    state = recipe.trained(tmp_path)
    average, *places = recipe.path
    for decay, place in zip(decays, places, strict=True):
        average = decay * average + (1 - decay) * place
    torch.testing.assert_close(torch.cat([value.flatten() for value in state.ema.values()]), average)


class Oracle(nn.Module):
    """A denoiser that knows the clean latent, ``Y_0`` everywhere; its answer is ``off`` by as much."""

    Y_0 = 0.75

    def __init__(self, prediction: str, off: float = 0.0) -> None:
        super().__init__()
        self.prediction, self.off = prediction, off

    def forward(self, y_t: Tensor, t: Tensor, prompt: Tensor, return_dict: bool) -> tuple[Tensor]:
        beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alpha_bar = (1 - beta).cumprod(0)[t].float()[:, None, None, None]
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        self.t, self.noise = t, (y_t - signal * self.Y_0) / spread
        v = signal * self.noise - spread * self.Y_0
        return ((v if self.prediction == "v_prediction" else self.noise) + self.off,)


def asked(oracle: Oracle, **changes: object) -> float:
    """The loss of ``oracle`` on latents that are ``Y_0`` everywhere."""
    settings = {"steps": 1, "prediction": oracle.prediction, "widths": (16, 16), "layers_per_block": 1}
    config = DenoiserConfig.model_validate(COMMON | settings | changes)
    recipe = DenoiserRecipe(config, [torch.full((4, 8, 8), Oracle.Y_0)])
    recipe.model = oracle
    return float(recipe.losses(0, torch.Generator().manual_seed(0))["loss"])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_denoiser_s_loss_is_the_squared_error_of_what_it_predicts(prediction: str) -> None:
    assert asked(Oracle(prediction), batch_size=16) == pytest.approx(0, abs=1e-9)
    assert asked(Oracle(prediction, off=0.5), batch_size=16) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
def test_the_denoiser_is_shown_the_noise_of_its_timestep(noise: str) -> None:
    oracle = Oracle("epsilon")
    asked(oracle, noise=noise, batch_size=64)
    assert oracle.noise.std() == pytest.approx(1.0, rel=0.03)
    assert oracle.noise.mean() == pytest.approx(0.0, abs=0.03)


def test_timesteps_are_drawn_mostly_where_the_codec_works() -> None:
    oracle = Oracle("epsilon")
    asked(oracle, batch_size=4000, crop=32, focus_below=250, focus_probability=0.8)
    below = oracle.t < 250
    assert float(below.float().mean()) == pytest.approx(0.8 + 0.2 * 250 / 1000, abs=0.03)
    assert float(oracle.t[below].float().mean()) == pytest.approx(124.5, abs=10)
    assert float(oracle.t[~below].float().mean()) == pytest.approx(624.5, abs=40)
    assert oracle.t.max() > 980


def codec_recipe(**changes: object) -> CodecRecipe:
    """lambda is 256 and every crop the whole picture; parameters are disturbed, so that nothing is at rest."""
    settings = {"steps": 1, "entropy_width": 8, "log2_lambda": (8.0, 8.0)}
    generator = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    crops = LatentCrops([photo], [torch.randn(4, 8, 8, generator=generator)], 64)
    recipe = CodecRecipe(CodecConfig.model_validate(COMMON | settings | changes), tiny_backbone(), crops)
    with torch.no_grad():
        for parameter in recipe.model.parameters():
            parameter.add_(0.05 * (torch.rand(parameter.shape, generator=generator) - 0.5))
    return recipe


def as_stored(recipe: CodecRecipe) -> tuple[Tensor, Tensor, Tensor, SideInformation]:
    """The affine latent z of each crop; alpha, beta and the side information as a file has them."""
    y = recipe.crops.draw(recipe.config.batch_size, torch.Generator())[1]
    with torch.no_grad():
        alpha, beta, t = recipe.model.parameter_estimation(y, torch.full((len(y),), 256.0))
    index = quantization.alpha_to_index(alpha)
    alpha = quantization.alpha_from_index(index)
    beta = quantization.beta_from_index(quantization.beta_to_index(beta))
    assert beta.any()
    return quantization.affine(y, alpha, beta), alpha, beta, SideInformation(index, t.round())


def test_the_entropy_model_learns_from_the_rounded_latents_alone() -> None:
    recipe = codec_recipe()
    z, _, _, side = as_stored(recipe)
    parameters = list(recipe.model.entropy.parameters())
    bpp = (recipe.model.entropy.bits(z.round(), side)[0] / 64**2).mean()
    expected = torch.autograd.grad(bpp, parameters)
    terms = recipe.losses(0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(terms["bpp"], bpp)
    assert not torch.isclose(terms["noisy_bpp"], bpp)
    for found, alone in zip(torch.autograd.grad(terms["loss"], parameters), expected, strict=True):
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-6)
    assert all(parameter.requires_grad for parameter in parameters)


@pytest.mark.parametrize("dithered", [False, True])
def test_the_denoiser_is_shown_the_lattice_unless_dithered(
    dithered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, seen = codec_recipe(dithered=dithered), list[Tensor]()

    def denoise(y_hat: Tensor, t: Tensor, steps: int) -> Tensor:
        seen.append(y_hat.detach())
        return y_hat

    monkeypatch.setattr(recipe.backbone, "denoise", denoise)
    recipe.losses(0, torch.Generator().manual_seed(0))
    z, alpha, beta, _ = as_stored(recipe)
    (y_hat,) = seen
    shown = quantization.affine(y_hat, alpha, beta)
    if dithered:
        error, off = shown - z, shown - shown.round()
        assert error.abs().max() <= 0.5 + 1e-4
        assert float(error.std()) == pytest.approx(12**-0.5, rel=0.1)
        assert float(off.std()) == pytest.approx(12**-0.5, rel=0.1)
    else:
        torch.testing.assert_close(shown, z.round(), rtol=0, atol=1e-4)


def test_lambda_weighs_the_distortion_of_its_own_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = codec_recipe()
    x = recipe.crops.draw(2, torch.Generator())[0]
    assert x is not None
    wrong = x + torch.tensor([0.2, 0.4])[:, None, None, None]  # a tenth and a fifth of the range
    monkeypatch.setattr(recipe, "draw_lambda", lambda count, generator: torch.tensor([4.0, 1024.0]))
    monkeypatch.setattr(recipe, "weighed", lambda trade_off: trade_off)
    monkeypatch.setattr(recipe.backbone, "decode", lambda y_0: wrong)
    terms = {k: v.item() for k, v in recipe.losses(0, torch.Generator().manual_seed(0)).items()}
    assert terms["mse"] == pytest.approx((0.01 + 0.04) / 2)
    distortion = (4 * 0.01 + 1024 * 0.04) / 2
    assert terms["noisy_bpp"] > 0.01
    assert terms["loss"] == pytest.approx(distortion + terms["noisy_bpp"] + terms["bpp"])


def test_a_drawn_latent_is_the_encoder_s_of_the_drawn_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, backbone = torch.Generator().manual_seed(0), tiny_backbone()
    colours = torch.randint(0, 256, (2, 3, 10, 12), dtype=torch.uint8, generator=generator)
    pictures = list(colours.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3))

    def encode(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, STRIDE)[:, [0, 1, 2, 0]]

    monkeypatch.setattr(latents, "load_photos", lambda *_: pictures)
    monkeypatch.setattr(backbone, "encode", encode)
    for _ in ("computed", "read from the cache"):
        pair = latents.photos_with_latents(tmp_path, None, backbone, tmp_path / "cache")
        x, y = LatentCrops(*pair, 64).draw(8, torch.Generator().manual_seed(1))
        assert x is not None
        assert len({float(crop.mean()) for crop in x}) > 2
        torch.testing.assert_close(encode(x), y, rtol=0, atol=1e-3)  # kept in half precision
