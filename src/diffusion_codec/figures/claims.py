"""The ledger of claims as a table with links, and the figures that belong to it alone."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from diffusion_codec.evaluation.claims import Entry
from diffusion_codec.figures.style import COLOURS, canvas

_HEAD = ("", "claim", "measured", "counts as replicated", "verdict", "see")


@dataclass(frozen=True)
class Ledger:
    """The table for a notebook's cell: HTML with links, and plain text."""

    markup: str
    text: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.markup, "text/plain": self.text}


def ledger(entries: Sequence[Entry], anchors: dict[str, str], data: str) -> Ledger:
    """Every claim with its number, verdict and links to figure, notebook and data file.

    Args:
        anchors: figure of the ledger -> address of the page and place that shows it.
        data: address of the place that offers the data files, seen from the page.
    """
    rows = []
    for entry in entries:
        found = entry.evidence
        number = "–" if found is None else f"{found.value:.4g}"
        detail = "" if found is None else f"<br><small>{html.escape(found.protocol)}</small>"
        reason = "" if found is None else (entry.claim.not_testable or found.not_testable)
        verdict = html.escape(" ".join(part for part in (entry.mark, entry.verdict) if part))
        links = (
            [f'<a href="{anchors[entry.claim.figure]}">figure</a>'] if entry.claim.figure in anchors else []
        )
        links.append(f'<a href="{entry.claim.notebook}.html">notebook</a>')
        if found is not None:
            links += [f'<a href="{data}">{html.escape(name)}</a>' for name in found.files]
        cells = (
            entry.id,
            f"{html.escape(entry.claim.claim)}<br><small>{html.escape(entry.claim.quantity)}</small>",
            number + detail,
            html.escape(str(entry.claim.replicated)),
            f"<strong>{verdict}</strong>" + (f"<br><small>{html.escape(reason)}</small>" if reason else ""),
            "<br>".join(links),
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    markup = f'<table class="dataframe ledger"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    text = "\n".join(f"{entry.id} {entry.verdict}: {entry.claim.claim}" for entry in entries)
    return Ledger(markup, text)


def rates(table: pd.DataFrame) -> Figure:
    """Bits per pixel of real files against lambda, one line a photograph (`evidence`: claims/C5.csv)."""
    figure, axes = canvas(height=3.2)
    axis = axes[0, 0]
    looks = list(zip(("blue", "vermilion", "green", "purple", "orange", "sky"), "osD^vP", strict=True))
    for number, (image, rows) in enumerate(table.sort_values("lambda_").groupby("image")):
        colour, marker = looks[number % len(looks)]
        axis.plot(rows["lambda_"], rows["bpp"], color=COLOURS[colour], marker=marker, label=str(image))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("λ (logarithmic)")
    axis.set_title("Bits per pixel of the file (logarithmic)")
    axis.legend()
    return figure
