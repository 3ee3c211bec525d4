"""What closing the follow-up's three gaps brings, read from the stored table of choices and stated in sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diffusion_codec.errors import MissingDataError
from diffusion_codec.evaluation.findings import LABELS, Sentence, number

COLUMNS: Mapping[str, int] = {"psnr": 1, "lpips-alex": -1}
"""Measures of the tables, and 1 where more is better."""
REFINED: Mapping[str, str] = {
    "psnr": "{:.2f}",
    "lpips-alex": "{:.4f}",
    "dists": "{:.4f}",
    "lpips-squeeze": "{:.4f}",
}
"""Measures of refinement, the one it descends last."""
COMPARED = ("avif", "jpeg2000", "vvc")
"""Codecs that refined files are told against."""
BASE = "as here"
"""The variant of the training that the others are compared with."""
SEEDED = "paper-2025"
"""The choice that was measured with several seeds of its dither."""
QUESTIONS: Mapping[str, str] = {
    "analysis": "the latent",
    "gamma": "the transform",
    "t": "the timestep",
    "quantisation": "the rounding",
    "steps": "denoising steps",
    "side information": "precision in the file",
    "text": "the prompt",
    "variant": "all of it, trained",
}
"""Questions of the table in the order of the figure, as people say them."""


def choices(path: Path) -> pd.DataFrame:
    """`codec_choices.csv` with columns question, choice, steps, psnr, lpips-alex, rate, dataset, and what each choice
    changes against the base: d_psnr (dB), d_lpips-alex.

    The base is the row of the question "base", of each data set its own. Raises MissingDataError.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} is missing: `python -m diffusion_codec.evaluation.choices` makes it")
    table = pd.read_csv(path)
    measured = {name: next(c for c in table.columns if c.startswith(f"{name} at ")) for name in COLUMNS}
    table = table.rename(columns={column: name for name, column in measured.items()})
    table["rate"] = float(measured["psnr"].rsplit(" ", 1)[1])
    base = table[table.question == "base"].set_index("dataset")
    for name in COLUMNS:
        table[f"d_{name}"] = table[name] - table["dataset"].map(base[name])
    return table


def change(table: pd.DataFrame, choice: str) -> Sentence:
    """What one choice changes, for example "+0.24 dB PSNR and −0.0140 LPIPS (AlexNet)"; says what is not measured."""
    rows = table[table.choice == choice]
    if rows.empty or rows[list(COLUMNS)].isna().any(axis=None):
        return Sentence("not measured")
    row = rows.iloc[0]
    psnr, lpips = number(row["d_psnr"], "+.2f"), number(row["d_lpips-alex"], "+.4f")
    return Sentence(f"{psnr} dB PSNR and {lpips} {LABELS['lpips-alex']}")


def better(
    table: pd.DataFrame, choice: str, than: str, limits: Mapping[str, float] | None = None
) -> Sentence:
    """Where a choice is better or worse than another, and where no further from it than chance goes.

    ``limits`` by measure say how far that is; :func:`chance` where none are given.
    """
    pair = [table[table.choice == name] for name in (choice, than)]
    if any(rows.empty or rows[list(COLUMNS)].isna().any(axis=None) for rows in pair):
        return Sentence("not compared: one of the two was not measured")
    new, old = (rows.iloc[0] for rows in pair)
    words = []
    for name, sign in COLUMNS.items():
        gain = sign * (new[name] - old[name])
        limit = chance(table, name) if limits is None else limits[name]
        words.append("alike" if abs(gain) <= limit else "better" if gain > 0 else "worse")
    return _in_both(words)


def _in_both(words: Sequence[str]) -> Sentence:
    """One word a measure as a phrase: "better in PSNR, alike in LPIPS"."""
    if len(set(words)) == 1:
        return Sentence(f"{words[0]} in both measures")
    said = {word: name.partition("-")[0].upper() for name, word in zip(COLUMNS, words, strict=True)}
    return Sentence(", ".join(f"{w} in {said[w]}" for w in ("better", "worse", "alike") if w in said))


def chance(table: pd.DataFrame, measure: str) -> float:
    """What another seed of the dither alone changes: the range over the rows of `SEEDED`; 0 where there is one."""
    seeds = (table.choice == SEEDED) | table.choice.str.startswith(f"{SEEDED}, dither of seed")
    values = table.loc[seeds, measure]
    return float(values.max() - values.min()) if len(values) > 1 else 0.0


