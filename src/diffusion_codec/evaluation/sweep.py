"""Measure codecs on images at rates: one row per number, resumable to the image, failures recorded."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffusion_codec import metrics
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError, DiffusionCodecError, MissingDataError
from diffusion_codec.evaluation.codecs import Coded, Pixels, RateCodec, family
from diffusion_codec.evaluation.codecs import get as get_codecs
from diffusion_codec.evaluation.records import (
    CodecInfo,
    Record,
    Results,
    Run,
    Writer,
    environment,
    only_writer,
    read,
    write,
)

logger = logging.getLogger(__name__)

Key = tuple[str | float | None, ...]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Point:
    """A codec at a rate, and the metrics of what it decodes."""

    codec: RateCodec
    rate: float | None
    metrics: tuple[metrics.Metric, ...]


@dataclass(frozen=True)
class Grid:
    """Every codec at every rate (bits per pixel) by every metric, on the first `images` photographs (None: on all).

    Raises BadInputError for rates that are not positive, codecs that occur twice, no image.
    """

    codecs: Sequence[RateCodec]
    rates: Sequence[float]
    metrics: Sequence[metrics.Metric]
    images: int | None = None

    def __post_init__(self) -> None:
        bad = [rate for rate in self.rates if not 0 < rate < math.inf]
        if bad:
            raise BadInputError(f"rates are positive bits per pixel, not {bad[0]:g}")
        names = [codec.name for codec in self.codecs]
        if len(set(names)) < len(names):
            raise BadInputError(f"every codec may be named once, not {', '.join(names)}")
        if self.images is not None and self.images < 1:
            raise BadInputError(f"the number of images is 1 or more, not {self.images}")

    @property
    def files(self) -> list[tuple[str, float | None]]:
        """(codec, rate) of every file it takes; a codec without a rate is there once, with None."""
        return [(c.name, rate) for c in self.codecs for rate in (self.rates if c.has_rate else (None,))]


def sweep_grids(
    grids: Sequence[Grid],
    dataset: ImageDataset,
    out: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    run_on: "Runner | None" = None,
) -> Results:
    """Measure grids of points together, image by image, so that no file is made twice; append the numbers to `out`.

    What `out` holds already for the same codec version, data set and protocol is not measured again; failures
    are tried again. A codec that fails on an image, or an image that cannot be read, gets a row that says why, and the
    sweep goes on. `run_on` spreads the work over helpers (`helpers.processes`, `helpers.cluster`), which get codecs by
    name; rows and their order are the same. Raises BadInputError for a result another sweep writes to.
    """
    wanted = Wanted(dataset, grids)
    run = Run(
        **environment(device) | ({} if run_on is None else {"threads": 1}),
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        dataset_origin=dataset.origin,
        images=len(dataset),
        codecs={c.name: CodecInfo(version=c.version, settings=c.settings) for c in wanted.codecs},
        protocols={m.name: m.protocol for m in wanted.metrics},
    )
    with only_writer(out):
        _Sweep(wanted, Writer(out, run), progress, run_on).measure()
        return read(out)


class Wanted:
    """The numbers a sweep is to have, image by image, so that files made for one decoder serve the others."""

    def __init__(self, dataset: ImageDataset, grids: Sequence[Grid]) -> None:
        self.dataset, self.grids = dataset, grids
        self.items = dataset[: max(len(dataset) if grid.images is None else grid.images for grid in grids)]
        self.codecs = list({codec.name: codec for grid in grids for codec in grid.codecs}.values())
        self.metrics = list(dict.fromkeys(metric for grid in grids for metric in grid.metrics))

    def points(self, place: int) -> list[Point]:
        """What is asked of the image at this place of the data set, by codec and rising rate."""
        asked: dict[tuple[str, float | None], dict[metrics.Metric, None]] = {}
        for grid in self.grids:
            if grid.images is None or place < grid.images:
                for name, rate in grid.files:
                    asked.setdefault((name, rate), {}).update(dict.fromkeys(grid.metrics))
        order = {codec.name: number for number, codec in enumerate(self.codecs)}
        files = sorted(asked, key=lambda file: (order[file[0]], file[1] or 0.0))
        return [Point(self.codecs[order[name]], rate, tuple(asked[name, rate])) for name, rate in files]

    def key(self, codec: RateCodec, image: str, rate: float | None, metric: metrics.Metric) -> Key:
        """What makes a number this number: equal keys, equal values."""
        codec_key = (codec.name, codec.version, codec.settings)
        return (*codec_key, self.dataset.sha256, image, rate, metric.name, metric.protocol)

    def missing(self, point: Point, image: str, there: set[Key]) -> list[metrics.Metric]:
        """The metrics still to be measured at one point."""
        return [m for m in point.metrics if self.key(point.codec, image, point.rate, m) not in there]

    def keys(self) -> set[Key]:
        """The keys of all numbers."""
        return {self.key(point.codec, image, point.rate, metric) for point, image, metric in self.numbers()}

    def numbers(self) -> Iterator[tuple[Point, str, metrics.Metric]]:
        """Point, image and metric of each."""
        for place, item in enumerate(self.items):
            for point in self.points(place):
                for metric in point.metrics:
                    yield point, item.id, metric


Picture = Pixels | BadInputError
"""uint8 H x W x 3, or why it could not be read."""


@dataclass(frozen=True)
class TaskPoint:
    """A codec (by name, with the version and settings it must have) at a rate, and the metrics to measure."""

    codec: str
    version: str
    settings: str
    rate: float | None
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What one helper measures at a time: everything missing of one image for codecs that share their files.

    `pixels` reads the picture when the task is handed out; `loaded` is the task with the picture in it, which needs
    no file of the data set where it is measured.
    """

    run: str
    device: str
    image: str
    pixels: Callable[[], Pixels] | Picture
    points: tuple[TaskPoint, ...]

    def loaded(self) -> "Task":
        """The same task with its picture, uint8 H x W x 3."""
        return replace(self, pixels=self.picture)

    def failed(self, error: Exception) -> list[Record]:
        """Rows that say why nothing was measured."""
        return [self._base(point).model_copy(update={"error": _words(error)}) for point in self.points]

    def _base(self, point: TaskPoint) -> Record:
        height, width = _size(self.picture)
        return Record(
            run=self.run,
            codec=point.codec,
            image=self.image,
            width=width,
            height=height,
            target_bpp=point.rate,
        )

    @property
    def picture(self) -> Picture:
        """The picture, read where it is not in the task."""
        return _read(self.pixels) if callable(self.pixels) else self.pixels


