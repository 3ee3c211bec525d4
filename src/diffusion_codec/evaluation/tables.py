"""From records to tables: means over images with their uncertainty, and BD-rate where it means something."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from diffusion_codec import fetch, metrics
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.records import Record, Results
from diffusion_codec.evaluation.seal import results_folder
from diffusion_codec.files import check_target, write_atomically

RESAMPLES = 2000
LEVEL = 0.95
BD_MIN_POINTS = 4


class NotComparableError(BadInputError):
    """Numbers of different protocols, data sets or too few points were to be put side by side."""


def current(results: Results) -> list[Record]:
    """The numbers to show: without failures, and of each point the last one measured."""
    newest: dict[tuple[str | float | None, ...], Record] = {}
    for record in results.records:
        if record.value is not None:
            sha256 = results.run(record).dataset_sha256
            newest[(record.codec, sha256, record.image, record.target_bpp, record.metric)] = record
    return list(newest.values())


def chosen(default: Path, out: Path | None, *, whole: bool) -> Path:
    """Where a result goes: `out`, or `default`, which keeps the `whole` that the book shows and nothing else.

    Raises BadInputError where there is no `out`, and no clone to keep the result in, or it is another.
    """
    if out is None and not fetch.in_clone():
        raise BadInputError(
            "this is no clone of the project, which would keep the result: name a file with --out"
        )
    if out is None and not whole:
        raise BadInputError(
            f"{default} keeps what the book shows: for a measurement of your own name a file with --out"
        )
    return out or default


def stored(name: str, out: Path | None, *, whole: bool) -> Path:
    """Where a study writes its table, :func:`chosen` with `data/results/<name>`; asked before it takes its time.

    Raises BadInputError, and OutputError for a file that cannot be written.
    """
    target = chosen(results_folder() / name, out, whole=whole)
    check_target(target, force=True)
    return target


def keep(table: pd.DataFrame, dataset: ImageDataset, out: Path) -> None:
    """Print a table of means, its data set as the first column, and write it as csv."""
    named = pd.concat([pd.Series(dataset.name, table.index, name="dataset"), table], axis=1)
    print(named.to_string(index=False))
    write_atomically(out, named.to_csv(index=False).encode(), force=True)


def summarise(results: Results, seed: int = 0, images: int | None = None) -> pd.DataFrame:
    """Mean over images for each (codec, rate, metric), with a bootstrap interval of 95 % over images.

    `images` is how many there should be, by default all of the data set. Columns: codec, target_bpp, bpp
    (mean of the real files), metric, value, low, high, images, missing (images without this number: means
    over other images do not compare), steps, dataset and origin.
    Raises NotComparableError for more than one data set or more than one protocol of a metric.
    """
    records = current(results)
    _check_one_protocol(results, records)
    table = pd.DataFrame([record.model_dump(exclude={"ledger"}) for record in records])
    if table.empty:
        raise NotComparableError("no number was measured yet; look at the error column of the result")
    run = results.run(records[0])
    protocols = {record.metric: results.run(record).protocols[record.metric] for record in records}
    rows = []
    for (codec, rate, metric), group in table.groupby(["codec", "target_bpp", "metric"], dropna=False):
        low, high = bootstrap_interval(group["value"].to_numpy(float), seed)
        rows.append(
            {
                "codec": codec,
                "target_bpp": rate,
                "bpp": group["bpp"].mean(),
                "metric": metric,
                "value": group["value"].mean(),
                "low": low,
                "high": high,
                "images": len(group),
                "missing": (run.images if images is None else images) - len(group),
                "steps": group["steps"].iloc[0],
                "dataset": run.dataset,
                "origin": run.dataset_origin,
                "protocol": protocols[metric],
            }
        )
    return pd.DataFrame(rows).sort_values(["metric", "codec", "target_bpp"], ignore_index=True)


def _check_one_protocol(results: Results, records: Sequence[Record]) -> None:
    runs = {record.run: results.run(record) for record in records}
    if len({run.dataset_sha256 for run in runs.values()}) > 1:
        names = sorted({f"{run.dataset} ({run.dataset_sha256[:8]})" for run in runs.values()})
        raise NotComparableError(f"one table shows one data set, this result holds {', '.join(names)}")
    for metric in {record.metric for record in records}:
        protocols = {results.run(record).protocols[metric] for record in records if record.metric == metric}
        if len(protocols) > 1:
            raise NotComparableError(
                f"{metric} was measured in more than one way: {'; '.join(sorted(protocols))}"
            )


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Interval of the mean (95 %, 2000 resamples of the images, :func:`percentiles`); NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    return percentiles(means, float(values.mean()), len(values))


def percentiles(draws: NDArray[np.float64], estimate: float, images: int) -> tuple[float, float]:
    """Interval of 95 % from resamples of two or more images: percentiles about the estimate, :func:`widened`."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    wider = widened(images)
    return float(estimate - wider * (estimate - low)), float(estimate + wider * (high - estimate))


