"""What a chapter says about preferences: tables and sentences out of votes, published counts and model observers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from diffusion_codec.evaluation.findings import LABELS, Sentence, listed, number
from diffusion_codec.user_study import analysis, published, store, votes
from diffusion_codec.user_study.observers import Observer
from diffusion_codec.user_study.power import FEWEST_RATERS, Spread, pooled, power, raters_needed


def collected(folder: Path, files: Sequence[str]) -> pd.DataFrame:
    """The votes of the study in a folder (none if nobody has run one there) and of csv files, each once."""
    tables = [votes.read([Path(name) for name in files])]
    if (folder / store.FILE).is_file():
        tables.append(votes.parse(store.export(folder), str(folder)))
    found = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    return votes.check(found.drop_duplicates(), "the votes together")


def votes_sentence(table: pd.DataFrame) -> Sentence:
    """How many votes of how many raters there are."""
    if table.empty:
        return Sentence(
            "No votes yet: `make study` opens the study, and `make run NB=05` then shows them here."
        )
    kept = analysis.raters(table)["kept"].sum()
    return Sentence(
        f"{len(table)} answers of {table['rater'].nunique()} rater(s), {kept} of whom answered the sentinels well "
        f"enough to be counted; {int((table['kind'] == 'pair').sum())} answers are comparisons, the others repeats and "
        "sentinels."
    )


def claim_sentence(multiples: pd.DataFrame, ratio: float = 2.0) -> Sentence:
    """What `analysis.at_multiples` of the votes says of claim C4, which is about `ratio` times the bitrate."""
    if multiples.empty:
        return Sentence(
            "Claim C4 is therefore not tested; nothing on this page is evidence for or against it."
        )
    low, against = analysis.deciding(multiples, ratio), f"each rival at {ratio:g} times the bitrate"
    if np.isnan(low):
        return Sentence(
            f"They do not test claim C4: against {against} it takes {analysis.FEWEST_CLUSTERS} raters and "
            f"{analysis.FEWEST_CLUSTERS} photographs for an interval over either."
        )
    return Sentence(
        f"Against {against} the smallest lower end, over rivals, raters and photographs, is {low:.1%}. It decides "
        "claim C4 if rivals, photographs and raters are those that `data/claims.toml` asks for."
    )


def collected_table(multiples: pd.DataFrame) -> pd.DataFrame:
    """`analysis.at_multiples` as a page shows it."""
    return pd.DataFrame(
        {
            "against": [LABELS.get(rival, rival) for rival in multiples["rival"]],
            "its bitrate": [f"{ratio:.2f} ×" for ratio in multiples["ratio"]],
            "preferred": _percent(multiples["share"]),
            "% (raters)": _span(multiples["low_raters"], multiples["high_raters"]),
            "% (photographs)": _span(multiples["low_images"], multiples["high_images"]),
            "choices": multiples["votes"],
            "raters": multiples["raters"],
            "photographs": multiples["images"],
        }
    )


def rated(
    by_rater: pd.DataFrame, by_image: pd.DataFrame, resamples: int = analysis.RESAMPLES
) -> pd.DataFrame:
    """Elo of the same comparisons, counted by rater and by image, with intervals over either; best first."""
    people, images = (
        analysis.ratings(by_rater, "rater", resamples),
        analysis.ratings(by_image, "image", resamples),
    )
    wide = people.merge(images[["condition", "low", "high"]], on="condition", suffixes=("_raters", "_images"))
    return wide[["condition", "elo", "low_raters", "high_raters", "low_images", "high_images", "votes"]]


def rated_table(ratings: pd.DataFrame) -> pd.DataFrame:
    """`rated` as a page shows it."""
    return pd.DataFrame(
        {
            "condition": ratings["condition"],
            "Elo": ratings["elo"],
            "95 % (raters)": _span(ratings["low_raters"], ratings["high_raters"], 1),
            "95 % (photographs)": _span(ratings["low_images"], ratings["high_images"], 1),
            "choices": ratings["votes"],
        }
    )


def hific_ratings(resamples: int = analysis.RESAMPLES) -> pd.DataFrame:
    """Elo of the HiFiC study with intervals over raters and over photographs, best first."""
    return rated(published.hific("rater"), published.hific("image"), resamples)


def hific_matrix() -> pd.DataFrame:
    """Per cent of the direct choices between row and column that went to the row, best setting first."""
    table = published.hific()
    order = list(analysis.ratings(table, resamples=2)["condition"])
    matrix = 100 * analysis.preference_matrix(table).loc[order, order]
    return matrix.rename_axis("preferred to").reset_index()


def agreement_sentence() -> Sentence:
    """How often raters of the HiFiC study chose as most others did on the same two settings."""
    found = analysis.agreement(published.hific())
    mean = np.average(found["agreement"], weights=found["votes"])
    return Sentence(
        f"A rater chose as the majority of the others in {mean:.0%} of the choices "
        f"({found['agreement'].min():.0%} to {found['agreement'].max():.0%} from rater to rater)."
    )


def hific_multiples(codec: str = "HiFiC-mi") -> pd.DataFrame:
    """One setting against all others: how often preferred directly and by all choices, and at how many times its rate.

    Columns: rival, times (NaN where no text states the rate), share and its intervals over raters and photographs,
    alike (mean of the photographs' shares) with low_alike and high_alike, votes, expected (share that Bradley-Terry
    expects from all choices).
    """
    rates = published.settings().set_index("label")["bpp"]
    by_rater, by_image = published.hific("rater"), published.hific("image")
    rows = []
    for rival in rates.index.drop(codec):
        people, images = _direct(by_rater, codec, rival, "rater"), _direct(by_image, codec, rival, "image")
        raters, photographs = analysis.share(*people), analysis.share(*images)
        alike = analysis.each_alike(*images)
        implied = analysis.contrast(by_rater, codec, rival, "rater", resamples=2).preferred
        rows.append(
            {
                "rival": rival,
                "times": rates[rival] / rates[codec],
                "share": raters.share,
                "low_raters": raters.low,
                "high_raters": raters.high,
                "low_images": photographs.low,
                "high_images": photographs.high,
                "alike": alike.share,
                "low_alike": alike.low,
                "high_alike": alike.high,
                "votes": raters.votes,
                "expected": implied,
            }
        )
    return pd.DataFrame(rows).sort_values("times", na_position="last", ignore_index=True)


def hific_table(multiples: pd.DataFrame) -> pd.DataFrame:
    """`hific_multiples` as a page shows it."""
    return pd.DataFrame(
        {
            "against": multiples["rival"],
            "its bitrate": [f"{times:.1f} ×" if times == times else "–" for times in multiples["times"]],
            "preferred": _percent(multiples["share"]),
            "% (raters)": _span(multiples["low_raters"], multiples["high_raters"]),
            "% (photographs)": _span(multiples["low_images"], multiples["high_images"]),
            "photographs alike": _percent(multiples["alike"]),
            "% (alike)": _span(multiples["low_alike"], multiples["high_alike"]),
            "choices": multiples["votes"],
            "expected": _percent(multiples["expected"]),
        }
    )


def _percent(values: "pd.Series[float]") -> list[str]:
    return [f"{value:.0%}" for value in values]


def _span(low: "pd.Series[float]", high: "pd.Series[float]", scale: float = 100) -> list[str]:
    """Intervals, in per cent if not scaled otherwise; a dash for none."""
    ends = zip(scale * low, scale * high, strict=True)
    return ["–" if np.isnan(a) else f"{a:.0f}–{b:.0f}" for a, b in ends]


def _direct(table: pd.DataFrame, one: str, two: str, cluster: str) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Score of `one`, count and cluster of the direct choices between two settings."""
    forward = (table["one"] == one) & (table["two"] == two)
    backward = (table["one"] == two) & (table["two"] == one)
    rows = table[forward | backward]
    score = np.where(rows["one"] == one, rows["score"], 1 - rows["score"])
    return pd.Series(score, rows.index), rows["count"], rows[cluster]


