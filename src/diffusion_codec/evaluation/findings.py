"""What the numbers say, in tables and sentences: two codecs at one rate, with and without denoising."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusion_codec import metrics
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.records import Record, Results
from diffusion_codec.evaluation.tables import (
    RESAMPLES,
    NotComparableError,
    bootstrap_interval,
    current,
    percentiles,
)

LABELS = {
    "avif": "AVIF",
    "avif-slow": "AVIF (slow)",
    "jpeg2000": "JPEG 2000",
    "webp": "WebP",
    "jpeg": "JPEG",
    "jpegli": "jpegli",
    "jpeg-xl": "JPEG XL",
    "heic": "HEIC",
    "vvc": "VVC",
    "psnr": "PSNR",
    "ms-ssim": "MS-SSIM",
    "lpips-alex": "LPIPS (AlexNet)",
    "lpips-squeeze": "LPIPS (SqueezeNet)",
    "lpips-vgg": "LPIPS (VGG)",
    "dists": "DISTS",
    "ssimulacra2": "SSIMULACRA 2",
    "butteraugli": "Butteraugli",
    "fid-packaged": "FID (packaged Inception)",
    "kid-packaged": "KID (packaged Inception)",
    "fid": "FID",
    "kid": "KID",
}
"""Names of codecs and metrics as people write them."""

CLAIM_ABOVE_BPP = 0.03
"""Above this rate denoising is claimed to help."""


RATE_SLACK = 0.05
"""Files that much larger still count as equally large."""


class Sentence(str):
    """Text that a notebook hands to the book as it is, without quotation marks, as text or as Markdown."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)


def number(value: float, form: str = ".3f") -> Sentence:
    """A number as people write it: a true minus, thin spaces between thousands (`,` in the form), zero without sign."""
    text = re.sub(r"^[+-](?=[0.]+%?$)", "", f"{value:{form}}")
    return Sentence(text.replace("-", "\u2212").replace(",", "\u202f"))


def data_set(name: str) -> Sentence:
    """A data set's name for readers: `kodak[:4]` is "the first 4 of kodak"; other words stay."""
    counted = re.sub(r"(\d+) photographs of ([\w./-]+)\[:\1\]", r"the first \1 photographs of \2", name)
    return Sentence(
        re.sub(r"([\w./-]+)\[:(\d+)\]", r"the first \2 of \1", counted).replace("the first 1 ", "the first ")
    )


@dataclass(frozen=True)
class Comparison:
    """Mean of one codec as per cent of another's on the same images at the same rate.

    `low` and `high` bound the ratio (bootstrap over images, 95 %; NaN for one image); the rates are means.
    """

    codec: str
    rival: str
    metric: str
    target_bpp: float
    percent: float
    low: float
    high: float
    bpp: float
    rival_bpp: float
    images: int

    def __str__(self) -> str:
        sure = f"95 % interval {self.low:.0f} to {self.high:.0f} %" if self.images > 1 else "one photograph"
        equal = f"both at {self.bpp:.3f}"
        rates = equal if self.rival_bpp == self.bpp else f"{self.bpp:.3f} against {self.rival_bpp:.3f}"
        return (
            f"{self.percent:.0f} % of {LABELS.get(self.rival, self.rival)}'s ({sure}; {rates} bits per pixel)"
        )


def compare(
    results: Results, codec: str, rival: str, metric: str, target_bpp: float, seed: int = 0
) -> Comparison:
    """Two codecs at one target rate, the rival read off its curve at the rate that the codec's files have.

    Where it has no files on both sides of that rate, those asked for the same rate stand as they are. Raises
    NotComparableError where they share no image.
    """
    ours, theirs = (_by_image(results, name, metric, target_bpp) for name in (codec, rival))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise NotComparableError(f"{codec} and {rival} share no {metric} at {target_bpp:g} bits per pixel")
    a, own_bpp = _values_and_rates([ours[i] for i in shared])
    b, its_bpp = _values_and_rates([theirs[i] for i in shared])
    read = [_read_off(_curve_of(results, rival, metric, i), ours[i].bpp) for i in shared]
    if None not in read:
        b, its_bpp = np.array(read, float), own_bpp
    percent = float(100 * a.mean() / b.mean())
    low = high = float("nan")
    if len(shared) > 1:
        picks = np.random.default_rng(seed).integers(0, len(shared), (RESAMPLES, len(shared)))
        low, high = percentiles(100 * a[picks].mean(axis=1) / b[picks].mean(axis=1), percent, len(shared))
    rates = float(own_bpp.mean()), float(its_bpp.mean())
    return Comparison(codec, rival, metric, target_bpp, percent, low, high, *rates, len(shared))


