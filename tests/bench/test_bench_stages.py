"""The stage bench runs the real stages on any device; here on the CPU, a tiny model of Stable Diffusion's classes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffusion_codec.backbone.random_model import write_random
from diffusion_codec.bench import shared, stages
from diffusion_codec.bench.stages import Cell, Job
from tests.tiny import tiny_weights_file


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("stages")
    write_random(folder / "tiny", "tiny-2")
    weights = tiny_weights_file(folder / "codec.safetensors")
    return Job(
        str(folder / "tiny"), str(weights), "cpu", "bfloat16", "eager", ((64, 48), (32, 32)), (1, 2), 2, 1
    )


@pytest.fixture(scope="module")
def cells(job: Job) -> list[Cell]:
    return stages.measure(job)


def test_every_size_and_batch_is_a_cell_with_every_stage(cells: list[Cell]) -> None:
    assert [(cell.width, cell.batch) for cell in cells] == [(64, 1), (64, 2), (32, 1), (32, 2)]
    for cell in cells:
        assert list(cell.seconds) == ["E", "P_phi", "entropy decoding", "step 1", "step 2", "D"]
        assert {"compress encode", "compress entropy", "decompress denoise", "decompress decode"} < set(
            cell.first
        )
        assert min([*cell.seconds.values(), *cell.first.values()]) > 0
        assert (cell.precision, cell.mode, cell.symbols_decoded_alike) == ("bfloat16", "eager", True)
    assert [cell.symbols for cell in cells] == [192, 192, 64, 64]


def test_the_command_shows_and_saves(
    job: Job, cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []

    def measured(measure: object, job: Job) -> list[Cell]:
        asked.append(job)
        return cells

    monkeypatch.setattr(stages, "in_fresh_process", measured)
    monkeypatch.setattr(shared.fetch, "repository_root", lambda: tmp_path)
    (tmp_path / "data" / "results").mkdir(parents=True)
    options = [
        "--precisions",
        "float32,bfloat16",
        "--modes",
        "eager,compiled",
        "--batches",
        "1,16",
        "--save",
        "x",
    ]
    run = CliRunner().invoke(stages.app, options)
    assert run.exit_code == 0, run.output
    assert [(j.precision, j.mode) for j in asked] == [
        ("float32", "eager"),
        ("float32", "compiled"),
        ("bfloat16", "eager"),
        ("bfloat16", "compiled"),
    ]
    assert asked[0].sizes == ((512, 512), (768, 512))
    assert "step 2" in run.output
    stored = json.loads((tmp_path / "data" / "results" / "x.json").read_text())
    assert len(stored["cells"]) == 16
    assert stored["cells"][0]["seconds"] == cells[0].seconds


@pytest.mark.parametrize(
    ("option", "value"),
    [("--sizes", "512"), ("--sizes", "100x100"), ("--modes", "fast"), ("--device", "cuda:99")],
)
def test_bad_requests_are_one_line(
    option: str, value: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "in_fresh_process", lambda measure, *given: measure(*given))
    run = CliRunner().invoke(stages.app, ["--backbone", job.backbone, option, value])
    assert run.exit_code == 1
    assert len(run.output.strip().splitlines()) == 1, run.output
