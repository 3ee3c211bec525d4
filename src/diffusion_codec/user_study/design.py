"""What is compared with what, and who sees it when: balanced, randomised sessions from one seed."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from diffusion_codec.closed import Closed
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.files import write_atomically

FILE, STIMULI = "study.json", "stimuli"
ORIGINAL, SENTINEL = "original", "sentinel"
Kind = Literal["pair", "repeat", "sentinel"]


class Condition(Closed):
    """A codec at the rate it was asked for, in bits per pixel."""

    codec: str
    target_bpp: float | None = None

    @property
    def label(self) -> str:
        """`avif at 0.15`, or the codec alone where it has no rate."""
        return self.codec if self.target_bpp is None else f"{self.codec} at {self.target_bpp:g}"


class Stimulus(Closed):
    """A picture that is shown; its file's name is a hash, so that it tells nobody which codec made it.

    `bytes` and `bpp` are those of the codec's file of the whole photograph, None for the original.
    """

    file: str = Field(pattern=r"^[0-9a-f]{32}\.webp$")
    image: str
    condition: Condition
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    bytes: int | None = None
    bpp: float | None = None


def check_session(trials: int, repeats: int, sentinels: int, cells: int) -> None:
    """Raise BadInputError if no session can be made of so many photographs times pairs (`cells`)."""
    main = trials - repeats - sentinels
    if repeats < 0 or sentinels < 0 or not 1 <= main <= cells:
        raise BadInputError(
            f"{trials} trials less {repeats} repeats and {sentinels} sentinels must be 1 to {cells}, the number of "
            "photographs times pairs"
        )
    if repeats > main // 2:
        raise BadInputError(
            f"at most {main // 2} repeats fit a session of {main} pairs that count, not {repeats}"
        )


class Study(Closed):
    """A whole study. `trials` are those of one session, repeats and sentinels among them.

    A repeat shows an earlier pair again with sides swapped. A sentinel is a pair whose answer is known: the original
    against a picture that anybody sees is damaged.
    """

    schema_version: Literal[1] = 1
    title: str
    dataset: str
    origin: str
    dataset_sha256: str
    seed: int
    trials: int
    repeats: int
    sentinels: int
    ties: bool
    pairs: tuple[tuple[Condition, Condition], ...]
    stimuli: tuple[Stimulus, ...]
    codecs: dict[str, str]

    @property
    def id(self) -> str:
        """First 12 hexadecimal digits of the content's SHA-256."""
        content = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the photographs, in order."""
        return tuple(dict.fromkeys(stimulus.image for stimulus in self.stimuli))

    @property
    def main_trials(self) -> int:
        """Trials of a session that count: neither repeats nor sentinels."""
        return self.trials - self.repeats - self.sentinels

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        check_session(self.trials, self.repeats, self.sentinels, len(self.images) * len(self.pairs))
        needed = {Condition(codec=ORIGINAL)} | {c for pair in self.pairs for c in pair}
        if self.sentinels:
            needed.add(Condition(codec=SENTINEL))
        there = {(s.image, s.condition) for s in self.stimuli}
        missing = [(i, c) for i in self.images for c in needed if (i, c) not in there]
        if missing:
            raise ValueError(f"photograph {missing[0][0]} lacks {missing[0][1].label}")
        return self


@dataclass(frozen=True)
class Trial:
    """One question: which of `a` and `b` is better, given the original?"""

    number: int
    kind: Kind
    original: Stimulus
    a: Stimulus
    b: Stimulus


def save(study: Study, folder: Path) -> None:
    """Write `study.json`."""
    write_atomically(folder / FILE, (study.model_dump_json(indent=1) + "\n").encode(), force=True)


def load(folder: Path) -> Study:
    """Read `study.json`. Raises MissingDataError, BadInputError."""
    path = folder / FILE
    if not path.is_file():
        raise MissingDataError(
            f"{path} is missing: make a study first, `diffusion-codec study design {folder}`"
        )
    try:
        return Study.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise BadInputError(f"{path} is not a study: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """The first problem of a validation as one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place + ': ' if place else ''}{first['msg']}"


class Sessions:
    """The sessions of a study by number: `sessions[0]` is what the first rater sees.

    After every session each (photograph, pair) has been shown as often as any other, give or take one; which side
    a codec is on alternates with each showing. The same seed gives the same sessions.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._made: list[tuple[Trial, ...]] = []
        self._maker = self._make()
        self._one_at_a_time = Lock()

    def __getitem__(self, number: int) -> tuple[Trial, ...]:
        with self._one_at_a_time:
            while len(self._made) <= number:
                self._made.append(next(self._maker))
        return self._made[number]

    def _make(self) -> Iterator[tuple[Trial, ...]]:
        study = self.study
        cells = [(image, pair) for image in study.images for pair in study.pairs]
        shown = np.zeros(len(cells), int)
        first_side = np.random.default_rng([study.seed, 0]).integers(0, 2, len(cells))
        number = 0
        while True:
            number += 1
            rng = np.random.default_rng([study.seed, number])
            chosen = np.lexsort((rng.random(len(cells)), shown))[: study.main_trials]
            swapped = (first_side[chosen] + shown[chosen]) % 2 == 1
            shown[chosen] += 1
            main = [
                (cells[c][0], *(reversed(cells[c][1]) if swap else cells[c][1]))
                for c, swap in zip(chosen, swapped, strict=True)
            ]
            yield self._session(_apart(main, rng), rng)

    def _session(
        self, main: list[tuple[str, Condition, Condition]], rng: np.random.Generator
    ) -> tuple[Trial, ...]:
        study = self.study
        planned: list[tuple[Kind, str, Condition, Condition]] = [("pair", *row) for row in main]
        half = len(main) // 2
        again = sorted(int(k) for k in rng.permutation(half)[: study.repeats])
        for k in again:  # from the first half into the second, sides swapped
            image, a, b = main[k]
            place = int(rng.integers(half + (len(main) - half) // 2, len(planned) + 1))
            planned.insert(place, ("repeat", image, b, a))
        for image in rng.permutation(np.resize(study.images, study.sentinels)):
            sides = [Condition(codec=ORIGINAL), Condition(codec=SENTINEL)]
            a, b = (sides[k] for k in rng.permutation(2))
            planned.insert(int(rng.integers(1, len(planned) + 1)), ("sentinel", str(image), a, b))
        found = {(s.image, s.condition): s for s in study.stimuli}
        return tuple(
            Trial(n, kind, found[image, Condition(codec=ORIGINAL)], found[image, a], found[image, b])
            for n, (kind, image, a, b) in enumerate(planned)
        )


def _apart(
    rows: list[tuple[str, Condition, Condition]], rng: np.random.Generator
) -> list[tuple[str, Condition, Condition]]:
    """In random order, one photograph not twice running where that can be avoided."""
    left = [rows[k] for k in rng.permutation(len(rows))]
    ordered: list[tuple[str, Condition, Condition]] = []
    while left:
        remaining: dict[str, int] = {}
        for row in left:
            remaining[row[0]] = remaining.get(row[0], 0) + 1
        other = [row for row in left if not ordered or row[0] != ordered[-1][0]] or left
        most = max(remaining[row[0]] for row in other)
        crowded = [row for row in other if remaining[row[0]] == most]
        # a photograph with more than half of what is left has to come now, or it comes twice running later
        row = crowded[0] if 2 * most > len(left) else other[0]
        left.remove(row)
        ordered.append(row)
    return ordered
