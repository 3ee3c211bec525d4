"""Real papermill runs of small notebooks, through the command line that `make run` calls."""

import json
from pathlib import Path

import pytest

from diffusion_codec.book import cache, execution, runner
from diffusion_codec.book.__main__ import main
from diffusion_codec.book.builder import refresh_prose
from diffusion_codec.book.project import Project, Request


@pytest.fixture(autouse=True)
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project.root / "notebooks"
    monkeypatch.chdir(below)


def outputs(project: Project, notebook: str) -> str:
    cells = json.loads(project.executed(notebook).read_text())["cells"]
    return "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))


def test_run_keeps_the_result_and_runs_again_only_when_something_changed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "01"]) == 0
    assert "sum 3" in outputs(project, "01_sums")
    assert (project.stage / "figures" / "01_sums" / "sum.txt").read_text() == "3"
    metadata = json.loads(project.executed("01_sums").read_text())["metadata"]["papermill"]
    assert metadata["input_path"] == "notebooks/01_sums.ipynb"
    assert str(project.root) not in project.executed("01_sums").read_text()
    took = execution.of(project.executed("01_sums"))
    assert took
    assert took.seconds > 0
    assert "numpy" in took.versions
    assert not took.smoke
    capsys.readouterr()

    assert main(["run", "01"]) == 0
    assert "up to date" in capsys.readouterr().out

    assert main(["run", "01", "-P", "bitrates: [4, 0.5]"]) == 0
    assert "sum 4.5" in outputs(project, "01_sums")
    assert cache.asked(project, "01_sums") == Request(overrides={"bitrates": [4, 0.5]})
    assert not list((project.stage / "notebooks").glob("*.part.ipynb"))


def test_a_misspelt_parameter_lists_the_right_names_and_runs_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "01", "-P", "bitrate: [0.1]"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "error: 01_sums has no parameter 'bitrate'; it has: bitrates, name\n"
    assert not project.executed("01_sums").exists()
    assert cache.asked(project, "01_sums") is None


def test_a_failing_cell_shows_its_exception_and_is_not_taken_for_done(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    source = project.source("02_reads")
    source.write_text(source.read_text().replace("print(rows)", "raise RuntimeError('the well is dry')"))
    assert main(["run", "02"]) == 1
    error = capsys.readouterr().err
    assert "RuntimeError" in error
    assert "the well is dry" in error
    assert "\x1b[" not in error
    project = Project(project.root)
    assert not cache.is_fresh(project, "02_reads", project.key("02_reads", Request()))
    assert not project.executed("02_reads").exists()
    assert project.executed("02_reads").with_suffix(".part.ipynb").exists()


def test_a_slip_in_a_parameter_costs_no_result(project: Project) -> None:
    """The result stays good when a run fails before it has written anything; after that it does not."""
    assert main(["run", "01"]) == 0
    kept = project.key("01_sums", Request())
    assert main(["run", "01", "-P", "bitrates: many"]) == 1
    assert cache.is_fresh(project, "01_sums", kept)
    source = project.source("01_sums")
    cells = json.loads(source.read_text())
    cells["cells"][-1] |= {"cell_type": "code", "outputs": [], "execution_count": None, "source": "1 / 0"}
    source.write_text(json.dumps(cells))
    assert main(["run", "01"]) == 1
    assert not cache.is_fresh(project, "01_sums", kept)


def test_an_interrupted_run_says_so_in_a_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert main(["run", "01"]) == 130
    assert capsys.readouterr().err == "interrupted; what was finished before is kept\n"


def test_new_prose_reaches_the_executed_notebook_without_a_run(project: Project, tmp_path: Path) -> None:
    source = json.loads(project.source("01_sums").read_text())
    ran = json.loads(json.dumps(source))
    injected = dict(
        ran["cells"][1], id="new", metadata={"tags": ["injected-parameters"]}, source="bitrates = [9]"
    )
    ran["cells"].insert(2, injected)
    ran["cells"][3]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "sum 9"}]
    executed = tmp_path / "executed.ipynb"
    executed.write_text(json.dumps(ran))
    source["cells"][0]["source"] = "# New title"
    source["cells"].insert(1, dict(source["cells"][0], id="more", source="More."))
    project.source("01_sums").write_text(json.dumps(source))

    refresh_prose(project.source("01_sums"), executed)
    cells = json.loads(executed.read_text())["cells"]
    assert [c["source"] for c in cells[:4]] == [
        "# New title",
        "More.",
        ran["cells"][1]["source"],
        "bitrates = [9]",
    ]
    assert cells[4]["outputs"][0]["text"] == "sum 9"
    assert cells[5]["source"] == "The end."


def test_a_build_ends_with_the_error_of_the_notebook_that_fails(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """Notebooks run in processes of their own; the error comes through, sockets of kernels do not stay."""
    source = project.source("02_reads")
    source.write_text(source.read_text().replace("print(rows)", "1 / 0"))
    assert main(["build", "--smoke"]) == 1
    told = capfd.readouterr()
    assert "error: 02_reads: cell 3 failed with ZeroDivisionError" in told.err
    assert "running 01_sums (smoke, bitrates=[1])" in told.out
    assert not (project.build / "html").exists()
    assert not list(project.root.rglob("*-ipc*"))
