"""Text through a codec: which characters are still right, which are missing, which are other ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import numpy as np

from diffusion_codec.audit import drawing
from diffusion_codec.audit.drawing import Box, Text, TextLine
from diffusion_codec.audit.subjects import Findings, Subject
from diffusion_codec.errors import MissingDataError, how_to_install
from diffusion_codec.evaluation.codecs import Pixels

CONFIDENT = 0.9
"""Confidence of a line, 0 to 1, from which a reader would not think of asking back."""

INSIDE = 0.3
"""Part of a line's box that must lie in the box of a true line to be a reading of it."""

DETECTION_SIDE = 512
"""Pictures are scaled to so many pixels on their shorter side to find lines; each line is read at its own scale."""

SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class ReadLine:
    """What a reader made of one line: text, box, confidence 0 to 1."""

    text: str
    box: Box
    confidence: float


Reader = Callable[[Pixels], Sequence[ReadLine]]


@dataclass(frozen=True)
class Characters:
    """Letters and digits by fate. Those there were are right + substituted + missing.

    `confident`: of the invented ones (substituted or inserted) those in lines read with confidence.
    """

    right: int = 0
    substituted: int = 0
    inserted: int = 0
    missing: int = 0
    confident: int = 0

    def __add__(self, other: "Characters") -> "Characters":
        return Characters(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def compare(truth: Text, read: Sequence[ReadLine]) -> Characters:
    """The fate of every letter and digit; spaces and punctuation do not count.

    A reading belongs to the true line whose box holds most of it; what lies outside all of them is inserted.
    Within a line the fewest substitutions, insertions and deletions count (Levenshtein).
    """
    found: list[list[ReadLine]] = [[] for _ in truth]
    total = Characters()
    for line in read:
        parts = [_part_inside(line.box, true.box) for true in truth]
        if max(parts, default=0.0) >= INSIDE:
            found[int(np.argmax(parts))].append(line)
        else:
            count = len(_plain(line.text))
            total += Characters(inserted=count, confident=count * (line.confidence >= CONFIDENT))
    for true, lines in zip(truth, found, strict=True):
        total += _compare_line(true, sorted(lines, key=lambda line: line.box[0]))
    return total


def _compare_line(true: TextLine, read: Sequence[ReadLine]) -> Characters:
    from rapidfuzz.distance import Levenshtein

    expected, got = _plain(true.text), "".join(_plain(line.text) for line in read)
    sure = [line.confidence >= CONFIDENT for line in read for _ in _plain(line.text)]
    fate = {"replace": 0, "insert": 0, "delete": 0}
    confident = 0
    for edit in Levenshtein.editops(expected, got):
        fate[edit.tag] += 1
        confident += edit.tag != "delete" and sure[edit.dest_pos]
    right = len(expected) - fate["replace"] - fate["delete"]
    return Characters(right, fate["replace"], fate["insert"], fate["delete"], confident)


def _plain(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _part_inside(box: Box, outer: Box) -> float:
    width = min(box[2], outer[2]) - max(box[0], outer[0])
    height = min(box[3], outer[3]) - max(box[1], outer[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0) * max(height, 0) / max(area, 1)


def rapid_reader() -> Reader:
    """PP-OCRv4 as `rapidocr-onnxruntime` packs it, on one thread. Raises MissingDataError without the package."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise MissingDataError(
            f"reading text needs the extra 'audit' ({error}): run `make audit`, or {how_to_install('audit')}"
        ) from error
    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, det_limit_side_len=DETECTION_SIDE)

    def read(pixels: Pixels) -> list[ReadLine]:
        # upright text only: the test for upside-down lines takes time and now and then turns a good one
        lines, _ = engine(np.ascontiguousarray(pixels[..., ::-1]), use_cls=False)
        return [ReadLine(text, _bounds(corners), float(score)) for corners, text, score in lines or []]

    return read


def _bounds(corners: Sequence[Sequence[float]]) -> Box:
    points = np.asarray(corners)
    left, top = np.floor(points.min(0)).astype(int)
    right, bottom = np.ceil(points.max(0)).astype(int)
    return int(left), int(top), int(right), int(bottom)


class TextExaminer:
    """Reads the pictures of :mod:`diffusion_codec.audit.drawing`."""

    name = "audit-text"
    origin = "drawn; photographs of kodak, coco-val2017-128 and sample; scikit-image's page"

    def __init__(self, reader: Reader | None = None, subjects: Sequence[Subject[Text]] | None = None) -> None:
        self._reader, self._subjects = reader, subjects

    @cached_property
    def reader(self) -> Reader:
        """The reader, loaded when first used."""
        return self._reader or rapid_reader()

    @cached_property
    def subjects(self) -> Sequence[Subject[Text]]:
        """Pages, tables, plates, signs, a scan, photographs."""
        return drawing.subjects() if self._subjects is None else self._subjects

    @cached_property
    def protocols(self) -> dict[str, str]:
        """One protocol: the reader's."""
        reader = f"rapidocr-onnxruntime {_version('rapidocr-onnxruntime')}, PP-OCRv4"
        how = f"letters and digits, Levenshtein by line; {reader}, lines found at {DETECTION_SIDE} pixels"
        values = {name: how for name in vars(Characters()) if name != "confident"}
        return values | {"confident": f"{how}; lines of confidence {CONFIDENT:g} or more"}

    def examine(self, index: int, decoded: Pixels) -> Findings:
        """Characters by fate, and the beginning of what was read."""
        read = self.reader(decoded)
        counted = compare(self.subjects[index].truth, read)
        words = " ".join(line.text for line in read)[:SHOWN_CHARACTERS]
        return Findings({name: float(value) for name, value in vars(counted).items()}, words)


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"
