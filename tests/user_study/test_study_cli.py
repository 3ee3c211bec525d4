"""`diffusion-codec study` as a person types it, on real photographs and real codecs."""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffusion_codec import cli
from diffusion_codec.user_study import design, store, votes
from diffusion_codec.user_study.store import Store
from tests.user_study.studies import make_study


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main(["study", *map(str, arguments)])
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


SMALL = ("--dataset", "sample", "--images", "1", "--codec", "webp", "--rivals", "jpeg", "--bitrate", "0.5")
SESSION = ("--ratios", "1,2", "--trials", "4", "--repeats", "1", "--sentinels", "1", "--crop", "96")


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("designed")
    done = run("design", folder, *SMALL, *SESSION)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_design_makes_a_study_of_real_files_and_says_how_many_votes_it_takes(
    designed: tuple[Path, str],
) -> None:
    folder, said = designed
    study = design.load(folder)
    assert (study.trials, study.main_trials, len(study.pairs)) == (4, 2, 2)
    for stimulus in study.stimuli:
        if stimulus.condition.target_bpp is not None:
            assert stimulus.bpp is not None
            assert 0.5 * stimulus.condition.target_bpp < stimulus.bpp <= stimulus.condition.target_bpp
    assert "194 votes" in said
    assert "libwebp" in study.codecs["webp"]


def test_a_study_is_kept_when_asked_to_and_votes_are_never_overwritten(designed: tuple[Path, str]) -> None:
    folder, _ = designed
    before = design.load(folder)
    kept = run("design", folder, "--keep")
    assert kept.returncode == 0
    assert "is kept" in kept.stdout
    assert design.load(folder) == before
    Store(folder / store.FILE, before)
    refused = run("design", folder, *SMALL)
    assert refused.returncode == 1
    assert "holds votes" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--share", "0.4"), "share is between"),
        (("--ratios", "-1"), "ratios"),
        (("--rivals", "webp"), "named once"),
        (("--rivals", "nothing"), "unknown"),
        (("--dataset", "nothing"), "unknown"),
        (("--trials", "2"), "must be 1 to"),
    ],
)
def test_what_makes_no_study_is_one_clear_error(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    done = run("design", tmp_path / "x", *SMALL, *SESSION, *arguments)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_export_writes_the_csv_to_a_file_or_to_standard_output(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    kept = Store(tmp_path / store.FILE, study)
    kept.vote(kept.begin()[0], 0, "b", 2.0)
    shown = run("export", tmp_path)
    assert shown.stdout.splitlines()[0] == ",".join(votes.FIELDS)
    assert len(shown.stdout.splitlines()) == 2
    target = tmp_path / "votes.csv"
    assert run("export", tmp_path, "--out", target).returncode == 0
    assert target.read_text() == shown.stdout
    again = run("export", tmp_path, "--out", target)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_folder_without_a_study_says_what_to_do(tmp_path: Path) -> None:
    for command in ("serve", "export", "page"):
        done = run(command, tmp_path)
        assert done.returncode == 1
        assert "study design" in done.stderr


def test_the_page_without_a_server_is_one_file(tmp_path: Path) -> None:
    make_study(tmp_path)
    done = run("page", tmp_path, "--out", tmp_path / "study.html", "--sessions", "2")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "study.html").read_text()
    assert "data:image/webp;base64," in text
    assert "Content-Security-Policy" in text
    assert "src=" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_observers_say_that_they_are_not_people(tmp_path: Path) -> None:
    done = run("observers", "--out", tmp_path / "judged.csv")
    assert done.returncode == 0, done.stderr
    assert "model observers" in done.stdout
    assert (
        (tmp_path / "judged.csv").read_text().startswith("rival,asked,ratio,observer,share,low,high,images")
    )


@pytest.mark.parametrize("command", ["page", "observers"])
def test_an_existing_file_is_replaced_only_with_force(command: str, tmp_path: Path) -> None:
    make_study(tmp_path / "study")
    target = tmp_path / "out"
    target.write_text("precious")
    arguments = [command, *([tmp_path / "study"] if command == "page" else []), "--out", target]
    refused = run(*arguments)
    assert (refused.returncode, refused.stdout, target.read_text()) == (1, "", "precious")
    assert "exists already: choose another name, or overwrite it with --force" in refused.stderr
    assert run(*arguments, "--force").returncode == 0
    assert len(target.read_text()) > 100
