"""`python -m diffusion_codec.evaluation.claims`: the ledger of the paper's claims, decided by numbers.

`data/claims.toml` says for each claim what is measured, from which number on it counts as replicated or partly so,
and what we found: number, tolerance, verdict. The number itself is read from `data/results/` every time. A number that
left its tolerance, or a verdict that no longer follows, is an error: what the book says must be what was measured.
"""

import json
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import typer
from pydantic import ValidationError
from rich.console import Console

from diffusion_codec import fetch
from diffusion_codec.closed import Closed
from diffusion_codec.codec_weights import DEFAULT, embedded_weights
from diffusion_codec.errors import BadInputError, DiffusionCodecError
from diffusion_codec.evaluation import records, seal
from diffusion_codec.evaluation.findings import LABELS, RATE_SLACK, denoising_gain, number
from diffusion_codec.evaluation.numbers import of_kodak_size
from diffusion_codec.evaluation.study import STEPS_BITRATES, STEPS_IMAGES
from diffusion_codec.evaluation.tables import NotComparableError, current
from diffusion_codec.files import write_atomically
from diffusion_codec.schedule import STABLE_DIFFUSION

Verdict = Literal["replicated", "partly", "not replicated", "not testable here", "not tested yet"]

SCHEDULE = STABLE_DIFFUSION.num_timesteps
TRAINING_SET, GAIN_RATE = "train-photos", 0.1
TRAINING_FRAMES = 120
"""Three frames of each of the 40 training septuplets of vimeo90k-septuplet-48 taught the codec's own networks."""

app = typer.Typer(add_completion=False)


class ClaimsError(BadInputError):
    """The ledger cannot be read, or a number is not where the ledger says it is."""


