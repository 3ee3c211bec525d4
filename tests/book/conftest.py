"""A small project with two real notebooks, for the runner and the builder."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_codec.book.project import Project

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def cell(kind: str, source: str, number: int, tags: list[str] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source}
    if kind == "code":
        made |= {"execution_count": None, "outputs": []}
    if tags:
        made["metadata"]["tags"] = tags
    return made


def write_notebook(path: Path, title: str, parameters: str, code: str) -> None:
    cells = [
        cell("markdown", f"# {title}", 0),
        cell("code", parameters, 1, ["parameters"]),
        cell("code", code, 2),
        cell("markdown", "The end.", 3),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """01_sums prints a sum and writes it to its output folder; 02_reads depends on a measured result."""
    notebooks = tmp_path / "notebooks"
    (notebooks / "params" / "smoke").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "diffusion-codec"\n')
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "module.py").write_text("x = 1\n")
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "measured.csv").write_text("a\n1\n")
    (notebooks / "upstream.toml").write_text('02_reads = ["data/results/*.csv"]\n')
    write_notebook(
        notebooks / "01_sums.ipynb",
        "Sums",
        "bitrates = [0.5]\nname = 'nobody'",
        "from diffusion_codec.book.paths import output_folder\n"
        "(output_folder('01_sums') / 'sum.txt').write_text(str(sum(bitrates)))\n"
        "print('sum', sum(bitrates))",
    )
    write_notebook(notebooks / "02_reads.ipynb", "Reads", "rows = 1", "print(rows)")
    for folder, rates in ((notebooks / "params", "[1, 2]"), (notebooks / "params" / "smoke", "[1]")):
        (folder / "01_sums.yaml").write_text(f"bitrates: {rates}\n")
        (folder / "02_reads.yaml").write_text("rows: 2\n")
    return Project(tmp_path)
