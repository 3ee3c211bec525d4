"""`python -m diffusion_codec.evaluation.numbers`: the README's table, out of the stored results.

A number that nobody measured is a dash; what a stopwatch beside the program measured (times of setup, book and tests)
is kept in `data/results/house.json` with the command that was timed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.evaluation import records, seal
from diffusion_codec.evaluation.records import Results
from diffusion_codec.evaluation.tables import current
from diffusion_codec.files import write_atomically

BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"
RATE = 0.1
WIDTH, HEIGHT = 768, 512
RIVALS = {"vvc": "VVC", "avif": "AVIF", "jpeg2000": "JPEG 2000"}

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Row:
    """A line of the table: what, how good it should be, how good it is, and the command that measures it."""

    what: str
    target: str
    measured: str
    command: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.target} | {self.measured} | {self.command} |"


def _mean(results: Results, codec: str, metric: str, rate: float | None) -> tuple[float, float] | None:
    """(mean value, mean bits per pixel) over the images of one codec at one rate."""
    found = [
        (r.value, r.bpp or np.nan)
        for r in current(results)
        if (r.codec, r.metric, r.target_bpp) == (codec, metric, rate) and r.value is not None
    ]
    return (float(np.mean([v for v, _ in found])), float(np.mean([b for _, b in found]))) if found else None


def _decimal(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def rows(folder: Path) -> list[Row]:
    """The table's lines from a folder of results."""
    results = records.read(folder / "kodak_rd.csv")
    bench = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    house: dict[str, Any] = json.loads((folder / "house.json").read_text(encoding="utf-8"))
    return [*_quality(results), _refined(folder), *_speed(bench), *(Row(**entry) for entry in house["rows"])]


def _quality(results: Results) -> list[Row]:
    ceiling = _mean(results, "ceiling-mini", "psnr", None)
    found = {name: _mean(results, name, "lpips-alex", RATE) for name in ("dfc-mini", "dfc-mini@0", *RIVALS)}
    own, plain = found["dfc-mini"], found["dfc-mini@0"]
    both = (
        "–"
        if own is None or plain is None
        else f"{_decimal(own[0])} / {_decimal(plain[0])} (at {own[1]:.4f})"
    )
    there = [name for name in RIVALS if found[name] is not None]
    values = " / ".join(_decimal(v[0]) for name in there if (v := found[name]) is not None)
    spent = " / ".join(_decimal(v[1]) for name in there if (v := found[name]) is not None)
    at = f"Kodak at {RATE:g} bits per pixel, LPIPS (alex)"
    return [
        Row(
            "Kodak, autoencoder of `mini` alone, PSNR",
            "23 dB or more",
            "–" if ceiling is None else f"{ceiling[0]:.2f} dB",
            "`make results`",
        ),
        Row(f"{at}: with denoising / without", "with < without", both, "`make results`"),
        Row(
            f"{at}: {' / '.join(RIVALS[name] for name in there)}",
            "–",
            f"{values} (at {spent})" if there else "–",
            "`make results`",
        ),
    ]


def _refined(folder: Path) -> Row:
    table = pd.read_csv(folder / "refinement.csv").query("backbone == 'mini' and rate == @RATE")
    last = table.loc[table["steps"].idxmax()]
    return Row(
        f"Kodak at {RATE:g} bits per pixel, LPIPS (alex), latents refined (`--refine {last['steps']}`)",
        "lower than not refined",
        f"{_decimal(last['lpips-alex'])} (at {last['bpp']:.4f})",
        "`python -m diffusion_codec.evaluation.refinement`",
    )


def of_kodak_size(bench: dict[str, Any]) -> dict[str, Any]:
    """The measurement of a picture as large as Kodak's, or of the largest one there is."""
    rows: list[dict[str, Any]] = sorted(bench["measurements"], key=lambda row: row["width"] * row["height"])
    return next((row for row in rows if (row["width"], row["height"]) == (WIDTH, HEIGHT)), rows[-1])


def _speed(bench: dict[str, Any]) -> list[Row]:
    row = of_kodak_size(bench)
    size = f"{row['width']} × {row['height']}"
    seconds = {name: f"{row[name]['total']:.2f} s" for name in ("compress", "decompress")}
    peak = f"{row['peak_memory'] / 2**20:.0f} MiB"
    return [
        Row(f"compress {size}, models loaded", "3 s or less", seconds["compress"], "`make bench`"),
        Row(f"decompress {size}, models loaded", "4 s or less", seconds["decompress"], "`make bench`"),
        Row("peak memory of the process", "2 GB or less", peak, "`make bench`"),
    ]


def table(folder: Path) -> str:
    """The table as Markdown, between its marks."""
    head = ["| what | target | measured | command |", "|---|---|---|---|"]
    return "\n".join([BEGIN, *head, *map(str, rows(folder)), END])


def renewed(text: str, folder: Path) -> str:
    """A text with its table written anew. Raises BadInputError without the two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInputError(f"the README has no lines {BEGIN} and {END} for the numbers to stand between")
    return before + table(folder) + after


@app.command()
def main(
    check: Annotated[
        bool, typer.Option("--check", help="Only compare; exit 1 where the README is behind.")
    ] = False,
) -> None:
    """Write the table of numbers in README.md from data/results/."""
    readme = fetch.repository_root() / "README.md"
    text = readme.read_text(encoding="utf-8")
    try:
        wanted = renewed(text, seal.results_folder())
        if check and wanted != text:
            raise BadInputError("README.md is behind data/results/: run `make numbers`")
    except DiffusionCodecError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if not check:
        write_atomically(readme, wanted.encode(), force=True)


if __name__ == "__main__":
    app()
