"""What the pages promise: commands that exist, code that is the code, captions that say where a figure comes from."""

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from diffusion_codec.book import builder, execution, runner
from diffusion_codec.book.paths import repository_root
from diffusion_codec.book.project import Project, parse_parameters
from diffusion_codec.cli import app

ROOT = repository_root(Path(__file__).parent)
PROJECT = Project(ROOT)
SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(
    r"^[ >]*(`{3,}|~{3,})(?:\{code-block\} )?(?:sh|bash)\n(.*?)^[ >]*\1", re.MULTILINE | re.DOTALL
)
RUN = re.compile(r"make run NB=(\w+)(?: P='([^']*)')?")
FIGURE = re.compile(r"^(`{3,})\{figure\} (\S+)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LITERAL = re.compile(r"^(?:`{3,}|:{3,})\{literalinclude\} (\S+)\n((?::.*\n)*)", re.MULTILINE)

# What a caption has to say: on which model, and whether measured when the book was built or before.
BACKBONE = re.compile(
    r"`mini`|{glue:md}`backbone`|no\s+network|No\s+network|drawing|no\s+codec|HiFiC's codecs|same .*backbone"
    r"|backbone and records"
)
WHEN = re.compile(r"now\b|stored|drawing|when this book was built|_caption`|records\.", re.IGNORECASE)


def texts() -> dict[str, str]:
    """Prose of README, pages and notebooks by name."""
    pages = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
    found = {path.name: path.read_text(encoding="utf-8") for path in pages}
    for name in PROJECT.notebooks:
        cells = json.loads(PROJECT.source(name).read_text(encoding="utf-8"))["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        found[f"{name}.ipynb"] = "\n\n".join(prose)
    return found


def commands(text: str) -> Iterator[str]:
    """Lines of shell fences, continued ones joined, and inline code."""
    for fence in FENCE.finditer(text):
        yield from (line.split(" #")[0] for line in fence[2].replace("\\\n", " ").splitlines())
    yield from (span[1] for span in SPAN.finditer(FENCE.sub("", text)))


def unknown(command: str) -> str:
    """What of a `diffusion-codec` command line does not exist; empty where all of it does."""
    words = shlex.split(command.split("diffusion-codec ", 1)[1])
    found: Any = typer.main.get_command(app)
    while hasattr(found, "resolve_command") and words and not words[0].startswith("-"):
        try:
            _, found, words = found.resolve_command(found.context_class(found), words)
        except Exception as error:
            return str(error)
    options = {
        option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    given = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
    return " ".join(sorted(given - options - {"--help", "-h"}))


def part(code: str, name: str) -> str:
    """The lines of a function or class by its dotted name. Raises StopIteration where there is none."""
    body: list[Any] = ast.parse(code).body
    for piece in name.split("."):
        found = next(node for node in body if getattr(node, "name", None) == piece)
        body = found.body
    return "\n".join(code.splitlines()[found.lineno - 1 : found.end_lineno])


def test_every_command_line_in_the_prose_has_a_command_and_options_that_exist() -> None:
    seen, wrong = 0, []
    for name, text in texts().items():
        for command in commands(text):
            if re.match(r"(?:\S*/|for .*do |\$ )?diffusion-codec \S", command.strip()):
                seen += 1
                if absent := unknown(command.split(" >")[0].split("; done")[0].split(" && ")[0]):
                    wrong.append(f"{name}: {command.strip()}: no {absent}")
    assert seen > 40
    assert wrong == []


def test_every_rerun_in_the_prose_names_a_notebook_and_its_parameters() -> None:
    seen = set()
    for name, text in texts().items():
        for match in RUN.finditer(text):
            notebook = PROJECT.find(match[1])
            given = parse_parameters(match[2] or "", name)
            runner.check_names(PROJECT, notebook, given)
            seen.add(notebook)
    assert seen == set(PROJECT.notebooks), "every chapter shows the command that runs it again"


@pytest.mark.parametrize("notebook", PROJECT.notebooks)
def test_every_parameter_of_a_notebook_can_be_given(notebook: str) -> None:
    """Papermill reads the cell by line and overlooks an assignment whose comment holds an equals sign."""
    cells = json.loads(PROJECT.source(notebook).read_text(encoding="utf-8"))["cells"]
    cell = next(cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    assigned = [
        target.id
        for statement in ast.parse("".join(cell["source"])).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
    assert assigned
    assert runner.known_parameters(PROJECT, notebook) == assigned


def test_every_make_target_in_the_prose_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name, text in texts().items():
        for command in commands(text):
            if match := re.match(r"(?:time )?make ([a-z-]+)", command.strip()):
                assert match[1] in targets, f"{name}: {command}"


def test_code_that_pages_show_is_staged_and_there() -> None:
    shown = 0
    for name, text in texts().items():
        for match in LITERAL.finditer(text):
            source = match[1].removeprefix("../")
            assert source in builder.SHOWN_CODE, f"{name} shows {source}, which is not staged"
            code = (ROOT / source).read_text(encoding="utf-8")
            options = dict(re.findall(r"^:([\w-]+): ?(.*)$", match[2], re.MULTILINE))
            if "pyobject" in options:
                code = part(code, options["pyobject"])
            for edge in ("start-at", "end-at"):
                assert options.get(edge, "").strip() in code, f"{name}: {edge} {options[edge]!r}"
            shown += 1
    assert shown > 10


def test_every_figure_says_what_is_seen_on_which_model_and_when_it_was_measured() -> None:
    wrong, seen = [], 0
    for name, text in texts().items():
        for match in FIGURE.finditer(text):
            seen += 1
            options, _, caption = match[3].partition("\n\n")
            missing = [
                what
                for what, there in (
                    ("alt text", re.search(r"^:alt: \S.{30,}", options, re.MULTILINE)),
                    ("the backbone", BACKBONE.search(caption)),
                    ("now or stored", WHEN.search(caption)),
                )
                if not there
            ]
            wrong += [f"{name}: {match[2]} lacks {what}" for what in missing]
    assert seen > 30
    assert wrong == []


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_role", ROOT / "book" / "_ext" / "results.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "results"
    folder.mkdir(parents=True)
    (folder / "few.csv").write_text(
        'name,steps,value\na,1,0.123456\na,2,7\nb,1,-1\n"c, d",1,5\n', encoding="utf-8"
    )
    return tmp_path


def test_a_number_of_a_table_is_found_by_its_row(results: ModuleType, table: Path) -> None:
    assert results.found(table, "few.csv | value | name=a, steps=1 | .3f") == "0.123"
    assert results.found(table, "few.csv | value | name=b | +.1f") == "\N{MINUS SIGN}1.0"
    assert results.found(table, "few.csv | value | name=c, d, steps=1 | .0f") == "5"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-0.3", "−0.3"),
        ("0.1 (-.2 to +3)", "0.1 (−.2 to +3)"),
        ("2026-11-26", "2026-11-26"),
        ("1e-05, kodak-2, --steps", "1e-05, kodak-2, --steps"),
    ],
)
def test_only_negative_numbers_get_a_minus_sign(results: ModuleType, text: str, shown: str) -> None:
    assert results.with_minus(text) == shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("few.csv | value", "expected"),
        ("gone.csv | value | name=a | .3f", "there is no data/results/gone.csv"),
        ("few.csv | price | name=b | .3f", "no column price"),
        ("few.csv | value | name=a | .3f", "2 rows"),
        ("few.csv | value | name=c | .3f", "0 rows"),
        ("few.csv | name | name=b | .3f", "could not convert"),
    ],
)
def test_a_number_that_is_not_there_is_an_error(
    results: ModuleType, table: Path, text: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        results.found(table, text)


def test_what_a_run_took_is_kept_in_the_notebook_and_put_into_tables(tmp_path: Path) -> None:
    took = execution.Execution(
        12.3, 20.1, 0.5, "2026-01-02 03:04", True, "Linux x86_64, 2 cores", "3.11.7", {"b": "2"}
    )
    notebooks = [tmp_path / name for name in ("00_a.ipynb", "01_b.ipynb", "02_c.ipynb")]
    for notebook in notebooks:
        notebook.write_text('{"cells": [], "metadata": {"kept": 1}}', encoding="utf-8")
    execution.note(notebooks[0], took)
    other = execution.Execution(
        1, 0, 0, "2026-01-02 03:05", False, "Darwin arm64, 8 cores", "3.12.1", {"c": "1"}
    )
    execution.note(notebooks[1], other)
    assert execution.of(notebooks[0]) == took
    assert execution.of(notebooks[2]) is None
    assert json.loads(notebooks[0].read_text(encoding="utf-8"))["metadata"]["kept"] == 1
    execution.write_tables(notebooks, tmp_path / "data")
    rows = (tmp_path / "data" / "execution.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
    assert rows[1].startswith("[00_a](../notebooks/00_a.ipynb),12,20,0.5,2026-01-02 03:04,smoke,")
    assert ",–,0.0," in rows[2]
    packages = (tmp_path / "data" / "environments.csv").read_text(encoding="utf-8")
    assert packages.splitlines() == [
        'package,"version, machine 1","version, machine 2"',
        "b,2,–",
        "c,–,1",
        "python,3.11.7,3.12.1",
    ]
