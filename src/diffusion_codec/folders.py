"""Whole folders: which files there are, and several of them at work at once.

Each worker takes one file from reading to writing. While one waits for the disk or codes symbols, the networks of
another compute; a file that fails costs its own result and nothing else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.workers import cores

MOST_WORKERS = 8
"""Each holds a picture and a network's activations in memory."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """One file to read and the one to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a task: a result, or the error in one line."""

    task: Task
    result: Result | None
    error: str | None = None


def tasks(folder: str | Path, target: str | Path, suffixes: Iterable[str], new_suffix: str) -> list[Task]:
    """The files of ``folder`` (not of folders in it) with one of ``suffixes``, each with its name in ``target``.

    ``a.jpg`` becomes ``a`` and the new suffix; where there is an ``a.png``, too, both keep their old suffix before it,
    and so does ``a.jpg.png`` beside ``a.jpg``: no two get one name.

    Raises:
        BadInputError: there are none.
    """
    chosen = {suffix.lower() for suffix in suffixes}
    found = [
        path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() in chosen and path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        ends = " ".join(sorted(chosen)) if len(chosen) < 8 else "the suffix of a picture"
        inner = any(path.is_dir() for path in Path(folder).iterdir())
        note = "; folders inside it are not looked into: name one of them" if inner else ""
        raise BadInputError(f"'{folder}' holds no file that ends in {ends}{note}")
    # many file systems do not tell A from a
    alike = Counter(name.casefold() for path in found for name in (path.stem, path.name))
    names = [path.name if alike[path.stem.casefold()] > 1 else path.stem for path in found]
    return [Task(path, Path(target) / (name + new_suffix)) for path, name in zip(found, names, strict=True)]


def left_alone(folder: str | Path, todo: Sequence[Task]) -> list[str]:
    """Names of what the folder holds beside the tasks, those of folders with a slash; hidden ones are not told."""
    chosen = {task.source.name for task in todo}
    there = sorted(path.name + "/" * path.is_dir() for path in Path(folder).iterdir())
    return [name for name in there if name not in chosen and not name.startswith(".")]


def workers(wanted: int | None = None) -> int:
    """How many files at once: ``wanted``, or one a core, up to :data:`MOST_WORKERS`."""
    return wanted or min(cores(), MOST_WORKERS)


def run(
    todo: Sequence[Task], work: Callable[[Task], Result], count: int, prepare: Callable[[], None]
) -> Iterator[Outcome[Result]]:
    """Do ``work`` for each task, ``count`` at once; outcomes come as they are done.

    ``prepare`` runs first in each worker. What this package or the system says about one file becomes that file's
    outcome; other errors, and an interruption, drop what has not begun and are raised.
    """
    pool = ThreadPoolExecutor(count, initializer=prepare)
    try:
        futures: dict[Future[Result], Task] = {pool.submit(work, task): task for task in todo}
        for future in as_completed(futures):
            yield _outcome(futures[future], future)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(task: Task, future: Future[Result]) -> Outcome[Result]:
    try:
        return Outcome(task, future.result())
    except DiffusionCodecError as error:
        return Outcome(task, None, str(error))
    except OSError as error:
        return Outcome(task, None, f"'{error.filename or task.source}': {error.strerror or error}")


def share_threads(count: int) -> Callable[[], None]:
    """What each of ``count`` workers calls first, so that together they use as many threads as torch had alone."""
    import torch

    each = max(1, torch.get_num_threads() // count)

    def prepare() -> None:
        torch.set_num_threads(each)

    return prepare
