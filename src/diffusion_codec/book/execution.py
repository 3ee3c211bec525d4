"""What it took to run each notebook: seconds, machine, versions; kept in the executed notebook, shown by the book."""

import csv
import io
import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from diffusion_codec.files import write_atomically

METADATA = "diffusion_codec"
DISTRIBUTION = "diffusion-codec"
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Execution:
    """One run of one notebook.

    `processor_seconds` are the kernel's, on all cores: the number to compare where other programs ran beside it
    (0 where the system does not tell). `load` is the mean number of programs that wanted a core when it began.
    """

    seconds: float
    processor_seconds: float
    load: float
    finished: str
    smoke: bool
    machine: str
    python: str
    versions: dict[str, str]


def machine() -> str:
    """System, architecture and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def load() -> float:
    """The load of the last minute; 0 where the system does not tell."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def versions() -> dict[str, str]:
    """The packages this project asks for, as far as they are installed."""
    asked = {match[0] for line in requires(DISTRIBUTION) or () if (match := REQUIREMENT.match(line))}
    found = {}
    for name in sorted({DISTRIBUTION} | asked, key=str.lower):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def note(notebook: Path, execution: Execution) -> None:
    """Write what a run took into the metadata of its executed notebook."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"][METADATA] = asdict(execution)
    write_atomically(
        notebook, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(), force=True
    )


def of(notebook: Path) -> Execution | None:
    """What a run took; None for a notebook that an older version of this package ran."""
    kept: dict[str, Any] | None = json.loads(notebook.read_text(encoding="utf-8"))["metadata"].get(METADATA)
    return None if kept is None else Execution(**kept)


def write_tables(executed: list[Path], folder: Path) -> None:
    """`execution.csv`, one row a notebook, and `environments.csv`, one row a package, for the book's page."""
    known = [(path, found) for path in executed if (found := of(path))]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(path, found) for path, found in known]
    head = [
        "notebook",
        "seconds",
        "processor seconds",
        "load before",
        "finished (UTC)",
        "parameters",
        "machine",
    ]
    _write(folder / "execution.csv", [head, *rows])
    environments = sorted({(("python", e.python), *sorted(e.versions.items())) for _, e in known})
    packages = sorted({name for environment in environments for name, _ in environment}, key=str.lower)
    columns = [dict(environment) for environment in environments]
    several = len(columns) > 1
    head = ["package", *(f"version, machine {i + 1}" if several else "version" for i in range(len(columns)))]
    _write(folder / "environments.csv", [head, *([p, *(c.get(p, "–") for c in columns)] for p in packages)])


def _row(notebook: Path, execution: Execution) -> list[str]:
    return [
        f"[{notebook.stem}](../notebooks/{notebook.name})",
        f"{execution.seconds:.0f}",
        f"{execution.processor_seconds:.0f}" if execution.processor_seconds else "–",
        f"{execution.load:.1f}",
        execution.finished,
        "smoke" if execution.smoke else "standard",
        execution.machine,
    ]


def _write(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode(), force=True)
