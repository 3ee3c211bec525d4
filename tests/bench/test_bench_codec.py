"""The bench measures the real codec; what it says adds up."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffusion_codec import bitstream
from diffusion_codec.bench import codec as bench
from diffusion_codec.bench import shared
from diffusion_codec.bench.codec import Job, Measurement
from diffusion_codec.codec import Codec
from diffusion_codec.entropy.range_coder import Encoder
from tests.tiny import tiny_codec, tiny_weights_file, write_tiny_backbone


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("bench")
    weights = tiny_weights_file(folder / "codec.safetensors", hyper_channels=2)
    return Job(40, 24, 2, steps=1, backbone=str(write_tiny_backbone(folder / "tiny")), weights=str(weights))


@pytest.fixture(scope="module")
def measurement(job: Job) -> Measurement:
    return shared.in_fresh_process(bench.measure, job, shared.photograph(job.width, job.height))


def test_stages_are_those_of_the_codec_and_add_up(job: Job, measurement: Measurement) -> None:
    assert list(measurement.compress) == ["total", "encode", "parameters", "entropy"]
    assert list(measurement.decompress) == ["total", "entropy", "denoise", "decode"]
    for stages in (measurement.compress, measurement.decompress):
        total, *parts = stages.values()
        # medians of each: the sum of two can pass the median of the sums a little
        assert 0 < max(parts) <= total
        assert sum(parts) <= 1.5 * total


def test_a_fresh_process_reports_its_own_memory(measurement: Measurement) -> None:
    assert 100 * 2**20 < measurement.peak_memory < 8 * 2**30


def test_the_file_is_the_one_the_codec_writes(job: Job, measurement: Measurement) -> None:
    codec = Codec.from_pretrained(job.backbone, job.weights)
    data = codec.compress(shared.photograph(job.width, job.height)).data
    assert measurement.file_bytes == len(data)
    assert measurement.symbols == 4 * 5 * 3


def test_the_range_coder_alone_writes_the_latent_stream(tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path, hyper_channels=2)
    data = codec.compress(shared.photograph(48, 32), quality=80).data
    encoder = Encoder(codec.weights.latent_coder.gaussian)
    for values, level, mean in bench.symbol_groups(codec.weights, data):
        encoder.put(values, level, mean)
    assert encoder.finish() == bitstream.read(data).latent


def test_the_command_prints_a_table_and_saves_on_request(
    job: Job, measurement: Measurement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "in_fresh_process", lambda measure, job, pixels: measurement)
    monkeypatch.setattr(shared.fetch, "repository_root", lambda: tmp_path)
    (tmp_path / "data" / "results").mkdir(parents=True)
    shown = CliRunner().invoke(bench.app, ["--smoke"])
    assert shown.exit_code == 0, shown.output
    assert "40 x 24" in shown.output
    assert "denoise" in shown.output
    assert list(tmp_path.rglob("*.json")) == []
    saved = CliRunner().invoke(bench.app, ["--smoke", "--save"])
    assert saved.exit_code == 0, saved.output
    result = json.loads((tmp_path / "data" / "results" / "bench.json").read_text())
    assert result["measurements"][0]["decompress"] == measurement.decompress
    assert result["about"]["photograph"] == shared.PHOTOGRAPH


def test_missing_weights_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "in_fresh_process", lambda measure, *given: measure(*given))
    run = CliRunner().invoke(bench.app, ["--smoke", "--backbone", "maxi"])
    assert run.exit_code == 1
    assert "no embedded" in run.output
    assert len(run.output.splitlines()) == 1
