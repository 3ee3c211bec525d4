"""Who measures a sweep's tasks: processes of this machine, or a Ray cluster.

Both compute each task on one thread from the same inputs, so that the rows are the same as without helpers.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from diffusion_codec import workers
from diffusion_codec.errors import BadInputError, MissingDataError, how_to_install
from diffusion_codec.evaluation.records import Record
from diffusion_codec.evaluation.sweep import Runner, Task, measure_task

logger = logging.getLogger(__name__)

RETRIES = 5
"""How often a task is tried again whose worker died."""

Rows = Iterator[tuple[Task, list[Record]]]


def processes(jobs: int) -> Runner:
    """`jobs` processes of this machine. Raises BadInputError for fewer than one."""
    if jobs < 1:
        raise BadInputError(f"the number of processes is 1 or more, not {jobs}")
    return partial(_in_processes, jobs)


def _in_processes(jobs: int, tasks: Sequence[Task]) -> Rows:
    count = min(jobs, max(1, len(tasks)))
    return workers.spread(count, measure_task, ((task, (task.loaded(),)) for task in tasks))


def cluster(address: str | None = None) -> Runner:
    """A Ray cluster: "auto" is the one this machine belongs to, None starts one of this machine's cores.

    A task whose worker dies is tried again elsewhere, up to five times. Raises MissingDataError without Ray.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDataError(f"a sweep over a cluster needs Ray: {how_to_install('cluster')}") from error
    return partial(_on_ray, ray, address)


def _on_ray(ray: Any, address: str | None, tasks: Sequence[Task]) -> Rows:
    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        gpus = int(any(task.device.startswith("cuda") for task in tasks))
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(measure_task)
        waiting = list(reversed(tasks))
        running: dict[Any, Task] = {}
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while waiting or running:
            while waiting and len(running) < at_once:
                task = waiting.pop()
                running[remote.remote(task.loaded())] = task
            (done, *_), _ = ray.wait(list(running))
            task = running.pop(done)
            try:
                yield task, ray.get(done)
            except ray.exceptions.RayError as error:
                logger.warning("%s: %s", task.image, error)
                yield task, task.failed(error)
    finally:
        if started:
            ray.shutdown()