def _values_and_rates(rows: Sequence[Record]) -> NDArray[np.float64]:
    """(2, N); NaN where a record has no rate."""
    return np.array([(row.value, np.nan if row.bpp is None else row.bpp) for row in rows], float).T


def _curve_of(results: Results, codec: str, metric: str, image: str) -> list[tuple[float, float]]:
    """(bits per pixel, value) of an image's files, the smallest first."""
    return sorted(
        (record.bpp, record.value)
        for record in current(results)
        if (record.codec, record.metric, record.image) == (codec, metric, image)
        and record.bpp is not None
        and record.value is not None
    )


def _read_off(curve: list[tuple[float, float]], bpp: float | None) -> float | None:
    """The value at a rate, linear in its logarithm; None outside the curve."""
    if bpp is None or not curve or not curve[0][0] <= bpp <= curve[-1][0]:
        return None
    rates, values = np.array(curve).T
    return float(np.interp(np.log(bpp), np.log(rates), values))


def denoising_gain(
    results: Results, codec: str, plain: str, metrics_: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """What denoising changes in the same files: mean difference by rate and metric, images paired.

    Columns: metric, target_bpp, bpp, without, with, difference (with - without), low, high (bootstrap over
    images, 95 %), images, better (whether the mean moved in the metric's good direction).
    """
    rows = []
    rates = sorted({r.target_bpp for r in current(results) if r.codec == codec and r.target_bpp is not None})
    for metric in metrics_:
        for rate in rates:
            with_, without = (_by_image(results, name, metric, rate) for name in (codec, plain))
            shared = sorted(with_.keys() & without.keys())
            if not shared:
                continue
            a, b = (np.array([found[i].value for i in shared], float) for found in (with_, without))
            low, high = bootstrap_interval(a - b, seed)
            sign = 1 if metrics.get(metric).higher_is_better else -1
            rows.append(
                {
                    "metric": metric,
                    "target_bpp": rate,
                    "bpp": float(np.mean([with_[i].bpp or np.nan for i in shared])),
                    "without": float(b.mean()),
                    "with": float(a.mean()),
                    "difference": float((a - b).mean()),
                    "low": low,
                    "high": high,
                    "images": len(shared),
                    "better": bool(sign * (a - b).mean() > 0),
                }
            )
    if not rows:
        raise NotComparableError(f"{codec} and {plain} were not measured on the same images at the same rate")
    return pd.DataFrame(rows)


def denoising_verdict(gain: pd.DataFrame, metric: str = "lpips-alex") -> str:
    """At which rates above 0.03 bits per pixel denoising made `metric` better, as one sentence."""
    rows = gain[(gain["metric"] == metric) & (gain["bpp"] > CLAIM_ABOVE_BPP)]
    if rows.empty:
        return (
            f"No rate above {CLAIM_ABOVE_BPP:g} bits per pixel was measured by {LABELS.get(metric, metric)}."
        )
    worse = rows[~rows["better"]]
    sure = rows[(rows["high"] < 0) if not metrics.get(metric).higher_is_better else (rows["low"] > 0)]
    certain = f"at {len(sure)} of them beyond chance (the 95 % interval excludes no change)"
    if worse.empty:
        return f"At all {len(rows)} ({_rates(rows)} bits per pixel), {certain}."
    kept = len(rows) - len(worse)
    surely = worse[(worse["low"] > 0) | (worse["high"] < 0)]
    harm = f" (beyond chance it does harm at {_rates(surely)})" if len(surely) else ""
    return f"At {kept} of {len(rows)}, {certain}; not at {_rates(worse)} bits per pixel{harm}."


def gains_sentence(gain: pd.DataFrame, metric: str = "lpips-alex") -> str:
    """The change that denoising makes to a metric at each rate asked for, as part of a sentence."""
    rows = gain[gain["metric"] == metric].sort_values("target_bpp")
    if rows.empty:
        return f"an amount that was not measured ({LABELS.get(metric, metric)} was not asked for)"
    told = [
        f"{number(change, '+.4f' if abs(change) < 0.001 else '+.3f')} at {rate:g}"
        for rate, change in zip(rows["target_bpp"], rows["difference"], strict=True)
    ]
    return f"{listed(told)} bits per pixel"


def way(path: Path) -> dict[float, float]:
    """Bits per pixel -> the t that files begin at, mean over photographs, from what `make evidence` writes."""
    if not path.is_file():
        return {}
    means = pd.read_csv(path).groupby("target_bpp")["timestep"].mean()
    return {float(rate): float(t) for rate, t in means.items()}


def way_sentence(path: Path) -> str:
    """At which timesteps files begin, from the table `make evidence` writes, as one sentence."""
    begins = way(path)
    if not begins:
        return "That is not stored; `make evidence` measures it."
    told = listed([f"{t:.0f} at {rate:g}" for rate, t in begins.items()])
    count = pd.read_csv(path)["image"].nunique()
    return f"files of {count} photographs of Kodak begin, on average, at t = {told} bits per pixel."


def comparison_sentence(
    results: Results, codec: str, rivals: Sequence[str], metric: str, target_bpp: float
) -> str:
    """How a codec stands against its rivals at one rate, as one sentence; says what was not measured."""
    parts = []
    for rival in rivals:
        try:
            parts.append(str(compare(results, codec, rival, metric, target_bpp)))
        except NotComparableError:
            parts.append(
                f"not compared with {LABELS.get(rival, rival)}'s (not measured of both at this rate)"
            )
    known = LABELS.get(metric, metric)
    if not parts:
        return f"The {known} of this codec is compared with no other's: none was asked for."
    return f"At {target_bpp:g} bits per pixel the {known} of this codec is {listed(parts)}."


def lead_sentence(summary: pd.DataFrame, codec: str, metric: str) -> str:
    """At which of the rates asked for a codec is the best of those that spend as few bits, as one sentence."""
    return lead_sentences(summary, codec, [metric])


def lead_sentences(summary: pd.DataFrame, codec: str, metric_names: Sequence[str]) -> str:
    """At which of the rates asked for a codec is the best, metric by metric; equal outcomes share a sentence.

    Others whose files are more than 5 % larger (they go no lower) do not count: they answer another question. Nor do
    the codec's own variants, by steps or weights.
    """
    outcomes: dict[tuple[str, ...], list[str]] = {}
    for metric in metric_names:
        outcomes.setdefault(_leads(summary, codec, metric), []).append(LABELS.get(metric, metric))
    return " ".join(listed(names).join(said) for said, names in outcomes.items())


def _leads(summary: pd.DataFrame, codec: str, metric: str) -> tuple[str, ...]:
    """The sentence about one metric, in two parts: its name goes between them."""
    rows = summary[(summary["metric"] == metric) & summary["target_bpp"].notna() & (summary["missing"] == 0)]
    rows = rows[(rows["codec"] == codec) | ~rows["codec"].str.startswith((f"{codec}@", f"{codec}:"))]
    if rows[rows["codec"] == codec].empty or rows["codec"].nunique() < 2:
        return "Not measured for this codec and another one: ", "."
    ahead: list[str] = []
    behind: list[str] = []
    for rate, group in rows.groupby("target_bpp"):
        spent = group[group["codec"] == codec]["bpp"].max() * (1 + RATE_SLACK)
        group = group[group["bpp"] <= spent]
        values = group.set_index("codec")["value"] * (1 if metrics.get(metric).higher_is_better else -1)
        if codec in values.index and len(values) > 1:
            (ahead if values.idxmax() == codec else behind).append(f"{rate:g}")
    if not ahead:
        return "By ", " this codec leads at no rate asked for."
    other = f"; at {listed(behind)} another one is" if behind else ""
    return (
        f"Asked for {listed(ahead)} bits per pixel, this codec is the best by ",
        f" of all whose files are at most {100 * RATE_SLACK:g} % larger, its own variants left aside{other}.",
    )


def nearest_rate(rates: Sequence[float], wanted: float) -> float:
    """The one of `rates` that is nearest to `wanted`, in ratio."""
    return min(rates, key=lambda rate: abs(np.log(rate / wanted)))


def _by_image(results: Results, codec: str, metric: str, target_bpp: float) -> dict[str, Record]:
    return {
        record.image: record
        for record in current(results)
        if (record.codec, record.metric, record.target_bpp) == (codec, metric, target_bpp)
    }


def listed(words: Sequence[str]) -> str:
    """`0.1, 0.2 and 0.3`; one word or more."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _rates(rows: pd.DataFrame) -> str:
    return ", ".join(f"{bpp:.3f}" for bpp in rows["bpp"])


def own_codec(names: Sequence[str]) -> str:
    """The first of the names that is this codec with its default weights and steps, `dfc-<backbone>`.

    Raises BadInputError where there is none.
    """
    own = [name for name in names if re.fullmatch(r"dfc-[^:@]+", name)]
    if not own:
        raise BadInputError(f"codecs: this codec must be among them, like dfc-mini; got {', '.join(names)}")
    return own[0]


def looked_at(measured: Sequence[str], own: str) -> list[str]:
    """Codecs whose photographs are shown beside the original: those measured, and JPEG for the landing page."""
    ceiling = own.replace("dfc-", "ceiling-", 1)
    order = (own, f"{own}@0", ceiling, "vvc", "avif", "jpeg-xl", "jpeg")
    return [name for name in order if name in measured or name == "jpeg"]


def chosen(measured: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of the metrics wanted that were measured; the first measured one where there is none."""
    return [name for name in wanted if name in measured] or list(measured[:1])


def stand_in(measured: Sequence[str], wanted: Sequence[str]) -> Sentence:
    """What :func:`chosen` takes where none of the metrics wanted was measured, as a sentence; else nothing."""
    if any(name in measured for name in wanted):
        return Sentence("")
    taken = LABELS.get(measured[0], measured[0])
    return Sentence(f"*No measure of this kind was asked for; {taken} stands in.*")


def means_table(summary: pd.DataFrame, metric_names: Sequence[str]) -> pd.DataFrame:
    """One row a codec and rate: codec, asked (bits per pixel), measured, images, then a column a metric."""
    wide = summary.pivot_table(
        index=["codec", "target_bpp", "bpp", "images"],
        columns="metric",
        values="value",
        dropna=False,
        observed=True,
    )
    rows = wide.dropna(how="all").reset_index().sort_values(["codec", "target_bpp"])
    rows = rows[["codec", "target_bpp", "bpp", "images", *metric_names]]
    rows.columns.name = None
    return rows.rename(columns={"target_bpp": "asked", "bpp": "measured"}).reset_index(drop=True)


def best_steps(summary: pd.DataFrame, metric: str) -> str:
    """At which number of steps each rate comes out best, as one sentence."""
    if metric not in set(summary["metric"]):
        metric = str(summary["metric"].iloc[0])
    rows = summary[(summary["metric"] == metric) & summary["steps"].notna()]
    up = metrics.get(metric).higher_is_better
    parts = []
    for _, group in rows.groupby("target_bpp"):
        best = group.loc[group["value"].idxmax() if up else group["value"].idxmin()]
        parts.append(f"{int(best['steps'])} at {best['bpp']:.3f} bits per pixel ({best['value']:.3f})")
    tried = ", ".join(str(int(count)) for count in sorted(rows["steps"].unique()))
    return f"Of {tried} steps the best by {LABELS.get(metric, metric)}: {'; '.join(parts)}."
