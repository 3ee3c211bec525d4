"""From choices to statements: who is preferred, by how much, how surely, and at how many times the bitrate.

Comparisons are a table with the columns rater, image, one, two (conditions), score (1: `one` was preferred, 0: `two`,
1/2: no difference), count, and, where known, one_codec, two_codec, one_target_bpp, two_target_bpp, one_bpp, two_bpp.
Choices of one rater, or on one photograph, are not independent: raters or photographs, never votes, are the units of
every interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import choix
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from diffusion_codec.errors import BadInputError
from diffusion_codec.user_study.votes import condition_label

LEVEL = 0.95
RESAMPLES = 500
ELO_CENTRE, ELO_PER_LOGIT = 1500.0, 400 / np.log(10)
PRIOR = 1e-3
"""choix's regularisation: keeps a codec that never lost at a finite rating; without effect where all lose some."""

FEWEST_CLUSTERS = 3
"""Fewer raters, or photographs, tell too little of how much they differ: there is no interval over them."""

MIN_SENTINELS_RIGHT = 0.75
Matrix = NDArray[np.float64]


def comparisons(votes: pd.DataFrame) -> pd.DataFrame:
    """The pairs of a table of votes (`votes.FIELDS`), without repeats and sentinels; side A is `one`."""
    pairs = votes[votes["kind"] == "pair"]
    table = pd.DataFrame(
        {
            "rater": pairs["rater"],
            "image": pairs["image"],
            "score": pairs["choice"].map({"a": 1.0, "b": 0.0, "tie": 0.5}).astype(float),
            "count": 1,
        }
    )
    for side, name in (("a", "one"), ("b", "two")):
        table[f"{name}_codec"] = pairs[side]
        table[f"{name}_target_bpp"] = pairs[f"{side}_target_bpp"]
        table[f"{name}_bpp"] = pairs[f"{side}_bpp"]
        table[name] = [
            condition_label(codec, rate)
            for codec, rate in zip(pairs[side], pairs[f"{side}_target_bpp"], strict=True)
        ]
    return table.reset_index(drop=True)


def names(table: pd.DataFrame) -> list[str]:
    """All conditions, in alphabetical order."""
    return sorted(set(table["one"]) | set(table["two"]))


def by_cluster(table: pd.DataFrame, order: Sequence[str], cluster: str = "rater") -> Matrix:
    """Wins as an array clusters x K x K: how often the row was preferred to the column, ties half to each."""
    groups, place = pd.factorize(table[cluster])[0], {name: k for k, name in enumerate(order)}
    one, two = (table[side].map(place).to_numpy() for side in ("one", "two"))
    score, count = table["score"].to_numpy(float), table["count"].to_numpy(float)
    wins = np.zeros((int(groups.max(initial=-1)) + 1, len(order), len(order)))
    np.add.at(wins, (groups, one, two), count * score)
    np.add.at(wins, (groups, two, one), count * (1 - score))
    return wins


def preference_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the choices between row and column that went to the row; NaN where they were not compared."""
    order = names(table)
    wins = by_cluster(table.assign(all=0), order, "all")[0]
    seen = wins + wins.T
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(np.where(seen > 0, wins / seen, np.nan), index=order, columns=order)


def elo(wins: Matrix) -> Matrix:
    """Bradley-Terry strengths (maximum likelihood, `choix`) on the Elo scale: mean 1500, 400 a factor of ten."""
    strengths = choix.ilsr_pairwise_dense(wins, alpha=PRIOR, max_iter=1000)
    return np.asarray(ELO_CENTRE + ELO_PER_LOGIT * (strengths - strengths.mean()))


def ratings(
    table: pd.DataFrame, cluster: str = "rater", resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Elo of every condition with an interval of 95 %, best first.

    Columns: condition, elo, low, high, votes. Interval: estimate plus and minus Student's t (clusters less one) times
    the bootstrap's standard deviation over `cluster` (raters or images), which covers where plain percentiles of a
    score of clusters fall short. NaN for fewer than three clusters. Raises BadInputError for no comparison.
    """
    if table.empty:
        raise BadInputError("no pair was compared yet: there is nothing to rate")
    order = names(table)
    wins = by_cluster(table, order, cluster)
    total = wins.sum(axis=0)
    best = elo(total)
    half = _half_widths(wins, resamples, seed, np.eye(len(order)))
    rows = pd.DataFrame(
        {
            "condition": order,
            "elo": best,
            "low": best - half,
            "high": best + half,
            "votes": (total + total.T).sum(axis=1).round().astype(int),
        }
    )
    return rows.sort_values("elo", ascending=False, ignore_index=True)


@dataclass(frozen=True)
class Contrast:
    """Elo of one condition less that of another, with an interval of 95 %, and the preference it implies."""

    elo: float
    low: float
    high: float

    @property
    def preferred(self) -> float:
        """Share of choices that Bradley-Terry expects for the first one."""
        return float(1 / (1 + np.exp(-self.elo / ELO_PER_LOGIT)))


