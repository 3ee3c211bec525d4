"""Model cards: how a backbone and the codec's weights were trained, and what the backbone measures on Kodak."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_codec import codec_weights, metrics
from diffusion_codec.backbone import Backbone
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError
from diffusion_codec.pixels import to_pixels_like, to_signed
from diffusion_codec.quantization import matched_step

TIMESTEPS = (20, 50, 100, 200, 300, 400)
OWN_PHOTOGRAPHS = (
    "`train-photos` of `data/manifest.toml`: short side 368 px or less, collected from BSDS500, COCO train, ImageNet, "
    "Sun-Hays and Urban100, for research use"
)
MEASURES = ("psnr", "lpips-alex", "lpips-squeeze")


@dataclass(frozen=True)
class RoundTrip:
    """Means over images of D(E(x)), ours and the teacher's, and the correlation of the two latents by channel."""

    ours: dict[str, float]
    teacher: dict[str, float]
    correlation: list[float]


@torch.inference_mode()
def round_trip(backbone: Backbone, dataset: ImageDataset, teacher: Any) -> RoundTrip:
    """PSNR and LPIPS without quantisation, beside the teacher's on the same images."""
    rows, ours, theirs = [], [], []
    for item in dataset:
        pixels = item.pixels()
        x = to_signed(pixels)
        y, y_teacher = backbone.encode(x), teacher.encode(x).latents
        pictures = backbone.decode(y), teacher.decode(y_teacher).sample
        decoded = [to_pixels_like(picture, pixels) for picture in pictures]
        rows.append([[metrics.get(name)(pixels, d) for name in MEASURES] for d in decoded])
        ours.append(y[0].flatten(1))
        theirs.append(y_teacher[0].flatten(1))
    means = [dict(zip(MEASURES, row, strict=True)) for row in np.mean(rows, 0).tolist()]
    pairs = zip(torch.cat(ours, 1).numpy(), torch.cat(theirs, 1).numpy(), strict=True)
    return RoundTrip(means[0], means[1], [float(np.corrcoef(a, b)[0, 1]) for a, b in pairs])


@torch.inference_mode()
def denoising(backbone: Backbone, dataset: ImageDataset, steps: int = 1) -> list[dict[str, float]]:
    """For each t: latents rounded at the matched step, decoded as they are and after ``steps`` DDIM steps."""
    table = []
    for timestep in TIMESTEPS:
        t = torch.tensor([float(timestep)])
        step = matched_step(t)
        rows = []
        for item in dataset:
            pixels = item.pixels()
            y = backbone.encode(to_signed(pixels))
            y_hat = step * (y / step).round()
            row = []
            for latent in (y_hat, backbone.denoise(y_hat, t, steps)):
                decoded = to_pixels_like(backbone.decode(latent), pixels)
                row += [metrics.get(name)(pixels, decoded) for name in MEASURES]
            rows.append(row)
        names = (*MEASURES, *(f"denoised {name}" for name in MEASURES))
        means = dict(zip(names, np.mean(rows, 0).tolist(), strict=True))
        table.append({"t": float(timestep), "step": float(step), **means})
    return table


