"""`python -m diffusion_codec.evaluation.realism`: FID and KID of codecs against bits per pixel, with intervals.

Features are kept picture by picture in `build/realism/`, so that a stopped run goes on where it was; the distances go
to `data/results/<data set>_realism.csv`. On Kodak half an hour to an hour of two cores, half of it for VVC's search.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_codec import datasets, fetch, workers
from diffusion_codec.backbone.options import checked_device
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation import parameters
from diffusion_codec.evaluation.codecs import Pixels
from diffusion_codec.evaluation.records import commit
from diffusion_codec.evaluation.tables import LEVEL, stored
from diffusion_codec.files import write_atomically
from diffusion_codec.metrics import inception, realism
from diffusion_codec.pixels import pixels_sha256

ORIGINAL = "original"
CODECS = (
    "ceiling-mini",
    "dfc-mini",
    "dfc-mini@0",
    "dfc-mini:paper-2024",
    "dfc-mini:independent",
    "avif",
    "jpeg-xl",
    "vvc",
)
COMPARED = "dfc-mini"
RATES = (0.05, 0.1, 0.2)
STANDARD_CODECS, STANDARD_RATES = ",".join(CODECS), ",".join(map(str, RATES))
FID_RESAMPLES, KID_RESAMPLES = 100, 10_000
"""FID is computed anew for each, KID only weighed anew."""
MOST_FOR_KID = 10_000
"""Patches that are still compared each with each (3.5 GB); of a larger set FID alone is told."""

Photographs = Sequence[realism.Features]

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Point:
    """Features of the patches of every picture, as decoded by one codec at one rate; bits per pixel by picture."""

    codec: str
    version: str
    settings: str
    target_bpp: float | None
    features: tuple[realism.Features, ...]
    bpp: tuple[float, ...]


def measure(
    dataset: ImageDataset,
    names: Sequence[str],
    rates: Sequence[float],
    folder: Path,
    jobs: int,
    progress: Callable[[int, int], None] | None = None,
    device: str = "cpu",
) -> list[Point]:
    """Features of the originals (the first point) and of every codec at every rate, from `folder` where kept."""
    codecs = {codec.name: codec for codec in rate_codecs.get(names, device)}
    wanted: list[tuple[str, float | None]] = [(ORIGINAL, None)]
    wanted += [
        (name, rate)
        for name, codec in codecs.items()
        for rate in (sorted(rates) if codec.has_rate else [None])
    ]
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[tuple[str, float | None, str], Path] = {}
    for item in dataset:
        picture = pixels_sha256(item.pixels())
        for name, rate in wanted:
            made = "" if name == ORIGINAL else f"{codecs[name].version} {codecs[name].settings}"
            key = f"{picture} {name} {rate} {made}"
            paths[name, rate, item.id] = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    missing = {
        item.id: [(n, r, paths[n, r, item.id]) for n, r in wanted if not paths[n, r, item.id].is_file()]
        for item in dataset
    }
    todo = [item for item in dataset if missing[item.id]]
    calls = ((item.id, (item.pixels(), missing[item.id], device)) for item in todo)
    for count, _ in enumerate(workers.spread(jobs, _picture, calls), 1):
        if progress is not None:
            progress(count, len(todo))
    points = []
    for name, rate in wanted:
        kept = [_kept(paths[name, rate, item.id]) for item in dataset]
        version, settings = ("", "") if name == ORIGINAL else (codecs[name].version, codecs[name].settings)
        features, bpp = zip(*kept, strict=True)
        points.append(Point(name, version, settings, rate, features, bpp))
    return points


def _kept(path: Path) -> tuple[realism.Features, float]:
    """What :func:`_picture` kept: features of the patches, float32, and bits per pixel."""
    with np.load(path) as entry:
        return entry["features"].astype(np.float32), float(entry["bpp"])


def _picture(pixels: Pixels, wanted: Sequence[tuple[str, float | None, Path]], device: str) -> None:
    """Decode one picture by every codec and rate wanted, and keep the features of its patches."""
    torch.set_num_threads(1)
    names = list(dict.fromkeys(name for name, _, _ in wanted if name != ORIGINAL))
    codecs = dict(zip(names, rate_codecs.get(names, device), strict=True))
    for name, rate, path in wanted:
        decoded, bpp = pixels, np.nan
        if name != ORIGINAL:
            coded = codecs[name].run(pixels, np.inf if rate is None else rate)
            decoded = coded.decoded
            bpp = np.nan if coded.data is None else 8 * len(coded.data) / (pixels.shape[0] * pixels.shape[1])
        part = path.with_suffix(".part.npz")
        np.savez(part, features=inception.features(realism.patches(decoded), device=device), bpp=bpp)
        part.replace(path)


def table(points: Sequence[Point], dataset: ImageDataset, seed: int = 0) -> pd.DataFrame:
    """One row a codec, rate and metric: value, interval (bootstrap over pictures), rate, counts, provenance.

    Each resample draws pictures with all their patches, the same for both sets and for every codec. Of a picture drawn
    twice FID sees equal patches twice, which raises it, so intervals are those of the differences to the resamples'
    mean. ``above`` is how far a codec's distance lies above that of :data:`COMPARED` at the same rate asked for, with
    the interval of that difference. No KID of more than :data:`MOST_FOR_KID` patches.
    """
    original, *others = points
    counts = [len(rows) for rows in original.features]
    if sum(counts) < 4:
        raise BadInputError(
            f"{dataset.name} has {sum(counts)} patches of {realism.PATCH} pixels; FID and KID need more"
        )
    distances = {"fid-packaged": _fid} if sum(counts) > MOST_FOR_KID else DISTANCES
    rows: list[dict[str, Any]] = []
    found = {
        (point.codec, point.target_bpp, metric): distance(
            original.features, point.features, np.random.default_rng(seed)
        )
        for point in others
        for metric, distance in distances.items()
    }
    for point in others:
        for metric in distances:
            value, draws = found[point.codec, point.target_bpp, metric]
            low, high = _interval(value, draws)
            compared = found.get((COMPARED, point.target_bpp, metric))
            above = (np.nan,) * 3
            if compared is not None and point.codec != COMPARED:
                gap = value - compared[0]
                above = (gap, *_interval(gap, np.subtract(draws, compared[1])))
            rows.append(
                {
                    "codec": point.codec,
                    "target_bpp": point.target_bpp,
                    "bpp": float(np.mean(point.bpp)),
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "above": above[0],
                    "above_low": above[1],
                    "above_high": above[2],
                    "images": len(counts),
                    "patches": sum(counts),
                    "missing": 0,
                    "steps": np.nan,
                    "dataset": dataset.name,
                    "dataset_sha256": dataset.sha256,
                    "origin": dataset.origin,
                    "version": point.version,
                    "settings": point.settings,
                    "protocol": realism.PROTOCOLS[metric],
                    "commit": commit(),
                }
            )
    return pd.DataFrame(rows)


def _interval(value: float, draws: ArrayLike) -> tuple[float, float]:
    about = np.asarray(draws, float) - np.mean(np.asarray(draws, float))
    low, high = np.quantile(about, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value + float(low), value + float(high)


def _fid(original: Photographs, decoded: Photographs, rng: np.random.Generator) -> tuple[float, list[float]]:
    """FID, and that of resamples."""

    def of(pick: NDArray[np.int64]) -> float:
        a, b = (np.concatenate([rows[i] for i in pick]) for rows in (original, decoded))
        return realism.fid(a, b)

    count = len(original)
    return of(np.arange(count)), [of(pick) for pick in rng.integers(0, count, (FID_RESAMPLES, count))]


def _kid(original: Photographs, decoded: Photographs, rng: np.random.Generator) -> tuple[float, list[float]]:
    """KID, and that of resamples of two or more photographs."""
    sums, pairs = realism.kernel_sums(original, decoded)
    count = len(original)
    times = rng.multinomial(count, np.full(count, 1 / count), KID_RESAMPLES)
    draws = [realism.kid(sums, pairs, drawn) for drawn in times if np.count_nonzero(drawn) > 1]
    return realism.kid(sums, pairs), draws


DISTANCES = {"fid-packaged": _fid, "kid-packaged": _kid}


@app.command()
def main(
    dataset: Annotated[
        str, typer.Option(envvar="DATASET", help="Data set: kodak, coco-val2017-128, ..., or a folder")
    ] = "kodak",
    codecs: Annotated[str, typer.Option(help="Comma between; others with --out")] = STANDARD_CODECS,
    rates: Annotated[
        str, typer.Option("--rates", "--bitrates", help="Bits per pixel; others with --out")
    ] = STANDARD_RATES,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first images; with --out"),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default all cores, on a GPU one")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: data/results/<dataset>_realism.csv")] = None,
) -> None:
    """Measure FID and KID of codecs on a data set."""
    console = Console(stderr=True)
    try:
        checked_device(device)
        standard = (codecs, rates, limit) == (STANDARD_CODECS, STANDARD_RATES, None)
        whole = standard and datasets.checked(dataset) in datasets.names()
        target = stored(f"{dataset}_realism.csv", out, whole=whole)
        images = datasets.load(dataset, limit)
        there, absent = rate_codecs.present(parameters.words(codecs, "codecs"))
        for name in absent:
            console.print(f"left out: {name}, this release has no such codec weights", markup=False)
        bar = Progress(TextColumn("pictures"), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        with bar:
            task = bar.add_task("pictures")
            points = measure(
                images,
                there,
                parameters.numbers(rates, "rates", high=24),
                fetch.repository_root() / "build" / "realism",
                jobs or (workers.cores() if device == "cpu" else 1),
                lambda count, total: bar.update(task, completed=count, total=total),
                device,
            )
        found = table(points, images)
        print(found[["codec", "target_bpp", "bpp", "metric", "value", "low", "high"]].to_string(index=False))
        write_atomically(target, found.to_csv(index=False).encode(), force=True)
    except DiffusionCodecError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(f"written: {target}", markup=False)


if __name__ == "__main__":
    app()
