"""`python -m diffusion_codec.audit`: measure everything the chapter on hallucination shows, into data/results/.

What is measured already for the same versions is kept, but for the map of spread. Two cores: about 20 minutes of one
of them from nothing. Needs the extra `audit` (`make audit` installs it).
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_codec import baselines, datasets, fetch
from diffusion_codec.audit import dial, findings, measure, uncertainty
from diffusion_codec.audit.faces import FaceExaminer
from diffusion_codec.audit.patterns import PatternExaminer
from diffusion_codec.audit.reduced import ReducedCodec
from diffusion_codec.audit.subjects import Examiner, Original, Subject
from diffusion_codec.audit.text import TextExaminer
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.evaluation import claims
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation.codecs import DiffusionCodec, Pixels, RateCodec
from diffusion_codec.evaluation.records import environment
from diffusion_codec.files import write_atomically

RATES = (0.04, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
HIGHER_RATES = (0.8, 1.6)
"""Beyond what this codec can spend, for the others only: from where on do they keep everything?"""

FIDELITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
DIAL_RATES = (0.03, 0.06, 0.1, 0.15, 0.25)
DIAL_IMAGES = ("kodim05", "kodim15", "kodim20", "kodim23")
SPREAD_RATES = (0.06, 0.1, 0.2)
SPREAD_IMAGES = 12
PART = (384, 512)
"""Rows and columns of the middle of a photograph that is taken for the dial and the spread."""

EXAMINERS: dict[str, Callable[[], Examiner]] = {
    "text": TextExaminer,
    "faces": FaceExaminer,
    "patterns": PatternExaminer,
}
PARTS = (*EXAMINERS, "dial", "uncertainty")

app = typer.Typer(add_completion=False)


@app.command()
def main(
    only: Annotated[str, typer.Option(help=f"Of {', '.join(PARTS)}; comma between")] = ",".join(PARTS),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first pictures of each part; with --out")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; data/results by default")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="One picture at two rates, into build/smoke/")
    ] = False,
) -> None:
    """Measure text, faces, patterns, the dial and the map of spread."""
    console = Console(stderr=True)
    root = fetch.repository_root()
    folder = out or root / ("build/smoke" if smoke else "data/results")
    try:
        if limit and out is None:
            raise BadInputError("--limit measures a part only: name a folder for it with --out")
        for part in (name.strip() for name in only.split(",")):
            if part not in PARTS:
                raise BadInputError(f"part {part!r} is unknown; choose from {', '.join(PARTS)}")
            _measure(part, folder, 1 if smoke else limit, (0.1, 0.2) if smoke else None, console)
        _keep_evidence(folder, console)
    except DiffusionCodecError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def result(folder: Path, part: str) -> Path:
    """Where a part's numbers are kept."""
    return folder / f"audit_{part}.{'json' if part == 'uncertainty' else 'csv'}"


def audited() -> list[RateCodec]:
    """The codecs of the text, face and pattern audits; `original` says what the examiner itself misses."""
    own = [*rate_codecs.get(["ceiling-mini", "dfc-mini"]), *dial.dialled([0.0])]
    return [Original(), *own, *rivals()]


def rivals() -> list[RateCodec]:
    """The conventional codecs, made to reach every rate."""
    return [ReducedCodec(baselines.get(name)) for name in findings.RIVALS]


def parts_of_kodak(images: Sequence[str] | int) -> list[Subject[None]]:
    """The middles of these photographs of Kodak, or of the first so many."""
    kodak = datasets.load("kodak")
    chosen = kodak[:images] if isinstance(images, int) else [item for item in kodak if item.id in images]
    return [Subject(item.id, _middle(item.pixels()), None) for item in chosen]


def _middle(pixels: Pixels) -> Pixels:
    rows, columns = (min(side, wanted) for side, wanted in zip(pixels.shape[:2], PART, strict=True))
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    return pixels[top : top + rows, left : left + columns].copy()


def _measure(
    part: str, folder: Path, limit: int | None, rates: Sequence[float] | None, console: Console
) -> None:
    path = result(folder, part)
    bar = Progress(TextColumn(part), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
    with bar:
        task = bar.add_task(part)

        def show(count: int, total: int) -> None:
            bar.update(task, completed=count, total=total)

        if part == "uncertainty":
            _measure_spread(path, limit or SPREAD_IMAGES, rates or SPREAD_RATES, show)
        elif part == "dial":
            examiner: Examiner = dial.DistanceExaminer(
                parts_of_kodak(DIAL_IMAGES), "middles of kodak", ("psnr", "lpips-alex")
            )
            codecs = [*rate_codecs.get(["dfc-mini"]), *dial.dialled(FIDELITIES)]
            measure.measure(examiner, codecs, rates or DIAL_RATES, path, limit=limit, progress=show)
        else:
            examiner = EXAMINERS[part]()
            measure.measure(examiner, audited(), rates or RATES, path, limit=limit, progress=show)
            if rates is None:
                plain = rate_codecs.get([findings.PLAIN])
                measure.measure(examiner, plain, (findings.CLAIM_RATE,), path, limit=limit, progress=show)
                measure.measure(examiner, rivals(), HIGHER_RATES, path, limit=limit, progress=show)
    console.print(f"written: {path}", markup=False)


def _keep_evidence(folder: Path, console: Console) -> None:
    """The number of claim C8, for the ledger."""
    paths = {part: result(folder, part) for part in EXAMINERS}
    if not all(path.is_file() for path in paths.values()):
        return
    found = findings.evidence({part: findings.load(part, path) for part, path in paths.items()})
    if found is not None:
        claims.write_evidence("C8", found, folder)
        console.print(f"claim C8: {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})", markup=False)


def _measure_spread(
    path: Path, images: int, rates: Sequence[float], show: Callable[[int, int], None]
) -> None:
    (own,) = rate_codecs.get(["dfc-mini"])
    assert isinstance(own, DiffusionCodec)
    subjects = parts_of_kodak(images)
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        for rate in rates:
            max_bytes = int(rate * subject.pixels.shape[0] * subject.pixels.shape[1] / 8)
            data = own.shared.compress(subject.pixels, max_bytes).data
            told = uncertainty.evaluate(own.shared.codec, data, subject.pixels)
            rows.append({"image": subject.id, "target_bpp": rate} | told)
            show(len(rows), len(subjects) * len(rates))
    content = {
        "run": environment("cpu") | {"codec": own.version, "settings": own.settings},
        "protocol": f"middles of kodak, {PART[1]} x {PART[0]}; blocks of {uncertainty.BLOCK} x {uncertainty.BLOCK}; "
        f"{uncertainty.DRAWS} seeds; step counts {', '.join(map(str, uncertainty.STEP_COUNTS))}",
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(_rounded(content), indent=1) + "\n").encode(), force=True)


def _rounded(value: Any) -> Any:
    """Five digits after the point are enough, and make a file that people can read."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    app()
