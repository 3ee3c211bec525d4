"""A rate-distortion study: what is wanted, what is stored already, and only the rest measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from diffusion_codec import datasets, fetch, metrics
from diffusion_codec.codec import DEFAULT_STEPS
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import MissingDataError
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation import parameters, records
from diffusion_codec.evaluation.codecs import RateCodec
from diffusion_codec.evaluation.records import CodecInfo, Record, Results
from diffusion_codec.evaluation.sweep import Grid, Progress, Wanted, key_of, measured, sweep_grids
from diffusion_codec.evaluation.tables import summarise

MAX_BITRATE = 24.0
"""Bits per pixel of the uncompressed photograph."""

STANDARD_BITRATES = (0.05, 0.08, 0.1, 0.2, 0.3)
RIVALS = ("jpeg", "jpegli", "webp", "jpeg2000", "jpeg-xl", "avif", "heic", "vvc")
VARIANTS = ("dfc-mini:paper-2024", "dfc-mini:independent")
STANDARD_CODECS = (*RIVALS, "ceiling-mini", "dfc-mini", "dfc-mini@0", *VARIANTS)
STANDARD_METRICS = ("psnr", "ms-ssim", "lpips-alex")
STEPS, STEPS_BITRATES, STEPS_IMAGES = (0, 1, 2, 3, 5, 10, 100), (0.05, 0.1), 4
SLOW_METRICS = ("dists", "lpips-squeeze", "ssimulacra2", "butteraugli")
"""Metrics that cost seconds a picture: measured on the first pictures, for the codecs that lead."""
SLOW_CODECS = ("avif", "jpeg-xl", "vvc", "ceiling-mini", "dfc-mini", "dfc-mini@0")
SLOW_BITRATES, SLOW_IMAGES = (0.05, 0.1, 0.2, 0.3), 5
SPEEDS = ("avif-slow", "avif")
"""Does AV1 code better when it takes its time? On the first pictures."""
MAIN = ("kodak", datasets.SAMPLE)
"""Data sets that are measured by every codec and metric; others by the codecs that lead, on their first pictures."""
OTHER_IMAGES = 24


@dataclass(frozen=True)
class Study:
    """Which codecs are measured on which photographs, at which rates, by which metrics.

    `images` takes the first ones only. `Study.of` makes one from whatever a reader wrote.
    """

    dataset: str
    images: int | None
    bitrates: tuple[float, ...]
    codecs: tuple[str, ...]
    metrics: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Any, images: Any, bitrates: Any, codecs: Any, metric_names: Any) -> "Study":
        """Lists, single values or their text become a study; BadInputError says what was wrong."""
        names = parameters.words(codecs, "codecs")
        rate_codecs.check(names)
        return cls(
            datasets.checked(str(dataset)),
            parameters.limit(images, "images"),
            parameters.numbers(bitrates, "bitrates", high=MAX_BITRATE),
            names,
            parameters.words(metric_names, "metrics", metrics.names()),
        )

    def grid(self, loaded: Sequence[RateCodec], images: int | None) -> Grid:
        """What a sweep measures of the study, by codecs that are loaded, on the first images."""
        return Grid(loaded, self.bitrates, [metrics.get(name) for name in self.metrics], images)


def standard(dataset: str) -> tuple[Study, ...]:
    """What the book shows: rate against distortion on all images; steps, costly metrics, a slow encoder on a few.

    On Kodak 13 codecs x 5 rates x 24 photographs; how long that takes is in the README. On a data set that is not one
    of MAIN, the leading codecs on OTHER_IMAGES photographs; on all of a folder.
    """
    if dataset not in MAIN:
        images = OTHER_IMAGES if dataset in datasets.names() else None
        return (Study(dataset, images, SLOW_BITRATES, SLOW_CODECS, STANDARD_METRICS),)
    return (
        Study(dataset, None, STANDARD_BITRATES, STANDARD_CODECS, STANDARD_METRICS),
        Study(dataset, STEPS_IMAGES, STEPS_BITRATES, steps_codecs("mini", STEPS), STANDARD_METRICS),
        Study(dataset, SLOW_IMAGES, SLOW_BITRATES, SLOW_CODECS, SLOW_METRICS),
        Study(dataset, SLOW_IMAGES, SLOW_BITRATES, SPEEDS, STANDARD_METRICS),
    )


def here(asked: Study) -> tuple[Study, tuple[str, ...]]:
    """The part of a study that can be measured here; what cannot: codecs without weights, metrics without program."""
    there, absent = rate_codecs.present(asked.codecs)
    measurable = tuple(name for name in asked.metrics if name != "butteraugli" or metrics.can_measure(name))
    gone = (*absent, *(name for name in asked.metrics if name not in measurable))
    if not there or not measurable:
        raise MissingDataError(f"nothing of this study can be measured here: {', '.join(gone)} cannot be had")
    return replace(asked, codecs=there, metrics=measurable), gone


def smoke() -> tuple[Study, ...]:
    """The smallest real study: one photograph, one rate, one conventional codec."""
    return (Study(datasets.SAMPLE, 1, (0.2,), ("jpeg", "dfc-mini"), ("psnr",)),)


def stored_codecs(dataset: str, path: Path) -> tuple[str, ...]:
    """Those of the standard codecs whose numbers a result holds whole: every image, rate and standard metric."""
    if not path.is_file():
        return ("jpeg", "avif", "ceiling-mini", "dfc-mini", "dfc-mini@0")
    there = measured(merged(path))
    asked, _ = here(standard(dataset)[0])
    photographs = datasets.listed(dataset) or datasets.load_or_sample(dataset)[0]
    chosen = [metrics.get(name) for name in asked.metrics]
    codecs = rate_codecs.get(asked.codecs)
    grids = [Grid([codec], asked.bitrates, chosen, asked.images) for codec in codecs]
    pending = [Wanted(photographs, [grid]).keys() - there for grid in grids]
    return tuple(codec.name for codec, numbers in zip(codecs, pending, strict=True) if not numbers)


def steps_codecs(backbone: str, steps: Sequence[int]) -> tuple[str, ...]:
    """Names of the codec with these numbers of denoising steps; the default number has the plain name."""
    return tuple(
        f"dfc-{backbone}" if count == DEFAULT_STEPS else f"dfc-{backbone}@{count}" for count in steps
    )


def stored_path(dataset: str) -> Path:
    """Where the repository keeps what was measured on a data set; of a folder there is nothing."""
    name = dataset if dataset in datasets.names() else "folder"
    return fetch.repository_root() / "data" / "results" / f"{name}_rd.csv"


def stored_sets(kind: str) -> tuple[str, ...]:
    """Data sets of which the repository keeps results of a kind, `rd` or `realism`."""
    folder = fetch.repository_root() / "data" / "results"
    return tuple(sorted(path.name.removesuffix(f"_{kind}.csv") for path in folder.glob(f"*_{kind}.csv")))


def stored_elsewhere(dataset: str) -> list[Results]:
    """What the repository keeps of every data set but this one."""
    own = stored_path(dataset)
    return [records.read(path) for path in sorted(own.parent.glob("*_rd.csv")) if path != own]


@dataclass(frozen=True)
class Measured:
    """The numbers of a study: single ones, their means, and how many were stored before."""

    results: Results
    summary: pd.DataFrame
    photographs: ImageDataset
    images: int
    stored: int
    new: int
    note: str = ""

    @property
    def caption(self) -> str:
        """On what it was measured and when, for the caption of every figure."""
        whole = len(self.photographs)
        first = "the first" if self.images == 1 else f"the first {self.images}"
        some = f"{whole}" if self.images == whole else f"{first} of {whole}"
        photos = f"{some} photographs of the data set {self.photographs.name}"
        if self.new == 0:
            when = f"all {self.stored} numbers stored with the project"
        elif self.stored == 0:
            when = f"all {self.new} numbers measured by this notebook"
        else:
            when = f"{self.stored} numbers stored with the project, {self.new} measured by this notebook"
        told = f"{self.note} " if self.note else ""
        runs = {record.run: self.results.run(record) for record in self.results.records}.values()
        commits = ", ".join(sorted({records.short(run.commit) for run in runs}))
        days = sorted({run.date for run in runs if run.date})
        span = f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}; " if days else ""
        machines = ", ".join(sorted({f"{run.machine}, {run.device}" for run in runs}))
        source = f"{self.photographs.origin}, SHA-256 {self.photographs.sha256[:8]}…"
        return f"{told}{photos} ({source}); {when} ({span}code {commits}; {machines})"


def measure(
    study: Study,
    stored: Path,
    out: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    chosen: Sequence[RateCodec] | None = None,
) -> Measured:
    """Copy to `out` what `stored` holds of the study, measure the rest, and summarise.

    A stored number counts if codec version and settings, data set, image, rate and metric protocol are the
    same; numbers that an earlier run left in `out` count too. `chosen` are codecs that are loaded already. Where the
    data set cannot be had, its numbers serve if all are stored; otherwise the sample is measured.
    """
    loaded = rate_codecs.get(study.codecs, device) if chosen is None else chosen
    photographs, note = datasets.load_or_sample(study.dataset)
    if note and (absent := datasets.listed(study.dataset)) is not None:
        asked = Wanted(absent, [study.grid(loaded, study.images)])
        if asked.keys() <= measured(merged(stored, out)):
            photographs, note = absent, ""
    images = len(photographs) if study.images is None else min(study.images, len(photographs))
    grid = study.grid(loaded, images)
    wanted = Wanted(photographs, [grid])
    with records.only_writer(out):
        records.write(out, restrict(merged(stored, out), wanted))
        results = sweep_grids([grid], photographs, out, device=device, progress=progress)
    before = numbers(restrict(merged(stored), wanted))
    return Measured(
        results,
        summarise(results, images=images),
        photographs,
        images,
        before,
        numbers(results) - before,
        note,
    )


def merged(*paths: Path) -> Results:
    """The numbers of several results, each number once; a path without a file has none."""
    found = [records.read(path) for path in paths if path.is_file()]
    rows, seen = [], set()
    for results in found:
        for record in results.records:
            key = key_of(record, results)
            if key is not None and key not in seen:
                seen.add(key)
                rows.append(record)
    return Results(rows, [run for results in found for run in results.runs.values()])


def restrict(results: Results, wanted: Wanted) -> Results:
    """The part of a result that a sweep would measure again, were it not there."""
    keys = wanted.keys()
    rows = [record for record in results.records if key_of(record, results) in keys]
    return Results(rows, results.runs.values())


def outdated(results: Results, codecs: Sequence[RateCodec]) -> list[Record]:
    """The numbers in a result that other versions or settings of these codecs made."""
    now = {codec.name: CodecInfo(version=codec.version, settings=codec.settings) for codec in codecs}
    made = ((record, results.run(record).codecs[record.codec]) for record in results.records)
    return [r for r, info in made if r.value is not None and now.get(r.codec, info) != info]


def drop_outdated(path: Path, codecs: Sequence[RateCodec]) -> int:
    """Remove from a result these codecs' failures, and what other versions or settings of them made: how much."""
    results = records.read(path)
    names = {codec.name for codec in codecs}
    old = {id(record) for record in outdated(results, codecs)}
    kept = [r for r in results.records if id(r) not in old and (r.value is not None or r.codec not in names)]
    dropped = len(results.records) - len(kept)
    if dropped:
        records.write(path, Results(kept, results.runs.values()))
    return dropped


def numbers(results: Results) -> int:
    """How many records hold a number (and not a failure)."""
    return sum(record.value is not None for record in results.records)