def adaptive_sentence(one: str = "HiFiC-mi", two: str = "M&S-mi") -> Sentence:
    """How the number of choices between two settings of the HiFiC study follows how far apart they are.

    Photograph by photograph: how far apart is the difference between their shares of the choices against all others.
    """
    table = published.hific("image")
    order = analysis.names(table)
    wins = analysis.by_cluster(table, order, "image")
    pair, rest = (
        [order.index(one), order.index(two)],
        [k for k, name in enumerate(order) if name not in (one, two)],
    )
    asked = (wins + wins.transpose(0, 2, 1))[:, pair[0], pair[1]]
    won, lost = wins[:, pair][:, :, rest].sum(axis=2), wins[:, rest][:, :, pair].sum(axis=1)
    apart = np.abs(np.diff(won / (won + lost), axis=1)[:, 0])
    correlation = number(stats.spearmanr(asked, apart)[0], ".2f")
    return Sentence(
        f"{one} and {two}, for instance, {asked.min():.0f} to {asked.max():.0f} times a photograph (rank correlation "
        f"with their distance, by the choices against all others: {correlation})"
    )


def hific_sentence(multiples: pd.DataFrame, codec: str = "HiFiC-mi") -> Sentence:
    """The statement at n times the rate: all choices together, with both intervals, and each photograph alike."""
    parts = []
    for row in multiples[multiples["times"].notna()].sort_values("times", ascending=False).itertuples():
        raters = f"{row.low_raters:.0%} to {row.high_raters:.0%}"
        images = f"{row.low_images:.0%} to {row.high_images:.0%}"
        parts.append(
            f"to {row.rival} at {row.times:.1f} times its bitrate in {row.share:.0%} of {row.votes} choices "
            f"(95 %: {raters} over raters, {images} over photographs), and in {row.alike:.0%} "
            f"({row.low_alike:.0%} to {row.high_alike:.0%}) with each photograph counted alike"
        )
    return Sentence(f"{codec} was preferred " + "; ".join(parts) + ".")