def rate_slack(table: pd.DataFrame, summary: pd.DataFrame, codec: str = "dfc-mini") -> tuple[float, float]:
    """By what part of the rate files of one limit differ, and how much LPIPS (alex) that is worth on a codec's curve.

    ``table`` of :func:`choices`, coarse alphas left aside; the slope is that between the rates about its own.
    """
    rate = float(table["rate"].iloc[0])
    spent = table.loc[table["question"] != "side information", "bpp at 0.1"]
    apart = float(spent.max() / spent.min() - 1)
    own = summary[(summary["codec"] == codec) & (summary["metric"] == "lpips-alex")].sort_values("bpp")
    rates, values = own["bpp"].to_numpy(float), own["value"].to_numpy(float)
    slope = float(np.interp(rate * (1 + apart), rates, values) - np.interp(rate, rates, values))
    return apart, abs(slope)


def chance_of_training(path: Path, rate: float) -> dict[str, float]:
    """What another seed of the training changes, by measure: the range over the runs of :data:`BASE` on 256 pixels."""
    table = pd.read_csv(path).query("config == 'cpu' and variant == @BASE")
    return {name: float(table[f"{name} at {rate:g}"].agg(lambda v: v.max() - v.min())) for name in COLUMNS}


def denoisers(path: Path) -> pd.DataFrame:
    """`denoisers.csv`: dataset, t, dither, denoiser, and measures of the decoded pictures. Raises MissingDataError."""
    if not path.is_file():
        raise MissingDataError(f"{path} is missing: `diffusion-codec train denoiser-study` makes it")
    return pd.read_csv(path)


def denoiser_change(
    table: pd.DataFrame, denoiser: str, than: str = "epsilon", dither: bool = True
) -> Sentence:
    """What one small denoiser is worth against another: ranges over the timesteps, and how often it is ahead."""
    psnr, lpips = (_range(table, name, denoiser, than, dither) for name in COLUMNS)
    return Sentence(
        f"{psnr[0]} dB PSNR (ahead at {psnr[1]} timesteps) and "
        f"{lpips[0]} {LABELS['lpips-alex']} (ahead at {lpips[1]} timesteps)"
    )


def denoisers_table(table: pd.DataFrame, than: str = "epsilon") -> pd.DataFrame:
    """:func:`denoiser_change` of every denoiser, on dithered and on rounded latents, for readers."""
    rows = []
    for dither in (True, False):
        for denoiser in table.denoiser.unique():
            if denoiser != than:
                psnr, lpips = (_range(table, name, denoiser, than, dither) for name in COLUMNS)
                row = (
                    "dithered" if dither else "rounded",
                    denoiser.replace("none", "no denoising"),
                    *psnr,
                    *lpips,
                )
                rows.append(row)
    columns = ["latents", "denoiser", "dB PSNR", "ahead at", LABELS["lpips-alex"], "ahead at "]
    return pd.DataFrame(rows, columns=columns)


def _range(table: pd.DataFrame, measure: str, denoiser: str, than: str, dither: bool) -> tuple[str, str]:
    """From the least to the greatest change of a measure over the timesteps, and at how many it is for the better."""
    rows = table[table.dither == dither].pivot(index="t", columns="denoiser", values=measure)
    change = rows[denoiser] - rows[than]
    better = change > 0 if measure == "psnr" else change < 0
    low, high = (number(end, "+.2f" if measure == "psnr" else "+.3f") for end in (change.min(), change.max()))
    return f"{low} to {high}", f"{int(better.sum())} of {len(change)}"


def dither_gain(table: pd.DataFrame, denoiser: str, t: int) -> float:
    """PSNR of dithered over rounded latents after one step of this denoiser, in dB."""
    rows = table[(table.denoiser == denoiser) & (table.t == t)].set_index("dither")
    return float(rows.psnr[True] - rows.psnr[False])


def described(path: Path, than: str = "trained without descriptions") -> pd.DataFrame:
    """`denoisers_described.csv` as changes against one denoiser, means over timesteps, a row a picture and way to ask.

    Columns: denoiser, told, guidance, image, latent_mse (per cent), psnr (dB), lpips-alex.
    """
    table = pd.read_csv(path).set_index(["image", "t"])
    base = table[table.denoiser == than]
    rows = []
    for way, asked in table.groupby(["denoiser", "told", "guidance"], sort=False):
        change = asked[list(COLUMNS)] - base[list(COLUMNS)]
        change["latent_mse"] = 100 * (asked["latent_mse"] / base["latent_mse"] - 1)
        means = change.groupby("image").mean().reset_index()
        rows.append(means.assign(denoiser=way[0], told=way[1], guidance=way[2]))
    return pd.concat(rows, ignore_index=True)