class Bound(Closed):
    """A side of the line: `at_most`, `at_least`, or both."""

    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies on the right side."""
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        return bool(low <= value <= high)

    def __str__(self) -> str:
        low = "" if self.at_least is None else f"≥ {self.at_least:g}"
        high = "" if self.at_most is None else f"≤ {self.at_most:g}"
        return " and ".join(part for part in (low, high) if part)


class Claim(Closed):
    """One row of the ledger as written down; `ours` is absent until it was measured."""

    claim: str
    quantity: str
    replicated: Bound
    partly: Bound | None = None
    ours: float | None = None
    tolerance: float
    verdict: Verdict = "not tested yet"
    not_testable: str = ""
    figure: str
    notebook: str


class Evidence(Closed):
    """A number with all a reader needs to judge it; what other measurements leave in `data/results/claims/`.

    `not_testable` says why the number, though measured, cannot decide the claim (for instance: another machine).
    """

    value: float
    low: float | None = None
    high: float | None = None
    protocol: str
    files: tuple[str, ...]
    made: str
    not_testable: str = ""


@dataclass(frozen=True)
class Entry:
    """One claim with its evidence and what follows from it."""

    id: str
    claim: Claim
    evidence: Evidence | None

    @property
    def verdict(self) -> Verdict:
        """What the number says by the bounds of the ledger."""
        if self.evidence is None:
            return "not tested yet"
        if self.claim.not_testable or self.evidence.not_testable:
            return "not testable here"
        if self.claim.replicated.holds(self.evidence.value):
            return "replicated"
        if self.claim.partly is not None and self.claim.partly.holds(self.evidence.value):
            return "partly"
        return "not replicated"

    @property
    def mark(self) -> str:
        """The mark of replication papers: [Re], [not Re], or neither."""
        return {"replicated": "[Re]", "partly": "[partly Re]", "not replicated": "[not Re]"}.get(
            self.verdict, ""
        )

    @property
    def problem(self) -> str | None:
        """What is wrong: the number left its tolerance, or came or went without the ledger knowing."""
        ours, found = self.claim.ours, self.evidence
        if found is None:
            return None if ours is None else f"{self.id}: the ledger says {ours:g}, its evidence is gone"
        if ours is None:
            return f"{self.id}: {found.value:.4g} was measured, the ledger does not know it yet"
        if abs(found.value - ours) > self.claim.tolerance:
            return f"{self.id}: {found.value:.4g} was measured, the ledger says {ours:g} ± {self.claim.tolerance:g}"
        if self.verdict != self.claim.verdict:
            return f"{self.id}: {found.value:.4g} is {self.verdict}, the ledger says {self.claim.verdict}"
        return None


def ledger_path() -> Path:
    """The typed file of claims."""
    return fetch.repository_root() / "data" / "claims.toml"


def read_claims(path: Path) -> dict[str, Claim]:
    """The claims by their id. Raises ClaimsError for a file that is not a ledger; unknown keys are errors."""
    try:
        rows: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Claim.model_validate(row) for name, row in rows.items()}
    except (OSError, tomllib.TOMLDecodeError, ValidationError, AttributeError) as error:
        raise ClaimsError(f"{path.name}: {error}") from error


def ledger(path: Path | None = None, results: Path | None = None) -> list[Entry]:
    """Every claim with its evidence. Raises SealError for a stored result that was changed, ClaimsError."""
    folder = results or seal.results_folder()
    seal.verify(folder)
    return [
        Entry(name, claim, evidence(name, folder))
        for name, claim in read_claims(path or ledger_path()).items()
    ]


def evidence(name: str, folder: Path) -> Evidence | None:
    """The evidence for a claim, None where it was not measured yet."""
    if name in _FROM_RECORDS:
        return _FROM_RECORDS[name](folder)
    path = folder / "claims" / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return Evidence.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ClaimsError(f"data/results/claims/{path.name} is no evidence: {error}") from error


def write_evidence(name: str, found: Evidence, folder: Path) -> Path:
    """Keep the evidence for a claim where the ledger looks for it."""
    path = folder / "claims" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(found.model_dump(), indent=1) + "\n"
    write_atomically(path, content.encode(), force=True)
    return path


def fewest_steps(folder: Path) -> Evidence | None:
    """C1: at what share of the rates both the steps and the way are less than a tenth of the schedule's 1000.

    Steps: the fewest whose mean LPIPS (alex) is within 1 % of the best, at the worst of the rates they were studied
    at, which are those that count. Way: the t at which files of a rate begin, which claims/C1.csv has.
    """
    path, way = folder / "kodak_rd.csv", folder / "claims" / "C1.csv"
    if not path.is_file() or not way.is_file():
        return None
    results = records.read(path)
    rows = [
        (record.target_bpp, record.steps, record.image, record.value)
        for record in current(results)
        if record.metric == "lpips-alex" and record.codec.split("@")[0] == "dfc-mini"
    ]
    table = pd.DataFrame(rows, columns=["rate", "steps", "image", "value"])
    images = sorted(table["image"].unique())[:STEPS_IMAGES]
    table = table[table["rate"].isin(STEPS_BITRATES) & table["image"].isin(images)]
    means = table.groupby(["rate", "steps"])["value"].mean().unstack("steps")
    if means.empty or means.isna().any(axis=None):
        return None
    enough = max(int((row <= row.min() * 1.01).idxmax()) for _, row in means.iterrows())
    tried = ", ".join(str(int(steps)) for steps in means.columns)
    begins = pd.read_csv(way).groupby("target_bpp")["timestep"].mean()
    if not set(STEPS_BITRATES) <= set(begins.index):
        return None
    told = ", ".join(f"{t:.0f} at {rate:g}" for rate, t in begins.items())
    return Evidence(
        value=float((begins[list(STEPS_BITRATES)] < SCHEDULE / 10).mean()) if enough < SCHEDULE / 10 else 0.0,
        protocol=f"mini; the first {len(images)} photographs of kodak; {enough} DDIM steps are enough at "
        f"{', '.join(f'{r:g}' for r in STEPS_BITRATES)} bits per pixel ({tried} tried; LPIPS (alex) within 1 % of the "
        f"best of them); t begins, on average, at {told} bits per pixel",
        files=("kodak_rd.csv", "claims/C1.csv"),
        made="make results and make evidence",
    )


def realism_ratio(folder: Path) -> Evidence | None:
    """C3: at what share of the rates the KID of the default weights is below every rival's, intervals apart.

    Every data set counts whose realism is stored, each of its rates alike.
    """
    found = {path.name: pd.read_csv(path) for path in sorted(folder.glob("*_realism.csv"))}
    won = {name: realism_won(table, "kid-packaged") for name, table in found.items()}
    verdicts = [below for rates in won.values() for below in rates.values()]
    if not verdicts:
        return None
    protocol = next(iter(found.values())).query("metric == 'kid-packaged'")["protocol"].iloc[0]
    counted = "; ".join(
        f"{sum(won[name].values())} of {len(won[name])} rates on {table['images'].max()} photographs of "
        f"{table['dataset'].iloc[0]} (against {_rivals_told(table)})"
        for name, table in found.items()
    )
    return Evidence(
        value=sum(verdicts) / len(verdicts),
        protocol=f"mini; {protocol}; {counted}; 95 % intervals (bootstrap over photographs) must not touch those of "
        "rivals whose files are no more than 5 % larger",
        files=tuple(found),
        made="make realism",
    )


def realism_won(table: pd.DataFrame, metric: str) -> dict[float, bool]:
    """Rate -> whether the default weights' interval lies below every rival's; rates without a rival are left out.

    ``table`` is a stored realism table. A rival's files may be 5 % larger, no more.
    """
    return {rate: bool(own["high"] < rivals["low"].min()) for rate, own, rivals in _contests(table, metric)}


def _contests(table: pd.DataFrame, metric: str) -> Iterator[tuple[float, pd.Series, pd.DataFrame]]:
    """(rate, the default weights' row, those of the rivals whose files are small enough) of every rate that has one."""
    rows = table[table["metric"] == metric]
    conventional = rows[rows["target_bpp"].notna() & ~rows["codec"].str.startswith("dfc-")]
    for _, own in rows[rows["codec"] == "dfc-mini"].sort_values("target_bpp").iterrows():
        same = conventional["target_bpp"] == own["target_bpp"]
        rivals = conventional[same & (conventional["bpp"] <= own["bpp"] * (1 + RATE_SLACK))]
        if len(rivals):
            yield float(own["target_bpp"]), own, rivals


def kid_contests(table: pd.DataFrame) -> pd.DataFrame:
    """A stored realism table for readers, KID in thousandths: this codec, the nearest rival, how far that lies above.

    The interval of the difference is taken over the same photographs for both, and is thus narrower than two intervals
    side by side.
    """
    rows = []
    for rate, own, rivals in _contests(table, "kid-packaged"):
        nearest = rivals.loc[rivals["value"].idxmin()]
        rows.append(
            {
                "data set": own["dataset"],
                "bits per pixel": f"{rate:g}",
                own["codec"]: _with_interval(own, "value", "low", "high"),
                "rival": LABELS.get(nearest["codec"], nearest["codec"]),
                "its": _with_interval(nearest, "value", "low", "high"),
                "above by": _with_interval(nearest, "above", "above_low", "above_high"),
                "apart": "yes" if own["high"] < rivals["low"].min() else "no",
            }
        )
    return pd.DataFrame(rows)


def _with_interval(row: pd.Series, *columns: str) -> str:
    value, low, high = (number(1000 * row[column], ".1f") for column in columns)
    return f"{value} ({low}–\u2060{high})"  # a word joiner keeps the interval in one line


def _rivals_told(table: pd.DataFrame) -> str:
    contests = _contests(table, "kid-packaged")
    return ", ".join(f"at {rate:g}: {' '.join(rivals['codec'])}" for rate, _, rivals in contests)


def training_images(folder: Path) -> Evidence | None:
    """C7: pictures the default weights were trained on; 0 if denoising does not lower LPIPS (alex) with them.

    Their card's ``training.json`` says how many. The gain is looked at at 0.1 bits per pixel, photograph by photograph,
    and must be sure (95 %).
    """
    path = folder / "kodak_rd.csv"
    if not path.is_file():
        return None
    try:
        gain = denoising_gain(records.read(path), "dfc-mini", "dfc-mini@0", ("lpips-alex",))
    except NotComparableError:
        return None
    row = gain[gain["target_bpp"] == GAIN_RATE]
    if row.empty:
        return None
    runs = json.loads((embedded_weights().parent / "training.json").read_text())[DEFAULT].values()
    photographs = max(run["config"]["photos_limit"] for run in runs)
    change, high = float(row["difference"].iloc[0]), float(row["high"].iloc[0])
    return Evidence(
        value=float(photographs + TRAINING_FRAMES) if high < 0 else 0.0,
        protocol=f"trained on {photographs} photographs of {TRAINING_SET} and {TRAINING_FRAMES} frames of Vimeo-90k, "
        "with a backbone that had learned from all of that set; "
        f"denoising changes LPIPS (alex) by {change:+.3f} at {GAIN_RATE:g} bits per pixel on "
        f"{int(row['images'].iloc[0])} photographs of kodak (95 % below {high:+.3f})",
        files=("kodak_rd.csv",),
        made="make results",
    )


def decoding_seconds(folder: Path) -> Evidence | None:
    """C6: seconds to decode a picture of Kodak's size, loading apart."""
    path = folder / "bench.json"
    if not path.is_file():
        return None
    bench = json.loads(path.read_text(encoding="utf-8"))
    about, measured = bench["about"], of_kodak_size(bench)
    real = str(about["backbone"]).startswith("stable-diffusion") and str(about["device"]).startswith("cuda")
    return Evidence(
        value=float(measured["decompress"]["total"]),
        protocol=f"backbone {about['backbone']}, {measured['width']} x {measured['height']}, {about['steps']} steps, "
        f"{about['device']} ({about['machine']}), median of {about['repeats']} warm runs, loading apart",
        files=("bench.json",),
        made="make bench",
        not_testable=""
        if real
        else "the stand-in on a CPU says nothing of 1.3 billion parameters on an RTX 3090",
    )


_FROM_RECORDS: dict[str, Callable[[Path], Evidence | None]] = {
    "C1": fewest_steps,
    "C3": realism_ratio,
    "C6": decoding_seconds,
    "C7": training_images,
}


def table(entries: list[Entry]) -> pd.DataFrame:
    """The ledger as one row a claim, with number, bounds, protocol, verdict and where they come from."""
    rows = []
    for entry in entries:
        found = entry.evidence
        interval = None
        if found is not None and found.low is not None and found.high is not None:
            interval = f"{found.low:.4g} to {found.high:.4g}"
        rows.append(
            {
                "id": entry.id,
                "claim": entry.claim.claim,
                "quantity": entry.claim.quantity,
                "ours": None if found is None else found.value,
                "interval": interval,
                "counts as replicated": str(entry.claim.replicated),
                "tolerance": entry.claim.tolerance,
                "protocol": "" if found is None else found.protocol,
                "verdict": entry.verdict,
                "mark": entry.mark,
                "why not": "" if found is None else (entry.claim.not_testable or found.not_testable),
                "figure": entry.claim.figure,
                "notebook": entry.claim.notebook,
                "files": "" if found is None else ", ".join(found.files),
                "made by": "" if found is None else found.made,
            }
        )
    return pd.DataFrame(rows)


def bundle(entries: list[Entry], folder: Path, target: Path) -> Path:
    """One zip archive with every data file that a verdict rests on."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _files(entries):
            archive.write(folder / name, name)
    return target


def copies(entries: list[Entry], folder: Path, target: Path) -> None:
    """The same files as they are, in a folder that the site offers."""
    for name in _files(entries):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / name, target / name)


def _files(entries: list[Entry]) -> list[str]:
    return sorted({name for entry in entries if entry.evidence for name in entry.evidence.files})


def accept(path: Path, entries: list[Entry]) -> list[str]:
    """Write what was measured into the ledger's `ours` and `verdict`; what was changed. The bounds stay as they are."""
    blocks = path.read_text(encoding="utf-8").split("\n[")
    changed = []
    for entry in entries:
        if entry.problem is None:
            continue
        wanted = None if entry.evidence is None else float(f"{entry.evidence.value:.4g}")
        for place, block in enumerate(blocks):
            if block.lstrip("[").startswith(f"{entry.id}]"):
                lines = [line for line in block.split("\n") if not line.startswith(("ours = ", "verdict = "))]
                at = next(i for i, line in enumerate(lines) if line.startswith("tolerance = "))
                told = [] if wanted is None else [f"ours = {wanted!r}", f'verdict = "{entry.verdict}"']
                lines[at:at] = told
                blocks[place] = "\n".join(lines)
        changed.append(
            f"{entry.id}: {entry.claim.ours} -> {wanted}, {entry.claim.verdict} -> {entry.verdict}"
        )
    write_atomically(path, "\n[".join(blocks).encode(), force=True)
    return changed


@app.command()
def main(
    write_down: Annotated[
        bool, typer.Option("--accept", help="Write what was measured into data/claims.toml.")
    ] = False,
) -> None:
    """Print the ledger; exit 1 where a number left its tolerance, or a verdict changed."""
    console = Console(stderr=True)
    try:
        entries = ledger()
        if write_down:
            for line in accept(ledger_path(), entries):
                console.print(line, markup=False)
            entries = ledger()
    except DiffusionCodecError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    for row in table(entries).to_dict("records"):
        number = "–" if pd.isna(row["ours"]) else f"{row['ours']:.4g}"
        print(
            f"{row['id']}  {row['verdict']:<18}{number:>10}   {row['quantity']}: {row['counts as replicated']}"
        )
        print(f"    {row['claim']}")
        for label in ("protocol", "why not"):
            if row[label]:
                print(f"    {label}: {row[label]}")
    problems = [problem for entry in entries if (problem := entry.problem)]
    for problem in problems:
        console.print(f"error: {problem}", style="red", markup=False, soft_wrap=True)
    if problems:
        console.print("measure again, or look at the change and run `make claims ACCEPT=1`")
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
