"""How the codec learns lambda: `python -m diffusion_codec.evaluation.lambda_choices START --runs FOLDER`.

The public attempt at the paper has a plane of lambda and four values to draw it from; the codec here takes log lambda,
drawn evenly over a range that is wide enough for every rate, starts from steps that fall with sqrt(lambda), and weighs
all lambda alike. Short runs, alike but for one of these, are compared by real files at equal rates.
"""

from dataclasses import dataclass, replace
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
from diffusion_codec.evaluation import choices
from diffusion_codec.fetch import locate
from diffusion_codec.parameter_estimation import LOG2_LAMBDA_RANGE, ParameterEstimation
from diffusion_codec.training.cli import read_config
from diffusion_codec.training.codec import CodecConfig, CodecRecipe, Crops, warm_start
from diffusion_codec.training.export import export_codec
from diffusion_codec.training.latents import cached_latents
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import LatentCrops, load_photos

PUBLIC_LAMBDAS = (1.0, 5.0, 10.0, 20.0)
"""Those of the public attempt at the paper."""
RATES = (0.05, 0.1, 0.15)
"""Bits per pixel that a file may take."""
SPAN = (0.0, 50.0)
"""Qualities whose files' rates are told."""
SHIPPED = "independent"


class PlaneOfLambda(ParameterEstimation):
    """Told lambda itself, 1 at the largest one."""

    def told(self, lambda_: Tensor) -> Tensor:
        """lambda over the largest lambda."""
        return lambda_ / 2 ** LOG2_LAMBDA_RANGE[1]


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


@dataclass(frozen=True)
class Variant:
    """What differs from how the weights that ship were trained."""

    name: str
    estimation: type[ParameterEstimation] = ParameterEstimation
    recipe: type[CodecRecipe] = CodecRecipe
    from_start: bool = True
    seed: int = 0


VARIANTS = (
    Variant("as here"),
    Variant("lambda itself as the plane", estimation=PlaneOfLambda),
    Variant("one starting step for all lambda", estimation=OneStartingStep),
    Variant("drawn evenly in lambda", recipe=DrawnEvenly),
    Variant("drawn from 1, 5, 10, 20", recipe=DrawnFromFour),
    Variant("gradient of L instead of log L", recipe=NotWeighed),
    Variant("no first stage", from_start=False),
    Variant("as here (second seed)", seed=1),
    Variant("as here (third seed)", seed=2),
)


def train_variant(
    variant: Variant, config: CodecConfig, backbone: Backbone, crops: Crops, start: CodecWeights, run: Path
) -> CodecWeights:
    """One short run from an untrained P_phi and, but for one variant, the entropy model of ``start``."""
    recipe = variant.recipe(config.model_copy(update={"seed": variant.seed}), backbone, crops)
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
) -> pd.DataFrame:
    """One row a variant: rates at the ends of :data:`SPAN`, measures at :data:`RATES`; NaN where it has no file.

    Means over pictures. The last row is of the weights that ship, which were trained on an older backbone's latents.
    """
    seen = choices.analysed(Codec(backbone, start), pictures)
    trained = {
        variant.name: train_variant(variant, config, backbone, crops, start, out / f"variant-{number}")
        for number, variant in enumerate(VARIANTS)
    }
    trained["independent as it ships"] = codec_weights.load(embedded_weights(SHIPPED))
    return pd.DataFrame(
        [_row(name, Codec(backbone, weights), seen) for name, weights in trained.items()]
    ).round(4)


def _row(name: str, codec: Codec, seen: choices.Seen) -> dict[str, str | float]:
    low, high = (
        fmean(
            8 * len(codec.compress(analysis, quality).data) / (pixels.shape[0] * pixels.shape[1])
            for pixels, analysis in seen
        )
        for quality in SPAN
    )
    measured = choices.measure(choices.Choice("lambda", name), codec, seen, RATES)
    return {"variant": name, "lowest_bpp": low, "highest_bpp": high, **measured}


def main(
    start: Annotated[
        Path,
        typer.Argument(
            help="Codec weights whose entropy model every run starts from (train entropy-models)."
        ),
    ],
    runs: Annotated[Path, typer.Option(help="Folder of the runs; one found there is continued.")],
    config: Annotated[str, typer.Option(help="Of `diffusion-codec train codec`, or a YAML file.")] = "cpu",
    photos: Annotated[Path | None, typer.Option(help="Folder of training photographs.")] = None,
    out: Annotated[Path, typer.Option(help="Table to write.")] = Path("data/results/lambda_choices.csv"),
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = 4,
) -> None:
    """Train P_phi with other ideas of lambda, and compare (about an hour of one core)."""
    settings = read_config("codec", config, CodecConfig)
    backbone = Backbone.from_pretrained("mini")
    pixels = load_photos(photos or locate("train-photos").path, settings.photos_limit)
    crops = LatentCrops(pixels, cached_latents(backbone.encode, pixels), settings.crop)
    pictures = datasets.load(dataset, limit)
    table = compare(settings, backbone, crops, codec_weights.load(start), pictures, runs)
    table.insert(0, "dataset", pictures.name)
    table.to_csv(out, index=False)
    typer.echo(table.to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
