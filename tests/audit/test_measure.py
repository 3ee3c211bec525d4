"""The measuring loop with a codec and an examiner that are simple enough to know what must come out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.audit import measure
from diffusion_codec.audit.subjects import Findings, Original, Subject
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import records
from diffusion_codec.evaluation.codecs import Coded


class Darkening:
    """Subtracts a level for each rate; cannot go below 0.1 bits per pixel."""

    name, settings, has_rate = "darkening", "none", True

    def __init__(self, version: str = "1") -> None:
        self.version, self.calls = version, 0

    def run(self, pixels: np.ndarray, bpp: float) -> Coded:
        self.calls += 1
        if bpp < 0.1:
            raise BadInputError("cannot go so low")
        size = int(bpp * pixels.shape[0] * pixels.shape[1] / 8)
        return Coded(bytes(size), pixels - np.uint8(round(1 / bpp)), 0.0, 0.0)


class Mean:
    """Finds the mean level."""

    name, origin = "levels", "made up"
    protocols = {"level": "mean", "missing": "levels lost"}  # noqa: RUF012

    def __init__(self) -> None:
        self.subjects = [Subject(f"s{i}", np.full((16, 16, 3), 100 + i, np.uint8), i) for i in range(3)]
        self.calls = 0

    def examine(self, index: int, decoded: np.ndarray) -> Findings:
        self.calls += 1
        level = float(decoded.mean())
        return Findings({"level": level, "missing": 100 + index - level}, f"level {level:g}")


def run(out: Path, codec: Darkening, examiner: Mean, limit: int | None = None) -> records.Results:
    return measure.measure(examiner, [Original(), codec], (0.05, 0.5, 0.25), out, limit=limit)


def test_every_point_has_its_values_its_bytes_and_its_reading(tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    table = measure.table(run(out, Darkening(), Mean()))
    assert len(table) == 3 * (1 + 3)
    row = table[(table.codec == "darkening") & (table.image == "s2") & (table.target_bpp == 0.25)].iloc[0]
    assert (row.level, row.missing, row.bytes, row.bpp) == (98, 4, 8, 0.25)
    assert table[table.codec == "original"].missing.tolist() == [0, 0, 0]
    failed = table[table.target_bpp == 0.05]
    assert failed.level.isna().all()
    assert set(failed.error) == {"cannot go so low"}
    assert "darkening,s2,0.25,level 98" in measure.readings_path(out).read_text()


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    run(out, Darkening(), Mean(), limit=1)
    codec, examiner = Darkening(), Mean()
    results = run(out, codec, examiner)
    assert examiner.calls == 2 * 3
    assert codec.calls == 2 * 3 + 1  # failures are tried again
    assert len(results.runs) == 1
    assert measure.readings_path(out).read_text().count("\n") == 1 + 3 * 3


def test_numbers_of_other_weights_or_other_subjects_are_dropped(tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    run(out, Darkening("1"), Mean())
    codec, examiner = Darkening("2"), Mean()
    results = run(out, codec, examiner)
    assert codec.calls == 9
    assert {results.run(r).codecs[r.codec].version for r in results.records} == {"2", "none"}
    examiner.subjects = examiner.subjects[:2]
    again = run(out, codec, examiner)
    assert {record.image for record in again.records} == {"s0", "s1"}
    assert {again.run(record).images for record in again.records} == {2}


def test_a_point_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    out = tmp_path / "audit.csv"
    whole = measure.table(run(out, Darkening(), Mean()))
    out.write_bytes(out.read_bytes()[:-10])
    again = measure.table(run(out, Darkening(), Mean()))
    order = ["codec", "image", "target_bpp"]
    pd.testing.assert_frame_equal(*(t.sort_values(order, ignore_index=True) for t in (whole, again)))


def test_an_interruption_loses_no_reading(tmp_path: Path) -> None:
    class Stopping(Mean):
        def examine(self, index: int, decoded: np.ndarray) -> Findings:
            if self.calls == 4:
                raise KeyboardInterrupt
            return super().examine(index, decoded)

    out, stopped = tmp_path / "stopped.csv", Stopping()
    with pytest.raises(KeyboardInterrupt):
        run(out, Darkening(), stopped)
    run(out, Darkening(), Mean())
    run(tmp_path / "whole.csv", Darkening(), Mean())
    lines = [measure.readings_path(path).read_text() for path in (out, tmp_path / "whole.csv")]
    assert sorted(lines[0].split("\n")) == sorted(lines[1].split("\n"))


def test_equal_pixels_are_examined_once(tmp_path: Path) -> None:
    examiner = Mean()
    codecs = [Original(), Darkening()]
    codecs[1].run = lambda pixels, bpp: Coded(b"1", pixels, 0.0, 0.0)  # type: ignore[method-assign]
    measure.measure(examiner, codecs, (0.5, 1.0), tmp_path / "a.csv", limit=1)
    assert examiner.calls == 1


def test_an_error_nobody_expects_is_not_swallowed(tmp_path: Path) -> None:
    codec = Darkening()
    codec.run = lambda pixels, bpp: 1 / 0  # type: ignore[method-assign, return-value, assignment]
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "a.csv", codec, Mean())
