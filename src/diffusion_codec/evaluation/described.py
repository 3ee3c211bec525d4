"""Does a prompt help? `python -m diffusion_codec.evaluation.described --runs FOLDER`.

A foundation model can be told what a picture shows; the paper leaves open what its model is told. `mini` reads no text.
So its denoiser is trained on to read a description instead: the first principal components of what an Inception network
makes of the whole original, which no decoder has and whose bits nobody counts. What it gains by them is compared with
what as many steps without descriptions bring, with another picture's description, and with guidance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from diffusion_codec import datasets, metrics, quantization
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import DEFAULT_STEPS
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.entropy.model import CHANNELS
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation.codecs import Pixels
from diffusion_codec.evaluation.tables import keep, stored
from diffusion_codec.metrics import inception
from diffusion_codec.pixels import to_pixels_like, to_signed
from diffusion_codec.training.configuration import read_config
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.denoiser_study import quantised
from diffusion_codec.training.export import averaged_weights
from diffusion_codec.training.latents import photos_with_latents
from diffusion_codec.training.loop import train

NUMBERS = 32
"""Of a description."""
LEFT_OUT = 0.2
"""How often the run with descriptions does without, so that it can be asked either way."""
GUIDANCE = (2.0, 4.0)
TIMESTEPS = (100, 200, 300, 400)
MEASURES = ("psnr", "lpips-alex")

Descriptions = dict[str, Tensor]
"""Picture -> description, (1, 1, :data:`NUMBERS`), shaped as the embedding of a prompt of one token."""


class DescribedDenoiser(UNet2DConditionModel):  # type: ignore[misc]
    """A denoiser whose prompt, (N, 1, numbers), is added to what it is told of t, as classes are; zeros say nothing.

    ``guidance`` w is classifier-free guidance (Ho and Salimans 2022): what the description changes counts w times.
    """

    guidance = 1.0

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        """The prediction for ``sample``, (N, 4, h, w), as a tuple; ``return_dict`` is False."""
        assert not return_dict
        told = self._told(sample, timestep, encoder_hidden_states)
        if self.guidance == 1:
            return (told,)
        untold = self._told(sample, timestep, torch.zeros_like(encoder_hidden_states))
        return (torch.lerp(untold, told, self.guidance),)

    def _told(self, sample: Tensor, timestep: Tensor, prompt: Tensor) -> Tensor:
        predicted: Tensor = super().forward(
            sample, timestep, prompt, class_labels=prompt[:, 0], return_dict=False
        )[0]
        return predicted


def taught_to_read(denoiser: UNet2DConditionModel, numbers: int = NUMBERS) -> DescribedDenoiser:
    """A copy of ``denoiser`` that can be given a description, and makes nothing of it yet."""
    reads = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": numbers}
    # diffusers would set what this key names back to its default
    known = {key: value for key, value in denoiser.config.items() if key != "_use_default_values"}
    copy: DescribedDenoiser = DescribedDenoiser.from_config(known | reads)
    copy.load_state_dict(denoiser.state_dict(), strict=False)
    last: Any = copy.class_embedding
    nn.init.zeros_(last.linear_2.weight)
    nn.init.zeros_(last.linear_2.bias)
    return copy


class DescribedRecipe(DenoiserRecipe):
    """A denoiser trained on, told the description of the photograph that a crop is of.

    Args:
        latents: (4 + numbers, h, w) each: the description as constant planes, so that a crop brings it along.
        left_out: how often nothing is told.
    """

    def __init__(
        self, config: DenoiserConfig, latents: list[Tensor], denoiser: UNet2DConditionModel, left_out: float
    ):
        super().__init__(config, latents)
        self.left_out = left_out
        self.model: DescribedDenoiser = taught_to_read(denoiser, len(latents[0]) - CHANNELS).to(
            memory_format=torch.channels_last
        )

    def prompted(self, drawn: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents, and descriptions, zeros where nothing is told."""
        told = torch.rand(len(drawn), 1, generator=generator) >= self.left_out
        return drawn[:, :CHANNELS], (drawn[:, CHANNELS:, 0, 0] * told)[:, None]


class Vocabulary:
    """From features to descriptions: the first principal components of ``features``, (N, width), of unit variance."""

    def __init__(self, features: Tensor, numbers: int = NUMBERS):
        self.mean = features.mean(0)
        _, spread, axes = torch.linalg.svd(features - self.mean, full_matrices=False)
        self.axes = axes[:numbers].T / (spread[:numbers] / len(features) ** 0.5)

    def describe(self, features: Tensor) -> Tensor:
        """(N, width) -> (N, numbers)."""
        described: Tensor = (features - self.mean) @ self.axes
        return described


def features_of(pictures: Iterable[Pixels]) -> Tensor:
    """What Inception makes of whole pictures, uint8 (H, W, 3) each: (N, 2048)."""
    return torch.cat([torch.from_numpy(inception.features(pixels[None])) for pixels in pictures])


