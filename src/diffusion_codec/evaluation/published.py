"""What others published, each number with its source and protocol, and the rule that no axis mixes two protocols."""

import tomllib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from diffusion_codec import fetch, metrics
from diffusion_codec.closed import Closed
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.tables import NotComparableError

COLUMNS = ("dataset", "metric", "protocol", "codec", "bpp", "value", "source")


class PublishedError(BadInputError):
    """A published number without source or protocol, or a file that is not a table of them."""


class Protocol(Closed):
    """How numbers were measured; `same_as_ours` are the metrics that we measure in the same way."""

    text: str
    same_as_ours: tuple[str, ...] = ()


class Source(Closed):
    """Where numbers come from."""

    citation: str
    repository: str


class Sources(Closed):
    """All protocols and sources by name."""

    protocols: dict[str, Protocol]
    sources: dict[str, Source]


def folder() -> Path:
    """Where the repository keeps published facts."""
    return fetch.repository_root() / "data" / "published"


def read_sources(path: Path) -> Sources:
    """Protocols and sources. Raises PublishedError; unknown keys are errors."""
    try:
        return Sources.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise PublishedError(f"{path.name}: {error}") from error


@lru_cache(maxsize=1)
def sources() -> Sources:
    """The protocols and sources of the repository."""
    return read_sources(folder() / "sources.toml")


def read(path: Path | None = None, known: Sources | None = None) -> pd.DataFrame:
    """All published numbers; bpp is NaN for an autoencoder without a file. Raises PublishedError."""
    table = pd.read_csv(path or folder() / "rate_distortion.csv")
    if tuple(table.columns) != COLUMNS:
        raise PublishedError(f"published numbers have the columns {', '.join(COLUMNS)}")
    known = known or sources()
    for column, names in (("protocol", known.protocols), ("source", known.sources)):
        strange = sorted(set(table[column].astype(str)) - set(names))
        if strange:
            raise PublishedError(f"{column} {strange[0]!r} is not described in sources.toml")
    return table


def of(dataset: str, metric: str, protocol: str) -> pd.DataFrame:
    """The published numbers of one data set, metric and protocol, by codec and rate."""
    table = read()
    chosen = (table["dataset"] == dataset) & (table["metric"] == metric) & (table["protocol"] == protocol)
    return table[chosen].sort_values(["codec", "bpp"]).reset_index(drop=True)


def one_protocol(table: pd.DataFrame, metric: str) -> str:
    """The protocol all numbers of one axis share. Raises NotComparableError where they do not.

    A published protocol that measures a metric as we do counts as ours.
    """
    ours = metrics.get(metric).protocol if metric in metrics.names() else None
    described = sources().protocols
    found = {
        ours if name in described and metric in described[name].same_as_ours else name
        for name in table.loc[table["metric"] == metric, "protocol"].astype(str)
    }
    if len(found) != 1:
        raise NotComparableError(
            f"one axis shows one protocol, not {len(found)} of {metric}: {'; '.join(sorted(map(str, found)))}"
        )
    return str(next(iter(found)))


TWINS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AV1 (libaom)", "vvc": "VTM"}
"""Our encoders and what CompressAI's results call theirs of the same standard."""


def agreement(summary: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Our encoders against CompressAI's on Kodak, at their rates, between ours; nothing is extrapolated.

    Columns: codec, theirs, bpp, ours (value), published (value), difference.
    """
    columns = ["codec", "theirs", "bpp", "ours", "published", "difference"]
    facts = of("kodak", metric, "rgb-mean")
    rows = []
    for own, name in TWINS.items():
        mine = summary[(summary["codec"] == own) & (summary["metric"] == metric)].sort_values("bpp")
        if len(mine) < 2:
            continue
        both = pd.concat([mine, facts[facts["codec"] == name]])
        one_protocol(both, metric)
        for point in facts[facts["codec"] == name].itertuples():
            if mine["bpp"].min() <= point.bpp <= mine["bpp"].max():
                value = float(np.interp(point.bpp, mine["bpp"], mine["value"]))
                rows.append((own, name, point.bpp, value, point.value, value - point.value))
    return pd.DataFrame(rows, columns=columns)


def citations(table: pd.DataFrame) -> str:
    """The citations of the sources of a table, for a caption."""
    return "; ".join(sources().sources[name].citation for name in sorted(set(table["source"])))
