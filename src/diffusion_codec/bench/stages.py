"""``python -m diffusion_codec.bench.stages``: every stage of the codec on a large backbone, on a GPU or not.

Sizes x precisions x eager or compiled x batch sizes; for each the seconds of E, P_phi, the entropy coder, each
denoising step and D, the peak memory, and whether the symbols are those a CPU makes. One :meth:`Codec.compress` and
:meth:`Codec.decompress` comes first, is reported as it is, and warms up. One fresh process a precision and mode.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffusion_codec import bitstream
from diffusion_codec.backbone.options import run_options
from diffusion_codec.bench.shared import in_fresh_process, photograph, write_record
from diffusion_codec.codec import DEFAULT_STEPS, Codec, lambda_of
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.memory import peak_memory

QUALITY = 50.0
MODES = ("eager", "compiled")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Job:
    """What one process measures: all sizes and batches in one precision and mode."""

    backbone: str
    weights: str
    device: str
    precision: str
    mode: str
    sizes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    steps: int
    repeats: int
    low_memory: bool = False


@dataclass(frozen=True)
class Cell:
    """One line of the result.

    ``first`` are the seconds of the first compress and decompress of one picture, with the processor time both took
    (``cpu compress``, ``cpu decompress``); ``seconds`` the medians by stage for the whole batch, empty without repeats.
    ``peak_memory`` is the GPU's for a GPU, else the process's so far, in bytes.
    ``symbols_unlike_cpu`` counts latent symbols of the first picture that a CPU in float32 rounds otherwise.
    """

    width: int
    height: int
    precision: str
    mode: str
    batch: int
    load: float
    first: dict[str, float]
    seconds: dict[str, float]
    peak_memory: int
    file_bytes: int
    symbols: int
    symbols_decoded_alike: bool
    symbols_unlike_cpu: int


def measure(job: Job) -> list[Cell]:
    """Run ``job`` in this process."""
    run = run_options(job.precision, job.mode == "compiled", False, job.low_memory)
    started = time.perf_counter()
    codec = Codec.from_pretrained(job.backbone, job.weights, job.device, run)
    load = time.perf_counter() - started
    on_cpu = codec if job.device == "cpu" else Codec.from_pretrained(job.backbone, job.weights)
    cells = []
    for (width, height), batch in itertools.product(job.sizes, job.batches):
        pixels = photograph(width, height)
        _reset_peak(codec)
        marks = [time.process_time()]
        made = codec.compress(pixels, QUALITY)
        marks.append(time.process_time())
        decoded = codec.decompress(made.data, job.steps)
        marks.append(time.process_time())
        header = bitstream.read(made.data).header
        unlike = 0 if codec is on_cpu else _unlike(_symbols(codec, made.data), on_cpu, pixels)
        first = {f"compress {stage}": seconds for stage, seconds in made.seconds.items()}
        first |= {f"decompress {stage}": seconds for stage, seconds in decoded.seconds.items()}
        first |= {"cpu compress": marks[1] - marks[0], "cpu decompress": marks[2] - marks[1]}
        cells.append(
            Cell(
                width=width,
                height=height,
                precision=job.precision,
                mode=job.mode,
                batch=batch,
                load=load,
                first=first,
                seconds=stages(codec, pixels, made.data, float(header.timestep), job, batch),
                peak_memory=_peak(codec),
                file_bytes=len(made.data),
                symbols=4 * -(-width // 8) * -(-height // 8),
                symbols_decoded_alike=decoded.symbols_sha256 == made.symbols_sha256,
                symbols_unlike_cpu=unlike,
            )
        )
    return cells


@torch.inference_mode()
def stages(
    codec: Codec, pixels: np.ndarray, data: bytes, timestep: float, job: Job, batch: int
) -> dict[str, float]:
    """Median seconds of each stage for ``batch`` pictures at once; the entropy coder takes them one after another."""
    backbone, device = codec.backbone, codec.backbone.device
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    x = x.to(device).expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    lambda_ = torch.full((batch,), lambda_of(QUALITY), device=device)
    t = torch.full((batch,), timestep, device=device)
    file = bitstream.read(data)
    runs: list[dict[str, float]] = []
    for _ in range(job.repeats):
        seconds: dict[str, float] = {}

        def timed(name: str, call: Callable[[], Any], seconds: dict[str, float] = seconds) -> Any:
            started = time.perf_counter()
            result = call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name] = time.perf_counter() - started
            return result

        y: Tensor = timed("E", partial(backbone.encode, x))
        timed("P_phi", partial(codec.p_phi, y, lambda_))
        timed("entropy decoding", lambda: [codec.symbols(file) for _ in range(batch)])
        for i in range(job.steps):
            now, then = t * (1 - i / job.steps), t * (1 - (i + 1) / job.steps)
            y = timed(f"step {i + 1}", partial(backbone.step, y, now, then, last=i + 1 == job.steps))
        timed("D", partial(backbone.decode, y))
        runs.append(seconds)
    return {stage: median(run[stage] for run in runs) for stage in (runs[0] if runs else ())}


def _symbols(codec: Codec, data: bytes) -> Tensor:
    return codec.symbols(bitstream.read(data))


def _unlike(symbols: Tensor, on_cpu: Codec, pixels: np.ndarray) -> int:
    """Symbols that differ from those of a CPU's file of the same picture; all, if even alpha or beta differ."""
    other = _symbols(on_cpu, on_cpu.compress(pixels, QUALITY).data)
    return int((symbols != other).sum())


