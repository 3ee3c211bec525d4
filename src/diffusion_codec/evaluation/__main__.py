"""`python -m diffusion_codec.evaluation`: measure codecs on a data set and write a result.

Without options: everything the book shows, on Kodak, into data/results/ (by `make results` 20 minutes of two cores
with bfloat16, twice that of two without AVX-512; what is measured already is kept). Or, in about a minute, two
conventional codecs at three rates:

    python -m diffusion_codec.evaluation --codecs jpeg,avif --bitrates 0.1,0.2,0.4 --out r.csv
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_codec import datasets, fetch, workers
from diffusion_codec.backbone.options import checked_device
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation import helpers, records, study
from diffusion_codec.evaluation.records import Results
from diffusion_codec.evaluation.study import Study
from diffusion_codec.evaluation.sweep import Runner, Wanted, sweep_grids
from diffusion_codec.evaluation.tables import chosen, summarise

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Result file, .csv, .json or .parquet; what it holds is kept. Needed with a folder, codecs, rates, "
            "metrics or a limit of one's own; otherwise data/results/<dataset>_rd.csv"
        ),
    ] = None,
    dataset: Annotated[
        str, typer.Option(envvar="DATASET", help="Data set: kodak, sample, ..., or a folder of photographs")
    ] = "kodak",
    codecs: Annotated[
        str | None,
        typer.Option(help="jpeg, webp, avif, vvc, dfc-mini, dfc-mini@0, ceiling-mini, ...; comma between"),
    ] = None,
    bitrates: Annotated[
        str | None, typer.Option("--bitrates", "--rates", help="Bits per pixel, comma between")
    ] = None,
    metric_names: Annotated[
        str | None, typer.Option("--metrics", help="psnr, ms-ssim, lpips-alex, lpips-squeeze, ...")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="One photograph of the sample, into build/smoke/")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes that measure, each on one thread; 0: one for each core")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(help='Measure on a Ray cluster: its address, "auto", or "local" for this machine'),
    ] = None,
) -> None:
    """Measure codecs on a data set at several rates; a stopped run goes on where it was.

    With codecs or bitrates given only these are measured, otherwise all that the book shows.
    """
    console = Console(stderr=True)
    try:
        studies, default = _studies(dataset, smoke)
        if codecs or bitrates:
            studies = studies[:1]
        folder = datasets.checked(dataset) not in datasets.names()
        own = not smoke and bool(folder or codecs or bitrates or metric_names or limit)
        asked = [_changed(one, limit, bitrates, codecs, metric_names) for one in studies]
        target, journal = _files(out, default, own)
        checked_device(device)
        run_on = _helpers(jobs, ray)
        results = _measure(_measurable(asked, console), journal, device, console, run_on)
        if target != journal:
            records.export(results, target)
            console.print(f"written: {target}", markup=False)
        failed = _report(results, journal, console)
    except DiffusionCodecError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if failed:
        raise typer.Exit(1)


def _changed(
    standard: Study, images: int | None, bitrates: str | None, codecs: str | None, metric_names: str | None
) -> Study:
    """A study with what was asked for in place of its own."""
    return Study.of(
        standard.dataset,
        images or standard.images,
        bitrates or standard.bitrates,
        codecs or standard.codecs,
        metric_names or standard.metrics,
    )


def _studies(dataset: str, smoke: bool) -> tuple[Sequence[Study], Path]:
    """What the book shows of a data set, or the smallest of it, and where that is kept."""
    if not smoke:
        return study.standard(dataset), study.stored_path(dataset)
    if dataset not in study.MAIN:
        raise BadInputError(f"--smoke measures a photograph of the sample, not of {dataset}")
    return study.smoke(), fetch.repository_root() / "build/smoke/sample_rd.csv"


def _files(out: Path | None, default: Path, own: bool) -> tuple[Path, Path]:
    """The result and the table that grows meanwhile, the same for a .csv; ``own`` is no measurement of the book's.

    Raises BadInputError where a name is missing, or belongs to something else.
    """
    target = chosen(default, out, whole=not own)
    if target.suffix not in records.EXPORTS:
        raise BadInputError(f"{target.name}: results are written as {', '.join(records.EXPORTS)}")
    journal = target.with_suffix(".csv")
    if target != journal and target.exists() and not journal.exists():
        raise BadInputError(f"{target} is there and no {journal.name} beside it: name another file")
    return target, journal


def _helpers(jobs: int, ray: str | None) -> Runner | None:
    if ray is not None:
        return helpers.cluster(None if ray == "local" else ray)
    return helpers.processes(jobs or workers.cores()) if jobs != 1 else None


def _measurable(asked: Sequence[Study], console: Console) -> list[Study]:
    """The parts of the studies that can be measured here; what cannot is said once."""
    parts = [study.here(one) for one in asked]
    for name in dict.fromkeys(name for _, gone in parts for name in gone):
        console.print(f"left out: {name} cannot be had here", markup=False)
    return [part for part, _ in parts]


def _measure(
    asked: Sequence[Study], target: Path, device: str, console: Console, run_on: Runner | None
) -> Results:
    images = datasets.load(asked[0].dataset)
    console.print(f"{images.name}: {len(images)} images ({images.origin}, sha256 {images.sha256[:16]})")
    names = dict.fromkeys(name for one in asked for name in one.codecs)
    loaded = {codec.name: codec for codec in rate_codecs.get(list(names), device)}
    bar = Progress(TextColumn("measuring"), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
    with records.only_writer(target), bar:
        _check_same_pictures(images, target)
        grids = [one.grid([loaded[name] for name in one.codecs], one.images) for one in asked]
        if target.is_file():
            wanted = Wanted(images, grids)
            _check_nothing_is_lost(target, wanted)
            dropped = study.drop_outdated(target, wanted.codecs)
            if dropped:
                console.print(f"dropped {dropped} numbers that other versions of these codecs made")
        task = bar.add_task("measuring")
        return sweep_grids(
            grids,
            images,
            target,
            device=device,
            progress=lambda count, total: bar.update(task, completed=count, total=total),
            run_on=run_on,
        )


def _check_nothing_is_lost(target: Path, wanted: Wanted) -> None:
    """Raise BadInputError where numbers of other versions would be dropped that are not measured again."""
    again = {(p.codec.name, image, p.rate, metric.name) for p, image, metric in wanted.numbers()}
    old = study.outdated(records.read(target), wanted.codecs)
    lost = [r for r in old if (r.codec, r.image, r.target_bpp, r.metric) not in again]
    if lost:
        raise BadInputError(
            f"{target} holds {len(lost)} numbers that another version of {lost[0].codec} made and this run would not "
            "measure again: measure all of them, or name another file with --out"
        )


def _check_same_pictures(images: ImageDataset, target: Path) -> None:
    """Raise BadInputError where a result is of other pictures: one table shows one data set."""
    there = records.read(target).runs.values() if target.is_file() else ()
    for run in there:
        if run.dataset_sha256 != images.sha256:
            raise BadInputError(f"{target} holds {run.dataset}: name another file for {images.name}")


def _report(results: Results, target: Path, console: Console) -> bool:
    """Print the means and the last failures; whether there were any."""
    print(summarise(results).to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    failed = [record for record in results.records if record.error]
    for record in failed[-10:]:
        console.print(f"{record.codec} {record.image} {record.target_bpp}: {record.error}", markup=False)
    console.print(f"written: {target} and {records.runs_path(target).name}", markup=False)
    return bool(failed)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    app()