def described_table(path: Path, than: str = "trained without descriptions") -> pd.DataFrame:
    """:func:`described` for readers: means over pictures, and in brackets the least and the greatest of a picture."""
    rows = []
    for (denoiser, told, guidance), asked in described(path, than).groupby(
        ["denoiser", "told", "guidance"], sort=False
    ):
        if denoiser == than:
            continue
        said = told if guidance == 1 else f"{told}, guidance {guidance:g}"
        row = {"denoiser": denoiser, "told": said}
        for column, label, form in (
            ("latent_mse", "latent's squared error (%)", "+.1f"),
            ("psnr", "dB PSNR", "+.2f"),
            ("lpips-alex", LABELS["lpips-alex"], "+.3f"),
        ):
            mean, low, high = (number(asked[column].agg(end), form) for end in ("mean", "min", "max"))
            row[label] = f"{mean} ({low} to {high})"
        rows.append(row)
    return pd.DataFrame(rows)


def entropy_table(path: Path) -> pd.DataFrame:
    """`entropy_models.csv` for readers: bits per pixel by kind of model, one row a lambda, the fewest with a star.

    The lattice that learned from noise is no kind of its own and is left out.
    """
    table = pd.read_csv(path).filter(regex="^(?!lattice-from-noise)")
    totals = [column for column in table.columns if column.endswith("_total")]
    shown = table[["lambda", "zeroth_order", *totals]].copy()
    for i, row in table.iterrows():
        least = min(totals, key=lambda name: float(row[name]))
        for name in totals:
            hyper = float(row[name.replace("_total", "_hyper")])
            text = f"{float(row[name]):.4f}{' *' if name == least else ''}"
            shown[name] = shown[name].astype(object)
            shown.loc[i, name] = text + (f" ({hyper:.4f})" if hyper else "")
    shown["lambda"] = shown["lambda"].map(_lambda)
    shown["zeroth_order"] = shown["zeroth_order"].map("{:.4f}".format)
    names = {name: name.removesuffix("_total").replace("-", " + ") for name in totals}
    return shown.rename(columns={"zeroth_order": "zeroth-order entropy", **names})