def contrast(
    table: pd.DataFrame,
    one: str,
    two: str,
    cluster: str = "rater",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Contrast:
    """Two conditions against each other by all choices, direct and through third ones; as `ratings`."""
    order = names(table)
    if one not in order or two not in order:
        raise BadInputError(f"{one!r} and {two!r} must both be compared; there are {', '.join(order)}")
    wins = by_cluster(table, order, cluster)
    weights = np.zeros((1, len(order)))
    weights[0, order.index(one)], weights[0, order.index(two)] = 1, -1
    best = float((weights @ elo(wins.sum(axis=0)))[0])
    (half,) = _half_widths(wins, resamples, seed, weights)
    return Contrast(best, best - half, best + half)


def _half_widths(wins: Matrix, resamples: int, seed: int, combinations: Matrix) -> Matrix:
    """Half the intervals of linear combinations of the ratings; NaN for fewer than three clusters."""
    if len(wins) < FEWEST_CLUSTERS:
        return np.full(len(combinations), np.nan)
    draws = np.random.default_rng(seed).multinomial(len(wins), np.full(len(wins), 1 / len(wins)), resamples)
    refits = np.array([combinations @ elo(np.tensordot(weights, wins, 1)) for weights in draws])
    grown = np.sqrt(len(wins) / (len(wins) - 1))
    return np.asarray(_t(len(wins)) * grown * refits.std(axis=0, ddof=1))


def _t(clusters: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, clusters - 1))


@dataclass(frozen=True)
class Share:
    """How often one side was preferred, ties half, with an interval of 95 % over clusters; NaN: there is none."""

    share: float
    low: float
    high: float
    votes: int
    clusters: int

    def __str__(self) -> str:
        known = f"{100 * self.low:.0f} to {100 * self.high:.0f}" if self.low == self.low else "no interval"
        return f"{100 * self.share:.0f} % ({known})"


def share(score: pd.Series, count: pd.Series, cluster: pd.Series) -> Share:
    """All votes together: their share and its interval, Wilson's, with the votes that clustering leaves.

    Korn and Graubard's correction: votes are divided by the design effect (cluster-robust over binomial variance, 1 at
    least) and by (t / z)^2 for few clusters. NaN for fewer than three clusters. Raises BadInputError for no votes.
    """
    won, seen = _sums(score, count, cluster)
    votes, clusters = seen.sum(), len(seen)
    part = won.sum() / votes
    if clusters < FEWEST_CLUSTERS:
        return Share(float(part), np.nan, np.nan, round(votes), clusters)
    robust = clusters / (clusters - 1) * ((won - part * seen) ** 2).sum() / votes**2
    binomial = part * (1 - part) / votes
    effect = max(1.0, robust / binomial) if binomial > 0 else 1.0
    effective = votes / effect * (stats.norm.ppf((1 + LEVEL) / 2) / _t(clusters)) ** 2
    low, high = proportion_confint(part * effective, effective, 1 - LEVEL, "wilson")
    return Share(float(part), float(low), float(high), round(votes), clusters)


def each_alike(score: pd.Series, count: pd.Series, cluster: pd.Series) -> Share:
    """The mean of the clusters' own shares, however many votes each has, and its interval: Student's t, kept in 0 to 1.

    NaN for fewer than three clusters. Raises BadInputError for no votes.
    """
    won, seen = _sums(score, count, cluster)
    own = won / seen
    part, half = own.mean(), np.nan
    if len(own) >= FEWEST_CLUSTERS:
        half = _t(len(own)) * own.std(ddof=1) / np.sqrt(len(own))
    low, high = np.clip([part - half, part + half], 0, 1)
    return Share(float(part), float(low), float(high), round(seen.sum()), len(own))


def _sums(score: pd.Series, count: pd.Series, cluster: pd.Series) -> tuple[Matrix, Matrix]:
    """Votes won and votes cast, an entry a cluster that has any. Raises BadInputError for no votes."""
    sums = pd.DataFrame({"won": score * count, "seen": count, "cluster": cluster}).groupby("cluster").sum()
    sums = sums[sums["seen"] > 0]
    if sums.empty:
        raise BadInputError("a share of no votes is undefined")
    return sums["won"].to_numpy(float), sums["seen"].to_numpy(float)


def oriented(table: pd.DataFrame, codec: str) -> pd.DataFrame:
    """The comparisons of one codec with others, turned so that it is `one` in every row."""
    forward = table[(table["one_codec"] == codec) & (table["two_codec"] != codec)]
    backward = table[(table["two_codec"] == codec) & (table["one_codec"] != codec)]
    swapped = {
        **{name: name.replace("one", "two", 1) for name in table if name.startswith("one")},
        **{name: name.replace("two", "one", 1) for name in table if name.startswith("two")},
    }
    turned = backward.rename(columns=swapped).assign(score=1 - backward["score"])
    return pd.concat([forward, turned], ignore_index=True)[list(table.columns)]


