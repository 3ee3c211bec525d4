"""Entropy models that no file has: `python -m diffusion_codec.evaluation.other_priors --runs FOLDER`.

They and the lattice that files have learn from the same crops in as many steps with one configuration. They are
measured by information content in real numbers: attention in floats gives no two machines the same probabilities.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor, nn

from diffusion_codec import datasets
from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.entropy.fixed_point import ACTIVATION_BITS, ACTIVATION_LIMIT, on_grid, real_valued
from diffusion_codec.entropy.model import CHANNELS, HYPER_RADIUS, EntropyModel, SideInformation
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.entropy_models import LAMBDAS
from diffusion_codec.evaluation.learned import latents_of, quantised
from diffusion_codec.evaluation.tables import keep, stored
from diffusion_codec.evaluation.transformer_prior import TransformerPrior
from diffusion_codec.training.codec import CodecConfig, CodecModel, CodecRecipe, Crops
from diffusion_codec.training.configuration import read_config
from diffusion_codec.training.entropy_models import SHIPPED, VARIANTS
from diffusion_codec.training.export import averaged_weights
from diffusion_codec.training.latents import photos_with_latents
from diffusion_codec.training.loop import train
from diffusion_codec.training.photos import LatentCrops

HYPER_CHANNELS = 4


class HyperLattice(EntropyModel):
    """A lattice over a hyperprior whose tables learn from what is coded, rounded values.

    Args:
        told: whether alpha and t decide how finely the summary is rounded, and its probabilities; else neither the
            network that makes it nor its tables know them, as in files of `paper-2024`.
    """

    def __init__(self, told: bool):
        super().__init__(hyper_channels=HYPER_CHANNELS, **VARIANTS[SHIPPED])
        features, values = 2 * CHANNELS + 2, 2 * HYPER_RADIUS + 1
        self.log_gain = nn.Linear(features, HYPER_CHANNELS) if told else None
        self.log_odds = nn.Linear(features, HYPER_CHANNELS * values) if told else None
        for parameter in (*_parameters(self.log_gain), *_parameters(self.log_odds)):
            nn.init.zeros_(parameter)

    def bits(
        self, z: Tensor, side: SideInformation, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`EntropyModel.bits`, but the hyperprior's bits are those of rounded values.

        Its analysis gets the gradient of uniform noise in place of rounding.
        """
        assert self.hyperprior is not None
        gain, logits = self._told(side.features().flatten(1).to(z.dtype))
        h = (self.hyperprior.analyse(self.unit(z, side)) * gain).clamp(-HYPER_RADIUS, HYPER_RADIUS)
        noise = torch.rand(h.shape, generator=generator).to(h.device) - 0.5
        h_hat = h + (h.round() - h).detach()
        log_p = logits.log_softmax(-1) / torch.log(torch.tensor(2.0))
        noisy = _interpolated_bits(log_p.detach(), (h + noise).clamp(-HYPER_RADIUS, HYPER_RADIUS))
        hyper_bits = _interpolated_bits(log_p, h_hat.detach()) + noisy - noisy.detach()
        told = on_grid(h_hat / gain, ACTIVATION_BITS, ACTIVATION_LIMIT)
        features = self.hyperprior.synthesise(told, (z.shape[-2], z.shape[-1]))
        return self.latent_bits(z, side, features), hyper_bits

    def _told(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """How much finer the summary is rounded, (N or 1, C, 1, 1), and its logits, (N, C, values)."""
        assert self.hyperprior is not None
        logits = self.hyperprior.logits.expand(len(known), -1, -1)
        if self.log_gain is None or self.log_odds is None:
            return torch.ones(1, HYPER_CHANNELS, 1, 1, device=known.device), logits
        odds = self.log_odds(known).reshape(logits.shape)
        return torch.exp2(self.log_gain(known))[..., None, None], logits + odds


def _parameters(layer: nn.Module | None) -> Iterator[Tensor]:
    yield from () if layer is None else layer.parameters()


def _interpolated_bits(log_p: Tensor, h: Tensor) -> Tensor:
    """-log2 p of h (N, C, h, w) under tables log2 p (N, C, values) read linearly; (N,)."""
    position = (h + HYPER_RADIUS).flatten(2)
    low = position.detach().floor().long().clamp(0, 2 * HYPER_RADIUS - 1)
    return -torch.lerp(log_p.gather(2, low), log_p.gather(2, low + 1), position - low).sum((1, 2))


Prior = EntropyModel | TransformerPrior
PRIORS: dict[str, Callable[[], Prior]] = {
    "lattice": lambda: EntropyModel(**VARIANTS[SHIPPED]),
    "wide lattice": lambda: EntropyModel(width=96, **VARIANTS[SHIPPED]),
    "transformer": TransformerPrior,
    "hyperprior": lambda: HyperLattice(told=False),
    "hyperprior, told": lambda: HyperLattice(told=True),
}
"""Name -> an untrained one. The wide lattice has more parameters than the transformer."""


class PriorRecipe(CodecRecipe):
    """The rate alone, of any prior."""

    def __init__(self, config: CodecConfig, backbone: Backbone, crops: Crops, prior: Callable[[], Prior]):
        super().__init__(config, backbone, crops)
        self.model.entropy = prior()  # type: ignore[assignment]


def trained(
    config: CodecConfig, backbone: Backbone, crops: Crops, prior: Callable[[], Prior], run: Path
) -> CodecModel:
    """The prior after a run of ``config``, its moving average, with the untrained P_phi; a run found there goes on."""
    recipe = PriorRecipe(config, backbone, crops, prior)
    train(recipe, run)
    averaged_weights([run], recipe.model)
    return recipe.model


@torch.inference_mode()
def measure(model: CodecModel, latents: Mapping[str, Tensor], lambdas: list[float]) -> pd.DataFrame:
    """Information content, in real numbers, of the integers that the model's P_phi makes; means over pictures.

    Columns: parameters (of the prior), lambda, hyper_bpp, bpp (the hyper stream among them).
    """
    rows = []
    for lambda_ in lambdas:
        for y in latents.values():
            z_hat, side = quantised(model.parameter_estimation, y, lambda_)
            area = z_hat[0].numel() * STRIDE**2
            with real_valued():
                latent, hyper = (float(part) / area for part in model.entropy.bits(z_hat[None].float(), side))
            rows.append({"lambda": lambda_, "hyper_bpp": hyper, "bpp": latent + hyper})
    table = pd.DataFrame(rows).groupby("lambda", as_index=False).mean().round(5)
    table.insert(0, "parameters", sum(p.numel() for p in model.entropy.parameters()))
    return table


def main(
    runs: Annotated[Path, typer.Option(help="Folder of the runs; those found there are continued.")],
    config: Annotated[str, typer.Option(help="Of the entropy recipe, or a YAML file.")] = "others",
    photos: Annotated[Path | None, typer.Option(help="Folder of training photographs.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/entropy_models_other.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = 4,
) -> None:
    """Train every prior, and count its bits of the same integers."""
    whole = (config, photos, dataset, limit) == ("others", None, "kodak", 4)
    target = stored("entropy_models_other.csv", out, whole=whole)
    settings = read_config("entropy", config, CodecConfig)
    backbone = Backbone.from_pretrained("mini")
    _, seen = photos_with_latents(photos, settings.photos_limit, backbone, runs / "cache")
    crops = LatentCrops(None, seen, settings.crop)
    pictures = datasets.load(dataset, limit)
    latents = latents_of(backbone, {item.id: item.pixels() for item in pictures})
    tables = {
        name: measure(
            trained(settings, backbone, crops, prior, runs / name.replace(", ", "-").replace(" ", "-")),
            latents,
            LAMBDAS,
        )
        for name, prior in PRIORS.items()
    }
    table = pd.concat(tables, names=["prior"]).reset_index("prior")
    keep(table, pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