def _lambda(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def integers_table(path: Path) -> pd.DataFrame:
    """`entropy_models_integers.csv` for readers: what exact arithmetic costs in bits and in seconds."""
    table = pd.read_csv(path)
    excess = 100 * (table["stream_bpp"] / table["real_bpp"] - 1)
    columns = {
        "lambda": table["lambda"].map(_lambda),
        "real numbers (bits per pixel)": table["real_bpp"].map("{:.4f}".format),
        "integers, real stream": table["stream_bpp"].map("{:.4f}".format),
        "more bits (%)": excess.map("{:.2f}".format),
        "real numbers (s, networks alone)": table["real_seconds"].map("{:.2f}".format),
        "integers (s, with range coder)": table["exact_seconds"].map("{:.2f}".format),
    }
    return pd.DataFrame(columns)


def training_better(table: pd.DataFrame, variant: str, rate: float) -> Sentence:
    """Which of the measures are better, worse or alike in runs of one variant than in those of :data:`BASE`.

    Alike where the ranges of the two over their seeds touch.
    """
    words = []
    for name, sign in COLUMNS.items():
        new, old = (
            sign * table.loc[table.variant == which, f"{name} at {rate:g}"] for which in (variant, BASE)
        )
        if new.isna().any():
            return Sentence("no file that small")
        words.append("better" if new.min() > old.max() else "worse" if new.max() < old.min() else "alike")
    return _in_both(words)


def training_table(path: Path, config: str, rates: Sequence[float] = (0.1, 0.05)) -> pd.DataFrame:
    """Runs of one configuration in `training_choices.csv`, for readers: means over seeds, half their range, and what
    that says against the base at the first rate. A dash where a run of the variant has no file so small.

    Where all runs have it, the noise that files of the first rate declare stands in place of the span of rates and the
    number of runs, and beside LPIPS what it is when the same weights' files declare the match.
    """
    table = pd.read_csv(path)
    table = table[table.config == config]
    first = f"{rates[0]:g}"
    told = f"declared at {first}" in table and table[f"declared at {first}"].notna().all()
    rows = []
    for variant, runs in table.groupby("variant", sort=False):
        row = {"what differs": variant}
        if told:
            row["noise declared"] = _with_range(runs[f"declared at {first}"], 2)
        else:
            row["runs"] = len(runs)
            row["bits per pixel"] = f"{runs.lowest_bpp.mean():.3f} to {runs.highest_bpp.mean():.3f}"
        for rate in rates:
            for name, digits in (("psnr", 2), ("lpips-alex", 3)):
                row[f"{LABELS[name]} at {rate:g}"] = _with_range(runs[f"{name} at {rate:g}"], digits)
            if rate == rates[0]:
                said = "" if variant == BASE else training_better(table, variant, rate)
                row[f"against the base at {first}"] = said
                if told:
                    matched = runs[f"lpips-alex at {first}, t matched"]
                    row[f"{LABELS['lpips-alex']} at {first}, t matched"] = _with_range(matched, 3)
        rows.append(row)
    return pd.DataFrame(rows)


def _with_range(values: pd.Series, digits: int) -> str:
    """The mean and half the range of several values, as "24.80 ± 0.07"."""
    if values.isna().any():
        return "–"
    half = (values.max() - values.min()) / 2
    return f"{values.mean():.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def others_table(path: Path) -> pd.DataFrame:
    """`entropy_models_other.csv` for readers: bits per pixel, of it the hyper stream in brackets, one row a lambda.

    One column a prior, in brackets its thousands of parameters.
    """
    table = pd.read_csv(path)
    spent = table["bpp"].map("{:.4f}".format)
    hyper = table["hyper_bpp"].map(lambda bpp: f" ({bpp:.4f})" if bpp else "")
    thousands = (table["parameters"] / 1000).map(" ({:.0f} k)".format)
    told = table.assign(spent=spent + hyper, prior=table["prior"] + thousands)
    wide = told.pivot(index="lambda", columns="prior", values="spent")[list(dict.fromkeys(told["prior"]))]
    return wide.rename(index=_lambda).rename_axis(columns=None).reset_index()


def seeing_table(path: Path) -> pd.DataFrame:
    """`seeing.csv` for readers: one row a lambda and P_phi."""
    table = pd.read_csv(path)
    ratio, error = (100 * table[name] for name in ("loss_ratio", "loss_ratio_error"))
    columns = {
        "lambda": table["lambda"].map(_lambda),
        "P_phi": table["p_phi"],
        "bits per pixel": table["bpp"].map("{:.4f}".format),
        LABELS["psnr"]: table["psnr"].map("{:.2f}".format),
        LABELS["lpips-alex"]: table["lpips-alex"].map("{:.4f}".format),
        "loss, % of that which sees": [
            f"{r:.1f} \u00b1 {e:.1f}" if e else f"{r:.0f}" for r, e in zip(ratio, error, strict=True)
        ],
    }
    return pd.DataFrame(columns)


def latent_space_table(path: Path) -> pd.DataFrame:
    """`latent_space.csv` for readers: one row a latent, each measure by each decoder."""
    table = pd.read_csv(path)
    shown = {"latent by": list(dict.fromkeys(table["latent"]))}
    wide = table.pivot(index="latent", columns="decoder", values=list(COLUMNS)).loc[shown["latent by"]]
    for decoder in dict.fromkeys(table["decoder"]):
        for name, form in zip(COLUMNS, ("{:.2f}", "{:.4f}"), strict=True):
            shown[f"{LABELS[name]}, decoded by {decoder}"] = wide[name, decoder].map(form.format).tolist()
    return pd.DataFrame(shown)


def large_pictures_table(path: Path) -> pd.DataFrame:
    """`large_pictures.csv` for readers: one row a picture and way to work on it, rate and measures for each limit."""
    table = pd.read_csv(path)
    keys = ["picture", "worked_on"]
    rows = table[keys].drop_duplicates()
    shown = {"picture": rows["picture"].tolist(), "worked on": rows["worked_on"].tolist()}
    wide = table.set_index([*keys, "rate"])
    named = {"bpp": ("bits per pixel", "{:.4f}"), "psnr": (LABELS["psnr"], "{:.2f}")}
    named["lpips-alex"] = (LABELS["lpips-alex"], "{:.4f}")
    for rate in dict.fromkeys(table["rate"]):
        for name, (label, form) in named.items():
            values = wide.xs(rate, level="rate")[name].loc[list(rows.itertuples(index=False, name=None))]
            shown[f"{label} at {rate:g}"] = values.map(form.format).tolist()
    return pd.DataFrame(shown)


def refinement_table(path: Path) -> pd.DataFrame:
    """`refinement.csv` for readers: one row a backbone, rate and number of steps."""
    table = pd.read_csv(path)
    shown = {
        "backbone": table["backbone"],
        "steps": table["steps"],
        "bpp": table["bpp"].map("{:.4f}".format),
    }
    for name, form in REFINED.items():
        shown[LABELS[name]] = table[name].map(form.format)
    shown["s"] = table["seconds"].map(lambda value: f"{value:.0f}" if value else "–")
    return pd.DataFrame(shown)


def refined(path: Path, rate: float, backbone: str, rivals: Mapping[str, float]) -> tuple[Sentence, Sentence]:
    """LPIPS (AlexNet) after the most steps of `refinement.csv`: its share of what it was before, and of others'.

    Args:
        rivals: codec -> LPIPS (AlexNet) at that rate; :data:`COMPARED` says which are named, of those that are there.
    """
    table = pd.read_csv(path).query("backbone == @backbone and rate == @rate").sort_values("steps")
    before, after = table["lpips-alex"].iloc[0], table["lpips-alex"].iloc[-1]
    named = [
        f"{number(100 * after / rivals[name], '.1f')} % of {LABELS[name]}'s"
        for name in COMPARED
        if name in rivals
    ]
    return Sentence(f"{number(100 * after / before, '.1f')} %"), Sentence(", ".join(named) or "not compared")


def realism_table(path: Path, codecs: Sequence[str]) -> pd.DataFrame:
    """KID and FID of several codecs from a stored table of realism, one row a rate and codec."""
    table = pd.read_csv(path)
    wide = table[table["target_bpp"].notna()].pivot(
        index=["target_bpp", "codec"], columns="metric", values="value"
    )
    rows = [(rate, codec) for rate in wide.index.unique("target_bpp") for codec in codecs]
    wide = wide.loc[rows]
    columns = {
        "bits per pixel": [f"{rate:g}" for rate, _ in rows],
        "codec": [codec for _, codec in rows],
        "KID": [number(value, ".4f") for value in wide["kid-packaged"]],
        "FID": [number(value, ".1f") for value in wide["fid-packaged"]],
    }
    return pd.DataFrame(columns)


def choices_table(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`choices` for readers: what is asked, what was chosen, and both measures."""
    asked = table["question"].map({"base": "the base", **QUESTIONS})
    shown = {"question": asked, "choice": table["choice"]}
    first = f"{table['rate'].iloc[0]:g}"
    for name, form in zip(COLUMNS, ("{:.2f}", "{:.4f}"), strict=True):
        others = [column for column in table.columns if column.startswith(f"{name} at ")]
        for column in (name, *others):
            rate = column.removeprefix(f"{name} at ") if column in others else first
            shown[f"{LABELS[name]} at {rate}"] = table[column].map(form.format, na_action="ignore")
    return pd.DataFrame(shown).fillna("–")


def rates_table(
    summary: pd.DataFrame, codec: str = "dfc-mini", ceiling: str = "ceiling-mini"
) -> pd.DataFrame:
    """What a reader may expect of a rate: mean measures of the codec, and of its autoencoder alone."""
    wanted = {"psnr": "PSNR (dB)", "ms-ssim": "MS-SSIM", "lpips-alex": "LPIPS (AlexNet)"}
    rows = []
    for name in (codec, ceiling):
        own = summary[(summary.codec == name) & summary.metric.isin(wanted)]
        for rate, group in own.groupby("target_bpp", dropna=False):
            values = group.set_index("metric").value
            real = group.bpp.mean()
            row = {
                "bits per pixel asked for": "no file: autoencoder alone" if pd.isna(rate) else f"{rate:g}",
                "really": "" if pd.isna(real) else f"{real:.3f}",
                "kB of 12 megapixels": "" if pd.isna(real) else f"{12e6 * real / 8 / 1000:.0f}",
            }
            for metric, label in wanted.items():
                digits = 1 if metric == "psnr" else 3
                row[label] = f"{values[metric]:.{digits}f}" if metric in values else "–"
            rows.append(row)
    return pd.DataFrame(rows)
