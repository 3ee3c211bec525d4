"""From audited pictures to shares, limits and the evidence for claim C8."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from diffusion_codec.audit import measure
from diffusion_codec.audit.faces import SAME_PERSON
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import records
from diffusion_codec.evaluation.claims import Evidence
from diffusion_codec.evaluation.findings import LABELS, Sentence
from diffusion_codec.evaluation.tables import percentiles

OWN, CONSERVATIVE, CEILING, ORIGINAL = "dfc-mini", "dfc-mini@f0", "ceiling-mini", "original"
PLAIN = "dfc-mini@0"
"""The same files without denoising: only where claim C8 looks."""
RIVALS = ("avif", "webp", "jpeg")
RATE_SLACK = 1.02
REACHED = 0.9
"""Part of the pictures a codec must bring down to a rate to be compared at it."""

SPENT = 0.8
"""Part of a rate that a codec must spend on average: below, it has no better file to offer."""

KEPT = 0.99
RESAMPLES = 20_000
CLAIM_RATE, CLAIM_RIVAL = 0.15, "avif"  # the least rate that AVIF holds on pages of text, too


@dataclass(frozen=True)
class Share:
    """A ratio of two sums over pictures."""

    name: str
    part: str
    whole: str
    label: str


SHARES = {
    "text": (
        Share("right", "right", "characters", "characters read right"),
        Share("invented", "invented", "characters", "wrong characters read (invented)"),
        Share("confident", "confident", "characters", "wrong characters, read with confidence"),
        Share("missing", "missing", "characters", "characters missing"),
    ),
    "faces": (
        Share("not-recognised", "not-recognised", "faces", "not recognised as oneself"),
        Share("false-match", "false-matches", "strangers", "recognised as somebody else"),
    ),
    "patterns": (
        Share("missing", "missing", "objects", "objects missing"),
        Share("invented", "invented", "objects", "objects invented"),
        Share("miscounted", "miscounted", "objects", "error of the count"),
    ),
}
WORST = {"text": "confident", "faces": "false-match", "patterns": "invented"}
"""The share of each audit that is about inventing, not about losing."""

GROUPS = {
    "small print (9 and 12 pixels)": ("page-sans-9", "page-serif-9", "page-mono-9", "page-sans-12", "page-serif-12",
                                      "page-mono-12", "table-10"),
    "ordinary print (14 to 24 pixels)": ("page-sans-16", "page-serif-16", "page-mono-16", "page-sans-24",
                                         "page-serif-24", "page-mono-24", "table-14", "table-20"),
    "plates and signs": ("plate-", "sign-"),
    "scan and photographs": ("scan-", "photo-"),
}  # fmt: skip


def load(part: str, path: Path) -> pd.DataFrame:
    """One row a (codec, picture, rate) with the sums that the shares of this audit need.

    Raises:
        MissingDataError: no such result.
    """
    return prepared(part, measure.table(records.read(path)))


def prepared(part: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of :data:`SHARES` from the values as they were recorded."""
    rows = rows.copy()
    if part == "text":
        rows["characters"] = rows["right"] + rows["substituted"] + rows["missing"]
        rows["invented"] = rows["substituted"] + rows["inserted"]
    elif part == "faces":
        rows["faces"] = rows["similarity"].notna().astype(float)
        rows["not-recognised"] = (rows["similarity"] < SAME_PERSON).astype(float)
    elif part == "patterns":
        # every chart counts alike: the finest have a hundred times the objects of the coarsest
        whole = rows["objects"]
        rows["missing"] = (whole - rows["found"]) / whole
        rows["invented"] = rows["invented"] / whole
        rows["miscounted"] = (rows["counted"] - whole).abs() / whole
        rows["objects"] = whole / whole
    else:
        raise BadInputError(f"audit {part!r} is unknown; choose from {', '.join(SHARES)}")
    return rows


