"""Faces with stand-ins for detector and recogniser: brightness is the face."""

import numpy as np
import pytest

from diffusion_codec.audit.faces import CROP, Face, FaceExaminer, Landmarks, find_subjects
from diffusion_codec.audit.faces import _of_photograph as of_photograph
from diffusion_codec.audit.subjects import Subject
from diffusion_codec.errors import BadInputError


def face(left: float, top: float, side: float, score: float = 0.95) -> Landmarks:
    points = [left + side / 3, top + side / 3] * 5
    return np.array([left, top, side, side, *points, score], np.float32)


class Brightness:
    """Sees the faces it is told of; an embedding is the direction of the mean level."""

    version = "stand-in"

    def __init__(self, faces: list[Landmarks]) -> None:
        self.faces = faces

    def detect(self, pixels: np.ndarray) -> list[Landmarks]:
        return self.faces if pixels.mean() > 0 else []

    def embed(self, pixels: np.ndarray, face: Landmarks) -> np.ndarray:
        angle = pixels.mean() / 255 * np.pi
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


def examiner(*levels: int) -> FaceExaminer:
    tools = Brightness([face(10, 10, 60)])
    truth = Face(tuple(float(v) for v in face(10, 10, 60)))
    subjects = [Subject(str(level), np.full((90, 90, 3), level, np.uint8), truth) for level in levels]
    return FaceExaminer(tools, subjects)


def test_an_original_is_itself_and_nobody_else() -> None:
    found = examiner(20, 140, 240).examine(0, np.full((90, 90, 3), 20, np.uint8)).values
    assert found["similarity"] == 1
    assert found["found"] == 1
    assert found["strangers"] == 2
    assert found["false-matches"] == 0


def test_a_face_that_became_another_one_is_a_false_match() -> None:
    found = examiner(20, 140, 240).examine(0, np.full((90, 90, 3), 140, np.uint8)).values
    assert found["similarity"] < 0.363
    assert found["false-matches"] == 1
    assert found["nearest-stranger"] == 1


def test_two_pictures_of_one_person_are_no_strangers() -> None:
    assert examiner(20, 22, 240).examine(0, np.full((90, 90, 3), 20, np.uint8)).values["strangers"] == 1


def test_a_picture_without_a_face_is_not_found() -> None:
    assert examiner(20, 140).examine(0, np.zeros((90, 90, 3), np.uint8)).values["found"] == 0


def test_faces_are_cut_out_whole_and_small_doubtful_or_cut_ones_are_left() -> None:
    photo = np.full((400, 600, 3), 100, np.uint8)
    good = face(500, 20, 60)
    bad = [face(300, 300, 20), face(300, 300, 60, 0.7), face(580, 100, 60)]
    (subject,) = of_photograph(Brightness([good, *bad]), "photo", photo)
    assert subject.id == "photo-1"
    assert subject.pixels.shape == (CROP, CROP, 3)
    left, top, width, height = subject.truth.array[:4]
    assert (left, top, width, height) == (500 - (600 - CROP), 20, 60, 60)


def test_large_faces_are_halved_first() -> None:
    class Halving(Brightness):
        def detect(self, pixels: np.ndarray) -> list[Landmarks]:
            return [face(40, 40, pixels.shape[0] / 2)]

    (subject,) = of_photograph(Halving([]), "photo", np.full((600, 600, 3), 100, np.uint8))
    assert subject.truth.array[2] == 150
    assert subject.pixels.shape[0] <= 300 + 75


def test_no_face_at_all_is_an_error() -> None:
    with pytest.raises(BadInputError, match="no face"):
        _ = FaceExaminer(Brightness([]), []).subjects
    assert find_subjects(Brightness([]), ["sample"]) == []
