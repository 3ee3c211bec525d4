"""Every codec on every subject at every rate: one row a value, kept from run to run, failures recorded."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diffusion_codec.audit.subjects import Examiner, Findings, Subject, sha256
from diffusion_codec.errors import DiffusionCodecError
from diffusion_codec.evaluation import records, study
from diffusion_codec.evaluation.codecs import Coded, Pixels, RateCodec
from diffusion_codec.evaluation.records import CodecInfo, Record, Results, Run, Writer, environment
from diffusion_codec.files import write_atomically
from diffusion_codec.pixels import pixels_sha256

Progress = Callable[[int, int], None]
Point = tuple[str, str, float | None]
"""Codec, subject, rate asked for."""


def measure(
    examiner: Examiner,
    codecs: Sequence[RateCodec],
    rates: Sequence[float],
    out: Path,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """Code, decode and examine; append what `out` does not hold yet for these versions of codecs and subjects.

    Readings in words go into a csv beside it (:func:`readings_path`). A codec that cannot go as low as a rate
    contributes its smallest file, or a row that says why there is none.
    """
    subjects = examiner.subjects[:limit]
    run = Run(
        **environment("cpu"),
        dataset=examiner.name,
        dataset_sha256=sha256(examiner.subjects),
        dataset_origin=examiner.origin,
        images=len(examiner.subjects),
        codecs={c.name: CodecInfo(version=c.version, settings=c.settings) for c in codecs},
        protocols=examiner.protocols,
    )
    with records.only_writer(out):
        if out.is_file():
            drop_outdated(out, run, codecs)
        _append(examiner, subjects, codecs, rates, Writer(out, run), progress)
        return records.read(out)


def _append(
    examiner: Examiner,
    subjects: Sequence[Subject[Any]],
    codecs: Sequence[RateCodec],
    rates: Sequence[float],
    writer: Writer,
    progress: Progress | None,
) -> None:
    out = writer.path
    there = {_place(record) for record in writer.done.records}
    total, done = len(subjects) * sum(len(rates) if c.has_rate else 1 for c in codecs), 0
    readings = _readings(readings_path(out))
    for index, subject in enumerate(subjects):
        examined: dict[str, Findings] = {}
        for codec, rate in _points(codecs, rates):
            point = (codec.name, subject.id, rate)
            if point not in there:
                rows, found = _point(examiner, index, codec, rate, writer.run.id, examined)
                readings[point] = found.reading
                # first the readings: a point that has rows is not read again
                _write_readings(readings_path(out), readings)
                writer.append(rows)
            done += 1
            if progress is not None:
                progress(done, total)


def drop_outdated(out: Path, run: Run, codecs: Sequence[RateCodec]) -> int:
    """Remove what other codec versions, subjects or protocols gave, failures, and points cut off: how many rows."""
    dropped = study.drop_outdated(out, codecs)
    results = records.read(out)
    same = [
        record
        for record in results.records
        if results.run(record).dataset_sha256 == run.dataset_sha256
        and results.run(record).protocols.get(record.metric) == run.protocols.get(record.metric)
    ]
    values = Counter(_place(record) for record in same)
    same = [r for r in same if r.value is None or values[_place(r)] == len(run.protocols)]
    gone = len(results.records) - len(same)
    if gone:
        records.write(out, Results(same, results.runs.values()))
    return dropped + gone


def _place(record: Record) -> Point:
    return record.codec, record.image, record.target_bpp


def _points(codecs: Sequence[RateCodec], rates: Sequence[float]) -> Iterator[tuple[RateCodec, float | None]]:
    """Rate by rate, so that several decoders of one file follow each other and it is made once."""
    for rate in (None, *sorted(set(rates))):
        for codec in codecs:
            if codec.has_rate == (rate is not None):
                yield codec, rate


def _point(
    examiner: Examiner,
    index: int,
    codec: RateCodec,
    rate: float | None,
    run: str,
    examined: dict[str, Findings],
) -> tuple[list[Record], Findings]:
    """The rows of one codec on one subject at one rate; equal pixels are examined once."""
    subject = examiner.subjects[index]
    height, width = subject.pixels.shape[:2]
    base = Record(run=run, codec=codec.name, image=subject.id, width=width, height=height, target_bpp=rate)
    try:
        coded = codec.run(subject.pixels, math.inf if rate is None else rate)
    except DiffusionCodecError as error:
        return [base.model_copy(update={"error": " ".join(str(error).split())})], Findings({})
    key = pixels_sha256(coded.decoded)
    if key not in examined:
        examined[key] = examiner.examine(index, coded.decoded)
    found = examined[key]
    made = _size(coded, subject.pixels)
    rows = [base.model_copy(update=made | {"metric": n, "value": v}) for n, v in found.values.items()]
    return rows, found


def _size(coded: Coded, pixels: Pixels) -> dict[str, float | int | None]:
    if coded.data is None:
        return {"steps": coded.steps}
    area = pixels.shape[0] * pixels.shape[1]
    return {"bytes": len(coded.data), "bpp": 8 * len(coded.data) / area, "steps": coded.steps}


def readings_path(out: Path) -> Path:
    """`audit_text.csv` -> `audit_text.readings.csv`."""
    return out.with_suffix(".readings.csv")


def _write_readings(path: Path, readings: dict[Point, str]) -> None:
    """All that have words, in order; no file where none has."""
    lines = sorted(
        (codec, image, rate or 0.0, text) for (codec, image, rate), text in readings.items() if text
    )
    if not lines:
        return
    target = io.StringIO()
    rows = csv.writer(target, lineterminator="\n")
    rows.writerow(("codec", "image", "target_bpp", "reading"))
    rows.writerows((codec, image, rate or "", text) for codec, image, rate, text in lines)
    write_atomically(path, target.getvalue().encode(), force=True)


def _readings(path: Path) -> dict[Point, str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["codec"], row["image"], float(row["target_bpp"]) if row["target_bpp"] else None): row[
                "reading"
            ]
            for row in csv.DictReader(file)
        }


def table(results: Results) -> pd.DataFrame:
    """One row a (codec, subject, rate), a column a value; with bytes, bpp and `error` for what failed."""
    rows: dict[Point, dict[str, object]] = {}
    for record in results.records:
        point = (record.codec, record.image, record.target_bpp)
        row = rows.setdefault(
            point,
            {
                "codec": record.codec,
                "image": record.image,
                "target_bpp": record.target_bpp,
                "bytes": record.bytes,
                "bpp": record.bpp,
                "error": record.error,
            },
        )
        if record.metric:
            row[record.metric] = record.value
    return pd.DataFrame(list(rows.values()))
