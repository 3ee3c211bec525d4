"""How many raters and photographs a study takes to show a preference.

It is shown where both intervals of `analysis.share`, over raters and over photographs, lie above one half.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_effectsize

from diffusion_codec.errors import BadInputError
from diffusion_codec.user_study.analysis import FEWEST_CLUSTERS, LEVEL

FEWEST_RATERS = 5
"""No plan has fewer: how much they differ would be told by too few."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(400)


def check(share: float, power: float, level: float) -> None:
    """Raise BadInputError for what is no preference, power or confidence."""
    for name, value in (("share", share), ("power", power), ("level", level)):
        if not 0.5 < value < 1:
            raise BadInputError(f"{name} is between 0.5 and 1, for example 0.6; not {value:g}")


def votes_needed(share: float, power: float = 0.8, level: float = 0.95) -> int:
    """Independent votes on one pair of conditions that tell a preference of `share` from no preference.

    Two-sided, with Cohen's arcsine effect size (statsmodels).
    """
    check(share, power, level)
    effect = proportion_effectsize(share, 0.5)
    found = NormalIndPower().solve_power(effect, alpha=1 - level, power=power, ratio=0)
    return math.ceil(float(found))


def advice(images: int, pairs: int, trials: int, share: float, power: float, level: float) -> str:
    """For a design: votes and sessions it takes, as one line."""
    votes = votes_needed(share, power, level)
    sessions = math.ceil(votes * pairs / trials)
    return (
        f"{images} photographs, {pairs} pairs of conditions, {trials} counted trials a session: to show a "
        f"preference of {share:.0%} with a power of {power:.0%} at {level:.0%} confidence each pair takes {votes} "
        f"votes, {sessions} sessions in all, if votes were independent; raters and photographs that differ take more "
        "(see the book)"
    )


@dataclass(frozen=True)
class Spread:
    """Standard deviations, between raters and between photographs, of the share that prefers one condition."""

    raters: float
    images: float


def _moments(won: NDArray[np.float64], seen: NDArray[np.float64]) -> tuple[float, float]:
    """Numerator and denominator of the variance of the clusters' true shares beyond that of binomial chance.

    By the method of moments, weighted by votes: the sum of n (p - P)^2 less its expectation under one share.
    """
    total, part = seen.sum(), won.sum() / seen.sum()
    excess = (seen * (won / seen - part) ** 2).sum() - (len(seen) - 1) * part * (1 - part)
    # with true variance s2 the expectation of the sum grows by s2 times this, less the binomial part it takes away
    return float(excess), float(total - (seen**2).sum() / total - (len(seen) - 1))


def pooled(table: pd.DataFrame, cluster: str) -> float:
    """The standard deviation of the clusters' true shares over all pairs of conditions of a table of comparisons."""
    first = np.minimum(table["one"], table["two"])
    turned = table.assign(
        first=first,
        second=np.maximum(table["one"], table["two"]),
        won=np.where(table["one"] == first, table["score"], 1 - table["score"]) * table["count"],
    )
    excess = weight = 0.0
    for _, group in turned.groupby(["first", "second"]):
        sums = group.groupby(cluster)[["won", "count"]].sum()
        if len(sums) > 1:
            moments = _moments(sums["won"].to_numpy(float), sums["count"].to_numpy(float))
            excess, weight = excess + moments[0], weight + moments[1]
    return math.sqrt(max(0.0, excess / weight)) if weight > 0 else 0.0


def standard_error(share: float, raters: int, images: int, spread: Spread) -> float:
    """Of the mean share, when every rater judges the pair once on every photograph; both are drawn from many."""
    rest = max(0.0, share * (1 - share) - spread.raters**2 - spread.images**2)
    return math.sqrt(spread.raters**2 / raters + spread.images**2 / images + rest / (raters * images))


def power(share: float, raters: int, images: int, spread: Spread, level: float = LEVEL) -> float:
    """Probability that such a study shows the preference; for a share of one half, that it shows one by chance.

    The share that is found is taken as normal, its estimated variances, over raters and over photographs, as
    independent chi-squared ones. Wilson's interval lies above one half where the share does by t standard errors,
    these taken as at one half, and never less than those of independent votes.
    """
    if min(raters, images) < FEWEST_CLUSTERS:
        return 0.0
    error = standard_error(share, raters, images, spread)
    top = min(1.0, share + 8 * error)
    found = 0.5 + (top - 0.5) * (_NODES + 1) / 2
    density = stats.norm.pdf(found, share, error) * _WEIGHTS * (top - 0.5) / 2
    rest = max(0.0, share * (1 - share) - spread.raters**2 - spread.images**2) / (raters * images)
    for clusters, own in ((raters, spread.raters), (images, spread.images)):
        largest = (found - 0.5) / stats.t.ppf((1 + level) / 2, clusters - 1)
        here = 4 * found * (1 - found) * largest**2 / (own**2 / clusters + rest)
        density *= stats.chi2.cdf((clusters - 1) * here, clusters - 1)
        density *= largest >= 0.5 / math.sqrt(raters * images)
    return float(density.sum() + stats.norm.sf(top, share, error))


def raters_needed(
    share: float, images: int, spread: Spread, wanted: float = 0.8, level: float = LEVEL, limit: int = 10_000
) -> int | None:
    """The fewest raters (five or more) that reach the power, None if not even `limit` do: it takes more photographs."""
    check(share, wanted, level)
    low, high = FEWEST_RATERS, limit
    if power(share, high, images, spread, level) < wanted:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if power(share, middle, images, spread, level) >= wanted else (middle + 1, high)
        )
    return low
