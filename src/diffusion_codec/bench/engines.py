"""``python -m diffusion_codec.bench.engines``: ways to run the decoder, their seconds and what they do to the pixels.

The first row is the decoder as diffusers runs it; every other one is judged by its ratio and by the difference of the
pixels. Each runs in a fresh process, on the latent of the same photograph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from shutil import which
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from diffusion_codec.backbone import Backbone, RunOptions
from diffusion_codec.bench.shared import (
    HEIGHT,
    WIDTH,
    in_fresh_process,
    photograph,
    pictured,
    timed,
    write_record,
)

REPEATS = 5
Decode = Callable[[Tensor], Tensor]

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Engine:
    """Seconds of the first call and median of the later ones; pixels against the first engine's, in levels of 255."""

    engine: str
    first: float
    seconds: float
    rms: float
    largest: float


def _planar() -> Decode:
    backbone = Backbone.from_pretrained().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    decode: Decode = backbone.decode
    return decode


def _openvino(precision: str) -> Decode:
    import openvino

    backbone = Backbone.from_pretrained()
    example = torch.zeros(1, 4, HEIGHT // 8, WIDTH // 8)
    model = openvino.convert_model(backbone.vae.decoder, example_input=example)
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(model, "CPU", options)
    factor = backbone.scaling_factor
    return lambda y: torch.from_numpy(np.array(compiled((y / factor).numpy())[0]))


ENGINES: dict[str, Callable[[], Decode]] = {
    "float32": lambda: Backbone.from_pretrained().decode,
    "float32, channels first": _planar,
    "bfloat16": lambda: Backbone.from_pretrained(run=RunOptions("bfloat16")).decode,
    "compiled, float32": lambda: Backbone.from_pretrained(run=RunOptions(compiled=True)).decode,
    "compiled, bfloat16": lambda: Backbone.from_pretrained(run=RunOptions("bfloat16", compiled=True)).decode,
    "OpenVINO, float32": lambda: _openvino("f32"),
    "OpenVINO, bfloat16": lambda: _openvino("bf16"),
}


def here(name: str) -> bool:
    """Whether this machine has what an engine needs: a C++ compiler, or the package openvino."""
    if name.startswith("compiled"):
        return which("g++") is not None or which("clang++") is not None
    return not name.startswith("OpenVINO") or find_spec("openvino") is not None


def measure(name: str, y: np.ndarray, repeats: int) -> tuple[float, float, np.ndarray]:
    """Seconds of the first call, median of ``repeats`` more, and the pixels in levels of 255, not rounded."""
    decode, latent = ENGINES[name](), torch.from_numpy(y)
    with torch.inference_mode():
        x, first, seconds = timed(lambda: decode(latent), repeats)
    levels: np.ndarray = ((x + 1) * 127.5).clamp(0, 255).numpy()
    return first, seconds, levels


def compare(width: int, height: int, repeats: int) -> list[Engine]:
    """Every engine there is, on the latent of the same photograph."""
    pixels = torch.from_numpy(np.array(photograph(width, height))).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        y = Backbone.from_pretrained().encode(pixels).numpy()
    rows, reference = [], None
    for name in filter(here, ENGINES):
        first, seconds, levels = in_fresh_process(measure, name, y, repeats)
        reference = levels if reference is None else reference
        apart = np.abs(levels - reference)
        rms = float(np.sqrt((apart**2).mean()))
        rows.append(Engine(name, first, seconds, rms, float(apart.max())))
    return rows


@app.command()
def bench(
    smoke: Annotated[bool, typer.Option("--smoke", help="A tiny picture, once.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Write data/results/bench_engines.json.")] = False,
) -> None:
    """Measure all engines on one latent."""
    width, height, repeats = (64, 48, 1) if smoke else (WIDTH, HEIGHT, REPEATS)
    rows = compare(width, height, repeats)
    for row in rows:
        typer.echo(
            f"{row.engine:36}{row.seconds:8.3f} s{row.seconds / rows[0].seconds:8.2f} x   first {row.first:6.2f} s   "
            f"pixels rms {row.rms:.4f}, at most {row.largest:.3f}"
        )
    if save:
        about = pictured(width, height, repeats=repeats)
        typer.echo(f"Written: {write_record('bench_engines', 'engines', rows, about)}")


if __name__ == "__main__":
    app()
