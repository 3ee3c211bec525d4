"""The notebooks as files: normalised, parameterised, listed in the book. `make book SMOKE=1` runs them."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from diffusion_codec.book import runner
from diffusion_codec.book.paths import repository_root
from diffusion_codec.book.project import Project, Request, code_cells

PROJECT = Project(repository_root(Path(__file__).parent))


def contents() -> list[str]:
    toc = yaml.safe_load((PROJECT.root / "book" / "_toc.yml").read_text())
    return [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]


def test_the_table_of_contents_lists_what_there_is() -> None:
    listed = [Path(file).name for file in contents() if file.startswith("notebooks/")]
    assert sorted(listed) == list(PROJECT.notebooks)
    pages = [PROJECT.root / f"{file}.md" for file in contents() if file.startswith("book/")]
    assert [page.name for page in pages if not page.is_file()] == []


def test_every_notebook_has_both_sets_of_parameters_with_names_it_knows() -> None:
    for notebook in PROJECT.notebooks:
        for request in (Request(), Request(smoke=True)):
            parameters = PROJECT.parameters(notebook, request)
            runner.check_names(PROJECT, notebook, parameters)


def test_a_notebook_runs_again_when_a_result_it_names_changes() -> None:
    stored = PROJECT.root / "data" / "results"
    results = [path for path in stored.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    upstream = tomllib.loads((PROJECT.root / "notebooks" / "upstream.toml").read_text())
    forgotten = []
    for notebook in PROJECT.notebooks:
        code = "\n".join(code_cells(PROJECT.source(notebook)))
        known = {path for glob in upstream.get(notebook, []) for path in PROJECT.root.glob(glob)}
        named = [path for path in results if f'"{path.name}"' in code or f"/{path.name}" in code]
        forgotten += [(notebook, path.name) for path in named if path not in known]
    assert forgotten == []


def test_a_data_set_that_may_not_be_had_has_another_to_take_its_place() -> None:
    """A clone alone, without mirror and network, builds the whole book."""
    code = "\n".join(line for name in PROJECT.notebooks for line in code_cells(PROJECT.source(name)))
    assert set(re.findall(r"datasets\.load\(([^)]*)\)", code)) == {'"sample"'}


def test_no_set_of_parameters_is_left_without_a_notebook() -> None:
    files = (PROJECT.root / "notebooks" / "params").rglob("*.yaml")
    assert {path.stem for path in files} == set(PROJECT.notebooks)


def test_notebooks_are_committed_without_outputs_and_with_stable_names_of_cells() -> None:
    sources = [str(PROJECT.source(notebook)) for notebook in PROJECT.notebooks]
    assert sources
    command = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make format`:\n{done.stdout}{done.stderr}"
    for notebook in PROJECT.notebooks:
        ids = [cell["id"] for cell in json.loads(PROJECT.source(notebook).read_text())["cells"]]
        assert len(ids) == len(set(ids)), notebook


def test_notebooks_name_the_kernel_that_plain_papermill_starts() -> None:
    for notebook in PROJECT.notebooks:
        metadata = json.loads(PROJECT.source(notebook).read_text())["metadata"]
        assert metadata["kernelspec"]["name"] == "python3", notebook
        assert "papermill" not in metadata, notebook