def fits_sentence(multiples: pd.DataFrame) -> Sentence:
    """In how many rows what Bradley-Terry expects lies outside both intervals of the direct choices."""
    expected = multiples["expected"]
    outside = [
        (expected < multiples[f"low_{over}"]) | (expected > multiples[f"high_{over}"])
        for over in ("raters", "images")
    ]
    missed = int((outside[0] & outside[1]).sum())
    said = f"In {missed} of {len(multiples)} rows that lies outside both intervals"
    return Sentence(
        f"{said}: one number a setting does not describe these choices well." if missed else f"{said}."
    )


def surer(low: float) -> str:
    """Whether an interval of a preference lies above one half."""
    return "excludes" if low > 0.5 else "does not exclude"


def generalises_sentence(multiples: pd.DataFrame, rival: str = "BPG-3") -> Sentence:
    """Whether the preference holds for other raters, and for other photographs, and whether that hangs on weights."""
    row = multiples.set_index("rival").loc[rival]
    flips = (row["low_images"] > 0.5) != (row["low_alike"] > 0.5)
    end = ": what it says of other photographs depends on the weights" if flips else ""
    return Sentence(
        f"Against {rival} the interval over raters {surer(row['low_raters'])} one half; the interval over "
        f"photographs {surer(row['low_images'])} it where all choices are put together, and "
        f"{surer(row['low_alike'])} it where each photograph counts alike{end}."
    )


def spread() -> Spread:
    """How much raters and photographs differed in the HiFiC study, pooled over pairs of settings."""
    return Spread(pooled(published.hific("rater"), "rater"), pooled(published.hific("image"), "image"))


def raters_table(shares: Sequence[float], images: Sequence[int], differing: Spread) -> pd.DataFrame:
    """Raters it takes to show each preference on so many photographs; None: no number of raters is enough."""
    rows = [
        {"preferred": f"{share:.0%}"}
        | {str(count): raters_needed(share, count, differing) for count in images}
        for share in shares
    ]
    return pd.DataFrame(rows, dtype=object)


def raters_sentence(share: float, images: Sequence[int], differing: Spread) -> Sentence:
    """The numbers of photographs and raters that do with the fewest choices."""
    options = [(count, raters_needed(share, count, differing)) for count in images]
    known = [(count * raters, count, raters) for count, raters in options if raters is not None]
    if not known:
        return Sentence(f"A preference of {share:.0%} takes more than {max(images)} photographs.")
    choices, count, raters = min(known)
    return Sentence(
        f"A preference of {share:.0%} takes, for instance, {count} photographs and {raters} raters who judge each of "
        f"them once: {choices} choices for one pair of codecs at one pair of rates (power 80 %, confidence 95 %, "
        f"{FEWEST_RATERS} raters at least)."
    )


def false_alarms_sentence(shares: Sequence[float], images: Sequence[int], differing: Spread) -> Sentence:
    """How often the studies of `raters_table` show a preference that is not there."""
    sizes = [(raters_needed(share, count, differing), count) for share in shares for count in images]
    chances = [power(0.5, raters, count, differing) for raters, count in sizes if raters is not None]
    if not chances:
        return Sentence("None of these numbers of photographs is enough.")
    return Sentence(
        f"Where there is no preference, these studies show one in up to {max(chances):.0%} of cases (nominally "
        f"{(1 - analysis.LEVEL) / 2:.1%}; each interval leaves out what the other is over)."
    )