def _reset_peak(codec: Codec) -> None:
    if codec.backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(codec.backbone.device)


def _peak(codec: Codec) -> int:
    if codec.backbone.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(codec.backbone.device))
    return peak_memory()


def table(cells: list[Cell]) -> Table:
    """One row a cell, one column a stage."""
    names = list(dict.fromkeys(stage for cell in cells for stage in (cell.seconds or cell.first)))
    shown = Table("picture", "precision", "mode", "batch", *names, "peak", "bytes", box=None)
    for cell in cells:
        seconds = cell.seconds or cell.first
        shown.add_row(
            f"{cell.width} x {cell.height}",
            cell.precision,
            cell.mode,
            str(cell.batch),
            *(f"{seconds[name]:.3f} s" if name in seconds else "" for name in names),
            f"{cell.peak_memory / 2**30:.2f} GiB",
            str(cell.file_bytes),
        )
    return shown


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [tuple(int(side) for side in size.split("x")) for size in text.split(",")]
    except ValueError:
        raise BadInputError(f"sizes {text!r} are not understood; write 512x512,768x512") from None
    if any(len(pair) != 2 or min(pair) < 8 or any(side % 8 for side in pair) for pair in pairs):
        raise BadInputError(f"sizes {text!r} are not understood; write multiples of 8 as in 512x512,768x512")
    return tuple((width, height) for width, height in pairs)


def _choices(text: str, known: tuple[str, ...] | None = None) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(","))
    if known and not set(chosen) <= set(known):
        raise BadInputError(f"{text!r} is not understood; choose from {', '.join(known)}")
    return chosen


@app.command()
def bench(
    backbone: Annotated[str, typer.Option(help="Name or folder.")] = "mini",
    weights: Annotated[str, typer.Option(help="Codec weights: embedded by name, or a file.")] = "default",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    sizes: Annotated[str, typer.Option(help="Widths and heights.")] = "512x512,768x512",
    precisions: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    modes: Annotated[str, typer.Option(help="eager, compiled.")] = "eager",
    batches: Annotated[str, typer.Option(help="Pictures at once.")] = "1",
    steps: Annotated[int, typer.Option(min=0, help="DDIM steps.")] = DEFAULT_STEPS,
    repeats: Annotated[
        int, typer.Option(min=0, help="Warm runs; 0: only the first compress and decompress.")
    ] = 5,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Smaller tiles and slices.")] = False,
    save: Annotated[str, typer.Option(help="Write data/results/NAME.json.")] = "",
) -> None:
    """Measure the stages of a backbone; see the page on the real models for what to run on a GPU."""
    try:
        pairs = list(itertools.product(_choices(precisions), _choices(modes, MODES)))
        counts = tuple(int(batch) for batch in _choices(batches))
        jobs = [
            Job(backbone, weights, device, precision, mode, _sizes(sizes), counts, steps, repeats, low_memory)
            for precision, mode in pairs
        ]
        cells = [cell for job in jobs for cell in in_fresh_process(measure, job)]
    except DiffusionCodecError as error:
        typer.echo(f"bench: error: {error}", err=True)
        raise typer.Exit(1) from None
    console = Console(width=200)
    console.print(table(cells))
    if save:
        about = {"steps": steps, "repeats": repeats, "backbone": Path(backbone).name}
        console.print(f"Written: {write_record(save, 'cells', cells, about, device)}")


if __name__ == "__main__":
    app()
