"""Characters by fate; the reader itself is a stand-in but in the one check that runs where it is installed."""

from importlib.util import find_spec

import numpy as np
import pytest

from diffusion_codec.audit import drawing
from diffusion_codec.audit.drawing import TextLine
from diffusion_codec.audit.subjects import Subject
from diffusion_codec.audit.text import Characters, ReadLine, TextExaminer, compare, rapid_reader

TRUTH = (TextLine("AB 12", (0, 0, 100, 20)), TextLine("Sun.", (0, 30, 100, 50)))


def read(text: str, box: tuple[int, int, int, int], confidence: float = 0.95) -> ReadLine:
    return ReadLine(text, box, confidence)


def test_spaces_and_punctuation_do_not_count() -> None:
    lines = [read("AB12", (2, 1, 98, 19)), read("Sun", (2, 31, 60, 49))]
    assert compare(TRUTH, lines) == Characters(right=7)


def test_the_order_of_lines_and_pieces_does_not_matter() -> None:
    pieces = [read("Sun", (2, 31, 60, 49)), read("12", (60, 1, 98, 19)), read("AB", (2, 1, 40, 19))]
    assert compare(TRUTH, pieces) == Characters(right=7)


def test_wrong_missing_and_additional_characters_are_told_apart() -> None:
    assert compare(TRUTH, [read("A812", (2, 1, 98, 19))]) == Characters(
        3, substituted=1, missing=3, confident=1
    )
    assert compare(TRUTH, [read("AB123", (2, 1, 98, 19), 0.6)]) == Characters(4, inserted=1, missing=3)
    assert compare(TRUTH, []) == Characters(missing=7)


def test_text_where_none_was_is_invented() -> None:
    nowhere = [read("EXIT", (0, 80, 100, 99)), read("x", (0, 80, 100, 99), 0.5)]
    assert compare(TRUTH, nowhere) == Characters(inserted=5, missing=7, confident=4)


def test_the_examiner_counts_what_its_reader_reads() -> None:
    subject = Subject("one", np.zeros((60, 100, 3), np.uint8), TRUTH)
    examiner = TextExaminer(lambda pixels: [read("AB12", (2, 1, 98, 19))], [subject])
    found = examiner.examine(0, subject.pixels)
    assert found.values == {"right": 4, "substituted": 0, "inserted": 0, "missing": 3, "confident": 0}
    assert found.reading == "AB12"
    assert set(found.values) == set(examiner.protocols)


def test_drawn_text_stands_in_its_boxes() -> None:
    subjects = drawing.drawn()
    assert len(subjects) >= 20
    assert len({subject.id for subject in subjects}) == len(subjects)
    for subject in subjects:
        grey = subject.pixels.astype(float).mean(-1)
        assert grey.shape == (drawing.HEIGHT, drawing.WIDTH)
        for line in subject.truth:
            left, top, right, bottom = line.box
            assert 0 <= left < right <= drawing.WIDTH, (subject.id, line)
            assert 0 <= top < bottom <= drawing.HEIGHT, (subject.id, line)
            assert np.ptp(grey[top:bottom, left:right]) > 60, (subject.id, line)


@pytest.mark.skipif(find_spec("rapidocr_onnxruntime") is None, reason="the extra 'audit' is not installed")
def test_the_real_reader_reads_a_drawn_plate() -> None:
    plate = next(subject for subject in drawing.drawn() if subject.id == "plate-44")
    fate = compare(plate.truth, rapid_reader()(plate.pixels))
    assert fate == Characters(right=7)
