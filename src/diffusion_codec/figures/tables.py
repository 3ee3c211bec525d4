"""Tables as Jupyter and the book show them."""

from collections.abc import Mapping

import pandas as pd
from pandas.io.formats.style import Styler


def shown(frame: pd.DataFrame, precision: int = 3, formats: Mapping[str, str] | None = None) -> Styler:
    """A table without its index, in the class that the book stripes and spaces.

    Args:
        precision: decimals of every number.
        formats: column -> format string, for columns that need another form.
    """
    styled = frame.style.hide(axis="index").format(precision=precision, na_rep="–")
    for column, form in (formats or {}).items():
        styled = styled.format(form, subset=[column])
    return styled.set_table_attributes('class="dataframe"')
