"""The ledger of claims as a table with links, and the figures that belong to it alone."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd
from matplotlib.figure import Figure

from diffusion_codec.evaluation.claims import Entry, Verdict
from diffusion_codec.evaluation.findings import data_set, number
from diffusion_codec.figures.interactive import shared
from diffusion_codec.figures.style import COLOURS, canvas, plain_ticks

_HEAD = ("id", "claim", "measured", "counts as replicated", "verdict", "see")
_STYLE = """<style>
.ledger-box tr[hidden] { display: none; }
@media print { .ledger-box tr[hidden] { display: table-row; } }
@media (max-width: 60rem) {
  .ledger-box table, .ledger-box tbody { display: block; width: 100%; }
  .ledger-box thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  .ledger-box tr:not([hidden]) { display: grid; grid-template-columns: 8.5rem minmax(0, 1fr); padding: .6rem; }
  .ledger-box td { display: contents; }
  .ledger-box td::before { content: attr(data-head); color: var(--pst-color-text-muted, #666); }
  .ledger-box td > div { overflow-wrap: anywhere; text-align: left; }
}
</style>"""
_WORDS = {
    "variance_ratio": "variance over the formula's",
    "correlation_rms": "correlation (root mean square)",
}
_FILTER = (
    "const box=this.closest('.ledger-box'),wanted=[...box.querySelectorAll('select')].map(s=>s.value);"
    "const rows=[...box.querySelectorAll('tbody tr')];"
    "for(const r of rows)r.hidden=![r.dataset.verdict,r.dataset.testable].every((v,i)=>!wanted[i]||v===wanted[i]);"
    "box.querySelector('output').textContent=`${rows.filter(r=>!r.hidden).length} of ${rows.length} claims shown`;"
)


@dataclass(frozen=True)
class Ledger:
    """The table for a notebook's cell: HTML with links and filters, and plain text."""

    markup: str
    text: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.markup, "text/plain": self.text}


def ledger(entries: Sequence[Entry], anchors: dict[str, str], data: str) -> Ledger:
    """Every claim with its number, verdict and links to figure, notebook and data file, to filter by verdict.

    Args:
        anchors: figure of the ledger -> address of the page and place that shows it.
        data: address of the folder with the data files, seen from the page, with a slash at its end.
    """
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    body = "".join(_row(entry, anchors, data) for entry in entries)
    table = f'<table class="dataframe ledger"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    markup = f'{_STYLE}{shared()}<div class="ledger-box play">{_filters(entries)}{table}</div>'
    text = "\n".join(f"{entry.id} {entry.verdict}: {entry.claim.claim}" for entry in entries)
    return Ledger(markup, text)


def _filters(entries: Sequence[Entry]) -> str:
    verdicts = [verdict for verdict in get_args(Verdict) if verdict in {entry.verdict for entry in entries}]
    offered = {
        "verdict": [("", "all"), *((verdict, verdict) for verdict in verdicts)],
        "testable here": [("", "all"), ("yes", "yes"), ("no", "no")],
    }
    script = html.escape(_FILTER, quote=True)
    lists = ""
    for name, choices in offered.items():
        options = "".join(f'<option value="{value}">{text}</option>' for value, text in choices)
        lists += f'<label>{name} <select onchange="{script}">{options}</select></label>'
    shown = f"<output>{len(entries)} of {len(entries)} claims shown</output>"
    return f'<div class="live"><div class="controls">{lists}{shown}</div></div>'


def _row(entry: Entry, anchors: dict[str, str], data: str) -> str:
    found = entry.evidence
    value = "–" if found is None else number(found.value, ".4g" if abs(found.value) < 1000 else ",.0f")
    detail = "" if found is None else f"<br><small>{html.escape(_readable(found.protocol))}</small>"
    reason = "" if found is None else (entry.claim.not_testable or found.not_testable)
    partly = (
        f"<br><small>partly: {html.escape(str(entry.claim.partly))}</small>" if entry.claim.partly else ""
    )
    verdict = html.escape(" ".join(part for part in (entry.mark, entry.verdict) if part))
    links = [f'<a href="{anchors[entry.claim.figure]}">figure</a>'] if entry.claim.figure in anchors else []
    links.append(f'<a href="{entry.claim.notebook}.html">notebook</a>')
    if found is not None:
        links += [f'<a href="{data}{html.escape(name)}">{html.escape(name)}</a>' for name in found.files]
    cells = (
        entry.id,
        f"{html.escape(entry.claim.claim)}<br><small>{html.escape(entry.claim.quantity)}</small>",
        value + detail,
        html.escape(str(entry.claim.replicated)) + partly,
        f"<strong>{verdict}</strong>" + (f"<br><small>{html.escape(reason)}</small>" if reason else ""),
        "<br>".join(links),
    )
    shown = "".join(
        f'<td data-head="{head}"><div>{cell}</div></td>' for head, cell in zip(_HEAD, cells, strict=True)
    )
    testable = "no" if entry.verdict == "not testable here" else "yes"
    return f'<tr data-verdict="{entry.verdict}" data-testable="{testable}">{shown}</tr>'


def _readable(protocol: str) -> str:
    """A protocol in words instead of the names of columns and parts of data sets."""
    for name, words in _WORDS.items():
        protocol = protocol.replace(name, words)
    return data_set(protocol)


def rates(table: pd.DataFrame) -> Figure:
    """Bits per pixel of real files against lambda, one line a photograph (`evidence`: claims/C5.csv)."""
    figure, axes = canvas(height=3.2)
    axis = axes[0, 0]
    looks = list(zip(("blue", "vermilion", "green", "purple", "orange", "sky"), "osD^vP", strict=True))
    for place, (image, rows) in enumerate(table.sort_values("lambda_").groupby("image")):
        colour, marker = looks[place % len(looks)]
        axis.plot(rows["lambda_"], rows["bpp"], color=COLOURS[colour], marker=marker, label=str(image))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    plain_ticks(axis.yaxis)
    axis.set_xlabel("λ (logarithmic)")
    axis.set_title("Bits per pixel of the file (logarithmic)")
    axis.legend()
    return figure
