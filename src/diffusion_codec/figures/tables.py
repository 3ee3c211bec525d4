"""Tables as Jupyter and the book show them: for readers, whatever the columns of the csv files are called."""

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any

import pandas as pd
from pandas.api.types import is_bool
from pandas.io.formats.style import Styler

from diffusion_codec.evaluation.findings import LABELS, number

NAMES = LABELS | {
    "anchor": "against",
    "asked": "bits per pixel asked for",
    "BD-quality": "BD-quality (unit of the metric)",
    "BD-rate %": "BD-rate (%)",
    "bpp": "bits per pixel",
    "container": "container, bytes",
    "correlation_rms": "correlation, root mean square",
    "decode": "decode (s)",
    "encode": "encode (s)",
    "high": "95 %: to",
    "information": "information (bits)",
    "images": "photographs",
    "kind": "error",
    "ks": "distance to uniform",
    "low": "95 %: from",
    "measured": "bits per pixel measured",
    "preferred_percent": "preferred (%)",
    "psnr": "PSNR (dB)",
    "repeats_same": "repeats answered alike",
    "rival_bpp": "bits per pixel of the rival",
    "sentinels_right": "sentinels right",
    "target_bpp": "bits per pixel asked for",
    "variance_ratio": "variance / (Δ²/12)",
}
"""Columns of the records -> what a reader is shown."""

FORMS = {"asked": "g", "bytes": ",.0f", "container": ",.0f", "psnr": ".2f", "target_bpp": "g"}
"""Columns with a form of their own, whatever the decimals of the others are."""


def shown(frame: pd.DataFrame, precision: int = 3, formats: Mapping[str, str] | None = None) -> Styler:
    """A table without its index, in the class that the book stripes and spaces; numbers stand to the right.

    Args:
        precision: decimals of every number that is not whole.
        formats: column -> format of its numbers (as in f-strings), for columns that need another form.
    """
    forms = FORMS | dict(formats or {})
    names = [NAMES.get(column, column) for column in frame.columns]
    styled = frame.set_axis(names, axis=1).style.hide(axis="index")
    for column, name in zip(frame.columns, names, strict=True):
        styled = styled.format(partial(_cell, form=forms.get(column), precision=precision), subset=[name])
        if _numbers(frame[column]):
            aside = [{"selector": "", "props": [("text-align", "right")]}]
            styled = styled.set_table_styles({name: aside}, overwrite=False)
    return styled.set_table_attributes('class="dataframe"')


def _numbers(column: pd.Series) -> bool:
    known = column.dropna()
    return len(known) > 0 and all(isinstance(value, Real) and not is_bool(value) for value in known)


def _cell(value: Any, form: str | None, precision: int) -> str:
    if isinstance(value, str):
        return LABELS.get(value, value)
    if pd.isna(value):
        return "–"
    if is_bool(value):
        return "yes" if value else "no"
    return number(value, form or ("," if isinstance(value, Integral) else f",.{precision}f"))
