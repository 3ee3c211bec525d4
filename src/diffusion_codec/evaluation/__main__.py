"""`python -m diffusion_codec.evaluation`: measure codecs on a data set and write a result.

For instance, on Kodak with two conventional codecs (2 cores: about a minute):

    python -m diffusion_codec.evaluation --dataset kodak --codecs jpeg,avif --bitrates 0.1,0.2,0.4
"""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_codec import datasets
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation.sweep import sweep
from diffusion_codec.evaluation.tables import summarise

app = typer.Typer(add_completion=False)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _rates(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise BadInputError(f"--bitrates takes numbers like 0.05,0.1,0.2, not {text!r}") from error


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="Result file; measured numbers in it are kept.")],
    dataset: Annotated[str, typer.Option(help="Data set: kodak, sample, clic2020-test, ...")] = "kodak",
    codecs: Annotated[
        str,
        typer.Option(help="jpeg, webp, jpeg2000, avif, dfc-mini, dfc-mini@0, ceiling-mini; comma between"),
    ] = "dfc-mini,ceiling-mini,jpeg,webp,jpeg2000,avif",
    bitrates: Annotated[str, typer.Option(help="Bits per pixel, comma between")] = "0.05,0.1,0.2,0.4",
    metric_names: Annotated[str, typer.Option("--metrics", help="psnr, ms-ssim, lpips-alex, ...")] = (
        "psnr,ms-ssim,lpips-alex"
    ),
    limit: Annotated[int | None, typer.Option(help="Only the first images")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(help="Recorded with the numbers")] = 0,
) -> None:
    """Measure codecs on a data set at several rates; a stopped run goes on where it was."""
    console = Console(stderr=True)
    try:
        images = datasets.load(dataset, limit)
        console.print(f"{images.name}: {len(images)} images ({images.origin}, sha256 {images.sha256[:16]})")
        chosen = rate_codecs.get(_words(codecs), device)
        bar = Progress(TextColumn("measuring"), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        with bar:
            task = bar.add_task("measuring")

            def advance(count: int, total: int) -> None:
                bar.update(task, completed=count, total=total)

            results = sweep(
                chosen,
                images,
                _rates(bitrates),
                _words(metric_names),
                out,
                device=device,
                seed=seed,
                progress=advance,
            )
        print(summarise(results).to_string(index=False, float_format=lambda value: f"{value:.4f}"))
        failed = [record for record in results.records if record.error]
        for record in failed[-10:]:
            console.print(f"{record.codec} {record.image} {record.target_bpp}: {record.error}", markup=False)
    except DiffusionCodecError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    app()