Runner = Callable[[Sequence[Task]], Iterator[tuple[Task, list[Record]]]]
"""Measures tasks somewhere and gives back their rows, each task once, in any order."""


class _Sweep:
    def __init__(
        self, wanted: Wanted, writer: Writer, progress: Progress | None, run_on: Runner | None
    ) -> None:
        self.wanted, self.writer, self.progress, self.run_on = wanted, writer, progress, run_on
        self.there = measured(writer.done)

    def measure(self) -> None:
        """Measure what is missing; a point is a codec at a rate on an image."""
        if self.run_on is None:
            self._here()
        else:
            self._elsewhere(self.run_on)

    def _here(self) -> None:
        total, count = self._total(), 0
        for place, item in enumerate(self.wanted.items):
            picture: Picture | None = None
            for point in self.wanted.points(place):
                missing = self.wanted.missing(point, item.id, self.there)
                if missing:
                    picture = _read(item.pixels) if picture is None else picture
                    self.writer.append(
                        measure_point(point.codec, self.writer.run.id, item.id, picture, point.rate, missing)
                    )
                count += 1
                if self.progress is not None:
                    self.progress(count, total)

    def _total(self) -> int:
        return sum(len(self.wanted.points(place)) for place in range(len(self.wanted.items)))

    def _elsewhere(self, run_on: Runner) -> None:
        tasks = list(self._tasks())
        total = self._total()
        count = total - sum(len(task.points) for task in tasks)
        for task, rows in run_on(tasks):
            self.writer.append(rows)
            count += len(task.points)
            if self.progress is not None:
                self.progress(count, total)
        if tasks:
            self._put_in_order()

    def _tasks(self) -> Iterator[Task]:
        """What is missing of one image and codecs that share their files, for every image and such family."""
        for place, item in enumerate(self.wanted.items):
            families: dict[str, list[TaskPoint]] = {}
            for point in self.wanted.points(place):
                missing = self.wanted.missing(point, item.id, self.there)
                if missing:
                    codec, names = point.codec, tuple(metric.name for metric in missing)
                    task = TaskPoint(codec.name, codec.version, codec.settings, point.rate, names)
                    families.setdefault(family(codec.name), []).append(task)
            for points in families.values():
                yield Task(self.writer.run.id, self.writer.run.device, item.id, item.pixels, tuple(points))

    def _put_in_order(self) -> None:
        """The order of a sweep without helpers: whoever measured what when, equal results are equal files."""
        results = read(self.writer.path)
        images = {item.id: number for number, item in enumerate(self.wanted.items)}
        codecs = {codec.name: number for number, codec in enumerate(self.wanted.codecs)}
        names = {metric.name: number for number, metric in enumerate(self.wanted.metrics)}
        new = [record for record in results.records if record.run == self.writer.run.id]
        old = [record for record in results.records if record.run != self.writer.run.id]

        def place(record: Record) -> tuple[int, int, float, int]:
            codec, rate = codecs.get(record.codec, -1), record.target_bpp or 0.0
            return images.get(record.image, -1), codec, rate, names.get(record.metric, -1)

        write(self.writer.path, Results([*old, *sorted(new, key=place)], results.runs.values()))


