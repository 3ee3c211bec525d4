"""Errors a user can act on: each message says what was given, what was expected and what to do."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# torch tells of memory only in words
_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|bad_alloc|could not create a (?:memory|primitive)"
    r"|failed to map segment|cannot allocate memory",
    re.IGNORECASE,
)


class DiffusionCodecError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line."""


class BadInputError(DiffusionCodecError, ValueError):
    """The data or the request cannot be used: not an image, damaged file, unreachable rate."""


class LimitExceededError(BadInputError):
    """The input is larger than a declared limit."""


class MissingDataError(DiffusionCodecError, FileNotFoundError):
    """A data set or weight file is neither in the mirror, nor in the cache, nor can be fetched."""


class OutOfMemoryError(DiffusionCodecError, MemoryError):
    """The machine, or the limit it was given, has not enough memory for this picture."""


def how_to_install(extra: str) -> str:
    """What brings the packages of an extra; the package is on no index, so it is said for a clone of the project."""
    return f"in the project's folder, pip install '.[{extra}]'"


def _is_about_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, here or in what an import failed of."""
    return error is not None and (
        isinstance(error, MemoryError)
        or _NO_MEMORY.search(str(error)) is not None
        or _is_about_memory(error.__cause__)
    )


def reports_memory(function: Callable[P, R]) -> Callable[P, R]:
    """Raise OutOfMemoryError for whatever a library raises when memory runs out in ``function``."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError, ImportError) as error:
            if _is_about_memory(error):
                raise OutOfMemoryError(
                    "not enough memory for this picture: scale it down or cut it up"
                ) from error
            raise

    return guarded


@contextmanager
def in_one_line() -> Iterator[None]:
    """What goes wrong inside for a reason that a user can act on is printed as one line; the exit code is 1."""
    try:
        yield
    except (DiffusionCodecError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
