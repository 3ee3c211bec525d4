"""How the codec's own networks learn: `python -m diffusion_codec.evaluation.training_choices START --runs FOLDER`.

What the paper leaves open of its training, or what differs here: how lambda is told and drawn, what the loss weighs,
what the decoder is shown, how it denoises meanwhile, and its pace. Short runs, alike but for one of these, each with
several seeds, are compared by real files of equal size.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor

from diffusion_codec import codec_weights, datasets
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec
from diffusion_codec.codec_weights import CodecWeights, embedded_weights
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation import choices
from diffusion_codec.evaluation.tables import stored
from diffusion_codec.files import write_atomically
from diffusion_codec.metrics import perceptual_loss
from diffusion_codec.parameter_estimation import LOG2_LAMBDA_RANGE, ParameterEstimation
from diffusion_codec.training.codec import CodecConfig, CodecRecipe, Crops, squared_error, warm_start
from diffusion_codec.training.configuration import read_config
from diffusion_codec.training.export import export_codec
from diffusion_codec.training.latents import photos_with_latents
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import LatentCrops

PUBLIC_LAMBDAS = (1.0, 5.0, 10.0, 20.0)
"""Those of the public attempt at the paper."""
RATES = (0.05, 0.1)
"""Bits per pixel that a file may take."""
SPAN = (0.0, 50.0)
"""Qualities whose files' rates are told."""
MATCHED = choices.Choice("training", "t matched after the run", change=choices.scaled_timestep(1.0))
MATCHED_RATE = 0.1
"""Bits per pixel at which every run is measured again, its files declaring the match."""
SEEDS = 3
SHIPPED = "independent"
PERCEPTUAL_WEIGHT = 0.02
"""Of LPIPS: then both parts are alike where the squared error is 0.003 and LPIPS 0.15."""
ABSOLUTE_WEIGHT = 0.08
"""Of the mean absolute error: then it is as large as the squared one at an error of 0.08."""

LATENT_WEIGHT = 0.04
"""Of the latent's squared error: about what it adds to the picture's in files of 0.1 bits per pixel."""


class PlaneOfLambda(ParameterEstimation):
    """Told lambda itself, 1 at the largest one."""

    def told(self, lambda_: Tensor) -> Tensor:
        """lambda over the largest lambda."""
        return lambda_ / 2 ** LOG2_LAMBDA_RANGE[1]


class PlaneOfTwentieths(ParameterEstimation):
    """Told lambda itself, 1 at the largest of the public attempt's."""

    def told(self, lambda_: Tensor) -> Tensor:
        """lambda / 20."""
        return lambda_ / PUBLIC_LAMBDAS[-1]


class OneStartingStep(ParameterEstimation):
    """Begins with the same step for every lambda, that of lambda = 16: what lambda means is learned."""

    def starting_log2_step(self, lambda_: Tensor) -> Tensor:
        """As for lambda = 16."""
        return super().starting_log2_step(torch.full_like(lambda_, 16.0))


