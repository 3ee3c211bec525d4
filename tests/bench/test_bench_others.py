"""The other benches run what they say they run; peers, engines and folders are compared on the same picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from diffusion_codec.bench import codec as bench
from diffusion_codec.bench import engines, folders, peers, shared
from diffusion_codec.bench.engines import Engine
from diffusion_codec.bench.peers import Peer
from tests.tiny import tiny_codec


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shared.fetch, "repository_root", lambda: tmp_path)
    folder = tmp_path / "data" / "results"
    folder.mkdir(parents=True)
    return folder


def test_a_classical_peer_gets_the_rate_or_its_smallest_file() -> None:
    pixels = shared.photograph(96, 64)
    near, least = (peers.classical("webp", pixels, size, 1) for size in (2000, 1))
    assert least.file_bytes < near.file_bytes <= 2000
    assert min(near.encode, near.decode) > 0
    assert least.settings.endswith("quality 0")


def test_peers_are_all_there_and_missing_ones_are_said(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def instead(call: Any, *arguments: Any) -> Peer:
        asked.append((call.__name__, arguments[0] if isinstance(arguments[0], str) else arguments[1]))
        return Peer("x", "1", "s", 100, 0.5, 0.25)

    monkeypatch.setattr(peers, "in_fresh_process", instead)
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    run = CliRunner().invoke(peers.app, ["--smoke", "--save"])
    assert run.exit_code == 0, run.output
    assert "CompressAI is not installed" in run.output
    assert asked == [("ours", 3), ("ours", 1), *(("classical", name) for name in peers.CLASSICAL)]
    stored = json.loads((results / "bench_peers.json").read_text())
    assert stored["peers"][0] == {
        "codec": "x",
        "version": "1",
        "settings": "s",
        "file_bytes": 100,
        "encode": 0.5,
        "decode": 0.25,
    }
    asked.clear()
    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    peers.measure(shared.photograph(16, 16), 1, print)
    assert asked[-3:] == [("learned", name) for name in peers.LEARNED]


def test_engines_decode_the_same_picture(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(0).normal(size=(1, 4, 3, 4)).astype(np.float32)
    decoded = [engines.measure(name, y, 1) for name in ("float32", "float32, channels first")]
    assert decoded[0][2].shape == (1, 3, 24, 32)
    assert np.abs(decoded[0][2] - decoded[1][2]).max() < 0.01
    assert min(decoded[1][:2]) > 0
    row = Engine("float32", 2.0, 1.0, 0.0, 0.0)
    monkeypatch.setattr(engines, "compare", lambda width, height, repeats: [row])
    run = CliRunner().invoke(engines.app, ["--smoke", "--save"])
    assert run.exit_code == 0, run.output
    assert json.loads((results / "bench_engines.json").read_text())["engines"][0]["seconds"] == 1.0


def test_engines_that_are_not_here_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "which", lambda name: None)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    there = [name for name in engines.ENGINES if engines.here(name)]
    assert there == [name for name in engines.ENGINES if name.startswith(("float32", "bfloat16"))]


def test_a_folder_and_single_calls_do_the_same_work(tmp_path: Path) -> None:
    codec, pixels = tiny_codec(tmp_path), shared.photograph(48, 32)
    rows = [folders.measure(codec, pixels, 3, workers) for workers in (1, 2)]
    assert [row.workers for row in rows] == [1, 2]
    assert min(min(row.compress, row.decompress) for row in rows) > 0


def test_growth_is_a_record_of_its_own(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bench.Job] = []

    def instead(measure: Any, job: bench.Job, pixels: np.ndarray) -> bench.Measurement:
        asked.append(job)
        assert pixels.shape == (job.height, job.width, 3)
        stages = {"total": 2.0, "encode": 1.0, "denoise": 1.0, "decode": 1.0}
        operations = {"encode": 10, "denoise": 20, "decode": 40}
        formats = dict.fromkeys(operations, "float32")
        speeds = {"float32": 80.0}
        return bench.Measurement(
            job.width, job.height, 1.0, stages, stages, {}, 1, 1, 1, operations, formats, speeds
        )

    monkeypatch.setattr(bench, "photograph", lambda width, height: np.zeros((height, width, 3), np.uint8))
    monkeypatch.setattr(bench, "in_fresh_process", instead)
    run = CliRunner().invoke(bench.app, ["--growth", "--save", "--largest"])
    assert run.exit_code == 0, run.output
    assert [(job.width, job.height) for job in asked] == [*bench.GROWTH, bench.LARGEST]
    assert {job.repeats for job in asked} == {1}
    assert "50%" in run.output  # D: 40 operations in a second, of 80
    stored = json.loads((results / "bench_growth.json").read_text())
    assert len(stored["measurements"]) == len(asked)
    assert not (results / "bench.json").exists()
