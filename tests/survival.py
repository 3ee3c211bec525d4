"""What the tests of robustness share: counts for the book's table, children under limits, and kills at random moments.

A row of the table is made by one test calling :func:`tally`'s fixture; ``make robustness`` runs the tests in full and
writes the rows to data/results/robustness.json. Ordinary runs take small samples of the same cases.
"""

import csv
import json
import multiprocessing
import os
import platform
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pytest

FULL_VARIABLE = "DIFFUSION_CODEC_ROBUSTNESS"
PROPERTY = "survival"
ATTACKS = "Kept attacks"
GROUPS = (
    "Golden files",
    "Damaged files",
    "Forged files",
    "Sizes and modes",
    "Limits",
    "Loading",
    "kill -9 at random moments",
    "Full disk",
    "Read-only folder",
    "Little memory",
    "Clock that jumps",
    "No network",
    "The same bytes",
    ATTACKS,
)
"""The table's order."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``tried``: cases; ``refused``: ended in a documented error; ``accepted``: decoded, loaded or finished, with the
    right result; ``injected``: faults that hit the program at work. ``survived`` of ``tried`` ended in one of the ways
    that are documented.
    """

    group: str
    what: str
    tried: int
    survived: int
    refused: int = 0
    accepted: int = 0
    injected: int = 0
    note: str = ""


Tally = Callable[[Row], None]


def full() -> bool:
    """Whether the long, recorded run was asked for."""
    return os.environ.get(FULL_VARIABLE) == "full"


def amount(few: int, many: int) -> int:
    """``few`` cases in an ordinary run, ``many`` in the recorded one."""
    return many if full() else few


LONG = pytest.mark.skipif(not full(), reason="starts many processes: make robustness")


@dataclass(frozen=True)
class Ended:
    """How a child ended: its value, or the exception's class and text, or a signal, or the watchdog."""

    value: Any = None
    error: str = ""
    message: str = ""
    signal: int = 0
    timed_out: bool = False
    seconds: float = 0.0
    peak_bytes: int = 0


def in_child(
    function: Callable[[], Any], *, memory: int | None = None, seconds: float = 60.0, files: int | None = None
) -> Ended:
    """Run ``function`` in a forked child: at most so many bytes more than now, so much time, files of such a size.

    The watchdog kills a child that is late; nothing of the child outlives the call.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(function, sender, memory, files))
    started = time.monotonic()
    child.start()
    sender.close()
    answered = receiver.poll(seconds)
    try:
        ended = receiver.recv() if answered else Ended(timed_out=True)
    except EOFError:
        ended = Ended()
    if not answered:
        child.kill()
    child.join()
    receiver.close()
    died = -child.exitcode if child.exitcode and child.exitcode < 0 and answered else 0
    return Ended(**(asdict(ended) | {"signal": died, "seconds": time.monotonic() - started}))


def _child(function: Callable[[], Any], sender: Connection, memory: int | None, files: int | None) -> None:
    if memory is not None:
        limit = _virtual_memory() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if files is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (files, files))
    before = _peak()
    try:
        value, error, message = function(), "", ""
    except BaseException as caught:
        value, error, message = None, type(caught).__name__, str(caught)
    sender.send(Ended(value, error, message, peak_bytes=_peak() - before))
    sender.close()


def _virtual_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def duration(work: Callable[[], Any]) -> float:
    """Seconds that the work takes in a child that is left alone."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=work)
    started = time.monotonic()
    child.start()
    child.join()
    assert child.exitcode == 0, "the work fails even if nobody kills it"
    return time.monotonic() - started


def kill_at_random(work: Callable[[], Any], longest: float, source: Random) -> bool:
    """Run ``work`` in a forked child and kill -9 it after up to ``longest`` seconds; whether it was still at work."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=work)
    child.start()
    child.join(source.uniform(0.0, longest))
    child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), f"the work ended with {child.exitcode}"
    return child.exitcode == -signal.SIGKILL


def write_report(rows: list[Row], path: Path, seconds: float) -> None:
    """The rows as JSON with what made them, and beside it as two tables for the book: the counts, the kept attacks."""
    from diffusion_codec.evaluation.records import commit, versions

    about = {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions() | {"hypothesis": version("hypothesis")},
        "seconds": round(seconds),
        "full": full(),
    }
    rows = sorted(rows, key=lambda row: (GROUPS.index(row.group), row.what))
    content = {"about": about, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, table in tables(rows).items():
        with path.with_name(f"{path.stem}_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


def tables(rows: list[Row]) -> dict[str, list[list[str]]]:
    """``cases``, with a last line of sums, and ``attacks``: header first, cells as they are shown."""
    cases = [row for row in rows if row.group != ATTACKS]
    attacks = [row for row in rows if row.group == ATTACKS]
    if attacks:
        refused = sum(row.refused for row in attacks)
        cases.append(Row(ATTACKS, "see the table below", len(attacks), refused, refused=refused))
    fields = ("tried", "injected", "refused", "accepted", "survived")
    total = ["All", *(f"{sum(getattr(row, name) for row in cases):,}" for name in fields), ""]
    header = ["kind", "cases tried", "faults injected", "refused", "accepted", "survived", "note"]
    lines = [
        [f"{row.group}: {row.what}", *(f"{getattr(row, name):,}" for name in fields), row.note]
        for row in cases
    ]
    kept = [[*row.what.split(": ", 1), row.note] for row in attacks]
    return {"cases": [header, *lines, total], "attacks": [["file", "what it is", "answer"], *kept]}