def curves(part: str, rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Each share of each codec at each rate, with a 95 % bootstrap interval over pictures.

    Columns: codec, target_bpp, bpp (mean of the real files), share, value, low, high, images, and `reached`: the
    part of the pictures whose file is not above the rate asked for.
    """
    made = []
    for (codec, rate), group in rows.groupby(["codec", "target_bpp"], dropna=False):
        done = group[group[SHARES[part][0].part].notna()]
        if done.empty:
            continue
        within = (done["bpp"] <= RATE_SLACK * rate).sum() if not pd.isna(rate) else len(group)
        for share in SHARES[part]:
            part_, whole = done[share.part].to_numpy(float), done[share.whole].to_numpy(float)
            low, high = _interval(part_, whole, seed)
            made.append(
                {
                    "codec": codec,
                    "target_bpp": rate,
                    "bpp": done["bpp"].mean(),
                    "share": share.name,
                    "value": part_.sum() / max(whole.sum(), 1.0),
                    "low": low,
                    "high": high,
                    "images": len(done),
                    "reached": within / len(group),
                }
            )
    return pd.DataFrame(made)


def _interval(part: np.ndarray, whole: np.ndarray, seed: int) -> tuple[float, float]:
    times = _draws(len(part), seed)
    ratios = (times @ part) / np.maximum(times @ whole, 1.0)
    if len(part) < 2:
        return float("nan"), float("nan")
    low, high = percentiles(ratios, float(part.sum() / max(whole.sum(), 1.0)), len(part))
    return max(low, 0.0), high


@lru_cache(maxsize=4)
def _draws(count: int, seed: int) -> np.ndarray:
    """How often each of so many pictures is in each resample, float64 (RESAMPLES, count)."""
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def at_equal_rates(table: pd.DataFrame, share: str, codecs: Sequence[str]) -> pd.DataFrame:
    """One row a rate asked for, one column a codec; missing where its files are larger, or much smaller."""
    spent = table["bpp"] >= SPENT * table["target_bpp"]
    rows = table[(table["share"] == share) & (table["reached"] >= REACHED) & spent]
    wide = rows.pivot_table(index="target_bpp", columns="codec", values="value", observed=True)
    everything = sorted(table["target_bpp"].dropna().unique())
    return wide.reindex(index=everything, columns=list(codecs)).rename_axis(columns=None)


def equal_rates(table: pd.DataFrame, codecs: Sequence[str] = (OWN, *RIVALS)) -> list[float]:
    """The rates at which all of these codecs have files of that size."""
    share = str(table["share"].iloc[0])
    return [float(rate) for rate in at_equal_rates(table, share, codecs).dropna().index]


def rate_that_keeps(table: pd.DataFrame, codec: str, kept: float = KEPT) -> float | None:
    """The least measured bits per pixel from which on a codec keeps this part of what is right in the originals.

    None where it does not at any rate measured.
    """
    right = table[table["share"] == "right"]
    limit = kept * float(right[right["codec"] == ORIGINAL]["value"].iloc[0])
    mine = right[(right["codec"] == codec) & right["target_bpp"].notna()].sort_values("target_bpp")
    good = mine["value"].to_numpy() >= limit
    if len(good) == 0 or not good[-1]:
        return None
    first = len(good) - int(np.argmin(good[::-1])) if not good.all() else 0
    return float(mine["bpp"].iloc[first])


def kept_table(
    rows: pd.DataFrame, codecs: Sequence[str] = (OWN, *RIVALS), kept: float = KEPT
) -> pd.DataFrame:
    """For each kind of text the rate from which on each codec keeps 99 % of the characters; missing: at none."""
    made = []
    for group, beginnings in GROUPS.items():
        some = rows[rows["image"].map(lambda name, b=beginnings: _begins(name, b))]
        if some.empty:
            continue
        table = curves("text", some)
        made.append({"text": group} | {codec: rate_that_keeps(table, codec, kept) for codec in codecs})
    return pd.DataFrame(made)


def _begins(name: str, beginnings: Sequence[str]) -> bool:
    """`plate-` is a kind; a whole name is one picture, so that page-sans-1 is not page-sans-16."""
    return any(name.startswith(b) if b.endswith("-") else name == b for b in beginnings)


def wrong_among_legible(rows: pd.DataFrame, codecs: Sequence[str]) -> pd.DataFrame:
    """Of the characters read with confidence, right or wrong, how many are wrong; one row a rate, one column a codec.

    Only rates at which all have files of that size. The columns ``<codec> count`` have how many are wrong.
    """
    equal = equal_rates(curves("text", rows), codecs)
    at = rows[rows["target_bpp"].isin(equal) & rows["codec"].isin(codecs)]
    sums = at.groupby(["target_bpp", "codec"])[["right", "confident"]].sum()
    share = (sums["confident"] / (sums["right"] + sums["confident"])).unstack("codec")
    counts = sums["confident"].unstack("codec").add_suffix(" count")
    return share.join(counts)


def legible_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`wrong_among_legible` for readers: bits per pixel, and of each codec the per cent and how many."""
    told = {"bits per pixel": [f"{rate:g}" for rate in table.index]}
    for codec, name in ((OWN, "this codec"), (CLAIM_RIVAL, LABELS[CLAIM_RIVAL])):
        shares = zip(table[codec], table[f"{codec} count"], strict=True)
        told[f"wrong after {name}"] = [f"{100 * share:.2f} % ({count:.0f})" for share, count in shares]
    return pd.DataFrame(told)


def few_characters_sentence(
    rows: pd.DataFrame, group: str = "plates and signs", least: float = 0.2
) -> Sentence:
    """How many characters of a kind of text each of two codecs misses: few of them make the table above coarse."""
    some = rows[rows["image"].map(lambda name: _begins(name, GROUPS[group]))]
    whole = some[some["codec"] == ORIGINAL]["right"].sum()
    right = some[some["target_bpp"] >= least].groupby(["codec", "target_bpp"])["right"].sum()
    if not whole or not {OWN, CLAIM_RIVAL} <= set(right.index.get_level_values("codec")):
        return Sentence("")
    missed = {codec: whole - right[codec] for codec in (OWN, CLAIM_RIVAL)}
    return Sentence(
        f"Only {whole:.0f} characters of {group} are read in the originals, so that a single miss is more than "
        f"{int(100 / whole)} %. From {least:g} bits per pixel on this codec misses {missed[OWN].min():.0f} or more of "
        f"them at every rate, AVIF {missed[CLAIM_RIVAL].max():.0f} at most."
    )


def where_more(table: pd.DataFrame, share: str) -> dict[str, list[float]]:
    """For each rival the equal rates at which this codec has more of a share: its interval lies wholly above."""
    rows = table[table["share"] == share]
    return {rival: [rate for rate in equal_rates(table) if _above(rows, rate, rival)] for rival in RIVALS}


def _above(rows: pd.DataFrame, rate: float, rival: str) -> bool:
    at = rows[rows["target_bpp"] == rate].set_index("codec")
    return bool(at.loc[OWN, "low"] > at.loc[rival, "high"])


def evidence(rows: dict[str, pd.DataFrame]) -> Evidence | None:
    """Claim C8: by how much this codec's share of wrong details exceeds AVIF's, mean of the three audits.

    Details: characters read with confidence, comparisons of faces with strangers, objects. None where one of them was
    not measured at this rate with both codecs. The interval (95 %) is over pictures, by Student's t
    (:func:`mean_interval`); the number that decides is its lower end.
    """
    parts = []
    for part, name in WORST.items():
        if part not in rows or CLAIM_RATE not in equal_rates(curves(part, rows[part]), [OWN, CLAIM_RIVAL]):
            return None
        (share,) = (share for share in SHARES[part] if share.name == name)
        at = rows[part][rows[part]["target_bpp"] == CLAIM_RATE]
        ours, its = (
            at[at["codec"] == codec].set_index("image")[[share.part, share.whole]]
            for codec in (OWN, CLAIM_RIVAL)
        )
        parts.append(excess(*pd.concat([ours, its], axis=1, join="inner").to_numpy(float).T))
    low, high = mean_interval(parts)
    pictures = ", ".join(f"{rows[part]['image'].nunique()} of {part}" for part in WORST)
    apart = ", ".join(f"{part} {100 * one.value:+.2f}" for part, one in zip(WORST, parts, strict=True))
    mean = np.mean([one.value for one in parts])
    return Evidence(
        value=low,
        low=low,
        high=high,
        protocol=f"mini; {pictures}; mean over the three of this codec's share minus AVIF's at {CLAIM_RATE:g} "
        "bits per pixel: characters read wrong with confidence, matches with strangers, objects invented "
        f"({apart}, mean {100 * mean:+.2f} percentage points); 95 % (Student's t over pictures)",
        files=tuple(f"audit_{part}.csv" for part in WORST),
        made="make audit",
    )


@dataclass(frozen=True)
class Excess:
    """A difference of two ratios of sums over the same pictures, its variance, and the degrees of freedom."""

    value: float
    variance: float
    freedom: int


def excess(part: np.ndarray, whole: np.ndarray, its_part: np.ndarray, its_whole: np.ndarray) -> Excess:
    """sum(part) / sum(whole) - sum(its_part) / sum(its_whole), one entry a picture; variance by linearisation."""
    ours, its = part.sum() / whole.sum(), its_part.sum() / its_whole.sum()
    pulls = (part - ours * whole) / whole.sum() - (its_part - its * its_whole) / its_whole.sum()
    count = len(part)
    return Excess(float(ours - its), float(count / (count - 1) * (pulls**2).sum()), count - 1)


def mean_interval(parts: Sequence[Excess]) -> tuple[float, float]:
    """Interval of 95 % of the mean of independent differences: Student's t, Welch and Satterthwaite's degrees."""
    variances = np.array([one.variance for one in parts])
    mean, total = np.mean([one.value for one in parts]), variances.sum()
    if total == 0:
        return float(mean), float(mean)
    freedom = total**2 / sum(one.variance**2 / one.freedom for one in parts)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total) / len(parts)
    return float(mean - half), float(mean + half)