def _training_table(history: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Part -> :func:`diffusion_codec.training.export.run_history`, as lines of Markdown."""
    lines = [
        "| part | steps | batch | crop | hours of computing | last losses |",
        "|---|---|---|---|---|---|",
    ]
    for part, run in history.items():
        config, losses = run["config"], ", ".join(f"{k} {v:.4f}" for k, v in run["losses"].items())
        lines.append(
            f"| {part} | {run['steps']} | {config['batch_size']} | {config['crop']} px | {run['hours']} | {losses} |"
        )
    return lines


def _known(runs: Iterable[Mapping[str, Any]], name: str) -> str:
    """What the runs recorded under ``name`` of their origin, each thing once."""
    found = dict.fromkeys(run.get("origin", {}).get(name, "not recorded") for run in runs)
    return "; ".join(found)


def _data(runs: Iterable[Mapping[str, Any]]) -> str:
    """The photographs of the runs, and of the project's own set what it is."""
    told = _known(runs, "photographs")
    own = "train-photos" in told
    return told + (f" ({OWN_PHOTOGRAPHS})" if own else "")


def model_card(
    folder: Path,
    trip: RoundTrip,
    table: list[dict[str, float]],
    dataset: ImageDataset,
    hardware: str,
    note: str,
) -> str:
    """The card as Markdown; every number is measured or read from ``training.json``."""
    history = json.loads((folder / "training.json").read_text())
    size = sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e6
    lines = [
        f"# {folder.name}: a small latent diffusion model that stands in for Stable Diffusion",
        "",
        "An `AutoencoderTiny` that learned Stable Diffusion 1.x's latents from TAESD, and a convolutional",
        "`UNet2DConditionModel` on Stable Diffusion's noise schedule, both trained from nothing.",
        f"Half precision, {size:.1f} MB in all. It is no foundation model: its numbers are its own.",
        "",
        "## Training",
        "",
        f"Hardware: {hardware}. Data: {_data(history.values())}.",
        "None of them is in an evaluation set that was at hand (exact hashes and small copies are compared).",
        "",
        *_training_table(history),
    ]
    lines += ["", note] if note else []
    lines += ["", f"## Measured on {dataset.name} ({len(dataset)} images), mean over images", ""]
    lines += [
        "Round trip without quantisation:",
        "",
        "| measure | this model | TAESD, its teacher |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {trip.ours[name]:.4g} | {trip.teacher[name]:.4g} |" for name in MEASURES]
    correlations = ", ".join(f"{value:.4f}" for value in trip.correlation)
    lines += ["", f"Correlation of the latents with the teacher's, channel by channel: {correlations}."]
    lines += [
        "",
        "Latents rounded at the step matched to t, decoded as they are and after one denoising step:",
        "",
    ]
    names = list(table[0])
    lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(f"{row[name]:.4g}" for name in names) + " |" for row in table]
    lines += ["", "Made by `diffusion-codec train card`.", ""]
    return "\n".join(lines)


def codec_card(folder: Path, history: Mapping[str, Mapping[str, Any]], note: str) -> str:
    """The card of the codec weights in ``folder`` as Markdown: their forms, and the runs behind each of them.

    Args:
        history: weights -> run -> :func:`diffusion_codec.training.export.run_history`.

    Raises:
        BadInputError: ``history`` tells of other weights than those in the folder.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if set(history) != set(files):
        raise BadInputError(
            f"weights in {folder}: {', '.join(files) or 'none'}; runs were named for {', '.join(history)}"
        )
    runs = [run for of_weights in history.values() for run in of_weights.values()]
    lines = [
        "# Weights of the codec: parameter estimation and entropy model",
        "",
        "They see nothing but latents of Stable Diffusion 1.x and serve every backbone of that latent space.",
        f"Trained on the frozen backbone {_known(runs, 'backbone')}; data: {_data(runs)}.",
        "What each form is worth: chapters *Beyond the paper* and *Rate and distortion* of the book.",
        "Made for photographs; the decoder they serve is generative, and what it shows is no evidence.",
        "",
        "| weights | fingerprint | kB | t | rounding | entropy model |",
        "|---|---|---|---|---|---|",
    ]
    for name, path in files.items():
        weights = codec_weights.load(path)
        form = weights.latent_coder.model.config
        hyperprior = f", hyperprior of {form['hyper_channels']} channels" if form["hyper_channels"] else ""
        row = (
            f"`{name}`",
            weights.fingerprint.hex(),
            f"{path.stat().st_size / 1000:.0f}",
            "tied to the step" if weights.variant == "tied" else "free of the step",
            "dithered" if weights.dithered else "plain",
            f"context: {form['context']}, {form['kernel']} x {form['kernel']}{hyperprior}",
        )
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "## Training", ""]
    lines += _training_table(
        {f"`{name}`, {run}": h for name, runs in history.items() for run, h in runs.items()}
    )
    lines += ["", note] if note else []
    lines += ["", "Made by `diffusion-codec train codec-card`.", ""]
    return "\n".join(lines)
