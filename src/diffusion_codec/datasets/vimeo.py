"""Vimeo-90k septuplets (Xue et al., IJCV 2019) in the official layout.

The official layout: `sequences/<5 digits>/<4 digits>/im1.png` to `im7.png`, 448 x 256, and the lists
`sep_trainlist.txt` (64,612 lines) and `sep_testlist.txt` (7,824 lines), one `<5 digits>/<4 digits>` a line.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError, MissingDataError

Split = Literal["train", "test"]
FRAMES = 7
WIDTH, HEIGHT = 448, 256

Pixels = NDArray[np.uint8]


class BrokenSequenceError(BadInputError):
    """A frame of the set cannot be decoded or has the wrong size."""


@dataclass(frozen=True)
class Septuplets:
    """One split of the set: names of sequences in the order of its list file.

    Raises MissingDataError for a missing list file or sequences that are listed but not there.
    """

    root: Path
    split: Split
    names: tuple[str, ...]

    @classmethod
    def open(cls, root: Path, split: Split) -> "Septuplets":
        """Read the split's list below `root` and check that every sequence listed is there."""
        names = _read_list(root / f"sep_{split}list.txt")
        absent = [name for name in names if not (root / "sequences" / name / f"im{FRAMES}.png").is_file()]
        if absent:
            raise MissingDataError(
                f"{len(absent)} of the {len(names)} sequences in sep_{split}list.txt are not whole below "
                f"{root / 'sequences'} (the first is {absent[0]}): the download or the unpacking was cut "
                "short; unpack the archive again"
            )
        return cls(root, split, names)

    @classmethod
    def named(cls, name: str = "vimeo90k-septuplet", split: Split = "train") -> "Septuplets":
        """A set of the data manifest: vimeo90k-septuplet or vimeo90k-septuplet-48."""
        return cls.open(fetch.locate(name).path, split)

    def __len__(self) -> int:
        return len(self.names)

    def frame(self, sequence: int, number: int) -> Pixels:
        """Frame 1..7 of a sequence, uint8 256 x 448 x 3. Raises BrokenSequenceError."""
        if not 1 <= number <= FRAMES:
            raise BadInputError(f"a septuplet has frames 1 to {FRAMES}, no frame {number}")
        path = self.root / "sequences" / self.names[sequence] / f"im{number}.png"
        try:
            with Image.open(path) as image:
                pixels = np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise BrokenSequenceError(f"{path} cannot be read ({error}); unpack the archive again") from error
        if pixels.shape != (HEIGHT, WIDTH, 3):
            raise BrokenSequenceError(
                f"{path} is {pixels.shape[1]} x {pixels.shape[0]}, frames of Vimeo-90k septuplets are "
                f"{WIDTH} x {HEIGHT}: this is another set, or a resized copy"
            )
        return pixels


def _read_list(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise MissingDataError(
            f"{path} is missing; the folder must be the one of vimeo_septuplet.zip that holds "
            "sep_trainlist.txt, sep_testlist.txt and sequences/"
        )
    lines = [line.strip() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    names = tuple(line for line in lines if line)
    odd = [name for name in names if not re.fullmatch(r"\d{5}/\d{4}", name)]
    if odd or not names:
        raise BadInputError(
            f"{path} lists sequences as 00001/0001, one a line, not {odd[0] if odd else 'nothing'!r}"
        )
    return names