class DrawnEvenly(CodecRecipe):
    """lambda drawn evenly, not evenly in its logarithm."""

    def draw_lambda(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform over the configured range."""
        low, high = torch.exp2(torch.tensor(self.config.log2_lambda))
        return torch.lerp(low, high, torch.rand(count, generator=generator))


class DrawnFromFour(CodecRecipe):
    """lambda drawn from the public attempt's four values."""

    def draw_lambda(self, count: int, generator: torch.Generator) -> Tensor:
        """One of :data:`PUBLIC_LAMBDAS` for each crop."""
        picks = torch.randint(len(PUBLIC_LAMBDAS), (count,), generator=generator)
        return torch.tensor(PUBLIC_LAMBDAS)[picks]


class NotWeighed(CodecRecipe):
    """Trained by L itself, in which the largest lambda counts most."""

    def weighed(self, trade_off: Tensor) -> Tensor:
        """L as it is."""
        return trade_off


class AbsoluteError(CodecRecipe):
    """The mean absolute error in place of the squared one."""

    def distortion(self, x: Tensor, x_hat: Tensor, y: Tensor, y_0: Tensor) -> Tensor:
        """:data:`ABSOLUTE_WEIGHT` of it, images in 0..1."""
        error: Tensor = ((x_hat - x) / 2).abs().mean((1, 2, 3))
        return ABSOLUTE_WEIGHT * error


class WithPerception(CodecRecipe):
    """LPIPS (SqueezeNet) beside the squared error."""

    def __init__(self, config: CodecConfig, backbone: Backbone, crops: Crops, device: str = "cpu"):
        super().__init__(config, backbone, crops, device)
        self.perceptual = perceptual_loss("squeeze").to(device)

    def distortion(self, x: Tensor, x_hat: Tensor, y: Tensor, y_0: Tensor) -> Tensor:
        """Squared error and :data:`PERCEPTUAL_WEIGHT` of LPIPS."""
        perceived: Tensor = self.perceptual(x_hat, x).float()
        return squared_error(x, x_hat) + PERCEPTUAL_WEIGHT * perceived


class LatentError(CodecRecipe):
    """The squared error of the latent after denoising in place of the picture's: the decoder has no part in it."""

    def distortion(self, x: Tensor, x_hat: Tensor, y: Tensor, y_0: Tensor) -> Tensor:
        """:data:`LATENT_WEIGHT` of it."""
        error: Tensor = (y_0 - y).square().mean((1, 2, 3))
        return LATENT_WEIGHT * error


class NoiseShown(CodecRecipe):
    """The decoder, too, is shown uniform noise in place of rounding."""

    def shown(self, z_hat: Tensor, noisy: Tensor) -> Tensor:
        """The latent of the rate."""
        return noisy


class ThreeSteps(CodecRecipe):
    """Denoised in training as in decoding."""

    def denoised(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """y_0 by three DDIM steps, the gradient through all of them."""
        return self.backbone.denoise(y_hat, t, steps=3)


class NotThroughDenoiser(CodecRecipe):
    """The decoder's gradient passes the denoiser by; t, which only the denoiser sees, stays where it starts."""

    def denoised(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """y_0 by one DDIM step that is a constant offset to the gradient."""
        return y_hat + (super().denoised(y_hat, t) - y_hat).detach()


@dataclass(frozen=True)
class Variant:
    """What differs from how the weights `independent` were trained; ``form`` sets fields of the configuration."""

    question: str
    name: str
    estimation: type[ParameterEstimation] = ParameterEstimation
    recipe: type[CodecRecipe] = CodecRecipe
    from_start: bool = True
    pace: float = 1.0
    form: Mapping[str, object] = field(default_factory=dict)

    def config(self, base: CodecConfig, seed: int) -> CodecConfig:
        """The configuration of one run."""
        learning_rate = self.pace * base.learning_rate
        return base.model_copy(update={"seed": seed, "learning_rate": learning_rate, **self.form})

    def folder(self, seed: int) -> str:
        """Name of a run's folder."""
        return f"{re.sub('[^a-z0-9]+', '-', self.name.lower())}-{seed}"


VARIANTS = (
    Variant("base", "as here"),
    Variant("lambda", "lambda itself as the plane", estimation=PlaneOfLambda),
    Variant("lambda", "one starting step size for all lambda", estimation=OneStartingStep),
    Variant("lambda", "drawn evenly in lambda", recipe=DrawnEvenly),
    Variant("public lambda", "drawn from 1, 5, 10, 20", recipe=DrawnFromFour),
    Variant(
        "public lambda", "lambda / 20, of 1, 5, 10, 20", estimation=PlaneOfTwentieths, recipe=DrawnFromFour
    ),
    Variant("gradient", "gradient of L instead of log L", recipe=NotWeighed),
    Variant("one lambda", "one lambda alone, 45", form={"log2_lambda": (5.5, 5.5)}),
    Variant("stages", "no first stage", from_start=False),
    Variant("distortion", "mean absolute error", recipe=AbsoluteError),
    Variant("distortion", "squared error and LPIPS", recipe=WithPerception),
    Variant("latent", "squared error of the latent", recipe=LatentError),
    Variant("before the decoder", "noise instead of rounding", recipe=NoiseShown),
    Variant("construction", "t tied to one step size for all channels", form={"tied": True}),
    Variant("construction", "tied, universal quantisation", form={"tied": True, "dithered": True}),
    Variant("denoising", "three DDIM steps", recipe=ThreeSteps),
    Variant("denoising", "no gradient through the U-Net", recipe=NotThroughDenoiser),
    Variant("pace", "a third of the learning rate", pace=1 / 3),
    Variant("pace", "three times the learning rate", pace=3.0),
    Variant("crops", "eight crops a step", form={"batch_size": 8}),
    Variant("crops", "1000 training steps", form={"steps": 1000}),
)
SHIPS = "as it ships"
"""Question and, after their name, variant of the row of the weights that ship."""


def train_variant(
    variant: Variant,
    config: CodecConfig,
    backbone: Backbone,
    crops: Crops,
    start: CodecWeights,
    run: Path,
) -> CodecWeights:
    """One short run from an untrained P_phi and, but for one variant, the entropy model of ``start``."""
    recipe = variant.recipe(config, backbone, crops)
    recipe.model.parameter_estimation = variant.estimation(config.tied)
    if variant.from_start:
        warm_start(recipe, replace(start, parameter_estimation=recipe.model.parameter_estimation))
    train(recipe, run)
    file = run / "codec.safetensors"
    export_codec(run, file)
    trained = codec_weights.load(file)
    estimation = variant.estimation(config.tied)
    estimation.load_state_dict(trained.parameter_estimation.state_dict())
    return replace(trained, parameter_estimation=estimation.eval().requires_grad_(False))


def compare(
    config: CodecConfig,
    backbone: Backbone,
    crops: Crops,
    start: CodecWeights,
    pictures: ImageDataset,
    out: Path,
    variants: Sequence[Variant] = VARIANTS,
    seeds: int = SEEDS,
) -> Iterator[dict[str, object]]:
    """Each variant and seed as it is measured: rates at the ends of :data:`SPAN`, measures at :data:`RATES`, or NaN.

    Means over pictures. The last row is of the weights that ship, which were trained on an older backbone's latents.
    """
    seen = choices.analysed(Codec(backbone, start), pictures)
    for seed in range(seeds):
        for variant in variants:
            settings = variant.config(config, seed)
            run = out / variant.folder(seed)
            weights = train_variant(variant, settings, backbone, crops, start, run)
            key = {"question": variant.question, "variant": variant.name, "seed": seed}
            yield key | _measured(Codec(backbone, weights), seen)
    ships = Codec(backbone, codec_weights.load(embedded_weights(SHIPPED)))
    key = {"question": SHIPS, "variant": f"{SHIPPED} {SHIPS}", "seed": 0}
    yield key | _measured(ships, seen)


def _measured(codec: Codec, seen: choices.Seen) -> dict[str, float]:
    low, high = (
        fmean(
            8 * len(codec.compress(analysis, quality).data) / (pixels.shape[0] * pixels.shape[1])
            for pixels, analysis in seen
        )
        for quality in SPAN
    )
    measured = choices.measure(choices.Choice("training", "of this run"), codec, seen, RATES)
    tied = choices.prepared(MATCHED, codec.backbone, codec.weights, ())
    matched = choices.measure(MATCHED, tied, seen, (MATCHED_RATE,))
    afterwards = {f"{name} at {MATCHED_RATE:g}" for name in choices.MEASURES}
    return (
        {"lowest_bpp": low, "highest_bpp": high}
        | measured
        | {f"{name}, t matched": value for name, value in matched.items() if name in afterwards}
    )


def main(
    start: Annotated[
        Path,
        typer.Argument(
            help="Codec weights whose entropy model every run starts from (train entropy-models)."
        ),
    ],
    runs: Annotated[Path, typer.Option(help="Folder of the runs; one found there is continued.")],
    config: Annotated[str, typer.Option(help="Of `diffusion-codec train codec`, or a YAML file.")] = "trial",
    question: Annotated[
        list[str] | None,
        typer.Option(help="Only variants of this question; once for each. Other rows of the table are kept."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.", min=1)] = SEEDS,
    photos: Annotated[Path | None, typer.Option(help="Folder of training photographs.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/training_choices.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = 4,
) -> None:
    """Train P_phi in other ways, and compare; each run takes minutes."""
    whole = (photos, dataset, limit) == (None, "kodak", 4)
    target = stored("training_choices.csv", out, whole=whole)
    variants = choices.asked(VARIANTS, question or [])
    settings = read_config("codec", config, CodecConfig)
    backbone = Backbone.from_pretrained("mini")
    pixels, latents = photos_with_latents(photos, settings.photos_limit, backbone, runs / "cache")
    crops = LatentCrops(pixels, latents, settings.crop)
    pictures = datasets.load(dataset, limit)
    loaded = codec_weights.load(start)
    names = [*(variant.name for variant in VARIANTS), f"{SHIPPED} {SHIPS}"]
    for row in compare(settings, backbone, crops, loaded, pictures, runs, variants, seeds):
        new = pd.DataFrame([{"dataset": pictures.name, "config": Path(config).stem} | row]).round(4)
        table = choices.merged(target, new, ["dataset", "config", "variant", "seed"], names)
        typer.echo(new.to_string(index=False))
        write_atomically(target, table.to_csv(index=False).encode(), force=True)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
