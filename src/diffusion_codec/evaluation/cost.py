"""``python -m diffusion_codec.evaluation.cost``: operations of Stable Diffusion's stages, and what the full work takes.

Operations are counted, on tensors without data: two for each multiplication with its addition, in convolutions and
matrix products. Hours follow from them and from an assumed speed, which is said in every row: estimates, not measured.
"""

import csv
import io
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, UNet2DConditionModel

from diffusion_codec import fetch
from diffusion_codec.backbone.random_model import SHAPES, TOKENS
from diffusion_codec.errors import in_one_line
from diffusion_codec.evaluation import complexity
from diffusion_codec.files import write_atomically

PEAK, UTILISATION = 312e12, 0.35
"""Operations a second: an A100's in bfloat16, and the part of them that such networks are assumed to reach."""

SPEED_UP = 0.9 * 8
"""Of eight GPUs over one: gradients of half a million parameters are exchanged, which costs little."""

CROP, BATCH, RATE_ONLY_BATCH = 256, 8, 64
STEPS, RATE_ONLY_STEPS = 300_000, 20_000
IMAGES, SIDE, RATES, DENOISING_STEPS = 30_000, 512, 8, 3

app = typer.Typer(add_completion=False)


def operations(shape: str, width: int, height: int) -> dict[str, int]:
    """Operations of E, of one denoising step and of D for one picture; sides are multiples of 64."""
    chosen = SHAPES[shape]
    rows, columns = height // 8, width // 8
    with torch.device("meta"):
        vae, unet = AutoencoderKL(**chosen.vae), UNet2DConditionModel(**chosen.unet)
        picture, latent = torch.empty(1, 3, height, width), torch.empty(1, 4, rows, columns)
        prompt = torch.empty(1, TOKENS, int(chosen.unet["cross_attention_dim"]))
        t = torch.empty(1)
    return {
        "E": complexity.operations(lambda: vae.encode(picture)),
        "one denoising step": complexity.operations(lambda: unet(latent, t, prompt)),
        "D": complexity.operations(lambda: vae.decode(latent)),
    }


def stage_rows(shape: str) -> list[dict[str, object]]:
    """Tera-operations of each stage at three sizes."""
    rows = []
    for width, height in ((256, 256), (512, 512), (768, 512)):
        counted = operations(shape, width, height)
        row: dict[str, object] = {"picture": f"{width} x {height}"}
        row |= {stage: round(count / 1e12, 3) for stage, count in counted.items()}
        total = counted["E"] + DENOISING_STEPS * counted["one denoising step"] + counted["D"]
        rows.append(row | {f"there and back, {DENOISING_STEPS} steps": round(total / 1e12, 3)})
    return rows


def plan_rows(shape: str) -> list[dict[str, object]]:
    """Exa-operations and estimated hours of the paper's training and of an evaluation on COCO-30k.

    A training step passes forward through all and back through denoiser and decoder to P_phi; the frozen weights have
    no gradients of their own, so the way back costs as much as the way there.
    """
    crop, picture = operations(shape, CROP, CROP), operations(shape, SIDE, SIDE)
    one = crop["E"] + 2 * (crop["one denoising step"] + crop["D"])
    coded = picture["E"] + DENOISING_STEPS * picture["one denoising step"] + picture["D"]
    work = {
        f"entropy model alone, {RATE_ONLY_STEPS} steps of {RATE_ONLY_BATCH} crops": RATE_ONLY_STEPS
        * RATE_ONLY_BATCH
        * crop["E"],
        f"P_phi and entropy model, {STEPS - RATE_ONLY_STEPS} steps of {BATCH} crops": (
            STEPS - RATE_ONLY_STEPS
        )
        * BATCH
        * one,
        f"COCO-30k, {RATES} rates, {DENOISING_STEPS} steps, {SIDE} x {SIDE}, without metrics": IMAGES
        * RATES
        * coded,
    }
    return [_plan_row(name, count) for name, count in work.items()] + [_plan_row("all", sum(work.values()))]


def _plan_row(name: str, count: int) -> dict[str, object]:
    hours = count / (PEAK * UTILISATION) / 3600
    return {
        "work": name,
        "exa-operations": round(count / 1e18, 3),
        "hours, 1 GPU": round(hours, 1),
        "hours, 8 GPUs": round(hours / SPEED_UP, 1),
        "assumed": f"{UTILISATION:.0%} of {PEAK / 1e12:.0f} tera-operations a second",
    }


@app.command()
def cost(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "stable-diffusion-2",
    save: Annotated[bool, typer.Option("--save", help="Write data/results/cost_*.csv.")] = False,
) -> None:
    """Count and estimate."""
    for name, rows in (("stages", stage_rows(shape)), ("plan", plan_rows(shape))):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        typer.echo(text.getvalue())
        if save:
            path = fetch.repository_root() / "data" / "results" / f"cost_{name}.csv"
            write_atomically(path, text.getvalue().encode(), force=True)


if __name__ == "__main__":
    with in_one_line():
        app()
