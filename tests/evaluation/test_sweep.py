"""Sweeps: real files, resumed to the image, failures recorded, results that explain themselves."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from diffusion_codec import baselines, datasets, fetch, metrics
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.evaluation import codecs, records, study
from diffusion_codec.evaluation.__main__ import app
from diffusion_codec.evaluation.sweep import Grid, sweep_grids
from tests.evaluation.sweeps import sweep
from tests.tiny import tiny_codec


@pytest.fixture
def photos(tmp_path: Path) -> datasets.ImageDataset:
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in datasets.load("sample", limit=3):
        Image.fromarray(item.pixels()[:96, :128]).save(folder / f"{item.id}.png")
    return datasets.photographs(folder)


class Counting:
    """JPEG that counts its calls, refuses one image and can be stopped."""

    name, version, settings, has_rate = "counting", "1", "none", True

    def __init__(self, refused: int | None = None, stop_after: int = 10**9) -> None:
        self.refused, self.stop_after, self.calls = refused, stop_after, 0

    def run(self, pixels, bpp):
        self.calls += 1
        if self.calls > self.stop_after:
            raise KeyboardInterrupt
        if self.calls == self.refused:
            raise RuntimeError("this one\ncannot be done")
        return codecs.BaselineCodec(baselines.get("jpeg")).run(pixels, bpp)


def test_grids_are_measured_together_and_make_no_file_twice(photos, tmp_path):
    codec, psnr, lpips = Counting(), metrics.get("psnr"), metrics.get("lpips-alex")
    whole, few = Grid([codec], [1.6, 0.8], [psnr]), Grid([codec], [0.8, 2.4], [psnr, lpips], 1)
    results = sweep_grids([whole, few], photos, tmp_path / "r.csv")
    assert codec.calls == 3 * 2 + 1
    first, *others = [item.id for item in photos]
    found = [(r.image, r.target_bpp, r.metric) for r in results.records]
    both = ("psnr", "lpips-alex")
    assert found == [
        *(
            (first, rate, name)
            for rate, names in ((0.8, both), (1.6, both[:1]), (2.4, both))
            for name in names
        ),
        *((image, rate, "psnr") for image in others for rate in (0.8, 1.6)),
    ]
    sweep_grids([few, whole], photos, tmp_path / "r.csv")
    assert codec.calls == 3 * 2 + 1


def test_rates_are_those_of_real_files(photos, tmp_path):
    jpeg = codecs.BaselineCodec(baselines.get("jpeg"))
    results = sweep([jpeg], photos, [0.8, 1.6], ["psnr"], tmp_path / "r.csv")
    assert len(results.records) == 3 * 2
    for record in results.records:
        pixels = next(p for p in photos if p.id == record.image).pixels()
        data = baselines.get("jpeg").encode_at(pixels, record.target_bpp).data
        assert record.bytes == len(data)
        assert record.bpp == 8 * len(data) / (96 * 128) <= record.target_bpp
        error = np.mean((pixels - baselines.get("jpeg").decode(data).astype(float)) ** 2)
        assert record.value == pytest.approx(10 * math.log10(255**2 / error))


def test_a_stopped_sweep_goes_on_where_it_was(photos, tmp_path):
    out = tmp_path / "r.csv"
    with pytest.raises(KeyboardInterrupt):
        sweep([Counting(stop_after=4)], photos, [0.8, 1.6], ["psnr"], out)
    out.write_bytes(out.read_bytes() + b"1234,counting,cof")  # a line that was being written
    rest = Counting()
    results = sweep([rest], photos, [0.8, 1.6], ["psnr"], out)
    assert rest.calls == 2
    assert len(results.records) == 6
    again = Counting()
    sweep([again], photos, [0.8, 1.6], ["psnr"], out)
    assert again.calls == 0


def test_new_rates_metrics_and_versions_are_measured(photos, tmp_path):
    out, codec = tmp_path / "r.csv", Counting()
    sweep([codec], photos, [0.8], ["psnr"], out)
    sweep([codec], photos, [0.8, 1.0], ["psnr"], out)
    assert codec.calls == 6
    codec.version = "2"
    results = sweep([codec], photos, [0.8], ["psnr"], out)
    assert codec.calls == 9
    assert len(results.records) == 9
    assert {results.run(r).codecs["counting"].version for r in results.records} == {"1", "2"}


def test_a_failure_is_recorded_and_tried_again(photos, tmp_path):
    out = tmp_path / "r.csv"
    results = sweep([Counting(refused=2)], photos, [0.8], ["psnr"], out)
    assert [bool(r.error) for r in results.records] == [False, True, False]
    assert results.records[1].error == "RuntimeError: this one cannot be done"
    assert results.records[1].value is None
    healthy = Counting()
    results = sweep([healthy], photos, [0.8], ["psnr"], out)
    assert healthy.calls == 1
    assert sum(r.value is not None for r in results.records) == 3


def test_a_metric_that_cannot_be_computed_does_not_lose_the_others(photos, tmp_path):
    results = sweep([Counting()], photos, [0.8], ["psnr", "ms-ssim"], tmp_path / "r.csv")
    by_metric = {m: [r for r in results.records if r.metric == m] for m in ("psnr", "ms-ssim")}
    assert all(r.value for r in by_metric["psnr"])
    assert all("161 pixels" in r.error for r in by_metric["ms-ssim"])


def test_a_metric_that_breaks_does_not_lose_the_others(photos, tmp_path, monkeypatch):
    def breaks(original, decoded):
        raise RuntimeError("not enough memory")

    monkeypatch.setitem(
        metrics._METRICS, "ms-ssim", replace(metrics.get("ms-ssim"), compute=breaks, min_side=1)
    )
    results = sweep([Counting()], photos, [0.8], ["ms-ssim", "psnr"], tmp_path / "r.csv")
    assert {r.error for r in results.records} == {"RuntimeError: not enough memory", ""}
    assert sum(r.value is not None for r in results.records) == 3


def test_a_rate_below_all_files_gives_the_smallest_at_its_own_rate(photos, tmp_path):
    jpeg = codecs.BaselineCodec(baselines.get("jpeg"))
    results = sweep([jpeg], photos, [0.001, 0.8], ["psnr"], tmp_path / "r.csv")
    smallest = [r for r in results.records if r.target_bpp == 0.001]
    assert len(smallest) == 3
    for record in smallest:
        pixels = next(p for p in photos if p.id == record.image).pixels()
        least = min(len(baselines.get("jpeg").encode(pixels, q)) for q in baselines.get("jpeg").qualities)
        assert record.bytes == least
        assert record.bpp == 8 * least / (96 * 128) > record.target_bpp


def test_a_limited_sweep_is_a_part_of_the_whole(photos, tmp_path):
    out, codec = tmp_path / "r.csv", Counting()
    results = sweep([codec], photos, [0.8], ["psnr"], out, limit=2)
    assert [r.image for r in results.records] == [p.id for p in photos[:2]]
    assert results.run(results.records[0]).images == 3
    sweep([codec], photos, [0.8], ["psnr"], out)
    assert codec.calls == 3
    with pytest.raises(BadInputError, match="1 or more"):
        sweep([codec], photos, [0.8], ["psnr"], out, limit=0)


def test_a_sweep_that_measures_nothing_leaves_the_result_as_it_was(photos, tmp_path, monkeypatch):
    out = tmp_path / "r.csv"
    sweep([Counting()], photos, [0.8], ["psnr"], out)
    before = out.read_bytes(), records.runs_path(out).read_bytes()
    monkeypatch.setattr(records, "commit", lambda: "of another day")
    sweep([Counting()], photos, [0.8], ["psnr"], out)
    assert (out.read_bytes(), records.runs_path(out).read_bytes()) == before


def test_our_codec_its_ledger_and_its_ceiling(photos, tmp_path):
    shared = codecs.SharedCodec(tiny_codec(tmp_path), "tiny")
    chosen = [codecs.DiffusionCodec(shared), codecs.DiffusionCodec(shared, 0), codecs.Ceiling(shared)]
    results = sweep(chosen, photos, [4.0], ["psnr"], tmp_path / "r.csv")
    assert [r.error for r in results.records] == [""] * 9
    names = [r.codec for r in results.records[:3]]
    assert names == ["dfc-tiny", "dfc-tiny@0", "ceiling-tiny"]
    for record in results.records:
        if record.codec == "ceiling-tiny":
            assert (record.bytes, record.bpp, record.target_bpp) == (None, None, None)
        else:
            assert sum(record.ledger.values()) == record.bytes
            assert record.bpp <= 4.0
    first, undenoised = results.records[:2]
    assert first.bytes == undenoised.bytes
    assert undenoised.steps == 0
    assert first.value != undenoised.value
    run = results.run(first)
    assert shared.codec.weights.fingerprint.hex() in run.codecs["dfc-tiny"].version


def test_a_result_says_everything(photos, tmp_path):
    out = tmp_path / "r.csv"
    results = sweep([Counting()], photos, [0.8], ["psnr"], out)
    run = records.read(out).run(results.records[0])
    assert run.dataset_sha256 == photos.sha256
    assert run.device == "cpu"
    assert run.versions["pillow"]
    assert "8-bit sRGB" in run.protocols["psnr"]
    assert len(run.commit.rstrip("+")) in (40, len("unknown"))
    assert str(tmp_path) not in out.read_text() + records.runs_path(out).read_text()


def test_damaged_results_are_refused(photos, tmp_path):
    out = tmp_path / "r.csv"
    sweep([Counting()], photos, [0.8], ["psnr"], out)
    runs = records.runs_path(out)
    original = runs.read_text()
    runs.write_text(original.replace('"device": "cpu"', '"device": "gpu"'))
    with pytest.raises(records.RecordError, match=r"edited|not described"):
        records.read(out)
    runs.unlink()
    with pytest.raises(MissingDataError, match=r"runs\.json"):
        records.read(out)
    runs.write_text(original)
    out.write_text(out.read_text().replace("counting", "counting,extra", 1))
    with pytest.raises(records.RecordError):
        records.read(out)


def test_values_survive_the_file(tmp_path):
    run = records.Run(
        **records.environment("cpu"),
        dataset="d",
        dataset_sha256="0",
        dataset_origin="folder",
        images=1,
        codecs={},
        protocols={},
    )
    writer = records.Writer(tmp_path / "r.csv", run)
    common = {"run": run.id, "codec": 'a,"b"', "image": "i", "width": 1, "height": 1}
    written = [
        records.Record(**common, value=math.inf, metric="psnr", target_bpp=0.1, bpp=1 / 3, ledger={"h": 3}),
        records.Record(**common, error="no,\nnever"),
    ]
    writer.append(written)
    assert records.read(tmp_path / "r.csv").records == written


def test_two_sweeps_do_not_write_one_file(photos, tmp_path):
    out = tmp_path / "r.csv"
    with FileLock(f"{out}.lock"), pytest.raises(BadInputError, match="another sweep"):
        sweep([Counting()], photos, [0.8], ["psnr"], out)
    sweep([Counting()], photos, [0.8], ["psnr"], out)
    assert sorted(p.name for p in tmp_path.glob("r.*")) == ["r.csv", "r.runs.json"]


@pytest.mark.parametrize("content", [b"[]", b"\xff"])
def test_a_result_whose_runs_are_nonsense_is_refused(content, photos, tmp_path):
    out = tmp_path / "r.csv"
    sweep([Counting()], photos, [0.8], ["psnr"], out)
    records.runs_path(out).write_bytes(content)
    with pytest.raises(records.RecordError):
        records.read(out)


def evaluate(out: Path, rates: str):
    asked = f"--dataset sample --limit 1 --codecs jpeg --metrics psnr --bitrates {rates}"
    return CliRunner().invoke(app, [*asked.split(), "--out", str(out)])


def test_the_command_waits_for_nobody_and_changes_nothing_meanwhile(tmp_path):
    out = tmp_path / "r.csv"
    assert evaluate(out, "0.8").exit_code == 0
    lines = out.read_text().replace(",jpeg,", ",webp,")  # what this sweep would drop, were the result its own
    out.write_text(lines)
    with FileLock(f"{out}.lock"):
        refused = evaluate(out, "0.8")
    assert refused.exit_code == 1
    assert "another sweep" in refused.output
    assert out.read_text() == lines


def test_numbers_of_another_version_are_kept_where_they_are_not_measured_again(tmp_path, monkeypatch):
    out = tmp_path / "r.csv"
    assert evaluate(out, "0.4,0.8").exit_code == 0
    before = out.read_text()
    newer = Counting()
    newer.name, newer.version = "jpeg", "of tomorrow"
    monkeypatch.setattr("diffusion_codec.evaluation.__main__.rate_codecs.get", lambda *_: [newer])
    refused = evaluate(out, "0.8")
    assert refused.exit_code == 1
    assert "would not measure again" in " ".join(refused.output.split())
    assert out.read_text() == before
    assert evaluate(out, "0.4,0.8").exit_code == 0
    results = records.read(out)
    assert {results.run(r).codecs["jpeg"].version for r in results.records} == {"of tomorrow"}


@pytest.mark.parametrize("name", ["r.csv", "r.json"])
def test_a_file_of_somebody_else_is_left_alone(name, tmp_path):
    out = tmp_path / name
    for content in ("name,phone\nann,1\nbob,2", "one line"):
        out.write_text(content)
        refused = evaluate(out, "0.8")
        assert refused.exit_code == 1
        assert "name another file" in refused.output
        assert out.read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_result_of_other_pictures_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    out = tmp_path / "r.csv"
    assert evaluate(out, "0.8").exit_code == 0
    before = out.read_text()
    monkeypatch.setattr("diffusion_codec.evaluation.__main__.datasets.load", _small_sample(tmp_path))
    refused = evaluate(out, "0.8")
    assert refused.exit_code == 1
    assert "holds sample" in refused.output
    assert out.read_text() == before


def test_a_measurement_of_ones_own_does_not_go_where_the_book_looks():
    refused = CliRunner().invoke(app, ["--dataset", "sample", "--limit", "1"])
    assert refused.exit_code == 1
    assert "name a file with --out" in refused.output


def test_a_folder_of_photographs_is_measured(tmp_path):
    album = tmp_path / "album"
    album.mkdir()
    for item in datasets.load("sample", limit=2):
        Image.fromarray(item.pixels()[:64, :64]).save(album / f"{item.id}.png")
    asked = ["--dataset", str(album)]
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 1
    assert "name a file with --out" in refused.output
    out = tmp_path / "r.csv"
    few = ["--codecs", "jpeg", "--metrics", "psnr", "--bitrates", "1"]
    assert CliRunner().invoke(app, [*asked, *few, "--out", str(out)]).exit_code == 0
    results = records.read(out)
    assert [results.run(record).dataset for record in results.records] == ["album/"] * 2
    assert (study.standard(str(album))[0].images, study.stored_path(str(album)).exists()) == (None, False)
    assert "is unknown" in " ".join(CliRunner().invoke(app, ["--dataset", f"{album}s"]).output.split())


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_damaged_photograph_does_not_lose_the_others(jobs, tmp_path):
    album, out = tmp_path / "album", tmp_path / "r.csv"
    album.mkdir()
    Image.fromarray(datasets.load("sample")[0].pixels()[:64, :64]).save(album / "b.png")
    (album / "a.png").write_bytes((album / "b.png").read_bytes()[:300])
    asked = f"--dataset {album} --codecs jpeg --metrics psnr --bitrates 1 --jobs {jobs} --out {out}"
    done = CliRunner().invoke(app, asked.split())
    assert done.exit_code == 1
    damaged, whole = records.read(out).records
    assert ("a.png cannot be decoded" in damaged.error, damaged.value) == (True, None)
    assert (whole.image, whole.width, whole.error) == ("b", 64, "")
    (album / "a.png").write_bytes((album / "b.png").read_bytes())
    assert "name another file" in CliRunner().invoke(app, asked.split()).output


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_no_provenance(device, tmp_path):
    asked = ["--dataset", "sample", "--limit", "1", "--codecs", "jpeg", "--device", device]
    refused = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "r.csv")])
    assert refused.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_failure_is_in_the_exit_code(tmp_path, monkeypatch):
    failing = Counting(refused=1)
    failing.name = "jpeg"
    monkeypatch.setattr("diffusion_codec.evaluation.__main__.rate_codecs.get", lambda *_: [failing])
    out = tmp_path / "r.csv"
    asked = ["--dataset", "sample", "--limit", "1", "--codecs", "jpeg", "--metrics", "psnr"]
    done = CliRunner().invoke(app, [*asked, "--bitrates", "0.8", "--out", str(out)])
    assert done.exit_code == 1
    assert [bool(record.error) for record in records.read(out).records] == [True]


def test_outside_a_clone_a_result_needs_a_name(monkeypatch):
    monkeypatch.setattr(fetch, "repository_root", lambda: Path("/nowhere"))
    refused = CliRunner().invoke(app, ["--dataset", "sample", "--codecs", "jpeg"])
    assert refused.exit_code == 1
    assert "--out" in refused.output


def test_the_command_goes_on_after_a_line_that_was_cut_off(tmp_path):
    out = tmp_path / "r.csv"
    assert evaluate(out, "0.8,1.2").exit_code == 0
    whole = records.read(out).records
    out.write_bytes(out.read_bytes()[:-40])
    assert evaluate(out, "0.8,1.2").exit_code == 0
    values = [(record.target_bpp, record.value) for record in records.read(out).records]
    assert values == [(record.target_bpp, record.value) for record in whole]


@pytest.mark.parametrize("rates", [[0.0], [-1.0], [math.nan], [math.inf]])
def test_impossible_rates(rates, photos, tmp_path):
    with pytest.raises(BadInputError, match="positive"):
        sweep([Counting()], photos, rates, ["psnr"], tmp_path / "r.csv")


def test_command(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_codec.evaluation.__main__.datasets.load", _small_sample(tmp_path))
    common = ["--dataset", "sample", "--codecs", "jpeg,webp", "--metrics", "psnr"]
    out = ["--out", str(tmp_path / "r.csv")]
    done = CliRunner().invoke(app, [*common, *out, "--bitrates", "0.8,1.2"])
    assert done.exit_code == 0, done.output
    assert "jpeg" in done.output
    assert "webp" in done.output
    assert len(records.read(tmp_path / "r.csv").records) == 2 * 2 * 2
    for wrong in (["--bitrates", "0.8;1.2"], ["--codecs", "bpg"], ["--metrics", "lpips"]):
        failed = CliRunner().invoke(app, [*common, *out, *wrong])
        assert failed.exit_code == 1
        assert "error:" in failed.output
        assert "Traceback" not in failed.output


def _small_sample(folder: Path):
    sample = datasets.load("sample", limit=2)
    (folder / "small").mkdir()
    for item in sample:
        Image.fromarray(item.pixels()[:64, :64]).save(folder / "small" / f"{item.id}.png")
    return lambda name: datasets.photographs(folder / "small")


def test_unknown_codec_lists_the_known():
    with pytest.raises(BadInputError, match=r"jpeg2000.*dfc-mini@0.*ceiling"):
        codecs.get(["bpg"])


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".csv"])
def test_export_holds_everything_in_one_table(suffix, photos, tmp_path):
    import pandas as pd

    results = sweep([Counting()], photos, [0.8], ["psnr"], tmp_path / "r.csv")
    target = tmp_path / f"out{suffix}"
    records.export(results, target)
    read = {".json": pd.read_json, ".parquet": pd.read_parquet, ".csv": pd.read_csv}[suffix](target)
    assert len(read) == 3
    assert set(read["device"]) == {"cpu"}
    assert set(read["settings"]) == {"none"}
    assert read["value"].to_list() == pytest.approx([r.value for r in results.records])
    with pytest.raises(BadInputError, match="parquet"):
        records.export(results, tmp_path / "r.xlsx")


def test_weights_that_are_not_there_are_left_out_by_name():
    there, absent = codecs.present(["jpeg", "dfc-mini", "dfc-mini:never-trained@2"])
    assert there == ("jpeg", "dfc-mini")
    assert absent == ("dfc-mini:never-trained@2",)
    assert codecs.family("dfc-mini:paper-2024@1") == codecs.family("dfc-mini:paper-2024")
    assert codecs.family("dfc-mini@0") != codecs.family("dfc-mini:paper-2024")
    named = codecs.get(["dfc-mini:paper-2024@1"])[0]
    assert named.name == "dfc-mini:paper-2024@1"


def test_a_rate_our_codec_cannot_reach_gives_its_smallest_file(photos, tmp_path):
    shared = codecs.SharedCodec(tiny_codec(tmp_path), "tiny")
    coded = codecs.DiffusionCodec(shared, 0).run(photos[0].pixels(), 0.001)
    assert coded.data == shared.codec.compress(photos[0].pixels(), 0.0).data
