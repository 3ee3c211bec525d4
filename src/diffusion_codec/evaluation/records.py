"""Measured numbers with everything a reader needs to trust or repeat them.

A result is two files: `x.csv`, one row per (codec, image, rate, metric), and `x.runs.json`, which holds once
what many rows share (code, versions, device, data set, protocols, codec settings) under the run's hash. A
row without its run is an error.
"""

import csv
import hashlib
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import Field, ValidationError, field_validator

from diffusion_codec import fetch
from diffusion_codec.closed import Closed
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.files import OutputError, let_go, write_atomically

PACKAGES = (
    "diffusion-codec",
    "torch",
    "diffusers",
    "constriction",
    "numpy",
    "pillow",
    "lpips",
    "pytorch-msssim",
    "torchmetrics",
    "ssimulacra2",
)


class RecordError(BadInputError):
    """A result file is damaged, or its two halves do not belong together."""


class CodecInfo(Closed):
    """Version (libraries, weights' fingerprint) and settings of a codec."""

    version: str
    settings: str


class Run(Closed):
    """What all rows of one run share. `id` is a hash of the content, so equal runs are one run.

    `date` is the day it began, in UTC; runs before 2026-11-26 have none. `seed` is 0: no codec or metric draws.
    """

    date: str | None = None
    commit: str
    python: str
    machine: str
    device: str
    threads: int
    seed: int = 0
    versions: dict[str, str]
    dataset: str
    dataset_sha256: str
    dataset_origin: str
    images: int
    codecs: dict[str, CodecInfo]
    protocols: dict[str, str]

    @property
    def id(self) -> str:
        """First 12 hexadecimal digits of the content's SHA-256."""
        content = json.dumps(self.model_dump(exclude_none=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class Record(Closed):
    """One number, or one failure (`value` None, `error` says why).

    `target_bpp` is what was asked for, `bpp` what the file's `bytes` came to (above the target where the codec
    goes no lower); both are None for a codec that makes no file (the autoencoder's ceiling). `ledger` is bytes
    by part of the file, adding up to `bytes`.
    """

    run: str
    codec: str
    image: str
    width: int
    height: int
    target_bpp: float | None = None
    bytes: int | None = None
    bpp: float | None = None
    metric: str = ""
    value: float | None = None
    steps: int | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    ledger: dict[str, int] = Field(default_factory=dict)
    error: str = ""

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any, info: Any) -> Any:
        if value == "" and info.field_name not in ("metric", "error"):
            return {} if info.field_name == "ledger" else None
        return json.loads(value) if info.field_name == "ledger" and isinstance(value, str) else value


FIELDS = tuple(Record.model_fields)


class Results:
    """Records and the runs they belong to."""

    def __init__(self, records: Iterable[Record] = (), runs: Iterable[Run] = ()) -> None:
        self.records = list(records)
        self.runs = {run.id: run for run in runs}
        orphans = {record.run for record in self.records} - self.runs.keys()
        if orphans:
            raise RecordError(f"rows name runs that are not described: {', '.join(sorted(orphans))}")

    def run(self, record: Record) -> Run:
        """The run a record belongs to."""
        return self.runs[record.run]


def runs_path(path: Path) -> Path:
    """The file with the runs of a csv file: `x.csv` -> `x.runs.json`."""
    return path.with_suffix(".runs.json")


def read(path: Path) -> Results:
    """Read `x.csv` and `x.runs.json`. Raises MissingDataError, RecordError."""
    for part in (path, runs_path(path)):
        if not part.is_file():
            raise MissingDataError(f"{part} is missing; a result is a csv file and its .runs.json beside it")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            records = [Record.model_validate(row) for row in csv.DictReader(file)]
        runs = json.loads(runs_path(path).read_text(encoding="utf-8"))
        if not isinstance(runs, dict):
            raise RecordError(f"{runs_path(path)} describes no runs")
        results = Results(records, [Run.model_validate(run) for run in runs.values()])
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path}: {error}") from error
    if set(results.runs) != set(runs):
        raise RecordError(f"{runs_path(path)} was edited: a run's hash is not that of its content")
    return results