def with_description(y: Tensor, description: Tensor) -> Tensor:
    """(4, h, w) and (numbers,) -> (4 + numbers, h, w): the description as constant planes."""
    return torch.cat([y.float(), description[:, None, None].expand(-1, *y.shape[1:])])


def trained_on(
    config: DenoiserConfig, latents: list[Tensor], backbone: Backbone, left_out: float, run: Path
) -> DescribedDenoiser:
    """``backbone``'s denoiser after a run of :class:`DescribedRecipe`; a run found there is continued."""
    recipe = DescribedRecipe(config, latents, backbone.unet, left_out)
    train(recipe, run)
    averaged_weights([run], recipe.model)
    return recipe.model


@dataclass(frozen=True)
class Way:
    """A denoiser (None: the one that ships), what it is told of the picture, and how strongly that counts."""

    denoiser: str
    told: str
    network: DescribedDenoiser | None
    description: Tensor
    guidance: float = 1.0

    def of(self, backbone: Backbone) -> Backbone:
        """``backbone`` asked in this way."""
        if self.network is None:
            return backbone
        self.network.guidance = self.guidance
        return Backbone(
            backbone.vae,
            self.network,
            backbone.schedule,
            self.description,
            prediction=backbone.prediction,
            name=backbone.name,
            latent_space=backbone.latent_space,
        )


def ways(reader: DescribedDenoiser, other: DescribedDenoiser, own: Tensor, anothers: Tensor) -> list[Way]:
    """All that are compared: ``other`` was trained without descriptions; ``own`` is the picture's description."""
    nothing, read = torch.zeros_like(own), "trained with descriptions"
    return [
        Way("as it ships", "nothing", None, nothing),
        Way("trained without descriptions", "nothing", other, nothing),
        Way(read, "nothing", reader, nothing),
        Way(read, "its description", reader, own),
        Way(read, "another's description", reader, anothers),
        *(Way(read, "its description", reader, own, guidance) for guidance in GUIDANCE),
    ]


@torch.inference_mode()
def measure(
    backbone: Backbone,
    reader: DescribedDenoiser,
    other: DescribedDenoiser,
    pictures: ImageDataset,
    descriptions: Descriptions,
) -> pd.DataFrame:
    """What each of :func:`ways` makes of latents quantised with dither at the step matched to t.

    Columns: image, t, denoiser, told, guidance, latent_mse (of the denoised latent), measures.
    """
    values = list(descriptions.values())
    anothers = dict(zip(descriptions, values[1:] + values[:1], strict=True))
    rows = []
    for item in pictures:
        pixels = item.pixels()
        y = backbone.encode(to_signed(pixels))
        for timestep in TIMESTEPS:
            t = torch.tensor([float(timestep)])
            y_hat = quantised(y, quantization.matched_step(t), dither=True)
            for way in ways(reader, other, descriptions[item.id], anothers[item.id]):
                y_0 = way.of(backbone).denoise(y_hat, t, DEFAULT_STEPS)
                decoded = to_pixels_like(backbone.decode(y_0), pixels)
                row = {"image": item.id, "t": timestep, "denoiser": way.denoiser, "told": way.told}
                row |= {"guidance": way.guidance, "latent_mse": round(float((y_0 - y).square().mean()), 6)}
                rows.append(row | {m: round(metrics.get(m)(pixels, decoded), 5) for m in MEASURES})
    return pd.DataFrame(rows)


def main(
    runs: Annotated[Path, typer.Option(help="Folder of the two runs; those found there are continued.")],
    config: Annotated[str, typer.Option(help="Of the denoiser recipe, or a YAML file.")] = "described",
    photos: Annotated[Path | None, typer.Option(help="Folder of training photographs.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/denoisers_described.csv.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.")] = 8,
) -> None:
    """Train the denoiser on with descriptions of the pictures and without, and compare what they make of latents."""
    whole = (config, photos, dataset, limit) == ("described", None, "kodak", 8)
    target = stored("denoisers_described.csv", out, whole=whole)
    settings = read_config("denoiser", config, DenoiserConfig)
    backbone = Backbone.from_pretrained("mini")
    seen, latents = photos_with_latents(photos, settings.photos_limit, backbone, runs / "cache")
    features = features_of(photo.permute(1, 2, 0).numpy() for photo in seen)
    vocabulary = Vocabulary(features)
    described = list(map(with_description, latents, vocabulary.describe(features)))
    reader, other = (
        trained_on(settings, described, backbone, left_out, runs / name)
        for name, left_out in (("with", LEFT_OUT), ("without", 1.0))
    )
    pictures = datasets.load(dataset, limit)
    told = vocabulary.describe(features_of(item.pixels() for item in pictures))[:, None, None]
    names = [item.id for item in pictures]
    table = measure(backbone, reader, other, pictures, dict(zip(names, told, strict=True)))
    keep(table, pictures, target)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
