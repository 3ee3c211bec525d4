"""What torch was told around a call is set aside inside it: files and pictures are the same wherever they are made."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` outside any ``torch.autocast``, and with the CPU as the device of what names none."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as inside:
            for kind in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(kind):
                    inside.enter_context(torch.autocast(kind, enabled=False))
            if torch.empty(0).device.type != "cpu":  # only then: a device's context slows every operation
                inside.enter_context(torch.device("cpu"))
            return function(*args, **kwargs)

    return alone
