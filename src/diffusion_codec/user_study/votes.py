"""The open csv of a study: one row a vote, the same from the server and from the page without a server.

| column | meaning |
|---|---|
| study | hash of the design |
| rater | pseudonym, drawn at random when the rater's first session began |
| session | number of the session, which decides its trials |
| trial | number of the trial in the session, from 0 |
| kind | pair, repeat (an earlier pair, sides swapped) or sentinel (a pair with a known answer) |
| image | photograph |
| a, b | codec on side A and side B (`original` and `sentinel` in sentinels) |
| a_target_bpp, b_target_bpp | bits per pixel asked for; empty for original and sentinel |
| a_bpp, b_bpp | bits per pixel of the file of this photograph; empty for the original |
| choice | a, b or tie |
| seconds | from the pictures' appearance to the choice |
| answered | date and time of the vote, UTC |
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.user_study.design import Condition, Trial

if TYPE_CHECKING:
    import pandas as pd

CHOICES = ("a", "b", "tie")
KINDS = ("pair", "repeat", "sentinel")
FIELDS = (
    "study",
    "rater",
    "session",
    "trial",
    "kind",
    "image",
    "a",
    "a_target_bpp",
    "a_bpp",
    "b",
    "b_target_bpp",
    "b_bpp",
    "choice",
    "seconds",
    "answered",
)
_NUMBERS = ("session", "trial", "a_target_bpp", "a_bpp", "b_target_bpp", "b_bpp", "seconds")


def key(study: str, trial: Trial) -> dict[str, object]:
    """What a row says about the question, without the answer."""
    row: dict[str, object] = {
        "study": study,
        "trial": trial.number,
        "kind": trial.kind,
        "image": trial.original.image,
    }
    for side, stimulus in (("a", trial.a), ("b", trial.b)):
        row[side] = stimulus.condition.codec
        row[f"{side}_target_bpp"] = stimulus.condition.target_bpp
        row[f"{side}_bpp"] = None if stimulus.bpp is None else round(stimulus.bpp, 6)
    return row


def to_csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows with all fields as csv text."""
    target = io.StringIO()
    writer = csv.DictWriter(target, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if row[name] is None else row[name] for name in FIELDS} for row in rows)
    return target.getvalue()


def read(paths: Sequence[Path]) -> "pd.DataFrame":
    """The votes of several csv files, each vote once.

    Raises MissingDataError, BadInputError (wrong columns or values, one trial answered in two ways).
    """
    import pandas as pd

    tables = [_read(path) for path in paths]
    if not tables:
        return pd.DataFrame({name: pd.Series(dtype=float if name in _NUMBERS else str) for name in FIELDS})
    found = pd.concat(tables, ignore_index=True).drop_duplicates()
    return check(found, "the files together")


def _read(path: Path) -> "pd.DataFrame":
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; `diffusion-codec study export` writes such a file")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not a csv file of votes: {error}") from error


def parse(text: str, where: str) -> "pd.DataFrame":
    """The votes in csv text; errors as `read`."""
    import pandas as pd

    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise BadInputError(f"{where} is not csv with votes: {error}") from error
    if tuple(table.columns) != FIELDS:
        raise BadInputError(
            f"{where}: expected the columns {', '.join(FIELDS)}; got {', '.join(table.columns)}"
        )
    return check(table, where)


def check(table: "pd.DataFrame", where: str) -> "pd.DataFrame":
    """Votes with numbers as numbers. Raises BadInputError for values that no study writes."""
    import pandas as pd

    table = table.copy()
    try:
        for name in _NUMBERS:
            table[name] = pd.to_numeric(table[name].replace("", None)).astype(float)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{where}: {name} is not a number ({error})") from error
    for name, allowed in (("choice", CHOICES), ("kind", KINDS)):
        wrong = sorted(set(table[name]) - set(allowed))
        if wrong:
            raise BadInputError(f"{where}: {name} is one of {', '.join(allowed)}, not {wrong[0]!r}")
    if table[["session", "trial"]].isna().any(axis=None):
        raise BadInputError(f"{where}: every vote has the numbers of its session and trial")
    twice = table[table.duplicated(["study", "rater", "session", "trial"])]
    if len(twice):
        first = twice.iloc[0]
        raise BadInputError(
            f"{where}: rater {first['rater']} answered trial {first['trial']:g} of study {first['study']} twice"
        )
    return table.reset_index(drop=True)


def condition_label(codec: str, target_bpp: float) -> str:
    """The name of a condition as the analysis shows it."""
    return Condition(codec=codec, target_bpp=None if math.isnan(target_bpp) else target_bpp).label
