"""The choices the paper leaves open, each measured: `python -m diffusion_codec.evaluation.choices`.

One thing is changed at a time against `independent`, the weights that leave P_phi every freedom. Each choice makes the
best file it can of at most the bytes allowed; measures are means over those files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import pandas as pd
import torch
import typer
from torch import Tensor, nn

from diffusion_codec import bitstream, codec_weights, datasets, metrics, quantization
from diffusion_codec.backbone import Backbone, prompt, sources
from diffusion_codec.backbone.options import checked_device
from diffusion_codec.bitstream import Header
from diffusion_codec.codec import DEFAULT_STEPS, Analysis, Codec, UnreachableSizeError
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError, in_one_line
from diffusion_codec.evaluation.tables import stored
from diffusion_codec.files import write_atomically
from diffusion_codec.metrics.base import Pixels
from diffusion_codec.parameter_estimation import ParameterEstimation, Parameters
from diffusion_codec.schedule import STABLE_DIFFUSION

Change = Callable[[Parameters], Parameters]
MEASURES = ("psnr", "lpips-alex")
OTHERS = 4
"""Photographs of the embedded sample that a blind P_phi has seen."""
NO_TEXTS: Mapping[str, Tensor] = {}
RATES = (0.1, 0.05)
"""Bits per pixel that a file may take; the figures show the first."""


class Question(Protocol):
    """What belongs to an open question."""

    @property
    def question(self) -> str:
        """Its name in the table."""


Asked = TypeVar("Asked", bound=Question)


@dataclass(frozen=True)
class Choice:
    """One setting of one open question, the rest as trained with alpha and t independent of each other."""

    question: str
    name: str
    weights: str = "independent"
    change: Change | None = None
    steps: int = DEFAULT_STEPS
    dither_seed: int | None = None
    spacing: float = 1.0
    eta: float = 0.0
    towards_zero: float = 0.0
    blind: bool = False
    untrained: bool = False
    rounded: bool = False
    sampled: float = 0.0
    text: str = ""


class Respaced:
    """A backbone whose DDIM steps end at t (1 - i / steps)^power: closer together towards t = 0 for a power above 1.

    With ``eta`` above 0 each step but the last takes out more noise and adds new one (Song et al. 2021, 1: as DDPM).
    """

    def __init__(self, backbone: Backbone, power: float, eta: float = 0.0):
        self.backbone, self.power, self.eta = backbone, power, eta

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def denoise(self, y_hat: Tensor, t: Tensor, steps: int) -> Tensor:
        """As :meth:`Backbone.denoise`."""
        ends = [t * (1 - i / steps) ** self.power for i in range(steps + 1)]
        y, draw = y_hat, torch.Generator().manual_seed(0)
        for i, (now, then) in enumerate(pairwise(ends), 1):
            if self.eta and i < steps:
                sigma, wanted = (self.backbone.schedule.sigma_at(end.to(y.dtype)) for end in (now, then))
                added = self.eta * wanted * (1 - (wanted / sigma) ** 2).sqrt()
                kept = self.backbone.schedule.timestep_at((wanted**2 - added**2).sqrt())
                y = self.backbone.step(y, now, kept)
                y = y + added[:, None, None, None] * torch.randn(y.shape, generator=draw).to(y.device)
            else:
                y = self.backbone.step(y, now, then, last=i == steps)
        return y


class Shrinking(Codec):
    """A codec whose decoder puts each latent nearer to zero than the middle of its cell, by a part of the step."""

    towards_zero = 0.0

    def _dequantise(self, z_hat: Tensor, header: Header) -> tuple[Tensor, Tensor]:
        return super()._dequantise(z_hat.float() - self.towards_zero * z_hat.sign(), header)


def sampled(analysis: Analysis, deviation: float) -> Analysis:
    """With a sample of a posterior of this standard deviation, the same everywhere, in place of its mean."""
    noise = torch.randn(analysis.y.shape, generator=torch.Generator().manual_seed(0))
    return replace(analysis, y=analysis.y + deviation * noise.to(analysis.y.device))


class Changed(nn.Module):
    """P_phi whose answer is changed before it is used and stored."""

    def __init__(self, p_phi: nn.Module, change: Change):
        super().__init__()
        self.p_phi, self.change = p_phi, change

    def forward(self, y: Tensor, lambda_: Tensor) -> Parameters:
        """As :class:`diffusion_codec.parameter_estimation.ParameterEstimation`."""
        return self.change(self.p_phi(y, lambda_))


class Blind(nn.Module):
    """P_phi that does not look at the picture: for each lambda the mean of its answers for other ones."""

    def __init__(self, p_phi: nn.Module, others: Sequence[Tensor]):
        super().__init__()
        self.p_phi, self.others = p_phi, others

    def forward(self, _: Tensor, lambda_: Tensor) -> Parameters:
        """As :class:`diffusion_codec.parameter_estimation.ParameterEstimation`."""
        answers = [self.p_phi(y, lambda_) for y in self.others]
        alpha, beta, t = (torch.stack(values) for values in zip(*answers, strict=True))
        return Parameters(torch.exp2(alpha.log2().mean(0)), beta.mean(0), t.mean(0))


def shared_alpha(p: Parameters) -> Parameters:
    """One alpha for all channels: the geometric mean."""
    return p._replace(alpha=torch.exp2(p.alpha.log2().mean(1, keepdim=True)).expand_as(p.alpha))


def no_beta(p: Parameters) -> Parameters:
    """Without the offset."""
    return p._replace(beta=torch.zeros_like(p.beta))


def scaled_timestep(part: float) -> Change:
    """t for ``part`` of the noise level that matches the step's rounding error."""

    def change(p: Parameters) -> Parameters:
        step = torch.exp2(-p.alpha.log2().mean(1))
        return p._replace(t=quantization.matched_timestep(part * step))

    return change


