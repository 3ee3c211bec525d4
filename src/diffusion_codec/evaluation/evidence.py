"""`python -m diffusion_codec.evaluation.evidence`: measure what claims need and no sweep brings, for the ledger.

C1: the timesteps that files begin at. C2: a short real training, with the backbone's tensors compared before and
after. C5: sizes of real files over the whole range of lambda. C9: the rounding error's moments and spectrum. About
three minutes on one core.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console

from diffusion_codec import bitstream, codec_weights, datasets, fetch
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec
from diffusion_codec.errors import DiffusionCodecError
from diffusion_codec.evaluation import learned, noise
from diffusion_codec.evaluation.claims import Evidence, write_evidence
from diffusion_codec.evaluation.codecs import Pixels
from diffusion_codec.evaluation.seal import results_folder
from diffusion_codec.evaluation.study import STANDARD_BITRATES

MADE = "make evidence"
QUALITIES = tuple(range(0, 101, 5))
STEPS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
IMAGES = 4
TRAINING_STEPS = 3

app = typer.Typer(add_completion=False)


def frozen_backbone(backbone: Backbone, weights: codec_weights.CodecWeights, steps: int) -> Evidence:
    """C2: how many tensors of the backbone differ after training steps of the codec's recipe."""
    from diffusion_codec.training import short_run

    before = _tensors(backbone)
    data = short_run.training_data("sample", backbone, 64)
    config = short_run.short_config(weights, steps, 2, 64, 0)
    with tempfile.TemporaryDirectory() as folder:
        path, _ = short_run.short_run(config, backbone, data.crops, weights, Path(folder))
        learned_something = codec_weights.load(path).fingerprint != weights.fingerprint
    after = _tensors(backbone)
    changed = sum(not torch.equal(before[name], after[name]) for name in before)
    said = "changed" if learned_something else "did not change"
    return Evidence(
        value=float(changed),
        protocol=f"backbone {backbone.name}, {len(before)} tensors compared bit for bit before and after "
        f"{steps} steps of the codec's recipe, in which the codec's own weights {said}",
        files=("claims/C2.json",),
        made=MADE,
    )


def _tensors(backbone: Backbone) -> dict[str, torch.Tensor]:
    parts = {"vae": backbone.vae, "unet": backbone.unet}
    return {
        f"{p}.{k}": v.detach().clone() for p, module in parts.items() for k, v in module.state_dict().items()
    }


def way_travelled(codec: Codec, pictures: Mapping[str, Pixels], bitrates: Sequence[float]) -> pd.DataFrame:
    """C1: t in the header of the best file of each picture at each rate; columns image, target_bpp, bpp, timestep."""
    rows = []
    for name, pixels in pictures.items():
        analysis, area = codec.analyse(pixels), pixels.shape[0] * pixels.shape[1]
        for rate in bitrates:
            data = codec.compress_to_size(analysis, int(rate * area / 8)).data
            row = {"image": name, "target_bpp": rate, "bpp": round(8 * len(data) / area, 5)}
            rows.append(row | {"timestep": bitstream.read(data).header.timestep})
    return pd.DataFrame(rows)


def rates_over_lambda(table: pd.DataFrame, dataset: str) -> Evidence:
    """C5: how many steps of lambda make the file larger; the protocol tells the widest gap between sizes."""
    ordered = table.sort_values(["image", "lambda_"])
    sizes = [group["bytes"].to_numpy(float) for _, group in ordered.groupby("image", sort=False)]
    rises = np.concatenate([np.diff(row) > 0 for row in sizes])
    gap = max(float((row[1:] / row[:-1]).max()) for row in sizes)
    bpp = table["bpp"]
    return Evidence(
        value=float(rises.mean()),
        protocol=f"{len(sizes)} photographs of {dataset}, {table['lambda_'].nunique()} values of lambda from "
        f"{table['lambda_'].min():g} to {table['lambda_'].max():g}: {bpp.min():.3f} to {bpp.max():.3f} bits per "
        f"pixel; no step makes a file more than {gap:.2f} times as large",
        files=("claims/C5.csv",),
        made=MADE,
    )


def noise_like(latents: list[torch.Tensor], dataset: str) -> tuple[Evidence, pd.DataFrame]:
    """C9: the largest rounding step up to which the error is like noise, and the statistics."""
    statistics = noise.error_statistics(latents, list(STEPS))
    verdict, dithered = (noise.verdict(statistics, kind) for kind in ("rounding", "dithered"))
    spread = float(torch.stack([y.std((1, 2)) for y in latents]).mean())
    limits = ", ".join(f"{name} within {bound:g}" for name, bound in noise.CRITERIA.items())
    band = noise.strongest_band(statistics, "rounding", verdict["holds_up_to"])
    evidence = Evidence(
        value=float(verdict["holds_up_to"] or 0.0),
        protocol=f"latents of {len(latents)} photographs of {dataset} (spread {spread:.2f}), steps {STEPS[0]:g} to "
        f"{STEPS[-1]:g}; {limits} (flatness: geometric over arithmetic mean of {noise.SPECTRUM_BINS} bands of "
        f"frequency; the strongest has {band:.2f} times the power of white noise there); with dither it holds up to "
        f"{dithered['holds_up_to'] or 0:g}",
        files=("claims/C9.csv",),
        made=MADE,
    )
    return evidence, statistics


@app.command()
def main(
    out: Annotated[Path | None, typer.Option(help="Folder of results; data/results by default")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="One photograph, into build/smoke/.")] = False,
) -> None:
    """Measure the evidence for C1, C2, C5 and C9."""
    console = Console(stderr=True)
    folder = out or (fetch.repository_root() / "build/smoke" if smoke else results_folder())
    try:
        photos = datasets.load("sample" if smoke else "kodak", 1 if smoke else IMAGES)
        codec = Codec.from_pretrained()
        pictures = {item.id: item.pixels() for item in photos}
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        way = way_travelled(codec, pictures, STANDARD_BITRATES)
        way.to_csv(folder / "claims" / "C1.csv", index=False)
        write_evidence("C2", frozen_backbone(codec.backbone, codec.weights, TRAINING_STEPS), folder)
        sizes = learned.rates(codec, pictures, QUALITIES)
        write_evidence("C5", rates_over_lambda(sizes, photos.name), folder)
        sizes.to_csv(folder / "claims" / "C5.csv", index=False)
        latents = [y[0] for y in learned.latents_of(codec.backbone, pictures).values()]
        found, statistics = noise_like(latents, photos.name)
        write_evidence("C9", found, folder)
        statistics.to_csv(folder / "claims" / "C9.csv", index=False)
    except DiffusionCodecError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(f"written: {folder / 'claims'}", markup=False)


if __name__ == "__main__":
    app()
