"""Facts of others in `data/published/`: the HiFiC study's votes, counted, and the paper's table, to be filled."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import yaml
from pydantic import Field, ValidationError, model_validator

from diffusion_codec.closed import Closed
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.fetch import in_clone, repository_root
from diffusion_codec.user_study.design import describe

BY_RATER, BY_IMAGE = "hific_votes_by_rater.csv", "hific_votes_by_image.csv"
SETTINGS, METRICS, PAPER = "hific_settings.csv", "hific_metrics.csv", "user_study.yaml"


def folder() -> Path:
    """`data/published` of the repository. Raises MissingDataError outside a clone, which alone has it."""
    if not in_clone():
        raise MissingDataError(
            "the facts of others are in data/published/ of a clone of the project, not in a wheel"
        )
    return repository_root() / "data" / "published"


def count(rows: Iterable[Mapping[str, str]], cluster: str) -> list[dict[str, object]]:
    """Single choices (`preferred`, `other`, `random_choice`) to counts by cluster (`rater` or `image`) and pair.

    `count` is all choices, `random` those of them where the rater said it was a guess. Choices between a setting and
    itself are no comparison and are left out.
    """
    all_: Counter[tuple[str, str, str]] = Counter()
    guessed: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        if row["preferred"] != row["other"]:
            key = (row[cluster].removesuffix(".png"), row["preferred"], row["other"])
            all_[key] += 1
            guessed[key] += int(row["random_choice"])
    return [
        {cluster: key[0], "preferred": key[1], "other": key[2], "count": all_[key], "random": guessed[key]}
        for key in sorted(all_)
    ]


def write_counts(source: Path, target: Path, cluster: str) -> None:
    """Count the single choices in a csv file and write the counts."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = count(csv.DictReader(file), cluster)
    with target.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def hific(cluster: str = "rater", guesses: str = "as cast") -> pd.DataFrame:
    """The HiFiC study (Mentzer et al. 2020) as comparisons for `analysis`, by rater or by image.

    `guesses` of raters who said that they saw no difference: "as cast", or "ties" (half to each side).
    """
    if cluster not in ("rater", "image") or guesses not in ("as cast", "ties"):
        raise BadInputError("cluster is rater or image, guesses are taken 'as cast' or as 'ties'")
    table = _table(BY_RATER if cluster == "rater" else BY_IMAGE)
    labels = settings()["label"]
    one, two = table["preferred"].map(labels), table["other"].map(labels)
    base = pd.DataFrame({cluster: table[cluster], "one": one, "two": two})
    if guesses == "as cast":
        return base.assign(score=1.0, count=table["count"])
    sure = base.assign(score=1.0, count=table["count"] - table["random"])
    tied = base.assign(score=0.5, count=table["random"])
    both = pd.concat([sure, tied], ignore_index=True)
    return both[both["count"] > 0].reset_index(drop=True)


def settings() -> pd.DataFrame:
    """The nine settings: label, codec, bpp (NaN where no text states it) and its source, by the name in the votes."""
    return _table(SETTINGS).set_index("setting")


def hific_metrics() -> pd.DataFrame:
    """Published means of metrics for settings of the study: label, metric, value, source."""
    table = _table(METRICS)
    return table.assign(label=table["setting"].map(settings()["label"]))


def _table(name: str) -> pd.DataFrame:
    path = folder() / name
    if not path.is_file():
        raise MissingDataError(f"{path} is missing; it belongs to the repository: check it out again")
    return pd.read_csv(path)


class PaperRow(Closed):
    """One comparison of the paper's study. Empty cells are None; a row is empty or whole, never half filled."""

    rival: str | None
    dataset: str | None
    bpp: float | None = Field(gt=0)
    rival_bpp: float | None = Field(gt=0)
    preferred_percent: float | None = Field(ge=0, le=100)
    low_percent: float | None = Field(ge=0, le=100)
    high_percent: float | None = Field(ge=0, le=100)
    votes: int | None = Field(gt=0)
    place: str | None

    @property
    def filled(self) -> bool:
        """Whether somebody with the paper at hand has filled it in."""
        return self.rival is not None

    @model_validator(mode="after")
    def _whole(self) -> "PaperRow":
        needed = ("rival", "dataset", "bpp", "rival_bpp", "preferred_percent", "place")
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if given and set(needed) - set(given):
            missing = ", ".join(sorted(set(needed) - set(given)))
            raise ValueError(f"the row is filled by half, these cells are empty: {missing}")
        if (
            self.low_percent is not None
            and self.preferred_percent is not None
            and self.high_percent is not None
        ):
            if not self.low_percent <= self.preferred_percent <= self.high_percent:
                raise ValueError("the interval does not hold the share")
        elif (self.low_percent is None) != (self.high_percent is None):
            raise ValueError("an interval has two ends")
        return self


class PaperTable(Closed):
    """The user study of the paper: what its abstract says, and a table to be filled from its pages."""

    citation: str
    claim: str
    claim_place: str
    protocol: str | None
    raters: int | None = Field(gt=0)
    images: int | None = Field(gt=0)
    rows: tuple[PaperRow, ...]

    def frame(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame([row.model_dump() for row in self.rows])


def paper(path: Path | None = None) -> PaperTable:
    """Read `user_study.yaml`. Raises BadInputError, which names the wrong cell."""
    path = path or folder() / PAPER
    if not path.is_file():
        raise MissingDataError(f"{path} is missing; it belongs to the repository: check it out again")
    try:
        return PaperTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        reason = describe(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise BadInputError(f"{path}: {reason}") from error
