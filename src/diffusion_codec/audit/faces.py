"""Faces through a codec: is a person still recognised, and is somebody else recognised instead?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffusion_codec import datasets, fetch
from diffusion_codec.audit.subjects import Findings, Subject
from diffusion_codec.errors import BadInputError, MissingDataError, how_to_install
from diffusion_codec.evaluation.codecs import Pixels

Embedding = NDArray[np.float32]
Landmarks = NDArray[np.float32]
"""What YuNet tells of a face, (15,): box (left, top, width, height), five points, score."""

SAME_PERSON = 0.363
"""Cosine from which SFace takes two faces for one person: the threshold its authors give (OpenCV's model zoo)."""

DATASETS = ("kodak", "coco-val2017-128", "sample")
MIN_SIDE, MIN_SCORE = 48, 0.88
LARGE = 160
CROP = 256
MARGIN = 1.5


class FaceTools(Protocol):
    """A detector and a recogniser."""

    def detect(self, pixels: Pixels) -> list[Landmarks]:
        """Faces in uint8 H x W x 3, the surest first."""

    def embed(self, pixels: Pixels, face: Landmarks) -> Embedding:
        """The face as a vector of length 1."""


class OpenCvFaces:
    """YuNet and SFace run by OpenCV on one thread.

    Raises MissingDataError where the package or the weights cannot be had.
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingDataError(
                f"faces need the extra 'audit' ({error}): run `make audit`, or {how_to_install('audit')}"
            ) from error
        cv2.setNumThreads(1)
        logging: Any = cv2.utils.logging
        logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # the new engine warns of settings that nobody made
        weights = {
            name: str(fetch.locate(name).path) for name in ("yunet-face-detector", "sface-face-recogniser")
        }
        self.version = f"opencv {cv2.__version__}"
        self._detector: Any = cv2.FaceDetectorYN.create(weights["yunet-face-detector"], "", (320, 320), 0.6)
        self._recogniser: Any = cv2.FaceRecognizerSF.create(weights["sface-face-recogniser"], "")

    def detect(self, pixels: Pixels) -> list[Landmarks]:
        """Faces of score 0.6 or more."""
        self._detector.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, faces = self._detector.detect(_bgr(pixels))
        return [] if faces is None else sorted(faces, key=lambda face: -float(face[14]))

    def embed(self, pixels: Pixels, face: Landmarks) -> Embedding:
        """SFace's 128 numbers of the face, aligned by its five points."""
        vector: Embedding = self._recogniser.feature(self._recogniser.alignCrop(_bgr(pixels), face)).ravel()
        return vector / np.linalg.norm(vector)


def _bgr(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[..., ::-1])


@dataclass(frozen=True)
class Face:
    """A face in a picture: YuNet's numbers as text, so that subjects can be compared by hash."""

    landmarks: tuple[float, ...]

    @property
    def array(self) -> Landmarks:
        """The same as the array that detector and recogniser take."""
        return np.array(self.landmarks, np.float32)


def find_subjects(tools: FaceTools, names: Sequence[str] = DATASETS) -> list[Subject[Face]]:
    """Every face of the data sets that is large and sure enough, in a part of the photograph round it.

    The part has CROP pixels a side, or the face and MARGIN times its size around it; photographs with a face
    wider than LARGE are halved first.
    """
    subjects = []
    for name in names:
        for item in datasets.load(name):
            subjects += _of_photograph(tools, item.id, item.pixels())
    return subjects


def _of_photograph(tools: FaceTools, name: str, pixels: Pixels) -> list[Subject[Face]]:
    faces = [face for face in tools.detect(pixels) if _usable(face, pixels)]
    if any(face[2] > LARGE for face in faces):
        height, width = (side // 2 for side in pixels.shape[:2])
        halves = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))
        return _of_photograph(tools, name, np.rint(halves).astype(np.uint8))
    return [_cut(f"{name}-{number}", pixels, face) for number, face in enumerate(faces, 1)]


