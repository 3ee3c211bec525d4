"""Model observers: a metric as a rater with noise. They are not people, and are never counted as people.

An observer prefers one picture to another with the probability

    logistic(slope * (q(one) - q(two))),

q the metric turned so that more is better, on a logarithmic scale: PSNR as it is (dB), MS-SSIM as -10 log10(1 - x)
(dB), distances (LPIPS, FID) as -ln x, so that a step counts in proportion. The one free number, the slope (the inverse
of the noise), is fitted to the choices of real people.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats

from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.evaluation.records import Record, Results
from diffusion_codec.evaluation.tables import current, widened
from diffusion_codec.user_study import published
from diffusion_codec.user_study.analysis import FEWEST_CLUSTERS, LEVEL, RESAMPLES

LEAST_SLOPE = 0.0
"""An observer whom people contradict guesses; it does not turn its metric round."""

JUDGES = ("psnr", "ms-ssim", "lpips-alex")
"""Metrics with human choices to fit to, of those that are measured photograph by photograph."""


def quality(metric: str, value: float) -> float:
    """A metric's value on the observers' scale. Raises BadInputError for a metric that has none."""
    if metric == "psnr":
        return value
    if metric == "ms-ssim":
        return -10 * math.log10(max(1 - value, 1e-6))
    if metric.startswith("lpips") or metric in ("fid", "dists"):
        return -math.log(max(value, 1e-6))
    raise BadInputError(
        f"no observer is defined for {metric}; there are psnr, ms-ssim, lpips-..., dists, fid"
    )


@dataclass(frozen=True)
class Observer:
    """A fitted observer and how well it predicts the people it was fitted to.

    `slope` in logits per unit of quality with a 95 % interval (cluster-robust); `fitted` is the slope before it was
    kept from falling below zero, `error` its standard error. `agreement` is the share of the choices
    that went to the better value. The losses are mean negative log likelihoods of a choice: of the observer when each
    pair of settings is left out of the fit in turn, of a coin (ln 2), and of whoever knows each pair's share (the
    floor). `outside` pairs compare different codecs.
    """

    metric: str
    slope: float
    low: float
    high: float
    fitted: float
    error: float
    pairs: int
    outside: int
    votes: int
    agreement: float
    loss: float
    coin: float
    floor: float


def logistic(x: np.ndarray) -> np.ndarray:
    """Probability that the first of two is preferred, from the slope times the difference in quality."""
    preferred: np.ndarray = 1 / (1 + np.exp(-np.clip(x, -50, 50)))
    return preferred


def fit(
    table: pd.DataFrame,
    values: Mapping[str, float],
    metric: str,
    codecs: Mapping[str, str],
    cluster: str = "rater",
) -> Observer:
    """Fit to comparisons of the conditions whose metric is known; `codecs` names the codec of each condition.

    The error of the slope is over `cluster`, a column of the table (rater or image). Raises BadInputError where no
    pair of the conditions was compared.
    """
    known = table[table["one"].isin(values) & table["two"].isin(values)].copy()
    if known.empty:
        raise BadInputError(f"people compared no two conditions whose {metric} is known")
    scale = {name: quality(metric, value) for name, value in values.items()}
    first = np.minimum(known["one"], known["two"])
    turned = known["one"] == first
    known["first"], known["second"] = first, np.maximum(known["one"], known["two"])
    known["won"] = np.where(turned, known["score"], 1 - known["score"]) * known["count"]
    grouped = known.groupby(["first", "second", cluster], as_index=False)[["won", "count"]].sum()
    grouped["delta"] = grouped["first"].map(scale) - grouped["second"].map(scale)
    slope, error = _slope(grouped, cluster)
    half = stats.norm.ppf((1 + LEVEL) / 2) * error
    pairs = grouped.groupby(["first", "second", "delta"], as_index=False)[["won", "count"]].sum()
    votes = float(pairs["count"].sum())
    share = pairs["won"] / pairs["count"]
    left_out = [
        max(
            LEAST_SLOPE,
            _slope(grouped[(grouped["first"] != p.first) | (grouped["second"] != p.second)], cluster)[0],
        )
        for p in pairs.itertuples()
    ]
    better = np.where(pairs["delta"] > 0, pairs["won"], pairs["count"] - pairs["won"])
    return Observer(
        metric=metric,
        slope=max(LEAST_SLOPE, slope),
        low=max(LEAST_SLOPE, slope - half),
        high=max(LEAST_SLOPE, slope + half),
        fitted=slope,
        error=error,
        pairs=len(pairs),
        outside=sum(codecs[p.first] != codecs[p.second] for p in pairs.itertuples()),
        votes=round(votes),
        agreement=float(better.sum() / votes),
        loss=_loss(pairs, logistic(np.array(left_out) * pairs["delta"])),
        coin=math.log(2),
        floor=_loss(pairs, share.clip(1e-9, 1 - 1e-9)),
    )


def _slope(rows: pd.DataFrame, cluster: str) -> tuple[float, float]:
    """Logistic regression without intercept on the quality difference, and its standard error; 0 without rows."""
    if rows.empty:
        return 0.0, math.inf
    outcome = np.column_stack([rows["won"], rows["count"] - rows["won"]])
    model = sm.GLM(outcome, rows[["delta"]], family=sm.families.Binomial())
    groups = pd.factorize(rows[cluster])[0]
    found = model.fit(cov_type="cluster", cov_kwds={"groups": groups}) if groups.max() else model.fit()
    return float(found.params.iloc[0]), float(found.bse.iloc[0])


def _loss(pairs: pd.DataFrame, probability: "pd.Series[float]") -> float:
    won, lost = pairs["won"], pairs["count"] - pairs["won"]
    return float(-(won * np.log(probability) + lost * np.log(1 - probability)).sum() / pairs["count"].sum())


def from_people(metrics: Sequence[str] = JUDGES, alike: bool = False) -> dict[str, Observer]:
    """Observers fitted to the HiFiC study, on published means of the metrics of its settings.

    The error of each slope is the larger of those over raters and over photographs. `alike`: only settings that have
    all of the metrics, so that their losses are of the same pairs.
    """
    facts = published.hific_metrics()
    wide = facts.pivot(index="label", columns="metric", values="value")[list(metrics)]
    codecs = published.settings().set_index("label")["codec"].to_dict()
    found = {}
    for metric in metrics:
        known = wide.dropna() if alike else wide.dropna(subset=metric)
        both = [
            fit(published.hific(over), known[metric].to_dict(), metric, codecs, over)
            for over in ("rater", "image")
        ]
        found[metric] = max(both, key=lambda observer: observer.error)
    return found


def validation(observers: Mapping[str, Observer]) -> pd.DataFrame:
    """How well each observer predicts people: one row a metric."""
    rows = [
        {
            "metric": o.metric,
            "pairs": o.pairs,
            "of two codecs": o.outside,
            "choices": o.votes,
            "agreement": o.agreement,
            "slope": o.fitted,
            "low": o.low,
            "high": o.high,
            "loss": o.loss,
            "coin": o.coin,
            "floor": o.floor,
        }
        for o in observers.values()
    ]
    return pd.DataFrame(rows)


def judge(
    results: Results,
    observers: Mapping[str, Observer],
    codec: str,
    rivals: Sequence[str],
    bitrate: float,
    ratios: Sequence[float],
    seed: int = 0,
) -> pd.DataFrame:
    """What the observers expect of a codec at a rate against its rivals at multiples of that rate.

    For every photograph the probability that the codec is preferred, then the mean over photographs. The interval
    (95 %) resamples photographs and draws the slope from its own interval; it takes for granted that the slope, fitted
    to other codecs, holds for these, which nobody has tested. NaN for fewer than three photographs. Columns: rival,
    asked, ratio (of the real files), observer, share, low, high, images. Rates that were not measured are left out;
    MissingDataError if none was.
    """
    rows = current(results)
    rng = np.random.default_rng(seed)
    found = []
    for metric, observer in observers.items():
        mine = _by_image(rows, codec, metric, bitrate)
        for rival in rivals:
            for ratio in ratios:
                theirs = _by_image(rows, rival, metric, bitrate * ratio)
                shared = sorted(mine.keys() & theirs.keys())
                if shared:
                    pairs = [(mine[image], theirs[image]) for image in shared]
                    found.append({"rival": rival, "asked": ratio} | _verdict(observer, pairs, rng))
    if not found:
        raise MissingDataError(
            f"{codec} at {bitrate:g} bits per pixel was not measured beside {', '.join(rivals)} at multiples of that "
            "rate: run `make results`, or ask for a rate that was"
        )
    return pd.DataFrame(found).sort_values(["rival", "asked"], kind="stable", ignore_index=True)


def _verdict(
    observer: Observer, pairs: Sequence[tuple[Record, Record]], rng: np.random.Generator
) -> dict[str, object]:
    metric = observer.metric
    difference = np.array(
        [quality(metric, a.value or 0.0) - quality(metric, b.value or 0.0) for a, b in pairs]
    )
    ratio = np.exp(np.mean([math.log((b.bpp or math.nan) / (a.bpp or math.nan)) for a, b in pairs]))
    slopes = np.maximum(LEAST_SLOPE, rng.normal(observer.fitted, observer.error, RESAMPLES))
    picks = rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))
    here = logistic(slopes[:, None] * difference).mean(axis=1)
    elsewhere = logistic(slopes[:, None] * difference[picks]).mean(axis=1)
    wider = widened(len(pairs)) if len(pairs) >= FEWEST_CLUSTERS else math.nan
    means = here + wider * (elsewhere - here)
    low, high = np.clip(np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), 0, 1)
    share = float(logistic(observer.slope * difference).mean())
    return {
        "ratio": float(ratio),
        "observer": metric,
        "share": share,
        "low": float(low),
        "high": float(high),
        "images": len(pairs),
    }


def _by_image(rows: Sequence[Record], codec: str, metric: str, bpp: float) -> dict[str, Record]:
    return {
        row.image: row
        for row in rows
        if row.codec == codec
        and row.metric == metric
        and row.target_bpp is not None
        and math.isclose(row.target_bpp, bpp, rel_tol=1e-6)
    }