def at_multiples(table: pd.DataFrame, codec: str) -> pd.DataFrame:
    """How often a codec is preferred to each rival at so many times its bitrate.

    Columns: rival, asked (ratio of the rates asked for), ratio (of the files, geometric mean over votes), share,
    low_raters, high_raters, low_images, high_images (95 % over each), votes, raters, images.
    """
    rows = oriented(table, codec)
    rows = rows.assign(asked=(rows["two_target_bpp"] / rows["one_target_bpp"]).round(3))
    found = []
    for (rival, asked), group in rows.groupby(["two_codec", "asked"]):
        ratio = np.exp(np.average(np.log(group["two_bpp"] / group["one_bpp"]), weights=group["count"]))
        people, images = (share(group["score"], group["count"], group[over]) for over in ("rater", "image"))
        found.append(
            {
                "rival": rival,
                "asked": asked,
                "ratio": float(ratio),
                "share": people.share,
                "low_raters": people.low,
                "high_raters": people.high,
                "low_images": images.low,
                "high_images": images.high,
                "votes": people.votes,
                "raters": people.clusters,
                "images": images.clusters,
            }
        )
    columns = [
        *("rival", "asked", "ratio", "share", "low_raters", "high_raters", "low_images", "high_images"),
        *("votes", "raters", "images"),
    ]
    return pd.DataFrame(found, columns=columns)


def deciding(multiples: pd.DataFrame, ratio: float) -> float:
    """What decides whether a codec is preferred to every rival at so many times its bitrate, out of `at_multiples`.

    The smallest lower end of an interval: over rivals, and over raters and photographs. NaN where one is missing.
    """
    ends = multiples.loc[np.isclose(multiples["asked"].astype(float), ratio), ["low_raters", "low_images"]]
    return float(ends.to_numpy(float).min()) if len(ends) else np.nan


def raters(votes: pd.DataFrame) -> pd.DataFrame:
    """One row a rater: how much, how consistent, and whether the votes are kept.

    Columns: rater, votes, sentinels, sentinels_right, repeats, repeats_same (share; a tie is like itself only), ties
    (share), seconds (median), kept. Kept is who answered three of four sentinels right, or saw none. Repeats do not
    decide: of two pictures that look alike an honest rater chooses now one, now the other.
    """
    found = []
    for rater, group in votes.groupby("rater"):
        pairs, repeats, sentinels = (group[group["kind"] == kind] for kind in ("pair", "repeat", "sentinel"))
        right = [
            row.choice in ("a", "b") and getattr(row, row.choice) == "original"
            for row in sentinels.itertuples()
        ]
        same = [_same(row, pairs) for row in repeats.itertuples()]
        known = [value for value in same if value is not None]
        found.append(
            {
                "rater": rater,
                "votes": len(pairs),
                "sentinels": len(right),
                "sentinels_right": float(np.mean(right)) if right else np.nan,
                "repeats": len(known),
                "repeats_same": float(np.mean(known)) if known else np.nan,
                "ties": float((pairs["choice"] == "tie").mean()) if len(pairs) else np.nan,
                "seconds": float(group["seconds"].median()),
                "kept": not right or float(np.mean(right)) >= MIN_SENTINELS_RIGHT,
            }
        )
    columns = [
        *("rater", "votes", "sentinels", "sentinels_right", "repeats", "repeats_same", "ties"),
        *("seconds", "kept"),
    ]
    return pd.DataFrame(found, columns=columns)


def _same(repeat: object, pairs: pd.DataFrame) -> bool | None:
    """Whether a repeat was answered as the pair before, sides swapped; None where that was not answered."""
    row = pd.Series(repeat._asdict())  # type: ignore[attr-defined]
    swapped = {"a": "b", "b": "a", "tie": "tie"}
    before = pairs[(pairs["session"] == row["session"]) & (pairs["image"] == row["image"])]
    for mine, theirs in (("a", "b"), ("b", "a")):
        before = before[before[mine] == row[theirs]]
        rates = before[f"{mine}_target_bpp"], row[f"{theirs}_target_bpp"]
        before = before[(rates[0] == rates[1]) | (rates[0].isna() & pd.isna(rates[1]))]
    return None if before.empty else bool(before["choice"].iloc[0] == swapped[row["choice"]])


def screened(votes: pd.DataFrame) -> pd.DataFrame:
    """The votes of raters who are kept."""
    table = raters(votes)
    return votes[votes["rater"].isin(table.loc[table["kept"], "rater"])]


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How often each rater chose as the majority of all others on the same pair of conditions.

    Columns: rater, votes, agreement. Pairs where the others are undecided are left out.
    """
    order = names(table)
    wins = by_cluster(table, order)
    labels = pd.factorize(table["rater"])[1]
    found = []
    for k, rater in enumerate(labels):
        others = wins.sum(axis=0) - wins[k]
        majority = others > others.T
        decided = majority | majority.T
        votes = wins[k][decided].sum()
        agreed = wins[k][majority].sum()
        found.append({"rater": rater, "votes": int(votes), "agreement": agreed / votes if votes else np.nan})
    return pd.DataFrame(found, columns=["rater", "votes", "agreement"])
