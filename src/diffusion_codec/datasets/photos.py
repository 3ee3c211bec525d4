"""The photographs of a folder, and the check that nothing is trained on what it is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_codec import fetch
from diffusion_codec.datasets.images import ImageDataset, Pixels, from_files
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.image_io import load_image, picture_suffixes
from diffusion_codec.pixels import pixels_sha256

THUMBNAIL = 32
MAX_DIFFERENT_BITS = 10
MIN_CORRELATION = 0.98


class OverlapError(BadInputError):
    """Training and evaluation share a photograph."""


def photographs(folder: Path) -> ImageDataset:
    """The photographs of a folder as a data set, whose name ends in a slash, as no other's does.

    Raises MissingDataError where there are none.
    """
    if not folder.is_dir():
        raise MissingDataError(f"{folder} is not a folder; name one that holds photographs")
    return from_files(f"{folder.resolve().name}/", "a folder", photo_files(folder))


def photo_files(folder: Path) -> list[Path]:
    """What is taken for photographs in a folder and those inside it, in order of path; nothing hidden."""
    suffixes = picture_suffixes()
    named = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return [
        path for path in named if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


@dataclass(frozen=True)
class Fingerprint:
    """What two copies of a photograph share: exact pixels, or the look of a small grey version."""

    id: str
    pixels_sha256: str
    bits: int  # 64 signs of horizontal differences (dHash)
    thumbnail: NDArray[np.float32]  # THUMBNAIL x THUMBNAIL, zero mean, unit norm

    def same_as(self, other: "Fingerprint") -> bool:
        """Whether both show one photograph, also after scaling and recompression."""
        if self.pixels_sha256 == other.pixels_sha256:
            return True
        if (self.bits ^ other.bits).bit_count() > MAX_DIFFERENT_BITS:
            return False
        return float(np.vdot(self.thumbnail, other.thumbnail)) > MIN_CORRELATION


def fingerprint(name: str, pixels: Pixels) -> Fingerprint:
    """Fingerprint of uint8 H x W x 3."""
    grey = Image.fromarray(pixels).convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = int("".join("1" if bit else "0" for bit in (small[:, 1:] > small[:, :-1]).ravel()), 2)
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32)
    thumbnail -= thumbnail.mean()
    thumbnail /= np.linalg.norm(thumbnail) or 1.0
    return Fingerprint(name, pixels_sha256(pixels), bits, thumbnail)


def overlap(train: Sequence[Fingerprint], test: Sequence[Fingerprint]) -> list[tuple[str, str]]:
    """Pairs (training id, test id) that show one photograph: equal pixels, or alike to the eye at 32 x 32."""
    return [(a.id, b.id) for a in train for b in test if a.same_as(b)]


def evaluation_sets() -> tuple[str, ...]:
    """The data sets of photographs in the manifest that are not there to be trained on."""
    entries = fetch.manifest().entries.items()
    return tuple(name for name, e in entries if e.kind == "images" and not e.use.startswith("training"))


def assert_disjoint(train: Sequence[Fingerprint], names: Sequence[str] | None = None) -> None:
    """Raise OverlapError, naming the pairs, if a photograph of the named sets (all for evaluation) is in `train`.

    A mirrored one counts, as training mirrors. Sets that are not on this machine are left out; nothing is fetched.
    """
    for name in evaluation_sets() if names is None else names:
        located = fetch.store().find(name)
        files = fetch.image_files(fetch.manifest()[name], located.path) if located else []
        looks = ((path.stem, load_image(path).pixels) for path in files)
        pairs = overlap(train, [fingerprint(stem, p) for stem, seen in looks for p in (seen, seen[:, ::-1])])
        if pairs:
            named = ", ".join(f"{a} = {b}" for a, b in pairs[:5])
            raise OverlapError(
                f"{len(pairs)} of the photographs to train on are in the evaluation set {name} ({named}): remove "
                f"them, or the results on {name} mean nothing"
            )
