"""``python -m diffusion_codec.bench.folders``: a whole folder against one call after another, in pictures a second.

Both read picture files and write files; the models are loaded before the clock starts.
"""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from diffusion_codec import folders
from diffusion_codec.backbone import RunOptions
from diffusion_codec.bench.shared import HEIGHT, WIDTH, photograph, pictured, write_record
from diffusion_codec.codec import Codec
from diffusion_codec.files import write_atomically
from diffusion_codec.folders import Task
from diffusion_codec.image_io import Picture, load_image, save_image

PICTURES = 12

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Throughput:
    """Pictures a second of one way to work through a folder."""

    way: str
    workers: int
    compress: float
    decompress: float


def _compress(codec: Codec, task: Task) -> None:
    write_atomically(task.target, codec.compress(load_image(task.source).pixels).data, force=True)


def _decompress(codec: Codec, task: Task) -> None:
    save_image(Picture(codec.decompress(task.source.read_bytes()).pixels), task.target, force=True)


def measure(codec: Codec, pixels: np.ndarray, count: int, workers: int) -> Throughput:
    """``workers`` files at once, or with 1 worker one call after another."""
    threads = torch.get_num_threads()
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number in range(count):
            Image.fromarray(np.roll(pixels, 8 * number, axis=1)).save(root / f"{number}.png")
        for work, suffix, new_suffix in ((_compress, ".png", ".dfc"), (_decompress, ".dfc", ".png")):
            todo = folders.tasks(root, root, [suffix], new_suffix)
            started = time.perf_counter()
            if workers == 1:
                for task in todo:
                    work(codec, task)
            else:
                prepare = folders.share_threads(workers)
                for outcome in folders.run(todo, partial(work, codec), workers, prepare):
                    if outcome.error:
                        raise RuntimeError(outcome.error)
            seconds.append(time.perf_counter() - started)
            torch.set_num_threads(threads)
    way = "one call after another" if workers == 1 else "the folder at once"
    return Throughput(way, workers, count / seconds[0], count / seconds[1])


@app.command()
def bench(
    smoke: Annotated[bool, typer.Option("--smoke", help="Two tiny pictures.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Write data/results/bench_folders.json.")] = False,
) -> None:
    """Measure both ways."""
    width, height, count = (64, 48, 2) if smoke else (WIDTH, HEIGHT, PICTURES)
    pixels, codec = photograph(width, height), Codec.from_pretrained(run=RunOptions("auto"))
    codec.decompress(codec.compress(pixels).data)  # warm
    rows = [measure(codec, pixels, count, workers) for workers in (1, max(2, folders.workers()))]
    for row in rows:
        speeds = f"{row.compress:8.2f} compressed, {row.decompress:.2f} decompressed a second"
        typer.echo(f"{row.way:26}{row.workers} workers{speeds}")
    if save:
        about = pictured(width, height, pictures=count)
        typer.echo(f"Written: {write_record('bench_folders', 'ways', rows, about)}")


if __name__ == "__main__":
    app()