def observers_table(observers: dict[str, Observer]) -> pd.DataFrame:
    """How well each observer predicts people, as a page shows it."""
    rows = [
        {
            "observer": LABELS.get(metric, metric),
            "pairs": f"{o.pairs} ({o.outside})",
            "choices": o.votes,
            "agreement": f"{o.agreement:.0%}",
            "slope k": f"{o.fitted:.2f}",
            "95 %": f"{o.low:.2f}–{o.high:.2f}",
            "loss": f"{o.loss:.3f}",
            "coin": f"{o.coin:.3f}",
            "floor": f"{o.floor:.3f}",
        }
        for metric, o in observers.items()
    ]
    return pd.DataFrame(rows)


def judged_table(judged: pd.DataFrame) -> pd.DataFrame:
    """`observers.judge` as a page shows it: one row a rival and rate, one column an observer."""
    shares = pd.Series(_percent(judged["share"])) + " (" + _span(judged["low"], judged["high"]) + ")"
    base = pd.DataFrame(
        {
            "against": [LABELS.get(rival, rival) for rival in judged["rival"]],
            "its bitrate": [f"{ratio:.2f} ×" for ratio in judged["ratio"]],
            "observer": [LABELS.get(metric, metric) for metric in judged["observer"]],
            "share": shares,
        }
    )
    order = list(dict.fromkeys(base["observer"]))
    wide = base.pivot(index=["against", "its bitrate"], columns="observer", values="share")[order]
    wide.columns.name = None
    return wide.reset_index()


def observers_sentence(observers: dict[str, Observer], alike: dict[str, Observer]) -> Sentence:
    """How well observers predict people on the pairs that all have (`alike`), and who loses to a coin on more.

    Both as of `observers.from_people`.
    """
    losses = [f"{LABELS.get(metric, metric)} {o.loss:.3f}" for metric, o in alike.items()]
    same = next(iter(alike.values()))
    kind = "all between rates of one codec" if not same.outside else f"{same.outside} of them between codecs"
    said = (
        f"Each pair left out of the fit in turn, the losses on the {same.pairs} pairs that every metric has values "
        f"for, {kind}, are {listed(losses)} (a coin: {np.log(2):.3f})."
    )
    worse = [
        LABELS.get(metric, metric)
        for metric, o in observers.items()
        if o.pairs > alike[metric].pairs and o.loss > o.coin
    ]
    more = f" With the pairs between codecs, too, a coin does better than {listed(worse)}." if worse else ""
    return Sentence(said + more)


def judged_sentence(table: pd.DataFrame, metric: str, ratios: Sequence[float]) -> Sentence:
    """What one observer expects at the largest of these multiples of the rate that was measured, and which were not."""
    judged = table[(table["observer"] == metric) & table["asked"].isin(ratios)]
    named = LABELS.get(metric, metric)
    gaps = [f"{ratio:g}" for ratio in ratios if ratio not in set(judged["asked"])]
    missing = f"At {listed(gaps)} times the bitrate nothing was measured." if gaps else ""
    if judged.empty:
        return Sentence(missing)
    ratio = float(judged["asked"].max())
    rows = judged[judged["asked"] == ratio]
    spans = [f" ({row.low:.0%} to {row.high:.0%})" if row.low == row.low else "" for row in rows.itertuples()]
    parts = [
        f"{row.share:.0%}{span} against {LABELS.get(row.rival, row.rival)}"
        for row, span in zip(rows.itertuples(), spans, strict=True)
    ]
    won = [LABELS.get(row.rival, row.rival) for row in rows.itertuples() if row.low > 0.5]
    end = (
        f"It prefers this codec to {', '.join(won)} there."
        if won
        else "It surely prefers this codec to none of them."
    )
    return Sentence(
        f"With {ratio:g} times the bitrate for the others, the {named} observer expects {', '.join(parts)}. {end} "
        f"{missing}".rstrip()
    )


def paper_sentence() -> Sentence:
    """What is known of the paper's own study."""
    table = published.paper()
    filled = sum(row.filled for row in table.rows)
    state = (
        f"{filled} of its rows are filled"
        if filled
        else "its cells are empty: nobody with the paper in hand has filled them"
    )
    return Sentence(
        f"The paper claims ({table.claim_place}): {table.claim}. Its table is a template here; {state}."
    )
