"""Published rate-quality curves, one panel a protocol: numbers of two protocols never share an axis."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from diffusion_codec.evaluation.published import one_protocol
from diffusion_codec.figures.rate_distortion import CEILING, Line, legend, metric_label, rate_axis
from diffusion_codec.figures.style import COLOURS, canvas

TICKS = (0.003, 0.01, 0.03, 0.1, 0.3)
_NAMES = ("blue", "vermilion", "green", "purple", "orange", "sky", "grey")
_MARKERS = "osD^vP<>"


def panels(tables: Sequence[pd.DataFrame], metric: str, titles: Sequence[str]) -> Figure:
    """One panel a table of published numbers of one metric; a codec looks the same in all of them.

    Raises NotComparableError for a table of more than one protocol.
    """
    codecs = sorted({name for table in tables for name in table["codec"]})
    looks = {name: _look(name, number) for number, name in enumerate(codecs)}
    figure, axes = canvas(columns=len(tables), height=3.6)
    for axis, table, title in zip(axes[0], tables, titles, strict=True):
        one_protocol(table, metric)
        for codec, rows in table.groupby("codec"):
            look = looks[codec]
            if rows["bpp"].isna().all():
                axis.axhline(
                    rows["value"].iloc[0], color=look.colour, linestyle=look.dashes, label=look.label
                )
            else:
                style = {"color": look.colour, "marker": look.marker, "linestyle": look.dashes}
                axis.plot(rows["bpp"], rows["value"], label=look.label, **style)
        axis.set_title(f"{metric_label(metric)}: {title}")
        rate_axis(axis, table["bpp"])
        low, high = axis.get_xlim()
        axis.set_xticks([tick for tick in TICKS if low <= tick <= high])
    legend(figure, axes)
    return figure


def _look(name: str, number: int) -> Line:
    if name.startswith(CEILING.removesuffix("-")):
        return Line(name, COLOURS["black"], "", (0, (4, 3)), 1.2)
    dashes = "-" if number < len(_NAMES) else "--"
    return Line(name, COLOURS[_NAMES[number % len(_NAMES)]], _MARKERS[number % len(_MARKERS)], dashes)
