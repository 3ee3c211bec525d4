"""What every bench needs: one photograph, fresh processes, medians of warm runs, records."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from diffusion_codec import fetch
from diffusion_codec.files import write_atomically
from diffusion_codec.workers import processes

# Pictures and records are imported where they are needed: a fresh process shall hold what is measured, no more.

PHOTOGRAPH = "motorcycle_left"
WIDTH, HEIGHT = 768, 512

T = TypeVar("T")


def photograph(width: int, height: int) -> np.ndarray:
    """A photograph that ships with scikit-image, scaled and cut to uint8 (height, width, 3)."""
    from PIL import Image, ImageOps

    from diffusion_codec import datasets

    items = {item.id: item for item in datasets.load("sample")}
    image = Image.fromarray(items[PHOTOGRAPH].pixels())
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def in_fresh_process(call: Callable[..., T], *arguments: Any) -> T:
    """``call`` in a process of its own: its memory and its threads are nobody else's, nothing is compiled yet."""
    with processes(1) as pool:
        return pool.submit(call, *arguments).result()


def timed(run: Callable[[], T], repeats: int) -> tuple[T, float, float]:
    """The result, the seconds of a first call, and the median of ``repeats`` more."""
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - started)
    return result, seconds[0], median(seconds[1:])


def write_record(
    name: str, field: str, rows: Sequence[Any], about: dict[str, Any], device: str = "cpu"
) -> Path:
    """Write data/results/``name``.json: dataclasses ``rows`` as ``field``, and what they were measured on.

    Returns its path within the repository.
    """
    from diffusion_codec.evaluation.records import environment

    record = {"about": environment(device) | about, field: [asdict(row) for row in rows]}
    path = fetch.repository_root() / "data" / "results" / f"{name}.json"
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode(), force=True)
    return path.relative_to(fetch.repository_root())


def pictured(width: int, height: int, **more: Any) -> dict[str, Any]:
    """The photograph of a record, and what else is to be known."""
    return {"photograph": PHOTOGRAPH, "width": width, "height": height} | more
