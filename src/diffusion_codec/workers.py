"""Processes that help a program and end with it, however it ends."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import Any, TypeVar

from diffusion_codec.errors import BadInputError

Key = TypeVar("Key")
Made = TypeVar("Made")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(
    count: int, prepare: Callable[..., object] | None = None, *arguments: object
) -> ProcessPoolExecutor:
    """A pool of fresh processes (torch does not survive a fork), each of which first calls ``prepare(*arguments)``.

    A pool's own processes wait for work for ever when the program that made them is killed; these do not.
    """
    context = multiprocessing.get_context("spawn")
    most = 61 if os.name == "nt" else count  # that Windows can wait for
    return ProcessPoolExecutor(min(count, most), context, _begin, (prepare, arguments))


def spread(
    count: int, work: Callable[..., Made], calls: Iterable[tuple[Key, tuple[Any, ...]]]
) -> Iterator[tuple[Key, Made]]:
    """``work(*arguments)`` of each call (key, arguments) in ``count`` processes; (key, result) as they are done.

    Calls are taken from the iterable as processes come to need them: arguments may be made on the way.

    Raises:
        BadInputError: a process was killed.
    """
    waiting = iter(calls)
    with processes(count) as pool:
        running: dict[Future[Made], Key] = {}
        try:
            while True:
                while len(running) < 2 * count and (call := next(waiting, None)) is not None:
                    running[pool.submit(work, *call[1])] = call[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise BadInputError(
                "a process that measured was killed (too little memory?); what was measured is kept: run again, with "
                "fewer processes"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(prepare: Callable[..., object] | None, arguments: tuple[object, ...]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