def _usable(face: Landmarks, pixels: Pixels) -> bool:
    left, top, width, height = face[:4]
    inside = left >= 0 and top >= 0 and left + width <= pixels.shape[1] and top + height <= pixels.shape[0]
    return bool(inside and min(width, height) >= MIN_SIDE and face[14] >= MIN_SCORE)


def _cut(name: str, pixels: Pixels, face: Landmarks) -> Subject[Face]:
    left, top, width, height = face[:4]
    side = max(CROP, round((1 + MARGIN) * float(max(width, height))))
    x, y = (_start(float(at + size / 2), side, limit) for at, size, limit in
            ((left, width, pixels.shape[1]), (top, height, pixels.shape[0])))  # fmt: skip
    part = np.ascontiguousarray(pixels[y : y + side, x : x + side])
    moved = face.copy()
    moved[[0, 4, 6, 8, 10, 12]] -= x
    moved[[1, 5, 7, 9, 11, 13]] -= y
    return Subject(name, part, Face(tuple(round(float(value), 2) for value in moved)))


def _start(centre: float, side: int, limit: int) -> int:
    return max(0, min(round(centre - side / 2), limit - side))


class FaceExaminer:
    """Compares every decoded face with its own original and with everybody else's."""

    name = "audit-faces"
    origin = f"faces in the photographs of {', '.join(DATASETS)}"

    def __init__(
        self, tools: FaceTools | None = None, subjects: Sequence[Subject[Face]] | None = None
    ) -> None:
        self._tools, self._subjects = tools, subjects

    @cached_property
    def tools(self) -> FaceTools:
        """Detector and recogniser, loaded when first used."""
        return self._tools or OpenCvFaces()

    @cached_property
    def subjects(self) -> Sequence[Subject[Face]]:
        """Faces found in the originals."""
        found = find_subjects(self.tools) if self._subjects is None else self._subjects
        if not found:
            raise BadInputError("the detector finds no face in any of the photographs")
        return found

    @cached_property
    def originals(self) -> Embedding:
        """Embeddings of the originals, (faces, 128)."""
        return np.stack([self.tools.embed(s.pixels, s.truth.array) for s in self.subjects])

    @cached_property
    def strangers(self) -> NDArray[np.bool_]:
        """(faces, faces): pairs whose originals are told apart. The others may be one person, and do not count."""
        return (self.originals @ self.originals.T) < SAME_PERSON

    @cached_property
    def protocols(self) -> dict[str, str]:
        """One protocol: detector and recogniser."""
        how = f"YuNet, SFace, {getattr(self.tools, 'version', 'unknown')}, aligned by the original's five points"
        return {
            "similarity": f"cosine of decoded and original; {how}",
            "found": f"1 if the detector still finds the face; {how}",
            "strangers": f"other faces whose original is below {SAME_PERSON}; {how}",
            "false-matches": f"of these, how many the decoded face matches at {SAME_PERSON}; {how}",
            "nearest-stranger": f"largest cosine to one of these; {how}",
        }

    def examine(self, index: int, decoded: Pixels) -> Findings:
        """How near to oneself and to others."""
        face = self.subjects[index].truth.array
        cosines = self.originals @ self.tools.embed(decoded, face)
        others = cosines[self.strangers[index]]
        found = any(_overlap(face, other) >= 0.5 for other in self.tools.detect(decoded))
        return Findings(
            {
                "similarity": round(float(cosines[index]), 4),
                "found": float(found),
                "strangers": float(len(others)),
                "false-matches": float((others >= SAME_PERSON).sum()),
                "nearest-stranger": round(float(others.max(initial=-1.0)), 4),
            }
        )


def _overlap(a: Landmarks, b: Landmarks) -> float:
    """Intersection over union of two faces' boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(float(width), 0.0) * max(float(height), 0.0)
    return shared / (float(a[2] * a[3] + b[2] * b[3]) - shared)