def measure_task(task: Task) -> list[Record]:
    """Measure a task in this process, on one thread, so that every helper computes the same numbers."""
    torch.set_num_threads(1)
    rows: list[Record] = []
    picture = task.picture
    # once, not for every point: codecs remember the files they made
    names = list(dict.fromkeys(point.codec for point in task.points))
    codecs = {codec.name: codec for codec in get_codecs(names, task.device)}
    for point in task.points:
        codec = codecs[point.codec]
        if (codec.version, codec.settings) != (point.version, point.settings):
            error = BadInputError(
                f"this helper has {codec.version}, the sweep is of {point.version}: install one version"
            )
            rows += replace(task, points=(point,)).failed(error)
            continue
        chosen = [metrics.get(name) for name in point.metrics]
        rows += measure_point(codec, task.run, task.image, picture, point.rate, chosen)
    return rows


def measure_point(
    codec: RateCodec,
    run: str,
    image: str,
    picture: Picture,
    rate: float | None,
    wanted: Sequence[metrics.Metric],
) -> list[Record]:
    """The rows of one codec on one image at one rate; one row that says why where the codec, or reading, fails."""
    height, width = _size(picture)
    base = Record(run=run, codec=codec.name, image=image, width=width, height=height, target_bpp=rate)
    started = time.perf_counter()
    try:
        if isinstance(picture, BadInputError):
            raise picture
        coded = codec.run(picture, math.inf if rate is None else rate)
    except Exception as error:  # whatever a codec does on one image must not lose the others
        logger.warning("%s on %s at %s: %s", codec.name, image, rate, error, exc_info=not _expected(error))
        return [base.model_copy(update={"error": _words(error)})]
    logger.info("%s %s %s: %.1f s", codec.name, image, rate, time.perf_counter() - started)
    return [_measure(base, coded, picture, metric) for metric in wanted]


def _read(pixels: Callable[[], Pixels]) -> Picture:
    """The picture, or what is wrong with it: one that is damaged must not lose the others."""
    try:
        return pixels()
    except BadInputError as error:
        return error


def _size(picture: Picture) -> tuple[int, int]:
    """Height and width; 0 of a picture that could not be read."""
    return (0, 0) if isinstance(picture, BadInputError) else picture.shape[:2]


def _expected(error: Exception) -> bool:
    return isinstance(error, DiffusionCodecError)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _measure(base: Record, coded: Coded, pixels: Pixels, metric: metrics.Metric) -> Record:
    """One number, with the real size of the real file."""
    made = {
        "metric": metric.name,
        "steps": coded.steps,
        "encode_seconds": round(coded.encode_seconds, 4),
        "decode_seconds": round(coded.decode_seconds, 4),
        "ledger": coded.ledger,
    }
    if coded.data is not None:
        made |= {"bytes": len(coded.data), "bpp": 8 * len(coded.data) / (base.width * base.height)}
    try:
        made["value"] = metric(pixels, coded.decoded)
    except MissingDataError:  # no other image would fare better
        raise
    except Exception as error:
        logger.warning("%s of %s: %s", metric.name, base.image, error, exc_info=not _expected(error))
        made["error"] = _words(error)
    return base.model_copy(update=made)


def key_of(record: Record, results: Results) -> Key | None:
    """The key of a number; None for a failure."""
    if record.value is None:
        return None
    run = results.run(record)
    info = run.codecs[record.codec]
    codec_key = (record.codec, info.version, info.settings)
    protocol = run.protocols[record.metric]
    return (*codec_key, run.dataset_sha256, record.image, record.target_bpp, record.metric, protocol)


def measured(done: Results) -> set[Key]:
    """The keys of all numbers in a result."""
    return {key for record in done.records if (key := key_of(record, done)) is not None}
