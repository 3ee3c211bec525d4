import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from diffusion_codec.audit.patterns import KINDS, PITCHES, PatternExaminer, draw, match
from diffusion_codec.audit.subjects import sha256
from diffusion_codec.evaluation import records
from diffusion_codec.fetch import repository_root

EXAMINER = PatternExaminer()


def test_every_original_is_counted_right() -> None:
    assert len(EXAMINER.subjects) == len(KINDS) * len(PITCHES) >= 30
    for index, subject in enumerate(EXAMINER.subjects):
        found = EXAMINER.examine(index, subject.pixels).values
        assert found["objects"] == found["counted"] == found["found"] >= 8, (subject.id, found)
        assert found["invented"] == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lines"])
def test_objects_that_are_painted_over_are_missing_and_new_ones_invented(kind: str) -> None:
    index = next(i for i, s in enumerate(EXAMINER.subjects) if s.id == f"{kind}-24")
    subject = EXAMINER.subjects[index]
    pixels = subject.pixels.copy()
    row, column = (round(v) for v in subject.truth.centres[0])
    ground = np.median(pixels[:4].reshape(-1, 3), 0)
    half = 12 if kind != "bricks" else 24
    pixels[max(row - 12, 0) : row + 12, max(column - half, 0) : column + half] = ground
    pixels[2:20, 176:196] = subject.pixels[row, column]
    found = EXAMINER.examine(index, pixels).values
    assert found["found"] == found["objects"] - 1
    assert found["invented"] == 1
    assert found["counted"] == found["objects"]


def test_a_line_with_a_gap_is_still_one_line() -> None:
    index = next(i for i, s in enumerate(EXAMINER.subjects) if s.id == "lines-16")
    pixels = EXAMINER.subjects[index].pixels.copy()
    pixels[100:110] = 190
    found = EXAMINER.examine(index, pixels).values
    assert found["counted"] == found["objects"] == found["found"]


def test_blur_loses_small_objects_and_keeps_large_ones() -> None:
    left = {}
    for pitch in (6, 36):
        index = next(i for i, s in enumerate(EXAMINER.subjects) if s.id == f"windows-{pitch}")
        blurred = gaussian_filter(EXAMINER.subjects[index].pixels, (4, 4, 0))
        found = EXAMINER.examine(index, blurred).values
        left[pitch] = found["found"] / found["objects"]
    assert left[6] < 0.1
    assert left[36] == 1


def test_one_counted_object_stands_for_one_true_object_only() -> None:
    chart = draw("dots", 36).truth
    assert match(chart, [chart.centres[0]] * 3) == 1
    assert match(chart, []) == 0
    assert match(chart, chart.centres) == len(chart.centres)


def test_charts_are_the_same_every_time() -> None:
    assert np.array_equal(draw("leaves", 12).pixels, draw("leaves", 12).pixels)


def test_stored_numbers_are_of_these_charts_whatever_the_processor() -> None:
    stored = records.read(repository_root() / "data/results/audit_patterns.csv")
    assert {run.dataset_sha256 for run in stored.runs.values()} == {sha256(EXAMINER.subjects)}