def widened(images: int) -> float:
    """How much wider than plain percentiles an interval over two or more images has to be.

    Resamples vary by sqrt((n - 1) / n) of what samples do, and few images do not tell by how much (Hesterberg 2015,
    arXiv 1411.5279).
    """
    wider = stats.t.ppf((1 + LEVEL) / 2, images - 1) / stats.norm.ppf((1 + LEVEL) / 2)
    return float(wider * np.sqrt(images / (images - 1)))


@dataclass(frozen=True)
class BdRate:
    """Mean rate difference in per cent at equal quality (negative: fewer bits than the anchor).

    `overlap` is the part of the quality range of both that they share; only there was it computed.
    """

    percent: float
    overlap: float
    metric: str


def bd_rate(summary: pd.DataFrame, anchor: str, test: str, metric: str) -> BdRate:
    """Bjøntegaard delta rate (VCEG-M33, piecewise cubic interpolation) of two codecs in a summary.

    Raises NotComparableError where it would mean nothing: fewer than four complete points, quality that does
    not rise with rate, or no quality both codecs reach.
    """
    import bjontegaard  # type: ignore[import-untyped]

    higher_is_better = metrics.get(metric).higher_is_better
    curves = {name: _curve(summary, name, metric, higher_is_better) for name in (anchor, test)}
    (rate_a, value_a), (rate_b, value_b) = curves[anchor], curves[test]
    shared = min(value_a[-1], value_b[-1]) - max(value_a[0], value_b[0])
    if shared <= 0:
        raise NotComparableError(
            f"{anchor} and {test} share no {metric}: {_span(value_a)} and {_span(value_b)}; "
            "measure rates at which they come out alike"
        )
    percent = bjontegaard.bd_rate(
        rate_a, value_a, rate_b, value_b, method="pchip", require_matching_points=False, min_overlap=0
    )
    whole = max(value_a[-1], value_b[-1]) - min(value_a[0], value_b[0])
    return BdRate(float(percent), float(shared / whole), metric)


@dataclass(frozen=True)
class BdQuality:
    """Mean quality difference at equal rate, in the metric's own unit and direction (PSNR: positive is better)."""

    difference: float
    metric: str


def bd_quality(summary: pd.DataFrame, anchor: str, test: str, metric: str) -> BdQuality:
    """Bjøntegaard delta of the metric at equal rate (VCEG-M33 on log rate, piecewise cubic interpolation).

    Raises NotComparableError where it would mean nothing: fewer than four complete points, quality that does not
    rise with rate, or no rate both codecs reach.
    """
    import bjontegaard

    higher_is_better = metrics.get(metric).higher_is_better
    (rate_a, value_a), (rate_b, value_b) = (
        _curve(summary, name, metric, higher_is_better) for name in (anchor, test)
    )
    if min(rate_a[-1], rate_b[-1]) <= max(rate_a[0], rate_b[0]):
        raise NotComparableError(f"{anchor} and {test} share no rate; measure both at the same rates")
    difference = float(
        bjontegaard.bd_psnr(
            rate_a, value_a, rate_b, value_b, method="pchip", require_matching_points=False, min_overlap=0
        )
    )
    return BdQuality(difference if higher_is_better else -difference, metric)


