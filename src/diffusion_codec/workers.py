"""Processes that help a program and end with it, however it ends."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from threading import Thread


def processes(
    count: int, prepare: Callable[..., object] | None = None, *arguments: object
) -> ProcessPoolExecutor:
    """A pool of fresh processes (torch does not survive a fork), each of which first calls ``prepare(*arguments)``.

    A pool's own processes wait for work for ever when the program that made them is killed; these do not.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context, _begin, (prepare, arguments))


def _begin(prepare: Callable[..., object] | None, arguments: tuple[object, ...]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
