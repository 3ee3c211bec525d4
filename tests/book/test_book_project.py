"""Names, parameters and the hash that decides whether a notebook has to run."""

from pathlib import Path

import pytest

from diffusion_codec.book import cache, paths
from diffusion_codec.book.project import BookError, Project, Request, parse_parameters
from diffusion_codec.errors import BadInputError, MissingDataError


@pytest.mark.parametrize("name", ["01", "01_sums", "01_su", "notebooks/01_sums.ipynb"])
def test_a_notebook_is_found_by_number_name_or_file(project: Project, name: str) -> None:
    assert project.find(name) == "01_sums"


@pytest.mark.parametrize("name", ["", "0", "03", "sums"])
def test_a_name_that_is_not_one_notebook_lists_them(project: Project, name: str) -> None:
    with pytest.raises(BadInputError, match="01_sums, 02_reads"):
        project.find(name)


def test_parameters_are_the_set_with_the_overrides_laid_over_it(project: Project) -> None:
    assert project.parameters("01_sums", Request()) == {"bitrates": [1, 2]}
    assert project.parameters("01_sums", Request(smoke=True)) == {"bitrates": [1]}
    request = Request(overrides={"bitrates": [3], "name": "x"})
    assert project.parameters("01_sums", request) == {"bitrates": [3], "name": "x"}


def test_a_notebook_without_a_parameter_set_is_an_error(project: Project) -> None:
    project.parameters_file("01_sums", smoke=True).unlink()
    with pytest.raises(BookError, match=r"notebooks/params/smoke/01_sums\.yaml is missing"):
        project.parameters("01_sums", Request(smoke=True))


def test_parameters_in_words() -> None:
    assert parse_parameters("bitrates: [0.1, 0.2]", "-P") == {"bitrates": [0.1, 0.2]}
    assert parse_parameters("{a: 1, b: two}", "-P") == {"a": 1, "b": "two"}
    assert parse_parameters("", "-P") == {}
    for wrong in ("bitrates", "bitrates=[0.1]", "[0.1]", "1: 2", "a: [", "!!python/object:os.system {}"):
        with pytest.raises(BadInputError, match="-P"):
            parse_parameters(wrong, "-P")


def changed_key(project: Project, notebook: str, request: Request | None = None) -> str:
    return Project(project.root).key(notebook, request or Request())


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_key_follows_code_parameters_package_and_upstream_but_not_prose(project: Project) -> None:
    before = {name: project.key(name, Request()) for name in project.notebooks}
    replace(project.source("01_sums"), "The end.", "Fin.")
    assert changed_key(project, "01_sums") == before["01_sums"]
    assert changed_key(project, "01_sums", Request(smoke=True)) != before["01_sums"]
    assert changed_key(project, "01_sums", Request(overrides={"name": "x"})) != before["01_sums"]

    (project.root / "data" / "results" / "measured.csv").write_text("a\n2\n")
    assert changed_key(project, "01_sums") == before["01_sums"]
    assert changed_key(project, "02_reads") != before["02_reads"]

    replace(project.source("01_sums"), "'sum'", "'total'")
    assert changed_key(project, "01_sums") != before["01_sums"]

    both = {name: changed_key(project, name) for name in project.notebooks}
    (project.root / "src" / "weights.safetensors").write_bytes(b"new")
    assert all(changed_key(project, name) != both[name] for name in project.notebooks)


def test_the_key_follows_the_files_and_folders_that_parameters_name(project: Project, tmp_path: Path) -> None:
    album = tmp_path / "album of mine"
    album.mkdir()
    votes = project.root / "votes.csv"
    votes.write_text("a\n")
    request = Request(overrides={"bitrates": ["votes.csv", "x" * 300, ""], "name": str(album)})
    before = changed_key(project, "01_sums", request)
    assert changed_key(project, "01_sums", request) == before
    votes.write_text("b\n")
    after = changed_key(project, "01_sums", request)
    assert after != before
    (album / "one.png").write_bytes(b"picture")
    assert changed_key(project, "01_sums", request) != after


def test_caches_of_python_do_not_change_the_key(project: Project) -> None:
    before = project.key("01_sums", Request())
    (project.root / "src" / "__pycache__").mkdir()
    (project.root / "src" / "__pycache__" / "module.pyc").write_bytes(b"x")
    assert changed_key(project, "01_sums") == before


def test_upstream_for_an_unknown_notebook_is_an_error(project: Project) -> None:
    (project.root / "notebooks" / "upstream.toml").write_text('07_gone = ["data/*"]\n')
    with pytest.raises(BookError, match="07_gone"):
        changed_key(project, "01_sums")


def test_what_was_asked_for_is_remembered_until_a_run_with_the_defaults(project: Project) -> None:
    request = Request(smoke=True, overrides={"bitrates": [0.1]})
    cache.remember(project, "01_sums", request)
    assert cache.asked(project, "01_sums") == request
    cache.remember(project, "01_sums", Request())
    assert cache.asked(project, "01_sums") is None


def test_the_root_is_found_from_below(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "build" / "stage"
    below.mkdir(parents=True)
    assert paths.repository_root(below) == tmp_path.resolve()
    monkeypatch.chdir(below)
    monkeypatch.delenv(paths.STAGE_VARIABLE, raising=False)
    assert paths.output_folder("01_sums") == tmp_path.resolve() / "build" / "figures" / "01_sums"
    monkeypatch.setenv(paths.STAGE_VARIABLE, str(tmp_path / "s"))
    assert paths.output_folder("01_sums") == tmp_path / "s" / "figures" / "01_sums"


def test_no_clone_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "installed" / "paths.py"))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    with pytest.raises(MissingDataError, match="clone"):
        paths.repository_root(tmp_path)
