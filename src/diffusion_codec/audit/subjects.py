"""What an audit looks at: pictures whose truth is known, and an examiner that finds what is left of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from diffusion_codec.evaluation.codecs import Coded, Pixels

Truth = TypeVar("Truth", covariant=True)


@dataclass(frozen=True, eq=False)
class Subject(Generic[Truth]):
    """One picture, uint8 H x W x 3, and what is known to be in it."""

    id: str
    pixels: Pixels
    truth: Truth


@dataclass(frozen=True)
class Findings:
    """Counts and distances by name, and the reading in words where there is one."""

    values: dict[str, float]
    reading: str = ""


class Examiner(Protocol):
    """Looks at decoded subjects."""

    @property
    def name(self) -> str:
        """Of the data set in the records: `audit-text`, ..."""

    @property
    def origin(self) -> str:
        """Where the pictures come from."""

    @property
    def protocols(self) -> dict[str, str]:
        """How each value is found, with the versions of the programs that find it."""

    @property
    def subjects(self) -> Sequence[Subject[object]]:
        """All pictures, in a fixed order."""

    def examine(self, index: int, decoded: Pixels) -> Findings:
        """What is left of subject number `index` in a decoded picture of it."""


def sha256(subjects: Sequence[Subject[object]]) -> str:
    """One hash of all pictures and truths: equal subjects, comparable numbers."""
    digest = hashlib.sha256()
    for subject in subjects:
        digest.update(repr((subject.id, subject.pixels.shape, subject.truth)).encode())
        digest.update(subject.pixels.tobytes())
    return digest.hexdigest()


class Original:
    """The picture itself, as a codec without loss: what the examiner misses even there is not a codec's fault."""

    name = "original"
    version = "none"
    settings = "the pixels as they are, no file"
    has_rate = False

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """The pixels; the rate is not used."""
        return Coded(None, pixels, 0.0, 0.0)