def bd_table(
    summary: pd.DataFrame, test: str, anchors: Sequence[str], metric_names: Sequence[str]
) -> pd.DataFrame:
    """`test` against every anchor by every metric: BD-rate, overlap, BD-quality, and why where there is none."""
    rows = []
    for metric in metric_names:
        for anchor in anchors:
            row: dict[str, object] = {"metric": metric, "anchor": anchor, "why not": ""}
            try:
                rate = bd_rate(summary, anchor, test, metric)
                row |= {"BD-rate %": rate.percent, "shared quality": rate.overlap}
            except NotComparableError as error:
                row |= {"BD-rate %": np.nan, "shared quality": np.nan, "why not": str(error)}
            try:
                row["BD-quality"] = bd_quality(summary, anchor, test, metric).difference
            except NotComparableError:
                row["BD-quality"] = np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def rate_at(summary: pd.DataFrame, codec: str, metric: str, value: float) -> float:
    """Bits per pixel at which a codec's mean reaches `value`, between measured points (log rate, linear).

    Raises NotComparableError outside what was measured: nothing is extrapolated.
    """
    rates, quality = _curve(summary, codec, metric, metrics.get(metric).higher_is_better, least=2)
    wanted = value if metrics.get(metric).higher_is_better else -value
    if not quality[0] <= wanted <= quality[-1]:
        raise NotComparableError(f"{codec} reaches {metric} from {_span(quality)}, not {value:.4g}")
    return float(np.exp(np.interp(wanted, quality, np.log(rates))))


def equal_quality(
    summary: pd.DataFrame, codec: str, rivals: Sequence[str], metric: str, pixels: int
) -> pd.DataFrame:
    """What others spend for the quality of `codec` at each of its rates: bits per pixel and bytes, and the ratio.

    Columns: metric, value, codec, bpp, bytes (for a picture of `pixels` pixels), times (over this codec's rate); NaN
    where a rival does not reach the value in what was measured.
    """
    own = summary[(summary["codec"] == codec) & (summary["metric"] == metric) & (summary["missing"] == 0)]
    rows = []
    for _, point in own.sort_values("bpp").iterrows():
        for name in (codec, *rivals):
            try:
                bpp = point["bpp"] if name == codec else rate_at(summary, name, metric, point["value"])
            except NotComparableError:
                bpp = np.nan
            row = {"metric": metric, "value": point["value"], "codec": name, "bpp": bpp}
            rows.append(row | {"bytes": bpp * pixels / 8, "times": bpp / point["bpp"]})
    return pd.DataFrame(rows)


def _curve(
    summary: pd.DataFrame, codec: str, metric: str, higher_is_better: bool, least: int = BD_MIN_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rate, quality) in rising order; of a metric where less is better the quality is its negative."""
    rows = summary[(summary["codec"] == codec) & (summary["metric"] == metric)]
    rows = rows[(rows["missing"] == 0) & rows["bpp"].notna()].sort_values("bpp")
    rows = rows.drop_duplicates(["bpp", "value"])  # a codec's smallest file, asked for at several rates
    if len(rows) < least:
        raise NotComparableError(
            f"BD-rate needs {least} complete points, {codec} has {len(rows)} of {metric}; measure more rates"
        )
    quality = rows["value"].to_numpy(float) * (1 if higher_is_better else -1)
    if not (np.diff(quality) > 0).all():
        raise NotComparableError(
            f"{metric} of {codec} does not get better with every rate; BD-rate is undefined"
        )
    return rows["bpp"].to_numpy(float), quality


def _span(values: NDArray[np.float64]) -> str:
    low, high = sorted(abs(values[[0, -1]]))
    return f"{low:.4g} to {high:.4g}"
