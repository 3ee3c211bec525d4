"""Sphinx extension: a number of a measured table in the text, so that nobody types it.

    {result}`codec_choices.csv | lpips-alex at 0.1 | choice=paper-2025 | .3f`

is the cell of data/results/codec_choices.csv in the named column of the one row that fulfils the conditions (several
with commas between; a value may have some, too). A file, column or row that is not there is a warning, which stops the
build. Negative numbers, here and in tables, get a true minus sign.
"""

import csv
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxRole

FOLDER = Path("data") / "results"
NEXT = re.compile(r",\s*(?=[^,=]+=)")
"""Between two conditions; a comma within a value is none."""
NEGATIVE = re.compile(r"(?<![\w.\-])-(?=\.?\d)")


def found(root: Path, text: str) -> str:
    """The number that `file | column | key=value, ... | format` names. Raises ValueError saying what is wrong."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 4:
        raise ValueError(f"expected 'file | column | key=value | format', got {text!r}")
    file, column, conditions, form = parts
    path = root / FOLDER / file
    if not path.is_file():
        raise ValueError(f"there is no data/results/{file}")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    wanted = [tuple(condition.split("=", 1)) for condition in NEXT.split(conditions) if condition]
    columns = set(rows[0]) if rows else set()
    absent = sorted({column, *(pair[0] for pair in wanted)} - columns)
    if absent or any(len(pair) != 2 for pair in wanted):
        raise ValueError(f"{file} has no column {', '.join(absent)}; it has {', '.join(sorted(columns))}")
    fitting = [row for row in rows if all(row[pair[0]] == pair[1] for pair in wanted)]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} rows of {file} fulfil {conditions!r}, expected one")
    return with_minus(f"{float(fitting[0][column]):{form}}")


def with_minus(text: str) -> str:
    """Negative numbers with the minus sign instead of the hyphen of a data file."""
    return NEGATIVE.sub("\N{MINUS SIGN}", text)


class Result(SphinxRole):
    """One number of data/results in the text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number as text."""
        try:
            return [nodes.Text(found(Path(self.env.srcdir), self.text))], []
        except ValueError as error:
            return [], [self.inliner.reporter.error(f"result: {error}", line=self.lineno)]


class MinusInTables(SphinxTransform):
    """The minus sign in the cells of every table."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        """Change the text of the document's tables; what is code stays as it is."""
        for entry in self.document.findall(nodes.entry):
            for text in list(entry.findall(nodes.Text)):
                changed = with_minus(text)
                if changed != text and not isinstance(text.parent, nodes.literal | nodes.math):
                    text.parent.replace(text, nodes.Text(changed))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_role("result", Result())
    app.add_transform(MinusInTables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
