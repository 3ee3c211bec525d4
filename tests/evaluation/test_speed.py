"""Stored benchmarks become tables and figures; what was not measured says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_codec.evaluation import speed
from diffusion_codec.figures import speed as draw

ABOUT = {
    "machine": "a machine",
    "threads": 2,
    "versions": {"torch": "2"},
    "photograph": "p",
    "commit": "0123456789",
    "precision": "auto",
}


def measured(width: int, height: int, unit: float, counted: bool = True) -> dict[str, Any]:
    row: dict[str, Any] = {
        "width": width,
        "height": height,
        "compress": {"total": 4 * unit, "encode": 3 * unit, "parameters": 0.2 * unit, "entropy": 0.8 * unit},
        "decompress": {"total": 5 * unit, "entropy": unit, "denoise": 2 * unit, "decode": 2 * unit},
        "peak_memory": 2**30,
    }
    if counted:
        row |= {
            "operations": {"encode": 30, "denoise": 20, "decode": 40},
            "formats": {"encode": "float32", "denoise": "float32", "decode": "bfloat16"},
            "matrix_speed": {"float32": 20 / unit, "bfloat16": 40 / unit},
        }
    return row


@pytest.fixture
def results(tmp_path: Path) -> Path:
    def write(name: str, **content: Any) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps({"about": ABOUT} | content))

    write("bench", measurements=[measured(256, 256, 0.1), measured(768, 512, 0.6)])
    write("bench_growth", measurements=[measured(768, 512, 9.0), measured(2560, 2560, 10.0, counted=False)])
    peers = [
        {"codec": c, "version": "1", "settings": "s", "file_bytes": b, "encode": e, "decode": d}
        for c, b, e, d in (("ours", 100, 2.0, 4.0), ("jpeg", 90, 0.02, 0.01), ("mbt2018", 0, 3.0, 8.0))
    ]
    write("bench_peers", peers=peers)
    engines = [
        {"engine": name, "first": 1.0, "seconds": s, "rms": 0.1, "largest": 1}
        for name, s in (("a", 2), ("b", 1))
    ]
    write("bench_engines", engines=engines)
    write("bench_folders", ways=[{"way": "w", "workers": 1, "compress": 1.5, "decompress": 2.5}])
    return tmp_path


def test_sizes_come_from_both_records_and_the_warm_one_counts(results: Path) -> None:
    totals = speed.totals(speed.measurements(results))
    assert list(totals["picture"]) == ["256 × 256", "768 × 512", "2560 × 2560"]
    assert list(totals["decompress, s"]) == [0.5, 3.0, 50.0]
    assert list(totals["peak, MiB"]) == [1024] * 3
    assert speed.exponent(totals, "decompress, s") == pytest.approx(1)


def test_stages_and_their_share_of_the_peak(results: Path) -> None:
    stages = speed.stages(speed.measurements(results)).set_index(["picture", "direction", "stage"])
    assert stages.loc[("768 × 512", "compress", "E"), "seconds"] == pytest.approx(1.8)
    assert stages.loc[("768 × 512", "compress", "E"), "share of peak"] == pytest.approx(0.5)
    assert stages.loc[("768 × 512", "decompress", "D"), "share of peak"] == pytest.approx(0.5)
    assert stages["share of peak"].notna().sum() == 6  # of three stages at two sizes


def test_ratios_are_to_this_codec_and_to_the_decoder_as_stored(results: Path) -> None:
    peers = speed.peers(results)
    assert peers is not None
    assert list(peers["encode, ratio"]) == pytest.approx([1, 0.01, 1.5])
    assert list(peers["decode, ratio"]) == pytest.approx([1, 0.0025, 2])
    assert list(peers["bytes"]) == ["100", "90", "–"]  # random weights: no file to speak of
    engines, ways = speed.engines(results), speed.folders(results)
    assert engines is not None
    assert ways is not None
    assert list(engines["ratio"]) == [1, 0.5]
    assert ways["compressed a second"].item() == 1.5


def test_what_is_not_there_says_so(results: Path, tmp_path: Path) -> None:
    assert "a machine" in speed.provenance(results, "bench")
    assert "01234567" in speed.provenance(results, "bench_peers")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in speed.COMMANDS:
        assert "Not measured yet" in speed.provenance(empty, name)
    assert speed.measurements(empty) == []
    assert speed.peers(empty) is speed.engines(empty) is speed.folders(empty) is None


def test_figures(results: Path) -> None:
    rows, peers = speed.measurements(results), speed.peers(results)
    assert peers is not None
    bars = draw.stages(speed.stages(rows), "768 × 512").axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in bars.patches]
    assert max(ends) == pytest.approx(3.0)  # decompress: entropy, denoising, D
    time, memory = draw.growth(speed.totals(rows)).axes
    assert [line.get_label() for line in time.lines] == ["compress", "decompress", "in proportion to pixels"]
    assert list(memory.lines[0].get_ydata()) == [1024] * 3
    labels = [label.get_text() for label in draw.ratios(peers).axes[0].get_yticklabels()]
    assert labels == ["ours", "jpeg", "mbt2018"]


def test_counts_of_the_embedded_model() -> None:
    counts = speed.counts(128, 64).set_index("network")
    assert counts.loc["D", "GMAC"] > counts.loc["E", "GMAC"] > counts.loc["one denoising step", "GMAC"]
    assert counts.loc["E", "multiply-adds a pixel"] == 245_448 / 2
