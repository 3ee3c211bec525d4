"""A sweep spread over helpers: the same rows, whoever measures them, and whoever dies."""

import os
import signal
import threading
import time

import pytest
import torch

from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.evaluation import codecs, helpers, records
from diffusion_codec.evaluation import sweep as sweep_module
from diffusion_codec.evaluation.sweep import measure_task
from tests.evaluation.sweeps import sweep
from tests.evaluation.test_sweep import photos  # noqa: F401  the fixture

NAMES = ("jpeg", "webp", "ceiling-mini")
TIMES = {"encode_seconds", "decode_seconds"}


def rows(results: records.Results) -> list[dict]:
    return [record.model_dump(exclude=TIMES) for record in results.records]


def measure(photos, out, run_on=None, names=NAMES):  # noqa: F811
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return sweep(codecs.get(names), photos, [0.8, 1.6], ["psnr"], out, run_on=run_on)
    finally:
        torch.set_num_threads(threads)


def test_processes_give_the_same_rows_in_the_same_order(photos, tmp_path):  # noqa: F811
    alone = measure(photos, tmp_path / "alone.csv")
    counts: list[tuple[int, int]] = []
    shared = sweep(
        codecs.get(NAMES),
        photos,
        [0.8, 1.6],
        ["psnr"],
        tmp_path / "shared.csv",
        run_on=helpers.processes(2),
        progress=lambda done, total: counts.append((done, total)),
    )
    assert rows(shared) == rows(alone)
    assert counts[-1] == (15, 15)
    assert counts == sorted(counts)


def test_a_task_makes_its_codecs_once_or_they_would_forget_their_files(photos, tmp_path, monkeypatch):  # noqa: F811
    asked: list[list[str]] = []

    def get(names, device):
        asked.append(list(names))
        return codecs.get(names, device)

    monkeypatch.setattr(sweep_module, "get_codecs", get)
    measure(photos, tmp_path / "r.csv", lambda tasks: ((task, measure_task(task)) for task in tasks))
    assert asked == [["jpeg"], ["webp"], ["ceiling-mini"]] * 3


def test_what_is_there_is_not_handed_out(photos, tmp_path):  # noqa: F811
    out = tmp_path / "r.csv"
    first = measure(photos, out, names=("jpeg",))

    def refuse(tasks):
        handed = [point.codec for task in tasks for point in task.points]
        assert set(handed) == {"webp"}
        return iter(())

    assert rows(measure(photos, out, refuse, names=("jpeg", "webp"))) == rows(first)


def test_a_codec_that_fails_at_a_helper_fails_that_row_alone(photos, tmp_path):  # noqa: F811
    def other_version(tasks):
        from dataclasses import replace

        from diffusion_codec.evaluation.sweep import measure_task

        for task in tasks:
            points = tuple(replace(p, version="0") if p.codec == "webp" else p for p in task.points)
            yield task, measure_task(replace(task.loaded(), points=points))

    results = measure(photos, tmp_path / "r.csv", other_version)
    assert {r.codec for r in results.records if r.error} == {"webp"}
    assert all("install one version" in r.error for r in results.records if r.error)
    assert {r.codec for r in results.records if r.value is not None} == {"jpeg", "ceiling-mini"}


def test_a_number_of_processes():
    with pytest.raises(BadInputError, match="1 or more"):
        helpers.processes(0)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDataError, match="cluster"):
        helpers.cluster()


def test_ray_loses_nothing_when_a_worker_is_killed(photos, tmp_path):  # noqa: F811
    pytest.importorskip("ray", reason="Ray is not installed (extra: cluster)")
    import psutil
    import ray

    alone = measure(photos, tmp_path / "alone.csv")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killed: list[int] = []
    over = threading.Event()

    def kill_one() -> None:
        while not killed and not over.is_set():
            for process in psutil.process_iter(["name", "cmdline"]):
                busy = (process.info["cmdline"] or [""])[0] == "ray::measure_task"
                if busy and process.uids().real == os.getuid():
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            time.sleep(0.05)

    hunter = threading.Thread(target=kill_one)
    hunter.start()
    try:
        shared = measure(photos, tmp_path / "shared.csv", helpers.cluster())
    finally:
        over.set()
        hunter.join()
        ray.shutdown()
    assert len(killed) == 1
    assert rows(shared) == rows(alone)
    assert not any(record.error for record in shared.records)