def coarsest_timestep(p: Parameters) -> Parameters:
    """t for the noise level that matches the coarsest channel's step."""
    return p._replace(t=quantization.matched_timestep(1 / p.alpha.amin(1)))


def coarse_alpha(per_octave: int) -> Change:
    """alpha stored in ``per_octave`` steps an octave instead of 16."""

    def change(p: Parameters) -> Parameters:
        return p._replace(alpha=torch.exp2((p.alpha.log2() * per_octave).round() / per_octave))

    return change


def coarse_beta(per_step: int) -> Change:
    """beta stored in ``per_step`` levels a quantisation step instead of 256."""

    def change(p: Parameters) -> Parameters:
        return p._replace(beta=(p.beta * per_step).round() / per_step)

    return change


def coarse_timestep(apart: int) -> Change:
    """t stored as a multiple of ``apart`` instead of 1."""

    def change(p: Parameters) -> Parameters:
        return p._replace(t=(p.t / apart).round().clamp(1, 999 // apart) * apart)

    return change


CHOICES = (
    Choice("base", "independent"),
    Choice("analysis", "y with noise of deviation 0.05", sampled=0.05),
    Choice("analysis", "y with noise of deviation 0.2", sampled=0.2),
    Choice("gamma", "one alpha for all channels", change=shared_alpha),
    Choice("gamma", "no beta", change=no_beta),
    Choice("gamma", "blind: P_phi sees lambda alone", blind=True),
    Choice("gamma", "untrained P_phi", untrained=True),
    Choice("t", "tied: matched to the step", change=scaled_timestep(1.0)),
    Choice("t", "tied: to the coarsest channel", change=coarsest_timestep),
    Choice("t", "tied: 1.4 of the matched level", change=scaled_timestep(1.4)),
    Choice("t", "tied: 1.2 of the matched level", change=scaled_timestep(1.2)),
    Choice("t", "tied: 0.8 of the matched level", change=scaled_timestep(0.8)),
    Choice("t", "tied: 0.6 of the matched level", change=scaled_timestep(0.6)),
    Choice("t", "tied: matched, one DDIM step", change=scaled_timestep(1.0), steps=1),
    Choice("t", "tied: 0.8 of the matched level, one DDIM step", change=scaled_timestep(0.8), steps=1),
    Choice("quantisation", "dither, coder unaware", dither_seed=0),
    Choice("quantisation", "decoded a tenth nearer to zero", towards_zero=0.1),
    Choice("quantisation", "a tenth nearer to zero, no denoising", towards_zero=0.1, steps=0),
    Choice("steps", "no denoising", steps=0),
    Choice("steps", "1", steps=1),
    Choice("steps", "2", steps=2),
    Choice("steps", "5", steps=5),
    Choice("steps", "10", steps=10),
    Choice("steps", "3, the last ones shorter", spacing=2.0),
    Choice("steps", "3, the first ones shorter", spacing=0.5),
    Choice("steps", "3, half the noise drawn anew", eta=0.5),
    Choice("steps", "3, noise drawn anew (DDPM)", eta=1.0),
    Choice("side information", "alpha in 4 steps an octave", change=coarse_alpha(4)),
    Choice("side information", "alpha in whole octaves", change=coarse_alpha(1)),
    Choice("side information", "beta in 16 levels a step", change=coarse_beta(16)),
    Choice("side information", "t in multiples of 32", change=coarse_timestep(32)),
    Choice("text", "prompt: a photograph", text="a photograph"),
    Choice("text", "prompt: a sharp photograph, high quality", text="a sharp photograph, high quality"),
    Choice("variant", "paper-2024", weights="paper-2024"),
    Choice("variant", "paper-2025", weights="paper-2025"),
    Choice("variant", "paper-2025, dither of seed 1", weights="paper-2025", dither_seed=1),
    Choice("variant", "paper-2025, dither of seed 2", weights="paper-2025", dither_seed=2),
    Choice("variant", "paper-2025, rounded", weights="paper-2025", rounded=True),
    Choice("variant", "paper-2024, no denoising", weights="paper-2024", steps=0),
    Choice("variant", "paper-2025, no denoising", weights="paper-2025", steps=0),
)


def asked(options: Sequence[Asked], questions: Sequence[str]) -> list[Asked]:
    """Those of ``options`` that belong to these questions; all where none is named.

    Raises:
        BadInputError: a question that none of them asks.
    """
    known = list(dict.fromkeys(option.question for option in options))
    if unknown := [question for question in questions if question not in known]:
        raise BadInputError(f"no question {unknown[0]!r}; known: {', '.join(known)}")
    return [option for option in options if not questions or option.question in questions]


def merged(stored: Path, table: pd.DataFrame, keys: list[str], order: Sequence[str]) -> pd.DataFrame:
    """``table`` and the rows of a stored one that it does not have, sorted by ``keys``: names in the order given."""
    if stored.is_file():
        table = pd.concat([pd.read_csv(stored), table]).drop_duplicates(keys, keep="last")
    place = {name: number for number, name in enumerate(order)}

    def rank(column: pd.Series) -> pd.Series:
        return column.map(place) if column.isin(place).all() else column

    return table.sort_values(keys, key=rank)


def prepared(
    choice: Choice,
    backbone: Backbone,
    weights: CodecWeights,
    others: Sequence[Tensor],
    texts: Mapping[str, Tensor] = NO_TEXTS,
) -> Codec:
    """The codec that makes this choice.

    ``others`` are latents of pictures that a blind P_phi may know, ``texts`` the embeddings of prompts.
    """
    weights = replace(weights, dithered=weights.dithered and not choice.rounded)
    codec = Shrinking(backbone.prompted(texts[choice.text]) if choice.text else backbone, weights)
    codec.towards_zero = choice.towards_zero
    if choice.untrained:
        codec.p_phi = ParameterEstimation().eval().requires_grad_(False)
    if choice.blind:
        codec.p_phi = Blind(codec.p_phi, others)  # type: ignore[assignment]
    if choice.change is not None:
        codec.p_phi = Changed(codec.p_phi, choice.change)  # type: ignore[assignment]
    if choice.spacing != 1 or choice.eta:
        codec.backbone = Respaced(codec.backbone, choice.spacing, choice.eta)  # type: ignore[assignment]
    return codec


Seen = list[tuple[Pixels, Analysis]]


def analysed(codec: Codec, pictures: ImageDataset) -> Seen:
    """Each picture with what every codec on the same backbone starts from."""
    pixels = [item.pixels() for item in pictures]
    return [(picture, codec.analyse(picture)) for picture in pixels]


def latents_of_others(codec: Codec) -> list[Tensor]:
    """What a blind P_phi has seen."""
    return [analysis.y for _, analysis in analysed(codec, datasets.load("sample", OTHERS))]


def noise_declared(data: bytes) -> float:
    """sigma_t of the t in a file over the rounding error's deviation, step / sqrt(12): 1 is matched.

    The step is the geometric mean over channels.
    """
    header = bitstream.read(data).header
    alpha = quantization.alpha_from_index(torch.tensor(header.alpha))
    sigma = STABLE_DIFFUSION.sigma_at(torch.tensor(float(header.timestep)))
    return float(sigma * torch.exp2(alpha.log2().mean()) * 12**0.5)


def measure(choice: Choice, codec: Codec, pictures: Seen, rates: Sequence[float]) -> dict[str, float]:
    """Means over pictures of real bits per pixel, the noise declared and the measures, for files of at most each rate.

    NaN where a picture cannot be had that small.
    """
    rows = []
    for pixels, analysis in pictures:
        row: dict[str, float] = {}
        area = pixels.shape[0] * pixels.shape[1]
        if choice.sampled:
            analysis = sampled(analysis, choice.sampled)
        for rate in rates:
            limit = int(rate * area / 8)
            try:
                data = codec.compress_to_size(analysis, limit, dither_seed=choice.dither_seed).data
            except UnreachableSizeError:
                continue
            decoded = codec.decompress(data, choice.steps).pixels
            row |= {f"{name} at {rate:g}": metrics.get(name)(pixels, decoded) for name in MEASURES}
            row |= {f"bpp at {rate:g}": 8 * len(data) / area, f"declared at {rate:g}": noise_declared(data)}
        rows.append(row)
    columns = [f"{name} at {rate:g}" for name in (*MEASURES, "bpp", "declared") for rate in rates]
    return dict(pd.DataFrame(rows, columns=columns).mean(skipna=False))


def compare(
    backbone: Backbone,
    weights: Mapping[str, CodecWeights],
    pictures: ImageDataset,
    rates: Sequence[float] = RATES,
    options: Sequence[Choice] = CHOICES,
    texts: Mapping[str, Tensor] = NO_TEXTS,
) -> pd.DataFrame:
    """One row a choice whose weights and prompts are there: question, choice, steps, measures at each of ``rates``."""
    any_codec = Codec(backbone, next(iter(weights.values())))
    seen = analysed(any_codec, pictures)
    others = latents_of_others(any_codec)
    rows = []
    for choice in options:
        if choice.weights not in weights:
            typer.echo(f"no codec weights {choice.weights!r}: {choice.name} is left out", err=True)
            continue
        if choice.text and choice.text not in texts:
            typer.echo(f"{backbone.name} reads no text: {choice.name} is left out", err=True)
            continue
        codec = prepared(choice, backbone, weights[choice.weights], others, texts)
        row = {"question": choice.question, "choice": choice.name, "steps": choice.steps}
        rows.append(row | measure(choice, codec, seen, rates))
        typer.echo(f"{choice.question}: {choice.name}", err=True)
    return pd.DataFrame(rows).round(4)


def embeddings(backbone: Backbone, name: str, options: Sequence[Choice]) -> dict[str, Tensor]:
    """Embeddings of the prompts among ``options``, by the text encoder of ``name``; none where it reads no text."""
    wanted = {choice.text for choice in options if choice.text}
    if not wanted or not backbone.reads_text:
        return {}
    encoder = sources.find(name).text_encoder()
    return {text: prompt.compute(encoder, text) for text in sorted(wanted)}


def main(
    out: Annotated[
        Path | None, typer.Option(help="Table to write; default: data/results/codec_choices[_BACKBONE].csv.")
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(help="Only choices of this question; once for each. Other rows of the table are kept."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Evaluation data set.")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="Only the first images.", min=1)] = 4,
    backbone: Annotated[
        str, typer.Option(help="Name or folder; prompts are tried where it reads text.")
    ] = "mini",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Each open choice of the paper against its most general form, at equal rates (20 minutes of one core)."""
    of_backbone = "" if backbone == "mini" else f"_{Path(backbone).name}"
    target = stored(f"codec_choices{of_backbone}.csv", out, whole=(dataset, limit) == ("kodak", 4))
    options = asked(CHOICES, question or [])
    names = {choice.weights for choice in options}
    weights = {
        path.stem: codec_weights.load(path)
        for path in codec_weights.embedded_weights().parent.glob("*.safetensors")
        if path.stem in names
    }
    checked_device(device)
    pictures = datasets.load(dataset, limit)
    loaded = Backbone.from_pretrained(backbone, device)
    texts = embeddings(loaded, backbone, options)
    table = compare(loaded, weights, pictures, options=options, texts=texts)
    table.insert(0, "dataset", pictures.name)
    table = merged(target, table, ["dataset", "choice"], [choice.name for choice in CHOICES])
    typer.echo(table.to_string(index=False))
    write_atomically(target, table.to_csv(index=False).encode(), force=True)


if __name__ == "__main__":
    with in_one_line():
        typer.run(main)
