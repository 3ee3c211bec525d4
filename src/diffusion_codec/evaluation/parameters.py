"""Parameters as people give them: a list, one value, or the text that `papermill -p` passes.

`[0.1, 0.2]`, `0.1`, `"[0.1, 0.2]"` and `"0.1, 0.2"` all mean the same kind of thing.
"""

import math
from collections.abc import Sequence
from typing import Any

import yaml

from diffusion_codec.errors import BadInputError
from diffusion_codec.schedule import STABLE_DIFFUSION


def numbers(value: Any, name: str, *, low: float = 0.0, high: float = math.inf) -> tuple[float, ...]:
    """Different numbers above `low` and not above `high`, in rising order. Raises BadInputError."""
    found = []
    for item in _items(value, name):
        try:
            number = math.nan if isinstance(item, bool) else float(item)
        except (TypeError, ValueError):
            number = math.nan
        if not low < number <= high or math.isinf(number):
            limits = f"above {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
            raise BadInputError(f"{name}: expected numbers {limits}, like [0.1, 0.2]; got {item!r}")
        found.append(number)
    return tuple(sorted(set(found)))


def counts(value: Any, name: str, *, high: float = math.inf) -> tuple[int, ...]:
    """Different whole numbers from 0 to `high`, in rising order. Raises BadInputError."""
    found = numbers(value, name, low=-1.0, high=high)
    wrong = [number for number in found if number != int(number)]
    if wrong:
        raise BadInputError(f"{name}: expected whole numbers, like [0, 1, 3]; got {wrong[0]:g}")
    return tuple(int(number) for number in found)


def timesteps(value: Any, name: str) -> tuple[int, ...]:
    """Different timesteps of Stable Diffusion's schedule, in rising order. Raises BadInputError."""
    return counts(value, name, high=STABLE_DIFFUSION.num_timesteps - 1)


def limit(value: Any, name: str) -> int | None:
    """A whole number from 1, or None for all. Raises BadInputError."""
    value = _read(value)
    if value is None or value == "None":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInputError(f"{name}: expected a number from 1, or None for all; got {value!r}")
    return value


def words(value: Any, name: str, known: Sequence[str] = ()) -> tuple[str, ...]:
    """Different names in the order given, each one of `known` where that is given. Raises BadInputError."""
    found = tuple(dict.fromkeys(str(item).strip() for item in _items(value, name)))
    wrong = [word for word in found if known and word not in known]
    if wrong:
        raise BadInputError(f"{name}: {wrong[0]!r} is unknown; choose from {', '.join(known)}")
    return found


def _items(value: Any, name: str) -> list[Any]:
    value = _read(value)
    if isinstance(value, str) and "," in value:
        items = [_read(part) for part in value.split(",") if part.strip()]
    else:
        items = list(value) if isinstance(value, (list, tuple, set)) else [value]
    if not items or None in items:
        raise BadInputError(f"{name}: expected one value or more, like [a, b]; got {value!r}")
    return items


def _read(value: Any) -> Any:
    """Text as YAML, where it is that; everything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