def write(path: Path, results: Results) -> None:
    """Write a whole result: its records, and of its runs those that have any."""
    used = {record.run for record in results.records}
    lines = [_line(FIELDS), *(_line(_cells(record)) for record in results.records)]
    path.parent.mkdir(parents=True, exist_ok=True)
    # rows without their run are an error, a run without rows is not: at no moment may the former lie there
    _write_runs(path, results.runs.values())
    write_atomically(path, "".join(lines).encode(), force=True)
    _write_runs(path, [run for run in results.runs.values() if run.id in used])


EXPORTS = (".csv", ".json", ".parquet")


def export(results: Results, path: Path) -> None:
    """One table for other programs, `.csv`, `.json` or `.parquet`: every record with the fields of its run beside it.

    Raises BadInputError for another suffix.
    """
    import pandas as pd

    if path.suffix not in EXPORTS:
        raise BadInputError(f"{path.name}: results are written as {', '.join(EXPORTS)}")
    rows = []
    for record in results.records:
        run = results.run(record)
        info = run.codecs[record.codec]
        shared = run.model_dump(exclude={"codecs", "protocols", "versions"})
        rows.append(
            record.model_dump(exclude={"ledger", "run"})
            | {"ledger": json.dumps(record.ledger), "version": info.version, "settings": info.settings}
            | {"protocol": run.protocols.get(record.metric, ""), "versions": json.dumps(run.versions)}
            | shared
        )
    table = pd.DataFrame(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if path.suffix == ".parquet":
        table.to_parquet(part, index=False)
    elif path.suffix == ".json":
        table.to_json(part, orient="records", indent=1)
    else:
        table.to_csv(part, index=False)
    part.replace(path)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Nobody else writes to a result meanwhile; a last line that a stopped run left cut off is dropped first.

    It may be nested. Raises BadInputError if another process writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadInputError(f"{path} is being written by another sweep; name another file or wait") from error
    try:
        if lock.lock_counter == 1:
            _repair(path)
        yield
    finally:
        let_go(lock)


def _repair(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    if not runs_path(path).exists() or not data.startswith(_line(FIELDS).encode()):
        raise RecordError(f"{path} is there and holds no results of this program: name another file")
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)  # in place: writing it anew could itself be stopped


class Writer:
    """Appends records to a result, whole groups at a time, so that a stopped run can go on later."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.run = path, run
        if not path.exists():
            write(path, Results())
        self.done = read(path)
        self._described = run.id in self.done.runs

    def append(self, records: Iterable[Record]) -> None:
        """Write records in one piece; the run is described before its first one."""
        if not self._described:
            _write_runs(self.path, [*self.done.runs.values(), self.run])
            self._described = True
        lines = "".join(_line(_cells(record)) for record in records)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"'{self.path}' could not be written: {error.strerror}; what was measured before is kept"
            ) from error


def _cells(record: Record) -> list[str]:
    cells = record.model_dump()
    cells["ledger"] = json.dumps(record.ledger) if record.ledger else ""
    return ["" if cells[name] is None else str(cells[name]) for name in FIELDS]


def _line(cells: Iterable[str]) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerow(cells)
    return target.getvalue()


def _write_runs(path: Path, runs: Iterable[Run]) -> None:
    content = {run.id: run.model_dump(exclude_none=True) for run in runs}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_atomically(runs_path(path), text.encode(), force=True)


def commit() -> str:
    """The repository's commit, with `+` where `src/` differs from it; `unknown` outside a clone."""
    root = str(fetch.repository_root())
    try:
        head = subprocess.run(
            ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--untracked-files=no", "--", "src"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def short(commit: str) -> str:
    """The first digits of a commit for readers, with its `+`."""
    return commit.rstrip("+")[:8] + "+" * commit.endswith("+")


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment(device: str) -> dict[str, Any]:
    """The fields of a Run that describe code and machine."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
